/* SPDX-License-Identifier: Apache-2.0 */
/* JSON: bytes that are not UTF-8, times, what a terminal may see, files; and the tables that stand
 * beside JSON on stdout. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/json.h"
#include "core/terminal.h"

struct fixture {
	char path[64];
	int fd;
	json_t *object;
	char *text; /* freed at the end */
	int saved_stdout;
	struct moat_error err;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	if (f == NULL)
		return -1;
	f->err = (struct moat_error) MOAT_ERROR_INIT;
	f->saved_stdout = -1;
	(void) snprintf(f->path, sizeof f->path, "/tmp/test-json.XXXXXX");
	if (mkdtemp(f->path) == NULL)
		return -1;
	f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f->object = json_object();
	*state = f;
	return f->fd >= 0 && f->object != NULL ? 0 : -1;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	if (f->saved_stdout >= 0)
		(void) close(f->saved_stdout);
	json_decref(f->object);
	free(f->text);
	(void) close(f->fd);
	if (fs_remove_tree(AT_FDCWD, f->path, NULL) < 0)
		return -1;
	free(f);
	return 0;
}

/* The object as compact text. */
static const char *
text_of(struct fixture *f)
{
	free(f->text);
	f->text = json_text(f->object, true, &f->err);
	assert_non_null(f->text);
	return f->text;
}

static void
test_scalars(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(json_put_text(f->object, "a", "b"), 0);
	assert_int_equal(json_put_text(f->object, "n", NULL), 0);
	assert_int_equal(json_put_int(f->object, "i", INT64_MIN), 0);
	assert_int_equal(json_put_bool(f->object, "t", true), 0);
	assert_int_equal(json_put_time(f->object, "z", 0), 0);
	assert_string_equal(text_of(f),
			    "{\"a\":\"b\",\"n\":null,\"i\":-9223372036854775808,\"t\":true,"
			    "\"z\":null}\n");
	assert_string_equal(json_get_text(f->object, "a", "x"), "b");
	assert_string_equal(json_get_text(f->object, "n", "x"), "x");
	assert_string_equal(json_get_text(f->object, "i", "x"), "x");
	assert_true(json_get_int(f->object, "i", 0) == INT64_MIN);
	assert_int_equal(json_get_int(f->object, "a", 7), 7);
	assert_true(json_get_bool(f->object, "t", false));
	assert_true(json_get_bool(f->object, "absent", true));
}

static void
test_not_utf8(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *text;
	} cases[] = {
		{"a\xff"
		 "b",
		 3,
		 "{\"k\":\"a\xef\xbf\xbd"
		 "b\",\"k_base64\":\"Yf9i\"}\n"},
		{"\xff", 1, "{\"k\":\"\xef\xbf\xbd\",\"k_base64\":\"/w==\"}\n"},
		{"\xc3", 1, "{\"k\":\"\xef\xbf\xbd\",\"k_base64\":\"ww==\"}\n"},
		/* A surrogate, an overlong NUL: not UTF-8 either. */
		{"\xed\xa0\x80", 3,
		 "{\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\",\"k_base64\":\"7aCA\"}\n"},
		{"\xc0\x80", 2, "{\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\",\"k_base64\":\"wIA=\"}\n"},
		{"\xc3\xa4", 2, "{\"k\":\"\xc3\xa4\"}\n"},
		{"a\0b", 3, "{\"k\":\"a\\u0000b\"}\n"},
		{"", 0, "{\"k\":\"\"}\n"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		size_t size = 99;
		AUTO_FREE char *bytes = NULL;

		assert_int_equal(json_object_clear(f->object), 0);
		assert_int_equal(json_put_bytes(f->object, "k", cases[i].bytes, cases[i].size), 0);
		assert_string_equal(text_of(f), cases[i].text);
		bytes = json_get_bytes(f->object, "k", &size);
		assert_non_null(bytes);
		assert_int_equal(size, cases[i].size);
		assert_memory_equal(bytes, cases[i].bytes, size);
	}
}

/* Any bytes come back as they went, also through text. */
static void
test_random_bytes(void **state)
{
	struct fixture *f = *state;
	const char *given = getenv("MOAT_TEST_SEED");
	unsigned seed = given != NULL ? (unsigned) strtoul(given, NULL, 0) : (unsigned) getpid();
	long cases = test_scaled(5000);

	print_message("seed %u, %ld cases\n", seed, cases);
	srandom(seed);
	for (long i = 0; i < cases; i++) {
		unsigned char bytes[40];
		size_t size = (size_t) random() % sizeof bytes, got = 0;
		AUTO_FREE char *back = NULL;
		AUTO_JSON json_t *parsed = NULL;

		for (size_t j = 0; j < size; j++)
			bytes[j] = (unsigned char) (random() % 4 == 0 ? random()
								      : 0x80 + random() % 64);
		assert_int_equal(json_object_clear(f->object), 0);
		assert_int_equal(json_put_bytes(f->object, "k", bytes, size), 0);
		parsed = json_loads(text_of(f), JSON_ALLOW_NUL, NULL);
		back = json_get_bytes(parsed, "k", &got);
		assert_non_null(back);
		assert_int_equal(got, size);
		assert_memory_equal(back, bytes, size);
	}
}

static void
test_bad_base64(void **state)
{
	static const char *const bad[] = {"A", "AB", "ABC", "A===", "AB=C", "AB-_", "AB C"};
	struct fixture *f = *state;

	assert_int_equal(json_put_text(f->object, "k", "x"), 0);
	assert_null(json_get_bytes(f->object, "absent", NULL));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(json_put_text(f->object, "k_base64", bad[i]), 0);
		if (json_get_bytes(f->object, "k", NULL) != NULL)
			fail_msg("`%s' was decoded", bad[i]);
	}
}

static void
test_list(void **state)
{
	static const char *const plain[] = {"sh", "-c", "", NULL};
	static const char *const odd[] = {"a", "\xff", NULL};
	struct fixture *f = *state;

	assert_int_equal(json_put_list(f->object, "p", plain), 0);
	assert_int_equal(json_put_list(f->object, "o", odd), 0);
	assert_int_equal(json_put_list(f->object, "e", NULL), 0);
	assert_string_equal(text_of(f),
			    "{\"p\":[\"sh\",\"-c\",\"\"],\"o\":[\"a\",\"\xef\xbf\xbd\"],"
			    "\"o_base64\":[\"YQ==\",\"/w==\"],\"e\":[]}\n");
}

/* What was put comes back, bytes and all; what is no list is none. */
static void
test_get_list(void **state)
{
	static const char *const lists[][4] = {
		{NULL}, {"a", "", NULL}, {"a", "\xff/\xc3", "\xc3\xa4", NULL}};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
		char **back;
		size_t n = 0;

		assert_int_equal(json_object_clear(f->object), 0);
		assert_int_equal(json_put_list(f->object, "k", lists[i]), 0);
		back = json_get_list(f->object, "k");
		assert_non_null(back);
		for (; lists[i][n] != NULL; n++) {
			assert_string_equal(back[n], lists[i][n]);
			free(back[n]);
		}
		assert_null(back[n]);
		free(back);
	}
	assert_null(json_get_list(f->object, "absent"));
	assert_int_equal(json_put_text(f->object, "k", "text"), 0);
	assert_null(json_get_list(f->object, "k"));
}

static void
test_time(void **state)
{
	static const int64_t times[] = {1,
					999999999,
					1000000000,
					1793613132123456789,
					-1,
					-1000000001,
					INT64_C(4102444800000000000)};
	static const char *const bad[] = {"",
					  "2026-11-22",
					  "2026-11-22T10:11:12",
					  "2026-11-22T10:11:12+01:00",
					  "2026-11-22T10:11:12.5",
					  "9999-01-01T00:00:00Z",
					  "x"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
		assert_int_equal(json_put_time(f->object, "t", times[i]), 0);
		assert_true(json_get_time(f->object, "t") == times[i]);
	}
	assert_int_equal(json_put_text(f->object, "t", "1970-01-01T00:00:02Z"), 0);
	assert_true(json_get_time(f->object, "t") == INT64_C(2000000000));
	assert_int_equal(json_put_text(f->object, "t", "1970-01-01T00:00:00.25Z"), 0);
	assert_true(json_get_time(f->object, "t") == 250000000);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(json_put_text(f->object, "t", bad[i]), 0);
		assert_true(json_get_time(f->object, "t") == 0);
	}
}

/* No byte that a terminal acts on leaves, and what is read back is the same. */
static void
test_hazards(void **state)
{
	static const char text[] =
		"\x1b[31m \x7f \xc2\x9b \xe2\x80\xae \xe2\x81\xa6 \xd8\x9c \xe2\x82\xac";
	struct fixture *f = *state;
	AUTO_JSON json_t *parsed = NULL;

	assert_int_equal(json_put_text(f->object, text, text), 0);
	for (const char *p = text_of(f); *p != '\0' && *p != '\n'; p++)
		assert_true((unsigned char) *p >= 0x20 && *p != 0x7f);
	assert_non_null(strstr(f->text, "\\u009b \\u202e \\u2066 \\u061c \xe2\x82\xac"));
	parsed = json_loads(f->text, 0, NULL);
	assert_string_equal(json_get_text(parsed, text, ""), text);
}

/* What could not be put is not silently left out. */
static void
test_failed_put(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(json_put_new(f->object, "k", NULL), -1);
	assert_null(json_text(f->object, true, &f->err));
	assert_int_equal(f->err.code, MOAT_NO_MEMORY);
	moat_error_clear(&f->err);
	assert_string_equal(text_of(f), "{}\n");
	assert_int_equal(json_put_int(NULL, "k", 1), -1);
	assert_null(json_text(f->object, true, &f->err));
}

static void
write_text(struct fixture *f, const char *text)
{
	assert_ok(fs_write_atomic(f->fd, "x.json", text, strlen(text), 0600, &f->err), &f->err);
}

static void
test_files(void **state)
{
	struct fixture *f = *state;
	AUTO_JSON json_t *read = NULL;
	json_t *none = NULL;
	struct stat st;

	assert_fails(json_read(f->fd, "x.json", "the record", &none, &f->err), &f->err,
		     MOAT_NOT_FOUND, "the record");
	assert_int_equal(json_put_text(f->object, "k", "v"), 0);
	assert_ok(json_write(f->fd, "x.json", f->object, &f->err), &f->err);
	assert_int_equal(fstatat(f->fd, "x.json", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_ok(json_read(f->fd, "x.json", "the record", &read, &f->err), &f->err);
	assert_true(json_equal(read, f->object));

	write_text(f, "{\"a\":1,\n\"b\":");
	assert_fails(json_read(f->fd, "x.json", "the record", &none, &f->err), &f->err,
		     MOAT_CORRUPT, "the record: `x.json' is damaged: line 2");
	write_text(f, "[]");
	assert_fails(json_read(f->fd, "x.json", "r", &none, &f->err), &f->err, MOAT_CORRUPT,
		     "not an object");
	write_text(f, "");
	assert_fails(json_read(f->fd, "x.json", "r", &none, &f->err), &f->err, MOAT_CORRUPT,
		     "damaged");
	write_text(f, "{\"a\":1,\"a\":2}");
	assert_fails(json_read(f->fd, "x.json", "r", &none, &f->err), &f->err, MOAT_CORRUPT,
		     "duplicate");
	assert_null(none);
}

/* ----------------------------------------------------------------------------------- stdout */

/* From here on stdout is a file in the scratch directory, or `path`. */
static void
redirect(struct fixture *f, const char *path)
{
	int fd;

	(void) fflush(stdout);
	f->saved_stdout = dup(STDOUT_FILENO);
	fd = path != NULL ? open(path, O_WRONLY | O_CLOEXEC)
			  : openat(f->fd, "out", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(f->saved_stdout >= 0 && fd >= 0);
	assert_int_equal(dup2(fd, STDOUT_FILENO), STDOUT_FILENO);
	(void) close(fd);
}

static void
give_back(struct fixture *f)
{
	(void) fflush(stdout);
	(void) dup2(f->saved_stdout, STDOUT_FILENO);
	(void) close(f->saved_stdout);
	f->saved_stdout = -1;
}

static void
assert_printed(struct fixture *f, const char *expected)
{
	size_t size;

	give_back(f);
	free(f->text);
	f->text = NULL;
	assert_ok(fs_read(f->fd, "out", 4096, &f->text, &size, &f->err), &f->err);
	assert_string_equal(f->text, expected);
}

static struct table *
example(void)
{
	static const char *const headers[] = {"ID", "NAME", "NOTE", NULL};
	static const char *const rows[][3] = {
		{"1", "\xe6\x97\xa5\xe6\x9c\xac", "wide"}, /* two characters of two columns */
		{"22", "e\xcc\x81", "combined"},           /* e and an accent: one column */
		{"333", "\x1b[2J", ""},
		{"4", NULL, "none"},
	};
	struct table *table = table_new(headers);

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		table_add(table, rows[i]);
	return table;
}

static void
test_table(void **state)
{
	struct fixture *f = *state;
	int result;

	if (setlocale(LC_CTYPE, "C.UTF-8") == NULL)
		fail_msg("there is no locale C.UTF-8");
	redirect(f, NULL);
	result = table_print(example(), false, &f->err);
	assert_printed(f, "ID   NAME     NOTE\n"
			  "1    \xe6\x97\xa5\xe6\x9c\xac     wide\n"
			  "22   e\xcc\x81        combined\n"
			  "333  \\033[2J\n"
			  "4             none\n");
	assert_int_equal(result, 0);
}

static void
test_out(void **state)
{
	struct fixture *f = *state;

	redirect(f, NULL);
	out("%d ", 5);
	out_escaped("a\nb");
	out_escaped_bytes("\0\n", 2);
	out_color(true, COLOR_RED, "\x1b!");
	out_color(true, COLOR_NONE, "c");
	out_color(false, COLOR_RED, "d");
	assert_printed(f, "5 a\\nb\\x00\\n\033[31m\\033!\033[0mcd");
	assert_ok(stdout_check(&f->err), &f->err);
}

/* The last one: stdout remembers its failure. */
static void
test_full_disk(void **state)
{
	struct fixture *f = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	int result;

	redirect(f, "/dev/full");
	out("x");
	result = stdout_check(&err);
	give_back(f);
	clearerr(stdout);
	assert_int_equal(result, -1);
	assert_int_equal(err.code, MOAT_FAILED);
	assert_string_equal(err.message, "write to standard output: No space left on device");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_scalars),    TEST(test_not_utf8), TEST(test_random_bytes),
		TEST(test_bad_base64), TEST(test_list),     TEST(test_get_list),
		TEST(test_time),       TEST(test_hazards),  TEST(test_failed_put),
		TEST(test_files),      TEST(test_table),    TEST(test_out),
		TEST(test_full_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
