/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of sets.
 *
 * The set of snapshot snap_0123456789ab is number 0x0123456789ab.  Its directory is snap_ID; once
 * the snapshot is removed while others still need content of it, snap_ID.orphan, so that the store
 * itself tells which sets wait for the last user to go.  .snap_ID.tmp is one that is being made, or
 * is going; the store is locked meanwhile, so any other directory of that form is left from a
 * crash.
 *
 * In a set file number n is called D/N: n in hexadecimal, and in a directory of 4096 files, number
 * n / 4096. */
#ifndef MOAT_SNAPSHOT_REFLINK_STORE_H
#define MOAT_SNAPSHOT_REFLINK_STORE_H

#include "reflink.h"

#define SET_NAME_MAX 64
#define FILE_NAME_MAX 64
#define SET_DIRECTORY ((uint64_t) 4096)
/* A set has less files than this: what a manifest or a name claims is not believed beyond. */
#define SET_FILES_MAX ((uint64_t) 1 << 28)

enum set_kind { SET_LIVE, SET_ORPHAN, SET_TEMPORARY };

/* out holds SET_NAME_MAX bytes. */
const char *set_name(char *out, uint64_t number, enum set_kind kind);
/* snap_ and 12 hex digits -> number, or -1. */
int set_number(const char *id, uint64_t *ret);
/* out holds FILE_NAME_MAX bytes. */
const char *set_file_name(char *out, uint64_t file);
const char *set_directory_name(char *out, uint64_t file);

/* Whether there is a set, under either name. */
bool store_has_set(const struct reflink *reflink, uint64_t number);
/* Opens the directory of a set.  MOAT_CORRUPT when it is not there, as somebody needs it. *ret_kind
 * (may be NULL): under which name it was found. */
int store_open_set(const struct reflink *reflink, uint64_t number, enum set_kind *ret_kind,
		   struct moat_error *err);
/* Opens a file of a set for reading.  Not there, or not a regular file: MOAT_CORRUPT. */
int store_open_file(const struct reflink *reflink, uint64_t number, uint64_t file,
		    struct moat_error *err);
/* Calls visit for each set of that kind, in no order. */
int store_each(const struct reflink *reflink, enum set_kind kind,
	       int (*visit)(void *context, uint64_t number, struct moat_error *err), void *context,
	       struct moat_error *err);
/* Calls visit for each file of an open set, in no order. */
int set_each(int set_fd, int (*visit)(void *context, uint64_t file, struct moat_error *err),
	     void *context, struct moat_error *err);
/* Removes a directory of that kind and all that is in it.  Not there is success. */
int store_remove_set(const struct reflink *reflink, uint64_t number, enum set_kind kind,
		     struct moat_error *err);
/* Removes what a crash has left. */
int store_sweep(const struct reflink *reflink, struct moat_error *err);

/* A set of numbers of files.  Zeroed: empty. */
struct bits {
	uint64_t *words;
	size_t count;
};

void bits_free(struct bits *bits);
/* A number that no file has (SET_FILES_MAX) is passed over. */
int bits_add(struct bits *bits, uint64_t number, struct moat_error *err);
bool bits_has(const struct bits *bits, uint64_t number);

#endif
