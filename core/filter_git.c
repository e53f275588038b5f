/* SPDX-License-Identifier: Apache-2.0 */
/* The live filter's view of a git repository. */
#include "core/filter_git.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "core/gitconfig.h"
#include "core/gitindex.h"

#define RULES_MAX ((size_t) 100 << 20) /* git's limit, too */
#define INDEX_MAX ((size_t) 4 << 30)   /* of offsets in it */

struct filter_git {
	struct gitindex *index; /* NULL: not read yet */
	pthread_mutex_t lock;
	char *directory;
	char *git_directory;    /* its .git, or where that points to */
	char *common_directory; /* that of the main working tree */
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

/* 1; or 0: no regular file, or more than max. */
static int
read_regular(int fd, const char *name, size_t max, struct buf *ret, struct moat_error *err)
{
	char chunk[65536];
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "stat `%s'", name);
	if (!S_ISREG(st.st_mode) || (uintmax_t) st.st_size > max)
		return 0;
	while ((n = read(fd, chunk, sizeof chunk)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail_errno(err, "read `%s'", name);
		buf_append(ret, chunk, (size_t) n);
		if (ret->size > max)
			return 0;
	}
	return buf_check(ret, err) < 0 ? -1 : 1;
}

int
filter_read(int dirfd, const char *name, bool follow, char **ret, size_t *ret_size,
	    struct moat_error *err)
{
	AUTO_CLOSE int fd =
		openat(dirfd, name,
		       O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
	AUTO_BUF struct buf text = {0};
	int found;

	*ret = NULL;
	*ret_size = 0;
	if (fd < 0)
		return is_our_failure(errno) ? moat_fail_errno(err, "open `%s'", name) : 0;
	found = read_regular(fd, name, RULES_MAX, &text, err);
	if (found <= 0 || text.size == 0)
		return found < 0 ? -1 : 0;
	*ret_size = text.size;
	*ret = buf_steal(&text);
	return 0;
}

/* ----------------------------------------------------------------------------------- opening */

/* Bytes of an index: some 20,000 files. */
#define INDEX_LARGE (2 << 20)

char *
filter_join(const char *directory, const char *name)
{
	AUTO_BUF struct buf path = {0};

	if (*name != '/')
		buf_format(&path, "%s/", directory);
	buf_string(&path, name);
	return buf_steal(&path);
}

/* What a name is: S_IFREG...; 0: it is not there. */
static int
kind_of(int dirfd, const char *name)
{
	struct stat st;

	return fstatat(dirfd, name, &st, 0) < 0 ? 0 : (int) (st.st_mode & S_IFMT);
}

/* libgit2 would wait for a FIFO for ever. */
static bool
is_plain(int dirfd, const char *name)
{
	int kind = kind_of(dirfd, name);

	return kind == 0 || kind == S_IFREG;
}

/* 1 with a directory that the caller closes; 0: it is not there, or none. */
static int
open_directory(const char *path, int *ret, struct moat_error *err)
{
	*ret = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*ret >= 0)
		return 1;
	return is_our_failure(errno) ? moat_fail_errno(err, "open `%s'", path) : 0;
}

/* The text of a small file, without its final newlines; NULL: there is none. */
static int
read_line(int dirfd, const char *name, char **ret, struct moat_error *err)
{
	size_t size;

	if (filter_read(dirfd, name, true, ret, &size, err) < 0)
		return -1;
	while (*ret != NULL && size > 0 && ((*ret)[size - 1] == '\n' || (*ret)[size - 1] == '\r'))
		(*ret)[--size] = '\0';
	return 0;
}

/* Where the .git of git->directory is, or points to.  1; 0: there is none. */
static int
find_git_directory(struct filter_git *git, struct moat_error *err)
{
	AUTO_CLOSE int fd = -1;
	AUTO_FREE char *link = NULL;
	int found = open_directory(git->directory, &fd, err), kind;

	if (found <= 0)
		return found;
	kind = kind_of(fd, ".git");
	if (kind == S_IFREG && read_line(fd, ".git", &link, err) < 0)
		return -1;
	if (kind != S_IFDIR && (link == NULL || strncmp(link, "gitdir: ", 8) != 0))
		return 0;
	git->git_directory = filter_join(git->directory, link == NULL ? ".git" : link + 8);
	return git->git_directory == NULL ? moat_fail_memory(err) : 1;
}

/* Finds a repository that can be opened without waiting for anything: what git and libgit2 ask for
 * is in it.  1; 0: there is none. */
static int
find_repository(struct filter_git *git, struct moat_error *err)
{
	static const char *const parts[] = {"HEAD", "config", "commondir", "gitdir", "index"};
	AUTO_CLOSE int fd = -1, common_fd = -1;
	AUTO_FREE char *common = NULL;
	int found = find_git_directory(git, err);

	if (found > 0)
		found = open_directory(git->git_directory, &fd, err);
	if (found <= 0)
		return found;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		if (!is_plain(fd, parts[i]))
			return 0;
	if (kind_of(fd, "HEAD") == 0)
		return 0;
	if (read_line(fd, "commondir", &common, err) < 0)
		return -1;
	git->common_directory = filter_join(git->git_directory, common == NULL ? "" : common);
	if (git->common_directory == NULL)
		return moat_fail_memory(err);
	found = open_directory(git->common_directory, &common_fd, err);
	if (found <= 0)
		return found;
	return is_plain(common_fd, "config") && kind_of(common_fd, "objects") == S_IFDIR &&
	       kind_of(common_fd, "refs") == S_IFDIR;
}

/* 1 when there is a repository, 0 when there is none. */
static int
look_around(struct filter_git *git, struct moat_error *err)
{
	int found = find_repository(git, err);

	if (found <= 0)
		return found;
	git->info_exclude = filter_join(git->common_directory, "info/exclude");
	if (git->info_exclude == NULL)
		return moat_fail_memory(err);
	return gitconfig_excludes(git->directory, git->common_directory, &git->global_exclude, err);
}

int
filter_git_open(const char *directory, struct filter_git **ret, struct moat_error *err)
{
	struct filter_git *git = calloc(1, sizeof *git);
	int found;

	*ret = NULL;
	if (git == NULL)
		return moat_fail_memory(err);
	(void) pthread_mutex_init(&git->lock, NULL);
	git->directory = strdup(directory);
	found = git->directory == NULL ? moat_fail_memory(err) : look_around(git, err);
	if (found <= 0) {
		filter_git_close(git);
		return found;
	}
	*ret = git;
	return 0;
}

void
filter_git_close(struct filter_git *git)
{
	if (git == NULL)
		return;
	gitindex_free(git->index);
	(void) pthread_mutex_destroy(&git->lock);
	free(git->directory);
	free(git->git_directory);
	free(git->common_directory);
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
fail_index(struct moat_error *err, const struct moat_error *why, const struct filter_git *git)
{
	return moat_error_set(
		err, why->code, why->sys_errno,
		"the index of the git repository `%s' cannot be read (%s); " FILTER_GIT_HINT,
		git->directory, why->message);
}

/* Without one nothing is tracked. */
static int
read_index(const char *path, struct gitindex **ret, struct moat_error *err)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	AUTO_BUF struct buf data = {0};
	int found;
	size_t size;

	if (fd < 0 && errno != ENOENT)
		return moat_fail_errno(err, "open it");
	if (fd < 0) {
		*ret = calloc(1, sizeof **ret);
		return *ret == NULL ? moat_fail_memory(err) : 0;
	}
	found = read_regular(fd, path, INDEX_MAX, &data, err);
	if (found < 0)
		return -1;
	if (found == 0)
		return moat_fail(err, MOAT_CORRUPT, "it is not a file");
	size = data.size;
	return gitindex_parse(buf_steal(&data), size, ret, err);
}

static int
load_index(struct filter_git *git, struct moat_error *err)
{
	AUTO_FREE char *path = NULL;
	struct moat_error why = MOAT_ERROR_INIT;

	if (git->index != NULL)
		return 0;
	path = filter_join(git->git_directory, "index");
	if (path == NULL)
		return moat_fail_memory(err);
	return read_index(path, &git->index, &why) < 0 ? fail_index(err, &why, git) : 0;
}

/* Of a sparse index: inside a directory of which it says no more than that it is tracked. */
static int
find_in_sparse(const struct gitindex *index, const char *path, bool *ret, struct moat_error *err)
{
	AUTO_FREE char *prefix = index->sparse ? strdup(path) : NULL;

	*ret = false;
	if (!index->sparse)
		return 0;
	if (prefix == NULL)
		return moat_fail_memory(err);
	for (char *slash = strrchr(prefix, '/'); slash != NULL && !*ret;
	     slash = strrchr(prefix, '/')) {
		size_t at;

		slash[1] = '\0';
		at = gitindex_position(index, prefix);
		*ret = at < index->count && strcmp(index->entries[at].path, prefix) == 0;
		slash[0] = '\0';
	}
	return 0;
}

static int
look_up(struct filter_git *git, const char *path, bool is_directory, enum filter_tracked *ret,
	struct moat_error *err)
{
	const struct gitindex *index;
	bool sparse;
	size_t at;

	*ret = TRACKED_NOT;
	if (load_index(git, err) < 0)
		return -1;
	index = git->index;
	at = gitindex_position(index, path);
	if (at < index->count && strcmp(index->entries[at].path, path) == 0 &&
	    (!is_directory || index->entries[at].mode == GITINDEX_SUBMODULE)) {
		*ret = TRACKED_ITSELF;
		return 0;
	}
	if (is_directory) {
		AUTO_FREE char *prefix = filter_join(path, "");

		if (prefix == NULL)
			return moat_fail_memory(err);
		at = gitindex_position(index, prefix);
		if (at < index->count &&
		    strncmp(index->entries[at].path, prefix, strlen(prefix)) == 0)
			*ret = TRACKED_BELOW;
	}
	if (*ret != TRACKED_NOT)
		return 0;
	if (find_in_sparse(index, path, &sparse, err) < 0)
		return -1;
	if (sparse)
		*ret = is_directory ? TRACKED_BELOW : TRACKED_ITSELF;
	return 0;
}

bool
filter_git_index_is_large(const struct filter_git *git)
{
	AUTO_FREE char *path = filter_join(git->git_directory, "index");
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
	AUTO_FREE char *prefix = filter_join(path, "");
	size_t length;

	*ret = false;
	if (prefix == NULL)
		return moat_fail_memory(err);
	if (load_index(git, err) < 0)
		return -1;
	length = strlen(prefix);
	for (size_t at = gitindex_position(git->index, prefix); !*ret && at < git->index->count;
	     at++) {
		const struct gitindex_entry *entry = &git->index->entries[at];

		if (strncmp(entry->path, prefix, length) != 0)
			break;
		/* What is below that one nobody can tell here. */
		*ret = entry->mode == GITINDEX_DIRECTORY || wanted(context, entry->path + length);
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
