/* SPDX-License-Identifier: Apache-2.0 */
/* git's racy-clean rule: a file that is edited again within the granularity of the clock, in place
 * and to the same size, looks the same to lstat(2); the next snapshot must have the edit all the
 * same.
 *
 * Kernels from 6.13 on give the common filesystems finer times when somebody has looked, so this
 * goes to a ramfs of its own, which has the tick of the clock.  The control: how often nothing that
 * a snapshot compares was different although the content was; it must have happened. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proof.h"

#define FILES 4
#define BATCH 16
#define SIZE 24

/* What a snapshot goes by. */
struct look {
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

static void
write_line(const char *path, const char *line)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	MUST(fd);
	MUST(write(fd, line, strlen(line)));
	close(fd);
}

/* A mount namespace of its own, in a user namespace where that takes one. */
static bool
become_able_to_mount(void)
{
	unsigned uid = geteuid(), gid = getegid();
	char line[64];

	if (unshare(CLONE_NEWNS) == 0)
		return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return false;
	write_line("/proc/self/setgroups", "deny");
	snprintf(line, sizeof line, "%u %u 1", uid, uid);
	write_line("/proc/self/uid_map", line);
	snprintf(line, sizeof line, "%u %u 1", gid, gid);
	write_line("/proc/self/gid_map", line);
	return true;
}

static struct look
look_at(int fd)
{
	struct stat st;

	MUST(fstat(fd, &st));
	return (struct look){st.st_ino, st.st_size, st.st_mtim, st.st_ctim};
}

static bool
is_same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool
looks_same(const struct look *a, const struct look *b)
{
	return a->ino == b->ino && a->size == b->size && is_same_time(&a->mtime, &b->mtime) &&
	       is_same_time(&a->ctime, &b->ctime);
}

struct race {
	struct proof *p;
	struct workspace *workspace;
	int fds[FILES];
	struct look last[FILES];
	char text[BATCH][FILES][SIZE + 1];
	struct snap *snaps[BATCH];
	unsigned long coincidences;
};

/* Each file gets new content, of the old size. */
static void
edit(struct race *r, int turn)
{
	for (int i = 0; i < FILES; i++) {
		struct look now;

		snprintf(r->text[turn][i], SIZE + 1, "%024llx",
			 (unsigned long long) proof_random(r->p));
		if (i == FILES - 1) /* in a roundabout way */
			MUST(ftruncate(r->fds[i], 0));
		MUST(pwrite(r->fds[i], r->text[turn][i], SIZE, 0));
		now = look_at(r->fds[i]);
		r->coincidences += looks_same(&now, &r->last[i]);
		r->last[i] = now;
	}
}

static void
check(struct race *r, int turn)
{
	AUTO_FREE char *beside = proof_path(r->p, "beside");
	struct moat_error err = MOAT_ERROR_INIT;

	if (!proof_restore(r->p, r->snaps[turn], beside, false, NULL, &err)) {
		proof_fail(r->p, "restore --to: %s", err.message);
		return;
	}
	for (int i = 0; i < FILES; i++) {
		AUTO_FREE char *path = NULL;
		char found[SIZE + 1] = "";
		int fd;

		if (asprintf(&path, "%s/f%d", beside, i) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		MUST(fd);
		MUST(read(fd, found, SIZE));
		close(fd);
		r->p->cases++;
		if (strcmp(found, r->text[turn][i]) != 0)
			proof_fail(r->p, "f%d has `%s', not `%s'", i, found, r->text[turn][i]);
	}
	proof_remove(AT_FDCWD, beside);
}

/* Edit and snapshot, as close together as can be; what came of it is looked at afterwards. */
static void
run_batch(struct race *r)
{
	struct moat_error err = MOAT_ERROR_INIT;
	int taken = 0;

	for (; taken < BATCH; taken++) {
		edit(r, taken);
		if (!proof_snapshot(r->p, r->workspace, NULL, &r->snaps[taken], &err)) {
			proof_fail(r->p, "snapshot: %s", err.message);
			break;
		}
	}
	for (int i = 0; i < taken; i++) {
		check(r, i);
		if (i < taken - 1 && snap_delete(&r->p->app, r->snaps[i], &err) < 0)
			proof_fail(r->p, "delete: %s", err.message);
		snap_free(r->snaps[i]);
	}
}

static void
open_files(struct race *r, const char *ws)
{
	for (int i = 0; i < FILES; i++) {
		AUTO_FREE char *path = NULL;

		if (asprintf(&path, "%s/f%d", ws, i) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		r->fds[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		MUST(r->fds[i]);
	}
}

int
main(void)
{
	const char *backend = getenv("MOAT_TEST_BACKEND");
	unsigned long wanted = (unsigned long) proof_scaled(1000, 10);
	AUTO_FREE char *ws = NULL;
	struct race r = {0};
	struct proof p;
	bool mounted;

	mounted = become_able_to_mount();
	proof_open(&p, "racy", NULL, backend == NULL ? "archive" : backend);
	r.p = &p;
	ws = proof_path(&p, "ws");
	MUST(mkdir(ws, 0755));
	mounted = mounted && mount("moat-test", ws, "ramfs", MS_NOSUID | MS_NODEV, "mode=755") == 0;
	r.workspace = proof_workspace(&p, "ws");
	open_files(&r, ws);
	for (int i = 0; i < 200 && r.coincidences < wanted && p.failures == 0; i++)
		run_batch(&r);
	p.controls = r.coincidences;
	fprintf(p.report, "racy: on %s; %lu edits that lstat(2) cannot see\n",
		mounted ? "a ramfs" : "the usual filesystem", r.coincidences);
	for (int i = 0; i < FILES; i++)
		close(r.fds[i]);
	workspace_close(r.workspace);
	if (mounted)
		MUST(umount2(ws, MNT_DETACH));
	if (mounted && r.coincidences < wanted / 4)
		proof_fail(&p, "control: the clock never stood still between two edits");
	if (proof_close(&p) != 0)
		return 1;
	if (mounted || r.coincidences > 0)
		return 0;
	return getenv("MOAT_MUST_WORK") != NULL ? 1 : 77;
}
