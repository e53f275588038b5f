/* SPDX-License-Identifier: Apache-2.0 */
/* moat's own directory: $MOAT_HOME, else $XDG_STATE_HOME/moat, else ~/.local/state/moat.
 *
 *     runs/RUN/{run.json,log.jsonl,exec.jsonl}
 *     workspaces/HASH/{workspace.json,lock,snapshots/SNAP/{snapshot.json,manifest},store/BACKEND/}
 *     txn/TXN/...                       see core/txn.h
 *
 * Everything 0700 and 0600. */
#ifndef MOAT_CORE_HOME_H
#define MOAT_CORE_HOME_H

#include <stdbool.h>

#include "common/error.h"
#include "common/manifest.h"

struct home {
	char *path; /* absolute, links resolved */
	int fd, runs_fd, workspaces_fd, txn_fd;
	struct manifest_cache *bases; /* core/snap's */
};

/* explicit_path: --home, or NULL.  Made when missing.  One that belongs to somebody else, or that
 * others can write, is refused. */
int home_open(const char *explicit_path, struct home **ret, struct moat_error *err);
/* Whether it has been made. */
bool home_exists(const char *explicit_path);
void home_close(struct home *home);

/* A workspace, checked. */
struct workspace {
	char *path;    /* absolute, links resolved */
	char hash[17]; /* names its directory below workspaces/ */
	int fd;        /* the workspace's root */
	int state_fd;  /* workspaces/HASH; -1: none, see workspace_look() */
	uint64_t dev, ino;
};

/* Resolves and checks `path` (NULL: the current directory): it must be a directory, and neither /,
 * nor a home directory or above one, nor inside moat's home or above it; each is MOAT_USAGE with
 * what to do instead.  Its state is made when it is missing. */
int workspace_open(const struct home *home, const char *path, struct workspace **ret,
		   struct moat_error *err);
/* The same for who only looks: of a workspace that is not known nothing is made, and state_fd is
 * -1. */
int workspace_look(const struct home *home, const char *path, struct workspace **ret,
		   struct moat_error *err);
/* The checks of workspace_open() alone, for a path that is resolved. */
int workspace_check_place(const struct home *home, const char *path, struct moat_error *err);
/* Any directory, unchecked and without state (state_fd -1): where `--to` restores to. */
int workspace_open_at(const char *path, struct workspace **ret, struct moat_error *err);
/* By the hash of a known workspace (its path may be gone: fd is -1 then). */
int workspace_open_known(const struct home *home, const char *hash, struct workspace **ret,
			 struct moat_error *err);
/* Whether its record is, byte for byte, what was written once. */
int workspace_check_record(const struct workspace *workspace, struct moat_error *err);
/* Removes the state of a workspace that somebody died in the making of.  *ret_empty: there was, or
 * is, nothing in it yet but the word for whom it is. */
int workspace_clear_unfinished(const struct home *home, const char *hash, bool *ret_empty,
			       struct moat_error *err);
void workspace_close(struct workspace *workspace);
void cleanup_workspace(struct workspace **workspace);
#define AUTO_WORKSPACE CLEANUP(cleanup_workspace)
/* The lock that everything which changes the workspace or its store holds.  Waits for it, with a
 * notice when it takes long.  Returns the descriptor that holds it. */
int workspace_lock(const struct workspace *workspace, struct moat_error *err);

#endif
