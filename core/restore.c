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
#include "core/undo.h"

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
clones_fd(struct app *app, const struct snap *snap)
{
	const struct plugin *plugin =
		app_loader(app, NULL) < 0
			? NULL
			: loader_find(app->loader, MOAT_KIND_SNAPSHOT, snap->backend);

	return plugin != NULL && (plugin_capabilities(plugin) & MOAT_SNAPSHOT_CLONES) != 0
		       ? app->home->workspaces_fd
		       : -1;
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

/* undoes: the transaction that was taken back, or NULL. */
static void
tell_counts(const struct snap *snap, const char *where, const char *undoes,
	    const struct txn_counts *counts)
{
	log_notice("%s %s%s%s: %" PRIu64 " put back, %" PRIu64 " changed back, %" PRIu64
		   " removed, %" PRIu64 " modes or times set",
		   undoes == NULL ? "restored" : "undone in", where,
		   undoes == NULL ? " to " : ", restore ", undoes == NULL ? snap->id : undoes,
		   counts->added, counts->modified, counts->deleted, counts->meta);
	if (counts->kept > 0)
		log_notice("%" PRIu64
			   " directories stay, because they hold what the snapshot did not "
			   "capture",
			   counts->kept);
}

/* One restore in place under way, or an undo, which is one of some paths. */
struct going_back {
	struct app *app;
	const struct snap *snap;      /* where the content is */
	const struct manifest *rules; /* its manifest: by its rules the workspace is seen */
	const char *undoes;           /* the transaction that is taken back, or NULL */
	const struct restore_options *options;
	struct workspace *workspace;
	struct manifest *live;
	struct txn_prelude *prelude;
};

static void
tell_undo(const struct workspace *workspace, const struct snap *safety)
{
	struct stat here;

	/* `moat undo' is about the workspace that one is in. */
	if (stat(".", &here) == 0 && here.st_dev == workspace->dev && here.st_ino == workspace->ino)
		log_notice("to undo: moat undo (or: moat snapshot restore %s)", safety->id);
	else
		log_notice("to undo: moat snapshot restore %s (or, in %s: moat undo)", safety->id,
			   workspace->path);
}

static int
print_json(const struct going_back *back, const char *where, const struct snap *safety,
	   const struct txn_counts *counts, struct moat_error *err)
{
	AUTO_JSON json_t *json = json_object();

	if (json == NULL || json_put_text(json, "snapshot", back->snap->id) < 0 ||
	    json_put_bytes(json, "directory", where, strlen(where)) < 0 ||
	    json_put_text(json, "safety", safety == NULL ? NULL : safety->id) < 0 ||
	    json_put_text(json, "undoes", back->undoes) < 0 ||
	    json_put_int(json, "added", (int64_t) counts->added) < 0 ||
	    json_put_int(json, "modified", (int64_t) counts->modified) < 0 ||
	    json_put_int(json, "deleted", (int64_t) counts->deleted) < 0 ||
	    json_put_int(json, "meta", (int64_t) counts->meta) < 0 ||
	    json_put_int(json, "kept", (int64_t) counts->kept) < 0)
		return moat_fail_memory(err);
	return json_print(json, false, err);
}

static int
print_result(const struct going_back *back, const char *where, const struct snap *safety,
	     const struct txn_counts *counts, struct moat_error *err)
{
	if (back->app->json)
		return print_json(back, where, safety, counts, err);
	tell_counts(back->snap, where, back->undoes, counts);
	if (safety != NULL) {
		out("%s\n", safety->id);
		tell_undo(back->workspace, safety);
	}
	return 0;
}

/* A dry run opens nothing. */
static int
look(struct going_back *back, struct moat_error *err)
{
	const struct restore_options *options = back->options;

	return options->dry_run ? snap_live(back->workspace, back->rules, &back->live, err)
				: restore_look(back->app, back->workspace, back->rules,
					       options->paths, &back->prelude, &back->live, err);
}

/* --------------------------------------------------------------------------------------- in place
 */

/* A dry run opens nothing, and so may not know all. */
static void
tell_hidden(const struct going_back *back)
{
	for (size_t i = 0; i < back->live->skip_count; i++)
		if (restore_is_hidden(&back->live->skips[i], back->rules, back->options->paths))
			log_warning("%s cannot be read: what would happen below it is not known; "
				    "what is yours would be opened for it, all else refused",
				    back->live->skips[i].path);
}

/* What nobody can look into can be brought to no state: the whole is refused.  An undo is only
 * about what the restore changed. */
static int
check_hidden(const struct going_back *back, const struct txn *txn, struct moat_error *err)
{
	const char *path = txn_hidden(txn);

	for (size_t i = 0; path == NULL && !back->undoes && i < back->live->skip_count; i++)
		if (restore_is_hidden(&back->live->skips[i], back->rules, back->options->paths))
			path = back->live->skips[i].path;
	if (path == NULL)
		return 0;
	return moat_fail(
		err, MOAT_CONFLICT,
		"`%s' cannot be read, so it cannot be brought back to what it was; nothing "
		"was changed: make it readable, move it away, or name the PATHs to restore",
		path);
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
check_captured(void *context, const struct diff_item *item, struct moat_error *err)
{
	const struct manifest *safety = context;
	const struct manifest_skip *skip;

	if (item->from == NULL || item->from->type != MOAT_FILE ||
	    manifest_find(safety, item->path) >= 0)
		return 0;
	skip = manifest_find_skip(safety, item->path);
	if (skip == NULL || skip->reason != SKIP_UNREADABLE)
		return 0; /* Not there any more: the transaction will see whether that is so. */
	return moat_fail(err, MOAT_CONFLICT,
			 "`%s' is to be replaced or removed, and the safety snapshot could not "
			 "read it (%s); nothing was changed",
			 item->path, skip->detail);
}

/* Permissions may have changed since check_readable(). */
static int
check_safety(const struct going_back *back, const struct txn *txn, const struct snap *safety,
	     struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *manifest = NULL;

	if (safety->skipped <= back->live->skip_count)
		return 0;
	if (snap_manifest(back->app->home, safety, &manifest, err) < 0)
		return -1;
	return txn_visit(txn, check_captured, manifest, err);
}

static void
going_back_free(struct going_back *back)
{
	txn_prelude_end(back->prelude);
	manifest_free(back->live);
	workspace_close(back->workspace);
}
#define AUTO_GOING_BACK CLEANUP(going_back_free)

static int
commit(struct txn *txn, const struct workspace *workspace, struct moat_error *err)
{
	int result;

	progress_begin("restoring %s", workspace->path);
	result = txn_commit(txn, err);
	progress_end();
	return result;
}

/* From the plan to the end of it. */
static int
carry_out(struct going_back *back, struct txn *txn, struct moat_error *err)
{
	const struct restore_options *options = back->options;
	AUTO_SNAP struct snap *safety = NULL;

	if (options->dry_run) {
		tell_hidden(back);
		return print_plan(back->app, txn, err);
	}
	if (check_hidden(back, txn, err) < 0)
		return -1;
	if (!options->no_safety && txn_visit(txn, check_readable, back->workspace, err) < 0)
		return -1;
	if (!txn_is_empty(txn) && !options->no_safety &&
	    snap_safety(back->app, back->workspace, back->snap, back->rules, back->live, &safety,
			err) < 0)
		return moat_wrap(err, "no safety snapshot, so nothing was restored");
	if (safety != NULL && check_safety(back, txn, safety, err) < 0)
		return -1;
	txn_record(txn, back->snap->id, safety == NULL ? NULL : safety->id, back->undoes);
	if (back->prelude != NULL)
		txn_use_prelude(txn, back->prelude);
	if (commit(txn, back->workspace, err) < 0)
		return moat_wrap(err, "restore %s", back->snap->id);
	return print_result(back, back->workspace->path, safety, txn_counts(txn), err);
}

static int
open_place(struct going_back *back, const char *hash, struct moat_error *err)
{
	if (workspace_open_known(back->app->home, hash, &back->workspace, err) < 0)
		return -1;
	if (back->workspace->fd >= 0)
		return 0;
	return moat_fail(
		err, MOAT_NOT_FOUND,
		"the workspace `%s' is not there any more; `moat snapshot restore --to DIR %s' "
		"brings its files back elsewhere",
		back->workspace->path, back->snap->id);
}

static int
restore_in_place(struct app *app, const struct snap *snap, const struct restore_options *options,
		 struct moat_error *err)
{
	AUTO_CLOSE int lock = -1;
	AUTO_MANIFEST struct manifest *desired = NULL;
	AUTO_GOING_BACK struct going_back back = {.app = app, .snap = snap, .options = options};
	AUTO_TXN struct txn *txn = NULL;
	struct content content = {app, snap};
	struct txn_source source = {bring_content, &content, clones_fd(app, snap)};

	if (open_place(&back, snap->workspace_hash, err) < 0)
		return -1;
	lock = workspace_lock(back.workspace, err);
	if (lock < 0 || snap_manifest(app->home, snap, &desired, err) < 0)
		return -1;
	back.rules = desired;
	if (look(&back, err) < 0 || txn_plan(app->home, back.workspace, back.live, desired,
					     options->paths, &source, &txn, err) < 0)
		return -1;
	return carry_out(&back, txn, err);
}

/* ------------------------------------------------------------------------------------------- undo
 */

static int
plan_undoing(const struct going_back *back, const struct undo_record *record,
	     const struct txn_source *source, struct manifest **ret_desired,
	     struct undo_scope **ret_scope, struct txn **ret, struct moat_error *err)
{
	const char *const *paths;
	size_t count;

	if (undo_scope_new(back->app->home, back->workspace, record, back->live, ret_scope, err) <
		    0 ||
	    undo_desired(*ret_scope, back->live, back->rules, ret_desired, err) < 0)
		return moat_wrap(err, "undo %s", record->id);
	paths = undo_paths(*ret_scope, &count);
	return txn_plan_exactly(back->app->home, back->workspace, back->live, *ret_desired, paths,
				count, source, ret, err);
}

static int
find_safety(struct app *app, const struct undo_record *record, struct snap **ret,
	    struct moat_error *err)
{
	if (record->safety == NULL)
		return moat_fail(err, MOAT_NOT_FOUND,
				 "the last restore, %s, took no safety snapshot: there is nothing "
				 "to undo it from; `moat snapshot list' shows what there is",
				 record->id);
	if (snap_find(app->home, record->safety, ret, err) < 0)
		return moat_wrap(err, "the safety snapshot of %s", record->id);
	return 0;
}

static int
undo_record(struct app *app, const struct undo_record *record,
	    const struct restore_options *options, struct moat_error *err)
{
	AUTO_CLOSE int lock = -1;
	AUTO_SNAP struct snap *safety = NULL;
	AUTO_MANIFEST struct manifest *rules = NULL, *desired = NULL;
	AUTO_UNDO_SCOPE struct undo_scope *scope = NULL;
	AUTO_GOING_BACK struct going_back back = {
		.app = app, .undoes = record->id, .options = options};
	AUTO_TXN struct txn *txn = NULL;
	struct content content = {app, NULL};
	struct txn_source source = {bring_content, &content, -1};

	if (find_safety(app, record, &safety, err) < 0)
		return -1;
	back.snap = content.snap = safety;
	source.clones_fd = clones_fd(app, safety);
	if (open_place(&back, record->hash, err) < 0)
		return -1;
	lock = workspace_lock(back.workspace, err);
	if (lock < 0 || snap_manifest(app->home, safety, &rules, err) < 0)
		return -1;
	back.rules = rules;
	if (look(&back, err) < 0 ||
	    plan_undoing(&back, record, &source, &desired, &scope, &txn, err) < 0)
		return -1;
	return carry_out(&back, txn, err);
}

int
restore_undo(struct app *app, const char *transaction, const struct restore_options *options,
	     struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_UNDO_RECORD struct undo_record record = {0};
	sigset_t saved;
	int result;

	if (transaction != NULL) {
		if (undo_find(app->home, transaction, &record, err) < 0)
			return -1;
	} else if (workspace_look(app->home, NULL, &workspace, err) < 0 ||
		   undo_last(workspace, &record, err) < 0) {
		return -1;
	}
	if (transaction == NULL)
		log_notice("undoing %s, the last restore of %s", record.id, workspace->path);
	interrupt_hold(&saved);
	result = undo_record(app, &record, options, err);
	interrupt_release(&saved);
	return result;
}

/* -------------------------------------------------------------------------------------- elsewhere
 */

/* The path that a new directory will have, with links resolved. */
static char *
absolute(const char *path, struct moat_error *err)
{
	AUTO_FREE char *copy = strdup(path), *above = NULL;
	AUTO_BUF struct buf full = {0};
	char *slash;

	while (copy != NULL && copy[0] != '\0' && copy[strlen(copy) - 1] == '/')
		copy[strlen(copy) - 1] = '\0';
	if (copy == NULL || copy[0] == '\0') {
		moat_fail(err, MOAT_USAGE, "make the directory `%s': no name", path);
		return NULL;
	}
	slash = strrchr(copy, '/');
	if (slash != NULL)
		*slash = '\0';
	above = realpath(slash == NULL ? "." : slash == copy ? "/" : copy, NULL);
	if (above == NULL) {
		moat_fail_errno(err, "make the directory `%s'", path);
		return NULL;
	}
	buf_format(&full, "%s/%s", strcmp(above, "/") == 0 ? "" : above,
		   slash == NULL ? copy : slash + 1);
	if (buf_check(&full, err) < 0)
		return NULL;
	return buf_steal(&full);
}

/* Absent: made, and noted first, so that it goes again should nothing come of it. */
static int
make_target(struct app *app, const char *path, struct txn_prelude **ret, struct moat_error *err)
{
	AUTO_FREE char *full = absolute(path, err);

	if (full == NULL || txn_prelude_new(app->home, full, NULL, ret, err) < 0)
		return -1;
	return txn_prelude_make(*ret, err);
}

/* What is there must be an empty directory, and is taken as it is. */
static int
prepare_target(struct app *app, const char *path, struct txn_prelude **ret, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = NULL;
	struct dirent *entry;
	struct stat st;
	int next;

	if (lstat(path, &st) < 0 && errno == ENOENT)
		return make_target(app, path, ret, err);
	stream = opendir(path);
	if (stream == NULL)
		return moat_fail_errno(err, "open the directory `%s'", path);
	next = fs_read_name(stream, &entry, err);
	if (next > 0)
		return moat_fail(err, MOAT_USAGE,
				 "the directory `%s' is not empty; give one that is, or that does "
				 "not exist yet",
				 path);
	return next < 0 ? moat_wrap(err, "the directory `%s'", path) : 0;
}

static int
restore_into(struct app *app, const struct snap *snap, const struct restore_options *options,
	     struct txn_prelude *prelude, struct moat_error *err)
{
	struct going_back back = {.app = app, .snap = snap, .options = options};
	AUTO_WORKSPACE struct workspace *target = NULL, *workspace = NULL;
	AUTO_CLOSE int lock = -1;
	AUTO_MANIFEST struct manifest *desired = NULL, *live = NULL;
	AUTO_TXN struct txn *txn = NULL;
	struct content content = {app, snap};
	struct txn_source source = {bring_content, &content, clones_fd(app, snap)};

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
	if (prelude != NULL)
		txn_use_prelude(txn, prelude);
	if (commit(txn, target, err) < 0)
		return moat_wrap(err, "restore %s into %s", snap->id, options->to);
	return print_result(&back, target->path, NULL, txn_counts(txn), err);
}

int
restore_snapshot(struct app *app, const struct snap *snap, const struct restore_options *options,
		 struct moat_error *err)
{
	AUTO_TXN_PRELUDE struct txn_prelude *prelude = NULL;
	sigset_t saved;
	int result;

	/* To the end, with what it has to say: half a restore is none, and a finished one has an
	 * undo. */
	interrupt_hold(&saved);
	if (options->to == NULL)
		result = restore_in_place(app, snap, options, err);
	else
		result = prepare_target(app, options->to, &prelude, err) < 0
				 ? -1
				 : restore_into(app, snap, options, prelude, err);
	txn_prelude_end(STEAL(prelude));
	interrupt_release(&saved);
	return result;
}
