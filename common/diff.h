/* SPDX-License-Identifier: Apache-2.0 */
/* The difference between two manifests: what the commands show, and what a restore has to do. */
#ifndef MOAT_COMMON_DIFF_H
#define MOAT_COMMON_DIFF_H

#include "common/manifest.h"

enum diff_change {
	DIFF_SAME = 0,     /* nothing, or only times (see DIFF_TIMES) */
	DIFF_ADDED = 1,    /* in `to` only */
	DIFF_DELETED = 2,  /* in `from` only */
	DIFF_MODIFIED = 3, /* content of a file, text of a link */
	DIFF_TYPE = 4,     /* file, directory, link: became another */
	DIFF_MODE = 5      /* permission bits, owner or extended attributes only */
};
const char *diff_text(enum diff_change change); /* "added", ... */

struct diff_item {
	enum diff_change change;
	const char *path;
	const struct moat_entry *from, *to; /* NULL where it is not */
};

/* Compares in path order.  Content is taken as equal when both hashes are known and equal, or when
 * size, times and inode are; as different otherwise.  Directories: only their existence, type and
 * mode. visit returns -1 to stop.  Items that are DIFF_SAME are not visited. */
int
diff_manifests(const struct manifest *from, const struct manifest *to,
	       int (*visit)(void *context, const struct diff_item *item, struct moat_error *err),
	       void *context, struct moat_error *err);

/* How two entries of one path differ.  NULL: absent. */
enum diff_change diff_entries(const struct manifest *from_manifest, const struct moat_entry *from,
			      const struct manifest *to_manifest, const struct moat_entry *to);

#endif
