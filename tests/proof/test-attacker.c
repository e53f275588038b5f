/* SPDX-License-Identifier: Apache-2.0 */
/* A racing attacker: while snapshots are taken and restored, another process swaps directories and
 * files of the workspace for links that lead outside, and back, as fast as it can.  The tree
 * outside must stay as it was to the change time, and nothing of it may come into a snapshot.
 *
 * The control: the same attack on somebody who uses plain paths must get through.
 *
 * Arguments: where the home is to lie, and where the workspace.  On two filesystems restores are
 * staged inside the workspace, where the attacker reaches the stage, too. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/txn.h"
#include "picture.h"
#include "proof.h"

#define DIRECTORIES 6
#define FILES 5
#define SECRET_SIZE 7777 /* of every file outside, and of none inside */

/* What is swapped: six directories of the root, and below one that stays another directory and a
 * file. */
static const char *const targets[] = {"d0", "d1", "d2", "d3", "d4", "d5", "stays/s", "stays/f"};
#define TARGETS (sizeof targets / sizeof *targets)

struct shared {
	atomic_ulong swaps, stages;
	atomic_bool stop;
};

struct arena_of { /* the place of the fight */
	struct proof *p;
	char *ws, *outside, *links; /* absolute */
	struct shared *shared;
	int ws_fd, links_fd;
	pid_t attacker;
};

static unsigned long snapshots, restores, refused_snapshots, refused_restores, conflicts;

/* ------------------------------------------------------------------------------------ the place */

static void
put(int dirfd, const char *name, char letter, size_t size)
{
	static char text[SECRET_SIZE];
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0)
		return; /* swapped for a link just now */
	memset(text, letter, sizeof text);
	MUST(write(fd, text, size));
	close(fd);
}

static int
enter(int dirfd, const char *name)
{
	return openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* The same names inside and outside, so that a path through a link finds something. */
static void
fill(int dirfd, char letter, size_t size, int depth)
{
	char name[16];

	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof name, "f%d", i);
		put(dirfd, name, letter, size);
	}
	for (int i = 0; i < 2 && depth > 0; i++) {
		int fd;

		snprintf(name, sizeof name, "s%d", i);
		MUST(mkdirat(dirfd, name, 0755));
		fd = enter(dirfd, name);
		MUST(fd);
		fill(fd, letter, size, depth - 1);
		close(fd);
	}
}

static void
make_directory(int dirfd, const char *name, char letter, size_t size)
{
	int fd;

	MUST(mkdirat(dirfd, name, 0755));
	fd = enter(dirfd, name);
	MUST(fd);
	fill(fd, letter, size, 1);
	close(fd);
}

static int
make_top(const char *path)
{
	int fd;

	MUST(mkdir(path, 0755));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	MUST(fd);
	return fd;
}

static void
link_name(char ret[16], size_t target)
{
	snprintf(ret, 16, "link-%zu", target);
}

static void
make_link(const struct arena_of *a, size_t target)
{
	AUTO_FREE char *to = NULL;
	char name[16];

	link_name(name, target);
	if (asprintf(&to, "%s%s", a->outside, target == TARGETS - 1 ? "/f0" : "") < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	MUST(symlinkat(to, a->links_fd, name));
}

static void
set_up(struct arena_of *a, struct proof *p, const char *directory)
{
	int fd;

	*a = (struct arena_of){.p = p};
	if (asprintf(&a->ws, "%s/ws", directory) < 0 ||
	    asprintf(&a->outside, "%s/outside", directory) < 0 ||
	    asprintf(&a->links, "%s/links", directory) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	a->shared = mmap(NULL, sizeof *a->shared, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (a->shared == MAP_FAILED)
		proof_die("mmap", __FILE__, __LINE__);
	fd = make_top(a->outside);
	fill(fd, 'S', SECRET_SIZE, 1);
	put(fd, "f", 'S', SECRET_SIZE);
	put(fd, "secret-name", 'S', SECRET_SIZE);
	close(fd);
	a->ws_fd = make_top(a->ws);
	a->links_fd = make_top(a->links);
	for (size_t i = 0; i < TARGETS - 2; i++)
		make_directory(a->ws_fd, targets[i], 'a', 100);
	make_directory(a->ws_fd, "stays", 'a', 100);
	MUST(mkdirat(a->ws_fd, "stays/s", 0755));
	fd = openat(a->ws_fd, "stays/f", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	MUST(fd);
	close(fd);
	for (size_t i = 0; i < TARGETS; i++)
		make_link(a, i);
}

static void
tear_down(struct arena_of *a)
{
	close(a->ws_fd);
	close(a->links_fd);
	proof_remove(AT_FDCWD, a->ws);
	proof_remove(AT_FDCWD, a->links);
	proof_remove(AT_FDCWD, a->outside);
	munmap(a->shared, sizeof *a->shared);
	free(a->ws);
	free(a->outside);
	free(a->links);
}

/* --------------------------------------------------------------------------------- the attacker */

static bool
exchange(const struct arena_of *a, const char *path, const char *link)
{
	return renameat2(a->ws_fd, path, a->links_fd, link, RENAME_EXCHANGE) == 0;
}

/* A restore has put something else in the place of the link: there must be one again. */
static void
renew_link(const struct arena_of *a, size_t target, unsigned long *number)
{
	char name[16], trash[32];
	struct stat st;

	link_name(name, target);
	if (fstatat(a->links_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (S_ISLNK(st.st_mode))
			return;
		snprintf(trash, sizeof trash, "trash-%lu", ++*number);
		MUST(renameat(a->links_fd, name, a->links_fd, trash));
	}
	make_link(a, target);
}

/* Wherever a restore prepares itself inside the workspace. */
static void
swap_stage(const struct arena_of *a)
{
	DIR *stream = fdopendir(openat(a->ws_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	const struct dirent *entry;

	if (stream == NULL)
		return;
	while ((entry = readdir(stream)) != NULL) {
		if (strncmp(entry->d_name, ".moat", 5) != 0)
			continue;
		if (exchange(a, entry->d_name, "link-0")) {
			exchange(a, entry->d_name, "link-0");
			atomic_fetch_add(&a->shared->stages, 1);
		}
	}
	closedir(stream);
}

static _Noreturn void
attack(struct arena_of *a)
{
	unsigned long number = 0;

	for (unsigned long round = 0; !atomic_load(&a->shared->stop); round++) {
		size_t target = proof_below(a->p, TARGETS);
		char name[16];

		link_name(name, target);
		if (exchange(a, targets[target], name)) {
			for (unsigned n = proof_below(a->p, 3000); n > 0; n--)
				atomic_signal_fence(memory_order_seq_cst);
			if (exchange(a, targets[target], name))
				atomic_fetch_add(&a->shared->swaps, 2);
		}
		if (round % 16 == 0)
			renew_link(a, target, &number);
		if (round % 8 == 0)
			swap_stage(a);
	}
	_exit(0);
}

static void
begin_attack(struct arena_of *a)
{
	atomic_store(&a->shared->stop, false);
	a->attacker = fork();
	MUST(a->attacker);
	if (a->attacker == 0)
		attack(a);
}

static void
end_attack(struct arena_of *a)
{
	int status;

	atomic_store(&a->shared->stop, true);
	MUST(waitpid(a->attacker, &status, 0));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		proof_fail(a->p, "the attacker itself failed");
}

/* -------------------------------------------------------------------------------------- victims */

/* Nothing of the tree outside is in it. */
static void
check_snapshot(struct arena_of *a, const struct snap *snap)
{
	AUTO_MANIFEST struct manifest *manifest = NULL;
	struct moat_error err = MOAT_ERROR_INIT;

	if (snap_manifest(a->p->app.home, snap, &manifest, &err) < 0) {
		proof_fail(a->p, "the manifest: %s", err.message);
		return;
	}
	for (size_t i = 0; i < manifest->count; i++)
		if ((manifest->entries[i]->type == MOAT_FILE &&
		     manifest->entries[i]->size == SECRET_SIZE) ||
		    strstr(manifest->entries[i]->path, "secret-name") != NULL)
			proof_fail(a->p, "`%s' of outside was captured",
				   manifest->entries[i]->path);
}

static void
edit(struct arena_of *a)
{
	const char *name = targets[proof_below(a->p, DIRECTORIES)];
	int fd = enter(a->ws_fd, name);
	char file[16];

	if (fd < 0)
		return;
	snprintf(file, sizeof file, "f%u", proof_below(a->p, FILES + 3));
	if (proof_chance(a->p, 30))
		(void) unlinkat(fd, file, 0);
	else
		put(fd, file, 'e', 1 + proof_below(a->p, 200));
	close(fd);
}

static void
restore(struct arena_of *a, const struct snap *snap)
{
	AUTO_FREE char *beside = proof_path(a->p, "beside");
	struct moat_error err = MOAT_ERROR_INIT;
	bool to = proof_chance(a->p, 20);

	restores++;
	if (!proof_restore(a->p, snap, to ? beside : NULL, proof_chance(a->p, 30), NULL, &err)) {
		refused_restores++;
		conflicts += err.code == MOAT_CONFLICT;
		if (to)
			proof_fail(a->p, "restore --to: %s", err.message);
	}
	proof_remove(AT_FDCWD, beside);
}

static void
fight(struct arena_of *a, struct workspace *workspace, long swaps, long rounds)
{
	struct snap *snaps[8] = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	struct picture before, after;

	picture_take(a->outside, PICTURE_IDENTITY, &before);
	begin_attack(a);
	for (long i = 0; i < rounds || atomic_load(&a->shared->swaps) < (unsigned long) swaps;
	     i++) {
		struct snap *snap = NULL;

		a->p->case_number = a->p->cases++;
		edit(a);
		snapshots++;
		if (proof_snapshot(a->p, workspace, NULL, &snap, &err)) {
			check_snapshot(a, snap);
			snap_free(snaps[i % 8]);
			snaps[i % 8] = snap;
		} else {
			refused_snapshots++;
			proof_fail(a->p, "snapshot: %s", err.message);
		}
		edit(a);
		if (snaps[i % 8] != NULL)
			restore(a, snaps[proof_below(a->p, i < 8 ? (unsigned) i + 1 : 8)]);
	}
	end_attack(a);
	picture_take(a->outside, PICTURE_IDENTITY, &after);
	picture_compare(a->p, "outside", &before, &after, NULL);
	picture_free(&before);
	picture_free(&after);
	for (int i = 0; i < 8; i++)
		snap_free(snaps[i]);
}

/* When it is quiet again everything works. */
static void
aftermath(struct arena_of *a, struct workspace *workspace)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct txn_recovery recovery = {0};
	AUTO_SNAP struct snap *snap = NULL;
	struct picture before, after;

	if (txn_recover(a->p->app.home, &recovery, &err) < 0 || recovery.failed > 0)
		proof_fail(a->p, "recovery: %lu failed: %s", (unsigned long) recovery.failed,
			   err.message);
	picture_take(a->ws, 0, &before);
	if (!proof_snapshot(a->p, workspace, NULL, &snap, &err)) {
		proof_fail(a->p, "snapshot afterwards: %s", err.message);
	} else {
		for (int i = 0; i < 20; i++)
			edit(a);
		if (!proof_restore(a->p, snap, NULL, true, NULL, &err))
			proof_fail(a->p, "restore afterwards: %s", err.message);
		picture_take(a->ws, 0, &after);
		picture_compare(a->p, "afterwards", &before, &after, NULL);
		picture_free(&after);
	}
	picture_free(&before);
}

/* Somebody who trusts a path that was checked. */
static bool
naive(const struct arena_of *a, const char *name)
{
	AUTO_FREE char *path = NULL, *file = NULL;
	struct stat st, through;

	if (asprintf(&path, "%s/%s", a->ws, name) < 0 || asprintf(&file, "%s/f1", path) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return false;
	return stat(file, &through) == 0 && through.st_size == SECRET_SIZE;
}

static void
control(struct arena_of *a)
{
	unsigned long hits = 0, tries = 0;

	begin_attack(a);
	for (; tries < 2000000 && hits < 20; tries++)
		hits += naive(a, targets[tries % DIRECTORIES]);
	end_attack(a);
	fprintf(a->p->report, "attacker: control: %lu of %lu naive looks went outside\n", hits,
		tries);
	a->p->controls++;
	if (hits == 0)
		proof_fail(a->p, "control: the attack never got through to the naive");
}

static bool
has_openat2(void)
{
	return syscall(SYS_openat2, -1, NULL, NULL, 0) < 0 && errno != ENOSYS;
}

int
main(int argc, char **argv)
{
	const char *backend = getenv("MOAT_TEST_BACKEND");
	AUTO_FREE char *elsewhere = NULL;
	struct workspace *workspace = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	struct arena_of a;
	struct proof p;

	proof_open(&p, "attacker", argc > 1 ? argv[1] : NULL,
		   backend == NULL ? "archive" : backend);
	elsewhere = strdup(p.top);
	if (argc > 2) {
		free(elsewhere);
		if (asprintf(&elsewhere, "%s/moat-attacker.XXXXXX", argv[2]) < 0 ||
		    mkdtemp(elsewhere) == NULL)
			proof_die("mkdtemp", __FILE__, __LINE__);
	}
	set_up(&a, &p, elsewhere);
	if (workspace_open(p.app.home, a.ws, &workspace, &err) < 0)
		proof_die(err.message, __FILE__, __LINE__);
	control(&a);
	fight(&a, workspace, proof_scaled(100000, 10), proof_scaled(1000, 10));
	fprintf(p.report,
		"attacker: openat2 %s; %lu swaps, %lu of the stage; %lu snapshots, %lu failed; "
		"%lu restores, %lu refused (%lu as conflicts)\n",
		has_openat2() ? "is there" : "is not there", atomic_load(&a.shared->swaps),
		atomic_load(&a.shared->stages), snapshots, refused_snapshots, restores,
		refused_restores, conflicts);
	aftermath(&a, workspace);
	workspace_close(workspace);
	tear_down(&a);
	if (argc > 2)
		proof_remove(AT_FDCWD, elsewhere);
	return proof_close(&p);
}
