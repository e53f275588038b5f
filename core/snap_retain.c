/* SPDX-License-Identifier: Apache-2.0 */
/* Retention: which snapshots are too many, or take too much. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/log.h"
#include "core/snap_internal.h"

/* The newest is never dropped; those taken before a run are what a user falls back on. */
static bool
is_protected(const struct snap_list *list, size_t index, const struct snap_limits *limits)
{
	return index == 0 ||
	       (!limits->drop_initial && strcmp(list->items[index]->type, "pre-run") == 0);
}

/* ------------------------------------------------------------------------------------------- sizes
 */

static uint64_t
file_sizes(int dirfd, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(dirfd, "", err);
	uint64_t sum = 0;
	struct dirent *entry;
	struct stat st;

	while (stream != NULL && fs_read_name(stream, &entry, err) > 0) {
		AUTO_CLOSE int fd = -1;

		if (fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (!S_ISDIR(st.st_mode)) {
			sum += (uint64_t) st.st_size;
			continue;
		}
		fd = fs_open_directory(dirfd, entry->d_name, false, NULL);
		sum += fd < 0 ? 0 : file_sizes(fd, NULL);
	}
	return sum;
}

/* What the stores of a workspace take now. */
static uint64_t
store_size(const struct workspace *workspace)
{
	AUTO_CLOSE int fd = fs_open_directory(workspace->state_fd, "store", false, NULL);

	return fd < 0 ? 0 : file_sizes(fd, NULL);
}

static int
add_contents(struct app *app, const struct snap *snap, struct locator_set *set,
	     struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *manifest = NULL;

	return snap_manifest(app->home, snap, &manifest, err) < 0 ? -1
								  : needed_add(set, manifest, err);
}

/* From the newest on, as long as the contents that are needed fit.  How much of the store a content
 * takes is not known of each: the store is shared out by their sizes. */
static int
keep_what_fits(struct app *app, const struct workspace *workspace, const struct snap_list *list,
	       const struct snap_limits *limits, bool *drop, struct moat_error *err)
{
	AUTO_LOCATOR_SET struct locator_set set = {0};
	AUTO_FREE uint64_t *sums = calloc(list->count + 1, sizeof *sums);
	uint64_t size = store_size(workspace);
	double share;

	if (sums == NULL)
		return moat_fail_memory(err);
	if (size <= limits->max_bytes)
		return 0;
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < list->count; i++) {
			if (is_protected(list, i, limits) != (round == 0))
				continue;
			if (add_contents(app, list->items[i], &set, err) < 0)
				return -1;
			sums[i] = set.bytes;
		}
	share = set.bytes == 0 ? 0 : (double) size / (double) set.bytes;
	for (size_t i = 0; i < list->count; i++)
		if (!is_protected(list, i, limits) &&
		    (double) sums[i] * share > (double) limits->max_bytes)
			drop[i] = true;
	return 0;
}

/* --------------------------------------------------------------------------------------- choosing
 */

/* The newest stay; what is protected stays besides, however old. */
static void
keep_count(const struct snap_list *list, const struct snap_limits *limits, bool *drop)
{
	for (size_t i = 0; i < list->count; i++)
		if ((int64_t) i >= limits->keep && !is_protected(list, i, limits))
			drop[i] = true;
}

int
snap_choose(struct app *app, const struct workspace *workspace, const struct snap_limits *limits,
	    struct snap_list *ret, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list list = {0};
	AUTO_FREE bool *drop = NULL;

	if (snap_list_strict(workspace, true, &list, err) < 0)
		return -1;
	drop = calloc(list.count + 1, sizeof *drop);
	if (drop == NULL)
		return moat_fail_memory(err);
	if (limits->keep >= 0)
		keep_count(&list, limits, drop);
	if (limits->max_bytes > 0 && keep_what_fits(app, workspace, &list, limits, drop, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++)
		if (drop[i] && snap_list_append(ret, STEAL(list.items[i]), err) < 0)
			return -1;
	return 0;
}

int
snap_prune(struct app *app, const struct workspace *workspace, const struct snap_limits *limits,
	   struct snap_list *ret, struct moat_error *err)
{
	AUTO_CLOSE int lock = workspace_lock(workspace, err);

	if (lock < 0 || snap_clear_leftovers(app, workspace, NULL, err) < 0 ||
	    snap_choose(app, workspace, limits, ret, err) < 0)
		return -1;
	if (ret->count > 0 && snap_delete_list(app, workspace, ret, err) < 0)
		return -1;
	if (limits->max_bytes > 0 && store_size(workspace) > limits->max_bytes)
		log_warning("what is kept takes more than the limit: the newest snapshot%s",
			    limits->drop_initial ? "" : ", and those taken before runs");
	return 0;
}

void
snap_retain(struct app *app, const struct workspace *workspace, const struct config *config)
{
	struct snap_limits limits = {
		.keep = config->snapshots.max_count > 0 ? config->snapshots.max_count : -1,
		.max_bytes = config->snapshots.max_bytes,
		.drop_initial = config->snapshots.delete_initial};
	AUTO_SNAP_LIST struct snap_list dropped = {0};
	struct moat_error why = MOAT_ERROR_INIT;

	if (limits.keep < 0 && limits.max_bytes == 0)
		return;
	if (snap_prune(app, workspace, &limits, &dropped, &why) < 0) {
		log_warning("snapshots.retention: %s", why.message);
		return;
	}
	for (size_t i = 0; i < dropped.count; i++)
		log_notice("snapshots.retention: deleted %s (%s)", dropped.items[i]->id,
			   dropped.items[i]->type);
}
