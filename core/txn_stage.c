/* SPDX-License-Identifier: Apache-2.0 */
/* The stage: new content in a private directory on the workspace's own mount, complete with owner,
 * mode, attributes and times, and on disk, so that applying a plan takes nothing but renames. */
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/log.h"
#include "core/tree.h"
#include "core/txn_internal.h"

/* Above this many files one syncfs(2) is cheaper than an fsync(2) for each. */
#define SYNC_EACH_MAX 64

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

int
stage_remove(const struct journal *journal, struct member *member, const struct moat_entry *root,
	     struct moat_error *err)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
	char name[64];

	cleanup_close(&member->stage_fd);
	if (!member->stage_inside)
		return fs_remove_tree(journal->fd, "stage", err);
	inside_name(journal, name);
	if (fs_remove_tree(member->root_fd, name, err) < 0)
		return -1;
	/* Making and removing it has touched the workspace's root. */
	times[1].tv_sec = root == NULL ? member->root_mtime_sec : root->mtime_sec;
	times[1].tv_nsec = root == NULL ? member->root_mtime_nsec : root->mtime_nsec;
	if (futimens(member->root_fd, times) < 0)
		return moat_fail_errno(err, "set the time of `%s'", member->path);
	return 0;
}

/* ---------------------------------------------------------------------------------------- metadata
 */

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

static int
set_owner(int dirfd, const char *name, const struct moat_entry *entry, struct moat_error *err)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "look at `%s'", entry->path);
	if (st.st_uid == entry->uid && st.st_gid == entry->gid)
		return 0;
	if (fchownat(dirfd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	/* Without privilege an owner cannot be given back; a group of one's own can. */
	if (geteuid() != 0 && errno == EPERM &&
	    (fchownat(dirfd, name, (uid_t) -1, entry->gid, AT_SYMLINK_NOFOLLOW) == 0 ||
	     errno == EPERM))
		return 0;
	return moat_fail_errno(err, "set the owner of `%s'", entry->path);
}

static int
set_xattrs(int dirfd, const char *name, const struct moat_entry *entry, struct moat_error *err)
{
	AUTO_CLOSE int fd = -1;

	/* Opening wants read permission, which the final mode, set later, may take away. */
	if (fchmodat(dirfd, name, entry->mode | S_IRUSR | S_IWUSR, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "set the mode of `%s'", entry->path);
	fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return moat_fail_errno(err, "open `%s'", entry->path);
	return tree_set_xattrs(fd, entry->xattrs, entry->xattrs_size, err);
}

/* Only its owner, and root, can give an object a mode or a time. */
static bool
is_foreign(int dirfd, const char *name)
{
	struct stat st;

	return geteuid() != 0 && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       st.st_uid != geteuid();
}

int
meta_set(int dirfd, const char *name, const struct moat_entry *entry, uint32_t mode, bool xattrs,
	 struct moat_error *err)
{
	const struct timespec times[2] = {
		{.tv_nsec = UTIME_OMIT},
		{.tv_sec = entry->mtime_sec, .tv_nsec = entry->mtime_nsec},
	};

	if (is_foreign(dirfd, name)) {
		log_warning("%s belongs to somebody else, so its mode and time stay as they are",
			    entry->path[0] == '\0' ? "the workspace's root" : entry->path);
		return 0;
	}
	if (set_owner(dirfd, name, entry, err) < 0)
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

/* ----------------------------------------------------------------------------------------- content
 */

/* One file whose content the backend is to bring. */
struct wanted {
	const struct moat_entry *entry;
	char name[STAGE_NAME_MAX];
	bool done;
};

struct fill {
	struct member *member;
	struct wanted *wanted;
	const struct moat_entry **entries;
	size_t count;
	uint64_t *owner; /* per entry of `desired`: number of the operation that stages its content,
			    or -1 */
};

static int
fill_place(const struct moat_extract *extract, size_t index, int *ret_dirfd, const char **ret_name,
	   struct moat_error *err)
{
	struct fill *fill = extract->context;

	if (index >= fill->count)
		return moat_fail(err, MOAT_FAILED,
				 "the backend asked for a place for entry %zu of %zu", index,
				 fill->count);
	*ret_dirfd = fill->member->stage_fd;
	*ret_name = fill->wanted[index].name;
	return 0;
}

static int
hash_file(int dirfd, const char *name, uint64_t *ret_size, uint8_t ret[MOAT_HASH_SIZE],
	  struct moat_error *err)
{
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	AUTO_FREE uint8_t *buffer = malloc(1 << 16);
	struct sha256_ctx ctx;
	ssize_t n;

	if (buffer == NULL)
		return moat_fail_memory(err);
	if (fd < 0)
		return moat_fail_errno(err, "read back what was restored");
	sha256_init(&ctx);
	*ret_size = 0;
	while ((n = read(fd, buffer, 1 << 16)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail_errno(err, "read back what was restored");
		sha256_update(&ctx, (size_t) n, buffer);
		*ret_size += (uint64_t) n;
	}
	sha256_digest(&ctx, MOAT_HASH_SIZE, ret);
	return 0;
}

static int
fill_done(const struct moat_extract *extract, size_t index, int fd, uint64_t size,
	  const uint8_t *hash, struct moat_error *err)
{
	struct fill *fill = extract->context;
	struct wanted *wanted = &fill->wanted[index];
	uint8_t read_back[MOAT_HASH_SIZE];

	if (hash == NULL) {
		if (hash_file(fill->member->stage_fd, wanted->name, &size, read_back, err) < 0)
			return moat_wrap(err, "`%s'", wanted->entry->path);
		hash = read_back;
	}
	if (size != wanted->entry->size || ((wanted->entry->flags & MOAT_HAS_HASH) != 0 &&
					    memcmp(hash, wanted->entry->hash, MOAT_HASH_SIZE) != 0))
		return moat_fail(err, MOAT_CORRUPT,
				 "the stored content of `%s' is not what the snapshot took",
				 wanted->entry->path);
	wanted->done = true;
	return 0;
}

static int
fill_damaged(const struct moat_extract *extract, size_t index, const struct moat_error *why,
	     struct moat_error *err)
{
	struct fill *fill = extract->context;

	return moat_fail(err, MOAT_CORRUPT, "the stored content of `%s' is damaged: %s",
			 index < fill->count ? fill->wanted[index].entry->path : "?", why->message);
}

static int
add_wanted(struct fill *fill, const struct moat_entry *entry, uint64_t number,
	   struct moat_error *err)
{
	struct wanted *wanted = &fill->wanted[fill->count];
	AUTO_CLOSE int fd = -1;

	stage_name(wanted->name, 'n', number);
	wanted->entry = entry;
	if (entry->size == 0) {
		fd = openat(fill->member->stage_fd, wanted->name,
			    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return moat_fail_errno(err, "make an empty file for `%s'", entry->path);
		return 0;
	}
	fill->entries[fill->count] = entry;
	fill->count++;
	return 0;
}

/* The entry of `desired` that holds the content for an operation. */
static const struct moat_entry *
content_of(const struct manifest *desired, const struct moat_entry *to, int64_t *ret_index)
{
	int64_t index = manifest_find(desired, to->path);
	const struct moat_entry *content;

	if (index < 0)
		return NULL;
	content = manifest_content(desired, desired->entries[index]);
	*ret_index = content->leader == MOAT_NO_LEADER && content != desired->entries[index]
			     ? (int64_t) desired->entries[index]->leader
			     : index;
	return content;
}

static bool
is_staged(const struct op *op)
{
	return op->kind == OP_CREATE || op->kind == OP_REPLACE;
}

/* Room for everything, before the first byte is written. */
static int
check_space(const struct member *member, uint64_t bytes, struct moat_error *err)
{
	struct statvfs fs;
	char need[32], have[32];

	if (fstatvfs(member->stage_fd, &fs) < 0)
		return 0; /* A filesystem that does not say: the write will. */
	if (fs.f_blocks == 0 || bytes <= (uint64_t) fs.f_bavail * fs.f_frsize)
		return 0;
	return moat_fail(
		err, MOAT_NO_SPACE,
		"the filesystem of `%s' has %s free and the restored files need %s; make room and "
		"try again",
		member->path, text_size(have, (uint64_t) fs.f_bavail * fs.f_frsize),
		text_size(need, bytes));
}

static int
collect(struct fill *fill, const struct manifest *desired, struct moat_error *err)
{
	const struct plan *plan = &fill->member->plan;
	uint64_t bytes = 0;

	for (size_t i = 0; i < plan->count; i++) {
		const struct op *op = &plan->ops[i];
		const struct moat_entry *to = plan_to(plan, op), *content;
		int64_t index;

		if (!is_staged(op) || to->type != MOAT_FILE)
			continue;
		content = content_of(desired, to, &index);
		if (content == NULL)
			return moat_fail(err, MOAT_FAILED, "`%s' is not in the snapshot", to->path);
		if (fill->owner[index] != (uint64_t) -1)
			continue;
		fill->owner[index] = op->number;
		bytes += content->size;
		if (add_wanted(fill, content, op->number, err) < 0)
			return -1;
	}
	return check_space(fill->member, bytes, err);
}

static int
bring_content(struct fill *fill, const struct txn_source *source, struct moat_error *err)
{
	struct moat_entries entries = {
		.struct_size = sizeof entries,
		.entry_size = sizeof(struct moat_entry),
		.count = fill->count,
		.items = fill->entries,
	};
	struct moat_extract extract = {
		.struct_size = sizeof extract,
		.entries = &entries,
		.context = fill,
		.place = fill_place,
		.done = fill_done,
		.damaged = fill_damaged,
	};

	if (fill->count == 0)
		return 0;
	if (source->materialise(source->context, &extract, err) < 0)
		return -1;
	for (size_t i = 0; i < fill->count; i++)
		if (!fill->wanted[i].done)
			return moat_fail(err, MOAT_CORRUPT,
					 "the backend did not bring the content of `%s'",
					 fill->wanted[i].entry->path);
	return 0;
}

/* A further name of what another operation stages, a symbolic link, or a directory. */
static int
make_object(struct fill *fill, const struct manifest *desired, const struct op *op,
	    const char *name, struct moat_error *err)
{
	const struct moat_entry *to = plan_to(&fill->member->plan, op);
	int stage = fill->member->stage_fd;
	char first[STAGE_NAME_MAX];
	int64_t index;

	if (to->type == MOAT_DIRECTORY) {
		if (mkdirat(stage, name, 0700) < 0)
			return moat_fail_errno(err, "make a directory for `%s'", to->path);
		return 0;
	}
	if (content_of(desired, to, &index) == NULL)
		return moat_fail(err, MOAT_FAILED, "`%s' is not in the snapshot", to->path);
	if (fill->owner[index] == op->number)
		return 0; /* A file that is here already. */
	if (fill->owner[index] != (uint64_t) -1) {
		stage_name(first, 'n', fill->owner[index]);
		if (linkat(stage, first, stage, name, 0) < 0)
			return moat_fail_errno(err, "make a second name for `%s'", to->path);
		return 0;
	}
	fill->owner[index] = op->number;
	if (symlinkat(to->link_target, stage, name) < 0)
		return moat_fail_errno(err, "make a link for `%s'", to->path);
	return 0;
}

/* Everything but content, then everybody's metadata and identity. */
static int
finish_one(struct fill *fill, const struct manifest *desired, struct op *op, struct moat_error *err)
{
	const struct moat_entry *to = plan_to(&fill->member->plan, op);
	int stage = fill->member->stage_fd;
	char name[STAGE_NAME_MAX];
	struct stat st;

	stage_name(name, 'n', op->number);
	if (make_object(fill, desired, op, name, err) < 0)
		return -1;
	if (to->type == MOAT_FILE && (to->mode & 06000) != 0)
		log_warning("%s comes back without its setuid or setgid bit", to->path);
	/* A directory gets its metadata last of all, when everything is in it. */
	if (to->type != MOAT_DIRECTORY &&
	    meta_set(stage, name, to, meta_mode(to), to->xattrs_size > 0, err) < 0)
		return -1;
	if (fstatat(stage, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "look at the new `%s'", to->path);
	op->ino = st.st_ino;
	return 0;
}

/* Content must be on disk before the decision is. */
static int
sync_stage(const struct fill *fill, size_t files, struct moat_error *err)
{
	const struct plan *plan = &fill->member->plan;
	int stage = fill->member->stage_fd;

	if (files > SYNC_EACH_MAX) {
		if (syncfs(stage) < 0)
			return moat_fail_errno(err, "write the new files to disk");
		return 0;
	}
	for (size_t i = 0; i < plan->count; i++) {
		AUTO_CLOSE int fd = -1;
		char name[STAGE_NAME_MAX];

		if (!is_staged(&plan->ops[i]) || plan_to(plan, &plan->ops[i])->type != MOAT_FILE)
			continue;
		stage_name(name, 'n', plan->ops[i].number);
		fd = openat(stage, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 &&
		    errno == EACCES) { /* Its own mode forbids it: the whole filesystem, then. */
			if (syncfs(stage) < 0)
				return moat_fail_errno(err, "write the new files to disk");
			continue;
		}
		if (fd < 0)
			return moat_fail_errno(err, "open a staged file");
		if (fs_sync(fd, "a staged file", err) < 0)
			return -1;
	}
	return fs_sync(stage, "the stage", err);
}

int
stage_fill(struct member *member, const struct manifest *desired, const struct txn_source *source,
	   struct moat_error *err)
{
	struct fill fill = {.member = member};
	struct plan *plan = &member->plan;
	size_t staged = 0;
	int result = -1;

	for (size_t i = 0; i < plan->count; i++)
		staged += is_staged(&plan->ops[i]);
	fill.wanted = calloc(staged + 1, sizeof *fill.wanted);
	fill.entries = calloc(staged + 1, sizeof *fill.entries);
	fill.owner = calloc(desired->count + 1, sizeof *fill.owner);
	if (fill.wanted == NULL || fill.entries == NULL || fill.owner == NULL) {
		moat_fail_memory(err);
		goto out;
	}
	memset(fill.owner, 0xff, desired->count * sizeof *fill.owner);
	if (collect(&fill, desired, err) < 0 || bring_content(&fill, source, err) < 0)
		goto out;
	for (size_t i = 0; i < plan->count; i++)
		if (is_staged(&plan->ops[i]) && finish_one(&fill, desired, &plan->ops[i], err) < 0)
			goto out;
	result = sync_stage(&fill, staged, err);
out:
	free(fill.wanted);
	free(fill.entries);
	free(fill.owner);
	return result;
}
