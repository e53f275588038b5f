/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed streams of archives that come in and go out: gzip, zstd, lz4, each where the library
 * was there when moat was built. */
#ifndef MOAT_CORE_COMPRESS_H
#define MOAT_CORE_COMPRESS_H

#include <stdbool.h>

#include "common/tar_stream.h"

enum compress_format {
	COMPRESS_NONE, /* a plain tar */
	COMPRESS_LZ4,
	COMPRESS_GZIP,
	COMPRESS_ZSTD
};

/* By the end of a file's name: .tar .tar.lz4 .tar.gz .tgz .tar.zst .tzst.  false: none of them. */
bool compress_format_of_name(const char *file, enum compress_format *ret);
/* "tar", "tar.lz4", "tar.gz", "tar.zst". */
bool compress_format_of_text(const char *text, enum compress_format *ret);
/* MOAT_UNSUPPORTED when moat was built without it. */
int compress_check(enum compress_format format, struct moat_error *err);

/* Where bytes go: all of them, or -1. */
struct byte_sink {
	int (*write)(void *context, const void *data, size_t size, struct moat_error *err);
	void *context;
};

struct compressor;
int compress_open(enum compress_format format, const struct byte_sink *sink,
		  struct compressor **ret, struct moat_error *err);
int compress_write(struct compressor *compressor, const void *data, size_t size,
		   struct moat_error *err);
/* What is still held back, and the end of the stream. */
int compress_finish(struct compressor *compressor, struct moat_error *err);
void compress_free(struct compressor *compressor);
void cleanup_compressor(struct compressor **compressor);
#define AUTO_COMPRESSOR CLEANUP(cleanup_compressor)

/* Unpacks whatever the first bytes say it is; what is not compressed comes through as it is.
 * Several streams, one after the other, are one, as for gzip(1), zstd(1) and lz4(1); anything else
 * behind the last is MOAT_CORRUPT, and so is a stream that is cut off or whose checksum is wrong.
 *
 * No more than max_bytes come out: what would be beyond is MOAT_UNSUPPORTED, and is not made.
 * Memory does not depend on what the stream declares (zstd's window: 128 MiB at most). */
struct decompressor;
int decompress_open(const struct byte_source *source, uint64_t max_bytes, struct decompressor **ret,
		    struct moat_error *err);
ssize_t
decompress_read(struct decompressor *decompressor, void *data, size_t size, struct moat_error *err);
/* The same as a source. */
struct byte_source decompress_source(struct decompressor *decompressor);
void decompress_free(struct decompressor *decompressor);
void cleanup_decompressor(struct decompressor **decompressor);
#define AUTO_DECOMPRESSOR CLEANUP(cleanup_decompressor)

#endif
