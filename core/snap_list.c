/* SPDX-License-Identifier: Apache-2.0 */
/* The records of snapshots: writing, finding, reading, removing.
 *
 *     workspaces/HASH/snapshots/SNAP/{snapshot.json,manifest}
 *                               .new-SNAP, .gone-SNAP   on the way in and out; see
 * snap_clear_leftovers()
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/log.h"
#include "core/snap_internal.h"
#include "core/tree.h"

#define MANIFEST_MAX ((size_t) 8 << 30)
#define NEW_PREFIX ".new-"
#define GONE_PREFIX ".gone-"

void
snap_free(struct snap *snap)
{
	if (snap == NULL)
		return;
	free(snap->type);
	free(snap->label);
	free(snap->backend);
	free(snap->ref);
	free(snap->run);
	free(snap->workspace);
	free(snap->parent);
	free(snap);
}

void
cleanup_snap(struct snap **snap)
{
	snap_free(*snap);
	*snap = NULL;
}

void
snap_list_free(struct snap_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		snap_free(list->items[i]);
	free(list->items);
	*list = (struct snap_list){0};
}

/* ------------------------------------------------------------------------------------ one record
 */

json_t *
snap_json(const struct snap *snap)
{
	AUTO_JSON json_t *json = json_object();

	if (json == NULL || json_put_text(json, "id", snap->id) < 0 ||
	    json_put_text(json, "type", snap->type) < 0 ||
	    json_put_text(json, "label", snap->label) < 0 ||
	    json_put_text(json, "backend", snap->backend) < 0 ||
	    json_put_text(json, "run", snap->run) < 0 ||
	    json_put_text(json, "workspace", snap->workspace) < 0 ||
	    json_put_time(json, "created_at", snap->created_ns) < 0 ||
	    json_put_int(json, "files", (int64_t) snap->files) < 0 ||
	    json_put_int(json, "bytes", (int64_t) snap->bytes) < 0 ||
	    json_put_int(json, "stored_bytes", (int64_t) snap->stored_bytes) < 0 ||
	    json_put_text(json, "parent", snap->parent) < 0 ||
	    json_put_int(json, "skipped", (int64_t) snap->skipped) < 0)
		return NULL;
	return STEAL(json);
}

static char *
copy_text(const json_t *json, const char *key)
{
	const char *text = json_get_text(json, key, NULL);

	return text == NULL ? NULL : strdup(text);
}

static int
snap_parse(const json_t *json, const char *id, const char *hash, struct snap **ret,
	   struct moat_error *err)
{
	AUTO_SNAP struct snap *snap = calloc(1, sizeof *snap);

	if (snap == NULL)
		return moat_fail_memory(err);
	snprintf(snap->id, sizeof snap->id, "%s", id);
	snprintf(snap->workspace_hash, sizeof snap->workspace_hash, "%s", hash);
	snap->type = copy_text(json, "type");
	snap->label = json_get_bytes(json, "label", NULL);
	snap->backend = copy_text(json, "backend");
	snap->ref = copy_text(json, "ref");
	snap->run = copy_text(json, "run");
	snap->workspace = json_get_bytes(json, "workspace", NULL);
	snap->parent = copy_text(json, "parent");
	snap->created_ns = json_get_time(json, "created_at");
	snap->files = (uint64_t) json_get_int(json, "files", 0);
	snap->bytes = (uint64_t) json_get_int(json, "bytes", 0);
	snap->stored_bytes = (uint64_t) json_get_int(json, "stored_bytes", 0);
	snap->skipped = (uint64_t) json_get_int(json, "skipped", 0);
	if (snap->type == NULL || snap->backend == NULL || snap->ref == NULL ||
	    snap->workspace == NULL)
		return moat_fail(err, MOAT_CORRUPT, "the record of snapshot %s is incomplete", id);
	*ret = STEAL(snap);
	return 0;
}

static int
snapshots_directory(const struct workspace *workspace, struct moat_error *err)
{
	return fs_open_directory(workspace->state_fd, "snapshots", true, err);
}

int
snap_record(const struct workspace *workspace, const struct snap *snap, const struct buf *manifest,
	    struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snapshots_directory(workspace, err);
	AUTO_CLOSE int fd = -1;
	AUTO_JSON json_t *json = NULL;
	char name[64];

	if (all_fd < 0)
		return -1;
	snprintf(name, sizeof name, "%s%s", NEW_PREFIX, snap->id);
	fd = fs_open_directory(all_fd, name, true, err);
	json = snap_json(snap);
	if (fd < 0)
		return -1;
	if (json == NULL || json_put_text(json, "ref", snap->ref) < 0) {
		(void) fs_remove_tree(all_fd, name,
				      NULL); /* or by the next snap_clear_leftovers() */
		return moat_fail_memory(err);
	}
	if (fs_write_atomic(fd, "manifest", manifest->data, manifest->size, 0600, err) == 0 &&
	    json_write(fd, "snapshot.json", json, err) == 0) {
		if (renameat(all_fd, name, all_fd, snap->id) == 0)
			return fs_sync(all_fd, "snapshots", err);
		moat_fail_errno(err, "record snapshot %s", snap->id);
	}
	(void) fs_remove_tree(all_fd, name, NULL); /* likewise */
	return -1;
}

static int
read_record(int all_fd, const char *id, const char *hash, struct snap **ret, struct moat_error *err)
{
	AUTO_CLOSE int fd = fs_open_directory(all_fd, id, false, err);
	AUTO_JSON json_t *json = NULL;

	if (fd < 0 || json_read(fd, "snapshot.json", "record of a snapshot", &json, err) < 0 ||
	    snap_parse(json, id, hash, ret, err) < 0)
		return moat_wrap(err, "snapshot %s", id);
	return 0;
}

/* ---------------------------------------------------------------------------------------- lists */

static int
newest_first(const void *a, const void *b)
{
	const struct snap *left = *(struct snap *const *) a, *right = *(struct snap *const *) b;

	if (left->created_ns != right->created_ns)
		return left->created_ns < right->created_ns ? 1 : -1;
	return strcmp(left->id, right->id);
}

static int
list_append(struct snap_list *list, struct snap *snap, struct moat_error *err)
{
	struct snap **more = reallocarray(list->items, list->count + 1, sizeof(*more));

	if (more == NULL) {
		snap_free(snap);
		return moat_fail_memory(err);
	}
	list->items = more;
	list->items[list->count++] = snap;
	return 0;
}

/* strict: a record that cannot be read is a failure, since what it needs cannot be known. */
static int
list_directory(int all_fd, const char *hash, bool strict, struct snap_list *list,
	       struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(all_fd, "", err);
	struct dirent *entry;

	if (stream == NULL)
		return moat_wrap(err, "the snapshots");
	while ((entry = readdir(stream)) != NULL) {
		struct moat_error local = MOAT_ERROR_INIT;
		struct snap *snap = NULL;

		if (strncmp(entry->d_name, "snap_", 5) != 0 || strlen(entry->d_name) > 30)
			continue;
		if (read_record(all_fd, entry->d_name, hash, &snap, &local) < 0) {
			bool there =
				faccessat(all_fd, entry->d_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

			if (there && strict)
				return moat_error_set(err, local.code, local.sys_errno, "%s",
						      local.message);
			/* Deleted by somebody else just now is no damage. */
			if (there)
				log_warning("%s", local.message);
			continue;
		}
		if (list_append(list, snap, err) < 0)
			return -1;
	}
	return 0;
}

static int
list_workspace(const struct workspace *workspace, bool strict, struct snap_list *ret,
	       struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snapshots_directory(workspace, err);
	AUTO_SNAP_LIST struct snap_list list = {0};

	if (all_fd < 0 || list_directory(all_fd, workspace->hash, strict, &list, err) < 0)
		return -1;
	if (list.count > 0)
		qsort(list.items, list.count, sizeof(*list.items), newest_first);
	*ret = list;
	list = (struct snap_list){0};
	return 0;
}

int
snap_list(const struct workspace *workspace, struct snap_list *ret, struct moat_error *err)
{
	return list_workspace(workspace, false, ret, err);
}

int
snap_list_all(const struct home *home, struct snap_list *ret, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(home->workspaces_fd, "", err);
	AUTO_SNAP_LIST struct snap_list list = {0};
	struct dirent *entry;

	if (stream == NULL)
		return moat_wrap(err, "the workspaces in `%s'", home->path);
	while ((entry = readdir(stream)) != NULL) {
		AUTO_CLOSE int state_fd = -1, all_fd = -1;

		if (entry->d_name[0] == '.')
			continue;
		state_fd = fs_open_directory(home->workspaces_fd, entry->d_name, false, NULL);
		all_fd = state_fd < 0 ? -1 : fs_open_directory(state_fd, "snapshots", false, NULL);
		/* A workspace without snapshots yet. */
		if (all_fd < 0)
			continue;
		if (list_directory(all_fd, entry->d_name, false, &list, err) < 0)
			return -1;
	}
	if (list.count > 0)
		qsort(list.items, list.count, sizeof(*list.items), newest_first);
	*ret = list;
	list = (struct snap_list){0};
	return 0;
}

int
snap_find(const struct home *home, const char *text, struct snap **ret, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list list = {0};
	struct snap **found = NULL;

	if (snap_list_all(home, &list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++) {
		if (strncmp(list.items[i]->id, text, strlen(text)) != 0 || text[0] == '\0')
			continue;
		if (strcmp(list.items[i]->id, text) == 0) {
			found = &list.items[i];
			break;
		}
		if (found != NULL)
			return moat_fail(
				err, MOAT_USAGE,
				"`%s' is the beginning of several snapshots, %s and %s among "
				"them; give more of the id",
				text, (*found)->id, list.items[i]->id);
		found = &list.items[i];
	}
	if (found == NULL)
		return moat_fail(err, MOAT_NOT_FOUND,
				 "there is no snapshot `%s'; `moat snapshot list' shows those of a "
				 "workspace",
				 text);
	*ret = STEAL(*found);
	return 0;
}

int
snap_manifest(const struct home *home, const struct snap *snap, struct manifest **ret,
	      struct moat_error *err)
{
	AUTO_CLOSE int state_fd = -1, all_fd = -1, fd = -1;
	AUTO_FREE char *data = NULL;
	size_t size;

	state_fd = fs_open_directory(home->workspaces_fd, snap->workspace_hash, false, err);
	all_fd = state_fd < 0 ? -1 : fs_open_directory(state_fd, "snapshots", false, err);
	fd = all_fd < 0 ? -1 : fs_open_directory(all_fd, snap->id, false, err);
	if (fd < 0 || fs_read(fd, "manifest", MANIFEST_MAX, &data, &size, err) < 0 ||
	    manifest_decode(data, size, ret, err) < 0)
		return moat_wrap(err, "snapshot %s cannot be used: its manifest", snap->id);
	return 0;
}

/* -------------------------------------------------------------------------------------- content */

int
snap_open_backend(struct app *app, const struct workspace *workspace, const struct plugin *plugin,
		  const struct config *config, int *ret_store_fd, struct backend **ret,
		  struct moat_error *err)
{
	AUTO_CLOSE int stores_fd = fs_open_directory(workspace->state_fd, "store", true, err);
	AUTO_CLOSE int fd =
		stores_fd < 0 ? -1 : fs_open_directory(stores_fd, plugin->name, true, err);
	AUTO_BUF struct buf path = {0};
	struct moat_store store = {.struct_size = sizeof store};

	if (fd < 0)
		return -1;
	buf_format(&path, "%s/workspaces/%s/store/%s", app->home->path, workspace->hash,
		   plugin->name);
	if (buf_check(&path, err) < 0)
		return -1;
	store.dirfd = fd;
	store.path = path.data;
	store.config = config == NULL ? NULL : config_plugin(config, "snapshot", plugin->name);
	if (snapshot_open(plugin, &store, ret, err) < 0)
		return -1;
	*ret_store_fd = steal_fd(&fd);
	return 0;
}

int
snap_open_own_backend(struct app *app, const struct workspace *workspace, const struct snap *snap,
		      int *ret_store_fd, struct backend **ret, struct moat_error *err)
{
	const struct plugin *plugin;

	if (app_loader(app, err) < 0)
		return -1;
	plugin = loader_find(app->loader, MOAT_KIND_SNAPSHOT, snap->backend);
	if (plugin == NULL)
		return moat_fail(
			err, MOAT_NOT_FOUND,
			"snapshot %s needs the plugin snapshot-%s, which is not here; install "
			"moat-plugin-snapshot-%s",
			snap->id, snap->backend, snap->backend);
	return snap_open_backend(app, workspace, plugin, NULL, ret_store_fd, ret, err);
}

int
snap_materialise(struct app *app, const struct snap *snap, struct moat_extract *extract,
		 struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_CLOSE int store_fd = -1;
	AUTO_BACKEND struct backend *backend = NULL;

	if (workspace_open_known(app->home, snap->workspace_hash, &workspace, err) < 0 ||
	    snap_open_own_backend(app, workspace, snap, &store_fd, &backend, err) < 0)
		return -1;
	extract->ref = snap->ref;
	if (snapshot_materialise(backend, extract, err) < 0)
		return moat_wrap(err, "snapshot %s", snap->id);
	return 0;
}

/* The manifests of all snapshots on record, and their entries in one array. */
struct survivors {
	struct manifest **manifests;
	size_t count;
	const struct moat_entry **entries;
	size_t entry_count;
};

static void
survivors_free(struct survivors *survivors)
{
	for (size_t i = 0; i < survivors->count; i++)
		manifest_free(survivors->manifests[i]);
	free(survivors->manifests);
	free(survivors->entries);
}

/* An unreadable manifest stops a removal: what it needs cannot be known. */
static int
find_survivors(struct app *app, const struct workspace *workspace, const char *backend,
	       struct survivors *ret, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list list = {0};
	size_t total = 0;

	if (list_workspace(workspace, true, &list, err) < 0)
		return moat_wrap(err, "cannot tell what other snapshots need");
	ret->manifests = calloc(list.count + 1, sizeof(*ret->manifests));
	if (ret->manifests == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < list.count; i++) {
		if (strcmp(list.items[i]->backend, backend) != 0)
			continue;
		if (snap_manifest(app->home, list.items[i], &ret->manifests[ret->count], err) < 0)
			return moat_wrap(err, "cannot tell what other snapshots need");
		total += ret->manifests[ret->count++]->count;
	}
	ret->entries = calloc(total + 1, sizeof(*ret->entries));
	if (ret->entries == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < ret->count; i++)
		for (size_t j = 0; j < ret->manifests[i]->count; j++)
			ret->entries[ret->entry_count++] = ret->manifests[i]->entries[j];
	return 0;
}

static int
visit_survivors(const struct moat_live *live,
		int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
		void *context, struct moat_error *err)
{
	const struct survivors *survivors = live->context;

	for (size_t i = 0; i < survivors->entry_count; i++)
		if (survivors->entries[i]->type == MOAT_FILE &&
		    survivors->entries[i]->leader == MOAT_NO_LEADER &&
		    visit(context, survivors->entries[i], err) < 0)
			return -1;
	return 0;
}

int
snap_remove_content(struct app *app, const struct workspace *workspace, struct backend *backend,
		    const char *ref, struct moat_error *err)
{
	CLEANUP(survivors_free) struct survivors survivors = {0};
	static const char *const none[] = {NULL};
	struct moat_live live = {.struct_size = sizeof live,
				 .context = &survivors,
				 .each = visit_survivors,
				 .manifests = none};

	if (find_survivors(app, workspace, backend_name(backend), &survivors, err) < 0)
		return -1;
	return snapshot_remove(backend, ref, &live, err);
}

/* A record that was taken out of the list: its content, then itself. */
static int
finish_removal(struct app *app, const struct workspace *workspace, int all_fd, const char *name,
	       struct moat_error *err)
{
	AUTO_CLOSE int fd = fs_open_directory(all_fd, name, false, err);
	AUTO_CLOSE int store_fd = -1;
	AUTO_JSON json_t *json = NULL;
	AUTO_SNAP struct snap *snap = NULL;
	AUTO_BACKEND struct backend *backend = NULL;

	if (fd < 0 || json_read(fd, "snapshot.json", "record of a snapshot", &json, err) < 0 ||
	    snap_parse(json, name + strlen(GONE_PREFIX), workspace->hash, &snap, err) < 0 ||
	    snap_open_own_backend(app, workspace, snap, &store_fd, &backend, err) < 0 ||
	    snap_remove_content(app, workspace, backend, snap->ref, err) < 0)
		return -1;
	return fs_remove_tree(all_fd, name, err);
}

int
snap_delete(struct app *app, const struct snap *snap, struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_CLOSE int lock = -1, all_fd = -1;
	CLEANUP(survivors_free) struct survivors survivors = {0};
	char gone[64];

	if (workspace_open_known(app->home, snap->workspace_hash, &workspace, err) < 0)
		return -1;
	lock = workspace_lock(workspace, err);
	all_fd = lock < 0 ? -1 : snapshots_directory(workspace, err);
	if (all_fd < 0)
		return -1;
	/* Before anything is gone. */
	if (find_survivors(app, workspace, snap->backend, &survivors, err) < 0)
		return moat_wrap(err, "delete snapshot %s", snap->id);
	/* First nobody finds it any more, then its content goes: a crash between leaves litter, not
	 * a ruin. */
	snprintf(gone, sizeof gone, "%s%s", GONE_PREFIX, snap->id);
	if (renameat(all_fd, snap->id, all_fd, gone) < 0)
		return moat_fail_errno(err, "delete snapshot %s", snap->id);
	if (fs_sync(all_fd, "snapshots", err) < 0 ||
	    finish_removal(app, workspace, all_fd, gone, err) < 0)
		return moat_wrap(err, "delete snapshot %s", snap->id);
	return 0;
}

int
snap_clear_leftovers(struct app *app, const struct workspace *workspace, struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snapshots_directory(workspace, err);
	AUTO_CLOSEDIR DIR *stream = all_fd < 0 ? NULL : fs_open_stream(all_fd, "", err);
	struct dirent *entry;

	if (stream == NULL)
		return moat_wrap(err, "the snapshots");
	while ((entry = readdir(stream)) != NULL) {
		struct moat_error local = MOAT_ERROR_INIT;
		int result = 0;

		if (strncmp(entry->d_name, NEW_PREFIX, strlen(NEW_PREFIX)) == 0)
			result = fs_remove_tree(all_fd, entry->d_name, &local);
		else if (strncmp(entry->d_name, GONE_PREFIX, strlen(GONE_PREFIX)) == 0)
			result = finish_removal(app, workspace, all_fd, entry->d_name, &local);
		if (result < 0)
			log_warning("what is left of a snapshot (%s) could not be removed: %s",
				    entry->d_name, local.message);
	}
	return 0;
}

/* ------------------------------------------------------------------------------------- live tree
 */

/* Where sizes are equal and times are not, only the content tells. */
static int
read_candidates(const struct workspace *workspace, const struct manifest *snapshot,
		struct manifest *live, struct moat_error *err)
{
	for (size_t i = 0; i < live->count; i++) {
		struct moat_entry *entry = (struct moat_entry *) live->entries[i];
		struct moat_error local = MOAT_ERROR_INIT;
		int64_t other;

		if (entry->type != MOAT_FILE || entry->status == MOAT_SAME)
			continue;
		if (entry->leader != MOAT_NO_LEADER) { /* Another name of one that came earlier. */
			entry->xattrs = live->entries[entry->leader]->xattrs;
			entry->xattrs_size = live->entries[entry->leader]->xattrs_size;
			continue;
		}
		other = manifest_find(snapshot, entry->path);
		if (other < 0 || snapshot->entries[other]->type != MOAT_FILE ||
		    manifest_content(snapshot, snapshot->entries[other])->size != entry->size)
			continue;
		/* What cannot be read counts as different. */
		if (tree_read(workspace->fd, entry, &live->arena, &local) < 0 &&
		    local.code != MOAT_PERMISSION && local.code != MOAT_GONE &&
		    local.code != MOAT_CHANGED)
			return moat_error_set(err, local.code, local.sys_errno, "%s",
					      local.message);
	}
	return 0;
}

/* At or below something that the snapshot saw and left out: it is none of its business, whatever
 * stands there now. */
static bool
was_left_out(const struct manifest *snapshot, const char *path)
{
	AUTO_FREE char *prefix = strdup(path);

	while (prefix != NULL && prefix[0] != '\0') {
		const struct manifest_skip *skip = manifest_find_skip(snapshot, prefix);
		char *slash;

		/* A directory that could not be read was captured itself. */
		if (skip != NULL && skip->reason != SKIP_TORN &&
		    (strcmp(prefix, path) != 0 || manifest_find(snapshot, path) < 0))
			return true;
		slash = strrchr(prefix, '/');
		*(slash == NULL ? prefix : slash) = '\0';
	}
	return prefix == NULL; /* no memory: rather too little than too much */
}

static int
drop_left_out(const struct manifest *snapshot, struct manifest *live, struct moat_error *err)
{
	size_t kept = 0;

	if (snapshot->skip_count == 0)
		return 0;
	for (size_t i = 0; i < live->count; i++)
		if (!was_left_out(snapshot, live->entries[i]->path))
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
	    read_candidates(workspace, snapshot, live, err) < 0)
		return moat_wrap(err, "look at %s", workspace->path);
	*ret = STEAL(live);
	return 0;
}
