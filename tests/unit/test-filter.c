/* SPDX-License-Identifier: Apache-2.0 */
/* core/filter: each sentence of filter.h, on real repositories, with the real git beside it. */
#include <pthread.h>

#include "tests/unit/filter-git.h"

static void
levels_and_precedence(void **state)
{
	const struct place *place = *state;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "git/ignore", "*.global\n*.both\n"); /* $XDG_CONFIG_HOME/git/ignore */
	put(place, "r/.git/info/exclude", "*.info\n!x.both\n/anchored\n");
	put(place, "r/.gitignore", "*.o\n/top\nd/mid\n!keep.info\n");
	put(place, "r/d/.gitignore", "!*.o\n/low\n");
	for (const char *const *p = (const char *const[]){"a.o", "top", "d/top", "d/a.o", "d/mid",
							  "e/d/mid", "d/low", "d/e/low", "a.global",
							  "a.both", "x.both", "a.info", "keep.info",
							  "anchored", "d/anchored", "plain", NULL};
	     *p != NULL; p++) {
		char path[64];

		snprintf(path, sizeof path, "r/%s", *p);
		put(place, path, *p);
	}
	assert_as_git(place, "r", &view);
	assert_true(has(&view, "d/a.o") && has(&view, "x.both") && has(&view, "keep.info"));
	assert_true(has(&view, "d/top") && has(&view, "d/anchored") && has(&view, "plain"));
	assert_false(has(&view, "a.o") || has(&view, "top") || has(&view, "d/mid"));
	assert_false(has(&view, "d/low") || has(&view, "a.global") || has(&view, "a.both"));
	assert_false(has(&view, "a.info") || has(&view, "anchored") || has(&view, ".git/"));
	view_free(&view);
}

static void
tracked_though_ignored(void **state)
{
	const struct place *place = *state;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "/build/\n*.log\n/empty/\n!/build/c/new\n");
	put(place, "r/build/a", "");
	put(place, "r/build/b", "");
	put(place, "r/build/c/d/deep", "");
	put(place, "r/build/c/new", "");
	put(place, "r/build/.gitignore", "!*\n");
	put(place, "r/build2/a", "");
	put(place, "r/x.log", "");
	put(place, "r/y.log", "");
	put(place, "r/empty/", "");
	GIT(place, "r", "add", "-f", "build/a", "build/c/d/deep", "x.log");
	for (int version = 2; version <= 4; version++) {
		char number[2] = {(char) ('0' + version), '\0'};

		GIT(place, "r", "update-index", "--index-version", number);
		assert_as_git(place, "r", &view);
		assert_true(has(&view, "build/") && has(&view, "build/a") && has(&view, "x.log"));
		assert_true(has(&view, "build/c/d/deep") && has(&view, "build2/a"));
		assert_false(has(&view, "build/b") || has(&view, "build/c/new"));
		assert_false(has(&view, "y.log") || has(&view, "empty/"));
		assert_false(has(&view, "build/.gitignore"));
		view_free(&view);
	}
}

static void
verdicts(void **state)
{
	const struct place *place = *state;
	const struct filter_options options = {0};
	const struct filter_scope *scope;
	struct moat_error err = MOAT_ERROR_INIT;
	struct filter *filter = NULL;
	char path[128];
	int fd;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "i*\n");
	put(place, "r/id/tracked", "");
	GIT(place, "r", "add", "-f", "id/tracked");
	snprintf(path, sizeof path, "%s/r", place->path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_ok(filter_open(fd, path, &options, &filter, &err), &err);
	assert_ok(filter_root(filter, &scope, &err), &err);
	assert_false(filter_root_is_ignored(filter));
	assert_int_equal(filter_check(filter, scope, "x", "x", false), FILTER_CAPTURE);
	assert_int_equal(filter_check(filter, scope, "i", "i", false), FILTER_IGNORE);
	assert_int_equal(filter_check(filter, scope, "id", "id", true), FILTER_TRACKED_ONLY);
	assert_int_equal(filter_check(filter, scope, "ie", "ie", true), FILTER_IGNORE);
	assert_int_equal(filter_check(filter, scope, ".git", ".git", true), FILTER_IGNORE);
	assert_int_equal(filter_check(filter, scope, "d/.git", ".git", false), FILTER_IGNORE);
	assert_ok(filter_enter(filter, scope, "id", fd, FILTER_TRACKED_ONLY, true, &scope, &err),
		  &err);
	assert_int_equal(filter_check(filter, scope, "id/tracked", "tracked", false),
			 FILTER_CAPTURE);
	assert_int_equal(filter_check(filter, scope, "id/x", "x", false), FILTER_IGNORE);
	assert_int_equal(filter_check(filter, scope, "id/d", "d", true), FILTER_IGNORE);
	filter_free(filter);
	close(fd);
}

static void
below_a_repository(void **state)
{
	const struct place *place = *state;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.git/info/exclude", "a/b/exact\n*.info\n");
	put(place, "r/.gitignore", "*.o\n/a/b/rooted\n/wholly/\na/b/w/\n");
	put(place, "r/a/.gitignore", "!keep.o\n/b/from-a\n/top\n");
	put(place, "r/a/b/.gitignore", "own\n");
	for (const char *const *p =
		     (const char *const[]){"x.o", "keep.o", "rooted", "from-a", "top", "own",
					   "d/rooted", "exact", "x.info", "plain", "w/x", NULL};
	     *p != NULL; p++) {
		char path[64];

		snprintf(path, sizeof path, "r/a/b/%s", *p);
		put(place, path, "");
	}
	put(place, "r/wholly/sub/file", "");
	put(place, "r/wholly/sub/tracked", "");
	put(place, "r/wholly/sub/.gitignore", "!*\n");
	GIT(place, "r", "add", "-f", "a/b/x.o", "wholly/sub/tracked");
	assert_as_git(place, "r/a/b", &view);
	assert_true(has(&view, "keep.o") && has(&view, "x.o") && has(&view, "top"));
	assert_true(has(&view, "d/rooted") && has(&view, "plain"));
	assert_false(has(&view, "rooted") || has(&view, "from-a") || has(&view, "own"));
	assert_false(has(&view, "exact") || has(&view, "x.info") || has(&view, "w/"));
	view_free(&view);
	assert_as_git(place, "r/a", &view);
	view_free(&view);
	/* All of the workspace is ignored: only what is tracked. */
	assert_as_git(place, "r/wholly/sub", &view);
	assert_int_equal(view.captured.count, 1);
	assert_true(has(&view, "tracked"));
	view_free(&view);
}

static void
linked_worktree(void **state)
{
	const struct place *place = *state;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.git/info/exclude", "*.info\n");
	put(place, "r/file", "");
	GIT(place, "r", "add", "file");
	GIT(place, "r", "commit", "-qm", "x");
	GIT(place, "r", "worktree", "add", "-q", "../w");
	put(place, "w/x.info", "");
	put(place, "w/y.info", "");
	put(place, "w/other", "");
	GIT(place, "w", "add", "-f", "y.info");
	assert_as_git(place, "w", &view);
	assert_true(has(&view, "y.info") && has(&view, "other") && has(&view, "file"));
	assert_false(has(&view, "x.info") || has(&view, ".git"));
	view_free(&view);
}

static void
nested_repositories(void **state)
{
	const struct place *place = *state;
	static const char *const additional[] = {"*.extra", NULL};
	const struct filter_options options = {0, additional};
	struct moat_error err = MOAT_ERROR_INIT;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "*.o\n/ignored/\n/sub-ignored/\nfake/x\n");
	put(place, "git/ignore", "*.global\n");
	for (const char *const *p =
		     (const char *const[]){"r/n", "r/n/deeper", "r/ignored", "r/sub-ignored", NULL};
	     *p != NULL; p++) {
		char path[64];

		GIT(place, ".", "init", "-q", *p);
		for (const char *const *q =
			     (const char *const[]){"x.o", "x.global", "x.inner", "x.info",
						   "x.extra", "tracked.inner", NULL};
		     *q != NULL; q++) {
			snprintf(path, sizeof path, "%s/%s", *p, *q);
			put(place, path, "");
		}
		snprintf(path, sizeof path, "%s/.git/info/exclude", *p);
		put(place, path, "*.info\n");
		snprintf(path, sizeof path, "%s/.gitignore", *p);
		put(place, path, "*.inner\n");
		GIT(place, *p, "add", "-f", "tracked.inner");
		GIT(place, *p, "commit", "-qm", "x");
	}
	GIT(place, "r", "-c", "advice.addEmbeddedRepo=false", "add", "-f", "sub-ignored");
	put(place, "r/fake/.git/", ""); /* not a repository */
	put(place, "r/fake/x", "");
	put(place, "r/fake/y", "");
	assert_as_git(place, "r", &view);
	assert_true(has(&view, "n/x.o") && has(&view, "n/tracked.inner"));
	assert_true(has(&view, "n/deeper/x.o") && has(&view, "fake/y") && has(&view, "n/x.extra"));
	assert_true(has(&view, "sub-ignored/x.o") && has(&view, "sub-ignored/tracked.inner"));
	assert_false(has(&view, "n/x.inner") || has(&view, "n/x.global") || has(&view, "n/x.info"));
	assert_false(has(&view, "ignored/") || has(&view, "fake/x") || has(&view, "n/.git/"));
	assert_false(has(&view, "sub-ignored/x.inner"));
	view_free(&view);

	assert_ok(view_make(place, "r", &options, &view, &err), &err);
	assert_false(has(&view, "n/x.extra") || has(&view, "n/deeper/x.extra"));
	assert_true(has(&view, "n/x.o"));
	assert_lists_equal(&view.captured, "live", &view.stored, "stored");
	view_free(&view);
}

/* Git does not take a directory for a repository when it tracks files in it. */
static void
repository_in_a_tracked_directory(void **state)
{
	const struct place *place = *state;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "*.o\n");
	put(place, "r/d/file", "");
	put(place, "r/d/x.o", "");
	GIT(place, "r", "add", "d/file");
	GIT(place, ".", "init", "-q", "r/d");
	assert_as_git(place, "r", &view);
	assert_false(has(&view, "d/x.o"));
	assert_true(has(&view, "d/file"));
	view_free(&view);
	assert_as_git(place, "r/d", &view); /* from inside it is one */
	assert_true(has(&view, "x.o"));
	view_free(&view);
}

static void
odd_rule_files(void **state)
{
	const struct place *place = *state;
	char path[128];
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "rules", "*.o\n");
	for (const char *const *p =
		     (const char *const[]){"link", "directory", "pipe", "closed", "empty", NULL};
	     *p != NULL; p++) {
		snprintf(path, sizeof path, "r/%s/x.o", *p);
		put(place, path, "");
	}
	assert_int_equal(symlinkat("../../rules", place->fd, "r/link/.gitignore"), 0);
	put(place, "r/directory/.gitignore/", "");
	put(place, "r/empty/.gitignore", "");
	put(place, "r/closed/.gitignore", "*.o\n");
	assert_int_equal(fchmodat(place->fd, "r/closed/.gitignore", 0, 0), 0);
	assert_as_git(place, "r", &view);
	assert_true(has(&view, "link/x.o") && has(&view, "directory/x.o"));
	assert_true(has(&view, "empty/x.o"));
	assert_int_equal(has(&view, "closed/x.o"), geteuid() != 0);
	view_free(&view);
	/* git itself would wait for a FIFO for ever */
	assert_int_equal(mkfifoat(place->fd, "r/pipe/.gitignore", 0600), 0);
	(void) unlinkat(place->fd, "r/.git/info/exclude", 0);
	assert_int_equal(mkfifoat(place->fd, "r/.git/info/exclude", 0600), 0);
	put(place, "git/", "");
	assert_int_equal(mkfifoat(place->fd, "git/ignore", 0600), 0);
	put(place, "r/pipe/sub/.git/HEAD", "ref: refs/heads/main\n");
	put(place, "r/pipe/sub/.git/objects/", "");
	put(place, "r/pipe/sub/.git/refs/", "");
	assert_int_equal(mkfifoat(place->fd, "r/pipe/sub/.git/config", 0600), 0);
	alarm(20);
	{
		struct moat_error err = MOAT_ERROR_INIT;

		assert_ok(view_make(place, "r", NULL, &view, &err), &err);
	}
	alarm(0);
	assert_true(has(&view, "pipe/x.o"));
	view_free(&view);
}

static void
excludes_file(void **state)
{
	const struct place *place = *state;
	static const char *const values[] = {"~/mine", "in-the-tree/mine", "", "missing", NULL};
	struct view view;
	char path[128];
	FILE *file;

	GIT(place, ".", "init", "-q", "r");
	snprintf(path, sizeof path, "%s/mine", getenv("HOME"));
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs("*.o\n", file) >= 0 && fclose(file) == 0);
	put(place, "r/in-the-tree/mine", "*.o\n");
	put(place, "git/ignore", "*.default\n");
	put(place, "r/x.o", "");
	put(place, "r/x.default", "");
	assert_as_git(place, "r", &view);
	assert_true(has(&view, "x.o") && !has(&view, "x.default"));
	view_free(&view);
	for (int i = 0; values[i] != NULL; i++) {
		GIT(place, "r", "config", "core.excludesFile", values[i]);
		assert_as_git(place, "r", &view);
		assert_int_equal(has(&view, "x.o"), i >= 2);
		assert_true(has(&view, "x.default"));
		view_free(&view);
	}
}

/* However a file of configuration says it, or has it in a comment. */
static void
spelled_excludes_file(void **state)
{
	static const struct {
		const char *text;
		bool ignored; /* r/x.o, by r/in-the-tree/mine */
	} cases[] = {
		{"[core]\n\texcludesFile = in-the-tree/mine\n", true},
		{"[CORE]\nEXCLUDESFILE=in-the-tree/mine  \r\n", true},
		{"[core]\r\n  excludesfile\t=\tin-the-tree/mine", true},
		{"[core] ; comment\nexcludesfile = in-the-tree/mine\n", true},
		{"[core] excludesfile = in-the-tree/mine\n", true},
		{"[core]\nexcludesfile = \"in-the-tree/mine\"\n", true},
		{"[core]\nexcludesfile = in-the-tree/mi\\\nne\n", true},
		{"[core]\nexcludesfile = in-the-tree/mine # comment\n", true},
		{"[core]\nexcludesfile = in-the-tree/mine;comment\n", true},
		{"[core]\nexcludesfile = none\nexcludesfile = in-the-tree/mine\n", true},
		{"[core]\nexcludesfile = in-the-tree/mine\nexcludesfile = none\n", false},
		{"[core]\nexcludesfile = in-the-tree/mine\n[core]\nexcludesfile = none\n", false},
		{"[core]\n# excludesfile = in-the-tree/mine\n", false},
		{"[core]\n;excludesfile = in-the-tree/mine\n", false},
		{"[core \"x\"]\nexcludesfile = in-the-tree/mine\n", false},
		{"[other]\nexcludesfile = in-the-tree/mine\n", false},
		{"[core]\n[other]\nexcludesfile = in-the-tree/mine\n", false},
		{"[other]\nx = \"[core]\\\nexcludesfile = in-the-tree/mine\"\n", false},
		{"[include]\npath = ../included\n", true},
		{"[core]\nexcludesfile = none\n[include]\npath = ../included\n", true},
		{"[include]\npath = ../included\n[core]\nexcludesfile = none\n", false},
		{"[includeIf \"gitdir:**/r/\"]\npath = ../included\n", true},
	};
	const struct place *place = *state;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/in-the-tree/mine", "*.o\n");
	put(place, "r/x.o", "");
	put(place, "r/included", "[core]\nexcludesfile = in-the-tree/mine\n");
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		put(place, "r/.git/config", cases[i].text);
		assert_as_git(place, "r", &view);
		if (has(&view, "x.o") == cases[i].ignored)
			fail_msg("%s", cases[i].text);
		view_free(&view);
	}
}

/* A sparse index names only the directories outside the cone: what is in one of them all the same
 * is as tracked as it is for git. */
static void
sparse_index(void **state)
{
	const struct place *place = *state;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "*.o\n");
	put(place, "r/in/x.o", "");
	put(place, "r/out/deep/x.o", "");
	put(place, "r/out/plain", "");
	GIT(place, "r", "add", "-f", "-A");
	GIT(place, "r", "commit", "-q", "-m", "one");
	GIT(place, "r", "sparse-checkout", "set", "--cone", "--sparse-index", "in");
	assert_int_equal(faccessat(place->fd, "r/out", F_OK, 0), -1);
	put(place, "r/out/deep/x.o", "");
	put(place, "r/out/plain", "");
	put(place, "r/in/y.o", "");
	/* First moat: git may write a whole index when it looks. */
	{
		struct moat_error err = MOAT_ERROR_INIT;

		assert_ok(view_make(place, "r", NULL, &view, &err), &err);
	}
	assert_true(has(&view, "in/x.o") && has(&view, "out/deep/x.o") && has(&view, "out/plain"));
	assert_false(has(&view, "in/y.o"));
	view_free(&view);
	assert_as_git(place, "r", &view);
	view_free(&view);
}

/* The repository's own wins over the user's, and of these ~/.gitconfig. */
static void
several_excludes_files(void **state)
{
	const struct place *place = *state;
	struct view view;
	char home[128];
	FILE *file;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/by-xdg", "x.a\n");
	put(place, "r/by-home", "x.b\n");
	put(place, "r/by-repository", "x.c\n");
	put(place, "r/x.a", "");
	put(place, "r/x.b", "");
	put(place, "r/x.c", "");
	for (int step = 0; step < 3; step++) {
		if (step == 0)
			put(place, "git/config", "[core]\nexcludesfile = by-xdg\n");
		if (step == 1) {
			(void) snprintf(home, sizeof home, "%s/.gitconfig", getenv("HOME"));
			file = fopen(home, "w");
			assert_non_null(file);
			assert_true(fputs("[core]\nexcludesfile = by-home\n", file) >= 0 &&
				    fclose(file) == 0);
		}
		if (step == 2)
			GIT(place, "r", "config", "core.excludesFile", "by-repository");
		assert_as_git(place, "r", &view);
		assert_int_equal(has(&view, "x.a"), step != 0);
		assert_int_equal(has(&view, "x.b"), step != 1);
		assert_int_equal(has(&view, "x.c"), step != 2);
		view_free(&view);
	}
	assert_int_equal(unlink(home), 0);
}

/* In a process of its own, because libgit2 1.5 leaks when it looks at extensions. */
static void
format_extensions(void **state)
{
	const struct place *place = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	struct view view;
	int status;
	pid_t pid;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "*.o\n");
	put(place, "r/x.o", "");
	GIT(place, "r", "config", "core.repositoryFormatVersion", "1");
	GIT(place, "r", "config", "extensions.partialClone", "origin");
	GIT(place, "r", "config", "extensions.worktreeConfig", "true");
	pid = fork();
	if (pid == 0) {
		bool fine = view_make(place, "r", NULL, &view, &err) == 0 && !has(&view, "x.o");

		/* Not _exit(): valgrind would count what was leaked. */
		execlp(fine ? "true" : "false", fine ? "true" : "false", NULL);
		_exit(126);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void
without_a_repository(void **state)
{
	const struct place *place = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	struct view view;

	put(place, "git/ignore", "*.global\n");
	put(place, ".gitignore", "*.above\n");
	put(place, "w/.gitignore", "*.o\n");
	put(place, "w/d/.gitignore", "!a.o\n");
	for (const char *const *p = (const char *const[]){"w/x.global", "w/x.above", "w/x.o",
							  "w/d/a.o", "w/d/b.o", NULL};
	     *p != NULL; p++)
		put(place, *p, "");
	assert_ok(view_make(place, "w", NULL, &view, &err), &err);
	assert_true(has(&view, "x.global") && has(&view, "x.above") && has(&view, "d/a.o"));
	assert_false(has(&view, "x.o") || has(&view, "d/b.o"));
	assert_lists_equal(&view.captured, "live", &view.stored, "stored");
	view_free(&view);
}

static void
configured(void **state)
{
	const struct place *place = *state;
	static const char *const additional[] = {"*.c", "/only-top", "!wanted.o", "out/", NULL};
	struct filter_options options = {0, additional};
	struct moat_error err = MOAT_ERROR_INIT;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "*.o\n!x.c\n");
	for (const char *const *p =
		     (const char *const[]){"r/x.c", "r/only-top", "r/d/only-top", "r/wanted.o",
					   "r/x.o", "r/out/f", "r/out/wanted.o", NULL};
	     *p != NULL; p++)
		put(place, *p, "");
	GIT(place, "r", "add", "-f", "x.c", "out/f");
	assert_ok(view_make(place, "r", &options, &view, &err), &err);
	assert_true(has(&view, "d/only-top") && has(&view, "wanted.o"));
	assert_false(has(&view, "x.c") || has(&view, "only-top") || has(&view, "x.o"));
	assert_false(has(&view, "out/"));
	assert_lists_equal(&view.captured, "live", &view.stored, "stored");
	view_free(&view);

	/* Ignored, and all that is tracked in it is left out: nothing is captured there. */
	options.additional = (const char *const[]){"*.c", "left/", NULL};
	put(place, "r/.gitignore", "/none/\n/some/\n");
	for (const char *const *p =
		     (const char *const[]){"r/none/deep/x.c", "r/none/deep/f", "r/none/left/f",
					   "r/some/deep/x.c", "r/some/deep/f", NULL};
	     *p != NULL; p++)
		put(place, *p, "");
	GIT(place, "r", "add", "-f", "none/deep/x.c", "none/left/f", "some/deep");
	assert_ok(view_make(place, "r", &options, &view, &err), &err);
	assert_false(has(&view, "none/") || has(&view, "none/deep/"));
	assert_true(has(&view, "some/deep/f"));
	assert_false(has(&view, "some/deep/x.c"));
	assert_lists_equal(&view.captured, "live", &view.stored, "stored");
	view_free(&view);

	options.additional = additional;
	options.flags = FILTER_NO_GITIGNORE;
	assert_ok(view_make(place, "r", &options, &view, &err), &err);
	assert_true(has(&view, "x.o") && has(&view, "d/only-top"));
	assert_false(has(&view, "x.c") || has(&view, "out/") || has(&view, ".git/"));
	assert_lists_equal(&view.captured, "live", &view.stored, "stored");
	assert_int_equal(view.manifest->filter_flags, FILTER_NO_GITIGNORE);
	assert_int_equal(view.manifest->rule_count, 1);
	view_free(&view);
}

static void
damaged_index(void **state)
{
	const struct place *place = *state;
	const struct filter_options options = {FILTER_NO_GITIGNORE, NULL};
	struct moat_error err = MOAT_ERROR_INIT;
	struct view view;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/x.o", "");
	put(place, "r/.git/index", "this is no index");
	assert_ok(view_make(place, "r", NULL, &view, &err), &err); /* nobody needs it */
	view_free(&view);
	put(place, "r/.gitignore", "*.o\n");
	assert_fails(view_make(place, "r", NULL, &view, &err), &err, MOAT_CORRUPT, "/r'");
	view_free(&view);
	assert_fails(view_make(place, "r", NULL, &view, &err), &err, MOAT_CORRUPT,
		     "snapshots.exclude.ignore_gitignore: true");
	view_free(&view);
	assert_ok(view_make(place, "r", &options, &view, &err), &err);
	view_free(&view);
	assert_int_equal(unlinkat(place->fd, "r/.git/index", 0), 0);
	assert_int_equal(mkfifoat(place->fd, "r/.git/index", 0600), 0);
	alarm(20);
	(void) view_make(place, "r", NULL, &view, &err); /* must not wait */
	alarm(0);
	moat_error_clear(&err);
	view_free(&view);
}

/* ------------------------------------------------------------------------------ stored filters */

static void
what_is_stored(void **state)
{
	const struct place *place = *state;
	struct view view;
	size_t seen[FILTER_REPOSITORY + 1] = {0};

	GIT(place, ".", "init", "-q", "r");
	GIT(place, ".", "init", "-q", "r/s/nested");
	put(place, "git/ignore", "*.global\n");
	put(place, "r/.gitignore", "*.o\n");
	put(place, "r/.git/info/exclude", "*.info\n");
	put(place, "r/s/never/.gitignore", "a\n");
	put(place, "r/s/.gitignore", "never\n");
	put(place, "r/s/only-comments/.gitignore", "# a\n");
	put(place, "r/s/d/.gitignore", "b\n");
	assert_as_git(place, "r/s", &view);
	for (size_t i = 0; i < view.manifest->rule_count; i++) {
		const struct manifest_rule *rule = &view.manifest->rules[i];
		bool above = strcmp(rule->directory, "..") == 0;

		assert_true(strcmp(rule->directory, "") == 0 || above ||
			    strcmp(rule->directory, "d") == 0 ||
			    strcmp(rule->directory, "nested") == 0);
		assert_in_range(rule->source, FILTER_GITIGNORE, FILTER_REPOSITORY);
		seen[rule->source]++;
		if (rule->source == FILTER_REPOSITORY)
			assert_string_equal(rule->text, above ? "s" : "");
	}
	assert_int_equal(seen[FILTER_REPOSITORY], 2);
	assert_int_equal(seen[FILTER_GLOBAL], 2);
	assert_int_equal(seen[FILTER_INFO_EXCLUDE], 1); /* git's own has comments only */
	assert_int_equal(seen[FILTER_GITIGNORE], 3);    /* "..", "", "d" */
	view_free(&view);
}

/* The rules of the tree have changed since, and so has the tree: the stored ones hold. */
static void
through_the_eyes_of_the_capture(void **state)
{
	const struct place *place = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	struct list now = {0};
	struct view view;
	int fd;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "*.o\n/build/\n");
	put(place, "r/build/kept", "");
	put(place, "r/kept.o", "");
	GIT(place, "r", "add", "-f", "build/kept", "kept.o");
	assert_as_git(place, "r", &view);
	put(place, "r/.gitignore", "/new\n");
	put(place, "r/new", "");
	put(place, "r/x.o", "");
	put(place, "r/build/x", "");
	put(place, "r/unknown/.gitignore", "*\n");
	put(place, "r/unknown/file", "");
	put(place, "r/unknown/x.o", "");
	GIT(place, ".", "init", "-q", "r/unknown/repository");
	put(place, "r/unknown/repository/y.o", "");
	(void) unlinkat(place->fd, "r/.git/index", 0);
	fd = openat(place->fd, "r", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_ok(view_of_stored(fd, view.manifest, &now, &err), &err);
	close(fd);
	list_free(&view.captured);
	view.captured = now;
	assert_true(has(&view, "new") && has(&view, "unknown/file") && has(&view, "build/kept"));
	assert_true(has(&view, "kept.o") && has(&view, "unknown/.gitignore"));
	assert_false(has(&view, "x.o") || has(&view, "build/x") || has(&view, "unknown/x.o"));
	assert_false(has(&view, "unknown/repository/y.o"));
	view_free(&view);
}

static void
bad_manifests(void **state)
{
	static const struct {
		const char *directory, *text;
		int source;
		const char *says; /* NULL: fine */
	} rows[] = {
		{"..", "a", FILTER_REPOSITORY, NULL},
		{"../..", "a/b", FILTER_REPOSITORY, NULL},
		{"..", "", FILTER_REPOSITORY, "without a proper way"},
		{"..", "a/b", FILTER_REPOSITORY, "without a proper way"},
		{"../..", "a", FILTER_REPOSITORY, "without a proper way"},
		{"../..", "a/..", FILTER_REPOSITORY, "without a proper way"},
		{"../..", "./a", FILTER_REPOSITORY, "without a proper way"},
		{"../..", "a//b", FILTER_REPOSITORY, "without a proper way"},
		{"..", "/a", FILTER_REPOSITORY, "without a proper way"},
		{"..", "a/", FILTER_REPOSITORY, "without a proper way"},
		{"..x", "", FILTER_REPOSITORY, NULL},
		{"", "", FILTER_REPOSITORY + 1, "unknown kind 6"},
		{"", "", 0, "unknown kind 0"},
	};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct moat_error err = MOAT_ERROR_INIT;
		struct manifest *manifest = manifest_new();
		const struct filter_scope *scope;
		struct filter *filter = NULL;

		assert_non_null(manifest);
		assert_ok(manifest_add_rule(manifest, rows[i].directory, rows[i].source,
					    rows[i].text, strlen(rows[i].text), &err),
			  &err);
		if (rows[i].says != NULL) {
			assert_fails(filter_open_stored(manifest, &filter, &err), &err,
				     MOAT_CORRUPT, rows[i].says);
		} else {
			assert_ok(filter_open_stored(manifest, &filter, &err), &err);
			assert_ok(filter_root(filter, &scope, &err), &err);
			assert_int_equal(filter_check(filter, scope, "x", "x", false),
					 FILTER_CAPTURE);
		}
		filter_free(filter);
		manifest_free(manifest);
	}
}

/* -------------------------------------------------------------------------------- threads */

struct job {
	struct filter *filter;
	int fd;
	const struct filter_scope *root;
	unsigned wrong;
};

static void *
check_many(void *argument)
{
	struct job *job = argument;
	struct moat_error err = MOAT_ERROR_INIT;
	const struct filter_scope *scope = job->root;

	for (int i = 0; i < 500; i++) {
		job->wrong +=
			filter_check(job->filter, scope, "d/t.o", "t.o", false) != FILTER_CAPTURE;
		job->wrong +=
			filter_check(job->filter, scope, "d/u.o", "u.o", false) != FILTER_IGNORE;
		job->wrong += filter_check(job->filter, scope, "d/f", "f", false) != FILTER_CAPTURE;
		job->wrong += filter_enter(job->filter, job->root, "d", job->fd, FILTER_CAPTURE,
					   true, &scope, &err) < 0;
	}
	return NULL;
}

static void
threads(void **state)
{
	const struct place *place = *state;
	const struct filter_options options = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	pthread_t threads_[4];
	struct job jobs[4];
	struct filter *filter = NULL;
	const struct filter_scope *root;
	char path[128];
	int fd, root_fd;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/.gitignore", "*.o\n");
	put(place, "r/d/.gitignore", "*.o\n");
	put(place, "r/d/t.o", "");
	GIT(place, "r", "add", "-f", "d/t.o");
	snprintf(path, sizeof path, "%s/r", place->path);
	root_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_ok(filter_open(root_fd, path, &options, &filter, &err), &err);
	assert_ok(filter_root(filter, &root, &err), &err);
	fd = openat(root_fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 4; i++) {
		jobs[i] = (struct job){filter, fd, root, 0};
		assert_int_equal(pthread_create(&threads_[i], NULL, check_many, &jobs[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads_[i], NULL), 0);
		assert_int_equal(jobs[i].wrong, 0);
	}
	close(fd);
	close(root_fd);
	filter_free(filter);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, place_setup, place_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(levels_and_precedence),
		TEST(tracked_though_ignored),
		TEST(verdicts),
		TEST(below_a_repository),
		TEST(linked_worktree),
		TEST(nested_repositories),
		TEST(repository_in_a_tracked_directory),
		TEST(odd_rule_files),
		TEST(excludes_file),
		TEST(spelled_excludes_file),
		TEST(several_excludes_files),
		TEST(sparse_index),
		TEST(format_extensions),
		TEST(without_a_repository),
		TEST(configured),
		TEST(damaged_index),
		TEST(what_is_stored),
		TEST(through_the_eyes_of_the_capture),
		cmocka_unit_test(bad_manifests),
		TEST(threads),
	};

	return cmocka_run_group_tests(tests, home_setup, home_teardown) != 0;
}
