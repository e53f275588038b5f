/* SPDX-License-Identifier: Apache-2.0 */
/* The one walk over a workspace: its beginning, and its result put in order. */
#include "core/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "core/tree_internal.h"

static int
add_found(struct manifest *manifest, struct scan *scan, const struct moat_entry *entry, bool shared,
	  struct moat_error *err)
{
	return manifest_add_shared(
		manifest, shared ? (struct manifest *) scan->past.manifest : NULL, entry, err);
}

/* In the manifest's order: a directory, then what is in it, by name. */
static int
collect(struct scan *scan, struct manifest *manifest, struct moat_error *err)
{
	struct folder *folder = scan->root_folder;

	if (add_found(manifest, scan, folder->entry, folder->shared, err) < 0)
		return -1;
	while (folder != NULL) {
		const struct item *item;

		if (folder->next == folder->count) {
			folder = folder->parent;
			continue;
		}
		item = &folder->items[folder->next++];
		if (item->folder == NULL) {
			if (add_found(manifest, scan, item->entry, item->shared, err) < 0)
				return -1;
		} else if (item->folder->entry != NULL) {
			if (add_found(manifest, scan, item->folder->entry, item->folder->shared,
				      err) < 0)
				return -1;
			folder = item->folder;
		}
	}
	return 0;
}

static int
by_path(const void *a, const void *b)
{
	const struct manifest_skip *left = a, *right = b;

	return manifest_compare(left->path, right->path);
}

/* What the walkers have noted; their memory becomes the manifest's. */
static int
gather(struct scan *scan, struct manifest *manifest, struct moat_error *err)
{
	AUTO_FREE struct manifest_skip *skips = NULL;
	size_t count = 0;

	for (struct walker *walker = scan->walkers; walker != NULL; walker = walker->next)
		count += walker->skip_count;
	skips = calloc(count + 1, sizeof *skips);
	if (skips == NULL)
		return moat_fail_memory(err);
	count = 0;
	for (struct walker *walker = scan->walkers; walker != NULL; walker = walker->next) {
		if (walker->skip_count > 0)
			memcpy(skips + count, walker->skips, walker->skip_count * sizeof *skips);
		count += walker->skip_count;
	}
	qsort(skips, count, sizeof *skips, by_path);
	for (size_t i = 0; i < count; i++)
		if (manifest_add_skip(manifest, skips[i].path, skips[i].reason, skips[i].detail,
				      err) < 0)
			return -1;
	if (collect(scan, manifest, err) < 0)
		return -1;
	for (struct walker *walker = scan->walkers; walker != NULL; walker = walker->next)
		arena_merge(&manifest->arena, &walker->arena);
	return 0;
}

static int
begin(struct scan *scan, struct arena *arena, struct moat_error *err)
{
	struct folder *root = folder_new(arena, NULL, "");

	if (root == NULL)
		return moat_fail_memory(err);
	root->path = root->name;
	root->before = scan->past.manifest == NULL || scan->past.manifest->count == 0 ? -1 : 0;
	scan->root_folder = root;
	if (walk_status(scan->rootfd, "", &scan->root) < 0)
		return moat_fail_errno(err, "open the workspace");
	return filter_root(scan->filter, &root->scope, err);
}

static void
scan_close(struct scan *scan)
{
	while (scan->walkers != NULL) {
		struct walker *walker = scan->walkers;

		scan->walkers = walker->next;
		walker_free(walker);
	}
	free(scan->stack);
	past_close(&scan->past);
	(void) pthread_cond_destroy(&scan->more);
	(void) pthread_mutex_destroy(&scan->lock);
}

/* A file with several names can be found unchanged by any of them, while its content belongs to the
 * first, which may be a new name. */
static void
settle_leaders(struct manifest *manifest)
{
	for (size_t i = 0; i < manifest->count; i++) {
		struct moat_entry *entry = (struct moat_entry *) manifest->entries[i];
		struct moat_entry *leader;

		if (entry->leader == MOAT_NO_LEADER)
			continue;
		leader = (struct moat_entry *) manifest->entries[entry->leader];
		if (entry->status == MOAT_SAME && leader->status != MOAT_SAME &&
		    past_same_metadata(entry, leader)) {
			leader->status = MOAT_SAME;
			leader->flags = entry->flags;
			leader->xattrs = entry->xattrs;
			leader->xattrs_size = entry->xattrs_size;
			memcpy(leader->locator, entry->locator, sizeof leader->locator);
			memcpy(leader->hash, entry->hash, sizeof leader->hash);
		}
		/* One inode, one set of attributes, whichever name is restored. */
		entry->flags = 0;
		entry->xattrs = leader->xattrs;
		entry->xattrs_size = leader->xattrs_size;
	}
}

int
tree_scan(int rootfd, struct filter *filter, const struct manifest *previous, struct manifest **ret,
	  struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *manifest = manifest_new();
	CLEANUP(scan_close)
	struct scan scan = {.filter = filter,
			    .rootfd = rootfd,
			    .lock = PTHREAD_MUTEX_INITIALIZER,
			    .more = PTHREAD_COND_INITIALIZER};

	if (manifest == NULL)
		return moat_fail_memory(err);
	manifest->started_ns = time_now_ns();
	/* Strings of its entries are used even where an entry is not shared as a whole. */
	if (previous != NULL)
		manifest->shared = manifest_reference((struct manifest *) previous);
	if (past_open(&scan.past, previous, err) < 0 || begin(&scan, &manifest->arena, err) < 0 ||
	    scan_walk(&scan, err) < 0 || gather(&scan, manifest, err) < 0 ||
	    filter_store(filter, manifest, err) < 0 || manifest_seal(manifest, err) < 0)
		return -1;
	settle_leaders(manifest);
	*ret = STEAL(manifest);
	return 0;
}
