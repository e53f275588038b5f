/* SPDX-License-Identifier: Apache-2.0 */
/* Reading an exec.jsonl line by line, and waiting for more. */
#include "core/trace_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "core/terminal.h"

#define FILE_NAME "exec.jsonl"
#define READ_BYTES (256u << 10)
#define LINE_MAX_BYTES (64u << 20)
/* A run whose supervisor was killed ends without writing anything: looked for this often. */
#define LIVENESS_MS 1000

static int
open_file(struct trace_lines *lines, struct moat_error *err)
{
	lines->fd = openat(lines->dirfd, FILE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (lines->fd < 0 && errno != ENOENT)
		return moat_fail_errno(err, "open `%s'", FILE_NAME);
	return 0;
}

/* The whole directory, because the file may not be there yet, and run.json is replaced at the end. */
static int
watch_directory(struct trace_lines *lines, struct moat_error *err)
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
trace_lines_open(struct trace_lines *lines, int run_dirfd, const struct trace_view *view,
		 struct moat_error *err)
{
	*lines = (struct trace_lines){.dirfd = run_dirfd, .fd = -1, .watch = -1, .view = view};
	if ((view->follow && watch_directory(lines, err) < 0) || open_file(lines, err) < 0) {
		trace_lines_close(lines);
		return -1;
	}
	if (lines->fd < 0 && !view->follow)
		return moat_fail(err, MOAT_NOT_FOUND,
				 "nothing was recorded: the run was started without tracing");
	return 0;
}

void
trace_lines_close(struct trace_lines *lines)
{
	cleanup_close(&lines->fd);
	cleanup_close(&lines->watch);
	lines->fd = lines->watch = -1;
	buf_free(&lines->data);
}

/* Waits for a change.  What is there to be read meanwhile shows in the events or in the file. */
static int
wait_change(struct trace_lines *lines, struct moat_error *err)
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
read_more(struct trace_lines *lines, struct moat_error *err)
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
		return moat_fail_errno(err, "reading `%s'", FILE_NAME);
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
take_line(struct trace_lines *lines, size_t *ret_size)
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
parse(struct trace_lines *lines, const char *line, size_t size)
{
	json_t *json = lines->too_long ? NULL : json_loadb(line, size, 0, NULL);

	if (json != NULL && json_get_text(json, "kind", NULL) == NULL) {
		json_decref(json);
		json = NULL;
	}
	lines->damaged += lines->maybe_damaged;
	lines->maybe_damaged = json == NULL;
	lines->too_long = false;
	return json;
}

int
trace_lines_next(struct trace_lines *lines, json_t **ret_json, const char **ret_line,
		 struct moat_error *err)
{
	bool follow = lines->view->follow;
	bool ending = !follow;

	for (;;) {
		size_t size;
		char *line = take_line(lines, &size);
		int more;

		if (line != NULL) {
			*ret_json = parse(lines, line, size);
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
		/* Asked before the last look at the file: what a run wrote before it ended is seen. */
		ending = !lines->view->still_running(lines->view->context);
		if (!ending && wait_change(lines, err) < 0)
			return -1;
		if (ending && lines->fd < 0 && open_file(lines, err) < 0)
			return -1;
	}
}
