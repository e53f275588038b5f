/* SPDX-License-Identifier: Apache-2.0 */
/* Readers of /proc. */
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

int
proc_open(struct proc *proc, struct moat_error *err)
{
	long ticks = sysconf(_SC_CLK_TCK);

	*proc = (struct proc){.fd = -1,
			      .tick_ns = 1000000000u / (uint64_t) (ticks > 0 ? ticks : 100)};
	proc->argv = malloc(PROC_ARGV_MAX + 1);
	if (proc->argv == NULL)
		return moat_fail_memory(err);
	proc->fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (proc->fd < 0)
		return moat_fail_errno(err, "open `/proc'");
	return 0;
}

void
proc_close(struct proc *proc)
{
	if (proc->fd >= 0)
		close(proc->fd);
	proc->fd = -1;
	free(proc->argv);
	proc->argv = NULL;
}

/* An empty or unreadable file gives 0. */
static size_t
read_at(int dirfd, const char *name, char *data, size_t size)
{
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
	size_t done = 0;

	if (fd < 0)
		return 0;
	while (done < size) {
		ssize_t n = read(fd, data + done, size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return 0;
		if (n == 0)
			break;
		done += (size_t) n;
	}
	return done;
}

static int
open_process(const struct proc *proc, int64_t pid)
{
	char name[24];

	(void) snprintf(name, sizeof name, "%" PRId64, pid);
	return openat(proc->fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static const char *
read_link(int dirfd, const char *name, char out[PROC_PATH_MAX])
{
	ssize_t n = readlinkat(dirfd, name, out, PROC_PATH_MAX);

	/* One that fills the buffer may have been cut: a path that is not true is none. */
	if (n <= 0 || n == PROC_PATH_MAX)
		return NULL;
	out[n] = '\0';
	return out;
}

static void
read_argv(struct proc *proc, int dirfd, struct details *ret)
{
	size_t size = read_at(dirfd, "cmdline", proc->argv, PROC_ARGV_MAX + 1);

	/* Since Linux 5.18 every argv has at least one string: nothing means that the process has
	 * no memory any more. */
	if (size == 0)
		return;
	ret->argv_complete = size <= PROC_ARGV_MAX;
	if (size > PROC_ARGV_MAX)
		size = PROC_ARGV_MAX;
	if (proc->argv[size - 1] != '\0') {
		if (ret->argv_complete && size < PROC_ARGV_MAX)
			size++;
		proc->argv[size - 1] = '\0';
	}
	ret->argv = proc->argv;
	ret->argv_size = size;
}

void
proc_read(struct proc *proc, int64_t pid, bool want_inner, struct details *ret)
{
	AUTO_CLOSE int dirfd = open_process(proc, pid);
	char status[4096];
	size_t n;

	*ret = (struct details){.inner_pid = proc->level == 0 ? pid : 0};
	if (dirfd < 0)
		return;
	/* In the order of their worth: the process may end at any moment. */
	read_argv(proc, dirfd, ret);
	ret->exe = read_link(dirfd, "exe", proc->exe);
	ret->cwd = read_link(dirfd, "cwd", proc->cwd);
	if (proc->level > 0 && want_inner) {
		n = read_at(dirfd, "status", status, sizeof status - 1);
		status[n] = '\0';
		ret->inner_pid = proc_parse_inner(status, proc->level, NULL);
	}
}

int64_t
proc_parse_inner(const char *status, unsigned level, unsigned *ret_levels)
{
	const char *line = strstr(status, "\nNSpid:");
	int64_t found = 0;
	unsigned levels = 0;

	if (line != NULL) {
		line += strlen("\nNSpid:");
		while (*line == '\t' || *line == ' ') {
			char *end;
			long long value = strtoll(line, &end, 10);

			if (end == line)
				break;
			if (levels++ == level)
				found = value;
			line = end;
		}
	}
	if (ret_levels != NULL)
		*ret_levels = levels;
	return found;
}

int
proc_set_root(struct proc *proc, int64_t root, struct moat_error *err)
{
	AUTO_CLOSE int dirfd = open_process(proc, root);
	char status[4096];
	unsigned levels;
	size_t n;

	if (dirfd < 0)
		return moat_error_set(err, MOAT_GONE, errno,
				      "there is no process %" PRId64 " to trace: %s", root,
				      strerror(errno));
	n = read_at(dirfd, "status", status, sizeof status - 1);
	status[n] = '\0';
	(void) proc_parse_inner(status, 0, &levels);
	proc->level = levels > 0 ? levels - 1 : 0;
	return 0;
}

int
proc_parse_stat(const char *text, uint64_t tick_ns, struct identity *ret)
{
	/* The name stands in parentheses and may hold any byte: the last one ends it. */
	const char *at = strrchr(text, ')');
	unsigned long long value = 0;
	char state;

	if (at == NULL || at[1] != ' ' || at[2] == '\0')
		return -1;
	state = at[2];
	at += 3;
	*ret = (struct identity){.zombie = state == 'Z' || state == 'X'};
	/* Fields are counted as in proc(5): the state is 3, the parent 4. */
	for (unsigned field = 4; field <= 22; field++) {
		char *end;

		value = strtoull(at, &end, 10);
		if (end == at)
			return -1;
		at = end;
		if (field == 4)
			ret->ppid = (int64_t) value;
		if (field == 20 && value > 0)
			ret->threads = (uint32_t) value - 1;
	}
	ret->start_ns = value * tick_ns;
	return 0;
}

static uint64_t
clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

/* Start times count from the machine's start, sleep included; events do not count sleep. */
static uint64_t
monotonic_of(uint64_t boot_ns)
{
	int64_t asleep = (int64_t) (clock_ns(CLOCK_BOOTTIME) - clock_ns(CLOCK_MONOTONIC));

	return asleep > 0 && boot_ns > (uint64_t) asleep ? boot_ns - (uint64_t) asleep : boot_ns;
}

int
proc_identify(void *context, int64_t pid, struct identity *ret)
{
	const struct proc *proc = context;
	char text[1024], name[32];
	size_t n;

	(void) snprintf(name, sizeof name, "%" PRId64 "/stat", pid);
	n = read_at(proc->fd, name, text, sizeof text - 1);
	text[n] = '\0';
	if (n == 0 || proc_parse_stat(text, proc->tick_ns, ret) < 0)
		return -1;
	ret->start_ns = monotonic_of(ret->start_ns);
	ret->read_ns = clock_ns(CLOCK_MONOTONIC);
	return 0;
}

/* ------------------------------------------------------------------- processes at the start */

struct found {
	int64_t pid;
	struct identity identity;
	bool added;
};

static int
list_processes(struct proc *proc, struct found **ret, size_t *ret_count, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *directory = opendir("/proc");
	AUTO_FREE struct found *list = NULL;
	size_t count = 0, allocated = 0;
	struct dirent *entry;

	if (directory == NULL)
		return moat_fail_errno(err, "open `/proc'");
	while ((entry = readdir(directory)) != NULL) {
		int64_t pid = strtoll(entry->d_name, NULL, 10);

		if (pid <= 0)
			continue;
		if (count == allocated) {
			size_t more = allocated * 2 + 256;
			struct found *bigger = reallocarray(list, more, sizeof *list);

			if (bigger == NULL)
				return moat_fail_memory(err);
			list = bigger;
			allocated = more;
		}
		list[count] = (struct found){.pid = pid};
		if (proc_identify(proc, pid, &list[count].identity) == 0)
			count++;
	}
	*ret = STEAL(list);
	*ret_count = count;
	return 0;
}

static int
add_found(struct table *table, struct found *found, struct moat_error *err)
{
	struct process *process;

	found->added = true;
	if (found->identity.zombie && found->identity.threads == 0)
		return 0; /* it has ended; the event is past */
	if (table_add(table, found->pid, found->identity.ppid, 0, &process) < 0)
		return moat_fail_memory(err);
	process->seen_ns = found->identity.start_ns;
	process->threads = found->identity.threads;
	process->threads_ns = found->identity.read_ns;
	process->leader_gone = found->identity.zombie;
	return 0;
}

int
proc_scan(struct proc *proc, int64_t root, struct table *table, struct moat_error *err)
{
	AUTO_FREE struct found *list = NULL;
	size_t count = 0;
	bool more = true;

	if (list_processes(proc, &list, &count, err) < 0)
		return -1;
	/* A parent may stand behind its child: until nothing is added any more. */
	while (more) {
		more = false;
		for (size_t i = 0; i < count; i++) {
			if (list[i].added || (list[i].pid != root &&
					      table_find(table, list[i].identity.ppid) == NULL))
				continue;
			if (add_found(table, &list[i], err) < 0)
				return -1;
			more = true;
		}
	}
	if (table_find(table, root) == NULL)
		return moat_error_set(err, MOAT_GONE, 0,
				      "there is no process %" PRId64 " to trace: it has ended",
				      root);
	return 0;
}
