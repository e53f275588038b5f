/* SPDX-License-Identifier: Apache-2.0 */
/* Errors inside moat: the SDK's struct moat_error with the few verbs that the code needs.
 *
 * A function that can fail takes a `struct moat_error *err` last and returns 0 or -1 (or a pointer
 * or NULL). It sets *err exactly when it fails.  Callers add what they were doing with moat_wrap().
 * To ignore a failure, pass NULL and say why. */
#ifndef MOAT_COMMON_ERROR_H
#define MOAT_COMMON_ERROR_H

#include <moat/plugin.h>

/* Sets *err and returns -1.  An error that is set already stays. */
int moat_fail(struct moat_error *err, int code, const char *format, ...) MOAT_PRINTF(3, 4);

/* The same with ": " and the text of errno at the end, and the code that fits errno.  errno is
 * kept. */
int moat_fail_errno(struct moat_error *err, const char *format, ...) MOAT_PRINTF(2, 3);

/* "out of memory".  Returns -1. */
int moat_fail_memory(struct moat_error *err);

/* Puts "FORMAT: " before the message of an error that is set.  Returns -1. */
int moat_wrap(struct moat_error *err, const char *format, ...) MOAT_PRINTF(2, 3);

/* Makes *err ready to be set again. */
void moat_error_clear(struct moat_error *err);

/* The code that fits an errno. */
int moat_code_of_errno(int sys_errno);

#endif
