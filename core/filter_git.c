/* SPDX-License-Identifier: Apache-2.0 */
/* The live filter's view of a git repository. */
#include "core/filter_git.h"

#include <errno.h>
#include <fcntl.h>
#include <git2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"

#define RULES_MAX ((off_t) 100 << 20) /* git's limit, too */

#define HOW_TO_GO_ON                                                                               \
	"`git status' there may say more; snapshots.exclude.ignore_gitignore: true does without "  \
	"it"

struct filter_git {
	git_repository *repository;
	git_index *index; /* NULL: not read yet */
	pthread_mutex_t lock;
	char *directory;
	char *info_exclude;
	char *global_exclude;
};

/* ----------------------------------------------------------------------------------- reading */

/* Failures that say nothing about the file, and must not pass for "no rules". */
static bool
is_our_failure(int sys_errno)
{
	return sys_errno == EMFILE || sys_errno == ENFILE || sys_errno == ENOMEM ||
	       sys_errno == EIO || sys_errno == EBADF;
}

int
filter_read(int dirfd, const char *name, bool follow, char **ret, size_t *ret_size,
	    struct moat_error *err)
{
	AUTO_CLOSE int fd =
		openat(dirfd, name,
		       O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
	AUTO_BUF struct buf text = {0};
	char chunk[16384];
	struct stat st;
	ssize_t n;

	*ret = NULL;
	*ret_size = 0;
	if (fd < 0)
		return is_our_failure(errno) ? moat_fail_errno(err, "open `%s'", name) : 0;
	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "stat `%s'", name);
	if (!S_ISREG(st.st_mode) || st.st_size > RULES_MAX)
		return 0;
	while ((n = read(fd, chunk, sizeof chunk)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail_errno(err, "read `%s'", name);
		buf_append(&text, chunk, (size_t) n);
		if (text.size > (size_t) RULES_MAX)
			return 0;
	}
	if (buf_check(&text, err) < 0)
		return -1;
	if (text.size == 0)
		return 0;
	*ret_size = text.size;
	*ret = buf_steal(&text);
	return 0;
}

/* ----------------------------------------------------------------------------------- opening */

/* Bytes of an index: some 2,000 files. */
#define INDEX_LARGE 262144

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int initialised;

static void
initialise(void)
{
	/* What is read here means the same under these extensions. */
	static const char *extensions[] = {"partialclone", "preciousobjects", "relativeworktrees",
					   "worktreeconfig"};

	initialised = git_libgit2_init();
	if (initialised < 0)
		return;
	/* Rules are only read: whose they are does not matter. */
	(void) git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0);
	(void) git_libgit2_opts(GIT_OPT_SET_EXTENSIONS, extensions,
				sizeof extensions / sizeof extensions[0]);
}

static int
fail_git(struct moat_error *err, int status, const char *what, const char *directory)
{
	const git_error *last = git_error_last();

	return moat_fail(err, status == GIT_ENOTFOUND ? MOAT_NOT_FOUND : MOAT_CORRUPT,
			 "the %s of the git repository `%s' cannot be read (%s); " HOW_TO_GO_ON,
			 what, directory,
			 last != NULL && last->message != NULL ? last->message : "no reason given");
}

static char *
join(const char *directory, const char *name)
{
	struct buf path = {0};

	if (*name != '/')
		buf_format(&path, "%s/", directory);
	buf_string(&path, name);
	return buf_steal(&path);
}

/* True when name is a regular file or is not there.  libgit2 would wait for a FIFO for ever. */
static bool
is_plain(const char *directory, const char *name)
{
	AUTO_FREE char *path = join(directory, name);
	struct stat st;

	return path != NULL && (stat(path, &st) < 0 || S_ISREG(st.st_mode));
}

/* The text of a small file, without its final newlines; NULL: there is none. */
static char *
read_line(const char *directory, const char *name)
{
	AUTO_FREE char *path = join(directory, name);
	char *text = NULL;
	size_t size;

	if (path == NULL || filter_read(AT_FDCWD, path, true, &text, &size, NULL) < 0 ||
	    text == NULL)
		return NULL; /* what cannot be read is no repository */
	while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r'))
		text[--size] = '\0';
	return text;
}

/* Whether `directory` has a .git that can be opened without waiting for anything. */
static bool
has_git(const char *directory)
{
	static const char *const parts[] = {"HEAD", "config", "commondir", "gitdir", "index"};
	AUTO_FREE char *dot_git = join(directory, ".git");
	AUTO_FREE char *common_text = NULL;
	AUTO_FREE char *common = NULL;
	struct stat st;

	if (dot_git == NULL || stat(dot_git, &st) < 0)
		return false;
	if (S_ISREG(st.st_mode)) {
		AUTO_FREE char *link = read_line(directory, ".git");
		char *target = NULL;

		if (link == NULL || strncmp(link, "gitdir: ", 8) != 0)
			return false;
		target = join(directory, link + 8);
		free(dot_git);
		dot_git = target;
	} else if (!S_ISDIR(st.st_mode)) {
		return false;
	}
	for (size_t i = 0; dot_git != NULL && i < sizeof parts / sizeof parts[0]; i++)
		if (!is_plain(dot_git, parts[i]))
			return false;
	common_text = dot_git != NULL ? read_line(dot_git, "commondir") : NULL;
	common = common_text != NULL ? join(dot_git, common_text) : NULL;
	return dot_git != NULL && (common == NULL || is_plain(common, "config"));
}

/* $XDG_CONFIG_HOME/git/ignore, ~/.config/git/ignore, or "". */
static char *
default_excludes(void)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

	if (config != NULL && *config != '\0')
		return join(config, "git/ignore");
	return home != NULL ? join(home, ".config/git/ignore") : strdup("");
}

/* core.excludesFile: "~/" is the home directory, another relative path starts at the root of the
 * working tree. */
static int
find_global_exclude(struct filter_git *git, struct moat_error *err)
{
	git_buf path = {0};
	git_config *config = NULL;
	int status = git_repository_config_snapshot(&config, git->repository);

	if (status == 0) {
		status = git_config_get_path(&path, config, "core.excludesfile");
		git_config_free(config);
	}
	if (status != 0 && status != GIT_ENOTFOUND)
		return fail_git(err, status, "configuration", git->directory);
	if (status == GIT_ENOTFOUND)
		git->global_exclude = default_excludes();
	else
		git->global_exclude = path.size == 0 ? strdup("") : join(git->directory, path.ptr);
	git_buf_dispose(&path);
	return git->global_exclude == NULL ? moat_fail_memory(err) : 0;
}

static int
open_repository(struct filter_git *git, struct moat_error *err)
{
	int status = git_repository_open_ext(&git->repository, git->directory,
					     GIT_REPOSITORY_OPEN_NO_SEARCH, NULL);

	if (status == GIT_ENOTFOUND)
		return 0;
	if (status != 0)
		return fail_git(err, status, "metadata", git->directory);
	git->info_exclude = join(git_repository_commondir(git->repository), "info/exclude");
	if (git->info_exclude == NULL)
		return moat_fail_memory(err);
	return find_global_exclude(git, err);
}

int
filter_git_open(const char *directory, struct filter_git **ret, struct moat_error *err)
{
	struct filter_git *git;

	*ret = NULL;
	if (!has_git(directory))
		return 0;
	(void) pthread_once(&once, initialise);
	if (initialised < 0)
		return moat_fail(err, MOAT_FAILED, "libgit2 cannot be initialised");
	git = calloc(1, sizeof *git);
	if (git == NULL)
		return moat_fail_memory(err);
	(void) pthread_mutex_init(&git->lock, NULL);
	git->directory = strdup(directory);
	if (git->directory == NULL) {
		filter_git_close(git);
		return moat_fail_memory(err);
	}
	if (open_repository(git, err) < 0) {
		filter_git_close(git);
		return -1;
	}
	if (git->repository == NULL)
		filter_git_close(git);
	else
		*ret = git;
	return 0;
}

void
filter_git_close(struct filter_git *git)
{
	if (git == NULL)
		return;
	git_index_free(git->index);
	git_repository_free(git->repository);
	(void) pthread_mutex_destroy(&git->lock);
	free(git->directory);
	free(git->info_exclude);
	free(git->global_exclude);
	free(git);
}

const char *
filter_git_info_exclude(const struct filter_git *git)
{
	return git->info_exclude;
}

const char *
filter_git_global_exclude(const struct filter_git *git)
{
	return git->global_exclude;
}

/* ------------------------------------------------------------------------------------- index */

static int
load_index(struct filter_git *git, struct moat_error *err)
{
	int status;

	if (git->index != NULL)
		return 0;
	if (!is_plain(git_repository_path(git->repository), "index"))
		return moat_fail(
			err, MOAT_CORRUPT,
			"the index of the git repository `%s' is not a file; " HOW_TO_GO_ON,
			git->directory);
	status = git_repository_index(&git->index, git->repository);
	return status == 0 ? 0 : fail_git(err, status, "index", git->directory);
}

static int
look_up(struct filter_git *git, const char *path, bool is_directory, enum filter_tracked *ret,
	struct moat_error *err)
{
	const git_index_entry *entry;
	size_t at;

	*ret = TRACKED_NOT;
	if (load_index(git, err) < 0)
		return -1;
	if (is_directory) {
		AUTO_FREE char *prefix = join(path, "");

		if (prefix == NULL)
			return moat_fail_memory(err);
		if (git_index_find_prefix(&at, git->index, prefix) == 0) {
			*ret = TRACKED_BELOW;
			return 0;
		}
	}
	if (git_index_find(&at, git->index, path) != 0)
		return 0;
	entry = git_index_get_byindex(git->index, at);
	if (!is_directory || (entry != NULL && entry->mode == GIT_FILEMODE_COMMIT))
		*ret = TRACKED_ITSELF;
	return 0;
}

bool
filter_git_index_is_large(const struct filter_git *git)
{
	AUTO_FREE char *path = join(git_repository_path(git->repository), "index");
	struct stat st;

	return path != NULL && stat(path, &st) == 0 && st.st_size > INDEX_LARGE;
}

void
filter_git_load(struct filter_git *git)
{
	pthread_mutex_lock(&git->lock);
	(void) load_index(git, NULL);
	pthread_mutex_unlock(&git->lock);
}

int
filter_git_tracked(struct filter_git *git, const char *path, bool is_directory,
		   enum filter_tracked *ret, struct moat_error *err)
{
	int status;

	(void) pthread_mutex_lock(&git->lock);
	status = look_up(git, path, is_directory, ret, err);
	(void) pthread_mutex_unlock(&git->lock);
	return status;
}

static int
look_below(struct filter_git *git, const char *path,
	   bool (*wanted)(const void *context, const char *below), const void *context, bool *ret,
	   struct moat_error *err)
{
	AUTO_FREE char *prefix = join(path, "");
	size_t at, length;

	*ret = false;
	if (prefix == NULL)
		return moat_fail_memory(err);
	if (load_index(git, err) < 0)
		return -1;
	if (git_index_find_prefix(&at, git->index, prefix) != 0)
		return 0;
	length = strlen(prefix);
	for (; !*ret; at++) {
		const git_index_entry *entry = git_index_get_byindex(git->index, at);

		if (entry == NULL || strncmp(entry->path, prefix, length) != 0)
			break;
		*ret = wanted(context, entry->path + length);
	}
	return 0;
}

int
filter_git_wants_below(struct filter_git *git, const char *path,
		       bool (*wanted)(const void *context, const char *below), const void *context,
		       bool *ret, struct moat_error *err)
{
	int status;

	(void) pthread_mutex_lock(&git->lock);
	status = look_below(git, path, wanted, context, ret, err);
	(void) pthread_mutex_unlock(&git->lock);
	return status;
}
