/* SPDX-License-Identifier: Apache-2.0 */
/* The sweeps over real filesystems that are full: a tmpfs that has room for K pages more, or for K
 * files more, while the command runs; K grows until there is enough.
 *
 * The tmpfs is mounted in a mount namespace of the worker's own, as an ordinary user inside a user
 * namespace that maps nobody but him; it ends with the worker. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "sweep.h"

#define PLENTY "size=256m,nr_inodes=100000"
/* Points in a row at which the command had enough; then it has. */
#define ENOUGH 3
#define POINTS 4096

static void
write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die("%s: %s", path, strerror(errno));
	(void) close(fd);
}

/* A mount namespace in which this process may mount; false when the machine does not allow it. */
bool
disk_namespace(void)
{
	unsigned uid = geteuid(), gid = getegid();
	char map[64];

	if (unshare(CLONE_NEWNS | (uid == 0 ? 0 : CLONE_NEWUSER)) < 0)
		return false;
	if (uid != 0) {
		write_text("/proc/self/setgroups", "deny");
		(void) snprintf(map, sizeof(map), "%u %u 1", uid, uid);
		write_text("/proc/self/uid_map", map);
		(void) snprintf(map, sizeof(map), "%u %u 1", gid, gid);
		write_text("/proc/self/gid_map", map);
	}
	return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

void
disk_mount(const char *path)
{
	if (mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, PLENTY ",mode=700") < 0)
		die("cannot mount a tmpfs at %s: %s", path, strerror(errno));
}

static void
remount(const char *path, const char *options)
{
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_NOSUID | MS_NODEV, options) < 0)
		die("cannot remount %s with %s: %s", path, options, strerror(errno));
}

/* Leaves room for `room` pages, or files. */
static void
leave_room(const char *path, long room, bool files)
{
	char options[64];
	struct statvfs fs;
	unsigned long limit;

	if (statvfs(path, &fs) < 0)
		die("%s: %s", path, strerror(errno));
	limit = (unsigned long) (files ? fs.f_files - fs.f_ffree : fs.f_blocks - fs.f_bfree) +
		(unsigned long) room;
	/* 0 would be no limit at all, which cannot be taken back. */
	if (limit == 0)
		limit = 1;
	(void) snprintf(options, sizeof(options), files ? "nr_inodes=%lu" : "size=%lu",
			files ? limit : limit * (unsigned long) fs.f_frsize);
	remount(path, options);
}

/* True when the command had enough. */
static bool
try_room(struct job *job, long room, bool files)
{
	const char *recover[] = {job->scene->program, "recover", NULL};
	char where[64], out[4096], err[4096], *problem;
	enum scene_state before;
	int status;

	atomic_fetch_add(&job->tally->all, 1);
	atomic_fetch_add(&job->tally->taken, 1);
	leave_room(job->disk, room, files);
	status = scene_moat(job->scene, job->scene->argv, NULL);
	scene_output(job->scene, "out", out, sizeof(out));
	scene_output(job->scene, "err", err, sizeof(err));
	before = scene_state(job->scene);
	/* While it is full, too: it may or may not succeed, but must not make it worse. */
	if (before == SCENE_MIXED)
		(void) scene_moat(job->scene, recover, NULL);
	remount(job->disk, PLENTY);
	problem = job_check_ended(job, &(struct ended){status, false, before, out, err});
	(void) snprintf(where, sizeof(where), "room for %ld %s", room, files ? "files" : "pages");
	if (problem)
		job_wrong(job, where, problem);
	if (!job->sweep->point)
		scene_reset(job->scene);
	return status == 0;
}

static void
fill(struct job *job, bool files)
{
	/* In a sample, not every step: the seed says where it begins. */
	long step = job->sweep->sample ? 7 : 1, enough = 0;
	const long wanted = job->sweep->sample ? 1 : ENOUGH;
	long room = job->sweep->sample ? (long) job->sweep->seed % step : 0;

	for (long n = 0; enough < wanted && n < POINTS; n++, room += step) {
		if (n % job->sweep->workers != job->worker)
			continue;
		enough = try_room(job, room, files) ? enough + 1 : 0;
	}
}

void
sweep_disk(struct job *job)
{
	fill(job, false);
	fill(job, true);
}
