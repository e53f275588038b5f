/* SPDX-License-Identifier: Apache-2.0 */
/* Holes: the parts of a file that have data, found in a file or written down in a tar member (the
 * GNU sparse format 1.0: the map as decimal lines before the data). */
#ifndef MOAT_COMMON_SPARSE_H
#define MOAT_COMMON_SPARSE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/error.h"

/* The most extents that a map has: beyond that holes are stored as the zeros that they read as. */
#define SPARSE_MAX 16384

struct extent {
	uint64_t offset, size;
};

/* Zeroed: empty.  Ascending, disjoint; the last one reaches the end of the file: one of size 0 when
 * that is a hole. */
struct sparse_map {
	struct extent *items;
	size_t count, allocated;
};

void sparse_map_free(struct sparse_map *map);
#define AUTO_SPARSE_MAP CLEANUP(sparse_map_free)

int sparse_map_add(struct sparse_map *map, uint64_t offset, uint64_t size, struct moat_error *err);
/* Bytes of data. */
uint64_t sparse_map_data(const struct sparse_map *map);
/* Maps an open file of that size.  *ret_sparse false: it has no holes, or none that the filesystem
 * tells of; then the map is one extent. */
int sparse_map_scan(int fd, const struct stat *st, struct sparse_map *map, bool *ret_sparse,
		    struct moat_error *err);
/* The map as it stands before the data, padded to blocks of tar. */
int sparse_map_encode(const struct sparse_map *map, struct buf *out, struct moat_error *err);

#endif
