/* SPDX-License-Identifier: Apache-2.0 */
/* Calls into snapshot plugins.
 *
 * The core's callbacks are handed out through doors of our own, which let only an index through
 * that exists: behind them the core may take it as checked.  They hold no state, so a plugin may
 * call them from several threads, as plugin.h allows. */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "core/backend_impl.h"

int
snapshot_open(const struct plugin *plugin, const struct moat_store *store, struct backend **ret,
	      struct moat_error *err)
{
	struct backend *backend = backend_new(plugin, MOAT_KIND_SNAPSHOT, err);
	struct moat_error why = MOAT_ERROR_INIT;
	int rc = -1;

	if (backend == NULL)
		return -1;
	backend->store_path = strdup(store->path);
	if (backend->store_path == NULL) {
		backend_free(backend);
		return moat_fail_memory(err);
	}
	backend->store = *store;
	backend->store.path = backend->store_path;
	rc = plugin->ops.snapshot.open(host_table(), &backend->store, &backend->self, &why);
	if (backend_end(backend, "open", rc, &why, err) < 0) {
		backend_free(backend);
		return -1;
	}
	*ret = backend;
	return 0;
}

/* ----------------------------------------------------------------------------------- capture */

/* What the plugin sees; the core's own is behind it. */
struct capture_door {
	struct moat_capture plugin_side;
	const struct moat_capture *core_side;
	const struct backend *backend;
};

static const struct capture_door *
capture_door(const struct moat_capture *capture)
{
	return capture->context;
}

/* A file without leader, the only thing that has content. */
static int
check_index(const struct backend *backend, const char *op, const struct moat_entries *entries,
	    size_t index, struct moat_error *err)
{
	const struct moat_entry *entry;

	if (index >= entries->count)
		return backend_blame(backend, op, err, "it asked for entry %zu of %zu", index,
				     entries->count);
	entry = entries->items[index];
	if (entry->type != MOAT_FILE || entry->leader != MOAT_NO_LEADER)
		return backend_blame(backend, op, err,
				     "it asked for the content of entry %zu, which has none",
				     index);
	return 0;
}

static int
capture_open(const struct moat_capture *capture, size_t index, struct moat_error *err)
{
	const struct capture_door *door = capture_door(capture);

	if (check_index(door->backend, "capture", capture->entries, index, err) < 0)
		return -1;
	return door->core_side->open(door->core_side, index, err);
}

static int
capture_stored(const struct moat_capture *capture, size_t index, int fd, uint64_t size,
	       const uint8_t *hash, const uint64_t locator[3], struct moat_error *err)
{
	const struct capture_door *door = capture_door(capture);

	if (check_index(door->backend, "capture", capture->entries, index, err) < 0)
		return -1;
	if (locator == NULL)
		return backend_blame(door->backend, "capture", err,
				     "it stored entry %zu and does not say where", index);
	return door->core_side->stored(door->core_side, index, fd, size, hash, locator, err);
}

static int
capture_manifest(const struct moat_capture *capture, const void **ret, size_t *ret_size,
		 struct moat_error *err)
{
	const struct capture_door *door = capture_door(capture);

	return door->core_side->manifest(door->core_side, ret, ret_size, err);
}

int
snapshot_capture(struct backend *backend, const struct moat_capture *capture, struct moat_ref *ret,
		 struct moat_error *err)
{
	struct capture_door door = {*capture, capture, backend};
	struct moat_ref ref = {.struct_size = sizeof ref};
	struct moat_error why = MOAT_ERROR_INIT;
	int rc;

	if (backend_begin(backend, MOAT_KIND_SNAPSHOT, "capture", err) < 0)
		return -1;
	door.plugin_side.context = &door;
	door.plugin_side.open = capture_open;
	door.plugin_side.stored = capture_stored;
	door.plugin_side.manifest = capture_manifest;
	rc = backend->plugin->ops.snapshot.capture(backend->self, &door.plugin_side, &ref, &why);
	if (backend_end(backend, "capture", rc, &why, err) < 0 ||
	    backend_check_ref(backend, "capture", ref.text, sizeof ref.text, err) < 0)
		return -1;
	ref.struct_size = sizeof ref;
	*ret = ref;
	return 0;
}

/* ----------------------------------------------------------------------- materialise, verify */

struct extract_door {
	struct moat_extract plugin_side;
	const struct moat_extract *core_side;
	const struct backend *backend;
	const char *op;
};

static const struct extract_door *
extract_door(const struct moat_extract *extract)
{
	return extract->context;
}

static int
extract_place(const struct moat_extract *extract, size_t index, int *ret_dirfd,
	      const char **ret_name, struct moat_error *err)
{
	const struct extract_door *door = extract_door(extract);

	if (check_index(door->backend, door->op, extract->entries, index, err) < 0)
		return -1;
	return door->core_side->place(door->core_side, index, ret_dirfd, ret_name, err);
}

static int
extract_done(const struct moat_extract *extract, size_t index, int fd, uint64_t size,
	     const uint8_t *hash, struct moat_error *err)
{
	const struct extract_door *door = extract_door(extract);

	if (check_index(door->backend, door->op, extract->entries, index, err) < 0)
		return -1;
	return door->core_side->done(door->core_side, index, fd, size, hash, err);
}

static int
extract_damaged(const struct moat_extract *extract, size_t index, const struct moat_error *why,
		struct moat_error *err)
{
	const struct extract_door *door = extract_door(extract);
	struct moat_error own = MOAT_ERROR_INIT;

	if (check_index(door->backend, door->op, extract->entries, index, err) < 0)
		return -1;
	if (why != NULL && why->message[0] != '\0') {
		own.code = why->code > MOAT_OK && why->code <= MOAT_NO_COMMAND ? why->code
									       : MOAT_CORRUPT;
		own.sys_errno = why->sys_errno;
		memcpy(own.message, why->message, sizeof own.message - 1);
	} else {
		(void) moat_fail(&own, MOAT_CORRUPT, "damaged, without a word how");
	}
	return door->core_side->damaged(door->core_side, index, &own, err);
}

typedef int extract_fn(void *self, const struct moat_extract *extract, struct moat_error *err);

static int
run_extract(struct backend *backend, const char *op, extract_fn *function,
	    const struct moat_extract *extract, struct moat_error *err)
{
	struct extract_door door = {*extract, extract, backend, op};
	struct moat_error why = MOAT_ERROR_INIT;

	door.plugin_side.context = &door;
	door.plugin_side.place = extract->place != NULL ? extract_place : NULL;
	door.plugin_side.done = extract_done;
	door.plugin_side.damaged = extract_damaged;
	return backend_end(backend, op, function(backend->self, &door.plugin_side, &why), &why,
			   err);
}

int
snapshot_materialise(struct backend *backend, const struct moat_extract *extract,
		     struct moat_error *err)
{
	if (backend_begin(backend, MOAT_KIND_SNAPSHOT, "materialise", err) < 0)
		return -1;
	if (extract->place == NULL)
		return backend_blame(backend, "materialise", err, "there is no place to put files");
	return run_extract(backend, "materialise", backend->plugin->ops.snapshot.materialise,
			   extract, err);
}

bool
snapshot_can_verify(const struct backend *backend)
{
	return backend->plugin->kind == MOAT_KIND_SNAPSHOT &&
	       backend->plugin->ops.snapshot.verify != NULL;
}

int
snapshot_verify(struct backend *backend, const struct moat_extract *extract, struct moat_error *err)
{
	if (backend_begin(backend, MOAT_KIND_SNAPSHOT, "verify", err) < 0)
		return -1;
	if (!snapshot_can_verify(backend))
		return moat_fail(err, MOAT_UNSUPPORTED, "plugin snapshot-%s cannot verify",
				 backend->plugin->name);
	return run_extract(backend, "verify", backend->plugin->ops.snapshot.verify, extract, err);
}

/* ------------------------------------------------------------------------ remove, enumerate */

int
snapshot_remove(struct backend *backend, const char *ref, const struct moat_live *live,
		struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	int rc;

	if (backend_begin(backend, MOAT_KIND_SNAPSHOT, "remove", err) < 0)
		return -1;
	if (ref == NULL || ref[0] == '\0')
		return backend_blame(backend, "remove", err, "no snapshot was named");
	rc = backend->plugin->ops.snapshot.remove(backend->self, ref, live, &why);
	return backend_end(backend, "remove", rc, &why, err);
}

struct enumeration {
	const struct backend *backend;
	int (*found)(void *, const struct moat_ref *, const void *, size_t, struct moat_error *);
	void *context;
	struct moat_error failure; /* of found(): kept, should the plugin forget it */
};

static int
enumerate_found(void *context, const struct moat_ref *ref, const void *manifest,
		size_t manifest_size, struct moat_error *err)
{
	struct enumeration *e = context;
	struct moat_ref own = {.struct_size = sizeof own};

	if (ref == NULL || (manifest == NULL && manifest_size > 0))
		(void) backend_blame(e->backend, "enumerate", &e->failure,
				     "it found a snapshot and did not give it");
	else if (backend_check_ref(e->backend, "enumerate", ref->text, sizeof ref->text,
				   &e->failure) == 0) {
		memcpy(own.text, ref->text, sizeof own.text);
		own.stored_bytes = ref->stored_bytes;
		own.flags = MOAT_HAS(struct moat_ref, ref, flags) ? ref->flags : 0;
		if (e->found(e->context, &own, manifest, manifest_size, &e->failure) == 0)
			return 0;
	}
	return moat_error_set(err, e->failure.code, e->failure.sys_errno, "%s", e->failure.message);
}

bool
snapshot_can_enumerate(const struct backend *backend)
{
	return backend->plugin->kind == MOAT_KIND_SNAPSHOT &&
	       backend->plugin->ops.snapshot.enumerate != NULL;
}

int
snapshot_enumerate(struct backend *backend,
		   int (*found)(void *, const struct moat_ref *, const void *, size_t,
				struct moat_error *),
		   void *context, struct moat_error *err)
{
	struct enumeration e = {backend, found, context, MOAT_ERROR_INIT};
	struct moat_error why = MOAT_ERROR_INIT;
	int rc;

	if (backend_begin(backend, MOAT_KIND_SNAPSHOT, "enumerate", err) < 0)
		return -1;
	if (!snapshot_can_enumerate(backend))
		return moat_fail(err, MOAT_UNSUPPORTED,
				 "plugin snapshot-%s cannot list what its store holds",
				 backend->plugin->name);
	rc = backend->plugin->ops.snapshot.enumerate(backend->self, enumerate_found, &e, &why);
	if (e.failure.code != MOAT_OK)
		return moat_error_set(err, e.failure.code, e.failure.sys_errno, "%s",
				      e.failure.message);
	return backend_end(backend, "enumerate", rc, &why, err);
}
