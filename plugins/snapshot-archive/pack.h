/* SPDX-License-Identifier: Apache-2.0 */
/* The form of a pack.
 *
 *     LZ4 frames          each with its content size, at most FRAME_MAX bytes of content; their
 * contents, joined, are one tar stream a skippable frame   for which stock tools do not look: the
 * index 8 bytes             magic 0x184D2A50, size of the rest 32 bytes per frame  its size in the
 * file, its size uncompressed, its segment, the segment's kind, the first half of the SHA-256 of
 * its bytes 48 bytes            number of frames, SHA-256 of the index up to here, "MOATPACK"
 *
 * Frames follow one another without a gap, and the index follows the last.  A segment is a run of
 * frames that holds whole members of the tar stream:
 *
 *     content     files, each followed by the hard links to it
 *     structure   directories, symbolic links, hard links to files of earlier packs
 *     manifest    a copy of the snapshot's manifest; one at most
 *     end         the two empty blocks that end a tar stream; the last one
 *
 * The numbers of segments say nothing about their order, and a pack that was compacted lacks some.
 * All numbers are little endian.  The source for the frames is lz4_Frame_format.md of LZ4. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_PACK_H
#define MOAT_SNAPSHOT_ARCHIVE_PACK_H

#include <stdint.h>

#include <moat/plugin.h>

#define PACK_FRAME_MAGIC 0x184D2204u
#define PACK_INDEX_MAGIC 0x184D2A50u
#define PACK_MAGIC "MOATPACK"
#define PACK_CHECK_SIZE 16
#define PACK_ITEM_SIZE (16 + PACK_CHECK_SIZE)
#define PACK_FOOTER_SIZE (8 + MOAT_HASH_SIZE + 8)
#define PACK_END_SIZE 1024 /* the two empty blocks that end a tar stream */

enum segment_kind {
	SEGMENT_CONTENT = 0,
	SEGMENT_STRUCTURE = 1,
	SEGMENT_MANIFEST = 2,
	SEGMENT_END = 3
};

/* One frame, as the index describes it. */
struct frame {
	uint64_t offset;          /* in the file */
	uint32_t packed, content; /* bytes there, and uncompressed */
	uint32_t segment, kind;
	uint8_t check[PACK_CHECK_SIZE]; /* of those in the file */
};

static inline uint32_t
get_u32(const uint8_t *p)
{
	return (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16 |
	       (uint32_t) p[3] << 24;
}

static inline uint64_t
get_u64(const uint8_t *p)
{
	return (uint64_t) get_u32(p) | (uint64_t) get_u32(p + 4) << 32;
}

#endif
