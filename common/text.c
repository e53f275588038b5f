/* SPDX-License-Identifier: Apache-2.0 */
/* Escaping for terminals, and numbers, sizes, times as people write and read them. */
#include "common/text.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

/* ---------------------------------------------------------------------------------- escaping */

/* Decodes one character by RFC 3629: no overlong forms, surrogates, nor anything above U+10FFFF.
 * Returns its length, or 0 when there is none here. */
static size_t
utf8_decode(const unsigned char *bytes, size_t size, uint32_t *ret)
{
	static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t c = bytes[0];
	size_t length;

	if (c < 0x80) {
		*ret = c;
		return 1;
	}
	length = c >= 0xc0 && c < 0xe0   ? 2
		 : c >= 0xe0 && c < 0xf0 ? 3
		 : c >= 0xf0 && c < 0xf8 ? 4
					 : 0;
	if (length == 0 || length > size)
		return 0;
	c &= 0x7fu >> length;
	for (size_t i = 1; i < length; i++) {
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (bytes[i] & 0x3fu);
	}
	if (c < lowest[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret = c;
	return length;
}

/* What a terminal would act on, or show in another order than it is stored. */
static bool
is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x061c || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

static void
escape_bytes(struct buf *out, const unsigned char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		switch (bytes[i]) {
		case '\n':
			buf_string(out, "\\n");
			break;
		case '\t':
			buf_string(out, "\\t");
			break;
		case '\r':
			buf_string(out, "\\r");
			break;
		case 033:
			buf_string(out, "\\033");
			break;
		default:
			buf_format(out, "\\x%02x", bytes[i]);
		}
	}
}

void
text_escape(struct buf *out, const void *data, size_t size)
{
	const unsigned char *bytes = data;
	size_t length;
	uint32_t c = 0;

	for (size_t i = 0; i < size; i += length) {
		length = utf8_decode(bytes + i, size - i, &c);
		if (length == 0) {
			length = 1;
			escape_bytes(out, bytes + i, 1);
		} else if (is_control(c)) {
			escape_bytes(out, bytes + i, length);
		} else if (c == '\\') {
			buf_string(out, "\\\\");
		} else {
			buf_append(out, bytes + i, length);
		}
	}
}

char *
text_escaped(const char *text)
{
	AUTO_BUF struct buf out = {0};

	text_escape(&out, text, strlen(text));
	return buf_steal(&out);
}

bool
text_is_utf8(const void *data, size_t size)
{
	const unsigned char *bytes = data;
	size_t length;
	uint32_t c;

	for (size_t i = 0; i < size; i += length) {
		length = utf8_decode(bytes + i, size - i, &c);
		if (length == 0)
			return false;
	}
	return true;
}

/* ----------------------------------------------------------------------------------- parsing */

struct unit {
	const char *name;
	uint64_t factor; /* at most 2^40, see parse_quantity() */
};

static const struct unit size_units[] = {
	{"", 1},
	{"B", 1},
	{"K", UINT64_C(1) << 10},
	{"KiB", UINT64_C(1) << 10},
	{"KB", 1000},
	{"M", UINT64_C(1) << 20},
	{"MiB", UINT64_C(1) << 20},
	{"MB", 1000000},
	{"G", UINT64_C(1) << 30},
	{"GiB", UINT64_C(1) << 30},
	{"GB", 1000000000},
	{"T", UINT64_C(1) << 40},
	{"TiB", UINT64_C(1) << 40},
	{"TB", UINT64_C(1000000000000)},
	{NULL, 0},
};

static const struct unit duration_units[] = {
	{"ms", 1},      {"", 1000},      {"s", 1000}, {"m", 60000},
	{"h", 3600000}, {"d", 86400000}, {NULL, 0},
};

/* NUMBER[.FRACTION][UNIT], not negative; digits of the fraction after the sixth are ignored.
 * False: it is not that, or it does not fit. */
static bool
parse_quantity(const char *text, const struct unit *units, uint64_t *ret)
{
	uint64_t whole = 0, millionths = 0, scale = 100000, result;
	const char *p = text;

	if (!isdigit((unsigned char) *p))
		return false;
	for (; isdigit((unsigned char) *p); p++) {
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t) (*p - '0'), &whole))
			return false;
	}
	if (*p == '.') {
		if (!isdigit((unsigned char) *++p))
			return false;
		for (; isdigit((unsigned char) *p); p++) {
			millionths += (uint64_t) (*p - '0') * scale;
			scale /= 10;
		}
	}
	while (units->name != NULL && strcasecmp(p, units->name) != 0)
		units++;
	if (units->name == NULL || __builtin_mul_overflow(whole, units->factor, &result) ||
	    __builtin_add_overflow(result, millionths * units->factor / 1000000, &result))
		return false;
	*ret = result;
	return true;
}

int
text_parse_size(const char *text, uint64_t *ret, struct moat_error *err)
{
	if (parse_quantity(text, size_units, ret))
		return 0;
	return moat_fail(err, MOAT_USAGE, "`%s' is not a size; write 4096, 64k, 10MB, 1.5GiB",
			 text);
}

int
text_parse_duration(const char *text, int64_t *ret_ms, struct moat_error *err)
{
	uint64_t value;

	if (!parse_quantity(text, duration_units, &value) || value > INT64_MAX)
		return moat_fail(err, MOAT_USAGE,
				 "`%s' is not a duration; write 500ms, 30s, 10m, 1h, 2d", text);
	*ret_ms = (int64_t) value;
	return 0;
}

int
text_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret, struct moat_error *err)
{
	const char *digits = *text == '-' ? text + 1 : text;
	char *end = NULL;
	long long value;

	if (isdigit((unsigned char) *digits)) {
		errno = 0;
		value = strtoll(text, &end, 10);
		if (errno == 0 && *end == '\0' && value >= min && value <= max) {
			*ret = value;
			return 0;
		}
		if (*end == '\0')
			return moat_fail(err, MOAT_USAGE, "`%s' is not between %lld and %lld", text,
					 (long long) min, (long long) max);
	}
	return moat_fail(err, MOAT_USAGE, "`%s' is not a whole number", text);
}

/* -------------------------------------------------------------------------------- formatting */

const char *
text_size(char out[32], uint64_t bytes)
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double) bytes;
	size_t unit = 0;

	/* What would be rounded to 1024.0 belongs to the next unit. */
	for (; value >= 1023.95 && unit < sizeof names / sizeof names[0] - 1; unit++)
		value /= 1024;
	if (bytes < 1024)
		(void) snprintf(out, 32, "%u B", (unsigned) bytes);
	else
		(void) snprintf(out, 32, "%.1f %s", value, names[unit]);
	return out;
}

const char *
text_time(char out[40], int64_t time_ns)
{
	int64_t seconds = time_ns / 1000000000, fraction = time_ns % 1000000000;
	struct tm tm;
	time_t when;
	size_t used;

	if (fraction < 0) {
		fraction += 1000000000;
		seconds--;
	}
	when = (time_t) seconds;
	if (gmtime_r(&when, &tm) == NULL)
		memset(&tm, 0, sizeof tm);
	used = strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &tm);
	(void) snprintf(out + used, 40 - used, ".%09uZ", (unsigned) fraction);
	return out;
}

const char *
text_age(char out[32], int64_t time_ns, int64_t now_ns)
{
	int64_t minutes;

	if (now_ns <= time_ns || __builtin_sub_overflow(now_ns, time_ns, &minutes))
		minutes = 0;
	minutes /= INT64_C(60000000000);
	if (minutes < 1)
		(void) snprintf(out, 32, "just now");
	else if (minutes < 60)
		(void) snprintf(out, 32, "%dm ago", (int) minutes);
	else if (minutes < 24 * 60)
		(void) snprintf(out, 32, "%dh ago", (int) (minutes / 60));
	else
		(void) snprintf(out, 32, "%dd ago", (int) (minutes / (24 * 60)));
	return out;
}

const char *
text_duration(char out[32], int64_t duration_ns)
{
	int64_t ms = duration_ns / 1000000, s = ms / 1000;

	if (duration_ns < 0)
		(void) snprintf(out, 32, "?");
	else if (ms < 1000)
		(void) snprintf(out, 32, "%dms", (int) ms);
	else if (s < 60)
		(void) snprintf(out, 32, "%d.%ds", (int) s, (int) (ms % 1000 / 100));
	else if (s < 3600)
		(void) snprintf(out, 32, "%dm%02ds", (int) (s / 60), (int) (s % 60));
	else
		(void) snprintf(out, 32, "%dh%02dm", (int) (s / 3600), (int) (s / 60 % 60));
	return out;
}

/* ------------------------------------------------------------------------------------- names */

#define NEAREST_MAX 64 /* longer names are not compared */

static unsigned
least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* The number of bytes to insert, delete, replace, or swap with the next.  Case does not count. */
static unsigned
edit_distance(const char *a, const char *b)
{
	unsigned rows[3][NEAREST_MAX + 1];
	unsigned *before = rows[0], *last = rows[1], *row = rows[2], *spare;
	size_t a_size = strlen(a), b_size = strlen(b);

	for (size_t j = 0; j <= b_size; j++)
		last[j] = before[j] = (unsigned) j;
	for (size_t i = 1; i <= a_size; i++) {
		row[0] = (unsigned) i;
		for (size_t j = 1; j <= b_size; j++) {
			int ca = tolower((unsigned char) a[i - 1]);
			int cb = tolower((unsigned char) b[j - 1]);

			row[j] = least(last[j - 1] + (ca != cb), least(last[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && ca == tolower((unsigned char) b[j - 2]) &&
			    cb == tolower((unsigned char) a[i - 2]))
				row[j] = least(row[j], before[j - 2] + 1);
		}
		spare = before;
		before = last;
		last = row;
		row = spare;
	}
	return last[b_size];
}

const char *
text_nearest(const char *name, const char *const *names)
{
	size_t length = strlen(name);
	/* One slip in three characters is a slip; more is another word. */
	unsigned best = (unsigned) (length < 3 ? 1 : length / 3) + 1, distance;
	const char *nearest = NULL;

	if (length == 0 || length > NEAREST_MAX)
		return NULL;
	for (; *names != NULL; names++) {
		if (strlen(*names) > NEAREST_MAX)
			continue;
		distance = edit_distance(name, *names);
		if (distance < best && distance < strlen(*names)) {
			best = distance;
			nearest = *names;
		}
	}
	return nearest;
}

static bool
is_alnum(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool
text_is_name(const char *text)
{
	size_t length = 1;

	if (!is_alnum(text[0]))
		return false;
	for (; text[length] != '\0'; length++) {
		if (length == 128 ||
		    (!is_alnum(text[length]) && strchr("._-", text[length]) == NULL))
			return false;
	}
	return true;
}

bool
text_path_within(const char *path, const char *top)
{
	size_t n = strlen(top);

	if (n == 0 || (n == 1 && top[0] == '/'))
		return true;
	return strncmp(path, top, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

int
text_random_id(char out[32], const char *prefix, struct moat_error *err)
{
	unsigned char bytes[6];
	ssize_t got;

	do
		got = getrandom(bytes, sizeof bytes, 0);
	while (got < 0 && errno == EINTR);
	if (got != (ssize_t) sizeof bytes)
		return moat_fail_errno(err, "random numbers");
	if (snprintf(out, 32, "%s_%02x%02x%02x%02x%02x%02x", prefix, bytes[0], bytes[1], bytes[2],
		     bytes[3], bytes[4], bytes[5]) >= 32)
		return moat_fail(err, MOAT_USAGE, "`%s' is too long to begin an id", prefix);
	return 0;
}

int64_t
time_now_ns(void)
{
	struct timespec now;

	/* Cannot fail: the clock exists and the address is good. */
	(void) clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}
