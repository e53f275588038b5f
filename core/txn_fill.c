/* SPDX-License-Identifier: Apache-2.0 */
/* Filling the stage: everything new, complete with owner, mode, attributes and times, and on disk,
 * so that applying a plan takes nothing but renames.
 *
 * What is to be created where nothing is, or replaced, lies in the stage under a number; what lies
 * below a directory that is to be created is made in that directory, so that one rename brings the
 * whole.  Directories come first, in the order of paths; then the backend brings content, from as
 * many threads as it likes; then links, further names, and last the metadata of directories, from
 * the deepest up. */
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/log.h"
#include "core/txn_internal.h"

/* So many files that lose a bit of their mode are named, the others counted. */
#define NAMED_MAX 5

/* Where an entry of the plan's `to' is made. */
struct item {
	bool staged;
	bool covered;       /* within the staged directory `parent'; else in the stage itself */
	int64_t parent;     /* covered: index in `to' */
	int64_t content_of; /* another name of that entry; -1: has its own content */
	char number[STAGE_NAME_MAX]; /* not covered: its name in the stage */
};

/* One file whose content the backend is to bring. */
struct wanted {
	size_t to;
	bool placed, done;
};

struct fill {
	struct txn *txn;
	struct member *member;
	struct item *items; /* per entry of plan.to */
	struct dirs_node *nodes;
	struct dirs *dirs;
	struct wanted *wanted;
	const struct moat_entry **entries; /* of `desired', as the backend knows them */
	size_t count;
	int64_t *owner; /* per entry of `desired`: the entry of `to' that has its content, or -1 */
	size_t staged;
	pthread_mutex_t lock;
	uint64_t stripped;           /* files that lose setuid or setgid */
	int unsynced[SYNC_EACH_MAX]; /* open files that are on their way to disk */
	size_t unsynced_count;
};

static void
fill_free(struct fill *fill)
{
	for (size_t i = 0; i < fill->unsynced_count; i++)
		cleanup_close(&fill->unsynced[i]);
	dirs_free(fill->dirs);
	free(fill->items);
	free(fill->nodes);
	free(fill->wanted);
	free(fill->entries);
	free(fill->owner);
	pthread_mutex_destroy(&fill->lock);
}
#define AUTO_FILL CLEANUP(fill_free)

static const struct moat_entry *
to_entry(const struct fill *fill, size_t index)
{
	return fill->member->plan.to->entries[index];
}

/* Whether each is to be on disk by its own fsync(2). */
static bool
syncs_each(const struct fill *fill)
{
	return fill->staged <= SYNC_EACH_MAX;
}

static const char *
item_name(const struct fill *fill, size_t index)
{
	const char *path = to_entry(fill, index)->path, *slash = strrchr(path, '/');

	if (!fill->items[index].covered)
		return fill->items[index].number;
	return slash == NULL ? path : slash + 1;
}

/* The directory that an entry is made in, until let_go(). */
static int
reach(struct fill *fill, size_t index, struct moat_error *err)
{
	return fill->items[index].covered ? dirs_get(fill->dirs, fill->items[index].parent, err)
					  : fill->member->stage_fd;
}

static void
let_go(struct fill *fill, size_t index)
{
	if (fill->items[index].covered)
		dirs_put(fill->dirs, fill->items[index].parent);
}

/* ---------------------------------------------------------------------------------- what goes
 * where
 */

static bool
is_in(const char *path, const char *directory)
{
	size_t n = strlen(directory);

	return strncmp(path, directory, n) == 0 && path[n] == '/';
}

static void
mark_subtree(struct fill *fill, size_t top)
{
	const struct manifest *to = fill->member->plan.to;
	size_t end = plan_subtree_end(to, top);
	int64_t parent = (int64_t) top;

	for (size_t i = top + 1; i < end; i++) {
		/* The directory before it that it lies in. */
		while (!is_in(to->entries[i]->path, to->entries[parent]->path))
			parent = fill->items[parent].parent;
		fill->items[i].staged = true;
		fill->items[i].covered = true;
		fill->items[i].parent = parent;
		if (to->entries[i]->type == MOAT_DIRECTORY)
			parent = (int64_t) i;
	}
	fill->staged += end - top - 1;
}

static void
mark_items(struct fill *fill)
{
	const struct plan *plan = &fill->member->plan;

	for (size_t i = 0; i < plan->count; i++) {
		const struct op *op = &plan->ops[i];
		struct item *item;

		if (op->kind != OP_CREATE && op->kind != OP_REPLACE)
			continue;
		item = &fill->items[op->to];
		item->staged = true;
		stage_name(item->number, 'n', op->number);
		fill->staged++;
		if (plan_to(plan, op)->type == MOAT_DIRECTORY)
			mark_subtree(fill, (size_t) op->to);
	}
	for (size_t i = 0; i < plan->to->count; i++)
		fill->nodes[i] = (struct dirs_node){
			fill->items[i].covered ? fill->items[i].parent : -1, item_name(fill, i)};
}

/* The entry of `desired` that holds the content of one of `to'. */
static int64_t
content_index(const struct fill *fill, size_t to)
{
	const struct manifest *desired = fill->txn->desired;
	int64_t index = fill->txn->desired_of[to];
	uint64_t leader = desired->entries[index]->leader;

	return leader == MOAT_NO_LEADER ? index : (int64_t) leader;
}

/* Files and links: which is the first name that is made, and has content, which are its others. */
static void
find_content(struct fill *fill)
{
	const struct manifest *to = fill->member->plan.to;

	for (size_t i = 0; i < to->count; i++) {
		int64_t *owner;

		fill->items[i].content_of = -1;
		if (!fill->items[i].staged || to->entries[i]->type == MOAT_DIRECTORY)
			continue;
		owner = &fill->owner[content_index(fill, i)];
		if (*owner >= 0) {
			fill->items[i].content_of = *owner;
			continue;
		}
		*owner = (int64_t) i;
		if (to->entries[i]->type != MOAT_FILE || to->entries[i]->size == 0)
			continue;
		fill->wanted[fill->count].to = i;
		fill->entries[fill->count++] = fill->txn->desired->entries[content_index(fill, i)];
	}
}

static int
fill_init(struct fill *fill, struct txn *txn, struct moat_error *err)
{
	size_t count = txn->member.plan.to->count;

	pthread_mutex_init(&fill->lock, NULL);
	fill->txn = txn;
	fill->member = &txn->member;
	fill->items = calloc(count + 1, sizeof *fill->items);
	fill->nodes = calloc(count + 1, sizeof *fill->nodes);
	fill->wanted = calloc(count + 1, sizeof *fill->wanted);
	fill->entries = calloc(count + 1, sizeof *fill->entries);
	fill->owner = malloc((txn->desired->count + 1) * sizeof *fill->owner);
	fill->dirs = dirs_new(fill->member->stage_fd, fill->nodes, count);
	if (fill->items == NULL || fill->nodes == NULL || fill->wanted == NULL ||
	    fill->entries == NULL || fill->owner == NULL || fill->dirs == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < txn->desired->count; i++)
		fill->owner[i] = -1;
	mark_items(fill);
	find_content(fill);
	return 0;
}

static bool
comes_by_clones(const struct fill *fill)
{
	struct stat from, to;

	return fill->txn->source.clones_fd >= 0 && fstat(fill->txn->source.clones_fd, &from) == 0 &&
	       fstat(fill->member->stage_fd, &to) == 0 && from.st_dev == to.st_dev;
}

/* What an entry is sure to take; of a sparse file only the writing will tell. */
static uint64_t
blocks_of(const struct moat_entry *entry, uint64_t block, bool clones)
{
	if (entry->type == MOAT_DIRECTORY)
		return 1;
	if (entry->type != MOAT_FILE || clones || (entry->flags & MOAT_IS_SPARSE) != 0)
		return 0;
	return entry->size / block + (entry->size % block > 0);
}

/* Room for everything, before the first byte is written.  A filesystem that does not say will tell
 * by the write. */
static int
check_space(const struct fill *fill, struct moat_error *err)
{
	uint64_t blocks = 0, inodes = 0, block;
	bool clones = comes_by_clones(fill);
	struct statvfs fs;
	char need[32], have[32];

	if (fstatvfs(fill->member->stage_fd, &fs) < 0 || fs.f_frsize == 0)
		return 0;
	block = fs.f_frsize;
	for (size_t i = 0; i < fill->member->plan.to->count; i++) {
		const struct moat_entry *entry = to_entry(fill, i);

		if (!fill->items[i].staged || fill->items[i].content_of >= 0)
			continue;
		inodes++;
		blocks += blocks_of(entry, block, clones);
	}
	if (fs.f_files > 0 && fs.f_favail < inodes)
		return moat_fail(err, MOAT_NO_SPACE,
				 "the filesystem of `%s' has room for %llu more files and the "
				 "restored ones are %llu; remove some and try again",
				 fill->member->path, (unsigned long long) fs.f_favail,
				 (unsigned long long) inodes);
	if (fs.f_blocks == 0 || blocks <= (uint64_t) fs.f_bavail)
		return 0;
	return moat_fail(
		err, MOAT_NO_SPACE,
		"the filesystem of `%s' has %s free and the restored files need %s; make room and "
		"try again",
		fill->member->path, text_size(have, (uint64_t) fs.f_bavail * fs.f_frsize),
		text_size(need, blocks * block));
}

/* -------------------------------------------------------------------------------- one file's end
 */

static void
note_stripped(struct fill *fill, const struct moat_entry *entry)
{
	bool named;

	if ((entry->mode & 06000) == 0)
		return;
	pthread_mutex_lock(&fill->lock);
	named = fill->stripped++ < NAMED_MAX;
	pthread_mutex_unlock(&fill->lock);
	if (named)
		log_warning("setuid and setgid bits are not restored: %s", entry->path);
}

/* Begins to write it, and leaves the waiting for the end: one commit of the filesystem's journal
 * then does for all. */
static int
sync_later(struct fill *fill, int fd, const char *path, struct moat_error *err)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	bool kept;

	if (copy < 0)
		return fs_sync(fd, path, err);
	/* Only a beginning: fsync(2) will say what went wrong. */
	(void) sync_file_range(copy, 0, 0, SYNC_FILE_RANGE_WRITE);
	pthread_mutex_lock(&fill->lock);
	kept = fill->unsynced_count < SYNC_EACH_MAX;
	if (kept)
		fill->unsynced[fill->unsynced_count++] = copy;
	pthread_mutex_unlock(&fill->lock);
	if (kept)
		return 0;
	cleanup_close(&copy);
	return fs_sync(fd, path, err);
}

/* A file with all its content gets its metadata, and goes to disk where each does by itself. */
static int
finish_file(struct fill *fill, size_t to, int fd, struct moat_error *err)
{
	/* The plan's own copy, in no other list. */
	struct moat_entry *entry = (struct moat_entry *) to_entry(fill, to);
	struct stat st;

	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "look at the new `%s'", entry->path);
	if (!S_ISREG(st.st_mode) || (uint64_t) st.st_size != entry->size)
		return moat_fail(err, MOAT_CORRUPT,
				 "the content brought for `%s' has another size than the snapshot "
				 "took",
				 entry->path);
	note_stripped(fill, entry);
	if (meta_set_open(fd, &st, entry, meta_mode(entry), entry->xattrs_size > 0, err) < 0)
		return -1;
	entry->ino = st.st_ino;
	return syncs_each(fill) ? sync_later(fill, fd, entry->path, err) : 0;
}

/* --------------------------------------------------------------------------- what backends call */

static int
fill_place(const struct moat_extract *extract, size_t index, int *ret_dirfd, const char **ret_name,
	   struct moat_error *err)
{
	struct fill *fill = extract->context;
	struct wanted *wanted;
	int fd;

	if (index >= fill->count)
		return moat_fail(err, MOAT_FAILED,
				 "the backend asked for a place for entry %zu of %zu", index,
				 fill->count);
	wanted = &fill->wanted[index];
	fd = reach(fill, wanted->to, err);
	if (fd < 0)
		return -1;
	if (wanted->placed) /* asked for again: it has the directory already */
		let_go(fill, wanted->to);
	wanted->placed = true;
	*ret_dirfd = fd;
	*ret_name = item_name(fill, wanted->to);
	return 0;
}

static int
hash_file(int fd, uint64_t *ret_size, uint8_t ret[MOAT_HASH_SIZE], struct moat_error *err)
{
	AUTO_FREE uint8_t *buffer = malloc(1 << 16);
	struct sha256_ctx ctx;
	ssize_t n;

	if (buffer == NULL)
		return moat_fail_memory(err);
	sha256_init(&ctx);
	*ret_size = 0;
	while ((n = pread(fd, buffer, 1 << 16, (off_t) *ret_size)) != 0) {
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
check_content(const struct moat_entry *entry, uint64_t size, const uint8_t *hash,
	      struct moat_error *err)
{
	if (size == entry->size &&
	    ((entry->flags & MOAT_HAS_HASH) == 0 || memcmp(hash, entry->hash, MOAT_HASH_SIZE) == 0))
		return 0;
	return moat_fail(err, MOAT_CORRUPT,
			 "the stored content of `%s' is not what the snapshot took", entry->path);
}

static int
take_file(struct fill *fill, size_t index, int dirfd, int fd, uint64_t size, const uint8_t *hash,
	  struct moat_error *err)
{
	size_t to = fill->wanted[index].to;
	AUTO_CLOSE int own = -1;
	uint8_t read_back[MOAT_HASH_SIZE];

	/* What is written only cannot be read back, and some backends have no descriptor. */
	if (fd < 0 || hash == NULL) {
		own = openat(dirfd, item_name(fill, to), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (own < 0)
			return moat_fail_errno(err, "open the new `%s'", to_entry(fill, to)->path);
		fd = own;
	}
	if (hash == NULL) {
		if (hash_file(fd, &size, read_back, err) < 0)
			return moat_wrap(err, "`%s'", to_entry(fill, to)->path);
		hash = read_back;
	}
	if (check_content(fill->entries[index], size, hash, err) < 0)
		return -1;
	return finish_file(fill, to, fd, err);
}

static int
fill_done(const struct moat_extract *extract, size_t index, int fd, uint64_t size,
	  const uint8_t *hash, struct moat_error *err)
{
	struct fill *fill = extract->context;
	struct wanted *wanted = &fill->wanted[index];
	int result, dirfd;

	if (!wanted->placed)
		return moat_fail(err, MOAT_FAILED,
				 "the backend brought `%s' without asking where to put it",
				 fill->entries[index]->path);
	dirfd = reach(fill, wanted->to, err);
	result = dirfd < 0 ? -1 : take_file(fill, index, dirfd, fd, size, hash, err);
	if (dirfd >= 0)
		let_go(fill, wanted->to);
	let_go(fill, wanted->to);
	wanted->placed = false;
	wanted->done = result == 0;
	return result;
}

static int
fill_damaged(const struct moat_extract *extract, size_t index, const struct moat_error *why,
	     struct moat_error *err)
{
	struct fill *fill = extract->context;

	return moat_fail(err, MOAT_CORRUPT, "the stored content of `%s' is damaged: %s",
			 index < fill->count ? fill->entries[index]->path : "?", why->message);
}

static int
bring_content(struct fill *fill, struct moat_error *err)
{
	const struct txn_source *source = &fill->txn->source;
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
					 fill->entries[i]->path);
	return 0;
}

/* --------------------------------------------------------------------------------- the other
 * things
 */

static int
make_empty(struct fill *fill, size_t index, int dirfd, struct moat_error *err)
{
	AUTO_CLOSE int fd = openat(dirfd, item_name(fill, index),
				   O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return moat_fail_errno(err, "make an empty file for `%s'",
				       to_entry(fill, index)->path);
	return finish_file(fill, index, fd, err);
}

/* Directories, and files without content. */
static int
make_before(struct fill *fill, size_t index, int dirfd, struct moat_error *err)
{
	const struct moat_entry *entry = to_entry(fill, index);

	if (entry->type == MOAT_DIRECTORY)
		return mkdirat(dirfd, item_name(fill, index), 0700) == 0
			       ? 0
			       : moat_fail_errno(err, "make a directory for `%s'", entry->path);
	if (entry->type == MOAT_FILE && entry->size == 0 && fill->items[index].content_of < 0)
		return make_empty(fill, index, dirfd, err);
	return 0;
}

static int
make_link(struct fill *fill, size_t index, int dirfd, struct moat_error *err)
{
	struct moat_entry *entry = (struct moat_entry *) to_entry(fill, index);
	const char *name = item_name(fill, index);
	struct stat st;

	if (symlinkat(entry->link_target, dirfd, name) < 0)
		return moat_fail_errno(err, "make a link for `%s'", entry->path);
	if (meta_set(dirfd, name, entry, 0, false, err) < 0)
		return -1;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "look at the new `%s'", entry->path);
	entry->ino = st.st_ino;
	return 0;
}

static int
make_name(struct fill *fill, size_t index, int dirfd, struct moat_error *err)
{
	struct moat_entry *entry = (struct moat_entry *) to_entry(fill, index);
	size_t first = (size_t) fill->items[index].content_of;
	int first_dir = reach(fill, first, err), result = 0;

	if (first_dir < 0)
		return -1;
	if (linkat(first_dir, item_name(fill, first), dirfd, item_name(fill, index), 0) < 0)
		result = moat_fail_errno(err, "make a second name for `%s'", entry->path);
	entry->ino = to_entry(fill, first)->ino;
	let_go(fill, first);
	return result;
}

/* Symbolic links, and further names of what is there by then. */
static int
make_after(struct fill *fill, size_t index, int dirfd, struct moat_error *err)
{
	if (to_entry(fill, index)->type == MOAT_DIRECTORY)
		return 0;
	if (fill->items[index].content_of >= 0)
		return make_name(fill, index, dirfd, err);
	return to_entry(fill, index)->type == MOAT_SYMLINK ? make_link(fill, index, dirfd, err) : 0;
}

/* The top one of a subtree stays open to its owner until all is in place: without the right to
 * write in it, it could not be moved. */
static int
finish_directory(struct fill *fill, size_t index, int dirfd, struct moat_error *err)
{
	struct moat_entry *entry = (struct moat_entry *) to_entry(fill, index);
	AUTO_CLOSE int fd = -1;
	struct stat st;

	if (entry->type != MOAT_DIRECTORY)
		return 0;
	fd = openat(dirfd, item_name(fill, index), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return moat_fail_errno(err, "open the new directory `%s'", entry->path);
	entry->ino = st.st_ino;
	if (fill->items[index].covered &&
	    meta_set_open(fd, &st, entry, entry->mode, entry->xattrs_size > 0, err) < 0)
		return -1;
	return syncs_each(fill) ? fs_sync(fd, entry->path, err) : 0;
}

typedef int make_fn(struct fill *fill, size_t index, int dirfd, struct moat_error *err);

static int
make_one(struct fill *fill, size_t index, make_fn *make, struct moat_error *err)
{
	int dirfd, result;

	if (!fill->items[index].staged)
		return 0;
	dirfd = reach(fill, index, err);
	if (dirfd < 0)
		return -1;
	result = make(fill, index, dirfd, err);
	let_go(fill, index);
	return result;
}

static int
make_all(struct fill *fill, struct moat_error *err)
{
	size_t count = fill->member->plan.to->count;

	for (size_t i = 0; i < count; i++)
		if (make_one(fill, i, make_before, err) < 0)
			return -1;
	if (bring_content(fill, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (make_one(fill, i, make_after, err) < 0)
			return -1;
	for (size_t i = count; i-- > 0;)
		if (make_one(fill, i, finish_directory, err) < 0)
			return -1;
	return 0;
}

/* Content must be on disk before the decision is. */
static int
sync_stage(const struct fill *fill, struct moat_error *err)
{
	for (size_t i = 0; i < fill->unsynced_count; i++)
		if (fs_sync(fill->unsynced[i], "a new file", err) < 0)
			return -1;
	if (syncs_each(fill))
		return fs_sync(fill->member->stage_fd, "the stage", err);
	if (syncfs(fill->member->stage_fd) < 0)
		return moat_fail_errno(err, "write the new files to disk");
	return 0;
}

int
stage_fill(struct txn *txn, struct moat_error *err)
{
	AUTO_FILL struct fill fill = {0};
	struct plan *plan = &txn->member.plan;

	if (fill_init(&fill, txn, err) < 0 || check_space(&fill, err) < 0 ||
	    make_all(&fill, err) < 0)
		return -1;
	if (fill.stripped > NAMED_MAX)
		log_warning("setuid and setgid bits are not restored: and %llu more",
			    (unsigned long long) (fill.stripped - NAMED_MAX));
	for (size_t i = 0; i < plan->count; i++)
		if (plan->ops[i].to >= 0 && fill.items[plan->ops[i].to].staged)
			plan->ops[i].ino = plan_to(plan, &plan->ops[i])->ino;
	return sync_stage(&fill, err);
}
