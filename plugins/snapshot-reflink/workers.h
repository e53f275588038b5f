/* SPDX-License-Identifier: Apache-2.0 */
/* Many files, on all processors: work that is cut into items, each of which any thread may do.
 *
 * The first item that fails stops the others, also in the middle of a large file, and its error is
 * that of the whole.  The threads block all signals: those are for the thread that called. */
#ifndef MOAT_SNAPSHOT_REFLINK_WORKERS_H
#define MOAT_SNAPSHOT_REFLINK_WORKERS_H

#include <pthread.h>

#include "reflink.h"

struct work {
	const struct reflink *reflink;
	int (*item)(struct work *work, size_t item, struct moat_error *err);
	void *context;
	size_t count;
	uint64_t total_bytes;

	/* workers.c's own. */
	pthread_mutex_t lock;
	size_t next, done_items;
	uint64_t done_bytes;
	bool stopped;
	struct moat_error failure;
};

/* Does all items; some of them on the calling thread. */
int work_run(struct work *work, struct moat_error *err);

/* For the items.  Whether to go on: -1 when the user wants to stop, or another item has failed. */
int work_check(struct work *work, struct moat_error *err);
/* Bytes that were done, for the display; negative: they are to be done again. */
void work_report(struct work *work, int64_t bytes);

#endif
