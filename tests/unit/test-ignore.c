/* SPDX-License-Identifier: Apache-2.0 */
/* common/ignore.c: a table of patterns and paths, each row of which is also put to the real git. */
#include "tests/unit/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/ignore.h"

#define NO IGNORE_NONE
#define IG IGNORE_IGNORED
#define IN IGNORE_INCLUDED

/* patterns; path, with a slash at the end when it is a directory; what the patterns say of it.  No
 * parent of a path may match, or git's answer would be about the parent. */
static const struct row {
	const char *patterns, *path;
	enum ignore_match expected;
} table[] = {
	/* clang-format off */
	/* plain names */
	{"foo", "foo", IG}, {"foo", "foo/", IG}, {"foo", "a/foo", IG}, {"foo", "a/b/foo/", IG},
	{"foo", "foo2", NO}, {"foo", "fo", NO}, {"foo", "Foo", NO}, {"foo", "afoo", NO},
	{"foo\nbar", "bar", IG}, {"foo\n\n\nbar\n", "bar", IG}, {"foo", "a/b/c/d", NO},
	{".hidden", ".hidden", IG}, {"\xff\xfe", "x/\xff\xfe", IG}, {"\xc3\xa9", "\xc3\xa9", IG},
	/* directories only */
	{"foo/", "foo/", IG}, {"foo/", "foo", NO}, {"foo/", "a/foo/", IG}, {"foo/", "a/foo", NO},
	{"*/", "d/", IG}, {"*/", "f", NO}, {"foo*/", "foobar/", IG}, {"foo*/", "foobar", NO},
	{"a/b/", "a/b/", IG}, {"a/b/", "a/b", NO}, {"/d/", "d/", IG}, {"/d/", "d", NO}, {"/d/", "x/d/", NO},
	{"foo//", "foo/", NO}, {"foo//", "foo", NO},
	/* anchored by a slash in front or inside */
	{"/foo", "foo", IG}, {"/foo", "a/foo", NO}, {"a/foo", "a/foo", IG}, {"a/foo", "b/a/foo", NO},
	{"/a/foo", "a/foo", IG}, {"//foo", "foo", NO}, {"a//foo", "a/foo", NO}, {"/*", "foo", IG},
	{"/*.c", "x.c", IG}, {"/*.c", "a/x.c", NO}, {"a/*", "a/x", IG}, {"a/*", "a/x/", IG}, {"a/*/c", "a/b/c", IG},
	{"a/*/c", "a/c", NO}, {"a/*/c", "a/b/b/c", NO}, {"*/foo", "a/foo", IG}, {"*/foo", "foo", NO},
	{"*/foo", "a/b/foo", NO}, {"a?b/c", "axb/c", IG}, {"./foo", "foo", NO}, {"a/./b", "a/b", NO},
	/* suffixes, stars, question marks */
	{"*.o", "x.o", IG}, {"*.o", "a/x.o", IG}, {"*.o", ".o", IG}, {"*.o", "x.oo", NO}, {"*.o", "o", NO},
	{"*", "anything", IG}, {"*", ".dot", IG}, {"x*", "x", IG}, {"x*y", "xy", IG}, {"x*y", "xaby", IG},
	{"x*y", "xab", NO}, {"x*y*z", "xayyz", IG}, {"x*y*z", "xazay", NO}, {"?", "a", IG}, {"?", "ab", NO},
	{"a?c", "abc", IG}, {"a?c", "ac", NO}, {"??", "\xc3\xa9", IG}, {"*a*b*c", "xaxbxc", IG},
	{"*a*b*c", "xaxcxb", NO}, {"foo.*", "foo.", IG}, {"foo.*", "foo", NO}, {"*.*", "a.b", IG}, {"*.*", "ab", NO},
	{"a*/b", "ax/b", IG}, {"a*/b", "a/x/b", NO}, {"a*b", "a/b", NO},
	/* two stars */
	{"**", "foo", IG}, {"**", "d/", IG}, {"**/foo", "foo", IG}, {"**/foo", "a/foo", IG}, {"**/foo", "a/b/foo", IG},
	{"**/foo", "a/xfoo", NO}, {"a/**", "a/x", IG}, {"a/**", "a/", NO}, {"a/**", "a", NO}, {"a/**/b", "a/b", IG},
	{"a/**/b", "a/x/b", IG}, {"a/**/b", "a/x/y/b", IG}, {"a/**/b", "a/x/yb", NO}, {"a/**/b", "ab", NO},
	{"**/a/**/c", "x/a/y/c", IG}, {"**/a/**/c", "a/c", IG}, {"**/a/**/c", "x/c", NO}, {"a**b", "axxb", IG},
	{"a**/b", "ax/b", IG}, {"a/**b", "a/xb", IG}, {"a/**b", "a/x/b", NO},
	{"***", "foo", IG}, {"a/***/b", "a/x/y/b", IG}, {"/**", "x", IG}, {"/**/x", "a/b/x", IG}, {"**/", "d/", IG},
	{"**/", "f", NO}, {"**/**", "x", IG}, {"**/**/x", "x", IG}, {"a/**/", "a/d/", IG}, {"a/**/", "a/f", NO},
	{"**/*.c", "x/y.c", IG}, {"**\\/b", "a/b", IG}, {"**\\/b", "b", NO}, {"a/**/*/d", "a/d", NO},
	{"a/**/*/d", "a/x/d", IG}, {"**/a*b/**/c?", "p/axb/q/r/cd", IG}, {"**/a*b/**/c?", "p/axb/q/r/c", NO},
	/* classes */
	{"[ab]", "a", IG}, {"[ab]", "c", NO}, {"[a-c]x", "bx", IG}, {"[a-c]x", "dx", NO}, {"[!a]", "b", IG},
	{"[!a]", "a", NO}, {"[^a]", "b", IG}, {"[^a]", "a", NO}, {"[]]", "]", IG}, {"[]a]", "a", IG}, {"[!]]", "]", NO},
	{"[!]]", "x", IG}, {"[a-]", "-", IG}, {"[-a]", "-", IG}, {"[a\\-c]", "b", NO}, {"[a\\-c]", "-", IG},
	{"[\\]]", "]", IG}, {"[\\\\]", "\\", IG}, {"[c-a]", "b", NO}, {"[a", "[a", NO}, {"[", "[", NO}, {"a[", "a[", NO},
	{"[!", "x", NO}, {"[]", "]", NO}, {"[[]", "[", IG}, {"[*]", "*", IG}, {"[*]", "a", NO}, {"[?]", "?", IG},
	{"a[/]b", "a/b", NO}, {"a[!x]b/c", "a/b/c", NO}, {"[[:alpha:]]", "x", IG}, {"[[:alpha:]]", "1", NO},
	{"[[:digit:][:upper:]]", "Q", IG}, {"[[:digit:][:upper:]]", "q", NO}, {"[![:space:]]", "x", IG},
	{"[[:space:]]", " ", IG}, {"[[:space:]]", "\t", IG}, {"[[:space:]]", "\v", NO}, {"[[:punct:]]", "!", IG},
	{"[[:xdigit:]]", "F", IG}, {"[[:xdigit:]]", "g", NO}, {"[[:alnum:]]", "\xe9", NO}, {"[[:cntrl:]]", "\x01", IG},
	{"[[:blank:]]", "\t", IG}, {"[[:graph:]]", "~", IG}, {"[[:print:]]", " ", IG}, {"[[:lower:]]", "A", NO},
	{"[[:foo:]]", "f", NO}, {"[[:alpha:]", "a", NO}, {"[[:alpha]", "a", IG}, {"x[[:alpha]", "x:", IG},
	{"[[:]", "[", IG}, {"[a-[:digit:]]", "5", NO}, {"[[:digit:]-z]", "-", IG}, {"[\x80-\xff]", "\xe9", IG},
	/* escapes, comments, negation, spaces */
	{"\\foo", "foo", IG}, {"\\*", "*", IG}, {"\\*", "a", NO}, {"\\?", "?", IG}, {"\\[a]", "[a]", IG},
	{"\\[a]", "a", NO}, {"\\\\", "\\", IG}, {"foo\\", "foo", NO}, {"foo\\", "foo\\", NO}, {"foo\\/", "foo/", NO},
	{"fo\\o", "foo", IG}, {"*\\o", "foo", IG}, {"#foo", "#foo", NO}, {"\\#foo", "#foo", IG}, {" #foo", " #foo", IG},
	{"!#foo", "#foo", IN}, {"!foo", "foo", IN}, {"\\!foo", "!foo", IG}, {"!!foo", "!foo", IN}, {"!", "x", NO},
	{"*\n!foo", "foo", IN}, {"*\n!foo", "bar", IG}, {"!foo\n*", "foo", IG}, {"foo\n!foo\nfoo", "foo", IG},
	{"*.o\n!keep.o\n", "keep.o", IN}, {"!*.o\nkeep.o", "x.o", IN}, {"!foo/", "foo", NO}, {"!foo/", "foo/", IN},
	{"/*\n!/a", "a/", IN}, {"foo ", "foo", IG}, {"foo   ", "foo", IG}, {"foo ", "foo ", NO}, {"foo\\ ", "foo ", IG},
	{"foo\\ ", "foo", NO}, {"foo\\  ", "foo ", IG}, {"foo \\ ", "foo  ", IG}, {"a b", "a b", IG}, {" foo", " foo", IG},
	{" foo", "foo", NO}, {"foo\t", "foo", NO}, {"foo\t", "foo\t", IG}, {"foo\\\\ ", "foo\\", IG}, {" ", " ", NO},
	{"\\ ", " ", IG}, {"foo/ ", "foo/", IG}, {"foo /", "foo /", IG},
	/* empty, BOM, line ends */
	{"", "x", NO}, {"/", "x", NO}, {"/", "d/", NO}, {"//", "d/", NO}, {"!/", "d/", NO}, {"\n\n", "x", NO},
	{"\xef\xbb\xbf" "foo", "foo", IG}, {"foo\n\xef\xbb\xbf" "bar", "bar", NO}, {"\xef\xbb\xbf#foo", "#foo", NO},
	{"foo\r\nbar\r\n", "foo", IG}, {"foo\r\nbar\r\n", "bar", IG}, {"foo\r", "foo", IG}, {"foo\r\r\n", "foo\r", IG},
	{"foo\rbar", "foo\rbar", IG}, {"\r\n", "\r", NO}, {"foo \r\n", "foo", IG}, {"foo/\r\n", "foo/", IG},
	{"!foo\r\n", "foo", IN},
	/* clang-format on */
};
#define ROWS (sizeof table / sizeof table[0])

static enum ignore_match
ask(const char *patterns, size_t size, const char *path)
{
	struct ignore_list *list = ignore_parse(patterns, size);
	size_t length = strlen(path);
	bool is_directory = path[length - 1] == '/';
	char *copy = strndup(path, length - is_directory), *slash;
	enum ignore_match match;

	assert_non_null(list);
	assert_non_null(copy);
	slash = strrchr(copy, '/');
	match = ignore_check(list, copy, slash != NULL ? slash + 1 : copy, is_directory);
	free(copy);
	ignore_free(list);
	return match;
}

static void
the_table(void **state)
{
	unsigned wrong = 0;

	for (size_t i = 0; i < ROWS; i++) {
		enum ignore_match match =
			ask(table[i].patterns, strlen(table[i].patterns), table[i].path);

		if (match == table[i].expected)
			continue;
		wrong++;
		print_error("row %zu: `%s' on `%s': %d, not %d\n", i, table[i].patterns,
			    table[i].path, match, table[i].expected);
	}
	assert_int_equal(wrong, 0);
}

/* ------------------------------------------------------------------------------- the same by git
 */

struct scratch {
	char path[64];
	int fd;
};

static int
run_git(const struct scratch *scratch, const char *const *argv, char *out, size_t size)
{
	size_t used = 0;
	ssize_t n = 0;
	int pipes[2], status;
	pid_t pid;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (dup2(pipes[1], 1) < 0 || chdir(scratch->path) < 0)
			_exit(126);
		execvp(argv[0], (char *const *) argv);
		_exit(127);
	}
	assert_true(pid > 0);
	close(pipes[1]);
	while (used < size && (n = read(pipes[0], out + used, size - used)) > 0)
		used += (size_t) n;
	close(pipes[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (used < size)
		out[used] = '\0';
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int
setup_git(void **state)
{
	static const char *const init[] = {"git", "init", "-q", ".", NULL};
	struct scratch *scratch = calloc(1, sizeof *scratch);
	char out[16];

	assert_non_null(scratch);
	strcpy(scratch->path, "/tmp/test-ignore-XXXXXX");
	assert_non_null(mkdtemp(scratch->path));
	*state = scratch;
	setenv("HOME", scratch->path, 1);
	setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("GIT_CONFIG_GLOBAL");
	unsetenv("GIT_DIR");
	scratch->fd = run_git(scratch, init, out, sizeof out) == 0
			      ? open(scratch->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
			      : -1;
	return 0;
}

static int
teardown_git(void **state)
{
	struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;

	if (scratch->fd >= 0)
		close(scratch->fd);
	assert_ok(fs_remove_tree(AT_FDCWD, scratch->path, &err), &err);
	free(scratch);
	return 0;
}

/* Makes what `path` names, so that git sees whether it is a directory; returns its first
 * component. */
static void
make(const struct scratch *scratch, const char *path, char *top)
{
	const char *slash = path;
	int fd;

	while ((slash = strchr(slash, '/')) != NULL) {
		char *parent = strndup(path, (size_t) (slash - path));

		assert_non_null(parent);
		(void) mkdirat(scratch->fd, parent, 0700);
		free(parent);
		slash++;
	}
	if (path[strlen(path) - 1] != '/') {
		fd = openat(scratch->fd, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (fd >= 0)
			close(fd);
	}
	memcpy(top, path, strcspn(path, "/"));
	top[strcspn(path, "/")] = '\0';
}

/* What `git check-ignore -v` says: the fields source, line, pattern, path, each with a NUL. */
static enum ignore_match
ask_git(const struct scratch *scratch, const struct row *row)
{
	size_t length = strlen(row->path) - (row->path[strlen(row->path) - 1] == '/');
	char out[4096], top[256], path[256];
	const char *const argv[] = {"git", "check-ignore", "--no-index", "-z",
				    "-v",  "-n",           "--stdin",    NULL};
	struct moat_error err = MOAT_ERROR_INIT;
	const char *pattern = out;
	int saved = dup(0), input;

	make(scratch, row->path, top);
	assert_ok(fs_write_atomic(scratch->fd, ".gitignore", row->patterns, strlen(row->patterns),
				  0600, &err),
		  &err);
	memcpy(path, row->path, length);
	path[length] = '\0';
	assert_ok(fs_write_atomic(scratch->fd, ".git/input", path, length + 1, 0600, &err), &err);
	input = openat(scratch->fd, ".git/input", O_RDONLY | O_CLOEXEC);
	assert_true(saved >= 0 && input >= 0 && dup2(input, 0) == 0);
	(void) run_git(scratch, argv, out, sizeof out);
	assert_int_equal(dup2(saved, 0), 0);
	close(saved);
	close(input);
	assert_ok(fs_remove_tree(scratch->fd, top, &err), &err);
	for (int i = 0; i < 2; i++)
		pattern += strlen(pattern) + 1;
	return *out == '\0' ? NO : *pattern == '!' ? IN : IG;
}

static void
the_table_by_git(void **state)
{
	const struct scratch *scratch = *state;
	unsigned wrong = 0;

	if (scratch->fd < 0)
		skip(); /* no git here */
	for (size_t i = 0; i < ROWS; i++) {
		enum ignore_match match;

		match = ask_git(scratch, &table[i]);
		if (match == table[i].expected)
			continue;
		wrong++;
		print_error("row %zu: `%s' on `%s': git says %d, not %d\n", i, table[i].patterns,
			    table[i].path, match, table[i].expected);
	}
	assert_int_equal(wrong, 0);
}

/* ------------------------------------------------------------------------------ special cases */

static void
empty_lists(void **state)
{
	static const struct {
		const char *text;
		bool empty;
	} rows[] = {
		{"", true},      {"\n\n", true},     {"# a\n#b", true}, {"/\n!\n!/\n//\n", true},
		{"   \n", true}, {"\r\n\r\n", true}, {"a", false},      {"#\n!a\n", false},
		{"\\", false}};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct ignore_list *list = ignore_parse(rows[i].text, strlen(rows[i].text));

		assert_non_null(list);
		assert_int_equal(ignore_is_empty(list), rows[i].empty);
		ignore_free(list);
	}
	ignore_free(NULL);
}

static void
nul_ends_a_pattern(void **state)
{
	static const char text[] = "foo\0bar\n\0baz\nqux\0";

	assert_int_equal(ask(text, sizeof text - 1, "foo"), IG);
	assert_int_equal(ask(text, sizeof text - 1, "bar"), NO);
	assert_int_equal(ask(text, sizeof text - 1, "baz"), NO);
	assert_int_equal(ask(text, sizeof text - 1, "qux"), IG);
}

/* Up to git 2.51: two stars behind a plain beginning are the two stars that cross directories. */
static void
stars_behind_plain_text(void **state)
{
	assert_int_equal(ask("a**/b", 5, "ax/y/b"), IG);
	assert_int_equal(ask("/a**", 4, "ax/y"), IG);
	assert_int_equal(ask("?a**/b", 6, "xax/y/b"), NO);
	assert_false(ignore_wildmatch("a**/b", "ax/y/b"));
}

/* Many patterns, each found, the last one winning: the buckets keep the order. */
static void
many_patterns(void **state)
{
	size_t used = 0, size = 1 << 20;
	char *text = malloc(size), name[64];
	struct ignore_list *list;

	assert_non_null(text);
	for (int i = 0; i < 5000; i++)
		used += (size_t) snprintf(text + used, size - used, "name%d\n*.suffix%d\n/p%d/*q\n",
					  i, i, i);
	for (int i = 0; i < 5000; i += 2)
		used += (size_t) snprintf(text + used, size - used, "!name%d\n!*.suffix%d\n", i, i);
	list = ignore_parse(text, used);
	assert_non_null(list);
	for (int i = 0; i < 5000; i++) {
		enum ignore_match expected = i % 2 == 0 ? IN : IG;

		snprintf(name, sizeof name, "name%d", i);
		assert_int_equal(ignore_check(list, name, name, false), expected);
		snprintf(name, sizeof name, "d/x.suffix%d", i);
		assert_int_equal(ignore_check(list, name, name + 2, false), expected);
		snprintf(name, sizeof name, "p%d/xq", i);
		assert_int_equal(ignore_check(list, name, strchr(name, '/') + 1, false), IG);
	}
	ignore_free(list);
	free(text);
}

/* Patterns that take exponential time when every star is tried at every place. */
static void
no_blowup(void **state)
{
	char pattern[512] = "", text[4096] = "";

	for (int i = 0; i < 40; i++)
		strcat(pattern, "**/a*a*a*/");
	strcat(pattern, "b");
	for (int i = 0; i < 300; i++)
		strcat(text, "aaaaaaaaaa/");
	strcat(text, "c");
	alarm(20);
	assert_false(ignore_wildmatch(pattern, text));
	text[strlen(text) - 1] = 'b';
	assert_true(ignore_wildmatch(pattern, text));
	alarm(0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_table),
		cmocka_unit_test_setup_teardown(the_table_by_git, setup_git, teardown_git),
		cmocka_unit_test(empty_lists),
		cmocka_unit_test(nul_ends_a_pattern),
		cmocka_unit_test(stars_behind_plain_text),
		cmocka_unit_test(many_patterns),
		cmocka_unit_test(no_blowup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
