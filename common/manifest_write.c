/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest as a file: writing.
 *
 * A number is a varint: seven bits a byte, the lowest first, the highest bit set in all bytes but
 * the last, no needless bytes.  A signed one is folded before: 0, -1, 1, -2, ... become 0, 1, 2, 3.
 * Bytes are a number and as many bytes.  In this order:
 *
 *   "MOATMAN1"; of a difference: "MOATDIF1", the id of the base (bytes), the base's SHA-256
 *   filter_flags, started_ns (signed)
 *   number of notes;   each: key (bytes), value (bytes)
 *   number of rules;   each: source, directory (bytes), text (bytes)
 *   number of skips;   each: reason, path (bytes), detail (bytes)
 *   of a difference: number of removed entries; each: path
 *   number of entries (of a difference: those that are new or differ); each:
 *     path
 *     type, flags, mode, uid, gid, size,
 *     mtime_sec (signed), mtime_nsec, ctime_sec (signed), ctime_nsec, dev, ino, nlink
 *     unless in a difference: leader + 1 (0: none)
 *     of a link: its text (bytes)
 *     number of extended attributes; each: name (bytes), value (bytes)
 *     with MOAT_HAS_LOCATOR: three numbers
 *     with MOAT_HAS_HASH: 32 bytes, as they are
 *   SHA-256 of all before it, 32 bytes
 *
 * A path is how many bytes of the one before it in its list it begins with, and the rest (bytes).
 * Entries are in the order of manifest_compare(); of a whole manifest the root comes first and no
 * directory is missing.  The base of a difference is a whole manifest, so that reading never takes
 * more than two files. */
#include <string.h>

#include "common/manifest_internal.h"

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
put_path(struct buf *out, const char *path, const char *before)
{
	size_t shared = 0;

	while (path[shared] == before[shared] && before[shared] != '\0')
		shared++;
	put_number(out, shared);
	put_bytes(out, path + shared, strlen(path + shared));
}

static void
put_entry(struct buf *out, const struct moat_entry *entry, const char *before, bool whole)
{
	put_path(out, entry->path, before);
	put_number(out, entry->type);
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
	if (whole)
		put_number(out, entry->leader + 1); /* MOAT_NO_LEADER + 1 is 0 */
	if (entry->type == MOAT_SYMLINK)
		put_bytes(out, entry->link_target, strlen(entry->link_target));
	put_xattrs(out, entry);
	for (size_t i = 0; i < 3 && (entry->flags & MOAT_HAS_LOCATOR) != 0; i++)
		put_number(out, entry->locator[i]);
	if ((entry->flags & MOAT_HAS_HASH) != 0)
		buf_append(out, entry->hash, MOAT_HASH_SIZE);
}

/* What reading would refuse is refused here: a snapshot must not be found bad when it is needed. */
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
	if (paths > MANIFEST_PATHS_MAX)
		return moat_fail(
			err, MOAT_UNSUPPORTED,
			"manifest: the paths have more than %llu bytes in all; exclude the "
			"deepest directories",
			(unsigned long long) MANIFEST_PATHS_MAX);
	return 0;
}

/* Everything but entries. */
static void
put_head(const struct manifest *manifest, struct buf *out)
{
	put_number(out, manifest->filter_flags);
	put_signed(out, manifest->started_ns);
	put_number(out, manifest->note_count);
	for (size_t i = 0; i < manifest->note_count; i++) {
		put_bytes(out, manifest->notes[i].key, strlen(manifest->notes[i].key));
		put_bytes(out, manifest->notes[i].value, strlen(manifest->notes[i].value));
	}
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
}

static int
put_digest(struct buf *out, size_t start, struct moat_error *err)
{
	uint8_t digest[MOAT_HASH_SIZE];

	if (buf_check(out, err) < 0)
		return -1;
	manifest_digest(out->data + start, out->size - start, digest);
	buf_append(out, digest, sizeof digest);
	return buf_check(out, err);
}

int
manifest_encode(const struct manifest *manifest, struct buf *out, struct moat_error *err)
{
	const char *before = "";
	size_t start = out->size;

	if (check_entries(manifest, err) < 0)
		return -1;
	buf_append(out, MANIFEST_MAGIC, MANIFEST_MAGIC_SIZE);
	put_head(manifest, out);
	put_number(out, manifest->count);
	for (size_t i = 0; i < manifest->count; i++) {
		put_entry(out, manifest->entries[i], before, true);
		before = manifest->entries[i]->path;
	}
	return put_digest(out, start, err);
}

/* The entries of both, in one pass; either may be NULL. */
struct pairs {
	const struct manifest *old, *new;
	size_t o, n;
};

static bool
next_pair(struct pairs *pairs, const struct moat_entry **old, const struct moat_entry **new)
{
	int order;

	*old = pairs->o < pairs->old->count ? pairs->old->entries[pairs->o] : NULL;
	*new = pairs->n < pairs->new->count ? pairs->new->entries[pairs->n] : NULL;
	if (*old == NULL && *new == NULL)
		return false;
	order = *old == NULL   ? 1
		: *new == NULL ? -1
		: *old == *new ? 0
			       : manifest_compare((*old)->path, (*new)->path);
	if (order <= 0)
		pairs->o++;
	else
		*old = NULL;
	if (order >= 0)
		pairs->n++;
	else
		*new = NULL;
	return true;
}

int
manifest_encode_difference(const struct manifest *manifest, const struct manifest *base,
			   const char *base_id, struct buf *out, struct moat_error *err)
{
	AUTO_BUF struct buf removed = {0}, changed = {0};
	struct pairs pairs = {base, manifest, 0, 0};
	const char *last_removed = "", *last_changed = "";
	uint64_t removed_count = 0, changed_count = 0;
	const struct moat_entry *old, *new;
	size_t start = out->size;

	if (check_entries(manifest, err) < 0)
		return -1;
	while (next_pair(&pairs, &old, &new)) {
		if (new == NULL) {
			put_path(&removed, old->path, last_removed);
			last_removed = old->path;
			removed_count++;
		} else if (old == NULL || !manifest_same_entry(old, new)) {
			put_entry(&changed, new, last_changed, false);
			last_changed = new->path;
			changed_count++;
		}
	}
	buf_append(out, MANIFEST_DIFFERENCE_MAGIC, MANIFEST_MAGIC_SIZE);
	put_bytes(out, base_id, strlen(base_id));
	buf_append(out, base->digest, MOAT_HASH_SIZE);
	put_head(manifest, out);
	put_number(out, removed_count);
	buf_append(out, removed.data, removed.size);
	put_number(out, changed_count);
	buf_append(out, changed.data, changed.size);
	if (buf_check(&removed, err) < 0 || buf_check(&changed, err) < 0)
		return -1;
	return put_digest(out, start, err);
}
