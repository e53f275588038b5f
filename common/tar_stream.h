/* SPDX-License-Identifier: Apache-2.0 */
/* A strict reader of tar streams that a stranger made: v7, ustar, pax and GNU archives, with sparse
 * files of every format that GNU tar writes.
 *
 * It believes nothing.  What is malformed, contradictory, unknown or above a limit is MOAT_CORRUPT
 * or MOAT_UNSUPPORTED, with the member's name (as bytes: whoever prints it escapes it) and the
 * offset in the stream.  A limit is checked before it is exceeded; nothing is allocated by a number
 * that was only declared.  Only an archive with its end marker, and with nothing but zeros after
 * it, ends well.
 *
 * What a member does to others (a link to something, two of one name) is the caller's business.
 * Not thread-safe. */
#ifndef MOAT_COMMON_TAR_STREAM_H
#define MOAT_COMMON_TAR_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

/* Where bytes come from: up to `size' of them; 0 at the end; -1: *err. */
struct byte_source {
	ssize_t (*read)(void *context, void *data, size_t size, struct moat_error *err);
	void *context;
};

/* Bytes in memory as a source, given out in pieces of at most `piece' bytes (0: any size). */
struct memory_bytes {
	const void *data;
	size_t size, at, piece;
};
struct byte_source memory_source(struct memory_bytes *memory);

#define TAR_STREAM_COMPONENT_MAX 255 /* bytes of a name between slashes */
#define TAR_STREAM_PATH_MAX 65535
#define TAR_STREAM_LINK_MAX 4095 /* bytes of a symbolic link's text */
#define TAR_STREAM_XATTR_NAME_MAX 255
#define TAR_STREAM_XATTR_MAX 65536 /* bytes of one value: the kernel's own limit */

struct tar_limits {
	uint64_t max_entries;    /* members and global headers */
	uint64_t max_file_bytes; /* of one file, holes included */
	uint64_t max_bytes;      /* of all files together, holes included */
	uint64_t max_name_bytes; /* of all paths, links and extended attributes together */
};

enum tar_entry_type {
	TAR_ENTRY_FILE = 1,
	TAR_ENTRY_DIRECTORY,
	TAR_ENTRY_SYMLINK,
	TAR_ENTRY_HARD_LINK
};

/* A member, whose strings live until the next call of tar_stream_next(). */
struct tar_entry {
	enum tar_entry_type type;
	const char *path; /* without `./' in front and slash at the end; "" is the root */
	const char *link; /* symbolic links: as it is; hard links: a path like `path'; else NULL */
	uint32_t mode;    /* 07777 */
	uint32_t uid, gid;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint64_t size;           /* of a file, holes included; else 0 */
	uint64_t data_size;      /* bytes of it that are in the archive */
	const void *xattrs;      /* as in struct moat_entry, in the archive's order; NULL: none */
	uint32_t xattrs_size;    /* SCHILY.xattr.*, of every class: the caller chooses */
	uint32_t xattrs_foreign; /* how many attributes stand in a form that is not read */
	uint64_t offset;         /* where its header is */
};

struct tar_stream;
int tar_stream_open(const struct byte_source *source, const struct tar_limits *limits,
		    struct tar_stream **ret, struct moat_error *err);
void tar_stream_free(struct tar_stream *stream);
void cleanup_tar_stream(struct tar_stream **stream);
#define AUTO_TAR_STREAM CLEANUP(cleanup_tar_stream)

/* The next member; what is left of the data of the one before is read over.  1: *ret; 0: the end,
 * to which the source was read; -1: *err, and the stream is of no use any more. */
int
tar_stream_next(struct tar_stream *stream, const struct tar_entry **ret, struct moat_error *err);
/* More of the present file's data: up to `size' bytes, which belong at *ret_offset of the file;
 * what no call gives is a hole.  0: that was all. */
ssize_t tar_stream_read(struct tar_stream *stream, void *data, size_t size, uint64_t *ret_offset,
			struct moat_error *err);
/* Bytes that were taken from the source. */
uint64_t tar_stream_offset(const struct tar_stream *stream);

#endif
