/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance of snapshot backends: what goes in comes out, also when it moves meanwhile. */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conformance.h"

static void
test_sizes(void **state)
{
	static const size_t sizes[] = {0,       1,
				       511,     512,
				       513,     4095,
				       4096,    4097,
				       65535,   65536,
				       65537,   262143,
				       262144,  262145,
				       1048575, 1048576,
				       1048577, 4194303,
				       4194304, 4194305,
				       8388608, 2 * 8388608 + 4321};
	struct world *world = *state;
	struct tree *tree;
	char name[32];

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		(void) snprintf(name, sizeof name, "f%zu", sizes[i]);
		make_random_file(world, name, sizes[i]);
	}
	tree = capture_ok(world, NULL);
	assert_restores(world, tree);
	tree_free(tree);
}

/* The same holes as before: not one block more than there is data, roundly. */
static void
test_sparse(void **state)
{
	static const off_t places[] = {0, 65536, 1 << 19, (1 << 20) - 4, 3 << 20};
	struct world *world = *state;
	struct session session = {.world = world, .place = true};
	size_t checked = 0;

	make_sparse(world, "hole", 1 << 20, 0, NULL);
	make_sparse(world, "front", 1 << 20, 1, places);
	make_sparse(world, "middle", (1 << 20) + 1, 1, places + 2);
	make_sparse(world, "end", 1 << 20, 1, places + 3);
	make_sparse(world, "unaligned", (5 << 20) + 333, 5, places);
	session.tree = capture_ok(world, NULL);
	assert_restores(world, session.tree);
	assert_ok(extract(&session), &session.err);
	for (size_t i = 0; i < session.file_count; i++) {
		struct stat st;
		char name[32];

		(void) snprintf(name, sizeof name, "%zu", i);
		assert_int_equal(fstatat(world->out_fd, name, &st, 0), 0);
		assert_true(st.st_size >= 1 << 20);
		assert_true((uint64_t) st.st_blocks * 512 <= 5 * 65536);
		checked++;
	}
	assert_int_equal(checked, 5);
	tree_free(session.tree);
}

/* One content for all names, of which only the first is asked for. */
static void
test_hard_links(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world};

	make_random_file(world, "a", 70000);
	make_random_file(world, "other", 70000);
	assert_int_equal(mkdirat(world->src_fd, "d", 0755), 0);
	assert_int_equal(linkat(world->src_fd, "a", world->src_fd, "b", 0), 0);
	assert_int_equal(linkat(world->src_fd, "a", world->src_fd, "d/c", 0), 0);
	assert_int_equal(symlinkat("a", world->src_fd, "link"), 0);
	session.tree = tree_scan(world, NULL);
	assert_ok(capture(&session), &session.err);
	assert_int_equal(session.opened, 2);
	assert_int_equal(session.stored, 2);
	assert_restores(world, session.tree);
	tree_free(session.tree);
}

static void
test_nothing_changed(void **state)
{
	struct world *world = *state;
	struct tree *first, *second;
	struct session session = {.world = world};

	make_random_file(world, "f", 3000000);
	make_file(world, "empty", "", 0);
	first = capture_ok(world, NULL);
	session.tree = second = tree_scan(world, first);
	assert_ok(capture(&session), &session.err);
	assert_int_equal(session.stored, 0);
	assert_true(session.ref.stored_bytes < 4096);
	assert_string_not_equal(first->ref.text, second->ref.text);
	assert_restores(world, second);
	assert_restores(world, first);
	tree_free(first);
	tree_free(second);
}

static void
test_many_files(void **state)
{
	struct world *world = *state;
	long count = test_scaled(9000);
	struct tree *first, *second;
	char name[32];

	for (long i = 0; i < count; i++) {
		(void) snprintf(name, sizeof name, "%ld", i);
		make_file(world, name, name, strlen(name));
	}
	first = capture_ok(world, NULL);
	assert_restores(world, first);
	make_file(world, "one more", "1", 1);
	second = capture_ok(world, first);
	assert_restores(world, second);
	remove_ok(world, first->ref.text, (struct tree *[]){second, NULL});
	assert_restores(world, second);
	remove_ok(world, second->ref.text, NULL);
	assert_store_is_empty(world);
	tree_free(first);
	tree_free(second);
}

/* ------------------------------------------------------------------------------------ random */

#define KEPT 4

static void
remove_one(struct world *world, struct tree **kept, size_t *count)
{
	size_t gone = random_below(*count);
	struct tree *tree = kept[gone];

	memmove(kept + gone, kept + gone + 1, (*count - gone) * sizeof(*kept)); /* and the NULL */
	--*count;
	remove_ok(world, tree->ref.text, kept);
	tree_free(tree);
}

/* Chains that branch: each snapshot builds on any that is there, any of which may go. */
static void
test_random_chains(void **state)
{
	struct world *world = *state;
	struct tree *kept[KEPT + 2] = {NULL};
	long rounds = test_scaled(120);
	size_t count = 0, files = 0;

	for (long i = 0; i < rounds; i++) {
		const struct tree *previous = count == 0 ? NULL : kept[random_below(count)];

		change_at_random(world);
		kept[count] = capture_ok(world, previous);
		files += kept[count++]->count;
		assert_restores(world, kept[count - 1]);
		while (count > 1 + random_below(KEPT))
			remove_one(world, kept, &count);
		for (size_t n = 0; n < count; n++)
			assert_restores(world, kept[n]);
	}
	print_message("# %ld random captures, %zu entries\n", rounds, files);
	while (count > 0)
		remove_one(world, kept, &count);
	assert_store_is_empty(world);
}

/* ------------------------------------------------------------------------- files that move */

static int
change_twice(struct session *session, size_t index, unsigned times)
{
	static const char *const contents[] = {"", "second, longer", "3rd"};

	if (times > 2)
		return 0;
	make_file(session->world, session->tree->entries[index].path, contents[times],
		  strlen(contents[times]));
	hash_file(session->world->src_fd, session->tree->entries[index].path,
		  session->tree->truth[index]);
	return 1;
}

static void
test_stored_again(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world, .on_stored = change_twice};

	make_file(world, "f", "first", 5);
	make_file(world, "g", "", 0);
	session.tree = tree_scan(world, NULL);
	assert_ok(capture(&session), &session.err);
	assert_int_equal(session.stored, 6);
	assert_int_equal(session.tree->entries[tree_index(session.tree, "f")].size, 3);
	assert_int_equal(session.tree->entries[tree_index(session.tree, "g")].size, 3);
	assert_restores(world, session.tree);
	tree_free(session.tree);
}

static int
empty_it(struct session *session, size_t index, unsigned times)
{
	if (times > 1)
		return 0;
	make_file(session->world, session->tree->entries[index].path, "", 0);
	hash_file(session->world->src_fd, session->tree->entries[index].path,
		  session->tree->truth[index]);
	return 1;
}

/* What was content at first and then none. */
static void
test_emptied(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world, .on_stored = empty_it};

	make_random_file(world, "f", 10000);
	session.tree = tree_scan(world, NULL);
	assert_ok(capture(&session), &session.err);
	assert_int_equal(session.tree->entries[tree_index(session.tree, "f")].size, 0);
	assert_restores(world, session.tree);
	tree_free(session.tree);
}

struct mover {
	struct world *world;
	atomic_bool stop;
	unsigned long moves;
};

/* Writes, truncates, grows, until it is told to stop. */
static void *
keep_moving(void *argument)
{
	struct mover *mover = argument;
	int fd = openat(mover->world->src_fd, "f", O_WRONLY | O_CLOEXEC);
	char block[5000];

	while (fd >= 0 && !atomic_load(&mover->stop)) {
		memset(block, (int) (mover->moves % 251), sizeof block);
		if (ftruncate(fd, (off_t) (mover->moves * 7919 % 2000000)) < 0 ||
		    pwrite(fd, block, sizeof block, (off_t) (mover->moves * 104729 % 2000000)) < 0)
			break;
		mover->moves++;
	}
	(void) close(fd);
	return NULL;
}

/* A file that is written to all the while is stored in some state; what comes back is that state,
 * of the size and the hash that were told. */
static void
test_moving_file(void **state)
{
	struct world *world = *state;
	struct mover mover = {.world = world};
	long rounds = test_scaled(60);
	pthread_t thread;

	make_random_file(world, "f", 1500000);
	make_random_file(world, "g", 1000);
	assert_int_equal(pthread_create(&thread, NULL, keep_moving, &mover), 0);
	for (long i = 0; i < rounds; i++) {
		struct session session = {.world = world, .place = true};
		size_t f;

		session.tree = tree_scan(world, NULL);
		f = tree_index(session.tree, "f");
		assert_ok(capture(&session), &session.err);
		memcpy(session.tree->truth[f], session.tree->entries[f].hash, MOAT_HASH_SIZE);
		assert_true((session.tree->entries[f].flags & MOAT_HAS_HASH) != 0);
		assert_restores(world, session.tree);
		remove_ok(world, session.ref.text, NULL);
		tree_free(session.tree);
	}
	atomic_store(&mover.stop, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	print_message("# %ld captures, %lu moves\n", rounds, mover.moves);
	assert_true(mover.moves > (unsigned long) rounds);
	assert_store_is_empty(world);
}

static int
refuse_some(struct session *session, size_t index)
{
	static const int codes[] = {MOAT_GONE, MOAT_CHANGED, MOAT_PERMISSION, 0};

	return codes[session->tree->entries[index].path[0] % 4];
}

static void
test_not_opened(void **state)
{
	struct world *world = *state;
	struct session session = {.world = world, .on_open = refuse_some};

	for (char name[2] = "a"; name[0] <= 'l'; name[0]++)
		make_file(world, name, name, 1);
	assert_int_equal(linkat(world->src_fd, "a", world->src_fd, "m", 0), 0);
	assert_int_equal(linkat(world->src_fd, "c", world->src_fd, "n", 0), 0);
	session.tree = tree_scan(world, NULL);
	assert_ok(capture(&session), &session.err);
	assert_int_equal(session.opened, 12);
	/* Those that were refused are not asked for. */
	for (size_t i = 0; i < session.tree->count; i++)
		if ((session.tree->entries[i].flags & MOAT_HAS_LOCATOR) == 0 &&
		    session.tree->entries[i].leader == MOAT_NO_LEADER)
			session.tree->entries[i].type = MOAT_DIRECTORY;
	session.on_open = NULL;
	assert_restores(world, session.tree);
	tree_free(session.tree);
}

const struct CMUnitTest content_tests[] = {
	WORLD_TEST(test_sizes),        WORLD_TEST(test_sparse),
	WORLD_TEST(test_hard_links),   WORLD_TEST(test_nothing_changed),
	WORLD_TEST(test_many_files),   WORLD_TEST(test_random_chains),
	WORLD_TEST(test_stored_again), WORLD_TEST(test_emptied),
	WORLD_TEST(test_moving_file),  WORLD_TEST(test_not_opened),
};
const size_t content_test_count = sizeof content_tests / sizeof *content_tests;
