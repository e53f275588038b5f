/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, times and names in the headers of a stranger's archive. */
#include <string.h>

#include "common/tar_stream_internal.h"

bool
tar_is_zero(const void *data, size_t size)
{
	const char *bytes = data;

	return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

bool
tar_field_is_blank(const char *field, size_t width)
{
	for (size_t i = 0; i < width; i++)
		if (field[i] != '\0' && field[i] != ' ')
			return false;
	return true;
}

/* GNU's extension: the first bit is set, the others are a number in two's complement. */
static const char *
base_256(const char *field, size_t width, int64_t *ret)
{
	bool negative = (field[0] & 0x40) != 0;
	uint64_t value = negative ? UINT64_MAX : 0;

	for (size_t i = 0; i < width; i++) {
		uint8_t byte = (uint8_t) field[i];

		/* The mark itself is no part of the number; the sign fills its place. */
		if (i == 0)
			byte = negative ? (uint8_t) (byte | 0x80) : (uint8_t) (byte & 0x7f);
		if ((value >> 55) != (negative ? 0x1ff : 0))
			return "is a number that is too large";
		value = value << 8 | byte;
	}
	memcpy(ret, &value, sizeof *ret);
	return NULL;
}

static const char *
octal(const char *field, size_t width, int64_t *ret)
{
	uint64_t value = 0;
	size_t i = 0, first;

	while (i < width && field[i] == ' ')
		i++;
	first = i;
	for (; i < width && field[i] >= '0' && field[i] <= '7'; i++) {
		if (value >> 60 != 0)
			return "is a number that is too large";
		value = value << 3 | (uint64_t) (field[i] - '0');
	}
	if (i == first)
		return "is no number";
	if (!tar_field_is_blank(field + i, width - i))
		return "is no octal number";
	*ret = (int64_t) value;
	return NULL;
}

const char *
tar_field_signed(const char *field, size_t width, int64_t *ret)
{
	return (field[0] & 0x80) != 0 ? base_256(field, width, ret) : octal(field, width, ret);
}

const char *
tar_field(const char *field, size_t width, uint64_t *ret)
{
	int64_t value = 0;
	const char *wrong = tar_field_signed(field, width, &value);

	if (wrong == NULL && value < 0)
		wrong = "is negative";
	*ret = (uint64_t) value;
	return wrong;
}

const char *
tar_decimal(const char *text, size_t size, uint64_t *ret)
{
	uint64_t value = 0;

	if (size > 0 && text[0] == '-')
		return "is negative";
	if (size == 0)
		return "is no number";
	for (size_t i = 0; i < size; i++) {
		if (text[i] < '0' || text[i] > '9')
			return "is no decimal number";
		value = value > INT64_MAX / 10 ? UINT64_MAX
					       : value * 10 + (uint64_t) (text[i] - '0');
		if (value > INT64_MAX)
			return "is a number that is too large";
	}
	*ret = value;
	return NULL;
}

/* The digits after the point; those beyond nanoseconds are read and dropped. */
static const char *
fraction(const char *text, size_t size, uint32_t *ret)
{
	uint32_t value = 0, unit = 100000000;

	for (size_t i = 0; i < size; i++, unit /= 10) {
		if (text[i] < '0' || text[i] > '9')
			return "is no time";
		value += unit * (uint32_t) (text[i] - '0');
	}
	*ret = value;
	return NULL;
}

const char *
tar_time(const char *text, size_t size, int64_t *ret_sec, uint32_t *ret_nsec)
{
	bool negative = size > 0 && text[0] == '-';
	const char *point, *wrong;
	uint64_t whole = 0;
	uint32_t nsec = 0;
	size_t digits;

	text += negative;
	size -= negative;
	point = size == 0 ? NULL : memchr(text, '.', size);
	digits = point == NULL ? size : (size_t) (point - text);
	wrong = tar_decimal(text, digits, &whole);
	if (wrong == NULL && point != NULL)
		wrong = fraction(point + 1, size - digits - 1, &nsec);
	if (wrong != NULL)
		return "is no time";
	*ret_sec = negative ? -(int64_t) whole : (int64_t) whole;
	/* A time is its seconds, rounded down, and what is left. */
	if (negative && nsec > 0) {
		*ret_sec -= 1;
		nsec = 1000000000u - nsec;
	}
	*ret_nsec = nsec;
	return NULL;
}

static const char *
check_component(const char *name, size_t size)
{
	if (size == 0)
		return "has an empty component in its path";
	if (size == 1 && name[0] == '.')
		return "has a `.' in its path";
	if (size == 2 && name[0] == '.' && name[1] == '.')
		return "has a `..' in its path";
	if (size > TAR_STREAM_COMPONENT_MAX)
		return "has a component of more than 255 bytes in its path";
	return NULL;
}

const char *
tar_clean_path(const char *path, size_t size, struct buf *out, bool *ret_slash)
{
	const char *end;

	*ret_slash = false;
	if (size == 0)
		return "has no name";
	if (size > TAR_STREAM_PATH_MAX)
		return "has a path of more than 65535 bytes";
	if (memchr(path, '\0', size) != NULL)
		return "has a NUL byte in its path";
	if (path[0] == '/')
		return "has an absolute path";
	end = path + size;
	while (end - path >= 2 && path[0] == '.' && path[1] == '/')
		path += 2;
	if (end - path == 1 && path[0] == '.')
		path++;
	if (path == end) { /* the root itself; "./" and "." name a directory */
		*ret_slash = true;
		return NULL;
	}
	if (end[-1] == '/') {
		*ret_slash = true;
		end--;
	}
	for (const char *at = path;; at++) {
		const char *slash = at == end ? NULL : memchr(at, '/', (size_t) (end - at));
		const char *wrong =
			check_component(at, (size_t) ((slash == NULL ? end : slash) - at));

		if (wrong != NULL)
			return wrong;
		if (slash == NULL)
			break;
		at = slash;
	}
	buf_append(out, path, (size_t) (end - path));
	return NULL;
}

const char *
tar_fixed_name(const char *field, size_t width, struct buf *out)
{
	size_t size = strnlen(field, width);

	for (size_t i = size; i < width; i++)
		if (field[i] != '\0')
			return "has bytes after the end of a name in its header";
	buf_append(out, field, size);
	return NULL;
}
