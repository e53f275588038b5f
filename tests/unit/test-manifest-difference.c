/* SPDX-License-Identifier: Apache-2.0 */
/* Manifests that are written as the difference from another: whatever changed, reading both gives
 * the manifest back, shares what is the same, and believes nothing that does not fit together. */
#include "tests/unit/test.h"

#include <nettle/sha2.h>
#include <time.h>

#include "common/manifest.h"

#define BASE_ID "snap_0123456789ab"

static unsigned seed;

static unsigned
rnd(unsigned n)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % n;
}

static void
add(struct manifest *manifest, const char *path, int type, uint64_t ino, uint64_t nlink)
{
	struct moat_entry entry = {.path = path,
				   .type = (uint8_t) type,
				   .mode = 0644,
				   .size = type == MOAT_FILE ? rnd(3) : 0,
				   .ino = ino,
				   .nlink = nlink,
				   .mtime_sec = (int64_t) rnd(3),
				   .flags = MOAT_HAS_HASH | MOAT_HAS_LOCATOR,
				   .locator = {1, rnd(3), 0},
				   .leader = MOAT_NO_LEADER};

	if (type == MOAT_SYMLINK)
		entry.link_target = rnd(2) == 0 ? "here" : "there";
	if (type == MOAT_FILE && rnd(9) == 0) {
		entry.xattrs = "user.a\0\2\0\0\0xy";
		entry.xattrs_size = 13;
	}
	assert_non_null(manifest_add(manifest, &entry));
}

/* A tree of up to four directories with up to six objects each; some files have two names. */
static struct manifest *
random_manifest(void)
{
	struct manifest *manifest = manifest_new();
	struct moat_error err = MOAT_ERROR_INIT;
	uint64_t ino = 10;
	char path[64];

	assert_non_null(manifest);
	manifest->started_ns = (int64_t) rnd(1000) - 500;
	manifest->filter_flags = rnd(2);
	add(manifest, "", MOAT_DIRECTORY, 1, 2);
	assert_ok(manifest_add_note(manifest, "type", rnd(2) == 0 ? "manual" : "safety", &err),
		  &err);
	if (rnd(2) == 0)
		assert_ok(manifest_add_skip(manifest, "d0/s", SKIP_SPECIAL, "socket", &err), &err);
	if (rnd(2) == 0)
		assert_ok(manifest_add_rule(manifest, "", 1, "*.o", 3, &err), &err);
	for (int d = 0; d < 4; d++) {
		if (rnd(4) == 0)
			continue;
		snprintf(path, sizeof path, "d%d", d);
		add(manifest, path, MOAT_DIRECTORY, ++ino, 2);
		for (int f = 0; f < 6; f++) {
			snprintf(path, sizeof path, "d%d/f%d", d, f);
			switch (rnd(6)) {
			case 0:
				break;
			case 1:
				add(manifest, path, MOAT_SYMLINK, ++ino, 1);
				break;
			case 2:
				add(manifest, path, MOAT_FILE, 5, 2);
				break;
			default:
				add(manifest, path, MOAT_FILE, ++ino, 1);
				break;
			}
		}
	}
	assert_ok(manifest_seal(manifest, &err), &err);
	return manifest;
}

/* What a store would read. */
static struct manifest *
stored(const struct manifest *manifest)
{
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	struct manifest *read;

	assert_ok(manifest_encode(manifest, &data, &err), &err);
	assert_ok(manifest_decode(data.data, data.size, &read, &err), &err);
	assert_true(read->has_digest);
	assert_int_equal(read->encoded_size, data.size);
	return read;
}

static void
assert_same_manifest(const struct manifest *a, const struct manifest *b)
{
	AUTO_BUF struct buf x = {0}, y = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(manifest_encode(a, &x, &err), &err);
	assert_ok(manifest_encode(b, &y, &err), &err);
	assert_int_equal(x.size, y.size);
	assert_memory_equal(x.data, y.data, x.size);
}

static void
test_random(void **state)
{
	const char *text = getenv("MOAT_TEST_SEED"), *scale = getenv("MOAT_TEST_SCALE");
	size_t cases = 2000, shared = 0;

	seed = text == NULL ? (unsigned) time(NULL) : (unsigned) strtoul(text, NULL, 10);
	cases = cases * (scale == NULL ? 100 : strtoul(scale, NULL, 10)) / 100;
	print_message("seed %u, %zu cases\n", seed, cases);
	for (size_t i = 0; i < cases; i++) {
		AUTO_MANIFEST struct manifest *old = random_manifest(), *new = random_manifest();
		AUTO_MANIFEST struct manifest *base = stored(old), *read = NULL;
		AUTO_BUF struct buf data = {0};
		struct moat_error err = MOAT_ERROR_INIT;
		char id[MANIFEST_ID_MAX];

		assert_ok(manifest_encode_difference(new, base, BASE_ID, &data, &err), &err);
		assert_int_equal(manifest_base(data.data, data.size, id, &err), 1);
		assert_string_equal(id, BASE_ID);
		assert_ok(manifest_decode_with(data.data, data.size, base, &read, &err), &err);
		assert_same_manifest(read, new);
		for (size_t j = 0; j < read->count; j++)
			for (size_t k = 0; k < base->count; k++)
				shared += read->entries[j] == base->entries[k];
	}
	assert_true(cases < 10 || shared > 0);
}

/* What is the same costs nothing, in the file and in memory. */
static void
test_unchanged(void **state)
{
	AUTO_MANIFEST struct manifest *old = random_manifest(), *base = stored(old), *read = NULL;
	AUTO_MANIFEST struct manifest *same = stored(old);
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(manifest_encode_difference(same, base, BASE_ID, &data, &err), &err);
	assert_true(data.size < 200);
	assert_ok(manifest_decode_with(data.data, data.size, base, &read, &err), &err);
	for (size_t i = 0; i < read->count; i++)
		if (read->entries[i]->nlink == 1)
			assert_ptr_equal(read->entries[i], base->entries[i]);
	/* The result keeps its base. */
	manifest_free(STEAL(base));
	assert_same_manifest(read, old);
	/* A shared entry is copied before it is written to. */
	assert_non_null(manifest_own(read, 0));
	manifest_own(read, 0)->mode = 0700;
	assert_int_equal(read->entries[0]->mode, 0700);
	assert_int_equal(read->shared->entries[0]->mode, 0644);
}

static void
test_wrong_base(void **state)
{
	AUTO_MANIFEST struct manifest *old = random_manifest(), *base = stored(old), *read = NULL;
	AUTO_MANIFEST struct manifest *other_source = random_manifest();
	AUTO_MANIFEST struct manifest *other = NULL;
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	other_source->started_ns = 12345678;
	other = stored(other_source);
	assert_ok(manifest_encode_difference(other_source, base, BASE_ID, &data, &err), &err);
	assert_fails(manifest_decode(data.data, data.size, &read, &err), &err, MOAT_CORRUPT,
		     "needs its base");
	assert_fails(manifest_decode_with(data.data, data.size, other, &read, &err), &err,
		     MOAT_CORRUPT, "not the one");
	assert_fails(manifest_decode_with(data.data, data.size, other_source, &read, &err), &err,
		     MOAT_CORRUPT, "not the one");
	assert_null(read);
}

static void
sign(struct buf *data)
{
	struct sha256_ctx sha;

	sha256_init(&sha);
	sha256_update(&sha, data->size - 32, (const uint8_t *) data->data);
	sha256_digest(&sha, 32, (uint8_t *) data->data + data->size - 32);
}

/* Every byte changed, with the checksum made right again: it may be read as something else, but
 * never past its end, and never as a tree that is none. */
static void
test_forged(void **state)
{
	AUTO_MANIFEST struct manifest *old = random_manifest(), *base = stored(old);
	AUTO_MANIFEST struct manifest *new = random_manifest();
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	size_t refused = 0, read_well = 0;

	assert_ok(manifest_encode_difference(new, base, BASE_ID, &data, &err), &err);
	for (size_t i = 0; i + 32 < data.size; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			AUTO_MANIFEST struct manifest *read = NULL, *again = NULL;
			AUTO_FREE char *copy = malloc(data.size);
			struct moat_error why = MOAT_ERROR_INIT;

			data.data[i] = (char) (data.data[i] ^ (1 << bit));
			memcpy(copy, data.data, data.size);
			/* Without the right checksum. */
			assert_fails(manifest_decode_with(copy, data.size, base, &read, &why), &why,
				     MOAT_CORRUPT, "");
			sign(&data);
			memcpy(copy, data.data, data.size);
			if (manifest_decode_with(copy, data.size, base, &read, &why) < 0) {
				refused++;
			} else {
				read_well++;
				again = stored(read);
			}
			data.data[i] = (char) (data.data[i] ^ (1 << bit));
			sign(&data);
		}
	}
	print_message("%zu refused, %zu read as another tree\n", refused, read_well);
	assert_true(refused > 0);
	for (size_t size = 0; size < data.size; size++) {
		AUTO_MANIFEST struct manifest *read = NULL;
		AUTO_FREE char *copy = malloc(size + 1);
		struct moat_error why = MOAT_ERROR_INIT;

		memcpy(copy, data.data, size);
		assert_fails(manifest_decode_with(copy, size, base, &read, &why), &why,
			     MOAT_CORRUPT, "");
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_unchanged),
		cmocka_unit_test(test_wrong_base),
		cmocka_unit_test(test_forged),
	};

	seed = 7;
	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
