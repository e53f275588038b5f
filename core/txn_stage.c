/* SPDX-License-Identifier: Apache-2.0 */
/* The stage: a private directory on the workspace's own mount, from where a rename reaches the
 * workspace. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/tree.h"
#include "core/txn_internal.h"

/* In the journal. */
#define LEAVING "leaving"
#define LEAVING_SECONDS 5

const char *
stage_name(char out[STAGE_NAME_MAX], char prefix, uint64_t number)
{
	snprintf(out, STAGE_NAME_MAX, "%c%llx", prefix, (unsigned long long) number);
	return out;
}

/* The stage's name inside the workspace. */
static void
inside_name(const struct journal *journal, char out[64])
{
	const char *digits = strchr(journal->id, '_');

	snprintf(out, 64, "%s%s", TREE_STAGE_PREFIX, digits == NULL ? journal->id : digits + 1);
}

/* Where rename(2) can reach the workspace: moat's home when it is on the same mount, else the
 * workspace itself. */
static bool
same_mount(int a, int b)
{
	struct stat sa, sb;
	int64_t mount = fs_mount_id(a);

	return mount >= 0 && mount == fs_mount_id(b) && fstat(a, &sa) == 0 && fstat(b, &sb) == 0 &&
	       sa.st_dev == sb.st_dev;
}

static int
stage_directory(const struct journal *journal, struct member *member, bool create,
		struct moat_error *err)
{
	char name[64];

	if (!member->stage_inside)
		return fs_open_directory(journal->fd, "stage", create, err);
	inside_name(journal, name);
	return fs_open_directory(member->root_fd, name, create, err);
}

int
stage_make(const struct home *home, const struct journal *journal, struct member *member,
	   struct moat_error *err)
{
	struct stat st;

	if (fstat(member->root_fd, &st) < 0)
		return moat_fail_errno(err, "look at `%s'", member->path);
	member->stage_inside = !same_mount(home->txn_fd, member->root_fd);
	member->root_mtime_sec = st.st_mtim.tv_sec;
	member->root_mtime_nsec = (uint32_t) st.st_mtim.tv_nsec;
	/* First the word, then the deed: what recovery has to clear away must be written down
	 * before it exists. */
	if (journal_write_intent(journal, member, err) < 0)
		return -1;
	member->stage_fd = stage_directory(journal, member, true, err);
	if (member->stage_fd < 0)
		return moat_wrap(err, "make a place for the new files%s%s",
				 member->stage_inside ? " in " : "",
				 member->stage_inside ? member->path : "");
	/* A default ACL of the directory above would open the new files to others than they were.
	 */
	(void) fremovexattr(member->stage_fd, "system.posix_acl_default"); /* there may be none */
	(void) fremovexattr(member->stage_fd, "system.posix_acl_access");
	if (fchmod(member->stage_fd, 0700) < 0)
		return moat_fail_errno(err, "make the stage private");
	return 0;
}

int
stage_open(const struct journal *journal, struct member *member, struct moat_error *err)
{
	struct moat_error local = MOAT_ERROR_INIT;

	member->stage_fd = stage_directory(journal, member, false, &local);
	if (member->stage_fd < 0 && local.code != MOAT_NOT_FOUND)
		return moat_fail(err, local.code, "%s", local.message);
	return 0;
}

/* Its content.  The directory itself comes last, and quickly. */
static int
empty_stage(int root_fd, const char *name, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(root_fd, name, err);
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return -1;
	while ((next = fs_read_name(stream, &entry, err)) > 0)
		if (fs_remove_tree(dirfd(stream), entry->d_name, err) < 0)
			return -1;
	return next;
}

/* The word that the stage is about to go, which touches the workspace's root; its time says when.
 * Should it fail, nothing is lost but that. */
static void
announce_leaving(const struct journal *journal)
{
	AUTO_CLOSE int fd =
		openat(journal->fd, LEAVING, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 || fs_sync(fd, LEAVING, NULL) < 0 || fs_sync(journal->fd, LEAVING, NULL) < 0 ||
	    futimens(fd, NULL) < 0)
		return;
}

/* The stage is gone.  Was it our going that touched the root last, or is its time somebody else's
 * business now? */
static bool
was_touched_by_leaving(const struct journal *journal, const struct member *member)
{
	struct stat word, root;

	return fstatat(journal->fd, LEAVING, &word, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstat(member->root_fd, &root) == 0 && root.st_mtim.tv_sec >= word.st_mtim.tv_sec &&
	       root.st_mtim.tv_sec - word.st_mtim.tv_sec <= LEAVING_SECONDS;
}

int
stage_remove(const struct journal *journal, struct member *member, const struct moat_entry *root,
	     struct moat_error *err)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
	char name[64];

	cleanup_close(&member->stage_fd);
	member->stage_fd = -1;
	if (!member->stage_inside)
		return fs_remove_tree(journal->fd, "stage", err);
	inside_name(journal, name);
	if (faccessat(member->root_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT) {
		if (empty_stage(member->root_fd, name, err) < 0)
			return -1;
		announce_leaving(journal);
		if (fs_remove_tree(member->root_fd, name, err) < 0)
			return -1;
	} else if (!was_touched_by_leaving(journal, member)) {
		return 0;
	}
	/* Making and removing it has touched the workspace's root. */
	times[1].tv_sec = root == NULL ? member->root_mtime_sec : root->mtime_sec;
	times[1].tv_nsec = root == NULL ? member->root_mtime_nsec : root->mtime_nsec;
	if (futimens(member->root_fd, times) < 0)
		return moat_fail_errno(err, "set the time of `%s'", member->path);
	return 0;
}
