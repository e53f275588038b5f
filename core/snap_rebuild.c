/* SPDX-License-Identifier: Apache-2.0 */
/* A lost index: the records of snapshots are made again from the manifests that a backend keeps
 * beside the content. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/log.h"
#include "core/snap_internal.h"

/* One backend's store of one workspace. */
struct rebuilding {
	struct app *app;
	const struct workspace *workspace;
	int all_fd;
	const char *backend;
	struct snap_list lost;    /* id, ref, stored_bytes, base */
	struct snap_list records; /* that there are; for the bases they have */
	bool removed;             /* those that were removed are looked for */
	bool any_removed;
	uint64_t *rebuilt;
};

/* A record that lists can show and whose manifest can be read.  Any of the names that it may have.
 */
static bool
is_sound(const struct rebuilding *r, const char *id)
{
	static const char *const prefixes[] = {"", BASE_PREFIX, GONE_PREFIX};

	for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
		AUTO_SNAP struct snap *snap = NULL;
		AUTO_MANIFEST struct manifest *manifest = NULL;
		char name[SNAP_NAME_MAX];

		snap_name(name, prefixes[i], id);
		if (faccessat(r->all_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			return snap_read_record(r->all_fd, name, id, r->workspace->hash, &snap,
						NULL) == 0 &&
			       snap_check_record(r->all_fd, name, snap, NULL) == 0 &&
			       snap_manifest(r->app->home, snap, &manifest, NULL) == 0;
	}
	return false;
}

static int
write_lost(const struct rebuilding *r, const char *id, const void *manifest, size_t size,
	   struct moat_error *err)
{
	AUTO_CLOSE int fd = -1;
	char name[SNAP_NAME_MAX];

	snap_name(name, LOST_PREFIX, id);
	if (fs_remove_tree(r->all_fd, name, err) < 0)
		return -1;
	fd = fs_open_directory(r->all_fd, name, true, err);
	return fd < 0 ? -1 : fs_write_atomic(fd, "manifest", manifest, size, 0600, err);
}

/* What was removed, but kept by the store for the content that others need of it, is of no use here
 * unless one of them is written against its manifest. */
static bool
is_of_this_round(struct rebuilding *r, const struct moat_ref *ref)
{
	bool removed = (ref->flags & MOAT_REF_REMOVED) != 0;

	if (!r->removed) {
		r->any_removed = r->any_removed || removed;
		return !removed;
	}
	return removed &&
	       (snap_is_base(&r->lost, ref->text) || snap_is_base(&r->records, ref->text));
}

/* First all manifests, since one may be written against another. */
static int
found(void *context, const struct moat_ref *ref, const void *manifest, size_t size,
      struct moat_error *err)
{
	struct rebuilding *r = context;
	AUTO_SNAP struct snap *snap = NULL;
	char base[MANIFEST_ID_MAX];

	if (!is_of_this_round(r, ref))
		return 0;
	if (!snap_is_id(ref->text)) {
		log_warning("the store has `%s', which is no snapshot's id; it is left alone",
			    ref->text);
		return 0;
	}
	if (is_sound(r, ref->text))
		return 0;
	if (write_lost(r, ref->text, manifest, size, err) < 0)
		return -1;
	snap = calloc(1, sizeof *snap);
	if (snap == NULL)
		return moat_fail_memory(err);
	snprintf(snap->id, sizeof snap->id, "%.*s", SNAP_ID_LENGTH, ref->text);
	snprintf(snap->workspace_hash, sizeof snap->workspace_hash, "%s", r->workspace->hash);
	snap->ref = strdup(ref->text);
	snap->backend = strdup(r->backend);
	snap->workspace = strdup(r->workspace->path);
	snap->stored_bytes = ref->stored_bytes;
	/* Removed ones come back as bases only. */
	snap->type = strdup(r->removed ? "removed" : "manual");
	/* One that cannot be read is told of later. */
	if (manifest_base(manifest, size, base, NULL) > 0 && (snap->base = strdup(base)) == NULL)
		return moat_fail_memory(err);
	if (snap->ref == NULL || snap->backend == NULL || snap->workspace == NULL ||
	    snap->type == NULL)
		return moat_fail_memory(err);
	return snap_list_append(&r->lost, STEAL(snap), err);
}

/* What the manifest says of its snapshot. */
static int
take_notes(struct snap *snap, const struct manifest *manifest, struct moat_error *err)
{
	const struct {
		const char *key;
		char **to;
	} notes[] = {{"type", &snap->type},
		     {"label", &snap->label},
		     {"run", &snap->run},
		     {"parent", &snap->parent}};
	const char *created = manifest_note(manifest, "created");

	for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
		const char *value = manifest_note(manifest, notes[i].key);
		char *copy = value == NULL ? NULL : strdup(value);

		if (value == NULL)
			continue;
		if (copy == NULL)
			return moat_fail_memory(err);
		free(*notes[i].to);
		*notes[i].to = copy;
	}
	snap->created_ns = created == NULL ? manifest->started_ns : strtoll(created, NULL, 10);
	snap->files = manifest_files(manifest);
	snap->bytes = manifest_bytes(manifest);
	snap->skipped = manifest->skip_count;
	return 0;
}

/* A damaged record makes way. */
static int
make_way(const struct rebuilding *r, const char *name, const char *id, struct moat_error *err)
{
	char bad[SNAP_NAME_MAX];

	snap_name(bad, BAD_PREFIX, id);
	if (renameat(r->all_fd, name, r->all_fd, bad) < 0)
		return errno == ENOENT ? 0 : moat_fail_errno(err, "move `%s' out of the way", name);
	return 0;
}

static int
rebuild_one(const struct rebuilding *r, struct snap *snap, struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *manifest = NULL;
	AUTO_FREE char *data = NULL;
	bool removed = strcmp(snap->type, "removed") == 0;
	char lost[SNAP_NAME_MAX], bad[SNAP_NAME_MAX];
	size_t size;

	snap_name(lost, LOST_PREFIX, snap->id);
	snap_name(bad, BAD_PREFIX, snap->id);
	if (make_way(r, snap->id, snap->id, err) < 0 ||
	    snap_read_manifest(r->all_fd, snap->id, &data, &size, err) < 0)
		return -1;
	if (snap_manifest(r->app->home, snap, &manifest, err) < 0 ||
	    take_notes(snap, manifest, err) < 0)
		return -1;
	if (snap_record(r->all_fd, lost, snap, data, size, err) < 0)
		return -1;
	if (!removed) {
		log_notice("rebuilt the record of %s (%s) from the store", snap->id, snap->type);
		++*r->rebuilt;
		return fs_remove_tree(r->all_fd, bad, err);
	}
	/* The next that clears leftovers drops it, should nobody need it. */
	snap_name(lost, BASE_PREFIX, snap->id);
	if (renameat(r->all_fd, snap->id, r->all_fd, lost) < 0)
		return moat_fail_errno(err, "keep the manifest of %s", snap->id);
	return fs_remove_tree(r->all_fd, bad, err);
}

static int
rebuild_backend(struct rebuilding *r, struct moat_error *err)
{
	AUTO_BACKEND struct backend *backend = NULL;
	AUTO_CLOSE int store_fd = -1;
	int failed = 0;

	if (snap_open_backend_named(r->app, r->workspace, r->backend, "of this workspace",
				    &store_fd, &backend, err) < 0 ||
	    snapshot_enumerate(backend, found, r, err) < 0)
		return -1;
	if (r->any_removed) {
		r->removed = true;
		if (snap_list_strict(r->workspace, false, &r->records, err) < 0 ||
		    snapshot_enumerate(backend, found, r, err) < 0)
			return -1;
	}
	for (size_t i = 0; i < r->lost.count; i++) {
		struct moat_error why = MOAT_ERROR_INIT;

		if (rebuild_one(r, r->lost.items[i], &why) == 0)
			continue;
		log_warning("the record of %s cannot be rebuilt: %s", r->lost.items[i]->id,
			    why.message);
		failed++;
	}
	return failed == 0
		       ? 0
		       : moat_fail(err, MOAT_CORRUPT, "%d records could not be rebuilt", failed);
}

int
snap_rebuild(struct app *app, const struct workspace *workspace, uint64_t *ret_rebuilt,
	     struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snap_directory(workspace, err);
	AUTO_CLOSE int stores_fd = -1;
	AUTO_CLOSEDIR DIR *stream = NULL;
	struct moat_error why = MOAT_ERROR_INIT;
	struct dirent *entry;
	int next;

	if (all_fd < 0)
		return -1;
	stores_fd = fs_open_directory(workspace->state_fd, "store", false, &why);
	if (stores_fd < 0 && why.code != MOAT_NOT_FOUND)
		return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
	if (stores_fd < 0)
		return 0;
	stream = fs_open_stream(stores_fd, "", err);
	if (stream == NULL)
		return -1;
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		struct rebuilding r = {.app = app,
				       .workspace = workspace,
				       .all_fd = all_fd,
				       .backend = entry->d_name,
				       .rebuilt = ret_rebuilt};
		int result;

		if (entry->d_name[0] == '.')
			continue;
		result = rebuild_backend(&r, err);
		snap_list_free(&r.lost);
		snap_list_free(&r.records);
		if (result < 0)
			return moat_wrap(err, "rebuild the list of snapshots of %s",
					 workspace->path);
	}
	return next;
}

/* ---------------------------------------------------------------------------- every workspace */

typedef int
visit_fn(struct app *app, const struct workspace *workspace, void *context, struct moat_error *err);

static bool
has(int fd, const char *name)
{
	return faccessat(fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int
recover_one(struct app *app, const struct workspace *workspace, void *context,
	    struct moat_error *err)
{
	struct snap_recovery *counts = context, first = {.provisional = true};

	/* What was interrupted must not be taken for a lost record; and what is damaged may keep
	 * something from being cleared away until it is made again. */
	if (snap_clear_leftovers(app, workspace, &first, err) < 0)
		return -1;
	counts->cleared += first.cleared;
	if (snap_rebuild(app, workspace, &counts->rebuilt, err) < 0)
		return -1;
	return snap_clear_leftovers(app, workspace, counts, err);
}

static int
rebuild_if_lost(struct app *app, const struct workspace *workspace, void *context,
		struct moat_error *err)
{
	if (has(workspace->state_fd, "snapshots") || !has(workspace->state_fd, "store"))
		return 0;
	log_notice("the list of snapshots of %s is gone; it is made again from the store",
		   workspace->path);
	return snap_rebuild(app, workspace, context, err);
}

/* In each workspace that nobody works in just now. Returns how many failed, or -1. */
static int
each_workspace(struct app *app, visit_fn *visit, void *context, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(app->home->workspaces_fd, "", err);
	struct dirent *entry;
	int failed = 0, next;

	if (stream == NULL)
		return moat_wrap(err, "the workspaces in `%s'", app->home->path);
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		AUTO_WORKSPACE struct workspace *workspace = NULL;
		struct moat_error why = MOAT_ERROR_INIT;
		AUTO_CLOSE int lock = -1;
		bool empty;

		if (entry->d_name[0] == '.')
			continue;
		if (workspace_clear_unfinished(app->home, entry->d_name, &empty, &why) == 0 &&
		    empty)
			continue;
		if (why.code == MOAT_OK &&
		    workspace_open_known(app->home, entry->d_name, &workspace, &why) == 0) {
			lock = fs_lock(workspace->state_fd, "lock", true, false, &why);
			if (lock < 0 && why.code == MOAT_BUSY)
				continue;
			if (lock >= 0 && visit(app, workspace, context, &why) == 0)
				continue;
		}
		log_warning("workspaces/%s: %s", entry->d_name, why.message);
		failed++;
	}
	return next < 0 ? moat_wrap(err, "the workspaces in `%s'", app->home->path) : failed;
}

int
snap_recover(struct app *app, struct snap_recovery *ret, struct moat_error *err)
{
	int failed = each_workspace(app, recover_one, ret, err);

	if (failed < 0)
		return -1;
	ret->failed += (uint64_t) failed;
	return 0;
}

static int
rebuild_lost(struct app *app, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(app->home->workspaces_fd, "", err);
	uint64_t rebuilt = 0;
	struct dirent *entry;
	bool any = false;
	int next = 0;

	if (stream == NULL)
		return -1;
	while (!any && (next = fs_read_name(stream, &entry, err)) > 0) {
		AUTO_CLOSE int fd = entry->d_name[0] == '.'
					    ? -1
					    : fs_open_directory(app->home->workspaces_fd,
								entry->d_name, false, NULL);

		any = fd >= 0 && !has(fd, "snapshots") && has(fd, "store");
	}
	if (next < 0)
		return -1;
	return any && each_workspace(app, rebuild_if_lost, &rebuilt, err) < 0 ? -1 : 0;
}

int
snap_open_home(struct app *app, struct moat_error *err)
{
	return app_home(app, err) < 0 ? -1 : rebuild_lost(app, err);
}
