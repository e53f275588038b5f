/* SPDX-License-Identifier: Apache-2.0 */
/* Escaping, parsing and formatting. */
#include "tests/unit/test.h"

#include <time.h>

#include "common/text.h"

static void
assert_escaped(const void *data, size_t size, const char *expected)
{
	AUTO_BUF struct buf out = {0};

	text_escape(&out, data, size);
	assert_string_equal(out.data == NULL ? "" : out.data, expected);
}

static void
test_escape(void **state)
{
	static const struct {
		const char *text, *expected;
	} cases[] = {
		{"", ""},
		{"plain ~!", "plain ~!"},
		{"a\nb\tc\rd\033[31m", "a\\nb\\tc\\rd\\033[31m"},
		{"\x01\x1f\x7f", "\\x01\\x1f\\x7f"},
		{"\\", "\\\\"},
		{"Gr\xc3\xb6\xc3\x9f"
		 "e \xe2\x82\xac \xf0\x9f\x98\x80",
		 "Gr\xc3\xb6\xc3\x9f"
		 "e \xe2\x82\xac \xf0\x9f\x98\x80"},
		{"\xc2\x80\xc2\x9b", "\\xc2\\x80\\xc2\\x9b"}, /* C1 */
		{"\xc2\xa0", "\xc2\xa0"},                     /* just above C1 */
		{"\xe2\x80\xae", "\\xe2\\x80\\xae"},          /* U+202E */
		{"\xe2\x80\xaa", "\\xe2\\x80\\xaa"},          /* U+202A */
		{"\xe2\x80\xa8\xe2\x80\xa9", "\\xe2\\x80\\xa8\\xe2\\x80\\xa9"},
		{"\xe2\x80\xa7\xe2\x80\xaf", "\xe2\x80\xa7\xe2\x80\xaf"}, /* neighbours */
		{"\xe2\x81\xa6\xe2\x81\xa9", "\\xe2\\x81\\xa6\\xe2\\x81\\xa9"},
		{"\xe2\x81\xa5\xe2\x81\xaa", "\xe2\x81\xa5\xe2\x81\xaa"},
		{"\xe2\x80\x8e\xe2\x80\x8f\xd8\x9c", "\\xe2\\x80\\x8e\\xe2\\x80\\x8f\\xd8\\x9c"},
		{"\xff\xfe", "\\xff\\xfe"},
		{"\xc3", "\\xc3"},                            /* cut off */
		{"\xe2\x82(", "\\xe2\\x82("},                 /* cut off inside */
		{"\xc0\xaf", "\\xc0\\xaf"},                   /* overlong slash */
		{"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},          /* overlong */
		{"\xed\xa0\x80", "\\xed\\xa0\\x80"},          /* surrogate */
		{"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* above U+10FFFF */
		{"\xf8\x88\x80\x80\x80", "\\xf8\\x88\\x80\\x80\\x80"},
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char *escaped = text_escaped(cases[i].text);

		assert_string_equal(escaped, cases[i].expected);
		free(escaped);
	}
	assert_escaped("a\0b", 3, "a\\x00b");
	assert_escaped("\xe2\x82\xac", 2, "\\xe2\\x82");
}

/* Whatever comes in, what comes out is UTF-8 without a control character. */
static void
test_escape_random(void **state)
{
	const char *given = getenv("MOAT_TEST_SEED");
	unsigned seed = given != NULL ? (unsigned) strtoul(given, NULL, 10) : (unsigned) time(NULL);

	print_message("seed %u\n", seed);
	srandom(seed);
	for (long i = 0; i < test_scaled(20000); i++) {
		AUTO_BUF struct buf out = {0};
		unsigned char data[24];
		size_t size = (size_t) random() % sizeof data;

		for (size_t j = 0; j < size; j++)
			data[j] = (unsigned char) (random() % 3 == 0 ? 0xe2 : random());
		text_escape(&out, data, size);
		assert_true(text_is_utf8(out.data, out.size));
		for (size_t j = 0; j < out.size; j++)
			assert_true((unsigned char) out.data[j] >= 0x20 && out.data[j] != 0x7f);
	}
}

static void
test_utf8(void **state)
{
	assert_true(text_is_utf8("", 0));
	assert_true(text_is_utf8("a\0\n", 3));
	assert_true(text_is_utf8("\xf0\x9f\x98\x80", 4));
	assert_true(text_is_utf8("\xf4\x8f\xbf\xbf", 4));
	assert_false(text_is_utf8("\xf0\x9f\x98", 3));
	assert_false(text_is_utf8("a\x80", 2));
	assert_false(text_is_utf8("\xc1\xbf", 2));
}

static void
test_parse_size(void **state)
{
	static const struct {
		const char *text;
		uint64_t value;
	} good[] = {
		{"0", 0},
		{"4096", 4096},
		{"64k", 65536},
		{"64K", 65536},
		{"1KiB", 1024},
		{"1kb", 1000},
		{"10MB", 10000000},
		{"1m", 1048576},
		{"1.5GiB", UINT64_C(1610612736)},
		{"0.5K", 512},
		{"2T", UINT64_C(2199023255552)},
		{"1TB", UINT64_C(1000000000000)},
		{"7B", 7},
		{"18446744073709551615", UINT64_MAX},
		{"1.0000000000001k", 1024},
		{"16777215T", UINT64_C(16777215) << 40},
	};
	static const char *const bad[] = {
		"",          "k",   "-1",   "1x",   "1 k",
		"1.k",       ".5k", "1,5G", "0x10", "18446744073709551616",
		"16777216T", "1kk", "+1",   " 1",   "16777215.999999999T1"};
	struct moat_error err = MOAT_ERROR_INIT;
	uint64_t value;

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		value = 1;
		assert_ok(text_parse_size(good[i].text, &value, &err), &err);
		assert_int_equal(value, good[i].value);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		value = 42;
		assert_fails(text_parse_size(bad[i], &value, &err), &err, MOAT_USAGE, bad[i]);
		assert_int_equal(value, 42);
	}
}

static void
test_parse_duration(void **state)
{
	static const struct {
		const char *text;
		int64_t value;
	} good[] = {
		{"500ms", 500},    {"30s", 30000}, {"30", 30000}, {"10m", 600000},  {"1h", 3600000},
		{"2d", 172800000}, {"1.5s", 1500}, {"0", 0},      {"0.25m", 15000}, {"2H", 7200000},
	};
	static const char *const bad[] = {
		"", "s", "-1s", "1w", "1h30m", "9223372036854775808ms", "99999999999999999d"};
	struct moat_error err = MOAT_ERROR_INIT;
	int64_t value;

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_ok(text_parse_duration(good[i].text, &value, &err), &err);
		assert_int_equal(value, good[i].value);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_fails(text_parse_duration(bad[i], &value, &err), &err, MOAT_USAGE, bad[i]);
}

static void
test_parse_int(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;
	static const char *const bad[] = {"", "-", "+1", " 1", "1 ", "0x1", "one", "--1", "1.0"};
	int64_t value;

	assert_ok(text_parse_int("65535", 1, 65535, &value, &err), &err);
	assert_int_equal(value, 65535);
	assert_ok(text_parse_int("-5", -5, 5, &value, &err), &err);
	assert_int_equal(value, -5);
	assert_ok(text_parse_int("-9223372036854775808", INT64_MIN, 0, &value, &err), &err);
	assert_true(value == INT64_MIN);
	assert_fails(text_parse_int("0", 1, 65535, &value, &err), &err, MOAT_USAGE,
		     "between 1 and 65535");
	assert_fails(text_parse_int("65536", 1, 65535, &value, &err), &err, MOAT_USAGE, "65535");
	assert_fails(text_parse_int("9223372036854775808", 0, INT64_MAX, &value, &err), &err,
		     MOAT_USAGE, "between");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_fails(text_parse_int(bad[i], -9, 9, &value, &err), &err, MOAT_USAGE,
			     "whole number");
}

static void
test_size(void **state)
{
	char out[32];

	assert_string_equal(text_size(out, 0), "0 B");
	assert_string_equal(text_size(out, 340), "340 B");
	assert_string_equal(text_size(out, 1023), "1023 B");
	assert_string_equal(text_size(out, 1024), "1.0 KiB");
	assert_string_equal(text_size(out, 1048575), "1.0 MiB");
	assert_string_equal(text_size(out, 1288490189), "1.2 GiB");
	assert_string_equal(text_size(out, UINT64_MAX), "16.0 EiB");
}

static void
test_time(void **state)
{
	char out[40];

	assert_string_equal(text_time(out, 0), "1970-01-01T00:00:00.000000000Z");
	assert_string_equal(text_time(out, INT64_C(1795342272123456789)),
			    "2026-11-22T10:11:12.123456789Z");
	assert_string_equal(text_time(out, -1), "1969-12-31T23:59:59.999999999Z");
	assert_string_equal(text_time(out, INT64_MAX), "2262-04-11T23:47:16.854775807Z");
	assert_string_equal(text_time(out, INT64_MIN), "1677-09-21T00:12:43.145224192Z");
}

static void
test_age(void **state)
{
	const int64_t minute = INT64_C(60000000000), now = INT64_C(1795342272000000000);
	char out[32];

	assert_string_equal(text_age(out, now, now), "just now");
	assert_string_equal(text_age(out, now + minute * 99, now), "just now");
	assert_string_equal(text_age(out, now - minute + 1, now), "just now");
	assert_string_equal(text_age(out, now - 5 * minute, now), "5m ago");
	assert_string_equal(text_age(out, now - 60 * minute, now), "1h ago");
	assert_string_equal(text_age(out, now - 24 * 60 * minute + 1, now), "23h ago");
	assert_string_equal(text_age(out, now - 50 * 60 * minute, now), "2d ago");
}

static void
test_duration(void **state)
{
	const int64_t ms = 1000000;
	char out[32];

	assert_string_equal(text_duration(out, -1), "?");
	assert_string_equal(text_duration(out, 0), "0ms");
	assert_string_equal(text_duration(out, 12 * ms), "12ms");
	assert_string_equal(text_duration(out, 999 * ms), "999ms");
	assert_string_equal(text_duration(out, 1500 * ms), "1.5s");
	assert_string_equal(text_duration(out, 59999 * ms), "59.9s");
	assert_string_equal(text_duration(out, 123000 * ms), "2m03s");
	assert_string_equal(text_duration(out, 3720000 * ms), "1h02m");
}

static void
test_nearest(void **state)
{
	static const char *const names[] = {"snapshot", "status", "stop", "run",
					    "rm",       "attach", NULL};
	static const char *const none[] = {NULL};

	assert_string_equal(text_nearest("snapshto", names), "snapshot");
	assert_string_equal(text_nearest("Snapshot", names), "snapshot");
	assert_string_equal(text_nearest("statsu", names), "status");
	assert_string_equal(text_nearest("rum", names), "run");
	assert_string_equal(text_nearest("atach", names), "attach");
	assert_null(text_nearest("frobnicate", names));
	assert_null(text_nearest("x", names));
	assert_null(text_nearest("", names));
	assert_null(text_nearest("run", none));
	assert_null(text_nearest(
		"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", names));
}

static void
test_name(void **state)
{
	char name[130];

	assert_true(text_is_name("a"));
	assert_true(text_is_name("A9._-z"));
	assert_false(text_is_name(""));
	assert_false(text_is_name(".a"));
	assert_false(text_is_name("-a"));
	assert_false(text_is_name("a/b"));
	assert_false(text_is_name("a b"));
	assert_false(text_is_name("\xc3\xb6"));
	memset(name, 'a', sizeof name);
	name[128] = '\0';
	assert_true(text_is_name(name));
	name[128] = 'a';
	name[129] = '\0';
	assert_false(text_is_name(name));
}

static void
test_random_id(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;
	char a[32], b[32];

	assert_ok(text_random_id(a, "snap", &err), &err);
	assert_ok(text_random_id(b, "snap", &err), &err);
	assert_memory_equal(a, "snap_", 5);
	assert_int_equal(strlen(a), 17);
	assert_int_equal(strspn(a + 5, "0123456789abcdef"), 12);
	assert_string_not_equal(a, b);
	assert_ok(text_random_id(a, "123456789012345678", &err), &err);
	assert_int_equal(strlen(a), 31);
	assert_fails(text_random_id(a, "1234567890123456789", &err), &err, MOAT_USAGE, "too long");
}

static void
test_now(void **state)
{
	int64_t before = (int64_t) time(NULL), now = time_now_ns() / 1000000000;

	assert_true(now >= before && now <= before + 60);
}

static void
test_path_within(void **state)
{
	(void) state;
	assert_true(text_path_within("a", ""));
	assert_true(text_path_within("a/b", "a"));
	assert_true(text_path_within("a", "a"));
	assert_false(text_path_within("ab", "a"));
	assert_false(text_path_within("a", "a/b"));
	assert_false(text_path_within("b/a", "a"));
	assert_true(text_path_within("/", "/"));
	assert_true(text_path_within("/a", "/"));
	assert_false(text_path_within("/ab/c", "/a"));
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_escape_random),
		cmocka_unit_test(test_utf8),
		cmocka_unit_test(test_parse_size),
		cmocka_unit_test(test_parse_duration),
		cmocka_unit_test(test_parse_int),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_duration),
		cmocka_unit_test(test_nearest),
		cmocka_unit_test(test_name),
		cmocka_unit_test(test_path_within),
		cmocka_unit_test(test_random_id),
		cmocka_unit_test(test_now),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
