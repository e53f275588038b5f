/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a file of JSON lines, and waiting for more. */
#include "core/jsonl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "core/terminal.h"

#define READ_BYTES (256u << 10)
#define LINE_MAX_BYTES (64u << 20)
/* A run whose supervisor was killed ends without writing anything: looked for this often. */
#define LIVENESS_MS 1000

static int
open_file(struct jsonl *lines, struct moat_error *err)
{
	lines->fd = openat(lines->dirfd, lines->options->file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (lines->fd < 0 && errno != ENOENT)
		return moat_fail_errno(err, "open `%s'", lines->options->file);
	return 0;
}

/* The whole directory, because the file may not be there yet, and run.json is replaced at the end.
 */
static int
watch_directory(struct jsonl *lines, struct moat_error *err)
{
	char path[64];

	lines->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (lines->watch < 0)
		return moat_fail_errno(err, "watching the run's directory");
	(void) snprintf(path, sizeof path, "/proc/self/fd/%d", lines->dirfd);
	if (inotify_add_watch(lines->watch, path, IN_CREATE | IN_MODIFY | IN_MOVED_TO) < 0)
		return moat_fail_errno(err, "watching the run's directory");
	return 0;
}

int
jsonl_open(struct jsonl *lines, int run_dirfd, const struct jsonl_options *options,
	   struct moat_error *err)
{
	*lines = (struct jsonl){.dirfd = run_dirfd, .fd = -1, .watch = -1, .options = options};
	if ((options->follow && watch_directory(lines, err) < 0) || open_file(lines, err) < 0) {
		jsonl_close(lines);
		return -1;
	}
	if (lines->fd < 0 && !options->follow)
		return moat_fail(err, MOAT_NOT_FOUND, "%s", options->missing);
	return 0;
}

void
jsonl_close(struct jsonl *lines)
{
	cleanup_close(&lines->fd);
	cleanup_close(&lines->watch);
	lines->fd = lines->watch = -1;
	buf_free(&lines->data);
}

/* Waits for a change.  What is there to be read meanwhile shows in the events or in the file. */
static int
wait_change(struct jsonl *lines, struct moat_error *err)
{
	struct pollfd ready = {.fd = lines->watch, .events = POLLIN};
	_Alignas(struct inotify_event) char events[4096];

	if (poll(&ready, 1, LIVENESS_MS) < 0 && errno != EINTR)
		return moat_fail_errno(err, "waiting for the run");
	while (read(lines->watch, events, sizeof events) > 0)
		continue;
	if (lines->fd < 0)
		return open_file(lines, err);
	return 0;
}

/* 1: more was read, 0: the file ends here. */
static int
read_more(struct jsonl *lines, struct moat_error *err)
{
	char chunk[16384];
	struct buf *data = &lines->data;
	ssize_t n;

	if (lines->fd < 0)
		return 0;
	if (lines->start > READ_BYTES) {
		memmove(data->data, data->data + lines->start, data->size - lines->start + 1);
		data->size -= lines->start;
		lines->scanned -= lines->start;
		lines->start = 0;
	}
	do {
		n = read(lines->fd, chunk, sizeof chunk);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return moat_fail_errno(err, "reading `%s'", lines->options->file);
	if (data->size - lines->start > LINE_MAX_BYTES) { /* no line of ours: only its end counts */
		data->size = lines->start = lines->scanned = 0;
		lines->too_long = true;
	}
	buf_append(data, chunk, (size_t) n);
	if (buf_check(data, err) < 0)
		return -1;
	return n > 0;
}

/* The next whole line, or NULL: there is none in what was read. */
static char *
take_line(struct jsonl *lines, size_t *ret_size)
{
	struct buf *data = &lines->data;
	char *end = NULL, *line;

	if (data->size > lines->scanned)
		end = memchr(data->data + lines->scanned, '\n', data->size - lines->scanned);
	if (end == NULL) {
		lines->scanned = data->size;
		return NULL;
	}
	line = data->data + lines->start;
	*end = '\0';
	*ret_size = (size_t) (end - line);
	lines->start = lines->scanned = (size_t) (end - data->data) + 1;
	return line;
}

static json_t *
parse(struct jsonl *lines, const char *line, size_t size)
{
	json_t *json = lines->too_long ? NULL : json_loadb(line, size, 0, NULL);

	if (json != NULL && json_get_text(json, lines->options->member, NULL) == NULL) {
		json_decref(json);
		json = NULL;
	}
	lines->damaged += lines->maybe_damaged;
	lines->maybe_damaged = json == NULL;
	lines->too_long = false;
	return json;
}

int
jsonl_next(struct jsonl *lines, bool wait, json_t **ret_json, const char **ret_line,
	   struct moat_error *err)
{
	bool ending = !lines->options->follow || !wait;

	for (;;) {
		size_t size;
		char *line = take_line(lines, &size);
		int more;

		if (line != NULL) {
			*ret_json = parse(lines, line, size);
			if (ret_line != NULL)
				*ret_line = line;
			if (*ret_json != NULL)
				return 1;
			continue;
		}
		more = read_more(lines, err);
		if (more < 0)
			return -1;
		if (more > 0)
			continue;
		if (ending)
			return 0;
		if (stdout_check(err) < 0) /* what was printed so far shows before the wait */
			return -1;
		/* Asked before the last look at the file: what a run wrote before it ended is seen.
		 */
		ending = !lines->options->still_running(lines->options->context);
		if (!ending && wait_change(lines, err) < 0)
			return -1;
		if (ending && lines->fd < 0 && open_file(lines, err) < 0)
			return -1;
	}
}
