/* SPDX-License-Identifier: Apache-2.0 */
/* The one walk over a workspace. */
#ifndef MOAT_CORE_TREE_H
#define MOAT_CORE_TREE_H

#include <sys/stat.h>

#include "common/manifest.h"
#include "core/filter.h"

/* Directories of this name in the root of a workspace are moat's own (core/txn): ".moat-txn_" and
 * 12 hex digits. The walk does not see them. */
#define TREE_STAGE_PREFIX ".moat-txn_"

/* Walks the workspace by directory descriptors, never following a link, never leaving its mount,
 * and makes its sealed manifest, with the rules met and with what was skipped.
 *
 * Entries that match `previous` (type, mode, owner, size, mtime, ctime, inode, and not modified at
 * or after the moment that walk began: git's racy-clean rule) are MOAT_SAME and take hash, locator
 * and xattrs from there; the others are MOAT_NEW or MOAT_MODIFIED, without a hash.  Extended
 * attributes of directories are read here, those of files when their content is (tree_read()).
 *
 * previous may be NULL. */
int tree_scan(int rootfd, struct filter *filter, const struct manifest *previous,
	      struct manifest **ret, struct moat_error *err);

/* Opens a file of the manifest for reading: O_NOFOLLOW | O_NONBLOCK, checked to be a regular file,
 * and the one that was seen (dev, ino), else MOAT_CHANGED; MOAT_GONE; MOAT_PERMISSION. */
int tree_open(int rootfd, const struct moat_entry *entry, struct moat_error *err);
/* The same, with what fstat(2) says of it. */
int tree_open_status(int rootfd, const struct moat_entry *entry, struct stat *ret,
		     struct moat_error *err);
/* Fills in hash, xattrs (from `arena`) and the present size and times of a file, by reading it.
 * A signal that is held back meanwhile: MOAT_CANCELLED. */
int tree_read(int rootfd, struct moat_entry *entry, struct arena *arena, struct moat_error *err);
/* Reads those files of a walk that are not MOAT_SAME as in `previous', though as long as there, by
 * several threads: hash and xattrs are filled in as tree_read() does, and one with the same content
 * becomes MOAT_SAME and takes its locator from there, whatever its mode and times are.  What cannot
 * be read, or is gone, stays as it is.  previous: the one that the walk had; NULL: nothing to do.
 */
int tree_compare(int rootfd, const struct manifest *previous, struct manifest *manifest,
		 struct moat_error *err);
/* Extended attributes of an open object as moat_entry.xattrs has them, sorted by name: user.*,
 * system.posix_acl_*, and, for root, trusted.* other than trusted.overlay.*; security.* stays the
 * system's. */
int tree_xattrs(int fd, struct arena *arena, const void **ret, uint32_t *ret_size,
		struct moat_error *err);
/* Makes the extended attributes of an open object those given. Of those classes, others are
 * removed.  A filesystem without them is an error only when there is something to set. */
int tree_set_xattrs(int fd, const void *xattrs, uint32_t size, struct moat_error *err);

#endif
