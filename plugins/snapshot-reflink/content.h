/* SPDX-License-Identifier: Apache-2.0 */
/* The content of one file: cloned, copied where that is refused, and hashed. */
#ifndef MOAT_SNAPSHOT_REFLINK_CONTENT_H
#define MOAT_SNAPSHOT_REFLINK_CONTENT_H

#include "workers.h"

/* Gives `to`, a new and empty file, the content of `from`, of `size` bytes when it was last looked
 * at.
 *
 * A clone is that of one moment, whoever writes to `from` meanwhile.  *ret_copied: the filesystem
 * refused (a file without copy-on-write, a swap file), and the blocks were copied: holes are kept,
 * but what is written meanwhile may be in it in part. */
int content_transfer(struct work *work, int from, int to, uint64_t size, bool *ret_copied,
		     struct moat_error *err);

/* Reads a file to its end, or until it is longer than `size`, and hashes it.  *ret_size: how much
 * it was.  What cannot be read is MOAT_CORRUPT. */
int content_hash(struct work *work, int fd, uint64_t size, uint64_t *ret_size,
		 uint8_t ret[MOAT_HASH_SIZE], struct moat_error *err);

#endif
