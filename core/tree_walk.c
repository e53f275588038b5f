/* SPDX-License-Identifier: Apache-2.0 */
/* The walk: each directory is one piece of work, done by whichever thread takes it.
 *
 * Directories wait on a stack, so that the walk goes into the depth first and few are open at a
 * time: one stays open until all directories in it have been opened.  Beyond OPEN_MAX of them they
 * are closed at once, and what is in them is opened by its path, again without following a link. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/tree_internal.h"

#define OPEN_MAX 64
#define THREADS_MAX 8
/* So many directories waiting are worth another thread. */
#define WAITING_MIN 8
#define DENTS_SIZE ((size_t) 64 * 1024)

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

/* ------------------------------------------------------------------------------------- what is
 * there */

int
walk_status(int dirfd, const char *name, struct statx *ret)
{
	return statx(dirfd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		     STATX_BASIC_STATS | STATX_MNT_ID, ret);
}

void
fill_entry(struct moat_entry *entry, const char *path, const struct statx *status)
{
	entry->path = path;
	entry->type = S_ISDIR(status->stx_mode)   ? MOAT_DIRECTORY
		      : S_ISLNK(status->stx_mode) ? MOAT_SYMLINK
						  : MOAT_FILE;
	entry->mode = status->stx_mode & 07777;
	entry->uid = status->stx_uid;
	entry->gid = status->stx_gid;
	entry->size = entry->type == MOAT_FILE ? status->stx_size : 0;
	entry->mtime_sec = status->stx_mtime.tv_sec;
	entry->mtime_nsec = status->stx_mtime.tv_nsec;
	entry->ctime_sec = status->stx_ctime.tv_sec;
	entry->ctime_nsec = status->stx_ctime.tv_nsec;
	entry->dev = makedev(status->stx_dev_major, status->stx_dev_minor);
	entry->ino = status->stx_ino;
	entry->nlink = status->stx_nlink;
	entry->leader = MOAT_NO_LEADER;
}

/* A directory may be a mount point, or the root of a btrfs subvolume: another device.  A file's
 * device tells nothing on an overlay, where it is that of the layer it comes from; its mount does.
 */
static bool
is_elsewhere(const struct scan *scan, const struct statx *status)
{
	bool knows_mount = (status->stx_mask & scan->root.stx_mask & STATX_MNT_ID) != 0;

	if (knows_mount && status->stx_mnt_id != scan->root.stx_mnt_id)
		return true;
	return (!knows_mount || S_ISDIR(status->stx_mode)) &&
	       (status->stx_dev_major != scan->root.stx_dev_major ||
		status->stx_dev_minor != scan->root.stx_dev_minor);
}

static const char *
special_text(unsigned mode)
{
	switch (mode & S_IFMT) {
	case S_IFSOCK:
		return "socket";
	case S_IFIFO:
		return "FIFO";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	default:
		return "unknown type";
	}
}

/* The text of a link, however long, in memory that the caller frees. */
static char *
read_link(int dirfd, const char *name, uint64_t size_hint)
{
	size_t allocated = (size_t) size_hint + 2;
	char *text = NULL, *grown;
	ssize_t size;

	for (;; allocated *= 2) {
		grown = realloc(text, allocated);
		if (grown == NULL)
			break;
		text = grown;
		size = readlinkat(dirfd, name, text, allocated);
		if (size < 0)
			break;
		if ((size_t) size < allocated) {
			text[size] = '\0';
			return text;
		}
	}
	free(text);
	return NULL;
}

/* --------------------------------------------------------------------------------- one walker's
 * notes */

static int
skip(struct walker *walker, const char *path, int reason, const char *detail,
     struct moat_error *err)
{
	struct manifest_skip *more;

	if (walker->skip_count == walker->skip_allocated) {
		walker->skip_allocated =
			walker->skip_allocated == 0 ? 16 : walker->skip_allocated * 2;
		more = reallocarray(walker->skips, walker->skip_allocated, sizeof *more);
		if (more == NULL)
			return moat_fail_memory(err);
		walker->skips = more;
	}
	walker->skips[walker->skip_count].path = arena_string(&walker->arena, path);
	walker->skips[walker->skip_count].reason = reason;
	walker->skips[walker->skip_count].detail = arena_string(&walker->arena, detail);
	if (walker->skips[walker->skip_count].path == NULL ||
	    walker->skips[walker->skip_count].detail == NULL)
		return moat_fail_memory(err);
	walker->skip_count++;
	return 0;
}

static int
skip_unreadable(struct walker *walker, const char *path, int why, struct moat_error *err)
{
	char text[256];

	return skip(walker, path, SKIP_UNREADABLE, strerror_r(why, text, sizeof text), err);
}

static int
add_item(struct walker *walker, const struct item *item, struct moat_error *err)
{
	struct item *more;

	if (walker->item_count == walker->item_allocated) {
		walker->item_allocated =
			walker->item_allocated == 0 ? 256 : walker->item_allocated * 2;
		more = reallocarray(walker->items, walker->item_allocated, sizeof *more);
		if (more == NULL)
			return moat_fail_memory(err);
		walker->items = more;
	}
	walker->items[walker->item_count++] = *item;
	return 0;
}

/* A copy that stays. */
static const struct moat_entry *
keep_entry(struct walker *walker, const struct moat_entry *entry, struct moat_error *err)
{
	struct moat_entry *copy = arena_alloc(&walker->arena, sizeof *copy);

	if (copy != NULL) {
		*copy = *entry;
		copy->path = arena_string(&walker->arena, entry->path);
		if (entry->link_target != NULL)
			copy->link_target = arena_string(&walker->arena, entry->link_target);
		if (copy->path != NULL && (entry->link_target == NULL || copy->link_target != NULL))
			return copy;
	}
	(void) moat_fail_memory(err);
	return NULL;
}

/* ------------------------------------------------------------------------------------------- names
 */

static int
add_names(struct walker *walker, const char *dents, size_t size)
{
	/* As the system call lays it out; getdents64(2). */
	struct dent {
		uint64_t ino;
		int64_t off;
		unsigned short length;
		unsigned char type;
		char name[];
	};

	for (size_t at = 0; at < size;) {
		const struct dent *dent = (const struct dent *) (const void *) (dents + at);

		at += dent->length;
		if (strcmp(dent->name, ".") == 0 || strcmp(dent->name, "..") == 0)
			continue;
		buf_append(&walker->names, &dent->type, 1);
		buf_append(&walker->names, dent->name, strlen(dent->name) + 1);
	}
	return walker->names.failed ? -1 : 0;
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a + 1, *(const char *const *) b + 1);
}

/* The names in an open directory, sorted, in walker->sorted.  errno tells why not. */
static ssize_t
read_names(struct walker *walker, int fd)
{
	size_t count = 0;
	ssize_t size;

	walker->names.size = 0;
	do {
		size = syscall(SYS_getdents64, fd, walker->dents, DENTS_SIZE);
		if (size < 0 && errno == EINTR)
			continue;
		if (size < 0)
			return -1;
		if (add_names(walker, walker->dents, (size_t) size) < 0) {
			errno = ENOMEM;
			return -1;
		}
	} while (size != 0);
	for (size_t at = 0; at < walker->names.size; count++) {
		const char *item = walker->names.data + at;

		if (count == walker->sorted_allocated) {
			size_t n = count == 0 ? 256 : count * 2;
			const char **more = reallocarray(walker->sorted, n, sizeof *more);

			if (more == NULL)
				return -1;
			walker->sorted = more;
			walker->sorted_allocated = n;
		}
		walker->sorted[count] = item;
		at += 1 + strlen(item + 1) + 1;
	}
	if (count > 0)
		qsort(walker->sorted, count, sizeof *walker->sorted, compare_names);
	return (ssize_t) count;
}

static bool
has_name(const struct walker *walker, size_t count, const char *name)
{
	char key[16];
	const char *wanted = key;

	(void) snprintf(key, sizeof key, " %s", name);
	return count > 0 && bsearch(&wanted, walker->sorted, count, sizeof *walker->sorted,
				    compare_names) != NULL;
}

/* ------------------------------------------------------------------------------------- one object
 */

static int
found_link(struct walker *walker, int dirfd, const char *name, const char *path,
	   const struct statx *status, struct moat_entry *entry, int64_t before,
	   struct moat_error *err)
{
	AUTO_FREE char *text = read_link(dirfd, name, status->stx_size);
	struct item item = {0};

	if (text == NULL && errno == ENOENT)
		return 0;
	if (text == NULL && errno == EINVAL)
		return skip(walker, path, SKIP_VANISHED, "replaced by something else", err);
	if (text == NULL && errno == EACCES)
		return skip_unreadable(walker, path, errno, err);
	if (text == NULL)
		return moat_fail_errno(err, "read link `%s'", path);
	entry->link_target = text;
	entry->size = strlen(text);
	past_match(&walker->scan->past, before, entry);
	item.entry = keep_entry(walker, entry, err);
	return item.entry == NULL ? -1 : add_item(walker, &item, err);
}

static int
found_directory(struct walker *walker, struct folder *parent, const char *name, const char *path,
		const struct statx *status, enum filter_verdict verdict, int64_t before,
		struct moat_error *err)
{
	struct item item = {.folder = folder_new(&walker->arena, parent, name)};

	if (item.folder == NULL)
		return moat_fail_memory(err);
	item.folder->status = *status;
	item.folder->verdict = verdict;
	item.folder->before = before;
	item.folder->path = arena_string(&walker->arena, path);
	item.folder->path_size = strlen(path);
	return item.folder->path == NULL ? moat_fail_memory(err) : add_item(walker, &item, err);
}

/* The object of that name in an open directory; path: its path. */
static int
visit(struct walker *walker, struct folder *folder, int fd, const char *name,
      unsigned char type_hint, const char *path, int64_t before, struct moat_error *err)
{
	struct scan *scan = walker->scan;
	struct moat_entry entry = {0};
	struct item item = {0};
	enum filter_verdict verdict;
	struct statx status;
	int missing = walk_status(fd, name, &status) < 0 ? errno : 0;

	if (missing == ENOENT)
		return 0;
	if (missing != 0 && missing != EACCES)
		return moat_fail_errno(err, "stat `%s'", path);
	verdict = filter_check(scan->filter, folder->scope, path, name,
			       missing != 0 ? type_hint == DT_DIR : S_ISDIR(status.stx_mode));
	if (verdict == FILTER_IGNORE)
		return 0;
	if (missing != 0)
		return skip_unreadable(walker, path, missing, err);
	if (is_elsewhere(scan, &status))
		return skip(walker, path, SKIP_MOUNT,
			    S_ISDIR(status.stx_mode) ? "directory" : "file", err);
	if (S_ISDIR(status.stx_mode))
		return found_directory(walker, folder, name, path, &status, verdict, before, err);
	if (!S_ISREG(status.stx_mode) && !S_ISLNK(status.stx_mode))
		return skip(walker, path, SKIP_SPECIAL, special_text(status.stx_mode), err);
	fill_entry(&entry, path, &status);
	if (past_is_same(&scan->past, before, &entry)) {
		item.entry = scan->past.manifest->entries[before];
		item.shared = true;
		return add_item(walker, &item, err);
	}
	if (S_ISLNK(status.stx_mode))
		return found_link(walker, fd, name, path, &status, &entry, before, err);
	past_match(&scan->past, before, &entry);
	item.entry = keep_entry(walker, &entry, err);
	return item.entry == NULL ? -1 : add_item(walker, &item, err);
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
	folder->entry = keep_entry(walker, &entry, err);
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
			return skip(walker, folder->path, SKIP_MOUNT, "directory", err);
		if (why == ENOTDIR || why == ELOOP)
			return skip(walker, folder->path, SKIP_VANISHED,
				    "replaced by something else", err);
		if (why == EACCES || why == EPERM) {
			if (skip_unreadable(walker, folder->path, why, err) < 0)
				return -1;
			return describe(walker, folder, -1, err);
		}
	}
	errno = why;
	/* The one that was opened counts, should it be another. */
	if (fd < 0 || walk_status(fd, "", &folder->status) < 0)
		return moat_fail_errno(err, "open directory `%s'",
				       folder->path[0] == '\0' ? "." : folder->path);
	if (is_elsewhere(scan, &folder->status))
		return skip(walker, folder->path, SKIP_MOUNT, "directory", err);
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
		    visit(walker, folder, fd, name, (unsigned char) name[-1], path->data,
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
	count = read_names(walker, fd);
	/* It was removed since it was opened. */
	if (count < 0 && errno == ENOENT && folder->parent != NULL) {
		folder->entry = NULL;
		return 0;
	}
	if (count < 0 && (errno == EACCES || errno == EPERM))
		return skip_unreadable(walker, folder->path, errno, err);
	if (count < 0)
		return moat_fail_errno(err, "read directory `%s'", folder->path);
	has_rules = has_name(walker, (size_t) count, ".git") ||
		    has_name(walker, (size_t) count, ".gitignore");
	walker->item_count = 0;
	if (enter_scope(walker->scan, folder, fd, has_rules, err) < 0 ||
	    visit_names(walker, folder, fd, (size_t) count, err) < 0)
		return -1;
	return finish_folder(walker, folder, &fd, err);
}

/* ---------------------------------------------------------------------------------------- threads
 */

static void *walker_main(void *argument);

static unsigned
threads_wanted(void)
{
	cpu_set_t set;
	int n = 1;

	if (sched_getaffinity(0, sizeof set, &set) == 0)
		n = CPU_COUNT(&set);
	return n > THREADS_MAX ? THREADS_MAX : (unsigned) n;
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
	scan->threads = threads_wanted();
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
