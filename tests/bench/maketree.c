/* SPDX-License-Identifier: Apache-2.0 */
/* maketree DIRECTORY ENTRIES BYTES: a tree that looks like sources: that many entries, directories
 * of some 50 files, files of BYTES on average, of text that compresses about as sources do.  The
 * same arguments give the same tree. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_PER_DIRECTORY 50
#define DIRECTORIES_PER_LEVEL 40

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t
next(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1du;
}

static void
fail(const char *what)
{
	perror(what);
	exit(1);
}

/* Words from a small vocabulary, and some numbers that occur nowhere else. */
static size_t
fill(char *text, size_t size)
{
	static const char *const words[] = {"static", "int",  "return", "struct", "if",   "(",
					    ")",      "{\n",  "}\n",    ";\n",    "\t",   "const",
					    "char",   "void", "->",     "NULL",   "else", "for"};
	size_t at = 0;

	while (at + 32 < size) {
		uint64_t n = next();
		const char *word = words[n % (sizeof words / sizeof words[0])];

		if (n >> 60 == 0)
			at += (size_t) snprintf(text + at, 32, "x%llx ",
						(unsigned long long) (n >> 20 & 0xffffffff));
		else
			at += (size_t) snprintf(text + at, 32, "%s ", word);
	}
	return at;
}

static void
make_file(int dirfd, const char *name, size_t average)
{
	static char text[1 << 20];
	size_t wanted = (size_t) (next() % (2 * average + 1));
	size_t size = fill(text, wanted < sizeof text ? wanted : sizeof text);
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL, 0644);

	if (fd < 0 || write(fd, text, size) != (ssize_t) size || close(fd) < 0)
		fail(name);
}

/* A directory below one of the first level; returns it open. */
static int
make_directory(int rootfd, unsigned long number, unsigned long *entries)
{
	char name[64];
	int fd;

	(void) snprintf(name, sizeof name, "part%lu", number / DIRECTORIES_PER_LEVEL);
	if (mkdirat(rootfd, name, 0755) == 0)
		(*entries)++;
	else if (errno != EEXIST)
		fail(name);
	(void) snprintf(name, sizeof name, "part%lu/dir%lu", number / DIRECTORIES_PER_LEVEL,
			number);
	if (mkdirat(rootfd, name, 0755) < 0)
		fail(name);
	(*entries)++;
	fd = openat(rootfd, name, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		fail(name);
	return fd;
}

int
main(int argc, char **argv)
{
	unsigned long wanted, entries = 0;
	size_t average;
	int rootfd;

	if (argc != 4) {
		fprintf(stderr, "Usage: maketree DIRECTORY ENTRIES BYTES\n");
		return 2;
	}
	wanted = strtoul(argv[2], NULL, 10);
	average = strtoul(argv[3], NULL, 10);
	if (mkdir(argv[1], 0755) < 0 && errno != EEXIST)
		fail(argv[1]);
	rootfd = open(argv[1], O_RDONLY | O_DIRECTORY);
	if (rootfd < 0)
		fail(argv[1]);
	for (unsigned long directory = 0; entries < wanted; directory++) {
		int fd = make_directory(rootfd, directory, &entries);

		for (int i = 0; i < FILES_PER_DIRECTORY && entries < wanted; i++, entries++) {
			char name[32];

			(void) snprintf(name, sizeof name, "file%d.c", i);
			make_file(fd, name, average);
		}
		close(fd);
	}
	return 0;
}
