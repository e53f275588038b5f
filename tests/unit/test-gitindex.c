/* SPDX-License-Identifier: Apache-2.0 */
/* Indexes that the real git wrote, and what is left of them. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/gitindex.h"
#include "tests/unit/filter-git.h"

static char *
read_index(const struct place *place, size_t *ret_size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	char *data;

	assert_ok(fs_read(place->fd, "r/.git/index", (size_t) 1 << 30, &data, ret_size, &err),
		  &err);
	return data;
}

static struct gitindex *
parse(const struct place *place)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct gitindex *index;
	size_t size;
	char *data = read_index(place, &size);

	assert_ok(gitindex_parse(data, size, &index, &err), &err);
	return index;
}

/* As `git ls-files --stage' has it: "MODE HASH STAGE\tPATH". */
static void
assert_lists_as_git(const struct place *place, const struct gitindex *index)
{
	static const char *const argv[] = {"git", "ls-files", "--stage", "--sparse", "-z", NULL};
	struct buf out = {0};
	size_t count = 0;

	assert_int_equal(run_git(place, "r", argv, "", 0, &out), 0);
	for (size_t at = 0; at < out.size; at += strlen(out.data + at) + 1, count++) {
		const char *path = strchr(out.data + at, '\t');

		assert_non_null(path);
		assert_true(count < index->count);
		assert_string_equal(index->entries[count].path, path + 1);
		assert_int_equal(index->entries[count].mode, strtoul(out.data + at, NULL, 8));
	}
	assert_int_equal(count, index->count);
	buf_free(&out);
}

static void
assert_as_git_lists(const struct place *place)
{
	struct gitindex *index = parse(place);

	assert_lists_as_git(place, index);
	for (size_t i = 0; i < index->count; i++)
		assert_string_equal(
			index->entries[gitindex_position(index, index->entries[i].path)].path,
			index->entries[i].path);
	assert_int_equal(gitindex_position(index, ""), 0);
	assert_int_equal(gitindex_position(index, "\377\377"), index->count);
	gitindex_free(index);
}

static void
make_repository(const struct place *place)
{
	const char *const add[] = {"git", "update-index", "--index-info", NULL};
	char name[1200], deep[4600] = "r/", info[5000];

	GIT(place, ".", "init", "-q", "r");
	for (int i = 0; i < 200; i++) {
		(void) snprintf(name, sizeof name, "r/%c%c/f%d.%d", 'a' + i % 5, 'a' + i % 7, i % 3,
				i);
		put(place, name, name);
	}
	put(place, "r/a", "text");
	put(place, "r/a.b", "");
	put(place, "r/\303\244\n\377", "bytes");
	/* A name whose length does not fit into the flags. */
	for (int i = 0; i < 20; i++)
		(void) snprintf(deep + strlen(deep), sizeof deep - strlen(deep), "%0220d/", i);
	(void) snprintf(deep + strlen(deep), sizeof deep - strlen(deep), "f");
	assert_int_equal(symlinkat("a", place->fd, "r/link"), 0);
	GIT(place, "r", "add", "-A");
	GIT(place, "r", "commit", "-q", "-m", "one");
	(void) snprintf(info, sizeof info,
			"160000 0123456789012345678901234567890123456789\tsub\n"
			"100644 0123456789012345678901234567890123456789\t%s\n",
			deep + 2);
	assert_int_equal(run_git(place, "r", add, info, strlen(info), NULL), 0);
}

static void
test_versions(void **state)
{
	const struct place *place = *state;

	make_repository(place);
	assert_as_git_lists(place);
	for (char version[2] = "4"; version[0] >= '2'; version[0]--) {
		GIT(place, "r", "update-index", "--index-version", version);
		assert_as_git_lists(place);
		/* More flags than fit: version 3 at least. */
		put(place, "r/intended", "");
		GIT(place, "r", "add", "-N", "intended");
		GIT(place, "r", "update-index", "--skip-worktree", "a.b");
		assert_as_git_lists(place);
		GIT(place, "r", "update-index", "--no-skip-worktree", "a.b");
		GIT(place, "r", "rm", "-q", "--cached", "-f", "intended");
	}
}

static void
test_stages(void **state)
{
	const struct place *place = *state;
	const char *const merge[] = {"git", "merge", "-q", "other", NULL};

	make_repository(place);
	GIT(place, "r", "reset", "-q", "--hard");
	GIT(place, "r", "checkout", "-q", "-b", "other");
	put(place, "r/a", "theirs");
	GIT(place, "r", "commit", "-q", "-a", "-m", "theirs");
	GIT(place, "r", "checkout", "-q", "-");
	put(place, "r/a", "ours");
	GIT(place, "r", "commit", "-q", "-a", "-m", "ours");
	assert_int_not_equal(run_git(place, "r", merge, "", 0, NULL), 0);
	assert_as_git_lists(place);
}

static void
test_sparse(void **state)
{
	const struct place *place = *state;
	struct gitindex *index;
	size_t at;

	make_repository(place);
	GIT(place, "r", "reset", "-q", "--hard");
	GIT(place, "r", "sparse-checkout", "set", "--cone", "--sparse-index", "aa");
	assert_as_git_lists(place);
	index = parse(place);
	assert_true(index->sparse);
	at = gitindex_position(index, "bb/");
	assert_string_equal(index->entries[at].path, "bb/");
	assert_int_equal(index->entries[at].mode, GITINDEX_DIRECTORY);
	gitindex_free(index);
}

static void
test_split(void **state)
{
	const struct place *place = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	struct gitindex *index = NULL;
	size_t size;
	char *data;

	make_repository(place);
	GIT(place, "r", "update-index", "--split-index");
	data = read_index(place, &size);
	assert_int_equal(gitindex_parse(data, size, &index, &err), -1);
	assert_int_equal(err.code, MOAT_UNSUPPORTED);
	assert_non_null(strstr(err.message, "--no-split-index"));
}

/* A copy of exactly that size, changed by the caller: refused, or in order.  True when refused. */
static bool
is_refused(char *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct gitindex *index = NULL;

	if (gitindex_parse(data, size, &index, &err) < 0) {
		assert_int_not_equal(err.code, MOAT_OK);
		assert_null(index);
		return true;
	}
	for (size_t i = 1; i < index->count; i++)
		assert_true(strcmp(index->entries[i - 1].path, index->entries[i].path) <= 0);
	gitindex_free(index);
	return false;
}

static char *
copy(const char *data, size_t size)
{
	char *result = malloc(size + 1);

	assert_non_null(result);
	memcpy(result, data, size);
	return result;
}

/* Every truncation is refused, but for such that leave whole extensions, and every byte may be
 * anything. */
static void
test_damage(void **state)
{
	const struct place *place = *state;

	GIT(place, ".", "init", "-q", "r");
	put(place, "r/a", "");
	put(place, "r/a.b/c", "");
	put(place, "r/a.b/cd", "");
	GIT(place, "r", "add", "-A");
	for (char version[2] = "2"; version[0] <= '4'; version[0] += 2) {
		size_t size, refused = 0;
		char *data;

		GIT(place, "r", "update-index", "--index-version", version);
		data = read_index(place, &size);
		assert_false(is_refused(copy(data, size), size));
		for (size_t n = 0; n < size; n++)
			refused += is_refused(realloc(copy(data, n), n > 0 ? n : 1), n);
		/* Three whole entries take more than half of it. */
		assert_true(refused > size / 2);
		for (size_t i = 0; i < size; i++)
			for (int flip = 1; flip < 256; flip <<= 1) {
				char *damaged = copy(data, size);

				damaged[i] = (char) (damaged[i] ^ flip);
				refused += is_refused(damaged, size);
			}
		free(data);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_versions, place_setup, place_teardown),
		cmocka_unit_test_setup_teardown(test_stages, place_setup, place_teardown),
		cmocka_unit_test_setup_teardown(test_sparse, place_setup, place_teardown),
		cmocka_unit_test_setup_teardown(test_split, place_setup, place_teardown),
		cmocka_unit_test_setup_teardown(test_damage, place_setup, place_teardown),
	};

	return cmocka_run_group_tests(tests, home_setup, home_teardown);
}
