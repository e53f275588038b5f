/* SPDX-License-Identifier: Apache-2.0 */
/* A workspace, a home, and a command of moat's that is to be disturbed; and what must hold after
 * it.
 *
 * A scene is set up once and then put back as often as needed.  What is the same after a point as
 * it was before is not touched, so that snapshots find their files unchanged, as in real life. */
#ifndef TESTS_FAULT_SCENE_H
#define TESTS_FAULT_SCENE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../tools/picture.h"
#include "inject.h"
#include "tree.h"

#define SCENE_SNAPSHOTS 8
#define SCENE_LISTS 4
#define SCENE_ARGUMENTS 8

/* One row of the table of commands. */
struct scene_command {
	const char *title;
	/* What happened before: c snapshot create, r run, e edit, b restore of the first snapshot.
	 */
	const char *setup;
	/* %1, %2 are the snapshots in the order of their making. */
	const char *arguments[SCENE_ARGUMENTS];
	const char *needs; /* a subcommand whose --help must name it, or NULL */
	bool changes;      /* the workspace; else it must never change */
	bool first;        /* the workspace is not known yet: an empty place for it may be left */
	bool safety;       /* takes a safety snapshot first, which may be there alone */
};

/* Directories, which are made and removed by the scene. */
struct scene_place {
	const char *title, *workspace, *home;
	const char *files; /* of the scene's own */
};

struct scene {
	const struct scene_command *command;
	struct scene_place place;
	char *workspace, *home, *base;    /* paths; base has the files of the scene's own */
	char *program, *plugins, *script; /* moat; its snapshot plugin; moat with all plugins */
	const char *argv[SCENE_ARGUMENTS + 2];
	char *environment[16];
	size_t environment_count;
	struct tree workspace_tree, home_tree; /* as before the command */
	uint64_t workspace_signature, home_signature;
	char snapshots[SCENE_SNAPSHOTS][32]; /* their ids */
	size_t snapshot_count;
	struct picture before, after; /* of the workspace */
	char *old_lists[SCENE_LISTS]; /* the names that may be in the home while it is old */
	char *new_list;
};

enum scene_state { SCENE_OLD, SCENE_NEW, SCENE_MIXED };

/* Makes directories, snapshots and pictures, and runs the command once, undisturbed.  False when
 * the command or what it needs is not there.  Ends the program when the undisturbed command is
 * wrong. */
bool scene_open(struct scene *scene, const struct scene_command *command,
		const struct scene_place *place);
void scene_close(struct scene *scene);
/* Everything as it was before the command. */
void scene_reset(struct scene *scene);

/* What the command would be run with, and where its output goes (out, err below base). */
struct inject scene_inject(const struct scene *scene);
/* Runs moat by itself, its output in `out` and `err`; the wait status. */
int scene_moat(struct scene *scene, const char *const *argv, char *const *environment);
/* The same with arguments; a NULL ends them.  Ends the program when it is not successful. */
void scene_must(struct scene *scene, ...);
/* What the last one wrote; at most `room` - 1 bytes of it. */
void scene_output(const struct scene *scene, const char *which, char *ret, size_t room);

/* Nothing has been written, renamed, or given another mode since it was put back: old by itself. */
bool scene_is_untouched(const struct scene *scene);
/* The workspace now; for a command that does not change it: of the names in the home. */
enum scene_state scene_state(struct scene *scene);
/* Everything that must hold after `moat recover`; runs it, twice.  NULL, or what is wrong, which
 * the caller frees.  *ret_state is what it is after the first. */
char *scene_check(struct scene *scene, enum scene_state *ret_state);
/* Names of all that is in the home, and of moat's in the workspace, ids made equal; to be freed. */
char *scene_names(const struct scene *scene);

extern const struct scene_command scene_commands[]; /* ends with a NULL title */

#endif
