/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc says of a process. */
#ifndef MOAT_TRACER_NETLINK_PROC_H
#define MOAT_TRACER_NETLINK_PROC_H

#include "table.h"

/* The longest argv that is kept whole.  A longer one is cut, and said to be. */
#define PROC_ARGV_MAX (1024 * 1024)
#define PROC_PATH_MAX 4096

struct proc {
	int fd;           /* /proc */
	uint64_t tick_ns; /* unit of start times */
	unsigned level;   /* of the run's pid namespace below ours; 0: the same */
	char *argv;       /* PROC_ARGV_MAX + 1 bytes */
	char exe[PROC_PATH_MAX], cwd[PROC_PATH_MAX];
};

/* What an exec made of a process: pointers into struct proc, or NULL where nothing could be read.
 */
struct details {
	const char *exe, *cwd, *argv;
	size_t argv_size;
	bool argv_complete;
	int64_t inner_pid;
};

int proc_open(struct proc *proc, struct moat_error *err);
void proc_close(struct proc *proc);
/* Learns the run's pid namespace.  -1: there is no such process. */
int proc_set_root(struct proc *proc, int64_t root, struct moat_error *err);

/* Reads the program of a process.  All comes from one process: a directory of /proc that was opened
 * answers ESRCH once its process is gone, whoever has the number then. */
void proc_read(struct proc *proc, int64_t pid, bool want_inner, struct details *ret);
/* For struct table; context: struct proc. */
int proc_identify(void *context, int64_t pid, struct identity *ret);
/* Adds the root and all its living descendants to the table. */
int proc_scan(struct proc *proc, int64_t root, struct table *table, struct moat_error *err);

/* Parses the contents of /proc/PID/stat (NUL-terminated).  tick_ns: length of a clock tick;
 * start_ns is then since the machine's start. */
int proc_parse_stat(const char *text, uint64_t tick_ns, struct identity *ret);
/* The number at `level` of the NSpid line of /proc/PID/status; *ret_levels: how many there are.
 * 0: none. */
int64_t proc_parse_inner(const char *status, unsigned level, unsigned *ret_levels);

#endif
