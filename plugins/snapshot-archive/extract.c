/* SPDX-License-Identifier: Apache-2.0 */
/* Giving content back: by locators into packs, in the order in which it lies there. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pack_read.h"
#include "store.h"
#include "common/tar.h"

/* One entry that is wanted. */
struct want {
	uint64_t pack, position;
	size_t index;
};

struct extracting {
	const struct archive *archive;
	const struct moat_extract *extract;
	struct pack_reader *reader; /* of `pack`; NULL: it cannot be read, because of `why` */
	uint64_t pack;
	bool opened;
	struct moat_error why;
	uint64_t done_bytes, total_bytes, done_items;
};

static int
compare_wants(const void *a, const void *b)
{
	const struct want *x = a, *y = b;

	if (x->pack != y->pack)
		return x->pack < y->pack ? -1 : 1;
	if (x->position != y->position)
		return x->position < y->position ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

/* Freed by the caller; NULL: no memory. */
static struct want *
sorted_wants(const struct moat_entries *entries, uint64_t *total_bytes)
{
	struct want *wants = calloc(entries->count + 1, sizeof *wants);

	if (wants == NULL)
		return NULL;
	for (size_t i = 0; i < entries->count; i++) {
		const struct moat_entry *entry = entries->items[i];

		wants[i].index = i;
		if (entry->size > 0 && (entry->flags & MOAT_HAS_LOCATOR) != 0) {
			wants[i].pack = entry->locator[0];
			wants[i].position = entry->locator[1];
		}
		*total_bytes += entry->size;
	}
	qsort(wants, entries->count, sizeof *wants, compare_wants);
	return wants;
}

static int
write_at(int fd, const uint8_t *data, size_t size, uint64_t offset, struct moat_error *err)
{
	while (size > 0) {
		ssize_t n = pwrite(fd, data, size, (off_t) offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail_errno(err, "write");
		data += n;
		offset += (uint64_t) n;
		size -= (size_t) n;
	}
	return 0;
}

static void
report(struct extracting *x, uint64_t bytes)
{
	x->done_bytes += bytes;
	x->archive->host->progress(x->done_bytes, x->total_bytes, x->done_items,
				   x->extract->entries->count);
}

/* Data of the stream to its place in the file (fd -1: nowhere). */
static int
copy_extent(struct extracting *x, struct extent extent, int fd, struct hasher *hasher,
	    struct moat_error *err)
{
	while (extent.size > 0) {
		const uint8_t *data;
		size_t n;

		if (archive_check_cancelled(x->archive, err) < 0 ||
		    pack_peek(x->reader, &data, &n, err) < 0)
			return -1;
		n = n < extent.size ? n : (size_t) extent.size;
		hasher_data(hasher, data, n);
		if (fd >= 0 && write_at(fd, data, n, extent.offset, err) < 0)
			return -1;
		pack_skip(x->reader, n);
		extent.offset += n;
		extent.size -= n;
		report(x, n);
	}
	return 0;
}

static int
hash_hole(struct extracting *x, uint64_t size, struct hasher *hasher, struct moat_error *err)
{
	while (size > 0) {
		uint64_t n = size < (64 << 20) ? size : (64 << 20);

		if (archive_check_cancelled(x->archive, err) < 0)
			return -1;
		hasher_zeros(hasher, n);
		size -= n;
		report(x, n);
	}
	return 0;
}

static int
copy_file(struct extracting *x, const struct tar_file *file, int fd, struct hasher *hasher,
	  struct moat_error *err)
{
	uint64_t at = 0;

	if (fd >= 0 && file->sparse && ftruncate(fd, (off_t) file->size) < 0)
		return moat_fail_errno(err, "set the size");
	for (size_t i = 0; i < file->map.count; i++) {
		const struct extent *extent = &file->map.items[i];

		if (hash_hole(x, extent->offset - at, hasher, err) < 0 ||
		    copy_extent(x, *extent, fd, hasher, err) < 0)
			return -1;
		at = extent->offset + extent->size;
	}
	return 0; /* every map reaches the end of the file */
}

/* Finds the member and copies its content.  The size must be the manifest's before anything is
 * copied: so a forged header cannot make more of it. */
static int
copy_member(struct extracting *x, const struct want *want, int fd, struct hasher *hasher,
	    struct moat_error *err)
{
	const struct moat_entry *entry = x->extract->entries->items[want->index];
	AUTO_TAR_FILE struct tar_file file = {0};
	struct tar_source source;

	if (entry->size == 0)
		return 0;
	if ((entry->flags & MOAT_HAS_LOCATOR) == 0)
		return moat_fail(err, MOAT_CORRUPT, "nothing tells where the content is stored");
	if (x->reader == NULL)
		return moat_fail(err, x->why.code, "%s", x->why.message);
	source = pack_source(x->reader);
	if (pack_seek(x->reader, want->position, err) < 0 || tar_read_file(&source, &file, err) < 0)
		return -1;
	if (file.size != entry->size)
		return moat_fail(err, MOAT_CORRUPT, "the content stored has another size");
	return copy_file(x, &file, fd, hasher, err);
}

static int
copy_checked(struct extracting *x, const struct want *want, int fd, uint8_t hash[MOAT_HASH_SIZE],
	     struct moat_error *err)
{
	const struct moat_entry *entry = x->extract->entries->items[want->index];
	AUTO_HASHER struct hasher hasher = {0};
	char name[PACK_NAME_MAX];

	if (hasher_begin(&hasher, x->archive->host, err) < 0)
		return -1;
	if (copy_member(x, want, fd, &hasher, err) < 0)
		return x->reader == NULL ? -1
					 : moat_wrap(err, "`%s/%s'", x->archive->path,
						     pack_name(name, want->pack, PACK_LIVE));
	hasher_end(&hasher, hash);
	if ((entry->flags & MOAT_HAS_HASH) != 0 && memcmp(hash, entry->hash, MOAT_HASH_SIZE) != 0)
		return moat_fail(err, MOAT_CORRUPT,
				 "`%s/%s': the content stored is not that of the manifest",
				 x->archive->path, pack_name(name, want->pack, PACK_LIVE));
	return 0;
}

/* Makes the file and hands it over; what is not complete is removed. */
static int
extract_one(struct extracting *x, const struct want *want, struct moat_error *err)
{
	const struct moat_extract *extract = x->extract;
	const struct moat_entry *entry = extract->entries->items[want->index];
	struct moat_error why = MOAT_ERROR_INIT;
	uint8_t hash[MOAT_HASH_SIZE];
	const char *name = NULL;
	AUTO_CLOSE int fd = -1;
	int dirfd = -1, r;

	if (extract->place != NULL) {
		if (extract->place(extract, want->index, &dirfd, &name, err) < 0)
			return -1;
		fd = openat(dirfd, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC,
			    0600);
		if (fd < 0)
			return moat_fail_errno(err, "create `%s' for `%s'", name, entry->path);
	}
	if (copy_checked(x, want, fd, hash, &why) == 0)
		r = extract->done(extract, want->index, fd, entry->size, hash, err);
	else if (why.code == MOAT_CORRUPT)
		r = extract->damaged(extract, want->index, &why, err);
	else
		r = moat_error_set(err, why.code, why.sys_errno, "`%s': %s", entry->path,
				   why.message);
	if (fd >= 0 && (r < 0 || why.code != MOAT_OK))
		(void) unlinkat(dirfd, name, 0);
	return r;
}

/* Makes the pack of that number the current one.  One that is damaged is no failure yet: each entry
 * in it is. */
static int
change_pack(struct extracting *x, uint64_t number, struct moat_error *err)
{
	if (x->opened && x->pack == number)
		return 0;
	pack_reader_free(x->reader);
	x->reader = NULL;
	x->opened = true;
	x->pack = number;
	moat_error_clear(&x->why);
	if (pack_reader_open(x->archive, number, &x->reader, &x->why) == 0 ||
	    x->why.code == MOAT_CORRUPT)
		return 0;
	return moat_error_set(err, x->why.code, x->why.sys_errno, "%s", x->why.message);
}

static int
extract_all(struct extracting *x, const struct want *wants, struct moat_error *err)
{
	for (size_t i = 0; i < x->extract->entries->count; i++) {
		const struct moat_entry *entry = x->extract->entries->items[wants[i].index];

		if (archive_check_cancelled(x->archive, err) < 0)
			return -1;
		if (entry->size > 0 && (entry->flags & MOAT_HAS_LOCATOR) != 0 &&
		    change_pack(x, wants[i].pack, err) < 0)
			return -1;
		if (extract_one(x, &wants[i], err) < 0)
			return -1;
		x->done_items++;
		report(x, 0);
	}
	return 0;
}

int
archive_materialise(void *self, const struct moat_extract *extract, struct moat_error *err)
{
	struct extracting x = {.archive = self, .extract = extract, .why = MOAT_ERROR_INIT};
	AUTO_FREE struct want *wants = sorted_wants(extract->entries, &x.total_bytes);
	int r;

	if (wants == NULL)
		return moat_fail_memory(err);
	r = extract_all(&x, wants, err);
	pack_reader_free(x.reader);
	return r;
}

/* ------------------------------------------------------------------------------- manifests */

struct enumerating {
	const struct archive *archive;
	int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
		     size_t manifest_size, struct moat_error *err);
	void *context;
};

static int
read_manifest(struct pack_reader *reader, struct buf *out, struct moat_error *err)
{
	struct tar_source source = pack_source(reader);
	AUTO_TAR_FILE struct tar_file file = {0};

	if (pack_manifest(reader) == PACK_NO_MANIFEST)
		return moat_fail(err, MOAT_CORRUPT, "nothing tells where its manifest is");
	if (pack_seek(reader, pack_manifest(reader), err) < 0 ||
	    tar_read_file(&source, &file, err) < 0)
		return -1;
	if (file.sparse)
		return moat_fail(err, MOAT_CORRUPT, "its manifest has holes");
	while (out->size < file.size) {
		const uint8_t *data;
		size_t n;

		if (pack_peek(reader, &data, &n, err) < 0)
			return -1;
		n = n < file.size - out->size ? n : (size_t) (file.size - out->size);
		buf_append(out, data, n);
		if (buf_check(out, err) < 0)
			return -1;
		pack_skip(reader, n);
	}
	return 0;
}

/* A pack that cannot be read is warned of: the others can still be listed. */
static int
visit_pack(void *context, uint64_t number, struct moat_error *err)
{
	const struct enumerating *e = context;
	AUTO_PACK_READER struct pack_reader *reader = NULL;
	struct moat_ref ref = {.struct_size = sizeof ref};
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_BUF struct buf manifest = {0};
	char name[PACK_NAME_MAX];

	if (pack_reader_open(e->archive, number, &reader, &why) < 0 ||
	    read_manifest(reader, &manifest, &why) < 0) {
		if (why.code != MOAT_CORRUPT)
			return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
		archive_warn(e->archive, "`%s/%s' is damaged: %s", e->archive->path,
			     pack_name(name, number, PACK_LIVE), why.message);
		return 0;
	}
	(void) snprintf(ref.text, sizeof ref.text, "%.17s", pack_name(name, number, PACK_LIVE));
	ref.stored_bytes = pack_file_size(reader);
	return e->found(e->context, &ref, manifest.data, manifest.size, err);
}

int
archive_enumerate(void *self,
		  int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
			       size_t manifest_size, struct moat_error *err),
		  void *context, struct moat_error *err)
{
	struct enumerating e = {self, found, context};

	return store_each(self, PACK_LIVE, visit_pack, &e, err);
}
