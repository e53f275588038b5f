/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of snapshot backends: the workspace as the core would have scanned it. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "world.h"

static struct moat_entry *
add_entry(struct tree *tree, const char *path, const struct stat *st)
{
	struct moat_entry *entry;

	tree->entries = realloc(tree->entries, (tree->count + 1) * sizeof *tree->entries);
	assert_non_null(tree->entries);
	entry = &tree->entries[tree->count++];
	*entry = (struct moat_entry){
		.path = strdup(path),
		.type = S_ISDIR(st->st_mode)   ? MOAT_DIRECTORY
			: S_ISLNK(st->st_mode) ? MOAT_SYMLINK
					       : MOAT_FILE,
		.status = MOAT_NEW,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = S_ISDIR(st->st_mode) ? 0 : (uint64_t) st->st_size,
		.mtime_sec = st->st_mtim.tv_sec,
		.mtime_nsec = (uint32_t) st->st_mtim.tv_nsec,
		.ctime_sec = st->st_ctim.tv_sec,
		.ctime_nsec = (uint32_t) st->st_ctim.tv_nsec,
		.dev = st->st_dev,
		.ino = st->st_ino,
		.nlink = st->st_nlink,
		.leader = MOAT_NO_LEADER,
	};
	return entry;
}

static void
read_link(int dirfd, const char *name, struct moat_entry *entry)
{
	char text[4096];
	ssize_t n = readlinkat(dirfd, name, text, sizeof text - 1);

	assert_true(n >= 0);
	text[n] = '\0';
	entry->link_target = strdup(text);
}

static void scan_directory(struct tree *tree, int fd, const char *path);

static void
scan_object(struct tree *tree, int dirfd, const char *name, const char *path)
{
	struct stat st;

	assert_int_equal(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	if (S_ISDIR(st.st_mode))
		scan_directory(tree, openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), path);
	else if (S_ISLNK(st.st_mode))
		read_link(dirfd, name, add_entry(tree, path, &st));
	else
		(void) add_entry(tree, path, &st);
}

/* By descriptors, so that paths above PATH_MAX can be had; takes fd. */
static void
scan_directory(struct tree *tree, int fd, const char *path)
{
	DIR *dir = fdopendir(fd);
	struct dirent *item;
	struct stat st;

	assert_non_null(dir);
	assert_int_equal(fstat(fd, &st), 0);
	(void) add_entry(tree, path, &st);
	while ((item = readdir(dir)) != NULL) {
		AUTO_FREE char *inner = NULL;

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		assert_true(asprintf(&inner, "%s%s%s", path, *path == '\0' ? "" : "/",
				     item->d_name) >= 0);
		scan_object(tree, fd, item->d_name, inner);
	}
	(void) closedir(dir);
}

static void
find_leaders(struct tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		struct moat_entry *entry = &tree->entries[i];

		for (size_t j = 0; entry->type == MOAT_FILE && entry->nlink > 1 && j < i; j++) {
			if (tree->entries[j].ino == entry->ino &&
			    tree->entries[j].leader == MOAT_NO_LEADER) {
				entry->leader = j;
				break;
			}
		}
	}
}

/* NULL: not there. */
static struct moat_entry *
find_path(const struct tree *tree, const char *path)
{
	for (size_t i = 0; i < tree->count; i++)
		if (strcmp(tree->entries[i].path, path) == 0)
			return &tree->entries[i];
	return NULL;
}

size_t
tree_index(const struct tree *tree, const char *path)
{
	const struct moat_entry *entry = find_path(tree, path);

	assert_non_null(entry);
	return (size_t) (entry - tree->entries);
}

static bool
is_same(const struct moat_entry *old, const struct moat_entry *now)
{
	/* One that had a leader has no content of its own. */
	return old->type == now->type && old->size == now->size && old->mode == now->mode &&
	       old->ino == now->ino && old->ctime_sec == now->ctime_sec &&
	       old->ctime_nsec == now->ctime_nsec &&
	       (old->leader == MOAT_NO_LEADER) == (now->leader == MOAT_NO_LEADER);
}

static void
compare_previous(struct tree *tree, const struct tree *previous)
{
	for (size_t i = 0; i < tree->count; i++) {
		struct moat_entry *now = &tree->entries[i];
		const struct moat_entry *old = find_path(previous, now->path);

		if (old == NULL)
			continue;
		now->status = MOAT_MODIFIED;
		if (!is_same(old, now))
			continue;
		now->status = MOAT_SAME;
		now->flags = old->flags;
		memcpy(now->locator, old->locator, sizeof now->locator);
		memcpy(now->hash, old->hash, sizeof now->hash);
	}
}

/* Waits for the next tick of the clock that file times come from: whatever is changed after a scan
 * has a later ctime than what was changed before. */
static void
next_tick(void)
{
	struct timespec first, now;

	assert_int_equal(clock_gettime(CLOCK_REALTIME_COARSE, &first), 0);
	do {
		assert_int_equal(clock_gettime(CLOCK_REALTIME_COARSE, &now), 0);
	} while (now.tv_sec == first.tv_sec && now.tv_nsec == first.tv_nsec);
}

struct tree *
tree_scan_source(struct world *world, const struct tree *previous)
{
	struct tree *tree = calloc(1, sizeof *tree);

	assert_non_null(tree);
	next_tick();
	scan_directory(tree, openat(world->src_fd, ".", O_RDONLY | O_CLOEXEC), "");
	find_leaders(tree);
	if (previous != NULL)
		compare_previous(tree, previous);
	tree->items = calloc(tree->count, sizeof *tree->items);
	assert_non_null(tree->items);
	for (size_t i = 0; i < tree->count; i++)
		tree->items[i] = &tree->entries[i];
	tree->list = (struct moat_entries){sizeof tree->list, sizeof(struct moat_entry),
					   tree->count, tree->items};
	return tree;
}

void
tree_free(struct tree *tree)
{
	if (tree == NULL)
		return;
	for (size_t i = 0; i < tree->count; i++) {
		free((void *) (uintptr_t) tree->entries[i].path);
		free((void *) (uintptr_t) tree->entries[i].link_target);
	}
	free(tree->entries);
	free(tree->items);
	free(tree->truth);
	free(tree);
}

int
tree_each(const struct tree *tree,
	  int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
	  void *context, struct moat_error *err)
{
	for (size_t i = 0; i < tree->count; i++)
		if (tree->entries[i].type == MOAT_FILE &&
		    tree->entries[i].leader == MOAT_NO_LEADER &&
		    visit(context, &tree->entries[i], err) < 0)
			return -1;
	return 0;
}

int
live_each(const struct moat_live *live,
	  int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
	  void *context, struct moat_error *err)
{
	struct tree *const *trees = live->context;

	for (; trees != NULL && *trees != NULL; trees++)
		if (tree_each(*trees, visit, context, err) < 0)
			return -1;
	return 0;
}
