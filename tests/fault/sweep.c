/* SPDX-License-Identifier: Apache-2.0 */
/* sweep KIND: disturbs each command at each point of a kind, and checks what is left.
 *
 * Environment: MOAT_BUILD (where moat was built), SAMPLE (points in all; all when it is not set),
 * MOAT_TEST_SEED, MOAT_TEST_DIRECTORY, FAULT_ONLY (title of a command), FAULT_WORKERS, FAULT_POINT
 * (only that one, and the scene stays as the command left it, to be looked at). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sweep.h"

#define SHOWN 6 /* of each job; the rest is only counted */

static const struct kind {
	const char *name;
	void (*run)(struct job *job);
	bool own_places; /* one place only: it makes its own filesystems there */
} kinds[] = {
	{"kill", sweep_kill, false},
	{"error", sweep_errors, false},
	{"alloc", sweep_allocations, true},
	{"disk", sweep_disk, true},
};

bool
job_wants(struct job *job, long point)
{
	const struct sweep *sweep = job->sweep;
	long index, start, end;

	job->point = point;
	if (sweep->point)
		return job->worker == 0 && point + 1 == sweep->point;
	if (sweep->sample == 0 || sweep->sample >= job->points)
		return point % sweep->workers == job->worker;
	/* Evenly spread: one of each part, as far into it as the seed says. */
	index = point * sweep->sample / job->points;
	if (index % sweep->workers != job->worker)
		return false;
	start = (index * job->points + sweep->sample - 1) / sweep->sample;
	end = ((index + 1) * job->points + sweep->sample - 1) / sweep->sample;
	return point == start + (long) ((sweep->seed + (unsigned long) index * 2654435761U) %
					(unsigned long) (end - start));
}

void
job_wrong(struct job *job, const char *where, char *problem)
{
	struct scene *scene = job->scene;

	atomic_fetch_add(&job->tally->wrong, 1);
	if (atomic_fetch_add(&job->tally->shown, 1) < SHOWN) {
		printf("FAILED: %s, %s: point %ld, %s: %s\n", scene->command->title,
		       scene->place.title, job->point + 1, where, problem);
		(void) fflush(stdout);
	}
	free(problem);
}

void
job_count(struct job *job, enum scene_state state)
{
	if (state == SCENE_OLD)
		atomic_fetch_add(&job->tally->old, 1);
	else if (state == SCENE_NEW)
		atomic_fetch_add(&job->tally->new, 1);
}

char *
job_check_failed(struct job *job, int status, bool about_output)
{
	enum scene_state before = scene_state(job->scene), after;
	char out[4096], err[4096], *problem = NULL, *more;

	scene_output(job->scene, "out", out, sizeof(out));
	scene_output(job->scene, "err", err, sizeof(err));
	if (before == SCENE_MIXED)
		atomic_fetch_add(&job->tally->mixed, 1);
	more = scene_check(job->scene, &after);
	job_count(job, after);
	if (WIFSIGNALED(status) &&
	    asprintf(&problem, "ended by signal %d: %s", WTERMSIG(status), err) < 0)
		die("out of memory");
	else if (!problem && status == 0 && before != SCENE_NEW && after != SCENE_NEW &&
		 asprintf(&problem, "status 0, and it is not done: %s", err) < 0)
		die("out of memory");
	else if (!problem && status != 0 && !about_output && !*err)
		problem = strdup("it failed and did not say so");
	else if (!problem && status != 0 && strstr(out, "snap_") && after != SCENE_NEW &&
		 asprintf(&problem, "it failed, and printed %s", out) < 0)
		die("out of memory");
	if (!problem)
		return more;
	free(more);
	return problem;
}

/* ------------------------------------------------------------------------------------- workers */

static void
name_places(struct scene_place *ret, char room[2][4096], const char *base, const char *other,
	    int worker)
{
	(void) snprintf(room[0], 4096, "%s/w%d", base, worker);
	(void) snprintf(room[1], 4096, "%s/h%d", other, worker);
	*ret = (struct scene_place){
		.title = strcmp(base, other) == 0 ? "home beside it" : "home elsewhere",
		.workspace = room[0],
		.home = room[1],
	};
}

static void
work(struct job *job, const struct scene_command *command, const struct kind *kind,
     const char *base, const char *other)
{
	struct scene_place place;
	char room[2][4096];

	name_places(&place, room, base, other, job->worker);
	if (scene_open(job->scene, command, &place))
		kind->run(job);
	else
		atomic_store(&job->tally->absent, true);
	if (!job->sweep->point)
		scene_close(job->scene);
}

/* One command at one place, by all workers.  False when something was wrong. */
static bool
do_job(const struct sweep *sweep, const struct kind *kind, const struct scene_command *command,
       const char *base, const char *other, struct tally *total)
{
	struct tally *tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool good = true;
	int status;

	if (tally == MAP_FAILED)
		die("out of memory");
	(void) fflush(stdout);
	for (int i = 0; i < sweep->workers; i++) {
		struct scene scene;
		struct job job = {sweep, &scene, tally, i, 0};

		if (fork() == 0) {
			work(&job, command, kind, base, other);
			exit(0);
		}
	}
	while (wait(&status) > 0)
		good &= status == 0;
	if (tally->absent) {
		printf("%s, %s: not here\n", command->title,
		       base == other ? "beside" : "elsewhere");
	} else {
		printf("%s, home %s: %ld of %ld points; %ld mixed before the recovery; then %ld "
		       "old, %ld "
		       "new, %ld wrong%s\n",
		       command->title, base == other ? "beside" : "elsewhere", tally->taken,
		       tally->all, tally->mixed, tally->old, tally->new, tally->wrong,
		       tally->late ? "; some came late" : "");
	}
	total->taken += tally->taken;
	total->mixed += tally->mixed;
	total->old += tally->old;
	total->new += tally->new;
	total->wrong += tally->wrong;
	/* Without these a sweep would prove nothing. */
	if (strcmp(sweep->kind, "kill") == 0 && command->changes && !tally->absent &&
	    sweep->sample == 0 && (tally->mixed == 0 || tally->old == 0 || tally->new == 0)) {
		printf("FAILED: %s: control: no point was in the middle\n", command->title);
		good = false;
	}
	good &= tally->wrong == 0;
	(void) munmap(tally, sizeof(*tally));
	return good;
}

static int
sweep_all(struct sweep *sweep, const struct kind *kind, const char *base, const char *other)
{
	struct tally total = {0};
	bool good = true;
	int jobs = 0;
	long all = sweep->sample;

	for (const struct scene_command *command = scene_commands; command->title; command++)
		jobs += !sweep->only || strcmp(command->title, sweep->only) == 0;
	if (jobs == 0)
		die("there is no command `%s'", sweep->only);
	if (all)
		sweep->sample = all / (jobs * (kind->own_places ? 1 : 2)) + 1;
	for (const struct scene_command *command = scene_commands; command->title; command++) {
		if (sweep->only && strcmp(command->title, sweep->only) != 0)
			continue;
		good &= do_job(sweep, kind, command, base, base, &total);
		if (!kind->own_places && other)
			good &= do_job(sweep, kind, command, base, other, &total);
	}
	printf("%s sweep: %ld points, %ld mixed before the recovery; then %ld old, %ld new, %ld "
	       "wrong\n",
	       sweep->kind, total.taken, total.mixed, total.old, total.new, total.wrong);
	if (!sweep->broken_journal)
		return good && total.taken > 0 ? 0 : 1;
	if (total.wrong > 0) {
		puts("control: without the journal the sweep finds ruins, as it must");
		return 0;
	}
	puts("FAILED: control: the journal was taken away, and nothing was found");
	return 1;
}

/* A directory on another filesystem than `base`, or NULL. */
static char *
other_place(const char *base)
{
	static char path[] = "/dev/shm/moat-fault.XXXXXX";
	struct stat here, there;

	if (stat(base, &here) < 0 || stat("/dev/shm", &there) < 0 || here.st_dev == there.st_dev ||
	    access("/dev/shm", W_OK) < 0)
		return NULL;
	return mkdtemp(path);
}

static long
number(const char *name, long otherwise)
{
	const char *value = getenv(name);

	return value && *value ? strtol(value, NULL, 0) : otherwise;
}

int
main(int argc, char **argv)
{
	const char *parent = getenv("MOAT_TEST_DIRECTORY"), *home = getenv("HOME");
	struct sweep sweep = {.sample = number("SAMPLE", 0),
			      .point = number("FAULT_POINT", 0),
			      .seed = (unsigned) number("MOAT_TEST_SEED", time(NULL)),
			      .workers =
				      (int) number("FAULT_WORKERS", sysconf(_SC_NPROCESSORS_ONLN)),
			      .only = getenv("FAULT_ONLY")};
	char base[4096], *other;
	size_t i = 0;
	int status;

	while (argc > 1 && i < sizeof(kinds) / sizeof(*kinds) &&
	       strcmp(kinds[i].name, argv[1]) != 0)
		i++;
	if (argc < 2 || i == sizeof(kinds) / sizeof(*kinds)) {
		(void) fputs("Usage: sweep kill|error|alloc|disk [--broken-journal]\n", stderr);
		return 2;
	}
	sweep.kind = argv[1];
	sweep.broken_journal = argc > 2 && strcmp(argv[2], "--broken-journal") == 0;
	if (!parent)
		parent = home ? home : "/tmp";
	(void) snprintf(base, sizeof(base), "%s/moat-fault.XXXXXX", parent);
	if (!mkdtemp(base))
		die("%s: %s", base, strerror(errno));
	other = other_place(base);
	printf("seed %u, %d workers%s\n", sweep.seed, sweep.workers,
	       other ? "" : "; no other filesystem in /dev/shm");
	status = sweep_all(&sweep, &kinds[i], base, other);
	if (sweep.point)
		return printf("Kept: %s\n", base), status;
	if (other)
		(void) rmdir(other);
	if (rmdir(base) < 0)
		perror(base);
	return status;
}
