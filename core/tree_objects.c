/* SPDX-License-Identifier: Apache-2.0 */
/* The walk: what is in one directory, object by object. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/tree_internal.h"

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
bool
walk_is_elsewhere(const struct scan *scan, const struct statx *status)
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

int
walker_skip(struct walker *walker, const char *path, int reason, const char *detail,
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

int
walker_skip_unreadable(struct walker *walker, const char *path, int why, struct moat_error *err)
{
	char text[256];

	return walker_skip(walker, path, SKIP_UNREADABLE, strerror_r(why, text, sizeof text), err);
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
const struct moat_entry *
walker_keep_entry(struct walker *walker, const struct moat_entry *entry, struct moat_error *err)
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
ssize_t
walker_read_names(struct walker *walker, int fd)
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

bool
walker_has_name(const struct walker *walker, size_t count, const char *name)
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
		return walker_skip(walker, path, SKIP_VANISHED, "replaced by something else", err);
	if (text == NULL && errno == EACCES)
		return walker_skip_unreadable(walker, path, errno, err);
	if (text == NULL)
		return moat_fail_errno(err, "read link `%s'", path);
	entry->link_target = text;
	entry->size = strlen(text);
	past_match(&walker->scan->past, before, entry);
	item.entry = walker_keep_entry(walker, entry, err);
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
int
walker_visit(struct walker *walker, struct folder *folder, int fd, const char *name,
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
		return walker_skip_unreadable(walker, path, missing, err);
	if (walk_is_elsewhere(scan, &status))
		return walker_skip(walker, path, SKIP_MOUNT,
				   S_ISDIR(status.stx_mode) ? "directory" : "file", err);
	if (S_ISDIR(status.stx_mode))
		return found_directory(walker, folder, name, path, &status, verdict, before, err);
	if (!S_ISREG(status.stx_mode) && !S_ISLNK(status.stx_mode))
		return walker_skip(walker, path, SKIP_SPECIAL, special_text(status.stx_mode), err);
	fill_entry(&entry, path, &status);
	if (past_is_same(&scan->past, before, &entry)) {
		item.entry = scan->past.manifest->entries[before];
		item.shared = true;
		return add_item(walker, &item, err);
	}
	if (S_ISLNK(status.stx_mode))
		return found_link(walker, fd, name, path, &status, &entry, before, err);
	past_match(&scan->past, before, &entry);
	item.entry = walker_keep_entry(walker, &entry, err);
	return item.entry == NULL ? -1 : add_item(walker, &item, err);
}
