/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest in memory; manifest_write.c and manifest_read.c bring it to disk and back. */
#include "common/manifest.h"

#include <stdlib.h>
#include <string.h>

const char *
skip_text(int reason)
{
	switch (reason) {
	case SKIP_SPECIAL:
		return "special file (socket, FIFO or device)";
	case SKIP_MOUNT:
		return "another filesystem is mounted there";
	case SKIP_UNREADABLE:
		return "no permission to read it";
	case SKIP_VANISHED:
		return "vanished while the snapshot was taken";
	case SKIP_TORN:
		return "kept changing while it was read: its content may be mixed";
	case SKIP_RESERVED:
		return "name that moat does not touch";
	default:
		return "unknown reason";
	}
}

struct manifest *
manifest_new(void)
{
	return calloc(1, sizeof(struct manifest));
}

void
manifest_free(struct manifest *manifest)
{
	if (manifest == NULL)
		return;
	if (manifest->references > 0) {
		manifest->references--;
		return;
	}
	arena_free(&manifest->arena);
	free(manifest->entries);
	free(manifest->skips);
	free(manifest->rules);
	free(manifest->notes);
	manifest_free(manifest->shared);
	free(manifest);
}

struct manifest *
manifest_reference(struct manifest *manifest)
{
	manifest->references++;
	return manifest;
}

void
cleanup_manifest(struct manifest **manifest)
{
	manifest_free(*manifest);
}

/* A byte's place in the order: the end of a path first, then the slash, then all others. */
static unsigned
rank(unsigned char c)
{
	return c == '\0' ? 0 : c == '/' ? 1 : c + 1u;
}

int
manifest_compare(const char *a, const char *b)
{
	while (*a == *b && *a != '\0') {
		a++;
		b++;
	}
	return (int) rank((unsigned char) *a) - (int) rank((unsigned char) *b);
}

/* Makes room for one more item of an array; false: no memory. */
static bool
grow(void *pointer_to_array, size_t count, size_t *allocated, size_t item_size)
{
	void **array = pointer_to_array;
	size_t wanted = *allocated == 0 ? 64 : *allocated * 2;
	void *grown;

	if (count < *allocated)
		return true;
	grown = reallocarray(*array, wanted, item_size);
	if (grown == NULL)
		return false;
	*array = grown;
	*allocated = wanted;
	return true;
}

struct moat_entry *
manifest_add(struct manifest *manifest, const struct moat_entry *entry)
{
	struct arena *arena = &manifest->arena;
	struct moat_entry *copy;

	if (!grow(&manifest->entries, manifest->count, &manifest->allocated,
		  sizeof *manifest->entries))
		return NULL;
	copy = arena_alloc(arena, sizeof *copy);
	if (copy == NULL)
		return NULL;
	*copy = *entry;
	copy->path = arena_string(arena, entry->path);
	if (entry->link_target != NULL)
		copy->link_target = arena_string(arena, entry->link_target);
	if (entry->xattrs != NULL)
		copy->xattrs = arena_copy(arena, entry->xattrs, entry->xattrs_size);
	if (copy->path == NULL || (entry->link_target != NULL && copy->link_target == NULL) ||
	    (entry->xattrs != NULL && copy->xattrs == NULL))
		return NULL;
	manifest->entries[manifest->count++] = copy;
	return copy;
}

int
manifest_add_shared(struct manifest *manifest, struct manifest *owner,
		    const struct moat_entry *entry, struct moat_error *err)
{
	if (!grow(&manifest->entries, manifest->count, &manifest->allocated,
		  sizeof *manifest->entries))
		return moat_fail_memory(err);
	if (manifest->shared == NULL && owner != NULL)
		manifest->shared = manifest_reference(owner);
	manifest->entries[manifest->count++] = entry;
	return 0;
}

struct moat_entry *
manifest_add_copy(struct manifest *manifest, struct manifest *owner, const struct moat_entry *entry)
{
	struct moat_entry *copy = arena_alloc(&manifest->arena, sizeof *copy);

	if (copy == NULL || manifest_add_shared(manifest, owner, copy, NULL) < 0)
		return NULL;
	*copy = *entry;
	return copy;
}

struct moat_entry *
manifest_own(struct manifest *manifest, size_t index)
{
	const struct moat_entry *entry = manifest->entries[index];
	struct moat_entry *copy;

	if (manifest->shared == NULL || arena_owns(&manifest->arena, entry))
		return (struct moat_entry *) entry;
	/* The strings stay where they are: the owner lives as long. */
	copy = arena_alloc(&manifest->arena, sizeof *copy);
	if (copy == NULL)
		return NULL;
	*copy = *entry;
	manifest->entries[index] = copy;
	return copy;
}

int
manifest_add_note(struct manifest *manifest, const char *key, const char *value,
		  struct moat_error *err)
{
	struct manifest_note note;

	if (!grow(&manifest->notes, manifest->note_count, &manifest->note_allocated,
		  sizeof *manifest->notes))
		return moat_fail_memory(err);
	note.key = arena_string(&manifest->arena, key);
	note.value = arena_string(&manifest->arena, value);
	if (note.key == NULL || note.value == NULL)
		return moat_fail_memory(err);
	manifest->notes[manifest->note_count++] = note;
	return 0;
}

const char *
manifest_note(const struct manifest *manifest, const char *key)
{
	for (size_t i = 0; i < manifest->note_count; i++)
		if (strcmp(manifest->notes[i].key, key) == 0)
			return manifest->notes[i].value;
	return NULL;
}

bool
manifest_same_entry(const struct moat_entry *a, const struct moat_entry *b)
{
	if (a == b)
		return true;
	return a->type == b->type && a->flags == b->flags && a->mode == b->mode &&
	       a->uid == b->uid && a->gid == b->gid && a->size == b->size &&
	       a->mtime_sec == b->mtime_sec && a->mtime_nsec == b->mtime_nsec &&
	       a->ctime_sec == b->ctime_sec && a->ctime_nsec == b->ctime_nsec && a->dev == b->dev &&
	       a->ino == b->ino && a->nlink == b->nlink && a->xattrs_size == b->xattrs_size &&
	       ((a->flags & MOAT_HAS_LOCATOR) == 0 ||
		memcmp(a->locator, b->locator, sizeof a->locator) == 0) &&
	       ((a->flags & MOAT_HAS_HASH) == 0 || memcmp(a->hash, b->hash, sizeof a->hash) == 0) &&
	       (a->xattrs_size == 0 || memcmp(a->xattrs, b->xattrs, a->xattrs_size) == 0) &&
	       (a->type != MOAT_SYMLINK || strcmp(a->link_target, b->link_target) == 0) &&
	       strcmp(a->path, b->path) == 0;
}

/* Where a skip of that path goes, or is: behind all that are before it, or, with `after`, also
 * behind those of the same path. */
static size_t
skip_position(const struct manifest *manifest, const char *path, bool after)
{
	size_t low = 0, high = manifest->skip_count, middle;
	int order;

	while (low < high) {
		middle = low + (high - low) / 2;
		order = manifest_compare(manifest->skips[middle].path, path);
		if (order < 0 || (order == 0 && after))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Kept in order at all times, as skips are also added after sealing, while content is read. */
int
manifest_add_skip(struct manifest *manifest, const char *path, int reason, const char *detail,
		  struct moat_error *err)
{
	struct manifest_skip skip = {.reason = reason};
	size_t at = skip_position(manifest, path, true);

	if (!grow(&manifest->skips, manifest->skip_count, &manifest->skip_allocated,
		  sizeof *manifest->skips))
		return moat_fail_memory(err);
	skip.path = arena_string(&manifest->arena, path);
	skip.detail = arena_string(&manifest->arena, detail == NULL ? "" : detail);
	if (skip.path == NULL || skip.detail == NULL)
		return moat_fail_memory(err);
	memmove(manifest->skips + at + 1, manifest->skips + at,
		(manifest->skip_count - at) * sizeof skip);
	manifest->skips[at] = skip;
	manifest->skip_count++;
	return 0;
}

int
manifest_add_rule(struct manifest *manifest, const char *directory, int source, const char *text,
		  size_t size, struct moat_error *err)
{
	struct manifest_rule *rule;

	if (!grow(&manifest->rules, manifest->rule_count, &manifest->rule_allocated,
		  sizeof *manifest->rules))
		return moat_fail_memory(err);
	rule = &manifest->rules[manifest->rule_count];
	rule->directory = arena_string(&manifest->arena, directory);
	rule->source = source;
	rule->text = arena_copy(&manifest->arena, text, size);
	rule->size = size;
	if (rule->directory == NULL || rule->text == NULL)
		return moat_fail_memory(err);
	manifest->rule_count++;
	return 0;
}

static int
by_path(const void *a, const void *b)
{
	const struct moat_entry *const *left = a, *const *right = b;

	return manifest_compare((*left)->path, (*right)->path);
}

/* Sorts, unless a walk in order has made it so already. */
static int
sort_entries(struct manifest *manifest, struct moat_error *err)
{
	const struct moat_entry **entries = manifest->entries;
	size_t i;

	for (i = 1; i < manifest->count; i++) {
		if (by_path(&entries[i - 1], &entries[i]) >= 0)
			break;
	}
	if (i >= manifest->count)
		return 0;
	qsort(entries, manifest->count, sizeof *entries, by_path);
	for (i = 1; i < manifest->count; i++) {
		if (by_path(&entries[i - 1], &entries[i]) == 0)
			return moat_fail(err, MOAT_CORRUPT, "manifest: two entries of `%s'",
					 entries[i]->path);
	}
	return 0;
}

/* One name of a file that has several. */
struct name {
	uint64_t dev, ino, index;
};

static int
by_inode(const void *a, const void *b)
{
	const struct name *left = a, *right = b;

	if (left->dev != right->dev)
		return left->dev < right->dev ? -1 : 1;
	if (left->ino != right->ino)
		return left->ino < right->ino ? -1 : 1;
	return left->index < right->index ? -1 : left->index > right->index;
}

int
manifest_seal(struct manifest *manifest, struct moat_error *err)
{
	AUTO_FREE struct name *names = NULL;
	size_t count = 0, first = 0, several = 0;

	if (sort_entries(manifest, err) < 0)
		return -1;
	for (size_t i = 0; i < manifest->count; i++)
		several += manifest->entries[i]->nlink > 1 &&
			   manifest->entries[i]->type != MOAT_DIRECTORY;
	names = calloc(several + 1, sizeof *names);
	if (names == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < manifest->count; i++) {
		/* What is shared has one name, and no leader: only its own entries are written to.
		 */
		struct moat_entry *entry = (struct moat_entry *) manifest->entries[i];

		if (entry->leader != MOAT_NO_LEADER)
			entry->leader = MOAT_NO_LEADER;
		if (entry->type != MOAT_DIRECTORY && entry->nlink > 1)
			names[count++] = (struct name){entry->dev, entry->ino, i};
	}
	qsort(names, count, sizeof *names, by_inode);
	for (size_t i = 1; i < count; i++) {
		if (names[i].dev == names[first].dev && names[i].ino == names[first].ino)
			((struct moat_entry *) manifest->entries[names[i].index])->leader =
				names[first].index;
		else
			first = i;
	}
	return 0;
}

int64_t
manifest_find(const struct manifest *manifest, const char *path)
{
	size_t low = 0, high = manifest->count, middle;
	int order;

	while (low < high) {
		middle = low + (high - low) / 2;
		order = manifest_compare(manifest->entries[middle]->path, path);
		if (order == 0)
			return (int64_t) middle;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return -1;
}

const struct manifest_skip *
manifest_find_skip(const struct manifest *manifest, const char *path)
{
	size_t at = skip_position(manifest, path, false);

	if (at == manifest->skip_count || strcmp(manifest->skips[at].path, path) != 0)
		return NULL;
	return &manifest->skips[at];
}

const struct moat_entry *
manifest_content(const struct manifest *manifest, const struct moat_entry *entry)
{
	return entry->leader < manifest->count ? manifest->entries[entry->leader] : entry;
}

uint64_t
manifest_bytes(const struct manifest *manifest)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < manifest->count; i++) {
		if (manifest->entries[i]->type == MOAT_FILE &&
		    manifest->entries[i]->leader == MOAT_NO_LEADER)
			bytes += manifest->entries[i]->size;
	}
	return bytes;
}

uint64_t
manifest_files(const struct manifest *manifest)
{
	uint64_t files = 0;

	for (size_t i = 0; i < manifest->count; i++)
		files += manifest->entries[i]->type != MOAT_DIRECTORY;
	return files;
}
