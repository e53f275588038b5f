/* SPDX-License-Identifier: Apache-2.0 */
/* A script is commands separated by `;', words separated by blanks:
 *
 *     f PATH [DATA]   a file             d PATH          a directory
 *     l PATH TEXT     a symbolic link    h PATH TARGET   a hard link
 *     t TYPE PATH     any type, no data
 *     x K=V...        an extended header g K=V...        one for all members
 *     X BYTES         one of these bytes
 *     L NAME, K NAME  GNU's long name, long link
 *     at N BYTES      changes the last header at byte N, its checksum too
 *     sum BYTES       its checksum field only
 *     raw BYTES       bytes as they are  pad             zeros to the next block
 *     z               a block of zeros   cut N           takes N bytes away from the end
 *
 * Every archive ends in two blocks of zeros, but after `z', `raw' and `cut'.
 * In a word \xHH is a byte, %cN is the character c, N times. */
#include "hostile-tar.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/tar.h"

struct maker {
	struct buf out;
	size_t header; /* where the last one is */
	bool no_end;
};

static void
decode(const char *word, size_t size, struct buf *out)
{
	for (size_t i = 0; i < size; i++) {
		if (word[i] == '\\' && i + 3 < size && word[i + 1] == 'x') {
			char digits[3] = {word[i + 2], word[i + 3], '\0'};
			char byte = (char) strtol(digits, NULL, 16);

			buf_append(out, &byte, 1);
			i += 3;
		} else if (word[i] == '%' && i + 2 < size) {
			char *end;
			long n = strtol(word + i + 2, &end, 10);

			for (; n > 0; n--)
				buf_append(out, word + i + 1, 1);
			i = (size_t) (end - word) - 1;
		} else {
			buf_append(out, word + i, 1);
		}
	}
}

static void
fill_block(struct maker *maker)
{
	static const char zeros[TAR_BLOCK];

	buf_append(&maker->out, zeros, (size_t) tar_padding(maker->out.size));
}

static void
set_checksum(struct maker *maker)
{
	struct tar_block block;
	char text[16];

	memcpy(&block, maker->out.data + maker->header, sizeof block);
	snprintf(text, sizeof text, "%06o", tar_checksum(&block));
	memcpy(block.chksum, text, 7);
	block.chksum[7] = ' ';
	memcpy(maker->out.data + maker->header, &block, sizeof block);
}

static void
put_name(char *field, size_t width, const struct buf *name)
{
	if (name->size > 0)
		memcpy(field, name->data, name->size < width ? name->size : width);
}

static void
put_member(struct maker *maker, char type, const struct buf *name, const struct buf *link,
	   const struct buf *data)
{
	struct tar_block block = {.typeflag = type};
	char size[16];

	put_name(block.name, sizeof block.name, name);
	put_name(block.linkname, sizeof block.linkname, link);
	memcpy(block.mode, "0000644", 8);
	memcpy(block.uid, "0000000", 8);
	memcpy(block.gid, "0000000", 8);
	memcpy(block.mtime, "00000000000", 12);
	snprintf(size, sizeof size, "%011zo", data->size);
	memcpy(block.size, size, 12);
	memcpy(block.magic, "ustar", 6);
	memcpy(block.version, "00", 2);
	if (type == '5')
		memcpy(block.mode, "0000755", 8);
	maker->header = maker->out.size;
	buf_append(&maker->out, &block, sizeof block);
	set_checksum(maker);
	if (data->size > 0)
		buf_append(&maker->out, data->data, data->size);
	fill_block(maker);
}

static void
put_record(struct buf *out, const struct buf *record)
{
	char text[16];
	size_t size = record->size + 3;

	while ((size_t) snprintf(text, sizeof text, "%zu", size) + record->size + 2 > size)
		size++;
	buf_format(out, "%zu ", size);
	buf_append(out, record->data, record->size);
	buf_append(out, "\n", 1);
}

#define WORDS_MAX 16

static void
run_command(struct maker *maker, const char *verb, struct buf *words, size_t count)
{
	static const struct buf none;
	const struct buf *first = count > 0 ? &words[0] : &none,
			 *second = count > 1 ? &words[1] : &none;
	struct buf records = {0}, name = {0};

	if (strcmp(verb, "f") == 0)
		put_member(maker, '0', first, &none, second);
	else if (strcmp(verb, "d") == 0)
		put_member(maker, '5', first, &none, &none);
	else if (strcmp(verb, "l") == 0)
		put_member(maker, '2', first, second, &none);
	else if (strcmp(verb, "h") == 0)
		put_member(maker, '1', first, second, &none);
	else if (strcmp(verb, "t") == 0)
		put_member(maker, first->data[0], second, &none, &none);
	else if (strcmp(verb, "x") == 0 || strcmp(verb, "g") == 0) {
		for (size_t i = 0; i < count; i++)
			put_record(&records, &words[i]);
		buf_string(&name, "pax");
		put_member(maker, verb[0], &name, &none, &records);
	} else if (strcmp(verb, "X") == 0) {
		buf_string(&name, "pax");
		put_member(maker, 'x', &name, &none, first);
	} else if (strcmp(verb, "L") == 0 || strcmp(verb, "K") == 0) {
		buf_append(&records, first->data, first->size);
		buf_append(&records, "", 1);
		buf_string(&name, "././@LongLink");
		put_member(maker, verb[0], &name, &none, &records);
	} else if (strcmp(verb, "at") == 0) {
		memcpy(maker->out.data + maker->header + atol(first->data), second->data,
		       second->size);
		set_checksum(maker);
	} else if (strcmp(verb, "sum") == 0) {
		memcpy(maker->out.data + maker->header + offsetof(struct tar_block, chksum),
		       first->data, first->size);
	} else if (strcmp(verb, "raw") == 0) {
		buf_append(&maker->out, first->data, first->size);
		maker->no_end = true;
	} else if (strcmp(verb, "pad") == 0) {
		fill_block(maker);
	} else if (strcmp(verb, "z") == 0) {
		buf_append(&maker->out, (char[TAR_BLOCK]){0}, TAR_BLOCK);
		maker->no_end = true;
	} else if (strcmp(verb, "cut") == 0) {
		maker->out.size -= (size_t) atol(first->data);
		maker->no_end = true;
	} else {
		fprintf(stderr, "hostile-tar: `%s' is no command\n", verb);
		abort();
	}
	buf_free(&records);
	buf_free(&name);
}

static void
run_line(struct maker *maker, const char *line, size_t size)
{
	struct buf words[WORDS_MAX] = {0};
	char verb[8] = "";
	size_t count = 0;

	for (size_t at = 0; at < size;) {
		size_t n = 0;

		while (at + n < size && line[at + n] != ' ')
			n++;
		if (n > 0 && verb[0] == '\0' && n < sizeof verb)
			memcpy(verb, line + at, n);
		else if (n > 0 && count < WORDS_MAX)
			decode(line + at, n, &words[count++]);
		at += n + 1;
	}
	if (verb[0] != '\0')
		run_command(maker, verb, words, count);
	for (size_t i = 0; i < count; i++)
		buf_free(&words[i]);
}

void
hostile_make(const struct hostile_case *hostile, struct buf *ret)
{
	struct maker maker = {0};
	static const char end[2 * TAR_BLOCK];

	for (const char *at = hostile->script; *at != '\0';) {
		size_t n = strcspn(at, ";");

		run_line(&maker, at, n);
		at += n + (at[n] == ';');
	}
	if (!maker.no_end)
		buf_append(&maker.out, end, sizeof end);
	if (maker.out.data == NULL)
		buf_string(&maker.out, " "), maker.out.size = 0;
	*ret = maker.out;
}

/* GNU's magic, where it belongs. */
#define GNU "at 257 ustar\\x20\\x20\\x00;"

/* clang-format off */
const struct hostile_case hostile_cases[] = {
	/* --- where names lead */
	{"absolute", "f /tmp/moat-escape x", "absolute path"},
	{"absolute-twice", "f //tmp/moat-escape x", "absolute path"},
	{"absolute-directory", "d /tmp/moat-escape", "absolute path"},
	{"absolute-link", "l /tmp/moat-escape x", "absolute path"},
	{"absolute-pax", "x path=/tmp/moat-escape;f a x", "absolute path"},
	{"absolute-gnu", "L /tmp/moat-escape;f a x", "absolute path"},
	{"absolute-after-dot", "f .//tmp/moat-escape x", "empty component"},
	{"parent", "f ../moat-escape x", "a `..' in its path"},
	{"parent-inside", "f a/../../moat-escape x", "a `..' in its path"},
	{"parent-harmless", "f a/../b x", "a `..' in its path"},
	{"parent-last", "d a/..", "a `..' in its path"},
	{"parent-alone", "d ..", "a `..' in its path"},
	{"parent-after-dot", "f ./../moat-escape x", "a `..' in its path"},
	{"parent-pax", "x path=a/../../moat-escape;f a x", "a `..' in its path"},
	{"parent-gnu", "L a/../../moat-escape;f a x", "a `..' in its path"},
	{"parent-prefix", "f moat-escape x;at 345 ../..", "a `..' in its path"},
	{"prefix-absolute", "f moat-escape x;at 345 /tmp", "absolute path"},
	{"prefix-slash", "f moat-escape x;at 345 /", "absolute path"},
	{"name-absolute-in-prefix", "f /moat-escape x;at 345 a", "empty component"},
	{"parent-sparse-name", "x GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.realsize=0 GNU.sparse.name=../moat-escape;f a 0\\x0a;", "a `..' in its path"},
	{"empty-component", "f a//b x", "empty component"},
	{"dot-inside", "f a/./b x", "a `.' in its path"},
	{"dot-last", "f a/. x", "a `.' in its path"},
	{"slashes-last", "d a//", "empty component"},
	{"empty-name", "f \\x00 x", "has no name"},
	{"root-is-a-file", "f . x", "a size, and nothing"},
	{"root-is-a-link", "l . /tmp", "name of a directory and is none"},
	{"root-slash-is-a-link", "l ./ /tmp", "name of a directory and is none"},
	{"long-component", "x path=%a256;f a x", "more than 255 bytes"},
	{"long-component-inside", "x path=b/%a256/c;f a x", "more than 255 bytes"},
	{"long-path", "x path=%a65536;f a x", "more than 65535 bytes"},
	{"long-path-gnu", "L %a65537;f a x", "too long"},
	{"nul-in-pax-path", "x path=a\\x00/../b;f a x", "NUL byte"},
	{"nul-in-gnu-path", "L a\\x00b;f a x", "NUL byte"},
	{"empty-gnu-path", "X ;L \\x00;f a x", "empty"},
	{"bytes-after-name", "f a x;at 2 b", "bytes after the end of a name"},
	{"bytes-after-prefix", "f a x;at 345 p\\x00q", "bytes after the end of a name"},
	{"bytes-after-linkname", "l a x;at 159 y", "bytes after the end of a name"},
	{"file-as-directory", "f a/ x", "a size, and nothing"},
	{"link-as-directory", "l a/ x", "name of a directory"},
	{"hard-link-as-directory", "f b x;h a/ b", "name of a directory"},
	/* --- links */
	{"through-link", "l a /tmp;f a/moat-escape x", "below `a', which is no directory"},
	{"through-link-up", "l a ..;f a/moat-escape x", "below `a', which is no directory"},
	{"through-link-dot", "l a .;f a/b x", "below `a', which is no directory"},
	{"through-link-deep", "l a /tmp;d a/b;f a/b/c x", "below `a', which is no directory"},
	{"through-chain", "l a b;l b ..;f a/moat-escape x", "below `a', which is no directory"},
	{"through-link-inside", "d d;l d/a ../..;f d/a/moat-escape x", "below `d/a', which is no directory"},
	{"link-through-link", "l a /tmp;l a/b c", "below `a', which is no directory"},
	{"hard-link-through-link", "f f x;l a /tmp;h a/b f", "below `a', which is no directory"},
	{"through-link-pax", "l a /tmp;x path=a/moat-escape;f b x", "below `a', which is no directory"},
	{"through-hard-linked-link", "l a /tmp;h b a;f b/moat-escape x", "below `b', which is no directory"},
	{"through-file", "f a x;f a/b y", "below `a', which is no directory"},
	{"directory-through-file", "f a x;d a/b", "below `a', which is no directory"},
	{"git-through-link", "l a /tmp;f a/.git/config x", "below `a', which is no directory"},
	{"directory-then-link", "d a;l a /tmp;f a/b x", "that name before, as a directory"},
	{"made-up-then-link", "f a/b x;l a /tmp", "that name before, as a directory"},
	{"link-then-directory", "l a /tmp;d a;f a/b x", "that name before, as a symbolic link"},
	{"link-then-file", "l a /etc/passwd;f a x", "that name before, as a symbolic link"},
	{"file-then-link", "f a x;l a /etc/passwd", "that name before, as a file"},
	{"file-then-directory", "f a x;d a", "that name before, as a file"},
	{"directory-then-file", "d a;f a x", "that name before, as a directory"},
	{"file-twice", "f a x;f a y", "that name before, as a file"},
	{"file-twice-dot", "f a x;f ./a y", "that name before, as a file"},
	{"link-twice", "l a x;l a y", "that name before, as a symbolic link"},
	{"file-then-hard-link", "f a x;f b y;h a b", "that name before, as a file"},
	{"hard-link-then-file", "f a x;h b a;f b y", "that name before, as a file"},
	{"hard-link-outside", "h a /etc/passwd", "absolute path"},
	{"hard-link-up", "h a ../moat-escape", "a `..' in its path"},
	{"hard-link-absent", "h a b", "which did not come before"},
	{"hard-link-later", "h a b;f b x", "which did not come before"},
	{"hard-link-itself", "h a a", "which did not come before"},
	{"hard-link-directory", "d d;h a d", "which is a directory"},
	{"hard-link-directory-slash", "d d;h a d/", "is to a directory"},
	{"hard-link-made-up", "f d/f x;h a d", "which is a directory"},
	{"hard-link-root", "h a .", "is to a directory"},
	{"hard-link-empty", "h a", "a link to nothing"},
	{"hard-link-git", "f .git/x y;h a .git/x", "which is left out"},
	{"hard-link-below-link", "l a /etc;h b a/passwd", "which did not come before"},
	{"hard-link-pax-up", "x linkpath=../moat-escape;h a b", "a `..' in its path"},
	{"hard-link-gnu-up", "K ../moat-escape;h a b", "a `..' in its path"},
	{"hard-link-long-component", "x linkpath=%a256;h a b", "more than 255 bytes"},
	{"hard-link-with-data", "f a x;h b a;at 124 00000000001;raw y;pad;z;z", "a size, and nothing"},
	{"link-empty", "l a", "a link to nothing"},
	{"link-nul", "x linkpath=a\\x00b;l a b", "NUL byte"},
	{"link-too-long", "x linkpath=%a4096;l a b", "more than 4095 bytes"},
	{"link-with-data", "l a b;at 124 00000000001;raw y;pad;z;z", "a size, and nothing"},
	{"directory-with-data", "d a;at 124 00000000001;raw y;pad;z;z", "a size, and nothing"},
	{"file-with-link", "f a x;at 157 target", "is no link, and has the target"},
	{"directory-with-link", "d a;at 157 target", "is no link, and has the target"},
	{"file-with-pax-link", "x linkpath=b;f a x", "is no link, and has the target"},
	{"file-with-gnu-link", "K b;f a x", "is no link, and has the target"},
	/* --- types */
	{"character-device", "t 3 a", "character device"},
	{"block-device", "t 4 a", "block device"},
	{"fifo", "t 6 a", "FIFO"},
	{"type-unknown", "t Z a", "type (byte 0x5a) is not known"},
	{"type-volume", "t V a", "type (byte 0x56) is not known"},
	{"type-multivolume", "t M a", "type (byte 0x4d) is not known"},
	{"type-dumpdir", "t D a", "type (byte 0x44) is not known"},
	{"type-control", "t \\x01 a", "type (byte 0x01) is not known"},
	/* --- numbers */
	{"size-negative", "f a x;at 124 \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff", "size is negative"},
	{"size-huge", "f a x;at 124 \\x80\\x00\\x00\\x00\\x7f\\xff\\xff\\xff\\xff\\xff\\xff\\xff", "max_file_bytes"},
	{"size-beyond-64", "f a x;at 124 \\x80\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00", "too large"},
	{"size-beyond-63", "f a x;at 124 \\x80\\x00\\x00\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff", "too large"},
	{"size-octal-huge", "f a x;at 124 777777777777", "max_file_bytes|cut off"},
	{"size-blank", "f a x;at 124 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00", "size is no number"},
	{"size-letters", "f a x;at 124 0000000000x", "size is no octal"},
	{"size-nine", "f a x;at 124 00000000009", "size is no octal"},
	{"size-minus", "f a x;at 124 -0000000001", "size is no number"},
	{"size-hex", "f a x;at 124 0x000000001", "size is no octal"},
	{"size-junk-after", "f a x;at 124 00000000001z", "size is no octal"},
	{"size-more-than-there", "f a x;at 124 00000010000", "something|cut off"},
	{"uid-negative", "f a x;at 108 \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe", "owner is negative"},
	{"uid-huge", "f a x;at 108 \\x80\\x00\\x00\\x00\\xff\\xff\\xff\\xff", "owner is a number that is too large"},
	{"gid-letters", "f a x;at 116 root", "group is no octal|group is no number"},
	{"gid-negative", "f a x;at 116 \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff", "group is negative"},
	{"mode-huge", "f a x;at 100 7777777\\x00", "mode is a number that is too large"},
	{"mode-negative", "f a x;at 100 \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff", "mode is negative"},
	{"mode-blank", "f a x;at 100 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00", "mode is no number"},
	{"mtime-beyond-64", "f a x;at 136 \\x80\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00", "time is a number that is too large"},
	{"mtime-letters", "f a x;at 136 yesterday", "time is no"},
	{"checksum-wrong", "f b x;f a x;sum 000000", "checksum is wrong"},
	{"checksum-blank", "f b x;f a x;sum \\x20\\x20\\x20\\x20\\x20\\x20\\x20\\x20", "checksum is wrong"},
	{"checksum-letters", "f b x;f a x;sum qwerty", "checksum is wrong"},
	/* --- extended headers */
	{"pax-unknown", "x MOAT.unknown=1;f a x", "key `MOAT.unknown', which is not known"},
	{"pax-unknown-posix", "x realtime.x=1;f a x", "key `realtime.x', which is not known"},
	{"pax-unknown-control", "x a\\x1b[31m=1;f a x", "which is not known"},
	{"pax-size-differs", "x size=3;f a x", "different sizes"},
	{"pax-size-smuggles", "x size=512;f a;f /etc/passwd x", "different sizes"},
	{"pax-size-zero", "x size=0;f a x", "different sizes"},
	{"pax-size-negative", "x size=-1;f a x", "is negative"},
	{"pax-size-huge", "x size=99999999999999999999;f a", "too large"},
	{"pax-size-letters", "x size=1x;f a x", "no decimal"},
	{"pax-size-of-link", "x size=9000000000;l a b", "a size, and nothing"},
	{"pax-path-and-gnu", "x path=b;L c;f a x", "two long names"},
	{"pax-gnu-and-path", "L c;x path=b;f a x", "two long names"},
	{"pax-link-and-gnu", "x linkpath=b;K c;l a x", "two long links"},
	{"pax-path-twice", "x path=b path=c;f a x", "key `path' twice"},
	{"pax-size-twice", "x size=1 size=1;f a x", "key `size' twice"},
	{"pax-twice", "x path=b;x size=1;f a x", "two extended headers"},
	{"gnu-name-twice", "L b;L c;f a x", "two long name"},
	{"gnu-link-twice", "K b;K c;l a x", "two long link"},
	{"pax-length-short", "X 5\\x20path=b\\x0a;f a x", "length is wrong"},
	{"pax-length-long", "X 99\\x20path=b\\x0a;f a x", "longer than the header"},
	{"pax-length-zero", "X 0\\x20path=b\\x0a;f a x", "without a length"},
	{"pax-length-leading-zero", "X 010\\x20path=b\\x0a;f a x", "without a length"},
	{"pax-length-absent", "X path=b\\x0a;f a x", "without a length"},
	{"pax-length-huge", "X 99999999999999999999\\x20path=b\\x0a;f a x", "too long"},
	{"pax-length-negative", "X -9\\x20path=b\\x0a;f a x", "without a length"},
	{"pax-no-newline", "X 9\\x20path=bc;f a x", "length is wrong"},
	{"pax-no-equals", "X 9\\x20pathbc\\x0a;f a x", "without a key"},
	{"pax-no-key", "X 6\\x20=bc\\x0a;f a x", "without a key"},
	{"pax-nul-in-key", "X 10\\x20p\\x00th=b\\x0a;f a x", "without a key"},
	{"pax-trailing", "X 10\\x20path=b\\x0a\\x00;f a x", "without a length"},
	{"pax-too-long", "x path=b;at 124 00100000000;f a x", "too long"},
	{"pax-size-negative-itself", "x path=b;at 124 \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff;f a x", "is negative"},
	{"pax-at-end", "x path=b", "ends after an extended header"},
	{"gnu-at-end", "L b", "ends after an extended header"},
	{"pax-uid-huge", "x uid=4294967295;f a x", "too large"},
	{"pax-uid-negative", "x uid=-1;f a x", "is negative"},
	{"pax-mtime-letters", "x mtime=now;f a x", "is no time"},
	{"pax-mtime-two-points", "x mtime=1.2.3;f a x", "is no time"},
	{"pax-mtime-huge", "x mtime=99999999999999999999;f a x", "is no time"},
	{"pax-charset", "x hdrcharset=KOI8;f a x", "character set"},
	{"global-path", "g path=b;f a x", "which is for one"},
	{"global-link", "g linkpath=b;l a x", "which is for one"},
	{"global-size", "g size=1;f a x", "which is for one"},
	{"global-xattr", "g SCHILY.xattr.user.k=v;f a x", "which is for one"},
	{"global-sparse", "g GNU.sparse.major=1;f a x", "which is for one"},
	{"global-unknown", "g x=1;f a x", "which is not known"},
	{"global-between", "x path=b;g comment=c;f a x", "whose own has begun"},
	{"xattr-no-name", "x SCHILY.xattr.=v;f a x", "has no name"},
	{"xattr-twice", "x SCHILY.xattr.user.\\x2525=v SCHILY.xattr.user.\\x25=w;f a x", "twice"},
	{"xattr-same", "x SCHILY.xattr.user.a=v SCHILY.xattr.user.a=w;f a x", "twice"},
	{"xattr-long-name", "x SCHILY.xattr.user.%a251=v;f a x", "more than 255 bytes"},
	{"xattr-long-value", "x SCHILY.xattr.user.a=%a65537;f a x", "longer than 65536 bytes"},
	{"acl-malformed", "x SCHILY.xattr.system.posix_acl_access=abc;f a x", "access control list is malformed"},
	{"acl-empty", "x SCHILY.xattr.system.posix_acl_access=\\x02\\x00\\x00\\x00;f a x", "access control list is malformed"},
	{"acl-no-mask", "x SCHILY.xattr.system.posix_acl_access=\\x02\\x00\\x00\\x00\\x01\\x00\\x06\\x00\\xff\\xff\\xff\\xff\\x02\\x00\\x06\\x00\\x01\\x00\\x00\\x00\\x04\\x00\\x06\\x00\\xff\\xff\\xff\\xff\\x20\\x00\\x06\\x00\\xff\\xff\\xff\\xff;f a x", "access control list is malformed"},
	/* --- holes */
	{"sparse-no-size", "x GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.name=a;f s 0\\x0a", "does not tell its size"},
	{"sparse-no-name", "x GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.realsize=9;f s 0\\x0a", "without its name"},
	{"sparse-no-minor", "x GNU.sparse.major=1 GNU.sparse.name=a GNU.sparse.realsize=9;f s 0\\x0a", "format that is not known"},
	{"sparse-version", "x GNU.sparse.major=2 GNU.sparse.minor=0 GNU.sparse.name=a GNU.sparse.realsize=9;f s 0\\x0a", "format that is not known"},
	{"sparse-name-alone", "x GNU.sparse.name=b;f a x", "does not tell its size"},
	{"sparse-two-maps", "x GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.name=a GNU.sparse.realsize=9 GNU.sparse.numblocks=0;f s 0\\x0a", "two maps"},
	{"sparse-map-cut", "x GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.name=a GNU.sparse.realsize=9;f s 3\\x0a", "map of holes is cut off"},
	{"sparse-map-letters", "x GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.name=a GNU.sparse.realsize=9;f s x\\x0a%0510", "no number where one is due"},
	{"sparse-map-negative", "x GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.name=a GNU.sparse.realsize=9;f s -1\\x0a%0510", "no number where one is due|too long"},
	{"sparse-map-many", "x GNU.sparse.major=1 GNU.sparse.minor=0 GNU.sparse.name=a GNU.sparse.realsize=9;f s 99999999\\x0a%0600", "too long|cut off|no number"},
	{"sparse-map-overlap", "x GNU.sparse.size=9 GNU.sparse.numblocks=2 GNU.sparse.map=0,2,1,2;f a wxyz", "not in order"},
	{"sparse-map-beyond", "x GNU.sparse.size=3 GNU.sparse.numblocks=1 GNU.sparse.map=0,4;f a wxyz", "beyond its end"},
	{"sparse-map-overflow", "x GNU.sparse.size=9 GNU.sparse.numblocks=1 GNU.sparse.map=9223372036854775807,9223372036854775807;f a wxyz", "beyond its end"},
	{"sparse-map-too-little", "x GNU.sparse.size=9 GNU.sparse.numblocks=1 GNU.sparse.map=0,3;f a wxyz", "and there are 4"},
	{"sparse-map-odd", "x GNU.sparse.size=9 GNU.sparse.numblocks=1 GNU.sparse.map=0,4,5;f a wxyz", "ends in the middle"},
	{"sparse-map-count", "x GNU.sparse.size=9 GNU.sparse.numblocks=7 GNU.sparse.map=0,4;f a wxyz", "not as long as it says"},
	{"sparse-map-absent", "x GNU.sparse.size=9 GNU.sparse.map=0,4;f a wxyz", "not as long as it says"},
	{"sparse-offset-alone", "x GNU.sparse.size=9 GNU.sparse.numblocks=1 GNU.sparse.offset=0;f a wxyz", "ends in the middle"},
	{"sparse-numbytes-alone", "x GNU.sparse.size=9 GNU.sparse.numblocks=1 GNU.sparse.numbytes=4;f a wxyz", "must not"},
	{"sparse-size-twice", "x GNU.sparse.size=9 GNU.sparse.realsize=8 GNU.sparse.numblocks=1 GNU.sparse.map=0,4;f a wxyz", "given twice"},
	{"sparse-bomb", "x GNU.sparse.size=9223372036854775806 GNU.sparse.numblocks=1 GNU.sparse.map=0,4;f a wxyz", "max_file_bytes"},
	{"sparse-directory", "x GNU.sparse.size=9 GNU.sparse.numblocks=0;d a", "cannot be"},
	{"sparse-hard-link", "f b x;x GNU.sparse.size=9 GNU.sparse.numblocks=0;h a b", "cannot be"},
	{"old-sparse-ustar", "t S a", "cannot be"},
	{"old-sparse-no-size", "t S a;" GNU, "is no number"},
	{"old-sparse-flag", "t S a;" GNU "at 483 00000000011;at 482 7", "whether it goes on"},
	{"old-sparse-cut", "t S a;" GNU "at 483 00000000011;at 482 \\x01;raw x", "cut off"},
	{"old-sparse-gap", "t S a;" GNU "at 483 00000000011;at 410 00000000000;at 422 00000000000", "after its end"},
	{"old-sparse-pax", "x GNU.sparse.size=9 GNU.sparse.numblocks=0;t S a;" GNU "at 483 00000000011", "cannot be"},
	/* --- framing */
	{"nothing", "raw", "cut off"},
	{"zeros", "z;z;z;z", "has no members"},
	{"global-alone", "g comment=x", "has no members"},
	{"one-byte", "raw a", "cut off"},
	{"no-tar", "raw %a2048", "this is no tar archive"},
	{"text", "raw hello,\\x20world\\x0a", "cut off"},
	{"no-end", "f a x;cut 0", "cut off"},
	{"half-end", "f a x;z", "cut off"},
	{"end-in-the-middle", "f a x;z;f b y", "zeros in the middle"},
	{"trailing-member", "f a x;z;z;f b y", "follows the end"},
	{"trailing-byte", "f a x;z;z;raw y", "follows the end"},
	{"trailing-late", "f a x;z;z;z;z;z;z;z;z;z;z;z;raw y", "follows the end"},
	{"cut-in-header", "f a x;cut 800", "cut off"},
	{"cut-in-data", "f a %a600;cut 500", "cut off"},
	{"cut-in-pax", "x path=b;cut 10", "cut off"},
	{"magic-unknown", "f a x;at 257 moat", "no kind that is known"},
	{"magic-version", "f a x;at 263 11", "no kind that is known"},
	{"v7-junk", "f a x;at 257 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00;at 400 junk", "no kind that is known"},
	{"pax-rest", "X 9\\x20path=b\\x0axx;f a x", "without a length"},

	/* --- odd, and harmless */
	{"ok-root-alone", "d ./", NULL},
	{"ok-zeros-after", "f a x;z;z;z;z;z", NULL},
	{"ok-dots", "f ..foo x;f foo.. y;f .../z w;d ....", NULL},
	{"ok-dot-slash", "d ./;f ./a x;d ./b/;f ././c y", NULL},
	{"ok-links-out", "l a /usr/bin/python3;l b ../../..;l c c;l d nowhere;h e a", NULL},
	{"ok-case", "f README x;f readme y;f a\\xcc\\x81 x;f \\xc3\\xa1 y", NULL},
	{"ok-control", "f a\\x1b[31m\\x0ab\\x07 x;f \\xff\\xfe y;l \\x01 \\x02", NULL},
	{"ok-255", "x path=%a255;f a x", NULL},
	{"ok-long", "x path=%a255/%b255/%c255/%d255/%e255;f a x", NULL},
	{"ok-gnu-long", "L %a200/%b200;K %c300;l a x", NULL},
	{"ok-directory-twice", "d a;f a/b x;d a;d a/", NULL},
	{"ok-parents-made-up", "f a/b/c/d x;d a/b", NULL},
	{"ok-v7", "f a x;at 257 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00;t \\x00 d/;at 257 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00", NULL},
	{"ok-contiguous", "t 7 a", NULL},
	{"ok-base-256", "f a xyz;at 124 \\x80\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x03;at 108 \\x80\\x00\\x00\\x00\\x00\\x01\\x00\\x00", NULL},
	{"ok-mtime-negative", "f a x;at 136 \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff", NULL},
	{"ok-mtime-fraction", "x mtime=-1.25 atime=1.5 ctime=2;f a x", NULL},
	{"ok-global", "g comment=0123 mtime=17;f a x;g comment=2;f b y", NULL},
	{"ok-vendor", "x SCHILY.dev=1 SCHILY.ino=2 SCHILY.nlink=3 LIBARCHIVE.creationtime=4 uname=u gname=g;f a x", NULL},
	{"ok-blank-owner", "f a x;at 108 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00", NULL},
	{"ok-setuid", "f a x;at 100 0004755;f b y;at 100 0002755;d c;at 100 0001777", NULL},
	{"ok-xattr", "x SCHILY.xattr.user.k=v SCHILY.xattr.security.capability=x SCHILY.xattr.trusted.overlay.opaque=y;f a x", NULL},
	{"ok-git", "f .git/config x;f .gitignore y;f a/.git z;f a/b w;f .moat-txn_0123 v;d .git;f .git y", NULL},
	{"ok-sparse-0.1", "x GNU.sparse.size=9000 GNU.sparse.numblocks=2 GNU.sparse.map=5,4,9000,0 GNU.sparse.name=s;f a wxyz", NULL},
	{"ok-sparse-0.0", "x GNU.sparse.size=9000 GNU.sparse.numblocks=2 GNU.sparse.offset=1 GNU.sparse.numbytes=2 GNU.sparse.offset=7 GNU.sparse.numbytes=2;f a wxyz", NULL},
	{"ok-sparse-old", "t S a;" GNU "at 483 00000000011", NULL},
};
/* clang-format on */
const size_t hostile_count = sizeof hostile_cases / sizeof hostile_cases[0];
