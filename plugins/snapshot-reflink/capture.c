/* SPDX-License-Identifier: Apache-2.0 */
/* Capturing: what changed becomes clones in a new set, which has a temporary name until all of it
 * is on the disk. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalogue.h"
#include "common/fs.h"
#include "content.h"

/* Up to so many files are brought to the disk one by one; with more it is cheaper to have the whole
 * filesystem do it. */
#define SYNC_FILES_MAX 32

struct capturing {
	const struct reflink *reflink;
	const struct moat_capture *capture;
	uint64_t number;
	size_t *wanted; /* indices of the entries that become files */
	size_t count;
	uint64_t total_bytes;
	uint64_t *sizes; /* of the files, by number */
	bool *copied;
	int set_fd;
	enum set_kind kind; /* the name that it has now */
	bool made;          /* there is something to remove when this fails */
};

static const struct moat_entry *
entry_of(const struct capturing *c, size_t file)
{
	return c->capture->entries->items[c->wanted[file]];
}

/* ------------------------------------------------------------------------------ what is to do */

/* The files of the set that was looked through last. */
struct known_set {
	uint64_t number;
	bool valid;
	struct bits files;
};

static int
note_file(void *context, uint64_t file, struct moat_error *err)
{
	return bits_add(context, file, err);
}

/* One that is lost has no files. */
static int
look_through(const struct reflink *reflink, uint64_t number, struct known_set *known,
	     struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_CLOSE int fd = -1;

	if (known->valid && known->number == number)
		return 0;
	bits_free(&known->files);
	known->number = number;
	known->valid = true;
	fd = store_open_set(reflink, number, NULL, &why);
	if (fd >= 0)
		return set_each(fd, note_file, &known->files, err);
	if (why.code == MOAT_CORRUPT)
		return 0;
	return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
}

struct same {
	uint64_t set, file;
	size_t index;
};

static int
compare_same(const void *a, const void *b)
{
	const struct same *x = a, *y = b;

	return (x->set > y->set) - (x->set < y->set);
}

/* What is the same is in an earlier set.  What of that is lost is stored again: a new snapshot must
 * not begin its life damaged.  Each set is looked through once, which costs less than a look at
 * each file. */
static int
want_what_is_lost(struct capturing *c, struct same *same, size_t count, struct moat_error *err)
{
	struct known_set known = {0};
	int r = 0;

	qsort(same, count, sizeof *same, compare_same);
	for (size_t i = 0; i < count && r == 0; i++) {
		r = look_through(c->reflink, same[i].set, &known, err);
		if (r == 0 && !bits_has(&known.files, same[i].file))
			c->wanted[c->count++] = same[i].index;
	}
	bits_free(&known.files);
	return r;
}

static int
choose_files(struct capturing *c, struct moat_error *err)
{
	const struct moat_entries *entries = c->capture->entries;
	AUTO_FREE struct same *same = calloc(entries->count + 1, sizeof *same);
	size_t count = 0;

	c->wanted = calloc(entries->count + 1, sizeof *c->wanted);
	if (same == NULL || c->wanted == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < entries->count; i++) {
		const struct moat_entry *entry = entries->items[i];

		if (entry->type != MOAT_FILE || entry->leader != MOAT_NO_LEADER)
			continue;
		if (entry->status != MOAT_SAME)
			c->wanted[c->count++] = i;
		else if ((entry->flags & MOAT_HAS_LOCATOR) == 0 && entry->size > 0)
			c->wanted[c->count++] = i;
		else if (entry->size > 0)
			same[count++] = (struct same){entry->locator[0], entry->locator[1], i};
	}
	if (want_what_is_lost(c, same, count, err) < 0)
		return -1;
	if (c->count >= SET_FILES_MAX)
		return moat_fail(err, MOAT_UNSUPPORTED, "there are too many files");
	for (size_t i = 0; i < c->count; i++)
		c->total_bytes += entry_of(c, i)->size;
	return 0;
}

/* ------------------------------------------------------------------------------------ one file */

static int
create_file(const struct capturing *c, uint64_t file, struct moat_error *err)
{
	char name[FILE_NAME_MAX];
	int fd = openat(c->set_fd, set_file_name(name, file),
			O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);

	return fd >= 0 ? fd : moat_fail_errno(err, "create `%s' in the store", name);
}

static int
remove_file(const struct capturing *c, uint64_t file, struct moat_error *err)
{
	char name[FILE_NAME_MAX];

	if (unlinkat(c->set_fd, set_file_name(name, file), 0) == 0)
		return 0;
	return moat_fail_errno(err, "remove `%s' in the store", name);
}

/* The hash is that of what is stored, not of what is in the workspace: a clone is of one moment, so
 * it cannot be half of one and half of another state of the file, and what was copied is at least
 * described as it is. */
static int
store_content(struct work *work, size_t file, int from, uint64_t size, uint64_t *ret_size,
	      uint8_t hash[MOAT_HASH_SIZE], struct moat_error *err)
{
	struct capturing *c = work->context;
	AUTO_CLOSE int to = create_file(c, file, err);
	struct stat st;

	if (to < 0 || content_transfer(work, from, to, size, &c->copied[file], err) < 0)
		return -1;
	if (fstat(to, &st) < 0)
		return moat_fail_errno(err, "stat what was stored");
	if (content_hash(work, to, (uint64_t) st.st_size, ret_size, hash, err) < 0)
		return -1;
	return c->count <= SYNC_FILES_MAX ? fs_sync(to, "what was stored", err) : 0;
}

/* An empty file is nothing but its entry. */
static int
store_once(struct work *work, size_t file, int from, uint64_t *ret_size,
	   uint8_t hash[MOAT_HASH_SIZE], struct moat_error *err)
{
	struct capturing *c = work->context;
	struct stat st;

	if (fstat(from, &st) < 0)
		return moat_fail_errno(err, "stat");
	*ret_size = 0;
	if (st.st_size == 0)
		return reflink_hash(c->reflink, NULL, 0, hash, err);
	if (store_content(work, file, from, (uint64_t) st.st_size, ret_size, hash, err) < 0)
		return -1;
	c->sizes[file] = *ret_size;
	return 0;
}

/* 0: opened; 1: it cannot be captured, which the core has noted. */
static int
open_source(const struct capturing *c, size_t index, int *ret_fd, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;

	*ret_fd = c->capture->open(c->capture, index, &why);
	if (*ret_fd >= 0)
		return 0;
	if (why.code == MOAT_GONE || why.code == MOAT_CHANGED || why.code == MOAT_PERMISSION)
		return 1;
	return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
}

static int
store_file(struct work *work, size_t file, struct moat_error *err)
{
	struct capturing *c = work->context;
	size_t index = c->wanted[file];
	uint64_t locator[3] = {c->number, file, 0};
	AUTO_CLOSE int fd = -1;
	int r = open_source(c, index, &fd, err);

	if (r != 0)
		return r < 0 ? -1 : 0;
	for (;;) {
		uint8_t hash[MOAT_HASH_SIZE];
		uint64_t size = 0;

		if (store_once(work, file, fd, &size, hash, err) < 0)
			return moat_wrap(err, "`%s'", entry_of(c, file)->path);
		/* 1: it changed meanwhile. */
		r = c->capture->stored(c->capture, index, fd, size, hash, locator, err);
		if (r <= 0)
			return r;
		work_report(work, -(int64_t) size);
		if (c->sizes[file] != NO_FILE && remove_file(c, file, err) < 0)
			return -1;
		c->sizes[file] = NO_FILE;
		c->copied[file] = false;
	}
}

/* ------------------------------------------------------------------------------------- the set */

static int
make_set(struct capturing *c, struct moat_error *err)
{
	const struct reflink *reflink = c->reflink;
	char name[SET_NAME_MAX], inner[FILE_NAME_MAX];

	if (store_has_set(reflink, c->number))
		return moat_fail(err, MOAT_EXISTS, "`%s/%s' exists already", reflink->path,
				 set_name(name, c->number, SET_LIVE));
	c->kind = SET_TEMPORARY;
	if (mkdirat(reflink->dirfd, set_name(name, c->number, SET_TEMPORARY), 0700) < 0)
		return moat_fail_errno(err, "create `%s/%s'", reflink->path, name);
	c->made = true;
	c->set_fd = openat(reflink->dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (c->set_fd < 0)
		return moat_fail_errno(err, "open `%s/%s'", reflink->path, name);
	for (uint64_t file = 0; file < c->count; file += SET_DIRECTORY)
		if (mkdirat(c->set_fd, set_directory_name(inner, file), 0700) < 0)
			return moat_fail_errno(err, "create `%s/%s/%s'", reflink->path, name,
					       inner);
	return 0;
}

static int
write_file(const struct capturing *c, const char *name, const void *data, size_t size,
	   struct moat_error *err)
{
	AUTO_CLOSE int fd =
		openat(c->set_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0400);

	if (fd < 0)
		return moat_fail_errno(err, "create `%s' in the store", name);
	if (fs_write_all(fd, data, size, name, err) < 0 || fs_sync(fd, name, err) < 0)
		return -1;
	if (close(steal_fd(&fd)) < 0 && errno != EINTR)
		return moat_fail_errno(err, "close `%s'", name);
	return 0;
}

/* The manifest and the index.  *ret_size: bytes that cannot be shared. */
static int
describe_set(const struct capturing *c, uint64_t *ret_size, struct moat_error *err)
{
	struct catalogue catalogue = {.number = c->number, .count = c->count, .sizes = c->sizes};
	AUTO_BUF struct buf index = {0};
	const void *manifest;
	size_t size;

	for (size_t i = 0; i < c->count; i++)
		if (c->copied[i])
			catalogue.copied_bytes += c->sizes[i];
	if (c->capture->manifest(c->capture, &manifest, &size, err) < 0)
		return -1;
	catalogue.manifest_size = size;
	if (reflink_hash(c->reflink, manifest, size, catalogue.manifest_hash, err) < 0 ||
	    catalogue_encode(c->reflink, &catalogue, &index, err) < 0 ||
	    write_file(c, MANIFEST_NAME, manifest, size, err) < 0 ||
	    write_file(c, INDEX_NAME, index.data, index.size, err) < 0)
		return -1;
	*ret_size = catalogue.copied_bytes + size + index.size;
	return 0;
}

/* With few files each was brought to the disk when it was stored. */
static int
sync_set(const struct capturing *c, struct moat_error *err)
{
	char name[FILE_NAME_MAX];
	AUTO_CLOSE int fd = -1;

	if (c->count > SYNC_FILES_MAX)
		return syncfs(c->set_fd) == 0 ? 0 : moat_fail_errno(err, "sync the store");
	if (c->count > 0) {
		fd = fs_open_directory(c->set_fd, set_directory_name(name, 0), false, err);
		if (fd < 0 || fs_sync(fd, name, err) < 0)
			return -1;
	}
	return fs_sync(c->set_fd, "the set", err);
}

static int
publish(struct capturing *c, struct moat_error *err)
{
	const struct reflink *reflink = c->reflink;
	char from[SET_NAME_MAX], to[SET_NAME_MAX];

	if (sync_set(c, err) < 0)
		return -1;
	if (renameat(reflink->dirfd, set_name(from, c->number, SET_TEMPORARY), reflink->dirfd,
		     set_name(to, c->number, SET_LIVE)) < 0)
		return moat_fail_errno(err, "rename `%s/%s' to `%s'", reflink->path, from, to);
	c->kind = SET_LIVE;
	return fs_sync(reflink->dirfd, reflink->path, err);
}

static void
tell_copied(const struct capturing *c)
{
	size_t copied = 0;

	for (size_t i = 0; i < c->count; i++)
		copied += c->copied[i];
	if (copied > 0)
		reflink_log(c->reflink, MOAT_LOG_INFO,
			    "%zu file%s could not be cloned and %s copied: the filesystem refuses "
			    "it for swap files, for instance, and files without copy-on-write",
			    copied, copied == 1 ? "" : "s", copied == 1 ? "was" : "were");
}

/* What was made, by names: that needs neither memory nor descriptors, one of which may be what was
 * lacking.  What stays nevertheless the next call sweeps away; the first error is the one to tell.
 */
static void
discard_set(const struct capturing *c)
{
	int dirfd = c->reflink->dirfd;
	char set[SET_NAME_MAX], name[FILE_NAME_MAX], path[SET_NAME_MAX + FILE_NAME_MAX + 1];

	(void) set_name(set, c->number, c->kind);
	for (uint64_t file = 0; file < c->count; file++) {
		(void) snprintf(path, sizeof path, "%s/%s", set, set_file_name(name, file));
		(void) unlinkat(dirfd, path, 0);
	}
	for (uint64_t file = 0; file < c->count; file += SET_DIRECTORY) {
		(void) snprintf(path, sizeof path, "%s/%s", set, set_directory_name(name, file));
		(void) unlinkat(dirfd, path, AT_REMOVEDIR);
	}
	(void) snprintf(path, sizeof path, "%s/" MANIFEST_NAME, set);
	(void) unlinkat(dirfd, path, 0);
	(void) snprintf(path, sizeof path, "%s/" INDEX_NAME, set);
	(void) unlinkat(dirfd, path, 0);
	(void) unlinkat(dirfd, set, AT_REMOVEDIR);
}

static int
store_all(struct capturing *c, struct moat_ref *ret, struct moat_error *err)
{
	struct work work = {.reflink = c->reflink, .item = store_file, .context = c};

	if (choose_files(c, err) < 0)
		return -1;
	c->sizes = malloc((c->count + 1) * sizeof *c->sizes);
	c->copied = calloc(c->count + 1, sizeof *c->copied);
	if (c->sizes == NULL || c->copied == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < c->count; i++)
		c->sizes[i] = NO_FILE;
	if (store_sweep(c->reflink, err) < 0 || make_set(c, err) < 0)
		return -1;
	work.count = c->count;
	work.total_bytes = c->total_bytes;
	if (work_run(&work, err) < 0 || describe_set(c, &ret->stored_bytes, err) < 0 ||
	    publish(c, err) < 0)
		return moat_wrap(err, "store the snapshot in `%s'", c->reflink->path);
	return 0;
}

int
reflink_capture(void *self, const struct moat_capture *capture, struct moat_ref *ret,
		struct moat_error *err)
{
	struct capturing c = {.reflink = self, .capture = capture, .set_fd = -1};
	int r;

	if (set_number(capture->snapshot, &c.number) < 0)
		return moat_fail(err, MOAT_USAGE, "`%s' is not the id of a snapshot",
				 capture->snapshot);
	r = store_all(&c, ret, err);
	if (r == 0) {
		(void) snprintf(ret->text, sizeof ret->text, "%s", capture->snapshot);
		tell_copied(&c);
	} else if (c.made) {
		discard_set(&c);
	}
	cleanup_close(&c.set_fd);
	free(c.wanted);
	free(c.sizes);
	free(c.copied);
	return r;
}
