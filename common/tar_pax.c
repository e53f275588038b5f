/* SPDX-License-Identifier: Apache-2.0 */
/* Extended headers of a stranger's archive (POSIX.1-2017, "pax Extended Header"): "LENGTH
 * KEY=VALUE\n" records.  A key that is not known may change what the member is, so it is refused;
 * those that are known to change nothing here are listed. */
#include <string.h>

#include "common/tar_stream_internal.h"

/* Where a key may stand. */
#define LOCAL 1
#define BOTH 3

struct key {
	const char *name; /* ending in '.': all that begin with it */
	int where;
	bool repeated; /* may stand there more than once */
	/* Returns what is wrong, or NULL.  value is not NUL-terminated; rest: of the key, after the
	 * name. */
	const char *(*take)(struct tar_pax *pax, const char *rest, const char *value, size_t size);
};

void
tar_pax_free(struct tar_pax *pax)
{
	buf_free(&pax->path);
	buf_free(&pax->link);
	buf_free(&pax->sparse_name);
	buf_free(&pax->xattrs);
	buf_free(&pax->keys);
	sparse_map_free(&pax->map);
	*pax = (struct tar_pax){0};
}

/* --------------------------------------------------------------------------------------- values */

static const char *
take_nothing(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	return NULL;
}

static const char *
take_name(struct buf *name, const char *value, size_t size)
{
	if (size > 0 && memchr(value, '\0', size) != NULL)
		return "has a NUL byte";
	name->size = 0;
	buf_append(name, value, size);
	return NULL;
}

static const char *
take_path(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	return take_name(&pax->path, value, size);
}

static const char *
take_link(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	return take_name(&pax->link, value, size);
}

static const char *
take_sparse_name(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	return size == 0 ? "is empty" : take_name(&pax->sparse_name, value, size);
}

static const char *
take_size(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	pax->has_size = size > 0;
	return size == 0 ? NULL : tar_decimal(value, size, &pax->size);
}

/* The last number means "nobody" to chown(2): leave it as it is. */
static const char *
take_id(bool *has, uint32_t *ret, const char *value, size_t size)
{
	uint64_t number = 0;
	const char *wrong = size == 0 ? NULL : tar_decimal(value, size, &number);

	*has = size > 0;
	*ret = (uint32_t) number;
	return wrong == NULL && number >= UINT32_MAX ? "is a number that is too large" : wrong;
}

static const char *
take_uid(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	return take_id(&pax->has_uid, &pax->uid, value, size);
}

static const char *
take_gid(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	return take_id(&pax->has_gid, &pax->gid, value, size);
}

static const char *
take_mtime(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	pax->has_mtime = size > 0;
	return size == 0 ? NULL : tar_time(value, size, &pax->mtime_sec, &pax->mtime_nsec);
}

static const char *
take_other_time(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	int64_t sec;
	uint32_t nsec;

	return size == 0 ? NULL : tar_time(value, size, &sec, &nsec);
}

/* Names are bytes here, whatever they are said to be; what is said must be one of the two. */
static const char *
take_charset(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	static const char utf8[] = "ISO-IR 10646 2000 UTF-8", binary[] = "BINARY";

	if (size == 0 || (size == sizeof utf8 - 1 && memcmp(value, utf8, size) == 0) ||
	    (size == sizeof binary - 1 && memcmp(value, binary, size) == 0))
		return NULL;
	return "is a character set that is not known";
}

/* ------------------------------------------------------------------------------------- attributes
 */

static int
hex(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

/* "%3D" and "%25" are '=' and '%', as GNU tar writes them; any other '%' is itself. */
static void
decode_name(const char *name, struct buf *out)
{
	for (; *name != '\0'; name++) {
		if (strncmp(name, "%3D", 3) == 0 || strncmp(name, "%25", 3) == 0) {
			char byte = (char) (hex(name[1]) * 16 + hex(name[2]));

			buf_append(out, &byte, 1);
			name += 2;
		} else {
			buf_append(out, name, 1);
		}
	}
}

static const char *
take_xattr(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	size_t before = pax->xattrs.size;
	uint32_t length = (uint32_t) size;

	if (rest[0] == '\0')
		return "has no name";
	if (size > TAR_STREAM_XATTR_MAX)
		return "is longer than 65536 bytes";
	decode_name(rest, &pax->xattrs);
	if (!pax->xattrs.failed && pax->xattrs.size - before > TAR_STREAM_XATTR_NAME_MAX)
		return "has a name of more than 255 bytes";
	buf_append(&pax->xattrs, "", 1);
	buf_append(&pax->xattrs, &length, sizeof length);
	buf_append(&pax->xattrs, value, size);
	return NULL;
}

static const char *
take_foreign(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	pax->foreign++;
	return NULL;
}

/* libarchive writes each attribute twice, the second time in its own encoding. */
static const char *
take_again(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	pax->again++;
	return NULL;
}

/* ----------------------------------------------------------------------------------------- holes
 */

static const char *
take_major(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	pax->has_major = true;
	return tar_decimal(value, size, &pax->major);
}

static const char *
take_minor(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	pax->has_minor = true;
	return tar_decimal(value, size, &pax->minor);
}

/* realsize of 1.0, size of 0.0 and 0.1. */
static const char *
take_real_size(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	if (pax->has_real_size)
		return "is given twice";
	pax->has_real_size = true;
	return tar_decimal(value, size, &pax->real_size);
}

static const char *
take_blocks(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	pax->has_blocks = true;
	return tar_decimal(value, size, &pax->blocks);
}

static const char *
add_piece(struct tar_pax *pax, uint64_t offset, uint64_t size)
{
	if (pax->map.count >= TAR_EXTENTS_MAX)
		return "is a map of too many pieces";
	if (sparse_map_add(&pax->map, offset, size, NULL) < 0)
		pax->keys.failed = 1; /* told when the records are through */
	return NULL;
}

static const char *
take_offset(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	if (pax->has_offset || pax->has_map)
		return "stands where it must not";
	pax->has_offset = true;
	return tar_decimal(value, size, &pax->offset);
}

static const char *
take_length(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	uint64_t length;
	const char *wrong = tar_decimal(value, size, &length);

	if (wrong != NULL)
		return wrong;
	if (!pax->has_offset)
		return "stands where it must not";
	pax->has_offset = false;
	return add_piece(pax, pax->offset, length);
}

/* "offset,length,offset,length..." */
static const char *
take_map(struct tar_pax *pax, const char *rest, const char *value, size_t size)
{
	const char *end = value + size;
	uint64_t numbers[2];

	if (pax->map.count > 0 || pax->has_offset)
		return "stands where it must not";
	pax->has_map = true;
	for (size_t n = 0; size > 0; n ^= 1) {
		const char *comma = memchr(value, ',', (size_t) (end - value));
		size_t digits = (size_t) ((comma == NULL ? end : comma) - value);
		const char *wrong = tar_decimal(value, digits, &numbers[n]);

		if (wrong == NULL && n == 1)
			wrong = add_piece(pax, numbers[0], numbers[1]);
		if (wrong != NULL)
			return wrong;
		if (comma == NULL)
			return n == 1 ? NULL : "is a map that ends in the middle";
		value = comma + 1;
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------------- records
 */

/* The order is that of search: a name before those that it is the beginning of. */
static const struct key keys[] = {
	{"path", LOCAL, false, take_path},
	{"linkpath", LOCAL, false, take_link},
	{"size", LOCAL, false, take_size},
	{"uid", BOTH, false, take_uid},
	{"gid", BOTH, false, take_gid},
	{"uname", BOTH, false, take_nothing},
	{"gname", BOTH, false, take_nothing},
	{"mtime", BOTH, false, take_mtime},
	{"atime", BOTH, false, take_other_time},
	{"ctime", BOTH, false, take_other_time},
	{"comment", BOTH, true, take_nothing},
	{"charset", BOTH, false, take_charset},
	{"hdrcharset", BOTH, false, take_charset},
	{"SCHILY.xattr.", LOCAL, false, take_xattr},
	{"SCHILY.acl.access", LOCAL, false, take_foreign},
	{"SCHILY.acl.default", LOCAL, false, take_foreign},
	{"SCHILY.dev", LOCAL, false, take_nothing},
	{"SCHILY.ino", LOCAL, false, take_nothing},
	{"SCHILY.nlink", LOCAL, false, take_nothing},
	{"SCHILY.fflags", LOCAL, false, take_nothing},
	{"LIBARCHIVE.creationtime", LOCAL, false, take_nothing},
	{"LIBARCHIVE.symlinktype", LOCAL, false, take_nothing},
	{"LIBARCHIVE.xattr.", LOCAL, false, take_again},
	{"RHT.security.selinux", LOCAL, false, take_foreign},
	{"GNU.sparse.major", LOCAL, false, take_major},
	{"GNU.sparse.minor", LOCAL, false, take_minor},
	{"GNU.sparse.name", LOCAL, false, take_sparse_name},
	{"GNU.sparse.realsize", LOCAL, false, take_real_size},
	{"GNU.sparse.size", LOCAL, false, take_real_size},
	{"GNU.sparse.numblocks", LOCAL, false, take_blocks},
	{"GNU.sparse.offset", LOCAL, true, take_offset},
	{"GNU.sparse.numbytes", LOCAL, true, take_length},
	{"GNU.sparse.map", LOCAL, false, take_map},
};

static const struct key *
find_key(const char *name)
{
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		size_t size = strlen(keys[i].name);

		if (keys[i].name[size - 1] == '.' ? strncmp(name, keys[i].name, size) == 0
						  : strcmp(name, keys[i].name) == 0)
			return &keys[i];
	}
	return NULL;
}

/* Of two values the last would count for some readers and the first for others. */
/* A header with more keys than this is no honest one, and would be slow to look through. */
#define KEYS_MAX 65536

static bool
is_repeated(struct tar_pax *pax, const char *name)
{
	size_t at = 0;

	while (at < pax->keys.size) {
		if (strcmp(pax->keys.data + at, name) == 0)
			return true;
		at += strlen(pax->keys.data + at) + 1;
	}
	buf_append(&pax->keys, name, strlen(name) + 1);
	return false;
}

static int
take_record(struct tar_stream *stream, struct tar_pax *pax, bool global, const char *name,
	    const char *value, size_t size, struct moat_error *err)
{
	const struct key *key = find_key(name);
	const char *wrong;

	if (key == NULL)
		return tar_beyond(stream, err,
				  "its extended header has the key `%.100s', which is "
				  "not known",
				  name);
	if (global && key->where == LOCAL)
		return tar_bad(stream, err,
			       "a header for all members has the key `%.100s', which is for one",
			       name);
	if (pax->keys.size > KEYS_MAX)
		return tar_beyond(stream, err, "its extended header has too many keys");
	if (!key->repeated && is_repeated(pax, name))
		return tar_bad(stream, err, "its extended header has the key `%.100s' twice", name);
	wrong = key->take(pax, name + strlen(key->name), value, size);
	if (wrong != NULL)
		return tar_bad(stream, err, "`%.100s' of its extended header %s", name, wrong);
	return 0;
}

/* *size: of the record that begins at data, its length field included. */
static const char *
record_size(const char *data, size_t left, size_t *ret_digits, size_t *ret_size)
{
	size_t size = 0, n = 0;

	for (; n < left && data[n] >= '0' && data[n] <= '9'; n++) {
		if (n == 8)
			return "has a record that is too long";
		size = size * 10 + (size_t) (data[n] - '0');
	}
	if (n == 0 || n == left || data[n] != ' ' || data[0] == '0')
		return "has a record without a length";
	if (size > left)
		return "has a record that is longer than the header";
	if (size < n + 4 || data[size - 1] != '\n') /* " K=\n" */
		return "has a record whose length is wrong";
	*ret_digits = n;
	*ret_size = size;
	return NULL;
}

int
tar_pax_parse(struct tar_stream *stream, struct tar_pax *pax, bool global, const char *data,
	      size_t size, struct moat_error *err)
{
	pax->seen = true;
	for (size_t at = 0; at < size;) {
		size_t digits = 0, length = 0, key_size;
		const char *wrong = record_size(data + at, size - at, &digits, &length);
		const char *key = data + at + digits + 1, *equals;
		char name[sizeof "SCHILY.xattr." + 3 * TAR_STREAM_XATTR_NAME_MAX];

		if (wrong != NULL)
			return tar_bad(stream, err, "its extended header %s", wrong);
		equals = memchr(key, '=', length - digits - 2);
		key_size = equals == NULL ? 0 : (size_t) (equals - key);
		if (key_size == 0 || key_size >= sizeof name || memchr(key, '\0', key_size) != NULL)
			return tar_bad(stream, err,
				       "its extended header has a record without a key");
		memcpy(name, key, key_size);
		name[key_size] = '\0';
		if (take_record(stream, pax, global, name, equals + 1,
				length - digits - 3 - key_size, err) < 0)
			return -1;
		at += length;
	}
	if (pax->xattrs.size == 0)
		pax->foreign += pax->again;
	if (buf_check(&pax->path, err) < 0 || buf_check(&pax->link, err) < 0 ||
	    buf_check(&pax->sparse_name, err) < 0 || buf_check(&pax->xattrs, err) < 0)
		return -1;
	return buf_check(&pax->keys, err);
}
