/* SPDX-License-Identifier: Apache-2.0 */
/* What a run is to be: from the command line and the configuration to the struct that a runtime
 * gets. */
#ifndef MOAT_CORE_RUNSPEC_H
#define MOAT_CORE_RUNSPEC_H

#include "core/command.h"
#include "core/run.h"

struct strings {
	char **items; /* NULL-terminated, or NULL while empty */
	size_t count;
};

struct runspec {
	struct moat_run_spec run; /* borrows from what is below; complete after runspec_finish() */
	const char *name;         /* asked for, or NULL */
	const char *wished_name;  /* of moat.yaml, or NULL */
	char **argv;
	bool interactive;
	struct strings env, hide;
	struct moat_mount *mounts; /* [0] is the workspace */
	const struct moat_mount **mount_list;
	size_t mount_count;
	struct strings mount_paths; /* what the mounts borrow */
	struct moat_label labels[2];
	const struct moat_label *label_list[3];
};

/* Checks everything that can be checked before anything is made: MOAT_USAGE. */
int
runspec_make(const struct app *app, const struct workspace *workspace, const struct config *config,
	     const struct args *args, struct runspec **ret, struct moat_error *err);
/* What is known once the run has a record and a view.  Those must outlive the spec's use. */
int runspec_finish(struct runspec *spec, const struct run *run, const struct moat_view *view,
		   int dir_fd, const struct moat_config *config, struct moat_error *err);
void runspec_free(struct runspec *spec);

#endif
