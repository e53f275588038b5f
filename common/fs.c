/* SPDX-License-Identifier: Apache-2.0 */
/* Opening below a directory, whole files, removal of trees, locks. */
#include "common/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/text.h"

#if __has_include(<linux/openat2.h>)
#include <linux/openat2.h>
#else
struct open_how {
	uint64_t flags, mode, resolve;
};
#define RESOLVE_NO_XDEV 0x01
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_NO_SYMLINKS 0x04
#define RESOLVE_BENEATH 0x08
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

#define SUBDIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* ------------------------------------------------------------------- opening below a directory */

static atomic_bool force_walk; /* for tests, and once the kernel has said that it has no openat2 */

void
fs_force_walk(bool on)
{
	force_walk = on;
}

bool
fs_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Before Linux 5.8 statx(2) does not tell the mount, but /proc does. */
static int64_t
mount_id_of_fdinfo(int fd)
{
	char name[64], line[128];
	AUTO_FCLOSE FILE *info = NULL;
	long long id;

	(void) snprintf(name, sizeof name, "/proc/self/fdinfo/%d", fd);
	info = fopen(name, "re");
	while (info != NULL && fgets(line, sizeof line, info) != NULL) {
		if (sscanf(line, "mnt_id: %lld", &id) == 1)
			return id;
	}
	return -1;
}

int64_t
fs_mount_id(int fd)
{
	struct statx status;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &status) == 0 &&
	    (status.stx_mask & STATX_MNT_ID) != 0)
		return (int64_t) status.stx_mnt_id;
	return mount_id_of_fdinfo(fd);
}

/* Whether a and b are on one mount.  Where a kernel tells no mount ids, being on one device is what
 * is checked: mounts of the same filesystem are not told apart. */
static bool
same_mount(int a, int b)
{
	int64_t id_a = fs_mount_id(a), id_b = fs_mount_id(b);
	struct stat stat_a, stat_b;

	if (id_a >= 0 && id_b >= 0)
		return id_a == id_b;
	return fstat(a, &stat_a) == 0 && fstat(b, &stat_b) == 0 && stat_a.st_dev == stat_b.st_dev;
}

static bool
is_plain_path(const char *path)
{
	size_t length;

	if (*path == '\0')
		return true;
	for (;; path += length + 1) {
		length = strcspn(path, "/");
		if (length == 0 || (length == 1 && path[0] == '.') ||
		    (length == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		if (path[length] == '\0')
			return true;
	}
}

static int
open_with_openat2(int rootfd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t) (unsigned) flags,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS |
			   RESOLVE_NO_XDEV,
	};
	long fd = -1;

	if ((flags & O_CREAT) != 0 || (flags & O_TMPFILE) == O_TMPFILE)
		how.mode = mode & 07777;
	/* EAGAIN: the kernel could not rule out a race with a rename elsewhere. */
	for (int tries = 0; tries < 64; tries++) {
		fd = syscall(SYS_openat2, rootfd, *path == '\0' ? "." : path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return (int) fd;
}

/* Opens one name in `dirfd` and makes sure that it is on the mount of rootfd.  Truncation waits
 * until that is known.  errno is ELOOP for a symbolic link, EXDEV for another mount. */
static int
open_component(int rootfd, int dirfd, const char *name, int flags, mode_t mode)
{
	AUTO_CLOSE int fd = openat(dirfd, name, (flags & ~O_TRUNC) | O_NOFOLLOW | O_CLOEXEC, mode);
	struct stat status;

	if (fd < 0) {
		/* O_DIRECTORY on a link says ENOTDIR. */
		if (errno == ENOTDIR)
			errno = fstatat(dirfd, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
						S_ISLNK(status.st_mode)
					? ELOOP
					: ENOTDIR;
		return -1;
	}
	if (!same_mount(rootfd, fd)) {
		errno = EXDEV;
		return -1;
	}
	/* O_PATH opens a link itself: that is for those who asked for it with O_NOFOLLOW. */
	if ((flags & O_PATH) != 0 && (flags & O_NOFOLLOW) == 0) {
		if (fstat(fd, &status) < 0)
			return -1;
		if (S_ISLNK(status.st_mode)) {
			errno = ELOOP;
			return -1;
		}
	}
	if ((flags & O_TRUNC) != 0 && (flags & O_PATH) == 0 && ftruncate(fd, 0) < 0)
		return -1;
	return steal_fd(&fd);
}

/* What openat2(2) does, one component after the other.  No component is a link when it is opened,
 * whatever it is before or after, and since ".." is never used, nobody gets out by moving a
 * directory. */
static int
open_with_walk(int rootfd, const char *path, int flags, mode_t mode)
{
	AUTO_FREE char *copy = strdup(path);
	AUTO_CLOSE int dirfd = -1;
	char *name = copy, *slash;
	int next;

	if (copy == NULL)
		return -1;
	if (*name == '\0')
		return openat(rootfd, ".", flags | O_CLOEXEC, mode);
	for (; (slash = strchr(name, '/')) != NULL; name = slash + 1) {
		*slash = '\0';
		next = open_component(rootfd, dirfd < 0 ? rootfd : dirfd, name,
				      O_PATH | O_DIRECTORY, 0);
		if (next < 0)
			return -1;
		cleanup_close(&dirfd);
		dirfd = next;
	}
	return open_component(rootfd, dirfd < 0 ? rootfd : dirfd, name, flags, mode);
}

int
fs_open_beneath(int rootfd, const char *path, int flags, mode_t mode, struct moat_error *err)
{
	int fd = -1;

	if (!is_plain_path(path))
		return moat_fail(err, MOAT_USAGE, "open `%s': not a path inside a directory", path);
	flags |= O_CLOEXEC;
	errno = ENOSYS;
	if (!force_walk)
		fd = open_with_openat2(rootfd, path, flags, mode);
	if (fd < 0 && errno == ENOSYS)
		force_walk = true;
	/* EPERM is also what a file may answer; the walk then gets the same answer.  And only the
	 * walk gets along with paths that are too long for one system call. */
	if (fd < 0 && (errno == ENOSYS || errno == EPERM || errno == E2BIG ||
		       (errno == ENAMETOOLONG && strlen(path) >= PATH_MAX)))
		fd = open_with_walk(rootfd, path, flags, mode);
	if (fd >= 0)
		return fd;
	if (errno == ELOOP || errno == EXDEV)
		return moat_error_set(err, MOAT_CONFLICT, errno, "open `%s': %s", path,
				      errno == ELOOP ? "a symbolic link is in the way"
						     : "another filesystem is mounted there");
	return moat_fail_errno(err, "open `%s'", path);
}

int
fs_open_parent(int rootfd, const char *path, const char **ret_name, struct moat_error *err)
{
	const char *slash = strrchr(path, '/');
	const char *name = slash == NULL ? path : slash + 1;
	AUTO_FREE char *parent = strndup(path, slash == NULL ? 0 : (size_t) (slash - path));
	int fd;

	if (parent == NULL)
		return moat_fail_memory(err);
	if (*path == '\0' || !is_plain_path(path))
		return moat_fail(err, MOAT_USAGE,
				 "open the parent of `%s': not a path inside a directory", path);
	fd = fs_open_beneath(rootfd, parent, SUBDIRECTORY, 0, err);
	if (fd >= 0)
		*ret_name = name;
	return fd;
}

DIR *
fs_open_stream(int rootfd, const char *path, struct moat_error *err)
{
	int fd = fs_open_beneath(rootfd, path, O_RDONLY | O_DIRECTORY, 0, err);
	DIR *stream;

	if (fd < 0)
		return NULL;
	stream = fdopendir(fd);
	if (stream != NULL)
		return stream;
	(void) moat_fail_errno(err, "read the directory `%s'", path);
	cleanup_close(&fd);
	return NULL;
}

int
fs_read_name(DIR *stream, struct dirent **ret, struct moat_error *err)
{
	do {
		errno = 0;
		*ret = readdir(stream);
		if (*ret == NULL && errno != 0)
			return moat_fail_errno(err, "read a directory");
	} while (*ret != NULL &&
		 (strcmp((*ret)->d_name, ".") == 0 || strcmp((*ret)->d_name, "..") == 0));
	return *ret != NULL;
}

/* -------------------------------------------------------------------------------- whole files */

/* Reads until the end, or until there are more than `max` bytes. */
static int
read_all(int fd, const char *name, size_t max, struct buf *out, struct moat_error *err)
{
	char chunk[16384];
	ssize_t got;

	while (out->size <= max) {
		got = read(fd, chunk, sizeof chunk);
		if (got == 0)
			return buf_check(out, err);
		if (got < 0 && errno != EINTR)
			return moat_fail_errno(err, "read `%s'", name);
		if (got > 0)
			buf_append(out, chunk, (size_t) got);
		if (buf_check(out, err) < 0)
			return -1;
	}
	return moat_fail(err, MOAT_CORRUPT, "read `%s': it is larger than %zu bytes", name, max);
}

int
fs_read(int dirfd, const char *name, size_t max, char **ret, size_t *ret_size,
	struct moat_error *err)
{
	AUTO_BUF struct buf out = {0};
	/* O_NONBLOCK: a FIFO must not keep us waiting. */
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	size_t size;
	char *data;

	if (fd < 0)
		return moat_fail_errno(err, "open `%s'", name);
	if (fstat(fd, &status) < 0)
		return moat_fail_errno(err, "stat `%s'", name);
	if (!S_ISREG(status.st_mode))
		return moat_fail(err, MOAT_FAILED, "read `%s': not a regular file", name);
	if (read_all(fd, name, max, &out, err) < 0)
		return -1;
	size = out.size;
	data = buf_steal(&out);
	if (data == NULL)
		return moat_fail_memory(err);
	*ret = data;
	if (ret_size != NULL)
		*ret_size = size;
	return 0;
}

int
fs_write_all(int fd, const void *data, size_t size, const char *what, struct moat_error *err)
{
	const char *bytes = data;
	ssize_t put;

	while (size > 0) {
		put = write(fd, bytes, size);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return moat_fail_errno(err, "write `%s'", what);
		bytes += put;
		size -= (size_t) put;
	}
	return 0;
}

int
fs_write_at(int fd, const void *data, size_t size, uint64_t offset, struct moat_error *err)
{
	const char *bytes = data;
	ssize_t put;

	while (size > 0) {
		put = pwrite(fd, bytes, size, (off_t) offset);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return moat_fail_errno(err, "write");
		bytes += put;
		size -= (size_t) put;
		offset += (uint64_t) put;
	}
	return 0;
}

int
fs_sync(int fd, const char *what, struct moat_error *err)
{
	int result;

	do
		result = fsync(fd);
	while (result < 0 && errno == EINTR);
	if (result < 0 && errno != EINVAL && errno != EOPNOTSUPP)
		return moat_fail_errno(err, "sync `%s'", what);
	return 0;
}

/* A new file of a random name in dirfd. */
static int
create_temporary(int dirfd, char name[32], struct moat_error *err)
{
	int fd = -1;

	for (int tries = 0; tries < 16; tries++) {
		if (text_random_id(name, ".moat-tmp", err) < 0)
			return -1;
		fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
			    0600);
		if (fd >= 0 || errno != EEXIST)
			break;
	}
	return fd < 0 ? moat_fail_errno(err, "create a temporary file") : fd;
}

/* Everything up to, and with, the rename. */
static int
write_and_rename(int dirfd, const char *temporary, int fd, const char *name, const void *data,
		 size_t size, mode_t mode, struct moat_error *err)
{
	if (fs_write_all(fd, data, size, temporary, err) < 0)
		return -1;
	if (fchmod(fd, mode) < 0)
		return moat_fail_errno(err, "chmod `%s'", temporary);
	if (fs_sync(fd, temporary, err) < 0)
		return -1;
	if (renameat(dirfd, temporary, dirfd, name) < 0)
		return moat_fail_errno(err, "rename `%s'", temporary);
	return 0;
}

int
fs_write_atomic(int dirfd, const char *name, const void *data, size_t size, mode_t mode,
		struct moat_error *err)
{
	const char *slash = strrchr(name, '/');
	const char *base = slash == NULL ? name : slash + 1;
	AUTO_FREE char *parent =
		slash == NULL ? strdup(".") : strndup(name, (size_t) (slash - name) + 1);
	AUTO_CLOSE int directory = -1;
	AUTO_CLOSE int fd = -1;
	char temporary[32];

	if (parent == NULL)
		return moat_fail_memory(err);
	directory = openat(dirfd, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0) {
		(void) moat_fail_errno(err, "open `%s'", parent);
		return moat_wrap(err, "write `%s'", name);
	}
	fd = create_temporary(directory, temporary, err);
	if (fd < 0)
		return moat_wrap(err, "write `%s'", name);
	if (write_and_rename(directory, temporary, fd, base, data, size, mode, err) < 0) {
		/* The first error is the one to tell. */
		(void) unlinkat(directory, temporary, 0);
		return moat_wrap(err, "write `%s'", name);
	}
	return fs_sync(directory, parent, err);
}

/* -------------------------------------------------------------------------------- directories */

int
fs_make_directories(const char *path, struct moat_error *err)
{
	AUTO_FREE char *copy = strdup(path);
	char *end = copy;
	char kept;
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (copy == NULL) {
		cleanup_close(&fd);
		return moat_fail_memory(err);
	}
	if (fd >= 0)
		return fd;
	do {
		end += strspn(end, "/");
		end += strcspn(end, "/");
		kept = *end;
		*end = '\0';
		/* What exists may answer anything (EROFS, EACCES); whether it is a directory is
		 * seen in the end. */
		if (mkdir(copy, 0700) < 0 && access(copy, F_OK) < 0)
			return moat_fail_errno(err, "make directory `%s'", copy);
		*end = kept;
	} while (kept != '\0');
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? moat_fail_errno(err, "open directory `%s'", path) : fd;
}

int
fs_open_directory(int dirfd, const char *name, bool create, struct moat_error *err)
{
	int fd = openat(dirfd, name, SUBDIRECTORY);

	if (fd < 0 && errno == ENOENT && create) {
		if (mkdirat(dirfd, name, 0700) < 0 && errno != EEXIST)
			return moat_fail_errno(err, "make directory `%s'", name);
		fd = openat(dirfd, name, SUBDIRECTORY);
	}
	return fd < 0 ? moat_fail_errno(err, "open directory `%s'", name) : fd;
}

/* -------------------------------------------------------------------------------------- locks */

/* Waits for the lock, or takes it now or never. */
static int
take_lock(int fd, const char *name, bool exclusive, bool wait, struct moat_error *err)
{
	struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return moat_error_set(err, MOAT_BUSY, errno, "`%s' is locked by another process",
				      name);
	return moat_fail_errno(err, "lock `%s'", name);
}

int
fs_lock(int dirfd, const char *name, bool exclusive, bool wait, struct moat_error *err)
{
	for (;;) {
		AUTO_CLOSE int fd =
			openat(dirfd, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		struct stat locked, named;

		if (fd < 0)
			return moat_fail_errno(err, "open lock `%s'", name);
		if (take_lock(fd, name, exclusive, wait, err) < 0)
			return -1;
		if (fstat(fd, &locked) < 0)
			return moat_fail_errno(err, "stat lock `%s'", name);
		/* A lock on a file that was removed meanwhile excludes nobody: once more, then. */
		if (fstatat(dirfd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
		    fs_same_file(&locked, &named))
			return steal_fd(&fd);
	}
}
