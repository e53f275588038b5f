/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this plugin share: the handle, and small wrappers of the host's services.
 *
 * The plugin in one picture.  A store is a directory of packs, SNAPID.tar.lz4, one for each
 * snapshot that brought something new.  A pack is one tar stream, cut into segments, which are runs
 * of whole members, and these into independent LZ4 frames:
 *
 *     archive.c    the vtable, configuration
 *     crew.c       threads that work on one call together
 *     capture.c    entries of the core -> members of a pack, by a crew
 *     member.c     one file -> one member
 *     extract.c    locators -> members of packs -> files, by a crew; verify
 *     enumerate.c  copies of manifests
 *     remove.c     dropping and compacting what nobody needs
 *     store.c      names of packs, opening
 *     press.c      segments -> LZ4 frames, by all of a crew
 *     pack_write.c, pack_read.c   LZ4 frames <-> a file, with an index at its end
 *     common/tar               members <-> bytes of the tar stream
 *     common/sparse            where a file has data, and how tar says so
 *
 * A locator is { number of the pack, number of the segment in it, position of the member in the
 * segment's content }.  It does not depend on where the segment comes to lie in the file, nor on
 * what else is in the pack: it is known while the file is being read, and stays true when a pack is
 * compacted. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_ARCHIVE_H
#define MOAT_SNAPSHOT_ARCHIVE_ARCHIVE_H

#include <stdbool.h>

#include "common/cleanup.h"
#include "common/error.h"

#define ARCHIVE_NAME "snapshot-archive"

/* Content of a frame at most.  Small enough for a restore to find a file at once, large enough to
 * compress well; it bounds what a reader must be ready for. */
#define FRAME_MAX ((size_t) 1 << 20)

/* Threads of one call at most. */
#define CREW_MAX 8

/* One handle. */
struct archive {
	const struct moat_host *host;
	int dirfd;          /* the store; the core's */
	const char *path;   /* of the store, for messages */
	int level;          /* of LZ4: 0 fast to 12 */
	int64_t full_after; /* packs that one snapshot may need; 0: any number */
	size_t threads;     /* 1 to CREW_MAX */
};

int archive_capture(void *self, const struct moat_capture *capture, struct moat_ref *ret,
		    struct moat_error *err);
int archive_materialise(void *self, const struct moat_extract *extract, struct moat_error *err);
int archive_verify(void *self, const struct moat_extract *extract, struct moat_error *err);
int archive_enumerate(void *self,
		      int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
				   size_t manifest_size, struct moat_error *err),
		      void *context, struct moat_error *err);
int
archive_remove(void *self, const char *ref, const struct moat_live *live, struct moat_error *err);

/* -1 with MOAT_CANCELLED when the user wants to stop. */
int archive_check_cancelled(const struct archive *archive, struct moat_error *err);
/* One line in moat's log. */
void
archive_log(const struct archive *archive, int level, const char *format, ...) MOAT_PRINTF(3, 4);

/* The first half of the SHA-256 of some bytes. */
int archive_check(const struct archive *archive, const void *data, size_t size, uint8_t ret[16],
		  struct moat_error *err);

/* A content hash that is under way and is given up when its scope ends. */
struct hasher {
	const struct moat_host *host;
	struct moat_hash *hash;
};

int hasher_begin(struct hasher *hasher, const struct moat_host *host, struct moat_error *err);
void hasher_data(struct hasher *hasher, const void *data, size_t size);
void hasher_zeros(struct hasher *hasher, uint64_t size);
void hasher_end(struct hasher *hasher, uint8_t ret[MOAT_HASH_SIZE]);
void cleanup_hasher(struct hasher *hasher);
#define AUTO_HASHER CLEANUP(cleanup_hasher)

#endif
