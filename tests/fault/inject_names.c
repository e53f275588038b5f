/* SPDX-License-Identifier: Apache-2.0 */
/* Names and numbers of system calls, from the headers that this was built with. */
#include <string.h>
#include <sys/syscall.h>

#include "inject.h"

static const struct call {
	const char *name;
	int number;
} calls[] = {
#include "syscall-names.h"
	{NULL, -1},
};

const char *
inject_call_name(int number)
{
	for (const struct call *call = calls; call->name; call++)
		if (call->number == number)
			return call->name;
	return NULL;
}

int
inject_call_number(const char *name)
{
	for (const struct call *call = calls; call->name; call++)
		if (strcmp(call->name, name) == 0)
			return call->number;
	return -1;
}

void
inject_call_set(bool set[INJECT_CALLS], const char *list, bool value)
{
	while (*list) {
		size_t length = strcspn(list, ",");

		for (const struct call *call = calls; call->name; call++)
			if (strlen(call->name) == length &&
			    strncmp(call->name, list, length) == 0 && call->number < INJECT_CALLS)
				set[call->number] = value;
		list += length + (list[length] == ',');
	}
}

/* What is never made to fail, and why. */
static const struct {
	const char *calls, *why;
} cannot_fail[] = {
	{"getpid,getppid,gettid,getuid,geteuid,getgid,getegid,getpgrp,umask,sched_yield,alarm",
	 "by their man pages they always succeed"},
	{"exit,exit_group,rt_sigreturn,restart_syscall", "they do not return"},
	{"brk", "the kernel answers with the old break, never with an error number"},
	{"arch_prctl,set_tid_address,set_robust_list,rseq,rt_sigprocmask,rt_sigaction,sigaltstack",
	 "they fail only for wrong arguments (EFAULT, EINVAL), and the C library does not ask"},
	{"munmap,madvise,mprotect,mremap",
	 "used by the C library for its own memory and its threads"},
	{"futex", "the C library ends the process over an error that it does not know"},
	{"clock_gettime,gettimeofday,getcpu,time", "answered without the kernel elsewhere"},
	{"execve", "would be a failure of the program that starts moat"},
};

void
inject_calls_that_fail(bool set[INJECT_CALLS])
{
	for (int i = 0; i < INJECT_CALLS; i++)
		set[i] = true;
	for (size_t i = 0; i < sizeof(cannot_fail) / sizeof(*cannot_fail); i++)
		inject_call_set(set, cannot_fail[i].calls, false);
}
