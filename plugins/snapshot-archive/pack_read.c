/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a pack.  Nothing in the file is believed: sizes are held against the file's own and
 * against FRAME_MAX before anything is allocated or read by them. */
#include "pack_read.h"

#include <errno.h>
#include <lz4frame.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pack.h"
#include "store.h"

/* More frames than this are not an index: it would be of a pack of 16 TiB. */
#define FRAMES_MAX ((uint64_t) 1 << 24)

struct frame {
	uint64_t offset, start;   /* in the file; in the tar stream */
	uint32_t packed, content; /* bytes there */
};

struct pack_reader {
	const struct archive *archive;
	int fd;
	uint64_t size; /* of the file */
	LZ4F_dctx *decoder;
	struct frame *frames;
	size_t count, allocated;
	uint64_t manifest;
	size_t current;           /* frame that `content` holds; count: none */
	size_t at;                /* in content */
	uint8_t *content, *input; /* FRAME_MAX; input_size */
	size_t input_size;
};

static int
corrupt(struct moat_error *err, const char *what)
{
	return moat_fail(err, MOAT_CORRUPT, "%s", what);
}

static int
read_at(const struct pack_reader *reader, uint64_t offset, void *data, size_t size,
	struct moat_error *err)
{
	uint8_t *to = data;

	if (offset > reader->size || size > reader->size - offset)
		return corrupt(err, "it is truncated");
	while (size > 0) {
		ssize_t n = pread(reader->fd, to, size, (off_t) offset);

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

/* Adds the frame that follows those known. */
static int
add_frame(struct pack_reader *reader, uint32_t packed, uint32_t content, struct moat_error *err)
{
	const struct frame *last = reader->count == 0 ? NULL : &reader->frames[reader->count - 1];
	struct frame frame = {.packed = packed, .content = content};

	if (content == 0 || content > FRAME_MAX || packed > reader->input_size)
		return corrupt(err, "a frame has an absurd size");
	if (last != NULL) {
		frame.offset = last->offset + last->packed;
		frame.start = last->start + last->content;
	}
	if (reader->count == reader->allocated) {
		size_t allocated = reader->allocated == 0 ? 64 : 2 * reader->allocated;
		struct frame *frames = realloc(reader->frames, allocated * sizeof *frames);

		if (frames == NULL)
			return moat_fail_memory(err);
		reader->frames = frames;
		reader->allocated = allocated;
	}
	reader->frames[reader->count++] = frame;
	return 0;
}

/* Reads the end of the file: where the index begins, and how many frames it is about. */
static int
read_footer(struct pack_reader *reader, uint8_t footer[PACK_FOOTER_SIZE], uint64_t *ret_offset,
	    uint64_t *ret_count, struct moat_error *err)
{
	uint64_t room, count;

	if (reader->size < PACK_FOOTER_SIZE + 8)
		return corrupt(err, "it is truncated, or has lost its index");
	room = reader->size - PACK_FOOTER_SIZE - 8;
	if (read_at(reader, reader->size - PACK_FOOTER_SIZE, footer, PACK_FOOTER_SIZE, err) < 0)
		return -1;
	count = get_u64(footer + 8);
	if (memcmp(footer + PACK_FOOTER_SIZE - 8, PACK_MAGIC, 8) != 0 || count > FRAMES_MAX ||
	    8 * count > room)
		return corrupt(err, "it is truncated, or has lost its index");
	*ret_offset = room - 8 * count;
	*ret_count = count;
	return 0;
}

static int
check_index(const struct pack_reader *reader, const uint8_t *index, size_t size,
	    struct moat_error *err)
{
	size_t hashed = size - MOAT_HASH_SIZE - 8;
	AUTO_HASHER struct hasher hasher = {0};
	uint8_t hash[MOAT_HASH_SIZE];

	if (hasher_begin(&hasher, reader->archive->host, err) < 0)
		return -1;
	hasher_data(&hasher, index, hashed);
	hasher_end(&hasher, hash);
	if (get_u32(index) != PACK_INDEX_MAGIC || get_u32(index + 4) != size - 8 ||
	    memcmp(hash, index + hashed, sizeof hash) != 0)
		return corrupt(err, "its index is damaged");
	return 0;
}

static int
read_index(struct pack_reader *reader, struct moat_error *err)
{
	uint8_t footer[PACK_FOOTER_SIZE];
	AUTO_FREE uint8_t *index = NULL;
	uint64_t offset = 0, count = 0;
	size_t size;

	if (read_footer(reader, footer, &offset, &count, err) < 0)
		return -1;
	size = (size_t) (reader->size - offset);
	index = malloc(size);
	if (index == NULL)
		return moat_fail_memory(err);
	if (read_at(reader, offset, index, size, err) < 0 ||
	    check_index(reader, index, size, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		const uint8_t *item = index + 8 + 8 * i;

		if (add_frame(reader, get_u32(item), get_u32(item + 4), err) < 0)
			return -1;
	}
	reader->manifest = get_u64(footer);
	return 0;
}

static int
prepare(struct pack_reader *reader, uint64_t number, struct moat_error *err)
{
	struct stat st;
	char name[PACK_NAME_MAX];

	reader->fd = store_open_pack(reader->archive, number, err);
	if (reader->fd < 0)
		return -1;
	(void) pack_name(name, number, PACK_LIVE);
	if (fstat(reader->fd, &st) < 0)
		return moat_fail_errno(err, "stat `%s/%s'", reader->archive->path, name);
	if (!S_ISREG(st.st_mode))
		return moat_fail(err, MOAT_CORRUPT, "`%s/%s' is not a regular file",
				 reader->archive->path, name);
	reader->size = (uint64_t) st.st_size;
	reader->input_size = LZ4F_compressFrameBound(FRAME_MAX, NULL);
	reader->content = malloc(FRAME_MAX);
	reader->input = malloc(reader->input_size);
	if (reader->content == NULL || reader->input == NULL ||
	    LZ4F_isError(LZ4F_createDecompressionContext(&reader->decoder, LZ4F_VERSION)))
		return moat_fail_memory(err);
	/* Without it the frames could still be found; but a pack that lost its end, or was tampered
	 * with, is not to be trusted in the middle.  `lz4 -dc PACK | tar -x` still gets at the
	 * rest. */
	if (read_index(reader, err) < 0)
		return moat_wrap(err, "`%s/%s'", reader->archive->path, name);
	reader->current = reader->count;
	return 0;
}

int
pack_reader_open(const struct archive *archive, uint64_t number, struct pack_reader **ret,
		 struct moat_error *err)
{
	AUTO_PACK_READER struct pack_reader *reader = calloc(1, sizeof *reader);

	if (reader == NULL)
		return moat_fail_memory(err);
	reader->archive = archive;
	reader->fd = -1;
	if (prepare(reader, number, err) < 0)
		return -1;
	*ret = STEAL(reader);
	return 0;
}

void
pack_reader_free(struct pack_reader *reader)
{
	if (reader == NULL)
		return;
	if (reader->fd >= 0)
		(void) close(reader->fd);
	(void) LZ4F_freeDecompressionContext(reader->decoder);
	free(reader->frames);
	free(reader->content);
	free(reader->input);
	free(reader);
}

void
cleanup_pack_reader(struct pack_reader **reader)
{
	pack_reader_free(*reader);
}

uint64_t
pack_file_size(const struct pack_reader *reader)
{
	return reader->size;
}

uint64_t
pack_manifest(const struct pack_reader *reader)
{
	return reader->manifest;
}

static int
load_frame(struct pack_reader *reader, size_t index, struct moat_error *err)
{
	const struct frame *frame = &reader->frames[index];
	size_t content = frame->content, packed = frame->packed, hint;

	reader->current = reader->count;
	if (read_at(reader, frame->offset, reader->input, packed, err) < 0)
		return -1;
	if (packed < 4 || get_u32(reader->input) != PACK_FRAME_MAGIC)
		return corrupt(err, "a frame is not one of LZ4");
	LZ4F_resetDecompressionContext(reader->decoder);
	hint = LZ4F_decompress(reader->decoder, reader->content, &content, reader->input, &packed,
			       NULL);
	if (LZ4F_isError(hint))
		return moat_fail(err, MOAT_CORRUPT, "a frame is damaged (%s)",
				 LZ4F_getErrorName(hint));
	if (hint != 0 || content != frame->content || packed != frame->packed)
		return corrupt(err, "a frame has not the size that the index says");
	reader->current = index;
	reader->at = 0;
	return 0;
}

static int
compare_frame(const void *key, const void *item)
{
	const uint64_t position = *(const uint64_t *) key;
	const struct frame *frame = item;

	if (position < frame->start)
		return -1;
	return position - frame->start >= frame->content;
}

int
pack_seek(struct pack_reader *reader, uint64_t position, struct moat_error *err)
{
	const struct frame *frame = reader->count == 0
					    ? NULL
					    : bsearch(&position, reader->frames, reader->count,
						      sizeof *reader->frames, compare_frame);

	if (frame == NULL)
		return corrupt(err, "it ends before the place where the content should be");
	if ((size_t) (frame - reader->frames) != reader->current &&
	    load_frame(reader, (size_t) (frame - reader->frames), err) < 0)
		return -1;
	reader->at = (size_t) (position - frame->start);
	return 0;
}

int
pack_peek(struct pack_reader *reader, const uint8_t **ret, size_t *ret_size, struct moat_error *err)
{
	if (reader->current == reader->count)
		return corrupt(err, "it is not at a place that can be read");
	if (reader->at == reader->frames[reader->current].content) {
		if (reader->current + 1 == reader->count)
			return corrupt(err, "it ends within the content");
		if (load_frame(reader, reader->current + 1, err) < 0)
			return -1;
	}
	*ret = reader->content + reader->at;
	*ret_size = reader->frames[reader->current].content - reader->at;
	return 0;
}

void
pack_skip(struct pack_reader *reader, size_t size)
{
	reader->at += size;
}

static int
read_all(void *context, void *data, size_t size, struct moat_error *err)
{
	struct pack_reader *reader = context;
	uint8_t *to = data;

	while (size > 0) {
		const uint8_t *from;
		size_t n;

		if (pack_peek(reader, &from, &n, err) < 0)
			return -1;
		n = n < size ? n : size;
		memcpy(to, from, n);
		pack_skip(reader, n);
		to += n;
		size -= n;
	}
	return 0;
}

struct tar_source
pack_source(struct pack_reader *reader)
{
	return (struct tar_source){read_all, reader};
}
