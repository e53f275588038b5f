/* SPDX-License-Identifier: Apache-2.0 */
/* `snapshot restore' and `rollback'. */
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "core/cmd.h"
#include "core/log.h"
#include "core/restore.h"
#include "core/run.h"
#include "core/snap.h"

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
	if (snap_open_home(app, err) < 0 || snap_find(app->home, args_at(args, 0), &snap, err) < 0)
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

	if (snap_open_home(app, err) < 0 || run_find(app->home, args_at(args, 0), &run, err) < 0)
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
