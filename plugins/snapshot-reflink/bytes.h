/* SPDX-License-Identifier: Apache-2.0 */
/* Little-endian numbers in bytes, as buf_u64() writes them. */
#ifndef MOAT_SNAPSHOT_REFLINK_BYTES_H
#define MOAT_SNAPSHOT_REFLINK_BYTES_H

#include <stdint.h>

static inline uint64_t
get_u64(const uint8_t *p)
{
	uint64_t value = 0;

	for (int i = 7; i >= 0; i--)
		value = value << 8 | p[i];
	return value;
}

#endif
