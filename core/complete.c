/* SPDX-License-Identifier: Apache-2.0 */
/* `complete': what a shell offers for the last of some words, from the table of commands and from
 * what there is.  The shells' functions (cmd_completion.c) only ask and show.
 *
 * A line for each candidate, "WORD" or "WORD<tab>DESCRIPTION"; ":files" and ":directories" ask the
 * shell for its own.  Nothing is written and nothing recovered, and what fails offers nothing. */
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "core/args.h"
#include "core/cmd.h"
#include "core/run.h"
#include "core/snap.h"
#include "core/terminal.h"

struct completion {
	struct app *app;
	const char *word;                   /* to be completed, perhaps "" */
	const char *before;                 /* the part of it that stays: "--color=", or "" */
	const struct command *command;      /* NULL: none yet */
	const struct option_spec *expected; /* the word before wants a value */
	int position;                       /* arguments before */
	bool after_dashes;                  /* within CMD... */
	bool lost;                          /* there is no such command */
};

static void
offer(const struct completion *c, const char *word, const char *end, const char *description)
{
	size_t skip = strlen(c->before);

	if (strncmp(word, c->word + skip, strlen(c->word) - skip) != 0)
		return;
	out("%s", c->before);
	out_escaped(word);
	out("%s", end);
	if (description != NULL && description[0] != '\0') {
		out("\t");
		out_escaped(description);
	}
	out("\n");
}

/* ------------------------------------------------------------------------------- what there is */

/* Only where there is one: a look must not make it. */
static bool
open_home(struct app *app)
{
	return app->home != NULL ||
	       (home_exists(app->home_path) && home_open(app->home_path, &app->home, NULL) == 0);
}

static void
offer_snapshots(const struct completion *c)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_SNAP_LIST struct snap_list list = {0};
	int64_t now = time_now_ns();

	if (!open_home(c->app) || workspace_look(c->app->home, NULL, &workspace, NULL) < 0 ||
	    snap_list(workspace, &list, NULL) < 0)
		return;
	for (size_t i = 0; i < list.count; i++) {
		const struct snap *snap = list.items[i];
		AUTO_BUF struct buf text = {0};
		char age[32];

		buf_format(&text, "%s, %s%s%s", snap->type, text_age(age, snap->created_ns, now),
			   snap->label == NULL ? "" : ", ", snap->label == NULL ? "" : snap->label);
		offer(c, snap->id, "", text.failed ? NULL : text.data);
	}
}

static void
offer_runs(const struct completion *c)
{
	AUTO_RUN_LIST struct run_list list = {0};

	if (!open_home(c->app) || run_list(c->app->home, &list, NULL) < 0)
		return;
	for (size_t i = 0; i < list.count; i++) {
		const struct run *run = list.items[i];

		if (run->name != NULL)
			offer(c, run->name, "", run->state);
		offer(c, run->id, "", run->state);
	}
}

static void
offer_plugins(const struct completion *c, bool with_kinds)
{
	if (app_loader(c->app, NULL) < 0)
		return;
	for (const struct plugin *p = c->app->loader->plugins; p != NULL; p = p->next) {
		AUTO_BUF struct buf name = {0};

		buf_format(&name, "%s%s", plugin_kind_text(p->kind), with_kinds ? ":" : "-");
		buf_string(&name, p->name);
		if (name.failed)
			continue;
		offer(c, p->name, "", p->description);
		offer(c, name.data, "", p->description);
	}
}

static void
offer_commands(const struct completion *c, const char *parent)
{
	for (const struct command *command = commands; command->name != NULL; command++) {
		bool inside = parent == NULL ? command->parent == NULL
					     : command->parent != NULL &&
						       strcmp(command->parent, parent) == 0;

		if (command->hidden)
			continue;
		if (inside)
			offer(c, command->name, "", command->summary);
		if (parent == NULL && command->alias != NULL)
			offer(c, command->alias, "", command->summary);
	}
}

/* ------------------------------------------------------------------------------------- options */

static void
offer_options(const struct completion *c, const struct option_spec *options)
{
	for (; options != NULL && options->name != NULL; options++) {
		bool wants_value = options->kind == OPTION_VALUE || options->kind == OPTION_LIST;
		AUTO_BUF struct buf word = {0};

		buf_format(&word, "--%s", options->name);
		if (!word.failed)
			offer(c, word.data, wants_value ? "=" : "", options->help);
	}
}

static void
offer_values(const struct completion *c, const struct option_spec *option)
{
	for (size_t i = 0; option->choices != NULL && option->choices[i] != NULL; i++)
		offer(c, option->choices[i], "", NULL);
	if (option->choices != NULL || option->argument == NULL)
		return;
	if (strcmp(option->argument, "DIR") == 0)
		out(":directories\n");
	else if (strcmp(option->argument, "FILE") == 0)
		out(":files\n");
	else if (strcmp(option->argument, "[KIND:]NAME") == 0)
		offer_plugins(c, true);
}

static const struct option_spec *
find_option(const struct option_spec *options, const char *name, size_t size, char letter)
{
	for (; options != NULL && options->name != NULL; options++)
		if (letter != 0 ? options->letter == letter
				: strncmp(options->name, name, size) == 0 &&
					  options->name[size] == '\0')
			return options;
	return NULL;
}

static const struct option_spec *
option_of(const struct completion *c, const char *name, size_t size, char letter)
{
	const struct option_spec *found =
		c->command == NULL ? NULL : find_option(c->command->options, name, size, letter);

	return found != NULL ? found : find_option(global_options, name, size, letter);
}

static bool
takes_value(const struct option_spec *option)
{
	return option != NULL && (option->kind == OPTION_VALUE || option->kind == OPTION_LIST);
}

/* ----------------------------------------------------------------------------------- the words */

static void
read_long_option(struct completion *c, const char *name)
{
	size_t size = strcspn(name, "=");
	const struct option_spec *option = option_of(c, name, size, 0);

	if (takes_value(option) && name[size] == '\0')
		c->expected = option;
}

/* "-vn", whose last letter may want a value. */
static void
read_letters(struct completion *c, const char *letters)
{
	for (; *letters != '\0'; letters++) {
		const struct option_spec *option = option_of(c, NULL, 0, *letters);

		if (!takes_value(option))
			continue;
		if (letters[1] == '\0')
			c->expected = option;
		return;
	}
}

static void
read_argument(struct completion *c, const char *word)
{
	const struct command *sub = NULL;

	if (c->command == NULL) {
		c->command = command_find(word, NULL);
		c->lost = c->command == NULL;
		return;
	}
	if (c->position == 0 && command_is_parent_in(commands, c->command))
		sub = command_find(c->command->name, word);
	if (sub != NULL)
		c->command = sub;
	else
		c->position++;
}

/* One before the word that is to be completed. */
static void
read_word(struct completion *c, const char *word)
{
	if (c->after_dashes)
		return;
	if (c->expected != NULL) {
		if (strcmp(c->expected->name, "home") == 0)
			c->app->home_path = word;
		c->expected = NULL;
	} else if (strcmp(word, "--") == 0) {
		c->after_dashes = true;
	} else if (strncmp(word, "--", 2) == 0) {
		if (strncmp(word, "--home=", 7) == 0)
			c->app->home_path = word + 7;
		read_long_option(c, word + 2);
	} else if (word[0] == '-' && word[1] != '\0') {
		read_letters(c, word + 1);
	} else {
		read_argument(c, word);
	}
}

/* What the synopsis calls an argument: "SNAP" of "[OPTION]... SNAP [PATH...]"; "": none. */
static void
argument_kind(const char *synopsis, int position, char ret[16])
{
	ret[0] = '\0';
	while (*synopsis != '\0') {
		size_t size = strcspn(synopsis, " ");
		size_t start = strspn(synopsis, "["), length;

		length = strspn(synopsis + start, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
		if (length > 0 && length < 16 && strncmp(synopsis + start, "OPTION", length) != 0) {
			bool repeated = memmem(synopsis, size, "...", 3) != NULL;

			snprintf(ret, 16, "%.*s", (int) length, synopsis + start);
			if (position-- == 0 || repeated)
				return;
			ret[0] = '\0';
		}
		synopsis += size + (synopsis[size] == ' ');
	}
}

static void
offer_arguments(const struct completion *c)
{
	char kind[16];

	if (c->position == 0 && command_is_parent_in(commands, c->command))
		offer_commands(c, c->command->name);
	if (c->command->run == NULL)
		return;
	argument_kind(c->command->synopsis, c->position, kind);
	if (strcmp(kind, "SNAP") == 0)
		offer_snapshots(c);
	else if (strcmp(kind, "RUN") == 0)
		offer_runs(c);
	else if (strcmp(kind, "NAME") == 0)
		offer_plugins(c, false);
	else if (strcmp(kind, "COMMAND") == 0 || strcmp(kind, "SUBCOMMAND") == 0)
		offer_commands(c, NULL);
	else if (strcmp(kind, "SHELL") == 0)
		for (const char *const *shell = completion_shells; *shell != NULL; shell++)
			offer(c, *shell, "", NULL);
	else if (strcmp(kind, "DIR") == 0)
		out(":directories\n");
	else if (strcmp(kind, "FILE") == 0 || strcmp(kind, "PATH") == 0)
		out(":files\n");
}

static void
offer_all(struct completion *c)
{
	const char *equals = strchr(c->word, '=');
	AUTO_FREE char *before = NULL;

	if (c->lost) {
		return;
	} else if (c->after_dashes) {
		out(":files\n");
	} else if (c->expected != NULL) {
		offer_values(c, c->expected);
	} else if (strncmp(c->word, "--", 2) == 0 && equals != NULL) {
		const struct option_spec *option =
			option_of(c, c->word + 2, (size_t) (equals - c->word - 2), 0);

		before = strndup(c->word, (size_t) (equals - c->word) + 1);
		if (option == NULL || before == NULL)
			return;
		c->before = before;
		offer_values(c, option);
		c->before = "";
	} else if (c->word[0] == '-') {
		offer_options(c, c->command == NULL ? NULL : c->command->options);
		offer_options(c, global_options);
	} else if (c->command == NULL) {
		offer_commands(c, NULL);
	} else {
		offer_arguments(c);
	}
}

int
cmd_complete(struct app *app, const struct args *args, struct moat_error *err)
{
	const char *const *words = args_command(args);
	struct completion c = {.app = app, .word = "", .before = ""};

	(void) err;
	for (; words != NULL && *words != NULL; words++) {
		if (words[1] == NULL)
			c.word = *words;
		else
			read_word(&c, *words);
	}
	offer_all(&c);
	return 0;
}
