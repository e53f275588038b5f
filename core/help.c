/* SPDX-License-Identifier: Apache-2.0 */
/* --help, made from the table of commands: at most 80 columns. */
#include <ctype.h>
#include <string.h>

#include "common/text.h"
#include "core/args.h"
#include "core/cmd.h"
#include "core/terminal.h"

#define WIDTH 80
#define LEFT_MAX 28 /* a left column that is wider has its text on the next line */

/* Appends words from column `at` on; the lines that follow begin at `indent`.  A newline in the
 * text begins a line. */
static void
wrap(struct buf *out, const char *text, size_t at, size_t indent)
{
	while (*text != '\0') {
		size_t length = strcspn(text, " \n");
		bool first = at == indent;

		if (!first && at + 1 + length > WIDTH) {
			buf_format(out, "\n%*s", (int) indent, "");
			at = indent;
		} else if (!first) {
			buf_string(out, " ");
			at++;
		}
		buf_append(out, text, length);
		at += length;
		text += length;
		if (*text == '\n') {
			buf_format(out, "\n%*s", (int) indent, "");
			at = indent;
		}
		text += *text != '\0';
	}
	buf_string(out, "\n");
}

/* Two columns: "  left   text", the text at column `indent`. */
static void
entry(struct buf *out, const char *left, const char *text, size_t indent)
{
	size_t used = strlen(left);

	buf_string(out, left);
	if (used + 2 > indent) {
		buf_string(out, "\n");
		used = 0;
	}
	buf_format(out, "%*s", (int) (indent - used), "");
	wrap(out, text, indent, indent);
}

/* "  -n, --lines=N" */
static void
option_left(const struct option_spec *option, struct buf *out)
{
	if (option->letter != 0)
		buf_format(out, "  -%c, --%s", option->letter, option->name);
	else
		buf_format(out, "      --%s", option->name);
	if (option->kind == OPTION_OPTIONAL)
		buf_format(out, "[=%s]", option->argument);
	else if (option->argument != NULL)
		buf_format(out, "=%s", option->argument);
}

static void
options_text(struct buf *out, const struct option_spec *options)
{
	for (; options->name != NULL; options++) {
		AUTO_BUF struct buf left = {0};

		option_left(options, &left);
		if (buf_check(&left, NULL) == 0)
			entry(out, left.data, options->help, LEFT_MAX);
		else
			out->failed = 1;
	}
}

/* "snapshot list (snapshots)" */
static void
command_left(const struct command *command, struct buf *out)
{
	char title[64];

	buf_format(out, "  %s", command_title(command, title));
	if (command->alias != NULL)
		buf_format(out, " (%s)", command->alias);
}

/* All commands that can be run (parent NULL), or the subcommands of one. */
static void
commands_text(struct buf *out, const char *parent)
{
	for (const struct command *c = commands; c->name != NULL; c++) {
		AUTO_BUF struct buf left = {0};

		if (c->hidden || (parent == NULL && c->run == NULL) ||
		    (parent != NULL && (c->parent == NULL || strcmp(c->parent, parent) != 0)))
			continue;
		command_left(c, &left);
		if (buf_check(&left, NULL) == 0)
			entry(out, left.data, c->summary, LEFT_MAX + 2);
		else
			out->failed = 1;
	}
}

/* The summary as a sentence. */
static void
sentence(struct buf *out, const char *text)
{
	AUTO_BUF struct buf line = {0};

	buf_format(&line, "%c%s.", toupper((unsigned char) text[0]), text + 1);
	if (buf_check(&line, NULL) == 0)
		wrap(out, line.data, 0, 0);
	else
		out->failed = 1;
}

void
help_main_text(struct buf *out)
{
	buf_string(out, "Usage: moat [OPTION]... COMMAND [ARGUMENT]...\n\n");
	wrap(out,
	     "Runs a coding agent, or any command, isolated against a workspace that can be rolled "
	     "back.",
	     0, 0);
	buf_string(out, "\nCommands:\n");
	commands_text(out, NULL);
	buf_string(out, "\nOptions, before or after the command:\n");
	options_text(out, global_options);
	buf_string(out, "\n");
	wrap(out, "`moat COMMAND --help' tells more about a command.", 0, 0);
}

void
help_command_text(const struct command *command, struct buf *out)
{
	char title[64];

	buf_format(out, "Usage: moat %s %s\n\n", command_title(command, title), command->synopsis);
	sentence(out, command->summary);
	if (command->description != NULL) {
		buf_string(out, "\n");
		wrap(out, command->description, 0, 0);
	}
	if (command_is_parent_in(commands, command)) {
		buf_string(out, "\nSubcommands:\n");
		commands_text(out, command->name);
	}
	if (command->options != NULL) {
		buf_string(out, "\nOptions:\n");
		options_text(out, command->options);
	}
	buf_string(out, "\nOptions of every command:\n");
	options_text(out, global_options);
}

static int
print(struct buf *text, FILE *stream, struct moat_error *err)
{
	if (buf_check(text, err) < 0)
		return -1;
	(void) fputs(text->data, stream); /* stdout is checked by main(); stderr by nobody */
	return 0;
}

int
help_main(FILE *stream, struct moat_error *err)
{
	AUTO_BUF struct buf text = {0};

	help_main_text(&text);
	return print(&text, stream, err);
}

int
help_command(const struct command *command, struct moat_error *err)
{
	AUTO_BUF struct buf text = {0};

	help_command_text(command, &text);
	return print(&text, stdout, err);
}

int
cmd_help(struct app *app, const struct args *args, struct moat_error *err)
{
	const char *name = args_at(args, 0), *sub = args_at(args, 1);
	const struct command *command;
	char words[256];

	if (name == NULL)
		return help_main(stdout, err);
	command = command_find(name, sub);
	if (command != NULL)
		return help_command(command, err);
	(void) snprintf(words, sizeof words, "%s%s%s", name, sub != NULL ? " " : "",
			sub != NULL ? sub : "");
	return moat_fail(err, MOAT_USAGE, "there is no command `%s'; see `moat --help'", words);
}
