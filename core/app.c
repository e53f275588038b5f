/* SPDX-License-Identifier: Apache-2.0 */
/* What commands share: the global options, the home, the plugins. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/args.h"
#include "core/log.h"
#include "core/scratch.h"

int
args_parse(int argc, char **argv, const struct command **ret_command, struct args **ret,
	   struct moat_error *err)
{
	return args_parse_table(commands, global_options, argc, argv, ret_command, ret, err);
}

const struct command *
command_find(const char *name, const char *sub)
{
	return command_find_in(commands, name, sub);
}

int
status_of(const struct moat_error *err)
{
	switch (err->code) {
	case MOAT_OK:
		return 0;
	case MOAT_USAGE:
		return 2;
	case MOAT_CONFLICT:
		return 3;
	default:
		return 1;
	}
}

/* --color, else $NO_COLOR (set and not empty), else whether a terminal that has colours reads. */
static bool
wants_color(const char *when)
{
	const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");

	if (when != NULL && strcmp(when, "auto") != 0)
		return strcmp(when, "always") == 0;
	if (no_color != NULL && no_color[0] != '\0')
		return false;
	return isatty(STDOUT_FILENO) == 1 && terminal != NULL && strcmp(terminal, "dumb") != 0;
}

int
app_open(struct app *app, const struct args *args, struct moat_error *err)
{
	if (args_flag(args, "quiet") && args_flag(args, "verbose"))
		return moat_fail(err, MOAT_USAGE, "--quiet and --verbose exclude each other");
	log_set_level(args_flag(args, "quiet") ? -1 : args_count(args, "verbose"));
	app->home_path = args_value(args, "home");
	app->config_path = args_value(args, "config");
	app->plugin_dirs = args_list(args, "plugin-dir");
	app->backends = args_list(args, "backend");
	app->json = args_flag(args, "json");
	app->color = wants_color(args_value(args, "color"));
	return 0;
}

void
app_close(struct app *app)
{
	if (app->loader != NULL)
		loader_close(app->loader);
	if (app->home != NULL)
		home_close(app->home);
	app->loader = NULL;
	app->home = NULL;
}

int
app_home(struct app *app, struct moat_error *err)
{
	struct home *home = NULL;

	if (app->home != NULL)
		return 0;
	if (home_open(app->home_path, &home, err) < 0)
		return -1;
	if (txn_recover(home, &app->recovery, err) < 0) {
		home_close(home);
		return moat_wrap(err, "completing what was interrupted");
	}
	scratch_clear(home);
	app->home = home;
	return 0;
}

int
app_loader(struct app *app, struct moat_error *err)
{
	if (app->loader != NULL)
		return 0;
	if (loader_open(app->plugin_dirs, &app->loader, err) < 0)
		return -1;
	loader_warn(app->loader);
	return 0;
}
