/* SPDX-License-Identifier: Apache-2.0 */
/* Integrity: every byte of a small store flipped, every file of it cut at every length and removed.
 * `snapshot verify' must say so, and a restore must either refuse before it touches anything or
 * bring back exactly what was captured: never another tree, never a crash.
 *
 * Removing or cutting what the store can make again (an index) may be healed in place of being
 * reported: then everything must come back right. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "picture.h"
#include "proof.h"

#define SNAPSHOTS 3
#define FILES_MAX 128

struct stored {
	char *path; /* absolute */
	unsigned char *data;
	size_t size;
	mode_t mode;
	/* Results of the damage done to it. */
	unsigned long points, silent, healed, wrong, crashed;
};

struct store {
	struct proof *p;
	char *workspace, *top;
	char ids[SNAPSHOTS][32];
	struct picture pictures[SNAPSHOTS];
	struct stored files[FILES_MAX];
	size_t count;
};

enum damage { FLIP_LOW, FLIP_HIGH, CUT, REMOVE };
static const char *const damage_names[] = {"bit 0 flipped", "bit 7 flipped", "cut", "removed"};

/* ------------------------------------------------------------------------------------ the store */

static void
put(const struct store *s, const char *name, const char *text, size_t size)
{
	AUTO_FREE char *path = NULL;
	int fd;

	if (asprintf(&path, "%s/%s", s->workspace, name) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	MUST(fd);
	MUST(write(fd, text, strlen(text)));
	MUST(ftruncate(fd, (off_t) size));
	close(fd);
}

/* Something of every type; each state has something that the one before has not. */
static void
make_state(struct store *s, int number)
{
	char text[128], name[32];
	int dirfd = open(s->workspace, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	MUST(dirfd);
	snprintf(text, sizeof text, "this is the text of state %d\n", number);
	put(s, "changes", text, strlen(text));
	snprintf(name, sizeof name, "added-%d", number);
	put(s, name, text, 500);
	if (number == 0) {
		MUST(mkdirat(dirfd, "sub", 0755));
		put(s, ".gitignore", "*.tmp\n", 6);
		put(s, "sub/stays", "stays from the first on\n", 24);
		put(s, "nothing", "", 0);
		put(s, "sparse", "begins", 300000);
		MUST(linkat(dirfd, "sub/stays", dirfd, "second", 0));
		MUST(symlinkat("sub/stays", dirfd, "link"));
	} else {
		MUST(unlinkat(dirfd, number == 1 ? "nothing" : "link", 0));
	}
	close(dirfd);
}

static void
take_snapshots(struct store *s)
{
	struct workspace *workspace;

	MUST(mkdir(s->workspace, 0755));
	workspace = proof_workspace(s->p, "ws");
	for (int i = 0; i < SNAPSHOTS; i++) {
		struct moat_error err = MOAT_ERROR_INIT;
		struct snap *snap = NULL;

		make_state(s, i);
		picture_take(s->workspace, 0, &s->pictures[i]);
		if (!proof_snapshot(s->p, workspace, NULL, &snap, &err)) {
			fprintf(s->p->report, "snapshot: %s\n", err.message);
			exit(99);
		}
		snprintf(s->ids[i], sizeof s->ids[i], "%s", snap->id);
		snap_free(snap);
	}
	workspace_close(workspace);
}

static unsigned char *
read_whole(const char *path, size_t *ret_size, mode_t *ret_mode)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	unsigned char *data;

	if (fd < 0)
		return NULL;
	MUST(fstat(fd, &st));
	data = malloc((size_t) st.st_size + 1);
	if (data == NULL)
		proof_die("malloc", __FILE__, __LINE__);
	MUST(read(fd, data, (size_t) st.st_size));
	close(fd);
	*ret_size = (size_t) st.st_size;
	*ret_mode = st.st_mode & 07777;
	return data;
}

/* Everything below but locks. */
static void
read_store(struct store *s, const char *directory)
{
	DIR *stream = opendir(directory);
	const struct dirent *entry;

	if (stream == NULL)
		proof_die("opendir", __FILE__, __LINE__);
	while ((entry = readdir(stream)) != NULL) {
		char *path;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    strstr(entry->d_name, "lock") != NULL)
			continue;
		if (asprintf(&path, "%s/%s", directory, entry->d_name) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		if (entry->d_type == DT_DIR) {
			read_store(s, path);
			free(path);
		} else {
			struct stored *file = &s->files[s->count++];

			if (s->count == FILES_MAX)
				proof_die("too many files", __FILE__, __LINE__);
			file->path = path;
			file->data = read_whole(path, &file->size, &file->mode);
		}
	}
	closedir(stream);
}

static bool
is_pristine(const struct stored *file)
{
	size_t size;
	mode_t mode;
	AUTO_FREE unsigned char *data = read_whole(file->path, &size, &mode);

	return data != NULL && size == file->size && memcmp(data, file->data, size) == 0;
}

/* A file that has to be written in a directory that is gone with it does not occur: only files are
 * removed. */
static void
write_whole(const struct stored *file, const unsigned char *data, size_t size)
{
	int fd;

	(void) unlink(file->path);
	fd = open(file->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	MUST(fd);
	MUST(write(fd, data, size));
	MUST(fchmod(fd, file->mode));
	close(fd);
}

static void
mend(const struct store *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (!is_pristine(&s->files[i]))
			write_whole(&s->files[i], s->files[i].data, s->files[i].size);
}

static void
do_damage(const struct stored *file, enum damage damage, size_t at)
{
	AUTO_FREE unsigned char *data = malloc(file->size + 1);

	if (data == NULL)
		proof_die("malloc", __FILE__, __LINE__);
	memcpy(data, file->data, file->size);
	if (damage == REMOVE) {
		MUST(unlink(file->path));
		return;
	}
	if (damage != CUT)
		data[at] ^= damage == FLIP_LOW ? 0x01 : 0x80;
	write_whole(file, data, damage == CUT ? at : file->size);
}

/* ------------------------------------------------------------------------------------- checking */

/* An empty workspace but for one file that the restore has to remove. */
static void
prepare_workspace(const struct store *s)
{
	int fd = open(s->workspace, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fdopendir(fd);
	const struct dirent *entry;

	if (stream == NULL)
		proof_die("opendir", __FILE__, __LINE__);
	while ((entry = readdir(stream)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			proof_remove(fd, entry->d_name);
	put(s, "other", "to be removed", 13);
	closedir(stream);
}

/* 0: as captured; 1: refused, untouched; 2: wrong; above 128: crashed. */
static int
try_restore(const struct store *s, int number)
{
	const char *const argv[] = {"snapshot", "restore", "--no-safety", s->ids[number], NULL};
	struct picture before, after;
	int status, result;

	prepare_workspace(s);
	picture_take(s->workspace, PICTURE_IDENTITY, &before);
	status = proof_moat(s->p, s->top, argv);
	picture_take(s->workspace, status == 0 ? 0 : PICTURE_IDENTITY, &after);
	if (status > 128)
		result = status;
	else if (status == 0)
		result = picture_compare(s->p, NULL, &s->pictures[number], &after, NULL) ? 2 : 0;
	else
		result = picture_compare(s->p, NULL, &before, &after, NULL) ? 2 : 1;
	picture_free(&before);
	picture_free(&after);
	return result;
}

static bool
is_named(const struct store *s, const struct stored *file)
{
	AUTO_FREE char *said = proof_said(s->p), *printed = proof_printed(s->p);

	for (int i = 0; i < SNAPSHOTS; i++)
		if (strstr(said, s->ids[i]) != NULL || strstr(printed, s->ids[i]) != NULL)
			return true;
	return strstr(said, strrchr(file->path, '/') + 1) != NULL;
}

static const char *
below(const struct store *s, const struct stored *file)
{
	return file->path + strlen(s->top) + 1;
}

/* Whether the damage was found.  A store that mended itself is whole again, and what was removed
 * and is not missed (everything came back) was not needed. */
static void
check_verify(struct store *s, struct stored *file, enum damage damage, size_t at, bool all_right)
{
	const char *const argv[] = {"snapshot", "verify", NULL};
	int status = proof_moat(s->p, s->workspace, argv);

	if (status == 1 && is_named(s, file))
		return;
	if (status > 128) {
		file->crashed++;
		proof_fail(s->p, "%s, %s at %zu: verify ended by signal %d", below(s, file),
			   damage_names[damage], at, status - 128);
	} else if (status == 0 && (is_pristine(file) || (damage == REMOVE && all_right))) {
		file->healed++;
	} else {
		file->silent++;
		proof_fail(s->p, "%s, %s at %zu: verify found nothing (status %d)", below(s, file),
			   damage_names[damage], at, status);
	}
}

/* One of the snapshots, each in its turn, or all of them. */
static bool
check_restores(struct store *s, struct stored *file, enum damage damage, size_t at)
{
	int first = damage == REMOVE ? 0 : (int) (file->points % SNAPSHOTS);
	int last = damage == REMOVE ? SNAPSHOTS - 1 : first;
	bool all_right = true;

	for (int i = first; i <= last; i++) {
		int result = try_restore(s, i);

		all_right = all_right && result == 0;
		if (result < 2)
			continue;
		if (result == 2)
			file->wrong++;
		else
			file->crashed++;
		proof_fail(s->p, "%s, %s at %zu: the restore of snapshot %d %s", below(s, file),
			   damage_names[damage], at, i,
			   result == 2 ? "left a wrong tree" : "was ended by a signal");
	}
	return all_right;
}

static void
try_point(struct store *s, struct stored *file, enum damage damage, size_t at)
{
	bool all_right;

	s->p->case_number = s->p->cases++;
	file->points++;
	do_damage(file, damage, at);
	all_right = check_restores(s, file, damage, at);
	mend(s);
	do_damage(file, damage, at);
	check_verify(s, file, damage, at, all_right);
	mend(s);
}

/* The whole store, from one random point on in steps. */
static void
sweep(struct store *s, size_t step)
{
	for (size_t i = 0; i < s->count; i++) {
		struct stored *file = &s->files[i];

		for (size_t at = proof_below(s->p, (unsigned) step); at < file->size; at += step) {
			try_point(s, file, proof_chance(s->p, 50) ? FLIP_LOW : FLIP_HIGH, at);
			try_point(s, file, CUT, at);
		}
		try_point(s, file, REMOVE, 0);
	}
}

/* Without damage nothing is found, everything comes back; and a wrong tree would be seen. */
static void
control(struct store *s)
{
	const char *const argv[] = {"snapshot", "verify", NULL};

	if (proof_moat(s->p, s->workspace, argv) != 0)
		proof_fail(s->p, "control: a whole store does not verify");
	for (int i = 0; i < SNAPSHOTS; i++) {
		struct picture wrong;

		if (try_restore(s, i) != 0)
			proof_fail(s->p, "control: a whole store does not restore");
		put(s, "changes", "this is the text of state X\n", 28);
		picture_take(s->workspace, 0, &wrong);
		if (picture_compare(s->p, NULL, &s->pictures[i], &wrong, NULL) == 0)
			proof_fail(s->p, "control: a wrong tree was not seen");
		picture_free(&wrong);
		s->p->controls++;
	}
}

static void
report(const struct store *s)
{
	fprintf(s->p->report, "%8s %8s %8s %8s %8s  %s\n", "points", "silent", "healed", "wrong",
		"crashed", "file");
	for (size_t i = 0; i < s->count; i++) {
		const struct stored *file = &s->files[i];

		fprintf(s->p->report, "%8lu %8lu %8lu %8lu %8lu  %s (%zu bytes)\n", file->points,
			file->silent, file->healed, file->wrong, file->crashed, below(s, file),
			file->size);
	}
}

int
main(void)
{
	const char *backend = getenv("MOAT_TEST_BACKEND");
	struct proof p;
	struct store s = {.p = &p};
	size_t total = 0, step;

	proof_open(&p, "integrity", NULL, backend == NULL ? "archive" : backend);
	s.top = p.top;
	s.workspace = proof_path(&p, "ws");
	take_snapshots(&s);
	AUTO_FREE char *home = proof_path(&p, "moat/workspaces");
	read_store(&s, home);
	control(&s);
	for (size_t i = 0; i < s.count; i++)
		total += s.files[i].size;
	step = total / (size_t) proof_scaled((long) total, 4);
	sweep(&s, step == 0 ? 1 : step);
	report(&s);
	for (size_t i = 0; i < s.count; i++) {
		free(s.files[i].path);
		free(s.files[i].data);
	}
	for (int i = 0; i < SNAPSHOTS; i++)
		picture_free(&s.pictures[i]);
	free(s.workspace);
	return proof_close(&p);
}
