/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-archive reads packs that are damaged or forged: every byte, every length, and what
 * passes all checksums.  Nothing wrong is ever given back as right. */
#include <fcntl.h>
#include <lz4frame.h>
#include <nettle/sha2.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/tar.h"
#include "fake-archive.h"
#include "plugins/snapshot-archive/pack.h"
#include "plugins/snapshot-archive/store.h"

#define PACK "snap_000000000001.tar.lz4"

static void
write_pack(struct world *world, const void *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	int fd = openat(world->store_fd, PACK, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_ok(fs_write_all(fd, data, size, PACK, &err), &err);
	assert_int_equal(close(fd), 0);
}

static char *
read_pack(struct world *world, size_t *size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	char *data = NULL;

	assert_ok(fs_read(world->store_fd, PACK, 1 << 24, &data, size, &err), &err);
	return data;
}

/* A few small files of each kind, in one pack. */
static struct tree *
small_pack(struct world *world, char **ret, size_t *ret_size)
{
	struct tree *tree;
	int fd;

	make_file(world, "a", "some text, some text, some text\n", 32);
	make_random_file(world, "b", 200);
	make_file(world, "empty", "", 0);
	fd = openat(world->src_fd, "sparse", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(pwrite(fd, "x", 1, 70000), 1);
	assert_int_equal(close(fd), 0);
	tree = capture_ok(world, NULL, NULL);
	*ret = read_pack(world, ret_size);
	return tree;
}

/* Verifies; what is wrong must be told as damage, of an entry or of the pack. */
static bool
verify_finds(struct session *session)
{
	session->done = session->damaged = 0;
	if (extract(session) < 0) {
		assert_int_equal(session->err.code, MOAT_CORRUPT);
		assert_non_null(strstr(session->err.message, PACK));
		return true;
	}
	return session->damaged > 0;
}

/* With the pack as it is: verify tells of damage, or all content is proved; materialise gives back
 * the right content or fails.  Returns whether damage was found. */
static bool
check_damaged(struct world *world, struct tree *tree, bool place)
{
	struct session session = {.world = world, .tree = tree};
	bool found = verify_finds(&session);

	assert_false(session.wrong);
	assert_int_equal(session.done + session.damaged, 4);
	if (place) {
		size_t damaged = session.damaged;
		int r;

		session.place = true;
		r = extract(&session);
		assert_false(session.wrong);
		assert_true((r < 0) == (damaged > 0));
		if (r < 0)
			assert_int_equal(session.err.code, MOAT_CORRUPT);
		else if (!found)
			assert_restores(world, tree);
	}
	return found;
}

static void
test_every_byte(void **state)
{
	static const unsigned char masks[] = {0x01, 0x80, 0xff};
	struct world *world = *state;
	size_t size, cases = 0;
	char *pack;
	struct tree *tree = small_pack(world, &pack, &size);
	/* Directories, files, links and directories, the manifest, the end. */
	size_t index = size - PACK_FOOTER_SIZE - 5 * PACK_ITEM_SIZE - 8;
	long step = 100 / test_scaled(100);

	assert_int_equal(get_u32((const uint8_t *) pack + index), PACK_INDEX_MAGIC);
	for (size_t i = 0; i < size; i += (size_t) step) {
		for (size_t m = 0; m < sizeof masks; m++, cases++) {
			pack[i] = (char) (pack[i] ^ masks[m]);
			write_pack(world, pack, size);
			if (!check_damaged(world, tree, m == 0))
				fail_msg("byte %zu of %zu ^ 0x%02x was not found", i, size,
					 masks[m]);
			pack[i] = (char) (pack[i] ^ masks[m]);
		}
	}
	print_message("# %zu flips\n", cases);
	write_pack(world, pack, size);
	assert_false(check_damaged(world, tree, true));
	free(pack);
	tree_free(tree);
}

static void
test_every_length(void **state)
{
	struct world *world = *state;
	size_t size, cases = 0;
	char *pack;
	struct tree *tree = small_pack(world, &pack, &size);
	long step = 100 / test_scaled(100);

	for (size_t n = 0; n < size; n += (size_t) step, cases++) {
		write_pack(world, pack, n);
		assert_true(check_damaged(world, tree, true));
	}
	pack = realloc(pack, size + 8);
	memset(pack + size, 0, 8);
	for (size_t n = 1; n <= 8; n++, cases++) {
		write_pack(world, pack, size + n);
		assert_true(check_damaged(world, tree, true));
	}
	print_message("# %zu lengths\n", cases);
	free(pack);
	tree_free(tree);
}

/* A pack in which nothing is that the listed files need is looked at, too. */
static void
test_nothing_wanted(void **state)
{
	struct world *world = *state;
	size_t size, cases = 0;
	struct session session = {.world = world};
	struct tree *first;
	char *pack;

	make_random_file(world, "a", 200);
	first = capture_ok(world, NULL, NULL);
	session.tree = capture_ok(world, first, NULL);
	(void) renameat(world->store_fd, PACK, world->store_fd, "kept");
	(void) renameat(world->store_fd, "snap_000000000002.tar.lz4", world->store_fd, PACK);
	pack = read_pack(world, &size);
	assert_int_equal(unlinkat(world->store_fd, PACK, 0), 0);
	assert_int_equal(renameat(world->store_fd, "kept", world->store_fd, PACK), 0);
	for (size_t i = 0; i < size; i++, cases++) {
		int fd = openat(world->store_fd, "snap_000000000002.tar.lz4",
				O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		pack[i] = (char) (pack[i] ^ 0x10);
		assert_int_equal(write(fd, pack, size), size);
		assert_int_equal(close(fd), 0);
		assert_fails(extract(&session), &session.err, MOAT_CORRUPT, "snap_000000000002");
		pack[i] = (char) (pack[i] ^ 0x10);
	}
	assert_int_equal(unlinkat(world->store_fd, "snap_000000000002.tar.lz4", 0), 0);
	assert_fails(extract(&session), &session.err, MOAT_CORRUPT, "is missing");
	assert_int_equal(session.damaged, 0);
	assert_int_equal(session.done, cases + 1);
	print_message("# %zu flips\n", cases);
	free(pack);
	tree_free(first);
	tree_free(session.tree);
}

static int
count_found(void *context, const struct moat_ref *ref, const void *manifest, size_t size,
	    struct moat_error *err)
{
	++*(int *) context;
	return 0;
}

static int
stop_found(void *context, const struct moat_ref *ref, const void *manifest, size_t size,
	   struct moat_error *err)
{
	return moat_fail(err, MOAT_FAILED, "stopped by the test");
}

/* One damaged pack does not hide the others. */
static void
test_enumerate_damaged(void **state)
{
	struct world *world = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	int found = 0;
	struct tree *tree;
	char *pack;
	size_t size;

	tree_free(small_pack(world, &pack, &size));
	tree = capture_ok(world, NULL, NULL);
	write_pack(world, pack, size / 2);
	assert_ok(world->ops->enumerate(world->self, count_found, &found, &err), &err);
	assert_int_equal(found, 1);
	assert_true(fake_warnings > 0);
	assert_fails(world->ops->enumerate(world->self, stop_found, NULL, &err), &err, MOAT_FAILED,
		     "stopped by the test");
	free(pack);
	tree_free(tree);
}

/* What stands at the place of a pack may be anything. */
static void
test_not_a_file(void **state)
{
	struct world *world = *state;
	size_t size;
	char *pack;
	struct tree *tree = small_pack(world, &pack, &size);
	struct session session = {.world = world, .tree = tree};

	assert_int_equal(unlinkat(world->store_fd, PACK, 0), 0);
	assert_int_equal(mkfifoat(world->store_fd, PACK, 0600), 0);
	assert_true(verify_finds(&session));
	assert_int_equal(session.damaged, 3);
	assert_int_equal(unlinkat(world->store_fd, PACK, 0), 0);
	assert_int_equal(mkdirat(world->store_fd, PACK, 0700), 0);
	assert_true(verify_finds(&session));
	assert_int_equal(session.damaged, 3);
	assert_int_equal(unlinkat(world->store_fd, PACK, AT_REMOVEDIR), 0);
	assert_int_equal(symlinkat("/etc/passwd", world->store_fd, PACK), 0);
	assert_int_equal(extract(&session), -1);
	assert_int_equal(unlinkat(world->store_fd, PACK, 0), 0);
	free(pack);
	tree_free(tree);
}

/* --------------------------------------------------- forged: every checksum is that of a pack */

/* Makes a pack of one frame with that content, and an index that says what it is told. */
static void
forge_pack(struct world *world, const void *content, size_t size, size_t claimed_packed,
	   size_t claimed_content, uint32_t kind)
{
	LZ4F_preferences_t preferences = {.frameInfo = {.contentSize = 1}};
	size_t room = LZ4F_compressFrameBound(size, &preferences);
	struct sha256_ctx sha;
	struct buf pack = {0}, index = {0};
	uint8_t hash[32];
	char *frame = malloc(room);

	assert_non_null(frame);
	room = LZ4F_compressFrame(frame, room, content, size, &preferences);
	assert_false(LZ4F_isError(room));
	buf_u32(&index, PACK_INDEX_MAGIC);
	buf_u32(&index, PACK_ITEM_SIZE + PACK_FOOTER_SIZE);
	buf_u32(&index, (uint32_t) (claimed_packed == 0 ? room : claimed_packed));
	buf_u32(&index, (uint32_t) (claimed_content == 0 ? size : claimed_content));
	buf_u32(&index, 0);
	buf_u32(&index, kind);
	sha256_init(&sha);
	sha256_update(&sha, claimed_packed != 0 && claimed_packed < room ? claimed_packed : room,
		      (const uint8_t *) frame);
	sha256_digest(&sha, sizeof hash, hash);
	buf_append(&index, hash, PACK_CHECK_SIZE);
	buf_u64(&index, 1);
	sha256_init(&sha);
	sha256_update(&sha, index.size, (const uint8_t *) index.data);
	sha256_digest(&sha, sizeof hash, hash);
	buf_append(&pack, frame, room);
	buf_append(&pack, index.data, index.size);
	buf_append(&pack, hash, sizeof hash);
	buf_append(&pack, PACK_MAGIC, 8);
	assert_false(pack.failed || index.failed);
	write_pack(world, pack.data, pack.size);
	free(frame);
	buf_free(&pack);
	buf_free(&index);
}

struct forgery {
	const char *records; /* of an extended header; NULL: none */
	const char *data;    /* behind the header */
	uint64_t size;       /* in the header */
	char type;
	bool accepted;
};

static void
forge_member(struct buf *out, const struct forgery *forgery)
{
	struct tar_member member = {
		.type = forgery->type, .path = "f", .mode = 0600, .size = forgery->size};
	struct moat_error err = MOAT_ERROR_INIT;
	static const char zeros[4 * TAR_BLOCK];
	size_t n;

	if (forgery->records != NULL) {
		struct tar_member pax = {
			.type = TAR_PAX, .path = "p", .size = strlen(forgery->records)};

		assert_ok(tar_header(out, &pax, &err), &err);
		buf_string(out, forgery->records);
		buf_append(out, zeros, (size_t) tar_padding(pax.size));
	}
	assert_ok(tar_header(out, &member, &err), &err);
	n = strlen(forgery->data);
	buf_append(out, forgery->data, n);
	buf_append(out, zeros, (size_t) tar_padding(n) + 1024);
}

#define SPARSE(size) "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n" size

static const struct forgery forgeries[] = {
	{NULL, "0123456789", 10, '0', true},
	{"9 size=10\n", "0123456789", 0, '0', false},
	{"11 size=10\n", "0123456789", 0, '0', true},
	{"11 path=xy\n11 size=10\n", "0123456789", 3, '0', true},
	{"26 SCHILY.xattr.u=si\nze=1\n11 size=10\n", "0123456789", 0, '0', true},
	{NULL, "0123456789", 9, '0', false},
	{NULL, "0123456789", 11, '0', false},
	{NULL, "0123456789", 077777777777, '0', false},
	{NULL, "0123456789", 10, '1', false},
	{NULL, "0123456789", 10, '2', false},
	{NULL, "0123456789", 10, '5', false},
	{NULL, "0123456789", 10, 'L', false},
	{NULL, "0123456789", 10, 'x', false},
	{NULL, "0123456789", 10, 'g', false},
	{"11 size=10", "0123456789", 0, '0', false},
	{"12 size=10\n", "0123456789", 0, '0', false},
	{"99999999999999999999 size=10\n", "0123456789", 0, '0', false},
	{"18446744073709551615 s=1\n", "0123456789", 10, '0', false},
	{"9223372036854775807 s=1\n", "0123456789", 10, '0', false},
	{"-1 size=10\n", "0123456789", 0, '0', false},
	{"0 \n", "0123456789", 10, '0', false},
	{"2 \n", "0123456789", 10, '0', false},
	{"3 \n", "0123456789", 10, '0', false},
	{" size=10\n", "0123456789", 0, '0', false},
	{"size=10\n", "0123456789", 0, '0', false},
	{"6 abc\n", "0123456789", 10, '0', false},
	{"11 size=-1\n", "0123456789", 0, '0', false},
	{"9 size=\n", "0123456789", 0, '0', false},
	{"29 size=18446744073709551626\n", "0123456789", 0, '0', false},
	{"28 size=9223372036854775808\n", "0123456789", 0, '0', false},
	{SPARSE("25 GNU.sparse.realsize=10\n"), "1\n0\n10\n", 522, '0', false},
	{SPARSE("25 GNU.sparse.realsize=10\n"), "0\n", 512, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "0\n", 512, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "x\n", 512, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "1\n0\n11\n", 523, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "1\n11\n0\n", 512, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "2\n5\n1\n0\n1\n", 514, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "1\n9223372036854775807\n1\n", 513, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "99999\n", 512, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "18446744073709551616\n", 512, '0', false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "11111111111111111111111111111111\n", 512, '0',
	 false},
	{SPARSE("26 GNU.sparse.realsize=10\n"), "1\n0\n10\n", 10, '0', false},
	{SPARSE("26 GNU.sparse.realsize=11\n"), "1\n0\n10\n", 522, '0', false},
	/* Without the size of the manifest this would be hashed for a century. */
	{SPARSE("43 GNU.sparse.realsize=4611686018427387904\n"), "1\n4611686018427387904\n0\n", 512,
	 '0', false},
	{"22 GNU.sparse.major=2\n22 GNU.sparse.minor=0\n26 GNU.sparse.realsize=10\n", "1\n0\n10\n",
	 522, '0', false},
};

static void
test_forged_members(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};
	struct tree *tree;
	size_t n = sizeof forgeries / sizeof *forgeries;

	make_file(world, "f", "0123456789", 10);
	session.tree = tree = capture_ok(world, NULL, NULL);
	for (size_t i = 0; i < n; i++) {
		struct buf content = {0};

		forge_member(&content, &forgeries[i]);
		forge_pack(world, content.data, content.size, 0, 0, SEGMENT_CONTENT);
		tree->entries[tree_index(tree, "f")].locator[1] = 0;
		assert_true(verify_finds(&session)); /* there is no manifest in it */
		if (session.done != (size_t) forgeries[i].accepted)
			fail_msg("forgery %zu: %zu done, %zu damaged", i, session.done,
				 session.damaged);
		assert_int_equal(session.done + session.damaged, 1);
		assert_false(session.wrong);
		buf_free(&content);
	}
	print_message("# %zu forged members\n", n);
	tree_free(tree);
}

static void
test_forged_frames(void **state)
{
	static const size_t sizes[] = {1,    511,       1024,          2047,
				       2049, FRAME_MAX, FRAME_MAX + 1, UINT32_MAX};
	static const struct forgery good = {NULL, "0123456789", 10, '0', true};
	struct world *world = *state;
	struct session session = {.world = world};
	struct buf content = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	int found = 0;

	make_file(world, "f", "0123456789", 10);
	session.tree = capture_ok(world, NULL, NULL);
	session.tree->entries[tree_index(session.tree, "f")].locator[1] = 0;
	forge_member(&content, &good);
	assert_int_equal(content.size, 2048);
	for (size_t i = 0; i < 2 * sizeof sizes / sizeof *sizes; i++) {
		bool packed = i % 2 == 0;

		forge_pack(world, content.data, content.size, packed ? sizes[i / 2] : 0,
			   packed ? 0 : sizes[i / 2], SEGMENT_CONTENT);
		assert_true(verify_finds(&session));
		assert_int_equal(session.damaged, 1);
		assert_false(session.wrong);
		assert_int_equal(session.done, 0);
	}
	for (uint64_t at = 1; at < 4096; at += 511) {
		forge_pack(world, content.data, content.size, 0, 0, SEGMENT_CONTENT);
		session.tree->entries[tree_index(session.tree, "f")].locator[2] = at;
		assert_true(verify_finds(&session));
		assert_int_equal(session.damaged, 1);
		session.tree->entries[tree_index(session.tree, "f")].locator[2] = 0;
		session.tree->entries[tree_index(session.tree, "f")].locator[1] = at << 20;
		assert_true(verify_finds(&session));
		assert_int_equal(session.damaged, 1);
		session.tree->entries[tree_index(session.tree, "f")].locator[1] = 0;
	}
	/* A kind that does not exist; a manifest with something behind it; one as it should be. */
	forge_pack(world, content.data, content.size, 0, 0, SEGMENT_END + 1);
	assert_ok(world->ops->enumerate(world->self, count_found, &found, &err), &err);
	forge_pack(world, content.data, content.size, 0, 0, SEGMENT_MANIFEST);
	assert_ok(world->ops->enumerate(world->self, count_found, &found, &err), &err);
	assert_int_equal(found, 0);
	forge_pack(world, content.data, content.size - 1024, 0, 0, SEGMENT_MANIFEST);
	assert_ok(world->ops->enumerate(world->self, count_found, &found, &err), &err);
	assert_int_equal(found, 1);
	assert_true(verify_finds(&session)); /* the tar stream does not end */
	buf_free(&content);
	tree_free(session.tree);
}

/* ------------------------------------------------------------- the tar reader, on random bytes */

struct memory {
	const char *data;
	size_t left;
};

static int
read_memory(void *context, void *data, size_t size, struct moat_error *err)
{
	struct memory *memory = context;

	if (size > memory->left)
		return moat_fail(err, MOAT_CORRUPT, "end");
	memcpy(data, memory->data, size);
	memory->data += size;
	memory->left -= size;
	return 0;
}

static void
mend_checksums(char *data, size_t size)
{
	for (size_t at = 0; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
		struct tar_block block;

		memcpy(&block, data + at, sizeof block);
		if (memcmp(block.magic, "ustar", 6) != 0)
			continue;
		(void) snprintf(block.chksum, sizeof block.chksum, "%06o",
				tar_checksum(&block) & 0777777);
		memcpy(data + at, &block, sizeof block);
	}
}

static void
test_random_headers(void **state)
{
	long rounds = test_scaled(200000), good = 0;
	struct buf model = {0}, copy = {0};

	forge_member(&model, &(struct forgery){SPARSE("26 GNU.sparse.realsize=10\n"),
					       "3\n1\n1\n4\n2\n10\n0\n", 515, '0', true});
	for (long i = 0; i < rounds; i++) {
		struct tar_file file = {0};
		struct moat_error err = MOAT_ERROR_INIT;
		struct memory memory;
		struct tar_source source = {read_memory, &memory};

		copy.size = 0;
		buf_append(&copy, model.data, model.size);
		for (uint64_t n = random_below(4); n > 0; n--) {
			size_t at =
				random_below(2) ? 512 + random_below(80) : random_below(copy.size);

			copy.data[at] = "0123456789 =\n\xff"[random_below(14)];
		}
		mend_checksums(copy.data, copy.size);
		memory = (struct memory){copy.data, copy.size};
		if (tar_read_file(&source, &file, &err) == 0) {
			good++;
			assert_true(file.map.count <= SPARSE_MAX);
			for (size_t m = 0; m < file.map.count; m++)
				assert_true(file.map.items[m].offset + file.map.items[m].size <=
					    file.size);
		} else {
			assert_int_equal(err.code, MOAT_CORRUPT);
		}
		tar_file_free(&file);
	}
	print_message("# %ld random headers, %ld accepted\n", rounds, good);
	assert_true(good > rounds / 10 && good < rounds);
	buf_free(&model);
	buf_free(&copy);
}

/* A map longer than the writer makes is not taken into memory. */
static void
test_long_map(void **state)
{
	struct tar_member member = {
		.type = '0', .path = "f", .sparse = true, .real_size = 10, .size = 1 << 17};
	struct moat_error err = MOAT_ERROR_INIT;
	struct tar_file file = {0};
	struct buf out = {0};
	struct memory memory;
	struct tar_source source = {read_memory, &memory};

	assert_ok(tar_header(&out, &member, &err), &err);
	buf_format(&out, "%d\n", SPARSE_MAX + 1);
	for (int i = 0; i < 2 * SPARSE_MAX + 4096; i++)
		buf_string(&out, "0\n");
	memory = (struct memory){out.data, out.size};
	assert_fails(tar_read_file(&source, &file, &err), &err, MOAT_CORRUPT, "absurd size");
	tar_file_free(&file);
	buf_free(&out);
}

/* Each length of a name, so that each count of digits of a record's length is met. */
static void
test_record_lengths(void **state)
{
	char path[1200];

	for (size_t n = 1; n < sizeof path; n++) {
		struct moat_error err = MOAT_ERROR_INIT;
		struct tar_member member = {.type = '0', .path = path, .size = UINT64_C(1) << 40};
		struct tar_file file = {0};
		struct buf out = {0};
		struct memory memory;
		struct tar_source source = {read_memory, &memory};

		memset(path, 'p', n);
		path[n] = '\0';
		assert_ok(tar_header(&out, &member, &err), &err);
		assert_int_equal(out.size % TAR_BLOCK, 0);
		memory = (struct memory){out.data, out.size};
		assert_ok(tar_read_file(&source, &file, &err), &err);
		assert_int_equal(memory.left, 0);
		assert_true(file.size == member.size);
		tar_file_free(&file);
		buf_free(&out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_every_byte),     WORLD_TEST(test_every_length),
		WORLD_TEST(test_nothing_wanted), WORLD_TEST(test_enumerate_damaged),
		WORLD_TEST(test_not_a_file),     WORLD_TEST(test_forged_members),
		WORLD_TEST(test_forged_frames),  cmocka_unit_test(test_random_headers),
		cmocka_unit_test(test_long_map), cmocka_unit_test(test_record_lengths),
	};

	random_start();
	return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
