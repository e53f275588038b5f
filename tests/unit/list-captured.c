/* SPDX-License-Identifier: Apache-2.0 */
/* list-captured [-a] DIRECTORY [PATTERN...]: prints the files and links (with -a the directories,
 * too) that a filter lets through, each followed by a NUL, in bytewise order.  PATTERN: what the
 * configuration would exclude in addition. */
#include "tests/unit/filter-list.h"

int
main(int argc, char **argv)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct filter_options options = {0};
	struct filter *filter = NULL;
	struct list list = {0};
	int all = argc > 1 && strcmp(argv[1], "-a") == 0, status = -1, rootfd;

	if (argc < 2 + all) {
		fprintf(stderr, "usage: list-captured [-a] DIRECTORY [PATTERN...]\n");
		return 2;
	}
	options.additional = (const char *const *) argv + 2 + all;
	rootfd = open(argv[1 + all], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rootfd < 0)
		(void) moat_fail_errno(&err, "open `%s'", argv[1 + all]);
	else if (filter_open(rootfd, argv[1 + all], &options, &filter, &err) == 0)
		status = list_captured(rootfd, filter, &list, NULL, &err);
	if (status < 0)
		fprintf(stderr, "list-captured: %s\n", err.message);
	list_sort(&list);
	for (size_t i = 0; status == 0 && i < list.count; i++)
		if (all || list.items[i][strlen(list.items[i]) - 1] != '/')
			fwrite(list.items[i], 1, strlen(list.items[i]) + 1, stdout);
	list_free(&list);
	filter_free(filter);
	if (rootfd >= 0)
		close(rootfd);
	return status < 0 || fflush(stdout) != 0;
}
