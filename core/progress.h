/* SPDX-License-Identifier: Apache-2.0 */
/* What a long operation has done and how long it will take: one line on the terminal, rewritten in
 * place.
 *
 * It shows only when stderr is a terminal that can move its cursor ($TERM), without -q, while moat
 * is in the foreground, and once an operation has taken half a second; at most ten times a second.
 * When it does not show, the hook of the plugins is not set, so that reporting costs nothing. */
#ifndef MOAT_CORE_PROGRESS_H
#define MOAT_CORE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* An operation begins: "snapshot of /home/x/project".  An operation within an operation is part of
 * it: the outermost gives the title.  Main thread only; every begin has its end. */
void progress_begin(const char *format, ...) MOAT_PRINTF(1, 2);
/* The line is cleared. */
void progress_end(void);
/* What plugins report until the end is a part of the operation, of which they do not know: it is
 * not shown.  After progress_begin(). */
void progress_mute_plugins(void);
/* What the core itself does; plugins report through moat_host.progress, which comes here.  A total
 * of 0 is not known.  [any thread], as often as wanted: without a lock, but for ten times a second.
 */
void progress_report(uint64_t done_bytes, uint64_t total_bytes, uint64_t done_items,
		     uint64_t total_items);
/* Something else is about to be written to the terminal: the line is cleared, and comes back with
 * progress_resume(), which is given what progress_pause() returned.  They may be nested.  [any
 * thread] */
bool progress_pause(void);
void progress_resume(bool paused);

/* ------------------------------------------------------------- the parts, to be tested one by one
 */

struct progress_counts {
	uint64_t done_bytes, total_bytes, done_items, total_items;
};

/* Speed over the last seconds rather than since the beginning, so that a burst from a cache does
 * not promise what a disk cannot hold.  Zeroed: empty. */
#define PROGRESS_SAMPLES 64
struct progress_meter {
	struct progress_sample {
		int64_t at_ns;
		uint64_t bytes, items;
	} samples[PROGRESS_SAMPLES]; /* a ring */
	size_t first, count;
};
void
progress_meter_add(struct progress_meter *meter, int64_t now_ns, uint64_t bytes, uint64_t items);
/* Per second; 0: nothing is known yet. */
double progress_meter_bytes(const struct progress_meter *meter);
double progress_meter_items(const struct progress_meter *meter);

/* The line, without control bytes, at most `columns` wide: what does not fit is shortened (the
 * title, at its front) or left out (the least important first).  The caller frees; NULL: no memory
 * or no room. */
char *progress_line(const char *title, const struct progress_counts *counts,
		    const struct progress_meter *meter, size_t columns);

/* Where the display looks at the clock and writes; a test puts its own there.  NULL: the real ones.
 */
struct progress_output {
	int64_t (*now_ns)(void); /* monotonic */
	bool (*wanted)(void);    /* asked when an operation begins */
	size_t (*columns)(void); /* 0: do not show now */
	void (*write)(const char *data, size_t size);
};
void progress_set_output(const struct progress_output *output);

#endif
