/* SPDX-License-Identifier: Apache-2.0 */
/* The framing of a tar stream and its members.  See tar_stream.h for what is promised. */
#include "common/tar_stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tar_stream_internal.h"

/* So much of a name is shown in a message. */
#define SHOWN_MAX 200

static ssize_t
memory_read(void *context, void *data, size_t size, struct moat_error *err)
{
	struct memory_bytes *memory = context;
	size_t n = memory->size - memory->at;

	if (n > size)
		n = size;
	if (memory->piece > 0 && n > memory->piece)
		n = memory->piece;
	if (n > 0)
		memcpy(data, (const char *) memory->data + memory->at, n);
	memory->at += n;
	return (ssize_t) n;
}

struct byte_source
memory_source(struct memory_bytes *memory)
{
	return (struct byte_source){memory_read, memory};
}

/* ----------------------------------------------------------------------------------------- errors
 */

static int fail_with_place(const struct tar_stream *stream, int code, struct moat_error *err,
			   const char *format, va_list args) MOAT_PRINTF(4, 0);
static int
fail_with_place(const struct tar_stream *stream, int code, struct moat_error *err,
		const char *format, va_list args)
{
	const char *name = stream->path.data;
	char what[512];

	(void) vsnprintf(what, sizeof what, format, args);
	if (name == NULL)
		return moat_fail(err, code, "at byte %llu: %s", (unsigned long long) stream->at,
				 what);
	return moat_fail(err, code, "at byte %llu: member `%.*s%s': %s",
			 (unsigned long long) stream->at, SHOWN_MAX, name,
			 stream->path.size > SHOWN_MAX ? "..." : "", what);
}

int
tar_bad(const struct tar_stream *stream, struct moat_error *err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void) fail_with_place(stream, MOAT_CORRUPT, err, format, args);
	va_end(args);
	return -1;
}

int
tar_beyond(const struct tar_stream *stream, struct moat_error *err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void) fail_with_place(stream, MOAT_UNSUPPORTED, err, format, args);
	va_end(args);
	return -1;
}

/* ------------------------------------------------------------------------------------------ bytes
 */

/* As many of the bytes as there are. */
static ssize_t
take_some(struct tar_stream *stream, void *data, size_t size, struct moat_error *err)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = stream->source.read(stream->source.context, (char *) data + done,
						size - done, err);

		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += (size_t) n;
		stream->at += (uint64_t) n;
	}
	return (ssize_t) done;
}

int
tar_take(struct tar_stream *stream, void *data, size_t size, struct moat_error *err)
{
	ssize_t n = take_some(stream, data, size, err);

	if (n < 0)
		return -1;
	return (size_t) n == size ? 0 : tar_bad(stream, err, "the archive is cut off here");
}

int
tar_count_names(struct tar_stream *stream, uint64_t size, struct moat_error *err)
{
	if (size > stream->limits.max_name_bytes - stream->name_bytes)
		return tar_beyond(
			stream, err,
			"the names, links and attributes of the archive are above %llu bytes",
			(unsigned long long) stream->limits.max_name_bytes);
	stream->name_bytes += size;
	return 0;
}

int
tar_count_entry(struct tar_stream *stream, struct moat_error *err)
{
	if (stream->entries >= stream->limits.max_entries)
		return tar_beyond(stream, err,
				  "the archive has more than %llu entries (max_entries)",
				  (unsigned long long) stream->limits.max_entries);
	stream->entries++;
	return 0;
}

/* ---------------------------------------------------------------------------------------- headers
 */

/* After the first block of zeros there is a second, and then nothing that is not zero. */
static int
take_end(struct tar_stream *stream, struct moat_error *err)
{
	char block[4096];
	ssize_t n;

	if (tar_take(stream, block, TAR_BLOCK, err) < 0)
		return -1;
	if (!tar_is_zero(block, TAR_BLOCK))
		return tar_bad(stream, err, "a block of zeros in the middle of the archive");
	while ((n = take_some(stream, block, sizeof block, err)) > 0)
		if (!tar_is_zero(block, (size_t) n))
			return tar_bad(stream, err, "something follows the end of the archive");
	if (n < 0)
		return -1;
	stream->ended = true;
	return 0;
}

static int
check_sum(struct tar_stream *stream, const struct tar_block *block, struct moat_error *err)
{
	uint64_t sum = 0;

	if (tar_field(block->chksum, sizeof block->chksum, &sum) != NULL ||
	    sum != tar_checksum(block))
		return tar_bad(stream, err, "%s",
			       stream->at == TAR_BLOCK
				       ? "this is no tar archive"
				       : "this is no tar header: its checksum is wrong");
	return 0;
}

/* The oldest kind has nothing behind the link, but what GNU tar writes for a device's numbers. */
static bool
is_v7(const struct tar_block *block)
{
	return tar_is_zero(block->magic, offsetof(struct tar_block, devmajor) -
						 offsetof(struct tar_block, magic)) &&
	       tar_is_zero(block->prefix, sizeof *block - offsetof(struct tar_block, prefix));
}

static int
find_flavour(struct tar_stream *stream, const struct tar_block *block, enum tar_flavour *ret,
	     struct moat_error *err)
{
	if (memcmp(block->magic,
		   "ustar\0"
		   "00",
		   8) == 0)
		*ret = TAR_USTAR;
	else if (memcmp(block->magic, "ustar  \0", 8) == 0)
		*ret = TAR_GNU;
	else if (is_v7(block))
		*ret = TAR_V7;
	else
		return tar_beyond(stream, err, "its header is of no kind that is known");
	return 0;
}

/* The data of a header that speaks of the next one. */
static int
take_meta(struct tar_stream *stream, const struct tar_block *block, uint64_t max, struct buf *ret,
	  struct moat_error *err)
{
	uint64_t size = 0;
	const char *wrong = tar_field(block->size, sizeof block->size, &size);
	char rest[TAR_BLOCK];

	if (wrong != NULL)
		return tar_bad(stream, err, "the size of an extended header %s", wrong);
	if (size > max)
		return tar_beyond(stream, err, "an extended header of %llu bytes is too long",
				  (unsigned long long) size);
	ret->size = 0;
	while (ret->size < size) {
		char piece[4096];
		size_t n = size - ret->size < sizeof piece ? size - ret->size : sizeof piece;

		if (tar_take(stream, piece, n, err) < 0)
			return -1;
		buf_append(ret, piece, n);
	}
	if (tar_take(stream, rest, (size_t) tar_padding(size), err) < 0)
		return -1;
	if (!tar_is_zero(rest, (size_t) tar_padding(size)))
		return tar_bad(stream, err, "an extended header is followed by something else");
	return buf_check(ret, err);
}

/* GNU's L and K: a string and its NUL. */
static int
take_long(struct tar_stream *stream, const struct tar_block *block, const char *what, bool *has,
	  struct buf *ret, struct moat_error *err)
{
	if (*has)
		return tar_bad(stream, err, "two long %s for one member", what);
	if (take_meta(stream, block, TAR_STREAM_PATH_MAX + 1, ret, err) < 0)
		return -1;
	if (ret->size > 0 && ret->data[ret->size - 1] == '\0')
		ret->size--;
	if (ret->size == 0 || memchr(ret->data, '\0', ret->size) != NULL)
		return tar_bad(stream, err, "a long %s that is empty, or has a NUL byte in it",
			       what);
	*has = true;
	return 0;
}

static int
take_pax(struct tar_stream *stream, const struct tar_block *block, bool global,
	 struct moat_error *err)
{
	AUTO_BUF struct buf data = {0};
	struct tar_pax *pax = global ? &stream->global : &stream->local;

	if (!global && pax->seen)
		return tar_bad(stream, err, "two extended headers for one member");
	if (global && tar_count_entry(stream, err) < 0)
		return -1;
	if (take_meta(stream, block, TAR_PAX_MAX, &data, err) < 0)
		return -1;
	if (global) /* the same key may come again in the next one */
		buf_free(&pax->keys);
	return tar_pax_parse(stream, pax, global, data.data, data.size, err);
}

/* 1: it was for the next header; 0: it is a member's. */
static int
take_special(struct tar_stream *stream, const struct tar_block *block, struct moat_error *err)
{
	int result;

	switch (block->typeflag) {
	case 'L':
		result = take_long(stream, block, "name", &stream->has_long_name,
				   &stream->long_name, err);
		break;
	case 'K':
		result = take_long(stream, block, "link", &stream->has_long_link,
				   &stream->long_link, err);
		break;
	case 'x':
		result = take_pax(stream, block, false, err);
		break;
	case 'g':
		if (stream->local.seen || stream->has_long_name || stream->has_long_link)
			return tar_bad(stream, err,
				       "a header for all members stands before a "
				       "member whose own has begun");
		result = take_pax(stream, block, true, err);
		break;
	default:
		return 0;
	}
	return result < 0 ? -1 : 1;
}

static void
forget_member(struct tar_stream *stream)
{
	tar_pax_free(&stream->local);
	sparse_map_free(&stream->map);
	buf_free(&stream->path);
	buf_free(&stream->link);
	buf_free(&stream->long_name);
	buf_free(&stream->long_link);
	stream->has_long_name = stream->has_long_link = false;
	stream->extent = 0;
	stream->extent_done = 0;
	stream->left = stream->padding = 0;
	stream->entry = (struct tar_entry){0};
}

/* The rest of the data, and what fills its last block: zeros by custom, of no meaning. */
static int
finish_member(struct tar_stream *stream, struct moat_error *err)
{
	char piece[16384];

	stream->left += stream->padding;
	while (stream->left > 0) {
		size_t n = stream->left < sizeof piece ? (size_t) stream->left : sizeof piece;

		if (tar_take(stream, piece, n, err) < 0)
			return -1;
		stream->left -= n;
	}
	return 0;
}

static int
next_member(struct tar_stream *stream, struct moat_error *err)
{
	enum tar_flavour flavour = TAR_V7;
	struct tar_block block;
	uint64_t offset;
	int special;

	if (finish_member(stream, err) < 0)
		return -1;
	forget_member(stream);
	do {
		offset = stream->at;
		if (tar_take(stream, &block, sizeof block, err) < 0)
			return -1;
		if (tar_is_zero(&block, sizeof block)) {
			if (stream->local.seen || stream->has_long_name || stream->has_long_link)
				return tar_bad(stream, err,
					       "the archive ends after an extended header");
			return take_end(stream, err);
		}
		if (check_sum(stream, &block, err) < 0 ||
		    find_flavour(stream, &block, &flavour, err) < 0)
			return -1;
		special = take_special(stream, &block, err);
	} while (special > 0);
	stream->entry.offset = offset;
	return special < 0 ? -1 : tar_member_take(stream, &block, flavour, err);
}

int
tar_stream_next(struct tar_stream *stream, const struct tar_entry **ret, struct moat_error *err)
{
	int result;

	if (stream->failed)
		return tar_bad(stream, err, "the archive could not be read before");
	if (stream->ended)
		return 0;
	result = next_member(stream, err);
	stream->failed = result < 0;
	*ret = &stream->entry;
	return result;
}

ssize_t
tar_stream_read(struct tar_stream *stream, void *data, size_t size, uint64_t *ret_offset,
		struct moat_error *err)
{
	const struct extent *extent;
	uint64_t left;

	while (stream->extent < stream->map.count &&
	       stream->extent_done == stream->map.items[stream->extent].size) {
		stream->extent++;
		stream->extent_done = 0;
	}
	if (stream->extent >= stream->map.count || size == 0)
		return 0;
	extent = &stream->map.items[stream->extent];
	left = extent->size - stream->extent_done;
	if (size > left)
		size = (size_t) left;
	if (tar_take(stream, data, size, err) < 0) {
		stream->failed = true;
		return -1;
	}
	*ret_offset = extent->offset + stream->extent_done;
	stream->extent_done += size;
	stream->left -= size;
	return (ssize_t) size;
}

int
tar_stream_open(const struct byte_source *source, const struct tar_limits *limits,
		struct tar_stream **ret, struct moat_error *err)
{
	struct tar_stream *stream = calloc(1, sizeof *stream);

	if (stream == NULL)
		return moat_fail_memory(err);
	stream->source = *source;
	stream->limits = *limits;
	*ret = stream;
	return 0;
}

void
tar_stream_free(struct tar_stream *stream)
{
	if (stream == NULL)
		return;
	forget_member(stream);
	tar_pax_free(&stream->global);
	free(stream);
}

void
cleanup_tar_stream(struct tar_stream **stream)
{
	tar_stream_free(*stream);
	*stream = NULL;
}

uint64_t
tar_stream_offset(const struct tar_stream *stream)
{
	return stream->at;
}
