/* SPDX-License-Identifier: Apache-2.0 */
/* The sweeps over system calls: killed before each, and each failing. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sweep.h"

#define CALLS 16384

static const struct {
	const char *name;
	int number;
} errors[] = {
	{"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EDQUOT", EDQUOT}, {"EMFILE", EMFILE},
	{"ENOMEM", ENOMEM}, {"EACCES", EACCES}, {"EINTR", EINTR},
};
#define ERRORS (sizeof(errors) / sizeof(*errors))

static unsigned short calls[CALLS];

/* The calls of the undisturbed command. */
static long
count_calls(struct job *job, struct inject *inject)
{
	struct inject_result result;
	char said[4096];

	inject->what = INJECT_NOTHING;
	inject->calls = calls;
	inject->call_room = CALLS;
	if (inject_run(job->scene->argv, inject, &result) < 0)
		die("cannot trace: %s", strerror(errno));
	if (result.status != 0 || result.count == 0) {
		scene_output(job->scene, "err", said, sizeof(said));
		die("%s, traced: status %#x after %ld calls: %s", job->scene->command->title,
		    result.status, result.count, said);
	}
	if (result.count > CALLS)
		die("more than %d calls", CALLS);
	inject->calls = NULL;
	scene_reset(job->scene);
	return result.count;
}

/* A moat whose decision record is not on the disk when it should be: without its fsync, power loss
 * may take the files of the journal away while what was renamed after it stays.  So they are
 * removed between the kill and the recovery; what is staged remains. */
static void
lose_journal(const struct scene *scene)
{
	char path[8192];
	DIR *all, *one;
	struct dirent *transaction, *file;

	(void) snprintf(path, sizeof(path), "%s/txn", scene->home);
	all = opendir(path);
	while (all && (transaction = readdir(all))) {
		if (transaction->d_name[0] == '.' || transaction->d_type != DT_DIR)
			continue;
		(void) snprintf(path, sizeof(path), "%s/txn/%s", scene->home, transaction->d_name);
		one = opendir(path);
		while (one && (file = readdir(one)))
			if (file->d_type == DT_REG)
				(void) unlinkat(dirfd(one), file->d_name, 0);
		if (one)
			(void) closedir(one);
	}
	if (all)
		(void) closedir(all);
}

static const char *
describe(const struct inject_result *result, const struct inject *inject, const char *what)
{
	static char text[128];
	const char *call = result->call >= 0 ? inject_call_name(result->call) : "nothing";

	(void) snprintf(text, sizeof(text), "%s %ld, %s", what, inject->at, call ? call : "?");
	return text;
}

void
sweep_kill(struct job *job)
{
	struct inject inject = scene_inject(job->scene);
	struct inject_result result;
	enum scene_state state;
	char *problem;

	job->points = count_calls(job, &inject);
	if (job->worker == 0)
		job->tally->all = job->points;
	inject.what = INJECT_KILL;
	for (long point = 0; point < job->points; point++) {
		if (!job_wants(job, point))
			continue;
		atomic_fetch_add(&job->tally->taken, 1);
		inject.at = point + 1;
		if (inject_run(job->scene->argv, &inject, &result) < 0)
			die("cannot trace: %s", strerror(errno));
		if (!result.fired)
			atomic_fetch_add(&job->tally->late, 1);
		if (scene_state(job->scene) == SCENE_MIXED)
			atomic_fetch_add(&job->tally->mixed, 1);
		if (job->sweep->broken_journal)
			lose_journal(job->scene);
		problem = scene_check(job->scene, &state);
		if (!problem && !result.fired && state != SCENE_NEW)
			problem = strdup("it was not disturbed, and is not done");
		job_count(job, state);
		if (problem)
			job_wrong(job, describe(&result, &inject, "killed before call"), problem);
		if (!job->sweep->point)
			scene_reset(job->scene);
	}
}

static void
fail_one(struct job *job, struct inject *inject, const char *name)
{
	struct inject_result result;
	char what[64], *problem;

	atomic_fetch_add(&job->tally->taken, 1);
	if (inject_run(job->scene->argv, inject, &result) < 0)
		die("cannot trace: %s", strerror(errno));
	if (!result.fired)
		atomic_fetch_add(&job->tally->late, 1);
	if (result.timed_out)
		problem = strdup("it hangs");
	else
		problem = job_check_failed(job, result.status,
					   result.call == inject_call_number("write"));
	(void) snprintf(what, sizeof(what), "%s at call", name);
	if (problem)
		job_wrong(job, describe(&result, inject, what), problem);
	scene_reset(job->scene);
}

void
sweep_errors(struct job *job)
{
	struct inject inject = scene_inject(job->scene);
	bool counted[INJECT_CALLS];

	inject_calls_that_fail(counted);
	inject.counted = counted;
	job->points = count_calls(job, &inject) * (long) ERRORS;
	if (job->worker == 0)
		job->tally->all = job->points;
	inject.what = INJECT_ERROR;
	for (long point = 0; point < job->points; point++) {
		if (!job_wants(job, point))
			continue;
		inject.at = point / (long) ERRORS + 1;
		/* Turned with each call, so that an even sample has all of them. */
		inject.error = errors[(size_t) (point + inject.at) % ERRORS].number;
		fail_one(job, &inject, errors[(size_t) (point + inject.at) % ERRORS].name);
	}
}
