/* SPDX-License-Identifier: Apache-2.0 */
/* Compressing, by all of a crew. */
#include "press.h"

#include <stdlib.h>
#include <string.h>

void
press_init(struct press *press, const struct archive *archive, struct crew *crew,
	   struct pack_writer *pack)
{
	*press = (struct press){.archive = archive, .crew = crew, .pack = pack};
	press->preferences.compressionLevel = archive->level;
	press->preferences.frameInfo.blockSizeID = LZ4F_max1MB;
	press->preferences.frameInfo.blockMode = LZ4F_blockIndependent;
	/* No checksums of LZ4's own: the index has a better one of each frame, and that of the
	 * content would cost a tenth of a capture. */
	press->preferences.frameInfo.contentSize = 1; /* "yes"; the real size is filled in */
	press->bound = LZ4F_compressFrameBound(FRAME_MAX, &press->preferences);
}

void
press_destroy(struct press *press)
{
	for (size_t i = 0; i < press->chunk_count; i++) {
		free(press->chunks[i].content);
		free(press->chunks[i].packed);
	}
}

/* Fills in sizes and check of the frame. */
static int
compress(const struct press *press, const uint8_t *content, size_t size, uint8_t *packed,
	 struct frame *ret, struct moat_error *err)
{
	size_t n = LZ4F_compressFrame(packed, press->bound, content, size, &press->preferences);

	if (LZ4F_isError(n)) /* the room is always enough, so it is memory */
		return moat_fail(err, MOAT_NO_MEMORY, "LZ4: %s", LZ4F_getErrorName(n));
	ret->content = (uint32_t) size;
	ret->packed = (uint32_t) n;
	return archive_check(press->archive, packed, n, ret->check, err);
}

/* ------------------------------------------------------------------------- with the lock held */

static struct chunk *
chunk_of(struct press *press, uint64_t number)
{
	return &press->chunks[number % press->chunk_count];
}

/* Compresses one chunk that waits.  Returns 1 when there was one. */
static int
help(struct press *press, struct moat_error *err)
{
	for (uint64_t n = press->written; n < press->filled; n++) {
		struct chunk *chunk = chunk_of(press, n);
		int r;

		if (chunk->state != CHUNK_FILLED)
			continue;
		chunk->state = CHUNK_BUSY;
		pthread_mutex_unlock(&press->crew->lock);
		r = compress(press, chunk->content, chunk->size, chunk->packed, &chunk->frame, err);
		pthread_mutex_lock(&press->crew->lock);
		chunk->state = CHUNK_PACKED;
		pthread_cond_broadcast(&press->crew->changed);
		return r < 0 ? -1 : 1;
	}
	return 0;
}

/* Does something useful until something has changed. */
static int
help_or_wait(struct press *press, struct moat_error *err)
{
	int r = crew_check(press->crew, err) < 0 ? -1 : help(press, err);

	if (r == 0)
		pthread_cond_wait(&press->crew->changed, &press->crew->lock);
	return r < 0 ? -1 : 0;
}

/* Only the owner of the large segment: its next chunk goes into the file, if it is compressed. */
static int
write_chunk(struct press *press, struct moat_error *err)
{
	struct chunk *chunk = chunk_of(press, press->written);
	struct frame frame;
	int r;

	if (press->written == press->filled || chunk->state != CHUNK_PACKED)
		return 0; /* while it is busy, the frame is another thread's */
	frame = chunk->frame;
	frame.segment = press->large.segment;
	frame.kind = press->large.kind;
	if (pack_writer_reserve(press->pack, &frame, err) < 0)
		return -1;
	pthread_mutex_unlock(&press->crew->lock);
	r = pack_writer_put(press->pack, &frame, chunk->packed, err);
	pthread_mutex_lock(&press->crew->lock);
	chunk->state = CHUNK_FREE;
	press->written++;
	return r < 0 ? -1 : 1;
}

/* Writes what is compressed, compresses what is not, until no more than `left` chunks remain. */
static int
write_chunks(struct press *press, uint64_t left, struct moat_error *err)
{
	while (press->filled - press->written > left) {
		int r = crew_check(press->crew, err) < 0 ? -1 : write_chunk(press, err);

		if (r < 0 || (r == 0 && help_or_wait(press, err) < 0))
			return -1;
	}
	return 0;
}

static int
take(struct press *press, struct moat_error *err)
{
	while (press->taken)
		if (help_or_wait(press, err) < 0)
			return -1;
	return crew_check(press->crew, err);
}

/* One more than there are members, so that the owner can read while all others compress. */
static int
make_chunks(struct press *press, struct moat_error *err)
{
	while (press->chunk_count < press->crew->count + 1) {
		struct chunk *chunk = &press->chunks[press->chunk_count++];

		chunk->content = malloc(FRAME_MAX);
		chunk->packed = malloc(press->bound);
		if (chunk->content == NULL || chunk->packed == NULL)
			return moat_fail_memory(err);
	}
	return 0;
}

/* ------------------------------------------------------------------------------- the segments */

int
press_finish(struct press *press, struct moat_error *err)
{
	int r = 0;

	pthread_mutex_lock(&press->crew->lock);
	press->finished++;
	pthread_cond_broadcast(&press->crew->changed);
	while (r == 0 && press->finished < press->crew->count)
		r = help_or_wait(press, err);
	pthread_mutex_unlock(&press->crew->lock);
	return r;
}

int
strand_init(struct strand *strand, struct press *press, struct moat_error *err)
{
	*strand = (struct strand){.press = press};
	strand->content = malloc(FRAME_MAX);
	strand->packed = malloc(press->bound);
	return strand->content == NULL || strand->packed == NULL ? moat_fail_memory(err) : 0;
}

void
strand_destroy(struct strand *strand)
{
	free(strand->content);
	free(strand->packed);
	*strand = (struct strand){0};
}

int
strand_flush(struct strand *strand, struct moat_error *err)
{
	struct press *press = strand->press;
	struct frame frame = {.segment = strand->segment, .kind = strand->kind};
	int r;

	if (strand->used == 0)
		return 0;
	if (compress(press, strand->content, strand->used, strand->packed, &frame, err) < 0)
		return -1;
	pthread_mutex_lock(&press->crew->lock);
	r = take(press, err);
	if (r == 0)
		r = pack_writer_reserve(press->pack, &frame, err);
	pthread_mutex_unlock(&press->crew->lock);
	strand->used = 0;
	return r < 0 ? -1 : pack_writer_put(press->pack, &frame, strand->packed, err);
}

int
strand_reserve(struct strand *strand, uint32_t kind, size_t size, struct moat_error *err)
{
	if ((strand->kind != kind || size > FRAME_MAX - strand->used) &&
	    strand_flush(strand, err) < 0)
		return -1;
	if (strand->used > 0)
		return 0;
	pthread_mutex_lock(&strand->press->crew->lock);
	strand->segment = strand->press->next_segment++;
	pthread_mutex_unlock(&strand->press->crew->lock);
	strand->kind = kind;
	return 0;
}

int
strand_large_begin(struct strand *strand, uint32_t kind, struct moat_error *err)
{
	struct press *press = strand->press;
	int r;

	pthread_mutex_lock(&press->crew->lock);
	r = take(press, err);
	if (r == 0) {
		press->taken = true;
		press->large = (struct frame){.segment = press->next_segment++, .kind = kind};
		press->begin = pack_writer_frames(press->pack);
		press->filled = press->written = 0;
		r = make_chunks(press, err);
	}
	pthread_mutex_unlock(&press->crew->lock);
	if (r < 0)
		return -1;
	strand->large = press->large.segment;
	strand->before = 0;
	strand->chunk = &press->chunks[0];
	strand->chunk->size = 0;
	return 0;
}

/* The chunk that is being filled is handed in. */
static int
hand_in(struct strand *strand, struct moat_error *err)
{
	struct press *press = strand->press;
	int r;

	pthread_mutex_lock(&press->crew->lock);
	strand->before += strand->chunk->size;
	strand->chunk->state = CHUNK_FILLED;
	press->filled++;
	pthread_cond_broadcast(&press->crew->changed);
	r = write_chunks(press, press->chunk_count - 1, err);
	strand->chunk = chunk_of(press, press->filled);
	strand->chunk->size = 0;
	pthread_mutex_unlock(&press->crew->lock);
	return r;
}

int
strand_large_flush(struct strand *strand, struct moat_error *err)
{
	struct press *press = strand->press;
	int r = strand->chunk->size == 0 ? 0 : hand_in(strand, err);

	if (r < 0)
		return -1;
	pthread_mutex_lock(&press->crew->lock);
	r = write_chunks(press, 0, err);
	pthread_mutex_unlock(&press->crew->lock);
	return r;
}

int
strand_large_rewind(struct strand *strand, struct moat_error *err)
{
	struct press *press = strand->press;

	if (strand_large_flush(strand, err) < 0)
		return -1;
	pthread_mutex_lock(&press->crew->lock);
	pack_writer_rewind(press->pack, press->begin);
	pthread_mutex_unlock(&press->crew->lock);
	strand->before = 0;
	return 0;
}

int
strand_large_end(struct strand *strand, struct moat_error *err)
{
	struct press *press = strand->press;

	if (strand_large_flush(strand, err) < 0)
		return -1;
	strand->chunk = NULL;
	pthread_mutex_lock(&press->crew->lock);
	press->taken = false;
	pthread_cond_broadcast(&press->crew->changed);
	pthread_mutex_unlock(&press->crew->lock);
	return 0;
}

/* ---------------------------------------------------------------------------------- the bytes */

void
strand_position(const struct strand *strand, uint64_t *ret_segment, uint64_t *ret_position)
{
	bool large = strand->chunk != NULL;

	*ret_segment = large ? strand->large : strand->segment;
	*ret_position = large ? strand->before + strand->chunk->size : strand->used;
}

int
strand_space(struct strand *strand, uint8_t **ret, size_t *ret_size, struct moat_error *err)
{
	size_t used;

	if (strand->chunk != NULL && strand->chunk->size == FRAME_MAX && hand_in(strand, err) < 0)
		return -1;
	used = strand->chunk != NULL ? strand->chunk->size : strand->used;
	*ret = (strand->chunk != NULL ? strand->chunk->content : strand->content) + used;
	*ret_size = FRAME_MAX - used;
	if (*ret_size == 0) /* more than was reserved */
		return moat_fail(err, MOAT_FAILED, "a member is larger than its frame");
	return 0;
}

void
strand_fill(struct strand *strand, size_t size)
{
	*(strand->chunk != NULL ? &strand->chunk->size : &strand->used) += size;
}

int
strand_write(struct strand *strand, const void *data, size_t size, struct moat_error *err)
{
	const uint8_t *from = data;

	while (size > 0) {
		uint8_t *to;
		size_t n;

		if (strand_space(strand, &to, &n, err) < 0)
			return -1;
		n = n < size ? n : size;
		memcpy(to, from, n);
		strand_fill(strand, n);
		from += n;
		size -= n;
	}
	return 0;
}

int
strand_zeros(struct strand *strand, uint64_t size, struct moat_error *err)
{
	while (size > 0) {
		uint8_t *to;
		size_t n;

		if (strand_space(strand, &to, &n, err) < 0)
			return -1;
		n = n < size ? n : (size_t) size;
		memset(to, 0, n);
		strand_fill(strand, n);
		size -= n;
	}
	return 0;
}
