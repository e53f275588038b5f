/* SPDX-License-Identifier: Apache-2.0 */
/* One file becomes one member of the tar stream, followed by the hard links to it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"

#define XATTRS_MAX ((uint32_t) 1 << 20) /* beyond it the manifest alone has them */
#define HOLE_STEP                                                                                  \
	((uint64_t) 64 << 20) /* of zeros to hash between two looks at the user's wish             \
			       */

int
worker_init(struct worker *worker, struct capturing *c, struct moat_error *err)
{
	*worker = (struct worker){.c = c};
	return strand_init(&worker->strand, &c->press, err);
}

void
worker_destroy(struct worker *worker)
{
	strand_destroy(&worker->strand);
	buf_free(&worker->header);
	sparse_map_free(&worker->map);
}

struct tar_member
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
		archive_log(c->archive, MOAT_LOG_WARNING,
			    "`%s': its extended attributes are too large for a tar header; moat "
			    "keeps them, stock tools will not see them",
			    entry->path);
	}
	return member;
}

static int
make_header(struct worker *worker, const struct tar_member *member, struct moat_error *err)
{
	worker->header.size = 0;
	return tar_header(&worker->header, member, err);
}

/* Into the large segment that is open, or with room in the small one. */
static int
put_header(struct worker *worker, uint32_t kind, struct moat_error *err)
{
	if (worker->strand.chunk == NULL && worker->header.size <= FRAME_MAX &&
	    strand_reserve(&worker->strand, kind, worker->header.size, err) < 0)
		return -1;
	return strand_write(&worker->strand, worker->header.data, worker->header.size, err);
}

int
member_write(struct worker *worker, uint32_t kind, const struct tar_member *member,
	     struct moat_error *err)
{
	bool alone;

	if (make_header(worker, member, err) < 0)
		return -1;
	alone = worker->strand.chunk == NULL && worker->header.size > FRAME_MAX;
	if (alone && strand_large_begin(&worker->strand, kind, err) < 0)
		return -1;
	if (put_header(worker, kind, err) < 0)
		return -1;
	return alone ? strand_large_end(&worker->strand, err) : 0;
}

int
member_write_data(struct worker *worker, uint32_t kind, struct tar_member *member, const void *data,
		  size_t size, struct moat_error *err)
{
	struct strand *strand = &worker->strand;

	member->size = size;
	if (make_header(worker, member, err) < 0 || strand_large_begin(strand, kind, err) < 0 ||
	    strand_write(strand, worker->header.data, worker->header.size, err) < 0 ||
	    strand_write(strand, data, size, err) < 0 ||
	    strand_zeros(strand, tar_padding(size), err) < 0)
		return -1;
	return strand_large_end(strand, err);
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
copy_extent(struct worker *worker, int fd, const char *path, struct extent extent,
	    struct hasher *hasher, struct moat_error *err)
{
	while (extent.size > 0) {
		uint8_t *data;
		size_t n;

		if (worker->strand.chunk != NULL &&
		    archive_check_cancelled(worker->c->archive, err) < 0)
			return -1;
		if (strand_space(&worker->strand, &data, &n, err) < 0)
			return -1;
		n = n < extent.size ? n : (size_t) extent.size;
		if (read_file(fd, extent.offset, data, n, path, err) < 0)
			return -1;
		hasher_data(hasher, data, n);
		strand_fill(&worker->strand, n);
		extent.offset += n;
		extent.size -= n;
		if (worker->strand.chunk != NULL) {
			worker->early += n;
			capture_report(worker->c, n, 0);
		}
	}
	return 0;
}

/* Hashes a hole, as the zeros that it reads as. */
static int
hash_hole(struct worker *worker, uint64_t size, struct hasher *hasher, struct moat_error *err)
{
	while (size > 0) {
		uint64_t n = size < HOLE_STEP ? size : HOLE_STEP;

		if (archive_check_cancelled(worker->c->archive, err) < 0)
			return -1;
		hasher_zeros(hasher, n);
		size -= n;
	}
	return 0;
}

static int
copy_data(struct worker *worker, int fd, const char *path, uint8_t hash[MOAT_HASH_SIZE],
	  struct moat_error *err)
{
	const struct sparse_map *map = &worker->map;
	AUTO_HASHER struct hasher hasher = {0};
	uint64_t at = 0;

	if (hasher_begin(&hasher, worker->c->archive->host, err) < 0)
		return -1;
	for (size_t i = 0; i < map->count; i++) {
		if (hash_hole(worker, map->items[i].offset - at, &hasher, err) < 0 ||
		    copy_extent(worker, fd, path, map->items[i], &hasher, err) < 0)
			return -1;
		at = map->items[i].offset + map->items[i].size;
	}
	hasher_end(&hasher, hash);
	return strand_zeros(&worker->strand, tar_padding(sparse_map_data(map)), err);
}

/* What was read of one file, once. */
struct taken {
	uint64_t size;
	uint8_t hash[MOAT_HASH_SIZE];
	uint64_t locator[3];
	size_t start; /* in the small segment */
	bool large;
};

/* The header, with the map of holes behind it, for the content as it is now.  Its size is settled
 * before the first byte is read; whether it still is that of the file the core sees afterwards. */
static int
prepare(struct worker *worker, const struct moat_entry *entry, int fd, uint64_t *ret_size,
	struct moat_error *err)
{
	struct tar_member member = member_of(worker->c, entry, TAR_FILE);
	AUTO_BUF struct buf text = {0};
	struct stat st;

	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "stat `%s'", entry->path);
	if (sparse_map_scan(fd, &st, &worker->map, &member.sparse, err) < 0 ||
	    (member.sparse && sparse_map_encode(&worker->map, &text, err) < 0))
		return -1;
	member.real_size = (uint64_t) st.st_size;
	member.size = text.size + sparse_map_data(&worker->map);
	if (make_header(worker, &member, err) < 0)
		return -1;
	if (text.size > 0)
		buf_append(&worker->header, text.data, text.size);
	*ret_size = member.real_size;
	return buf_check(&worker->header, err);
}

/* Room for the whole member: in the small segment, or, if it is too large for that, or one is open
 * from an earlier try, in a segment of its own. */
static int
make_room(struct worker *worker, struct taken *taken, struct moat_error *err)
{
	struct strand *strand = &worker->strand;
	uint64_t data = sparse_map_data(&worker->map);
	uint64_t room = FRAME_MAX - (data + tar_padding(data));
	bool fits = data <= FRAME_MAX - TAR_BLOCK && worker->header.size <= room;

	if (!fits && !taken->large) {
		taken->large = true;
		if (strand_large_begin(strand, SEGMENT_CONTENT, err) < 0)
			return -1;
	}
	if (!taken->large &&
	    strand_reserve(strand, SEGMENT_CONTENT,
			   worker->header.size + (size_t) (data + tar_padding(data)), err) < 0)
		return -1;
	taken->start = strand->used;
	taken->locator[0] = worker->c->number;
	strand_position(strand, &taken->locator[1], &taken->locator[2]);
	return 0;
}

static int
store_once(struct worker *worker, const struct moat_entry *entry, int fd, struct taken *taken,
	   struct moat_error *err)
{
	struct strand *strand = &worker->strand;

	if (prepare(worker, entry, fd, &taken->size, err) < 0 ||
	    make_room(worker, taken, err) < 0 ||
	    strand_write(strand, worker->header.data, worker->header.size, err) < 0)
		return -1;
	return copy_data(worker, fd, entry->path, taken->hash, err);
}

/* Takes back what has changed while it was stored. */
static int
forget(struct worker *worker, const struct taken *taken, struct moat_error *err)
{
	if (taken->large)
		return strand_large_rewind(&worker->strand, err);
	worker->strand.used = taken->start;
	return 0;
}

static int
compare_leader(const void *key, const void *item)
{
	const size_t *leader = key;
	const struct link *link = item;

	return (*leader > link->leader) - (*leader < link->leader);
}

/* The other names of a file follow it: they are there as long as it is. */
static int
store_links(struct worker *worker, size_t leader, struct moat_error *err)
{
	const struct capturing *c = worker->c;
	const struct moat_entry *const *items = c->capture->entries->items;
	const struct link *link = c->link_count == 0 ? NULL
						     : bsearch(&leader, c->links, c->link_count,
							       sizeof *c->links, compare_leader);

	if (link == NULL)
		return 0;
	while (link > c->links && link[-1].leader == leader)
		link--;
	for (; link < c->links + c->link_count && link->leader == leader; link++) {
		struct tar_member member = member_of(c, items[link->index], TAR_HARD_LINK);

		member.link = items[leader]->path;
		if (member_write(worker, SEGMENT_CONTENT, &member, err) < 0)
			return -1;
		c->flags[link->index] |= ENTRY_DONE;
	}
	return 0;
}

/* 0: opened; 1: it cannot be captured, which the core has noted. */
static int
open_file(const struct capturing *c, size_t index, int *ret_fd, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;

	*ret_fd = c->capture->open(c->capture, index, &why);
	if (*ret_fd >= 0)
		return 0;
	if (why.code == MOAT_GONE || why.code == MOAT_CHANGED || why.code == MOAT_PERMISSION)
		return 1;
	return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
}

int
member_store(struct worker *worker, size_t index, struct moat_error *err)
{
	const struct capturing *c = worker->c;
	const struct moat_entry *entry = c->capture->entries->items[index];
	struct taken taken = {0};
	AUTO_CLOSE int fd = -1;
	int r = open_file(c, index, &fd, err);

	if (r != 0) {
		c->flags[index] |= ENTRY_SKIPPED;
		return r < 0 ? -1 : 0;
	}
	for (;;) {
		if (store_once(worker, entry, fd, &taken, err) < 0)
			return -1;
		r = c->capture->stored(c->capture, index, fd, taken.size, taken.hash, taken.locator,
				       err);
		if (r <= 0)
			break;
		if (forget(worker, &taken, err) < 0)
			return -1;
	}
	if (r < 0 || store_links(worker, index, err) < 0)
		return -1;
	return taken.large ? strand_large_end(&worker->strand, err) : 0;
}
