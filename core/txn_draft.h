/* SPDX-License-Identifier: Apache-2.0 */
/* Work on the way to a plan: txn_plan.c decides what happens to each path, txn_plan_ops.c makes
 * operations of it. */
#ifndef MOAT_CORE_TXN_DRAFT_H
#define MOAT_CORE_TXN_DRAFT_H

#include "core/txn_internal.h"

/* What happens to one path. */
enum action {
	ACT_NONE = 0,
	ACT_DELETE = 1, /* file or link, or a directory if nothing uncaptured is in it */
	ACT_CREATE = 2,
	ACT_REPLACE = 3, /* file or link by file or link */
	ACT_RETYPE =
		4, /* directory by something else, or the other way round: deleted, then created */
	ACT_META = 5
};

struct step {
	int64_t live, desired;
	uint8_t action;
	bool covered; /* comes with a directory above it that is made */
};

/* Work on the way to a plan. */
struct draft {
	struct txn *txn;
	const struct manifest *live, *desired;
	struct step *steps; /* by path; every path of both manifests that is selected */
	size_t count;
	int64_t *live_step, *desired_step; /* index of an entry's step, -1: not selected */
	uint32_t *live_links,
		*desired_links; /* names of the inode in the manifest, by its leader's index */
	bool *kept;         /* per live entry: a directory that stays though it is not desired */
	bool *live_touched; /* per live entry: a directory in which something happens */
	bool *live_used, *desired_used; /* entries that the journal needs */
	int64_t *from_index, *to_index; /* where they are in the plan's manifests */
};

static inline const struct moat_entry *
live_of(const struct draft *draft, const struct step *step)
{
	return step->live < 0 ? NULL : draft->live->entries[step->live];
}

static inline const struct moat_entry *
desired_of(const struct draft *draft, const struct step *step)
{
	return step->desired < 0 ? NULL : draft->desired->entries[step->desired];
}

static inline const char *
step_path(const struct draft *draft, const struct step *step)
{
	return step->live >= 0 ? live_of(draft, step)->path : desired_of(draft, step)->path;
}

/* The index of the directory that the path is in; -1: there is none. */
int64_t draft_parent_index(const struct manifest *manifest, const char *path);
bool draft_is_to_go(const struct draft *draft, int64_t live_index);
int draft_write_ops(struct draft *draft, struct moat_error *err);

#endif
