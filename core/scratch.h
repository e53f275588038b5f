/* SPDX-License-Identifier: Apache-2.0 */
/* Private directories in moat's home for work that has no other place: what an import unpacks, what
 * an export reads back.  One that a killed process left is removed by the next command. */
#ifndef MOAT_CORE_SCRATCH_H
#define MOAT_CORE_SCRATCH_H

#include "core/home.h"

/* Opened by scratch_open(); fd -1: there is none. */
struct scratch {
	int home_fd; /* borrowed */
	int fd;
	int lock; /* held while it is in use */
	char name[32];
};
#define SCRATCH_INIT                                                                               \
	{                                                                                          \
		-1, -1, -1, ""                                                                     \
	}

int scratch_open(const struct home *home, struct scratch *ret, struct moat_error *err);
/* Removes it with everything in it. */
void scratch_close(struct scratch *scratch);
#define AUTO_SCRATCH CLEANUP(scratch_close)
/* Removes those that nobody holds.  What cannot be removed is a warning. */
void scratch_clear(const struct home *home);

#endif
