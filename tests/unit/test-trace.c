/* SPDX-License-Identifier: Apache-2.0 */
/* The recorder and the printer of traces: events into exec.jsonl, and exec.jsonl for people. */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "core/json.h"
#include "core/log.h"
#include "core/trace.h"

#define SECOND INT64_C(1000000000)
#define BASE (INT64_C(1790000000) * SECOND)

/* A run's directory, and what was printed. */
struct fixture {
	char path[64];
	int dirfd;
	struct recorder *recorder;
	char *out, *err;
	int saved_out, saved_err, out_fd, err_fd;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	if (f == NULL)
		return -1;
	*state = f;
	f->saved_out = f->saved_err = -1;
	strcpy(f->path, "/tmp/moat-test-XXXXXX");
	if (mkdtemp(f->path) == NULL)
		return -1;
	f->dirfd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	log_set_level(0);
	return f->dirfd < 0 ? -1 : 0;
}

static void
restore_output(struct fixture *f)
{
	if (f->saved_out < 0)
		return;
	(void) fflush(stdout);
	(void) dup2(f->saved_out, STDOUT_FILENO);
	(void) dup2(f->saved_err, STDERR_FILENO);
	close(f->saved_out);
	close(f->saved_err);
	f->saved_out = f->saved_err = -1;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	restore_output(f);
	(void) recorder_close(f->recorder, NULL, NULL);
	(void) unlinkat(f->dirfd, "exec.jsonl", 0);
	(void) unlinkat(f->dirfd, "run.json", 0);
	(void) unlinkat(f->dirfd, "out", 0);
	(void) unlinkat(f->dirfd, "err", 0);
	(void) rmdir(f->path);
	close(f->dirfd);
	free(f->out);
	free(f->err);
	free(f);
	return 0;
}

static char *
slurp(struct fixture *f, const char *name, size_t *ret_size)
{
	int fd = openat(f->dirfd, name, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *data;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	data = calloc(1, (size_t) st.st_size + 1);
	assert_non_null(data);
	assert_int_equal(read(fd, data, (size_t) st.st_size), st.st_size);
	close(fd);
	if (ret_size != NULL)
		*ret_size = (size_t) st.st_size;
	return data;
}

/* ---------------------------------------------------------------------------------- recorder */

static void
open_recorder(struct fixture *f)
{
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(recorder_open(f->dirfd, &f->recorder, &err), &err);
}

static struct recorder_stats
close_recorder(struct fixture *f)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct recorder_stats stats;
	struct recorder *recorder = f->recorder;

	f->recorder = NULL;
	assert_ok(recorder_close(recorder, &stats, &err), &err);
	return stats;
}

static void
tell(struct fixture *f, const struct moat_event *event)
{
	struct moat_sink sink = recorder_sink(f->recorder);

	sink.event(sink.context, event);
}

static struct moat_event
exec_event(int64_t pid, const char *argv, size_t argv_size)
{
	return (struct moat_event){.struct_size = sizeof(struct moat_event),
				   .kind = MOAT_EVENT_EXEC,
				   .argv_complete = argv != NULL,
				   .time_ns = BASE + pid,
				   .pid = pid,
				   .ppid = 1,
				   .argv = argv,
				   .argv_size = argv_size,
				   .duration_ns = -1};
}

static struct moat_event
exit_event(int64_t pid, int code, int number)
{
	return (struct moat_event){.struct_size = sizeof(struct moat_event),
				   .kind = MOAT_EVENT_EXIT,
				   .time_ns = BASE + SECOND + pid,
				   .pid = pid,
				   .ppid = 1,
				   .exit_code = code,
				   .signal = number,
				   .duration_ns = 1500000};
}

/* Line `index` of exec.jsonl. */
static json_t *
line_at(struct fixture *f, size_t index)
{
	AUTO_FREE char *data = slurp(f, "exec.jsonl", NULL);
	char *line = data;
	json_t *json;

	for (; index > 0 && line != NULL; index--) {
		line = strchr(line, '\n');
		line = line == NULL ? NULL : line + 1;
	}
	if (line == NULL || *line == '\0')
		return NULL;
	*strchrnul(line, '\n') = '\0';
	json = json_loads(line, 0, NULL);
	if (json == NULL)
		fail_msg("not JSON: %s", line);
	return json;
}

static size_t
count_lines(struct fixture *f)
{
	size_t size, lines = 0;
	AUTO_FREE char *data = slurp(f, "exec.jsonl", &size);

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	return lines;
}

static void
test_fields(void **state)
{
	static const char *const fields[] = {"ts",        "kind",   "pid",           "ppid",
					     "exe",       "argv",   "argv_complete", "cwd",
					     "exit_code", "signal", "duration_ns",   "lost"};
	struct fixture *f = *state;
	struct moat_event event = exec_event(10, "cc\0-c\0\0x", 9);
	struct recorder_stats stats;
	struct stat st;

	open_recorder(f);
	event.exe = "/usr/bin/cc";
	event.cwd = "/src";
	event.inner_pid = 3;
	tell(f, &event);
	event.kind = MOAT_EVENT_FORK;
	tell(f, &event);
	event = exit_event(10, -1, 9);
	tell(f, &event);
	recorder_loss(f->recorder, 7, BASE, BASE + 1);
	recorder_loss(f->recorder, 0, BASE, BASE + 1);
	stats = close_recorder(f);
	assert_int_equal(stats.execs, 1);
	assert_int_equal(stats.exits, 1);
	assert_int_equal(stats.lost, 7);
	assert_int_equal(count_lines(f), 4);
	assert_int_equal(fstatat(f->dirfd, "exec.jsonl", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	for (size_t i = 0; i < 4; i++) {
		AUTO_JSON json_t *json = line_at(f, i);
		void *at = json_object_iter(json);

		for (size_t n = 0; n < sizeof fields / sizeof fields[0]; n++) {
			assert_string_equal(json_object_iter_key(at), fields[n]);
			at = json_object_iter_next(json, at);
		}
		assert_int_equal(json_object_get(json, "since") != NULL, i >= 2);
	}
}

static void
test_values(void **state)
{
	struct fixture *f = *state;
	AUTO_JSON json_t *exec = NULL;
	AUTO_JSON json_t *exit = NULL;
	AUTO_JSON json_t *loss = NULL;
	struct moat_event event = exec_event(10, "cc\0-c\0\0x", 9);

	open_recorder(f);
	tell(f, &event);
	event = exit_event(10, 3, 0);
	tell(f, &event);
	recorder_loss(f->recorder, 0, BASE, BASE + 1);
	(void) close_recorder(f);
	exec = line_at(f, 0);
	exit = line_at(f, 1);
	loss = line_at(f, 2);
	assert_string_equal(json_get_text(exec, "ts", ""), "2026-09-21T14:13:20.000000010Z");
	assert_int_equal(json_array_size(json_object_get(exec, "argv")), 4);
	assert_string_equal(json_string_value(json_array_get(json_object_get(exec, "argv"), 2)),
			    "");
	assert_true(json_is_null(json_object_get(exec, "exe")));
	assert_true(json_is_null(json_object_get(exec, "exit_code")));
	assert_true(json_get_bool(exec, "argv_complete", false));
	assert_true(json_is_null(json_object_get(exit, "argv")));
	assert_true(json_is_null(json_object_get(exit, "argv_complete")));
	assert_true(json_is_null(json_object_get(exit, "signal")));
	assert_int_equal(json_get_int(exit, "exit_code", -1), 3);
	assert_int_equal(json_get_int(exit, "duration_ns", -1), 1500000);
	assert_true(json_is_null(json_object_get(loss, "lost")));
	assert_true(json_is_null(json_object_get(loss, "pid")));
}

static void
test_odd_bytes(void **state)
{
	struct fixture *f = *state;
	char word[256 + 2] = "", *bytes;
	AUTO_JSON json_t *json = NULL;
	AUTO_JSON json_t *pair = json_object();
	struct moat_event event;
	size_t size;

	for (int i = 1; i < 256; i++)
		word[i - 1] = (char) i;
	event = exec_event(10, word, 256);
	event.exe = "\xff\xfe";
	event.cwd = "/tmp/\033[31m\n\"\\";
	open_recorder(f);
	tell(f, &event);
	(void) close_recorder(f);
	assert_int_equal(count_lines(f), 1);
	json = line_at(f, 0);
	bytes = json_get_bytes(json, "exe", &size);
	assert_int_equal(size, 2);
	assert_memory_equal(bytes, "\xff\xfe", 2);
	free(bytes);
	bytes = json_get_bytes(json, "cwd", &size);
	assert_string_equal(bytes, event.cwd);
	free(bytes);
	json_object_set(pair, "a", json_array_get(json_object_get(json, "argv"), 0));
	json_object_set(pair, "a_base64", json_array_get(json_object_get(json, "argv_base64"), 0));
	bytes = json_get_bytes(pair, "a", &size);
	assert_int_equal(size, 255);
	assert_memory_equal(bytes, word, 255);
	free(bytes);
}

/* An event of a tracer that knows fewer members. */
static void
test_short_struct(void **state)
{
	struct fixture *f = *state;
	struct moat_event event = exec_event(10, "a", 2);
	AUTO_JSON json_t *json = NULL;

	event.struct_size = offsetof(struct moat_event, exit_code);
	open_recorder(f);
	tell(f, &event);
	(void) close_recorder(f);
	json = line_at(f, 0);
	assert_int_equal(json_array_size(json_object_get(json, "argv")), 1);
}

/* More than the queue holds, faster than it is written: recorded + lost is what came. */
static void
test_overflow(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *large = malloc(512 * 1024);
	AUTO_FREE char *data = NULL;
	struct moat_event event;
	struct recorder_stats stats;
	uint64_t count = (uint64_t) test_scaled(400), lost = 0, execs = 0;

	assert_non_null(large);
	memset(large, 'x', 512 * 1024);
	large[512 * 1024 - 1] = '\0';
	open_recorder(f);
	for (uint64_t i = 0; i < count; i++) {
		event = exec_event((int64_t) i + 1, large, 512 * 1024);
		tell(f, &event);
	}
	stats = close_recorder(f);
	assert_int_equal(stats.execs + stats.lost, count);
	if (count >= 400)
		assert_true(stats.lost > 0);
	data = slurp(f, "exec.jsonl", NULL);
	for (char *line = data, *end; *line != '\0'; line = end + 1) {
		AUTO_JSON json_t *json = NULL;

		end = strchrnul(line, '\n');
		json = json_loadb(line, (size_t) (end - line), 0, NULL);
		if (strcmp(json_get_text(json, "kind", ""), "loss") == 0)
			lost += (uint64_t) json_get_int(json, "lost", 0);
		else if (json != NULL)
			execs++;
	}
	assert_int_equal(execs, stats.execs);
	assert_int_equal(lost, stats.lost);
}

/* One that never fits is a loss, and what comes after it is recorded. */
static void
test_too_large(void **state)
{
	struct fixture *f = *state;
	size_t size = 9u << 20;
	AUTO_FREE char *huge = calloc(1, size);
	struct moat_event event = exec_event(1, huge, size);
	struct recorder_stats stats;

	assert_non_null(huge);
	open_recorder(f);
	tell(f, &event);
	stats = close_recorder(f);
	assert_int_equal(stats.lost, 1);
	open_recorder(f);
	event = exec_event(2, "a", 2);
	tell(f, &event);
	stats = close_recorder(f);
	assert_int_equal(stats.execs, 1);
	assert_int_equal(count_lines(f), 2);
}

static void *
tell_many(void *argument)
{
	struct fixture *f = argument;

	for (int i = 1; i <= 1000; i++) {
		struct moat_event event = exec_event(i, "word", 5);

		tell(f, &event);
		event = exit_event(i, 0, 0);
		tell(f, &event);
	}
	return NULL;
}

static void
test_threads(void **state)
{
	struct fixture *f = *state;
	struct recorder_stats stats;
	pthread_t threads[4];

	open_recorder(f);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, tell_many, f), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	stats = close_recorder(f);
	assert_int_equal(stats.execs + stats.exits + stats.lost, 8000);
}

/* A file that may not grow: the write fails half-way, as on a full disk. */
static void
test_full_disk(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, limit;
	struct moat_error err = MOAT_ERROR_INIT;
	struct recorder_stats stats;
	struct recorder *recorder;
	AUTO_JSON json_t *last = NULL;
	struct moat_event event;
	size_t lines, size;

	(void) signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	open_recorder(f);
	event = exec_event(1, "first", 6);
	tell(f, &event);
	for (size = 0; size == 0; free(slurp(f, "exec.jsonl", &size)))
		(void) poll(NULL, 0, 1);
	limit = old;
	limit.rlim_cur = size + 100;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (int i = 0; i < 5; i++) {
		event = exec_event(2 + i, "second", 7);
		tell(f, &event);
	}
	/* The half line shows that it was tried; it goes when writing works again. */
	(void) poll(NULL, 0, 50);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	event = exec_event(100, "third", 6);
	tell(f, &event);
	recorder = f->recorder;
	f->recorder = NULL;
	assert_fails(recorder_close(recorder, &stats, &err), &err, MOAT_NO_SPACE, "not whole");
	assert_int_equal(stats.execs + stats.lost, 7);
	assert_true(stats.lost >= 1);
	lines = count_lines(f);
	last = line_at(f, lines - 1);
	assert_int_equal(json_get_int(last, "pid", 0), 100);
	for (size_t i = 0; i < lines; i++)
		json_decref(line_at(f, i)); /* each is whole */
}

static void
write_file(struct fixture *f, const char *text)
{
	int fd = openat(f->dirfd, "exec.jsonl", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* What a killed process left stays apart from what comes. */
static void
test_half_line(void **state)
{
	struct fixture *f = *state;
	struct moat_event event = exec_event(5, "a", 2);
	AUTO_JSON json_t *json = NULL;

	write_file(f, "{\"ts\":\"20");
	open_recorder(f);
	tell(f, &event);
	(void) close_recorder(f);
	assert_int_equal(count_lines(f), 2);
	json = line_at(f, 1);
	assert_int_equal(json_get_int(json, "pid", 0), 5);
}

/* ----------------------------------------------------------------------------------- printer */

static int
capture_fd(struct fixture *f, const char *name, int fd, int *ret_saved)
{
	int file = openat(f->dirfd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	*ret_saved = dup(fd);
	return file >= 0 && dup2(file, fd) == fd ? (close(file), 0) : -1;
}

/* Prints with stdout and stderr into f->out and f->err. */
static int
print(struct fixture *f, const struct trace_view *view, struct moat_error *err)
{
	int result;

	(void) fflush(stdout);
	assert_int_equal(capture_fd(f, "out", STDOUT_FILENO, &f->saved_out), 0);
	assert_int_equal(capture_fd(f, "err", STDERR_FILENO, &f->saved_err), 0);
	result = trace_print(f->dirfd, view, err);
	restore_output(f);
	free(f->out);
	free(f->err);
	f->out = slurp(f, "out", NULL);
	f->err = slurp(f, "err", NULL);
	return result;
}

static void
print_ok(struct fixture *f, const struct trace_view *view)
{
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(print(f, view, &err), &err);
}

static void
assert_contains(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("`%s' lacks `%s'", text, part);
}

/* clang-format off */
#define TS "2026-11-22T10:00:0"
#define EXEC(s, pid, ppid, argv)                                                                   \
	"{\"ts\":\"" TS s "Z\",\"kind\":\"exec\",\"pid\":" pid ",\"ppid\":" ppid                      \
	",\"exe\":\"/bin/x\",\"argv\":" argv ",\"argv_complete\":true,\"cwd\":\"/\","                \
	"\"exit_code\":null,\"signal\":null,\"duration_ns\":null,\"lost\":null}\n"
#define EXIT(s, pid, ppid, code, sig)                                                              \
	"{\"ts\":\"" TS s "Z\",\"kind\":\"exit\",\"pid\":" pid ",\"ppid\":" ppid                      \
	",\"exe\":null,\"argv\":null,\"argv_complete\":null,\"cwd\":null,\"exit_code\":" code         \
	",\"signal\":" sig ",\"duration_ns\":1500000000,\"lost\":null}\n"
#define LOSS(s, lost)                                                                              \
	"{\"ts\":\"" TS s "Z\",\"kind\":\"loss\",\"pid\":null,\"ppid\":null,\"exe\":null,"           \
	"\"argv\":null,\"argv_complete\":null,\"cwd\":null,\"exit_code\":null,\"signal\":null,"      \
	"\"duration_ns\":null,\"lost\":" lost ",\"since\":\"" TS "0.000000000Z\"}\n"

/* sh (10) runs make (11), which forks 12, which runs cc (13); 11 was something else before. */
static const char fixture_text[] =
	EXEC("0.1", "10", "9", "[\"sh\",\"-c\",\"a b; it's\"]")
	EXEC("0.2", "11", "10", "[\"env\",\"make\"]")
	EXEC("0.3", "11", "10", "[\"make\"]")
	EXEC("0.4", "13", "12", "[\"cc\",\"\\u001b[31mred\\nx\",\"\"]")
	EXIT("1.0", "13", "12", "1", "null")
	EXIT("1.1", "12", "11", "0", "null")
	LOSS("2.0", "41")
	LOSS("2.1", "null")
	EXIT("3.0", "11", "10", "null", "9")
	EXEC("4.0", "14", "10", "[\"tail\"]");
/* clang-format on */

static void
test_table(void **state)
{
	struct fixture *f = *state;

	write_file(f, fixture_text);
	print_ok(f, &(struct trace_view){0});
	assert_string_equal(
		f->out,
		"TIME               PID  DURATION  STATUS     COMMAND\n"
		"10:00:00.100        10            running    sh -c 'a b; it'\\''s'\n"
		"10:00:00.200        11     100ms  exec       env make\n"
		"10:00:00.300        11      1.5s  signal 9   make\n"
		"10:00:00.400        13      1.5s  exit 1     cc $'\\033[31mred\\nx' ''\n"
		"10:00:02.000                2.0s  LOST       41 events lost\n"
		"10:00:02.100                2.1s  LOST       an unknown number of events lost\n"
		"10:00:04.000        14            running    tail\n");
	assert_contains(f->err, "41 events lost, and an unknown number more");
}

static void
test_tree(void **state)
{
	struct fixture *f = *state;

	write_file(f, fixture_text);
	print_ok(f, &(struct trace_view){.tree = true, .color = true});
	assert_contains(f->out, "running    sh -c");
	assert_contains(f->out, "exec         env make\n");
	assert_contains(f->out, "signal 9     make\033[0m\n");
	assert_contains(f->out, "exit 1         cc $'"); /* below make, although 12 had no exec */
	assert_contains(f->out, "\033[31m10:00:00.400");
	assert_contains(f->out, "running      tail\n");
	assert_true(strstr(f->out, "cc $'") < strstr(f->out, "tail"));
}

static void
test_json(void **state)
{
	struct fixture *f = *state;
	AUTO_JSON json_t *array = NULL;

	write_file(f, fixture_text);
	print_ok(f, &(struct trace_view){.json = true});
	array = json_loads(f->out, 0, NULL);
	assert_int_equal(json_array_size(array), 10);
	assert_contains(f->err, "41 events lost");
	assert_int_equal(unlinkat(f->dirfd, "exec.jsonl", 0), 0);
	write_file(f, "");
	print_ok(f, &(struct trace_view){.json = true});
	assert_string_equal(f->out, "[]\n");
}

static void
test_incomplete_argv(void **state)
{
	struct fixture *f = *state;

	write_file(f,
		   "{\"ts\":\"" TS
		   "0.1Z\",\"kind\":\"exec\",\"pid\":5,\"ppid\":1,\"exe\":\"/bin/x y\","
		   "\"argv\":null,\"argv_complete\":false}\n"
		   "{\"ts\":\"" TS "0.1Z\",\"kind\":\"exec\",\"pid\":6,\"ppid\":1,\"exe\":null,"
		   "\"argv\":[\"a\"],\"argv_complete\":false}\n"
		   "{\"ts\":\"" TS "0.1Z\",\"kind\":\"exec\",\"pid\":7,\"ppid\":1,\"exe\":null,"
		   "\"argv\":[\"\\ufffd\"],\"argv_base64\":[\"/w==\"],\"argv_complete\":true}\n");
	print_ok(f, &(struct trace_view){0});
	assert_contains(f->out, "'/bin/x y' (arguments not known)\n");
	assert_contains(f->out, " a ...\n");
	assert_contains(f->out, " $'\\xff'\n");
}

static void
test_damaged(void **state)
{
	struct fixture *f = *state;

	write_file(f, "garbage\n{\"kind\":7}\n[]\n" EXEC("0.1", "10", "9",
							 "[\"a\"]") "{\"ts\":\"2026");
	print_ok(f, &(struct trace_view){0});
	assert_contains(f->out, "running    a\n");
	assert_contains(f->err, "3 lines of the trace are damaged");
	write_file(f, "\n");
	print_ok(f, &(struct trace_view){0});
	assert_contains(f->err, "3 lines of the trace are damaged"); /* the last: no error */
}

/* Every prefix of a trace prints, without a complaint. */
static void
test_truncated(void **state)
{
	struct fixture *f = *state;
	size_t size = strlen(fixture_text);

	for (size_t n = 0; n <= size; n += test_scaled(100) < 100 ? 37 : 3) {
		char *part = strndup(fixture_text, n);

		(void) unlinkat(f->dirfd, "exec.jsonl", 0);
		write_file(f, part);
		free(part);
		print_ok(f, &(struct trace_view){.tree = n % 2 == 0});
		assert_null(strstr(f->err, "damaged"));
	}
}

/* Parents that descend from their children, in a file that nobody wrote. */
static void
test_circles(void **state)
{
	struct fixture *f = *state;

	write_file(f, EXEC("0.1", "5", "6", "[\"a\"]") EXEC("0.2", "6", "5", "[\"b\"]")
			      EXEC("0.3", "7", "7", "[\"c\"]") EXIT("0.4", "6", "5", "0", "null")
				      EXIT("0.5", "5", "6", "0", "null")
					      EXEC("0.6", "5", "6", "[\"d\"]"));
	print_ok(f, &(struct trace_view){.tree = true});
	assert_contains(f->out, " a\n");
	assert_contains(f->out, " b\n");
	assert_contains(f->out, " c\n");
	assert_contains(f->out, " d\n");
}

static void
test_deep(void **state)
{
	struct fixture *f = *state;
	FILE *file =
		fdopen(openat(f->dirfd, "exec.jsonl", O_WRONLY | O_CREAT | O_CLOEXEC, 0600), "w");
	long depth = test_scaled(20000);

	assert_non_null(file);
	for (long i = 2; i < depth; i++)
		fprintf(file,
			"{\"kind\":\"exec\",\"pid\":%ld,\"ppid\":%ld,\"argv\":[\"x%ld\"],"
			"\"argv_complete\":true}\n",
			i, i - 1, i);
	fclose(file);
	print_ok(f, &(struct trace_view){.tree = true});
	assert_contains(f->out, " x2\n");
}

static void
test_no_file(void **state)
{
	struct fixture *f = *state;
	struct moat_error err = MOAT_ERROR_INIT;

	assert_fails(print(f, &(struct trace_view){0}, &err), &err, MOAT_NOT_FOUND,
		     "without tracing");
}

/* A run that goes on: each step is taken only when the printer was seen to wait. */
struct writer {
	struct fixture *f;
	atomic_int asked;
	atomic_bool ended;
};

static bool
asked_running(void *context)
{
	struct writer *writer = context;
	bool running = !atomic_load(&writer->ended);

	atomic_fetch_add(&writer->asked, 1);
	return running;
}

/* The printer has come to the end of what there was, for the n-th time at least. */
static void
wait_asked(struct writer *writer, int n)
{
	while (atomic_load(&writer->asked) < n)
		(void) poll(NULL, 0, 1);
}

static void *
write_run(void *argument)
{
	struct writer *writer = argument;
	int fd;

	wait_asked(writer, 1); /* there is no file yet */
	write_file(writer->f, EXEC("0.1", "10", "9", "[\"first\"]"));
	wait_asked(writer, 2);
	write_file(writer->f, "{\"ts\":\"" TS "0.2Z\",\"kind\":\"exec\",\"pid\":11,\"ppid\":10,");
	wait_asked(writer, 3);
	write_file(writer->f, "\"argv\":[\"second\"],\"argv_complete\":true}\n");
	wait_asked(writer, 4);
	write_file(writer->f, EXIT("1.0", "10", "9", "7", "null"));
	atomic_store(&writer->ended, true);
	fd = openat(writer->f->dirfd, "run.json", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	close(fd);
	return NULL;
}

static void
follow(struct fixture *f, bool json)
{
	struct writer writer = {.f = f};
	struct trace_view view = {
		.follow = true, .json = json, .still_running = asked_running, .context = &writer};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, write_run, &writer), 0);
	print_ok(f, &view);
	pthread_join(thread, NULL);
}

static void
test_follow(void **state)
{
	struct fixture *f = *state;

	follow(f, false);
	assert_string_equal(f->out, "TIME               PID  DURATION  STATUS     COMMAND\n"
				    "10:00:00.100        10            running    first\n"
				    "10:00:00.200        11            running    second\n"
				    "10:00:01.000        10      1.5s  exit 7     first\n");
}

static void
test_follow_json(void **state)
{
	struct fixture *f = *state;
	AUTO_FREE char *recorded = NULL;

	follow(f, true);
	recorded = slurp(f, "exec.jsonl", NULL);
	assert_string_equal(f->out, recorded);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_fields),          TEST(test_values),      TEST(test_odd_bytes),
		TEST(test_short_struct),    TEST(test_overflow),    TEST(test_too_large),
		TEST(test_threads),         TEST(test_full_disk),   TEST(test_half_line),
		TEST(test_table),           TEST(test_tree),        TEST(test_json),
		TEST(test_incomplete_argv), TEST(test_damaged),     TEST(test_truncated),
		TEST(test_circles),         TEST(test_deep),        TEST(test_no_file),
		TEST(test_follow),          TEST(test_follow_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
