/* SPDX-License-Identifier: Apache-2.0 */
/* moat: from the command line to an exit status. */
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/args.h"
#include "core/cmd.h"
#include "core/log.h"
#include "core/terminal.h"

/* A file that is opened must never become descriptor 0, 1 or 2.  Input that was closed is at its
 * end; writing to output that was closed is an error, as it would be without this.  (The standard
 * streams are the ones that are not O_CLOEXEC.) */
static bool
open_standard_streams(void)
{
	static const int flags[] = {O_RDONLY, O_RDONLY, O_WRONLY};

	for (int fd = 0; fd < 3; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", flags[fd] | O_NOCTTY) != fd)
			return false;
	}
	return true;
}

/* Only what tells the width of characters; names are bytes, so a locale that is not UTF-8 is
 * replaced by one that is. */
static void
set_locale(void)
{
	if (setlocale(LC_CTYPE, "") == NULL || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		(void) setlocale(LC_CTYPE, "C.UTF-8");
}

/* Neither fails with these arguments.  A run's command gets SIGPIPE and app->umask back. */
static void
set_process_state(struct app *app)
{
	struct sigaction ignore = {.sa_handler = SIG_IGN};

	(void) sigaction(SIGPIPE, &ignore, NULL);
	(void) sigaction(SIGXFSZ, &ignore, NULL);
	app->umask = umask(077);
}

static int
run(struct app *app, const struct command *command, const struct args *args, struct moat_error *err)
{
	if (app_open(app, args, err) < 0)
		return -1;
	if (args_flag(args, "help"))
		return command != NULL ? help_command(command, err) : help_main(stdout, err);
	if (args_flag(args, "version"))
		return cmd_version(app, args, err);
	if (command != NULL)
		return command->run(app, args, err);
	if (help_main(stderr, err) < 0)
		return -1;
	return 2;
}

int
main(int argc, char **argv)
{
	struct app app = {0};
	const struct command *command = NULL;
	struct args *args = NULL;
	struct moat_error err = MOAT_ERROR_INIT, write_err = MOAT_ERROR_INIT;
	int status = -1;

	if (!open_standard_streams())
		return 125;
	set_locale();
	set_process_state(&app);
	if (args_parse(argc, argv, &command, &args, &err) == 0)
		status = run(&app, command, args, &err);
	if (err.code != MOAT_OK) {
		log_failure(&err);
		if (status <= 0)
			status = status_of(&err);
	}
	if (stdout_check(&write_err) < 0) {
		/* Once is enough when that was the command's own failure. */
		if (strcmp(err.message, write_err.message) != 0)
			log_failure(&write_err);
		if (status == 0)
			status = status_of(&write_err);
	}
	app_close(&app);
	args_free(args);
	return status < 0 ? 1 : status;
}
