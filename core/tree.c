/* SPDX-License-Identifier: Apache-2.0 */
/* The walk over a workspace.
 *
 * The walk keeps a stack of directories, each with its names read and sorted, so that entries come
 * in the manifest's order and are matched with the previous manifest as in a merge.  Its depth is
 * bounded by memory only: of a deep stack just the last OPEN_FRAMES descriptors are open; the
 * others are opened again by ".." on the way back, and must then be the directories that they were.
 */
#include "core/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/text.h"

#define OPEN_FRAMES 100
#define SUBDIRECTORY (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* Kernels stamp files with the time of the last clock tick, which is up to 10 ms (CONFIG_HZ=100)
 * behind the clock that the walk reads. */
#define TICK_SLACK_NS 20000000
/* Filesystems that keep whole seconds (ext4 with small inodes), or two (FAT), cut the rest off. */
#define COARSE_SLACK_NS 2000000000

/* ----------------------------------------------------------------------------------- the stack */

/* A directory that is being walked. */
struct frame {
	int fd; /* -1: closed, too far up */
	struct statx status;
	struct buf names;   /* d_type and name with NUL, one after the other */
	const char **items; /* each points to a d_type; sorted by name */
	size_t count, next;
	size_t path_size; /* how much of scan.path is this directory's */
	const struct filter_scope *scope;
};

struct scan {
	struct filter *filter;
	const struct manifest *previous; /* or NULL */
	size_t cursor;                   /* in previous: the first that is not before `path` */
	struct manifest *manifest;
	struct statx root;
	struct buf path; /* of the object at hand */
	struct frame *frames;
	size_t depth, allocated;
};

static struct frame *
top(struct scan *scan)
{
	return &scan->frames[scan->depth - 1];
}

static int
compare_items(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a + 1, *(const char *const *) b + 1);
}

/* Reads the names of an open directory.  On failure errno tells why. */
static int
read_names(struct frame *frame)
{
	int fd = fcntl(frame->fd, F_DUPFD_CLOEXEC, 0);
	AUTO_CLOSEDIR DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	size_t at = 0;

	if (stream == NULL) {
		cleanup_close(&fd);
		return -1;
	}
	for (;;) {
		errno = 0;
		entry = readdir(stream);
		if (entry == NULL && errno != 0)
			return -1;
		if (entry == NULL)
			break;
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		buf_append(&frame->names, &entry->d_type, 1);
		buf_append(&frame->names, entry->d_name, strlen(entry->d_name) + 1);
		frame->count++;
	}
	frame->items = calloc(frame->count + 1, sizeof *frame->items);
	if (frame->names.failed || frame->items == NULL) {
		errno = ENOMEM;
		return -1;
	}
	for (size_t i = 0; i < frame->count; i++) {
		frame->items[i] = frame->names.data + at;
		at += 1 + strlen(frame->items[i] + 1) + 1;
	}
	qsort(frame->items, frame->count, sizeof *frame->items, compare_items);
	return 0;
}

static void
free_frame(struct frame *frame)
{
	cleanup_close(&frame->fd);
	buf_free(&frame->names);
	free(frame->items);
}

/* Takes the frame over. */
static int
push(struct scan *scan, const struct frame *frame, struct moat_error *err)
{
	struct frame *grown;

	if (scan->depth == scan->allocated) {
		scan->allocated = scan->allocated == 0 ? 32 : scan->allocated * 2;
		grown = reallocarray(scan->frames, scan->allocated, sizeof *grown);
		if (grown == NULL)
			return moat_fail_memory(err);
		scan->frames = grown;
	}
	scan->frames[scan->depth++] = *frame;
	if (scan->depth > OPEN_FRAMES) {
		struct frame *far = &scan->frames[scan->depth - 1 - OPEN_FRAMES];

		cleanup_close(&far->fd);
		far->fd = -1;
	}
	return 0;
}

static bool
same_object(const struct statx *a, const struct statx *b)
{
	return a->stx_dev_major == b->stx_dev_major && a->stx_dev_minor == b->stx_dev_minor &&
	       a->stx_ino == b->stx_ino;
}

/* statx(2) without following anything; name "" is dirfd itself.  The mount comes with it. */
static int
status_of(int dirfd, const char *name, struct statx *ret)
{
	return statx(dirfd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		     STATX_BASIC_STATS | STATX_MNT_ID, ret);
}

/* Leaves the directory at the top, and sees to it that the one below is open. */
static int
pop(struct scan *scan, struct moat_error *err)
{
	struct frame *frame = top(scan), *parent = frame - 1;
	struct statx status;

	if (scan->depth > 1 && parent->fd < 0) {
		parent->fd = openat(frame->fd, "..", SUBDIRECTORY);
		if (parent->fd < 0 || status_of(parent->fd, "", &status) < 0)
			return moat_fail_errno(err, "open `%s/..'", scan->path.data);
		if (!same_object(&status, &parent->status))
			return moat_fail(err, MOAT_CHANGED,
					 "`%s' was moved while the workspace was read; try again",
					 scan->path.data);
	}
	free_frame(frame);
	scan->depth--;
	return 0;
}

/* -------------------------------------------------------------------------------- one entry */

static int
skip(struct scan *scan, int reason, const char *detail, struct moat_error *err)
{
	return manifest_add_skip(scan->manifest, scan->path.data, reason, detail, err);
}

static int
skip_unreadable(struct scan *scan, struct moat_error *err)
{
	char text[256];

	return skip(scan, SKIP_UNREADABLE, strerror_r(errno, text, sizeof text), err);
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

static void
fill_entry(struct moat_entry *entry, const struct scan *scan, const struct statx *status)
{
	entry->path = scan->path.data;
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

/* The entry of this path in the previous manifest, or NULL.  Paths only ever go forward. */
static const struct moat_entry *
find_previous(struct scan *scan)
{
	const struct manifest *previous = scan->previous;
	int order;

	for (; previous != NULL && scan->cursor < previous->count; scan->cursor++) {
		order = manifest_compare(previous->entries[scan->cursor]->path, scan->path.data);
		if (order == 0)
			return previous->entries[scan->cursor];
		if (order > 0)
			break;
	}
	return NULL;
}

/* git's racy-clean rule: what was modified when, or after, the previous walk began may have been
 * modified again without a trace in its times. */
static bool
is_racy(const struct manifest *previous, int64_t sec, uint32_t nsec)
{
	int64_t limit = previous->started_ns - (nsec == 0 ? COARSE_SLACK_NS : TICK_SLACK_NS);
	int64_t limit_sec = limit / 1000000000, limit_nsec = limit % 1000000000;

	return sec > limit_sec || (sec == limit_sec && (int64_t) nsec >= limit_nsec);
}

static bool
same_metadata(const struct moat_entry *a, const struct moat_entry *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->size == b->size &&
	       a->mtime_sec == b->mtime_sec && a->mtime_nsec == b->mtime_nsec &&
	       a->ctime_sec == b->ctime_sec && a->ctime_nsec == b->ctime_nsec && a->ino == b->ino;
}

/* Links and directories were read whole: their times hide nothing. */
static bool
same_text_and_xattrs(const struct moat_entry *a, const struct moat_entry *b)
{
	if (a->type == MOAT_SYMLINK)
		return strcmp(a->link_target, b->link_target) == 0;
	return a->xattrs_size == b->xattrs_size &&
	       (a->xattrs_size == 0 || memcmp(a->xattrs, b->xattrs, a->xattrs_size) == 0);
}

/* Sets the entry's status; what is the same takes over what is known of its content. */
static void
match_previous(struct scan *scan, struct moat_entry *entry)
{
	const struct moat_entry *before = find_previous(scan), *content;
	const struct manifest_skip *skipped;

	entry->status = MOAT_NEW;
	if (before == NULL || before->type != entry->type)
		return;
	entry->status = MOAT_MODIFIED;
	if (!same_metadata(before, entry))
		return;
	if (entry->type != MOAT_FILE) {
		if (same_text_and_xattrs(before, entry))
			entry->status = MOAT_SAME;
		return;
	}
	if (is_racy(scan->previous, entry->mtime_sec, entry->mtime_nsec) ||
	    is_racy(scan->previous, entry->ctime_sec, entry->ctime_nsec))
		return;
	/* What the previous snapshot could not read, or read torn, is to be read now. */
	content = manifest_content(scan->previous, before);
	skipped = manifest_find_skip(scan->previous, content->path);
	if (content->flags == 0 || skipped != NULL)
		return;
	entry->status = MOAT_SAME;
	entry->flags = content->flags;
	entry->xattrs = content->xattrs;
	entry->xattrs_size = content->xattrs_size;
	memcpy(entry->locator, content->locator, sizeof entry->locator);
	memcpy(entry->hash, content->hash, sizeof entry->hash);
}

static int
add_entry(struct scan *scan, struct moat_entry *entry, struct moat_error *err)
{
	match_previous(scan, entry);
	return manifest_add(scan->manifest, entry) == NULL ? moat_fail_memory(err) : 0;
}

/* --------------------------------------------------------------------------------- the walk */

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

/* Directories of transactions in the root of the workspace. */
static bool
is_stage(const struct scan *scan, const char *name)
{
	const size_t prefix = strlen(TREE_STAGE_PREFIX);

	return scan->depth == 1 && strncmp(name, TREE_STAGE_PREFIX, prefix) == 0 &&
	       strspn(name + prefix, "0123456789abcdef") == 12 && name[prefix + 12] == '\0';
}

static int
visit_link(struct scan *scan, int dirfd, const char *name, const struct statx *status,
	   struct moat_error *err)
{
	AUTO_FREE char *text = read_link(dirfd, name, status->stx_size);
	struct moat_entry entry = {0};

	if (text == NULL && errno == ENOENT)
		return 0;
	if (text == NULL && errno == EINVAL)
		return skip(scan, SKIP_VANISHED, "replaced by something else", err);
	if (text == NULL && errno == EACCES)
		return skip_unreadable(scan, err);
	if (text == NULL)
		return moat_fail_errno(err, "read link `%s'", scan->path.data);
	fill_entry(&entry, scan, status);
	entry.link_target = text;
	entry.size = strlen(text);
	return add_entry(scan, &entry, err);
}

/* Adds the entry of a directory, with its extended attributes when it is open. */
static int
add_directory(struct scan *scan, int fd, const struct statx *status, struct moat_error *err)
{
	struct arena arena = {0};
	struct moat_entry entry = {0};
	int result = 0;

	fill_entry(&entry, scan, status);
	if (fd >= 0)
		result = tree_xattrs(fd, &arena, &entry.xattrs, &entry.xattrs_size, err);
	if (result < 0)
		(void) moat_wrap(err, "`%s'", scan->path.data);
	else
		result = add_entry(scan, &entry, err);
	arena_free(&arena);
	return result;
}

/* Goes into an open directory, whose entry has been added.  Takes fd. */
static int
enter(struct scan *scan, int fd, const struct statx *status, const struct filter_scope *scope,
      struct moat_error *err)
{
	struct frame frame = {
		.fd = fd, .status = *status, .path_size = scan->path.size, .scope = scope};
	int result;

	if (read_names(&frame) == 0)
		result = push(scan, &frame, err);
	else if (errno == EACCES || errno == EPERM)
		result = skip_unreadable(scan, err) < 0 ? -1 : 1;
	else
		result = moat_fail_errno(err, "read directory `%s'", scan->path.data);
	if (result != 0)
		free_frame(&frame);
	return result < 0 ? -1 : 0;
}

static int
visit_directory(struct scan *scan, int dirfd, const char *name, struct statx *status,
		enum filter_verdict verdict, struct moat_error *err)
{
	AUTO_CLOSE int fd = openat(dirfd, name, SUBDIRECTORY);
	const struct filter_scope *scope;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 && (errno == ENOTDIR || errno == ELOOP))
		return skip(scan, SKIP_VANISHED, "replaced by something else", err);
	if (fd < 0 && (errno == EACCES || errno == EPERM)) {
		if (skip_unreadable(scan, err) < 0)
			return -1;
		return add_directory(scan, -1, status, err);
	}
	/* The one that was opened counts, should it be another. */
	if (fd < 0 || status_of(fd, "", status) < 0)
		return moat_fail_errno(err, "open directory `%s'", scan->path.data);
	if (is_elsewhere(scan, status))
		return skip(scan, SKIP_MOUNT, "directory", err);
	if (add_directory(scan, fd, status, err) < 0 ||
	    filter_enter(scan->filter, top(scan)->scope, scan->path.data, fd, verdict, &scope,
			 err) < 0)
		return -1;
	return enter(scan, steal_fd(&fd), status, scope, err);
}

/* The object of that name in the directory at the top; scan->path is its path. */
static int
visit(struct scan *scan, const char *name, unsigned char type_hint, struct moat_error *err)
{
	const struct frame *frame = top(scan);
	struct moat_entry entry = {0};
	enum filter_verdict verdict;
	struct statx status;
	int missing = status_of(frame->fd, name, &status) < 0 ? errno : 0;

	if (missing == ENOENT)
		return 0;
	if (missing != 0 && missing != EACCES)
		return moat_fail_errno(err, "stat `%s'", scan->path.data);
	verdict = filter_check(scan->filter, frame->scope, scan->path.data, name,
			       missing != 0 ? type_hint == DT_DIR : S_ISDIR(status.stx_mode));
	if (verdict == FILTER_IGNORE)
		return 0;
	if (missing != 0) {
		errno = missing;
		return skip_unreadable(scan, err);
	}
	if (is_elsewhere(scan, &status))
		return skip(scan, SKIP_MOUNT, S_ISDIR(status.stx_mode) ? "directory" : "file", err);
	if (S_ISDIR(status.stx_mode))
		return visit_directory(scan, frame->fd, name, &status, verdict, err);
	if (S_ISLNK(status.stx_mode))
		return visit_link(scan, frame->fd, name, &status, err);
	if (!S_ISREG(status.stx_mode))
		return skip(scan, SKIP_SPECIAL, special_text(status.stx_mode), err);
	fill_entry(&entry, scan, &status);
	return add_entry(scan, &entry, err);
}

static int
walk(struct scan *scan, struct moat_error *err)
{
	while (scan->depth > 0) {
		struct frame *frame = top(scan);
		const char *item;

		scan->path.size = frame->path_size;
		scan->path.data[frame->path_size] = '\0';
		if (frame->next == frame->count) {
			if (pop(scan, err) < 0)
				return -1;
			continue;
		}
		item = frame->items[frame->next++];
		if (is_stage(scan, item + 1))
			continue;
		if (frame->path_size > 0)
			buf_append(&scan->path, "/", 1);
		buf_string(&scan->path, item + 1);
		if (buf_check(&scan->path, err) < 0 ||
		    visit(scan, item + 1, (unsigned char) item[0], err) < 0)
			return -1;
	}
	return 0;
}

static int
begin(struct scan *scan, int rootfd, struct moat_error *err)
{
	AUTO_CLOSE int fd = openat(rootfd, ".", SUBDIRECTORY);
	const struct filter_scope *scope;

	scan->path.data = buf_steal(&scan->path);
	if (scan->path.data == NULL)
		return moat_fail_memory(err);
	scan->path.allocated = 1;
	if (fd < 0 || status_of(fd, "", &scan->root) < 0)
		return moat_fail_errno(err, "open the workspace");
	if (filter_root(scan->filter, &scope, err) < 0 ||
	    add_directory(scan, fd, &scan->root, err) < 0)
		return -1;
	return enter(scan, steal_fd(&fd), &scan->root, scope, err);
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
		    same_metadata(entry, leader)) {
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
	struct scan scan = {.filter = filter, .previous = previous, .manifest = manifest};
	int result;

	if (manifest == NULL)
		return moat_fail_memory(err);
	manifest->started_ns = time_now_ns();
	result = begin(&scan, rootfd, err);
	if (result == 0)
		result = walk(&scan, err);
	while (scan.depth > 0)
		free_frame(&scan.frames[--scan.depth]);
	free(scan.frames);
	buf_free(&scan.path);
	if (result < 0 || filter_store(filter, manifest, err) < 0 ||
	    manifest_seal(manifest, err) < 0)
		return -1;
	settle_leaders(manifest);
	*ret = STEAL(manifest);
	return 0;
}
