/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-reflink: what is its own.  That it keeps a backend's promises is what
 * test-snapshot-conformance is about.
 *
 * Runs in $MOAT_TEST_REFLINK_DIR, else in $TMPDIR if that can clone; tests/system/reflink.sh makes
 * filesystems for it. */
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/fs.h"
#include "conformance.h"

#define SET "snap_000000000001"

static bool
stored(struct world *world, const char *path)
{
	struct stat st;

	return fstatat(world->store_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ------------------------------------------------------------------------------------ the store */

static void
test_layout(void **state)
{
	struct world *world = *state;
	struct tree *tree;
	struct stat st;
	char name[32];

	for (int i = 0; i < 4100; i++) {
		(void) snprintf(name, sizeof name, "%04d", i);
		make_file(world, name, "1", 1);
	}
	make_file(world, "empty", "", 0);
	tree = capture_ok(world, NULL);
	assert_int_equal(fstatat(world->store_fd, SET "/0/fff", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0400);
	assert_true(stored(world, SET "/1/1003") || stored(world, SET "/1/1004"));
	assert_false(stored(world, SET "/1/1005"));
	assert_true(stored(world, SET "/index") && stored(world, SET "/manifest"));
	tree_free(tree);
}

/* Of a removed snapshot exactly the files stay that somebody needs, and the index. */
static void
test_exactly(void **state)
{
	struct world *world = *state;
	struct store_listing listing;
	struct tree *trees[4] = {NULL};

	make_random_file(world, "a", 1000);
	make_random_file(world, "b", 2000);
	make_random_file(world, "c", 4000);
	make_file(world, "empty", "", 0);
	trees[0] = capture_ok(world, NULL);
	assert_int_equal(unlinkat(world->src_fd, "a", 0), 0);
	trees[1] = capture_ok(world, trees[0]);
	assert_int_equal(unlinkat(world->src_fd, "b", 0), 0);
	trees[2] = capture_ok(world, trees[1]);
	remove_ok(world, trees[0]->ref.text, trees + 1);
	store_list(world, false, &listing);
	assert_int_equal(listing.count, 3 + 2 + 2);
	store_listing_free(&listing);
	assert_true(stored(world, SET ".orphan/index"));
	assert_false(stored(world, SET ".orphan/manifest"));
	assert_false(stored(world, SET));
	remove_ok(world, trees[1]->ref.text, trees + 2);
	store_list(world, false, &listing);
	assert_int_equal(listing.count, 2 + 2);
	store_listing_free(&listing);
	assert_restores(world, trees[2]);
	/* The empty file needs nothing of the set. */
	trees[2]->entries[tree_index(trees[2], "c")].type = MOAT_DIRECTORY;
	remove_ok(world, trees[1]->ref.text, trees + 2);
	assert_false(stored(world, SET ".orphan"));
	for (size_t i = 0; i < 3; i++)
		tree_free(trees[i]);
}

static void
assert_damaged(struct session *session, size_t done, size_t damaged)
{
	assert_int_equal(session->done, done);
	assert_int_equal(session->damaged, damaged);
}

/* A clone that is not what it was is told of before it is called done, and the others are looked
 * at; one that no entry is about is missed all the same. */
static void
test_damage(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};
	int fd;

	make_random_file(world, "a", 50000);
	make_random_file(world, "b", 50000);
	make_random_file(world, "c", 50000);
	session.tree = capture_ok(world, NULL);
	fd = store_open_for_writing(world, SET "/0/1");
	assert_int_equal(pwrite(fd, "0123456789", 10, 40000), 10);
	assert_int_equal(close(fd), 0);
	assert_ok(extract(&session), &session.err);
	assert_damaged(&session, 2, 1);
	session.place = true;
	assert_fails(extract(&session), &session.err, MOAT_CORRUPT, "not that of the manifest");
	assert_int_equal(session.damaged, 1);
	session.place = false;
	for (size_t i = 0; i < session.tree->count; i++)
		if (session.tree->entries[i].type == MOAT_FILE &&
		    session.tree->entries[i].locator[1] == 1)
			session.tree->entries[i].type = MOAT_DIRECTORY;
	assert_ok(extract(&session), &session.err);
	assert_damaged(&session, 2, 0);
	assert_int_equal(unlinkat(world->store_fd, SET "/0/1", 0), 0);
	assert_fails(extract(&session), &session.err, MOAT_CORRUPT, SET "/0/1' is missing");
	assert_damaged(&session, 2, 0);
	tree_free(session.tree);
}

static void
make_litter(struct world *world, const char *name)
{
	char path[64];

	assert_int_equal(mkdirat(world->store_fd, name, 0700), 0);
	(void) snprintf(path, sizeof path, "%s/0", name);
	assert_int_equal(mkdirat(world->store_fd, path, 0700), 0);
	(void) snprintf(path, sizeof path, "%s/0/0", name);
	(void) close(openat(world->store_fd, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0400));
	assert_true(stored(world, path));
}

/* What a crash has left: temporary sets; an orphan that was being taken apart. */
static void
test_litter(void **state)
{
	struct world *world = *state;
	struct tree *trees[2] = {NULL};

	make_random_file(world, "a", 1000);
	make_litter(world, ".snap_0000000000aa.tmp");
	trees[0] = capture_ok(world, NULL);
	assert_false(stored(world, ".snap_0000000000aa.tmp"));
	make_litter(world, ".snap_0000000000aa.tmp");
	make_litter(world, "snap_0000000000bb.orphan");
	make_litter(world, "snap_0000000000cc");
	remove_ok(world, "snap_0000000000cc", trees);
	assert_false(stored(world, ".snap_0000000000aa.tmp"));
	assert_false(stored(world, "snap_0000000000bb.orphan"));
	assert_false(stored(world, "snap_0000000000cc"));
	assert_restores(world, trees[0]);
	tree_free(trees[0]);
}

static uint64_t
free_space(struct world *world)
{
	struct statvfs st;

	assert_int_equal(fstatvfs(world->store_fd, &st), 0);
	return (uint64_t) st.f_bfree * st.f_frsize;
}

/* A clone shares its blocks: capturing 64 MiB takes next to nothing. */
static void
test_shares(void **state)
{
	struct world *world = *state;
	uint64_t before, after;
	struct moat_error err = MOAT_ERROR_INIT;
	struct tree *tree;
	int fd = openat(world->src_fd, "big", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	char *block = malloc(1 << 20);

	assert_non_null(block);
	for (int i = 0; i < 64; i++) {
		memset(block, 'a' + i % 26, 1 << 20);
		assert_ok(fs_write_all(fd, block, 1 << 20, "big", &err), &err);
	}
	free(block);
	assert_int_equal(syncfs(fd), 0);
	assert_int_equal(close(fd), 0);
	before = free_space(world);
	tree = capture_ok(world, NULL);
	assert_int_equal(syncfs(world->store_fd), 0);
	after = free_space(world);
	assert_true(tree->ref.stored_bytes < 4096);
	assert_true(after + (8 << 20) > before);
	assert_restores(world, tree);
	tree_free(tree);
}

/* A file without copy-on-write cannot be cloned into one with it: btrfs. */
static void
test_copied(void **state)
{
	struct world *world = *state;
	int fd = openat(world->src_fd, "nocow", O_RDWR | O_CREAT | O_CLOEXEC, 0600), flags = 0;
	struct session session = {.world = world};
	struct stat st;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 ||
	    (flags |= FS_NOCOW_FL, ioctl(fd, FS_IOC_SETFLAGS, &flags) < 0)) {
		print_message("# no files without copy-on-write on this filesystem\n");
		(void) close(fd);
		return;
	}
	assert_int_equal(ftruncate(fd, 4 << 20), 0);
	assert_int_equal(pwrite(fd, "somewhere", 9, 1 << 20), 9);
	assert_int_equal(pwrite(fd, "before the hole at the end", 26, 3 << 20), 26);
	(void) close(fd);
	make_random_file(world, "cloned", 100000);
	session.tree = tree_scan(world, NULL);
	assert_ok(capture(&session), &session.err);
	/* Only what was copied counts. */
	assert_true(session.ref.stored_bytes >= 4 << 20);
	assert_true(session.ref.stored_bytes < (4 << 20) + 4096);
	assert_restores(world, session.tree);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(fstatat(world->store_fd, i == 0 ? SET "/0/0" : SET "/0/1", &st, 0),
				 0);
		assert_true(st.st_blocks * 512 < 1 << 20);
	}
	tree_free(session.tree);
}

/* ------------------------------------------------------------------------------------- the probe
 */

static struct moat_bid
probe(int workspace_fd, int home_fd)
{
	struct moat_target target = {sizeof target, "/somewhere", workspace_fd, NULL, home_fd};
	struct moat_bid bid;

	plugin_bid(subject.plugin, NULL, &target, &bid);
	return bid;
}

static void
assert_bid(int workspace_fd, int home_fd, int score, const char *reason)
{
	struct moat_bid bid = probe(workspace_fd, home_fd);

	if (bid.score != score || strstr(bid.reason, reason) == NULL)
		fail_msg("bids %d, `%s'; not %d, `%s'", bid.score, bid.reason, score, reason);
}

static void
test_bids(void **state)
{
	struct world *world = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	int src = world->src_fd, store = world->store_fd;

	assert_bid(src, store, 40, "small files pack better");
	make_random_file(world, "f", (128 << 10) - 1);
	assert_bid(src, store, 40, "small files pack better");
	make_random_file(world, "f", 128 << 10);
	assert_bid(src, store, 70, "the tree has large files");
	make_file(world, "g", "", 0);
	assert_bid(src, store, 40, "small files pack better");
	/* What is not looked at: .git at any level, and what links lead to. */
	assert_int_equal(mkdirat(src, "d", 0755), 0);
	assert_int_equal(mkdirat(src, "d/.git", 0755), 0);
	make_sparse(world, "d/.git/large", 8 << 20, 0, NULL);
	make_sparse(world, "../out/large", 8 << 20, 0, NULL);
	assert_int_equal(symlinkat("../out", src, "out"), 0);
	assert_int_equal(symlinkat("../out/large", src, "large"), 0);
	assert_bid(src, store, 40, "small files pack better");
	make_sparse(world, "d/large", (8 << 20) - 1, 0, NULL);
	for (int i = 0; i < 80; i++) {
		char name[16];

		(void) snprintf(name, sizeof name, "%d", i);
		make_file(world, name, "", 0);
	}
	assert_bid(src, store, 40, "small files pack better");
	make_sparse(world, "d/large", 8 << 20, 0, NULL);
	assert_bid(src, store, 70, "the tree has large files");
	assert_ok(fs_remove_tree(src, "d", &err), &err);
}

static void
test_refusals(void **state)
{
	struct world *world = *state;
	int other = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int proc = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_bid(-1, world->store_fd, 0, "no workspace");
	assert_bid(world->src_fd, -1, 0, "not known");
	assert_bid(world->src_fd, other, 0,
		   "moat's home is on another filesystem than the workspace; set MOAT_HOME");
	assert_bid(other, world->store_fd, 0, "cannot clone files; btrfs, XFS and bcachefs can");
	assert_bid(other, other, 0, "cannot clone files; btrfs, XFS and bcachefs can");
	assert_bid(world->src_fd, proc, 0, "cannot be tried in moat's home");
	assert_bid(proc, world->store_fd, 0, "cannot be tried in the workspace");
	(void) close(other);
	(void) close(proc);
}

/* Nothing of it can be seen afterwards. */
static void
test_no_trace(void **state)
{
	struct world *world = *state;
	struct stat before[2], after[2];

	make_file(world, "f", "1", 1);
	assert_int_equal(fstat(world->src_fd, &before[0]), 0);
	assert_int_equal(fstat(world->store_fd, &before[1]), 0);
	assert_true(probe(world->src_fd, world->store_fd).score > 0);
	assert_int_equal(fstat(world->src_fd, &after[0]), 0);
	assert_int_equal(fstat(world->store_fd, &after[1]), 0);
	for (int i = 0; i < 2; i++) {
		assert_memory_equal(&before[i].st_mtim, &after[i].st_mtim, sizeof after[i].st_mtim);
		assert_memory_equal(&before[i].st_ctim, &after[i].st_ctim, sizeof after[i].st_ctim);
	}
	assert_store_is_empty(world);
}

int
main(void)
{
	static const char *const plugin_dirs[] = {PLUGINS_BUILT "/snapshot-reflink/.libs", NULL};
	const char *given = getenv("MOAT_TEST_REFLINK_DIR"), *tmp = getenv("TMPDIR");
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_layout), WORLD_TEST(test_exactly),  WORLD_TEST(test_damage),
		WORLD_TEST(test_litter), WORLD_TEST(test_shares),   WORLD_TEST(test_copied),
		WORLD_TEST(test_bids),   WORLD_TEST(test_refusals), WORLD_TEST(test_no_trace),
	};
	struct moat_error err = MOAT_ERROR_INIT;
	struct loader *loader = NULL;
	struct moat_bid bid;
	int failed, fd;

	random_start();
	assert_ok(loader_open(plugin_dirs, &loader, &err), &err);
	subject.plugin = loader_find(loader, MOAT_KIND_SNAPSHOT, "reflink");
	subject.directory = given != NULL ? given : tmp != NULL ? tmp : "/tmp";
	if (subject.plugin == NULL)
		return 77;
	fd = open(subject.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bid = probe(fd, fd);
	(void) close(fd);
	if (bid.score == 0 && given == NULL) {
		printf("# not tested in %s: %s\n", subject.directory, bid.reason);
		return 77;
	}
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	loader_close(loader);
	return failed == 0 ? 0 : 1;
}
