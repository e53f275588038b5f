/* SPDX-License-Identifier: Apache-2.0 */
/* Removal: the packs of removed snapshots, which are called orphans, go, or lose what nobody needs.
 *
 * Every pack that goes or shrinks is an orphan first, and shrinks by being replaced: after a crash
 * at any point each pack is there, or as a whole no longer needed, and the next removal finishes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "pack_read.h"
#include "pack_write.h"
#include "store.h"

/* The part of a file that must be won for it to be written anew: one of so many. */
#define WORTH_PART 8

struct orphan {
	uint64_t number;
	struct pack *pack; /* NULL: it cannot be read, and is kept or dropped as a whole */
	bool *segments;    /* by place in pack->segments: somebody needs it */
	bool content;      /* somebody needs something of it */
	bool manifest;     /* somebody needs its manifest */
	bool whole;        /* somebody needs what cannot be found in it: it is left alone */
};

struct removing {
	const struct archive *archive;
	struct orphan *items; /* by number */
	size_t count, allocated;
	size_t last; /* the one that was asked for last */
};

static int
add_orphan(void *context, uint64_t number, struct moat_error *err)
{
	struct removing *r = context;

	if (r->count == r->allocated) {
		size_t allocated = r->allocated == 0 ? 16 : 2 * r->allocated;
		struct orphan *items = realloc(r->items, allocated * sizeof *items);

		if (items == NULL)
			return moat_fail_memory(err);
		r->items = items;
		r->allocated = allocated;
	}
	r->items[r->count++] = (struct orphan){.number = number};
	return 0;
}

static int
compare_orphans(const void *a, const void *b)
{
	const struct orphan *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

static struct orphan *
find_orphan(struct removing *r, uint64_t number)
{
	struct orphan key = {.number = number}, *found;

	if (r->last < r->count && r->items[r->last].number == number)
		return &r->items[r->last];
	found = bsearch(&key, r->items, r->count, sizeof key, compare_orphans);
	if (found != NULL)
		r->last = (size_t) (found - r->items);
	return found;
}

/* The first time that something in it is needed: what is there is looked up.  The descriptor is not
 * kept, as there may be many. */
static int
look_into(const struct archive *archive, struct orphan *orphan, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;

	if (pack_open(archive, orphan->number, &orphan->pack, &why) < 0) {
		orphan->whole = true;
		return why.code == MOAT_NO_MEMORY ? moat_fail_memory(err) : 0;
	}
	(void) close(steal_fd(&orphan->pack->fd));
	orphan->segments = calloc(orphan->pack->segment_count, sizeof *orphan->segments);
	return orphan->segments == NULL ? moat_fail_memory(err) : 0;
}

static int
mark_needed(void *context, const struct moat_entry *entry, struct moat_error *err)
{
	struct removing *r = context;
	struct orphan *orphan;
	const struct segment *segment;

	if ((entry->flags & MOAT_HAS_LOCATOR) == 0 || entry->size == 0)
		return 0;
	orphan = find_orphan(r, entry->locator[0]);
	if (orphan == NULL)
		return 0;
	if (!orphan->content && !orphan->manifest && look_into(r->archive, orphan, err) < 0)
		return -1;
	orphan->content = true;
	segment = orphan->pack == NULL ? NULL : pack_segment(orphan->pack, entry->locator[1]);
	if (segment != NULL)
		orphan->segments[segment - orphan->pack->segments] = true;
	else
		orphan->whole = true;
	return 0;
}

static int
mark_manifests(struct removing *r, const char *const *refs, struct moat_error *err)
{
	for (; refs != NULL && *refs != NULL; refs++) {
		struct orphan *orphan;
		uint64_t number;

		if (pack_number(*refs, &number) < 0 || (orphan = find_orphan(r, number)) == NULL ||
		    orphan->manifest)
			continue;
		if (look_into(r->archive, orphan, err) < 0)
			return -1;
		orphan->manifest = true;
	}
	return 0;
}

/* Structure stays as long as there is content, for whoever extracts the packs with stock tools. */
static bool
is_kept(const struct orphan *orphan, const struct segment *segment)
{
	switch (segment->kind) {
	case SEGMENT_STRUCTURE:
		return orphan->content;
	case SEGMENT_MANIFEST:
		return orphan->manifest;
	case SEGMENT_END:
		return true;
	default:
		return orphan->segments[segment - orphan->pack->segments];
	}
}

static int
copy_frames(struct pack_writer *writer, const struct orphan *orphan, struct moat_error *err)
{
	const struct pack *pack = orphan->pack;
	size_t room = LZ4F_compressFrameBound(FRAME_MAX, NULL);
	AUTO_FREE uint8_t *data = malloc(room);

	if (data == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < pack->frame_count; i++) {
		struct frame frame = pack->frames[i];

		if (!is_kept(orphan, pack_segment(pack, frame.segment)))
			continue;
		if (archive_check_cancelled(pack->archive, err) < 0 ||
		    pack_read_at(pack, frame.offset, data, frame.packed, err) < 0 ||
		    pack_writer_reserve(writer, &frame, err) < 0 ||
		    pack_writer_put(writer, &frame, data, err) < 0)
			return -1;
	}
	return 0;
}

/* Writes the pack anew with what is kept.  Frames are copied as they are, so what was damaged stays
 * known as such, and what was sound stays so. */
static int
compact(const struct archive *archive, struct orphan *orphan, struct moat_error *err)
{
	AUTO_PACK_WRITER struct pack_writer *writer = NULL;
	uint64_t size;

	orphan->pack->fd = store_open_pack(archive, orphan->number, err);
	if (orphan->pack->fd < 0 ||
	    pack_writer_open(archive, orphan->number, PACK_ORPHAN, &writer, err) < 0 ||
	    copy_frames(writer, orphan, err) < 0)
		return -1;
	return pack_writer_finish(writer, &size, err);
}

static bool
is_worth_it(const struct orphan *orphan)
{
	uint64_t won = 0;

	if (orphan->whole)
		return false;
	for (size_t i = 0; i < orphan->pack->segment_count; i++)
		if (!is_kept(orphan, &orphan->pack->segments[i]))
			won += orphan->pack->segments[i].packed;
	return won > 0 && won >= orphan->pack->size / WORTH_PART;
}

/* A full disk is no reason to fail: the snapshot is gone, only the space comes later. */
static int
compact_if_worth(const struct archive *archive, struct orphan *orphan, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	int r;

	if (!is_worth_it(orphan))
		return 0;
	r = compact(archive, orphan, &why);
	if (orphan->pack->fd >= 0)
		(void) close(steal_fd(&orphan->pack->fd));
	if (r == 0)
		return 0;
	if (why.code != MOAT_NO_SPACE && why.code != MOAT_CORRUPT)
		return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
	archive_log(archive, MOAT_LOG_WARNING,
		    "a pack that is needed only in part could not be made smaller, the next "
		    "removal tries again: %s",
		    why.message);
	return 0;
}

/* First what goes as a whole: it makes room for the rest. */
static int
reclaim(struct removing *r, struct moat_error *err)
{
	for (size_t i = 0; i < r->count; i++)
		if (!r->items[i].content && !r->items[i].manifest &&
		    store_remove(r->archive, r->items[i].number, PACK_ORPHAN, err) < 0)
			return -1;
	for (size_t i = 0; i < r->count; i++)
		if ((r->items[i].content || r->items[i].manifest) &&
		    compact_if_worth(r->archive, &r->items[i], err) < 0)
			return -1;
	return 0;
}

static int
remove_unneeded(struct removing *r, const struct moat_live *live, struct moat_error *err)
{
	const char *const *manifests =
		MOAT_HAS(struct moat_live, live, manifests) ? live->manifests : NULL;

	if (store_each(r->archive, PACK_ORPHAN, add_orphan, r, err) < 0)
		return -1;
	if (r->count == 0)
		return 0;
	qsort(r->items, r->count, sizeof *r->items, compare_orphans);
	if (mark_manifests(r, manifests, err) < 0 || live->each(live, mark_needed, r, err) < 0)
		return -1;
	return reclaim(r, err);
}

int
archive_remove(void *self, const char *ref, const struct moat_live *live, struct moat_error *err)
{
	const struct archive *archive = self;
	char from[PACK_NAME_MAX], to[PACK_NAME_MAX];
	struct removing removing = {.archive = archive};
	uint64_t number;
	int r;

	if (pack_number(ref, &number) < 0)
		return moat_fail(err, MOAT_USAGE, "`%s' is not the name of a snapshot here", ref);
	if (store_sweep(archive, err) < 0)
		return -1;
	if (renameat(archive->dirfd, pack_name(from, number, PACK_LIVE), archive->dirfd,
		     pack_name(to, number, PACK_ORPHAN)) < 0 &&
	    errno != ENOENT)
		return moat_fail_errno(err, "rename `%s/%s'", archive->path, from);
	r = remove_unneeded(&removing, live, err);
	for (size_t i = 0; i < removing.count; i++) {
		pack_free(removing.items[i].pack);
		free(removing.items[i].segments);
	}
	free(removing.items);
	return r < 0 ? -1 : fs_sync(archive->dirfd, archive->path, err);
}
