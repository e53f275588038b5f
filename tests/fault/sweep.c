/* SPDX-License-Identifier: Apache-2.0 */
/* sweep KIND: disturbs each command at each point of a kind, and checks what is left.
 *
 * Environment: MOAT_BUILD (where moat was built), SAMPLE (points in all; all when it is not set),
 * MOAT_TEST_SEED, MOAT_TEST_DIRECTORY, FAULT_WORKERS, FAULT_ONLY (title of a command), FAULT_PLACE
 * (title of a place), FAULT_POINT (only that one, and the scene stays as it is then, to be looked
 * at). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sweep.h"

#define FULL_KILLS 3000
#define SHOWN 2 /* of each kind of problem; the rest is only counted */

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

/* Of a problem without its numbers and ids, so that the same at other points is the same. */
static unsigned long
kind_of_problem(const char *problem)
{
	unsigned long hash = 5381;

	for (const char *p = problem; *p && *p != ';'; p++)
		if (!strchr("0123456789abcdef", *p))
			hash = hash * 33 + (unsigned char) *p;
	return hash | 1;
}

/* True for the first few of a kind. */
static bool
is_new_problem(struct tally *tally, const char *problem)
{
	unsigned long kind = kind_of_problem(problem), none = 0;

	for (size_t i = 0; i < PROBLEMS; i++) {
		if (atomic_compare_exchange_strong(&tally->problems[i].kind, &none, kind) ||
		    none == kind)
			return atomic_fetch_add(&tally->problems[i].count, 1) < SHOWN;
		none = 0;
	}
	return false;
}

void
job_wrong(struct job *job, const char *where, char *problem)
{
	struct scene *scene = job->scene;

	atomic_fetch_add(&job->tally->wrong, 1);
	if (is_new_problem(job->tally, problem)) {
		printf("FAILED: %s, %s: point %ld, %s: %s\n", scene->command->title,
		       scene->place.title, job->point + 1, where, problem);
		(void) fflush(stdout);
	}
	free(problem);
}

void
job_count(struct job *job, enum scene_state state)
{
	if (state == SCENE_MIXED && job->scene->command->changes)
		atomic_fetch_add(&job->tally->ruined, 1);
	else if (state == SCENE_OLD)
		atomic_fetch_add(&job->tally->old, 1);
	else if (state == SCENE_NEW)
		atomic_fetch_add(&job->tally->new, 1);
}

char *
job_check_ended(struct job *job, const struct ended *ended)
{
	int status = ended->status;
	enum scene_state before = ended->before, after;
	char *problem = NULL, *more;
	const char *what;

	if (before == SCENE_MIXED)
		atomic_fetch_add(&job->tally->mixed, 1);
	more = scene_check(job->scene, &after);
	job_count(job, after);
	if (WIFSIGNALED(status) || WEXITSTATUS(status) > 3)
		what = "no proper end";
	else if (status == 0 && before != SCENE_NEW && after != SCENE_NEW)
		what = "it claims to have done it";
	else if (status != 0 && !ended->about_output && !*ended->err)
		what = "it failed and did not say so";
	else if (status != 0 && strstr(ended->out, "snap_") && after != SCENE_NEW)
		what = "it failed, and printed a snapshot";
	else
		what = more;
	if (what && asprintf(&problem, "%s%s%s; status %#x, it said: %s", what,
			     more && what != more ? "; " : "", more && what != more ? more : "",
			     status, ended->err) < 0)
		die("out of memory");
	free(more);
	return problem;
}

char *
job_check_failed(struct job *job, int status, bool about_output)
{
	char out[4096], err[4096];

	scene_output(job->scene, "out", out, sizeof(out));
	scene_output(job->scene, "err", err, sizeof(err));
	return job_check_ended(
		job, &(struct ended){status, about_output, scene_state(job->scene), out, err});
}

/* -------------------------------------------------------------------------------------- places */

/* Where workspace and home are; FULL: on a small filesystem of their own. */
enum layout { NONE, BESIDE, ELSEWHERE, FULL_BOTH, FULL_HOME, FULL_WORKSPACE };

static const char *const layouts[] = {
	[BESIDE] = "home beside it",
	[ELSEWHERE] = "home on another filesystem",
	[FULL_BOTH] = "both on the small filesystem",
	[FULL_HOME] = "home on the small filesystem",
	[FULL_WORKSPACE] = "workspace on the small filesystem",
};

static const struct kind {
	const char *name;
	void (*run)(struct job *job);
	enum layout layouts[4];
} kinds[] = {
	{"kill", sweep_kill, {BESIDE, ELSEWHERE}},
	{"error", sweep_errors, {BESIDE, ELSEWHERE}},
	{"alloc", sweep_allocations, {BESIDE}},
	{"disk", sweep_disk, {FULL_BOTH, FULL_HOME, FULL_WORKSPACE}},
};

/* The directories of one worker. */
struct rooms {
	char workspace[4096], home[4096], files[4096], disk[4096];
};

static void
name_rooms(struct rooms *rooms, const struct sweep *sweep, enum layout layout, int worker)
{
	const char *base = sweep->base, *other = layout == ELSEWHERE ? sweep->other : base;
	const char *small_workspace =
		layout == FULL_BOTH || layout == FULL_WORKSPACE ? "/small" : "";
	const char *small_home = layout == FULL_BOTH || layout == FULL_HOME ? "/small" : "";

	(void) snprintf(rooms->disk, 4096, "%s/%d/small", base, worker);
	(void) snprintf(rooms->workspace, 4096, "%s/%d%s/workspace", base, worker, small_workspace);
	(void) snprintf(rooms->home, 4096, "%s/%d%s/home", other, worker, small_home);
	(void) snprintf(rooms->files, 4096, "%s/%d/files", base, worker);
}

static void
make_parent(const char *base, int worker, bool remove)
{
	char path[4096];

	(void) snprintf(path, sizeof(path), "%s/%d", base, worker);
	if (remove ? rmdir(path) < 0 : mkdir(path, 0700) < 0 && errno != EEXIST)
		die("%s: %s", path, strerror(errno));
}

static void
work(struct job *job, const struct scene_command *command, const struct kind *kind,
     enum layout layout)
{
	struct rooms rooms;
	struct scene_place place = {layouts[layout], rooms.workspace, rooms.home, rooms.files};
	bool small = layout >= FULL_BOTH;

	name_rooms(&rooms, job->sweep, layout, job->worker);
	make_parent(job->sweep->base, job->worker, false);
	if (layout == ELSEWHERE)
		make_parent(job->sweep->other, job->worker, false);
	job->disk = rooms.disk;
	if (small) {
		(void) mkdir(rooms.disk, 0700);
		if (!disk_namespace())
			die("no mount namespace");
		disk_mount(rooms.disk);
	}
	if (scene_open(job->scene, command, &place))
		kind->run(job);
	else
		atomic_store(&job->tally->absent, true);
	if (job->sweep->point)
		return;
	scene_close(job->scene);
	if (small && (umount(rooms.disk) < 0 || rmdir(rooms.disk) < 0))
		die("%s: %s", rooms.disk, strerror(errno));
	make_parent(job->sweep->base, job->worker, true);
	if (layout == ELSEWHERE)
		make_parent(job->sweep->other, job->worker, true);
}

/* ------------------------------------------------------------------------------------- workers */

static void
report(const struct sweep *sweep, const struct scene_command *command, enum layout layout,
       const struct tally *tally)
{
	(void) sweep;
	if (tally->absent)
		printf("%s, %s: not here\n", command->title, layouts[layout]);
	else
		printf("%s, %s: %ld of %ld points; %ld mixed before the recovery; then %ld old, "
		       "%ld "
		       "new, %ld wrong%s\n",
		       command->title, layouts[layout], tally->taken, tally->all, tally->mixed,
		       tally->old, tally->new, tally->wrong, tally->late ? "; some came late" : "");
	(void) fflush(stdout);
}

static void
add_up(struct tally *total, const struct tally *tally)
{
	total->taken += tally->taken;
	total->mixed += tally->mixed;
	total->old += tally->old;
	total->new += tally->new;
	total->wrong += tally->wrong;
	total->ruined += tally->ruined;
}

/* A full sweep in which no point was in the middle would prove nothing. */
static bool
is_control_met(const struct sweep *sweep, const struct scene_command *command,
	       const struct tally *tally)
{
	if (sweep->sample || sweep->point || !command->changes || tally->absent ||
	    strcmp(sweep->kind, "kill") != 0 ||
	    (tally->mixed > 0 && tally->old > 0 && tally->new > 0))
		return true;
	printf("FAILED: %s: control: old, new and mixed must all come\n", command->title);
	return false;
}

/* One command at one place, by all workers.  False when something was wrong. */
static bool
do_job(const struct sweep *sweep, const struct kind *kind, const struct scene_command *command,
       enum layout layout, struct tally *total)
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
		struct job job = {.sweep = sweep, .scene = &scene, .tally = tally, .worker = i};

		if (fork() == 0) {
			/* Nobody would collect what a worker finds. */
			(void) prctl(PR_SET_PDEATHSIG, SIGKILL);
			work(&job, command, kind, layout);
			exit(0);
		}
	}
	while (wait(&status) > 0)
		if (status != 0)
			total->gave_up = true;
	report(sweep, command, layout, tally);
	add_up(total, tally);
	good &= !total->gave_up && is_control_met(sweep, command, tally) && tally->wrong == 0;
	(void) munmap(tally, sizeof(*tally));
	return good;
}

static bool
is_chosen(const struct sweep *sweep, const struct scene_command *command)
{
	return !sweep->only || strcmp(command->title, sweep->only) == 0;
}

static bool
is_usable(const struct sweep *sweep, enum layout layout)
{
	if (sweep->place && strcmp(layouts[layout], sweep->place) != 0)
		return false;
	return layout != ELSEWHERE || sweep->other;
}

/* A sample is shared out evenly. */
static void
share_sample(struct sweep *sweep, const struct kind *kind)
{
	long jobs = 0;

	for (const struct scene_command *command = scene_commands; command->title; command++)
		for (const enum layout *layout = kind->layouts; *layout; layout++)
			jobs += is_chosen(sweep, command) && is_usable(sweep, *layout);
	if (jobs == 0)
		die("there is no such command or place");
	if (sweep->sample)
		sweep->sample = (sweep->sample + jobs - 1) / jobs;
}

static int
sweep_all(struct sweep *sweep, const struct kind *kind)
{
	struct tally total = {0};
	bool good = true;

	share_sample(sweep, kind);
	for (const struct scene_command *command = scene_commands; command->title; command++)
		for (const enum layout *layout = kind->layouts; *layout; layout++)
			if (!total.gave_up && is_chosen(sweep, command) &&
			    is_usable(sweep, *layout))
				good &= do_job(sweep, kind, command, *layout, &total);
	printf("%s sweep: %ld points, %ld mixed before the recovery; then %ld old, %ld new, %ld "
	       "wrong\n",
	       sweep->kind, total.taken, total.mixed, total.old, total.new, total.wrong);
	if (kind->run == sweep_kill && !sweep->sample && !sweep->only && total.taken < FULL_KILLS)
		printf("FAILED: a full sweep has %d points\n", FULL_KILLS), good = false;
	if (!sweep->broken_journal)
		return good && total.taken > 0 ? 0 : 1;
	if (total.ruined > 0) {
		printf("control: without the journal %ld points are ruins, as it must be\n",
		       total.ruined);
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

/* In a process of its own, which alone would be in the namespace. */
static bool
may_mount(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(disk_namespace() ? 0 : 1);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static long
number(const char *name, long otherwise)
{
	const char *value = getenv(name);

	return value && *value ? strtol(value, NULL, 0) : otherwise;
}

static const struct kind *
find_kind(const char *name)
{
	for (size_t i = 0; name && i < sizeof(kinds) / sizeof(*kinds); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	return NULL;
}

static int
sweep_somewhere(struct sweep *sweep, const struct kind *kind)
{
	const char *parent = getenv("MOAT_TEST_DIRECTORY"), *home = getenv("HOME");
	char base[2048];
	int status;

	if (!parent)
		parent = home ? home : "/tmp";
	(void) snprintf(base, sizeof(base), "%s/moat-fault.XXXXXX", parent);
	if (!mkdtemp(base))
		die("%s: %s", base, strerror(errno));
	sweep->base = base;
	sweep->other = other_place(base);
	printf("seed %u, %d workers%s\n", sweep->seed, sweep->workers,
	       sweep->other ? "" : "; no other filesystem in /dev/shm");
	status = sweep_all(sweep, kind);
	if (sweep->point) {
		printf("Kept: %s %s\n", base, sweep->other ? sweep->other : "");
		return status;
	}
	/* A worker that gave up has left its things. */
	if (sweep->other)
		tree_empty(sweep->other);
	tree_empty(base);
	if ((sweep->other && rmdir(sweep->other) < 0) || rmdir(base) < 0)
		perror(base);
	return status;
}

int
main(int argc, char **argv)
{
	const struct kind *kind = find_kind(argc > 1 ? argv[1] : NULL);
	struct sweep sweep = {.point = number("FAULT_POINT", 0),
			      .sample = number("SAMPLE", 0),
			      .seed = (unsigned) number("MOAT_TEST_SEED", time(NULL)),
			      .workers =
				      (int) number("FAULT_WORKERS", sysconf(_SC_NPROCESSORS_ONLN)),
			      .only = getenv("FAULT_ONLY"),
			      .place = getenv("FAULT_PLACE")};

	if (sweep.point && (!sweep.only || !sweep.place))
		die("FAULT_POINT wants FAULT_ONLY and FAULT_PLACE, too");

	if (!kind) {
		(void) fputs("Usage: sweep kill|error|alloc|disk [--broken-journal]\n", stderr);
		return 2;
	}
	sweep.kind = kind->name;
	sweep.broken_journal = argc > 2 && strcmp(argv[2], "--broken-journal") == 0;
	(void) umask(022);
	if (kind->run == sweep_disk && !may_mount()) {
		puts("this process may make no mount namespace");
		return number("MOAT_MUST_WORK", 0) == 1 ? 1 : 77;
	}
	return sweep_somewhere(&sweep, kind);
}
