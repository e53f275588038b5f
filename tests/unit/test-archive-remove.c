/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-archive gives back space: what nobody needs leaves a pack, what somebody needs stays;
 * and it stores everything again before a chain gets too long. */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake-archive.h"
#include "plugins/snapshot-archive/archive.h"

#define FIRST "snap_000000000001"
#define ORPHAN FIRST ".orphan.tar.lz4"

static const char *const none[] = {NULL};

static uint64_t
size_of(struct world *world, const char *name)
{
	struct stat st;

	return fstatat(world->store_fd, name, &st, 0) < 0 ? 0 : (uint64_t) st.st_size;
}

/* Everything in the tree is given back as it was taken, whatever the workspace is like by now. */
static void
assert_sound(struct world *world, struct tree *tree, const char *ref)
{
	struct session session = {.world = world, .tree = tree, .place = true};

	(void) snprintf(session.ref.text, sizeof session.ref.text, "%s", ref);
	assert_ok(extract(&session), &session.err);
	session.place = false;
	assert_ok(extract(&session), &session.err);
	assert_int_equal(session.damaged, 0);
	assert_false(session.wrong);
}

/* A snapshot of a, b, c (a segment each, c of several frames), and one of a alone that needs it. */
static struct tree *
two_snapshots(struct world *world)
{
	struct tree *first, *second;

	assert_int_equal(run_shell("mkdir \"$1\"/d && chmod 500 \"$1\"/d && touch -d @1234.5 "
				   "\"$1\"/d && ln -s a \"$1\"/l",
				   world->src, NULL),
			 0);
	make_random_file(world, "a", 600000);
	make_random_file(world, "b", 600000);
	make_random_file(world, "c", 3000000);
	first = capture_ok(world, NULL, NULL);
	assert_int_equal(unlinkat(world->src_fd, "b", 0), 0);
	assert_int_equal(unlinkat(world->src_fd, "c", 0), 0);
	second = capture_ok(world, first, NULL);
	tree_free(first);
	return second;
}

static void
test_compaction(void **state)
{
	struct world *world = *state;
	struct tree *second = two_snapshots(world);
	uint64_t before = store_bytes(world);

	assert_true(before > 4200000);
	remove_ok(world, FIRST, second);
	assert_int_equal(store_count(world), 2);
	assert_true(before - store_bytes(world) > 3600000);
	assert_true(size_of(world, ORPHAN) > 600000 && size_of(world, ORPHAN) < 610000);
	assert_restores(world, second);
	/* Links and directories are still there, too. */
	assert_stock_tools_restore(world);
	assert_int_equal(count_manifests(world), 1);
	assert_int_equal(count_removed(world), 0);
	/* A second time there is nothing to be won. */
	before = store_bytes(world);
	remove_ok(world, FIRST, second);
	assert_int_equal(store_bytes(world), before);
	assert_restores(world, second);
	remove_ok(world, "snap_000000000002", NULL);
	assert_int_equal(store_count(world), 0);
	tree_free(second);
}

/* Less than an eighth: the file is left alone. */
static void
test_not_worth_it(void **state)
{
	struct world *world = *state;
	struct tree *first, *second;
	uint64_t before;

	make_random_file(world, "a", 3000000);
	make_random_file(world, "b", 300000);
	first = capture_ok(world, NULL, NULL);
	assert_int_equal(unlinkat(world->src_fd, "b", 0), 0);
	second = capture_ok(world, first, NULL);
	before = store_bytes(world);
	remove_ok(world, FIRST, second);
	assert_int_equal(store_bytes(world), before);
	assert_int_equal(count_removed(world), 1);
	assert_restores(world, second);
	tree_free(first);
	tree_free(second);
}

static void
test_manifest_needed(void **state)
{
	static const char *const first_wanted[] = {"snap_00000000beef", FIRST, NULL};
	struct world *world = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	struct tree *second = two_snapshots(world);
	struct tree *const live[] = {second, NULL}, *const nothing[] = {NULL};

	assert_ok(remove_but(world, FIRST, live, first_wanted, &err), &err);
	assert_true(size_of(world, ORPHAN) > 600000 && size_of(world, ORPHAN) < 610000);
	assert_int_equal(count_manifests(world), 1);
	assert_int_equal(count_removed(world), 1);
	assert_restores(world, second);
	/* All but the manifest goes. */
	assert_ok(remove_but(world, "snap_000000000002", nothing, first_wanted, &err), &err);
	assert_int_equal(store_count(world), 1);
	assert_true(size_of(world, ORPHAN) > 0 && size_of(world, ORPHAN) < 400);
	assert_int_equal(count_manifests(world), 0);
	assert_int_equal(count_removed(world), 1);
	assert_int_equal(run_shell("lz4 -dcq \"$1\"/store/" ORPHAN " | tar -xO | grep -qx "
				   "'the manifest'",
				   world->path, NULL),
			 0);
	assert_ok(remove_but(world, FIRST, nothing, none, &err), &err);
	assert_int_equal(store_count(world), 0);
	tree_free(second);
}

/* A capture that died left a temporary file, a pack, or nothing: its id is all that is known. */
static void
test_died_capture(void **state)
{
	struct world *world = *state;
	struct tree *tree;
	int fd = openat(world->store_fd, "." FIRST ".tmp", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_int_equal(close(fd), 0);
	remove_ok(world, FIRST, NULL);
	assert_int_equal(store_count(world), 0);
	remove_ok(world, FIRST, NULL);
	make_file(world, "a", "1", 1);
	tree = capture_ok(world, NULL, NULL);
	tree_free(capture_ok(world, NULL, NULL));
	remove_ok(world, "snap_000000000002", tree);
	assert_int_equal(store_count(world), 1);
	assert_sound(world, tree, FIRST);
	tree_free(tree);
}

/* ------------------------------------------------------------------------------ interruptions */

static atomic_long die_after;

static void
die(void)
{
	if (die_after-- == 0)
		(void) raise(SIGKILL);
}

/* The process ends at each of its looks at the user's wish, one in each frame that is copied: what
 * is needed is there, and the next removal finishes. */
static void
test_interrupted(void **state)
{
	struct world *world = *state;
	struct tree *second = two_snapshots(world);
	long points = 0;
	int status = -1;

	assert_int_equal(run_shell("cp -r \"$1\"/store \"$1\"/saved", world->path, NULL), 0);
	for (; status != 0; points++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			die_after = points;
			fake_on_poll = die;
			remove_ok(world, FIRST, second);
			tree_free(second);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
		assert_restores(world, second);
		if (status != 0)
			assert_true(size_of(world, ORPHAN) > 4200000);
		remove_ok(world, FIRST, second);
		assert_int_equal(store_count(world), 2);
		assert_true(size_of(world, ORPHAN) < 610000);
		assert_restores(world, second);
		if (status != 0)
			assert_int_equal(run_shell("cd \"$1\" && rm store/* && cp saved/* store",
						   world->path, NULL),
					 0);
	}
	print_message("# %ld interruptions\n", points - 1);
	assert_true(points > 3);
	tree_free(second);
}

/* No room for the smaller copy. */
static void
test_no_room(void **state)
{
	struct world *world = *state;
	struct tree *second = two_snapshots(world);
	struct tree *const live[] = {second, NULL};
	struct moat_error err = MOAT_ERROR_INIT;
	int r;

	fill_disk(300000);
	r = remove_but(world, FIRST, live, none, &err);
	empty_disk();
	assert_int_equal(r, 0); /* the snapshot is gone, after all */
	assert_int_equal(fake_warnings, 1);
	assert_int_equal(store_count(world), 2);
	assert_true(size_of(world, ORPHAN) > 4200000);
	assert_restores(world, second);
	fake_cancel_after = 1;
	assert_fails(remove_but(world, FIRST, live, none, &err), &err, MOAT_CANCELLED, "cancelled");
	fake_cancel_after = -1;
	assert_int_equal(store_count(world), 2);
	remove_ok(world, FIRST, second);
	assert_true(size_of(world, ORPHAN) < 610000);
	tree_free(second);
}

/* What cannot be read is kept as long as somebody needs something of it. */
static void
test_damaged_orphan(void **state)
{
	struct world *world = *state;
	struct tree *second = two_snapshots(world);
	uint64_t size = size_of(world, FIRST ".tar.lz4");

	assert_int_equal(
		run_shell("cd \"$1\" && truncate -s -1 " FIRST ".tar.lz4", world->store, NULL), 0);
	remove_ok(world, FIRST, second);
	assert_int_equal(size_of(world, ORPHAN), size - 1);
	remove_ok(world, FIRST, NULL);
	assert_int_equal(size_of(world, ORPHAN), 0);
	tree_free(second);
}

/* A file that is needed of a segment which is not there: nothing of the pack is touched. */
static void
test_unknown_segment(void **state)
{
	struct world *world = *state;
	struct tree *second = two_snapshots(world);
	uint64_t size = size_of(world, FIRST ".tar.lz4");

	second->entries[tree_index(second, "a")].locator[1] = 12345;
	remove_ok(world, FIRST, second);
	assert_int_equal(size_of(world, ORPHAN), size);
	tree_free(second);
}

/* ------------------------------------------------------------------------------------- random */

#define SNAPSHOTS 6

static void
change_files(struct world *world)
{
	static const size_t scales[] = {100, 5000, 300000, 2500000};
	char name[16];

	for (uint64_t n = random_below(6); n > 0; n--) {
		(void) snprintf(name, sizeof name, "f%llu", (unsigned long long) random_below(20));
		(void) unlinkat(world->src_fd, name, 0);
		if (random_below(4) > 0)
			make_random_file(world, name,
					 (size_t) random_below(scales[random_below(4)]));
	}
}

/* Snapshots come and go in any order; whichever stay are whole. */
static void
test_random_removals(void **state)
{
	struct world *world = *state;
	struct tree *live[SNAPSHOTS + 1] = {NULL};
	char refs[SNAPSHOTS][32] = {""};
	struct moat_error err = MOAT_ERROR_INIT;
	struct tree *last = NULL;
	long rounds = test_scaled(120);

	for (long round = 0; round < rounds; round++) {
		struct tree *stay[SNAPSHOTS + 1] = {NULL};
		size_t at = random_below(SNAPSHOTS), count = 0;
		struct tree *gone = live[at];

		for (size_t i = 0; i < SNAPSHOTS; i++)
			if (i != at && live[i] != NULL)
				stay[count++] = live[i];
		if (gone != NULL)
			assert_ok(remove_but(world, refs[at], stay, none, &err), &err);
		if (gone != NULL && gone == last)
			last = NULL;
		if (gone != NULL)
			tree_free(gone);
		change_files(world);
		live[at] = last = capture_ok(world, last, NULL);
		(void) snprintf(refs[at], sizeof refs[at], "snap_%012x", world->next_id);
		for (size_t i = 0; i < SNAPSHOTS; i++)
			if (live[i] != NULL && random_below(3) == 0)
				assert_sound(world, live[i], refs[i]);
	}
	for (size_t i = 0; i < SNAPSHOTS; i++) {
		struct tree *stay[SNAPSHOTS + 1] = {NULL};
		size_t count = 0;

		if (live[i] == NULL)
			continue;
		for (size_t j = i + 1; j < SNAPSHOTS; j++)
			if (live[j] != NULL)
				stay[count++] = live[j];
		assert_sound(world, live[i], refs[i]);
		assert_ok(remove_but(world, refs[i], stay, none, &err), &err);
		tree_free(live[i]);
	}
	print_message("# %ld rounds\n", rounds);
	assert_int_equal(store_count(world), 0);
}

/* ------------------------------------------------------------------------------ full archives */

/* How many of the tree's files lie in that pack. */
static size_t
count_in(const struct tree *tree, unsigned pack)
{
	size_t n = 0;

	for (size_t i = 0; i < tree->count; i++)
		n += tree->entries[i].type == MOAT_FILE && tree->entries[i].size > 0 &&
		     tree->entries[i].locator[0] == pack;
	return n;
}

/* Changes f<n>, captures, and says how many files the new pack holds. */
static size_t
step(struct world *world, struct tree **tree, int n, size_t size)
{
	struct tree *before = *tree;
	char name[16];

	(void) snprintf(name, sizeof name, "f%d", n);
	if (n >= 0)
		make_random_file(world, name, size);
	*tree = capture_ok(world, before, NULL);
	if (before != NULL)
		tree_free(before);
	assert_restores(world, *tree);
	return count_in(*tree, world->next_id);
}

static void
test_full_after(void **state)
{
	struct world *world = *state;
	struct tree *tree = NULL;

	world_configure(world, "full_after", "3");
	for (int n = 0; n < 4; n++)
		assert_int_equal(step(world, &tree, n, 1000), 1);
	/* Four packs are needed, but there is nothing to store. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(step(world, &tree, -1, 0), 0);
	assert_int_equal(fake_infos, 0);
	assert_int_equal(step(world, &tree, 4, 1000), 5);
	assert_int_equal(fake_infos, 1);
	/* The newest pack is enough by itself, for stock tools as well. */
	assert_int_equal(run_shell("cd \"$1\" && mkdir tar && lz4 -dcq "
				   "store/snap_000000000008.tar.lz4 | tar -x -C tar && "
				   "rm tar/.moat-manifest-* && diff -r src tar",
				   world->path, NULL),
			 0);
	assert_int_equal(step(world, &tree, 4, 1000), 1);
	world_configure(world, "full_after", "0");
	for (int n = 0; n < 5; n++)
		assert_int_equal(step(world, &tree, n, 1000), 1);
	assert_int_equal(step(world, &tree, 0, 1000), 1);
	assert_int_equal(fake_infos, 1);
	tree_free(tree);
}

static void
test_full_by_size(void **state)
{
	struct world *world = *state;
	struct tree *tree = NULL;

	for (int n = 0; n < 3; n++)
		assert_int_equal(step(world, &tree, n, 5000000), 1);
	assert_int_equal(step(world, &tree, -1, 0), 0);
	assert_int_equal(step(world, &tree, 3, 10), 4);
	assert_int_equal(fake_infos, 1);
	/* 10 MB are not much beside 15 MB. */
	assert_int_equal(step(world, &tree, 0, 5000000), 1);
	assert_int_equal(step(world, &tree, 1, 5000000), 1);
	assert_int_equal(step(world, &tree, 3, 11), 1);
	tree_free(tree);
}

static void
test_configuration(void **state)
{
	struct world *world = *state;

	fake_configure("full_after", "-1");
	assert_not_opened(world, "full_after is -1");
	fake_configure("full_after", NULL);
	fake_configure("threads", "9");
	assert_not_opened(world, "threads is 9");
	fake_configure("threads", "-1");
	assert_not_opened(world, "threads is -1");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_compaction),      WORLD_TEST(test_not_worth_it),
		WORLD_TEST(test_manifest_needed), WORLD_TEST(test_died_capture),
		WORLD_TEST(test_interrupted),     WORLD_TEST(test_no_room),
		WORLD_TEST(test_damaged_orphan),  WORLD_TEST(test_unknown_segment),
		WORLD_TEST(test_random_removals), WORLD_TEST(test_full_after),
		WORLD_TEST(test_full_by_size),    WORLD_TEST(test_configuration),
	};

	random_start();
	return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
