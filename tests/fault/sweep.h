/* SPDX-License-Identifier: Apache-2.0 */
/* What the kinds of sweeps share: points, workers, and the counting of what they found. */
#ifndef TESTS_FAULT_SWEEP_H
#define TESTS_FAULT_SWEEP_H

#include <stdatomic.h>
#include <stdbool.h>

#include "scene.h"

#define PROBLEMS 64 /* kinds that are told apart */

/* In memory that the workers share. */
struct tally {
	atomic_long all;   /* points that there are */
	atomic_long taken; /* points that were tried */
	atomic_long mixed; /* were neither old nor new before the recovery */
	atomic_long old, new;
	atomic_long late;   /* the command was over before the point came */
	atomic_long ruined; /* were so after it */
	atomic_long wrong;
	struct {
		atomic_ulong kind;
		atomic_long count;
	} problems[PROBLEMS];
	atomic_bool gave_up; /* a worker could not go on: what it left is in the way of others */
	atomic_bool absent;  /* the command, or what it needs, is not here */
};

struct sweep {
	const char *kind;
	long point;    /* only that one, from 1, and the scene stays; 0: all */
	long sample;   /* how many points of this job; 0: all */
	unsigned seed; /* where the sample begins */
	bool broken_journal;
	int workers;
	const char *base, *other; /* directories; the second on another filesystem, or NULL */
	const char *place;
	const char *only; /* of the commands: the one of this title */
};

/* One command at one place, in one worker. */
struct job {
	const struct sweep *sweep;
	struct scene *scene;
	struct tally *tally;
	int worker;
	const char *disk; /* where the small filesystem is mounted */
	long points;      /* that there are */
	long point;       /* the one that was asked for last */
};

/* True when that point (from 0) is this worker's, and in the sample. */
bool job_wants(struct job *job, long point);
/* Counts and shows a thing that must not be.  Frees `problem`. */
void job_wrong(struct job *job, const char *where, char *problem);
/* How a command ended that was to end by itself, and what it wrote. */
struct ended {
	int status;        /* as wait(2) tells it */
	bool about_output; /* it may have been kept from writing a message */
	enum scene_state before;
	const char *out, *err;
};

/* Recovers and checks everything, also that the command did not claim what is not so.  NULL or what
 * is wrong, to be freed. */
char *job_check_ended(struct job *job, const struct ended *ended);
/* The same for the command that was run last. */
char *job_check_failed(struct job *job, int status, bool about_output);
void job_count(struct job *job, enum scene_state state);

/* Each does all its points of the job. */
void sweep_kill(struct job *job);
void sweep_errors(struct job *job);
void sweep_allocations(struct job *job);
void sweep_disk(struct job *job);

/* For the last: a mount namespace for this process; false when that is not allowed here. */
bool disk_namespace(void);
void disk_mount(const char *path);

#endif
