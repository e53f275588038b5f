/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of an import: the raw bytes (import_input.c), what the members make together
 * (import_plan.c), and one pass over the archive (import_content.c). */
#ifndef MOAT_CORE_IMPORT_INTERNAL_H
#define MOAT_CORE_IMPORT_INTERNAL_H

#include <nettle/sha2.h>

#include "common/tar_stream.h"
#include "core/import.h"

/* -------------------------------------------------------------------------------------- the bytes
 */

/* A regular file where it lies, or a copy of what can be read only once, in a file without a name.
 */
struct import_input {
	int fd;
	bool owned; /* not stdin */
	int64_t start, at, end; /* end: as long as it was when it was opened */
	struct sha256_ctx sha;
};
#define IMPORT_INPUT_INIT                                                                          \
	{                                                                                          \
		.fd = -1                                                                           \
	}

/* A copy of more than max_bytes is not made. */
int import_input_open(const struct home *home, const char *file, uint64_t max_bytes,
		      struct import_input *ret, struct moat_error *err);
void import_input_close(struct import_input *input);
/* From the beginning. */
struct byte_source import_input_source(struct import_input *input);
/* Of all that was read since then, which must be all there is. */
void import_input_digest(struct import_input *input, uint8_t ret[SHA256_DIGEST_SIZE]);

/* ------------------------------------------------------------------------------------- the members
 */

struct import_node {
	struct moat_entry *entry; /* of the manifest; NULL: free */
	uint64_t hash;
};

/* Everything that was seen so far, as a manifest whose entries have the number of their content as
 * inode. */
struct import_plan {
	struct manifest *manifest;
	struct tar_limits limits; /* directories that are made up count, too */
	uint64_t entries, name_bytes;
	struct import_node *nodes; /* by path */
	size_t node_count, node_room;
	uint8_t seed[16];
	uint32_t *names; /* per number: how many names it has */
	size_t count, room;
	uint64_t space; /* that the contents take, in blocks of 4 KiB */
	int64_t now_ns;
	struct import_dropped dropped;
};

int
import_plan_open(struct import_plan *plan, const struct tar_limits *limits, struct moat_error *err);
void import_plan_close(struct import_plan *plan);
/* Checks that the member goes with those before, and adds it.  *ret_number: of its content; 0: it
 * has none. */
int import_plan_add(struct import_plan *plan, const struct tar_entry *member, uint64_t *ret_number,
		    struct moat_error *err);
/* Makes the manifest complete and sealed. */
int import_plan_finish(struct import_plan *plan, struct moat_error *err);

/* import_xattr.c: those of a member that are taken, sorted, appended to `out'; the others are
 * counted. */
int import_xattrs(const struct tar_entry *member, struct buf *out, uint64_t *dropped,
		  struct moat_error *err);

/* ---------------------------------------------------------------------------------------- one pass
 */

/* The name of a content's file. */
#define IMPORT_NAME_MAX 24
const char *import_name(char out[IMPORT_NAME_MAX], uint64_t number);

/* Reads the archive to its end and makes the plan, finished.  scratch_fd: where contents are
 * written; -1: nowhere, they are only read. */
int
import_pass(struct import_input *input, const struct tar_limits *limits, int scratch_fd,
	    struct import_plan *plan, uint8_t digest[SHA256_DIGEST_SIZE], struct moat_error *err);
/* How long an archive within the limits can be, unpacked. */
uint64_t import_stream_max(const struct tar_limits *limits);

#endif
