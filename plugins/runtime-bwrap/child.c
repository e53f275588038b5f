/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes, held by pidfd: a pid that was reaped elsewhere may be another's, a pidfd never
 * is. */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

#define STATUS_NO_EXEC 127

int
child_pidfd(pid_t pid)
{
	return (int) syscall(SYS_pidfd_open, pid, 0);
}

int
child_signal(int pidfd, int number)
{
	return (int) syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0);
}

/* In the child: only functions that are safe after the fork of a process with threads. */
static int
arrange_descriptors(const int *fds, int count)
{
	int moved[CHILD_FDS];

	/* First out of the way of their final places, all of them. */
	for (int i = 0; i < count; i++) {
		moved[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, CHILD_FDS);
		if (fds[i] >= 0 && moved[i] < 0)
			return -1;
	}
	for (int i = 0; i < count; i++) {
		if (moved[i] < 0)
			close(i);
		else if (dup2(moved[i], i) < 0)
			return -1;
	}
	/* For what some library has opened without O_CLOEXEC.  Kernels before 5.9 cannot. */
	(void) syscall(SYS_close_range, (unsigned) count, ~0u, 0);
	return 0;
}

static void
default_signals(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int number = 1; number < NSIG; number++)
		(void) sigaction(number, &action, NULL); /* KILL, STOP and libc's own refuse */
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
}

int
child_spawn(struct child *child, const char *const *argv, const int *fds, size_t count,
	    struct moat_error *err)
{
	static const char cannot[] = "cannot be executed";
	char *const environment[] = {NULL};
	sigset_t all, saved;
	int failure;

	if (count > CHILD_FDS)
		return moat_fail(err, MOAT_FAILED, "too many descriptors for `%s'", argv[0]);
	/* Until the child has reset them, no handler of the caller's may run in it. */
	sigfillset(&all);
	(void) pthread_sigmask(SIG_SETMASK, &all, &saved);
	child->pid = fork();
	failure = errno;
	if (child->pid == 0) {
		(void) setsid();
		if (arrange_descriptors(fds, (int) count) == 0) {
			default_signals();
			(void) execve(argv[0], (char *const *) argv, environment);
		}
		_exit(write(2, cannot, sizeof cannot - 1) < 0 ? 1 : STATUS_NO_EXEC);
	}
	(void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (child->pid < 0) {
		child->pid = 0;
		errno = failure;
		return moat_fail_errno(err, "fork");
	}
	child->pidfd = child_pidfd(child->pid);
	if (child->pidfd < 0) {
		failure = errno;
		(void) kill(child->pid, SIGKILL);
		(void) waitpid(child->pid, NULL, 0);
		child->pid = 0;
		errno = failure;
		if (failure == ENOSYS)
			return moat_fail(
				err, MOAT_UNSUPPORTED,
				"this kernel has no pidfd_open(2): Linux 5.3 or newer is needed");
		return moat_fail_errno(err, "pidfd_open");
	}
	if (fcntl(child->pidfd, F_SETFD, FD_CLOEXEC) < 0) {
		child_kill(child);
		return moat_fail_errno(err, "fcntl");
	}
	return 0;
}

static int64_t
now_ms(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int
child_wait(struct child *child, int64_t timeout_ms, int *ret_status, struct moat_error *err)
{
	struct pollfd fd = {.fd = child->pidfd, .events = POLLIN};
	int64_t deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
	int n, step;
	pid_t pid;

	*ret_status = -1;
	if (child->pid == 0)
		return 1;
	do {
		int64_t left = deadline < 0 ? 1000000 : deadline - now_ms();

		step = left < 0 ? 0 : left > 1000000 ? 1000000 : (int) left;
		n = poll(&fd, 1, step);
		if (n < 0 && errno != EINTR)
			return moat_fail_errno(err, "poll");
	} while (n <= 0 && (deadline < 0 || now_ms() < deadline));
	if (n <= 0)
		return 0;
	while ((pid = waitpid(child->pid, ret_status, WNOHANG)) < 0 && errno == EINTR)
		;
	if (pid <= 0)
		*ret_status = -1;
	child->pid = 0;
	return 1;
}

void
child_kill(struct child *child)
{
	int status;

	if (child->pid != 0) {
		(void) child_signal(child->pidfd, SIGKILL);
		/* A failure to wait leaves nothing that could still be done. */
		(void) child_wait(child, -1, &status, NULL);
	}
	cleanup_close(&child->pidfd);
	child->pidfd = -1;
}

void
child_words(int fd, char *words, size_t size)
{
	size_t used = 0;
	ssize_t n;

	while (used + 1 < size) {
		n = read(fd, words + used, size - used - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		used += (size_t) n;
	}
	while (used > 0 && words[used - 1] == '\n')
		used--;
	words[used] = '\0';
	for (char *p = words; *p != '\0'; p++)
		if (*p == '\n')
			*p = ' ';
}
