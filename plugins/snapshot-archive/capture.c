/* SPDX-License-Identifier: Apache-2.0 */
/* Capturing: what changed becomes members of a new pack, with a copy of the manifest at its end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pack_write.h"
#include "common/sparse.h"
#include "store.h"
#include "common/tar.h"

#define READ_MAX ((size_t) 1 << 20)     /* between two looks at whether the user wants to stop */
#define XATTRS_MAX ((uint32_t) 1 << 20) /* beyond it the manifest alone has them */

struct capturing {
	const struct archive *archive;
	const struct moat_capture *capture;
	struct pack_writer *pack;
	uint8_t *skipped; /* per entry: its content could not be read */
	uint64_t done_bytes, total_bytes, done_items, total_items;
	uint64_t known_pack; /* the last one that was looked for, */
	bool known, present; /* whether there is one, and it is there */
};

/* Whether the pack of a file that did not change is still in the store. */
static bool
has_content(struct capturing *c, const struct moat_entry *entry)
{
	if (entry->size == 0)
		return true;
	if ((entry->flags & MOAT_HAS_LOCATOR) == 0)
		return false;
	if (!c->known || c->known_pack != entry->locator[0]) {
		c->known = true;
		c->known_pack = entry->locator[0];
		c->present = store_has_pack(c->archive, entry->locator[0]);
	}
	return c->present;
}

/* What is the same is in an earlier pack.  If that one is lost, the content is stored again: a new
 * snapshot must not begin its life damaged. */
static bool
is_wanted(struct capturing *c, const struct moat_entry *entry)
{
	if (entry->status != MOAT_SAME)
		return true;
	return entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER &&
	       !has_content(c, entry);
}

static void
count_work(struct capturing *c)
{
	const struct moat_entries *entries = c->capture->entries;

	for (size_t i = 0; i < entries->count; i++) {
		const struct moat_entry *entry = entries->items[i];

		if (!is_wanted(c, entry))
			continue;
		c->total_items++;
		if (entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER)
			c->total_bytes += entry->size;
	}
}

static void
report(const struct capturing *c)
{
	c->archive->host->progress(c->done_bytes, c->total_bytes, c->done_items, c->total_items);
}

static struct tar_member
member_of(const struct capturing *c, const struct moat_entry *entry, char type)
{
	struct tar_member member = {
		.type = type,
		.path = entry->path,
		.mode = entry->mode,
		.uid = entry->uid,
		.gid = entry->gid,
		.mtime_sec = entry->mtime_sec,
		.mtime_nsec = entry->mtime_nsec,
	};

	if (entry->xattrs_size <= XATTRS_MAX) {
		member.xattrs = entry->xattrs;
		member.xattrs_size = entry->xattrs_size;
	} else {
		archive_warn(c->archive,
			     "`%s': its extended attributes are too large for a tar header; moat "
			     "keeps them, stock tools will not see them",
			     entry->path);
	}
	return member;
}

static int
write_header(struct capturing *c, const struct tar_member *member, struct moat_error *err)
{
	AUTO_BUF struct buf header = {0};

	if (tar_header(&header, member, err) < 0)
		return -1;
	return pack_write(c->pack, header.data, header.size, err);
}

/* Reads until `size` bytes are there; what is missing because the file has shrunk is zeros, so that
 * the stream stays what its header says. */
static int
read_file(int fd, uint64_t offset, uint8_t *data, size_t size, const char *path,
	  struct moat_error *err)
{
	while (size > 0) {
		ssize_t n = pread(fd, data, size, (off_t) offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail_errno(err, "read `%s'", path);
		if (n == 0) {
			memset(data, 0, size);
			return 0;
		}
		data += n;
		offset += (uint64_t) n;
		size -= (size_t) n;
	}
	return 0;
}

static int
copy_extent(struct capturing *c, int fd, const char *path, struct extent extent,
	    struct hasher *hasher, struct moat_error *err)
{
	while (extent.size > 0) {
		uint8_t *data;
		size_t n;

		if (archive_check_cancelled(c->archive, err) < 0 ||
		    pack_space(c->pack, &data, &n, err) < 0)
			return -1;
		n = n < READ_MAX ? n : READ_MAX;
		n = n < extent.size ? n : (size_t) extent.size;
		if (read_file(fd, extent.offset, data, n, path, err) < 0)
			return -1;
		hasher_data(hasher, data, n);
		pack_fill(c->pack, n);
		extent.offset += n;
		extent.size -= n;
		c->done_bytes += n;
		report(c);
	}
	return 0;
}

/* Hashes a hole, as the zeros that it reads as. */
static int
hash_hole(struct capturing *c, uint64_t size, struct hasher *hasher, struct moat_error *err)
{
	while (size > 0) {
		uint64_t n = size < 64 * READ_MAX ? size : 64 * READ_MAX;

		if (archive_check_cancelled(c->archive, err) < 0)
			return -1;
		hasher_zeros(hasher, n);
		size -= n;
		c->done_bytes += n;
		report(c);
	}
	return 0;
}

static int
copy_data(struct capturing *c, int fd, const char *path, const struct sparse_map *map,
	  uint8_t hash[MOAT_HASH_SIZE], struct moat_error *err)
{
	AUTO_HASHER struct hasher hasher = {0};
	uint64_t at = 0;

	if (hasher_begin(&hasher, c->archive->host, err) < 0)
		return -1;
	for (size_t i = 0; i < map->count; i++) {
		if (hash_hole(c, map->items[i].offset - at, &hasher, err) < 0 ||
		    copy_extent(c, fd, path, map->items[i], &hasher, err) < 0)
			return -1;
		at = map->items[i].offset + map->items[i].size;
	}
	hasher_end(&hasher, hash);
	return pack_zeros(c->pack, tar_padding(sparse_map_data(map)), err);
}

/* One member with the content as it is now.  Its size is settled before the first byte is read;
 * whether it still is that of the file the core sees afterwards. */
static int
store_once(struct capturing *c, const struct moat_entry *entry, int fd, uint64_t *ret_size,
	   uint8_t hash[MOAT_HASH_SIZE], struct moat_error *err)
{
	struct tar_member member = member_of(c, entry, TAR_FILE);
	AUTO_SPARSE_MAP struct sparse_map map = {0};
	AUTO_BUF struct buf text = {0};
	struct stat st;

	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "stat `%s'", entry->path);
	if (sparse_map_scan(fd, &st, &map, &member.sparse, err) < 0 ||
	    (member.sparse && sparse_map_encode(&map, &text, err) < 0))
		return -1;
	member.real_size = (uint64_t) st.st_size;
	member.size = text.size + sparse_map_data(&map);
	if (write_header(c, &member, err) < 0 || pack_write(c->pack, text.data, text.size, err) < 0)
		return -1;
	*ret_size = member.real_size;
	return copy_data(c, fd, entry->path, &map, hash, err);
}

/* 0: opened; 1: it cannot be captured, which the core has noted. */
static int
open_file(struct capturing *c, size_t index, int *ret_fd, struct moat_error *err)
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
store_file(struct capturing *c, size_t index, struct moat_error *err)
{
	const struct moat_entry *entry = c->capture->entries->items[index];
	uint64_t before = c->done_bytes;
	AUTO_CLOSE int fd = -1;
	int r = open_file(c, index, &fd, err);

	if (r != 0) {
		c->skipped[index] = 1;
		return r < 0 ? -1 : 0;
	}
	do {
		uint8_t hash[MOAT_HASH_SIZE];
		uint64_t size = 0, locator[3] = {0};

		c->done_bytes = before;
		if (pack_boundary(c->pack, false, err) < 0)
			return -1;
		(void) pack_number(c->capture->snapshot, &locator[0]);
		locator[1] = pack_position(c->pack);
		if (store_once(c, entry, fd, &size, hash, err) < 0)
			return -1;
		/* 1: it changed meanwhile.  The torn copy stays behind in the stream; whoever
		 * extracts all of it gets the later one. */
		r = c->capture->stored(c->capture, index, fd, size, hash, locator, err);
	} while (r > 0);
	c->done_bytes = before + entry->size;
	return r;
}

/* Links and directories: a header without data. */
static int
store_header(struct capturing *c, const struct moat_entry *entry, struct moat_error *err)
{
	struct tar_member member = member_of(c, entry, TAR_DIRECTORY);

	if (entry->type == MOAT_SYMLINK) {
		member.type = TAR_SYMLINK;
		member.link = entry->link_target;
	} else if (entry->type == MOAT_FILE) {
		if (c->skipped[entry->leader])
			return 0;
		member.type = TAR_HARD_LINK;
		member.link = c->capture->entries->items[entry->leader]->path;
	}
	return pack_boundary(c->pack, false, err) < 0 ? -1 : write_header(c, &member, err);
}

static int
store_entries(struct capturing *c, struct moat_error *err)
{
	const struct moat_entries *entries = c->capture->entries;

	for (size_t i = 0; i < entries->count; i++) {
		const struct moat_entry *entry = entries->items[i];
		bool content = entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER;

		if (!is_wanted(c, entry))
			continue;
		if (archive_check_cancelled(c->archive, err) < 0)
			return -1;
		if ((content ? store_file(c, i, err) : store_header(c, entry, err)) < 0)
			return -1;
		c->done_items++;
		report(c);
	}
	return 0;
}

static bool
name_is_taken(const struct moat_entries *entries, const char *name)
{
	for (size_t i = 0; i < entries->count; i++)
		if (strcmp(entries->items[i]->path, name) == 0)
			return true;
	return false;
}

/* The manifest's copy, in frames of its own, under a name that nothing in the workspace has. */
static int
store_manifest(struct capturing *c, struct moat_error *err)
{
	char name[128];
	struct tar_member member = {.type = TAR_FILE, .path = name, .mode = 0600};
	const void *data;
	size_t size;

	(void) snprintf(name, sizeof name, ".moat-manifest-%s", c->capture->snapshot);
	for (unsigned n = 1; name_is_taken(c->capture->entries, name); n++)
		(void) snprintf(name, sizeof name, ".moat-manifest-%s-%u", c->capture->snapshot, n);
	if (c->capture->manifest(c->capture, &data, &size, err) < 0)
		return -1;
	member.size = size;
	if (pack_boundary(c->pack, true, err) < 0 || write_header(c, &member, err) < 0 ||
	    pack_write(c->pack, data, size, err) < 0)
		return -1;
	return pack_zeros(c->pack, tar_padding(size), err);
}

static int
store_all(struct capturing *c, struct moat_ref *ret, struct moat_error *err)
{
	uint64_t manifest;

	count_work(c);
	if (store_entries(c, err) < 0)
		return -1;
	if (pack_boundary(c->pack, true, err) < 0)
		return -1;
	manifest = pack_position(c->pack);
	if (store_manifest(c, err) < 0 ||
	    pack_finish(c->pack, manifest, &ret->stored_bytes, err) < 0)
		return -1;
	(void) snprintf(ret->text, sizeof ret->text, "%s", c->capture->snapshot);
	return 0;
}

int
archive_capture(void *self, const struct moat_capture *capture, struct moat_ref *ret,
		struct moat_error *err)
{
	AUTO_PACK_WRITER struct pack_writer *pack = NULL;
	AUTO_FREE uint8_t *skipped = NULL;
	struct capturing c = {.archive = self, .capture = capture};
	uint64_t number;

	if (pack_number(capture->snapshot, &number) < 0)
		return moat_fail(err, MOAT_USAGE, "`%s' is not the id of a snapshot",
				 capture->snapshot);
	skipped = calloc(capture->entries->count + 1, 1);
	if (skipped == NULL)
		return moat_fail_memory(err);
	if (pack_writer_open(c.archive, number, &pack, err) < 0)
		return -1;
	c.pack = pack;
	c.skipped = skipped;
	return store_all(&c, ret, err);
}
