/* SPDX-License-Identifier: Apache-2.0 */
/* What a tree looks like, by nothing but system calls: what moat thinks of a tree has no
 * part in it. */
#ifndef MOAT_TESTS_PROOF_PICTURE_H
#define MOAT_TESTS_PROOF_PICTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct proof;

struct sight {
	char *path;    /* "" is the root */
	unsigned mode; /* type and permissions */
	char *text;    /* everything else, in words */
	uint64_t size, blocks;
	uint64_t dev, ino;
	unsigned long links;
	/* Not to be captured, whatever the rules: special files, and for an ordinary user what
	 * cannot be read, and all below it. */
	bool uncaptured;
	/* A directory that the user cannot open: nobody can tell its extended attributes. */
	bool closed;
};

struct picture {
	struct sight *items; /* sorted by path */
	size_t count, allocated;
};

/* Also inode numbers, change times, numbers of links: for what must not be touched at all. */
#define PICTURE_IDENTITY 1u

/* What the caller cannot read is opened by chmod for a moment. */
void picture_take(const char *path, unsigned flags, struct picture *ret);
void picture_free(struct picture *picture);
const struct sight *picture_find(const struct picture *picture, const char *path);
/* Whether the path, or a directory above it, was uncaptured there, or is below a directory of which
 * nobody could know what it holds. */
bool picture_left_out(const struct picture *picture, const char *path);
void picture_add(struct picture *picture, const struct sight *sight); /* a copy, at the end */
void picture_sort(struct picture *picture);
/* Says who is linked with whom, among the captured names that are in it; for pictures that are put
 * together. */
void picture_link(struct picture *picture);
/* `now` through the eyes of a snapshot: what that left out is uncaptured. */
void picture_see(const struct picture *captured, const struct picture *now, struct picture *ret);

/* Number of differences; told as failures of `what` unless what is NULL.  ret_stripped (may be
 * NULL): how many files lost their setuid or setgid bit, which is no difference when it is given.
 */
unsigned long picture_compare(struct proof *p, const char *what, const struct picture *expected,
			      const struct picture *actual, unsigned long *ret_stripped);

#endif
