/* SPDX-License-Identifier: Apache-2.0 */
/* Where a file has data: lseek(2) with SEEK_DATA and SEEK_HOLE, and the text form of tar. */
#include "common/sparse.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/tar.h"

void
sparse_map_free(struct sparse_map *map)
{
	free(map->items);
	*map = (struct sparse_map){0};
}

int
sparse_map_add(struct sparse_map *map, uint64_t offset, uint64_t size, struct moat_error *err)
{
	if (map->count == map->allocated) {
		size_t allocated = map->allocated == 0 ? 16 : 2 * map->allocated;
		struct extent *items = realloc(map->items, allocated * sizeof *items);

		if (items == NULL)
			return moat_fail_memory(err);
		map->items = items;
		map->allocated = allocated;
	}
	map->items[map->count++] = (struct extent){offset, size};
	return 0;
}

uint64_t
sparse_map_data(const struct sparse_map *map)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < map->count; i++)
		sum += map->items[i].size;
	return sum;
}

static int
add_whole(struct sparse_map *map, uint64_t size, bool *ret_sparse, struct moat_error *err)
{
	map->count = 0;
	*ret_sparse = false;
	return sparse_map_add(map, 0, size, err);
}

#ifdef SEEK_DATA
/* The next extent at or after *offset.  1: found, and *offset is its end; 0: no more data; -1: the
 * filesystem cannot tell (errno). */
static int
next_extent(int fd, uint64_t size, bool last, uint64_t *offset, struct extent *ret)
{
	off_t data = lseek(fd, (off_t) *offset, SEEK_DATA);
	off_t hole;

	if (data < 0)
		return errno == ENXIO ? 0 : -1;
	if ((uint64_t) data >= size)
		return 0;
	hole = last ? (off_t) size : lseek(fd, data, SEEK_HOLE);
	if (hole < 0) /* ENXIO: it shrinks just now; reading will find out */
		return errno == ENXIO ? 0 : -1;
	if ((uint64_t) hole > size)
		hole = (off_t) size;
	if (hole <= data)
		return 0;
	*ret = (struct extent){(uint64_t) data, (uint64_t) (hole - data)};
	*offset = (uint64_t) hole;
	return 1;
}

int
sparse_map_scan(int fd, const struct stat *st, struct sparse_map *map, bool *ret_sparse,
		struct moat_error *err)
{
	uint64_t size = (uint64_t) st->st_size, offset = 0;
	struct extent extent;

	map->count = 0;
	if ((uint64_t) st->st_blocks >= size / 512)
		return add_whole(map, size, ret_sparse, err);
	while (offset < size) {
		int found = next_extent(fd, size, map->count == SPARSE_MAX - 2, &offset, &extent);

		if (found < 0)
			return add_whole(map, size, ret_sparse, err);
		if (found == 0)
			break;
		if (sparse_map_add(map, extent.offset, extent.size, err) < 0)
			return -1;
	}
	if (map->count == 1 && map->items[0].size == size)
		return add_whole(map, size, ret_sparse, err);
	*ret_sparse = true;
	return offset == size && map->count > 0 ? 0 : sparse_map_add(map, size, 0, err);
}
#else
int
sparse_map_scan(int fd, const struct stat *st, struct sparse_map *map, bool *ret_sparse,
		struct moat_error *err)
{
	return add_whole(map, (uint64_t) st->st_size, ret_sparse, err);
}
#endif

int
sparse_map_encode(const struct sparse_map *map, struct buf *out, struct moat_error *err)
{
	static const char zeros[TAR_BLOCK];

	buf_format(out, "%zu\n", map->count);
	for (size_t i = 0; i < map->count; i++)
		buf_format(out, "%llu\n%llu\n", (unsigned long long) map->items[i].offset,
			   (unsigned long long) map->items[i].size);
	buf_append(out, zeros, (size_t) tar_padding(out->size));
	return buf_check(out, err);
}
