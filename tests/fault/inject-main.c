/* SPDX-License-Identifier: Apache-2.0 */
/* inject: the command line of inject.h, for scripts and for reproducing what a sweep found. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "inject.h"

#define ROOM ((size_t) 1 << 20)

static const char usage[] =
	"Usage: inject [OPTION]... [--] PROGRAM [ARGUMENT]...\n"
	"\n"
	"Runs a program (a path) and interferes with one system call of its processes and "
	"threads.\n"
	"\n"
	"  --count=FILE     write the number and name of each call that is counted\n"
	"  --kill=K         kill all processes before the K-th call is carried out\n"
	"  --error=NAME     make the call of --at fail with that error, without carrying it out\n"
	"  --at=K\n"
	"  --only=CALL,...  count only these\n"
	"  --except=CALL,.. count all but these\n"
	"  --fallible       count only what a sweep makes fail\n"
	"  --after=PATH     begin to count with the first call that names such a path\n"
	"  --timeout=SEC    kill everything then, and exit with 124\n"
	"\n"
	"The status is that of the program, 128+N when signal N ended it, 125 when it could not be "
	"run.\n";

static const struct {
	const char *name;
	int number;
} errors[] = {
	{"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EDQUOT", EDQUOT}, {"EMFILE", EMFILE},
	{"ENOMEM", ENOMEM}, {"EACCES", EACCES}, {"EINTR", EINTR},   {"EPERM", EPERM},
	{"ENOENT", ENOENT}, {"EROFS", EROFS},   {"ENOSYS", ENOSYS}, {"EINVAL", EINVAL},
	{"ENFILE", ENFILE}, {"EXDEV", EXDEV},   {"EAGAIN", EAGAIN}, {"ENOTSUP", ENOTSUP},
};

static int
error_number(const char *name)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (strcmp(errors[i].name, name) == 0)
			return errors[i].number;
	return 0;
}

static int
write_calls(const char *path, const unsigned short *calls, size_t count)
{
	FILE *file = fopen(path, "w");

	if (!file)
		return -1;
	for (size_t i = 0; i < count; i++) {
		const char *name = inject_call_name(calls[i]);

		(void) fprintf(file, "%zu %s\n", i + 1, name ? name : "?");
	}
	return fclose(file);
}

static bool counted[INJECT_CALLS];

static void
count_only(struct inject *inject, const char *list, bool only)
{
	for (int i = 0; i < INJECT_CALLS; i++)
		counted[i] = !only;
	inject_call_set(counted, list, only);
	inject->counted = counted;
}

static int
parse(int argc, char **argv, struct inject *inject, const char **ret_count)
{
	static const struct option options[] = {
		{"count", required_argument, NULL, 'c'},   {"kill", required_argument, NULL, 'k'},
		{"error", required_argument, NULL, 'e'},   {"at", required_argument, NULL, 'a'},
		{"only", required_argument, NULL, 'o'},    {"except", required_argument, NULL, 'x'},
		{"fallible", no_argument, NULL, 'f'},      {"after", required_argument, NULL, 'A'},
		{"timeout", required_argument, NULL, 't'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			*ret_count = optarg;
			break;
		case 'k':
			inject->what = INJECT_KILL;
			inject->at = atol(optarg);
			break;
		case 'e':
			inject->what = INJECT_ERROR;
			inject->error = error_number(optarg);
			break;
		case 'a':
			inject->at = atol(optarg);
			break;
		case 'o':
		case 'x':
			count_only(inject, optarg, c == 'o');
			break;
		case 'f':
			inject_calls_that_fail(counted);
			inject->counted = counted;
			break;
		case 'A':
			inject->after = optarg;
			break;
		case 't':
			inject->timeout = (unsigned) atoi(optarg);
			break;
		default:
			return -1;
		}
	}
	if (inject->what == INJECT_ERROR && (inject->error == 0 || inject->at < 1))
		return -1;
	return optind < argc ? 0 : -1;
}

int
main(int argc, char **argv)
{
	struct inject inject = {.call_room = ROOM};
	struct inject_result result;
	const char *count = NULL;

	if (parse(argc, argv, &inject, &count) < 0)
		return fputs(usage, stderr), 2;
	if (count && !(inject.calls = calloc(ROOM, sizeof(*inject.calls))))
		return 125;
	if (inject_run((const char *const *) (argv + optind), &inject, &result) < 0) {
		perror(argv[optind]);
		return 125;
	}
	if (count && write_calls(count, inject.calls,
				 (size_t) result.count < ROOM ? (size_t) result.count : ROOM) < 0) {
		perror(count);
		return 125;
	}
	free(inject.calls);
	if (result.timed_out)
		return 124;
	return WIFSIGNALED(result.status) ? 128 + WTERMSIG(result.status)
					  : WEXITSTATUS(result.status);
}
