/* SPDX-License-Identifier: Apache-2.0 */
/* From the plan of a finished transaction to what takes it back: exactly the paths that it changed,
 * provided that they still are what it left. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/tree.h"
#include "core/txn_internal.h"
#include "core/undo.h"

#define PLAN_MAX ((size_t) 4 << 30)

/* One path that the transaction changed. */
struct changed {
	const char *path;
	const struct moat_entry *was, *left; /* of the plan; NULL: absent */
	bool meta;                           /* nothing but metadata */
};

struct undo_scope {
	struct plan plan;
	struct changed *items; /* by path */
	size_t count, allocated;
	const char **paths;
};

void
undo_scope_free(struct undo_scope *scope)
{
	if (scope == NULL)
		return;
	plan_free(&scope->plan);
	free(scope->items);
	free(scope->paths);
	free(scope);
}

void
cleanup_undo_scope(struct undo_scope **scope)
{
	undo_scope_free(*scope);
	*scope = NULL;
}

const char *const *
undo_paths(const struct undo_scope *scope, size_t *ret_count)
{
	*ret_count = scope->count;
	return scope->paths;
}

/* ------------------------------------------------------------------------------ what was changed
 */

static int
add_changed(struct undo_scope *scope, const struct moat_entry *was, const struct moat_entry *left,
	    bool meta)
{
	if (scope->count == scope->allocated) {
		size_t n = scope->allocated == 0 ? 64 : scope->allocated * 2;
		struct changed *more = reallocarray(scope->items, n, sizeof *more);

		if (more == NULL)
			return -1;
		scope->items = more;
		scope->allocated = n;
	}
	scope->items[scope->count++] =
		(struct changed){was != NULL ? was->path : left->path, was, left, meta};
	return 0;
}

/* A directory was made with all that is desired below it. */
static int
add_made(struct undo_scope *scope, const struct op *op)
{
	const struct manifest *to = scope->plan.to;
	size_t end = to->entries[op->to]->type == MOAT_DIRECTORY
			     ? plan_subtree_end(to, (size_t) op->to)
			     : (size_t) op->to + 1;

	for (size_t i = (size_t) op->to; i < end; i++)
		if (add_changed(scope, NULL, to->entries[i], false) < 0)
			return -1;
	return 0;
}

static int
add_op(struct undo_scope *scope, const struct op *op)
{
	const struct moat_entry *from = plan_from(&scope->plan, op);
	const struct moat_entry *to = plan_to(&scope->plan, op);

	switch (op->kind) {
	case OP_OPEN:
		return 0;
	case OP_DELETE:
	case OP_RMDIR:
		return add_changed(scope, from, NULL, false);
	case OP_CREATE:
		return add_made(scope, op);
	case OP_REPLACE:
		return add_changed(scope, from, to, false);
	case OP_META:
		return add_changed(scope, from, to, true);
	case OP_DIRMETA: /* Also of directories in which something happened, and no more. */
		return from == NULL || to == NULL || meta_equal(from, to)
			       ? 0
			       : add_changed(scope, from, to, true);
	}
	return 0;
}

static int
by_path(const void *a, const void *b)
{
	const struct changed *left = a, *right = b;

	return manifest_compare(left->path, right->path);
}

/* What became something else was deleted and created: two operations, one path. */
static void
merge_same(struct undo_scope *scope)
{
	size_t kept = 0;

	for (size_t i = 0; i < scope->count; i++) {
		struct changed *last = kept == 0 ? NULL : &scope->items[kept - 1];
		const struct changed *item = &scope->items[i];

		if (last == NULL || strcmp(last->path, item->path) != 0) {
			scope->items[kept++] = *item;
			continue;
		}
		last->was = last->was != NULL ? last->was : item->was;
		last->left = last->left != NULL ? last->left : item->left;
		last->meta = false;
	}
	scope->count = kept;
}

static int
collect(struct undo_scope *scope, struct moat_error *err)
{
	for (size_t i = 0; i < scope->plan.count; i++)
		if (add_op(scope, &scope->plan.ops[i]) < 0)
			return moat_fail_memory(err);
	if (scope->count > 0)
		qsort(scope->items, scope->count, sizeof *scope->items, by_path);
	merge_same(scope);
	scope->paths = calloc(scope->count + 1, sizeof *scope->paths);
	if (scope->paths == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < scope->count; i++)
		scope->paths[i] = scope->items[i].path;
	return 0;
}

/* ------------------------------------------------------------------------------- is it there still
 */

static uint32_t
mode_left(const struct changed *item)
{
	return item->meta && item->was->mode == item->left->mode ? item->left->mode
								 : meta_mode(item->left);
}

static bool
same_time(const struct moat_entry *a, const struct moat_entry *b)
{
	return a->mtime_sec == b->mtime_sec && a->mtime_nsec == b->mtime_nsec;
}

static bool
looks_like(const struct moat_entry *live, const struct moat_entry *entry, uint32_t mode)
{
	if (live->type != entry->type)
		return false;
	if (live->type == MOAT_SYMLINK)
		return same_time(live, entry) && strcmp(live->link_target, entry->link_target) == 0;
	/* The time of a directory changes by what happens in it to others. */
	if (live->type == MOAT_DIRECTORY)
		return live->mode == mode;
	return live->mode == mode && live->size == entry->size && same_time(live, entry);
}

/* An object that was touched since is read: its size and time may have been made the same. */
static bool
has_content(const struct workspace *workspace, const struct moat_entry *live,
	    const struct moat_entry *left, int64_t finished_ns, struct arena *arena)
{
	struct moat_entry copy = *live;

	if (live->type != MOAT_FILE || (left->flags & MOAT_HAS_HASH) == 0)
		return true;
	if ((live->flags & MOAT_HAS_HASH) != 0)
		return memcmp(live->hash, left->hash, MOAT_HASH_SIZE) == 0;
	if (live->ctime_sec * 1000000000 + live->ctime_nsec <= finished_ns)
		return true;
	return tree_read(workspace->fd, &copy, arena, NULL) == 0 &&
	       memcmp(copy.hash, left->hash, MOAT_HASH_SIZE) == 0;
}

static bool
is_as_left(const struct workspace *workspace, const struct manifest *live,
	   const struct changed *item, int64_t finished_ns, struct arena *arena)
{
	int64_t index = manifest_find(live, item->path);
	const struct moat_entry *now = index < 0 ? NULL : live->entries[index];

	/* A directory that something was put into meanwhile was left standing. */
	if (item->left == NULL)
		return now == NULL ||
		       (now->type == MOAT_DIRECTORY && item->was->type == MOAT_DIRECTORY);
	if (now == NULL)
		return false;
	/* Modes and times of what belongs to somebody else have stayed as they were. */
	if (item->meta && looks_like(now, item->was, item->was->mode))
		return true;
	return looks_like(now, item->left, mode_left(item)) &&
	       has_content(workspace, manifest_content(live, now), item->left, finished_ns, arena);
}

static int
check_left(const struct undo_scope *scope, const struct workspace *workspace,
	   const struct manifest *live, int64_t finished_ns, struct moat_error *err)
{
	struct arena arena = {0};
	const char *first = NULL;
	size_t differing = 0;

	for (size_t i = 0; i < scope->count; i++) {
		if (is_as_left(workspace, live, &scope->items[i], finished_ns, &arena))
			continue;
		first = first == NULL ? scope->items[i].path : first;
		differing++;
	}
	arena_free(&arena);
	if (first == NULL)
		return 0;
	return moat_fail(err, MOAT_CONFLICT,
			 "`%s' is not what that restore left%s (%zu of the %zu paths that it "
			 "changed); nothing was changed",
			 first[0] == '\0' ? "." : first, differing == 1 ? "" : ", nor are others",
			 differing, scope->count);
}

static int
read_plan(const struct home *home, const struct undo_record *record, struct plan *ret,
	  struct moat_error *err)
{
	AUTO_BUF struct buf path = {0};
	AUTO_FREE char *data = NULL;
	size_t size;

	buf_format(&path, "%s/undo/%s/plan", record->hash, record->id);
	if (buf_check(&path, err) < 0)
		return -1;
	if (fs_read(home->workspaces_fd, path.data, PLAN_MAX, &data, &size, err) < 0 ||
	    plan_decode(data, size, ret, err) < 0)
		return moat_wrap(err, "the record of transaction %s", record->id);
	return 0;
}

int
undo_scope_new(const struct home *home, const struct workspace *workspace,
	       const struct undo_record *record, const struct manifest *live,
	       struct undo_scope **ret, struct moat_error *err)
{
	struct undo_scope *scope = calloc(1, sizeof *scope);

	if (scope == NULL)
		return moat_fail_memory(err);
	if (read_plan(home, record, &scope->plan, err) < 0 || collect(scope, err) < 0 ||
	    check_left(scope, workspace, live, record->finished_ns, err) < 0) {
		undo_scope_free(scope);
		return -1;
	}
	*ret = scope;
	return 0;
}

/* -------------------------------------------------------------------------- what is to be again */

/* Content, attributes and further names are those of the safety snapshot; the rest is as the plan
 * saw it before. */
static int
take_stored(struct moat_entry *entry, const struct manifest *safety, struct moat_error *err)
{
	int64_t index = manifest_find(safety, entry->path);
	const struct moat_entry *stored = index < 0 ? NULL : safety->entries[index], *content;

	if (stored == NULL || stored->type != entry->type ||
	    (entry->type == MOAT_FILE && stored->size != entry->size))
		return moat_fail(err, MOAT_NOT_FOUND,
				 "the safety snapshot does not hold `%s' as it was before; nothing "
				 "was changed",
				 entry->path);
	content = manifest_content(safety, stored);
	entry->dev = stored->dev;
	entry->ino = stored->ino;
	entry->nlink = stored->nlink;
	entry->flags = content->flags;
	entry->xattrs = content->xattrs;
	entry->xattrs_size = content->xattrs_size;
	memcpy(entry->locator, content->locator, sizeof entry->locator);
	memcpy(entry->hash, content->hash, sizeof entry->hash);
	return 0;
}

static const struct changed *
find_changed(const struct undo_scope *scope, const char *path)
{
	const struct changed key = {.path = path};

	return scope->count == 0 ? NULL
				 : bsearch(&key, scope->items, scope->count, sizeof key, by_path);
}

/* Somebody has worked in that directory since: its time is theirs. */
static void
keep_time(struct moat_entry *entry, const struct changed *item, const struct manifest *live)
{
	int64_t index = manifest_find(live, entry->path);

	if (index < 0 || item->left == NULL || same_time(live->entries[index], item->left))
		return;
	entry->mtime_sec = live->entries[index]->mtime_sec;
	entry->mtime_nsec = live->entries[index]->mtime_nsec;
}

int
undo_desired(const struct undo_scope *scope, const struct manifest *live,
	     const struct manifest *safety, struct manifest **ret, struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *desired = manifest_new();
	const struct manifest *from = scope->plan.from;

	if (desired == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < from->count; i++) {
		const struct changed *item = find_changed(scope, from->entries[i]->path);
		struct moat_entry entry = *from->entries[i];

		if (item != NULL && entry.type != MOAT_DIRECTORY &&
		    take_stored(&entry, safety, err) < 0)
			return -1;
		if (item != NULL && entry.type == MOAT_DIRECTORY)
			keep_time(&entry, item, live);
		if (manifest_add(desired, &entry) == NULL)
			return moat_fail_memory(err);
	}
	if (manifest_seal(desired, err) < 0)
		return -1;
	*ret = STEAL(desired);
	return 0;
}
