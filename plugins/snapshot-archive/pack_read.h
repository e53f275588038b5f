/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a pack from any position of its tar stream.  A frame is decompressed as a whole, and its
 * checksum compared, before a byte of it is given out; frames that are not asked for are not read.
 * What is wrong with the file is MOAT_CORRUPT. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_PACK_READ_H
#define MOAT_SNAPSHOT_ARCHIVE_PACK_READ_H

#include "archive.h"
#include "common/tar.h"

struct pack_reader;

#define PACK_NO_MANIFEST ((uint64_t) -1)

/* A pack with a damaged index, a truncated one for instance, is MOAT_CORRUPT. */
int pack_reader_open(const struct archive *archive, uint64_t number, struct pack_reader **ret,
		     struct moat_error *err);
void pack_reader_free(struct pack_reader *reader); /* NULL is allowed */
void cleanup_pack_reader(struct pack_reader **reader);
#define AUTO_PACK_READER CLEANUP(cleanup_pack_reader)

uint64_t pack_file_size(const struct pack_reader *reader);
/* Position of the manifest's member; PACK_NO_MANIFEST when the index that told it is damaged. */
uint64_t pack_manifest(const struct pack_reader *reader);

int pack_seek(struct pack_reader *reader, uint64_t position, struct moat_error *err);
/* The next bytes, at least one, valid until the next call; pack_skip() takes them. */
int pack_peek(struct pack_reader *reader, const uint8_t **ret, size_t *ret_size,
	      struct moat_error *err);
void pack_skip(struct pack_reader *reader, size_t size);
/* The stream from where it stands. */
struct tar_source pack_source(struct pack_reader *reader);

#endif
