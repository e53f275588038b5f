/* SPDX-License-Identifier: Apache-2.0 */
/* `snapshot verify', `delete' and `prune'. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "core/cmd.h"
#include "core/log.h"
#include "core/snap.h"
#include "core/terminal.h"

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
		if (workspace_look(app->home, NULL, &workspace, err) < 0)
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
	if (snap_open_home(app, err) < 0 || chosen_snapshots(&v, args, &list, err) < 0)
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
	if (snap_open_home(app, err) < 0)
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
		return cmd_print_snaps(list, err);
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

	if (snap_open_home(app, err) < 0 ||
	    workspace_look(app->home, args_value(args, "workspace"), &workspace, err) < 0 ||
	    config_load(workspace->fd, workspace->path, app->config_path, &config, err) < 0 ||
	    find_limits(args, config, &limits, err) < 0)
		return -1;
	if (workspace->state_fd >= 0 &&
	    (dry_run ? snap_choose(app, workspace, &limits, &list, err)
		     : snap_prune(app, workspace, &limits, &list, err)) < 0)
		return -1;
	return print_pruned(app, &list, dry_run, err);
}
