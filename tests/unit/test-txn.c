/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions on real trees: whatever the two states are, the result is the desired one in
 * everything that lstat(2) tells, the uncaptured stays, and what somebody edits meanwhile is not
 * overwritten. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/log.h"
#include "core/tree.h"
#include "core/txn.h"
#include "core/txn_internal.h"

struct fixture {
	char path[64];
	struct home *home;
	struct workspace *workspace; /* path/ws */
	struct moat_error err;
	unsigned seed;
	/* What happens between the plan and its application. */
	void (*meanwhile)(struct fixture *f);
	bool refuse; /* the backend fails */
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	char buffer[128];
	const char *seed = getenv("MOAT_TEST_SEED");

	f->err = (struct moat_error) MOAT_ERROR_INIT;
	f->seed = seed == NULL ? (unsigned) time(NULL) : (unsigned) strtoul(seed, NULL, 10);
	snprintf(f->path, sizeof f->path, "%s", "/tmp/moat-test-txn-XXXXXX");
	if (mkdtemp(f->path) == NULL)
		return -1;
	snprintf(buffer, sizeof buffer, "%s/home", f->path);
	setenv("HOME", f->path, 1);
	if (home_open(buffer, &f->home, &f->err) < 0)
		return -1;
	snprintf(buffer, sizeof buffer, "%s/ws", f->path);
	if (mkdir(buffer, 0755) < 0 || workspace_open(f->home, buffer, &f->workspace, &f->err) < 0)
		return -1;
	snprintf(buffer, sizeof buffer, "%s/copy", f->path);
	if (mkdir(buffer, 0755) < 0)
		return -1;
	log_set_level(-1);
	*state = f;
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	int result;

	workspace_close(f->workspace);
	home_close(f->home);
	result = fs_remove_tree(AT_FDCWD, f->path, &f->err);
	free(f);
	return result;
}

/* ---------------------------------------------------------------------------------- trees */

static unsigned
rnd(struct fixture *f, unsigned n)
{
	f->seed = f->seed * 1103515245u + 12345u;
	return (f->seed >> 16) % n;
}

static void
at(const struct fixture *f, const char *top, const char *path, char out[512])
{
	snprintf(out, 512, "%s/%s/%s", f->path, top, path);
}

static void
put_file(const struct fixture *f, const char *path, const char *text, mode_t mode, time_t mtime)
{
	struct timespec times[2] = {{.tv_sec = mtime, .tv_nsec = 5},
				    {.tv_sec = mtime, .tv_nsec = 123456789}};
	char name[512];
	int fd;

	at(f, "ws", path, name);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t) strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(futimens(fd, times), 0);
	close(fd);
}

static void
put_directory(const struct fixture *f, const char *path, mode_t mode)
{
	char name[512];

	at(f, "ws", path, name);
	assert_int_equal(mkdir(name, 0700), 0);
	assert_int_equal(chmod(name, mode), 0);
}

static void
stamp(const struct fixture *f, const char *path, time_t mtime)
{
	struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime}};
	char name[512];

	at(f, "ws", path, name);
	assert_int_equal(utimensat(AT_FDCWD, name, times, AT_SYMLINK_NOFOLLOW), 0);
}

static void
put_link(const struct fixture *f, const char *path, const char *text)
{
	char name[512];

	at(f, "ws", path, name);
	assert_int_equal(symlink(text, name), 0);
}

static void
clear(struct fixture *f)
{
	char name[128];
	struct dirent *entry;
	DIR *stream;

	snprintf(name, sizeof name, "%s/ws", f->path);
	assert_int_equal(chmod(name, 0755), 0);
	stream = opendir(name);
	assert_non_null(stream);
	while ((entry = readdir(stream)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			assert_ok(fs_remove_tree(f->workspace->fd, entry->d_name, &f->err),
				  &f->err);
	closedir(stream);
}

/* An object of some kind at a path; 0: none. */
static void
put_kind(struct fixture *f, const char *path, unsigned kind, unsigned variant)
{
	char inner[256];

	switch (kind) {
	case 1:
		put_file(f, path, variant == 0 ? "one" : "two", variant == 0 ? 0644 : 0700,
			 1000000 + (time_t) variant);
		break;
	case 2:
		put_directory(f, path, variant == 0 ? 0755 : 0711);
		snprintf(inner, sizeof inner, "%s/in", path);
		put_file(f, inner, "inner", 0600, 1500000 + (time_t) variant);
		break;
	case 3:
		put_link(f, path, variant == 0 ? "nowhere" : "/usr/bin/env");
		break;
	case 4:
		put_directory(f, path, 0755);
		break;
	}
}

/* A random tree of some names on two levels, with hard links now and then. */
static void
random_tree(struct fixture *f)
{
	static const char *const names[] = {"a", "b", "c c", "d\xff", "e\n", "..f", "-g", "h"};
	char path[64], other[512], name[512];

	for (unsigned i = 0; i < 8; i++) {
		unsigned kind = rnd(f, 5);

		put_kind(f, names[i], kind, rnd(f, 2));
		if (kind != 2 && kind != 4)
			continue;
		for (unsigned j = 0; j < 4; j++) {
			snprintf(path, sizeof path, "%s/%s", names[i], names[j]);
			put_kind(f, path, rnd(f, 5), rnd(f, 2));
		}
		if (rnd(f, 3) == 0) {
			at(f, "ws", "a", other);
			snprintf(path, sizeof path, "%s/linked", names[i]);
			at(f, "ws", path, name);
			(void) !link(other, name); /* `a' may be absent, or a directory */
		}
		if (rnd(f, 3) == 0) {
			at(f, "ws", names[i], name);
			assert_int_equal(chmod(name, 0555), 0);
		}
	}
}

/* --------------------------------------------------------------------------------- pictures */

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Everything that lstat and read tell, one line an object, in order. */
static void
draw(const char *top, const char *path, struct buf *out)
{
	char name[1024], text[4096];
	char *names[1024];
	size_t count = 0;
	struct dirent *entry;
	struct stat st;
	DIR *stream;

	snprintf(name, sizeof name, "%s%s%s", top, path[0] == '\0' ? "" : "/", path);
	assert_int_equal(lstat(name, &st), 0);
	buf_format(out, "%s %o %u:%u n%u %ld.%09ld", path, st.st_mode, st.st_uid, st.st_gid,
		   S_ISDIR(st.st_mode) ? 0 : (unsigned) st.st_nlink, (long) st.st_mtim.tv_sec,
		   st.st_mtim.tv_nsec);
	memset(text, 0, sizeof text);
	if (S_ISLNK(st.st_mode)) {
		assert_true(readlink(name, text, sizeof text - 1) >= 0);
	} else if (S_ISREG(st.st_mode)) {
		int fd = open(name, O_RDONLY | O_CLOEXEC);

		if (fd >= 0) {
			assert_true(read(fd, text, sizeof text - 1) >= 0);
			close(fd);
		}
	}
	buf_format(out, " [%s]\n", text);
	if (!S_ISDIR(st.st_mode))
		return;
	stream = opendir(name);
	if (stream == NULL)
		return;
	while ((entry = readdir(stream)) != NULL && count < 1024)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			names[count++] = strdup(entry->d_name);
	closedir(stream);
	qsort(names, count, sizeof names[0], by_text);
	for (size_t i = 0; i < count; i++) {
		snprintf(name, sizeof name, "%s%s%s", path, path[0] == '\0' ? "" : "/", names[i]);
		draw(top, name, out);
		free(names[i]);
	}
}

static char *
picture(const struct fixture *f)
{
	struct buf out = {0};
	char top[128];

	snprintf(top, sizeof top, "%s/ws", f->path);
	draw(top, "", &out);
	return buf_steal(&out);
}

/* ------------------------------------------------------------------------------- a snapshot */

/* All of a small file into another; closes both.  Returns its size. */
static uint64_t
copy_content(int in, int out)
{
	char buffer[256];
	ssize_t n;

	assert_true(in >= 0 && out >= 0);
	n = read(in, buffer, sizeof buffer);
	assert_true(n >= 0 && write(out, buffer, (size_t) n) == n);
	close(in);
	close(out);
	return (uint64_t) n;
}

/* The manifest of the workspace as it is, its content kept in path/copy, which stands in for a
 * backend. */
static struct manifest *
capture(struct fixture *f)
{
	struct filter *filter = NULL;
	struct manifest *manifest = NULL;
	int copy_fd;

	assert_ok(filter_open(f->workspace->fd, f->workspace->path, &(struct filter_options){0},
			      &filter, &f->err),
		  &f->err);
	assert_ok(tree_scan(f->workspace->fd, filter, NULL, &manifest, &f->err), &f->err);
	filter_free(filter);
	copy_fd = fs_open_directory(AT_FDCWD, f->path, false, &f->err);
	for (size_t i = 0; i < manifest->count; i++) {
		struct moat_entry *entry = (struct moat_entry *) manifest->entries[i];
		char name[32];
		int in, out;

		if (entry->type != MOAT_FILE || entry->leader != MOAT_NO_LEADER)
			continue;
		assert_ok(tree_read(f->workspace->fd, entry, &manifest->arena, &f->err), &f->err);
		entry->locator[0] = i + 1;
		entry->flags |= MOAT_HAS_LOCATOR;
		in = tree_open(f->workspace->fd, entry, &f->err);
		snprintf(name, sizeof name, "copy/%zu", i + 1);
		out = openat(copy_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		(void) copy_content(in, out);
	}
	close(copy_fd);
	return manifest;
}

static int
materialise(void *context, struct moat_extract *extract, struct moat_error *err)
{
	struct fixture *f = context;

	if (f->refuse)
		return moat_fail(err, MOAT_CORRUPT, "as asked");
	for (size_t i = 0; i < extract->entries->count; i++) {
		const struct moat_entry *entry = extract->entries->items[i];
		char copy[128];
		const char *name;
		int dirfd, in, out;
		uint64_t size;

		if (extract->place(extract, i, &dirfd, &name, err) < 0)
			return -1;
		snprintf(copy, sizeof copy, "%s/copy/%llu", f->path,
			 (unsigned long long) entry->locator[0]);
		in = open(copy, O_RDONLY | O_CLOEXEC);
		out = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		size = copy_content(in, out);
		if (extract->done(extract, i, -1, size, NULL, err) < 0)
			return -1;
	}
	if (f->meanwhile != NULL)
		f->meanwhile(f);
	return 0;
}

/* The live tree through the snapshot's filter, with what a comparison needs. */
static struct manifest *
look(struct fixture *f, const struct manifest *desired)
{
	struct filter *filter = NULL;
	struct manifest *live = NULL;

	assert_ok(filter_open_stored(desired, &filter, &f->err), &f->err);
	assert_ok(tree_scan(f->workspace->fd, filter, NULL, &live, &f->err), &f->err);
	filter_free(filter);
	for (size_t i = 0; i < live->count; i++) {
		struct moat_entry *entry = (struct moat_entry *) live->entries[i];

		if (entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER)
			assert_ok(tree_read(f->workspace->fd, entry, &live->arena, &f->err),
				  &f->err);
	}
	return live;
}

static int
restore(struct fixture *f, const struct manifest *desired, struct txn_counts *counts)
{
	struct txn_source source = {materialise, f, -1};
	struct manifest *live = look(f, desired);
	struct txn *txn = NULL;
	int result = txn_plan(f->home, f->workspace, live, desired, NULL, &source, &txn, &f->err);

	if (result == 0)
		result = txn_commit(txn, &f->err);
	if (result == 0 && counts != NULL)
		*counts = *txn_counts(txn);
	txn_free(txn);
	manifest_free(live);
	return result;
}

static void
assert_no_litter(struct fixture *f)
{
	char name[128];
	struct dirent *entry;
	DIR *stream;

	snprintf(name, sizeof name, "%s/home/txn", f->path);
	stream = opendir(name);
	assert_non_null(stream);
	while ((entry = readdir(stream)) != NULL)
		assert_true(entry->d_name[0] == '.');
	closedir(stream);
}

/* Shows the first line that differs. */
static void
assert_pictures(const char *now, const char *expected)
{
	size_t start = 0, i = 0;

	if (strcmp(now, expected) == 0)
		return;
	for (; now[i] == expected[i]; i++)
		if (now[i] == '\n')
			start = i + 1;
	fail_msg("found `%.*s', expected `%.*s'", (int) strcspn(now + start, "\n"), now + start,
		 (int) strcspn(expected + start, "\n"), expected + start);
}

static void
assert_picture(struct fixture *f, const char *expected)
{
	char *now = picture(f);

	assert_pictures(now, expected);
	free(now);
}

/* ------------------------------------------------------------------------------------ tests */

/* Each kind of object becomes each other kind. */
static void
test_matrix(void **state)
{
	struct fixture *f = *state;

	for (unsigned from = 0; from < 5; from++)
		for (unsigned to = 0; to < 5; to++)
			for (unsigned variant = 0; variant < 2; variant++) {
				struct manifest *desired;
				char *before;

				clear(f);
				put_kind(f, "x", to, 0);
				desired = capture(f);
				before = picture(f);
				clear(f);
				put_kind(f, "x", from, variant);
				assert_ok(restore(f, desired, NULL), &f->err);
				assert_picture(f, before);
				assert_no_litter(f);
				/* Once more: nothing to do. */
				struct txn_counts counts = {0};

				assert_ok(restore(f, desired, &counts), &f->err);
				assert_int_equal(counts.added + counts.modified + counts.deleted +
							 counts.meta,
						 0);
				manifest_free(desired);
				free(before);
			}
}

/* A backend that fails leaves everything as it is, and no litter. */
static void
test_backend_fails(void **state)
{
	struct fixture *f = *state;
	struct manifest *desired;
	char *before;

	put_file(f, "a", "one", 0644, 1);
	put_directory(f, "d", 0755);
	put_file(f, "d/x", "x", 0644, 1);
	desired = capture(f);
	clear(f);
	put_file(f, "a", "changed", 0600, 2);
	before = picture(f);
	f->refuse = true;
	assert_fails(restore(f, desired, NULL), &f->err, MOAT_CORRUPT, "as asked");
	assert_picture(f, before);
	assert_no_litter(f);
	manifest_free(desired);
	free(before);
}

static void
edit_replaced(struct fixture *f)
{
	put_file(f, "m", "an edit of the user's", 0644, 99);
}

static void
edit_deleted(struct fixture *f)
{
	put_file(f, "z", "an edit of the user's", 0644, 99);
}

static void
occupy_created(struct fixture *f)
{
	put_file(f, "k", "an edit of the user's", 0644, 99);
}

static void
make_edited(struct fixture *f)
{
	clear(f);
	put_file(f, "a", "two", 0600, 2);
	put_file(f, "m", "MODIFIED", 0644, 3);
	put_file(f, "z", "new", 0644, 4);
	put_directory(f, "y", 0755);
	stamp(f, "y", 44);
}

/* Whatever somebody does between the plan and its application: it stays, and the rest is as before.
 */
static void
test_edits_meanwhile(void **state)
{
	static const struct {
		void (*edit)(struct fixture *f);
		const char *path;
	} edits[] = {{edit_replaced, "m"}, {edit_deleted, "z"}, {occupy_created, "k"}};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof edits / sizeof edits[0]; i++) {
		struct manifest *desired;
		char *expected;

		clear(f);
		f->meanwhile = NULL;
		put_file(f, "a", "one", 0644, 1);
		put_file(f, "k", "to be made again", 0644, 1);
		put_file(f, "m", "modified later", 0644, 1);
		desired = capture(f);
		make_edited(f);
		/* What must be there in the end: this, with the edit.  The root's time is the
		 * edit's business. */
		f->meanwhile = edits[i].edit;
		edits[i].edit(f);
		expected = picture(f);
		make_edited(f);
		assert_fails(restore(f, desired, NULL), &f->err, MOAT_CONFLICT, edits[i].path);
		char *now = picture(f);

		assert_pictures(strchr(now, '\n'), strchr(expected, '\n'));
		assert_no_litter(f);
		manifest_free(desired);
		free(expected);
		free(now);
	}
}

/* A directory that holds what the snapshot did not capture stays; where a file is to be, the whole
 * is refused. */
static void
test_uncaptured(void **state)
{
	struct fixture *f = *state;
	struct manifest *desired;
	struct txn_counts counts;
	char *before;

	put_file(f, ".gitignore", "*.log\n", 0644, 1);
	put_file(f, "was-file", "x", 0644, 1);
	desired = capture(f);
	put_directory(f, "new", 0755);
	put_directory(f, "new/deep", 0755);
	put_file(f, "new/deep/x.log", "keep me", 0644, 5);
	put_file(f, "new/gone", "not me", 0644, 5);
	assert_ok(restore(f, desired, &counts), &f->err);
	assert_int_equal(counts.kept, 2);
	assert_int_equal(counts.deleted, 1);
	assert_int_equal(faccessat(f->workspace->fd, "new/deep/x.log", F_OK, 0), 0);
	assert_int_equal(faccessat(f->workspace->fd, "new/gone", F_OK, 0), -1);

	assert_int_equal(unlinkat(f->workspace->fd, "was-file", 0), 0);
	put_directory(f, "was-file", 0755);
	put_file(f, "was-file/y.log", "keep me, too", 0644, 5);
	before = picture(f);
	assert_fails(restore(f, desired, NULL), &f->err, MOAT_CONFLICT, "y.log");
	assert_picture(f, before);
	free(before);
	assert_int_equal(unlinkat(f->workspace->fd, "was-file/y.log", 0), 0);
	assert_int_equal(unlinkat(f->workspace->fd, "was-file", AT_REMOVEDIR), 0);
	assert_int_equal(mkfifoat(f->workspace->fd, "was-file", 0600), 0);
	assert_fails(restore(f, desired, NULL), &f->err, MOAT_CONFLICT, "FIFO");
	manifest_free(desired);
}

/* Only the paths that were named, and the directories that they need. */
static void
test_paths(void **state)
{
	static const char *const paths[] = {"d/x", NULL}, *const unknown[] = {"nothing", NULL};
	struct txn_source source = {materialise, *state, -1};
	struct fixture *f = *state;
	struct manifest *desired, *live;
	struct txn *txn = NULL;

	put_file(f, "a", "one", 0644, 1);
	put_directory(f, "d", 0755);
	put_file(f, "d/x", "x", 0640, 7);
	put_file(f, "d/y", "y", 0640, 7);
	desired = capture(f);
	clear(f);
	put_file(f, "b", "mine", 0644, 1);
	live = look(f, desired);
	assert_fails(
		txn_plan(f->home, f->workspace, live, desired, unknown, &source, &txn, &f->err),
		&f->err, MOAT_NOT_FOUND, "nothing");
	assert_ok(txn_plan(f->home, f->workspace, live, desired, paths, &source, &txn, &f->err),
		  &f->err);
	assert_ok(txn_commit(txn, &f->err), &f->err);
	assert_int_equal(faccessat(f->workspace->fd, "d/x", F_OK, 0), 0);
	assert_int_equal(faccessat(f->workspace->fd, "b", F_OK, 0), 0);
	assert_int_equal(faccessat(f->workspace->fd, "d/y", F_OK, 0), -1);
	assert_int_equal(faccessat(f->workspace->fd, "a", F_OK, 0), -1);
	txn_free(txn);
	manifest_free(live);
	manifest_free(desired);
}

/* A transaction that is carried out, something that somebody does then, and all taken back. */
static uint64_t
apply_and_undo(struct fixture *f, const struct manifest *desired,
	       void (*meanwhile)(struct fixture *f))
{
	struct txn_source source = {materialise, f, -1};
	struct manifest *live = look(f, desired);
	struct txn *txn = NULL;
	struct journal journal;
	uint64_t left = 0, again = 0;

	assert_ok(txn_plan(f->home, f->workspace, live, desired, NULL, &source, &txn, &f->err),
		  &f->err);
	assert_ok(journal_create(f->home, &journal, &f->err), &f->err);
	assert_ok(stage_make(f->home, &journal, &txn->member, &f->err), &f->err);
	assert_ok(stage_fill(txn, &f->err), &f->err);
	assert_ok(plan_apply(&txn->member, &f->err), &f->err);
	if (meanwhile != NULL)
		meanwhile(f);
	plan_undo(&txn->member, &left);
	/* Once more, as a recovery would that was itself interrupted. */
	plan_undo(&txn->member, &again);
	assert_int_equal(left, again);
	if (left > 0) { /* What was kept is looked for there. */
		char name[128];

		snprintf(name, sizeof name, "%s/kept", f->path);
		assert_int_equal(renameat(journal.fd, "stage", AT_FDCWD, name), 0);
	} else {
		assert_ok(stage_remove(&journal, &txn->member, NULL, &f->err), &f->err);
	}
	assert_ok(journal_remove(f->home, &journal, &f->err), &f->err);
	journal_close(&journal);
	txn_free(txn);
	manifest_free(live);
	return left;
}

/* From each random tree to another; back: and back again, which is as if nothing had been. */
static void
restore_random(struct fixture *f, long cases, bool back)
{
	print_message("seed %u, %ld pairs of trees\n", f->seed, cases);
	for (long i = 0; i < cases; i++) {
		struct manifest *desired;
		char *wanted, *before;

		clear(f);
		random_tree(f);
		desired = capture(f);
		wanted = picture(f);
		clear(f);
		random_tree(f);
		before = picture(f);
		if (back)
			assert_int_equal(apply_and_undo(f, desired, NULL), 0);
		else
			assert_ok(restore(f, desired, NULL), &f->err);
		assert_picture(f, back ? before : wanted);
		assert_no_litter(f);
		manifest_free(desired);
		free(wanted);
		free(before);
	}
}

static void
test_random(void **state)
{
	restore_random(*state, test_scaled(300), false);
}

static void
test_random_back(void **state)
{
	restore_random(*state, test_scaled(200), true);
}

static void
write_into_created(struct fixture *f)
{
	put_file(f, "d/deep/theirs", "not to be lost", 0644, 99);
}

static void
retype_created(struct fixture *f)
{
	assert_int_equal(unlinkat(f->workspace->fd, "d/link", 0), 0);
	put_directory(f, "d/link", 0755);
	put_file(f, "d/link/theirs", "not to be lost", 0644, 99);
}

/* What comes into a directory that was made, and then has to go again, is kept. */
static void
test_kept_of_created(void **state)
{
	static const struct {
		void (*meanwhile)(struct fixture *f);
		const char *path;
		bool was_there;
	} cases[] = {{write_into_created, "deep/theirs", false},
		     {write_into_created, "deep/theirs", true},
		     {retype_created, "link/theirs", false}};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct manifest *desired;
		char name[512], text[64] = "", *before, *now;
		struct dirent *entry;
		int fd = -1;
		DIR *stream;

		clear(f);
		put_directory(f, "d", 0755);
		put_directory(f, "d/deep", 0755);
		put_file(f, "d/x", "x", 0644, 1);
		put_link(f, "d/link", "x");
		if (cases[i].was_there)
			put_file(f, "d/deep/theirs", "as the snapshot has it", 0644, 1);
		desired = capture(f);
		clear(f);
		put_file(f, "other", "stays", 0644, 1);
		before = picture(f);
		assert_int_equal(apply_and_undo(f, desired, cases[i].meanwhile), 1);
		now = picture(f);
		assert_pictures(now, before);
		snprintf(name, sizeof name, "%s/kept", f->path);
		stream = opendir(name);
		assert_non_null(stream);
		while (fd < 0 && (entry = readdir(stream)) != NULL) {
			snprintf(name, sizeof name, "%s/%s", entry->d_name, cases[i].path);
			fd = openat(dirfd(stream), name, O_RDONLY | O_CLOEXEC);
		}
		assert_true(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
		assert_string_equal(text, "not to be lost");
		close(fd);
		closedir(stream);
		snprintf(name, sizeof name, "%s/kept", f->path);
		assert_ok(fs_remove_tree(AT_FDCWD, name, &f->err), &f->err);
		manifest_free(desired);
		free(before);
		free(now);
	}
}

/* More threads than one bring content into more directories than stay open. */
struct hands {
	struct fixture *f;
	struct moat_extract *extract;
	size_t begin, step;
	struct moat_error err;
	int result;
};

static void *
bring_some(void *argument)
{
	struct hands *hands = argument;
	const struct moat_extract *extract = hands->extract;

	for (size_t i = hands->begin; i < extract->entries->count; i += hands->step) {
		const struct moat_entry *entry = extract->entries->items[i];
		const char *name;
		int dirfd, fd;

		if (extract->place(extract, i, &dirfd, &name, &hands->err) < 0)
			return NULL;
		fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 || write(fd, "many", entry->size) != (ssize_t) entry->size ||
		    extract->done(extract, i, fd, entry->size, entry->hash, &hands->err) < 0) {
			close(fd);
			return NULL;
		}
		close(fd);
	}
	hands->result = 0;
	return NULL;
}

static int
materialise_together(void *context, struct moat_extract *extract, struct moat_error *err)
{
	enum { HANDS = 4 };
	struct hands hands[HANDS];
	pthread_t threads[HANDS];

	for (size_t i = 0; i < HANDS; i++) {
		hands[i] = (struct hands){context, extract, i, HANDS, MOAT_ERROR_INIT, -1};
		assert_int_equal(pthread_create(&threads[i], NULL, bring_some, &hands[i]), 0);
	}
	for (size_t i = 0; i < HANDS; i++) {
		pthread_join(threads[i], NULL);
		if (hands[i].result < 0)
			return moat_fail(err, hands[i].err.code, "%s", hands[i].err.message);
	}
	return 0;
}

static void
test_threads(void **state)
{
	struct fixture *f = *state;
	struct txn_source source = {materialise_together, f, -1};
	struct manifest *desired, *live;
	struct txn *txn = NULL;
	char path[64], *before;

	put_directory(f, "top", 0755);
	for (int i = 0; i < 400; i++) {
		snprintf(path, sizeof path, "top/d%d", i);
		put_directory(f, path, 0755);
		snprintf(path, sizeof path, "top/d%d/in", i);
		put_directory(f, path, 0711);
		snprintf(path, sizeof path, "top/d%d/in/file", i);
		put_file(f, path, "many", i % 2 == 0 ? 0644 : 0700, 1000000 + i);
	}
	desired = capture(f);
	before = picture(f);
	clear(f);
	live = look(f, desired);
	assert_ok(txn_plan(f->home, f->workspace, live, desired, NULL, &source, &txn, &f->err),
		  &f->err);
	assert_ok(txn_commit(txn, &f->err), &f->err);
	assert_picture(f, before);
	assert_no_litter(f);
	txn_free(txn);
	manifest_free(live);
	manifest_free(desired);
	free(before);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_matrix, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kept_of_created, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backend_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_edits_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_uncaptured, setup, teardown),
		cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
