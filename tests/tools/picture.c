/* SPDX-License-Identifier: Apache-2.0 */
/* The walker.  Every object is reached from its directory's descriptor and no link is followed. */
#include "picture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define READ_SIZE ((size_t) 256 << 10)

struct text {
	char *bytes;
	size_t length, size;
	bool failed; /* out of memory, or a mode did not go back: seen once, at the end */
};

/* The first name of an inode that has several; a hash table with open addressing. */
struct inode {
	dev_t dev;
	ino_t ino;
	char *name;
};

struct walk {
	const struct picture_options *options;
	struct text out, path;
	struct inode *inodes;
	size_t inode_count, inode_size;
	char *buffer; /* of READ_SIZE */
};

static bool
text_reserve(struct text *text, size_t more)
{
	size_t size = text->size;
	char *bytes;

	if (text->length + more < size)
		return true;
	while (size <= text->length + more)
		size = size ? size * 2 : 4096;
	bytes = realloc(text->bytes, size);
	if (!bytes) {
		text->failed = true;
		return false;
	}
	text->bytes = bytes;
	text->size = size;
	return true;
}

static void
text_add(struct text *text, const char *bytes, size_t length)
{
	if (!text_reserve(text, length))
		return;
	memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
	text->bytes[text->length] = '\0';
}

static void __attribute__((format(printf, 2, 3)))
text_print(struct text *text, const char *format, ...)
{
	va_list arguments;
	char line[512];
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	text_add(text, line, (size_t) length < sizeof(line) ? (size_t) length : sizeof(line) - 1);
}

static void
text_escape(struct text *text, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char) bytes[i];

		if (c > ' ' && c < 0x7f && c != '\\')
			text_add(text, bytes + i, 1);
		else
			text_print(text, "\\%03o", c);
	}
}

static void
text_hex(struct text *text, const void *bytes, size_t length)
{
	static const char digits[] = "0123456789abcdef";

	if (!text_reserve(text, length * 2))
		return;
	for (size_t i = 0; i < length; i++) {
		unsigned char c = ((const unsigned char *) bytes)[i];

		text->bytes[text->length++] = digits[c >> 4];
		text->bytes[text->length++] = digits[c & 15];
	}
	text->bytes[text->length] = '\0';
}

/* ------------------------------------------------------------------ names that share an inode */

static struct inode *
inode_slot(struct inode *inodes, size_t size, dev_t dev, ino_t ino)
{
	size_t i = (size_t) ((ino * 0x9e3779b97f4a7c15ULL) ^ dev) & (size - 1);

	while (inodes[i].name && (inodes[i].dev != dev || inodes[i].ino != ino))
		i = (i + 1) & (size - 1);
	return &inodes[i];
}

static bool
inodes_grow(struct walk *walk)
{
	size_t size = walk->inode_size ? walk->inode_size * 2 : 64;
	struct inode *inodes = calloc(size, sizeof(*inodes));

	if (!inodes)
		return false;
	for (size_t i = 0; i < walk->inode_size; i++) {
		struct inode *from = &walk->inodes[i];

		if (from->name)
			*inode_slot(inodes, size, from->dev, from->ino) = *from;
	}
	free(walk->inodes);
	walk->inodes = inodes;
	walk->inode_size = size;
	return true;
}

/* The first name of that inode: the walk's own path when it is new. */
static const char *
first_name(struct walk *walk, const struct stat *st)
{
	struct inode *inode;

	if (walk->inode_count * 2 >= walk->inode_size && !inodes_grow(walk))
		return NULL;
	inode = inode_slot(walk->inodes, walk->inode_size, st->st_dev, st->st_ino);
	if (!inode->name) {
		inode->dev = st->st_dev;
		inode->ino = st->st_ino;
		inode->name = strdup(walk->path.bytes);
		walk->inode_count++;
	}
	return inode->name;
}

/* ------------------------------------------------------------------------------ parts of a line */

static void
print_errno(struct walk *walk)
{
	text_print(&walk->out, "!%d", errno);
}

static void
print_content(struct walk *walk, int fd)
{
	struct sha256_ctx hash;
	uint8_t digest[SHA256_DIGEST_SIZE];
	ssize_t n;

	sha256_init(&hash);
	while ((n = read(fd, walk->buffer, READ_SIZE)) > 0)
		sha256_update(&hash, (size_t) n, (const uint8_t *) walk->buffer);
	if (n < 0) {
		print_errno(walk);
		return;
	}
	sha256_digest(&hash, sizeof(digest), digest);
	text_hex(&walk->out, digest, sizeof(digest));
}

static void
print_data(struct walk *walk, int fd)
{
	off_t from = 0, to;
	const char *comma = "";

	text_add(&walk->out, " data=", 6);
	while ((from = lseek(fd, from, SEEK_DATA)) >= 0 && (to = lseek(fd, from, SEEK_HOLE)) >= 0) {
		text_print(&walk->out, "%s%jd+%jd", comma, (intmax_t) from, (intmax_t) (to - from));
		comma = ",";
		from = to;
	}
}

static void
print_link(struct walk *walk, int dir, const char *name)
{
	ssize_t length = readlinkat(dir, name, walk->buffer, READ_SIZE);

	if (length < 0)
		print_errno(walk);
	else
		text_escape(&walk->out, walk->buffer, (size_t) length);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Splits NUL-terminated names that follow each other; the caller frees the array. */
static char **
sorted_names(char *names, size_t length, size_t *ret_count)
{
	size_t count = 0;
	char **list;

	for (size_t i = 0; i < length; i += strlen(names + i) + 1)
		count++;
	list = calloc(count + 1, sizeof(*list));
	*ret_count = 0;
	if (!list)
		return NULL;
	count = 0;
	for (size_t i = 0; i < length; i += strlen(names + i) + 1)
		list[count++] = names + i;
	if (count)
		qsort(list, count, sizeof(*list), compare_names);
	*ret_count = count;
	return list;
}

/* `fd` is the object opened in whatever way, O_PATH too, which is why it goes through /proc. */
static void
print_xattrs(struct walk *walk, int fd)
{
	char object[64], *names = walk->buffer, *value = walk->buffer + READ_SIZE / 2, **list;
	size_t count;
	ssize_t length;

	(void) snprintf(object, sizeof(object), "/proc/self/fd/%d", fd);
	length = listxattr(object, names, READ_SIZE / 2);
	if (length < 0 && errno != ENOTSUP) {
		text_add(&walk->out, " ", 1);
		print_errno(walk);
	}
	if (length <= 0)
		return;
	list = sorted_names(names, (size_t) length, &count);
	walk->out.failed |= !list;
	for (size_t i = 0; i < count; i++) {
		text_add(&walk->out, " ", 1);
		text_escape(&walk->out, list[i], strlen(list[i]));
		text_add(&walk->out, "=", 1);
		length = getxattr(object, list[i], value, READ_SIZE / 2);
		if (length < 0)
			print_errno(walk);
		else
			text_hex(&walk->out, value, (size_t) length);
	}
	free(list);
}

static char
type_letter(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 'f';
	case S_IFDIR:
		return 'd';
	case S_IFLNK:
		return 'l';
	case S_IFIFO:
		return 'p';
	case S_IFSOCK:
		return 's';
	case S_IFCHR:
		return 'c';
	case S_IFBLK:
		return 'b';
	default:
		return '?';
	}
}

static void
print_stat(struct walk *walk, const struct stat *st)
{
	const char *first = NULL;

	text_print(&walk->out, " %c %04o %ju:%ju ", type_letter(st->st_mode),
		   (unsigned) st->st_mode & 07777, (uintmax_t) st->st_uid, (uintmax_t) st->st_gid);
	if (S_ISDIR(st->st_mode)) {
		text_add(&walk->out, "- -", 3);
	} else {
		text_print(&walk->out, "%ju", (uintmax_t) st->st_nlink);
		if (st->st_nlink > 1) {
			first = first_name(walk, st);
			walk->out.failed |= !first;
			text_add(&walk->out, ":", 1);
			if (first)
				text_escape(&walk->out, first, strlen(first));
		}
		text_print(&walk->out, " %jd", (intmax_t) st->st_size);
	}
	text_print(&walk->out, " %jd.%09ld ", (intmax_t) st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

/* ------------------------------------------------------------------------------------ the walk */

static void print_object(struct walk *walk, int dir, const char *name);

static bool
left_out(const struct walk *walk, const char *name)
{
	const char *const *pattern = walk->options->without;

	for (; pattern && *pattern; pattern++)
		if (fnmatch(*pattern, name, 0) == 0)
			return true;
	return false;
}

/* The names in a directory, NUL-terminated, one after the other. */
static int
read_names(struct walk *walk, int fd, struct text *names)
{
	ssize_t n;

	while ((n = getdents64(fd, walk->buffer, READ_SIZE)) > 0) {
		for (ssize_t at = 0; at < n;) {
			struct dirent64 *entry = (struct dirent64 *) (void *) (walk->buffer + at);

			at += entry->d_reclen;
			if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
			    !left_out(walk, entry->d_name))
				text_add(names, entry->d_name, strlen(entry->d_name) + 1);
		}
	}
	return n < 0 ? -1 : 0;
}

static void
walk_directory(struct walk *walk, int fd)
{
	struct text names = {0};
	size_t length = walk->path.length, count = 0;
	char **list = NULL;

	if (read_names(walk, fd, &names) < 0) {
		text_escape(&walk->out, walk->path.bytes, length);
		text_print(&walk->out, "/ !%d\n", errno);
	}
	walk->out.failed |= names.failed;
	if (names.length)
		list = sorted_names(names.bytes, names.length, &count);
	walk->out.failed |= names.length && !list;
	for (size_t i = 0; i < count; i++) {
		text_add(&walk->path, "/", 1);
		text_add(&walk->path, list[i], strlen(list[i]));
		print_object(walk, fd, list[i]);
		walk->path.length = length;
		walk->path.bytes[length] = '\0';
	}
	free(list);
	free(names.bytes);
}

/* Opens for reading what has a content; for the rest a descriptor that only names it.  *ret_opened
 * is set when the mode was widened for that. */
static int
open_object(struct walk *walk, int dir, const char *name, const struct stat *st, bool *ret_opened)
{
	int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, fd;
	mode_t wanted = S_ISDIR(st->st_mode) ? 0500 : 0400;
	bool openable = walk->options->open && (st->st_mode & wanted) != wanted &&
			(st->st_uid == geteuid());

	*ret_opened = false;
	if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
		return openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (openable && geteuid() != 0 &&
	    fchmodat(dir, name, (st->st_mode & 07777) | wanted, 0) == 0)
		*ret_opened = true;
	fd = openat(dir, name, flags);
	if (fd < 0 && *ret_opened) {
		int error = errno;

		if (fchmodat(dir, name, st->st_mode & 07777, 0) < 0)
			walk->out.failed = true;
		*ret_opened = false;
		errno = error;
	}
	return fd;
}

static void
print_object_content(struct walk *walk, int dir, const char *name, const struct stat *st, int fd,
		     int error)
{
	if (S_ISLNK(st->st_mode))
		print_link(walk, dir, name);
	else if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		text_print(&walk->out, "%u:%u", major(st->st_rdev), minor(st->st_rdev));
	else if (fd < 0)
		text_print(&walk->out, "!%d", error);
	else if (S_ISREG(st->st_mode))
		print_content(walk, fd);
	else
		text_add(&walk->out, "-", 1);
	if (S_ISREG(st->st_mode) && fd >= 0 && walk->options->sparse)
		print_data(walk, fd);
}

static void
print_object(struct walk *walk, int dir, const char *name)
{
	struct stat st;
	bool opened, readable;
	int fd;

	text_escape(&walk->out, walk->path.bytes, walk->path.length);
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		text_print(&walk->out, " !%d\n", errno);
		return;
	}
	print_stat(walk, &st);
	fd = open_object(walk, dir, name, &st, &opened);
	readable = fd >= 0;
	print_object_content(walk, dir, name, &st, fd, errno);
	if (!readable)
		fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd >= 0)
		print_xattrs(walk, fd);
	text_add(&walk->out, "\n", 1);
	if (S_ISDIR(st.st_mode) && readable)
		walk_directory(walk, fd);
	if (opened && fchmod(fd, st.st_mode & 07777) < 0)
		walk->out.failed = true;
	if (fd >= 0)
		(void) close(fd);
}

int
picture_take(const char *path, const struct picture_options *options, struct picture *ret)
{
	struct walk walk = {.options = options, .buffer = malloc(READ_SIZE)};
	bool failed;

	text_add(&walk.path, ".", 1);
	text_reserve(&walk.out, 1);
	if (walk.buffer && !walk.path.failed)
		print_object(&walk, AT_FDCWD, path);
	failed = !walk.buffer || walk.path.failed || walk.out.failed;
	for (size_t i = 0; i < walk.inode_size; i++)
		free(walk.inodes[i].name);
	free(walk.inodes);
	free(walk.path.bytes);
	free(walk.buffer);
	*ret = (struct picture){.text = walk.out.bytes, .length = walk.out.length};
	if (!failed)
		return 0;
	picture_free(ret);
	errno = ENOMEM;
	return -1;
}

void
picture_free(struct picture *picture)
{
	free(picture->text);
	*picture = (struct picture){0};
}

void
picture_digest(const struct picture *picture, char ret[65])
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	struct sha256_ctx hash;

	sha256_init(&hash);
	sha256_update(&hash, picture->length, (const uint8_t *) picture->text);
	sha256_digest(&hash, sizeof(digest), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		(void) snprintf(ret + i * 2, 3, "%02x", digest[i]);
}
