/* SPDX-License-Identifier: Apache-2.0 */
/* Members of a tar stream (POSIX.1-2017, pax interchange format; sparse files in GNU's format 1.0).
 *
 * The writer puts the bytes of a name into the header as they are: no locale and no character set
 * comes into it.  The reader takes what the writer makes and nothing else. */
#ifndef MOAT_COMMON_TAR_H
#define MOAT_COMMON_TAR_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"
#include "common/sparse.h"

#define TAR_BLOCK 512
#define TAR_NAME 100
#define TAR_FILE '0'
#define TAR_HARD_LINK '1'
#define TAR_SYMLINK '2'
#define TAR_DIRECTORY '5'
#define TAR_PAX 'x'
#define TAR_PAX_MAX ((uint64_t) 4 << 20) /* bytes of one extended header */

/* Field widths of POSIX.1-2017, "ustar Interchange Format". */
struct tar_block {
	char name[TAR_NAME];
	char mode[8];
	char uid[8];
	char gid[8];
	char size[12];
	char mtime[12];
	char chksum[8];
	char typeflag;
	char linkname[TAR_NAME];
	char magic[6];
	char version[2];
	char uname[32];
	char gname[32];
	char devmajor[8];
	char devminor[8];
	char prefix[155];
	char padding[12];
};
_Static_assert(sizeof(struct tar_block) == TAR_BLOCK, "a header is one block");

/* Zero bytes that complete the last block. */
static inline uint64_t
tar_padding(uint64_t size)
{
	return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
}

/* The sum of all bytes of a header, its own field taken as blanks. */
unsigned tar_checksum(const struct tar_block *block);

/* A member to be written. */
struct tar_member {
	char type;        /* TAR_* */
	const char *path; /* without a slash at the end; "" is the root */
	const char *link; /* of links; else NULL */
	uint32_t mode, uid, gid;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint64_t size;      /* bytes that follow the header, a map included */
	bool sparse;        /* a map stands before the data */
	uint64_t real_size; /* of a sparse file */
	const void *xattrs; /* as in struct moat_entry; or NULL */
	uint32_t xattrs_size;
};

/* Appends the header, whole blocks.  A member whose extended header would be above TAR_PAX_MAX:
 * MOAT_UNSUPPORTED. */
int tar_header(struct buf *out, const struct tar_member *member, struct moat_error *err);

/* Where bytes of a tar stream come from: fills all of `data` or fails. */
struct tar_source {
	int (*read)(void *context, void *data, size_t size, struct moat_error *err);
	void *context;
};

/* A regular file in a tar stream, whose data follows. */
struct tar_file {
	uint64_t size; /* logical, holes included */
	bool sparse;
	struct sparse_map map; /* what follows, one extent after the other */
};
void tar_file_free(struct tar_file *file);
#define AUTO_TAR_FILE CLEANUP(tar_file_free)

/* Reads the header (and the map) of a regular file.  Everything in it is checked; what is wrong is
 * MOAT_CORRUPT. */
int tar_read_file(const struct tar_source *source, struct tar_file *ret, struct moat_error *err);

#endif
