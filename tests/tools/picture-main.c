/* SPDX-License-Identifier: Apache-2.0 */
/* picture [--without=GLOB]... [--open] [--sparse] [--digest] DIR...: what tests compare trees by.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "picture.h"

#define PATTERNS 32

static const char usage[] =
	"Usage: picture [--without=GLOB]... [--open] [--sparse] [--digest] DIR...\n"
	"\n"
	"Prints a line for each object below each DIR: path, type, mode, owner, links, size, "
	"time,\n"
	"content, extended attributes.\n"
	"\n"
	"  --without=GLOB  leave out what has such a name, and all below it\n"
	"  --open          open what the caller owns and may not read, and close it again\n"
	"  --sparse        show where files have data\n"
	"  --digest        print only a digest of all that\n";

static int
show(const char *path, const struct picture_options *options, bool digest)
{
	struct picture picture;
	char hex[65];

	if (picture_take(path, options, &picture) < 0) {
		perror(path);
		return -1;
	}
	if (digest) {
		picture_digest(&picture, hex);
		puts(hex);
	} else {
		(void) fwrite(picture.text, 1, picture.length, stdout);
	}
	picture_free(&picture);
	return 0;
}

/* One descriptor is held for each level of the tree. */
static void
raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		return;
	files.rlim_cur = files.rlim_max;
	(void) setrlimit(RLIMIT_NOFILE, &files);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {{"without", required_argument, NULL, 'w'},
						{"open", no_argument, NULL, 'o'},
						{"sparse", no_argument, NULL, 's'},
						{"digest", no_argument, NULL, 'd'},
						{0}};
	const char *without[PATTERNS + 1] = {0};
	struct picture_options picture = {.without = without};
	bool digest = false;
	int c, patterns = 0, status = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'w' && patterns < PATTERNS)
			without[patterns++] = optarg;
		else if (c == 'o')
			picture.open = true;
		else if (c == 's')
			picture.sparse = true;
		else if (c == 'd')
			digest = true;
		else
			return fputs(usage, stderr), 2;
	}
	if (optind == argc)
		return fputs(usage, stderr), 2;
	raise_files();
	for (int i = optind; i < argc; i++)
		if (show(argv[i], &picture, digest) < 0)
			status = 1;
	return fflush(stdout) == 0 && !ferror(stdout) ? status : 1;
}
