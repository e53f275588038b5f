/* SPDX-License-Identifier: Apache-2.0 */
/* hostile-archives DIR: makes NAME.tar for each of the cases of ../unit/hostile-tar.c, and prints
 * "NAME WORDS" for each that is to be refused, "NAME" for the others. */
#include <stdio.h>
#include <unistd.h>

#include "hostile-tar.h"

int
main(int argc, char **argv)
{
	if (argc != 2 || chdir(argv[1]) < 0) {
		fprintf(stderr, "usage: hostile-archives DIR\n");
		return 2;
	}
	for (size_t i = 0; i < hostile_count; i++) {
		AUTO_BUF struct buf archive = {0};
		AUTO_FCLOSE FILE *file = NULL;
		char name[128];

		snprintf(name, sizeof name, "%s.tar", hostile_cases[i].name);
		hostile_make(&hostile_cases[i], &archive);
		file = fopen(name, "w");
		if (file == NULL || fwrite(archive.data, 1, archive.size, file) != archive.size ||
		    fflush(file) != 0) {
			perror(name);
			return 1;
		}
		printf("%s%s%s\n", hostile_cases[i].name, hostile_cases[i].words == NULL ? "" : " ",
		       hostile_cases[i].words == NULL ? "" : hostile_cases[i].words);
	}
	return 0;
}
