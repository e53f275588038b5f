/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of sets: names, opening, looking through. */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"

#define ID_DIGITS 12
#define ID_LENGTH (sizeof "snap_" - 1 + ID_DIGITS)

static const struct {
	const char *before, *after;
} forms[] = {
	[SET_LIVE] = {"", ""},
	[SET_ORPHAN] = {"", ".orphan"},
	[SET_TEMPORARY] = {".", ".tmp"},
};

const char *
set_name(char *out, uint64_t number, enum set_kind kind)
{
	(void) snprintf(out, SET_NAME_MAX, "%ssnap_%0*llx%s", forms[kind].before, ID_DIGITS,
			(unsigned long long) number, forms[kind].after);
	return out;
}

/* Lower-case hexadecimal digits, at most `length` of them; how many there were. */
static size_t
parse_hex(const char *text, size_t length, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i;

	for (i = 0; i < length && text[i] != '\0'; i++) {
		if (memchr("0123456789abcdef", text[i], 16) == NULL)
			break;
		value = value * 16 +
			(uint64_t) (text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
	}
	*ret = value;
	return i;
}

static int
parse_id(const char *text, uint64_t *ret)
{
	return strncmp(text, "snap_", 5) == 0 && parse_hex(text + 5, ID_DIGITS, ret) == ID_DIGITS
		       ? 0
		       : -1;
}

int
set_number(const char *id, uint64_t *ret)
{
	return parse_id(id, ret) == 0 && id[ID_LENGTH] == '\0' ? 0 : -1;
}

static bool
name_is_set(const char *name, enum set_kind kind, uint64_t *ret)
{
	size_t skip = strlen(forms[kind].before);

	return strncmp(name, forms[kind].before, skip) == 0 && parse_id(name + skip, ret) == 0 &&
	       strcmp(name + skip + ID_LENGTH, forms[kind].after) == 0;
}

const char *
set_file_name(char *out, uint64_t file)
{
	(void) snprintf(out, FILE_NAME_MAX, "%llx/%llx",
			(unsigned long long) (file / SET_DIRECTORY), (unsigned long long) file);
	return out;
}

const char *
set_directory_name(char *out, uint64_t file)
{
	(void) snprintf(out, FILE_NAME_MAX, "%llx", (unsigned long long) (file / SET_DIRECTORY));
	return out;
}

static bool
exists(const struct reflink *reflink, uint64_t number, enum set_kind kind)
{
	char name[SET_NAME_MAX];

	return faccessat(reflink->dirfd, set_name(name, number, kind), F_OK, AT_SYMLINK_NOFOLLOW) ==
	       0;
}

bool
store_has_set(const struct reflink *reflink, uint64_t number)
{
	return exists(reflink, number, SET_LIVE) || exists(reflink, number, SET_ORPHAN);
}

/* Not there, or replaced by something that is no part of a store: it is lost. */
static bool
is_lost(int sys_errno)
{
	return sys_errno == ENOENT || sys_errno == ENOTDIR || sys_errno == ELOOP ||
	       sys_errno == EXDEV || sys_errno == ENXIO;
}

/* The third look is for a set that was renamed between the first two. */
static const enum set_kind looks[] = {SET_LIVE, SET_ORPHAN, SET_LIVE};
#define LOOKS (sizeof looks / sizeof *looks)

int
store_open_set(const struct reflink *reflink, uint64_t number, enum set_kind *ret_kind,
	       struct moat_error *err)
{
	char name[SET_NAME_MAX];

	for (size_t i = 0; i < LOOKS; i++) {
		int fd = openat(reflink->dirfd, set_name(name, number, looks[i]),
				O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		if (fd >= 0 && ret_kind != NULL)
			*ret_kind = looks[i];
		if (fd >= 0)
			return fd;
		if (!is_lost(errno))
			return moat_fail_errno(err, "open `%s/%s'", reflink->path, name);
	}
	return moat_fail(err, MOAT_CORRUPT,
			 "`%s/%s' is missing, and with it content that is needed", reflink->path,
			 set_name(name, number, SET_LIVE));
}

static int
check_regular(const struct reflink *reflink, int fd, const char *path, struct moat_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "stat `%s/%s'", reflink->path, path);
	if (S_ISREG(st.st_mode))
		return 0;
	return moat_fail(err, MOAT_CORRUPT, "`%s/%s' is not a regular file", reflink->path, path);
}

int
store_open_file(const struct reflink *reflink, uint64_t number, uint64_t file,
		struct moat_error *err)
{
	char set[SET_NAME_MAX], name[FILE_NAME_MAX], path[SET_NAME_MAX + FILE_NAME_MAX + 1];

	for (size_t i = 0; i < LOOKS; i++) {
		struct moat_error why = MOAT_ERROR_INIT;
		AUTO_CLOSE int fd = -1;

		(void) snprintf(path, sizeof path, "%s/%s", set_name(set, number, looks[i]),
				set_file_name(name, file));
		fd = fs_open_beneath(reflink->dirfd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0,
				     &why);
		if (fd >= 0)
			return check_regular(reflink, fd, path, err) < 0 ? -1 : steal_fd(&fd);
		if (!is_lost(why.sys_errno))
			return moat_error_set(err, why.code, why.sys_errno, "`%s': %s",
					      reflink->path, why.message);
	}
	return moat_fail(err, MOAT_CORRUPT,
			 "`%s/%s/%s' is missing, and with it content that is needed", reflink->path,
			 set_name(set, number, SET_LIVE), set_file_name(name, file));
}

int
store_each(const struct reflink *reflink, enum set_kind kind,
	   int (*visit)(void *context, uint64_t number, struct moat_error *err), void *context,
	   struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *dir = fs_open_stream(reflink->dirfd, "", err);
	struct dirent *item;
	uint64_t number;

	if (dir == NULL)
		return moat_wrap(err, "`%s'", reflink->path);
	while (errno = 0, (item = readdir(dir)) != NULL) {
		if (name_is_set(item->d_name, kind, &number) && visit(context, number, err) < 0)
			return -1;
	}
	return errno == 0 ? 0 : moat_fail_errno(err, "read `%s'", reflink->path);
}

/* "3ff", as set_file_name() and set_directory_name() write it. */
static bool
name_is_number(const char *name, uint64_t *ret)
{
	size_t digits = parse_hex(name, 8, ret);

	return digits > 0 && name[digits] == '\0' && (name[0] != '0' || digits == 1) &&
	       *ret < SET_FILES_MAX;
}

static int
each_in_directory(int set_fd, uint64_t directory, const char *name,
		  int (*visit)(void *context, uint64_t file, struct moat_error *err), void *context,
		  struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *dir = fs_open_stream(set_fd, name, err);
	struct dirent *item;
	uint64_t file;

	if (dir == NULL)
		return -1;
	while (errno = 0, (item = readdir(dir)) != NULL) {
		if (name_is_number(item->d_name, &file) && file / SET_DIRECTORY == directory &&
		    visit(context, file, err) < 0)
			return -1;
	}
	return errno == 0 ? 0 : moat_fail_errno(err, "read `%s'", name);
}

int
set_each(int set_fd, int (*visit)(void *context, uint64_t file, struct moat_error *err),
	 void *context, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *dir = fs_open_stream(set_fd, "", err);
	struct dirent *item;
	uint64_t directory;

	if (dir == NULL)
		return -1;
	while (errno = 0, (item = readdir(dir)) != NULL) {
		struct stat st;

		if (!name_is_number(item->d_name, &directory) ||
		    fstatat(set_fd, item->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISDIR(st.st_mode))
			continue;
		if (each_in_directory(set_fd, directory, item->d_name, visit, context, err) < 0)
			return -1;
	}
	return errno == 0 ? 0 : moat_fail_errno(err, "read the set");
}

int
store_remove_set(const struct reflink *reflink, uint64_t number, enum set_kind kind,
		 struct moat_error *err)
{
	char name[SET_NAME_MAX];

	if (fs_remove_tree(reflink->dirfd, set_name(name, number, kind), err) == 0)
		return 0;
	return moat_wrap(err, "remove `%s/%s'", reflink->path, name);
}

static int
remove_temporary(void *context, uint64_t number, struct moat_error *err)
{
	return store_remove_set(context, number, SET_TEMPORARY, err);
}

int
store_sweep(const struct reflink *reflink, struct moat_error *err)
{
	return store_each(reflink, SET_TEMPORARY, remove_temporary, (void *) reflink, err);
}

void
bits_free(struct bits *bits)
{
	free(bits->words);
	*bits = (struct bits){0};
}

int
bits_add(struct bits *bits, uint64_t number, struct moat_error *err)
{
	size_t word = (size_t) (number / 64);

	if (number >= SET_FILES_MAX)
		return 0;
	if (word >= bits->count) {
		size_t count = 2 * word + 64;
		uint64_t *words = realloc(bits->words, count * sizeof *words);

		if (words == NULL)
			return moat_fail_memory(err);
		memset(words + bits->count, 0, (count - bits->count) * sizeof *words);
		bits->words = words;
		bits->count = count;
	}
	bits->words[word] |= UINT64_C(1) << number % 64;
	return 0;
}

bool
bits_has(const struct bits *bits, uint64_t number)
{
	return number / 64 < bits->count && (bits->words[number / 64] >> number % 64 & 1) != 0;
}
