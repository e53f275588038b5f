/* SPDX-License-Identifier: Apache-2.0 */
/* `undo' and `recover'. */
#include <inttypes.h>

#include "core/cmd.h"
#include "core/json.h"
#include "core/log.h"
#include "core/restore.h"

int
cmd_undo(struct app *app, const struct args *args, struct moat_error *err)
{
	struct restore_options options = {.dry_run = args_flag(args, "dry-run")};

	if (app_home(app, err) < 0)
		return -1;
	return restore_undo(app, args_at(args, 0), &options, err);
}

int
cmd_recover(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_JSON json_t *json = NULL;

	(void) args;
	/* Opening the home does it; this command is for seeing the result. */
	if (app_home(app, err) < 0)
		return -1;
	if (app->json) {
		json = json_object();
		if (json == NULL ||
		    json_put_int(json, "completed", (int64_t) app->recovery.completed) < 0 ||
		    json_put_int(json, "undone", (int64_t) app->recovery.undone) < 0 ||
		    json_put_int(json, "failed", (int64_t) app->recovery.failed) < 0)
			return moat_fail_memory(err);
		if (json_print(json, false, err) < 0)
			return -1;
	} else if (app->recovery.completed + app->recovery.undone + app->recovery.failed == 0) {
		log_notice("nothing was interrupted");
	}
	if (app->recovery.failed > 0)
		return moat_fail(err, MOAT_FAILED,
				 "%" PRIu64 " interrupted transactions could not be completed",
				 app->recovery.failed);
	return 0;
}
