/* SPDX-License-Identifier: Apache-2.0 */
/* A picture of a directory tree, by an independent walker: nothing of moat's is linked or included.
 *
 * One line for each object, in the order of a walk whose names are sorted by bytes:
 *
 *     PATH TYPE MODE UID:GID LINKS SIZE MTIME CONTENT [NAME=VALUE]...
 *
 * PATH begins with `.'; bytes that are not printable ASCII, blanks and backslashes are written
 * \ooo. TYPE is a letter of find's %y.  LINKS is the number of names, and where there are several
 * the first of them that the walk met (`2:./a'): names of one inode have the same.  CONTENT is the
 * SHA-256 of a file, the text of a symbolic link, the numbers of a device.  MTIME has nanoseconds.
 * Extended attributes, access control lists among them, follow in the order of their names, in hex.
 * What a directory has of LINKS and SIZE is the filesystem's own business: `-'.  Change times,
 * access times and the numbers of inodes cannot be restored and are not shown.  What cannot be read
 * is `!ERRNO'. */
#ifndef TESTS_TOOLS_PICTURE_H
#define TESTS_TOOLS_PICTURE_H

#include <stdbool.h>
#include <stddef.h>

struct picture_options {
	const char *const
		*without; /* patterns of names that are left out, with all below; NULL ends */
	bool open;        /* what the caller owns and may not read is opened meanwhile */
	bool sparse;      /* files get data=OFFSET+LENGTH,... after the content */
};

struct picture {
	char *text; /* NUL-terminated */
	size_t length;
};

/* The tree at `path`, which may be a file.  Depth is bounded by the limit of open files (one for
 * each level), the length of a path by nothing.  0, or -1 and errno. */
int picture_take(const char *path, const struct picture_options *options, struct picture *ret);
void picture_free(struct picture *picture);

/* The SHA-256 of the text, as 64 hex digits and a NUL. */
void picture_digest(const struct picture *picture, char ret[65]);

#endif
