/* SPDX-License-Identifier: Apache-2.0 */
/* What has to be done so that the live tree becomes what a manifest says: decided here, before
 * anything is written.
 *
 * What the snapshot did not capture is an obstacle, never a victim: a directory that holds
 * something uncaptured stays where it was to be deleted, and where a file is to be in its place the
 * whole is refused. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/log.h"
#include "core/txn_draft.h"

static void
draft_free(struct draft *draft)
{
	free(draft->steps);
	free(draft->live_step);
	free(draft->desired_step);
	free(draft->live_links);
	free(draft->desired_links);
	free(draft->kept);
	free(draft->live_touched);
	free(draft->live_used);
	free(draft->desired_used);
	free(draft->from_index);
	free(draft->to_index);
}
#define AUTO_DRAFT CLEANUP(draft_free)

static int
draft_allocate(struct draft *draft, struct moat_error *err)
{
	size_t live = draft->live->count + 1, desired = draft->desired->count + 1;

	draft->steps = calloc(live + desired, sizeof *draft->steps);
	draft->live_step = calloc(live, sizeof *draft->live_step);
	draft->desired_step = calloc(desired, sizeof *draft->desired_step);
	draft->live_links = calloc(live, sizeof *draft->live_links);
	draft->desired_links = calloc(desired, sizeof *draft->desired_links);
	draft->kept = calloc(live, sizeof *draft->kept);
	draft->live_touched = calloc(live, sizeof *draft->live_touched);
	draft->live_used = calloc(live, sizeof *draft->live_used);
	draft->desired_used = calloc(desired, sizeof *draft->desired_used);
	draft->from_index = calloc(live, sizeof *draft->from_index);
	draft->to_index = calloc(desired, sizeof *draft->to_index);
	if (draft->steps == NULL || draft->live_step == NULL || draft->desired_step == NULL ||
	    draft->live_links == NULL || draft->desired_links == NULL || draft->kept == NULL ||
	    draft->live_touched == NULL || draft->live_used == NULL ||
	    draft->desired_used == NULL || draft->from_index == NULL || draft->to_index == NULL)
		return moat_fail_memory(err);
	return 0;
}

/* --------------------------------------------------------------------------------- which paths */

/* One of a sorted list, or a directory that one of it needs and that is not there. */
static bool
is_listed(const char *path, const char *const *paths, size_t count, bool live)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (manifest_compare(paths[middle], path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count &&
	       (strcmp(paths[low], path) == 0 || (!live && text_path_within(paths[low], path)));
}

/* Chosen, or a directory that what was chosen needs and that is not there. */
static bool
is_selected(const char *path, const char *const *paths, size_t exact, bool live, bool desired)
{
	if (exact > 0)
		return is_listed(path, paths, exact, live);
	if (paths == NULL || paths[0] == NULL)
		return true;
	for (size_t i = 0; paths[i] != NULL; i++)
		if (text_path_within(path, paths[i]) ||
		    (!live && desired && text_path_within(paths[i], path)))
			return true;
	return false;
}

static int
check_paths(const struct draft *draft, const char *const *paths, size_t exact,
	    struct moat_error *err)
{
	for (size_t i = 0; exact == 0 && paths != NULL && paths[i] != NULL; i++)
		if (manifest_find(draft->live, paths[i]) < 0 &&
		    manifest_find(draft->desired, paths[i]) < 0)
			return moat_fail(
				err, MOAT_NOT_FOUND,
				"`%s' is neither in the snapshot nor among the captured files "
				"of the workspace",
				paths[i]);
	return 0;
}

/* The steps, by path: a merge of both manifests. */
static void
merge(struct draft *draft, const char *const *paths, size_t exact)
{
	const struct manifest *live = draft->live, *desired = draft->desired;
	size_t l = 0, d = 0;

	while (l < live->count || d < desired->count) {
		struct step step = {-1, -1, ACT_NONE, false};
		int order = l == live->count      ? 1
			    : d == desired->count ? -1
						  : manifest_compare(live->entries[l]->path,
								     desired->entries[d]->path);

		if (order <= 0)
			step.live = (int64_t) l++;
		if (order >= 0)
			step.desired = (int64_t) d++;
		if (step.live >= 0)
			draft->live_step[step.live] = -1;
		if (step.desired >= 0)
			draft->desired_step[step.desired] = -1;
		if (!is_selected(step_path(draft, &step), paths, exact, step.live >= 0,
				 step.desired >= 0))
			continue;
		if (step.live >= 0)
			draft->live_step[step.live] = (int64_t) draft->count;
		if (step.desired >= 0)
			draft->desired_step[step.desired] = (int64_t) draft->count;
		draft->steps[draft->count++] = step;
	}
}

/* -------------------------------------------------------------------------------- what differs */

static size_t
leader_of(const struct manifest *manifest, size_t index)
{
	uint64_t leader = manifest->entries[index]->leader;

	return leader == MOAT_NO_LEADER ? index : (size_t) leader;
}

static void
count_links(const struct manifest *manifest, uint32_t *links)
{
	for (size_t i = 0; i < manifest->count; i++)
		if (manifest->entries[i]->type != MOAT_DIRECTORY)
			links[leader_of(manifest, i)]++;
}

static bool
content_differs(const struct draft *draft, const struct moat_entry *live,
		const struct moat_entry *desired)
{
	return diff_entries(draft->live, live, draft->desired, desired) == DIFF_MODIFIED;
}

static void
compare(struct draft *draft, struct step *step)
{
	const struct moat_entry *live = live_of(draft, step), *desired = desired_of(draft, step);

	if (desired == NULL) {
		step->action = ACT_DELETE;
	} else if (live == NULL) {
		step->action = ACT_CREATE;
	} else if (live->type != desired->type) {
		step->action = live->type == MOAT_DIRECTORY || desired->type == MOAT_DIRECTORY
				       ? ACT_RETYPE
				       : ACT_REPLACE;
	} else if (live->type != MOAT_DIRECTORY && content_differs(draft, live, desired)) {
		step->action = ACT_REPLACE;
	} else if (!meta_equal(live, desired)) {
		step->action = ACT_META;
	}
	/* One that is there stays when nothing else of the mode changes; none is given. */
	if (live != NULL && desired != NULL && desired->type == MOAT_FILE &&
	    live->type == MOAT_FILE && step->action != ACT_REPLACE &&
	    (desired->mode & 06000) != 0 && live->mode != desired->mode)
		log_warning("setuid and setgid bits are not restored: %s", desired->path);
}

/* Files with several names: when the names of a group are not the same set as before, or its
 * content differs, every name of it is replaced, since a rename gives each a new inode. */
static void
compare_links(struct draft *draft)
{
	bool *broken = draft->desired_used; /* lent for this; zero again at the end */
	const struct manifest *desired = draft->desired, *live = draft->live;

	for (size_t i = 0; i < desired->count; i++) {
		const struct step *step;
		size_t leader, live_leader;

		if (desired->entries[i]->type == MOAT_DIRECTORY || draft->desired_step[i] < 0)
			continue;
		step = &draft->steps[draft->desired_step[i]];
		leader = leader_of(desired, i);
		if (step->action == ACT_CREATE || step->action == ACT_REPLACE ||
		    step->action == ACT_RETYPE) {
			broken[leader] = true;
			continue;
		}
		live_leader = leader_of(live, (size_t) step->live);
		if (draft->live_links[live_leader] != draft->desired_links[leader])
			broken[leader] = true;
		else if (manifest_find(live, desired->entries[leader]->path) < 0 ||
			 leader_of(live,
				   (size_t) manifest_find(live, desired->entries[leader]->path)) !=
				 live_leader)
			broken[leader] = true;
	}
	for (size_t i = 0; i < desired->count; i++) {
		struct step *step;

		if (desired->entries[i]->type == MOAT_DIRECTORY || draft->desired_step[i] < 0 ||
		    !broken[leader_of(desired, i)])
			continue;
		step = &draft->steps[draft->desired_step[i]];
		if (step->action == ACT_NONE || step->action == ACT_META)
			step->action = ACT_REPLACE;
	}
	memset(broken, 0, desired->count * sizeof *broken);
}

/* ------------------------------------------------------------------------------------ obstacles */

int64_t
draft_parent_index(const struct manifest *manifest, const char *path)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *parent = NULL;

	if (path[0] == '\0')
		return -1;
	parent = strndup(path, slash == NULL ? 0 : (size_t) (slash - path));
	return parent == NULL ? -1 : manifest_find(manifest, parent);
}

bool
draft_is_to_go(const struct draft *draft, int64_t live_index)
{
	int64_t step = live_index < 0 ? -1 : draft->live_step[live_index];

	return step >= 0 && !draft->kept[live_index] &&
	       (draft->steps[step].action == ACT_DELETE || draft->steps[step].action == ACT_RETYPE);
}

/* Does the directory hold anything that will not be deleted?  *ret_name: one such, freed by the
 * caller; "" when nobody can tell. */
static int
holds_uncaptured(const struct draft *draft, const struct moat_entry *directory, char **ret_name,
		 struct moat_error *err)
{
	struct moat_error local = MOAT_ERROR_INIT;
	AUTO_CLOSEDIR DIR *stream =
		fs_open_stream(draft->txn->workspace->fd, directory->path, &local);
	struct dirent *entry;
	int next;

	*ret_name = NULL;
	if (stream == NULL && local.code == MOAT_NOT_FOUND)
		return 0;
	/* Nor could the walk see what is in it. */
	if (stream == NULL && local.code == MOAT_PERMISSION &&
	    manifest_find_skip(draft->live, directory->path) != NULL) {
		*ret_name = strdup("");
		return *ret_name == NULL ? moat_fail_memory(err) : 0;
	}
	if (stream == NULL)
		return moat_error_set(err, local.code, local.sys_errno, "%s", local.message);
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		AUTO_BUF struct buf path = {0};

		buf_format(&path, "%s%s%s", directory->path, directory->path[0] == '\0' ? "" : "/",
			   entry->d_name);
		if (buf_check(&path, err) < 0)
			return -1;
		if (draft_is_to_go(draft, manifest_find(draft->live, path.data)))
			continue;
		*ret_name = strdup(entry->d_name);
		return *ret_name == NULL ? moat_fail_memory(err) : 0;
	}
	return next < 0 ? moat_wrap(err, "`%s'", directory->path) : 0;
}

/* From the deepest directory up: what stays makes its parents stay. */
static int
find_kept(struct draft *draft, struct moat_error *err)
{
	for (size_t i = draft->count; i-- > 0;) {
		struct step *step = &draft->steps[i];
		const struct moat_entry *live = live_of(draft, step);
		AUTO_FREE char *name = NULL;

		if (live == NULL || live->type != MOAT_DIRECTORY ||
		    (step->action != ACT_DELETE && step->action != ACT_RETYPE))
			continue;
		if (holds_uncaptured(draft, live, &name, err) < 0)
			return -1;
		if (name == NULL)
			continue;
		if (step->action == ACT_RETYPE)
			return moat_fail(
				err, MOAT_CONFLICT,
				"`%s' is to be a %s again, and the directory there now %s%s%s, "
				"which the snapshot does not have; nothing was changed, move it "
				"away and try again",
				live->path,
				desired_of(draft, step)->type == MOAT_FILE ? "file" : "link",
				name[0] == '\0' ? "cannot be read" : "holds `", name,
				name[0] == '\0' ? "" : "'");
		draft->kept[step->live] = true;
		step->action = ACT_NONE;
		if (name[0] == '\0')
			draft->txn->hidden = live->path;
		else
			draft->txn->counts.kept++;
	}
	return 0;
}

/* Where a path is to be made: a directory must be above it, and nothing that the walk did not see
 * in its place. */
static int
check_place(const struct draft *draft, const char *path, struct moat_error *err)
{
	int64_t parent = draft_parent_index(draft->live, path);
	const struct manifest_skip *skip = manifest_find_skip(draft->live, path);
	AUTO_CLOSE int dirfd = -1;
	const char *name;
	struct stat st;

	if (skip != NULL)
		return moat_fail(err, MOAT_CONFLICT,
				 "`%s' cannot be put back: %s (%s) stands in the way; nothing was "
				 "changed, move it away and try again",
				 path, skip_text(skip->reason), skip->detail);
	if (parent < 0 || draft_is_to_go(draft, parent))
		return 0;
	if (draft->live->entries[parent]->type != MOAT_DIRECTORY)
		return moat_fail(err, MOAT_CONFLICT,
				 "`%s' cannot be put back: `%s' above it is no directory now; "
				 "restore that, too",
				 path, draft->live->entries[parent]->path);
	dirfd = fs_open_parent(draft->txn->workspace->fd, path, &name, NULL);
	if (dirfd < 0 || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return moat_fail(err, MOAT_CONFLICT,
			 "`%s' cannot be put back: something that the snapshot's rules ignore "
			 "stands there; nothing was changed, move it away and try again",
			 path);
}

/* What lies below a directory that is made comes with it: nothing can be in its way. */
static void
mark_covered(struct draft *draft)
{
	const char *top = NULL;

	for (size_t i = 0; i < draft->count; i++) {
		struct step *step = &draft->steps[i];

		step->covered = top != NULL && step->action == ACT_CREATE &&
				text_path_within(desired_of(draft, step)->path, top);
		if (!step->covered && (step->action == ACT_CREATE || step->action == ACT_RETYPE) &&
		    desired_of(draft, step)->type == MOAT_DIRECTORY)
			top = desired_of(draft, step)->path;
	}
}

/* Where something is to be made, nothing uncaptured may stand. */
static int
check_obstacles(const struct draft *draft, struct moat_error *err)
{
	for (size_t i = 0; i < draft->count; i++) {
		const struct step *step = &draft->steps[i];

		if (step->action == ACT_CREATE && !step->covered &&
		    check_place(draft, desired_of(draft, step)->path, err) < 0)
			return -1;
	}
	return 0;
}

/* ------------------------------------------------------------------------------ what users see */

static void
count_change(struct txn_counts *counts, enum diff_change shown)
{
	switch (shown) {
	case DIFF_ADDED:
		counts->added++;
		break;
	case DIFF_DELETED:
		counts->deleted++;
		break;
	case DIFF_MODIFIED:
	case DIFF_TYPE:
		counts->modified++;
		break;
	case DIFF_MODE:
	case DIFF_SAME:
		counts->meta++;
		break;
	}
}

static int
list_changes(struct draft *draft, struct moat_error *err)
{
	struct txn *txn = draft->txn;

	txn->changes = calloc(draft->count + 1, sizeof *txn->changes);
	if (txn->changes == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < draft->count; i++) {
		const struct step *step = &draft->steps[i];
		struct change *change = &txn->changes[txn->change_count];

		if (step->action == ACT_NONE)
			continue;
		change->path = step_path(draft, step);
		change->live = step->live;
		change->desired = step->desired;
		change->shown = diff_entries(draft->live, live_of(draft, step), draft->desired,
					     desired_of(draft, step));
		count_change(&txn->counts, change->shown);
		txn->change_count++;
	}
	return 0;
}

int
plan_make(struct txn *txn, const char *const *paths, size_t exact, struct moat_error *err)
{
	AUTO_DRAFT struct draft draft = {.txn = txn, .live = txn->live, .desired = txn->desired};

	if (draft_allocate(&draft, err) < 0 || check_paths(&draft, paths, exact, err) < 0)
		return -1;
	merge(&draft, paths, exact);
	count_links(draft.live, draft.live_links);
	count_links(draft.desired, draft.desired_links);
	for (size_t i = 0; i < draft.count; i++)
		compare(&draft, &draft.steps[i]);
	compare_links(&draft);
	if (find_kept(&draft, err) < 0)
		return -1;
	mark_covered(&draft);
	if (check_obstacles(&draft, err) < 0 || draft_write_ops(&draft, err) < 0)
		return -1;
	return list_changes(&draft, err);
}
