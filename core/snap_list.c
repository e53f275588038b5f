/* SPDX-License-Identifier: Apache-2.0 */
/* The records of snapshots: listing them, finding one, and the newest. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/log.h"
#include "core/snap_internal.h"

void
snap_list_free(struct snap_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		snap_free(list->items[i]);
	free(list->items);
	*list = (struct snap_list){0};
}

static int
newest_first(const void *a, const void *b)
{
	const struct snap *left = *(struct snap *const *) a, *right = *(struct snap *const *) b;

	if (left->created_ns != right->created_ns)
		return left->created_ns < right->created_ns ? 1 : -1;
	return strcmp(left->id, right->id);
}

void
snap_list_sort(struct snap_list *list)
{
	if (list->count > 0)
		qsort(list->items, list->count, sizeof(*list->items), newest_first);
}

int
snap_list_append(struct snap_list *list, struct snap *snap, struct moat_error *err)
{
	struct snap **more = reallocarray(list->items, list->count + 1, sizeof(*more));

	if (more == NULL) {
		snap_free(snap);
		return moat_fail_memory(err);
	}
	list->items = more;
	list->items[list->count++] = snap;
	return 0;
}

/* strict: a record that cannot be read is a failure, since what it needs cannot be known; else it
 * is told to unreadable(), or warned of. */
static int
list_directory(int all_fd, const char *hash, bool strict, snap_unreadable_fn *unreadable,
	       void *context, struct snap_list *list, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(all_fd, "", err);
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return moat_wrap(err, "the snapshots");
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		struct moat_error local = MOAT_ERROR_INIT;
		struct snap *snap = NULL;

		if (!snap_is_id(entry->d_name))
			continue;
		if (snap_read_record(all_fd, entry->d_name, entry->d_name, hash, &snap, &local) <
			    0 ||
		    (strict && snap_check_record(all_fd, entry->d_name, snap, &local) < 0)) {
			snap_free(snap);
			/* Deleted by somebody else just now is no damage. */
			bool gone =
				local.code == MOAT_NOT_FOUND &&
				faccessat(all_fd, entry->d_name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
				errno == ENOENT;

			if (!gone && strict)
				return moat_error_set(
					err, local.code, local.sys_errno,
					"%s; `moat recover' may make its record again",
					local.message);
			if (!gone && unreadable != NULL)
				unreadable(context, entry->d_name, local.message);
			else if (!gone)
				log_warning("%s", local.message);
			continue;
		}
		if (snap_list_append(list, snap, err) < 0)
			return -1;
	}
	return next < 0 ? moat_wrap(err, "the snapshots") : 0;
}

/* A workspace that nobody knows has none. */
static int
list_workspace(const struct workspace *workspace, bool strict, snap_unreadable_fn *unreadable,
	       void *context, struct snap_list *ret, struct moat_error *err)
{
	AUTO_CLOSE int all_fd = -1;
	AUTO_SNAP_LIST struct snap_list list = {0};

	if (workspace->state_fd >= 0) {
		all_fd = snap_directory(workspace, err);
		if (all_fd < 0 || list_directory(all_fd, workspace->hash, strict, unreadable,
						 context, &list, err) < 0)
			return -1;
	}
	snap_list_sort(&list);
	*ret = list;
	list = (struct snap_list){0};
	return 0;
}

int
snap_list_strict(const struct workspace *workspace, bool strict, struct snap_list *ret,
		 struct moat_error *err)
{
	return list_workspace(workspace, strict, NULL, NULL, ret, err);
}

int
snap_list_with(const struct workspace *workspace, struct snap_list *ret,
	       snap_unreadable_fn *unreadable, void *context, struct moat_error *err)
{
	return list_workspace(workspace, false, unreadable, context, ret, err);
}

int
snap_list(const struct workspace *workspace, struct snap_list *ret, struct moat_error *err)
{
	return snap_list_strict(workspace, false, ret, err);
}

int
snap_list_all(const struct home *home, struct snap_list *ret, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(home->workspaces_fd, "", err);
	AUTO_SNAP_LIST struct snap_list list = {0};
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return moat_wrap(err, "the workspaces in `%s'", home->path);
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		AUTO_CLOSE int state_fd = -1, all_fd = -1;
		struct moat_error why = MOAT_ERROR_INIT;

		if (entry->d_name[0] == '.')
			continue;
		state_fd = fs_open_directory(home->workspaces_fd, entry->d_name, false, &why);
		all_fd = state_fd < 0 ? -1 : fs_open_directory(state_fd, "snapshots", false, &why);
		if (all_fd < 0 && why.code != MOAT_NOT_FOUND)
			return moat_error_set(err, why.code, why.sys_errno, "workspaces/%s: %s",
					      entry->d_name, why.message);
		/* A workspace without snapshots yet. */
		if (all_fd < 0)
			continue;
		if (list_directory(all_fd, entry->d_name, false, NULL, NULL, &list, err) < 0)
			return -1;
	}
	if (next < 0)
		return moat_wrap(err, "the workspaces in `%s'", home->path);
	snap_list_sort(&list);
	*ret = list;
	list = (struct snap_list){0};
	return 0;
}

/* ------------------------------------------------------------------------------------- by its id
 */

/* The snapshots whose ids begin with a text, by the names of their directories. */
struct match {
	const char *text;
	char id[SNAP_NAME_MAX], other[SNAP_NAME_MAX]; /* "": none */
	char hash[SNAP_NAME_MAX];                     /* of the workspace that has `id' */
};

/* True when it is the one, whatever else there is. */
static bool
match_name(struct match *match, const char *name, const char *hash)
{
	if (!snap_is_id(name) || strncmp(name, match->text, strlen(match->text)) != 0)
		return false;
	if (match->id[0] != '\0') {
		snprintf(match->other, sizeof match->other, "%.31s", name);
		return false;
	}
	snprintf(match->id, sizeof match->id, "%.31s", name);
	snprintf(match->hash, sizeof match->hash, "%.31s", hash);
	return strcmp(name, match->text) == 0;
}

/* 1: it is found, and there is no need to look further. */
static int
match_workspace(struct match *match, const struct home *home, const char *hash,
		struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = NULL;
	AUTO_BUF struct buf path = {0};
	struct moat_error why = MOAT_ERROR_INIT;
	struct dirent *entry;
	int next;

	buf_format(&path, "%s/snapshots", hash);
	if (buf_check(&path, err) < 0)
		return -1;
	stream = fs_open_stream(home->workspaces_fd, path.data, &why);
	/* A workspace without snapshots yet. */
	if (stream == NULL)
		return why.code == MOAT_NOT_FOUND
			       ? 0
			       : moat_error_set(err, why.code, why.sys_errno, "workspaces/%s: %s",
						hash, why.message);
	while ((next = fs_read_name(stream, &entry, err)) > 0)
		if (match_name(match, entry->d_name, hash))
			return 1;
	return next;
}

static int
match_all(struct match *match, const struct home *home, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(home->workspaces_fd, "", err);
	struct dirent *entry;
	int next = stream == NULL ? -1 : 0, found = 0;

	while (stream != NULL && found == 0 && (next = fs_read_name(stream, &entry, err)) > 0)
		if (entry->d_name[0] != '.')
			found = match_workspace(match, home, entry->d_name, err);
	return found < 0 ? -1 : next < 0 ? moat_wrap(err, "the workspaces in `%s'", home->path) : 0;
}

int
snap_find(const struct home *home, const char *text, struct snap **ret, struct moat_error *err)
{
	struct match match = {.text = text};
	AUTO_CLOSE int fd = -1;
	AUTO_BUF struct buf path = {0};

	if (text[0] != '\0' && match_all(&match, home, err) < 0)
		return -1;
	if (match.other[0] != '\0' && strcmp(match.id, text) != 0)
		return moat_fail(err, MOAT_USAGE,
				 "`%s' is the beginning of several snapshots, %s and %s among "
				 "them; give more of the id",
				 text, match.id, match.other);
	if (match.id[0] == '\0')
		return moat_fail(err, MOAT_NOT_FOUND,
				 "there is no snapshot `%s'; `moat snapshot list' shows those of a "
				 "workspace",
				 text);
	buf_format(&path, "%s/snapshots", match.hash);
	if (buf_check(&path, err) < 0)
		return -1;
	fd = fs_open_beneath(home->workspaces_fd, path.data, O_RDONLY | O_DIRECTORY, 0, err);
	return fd < 0 ? -1 : snap_read_record(fd, match.id, match.id, match.hash, ret, err);
}

/* ---------------------------------------------------------------------------------- the newest
 */

/* A directory of a record is made when the snapshot is taken, and does not change.  Where times are
 * coarse, or were set, the records of so many decide. */
#define RECENT_BATCH 8

static int
latest_first(const void *a, const void *b)
{
	const struct snap_dated *left = a, *right = b;

	if (left->mtime.tv_sec != right->mtime.tv_sec)
		return left->mtime.tv_sec < right->mtime.tv_sec ? 1 : -1;
	if (left->mtime.tv_nsec != right->mtime.tv_nsec)
		return left->mtime.tv_nsec < right->mtime.tv_nsec ? 1 : -1;
	return strcmp(left->id, right->id);
}

static int
add_dated(struct snap_recent *recent, const char *id, struct moat_error *err)
{
	struct snap_dated *item;
	struct stat st;

	if (!snap_is_id(id) || fstatat(recent->all_fd, id, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (recent->count == recent->allocated) {
		size_t allocated = recent->allocated == 0 ? 32 : recent->allocated * 2;
		struct snap_dated *more = reallocarray(recent->items, allocated, sizeof *more);

		if (more == NULL)
			return moat_fail_memory(err);
		recent->items = more;
		recent->allocated = allocated;
	}
	item = &recent->items[recent->count++];
	snprintf(item->id, sizeof item->id, "%.31s", id);
	item->mtime = st.st_mtim;
	return 0;
}

int
snap_recent_open(struct snap_recent *recent, const struct workspace *workspace,
		 struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = NULL;
	struct dirent *entry;
	int next;

	recent->all_fd = snap_directory(workspace, err);
	stream = recent->all_fd < 0 ? NULL : fs_open_stream(recent->all_fd, "", err);
	if (stream == NULL)
		return moat_wrap(err, "the snapshots");
	while ((next = fs_read_name(stream, &entry, err)) > 0)
		if (add_dated(recent, entry->d_name, err) < 0)
			return -1;
	if (next < 0)
		return moat_wrap(err, "the snapshots");
	if (recent->count > 0)
		qsort(recent->items, recent->count, sizeof *recent->items, latest_first);
	recent->hash = workspace->hash;
	return 0;
}

void
snap_recent_close(struct snap_recent *recent)
{
	snap_list_free(&recent->batch);
	cleanup_close(&recent->all_fd);
	free(recent->items);
}

static int
read_batch(struct snap_recent *recent, struct moat_error *err)
{
	size_t end = recent->at + RECENT_BATCH;

	snap_list_free(&recent->batch);
	recent->given = 0;
	for (; recent->at < recent->count && recent->at < end; recent->at++) {
		const char *id = recent->items[recent->at].id;
		struct moat_error why = MOAT_ERROR_INIT;
		struct snap *snap = NULL;

		if (snap_read_record(recent->all_fd, id, id, recent->hash, &snap, &why) == 0) {
			if (snap_list_append(&recent->batch, snap, err) < 0)
				return -1;
		} else if (faccessat(recent->all_fd, id, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
			log_warning("%s", why.message);
		} /* else somebody has just deleted it */
	}
	snap_list_sort(&recent->batch);
	return 0;
}

int
snap_recent_next(struct snap_recent *recent, const struct snap **ret, struct moat_error *err)
{
	while (recent->given == recent->batch.count) {
		if (recent->at == recent->count)
			return 0;
		if (read_batch(recent, err) < 0)
			return -1;
	}
	*ret = recent->batch.items[recent->given++];
	return 1;
}
