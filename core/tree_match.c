/* SPDX-License-Identifier: Apache-2.0 */
/* What the previous manifest knows: an object whose status(2) has not changed since, and could not
 * have changed without that showing, needs neither to be opened nor to be described again. */
#include <stdlib.h>
#include <string.h>

#include "core/tree_internal.h"

/* Kernels stamp files with the time of the last clock tick, which is up to 10 ms (CONFIG_HZ=100)
 * behind the clock that the walk reads. */
#define TICK_SLACK_NS 20000000
/* Filesystems that keep whole seconds (ext4 with small inodes), or two (FAT), cut the rest off. */
#define COARSE_SLACK_NS 2000000000

static unsigned
count_slashes(const char *path)
{
	unsigned n = 0;

	for (; (path = strchr(path, '/')) != NULL; path++)
		n++;
	return n;
}

/* A directory's depth is one less than that of what is in it; a manifest misses no directory. */
static int
find_ends(struct past *past, struct moat_error *err)
{
	const struct manifest *manifest = past->manifest;
	AUTO_FREE uint32_t *open = NULL;
	size_t depth = 0, allocated = 64;

	if (manifest->count >= UINT32_MAX)
		return moat_fail(err, MOAT_UNSUPPORTED, "the manifest has too many entries");
	past->ends = calloc(manifest->count + 1, sizeof *past->ends);
	open = calloc(allocated, sizeof *open);
	if (past->ends == NULL || open == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = manifest->entries[i];
		size_t level = i == 0 ? 0 : 1 + count_slashes(entry->path);

		for (; depth > level; depth--)
			past->ends[open[depth - 1]] = (uint32_t) i;
		if (depth == allocated) {
			uint32_t *more = reallocarray(open, allocated * 2, sizeof *open);

			if (more == NULL)
				return moat_fail_memory(err);
			open = more;
			allocated *= 2;
		}
		open[depth++] = (uint32_t) i;
	}
	for (; depth > 0; depth--)
		past->ends[open[depth - 1]] = (uint32_t) manifest->count;
	return 0;
}

int
past_open(struct past *past, const struct manifest *previous, struct moat_error *err)
{
	*past = (struct past){.manifest = previous};
	if (previous == NULL)
		return 0;
	past->limit_ns = previous->started_ns - TICK_SLACK_NS;
	past->coarse_limit_ns = previous->started_ns - COARSE_SLACK_NS;
	return find_ends(past, err);
}

void
past_close(struct past *past)
{
	free(past->ends);
	past->ends = NULL;
}

struct past_cursor
past_children(const struct past *past, const struct folder *folder)
{
	struct past_cursor cursor = {0, 0, folder->path_size + (folder->path_size > 0)};

	if (folder->before >= 0 &&
	    past->manifest->entries[folder->before]->type == MOAT_DIRECTORY) {
		cursor.at = (size_t) folder->before + 1;
		cursor.end = past->ends[folder->before];
	}
	return cursor;
}

int64_t
past_find(const struct past *past, struct past_cursor *cursor, const char *name)
{
	while (cursor->at < cursor->end) {
		size_t at = cursor->at;
		int order = strcmp(past->manifest->entries[at]->path + cursor->skip, name);

		if (order > 0)
			break;
		cursor->at = past->ends[at];
		if (order == 0)
			return (int64_t) at;
	}
	return -1;
}

/* git's racy-clean rule: what was modified when, or after, the previous walk began may have been
 * modified again without a trace in its times. */
static bool
is_racy(const struct past *past, int64_t sec, uint32_t nsec)
{
	int64_t limit = nsec == 0 ? past->coarse_limit_ns : past->limit_ns;
	int64_t limit_sec = limit / 1000000000, limit_nsec = limit % 1000000000;

	return sec > limit_sec || (sec == limit_sec && (int64_t) nsec >= limit_nsec);
}

bool
past_same_metadata(const struct moat_entry *a, const struct moat_entry *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid &&
	       (a->size == b->size || a->type == MOAT_SYMLINK) && a->mtime_sec == b->mtime_sec &&
	       a->mtime_nsec == b->mtime_nsec && a->ctime_sec == b->ctime_sec &&
	       a->ctime_nsec == b->ctime_nsec && a->ino == b->ino;
}

static bool
is_clean(const struct past *past, const struct moat_entry *before, const struct moat_entry *entry)
{
	return before->type == entry->type && past_same_metadata(before, entry) &&
	       !is_racy(past, entry->mtime_sec, entry->mtime_nsec) &&
	       !is_racy(past, entry->ctime_sec, entry->ctime_nsec);
}

/* What the previous snapshot could not read, or read torn, is to be read now. */
static bool
is_known(const struct past *past, const struct moat_entry *content)
{
	return (content->type != MOAT_FILE || content->flags != 0) &&
	       (past->manifest->skip_count == 0 ||
		manifest_find_skip(past->manifest, content->path) == NULL);
}

bool
past_is_same(const struct past *past, int64_t index, const struct moat_entry *entry)
{
	const struct moat_entry *before = index < 0 ? NULL : past->manifest->entries[index];

	return before != NULL && before->status == MOAT_SAME && is_clean(past, before, entry) &&
	       before->dev == entry->dev && before->nlink == entry->nlink &&
	       (entry->type == MOAT_DIRECTORY || entry->nlink == 1) && is_known(past, before);
}

/* Links and directories were read whole: their times hide nothing. */
static bool
same_text_and_xattrs(const struct moat_entry *a, const struct moat_entry *b)
{
	if (a->type == MOAT_SYMLINK)
		return strcmp(a->link_target, b->link_target) == 0;
	return a->xattrs_size == b->xattrs_size &&
	       (a->xattrs_size == 0 || memcmp(a->xattrs, b->xattrs, a->xattrs_size) == 0);
}

void
past_match(const struct past *past, int64_t index, struct moat_entry *entry)
{
	const struct moat_entry *before = index < 0 ? NULL : past->manifest->entries[index];
	const struct moat_entry *content;

	entry->status = MOAT_NEW;
	if (before == NULL || before->type != entry->type)
		return;
	entry->status = MOAT_MODIFIED;
	if (entry->type != MOAT_FILE) {
		if (past_same_metadata(before, entry) && same_text_and_xattrs(before, entry))
			entry->status = MOAT_SAME;
		return;
	}
	content = manifest_content(past->manifest, before);
	if (!is_clean(past, before, entry) || !is_known(past, content))
		return;
	entry->status = MOAT_SAME;
	entry->flags = content->flags;
	entry->xattrs = content->xattrs;
	entry->xattrs_size = content->xattrs_size;
	memcpy(entry->locator, content->locator, sizeof entry->locator);
	memcpy(entry->hash, content->hash, sizeof entry->hash);
}
