/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of a workspace: workspaces/HASH/snapshots/SNAP/{snapshot.json,manifest}, the content in
 * workspaces/HASH/store/BACKEND/ by a snapshot plugin. */
#ifndef MOAT_CORE_SNAP_H
#define MOAT_CORE_SNAP_H

#include "common/manifest.h"
#include "core/backend.h"
#include "core/command.h"
#include "core/json.h"

struct snap {
	char id[32];
	char *type;      /* "pre-run", "manual", "git", "build", "idle", "safety", "post-run" */
	char *label;     /* or NULL */
	char *backend;   /* plugin name */
	char *ref;       /* the backend's */
	char *run;       /* run id, or NULL */
	char *workspace; /* absolute path */
	char workspace_hash[17];
	char *parent; /* id of the snapshot before it in the store, or NULL */
	char *base;   /* id of the one that its manifest is written against, or NULL */
	int64_t created_ns;
	uint64_t files, bytes, stored_bytes, skipped;
};

struct snap *snap_copy(const struct snap *snap); /* NULL: no memory */

struct snap_list {
	struct snap **items; /* newest first */
	size_t count;
};

void snap_free(struct snap *snap);
void cleanup_snap(struct snap **snap);
#define AUTO_SNAP CLEANUP(cleanup_snap)
void snap_list_free(struct snap_list *list);
#define AUTO_SNAP_LIST CLEANUP(snap_list_free)

/* All of one workspace; a damaged record is a warning that names it, not a failure. */
int snap_list(const struct workspace *workspace, struct snap_list *ret, struct moat_error *err);
/* The same; unreadable() is told of damaged records instead. */
typedef void snap_unreadable_fn(void *context, const char *id, const char *why);
int snap_list_with(const struct workspace *workspace, struct snap_list *ret,
		   snap_unreadable_fn *unreadable, void *context, struct moat_error *err);
/* All of every workspace in the home. */
int snap_list_all(const struct home *home, struct snap_list *ret, struct moat_error *err);
/* An id or a unique prefix of one, in any workspace. */
int snap_find(const struct home *home, const char *text, struct snap **ret, struct moat_error *err);
/* The manifest, checked by its digest. */
int snap_manifest(const struct home *home, const struct snap *snap, struct manifest **ret,
		  struct moat_error *err);
json_t *snap_json(const struct snap *snap); /* the fields of CLI.md */

/* Content that does not come from the workspace (an import). */
struct snap_source {
	struct manifest *manifest; /* sealed; borrowed, and changed as content is read */
	/* Opens the content of an entry, a file without leader, for reading; [any thread]. */
	int (*open)(void *context, const struct moat_entry *entry, struct moat_error *err);
	void *context;
};

struct snap_options {
	const char *type;
	const char *label;           /* or NULL */
	const char *run;             /* or NULL */
	const struct config *config; /* or NULL: defaults */
	const struct manifest
		*like; /* capture by the rules of this manifest; NULL: those of the tree */
	const struct snap_source *source; /* NULL: the workspace itself */
	bool keep_modes; /* as the walk saw them, whatever files have when they are read */
	bool locked;     /* the caller holds the workspace's lock */
};

/* Takes a snapshot, under the workspace's lock; nothing is left when it fails.  What was skipped or
 * torn is warned of. */
int snap_create(struct app *app, const struct workspace *workspace,
		const struct snap_options *options, struct snap **ret, struct moat_error *err);
/* Before `snap' is restored in place: what is there now, by the rules of `desired', the manifest of
 * snap.  live: of snap_live(workspace, desired); it stays as it is.  Returns an earlier snapshot
 * when nothing has changed since.  The workspace's lock must be held. */
int snap_safety(struct app *app, const struct workspace *workspace, const struct snap *snap,
		const struct manifest *desired, const struct manifest *live, struct snap **ret,
		struct moat_error *err);
/* How many snapshots are kept, or how much of them. */
struct snap_limits {
	int64_t keep;       /* so many; -1: all */
	uint64_t max_bytes; /* of the stores; 0: no limit */
	bool drop_initial;  /* also those of type pre-run, which else always stay */
};
/* What is beyond the limits, newest first; the newest of all never is. */
int snap_choose(struct app *app, const struct workspace *workspace,
		const struct snap_limits *limits, struct snap_list *ret, struct moat_error *err);
/* Deletes it, under the workspace's lock. */
int snap_prune(struct app *app, const struct workspace *workspace, const struct snap_limits *limits,
	       struct snap_list *ret, struct moat_error *err);
/* By the configuration (snapshots.retention), after a snapshot was taken.  What goes is told; a
 * failure is a warning. */
void snap_retain(struct app *app, const struct workspace *workspace, const struct config *config);

/* Deletes all of one workspace's, newest first or not; the lock must be held. */
int snap_delete_list(struct app *app, const struct workspace *workspace,
		     const struct snap_list *list, struct moat_error *err);
/* Removes it, and from the store what no other snapshot needs. */
int snap_delete(struct app *app, const struct snap *snap, struct moat_error *err);
struct snap_recovery {
	uint64_t cleared, rebuilt, failed;
	bool provisional; /* what fails is tried again later: neither told nor counted */
};
/* Removes what an interrupted capture, deletion or import left.  The workspace's lock must be held.
 * What cannot be removed is warned of, and counted.  ret: added to; may be NULL. */
int snap_clear_leftovers(struct app *app, const struct workspace *workspace,
			 struct snap_recovery *ret, struct moat_error *err);
/* Makes the records that are missing or damaged again, from what the store holds.  The workspace's
 * lock must be held.  ret_rebuilt: increased. */
int snap_rebuild(struct app *app, const struct workspace *workspace, uint64_t *ret_rebuilt,
		 struct moat_error *err);
/* app_home(), and does so for every workspace whose list of snapshots is gone as a whole, before
 * anybody looks into it. */
int snap_open_home(struct app *app, struct moat_error *err);
/* Clears and rebuilds in every workspace that nobody works in just now.  What could not be done is
 * warned of and counted. */
int snap_recover(struct app *app, struct snap_recovery *ret, struct moat_error *err);

/* Gives back content of the snapshot: extract has entries, place, done, damaged and context; ref is
 * filled in here. */
int snap_materialise(struct app *app, const struct snap *snap, struct moat_extract *extract,
		     struct moat_error *err);

/* Looks whether all that snapshots promise is still there: contents, manifests, records.  The lock
 * of the workspace at hand is held from one to the next. */
struct snap_verifier;
struct snap_verifier *snap_verifier_new(struct app *app); /* NULL: no memory */
void cleanup_snap_verifier(struct snap_verifier **verifier);
#define AUTO_SNAP_VERIFIER CLEANUP(cleanup_snap_verifier)
/* damaged() is told of each file that is lost.  -1: something else is damaged (MOAT_CORRUPT), or it
 * could not be looked at. */
int snap_verify(struct snap_verifier *verifier, const struct snap *snap,
		void (*damaged)(void *context, const char *path, const char *why), void *context,
		struct moat_error *err);

/* What is in the live tree now, seen through the snapshot's filter, with the content of changed
 * files hashed where a comparison needs it. */
int snap_live(const struct workspace *workspace, const struct manifest *snapshot,
	      struct manifest **ret, struct moat_error *err);

#endif
