/* SPDX-License-Identifier: Apache-2.0 */
/* The core's side of a capture, of files with several names: what is done for each is by the number
 * of its names in the tree, not by the number of files.  A tree that `cp -al' made has all the
 * second names elsewhere. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/snap_internal.h"
#include "tests/unit/test.h"

#define FILES 200000 /* one by one through all later ones: 20 thousand million steps */
#define CPU_SECONDS 20

/* A backend that stores nothing: *self is the file that it shows for every content, or -1, and then
 * it opens what it is to store. */
static int
fake_open(const struct moat_host *host, const struct moat_store *store, void **self,
	  struct moat_error *err)
{
	*self = (void *) (intptr_t) store->dirfd;
	return 0;
}

static void
fake_close(void *self)
{
}

static int
fake_store_one(const struct moat_capture *capture, int shown, size_t i, struct moat_error *err)
{
	const uint64_t locator[3] = {i + 1, 0, 0};
	const uint8_t hash[MOAT_HASH_SIZE] = {1};
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_CLOSE int fd = -1;
	int again;

	if (shown < 0) {
		fd = capture->open(capture, i, &why);
		if (fd < 0)
			return why.code == MOAT_GONE
				       ? 0
				       : moat_error_set(err, why.code, 0, "%s", why.message);
		shown = fd;
	}
	do { /* 1: it is not as the walk saw it */
		again = capture->stored(capture, i, shown, 0, hash, locator, err);
	} while (again > 0);
	return again;
}

static int
fake_capture(void *self, const struct moat_capture *capture, struct moat_ref *ret,
	     struct moat_error *err)
{
	for (size_t i = 0; i < capture->entries->count; i++) {
		const struct moat_entry *entry = capture->entries->items[i];

		if (entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER &&
		    fake_store_one(capture, (int) (intptr_t) self, i, err) < 0)
			return -1;
	}
	(void) snprintf(ret->text, sizeof ret->text, "fake");
	return 0;
}

struct scene {
	char directory[64];
	int root_fd, shown;
	struct plugin plugin;
	struct backend *backend;
	struct manifest *manifest;
	struct taking taking;
};

static int
setup(void **state)
{
	struct scene *s = calloc(1, sizeof *s);

	if (s == NULL)
		return -1;
	*state = s;
	s->shown = -1;
	(void) snprintf(s->directory, sizeof s->directory, "%s/moat-taking.XXXXXX",
			getenv("TMPDIR") != NULL && strlen(getenv("TMPDIR")) < 40 ? getenv("TMPDIR")
										  : "/tmp");
	if (mkdtemp(s->directory) == NULL)
		return -1;
	s->root_fd = open(s->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	s->plugin =
		(struct plugin){.kind = MOAT_KIND_SNAPSHOT, .name = (char *) (uintptr_t) "fake"};
	s->plugin.ops.snapshot =
		(struct moat_snapshot_ops){MOAT_OPS(snapshot), .open = fake_open,
					   .close = fake_close, .capture = fake_capture};
	s->manifest = manifest_new();
	return s->root_fd < 0 || s->manifest == NULL ? -1 : 0;
}

static int
teardown(void **state)
{
	struct scene *s = *state;

	taking_free(&s->taking);
	backend_close(s->backend);
	manifest_free(s->manifest);
	(void) unlinkat(s->root_fd, "shown", 0);
	(void) close(s->root_fd);
	if (s->shown >= 0)
		(void) close(s->shown);
	(void) rmdir(s->directory);
	free(s);
	return 0;
}

static void
add(struct scene *s, const char *path, uint8_t type, uint64_t ino, uint64_t nlink)
{
	struct moat_entry entry = {.path = path,
				   .type = type,
				   .mode = type == MOAT_DIRECTORY ? 0755 : 0644,
				   .ino = ino,
				   .dev = 1,
				   .nlink = nlink,
				   .status = MOAT_NEW,
				   .leader = MOAT_NO_LEADER};

	assert_non_null(manifest_add(s->manifest, &entry));
}

/* count files of `nlink` names, of which `here` are in the tree: "f0", "f0+1", ... */
static void
add_files(struct scene *s, size_t count, unsigned nlink, unsigned here)
{
	struct moat_error err = MOAT_ERROR_INIT;
	char path[32];

	add(s, "", MOAT_DIRECTORY, 1, 2);
	for (size_t i = 0; i < count; i++)
		for (unsigned n = 0; n < here; n++) {
			(void) snprintf(path, sizeof path, "f%zu+%u", i, n);
			add(s, path, MOAT_FILE, 10 + i, nlink);
		}
	assert_ok(manifest_seal(s->manifest, &err), &err);
}

static void
take(struct scene *s)
{
	struct moat_store store = {.struct_size = sizeof store, .dirfd = s->shown, .path = "/"};
	/* Of the processor, so that a machine that is busy otherwise does not count. */
	struct itimerval limit = {.it_value = {CPU_SECONDS, 0}}, none = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	struct moat_ref ref;

	s->taking.root_fd = s->root_fd;
	assert_ok(taking_init(&s->taking, s->manifest, &err), &err);
	assert_ok(snapshot_open(&s->plugin, &store, &s->backend, &err), &err);
	assert_int_equal(setitimer(ITIMER_PROF, &limit, NULL), 0); /* SIGPROF ends the program */
	assert_ok(taking_capture(&s->taking, s->backend, "snap_0123456789ab", NULL, &ref, &err),
		  &err);
	assert_int_equal(setitimer(ITIMER_PROF, &none, NULL), 0);
}

static void
show_a_file(struct scene *s)
{
	s->shown = openat(s->root_fd, "shown", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(s->shown >= 0);
}

static void
names_elsewhere_cost_nothing(void **state)
{
	struct scene *s = *state;

	show_a_file(s);
	add_files(s, FILES, 2, 1);
	take(s);
	assert_int_equal(s->manifest->count, FILES + 1);
}

static void
names_elsewhere_of_what_is_gone(void **state)
{
	struct scene *s = *state;

	add_files(s, FILES, 2, 1);
	take(s);
	assert_int_equal(s->manifest->count, 1);
	assert_int_equal(s->manifest->skip_count, FILES);
}

static void
every_name_learns(void **state)
{
	struct scene *s = *state;
	struct stat st;

	show_a_file(s);
	assert_int_equal(fstat(s->shown, &st), 0);
	add_files(s, 50, 4, 3);
	take(s);
	assert_int_equal(s->manifest->count, 151);
	for (size_t i = 1; i < s->manifest->count; i++) {
		const struct moat_entry *entry = s->manifest->entries[i];

		assert_int_equal(entry->leader == MOAT_NO_LEADER,
				 strcmp(strchr(entry->path, '+'), "+0") == 0);
		assert_int_equal(entry->mtime_sec, st.st_mtim.tv_sec);
		assert_int_equal(entry->mode, 0600);
	}
}

static void
every_name_is_gone(void **state)
{
	struct scene *s = *state;

	add_files(s, 50, 4, 3);
	take(s);
	assert_int_equal(s->manifest->count, 1);
	assert_int_equal(s->manifest->skip_count, 150);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_elsewhere_cost_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(names_elsewhere_of_what_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(every_name_learns, setup, teardown),
		cmocka_unit_test_setup_teardown(every_name_is_gone, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
