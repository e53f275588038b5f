/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a set, and the copy of the manifest beside it.
 *
 *     8 bytes          "MOATSET1"
 *     8                number of the set
 *     8                bytes of files that had to be copied
 *     8, 32            bytes of the manifest, SHA-256 of it
 *     8                count of files
 *     8 for each       its size; all ones: there is no file of that number
 *     32               SHA-256 of the index up to here
 *
 * All numbers are little endian.  The content of the files is proved by the hashes in the manifest;
 * the index proves that none is missing, and itself and the manifest. */
#ifndef MOAT_SNAPSHOT_REFLINK_CATALOGUE_H
#define MOAT_SNAPSHOT_REFLINK_CATALOGUE_H

#include <stdint.h>

#include "common/buf.h"
#include "store.h"

#define NO_FILE UINT64_MAX
#define INDEX_NAME "index"
#define MANIFEST_NAME "manifest"

struct catalogue {
	uint64_t number, copied_bytes;
	uint64_t manifest_size;
	uint8_t manifest_hash[MOAT_HASH_SIZE];
	uint64_t count;
	uint64_t *sizes;
	uint64_t index_size; /* bytes of the file */
};

void catalogue_free(struct catalogue *catalogue);
#define AUTO_CATALOGUE CLEANUP(catalogue_free)

int catalogue_encode(const struct reflink *reflink, const struct catalogue *catalogue,
		     struct buf *out, struct moat_error *err);
/* Reads and checks the index of an open set.  Damaged, missing, of another set: MOAT_CORRUPT. */
int catalogue_read(const struct reflink *reflink, uint64_t number, int set_fd,
		   struct catalogue *ret, struct moat_error *err);
/* Reads the manifest and checks it by the index; missing: MOAT_NOT_FOUND.  *ret is freed by the
 * caller. */
int catalogue_manifest(const struct reflink *reflink, const struct catalogue *catalogue, int set_fd,
		       char **ret, struct moat_error *err);

#endif
