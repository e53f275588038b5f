/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a pack: its index.  Nothing in the file is believed: sizes are held against the file's
 * own and against FRAME_MAX before anything is allocated or read by them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pack_read.h"
#include "store.h"

/* More frames than this are not an index: it would be of a pack of 16 TiB. */
#define FRAMES_MAX ((uint64_t) 1 << 24)

static int
corrupt(struct moat_error *err, const char *what)
{
	return moat_fail(err, MOAT_CORRUPT, "%s", what);
}

int
pack_blame(const struct archive *archive, uint64_t number, struct moat_error *err)
{
	char name[PACK_NAME_MAX];

	return moat_wrap(err, "`%s/%s'", archive->path, pack_name(name, number, PACK_LIVE));
}

int
pack_read_at(const struct pack *pack, uint64_t offset, void *data, size_t size,
	     struct moat_error *err)
{
	uint8_t *to = data;

	if (offset > pack->size || size > pack->size - offset)
		return corrupt(err, "it is truncated");
	while (size > 0) {
		ssize_t n = pread(pack->fd, to, size, (off_t) offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail(err, MOAT_CORRUPT, "it cannot be read: %s",
					 strerror(errno));
		if (n == 0)
			return corrupt(err, "it is truncated");
		to += n;
		offset += (uint64_t) n;
		size -= (size_t) n;
	}
	return 0;
}

/* Reads the end of the file: where the index begins, and how many frames it is about. */
static int
read_footer(const struct pack *pack, uint64_t *ret_offset, uint64_t *ret_count,
	    struct moat_error *err)
{
	uint8_t footer[PACK_FOOTER_SIZE];
	uint64_t room, count;

	if (pack->size < PACK_FOOTER_SIZE + 8)
		return corrupt(err, "it is truncated, or has lost its index");
	room = pack->size - PACK_FOOTER_SIZE - 8;
	if (pack_read_at(pack, pack->size - PACK_FOOTER_SIZE, footer, PACK_FOOTER_SIZE, err) < 0)
		return -1;
	count = get_u64(footer);
	if (memcmp(footer + PACK_FOOTER_SIZE - 8, PACK_MAGIC, 8) != 0 || count == 0 ||
	    count > FRAMES_MAX || PACK_ITEM_SIZE * count > room)
		return corrupt(err, "it is truncated, or has lost its index");
	*ret_offset = room - PACK_ITEM_SIZE * count;
	*ret_count = count;
	return 0;
}

static int
check_index(const struct pack *pack, const uint8_t *index, size_t size, struct moat_error *err)
{
	size_t hashed = size - MOAT_HASH_SIZE - 8;
	AUTO_HASHER struct hasher hasher = {0};
	uint8_t hash[MOAT_HASH_SIZE];

	if (hasher_begin(&hasher, pack->archive->host, err) < 0)
		return -1;
	hasher_data(&hasher, index, hashed);
	hasher_end(&hasher, hash);
	if (get_u32(index) != PACK_INDEX_MAGIC || get_u32(index + 4) != size - 8 ||
	    memcmp(hash, index + hashed, sizeof hash) != 0)
		return corrupt(err, "its index is damaged");
	return 0;
}

/* Takes in the frames: one after the other without a gap, up to where the index begins. */
static int
take_frames(struct pack *pack, const uint8_t *items, size_t count, uint64_t end,
	    struct moat_error *err)
{
	size_t packed_max = LZ4F_compressFrameBound(FRAME_MAX, NULL);
	uint64_t offset = 0;

	pack->frames = calloc(count, sizeof *pack->frames);
	if (pack->frames == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < count; i++, items += PACK_ITEM_SIZE) {
		struct frame frame = {offset,
				      get_u32(items),
				      get_u32(items + 4),
				      get_u32(items + 8),
				      get_u32(items + 12),
				      {0}};

		memcpy(frame.check, items + 16, sizeof frame.check);

		if (frame.content == 0 || frame.content > FRAME_MAX || frame.packed > packed_max ||
		    frame.packed > end - offset || frame.kind > SEGMENT_END)
			return corrupt(err, "a frame has an absurd size or kind");
		offset += frame.packed;
		pack->frames[pack->frame_count++] = frame;
	}
	return offset == end ? 0 : corrupt(err, "the index does not follow the frames");
}

static int
compare_segments(const void *a, const void *b)
{
	const struct segment *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

/* Each number belongs to one run of frames of one kind. */
static int
take_segments(struct pack *pack, struct moat_error *err)
{
	struct segment *segment = NULL;

	pack->segments = calloc(pack->frame_count, sizeof *pack->segments);
	if (pack->segments == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < pack->frame_count; i++) {
		const struct frame *frame = &pack->frames[i];

		if (segment == NULL || segment->number != frame->segment) {
			segment = &pack->segments[pack->segment_count++];
			*segment = (struct segment){frame->segment, frame->kind, i, 0, 0, 0};
		}
		if (segment->kind != frame->kind)
			return corrupt(err, "a segment is of two kinds");
		segment->count++;
		segment->packed += frame->packed;
		segment->content += frame->content;
	}
	qsort(pack->segments, pack->segment_count, sizeof *pack->segments, compare_segments);
	for (size_t i = 1; i < pack->segment_count; i++)
		if (pack->segments[i - 1].number == pack->segments[i].number)
			return corrupt(err, "a segment is in two places");
	return 0;
}

static int
read_index(struct pack *pack, struct moat_error *err)
{
	AUTO_FREE uint8_t *index = NULL;
	uint64_t offset = 0, count = 0;
	size_t size;

	if (read_footer(pack, &offset, &count, err) < 0)
		return -1;
	size = (size_t) (pack->size - offset);
	index = malloc(size);
	if (index == NULL)
		return moat_fail_memory(err);
	if (pack_read_at(pack, offset, index, size, err) < 0 ||
	    check_index(pack, index, size, err) < 0 ||
	    take_frames(pack, index + 8, (size_t) count, offset, err) < 0)
		return -1;
	return take_segments(pack, err);
}

static int
prepare(struct pack *pack, struct moat_error *err)
{
	struct stat st;

	pack->fd = store_open_pack(pack->archive, pack->number, err);
	if (pack->fd < 0)
		return -1;
	if (fstat(pack->fd, &st) < 0) {
		moat_fail_errno(err, "look at it");
		return pack_blame(pack->archive, pack->number, err);
	}
	pack->size = (uint64_t) st.st_size;
	/* Without the index the frames could still be found; but a pack that lost its end, or was
	 * tampered with, is not to be trusted in the middle.  `lz4 -dc PACK | tar -x` still gets at
	 * the rest. */
	if (!S_ISREG(st.st_mode))
		corrupt(err, "it is not a regular file");
	else if (read_index(pack, err) == 0)
		return 0;
	return pack_blame(pack->archive, pack->number, err);
}

int
pack_open(const struct archive *archive, uint64_t number, struct pack **ret, struct moat_error *err)
{
	AUTO_PACK struct pack *pack = calloc(1, sizeof *pack);

	if (pack == NULL)
		return moat_fail_memory(err);
	pack->archive = archive;
	pack->number = number;
	pack->fd = -1;
	if (prepare(pack, err) < 0)
		return -1;
	*ret = STEAL(pack);
	return 0;
}

void
pack_free(struct pack *pack)
{
	if (pack == NULL)
		return;
	if (pack->fd >= 0)
		(void) close(pack->fd);
	free(pack->frames);
	free(pack->segments);
	free(pack);
}

void
cleanup_pack(struct pack **pack)
{
	pack_free(*pack);
}

const struct segment *
pack_segment(const struct pack *pack, uint64_t number)
{
	struct segment key = {.number = (uint32_t) number};

	if (number > UINT32_MAX)
		return NULL;
	return bsearch(&key, pack->segments, pack->segment_count, sizeof key, compare_segments);
}

const struct segment *
pack_manifest(const struct pack *pack)
{
	for (size_t i = 0; i < pack->segment_count; i++)
		if (pack->segments[i].kind == SEGMENT_MANIFEST)
			return &pack->segments[i];
	return NULL;
}
