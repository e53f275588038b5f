/* SPDX-License-Identifier: Apache-2.0 */
/* The error object: which message survives, how it is wrapped, what happens when it is too long. */
#include "tests/unit/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

static void
test_first_error_stays(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;

	assert_int_equal(moat_fail(&err, MOAT_CORRUPT, "first %d", 1), -1);
	assert_int_equal(moat_fail(&err, MOAT_BUSY, "second"), -1);
	errno = ENOENT;
	assert_int_equal(moat_fail_errno(&err, "third"), -1);
	assert_int_equal(moat_fail_memory(&err), -1);
	assert_int_equal(err.code, MOAT_CORRUPT);
	assert_int_equal(err.sys_errno, 0);
	assert_string_equal(err.message, "first 1");
	moat_error_clear(&err);
	assert_int_equal(err.code, MOAT_OK);
	assert_string_equal(err.message, "");
	assert_int_equal(err.struct_size, sizeof err);
	moat_fail_memory(&err);
	assert_int_equal(err.code, MOAT_NO_MEMORY);
	assert_string_equal(err.message, "out of memory");
}

static void
test_code_ok_is_a_failure(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;

	moat_fail(&err, MOAT_OK, "x");
	assert_int_equal(err.code, MOAT_FAILED);
}

static void
test_null(void **state)
{
	errno = EIO;
	assert_int_equal(moat_fail(NULL, MOAT_FAILED, "x"), -1);
	assert_int_equal(moat_fail_errno(NULL, "x"), -1);
	assert_int_equal(moat_fail_memory(NULL), -1);
	assert_int_equal(moat_wrap(NULL, "x"), -1);
	moat_error_clear(NULL);
	assert_int_equal(errno, EIO);
}

static void
test_errno(void **state)
{
	static const int pairs[][2] = {
		{ENOENT, MOAT_NOT_FOUND},   {EEXIST, MOAT_EXISTS},       {EACCES, MOAT_PERMISSION},
		{EPERM, MOAT_PERMISSION},   {ENOSPC, MOAT_NO_SPACE},     {EDQUOT, MOAT_NO_SPACE},
		{ENOSYS, MOAT_UNSUPPORTED}, {ENOTSUP, MOAT_UNSUPPORTED}, {EBUSY, MOAT_BUSY},
		{ENOMEM, MOAT_NO_MEMORY},   {ETIMEDOUT, MOAT_TIMEOUT},   {EIO, MOAT_FAILED},
		{0, MOAT_FAILED},
	};

	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
		struct moat_error err = MOAT_ERROR_INIT;

		errno = pairs[i][0];
		assert_int_equal(moat_fail_errno(&err, "open `%s'", "/x"), -1);
		assert_int_equal(errno, pairs[i][0]);
		assert_int_equal(err.code, pairs[i][1]);
		assert_int_equal(err.sys_errno, pairs[i][0]);
		assert_memory_equal(err.message, "open `/x': ", 11);
		assert_true(strlen(err.message) > 11);
	}
}

static void
test_wrap(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;

	assert_int_equal(moat_wrap(&err, "nothing to wrap"), -1);
	assert_int_equal(err.code, MOAT_OK);
	assert_string_equal(err.message, "");
	errno = EACCES;
	moat_fail_errno(&err, "open `%s'", "y");
	errno = EIO;
	assert_int_equal(moat_wrap(&err, "creating `%s'", "/x"), -1);
	assert_int_equal(errno, EIO);
	assert_int_equal(err.code, MOAT_PERMISSION);
	assert_int_equal(err.sys_errno, EACCES);
	assert_string_equal(err.message, "creating `/x': open `y': Permission denied");
}

/* Every length around the limit: the message is cut, ends in "...", and never overflows. */
static void
test_too_long(void **state)
{
	char text[4096];

	for (size_t length = 2000; length < sizeof text; length += length < 2060 ? 1 : 509) {
		struct moat_error err = MOAT_ERROR_INIT;
		bool fits;

		memset(text, 'x', length);
		text[length] = '\0';
		moat_fail(&err, MOAT_FAILED, "%s", text);
		fits = length < sizeof err.message;
		assert_int_equal(strlen(err.message), fits ? length : sizeof err.message - 1);
		assert_int_equal(strcmp(err.message + strlen(err.message) - 3, "...") == 0, !fits);

		moat_error_clear(&err);
		errno = EACCES;
		moat_fail_errno(&err, "%s", text);
		fits = length + strlen(": Permission denied") < sizeof err.message;
		assert_int_equal(strcmp(err.message + strlen(err.message) - 3, "...") == 0, !fits);
		assert_true(strlen(err.message) < sizeof err.message);

		moat_error_clear(&err);
		moat_fail(&err, MOAT_FAILED, "inner");
		moat_wrap(&err, "%s", text);
		fits = length + strlen(": inner") < sizeof err.message;
		assert_int_equal(strcmp(err.message + strlen(err.message) - 3, "...") == 0, !fits);

		moat_error_clear(&err);
		moat_fail(&err, MOAT_FAILED, "%s", text);
		moat_wrap(&err, "outer");
		assert_memory_equal(err.message, "outer: xxx", 10);
		assert_int_equal(strcmp(err.message + strlen(err.message) - 3, "...") == 0,
				 length + strlen("outer: ") >= sizeof err.message);
	}
}

static void *
fail_often(void *number)
{
	const int *sys_errno = number;
	char expected[64];

	(void) snprintf(expected, sizeof expected, "Unknown error %d", *sys_errno);
	for (int i = 0; i < 2000; i++) {
		struct moat_error err = MOAT_ERROR_INIT;

		errno = *sys_errno;
		moat_fail_errno(&err, "x");
		if (strcmp(err.message + 3, expected) != 0)
			return number;
	}
	return NULL;
}

/* strerror(3) would write the numbers of both threads into one buffer. */
static void
test_threads(void **state)
{
	int numbers[2] = {5001, 77777};
	pthread_t threads[2];
	void *failed[2];

	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fail_often, &numbers[i]), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(threads[i], &failed[i]), 0);
	assert_null(failed[0]);
	assert_null(failed[1]);
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_error_stays),
		cmocka_unit_test(test_code_ok_is_a_failure),
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_errno),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
