/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of strangers' archives, in memory: every rule, every place to be cut off, every size
 * of pieces. */
#include "test.h"

#include <stdio.h>

#include "common/tar.h"
#include "core/import_internal.h"
#include "hostile-tar.h"

static const struct tar_limits limits = {1000, 1 << 20, 1 << 22, 1 << 20};

/* Reads all of it as an import does. */
static int
read_all(const void *data, size_t size, size_t piece, const struct tar_limits *with,
	 uint64_t *ret_bytes, struct moat_error *err)
{
	struct memory_bytes memory = {.data = data, .size = size, .piece = piece};
	struct byte_source source = memory_source(&memory);
	AUTO_TAR_STREAM struct tar_stream *stream = NULL;
	CLEANUP(import_plan_close) struct import_plan plan = {0};
	const struct tar_entry *member;
	uint64_t bytes = 0;
	int more;

	if (tar_stream_open(&source, with, &stream, err) < 0 ||
	    import_plan_open(&plan, with, err) < 0)
		return -1;
	while ((more = tar_stream_next(stream, &member, err)) > 0) {
		uint64_t number, offset, last = 0;
		char some[7];
		ssize_t n;

		if (import_plan_add(&plan, member, &number, err) < 0)
			return -1;
		while ((n = tar_stream_read(stream, some, sizeof some, &offset, err)) > 0) {
			assert_true(offset >= last);
			assert_true(offset + (uint64_t) n <= member->size);
			last = offset + (uint64_t) n;
			bytes += (uint64_t) n;
		}
		if (n < 0)
			return -1;
	}
	if (more < 0)
		return -1;
	assert_int_equal(tar_stream_offset(stream), size);
	if (ret_bytes != NULL)
		*ret_bytes = bytes;
	return import_plan_finish(&plan, err);
}

/* One of the words between `|'. */
static bool
says(const char *message, const char *words)
{
	AUTO_FREE char *copy = strdup(words);

	for (char *word = copy, *bar; word != NULL; word = bar == NULL ? NULL : bar + 1) {
		bar = strchr(word, '|');
		if (bar != NULL)
			*bar = '\0';
		if (strstr(message, word) != NULL)
			return true;
	}
	return false;
}

/* Prints what is not as the table has it. */
static bool
is_as_listed(const struct hostile_case *hostile, size_t piece)
{
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_BUF struct buf archive = {0};
	int result;

	hostile_make(hostile, &archive);
	result = read_all(archive.data, archive.size, piece, &limits, NULL, &err);
	if (hostile->words == NULL && result == 0)
		return true;
	if (hostile->words != NULL && result < 0 && says(err.message, hostile->words) &&
	    strstr(err.message, "at byte ") != NULL)
		return true;
	print_error("%s: `%s', not `%s'\n", hostile->name, result < 0 ? err.message : "accepted",
		    hostile->words == NULL ? "accepted" : hostile->words);
	return false;
}

static void
test_table(void **state)
{
	static const size_t pieces[] = {0, 1, 513};
	size_t refused = 0, wrong = 0;

	for (size_t i = 0; i < hostile_count; i++) {
		for (size_t j = 0; j < 3; j++)
			wrong += !is_as_listed(&hostile_cases[i], pieces[j]);
		refused += hostile_cases[i].words != NULL;
	}
	print_message("%zu archives refused, %zu accepted\n", refused, hostile_count - refused);
	assert_int_equal(wrong, 0);
	assert_true(refused >= 60);
}

/* Whatever is accepted is refused when its end is missing, wherever that begins. */
static void
test_cut(void **state)
{
	size_t count = 0;

	for (size_t i = 0; i < hostile_count; i++) {
		AUTO_BUF struct buf archive = {0};
		size_t end;

		if (hostile_cases[i].words != NULL)
			continue;
		hostile_make(&hostile_cases[i], &archive);
		/* Zeros behind the end marker are no part of it. */
		for (end = archive.size; end > 0 && archive.data[end - 1] == '\0';)
			end--;
		end = (end + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK + (size_t) 2 * TAR_BLOCK;
		for (size_t size = 0; size < end; size++, count++) {
			struct moat_error err = MOAT_ERROR_INIT;
			/* Of exactly that size, so that a sanitizer sees what reads on. */
			AUTO_FREE char *copy = malloc(size + 1);

			memcpy(copy, archive.data, size);
			if (read_all(copy, size, 0, &limits, NULL, &err) == 0)
				fail_msg("%s: accepted with %zu of %zu bytes",
					 hostile_cases[i].name, size, archive.size);
			if (strstr(err.message, "at byte ") == NULL)
				fail_msg("%s: %s", hostile_cases[i].name, err.message);
		}
	}
	print_message("cut at %zu places\n", count);
	assert_true(count > 10000);
}

/* Any byte of a header may be anything: it is refused or read, and never more than is there. */
static void
test_changed(void **state)
{
	size_t count = 0, refused = 0;

	for (size_t i = 0; i < hostile_count; i++) {
		AUTO_BUF struct buf archive = {0};

		if (hostile_cases[i].words != NULL)
			continue;
		hostile_make(&hostile_cases[i], &archive);
		for (size_t at = 0; at < archive.size; at += 3, count++) {
			struct moat_error err = MOAT_ERROR_INIT;
			char saved = archive.data[at];

			archive.data[at] = (char) (saved ^ (1 << (at % 8)));
			refused += read_all(archive.data, archive.size, 0, &limits, NULL, &err) < 0;
			archive.data[at] = saved;
		}
	}
	print_message("%zu bytes changed, %zu refused\n", count, refused);
	/* What is left is content, padding, zeros behind the end. */
	assert_true(refused > count / 2);
}

static void
read_limited(const char *script, struct tar_limits with, const char *words)
{
	const struct hostile_case hostile = {"limit", script, NULL};
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_BUF struct buf archive = {0};
	int result;

	hostile_make(&hostile, &archive);
	result = read_all(archive.data, archive.size, 0, &with, NULL, &err);
	if (words == NULL && result < 0)
		fail_msg("%s: %s", script, err.message);
	if (words != NULL && (result == 0 || strstr(err.message, words) == NULL))
		fail_msg("%s: `%s' does not say `%s'", script, err.message, words);
}

/* Each limit, reached exactly, and exceeded by one. */
static void
test_limits(void **state)
{
	struct tar_limits with = limits;

	with.max_entries = 3;
	read_limited("f a x;f b y;d c", with, NULL);
	read_limited("f a x;f b y;d c;d d", with, "max_entries");
	read_limited("g comment=x;f a x;f b y", with, NULL);
	read_limited("g comment=x;f a x;f b y;f c z", with, "max_entries");
	read_limited("f a/b/c x", with, NULL);
	read_limited("f a/b/c/d x", with, "max_entries");
	with = limits;
	with.max_file_bytes = 10;
	read_limited("f a 0123456789", with, NULL);
	read_limited("f a 0123456789a", with, "max_file_bytes");
	read_limited("x GNU.sparse.size=10 GNU.sparse.numblocks=0;f a", with, NULL);
	read_limited("x GNU.sparse.size=11 GNU.sparse.numblocks=0;f a", with, "max_file_bytes");
	with = limits;
	with.max_bytes = 10;
	read_limited("f a 01234;f b 56789;f c", with, NULL);
	read_limited("f a 01234;f b 56789;f c x", with, "max_bytes");
	with = limits;
	with.max_name_bytes = 20;
	read_limited("f 012345678 x;f 123456789 y", with, NULL);
	read_limited("f 012345678 x;f 123456789a y", with, "above 20 bytes");
	read_limited("d a/b/c/d/e/f", with, "too long together");
}

static void
test_values(void **state)
{
	const struct hostile_case hostile = {
		"values",
		"d ./dir/;x mtime=-1.25 uid=5 path=dir/long GNU.sparse.size=9 "
		"GNU.sparse.numblocks=1 GNU.sparse.map=3,4 SCHILY.xattr.user.a\\x253Db=v;f x wxyz;"
		"h two dir/long",
		NULL};
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_BUF struct buf archive = {0};
	AUTO_TAR_STREAM struct tar_stream *stream = NULL;
	struct memory_bytes memory = {0};
	struct byte_source source = memory_source(&memory);
	const struct tar_entry *member;
	uint64_t offset;
	char data[16];

	hostile_make(&hostile, &archive);
	memory.data = archive.data;
	memory.size = archive.size;
	assert_ok(tar_stream_open(&source, &limits, &stream, &err), &err);
	assert_int_equal(tar_stream_next(stream, &member, &err), 1);
	assert_string_equal(member->path, "dir");
	assert_int_equal(member->type, TAR_ENTRY_DIRECTORY);
	assert_int_equal(member->mode, 0755);
	assert_int_equal(tar_stream_next(stream, &member, &err), 1);
	assert_string_equal(member->path, "dir/long");
	assert_int_equal(member->uid, 5);
	assert_int_equal(member->mtime_sec, -2);
	assert_int_equal(member->mtime_nsec, 750000000);
	assert_int_equal(member->size, 9);
	assert_int_equal(member->data_size, 4);
	assert_string_equal(member->xattrs, "user.a=b");
	assert_int_equal(tar_stream_read(stream, data, 3, &offset, &err), 3);
	assert_int_equal(offset, 3);
	assert_int_equal(tar_stream_read(stream, data + 3, 3, &offset, &err), 1);
	assert_int_equal(offset, 6);
	assert_memory_equal(data, "wxyz", 4);
	assert_int_equal(tar_stream_read(stream, data, 3, &offset, &err), 0);
	assert_int_equal(tar_stream_next(stream, &member, &err), 1);
	assert_int_equal(member->type, TAR_ENTRY_HARD_LINK);
	assert_string_equal(member->link, "dir/long");
	assert_int_equal(tar_stream_next(stream, &member, &err), 0);
	assert_int_equal(tar_stream_next(stream, &member, &err), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),   cmocka_unit_test(test_cut),
		cmocka_unit_test(test_changed), cmocka_unit_test(test_limits),
		cmocka_unit_test(test_values),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
