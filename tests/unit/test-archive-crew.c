/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-archive with several threads: the same result whatever their number, files that move
 * meanwhile, errors and cancellation in any of them, memory that stays flat. */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake-archive.h"
#include "plugins/snapshot-archive/archive.h"
#include "plugins/snapshot-archive/crew.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAVE_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAVE_SANITIZER 1
#endif
#endif
#ifndef HAVE_SANITIZER
#define HAVE_SANITIZER 0
#endif

static const char *const counts[] = {"1", "2", "3", "8"};
#define COUNTS (sizeof counts / sizeof *counts)

/* Small, large and empty files, links to some, directories that may not be written to. */
static void
make_mixture(struct world *world, size_t files)
{
	static const size_t scales[] = {0, 1, 700, 9000, 9000, 60000, 300000, 5 << 20};
	char name[64];

	for (size_t d = 0; d < 7; d++) {
		(void) snprintf(name, sizeof name, "d%zu", d);
		assert_int_equal(mkdirat(world->src_fd, name, 0755), 0);
	}
	for (size_t i = 0; i < files; i++) {
		size_t scale = scales[random_below(i % 50 == 0 ? 8 : 7)];

		(void) snprintf(name, sizeof name, "d%zu/f%zu", i % 7, i);
		make_random_file(world, name, (size_t) random_below(scale + 1));
	}
	assert_int_equal(
		run_shell("cd \"$1\" && for d in d?; do f=$(ls $d | tail -1); "
			  "ln $d/$f $d/a; ln $d/$f z$d; ln -s a $d/l; ln -s /nowhere $d/m; "
			  "done; head -c 3000000 /dev/urandom >big; ln big big2; "
			  "ln big d3/big3; chmod 555 d1; touch -d @1000.25 d2",
			  world->src, NULL),
		0);
}

static void
remove_mixture(struct world *world)
{
	assert_int_equal(run_shell("chmod 755 \"$1\"/d1 \"$2\"/tar/d1; rm -rf \"$1\"/*", world->src,
				   world->path, NULL),
			 0);
}

static void
test_any_number(void **state)
{
	struct world *world = *state;

	for (size_t i = 0; i < COUNTS; i++) {
		struct session session = {.world = world};

		world_configure(world, "threads", counts[i]);
		make_mixture(world, (size_t) test_scaled(600));
		session.tree = tree_scan_source(world, NULL);
		assert_ok(capture(&session), &session.err);
		if (test_scaled(100) >= 100)
			assert_true(session.stranger == (i > 0));
		assert_restores(world, session.tree);
		assert_int_equal(run_shell("rm -rf \"$1\"/tar", world->path, NULL), 0);
		assert_stock_tools_restore(world);
		remove_mixture(world);
		tree_free(session.tree);
		remove_ok(world, session.ref.text, NULL);
		assert_int_equal(store_count(world), 0);
	}
}

/* ------------------------------------------------------------------------- files that move */

static int
again_sometimes(struct session *session, size_t index, unsigned times)
{
	return times < 3 && (index + times) % 3 == 0;
}

static struct world *moved;
static atomic_uint moves;

/* Called by all threads: each time another file grows, shrinks, vanishes or is there anew. */
static void
move_something(void)
{
	unsigned n = moves++;
	char name[16];
	int fd;

	(void) snprintf(name, sizeof name, "m%u", n * 7 % 40);
	if (n % 5 == 0) {
		(void) unlinkat(moved->src_fd, name, 0);
		return;
	}
	fd = openat(moved->src_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (n % 5 < 3)
		(void) !ftruncate(fd, (off_t) (n * 7919 % 3000000));
	else
		(void) !pwrite(fd, "moved", 5, (off_t) (n * 104729 % 3000000));
	(void) close(fd);
}

/* Whatever was taken is what was given to the core as taken, by size and hash. */
static void
test_moving_files(void **state)
{
	struct world *world = *state;
	long rounds = test_scaled(40);
	char name[16];

	moved = world;
	world_configure(world, "threads", "4");
	for (long round = 0; round < rounds; round++) {
		struct session session = {.world = world, .on_stored = again_sometimes};
		struct session check = {.world = world, .place = true};

		for (unsigned i = 0; i < 40; i++) {
			(void) snprintf(name, sizeof name, "m%u", i);
			make_random_file(world, name,
					 (size_t) random_below(i % 4 == 0 ? 3000000 : 30000));
		}
		session.tree = tree_scan_source(world, NULL);
		fake_on_poll = move_something;
		assert_ok(capture(&session), &session.err);
		fake_on_poll = NULL;
		/* Those that had vanished are not in it, as the core would see to. */
		for (size_t i = 0; i < session.tree->count; i++)
			if ((session.tree->entries[i].flags & MOAT_HAS_LOCATOR) == 0)
				session.tree->entries[i].size = 0;
		check.tree = session.tree;
		for (size_t i = 0; i < session.tree->count; i++)
			if ((session.tree->entries[i].flags & MOAT_HAS_LOCATOR) == 0)
				session.tree->entries[i].type = MOAT_DIRECTORY;
		assert_ok(extract(&check), &check.err);
		assert_false(check.wrong);
		check.place = false;
		assert_ok(extract(&check), &check.err);
		assert_int_equal(check.damaged, 0);
		assert_int_equal(run_shell("cd \"$1\" && lz4 -dcq store/*.lz4 | tar -t >list",
					   world->path, NULL),
				 0);
		remove_ok(world, session.ref.text, NULL);
		tree_free(session.tree);
	}
	print_message("# %ld rounds, %u moves\n", rounds, (unsigned) moves);
	assert_true(moves > 100 || rounds < 10);
}

/* --------------------------------------------------------------------------- errors, stopping */

static atomic_long fail_at;

static int
fail_later(struct session *session, size_t index, unsigned times)
{
	return fail_at-- == 0 ? -1 : 0;
}

static int
refuse_later(struct session *session, size_t index)
{
	return fail_at-- == 0 ? MOAT_NO_MEMORY : 0;
}

/* Each callback of a capture in turn fails, in whatever thread. */
static void
test_each_failure(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};
	long points[2] = {0, 0};

	world_configure(world, "threads", "4");
	make_mixture(world, 40);
	session.tree = tree_scan_source(world, NULL);
	for (int which = 0; which < 2; which++) {
		session.on_stored = which == 0 ? fail_later : NULL;
		session.on_open = which == 1 ? refuse_later : NULL;
		for (;; points[which]++) {
			fail_at = points[which];
			if (capture(&session) == 0)
				break;
			assert_int_equal(session.err.code,
					 which == 0 ? MOAT_FAILED : MOAT_NO_MEMORY);
			assert_int_equal(store_count(world), 0);
		}
		remove_ok(world, session.ref.text, NULL);
	}
	print_message("# %ld failures\n", points[0] + points[1]);
	assert_int_equal(points[0], 41);
	assert_int_equal(points[1], 41);
	assert_int_equal(run_shell("chmod 755 \"$1\"/d1", world->src, NULL), 0);
	tree_free(session.tree);
}

static void
test_each_cancellation(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};
	long points[3] = {0, 0, 0};
	long step = test_scaled(100) >= 100 ? 1 : 20;

	make_mixture(world, 40);
	for (size_t i = 1; i < COUNTS; i++) {
		world_configure(world, "threads", counts[i]);
		session.tree = tree_scan_source(world, NULL);
		for (;; points[0] += step) {
			fake_cancel_after = points[0];
			if (capture(&session) == 0)
				break;
			assert_int_equal(session.err.code, MOAT_CANCELLED);
			assert_string_equal(session.err.message, "cancelled");
			assert_int_equal(store_count(world), 0);
		}
		for (int place = 0; place < 2; place++) {
			session.place = place == 1;
			for (;; points[1 + place] += step) {
				fake_cancel_after = points[1 + place];
				if (extract(&session) == 0)
					break;
				assert_int_equal(session.err.code, MOAT_CANCELLED);
				assert_string_equal(session.err.message, "cancelled");
			}
			assert_false(session.wrong);
		}
		fake_cancel_after = -1;
		remove_ok(world, session.ref.text, NULL);
		tree_free(session.tree);
		for (size_t p = 0; p < 3; p++) {
			assert_true(points[p] > 5 || step > 1);
			points[p] = 0;
		}
	}
	assert_int_equal(run_shell("chmod 755 \"$1\"/d1", world->src, NULL), 0);
}

/* The disk is full at each 200 KiB; which thread meets it is anybody's guess. */
static void
test_full_disk(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};

	world_configure(world, "threads", "4");
	make_random_file(world, "large", 6 << 20);
	for (char name[3] = "s0"; name[1] < '9'; name[1]++)
		make_random_file(world, name, 900000);
	session.tree = tree_scan_source(world, NULL);
	assert_true(sweep_full_disk(&session, 200 << 10) > 60);
	assert_restores(world, session.tree);
	tree_free(session.tree);
}

/* ----------------------------------------------------------------------------------- signals */

static int
look_at_signals(void *context, size_t member, struct moat_error *err)
{
	sigset_t mask;

	assert_int_equal(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
	((int *) context)[member] = sigismember(&mask, SIGINT) && sigismember(&mask, SIGTERM) &&
				    sigismember(&mask, SIGWINCH);
	return 0;
}

static int
fail_second(void *context, size_t member, struct moat_error *err)
{
	struct crew *crew = context;
	int r = 0;

	if (member == 1)
		return moat_fail(err, MOAT_NO_SPACE, "the first error");
	pthread_mutex_lock(&crew->lock);
	while (r == 0 && (r = crew_check(crew, err)) == 0)
		pthread_cond_wait(&crew->changed, &crew->lock);
	pthread_mutex_unlock(&crew->lock);
	return r;
}

static void
test_crew(void **state)
{
	int blocked[CREW_MAX] = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	struct crew crew;

	assert_true(crew_cpus() >= 1 && crew_cpus() <= CREW_MAX);
	assert_ok(crew_init(&crew, &err), &err);
	assert_ok(crew_run(&crew, CREW_MAX + 5, look_at_signals, blocked, &err), &err);
	assert_false(blocked[0]); /* the caller's own are as they were */
	for (size_t i = 1; i < CREW_MAX; i++)
		assert_true(blocked[i]);
	/* All others only wait for somebody to fail. */
	assert_fails(crew_run(&crew, 4, fail_second, &crew, &err), &err, MOAT_NO_SPACE,
		     "the first error");
	crew_destroy(&crew);
}

/* ------------------------------------------------------------------------------------ memory */

/* Of this process, in KiB. */
static long
peak_memory(void)
{
	struct rusage usage;

	assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
	return usage.ru_maxrss;
}

/* How much the peak rises, in KiB, by a capture and a verification.  In a process of its own, as a
 * peak does not go down. */
static long
cost_of_capture(struct world *world, struct tree *tree)
{
	struct session session = {.world = world, .tree = tree};
	int result[2], status;
	long cost = -1;
	pid_t pid;

	assert_int_equal(pipe(result), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		long before = peak_memory();

		if (capture(&session) == 0 && extract(&session) == 0)
			cost = peak_memory() - before;
		_exit(write(result[1], &cost, sizeof cost) == sizeof cost ? 0 : 1);
	}
	assert_int_equal(read(result[0], &cost, sizeof cost), sizeof cost);
	assert_true(waitpid(pid, &status, 0) == pid && status == 0);
	(void) close(result[0]);
	(void) close(result[1]);
	world->next_id++;
	return cost;
}

/* 300 MB cost no more memory than 6 MB, and two threads less than 15 MB. */
static void
test_flat_memory(void **state)
{
	struct world *world = *state;
	struct tree *tree;
	long small, large, size = test_scaled(300);
	char script[128];

	world_configure(world, "threads", "2");
	fake_position_hash = true;
	assert_int_equal(run_shell("head -c 6000000 /dev/urandom >\"$1\"/f", world->src, NULL), 0);
	tree = tree_scan_source(world, NULL);
	small = cost_of_capture(world, tree);
	tree_free(tree);
	(void) snprintf(script, sizeof script,
			"cd \"$1\" && for i in $(seq %ld); do head -c 1000000 f; done >g", size);
	assert_int_equal(run_shell(script, world->src, NULL), 0);
	tree = tree_scan_source(world, NULL);
	large = cost_of_capture(world, tree);
	tree_free(tree);
	print_message("# %ld KiB for 6 MB, %ld KiB for %ld MB\n", small, large, size);
	assert_true(small > 0 && large > 0);
	/* Sanitizers keep what was freed; valgrind, under which the scale is low, has memory of
	 * its own. */
	if (!HAVE_SANITIZER && test_scaled(100) >= 20)
		assert_true(large < small + 2048 && large < 15 * 1024);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		/* First, while the process is small. */
		WORLD_TEST(test_flat_memory),       WORLD_TEST(test_any_number),
		WORLD_TEST(test_moving_files),      WORLD_TEST(test_each_failure),
		WORLD_TEST(test_each_cancellation), WORLD_TEST(test_full_disk),
		cmocka_unit_test(test_crew),
	};

	random_start();
	return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
