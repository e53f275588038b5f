/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance of snapshot backends: what fails leaves nothing behind; several handles. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conformance.h"

/* --------------------------------------------------------------------- errors from callbacks */

static int
refuse_third(struct session *session, size_t index)
{
	return session->opened == 3 ? MOAT_NO_MEMORY : 0;
}

static int
stop_second(struct session *session, size_t index, unsigned times)
{
	return session->stored == 2 ? -1 : 0;
}

static int
fail_manifest(struct session *session)
{
	return 1;
}

static int
fail_second(struct session *session, size_t index)
{
	return session->done >= 1;
}

static int
fail_first(struct session *session, size_t index)
{
	return 1;
}

static void
make_some_files(struct world *world)
{
	char name[16];

	for (int i = 0; i < 12; i++) {
		(void) snprintf(name, sizeof name, "f%d", i);
		make_random_file(world, name, 30000);
	}
}

static void
test_capture_errors(void **state)
{
	struct world *world = *state;
	struct session sessions[] = {
		{.on_open = refuse_third},
		{.on_stored = stop_second},
		{.on_manifest = fail_manifest},
	};

	make_some_files(world);
	for (size_t i = 0; i < sizeof sessions / sizeof *sessions; i++) {
		struct session *session = &sessions[i];

		session->world = world;
		session->tree = tree_scan(world, NULL);
		assert_fails(capture(session), &session->err, i == 0 ? MOAT_NO_MEMORY : MOAT_FAILED,
			     "by the test");
		/* The first error ends it: at most what other threads had in hand is stored. */
		assert_true(i == 2 || session->stored < 12);
		assert_store_is_empty(world);
		tree_free(session->tree);
	}
}

static void
test_extract_errors(void **state)
{
	struct world *world = *state;
	struct tree *tree;

	make_some_files(world);
	tree = capture_ok(world, NULL);
	for (int i = 0; i < 4; i++) {
		struct session session = {.world = world, .tree = tree, .place = i < 3};

		session.on_place = i == 0 ? fail_first : i == 1 ? fail_second : NULL;
		session.on_done = i >= 2 ? fail_second : NULL;
		assert_fails(extract(&session), &session.err, MOAT_FAILED, "stopped by the test");
		assert_true(session.done < session.file_count);
	}
	assert_restores(world, tree);
	tree_free(tree);
}

/* A core that does not want to go on at the first damage. */
static void
test_damaged_errors(void **state)
{
	struct world *world = *state;
	struct store_listing listing;
	struct tree *tree;

	make_some_files(world);
	tree = capture_ok(world, NULL);
	store_list(world, false, &listing);
	for (size_t i = 0; i < listing.count; i++) {
		int fd = store_open_for_writing(world, listing.items[i].path);

		assert_int_equal(ftruncate(fd, 1), 0);
		assert_int_equal(close(fd), 0);
	}
	for (int place = 0; place < 2; place++) {
		struct session session = {.world = world,
					  .tree = tree,
					  .place = place != 0,
					  .on_damaged = fail_first};

		assert_fails(extract(&session), &session.err, MOAT_FAILED, "stopped by the test");
		assert_int_equal(session.done, 0);
	}
	store_listing_free(&listing);
	tree_free(tree);
}

static int
each_fails(const struct moat_live *live,
	   int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
	   void *context, struct moat_error *err)
{
	struct tree *tree = live->context;

	/* Some of what stays, then the end: nothing may go on the strength of half the truth. */
	if (visit(context, &tree->entries[tree_index(tree, "f3")], err) < 0)
		return -1;
	return moat_fail(err, MOAT_BUSY, "stopped by the test");
}

static void
test_remove_errors(void **state)
{
	struct world *world = *state;
	static const char *const none[] = {NULL};
	struct moat_live live = {.struct_size = sizeof live, .each = each_fails, .manifests = none};
	struct moat_error err = MOAT_ERROR_INIT;
	struct tree *trees[3] = {NULL};

	make_some_files(world);
	trees[0] = capture_ok(world, NULL);
	make_random_file(world, "more", 5000);
	trees[1] = capture_ok(world, trees[0]);
	live.context = trees[1];
	assert_fails(remove_with(world, trees[0]->ref.text, &live, &err), &err, MOAT_BUSY,
		     "stopped by the test");
	assert_restores(world, trees[1]);
	/* And the next one finishes. */
	remove_ok(world, trees[0]->ref.text, trees + 1);
	assert_restores(world, trees[1]);
	remove_ok(world, trees[1]->ref.text, NULL);
	assert_store_is_empty(world);
	tree_free(trees[0]);
	tree_free(trees[1]);
}

/* ------------------------------------------------------------------------ limits of all sorts */

/* Cancelled at each place where the backend asks, one after the other. */
static void
test_cancelled(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};
	long points;

	make_some_files(world);
	make_random_file(world, "big", 4 << 20);
	session.tree = tree_scan(world, NULL);
	for (points = 1;; points++) {
		cancel_after(points);
		if (capture(&session) == 0)
			break;
		assert_int_equal(session.err.code, MOAT_CANCELLED);
		assert_store_is_empty(world);
	}
	assert_true(points > 4);
	print_message("# cancelled at %ld points", points - 1);
	session.place = true;
	for (points = 1;; points++) {
		cancel_after(points);
		if (extract(&session) == 0)
			break;
		assert_int_equal(session.err.code, MOAT_CANCELLED);
	}
	assert_true(points > 3);
	print_message(" of a capture, %ld of a restore\n", points - 1);
	cancel_after(-1);
	assert_restores(world, session.tree);
	tree_free(session.tree);
}

/* Tries with each limit in turn until it is enough. */
static void
raise_limit(struct world *world, struct tree *tree, int resource, rlim_t step, bool place)
{
	struct session session = {.world = world, .tree = tree, .place = place};
	struct rlimit limit, old;
	long points = 0;

	assert_int_equal(getrlimit(resource, &old), 0);
	limit = old;
	for (limit.rlim_cur = 0;; limit.rlim_cur += step, points++) {
		int r;

		assert_int_equal(setrlimit(resource, &limit), 0);
		r = place ? extract_with(&session, world->backend) : capture_raw(&session);
		assert_int_equal(setrlimit(resource, &old), 0);
		if (place)
			extract_end(&session);
		if (r == 0)
			break;
		assert_int_equal(session.err.sys_errno, resource == RLIMIT_FSIZE ? EFBIG : EMFILE);
		if (!place)
			assert_store_is_empty(world);
		for (size_t i = 0; place && i < tree->count; i++) {
			char name[32];

			(void) snprintf(name, sizeof name, "%zu", i);
			(void) unlinkat(world->out_fd, name, 0);
		}
	}
	print_message("# %ld limits\n", points);
	assert_true(points >= 3);
}

/* A file that may not grow beyond each 4 KiB step in turn stands for a full disk. */
static void
test_full_disk(void **state)
{
	struct world *world = *state;
	struct tree *tree;

	make_random_file(world, "f", 60000);
	tree = tree_scan(world, NULL);
	(void) signal(SIGXFSZ, SIG_IGN);
	raise_limit(world, tree, RLIMIT_FSIZE, 4096, false);
	raise_limit(world, tree, RLIMIT_FSIZE, 4096, true);
	assert_restores(world, tree);
	tree_free(tree);
}

static void
test_no_descriptors(void **state)
{
	struct world *world = *state;
	struct tree *tree;

	make_some_files(world);
	tree = tree_scan(world, NULL);
	raise_limit(world, tree, RLIMIT_NOFILE, 1, false);
	assert_restores(world, tree);
	tree_free(tree);
}

/* ------------------------------------------------------------------------------ concurrency */

struct worker {
	struct world *world;
	struct tree *tree;
	struct backend *backend;
	long rounds;
	char failure[256]; /* "": none */
};

/* Asserts nothing: this is another thread. */
static void *
work(void *argument)
{
	struct worker *worker = argument;

	for (long i = 0; i < worker->rounds && worker->failure[0] == '\0'; i++) {
		struct session session = {.world = worker->world, .tree = worker->tree};
		int r = worker->backend == NULL ? capture_raw(&session)
						: extract_with(&session, worker->backend);

		if (r < 0 || session.violation != NULL)
			(void) snprintf(worker->failure, sizeof worker->failure, "%.200s",
					r < 0 ? session.err.message : session.violation);
		if (worker->backend != NULL && session.done != session.file_count)
			(void) snprintf(worker->failure, sizeof worker->failure, "not all done");
		if (worker->backend != NULL)
			extract_end(&session);
	}
	return NULL;
}

static void
run_two(struct worker workers[2])
{
	pthread_t threads[2];

	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (size_t i = 0; i < 2; i++)
		if (workers[i].failure[0] != '\0')
			fail_msg("%s", workers[i].failure);
}

/* Handles on two stores at once, then two on one store, reading. */
static void
test_two_handles(void **state)
{
	struct world *worlds[2] = {*state, world_new()};
	struct worker workers[2] = {{.rounds = test_scaled(20)}, {.rounds = test_scaled(20)}};
	struct backend *second;

	for (size_t i = 0; i < 2; i++) {
		make_some_files(worlds[i]);
		workers[i].world = worlds[i];
		workers[i].tree = tree_scan(worlds[i], NULL);
	}
	run_two(workers);
	for (size_t i = 0; i < 2; i++)
		assert_restores(worlds[i], workers[i].tree);
	second = world_open(worlds[0]);
	tree_free(workers[1].tree);
	workers[1].world = worlds[0];
	workers[1].tree = workers[0].tree;
	workers[0].backend = worlds[0]->backend;
	workers[1].backend = second;
	run_two(workers);
	backend_close(second);
	assert_restores(worlds[0], workers[0].tree);
	tree_free(workers[0].tree);
	world_free(worlds[1]);
}

/* A snapshot of one handle is there for another one, opened later. */
static void
test_reopened(void **state)
{
	struct world *world = *state;
	struct tree *trees[3] = {NULL};

	make_some_files(world);
	trees[0] = capture_ok(world, NULL);
	backend_close(world->backend);
	world->backend = world_open(world);
	assert_restores(world, trees[0]);
	make_random_file(world, "f3", 10);
	trees[1] = capture_ok(world, trees[0]);
	remove_ok(world, trees[0]->ref.text, trees + 1);
	backend_close(world->backend);
	world->backend = world_open(world);
	assert_restores(world, trees[1]);
	tree_free(trees[0]);
	tree_free(trees[1]);
}

/* The same id twice is an error, and the first one stays. */
static void
test_id_twice(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world, .id = "snap_000000000abc"};

	make_some_files(world);
	session.tree = tree_scan(world, NULL);
	assert_ok(capture(&session), &session.err);
	(void) snprintf(session.id, sizeof session.id, "snap_000000000abc");
	{
		struct session again = {.world = world, .tree = tree_scan(world, NULL)};

		memcpy(again.id, session.id, sizeof again.id);
		assert_fails(capture(&again), &again.err, MOAT_EXISTS, "exists already");
		tree_free(again.tree);
	}
	assert_restores(world, session.tree);
	tree_free(session.tree);
}

const struct CMUnitTest failure_tests[] = {
	WORLD_TEST(test_capture_errors), WORLD_TEST(test_extract_errors),
	WORLD_TEST(test_damaged_errors), WORLD_TEST(test_remove_errors),
	WORLD_TEST(test_cancelled),      WORLD_TEST(test_full_disk),
	WORLD_TEST(test_no_descriptors), WORLD_TEST(test_two_handles),
	WORLD_TEST(test_reopened),       WORLD_TEST(test_id_twice),
};
const size_t failure_test_count = sizeof failure_tests / sizeof *failure_tests;
