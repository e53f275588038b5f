/* SPDX-License-Identifier: Apache-2.0 */
/* Reading back the header of a regular file.  The bytes come from a file that may be damaged, or
 * forged: nothing is believed, and nothing grows with a number that was read. */
#include <stdlib.h>
#include <string.h>

#include "common/tar.h"

/* What an extended header says that matters for the content. */
struct pax {
	bool has_size, has_real_size;
	uint64_t size, real_size, major, minor;
};

void
tar_file_free(struct tar_file *file)
{
	sparse_map_free(&file->map);
}

static int
corrupt(struct moat_error *err, const char *what)
{
	return moat_fail(err, MOAT_CORRUPT, "the tar header is damaged: %s", what);
}

static int
parse_octal(const char *field, size_t width, uint64_t *ret, struct moat_error *err)
{
	uint64_t value = 0;

	for (size_t i = 0; i + 1 < width; i++) {
		if (field[i] < '0' || field[i] > '7')
			return corrupt(err, "not an octal number");
		value = value * 8 + (uint64_t) (field[i] - '0');
	}
	*ret = value;
	return 0;
}

/* All of `text` is one decimal number, at most INT64_MAX: a size or an offset. */
static int
parse_decimal(const char *text, size_t size, uint64_t *ret, struct moat_error *err)
{
	uint64_t value = 0;

	if (size == 0 || size > 19)
		return corrupt(err, "not a decimal number");
	for (size_t i = 0; i < size; i++) {
		if (text[i] < '0' || text[i] > '9')
			return corrupt(err, "not a decimal number");
		value = value * 10 + (uint64_t) (text[i] - '0');
	}
	if (value > INT64_MAX)
		return corrupt(err, "a number is too large");
	*ret = value;
	return 0;
}

static int
read_block(const struct tar_source *source, struct tar_block *ret, uint64_t *ret_size,
	   struct moat_error *err)
{
	uint64_t sum = 0;

	if (source->read(source->context, ret, sizeof *ret, err) < 0)
		return -1;
	if (memcmp(ret->magic, "ustar", 6) != 0 || memcmp(ret->version, "00", 2) != 0)
		return corrupt(err, "there is none at this place");
	if (parse_octal(ret->chksum, sizeof ret->chksum - 1, &sum, err) < 0)
		return -1;
	if (sum != tar_checksum(ret))
		return corrupt(err, "wrong checksum");
	return parse_octal(ret->size, sizeof ret->size, ret_size, err);
}

static bool
key_is(const char *key, size_t size, const char *name)
{
	return strlen(name) == size && memcmp(key, name, size) == 0;
}

static int
take_record(struct pax *pax, const char *key, size_t key_size, const char *value, size_t size,
	    struct moat_error *err)
{
	if (key_is(key, key_size, "size")) {
		pax->has_size = true;
		return parse_decimal(value, size, &pax->size, err);
	}
	if (key_is(key, key_size, "GNU.sparse.realsize")) {
		pax->has_real_size = true;
		return parse_decimal(value, size, &pax->real_size, err);
	}
	if (key_is(key, key_size, "GNU.sparse.major"))
		return parse_decimal(value, size, &pax->major, err);
	if (key_is(key, key_size, "GNU.sparse.minor"))
		return parse_decimal(value, size, &pax->minor, err);
	return 0;
}

/* Takes one record off the front of *text. */
static int
next_record(struct pax *pax, const char **text, size_t *left, struct moat_error *err)
{
	const char *blank = memchr(*text, ' ', *left < 20 ? *left : 20);
	const char *key, *end, *equals;
	uint64_t length;

	if (blank == NULL)
		return corrupt(err, "a record without length");
	if (parse_decimal(*text, (size_t) (blank - *text), &length, err) < 0)
		return -1;
	key = blank + 1;
	if (length > *left || length < (uint64_t) (key - *text) + 1)
		return corrupt(err, "a record with a wrong length");
	end = *text + length - 1;
	if (*end != '\n')
		return corrupt(err, "a record without end");
	equals = memchr(key, '=', (size_t) (end - key));
	if (equals == NULL)
		return corrupt(err, "a record without value");
	if (take_record(pax, key, (size_t) (equals - key), equals + 1, (size_t) (end - equals - 1),
			err) < 0)
		return -1;
	*left -= (size_t) length;
	*text += length;
	return 0;
}

static int
read_pax(const struct tar_source *source, uint64_t size, struct pax *pax, struct moat_error *err)
{
	size_t padded = (size_t) (size + tar_padding(size)), left = (size_t) size;
	AUTO_FREE char *text = NULL;
	const char *at;

	if (size > TAR_PAX_MAX)
		return corrupt(err, "an extended header of absurd size");
	text = malloc(padded + 1);
	if (text == NULL)
		return moat_fail_memory(err);
	if (source->read(source->context, text, padded, err) < 0)
		return -1;
	for (at = text; left > 0;)
		if (next_record(pax, &at, &left, err) < 0)
			return -1;
	return 0;
}

/* One decimal line of a map.  *used counts the bytes taken. */
static int
read_line(const struct tar_source *source, uint64_t *used, uint64_t *ret, struct moat_error *err)
{
	char text[24];
	size_t n = 0;

	for (;;) {
		if (source->read(source->context, text + n, 1, err) < 0)
			return -1;
		++*used;
		if (text[n] == '\n')
			return parse_decimal(text, n, ret, err);
		if (++n == sizeof text)
			return corrupt(err, "a line of the map of holes does not end");
	}
}

static int
read_map(const struct tar_source *source, uint64_t stored, struct tar_file *file,
	 struct moat_error *err)
{
	uint64_t used = 0, count, offset, size, end = 0;
	char rest[TAR_BLOCK];

	if (read_line(source, &used, &count, err) < 0)
		return -1;
	if (count > SPARSE_MAX)
		return corrupt(err, "a map of holes of absurd size");
	for (; count > 0; count--) {
		if (read_line(source, &used, &offset, err) < 0 ||
		    read_line(source, &used, &size, err) < 0)
			return -1;
		if (offset < end || offset > file->size || size > file->size - offset)
			return corrupt(err, "a map of holes that is out of order");
		if (sparse_map_add(&file->map, offset, size, err) < 0)
			return -1;
		end = offset + size;
	}
	if (source->read(source->context, rest, (size_t) tar_padding(used), err) < 0)
		return -1;
	if (end != file->size || used + tar_padding(used) + sparse_map_data(&file->map) != stored)
		return corrupt(err, "a map of holes that does not fit the size");
	return 0;
}

int
tar_read_file(const struct tar_source *source, struct tar_file *ret, struct moat_error *err)
{
	struct tar_block block;
	struct pax pax = {0};
	uint64_t size;

	if (read_block(source, &block, &size, err) < 0)
		return -1;
	if (block.typeflag == TAR_PAX) {
		if (read_pax(source, size, &pax, err) < 0 ||
		    read_block(source, &block, &size, err) < 0)
			return -1;
	}
	if (block.typeflag != TAR_FILE)
		return corrupt(err, "not a regular file");
	if (pax.has_size)
		size = pax.size;
	ret->sparse = pax.major == 1 && pax.minor == 0 && pax.has_real_size;
	ret->size = ret->sparse ? pax.real_size : size;
	if (ret->sparse)
		return read_map(source, size, ret, err);
	return sparse_map_add(&ret->map, 0, size, err);
}
