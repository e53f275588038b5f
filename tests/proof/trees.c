/* SPDX-License-Identifier: Apache-2.0 */
#include "trees.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MEBI 1048576u

/* --------------------------------------------------------------------------------------- names */

static const char *const odd_names[] = {"..data",
					"...",
					"-rf",
					" ",
					"*",
					"a\\b",
					"new\nline",
					"\xff\xfe\xfd",
					"\t",
					"\x01\x1b[31m",
					"~",
					"#a#",
					"snapshot.json",
					"manifest",
					"con",
					"'\"$(id)",
					"\xc3\xa4\xcc\x88"};

static void
random_bytes(struct proof *p, char *name, unsigned size)
{
	for (unsigned i = 0; i < size; i++) {
		do {
			name[i] = (char) proof_below(p, 256);
		} while (name[i] == '\0' || name[i] == '/');
	}
	name[size] = '\0';
}

static void
random_name(struct proof *p, char name[NAME_MAX + 1])
{
	static const char letters[] = "abcdefgh";
	unsigned kind = proof_below(p, 20), size;

	if (kind < 11) {
		size = 1 + proof_below(p, 3);
		for (unsigned i = 0; i < size; i++)
			name[i] = letters[proof_below(p, 8)];
		name[size] = '\0';
	} else if (kind < 14) {
		snprintf(name, NAME_MAX + 1, "%s",
			 odd_names[proof_below(p, sizeof odd_names / sizeof *odd_names)]);
	} else {
		random_bytes(p, name, kind < 18 ? 1 + proof_below(p, 40) : NAME_MAX);
	}
	/* No names of the system's, of git's, or of moat's own. */
	if (name[0] == '.' && strcmp(name, "..data") != 0 && strcmp(name, "...") != 0)
		name[0] = '_';
}

/* ---------------------------------------------------------------------------------- attributes */

static void
random_time(struct proof *p, struct timespec *ret)
{
	static const int64_t odd[] = {0, -1, 1, -2147483648, 2147483647, 2147483648, 4294967296};
	unsigned kind = proof_below(p, 10);

	ret->tv_nsec = proof_chance(p, 20) ? (proof_chance(p, 50) ? 0 : 999999999)
					   : (long) proof_below(p, 1000000000);
	if (kind == 0)
		ret->tv_sec = odd[proof_below(p, 7)];
	else if (kind == 1)
		ret->tv_sec = -(int64_t) proof_below(p, 2000000000);
	else if (kind == 2)
		ret->tv_sec = 2147483648 + (int64_t) proof_below(p, 4000000000u);
	else
		ret->tv_sec = proof_below(p, 1800000000);
}

/* A list of access in the kernel's form: version 2, then tag, permissions, id. */
static void
set_acl(struct proof *p, int fd, const char *name)
{
	struct {
		uint32_t version;
		struct {
			uint16_t tag, permissions;
			uint32_t id;
		} entries[6];
	} acl = {.version = 2};
	static const uint16_t tags[] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20};

	for (int i = 0; i < 6; i++) {
		acl.entries[i].tag = tags[i];
		acl.entries[i].permissions = (uint16_t) proof_below(p, 8);
		acl.entries[i].id =
			tags[i] == 0x02 || tags[i] == 0x08 ? 1 + proof_below(p, 70000) : UINT32_MAX;
	}
	if (fsetxattr(fd, name, &acl, sizeof acl, 0) < 0 && errno != EOPNOTSUPP)
		proof_die("fsetxattr of an ACL", __FILE__, __LINE__);
}

static void
set_xattrs(struct trees *t, int fd, bool is_directory)
{
	static char value[3000];
	struct proof *p = t->p;

	for (unsigned n = proof_below(p, 4); n > 0; n--) {
		char name[64];
		size_t size = proof_chance(p, 30) ? 0 : proof_below(p, 60);

		if (proof_chance(p, 5))
			size = sizeof value - proof_below(p, 500);
		random_bytes(p, value, (unsigned) size);
		snprintf(name, sizeof name, "%s.%s%u",
			 t->root && proof_chance(p, 20) ? "trusted" : "user", "moat",
			 proof_below(p, 6));
		/* Some filesystems hold less, and a user needs permission to write; then there is
		 * less to bring back. */
		if (fsetxattr(fd, name, value, size, 0) < 0 && errno != EOPNOTSUPP &&
		    errno != ENOSPC && errno != E2BIG && errno != EACCES)
			proof_die("fsetxattr", __FILE__, __LINE__);
	}
	if (proof_chance(p, 30))
		set_acl(p, fd, "system.posix_acl_access");
	if (is_directory && proof_chance(p, 30))
		set_acl(p, fd, "system.posix_acl_default");
}

static mode_t
random_mode(struct trees *t, bool is_directory, bool may_close)
{
	mode_t mode = is_directory ? 0755 : 0644;

	if (proof_chance(t->p, 40))
		mode = proof_below(t->p, 010000);
	if (!t->root && !(may_close && proof_chance(t->p, 15)))
		mode |= is_directory ? 0500 : 0400;
	return mode;
}

/* In the order in which one does not undo another. */
static void
set_attributes(struct trees *t, int fd, bool is_directory, bool may_close)
{
	struct timespec times[2];

	if (t->root && proof_chance(t->p, 20))
		MUST(fchown(fd, proof_below(t->p, 70000), proof_below(t->p, 70000)));
	if (proof_chance(t->p, 25))
		set_xattrs(t, fd, is_directory);
	MUST(fchmod(fd, random_mode(t, is_directory, may_close)));
	random_time(t->p, &times[0]);
	random_time(t->p, &times[1]);
	MUST(futimens(fd, times));
}

/* ------------------------------------------------------------------------------------- objects */

static uint64_t
random_size(struct proof *p)
{
	static const uint64_t odd[] = {0, 1, 4095, 4096, 4097, 65535, 65536, 65537};

	if (proof_chance(p, 40))
		return odd[proof_below(p, 8)];
	if (proof_chance(p, 3))
		return proof_chance(p, 20) ? 5 * MEBI : MEBI - 1 + proof_below(p, 3);
	return proof_below(p, 300);
}

static void
write_random(struct trees *t, int fd, uint64_t offset, uint64_t size)
{
	static uint64_t block[8192];
	uint64_t state = proof_random(t->p) | 1;
	bool plain = proof_chance(t->p, 50);

	while (size > 0) {
		size_t n = size < sizeof block ? (size_t) size : sizeof block;

		for (size_t i = 0; i < (n + 7) / 8; i++) {
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			block[i] = plain ? state & 0x0303030303030303u : state;
		}
		MUST(pwrite(fd, block, n, (off_t) offset));
		offset += n;
		size -= n;
	}
}

/* Holes at the start, in the middle, at the end, or nothing else. */
static void
make_sparse(struct trees *t, int fd)
{
	unsigned where = proof_below(t->p, 8);

	MUST(ftruncate(fd, 3 * MEBI + proof_below(t->p, 5000)));
	if (where & 1)
		write_random(t, fd, 0, 1 + proof_below(t->p, 9000));
	if (where & 2)
		write_random(t, fd, MEBI + proof_below(t->p, 9000), 1 + proof_below(t->p, 9000));
	if (where & 4)
		write_random(t, fd, 3 * MEBI - 9000, 9000);
}

static void
remember(struct trees *t, int fd)
{
	if (t->linkables < LINKABLE_MAX)
		t->linkable[t->linkables++] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

static void
make_file(struct trees *t, int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	MUST(fd);
	if (proof_chance(t->p, 4))
		make_sparse(t, fd);
	else
		write_random(t, fd, 0, random_size(t->p));
	set_attributes(t, fd, false, true);
	if (proof_chance(t->p, 25))
		remember(t, fd);
	close(fd);
}

static void
make_symlink(struct trees *t, int dirfd, const char *name)
{
	struct timespec times[2];
	char target[PATH_MAX];
	unsigned kind = proof_below(t->p, 6);

	if (kind == 0)
		snprintf(target, sizeof target, "%.250s", name); /* to itself */
	else if (kind == 1)
		snprintf(target, sizeof target, "/etc/passwd");
	else if (kind == 2)
		snprintf(target, sizeof target, "../../../../../../tmp/%u", proof_below(t->p, 9));
	else
		random_bytes(t->p, target, kind == 3 ? PATH_MAX - 1 : 1 + proof_below(t->p, 80));
	if (symlinkat(target, dirfd, name) < 0) {
		target[1000] = '\0'; /* XFS takes 1023 */
		MUST(symlinkat(target, dirfd, name));
	}
	if (t->root && proof_chance(t->p, 20))
		MUST(fchownat(dirfd, name, proof_below(t->p, 70000), proof_below(t->p, 70000),
			      AT_SYMLINK_NOFOLLOW));
	random_time(t->p, &times[0]);
	random_time(t->p, &times[1]);
	MUST(utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW));
	if (proof_chance(t->p, 15) && linkat(dirfd, name, dirfd, "second-name-of-a-link", 0) < 0 &&
	    errno != EEXIST)
		proof_die("linkat", __FILE__, __LINE__);
}

static void
make_special(struct trees *t, int dirfd, const char *name)
{
	unsigned kind = proof_below(t->p, 3);

	/* Where devices are not allowed there is none. */
	if (kind == 2 && t->root)
		(void) mknodat(dirfd, name, S_IFCHR | 0600, makedev(1, 3));
	else
		MUST(mknodat(dirfd, name, (kind == 0 ? S_IFIFO : S_IFSOCK) | 0600, 0));
}

static void
make_link(struct trees *t, int dirfd, const char *name)
{
	char from[64];

	snprintf(from, sizeof from, "/proc/self/fd/%d",
		 t->linkable[proof_below(t->p, (unsigned) t->linkables)]);
	/* A file that has lost all its names meanwhile gets none again. */
	if (linkat(AT_FDCWD, from, dirfd, name, AT_SYMLINK_FOLLOW) < 0 && errno != ENOENT)
		proof_die("linkat", __FILE__, __LINE__);
}

static void fill(struct trees *t, int dirfd, int depth, int entries);

/* Names so long that the path is longer than one system call takes. */
static void
make_deep(struct trees *t, int dirfd)
{
	int fd = fcntl(dirfd, F_DUPFD_CLOEXEC, 0), levels = 1 + (int) proof_below(t->p, 20);

	for (int i = 0; i < levels; i++) {
		char name[NAME_MAX + 1];
		int next;

		memset(name, 'a' + i % 26, NAME_MAX);
		name[NAME_MAX] = '\0';
		if (mkdirat(fd, name, 0755) < 0 && errno != EEXIST)
			proof_die("mkdirat", __FILE__, __LINE__);
		next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		MUST(next);
		close(fd);
		fd = next;
	}
	fill(t, fd, 9, 1 + (int) proof_below(t->p, 4));
	close(fd);
}

static void
make_directory(struct trees *t, int dirfd, const char *name, int depth)
{
	int fd;

	MUST(mkdirat(dirfd, name, 0700));
	MUST(fchmodat(dirfd, name, 0700, 0)); /* a default ACL may have closed it */
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	MUST(fd);
	if (!proof_chance(t->p, 15))
		fill(t, fd, depth + 1, 1 + (int) proof_below(t->p, 8));
	set_attributes(t, fd, true, true);
	close(fd);
}

static void
make_one(struct trees *t, int dirfd, const char *name, int depth)
{
	unsigned kind = proof_below(t->p, 100);

	t->budget--;
	if (kind < 22 && depth < 9)
		make_directory(t, dirfd, name, depth);
	else if (kind < 34)
		make_symlink(t, dirfd, name);
	else if (kind < 37 && t->specials)
		make_special(t, dirfd, name);
	else if (kind < 50 && t->linkables > 0)
		make_link(t, dirfd, name);
	else
		make_file(t, dirfd, name);
}

static void
fill(struct trees *t, int dirfd, int depth, int entries)
{
	struct stat st;

	for (int i = 0; i < entries && t->budget > 0; i++) {
		char name[NAME_MAX + 1];

		random_name(t->p, name);
		if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			make_one(t, dirfd, name, depth);
	}
}

void
trees_fill(struct trees *t, int dirfd, int entries)
{
	t->budget = entries;
	while (t->budget > 0) {
		t->budget--; /* ends though every name is taken */
		fill(t, dirfd, 0, 3);
	}
	if (proof_chance(t->p, 6)) {
		t->budget = 4;
		make_deep(t, dirfd);
	}
	set_attributes(t, dirfd, true, false);
	if (!t->root)
		MUST(fchmod(dirfd, 0700 | proof_below(t->p, 0100)));
}

/* -------------------------------------------------------------------------------------- changes */

/* Special, or closed to the user. */
static bool
is_pinned(const struct trees *t, const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return !t->root && (st->st_mode & 0500) != 0500;
	if (S_ISREG(st->st_mode))
		return !t->root && (st->st_mode & 0400) == 0;
	return !S_ISLNK(st->st_mode);
}

struct names {
	char (*items)[NAME_MAX + 1];
	size_t count;
};

static struct names
read_names(int dirfd)
{
	DIR *stream = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	struct names names = {0};
	const struct dirent *entry;

	if (stream == NULL)
		proof_die("fdopendir", __FILE__, __LINE__);
	while ((entry = readdir(stream)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		names.items = reallocarray(names.items, names.count + 1, sizeof *names.items);
		if (names.items == NULL)
			proof_die("reallocarray", __FILE__, __LINE__);
		snprintf(names.items[names.count++], NAME_MAX + 1, "%s", entry->d_name);
	}
	closedir(stream);
	if (names.count > 1)
		qsort(names.items, names.count, sizeof *names.items,
		      (int (*)(const void *, const void *)) strcmp);
	return names;
}

/* Whether something that is pinned stands there or below. */
static bool
holds_pinned(const struct trees *t, int dirfd, const char *name)
{
	struct stat st;
	struct names names;
	bool found;
	int fd;

	MUST(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW));
	if (is_pinned(t, &st))
		return true;
	if (!S_ISDIR(st.st_mode))
		return false;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	MUST(fd);
	names = read_names(fd);
	found = false;
	for (size_t i = 0; i < names.count && !found; i++)
		found = holds_pinned(t, fd, names.items[i]);
	free(names.items);
	close(fd);
	return found;
}

static void
edit_file(struct trees *t, int dirfd, const char *name, const struct stat *st)
{
	int fd;

	if ((st->st_mode & 0200) == 0)
		MUST(fchmodat(dirfd, name, (st->st_mode & 07777) | 0200, 0));
	fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	MUST(fd);
	switch (proof_below(t->p, 4)) {
	case 0: /* the same size */
		if (st->st_size > 0)
			write_random(t, fd, proof_random(t->p) % (uint64_t) st->st_size, 1);
		break;
	case 1:
		MUST(ftruncate(fd, (off_t) random_size(t->p)));
		break;
	case 2:
		write_random(t, fd, (uint64_t) st->st_size, 1 + proof_below(t->p, 5000));
		break;
	default: /* only what is said of it */
		set_attributes(t, fd, false, t->close);
	}
	close(fd);
}

static void change_directory(struct trees *t, int dirfd);

static void
change_attributes(struct trees *t, int dirfd, const char *name, const struct stat *st)
{
	int fd;

	if (S_ISLNK(st->st_mode)) {
		MUST(unlinkat(dirfd, name, 0));
		make_symlink(t, dirfd, name);
		return;
	}
	if (S_ISREG(st->st_mode)) {
		edit_file(t, dirfd, name, st);
		return;
	}
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	MUST(fd);
	/* Those of a directory that holds what is pinned must stay open. */
	set_attributes(t, fd, true, t->close && !holds_pinned(t, dirfd, name));
	close(fd);
}

/* Two of them change their names. */
static void
swap(struct trees *t, int dirfd, const char *a, const char *b)
{
	if (holds_pinned(t, dirfd, a) || holds_pinned(t, dirfd, b))
		return;
	MUST(renameat(dirfd, a, dirfd, "under-way"));
	MUST(renameat(dirfd, b, dirfd, a));
	MUST(renameat(dirfd, "under-way", dirfd, b));
}

static void
change_one(struct trees *t, int dirfd, const char *name)
{
	unsigned kind = proof_below(t->p, 100);
	struct stat st;

	MUST(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW));
	if (is_pinned(t, &st))
		return;
	if (S_ISDIR(st.st_mode) && kind < 60) {
		int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		MUST(fd);
		change_directory(t, fd);
		close(fd);
	}
	if (kind >= 50 && kind < 70 && !holds_pinned(t, dirfd, name)) {
		proof_remove(dirfd, name);
		t->budget = 3;
		if (kind < 62)
			make_one(t, dirfd, name, 3);
	} else if (kind >= 70 && kind < 90) {
		change_attributes(t, dirfd, name, &st);
	}
}

/* The directory is readable. */
static void
change_directory(struct trees *t, int dirfd)
{
	struct names names = read_names(dirfd);
	struct stat st;

	MUST(fstat(dirfd, &st));
	if ((st.st_mode & 0700) != 0700)
		MUST(fchmod(dirfd, (st.st_mode & 07777) | 0700));
	for (size_t i = 0; i < names.count; i++)
		change_one(t, dirfd, names.items[i]);
	free(names.items);
	names = read_names(dirfd);
	if (names.count > 1 && proof_chance(t->p, 20))
		swap(t, dirfd, names.items[0], names.items[names.count - 1]);
	free(names.items);
	t->budget = (int) proof_below(t->p, 4);
	if (proof_chance(t->p, 50))
		fill(t, dirfd, 5, t->budget);
	if (proof_chance(t->p, 50)) {
		MUST(fstat(dirfd, &st));
		MUST(fchmod(dirfd, (st.st_mode & 07777) | (t->root ? 0 : 0500)));
	}
}

void
trees_change(struct trees *t, int dirfd)
{
	t->specials = false;
	change_directory(t, dirfd);
	if (!t->root)
		MUST(fchmod(dirfd, 0700));
}

void
trees_wipe(int dirfd)
{
	struct names names = read_names(dirfd);

	MUST(fchmod(dirfd, 0700));
	for (size_t i = 0; i < names.count; i++)
		proof_remove(dirfd, names.items[i]);
	free(names.items);
}

void
trees_end(struct trees *t)
{
	while (t->linkables > 0)
		close(t->linkable[--t->linkables]);
}
