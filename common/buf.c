/* SPDX-License-Identifier: Apache-2.0 */
/* The growing array of bytes and the arena. */
#include "common/buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void
buf_free(struct buf *buf)
{
	int saved = errno;

	free(buf->data);
	memset(buf, 0, sizeof *buf);
	errno = saved;
}

/* Makes room for `size` bytes more and the NUL.  Doubling keeps appending linear. */
static bool
reserve(struct buf *buf, size_t size)
{
	size_t wanted, allocated;
	char *data;

	if (buf->failed)
		return false;
	if (size > SIZE_MAX / 2 - buf->size - 1) {
		buf->failed = 1;
		return false;
	}
	wanted = buf->size + size + 1;
	if (wanted <= buf->allocated)
		return true;
	allocated = buf->allocated * 2 > wanted ? buf->allocated * 2 : wanted;
	if (allocated < 64)
		allocated = 64;
	data = realloc(buf->data, allocated);
	if (data == NULL) {
		buf->failed = 1;
		return false;
	}
	buf->data = data;
	buf->allocated = allocated;
	return true;
}

void
buf_append(struct buf *buf, const void *data, size_t size)
{
	if (size == 0 || !reserve(buf, size))
		return;
	memcpy(buf->data + buf->size, data, size);
	buf->size += size;
	buf->data[buf->size] = '\0';
}

void
buf_string(struct buf *buf, const char *text)
{
	buf_append(buf, text, strlen(text));
}

void
buf_format(struct buf *buf, const char *format, ...)
{
	va_list args, again;
	int length;

	va_start(args, format);
	va_copy(again, args);
	length = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (length < 0)
		buf->failed = 1;
	else if (reserve(buf, (size_t) length)) {
		(void) vsnprintf(buf->data + buf->size, (size_t) length + 1, format, again);
		buf->size += (size_t) length;
	}
	va_end(again);
}

static void
append_little_endian(struct buf *buf, uint64_t value, size_t size)
{
	unsigned char bytes[8];

	for (size_t i = 0; i < size; i++)
		bytes[i] = (unsigned char) (value >> (8 * i));
	buf_append(buf, bytes, size);
}

void
buf_u32(struct buf *buf, uint32_t value)
{
	append_little_endian(buf, value, 4);
}

void
buf_u64(struct buf *buf, uint64_t value)
{
	append_little_endian(buf, value, 8);
}

int
buf_check(const struct buf *buf, struct moat_error *err)
{
	return buf->failed ? moat_fail_memory(err) : 0;
}

char *
buf_steal(struct buf *buf)
{
	char *data;

	if (!reserve(buf, 0))
		return NULL;
	data = buf->data;
	data[buf->size] = '\0';
	memset(buf, 0, sizeof *buf);
	return data;
}

/* Blocks are never reused, so what calloc() zeroed is handed out zeroed.  The first of the list is
 * the one that still has space. */
struct arena_block {
	struct arena_block *next;
	size_t size, used;
	uint64_t data[];
};

#define ARENA_BLOCK ((size_t) 64 * 1024)
#define ARENA_BLOCK_MAX ((size_t) 1024 * 1024)

/* A new block: at the head when it is one to be filled, behind the head when it is full at once. */
static struct arena_block *
add_block(struct arena *arena, size_t size, bool full)
{
	struct arena_block *block = calloc(1, sizeof *block + size);

	if (block == NULL)
		return NULL;
	block->size = size;
	if (full && arena->blocks != NULL) {
		block->next = arena->blocks->next;
		arena->blocks->next = block;
	} else {
		block->next = arena->blocks;
		arena->blocks = block;
	}
	return block;
}

void *
arena_alloc(struct arena *arena, size_t size)
{
	const size_t align = sizeof(uint64_t);
	struct arena_block *block = arena->blocks;
	size_t block_size = ARENA_BLOCK;
	void *result;

	if (size > SIZE_MAX / 2)
		return NULL;
	size = (size + align - 1) / align * align;
	if (block == NULL || block->size - block->used < size) {
		if (block != NULL && block->size >= ARENA_BLOCK)
			block_size = block->size * 2;
		if (block_size > ARENA_BLOCK_MAX)
			block_size = ARENA_BLOCK_MAX;
		if (size > block_size / 4)
			block = add_block(arena, size, true);
		else
			block = add_block(arena, block_size, false);
		if (block == NULL)
			return NULL;
	}
	result = (char *) block->data + block->used;
	block->used += size;
	arena->used += size;
	return result;
}

char *
arena_copy(struct arena *arena, const void *data, size_t size)
{
	char *copy = size < SIZE_MAX ? arena_alloc(arena, size + 1) : NULL;

	if (copy != NULL && size > 0)
		memcpy(copy, data, size);
	return copy;
}

char *
arena_string(struct arena *arena, const char *text)
{
	return arena_copy(arena, text, strlen(text));
}

bool
arena_owns(const struct arena *arena, const void *p)
{
	const char *byte = p;

	for (const struct arena_block *block = arena->blocks; block != NULL; block = block->next) {
		const char *data = (const char *) block->data;

		if (byte >= data && byte < data + block->used)
			return true;
	}
	return false;
}

/* The block that is being filled stays the first. */
void
arena_merge(struct arena *arena, struct arena *from)
{
	struct arena_block **end = &arena->blocks;

	while (*end != NULL)
		end = &(*end)->next;
	*end = from->blocks;
	arena->used += from->used;
	memset(from, 0, sizeof *from);
}

void
arena_free(struct arena *arena)
{
	struct arena_block *block = arena->blocks, *next;

	for (; block != NULL; block = next) {
		next = block->next;
		free(block);
	}
	memset(arena, 0, sizeof *arena);
}
