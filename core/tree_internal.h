/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the walk share.
 *
 *   tree.c        begins the walk, and puts what it found in order
 *   tree_walk.c   directories, by several threads
 *   tree_objects.c   what is in one of them
 *   tree_match.c  what the previous manifest knows of an object
 *   tree_compare.c   what has the same content all the same
 *   tree_read.c, tree_xattr.c   contents and extended attributes
 */
#ifndef MOAT_CORE_TREE_INTERNAL_H
#define MOAT_CORE_TREE_INTERNAL_H

#include <pthread.h>
#include <sys/stat.h>

#include "core/tree.h"

struct folder;

/* One object that was found in a directory. */
struct item {
	const struct moat_entry *entry; /* NULL: a directory, see folder */
	struct folder *folder;
	bool shared; /* entry is one of the previous manifest's */
};

/* A directory, found and, later, walked. */
struct folder {
	struct folder *parent;          /* NULL: the root */
	const char *name;               /* in the parent; in an arena */
	const struct moat_entry *entry; /* NULL: it is not in the manifest */
	bool shared;
	struct statx status;
	int verdict;                      /* enum filter_verdict that led here */
	const struct filter_scope *scope; /* of what is in it */
	int64_t before;                   /* its index in the previous manifest, or -1 */
	const char *path;                 /* in an arena, or the entry's */
	size_t path_size;
	int fd;         /* open as long as directories in it are to be opened; -1: closed */
	unsigned users; /* those, and whoever walks it */
	struct item *items;
	size_t count, next; /* next: when the manifest is put together */
};

/* The previous manifest, made ready for being asked. */
struct past {
	const struct manifest *manifest; /* NULL: there is none */
	uint32_t *ends;                  /* per entry: the index behind all that is below it */
	int64_t limit_ns, coarse_limit_ns;
};

int past_open(struct past *past, const struct manifest *previous, struct moat_error *err);
void past_close(struct past *past);

/* Where in the previous manifest the names of one directory are looked for, in order. */
struct past_cursor {
	size_t at, end, skip; /* skip: bytes of a path before the name */
};
struct past_cursor past_children(const struct past *past, const struct folder *folder);
/* The index of that name in it, or -1.  Names only ever go forward. */
int64_t past_find(const struct past *past, struct past_cursor *cursor, const char *name);
/* Whether the object is, beyond doubt, what the entry of that index says, all of it: then that
 * entry can stand for it.  entry: status, size, times filled in. */
bool past_is_same(const struct past *past, int64_t index, const struct moat_entry *entry);
/* Sets the status of an entry that is not; takes over what is known of its content. */
void past_match(const struct past *past, int64_t index, struct moat_entry *entry);
bool past_same_metadata(const struct moat_entry *a, const struct moat_entry *b);

struct scan {
	struct filter *filter;
	struct past past;
	int rootfd;
	struct statx root;
	struct folder *root_folder;

	pthread_mutex_t lock; /* for all below, and for folder.users and fd */
	pthread_cond_t more;
	struct folder **stack; /* to be walked; the last one first */
	size_t depth, allocated;
	unsigned busy, threads, idle;
	size_t open; /* descriptors that wait for the directories below them */
	bool stop;
	struct moat_error failure;
	struct walker *walkers; /* all of them, linked */
};

/* One thread's share. */
struct walker {
	struct scan *scan;
	struct walker *next;
	pthread_t thread;
	struct arena arena;
	struct buf path, names;
	const char **sorted; /* each points to a d_type, the name behind it */
	size_t sorted_allocated;
	struct manifest_skip *skips;
	size_t skip_count, skip_allocated;
	struct item *items;
	size_t item_count, item_allocated;
	char *dents;
};

/* Walks scan->root_folder and all below. */
int scan_walk(struct scan *scan, struct moat_error *err);
struct folder *folder_new(struct arena *arena, struct folder *parent, const char *name);
void walker_free(struct walker *walker); /* its memory; the arena has been taken */
void fill_entry(struct moat_entry *entry, const char *path, const struct statx *status);
/* The names in an open directory, sorted, in walker->sorted: how many; -1: errno tells why not. */
ssize_t walker_read_names(struct walker *walker, int fd);
bool walker_has_name(const struct walker *walker, size_t count, const char *name);
/* Adds to walker->items what the object of that name in an open directory is, if it is captured.
 * path: its path; before: its index in the previous manifest, or -1. */
int walker_visit(struct walker *walker, struct folder *folder, int fd, const char *name,
		 unsigned char type_hint, const char *path, int64_t before, struct moat_error *err);
int walker_skip(struct walker *walker, const char *path, int reason, const char *detail,
		struct moat_error *err);
int
walker_skip_unreadable(struct walker *walker, const char *path, int why, struct moat_error *err);
/* A copy that stays; NULL: no memory. */
const struct moat_entry *
walker_keep_entry(struct walker *walker, const struct moat_entry *entry, struct moat_error *err);
/* How many threads are worth having: one for each cpu that this process may use. */
unsigned tree_threads(void);
#define TREE_THREADS_MAX 8
#define DENTS_SIZE ((size_t) 64 * 1024) /* of walker->dents */
/* On another mount, or another filesystem, than the root. */
bool walk_is_elsewhere(const struct scan *scan, const struct statx *status);
/* statx(2) without following anything; name "" is dirfd itself.  The mount comes with it. */
int walk_status(int dirfd, const char *name, struct statx *ret);

#define SUBDIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

#endif
