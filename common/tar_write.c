/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of tar members.  What the fixed fields cannot hold (long names, fractions of a second,
 * large numbers, holes, extended attributes) goes into an extended header before them. */
#include <stdio.h>
#include <string.h>

#include "common/tar.h"

#define OCTAL_7 07777777u
#define OCTAL_11 077777777777u

unsigned
tar_checksum(const struct tar_block *block)
{
	const unsigned char *bytes = (const unsigned char *) block;
	size_t from = offsetof(struct tar_block, chksum);
	unsigned sum = 0;

	for (size_t i = 0; i < sizeof *block; i++)
		sum += i >= from && i < from + sizeof block->chksum ? ' ' : bytes[i];
	return sum;
}

/* "LENGTH KEY=VALUE\n", where LENGTH counts itself. */
static void
pax_record(struct buf *out, const char *key, const void *value, size_t size)
{
	size_t rest = strlen(key) + size + 3, digits = 1;

	for (size_t limit = 10; rest + digits >= limit; limit *= 10)
		digits++;
	buf_format(out, "%zu %s=", rest + digits, key);
	buf_append(out, value, size);
	buf_append(out, "\n", 1);
}

static void
pax_number(struct buf *out, const char *key, uint64_t value)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%llu", (unsigned long long) value);

	pax_record(out, key, text, (size_t) n);
}

/* Seconds with a fraction; before 1970 the sign stands for both. */
static void
pax_time(struct buf *out, const char *key, int64_t sec, uint32_t nsec)
{
	char text[48];
	uint64_t whole = (uint64_t) sec;
	int n;

	if (sec < 0) {
		whole = -whole;
		if (nsec != 0) {
			whole--;
			nsec = 1000000000u - nsec;
		}
	}
	n = snprintf(text, sizeof text, "%s%llu.%09u", sec < 0 ? "-" : "",
		     (unsigned long long) whole, nsec);
	pax_record(out, key, text, (size_t) n);
}

/* SCHILY.xattr.NAME; '=' would end the key, so it and '%' are written as GNU tar writes them. */
static void
pax_xattr(struct buf *out, const char *name, const void *value, size_t size)
{
	struct buf key = {0};

	buf_string(&key, "SCHILY.xattr.");
	for (; *name != '\0'; name++) {
		if (*name == '=' || *name == '%')
			buf_format(&key, "%%%02X", (unsigned char) *name);
		else
			buf_append(&key, name, 1);
	}
	if (key.failed)
		out->failed = 1;
	else
		pax_record(out, key.data, value, size);
	buf_free(&key);
}

static void
pax_xattrs(struct buf *out, const struct tar_member *member)
{
	const char *at = member->xattrs;
	size_t left = at == NULL ? 0 : member->xattrs_size;

	while (left > 0) {
		size_t name = strnlen(at, left) + 1;
		uint32_t size;

		if (name > left || left - name < sizeof size)
			return; /* not as the core writes them */
		memcpy(&size, at + name, sizeof size);
		if (left - name - sizeof size < size)
			return;
		pax_xattr(out, at, at + name + sizeof size, size);
		at += name + sizeof size + size;
		left -= name + sizeof size + size;
	}
}

/* As a string: a directory ends in a slash, and the root has a name. */
static void
member_path(struct buf *out, const struct tar_member *member)
{
	buf_string(out, member->path[0] == '\0' ? "." : member->path);
	if (member->type == TAR_DIRECTORY)
		buf_string(out, "/");
}

static void
pax_records(struct buf *out, const struct tar_member *member, const struct buf *path)
{
	if (member->sparse) {
		pax_record(out, "GNU.sparse.major", "1", 1);
		pax_record(out, "GNU.sparse.minor", "0", 1);
		pax_record(out, "GNU.sparse.name", path->data, path->size);
		pax_number(out, "GNU.sparse.realsize", member->real_size);
	} else if (path->size > TAR_NAME) {
		pax_record(out, "path", path->data, path->size);
	}
	if (member->link != NULL && strlen(member->link) > TAR_NAME)
		pax_record(out, "linkpath", member->link, strlen(member->link));
	if (member->size > OCTAL_11)
		pax_number(out, "size", member->size);
	if (member->uid > OCTAL_7)
		pax_number(out, "uid", member->uid);
	if (member->gid > OCTAL_7)
		pax_number(out, "gid", member->gid);
	if (member->mtime_nsec != 0 || member->mtime_sec < 0 ||
	    member->mtime_sec > (int64_t) OCTAL_11)
		pax_time(out, "mtime", member->mtime_sec, member->mtime_nsec);
	pax_xattrs(out, member);
}

/* Digits that fill the field but for its NUL; a value that does not fit stands in the extended
 * header. */
static void
octal(char *field, size_t width, uint64_t value, uint64_t max)
{
	char text[32];

	(void) snprintf(text, sizeof text, "%0*llo", (int) width - 1,
			(unsigned long long) (value > max ? 0 : value));
	memcpy(field, text, width);
}

static void
fixed_name(char *field, size_t width, const char *name, size_t size)
{
	memcpy(field, name, size < width ? size : width);
}

static void
append_block(struct buf *out, const struct tar_member *member, const char *name, size_t name_size)
{
	struct tar_block block = {0};
	uint64_t mtime = member->mtime_sec < 0 ? 0 : (uint64_t) member->mtime_sec;

	fixed_name(block.name, sizeof block.name, name, name_size);
	octal(block.mode, sizeof block.mode, member->mode & 07777, OCTAL_7);
	octal(block.uid, sizeof block.uid, member->uid, OCTAL_7);
	octal(block.gid, sizeof block.gid, member->gid, OCTAL_7);
	octal(block.size, sizeof block.size, member->size, OCTAL_11);
	octal(block.mtime, sizeof block.mtime, mtime, OCTAL_11);
	block.typeflag = member->type;
	if (member->link != NULL)
		fixed_name(block.linkname, sizeof block.linkname, member->link,
			   strlen(member->link));
	memcpy(block.magic, "ustar", 6);
	memcpy(block.version, "00", 2);
	octal(block.devmajor, sizeof block.devmajor, 0, 0);
	octal(block.devminor, sizeof block.devminor, 0, 0);
	octal(block.chksum, sizeof block.chksum - 1, tar_checksum(&block), OCTAL_7);
	block.chksum[7] = ' ';
	buf_append(out, &block, sizeof block);
}

static int
append_pax(struct buf *out, const struct buf *records, const char *path, struct moat_error *err)
{
	static const char name[] = "././@PaxHeader", zeros[TAR_BLOCK];
	struct tar_member header = {.type = TAR_PAX, .mode = 0644, .size = records->size};

	if (records->size == 0)
		return 0;
	if (records->size > TAR_PAX_MAX)
		return moat_fail(err, MOAT_UNSUPPORTED,
				 "`%.200s...': a name or link text of this length cannot be stored",
				 path);
	append_block(out, &header, name, sizeof name - 1);
	buf_append(out, records->data, records->size);
	buf_append(out, zeros, (size_t) tar_padding(records->size));
	return 0;
}

int
tar_header(struct buf *out, const struct tar_member *member, struct moat_error *err)
{
	AUTO_BUF struct buf records = {0}, path = {0};

	member_path(&path, member);
	if (buf_check(&path, err) < 0)
		return -1;
	pax_records(&records, member, &path);
	if (buf_check(&records, err) < 0)
		return -1;
	if (append_pax(out, &records, member->path, err) < 0)
		return -1;
	append_block(out, member, path.data, path.size);
	return buf_check(out, err);
}
