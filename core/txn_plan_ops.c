/* SPDX-License-Identifier: Apache-2.0 */
/* What was decided about each path, as the operations of the plan, in the order of doing. */
#include <stdlib.h>
#include <unistd.h>

#include "core/txn_draft.h"

static void
touch_parent(struct draft *draft, const char *path)
{
	int64_t live = draft_parent_index(draft->live, path);

	if (live >= 0)
		draft->live_touched[live] = true;
}

/* Marks what the plan's manifests must hold: the entries of every step, and their parents. */
static void
use(const struct manifest *manifest, bool *used, int64_t index)
{
	while (index >= 0 && !used[index]) {
		used[index] = true;
		index = draft_parent_index(manifest, manifest->entries[index]->path);
	}
}

static int
copy_used(const struct manifest *source, const bool *used, int64_t *index, struct manifest **ret,
	  struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *copy = manifest_new();
	int64_t next = 0;

	if (copy == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < source->count; i++) {
		struct moat_entry *entry;

		index[i] = -1;
		if (!used[i])
			continue;
		/* The manifests of a transaction outlive its plan. */
		entry = manifest_add_copy(copy, (struct manifest *) source, source->entries[i]);
		if (entry == NULL)
			return moat_fail_memory(err);
		/* Same order, so the same index after sealing; groups of names do not matter any
		 * more. */
		entry->leader = MOAT_NO_LEADER;
		entry->nlink = 1;
		index[i] = next++;
	}
	if (manifest_seal(copy, err) < 0)
		return -1;
	*ret = STEAL(copy);
	return 0;
}

static int
add_op(const struct draft *draft, enum op_kind kind, int64_t live, int64_t desired,
       struct moat_error *err)
{
	struct op *op =
		plan_add(&draft->txn->member.plan, kind, live < 0 ? -1 : draft->from_index[live],
			 desired < 0 ? -1 : draft->to_index[desired]);

	return op == NULL ? moat_fail_memory(err) : 0;
}

static bool
is_unwritable(const struct moat_entry *directory)
{
	return directory->type == MOAT_DIRECTORY && geteuid() != 0 &&
	       (directory->mode & 0700) != 0700;
}

/* Closed before, or closed afterwards, which is in the way of who has to take it back. */
static bool
wants_opening(const struct draft *draft, size_t live)
{
	int64_t step = draft->live_step[live];
	const struct moat_entry *desired = step < 0 ? NULL : desired_of(draft, &draft->steps[step]);

	return is_unwritable(draft->live->entries[live]) ||
	       (draft->live->entries[live]->type == MOAT_DIRECTORY && desired != NULL &&
		is_unwritable(desired));
}

static int
add_openings(const struct draft *draft, struct moat_error *err)
{
	for (size_t i = 0; i < draft->live->count; i++)
		if (draft->live_touched[i] && wants_opening(draft, i) &&
		    add_op(draft, OP_OPEN, (int64_t) i, -1, err) < 0)
			return -1;
	return 0;
}

static int
add_removals(const struct draft *draft, struct moat_error *err)
{
	for (size_t i = draft->count; i-- > 0;) {
		const struct step *step = &draft->steps[i];

		if ((step->action == ACT_DELETE || step->action == ACT_RETYPE) &&
		    add_op(draft,
			   live_of(draft, step)->type == MOAT_DIRECTORY ? OP_RMDIR : OP_DELETE,
			   step->live, -1, err) < 0)
			return -1;
	}
	return 0;
}

static int
add_creations(const struct draft *draft, struct moat_error *err)
{
	for (size_t i = 0; i < draft->count; i++) {
		const struct step *step = &draft->steps[i];
		int result = 0;

		if (step->covered)
			continue;
		if (step->action == ACT_CREATE || step->action == ACT_RETYPE)
			result = add_op(draft, OP_CREATE, -1, step->desired, err);
		else if (step->action == ACT_REPLACE)
			result = add_op(draft, OP_REPLACE, step->live, step->desired, err);
		if (result < 0)
			return -1;
	}
	return 0;
}

static int
add_file_meta(const struct draft *draft, struct moat_error *err)
{
	for (size_t i = 0; i < draft->count; i++)
		if (draft->steps[i].action == ACT_META &&
		    live_of(draft, &draft->steps[i])->type != MOAT_DIRECTORY &&
		    add_op(draft, OP_META, draft->steps[i].live, draft->steps[i].desired, err) < 0)
			return -1;
	return 0;
}

/* Every directory that is new, that differs, or in which something happened; deepest first. */
static int
add_directory_meta(const struct draft *draft, struct moat_error *err)
{
	size_t l = draft->live->count, d = draft->desired->count;

	/* A merge from the end: by path, each directory of either side once. */
	while (l > 0 || d > 0) {
		int order = l == 0   ? -1
			    : d == 0 ? 1
				     : manifest_compare(draft->live->entries[l - 1]->path,
							draft->desired->entries[d - 1]->path);
		int64_t live = order >= 0 ? (int64_t) --l : -1;
		int64_t desired = order <= 0 ? (int64_t) --d : -1;
		int64_t index = live >= 0 ? draft->live_step[live] : draft->desired_step[desired];
		const struct step *step = index < 0 ? NULL : &draft->steps[index];
		bool touched =
			live >= 0 && draft->live_touched[live] && !draft_is_to_go(draft, live);
		bool made = step != NULL && !step->covered &&
			    (step->action == ACT_CREATE || step->action == ACT_RETYPE);
		int64_t from = made ? -1 : live, to = step == NULL ? -1 : desired;

		if (to >= 0 && draft->desired->entries[to]->type != MOAT_DIRECTORY)
			continue;
		if (to < 0 && (live < 0 || draft->live->entries[live]->type != MOAT_DIRECTORY))
			continue;
		if ((made || touched || (step != NULL && step->action == ACT_META)) &&
		    add_op(draft, OP_DIRMETA, from, to, err) < 0)
			return -1;
	}
	return 0;
}

int
draft_write_ops(struct draft *draft, struct moat_error *err)
{
	struct plan *plan = &draft->txn->member.plan;
	bool any = false;

	for (size_t i = 0; i < draft->count; i++) {
		const struct step *step = &draft->steps[i];

		if (step->action == ACT_NONE)
			continue;
		any = true;
		if (step->covered) { /* So is its parent used. */
			draft->desired_used[step->desired] = true;
			continue;
		}
		if (step->action != ACT_META)
			touch_parent(draft, step_path(draft, step));
		use(draft->live, draft->live_used, step->live);
		use(draft->desired, draft->desired_used, step->desired);
	}
	if (!any)
		return 0;
	for (size_t i = 0; i < draft->live->count; i++)
		if (draft->live_touched[i]) {
			use(draft->live, draft->live_used, (int64_t) i);
			use(draft->desired, draft->desired_used,
			    manifest_find(draft->desired, draft->live->entries[i]->path));
		}
	use(draft->live, draft->live_used, 0);
	use(draft->desired, draft->desired_used, 0);
	if (copy_used(draft->live, draft->live_used, draft->from_index, &plan->from, err) < 0 ||
	    copy_used(draft->desired, draft->desired_used, draft->to_index, &plan->to, err) < 0)
		return -1;
	draft->txn->desired_of = calloc(plan->to->count, sizeof *draft->txn->desired_of);
	if (draft->txn->desired_of == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < draft->desired->count; i++)
		if (draft->to_index[i] >= 0)
			draft->txn->desired_of[draft->to_index[i]] = (int64_t) i;
	if (add_openings(draft, err) < 0 || add_removals(draft, err) < 0 ||
	    add_creations(draft, err) < 0 || add_file_meta(draft, err) < 0)
		return -1;
	return add_directory_meta(draft, err);
}
