/* SPDX-License-Identifier: Apache-2.0 */
/* Many at once: 32 processes with every command about snapshots on one workspace and its store, and
 * on 32 workspaces of one home.  None fails but for what another one did (the snapshot was deleted
 * meanwhile, a file was edited during a restore), none hangs, nothing is left over, everything
 * verifies.  One that is stopped while it holds the lock makes the others wait, and say so; when it
 * is killed they go on. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "picture.h"
#include "proof.h"

#define WORKERS 32
#define FILES 60
#define PATIENCE 240 /* seconds, for everything: only a deadlock takes so long */

struct outcome {
	int status; /* 128 and more: a signal */
	char *out, *err;
};

static char *program; /* core/moat */
static bool can_prune;

/* ---------------------------------------------------------------------------------- processes */

static char *
read_all(FILE *file)
{
	struct buf text = {0};
	char block[4096];
	size_t n;

	rewind(file);
	buf_string(&text, "");
	while ((n = fread(block, 1, sizeof block, file)) > 0)
		buf_append(&text, block, n);
	fclose(file);
	return buf_steal(&text);
}

static pid_t
start(const char *directory, const char *const *argv, int out, int err)
{
	const char *whole[24] = {program};
	pid_t child = fork();

	MUST(child);
	if (child > 0)
		return child;
	for (int i = 0; argv[i] != NULL; i++)
		whole[i + 1] = argv[i];
	MUST(chdir(directory));
	MUST(dup2(out, STDOUT_FILENO));
	MUST(dup2(err, STDERR_FILENO));
	execv(program, (char *const *) whole);
	proof_die(program, __FILE__, __LINE__);
}

static int
await(pid_t child)
{
	int status;

	MUST(waitpid(child, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static struct outcome
moat(const char *directory, const char *const *argv)
{
	FILE *out = tmpfile(), *err = tmpfile();
	struct outcome outcome;

	if (out == NULL || err == NULL)
		proof_die("tmpfile", __FILE__, __LINE__);
	outcome.status = await(start(directory, argv, fileno(out), fileno(err)));
	outcome.out = read_all(out);
	outcome.err = read_all(err);
	return outcome;
}

static void
outcome_free(struct outcome *outcome)
{
	free(outcome->out);
	free(outcome->err);
}

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---------------------------------------------------------------------------- one of the workers
 */

/* A snapshot that was there a moment ago. */
static bool
pick_snapshot(struct proof *p, const char *ws, char ret[32])
{
	struct outcome outcome = moat(ws, ARGV("snapshot", "list", "--json"));
	const char *at = outcome.out;
	unsigned count = 0;

	if (outcome.status != 0)
		proof_fail(p, "list: status %d: %s", outcome.status, outcome.err);
	while ((at = strstr(at, "\"id\": \"snap_")) != NULL) {
		const char *id = strstr(at, "snap_");

		if (proof_below(p, ++count) == 0)
			snprintf(ret, 32, "%.17s", id);
		at = id;
	}
	outcome_free(&outcome);
	return count > 0;
}

static void
edit(struct proof *p, const char *ws)
{
	AUTO_FREE char *path = NULL;
	char text[64];
	int fd;

	if (asprintf(&path, "%s/f%u", ws, proof_below(p, FILES)) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return;
	snprintf(text, sizeof text, "%llx\n", (unsigned long long) proof_random(p));
	MUST(write(fd, text, strlen(text)));
	close(fd);
}

/* What another one may legitimately be the cause of: the snapshot is really gone now, or a file was
 * edited while it was being restored. */
static bool
is_legitimate(const char *ws, const char *id, const struct outcome *outcome)
{
	struct outcome list;
	char field[64];
	bool gone;

	if (outcome->status == 3)
		return true;
	if (outcome->status != 1 || id == NULL)
		return false;
	snprintf(field, sizeof field, "\"id\": \"%s\"", id);
	list = moat(ws, ARGV("snapshot", "list", "--json"));
	gone = list.status == 0 && strstr(list.out, field) == NULL;
	outcome_free(&list);
	return gone;
}

static void
do_something(struct proof *p, const char *ws, int worker)
{
	AUTO_FREE char *beside = NULL;
	unsigned kind = proof_below(p, 100);
	struct outcome outcome;
	char id[32] = "none";
	bool some = pick_snapshot(p, ws, id);

	if (asprintf(&beside, "%s-beside-%d", ws, worker) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	edit(p, ws);
	if (!some || kind < 35)
		outcome = moat(ws, ARGV("snapshot", "create", "-q"));
	else if (kind < 42)
		outcome = moat(ws, ARGV("snapshot", "show", id));
	else if (kind < 50)
		outcome = moat(ws, ARGV("snapshot", "diff", id));
	else if (kind < 58)
		outcome = moat(ws, ARGV("snapshot", "verify", id));
	else if (kind < 72)
		outcome = moat(ws, ARGV("snapshot", "restore", id));
	else if (kind < 80)
		outcome = moat(ws, ARGV("snapshot", "restore", "--to", beside, id));
	else if (kind < 96 || !can_prune)
		outcome = moat(ws, ARGV("snapshot", "delete", id));
	else
		outcome = moat(ws, ARGV("snapshot", "prune", "--keep", "8"));
	if (outcome.status != 0 && !is_legitimate(ws, some ? id : NULL, &outcome))
		proof_fail(p, "worker %d, kind %u of %s: status %d: %.500s%.300s", worker, kind, id,
			   outcome.status, outcome.err, outcome.out);
	outcome_free(&outcome);
	proof_remove(AT_FDCWD, beside);
}

/* ------------------------------------------------------------------------------- all at once */

static char *
make_workspace(struct proof *p, const char *name)
{
	char *ws = proof_path(p, name);

	MUST(mkdir(ws, 0755));
	for (int i = 0; i < FILES; i++)
		edit(p, ws);
	return ws;
}

/* Forks the workers; each failure of theirs is one here. */
static void
run_workers(struct proof *p, void (*work)(struct proof *p, int worker, long steps), long steps)
{
	pid_t workers[WORKERS];

	for (int i = 0; i < WORKERS; i++) {
		workers[i] = fork();
		MUST(workers[i]);
		if (workers[i] == 0) {
			proof_case(p, (unsigned long) i + 1000);
			p->failures = 0;
			work(p, i, steps);
			_exit(p->failures > 0);
		}
	}
	for (int i = 0; i < WORKERS; i++)
		if (await(workers[i]) != 0)
			p->failures++;
}

static char *shared_workspace;

static void
work_together(struct proof *p, int worker, long steps)
{
	for (long i = 0; i < steps; i++)
		do_something(p, shared_workspace, worker);
}

static bool
expect_done(struct proof *p, const char *what, struct outcome outcome)
{
	bool done = outcome.status == 0;

	if (!done)
		proof_fail(p, "%s: status %d: %.600s%.300s", what, outcome.status, outcome.err,
			   outcome.out);
	outcome_free(&outcome);
	return done;
}

/* Names below a directory, to any depth, that contain the text. */
static unsigned
count_names(const char *directory, const char *text, FILE *told)
{
	DIR *stream = opendir(directory);
	const struct dirent *entry;
	unsigned count = 0;

	while (stream != NULL && (entry = readdir(stream)) != NULL) {
		AUTO_FREE char *child = NULL;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (strstr(entry->d_name, text) != NULL && count++ < 5)
			fprintf(told, "  %s/%s\n", directory, entry->d_name);
		if (asprintf(&child, "%s/%s", directory, entry->d_name) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		if (entry->d_type == DT_DIR)
			count += count_names(child, text, told);
	}
	if (stream != NULL)
		closedir(stream);
	return count;
}

static void
check_litter(struct proof *p, const char *ws, bool emptied)
{
	static const char *const litter[] = {".new-", ".gone-", ".tmp"};
	AUTO_FREE char *home = proof_path(p, "moat"), *journals = proof_path(p, "moat/txn");

	for (size_t i = 0; i < sizeof litter / sizeof *litter; i++)
		if (count_names(home, litter[i], p->report) > 0)
			proof_fail(p, "`%s...' is left over in the home", litter[i]);
	if (count_names(journals, "txn_", p->report) > 0)
		proof_fail(p, "a transaction is left over");
	if (count_names(ws, ".moat", p->report) > 0)
		proof_fail(p, "something of moat's is left over in the workspace");
	if (emptied && count_names(home, "snap_", p->report) > 0)
		proof_fail(p, "the store still has something of deleted snapshots");
}

static void
delete_all(struct proof *p, const char *ws)
{
	char id[32];

	while (p->failures == 0 && pick_snapshot(p, ws, id))
		expect_done(p, "delete at the end", moat(ws, ARGV("snapshot", "delete", id)));
}

static void
one_workspace(struct proof *p, long steps)
{
	shared_workspace = make_workspace(p, "ws");
	run_workers(p, work_together, steps);
	expect_done(p, "recover", moat(shared_workspace, ARGV("recover")));
	expect_done(p, "verify at the end", moat(shared_workspace, ARGV("snapshot", "verify")));
	check_litter(p, shared_workspace, false);
	delete_all(p, shared_workspace);
	check_litter(p, shared_workspace, true);
	p->cases += (unsigned long) steps * WORKERS;
	free(shared_workspace);
}

/* ----------------------------------------------------------------------- a workspace for each */

static void
work_apart(struct proof *p, int worker, long steps)
{
	AUTO_FREE char *ws = NULL;
	char name[32], id[32];
	struct picture before, after;

	snprintf(name, sizeof name, "apart-%d", worker);
	ws = make_workspace(p, name);
	for (long i = 0; i < steps; i++) {
		struct outcome outcome = moat(ws, ARGV("snapshot", "create"));

		snprintf(id, sizeof id, "%.17s", outcome.out);
		if (!expect_done(p, "create apart", outcome))
			return;
		picture_take(ws, 0, &before);
		edit(p, ws);
		edit(p, ws);
		expect_done(p, "restore apart", moat(ws, ARGV("snapshot", "restore", id)));
		picture_take(ws, 0, &after);
		picture_compare(p, "apart", &before, &after, NULL);
		picture_free(&before);
		picture_free(&after);
		edit(p, ws);
	}
	expect_done(p, "verify apart", moat(ws, ARGV("snapshot", "verify")));
}

static void
many_workspaces(struct proof *p, long steps)
{
	run_workers(p, work_apart, steps);
	p->cases += (unsigned long) steps * WORKERS;
}

/* --------------------------------------------------------------------------------- the lock */

/* The workspace's lock; its name is in docs/architecture.md. */
static int
open_lock(struct proof *p)
{
	AUTO_FREE char *all = proof_path(p, "moat/workspaces");
	DIR *stream = opendir(all);
	const struct dirent *entry;
	int fd = -1;

	if (stream == NULL)
		proof_die("opendir", __FILE__, __LINE__);
	while (fd < 0 && (entry = readdir(stream)) != NULL) {
		AUTO_FREE char *path = NULL;

		if (asprintf(&path, "%s/%s/lock", all, entry->d_name) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	closedir(stream);
	MUST(fd);
	return fd;
}

static bool
is_locked(int fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	MUST(fcntl(fd, F_OFD_GETLK, &lock));
	return lock.l_type != F_UNLCK;
}

/* Starts a snapshot and stops it while it holds the lock. */
static pid_t
stopped_holder(const char *ws, int lock, int null)
{
	for (;;) {
		pid_t child = start(ws, ARGV("snapshot", "create", "-q"), null, null);
		int status;

		while (!is_locked(lock) && waitpid(child, &status, WNOHANG) == 0)
			;
		if (kill(child, SIGSTOP) == 0 && waitpid(child, &status, WUNTRACED) == child &&
		    WIFSTOPPED(status)) {
			if (is_locked(lock))
				return child;
			kill(child, SIGKILL);
			await(child);
		}
	}
}

/* Reads what the waiting one says until it says that it waits; false: it ended without. */
static bool
says_that_it_waits(int fd)
{
	char text[4096] = "";
	size_t used = 0;
	ssize_t n;

	while (strstr(text, "waiting for another moat") == NULL) {
		n = read(fd, text + used, sizeof text - 1 - used);
		if (n <= 0)
			return false;
		used += (size_t) n;
		text[used] = '\0';
	}
	return true;
}

static void
stop_and(struct proof *p, const char *ws, int signal)
{
	int lock = open_lock(p), null = open("/dev/null", O_RDWR | O_CLOEXEC), said[2], status;
	pid_t holder = stopped_holder(ws, lock, null), waiting;

	p->cases++;
	MUST(pipe2(said, O_CLOEXEC));
	waiting = start(ws, ARGV("snapshot", "create"), null, said[1]);
	close(said[1]);
	if (!says_that_it_waits(said[0]))
		proof_fail(p, "nothing was said of waiting");
	if (waitpid(waiting, &status, WNOHANG) != 0)
		proof_fail(p, "it did not wait");
	MUST(kill(holder, signal));
	status = await(holder);
	if (status != (signal == SIGKILL ? 128 + SIGKILL : 0))
		proof_fail(p, "the one that was stopped: status %d", status);
	status = await(waiting);
	if (status != 0)
		proof_fail(p, "the one that waited: status %d", status);
	close(said[0]);
	close(lock);
	close(null);
	expect_done(p, "verify after that", moat(ws, ARGV("snapshot", "verify")));
	check_litter(p, ws, false);
}

/* Alone nobody waits, or says so. */
static void
control(struct proof *p, const char *ws)
{
	struct outcome outcome = moat(ws, ARGV("snapshot", "create"));

	p->controls++;
	if (outcome.status != 0 || strstr(outcome.err, "waiting") != NULL)
		proof_fail(p, "control: alone: status %d: %s", outcome.status, outcome.err);
	outcome_free(&outcome);
	outcome = moat(ws, ARGV("snapshot", "restore", "snap_ffffffffffff"));
	p->controls++;
	if (outcome.status == 0)
		proof_fail(p, "control: a failure would not be seen");
	outcome_free(&outcome);
}

static void
the_lock(struct proof *p, long times)
{
	AUTO_FREE char *ws = NULL;

	proof_forget(p);
	ws = make_workspace(p, "locked");
	for (unsigned i = 0; i < 2000; i++) { /* so that it takes a moment */
		AUTO_FREE char *path = NULL;
		int fd;

		if (asprintf(&path, "%s/more-%u", ws, i) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		MUST(fd);
		MUST(write(fd, &i, sizeof i));
		close(fd);
	}
	control(p, ws);
	for (long i = 0; i < times; i++) {
		edit(p, ws);
		stop_and(p, ws, i % 3 == 2 ? SIGCONT : SIGKILL);
	}
}

int
main(void)
{
	struct outcome outcome;
	struct proof p;
	AUTO_FREE char *home = NULL;

	proof_open(&p, "together", NULL, "archive");
	home = proof_path(&p, "moat");
	setenv("MOAT_HOME", home, 1);
	setenv("MOAT_PLUGIN_PATH", p.plugin_dirs[0], 1);
	program = strdup(MOAT_BUILT_PROGRAM);
	outcome = moat(p.top, ARGV("snapshot", "prune", "--help"));
	can_prune = outcome.status == 0 && strstr(outcome.out, "--keep") != NULL;
	outcome_free(&outcome);
	fprintf(p.report, "together: prune is %s\n", can_prune ? "there" : "not there");
	alarm(PATIENCE);
	one_workspace(&p, proof_scaled(60, 10));
	many_workspaces(&p, proof_scaled(20, 10));
	the_lock(&p, proof_scaled(40, 15));
	alarm(0);
	free(program);
	return proof_close(&p);
}
