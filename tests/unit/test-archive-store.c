/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-archive: chains of snapshots and their removal, files that move while they are read,
 * failures, configuration, several handles. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake-archive.h"
#include "plugins/snapshot-archive/archive.h"

/* ---------------------------------------------------------------------- chains and removal */

static void
test_chain(void **state)
{
	struct world *world = *state;
	struct tree *trees[5];
	struct moat_ref refs[5];

	for (size_t n = 0; n < 5; n++) {
		char name[16];

		for (size_t i = n; i < 5; i++) {
			(void) snprintf(name, sizeof name, "f%zu", i);
			make_random_file(world, name, 100000 + i);
		}
		trees[n] = capture_ok(world, n == 0 ? NULL : trees[n - 1], &refs[n]);
		assert_restores(world, trees[n]);
	}
	assert_true(refs[4].stored_bytes < 150000);
	assert_int_equal(count_manifests(world), 5);
	assert_stock_tools_restore(world);
	/* The newest one needs a file of each. */
	for (size_t n = 0; n < 4; n++) {
		remove_ok(world, refs[n].text, trees[4]);
		assert_int_equal(store_count(world), 5);
		assert_restores(world, trees[4]);
	}
	assert_int_equal(faccessat(world->store_fd, "snap_000000000001.orphan.tar.lz4", F_OK, 0),
			 0);
	assert_int_equal(count_manifests(world), 1);
	remove_ok(world, refs[2].text, trees[4]); /* gone already */
	assert_int_equal(store_count(world), 5);
	/* With f1 no longer wanted, the second pack goes at the next removal. */
	trees[4]->entries[tree_index(trees[4], "f1")].flags = 0;
	remove_ok(world, refs[2].text, trees[4]);
	assert_int_equal(store_count(world), 4);
	remove_ok(world, refs[4].text, NULL);
	assert_int_equal(store_count(world), 0);
	for (size_t n = 0; n < 5; n++)
		tree_free(trees[n]);
}

static void
test_nothing_changed(void **state)
{
	struct world *world = *state;
	struct tree *first, *second;
	struct session session = {.world = world};
	struct moat_ref ref;

	make_random_file(world, "f", 3000000);
	first = capture_ok(world, NULL, NULL);
	session.tree = second = tree_scan_source(world, first);
	assert_ok(capture(&session), &session.err);
	ref = session.ref;
	assert_int_equal(session.opened, 0);
	assert_true(ref.stored_bytes < 600);
	assert_restores(world, second);
	assert_int_equal(count_manifests(world), 2);
	tree_free(first);
	tree_free(second);
}

/* What is the same, but whose pack somebody has deleted, is stored again. */
static void
test_lost_pack(void **state)
{
	struct world *world = *state;
	struct tree *first, *second;
	struct session session = {.world = world, .place = true};

	make_random_file(world, "f", 3000);
	make_file(world, "empty", "", 0);
	session.tree = first = capture_ok(world, NULL, NULL);
	assert_int_equal(unlinkat(world->store_fd, "snap_000000000001.tar.lz4", 0), 0);
	assert_fails(extract(&session), &session.err, MOAT_CORRUPT,
		     "snap_000000000001.tar.lz4' is missing");
	assert_int_equal(session.damaged, 1);
	second = capture_ok(world, first, NULL);
	assert_int_equal(second->entries[tree_index(second, "f")].status, MOAT_SAME);
	assert_restores(world, second);
	tree_free(first);
	tree_free(second);
}

/* ------------------------------------------------------------------------- files that move */

static int
grow_once(struct session *session, size_t index, unsigned times)
{
	if (times > 2)
		return 0;
	make_file(session->world, session->tree->entries[index].path, "0123456789", 9 + times % 2);
	return 1;
}

static void
test_stored_again(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world, .on_stored = grow_once};

	make_file(world, "f", "first", 5);
	make_file(world, "g", "first", 5);
	session.tree = tree_scan_source(world, NULL);
	assert_ok(capture(&session), &session.err);
	assert_restores(world, session.tree);
	/* tar takes the last of several members of one name. */
	assert_int_equal(run_shell("cd \"$1\" && lz4 -dcq store/*.lz4 | tar -x -C out && "
				   "cmp src/f out/f && cmp src/g out/g",
				   world->path, NULL),
			 0);
	tree_free(session.tree);
}

static struct world *shrinking;
static unsigned polls;

/* The file loses its end, then gains another, while it is being read. */
static void
move_file(void)
{
	int fd = openat(shrinking->src_fd, "f", O_WRONLY | O_CLOEXEC);

	polls++;
	assert_true(fd >= 0);
	if (polls == 2)
		assert_int_equal(ftruncate(fd, 1234567), 0);
	if (polls == 5)
		assert_int_equal(pwrite(fd, "more", 4, 2 << 20), 4);
	(void) close(fd);
}

static int
count_polls(struct session *session, size_t index)
{
	polls = 0;
	fake_on_poll = strcmp(session->tree->entries[index].path, "f") == 0 ? move_file : NULL;
	return 0;
}

static int
again_twice(struct session *session, size_t index, unsigned times)
{
	return times <= 2;
}

static void
test_moving_file(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world, .on_open = count_polls, .on_stored = again_twice};

	world_configure(world, "threads", "1");
	assert_int_equal(run_shell("mkdir \"$1\"/tar", world->path, NULL), 0);
	for (int torn = 0; torn < 2; torn++) {
		make_random_file(world, "f", 3 << 20);
		make_random_file(world, "g", 1000);
		shrinking = world;
		session.tree = tree_scan_source(world, NULL);
		assert_ok(capture(&session), &session.err);
		fake_on_poll = NULL;
		/* One that is taken although it is torn is what was stored, to the byte. */
		session.place = true;
		assert_ok(extract(&session), &session.err);
		assert_false(session.wrong);
		if (torn == 0)
			assert_restores(world, session.tree);
		else /* what was lost is zeros, not what memory happened to hold */
			assert_int_equal(
				run_shell("cd \"$1\" && f=$(find out -size 3145728c) && "
					  "test -n \"$f\" && cmp -n 1234567 $f src/f && "
					  "test $(tail -c +1234568 $f | tr -d '\\0' | wc -c) = 0",
					  world->path, NULL),
				0);
		assert_int_equal(run_shell("cd \"$1\" && for f in store/*.lz4; do lz4 -dcq $f | "
					   "tar -x -C tar || exit 1; done && cmp src/g tar/g",
					   world->path, NULL),
				 0);
		tree_free(session.tree);
		session.on_stored = NULL;
	}
}

static int
refuse_some(struct session *session, size_t index)
{
	static const int codes[] = {MOAT_GONE, MOAT_CHANGED, MOAT_PERMISSION, 0};

	return codes[index % 4];
}

static int
refuse_hard(struct session *session, size_t index)
{
	return session->opened == 3 ? MOAT_NO_MEMORY : 0;
}

static void
test_not_opened(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world, .on_open = refuse_some};

	for (char name[2] = "a"; name[0] <= 'l'; name[0]++)
		make_file(world, name, name, 1);
	assert_int_equal(run_shell("cd \"$1\" && ln a a2 && ln b b2 && ln c c2 && ln d d2",
				   world->src, NULL),
			 0);
	session.tree = tree_scan_source(world, NULL);
	assert_ok(capture(&session), &session.err);
	assert_int_equal(session.opened, 12);
	assert_int_equal(
		run_shell("cd \"$1\" && lz4 -dcq store/*.lz4 | tar -x -C out", world->path, NULL),
		0);
	tree_free(session.tree);
	session = (struct session){.world = world, .on_open = refuse_hard};
	session.tree = tree_scan_source(world, NULL);
	assert_fails(capture(&session), &session.err, MOAT_NO_MEMORY, "refused by the test");
	assert_int_equal(store_count(world), 1);
	tree_free(session.tree);
}

/* -------------------------------------------------------------------------------- failures */

static int
stop_hard(struct session *session, size_t index, unsigned times)
{
	return -1;
}

static void
test_nothing_left(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world, .on_stored = stop_hard};
	long points = 0;

	make_random_file(world, "f", 12 * FRAME_MAX);
	session.tree = tree_scan_source(world, NULL);
	assert_fails(capture(&session), &session.err, MOAT_FAILED, "stopped by the test");
	assert_int_equal(store_count(world), 0);
	session.on_stored = NULL;
	for (;; points++) {
		fake_cancel_after = points;
		if (capture(&session) == 0)
			break;
		assert_int_equal(session.err.code, MOAT_CANCELLED);
		assert_int_equal(store_count(world), 0);
	}
	assert_true(points > 10);
	fake_cancel_after = -1;
	session.place = true;
	for (points = 0;; points++) {
		fake_cancel_after = points;
		if (extract(&session) == 0)
			break;
		assert_int_equal(session.err.code, MOAT_CANCELLED);
	}
	assert_true(points > 3);
	tree_free(session.tree);
}

static void
test_full_disk(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};

	make_random_file(world, "f", 100000);
	session.tree = tree_scan_source(world, NULL);
	assert_true(sweep_full_disk(&session, 4096) >= 24);
	session.place = true;
	fill_disk(50000);
	assert_int_equal(extract(&session), -1);
	empty_disk();
	assert_int_equal(session.err.sys_errno, EFBIG);
	assert_int_not_equal(faccessat(world->out_fd, "0", F_OK, 0), 0);
	tree_free(session.tree);
}

static void
test_litter_and_names(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};
	int fd = openat(world->store_fd, ".snap_0123456789ab.tmp", O_CREAT | O_WRONLY, 0600);

	assert_int_equal(close(fd), 0);
	make_file(world, "f", "1", 1);
	session.tree = tree_scan_source(world, NULL);
	assert_ok(capture(&session), &session.err);
	assert_int_equal(store_count(world), 1);
	world->next_id--;
	assert_fails(capture(&session), &session.err, MOAT_EXISTS, "exists already");
	assert_restores(world, session.tree);
	assert_fails(world->ops->remove(world->self, "../x", NULL, &session.err), &session.err,
		     MOAT_USAGE, "not the name");
	tree_free(session.tree);
}

static void
test_level(void **state)
{
	static const char *const levels[] = {"0", "1", "3", "9", "12"};
	struct world *world = *state;
	uint64_t last = UINT64_MAX / 2;

	assert_int_equal(run_shell("seq 100000 >\"$1/f\"", world->src, NULL), 0);
	for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
		struct moat_ref ref;
		struct tree *tree;

		world_configure(world, "level", levels[i]);
		tree = capture_ok(world, NULL, &ref);
		assert_restores(world, tree);
		assert_true(ref.stored_bytes <= last + 64);
		last = ref.stored_bytes;
		tree_free(tree);
	}
	fake_configure("level", "13");
	assert_not_opened(world, "0 (fast) to 12");
	fake_configure("level", "-1");
	assert_not_opened(world, "level is -1");
}

static void
test_probe(void **state)
{
	struct world *world = *state;
	struct moat_bid bid = {.struct_size = sizeof bid};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(world->ops->probe(&fake_host, NULL, &bid, &err), &err);
	assert_int_equal(bid.score, 50);
	assert_string_equal(bid.reason, "stores changed files as .tar.lz4, works everywhere");
}

/* ------------------------------------------------------------------------------ concurrency */

static void *
work(void *argument)
{
	struct world *world = argument;

	for (int i = 0; i < 20; i++) {
		struct tree *tree = capture_ok(world, NULL, NULL);

		assert_restores(world, tree);
		tree_free(tree);
	}
	return NULL;
}

/* Handles on two stores at once, then two on one store, reading. */
static void
test_two_handles(void **state)
{
	struct world *worlds[2] = {*state, world_new()};
	struct tree *tree;
	pthread_t threads[2];
	void *second = NULL, *first;

	for (size_t i = 0; i < 2; i++) {
		make_random_file(worlds[i], "f", 300000);
		assert_int_equal(pthread_create(&threads[i], NULL, work, worlds[i]), 0);
	}
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	tree = capture_ok(worlds[0], NULL, NULL);
	first = worlds[0]->self;
	worlds[0]->self = NULL;
	world_reopen(worlds[0]);
	second = worlds[0]->self;
	assert_ptr_not_equal(first, second);
	assert_restores(worlds[0], tree);
	worlds[0]->ops->close(second);
	worlds[0]->self = first;
	assert_restores(worlds[0], tree);
	tree_free(tree);
	world_free(worlds[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_chain),
		WORLD_TEST(test_nothing_changed),
		WORLD_TEST(test_lost_pack),
		WORLD_TEST(test_stored_again),
		WORLD_TEST(test_moving_file),
		WORLD_TEST(test_not_opened),
		WORLD_TEST(test_nothing_left),
		WORLD_TEST(test_full_disk),
		WORLD_TEST(test_litter_and_names),
		WORLD_TEST(test_level),
		WORLD_TEST(test_probe),
		WORLD_TEST(test_two_handles),
	};

	/* Memory that was not written to is no zeros. */
	(void) mallopt(M_PERTURB, 0xa5);
	random_start();
	return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
