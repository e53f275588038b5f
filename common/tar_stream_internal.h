/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the reader share: framing and members (tar_stream.c), numbers and names
 * (tar_field.c), extended headers (tar_pax.c), holes (tar_holes.c). */
#ifndef MOAT_COMMON_TAR_STREAM_INTERNAL_H
#define MOAT_COMMON_TAR_STREAM_INTERNAL_H

#include "common/buf.h"
#include "common/sparse.h"
#include "common/tar.h"
#include "common/tar_stream.h"

/* Extents of one sparse file: 16 MiB of memory. */
#define TAR_EXTENTS_MAX ((size_t) 1 << 20)

/* The fields of GNU's own header, in place of ustar's prefix ("GNU tar internals", old GNU format).
 */
struct tar_gnu_sparse {
	char offset[12];
	char size[12];
};
struct tar_gnu_block {
	char before[345];
	char atime[12];
	char ctime[12];
	char start[12]; /* of a volume */
	char longnames[4];
	char unused[1];
	struct tar_gnu_sparse sparse[4];
	char is_extended;
	char real_size[12];
	char padding[17];
};
_Static_assert(sizeof(struct tar_gnu_block) == TAR_BLOCK, "a header is one block");
struct tar_gnu_more {
	struct tar_gnu_sparse sparse[21];
	char is_extended;
	char padding[7];
};
_Static_assert(sizeof(struct tar_gnu_more) == TAR_BLOCK, "a header is one block");

enum tar_flavour { TAR_V7, TAR_USTAR, TAR_GNU };

/* What was said before a member's own header.  An absent string is empty: an empty value means that
 * the plain header counts. */
struct tar_pax {
	bool seen;
	struct buf path, link, sparse_name;
	bool has_size, has_uid, has_gid, has_mtime;
	uint64_t size;
	uint32_t uid, gid;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	struct buf xattrs;
	uint32_t foreign; /* attributes in a form that is not read */
	uint32_t again;   /* those of libarchive, beside the others */
	/* GNU.sparse.* */
	bool has_major, has_minor, has_real_size, has_blocks, has_map, has_offset;
	uint64_t major, minor, real_size, blocks, offset;
	struct sparse_map map; /* formats 0.0 and 0.1 */
	struct buf keys;       /* those that were there, each with its NUL */
};
void tar_pax_free(struct tar_pax *pax);

struct tar_stream {
	struct byte_source source;
	struct tar_limits limits;
	uint64_t at; /* bytes taken */
	bool failed, ended;
	uint64_t entries, bytes, name_bytes; /* so far */
	struct tar_pax global, local;
	struct buf long_name, long_link; /* GNU's L and K */
	bool has_long_name, has_long_link;
	struct buf path, link; /* of the present member */
	struct tar_entry entry;
	uint64_t left, padding; /* of its data, in the stream */
	struct sparse_map map;  /* where its data belongs */
	size_t extent;
	uint64_t extent_done;
};

/* tar_stream.c: all of `size' bytes or an error. */
int tar_take(struct tar_stream *stream, void *data, size_t size, struct moat_error *err);
/* Fails with the member's name, when it is known, and the offset.  Returns -1. */
int tar_bad(const struct tar_stream *stream, struct moat_error *err, const char *format, ...)
	MOAT_PRINTF(3, 4);
int tar_beyond(const struct tar_stream *stream, struct moat_error *err, const char *format, ...)
	MOAT_PRINTF(3, 4);
/* Counts bytes of names against their limit. */
int tar_count_names(struct tar_stream *stream, uint64_t size, struct moat_error *err);

/* Counts a member, or a header for all, against its limit. */
int tar_count_entry(struct tar_stream *stream, struct moat_error *err);

/* tar_member.c: a member from its own header, what was said before it being in the stream.  1:
 * done.
 */
int tar_member_take(struct tar_stream *stream, const struct tar_block *block,
		    enum tar_flavour flavour, struct moat_error *err);

/* tar_field.c.  Where text is returned, it is what is wrong, or NULL. */
bool tar_is_zero(const void *data, size_t size);
/* A field of a header: octal digits, or GNU's base 256. */
const char *tar_field_signed(const char *field, size_t width, int64_t *ret);
const char *tar_field(const char *field, size_t width, uint64_t *ret);
bool tar_field_is_blank(const char *field, size_t width);
/* All of the text is one decimal number of at most INT64_MAX. */
const char *tar_decimal(const char *text, size_t size, uint64_t *ret);
/* "-12.5": seconds and a fraction. */
const char *tar_time(const char *text, size_t size, int64_t *ret_sec, uint32_t *ret_nsec);
/* Appends the path as the reader gives it; *ret_slash: it ended in one. */
const char *tar_clean_path(const char *path, size_t size, struct buf *out, bool *ret_slash);
/* The bytes of a fixed name field; after its NUL there must be nothing else. */
const char *tar_fixed_name(const char *field, size_t width, struct buf *out);

/* tar_pax.c: the records of one extended header. */
int tar_pax_parse(struct tar_stream *stream, struct tar_pax *pax, bool global, const char *data,
		  size_t size, struct moat_error *err);

/* tar_holes.c: makes stream->map, and entry.size. */
int tar_holes_old(struct tar_stream *stream, const struct tar_block *block, struct moat_error *err);
int tar_holes_pax(struct tar_stream *stream, struct moat_error *err);

#endif
