/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest in memory; manifest_file.c reads and writes it. */
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
	arena_free(&manifest->arena);
	free(manifest->entries);
	free(manifest->skips);
	free(manifest->rules);
	free(manifest);
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
	size_t count = 0, first = 0;

	if (sort_entries(manifest, err) < 0)
		return -1;
	names = calloc(manifest->count + 1, sizeof *names);
	if (names == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < manifest->count; i++) {
		/* The manifest made it, and is not sealed yet. */
		struct moat_entry *entry = (struct moat_entry *) manifest->entries[i];

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
