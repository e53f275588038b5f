/* SPDX-License-Identifier: Apache-2.0 */
/* The walk: each directory is one piece of work, done by whichever thread takes it.
 *
 * Directories wait on a stack, so that the walk goes into the depth first and few are open at a
 * time: one stays open until all directories in it have been opened.  Beyond OPEN_MAX of them they
 * are closed at once, and what is in them is opened by its path, again without following a link. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/tree_internal.h"

#define OPEN_MAX 64
/* So many directories waiting are worth another thread. */
#define WAITING_MIN 8

/* ---------------------------------------------------------------------------------------- folders
 */

struct folder *
folder_new(struct arena *arena, struct folder *parent, const char *name)
{
	struct folder *folder = arena_alloc(arena, sizeof *folder);

	if (folder == NULL)
		return NULL;
	folder->parent = parent;
	folder->name = arena_string(arena, name);
	folder->fd = -1;
	folder->before = -1;
	return folder->name == NULL ? NULL : folder;
}

/* Under the lock. */
static void
close_folder(struct scan *scan, struct folder *folder)
{
	if (folder->fd < 0)
		return;
	cleanup_close(&folder->fd);
	folder->fd = -1;
	scan->open--;
}

static void
leave_folder(struct scan *scan, struct folder *folder)
{
	(void) pthread_mutex_lock(&scan->lock);
	if (--folder->users == 0)
		close_folder(scan, folder);
	(void) pthread_mutex_unlock(&scan->lock);
}

/* By its parent, or by its path when that is closed already.  errno tells why not. */
static int
open_folder(struct scan *scan, const struct folder *folder)
{
	struct moat_error why = MOAT_ERROR_INIT;
	int fd;

	if (folder->parent == NULL)
		return openat(scan->rootfd, ".", SUBDIRECTORY);
	if (folder->parent->fd >= 0)
		return openat(folder->parent->fd, folder->name, SUBDIRECTORY);
	fd = fs_open_beneath(scan->rootfd, folder->path, SUBDIRECTORY, 0, &why);
	if (fd < 0)
		errno = why.sys_errno != 0 ? why.sys_errno : ENOMEM;
	return fd;
}

/* ---------------------------------------------------------------------------------- one directory
 */

/* Directories of transactions in the root of the workspace. */
static bool
is_stage(const struct folder *folder, const char *name)
{
	const size_t prefix = strlen(TREE_STAGE_PREFIX);

	return folder->parent == NULL && strncmp(name, TREE_STAGE_PREFIX, prefix) == 0 &&
	       strspn(name + prefix, "0123456789abcdef") == 12 && name[prefix + 12] == '\0';
}

/* The folder's own entry.  fd -1: it could not be opened. */
static int
describe(struct walker *walker, struct folder *folder, int fd, struct moat_error *err)
{
	const struct past *past = &walker->scan->past;
	struct moat_entry entry = {0};

	fill_entry(&entry, folder->path, &folder->status);
	if (fd >= 0 && past_is_same(past, folder->before, &entry)) {
		folder->entry = past->manifest->entries[folder->before];
		folder->shared = true;
		return 0;
	}
	if (fd >= 0 && tree_xattrs(fd, &walker->arena, &entry.xattrs, &entry.xattrs_size, err) < 0)
		return moat_wrap(err, "`%s'", folder->path);
	past_match(past, folder->before, &entry);
	folder->entry = walker_keep_entry(walker, &entry, err);
	return folder->entry == NULL ? -1 : 0;
}

/* 1: open, *ret_fd is the caller's; 0: there is nothing to walk. */
static int
begin_folder(struct walker *walker, struct folder *folder, int *ret_fd, struct moat_error *err)
{
	struct scan *scan = walker->scan;
	AUTO_CLOSE int fd = open_folder(scan, folder);
	int why = errno;

	if (folder->parent != NULL)
		leave_folder(scan, folder->parent);
	if (fd < 0 && folder->parent != NULL) {
		if (why == ENOENT)
			return 0;
		if (why == EXDEV)
			return walker_skip(walker, folder->path, SKIP_MOUNT, "directory", err);
		if (why == ENOTDIR || why == ELOOP)
			return walker_skip(walker, folder->path, SKIP_VANISHED,
					   "replaced by something else", err);
		if (why == EACCES || why == EPERM) {
			if (walker_skip_unreadable(walker, folder->path, why, err) < 0)
				return -1;
			return describe(walker, folder, -1, err);
		}
	}
	errno = why;
	/* The one that was opened counts, should it be another. */
	if (fd < 0 || walk_status(fd, "", &folder->status) < 0)
		return moat_fail_errno(err, "open directory `%s'",
				       folder->path[0] == '\0' ? "." : folder->path);
	if (walk_is_elsewhere(scan, &folder->status))
		return walker_skip(walker, folder->path, SKIP_MOUNT, "directory", err);
	if (describe(walker, folder, fd, err) < 0)
		return -1;
	*ret_fd = steal_fd(&fd);
	return 1;
}

static int
enter_scope(struct scan *scan, struct folder *folder, int fd, bool has_rules,
	    struct moat_error *err)
{
	if (folder->parent == NULL)
		return 0; /* scan_walk's caller has set it */
	return filter_enter(scan->filter, folder->parent->scope, folder->path, fd,
			    (enum filter_verdict) folder->verdict, has_rules, &folder->scope, err);
}

static int
visit_names(struct walker *walker, struct folder *folder, int fd, size_t count,
	    struct moat_error *err)
{
	struct past_cursor cursor = past_children(&walker->scan->past, folder);
	struct buf *path = &walker->path;
	size_t prefix;

	path->size = 0;
	buf_append(path, folder->path, folder->path_size);
	if (folder->path_size > 0)
		buf_append(path, "/", 1);
	prefix = path->size;
	for (size_t i = 0; i < count; i++) {
		const char *name = walker->sorted[i] + 1;

		if (is_stage(folder, name))
			continue;
		path->size = prefix;
		buf_append(path, name, strlen(name));
		if (buf_check(path, err) < 0 ||
		    walker_visit(walker, folder, fd, name, (unsigned char) name[-1], path->data,
				 past_find(&walker->scan->past, &cursor, name), err) < 0)
			return -1;
	}
	return 0;
}

/* Hands over what was found: the items stay with the folder, the directories among them wait. */
static int
finish_folder(struct walker *walker, struct folder *folder, int *fd, struct moat_error *err)
{
	struct scan *scan = walker->scan;
	size_t directories = 0;
	int result = 0;

	folder->count = walker->item_count;
	if (folder->count > 0) {
		folder->items = arena_alloc(&walker->arena, folder->count * sizeof(struct item));
		if (folder->items == NULL)
			return moat_fail_memory(err);
		memcpy(folder->items, walker->items, folder->count * sizeof(struct item));
	}
	for (size_t i = 0; i < folder->count; i++)
		directories += folder->items[i].folder != NULL;
	if (directories == 0)
		return 0;
	(void) pthread_mutex_lock(&scan->lock);
	while (result == 0 && scan->depth + directories > scan->allocated) {
		size_t n = scan->allocated == 0 ? 256 : scan->allocated * 2;
		struct folder **more = reallocarray(scan->stack, n, sizeof *more);

		if (more == NULL) {
			result = moat_fail_memory(err);
		} else {
			scan->stack = more;
			scan->allocated = n;
		}
	}
	if (result == 0) {
		folder->users = (unsigned) directories;
		if (scan->open < OPEN_MAX) {
			folder->fd = steal_fd(fd);
			scan->open++;
		}
	}
	for (size_t i = folder->count; result == 0 && i-- > 0;)
		if (folder->items[i].folder != NULL)
			scan->stack[scan->depth++] = folder->items[i].folder;
	if (scan->idle > 0)
		(void) pthread_cond_broadcast(&scan->more);
	(void) pthread_mutex_unlock(&scan->lock);
	return result;
}

static int
walk_folder(struct walker *walker, struct folder *folder, struct moat_error *err)
{
	AUTO_CLOSE int fd = -1;
	int result = begin_folder(walker, folder, &fd, err);
	ssize_t count;
	bool has_rules;

	if (result <= 0)
		return result;
	count = walker_read_names(walker, fd);
	/* It was removed since it was opened. */
	if (count < 0 && errno == ENOENT && folder->parent != NULL) {
		folder->entry = NULL;
		return 0;
	}
	if (count < 0 && (errno == EACCES || errno == EPERM))
		return walker_skip_unreadable(walker, folder->path, errno, err);
	if (count < 0)
		return moat_fail_errno(err, "read directory `%s'", folder->path);
	has_rules = walker_has_name(walker, (size_t) count, ".git") ||
		    walker_has_name(walker, (size_t) count, ".gitignore");
	walker->item_count = 0;
	if (enter_scope(walker->scan, folder, fd, has_rules, err) < 0 ||
	    visit_names(walker, folder, fd, (size_t) count, err) < 0)
		return -1;
	return finish_folder(walker, folder, &fd, err);
}

/* ---------------------------------------------------------------------------------------- threads
 */

static void *walker_main(void *argument);

unsigned
tree_threads(void)
{
	cpu_set_t set;
	int n = 1;

	if (sched_getaffinity(0, sizeof set, &set) == 0)
		n = CPU_COUNT(&set);
	return n > TREE_THREADS_MAX ? TREE_THREADS_MAX : (unsigned) n;
}

static struct walker *
walker_new(struct scan *scan)
{
	struct walker *walker = calloc(1, sizeof *walker);

	if (walker == NULL)
		return NULL;
	walker->scan = scan;
	walker->dents = malloc(DENTS_SIZE);
	if (walker->dents == NULL) {
		free(walker);
		return NULL;
	}
	return walker;
}

void
walker_free(struct walker *walker)
{
	arena_free(&walker->arena);
	buf_free(&walker->path);
	buf_free(&walker->names);
	free(walker->sorted);
	free(walker->skips);
	free(walker->items);
	free(walker->dents);
	free(walker);
}

/* Under the lock.  Without another thread this one does it all. */
static void
call_help(struct scan *scan)
{
	struct walker *walker;
	sigset_t all, saved;

	if (scan->threads <= 1 || scan->depth < WAITING_MIN || scan->idle > 0)
		return;
	scan->threads--;
	walker = walker_new(scan);
	if (walker == NULL)
		return;
	/* Signals are the main thread's business. */
	sigfillset(&all);
	(void) pthread_sigmask(SIG_SETMASK, &all, &saved);
	if (pthread_create(&walker->thread, NULL, walker_main, walker) == 0) {
		walker->next = scan->walkers->next;
		scan->walkers->next = walker;
	} else {
		walker_free(walker);
	}
	(void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

/* The next directory, or NULL when all is done; waits while others may still find more. */
static struct folder *
next_folder(struct scan *scan, bool was_busy)
{
	struct folder *folder = NULL;

	(void) pthread_mutex_lock(&scan->lock);
	if (was_busy)
		scan->busy--;
	while (!scan->stop && scan->depth == 0 && scan->busy > 0) {
		scan->idle++;
		(void) pthread_cond_wait(&scan->more, &scan->lock);
		scan->idle--;
	}
	if (!scan->stop && scan->depth > 0) {
		folder = scan->stack[--scan->depth];
		scan->busy++;
		call_help(scan);
	} else {
		(void) pthread_cond_broadcast(&scan->more);
	}
	(void) pthread_mutex_unlock(&scan->lock);
	return folder;
}

static void *
walker_main(void *argument)
{
	struct walker *walker = argument;
	struct scan *scan = walker->scan;
	struct folder *folder;
	bool busy = false;

	while ((folder = next_folder(scan, busy)) != NULL) {
		struct moat_error why = MOAT_ERROR_INIT;

		busy = true;
		if (walk_folder(walker, folder, &why) == 0)
			continue;
		(void) pthread_mutex_lock(&scan->lock);
		if (!scan->stop)
			scan->failure = why;
		scan->stop = true;
		(void) pthread_mutex_unlock(&scan->lock);
	}
	return NULL;
}

int
scan_walk(struct scan *scan, struct moat_error *err)
{
	struct walker *first = walker_new(scan);

	if (first == NULL)
		return moat_fail_memory(err);
	scan->walkers = first;
	scan->threads = tree_threads();
	scan->stack = calloc(64, sizeof(*scan->stack));
	if (scan->stack == NULL)
		return moat_fail_memory(err);
	scan->allocated = 64;
	scan->stack[scan->depth++] = scan->root_folder;
	(void) walker_main(first);
	for (struct walker *walker = first->next; walker != NULL; walker = walker->next)
		(void) pthread_join(walker->thread, NULL);
	for (size_t i = 0; scan->stop && i < scan->depth; i++)
		leave_folder(scan, scan->stack[i]->parent);
	return scan->stop ? moat_error_set(err, scan->failure.code, scan->failure.sys_errno, "%s",
					   scan->failure.message)
			  : 0;
}
