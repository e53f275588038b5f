/* SPDX-License-Identifier: Apache-2.0 */
/* Random trees with random patterns: the live filter, the stored one and the real git must agree.
 *
 * One repository holds many small trees, each with rules of its own, so that one call of git judges
 * them all.  A pair is one list of patterns on one tree.  $MOAT_TEST_SEED repeats a run;
 * $MOAT_TEST_SCALE=1000 makes it ten times as long. */
#include <time.h>

#include "tests/unit/filter-git.h"

#define TREES 50  /* in one repository */
#define ROUNDS 10 /* of new rules for the same trees */

static uint64_t seed_state;

static unsigned
below(unsigned n)
{
	seed_state = seed_state * 6364136223846793005u + 1442695040888963407u;
	return (unsigned) ((seed_state >> 33) % n);
}

static const char *
pick(const char *const *from, size_t n)
{
	return from[below((unsigned) n)];
}
#define PICK(array) pick(array, sizeof(array) / sizeof(array)[0])

static const char *const names[] = {
	"a",        "b",   "c",    "foo",    "foo.o", "bar.c", ".hid", "#x", "!y", "sp ace",
	"tr ",      "[b]", "b\\s", "*",      "q?",    "-",     "a-b",  "]",  "^",  "\xff",
	"\xc3\xa9", "ab",  "abc",  "foobar", "a.o",   "A",     "0",    "\\", " x", "b.o",
	"lib",      "src", "\t",   "a\r",    "[",     "a b ",  "x\n",  ".a", "#",  "!",
};
static const char *const atoms[] = {
	"*",   "?",    "[a-c]",  "[!a]",      "[^b]",         "[[:alpha:]]", "[[:punct:]]",
	"a",   "b",    "o",      ".",         "foo",          "\\*",         "\\a",
	"\\[", "[]]",  "[a",     "[]-a]",     "[[:digit:]a]", "\\",          "-",
	" ",   "\xff", "[\\]b]", "[[:foo:]]", "[!.]",         "*.o",         "#",
	"!",
};

struct trees {
	struct list directories, files; /* relative to the repository */
	struct list nested;
};

/* One component of a pattern: a name as it is, escaped, with a wildcard in it, or built of atoms.
 */
static void
component(struct buf *out)
{
	const char *name = PICK(names);
	unsigned kind = below(12);

	if (kind < 4) {
		buf_string(out, name);
	} else if (kind < 5) {
		for (; *name != '\0'; name++)
			buf_format(out, "\\%c", *name);
	} else if (kind < 6) {
		buf_format(out, "*%s", name);
	} else if (kind < 7) {
		buf_format(out, "%.*s*", (int) below((unsigned) strlen(name)) + 1, name);
	} else if (kind < 8) {
		buf_string(out, "**");
	} else if (kind < 9) {
		buf_string(out, "*");
	} else {
		/* No two stars in a row here: what they mean then is not the same in all gits. */
		for (unsigned n = 1 + below(3); n > 0; n--) {
			const char *atom = PICK(atoms);
			bool stars = out->size > 0 && out->data[out->size - 1] == '*';

			buf_string(out, atom + (stars && *atom == '*'));
		}
	}
}

static void
pattern(struct buf *out, bool mild)
{
	unsigned components = 1 + (below(3) == 0) + (below(4) == 0), end = below(24);

	if (below(40) == 0) {
		buf_string(out,
			   PICK(((const char *const[]){"", "/", "!", "#", "# x", "//", "!/"})));
	} else {
		if (below(4) == 0)
			buf_string(out, "!");
		if (below(5) == 0)
			buf_string(out, "/");
		for (unsigned i = 0; i < components; i++) {
			buf_string(out, i > 0 ? "/" : "");
			if (mild)
				buf_string(out, PICK(names));
			else
				component(out);
		}
		if (end < 5)
			buf_string(out, "/");
		else if (end < 9)
			buf_string(out, PICK(((const char *const[]){" ", "\\ ", "\r", "\\"})));
	}
	buf_string(out, "\n");
}

static void
write_rules(const struct place *place, const char *path, unsigned most, bool mild)
{
	struct buf text = {0};

	if (below(30) == 0)
		buf_string(&text, "\xef\xbb\xbf");
	for (unsigned n = below(most + 1); n > 0; n--)
		pattern(&text, mild);
	if (text.size > 0 && below(5) == 0)
		text.size--; /* no newline at the end */
	place_file(place, path, text.data != NULL ? text.data : "", text.size);
	buf_free(&text);
}

static void
fake_repository(const struct place *place, const char *directory)
{
	static const char *const parts[][2] = {
		{"HEAD", "ref: refs/heads/main\n"},
		{"config", "[core]\n\trepositoryformatversion = 0\n"},
		{"objects/", ""},
		{"refs/", ""}};

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		char path[512];

		snprintf(path, sizeof path, "r/%s/.git/%s", directory, parts[i][0]);
		put(place, path, parts[i][1]);
	}
}

static void
make_tree(const struct place *place, struct trees *trees, unsigned number)
{
	char top[32], path[512];
	size_t first = trees->directories.count;

	snprintf(path, sizeof path, "r/t%u/", number);
	put(place, path, "");
	snprintf(top, sizeof top, "t%u", number);
	list_add(&trees->directories, "", top, "");
	for (unsigned n = 20 + below(41); n > 0; n--) {
		size_t parent = first + below((unsigned) (trees->directories.count - first));
		bool directory = below(3) == 0;
		struct stat st;

		snprintf(path, sizeof path, "r/%s/%s%s", trees->directories.items[parent],
			 PICK(names), directory ? "/" : "");
		if (strlen(path) > 200)
			continue;
		if (directory)
			path[strlen(path) - 1] = '\0';
		if (fstatat(place->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
			continue;
		if (directory) {
			assert_int_equal(mkdirat(place->fd, path, 0700), 0);
			list_add(&trees->directories, "", path + 2, "");
		} else if (below(8) == 0) {
			assert_int_equal(symlinkat("a", place->fd, path), 0);
			list_add(&trees->files, "", path + 2, "");
		} else {
			put(place, path, "");
			list_add(&trees->files, "", path + 2, "");
		}
	}
	if (below(10) == 0 && trees->directories.count - first > 2) {
		size_t which = first + 1 + below((unsigned) (trees->directories.count - first - 1));

		fake_repository(place, trees->directories.items[which]);
		list_add(&trees->nested, "", trees->directories.items[which], "");
	}
}

/* Some files, wherever they are, are tracked; so are some nested repositories, as submodules. */
static void
track(const struct place *place, const struct trees *trees)
{
	static const char *const argv[] = {"git", "update-index", "-z", "--index-info", NULL};
	struct buf input = {0};

	for (size_t i = 0; i < trees->files.count; i++)
		if (below(12) == 0) {
			buf_format(&input, "100644 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\t%s",
				   trees->files.items[i]);
			buf_append(&input, "", 1);
		}
	for (size_t i = 0; i < trees->nested.count; i++)
		if (below(4) == 0) {
			buf_format(&input, "160000 e69de29bb2d1d6434b8b29ae775ad8c2e48c5391\t%s",
				   trees->nested.items[i]);
			buf_append(&input, "", 1);
		}
	if (input.size > 0)
		assert_int_equal(run_git(place, "r", argv, input.data, input.size, NULL), 0);
	buf_free(&input);
}

/* New rules for all trees.  Returns how many pairs that makes. */
static long
new_rules(const struct place *place, const struct trees *trees)
{
	char path[512];
	long pairs = 0;

	write_rules(place, "git/ignore", 2, true);
	write_rules(place, "r/.git/info/exclude", 3, true);
	write_rules(place, "r/.gitignore", 3, true);
	for (size_t i = 0; i < trees->directories.count; i++) {
		bool top = strchr(trees->directories.items[i], '/') == NULL;

		snprintf(path, sizeof path, "r/%s/.gitignore", trees->directories.items[i]);
		if (top || below(6) == 0)
			write_rules(place, path, top ? 8 : 3, false);
		else
			(void) unlinkat(place->fd, path, 0);
		pairs += top;
	}
	for (size_t i = 0; i < trees->nested.count; i++) {
		snprintf(path, sizeof path, "r/%s/.git/info/exclude", trees->nested.items[i]);
		write_rules(place, path, 3, false);
	}
	return pairs;
}

static void
agreement(void **state)
{
	const struct place *place = *state;
	const char *given = getenv("MOAT_TEST_SEED");
	uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
	long wanted = test_scaled(1500), pairs = 0;
	size_t objects = 0, captured = 0;

	seed_state = seed;
	print_message("MOAT_TEST_SEED=%llu\n", (unsigned long long) seed);
	while (pairs < wanted) {
		struct trees trees = {0};
		struct moat_error err = MOAT_ERROR_INIT;

		GIT(place, ".", "init", "-q", "r");
		put(place, "git/", "");
		for (unsigned i = 0; i < TREES; i++)
			make_tree(place, &trees, i);
		track(place, &trees);
		for (int round = 0; round < ROUNDS && pairs < wanted; round++) {
			char below_root[64];
			struct view view;

			pairs += new_rules(place, &trees);
			assert_as_git(place, "r", &view);
			objects += trees.files.count;
			captured += view.files.count;
			view_free(&view);
			/* one of them as a workspace of its own, below the repository */
			snprintf(
				below_root, sizeof below_root, "r/%s",
				trees.directories.items[below((unsigned) trees.directories.count)]);
			assert_as_git(place, below_root, &view);
			view_free(&view);
		}
		list_free(&trees.directories);
		list_free(&trees.files);
		list_free(&trees.nested);
		assert_ok(fs_remove_tree(place->fd, "r", &err), &err);
	}
	print_message("%ld pairs agree; %zu of %zu files captured\n", pairs, captured, objects);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(agreement, place_setup, place_teardown),
	};

	return cmocka_run_group_tests(tests, home_setup, home_teardown) != 0;
}
