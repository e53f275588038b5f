/* SPDX-License-Identifier: Apache-2.0 */
/* Decompressing the frames of a pack, from any place of a segment. */
#include <stdlib.h>
#include <string.h>

#include "pack_read.h"

static int
corrupt(struct moat_error *err, const char *what)
{
	return moat_fail(err, MOAT_CORRUPT, "%s", what);
}

int
pack_cursor_init(struct pack_cursor *cursor, struct moat_error *err)
{
	*cursor = (struct pack_cursor){.input_size = LZ4F_compressFrameBound(FRAME_MAX, NULL)};
	cursor->content = malloc(FRAME_MAX);
	cursor->input = malloc(cursor->input_size);
	if (cursor->content == NULL || cursor->input == NULL ||
	    LZ4F_isError(LZ4F_createDecompressionContext(&cursor->decoder, LZ4F_VERSION)))
		return moat_fail_memory(err);
	return 0;
}

void
pack_cursor_destroy(struct pack_cursor *cursor)
{
	(void) LZ4F_freeDecompressionContext(cursor->decoder);
	free(cursor->content);
	free(cursor->input);
	*cursor = (struct pack_cursor){0};
}

int
pack_load(struct pack_cursor *cursor, const struct pack *pack, size_t index, struct moat_error *err)
{
	const struct frame *frame = &pack->frames[index];
	size_t content = FRAME_MAX, packed = frame->packed, hint;
	uint8_t check[PACK_CHECK_SIZE];

	cursor->pack = NULL;
	if (cursor->seen != NULL)
		cursor->seen[index] = true;
	if (pack_read_at(pack, frame->offset, cursor->input, packed, err) < 0)
		return -1;
	if (archive_check(pack->archive, cursor->input, packed, check, err) < 0)
		return -1;
	if (memcmp(check, frame->check, sizeof check) != 0)
		return corrupt(err, "a frame is damaged");
	LZ4F_resetDecompressionContext(cursor->decoder);
	hint = LZ4F_decompress(cursor->decoder, cursor->content, &content, cursor->input, &packed,
			       NULL);
	if (LZ4F_isError(hint))
		return moat_fail(err, MOAT_CORRUPT, "a frame is damaged (%s)",
				 LZ4F_getErrorName(hint));
	if (hint != 0 || content != frame->content || packed != frame->packed)
		return corrupt(err, "a frame has not the size that the index says");
	return 0;
}

static int
load(struct pack_cursor *cursor, const struct pack *pack, const struct segment *segment,
     size_t frame, uint64_t start, struct moat_error *err)
{
	if (cursor->pack != pack || cursor->frame != frame) {
		if (pack_load(cursor, pack, frame, err) < 0)
			return -1;
		cursor->pack = pack;
		cursor->frame = frame;
	}
	cursor->segment = segment;
	cursor->start = start;
	return 0;
}

int
pack_seek(struct pack_cursor *cursor, const struct pack *pack, uint64_t number, uint64_t position,
	  struct moat_error *err)
{
	const struct segment *segment = pack_segment(pack, number);
	uint64_t start = 0;
	size_t frame;

	if (segment == NULL || position >= segment->content) {
		cursor->pack = NULL;
		return corrupt(err, "it lacks the place where the content should be");
	}
	for (frame = segment->first; position - start >= pack->frames[frame].content; frame++)
		start += pack->frames[frame].content;
	if (load(cursor, pack, segment, frame, start, err) < 0)
		return -1;
	cursor->at = (size_t) (position - start);
	return 0;
}

int
pack_peek(struct pack_cursor *cursor, const uint8_t **ret, size_t *ret_size, struct moat_error *err)
{
	const struct pack *pack = cursor->pack;

	if (pack == NULL)
		return corrupt(err, "it is not at a place that can be read");
	if (cursor->at == pack->frames[cursor->frame].content) {
		if (cursor->frame + 1 == cursor->segment->first + cursor->segment->count)
			return corrupt(err, "it ends within the content");
		if (load(cursor, pack, cursor->segment, cursor->frame + 1,
			 cursor->start + cursor->at, err) < 0)
			return -1;
		cursor->at = 0;
	}
	*ret = cursor->content + cursor->at;
	*ret_size = pack->frames[cursor->frame].content - cursor->at;
	return 0;
}

void
pack_skip(struct pack_cursor *cursor, size_t size)
{
	cursor->at += size;
}

static int
read_all(void *context, void *data, size_t size, struct moat_error *err)
{
	struct pack_cursor *cursor = context;
	uint8_t *to = data;

	while (size > 0) {
		const uint8_t *from;
		size_t n;

		if (pack_peek(cursor, &from, &n, err) < 0)
			return -1;
		n = n < size ? n : size;
		memcpy(to, from, n);
		pack_skip(cursor, n);
		to += n;
		size -= n;
	}
	return 0;
}

struct tar_source
pack_source(struct pack_cursor *cursor)
{
	return (struct tar_source){read_all, cursor};
}

int
pack_read_manifest(struct pack_cursor *cursor, const struct pack *pack, struct buf *out,
		   struct moat_error *err)
{
	const struct segment *segment = pack_manifest(pack);
	struct tar_source source = pack_source(cursor);
	AUTO_TAR_FILE struct tar_file file = {0};
	uint64_t end;

	if (segment == NULL)
		return corrupt(err, "it has no copy of the manifest");
	if (pack_seek(cursor, pack, segment->number, 0, err) < 0 ||
	    tar_read_file(&source, &file, err) < 0)
		return -1;
	end = cursor->start + cursor->at;
	if (file.sparse || file.size > segment->content ||
	    end + file.size + tar_padding(file.size) != segment->content)
		return corrupt(err, "its copy of the manifest has a wrong size");
	while (out->size < file.size) {
		const uint8_t *data;
		size_t n;

		if (pack_peek(cursor, &data, &n, err) < 0)
			return -1;
		n = n < file.size - out->size ? n : (size_t) (file.size - out->size);
		buf_append(out, data, n);
		if (buf_check(out, err) < 0)
			return -1;
		pack_skip(cursor, n);
	}
	return 0;
}
