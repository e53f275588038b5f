/* SPDX-License-Identifier: Apache-2.0 */
/* Files, by directory descriptors.  Names are bytes; every descriptor is O_CLOEXEC; errors name the
 * path. */
#ifndef MOAT_COMMON_FS_H
#define MOAT_COMMON_FS_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "common/buf.h"
#include "common/error.h"

/* Opens `path` below rootfd, following no symbolic link, leaving neither rootfd nor its mount:
 * openat2(2), or, where the kernel has none (ENOSYS, EPERM of a seccomp filter), a walk of its
 * components with O_NOFOLLOW that gives the same guarantee.  path "" is rootfd itself (reopened).
 * Refuses absolute paths and ".." components. */
int fs_open_beneath(int rootfd, const char *path, int flags, mode_t mode, struct moat_error *err);
/* The parent directory of `path`, opened that way (O_PATH is not set: it can be read and fsync'ed),
 * and the last component (points into path). */
int fs_open_parent(int rootfd, const char *path, const char **ret_name, struct moat_error *err);
/* Reads the directory `path' below rootfd, opened that way; the caller closes the stream.  NULL:
 * *err. */
DIR *fs_open_stream(int rootfd, const char *path, struct moat_error *err);
/* The next name in it, but for "." and "..": 1; 0: there are no more; -1: *err.  (The end and a
 * failure of readdir(3) look alike, and a list that is cut short is a danger where it says what to
 * keep.) */
int fs_read_name(DIR *stream, struct dirent **ret, struct moat_error *err);
/* Makes fs_open_beneath() use the walk, for tests. */
void fs_force_walk(bool on);

/* Reads a whole file of at most `max` bytes (more: MOAT_CORRUPT).  *ret is NUL-terminated, freed by
 * the caller. A file that does not exist: MOAT_NOT_FOUND. */
int fs_read(int dirfd, const char *name, size_t max, char **ret, size_t *ret_size,
	    struct moat_error *err);
/* What the names of the temporary files of fs_write_atomic() begin with; a crash may leave one. */
#define FS_TEMPORARY_PREFIX ".moat-tmp_"
/* Replaces a file so that after a crash it is wholly old or wholly new: a temporary file beside it,
 * fsync, rename, fsync of the directory. */
int fs_write_atomic(int dirfd, const char *name, const void *data, size_t size, mode_t mode,
		    struct moat_error *err);
/* write(2) until all is written. */
int fs_write_all(int fd, const void *data, size_t size, const char *what, struct moat_error *err);
/* pwrite(2) until all is written, from byte `offset' of the file on; the caller says where. */
int fs_write_at(int fd, const void *data, size_t size, uint64_t offset, struct moat_error *err);
/* fsync(2) of a file or directory; EINVAL and ENOTSUP of filesystems without it are success. */
int fs_sync(int fd, const char *what, struct moat_error *err);

/* mkdir -p with mode 0700 for what is made; the last one is opened.  May follow links: for moat's
 * own directories, whose parents are the user's. */
int fs_make_directories(const char *path, struct moat_error *err);
/* Opens a subdirectory (one name), made with mode 0700 when it is missing. */
int fs_open_directory(int dirfd, const char *name, bool create, struct moat_error *err);

/* Removes `name` below dirfd, with everything in it, never following a link nor leaving its
 * filesystem; directories without write permission are made writable first.  Something that is not
 * there is success. */
int fs_remove_tree(int dirfd, const char *name, struct moat_error *err);

/* True when both are the same object: device and inode. */
bool fs_same_file(const struct stat *a, const struct stat *b);
/* The id of the mount that fd is on (statx(2) STATX_MNT_ID, else fdinfo), or -1. */
int64_t fs_mount_id(int fd);

/* An exclusive or shared lock on a whole file (open file description lock, fcntl(2) F_OFD_SETLK):
 * it ends with the descriptor, whatever happens to the process, so there is never a stale one.  The
 * file is made when missing. wait false: MOAT_BUSY at once when somebody holds it. Returns the
 * descriptor that holds the lock. */
int fs_lock(int dirfd, const char *name, bool exclusive, bool wait, struct moat_error *err);

#endif
