/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this plugin share: the handle, and small wrappers of the host's services.
 *
 * The plugin in one picture.  A store is a directory of packs, SNAPID.tar.lz4, one for each
 * snapshot that brought something new.  A pack is one tar stream, cut into independent LZ4 frames:
 *
 *     archive.c   the vtable, configuration
 *     capture.c   entries of the core -> members of a pack
 *     extract.c   locators -> members of packs -> files; verify; enumerate
 *     store.c     names of packs, opening, removal
 *     pack_write.c, pack_read.c   a tar stream <-> LZ4 frames in a file, with an index at its end
 *     common/tar               members <-> bytes of the tar stream
 *     common/sparse            where a file has data, and how tar says so
 *
 * A locator is { number of the pack, position of the member in the uncompressed tar stream, 0 }. It
 * does not depend on how the stream is cut into frames, nor on their sizes once compressed: it is
 * known while the file is being read, whenever its frame gets written. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_ARCHIVE_H
#define MOAT_SNAPSHOT_ARCHIVE_ARCHIVE_H

#include <stdbool.h>

#include "common/cleanup.h"
#include "common/error.h"

#define ARCHIVE_NAME "snapshot-archive"

/* Uncompressed bytes after which the next member starts a new frame, and the most that a frame
 * holds.  Small enough for a restore to find a file at once, large enough to compress well; the
 * second one bounds what a reader must be ready for. */
#define FRAME_TARGET ((size_t) 1 << 20)
#define FRAME_MAX ((size_t) 4 << 20)

/* One handle. */
struct archive {
	const struct moat_host *host;
	int dirfd;        /* the store; the core's */
	const char *path; /* of the store, for messages */
	int level;        /* of LZ4: 0 fast to 12 */
};

int archive_capture(void *self, const struct moat_capture *capture, struct moat_ref *ret,
		    struct moat_error *err);
int archive_materialise(void *self, const struct moat_extract *extract, struct moat_error *err);
int archive_enumerate(void *self,
		      int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
				   size_t manifest_size, struct moat_error *err),
		      void *context, struct moat_error *err);
int archive_remove(void *self, const char *ref, const struct moat_live *live,
		   struct moat_error *err);

/* -1 with MOAT_CANCELLED when the user wants to stop. */
int archive_check_cancelled(const struct archive *archive, struct moat_error *err);
/* One line of warning in moat's log. */
void archive_warn(const struct archive *archive, const char *format, ...) MOAT_PRINTF(2, 3);

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
