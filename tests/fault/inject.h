/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a command and interferes with one of its system calls.
 *
 * One counter goes over the system calls of all processes and threads of the command, in the order
 * in which they enter the kernel.  A seccomp filter stops each call before it is carried out, and
 * ptrace decides; the command runs freely in between, so it costs one stop for each call.
 *
 * The filter needs no_new_privs: programs with setuid bits that the command starts gain nothing. */
#ifndef TESTS_FAULT_INJECT_H
#define TESTS_FAULT_INJECT_H

#include <stdbool.h>
#include <stddef.h>

#define INJECT_CALLS 512 /* numbers of system calls; what is above is never counted */

enum inject_what {
	INJECT_NOTHING, /* count */
	INJECT_KILL,    /* SIGKILL to every process of the command before the call is carried out */
	INJECT_ERROR, /* the call fails with `error` and is not carried out (close is: Linux closes
		       * whatever it answers) */
};

struct inject {
	enum inject_what what;
	long at; /* from 1 */
	int error;
	const bool *counted;   /* by number of the call; NULL: all */
	const char *after;     /* counting begins at the first call that names a path with this in
				* it, and includes it; NULL: at the start of the command */
	unsigned timeout;      /* seconds, then everything is killed; 0: none */
	const char *out, *err; /* files for stdout and stderr; NULL: inherited */
	const char *directory; /* to run in; NULL: here */
	char *const *environment; /* NULL: inherited */
	unsigned short *calls;    /* room for the number of each counted call, or NULL */
	size_t call_room;
};

struct inject_result {
	int status; /* of the command, as wait(2) tells it */
	long count; /* calls counted */
	bool fired, timed_out;
	int call; /* the number of the call that was interfered with, or -1 */
};

/* 0, or -1 and errno when the command could not be run or traced at all. */
int inject_run(const char *const *argv, const struct inject *inject, struct inject_result *ret);

/* Names of system calls: NULL, or -1, when there is none such. */
const char *inject_call_name(int number);
int inject_call_number(const char *name);
/* Sets or clears the calls of a comma-separated list.  Names that this kernel's headers do not know
 * are passed over: other machines have other calls.  */
void inject_call_set(bool calls[INJECT_CALLS], const char *list, bool value);

/* What moat may be denied: every call but those that cannot fail, or whose failure the C library
 * answers by ending the process.  The list and its reasons are in inject_names.c. */
void inject_calls_that_fail(bool calls[INJECT_CALLS]);

#endif
