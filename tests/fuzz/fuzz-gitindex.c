/* SPDX-License-Identifier: Apache-2.0 */
/* A git index: each name of it is found again, by the order that it claims to have. */
#include "core/gitindex.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_GITINDEX struct gitindex *index = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	int result = gitindex_parse((char *) fuzz_copy(data, size), size, &index, &err);

	fuzz_check_result(result, &err);
	if (result < 0)
		return 0;
	for (size_t i = 0; i < index->count; i++) {
		size_t at = gitindex_position(index, index->entries[i].path);

		FUZZ_CHECK(at <= i && strcmp(index->entries[at].path, index->entries[i].path) == 0);
	}
	(void) gitindex_position(index, "");
	(void) gitindex_position(index, "m/n");
	return 0;
}
