/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions: bringing workspaces from one state to another, wholly or not at all, whatever
 * happens meanwhile. docs/transactions.md tells the protocol and why each step is safe. */
#ifndef MOAT_CORE_TXN_H
#define MOAT_CORE_TXN_H

#include <stdbool.h>

#include "common/diff.h"
#include "core/home.h"

struct txn;
struct txn_prelude;

/* Where the content of `desired` comes from: extract has entries, place, done, damaged, context
 * set. */
struct txn_source {
	int (*materialise)(void *context, struct moat_extract *extract, struct moat_error *err);
	void *context;
	/* Where it comes by clones: a directory of the filesystem on which they take no room; -1.
	 */
	int clones_fd;
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
/* The same for exactly these paths, sorted by manifest_compare(), not what is below them. */
int txn_plan_exactly(const struct home *home, const struct workspace *workspace,
		     const struct manifest *live, const struct manifest *desired,
		     const char *const *paths, size_t path_count, const struct txn_source *source,
		     struct txn **ret, struct moat_error *err);
const struct txn_counts *txn_counts(const struct txn *txn);
bool txn_is_empty(const struct txn *txn);
/* A directory that would have to go, and that nobody can look into, so that it would stay; NULL:
 * none.  Borrowed. */
const char *txn_hidden(const struct txn *txn);
/* Visits what will be done, in path order: diff items as the user sees them. */
int txn_visit(const struct txn *txn,
	      int (*visit)(void *context, const struct diff_item *item, struct moat_error *err),
	      void *context, struct moat_error *err);
/* What `moat undo' is to know of it; borrowed until txn_commit().  Without this call there is no
 * record.  safety NULL: nothing can be undone; undoes NULL: it is no undo. */
void txn_record(struct txn *txn, const char *snapshot, const char *safety, const char *undoes);
/* Its journal becomes that of the transaction, with what is in it. */
void txn_use_prelude(struct txn *txn, struct txn_prelude *prelude);
/* Stage, decide, apply, finish.  On failure the workspace is as it was; if even that could not be
 * had, the message says what was left where.  The workspace's lock must be held. */
int txn_commit(struct txn *txn, struct moat_error *err);
void txn_free(struct txn *txn);
void cleanup_txn(struct txn **txn);
#define AUTO_TXN CLEANUP(cleanup_txn)

/* What has to be changed before there can be a plan: closed objects that are opened, a directory
 * that is made to restore into.  It is noted, on disk, before it is done, and changed back by
 * txn_prelude_end(), or a recovery, unless a transaction took it over and came to its end. */
struct txn_opening {
	const char *path;
	unsigned before, opened, after; /* modes; after: when the transaction succeeds */
};
/* path: absolute; workspace: NULL when it is still to be made; both borrowed. */
int txn_prelude_new(const struct home *home, const char *path, const struct workspace *workspace,
		    struct txn_prelude **ret, struct moat_error *err);
int txn_prelude_open(struct txn_prelude *prelude, const struct txn_opening *openings, size_t count,
		     struct moat_error *err);
int txn_prelude_make(struct txn_prelude *prelude, struct moat_error *err);
void txn_prelude_end(struct txn_prelude *prelude);
void cleanup_txn_prelude(struct txn_prelude **prelude);
#define AUTO_TXN_PRELUDE CLEANUP(cleanup_txn_prelude)

struct txn_recovery {
	uint64_t completed, undone, failed;
};

/* Completes or undoes what was interrupted, in every workspace that no living process works on.
 * What cannot be completed now (an unmounted workspace) is counted as failed, with a warning, and
 * stays for the next time. */
int txn_recover(const struct home *home, struct txn_recovery *ret, struct moat_error *err);

#endif
