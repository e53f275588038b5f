/* SPDX-License-Identifier: Apache-2.0 */
/* What the wrappers of the four kinds share.
 *
 * A wrapper is, in short:
 *
 *     if (backend_begin(backend, MOAT_KIND_TRACER, "stop", err) < 0)
 *             return -1;
 *     rc = backend->plugin->ops.tracer.stop(backend->self, &why);
 *     return backend_end(backend, "stop", rc, &why, err);
 *
 * The plugin gets an error object of its own, so that what it does to it cannot matter, and results
 * go into local structs that are checked before the caller sees them. */
#ifndef MOAT_CORE_BACKEND_IMPL_H
#define MOAT_CORE_BACKEND_IMPL_H

#include <pthread.h>

#include "core/backend.h"

/* A run that this backend created, and how far it got. */
struct run_handle {
	char text[MOAT_REF_MAX];
	bool io_given, started, removed;
	struct run_handle *next;
};

struct backend {
	const struct plugin *plugin;
	void *self;
	/* Snapshots: lives as long as the handle, as plugin.h promises. */
	struct moat_store store;
	char *store_path;
	/* Runtimes. */
	struct run_handle *handles;
	/* Tracers.  The lock covers the sink: an event that comes late finds it closed. */
	bool tracing;
	struct moat_sink sink;
	bool sink_open;
	pthread_mutex_t sink_lock;
};

struct backend *backend_new(const struct plugin *plugin, uint32_t kind, struct moat_error *err);
void backend_free(struct backend *backend); /* without closing */

/* Checks that there is an open backend of that kind, and logs the call. */
int
backend_begin(const struct backend *backend, uint32_t kind, const char *op, struct moat_error *err);
/* Turns what a plugin returned (rc, *why) into 0, or -1 with *err, which names plugin and
 * operation. */
int backend_end(const struct backend *backend, const char *op, int rc, struct moat_error *why,
		struct moat_error *err);
/* "plugin runtime-x: OP: ..." for output that is not what plugin.h says, or a call that is not
 * allowed now.  Returns -1. */
int backend_blame(const struct backend *backend, const char *op, struct moat_error *err,
		  const char *format, ...) MOAT_PRINTF(4, 5);
/* Text of a plugin that the core stores: NUL-terminated within size, not empty, printable ASCII. */
int backend_check_ref(const struct backend *backend, const char *op, const char *text, size_t size,
		      struct moat_error *err);
/* Text of a plugin for people: terminated, control bytes become blanks. */
void backend_tidy(char *text, size_t size);

void runtime_forget(struct backend *backend); /* frees the handles */

#endif
