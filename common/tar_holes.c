/* SPDX-License-Identifier: Apache-2.0 */
/* The maps of sparse files: GNU's old format, and 0.0, 0.1 and 1.0 of its pax formats ("GNU tar
 * manual, Storing Sparse Files"). */
#include <string.h>

#include "common/tar_stream_internal.h"

/* Extents ascend, keep apart, lie in the file, and are together what the archive holds. */
static int
check_map(struct tar_stream *stream, uint64_t size, uint64_t data, struct moat_error *err)
{
	uint64_t end = 0, sum = 0;

	for (size_t i = 0; i < stream->map.count; i++) {
		const struct extent *extent = &stream->map.items[i];

		if (extent->offset < end)
			return tar_bad(stream, err, "its map of holes is not in order");
		if (extent->size > size || extent->offset > size - extent->size)
			return tar_bad(stream, err, "its map of holes reaches beyond its end");
		end = extent->offset + extent->size;
		sum += extent->size;
	}
	if (sum != data)
		return tar_bad(stream, err,
			       "its map of holes is for %llu bytes of data, and there are %llu",
			       (unsigned long long) sum, (unsigned long long) data);
	stream->entry.size = size;
	return 0;
}

static int
add_extent(struct tar_stream *stream, struct sparse_map *map, uint64_t offset, uint64_t size,
	   struct moat_error *err)
{
	if (map->count >= TAR_EXTENTS_MAX)
		return tar_beyond(stream, err, "it has more than %zu pieces between holes",
				  TAR_EXTENTS_MAX);
	return sparse_map_add(map, offset, size, err);
}

/* ------------------------------------------------------------------------------- the old format */

/* *done: an empty entry ended the list, and nothing may follow. */
static int
take_old(struct tar_stream *stream, const struct tar_gnu_sparse *list, size_t count, bool *done,
	 struct moat_error *err)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t offset, size;

		if (tar_field_is_blank(list[i].offset, sizeof list[i].offset) &&
		    tar_field_is_blank(list[i].size, sizeof list[i].size)) {
			*done = true;
			continue;
		}
		if (*done)
			return tar_bad(stream, err, "its map of holes goes on after its end");
		if (tar_field(list[i].offset, sizeof list[i].offset, &offset) != NULL ||
		    tar_field(list[i].size, sizeof list[i].size, &size) != NULL)
			return tar_bad(stream, err,
				       "its map of holes has no number where one is due");
		if (add_extent(stream, &stream->map, offset, size, err) < 0)
			return -1;
	}
	return 0;
}

static int
check_flag(const struct tar_stream *stream, char flag, struct moat_error *err)
{
	if (flag == '\0' || flag == '0' || flag == 1 || flag == '1')
		return 0;
	return tar_bad(stream, err, "its map of holes does not say whether it goes on");
}

static bool
goes_on(char flag)
{
	return flag == 1 || flag == '1';
}

int
tar_holes_old(struct tar_stream *stream, const struct tar_block *block, struct moat_error *err)
{
	struct tar_gnu_block gnu;
	uint64_t real_size;
	bool done = false;
	char flag;

	memcpy(&gnu, block, sizeof gnu);
	if (tar_field(gnu.real_size, sizeof gnu.real_size, &real_size) != NULL)
		return tar_bad(stream, err, "the size of the sparse file is no number");
	if (take_old(stream, gnu.sparse, 4, &done, err) < 0)
		return -1;
	for (flag = gnu.is_extended; goes_on(flag);) {
		struct tar_gnu_more more;

		if (tar_take(stream, &more, sizeof more, err) < 0 ||
		    take_old(stream, more.sparse, 21, &done, err) < 0)
			return -1;
		flag = more.is_extended;
	}
	if (check_flag(stream, flag, err) < 0)
		return -1;
	return check_map(stream, real_size, stream->left, err);
}

/* ------------------------------------------------------------------------------------ pax formats
 */

/* Decimal numbers, each with its newline, in blocks before the data. */
struct number_reader {
	struct tar_stream *stream;
	char block[TAR_BLOCK];
	size_t at;
};

static int
next_number(struct number_reader *reader, uint64_t *ret, struct moat_error *err)
{
	struct tar_stream *stream = reader->stream;
	char text[24];
	size_t n = 0;

	for (;;) {
		if (reader->at == TAR_BLOCK) {
			if (stream->left < TAR_BLOCK)
				return tar_bad(stream, err, "its map of holes is cut off");
			if (tar_take(stream, reader->block, TAR_BLOCK, err) < 0)
				return -1;
			stream->left -= TAR_BLOCK;
			reader->at = 0;
		}
		if (reader->block[reader->at] == '\n')
			break;
		if (n == sizeof text)
			return tar_bad(stream, err, "a number of its map of holes is too long");
		text[n++] = reader->block[reader->at++];
	}
	reader->at++;
	if (tar_decimal(text, n, ret) != NULL)
		return tar_bad(stream, err, "its map of holes has no number where one is due");
	return 0;
}

static int
take_map_1_0(struct tar_stream *stream, struct moat_error *err)
{
	struct number_reader reader = {.stream = stream, .at = TAR_BLOCK};
	uint64_t count, offset, size;

	if (next_number(&reader, &count, err) < 0)
		return -1;
	for (uint64_t i = 0; i < count; i++)
		if (next_number(&reader, &offset, err) < 0 ||
		    next_number(&reader, &size, err) < 0 ||
		    add_extent(stream, &stream->map, offset, size, err) < 0)
			return -1;
	for (; reader.at < TAR_BLOCK; reader.at++)
		if (reader.block[reader.at] != '\0')
			return tar_bad(stream, err, "its map of holes is longer than it says");
	return 0;
}

int
tar_holes_pax(struct tar_stream *stream, struct moat_error *err)
{
	struct tar_pax *pax = &stream->local;
	bool text_map = pax->has_blocks || pax->has_map || pax->map.count > 0;

	if (!pax->has_real_size)
		return tar_bad(stream, err, "it is a sparse file that does not tell its size");
	if (pax->has_offset)
		return tar_bad(stream, err, "its map of holes ends in the middle");
	if (pax->has_major || pax->has_minor) {
		if (!pax->has_major || !pax->has_minor || pax->major != 1 || pax->minor != 0)
			return tar_beyond(stream, err,
					  "it is sparse in a format that is not known (%llu.%llu)",
					  (unsigned long long) pax->major,
					  (unsigned long long) pax->minor);
		if (text_map)
			return tar_bad(stream, err, "it has two maps of holes");
		if (pax->sparse_name.size == 0)
			return tar_bad(stream, err, "it is a sparse file without its name");
		if (take_map_1_0(stream, err) < 0)
			return -1;
	} else {
		if (!pax->has_blocks || pax->blocks != pax->map.count)
			return tar_bad(stream, err, "its map of holes is not as long as it says");
		stream->map = pax->map;
		pax->map = (struct sparse_map){0};
	}
	return check_map(stream, pax->real_size, stream->left, err);
}
