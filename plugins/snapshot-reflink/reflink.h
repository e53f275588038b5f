/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this plugin share: the handle, and small wrappers of the host's services.
 *
 * The plugin in one picture.  A store is a directory of sets, snap_ID/, one for each snapshot.  A
 * set holds a clone of every file that was new or had changed, an index and a copy of the manifest:
 *
 *     reflink.c     the vtable
 *     probe.c       whether cloning works here, and whether it is worth it
 *     capture.c     entries of the core -> files of a new set
 *     extract.c     locators -> files of sets -> files; verify; enumerate
 *     remove.c      removal of exactly what nobody needs
 *     store.c       names of sets, opening what is in them
 *     catalogue.c   the index of a set, and its manifest
 *     content.c     cloning, copying where that is refused, hashing
 *     workers.c     many files, on all processors
 *
 * A locator is { number of the set, number of the file in it, 0 }. */
#ifndef MOAT_SNAPSHOT_REFLINK_REFLINK_H
#define MOAT_SNAPSHOT_REFLINK_REFLINK_H

#include <stdbool.h>

#include "common/cleanup.h"
#include "common/error.h"

#define REFLINK_NAME "snapshot-reflink"

/* One handle. */
struct reflink {
	const struct moat_host *host;
	int dirfd;        /* the store; the core's */
	const char *path; /* of the store, for messages */
};

int reflink_probe(const struct moat_host *host, const struct moat_target *target,
		  struct moat_bid *bid, struct moat_error *err);
int reflink_capture(void *self, const struct moat_capture *capture, struct moat_ref *ret,
		    struct moat_error *err);
int reflink_materialise(void *self, const struct moat_extract *extract, struct moat_error *err);
int reflink_verify(void *self, const struct moat_extract *extract, struct moat_error *err);
int reflink_enumerate(void *self,
		      int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
				   size_t manifest_size, struct moat_error *err),
		      void *context, struct moat_error *err);
int
reflink_remove(void *self, const char *ref, const struct moat_live *live, struct moat_error *err);

/* One line in moat's log. */
void
reflink_log(const struct reflink *reflink, int level, const char *format, ...) MOAT_PRINTF(3, 4);
/* The SHA-256 of some bytes. */
int reflink_hash(const struct reflink *reflink, const void *data, size_t size,
		 uint8_t ret[MOAT_HASH_SIZE], struct moat_error *err);

#endif
