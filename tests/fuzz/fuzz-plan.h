/* SPDX-License-Identifier: Apache-2.0 */
/* A plan holds three digests, one inside the other. */
#ifndef MOAT_TESTS_FUZZ_FUZZ_PLAN_H
#define MOAT_TESTS_FUZZ_FUZZ_PLAN_H

#include "tests/fuzz/fuzz.h"

/* "MOATTXN1", then twice a size and a manifest, the operations, a digest: all digests become right
 * as far as the sizes lead to them. */
static inline void
fuzz_fix_plan(uint8_t *data, size_t size)
{
	size_t at = 8;

	for (int i = 0; i < 2 && size >= 8 && at <= size - 8; i++) {
		uint64_t length = 0;

		for (size_t k = 0; k < 8; k++)
			length |= (uint64_t) data[at + k] << (8 * k);
		at += 8;
		if (length > size - at)
			break;
		fuzz_fix_digest(data + at, (size_t) length);
		at += (size_t) length;
	}
	fuzz_fix_digest(data, size);
}

#endif
