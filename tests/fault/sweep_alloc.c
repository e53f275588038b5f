/* SPDX-License-Identifier: Apache-2.0 */
/* The sweep over allocations: each of moat's own fails once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sweep.h"

#define LEAKS 16384

struct preload {
	char *environment[24];
	char library[4200], fail[64], count[4200], leaks[4200];
};

static void
prepare(struct job *job, struct preload *preload)
{
	const char *library = getenv("FAILMALLOC");
	size_t n = job->scene->environment_count;

	if (!library)
		die("set FAILMALLOC to failmalloc.so");
	(void) snprintf(preload->library, sizeof(preload->library), "LD_PRELOAD=%s", library);
	(void) snprintf(preload->count, sizeof(preload->count), "MOAT_COUNT_ALLOC=%s/count",
			job->scene->base);
	(void) snprintf(preload->leaks, sizeof(preload->leaks), "MOAT_LEAKS=%s/leaks",
			job->scene->base);
	memcpy(preload->environment, job->scene->environment, n * sizeof(char *));
	preload->environment[n++] = preload->library;
	preload->environment[n++] = preload->count;
	preload->environment[n++] = preload->leaks;
	preload->environment[n++] = preload->fail;
	preload->environment[n] = NULL;
}

static int
run(struct job *job, struct preload *preload, long fail_at)
{
	(void) snprintf(preload->fail, sizeof(preload->fail), "MOAT_FAIL_ALLOC=%ld", fail_at);
	return scene_moat(job->scene, job->scene->argv, preload->environment);
}

/* The first line of `now` that `usual` does not have: what was allocated there was not freed, and
 * would have been, had nothing failed. */
static char *
new_leak(const char *usual, const char *now)
{
	char *problem;

	while (*now) {
		size_t length = strcspn(now, "\n"), site = strcspn(now, " ");
		char line[256];

		(void) snprintf(line, sizeof(line), "%.*s ", (int) site, now);
		if (!strstr(usual, line)) {
			if (asprintf(&problem, "a leak: allocated at %.*s", (int) length, now) < 0)
				die("out of memory");
			return problem;
		}
		now += length + (now[length] == '\n');
	}
	return NULL;
}

void
sweep_allocations(struct job *job)
{
	static char usual[LEAKS], leaks[LEAKS];
	struct preload preload;
	char count[32], where[64], *problem;
	int status;

	prepare(job, &preload);
	if (run(job, &preload, 0) != 0)
		die("%s with failmalloc, undisturbed, fails", job->scene->command->title);
	scene_output(job->scene, "leaks", usual, sizeof(usual));
	scene_output(job->scene, "count", count, sizeof(count));
	job->points = atol(count);
	if (job->points == 0)
		die("no allocation was counted");
	if (job->worker == 0) {
		job->tally->all = job->points;
		if (*usual) {
			problem = new_leak("", usual);
			job_wrong(job, "undisturbed", problem);
		}
	}
	scene_reset(job->scene);
	for (long point = 0; point < job->points; point++) {
		if (!job_wants(job, point))
			continue;
		atomic_fetch_add(&job->tally->taken, 1);
		status = run(job, &preload, point + 1);
		scene_output(job->scene, "leaks", leaks, sizeof(leaks));
		problem = new_leak(usual, leaks);
		if (problem)
			free(job_check_failed(job, status, false));
		else
			problem = job_check_failed(job, status, false);
		(void) snprintf(where, sizeof(where), "allocation %ld", point + 1);
		if (problem)
			job_wrong(job, where, problem);
		if (!job->sweep->point)
			scene_reset(job->scene);
	}
}
