/* SPDX-License-Identifier: Apache-2.0 */
/* What moat says to people: warnings, hints, progress and errors, on stderr; one line each,
 * escaped. */
#ifndef MOAT_CORE_LOG_H
#define MOAT_CORE_LOG_H

#include <stdbool.h>

#include "common/error.h"

/* -q: errors only; default: warnings and notices; -v: info; -vv: debug (plugins' too). */
void log_set_level(int verbosity); /* -1, 0, 1, 2 */
int log_verbosity(void);
/* "moat: error: ..." and so on.  [any thread] all. */
void log_error(const char *format, ...) MOAT_PRINTF(1, 2);
void log_warning(const char *format, ...) MOAT_PRINTF(1, 2);
void log_notice(const char *format, ...)
	MOAT_PRINTF(1, 2); /* no prefix; what a user wants to know anyway */
void log_info(const char *format, ...) MOAT_PRINTF(1, 2);
void log_debug(const char *format, ...) MOAT_PRINTF(1, 2);
void log_failure(const struct moat_error *err); /* the error line */
/* For moat_host.log. level: enum moat_log_level. */
void log_plugin(const char *who, int level, const char *message);
/* While a command's terminal is in raw mode, lines end in CR LF. */
void log_set_raw(bool raw);

#endif
