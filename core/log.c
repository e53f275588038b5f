/* SPDX-License-Identifier: Apache-2.0 */
/* The log: lines on stderr.  A line is built whole and leaves in one write(2), so that lines of
 * several threads or processes do not mix; nothing is buffered and errno is kept. */
#include "core/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/text.h"
#include "core/progress.h"

static atomic_int verbosity_now;
static atomic_bool raw_now;

void
log_set_level(int verbosity)
{
	atomic_store(&verbosity_now, verbosity);
}

int
log_verbosity(void)
{
	return atomic_load(&verbosity_now);
}

void
log_set_raw(bool raw)
{
	atomic_store(&raw_now, raw);
}

/* There is nobody to tell when stderr cannot be written. */
static void
write_line(const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(STDERR_FILENO, data, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		data += n;
		size -= (size_t) n;
	}
}

/* Without memory for escaping: whatever is not plain becomes '?'. */
static void
write_plain(const char *prefix, char *text, const char *end)
{
	for (char *p = text; *p != '\0'; p++) {
		if (*p < 0x20 || *p > 0x7e)
			*p = '?';
	}
	write_line(prefix, strlen(prefix));
	write_line(text, strlen(text));
	write_line(end, strlen(end));
}

static void emit(const char *prefix, const char *format, va_list args) MOAT_PRINTF(2, 0);

static void
emit(const char *prefix, const char *format, va_list args)
{
	int saved_errno = errno;
	const char *end = atomic_load(&raw_now) ? "\r\n" : "\n";
	char text[4096];
	AUTO_BUF struct buf line = {0};
	int n = vsnprintf(text, sizeof text, format, args);
	bool paused;

	if (n < 0)
		text[0] = '\0';
	else if (n >= (int) sizeof text)
		memcpy(text + sizeof text - 4, "...", 4);
	buf_string(&line, prefix);
	text_escape(&line, text, strlen(text));
	buf_string(&line, end);
	paused = progress_pause();
	if (buf_check(&line, NULL) < 0)
		write_plain(prefix, text, end);
	else
		write_line(line.data, line.size);
	progress_resume(paused);
	errno = saved_errno;
}

/* clang-format off */
#define EMIT(least, prefix)                                                                        \
	do {                                                                                       \
		va_list args;                                                                      \
		if (log_verbosity() < (least))                                                     \
			return;                                                                    \
		va_start(args, format);                                                            \
		emit(prefix, format, args);                                                        \
		va_end(args);                                                                      \
	} while (0)
/* clang-format on */

void
log_error(const char *format, ...)
{
	EMIT(-1, "moat: error: ");
}

void
log_warning(const char *format, ...)
{
	EMIT(0, "moat: warning: ");
}

void
log_notice(const char *format, ...)
{
	EMIT(0, "");
}

void
log_info(const char *format, ...)
{
	EMIT(1, "moat: ");
}

void
log_debug(const char *format, ...)
{
	EMIT(2, "moat: debug: ");
}

void
log_failure(const struct moat_error *err)
{
	log_error("%s", err->message[0] != '\0' ? err->message : "failed without saying why");
}

void
log_plugin(const char *who, int level, const char *message)
{
	switch (level) {
	case MOAT_LOG_ERROR:
		log_error("%s: %s", who, message);
		break;
	case MOAT_LOG_WARNING:
		log_warning("%s: %s", who, message);
		break;
	case MOAT_LOG_INFO:
		log_info("%s: %s", who, message);
		break;
	default:
		log_debug("%s: %s", who, message);
		break;
	}
}
