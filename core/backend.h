/* SPDX-License-Identifier: Apache-2.0 */
/* Calls into plugins.  Every call goes through one wrapper here, which keeps the state (opened,
 * created, started), makes sure that a failure has a message ("plugin snapshot-x: capture failed
 * without saying why"), prefixes it with the plugin's name, logs at debug level, and checks what
 * came back: nothing that a plugin returns is trusted. */
#ifndef MOAT_CORE_BACKEND_H
#define MOAT_CORE_BACKEND_H

#include "core/loader.h"

struct backend; /* one opened handle of one plugin */

const struct plugin *backend_plugin(const struct backend *backend);
const char *backend_name(const struct backend *backend); /* "archive" */
uint64_t backend_capabilities(const struct backend *backend);
void backend_close(struct backend *backend); /* NULL is allowed */
void cleanup_backend(struct backend **backend);
#define AUTO_BACKEND CLEANUP(cleanup_backend)

/* Snapshots.  ret->text is checked to be one printable line. */
int snapshot_open(const struct plugin *plugin, const struct moat_store *store, struct backend **ret,
		  struct moat_error *err);
int snapshot_capture(struct backend *backend, const struct moat_capture *capture,
		     struct moat_ref *ret, struct moat_error *err);
int snapshot_materialise(struct backend *backend, const struct moat_extract *extract,
			 struct moat_error *err);
int snapshot_remove(struct backend *backend, const char *ref, const struct moat_live *live,
		    struct moat_error *err);
bool snapshot_can_verify(const struct backend *backend);
int snapshot_verify(struct backend *backend, const struct moat_extract *extract,
		    struct moat_error *err);
bool snapshot_can_enumerate(const struct backend *backend);
int snapshot_enumerate(struct backend *backend,
		       int (*found)(void *, const struct moat_ref *, const void *, size_t,
				    struct moat_error *),
		       void *context, struct moat_error *err);

/* Sandboxes. */
int sandbox_open(const struct plugin *plugin, const struct moat_config *config,
		 struct backend **ret, struct moat_error *err);
int sandbox_create(struct backend *backend, const struct moat_sandbox_spec *spec,
		   struct moat_view *ret, struct moat_error *err);
int sandbox_destroy(struct backend *backend, const char *ref, struct moat_error *err);

/* Runtimes. */
int runtime_open(const struct plugin *plugin, const struct moat_config *config,
		 struct backend **ret, struct moat_error *err);
int runtime_create(struct backend *backend, const struct moat_run_spec *spec,
		   struct moat_handle *ret, struct moat_error *err);
int runtime_io(struct backend *backend, const char *handle, struct moat_io *ret,
	       struct moat_error *err);
int runtime_start(struct backend *backend, const char *handle, struct moat_error *err);
int runtime_wait(struct backend *backend, const char *handle, int64_t timeout_ms,
		 struct moat_run_status *ret, struct moat_error *err);
int runtime_wait_fd(struct backend *backend, const char *handle); /* -1: none */
int runtime_state(struct backend *backend, const char *handle, struct moat_run_status *ret,
		  struct moat_error *err);
int runtime_kill(struct backend *backend, const char *handle, int signal, struct moat_error *err);
int
runtime_stop(struct backend *backend, const char *handle, int64_t grace_ms, struct moat_error *err);
int runtime_remove(struct backend *backend, const char *handle, struct moat_error *err);
int runtime_resize(
	struct backend *backend, const char *handle, int terminal_fd, unsigned rows,
	unsigned columns,
	struct moat_error *err); /* TIOCSWINSZ on terminal_fd when the plugin has no resize */
int runtime_processes(struct backend *backend, const char *handle, struct moat_processes *ret,
		      struct moat_error *err);

/* Tracers. */
int tracer_open(const struct plugin *plugin, const struct moat_config *config, struct backend **ret,
		struct moat_error *err);
int tracer_start(struct backend *backend, const struct moat_trace_target *target,
		 const struct moat_sink *sink, struct moat_error *err);
int tracer_stop(struct backend *backend, struct moat_error *err);
int tracer_stats(struct backend *backend, struct moat_trace_stats *ret, struct moat_error *err);

#endif
