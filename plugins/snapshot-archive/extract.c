/* SPDX-License-Identifier: Apache-2.0 */
/* Giving content back, pack after pack; the segments of a pack are distributed over a crew. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "crew.h"
#include "pack_read.h"
#include "store.h"

#define HOLE_STEP                                                                                  \
	((uint64_t) 64 << 20) /* of zeros to hash between two looks at the user's wish             \
			       */
#define EMPTY_BATCH 256       /* files without content that a thread takes at a time */

/* One entry that is wanted. */
struct want {
	uint64_t pack, segment, position;
	size_t index;
	bool stored; /* it has content, and something tells where */
};

struct extracting {
	const struct archive *archive;
	const struct moat_extract *extract;
	struct crew crew;
	struct want *wants;
	size_t to;         /* the end of those of the current pack; */
	size_t next;       /* the first that nobody has taken: under the crew's lock, */
	size_t next_frame; /* and so this, for frames in which there is nothing wanted */
	struct pack *pack; /* the current one; NULL: it cannot be read, because of `why` */
	struct moat_error why;
	bool *seen;               /* verify: by frame of the pack, whether it was looked at */
	struct moat_error damage; /* verify: the first that concerns no entry; under the lock */
	struct pack_cursor cursors[CREW_MAX];         /* made when they are needed */
	uint64_t done_bytes, total_bytes, done_items; /* under the lock */
};

static int
compare_wants(const void *a, const void *b)
{
	const struct want *x = a, *y = b;

	if (x->stored != y->stored)
		return x->stored ? 1 : -1;
	if (x->pack != y->pack)
		return x->pack < y->pack ? -1 : 1;
	if (x->segment != y->segment)
		return x->segment < y->segment ? -1 : 1;
	if (x->position != y->position)
		return x->position < y->position ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static int
sort_wants(struct extracting *x, struct moat_error *err)
{
	const struct moat_entries *entries = x->extract->entries;

	x->wants = calloc(entries->count + 1, sizeof *x->wants);
	if (x->wants == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < entries->count; i++) {
		const struct moat_entry *entry = entries->items[i];
		struct want *want = &x->wants[i];

		want->index = i;
		want->stored = entry->size > 0 && (entry->flags & MOAT_HAS_LOCATOR) != 0;
		if (want->stored) {
			want->pack = entry->locator[0];
			want->segment = entry->locator[1];
			want->position = entry->locator[2];
		}
		x->total_bytes += entry->size;
	}
	qsort(x->wants, entries->count, sizeof *x->wants, compare_wants);
	return 0;
}

static void
report(struct extracting *x, uint64_t bytes, uint64_t items)
{
	pthread_mutex_lock(&x->crew.lock);
	x->done_bytes += bytes;
	x->done_items += items;
	x->archive->host->progress(x->done_bytes, x->total_bytes, x->done_items,
				   x->extract->entries->count);
	pthread_mutex_unlock(&x->crew.lock);
}

/* ------------------------------------------------------------------------------------ one file */

/* Data of the segment to its place in the file (fd -1: nowhere). */
static int
copy_extent(struct extracting *x, struct pack_cursor *cursor, struct extent extent, int fd,
	    struct hasher *hasher, struct moat_error *err)
{
	while (extent.size > 0) {
		const uint8_t *data;
		size_t n;

		if (pack_peek(cursor, &data, &n, err) < 0)
			return -1;
		if (n < extent.size && archive_check_cancelled(x->archive, err) < 0)
			return -1;
		n = n < extent.size ? n : (size_t) extent.size;
		hasher_data(hasher, data, n);
		if (fd >= 0 && fs_write_at(fd, data, n, extent.offset, err) < 0)
			return -1;
		pack_skip(cursor, n);
		extent.offset += n;
		extent.size -= n;
	}
	return 0;
}

static int
hash_hole(struct extracting *x, uint64_t size, struct hasher *hasher, struct moat_error *err)
{
	while (size > 0) {
		uint64_t n = size < HOLE_STEP ? size : HOLE_STEP;

		if (archive_check_cancelled(x->archive, err) < 0)
			return -1;
		hasher_zeros(hasher, n);
		size -= n;
	}
	return 0;
}

static int
copy_file(struct extracting *x, struct pack_cursor *cursor, const struct tar_file *file, int fd,
	  struct hasher *hasher, struct moat_error *err)
{
	uint64_t at = 0;

	if (fd >= 0 && file->sparse && ftruncate(fd, (off_t) file->size) < 0)
		return moat_fail_errno(err, "set the size");
	for (size_t i = 0; i < file->map.count; i++) {
		const struct extent *extent = &file->map.items[i];

		if (hash_hole(x, extent->offset - at, hasher, err) < 0 ||
		    copy_extent(x, cursor, *extent, fd, hasher, err) < 0)
			return -1;
		at = extent->offset + extent->size;
	}
	return 0; /* every map reaches the end of the file */
}

/* Finds the member.  Its size must be the manifest's before anything is copied: so a forged header
 * cannot make more of it. */
static int
find_member(struct extracting *x, struct pack_cursor *cursor, const struct want *want,
	    struct tar_file *file, struct moat_error *err)
{
	struct tar_source source = pack_source(cursor);

	if (pack_seek(cursor, x->pack, want->segment, want->position, err) < 0 ||
	    tar_read_file(&source, file, err) < 0)
		return -1;
	if (file->size != x->extract->entries->items[want->index]->size)
		return moat_fail(err, MOAT_CORRUPT, "the content stored has another size");
	return 0;
}

static int
copy_checked(struct extracting *x, struct pack_cursor *cursor, const struct want *want, int fd,
	     uint8_t hash[MOAT_HASH_SIZE], struct moat_error *err)
{
	const struct moat_entry *entry = x->extract->entries->items[want->index];
	AUTO_TAR_FILE struct tar_file file = {0};
	AUTO_HASHER struct hasher hasher = {0};

	if (hasher_begin(&hasher, x->archive->host, err) < 0)
		return -1;
	if (want->stored && x->pack == NULL)
		return moat_fail(err, x->why.code, "%s", x->why.message);
	if (entry->size > 0 && !want->stored)
		return moat_fail(err, MOAT_CORRUPT, "nothing tells where the content is stored");
	if (want->stored && (find_member(x, cursor, want, &file, err) < 0 ||
			     copy_file(x, cursor, &file, fd, &hasher, err) < 0))
		return err->code == MOAT_CORRUPT ? pack_blame(x->archive, want->pack, err) : -1;
	hasher_end(&hasher, hash);
	if ((entry->flags & MOAT_HAS_HASH) == 0 || memcmp(hash, entry->hash, MOAT_HASH_SIZE) == 0)
		return 0;
	moat_fail(err, MOAT_CORRUPT, "the content stored is not that of the manifest");
	return want->stored ? pack_blame(x->archive, want->pack, err) : -1;
}

/* Makes the file and hands it over; what is not complete is removed. */
static int
extract_one(struct extracting *x, struct pack_cursor *cursor, const struct want *want,
	    struct moat_error *err)
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
	if (copy_checked(x, cursor, want, fd, hash, &why) == 0)
		r = extract->done(extract, want->index, fd, entry->size, hash, err);
	else if (why.code == MOAT_CORRUPT)
		r = extract->damaged(extract, want->index, &why, err);
	else if (why.code == MOAT_CANCELLED)
		r = moat_fail(err, why.code, "%s", why.message);
	else
		r = moat_error_set(err, why.code, why.sys_errno, "`%s': %s", entry->path,
				   why.message);
	if (fd >= 0 && (r < 0 || why.code != MOAT_OK))
		(void) unlinkat(dirfd, name, 0);
	return r;
}

/* ------------------------------------------------------------------------------------ one pack */

struct batch {
	size_t from, to;
};

/* What the next thread takes: all that is wanted of one segment. */
static bool
take_batch(struct extracting *x, struct batch *batch)
{
	pthread_mutex_lock(&x->crew.lock);
	batch->from = batch->to = x->next;
	while (!x->crew.stopped && batch->to < x->to) {
		const struct want *first = &x->wants[batch->from], *want = &x->wants[batch->to];

		if (want->segment != first->segment ||
		    (!want->stored && batch->to - batch->from == EMPTY_BATCH))
			break;
		batch->to++;
	}
	x->next = batch->to;
	pthread_mutex_unlock(&x->crew.lock);
	return batch->to > batch->from;
}

static int
cursor_of(struct extracting *x, size_t member, struct pack_cursor **ret, struct moat_error *err)
{
	*ret = &x->cursors[member];
	if ((*ret)->decoder == NULL) {
		/* What a first try left. */
		pack_cursor_destroy(*ret);
		if (pack_cursor_init(*ret, err) < 0)
			return -1;
	}
	(*ret)->seen = x->seen;
	return 0;
}

static int
extract_files(void *context, size_t member, struct moat_error *err)
{
	struct extracting *x = context;
	struct pack_cursor *cursor;
	struct batch batch;

	if (cursor_of(x, member, &cursor, err) < 0)
		return -1;
	while (take_batch(x, &batch)) {
		uint64_t bytes = 0;

		if (archive_check_cancelled(x->archive, err) < 0)
			return -1;
		for (size_t i = batch.from; i < batch.to; i++) {
			if (extract_one(x, cursor, &x->wants[i], err) < 0)
				return -1;
			bytes += x->extract->entries->items[x->wants[i].index]->size;
		}
		report(x, bytes, batch.to - batch.from);
	}
	return 0;
}

/* A large file is one batch, many small ones are many: more threads than batches are idle. */
static size_t
crew_size(const struct extracting *x, size_t from)
{
	size_t batches = 0;

	for (size_t i = from; i < x->to && batches < x->archive->threads; i++)
		batches += i == from || (i - from) % EMPTY_BATCH == 0 ||
			   x->wants[i].segment != x->wants[i - 1].segment;
	return batches == 0 ? 1 : batches;
}

/* One that is damaged is no failure yet: each entry in it is. */
static int
change_pack(struct extracting *x, uint64_t number, struct moat_error *err)
{
	pack_free(x->pack);
	x->pack = NULL;
	for (size_t i = 0; i < CREW_MAX; i++)
		x->cursors[i].pack = NULL; /* the next one may lie at the same address */
	moat_error_clear(&x->why);
	if (pack_open(x->archive, number, &x->pack, &x->why) == 0 || x->why.code == MOAT_CORRUPT)
		return 0;
	return moat_error_set(err, x->why.code, x->why.sys_errno, "%s", x->why.message);
}

/* All wants from `from` on that lie in the same pack, or nowhere. */
static int
extract_pack(struct extracting *x, size_t from, struct moat_error *err)
{
	const struct want *first = &x->wants[from];

	x->next = x->to = from;
	while (x->to < x->extract->entries->count && x->wants[x->to].stored == first->stored &&
	       x->wants[x->to].pack == first->pack)
		x->to++;
	return crew_run(&x->crew, crew_size(x, from), extract_files, x, err);
}

static int
extract_begin(struct extracting *x, void *self, const struct moat_extract *extract,
	      struct moat_error *err)
{
	*x = (struct extracting){.archive = self,
				 .extract = extract,
				 .why = MOAT_ERROR_INIT,
				 .damage = MOAT_ERROR_INIT};
	return crew_init(&x->crew, err) < 0 ? -1 : sort_wants(x, err);
}

static void
extract_end(struct extracting *x)
{
	for (size_t i = 0; i < CREW_MAX; i++)
		pack_cursor_destroy(&x->cursors[i]);
	crew_destroy(&x->crew);
	pack_free(x->pack);
	free(x->wants);
	free(x->seen);
}

int
archive_materialise(void *self, const struct moat_extract *extract, struct moat_error *err)
{
	CLEANUP(extract_end) struct extracting x;

	if (extract_begin(&x, self, extract, err) < 0)
		return -1;
	for (size_t from = 0; from < extract->entries->count; from = x.to) {
		if (x.wants[from].stored && change_pack(&x, x.wants[from].pack, err) < 0)
			return -1;
		if (extract_pack(&x, from, err) < 0)
			return -1;
	}
	return 0;
}

/* -------------------------------------------------------------------------------------- verify */

static void
note_damage(struct extracting *x, uint64_t number, struct moat_error *why)
{
	pack_blame(x->archive, number, why);
	pthread_mutex_lock(&x->crew.lock);
	if (x->damage.code == MOAT_OK)
		x->damage = *why;
	pthread_mutex_unlock(&x->crew.lock);
}

/* The next frame that nothing wanted lies in. */
static bool
take_frame(struct extracting *x, size_t *ret)
{
	pthread_mutex_lock(&x->crew.lock);
	while (x->next_frame < x->pack->frame_count && x->seen[x->next_frame])
		x->next_frame++;
	*ret = x->next_frame;
	if (x->crew.stopped)
		*ret = x->pack->frame_count;
	else if (*ret < x->pack->frame_count)
		x->next_frame++;
	pthread_mutex_unlock(&x->crew.lock);
	return *ret < x->pack->frame_count;
}

/* The tar stream ends in zeros. */
static bool
is_end(const struct pack_cursor *cursor, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (cursor->content[i] != 0)
			return false;
	return size == PACK_END_SIZE;
}

static int
read_rest(void *context, size_t member, struct moat_error *err)
{
	struct extracting *x = context;
	struct pack_cursor *cursor;
	size_t frame;

	if (cursor_of(x, member, &cursor, err) < 0)
		return -1;
	cursor->seen = NULL; /* each is taken once */
	while (take_frame(x, &frame)) {
		struct moat_error why = MOAT_ERROR_INIT;
		const struct frame *about = &x->pack->frames[frame];
		int r = pack_load(cursor, x->pack, frame, &why);

		if (archive_check_cancelled(x->archive, err) < 0)
			return -1;
		if (r == 0 && about->kind == SEGMENT_END && !is_end(cursor, about->content))
			r = moat_fail(&why, MOAT_CORRUPT, "the end of the stream is damaged");
		if (r < 0 && why.code != MOAT_CORRUPT)
			return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
		if (r < 0)
			note_damage(x, x->pack->number, &why);
	}
	return 0;
}

/* What comes last must be there, or the stream is not one. */
static void
check_end(struct extracting *x)
{
	struct moat_error why = MOAT_ERROR_INIT;

	if (x->pack->frames[x->pack->frame_count - 1].kind == SEGMENT_END)
		return;
	moat_fail(&why, MOAT_CORRUPT, "the stream does not end");
	note_damage(x, x->pack->number, &why);
}

static int
check_manifest(struct extracting *x, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_BUF struct buf manifest = {0};
	struct pack_cursor *cursor;

	if (cursor_of(x, 0, &cursor, err) < 0)
		return -1;
	if (pack_read_manifest(cursor, x->pack, &manifest, &why) == 0)
		return 0;
	if (why.code != MOAT_CORRUPT)
		return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
	note_damage(x, x->pack->number, &why);
	return 0;
}

/* The pack with what is wanted of it (from `from` on, if anything is) and with all the rest. */
static int
verify_pack(struct extracting *x, uint64_t number, size_t from, bool own, struct moat_error *err)
{
	bool wanted = from < x->extract->entries->count && x->wants[from].stored &&
		      x->wants[from].pack == number;

	if (change_pack(x, number, err) < 0)
		return -1;
	free(STEAL(x->seen));
	if (x->pack != NULL) {
		x->seen = calloc(x->pack->frame_count, sizeof *x->seen);
		if (x->seen == NULL)
			return moat_fail_memory(err);
	}
	if (wanted && extract_pack(x, from, err) < 0)
		return -1;
	if (x->pack == NULL) {
		/* Whoever has content in it was told. */
		if (!wanted && x->damage.code == MOAT_OK)
			x->damage = x->why;
		return 0;
	}
	x->next_frame = 0;
	check_end(x);
	if (own && check_manifest(x, err) < 0)
		return -1;
	return crew_run(&x->crew, x->pack->frame_count > 1 ? x->archive->threads : 1, read_rest, x,
			err);
}

int
archive_verify(void *self, const struct moat_extract *extract, struct moat_error *err)
{
	CLEANUP(extract_end) struct extracting x;
	bool own_seen = false;
	uint64_t own;

	if (extract_begin(&x, self, extract, err) < 0)
		return -1;
	if (pack_number(extract->ref, &own) < 0)
		return moat_fail(err, MOAT_USAGE, "`%s' is not the name of a snapshot here",
				 extract->ref);
	for (size_t from = 0; from < extract->entries->count; from = x.to) {
		uint64_t number = x.wants[from].pack;

		own_seen = own_seen || (x.wants[from].stored && number == own);
		if ((x.wants[from].stored ? verify_pack(&x, number, from, number == own, err)
					  : extract_pack(&x, from, err)) < 0)
			return -1;
	}
	if (!own_seen && verify_pack(&x, own, extract->entries->count, true, err) < 0)
		return -1;
	if (x.damage.code == MOAT_OK)
		return 0;
	return moat_error_set(err, x.damage.code, x.damage.sys_errno, "%s", x.damage.message);
}
