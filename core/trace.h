/* SPDX-License-Identifier: Apache-2.0 */
/* The record of what a run executed: runs/RUN/exec.jsonl, one JSON object a line with the fields of
 * CLI.md (ts, kind, pid, ppid, exe, argv, argv_complete, cwd, exit_code, signal, duration_ns, lost;
 * a loss also has since). */
#ifndef MOAT_CORE_TRACE_H
#define MOAT_CORE_TRACE_H

#include <stdbool.h>

#include "core/backend.h"

struct recorder;

struct recorder_stats {
	uint64_t execs, exits, lost;
};

/* Opens exec.jsonl in run_dirfd and starts the thread that writes it.  Events reach it through
 * recorder_sink(), whose event() only copies into a bounded queue; what does not fit is counted and
 * recorded as a loss.  A write that fails (full disk) is a loss, too, and reported at the end. */
int recorder_open(int run_dirfd, struct recorder **ret, struct moat_error *err);
struct moat_sink recorder_sink(struct recorder *recorder);
/* A loss that the core knows of ("tracing could not start").  [any thread] */
void recorder_loss(struct recorder *recorder, uint64_t count, int64_t since_ns, int64_t until_ns);
/* Writes what is queued, fsyncs, ends the thread, frees.  NULL is allowed. */
int recorder_close(struct recorder *recorder, struct recorder_stats *ret, struct moat_error *err);

/* The commands `trace` and `trace --tree`, on the exec.jsonl in run_dirfd; running: the file may
 * grow, for follow. */
struct trace_view {
	bool json, tree, follow, color;
	bool (*still_running)(void *context); /* for follow */
	void *context;
};
int trace_print(int run_dirfd, const struct trace_view *view, struct moat_error *err);

#endif
