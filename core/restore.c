/* SPDX-License-Identifier: Apache-2.0 */
/* Putting a workspace back to a snapshot. */
#include "core/restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/terminal.h"
#include "core/txn.h"

/* ------------------------------------------------------------------------------------------ diffs
 */

static const char *
type_text(const struct moat_entry *entry)
{
	switch (entry->type) {
	case MOAT_FILE:
		return "file";
	case MOAT_DIRECTORY:
		return "directory";
	default:
		return "symlink";
	}
}

static enum color
change_color(enum diff_change change)
{
	switch (change) {
	case DIFF_ADDED:
		return COLOR_GREEN;
	case DIFF_DELETED:
		return COLOR_RED;
	case DIFF_SAME:
		return COLOR_NONE;
	default:
		return COLOR_YELLOW;
	}
}

int
diff_print_item(void *context, const struct diff_item *item, struct moat_error *err)
{
	struct diff_printer *printer = context;
	const struct moat_entry *entry = item->to != NULL ? item->to : item->from;
	AUTO_JSON json_t *json = NULL;

	if (item->change == DIFF_SAME)
		return 0;
	if (printer->array == NULL) {
		out_color(printer->app->color, change_color(item->change), diff_text(item->change));
		out("%*s", 10 - (int) strlen(diff_text(item->change)), "");
		out_escaped(item->path[0] == '\0' ? "." : item->path);
		out("%s\n", entry->type == MOAT_DIRECTORY ? "/" : "");
		return 0;
	}
	json = json_object();
	if (json == NULL || json_put_bytes(json, "path", item->path, strlen(item->path)) < 0 ||
	    json_put_text(json, "change", diff_text(item->change)) < 0 ||
	    json_put_text(json, "type", type_text(entry)) < 0 ||
	    json_put_int(json, "size", (int64_t) entry->size) < 0 ||
	    json_array_append(printer->array, json) < 0)
		return moat_fail_memory(err);
	return 0;
}

/* ---------------------------------------------------------------------------------------- restore
 */

struct content {
	struct app *app;
	const struct snap *snap;
};

static int
bring_content(void *context, struct moat_extract *extract, struct moat_error *err)
{
	struct content *content = context;

	return snap_materialise(content->app, content->snap, extract, err);
}

static int
print_plan(struct app *app, const struct txn *txn, struct moat_error *err)
{
	AUTO_JSON json_t *array = app->json ? json_array() : NULL;
	struct diff_printer printer = {app, array};

	if (app->json && array == NULL)
		return moat_fail_memory(err);
	if (txn_visit(txn, diff_print_item, &printer, err) < 0)
		return -1;
	if (app->json)
		return json_print(array, false, err);
	if (txn_is_empty(txn))
		log_notice("nothing to do: the workspace is as the snapshot has it");
	else if (txn_counts(txn)->meta > 0)
		log_notice("%" PRIu64 " more get their modes or times back", txn_counts(txn)->meta);
	return 0;
}

static void
tell_counts(const struct snap *snap, const char *where, const struct txn_counts *counts)
{
	log_notice("restored %s to %s: %" PRIu64 " put back, %" PRIu64 " changed back, %" PRIu64
		   " removed, %" PRIu64 " modes or times set",
		   where, snap->id, counts->added, counts->modified, counts->deleted, counts->meta);
	if (counts->kept > 0)
		log_notice("%" PRIu64
			   " directories stay, because they hold what the snapshot did not "
			   "capture",
			   counts->kept);
}

static int
print_result(struct app *app, const struct snap *snap, const char *where, const struct snap *safety,
	     const struct txn_counts *counts, struct moat_error *err)
{
	AUTO_JSON json_t *json = NULL;

	if (!app->json) {
		tell_counts(snap, where, counts);
		if (safety != NULL) {
			out("%s\n", safety->id);
			log_notice("to undo: moat snapshot restore %s", safety->id);
		}
		return 0;
	}
	json = json_object();
	if (json == NULL || json_put_text(json, "snapshot", snap->id) < 0 ||
	    json_put_bytes(json, "directory", where, strlen(where)) < 0 ||
	    json_put_text(json, "safety", safety == NULL ? NULL : safety->id) < 0 ||
	    json_put_int(json, "added", (int64_t) counts->added) < 0 ||
	    json_put_int(json, "modified", (int64_t) counts->modified) < 0 ||
	    json_put_int(json, "deleted", (int64_t) counts->deleted) < 0 ||
	    json_put_int(json, "meta", (int64_t) counts->meta) < 0 ||
	    json_put_int(json, "kept", (int64_t) counts->kept) < 0)
		return moat_fail_memory(err);
	return json_print(json, false, err);
}

/* Objects of the user's own that cannot be read as they are, opened for the time of a restore. */
struct opened {
	char *path;
	mode_t mode;
};

struct openings {
	int root_fd;
	struct opened *items;
	size_t count;
	const struct manifest
		*settled; /* the transaction has given modes to all that is in it; or NULL */
};

/* The last opened first: it may lie in another. */
static void
openings_close(struct openings *openings)
{
	for (size_t i = openings->count; i-- > 0;) {
		struct opened *item = &openings->items[i];
		bool done = openings->settled != NULL &&
			    manifest_find(openings->settled, item->path) >= 0;
		const char *name;
		AUTO_CLOSE int dirfd =
			done ? -1 : fs_open_parent(openings->root_fd, item->path, &name, NULL);

		if (dirfd >= 0 && fchmodat(dirfd, name, item->mode, AT_SYMLINK_NOFOLLOW) < 0 &&
		    errno != ENOENT)
			log_warning("%s has lost its mode %o: %s", item->path, item->mode,
				    strerror(errno));
		free(item->path);
	}
	free(openings->items);
}

/* 1: opened; 0: it needs or allows no opening. */
static int
open_object(struct openings *openings, const char *path, struct moat_error *err)
{
	const char *name;
	AUTO_CLOSE int dirfd = fs_open_parent(openings->root_fd, path, &name, NULL);
	struct opened *more;
	struct stat st;
	mode_t needed;

	if (dirfd < 0 || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	needed = S_ISDIR(st.st_mode) ? 0700 : S_ISREG(st.st_mode) ? 0400 : 0;
	if (st.st_uid != geteuid() || (st.st_mode & needed) == needed)
		return 0;
	more = reallocarray(openings->items, openings->count + 1, sizeof *more);
	if (more == NULL)
		return moat_fail_memory(err);
	openings->items = more;
	more[openings->count].path = strdup(path);
	more[openings->count].mode = st.st_mode & 07777;
	if (more[openings->count].path == NULL)
		return moat_fail_memory(err);
	openings->count++;
	if (fchmodat(dirfd, name, (st.st_mode & 07777) | needed, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "make `%s' readable", path);
	return 1;
}

/* What the walk could not read, or the directory that hides it, unless the snapshot could not read
 * it either. */
static int
open_skipped(struct openings *openings, const struct manifest *desired,
	     const struct manifest_skip *skip, struct moat_error *err)
{
	AUTO_FREE char *parent = strdup(skip->path);
	char *slash;
	int result;

	if (skip->reason != SKIP_UNREADABLE || manifest_find_skip(desired, skip->path) != NULL)
		return 0;
	if (parent == NULL)
		return moat_fail_memory(err);
	result = open_object(openings, skip->path, err);
	slash = strrchr(parent, '/');
	if (result != 0 || slash == NULL)
		return result;
	*slash = '\0';
	return open_object(openings, parent, err);
}

/* Returns how many objects were opened. */
static int
open_all(struct openings *openings, const struct manifest *desired, const struct manifest *live,
	 struct moat_error *err)
{
	int opened = 0, result;

	for (size_t i = 0; i < live->skip_count; i++) {
		result = open_skipped(openings, desired, &live->skips[i], err);
		if (result < 0)
			return -1;
		opened += result;
	}
	for (size_t i = 0; i < live->count; i++) {
		const struct moat_entry *entry = live->entries[i];

		if (entry->type != MOAT_FILE || entry->status == MOAT_SAME ||
		    (entry->mode & 0400) != 0)
			continue;
		result = open_object(openings, entry->path, err);
		if (result < 0)
			return -1;
		opened += result;
	}
	return opened;
}

/* The live tree, looked into everywhere that the user can open, but for what the snapshot could not
 * look into either; the manifest has the modes from before. */
static int
look_everywhere(const struct workspace *workspace, const struct manifest *desired,
		struct openings *openings, struct manifest **ret, struct moat_error *err)
{
	for (;;) {
		AUTO_MANIFEST struct manifest *live = NULL;
		int opened;

		if (snap_live(workspace, desired, &live, err) < 0)
			return -1;
		opened = geteuid() == 0 ? 0 : open_all(openings, desired, live, err);
		if (opened < 0)
			return -1;
		if (opened > 0)
			continue;
		for (size_t i = 0; i < openings->count; i++) {
			int64_t index = manifest_find(live, openings->items[i].path);

			if (index >= 0)
				((struct moat_entry *) live->entries[index])->mode =
					openings->items[i].mode;
		}
		*ret = STEAL(live);
		return 0;
	}
}

/* A dry run opens nothing, and so may not know all. */
static void
tell_unseen(const struct manifest *desired, const struct manifest *live)
{
	for (size_t i = 0; i < live->skip_count; i++)
		if (live->skips[i].reason == SKIP_UNREADABLE &&
		    manifest_find_skip(desired, live->skips[i].path) == NULL)
			log_warning("%s cannot be read: what would happen below it is not known",
				    live->skips[i].path);
}

/* What a safety snapshot cannot hold must not be thrown away: content that the user cannot read. */
static int
check_readable(void *context, const struct diff_item *item, struct moat_error *err)
{
	const struct workspace *workspace = context;
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_CLOSE int fd = -1;

	if (item->from == NULL || item->from->type != MOAT_FILE ||
	    (item->change != DIFF_DELETED && item->change != DIFF_MODIFIED &&
	     item->change != DIFF_TYPE))
		return 0;
	fd = fs_open_beneath(workspace->fd, item->path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW, 0,
			     &why);
	if (fd >= 0 || why.code != MOAT_PERMISSION)
		return 0;
	return moat_fail(
		err, MOAT_CONFLICT,
		"`%s' is to be replaced or removed, and cannot be read, so no safety "
		"snapshot can hold it; nothing was changed: make it readable, or move it away",
		item->path);
}

static int
commit(struct txn *txn, const struct workspace *workspace, struct moat_error *err)
{
	int result;

	progress_begin("restoring %s", workspace->path);
	result = txn_commit(txn, err);
	progress_end();
	return result;
}

static int
restore_in_place(struct app *app, const struct snap *snap, const struct restore_options *options,
		 struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_MANIFEST struct manifest *desired = NULL, *live = NULL;
	AUTO_SNAP struct snap *safety = NULL;
	AUTO_TXN struct txn *txn = NULL;
	AUTO_CLOSE int lock = -1;
	CLEANUP(openings_close) struct openings openings = {0};
	struct content content = {app, snap};
	struct txn_source source = {bring_content, &content};
	bool everywhere =
		!options->dry_run && (options->paths == NULL || options->paths[0] == NULL);

	if (workspace_open_known(app->home, snap->workspace_hash, &workspace, err) < 0)
		return -1;
	if (workspace->fd < 0)
		return moat_fail(
			err, MOAT_NOT_FOUND,
			"the workspace `%s' is not there any more; `moat snapshot restore --to "
			"DIR %s' brings its files back elsewhere",
			workspace->path, snap->id);
	openings.root_fd = workspace->fd;
	lock = workspace_lock(workspace, err);
	if (lock < 0 || snap_manifest(app->home, snap, &desired, err) < 0 ||
	    (everywhere ? look_everywhere(workspace, desired, &openings, &live, err)
			: snap_live(workspace, desired, &live, err)) < 0 ||
	    txn_plan(app->home, workspace, live, desired, options->paths, &source, &txn, err) < 0)
		return -1;
	if (options->dry_run) {
		tell_unseen(desired, live);
		return print_plan(app, txn, err);
	}
	if (!options->no_safety && txn_visit(txn, check_readable, workspace, err) < 0)
		return -1;
	if (!txn_is_empty(txn) && !options->no_safety &&
	    snap_safety(app, workspace, snap, desired, live, &safety, err) < 0)
		return moat_wrap(err, "no safety snapshot, so nothing was restored");
	if (commit(txn, workspace, err) < 0)
		return moat_wrap(err, "restore %s", snap->id);
	openings.settled = desired;
	return print_result(app, snap, workspace->path, safety, txn_counts(txn), err);
}

/* Absent: made (true); an empty directory: taken as it is. */
static int
prepare_target(const char *path, bool *ret_made, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = NULL;
	const struct dirent *entry;

	*ret_made = mkdir(path, 0700) == 0;
	if (*ret_made)
		return 0;
	if (errno != EEXIST)
		return moat_fail_errno(err, "make the directory `%s'", path);
	stream = opendir(path);
	if (stream == NULL)
		return moat_fail_errno(err, "open the directory `%s'", path);
	while ((entry = readdir(stream)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			return moat_fail(
				err, MOAT_USAGE,
				"the directory `%s' is not empty; give one that is, or that does "
				"not exist yet",
				path);
	return 0;
}

static int
restore_into(struct app *app, const struct snap *snap, const struct restore_options *options,
	     struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *target = NULL, *workspace = NULL;
	AUTO_CLOSE int lock = -1;
	AUTO_MANIFEST struct manifest *desired = NULL, *live = NULL;
	AUTO_TXN struct txn *txn = NULL;
	struct content content = {app, snap};
	struct txn_source source = {bring_content, &content};

	/* The store must stay as it is meanwhile. */
	if (workspace_open_known(app->home, snap->workspace_hash, &workspace, err) < 0)
		return -1;
	lock = workspace_lock(workspace, err);
	if (lock < 0 || workspace_open_at(options->to, &target, err) < 0 ||
	    snap_manifest(app->home, snap, &desired, err) < 0 ||
	    snap_live(target, desired, &live, err) < 0 ||
	    txn_plan(app->home, target, live, desired, options->paths, &source, &txn, err) < 0)
		return -1;
	if (options->dry_run)
		return print_plan(app, txn, err);
	if (commit(txn, target, err) < 0)
		return moat_wrap(err, "restore %s into %s", snap->id, options->to);
	return print_result(app, snap, target->path, NULL, txn_counts(txn), err);
}

int
restore_snapshot(struct app *app, const struct snap *snap, const struct restore_options *options,
		 struct moat_error *err)
{
	bool made = false;
	sigset_t saved;
	int result;

	if (options->to == NULL) {
		/* To the end, with what it has to say: half a restore is none, and a finished one
		 * has an undo. */
		interrupt_hold(&saved);
		result = restore_in_place(app, snap, options, err);
		interrupt_release(&saved);
		return result;
	}
	if (prepare_target(options->to, &made, err) < 0)
		return -1;
	result = restore_into(app, snap, options, err);
	/* Empty again, or never filled: what was made goes. */
	if (made && (result < 0 || options->dry_run))
		(void) rmdir(options->to);
	return result;
}
