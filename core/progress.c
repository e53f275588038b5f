/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line.
 *
 * Reports come from any thread, in any number.  A report stores four numbers and looks at the
 * clock; only when it is time to draw does a thread try the lock, and it goes on when another one
 * has it.  Whoever writes something else to the terminal holds the lock meanwhile. */
#include "core/progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/text.h"
#include "core/loader.h"
#include "core/log.h"
#include "core/terminal.h"

#ifndef CLOCK_MONOTONIC_COARSE
#define CLOCK_MONOTONIC_COARSE CLOCK_MONOTONIC
#endif

#define NS_PER_S INT64_C(1000000000)
#define DELAY_NS (NS_PER_S / 2)     /* shorter operations show nothing */
#define INTERVAL_NS (NS_PER_S / 10) /* between two drawings */
#define WINDOW_NS (5 * NS_PER_S)    /* that the speed is measured over */
#define TITLE_LEAST 12              /* columns; below that, figures are left out instead */

/* -------------------------------------------------------------------------------------- the meter
 */

static const struct progress_sample *
sample_at(const struct progress_meter *meter, size_t index)
{
	return &meter->samples[(meter->first + index) % PROGRESS_SAMPLES];
}

void
progress_meter_add(struct progress_meter *meter, int64_t now_ns, uint64_t bytes, uint64_t items)
{
	/* The oldest one that stays is at or before the window's beginning: after a long silence
	 * the speed is that of all of it. */
	while (meter->count > 1 && (meter->count == PROGRESS_SAMPLES ||
				    sample_at(meter, 1)->at_ns <= now_ns - WINDOW_NS)) {
		meter->first = (meter->first + 1) % PROGRESS_SAMPLES;
		meter->count--;
	}
	meter->samples[(meter->first + meter->count) % PROGRESS_SAMPLES] =
		(struct progress_sample){now_ns, bytes, items};
	meter->count++;
}

/* Seconds between the first and the last sample. */
static double
meter_seconds(const struct progress_meter *meter)
{
	if (meter->count < 2)
		return 0;
	return (double) (sample_at(meter, meter->count - 1)->at_ns - sample_at(meter, 0)->at_ns) /
	       (double) NS_PER_S;
}

/* Threads report in any order, so a number may be below the one before. */
static double
speed(uint64_t from, uint64_t to, double seconds)
{
	return seconds <= 0 || to <= from ? 0 : (double) (to - from) / seconds;
}

double
progress_meter_bytes(const struct progress_meter *meter)
{
	double seconds = meter_seconds(meter);

	return seconds <= 0 ? 0
			    : speed(sample_at(meter, 0)->bytes,
				    sample_at(meter, meter->count - 1)->bytes, seconds);
}

double
progress_meter_items(const struct progress_meter *meter)
{
	double seconds = meter_seconds(meter);

	return seconds <= 0 ? 0
			    : speed(sample_at(meter, 0)->items,
				    sample_at(meter, meter->count - 1)->items, seconds);
}

/* --------------------------------------------------------------------------------------- the line
 */

/* Seconds that the rest takes; -1: not known.  Bytes say it better than files, when there are any.
 */
static double
seconds_left(const struct progress_counts *counts, const struct progress_meter *meter)
{
	double bytes = progress_meter_bytes(meter), items = progress_meter_items(meter);

	if (counts->total_bytes > counts->done_bytes && bytes > 0)
		return (double) (counts->total_bytes - counts->done_bytes) / bytes;
	if (counts->total_items > counts->done_items && counts->total_bytes <= counts->done_bytes &&
	    items > 0)
		return (double) (counts->total_items - counts->done_items) / items;
	return -1;
}

static void
put_left(struct buf *out, double seconds)
{
	uint64_t s = (uint64_t) (seconds + 0.5);

	if (s < 60)
		buf_format(out, "%us left", (unsigned) s);
	else if (s < 3600)
		buf_format(out, "%um%02us left", (unsigned) (s / 60), (unsigned) (s % 60));
	else if (s < UINT64_C(100) * 3600)
		buf_format(out, "%uh%02um left", (unsigned) (s / 3600), (unsigned) (s / 60 % 60));
	else
		buf_string(out, "days left");
}

enum part { PART_PERCENT, PART_BYTES, PART_ITEMS, PART_RATE, PART_LEFT, PART_COUNT };

/* One figure; nothing when it is not known. */
static void
put_part(struct buf *out, enum part part, const struct progress_counts *c,
	 const struct progress_meter *meter)
{
	double bytes = progress_meter_bytes(meter), items = progress_meter_items(meter);
	uint64_t done = c->total_bytes > 0 ? c->done_bytes : c->done_items;
	uint64_t total = c->total_bytes > 0 ? c->total_bytes : c->total_items;
	double left = seconds_left(c, meter);
	char text[32];

	switch (part) {
	case PART_PERCENT:
		if (total > 0)
			buf_format(out, "%u%%",
				   done >= total
					   ? 100u
					   : (unsigned) ((double) done * 100 / (double) total));
		break;
	case PART_BYTES:
		if (c->done_bytes > 0 || c->total_bytes > 0)
			buf_string(out, text_size(text, c->done_bytes));
		if (c->total_bytes > 0)
			buf_format(out, " of %s", text_size(text, c->total_bytes));
		break;
	case PART_ITEMS:
		if (c->total_items > 0)
			buf_format(out, "%llu of %llu files", (unsigned long long) c->done_items,
				   (unsigned long long) c->total_items);
		else if (c->done_items > 0)
			buf_format(out, "%llu files", (unsigned long long) c->done_items);
		break;
	case PART_RATE:
		if (bytes >= 1)
			buf_format(out, "%s/s", text_size(text, (uint64_t) bytes));
		else if (items >= 1)
			buf_format(out, "%llu files/s", (unsigned long long) items);
		break;
	case PART_LEFT:
		if (left >= 0)
			put_left(out, left);
		break;
	case PART_COUNT:
		break;
	}
}

/* The figures of `parts`, a bit each, two blanks before each one. */
static void
put_parts(struct buf *out, unsigned parts, const struct progress_counts *counts,
	  const struct progress_meter *meter)
{
	for (int part = 0; part < PART_COUNT; part++) {
		AUTO_BUF struct buf one = {0};

		if ((parts & 1u << part) == 0)
			continue;
		put_part(&one, (enum part) part, counts, meter);
		if (one.size > 0)
			buf_format(out, "  %s", one.data);
	}
}

/* The end of the title, since that tells paths apart: whole characters, "..." before them. */
static void
put_title(struct buf *out, const char *title, size_t room)
{
	if (text_columns(title) <= room) {
		buf_string(out, title);
		return;
	}
	while (*title != '\0' && text_columns(title) + 3 > room) {
		title++;
		while (((unsigned char) *title & 0xc0) == 0x80)
			title++;
	}
	buf_format(out, "...%s", title);
}

char *
progress_line(const char *title, const struct progress_counts *counts,
	      const struct progress_meter *meter, size_t columns)
{
	/* What is given up last stands first. */
	static const enum part importance[] = {PART_PERCENT, PART_LEFT, PART_BYTES, PART_RATE,
					       PART_ITEMS};
	AUTO_FREE char *escaped = text_escaped(title);
	size_t least = escaped == NULL ? 0 : text_columns(escaped);

	if (escaped == NULL)
		return NULL;
	least = least < TITLE_LEAST ? least : TITLE_LEAST;
	for (int kept = PART_COUNT; kept >= 0; kept--) {
		AUTO_BUF struct buf line = {0}, figures = {0};
		unsigned parts = 0;

		for (int i = 0; i < kept; i++)
			parts |= 1u << importance[i];
		put_parts(&figures, parts, counts, meter);
		if (figures.size + least > columns)
			continue;
		put_title(&line, escaped, columns - figures.size);
		buf_append(&line, figures.data, figures.size);
		return buf_check(&figures, NULL) < 0 ? NULL : buf_steal(&line);
	}
	return NULL;
}

/* ------------------------------------------------------------------------------------ the display
 */

static int64_t
clock_now(void)
{
	struct timespec now;

	/* Good for some milliseconds, and read without a system call. */
	(void) clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

static bool
terminal_wanted(void)
{
	const char *term = getenv("TERM");

	return log_verbosity() >= 0 && isatty(STDERR_FILENO) && term != NULL && *term != '\0' &&
	       strcmp(term, "dumb") != 0;
}

/* In the background it stays silent: it may be a job whose terminal belongs to another now. */
static size_t
terminal_columns(void)
{
	pid_t foreground = tcgetpgrp(STDERR_FILENO);
	struct winsize size;

	if (foreground > 0 && foreground != getpgrp())
		return 0;
	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
		return 80;
	return size.ws_col;
}

static void
terminal_write(const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(STDERR_FILENO, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nobody to tell */
		data += n;
		size -= (size_t) n;
	}
}

static const struct progress_output terminal = {clock_now, terminal_wanted, terminal_columns,
						terminal_write};
static const struct progress_output *output = &terminal;

static struct {
	_Atomic uint64_t done_bytes, total_bytes, done_items, total_items;
} reported;
static atomic_bool active;
static _Atomic int64_t next_ns; /* when to draw again */

/* Behind the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *title;
static struct progress_meter meter;
static bool shown;

static _Thread_local unsigned pauses; /* of this thread, which holds the lock then */
static _Thread_local bool redraw;

static unsigned depth; /* of operations; main thread */

void
progress_set_output(const struct progress_output *other)
{
	output = other == NULL ? &terminal : other;
}

static void
clear(void)
{
	if (shown)
		output->write("\r\033[K", 4);
	shown = false;
}

static struct progress_counts
counts_now(void)
{
	return (struct progress_counts){
		atomic_load_explicit(&reported.done_bytes, memory_order_relaxed),
		atomic_load_explicit(&reported.total_bytes, memory_order_relaxed),
		atomic_load_explicit(&reported.done_items, memory_order_relaxed),
		atomic_load_explicit(&reported.total_items, memory_order_relaxed),
	};
}

/* In one write, and the last column stays free: there a terminal may wrap. */
static void
draw(const struct progress_counts *counts)
{
	size_t columns = output->columns();
	AUTO_FREE char *line =
		columns < 2 ? NULL : progress_line(title, counts, &meter, columns - 1);
	AUTO_BUF struct buf out = {0};

	if (line == NULL) {
		clear();
		return;
	}
	buf_format(&out, "\r%s\033[K", line);
	if (buf_check(&out, NULL) < 0)
		return;
	output->write(out.data, out.size);
	shown = true;
}

static void
measure_and_draw(int64_t now)
{
	struct progress_counts counts = counts_now();

	/* Another thread may have been here between our look at the time and the lock. */
	if (!atomic_load(&active) || now < atomic_load(&next_ns))
		return;
	atomic_store(&next_ns, now + INTERVAL_NS);
	progress_meter_add(&meter, now, counts.done_bytes, counts.done_items);
	draw(&counts);
}

void
progress_report(uint64_t done_bytes, uint64_t total_bytes, uint64_t done_items,
		uint64_t total_items)
{
	int64_t now;

	if (!atomic_load_explicit(&active, memory_order_relaxed))
		return;
	atomic_store_explicit(&reported.done_bytes, done_bytes, memory_order_relaxed);
	atomic_store_explicit(&reported.total_bytes, total_bytes, memory_order_relaxed);
	atomic_store_explicit(&reported.done_items, done_items, memory_order_relaxed);
	atomic_store_explicit(&reported.total_items, total_items, memory_order_relaxed);
	now = output->now_ns();
	if (now < atomic_load_explicit(&next_ns, memory_order_relaxed) ||
	    pthread_mutex_trylock(&lock) != 0)
		return;
	measure_and_draw(now);
	pthread_mutex_unlock(&lock);
}

static void
start(char *new_title)
{
	int64_t now = output->now_ns();

	pthread_mutex_lock(&lock);
	free(title);
	title = new_title;
	memset(&meter, 0, sizeof meter);
	progress_meter_add(&meter, now, 0, 0);
	atomic_store(&reported.done_bytes, 0);
	atomic_store(&reported.total_bytes, 0);
	atomic_store(&reported.done_items, 0);
	atomic_store(&reported.total_items, 0);
	atomic_store(&next_ns, now + DELAY_NS);
	atomic_store(&active, true);
	pthread_mutex_unlock(&lock);
	host_set_progress(progress_report);
}

void
progress_begin(const char *format, ...)
{
	va_list args;
	char *text = NULL;

	if (depth++ > 0 || !output->wanted())
		return;
	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL; /* no memory for a title: no display */
	va_end(args);
	if (text != NULL)
		start(text);
}

void
progress_end(void)
{
	if (--depth > 0 || !atomic_load(&active))
		return;
	host_set_progress(NULL);
	pthread_mutex_lock(&lock);
	atomic_store(&active, false);
	clear();
	free(title);
	title = NULL;
	pthread_mutex_unlock(&lock);
}

void
progress_mute_plugins(void)
{
	host_set_progress(NULL);
}

/* Outside of operations nothing is locked: a child of fork(2) must be able to write its message. */
bool
progress_pause(void)
{
	if (!atomic_load(&active))
		return false;
	if (pauses++ == 0) {
		pthread_mutex_lock(&lock);
		redraw = shown;
		clear();
	}
	return true;
}

void
progress_resume(bool paused)
{
	struct progress_counts counts = counts_now();

	if (!paused || --pauses > 0)
		return;
	if (redraw && atomic_load(&active))
		draw(&counts);
	pthread_mutex_unlock(&lock);
}
