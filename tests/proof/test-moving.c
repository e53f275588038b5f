/* SPDX-License-Identifier: Apache-2.0 */
/* Capture while things move: processes grow, shrink, rename, delete and retype files and
 * directories all the time.  Each snapshot succeeds, lists what it could not capture whole, and
 * restores; what nobody touched is exact in each of them. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "picture.h"
#include "proof.h"

#define WRITERS 3
#define NAMES 12

struct shared {
	atomic_ulong operations;
	atomic_bool stop;
};

static struct shared *shared;
static unsigned long torn, vanished, other_skips, with_skips;

/* ---------------------------------------------------------------------------------- the writers */

static void
write_some(struct proof *p, int dirfd, const char *name, int flags, size_t most)
{
	static char text[1 << 16];
	int fd = openat(dirfd, name,
			O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0644);

	if (fd < 0)
		return; /* a directory, a link or a FIFO at the moment */
	memset(text, 'a' + (int) proof_below(p, 26), sizeof text);
	for (size_t n = proof_below(p, (unsigned) most); n > 0;) {
		size_t now = n < sizeof text ? n : sizeof text;

		MUST(write(fd, text, now));
		n -= now;
	}
	close(fd);
}

/* Something else of the same name. */
static void
retype(struct proof *p, int dirfd, const char *name)
{
	proof_remove(dirfd, name);
	switch (proof_below(p, 4)) {
	case 0:
		MUST(symlinkat("../f0", dirfd, name));
		break;
	case 1:
		MUST(mkfifoat(dirfd, name, 0600));
		break;
	case 2: {
		int fd;

		MUST(mkdirat(dirfd, name, 0755));
		fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		MUST(fd);
		write_some(p, fd, "inner", 0, 3000);
		write_some(p, fd, "more", 0, 100);
		close(fd);
		break;
	}
	default:
		write_some(p, dirfd, name, O_EXCL, 30000);
	}
}

static void
operate(struct proof *p, int dirfd)
{
	char name[16], other[16];

	snprintf(name, sizeof name, "f%u", proof_below(p, NAMES));
	snprintf(other, sizeof other, "f%u", proof_below(p, NAMES));
	switch (proof_below(p, 7)) {
	case 0:
		write_some(p, dirfd, name, O_APPEND, 50000);
		break;
	case 1:
		write_some(p, dirfd, name, O_TRUNC, 200000);
		break;
	case 2:
		write_some(p, dirfd, "grows", proof_chance(p, 2) ? O_TRUNC : O_APPEND, 300000);
		break;
	case 3: /* fails where it may not be: a directory that is full, say */
		if (renameat(dirfd, name, dirfd, other) < 0)
			retype(p, dirfd, other);
		break;
	case 4:
		proof_remove(dirfd, name);
		break;
	case 5:
		if (fchmodat(dirfd, name, 0600 | proof_below(p, 0100), 0) < 0)
			write_some(p, dirfd, name, 0, 10);
		break;
	default:
		retype(p, dirfd, name);
	}
}

/* One that is never still while it is read: only this is sure to be torn. */
static void
tear(struct proof *p, int dirfd)
{
	int fd = openat(dirfd, "always", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	MUST(fd);
	MUST(ftruncate(fd, 4 << 20));
	while (!atomic_load(&shared->stop)) {
		MUST(pwrite(fd, "x", 1, proof_below(p, 4 << 20)));
		atomic_fetch_add(&shared->operations, 1);
	}
	close(fd);
}

static _Noreturn void
keep_writing(struct proof *p, const char *ws, int number)
{
	AUTO_FREE char *path = NULL;
	int fd;

	proof_case(p, (unsigned long) number + 1000);
	if (asprintf(&path, "%s/moving-%d", ws, number) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	MUST(fd);
	if (number == 0)
		tear(p, fd);
	while (!atomic_load(&shared->stop)) {
		struct stat st;

		operate(p, fd);
		atomic_fetch_add(&shared->operations, 1);
		/* Bounded: it is to move, not to fill the disk. */
		if (fstatat(fd, "grows", &st, 0) == 0 && st.st_size > 8000000)
			proof_remove(fd, "grows");
	}
	_exit(0);
}

/* --------------------------------------------------------------------------------- the snapshots
 */

/* Stable files lie apart, and among those that move. */
static void
make_stable(struct proof *p, const char *ws)
{
	for (int i = 0; i < 1 + WRITERS; i++) {
		AUTO_FREE char *path = NULL;
		int fd;

		if (asprintf(&path, i == WRITERS ? "%s/stable" : "%s/moving-%d", ws, i) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		MUST(mkdir(path, 0755));
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		MUST(fd);
		for (int j = 0; j < 20; j++) {
			char name[32];

			snprintf(name, sizeof name, "stable-%d", j);
			write_some(p, fd, name, O_EXCL, j == 0 ? 300000 : 3000);
		}
		close(fd);
	}
}

/* Of what nobody touches: their names have "stable" in them. */
static void
stable_picture(const char *path, struct picture *ret)
{
	struct picture all;

	picture_take(path, 0, &all);
	*ret = (struct picture){0};
	for (size_t i = 0; i < all.count; i++)
		if (strstr(all.items[i].path, "stable") != NULL)
			picture_add(ret, &all.items[i]);
	picture_free(&all);
}

static void
count_skips(struct proof *p, const struct snap *snap)
{
	AUTO_MANIFEST struct manifest *manifest = NULL;
	struct moat_error err = MOAT_ERROR_INIT;

	if (snap_manifest(p->app.home, snap, &manifest, &err) < 0) {
		proof_fail(p, "the manifest: %s", err.message);
		return;
	}
	with_skips += manifest->skip_count > 0;
	for (size_t i = 0; i < manifest->skip_count; i++) {
		const struct manifest_skip *skip = &manifest->skips[i];

		torn += skip->reason == SKIP_TORN;
		vanished += skip->reason == SKIP_VANISHED;
		other_skips += skip->reason != SKIP_TORN && skip->reason != SKIP_VANISHED;
		if (strstr(skip->path, "stable") != NULL)
			proof_fail(p, "a stable file is listed: %s (%s)", skip->path, skip->detail);
	}
}

static void
check_restore(struct proof *p, const struct snap *snap, const struct picture *stable)
{
	AUTO_FREE char *beside = proof_path(p, "beside");
	struct moat_error err = MOAT_ERROR_INIT;
	struct picture found;

	if (!proof_restore(p, snap, beside, false, NULL, &err)) {
		proof_fail(p, "restore --to: %s", err.message);
	} else {
		stable_picture(beside, &found);
		picture_compare(p, "stable", stable, &found, NULL);
		picture_free(&found);
	}
	proof_remove(AT_FDCWD, beside);
}

static void
take_snapshots(struct proof *p, struct workspace *workspace, const struct picture *stable,
	       long count)
{
	for (long i = 0; i < count; i++) {
		AUTO_SNAP struct snap *snap = NULL;
		struct moat_error err = MOAT_ERROR_INIT;

		p->case_number = p->cases++;
		if (!proof_snapshot(p, workspace, NULL, &snap, &err)) {
			proof_fail(p, "snapshot: %s", err.message);
			continue;
		}
		count_skips(p, snap);
		check_restore(p, snap, stable);
		if (i % 20 != 19)
			continue;
		/* The store need not hold all of them. */
		if (snap_delete(&p->app, snap, &err) < 0)
			proof_fail(p, "delete: %s", err.message);
	}
}

/* A stable file that was touched after all would be seen. */
static void
control(struct proof *p, const char *ws, const struct picture *stable)
{
	AUTO_FREE char *path = NULL;
	struct picture found;
	int fd;

	if (asprintf(&path, "%s/stable", ws) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	MUST(fd);
	write_some(p, fd, "stable-3", 0, 1000);
	close(fd);
	stable_picture(ws, &found);
	p->controls++;
	if (picture_compare(p, NULL, stable, &found, NULL) == 0)
		proof_fail(p, "control: a touched file was not seen");
	picture_free(&found);
}

int
main(void)
{
	const char *backend = getenv("MOAT_TEST_BACKEND");
	struct workspace *workspace;
	struct picture stable;
	pid_t writers[WRITERS];
	AUTO_FREE char *ws = NULL;
	struct proof p;

	proof_open(&p, "moving", NULL, backend == NULL ? "archive" : backend);
	ws = proof_path(&p, "ws");
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		proof_die("mmap", __FILE__, __LINE__);
	MUST(mkdir(ws, 0755));
	make_stable(&p, ws);
	workspace = proof_workspace(&p, "ws");
	stable_picture(ws, &stable);
	for (int i = 0; i < WRITERS; i++) {
		writers[i] = fork();
		MUST(writers[i]);
		if (writers[i] == 0)
			keep_writing(&p, ws, i);
	}
	take_snapshots(&p, workspace, &stable, proof_scaled(300, 7));
	atomic_store(&shared->stop, true);
	for (int i = 0; i < WRITERS; i++) {
		int status;

		MUST(waitpid(writers[i], &status, 0));
		if (status != 0)
			proof_fail(&p, "writer %d failed", i);
	}
	fprintf(p.report,
		"moving: %lu operations meanwhile; %lu torn, %lu vanished, %lu others listed, in "
		"%lu "
		"snapshots\n",
		atomic_load(&shared->operations), torn, vanished, other_skips, with_skips);
	if (torn == 0 || vanished == 0)
		proof_fail(&p,
			   "nothing was torn, or nothing vanished: too quiet to prove anything");
	control(&p, ws, &stable);
	picture_free(&stable);
	workspace_close(workspace);
	return proof_close(&p);
}
