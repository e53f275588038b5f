/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of the run: the root and all that descend from it.
 *
 * Membership is inherited when a process is made and kept until it ends, so an orphan, a daemon or
 * a new session stays in.  As long as no event was lost, a process that is not in the table is a
 * stranger.  After a loss that is no longer certain: then the system is asked (identify), and what
 * it cannot answer any more is reported as not known, never guessed. */
#ifndef MOAT_TRACER_NETLINK_TABLE_H
#define MOAT_TRACER_NETLINK_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connector.h"

struct process {
	int64_t pid, ppid;
	int64_t inner_pid;   /* 0: not known */
	uint64_t since_ns;   /* last exec, else fork; 0: not known */
	uint64_t exec_ns;    /* last exec; 0: none seen */
	uint64_t threads_ns; /* events of threads up to then are in `threads` */
	uint64_t seen_ns;    /* last event */
	uint32_t threads;    /* besides the first */
	uint32_t epoch;      /* losses before it was last known to be right */
	int32_t status;      /* of the first thread, which ended before the others */
	bool leader_gone, member;
	struct process *next;
};

/* What /proc says of a living process. */
struct identity {
	int64_t ppid;
	uint64_t start_ns; /* monotonic; exact to IDENTITY_GRAIN_NS */
	uint64_t read_ns;  /* when: monotonic, a moment later */
	uint32_t threads;  /* besides the first */
	bool zombie;
};
#define IDENTITY_GRAIN_NS 20000000u

struct table {
	struct process **buckets;
	size_t bucket_count, count;
	uint32_t epoch; /* number of losses */
	int64_t root;
	int (*identify)(void *context, int64_t pid, struct identity *ret); /* -1: it is gone */
	void *context;
};

enum member { MEMBER_NO = 0, MEMBER_YES = 1, MEMBER_UNKNOWN = -1 };

int table_init(struct table *table);
void table_free(struct table *table);

/* Each: -1 when there is no memory. *ret: NULL, or the member it is about. */
int
table_add(struct table *table, int64_t pid, int64_t ppid, uint64_t time_ns, struct process **ret);
/* *ret: the new process, when a member made one (a thread is none). */
int table_fork(struct table *table, const struct connector_event *event, struct process **ret);
enum member
table_exec(struct table *table, const struct connector_event *event, struct process **ret);

/* The end of a process, that is, of its last thread. */
struct ending {
	int64_t pid, ppid, inner_pid;
	uint32_t status;   /* as wait(2) gives it */
	uint64_t since_ns; /* 0: not known */
};
/* MEMBER_YES: *ret is filled.  MEMBER_NO: a stranger's, or only a thread's. */
enum member
table_exit(struct table *table, const struct connector_event *event, struct ending *ret);

/* Something was lost: what the table knows is to be looked at anew. */
void table_loss(struct table *table);
/* True when a member has ended and its exit event is still to come: the kernel announces an exit
 * shortly after the parent may know of it. */
bool table_is_behind(const struct table *table);
struct process *table_find(const struct table *table, int64_t pid);

#endif
