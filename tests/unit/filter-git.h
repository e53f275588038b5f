/* SPDX-License-Identifier: Apache-2.0 */
/* Real repositories for the tests of core/filter, and what the real git lists in them. */
#ifndef MOAT_TESTS_UNIT_FILTER_GIT_H
#define MOAT_TESTS_UNIT_FILTER_GIT_H

#include <sys/wait.h>

#include "common/fs.h"
#include "tests/unit/filter-list.h"
#include "tests/unit/test.h"

struct place {
	char path[64];
	int fd;
};

static inline void
place_file(const struct place *place, const char *path, const char *text, size_t size)
{
	char *copy = strdup(path), *slash = copy;
	int fd;

	assert_non_null(copy);
	while ((slash = strchr(slash, '/')) != NULL) {
		*slash = '\0';
		(void) mkdirat(place->fd, copy, 0700);
		*slash++ = '/';
	}
	free(copy);
	if (path[strlen(path) - 1] == '/')
		return;
	fd = openat(place->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, size), (ssize_t) size);
	close(fd);
}

/* A file with this text, and its directories; "x/" is a directory. */
static inline void
put(const struct place *place, const char *path, const char *text)
{
	place_file(place, path, text, strlen(text));
}

/* Runs git in a directory below the place; *out, unless NULL, is freed by the caller. */
static inline int
run_git(const struct place *place, const char *directory, const char *const *argv,
	const char *input, size_t input_size, struct buf *out)
{
	int in = openat(place->fd, "input", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	char chunk[65536];
	int pipes[2], status;
	ssize_t n;
	pid_t pid;

	assert_true(in >= 0 && pipe2(pipes, O_CLOEXEC) == 0);
	assert_int_equal(write(in, input, input_size), (ssize_t) input_size);
	assert_int_equal(lseek(in, 0, SEEK_SET), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (fchdir(place->fd) < 0 || chdir(directory) < 0 || dup2(in, 0) < 0 ||
		    dup2(pipes[1], 1) < 0)
			_exit(126);
		execvp("git", (char *const *) argv);
		_exit(127);
	}
	close(pipes[1]);
	while ((n = read(pipes[0], chunk, sizeof chunk)) > 0)
		if (out != NULL)
			buf_append(out, chunk, (size_t) n);
	close(pipes[0]);
	close(in);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define GIT(place, directory, ...)                                                                 \
	do {                                                                                       \
		const char *const argv_[] = {"git", __VA_ARGS__, NULL};                            \
		assert_int_equal(run_git(place, directory, argv_, "", 0, NULL), 0);                \
	} while (0)

/* The files and links below `directory` that git lists and that exist; what it lists of the
 * repositories in it, the same way.  top: the part of `directory` that paths are told without. */
static inline void
list_by_git(const struct place *place, const char *directory, const char *inside, struct list *list)
{
	static const char *const argv[] = {"git", "ls-files", "-c", "-o", "--exclude-standard",
					   "-z",  NULL};
	struct buf out = {0};

	assert_int_equal(run_git(place, directory, argv, "", 0, &out), 0);
	for (size_t at = 0; at < out.size; at += strlen(out.data + at) + 1) {
		char *item = out.data + at, *path = NULL, *below = NULL;
		bool nested = item[strlen(item) - 1] == '/';
		struct stat st;

		if (nested)
			item[strlen(item) - 1] = '\0';
		assert_true(asprintf(&path, "%s/%s", directory, item) >= 0);
		assert_true(asprintf(&below, "%s%s%s", inside, *inside != '\0' ? "/" : "", item) >=
			    0);
		if (fstatat(place->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0) {
			char *dot_git = NULL;

			assert_true(asprintf(&dot_git, "%s/.git", path) >= 0);
			if (!S_ISDIR(st.st_mode))
				assert_int_equal(list_add(list, "", below, ""), 0);
			else if (nested || faccessat(place->fd, dot_git, F_OK, 0) == 0)
				list_by_git(place, path, below, list);
			free(dot_git);
		}
		if (nested)
			item[strlen(item)] = '/';
		free(path);
		free(below);
	}
	buf_free(&out);
}

static inline void
assert_lists_equal(const struct list *a, const char *a_name, const struct list *b,
		   const char *b_name)
{
	size_t i = 0, j = 0, wrong = 0;

	while (i < a->count || j < b->count) {
		int order = i == a->count   ? 1
			    : j == b->count ? -1
					    : strcmp(a->items[i], b->items[j]);

		if (order != 0 && wrong++ < 20)
			print_error("only %s: `%s'\n", order < 0 ? a_name : b_name,
				    order < 0 ? a->items[i] : b->items[j]);
		i += order <= 0;
		j += order >= 0;
	}
	assert_int_equal(wrong, 0);
}

/* libgit2 reads $HOME once: one for the whole program, and nothing of the machine's user. */
static inline int
home_setup(void **state)
{
	static char home[] = "/tmp/test-filter-home-XXXXXX";

	assert_non_null(mkdtemp(home));
	setenv("HOME", home, 1);
	return 0;
}

static inline int
home_teardown(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(fs_remove_tree(AT_FDCWD, getenv("HOME"), &err), &err);
	return 0;
}

static inline int
place_setup(void **state)
{
	struct place *place = calloc(1, sizeof *place);

	assert_non_null(place);
	strcpy(place->path, "/tmp/test-filter-XXXXXX");
	assert_non_null(mkdtemp(place->path));
	place->fd = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(place->fd >= 0);
	setenv("XDG_CONFIG_HOME", place->path, 1);
	setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
	setenv("GIT_AUTHOR_NAME", "a", 1);
	setenv("GIT_AUTHOR_EMAIL", "a@example.org", 1);
	setenv("GIT_COMMITTER_NAME", "a", 1);
	setenv("GIT_COMMITTER_EMAIL", "a@example.org", 1);
	unsetenv("GIT_CONFIG_GLOBAL");
	unsetenv("GIT_DIR");
	unsetenv("GIT_WORK_TREE");
	unsetenv("GIT_INDEX_FILE");
	*state = place;
	return 0;
}

static inline int
place_teardown(void **state)
{
	struct place *place = *state;
	struct moat_error err = MOAT_ERROR_INIT;

	close(place->fd);
	assert_ok(fs_remove_tree(AT_FDCWD, place->path, &err), &err);
	free(place);
	return 0;
}

/* A live filter's view of a directory, and the manifest that is kept of it, sealed, encoded and
 * decoded once. */
struct view {
	struct list captured; /* with the directories */
	struct list files;    /* without them */
	struct list stored;   /* what a filter of the manifest's rules lets through */
	struct manifest *manifest;
};

static inline void
view_free(struct view *view)
{
	list_free(&view->captured);
	list_free(&view->files);
	list_free(&view->stored);
	manifest_free(view->manifest);
	*view = (struct view){0};
}

static inline int
view_of_stored(int rootfd, const struct manifest *manifest, struct list *list,
	       struct moat_error *err)
{
	struct filter *filter = NULL;
	int status = filter_open_stored(manifest, &filter, err);

	if (status == 0)
		status = list_captured(rootfd, filter, list, NULL, err);
	filter_free(filter);
	list_sort(list);
	return status;
}

static inline int
view_scan(int rootfd, struct filter *filter, struct view *view, struct moat_error *err)
{
	struct manifest *manifest = manifest_new();
	struct buf bytes = {0};
	int status = -1;

	if (manifest != NULL &&
	    list_captured(rootfd, filter, &view->captured, manifest, err) == 0 &&
	    filter_store(filter, manifest, err) == 0 && manifest_seal(manifest, err) == 0 &&
	    manifest_encode(manifest, &bytes, err) == 0)
		status = manifest_decode(bytes.data, bytes.size, &view->manifest, err);
	buf_free(&bytes);
	manifest_free(manifest);
	list_sort(&view->captured);
	return status;
}

static inline int
view_make(const struct place *place, const char *directory, const struct filter_options *options,
	  struct view *view, struct moat_error *err)
{
	static const struct filter_options none = {0};
	struct filter *filter = NULL;
	char path[4096];
	int status, rootfd;

	*view = (struct view){0};
	snprintf(path, sizeof path, "%s/%s", place->path, directory);
	rootfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(rootfd >= 0);
	status = filter_open(rootfd, path, options != NULL ? options : &none, &filter, err);
	if (status == 0)
		status = view_scan(rootfd, filter, view, err);
	filter_free(filter);
	if (status == 0)
		status = view_of_stored(rootfd, view->manifest, &view->stored, err);
	for (size_t i = 0; status == 0 && i < view->captured.count; i++) {
		const char *item = view->captured.items[i];

		if (item[strlen(item) - 1] != '/')
			assert_int_equal(list_add(&view->files, "", item, ""), 0);
	}
	close(rootfd);
	return status;
}

/* The live filter, the stored one and git agree on a directory. */
static inline void
assert_as_git(const struct place *place, const char *directory, struct view *view)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct list by_git = {0};

	assert_ok(view_make(place, directory, NULL, view, &err), &err);
	list_by_git(place, directory, "", &by_git);
	list_sort(&by_git);
	assert_lists_equal(&view->files, "moat", &by_git, "git");
	assert_lists_equal(&view->captured, "live", &view->stored, "stored");
	list_free(&by_git);
}

static inline bool
has(const struct view *view, const char *path)
{
	return bsearch(&path, view->captured.items, view->captured.count, sizeof path,
		       list_compare) != NULL;
}

#endif
