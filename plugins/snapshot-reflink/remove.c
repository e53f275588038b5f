/* SPDX-License-Identifier: Apache-2.0 */
/* Removal: what no snapshot needs goes at once, file by file.
 *
 * Every set that goes is an orphan first, and one of which nothing is needed gets a temporary name
 * before it is taken apart: after a crash at any point the next removal finishes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "catalogue.h"
#include "common/fs.h"

struct orphan {
	uint64_t number;
	struct bits needed;
	bool any, manifest; /* a file, its manifest is needed */
};

struct orphans {
	struct orphan *items;
	size_t count;
};

static void
orphans_free(struct orphans *orphans)
{
	for (size_t i = 0; i < orphans->count; i++)
		bits_free(&orphans->items[i].needed);
	free(orphans->items);
}

static int
add_orphan(void *context, uint64_t number, struct moat_error *err)
{
	struct orphans *orphans = context;
	struct orphan *items =
		realloc(orphans->items, (orphans->count + 1) * sizeof *orphans->items);

	if (items == NULL)
		return moat_fail_memory(err);
	orphans->items = items;
	orphans->items[orphans->count++] = (struct orphan){.number = number};
	return 0;
}

static int
compare_orphans(const void *a, const void *b)
{
	const struct orphan *x = a, *y = b;

	return (x->number > y->number) - (x->number < y->number);
}

static struct orphan *
find_orphan(const struct orphans *orphans, uint64_t number)
{
	struct orphan key = {.number = number};

	return bsearch(&key, orphans->items, orphans->count, sizeof key, compare_orphans);
}

/* An empty file has a number, too, and nothing is stored under it. */
static int
mark_needed(void *context, const struct moat_entry *entry, struct moat_error *err)
{
	struct orphan *orphan;

	if ((entry->flags & MOAT_HAS_LOCATOR) == 0 || entry->size == 0)
		return 0;
	orphan = find_orphan(context, entry->locator[0]);
	if (orphan == NULL)
		return 0;
	orphan->any = true;
	return bits_add(&orphan->needed, entry->locator[1], err);
}

static void
mark_manifests(struct orphans *orphans, const struct moat_live *live)
{
	uint64_t number;

	if (!MOAT_HAS(struct moat_live, live, manifests) || live->manifests == NULL)
		return;
	for (const char *const *ref = live->manifests; *ref != NULL; ref++) {
		struct orphan *orphan =
			set_number(*ref, &number) < 0 ? NULL : find_orphan(orphans, number);

		if (orphan != NULL)
			orphan->manifest = true;
	}
}

/* --------------------------------------------------------------------------- taking them apart */

struct thinning {
	const struct reflink *reflink;
	const struct orphan *orphan;
	int set_fd;
};

static int
remove_name(const struct thinning *t, const char *name, struct moat_error *err)
{
	char set[SET_NAME_MAX];

	if (unlinkat(t->set_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	return moat_fail_errno(err, "remove `%s/%s/%s'", t->reflink->path,
			       set_name(set, t->orphan->number, SET_ORPHAN), name);
}

static int
remove_unneeded(void *context, uint64_t file, struct moat_error *err)
{
	const struct thinning *t = context;
	char name[FILE_NAME_MAX];

	if (bits_has(&t->orphan->needed, file))
		return 0;
	return remove_name(t, set_file_name(name, file), err);
}

static int
thin_out(const struct reflink *reflink, const struct orphan *orphan, struct moat_error *err)
{
	AUTO_CLOSE int fd = store_open_set(reflink, orphan->number, NULL, err);
	struct thinning t = {reflink, orphan, fd};

	if (fd < 0 || set_each(fd, remove_unneeded, &t, err) < 0)
		return -1;
	return orphan->manifest ? 0 : remove_name(&t, MANIFEST_NAME, err);
}

static int
rename_set(const struct reflink *reflink, uint64_t number, enum set_kind from, enum set_kind to,
	   struct moat_error *err)
{
	char old[SET_NAME_MAX], new[SET_NAME_MAX];

	if (renameat(reflink->dirfd, set_name(old, number, from), reflink->dirfd,
		     set_name(new, number, to)) == 0 ||
	    errno == ENOENT)
		return 0;
	return moat_fail_errno(err, "rename `%s/%s' to `%s'", reflink->path, old, new);
}

static int
finish_orphan(const struct reflink *reflink, const struct orphan *orphan, struct moat_error *err)
{
	if (orphan->any || orphan->manifest)
		return thin_out(reflink, orphan, err);
	if (rename_set(reflink, orphan->number, SET_ORPHAN, SET_TEMPORARY, err) < 0)
		return -1;
	return store_remove_set(reflink, orphan->number, SET_TEMPORARY, err);
}

/* Nothing is taken away before it is known what all the snapshots that stay need. */
static int
finish_orphans(const struct reflink *reflink, const struct moat_live *live, struct orphans *orphans,
	       struct moat_error *err)
{
	if (store_each(reflink, SET_ORPHAN, add_orphan, orphans, err) < 0)
		return -1;
	if (orphans->count == 0)
		return 0;
	qsort(orphans->items, orphans->count, sizeof *orphans->items, compare_orphans);
	mark_manifests(orphans, live);
	if (live->each(live, mark_needed, orphans, err) < 0)
		return -1;
	for (size_t i = 0; i < orphans->count; i++)
		if (finish_orphan(reflink, &orphans->items[i], err) < 0)
			return -1;
	return 0;
}

int
reflink_remove(void *self, const char *ref, const struct moat_live *live, struct moat_error *err)
{
	const struct reflink *reflink = self;
	CLEANUP(orphans_free) struct orphans orphans = {0};
	uint64_t number;

	if (set_number(ref, &number) < 0)
		return moat_fail(err, MOAT_USAGE, "`%s' is not the name of a snapshot here", ref);
	/* On the disk it must be an orphan before anything of it is missing. */
	if (store_sweep(reflink, err) < 0 ||
	    rename_set(reflink, number, SET_LIVE, SET_ORPHAN, err) < 0 ||
	    fs_sync(reflink->dirfd, reflink->path, err) < 0 ||
	    finish_orphans(reflink, live, &orphans, err) < 0)
		return -1;
	return fs_sync(reflink->dirfd, reflink->path, err);
}
