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
	int64_t created_ns;
	uint64_t files, bytes, stored_bytes, skipped;
};

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
	bool locked;                      /* the caller holds the workspace's lock */
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
/* Removes it, and from the store what no other snapshot needs. */
int snap_delete(struct app *app, const struct snap *snap, struct moat_error *err);
/* Removes what an interrupted capture or deletion left.  The workspace's lock must be held. */
int
snap_clear_leftovers(struct app *app, const struct workspace *workspace, struct moat_error *err);

/* Gives back content of the snapshot: extract has entries, place, done, damaged and context; ref is
 * filled in here. */
int snap_materialise(struct app *app, const struct snap *snap, struct moat_extract *extract,
		     struct moat_error *err);

/* Reads all content back and compares it with the manifest; damaged() is told of each file that is
 * lost.  -1: it could not be looked at. */
int snap_verify(struct app *app, const struct snap *snap,
		void (*damaged)(void *context, const char *path, const char *why), void *context,
		struct moat_error *err);

/* What is in the live tree now, seen through the snapshot's filter, with the content of changed
 * files hashed where a comparison needs it. */
int snap_live(const struct workspace *workspace, const struct manifest *snapshot,
	      struct manifest **ret, struct moat_error *err);

#endif
