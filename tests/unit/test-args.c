/* SPDX-License-Identifier: Apache-2.0 */
/* The command line: by a table of its own, where every kind of option occurs; then the real table,
 * and the help that is made of it. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <time.h>

#include "core/args.h"

#define ARGS_MAX 64

static int
never_run(struct app *app, const struct args *args, struct moat_error *err)
{
	return 0;
}

/* clang-format off */
static const char *const when[] = {"auto", "always", NULL};

static const struct option_spec globals[] = {
	{"help", 'h', OPTION_FLAG, NULL, NULL, "help"},
	{"json", 0, OPTION_FLAG, NULL, NULL, "json"},
	{"verbose", 'v', OPTION_COUNT, NULL, NULL, "more"},
	{"home", 0, OPTION_VALUE, "DIR", NULL, "home"},
	{"backend", 'b', OPTION_LIST, "NAME", NULL, "backend"},
	{0}
};

static const struct option_spec own[] = {
	{"all", 'a', OPTION_FLAG, NULL, NULL, "all"},
	{"lines", 'n', OPTION_VALUE, "N", NULL, "lines"},
	{"env", 'e', OPTION_LIST, "K=V", NULL, "env"},
	{"interactive", 'i', OPTION_OPTIONAL, "BOOL", NULL, "interactive"},
	{"color", 0, OPTION_VALUE, "WHEN", when, "colour"},
	{0}
};

static const struct command table[] = {
	{.name = "list", .alias = "ps", .synopsis = "", .options = own, .max_arguments = 1, .run = never_run},
	{.name = "run", .synopsis = "[DIR] [-- CMD...]", .options = own, .max_arguments = 1, .takes_command = true,
	 .run = never_run},
	{.name = "many", .synopsis = "A B...", .min_arguments = 2, .max_arguments = -1, .run = never_run},
	{.name = "snap", .synopsis = "", .options = own, .max_arguments = 1, .run = never_run},
	{.name = "create", .parent = "snap", .synopsis = "", .options = own, .max_arguments = 1, .run = never_run},
	{.name = "show", .parent = "snap", .alias = "peek", .synopsis = "SNAP", .min_arguments = 1, .max_arguments = 1,
	 .run = never_run},
	{.name = "group", .synopsis = "SUB"},
	{.name = "info", .parent = "group", .synopsis = "", .run = never_run},
	{.name = "secret", .synopsis = "", .hidden = true, .run = never_run},
	{0}
};
/* clang-format on */

struct fixture {
	char *argv[ARGS_MAX + 1];
	int argc;
	const struct command *command;
	struct args *args;
	struct moat_error err;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	if (f == NULL)
		return -1;
	f->err = (struct moat_error) MOAT_ERROR_INIT;
	*state = f;
	return 0;
}

static void
reset(struct fixture *f)
{
	args_free(f->args);
	for (int i = 0; i < f->argc; i++)
		free(f->argv[i]);
	memset(f->argv, 0, sizeof f->argv);
	f->argc = 0;
	f->args = NULL;
	f->command = NULL;
}

static int
teardown(void **state)
{
	reset(*state);
	free(*state);
	return 0;
}

/* Parses "moat" and the words, which are separated by one blank each; `_' is an empty word. */
static int
parse_with(struct fixture *f, const struct command *commands_used,
	   const struct option_spec *globals_used, const char *line)
{
	reset(f);
	f->argv[f->argc++] = strdup("moat");
	while (*line != '\0') {
		size_t length = strcspn(line, " ");

		assert_true(f->argc < ARGS_MAX);
		f->argv[f->argc++] =
			length == 1 && *line == '_' ? strdup("") : strndup(line, length);
		line += length;
		line += *line == ' ';
	}
	return args_parse_table(commands_used, globals_used, f->argc, f->argv, &f->command,
				&f->args, &f->err);
}

static int
parse(struct fixture *f, const char *line)
{
	return parse_with(f, table, globals, line);
}

static void
assert_list(const char *const *list, const char *joined)
{
	char text[256] = "";

	assert_non_null(list);
	for (size_t n = 0; *list != NULL; list++)
		n += (size_t) snprintf(text + n, sizeof text - n, "%s%s", n > 0 ? "|" : "", *list);
	assert_string_equal(text, joined);
}

/* ------------------------------------------------------------------------------------ forms */

static void
test_value_forms(void **state)
{
	static const char *const forms[] = {
		"list --lines=5",      "list --lines 5",    "list -n5",
		"list -n 5",           "list -an5",         "list -an 5",
		"list -n 4 --lines=5", "list --lines=5 --", "ps -n5"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		assert_ok(parse(f, forms[i]), &f->err);
		assert_string_equal(f->command->name, "list");
		assert_string_equal(args_value(f->args, "lines"), "5");
		assert_int_equal(args_size(f->args), 0);
	}
	/* Whatever it looks like, it is the value. */
	assert_ok(parse(f, "list -n -a"), &f->err);
	assert_string_equal(args_value(f->args, "lines"), "-a");
	assert_false(args_flag(f->args, "all"));
	assert_ok(parse(f, "list --lines="), &f->err);
	assert_string_equal(args_value(f->args, "lines"), "");
	assert_ok(parse(f, "list --lines=a=b"), &f->err);
	assert_string_equal(args_value(f->args, "lines"), "a=b");
	assert_ok(parse(f, "list"), &f->err);
	assert_null(args_value(f->args, "lines"));
	assert_false(args_given(f->args, "lines"));
}

static void
test_flags_counts_lists(void **state)
{
	struct fixture *f = *state;

	assert_ok(parse(f, "-v list -avv -eA=1 --env B=2 -e C -v"), &f->err);
	assert_true(args_flag(f->args, "all"));
	assert_int_equal(args_count(f->args, "verbose"), 4);
	assert_list(args_list(f->args, "env"), "A=1|B=2|C");
	assert_list(args_list(f->args, "backend"), "");
	assert_false(args_flag(f->args, "json"));
}

static void
test_optional(void **state)
{
	static const struct {
		const char *line, *value;
		bool all;
	} cases[] = {
		{"list -i", NULL, false},
		{"list -i=no", "no", false},
		{"list -ai=no", "no", true},
		{"list -ia", NULL, true},
		{"list --interactive", NULL, false},
		{"list --interactive=yes", "yes", false},
		{"list --interactive yes", NULL, false},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const char *value;

		assert_ok(parse(f, cases[i].line), &f->err);
		assert_true(args_given(f->args, "interactive"));
		value = args_value(f->args, "interactive");
		assert_true((value == NULL) == (cases[i].value == NULL));
		if (value != NULL)
			assert_string_equal(value, cases[i].value);
		assert_int_equal(args_flag(f->args, "all"), cases[i].all);
	}
	assert_string_equal(args_at(f->args, 0), "yes");
}

static void
test_globals_anywhere(void **state)
{
	static const char *const lines[] = {
		"--json --home=/h -b x snap show -b y S",
		"snap --json --home /h -bx show S --backend=y",
		"snap show S --json --home=/h -b x -b y",
		"--home=/other --json -b x peek -by --home=/h S",
		"-bx snap -by show --json --json --home=/h -- S",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		assert_ok(parse(f, lines[i]), &f->err);
		assert_string_equal(f->command->name, "show");
		assert_true(args_flag(f->args, "json"));
		assert_string_equal(args_value(f->args, "home"), "/h");
		assert_list(args_list(f->args, "backend"), "x|y");
		assert_string_equal(args_at(f->args, 0), "S");
	}
}

static void
test_double_dash(void **state)
{
	struct fixture *f = *state;

	assert_ok(parse(f, "many a -- -b --json -- c"), &f->err);
	assert_int_equal(args_size(f->args), 5);
	assert_string_equal(args_at(f->args, 1), "-b");
	assert_string_equal(args_at(f->args, 3), "--");
	assert_false(args_flag(f->args, "json"));
	assert_null(args_command(f->args));
	assert_null(args_at(f->args, 5));
	assert_null(args_at(f->args, -1));

	assert_ok(parse(f, "run -a dir --json -- ls -la --help -- x"), &f->err);
	assert_list(args_command(f->args), "ls|-la|--help|--|x");
	assert_string_equal(args_at(f->args, 0), "dir");
	assert_int_equal(args_size(f->args), 1);
	assert_true(args_flag(f->args, "all"));
	assert_false(args_flag(f->args, "help"));
	assert_ok(parse(f, "run -- ls"), &f->err);
	assert_int_equal(args_size(f->args), 0);
	assert_ok(parse(f, "run"), &f->err);
	assert_null(args_command(f->args));
	/* "-" and "" are words. */
	assert_ok(parse(f, "many - _"), &f->err);
	assert_string_equal(args_at(f->args, 0), "-");
	assert_string_equal(args_at(f->args, 1), "");
}

static void
test_subcommands(void **state)
{
	static const struct {
		const char *line, *name, *argument;
	} cases[] = {
		{"snap", "snap", NULL},
		{"snap create", "create", NULL},
		{"snap -a", "snap", NULL},
		{"snap RUN", "snap", "RUN"},
		{"snap -a show", "snap", "show"},
		{"snap -a -- show", "snap", "show"},
		{"snap create show", "create", "show"},
		{"peek x", "show", "x"},
		{"snap show create", "show", "create"},
		{"snap -v create", "create", NULL},
		{"group info", "info", NULL},
		{"secret", "secret", NULL},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_ok(parse(f, cases[i].line), &f->err);
		assert_string_equal(f->command->name, cases[i].name);
		if (cases[i].argument == NULL)
			assert_null(args_at(f->args, 0));
		else
			assert_string_equal(args_at(f->args, 0), cases[i].argument);
	}
}

static void
test_help_and_nothing(void **state)
{
	static const char *const lines[] = {"many --help", "many -h a", "group --help", "-h group",
					    "run a b -h"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		assert_ok(parse(f, lines[i]), &f->err);
		assert_non_null(f->command);
		assert_true(args_flag(f->args, "help"));
	}
	assert_ok(parse(f, ""), &f->err);
	assert_null(f->command);
	assert_ok(parse(f, "--json"), &f->err);
	assert_null(f->command);
	assert_true(args_flag(f->args, "json"));
	/* No argv at all. */
	reset(f);
	assert_ok(args_parse_table(table, globals, 0, f->argv, &f->command, &f->args, &f->err),
		  &f->err);
	assert_null(f->command);
}

/* ----------------------------------------------------------------------------------- errors */

static void
test_errors(void **state)
{
	static const struct {
		const char *line, *message;
	} cases[] = {
		{"lst", "unknown command `lst' (did you mean `list'?); see `moat --help'"},
		{"pz", "(did you mean `ps'?)"},
		{"frobnicate", "unknown command `frobnicate'; see"},
		{"_", "unknown command `'"},
		{"create", "unknown command `create'"},
		{"secre", "unknown command `secre'; see"},
		{"--al list",
		 "unknown option `--al'; the options of a command stand after its name"},
		{"-a list", "unknown option `-a'; the options of a command stand after its name"},
		{"list --lnes=5",
		 "unknown option `--lnes' (did you mean `--lines'?); see `moat list --help'"},
		{"list --jso", "(did you mean `--json'?)"},
		{"list --line 5", "unknown option `--line' (did"},
		{"list ---", "unknown option `---'"},
		{"list --=x", "unknown option `--'"},
		{"list -ax", "unknown option `-x'; see `moat list --help'"},
		{"list --lines", "--lines needs a value (--lines=N); see `moat list --help'"},
		{"list -an", "--lines needs a value"},
		{"list -n -- 5", "--lines needs a value"},
		{"--home", "--home needs a value (--home=DIR); see `moat --help'"},
		{"list --all=1", "--all takes no value"},
		{"list --verbose=2", "--verbose takes no value"},
		{"list --color=blue", "--color: `blue' is none of auto, always; see"},
		{"list --color=", "--color: `' is none of"},
		{"list a b", "unexpected argument `b'; see `moat list --help'"},
		{"many a", "`many' needs more arguments: moat many A B...; see `moat many --help'"},
		{"snap show",
		 "`snap show' needs an argument: moat snap show SNAP; see `moat snap show --help'"},
		{"group", "`group' needs a subcommand: info; see `moat group --help'"},
		{"group inf", "`group' has no subcommand `inf' (did you mean `info'?)"},
		{"group --help=x", "--help takes no value"},
		{"run make test", "unexpected argument `test': the command to run stands after "
				  "`--', as in `moat run -- make ...'"},
		{"run a b -- c", "unexpected argument `b'; see"},
		{"run ls -l",
		 "unknown option `-l'; the command to run and its options stand after `--'; see"},
		{"run make --jobs=4", "unknown option `--jobs'; the command to run"},
		{"run --", "no command follows `--'"},
		{"run . --", "no command follows `--'"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (parse(f, cases[i].line) == 0)
			fail_msg("`%s' was accepted", cases[i].line);
		assert_null(f->args);
		if (f->err.code != MOAT_USAGE || strstr(f->err.message, cases[i].message) == NULL)
			fail_msg("`%s': %d `%s' lacks `%s'", cases[i].line, f->err.code,
				 f->err.message, cases[i].message);
		assert_null(strchr(f->err.message, '\n'));
		moat_error_clear(&f->err);
	}
}

/* A word of any length is complained of, not copied somewhere too small. */
static void
test_long_words(void **state)
{
	static const char *const before[] = {"",       "list --", "list --color=", "list -n1 a ",
					     "group ", "run a "};
	struct fixture *f = *state;
	char line[5200];

	for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
		size_t n = (size_t) snprintf(line, sizeof line, "%s", before[i]);

		memset(line + n, 'x', 5000);
		line[n + 5000] = '\0';
		assert_int_equal(parse(f, line), -1);
		assert_int_equal(f->err.code, MOAT_USAGE);
		moat_error_clear(&f->err);
	}
}

/* Random words of the table's vocabulary: whatever comes, it is parsed or refused in words. */
static void
test_random_lines(void **state)
{
	static const char *const words[] = {
		"list", "ps",     "run",     "snap", "show", "create",   "group",
		"info", "--",     "-",       "_",    "-a",   "-n",       "-n5",
		"-i=x", "--all",  "--lines", "-vvv", "--e",  "--json",   "many",
		"x",    "--home", "--env=K", "-eb",  "-h",   "--color=", "--color=auto"};
	struct fixture *f = *state;
	const char *given = getenv("MOAT_TEST_SEED");
	unsigned seed = given != NULL ? (unsigned) strtoul(given, NULL, 0) : (unsigned) time(NULL);
	long cases = test_scaled(20000), parsed = 0;

	srandom(seed);
	for (long i = 0; i < cases; i++) {
		char line[512] = "";
		size_t n = 0;

		for (long count = random() % 8; count > 0; count--)
			n += (size_t) snprintf(
				line + n, sizeof line - n, "%s%s", n > 0 ? " " : "",
				words[(size_t) random() % (sizeof words / sizeof words[0])]);
		if (parse(f, line) == 0)
			parsed++;
		else if (f->err.code != MOAT_USAGE || f->err.message[0] == '\0' || f->args != NULL)
			fail_msg("seed %u, `%s': %d `%s'", seed, line, f->err.code, f->err.message);
		moat_error_clear(&f->err);
	}
	print_message("seed %u, %ld cases, %ld parsed\n", seed, cases, parsed);
	assert_true(parsed > 0 && parsed < cases);
}

/* ------------------------------------------------------------------------ the real table */

static bool
has_letter_twice(const struct option_spec *a, const struct option_spec *b)
{
	return strcmp(a->name, b->name) == 0 || (a->letter != 0 && a->letter == b->letter);
}

static void
check_option(const struct option_spec *option)
{
	assert_true(option->name[0] != '-' && option->help != NULL && option->help[0] != '\0');
	assert_true(option->help[strlen(option->help) - 1] != '.');
	if (option->kind == OPTION_FLAG || option->kind == OPTION_COUNT)
		assert_null(option->argument);
	else
		assert_non_null(option->argument);
}

/* No name or letter means two things. */
static void
test_table(void **state)
{
	for (const struct command *c = commands; c->name != NULL; c++) {
		assert_non_null(c->synopsis);
		assert_non_null(c->summary);
		assert_ptr_equal(command_find(c->parent != NULL ? c->parent : c->name,
					      c->parent != NULL ? c->name : NULL),
				 c);
		if (c->alias != NULL)
			assert_ptr_equal(command_find(c->alias, NULL), c);
		if (c->parent != NULL)
			assert_non_null(command_find(c->parent, NULL));
		for (const struct option_spec *o = c->options; o != NULL && o->name != NULL; o++) {
			check_option(o);
			for (const struct option_spec *p = o + 1; p->name != NULL; p++)
				assert_false(has_letter_twice(o, p));
			for (const struct option_spec *g = global_options; g->name != NULL; g++)
				assert_false(has_letter_twice(o, g));
		}
	}
	for (const struct option_spec *g = global_options; g->name != NULL; g++)
		check_option(g);
	assert_null(command_find("nothing", NULL));
	assert_null(command_find("snapshot", "run"));
	assert_null(command_find("create", NULL));
}

/* Lines of the contract, as written there. */
static void
test_contract(void **state)
{
	static const struct {
		const char *line, *title;
	} cases[] = {
		{"run -i -t --name N -e K=V -e L=W -m S:D:ro --workspace A --workspace B --sandbox "
		 "none "
		 "--commit success --image I --network none --memory 1G --cpus 2 --no-snapshot "
		 "--no-trace --rm "
		 "--dry-run DIR -- CMD a",
		 "run"},
		{"list -a", "list"},
		{"ps --all", "list"},
		{"status RUN", "status"},
		{"logs -f -n 5 --since 10m --stream stderr RUN", "logs"},
		{"snapshot --label TEXT RUN", "snapshot"},
		{"snapshot create --workspace DIR", "snapshot create"},
		{"snapshot list --workspace DIR", "snapshot list"},
		{"snapshots RUN", "snapshot list"},
		{"snapshot show SNAP", "snapshot show"},
		{"snapshot diff SNAP SNAP", "snapshot diff"},
		{"snapshot restore --to DIR --dry-run --no-safety SNAP PATH PATH",
		 "snapshot restore"},
		{"rollback RUN SNAP --to DIR --dry-run", "rollback"},
		{"snapshot delete SNAP SNAP", "snapshot delete"},
		{"trace --tree --follow RUN", "trace"},
		{"plugin list --explain", "plugin list"},
		{"plugin info NAME", "plugin info"},
		{"recover", "recover"},
		{"version --json", "version"},
		{"help snapshot list", "help"},
		{"--home D --config F --plugin-dir P --plugin-dir Q --backend=snapshot:archive "
		 "--backend=bwrap "
		 "--json --color=never -v -v -q list",
		 "list"},
	};
	struct fixture *f = *state;
	char title[64];

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_ok(parse_with(f, commands, global_options, cases[i].line), &f->err);
		assert_string_equal(command_title(f->command, title), cases[i].title);
		assert_non_null(f->command->run);
	}
}

static void
check_help(const char *text, const struct option_spec *options)
{
	for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
		size_t length = strcspn(line, "\n");

		if (length > 80 || (length > 0 && line[length - 1] == ' '))
			fail_msg("`%.*s' is too long or ends in a blank", (int) length, line);
	}
	for (; options != NULL && options->name != NULL; options++) {
		char name[64];

		(void) snprintf(name, sizeof name, "--%s", options->name);
		if (strstr(text, name) == NULL)
			fail_msg("%s is not in the help", name);
	}
}

/* At most 80 columns; every option is there. */
static void
test_help(void **state)
{
	AUTO_BUF struct buf main_text = {0};
	char title[64];

	help_main_text(&main_text);
	check_help(main_text.data, global_options);
	for (const struct command *c = commands; c->name != NULL; c++) {
		AUTO_BUF struct buf text = {0};

		help_command_text(c, &text);
		assert_ok(buf_check(&text, NULL), &(struct moat_error){0});
		check_help(text.data, c->options);
		check_help(text.data, global_options);
		(void) command_title(c, title);
		if (c->run != NULL && !c->hidden && strstr(main_text.data, title) == NULL)
			fail_msg("%s is not in the main help", title);
	}
}

static void
test_status(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;

	assert_int_equal(status_of(&err), 0);
	err.code = MOAT_USAGE;
	assert_int_equal(status_of(&err), 2);
	err.code = MOAT_CONFLICT;
	assert_int_equal(status_of(&err), 3);
	err.code = MOAT_NOT_FOUND;
	assert_int_equal(status_of(&err), 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_value_forms),
		TEST(test_flags_counts_lists),
		TEST(test_optional),
		TEST(test_globals_anywhere),
		TEST(test_double_dash),
		TEST(test_subcommands),
		TEST(test_help_and_nothing),
		TEST(test_errors),
		TEST(test_long_words),
		TEST(test_random_lines),
		TEST(test_table),
		TEST(test_contract),
		TEST(test_help),
		TEST(test_status),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
