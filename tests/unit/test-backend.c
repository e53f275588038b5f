/* SPDX-License-Identifier: Apache-2.0 */
/* The wrappers around a plugin's functions, with a plugin that answers every call with garbage. */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/backend.h"
#include "tests/unit/test.h"

/* --------------------------------------------------------------------------- the hostile plugin */

/* What the next call of the plugin does. */
static struct {
	int rc;
	struct moat_error err;
	struct moat_ref ref;
	struct moat_view view;
	struct moat_handle handle;
	struct moat_io io;
	struct moat_run_status status;
	struct moat_processes processes;
	struct moat_event event;
	bool want_event, late;
	struct moat_sink sink;
	size_t index;
	int calls, closes, opened, signals[8], signal_count;
} next;

static int
answer(struct moat_error *err)
{
	next.calls++;
	if (next.rc != 0)
		*err = next.err;
	return next.rc;
}

static int
hostile_open(const struct moat_host *host, const struct moat_config *config, void **self,
	     struct moat_error *err)
{
	*self = &next;
	next.opened++;
	return answer(err);
}

static int
hostile_open_store(const struct moat_host *host, const struct moat_store *store, void **self,
		   struct moat_error *err)
{
	*self = &next;
	next.opened++;
	assert_string_equal(store->path, "/store");
	return answer(err);
}

static void
hostile_close(void *self)
{
	next.closes++;
}

static int
hostile_create(void *self, const struct moat_run_spec *spec, struct moat_handle *ret,
	       struct moat_error *err)
{
	*ret = next.handle;
	return answer(err);
}

static int
hostile_io(void *self, const char *handle, struct moat_io *ret, struct moat_error *err)
{
	*ret = next.io;
	return answer(err);
}

static int
hostile_simple(void *self, const char *handle, struct moat_error *err)
{
	return answer(err);
}

static int
hostile_wait(void *self, const char *handle, int64_t timeout_ms, struct moat_run_status *ret,
	     struct moat_error *err)
{
	*ret = next.status;
	return answer(err);
}

static int
hostile_wait_fd(void *self, const char *handle)
{
	return next.io.in;
}

static int
hostile_state(void *self, const char *handle, struct moat_run_status *ret, struct moat_error *err)
{
	*ret = next.status;
	return answer(err);
}

static int
hostile_kill(void *self, const char *handle, int signal, struct moat_error *err)
{
	next.signals[next.signal_count++ % 8] = signal;
	if (signal == SIGKILL) {
		next.status.state = MOAT_RUN_EXITED;
		next.status.signal = SIGKILL;
	}
	return answer(err);
}

static int
hostile_processes(void *self, const char *handle, struct moat_processes *ret,
		  struct moat_error *err)
{
	*ret = next.processes;
	return answer(err);
}

static int
hostile_view(void *self, const struct moat_sandbox_spec *spec, struct moat_view *ret,
	     struct moat_error *err)
{
	*ret = next.view;
	return answer(err);
}

static int
hostile_capture(void *self, const struct moat_capture *capture, struct moat_ref *ret,
		struct moat_error *err)
{
	uint64_t locator[3] = {1, 2, 3};

	*ret = next.ref;
	if (capture->open(capture, next.index, err) < 0 ||
	    capture->stored(capture, next.index, -1, 0, NULL, locator, err) < 0)
		return -1;
	return answer(err);
}

static int
hostile_extract(void *self, const struct moat_extract *extract, struct moat_error *err)
{
	struct moat_error why;

	memset(&why, 'z', sizeof why);
	if (extract->done(extract, next.index, -1, 0, NULL, err) < 0 ||
	    extract->damaged(extract, next.index, &why, err) < 0)
		return -1;
	return answer(err);
}

static int
hostile_remove(void *self, const char *ref, const struct moat_live *live, struct moat_error *err)
{
	return answer(err);
}

static int
hostile_enumerate(void *self,
		  int (*found)(void *, const struct moat_ref *, const void *, size_t,
			       struct moat_error *),
		  void *context, struct moat_error *err)
{
	struct moat_error forgotten = MOAT_ERROR_INIT;

	(void) found(context, &next.ref, "m", 1, &forgotten);
	return answer(err);
}

static int
hostile_start(void *self, const struct moat_trace_target *target, const struct moat_sink *sink,
	      struct moat_error *err)
{
	next.sink = *sink;
	if (next.want_event)
		sink->event(sink->context, &next.event);
	return answer(err);
}

static int
hostile_stop(void *self, struct moat_error *err)
{
	return answer(err);
}

static int
hostile_stats(void *self, struct moat_trace_stats *ret, struct moat_error *err)
{
	memset(ret, 'q', sizeof *ret);
	return answer(err);
}

static struct plugin
make_plugin(uint32_t kind)
{
	return (struct plugin){.kind = kind, .name = (char *) (uintptr_t) "evil"};
}

struct hostile {
	struct plugin runtime, snapshot, sandbox, tracer;
	struct backend *backend;
	struct moat_error err;
	int pipe[2], terminal[2];
};

static int
setup_hostile(void **state)
{
	struct hostile *f = calloc(1, sizeof *f);

	*state = f;
	if (f == NULL)
		return -1;
	memset(&next, 0, sizeof next);
	f->err = (struct moat_error) MOAT_ERROR_INIT;
	f->pipe[0] = f->pipe[1] = f->terminal[0] = f->terminal[1] = -1;
	f->runtime = make_plugin(MOAT_KIND_RUNTIME);
	f->snapshot = make_plugin(MOAT_KIND_SNAPSHOT);
	f->sandbox = make_plugin(MOAT_KIND_SANDBOX);
	f->tracer = make_plugin(MOAT_KIND_TRACER);
	f->runtime.ops.runtime = (struct moat_runtime_ops){
		MOAT_OPS(runtime),        .open = hostile_open,
		.close = hostile_close,   .create = hostile_create,
		.io = hostile_io,         .start = hostile_simple,
		.wait = hostile_wait,     .wait_fd = hostile_wait_fd,
		.state = hostile_state,   .kill = hostile_kill,
		.remove = hostile_simple, .processes = hostile_processes,
	};
	f->snapshot.ops.snapshot = (struct moat_snapshot_ops){
		MOAT_OPS(snapshot),
		.open = hostile_open_store,
		.close = hostile_close,
		.capture = hostile_capture,
		.materialise = hostile_extract,
		.remove = hostile_remove,
		.enumerate = hostile_enumerate,
	};
	f->sandbox.ops.sandbox = (struct moat_sandbox_ops){
		MOAT_OPS(sandbox),      .open = hostile_open,      .close = hostile_close,
		.create = hostile_view, .destroy = hostile_simple,
	};
	f->tracer.ops.tracer = (struct moat_tracer_ops){
		MOAT_OPS(tracer),       .open = hostile_open, .close = hostile_close,
		.start = hostile_start, .stop = hostile_stop, .stats = hostile_stats,
	};
	return pipe2(f->pipe, O_CLOEXEC);
}

static int
teardown_hostile(void **state)
{
	struct hostile *f = *state;

	next.rc = 0;
	backend_close(f->backend);
	for (int i = 0; i < 2; i++) {
		if (f->pipe[i] >= 0)
			(void) close(f->pipe[i]);
		if (f->terminal[i] >= 0)
			(void) close(f->terminal[i]);
	}
	free(f);
	return 0;
}

static void
open_runtime(struct hostile *f)
{
	static const char *const argv[] = {"true", NULL};
	struct moat_run_spec spec = {.struct_size = sizeof spec, .id = "run_1", .argv = argv};
	struct moat_handle handle;

	assert_ok(runtime_open(&f->runtime, NULL, &f->backend, &f->err), &f->err);
	(void) snprintf(next.handle.text, sizeof next.handle.text, "run_1");
	assert_ok(runtime_create(f->backend, &spec, &handle, &f->err), &f->err);
	assert_string_equal(handle.text, "run_1");
}

static void
failing_without_a_message(void **state)
{
	struct hostile *f = *state;

	open_runtime(f);
	next.rc = -1;
	assert_fails(runtime_start(f->backend, "run_1", &f->err), &f->err, MOAT_FAILED,
		     "plugin runtime-evil: start failed without saying why");
	next.rc = 7;
	assert_fails(runtime_start(f->backend, "run_1", &f->err), &f->err, MOAT_FAILED,
		     "start failed without saying why");
	next.rc = -1;
	(void) moat_fail(&next.err, MOAT_NO_COMMAND, "`x': command not found");
	assert_fails(runtime_start(f->backend, "run_1", &f->err), &f->err, MOAT_NO_COMMAND,
		     "plugin runtime-evil: start: `x': command not found");
	memset(&next.err, 'e', sizeof next.err);
	assert_fails(runtime_start(f->backend, "run_1", &f->err), &f->err, MOAT_FAILED,
		     "plugin runtime-evil: start: eeee");
	/* Nobody wants to know: no crash. */
	assert_int_equal(runtime_start(f->backend, "run_1", NULL), -1);
}

static void
opening_fails(void **state)
{
	struct hostile *f = *state;
	struct moat_store store = {.struct_size = sizeof store, .dirfd = -1, .path = "/store"};

	next.rc = -1;
	assert_fails(runtime_open(&f->runtime, NULL, &f->backend, &f->err), &f->err, MOAT_FAILED,
		     "plugin runtime-evil: open failed without saying why");
	assert_fails(snapshot_open(&f->snapshot, &store, &f->backend, &f->err), &f->err,
		     MOAT_FAILED, "plugin snapshot-evil: open failed without saying why");
	assert_fails(runtime_open(&f->tracer, NULL, &f->backend, &f->err), &f->err, MOAT_FAILED,
		     "no runtime plugin");
	assert_null(f->backend);
	assert_int_equal(next.closes, 0);
	assert_int_equal(next.opened, 2);
}

static void
closed_once(void **state)
{
	struct hostile *f = *state;

	assert_ok(sandbox_open(&f->sandbox, NULL, &f->backend, &f->err), &f->err);
	assert_string_equal(backend_name(f->backend), "evil");
	backend_close(f->backend);
	f->backend = NULL;
	assert_int_equal(next.closes, 1);
	backend_close(NULL);
}

static void
wrong_kind_and_wrong_order(void **state)
{
	struct hostile *f = *state;
	struct moat_io io;
	struct moat_run_status status;

	open_runtime(f);
	assert_fails(tracer_stop(f->backend, &f->err), &f->err, MOAT_FAILED, "no open tracer");
	assert_fails(tracer_stop(NULL, &f->err), &f->err, MOAT_FAILED, "no open tracer");
	assert_fails(runtime_start(f->backend, "run_2", &f->err), &f->err, MOAT_FAILED,
		     "not created here");
	assert_fails(runtime_start(f->backend, NULL, &f->err), &f->err, MOAT_FAILED, "no run");
	next.io = (struct moat_io){sizeof next.io, -1, -1, -1, 0, 0};
	assert_ok(runtime_io(f->backend, "run_1", &io, &f->err), &f->err);
	assert_fails(runtime_io(f->backend, "run_1", &io, &f->err), &f->err, MOAT_FAILED,
		     "already");
	assert_ok(runtime_start(f->backend, "run_1", &f->err), &f->err);
	assert_fails(runtime_start(f->backend, "run_1", &f->err), &f->err, MOAT_FAILED,
		     "started already");
	assert_fails(runtime_kill(f->backend, "run_1", 0, &f->err), &f->err, MOAT_FAILED,
		     "no signal 0");
	assert_fails(runtime_kill(f->backend, "run_1", 999, &f->err), &f->err, MOAT_FAILED,
		     "no signal 999");
	/* One that another process created: the plugin is asked. */
	assert_ok(runtime_state(f->backend, "run_9", &status, &f->err), &f->err);
	assert_ok(runtime_remove(f->backend, "run_1", &f->err), &f->err);
	assert_ok(runtime_remove(f->backend, "run_1", &f->err), &f->err);
	assert_fails(runtime_state(f->backend, "run_1", &status, &f->err), &f->err, MOAT_GONE,
		     "removed");
	assert_int_equal(runtime_wait_fd(f->backend, "run_1"), -1);
}

static void
handles_that_are_none(void **state)
{
	static const char *const argv[] = {"true", NULL};
	struct moat_run_spec spec = {.struct_size = sizeof spec, .id = "run_2", .argv = argv};
	struct hostile *f = *state;
	struct moat_handle handle = {.text = "untouched"};

	open_runtime(f);
	assert_fails(runtime_create(f->backend, &spec, &handle, &f->err), &f->err, MOAT_FAILED,
		     "that of another run");
	memset(&next.handle, 'h', sizeof next.handle);
	assert_fails(runtime_create(f->backend, &spec, &handle, &f->err), &f->err, MOAT_FAILED,
		     "plugin runtime-evil: create: it gave a name that does not end");
	memset(&next.handle, 0, sizeof next.handle);
	assert_fails(runtime_create(f->backend, &spec, &handle, &f->err), &f->err, MOAT_FAILED,
		     "empty name");
	(void) snprintf(next.handle.text, sizeof next.handle.text, "a\nb");
	assert_fails(runtime_create(f->backend, &spec, &handle, &f->err), &f->err, MOAT_FAILED,
		     "unprintable byte 0x0a");
	assert_string_equal(handle.text, "untouched");
	spec.argv = NULL;
	assert_fails(runtime_create(f->backend, &spec, &handle, &f->err), &f->err, MOAT_FAILED,
		     "no command");
}

static void
descriptors_that_are_none(void **state)
{
	struct hostile *f = *state;
	const struct moat_io bad[] = {
		{sizeof bad[0], 12345, -1, -1, 0, 0}, {sizeof bad[0], -1, 12345, -1, 0, 0},
		{sizeof bad[0], -1, -1, 12345, 0, 0}, {sizeof bad[0], -7, -1, -1, 0, 0},
		{sizeof bad[0], 0, 0, 0, 0, 0},
	};
	struct moat_io io = {.in = 99};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		open_runtime(f);
		next.io = bad[i];
		assert_fails(runtime_io(f->backend, "run_1", &io, &f->err), &f->err, MOAT_FAILED,
			     "plugin runtime-evil: io: the command's");
		assert_int_equal(io.in, 99);
		backend_close(f->backend);
		f->backend = NULL;
	}
	open_runtime(f);
	next.io = (struct moat_io){sizeof next.io, f->pipe[1], f->pipe[0], f->pipe[0], 0, 0};
	assert_fails(runtime_io(f->backend, "run_1", &io, &f->err), &f->err, MOAT_FAILED,
		     "one descriptor");
}

static void
descriptors_are_made_sound(void **state)
{
	struct hostile *f = *state;
	struct moat_io io;

	open_runtime(f);
	assert_int_equal(fcntl(f->pipe[0], F_SETFD, 0), 0);
	next.io = (struct moat_io){0, f->pipe[0], f->pipe[0], -1, 0, 77};
	assert_ok(runtime_io(f->backend, "run_1", &io, &f->err), &f->err);
	assert_int_equal(fcntl(f->pipe[0], F_GETFD), FD_CLOEXEC);
	assert_int_equal(io.shared, 1);
	assert_int_equal(io.half_close, 1);
	assert_int_equal(io.struct_size, sizeof io);
	next.io.in = 12345;
	assert_int_equal(runtime_wait_fd(f->backend, "run_1"), -1);
	next.io.in = f->pipe[1];
	assert_int_equal(runtime_wait_fd(f->backend, "run_1"), f->pipe[1]);
}

static void
states_are_made_sound(void **state)
{
	struct hostile *f = *state;
	struct moat_run_status status;

	open_runtime(f);
	memset(&next.status, 0xff, sizeof next.status);
	assert_ok(runtime_state(f->backend, "run_1", &status, &f->err), &f->err);
	assert_int_equal(status.state, MOAT_RUN_UNKNOWN);
	assert_int_equal(status.exit_code, -1);
	assert_int_equal(status.signal, 0);
	assert_int_equal(status.started_ns, 0);
	assert_int_equal(strlen(status.detail), sizeof status.detail - 1);
	next.status = (struct moat_run_status){.state = MOAT_RUN_EXITED, .exit_code = 256};
	assert_ok(runtime_wait(f->backend, "run_1", 0, &status, &f->err), &f->err);
	assert_int_equal(status.exit_code, -1);
	/* Killed is never shown as a success, whatever code comes with it. */
	next.status = (struct moat_run_status){.state = MOAT_RUN_EXITED, .signal = 9};
	assert_ok(runtime_wait(f->backend, "run_1", 0, &status, &f->err), &f->err);
	assert_int_equal(status.exit_code, -1);
	assert_int_equal(status.signal, 9);
	next.status = (struct moat_run_status){.state = MOAT_RUN_EXITED, .signal = 4711};
	assert_ok(runtime_wait(f->backend, "run_1", 0, &status, &f->err), &f->err);
	assert_int_equal(status.signal, 0);
	next.status = (struct moat_run_status){.state = MOAT_RUN_RUNNING, .signal = 9};
	assert_ok(runtime_state(f->backend, "run_1", &status, &f->err), &f->err);
	assert_int_equal(status.signal, 0);
	next.status = (struct moat_run_status){.state = MOAT_RUN_EXITED, .exit_code = 255};
	assert_ok(runtime_state(f->backend, "run_1", &status, &f->err), &f->err);
	assert_int_equal(status.exit_code, 255);
}

static void
stop_without_a_stop(void **state)
{
	struct hostile *f = *state;

	open_runtime(f);
	next.status = (struct moat_run_status){.state = MOAT_RUN_RUNNING};
	assert_ok(runtime_stop(f->backend, "run_1", 20, &f->err), &f->err);
	assert_int_equal(next.signal_count, 2);
	assert_int_equal(next.signals[0], SIGTERM);
	assert_int_equal(next.signals[1], SIGKILL);
	/* Ended meanwhile: SIGTERM is all. */
	next.signal_count = 0;
	assert_ok(runtime_stop(f->backend, "run_1", 20, &f->err), &f->err);
	assert_int_equal(next.signal_count, 1);
	next.rc = -1;
	assert_fails(runtime_stop(f->backend, "run_1", 20, &f->err), &f->err, MOAT_FAILED,
		     "kill failed without saying why");
}

static void
resize_by_the_terminal(void **state)
{
	struct hostile *f = *state;
	struct winsize size;

	open_runtime(f);
	assert_int_equal(openpty(&f->terminal[0], &f->terminal[1], NULL, NULL, NULL), 0);
	assert_ok(runtime_resize(f->backend, "run_1", f->terminal[0], 33, 101, &f->err), &f->err);
	assert_int_equal(ioctl(f->terminal[1], TIOCGWINSZ, &size), 0);
	assert_int_equal(size.ws_row, 33);
	assert_int_equal(size.ws_col, 101);
	assert_fails(runtime_resize(f->backend, "run_1", -1, 1, 1, &f->err), &f->err, MOAT_FAILED,
		     "size of the terminal");
	assert_fails(runtime_resize(f->backend, "run_1", f->terminal[0], 70000, 1, &f->err),
		     &f->err, MOAT_FAILED, "70000 x 1");
}

static void
processes_that_are_none(void **state)
{
	struct hostile *f = *state;
	struct moat_processes p;

	open_runtime(f);
	next.processes.root_pid = -1;
	assert_fails(runtime_processes(f->backend, "run_1", &p, &f->err), &f->err, MOAT_FAILED,
		     "-1 is no process");
	next.processes.root_pid = 1LL << 40;
	assert_fails(runtime_processes(f->backend, "run_1", &p, &f->err), &f->err, MOAT_FAILED,
		     "is no process");
	next.processes.root_pid = 5;
	memset(next.processes.cgroup, 'c', sizeof next.processes.cgroup);
	assert_fails(runtime_processes(f->backend, "run_1", &p, &f->err), &f->err, MOAT_FAILED,
		     "cgroup");
	(void) snprintf(next.processes.cgroup, sizeof next.processes.cgroup, "a/../../b");
	assert_fails(runtime_processes(f->backend, "run_1", &p, &f->err), &f->err, MOAT_FAILED,
		     "cgroup");
	(void) snprintf(next.processes.cgroup, sizeof next.processes.cgroup, "/a/..b/c..");
	memset(next.processes.invisible, 'i', sizeof next.processes.invisible);
	assert_ok(runtime_processes(f->backend, "run_1", &p, &f->err), &f->err);
	assert_int_equal(p.root_pid, 5);
	assert_int_equal(strlen(p.invisible), sizeof p.invisible - 1);
}

static void
views_that_are_none(void **state)
{
	struct hostile *f = *state;
	struct moat_sandbox_spec spec = {.struct_size = sizeof spec, .workspace = "/w"};
	struct moat_view view = {.kind = 4};

	assert_ok(sandbox_open(&f->sandbox, NULL, &f->backend, &f->err), &f->err);
	assert_fails(sandbox_create(f->backend, &spec, &view, &f->err), &f->err, MOAT_FAILED,
		     "plugin sandbox-evil: create: it gave an empty name");
	next.view.ref[0] = 'r';
	assert_fails(sandbox_create(f->backend, &spec, &view, &f->err), &f->err, MOAT_FAILED,
		     "unknown kind 0");
	next.view.kind = MOAT_VIEW_PATH;
	assert_fails(sandbox_create(f->backend, &spec, &view, &f->err), &f->err, MOAT_FAILED,
		     "path is no absolute path");
	next.view.path = "relative";
	assert_fails(sandbox_create(f->backend, &spec, &view, &f->err), &f->err, MOAT_FAILED,
		     "`relative'");
	assert_int_equal(view.kind, 4);
	next.view.path = "/w";
	assert_ok(sandbox_create(f->backend, &spec, &view, &f->err), &f->err);
	next.view.kind = MOAT_VIEW_OVERLAY;
	next.view.lower = next.view.upper = "/l";
	assert_fails(sandbox_create(f->backend, &spec, &view, &f->err), &f->err, MOAT_FAILED,
		     "work directory");
	assert_fails(sandbox_destroy(f->backend, "", &f->err), &f->err, MOAT_FAILED, "no view");
	assert_ok(sandbox_destroy(f->backend, "r", &f->err), &f->err);
}

/* -------------------------------------------------------------------------------- snapshots */

static int core_calls;
static struct moat_error core_saw;

static int
core_open(const struct moat_capture *capture, size_t index, struct moat_error *err)
{
	assert_ptr_equal(capture->context, &core_calls);
	core_calls++;
	return 0;
}

static int
core_stored(const struct moat_capture *capture, size_t index, int fd, uint64_t size,
	    const uint8_t *hash, const uint64_t locator[3], struct moat_error *err)
{
	assert_ptr_equal(capture->context, &core_calls);
	core_calls++;
	return 0;
}

static int
core_place(const struct moat_extract *extract, size_t index, int *ret_dirfd, const char **ret_name,
	   struct moat_error *err)
{
	return -1;
}

static int
core_done(const struct moat_extract *extract, size_t index, int fd, uint64_t size,
	  const uint8_t *hash, struct moat_error *err)
{
	assert_ptr_equal(extract->context, &core_calls);
	core_calls++;
	return 0;
}

static int
core_damaged(const struct moat_extract *extract, size_t index, const struct moat_error *why,
	     struct moat_error *err)
{
	core_calls++;
	core_saw = *why;
	return 0;
}

static const struct moat_entry a_file = {.path = "f", .type = MOAT_FILE, .leader = MOAT_NO_LEADER};
static const struct moat_entry a_directory = {
	.path = "d", .type = MOAT_DIRECTORY, .leader = MOAT_NO_LEADER};
static const struct moat_entry *const three[] = {&a_directory, &a_file, &a_file};
static const struct moat_entries entries = {sizeof entries, sizeof(struct moat_entry), 3, three};

static void
open_snapshot(struct hostile *f)
{
	char path[] = "/store";
	struct moat_store store = {.struct_size = sizeof store, .dirfd = -1, .path = path};

	core_calls = 0;
	assert_ok(snapshot_open(&f->snapshot, &store, &f->backend, &f->err), &f->err);
	path[1] = 'X';
}

static void
capture_is_checked(void **state)
{
	struct hostile *f = *state;
	struct moat_capture capture = {.struct_size = sizeof capture,
				       .entries = &entries,
				       .context = &core_calls,
				       .open = core_open,
				       .stored = core_stored};
	struct moat_ref ref = {.text = "untouched"};

	open_snapshot(f);
	memset(&next.ref, 'r', sizeof next.ref);
	next.index = 1;
	assert_fails(snapshot_capture(f->backend, &capture, &ref, &f->err), &f->err, MOAT_FAILED,
		     "plugin snapshot-evil: capture: it gave a name that does not end");
	assert_int_equal(core_calls, 2);
	next.ref = (struct moat_ref){.text = "\xc3\xa4"};
	assert_fails(snapshot_capture(f->backend, &capture, &ref, &f->err), &f->err, MOAT_FAILED,
		     "unprintable byte 0xc3");
	assert_string_equal(ref.text, "untouched");
	core_calls = 0;
	next.index = 3;
	assert_fails(snapshot_capture(f->backend, &capture, &ref, &f->err), &f->err, MOAT_FAILED,
		     "it asked for entry 3 of 3");
	next.index = 0;
	assert_fails(snapshot_capture(f->backend, &capture, &ref, &f->err), &f->err, MOAT_FAILED,
		     "content of entry 0, which has none");
	assert_int_equal(core_calls, 0);
	next.index = 2;
	next.ref = (struct moat_ref){.text = "good", .stored_bytes = 7};
	assert_ok(snapshot_capture(f->backend, &capture, &ref, &f->err), &f->err);
	assert_string_equal(ref.text, "good");
	assert_int_equal(ref.stored_bytes, 7);
}

static void
extract_is_checked(void **state)
{
	struct hostile *f = *state;
	struct moat_extract extract = {.struct_size = sizeof extract,
				       .ref = "r",
				       .entries = &entries,
				       .context = &core_calls,
				       .place = core_place,
				       .done = core_done,
				       .damaged = core_damaged};

	open_snapshot(f);
	next.index = (size_t) -1;
	assert_fails(snapshot_materialise(f->backend, &extract, &f->err), &f->err, MOAT_FAILED,
		     "plugin snapshot-evil: materialise: ");
	assert_int_equal(core_calls, 0);
	next.index = 1;
	assert_ok(snapshot_materialise(f->backend, &extract, &f->err), &f->err);
	assert_int_equal(core_calls, 2);
	assert_int_equal(core_saw.code, MOAT_CORRUPT);
	assert_int_equal(strlen(core_saw.message), sizeof core_saw.message - 1);
	extract.place = NULL;
	assert_fails(snapshot_materialise(f->backend, &extract, &f->err), &f->err, MOAT_FAILED,
		     "no place");
	assert_false(snapshot_can_verify(f->backend));
	assert_fails(snapshot_verify(f->backend, &extract, &f->err), &f->err, MOAT_UNSUPPORTED,
		     "cannot verify");
	assert_fails(snapshot_remove(f->backend, NULL, NULL, &f->err), &f->err, MOAT_FAILED,
		     "no snapshot");
}

static int
core_found(void *context, const struct moat_ref *ref, const void *manifest, size_t size,
	   struct moat_error *err)
{
	core_calls++;
	return context == NULL ? 0 : moat_fail(err, MOAT_CORRUPT, "not wanted");
}

/* A failure inside the core's own callback is not lost, though the plugin forgets it. */
static void
enumerate_is_checked(void **state)
{
	struct hostile *f = *state;

	open_snapshot(f);
	assert_fails(snapshot_enumerate(f->backend, core_found, NULL, &f->err), &f->err,
		     MOAT_FAILED, "plugin snapshot-evil: enumerate: it gave an empty name");
	assert_int_equal(core_calls, 0);
	next.ref = (struct moat_ref){.text = "good"};
	assert_ok(snapshot_enumerate(f->backend, core_found, NULL, &f->err), &f->err);
	assert_int_equal(core_calls, 1);
	assert_fails(snapshot_enumerate(f->backend, core_found, f, &f->err), &f->err, MOAT_CORRUPT,
		     "not wanted");
}

/* ---------------------------------------------------------------------------------- tracers */

static struct moat_event seen;
static int seen_count;

static void
see(void *context, const struct moat_event *event)
{
	seen = *event;
	seen_count++;
}

static void
trace_one(struct hostile *f)
{
	struct moat_trace_target target = {.struct_size = sizeof target, .root_pid = 1};
	struct moat_sink sink = {sizeof sink, NULL, see};

	seen_count = 0;
	next.want_event = true;
	assert_ok(tracer_start(f->backend, &target, &sink, &f->err), &f->err);
	assert_int_equal(seen_count, 1);
	assert_ok(tracer_stop(f->backend, &f->err), &f->err);
}

static void
events_are_made_sound(void **state)
{
	struct hostile *f = *state;

	assert_ok(tracer_open(&f->tracer, NULL, &f->backend, &f->err), &f->err);
	/* Not understood: a loss. */
	memset(&next.event, 0xff, sizeof next.event);
	trace_one(f);
	assert_int_equal(seen.kind, MOAT_EVENT_LOSS);
	assert_int_equal(seen.lost, 1);
	next.event = (struct moat_event){
		.struct_size = offsetof(struct moat_event, exe), .kind = MOAT_EVENT_EXEC, .pid = 3};
	trace_one(f);
	assert_int_equal(seen.kind, MOAT_EVENT_LOSS);
	next.event = (struct moat_event){.struct_size = sizeof next.event, .kind = MOAT_EVENT_EXEC};
	trace_one(f);
	assert_int_equal(seen.kind, MOAT_EVENT_LOSS);
	/* Arguments without end. */
	next.event = (struct moat_event){.struct_size = sizeof next.event + 100,
					 .kind = MOAT_EVENT_EXEC,
					 .pid = 3,
					 .argv = "ab",
					 .argv_size = 2,
					 .argv_complete = 1};
	trace_one(f);
	assert_int_equal(seen.kind, MOAT_EVENT_EXEC);
	assert_int_equal(seen.struct_size, sizeof seen);
	assert_null(seen.argv);
	assert_int_equal(seen.argv_complete, 0);
	next.event.argv_size = 3;
	next.event.argv_complete = 1;
	trace_one(f);
	assert_non_null(seen.argv);
	assert_int_equal(seen.argv_complete, 1);
	next.event = (struct moat_event){.struct_size = sizeof next.event,
					 .kind = MOAT_EVENT_EXIT,
					 .pid = 3,
					 .exit_code = 1000,
					 .signal = -3};
	trace_one(f);
	assert_int_equal(seen.exit_code, -1);
	assert_int_equal(seen.signal, 0);
}

static void
events_that_come_late(void **state)
{
	struct hostile *f = *state;

	assert_ok(tracer_open(&f->tracer, NULL, &f->backend, &f->err), &f->err);
	next.event = (struct moat_event){
		.struct_size = sizeof next.event, .kind = MOAT_EVENT_FORK, .pid = 3};
	trace_one(f);
	next.sink.event(next.sink.context, &next.event);
	next.sink.event(next.sink.context, NULL);
	assert_int_equal(seen_count, 1);
}

static void
tracer_states(void **state)
{
	struct hostile *f = *state;
	struct moat_trace_target target = {.struct_size = sizeof target, .root_pid = 1};
	struct moat_sink sink = {sizeof sink, NULL, see};
	struct moat_trace_stats stats;

	assert_ok(tracer_open(&f->tracer, NULL, &f->backend, &f->err), &f->err);
	next.calls = 0;
	assert_ok(tracer_stop(f->backend, &f->err), &f->err);
	assert_int_equal(next.calls, 0);
	next.rc = -1;
	assert_fails(tracer_start(f->backend, &target, &sink, &f->err), &f->err, MOAT_FAILED,
		     "plugin tracer-evil: start failed without saying why");
	next.rc = 0;
	assert_ok(tracer_start(f->backend, &target, &sink, &f->err), &f->err);
	assert_fails(tracer_start(f->backend, &target, &sink, &f->err), &f->err, MOAT_FAILED,
		     "started already");
	assert_ok(tracer_stats(f->backend, &stats, &f->err), &f->err);
	assert_int_equal(stats.struct_size, sizeof stats);
	/* Closing stops first. */
	next.calls = 0;
	backend_close(f->backend);
	f->backend = NULL;
	assert_int_equal(next.calls, 1);
	assert_int_equal(next.closes, 1);
	assert_ok(tracer_open(&f->tracer, NULL, &f->backend, &f->err), &f->err);
	target.root_pid = 0;
	assert_fails(tracer_start(f->backend, &target, &sink, &f->err), &f->err, MOAT_FAILED,
		     "nothing to trace");
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup_hostile, teardown_hostile)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(failing_without_a_message),
		CASE(opening_fails),
		CASE(closed_once),
		CASE(wrong_kind_and_wrong_order),
		CASE(handles_that_are_none),
		CASE(descriptors_that_are_none),
		CASE(descriptors_are_made_sound),
		CASE(states_are_made_sound),
		CASE(stop_without_a_stop),
		CASE(resize_by_the_terminal),
		CASE(processes_that_are_none),
		CASE(views_that_are_none),
		CASE(capture_is_checked),
		CASE(extract_is_checked),
		CASE(enumerate_is_checked),
		CASE(events_are_made_sound),
		CASE(events_that_come_late),
		CASE(tracer_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
