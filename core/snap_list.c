/* SPDX-License-Identifier: Apache-2.0 */
/* The records of snapshots: listing them, finding one. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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

int
snap_find(const struct home *home, const char *text, struct snap **ret, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list list = {0};
	struct snap **found = NULL;

	if (snap_list_all(home, &list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++) {
		if (strncmp(list.items[i]->id, text, strlen(text)) != 0 || text[0] == '\0')
			continue;
		if (strcmp(list.items[i]->id, text) == 0) {
			found = &list.items[i];
			break;
		}
		if (found != NULL)
			return moat_fail(
				err, MOAT_USAGE,
				"`%s' is the beginning of several snapshots, %s and %s among "
				"them; give more of the id",
				text, (*found)->id, list.items[i]->id);
		found = &list.items[i];
	}
	if (found == NULL)
		return moat_fail(err, MOAT_NOT_FOUND,
				 "there is no snapshot `%s'; `moat snapshot list' shows those of a "
				 "workspace",
				 text);
	*ret = STEAL(*found);
	return 0;
}
