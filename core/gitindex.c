/* SPDX-License-Identifier: Apache-2.0 */
/* libgit2 reads an index as well; but loading it, and having it check the sum of an index of many
 * files, takes longer than a snapshot of what has not changed. */
#include "core/gitindex.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HASH 20
#define HEADER 12
#define STAT 40 /* times, numbers and size, before the hash */
#define MODE_AT 24
#define EXTENDED 0x4000u /* flag: two more bytes of flags */

/* What is left to read. */
struct cursor {
	const char *at, *end;
};

struct parsing {
	struct gitindex *index;
	struct cursor cursor;
	uint32_t version, count;
	size_t names_max; /* bytes of names that were put together */
	bool nameless;    /* an entry has no name: only those of a split index may */
};

static uint32_t
get_32(const char *at)
{
	const unsigned char *bytes = (const unsigned char *) at;

	return (uint32_t) bytes[0] << 24 | (uint32_t) bytes[1] << 16 | (uint32_t) bytes[2] << 8 |
	       bytes[3];
}

static int
corrupt(struct moat_error *err)
{
	return moat_fail(err, MOAT_CORRUPT, "it is damaged, or no index that is known here");
}

static size_t
left(const struct cursor *cursor)
{
	return (size_t) (cursor->end - cursor->at);
}

/* ------------------------------------------------------------------------------------- entries */

/* How many bytes of the name before are not in this one: as offsets of packs are encoded. */
static int
read_strip(struct cursor *cursor, size_t *ret)
{
	size_t value = 0;

	for (int i = 0; i < 4; i++) {
		unsigned char byte;

		if (left(cursor) == 0)
			return -1;
		byte = (unsigned char) *cursor->at++;
		value = (value << 7) + (byte & 0x7f);
		*ret = value;
		if ((byte & 0x80) == 0)
			return 0;
		value++;
	}
	return -1;
}

/* Version 4: the name is the beginning of the one before, and what follows here. */
static const char *
read_compressed_name(struct parsing *parsing, const char *before, struct moat_error *err)
{
	struct cursor *cursor = &parsing->cursor;
	size_t kept = strlen(before), strip, more;
	char *name;

	if (read_strip(cursor, &strip) < 0 || strip > kept ||
	    memchr(cursor->at, '\0', left(cursor)) == NULL) {
		(void) corrupt(err);
		return NULL;
	}
	kept -= strip;
	more = strlen(cursor->at) + 1;
	/* Names that are long on average are none that anybody has, but a way to fill memory. */
	if (parsing->index->names.used > parsing->names_max) {
		(void) corrupt(err);
		return NULL;
	}
	name = arena_alloc(&parsing->index->names, kept + more);
	if (name == NULL) {
		(void) moat_fail_memory(err);
		return NULL;
	}
	memcpy(name, before, kept);
	memcpy(name + kept, cursor->at, more);
	cursor->at += more;
	return name;
}

/* Versions 2 and 3: the name, and NULs up to a multiple of eight. */
static const char *
read_plain_name(struct parsing *parsing, const char *start, struct moat_error *err)
{
	struct cursor *cursor = &parsing->cursor;
	const char *name = cursor->at, *nul = memchr(name, '\0', left(cursor));
	size_t padded;

	if (nul == NULL) {
		(void) corrupt(err);
		return NULL;
	}
	padded = ((size_t) (nul - start) + 8) & ~(size_t) 7;
	if (padded > (size_t) (cursor->end - start)) {
		(void) corrupt(err);
		return NULL;
	}
	cursor->at = start + padded;
	return name;
}

static int
read_entry(struct parsing *parsing, const char *before, struct moat_error *err)
{
	struct cursor *cursor = &parsing->cursor;
	struct gitindex *index = parsing->index;
	struct gitindex_entry *entry = &index->entries[index->count];
	const char *start = cursor->at;
	size_t fixed = STAT + HASH + 2;

	if (left(cursor) < fixed)
		return corrupt(err);
	if ((get_32(start + STAT + HASH - 2) & EXTENDED) != 0)
		fixed += 2;
	if (left(cursor) < fixed)
		return corrupt(err);
	cursor->at += fixed;
	entry->mode = get_32(start + MODE_AT);
	entry->path = parsing->version == 4 ? read_compressed_name(parsing, before, err)
					    : read_plain_name(parsing, start, err);
	if (entry->path == NULL)
		return -1;
	if (entry->path[0] == '\0')
		parsing->nameless = true;
	/* One name may come several times, as stages of a conflict. */
	else if (strcmp(before, entry->path) > 0)
		return corrupt(err);
	index->count++;
	return 0;
}

/* ------------------------------------------------------------------------------------ the file */

/* Those with a small first letter must be understood. */
static int
read_extensions(struct parsing *parsing, struct moat_error *err)
{
	struct cursor *cursor = &parsing->cursor;

	while (left(cursor) > 0) {
		const char *name = cursor->at;
		uint32_t size;

		if (left(cursor) < 8)
			return corrupt(err);
		size = get_32(name + 4);
		cursor->at += 8;
		if (size > left(cursor))
			return corrupt(err);
		cursor->at += size;
		if (memcmp(name, "sdir", 4) == 0)
			parsing->index->sparse = true;
		else if (memcmp(name, "link", 4) == 0)
			return moat_fail(
				err, MOAT_UNSUPPORTED,
				"it is split; `git update-index --no-split-index' makes it "
				"whole");
		else if (name[0] < 'A' || name[0] > 'Z')
			return corrupt(err);
	}
	return 0;
}

static int
parse(struct parsing *parsing, size_t size, struct moat_error *err)
{
	struct gitindex *index = parsing->index;
	const char *data = index->data, *before = "";

	if (size < HEADER + HASH || memcmp(data, "DIRC", 4) != 0)
		return corrupt(err);
	parsing->version = get_32(data + 4);
	parsing->count = get_32(data + 8);
	parsing->cursor = (struct cursor){data + HEADER, data + size - HASH};
	parsing->names_max = size < SIZE_MAX / 64 ? size * 64 : SIZE_MAX;
	if (parsing->version < 2 || parsing->version > 4 ||
	    parsing->count > size / (STAT + HASH + 2))
		return corrupt(err);
	index->entries = calloc((size_t) parsing->count + 1, sizeof *index->entries);
	if (index->entries == NULL)
		return moat_fail_memory(err);
	for (uint32_t i = 0; i < parsing->count; i++) {
		if (read_entry(parsing, before, err) < 0)
			return -1;
		before = index->entries[i].path;
	}
	if (read_extensions(parsing, err) < 0)
		return -1;
	return parsing->nameless ? corrupt(err) : 0;
}

int
gitindex_parse(char *data, size_t size, struct gitindex **ret, struct moat_error *err)
{
	AUTO_GITINDEX struct gitindex *index = calloc(1, sizeof *index);
	struct parsing parsing = {.index = index};

	if (index == NULL) {
		free(data);
		return moat_fail_memory(err);
	}
	index->data = data;
	if (parse(&parsing, size, err) < 0)
		return -1;
	*ret = STEAL(index);
	return 0;
}

void
gitindex_free(struct gitindex *index)
{
	if (index == NULL)
		return;
	arena_free(&index->names);
	free(index->entries);
	free(index->data);
	free(index);
}

void
cleanup_gitindex(struct gitindex **index)
{
	gitindex_free(*index);
}

size_t
gitindex_position(const struct gitindex *index, const char *path)
{
	size_t low = 0, high = index->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(index->entries[middle].path, path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}
