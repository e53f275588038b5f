/* SPDX-License-Identifier: Apache-2.0 */
/* JSON: moat's own records and the --json output. */
#include "core/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/buf.h"
#include "common/fs.h"
#include "common/text.h"
#include "core/terminal.h"

#define JSON_FILE_MAX ((size_t) 64 << 20)
#define NS_PER_SECOND INT64_C(1000000000)

/* A json_put_*() of this thread failed: the document that is being built lacks something. */
static _Thread_local bool put_failed;

void
cleanup_json(json_t **json)
{
	json_decref(*json);
}

/* ------------------------------------------------------------------------------------ bytes */

static const char base64_digits[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static json_t *
base64_encode(const unsigned char *data, size_t size)
{
	AUTO_BUF struct buf text = {0};

	for (size_t i = 0; i < size; i += 3) {
		size_t n = size - i < 3 ? size - i : 3;
		uint32_t bits = (uint32_t) data[i] << 16;
		char group[4];

		if (n > 1)
			bits |= (uint32_t) data[i + 1] << 8;
		if (n > 2)
			bits |= data[i + 2];
		for (size_t j = 0; j < 4; j++)
			group[j] = j <= n ? base64_digits[bits >> (18 - 6 * j) & 63] : '=';
		buf_append(&text, group, sizeof group);
	}
	if (buf_check(&text, NULL) < 0)
		return NULL;
	return json_stringn(text.data != NULL ? text.data : "", text.size);
}

/* Returns -1 when the text is not base64. */
static int
base64_decode(const char *text, struct buf *ret)
{
	size_t length = strlen(text), padding = 0;

	if (length % 4 != 0)
		return -1;
	while (padding < 2 && padding < length && text[length - 1 - padding] == '=')
		padding++;
	for (size_t i = 0; i < length; i += 4) {
		size_t digits = i + 4 == length ? 4 - padding : 4;
		unsigned char bytes[3];
		uint32_t bits = 0;

		for (size_t j = 0; j < 4; j++) {
			const char *digit =
				j < digits ? memchr(base64_digits, text[i + j], 64) : base64_digits;

			if (digit == NULL)
				return -1;
			bits = bits << 6 | (uint32_t) (digit - base64_digits);
		}
		bytes[0] = (unsigned char) (bits >> 16);
		bytes[1] = (unsigned char) (bits >> 8);
		bytes[2] = (unsigned char) bits;
		buf_append(ret, bytes, digits - 1);
	}
	return 0;
}

/* The length of the UTF-8 character at data, or 0 when there is none. */
static size_t
character_length(const unsigned char *data, size_t size)
{
	size_t length = data[0] < 0x80 ? 1 : data[0] < 0xe0 ? 2 : data[0] < 0xf0 ? 3 : 4;

	return length <= size && text_is_utf8(data, length) ? length : 0;
}

/* The text as far as it is UTF-8, with U+FFFD for each byte that is not. */
static json_t *
text_lossy(const unsigned char *data, size_t size)
{
	AUTO_BUF struct buf text = {0};

	while (size > 0) {
		size_t length = character_length(data, size);

		if (length > 0)
			buf_append(&text, data, length);
		else
			buf_string(&text, "\xef\xbf\xbd");
		data += length > 0 ? length : 1;
		size -= length > 0 ? length : 1;
	}
	if (buf_check(&text, NULL) < 0)
		return NULL;
	return json_stringn(text.data != NULL ? text.data : "", text.size);
}

/* -------------------------------------------------------------------------------------- put */

int
json_put_new(json_t *object, const char *key, json_t *value)
{
	if (object == NULL || value == NULL || json_object_set_new(object, key, value) < 0) {
		if (object == NULL)
			json_decref(value);
		put_failed = true;
		return -1;
	}
	return 0;
}

/* object[key_base64] = value */
static int
put_base64(json_t *object, const char *key, json_t *value)
{
	AUTO_BUF struct buf name = {0};

	buf_format(&name, "%s_base64", key);
	if (buf_check(&name, NULL) < 0) {
		json_decref(value);
		put_failed = true;
		return -1;
	}
	return json_put_new(object, name.data, value);
}

int
json_put_bytes(json_t *object, const char *key, const void *data, size_t size)
{
	if (text_is_utf8(data, size))
		return json_put_new(object, key, json_stringn(size > 0 ? data : "", size));
	if (json_put_new(object, key, text_lossy(data, size)) < 0)
		return -1;
	return put_base64(object, key, base64_encode(data, size));
}

int
json_put_text(json_t *object, const char *key, const char *text)
{
	if (text == NULL)
		return json_put_null(object, key);
	return json_put_bytes(object, key, text, strlen(text));
}

int
json_put_int(json_t *object, const char *key, int64_t value)
{
	return json_put_new(object, key, json_integer(value));
}

int
json_put_bool(json_t *object, const char *key, bool value)
{
	return json_put_new(object, key, json_boolean(value));
}

int
json_put_null(json_t *object, const char *key)
{
	return json_put_new(object, key, json_null());
}

int
json_put_time(json_t *object, const char *key, int64_t time_ns)
{
	char text[40];

	if (time_ns == 0)
		return json_put_null(object, key);
	return json_put_new(object, key, json_string(text_time(text, time_ns)));
}

static int
append(json_t *array, json_t *value)
{
	if (array == NULL || value == NULL || json_array_append_new(array, value) < 0) {
		if (array == NULL)
			json_decref(value);
		put_failed = true;
		return -1;
	}
	return 0;
}

int
json_put_list(json_t *object, const char *key, const char *const *list)
{
	AUTO_JSON json_t *texts = json_array(), *bytes = json_array();
	bool all_utf8 = true;

	for (; list != NULL && *list != NULL; list++) {
		const unsigned char *data = (const unsigned char *) *list;
		size_t size = strlen(*list);

		all_utf8 = all_utf8 && text_is_utf8(data, size);
		if (append(texts, text_lossy(data, size)) < 0 ||
		    append(bytes, base64_encode(data, size)) < 0)
			return -1;
	}
	if (json_put_new(object, key, json_incref(texts)) < 0)
		return -1;
	return all_utf8 ? 0 : put_base64(object, key, json_incref(bytes));
}

/* -------------------------------------------------------------------------------------- get */

const char *
json_get_text(const json_t *object, const char *key, const char *def)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text != NULL ? text : def;
}

int64_t
json_get_int(const json_t *object, const char *key, int64_t def)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? json_integer_value(value) : def;
}

bool
json_get_bool(const json_t *object, const char *key, bool def)
{
	const json_t *value = json_object_get(object, key);

	return json_is_boolean(value) ? json_is_true(value) : def;
}

/* The nanoseconds of ".123456789Z", or -1. */
static int64_t
parse_fraction(const char *text)
{
	int64_t ns = 0, unit = NS_PER_SECOND / 10;

	if (*text == '.') {
		for (text++; *text >= '0' && *text <= '9'; text++, unit /= 10)
			ns += (*text - '0') * unit;
	}
	return strcmp(text, "Z") == 0 ? ns : -1;
}

int64_t
json_get_time(const json_t *object, const char *key)
{
	const char *text = json_get_text(object, key, "");
	struct tm tm = {0};
	int64_t fraction;
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (end == NULL || (fraction = parse_fraction(end)) < 0)
		return 0;
	/* Years that int64_t nanoseconds hold. */
	if (tm.tm_year < 1700 - 1900 || tm.tm_year > 2261 - 1900)
		return 0;
	return (int64_t) timegm(&tm) * NS_PER_SECOND + fraction;
}

char *
json_get_bytes(const json_t *object, const char *key, size_t *ret_size)
{
	AUTO_BUF struct buf name = {0}, bytes = {0};
	const json_t *text = json_object_get(object, key);
	const char *encoded;

	buf_format(&name, "%s_base64", key);
	if (!json_is_string(text) || buf_check(&name, NULL) < 0)
		return NULL;
	encoded = json_get_text(object, name.data, NULL);
	if (encoded == NULL)
		buf_append(&bytes, json_string_value(text), json_string_length(text));
	else if (base64_decode(encoded, &bytes) < 0)
		return NULL;
	if (ret_size != NULL)
		*ret_size = bytes.size;
	return buf_steal(&bytes);
}

static char *
list_item(const json_t *texts, const json_t *bytes, size_t index)
{
	AUTO_BUF struct buf decoded = {0};
	const json_t *text = json_array_get(texts, index);

	if (bytes == NULL)
		return json_is_string(text) ? strdup(json_string_value(text)) : NULL;
	text = json_array_get(bytes, index);
	if (!json_is_string(text) || base64_decode(json_string_value(text), &decoded) < 0)
		return NULL;
	return buf_steal(&decoded);
}

char **
json_get_list(const json_t *object, const char *key)
{
	AUTO_BUF struct buf name = {0};
	const json_t *texts = json_object_get(object, key);
	size_t count = json_array_size(texts);
	char **list;

	buf_format(&name, "%s_base64", key);
	if (!json_is_array(texts) || buf_check(&name, NULL) < 0)
		return NULL;
	list = calloc(count + 1, sizeof(*list));
	for (size_t i = 0; list != NULL && i < count; i++) {
		list[i] = list_item(texts, json_object_get(object, name.data), i);
		if (list[i] != NULL)
			continue;
		while (i-- > 0)
			free(list[i]);
		free(list);
		return NULL;
	}
	return list;
}

/* -------------------------------------------------------------------------------- documents */

/* jansson leaves DEL, C1 and bidirectional controls as they are; a terminal must not see them. They
 * occur in strings only, so they can be replaced in the finished text.  Returns the length of such
 * a character at p, with its number. */
static size_t
hazard_at(const unsigned char *p, unsigned *ret)
{
	if (p[0] == 0x7f) {
		*ret = 0x7f;
		return 1;
	}
	if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) {
		*ret = p[1];
		return 2;
	}
	if (p[0] == 0xd8 && p[1] == 0x9c) {
		*ret = 0x061c;
		return 2;
	}
	if (p[0] == 0xe2 && (p[1] == 0x80 || p[1] == 0x81)) {
		unsigned c = 0x2000u + (p[1] & 0x3fu) * 64 + (p[2] & 0x3fu);

		*ret = c;
		if (c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
		    (c >= 0x2066 && c <= 0x2069))
			return 3;
	}
	return 0;
}

char *
json_text(const json_t *json, bool compact, struct moat_error *err)
{
	AUTO_BUF struct buf text = {0};
	AUTO_FREE char *dumped = NULL;
	const char *start, *p;

	if (!put_failed && json != NULL)
		dumped = json_dumps(json,
				    (compact ? JSON_COMPACT : JSON_INDENT(2)) | JSON_ENCODE_ANY);
	put_failed = false;
	if (dumped == NULL) {
		(void) moat_fail_memory(err);
		return NULL;
	}
	for (start = p = dumped; *p != '\0';) {
		unsigned c = 0;
		size_t length = hazard_at((const unsigned char *) p, &c);

		if (length > 0) {
			buf_append(&text, start, (size_t) (p - start));
			buf_format(&text, "\\u%04x", c);
			start = p + length;
		}
		p += length > 0 ? length : 1;
	}
	buf_string(&text, start);
	buf_string(&text, "\n");
	if (buf_check(&text, err) < 0)
		return NULL;
	return buf_steal(&text);
}

int
json_print(const json_t *json, bool compact, struct moat_error *err)
{
	AUTO_FREE char *text = json_text(json, compact, err);

	if (text == NULL)
		return -1;
	out("%s", text);
	return stdout_check(err);
}

int
json_read(int dirfd, const char *name, const char *what, json_t **ret, struct moat_error *err)
{
	AUTO_FREE char *text = NULL;
	size_t size;
	json_error_t problem;
	json_t *json;

	if (fs_read(dirfd, name, JSON_FILE_MAX, &text, &size, err) < 0)
		return moat_wrap(err, "%s", what);
	json = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
	if (json == NULL && json_error_code(&problem) == json_error_out_of_memory)
		return moat_fail_memory(err);
	if (json == NULL)
		return moat_fail(err, MOAT_CORRUPT, "%s: `%s' is damaged: line %d: %s", what, name,
				 problem.line, problem.text);
	if (!json_is_object(json)) {
		json_decref(json);
		return moat_fail(err, MOAT_CORRUPT, "%s: `%s' is damaged: not an object", what,
				 name);
	}
	*ret = json;
	return 0;
}

int
json_write(int dirfd, const char *name, const json_t *json, struct moat_error *err)
{
	AUTO_FREE char *text = json_text(json, false, err);

	if (text == NULL)
		return -1;
	return fs_write_atomic(dirfd, name, text, strlen(text), 0600, err);
}
