/* SPDX-License-Identifier: Apache-2.0 */
/* `undo' and `recover'. */
#include <inttypes.h>

#include "core/cmd.h"
#include "core/json.h"
#include "core/log.h"
#include "core/restore.h"
#include "core/snap.h"

int
cmd_undo(struct app *app, const struct args *args, struct moat_error *err)
{
	struct restore_options options = {.dry_run = args_flag(args, "dry-run")};

	if (app_home(app, err) < 0)
		return -1;
	return restore_undo(app, args_at(args, 0), &options, err);
}

/* Opening the home has completed the transactions. */
static int
print_recovery(struct app *app, const struct snap_recovery *snapshots, struct moat_error *err)
{
	AUTO_JSON json_t *json = NULL;

	if (!app->json) {
		if (app->recovery.completed + app->recovery.undone + app->recovery.failed +
			    snapshots->cleared + snapshots->rebuilt + snapshots->failed ==
		    0)
			log_notice("nothing was interrupted");
		if (snapshots->cleared > 0)
			log_notice("cleared away what %" PRIu64
				   " interrupted snapshots, deletions or imports had left",
				   snapshots->cleared);
		return 0;
	}
	json = json_object();
	if (json == NULL ||
	    json_put_int(json, "completed", (int64_t) app->recovery.completed) < 0 ||
	    json_put_int(json, "undone", (int64_t) app->recovery.undone) < 0 ||
	    json_put_int(json, "failed", (int64_t) app->recovery.failed) < 0 ||
	    json_put_int(json, "snapshots_cleared", (int64_t) snapshots->cleared) < 0 ||
	    json_put_int(json, "snapshots_rebuilt", (int64_t) snapshots->rebuilt) < 0 ||
	    json_put_int(json, "snapshots_failed", (int64_t) snapshots->failed) < 0)
		return moat_fail_memory(err);
	return json_print(json, false, err);
}

int
cmd_recover(struct app *app, const struct args *args, struct moat_error *err)
{
	struct snap_recovery snapshots = {0};

	(void) args;
	if (app_home(app, err) < 0 || snap_recover(app, &snapshots, err) < 0 ||
	    print_recovery(app, &snapshots, err) < 0)
		return -1;
	if (app->recovery.failed > 0)
		return moat_fail(err, MOAT_FAILED,
				 "%" PRIu64 " interrupted transactions could not be completed",
				 app->recovery.failed);
	if (snapshots.failed > 0)
		return moat_fail(err, MOAT_FAILED,
				 "the snapshots of %" PRIu64
				 " workspaces could not be put in order",
				 snapshots.failed);
	return 0;
}
