/* SPDX-License-Identifier: Apache-2.0 */
/* What finished restores left for `moat undo': workspaces/HASH/undo/TXN/{undo.json,plan}.
 *
 * A record is whole once it has a plan, which a finishing transaction moves there (core/txn.c).
 * The last one is the newest, an undo included: so undoing twice is a redo.  Records beyond the
 * newest UNDO_KEEP, and those whose safety snapshot is gone, are dropped. */
#ifndef MOAT_CORE_UNDO_H
#define MOAT_CORE_UNDO_H

#include "common/manifest.h"
#include "core/home.h"
#include "core/txn.h"

#define UNDO_KEEP 16

struct undo_record {
	char id[32];
	char hash[17];  /* of the workspace */
	char *snapshot; /* what was restored */
	char *safety;   /* what was there before; NULL: nobody knows */
	char *undoes;   /* the transaction that it took back, or NULL */
	int64_t finished_ns;
};

void undo_record_free(struct undo_record *record);
#define AUTO_UNDO_RECORD CLEANUP(undo_record_free)

/* The newest of a workspace. */
int undo_last(const struct workspace *workspace, struct undo_record *ret, struct moat_error *err);
/* By its id or a unique beginning of it, in any workspace. */
int undo_find(const struct home *home, const char *text, struct undo_record *ret,
	      struct moat_error *err);

/* What a transaction did to the paths that it changed. */
struct undo_scope;

/* live: through the eyes of the safety snapshot.  What the transaction left must be there still,
 * else MOAT_CONFLICT, with the first path that is not so. */
int undo_scope_new(const struct home *home, const struct workspace *workspace,
		   const struct undo_record *record, const struct manifest *live,
		   struct undo_scope **ret, struct moat_error *err);
void undo_scope_free(struct undo_scope *scope);
void cleanup_undo_scope(struct undo_scope **scope);
#define AUTO_UNDO_SCOPE CLEANUP(cleanup_undo_scope)
/* What those paths are to be again, with the content that the safety snapshot holds. */
int undo_desired(const struct undo_scope *scope, const struct manifest *live,
		 const struct manifest *safety, struct manifest **ret, struct moat_error *err);
/* The paths, sorted; borrowed. */
const char *const *undo_paths(const struct undo_scope *scope, size_t *ret_count);

#endif
