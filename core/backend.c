/* SPDX-License-Identifier: Apache-2.0 */
/* Calls into plugins: what all kinds share, sandboxes, tracers. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/text.h"
#include "core/backend_impl.h"
#include "core/log.h"

const struct plugin *
backend_plugin(const struct backend *backend)
{
	return backend->plugin;
}

const char *
backend_name(const struct backend *backend)
{
	return backend->plugin->name;
}

uint64_t
backend_capabilities(const struct backend *backend)
{
	return plugin_capabilities(backend->plugin);
}

/* ------------------------------------------------------------------------- around every call */

int
backend_begin(const struct backend *backend, uint32_t kind, const char *op, struct moat_error *err)
{
	if (backend == NULL || backend->plugin->kind != kind)
		return moat_fail(err, MOAT_FAILED, "%s: there is no open %s to ask", op,
				 plugin_kind_text(kind));
	log_debug("%s-%s: %s", plugin_kind_text(kind), backend->plugin->name, op);
	return 0;
}

int
backend_end(const struct backend *backend, const char *op, int rc, struct moat_error *why,
	    struct moat_error *err)
{
	const char *kind = plugin_kind_text(backend->plugin->kind);
	const char *name = backend->plugin->name;
	int code = why->code;

	if (rc == 0)
		return 0;
	why->message[sizeof why->message - 1] = '\0';
	if (code <= MOAT_OK || code > MOAT_NO_COMMAND)
		code = MOAT_FAILED;
	if (why->message[0] == '\0')
		(void) moat_error_set(err, code, why->sys_errno,
				      "plugin %s-%s: %s failed without saying why", kind, name, op);
	else
		(void) moat_error_set(err, code, why->sys_errno, "plugin %s-%s: %s: %s", kind, name,
				      op, why->message);
	log_debug("%s-%s: %s failed: %s", kind, name, op, why->message);
	return -1;
}

int
backend_blame(const struct backend *backend, const char *op, struct moat_error *err,
	      const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	(void) vsnprintf(text, sizeof text, format, args);
	va_end(args);
	return moat_fail(err, MOAT_FAILED, "plugin %s-%s: %s: %s",
			 plugin_kind_text(backend->plugin->kind), backend->plugin->name, op, text);
}

int
backend_check_ref(const struct backend *backend, const char *op, const char *text, size_t size,
		  struct moat_error *err)
{
	size_t length = strnlen(text, size);

	if (length == size)
		return backend_blame(backend, op, err, "it gave a name that does not end");
	if (length == 0)
		return backend_blame(backend, op, err, "it gave an empty name");
	for (size_t i = 0; i < length; i++)
		if (text[i] < 0x20 || text[i] > 0x7e)
			return backend_blame(backend, op, err,
					     "it gave a name with the unprintable byte 0x%02x",
					     (unsigned) (unsigned char) text[i]);
	return 0;
}

void
backend_tidy(char *text, size_t size)
{
	text[size - 1] = '\0';
	for (; *text != '\0'; text++)
		if ((unsigned char) *text < 0x20 || *text == 0x7f)
			*text = ' ';
}

/* -------------------------------------------------------------------------- opening, closing */

struct backend *
backend_new(const struct plugin *plugin, uint32_t kind, struct moat_error *err)
{
	struct backend *backend;

	if (plugin == NULL || plugin->kind != kind) {
		(void) moat_fail(err, MOAT_FAILED, "open: that is no %s plugin",
				 plugin_kind_text(kind));
		return NULL;
	}
	backend = calloc(1, sizeof *backend);
	if (backend == NULL || pthread_mutex_init(&backend->sink_lock, NULL) != 0) {
		free(backend);
		(void) moat_fail_memory(err);
		return NULL;
	}
	backend->plugin = plugin;
	return backend;
}

void
backend_free(struct backend *backend)
{
	runtime_forget(backend);
	free(backend->store_path);
	(void) pthread_mutex_destroy(&backend->sink_lock);
	free(backend);
}

void
backend_close(struct backend *backend)
{
	struct moat_error err = MOAT_ERROR_INIT;

	if (backend == NULL)
		return;
	if (backend->tracing && tracer_stop(backend, &err) < 0)
		log_warning("%s", err.message);
	log_debug("%s-%s: close", plugin_kind_text(backend->plugin->kind), backend->plugin->name);
	switch (backend->plugin->kind) {
	case MOAT_KIND_RUNTIME:
		backend->plugin->ops.runtime.close(backend->self);
		break;
	case MOAT_KIND_SNAPSHOT:
		backend->plugin->ops.snapshot.close(backend->self);
		break;
	case MOAT_KIND_TRACER:
		backend->plugin->ops.tracer.close(backend->self);
		break;
	case MOAT_KIND_SANDBOX:
		backend->plugin->ops.sandbox.close(backend->self);
		break;
	}
	backend_free(backend);
}

void
cleanup_backend(struct backend **backend)
{
	backend_close(*backend);
	*backend = NULL;
}

typedef int
open_fn(const struct moat_host *, const struct moat_config *, void **, struct moat_error *);

/* The three kinds that open alike. */
static int
open_backend(const struct plugin *plugin, uint32_t kind, open_fn *function,
	     const struct moat_config *config, struct backend **ret, struct moat_error *err)
{
	struct backend *backend = backend_new(plugin, kind, err);
	struct moat_error why = MOAT_ERROR_INIT;

	if (backend == NULL)
		return -1;
	if (backend_end(backend, "open", function(host_table(), config, &backend->self, &why), &why,
			err) < 0) {
		backend_free(backend);
		return -1;
	}
	*ret = backend;
	return 0;
}

int
runtime_open(const struct plugin *plugin, const struct moat_config *config, struct backend **ret,
	     struct moat_error *err)
{
	return open_backend(plugin, MOAT_KIND_RUNTIME, plugin->ops.runtime.open, config, ret, err);
}

int
sandbox_open(const struct plugin *plugin, const struct moat_config *config, struct backend **ret,
	     struct moat_error *err)
{
	return open_backend(plugin, MOAT_KIND_SANDBOX, plugin->ops.sandbox.open, config, ret, err);
}

int
tracer_open(const struct plugin *plugin, const struct moat_config *config, struct backend **ret,
	    struct moat_error *err)
{
	return open_backend(plugin, MOAT_KIND_TRACER, plugin->ops.tracer.open, config, ret, err);
}

/* --------------------------------------------------------------------------------- sandboxes */

static int
check_view_path(const struct backend *backend, const char *what, const char *path,
		struct moat_error *err)
{
	if (path == NULL || path[0] != '/')
		return backend_blame(backend, "create", err,
				     "the view's %s is no absolute path: `%.200s'", what,
				     path != NULL ? path : "");
	return 0;
}

static int
check_view(const struct backend *backend, const struct moat_view *view, struct moat_error *err)
{
	if (backend_check_ref(backend, "create", view->ref, sizeof view->ref, err) < 0)
		return -1;
	switch (view->kind) {
	case MOAT_VIEW_PATH:
		return check_view_path(backend, "path", view->path, err);
	case MOAT_VIEW_OVERLAY:
		if (check_view_path(backend, "lower directory", view->lower, err) < 0 ||
		    check_view_path(backend, "upper directory", view->upper, err) < 0)
			return -1;
		return check_view_path(backend, "work directory", view->work, err);
	default:
		return backend_blame(backend, "create", err,
				     "it gave a view of the unknown kind %u",
				     (unsigned) view->kind);
	}
}

int
sandbox_create(struct backend *backend, const struct moat_sandbox_spec *spec, struct moat_view *ret,
	       struct moat_error *err)
{
	struct moat_view view = {.struct_size = sizeof view};
	struct moat_error why = MOAT_ERROR_INIT;
	int rc;

	if (backend_begin(backend, MOAT_KIND_SANDBOX, "create", err) < 0)
		return -1;
	rc = backend->plugin->ops.sandbox.create(backend->self, spec, &view, &why);
	if (backend_end(backend, "create", rc, &why, err) < 0 ||
	    check_view(backend, &view, err) < 0)
		return -1;
	view.struct_size = sizeof view;
	*ret = view;
	return 0;
}

int
sandbox_destroy(struct backend *backend, const char *ref, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	int rc;

	if (backend_begin(backend, MOAT_KIND_SANDBOX, "destroy", err) < 0)
		return -1;
	if (ref == NULL || ref[0] == '\0')
		return backend_blame(backend, "destroy", err, "no view was named");
	rc = backend->plugin->ops.sandbox.destroy(backend->self, ref, &why);
	return backend_end(backend, "destroy", rc, &why, err);
}

/* ----------------------------------------------------------------------------------- tracers */

/* Makes an event of a plugin safe to use.  One that cannot be understood is a loss. */
static struct moat_event
sound_event(const struct moat_event *theirs)
{
	struct moat_event event = {.struct_size = sizeof event, .duration_ns = -1};
	const size_t version_1 =
		offsetof(struct moat_event, span_start_ns) + sizeof event.span_start_ns;
	size_t size = theirs->struct_size;

	/* A shorter one than there ever was is garbage. */
	if (size >= version_1)
		memcpy(&event, theirs, size < sizeof event ? size : sizeof event);
	event.struct_size = sizeof event;
	if (event.kind < MOAT_EVENT_EXEC || event.kind > MOAT_EVENT_FORK ||
	    (event.kind != MOAT_EVENT_LOSS && event.pid <= 0))
		return (struct moat_event){.struct_size = sizeof event,
					   .kind = MOAT_EVENT_LOSS,
					   .time_ns = time_now_ns(),
					   .span_start_ns = time_now_ns(),
					   .lost = 1};
	if (event.argv != NULL &&
	    (event.argv_size == 0 || event.argv[event.argv_size - 1] != '\0')) {
		event.argv = NULL;
		event.argv_complete = 0;
	}
	if (event.argv == NULL)
		event.argv_size = 0;
	if (event.signal < 0 || event.signal > SIGRTMAX)
		event.signal = 0;
	if (event.exit_code < -1 || event.exit_code > 255)
		event.exit_code = -1;
	return event;
}

/* The sink that a plugin gets; context is the backend. */
static void
forward_event(void *context, const struct moat_event *theirs)
{
	struct backend *backend = context;
	struct moat_event event;

	if (theirs == NULL)
		return;
	event = sound_event(theirs);
	(void) pthread_mutex_lock(&backend->sink_lock);
	if (backend->sink_open)
		backend->sink.event(backend->sink.context, &event);
	(void) pthread_mutex_unlock(&backend->sink_lock);
}

static void
open_sink(struct backend *backend, bool open)
{
	(void) pthread_mutex_lock(&backend->sink_lock);
	backend->sink_open = open;
	(void) pthread_mutex_unlock(&backend->sink_lock);
}

int
tracer_start(struct backend *backend, const struct moat_trace_target *target,
	     const struct moat_sink *sink, struct moat_error *err)
{
	struct moat_sink own = {sizeof own, backend, forward_event};
	struct moat_error why = MOAT_ERROR_INIT;
	int rc;

	if (backend_begin(backend, MOAT_KIND_TRACER, "start", err) < 0)
		return -1;
	if (backend->tracing)
		return backend_blame(backend, "start", err, "it is started already");
	if (target->root_pid <= 0 && target->cgroup == NULL)
		return backend_blame(backend, "start", err, "there is nothing to trace");
	backend->sink = *sink;
	open_sink(backend, true);
	rc = backend->plugin->ops.tracer.start(backend->self, target, &own, &why);
	if (backend_end(backend, "start", rc, &why, err) < 0) {
		open_sink(backend, false);
		return -1;
	}
	backend->tracing = true;
	return 0;
}

int
tracer_stop(struct backend *backend, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	int rc;

	if (backend_begin(backend, MOAT_KIND_TRACER, "stop", err) < 0)
		return -1;
	if (!backend->tracing)
		return 0;
	rc = backend->plugin->ops.tracer.stop(backend->self, &why);
	/* Whether it stopped or not: the sink's context may go away now. */
	open_sink(backend, false);
	backend->tracing = false;
	return backend_end(backend, "stop", rc, &why, err);
}

int
tracer_stats(struct backend *backend, struct moat_trace_stats *ret, struct moat_error *err)
{
	struct moat_trace_stats stats = {.struct_size = sizeof stats};
	struct moat_error why = MOAT_ERROR_INIT;
	int rc;

	if (backend_begin(backend, MOAT_KIND_TRACER, "stats", err) < 0)
		return -1;
	rc = backend->plugin->ops.tracer.stats(backend->self, &stats, &why);
	if (backend_end(backend, "stats", rc, &why, err) < 0)
		return -1;
	stats.struct_size = sizeof stats;
	*ret = stats;
	return 0;
}
