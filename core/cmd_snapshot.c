/* SPDX-License-Identifier: Apache-2.0 */
/* The commands about snapshots, and `rollback'. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "core/cmd.h"
#include "core/log.h"
#include "core/restore.h"
#include "core/run.h"
#include "core/snap.h"
#include "core/terminal.h"
#include "core/txn.h"

/* A list of snapshots that is gone is made again before anybody looks into it. */
static int
open_home(struct app *app, struct moat_error *err)
{
	return app_home(app, err) < 0 ? -1 : snap_rebuild_lost(app, err);
}

/* The workspace of RUN, of --workspace, or the current directory. */
static int
open_chosen(struct app *app, const struct args *args, struct workspace **ret, struct run **ret_run,
	    struct moat_error *err)
{
	const char *name = args_at(args, 0), *directory = args_value(args, "workspace");

	if (open_home(app, err) < 0)
		return -1;
	if (name == NULL)
		return workspace_open(app->home, directory, ret, err);
	if (directory != NULL)
		return moat_fail(err, MOAT_USAGE, "give either RUN or --workspace, not both");
	if (run_find(app->home, name, ret_run, err) < 0)
		return -1;
	return workspace_open(app->home, (*ret_run)->workspaces[0], ret, err);
}

static int
print_snap_id(struct app *app, const struct snap *snap, struct moat_error *err)
{
	AUTO_JSON json_t *json = NULL;

	if (!app->json) {
		out("%s\n", snap->id);
		return 0;
	}
	json = snap_json(snap);
	return json == NULL ? moat_fail_memory(err) : json_print(json, false, err);
}

int
cmd_snapshot_create(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_RUN struct run *run = NULL;
	AUTO_CONFIG struct config *config = NULL;
	AUTO_SNAP struct snap *snap = NULL;
	struct snap_options options = {.type = "manual", .label = args_value(args, "label")};

	if (open_chosen(app, args, &workspace, &run, err) < 0 ||
	    config_load(workspace->fd, workspace->path, app->config_path, &config, err) < 0)
		return -1;
	options.config = config;
	options.run = run == NULL ? NULL : run->id;
	if (snap_create(app, workspace, &options, &snap, err) < 0)
		return -1;
	snap_retain(app, workspace, config);
	return print_snap_id(app, snap, err);
}

/* ------------------------------------------------------------------------------------ list, show
 */

static int
print_json_list(const struct snap_list *list, struct moat_error *err)
{
	AUTO_JSON json_t *array = json_array();

	if (array == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < list->count; i++) {
		json_t *json = snap_json(list->items[i]);

		if (json == NULL || json_array_append_new(array, json) < 0)
			return moat_fail_memory(err);
	}
	return json_print(array, false, err);
}

static int
print_table(struct app *app, const struct snap_list *list, struct moat_error *err)
{
	static const char *const headers[] = {"ID",   "TYPE",  "AGE",   "FILES",
					      "SIZE", "ADDED", "LABEL", NULL};
	struct table *table = table_new(headers);
	int64_t now = time_now_ns();

	if (table == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < list->count; i++) {
		const struct snap *snap = list->items[i];
		char age[32], size[32], stored[32], files[32];
		const char *const cells[] = {
			snap->id,
			snap->type,
			text_age(age, snap->created_ns, now),
			files,
			text_size(size, snap->bytes),
			text_size(stored, snap->stored_bytes),
			snap->label == NULL ? "" : snap->label,
			NULL,
		};

		snprintf(files, sizeof files, "%" PRIu64, snap->files);
		table_add(table, cells);
	}
	return table_print(table, app->color, err);
}

int
cmd_snapshot_list(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_RUN struct run *run = NULL;
	AUTO_SNAP_LIST struct snap_list list = {0};

	if (open_chosen(app, args, &workspace, &run, err) < 0 ||
	    snap_list(workspace, &list, err) < 0)
		return -1;
	if (app->json)
		return print_json_list(&list, err);
	if (list.count > 0)
		return print_table(app, &list, err);
	log_notice("no snapshots of %s", workspace->path);
	return 0;
}

static int
show_json(const struct snap *snap, const struct manifest *manifest, struct moat_error *err)
{
	AUTO_JSON json_t *json = snap_json(snap);
	AUTO_JSON json_t *skips = json_array();

	if (json == NULL || skips == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < manifest->skip_count; i++) {
		const struct manifest_skip *skip = &manifest->skips[i];
		AUTO_JSON json_t *item = json_object();

		if (item == NULL ||
		    json_put_bytes(item, "path", skip->path, strlen(skip->path)) < 0 ||
		    json_put_text(item, "reason", skip_text(skip->reason)) < 0 ||
		    json_put_text(item, "detail", skip->detail) < 0 ||
		    json_array_append(skips, item) < 0)
			return moat_fail_memory(err);
	}
	if (json_put_new(json, "skipped_paths", json_incref(skips)) < 0)
		return moat_fail_memory(err);
	return json_print(json, false, err);
}

static void
show_field(const char *name, const char *value)
{
	out("%-12s ", name);
	out_escaped(value);
	out("\n");
}

static void
show_text(const struct snap *snap, const struct manifest *manifest)
{
	char when[40], size[32], stored[32];

	show_field("id", snap->id);
	show_field("type", snap->type);
	if (snap->label != NULL)
		show_field("label", snap->label);
	show_field("workspace", snap->workspace);
	if (snap->run != NULL)
		show_field("run", snap->run);
	show_field("created", text_time(when, snap->created_ns));
	show_field("backend", snap->backend);
	if (snap->parent != NULL)
		show_field("parent", snap->parent);
	out("%-12s %" PRIu64 ", %s; %s added to the store\n", "files", snap->files,
	    text_size(size, snap->bytes), text_size(stored, snap->stored_bytes));
	for (size_t i = 0; i < manifest->skip_count; i++) {
		out("%-12s ", i == 0 ? "skipped" : "");
		out_escaped(manifest->skips[i].path);
		out(": %s (", skip_text(manifest->skips[i].reason));
		out_escaped(manifest->skips[i].detail);
		out(")\n");
	}
}

int
cmd_snapshot_show(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_SNAP struct snap *snap = NULL;
	AUTO_MANIFEST struct manifest *manifest = NULL;

	if (open_home(app, err) < 0 || snap_find(app->home, args_at(args, 0), &snap, err) < 0 ||
	    snap_manifest(app->home, snap, &manifest, err) < 0)
		return -1;
	if (app->json)
		return show_json(snap, manifest, err);
	show_text(snap, manifest);
	return 0;
}

/* ------------------------------------------------------------------------------------------ diff
 */

/* The other side of a diff: a second snapshot, or the live tree through the eyes of the first. */
static int
load_other(struct app *app, const struct args *args, const struct snap *snap,
	   const struct manifest *manifest, struct manifest **ret, struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_SNAP struct snap *other = NULL;

	if (args_at(args, 1) != NULL) {
		if (snap_find(app->home, args_at(args, 1), &other, err) < 0)
			return -1;
		return snap_manifest(app->home, other, ret, err);
	}
	if (workspace_open_known(app->home, snap->workspace_hash, &workspace, err) < 0)
		return -1;
	if (workspace->fd < 0)
		return moat_fail(err, MOAT_NOT_FOUND, "the workspace `%s' is not there any more",
				 workspace->path);
	return snap_live(workspace, manifest, ret, err);
}

int
cmd_snapshot_diff(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_SNAP struct snap *snap = NULL;
	AUTO_MANIFEST struct manifest *manifest = NULL, *other = NULL;
	AUTO_JSON json_t *array = app->json ? json_array() : NULL;
	struct diff_printer printer = {app, array};

	if (app->json && array == NULL)
		return moat_fail_memory(err);
	if (open_home(app, err) < 0 || snap_find(app->home, args_at(args, 0), &snap, err) < 0 ||
	    snap_manifest(app->home, snap, &manifest, err) < 0 ||
	    load_other(app, args, snap, manifest, &other, err) < 0 ||
	    diff_manifests(manifest, other, diff_print_item, &printer, err) < 0)
		return -1;
	return app->json ? json_print(array, false, err) : 0;
}

/* --------------------------------------------------------------------------- restore, rollback */

/* PATHs are given relative to the workspace; "./x/" is as good as "x". */
static char *
clean_path(const char *path, struct moat_error *err)
{
	AUTO_BUF struct buf clean = {0};

	if (path[0] == '/') {
		moat_fail(err, MOAT_USAGE,
			  "PATH `%s' is absolute; give it relative to the workspace", path);
		return NULL;
	}
	while (*path != '\0') {
		size_t n = strcspn(path, "/");

		if (n == 2 && path[0] == '.' && path[1] == '.') {
			moat_fail(err, MOAT_USAGE, "PATH must not contain `..'");
			return NULL;
		}
		if (n > 0 && !(n == 1 && path[0] == '.')) {
			if (clean.size > 0)
				buf_append(&clean, "/", 1);
			buf_append(&clean, path, n);
		}
		path += n + (path[n] == '/');
	}
	if (buf_check(&clean, err) < 0)
		return NULL;
	return buf_steal(&clean);
}

static void
free_paths(char ***paths)
{
	for (size_t i = 0; *paths != NULL && (*paths)[i] != NULL; i++)
		free((*paths)[i]);
	free(*paths);
}

int
cmd_snapshot_restore(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_SNAP struct snap *snap = NULL;
	CLEANUP(free_paths) char **paths = calloc((size_t) args_size(args) + 1, sizeof(*paths));
	struct restore_options options = {
		.to = args_value(args, "to"),
		.dry_run = args_flag(args, "dry-run"),
		.no_safety = args_flag(args, "no-safety"),
	};

	if (paths == NULL)
		return moat_fail_memory(err);
	for (int i = 1; i < args_size(args); i++) {
		paths[i - 1] = clean_path(args_at(args, i), err);
		if (paths[i - 1] == NULL)
			return -1;
	}
	options.paths = (const char *const *) paths;
	if (open_home(app, err) < 0 || snap_find(app->home, args_at(args, 0), &snap, err) < 0)
		return -1;
	return restore_snapshot(app, snap, &options, err);
}

/* The newest snapshot of the workspace that is not a safety snapshot; it is printed, since nobody
 * named it. */
static int
find_default(struct app *app, const struct run *run, struct snap **ret, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list list = {0};

	/* By its path, for it may be gone: `--to' still works then. */
	if (snap_list_all(app->home, &list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++) {
		char age[32];

		if (strcmp(list.items[i]->type, "safety") == 0 ||
		    strcmp(list.items[i]->workspace, run->workspaces[0]) != 0)
			continue;
		*ret = STEAL(list.items[i]);
		log_notice("using %s, the newest snapshot of %s (%s, %s)", (*ret)->id,
			   run->workspaces[0], (*ret)->type,
			   text_age(age, (*ret)->created_ns, time_now_ns()));
		if ((*ret)->run == NULL || strcmp((*ret)->run, run->id) != 0)
			log_warning(
				"that snapshot is not one of %s; `moat snapshot list %s' shows all",
				run->id, run->id);
		return 0;
	}
	return moat_fail(err, MOAT_NOT_FOUND, "there is no snapshot of `%s' to go back to",
			 run->workspaces[0]);
}

int
cmd_rollback(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_RUN struct run *run = NULL;
	AUTO_SNAP struct snap *snap = NULL;
	struct restore_options options = {
		.to = args_value(args, "to"),
		.dry_run = args_flag(args, "dry-run"),
	};

	if (open_home(app, err) < 0 || run_find(app->home, args_at(args, 0), &run, err) < 0)
		return -1;
	if (options.to == NULL && !options.dry_run && run_is_living(run))
		log_warning("run %s still runs and may change the workspace again", run->id);
	if (args_at(args, 1) == NULL) {
		if (find_default(app, run, &snap, err) < 0)
			return -1;
	} else {
		if (snap_find(app->home, args_at(args, 1), &snap, err) < 0)
			return -1;
		if (strcmp(snap->workspace, run->workspaces[0]) != 0)
			return moat_fail(
				err, MOAT_USAGE,
				"snapshot %s is one of `%s', not of the workspace of %s; `moat "
				"snapshot restore' takes any",
				snap->id, snap->workspace, run->id);
	}
	return restore_snapshot(app, snap, &options, err);
}

/* ------------------------------------------------------------------------------- delete, verify
 */

/* A verification: what it finds, for people or into arrays. */
struct verification {
	struct app *app;
	struct snap_verifier *verifier;
	json_t *results;
	uint64_t looked_at, damaged;
	/* Of the snapshot at hand. */
	const char *id;
	json_t *array;
	uint64_t count;
	bool failed;
};

static void
note_damage(void *context, const char *path, const char *why)
{
	struct verification *v = context;
	AUTO_JSON json_t *item = NULL;

	v->count++;
	if (v->array == NULL) {
		out("%s ", v->id);
		out_escaped(path);
		out(": ");
		out_escaped(why);
		out("\n");
		return;
	}
	item = json_object();
	if (item == NULL || json_put_text(item, "path", path) < 0 ||
	    json_put_text(item, "reason", why) < 0 || json_array_append(v->array, item) < 0)
		v->failed = true;
}

static void
begin_result(struct verification *v, const char *id)
{
	v->id = id;
	v->count = 0;
	v->array = v->app->json ? json_array() : NULL;
	v->failed = v->failed || (v->app->json && v->array == NULL);
}

static void
end_result(struct verification *v)
{
	AUTO_JSON json_t *result = NULL;

	v->looked_at++;
	v->damaged += v->count > 0;
	if (!v->app->json) {
		if (v->count == 0)
			log_notice("%s is whole", v->id);
		return;
	}
	result = json_object();
	if (result == NULL || json_put_text(result, "id", v->id) < 0 ||
	    json_put_bool(result, "ok", v->count == 0) < 0 ||
	    json_put_new(result, "damaged", STEAL(v->array)) < 0 ||
	    json_array_append(v->results, result) < 0)
		v->failed = true;
}

/* A record that cannot even be read. */
static void
note_unreadable(void *context, const char *id, const char *why)
{
	struct verification *v = context;

	begin_result(v, id);
	note_damage(v, "", why);
	end_result(v);
}

static bool
is_gone(const struct app *app, const char *id)
{
	AUTO_SNAP struct snap *snap = NULL;
	struct moat_error why = MOAT_ERROR_INIT;

	return snap_find(app->home, id, &snap, &why) < 0 && why.code == MOAT_NOT_FOUND;
}

/* A snapshot that cannot be looked at is damaged as a whole: path "". */
static int
verify_one(struct verification *v, const struct snap *snap, bool named, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;

	begin_result(v, snap->id);
	if (snap_verify(v->verifier, snap, note_damage, v, &why) < 0) {
		bool gone = why.code == MOAT_NOT_FOUND && is_gone(v->app, snap->id);

		if (gone || (why.code != MOAT_CORRUPT && why.code != MOAT_NOT_FOUND)) {
			json_decref(STEAL(v->array));
			/* Somebody deleted it meanwhile. */
			return gone && !named ? 0
					      : moat_error_set(err, why.code, why.sys_errno, "%s",
							       why.message);
		}
		note_damage(v, "", why.message);
	}
	end_result(v);
	return 0;
}

/* Those named, else all of the workspace here. */
static int
chosen_snapshots(struct verification *v, const struct args *args, struct snap_list *ret,
		 struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	struct app *app = v->app;

	if (args_size(args) == 0) {
		if (workspace_open(app->home, NULL, &workspace, err) < 0)
			return -1;
		return snap_list_with(workspace, ret, note_unreadable, v, err);
	}
	ret->items = calloc((size_t) args_size(args), sizeof(*ret->items));
	if (ret->items == NULL)
		return moat_fail_memory(err);
	for (int i = 0; i < args_size(args); i++) {
		if (snap_find(app->home, args_at(args, i), &ret->items[i], err) < 0)
			return -1;
		ret->count++;
	}
	return 0;
}

int
cmd_snapshot_verify(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list list = {0};
	AUTO_JSON json_t *results = json_array();
	AUTO_SNAP_VERIFIER struct snap_verifier *verifier = snap_verifier_new(app);
	struct verification v = {.app = app, .verifier = verifier, .results = results};

	if (results == NULL || verifier == NULL)
		return moat_fail_memory(err);
	if (open_home(app, err) < 0 || chosen_snapshots(&v, args, &list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++)
		if (verify_one(&v, list.items[i], args_size(args) > 0, err) < 0)
			return -1;
	if (v.failed)
		return moat_fail_memory(err);
	if (app->json && json_print(results, false, err) < 0)
		return -1;
	if (v.damaged > 0)
		return moat_fail(err, MOAT_CORRUPT,
				 "%" PRIu64 " of %" PRIu64
				 " snapshots are damaged; `moat recover' makes records again where "
				 "the store is whole; take a new snapshot of what matters, and "
				 "delete the others",
				 v.damaged, v.looked_at);
	return 0;
}

int
cmd_snapshot_delete(struct app *app, const struct args *args, struct moat_error *err)
{
	if (open_home(app, err) < 0)
		return -1;
	/* All names first: a typo in the last must not be found after the first is gone. */
	for (int i = 0; i < args_size(args); i++) {
		AUTO_SNAP struct snap *snap = NULL;

		if (snap_find(app->home, args_at(args, i), &snap, err) < 0)
			return -1;
	}
	for (int i = 0; i < args_size(args); i++) {
		AUTO_SNAP struct snap *snap = NULL;

		if (snap_find(app->home, args_at(args, i), &snap, err) < 0 ||
		    snap_delete(app, snap, err) < 0)
			return -1;
		log_notice("deleted %s", snap->id);
	}
	return 0;
}

/* ----------------------------------------------------------------------------------------- prune
 */

/* What the command line says, or else the configuration. */
static int
find_limits(const struct args *args, const struct config *config, struct snap_limits *ret,
	    struct moat_error *err)
{
	const char *keep = args_value(args, "keep"), *max_bytes = args_value(args, "max-bytes");

	*ret = (struct snap_limits){.keep = -1, .drop_initial = config->snapshots.delete_initial};
	if (keep != NULL && text_parse_int(keep, 1, INT64_MAX, &ret->keep, err) < 0)
		return moat_wrap(err, "--keep");
	if (max_bytes != NULL && text_parse_size(max_bytes, &ret->max_bytes, err) < 0)
		return moat_wrap(err, "--max-bytes");
	if (max_bytes != NULL && ret->max_bytes == 0)
		return moat_fail(err, MOAT_USAGE, "--max-bytes: 0 would keep nothing");
	if (keep != NULL || max_bytes != NULL)
		return 0;
	if (config->snapshots.max_count > 0)
		ret->keep = config->snapshots.max_count;
	ret->max_bytes = config->snapshots.max_bytes;
	if (ret->keep > 0 || ret->max_bytes > 0)
		return 0;
	return moat_fail(err, MOAT_USAGE,
			 "give --keep or --max-bytes; moat.yaml has no limits either "
			 "(snapshots.retention)");
}

static int
print_pruned(struct app *app, const struct snap_list *list, bool dry_run, struct moat_error *err)
{
	if (app->json)
		return print_json_list(list, err);
	for (size_t i = 0; i < list->count; i++)
		out("%s\n", list->items[i]->id);
	if (list->count == 0)
		log_notice("nothing to delete");
	else
		log_notice("%s %zu snapshots", dry_run ? "would delete" : "deleted", list->count);
	return 0;
}

int
cmd_snapshot_prune(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_CONFIG struct config *config = NULL;
	AUTO_SNAP_LIST struct snap_list list = {0};
	bool dry_run = args_flag(args, "dry-run");
	struct snap_limits limits;

	if (open_home(app, err) < 0 ||
	    workspace_open(app->home, args_value(args, "workspace"), &workspace, err) < 0 ||
	    config_load(workspace->fd, workspace->path, app->config_path, &config, err) < 0 ||
	    find_limits(args, config, &limits, err) < 0 ||
	    (dry_run ? snap_choose(app, workspace, &limits, &list, err)
		     : snap_prune(app, workspace, &limits, &list, err)) < 0)
		return -1;
	return print_pruned(app, &list, dry_run, err);
}
