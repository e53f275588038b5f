/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest as a file: reading.  The form is told at the top of manifest_write.c. */
#include <stdlib.h>
#include <string.h>

#include "common/manifest_internal.h"

/* Bytes of the shortest entry of a difference. */
#define ENTRY_LEAST 16
#define ID_CHARACTERS "abcdefghijklmnopqrstuvwxyz_0123456789"

/* Reads on; the first thing that is wrong stays in `wrong`, and from then on all is zero. */
struct reader {
	const unsigned char *at, *end;
	const char *wrong;
	bool no_memory;
	struct manifest *manifest;
	uint64_t paths; /* bytes of all paths so far */
};

static void
refuse(struct reader *reader, const char *why)
{
	if (reader->wrong == NULL)
		reader->wrong = why;
	reader->at = reader->end;
}

static void
refuse_memory(struct reader *reader)
{
	refuse(reader, "out of memory");
	reader->no_memory = true;
}

static uint64_t
get_number(struct reader *reader)
{
	uint64_t value = 0;
	unsigned char byte;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		if (reader->at == reader->end) {
			refuse(reader, "it ends too early");
			return 0;
		}
		byte = *reader->at++;
		if ((shift == 63 && byte > 1) || (shift > 0 && byte == 0))
			break;
		value |= (uint64_t) (byte & 0x7f) << shift;
		if (byte < 0x80)
			return value;
	}
	refuse(reader, "a number is malformed");
	return 0;
}

static uint64_t
get_limited(struct reader *reader, uint64_t max, const char *why)
{
	uint64_t value = get_number(reader);

	if (value <= max)
		return value;
	refuse(reader, why);
	return 0;
}

static int64_t
get_signed(struct reader *reader)
{
	uint64_t value = get_number(reader);

	return (int64_t) ((value & 1) != 0 ? ~(value >> 1) : value >> 1);
}

/* The number of items that follow, each of at least `least` bytes. */
static size_t
get_count(struct reader *reader, size_t least)
{
	uint64_t count = get_number(reader);

	if (count <= (uint64_t) (reader->end - reader->at) / least)
		return (size_t) count;
	refuse(reader, "a count is too large");
	return 0;
}

static const void *
get_bytes(struct reader *reader, size_t size)
{
	const void *bytes = reader->at;

	if (size > (size_t) (reader->end - reader->at)) {
		refuse(reader, "it ends too early");
		return NULL;
	}
	reader->at += size;
	return bytes;
}

/* Bytes without NUL inside, copied; never NULL. */
static const char *
get_string(struct reader *reader, size_t *ret_size)
{
	size_t size = get_count(reader, 1);
	const void *bytes = get_bytes(reader, size);
	const char *copy;

	*ret_size = 0;
	if (bytes == NULL || reader->wrong != NULL)
		return "";
	if (memchr(bytes, '\0', size) != NULL) {
		refuse(reader, "a name contains a NUL");
		return "";
	}
	copy = arena_copy(&reader->manifest->arena, bytes, size);
	if (copy == NULL) {
		refuse_memory(reader);
		return "";
	}
	*ret_size = size;
	return copy;
}

static void
get_notes(struct reader *reader)
{
	struct manifest *manifest = reader->manifest;
	size_t count = get_count(reader, 2), size;

	manifest->notes = calloc(count + 1, sizeof *manifest->notes);
	if (manifest->notes == NULL) {
		refuse_memory(reader);
		return;
	}
	manifest->note_allocated = count + 1;
	for (; manifest->note_count < count && reader->wrong == NULL; manifest->note_count++) {
		struct manifest_note *note = &manifest->notes[manifest->note_count];

		note->key = get_string(reader, &size);
		note->value = get_string(reader, &size);
	}
}

static void
get_rules(struct reader *reader)
{
	struct manifest *manifest = reader->manifest;
	size_t count = get_count(reader, 3), size;

	manifest->rules = calloc(count + 1, sizeof *manifest->rules);
	if (manifest->rules == NULL) {
		refuse_memory(reader);
		return;
	}
	manifest->rule_allocated = count + 1;
	for (; manifest->rule_count < count && reader->wrong == NULL; manifest->rule_count++) {
		struct manifest_rule *rule = &manifest->rules[manifest->rule_count];
		const void *text;

		rule->source = (int) get_limited(reader, 255, "a rule's source is unknown");
		rule->directory = get_string(reader, &size);
		rule->size = get_count(reader, 1);
		text = get_bytes(reader, rule->size);
		if (text == NULL)
			return;
		rule->text = arena_copy(&manifest->arena, text, rule->size);
		if (rule->text == NULL)
			refuse_memory(reader);
	}
}

/* A name that can be in a directory. */
static bool
is_component(const char *name, size_t size)
{
	return size > 0 && memchr(name, '/', size) == NULL && !(size == 1 && name[0] == '.') &&
	       !(size == 2 && name[0] == '.' && name[1] == '.');
}

static bool
is_relative_path(const char *path)
{
	size_t length;

	for (; *path != '\0'; path += length + (path[length] == '/')) {
		length = strcspn(path, "/");
		if (!is_component(path, length) ||
		    (path[length] == '/' && path[length + 1] == '\0'))
			return false;
	}
	return true;
}

static void
get_skips(struct reader *reader)
{
	struct manifest *manifest = reader->manifest;
	size_t count = get_count(reader, 3), size;

	manifest->skips = calloc(count + 1, sizeof *manifest->skips);
	if (manifest->skips == NULL) {
		refuse_memory(reader);
		return;
	}
	manifest->skip_allocated = count + 1;
	for (; manifest->skip_count < count && reader->wrong == NULL; manifest->skip_count++) {
		struct manifest_skip *skip = &manifest->skips[manifest->skip_count];

		skip->reason =
			(int) get_limited(reader, SKIP_RESERVED, "a skip's reason is unknown");
		skip->path = get_string(reader, &size);
		skip->detail = get_string(reader, &size);
		if (!is_relative_path(skip->path) || skip->reason == 0)
			refuse(reader, "a skip is not of a path in the workspace");
		else if (manifest->skip_count > 0 &&
			 manifest_compare(skip[-1].path, skip->path) > 0)
			refuse(reader, "skips are not in order");
	}
}

/* A path that begins as the one before it in its list does, and comes after it.  NULL before: the
 * first. */
static const char *
get_path(struct reader *reader, const char *before)
{
	size_t before_size = before == NULL ? 0 : strlen(before), shared, size;
	const char *rest;
	char *path;

	shared = (size_t) get_limited(reader, before_size, "a path shares too much");
	size = get_count(reader, 1);
	rest = get_bytes(reader, size);
	reader->paths += shared + size;
	if (rest == NULL || memchr(rest, '\0', size) != NULL ||
	    reader->paths > MANIFEST_PATHS_MAX) {
		refuse(reader, reader->paths > MANIFEST_PATHS_MAX ? "the paths are too long"
								  : "a path contains a NUL");
		return "";
	}
	path = arena_alloc(&reader->manifest->arena, shared + size + 1);
	if (path == NULL) {
		refuse_memory(reader);
		return "";
	}
	if (shared > 0)
		memcpy(path, before, shared);
	memcpy(path + shared, rest, size);
	if (before != NULL && manifest_compare(before, path) >= 0)
		refuse(reader, "paths are not in order");
	return path;
}

/* Whether an entry is in its place is checked against the one before it alone: by induction all of
 * that one's parents are there and are directories, so this one's parent is either among them, or
 * is the one before itself. */
static void
check_place(struct reader *reader, const struct moat_entry *before, const struct moat_entry *entry)
{
	const char *path = entry->path, *slash = strrchr(path, '/');
	const char *name = slash == NULL ? path : slash + 1;
	size_t parent = slash == NULL ? 0 : (size_t) (slash - path);

	if (before == NULL) {
		if (path[0] != '\0' || entry->type != MOAT_DIRECTORY)
			refuse(reader, "the first entry is not the root");
		return;
	}
	if (slash == path || !is_component(name, strlen(name)))
		refuse(reader, "a path has an empty component, \".\" or \"..\"");
	else if (slash != NULL &&
		 (strncmp(before->path, path, parent) != 0 ||
		  (before->path[parent] != '/' &&
		   !(before->path[parent] == '\0' && before->type == MOAT_DIRECTORY))))
		refuse(reader, "the directory of a path is missing");
}

static void
get_xattrs(struct reader *reader, struct moat_entry *entry)
{
	AUTO_BUF struct buf list = {0};
	size_t count = get_count(reader, 2);

	for (size_t i = 0; i < count && reader->wrong == NULL; i++) {
		size_t name_size = get_count(reader, 1), size;
		const char *name = get_bytes(reader, name_size), *value;
		uint32_t stored;

		size = get_count(reader, 1);
		value = get_bytes(reader, size);
		stored = (uint32_t) size;
		if (name == NULL || value == NULL || name_size == 0 || stored != size ||
		    memchr(name, '\0', name_size) != NULL) {
			refuse(reader, "an extended attribute is malformed");
			return;
		}
		buf_append(&list, name, name_size);
		buf_append(&list, "", 1);
		buf_append(&list, &stored, sizeof stored);
		buf_append(&list, value, size);
	}
	if ((list.size == 0 && !list.failed) || reader->wrong != NULL)
		return;
	entry->xattrs = list.failed || list.size > UINT32_MAX
				? NULL
				: arena_copy(&reader->manifest->arena, list.data, list.size);
	entry->xattrs_size = (uint32_t) list.size;
	if (entry->xattrs == NULL)
		refuse_memory(reader);
}

/* Files and links with several names: the leader is an earlier one of its type that has none. */
static void
get_leader(struct reader *reader, struct moat_entry *entry)
{
	const struct manifest *manifest = reader->manifest;
	uint64_t leader = get_number(reader) - 1;

	entry->leader = leader;
	if (leader == MOAT_NO_LEADER)
		return;
	if (entry->type == MOAT_DIRECTORY || leader >= manifest->count ||
	    manifest->entries[leader]->type != entry->type ||
	    manifest->entries[leader]->leader != MOAT_NO_LEADER)
		refuse(reader, "a hard link leads nowhere");
}

/* before: the one before it in its list, or NULL. */
static void
get_entry(struct reader *reader, struct moat_entry *entry, const struct moat_entry *before,
	  bool whole)
{
	const uint64_t nsec_max = 999999999;
	const void *hash;
	size_t size = 1;

	entry->path = get_path(reader, before == NULL ? NULL : before->path);
	entry->type = (uint8_t) get_limited(reader, MOAT_SYMLINK, "an entry's type is unknown");
	entry->flags =
		(uint16_t) get_limited(reader, MOAT_HAS_HASH | MOAT_HAS_LOCATOR | MOAT_IS_SPARSE,
				       "an entry's flags are unknown");
	entry->mode = (uint32_t) get_limited(reader, 07777, "a mode is malformed");
	entry->uid = (uint32_t) get_limited(reader, UINT32_MAX, "an owner is malformed");
	entry->gid = (uint32_t) get_limited(reader, UINT32_MAX, "a group is malformed");
	entry->size = get_limited(reader, INT64_MAX, "a size is malformed");
	entry->mtime_sec = get_signed(reader);
	entry->mtime_nsec = (uint32_t) get_limited(reader, nsec_max, "a time is malformed");
	entry->ctime_sec = get_signed(reader);
	entry->ctime_nsec = (uint32_t) get_limited(reader, nsec_max, "a time is malformed");
	entry->dev = get_number(reader);
	entry->ino = get_number(reader);
	entry->nlink = get_number(reader);
	entry->leader = MOAT_NO_LEADER;
	if (whole) {
		check_place(reader, before, entry);
		get_leader(reader, entry);
	}
	if (entry->type == MOAT_SYMLINK)
		entry->link_target = get_string(reader, &size);
	if (entry->type == 0 || size == 0)
		refuse(reader, "an entry is malformed");
	get_xattrs(reader, entry);
	for (size_t i = 0; i < 3 && (entry->flags & MOAT_HAS_LOCATOR) != 0; i++)
		entry->locator[i] = get_number(reader);
	if ((entry->flags & MOAT_HAS_HASH) == 0)
		return;
	hash = get_bytes(reader, MOAT_HASH_SIZE);
	if (hash != NULL)
		memcpy(entry->hash, hash, MOAT_HASH_SIZE);
}

/* The entries of a whole manifest. */
static void
get_entries(struct reader *reader)
{
	struct manifest *manifest = reader->manifest;
	const struct moat_entry *before = NULL;
	size_t count = get_count(reader, ENTRY_LEAST + 1);
	struct moat_entry *entries = arena_alloc(&manifest->arena, count * sizeof *entries);

	manifest->entries = calloc(count + 1, sizeof *manifest->entries);
	if (entries == NULL || manifest->entries == NULL) {
		refuse_memory(reader);
		return;
	}
	manifest->allocated = count + 1;
	while (manifest->count < count && reader->wrong == NULL) {
		get_entry(reader, &entries[manifest->count], before, true);
		before = &entries[manifest->count];
		manifest->entries[manifest->count++] = before;
	}
}

/* ---------------------------------------------------------------------------------- differences */

/* What a difference says, before it is applied. */
struct changes {
	const char **removed;
	struct moat_entry *changed; /* of the arena */
	size_t removed_count, changed_count;
};

static void
get_changes(struct reader *reader, struct changes *ret)
{
	const struct moat_entry *before = NULL;
	const char *last = NULL;
	size_t count = get_count(reader, 2);

	ret->removed = calloc(count + 1, sizeof *ret->removed);
	if (ret->removed == NULL)
		refuse_memory(reader);
	for (; reader->wrong == NULL && ret->removed_count < count; ret->removed_count++)
		last = ret->removed[ret->removed_count] = get_path(reader, last);
	count = get_count(reader, ENTRY_LEAST);
	ret->changed = arena_alloc(&reader->manifest->arena, count * sizeof *ret->changed);
	if (ret->changed == NULL)
		refuse_memory(reader);
	for (; reader->wrong == NULL && ret->changed_count < count; ret->changed_count++) {
		get_entry(reader, &ret->changed[ret->changed_count], before, false);
		before = &ret->changed[ret->changed_count];
	}
}

/* An entry of the base that stays.  Those with several names get new leaders, so they are copied.
 */
static void
keep_entry(struct reader *reader, struct manifest *base, const struct moat_entry *entry)
{
	struct manifest *manifest = reader->manifest;
	bool several = entry->nlink > 1 && entry->type != MOAT_DIRECTORY;

	if (several ? manifest_add(manifest, entry) == NULL
		    : manifest_add_shared(manifest, base, entry, NULL) < 0)
		refuse_memory(reader);
}

static void
add_changed(struct reader *reader, const struct moat_entry *entry)
{
	if (manifest_add_shared(reader->manifest, NULL, entry, NULL) < 0)
		refuse_memory(reader);
}

/* All three lists are in order. */
static void
apply_changes(struct reader *reader, struct manifest *base, const struct changes *changes)
{
	size_t r = 0, c = 0;

	for (size_t b = 0; b < base->count && reader->wrong == NULL; b++) {
		const char *path = base->entries[b]->path;
		int order = -1;

		if (r < changes->removed_count) {
			order = manifest_compare(changes->removed[r], path);
			if (order < 0)
				refuse(reader, "it removes what the base does not have");
			if (order == 0) {
				r++;
				continue;
			}
		}
		for (; c < changes->changed_count; c++) {
			order = manifest_compare(changes->changed[c].path, path);
			if (order >= 0)
				break;
			add_changed(reader, &changes->changed[c]);
		}
		if (c < changes->changed_count && order == 0)
			add_changed(reader, &changes->changed[c++]);
		else
			keep_entry(reader, base, base->entries[b]);
	}
	for (; c < changes->changed_count; c++)
		add_changed(reader, &changes->changed[c]);
	if (r < changes->removed_count)
		refuse(reader, "it removes what the base does not have");
}

static void
get_difference(struct reader *reader, struct manifest *base)
{
	struct manifest *manifest = reader->manifest;
	struct changes changes = {0};

	get_changes(reader, &changes);
	if (reader->wrong == NULL) {
		manifest->shared = manifest_reference(base);
		apply_changes(reader, base, &changes);
	}
	free(changes.removed);
	for (size_t i = 0; i < manifest->count && reader->wrong == NULL; i++)
		check_place(reader, i == 0 ? NULL : manifest->entries[i - 1], manifest->entries[i]);
	if (reader->wrong == NULL && manifest->count == 0)
		refuse(reader, "nothing is left of the base");
	if (reader->wrong == NULL && manifest_seal(manifest, NULL) < 0)
		refuse_memory(reader);
}

/* ----------------------------------------------------------------------------------------- both */

static bool
has_magic(const void *data, size_t size, const char *magic)
{
	return size >= MANIFEST_MAGIC_SIZE + MOAT_HASH_SIZE &&
	       memcmp(data, magic, MANIFEST_MAGIC_SIZE) == 0;
}

int
manifest_base(const void *data, size_t size, char ret_id[MANIFEST_ID_MAX], struct moat_error *err)
{
	const unsigned char *bytes = data;
	size_t length;

	if (has_magic(data, size, MANIFEST_MAGIC))
		return 0;
	if (!has_magic(data, size, MANIFEST_DIFFERENCE_MAGIC))
		return moat_fail(err, MOAT_CORRUPT, "manifest: not a manifest of this version");
	length = bytes[MANIFEST_MAGIC_SIZE];
	if (length == 0 || length >= MANIFEST_ID_MAX ||
	    size < MANIFEST_MAGIC_SIZE + 1 + length + MOAT_HASH_SIZE ||
	    strspn((const char *) bytes + MANIFEST_MAGIC_SIZE + 1, ID_CHARACTERS) < length)
		return moat_fail(err, MOAT_CORRUPT, "manifest: malformed: its base has no name");
	memcpy(ret_id, bytes + MANIFEST_MAGIC_SIZE + 1, length);
	ret_id[length] = '\0';
	return 1;
}

/* The id has been looked at by manifest_base(). */
static int
check_base(struct reader *reader, const struct manifest *base, struct moat_error *err)
{
	size_t length = get_count(reader, 1);
	const void *digest;

	(void) get_bytes(reader, length);
	digest = get_bytes(reader, MOAT_HASH_SIZE);
	if (base == NULL)
		return moat_fail(err, MOAT_CORRUPT, "manifest: it needs its base");
	if (digest == NULL || !base->has_digest ||
	    memcmp(digest, base->digest, MOAT_HASH_SIZE) != 0)
		return moat_fail(err, MOAT_CORRUPT,
				 "manifest: its base is not the one that it was made from");
	return 0;
}

int
manifest_decode(const void *data, size_t size, struct manifest **ret, struct moat_error *err)
{
	return manifest_decode_with(data, size, NULL, ret, err);
}

int
manifest_decode_with(const void *data, size_t size, struct manifest *base, struct manifest **ret,
		     struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *manifest = manifest_new();
	struct reader reader = {.manifest = manifest};
	char id[MANIFEST_ID_MAX];
	int difference = manifest_base(data, size, id, err);

	if (manifest == NULL)
		return moat_fail_memory(err);
	if (difference < 0)
		return -1;
	reader.at = (const unsigned char *) data + MANIFEST_MAGIC_SIZE;
	reader.end = (const unsigned char *) data + size - MOAT_HASH_SIZE;
	manifest_digest(data, size - MOAT_HASH_SIZE, manifest->digest);
	if (memcmp(reader.end, manifest->digest, MOAT_HASH_SIZE) != 0)
		return moat_fail(err, MOAT_CORRUPT, "manifest: damaged: its checksum is wrong");
	manifest->has_digest = true;
	manifest->encoded_size = size;
	if (difference > 0 && check_base(&reader, base, err) < 0)
		return -1;
	manifest->filter_flags =
		(uint32_t) get_limited(&reader, UINT32_MAX, "the filter's flags are malformed");
	manifest->started_ns = get_signed(&reader);
	get_notes(&reader);
	get_rules(&reader);
	get_skips(&reader);
	if (difference > 0)
		get_difference(&reader, base);
	else
		get_entries(&reader);
	if (reader.at != reader.end)
		refuse(&reader, "something follows its end");
	if (reader.no_memory)
		return moat_fail_memory(err);
	if (reader.wrong != NULL)
		return moat_fail(err, MOAT_CORRUPT, "manifest: malformed: %s", reader.wrong);
	*ret = STEAL(manifest);
	return 0;
}
