/* SPDX-License-Identifier: Apache-2.0 */
/* Removal of trees, by directory descriptors only. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"

#define SUBDIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

#define OPEN_LEVELS 32  /* directories open at a time, however deep the tree is */
#define REMOVE_PASSES 8 /* how often a directory is read again because it was not empty */

/* A directory that is being emptied.  Its stream is closed while the removal is far below it; since
 * what was read is gone, it can be opened and read anew. */
struct level {
	DIR *stream; /* NULL: closed */
	char *name;
	struct stat status;
	int passes;
};

struct removal {
	int dirfd; /* holds the top */
	struct stat status;
	int64_t mount;
	struct level *levels; /* from the top down to where the removal is */
	size_t depth, allocated;
};

/* errno, with the path of `name` in the directory of the last level. */
static int
fail_removal(const struct removal *removal, const char *name, struct moat_error *err)
{
	int saved = errno;
	AUTO_BUF struct buf path = {0};

	for (size_t i = 0; i < removal->depth; i++)
		buf_format(&path, "%s/", removal->levels[i].name);
	buf_string(&path, name);
	errno = saved;
	if (saved == EXDEV)
		return moat_error_set(err, MOAT_BUSY, saved,
				      "remove `%s': another filesystem is mounted there",
				      path.failed ? name : path.data);
	return moat_fail_errno(err, "remove `%s'", path.failed ? name : path.data);
}

/* True when fd is on the filesystem and mount on which the removal began; else errno is EXDEV. */
static bool
stays_inside(const struct removal *removal, int fd, struct stat *ret)
{
	bool inside;

	if (fstat(fd, ret) < 0)
		return false;
	inside = ret->st_dev == removal->status.st_dev &&
		 (removal->mount < 0 || fs_mount_id(fd) == removal->mount);
	errno = EXDEV;
	return inside;
}

/* Opens a directory for reading though its mode forbids it, which its owner may change. */
static int
open_forbidden(const struct removal *removal, int dirfd, const char *name)
{
	AUTO_CLOSE int fd = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat status;
	char path[64];

	if (fd < 0 || !stays_inside(removal, fd, &status))
		return -1;
	/* fchmod(2) does not take an O_PATH descriptor; its link in /proc leads to just that
	 * directory. */
	(void) snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (chmod(path, 0700) < 0)
		return -1;
	return openat(fd, ".", SUBDIRECTORY);
}

/* Goes down into a directory; the one OPEN_LEVELS above is closed. */
static int
enter(struct removal *removal, int dirfd, const char *name)
{
	struct level level = {.name = strdup(name)};
	AUTO_FREE char *owned = level.name;
	AUTO_CLOSE int fd = openat(dirfd, name, SUBDIRECTORY);
	struct level *grown, *far;

	if (level.name == NULL)
		return -1;
	if (fd < 0 && errno == EACCES)
		fd = open_forbidden(removal, dirfd, name);
	if (fd < 0 || !stays_inside(removal, fd, &level.status))
		return -1;
	/* Who does not own it may be allowed to empty it nonetheless. */
	if ((level.status.st_mode & 0700) != 0700)
		(void) fchmod(fd, 0700);
	if (removal->depth == removal->allocated) {
		removal->allocated = removal->allocated == 0 ? 16 : removal->allocated * 2;
		grown = reallocarray(removal->levels, removal->allocated, sizeof *grown);
		if (grown == NULL)
			return -1;
		removal->levels = grown;
	}
	level.stream = fdopendir(fd);
	if (level.stream == NULL)
		return -1;
	(void) steal_fd(&fd);
	(void) STEAL(owned);
	removal->levels[removal->depth++] = level;
	if (removal->depth > OPEN_LEVELS) {
		far = &removal->levels[removal->depth - 1 - OPEN_LEVELS];
		cleanup_closedir(&far->stream);
		far->stream = NULL;
	}
	return 0;
}

/* Unlinks an entry of the last level, or goes down into it. */
static int
remove_or_enter(struct removal *removal, int dirfd, const char *name, struct moat_error *err)
{
	int saved;

	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	saved = errno;
	/* POSIX says EPERM for a directory, Linux EISDIR. */
	if (saved != EISDIR && saved != EPERM)
		return fail_removal(removal, name, err);
	if (enter(removal, dirfd, name) == 0 || errno == ENOENT)
		return 0;
	if (errno == ENOTDIR && saved == EPERM)
		errno = saved;
	return fail_removal(removal, name, err);
}

/* Opens the parent of the last level again, by "..", and makes sure that it is what it was. */
static int
reopen_parent(struct removal *removal)
{
	struct level *level = &removal->levels[removal->depth - 1], *parent = level - 1;
	AUTO_CLOSE int fd = openat(dirfd(level->stream), "..", SUBDIRECTORY);
	struct stat status;

	if (fd < 0 || fstat(fd, &status) < 0)
		return -1;
	if (!fs_same_file(&status, &parent->status)) {
		errno = ESTALE;
		return -1;
	}
	parent->stream = fdopendir(fd);
	if (parent->stream == NULL)
		return -1;
	(void) steal_fd(&fd);
	return 0;
}

static void
pop(struct removal *removal)
{
	struct level *level = &removal->levels[--removal->depth];

	cleanup_closedir(&level->stream);
	cleanup_free(&level->name);
}

/* The last level has been read to its end: removes it. */
static int
leave(struct removal *removal, struct moat_error *err)
{
	struct level *level = &removal->levels[removal->depth - 1];
	int parent = removal->dirfd;

	if (removal->depth > 1) {
		if (level[-1].stream == NULL && reopen_parent(removal) < 0)
			return fail_removal(removal, "..", err);
		parent = dirfd(level[-1].stream);
	}
	if (unlinkat(parent, level->name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
		/* Somebody put something into it, or the filesystem skips names when others are
		 * removed while it is read. */
		if ((errno != ENOTEMPTY && errno != EEXIST) || ++level->passes == REMOVE_PASSES)
			return fail_removal(removal, "", err);
		rewinddir(level->stream);
		return 0;
	}
	pop(removal);
	return 0;
}

/* Removes what is in the last level, until there is no level left. */
static int
empty_levels(struct removal *removal, struct moat_error *err)
{
	struct dirent *entry;
	DIR *stream;
	int result = 0;

	while (result == 0 && removal->depth > 0) {
		stream = removal->levels[removal->depth - 1].stream;
		errno = 0;
		entry = readdir(stream);
		if (entry == NULL && errno != 0)
			result = fail_removal(removal, "", err);
		else if (entry == NULL)
			result = leave(removal, err);
		else if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			result = remove_or_enter(removal, dirfd(stream), entry->d_name, err);
	}
	return result;
}

int
fs_remove_tree(int dirfd, const char *name, struct moat_error *err)
{
	const char *slash = strrchr(name, '/');
	const char *base = slash == NULL ? name : slash + 1;
	AUTO_FREE char *parent =
		slash == NULL ? strdup(".") : strndup(name, (size_t) (slash - name) + 1);
	AUTO_CLOSE int parentfd = -1;
	struct removal removal = {0};
	int result;

	if (*base == '\0' || strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
		return moat_fail(err, MOAT_USAGE,
				 "remove `%s': not the name of a file or directory", name);
	if (parent == NULL)
		return moat_fail_memory(err);
	parentfd = openat(dirfd, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (parentfd < 0 && errno == ENOENT)
		return 0;
	if (parentfd < 0 || fstat(parentfd, &removal.status) < 0)
		return moat_fail_errno(err, "remove `%s'", name);
	removal.dirfd = parentfd;
	removal.mount = fs_mount_id(parentfd);
	result = remove_or_enter(&removal, parentfd, base, err);
	if (result == 0)
		result = empty_levels(&removal, err);
	while (removal.depth > 0)
		pop(&removal);
	free(removal.levels);
	return result;
}
