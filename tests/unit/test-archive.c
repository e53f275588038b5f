/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-archive: what goes in comes out, by the plugin and by stock lz4 and tar. */
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "fake-archive.h"
#include "plugins/snapshot-archive/archive.h"

static void
test_sizes(void **state)
{
	static const size_t sizes[] = {0,
				       1,
				       511,
				       512,
				       513,
				       1023,
				       1024,
				       1025,
				       FRAME_MAX - 1536,
				       FRAME_MAX - 1024,
				       FRAME_MAX - 513,
				       FRAME_MAX - 512,
				       FRAME_MAX - 1,
				       FRAME_MAX,
				       FRAME_MAX + 1,
				       2 * FRAME_MAX + 4321};
	struct world *world = *state;
	struct tree *tree;
	char name[32];

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		(void) snprintf(name, sizeof name, "f%zu", sizes[i]);
		make_random_file(world, name, sizes[i]);
	}
	tree = capture_ok(world, NULL, NULL);
	assert_restores(world, tree);
	assert_stock_tools_restore(world);
	tree_free(tree);
}

static void
make_odd_names(struct world *world)
{
	static const char *const names[] = {"-rf",
					    "new\nline",
					    "tab\there",
					    "back\\slash",
					    "latin\xe4\xff",
					    "caf\xc3\xa9",
					    " ",
					    "..data",
					    "quote'\"",
					    "%n%s",
					    "a=b",
					    ".moat-manifest-snap_000000000001",
					    "\x01\x7f",
					    ".moat-manifest-snap_000000000001-1"};
	char longest[256], inner[300];

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		make_file(world, names[i], names[i], strlen(names[i]));
	memset(longest, 'x', 255);
	longest[255] = '\0';
	make_file(world, longest, "long", 4);
	memset(longest, '\xfe', 255);
	assert_int_equal(mkdirat(world->src_fd, longest, 0755), 0);
	for (size_t n = 97; n <= 102; n++) {
		memset(longest, 'd', sizeof longest);
		longest[n] = '\0';
		assert_int_equal(mkdirat(world->src_fd, longest, 0700), 0);
		longest[0] = 'f';
		make_file(world, longest, longest, n);
		/* Cut off behind the slash where it is 100 bytes long: still a file. */
		(void) snprintf(inner, sizeof inner, "d%s/file", longest + 1);
		make_file(world, inner, "inner", 5);
	}
}

static void
test_odd_names(void **state)
{
	struct world *world = *state;
	struct tree *tree;

	make_odd_names(world);
	tree = capture_ok(world, NULL, NULL);
	assert_restores(world, tree);
	assert_stock_tools_restore(world);
	/* The two files called like a manifest's copy are those of the workspace. */
	assert_int_equal(run_shell("for f in .moat-manifest-snap_000000000001 "
				   ".moat-manifest-snap_000000000001-1; do "
				   "cmp -s \"$1/$f\" \"$2/tar/$f\" || exit 1; done",
				   world->src, world->path, NULL),
			 0);
	assert_int_equal(count_manifests(world), 1);
	tree_free(tree);
}

/* Directories of 200 bytes each until the path is longer than `length`; a file in the last. */
static void
make_deep(struct world *world, size_t length)
{
	int fd = dup(world->src_fd), next;
	char name[201];

	memset(name, 'n', 200);
	name[200] = '\0';
	for (size_t n = 0; n < length; n += 201) {
		assert_int_equal(mkdirat(fd, name, 0700), 0);
		next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		(void) close(fd);
		fd = next;
	}
	next = openat(fd, "leaf", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(next, "deep", 4), 4);
	(void) close(next);
	assert_int_equal(symlinkat("leaf", fd, "link"), 0);
	assert_int_equal(linkat(fd, "leaf", fd, "second", 0), 0);
	(void) close(fd);
}

static void
test_long_paths(void **state)
{
	struct world *world = *state;
	struct tree *tree;

	make_deep(world, 1000);
	tree = capture_ok(world, NULL, NULL);
	assert_restores(world, tree);
	assert_stock_tools_restore(world);
	tree_free(tree);
	make_deep(world, 0);
	make_random_file(world, "other", 10);
	assert_int_equal(run_shell("rm -rf \"$1\"/n*", world->src, NULL), 0);
	make_deep(world, 6000);
	tree = capture_ok(world, NULL, NULL);
	assert_restores(world, tree);
	tree_free(tree);
}

/* Links of both kinds, odd times, odd modes, extended attributes: for the stock tools. */
static void
test_metadata(void **state)
{
	static const char script[] =
		"set -e; cd \"$1\"; echo 1 >a; ln a b; mkdir d; ln a d/c; ln -s a l; ln -s "
		"/nowhere m\n"
		"ln -s \"$(printf '%0150d' 0)\" long; echo 2 >x; chmod 4755 x; chmod 0 a; mkdir e; "
		"echo 3 >e/f\n"
		"touch -d '1931-02-03 04:05:06.789' x; touch -d '2260-01-01 00:00:00.000000001' "
		"e/f\n"
		"touch -d @-0.5 b; touch -h -d @1.25 l; touch -d @12 d; chmod 555 e";
	struct world *world = *state;
	struct tree *tree;

	assert_int_equal(run_shell(script, world->src, NULL), 0);
	tree = tree_scan_source(world, NULL);
	for (size_t i = 0; i < tree->count; i++)
		if (tree->entries[i].type == MOAT_FILE && tree->entries[i].mode == 0)
			assert_int_equal(run_shell("chmod 400 \"$1/a\"", world->src, NULL), 0);
	tree_free(tree);
	tree = capture_ok(world, NULL, NULL);
	assert_restores(world, tree);
	assert_stock_tools_restore(world);
	assert_int_equal(
		run_shell("chmod 700 \"$1/e\" \"$2/tar/e\"", world->src, world->path, NULL), 0);
	tree_free(tree);
}

static void
test_xattrs(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};
	char xattrs[64] = "user.a=b%";
	uint32_t size = 5;
	char value[16] = "", path[4096];

	memcpy(xattrs + 10, &size, 4);
	memcpy(xattrs + 14, "x\ny\0z", 5);
	make_file(world, "f", "1", 1);
	session.tree = tree_scan_source(world, NULL);
	session.tree->entries[tree_index(session.tree, "f")].xattrs = xattrs;
	session.tree->entries[tree_index(session.tree, "f")].xattrs_size = 19;
	assert_ok(capture(&session), &session.err);
	assert_restores(world, session.tree);
	tree_free(session.tree);
	if (fsetxattr(world->src_fd, "user.try", "1", 1, 0) < 0) {
		print_message("# this filesystem has no extended attributes: tar was not asked\n");
		return;
	}
	assert_int_equal(run_shell("cd \"$1\" && lz4 -dcq store/*.lz4 | tar -x --xattrs -C out",
				   world->path, NULL),
			 0);
	(void) snprintf(path, sizeof path, "%s/f", world->out);
	assert_int_equal(getxattr(path, "user.a=b%", value, sizeof value), 5);
	assert_memory_equal(value, "x\ny\0z", 5);
}

static void
assert_sparse_outputs(struct world *world, off_t blocks)
{
	struct stat st;

	for (int i = 0; i < 6; i++) {
		char name[16];

		(void) snprintf(name, sizeof name, "%d", i);
		assert_int_equal(fstatat(world->out_fd, name, &st, 0), 0);
		assert_true(st.st_size >= 1 << 20);
		assert_true(st.st_blocks <= blocks);
	}
}

static void
test_sparse(void **state)
{
	static const off_t places[] = {0, 65536, 1 << 19, (1 << 20) - 4, 3 << 20};
	struct world *world = *state;
	struct tree *tree;
	struct moat_ref ref;

	make_sparse(world, "hole", 1 << 20, 0, NULL);
	make_sparse(world, "front", 1 << 20, 1, places);
	make_sparse(world, "middle", (1 << 20) + 1, 1, places + 2);
	make_sparse(world, "end", 1 << 20, 1, places + 3);
	make_sparse(world, "many", 5 << 20, 5, places);
	make_sparse(world, "unaligned", (5 << 20) + 333, 5, places);
	tree = capture_ok(world, NULL, &ref);
	assert_true(ref.stored_bytes < 20000);
	assert_restores(world, tree);
	{
		struct session session = {.world = world, .tree = tree, .place = true};

		assert_ok(extract(&session), &session.err);
		assert_sparse_outputs(world, 5 * 128);
	}
	assert_stock_tools_restore(world);
	tree_free(tree);
}

/* 8 GiB and some: beyond what the header's size field holds.  Only the hash looks at the zeros, and
 * this one does so at the speed of memory. */
static void
test_huge_hole(void **state)
{
	off_t size = test_scaled(100) >= 100 ? ((off_t) 9 << 30) + 7 : (64 << 20) + 7;
	off_t place = size - 5;
	struct world *world = *state;
	struct session session = {.world = world, .place = true};
	struct moat_ref ref;
	struct stat st;

	fake_position_hash = true;
	make_sparse(world, "huge", size, 1, &place);
	session.tree = capture_ok(world, NULL, &ref);
	assert_true(ref.stored_bytes < 4096);
	assert_ok(extract(&session), &session.err);
	assert_int_equal(fstatat(world->out_fd, "0", &st, 0), 0);
	assert_true(st.st_size == size && st.st_blocks < 1024);
	assert_int_equal(
		run_shell("cd \"$1\" && test \"$(tail -c 5 out/0)\" = \"$(tail -c 5 src/huge)\" && "
			  "mkdir tar && lz4 -dcq store/*.lz4 | tar -x -C tar && "
			  "test \"$(stat -c %s tar/huge)\" = \"$(stat -c %s src/huge)\" && "
			  "test \"$(tail -c 5 tar/huge)\" = \"$(tail -c 5 src/huge)\"",
			  world->path, NULL),
		0);
	tree_free(session.tree);
}

/* ------------------------------------------------------------------------------------ random */

static void
random_change(struct world *world)
{
	static const size_t scales[] = {1, 10, 600, 5000, 300000, 3 << 20};
	char name[32];

	(void) snprintf(name, sizeof name, "r%llu", (unsigned long long) random_below(30));
	switch (random_below(4)) {
	case 0:
		(void) unlinkat(world->src_fd, name, 0);
		break;
	case 1: {
		off_t places[3];

		for (size_t i = 0; i < 3; i++)
			places[i] = (off_t) random_below(1 << 20);
		(void) unlinkat(world->src_fd, name, 0);
		make_sparse(world, name, 1 + (off_t) random_below(2 << 20), random_below(4),
			    places);
		break;
	}
	default:
		(void) unlinkat(world->src_fd, name, 0);
		make_random_file(world, name, random_below(1 + scales[random_below(6)]));
	}
}

static void
test_random_chains(void **state)
{
	struct world *world = *state;
	struct tree *previous = NULL;
	long rounds = test_scaled(150);

	for (long i = 0; i < rounds; i++) {
		struct tree *tree;

		for (uint64_t n = random_below(8); n > 0; n--)
			random_change(world);
		tree = capture_ok(world, previous, NULL);
		assert_restores(world, tree);
		if (previous != NULL) {
			char ref[32];

			tree_free(previous);
			(void) snprintf(ref, sizeof ref, "snap_%012x", world->next_id - 1);
			remove_ok(world, ref, tree);
			assert_restores(world, tree);
		}
		previous = tree;
	}
	print_message("# %ld random captures\n", rounds);
	tree_free(previous);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_sizes),      WORLD_TEST(test_odd_names),
		WORLD_TEST(test_long_paths), WORLD_TEST(test_metadata),
		WORLD_TEST(test_xattrs),     WORLD_TEST(test_sparse),
		WORLD_TEST(test_huge_hole),  WORLD_TEST(test_random_chains),
	};

	random_start();
	return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
