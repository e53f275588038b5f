/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share.  Each is one function, LLVMFuzzerTestOneInput(), that is linked with
 * libFuzzer (`make fuzz') and with replay.c, which runs the files of a corpus (`make check').
 *
 * What must hold is checked with FUZZ_CHECK(): a crash is what a fuzzer looks for. */
#ifndef MOAT_TESTS_FUZZ_FUZZ_H
#define MOAT_TESTS_FUZZ_FUZZ_H

#include <nettle/sha2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/error.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                      \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__,           \
				#condition);                                                       \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* A failure must say something, on one line; success must not have set an error. */
static inline void
fuzz_check_result(int result, const struct moat_error *err)
{
	FUZZ_CHECK((result < 0) == (err->code != MOAT_OK));
	FUZZ_CHECK(result >= 0 || err->message[0] != '\0');
	FUZZ_CHECK(memchr(err->message, '\0', sizeof err->message) != NULL);
}

/* Random bytes never have the right digest: it is put in place of the last 32. */
static inline void
fuzz_fix_digest(uint8_t *data, size_t size)
{
	struct sha256_ctx sha;

	if (size < SHA256_DIGEST_SIZE)
		return;
	sha256_init(&sha);
	sha256_update(&sha, size - SHA256_DIGEST_SIZE, data);
	sha256_digest(&sha, SHA256_DIGEST_SIZE, data + size - SHA256_DIGEST_SIZE);
}

/* A copy that is exactly as long, so that a read past its end is seen.  Freed by the caller. */
static inline uint8_t *
fuzz_copy(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size > 0 ? size : 1);

	FUZZ_CHECK(copy != NULL);
	if (size > 0)
		memcpy(copy, data, size);
	return copy;
}

#endif
