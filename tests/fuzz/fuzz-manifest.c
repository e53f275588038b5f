/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests.  The first byte says how the rest is taken: bit 0 gives it the right digest, bit 1
 * reads it as the difference from a base that is made here. */
#include "common/manifest.h"
#include "tests/fuzz/fuzz.h"

/* What can be read can be used: looked up, written, and read again as the same bytes. */
static void
use(const struct manifest *manifest)
{
	AUTO_BUF struct buf once = {0}, twice = {0};
	AUTO_MANIFEST struct manifest *again = NULL;
	struct moat_error err = MOAT_ERROR_INIT;

	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = manifest->entries[i];

		FUZZ_CHECK(manifest_find(manifest, entry->path) == (int64_t) i);
		FUZZ_CHECK(manifest_content(manifest, entry) != NULL);
		FUZZ_CHECK(entry->type != MOAT_SYMLINK || entry->link_target != NULL);
		FUZZ_CHECK(i == 0 ||
			   manifest_compare(manifest->entries[i - 1]->path, entry->path) < 0);
	}
	for (size_t i = 0; i < manifest->skip_count; i++)
		FUZZ_CHECK(manifest_find_skip(manifest, manifest->skips[i].path) != NULL);
	(void) manifest_bytes(manifest);
	(void) manifest_files(manifest);
	FUZZ_CHECK(manifest_encode(manifest, &once, &err) == 0);
	FUZZ_CHECK(manifest_decode(once.data, once.size, &again, &err) == 0);
	FUZZ_CHECK(manifest_encode(again, &twice, &err) == 0);
	FUZZ_CHECK(once.size == twice.size && memcmp(once.data, twice.data, once.size) == 0);
}

#ifdef MANIFEST_ID_MAX /* there are differences */
static struct manifest *
make_base(void)
{
	static const char *const paths[] = {"", "a", "d", "d/b", "d/c", "e"};
	AUTO_MANIFEST struct manifest *manifest = manifest_new();
	AUTO_BUF struct buf encoded = {0};
	struct manifest *base = NULL;

	FUZZ_CHECK(manifest != NULL);
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		bool directory = paths[i][0] == '\0' || strcmp(paths[i], "d") == 0;
		struct moat_entry entry = {.path = paths[i],
					   .type = directory ? MOAT_DIRECTORY : MOAT_FILE,
					   .mode = directory ? 0755 : 0644,
					   .size = directory ? 0 : 10,
					   .nlink = 1,
					   .ino = i + 1,
					   .leader = MOAT_NO_LEADER};

		FUZZ_CHECK(manifest_add(manifest, &entry) != NULL);
	}
	FUZZ_CHECK(manifest_seal(manifest, NULL) == 0 &&
		   manifest_encode(manifest, &encoded, NULL) == 0 &&
		   manifest_decode(encoded.data, encoded.size, &base, NULL) == 0);
	return base;
}

static int
decode(const uint8_t *data, size_t size, bool difference, struct manifest **ret,
       struct moat_error *err)
{
	static struct manifest *base;
	char id[MANIFEST_ID_MAX];

	if (base == NULL)
		base = make_base();
	(void) manifest_base(data, size, id, NULL);
	return difference ? manifest_decode_with(data, size, base, ret, err)
			  : manifest_decode(data, size, ret, err);
}
#else
static int
decode(const uint8_t *data, size_t size, bool difference, struct manifest **ret,
       struct moat_error *err)
{
	return manifest_decode(data, size, ret, err);
}
#endif

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_MANIFEST struct manifest *manifest = NULL;
	AUTO_FREE uint8_t *copy = NULL;
	int result;

	if (size == 0)
		return 0;
	copy = fuzz_copy(data + 1, size - 1);
	if ((data[0] & 1) != 0)
		fuzz_fix_digest(copy, size - 1);
	result = decode(copy, size - 1, (data[0] & 2) != 0, &manifest, &err);
	fuzz_check_result(result, &err);
	FUZZ_CHECK((result == 0) == (manifest != NULL));
	if (result == 0)
		use(manifest);
	return 0;
}
