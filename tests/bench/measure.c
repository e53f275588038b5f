/* SPDX-License-Identifier: Apache-2.0 */
/* measure FILE COMMAND...: runs the command and appends one line to FILE: seconds by the clock, of
 * the user, of the system; the largest resident set (KiB) of the command or of one that it waited
 * for.  Exits as the command did. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static double
seconds(const struct timeval *t)
{
	return (double) t->tv_sec + (double) t->tv_usec / 1e6;
}

static int
run(char **argv, double *wall, struct rusage *usage)
{
	double start = now();
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		execvp(argv[0], argv);
		fprintf(stderr, "measure: %s: %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, usage) < 0) {
		perror("measure");
		return 125;
	}
	*wall = now() - start;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int
main(int argc, char **argv)
{
	struct rusage usage = {0};
	double wall = 0;
	FILE *file;
	int status;

	if (argc < 3) {
		fprintf(stderr, "Usage: measure FILE COMMAND [ARGUMENT...]\n");
		return 2;
	}
	file = fopen(argv[1], "ae");
	if (file == NULL) {
		perror(argv[1]);
		return 125;
	}
	status = run(argv + 2, &wall, &usage);
	if (status == 0)
		fprintf(file, "%.6f %.6f %.6f %ld\n", wall, seconds(&usage.ru_utime),
			seconds(&usage.ru_stime), usage.ru_maxrss);
	if (fclose(file) != 0) {
		perror(argv[1]);
		return 125;
	}
	return status;
}
