/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the command line's parser, for core/app.c, core/help.c and the tests. */
#ifndef MOAT_CORE_ARGS_H
#define MOAT_CORE_ARGS_H

#include "common/buf.h"
#include "core/command.h"

/* args_parse() over any table. */
int args_parse_table(const struct command *table, const struct option_spec *globals, int argc,
		     char **argv, const struct command **ret_command, struct args **ret,
		     struct moat_error *err);
/* command_find() over any table. */
const struct command *
command_find_in(const struct command *table, const char *name, const char *sub);
/* Whether it has subcommands. */
bool command_is_parent_in(const struct command *table, const struct command *command);
/* "run", "snapshot create". */
const char *command_title(const struct command *command, char out[64]);

/* The help as text. */
void help_main_text(struct buf *out);
void help_command_text(const struct command *command, struct buf *out);

/* main()'s steps around a command. */
int app_open(struct app *app, const struct args *args, struct moat_error *err);
void app_close(struct app *app);

#endif
