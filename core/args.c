/* SPDX-License-Identifier: Apache-2.0 */
/* Parses the command line by the table of commands: GNU conventions, without abbreviations, which
 * would break scripts whenever an option is added. */
#include "core/args.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

#define NAMES_MAX 64

/* What was given of one option. */
struct given {
	int count;
	const char **values; /* NULL-terminated; NULL: none yet */
};

/* The options of one table, with what was given of each. */
struct option_set {
	const struct option_spec *specs;
	struct given *given;
	size_t count;
};

struct args {
	struct option_set globals, own;
	const char **positional; /* NULL-terminated */
	int size;
	const char *const *command; /* points into argv; NULL: no "--" */
};

struct parser {
	const struct command *table;
	const struct command *command; /* NULL: not met yet */
	struct args *args;
	int argc, next; /* argv[next] is the next word */
	char **argv;
	struct moat_error *err;
};

/* An option that was found, and where what was given of it goes. */
struct found {
	const struct option_spec *spec;
	struct given *given;
};

/* ------------------------------------------------------------------------------- the tables */

static bool
is_called(const struct command *command, const char *name)
{
	return strcmp(command->name, name) == 0;
}

const struct command *
command_find_in(const struct command *table, const char *name, const char *sub)
{
	for (const struct command *c = table; c->name != NULL; c++) {
		if (sub != NULL) {
			if (c->parent != NULL && strcmp(c->parent, name) == 0 && is_called(c, sub))
				return c;
		} else if ((c->parent == NULL && is_called(c, name)) ||
			   (c->alias != NULL && strcmp(c->alias, name) == 0)) {
			return c;
		}
	}
	return NULL;
}

const char *
command_title(const struct command *command, char out[64])
{
	(void) snprintf(out, 64, "%s%s%s", command->parent != NULL ? command->parent : "",
			command->parent != NULL ? " " : "", command->name);
	return out;
}

bool
command_is_parent_in(const struct command *table, const struct command *command)
{
	for (const struct command *c = table; c->name != NULL; c++) {
		if (command->parent == NULL && c->parent != NULL &&
		    strcmp(c->parent, command->name) == 0)
			return true;
	}
	return false;
}

/* The words that may stand at the top (parent NULL) or after a parent. */
static void
word_list(const struct command *table, const char *parent, const char *names[NAMES_MAX])
{
	size_t n = 0;

	for (const struct command *c = table; c->name != NULL && n + 2 < NAMES_MAX; c++) {
		bool here = parent == NULL ? c->parent == NULL
					   : c->parent != NULL && strcmp(c->parent, parent) == 0;

		if (here && !c->hidden)
			names[n++] = c->name;
		if (parent == NULL && c->alias != NULL)
			names[n++] = c->alias;
	}
	names[n] = NULL;
}

/* ------------------------------------------------------------------------------- complaints */

/* " (did you mean `X'?)", or nothing. */
static const char *
suggestion(const char *word, const char *const *names, const char *dashes, char out[128])
{
	const char *nearest = text_nearest(word, names);

	out[0] = '\0';
	if (nearest != NULL)
		(void) snprintf(out, 128, " (did you mean `%s%s'?)", dashes, nearest);
	return out;
}

static int complain(struct parser *parser, const char *format, ...) MOAT_PRINTF(2, 3);

/* One line, with where to read on. */
static int
complain(struct parser *parser, const char *format, ...)
{
	char message[1024], title[64];
	va_list list;

	va_start(list, format);
	(void) vsnprintf(message, sizeof message, format, list);
	va_end(list);
	if (parser->command == NULL)
		return moat_fail(parser->err, MOAT_USAGE, "%s; see `moat --help'", message);
	return moat_fail(parser->err, MOAT_USAGE, "%s; see `moat %s --help'", message,
			 command_title(parser->command, title));
}

/* name: of a long option, or NULL: it is the letter. */
static int
complain_unknown_option(struct parser *parser, const char *name, char letter)
{
	const char *names[NAMES_MAX], *where = "";
	const struct option_set *sets[] = {&parser->args->globals, &parser->args->own};
	char hint[128];
	size_t n = 0;

	if (parser->command == NULL)
		where = "; the options of a command stand after its name";
	else if (parser->command->takes_command && parser->args->size > 0)
		where = "; the command to run and its options stand after `--'";
	if (name == NULL)
		return complain(parser, "unknown option `-%c'%s", letter, where);
	for (size_t s = 0; s < 2; s++) {
		for (size_t i = 0; i < sets[s]->count && n + 1 < NAMES_MAX; i++)
			names[n++] = sets[s]->specs[i].name;
	}
	names[n] = NULL;
	return complain(parser, "unknown option `--%s'%s%s", name,
			suggestion(name, names, "--", hint), where);
}

/* --------------------------------------------------------------------------------- storage */

static int
option_set_init(struct option_set *set, const struct option_spec *specs, struct moat_error *err)
{
	size_t count = 0;

	while (specs != NULL && specs[count].name != NULL)
		count++;
	set->specs = specs;
	set->given = calloc(count + 1, sizeof *set->given);
	if (set->given == NULL)
		return moat_fail_memory(err);
	set->count = count;
	return 0;
}

static void
option_set_free(struct option_set *set)
{
	for (size_t i = 0; i < set->count; i++)
		free(set->given[i].values);
	free(set->given);
}

void
args_free(struct args *args)
{
	if (args == NULL)
		return;
	option_set_free(&args->globals);
	option_set_free(&args->own);
	free(args->positional);
	free(args);
}

static bool
set_find(const struct option_set *set, const char *name, size_t length, char letter,
	 struct found *ret)
{
	for (size_t i = 0; i < set->count; i++) {
		const struct option_spec *spec = &set->specs[i];
		bool same = name != NULL ? strlen(spec->name) == length &&
						   memcmp(spec->name, name, length) == 0
					 : spec->letter == letter;

		if (same) {
			*ret = (struct found){spec, &set->given[i]};
			return true;
		}
	}
	return false;
}

/* By name, or, when that is NULL, by letter. */
static bool
option_find(const struct args *args, const char *name, size_t length, char letter,
	    struct found *ret)
{
	return set_find(&args->own, name, length, letter, ret) ||
	       set_find(&args->globals, name, length, letter, ret);
}

/* value NULL: none was given. */
static int
store(struct parser *parser, const struct found *option, const char *value)
{
	struct given *given = option->given;
	const char *const *choice = option->spec->choices;

	if (value != NULL && choice != NULL) {
		char known[256] = "";

		while (*choice != NULL && strcmp(*choice, value) != 0)
			choice++;
		for (size_t i = 0, n = 0; option->spec->choices[i] != NULL && n < sizeof known; i++)
			n += (size_t) snprintf(known + n, sizeof known - n, "%s%s",
					       i > 0 ? ", " : "", option->spec->choices[i]);
		if (*choice == NULL)
			return complain(parser, "--%s: `%s' is none of %s", option->spec->name,
					value, known);
	}
	/* No option can be given more often than there are words, but for clustered counts, which
	 * have no values. */
	if (value != NULL && given->values == NULL) {
		given->values = calloc((size_t) parser->argc + 1, sizeof *given->values);
		if (given->values == NULL)
			return moat_fail_memory(parser->err);
	}
	if (value != NULL) {
		size_t n = 0;

		while (given->values[n] != NULL)
			n++;
		given->values[n] = value;
	}
	given->count++;
	return 0;
}

/* ---------------------------------------------------------------------------------- parsing */

static bool
takes_value(const struct option_spec *spec)
{
	return spec->kind == OPTION_VALUE || spec->kind == OPTION_LIST;
}

/* The value of an option that needs one and has none attached: the next word.  "--" is not taken
 * for a value: who leaves one out before the command to run should hear of it. */
static int
store_next_word(struct parser *parser, const struct found *option)
{
	const char *value;

	if (parser->next >= parser->argc || strcmp(parser->argv[parser->next], "--") == 0)
		return complain(parser, "--%s needs a value (--%s=%s)", option->spec->name,
				option->spec->name, option->spec->argument);
	value = parser->argv[parser->next++];
	return store(parser, option, value);
}

static int
parse_long(struct parser *parser, const char *word)
{
	const char *name = word + 2, *equals = strchr(name, '=');
	size_t length = equals != NULL ? (size_t) (equals - name) : strlen(name);
	struct found option;

	if (!option_find(parser->args, name, length, '\0', &option)) {
		char unknown[128];

		(void) snprintf(unknown, sizeof unknown, "%.*s",
				(int) (length < sizeof unknown ? length : sizeof unknown), name);
		return complain_unknown_option(parser, unknown, '\0');
	}
	if (equals != NULL) {
		if (!takes_value(option.spec) && option.spec->kind != OPTION_OPTIONAL)
			return complain(parser, "--%s takes no value", option.spec->name);
		return store(parser, &option, equals + 1);
	}
	return takes_value(option.spec) ? store_next_word(parser, &option)
					: store(parser, &option, NULL);
}

static int
parse_letters(struct parser *parser, const char *word)
{
	for (const char *p = word + 1; *p != '\0'; p++) {
		struct found option;

		if (!option_find(parser->args, NULL, 0, *p, &option))
			return complain_unknown_option(parser, NULL, *p);
		if (takes_value(option.spec))
			return p[1] != '\0' ? store(parser, &option, p + 1)
					    : store_next_word(parser, &option);
		if (option.spec->kind == OPTION_OPTIONAL && p[1] == '=')
			return store(parser, &option, p + 2);
		if (store(parser, &option, NULL) < 0)
			return -1;
	}
	return 0;
}

/* The word that names the command. */
static int
parse_command(struct parser *parser, const char *word)
{
	const char *names[NAMES_MAX];
	char hint[128];

	parser->command = command_find_in(parser->table, word, NULL);
	if (parser->command == NULL) {
		word_list(parser->table, NULL, names);
		return complain(parser, "unknown command `%s'%s", word,
				suggestion(word, names, "", hint));
	}
	return option_set_init(&parser->args->own, parser->command->options, parser->err);
}

static bool
nothing_given(const struct option_set *set)
{
	for (size_t i = 0; i < set->count; i++) {
		if (set->given[i].count > 0)
			return false;
	}
	return true;
}

/* The first word after a parent of subcommands.  Returns 1 when it was one's name; 0 when it is an
 * argument of the parent itself, which stands for its usual subcommand: after one of the parent's
 * own options every word is. */
static int
parse_subcommand(struct parser *parser, const char *word)
{
	const struct command *parent = parser->command, *child;
	const char *names[NAMES_MAX];
	char hint[128];

	if (parser->args->size > 0 || parent->parent != NULL ||
	    !nothing_given(&parser->args->own) || !command_is_parent_in(parser->table, parent))
		return 0;
	child = command_find_in(parser->table, parent->name, word);
	if (child == NULL && parent->run == NULL) {
		word_list(parser->table, parent->name, names);
		return complain(parser, "`%s' has no subcommand `%s'%s", parent->name, word,
				suggestion(word, names, "", hint));
	}
	if (child == NULL)
		return 0;
	option_set_free(&parser->args->own);
	parser->args->own = (struct option_set){0};
	parser->command = child;
	return option_set_init(&parser->args->own, child->options, parser->err) < 0 ? -1 : 1;
}

static int
parse_word(struct parser *parser, const char *word)
{
	struct args *args = parser->args;
	int is_subcommand;

	if (parser->command == NULL)
		return parse_command(parser, word);
	is_subcommand = parse_subcommand(parser, word);
	if (is_subcommand != 0)
		return is_subcommand < 0 ? -1 : 0;
	args->positional[args->size++] = word;
	return 0;
}

/* What follows "--": a command line, or words that are no options. */
static int
parse_rest(struct parser *parser)
{
	if (parser->command != NULL && parser->command->takes_command) {
		if (parser->next == parser->argc)
			return complain(parser, "no command follows `--'");
		parser->args->command = (const char *const *) &parser->argv[parser->next];
		return 0;
	}
	while (parser->next < parser->argc) {
		if (parse_word(parser, parser->argv[parser->next++]) < 0)
			return -1;
	}
	return 0;
}

static int
parse_words(struct parser *parser)
{
	while (parser->next < parser->argc) {
		const char *word = parser->argv[parser->next++];
		int result;

		if (strcmp(word, "--") == 0)
			return parse_rest(parser);
		if (strncmp(word, "--", 2) == 0)
			result = parse_long(parser, word);
		else if (word[0] == '-' && word[1] != '\0')
			result = parse_letters(parser, word);
		else
			result = parse_word(parser, word);
		if (result < 0)
			return -1;
	}
	return 0;
}

/* The parent of subcommands that cannot stand alone. */
static int
complain_incomplete(struct parser *parser)
{
	const char *names[NAMES_MAX];
	char known[256] = "";

	word_list(parser->table, parser->command->name, names);
	for (size_t i = 0, n = 0; names[i] != NULL && n < sizeof known; i++)
		n += (size_t) snprintf(known + n, sizeof known - n, "%s%s", i > 0 ? ", " : "",
				       names[i]);
	return complain(parser, "`%s' needs a subcommand: %s", parser->command->name, known);
}

static int
check_arguments(struct parser *parser)
{
	const struct command *command = parser->command;
	const struct args *args = parser->args;
	char title[64];

	if (command->run == NULL)
		return complain_incomplete(parser);
	if (args->size < command->min_arguments)
		return complain(parser, "`%s' needs %s: moat %s %s", command_title(command, title),
				args->size > 0 ? "more arguments" : "an argument", title,
				command->synopsis);
	if (command->max_arguments < 0 || args->size <= command->max_arguments)
		return 0;
	if (command->takes_command && args->command == NULL)
		return complain(parser,
				"unexpected argument `%s': the command to run stands after `--', "
				"as in `moat %s -- %s ...'",
				args->positional[command->max_arguments],
				command_title(command, title), args->positional[0]);
	return complain(parser, "unexpected argument `%s'",
			args->positional[command->max_arguments]);
}

int
args_parse_table(const struct command *table, const struct option_spec *globals, int argc,
		 char **argv, const struct command **ret_command, struct args **ret,
		 struct moat_error *err)
{
	struct args *args = calloc(1, sizeof *args);
	struct parser parser = {
		.table = table, .args = args, .argc = argc, .next = 1, .argv = argv, .err = err};

	if (args == NULL)
		return moat_fail_memory(err);
	args->positional = calloc((size_t) argc + 1, sizeof *args->positional);
	if (args->positional == NULL) {
		(void) moat_fail_memory(err);
		goto fail;
	}
	if (option_set_init(&args->globals, globals, err) < 0 || parse_words(&parser) < 0)
		goto fail;
	/* Who asks for help need not have the rest right. */
	if (parser.command != NULL && !args_flag(args, "help") && check_arguments(&parser) < 0)
		goto fail;
	*ret_command = parser.command;
	*ret = args;
	return 0;
fail:
	args_free(args);
	return -1;
}

/* ---------------------------------------------------------------------------------- reading */

static const struct given *
lookup(const struct args *args, const char *name)
{
	struct found option;
	bool known = option_find(args, name, strlen(name), '\0', &option);

	assert(known);
	return known ? option.given : NULL;
}

bool
args_given(const struct args *args, const char *name)
{
	const struct given *given = lookup(args, name);

	return given != NULL && given->count > 0;
}

bool
args_flag(const struct args *args, const char *name)
{
	return args_given(args, name);
}

int
args_count(const struct args *args, const char *name)
{
	const struct given *given = lookup(args, name);

	return given != NULL ? given->count : 0;
}

const char *const *
args_list(const struct args *args, const char *name)
{
	static const char *const none[] = {NULL};
	const struct given *given = lookup(args, name);

	return given != NULL && given->values != NULL ? given->values : none;
}

const char *
args_value(const struct args *args, const char *name)
{
	const char *const *list = args_list(args, name);
	const char *last = NULL;

	while (*list != NULL)
		last = *list++;
	return last;
}

int
args_size(const struct args *args)
{
	return args->size;
}

const char *
args_at(const struct args *args, int index)
{
	return index >= 0 && index < args->size ? args->positional[index] : NULL;
}

const char *const *
args_command(const struct args *args)
{
	return args->command;
}
