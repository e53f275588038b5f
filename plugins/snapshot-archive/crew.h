/* SPDX-License-Identifier: Apache-2.0 */
/* A crew: threads that work on one call together, the caller's among them.  The first error of any
 * ends the work of all. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_CREW_H
#define MOAT_SNAPSHOT_ARCHIVE_CREW_H

#include <pthread.h>

#include "archive.h"

struct crew {
	pthread_mutex_t lock;
	pthread_cond_t changed;  /* for whatever its members wait for, under the lock */
	bool stopped;            /* under the lock */
	size_t count;            /* of members; known to each from its start; 0: not ready */
	struct moat_error error; /* the first; under the lock */
	/* Returns 0, or -1 with *err, which stops the crew. */
	int (*work)(void *context, size_t member, struct moat_error *err);
	void *context;
};

/* Cpus that this process may use, 1 to CREW_MAX. */
size_t crew_cpus(void);

int crew_init(struct crew *crew, struct moat_error *err);
void crew_destroy(struct crew *crew); /* zeroed: does nothing */
#define AUTO_CREW CLEANUP(crew_destroy)

/* Runs work() in `count` threads, of which the caller's is member 0, and fewer when there cannot be
 * so many.  Returns when all have ended, with the first error.  The other threads get no signals.
 */
int crew_run(struct crew *crew, size_t count,
	     int (*work)(void *context, size_t member, struct moat_error *err), void *context,
	     struct moat_error *err);
/* With the lock held: -1 when the crew has stopped.  The error that is set then says nothing new:
 * the one that stopped the crew came first. */
int crew_check(const struct crew *crew, struct moat_error *err);

#endif
