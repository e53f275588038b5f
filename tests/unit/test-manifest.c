/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest: order, leaders, the file format and everything that it refuses. */
#include "tests/unit/test.h"

#include <nettle/sha2.h>
#include <stdbool.h>
#include <time.h>

#include "common/manifest.h"
#include "common/text.h"

static struct moat_entry
entry_of(const char *path, int type)
{
	return (struct moat_entry){.path = path,
				   .type = (uint8_t) type,
				   .mode = type == MOAT_DIRECTORY ? 0755 : 0644,
				   .nlink = 1,
				   .leader = MOAT_NO_LEADER};
}

static struct moat_entry *
add(struct manifest *manifest, const char *path, int type)
{
	struct moat_entry entry = entry_of(path, type);

	if (type == MOAT_SYMLINK)
		entry.link_target = "target";
	return manifest_add(manifest, &entry);
}

static struct manifest *
new_manifest(void)
{
	struct manifest *manifest = manifest_new();

	assert_non_null(manifest);
	assert_non_null(add(manifest, "", MOAT_DIRECTORY));
	return manifest;
}

/* ------------------------------------------------------------------------------------- order */

static void
test_compare(void **state)
{
	static const char *const order[] = {"",     "\x01",  "a",    "a/\x01", "a/b",   "a/b/c",
					    "a/b-", "a\x01", "a b",  "a.b",    "a.b/c", "a0",
					    "b",    "b/a",   "\x7f", "\xff"};
	const size_t count = sizeof order / sizeof order[0];

	for (size_t i = 0; i < count; i++) {
		for (size_t j = 0; j < count; j++) {
			int result = manifest_compare(order[i], order[j]);

			assert_int_equal((result > 0) - (result < 0), (i > j) - (i < j));
		}
	}
}

static void
test_find(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = new_manifest();
	struct moat_error err = MOAT_ERROR_INIT;
	char path[32];

	assert_int_equal(manifest_find(manifest, "x"), -1);
	for (int i = 999; i >= 0; i--) {
		(void) snprintf(path, sizeof path, "d%d", i % 10);
		if (i >= 990)
			assert_non_null(add(manifest, path, MOAT_DIRECTORY));
		(void) snprintf(path, sizeof path, "d%d/f%d", i % 10, i);
		assert_non_null(add(manifest, path, MOAT_FILE));
	}
	assert_ok(manifest_seal(manifest, &err), &err);
	assert_int_equal(manifest->count, 1011);
	for (size_t i = 0; i < manifest->count; i++) {
		assert_int_equal(manifest_find(manifest, manifest->entries[i]->path), i);
		if (i > 0)
			assert_true(manifest_compare(manifest->entries[i - 1]->path,
						     manifest->entries[i]->path) < 0);
	}
	assert_int_equal(manifest_find(manifest, ""), 0);
	assert_int_equal(manifest_find(manifest, "d1/"), -1);
	assert_int_equal(manifest_find(manifest, "zzz"), -1);
	assert_int_equal(manifest_files(manifest), 1000);
	assert_non_null(add(manifest, "d1", MOAT_FILE));
	assert_fails(manifest_seal(manifest, &err), &err, MOAT_CORRUPT, "two entries of `d1'");
}

static void
test_add_copies(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = new_manifest();
	char path[] = "link", target[] = "target", xattrs[] = "user.a\0\1\0\0\0x";
	struct moat_entry entry = entry_of(path, MOAT_SYMLINK);
	const struct moat_entry *added;

	entry.link_target = target;
	entry.xattrs = xattrs;
	entry.xattrs_size = 12;
	added = manifest_add(manifest, &entry);
	path[0] = target[0] = xattrs[0] = '!';
	assert_string_equal(added->path, "link");
	assert_string_equal(added->link_target, "target");
	assert_memory_equal(added->xattrs, "user.a\0\1\0\0\0x", 12);
}

static void
set_inode(struct moat_entry *entry, uint64_t dev, uint64_t ino, uint64_t size)
{
	assert_non_null(entry);
	entry->dev = dev;
	entry->ino = ino;
	entry->nlink = 2;
	entry->size = size;
}

static void
test_leaders(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = new_manifest();
	struct moat_error err = MOAT_ERROR_INIT;
	static const char *const paths[] = {"z", "b", "a", "m", "other-dev", "single"};
	const struct moat_entry *z, *a;

	for (size_t i = 0; i < 6; i++)
		set_inode(add(manifest, paths[i], MOAT_FILE), i == 4 ? 2 : 1, 7, 100);
	((struct moat_entry *) manifest->entries[6])->nlink = 1;
	set_inode(add(manifest, "c", MOAT_FILE), 1, 8, 10);
	set_inode(add(manifest, "d", MOAT_DIRECTORY), 1, 7, 0);
	assert_ok(manifest_seal(manifest, &err), &err);
	assert_ok(manifest_seal(manifest, &err), &err);
	a = manifest->entries[manifest_find(manifest, "a")];
	z = manifest->entries[manifest_find(manifest, "z")];
	assert_true(a->leader == MOAT_NO_LEADER);
	assert_int_equal(z->leader, manifest_find(manifest, "a"));
	assert_int_equal(manifest->entries[manifest_find(manifest, "b")]->leader, z->leader);
	assert_int_equal(manifest->entries[manifest_find(manifest, "m")]->leader, z->leader);
	assert_true(manifest->entries[manifest_find(manifest, "c")]->leader == MOAT_NO_LEADER);
	assert_true(manifest->entries[manifest_find(manifest, "d")]->leader == MOAT_NO_LEADER);
	assert_true(manifest->entries[manifest_find(manifest, "other-dev")]->leader ==
		    MOAT_NO_LEADER);
	assert_true(manifest->entries[manifest_find(manifest, "single")]->leader == MOAT_NO_LEADER);
	assert_ptr_equal(manifest_content(manifest, z), a);
	assert_ptr_equal(manifest_content(manifest, a), a);
	assert_int_equal(manifest_bytes(manifest), 100 + 10 + 100 + 100);
}

static void
test_skips(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = new_manifest();
	struct moat_error err = MOAT_ERROR_INIT;
	char path[16];

	assert_null(manifest_find_skip(manifest, "x"));
	for (int i = 0; i < 200; i++) {
		(void) snprintf(path, sizeof path, "s%d", i * 37 % 200);
		assert_ok(manifest_add_skip(manifest, path, SKIP_SPECIAL, "socket", &err), &err);
	}
	assert_ok(manifest_add_skip(manifest, "s7", SKIP_TORN, NULL, &err), &err);
	assert_int_equal(manifest->skip_count, 201);
	for (size_t i = 1; i < 201; i++)
		assert_true(manifest_compare(manifest->skips[i - 1].path,
					     manifest->skips[i].path) <= 0);
	assert_string_equal(manifest_find_skip(manifest, "s199")->detail, "socket");
	assert_int_equal(manifest_find_skip(manifest, "s7")->reason, SKIP_SPECIAL);
	assert_null(manifest_find_skip(manifest, "s200"));
	for (int reason = 0; reason < 7; reason++)
		assert_true(strlen(skip_text(reason)) > 5);
}

/* ------------------------------------------------------------------------------- file format */

/* A bit of everything. */
static struct manifest *
sample(void)
{
	struct manifest *manifest = new_manifest();
	struct moat_error err = MOAT_ERROR_INIT;
	struct moat_entry *entry;

	manifest->started_ns = INT64_C(1795342272123456789);
	manifest->filter_flags = 5;
	assert_ok(manifest_add_rule(manifest, "", 1, "*.o\n\0x", 6, &err), &err);
	assert_ok(manifest_add_rule(manifest, "../..", 2, "", 0, &err), &err);
	assert_ok(manifest_add_skip(manifest, "d/sock", SKIP_SPECIAL, "socket", &err), &err);
	assert_ok(manifest_add_skip(manifest, "mnt", SKIP_MOUNT, "directory", &err), &err);
	assert_non_null(add(manifest, "d", MOAT_DIRECTORY));
	assert_non_null(add(manifest, "d/\xff\n", MOAT_SYMLINK));
	entry = add(manifest, "d/file", MOAT_FILE);
	assert_non_null(entry);
	entry->xattrs = "user.a\0\2\0\0\0xyuser.b\0\0\0\0\0";
	entry->xattrs_size = 13 + 11;
	entry->flags = MOAT_HAS_HASH | MOAT_HAS_LOCATOR | MOAT_IS_SPARSE;
	entry->status = MOAT_MODIFIED; /* is not stored */
	entry->mode = 04755;
	entry->uid = 1000;
	entry->gid = UINT32_MAX;
	entry->mtime_sec = -1;
	entry->mtime_nsec = 999999999;
	entry->ctime_sec = INT64_MIN;
	entry->locator[0] = 3;
	entry->locator[2] = UINT64_MAX;
	memset(entry->hash, 0xab, sizeof entry->hash);
	set_inode(entry, UINT64_MAX - 1, 77, INT64_MAX);
	set_inode(add(manifest, "e", MOAT_FILE), UINT64_MAX - 1, 77, INT64_MAX);
	assert_ok(manifest_seal(manifest, &err), &err);
	return manifest;
}

static void
assert_same_entry(const struct moat_entry *a, const struct moat_entry *b)
{
	assert_string_equal(a->path, b->path);
	assert_int_equal(a->link_target == NULL, b->link_target == NULL);
	if (a->link_target != NULL)
		assert_string_equal(a->link_target, b->link_target);
	assert_int_equal(a->xattrs_size, b->xattrs_size);
	if (a->xattrs_size > 0)
		assert_memory_equal(a->xattrs, b->xattrs, a->xattrs_size);
	assert_int_equal(a->type, b->type);
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->mode, b->mode);
	assert_int_equal(a->uid, b->uid);
	assert_int_equal(a->gid, b->gid);
	assert_true(a->size == b->size && a->dev == b->dev && a->ino == b->ino);
	assert_true(a->nlink == b->nlink && a->leader == b->leader);
	assert_true(a->mtime_sec == b->mtime_sec && a->mtime_nsec == b->mtime_nsec);
	assert_true(a->ctime_sec == b->ctime_sec && a->ctime_nsec == b->ctime_nsec);
	assert_memory_equal(a->locator, b->locator, sizeof a->locator);
	assert_memory_equal(a->hash, b->hash, sizeof a->hash);
}

static void
test_round_trip(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = sample();
	AUTO_MANIFEST struct manifest *decoded = NULL;
	AUTO_BUF struct buf data = {0};
	AUTO_BUF struct buf again = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	buf_string(&data, "before"); /* encoding appends */
	assert_ok(manifest_encode(manifest, &data, &err), &err);
	assert_ok(manifest_decode(data.data + 6, data.size - 6, &decoded, &err), &err);
	assert_true(decoded->started_ns == manifest->started_ns);
	assert_int_equal(decoded->filter_flags, 5);
	assert_int_equal(decoded->count, manifest->count);
	for (size_t i = 0; i < decoded->count; i++)
		assert_same_entry(decoded->entries[i], manifest->entries[i]);
	assert_int_equal(decoded->rule_count, 2);
	assert_int_equal(decoded->rules[0].size, 6);
	assert_memory_equal(decoded->rules[0].text, "*.o\n\0x", 6);
	assert_string_equal(decoded->rules[1].directory, "../..");
	assert_int_equal(decoded->rules[1].source, 2);
	assert_int_equal(decoded->skip_count, 2);
	assert_string_equal(decoded->skips[0].path, "d/sock");
	assert_string_equal(decoded->skips[1].detail, "directory");
	assert_int_equal(decoded->skips[1].reason, SKIP_MOUNT);
	/* What was decoded can be added to, and encodes to the same bytes. */
	assert_ok(manifest_encode(decoded, &again, &err), &err);
	assert_int_equal(again.size, data.size - 6);
	assert_memory_equal(again.data, data.data + 6, again.size);
	assert_non_null(add(decoded, "f", MOAT_FILE));
	assert_ok(manifest_add_skip(decoded, "g", SKIP_TORN, "", &err), &err);
	assert_ok(manifest_add_rule(decoded, "", 1, "", 0, &err), &err);
	assert_ok(manifest_seal(decoded, &err), &err);
}

static void
test_empty(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = manifest_new();
	AUTO_MANIFEST struct manifest *decoded = NULL;
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(manifest_seal(manifest, &err), &err);
	assert_ok(manifest_encode(manifest, &data, &err), &err);
	assert_ok(manifest_decode(data.data, data.size, &decoded, &err), &err);
	assert_int_equal(decoded->count, 0);
}

/* Copies to memory of just that size, so that reading beyond it is noticed by the sanitizers. */
static int
decode_copy(const char *data, size_t size, struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *decoded = NULL;
	AUTO_FREE char *copy = malloc(size + (size == 0));

	assert_non_null(copy);
	memcpy(copy, data, size);
	return manifest_decode(copy, size, &decoded, err);
}

static void
sign(char *data, size_t size)
{
	struct sha256_ctx sha;

	sha256_init(&sha);
	sha256_update(&sha, size - 32, (const uint8_t *) data);
	sha256_digest(&sha, 32, (uint8_t *) data + size - 32);
}

/* At each byte, as a damaged file and as one that somebody made to look whole. */
static void
test_truncated(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = sample();
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(manifest_encode(manifest, &data, &err), &err);
	for (size_t size = 0; size < data.size; size++)
		assert_fails(decode_copy(data.data, size, &err), &err, MOAT_CORRUPT, "manifest: ");
	for (size_t size = data.size - 1; size >= 40; size--) {
		sign(data.data, size);
		assert_fails(decode_copy(data.data, size, &err), &err, MOAT_CORRUPT,
			     "manifest: malformed: ");
	}
}

static void
test_flipped(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = sample();
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(manifest_encode(manifest, &data, &err), &err);
	for (size_t i = 0; i < data.size; i++) {
		for (int bit = 0; bit < 8; bit++) {
			data.data[i] = (char) (data.data[i] ^ 1 << bit);
			assert_fails(decode_copy(data.data, data.size, &err), &err, MOAT_CORRUPT,
				     "manifest: ");
			data.data[i] = (char) (data.data[i] ^ 1 << bit);
		}
	}
	assert_ok(decode_copy(data.data, data.size, &err), &err);
}

/* Every byte set to every value, and random changes, each with a good digest: whatever is accepted
 * must be sound. */
static void
check_sound(const char *data, size_t size)
{
	AUTO_MANIFEST struct manifest *manifest = NULL;
	AUTO_BUF struct buf again = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	if (manifest_decode(data, size, &manifest, &err) < 0) {
		assert_true(err.code == MOAT_CORRUPT);
		return;
	}
	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = manifest->entries[i];
		const char *slash = strrchr(entry->path, '/');
		char *parent =
			strndup(entry->path, slash == NULL ? 0 : (size_t) (slash - entry->path));
		int64_t at = manifest_find(manifest, parent);

		assert_true(at >= 0 && manifest->entries[at]->type == MOAT_DIRECTORY);
		assert_int_equal(manifest_find(manifest, entry->path), i);
		assert_string_not_equal(slash == NULL ? entry->path : slash + 1, "..");
		assert_true(entry->leader == MOAT_NO_LEADER || entry->leader < i);
		assert_true((entry->type == MOAT_SYMLINK) == (entry->link_target != NULL));
		free(parent);
	}
	assert_ok(manifest_encode(manifest, &again, &err), &err);
	/* A prefix shared less than it could be is the one thing that may be written otherwise:
	 * longer. */
	assert_true(again.size <= size);
}

static void
test_forged(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = sample();
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	const char *given = getenv("MOAT_TEST_SEED");
	unsigned seed = given != NULL ? (unsigned) strtoul(given, NULL, 10) : (unsigned) time(NULL);
	char *forged;

	print_message("seed %u\n", seed);
	srandom(seed);
	assert_ok(manifest_encode(manifest, &data, &err), &err);
	forged = malloc(data.size);
	assert_non_null(forged);
	for (size_t i = 8; i < data.size - 32; i++) {
		for (int value = 0; value < 256; value++) {
			memcpy(forged, data.data, data.size);
			forged[i] = (char) value;
			sign(forged, data.size);
			check_sound(forged, data.size);
		}
	}
	for (long i = 0; i < test_scaled(50000); i++) {
		memcpy(forged, data.data, data.size);
		for (long j = random() % 4; j >= 0; j--)
			forged[8 + (size_t) random() % (data.size - 40)] =
				(char) (random() % 2 == 0 ? random() : random() % 8);
		sign(forged, data.size);
		check_sound(forged, data.size);
	}
	free(forged);
}

/* Encodes what manifest_seal() would not have made, and expects it to be refused. */
static void
assert_refused(struct manifest *manifest, const char *why)
{
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(manifest_encode(manifest, &data, &err), &err);
	assert_fails(decode_copy(data.data, data.size, &err), &err, MOAT_CORRUPT, why);
	manifest_free(manifest);
}

static struct manifest *
with(const char *a, int type_a, const char *b, int type_b)
{
	struct manifest *manifest = new_manifest();

	assert_non_null(add(manifest, a, type_a));
	if (b != NULL)
		assert_non_null(add(manifest, b, type_b));
	return manifest;
}

static void
test_refused_paths(void **state)
{
	static const char *const bad[] = {".", "..", "/", "/etc", "a/", "//"};
	static const char *const below[] = {"a/.", "a/..", "a//b", "a/", "a/../b"};
	struct manifest *manifest;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_refused(with(bad[i], MOAT_FILE, NULL, 0), "malformed: ");
	for (size_t i = 0; i < sizeof below / sizeof below[0]; i++)
		assert_refused(with("a", MOAT_DIRECTORY, below[i], MOAT_FILE), "malformed: ");
	assert_refused(with("b", MOAT_FILE, "a", MOAT_FILE), "order");
	assert_refused(with("a", MOAT_FILE, "a", MOAT_FILE), "order");
	assert_refused(with("", MOAT_DIRECTORY, NULL, 0), "order");
	assert_refused(with("a.b", MOAT_FILE, "a/b", MOAT_FILE), "order");
	assert_refused(with("a/b", MOAT_FILE, NULL, 0), "directory of a path is missing");
	assert_refused(with("a", MOAT_FILE, "a/b", MOAT_FILE), "directory of a path is missing");
	assert_refused(with("a", MOAT_SYMLINK, "a/b", MOAT_FILE), "directory of a path is missing");
	assert_refused(with("a", MOAT_DIRECTORY, "ab/c", MOAT_FILE),
		       "directory of a path is missing");
	assert_refused(with("ab", MOAT_DIRECTORY, "b/c", MOAT_FILE),
		       "directory of a path is missing");
	manifest = manifest_new();
	assert_non_null(add(manifest, "a", MOAT_FILE));
	assert_refused(manifest, "root");
	manifest = manifest_new();
	assert_non_null(add(manifest, "", MOAT_FILE));
	assert_refused(manifest, "root");
}

static void
test_refused_fields(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct manifest *manifest;
	struct buf data = {0};

#define REFUSED(field, value, why)                                                                 \
	do {                                                                                       \
		manifest = with("a", MOAT_FILE, "b", MOAT_FILE);                                   \
		((struct moat_entry *) manifest->entries[2])->field = (value);                     \
		assert_refused(manifest, why);                                                     \
	} while (0)
	REFUSED(type, 0, "malformed");
	REFUSED(type, 4, "type");
	REFUSED(flags, 8, "flags");
	REFUSED(mode, 010000, "mode");
	REFUSED(size, UINT64_MAX, "size");
	REFUSED(mtime_nsec, 1000000000, "time");
	REFUSED(ctime_nsec, 1000000000, "time");
	REFUSED(leader, 0, "hard link"); /* a directory */
	REFUSED(leader, 2, "hard link"); /* itself */
	REFUSED(leader, 9, "hard link");
#undef REFUSED
	/* A leader that has a leader. */
	manifest = with("a", MOAT_FILE, "b", MOAT_FILE);
	((struct moat_entry *) manifest->entries[2])->leader = 1;
	assert_non_null(add(manifest, "c", MOAT_FILE));
	((struct moat_entry *) manifest->entries[3])->leader = 2;
	assert_refused(manifest, "hard link");
	/* A link with a leader. */
	manifest = with("a", MOAT_FILE, "b", MOAT_SYMLINK);
	((struct moat_entry *) manifest->entries[2])->leader = 1;
	assert_refused(manifest, "hard link");
	/* Skips. */
	manifest = with("a", MOAT_FILE, NULL, 0);
	assert_ok(manifest_add_skip(manifest, "../x", SKIP_SPECIAL, "", &err), &err);
	assert_refused(manifest, "skip");
	manifest = with("a", MOAT_FILE, NULL, 0);
	assert_ok(manifest_add_skip(manifest, "x", 9, "", &err), &err);
	assert_refused(manifest, "reason");
	/* A link without text is not written in the first place. */
	manifest = with("a", MOAT_SYMLINK, NULL, 0);
	((struct moat_entry *) manifest->entries[1])->link_target = NULL;
	assert_fails(manifest_encode(manifest, &data, &err), &err, MOAT_FAILED,
		     "link without text");
	buf_free(&data);
	manifest_free(manifest);
}

/* Headers that claim more than there can be must not cost memory. */
static void
test_refused_counts(void **state)
{
	static const char huge[] = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
	static const char *const places[] = {"\1\2", "\1\2\0", "\1\2\0\0", "\1\2\0\0\0"};
	struct moat_error err = MOAT_ERROR_INIT;

	for (size_t i = 0; i < 4; i++) {
		AUTO_BUF struct buf data = {0};

		buf_string(&data, "MOATMAN1");
		buf_append(&data, places[i], 2 + i);
		buf_append(&data, huge, 10);
		for (int j = 0; j < 8; j++)
			buf_string(&data, "xxxxxxxx");
		sign(data.data, data.size);
		assert_fails(decode_copy(data.data, data.size, &err), &err, MOAT_CORRUPT,
			     "a count is too large");
	}
}

/* Paths that share nearly all of the one before take far more memory than the file: refused, by
 * encoding as by decoding. */
static void
test_refused_bomb(void **state)
{
	const size_t length = (size_t) 64 * 1024 * 1024;
	AUTO_MANIFEST struct manifest *manifest = new_manifest();
	AUTO_MANIFEST struct manifest *decoded = NULL;
	AUTO_FREE char *path = malloc(length + 1);
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_non_null(path);
	memset(path, 'x', length);
	path[length] = '\0';
	for (int i = 0; i < 6; i++) {
		struct moat_entry *entry = add(manifest, "file", MOAT_FILE);

		assert_non_null(entry);
		entry->path = path;
	}
	assert_fails(manifest_encode(manifest, &data, &err), &err, MOAT_UNSUPPORTED, "paths");
	assert_int_equal(data.size, 0);
	/* Each path is that of the entry before with "x" at its end. */
	buf_append(&data, "MOATMAN1\0\0\0\0\0\6\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 31);
	buf_append(&data, "\0\x80\x80\x80\x20", 5);
	buf_append(&data, path, length);
	for (int i = 0; i < 5; i++) {
		buf_append(&data, "\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 15);
		if (i < 4) {
			buf_append(&data, (const char[]){(char) (0x80 + i), '\x80', '\x80', ' '},
				   4);
			buf_append(&data, "\1x", 2);
		}
	}
	for (int i = 0; i < 4; i++)
		buf_string(&data, "xxxxxxxx");
	assert_ok(buf_check(&data, &err), &err);
	sign(data.data, data.size);
	assert_fails(manifest_decode(data.data, data.size, &decoded, &err), &err, MOAT_CORRUPT,
		     "the paths are too long");
}

/* As large as a kernel tree: about 10 MB at most, and the round trip is exact. */
static void
test_size(void **state)
{
	AUTO_MANIFEST struct manifest *manifest = new_manifest();
	AUTO_MANIFEST struct manifest *decoded = NULL;
	AUTO_BUF struct buf data = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	const long directories = test_scaled(780);
	struct moat_entry *entry;
	char path[128];
	int64_t start;

	for (long i = 0; i < directories; i++) {
		(void) snprintf(path, sizeof path, "drivers-and-more-%ld", i);
		assert_non_null(add(manifest, path, MOAT_DIRECTORY));
		for (int j = 0; j < 100; j++) {
			(void) snprintf(path, sizeof path, "drivers-and-more-%ld/some-file-%d.c", i,
					j);
			entry = add(manifest, path, MOAT_FILE);
			assert_non_null(entry);
			entry->uid = entry->gid = 1000;
			entry->size = 20000;
			entry->mtime_sec = entry->ctime_sec = 1795342272;
			entry->mtime_nsec = entry->ctime_nsec = 123456789;
			entry->dev = 0xfd01;
			entry->ino = 12345678 + (uint64_t) i * 100 + (uint64_t) j;
			entry->flags = MOAT_HAS_HASH | MOAT_HAS_LOCATOR;
			entry->locator[1] = UINT64_C(1) << 30;
			entry->locator[2] = 20000;
		}
	}
	assert_ok(manifest_seal(manifest, &err), &err);
	assert_ok(manifest_encode(manifest, &data, &err), &err);
	assert_true(data.size < 128 * manifest->count + 1000);
	start = time_now_ns();
	assert_ok(manifest_decode(data.data, data.size, &decoded, &err), &err);
	print_message("%zu entries, %zu bytes, decoded in %lld ms\n", manifest->count, data.size,
		      (long long) (time_now_ns() - start) / 1000000);
	assert_int_equal(decoded->count, manifest->count);
	for (size_t i = 0; i < decoded->count; i++)
		assert_same_entry(decoded->entries[i], manifest->entries[i]);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compare),        cmocka_unit_test(test_find),
		cmocka_unit_test(test_add_copies),     cmocka_unit_test(test_leaders),
		cmocka_unit_test(test_skips),          cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_empty),          cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_flipped),        cmocka_unit_test(test_forged),
		cmocka_unit_test(test_refused_paths),  cmocka_unit_test(test_refused_fields),
		cmocka_unit_test(test_refused_counts), cmocka_unit_test(test_refused_bomb),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
