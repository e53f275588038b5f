/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a file of JSON objects, one a line, that another process may still be writing. */
#ifndef MOAT_CORE_JSONL_H
#define MOAT_CORE_JSONL_H

#include "common/buf.h"
#include "core/json.h"

struct jsonl_options {
	const char *file;    /* its name in the run's directory */
	const char *member;  /* what every record has; a line without it is damaged */
	const char *missing; /* the message when there is no such file */
	bool follow;         /* wait for more until still_running() says no */
	bool (*still_running)(void *context);
	void *context;
};

struct jsonl {
	int dirfd, fd;   /* the run's directory (borrowed); the file, -1: it is not there yet */
	int watch;       /* inotify, or -1 */
	struct buf data; /* read and not yet returned, from `start` on */
	size_t start, scanned;
	uint64_t damaged;   /* lines that are none of ours, up to the last that is */
	bool maybe_damaged; /* the latest is; the last of all may still be in the making */
	bool too_long;
	const struct jsonl_options *options;
};
#define JSONL_CLOSED                                                                               \
	{                                                                                          \
		.fd = -1, .watch = -1                                                              \
	}

/* options is borrowed until jsonl_close().  MOAT_NOT_FOUND: there is no such file (not when
 * following: it may come). */
int jsonl_open(struct jsonl *lines, int run_dirfd, const struct jsonl_options *options,
	       struct moat_error *err);
void jsonl_close(struct jsonl *lines);
/* The next record.  1: *ret_json (the caller's), and *ret_line (unless NULL) as it stands in the
 * file, without its newline, borrowed until the next call; 0: the end.  When following, wait says
 * whether to wait there for more or for the run's end. */
int jsonl_next(struct jsonl *lines, bool wait, json_t **ret_json, const char **ret_line,
	       struct moat_error *err);

#endif
