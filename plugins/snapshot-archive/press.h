/* SPDX-License-Identifier: Apache-2.0 */
/* The press of a capture: tar members in, LZ4 frames of a pack out, by all of a crew.
 *
 * Small members are collected by each thread for itself, in a strand, and become a segment of one
 * frame.  A member that is larger than a frame is a segment of its own: one thread fills chunk
 * after chunk, all of the crew who have nothing better to do compress them, and nothing else gets
 * into the pack meanwhile, so that its frames stay together.  Whoever waits for that helps with it,
 * so that nobody waits for anybody who does not work. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_PRESS_H
#define MOAT_SNAPSHOT_ARCHIVE_PRESS_H

#include <lz4frame.h>

#include "crew.h"
#include "pack_write.h"

enum chunk_state { CHUNK_FREE, CHUNK_FILLED, CHUNK_BUSY, CHUNK_PACKED };

struct chunk {
	enum chunk_state state;
	uint8_t *content, *packed;
	size_t size;
	struct frame frame; /* once it is compressed */
};

struct press {
	const struct archive *archive;
	struct crew *crew;
	struct pack_writer *pack;
	LZ4F_preferences_t preferences;
	size_t bound;             /* bytes that a frame can have */
	uint32_t next_segment;    /* these and what follows: under the crew's lock */
	size_t finished;          /* members of the crew that have no more to store */
	bool taken;               /* a large segment is being written */
	struct frame large;       /* its segment and kind */
	size_t begin;             /* frames before it */
	uint64_t filled, written; /* its chunks: handed in, written */
	size_t chunk_count;
	struct chunk chunks[CREW_MAX + 1]; /* a ring */
};

/* Where one thread puts the bytes of members. */
struct strand {
	struct press *press;
	uint8_t *content, *packed; /* of its own frame */
	size_t used;
	uint32_t segment, kind; /* of what `content` holds */
	struct chunk *chunk;    /* of the large segment; NULL: there is none */
	uint64_t before;        /* bytes of the large segment in earlier chunks */
	uint32_t large;         /* its number */
};

void press_init(struct press *press, const struct archive *archive, struct crew *crew,
		struct pack_writer *pack);
void press_destroy(struct press *press);
/* Called by each member of the crew, when it has no more to store: helps the others until they have
 * finished, too. */
int press_finish(struct press *press, struct moat_error *err);

int strand_init(struct strand *strand, struct press *press, struct moat_error *err);
void strand_destroy(struct strand *strand);
#define AUTO_STRAND CLEANUP(strand_destroy)

/* Before a member of that size: room for all of it in the frame, or -1. */
int strand_reserve(struct strand *strand, uint32_t kind, size_t size, struct moat_error *err);
/* The frame that is being filled goes into the pack. */
int strand_flush(struct strand *strand, struct moat_error *err);
/* A segment of its own, of any size, until strand_large_end().  Rewinding empties it. */
int strand_large_begin(struct strand *strand, uint32_t kind, struct moat_error *err);
int strand_large_flush(struct strand *strand, struct moat_error *err);
int strand_large_rewind(struct strand *strand, struct moat_error *err);
int strand_large_end(struct strand *strand, struct moat_error *err);

/* Where the next byte will be. */
void strand_position(const struct strand *strand, uint64_t *ret_segment, uint64_t *ret_position);
/* Room for at least one byte, to be filled in place and then taken by strand_fill().  In a small
 * segment it is what was reserved, and more. */
int strand_space(struct strand *strand, uint8_t **ret, size_t *ret_size, struct moat_error *err);
void strand_fill(struct strand *strand, size_t size);
int strand_write(struct strand *strand, const void *data, size_t size, struct moat_error *err);
int strand_zeros(struct strand *strand, uint64_t size, struct moat_error *err);

#endif
