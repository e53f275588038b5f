/* SPDX-License-Identifier: Apache-2.0 */
/* Carrying a plan out, and taking it back.
 *
 * Each operation first finds out where its objects are, so that it can be repeated after a crash at
 * any point:
 *
 *   create   the staged object is either still in the stage (not done) or it is not (done)
 *   delete   the old object is either in the stage (done) or it is not (not done, or it was gone
 * anyway) replace  the name in the stage holds the new object (not done) or the old one (done):
 * told by the inode number. A filesystem without RENAME_EXCHANGE gets two renames, and the old
 * object another name in the stage; between them the path is absent for other processes, which is
 * the guarantee lost there.
 *
 * What a rename brought out of the workspace is compared with what was planned: somebody may have
 * edited it since.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/log.h"
#include "core/txn_internal.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE (1 << 1)
#endif

/* The parent directory that was used last: neighbours follow each other in a plan. */
struct parent {
	char *path; /* NULL: none */
	int fd;
};

static void
parent_close(struct parent *parent)
{
	free(STEAL(parent->path));
	cleanup_close(&parent->fd);
}
#define AUTO_PARENT CLEANUP(parent_close)

/* The parent of `path`, open until the next call. */
static int
parent_of(const struct member *member, struct parent *parent, const char *path,
	  const char **ret_name, struct moat_error *err)
{
	const char *slash = strrchr(path, '/');
	size_t n = slash == NULL ? 0 : (size_t) (slash - path);

	if (path[0] == '\0') { /* The root itself. */
		*ret_name = ".";
		parent_close(parent);
		parent->fd = fs_open_beneath(member->root_fd, "", O_RDONLY | O_DIRECTORY, 0, err);
		return parent->fd;
	}
	*ret_name = slash == NULL ? path : slash + 1;
	if (parent->path != NULL && strlen(parent->path) == n && memcmp(parent->path, path, n) == 0)
		return parent->fd;
	parent_close(parent);
	parent->fd = fs_open_parent(member->root_fd, path, ret_name, err);
	if (parent->fd < 0)
		return -1;
	parent->path = strndup(path, n);
	return parent->path == NULL ? moat_fail_memory(err) : parent->fd;
}

static int
rename_flags(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	return (int) syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

/* rename(2) that replaces nothing.  Where the filesystem cannot promise that, the check comes just
 * before. */
static int
rename_exclusive(int from_dir, const char *from, int to_dir, const char *to)
{
	if (rename_flags(from_dir, from, to_dir, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	if (faccessat(to_dir, to, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return -1;
	}
	return errno == ENOENT ? renameat(from_dir, from, to_dir, to) : -1;
}

static bool
exists(int dirfd, const char *name, struct stat *st)
{
	return fstatat(dirfd, name, st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* True when the object is what the plan saw: nobody has touched it since.  (Its ctime changes by
 * the rename.) */
static bool
is_as_planned(const struct stat *st, const struct moat_entry *entry)
{
	return st->st_ino == entry->ino && st->st_mtim.tv_sec == entry->mtime_sec &&
	       (uint32_t) st->st_mtim.tv_nsec == entry->mtime_nsec &&
	       (entry->type == MOAT_DIRECTORY || (uint64_t) st->st_size == entry->size);
}

static int
edited(const char *path, struct moat_error *err)
{
	return moat_fail(
		err, MOAT_CONFLICT,
		"`%s' was changed by somebody else while it was being restored; nothing was "
		"changed, try again",
		path);
}

/* --------------------------------------------------------------------------------------- forward
 */

static int
apply_open(const struct moat_entry *from, int dirfd, const char *name, struct moat_error *err)
{
	struct stat st;

	/* What took its place already needs none. */
	if (!exists(dirfd, name, &st) || !S_ISDIR(st.st_mode))
		return 0;
	if (fchmodat(dirfd, name, from->mode | 0700, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
		return moat_fail_errno(err, "make the directory `%s' writable", from->path);
	return 0;
}

static int
apply_delete(struct member *member, const struct op *op, int dirfd, const char *name,
	     struct moat_error *err)
{
	const struct moat_entry *from = plan_from(&member->plan, op);
	char old[STAGE_NAME_MAX];
	struct stat st;

	stage_name(old, 'o', op->number);
	if (exists(member->stage_fd, old, &st))
		return 0;
	if (rename_exclusive(dirfd, name, member->stage_fd, old) < 0) {
		if (errno == ENOENT)
			return 0;
		return moat_fail_errno(err, "move `%s' away", from->path);
	}
	if (!exists(member->stage_fd, old, &st) || !is_as_planned(&st, from))
		return edited(from->path, err);
	return 0;
}

static int
apply_rmdir(const struct moat_entry *from, int dirfd, const char *name, struct moat_error *err)
{
	if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT || errno == ENOTDIR)
		return 0;
	/* Something new has come into it: it stays, as a directory with ignored files does. */
	if (errno == ENOTEMPTY || errno == EEXIST) {
		log_warning("%s stays: something was put into it meanwhile", from->path);
		return 0;
	}
	return moat_fail_errno(err, "remove the directory `%s'", from->path);
}

static int
apply_create(struct member *member, const struct op *op, int dirfd, const char *name,
	     struct moat_error *err)
{
	const struct moat_entry *to = plan_to(&member->plan, op);
	char staged[STAGE_NAME_MAX];

	stage_name(staged, 'n', op->number);
	if (rename_exclusive(member->stage_fd, staged, dirfd, name) == 0 || errno == ENOENT)
		return 0;
	if (errno == EEXIST || errno == ENOTEMPTY)
		return moat_fail(
			err, MOAT_CONFLICT,
			"something else stands where `%s' is to be; nothing was changed, move "
			"it away and try again",
			to->path);
	return moat_fail_errno(err, "put `%s' in place", to->path);
}

/* Without RENAME_EXCHANGE. */
static int
replace_in_two(struct member *member, const struct op *op, int dirfd, const char *name,
	       struct moat_error *err)
{
	const struct moat_entry *from = plan_from(&member->plan, op);
	char staged[STAGE_NAME_MAX], old[STAGE_NAME_MAX];
	struct stat st;

	stage_name(staged, 'n', op->number);
	stage_name(old, 'o', op->number);
	if (!exists(member->stage_fd, old, &st)) {
		if (rename_exclusive(dirfd, name, member->stage_fd, old) < 0)
			return moat_fail_errno(err, "move `%s' away", from->path);
		if (!exists(member->stage_fd, old, &st) || !is_as_planned(&st, from))
			return edited(from->path, err);
	}
	if (rename_exclusive(member->stage_fd, staged, dirfd, name) < 0 && errno != ENOENT)
		return moat_fail_errno(err, "put `%s' in place", from->path);
	return 0;
}

static int
apply_replace(struct member *member, const struct op *op, int dirfd, const char *name,
	      struct moat_error *err)
{
	const struct moat_entry *from = plan_from(&member->plan, op);
	char staged[STAGE_NAME_MAX], old[STAGE_NAME_MAX];
	struct stat st;

	stage_name(staged, 'n', op->number);
	stage_name(old, 'o', op->number);
	if (exists(member->stage_fd, old, &st))
		return replace_in_two(member, op, dirfd, name, err);
	if (!exists(member->stage_fd, staged, &st))
		return moat_fail(err, MOAT_CORRUPT,
				 "the new content of `%s' is missing from the stage", from->path);
	if (st.st_ino != op->ino)
		return 0; /* They have changed places already. */
	if (rename_flags(member->stage_fd, staged, dirfd, name, RENAME_EXCHANGE) < 0) {
		if (errno == EINVAL || errno == ENOSYS)
			return replace_in_two(member, op, dirfd, name, err);
		if (errno == ENOENT)
			return edited(from->path, err);
		return moat_fail_errno(err, "put `%s' in place", from->path);
	}
	if (!exists(member->stage_fd, staged, &st) || !is_as_planned(&st, from))
		return edited(from->path, err);
	return 0;
}

/* from NULL: a directory that was made just now. */
static int
apply_meta(const struct moat_entry *from, const struct moat_entry *to, int dirfd, const char *name,
	   struct moat_error *err)
{
	bool xattrs = from == NULL ? to->xattrs_size > 0 : !meta_same_xattrs(from, to);
	/* A setuid bit that is there may stay; none is given. */
	uint32_t mode = from != NULL && from->mode == to->mode ? to->mode : meta_mode(to);

	return meta_set(dirfd, name, to, mode, xattrs, err);
}

/* Everything above it may have been removed or replaced already, when this is not the first try. */
static bool
is_removal(const struct op *op)
{
	return op->kind == OP_OPEN || op->kind == OP_DELETE || op->kind == OP_RMDIR;
}

static bool
is_absence(const struct moat_error *err)
{
	return err->code == MOAT_NOT_FOUND || err->sys_errno == ENOENT ||
	       err->sys_errno == ENOTDIR || err->sys_errno == ELOOP;
}

static int
apply_op(struct member *member, struct parent *parent, const struct op *op, struct moat_error *err)
{
	const struct plan *plan = &member->plan;
	const struct moat_entry *from = plan_from(plan, op), *to = plan_to(plan, op);
	struct moat_error local = MOAT_ERROR_INIT;
	const char *name;
	int dirfd = parent_of(member, parent, plan_path(plan, op), &name, &local);

	if (dirfd < 0 && is_removal(op) && is_absence(&local))
		return 0;
	if (dirfd < 0)
		return moat_error_set(err, local.code, local.sys_errno, "%s", local.message);
	switch (op->kind) {
	case OP_OPEN:
		return apply_open(from, dirfd, name, err);
	case OP_DELETE:
		return apply_delete(member, op, dirfd, name, err);
	case OP_RMDIR:
		return apply_rmdir(from, dirfd, name, err);
	case OP_CREATE:
		return apply_create(member, op, dirfd, name, err);
	case OP_REPLACE:
		return apply_replace(member, op, dirfd, name, err);
	case OP_META:
		return apply_meta(from, to, dirfd, name, err);
	case OP_DIRMETA:
		return apply_meta(from, to == NULL ? from : to, dirfd, name, err);
	}
	return moat_fail(err, MOAT_CORRUPT, "unknown operation in the plan");
}

int
plan_apply(struct member *member, struct moat_error *err)
{
	AUTO_PARENT struct parent parent = {NULL, -1};

	for (size_t i = 0; i < member->plan.count; i++)
		if (apply_op(member, &parent, &member->plan.ops[i], err) < 0)
			return moat_wrap(err, "%s", member->path);
	return 0;
}

/* ------------------------------------------------------------------------------------------ back
 */

/* A directory comes back as a whole.  What somebody put into it, or edited, is kept. */
static int
undo_create_directory(struct member *member, const struct op *op, int dirfd, const char *name,
		      const char *staged, struct moat_error *err)
{
	struct stat st;

	/* It cannot be moved without the right to write in it. */
	if (exists(dirfd, name, &st) && (st.st_mode & 0700) != 0700 &&
	    fchmodat(dirfd, name, (st.st_mode & 07777) | 0700, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "open `%s'", plan_to(&member->plan, op)->path);
	if (rename_exclusive(dirfd, name, member->stage_fd, staged) < 0)
		return moat_fail_errno(err, "take `%s' away again",
				       plan_to(&member->plan, op)->path);
	return subtree_check(member->stage_fd, staged, member->plan.to, (size_t) op->to, err);
}

static int
undo_create(struct member *member, const struct op *op, int dirfd, const char *name,
	    struct moat_error *err)
{
	const struct moat_entry *to = plan_to(&member->plan, op);
	char staged[STAGE_NAME_MAX];
	struct stat st;

	stage_name(staged, 'n', op->number);
	if (exists(member->stage_fd, staged, &st)) /* never left, or has come back */
		return to->type == MOAT_DIRECTORY
			       ? subtree_check(member->stage_fd, staged, member->plan.to,
					       (size_t) op->to, err)
			       : 0;
	if (!exists(dirfd, name, &st))
		return 0;
	if (st.st_ino != op->ino)
		return moat_fail(err, MOAT_CONFLICT, "`%s' was put there by somebody else",
				 to->path);
	if (to->type == MOAT_DIRECTORY)
		return undo_create_directory(member, op, dirfd, name, staged, err);
	if (!is_as_planned(&st, to))
		return moat_fail(err, MOAT_CONFLICT, "`%s' was edited meanwhile", to->path);
	if (rename_exclusive(dirfd, name, member->stage_fd, staged) < 0)
		return moat_fail_errno(err, "take `%s' away again", to->path);
	return 0;
}

static int
put_back(struct member *member, const char *old, int dirfd, const char *name, const char *path,
	 struct moat_error *err)
{
	struct stat st;

	if (!exists(member->stage_fd, old, &st))
		return 0;
	if (rename_exclusive(member->stage_fd, old, dirfd, name) < 0)
		return moat_fail_errno(err, "put the former `%s' back", path);
	return 0;
}

static int
undo_replace(struct member *member, const struct op *op, int dirfd, const char *name,
	     struct moat_error *err)
{
	const struct moat_entry *from = plan_from(&member->plan, op);
	const struct moat_entry *to = plan_to(&member->plan, op);
	char staged[STAGE_NAME_MAX], old[STAGE_NAME_MAX];
	struct stat st;

	stage_name(staged, 'n', op->number);
	stage_name(old, 'o', op->number);
	if (exists(member->stage_fd, old, &st)) {
		if (!exists(member->stage_fd, staged, &st) &&
		    rename_exclusive(dirfd, name, member->stage_fd, staged) < 0)
			return moat_fail_errno(err, "take `%s' away again", from->path);
		return put_back(member, old, dirfd, name, from->path, err);
	}
	if (!exists(member->stage_fd, staged, &st) || st.st_ino == op->ino)
		return 0; /* Never exchanged, or exchanged back. */
	if (!exists(dirfd, name, &st))
		return put_back(member, staged, dirfd, name, from->path, err);
	if (st.st_ino != op->ino || (uint64_t) st.st_size != to->size ||
	    st.st_mtim.tv_sec != to->mtime_sec || (uint32_t) st.st_mtim.tv_nsec != to->mtime_nsec)
		return moat_fail(err, MOAT_CONFLICT, "`%s' was edited meanwhile", from->path);
	if (rename_flags(member->stage_fd, staged, dirfd, name, RENAME_EXCHANGE) < 0)
		return moat_fail_errno(err, "put the former `%s' back", from->path);
	return 0;
}

/* Open for what comes back into it; its own metadata comes last. */
static int
undo_rmdir(const struct moat_entry *from, int dirfd, const char *name, struct moat_error *err)
{
	if (mkdirat(dirfd, name, 0700) < 0 && errno != EEXIST)
		return moat_fail_errno(err, "make the directory `%s' again", from->path);
	return 0;
}

static int
undo_op(struct member *member, struct parent *parent, const struct op *op, struct moat_error *err)
{
	const struct plan *plan = &member->plan;
	const struct moat_entry *from = plan_from(plan, op);
	char old[STAGE_NAME_MAX];
	const char *name;
	int dirfd = parent_of(member, parent, plan_path(plan, op), &name, err);

	if (dirfd < 0)
		return -1;
	switch (op->kind) {
	case OP_OPEN:
		return apply_open(from, dirfd, name, err);
	case OP_DELETE:
		stage_name(old, 'o', op->number);
		return put_back(member, old, dirfd, name, from->path, err);
	case OP_RMDIR:
		return undo_rmdir(from, dirfd, name, err);
	case OP_CREATE:
		return undo_create(member, op, dirfd, name, err);
	case OP_REPLACE:
		return undo_replace(member, op, dirfd, name, err);
	case OP_META:
	case OP_DIRMETA:
		return 0; /* undo_meta() */
	}
	return moat_fail(err, MOAT_CORRUPT, "unknown operation in the plan");
}

static bool
has_meta(int dirfd, const char *name, const struct moat_entry *entry)
{
	struct stat st;

	return exists(dirfd, name, &st) && st.st_uid == entry->uid && st.st_gid == entry->gid &&
	       st.st_mtim.tv_sec == entry->mtime_sec &&
	       (uint32_t) st.st_mtim.tv_nsec == entry->mtime_nsec &&
	       (entry->type == MOAT_SYMLINK || (st.st_mode & 07777) == entry->mode);
}

static int
undo_meta(struct member *member, struct parent *parent, const struct op *op, struct moat_error *err)
{
	const struct moat_entry *from = plan_from(&member->plan, op);
	const struct moat_entry *to = plan_to(&member->plan, op);
	const char *name;
	bool xattrs;
	int dirfd;

	if (from == NULL || (op->kind != OP_RMDIR && op->kind < OP_META))
		return 0;
	dirfd = parent_of(member, parent, from->path, &name, err);
	if (dirfd < 0)
		return -1;
	xattrs = to == NULL ? op->kind == OP_RMDIR && from->xattrs_size > 0
			    : !meta_same_xattrs(from, to);
	/* What was never touched may not even be allowed to be. */
	if (!xattrs && has_meta(dirfd, name, from))
		return 0;
	return meta_set(dirfd, name, from, from->mode, xattrs, err);
}

typedef int
undo_fn(struct member *member, struct parent *parent, const struct op *op, struct moat_error *err);

/* A failure on the way back is told and counted, and the rest goes on. */
static void
undo_or_tell(struct member *member, struct parent *parent, const struct op *op, undo_fn *undo,
	     uint64_t *left)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (undo(member, parent, op, &local) == 0)
		return;
	/* A directory that is to be opened may be one that is only to be made again; what was to be
	 * created may have had no place to be. */
	if ((op->kind == OP_OPEN || op->kind == OP_CREATE) && is_absence(&local))
		return;
	log_warning("%s: could not be undone: %s", member->path, local.message);
	(*left)++;
}

/* Directories that are entered must be open, those that were removed must be there again, and
 * metadata comes last, from the deepest up; so not simply backwards. */
void
plan_undo(struct member *member, uint64_t *ret_left)
{
	AUTO_PARENT struct parent parent = {NULL, -1};
	const struct plan *plan = &member->plan;
	uint64_t left = 0;

	for (size_t i = 0; i < plan->count; i++)
		if (plan->ops[i].kind == OP_OPEN)
			undo_or_tell(member, &parent, &plan->ops[i], undo_op, &left);
	for (size_t i = plan->count; i-- > 0;)
		if (plan->ops[i].kind != OP_OPEN)
			undo_or_tell(member, &parent, &plan->ops[i], undo_op, &left);
	for (size_t i = 0; i < plan->count; i++)
		undo_or_tell(member, &parent, &plan->ops[i], undo_meta, &left);
	*ret_left = left;
}

/* Of a file or directory that may be closed to us, or gone.  Returns 1 when it could not be opened
 * for that. */
static int
sync_object(int dirfd, const char *name, const char *path, struct moat_error *err)
{
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0) /* A link's time is in the directory's transaction, if anywhere. */
		return errno == ENOENT ? 0 : 1;
	return fs_sync(fd, path, err);
}

/* Directories that are on disk with all that happened to them: each by the path of something in
 * it. */
struct synced {
	const char *inner[SYNC_EACH_MAX];
	size_t count;
};

static bool
is_synced(const struct synced *synced, const char *directory, size_t size)
{
	for (size_t i = synced->count; i-- > 0;) {
		const char *inner = synced->inner[i], *slash = strrchr(inner, '/');

		if ((slash == NULL ? 0 : (size_t) (slash - inner)) == size &&
		    memcmp(inner, directory, size) == 0)
			return true;
	}
	return false;
}

/* The directory that `path' is in, unless that was done. */
static int
sync_parent(struct synced *synced, int dirfd, const char *path, struct moat_error *err)
{
	const char *slash = strrchr(path, '/');

	if (is_synced(synced, path, slash == NULL ? 0 : (size_t) (slash - path)))
		return 0;
	synced->inner[synced->count++] = path;
	return fs_sync(dirfd, path, err);
}

/* Each directory in which something happened, and what got new metadata.  Returns 1 when that
 * cannot be had so. */
static int
sync_each(struct member *member, struct moat_error *err)
{
	AUTO_PARENT struct parent parent = {NULL, -1};
	const struct plan *plan = &member->plan;
	struct synced synced = {.count = 0};
	int result = 0;

	for (size_t i = 0; i < plan->count && result == 0; i++) {
		const struct op *op = &plan->ops[i];
		const char *path = plan_path(plan, op), *name;
		struct moat_error local = MOAT_ERROR_INIT;
		int dirfd = parent_of(member, &parent, path, &name, &local);

		if (dirfd < 0 && is_absence(&local))
			continue;
		if (dirfd < 0)
			return 1;
		if (op->kind < OP_META)
			result = sync_parent(&synced, dirfd, path, err);
		else if (op->kind == OP_META || !is_synced(&synced, path, strlen(path)))
			result = sync_object(dirfd, name, path, err);
	}
	return result;
}

/* The renames must be on disk before the journal says done. */
int
plan_sync(struct member *member, struct moat_error *err)
{
	int result = 1;

	if (member->plan.count == 0)
		return 0;
	/* What others write to the same filesystem meanwhile is not waited for, when that can be
	 * had. */
	if (member->plan.count <= SYNC_EACH_MAX)
		result = sync_each(member, err);
	if (result == 1 && syncfs(member->root_fd) < 0)
		return moat_fail_errno(err, "write the changes of `%s' to disk", member->path);
	return result < 0 ? -1 : 0;
}
