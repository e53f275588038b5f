/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that reads the kernel's events, looks at /proc, and tells the sink. */
#ifndef MOAT_TRACER_NETLINK_READER_H
#define MOAT_TRACER_NETLINK_READER_H

#include <moat/plugin.h>
#include <pthread.h>
#include <stdatomic.h>

#include "connector.h"
#include "proc.h"
#include "table.h"

/* Events that were taken from the socket and not yet looked at: 16,384 of 72 bytes, 1.2 MB.  What
 * does not fit stays in the socket. */
#define READER_QUEUE 16384

/* Totals since open(), read from any thread. */
struct reader_stats {
	atomic_uint_fast64_t execs, exits, forks, lost, incomplete_argv;
};

struct reader {
	int socket, stop_fd; /* owned */
	pthread_t thread;
	struct moat_sink sink;
	struct reader_stats *stats;
	struct table table;
	struct proc proc;
	struct sequence sequence;
	struct connector_batch batch;
	struct connector_event queue[READER_QUEUE];
	size_t first, queued;
	int64_t to_realtime_ns; /* added to the kernel's monotonic times */
	uint64_t last_ns;       /* of the latest event */
	uint64_t unplaced, unplaced_since_ns, unplaced_until_ns;
	int tid;
	uint64_t mark_ns; /* when the last mark was set */
	bool stopping, mark_seen, broken;
};

/* Subscribes, looks for what exists, starts the thread.  *ret is ended by reader_stop(). */
int reader_start(const struct moat_trace_target *target, const struct moat_sink *sink,
		 uint64_t receive_buffer, struct reader_stats *stats, uint64_t *ret_buffer,
		 struct reader **ret, struct moat_error *err);
/* Delivers all that the kernel has queued, ends the thread, frees. */
int reader_stop(struct reader *reader, struct moat_error *err);

#endif
