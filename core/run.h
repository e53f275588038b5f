/* SPDX-License-Identifier: Apache-2.0 */
/* Runs: runs/RUN/{run.json,log.jsonl,exec.jsonl}. */
#ifndef MOAT_CORE_RUN_H
#define MOAT_CORE_RUN_H

#include "core/command.h"
#include "core/json.h"

struct run {
	char id[32];
	char *name;
	const char *state; /* "created", "starting", "running", "stopping", "exited", "failed",
			      "lost" */
	char *runtime, *sandbox;
	char **workspaces; /* NULL-terminated absolute paths */
	char **command;
	char **snapshots;                            /* ids */
	int64_t created_ns, started_ns, finished_ns; /* 0: not yet */
	int exit_code;                               /* -1: none */
	int signal;
	bool interactive, traced;
	bool orphaned; /* read: nobody looks after it any more */
	char *handle;  /* the runtime's, or NULL */
	char *error;   /* why it failed, or NULL */
};

/* A new run in the state "created", with its directory and record, and the lock that says that
 * somebody looks after it.  name NULL: made from `wish', or from the workspace's.  A name that a
 * living run has is MOAT_EXISTS. */
int run_create(const struct home *home, const char *name, const char *wish,
	       const struct workspace *workspace, const char *const *command, struct run **ret,
	       int *ret_lock_fd, struct moat_error *err);
/* Forgets it: the directory with all that is in it. */
int run_remove(const struct home *home, const char *id, struct moat_error *err);
/* Adds to run->snapshots, which is not stored: snapshots name their run. */
int run_note_snapshot(struct run *run, const char *snap, struct moat_error *err);

void run_free(struct run *run);
void cleanup_run(struct run **run);
#define AUTO_RUN CLEANUP(cleanup_run)

struct run_list {
	struct run **items; /* newest first */
	size_t count;
};
void run_list_free(struct run_list *list);
#define AUTO_RUN_LIST CLEANUP(run_list_free)

/* Reads the record.  One whose owner died without ending it is shown as "lost"; nothing is written.
 */
int run_load(const struct home *home, const char *id, struct run **ret, struct moat_error *err);
int run_list(const struct home *home, struct run_list *ret, struct moat_error *err);
/* An exact id, a unique prefix of an id, or a unique name (of a living run, else of any). */
int run_find(const struct home *home, const char *text, struct run **ret, struct moat_error *err);
bool run_is_living(const struct run *run);
int run_save(const struct home *home, const struct run *run, struct moat_error *err);
int run_directory(const struct home *home, const char *id, struct moat_error *err); /* an fd */
json_t *run_json(const struct run *run); /* the fields of CLI.md */

#endif
