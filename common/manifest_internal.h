/* SPDX-License-Identifier: Apache-2.0 */
/* What writing and reading manifests share. */
#ifndef MOAT_COMMON_MANIFEST_INTERNAL_H
#define MOAT_COMMON_MANIFEST_INTERNAL_H

#include <nettle/sha2.h>

#include "common/manifest.h"

#define MANIFEST_MAGIC "MOATMAN1"
#define MANIFEST_DIFFERENCE_MAGIC "MOATDIF1"
#define MANIFEST_MAGIC_SIZE 8

/* The paths of one manifest, put together.  A small file could otherwise ask for any amount of
 * memory, since a path costs only what it does not share with the one before. */
#define MANIFEST_PATHS_MAX ((uint64_t) 256 * 1024 * 1024)

static inline void
manifest_digest(const void *data, size_t size, uint8_t ret[MOAT_HASH_SIZE])
{
	struct sha256_ctx sha;

	sha256_init(&sha);
	sha256_update(&sha, size, data);
	sha256_digest(&sha, MOAT_HASH_SIZE, ret);
}

#endif
