/* SPDX-License-Identifier: Apache-2.0 */
/* A directory that was put into the workspace as a whole and has come back into the stage: is there
 * anything in it now that somebody would miss? */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/txn_internal.h"

static int
foreign(const char *path, struct moat_error *err)
{
	return moat_fail(err, MOAT_CONFLICT, "`%s' was put there, or edited, meanwhile", path);
}

/* What is not there any more is nobody's loss. */
static int
check_one(int dirfd, const char *name, const char *path, const struct manifest *to,
	  struct moat_error *err)
{
	int64_t index = manifest_find(to, path);
	const struct moat_entry *entry = index < 0 ? NULL : to->entries[index];
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : moat_fail_errno(err, "look at `%s'", path);
	if (entry == NULL)
		return foreign(path, err);
	if (entry->type == MOAT_DIRECTORY)
		return S_ISDIR(st.st_mode) ? 0 : foreign(path, err);
	if (st.st_ino != entry->ino || st.st_mtim.tv_sec != entry->mtime_sec ||
	    (uint32_t) st.st_mtim.tv_nsec != entry->mtime_nsec ||
	    (entry->type == MOAT_FILE && (uint64_t) st.st_size != entry->size))
		return foreign(path, err);
	return 0;
}

/* Its final mode may keep its owner out: it is in the stage now, and its mode does not matter. */
static int
open_directory(int stage_fd, const char *place, DIR **ret, struct moat_error *err)
{
	struct moat_error local = MOAT_ERROR_INIT;
	const char *name;
	struct stat st;

	*ret = fs_open_stream(stage_fd, place, &local);
	if (*ret == NULL && local.code == MOAT_PERMISSION) {
		const char *slash = strrchr(place, '/');
		AUTO_CLOSE int dirfd = slash == NULL ? fcntl(stage_fd, F_DUPFD_CLOEXEC, 3)
						     : fs_open_parent(stage_fd, place, &name, err);

		if (dirfd < 0)
			return moat_fail_errno(err, "open `%s'", place);
		name = slash == NULL ? place : slash + 1;
		if (fchmodat(dirfd, name, 0700, AT_SYMLINK_NOFOLLOW) < 0)
			return moat_fail_errno(err, "open `%s'", place);
		*ret = fs_open_stream(stage_fd, place, err);
		return *ret == NULL ? -1 : 0;
	}
	if (*ret == NULL)
		return local.code == MOAT_NOT_FOUND
			       ? 0
			       : moat_error_set(err, local.code, local.sys_errno, "%s",
						local.message);
	if (fstat(dirfd(*ret), &st) == 0 && (st.st_mode & 0700) != 0700)
		(void) fchmod(dirfd(*ret), 0700); /* else looking into it fails, and says why */
	return 0;
}

static int
check_directory(int stage_fd, const char *place, const char *path, const struct manifest *to,
		struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = NULL;
	struct dirent *entry;

	if (open_directory(stage_fd, place, &stream, err) < 0)
		return -1;
	while (stream != NULL && (errno = 0, entry = readdir(stream)) != NULL) {
		AUTO_BUF struct buf inner = {0};

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		buf_format(&inner, "%s/%s", path, entry->d_name);
		if (buf_check(&inner, err) < 0 ||
		    check_one(dirfd(stream), entry->d_name, inner.data, to, err) < 0)
			return -1;
	}
	if (stream != NULL && errno != 0)
		return moat_fail_errno(err, "read the directory `%s'", path);
	return 0;
}

int
subtree_check(int stage_fd, const char *name, const struct manifest *to, size_t top,
	      struct moat_error *err)
{
	size_t end = plan_subtree_end(to, top), n = strlen(to->entries[top]->path);

	/* By path: what hides a directory has been opened before it is looked for. */
	for (size_t i = top; i < end; i++) {
		AUTO_BUF struct buf place = {0};

		if (to->entries[i]->type != MOAT_DIRECTORY)
			continue;
		buf_format(&place, "%s%s", name, to->entries[i]->path + n);
		if (buf_check(&place, err) < 0 ||
		    check_directory(stage_fd, place.data, to->entries[i]->path, to, err) < 0)
			return -1;
	}
	return 0;
}
