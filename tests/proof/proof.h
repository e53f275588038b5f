/* SPDX-License-Identifier: Apache-2.0 */
/* What the proofs share: a scratch directory, the core in this process, random numbers with a seed,
 * counting.  The core prints to a file, so that a test can read what it said; what the test says
 * goes to the real standard output. */
#ifndef MOAT_TESTS_PROOF_PROOF_H
#define MOAT_TESTS_PROOF_PROOF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include "core/restore.h"
#include "core/snap.h"

struct proof {
	const char *name;
	char *top; /* the scratch directory, absolute */
	struct app app;
	const char *backend;
	char backend_option[64];
	const char *backends[2];
	char *plugin_dirs[3];
	uint64_t seed, state;
	FILE *report;
	int said_fd, printed_fd; /* stderr and stdout of the core */
	unsigned long cases, controls, failures;
	unsigned long case_number;
};

/* A system call of the test's own must not fail: says what and ends the program with 99, a hard
 * error for automake. */
#define MUST(call)                                                                                 \
	do {                                                                                       \
		if ((call) < 0)                                                                    \
			proof_die(#call, __FILE__, __LINE__);                                      \
	} while (0)
_Noreturn void proof_die(const char *what, const char *file, int line);

/* The scratch directory lies below `directory`; NULL: $MOAT_TEST_DIRECTORY, else /dev/shm, else
 * $TMPDIR, else /tmp. backend: "archive". */
void proof_open(struct proof *p, const char *name, const char *directory, const char *backend);
/* Removes it all, prints the counts; the exit status. */
int proof_close(struct proof *p);
void proof_fail(struct proof *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Of the usual number, by $MOAT_TEST_SCALE (percent; `percent` when it is not set). */
long proof_scaled(long cases, long percent);

uint64_t proof_random(struct proof *p);
unsigned proof_below(struct proof *p, unsigned n); /* 0 .. n-1 */
bool proof_chance(struct proof *p, unsigned percent);
/* The random numbers of case N depend on the seed and N only, so that one case can be repeated. */
void proof_case(struct proof *p, unsigned long number);

/* What the core said or printed since proof_hush(); NUL-terminated, freed by the caller. */
void proof_hush(struct proof *p);
char *proof_said(struct proof *p);
char *proof_printed(struct proof *p);

/* By the core; false: it failed, with *err. */
bool proof_snapshot(struct proof *p, const struct workspace *workspace, const struct config *config,
		    struct snap **ret, struct moat_error *err);
/* to NULL: in place.  ret_safety (may be NULL): the id that was printed, or "". */
bool proof_restore(struct proof *p, const struct snap *snap, const char *to, bool safety,
		   char ret_safety[32], struct moat_error *err);
/* Opens TOP/NAME as a workspace. */
struct workspace *proof_workspace(struct proof *p, const char *name);
/* Forgets all workspaces and their stores, so that the home stays small. */
void proof_forget(struct proof *p);

/* A command of moat's in a process of its own, without exec: argv as in a shell ("snapshot",
 * "verify", NULL).  Its exit status, or 128 and the number of the signal that ended it. */
int proof_moat(struct proof *p, const char *directory, const char *const *argv);

/* Removes a tree of any depth and mode.  Does nothing when it is not there. */
void proof_remove(int dirfd, const char *name);
/* TOP/NAME; freed by the caller. */
char *proof_path(const struct proof *p, const char *name);

#endif
