/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands and options: parsing, --help and `help` come from it, man pages and
 * completions are compared with it.  core/commands.c holds the table, core/cmd_NAME.c the commands.
 */
#ifndef MOAT_CORE_COMMAND_H
#define MOAT_CORE_COMMAND_H

#include <stdbool.h>
#include <stdio.h>

#include "core/config.h"
#include "core/home.h"
#include "core/loader.h"
#include "core/txn.h"

enum option_kind {
	OPTION_FLAG,    /* --name */
	OPTION_COUNT,   /* -v -v */
	OPTION_VALUE,   /* --name=V, --name V, -nV, -n V; the last one wins */
	OPTION_LIST,    /* the same, repeatable */
	OPTION_OPTIONAL /* --name or --name=V; -i, -i=V */
};

struct option_spec {
	const char *name; /* without dashes */
	char letter;      /* 0: none */
	enum option_kind kind;
	const char *argument;       /* "DIR"; NULL for flags */
	const char *const *choices; /* NULL-terminated: the only values; NULL: any */
	const char *help;           /* one line, no period */
};

struct args;
struct app;

struct command {
	const char *name;
	const char *alias;                 /* another name at the top level, or NULL ("ps") */
	const char *parent;                /* "snapshot" for `snapshot create`; NULL */
	const char *synopsis;              /* after the name: "[OPTION]... RUN" */
	const char *summary;               /* one line, no period */
	const char *description;           /* a few lines for --help; NULL */
	const struct option_spec *options; /* ended by name NULL; NULL: none but the global ones */
	int min_arguments, max_arguments;  /* positional; max -1: any number */
	bool takes_command; /* `-- CMD...`: what follows "--" is a command line, kept apart */
	bool hidden;
	/* Returns the exit status; -1 stands for status_of(err).  Failures are set in *err and
	 * reported by main.  NULL: a parent that needs a subcommand. */
	int (*run)(struct app *app, const struct args *args, struct moat_error *err);
};

extern const struct command commands[]; /* ended by name NULL */
extern const struct option_spec global_options[];

/* What main() prepared.  home and loader are opened on first use by app_home(), app_loader(). */
struct app {
	const char *home_path, *config_path; /* --home, --config */
	const char *const *plugin_dirs;      /* --plugin-dir, NULL-terminated */
	const char *const *backends;         /* --backend, NULL-terminated */
	bool json, color;
	unsigned umask; /* the caller's, for what a run makes; moat's own is 077 */
	struct home *home;
	struct txn_recovery recovery; /* what opening the home completed */
	struct loader *loader;
};

int app_home(struct app *app,
	     struct moat_error *err); /* opens app->home and completes interrupted transactions */
int app_loader(struct app *app,
	       struct moat_error *err); /* opens app->loader and warns about bad plugins */

/* Parsed arguments.  Names are those of the table; asking for one that the table lacks is a bug
 * (assert). */
bool args_flag(const struct args *args, const char *name);
int args_count(const struct args *args, const char *name);
const char *args_value(const struct args *args, const char *name); /* NULL: not given */
const char *const *
args_list(const struct args *args, const char *name); /* NULL-terminated, never NULL */
bool args_given(const struct args *args, const char *name);
int args_size(const struct args *args);                  /* positional arguments */
const char *args_at(const struct args *args, int index); /* NULL past the end */
const char *const *
args_command(const struct args *args); /* after "--", NULL-terminated; NULL: no "--" */

/* Parses argv.  *ret_command is NULL when only global options were given (--version, --help). */
int args_parse(int argc, char **argv, const struct command **ret_command, struct args **ret,
	       struct moat_error *err);
void args_free(struct args *args);

/* Help on stdout; moat's own also on stderr. */
int help_main(FILE *stream, struct moat_error *err);
int help_command(const struct command *command, struct moat_error *err);
const struct command *command_find(const char *name, const char *sub);

/* The exit status that an error code stands for: 1, 2 or 3 (125-127 are run's business). */
int status_of(const struct moat_error *err);

#endif
