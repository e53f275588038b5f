/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a pack.  A frame is decompressed as a whole, and its checksum compared, before a byte of
 * it is given out; frames that are not asked for are not read.  What is wrong with the file is
 * MOAT_CORRUPT. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_PACK_READ_H
#define MOAT_SNAPSHOT_ARCHIVE_PACK_READ_H

#include <lz4frame.h>

#include "archive.h"
#include "common/tar.h"
#include "pack.h"

/* A run of frames, by number in segments[]. */
struct segment {
	uint32_t number, kind;
	size_t first, count; /* frames */
	uint64_t packed, content;
};

/* An open pack.  Does not change once it is open, so that several threads may read from it. */
struct pack {
	const struct archive *archive;
	uint64_t number;
	int fd;
	uint64_t size; /* of the file */
	struct frame *frames;
	size_t frame_count;
	struct segment *segments; /* by number */
	size_t segment_count;
};

/* A pack with a damaged index, a truncated one for instance, is MOAT_CORRUPT. */
int pack_open(const struct archive *archive, uint64_t number, struct pack **ret,
	      struct moat_error *err);
void pack_free(struct pack *pack); /* NULL is allowed */
void cleanup_pack(struct pack **pack);
#define AUTO_PACK CLEANUP(cleanup_pack)

/* NULL: there is none. */
const struct segment *pack_segment(const struct pack *pack, uint64_t number);
const struct segment *pack_manifest(const struct pack *pack);
/* Bytes of the file, checked against its size. */
int pack_read_at(const struct pack *pack, uint64_t offset, void *data, size_t size,
		 struct moat_error *err);
/* Names the pack before an error about its content.  Returns -1. */
int pack_blame(const struct archive *archive, uint64_t number, struct moat_error *err);

/* A place in a segment, and the frame there; one for each thread. */
struct pack_cursor {
	LZ4F_dctx *decoder;
	uint8_t *content, *input; /* FRAME_MAX; input_size */
	size_t input_size;
	const struct pack *pack; /* these say what `content` holds; NULL: nothing */
	const struct segment *segment;
	size_t frame;
	uint64_t start; /* of the frame in the segment */
	size_t at;      /* in content */
	bool *seen;     /* by frame: it was decompressed, or that was tried; NULL: not wanted */
};

int pack_cursor_init(struct pack_cursor *cursor, struct moat_error *err);
void pack_cursor_destroy(struct pack_cursor *cursor);
#define AUTO_PACK_CURSOR CLEANUP(pack_cursor_destroy)

int pack_seek(struct pack_cursor *cursor, const struct pack *pack, uint64_t segment,
	      uint64_t position, struct moat_error *err);
/* The next bytes, at least one, valid until the next call; pack_skip() takes them. */
int pack_peek(struct pack_cursor *cursor, const uint8_t **ret, size_t *ret_size,
	      struct moat_error *err);
void pack_skip(struct pack_cursor *cursor, size_t size);
/* Decompresses that frame, wherever it belongs. */
int pack_load(struct pack_cursor *cursor, const struct pack *pack, size_t frame,
	      struct moat_error *err);
/* The segment's bytes from where the cursor stands. */
struct tar_source pack_source(struct pack_cursor *cursor);
/* All of the manifest's copy; a segment that is anything but one sound member is MOAT_CORRUPT. */
int pack_read_manifest(struct pack_cursor *cursor, const struct pack *pack, struct buf *out,
		       struct moat_error *err);

#endif
