/* SPDX-License-Identifier: Apache-2.0 */
/* Owner, mode, extended attributes and times of what a transaction makes or changes. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/log.h"
#include "core/tree.h"
#include "core/txn_internal.h"

uint32_t
meta_mode(const struct moat_entry *entry)
{
	/* A program of the snapshot must not come back with somebody's privileges. */
	return entry->type == MOAT_FILE ? entry->mode & ~06000u : entry->mode;
}

bool
meta_same_xattrs(const struct moat_entry *a, const struct moat_entry *b)
{
	return a->xattrs_size == b->xattrs_size &&
	       (a->xattrs_size == 0 || memcmp(a->xattrs, b->xattrs, a->xattrs_size) == 0);
}

bool
meta_equal(const struct moat_entry *live, const struct moat_entry *desired)
{
	return live->mtime_sec == desired->mtime_sec && live->mtime_nsec == desired->mtime_nsec &&
	       live->uid == desired->uid && live->gid == desired->gid &&
	       (live->type == MOAT_SYMLINK || live->mode == desired->mode ||
		live->mode == meta_mode(desired)) &&
	       meta_same_xattrs(live, desired);
}

/* chown(2) of an open object (name NULL), or of a name in an open directory. */
static int
change_owner(int fd, const char *name, uid_t uid, gid_t gid)
{
	return name == NULL ? fchown(fd, uid, gid)
			    : fchownat(fd, name, uid, gid, AT_SYMLINK_NOFOLLOW);
}

static int
set_owner(int fd, const char *name, const struct stat *st, const struct moat_entry *entry,
	  struct moat_error *err)
{
	if (st->st_uid == entry->uid && st->st_gid == entry->gid)
		return 0;
	if (change_owner(fd, name, entry->uid, entry->gid) == 0)
		return 0;
	/* Without privilege an owner cannot be given back; a group of one's own can. */
	if (geteuid() != 0 && errno == EPERM &&
	    (change_owner(fd, name, (uid_t) -1, entry->gid) == 0 || errno == EPERM))
		return 0;
	return moat_fail_errno(err, "set the owner of `%s'", entry->path);
}

static int
set_xattrs(int dirfd, const char *name, const struct moat_entry *entry, struct moat_error *err)
{
	AUTO_CLOSE int fd = -1;

	/* Opening wants read permission, which the final mode, set later, may take away. */
	if (fchmodat(dirfd, name, (entry->mode & ~06000u) | S_IRUSR | S_IWUSR,
		     AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "set the mode of `%s'", entry->path);
	fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return moat_fail_errno(err, "open `%s'", entry->path);
	return tree_set_xattrs(fd, entry->xattrs, entry->xattrs_size, err);
}

int
meta_set(int dirfd, const char *name, const struct moat_entry *entry, uint32_t mode, bool xattrs,
	 struct moat_error *err)
{
	const struct timespec times[2] = {
		{.tv_nsec = UTIME_OMIT},
		{.tv_sec = entry->mtime_sec, .tv_nsec = entry->mtime_nsec},
	};
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "look at `%s'", entry->path);
	/* Only its owner, and root, can give an object a mode or a time. */
	if (geteuid() != 0 && st.st_uid != geteuid()) {
		log_warning("%s belongs to somebody else, so its mode and time stay as they are",
			    entry->path[0] == '\0' ? "the workspace's root" : entry->path);
		return 0;
	}
	if (set_owner(dirfd, name, &st, entry, err) < 0)
		return -1;
	if (entry->type != MOAT_SYMLINK) {
		if (xattrs && set_xattrs(dirfd, name, entry, err) < 0)
			return moat_wrap(err, "extended attributes of `%s'", entry->path);
		if (fchmodat(dirfd, name, mode, AT_SYMLINK_NOFOLLOW) < 0)
			return moat_fail_errno(err, "set the mode of `%s'", entry->path);
	}
	if (utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "set the time of `%s'", entry->path);
	return 0;
}

int
meta_set_open(int fd, const struct stat *st, const struct moat_entry *entry, uint32_t mode,
	      bool xattrs, struct moat_error *err)
{
	const struct timespec times[2] = {
		{.tv_nsec = UTIME_OMIT},
		{.tv_sec = entry->mtime_sec, .tv_nsec = entry->mtime_nsec},
	};

	if (set_owner(fd, NULL, st, entry, err) < 0)
		return -1;
	if (xattrs && tree_set_xattrs(fd, entry->xattrs, entry->xattrs_size, err) < 0)
		return moat_wrap(err, "extended attributes of `%s'", entry->path);
	if ((xattrs || (st->st_mode & 07777) != mode) && fchmod(fd, mode) < 0)
		return moat_fail_errno(err, "set the mode of `%s'", entry->path);
	if (futimens(fd, times) < 0)
		return moat_fail_errno(err, "set the time of `%s'", entry->path);
	return 0;
}
