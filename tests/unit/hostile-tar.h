/* SPDX-License-Identifier: Apache-2.0 */
/* Archives that nobody honest makes, and some odd ones that are harmless. */
#ifndef MOAT_TESTS_UNIT_HOSTILE_TAR_H
#define MOAT_TESTS_UNIT_HOSTILE_TAR_H

#include <stddef.h>

#include "common/buf.h"

struct hostile_case {
	const char *name;
	const char *script; /* see hostile-tar.c */
	const char *words;  /* of the refusal; NULL: it is accepted */
};
extern const struct hostile_case hostile_cases[];
extern const size_t hostile_count;

/* The archive; the caller frees it. */
void hostile_make(const struct hostile_case *hostile, struct buf *ret);

#endif
