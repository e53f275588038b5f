/* SPDX-License-Identifier: Apache-2.0 */
/* The live tree through the eyes of a snapshot. */
#include <stdlib.h>
#include <string.h>

#include "core/snap_internal.h"
#include "core/tree.h"

int
snap_materialise(struct app *app, const struct snap *snap, struct moat_extract *extract,
		 struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_CLOSE int store_fd = -1;
	AUTO_BACKEND struct backend *backend = NULL;

	if (workspace_open_known(app->home, snap->workspace_hash, &workspace, err) < 0 ||
	    snap_open_backend_named(app, workspace, snap->backend, snap->id, &store_fd, &backend,
				    err) < 0)
		return -1;
	extract->ref = snap->ref;
	if (snapshot_materialise(backend, extract, err) < 0)
		return moat_wrap(err, "snapshot %s", snap->id);
	return 0;
}

/* At or below something that the snapshot saw and left out: it is none of its business, whatever
 * stands there now.  prefix: room for the path. */
static bool
was_left_out(const struct manifest *snapshot, const char *path, char *prefix)
{
	memcpy(prefix, path, strlen(path) + 1);
	while (prefix[0] != '\0') {
		const struct manifest_skip *skip = manifest_find_skip(snapshot, prefix);
		char *slash;

		/* A directory that could not be read was captured itself. */
		if (skip != NULL && skip->reason != SKIP_TORN &&
		    (strcmp(prefix, path) != 0 || manifest_find(snapshot, path) < 0))
			return true;
		slash = strrchr(prefix, '/');
		*(slash == NULL ? prefix : slash) = '\0';
	}
	return false;
}

static int
drop_left_out(const struct manifest *snapshot, struct manifest *live, struct moat_error *err)
{
	AUTO_FREE char *prefix = NULL;
	size_t kept = 0, longest = 0;

	if (snapshot->skip_count == 0)
		return 0;
	for (size_t i = 0; i < live->count; i++)
		if (strlen(live->entries[i]->path) > longest)
			longest = strlen(live->entries[i]->path);
	prefix = malloc(longest + 1);
	if (prefix == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < live->count; i++)
		if (!was_left_out(snapshot, live->entries[i]->path, prefix))
			live->entries[kept++] = live->entries[i];
	live->count = kept;
	return manifest_seal(live, err);
}

int
snap_live(const struct workspace *workspace, const struct manifest *snapshot, struct manifest **ret,
	  struct moat_error *err)
{
	CLEANUP(cleanup_filter) struct filter *filter = NULL;
	AUTO_MANIFEST struct manifest *live = NULL;

	if (filter_open_stored(snapshot, &filter, err) < 0 ||
	    tree_scan(workspace->fd, filter, snapshot, &live, err) < 0 ||
	    drop_left_out(snapshot, live, err) < 0 ||
	    tree_compare(workspace->fd, snapshot, live, err) < 0)
		return moat_wrap(err, "look at %s", workspace->path);
	*ret = STEAL(live);
	return 0;
}
