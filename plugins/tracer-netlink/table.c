/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of the run, learned from fork, exec and exit events. */
#include "table.h"

#include <stdlib.h>

#define FIRST_BUCKETS 256
#define MAX_ANCESTORS 256

int
table_init(struct table *table)
{
	table->buckets = calloc(FIRST_BUCKETS, sizeof(struct process *));
	table->bucket_count = table->buckets == NULL ? 0 : FIRST_BUCKETS;
	return table->buckets == NULL ? -1 : 0;
}

static void
drop_if(struct table *table, bool (*unwanted)(const struct process *process, void *context),
	void *context)
{
	for (size_t i = 0; i < table->bucket_count; i++) {
		struct process **link = &table->buckets[i];

		while (*link != NULL) {
			struct process *process = *link;

			if (!unwanted(process, context)) {
				link = &process->next;
				continue;
			}
			*link = process->next;
			free(process);
			table->count--;
		}
	}
}

static bool
any(const struct process *process, void *context)
{
	return true;
}

void
table_free(struct table *table)
{
	drop_if(table, any, NULL);
	free(table->buckets);
	table->buckets = NULL;
	table->bucket_count = 0;
}

static size_t
bucket_of(const struct table *table, int64_t pid)
{
	/* Pids are given out one after the other: the low bits spread them evenly. */
	return (size_t) pid & (table->bucket_count - 1);
}

struct process *
table_find(const struct table *table, int64_t pid)
{
	struct process *process = table->buckets[bucket_of(table, pid)];

	while (process != NULL && process->pid != pid)
		process = process->next;
	return process;
}

static int
grow(struct table *table)
{
	size_t old_count = table->bucket_count;
	struct process **old = table->buckets;
	struct process **bigger = calloc(old_count * 2, sizeof(struct process *));

	if (bigger == NULL)
		return -1;
	table->buckets = bigger;
	table->bucket_count = old_count * 2;
	for (size_t i = 0; i < old_count; i++) {
		/* Entries of one pid keep their order, the newest first: appended at the end. */
		for (struct process *process = old[i], *next; process != NULL; process = next) {
			struct process **link = &bigger[bucket_of(table, process->pid)];

			next = process->next;
			process->next = NULL;
			while (*link != NULL)
				link = &(*link)->next;
			*link = process;
		}
	}
	free(old);
	return 0;
}

static void
drop(struct table *table, struct process *process)
{
	struct process **link = &table->buckets[bucket_of(table, process->pid)];

	while (*link != process)
		link = &(*link)->next;
	*link = process->next;
	free(process);
	table->count--;
}

/* The kernel announces an exit only after the pid may have been given to another process.  So an
 * older entry of the same pid stays behind the new one until its exit comes; if something was lost
 * meanwhile it may never come, and the entry goes. */
static void
drop_outdated(struct table *table, int64_t pid)
{
	struct process *process = table_find(table, pid);

	while (process != NULL) {
		struct process *next = process->next;

		if (process->pid == pid && process->epoch != table->epoch)
			drop(table, process);
		process = next;
	}
}

static int
insert(struct table *table, int64_t pid, int64_t ppid, bool member, struct process **ret)
{
	struct process *process;
	size_t bucket;

	if (table->count >= table->bucket_count && grow(table) < 0 && table->bucket_count == 0)
		return -1;
	drop_outdated(table, pid);
	process = calloc(1, sizeof *process);
	if (process == NULL)
		return -1;
	bucket = bucket_of(table, pid);
	*process = (struct process){
		.pid = pid,
		.ppid = ppid,
		.member = member,
		.epoch = table->epoch,
		.next = table->buckets[bucket],
	};
	table->buckets[bucket] = process;
	table->count++;
	*ret = process;
	return 0;
}

int
table_add(struct table *table, int64_t pid, int64_t ppid, uint64_t time_ns, struct process **ret)
{
	*ret = NULL;
	if (insert(table, pid, ppid, true, ret) < 0)
		return -1;
	(*ret)->since_ns = time_ns;
	(*ret)->seen_ns = time_ns;
	return 0;
}

/* An entry from before a loss: is the process with that pid still the same one?  A process that is
 * gone is taken for the one that was known: its last events are being read. */
static struct process *
confirm(struct table *table, struct process *process)
{
	struct identity identity;

	if (process->epoch == table->epoch)
		return process;
	if (table->identify(table->context, process->pid, &identity) == 0) {
		if (identity.start_ns > process->seen_ns + IDENTITY_GRAIN_NS) {
			drop(table, process);
			return NULL;
		}
		process->threads = identity.threads;
		process->threads_ns = identity.read_ns;
	}
	process->epoch = table->epoch;
	return process;
}

/* Whose process is this?  Up the line of parents, to one that is known, or to the top. */
static enum member
place(struct table *table, int64_t pid, struct process **ret)
{
	int64_t at = pid, ppid = 0;

	*ret = NULL;
	for (unsigned depth = 0; depth < MAX_ANCESTORS; depth++) {
		struct process *process = table_find(table, at);
		struct identity identity;
		bool member;

		if (process != NULL)
			process = confirm(table, process);
		if (process != NULL && at == pid) {
			*ret = process;
			return process->member ? MEMBER_YES : MEMBER_NO;
		}
		if (process == NULL && table->epoch == 0)
			return MEMBER_NO;
		if (process == NULL && at > 1) {
			if (table->identify(table->context, at, &identity) < 0)
				return MEMBER_UNKNOWN;
			if (at == pid)
				ppid = identity.ppid;
			at = identity.ppid;
			continue;
		}
		member = process != NULL && process->member;
		/* Strangers are remembered, too, so that each is asked about once. */
		if (insert(table, pid, ppid, member, ret) < 0)
			return MEMBER_UNKNOWN;
		return member ? MEMBER_YES : MEMBER_NO;
	}
	return MEMBER_UNKNOWN;
}

static int
fork_thread(struct table *table, const struct connector_event *event)
{
	struct process *process = table_find(table, event->tgid);

	if (process != NULL && event->time_ns > process->threads_ns)
		process->threads++;
	return 0;
}

int
table_fork(struct table *table, const struct connector_event *event, struct process **ret)
{
	struct process *parent, *child;
	enum member member;

	*ret = NULL;
	if (event->pid != event->tgid)
		return fork_thread(table, event);
	member = place(table, event->parent_tgid, &parent);
	if (member != MEMBER_YES && table->epoch == 0)
		return 0;
	/* After a loss strangers are kept, lest they be asked about.  A child of a parent that
	 * cannot be placed any more cannot be placed yet: an old entry must not speak for it. */
	if (member == MEMBER_UNKNOWN) {
		drop_outdated(table, event->tgid);
		return 0;
	}
	if (insert(table, event->tgid, event->parent_tgid, member == MEMBER_YES, &child) < 0)
		return -1;
	child->since_ns = child->seen_ns = event->time_ns;
	if (member == MEMBER_YES)
		*ret = child;
	return 0;
}

enum member
table_exec(struct table *table, const struct connector_event *event, struct process **ret)
{
	enum member member = place(table, event->tgid, ret);

	if (member != MEMBER_YES)
		return member;
	/* All other threads are gone, and a thread that executes becomes the first one. */
	(*ret)->threads = 0;
	(*ret)->leader_gone = false;
	(*ret)->since_ns = (*ret)->exec_ns = (*ret)->seen_ns = event->time_ns;
	(*ret)->threads_ns = event->time_ns;
	return MEMBER_YES;
}

/* Of several processes that had this pid the oldest ends first. */
static struct process *
oldest(const struct table *table, int64_t pid)
{
	struct process *found = NULL;

	for (struct process *p = table->buckets[bucket_of(table, pid)]; p != NULL; p = p->next)
		if (p->pid == pid)
			found = p;
	return found;
}

static enum member
finish(struct table *table, struct process *process, uint32_t status, struct ending *ret)
{
	bool member = process->member;

	*ret = (struct ending){
		.pid = process->pid,
		.ppid = process->ppid,
		.inner_pid = process->inner_pid,
		.status = status,
		.since_ns = process->since_ns,
	};
	drop(table, process);
	return member ? MEMBER_YES : MEMBER_NO;
}

/* A process ends with its last thread.  wait(2) gives what exit_group(2) or the signal said, which
 * all threads then carry; where the first thread left alone and the last one left with 0, the
 * first's. */
static enum member
exit_thread(struct table *table, struct process *process, const struct connector_event *event,
	    struct ending *ret)
{
	if (process->threads_ns >= event->time_ns)
		return MEMBER_NO; /* of a thread that an exec ended, or that was not counted */
	if (process->threads > 0)
		process->threads--;
	if (!process->leader_gone || process->threads > 0)
		return MEMBER_NO;
	return finish(table, process,
		      event->status != 0 ? event->status : (uint32_t) process->status, ret);
}

/* The exit of a process whose beginning was lost.  The event names the parent. */
static enum member
exit_unknown(struct table *table, const struct connector_event *event, struct ending *ret)
{
	struct process *parent;
	enum member member;

	if (table->epoch == 0 || event->pid != event->tgid)
		return MEMBER_NO;
	member = event->parent_tgid <= 1 ? MEMBER_UNKNOWN
					 : place(table, event->parent_tgid, &parent);
	if (member == MEMBER_YES)
		*ret = (struct ending){
			.pid = event->tgid, .ppid = event->parent_tgid, .status = event->status};
	return member;
}

enum member
table_exit(struct table *table, const struct connector_event *event, struct ending *ret)
{
	struct process *process = oldest(table, event->tgid);

	if (process != NULL)
		process = confirm(table, process);
	if (process == NULL)
		return exit_unknown(table, event, ret);
	if (event->pid != event->tgid)
		return exit_thread(table, process, event, ret);
	if (process->exec_ns > event->time_ns)
		return MEMBER_NO; /* the former first thread of one whose other thread executed */
	process->seen_ns = event->time_ns;
	if (process->threads == 0)
		return finish(table, process, event->status, ret);
	process->leader_gone = true;
	process->status = (int32_t) event->status;
	return MEMBER_NO;
}

static bool
is_passing(const struct process *process, void *context)
{
	const struct table *table = context;
	struct identity identity;

	return !process->member ||
	       (process->epoch + 2 < table->epoch && process->pid != table->root &&
		table->identify(table->context, process->pid, &identity) < 0);
}

/* Strangers are asked about again.  Members whose exit was lost would stay for ever: those that are
 * gone, two losses later, go. */
void
table_loss(struct table *table)
{
	table->epoch++;
	drop_if(table, is_passing, table);
}

static bool
has_ended(const struct table *table, const struct process *process)
{
	struct identity identity;

	/* After a loss the event may never come. */
	if (!process->member || process->epoch != table->epoch)
		return false;
	return table->identify(table->context, process->pid, &identity) < 0 ||
	       (identity.zombie && identity.threads == 0);
}

bool
table_is_behind(const struct table *table)
{
	for (size_t i = 0; i < table->bucket_count; i++)
		for (const struct process *p = table->buckets[i]; p != NULL; p = p->next)
			if (has_ended(table, p))
				return true;
	return false;
}
