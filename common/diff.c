/* SPDX-License-Identifier: Apache-2.0 */
/* Comparing two manifests in one pass, as both are in the same order. */
#include "common/diff.h"

#include <string.h>

const char *
diff_text(enum diff_change change)
{
	switch (change) {
	case DIFF_SAME:
		return "same";
	case DIFF_ADDED:
		return "added";
	case DIFF_DELETED:
		return "deleted";
	case DIFF_MODIFIED:
		return "modified";
	case DIFF_TYPE:
		return "type";
	case DIFF_MODE:
		return "mode";
	}
	return "unknown";
}

/* a and b have the content: they are no hard links to another entry. */
static bool
same_content(const struct moat_entry *a, const struct moat_entry *b)
{
	if (a->size != b->size)
		return false;
	if (a->size == 0)
		return true;
	if ((a->flags & b->flags & MOAT_HAS_HASH) != 0)
		return memcmp(a->hash, b->hash, MOAT_HASH_SIZE) == 0;
	return a->mtime_sec == b->mtime_sec && a->mtime_nsec == b->mtime_nsec &&
	       a->ctime_sec == b->ctime_sec && a->ctime_nsec == b->ctime_nsec && a->dev == b->dev &&
	       a->ino == b->ino;
}

static bool
same_xattrs(const struct moat_entry *a, const struct moat_entry *b)
{
	return a->xattrs_size == b->xattrs_size &&
	       (a->xattrs_size == 0 || memcmp(a->xattrs, b->xattrs, a->xattrs_size) == 0);
}

enum diff_change
diff_entries(const struct manifest *from_manifest, const struct moat_entry *from,
	     const struct manifest *to_manifest, const struct moat_entry *to)
{
	const struct moat_entry *from_content, *to_content;

	if (from == NULL || to == NULL)
		return from != NULL ? DIFF_DELETED : to != NULL ? DIFF_ADDED : DIFF_SAME;
	if (from->type != to->type)
		return DIFF_TYPE;
	from_content = manifest_content(from_manifest, from);
	to_content = manifest_content(to_manifest, to);
	if (from->type == MOAT_FILE && !same_content(from_content, to_content))
		return DIFF_MODIFIED;
	if (from->type == MOAT_SYMLINK && strcmp(from->link_target, to->link_target) != 0)
		return DIFF_MODIFIED;
	if (from->uid != to->uid || from->gid != to->gid || !same_xattrs(from_content, to_content))
		return DIFF_MODE;
	/* A link's mode means nothing. */
	if (from->type != MOAT_SYMLINK && from->mode != to->mode)
		return DIFF_MODE;
	return DIFF_SAME;
}

int
diff_manifests(const struct manifest *from, const struct manifest *to,
	       int (*visit)(void *context, const struct diff_item *item, struct moat_error *err),
	       void *context, struct moat_error *err)
{
	size_t i = 0, j = 0;

	while (i < from->count || j < to->count) {
		struct diff_item item = {.change = DIFF_SAME};
		int order = i == from->count ? 1
			    : j == to->count ? -1
					     : manifest_compare(from->entries[i]->path,
								to->entries[j]->path);

		if (order <= 0)
			item.from = from->entries[i++];
		if (order >= 0)
			item.to = to->entries[j++];
		item.path = order <= 0 ? item.from->path : item.to->path;
		item.change = diff_entries(from, item.from, to, item.to);
		if (item.change != DIFF_SAME && visit(context, &item, err) < 0)
			return -1;
	}
	return 0;
}
