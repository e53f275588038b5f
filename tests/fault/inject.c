/* SPDX-License-Identifier: Apache-2.0 */
/* The tracer. */
#include "inject.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h>

/* glibc's enumeration and the kernel's macros disagree about names only. */
#define TRACE(request, pid, address, data)                                                         \
	ptrace((enum __ptrace_request)(request), pid, (void *) (uintptr_t) (address),              \
	       (void *) (uintptr_t) (data))

#define TASKS 1024

struct tracer {
	const struct inject *inject;
	struct inject_result *result;
	pid_t leader;
	pid_t tasks[TASKS]; /* processes and threads that are traced; 0: free */
	bool counting;
	pid_t failing; /* its call is being carried out and is to be reported as failed */
};

static volatile sig_atomic_t out_of_time;

static void
on_alarm(int number)
{
	(void) number;
	out_of_time = 1;
}

/* ------------------------------------------------------------------------------- the command */

static int
redirect(const char *path, int target)
{
	int fd;

	if (!path)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || dup2(fd, target) < 0)
		return -1;
	return close(fd);
}

static int
install_filter(void)
{
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	struct sock_fprog program = {.len = 1, .filter = &all};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Waits until it is traced: whoever holds the other end of the pipe closes it. */
static _Noreturn void
command(const char *const *argv, const struct inject *inject, int gate)
{
	char byte;
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || redirect(inject->out, STDOUT_FILENO) < 0 ||
	    redirect(inject->err, STDERR_FILENO) < 0 ||
	    (inject->directory && chdir(inject->directory) < 0))
		_exit(125);
	while (read(gate, &byte, 1) < 0 && errno == EINTR)
		;
	if (install_filter() < 0)
		_exit(125);
	if (inject->environment)
		(void) execve(argv[0], (char *const *) (uintptr_t) argv, inject->environment);
	else
		(void) execv(argv[0], (char *const *) (uintptr_t) argv);
	_exit(127);
}

/* ---------------------------------------------------------------------------------- the tasks */

static void
task_add(struct tracer *tracer, pid_t pid)
{
	size_t free_slot = TASKS;

	for (size_t i = 0; i < TASKS; i++) {
		if (tracer->tasks[i] == pid)
			return;
		if (tracer->tasks[i] == 0 && free_slot == TASKS)
			free_slot = i;
	}
	if (free_slot < TASKS)
		tracer->tasks[free_slot] = pid;
}

static void
task_remove(struct tracer *tracer, pid_t pid)
{
	for (size_t i = 0; i < TASKS; i++)
		if (tracer->tasks[i] == pid)
			tracer->tasks[i] = 0;
}

static void
kill_all(struct tracer *tracer)
{
	for (size_t i = 0; i < TASKS; i++)
		if (tracer->tasks[i])
			(void) kill(tracer->tasks[i], SIGKILL);
}

/* --------------------------------------------------------------------------- a call is entered */

#if defined(__x86_64__)
static int
deny(pid_t pid, int error)
{
	struct user_regs_struct registers;
	struct iovec part = {&registers, sizeof(registers)};

	if (TRACE(PTRACE_GETREGSET, pid, NT_PRSTATUS, &part) < 0)
		return -1;
	registers.orig_rax = (unsigned long long) -1;
	registers.rax = (unsigned long long) -(long long) error;
	return (int) TRACE(PTRACE_SETREGSET, pid, NT_PRSTATUS, &part);
}

static int
set_result(pid_t pid, int error)
{
	struct user_regs_struct registers;
	struct iovec part = {&registers, sizeof(registers)};

	if (TRACE(PTRACE_GETREGSET, pid, NT_PRSTATUS, &part) < 0)
		return -1;
	registers.rax = (unsigned long long) -(long long) error;
	return (int) TRACE(PTRACE_SETREGSET, pid, NT_PRSTATUS, &part);
}
#elif defined(__aarch64__)
static int
set_result(pid_t pid, int error)
{
	struct user_regs_struct registers;
	struct iovec part = {&registers, sizeof(registers)};

	if (TRACE(PTRACE_GETREGSET, pid, NT_PRSTATUS, &part) < 0)
		return -1;
	registers.regs[0] = (unsigned long long) -(long long) error;
	return (int) TRACE(PTRACE_SETREGSET, pid, NT_PRSTATUS, &part);
}

static int
deny(pid_t pid, int error)
{
	int none = -1;
	struct iovec part = {&none, sizeof(none)};

	if (TRACE(PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &part) < 0)
		return -1;
	return set_result(pid, error);
}
#else
#error "inject.c knows the registers of x86-64 and aarch64"
#endif

static bool
names_path(pid_t pid, uint64_t address, const char *wanted)
{
	char bytes[4096];
	size_t length = 0;

	/* By pages, as a string may end just before one that is not there. */
	while (length < sizeof(bytes) - 1) {
		uint64_t at = address + length, room = 4096 - (at & 4095);
		size_t want = sizeof(bytes) - 1 - length < room ? sizeof(bytes) - 1 - length : room;
		struct iovec local = {bytes + length, want},
			     remote = {(void *) (uintptr_t) at, want};
		ssize_t n = process_vm_readv(pid, &local, 1, &remote, 1, 0);

		if (n <= 0)
			break;
		length += (size_t) n;
		if (memchr(bytes, '\0', length))
			break;
	}
	bytes[length] = '\0';
	return strstr(bytes, wanted) != NULL;
}

/* Any call that takes a path takes it as its first or second argument. */
static bool
begins(struct tracer *tracer, pid_t pid, const struct ptrace_syscall_info *info)
{
	const char *after = tracer->inject->after;

	if (!after)
		return true;
	if (info->seccomp.nr == SYS_write || info->seccomp.nr == SYS_execve)
		return false;
	return names_path(pid, info->seccomp.args[0], after) ||
	       names_path(pid, info->seccomp.args[1], after);
}

static bool
is_counted(struct tracer *tracer, pid_t pid, const struct ptrace_syscall_info *info)
{
	uint64_t call = info->seccomp.nr;

	if (!tracer->counting)
		tracer->counting = begins(tracer, pid, info);
	return tracer->counting && call < INJECT_CALLS &&
	       (!tracer->inject->counted || tracer->inject->counted[call]);
}

/* Returns the request by which the task goes on, or 0 when it does not. */
static int
on_call(struct tracer *tracer, pid_t pid)
{
	const struct inject *inject = tracer->inject;
	struct ptrace_syscall_info info = {0};

	if (TRACE(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) <= 0 ||
	    info.op != PTRACE_SYSCALL_INFO_SECCOMP || !is_counted(tracer, pid, &info))
		return PTRACE_CONT;
	if (inject->calls && (size_t) tracer->result->count < inject->call_room)
		inject->calls[tracer->result->count] = (unsigned short) info.seccomp.nr;
	tracer->result->count++;
	if (inject->what == INJECT_NOTHING || tracer->result->count != inject->at)
		return PTRACE_CONT;
	tracer->result->fired = true;
	tracer->result->call = (int) info.seccomp.nr;
	if (inject->what == INJECT_KILL) {
		kill_all(tracer);
		return 0;
	}
	if (info.seccomp.nr == SYS_close) {
		tracer->failing = pid;
		return PTRACE_SYSCALL;
	}
	(void) deny(pid, inject->error);
	return PTRACE_CONT;
}

/* A thread that is not the first takes the number of the process when it executes a program. */
static void
on_exec(struct tracer *tracer, pid_t pid)
{
	unsigned long former;

	if (TRACE(PTRACE_GETEVENTMSG, pid, 0, &former) == 0 && (pid_t) former != pid)
		task_remove(tracer, (pid_t) former);
}

static void
on_stop(struct tracer *tracer, pid_t pid, int status)
{
	int event = status >> 16, signal_number = WSTOPSIG(status), request = PTRACE_CONT;

	task_add(tracer, pid);
	if (event == PTRACE_EVENT_SECCOMP) {
		request = on_call(tracer, pid);
		signal_number = 0;
	} else if (event != 0) {
		if (event == PTRACE_EVENT_EXEC)
			on_exec(tracer, pid);
		signal_number = 0;
	} else if (signal_number == (SIGTRAP | 0x80)) {
		if (pid == tracer->failing) {
			tracer->failing = 0;
			(void) set_result(pid, tracer->inject->error);
		}
		signal_number = 0;
	}
	if (request)
		(void) TRACE(request, pid, 0, signal_number);
}

/* Until nothing of the command is left. */
static void
trace_all(struct tracer *tracer)
{
	int status;
	pid_t pid;

	for (;;) {
		pid = waitpid(-1, &status, __WALL);
		if (pid < 0 && errno == EINTR) {
			if (out_of_time) {
				tracer->result->timed_out = true;
				kill_all(tracer);
			}
			continue;
		}
		if (pid < 0)
			return;
		if (WIFSTOPPED(status)) {
			on_stop(tracer, pid, status);
			continue;
		}
		task_remove(tracer, pid);
		if (pid == tracer->leader)
			tracer->result->status = status;
	}
}

static int
seize(struct tracer *tracer)
{
	long options = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		       PTRACE_O_TRACEEXEC | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD |
		       PTRACE_O_EXITKILL;

	if (TRACE(PTRACE_SEIZE, tracer->leader, 0, options) == 0) {
		task_add(tracer, tracer->leader);
		return 0;
	}
	(void) kill(tracer->leader, SIGKILL);
	(void) waitpid(tracer->leader, NULL, 0);
	return -1;
}

int
inject_run(const char *const *argv, const struct inject *inject, struct inject_result *ret)
{
	struct tracer tracer = {.inject = inject, .result = ret};
	struct sigaction action = {.sa_handler = on_alarm}, before;
	int gate[2];

	*ret = (struct inject_result){.call = -1};
	if (pipe2(gate, O_CLOEXEC) < 0)
		return -1;
	tracer.leader = fork();
	if (tracer.leader == 0) {
		(void) close(gate[1]);
		command(argv, inject, gate[0]);
	}
	(void) close(gate[0]);
	if (tracer.leader < 0 || seize(&tracer) < 0) {
		int error = errno;

		(void) close(gate[1]);
		errno = error;
		return -1;
	}
	(void) close(gate[1]);
	out_of_time = 0;
	(void) sigaction(SIGALRM, &action, &before);
	if (inject->timeout)
		(void) setitimer(ITIMER_REAL, &(struct itimerval){{1, 0}, {inject->timeout, 0}},
				 NULL);
	trace_all(&tracer);
	(void) setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
	(void) sigaction(SIGALRM, &before, NULL);
	return 0;
}
