/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance of snapshot backends: what is removed, what stays, and that damage is found. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conformance.h"

/* ---------------------------------------------------------------------------------- removal */

/* Five snapshots; the last one needs a file of each. */
static void
test_chain(void **state)
{
	struct world *world = *state;
	struct tree *trees[6] = {NULL};

	for (size_t n = 0; n < 5; n++) {
		char name[16];

		for (size_t i = n; i < 5; i++) {
			(void) snprintf(name, sizeof name, "f%zu", i);
			make_random_file(world, name, 100000 + i);
		}
		trees[n] = capture_ok(world, n == 0 ? NULL : trees[n - 1]);
	}
	for (size_t n = 0; n < 5; n++)
		assert_restores(world, trees[n]);
	for (size_t n = 0; n < 4; n++) {
		remove_ok(world, trees[n]->ref.text, trees + n + 1);
		for (size_t i = n + 1; i < 5; i++)
			assert_restores(world, trees[i]);
	}
	assert_true(store_bytes(world) >= 500000);
	remove_ok(world, trees[2]->ref.text, trees + 4); /* gone already */
	assert_restores(world, trees[4]);
	remove_ok(world, trees[4]->ref.text, NULL);
	assert_store_is_empty(world);
	for (size_t n = 0; n < 5; n++)
		tree_free(trees[n]);
}

/* What only the removed snapshot had is gone at once; what a removed one kept for others goes with
 * the last of them. */
static void
test_reclaims(void **state)
{
	struct world *world = *state;
	struct tree *trees[4] = {NULL};

	make_random_file(world, "big", 3000000);
	trees[0] = capture_ok(world, NULL);
	make_random_file(world, "big", 3000001);
	make_random_file(world, "shared", 1000000);
	trees[1] = capture_ok(world, trees[0]);
	assert_int_equal(unlinkat(world->src_fd, "big", 0), 0);
	trees[2] = capture_ok(world, trees[1]);
	assert_true(store_bytes(world) >= 7000000);
	remove_ok(world, trees[0]->ref.text, trees + 1);
	assert_true(store_bytes(world) < 4100000);
	assert_restores(world, trees[1]);
	remove_ok(world, trees[1]->ref.text, trees + 2);
	assert_restores(world, trees[2]);
	remove_ok(world, trees[2]->ref.text, NULL);
	assert_store_is_empty(world);
	for (size_t n = 0; n < 3; n++)
		tree_free(trees[n]);
}

static void
test_never_there(void **state)
{
	struct world *world = *state;
	struct tree *trees[2] = {NULL};

	remove_ok(world, "snap_ffffffffffff", NULL);
	assert_store_is_empty(world);
	make_random_file(world, "f", 10000);
	trees[0] = capture_ok(world, NULL);
	remove_ok(world, "snap_ffffffffffff", trees);
	assert_restores(world, trees[0]);
	tree_free(trees[0]);
}

/* What is the same, but was lost, is stored again: a snapshot does not begin its life damaged. */
static void
test_lost_content(void **state)
{
	struct world *world = *state;
	struct store_listing listing;
	struct tree *first, *second;

	make_random_file(world, "f", 30000);
	make_file(world, "empty", "", 0);
	first = capture_ok(world, NULL);
	store_list(world, false, &listing);
	for (size_t i = 0; i < listing.count; i++)
		assert_int_equal(unlinkat(world->store_fd, listing.items[i].path, 0), 0);
	assert_true(finds_damage(world, first));
	{
		struct session session = {.world = world, .tree = tree_scan(world, first)};

		session.tree->entries[tree_index(session.tree, "f")].flags |= MOAT_HAS_LOCATOR;
		session.on_open = NULL;
		(void) capture_raw(&session);
		assert_int_equal(session.err.code, MOAT_OK);
		assert_int_equal(session.tree->entries[tree_index(session.tree, "f")].status,
				 MOAT_SAME);
		second = session.tree;
	}
	assert_restores(world, second);
	store_listing_free(&listing);
	tree_free(first);
	tree_free(second);
}

/* ------------------------------------------------------------- a process that died within */

static int
die_in_stored(struct session *session, size_t index, unsigned times)
{
	return kill(getpid(), SIGKILL);
}

static int
die_in_manifest(struct session *session)
{
	return kill(getpid(), SIGKILL);
}

/* Captures in a process that dies: in stored(), in manifest(), or just after. */
static void
die_capturing(struct world *world, struct tree *tree, int where)
{
	struct session session = {.world = world, .tree = tree, .id = "snap_00000000dead"};
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		session.on_stored = where == 0 ? die_in_stored : NULL;
		session.on_manifest = where == 1 ? die_in_manifest : NULL;
		(void) capture_raw(&session);
		_exit(where == 2 && session.err.code == MOAT_OK ? 0 : 1);
	}
	while (waitpid(pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	if (where == 2)
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	else
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void
test_died_within(void **state)
{
	struct world *world = *state;
	struct tree *trees[2] = {NULL}, *tree;

	make_random_file(world, "kept", 20000);
	trees[0] = capture_ok(world, NULL);
	make_random_file(world, "f", 20000);
	make_random_file(world, "g", 20000);
	for (int where = 0; where < 3; where++) {
		tree = tree_scan(world, trees[0]);
		die_capturing(world, tree, where);
		remove_ok(world, "snap_00000000dead", trees);
		assert_true(store_bytes(world) < 25000);
		assert_restores(world, trees[0]);
		tree_free(tree);
	}
	/* Without the removal, the next snapshot is not disturbed either. */
	tree = tree_scan(world, NULL);
	die_capturing(world, tree, 0);
	tree_free(tree);
	tree = capture_ok(world, NULL);
	assert_restores(world, tree);
	remove_ok(world, "snap_00000000dead", (struct tree *[]){trees[0], tree, NULL});
	remove_ok(world, tree->ref.text, trees);
	remove_ok(world, trees[0]->ref.text, NULL);
	assert_store_is_empty(world);
	tree_free(tree);
	tree_free(trees[0]);
}

/* ------------------------------------------------------------------------------- enumerating */

struct found {
	const char *refs[8]; /* expected, NULL-terminated */
	uint32_t flags[8];   /* and theirs */
	size_t count, wrong, fail_at;
};

static int
on_found(void *context, const struct moat_ref *ref, const void *manifest, size_t size,
	 struct moat_error *err)
{
	struct found *found = context;
	size_t i = 0;

	if (++found->count == found->fail_at)
		return moat_fail(err, MOAT_BUSY, "stopped by the test");
	while (found->refs[i] != NULL && strcmp(found->refs[i], ref->text) != 0)
		i++;
	/* The manifests of these tests are the ids of their snapshots. */
	if (found->refs[i] == NULL || found->flags[i] != ref->flags || size != strlen(ref->text) ||
	    memcmp(manifest, ref->text, size) != 0)
		found->wrong++;
	return 0;
}

static void
assert_enumerates(struct world *world, struct found *found, size_t count)
{
	struct moat_error err = MOAT_ERROR_INIT;

	found->count = found->wrong = 0;
	assert_ok(snapshot_enumerate(world->backend, on_found, found, &err), &err);
	assert_int_equal(found->count, count);
	assert_int_equal(found->wrong, 0);
}

static void
test_enumerate(void **state)
{
	struct world *world = *state;
	struct tree *trees[4] = {NULL};
	struct found found = {.refs = {NULL}};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_enumerates(world, &found, 0);
	for (size_t n = 0; n < 3; n++) {
		make_random_file(world, n == 0 ? "a" : n == 1 ? "b" : "c", 5000);
		trees[n] = capture_ok(world, n == 0 ? NULL : trees[n - 1]);
		found.refs[n] = trees[n]->ref.text;
	}
	assert_enumerates(world, &found, 3);
	found.fail_at = 2;
	found.count = 0;
	assert_fails(snapshot_enumerate(world->backend, on_found, &found, &err), &err, MOAT_BUSY,
		     "stopped by the test");
	found.fail_at = 0;
	/* The manifest of the first is needed to read those of others. */
	{
		struct tree *with_manifest[] = {trees[0], trees[1], trees[2], NULL};

		remove_ok(world, trees[0]->ref.text, with_manifest);
		found.flags[0] = MOAT_REF_REMOVED;
		assert_enumerates(world, &found, subject.lax ? 2 : 3);
		assert_restores(world, trees[2]);
	}
	/* Now it is not, though its content still is: it may be told of, as removed. */
	remove_ok(world, trees[1]->ref.text, trees + 2);
	found.flags[1] = MOAT_REF_REMOVED;
	found.count = found.wrong = 0;
	assert_ok(snapshot_enumerate(world->backend, on_found, &found, &err), &err);
	assert_true(found.count >= 1);
	assert_int_equal(found.wrong, 0);
	assert_restores(world, trees[2]);
	for (size_t n = 0; n < 3; n++)
		tree_free(trees[n]);
}

/* A manifest alone that is still needed is kept, whatever became of the content. */
static void
test_manifest_alone(void **state)
{
	struct world *world = *state;
	struct tree *trees[3] = {NULL};
	struct found found = {.refs = {NULL}};
	struct tree *nothing;

	make_random_file(world, "a", 50000);
	trees[0] = capture_ok(world, NULL);
	assert_int_equal(unlinkat(world->src_fd, "a", 0), 0);
	trees[1] = nothing = capture_ok(world, trees[0]);
	found.refs[0] = trees[0]->ref.text;
	found.refs[1] = trees[1]->ref.text;
	found.flags[0] = MOAT_REF_REMOVED;
	{
		/* Named, though none of its files are needed. */
		struct tree empty = {.ref = trees[0]->ref};
		struct tree *live[] = {&empty, nothing, NULL};

		remove_ok(world, trees[0]->ref.text, live);
	}
	assert_enumerates(world, &found, subject.lax ? 1 : 2);
	assert_true(store_bytes(world) < 20000);
	remove_ok(world, trees[1]->ref.text, NULL);
	assert_store_is_empty(world);
	tree_free(trees[0]);
	tree_free(trees[1]);
}

/* ------------------------------------------------------------------------------------ damage */

/* A few small files of each kind, in two snapshots. */
static void
small_store(struct world *world, struct tree *trees[3])
{
	off_t place = 70000;

	make_file(world, "a", "some text, some text, some text\n", 32);
	make_random_file(world, "b", 200);
	make_file(world, "empty", "", 0);
	make_file(world, "gone", "gone later", 10);
	trees[0] = capture_ok(world, NULL);
	assert_int_equal(unlinkat(world->src_fd, "gone", 0), 0);
	make_random_file(world, "c", 300);
	make_sparse(world, "sparse", 70004, 1, &place);
	trees[1] = capture_ok(world, trees[0]);
	trees[2] = NULL;
}

/* With the store as it is, damaged somewhere: a verification finds it, and what is restored
 * nevertheless is right. */
static bool
is_found(struct world *world, struct tree *const *trees, bool place)
{
	bool found = false;

	for (; *trees != NULL; trees++) {
		found = finds_damage(world, *trees) || found;
		if (place) {
			struct session session = {.world = world, .tree = *trees, .place = true};

			if (extract(&session) < 0)
				assert_int_equal(session.err.code, MOAT_CORRUPT);
		}
	}
	return found;
}

static void
poke(struct world *world, const struct stored_file *file, size_t at, char byte)
{
	int fd = store_open_for_writing(world, file->path);

	assert_int_equal(pwrite(fd, &byte, 1, (off_t) at), 1);
	assert_int_equal(close(fd), 0);
}

/* Between two bytes that are tried: each of a small file, some of a large one. */
static size_t
step_for(const struct stored_file *file)
{
	return file->size / (size_t) test_scaled(1500) + 1;
}

static void
flip_bytes(struct world *world, struct tree *const *trees)
{
	static const char masks[] = {0x01, (char) 0x80, (char) 0xff};
	struct store_listing listing;
	size_t cases = 0;

	store_list(world, true, &listing);
	for (size_t f = 0; f < listing.count; f++) {
		const struct stored_file *file = &listing.items[f];
		size_t step = step_for(file);

		for (size_t i = random_below(step); i < file->size; i += step, cases++) {
			char mask = masks[cases % 3];

			poke(world, file, i, (char) (file->data[i] ^ mask));
			if (!is_found(world, trees, cases % 8 == 0) && !subject.lax)
				fail_msg("nobody noticed byte %zu of `%s', %02x flipped", i,
					 file->path, (unsigned char) mask);
			poke(world, file, i, file->data[i]);
		}
	}
	print_message("# %zu bytes flipped, of %llu\n", cases, (unsigned long long) listing.bytes);
	assert_true(cases > 0);
	store_listing_free(&listing);
	assert_false(is_found(world, trees, true));
}

static void
cut_short(struct world *world, struct tree *const *trees)
{
	struct store_listing listing;
	size_t cases = 0;

	store_list(world, true, &listing);
	for (size_t f = 0; f < listing.count; f++) {
		const struct stored_file *file = &listing.items[f];
		size_t step = step_for(file);

		for (size_t n = random_below(step); n < file->size; n += step, cases++) {
			int fd = store_open_for_writing(world, file->path);

			assert_int_equal(ftruncate(fd, (off_t) n), 0);
			if (!is_found(world, trees, cases % 8 == 0))
				fail_msg("nobody noticed `%s' cut to %zu bytes", file->path, n);
			assert_int_equal(pwrite(fd, file->data + n, file->size - n, (off_t) n),
					 (ssize_t) (file->size - n));
			assert_int_equal(close(fd), 0);
		}
	}
	print_message("# %zu truncations\n", cases);
	store_listing_free(&listing);
	assert_false(is_found(world, trees, true));
}

/* With two snapshots, and when the first lives on only for the second. */
static void
damage_both(struct world *world, void (*damage)(struct world *world, struct tree *const *trees))
{
	struct tree *trees[3];

	small_store(world, trees);
	damage(world, trees);
	remove_ok(world, trees[0]->ref.text, trees + 1);
	damage(world, trees + 1);
	tree_free(trees[0]);
	tree_free(trees[1]);
}

static void
test_every_byte(void **state)
{
	damage_both(*state, flip_bytes);
}

static void
test_every_length(void **state)
{
	damage_both(*state, cut_short);
}

/* Each file of the store missing, grown, or something else, in turn. */
static void
test_other_damage(void **state)
{
	struct world *world = *state;
	struct store_listing listing;
	struct tree *trees[3];

	small_store(world, trees);
	store_list(world, true, &listing);
	for (size_t f = 0; f < listing.count; f++) {
		const struct stored_file *file = &listing.items[f];

		assert_int_equal(renameat(world->store_fd, file->path, world->out_fd, "aside"), 0);
		assert_true(is_found(world, trees, false));
		assert_int_equal(mkdirat(world->store_fd, file->path, 0700), 0);
		assert_true(is_found(world, trees, false));
		assert_int_equal(unlinkat(world->store_fd, file->path, AT_REMOVEDIR), 0);
		assert_int_equal(mkfifoat(world->store_fd, file->path, 0600), 0);
		assert_true(is_found(world, trees, false));
		assert_int_equal(unlinkat(world->store_fd, file->path, 0), 0);
		assert_int_equal(renameat(world->out_fd, "aside", world->store_fd, file->path), 0);
		poke(world, file, file->size, 'x');
		assert_true(is_found(world, trees, false));
		assert_int_equal(fchmodat(world->store_fd, file->path, 0600, 0), 0);
		{
			int fd = store_open_for_writing(world, file->path);

			assert_int_equal(ftruncate(fd, (off_t) file->size), 0);
			assert_int_equal(close(fd), 0);
		}
	}
	assert_false(is_found(world, trees, true));
	store_listing_free(&listing);
	tree_free(trees[0]);
	tree_free(trees[1]);
}

const struct CMUnitTest store_tests[] = {
	WORLD_TEST(test_chain),          WORLD_TEST(test_reclaims),
	WORLD_TEST(test_never_there),    WORLD_TEST(test_lost_content),
	WORLD_TEST(test_died_within),    WORLD_TEST(test_enumerate),
	WORLD_TEST(test_manifest_alone), WORLD_TEST(test_every_byte),
	WORLD_TEST(test_every_length),   WORLD_TEST(test_other_damage),
};
const size_t store_test_count = sizeof store_tests / sizeof *store_tests;
