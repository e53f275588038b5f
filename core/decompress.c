/* SPDX-License-Identifier: Apache-2.0 */
/* Unpacking an archive that a stranger compressed.
 *
 * The frames of zstd and lz4 begin with a magic number; between them there may be frames that are
 * to be skipped, which both share.  So the loop over frames is ours, and the libraries see one
 * frame at a time. */
#include <stdlib.h>
#include <string.h>

#ifdef MOAT_WITH_ZLIB
#include <zlib.h>
#endif
#ifdef MOAT_WITH_ZSTD
#include <zstd.h>
#endif
#ifdef MOAT_WITH_LZ4
#include <lz4frame.h>
#endif

#include "common/cleanup.h"
#include "core/compress.h"

#define INPUT ((size_t) 64 * 1024)
#define ZSTD_WINDOW_LOG_MAX 27 /* as zstd(1) without --long */

#define MAGIC_LZ4 0x184D2204u
#define MAGIC_ZSTD 0xFD2FB528u
#define MAGIC_SKIP 0x184D2A50u /* and the 15 after it */

struct decompressor {
	struct byte_source source;
	enum compress_format format;
	void *state;
	uint64_t left; /* that may still come out */
	uint64_t max, taken;
	unsigned char input[INPUT];
	size_t at, size;
	bool at_end;   /* of the source */
	bool in_frame; /* else at the beginning of one, or at the end of all */
};

static int
corrupt(const struct decompressor *d, struct moat_error *err, const char *what)
{
	return moat_fail(err, MOAT_CORRUPT, "at byte %llu of the compressed stream: %s",
			 (unsigned long long) (d->taken - (d->size - d->at)), what);
}

/* At least `size' bytes in the buffer, unless the source ends before. */
static int
fill(struct decompressor *d, size_t size, struct moat_error *err)
{
	while (!d->at_end && d->size - d->at < size) {
		ssize_t n;

		memmove(d->input, d->input + d->at, d->size - d->at);
		d->size -= d->at;
		d->at = 0;
		n = d->source.read(d->source.context, d->input + d->size, INPUT - d->size, err);
		if (n < 0)
			return -1;
		d->at_end = n == 0;
		d->size += (size_t) n;
		d->taken += (uint64_t) n;
	}
	return 0;
}

static uint32_t
magic_at(const unsigned char *bytes)
{
	return (uint32_t) bytes[0] | (uint32_t) bytes[1] << 8 | (uint32_t) bytes[2] << 16 |
	       (uint32_t) bytes[3] << 24;
}

/* ------------------------------------------------------------------------------------- one frame
 */

/* Each takes input and gives output; *ret_end: the frame is at its end. */

#ifdef MOAT_WITH_ZLIB
static int
gzip_open(struct decompressor *d, struct moat_error *err)
{
	z_stream *z = calloc(1, sizeof *z);

	d->state = z;
	if (z == NULL || inflateInit2(z, MAX_WBITS + 16) != Z_OK)
		return moat_fail_memory(err);
	return 0;
}

static ssize_t
gzip_read(struct decompressor *d, void *data, size_t size, bool *ret_end, struct moat_error *err)
{
	z_stream *z = d->state;
	int result;

	z->next_in = d->input + d->at;
	z->avail_in = (uInt) (d->size - d->at);
	z->next_out = data;
	z->avail_out = (uInt) size;
	result = inflate(z, Z_NO_FLUSH);
	d->at = d->size - z->avail_in;
	if (result == Z_MEM_ERROR)
		return moat_fail_memory(err);
	if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
		return corrupt(d, err, z->msg != NULL ? z->msg : "gzip: damaged");
	*ret_end = result == Z_STREAM_END;
	if (*ret_end)
		(void) inflateReset(z); /* fails only for a state that is not one */
	return (ssize_t) (size - z->avail_out);
}

static void
gzip_close(struct decompressor *d)
{
	if (d->state != NULL)
		(void) inflateEnd(d->state); /* frees, whatever it says */
	free(d->state);
}
#endif

#ifdef MOAT_WITH_ZSTD
static int
zstd_open(struct decompressor *d, struct moat_error *err)
{
	d->state = ZSTD_createDCtx();
	if (d->state == NULL || ZSTD_isError(ZSTD_DCtx_setParameter(d->state, ZSTD_d_windowLogMax,
								    ZSTD_WINDOW_LOG_MAX)))
		return moat_fail_memory(err);
	return 0;
}

static ssize_t
zstd_read(struct decompressor *d, void *data, size_t size, bool *ret_end, struct moat_error *err)
{
	ZSTD_inBuffer in = {d->input + d->at, d->size - d->at, 0};
	ZSTD_outBuffer room = {data, size, 0};
	size_t result = ZSTD_decompressStream(d->state, &room, &in);

	d->at += in.pos;
	if (ZSTD_isError(result))
		return corrupt(d, err, ZSTD_getErrorName(result));
	*ret_end = result == 0;
	return (ssize_t) room.pos;
}

static void
zstd_close(struct decompressor *d)
{
	ZSTD_freeDCtx(d->state);
}
#endif

#ifdef MOAT_WITH_LZ4
static int
lz4_open(struct decompressor *d, struct moat_error *err)
{
	LZ4F_dctx *ctx = NULL;

	if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)))
		return moat_fail_memory(err);
	d->state = ctx;
	return 0;
}

static ssize_t
lz4_read(struct decompressor *d, void *data, size_t size, bool *ret_end, struct moat_error *err)
{
	size_t in = d->size - d->at, room = size, result;

	result = LZ4F_decompress(d->state, data, &room, d->input + d->at, &in, NULL);
	d->at += in;
	if (LZ4F_isError(result))
		return corrupt(d, err, LZ4F_getErrorName(result));
	*ret_end = result == 0;
	return (ssize_t) room;
}

static void
lz4_close(struct decompressor *d)
{
	(void) LZ4F_freeDecompressionContext(d->state); /* cannot fail in a way that matters */
}
#endif

static int
open_format(struct decompressor *d, struct moat_error *err)
{
	if (compress_check(d->format, err) < 0)
		return -1;
	switch (d->format) {
#ifdef MOAT_WITH_LZ4
	case COMPRESS_LZ4:
		return lz4_open(d, err);
#endif
#ifdef MOAT_WITH_ZLIB
	case COMPRESS_GZIP:
		return gzip_open(d, err);
#endif
#ifdef MOAT_WITH_ZSTD
	case COMPRESS_ZSTD:
		return zstd_open(d, err);
#endif
	default:
		return 0;
	}
}

static ssize_t
read_frame(struct decompressor *d, void *data, size_t size, bool *ret_end, struct moat_error *err)
{
	switch (d->format) {
#ifdef MOAT_WITH_LZ4
	case COMPRESS_LZ4:
		return lz4_read(d, data, size, ret_end, err);
#endif
#ifdef MOAT_WITH_ZLIB
	case COMPRESS_GZIP:
		return gzip_read(d, data, size, ret_end, err);
#endif
#ifdef MOAT_WITH_ZSTD
	case COMPRESS_ZSTD:
		return zstd_read(d, data, size, ret_end, err);
#endif
	default:
		if (size > d->size - d->at)
			size = d->size - d->at;
		memcpy(data, d->input + d->at, size);
		d->at += size;
		return (ssize_t) size;
	}
}

/* ----------------------------------------------------------------------------------------- frames
 */

/* Reads over the frames that are to be skipped; what stands behind them is in the buffer, at least
 * four bytes of it if there are so many. */
static int
skip_frames(struct decompressor *d, struct moat_error *err)
{
	for (;;) {
		uint64_t size;

		if (fill(d, 8, err) < 0)
			return -1;
		if (d->size - d->at < 4 || (magic_at(d->input + d->at) & ~15u) != MAGIC_SKIP)
			return 0;
		if (d->size - d->at < 8)
			return corrupt(d, err, "cut off");
		size = 8 + (uint64_t) magic_at(d->input + d->at + 4);
		while (size > 0) {
			size_t n;

			if (fill(d, 1, err) < 0)
				return -1;
			n = d->size - d->at;
			if (n == 0)
				return corrupt(d, err, "cut off");
			n = n < size ? n : (size_t) size;
			d->at += n;
			size -= n;
		}
	}
}

static bool
begins_with(const struct decompressor *d, const char *magic, size_t size)
{
	return d->size - d->at >= size && memcmp(d->input + d->at, magic, size) == 0;
}

static bool
is_gzip(const struct decompressor *d)
{
	return begins_with(d, "\x1f\x8b", 2);
}

/* What others make and moat does not read. */
static int
refuse_others(const struct decompressor *d, struct moat_error *err)
{
	static const struct {
		const char *magic;
		size_t size;
		const char *program;
	} others[] = {
		{"\xfd"
		 "7zXZ",
		 5, "xz"},
		{"BZh", 3, "bzip2"},
		{"LZIP", 4, "lzip"},
		{"\x1f\x9d", 2, "compress"},
		{"\x02\x21\x4c\x18", 4, "lz4 in its legacy format"},
		{"PK\x03\x04", 4, "zip"},
	};

	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
		if (begins_with(d, others[i].magic, others[i].size))
			return moat_fail(
				err, MOAT_UNSUPPORTED,
				"it is compressed by %s, which is not read here; unpack it "
				"and pipe the tar into `moat snapshot import -'",
				others[i].program);
	return 0;
}

static int
detect(struct decompressor *d, struct moat_error *err)
{
	uint32_t magic;

	if (skip_frames(d, err) < 0)
		return -1;
	magic = d->size - d->at < 4 ? 0 : magic_at(d->input + d->at);
	if (is_gzip(d))
		d->format = COMPRESS_GZIP;
	else if (magic == MAGIC_LZ4)
		d->format = COMPRESS_LZ4;
	else if (magic == MAGIC_ZSTD)
		d->format = COMPRESS_ZSTD;
	else if (refuse_others(d, err) < 0)
		return -1;
	d->in_frame = true;
	return open_format(d, err);
}

/* 1: a frame begins; 0: the end. */
static int
next_frame(struct decompressor *d, struct moat_error *err)
{
	uint32_t magic;
	bool mine;

	if (d->format == COMPRESS_GZIP ? fill(d, 4, err) < 0 : skip_frames(d, err) < 0)
		return -1;
	if (d->size == d->at)
		return 0;
	magic = d->size - d->at < 4 ? 0 : magic_at(d->input + d->at);
	mine = d->format == COMPRESS_GZIP   ? is_gzip(d)
	       : d->format == COMPRESS_LZ4  ? magic == MAGIC_LZ4
	       : d->format == COMPRESS_ZSTD ? magic == MAGIC_ZSTD
					    : false;
	if (!mine)
		return corrupt(d, err, "something follows the end of the compressed stream");
	d->in_frame = true;
	return 1;
}

static ssize_t
read_plain(struct decompressor *d, void *data, size_t size, struct moat_error *err)
{
	bool end;

	return fill(d, 1, err) < 0 ? -1 : read_frame(d, data, size, &end, err);
}

/* Something, or 0 at the end of all. */
static ssize_t
read_compressed(struct decompressor *d, void *data, size_t size, struct moat_error *err)
{
	for (;;) {
		bool end = false;
		size_t before;
		ssize_t n;
		int more = d->in_frame ? 1 : next_frame(d, err);

		if (more <= 0)
			return more;
		if (fill(d, 1, err) < 0)
			return -1;
		before = d->at;
		n = read_frame(d, data, size, &end, err);
		if (n < 0)
			return -1;
		if (end)
			d->in_frame = false;
		if (n > 0)
			return n;
		/* Given input, a library takes some: there was none. */
		if (!end && d->at == before)
			return corrupt(d, err, "the compressed stream is cut off");
	}
}

/* A byte beyond the limit is asked for only to learn whether there is one. */
ssize_t
decompress_read(struct decompressor *d, void *data, size_t size, struct moat_error *err)
{
	char beyond;
	ssize_t n;
	bool full = d->left == 0;

	if (size == 0)
		return 0;
	if (full) {
		data = &beyond;
		size = 1;
	} else if (size > d->left) {
		size = (size_t) d->left;
	}
	n = d->format == COMPRESS_NONE ? read_plain(d, data, size, err)
				       : read_compressed(d, data, size, err);
	if (n <= 0)
		return n;
	if (full)
		return moat_fail(err, MOAT_UNSUPPORTED,
				 "unpacked, it is longer than the %llu bytes that max_bytes and "
				 "max_entries allow",
				 (unsigned long long) d->max);
	d->left -= (uint64_t) n;
	return n;
}

int
decompress_open(const struct byte_source *source, uint64_t max_bytes, struct decompressor **ret,
		struct moat_error *err)
{
	AUTO_DECOMPRESSOR struct decompressor *d = calloc(1, sizeof *d);

	if (d == NULL)
		return moat_fail_memory(err);
	d->source = *source;
	d->left = d->max = max_bytes;
	if (detect(d, err) < 0)
		return -1;
	*ret = STEAL(d);
	return 0;
}

static ssize_t
source_read(void *context, void *data, size_t size, struct moat_error *err)
{
	return decompress_read(context, data, size, err);
}

struct byte_source
decompress_source(struct decompressor *d)
{
	return (struct byte_source){source_read, d};
}

void
decompress_free(struct decompressor *d)
{
	if (d == NULL)
		return;
	switch (d->format) {
#ifdef MOAT_WITH_LZ4
	case COMPRESS_LZ4:
		lz4_close(d);
		break;
#endif
#ifdef MOAT_WITH_ZLIB
	case COMPRESS_GZIP:
		gzip_close(d);
		break;
#endif
#ifdef MOAT_WITH_ZSTD
	case COMPRESS_ZSTD:
		zstd_close(d);
		break;
#endif
	default:
		break;
	}
	free(d);
}

void
cleanup_decompressor(struct decompressor **decompressor)
{
	decompress_free(*decompressor);
	*decompressor = NULL;
}
