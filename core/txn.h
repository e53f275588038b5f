/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions: bringing workspaces from one state to another, wholly or not at all, whatever
 * happens meanwhile. docs/transactions.md tells the protocol and why each step is safe. */
#ifndef MOAT_CORE_TXN_H
#define MOAT_CORE_TXN_H

#include <stdbool.h>

#include "common/diff.h"
#include "core/home.h"

struct txn;

/* Where the content of `desired` comes from: extract has entries, place, done, damaged, context
 * set. */
struct txn_source {
	int (*materialise)(void *context, struct moat_extract *extract, struct moat_error *err);
	void *context;
};

struct txn_counts {
	uint64_t added, modified, deleted, meta; /* what happens to the workspace */
	uint64_t kept; /* directories that stay because they hold what the snapshot did not capture
			*/
};

/* Plans to make what `live` shows of the workspace into `desired` (both, and the workspace, are
 * borrowed until txn_free()).  paths: only these and what is below them; NULL: everything.  Nothing
 * is written.  An obstacle made of uncaptured objects is MOAT_CONFLICT; a path that neither side
 * has is MOAT_NOT_FOUND. */
int txn_plan(const struct home *home, const struct workspace *workspace,
	     const struct manifest *live, const struct manifest *desired, const char *const *paths,
	     const struct txn_source *source, struct txn **ret, struct moat_error *err);
const struct txn_counts *txn_counts(const struct txn *txn);
bool txn_is_empty(const struct txn *txn);
/* Visits what will be done, in path order: diff items as the user sees them. */
int txn_visit(const struct txn *txn,
	      int (*visit)(void *context, const struct diff_item *item, struct moat_error *err),
	      void *context, struct moat_error *err);
/* Stage, decide, apply, finish.  On failure the workspace is as it was; if even that could not be
 * had, the message says what was left where.  The workspace's lock must be held. */
int txn_commit(struct txn *txn, struct moat_error *err);
void txn_free(struct txn *txn);
void cleanup_txn(struct txn **txn);
#define AUTO_TXN CLEANUP(cleanup_txn)

struct txn_recovery {
	uint64_t completed, undone, failed;
};

/* Completes or undoes what was interrupted, in every workspace that no living process works on.
 * What cannot be completed now (an unmounted workspace) is counted as failed, with a warning, and
 * stays for the next time. */
int txn_recover(const struct home *home, struct txn_recovery *ret, struct moat_error *err);

#endif
