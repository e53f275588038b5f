/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line: its text, its speed, and when it shows, by a clock and a terminal of our own.
 */
#include "tests/unit/test.h"

#include <locale.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "core/loader.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/terminal.h"

#define MS INT64_C(1000000)
#define MIB (UINT64_C(1) << 20)

/* --------------------------------------------------------------------------------- the speed */

static void
test_speed(void **state)
{
	struct progress_meter meter = {0};

	assert_true(progress_meter_bytes(&meter) == 0);
	progress_meter_add(&meter, 0, 0, 0);
	assert_true(progress_meter_bytes(&meter) == 0);
	progress_meter_add(&meter, 2000 * MS, 100, 10);
	assert_true(progress_meter_bytes(&meter) == 50);
	assert_true(progress_meter_items(&meter) == 5);
	/* Backwards, as threads may report: no negative speed. */
	progress_meter_add(&meter, 2000 * MS, 0, 0);
	assert_true(progress_meter_bytes(&meter) == 0);
}

/* A burst of a gigabyte in the first second, then a megabyte a second: after the window only the
 * latter counts. */
static void
test_burst(void **state)
{
	struct progress_meter meter = {0};
	uint64_t bytes = 1024 * MIB;

	progress_meter_add(&meter, 0, 0, 0);
	progress_meter_add(&meter, 1000 * MS, bytes, 0);
	for (int i = 1; i <= 100; i++)
		progress_meter_add(&meter, (1000 + i * 100) * MS, bytes + (uint64_t) i * MIB / 10,
				   0);
	assert_true(progress_meter_bytes(&meter) > 0.9 * (double) MIB);
	assert_true(progress_meter_bytes(&meter) < 1.1 * (double) MIB);
}

/* After a minute without a word the speed is that of the minute, not that of its end. */
static void
test_silence(void **state)
{
	struct progress_meter meter = {0};

	progress_meter_add(&meter, 0, 0, 0);
	progress_meter_add(&meter, 100 * MS, MIB, 1);
	progress_meter_add(&meter, 60100 * MS, 2 * MIB, 2);
	assert_true(progress_meter_bytes(&meter) < (double) MIB / 50);
	assert_true(progress_meter_bytes(&meter) > 0);
}

/* --------------------------------------------------------------------------------- the text */

static void
assert_line(const char *title, struct progress_counts counts, size_t columns, const char *expected)
{
	struct progress_meter meter = {0};
	char *line;

	progress_meter_add(&meter, 0, 0, 0);
	progress_meter_add(&meter, 2000 * MS, counts.done_bytes, counts.done_items);
	line = progress_line(title, &counts, &meter, columns);
	if (expected == NULL) {
		assert_null(line);
		return;
	}
	assert_non_null(line);
	assert_string_equal(line, expected);
	assert_true(text_columns(line) <= columns);
	free(line);
}

static void
test_text(void **state)
{
	struct progress_counts half = {512 * MIB, 1024 * MIB, 300, 600};
	struct progress_counts unknown = {3 * MIB, 0, 7, 0};
	struct progress_counts items = {0, 0, 50, 200};
	struct progress_counts finished = {MIB, MIB, 2, 2};
	struct progress_counts slow = {MIB, 100000 * MIB, 0, 0};

	assert_line("snapshot of /w", half, 200,
		    "snapshot of /w  50%  512.0 MiB of 1.0 GiB  300 of 600 files  256.0 MiB/s  2s "
		    "left");
	assert_line("t", unknown, 200, "t  3.0 MiB  7 files  1.5 MiB/s");
	assert_line("t", items, 200, "t  25%  50 of 200 files  25 files/s  6s left");
	assert_line("t", finished, 200, "t  100%  1.0 MiB of 1.0 MiB  2 of 2 files  512.0 KiB/s");
	assert_line("t", slow, 200, "t  0%  1.0 MiB of 97.7 GiB  512.0 KiB/s  55h33m left");
	assert_line("t", (struct progress_counts){0, 0, 0, 0}, 200, "t");
}

static void
test_narrow(void **state)
{
	struct progress_counts half = {512 * MIB, 1024 * MIB, 300, 600};
	const char *title = "snapshot of /home/someone/a/project";

	assert_line(title, half, 85,
		    "...meone/a/project  50%  512.0 MiB of 1.0 GiB  300 of 600 files  256.0 MiB/s  "
		    "2s left");
	assert_line(title, half, 67,
		    "...meone/a/project  50%  512.0 MiB of 1.0 GiB  256.0 MiB/s  2s left");
	assert_line(title, half, 30, "...one/a/project  50%  2s left");
	assert_line(title, half, 13, ".../a/project");
	assert_line(title, half, 3, NULL);
	/* Whatever the width, it fits. */
	for (size_t columns = 0; columns < 120; columns++) {
		struct progress_meter meter = {0};
		char *line = progress_line(title, &half, &meter, columns);

		if (line != NULL)
			assert_true(text_columns(line) <= columns);
		free(line);
	}
}

/* Names are bytes: what a terminal would obey is escaped, wide characters are counted as two. */
static void
test_names(void **state)
{
	struct progress_counts none = {0};

	assert_line("a\033[2Jb\n", none, 80, "a\\033[2Jb\\n");
	assert_line("\xff", none, 80, "\\xff");
	assert_line("日本語日本語日本語", none, 12, "...語日本語");
	assert_line("ééééééééé", none, 12, "ééééééééé");
}

/* ------------------------------------------------------------------------------- the display */

static _Atomic int64_t now;
static size_t columns;
static bool wanted;
static char written[65536];
static size_t written_size;
static unsigned writes;

static int64_t
fake_now(void)
{
	return now;
}

static bool
fake_wanted(void)
{
	return wanted;
}

static size_t
fake_columns(void)
{
	return columns;
}

static void
fake_write(const char *data, size_t size)
{
	assert_true(written_size + size < sizeof written);
	memcpy(written + written_size, data, size);
	written_size += size;
	written[written_size] = '\0';
	writes++;
}

static const struct progress_output fake = {fake_now, fake_wanted, fake_columns, fake_write};

static void
forget(void)
{
	written_size = 0;
	written[0] = '\0';
	writes = 0;
}

static int
setup(void **state)
{
	now = 1000000 * MS;
	columns = 80;
	wanted = true;
	forget();
	progress_set_output(&fake);
	return 0;
}

static int
teardown(void **state)
{
	progress_set_output(NULL);
	return 0;
}

static void
report(uint64_t bytes)
{
	host_table()->progress(bytes, 1000, 0, 0);
}

static void
test_short_is_silent(void **state)
{
	progress_begin("it");
	for (int i = 0; i < 499; i++) {
		report((uint64_t) i);
		now += MS;
	}
	progress_end();
	assert_int_equal(writes, 0);
}

static void
test_not_wanted(void **state)
{
	wanted = false;
	progress_begin("it");
	now += 10000 * MS;
	report(1);
	assert_false(progress_pause());
	progress_end();
	assert_int_equal(writes, 0);
}

static void
test_shows_and_clears(void **state)
{
	progress_begin("it %d", 1);
	now += 500 * MS;
	report(250);
	assert_string_equal(written, "\rit 1  25%  250 B of 1000 B  500 B/s  2s left\033[K");
	forget();
	progress_end();
	assert_string_equal(written, "\r\033[K");
	forget();
	/* Between operations nobody is heard. */
	now += 10000 * MS;
	report(1);
	assert_int_equal(writes, 0);
}

/* A thousand reports in a second are ten drawings. */
static void
test_rate_limit(void **state)
{
	progress_begin("it");
	now += 500 * MS;
	for (int i = 0; i < 1000; i++) {
		report((uint64_t) i);
		now += MS;
	}
	assert_int_equal(writes, 10);
	progress_end();
}

static void
test_pause(void **state)
{
	bool outer, inner;

	progress_begin("it");
	/* Nothing is there yet: nothing to clear or to bring back. */
	progress_resume(progress_pause());
	assert_int_equal(writes, 0);
	now += 500 * MS;
	report(250);
	forget();
	outer = progress_pause();
	assert_string_equal(written, "\r\033[K");
	forget();
	inner = progress_pause();
	now += 1000 * MS;
	report(500);
	progress_resume(inner);
	assert_int_equal(writes, 0);
	progress_resume(outer);
	assert_string_equal(written, "\rit  50%  500 B of 1000 B  500 B/s  1s left\033[K");
	progress_end();
}

/* What is part of an operation neither changes its title nor ends it. */
static void
test_nested(void **state)
{
	progress_begin("outer");
	progress_begin("inner");
	now += 500 * MS;
	report(250);
	assert_non_null(strstr(written, "outer"));
	progress_end();
	now += 500 * MS;
	forget();
	report(300);
	assert_non_null(strstr(written, "outer"));
	progress_end();
}

/* In the background it takes itself away and comes back in the foreground. */
static void
test_background(void **state)
{
	progress_begin("it");
	now += 500 * MS;
	report(250);
	columns = 0;
	now += 100 * MS;
	forget();
	report(260);
	assert_string_equal(written, "\r\033[K");
	forget();
	now += 100 * MS;
	report(270);
	assert_int_equal(writes, 0);
	columns = 80;
	now += 100 * MS;
	report(280);
	assert_int_equal(writes, 1);
	progress_end();
}

static void *
report_much(void *unused)
{
	for (int i = 0; i < 20000; i++) {
		report((uint64_t) i % 1000);
		if (i % 1000 == 0) {
			now += 10 * MS;
			progress_resume(progress_pause());
		}
	}
	return NULL;
}

/* For ThreadSanitizer, and for a lock that is not given back. */
static void
test_threads(void **state)
{
	pthread_t threads[4];

	progress_begin("it");
	now += 500 * MS;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, report_much, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	forget();
	progress_end();
	assert_true(written_size == 0 || strcmp(written, "\r\033[K") == 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_speed),
		cmocka_unit_test(test_burst),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_narrow),
		cmocka_unit_test(test_names),
		cmocka_unit_test_setup_teardown(test_short_is_silent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_wanted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shows_and_clears, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rate_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pause, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nested, setup, teardown),
		cmocka_unit_test_setup_teardown(test_background, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};

	(void) alarm(60); /* a test that fails between pause and resume leaves the lock behind */
	if (setlocale(LC_CTYPE, "C.UTF-8") == NULL)
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
