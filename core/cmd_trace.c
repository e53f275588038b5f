/* SPDX-License-Identifier: Apache-2.0 */
/* moat trace: what a run executed. */
#include <unistd.h>

#include "common/cleanup.h"
#include "core/cmd.h"
#include "core/run.h"
#include "core/trace.h"

struct followed {
	const struct home *home;
	const char *id;
};

/* A record that cannot be read any more is that of a run that is gone. */
static bool
still_running(void *context)
{
	const struct followed *followed = context;
	AUTO_RUN struct run *run = NULL;

	return run_load(followed->home, followed->id, &run, NULL) == 0 && run_is_living(run);
}

int
cmd_trace(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_RUN struct run *run = NULL;
	AUTO_CLOSE int dirfd = -1;
	struct followed followed;
	struct trace_view view = {
		.json = app->json,
		.tree = args_flag(args, "tree"),
		.follow = args_flag(args, "follow"),
		.color = app->color,
		.still_running = still_running,
		.context = &followed,
	};

	if (view.tree && view.follow)
		return moat_fail(err, MOAT_USAGE,
				 "--tree shows what a run has done so far: leave out --follow");
	if (app_home(app, err) < 0 || run_find(app->home, args_at(args, 0), &run, err) < 0)
		return -1;
	dirfd = run_directory(app->home, run->id, err);
	if (dirfd < 0)
		return -1;
	followed = (struct followed){app->home, run->id};
	if (trace_print(dirfd, &view, err) < 0)
		return moat_wrap(err, "trace of %s", run->id);
	return 0;
}
