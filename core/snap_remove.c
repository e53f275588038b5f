/* SPDX-License-Identifier: Apache-2.0 */
/* Removing snapshots: what nobody needs goes, what others need stays, also when we die in between.
 *
 * A record is renamed before anything else, so that nobody finds it any more; then the backend
 * drops the content that no record needs; then the record itself goes, unless others are written
 * against its manifest.  Each step can be repeated. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/log.h"
#include "core/snap_internal.h"

/* ---------------------------------------------------------------------------------------- backends
 */

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
snap_open_backend_named(struct app *app, const struct workspace *workspace, const char *name,
			const char *snap_id, int *ret_store_fd, struct backend **ret,
			struct moat_error *err)
{
	const struct plugin *plugin;

	if (app_loader(app, err) < 0)
		return -1;
	plugin = loader_find(app->loader, MOAT_KIND_SNAPSHOT, name);
	if (plugin == NULL)
		return moat_fail(
			err, MOAT_NOT_FOUND,
			"snapshot %s needs the plugin snapshot-%s, which is not here; install "
			"moat-plugin-snapshot-%s",
			snap_id, name, name);
	return snap_open_backend(app, workspace, plugin, NULL, ret_store_fd, ret, err);
}

/* ------------------------------------------------------------------------------- what must stay */

void
needed_free(struct needed *needed)
{
	locator_set_free(&needed->set);
	free(needed->manifests);
	snap_list_free(&needed->list);
	snap_list_free(&needed->bases);
}

int
needed_add(struct locator_set *set, const struct manifest *manifest, struct moat_error *err)
{
	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = manifest->entries[i];

		if (entry->type == MOAT_FILE && (entry->flags & MOAT_HAS_LOCATOR) != 0 &&
		    entry->leader == MOAT_NO_LEADER &&
		    locator_set_add(set, entry->locator, entry->size, err) < 0)
			return -1;
	}
	return 0;
}

bool
snap_is_base(const struct snap_list *list, const char *id)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->items[i]->base != NULL && strcmp(list->items[i]->base, id) == 0)
			return true;
	return false;
}

/* On its way out a directory loses its record before itself, or its manifest: what it had in the
 * store is gone by then. */
static int
has_record(int all_fd, const char *name, struct moat_error *err)
{
	char path[SNAP_NAME_MAX + 16];

	(void) snprintf(path, sizeof path, "%s/snapshot.json", name);
	if (faccessat(all_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 1;
	return errno == ENOENT ? 0 : moat_fail_errno(err, "look for `%s'", path);
}

/* Records that are in no list any more: of that prefix. */
static int
list_hidden(const struct workspace *workspace, int all_fd, const char *prefix_text,
	    struct snap_list *ret, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(all_fd, "", err);
	const size_t prefix = strlen(prefix_text);
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return moat_wrap(err, "the snapshots");
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		struct snap *snap = NULL;
		int there;

		if (strncmp(entry->d_name, prefix_text, prefix) != 0 ||
		    !snap_is_id(entry->d_name + prefix))
			continue;
		there = has_record(all_fd, entry->d_name, err);
		if (there == 0)
			continue;
		if (there < 0 ||
		    snap_read_record(all_fd, entry->d_name, entry->d_name + prefix, workspace->hash,
				     &snap, err) < 0 ||
		    snap_list_append(ret, snap, err) < 0)
			return -1;
	}
	return next < 0 ? moat_wrap(err, "the snapshots") : 0;
}

static int
name_manifests(struct needed *needed, const char *backend, struct moat_error *err)
{
	size_t count = 0;

	needed->manifests =
		calloc(needed->list.count + needed->bases.count + 1, sizeof *needed->manifests);
	if (needed->manifests == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < needed->list.count; i++)
		if (strcmp(needed->list.items[i]->backend, backend) == 0)
			needed->manifests[count++] = needed->list.items[i]->ref;
	for (size_t i = 0; i < needed->bases.count; i++)
		if (strcmp(needed->bases.items[i]->backend, backend) == 0 &&
		    snap_is_base(&needed->list, needed->bases.items[i]->id))
			needed->manifests[count++] = needed->bases.items[i]->ref;
	return 0;
}

/* An unreadable manifest stops a removal: what it needs cannot be known. */
int
needed_find(struct app *app, const struct workspace *workspace, const char *backend,
	    struct needed *ret, struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snap_directory(workspace, err);

	if (all_fd < 0 || snap_list_strict(workspace, true, &ret->list, err) < 0 ||
	    list_hidden(workspace, all_fd, BASE_PREFIX, &ret->bases, err) < 0 ||
	    list_hidden(workspace, all_fd, GONE_PREFIX, &ret->bases, err) < 0)
		return moat_wrap(err, "cannot tell what other snapshots need");
	for (size_t i = 0; i < ret->list.count; i++) {
		AUTO_MANIFEST struct manifest *manifest = NULL;

		if (strcmp(ret->list.items[i]->backend, backend) != 0)
			continue;
		if (snap_manifest(app->home, ret->list.items[i], &manifest, err) < 0 ||
		    needed_add(&ret->set, manifest, err) < 0)
			return moat_wrap(err, "cannot tell what other snapshots need");
	}
	return name_manifests(ret, backend, err);
}

static int
visit_needed(const struct moat_live *live,
	     int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
	     void *context, struct moat_error *err)
{
	const struct needed *needed = live->context;
	struct moat_entry entry = {.path = "",
				   .type = MOAT_FILE,
				   .flags = MOAT_HAS_LOCATOR,
				   .nlink = 1,
				   .leader = MOAT_NO_LEADER};

	for (size_t i = 0; i < needed->set.allocated; i++) {
		const struct located *slot = &needed->set.slots[i];

		if (slot->size == UINT64_MAX)
			continue;
		memcpy(entry.locator, slot->locator, sizeof entry.locator);
		entry.size = slot->size;
		if (visit(context, &entry, err) < 0)
			return -1;
	}
	return 0;
}

int
snap_remove_content(struct backend *backend, const char *ref, const struct needed *needed,
		    struct moat_error *err)
{
	struct moat_live live = {.struct_size = sizeof live,
				 .context = (void *) needed,
				 .each = visit_needed,
				 .manifests = needed->manifests};

	return snapshot_remove(backend, ref, &live, err);
}

/* ---------------------------------------------------------------------------------------- removing
 */

/* One backend's part of a removal: what is needed is found out once for all that goes. */
struct removal {
	struct app *app;
	const struct workspace *workspace;
	int all_fd, store_fd;
	char name[MOAT_REF_MAX]; /* of the backend; "": none yet */
	struct backend *backend;
	struct needed needed;
};

static void
removal_close(struct removal *removal)
{
	backend_close(removal->backend);
	removal->backend = NULL;
	cleanup_close(&removal->store_fd);
	removal->store_fd = -1;
	needed_free(&removal->needed);
	removal->needed = (struct needed){0};
	removal->name[0] = '\0';
}
#define AUTO_REMOVAL CLEANUP(removal_close)

static int
use_backend(struct removal *removal, const char *name, const char *id, struct moat_error *err)
{
	if (strcmp(removal->name, name) == 0)
		return 0;
	removal_close(removal);
	if (snap_open_backend_named(removal->app, removal->workspace, name, id, &removal->store_fd,
				    &removal->backend, err) < 0 ||
	    needed_find(removal->app, removal->workspace, name, &removal->needed, err) < 0)
		return -1;
	snprintf(removal->name, sizeof removal->name, "%s", name);
	return 0;
}

/* A record that was taken out of the list: its content, then itself. */
static int
finish_removal(struct removal *removal, const char *directory, const char *id,
	       struct moat_error *err)
{
	AUTO_SNAP struct snap *snap = NULL;
	char base[SNAP_NAME_MAX];

	if (snap_read_record(removal->all_fd, directory, id, removal->workspace->hash, &snap, err) <
		    0 ||
	    use_backend(removal, snap->backend, id, err) < 0 ||
	    snap_remove_content(removal->backend, snap->ref, &removal->needed, err) < 0)
		return -1;
	if (!snap_is_base(&removal->needed.list, id))
		return fs_remove_tree(removal->all_fd, directory, err);
	snap_name(base, BASE_PREFIX, id);
	if (strcmp(base, directory) != 0 &&
	    renameat(removal->all_fd, directory, removal->all_fd, base) < 0)
		return moat_fail_errno(err, "keep the manifest of %s", id);
	return 0;
}

/* While a record is a base it is needed; the list of what goes tells which bases may be, too. */
static int
drop_bases(struct removal *removal, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list bases = {0}, list = {0};

	if (list_hidden(removal->workspace, removal->all_fd, BASE_PREFIX, &bases, err) < 0)
		return -1;
	if (bases.count > 0 && snap_list_strict(removal->workspace, true, &list, err) < 0)
		return -1;
	for (size_t i = 0; i < bases.count; i++) {
		char name[SNAP_NAME_MAX];

		snap_name(name, BASE_PREFIX, bases.items[i]->id);
		if (!snap_is_base(&list, bases.items[i]->id) &&
		    finish_removal(removal, name, bases.items[i]->id, err) < 0)
			return -1;
	}
	return 0;
}

/* First nobody finds them any more, then their contents go: a crash between leaves litter, not a
 * ruin. */
static int
hide(int all_fd, const struct snap_list *list, struct moat_error *err)
{
	for (size_t i = 0; i < list->count; i++) {
		char gone[SNAP_NAME_MAX];

		snap_name(gone, GONE_PREFIX, list->items[i]->id);
		if (renameat(all_fd, list->items[i]->id, all_fd, gone) < 0)
			return errno == ENOENT ? moat_fail(err, MOAT_NOT_FOUND,
							   "there is no snapshot %s any more",
							   list->items[i]->id)
					       : moat_fail_errno(err, "take it from the list");
	}
	return fs_sync(all_fd, "snapshots", err);
}

/* When it turns out that nothing can be removed now. */
static void
show_again(int all_fd, const struct snap_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		char gone[SNAP_NAME_MAX];

		snap_name(gone, GONE_PREFIX, list->items[i]->id);
		(void) renameat(all_fd, gone, all_fd, list->items[i]->id); /* or never hidden */
	}
}

/* What others need must be known before anything is gone. */
static int
prepare(struct removal *removal, const struct snap_list *list, struct moat_error *err)
{
	if (hide(removal->all_fd, list, err) == 0) {
		size_t i = 0;

		while (i < list->count &&
		       use_backend(removal, list->items[i]->backend, list->items[i]->id, err) == 0)
			i++;
		if (i == list->count)
			return 0;
	}
	show_again(removal->all_fd, list);
	return -1;
}

int
snap_delete_list(struct app *app, const struct workspace *workspace, const struct snap_list *list,
		 struct moat_error *err)
{
	AUTO_REMOVAL struct removal removal = {.app = app, .workspace = workspace, .store_fd = -1};
	AUTO_CLOSE int all_fd = snap_directory(workspace, err);

	removal.all_fd = all_fd;
	if (all_fd < 0 || prepare(&removal, list, err) < 0)
		return -1;
	for (size_t i = 0; i < list->count; i++) {
		char gone[SNAP_NAME_MAX];

		snap_name(gone, GONE_PREFIX, list->items[i]->id);
		if (finish_removal(&removal, gone, list->items[i]->id, err) < 0)
			return moat_wrap(err, "%s is deleted, but what it had is not yet removed",
					 list->items[i]->id);
	}
	if (drop_bases(&removal, err) < 0)
		return -1;
	return fs_sync(all_fd, "snapshots", err);
}

int
snap_delete(struct app *app, const struct snap *snap, struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_CLOSE int lock = -1;
	struct snap *items[] = {(struct snap *) snap};
	struct snap_list list = {items, 1};

	if (workspace_open_known(app->home, snap->workspace_hash, &workspace, err) < 0)
		return -1;
	lock = workspace_lock(workspace, err);
	if (lock < 0 || snap_delete_list(app, workspace, &list, err) < 0)
		return moat_wrap(err, "delete snapshot %s", snap->id);
	return 0;
}

/* --------------------------------------------------------------------------------------- leftovers
 */

/* A capture that did not come to its end: what the backend has of it, then the mark. */
static int
remove_unfinished(struct removal *removal, const char *directory, struct moat_error *err)
{
	const char *id = directory + strlen(NEW_PREFIX), *dash = strchr(id, '-');
	char text[SNAP_ID_LENGTH + 1];

	if (dash != NULL && dash - id == SNAP_ID_LENGTH) {
		memcpy(text, id, SNAP_ID_LENGTH);
		text[SNAP_ID_LENGTH] = '\0';
		if (snap_is_id(text) &&
		    (use_backend(removal, dash + 1, text, err) < 0 ||
		     snap_remove_content(removal->backend, text, &removal->needed, err) < 0))
			return -1;
	}
	return fs_remove_tree(removal->all_fd, directory, err);
}

static int
clear_one(struct removal *removal, const char *name, struct moat_error *err)
{
	const char *id = name + strlen(GONE_PREFIX);

	if (strncmp(name, NEW_PREFIX, strlen(NEW_PREFIX)) == 0)
		return remove_unfinished(removal, name, err) < 0 ? -1 : 1;
	if ((strncmp(name, GONE_PREFIX, strlen(GONE_PREFIX)) == 0 ||
	     strncmp(name, BASE_PREFIX, strlen(BASE_PREFIX)) == 0) &&
	    snap_is_id(id)) {
		int there = has_record(removal->all_fd, name, err);

		if (there < 0)
			return -1;
		if (there == 0)
			return fs_remove_tree(removal->all_fd, name, err) < 0 ? -1 : 1;
	}
	if (strncmp(name, GONE_PREFIX, strlen(GONE_PREFIX)) == 0 && snap_is_id(id))
		return finish_removal(removal, name, id, err) < 0 ? -1 : 1;
	if (strncmp(name, LOST_PREFIX, strlen(LOST_PREFIX)) == 0 ||
	    strncmp(name, BAD_PREFIX, strlen(BAD_PREFIX)) == 0)
		return fs_remove_tree(removal->all_fd, name, err) < 0 ? -1 : 1;
	if (strncmp(name, BASE_PREFIX, strlen(BASE_PREFIX)) == 0)
		return 2; /* Looked at afterwards. */
	return 0;
}

/* Directories in which an import collected its files, and files that were to replace others. */
static int
clear_strays(const struct workspace *workspace, uint64_t *cleared, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(workspace->state_fd, "", err);
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return -1;
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		if (strncmp(entry->d_name, "import-", 7) != 0 &&
		    strncmp(entry->d_name, FS_TEMPORARY_PREFIX, strlen(FS_TEMPORARY_PREFIX)) != 0)
			continue;
		if (fs_remove_tree(workspace->state_fd, entry->d_name, err) < 0)
			return -1;
		++*cleared;
	}
	return next;
}

int
snap_clear_leftovers(struct app *app, const struct workspace *workspace, struct snap_recovery *ret,
		     struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snap_directory(workspace, err);
	AUTO_CLOSEDIR DIR *stream = all_fd < 0 ? NULL : fs_open_stream(all_fd, "", err);
	AUTO_REMOVAL struct removal removal = {
		.app = app, .workspace = workspace, .all_fd = all_fd, .store_fd = -1};
	struct moat_error why = MOAT_ERROR_INIT;
	struct snap_recovery counts = {0};
	bool bases = false, provisional = ret != NULL && ret->provisional;
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return moat_wrap(err, "the snapshots");
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		int result = clear_one(&removal, entry->d_name, &why);

		counts.cleared += result == 1;
		bases = bases || result == 2;
		if (result >= 0)
			continue;
		counts.failed++;
		if (!provisional)
			log_warning("what is left of a snapshot (%s) could not be removed: %s",
				    entry->d_name, why.message);
		moat_error_clear(&why);
	}
	/* Names may have come and gone since. */
	removal_close(&removal);
	if (next < 0)
		return moat_wrap(err, "the snapshots");
	if ((counts.cleared > 0 || bases) && drop_bases(&removal, &why) < 0 && !provisional) {
		log_warning("manifests that nobody needs could not be removed: %s", why.message);
		counts.failed++;
	}
	if (clear_strays(workspace, &counts.cleared, err) < 0)
		return -1;
	if (ret != NULL) {
		ret->cleared += counts.cleared;
		ret->failed += provisional ? 0 : counts.failed;
	}
	return 0;
}
