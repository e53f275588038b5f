/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target over the files of a directory: replay $FUZZ_CORPUS/NAME, NAME being what
 * stands behind "replay-" in the program's own.  A directory without files is a failure. */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fs.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_MAX ((size_t) 16 << 20)

static int
replay(int dirfd, const char *name)
{
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_FREE char *data = NULL;
	AUTO_FREE uint8_t *exact = NULL;
	size_t size = 0;

	if (fs_read(dirfd, name, INPUT_MAX, &data, &size, &err) < 0) {
		fprintf(stderr, "%s: %s\n", name, err.message);
		return -1;
	}
	exact = fuzz_copy((const uint8_t *) data, size);
	(void) LLVMFuzzerTestOneInput(exact, size);
	return 0;
}

int
main(int argc, char **argv)
{
	const char *base = strrchr(argv[0], '/'), *corpus = getenv("FUZZ_CORPUS");
	const char *name = strstr(base == NULL ? argv[0] : base, "replay-");
	AUTO_CLOSEDIR DIR *stream = NULL;
	AUTO_FREE char *path = NULL;
	struct dirent *entry;
	unsigned count = 0;

	if (argc > 1)
		path = strdup(argv[1]);
	else if (name == NULL || corpus == NULL || asprintf(&path, "%s/%s", corpus, name + 7) < 0)
		path = NULL;
	if (path == NULL) {
		fprintf(stderr, "Usage: %s DIRECTORY, or FUZZ_CORPUS=DIRECTORY %s\n", argv[0],
			argv[0]);
		return 2;
	}
	stream = opendir(path);
	if (stream == NULL) {
		perror(path);
		return 1;
	}
	while ((entry = readdir(stream)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		if (replay(dirfd(stream), entry->d_name) < 0)
			return 1;
		count++;
	}
	printf("%s: %u inputs\n", path, count);
	return count > 0 ? 0 : 1;
}
