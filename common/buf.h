/* SPDX-License-Identifier: Apache-2.0 */
/* A growing array of bytes, and an arena for things that die together. */
#ifndef MOAT_COMMON_BUF_H
#define MOAT_COMMON_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cleanup.h"
#include "common/error.h"

/* Zeroed: empty.  data is NUL-terminated whenever it is not NULL (the NUL is not counted in size).
 * A failed allocation sets `failed`, after which every append does nothing: check once, at the end.
 */
struct buf {
	char *data;
	size_t size, allocated;
	int failed;
};

void buf_free(struct buf *buf); /* leaves it empty */
#define AUTO_BUF CLEANUP(buf_free)

void buf_append(struct buf *buf, const void *data, size_t size);
void buf_string(struct buf *buf, const char *text);
void buf_format(struct buf *buf, const char *format, ...) MOAT_PRINTF(2, 3);
void
buf_u32(struct buf *buf, uint32_t value); /* little endian, as are all numbers that moat stores */
void buf_u64(struct buf *buf, uint64_t value);
/* 0, or -1 with MOAT_NO_MEMORY when an append has failed. */
int buf_check(const struct buf *buf, struct moat_error *err);
/* The data, which the caller frees, and an empty buf; "" rather than NULL when nothing was
 * appended. NULL when an append has failed. */
char *buf_steal(struct buf *buf);

/* Memory that is freed all at once.  Zeroed: empty.  Not thread-safe. */
struct arena {
	struct arena_block *blocks;
	size_t used; /* bytes, for statistics */
};

void *
arena_alloc(struct arena *arena,
	    size_t size); /* zeroed, aligned for pointers and 64-bit numbers; NULL: no memory */
char *arena_copy(struct arena *arena, const void *data, size_t size); /* NUL is added */
char *arena_string(struct arena *arena, const char *text);
bool arena_owns(const struct arena *arena, const void *p);
/* Takes over all that `from` has, and leaves it empty. */
void arena_merge(struct arena *arena, struct arena *from);
void arena_free(struct arena *arena);

#endif
