/* SPDX-License-Identifier: Apache-2.0 */
/* The growing array, the arena, and the cleanup attributes. */
#include "tests/unit/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include "common/buf.h"

static void
test_append(void **state)
{
	AUTO_BUF struct buf buf = {0};

	assert_null(buf.data);
	buf_append(&buf, NULL, 0);
	assert_null(buf.data);
	for (int i = 0; i < 1000; i++) {
		buf_append(&buf, "a\0b", 3);
		assert_int_equal(buf.size, 3 * (i + 1));
		assert_int_equal(buf.data[buf.size], '\0');
		assert_true(buf.allocated > buf.size);
	}
	buf_string(&buf, "end");
	assert_string_equal(buf.data + 3000, "end");
	for (int i = 0; i < 1000; i++)
		assert_memory_equal(buf.data + 3 * (ptrdiff_t) i, "a\0b", 3);
	buf_free(&buf);
	assert_null(buf.data);
	assert_int_equal(buf.size, 0);
}

static void
test_numbers(void **state)
{
	AUTO_BUF struct buf buf = {0};

	buf_u32(&buf, 0x01020304);
	buf_u64(&buf, UINT64_C(0xfffefdfc00010203));
	assert_int_equal(buf.size, 12);
	assert_memory_equal(buf.data, "\x04\x03\x02\x01\x03\x02\x01\x00\xfc\xfd\xfe\xff", 12);
}

static void
test_format(void **state)
{
	AUTO_BUF struct buf buf = {0};

	buf_format(&buf, "%s", "");
	assert_string_equal(buf.data, "");
	for (int i = 0; i < 300; i++) {
		buf_free(&buf);
		buf_format(&buf, "%*s|%d", i, "", i);
		assert_int_equal(buf.size, i + 2 + (i > 9) + (i > 99));
		assert_int_equal(buf.data[i], '|');
		buf_format(&buf, "!");
		assert_int_equal(buf.data[buf.size - 1], '!');
	}
}

static void
test_steal(void **state)
{
	struct buf buf = {0};
	char *text = buf_steal(&buf);

	assert_string_equal(text, "");
	free(text);
	buf_string(&buf, "text");
	text = buf_steal(&buf);
	assert_string_equal(text, "text");
	assert_null(buf.data);
	free(text);
}

/* A failure is kept: what is appended afterwards does nothing, and nobody gets half a text. */
static void
test_failed(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_BUF struct buf buf = {0};

	buf_string(&buf, "x");
	assert_int_equal(buf_check(&buf, &err), 0);
	buf_append(&buf, "x", SIZE_MAX / 2);
	assert_true(buf.failed);
	buf_string(&buf, "y");
	buf_format(&buf, "%d", 1);
	buf_u32(&buf, 1);
	assert_int_equal(buf.size, 1);
	assert_string_equal(buf.data, "x");
	assert_null(buf_steal(&buf));
	assert_fails(buf_check(&buf, &err), &err, MOAT_NO_MEMORY, "out of memory");
}

static bool
is_zero(const unsigned char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (bytes[i] != 0)
			return false;
	}
	return true;
}

/* Blocks of all sizes are aligned, zeroed, and do not overlap. */
static void
test_arena(void **state)
{
	struct arena arena = {0}, other = {0};
	unsigned char *blocks[600];
	size_t total = 0;

	for (size_t i = 0; i < 600; i++) {
		size_t size = i % 7 == 0 ? i * 997 : i;

		blocks[i] = arena_alloc(&arena, size);
		assert_non_null(blocks[i]);
		assert_int_equal((uintptr_t) blocks[i] % sizeof(uint64_t), 0);
		assert_true(is_zero(blocks[i], size));
		memset(blocks[i], (int) (i % 255) + 1, size);
		total += size;
	}
	for (size_t i = 0; i < 600; i++) {
		size_t size = i % 7 == 0 ? i * 997 : i;

		for (size_t j = 0; j < size; j++)
			assert_int_equal(blocks[i][j], (int) (i % 255) + 1);
	}
	assert_true(arena.used >= total);
	assert_null(arena_alloc(&arena, SIZE_MAX));
	assert_null(arena_alloc(&arena, SIZE_MAX - 8));
	assert_null(arena_copy(&arena, "", SIZE_MAX));
	assert_true(arena_owns(&arena, blocks[0]));
	assert_true(arena_owns(&arena, blocks[599] + 598));
	assert_false(arena_owns(&arena, &arena));
	arena_merge(&other, &arena);
	assert_null(arena.blocks);
	assert_true(arena_owns(&other, blocks[300]));
	assert_true(other.used >= total);
	assert_non_null(arena_alloc(&other, 5));
	arena_free(&other);
	assert_null(other.blocks);
	assert_int_equal(other.used, 0);
}

static void
test_arena_copy(void **state)
{
	struct arena arena = {0};
	char *copy = arena_copy(&arena, "ab\0c", 4);

	assert_memory_equal(copy, "ab\0c", 5);
	assert_string_equal(arena_copy(&arena, NULL, 0), "");
	assert_string_equal(arena_string(&arena, "text"), "text");
	arena_free(&arena);
}

static void
fail_in_scope(int *ret_fd)
{
	AUTO_CLOSE int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	AUTO_CLOSE int none = -1;
	AUTO_FREE char *text = strdup("x");
	AUTO_FREE char *nothing = NULL;
	AUTO_FCLOSE FILE *stream = fopen("/dev/null", "re");
	AUTO_CLOSEDIR DIR *directory = opendir("/");

	*ret_fd = fd;
	assert_non_null(text);
	assert_non_null(stream);
	assert_non_null(directory);
	assert_null(nothing);
	assert_int_equal(none, -1);
	errno = ENOTTY;
}

static void
test_cleanup(void **state)
{
	int fd, taken;
	char *text = strdup("x"), *stolen;

	fail_in_scope(&fd);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	taken = fd = 5;
	taken = steal_fd(&fd);
	assert_int_equal(taken, 5);
	assert_int_equal(fd, -1);
	stolen = STEAL(text);
	assert_null(text);
	assert_string_equal(stolen, "x");
	free(stolen);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_append),     cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_format),     cmocka_unit_test(test_steal),
		cmocka_unit_test(test_failed),     cmocka_unit_test(test_arena),
		cmocka_unit_test(test_arena_copy), cmocka_unit_test(test_cleanup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
