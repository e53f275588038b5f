/* SPDX-License-Identifier: Apache-2.0 */
/* Files that status(2) cannot tell to be unchanged, because somebody has set their times or modes,
 * or put the same content there again, or because the previous walk came too soon after a change:
 * reading them is enough, and storing them once more is not needed. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/tree_internal.h"

/* So many bytes are worth another thread. */
#define BYTES_FOR_HELP ((uint64_t) 4 << 20)

struct comparing {
	int rootfd;
	const struct manifest *previous;
	struct manifest *manifest;
	size_t *candidates; /* indices */
	size_t count;
	uint64_t bytes;
	atomic_size_t next;
	pthread_mutex_t lock;
	struct moat_error failure; /* of the first that failed */
};

/* One thread's share; no two have the same entry. */
struct comparer {
	struct comparing *all;
	struct arena arena;
};

static const struct moat_entry *
content_before(const struct comparing *all, const struct moat_entry *entry)
{
	int64_t index = manifest_find(all->previous, entry->path);
	const struct moat_entry *before = index < 0 ? NULL : all->previous->entries[index];

	return before == NULL || before->type != MOAT_FILE
		       ? NULL
		       : manifest_content(all->previous, before);
}

static int
find_candidates(struct comparing *all, struct moat_error *err)
{
	size_t allocated = 0;

	for (size_t i = 0; i < all->manifest->count; i++) {
		const struct moat_entry *entry = all->manifest->entries[i], *before;

		if (entry->type != MOAT_FILE || entry->status == MOAT_SAME ||
		    entry->leader != MOAT_NO_LEADER)
			continue;
		before = content_before(all, entry);
		if (before == NULL || before->size != entry->size)
			continue;
		if (all->count == allocated) {
			size_t *more;

			allocated = allocated == 0 ? 64 : allocated * 2;
			more = reallocarray(all->candidates, allocated, sizeof *more);
			if (more == NULL)
				return moat_fail_memory(err);
			all->candidates = more;
		}
		all->candidates[all->count++] = i;
		all->bytes += entry->size;
	}
	return 0;
}

/* A hash of a file that kept changing is not that of its content. */
static bool
is_same(const struct comparing *all, const struct moat_entry *entry,
	const struct moat_entry *before)
{
	return (before->flags & MOAT_HAS_HASH) != 0 &&
	       memcmp(before->hash, entry->hash, MOAT_HASH_SIZE) == 0 &&
	       manifest_find_skip(all->previous, before->path) == NULL;
}

/* What cannot be read counts as different. */
static int
compare_one(struct comparer *comparer, struct moat_entry *entry, struct moat_error *err)
{
	const struct moat_entry *before = content_before(comparer->all, entry);
	struct moat_error why = MOAT_ERROR_INIT;

	if (tree_read(comparer->all->rootfd, entry, &comparer->arena, &why) < 0)
		return why.code == MOAT_PERMISSION || why.code == MOAT_GONE ||
				       why.code == MOAT_CHANGED
			       ? 0
			       : moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
	if (!is_same(comparer->all, entry, before))
		return 0;
	entry->status = MOAT_SAME;
	entry->flags = before->flags;
	memcpy(entry->locator, before->locator, sizeof entry->locator);
	return 0;
}

static void *
comparer_main(void *argument)
{
	struct comparer *comparer = argument;
	struct comparing *all = comparer->all;
	size_t at;

	while ((at = atomic_fetch_add(&all->next, 1)) < all->count) {
		size_t index = all->candidates[at];
		struct moat_error why = MOAT_ERROR_INIT;

		/* The walk has just made it; one of the previous manifest's would be MOAT_SAME. */
		if (compare_one(comparer, (struct moat_entry *) all->manifest->entries[index],
				&why) == 0)
			continue;
		(void) pthread_mutex_lock(&all->lock);
		if (all->failure.code == MOAT_OK)
			all->failure = why;
		(void) pthread_mutex_unlock(&all->lock);
		atomic_store(&all->next, all->count);
		break;
	}
	return NULL;
}

/* Without another thread this one does it all. */
static void
compare_all(struct comparing *all)
{
	struct comparer comparers[TREE_THREADS_MAX] = {{.all = all}};
	pthread_t threads[TREE_THREADS_MAX];
	unsigned wanted = all->bytes < BYTES_FOR_HELP ? 1 : tree_threads(), helping = 1;
	sigset_t everything, saved;

	/* Signals are the main thread's business. */
	sigfillset(&everything);
	(void) pthread_sigmask(SIG_SETMASK, &everything, &saved);
	for (; helping < wanted; helping++) {
		comparers[helping].all = all;
		if (pthread_create(&threads[helping], NULL, comparer_main, &comparers[helping]) !=
		    0)
			break;
	}
	(void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
	(void) comparer_main(&comparers[0]);
	for (unsigned i = 1; i < helping; i++)
		(void) pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < helping; i++)
		arena_merge(&all->manifest->arena, &comparers[i].arena);
}

/* One inode, one set of attributes, whichever name is restored. */
static void
share_xattrs(struct manifest *manifest)
{
	for (size_t i = 0; i < manifest->count; i++) {
		struct moat_entry *entry = (struct moat_entry *) manifest->entries[i];

		if (entry->type != MOAT_FILE || entry->leader == MOAT_NO_LEADER)
			continue;
		entry->xattrs = manifest->entries[entry->leader]->xattrs;
		entry->xattrs_size = manifest->entries[entry->leader]->xattrs_size;
	}
}

int
tree_compare(int rootfd, const struct manifest *previous, struct manifest *manifest,
	     struct moat_error *err)
{
	struct comparing all = {.rootfd = rootfd,
				.previous = previous,
				.manifest = manifest,
				.lock = PTHREAD_MUTEX_INITIALIZER};
	int result = 0;

	if (previous != NULL)
		result = find_candidates(&all, err);
	if (result == 0 && all.count > 0) {
		compare_all(&all);
		share_xattrs(manifest);
	}
	free(all.candidates);
	(void) pthread_mutex_destroy(&all.lock);
	if (result == 0 && all.failure.code != MOAT_OK)
		return moat_error_set(err, all.failure.code, all.failure.sys_errno, "%s",
				      all.failure.message);
	return result;
}
