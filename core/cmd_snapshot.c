/* SPDX-License-Identifier: Apache-2.0 */
/* `snapshot create', `list', `show' and `diff'. */
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

typedef int
open_fn(const struct home *home, const char *path, struct workspace **ret, struct moat_error *err);

/* The workspace of RUN, of --workspace, or the current directory; open: workspace_open() or
 * workspace_look(). */
static int
open_chosen(struct app *app, const struct args *args, open_fn *open, struct workspace **ret,
	    struct run **ret_run, struct moat_error *err)
{
	const char *name = args_at(args, 0), *directory = args_value(args, "workspace");

	if (snap_open_home(app, err) < 0)
		return -1;
	if (name == NULL)
		return open(app->home, directory, ret, err);
	if (directory != NULL)
		return moat_fail(err, MOAT_USAGE, "give either RUN or --workspace, not both");
	if (run_find(app->home, name, ret_run, err) < 0)
		return -1;
	return open(app->home, (*ret_run)->workspaces[0], ret, err);
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

	if (open_chosen(app, args, workspace_open, &workspace, &run, err) < 0 ||
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

int
cmd_print_snaps(const struct snap_list *list, struct moat_error *err)
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

	if (open_chosen(app, args, workspace_look, &workspace, &run, err) < 0 ||
	    snap_list(workspace, &list, err) < 0)
		return -1;
	if (app->json)
		return cmd_print_snaps(&list, err);
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

	if (snap_open_home(app, err) < 0 ||
	    snap_find(app->home, args_at(args, 0), &snap, err) < 0 ||
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
	if (snap_open_home(app, err) < 0 ||
	    snap_find(app->home, args_at(args, 0), &snap, err) < 0 ||
	    snap_manifest(app->home, snap, &manifest, err) < 0 ||
	    load_other(app, args, snap, manifest, &other, err) < 0 ||
	    diff_manifests(manifest, other, diff_print_item, &printer, err) < 0)
		return -1;
	return app->json ? json_print(array, false, err) : 0;
}
