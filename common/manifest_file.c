/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest as a file.
 *
 * A number is a varint: seven bits a byte, the lowest first, the highest bit set in all bytes but
 * the last, no needless bytes.  A signed one is folded before: 0, -1, 1, -2, ... become 0, 1, 2, 3.
 * Bytes are a number and as many bytes.  In this order:
 *
 *   "MOATMAN1"
 *   filter_flags, started_ns (signed)
 *   number of rules;   each: source, directory (bytes), text (bytes)
 *   number of skips;   each: reason, path (bytes), detail (bytes)
 *   number of entries; each:
 *     how many bytes of the path before it this path begins with, and the rest of it (bytes)
 *     type, status, flags, mode, uid, gid, size,
 *     mtime_sec (signed), mtime_nsec, ctime_sec (signed), ctime_nsec, dev, ino, nlink,
 *     leader + 1 (0: none)
 *     of a link: its text (bytes)
 *     number of extended attributes; each: name (bytes), value (bytes)
 *     with MOAT_HAS_LOCATOR: three numbers
 *     with MOAT_HAS_HASH: 32 bytes, as they are
 *   SHA-256 of all before it, 32 bytes
 *
 * Entries are in the order of manifest_compare(), the root first, no directory missing. */
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#include "common/manifest.h"

#define MAGIC "MOATMAN1"
#define MAGIC_SIZE 8

/* The paths of one manifest, put together.  A small file could otherwise ask for any amount of
 * memory, since a path costs only what it does not share with the one before. */
#define PATHS_MAX ((uint64_t) 256 * 1024 * 1024)

/* ----------------------------------------------------------------------------------- encoding */

static void
put_number(struct buf *out, uint64_t value)
{
	unsigned char bytes[10];
	size_t size = 0;

	for (; value >= 0x80; value >>= 7)
		bytes[size++] = (unsigned char) (value | 0x80);
	bytes[size++] = (unsigned char) value;
	buf_append(out, bytes, size);
}

static void
put_signed(struct buf *out, int64_t value)
{
	put_number(out, value < 0 ? ~((uint64_t) value << 1) : (uint64_t) value << 1);
}

static void
put_bytes(struct buf *out, const void *data, size_t size)
{
	put_number(out, size);
	buf_append(out, data, size);
}

/* Takes the next attribute from a list; false at its end. */
static bool
next_xattr(const char **position, const char *end, const char **name, const char **value,
	   uint32_t *size)
{
	size_t length;

	if (*position == end)
		return false;
	*name = *position;
	length = strnlen(*name, (size_t) (end - *name));
	if ((size_t) (end - *name) < length + 1 + sizeof *size)
		return false;
	memcpy(size, *name + length + 1, sizeof *size);
	*value = *name + length + 1 + sizeof *size;
	if ((size_t) (end - *value) < *size)
		return false;
	*position = *value + *size;
	return true;
}

static void
put_xattrs(struct buf *out, const struct moat_entry *entry)
{
	const char *start = entry->xattrs, *end, *position, *name, *value;
	uint64_t count = 0;
	uint32_t size;

	if (start == NULL) {
		put_number(out, 0);
		return;
	}
	end = start + entry->xattrs_size;
	for (position = start; next_xattr(&position, end, &name, &value, &size);)
		count++;
	put_number(out, count);
	for (position = start; next_xattr(&position, end, &name, &value, &size);) {
		put_bytes(out, name, strlen(name));
		put_bytes(out, value, size);
	}
}

static void
put_entry(struct buf *out, const struct moat_entry *entry, const char *before)
{
	size_t shared = 0;

	while (entry->path[shared] == before[shared] && before[shared] != '\0')
		shared++;
	put_number(out, shared);
	put_bytes(out, entry->path + shared, strlen(entry->path + shared));
	put_number(out, entry->type);
	put_number(out, entry->status);
	put_number(out, entry->flags);
	put_number(out, entry->mode);
	put_number(out, entry->uid);
	put_number(out, entry->gid);
	put_number(out, entry->size);
	put_signed(out, entry->mtime_sec);
	put_number(out, entry->mtime_nsec);
	put_signed(out, entry->ctime_sec);
	put_number(out, entry->ctime_nsec);
	put_number(out, entry->dev);
	put_number(out, entry->ino);
	put_number(out, entry->nlink);
	put_number(out, entry->leader + 1); /* MOAT_NO_LEADER + 1 is 0 */
	if (entry->type == MOAT_SYMLINK)
		put_bytes(out, entry->link_target, strlen(entry->link_target));
	put_xattrs(out, entry);
	for (size_t i = 0; i < 3 && (entry->flags & MOAT_HAS_LOCATOR) != 0; i++)
		put_number(out, entry->locator[i]);
	if ((entry->flags & MOAT_HAS_HASH) != 0)
		buf_append(out, entry->hash, MOAT_HASH_SIZE);
}

/* What decoding would refuse is refused here: a snapshot must not be found bad when it is needed.
 */
static int
check_entries(const struct manifest *manifest, struct moat_error *err)
{
	uint64_t paths = 0;

	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = manifest->entries[i];

		paths += strlen(entry->path);
		if (entry->type == MOAT_SYMLINK &&
		    (entry->link_target == NULL || *entry->link_target == '\0'))
			return moat_fail(err, MOAT_FAILED, "manifest: `%s' is a link without text",
					 entry->path);
	}
	if (paths > PATHS_MAX)
		return moat_fail(
			err, MOAT_UNSUPPORTED,
			"manifest: the paths have more than %llu bytes in all; exclude the "
			"deepest directories",
			(unsigned long long) PATHS_MAX);
	return 0;
}

static void
digest(const void *data, size_t size, uint8_t ret[SHA256_DIGEST_SIZE])
{
	struct sha256_ctx sha;

	sha256_init(&sha);
	sha256_update(&sha, size, data);
	sha256_digest(&sha, SHA256_DIGEST_SIZE, ret);
}

int
manifest_encode(const struct manifest *manifest, struct buf *out, struct moat_error *err)
{
	uint8_t hash[SHA256_DIGEST_SIZE];
	const char *before = "";
	size_t start = out->size;

	if (check_entries(manifest, err) < 0)
		return -1;
	buf_append(out, MAGIC, MAGIC_SIZE);
	put_number(out, manifest->filter_flags);
	put_signed(out, manifest->started_ns);
	put_number(out, manifest->rule_count);
	for (size_t i = 0; i < manifest->rule_count; i++) {
		put_number(out, (uint64_t) manifest->rules[i].source);
		put_bytes(out, manifest->rules[i].directory, strlen(manifest->rules[i].directory));
		put_bytes(out, manifest->rules[i].text, manifest->rules[i].size);
	}
	put_number(out, manifest->skip_count);
	for (size_t i = 0; i < manifest->skip_count; i++) {
		put_number(out, (uint64_t) manifest->skips[i].reason);
		put_bytes(out, manifest->skips[i].path, strlen(manifest->skips[i].path));
		put_bytes(out, manifest->skips[i].detail, strlen(manifest->skips[i].detail));
	}
	put_number(out, manifest->count);
	for (size_t i = 0; i < manifest->count; i++) {
		put_entry(out, manifest->entries[i], before);
		before = manifest->entries[i]->path;
	}
	if (buf_check(out, err) < 0)
		return -1;
	digest(out->data + start, out->size - start, hash);
	buf_append(out, hash, sizeof hash);
	return buf_check(out, err);
}

/* ----------------------------------------------------------------------------------- decoding */

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

		skip->reason = (int) get_limited(reader, SKIP_RESERVED, "a skip's reason is unknown");
		skip->path = get_string(reader, &size);
		skip->detail = get_string(reader, &size);
		if (!is_relative_path(skip->path) || skip->reason == 0)
			refuse(reader, "a skip is not of a path in the workspace");
		else if (manifest->skip_count > 0 &&
			 manifest_compare(skip[-1].path, skip->path) > 0)
			refuse(reader, "skips are not in order");
	}
}

/* A path begins as the one before it does.  Whether it is in its place is checked against that one
 * alone: by induction all of that one's parents are there and are directories, so this one's parent
 * is either among them, or is the one before itself. */
static const char *
get_path(struct reader *reader, const struct moat_entry *before)
{
	size_t before_size = before == NULL ? 0 : strlen(before->path), shared, size, parent;
	const char *rest, *slash, *name;
	char *path;

	shared = (size_t) get_limited(reader, before_size, "a path shares too much");
	size = get_count(reader, 1);
	rest = get_bytes(reader, size);
	reader->paths += shared + size;
	if (rest == NULL || memchr(rest, '\0', size) != NULL || reader->paths > PATHS_MAX) {
		refuse(reader, reader->paths > PATHS_MAX ? "the paths are too long"
							 : "a path contains a NUL");
		return "";
	}
	path = arena_alloc(&reader->manifest->arena, shared + size + 1);
	if (path == NULL) {
		refuse_memory(reader);
		return "";
	}
	if (before == NULL) {
		if (size != 0)
			refuse(reader, "the first entry is not the root");
		return "";
	}
	memcpy(path, before->path, shared);
	memcpy(path + shared, rest, size);
	slash = strrchr(path, '/');
	parent = slash == NULL ? 0 : (size_t) (slash - path);
	name = slash == NULL ? path : slash + 1;
	if (slash == path || !is_component(name, strlen(name)))
		refuse(reader, "a path has an empty component, \".\" or \"..\"");
	else if (manifest_compare(before->path, path) >= 0)
		refuse(reader, "paths are not in order");
	else if (slash != NULL &&
		 (strncmp(before->path, path, parent) != 0 ||
		  (before->path[parent] != '/' &&
		   !(before->path[parent] == '\0' && before->type == MOAT_DIRECTORY))))
		refuse(reader, "the directory of a path is missing");
	return path;
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
	if (list.size == 0 || reader->wrong != NULL)
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

static void
get_entry(struct reader *reader, struct moat_entry *entry, const struct moat_entry *before)
{
	const uint64_t nsec_max = 999999999;
	const void *hash;
	size_t size = 1;

	entry->path = get_path(reader, before);
	entry->type = (uint8_t) get_limited(reader, MOAT_SYMLINK, "an entry's type is unknown");
	entry->status =
		(uint8_t) get_limited(reader, MOAT_MODIFIED, "an entry's status is unknown");
	entry->flags = (uint16_t) get_limited(reader, MOAT_HAS_HASH | MOAT_HAS_LOCATOR,
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
	get_leader(reader, entry);
	if (entry->type == MOAT_SYMLINK)
		entry->link_target = get_string(reader, &size);
	if (entry->type == 0 || size == 0 || (before == NULL && entry->type != MOAT_DIRECTORY))
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

static void
get_entries(struct reader *reader)
{
	struct manifest *manifest = reader->manifest;
	const struct moat_entry *before = NULL;
	size_t count = get_count(reader, 18);
	struct moat_entry *entries = arena_alloc(&manifest->arena, count * sizeof *entries);

	manifest->entries = calloc(count + 1, sizeof *manifest->entries);
	if (entries == NULL || manifest->entries == NULL) {
		refuse_memory(reader);
		return;
	}
	manifest->allocated = count + 1;
	while (manifest->count < count && reader->wrong == NULL) {
		get_entry(reader, &entries[manifest->count], before);
		before = &entries[manifest->count];
		manifest->entries[manifest->count++] = before;
	}
}

int
manifest_decode(const void *data, size_t size, struct manifest **ret, struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *manifest = manifest_new();
	struct reader reader = {.manifest = manifest};
	uint8_t hash[SHA256_DIGEST_SIZE];

	if (manifest == NULL)
		return moat_fail_memory(err);
	if (size < MAGIC_SIZE + sizeof hash || memcmp(data, MAGIC, MAGIC_SIZE) != 0)
		return moat_fail(err, MOAT_CORRUPT, "manifest: not a manifest of this version");
	reader.at = (const unsigned char *) data + MAGIC_SIZE;
	reader.end = (const unsigned char *) data + size - sizeof hash;
	digest(data, size - sizeof hash, hash);
	if (memcmp(reader.end, hash, sizeof hash) != 0)
		return moat_fail(err, MOAT_CORRUPT, "manifest: damaged: its checksum is wrong");
	manifest->filter_flags =
		(uint32_t) get_limited(&reader, UINT32_MAX, "the filter's flags are malformed");
	manifest->started_ns = get_signed(&reader);
	get_rules(&reader);
	get_skips(&reader);
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
