/* SPDX-License-Identifier: Apache-2.0 */
/* What tests do in a scratch directory of their own. */
#include "scratch.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

void
put(int dirfd, const char *name, const char *text)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(close(fd), 0);
}

void
in_child(int (*body)(const struct scratch *scratch), const struct scratch *scratch)
{
	pid_t child = fork();
	int status;

	assert_true(child >= 0);
	if (child == 0)
		_exit(body(scratch));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int
write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int result = fd < 0 || write(fd, text, strlen(text)) < 0 ? -1 : 0;

	if (fd >= 0)
		(void) close(fd);
	return result;
}

int
own_mounts(void)
{
	unsigned uid = geteuid(), gid = getegid();
	char map[64];

	if (unshare(CLONE_NEWNS) < 0) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
			return -1;
		(void) snprintf(map, sizeof map, "0 %u 1", uid);
		if (write_text("/proc/self/uid_map", map) < 0)
			return -1;
		(void) snprintf(map, sizeof map, "0 %u 1", gid);
		if (write_text("/proc/self/setgroups", "deny") < 0 ||
		    write_text("/proc/self/gid_map", map) < 0)
			return -1;
	}
	return mount("none", "/", "none", MS_REC | MS_PRIVATE, "");
}

pid_t
begin_attack(int dirfd, const char *a, const char *b)
{
	int pipes[2];
	pid_t child;
	char byte;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || write(pipes[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			(void) renameat2(dirfd, a, dirfd, b, RENAME_EXCHANGE);
	}
	(void) close(pipes[1]);
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	(void) close(pipes[0]);
	return child;
}

void
end_attack(pid_t child)
{
	int status;

	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
}
