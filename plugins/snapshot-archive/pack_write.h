/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a pack: LZ4 frames in, a complete and durable .tar.lz4 out, or nothing. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_PACK_WRITE_H
#define MOAT_SNAPSHOT_ARCHIVE_PACK_WRITE_H

#include "archive.h"
#include "pack.h"
#include "store.h"

struct pack_writer;

/* kind: PACK_LIVE, which is MOAT_EXISTS when the store has that pack already, or PACK_ORPHAN, which
 * replaces the one that is there. */
int pack_writer_open(const struct archive *archive, uint64_t number, enum pack_kind kind,
		     struct pack_writer **ret, struct moat_error *err);
/* What was not finished is removed.  NULL is allowed. */
void pack_writer_free(struct pack_writer *writer);
void cleanup_pack_writer(struct pack_writer **writer);
#define AUTO_PACK_WRITER CLEANUP(cleanup_pack_writer)

/* The next frame gets its place in the file and in the index; *frame says all but the offset, which
 * is filled in.  One thread at a time, pack_writer_put() by any. */
int pack_writer_reserve(struct pack_writer *writer, struct frame *frame, struct moat_error *err);
int pack_writer_put(struct pack_writer *writer, const struct frame *frame, const void *packed,
		    struct moat_error *err);
/* How many frames there are; and back to where there were so many.  What was put there must have
 * been written. */
size_t pack_writer_frames(const struct pack_writer *writer);
void pack_writer_rewind(struct pack_writer *writer, size_t frames);
/* The index, fsync, the final name.  *ret_size: bytes of the file. */
int pack_writer_finish(struct pack_writer *writer, uint64_t *ret_size, struct moat_error *err);

#endif
