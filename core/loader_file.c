/* SPDX-License-Identifier: Apache-2.0 */
/* Which files and directories are safe to load code from. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __ELF__
#include <link.h>
#endif

#include "common/cleanup.h"
#include "core/loader_checks.h"

static int
check_access(const char *path, const struct stat *st, struct moat_error *err)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return moat_fail(err, MOAT_PERMISSION,
				 "`%s' belongs to user %lu, who is neither root nor you: chown it, "
				 "or copy the plugin to a directory of your own",
				 path, (unsigned long) st->st_uid);
	if ((st->st_mode & S_IWOTH) != 0)
		return moat_fail(err, MOAT_PERMISSION,
				 "`%s' can be written by others: chmod go-w `%s'", path, path);
	if ((st->st_mode & S_IWGRP) != 0 && st->st_gid != getegid())
		return moat_fail(err, MOAT_PERMISSION,
				 "`%s' can be written by group %lu: chmod go-w `%s'", path,
				 (unsigned long) st->st_gid, path);
	return 0;
}

int
loader_check_directory(const char *path, struct moat_error *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return moat_fail_errno(err, "look at `%s'", path);
	if (!S_ISDIR(st.st_mode))
		return moat_fail(err, MOAT_FAILED, "`%s' is not a directory", path);
	return check_access(path, &st, err);
}

/* The dynamic linker maps what the program headers say without looking at the size of the file, and
 * dies of SIGBUS when a page is past its end: so a file that was cut short is found here.  All else
 * that is wrong with a file, dlopen(3) reports itself. */
#ifdef __ELF__
static int
check_whole(int fd, const struct stat *st, struct moat_error *err)
{
	static const unsigned char magic[SELFMAG] = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3};
	const unsigned char native = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
	uint64_t size = (uint64_t) st->st_size;
	ElfW(Ehdr) header;

	if (pread(fd, &header, sizeof header, 0) != (ssize_t) sizeof header ||
	    memcmp(header.e_ident, magic, SELFMAG) != 0 || header.e_ident[EI_CLASS] != native ||
	    header.e_phentsize != sizeof(ElfW(Phdr)))
		return 0;
	for (unsigned i = 0; i < header.e_phnum; i++) {
		uint64_t at = (uint64_t) header.e_phoff + (uint64_t) i * sizeof(ElfW(Phdr));
		ElfW(Phdr) segment;

		if (at > size || size - at < sizeof segment)
			return moat_fail(err, MOAT_CORRUPT,
					 "the file is truncated within its program headers: "
					 "install the plugin again");
		if (pread(fd, &segment, sizeof segment, (off_t) at) != (ssize_t) sizeof segment)
			return moat_fail_errno(err, "read its program headers");
		if (segment.p_type != PT_LOAD)
			continue;
		if (segment.p_offset > size || size - segment.p_offset < segment.p_filesz)
			return moat_fail(
				err, MOAT_CORRUPT,
				"the file is truncated (%llu bytes are there, its segments "
				"need %llu): install the plugin again",
				(unsigned long long) size,
				(unsigned long long) segment.p_offset +
					(unsigned long long) segment.p_filesz);
	}
	return 0;
}
#else
static int
check_whole(int fd, const struct stat *st, struct moat_error *err)
{
	return 0;
}
#endif

/* The directory that the file really is in: who can write there can replace the file. */
static int
check_parent(const char *resolved, struct moat_error *err)
{
	AUTO_FREE char *directory = strdup(resolved);
	char *slash;

	if (directory == NULL)
		return moat_fail_memory(err);
	slash = strrchr(directory, '/');
	if (slash == NULL)
		return moat_fail(err, MOAT_FAILED, "`%s' is not an absolute path", resolved);
	slash[slash == directory ? 1 : 0] = '\0';
	return loader_check_directory(directory, err);
}

int
loader_check_file(const char *path, char **ret_resolved, struct moat_error *err)
{
	AUTO_FREE char *resolved = realpath(path, NULL);
	AUTO_CLOSE int fd = -1;
	struct stat st;
	size_t length;

	if (resolved == NULL)
		return moat_fail_errno(err, "resolve `%s'", path);
	/* libltdl takes a .la for a description of where the real file is. */
	length = strlen(resolved);
	if (length > 3 && strcmp(resolved + length - 3, ".la") == 0)
		return moat_fail(err, MOAT_FAILED,
				 "`%s' is a libtool archive: link to the .so itself", resolved);
	if (stat(resolved, &st) < 0)
		return moat_fail_errno(err, "look at `%s'", resolved);
	if (!S_ISREG(st.st_mode))
		return moat_fail(err, MOAT_FAILED, "`%s' is not a regular file", resolved);
	fd = open(resolved, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return moat_fail_errno(err, "open `%s'", resolved);
	if (check_access(resolved, &st, err) < 0 || check_parent(resolved, err) < 0 ||
	    check_whole(fd, &st, err) < 0)
		return -1;
	*ret_resolved = STEAL(resolved);
	return 0;
}
