/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a file as our own packs hold it. */
#include "common/tar.h"
#include "tests/fuzz/fuzz.h"

struct bytes {
	const uint8_t *data;
	size_t size;
};

static int
read_bytes(void *context, void *data, size_t size, struct moat_error *err)
{
	struct bytes *bytes = context;

	if (size > bytes->size)
		return moat_fail(err, MOAT_CORRUPT, "it ends");
	memcpy(data, bytes->data, size);
	bytes->data += size;
	bytes->size -= size;
	return 0;
}

/* With the checksum of the first header made right, that of a second after it, too. */
static void
fix_checksums(uint8_t *data, size_t size)
{
	for (size_t at = 0; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
		struct tar_block block;
		char sum[8];

		memcpy(&block, data + at, sizeof block);
		if (memcmp(block.magic, "ustar", 5) != 0)
			continue;
		(void) snprintf(sum, sizeof sum, "%06o", tar_checksum(&block) & 0777777u);
		memcpy(block.chksum, sum, 7);
		block.chksum[7] = ' ';
		memcpy(data + at, &block, sizeof block);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_TAR_FILE struct tar_file file = {0};
	uint8_t *copy = fuzz_copy(data, size);
	struct bytes bytes = {copy, size};
	struct tar_source source = {read_bytes, &bytes};
	int result;

	fix_checksums(copy, size);
	result = tar_read_file(&source, &file, &err);
	fuzz_check_result(result, &err);
	if (result == 0) {
		uint64_t at = 0;

		/* A map goes forward, and ends where the file does. */
		for (size_t i = 0; i < file.map.count; i++) {
			FUZZ_CHECK(file.map.items[i].offset >= at);
			FUZZ_CHECK(file.map.items[i].size <= file.size &&
				   file.map.items[i].offset <= file.size - file.map.items[i].size);
			at = file.map.items[i].offset + file.map.items[i].size;
		}
		FUZZ_CHECK(file.map.count == 0 || at == file.size);
	}
	free(copy);
	return 0;
}
