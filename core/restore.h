/* SPDX-License-Identifier: Apache-2.0 */
/* Putting a workspace back to a snapshot, in place or beside. */
#ifndef MOAT_CORE_RESTORE_H
#define MOAT_CORE_RESTORE_H

#include "common/diff.h"
#include "core/snap.h"

struct restore_options {
	const char *to;           /* a directory, absent or empty; NULL: in place */
	const char *const *paths; /* only these; NULL or empty: everything */
	bool dry_run, no_safety;
};

/* Does it and prints what CLI.md says: the id of the safety snapshot on stdout, how to undo on
 * stderr. */
int restore_snapshot(struct app *app, const struct snap *snap,
		     const struct restore_options *options, struct moat_error *err);

/* Takes back the transaction of that id, or the last one of the workspace in the current directory
 * (NULL), as long as what it changed is as it left it: else MOAT_CONFLICT.  Of the options only
 * dry_run counts. */
int restore_undo(struct app *app, const char *transaction, const struct restore_options *options,
		 struct moat_error *err);

/* restore_look.c.  The live tree, looked into everywhere that the user can open, but for what the
 * snapshot could not look into either; the manifest has the modes from before.  paths: what the
 * restore is about, as in restore_options; nothing else is opened.  *prelude is made when something
 * has to be opened, and has to be ended by the caller, also on failure. */
int restore_look(struct app *app, const struct workspace *workspace, const struct manifest *desired,
		 const char *const *paths, struct txn_prelude **prelude, struct manifest **ret,
		 struct moat_error *err);
/* A place of the live tree that the restore is about, and that nobody can look into: what it would
 * have to remove, or would write over, is not known. */
bool restore_is_hidden(const struct manifest_skip *skip, const struct manifest *desired,
		       const char *const *paths);

/* The lines of a diff, as people and as programs read them; also for `snapshot diff`. */
struct diff_printer {
	struct app *app;
	json_t *array; /* --json: where items go */
};
int diff_print_item(void *context, const struct diff_item *item, struct moat_error *err);

#endif
