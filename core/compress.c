/* SPDX-License-Identifier: Apache-2.0 */
/* Compressing an archive on its way out. */
#include "core/compress.h"

#include <limits.h>
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

#define PIECE ((size_t) 64 * 1024) /* given to a library at once */

static const struct {
	const char *text;
	enum compress_format format;
} formats[] = {
	{"tar", COMPRESS_NONE},     {"tar.lz4", COMPRESS_LZ4}, {"tar.gz", COMPRESS_GZIP},
	{"tar.zst", COMPRESS_ZSTD}, {"tgz", COMPRESS_GZIP},    {"tzst", COMPRESS_ZSTD},
};

bool
compress_format_of_name(const char *file, enum compress_format *ret)
{
	size_t size = strlen(file);

	for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
		size_t n = strlen(formats[i].text);

		if (size > n && file[size - n - 1] == '.' &&
		    strcmp(file + size - n, formats[i].text) == 0) {
			*ret = formats[i].format;
			return true;
		}
	}
	return false;
}

bool
compress_format_of_text(const char *text, enum compress_format *ret)
{
	for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
		if (strcmp(text, formats[i].text) == 0) {
			*ret = formats[i].format;
			return true;
		}
	}
	return false;
}

static int
built_without(const char *what, struct moat_error *err)
{
	return moat_fail(err, MOAT_UNSUPPORTED,
			 "this moat was built without %s; use another format", what);
}

int
compress_check(enum compress_format format, struct moat_error *err)
{
	switch (format) {
	case COMPRESS_NONE:
		return 0;
	case COMPRESS_LZ4:
#ifdef MOAT_WITH_LZ4
		return 0;
#else
		return built_without("liblz4", err);
#endif
	case COMPRESS_GZIP:
#ifdef MOAT_WITH_ZLIB
		return 0;
#else
		return built_without("zlib", err);
#endif
	case COMPRESS_ZSTD:
#ifdef MOAT_WITH_ZSTD
		return 0;
#else
		return built_without("libzstd", err);
#endif
	}
	return built_without("that", err);
}

struct compressor {
	enum compress_format format;
	struct byte_sink sink;
	void *state;
	char *room; /* for output */
	size_t room_size;
	bool begun;
};

MOAT_UNUSED static int
sink_write(struct compressor *c, size_t size, struct moat_error *err)
{
	return size == 0 ? 0 : c->sink.write(c->sink.context, c->room, size, err);
}

/* ------------------------------------------------------------------------------------------- gzip
 */

#ifdef MOAT_WITH_ZLIB
static int
gzip_open(struct compressor *c, struct moat_error *err)
{
	z_stream *z = calloc(1, sizeof *z);

	c->state = z;
	/* 16: with the header and the checksum of gzip. */
	if (z == NULL || deflateInit2(z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, MAX_WBITS + 16, 8,
				      Z_DEFAULT_STRATEGY) != Z_OK)
		return moat_fail_memory(err);
	c->room_size = PIECE;
	return 0;
}

static int
gzip_write(struct compressor *c, const void *data, size_t size, bool end, struct moat_error *err)
{
	z_stream *z = c->state;
	int result;

	z->next_in = (Bytef *) (uintptr_t) data;
	z->avail_in = (uInt) size;
	do {
		z->next_out = (Bytef *) c->room;
		z->avail_out = (uInt) c->room_size;
		result = deflate(z, end ? Z_FINISH : Z_NO_FLUSH);
		if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
			return moat_fail(err, MOAT_FAILED, "zlib cannot compress");
		if (sink_write(c, c->room_size - z->avail_out, err) < 0)
			return -1;
	} while (end ? result != Z_STREAM_END : z->avail_out == 0);
	return 0;
}

static void
gzip_close(struct compressor *c)
{
	if (c->state != NULL)
		(void) deflateEnd(c->state); /* frees, whatever it says */
	free(c->state);
}
#else
#define gzip_open(c, err) built_without("zlib", err)
#define gzip_write(c, data, size, end, err) built_without("zlib", err)
#define gzip_close(c) (void) (c)
#endif

/* ------------------------------------------------------------------------------------------- zstd
 */

#ifdef MOAT_WITH_ZSTD
static int
zstd_open(struct compressor *c, struct moat_error *err)
{
	c->state = ZSTD_createCCtx();
	if (c->state == NULL ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(c->state, ZSTD_c_checksumFlag, 1)))
		return moat_fail_memory(err);
	c->room_size = ZSTD_CStreamOutSize();
	return 0;
}

static int
zstd_write(struct compressor *c, const void *data, size_t size, bool end, struct moat_error *err)
{
	ZSTD_inBuffer in = {data, size, 0};
	size_t left;

	do {
		ZSTD_outBuffer room = {c->room, c->room_size, 0};

		left = ZSTD_compressStream2(c->state, &room, &in,
					    end ? ZSTD_e_end : ZSTD_e_continue);
		if (ZSTD_isError(left))
			return moat_fail(err, MOAT_FAILED, "zstd cannot compress: %s",
					 ZSTD_getErrorName(left));
		if (sink_write(c, room.pos, err) < 0)
			return -1;
	} while (end ? left > 0 : in.pos < in.size);
	return 0;
}

static void
zstd_close(struct compressor *c)
{
	ZSTD_freeCCtx(c->state);
}
#else
#define zstd_open(c, err) built_without("libzstd", err)
#define zstd_write(c, data, size, end, err) built_without("libzstd", err)
#define zstd_close(c) (void) (c)
#endif

/* -------------------------------------------------------------------------------------------- lz4
 */

#ifdef MOAT_WITH_LZ4
static const LZ4F_preferences_t lz4_wanted = {
	.frameInfo = {.blockSizeID = LZ4F_max256KB,
		      .contentChecksumFlag = LZ4F_contentChecksumEnabled},
};

static int
lz4_fail(size_t result, struct moat_error *err)
{
	return moat_fail(err, MOAT_FAILED, "lz4 cannot compress: %s", LZ4F_getErrorName(result));
}

static int
lz4_open(struct compressor *c, struct moat_error *err)
{
	LZ4F_cctx *ctx = NULL;

	if (LZ4F_isError(LZ4F_createCompressionContext(&ctx, LZ4F_VERSION)))
		return moat_fail_memory(err);
	c->state = ctx;
	c->room_size = LZ4F_compressBound(PIECE, &lz4_wanted) + LZ4F_HEADER_SIZE_MAX;
	return 0;
}

static int
lz4_write(struct compressor *c, const void *data, size_t size, bool end, struct moat_error *err)
{
	size_t n = 0;

	if (!c->begun) {
		n = LZ4F_compressBegin(c->state, c->room, c->room_size, &lz4_wanted);
		if (LZ4F_isError(n))
			return lz4_fail(n, err);
		c->begun = true;
		if (sink_write(c, n, err) < 0)
			return -1;
	}
	n = end ? LZ4F_compressEnd(c->state, c->room, c->room_size, NULL)
		: LZ4F_compressUpdate(c->state, c->room, c->room_size, data, size, NULL);
	return LZ4F_isError(n) ? lz4_fail(n, err) : sink_write(c, n, err);
}

static void
lz4_close(struct compressor *c)
{
	(void) LZ4F_freeCompressionContext(c->state); /* cannot fail in a way that matters */
}
#else
#define lz4_open(c, err) built_without("liblz4", err)
#define lz4_write(c, data, size, end, err) built_without("liblz4", err)
#define lz4_close(c) (void) (c)
#endif

/* --------------------------------------------------------------------------------------- any kind
 */

static int
open_format(struct compressor *c, struct moat_error *err)
{
	switch (c->format) {
	case COMPRESS_LZ4:
		return lz4_open(c, err);
	case COMPRESS_GZIP:
		return gzip_open(c, err);
	case COMPRESS_ZSTD:
		return zstd_open(c, err);
	case COMPRESS_NONE:
		break;
	}
	return 0;
}

int
compress_open(enum compress_format format, const struct byte_sink *sink, struct compressor **ret,
	      struct moat_error *err)
{
	AUTO_COMPRESSOR struct compressor *c = calloc(1, sizeof *c);

	if (c == NULL)
		return moat_fail_memory(err);
	c->format = format;
	c->sink = *sink;
	if (open_format(c, err) < 0)
		return -1;
	if (c->room_size > 0 && (c->room = malloc(c->room_size)) == NULL)
		return moat_fail_memory(err);
	*ret = STEAL(c);
	return 0;
}

static int
write_piece(struct compressor *c, const void *data, size_t size, bool end, struct moat_error *err)
{
	switch (c->format) {
	case COMPRESS_LZ4:
		return lz4_write(c, data, size, end, err);
	case COMPRESS_GZIP:
		return gzip_write(c, data, size, end, err);
	case COMPRESS_ZSTD:
		return zstd_write(c, data, size, end, err);
	case COMPRESS_NONE:
		break;
	}
	return size == 0 ? 0 : c->sink.write(c->sink.context, data, size, err);
}

int
compress_write(struct compressor *c, const void *data, size_t size, struct moat_error *err)
{
	const char *at = data;

	while (size > 0) {
		size_t n = size < PIECE ? size : PIECE;

		if (write_piece(c, at, n, false, err) < 0)
			return -1;
		at += n;
		size -= n;
	}
	return 0;
}

int
compress_finish(struct compressor *c, struct moat_error *err)
{
	return write_piece(c, NULL, 0, true, err);
}

void
compress_free(struct compressor *c)
{
	if (c == NULL)
		return;
	switch (c->format) {
	case COMPRESS_LZ4:
		lz4_close(c);
		break;
	case COMPRESS_GZIP:
		gzip_close(c);
		break;
	case COMPRESS_ZSTD:
		zstd_close(c);
		break;
	case COMPRESS_NONE:
		break;
	}
	free(c->room);
	free(c);
}

void
cleanup_compressor(struct compressor **compressor)
{
	compress_free(*compressor);
	*compressor = NULL;
}
