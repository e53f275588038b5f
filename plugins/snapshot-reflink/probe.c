/* SPDX-License-Identifier: Apache-2.0 */
/* Whether cloning from the workspace to moat's home works, tried with files that have no name and
 * are gone when they are closed; and whether it is worth it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fs.h"
#include "reflink.h"

#define LOOK_OBJECTS 4096
#define LOOK_NS ((int64_t) 5 * 1000 * 1000)
#define LARGE_FILE ((uint64_t) 8 << 20)
#define LARGE_AVERAGE ((uint64_t) 128 << 10)

static int refuse(struct moat_bid *bid, const char *format, ...) MOAT_PRINTF(2, 3);
static int
refuse(struct moat_bid *bid, const char *format, ...)
{
	va_list args;

	bid->score = 0;
	va_start(args, format);
	(void) vsnprintf(bid->reason, sizeof bid->reason, format, args);
	va_end(args);
	return 0;
}

/* ------------------------------------------------------------------------------ does it work */

static int
nameless_file(int dirfd)
{
	return openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
}

/* One block, written: an empty file can be cloned where others cannot. */
static int
file_with_a_block(int dirfd)
{
	static const char block[4096] = "moat tries whether files can be cloned here\n";
	int fd = nameless_file(dirfd);

	if (fd >= 0 && pwrite(fd, block, sizeof block, 0) != (ssize_t) sizeof block) {
		if (errno == 0)
			errno = EIO;
		cleanup_close(&fd);
		fd = -1;
	}
	return fd;
}

/* 0, or the errno of the attempt. */
static int
try_clone(int from, int to)
{
	int r;

	do {
		r = ioctl(to, FICLONE, from);
	} while (r < 0 && errno == EINTR);
	return r == 0 ? 0 : errno;
}

static int
refuse_file(struct moat_bid *bid, const char *where)
{
	const char *why = strerror(errno);

	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT)
		why = "its filesystem has no files without a name (O_TMPFILE)";
	return refuse(bid, "cloning cannot be tried in %s: %s", where, why);
}

static int
refuse_filesystem(struct moat_bid *bid)
{
	return refuse(bid, "the filesystem of the workspace cannot clone files; btrfs, XFS and "
			   "bcachefs can");
}

/* EXDEV does not tell whether the workspace's filesystem could clone at all. */
static int
refuse_clone(struct moat_bid *bid, int workspace_fd, int from, int why)
{
	AUTO_CLOSE int beside = nameless_file(workspace_fd);
	int inside = beside < 0 ? errno : try_clone(from, beside);

	if (why == EXDEV && inside == 0)
		return refuse(bid, "moat's home is on another filesystem than the workspace; set "
				   "MOAT_HOME to a directory on it");
	if (inside == EOPNOTSUPP || inside == ENOTTY || inside == EINVAL)
		return refuse_filesystem(bid);
	return refuse(bid, "a file of the workspace could not be cloned into moat's home: %s",
		      strerror(why));
}

/* Most filesystems say "never" before they look at the files; then one file in moat's home, offered
 * to itself, is enough. */
static bool
says_never(const struct moat_target *target, int file)
{
	struct stat home, workspace;
	int why;

	if (fstat(target->home_fd, &home) < 0 || fstat(target->workspace_fd, &workspace) < 0 ||
	    home.st_dev != workspace.st_dev)
		return false;
	why = try_clone(file, file);
	return why == EOPNOTSUPP || why == ENOTTY;
}

/* True when it works; else the bid says why not. */
static bool
works(const struct moat_target *target, struct moat_bid *bid)
{
	AUTO_CLOSE int from = -1, to = nameless_file(target->home_fd);
	int why;

	if (to < 0) {
		(void) refuse_file(bid, "moat's home");
		return false;
	}
	if (says_never(target, to)) {
		(void) refuse_filesystem(bid);
		return false;
	}
	errno = 0;
	from = file_with_a_block(target->workspace_fd);
	if (from < 0)
		(void) refuse_file(bid, "the workspace");
	else if ((why = try_clone(from, to)) != 0)
		(void) refuse_clone(bid, target->workspace_fd, from, why);
	else
		return true;
	return false;
}

/* ----------------------------------------------------------------------------- is it worth it */

/* A look at the top of the tree, in the order of depth. */
struct look {
	int rootfd;
	char *queue[LOOK_OBJECTS]; /* directories, in the order in which they are read */
	size_t head, tail;
	size_t objects;
	uint64_t files, bytes;
	int64_t until;
	bool large;
};

static int64_t
now(void)
{
	struct timespec ts;

	(void) clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void
look_at(struct look *look, int fd, const char *directory, const char *name)
{
	struct stat st;

	look->objects++;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
		return;
	if (S_ISREG(st.st_mode)) {
		look->files++;
		look->bytes += (uint64_t) st.st_size;
		look->large = look->large || (uint64_t) st.st_size >= LARGE_FILE;
	} else if (S_ISDIR(st.st_mode) && strcmp(name, ".git") != 0 && look->tail < LOOK_OBJECTS) {
		char *path = NULL;

		if (asprintf(&path, "%s%s%s", directory, *directory == '\0' ? "" : "/", name) >= 0)
			look->queue[look->tail++] = path;
	}
}

static bool
look_goes_on(const struct look *look)
{
	return !look->large && look->objects < LOOK_OBJECTS && now() < look->until;
}

/* What cannot be read is passed over: this is a guess at the tree, and not the tree. */
static void
look_into(struct look *look, const char *directory)
{
	AUTO_CLOSEDIR DIR *dir = fs_open_stream(look->rootfd, directory, NULL);
	struct dirent *item;

	while (dir != NULL && look_goes_on(look) && (item = readdir(dir)) != NULL) {
		if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0)
			look_at(look, dirfd(dir), directory, item->d_name);
	}
}

static bool
has_large_files(int rootfd)
{
	struct look *look = calloc(1, sizeof *look);
	bool large;

	if (look == NULL)
		return false;
	look->rootfd = rootfd;
	look->until = now() + LOOK_NS;
	look_into(look, "");
	for (; look->head < look->tail; look->head++) {
		if (look_goes_on(look))
			look_into(look, look->queue[look->head]);
		free(look->queue[look->head]);
	}
	large = look->large || (look->files > 0 && look->bytes / look->files >= LARGE_AVERAGE);
	free(look);
	return large;
}

int
reflink_probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
	      struct moat_error *err)
{
	if (target == NULL || target->workspace_fd < 0)
		return refuse(bid, "there is no workspace to try it with");
	if (!MOAT_HAS(struct moat_target, target, home_fd) || target->home_fd < 0)
		return refuse(bid, "moat's home, where the clones would lie, is not known");
	if (!works(target, bid))
		return 0;
	bid->score = has_large_files(target->workspace_fd) ? 70 : 40;
	(void) snprintf(bid->reason, sizeof bid->reason, "clones blocks instead of copying them%s",
			bid->score == 70 ? "; the tree has large files"
					 : ", but small files pack better");
	return 0;
}
