/* SPDX-License-Identifier: Apache-2.0 */
/* Calls into runtime plugins. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "common/cleanup.h"
#include "core/backend_impl.h"
#include "core/log.h"

/* ----------------------------------------------------------------------------------- handles */

static struct run_handle *
find_handle(const struct backend *backend, const char *text)
{
	for (struct run_handle *h = backend->handles; h != NULL; h = h->next)
		if (strcmp(h->text, text) == 0)
			return h;
	return NULL;
}

void
runtime_forget(struct backend *backend)
{
	while (backend->handles != NULL) {
		struct run_handle *handle = backend->handles;

		backend->handles = handle->next;
		free(handle);
	}
}

/* Before a call about a run.  *ret_handle is NULL for one that another process created: the engine
 * knows whether there is such a thing, we do not. */
static int
begin(const struct backend *backend, const char *handle, const char *op,
      struct run_handle **ret_handle, struct moat_error *err)
{
	if (backend_begin(backend, MOAT_KIND_RUNTIME, op, err) < 0)
		return -1;
	if (handle == NULL || handle[0] == '\0')
		return backend_blame(backend, op, err, "no run was named");
	*ret_handle = find_handle(backend, handle);
	if (*ret_handle != NULL && (*ret_handle)->removed)
		return moat_fail(err, MOAT_GONE, "plugin runtime-%s: %s: the run was removed",
				 backend->plugin->name, op);
	return 0;
}

/* Only what this backend created, and only once. */
static int
begin_once(const struct backend *backend, const char *handle, const char *op,
	   struct run_handle **ret_handle, struct moat_error *err)
{
	if (begin(backend, handle, op, ret_handle, err) < 0)
		return -1;
	if (*ret_handle == NULL)
		return backend_blame(backend, op, err, "the run was not created here");
	if ((*ret_handle)->started)
		return backend_blame(backend, op, err, "the run is started already");
	return 0;
}

/* ------------------------------------------------------------------------- create, io, start */

int
runtime_create(struct backend *backend, const struct moat_run_spec *spec, struct moat_handle *ret,
	       struct moat_error *err)
{
	struct moat_handle handle = {.struct_size = sizeof handle};
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_FREE struct run_handle *record = NULL;
	struct run_handle *known;
	int rc;

	if (backend_begin(backend, MOAT_KIND_RUNTIME, "create", err) < 0)
		return -1;
	if (spec->argv == NULL || spec->argv[0] == NULL)
		return backend_blame(backend, "create", err, "there is no command to run");
	record = calloc(1, sizeof *record);
	if (record == NULL)
		return moat_fail_memory(err);
	rc = backend->plugin->ops.runtime.create(backend->self, spec, &handle, &why);
	if (backend_end(backend, "create", rc, &why, err) < 0 ||
	    backend_check_ref(backend, "create", handle.text, sizeof handle.text, err) < 0)
		return -1;
	known = find_handle(backend, handle.text);
	if (known != NULL && !known->removed)
		return backend_blame(backend, "create", err,
				     "it gave the name `%s', which is that of another run",
				     handle.text);
	memcpy(record->text, handle.text, sizeof record->text);
	if (known != NULL) {
		known->io_given = known->started = known->removed = false;
	} else {
		record->next = backend->handles;
		backend->handles = STEAL(record);
	}
	handle.struct_size = sizeof handle;
	*ret = handle;
	return 0;
}

/* A descriptor that was handed over.  0, 1 and 2 are moat's own: a plugin that forgot to fill in
 * its answer would have them closed. */
static int
check_fd(const struct backend *backend, const char *what, int fd, struct moat_error *err)
{
	int flags;

	if (fd == -1)
		return 0;
	if (fd < 0 || (flags = fcntl(fd, F_GETFD)) < 0)
		return backend_blame(backend, "io", err, "%s, %d, is no open descriptor", what, fd);
	if (fd <= 2)
		return backend_blame(backend, "io", err, "%s, %d, is moat's own", what, fd);
	if ((flags & FD_CLOEXEC) == 0) {
		log_debug("runtime-%s: io: %s had no O_CLOEXEC", backend->plugin->name, what);
		if (fcntl(fd, F_SETFD, flags | FD_CLOEXEC) < 0)
			return moat_fail_errno(err, "set FD_CLOEXEC");
	}
	return 0;
}

/* When the answer is refused, nothing in it is closed: a number that is wrong may be anybody's. */
static int
check_io(const struct backend *backend, struct moat_io *io, struct moat_error *err)
{
	if (check_fd(backend, "the command's input", io->in, err) < 0 ||
	    check_fd(backend, "the command's output", io->out, err) < 0 ||
	    check_fd(backend, "the command's error output", io->err, err) < 0)
		return -1;
	if (io->err >= 0 && (io->err == io->in || io->err == io->out))
		return backend_blame(backend, "io", err,
				     "error output and another stream are one descriptor");
	/* So that it is closed exactly once. */
	io->shared = io->in >= 0 && io->in == io->out;
	io->half_close = io->half_close != 0;
	io->struct_size = sizeof *io;
	return 0;
}

int
runtime_io(struct backend *backend, const char *handle, struct moat_io *ret, struct moat_error *err)
{
	struct moat_io io = {.struct_size = sizeof io, .in = -1, .out = -1, .err = -1};
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	int rc;

	if (begin_once(backend, handle, "io", &record, err) < 0)
		return -1;
	if (record->io_given)
		return backend_blame(backend, "io", err, "the streams were handed over already");
	rc = backend->plugin->ops.runtime.io(backend->self, handle, &io, &why);
	if (backend_end(backend, "io", rc, &why, err) < 0)
		return -1;
	record->io_given = true;
	if (check_io(backend, &io, err) < 0)
		return -1;
	*ret = io;
	return 0;
}

int
runtime_start(struct backend *backend, const char *handle, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	int rc;

	if (begin_once(backend, handle, "start", &record, err) < 0)
		return -1;
	rc = backend->plugin->ops.runtime.start(backend->self, handle, &why);
	if (backend_end(backend, "start", rc, &why, err) < 0)
		return -1;
	record->started = true;
	return 0;
}

/* ------------------------------------------------------------------------------- wait, state */

/* What is not understood becomes "not known", never a success. */
static void
sound_status(struct moat_run_status *status)
{
	if (status->state > MOAT_RUN_GONE)
		status->state = MOAT_RUN_UNKNOWN;
	if (status->state != MOAT_RUN_EXITED || status->signal < 0 || status->signal > SIGRTMAX)
		status->signal = 0;
	if (status->state != MOAT_RUN_EXITED || status->signal != 0 || status->exit_code < 0 ||
	    status->exit_code > 255)
		status->exit_code = -1;
	if (status->started_ns < 0)
		status->started_ns = 0;
	if (status->finished_ns < 0)
		status->finished_ns = 0;
	status->oom = status->oom != 0;
	status->struct_size = sizeof *status;
	backend_tidy(status->detail, sizeof status->detail);
}

static struct moat_run_status
unknown_status(void)
{
	return (struct moat_run_status){.struct_size = sizeof(struct moat_run_status),
					.state = MOAT_RUN_UNKNOWN,
					.exit_code = -1};
}

int
runtime_wait(struct backend *backend, const char *handle, int64_t timeout_ms,
	     struct moat_run_status *ret, struct moat_error *err)
{
	struct moat_run_status status = unknown_status();
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	int rc;

	if (begin(backend, handle, "wait", &record, err) < 0)
		return -1;
	if (timeout_ms < -1)
		timeout_ms = -1;
	rc = backend->plugin->ops.runtime.wait(backend->self, handle, timeout_ms, &status, &why);
	if (backend_end(backend, "wait", rc, &why, err) < 0)
		return -1;
	sound_status(&status);
	*ret = status;
	return 0;
}

int
runtime_wait_fd(struct backend *backend, const char *handle)
{
	struct run_handle *record;
	int fd;

	/* No descriptor is an answer, too: the caller waits in a thread, and finds the error. */
	if (begin(backend, handle, "wait_fd", &record, NULL) < 0 ||
	    backend->plugin->ops.runtime.wait_fd == NULL)
		return -1;
	fd = backend->plugin->ops.runtime.wait_fd(backend->self, handle);
	if (fd >= 0 && fcntl(fd, F_GETFD) < 0) {
		log_debug("runtime-%s: wait_fd: %d is no open descriptor", backend->plugin->name,
			  fd);
		return -1;
	}
	return fd >= 0 ? fd : -1;
}

int
runtime_state(struct backend *backend, const char *handle, struct moat_run_status *ret,
	      struct moat_error *err)
{
	struct moat_run_status status = unknown_status();
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	int rc;

	if (begin(backend, handle, "state", &record, err) < 0)
		return -1;
	rc = backend->plugin->ops.runtime.state(backend->self, handle, &status, &why);
	if (backend_end(backend, "state", rc, &why, err) < 0)
		return -1;
	sound_status(&status);
	*ret = status;
	return 0;
}

/* ---------------------------------------------------------------------------------- kill, stop */

int
runtime_kill(struct backend *backend, const char *handle, int signal, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	int rc;

	if (begin(backend, handle, "kill", &record, err) < 0)
		return -1;
	if (signal <= 0 || signal > SIGRTMAX)
		return backend_blame(backend, "kill", err, "there is no signal %d", signal);
	rc = backend->plugin->ops.runtime.kill(backend->self, handle, signal, &why);
	return backend_end(backend, "kill", rc, &why, err);
}

static int64_t
monotonic_ms(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Sends the signal and waits.  1: it ended; 0: not in that time. */
static int
kill_and_wait(struct backend *backend, const char *handle, int signal, int64_t timeout_ms,
	      struct moat_error *err)
{
	int64_t deadline = monotonic_ms() + timeout_ms;
	struct moat_error why = MOAT_ERROR_INIT;

	if (runtime_kill(backend, handle, signal, &why) < 0 && why.code != MOAT_GONE &&
	    why.code != MOAT_NOT_FOUND)
		return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
	for (;;) {
		struct moat_run_status status;
		int64_t left = deadline - monotonic_ms();

		if (runtime_wait(backend, handle, left > 0 ? left : 0, &status, err) < 0)
			return -1;
		if (status.state == MOAT_RUN_EXITED || status.state == MOAT_RUN_GONE)
			return 1;
		if (left <= 0)
			return 0;
	}
}

int
runtime_stop(struct backend *backend, const char *handle, int64_t grace_ms, struct moat_error *err)
{
	/* SIGKILL takes effect at once, but for a process that is stuck in the kernel. */
	const int64_t kill_ms = 10000;
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	int rc;

	if (begin(backend, handle, "stop", &record, err) < 0)
		return -1;
	if (grace_ms < 0)
		grace_ms = 0;
	if (backend->plugin->ops.runtime.stop != NULL) {
		rc = backend->plugin->ops.runtime.stop(backend->self, handle, grace_ms, &why);
		return backend_end(backend, "stop", rc, &why, err);
	}
	rc = kill_and_wait(backend, handle, SIGTERM, grace_ms, err);
	if (rc == 0)
		rc = kill_and_wait(backend, handle, SIGKILL, kill_ms, err);
	if (rc == 0)
		return moat_fail(err, MOAT_TIMEOUT,
				 "plugin runtime-%s: stop: the command has not ended %d s after "
				 "SIGKILL",
				 backend->plugin->name, (int) (kill_ms / 1000));
	return rc < 0 ? -1 : 0;
}

int
runtime_remove(struct backend *backend, const char *handle, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	int rc;

	if (begin(backend, handle, "remove", &record, &why) < 0)
		/* Removed already is success. */
		return why.code == MOAT_GONE ? 0
					     : moat_error_set(err, why.code, 0, "%s", why.message);
	rc = backend->plugin->ops.runtime.remove(backend->self, handle, &why);
	if (backend_end(backend, "remove", rc, &why, err) < 0)
		return -1;
	if (record != NULL)
		record->removed = true;
	return 0;
}

/* ------------------------------------------------------------------------- resize, processes */

int
runtime_resize(struct backend *backend, const char *handle, int terminal_fd, unsigned rows,
	       unsigned columns, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	struct winsize size = {0};
	int rc;

	if (begin(backend, handle, "resize", &record, err) < 0)
		return -1;
	if (rows > USHRT_MAX || columns > USHRT_MAX)
		return backend_blame(backend, "resize", err, "%u x %u is no size of a terminal",
				     rows, columns);
	if (backend->plugin->ops.runtime.resize != NULL) {
		rc = backend->plugin->ops.runtime.resize(backend->self, handle, rows, columns,
							 &why);
		return backend_end(backend, "resize", rc, &why, err);
	}
	size.ws_row = (unsigned short) rows;
	size.ws_col = (unsigned short) columns;
	if (ioctl(terminal_fd, TIOCSWINSZ, &size) < 0)
		return moat_fail_errno(err, "set the size of the terminal");
	return 0;
}

/* A path below the cgroup mount that stays there. */
static bool
is_inner_path(const char *path)
{
	for (const char *part = path; part != NULL; part = strchr(part, '/')) {
		part += *part == '/';
		if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
			return false;
	}
	return true;
}

int
runtime_processes(struct backend *backend, const char *handle, struct moat_processes *ret,
		  struct moat_error *err)
{
	struct moat_processes processes = {.struct_size = sizeof processes};
	struct moat_error why = MOAT_ERROR_INIT;
	struct run_handle *record;
	int rc;

	if (begin(backend, handle, "processes", &record, err) < 0)
		return -1;
	rc = backend->plugin->ops.runtime.processes(backend->self, handle, &processes, &why);
	if (backend_end(backend, "processes", rc, &why, err) < 0)
		return -1;
	if (processes.root_pid < 0 || processes.root_pid > INT_MAX)
		return backend_blame(backend, "processes", err, "%lld is no process",
				     (long long) processes.root_pid);
	if (memchr(processes.cgroup, '\0', sizeof processes.cgroup) == NULL ||
	    !is_inner_path(processes.cgroup))
		return backend_blame(backend, "processes", err,
				     "the cgroup it gave is no path below the mount");
	backend_tidy(processes.invisible, sizeof processes.invisible);
	processes.struct_size = sizeof processes;
	*ret = processes;
	return 0;
}
