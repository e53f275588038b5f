/* SPDX-License-Identifier: Apache-2.0 */
/* Fidelity: random trees through capture and restore, in place and beside, from one snapshot to
 * another, compared by a walker of its own.  Not promised, and so not compared: change and access
 * times, inode numbers, the size of a directory; setuid and setgid of files that had to be made
 * again, which must be said then.
 *
 * MOAT_TEST_BACKEND (archive); MOAT_TEST_REFLINK_DIR: a directory that can clone, for reflink.
 * As root, half of the trees are an ordinary user's. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "picture.h"
#include "proof.h"
#include "trees.h"

#define NOBODY 65534
#define STATES 3 /* snapshots of one tree, at most */

struct story {
	struct proof *p;
	struct trees trees;
	struct workspace *workspace;
	char *path;
	struct snap *snaps[STATES];
	struct picture pictures[STATES];
	int count;
};

/* ------------------------------------------------------------------------------- what must be */

/* In place: what the snapshot holds, and what it left out as it stands now (`now`: through its
 * eyes), linked with nothing that comes back. */
static void
expect_in_place(const struct picture *captured, const struct picture *now, struct picture *ret)
{
	*ret = (struct picture){0};
	for (size_t i = 0; i < captured->count; i++)
		if (!captured->items[i].uncaptured)
			picture_add(ret, &captured->items[i]);
	for (size_t i = 0; now != NULL && i < now->count; i++)
		if (picture_left_out(captured, now->items[i].path))
			picture_add(ret, &now->items[i]);
	picture_sort(ret);
	picture_link(ret);
}

/* Blocks of files with large holes: a restore must not fill them. */
static void
check_holes(struct story *s, const struct picture *expected, const struct picture *actual)
{
	for (size_t i = 0; i < expected->count; i++) {
		const struct sight *e = &expected->items[i], *a;

		if (!S_ISREG(e->mode) || e->size < 3000000 || e->blocks * 512 > e->size / 2)
			continue;
		a = picture_find(actual, e->path);
		if (a != NULL && a->blocks > e->blocks + 512)
			proof_fail(s->p, "holes were filled: %llu blocks, not %llu",
				   (unsigned long long) a->blocks, (unsigned long long) e->blocks);
	}
}

/* What stands there, through the eyes of a snapshot. */
static void
take_seen(const struct picture *captured, const char *path, struct picture *ret)
{
	struct picture found;

	picture_take(path, 0, &found);
	picture_see(captured, &found, ret);
	picture_free(&found);
}

/* What has become of it; stripped bits must have been told. */
static void
check_state(struct story *s, const char *what, const char *path, const struct picture *captured,
	    const struct picture *expected)
{
	AUTO_FREE char *said = proof_said(s->p);
	struct picture actual;
	unsigned long stripped = 0;

	take_seen(captured, path, &actual);
	if (picture_compare(s->p, what, expected, &actual, &stripped) > 0 && said[0] != '\0')
		fprintf(s->p->report, "  it had said: %.1000s\n", said);
	check_holes(s, expected, &actual);
	if (stripped > 0 && strstr(said, "setuid") == NULL)
		proof_fail(s->p,
			   "%s: %lu files lost their setuid or setgid bit in silence:\n%.600s",
			   what, stripped, said);
	picture_free(&actual);
}

/* ------------------------------------------------------------------------------------- the acts */

static int
open_root(struct story *s)
{
	int fd = open(s->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	MUST(fd);
	return fd;
}

/* Everything that was left out must be in the list of the skipped; how many there are is checked
 * by the count of the objects themselves (what is below a closed directory is not known). */
static void
check_skipped(struct story *s)
{
	const struct snap *snap = s->snaps[s->count];
	const struct picture *picture = &s->pictures[s->count];
	AUTO_MANIFEST struct manifest *manifest = NULL;
	struct moat_error err = MOAT_ERROR_INIT;

	if (snap_manifest(s->p->app.home, snap, &manifest, &err) < 0) {
		proof_fail(s->p, "the manifest: %s", err.message);
		return;
	}
	for (size_t i = 0; i < picture->count; i++) {
		const struct sight *sight = &picture->items[i];
		char *parent = strdup(sight->path);
		bool listed = false;

		if (!sight->uncaptured) {
			free(parent);
			continue;
		}
		for (;;) {
			char *slash = strrchr(parent, '/');

			listed = listed || manifest_find_skip(manifest, parent) != NULL;
			if (slash == NULL)
				break;
			*slash = '\0';
		}
		if (!listed)
			proof_fail(s->p, "something was left out and is not listed");
		free(parent);
	}
}

static bool
capture(struct story *s)
{
	struct moat_error err = MOAT_ERROR_INIT;

	picture_take(s->path, 0, &s->pictures[s->count]);
	if (!proof_snapshot(s->p, s->workspace, NULL, &s->snaps[s->count], &err)) {
		proof_fail(s->p, "snapshot: %s", err.message);
		picture_free(&s->pictures[s->count]);
		return false;
	}
	check_skipped(s);
	s->count++;
	return true;
}

static void
restore_beside(struct story *s, int index)
{
	AUTO_FREE char *to = proof_path(s->p, "beside");
	struct moat_error err = MOAT_ERROR_INIT;
	struct picture expected;

	if (!proof_restore(s->p, s->snaps[index], to, false, NULL, &err)) {
		proof_fail(s->p, "restore --to: %s", err.message);
	} else {
		expect_in_place(&s->pictures[index], NULL, &expected);
		check_state(s, "restored beside", to, &expected, &expected);
		picture_free(&expected);
	}
	proof_remove(AT_FDCWD, to);
}

/* The safety snapshot brings back what stood there before. */
static void
undo(struct story *s, const char *safety, const struct picture *captured,
     const struct picture *before)
{
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_SNAP struct snap *snap = NULL;

	if (safety[0] == '\0')
		return;
	if (snap_find(s->p->app.home, safety, &snap, &err) < 0 ||
	    !proof_restore(s->p, snap, NULL, false, NULL, &err)) {
		proof_fail(s->p, "restore the safety snapshot: %s", err.message);
		return;
	}
	check_state(s, "undone by the safety snapshot", s->path, captured, before);
}

static void
restore_in_place(struct story *s, int index)
{
	struct moat_error err = MOAT_ERROR_INIT;
	const struct picture *captured = &s->pictures[index];
	struct picture before, expected;
	bool safety = proof_chance(s->p, 30);
	char id[32];

	take_seen(captured, s->path, &before);
	if (!proof_restore(s->p, s->snaps[index], NULL, safety, id, &err)) {
		proof_fail(s->p, "restore: %s", err.message);
	} else {
		expect_in_place(captured, &before, &expected);
		check_state(s, "restored in place", s->path, captured, &expected);
		picture_free(&expected);
		if (safety)
			undo(s, id, captured, &before);
	}
	picture_free(&before);
}

/* What becomes of the tree before a restore. */
static void
disturb(struct story *s)
{
	int fd = open_root(s);
	unsigned kind = proof_below(s->p, 10);

	s->trees.close = true;
	if (kind < 6)
		trees_change(&s->trees, fd);
	else if (kind < 8)
		trees_wipe(fd);
	s->trees.close = false;
	close(fd);
}

/* ------------------------------------------------------------------------------------ controls */

/* One small thing is changed after a restore: the comparison must see it. */
static void
alter(struct story *s, const char *file, const struct stat *st)
{
	struct timespec times[2] = {st->st_atim, st->st_mtim};
	int fd = open(file, O_RDWR | O_CLOEXEC);
	char byte;

	MUST(fd);
	switch (proof_below(s->p, 5)) {
	case 0:
		MUST(fchmod(fd, (st->st_mode & 07777) ^ 1));
		break;
	case 1:
		times[1].tv_nsec ^= 1;
		break;
	case 2:
		MUST(pread(fd, &byte, 1, st->st_size - 1));
		byte ^= 1;
		MUST(pwrite(fd, &byte, 1, st->st_size - 1));
		break;
	case 3:
		MUST(fsetxattr(fd, "user.control", "", 0, 0));
		break;
	default:
		MUST(unlink(file));
		MUST(symlink("control", file));
		close(fd);
		return;
	}
	MUST(futimens(fd, times));
	close(fd);
}

static void
control(struct story *s)
{
	AUTO_FREE char *file = NULL;
	struct picture before, after;
	struct stat st;
	int fd = open_root(s);

	trees_wipe(fd);
	close(fd);
	if (asprintf(&file, "%s/control", s->path) < 0 || (fd = creat(file, 0644)) < 0)
		proof_die("creat", __FILE__, __LINE__);
	MUST(fchmod(fd, 0644)); /* a default ACL may have closed it */
	MUST(write(fd, "control", 7));
	MUST(fstat(fd, &st));
	close(fd);
	picture_take(s->path, 0, &before);
	alter(s, file, &st);
	picture_take(s->path, 0, &after);
	s->p->controls++;
	if (picture_compare(s->p, NULL, &before, &after, NULL) == 0)
		proof_fail(s->p, "control: a change was not seen");
	picture_free(&before);
	picture_free(&after);
}

/* -------------------------------------------------------------------------------------- stories */

static void
end(struct story *s)
{
	for (int i = 0; i < s->count; i++) {
		snap_free(s->snaps[i]);
		picture_free(&s->pictures[i]);
	}
	trees_end(&s->trees);
	workspace_close(s->workspace);
	proof_remove(AT_FDCWD, s->path);
	free(s->path);
	proof_forget(s->p);
}

static void
tell_story(struct proof *p, unsigned long number)
{
	struct story s = {.p = p, .path = proof_path(p, "ws")};
	int wanted, fd;

	proof_case(p, number);
	s.trees = (struct trees){.p = p, .root = geteuid() == 0, .specials = true};
	MUST(mkdir(s.path, 0755));
	s.workspace = proof_workspace(p, "ws");
	fd = open_root(&s);
	trees_fill(&s.trees, fd, 2 + (int) proof_below(p, 40));
	wanted = 1 + (int) proof_below(p, STATES);
	while (capture(&s) && s.count < wanted)
		trees_change(&s.trees, fd);
	close(fd);
	for (int i = 0; i < s.count + 1 && s.count > 0; i++) {
		int index = (int) proof_below(p, (unsigned) s.count);

		if (proof_chance(p, 40)) {
			restore_beside(&s, index);
			continue;
		}
		disturb(&s);
		restore_in_place(&s, index);
	}
	if (number % 20 == 0)
		control(&s);
	end(&s);
	p->cases++;
}

static int
tell_all(const char *name, const char *directory, const char *backend, long cases)
{
	const char *only = getenv("MOAT_TEST_CASE");
	struct proof p;

	proof_open(&p, name, directory, backend);
	if (only != NULL)
		tell_story(&p, strtoul(only, NULL, 10));
	for (long i = 0; i < cases && only == NULL; i++)
		tell_story(&p, (unsigned long) i);
	return proof_close(&p);
}

/* In a process of its own that is nobody's. */
static int
as_user(const char *directory, const char *backend, long cases)
{
	int status;
	pid_t child = fork();

	MUST(child);
	if (child == 0) {
		MUST(setgroups(0, NULL));
		MUST(setresgid(NOBODY, NOBODY, NOBODY));
		MUST(setresuid(NOBODY, NOBODY, NOBODY));
		exit(tell_all("fidelity as an ordinary user", directory, backend, cases));
	}
	MUST(waitpid(child, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int
main(void)
{
	const char *backend = getenv("MOAT_TEST_BACKEND"), *directory = NULL;
	long cases = proof_scaled(2000, 10);
	int status;

	if (backend == NULL)
		backend = "archive";
	if (strcmp(backend, "reflink") == 0) {
		directory = getenv("MOAT_TEST_REFLINK_DIR");
		if (directory == NULL) {
			printf("SKIP: MOAT_TEST_REFLINK_DIR names no directory that can clone\n");
			return 77;
		}
	}
	if (geteuid() != 0)
		return tell_all("fidelity", directory, backend, cases);
	status = tell_all("fidelity", directory, backend, (cases + 1) / 2);
	if (status == 0 || getenv("MOAT_TEST_CASE") == NULL)
		status |= as_user(directory, backend, (cases + 1) / 2);
	return status;
}
