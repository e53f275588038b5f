/* SPDX-License-Identifier: Apache-2.0 */
/* The recorder: events of a tracer become lines of exec.jsonl.
 *
 * event() copies into a bounded queue; one thread makes lines of what is queued and appends them in
 * large writes.  What cannot be kept or written is counted, and stands in the file as a loss as
 * soon as a line can be written again. */
#include "core/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/fs.h"
#include "core/json.h"

#define FILE_NAME "exec.jsonl"
/* Bytes of copied events that wait to be written.  With the one batch that is being written, the
 * recorder needs at most three times this. */
#define QUEUE_BYTES (8u << 20)
#define WRITE_BYTES (256u << 10)

struct item {
	struct item *next;
	size_t size;
	struct moat_event event; /* its strings follow the struct */
	char data[];
};

/* What could not be recorded, over which time. */
struct gap {
	uint64_t count;
	int64_t since_ns, until_ns;
	bool unknown; /* and also an unknown number */
};

struct recorder {
	int fd;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* Under the lock: */
	struct item *first, **last;
	size_t bytes;
	struct gap overflow;
	bool closing;
	/* The writer's alone, until it has ended: */
	struct buf lines;
	struct gap batch, unwritten; /* what is in `lines`; what could not be written so far */
	struct recorder_stats stats, batch_stats;
	off_t size;  /* of the file, up to the last line that is whole */
	bool repair; /* something stands behind that */
	struct moat_error error;
};

/* ------------------------------------------------------------------------------------- gaps */

static void
gap_add(struct gap *gap, uint64_t count, bool unknown, int64_t since_ns, int64_t until_ns)
{
	if (count == 0 && !unknown)
		return;
	if ((gap->count == 0 && !gap->unknown) || since_ns < gap->since_ns)
		gap->since_ns = since_ns;
	if (until_ns > gap->until_ns)
		gap->until_ns = until_ns;
	gap->count += count;
	gap->unknown |= unknown;
}

static void
gap_add_gap(struct gap *gap, const struct gap *other)
{
	gap_add(gap, other->count, other->unknown, other->since_ns, other->until_ns);
}

static bool
gap_is_empty(const struct gap *gap)
{
	return gap->count == 0 && !gap->unknown;
}

/* An event that is not recorded: one more is lost; a loss takes what it says with it. */
static void
gap_add_event(struct gap *gap, const struct moat_event *event)
{
	if (event->kind == MOAT_EVENT_LOSS)
		gap_add(gap, event->lost, event->lost == 0, event->span_start_ns, event->time_ns);
	else
		gap_add(gap, 1, false, event->time_ns, event->time_ns);
}

/* ------------------------------------------------------------------------------------ lines */

static const char *
kind_text(uint32_t kind)
{
	switch (kind) {
	case MOAT_EVENT_EXEC:
		return "exec";
	case MOAT_EVENT_EXIT:
		return "exit";
	default:
		return "loss";
	}
}

static int
put_known(json_t *object, const char *key, bool known, int64_t value)
{
	return known ? json_put_int(object, key, value) : json_put_null(object, key);
}

static int
put_argv(json_t *object, const struct moat_event *event)
{
	AUTO_FREE const char **list = NULL;
	size_t count = 0, n = 0;

	if (event->argv == NULL)
		return json_put_null(object, "argv");
	for (size_t i = 0; i < event->argv_size; i++)
		count += event->argv[i] == '\0';
	list = calloc(count + 1, sizeof *list);
	if (list == NULL)
		return -1;
	for (size_t at = 0; at < event->argv_size && n < count; n++) {
		list[n] = event->argv + at;
		at += strlen(list[n]) + 1;
	}
	return json_put_list(object, "argv", list);
}

/* The fields of CLI.md, in its order; then the pid inside, and the start of a loss. */
static int
put_event(json_t *object, const struct moat_event *event)
{
	bool is_exec = event->kind == MOAT_EVENT_EXEC, is_exit = event->kind == MOAT_EVENT_EXIT;
	bool is_loss = event->kind == MOAT_EVENT_LOSS;
	int bad = 0;

	bad |= json_put_time(object, "ts", event->time_ns);
	bad |= json_put_text(object, "kind", kind_text(event->kind));
	bad |= put_known(object, "pid", event->pid > 0, event->pid);
	bad |= put_known(object, "ppid", event->ppid > 0, event->ppid);
	bad |= json_put_text(object, "exe", event->exe);
	bad |= put_argv(object, event);
	bad |= is_exec ? json_put_bool(object, "argv_complete", event->argv_complete != 0)
		       : json_put_null(object, "argv_complete");
	bad |= json_put_text(object, "cwd", event->cwd);
	bad |= put_known(object, "exit_code", is_exit && event->exit_code >= 0, event->exit_code);
	bad |= put_known(object, "signal", is_exit && event->signal > 0, event->signal);
	bad |= put_known(object, "duration_ns", is_exit && event->duration_ns >= 0,
			 event->duration_ns);
	bad |= put_known(object, "lost", is_loss && event->lost > 0, (int64_t) event->lost);
	bad |= put_known(object, "inner_pid", event->inner_pid > 0, event->inner_pid);
	if (is_loss)
		bad |= json_put_time(object, "since", event->span_start_ns);
	return bad;
}

/* Adds a line; one for which there is no memory is lost. */
static void
add_line(struct recorder *recorder, const struct moat_event *event)
{
	AUTO_JSON json_t *object = json_object();
	AUTO_FREE char *line = NULL;

	/* Both, always: json_text() also learns of a put that failed, and forgets it. */
	if (object != NULL && put_event(object, event) != 0) {
		free(json_text(object, true, NULL));
	} else if (object != NULL) {
		line = json_text(object, true, NULL);
	}
	if (line == NULL) {
		gap_add_event(&recorder->unwritten, event);
		return;
	}
	buf_string(&recorder->lines, line);
	gap_add_event(&recorder->batch, event);
	if (event->kind == MOAT_EVENT_EXEC)
		recorder->batch_stats.execs++;
	else if (event->kind == MOAT_EVENT_EXIT)
		recorder->batch_stats.exits++;
	else
		recorder->batch_stats.lost += event->lost;
}

static void
add_gap(struct recorder *recorder, struct gap *gap)
{
	struct moat_event event = {
		.struct_size = sizeof event,
		.kind = MOAT_EVENT_LOSS,
		.time_ns = gap->until_ns,
		.span_start_ns = gap->since_ns,
		.lost = gap->count,
	};
	bool unknown = gap->unknown;
	uint64_t count = gap->count;

	*gap = (struct gap){0};
	if (count > 0)
		add_line(recorder, &event);
	event.lost = 0;
	if (unknown)
		add_line(recorder, &event);
}

/* ---------------------------------------------------------------------------------- writing */

/* What a failed write left behind goes, or the next line would be joined to half of one. */
static int
repair(struct recorder *recorder)
{
	if (recorder->repair && ftruncate(recorder->fd, recorder->size) < 0)
		return moat_fail_errno(&recorder->error, "repairing `%s'", FILE_NAME);
	recorder->repair = false;
	return 0;
}

/* Writes the batch, or adds it to what is lost. */
static void
flush(struct recorder *recorder)
{
	struct buf *lines = &recorder->lines;

	if (lines->size > 0 || lines->failed) {
		if (buf_check(lines, &recorder->error) < 0 || repair(recorder) < 0 ||
		    fs_write_all(recorder->fd, lines->data, lines->size, FILE_NAME,
				 &recorder->error) < 0) {
			gap_add_gap(&recorder->unwritten, &recorder->batch);
			recorder->repair = true;
		} else {
			recorder->size += (off_t) lines->size;
			recorder->stats.execs += recorder->batch_stats.execs;
			recorder->stats.exits += recorder->batch_stats.exits;
			recorder->stats.lost += recorder->batch_stats.lost;
		}
	}
	recorder->batch = (struct gap){0};
	recorder->batch_stats = (struct recorder_stats){0};
	if (lines->failed)
		buf_free(lines);
	else if (lines->size > 0)
		lines->size = 0;
}

/* Writes all of a list, and frees it.  What was lost stands before what comes after it. */
static void
write_items(struct recorder *recorder, struct item *item, struct gap *overflow)
{
	add_gap(recorder, &recorder->unwritten);
	while (item != NULL) {
		struct item *next = item->next;

		add_line(recorder, &item->event);
		free(item);
		item = next;
		if (recorder->lines.size >= WRITE_BYTES) {
			flush(recorder);
			add_gap(recorder, &recorder->unwritten);
		}
	}
	add_gap(recorder, overflow);
	flush(recorder);
}

static void *
writer_main(void *argument)
{
	struct recorder *recorder = argument;
	bool closing = false;

	while (!closing) {
		struct item *items;
		struct gap overflow;

		pthread_mutex_lock(&recorder->lock);
		while (recorder->first == NULL && gap_is_empty(&recorder->overflow) &&
		       !recorder->closing)
			pthread_cond_wait(&recorder->wake, &recorder->lock);
		closing = recorder->closing;
		items = recorder->first;
		overflow = recorder->overflow;
		recorder->first = NULL;
		recorder->last = &recorder->first;
		recorder->bytes = 0;
		recorder->overflow = (struct gap){0};
		pthread_mutex_unlock(&recorder->lock);
		write_items(recorder, items, &overflow);
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------- the sink */

static size_t
string_size(const char *text)
{
	return text == NULL ? 0 : strlen(text) + 1;
}

static const char *
copy_to(char **at, const char *data, size_t size)
{
	char *copy = *at;

	if (data == NULL)
		return NULL;
	memcpy(copy, data, size);
	*at += size;
	return copy;
}

/* NULL: no memory. */
static struct item *
copy_event(const struct moat_event *event, size_t size)
{
	struct item *item = malloc(size);
	char *at;

	if (item == NULL)
		return NULL;
	/* A tracer that was built against an older header has a shorter struct. */
	memset(&item->event, 0, sizeof item->event);
	memcpy(&item->event, event,
	       event->struct_size < sizeof *event ? event->struct_size : sizeof *event);
	item->next = NULL;
	item->size = size;
	at = item->data;
	item->event.exe = copy_to(&at, event->exe, string_size(event->exe));
	item->event.cwd = copy_to(&at, event->cwd, string_size(event->cwd));
	item->event.argv = copy_to(&at, event->argv, event->argv_size);
	return item;
}

static void
take_event(void *context, const struct moat_event *event)
{
	struct recorder *recorder = context;
	size_t size = sizeof(struct item) + string_size(event->exe) + string_size(event->cwd) +
		      (event->argv == NULL ? 0 : event->argv_size);
	struct item *item = NULL;

	if (event->kind != MOAT_EVENT_EXEC && event->kind != MOAT_EVENT_EXIT &&
	    event->kind != MOAT_EVENT_LOSS)
		return;
	if (size <= QUEUE_BYTES)
		item = copy_event(event, size);
	pthread_mutex_lock(&recorder->lock);
	/* Once something was lost, all that follows is, until the writer has come round: the line
	 * of the loss then stands where the gap is. */
	if (item != NULL && recorder->bytes + size <= QUEUE_BYTES &&
	    gap_is_empty(&recorder->overflow)) {
		*recorder->last = item;
		recorder->last = &item->next;
		recorder->bytes += size;
		item = NULL;
	} else {
		gap_add_event(&recorder->overflow, event);
	}
	pthread_cond_signal(&recorder->wake);
	pthread_mutex_unlock(&recorder->lock);
	free(item);
}

struct moat_sink
recorder_sink(struct recorder *recorder)
{
	return (struct moat_sink){sizeof(struct moat_sink), recorder, take_event};
}

void
recorder_loss(struct recorder *recorder, uint64_t count, int64_t since_ns, int64_t until_ns)
{
	struct moat_event event = {
		.struct_size = sizeof event,
		.kind = MOAT_EVENT_LOSS,
		.time_ns = until_ns,
		.span_start_ns = since_ns,
		.lost = count,
		.duration_ns = -1,
	};

	take_event(recorder, &event);
}

/* -------------------------------------------------------------------------- opening, closing */

/* A file that a killed process left with half a line: the half stays, on a line of its own. */
static int
open_file(struct recorder *recorder, int run_dirfd, struct moat_error *err)
{
	struct stat st;
	char last;

	recorder->fd = openat(run_dirfd, FILE_NAME,
			      O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (recorder->fd < 0 || fstat(recorder->fd, &st) < 0)
		return moat_fail_errno(err, "open `%s'", FILE_NAME);
	if (fchmod(recorder->fd, 0600) < 0)
		return moat_fail_errno(err, "chmod `%s'", FILE_NAME);
	recorder->size = st.st_size;
	if (st.st_size > 0 && pread(recorder->fd, &last, 1, st.st_size - 1) == 1 && last != '\n')
		buf_string(&recorder->lines, "\n");
	return 0;
}

static void
recorder_free(struct recorder *recorder)
{
	if (recorder->fd >= 0)
		close(recorder->fd);
	buf_free(&recorder->lines);
	pthread_cond_destroy(&recorder->wake);
	pthread_mutex_destroy(&recorder->lock);
	free(recorder);
}

int
recorder_open(int run_dirfd, struct recorder **ret, struct moat_error *err)
{
	struct recorder *recorder = calloc(1, sizeof *recorder);
	int error;

	if (recorder == NULL)
		return moat_fail_memory(err);
	recorder->fd = -1;
	recorder->last = &recorder->first;
	recorder->error = (struct moat_error) MOAT_ERROR_INIT;
	pthread_mutex_init(&recorder->lock, NULL);
	pthread_cond_init(&recorder->wake, NULL);
	if (open_file(recorder, run_dirfd, err) < 0) {
		recorder_free(recorder);
		return -1;
	}
	error = pthread_create(&recorder->thread, NULL, writer_main, recorder);
	if (error != 0) {
		recorder_free(recorder);
		return moat_error_set(err, MOAT_FAILED, error, "starting the recorder's thread: %s",
				      strerror(error));
	}
	*ret = recorder;
	return 0;
}

int
recorder_close(struct recorder *recorder, struct recorder_stats *ret, struct moat_error *err)
{
	int result = 0;

	if (recorder == NULL)
		return 0;
	pthread_mutex_lock(&recorder->lock);
	recorder->closing = true;
	pthread_cond_signal(&recorder->wake);
	pthread_mutex_unlock(&recorder->lock);
	pthread_join(recorder->thread, NULL);
	if (repair(recorder) == 0)
		(void) fs_sync(recorder->fd, FILE_NAME, &recorder->error); /* looked at below */
	recorder->stats.lost += recorder->unwritten.count;
	if (ret != NULL)
		*ret = recorder->stats;
	if (recorder->error.code != MOAT_OK)
		result = moat_error_set(err, recorder->error.code, recorder->error.sys_errno,
					"the trace is not whole: %.500s (%llu events lost)",
					recorder->error.message,
					(unsigned long long) recorder->stats.lost);
	recorder_free(recorder);
	return result;
}
