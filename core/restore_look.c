/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at a workspace before a restore, also into what its owner has closed. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/restore.h"
#include "core/txn.h"

/* Objects of the user's own that cannot be read as they are, opened for the time of a restore. */
struct openings {
	const struct workspace *workspace;
	const struct manifest *desired;
	const char *const *paths;  /* what the restore is about; NULL or empty: everything */
	struct txn_opening *items; /* paths are owned */
	size_t count, done;        /* done: opened already */
};

static void
openings_free(struct openings *openings)
{
	for (size_t i = 0; i < openings->count; i++)
		free((char *) openings->items[i].path);
	free(openings->items);
}

static bool
is_noted(const struct openings *openings, const char *path)
{
	for (size_t i = openings->done; i < openings->count; i++)
		if (strcmp(openings->items[i].path, path) == 0)
			return true;
	return false;
}

static bool
is_chosen(const char *const *paths, const char *path)
{
	if (paths == NULL || paths[0] == NULL)
		return true;
	for (size_t i = 0; paths[i] != NULL; i++)
		if (text_path_within(path, paths[i]))
			return true;
	return false;
}

/* Chosen, or on the way to what is. */
static bool
is_concerned(const char *const *paths, const char *path)
{
	if (is_chosen(paths, path))
		return true;
	for (size_t i = 0; paths[i] != NULL; i++)
		if (text_path_within(paths[i], path))
			return true;
	return false;
}

bool
restore_is_hidden(const struct manifest_skip *skip, const struct manifest *desired,
		  const char *const *paths)
{
	if (skip->reason != SKIP_UNREADABLE || !is_concerned(paths, skip->path))
		return false;
	/* What the snapshot left out is none of a restore's business, with all that is below. */
	for (size_t i = 0; i < desired->skip_count; i++)
		if (desired->skips[i].reason != SKIP_TORN &&
		    text_path_within(skip->path, desired->skips[i].path))
			return false;
	return true;
}

/* The mode that it is to have when the restore succeeds: see apply_meta() in txn_apply.c. */
static unsigned
mode_after(const struct openings *openings, const char *path, const struct stat *st)
{
	int64_t index =
		is_chosen(openings->paths, path) ? manifest_find(openings->desired, path) : -1;
	const struct moat_entry *entry = index < 0 ? NULL : openings->desired->entries[index];
	bool same_type = entry != NULL && (S_ISDIR(st->st_mode) ? entry->type == MOAT_DIRECTORY
								: entry->type == MOAT_FILE);

	if (!same_type || entry->mode == (st->st_mode & 07777))
		return st->st_mode & 07777;
	return entry->type == MOAT_FILE ? entry->mode & ~06000u : entry->mode;
}

/* Notes one that needs and allows an opening. */
static int
note_closed(struct openings *openings, const char *path, struct moat_error *err)
{
	const char *name;
	AUTO_CLOSE int dirfd = fs_open_parent(openings->workspace->fd, path, &name, NULL);
	struct txn_opening *more;
	struct stat st;
	mode_t needed;

	if (dirfd < 0 || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	needed = S_ISDIR(st.st_mode) ? 0700 : S_ISREG(st.st_mode) ? 0400 : 0;
	if (st.st_uid != geteuid() || (st.st_mode & needed) == needed || is_noted(openings, path))
		return 0;
	more = reallocarray(openings->items, openings->count + 1, sizeof *more);
	if (more == NULL)
		return moat_fail_memory(err);
	openings->items = more;
	more += openings->count;
	more->path = strdup(path);
	more->before = st.st_mode & 07777;
	more->opened = more->before | needed;
	more->after = mode_after(openings, path, &st);
	if (more->path == NULL)
		return moat_fail_memory(err);
	openings->count++;
	return 0;
}

/* What the walk could not read, or the directory that hides it. */
static int
note_hidden(struct openings *openings, const char *path, struct moat_error *err)
{
	AUTO_FREE char *parent = strdup(path);
	size_t before = openings->count;
	char *slash;

	if (parent == NULL)
		return moat_fail_memory(err);
	if (note_closed(openings, path, err) < 0)
		return -1;
	slash = strrchr(parent, '/');
	if (openings->count > before || slash == NULL)
		return 0;
	*slash = '\0';
	return note_closed(openings, parent, err);
}

/* All that is closed as far as one can see by now. */
static int
note_all(struct openings *openings, const struct manifest *live, struct moat_error *err)
{
	for (size_t i = 0; i < live->skip_count; i++)
		if (restore_is_hidden(&live->skips[i], openings->desired, openings->paths) &&
		    note_hidden(openings, live->skips[i].path, err) < 0)
			return -1;
	for (size_t i = 0; i < live->count; i++) {
		const struct moat_entry *entry = live->entries[i];

		if (entry->type == MOAT_FILE && entry->status != MOAT_SAME &&
		    (entry->mode & 0400) == 0 && is_chosen(openings->paths, entry->path) &&
		    note_closed(openings, entry->path, err) < 0)
			return -1;
	}
	return 0;
}

static int
open_noted(struct app *app, struct txn_prelude **prelude, struct openings *openings,
	   struct moat_error *err)
{
	const struct workspace *workspace = openings->workspace;

	if (*prelude == NULL &&
	    txn_prelude_new(app->home, workspace->path, workspace, prelude, err) < 0)
		return -1;
	if (txn_prelude_open(*prelude, openings->items + openings->done,
			     openings->count - openings->done, err) < 0)
		return -1;
	openings->done = openings->count;
	return 0;
}

static void
set_former_modes(const struct openings *openings, const struct manifest *live)
{
	for (size_t i = 0; i < openings->count; i++) {
		int64_t index = manifest_find(live, openings->items[i].path);

		/* Of the walk that was just made. */
		if (index >= 0)
			((struct moat_entry *) live->entries[index])->mode =
				openings->items[i].before;
	}
}

int
restore_look(struct app *app, const struct workspace *workspace, const struct manifest *desired,
	     const char *const *paths, struct txn_prelude **prelude, struct manifest **ret,
	     struct moat_error *err)
{
	CLEANUP(openings_free)
	struct openings openings = {.workspace = workspace, .desired = desired, .paths = paths};

	for (;;) {
		AUTO_MANIFEST struct manifest *live = NULL;

		if (snap_live(workspace, desired, &live, err) < 0 ||
		    (geteuid() != 0 && note_all(&openings, live, err) < 0))
			return -1;
		if (openings.count > openings.done) {
			if (open_noted(app, prelude, &openings, err) < 0)
				return -1;
			continue;
		}
		set_former_modes(&openings, live);
		*ret = STEAL(live);
		return 0;
	}
}
