/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a pack: bytes of a tar stream in, a complete and durable .tar.lz4 out, or nothing. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_PACK_WRITE_H
#define MOAT_SNAPSHOT_ARCHIVE_PACK_WRITE_H

#include "archive.h"

struct pack_writer;

/* MOAT_EXISTS when the store has that pack already. */
int pack_writer_open(const struct archive *archive, uint64_t number, struct pack_writer **ret,
		     struct moat_error *err);
/* What was not finished is removed.  NULL is allowed. */
void pack_writer_free(struct pack_writer *writer);
void cleanup_pack_writer(struct pack_writer **writer);
#define AUTO_PACK_WRITER CLEANUP(cleanup_pack_writer)

/* Where the next byte stands in the tar stream. */
uint64_t pack_position(const struct pack_writer *writer);
/* Between members: ends the frame when it holds enough, or, `now`, whatever it holds. */
int pack_boundary(struct pack_writer *writer, bool now, struct moat_error *err);
/* Room for at least one byte, to be filled in place and then taken by pack_fill(). */
int pack_space(struct pack_writer *writer, uint8_t **ret, size_t *ret_size, struct moat_error *err);
void pack_fill(struct pack_writer *writer, size_t size);
int pack_write(struct pack_writer *writer, const void *data, size_t size, struct moat_error *err);
int pack_zeros(struct pack_writer *writer, uint64_t size, struct moat_error *err);
/* The end of the tar stream, the index, fsync, the final name.  manifest: position of its member in
 * the stream.  *ret_size: bytes of the file. */
int pack_finish(struct pack_writer *writer, uint64_t manifest, uint64_t *ret_size,
		struct moat_error *err);

#endif
