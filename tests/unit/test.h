/* SPDX-License-Identifier: Apache-2.0 */
/* What every unit test includes: cmocka with its prerequisites, and a scratch directory. */
#ifndef MOAT_TESTS_UNIT_TEST_H
#define MOAT_TESTS_UNIT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/error.h"

/* Fails with the message when the call did. */
#define assert_ok(call, err)                                                                       \
	do {                                                                                       \
		if ((call) < 0)                                                                    \
			fail_msg("%s: %s", #call, (err)->message);                                 \
	} while (0)

/* The call must fail with that code and a message that contains the text. */
#define assert_fails(call, err, expected_code, text)                                               \
	do {                                                                                       \
		if ((call) >= 0)                                                                   \
			fail_msg("%s: succeeded", #call);                                          \
		if ((err)->code != (expected_code))                                                \
			fail_msg("%s: code %d, not %d: %s", #call, (err)->code, (expected_code),   \
				 (err)->message);                                                  \
		if (strstr((err)->message, (text)) == NULL)                                        \
			fail_msg("%s: `%s' lacks `%s'", #call, (err)->message, (text));            \
		moat_error_clear(err);                                                             \
	} while (0)

/* Percentage of the usual number of random cases: $MOAT_TEST_SCALE, 100 without it; at least 1
 * case. */
static inline long
test_scaled(long cases)
{
	const char *scale = getenv("MOAT_TEST_SCALE");
	long n = scale == NULL ? cases : cases * atol(scale) / 100;

	return n > 0 ? n : 1;
}

#endif
