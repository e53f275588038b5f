/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of packs.
 *
 * The pack of snapshot snap_0123456789ab is number 0x0123456789ab.  Its file is SNAPID.tar.lz4;
 * once the snapshot is removed while others still need content of it, SNAPID.orphan.tar.lz4, so
 * that the store itself tells which packs wait for the last user to go.  .SNAPID.tmp is one that is
 * being written; the store is locked meanwhile, so any other file of that form is left from a
 * crash. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_STORE_H
#define MOAT_SNAPSHOT_ARCHIVE_STORE_H

#include "archive.h"

#define PACK_NAME_MAX 64

enum pack_kind { PACK_LIVE, PACK_ORPHAN, PACK_TEMPORARY };

/* out holds PACK_NAME_MAX bytes. */
const char *pack_name(char *out, uint64_t number, enum pack_kind kind);
/* snap_ and 12 hex digits -> number, or -1. */
int pack_number(const char *id, uint64_t *ret);

/* Whether the pack is there, under either name; *ret_size, unless NULL: bytes of the file. */
bool store_has_pack(const struct archive *archive, uint64_t number, uint64_t *ret_size);
/* Opens it for reading.  Not there: MOAT_CORRUPT, as somebody needs it. */
int store_open_pack(const struct archive *archive, uint64_t number, struct moat_error *err);
/* Calls visit for each pack of that kind, in no order. */
int store_each(const struct archive *archive, enum pack_kind kind,
	       int (*visit)(void *context, uint64_t number, struct moat_error *err), void *context,
	       struct moat_error *err);
int store_remove(const struct archive *archive, uint64_t number, enum pack_kind kind,
		 struct moat_error *err);
/* Removes what a crash has left. */
int store_sweep(const struct archive *archive, struct moat_error *err);

#endif
