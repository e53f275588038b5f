/* SPDX-License-Identifier: Apache-2.0 */
/* What a run wrote, line by line. */
#include "core/runlog.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/json.h"

/* A longer line is recorded in pieces, all but the last of them `continued', so that memory is
 * bounded. */
#define LINE_MAX_BYTES (4u << 20)

static const char *const stream_names[] = {"stdout", "stderr"};

int
runlog_open(int run_dirfd, struct runlog *ret, struct moat_error *err)
{
	memset(ret, 0, sizeof *ret);
	ret->failure = (struct moat_error) MOAT_ERROR_INIT;
	ret->fd = openat(run_dirfd, "log.jsonl",
			 O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	return ret->fd < 0 ? moat_fail_errno(err, "open the run's log") : 0;
}

static int
write_line(struct runlog *log, enum runlog_stream stream, const char *data, size_t size,
	   bool continued, struct moat_error *err)
{
	AUTO_JSON json_t *json = json_object();
	AUTO_FREE char *text = NULL;

	if (json == NULL || json_put_time(json, "ts", log->streams[stream].since_ns) < 0 ||
	    json_put_text(json, "stream", stream_names[stream]) < 0 ||
	    json_put_bytes(json, "line", data, size) < 0 ||
	    (continued && json_put_bool(json, "continued", true) < 0))
		return moat_fail_memory(err);
	text = json_text(json, true, err);
	return text == NULL ? -1 : fs_write_all(log->fd, text, strlen(text), "the run's log", err);
}

static void
end_line(struct runlog *log, enum runlog_stream stream, bool continued)
{
	struct buf *line = &log->streams[stream].line;
	const char *data = line->data == NULL ? "" : line->data;

	if (log->failure.code == MOAT_OK && buf_check(line, &log->failure) == 0)
		(void) write_line(log, stream, data, line->size, continued, &log->failure);
	line->size = 0;
	log->streams[stream].since_ns = 0;
}

void
runlog_add(struct runlog *log, enum runlog_stream stream, const void *data, size_t size)
{
	const char *at = data, *end = at + size;

	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t) (end - at));
		const char *stop = newline == NULL ? end : newline;

		if (log->streams[stream].since_ns == 0)
			log->streams[stream].since_ns = time_now_ns();
		if (log->failure.code == MOAT_OK)
			buf_append(&log->streams[stream].line, at, (size_t) (stop - at));
		if (newline == NULL && log->streams[stream].line.size < LINE_MAX_BYTES)
			return;
		end_line(log, stream, newline == NULL);
		at = newline == NULL ? end : newline + 1;
	}
}

int
runlog_close(struct runlog *log, struct moat_error *err)
{
	for (int stream = RUNLOG_STDOUT; stream <= RUNLOG_STDERR; stream++) {
		if (log->streams[stream].line.size > 0)
			end_line(log, (enum runlog_stream) stream, false);
		buf_free(&log->streams[stream].line);
	}
	cleanup_close(&log->fd);
	if (log->failure.code == MOAT_OK)
		return 0;
	return moat_error_set(err, log->failure.code, log->failure.sys_errno,
			      "the run's log is incomplete: %s", log->failure.message);
}
