/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of an exec.jsonl, while it may still grow. */
#ifndef MOAT_CORE_TRACE_LINES_H
#define MOAT_CORE_TRACE_LINES_H

#include "common/buf.h"
#include "core/json.h"
#include "core/trace.h"

struct trace_lines {
	int dirfd, fd;       /* the run's directory (borrowed); the file, -1: it is not there yet */
	int watch;           /* inotify, or -1 */
	struct buf data;     /* read and not yet returned, from `start` on */
	size_t start, scanned;
	uint64_t damaged;    /* lines that are none of ours, up to the last that is */
	bool maybe_damaged;  /* the latest is; the last of all may still be in the making */
	bool too_long;
	const struct trace_view *view;
};

/* MOAT_NOT_FOUND: nothing was recorded (not when following a run that goes on). */
int trace_lines_open(struct trace_lines *lines, int run_dirfd, const struct trace_view *view,
		     struct moat_error *err);
void trace_lines_close(struct trace_lines *lines);
/* The next record.  1: *ret_json (the caller's), and *ret_line as it stands in the file, without its
 * newline, borrowed until the next call; 0: the end (when following: the run has ended, too). */
int trace_lines_next(struct trace_lines *lines, json_t **ret_json, const char **ret_line,
		     struct moat_error *err);

#endif
