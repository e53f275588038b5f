/* SPDX-License-Identifier: Apache-2.0 */
/* Random trees with everything in them that a filesystem can hold, and what somebody may do to
 * them.
 */
#ifndef MOAT_TESTS_PROOF_TREES_H
#define MOAT_TESTS_PROOF_TREES_H

#include "proof.h"

#define LINKABLE_MAX 16

struct trees {
	struct proof *p;
	bool root;                  /* may give files away and make devices */
	bool specials;              /* FIFOs, sockets, devices */
	bool close;                 /* may make what is there unreadable for an ordinary user */
	int budget;                 /* entries yet to make */
	int linkable[LINKABLE_MAX]; /* open files that may get another name */
	int linkables;
	uint64_t wide; /* how much of it is big: bytes made */
};

/* Fills a directory, which gets mode and times, too. */
void trees_fill(struct trees *t, int dirfd, int entries);
/* Edits, deletes, retypes, adds, renames, everywhere below, but leaves alone what is not captured:
 * special files, and what an ordinary user cannot read. */
void trees_change(struct trees *t, int dirfd);
/* Deletes all of it, the uncaptured with it. */
void trees_wipe(int dirfd);
void trees_end(struct trees *t); /* closes the linkable files */

#endif
