/* SPDX-License-Identifier: Apache-2.0 */
/* Real modules, good and bad, in real directories: each is loaded, or refused in words that say
 * what is wrong with it, and none stops another. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/loader.h"
#include "tests/unit/test.h"

struct fixture {
	char directory[64];
	struct loader *loader;
};

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	*state = f;
	if (f == NULL)
		return -1;
	(void) unsetenv("MOAT_PLUGIN_PATH");
	(void) snprintf(f->directory, sizeof f->directory, "/tmp/moat-load-XXXXXX");
	return mkdtemp(f->directory) == NULL || chmod(f->directory, 0755) < 0 ? -1 : 0;
}

static void
remove_below(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;

	while (directory != NULL && (entry = readdir(directory)) != NULL) {
		char child[4200];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void) snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
		if (unlink(child) < 0)
			remove_below(child);
	}
	if (directory != NULL)
		(void) closedir(directory);
	(void) rmdir(path);
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	(void) unsetenv("MOAT_PLUGIN_PATH");
	loader_close(f->loader);
	remove_below(f->directory);
	free(f);
	return 0;
}

static void
path_in(const struct fixture *f, const char *name, char path[4096])
{
	(void) snprintf(path, 4096, "%s/%s", f->directory, name);
}

/* Makes a new file, whose inode nothing has mapped. */
static void
put(const struct fixture *f, const char *name, const void *data, size_t size, mode_t mode)
{
	char path[4096];
	int fd;

	path_in(f, name, path);
	(void) unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(close(fd), 0);
}

static char *
read_module(const char *module, size_t *ret_size)
{
	char path[4096], *data;
	struct stat st;
	int fd;

	(void) snprintf(path, sizeof path, TEST_MODULES "%s.so", module);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail_msg("%s: %s", path, strerror(errno));
	assert_int_equal(fstat(fd, &st), 0);
	data = malloc((size_t) st.st_size);
	assert_non_null(data);
	assert_int_equal(read(fd, data, (size_t) st.st_size), st.st_size);
	assert_int_equal(close(fd), 0);
	*ret_size = (size_t) st.st_size;
	return data;
}

static void
copy_as(const struct fixture *f, const char *module, const char *name, mode_t mode)
{
	size_t size;
	char *data = read_module(module, &size);

	put(f, name, data, size, mode);
	free(data);
}

static void
copy(const struct fixture *f, const char *module)
{
	char name[128];

	(void) snprintf(name, sizeof name, "%s.so", module);
	copy_as(f, module, name, 0644);
}

static void
load(struct fixture *f)
{
	const char *const extra[] = {f->directory, NULL};
	struct moat_error err = MOAT_ERROR_INIT;

	loader_close(f->loader);
	f->loader = NULL;
	assert_ok(loader_open(extra, &f->loader, &err), &err);
}

static size_t
count_plugins(const struct fixture *f)
{
	size_t count = 0;

	for (const struct plugin *p = f->loader->plugins; p != NULL; p = p->next)
		count++;
	return count;
}

static size_t
count_problems(const struct fixture *f)
{
	size_t count = 0;

	for (const struct plugin_problem *p = f->loader->problems; p != NULL; p = p->next)
		count++;
	return count;
}

static const struct plugin_problem *
problem_of(const struct fixture *f, const char *kind_name)
{
	for (const struct plugin_problem *p = f->loader->problems; p != NULL; p = p->next)
		if (strcmp(p->kind_name, kind_name) == 0)
			return p;
	return NULL;
}

static void
assert_refused(const struct fixture *f, const char *kind_name, const char *words)
{
	const struct plugin_problem *p = problem_of(f, kind_name);
	const char *message = p != NULL ? p->message : "(it was not refused)";

	if (strstr(message, words) == NULL)
		fail_msg("%s: `%s' lacks `%s'", kind_name, message, words);
	assert_null(strchr(message, '\n'));
}

static void
assert_loaded(const struct fixture *f, uint32_t kind, const char *name)
{
	if (loader_find(f->loader, kind, name) == NULL) {
		char kind_name[128];
		const struct plugin_problem *p;

		(void) snprintf(kind_name, sizeof kind_name, "%s-%s", plugin_kind_text(kind), name);
		p = problem_of(f, kind_name);
		fail_msg("%s was not loaded: %s", kind_name, p != NULL ? p->message : "not seen");
	}
}

/* ------------------------------------------------------------------------------------------------
 */

static void
good_ones_load_in_order(void **state)
{
	struct fixture *f = *state;
	const struct plugin *p;

	copy(f, "tracer-good");
	copy(f, "snapshot-good");
	copy(f, "sandbox-good");
	copy(f, "runtime-good");
	copy(f, "snapshot-larger");
	load(f);
	assert_null(f->loader->problems);
	p = f->loader->plugins;
	assert_int_equal(p->kind, MOAT_KIND_RUNTIME);
	assert_string_equal(p->version, "1.0");
	assert_string_equal(p->license, "Apache-2.0");
	assert_string_equal(p->description, "A plugin for the tests");
	assert_string_equal(p->requires_package, "fixture-engine");
	assert_int_equal(p->api_version, 1);
	assert_int_equal(plugin_capabilities(p), MOAT_RUNTIME_LIMITS | (1u << 30));
	p = p->next;
	assert_string_equal(p->name, "good");
	assert_null(p->requires_package);
	p = p->next;
	assert_string_equal(p->name, "larger");
	p = p->next;
	assert_int_equal(p->kind, MOAT_KIND_TRACER);
	p = p->next;
	assert_int_equal(p->kind, MOAT_KIND_SANDBOX);
	assert_null(p->next);
}

/* What lies behind the structs that we know is neither read nor mistaken for anything. */
static void
larger_structs(void **state)
{
	struct fixture *f = *state;
	const struct plugin *p;

	copy(f, "snapshot-larger");
	load(f);
	assert_loaded(f, MOAT_KIND_SNAPSHOT, "larger");
	p = f->loader->plugins;
	assert_int_equal(p->descriptor_size, sizeof(struct moat_plugin) + 512);
	assert_int_equal(p->ops_size, sizeof(struct moat_snapshot_ops) + 520);
	assert_int_equal(p->ops.snapshot.struct_size, sizeof p->ops.snapshot);
	assert_non_null(p->ops.snapshot.capture);
	assert_null(p->ops.snapshot.verify);
	assert_null(p->ops.snapshot.enumerate);
}

static const struct {
	const char *module, *words;
} bad_modules[] = {
	{"snapshot-short", "ends before 'license'"},
	{"snapshot-headless", "its descriptor (0 bytes) ends before 'api_version'"},
	{"snapshot-shortops", "ends before 'capture'"},
	{"snapshot-noops", "has no table"},
	{"snapshot-future",
	 "built for API version 9, this moat knows up to 1: upgrade moat, or build "
	 "the plugin for version 1"},
	{"snapshot-zero", "API version 0"},
	{"snapshot-lacking", "member 'capture' is missing"},
	{"snapshot-alias", "it says that it is tracer-alias, its file says snapshot-alias"},
	{"snapshot-unknown", "its kind, 77, is unknown"},
	{"snapshot-undefined", "moat_fixture_nowhere"},
	{"snapshot-nosymbol", "exports no moat_plugin_init()"},
	{"snapshot-null", "moat_plugin_init() returned NULL"},
	{"snapshot-control", "its version holds a control character (byte 0x1b)"},
	{"snapshot-nolicense", "has no license"},
	{"sandbox-commit", "member 'undo' is missing, which its capabilities require"},
};
#define BAD_MODULES (sizeof bad_modules / sizeof bad_modules[0])

static void
bad_ones_are_refused_in_words(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < BAD_MODULES; i++)
		copy(f, bad_modules[i].module);
	load(f);
	assert_null(f->loader->plugins);
	assert_int_equal(count_problems(f), BAD_MODULES);
	for (size_t i = 0; i < BAD_MODULES; i++)
		assert_refused(f, bad_modules[i].module, bad_modules[i].words);
}

static void
none_stops_another(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < BAD_MODULES; i++)
		copy(f, bad_modules[i].module);
	copy(f, "runtime-good");
	copy(f, "snapshot-good");
	copy(f, "sandbox-good");
	copy(f, "tracer-good");
	load(f);
	assert_int_equal(count_plugins(f), 4);
	assert_int_equal(count_problems(f), BAD_MODULES);
	assert_loaded(f, MOAT_KIND_RUNTIME, "good");
	assert_loaded(f, MOAT_KIND_SNAPSHOT, "good");
	assert_loaded(f, MOAT_KIND_SANDBOX, "good");
	assert_loaded(f, MOAT_KIND_TRACER, "good");
}

static void
files_that_are_no_modules(void **state)
{
	struct fixture *f = *state;
	char path[4096], script[4096];

	put(f, "snapshot-empty.so", "", 0, 0644);
	memset(script, '#', sizeof script);
	put(f, "snapshot-script.so", script, sizeof script, 0755);
	path_in(f, "snapshot-directory.so", path);
	assert_int_equal(mkdir(path, 0755), 0);
	path_in(f, "snapshot-fifo.so", path);
	assert_int_equal(mkfifo(path, 0644), 0);
	path_in(f, "snapshot-dangling.so", path);
	assert_int_equal(symlink("nowhere", path), 0);
	path_in(f, "snapshot-loop.so", path);
	assert_int_equal(symlink("snapshot-loop.so", path), 0);
	put(f, "snapshot-archive.la", "dlname='snapshot-good.so'\n", 26, 0644);
	path_in(f, "snapshot-archive.so", path);
	assert_int_equal(symlink("snapshot-archive.la", path), 0);
	load(f);
	assert_null(f->loader->plugins);
	assert_refused(f, "snapshot-empty", "file too short");
	assert_refused(f, "snapshot-script", "invalid ELF header");
	assert_refused(f, "snapshot-directory", "not a regular file");
	assert_refused(f, "snapshot-fifo", "not a regular file");
	assert_refused(f, "snapshot-dangling", "No such file");
	assert_refused(f, "snapshot-loop", "symbolic links");
	assert_refused(f, "snapshot-archive", "is a libtool archive");
	assert_int_equal(count_problems(f), 7);
}

/* Cut short anywhere: never a crash (the dynamic linker's own would be SIGBUS), and only what still
 * has all its segments is loaded. */
static void
truncated_anywhere(void **state)
{
	struct fixture *f = *state;
	long cases = test_scaled(200);
	size_t size, refused = 0, step;
	char *data = read_module("snapshot-good", &size);

	step = size / (size_t) cases + 1;
	for (size_t length = 0; length < size; length += step) {
		put(f, "snapshot-good.so", data, length, 0644);
		load(f);
		assert_int_equal(count_plugins(f) + count_problems(f), 1);
		if (f->loader->problems != NULL) {
			assert_true(f->loader->problems->message[0] != '\0');
			refused++;
		}
	}
	assert_true(refused > 0);
	put(f, "snapshot-good.so", data, size / 4, 0644);
	load(f);
	assert_refused(f, "snapshot-good", "truncated");
	put(f, "snapshot-good.so", data, size, 0644);
	load(f);
	assert_loaded(f, MOAT_KIND_SNAPSHOT, "good");
	free(data);
}

static void
names_of_files(void **state)
{
	struct fixture *f = *state;

	copy_as(f, "snapshot-good", "snapshot-other.so", 0644);
	copy_as(f, "snapshot-good", "tracer-good.so", 0644);
	put(f, "frobber-x.so", "x", 1, 0644);
	put(f, "runtime-.so", "x", 1, 0644);
	put(f, "runtime-a b.so", "x", 1, 0644);
	/* None of our business. */
	put(f, "README", "x", 1, 0644);
	put(f, "libfoo.so", "x", 1, 0644);
	put(f, "libfoo-1.2.so", "x", 1, 0644);
	put(f, ".runtime-x.so", "x", 1, 0644);
	put(f, "runtime-x.so.bak", "x", 1, 0644);
	put(f, "runtime-x.la", "x", 1, 0644);
	put(f, ".so", "x", 1, 0644);
	load(f);
	assert_null(f->loader->plugins);
	assert_refused(f, "snapshot-other", "it says that it is snapshot-good");
	assert_refused(f, "tracer-good", "it says that it is snapshot-good");
	assert_refused(f, "frobber-x", "`frobber' is no kind of plugin");
	assert_refused(f, "runtime-", "is not a name");
	assert_refused(f, "runtime-a b", "is not a name");
	assert_int_equal(count_problems(f), 5);
}

static void
files_that_others_can_change(void **state)
{
	struct fixture *f = *state;
	bool root = geteuid() == 0;
	char path[4096];

	copy_as(f, "snapshot-good", "snapshot-good.so", 0666);
	copy_as(f, "tracer-good", "tracer-good.so", 0664);
	copy_as(f, "sandbox-good", "sandbox-good.so", 0664);
	copy_as(f, "runtime-good", "runtime-good.so", 0644);
	path_in(f, "tracer-good.so", path);
	assert_int_equal(chown(path, (uid_t) -1, getegid()), 0);
	if (root) {
		path_in(f, "sandbox-good.so", path);
		assert_int_equal(chown(path, (uid_t) -1, 54321), 0);
		assert_int_equal(chmod(path, 0664), 0);
		path_in(f, "runtime-good.so", path);
		assert_int_equal(chown(path, 54321, (gid_t) -1), 0);
	}
	load(f);
	assert_refused(f, "snapshot-good", "can be written by others: chmod go-w");
	assert_loaded(f, MOAT_KIND_TRACER, "good");
	if (root) {
		assert_refused(f, "sandbox-good", "can be written by group 54321: chmod go-w");
		assert_refused(f, "runtime-good", "belongs to user 54321");
	} else {
		assert_loaded(f, MOAT_KIND_RUNTIME, "good");
	}
}

static void
directories_that_others_can_change(void **state)
{
	struct fixture *f = *state;

	copy(f, "snapshot-good");
	assert_int_equal(chmod(f->directory, 0777), 0);
	load(f);
	assert_null(f->loader->plugins);
	assert_refused(f, "", "can be written by others: chmod go-w");
	/* Sticky: others cannot remove ours, and can still add theirs. */
	assert_int_equal(chmod(f->directory, 01777), 0);
	load(f);
	assert_null(f->loader->plugins);
	assert_refused(f, "", "can be written by others");
	assert_int_equal(chmod(f->directory, 0755), 0);
	load(f);
	assert_loaded(f, MOAT_KIND_SNAPSHOT, "good");
	assert_null(f->loader->problems);
}

/* A link may lead elsewhere, and then that place is looked at. */
static void
links_are_followed_and_checked(void **state)
{
	struct fixture *f = *state;
	char elsewhere[4096], path[4096];

	path_in(f, "elsewhere", elsewhere);
	assert_int_equal(mkdir(elsewhere, 0755), 0);
	copy_as(f, "snapshot-good", "elsewhere/real.so.1", 0644);
	path_in(f, "snapshot-good.so", path);
	assert_int_equal(symlink("elsewhere/real.so.1", path), 0);
	load(f);
	assert_loaded(f, MOAT_KIND_SNAPSHOT, "good");
	assert_string_equal(f->loader->plugins->path, path);
	assert_int_equal(chmod(elsewhere, 0777), 0);
	load(f);
	assert_refused(f, "snapshot-good", "elsewhere' can be written by others");
	assert_int_equal(chmod(elsewhere, 0755), 0);
	path_in(f, "elsewhere/real.so.1", path);
	assert_int_equal(chmod(path, 0646), 0);
	load(f);
	assert_refused(f, "snapshot-good", "real.so.1' can be written by others");
}

static void
directories_searched(void **state)
{
	struct fixture *f = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	char first[4096], second[4096], value[16384];
	const char *const extra[] = {first, NULL}, *const missing[] = {"/nonexistent/x", NULL};

	path_in(f, "first", first);
	path_in(f, "second", second);
	assert_int_equal(mkdir(first, 0755), 0);
	assert_int_equal(mkdir(second, 0755), 0);
	copy_as(f, "snapshot-good", "first/snapshot-good.so", 0644);
	copy_as(f, "snapshot-good", "second/snapshot-good.so", 0644);
	copy_as(f, "runtime-good", "second/runtime-good.so", 0644);
	(void) snprintf(value, sizeof value, "relative/dir:%s::/nonexistent/y:%s", second, second);
	assert_int_equal(setenv("MOAT_PLUGIN_PATH", value, 1), 0);
	assert_ok(loader_open(extra, &f->loader, &err), &err);
	assert_int_equal(count_plugins(f), 2);
	assert_memory_equal(loader_find(f->loader, MOAT_KIND_SNAPSHOT, "good")->path, first,
			    strlen(first));
	assert_memory_equal(loader_find(f->loader, MOAT_KIND_RUNTIME, "good")->path, second,
			    strlen(second));
	assert_int_equal(count_problems(f), 1);
	assert_string_equal(f->loader->problems->path, "relative/dir");
	assert_non_null(strstr(f->loader->problems->message, "relative"));
	assert_string_equal(f->loader->directories[0], first);
	assert_string_equal(f->loader->directories[1], second);
	assert_string_equal(f->loader->directories[2], "/nonexistent/y");
	assert_string_equal(f->loader->directories[3], MOAT_PLUGINDIR);
	assert_null(f->loader->directories[4]);
	loader_close(f->loader);
	f->loader = NULL;
	assert_int_equal(unsetenv("MOAT_PLUGIN_PATH"), 0);
	assert_ok(loader_open(missing, &f->loader, &err), &err);
	assert_int_equal(count_problems(f), 1);
	assert_non_null(strstr(f->loader->problems->message, "No such file"));
}

/* A relative name and a search path must not decide what is loaded. */
static void
ltdl_library_path_is_nothing_to_us(void **state)
{
	struct fixture *f = *state;

	copy(f, "snapshot-good");
	assert_int_equal(setenv("LTDL_LIBRARY_PATH", f->directory, 1), 0);
	assert_int_equal(setenv("MOAT_PLUGIN_PATH", "snapshot-good.so", 1), 0);
	{
		struct moat_error err = MOAT_ERROR_INIT;

		assert_ok(loader_open(NULL, &f->loader, &err), &err);
	}
	assert_int_equal(unsetenv("LTDL_LIBRARY_PATH"), 0);
	assert_null(loader_find(f->loader, MOAT_KIND_SNAPSHOT, "good"));
}

#define CASE(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(good_ones_load_in_order),
		CASE(larger_structs),
		CASE(bad_ones_are_refused_in_words),
		CASE(none_stops_another),
		CASE(files_that_are_no_modules),
		CASE(truncated_anywhere),
		CASE(names_of_files),
		CASE(files_that_others_can_change),
		CASE(directories_that_others_can_change),
		CASE(links_are_followed_and_checked),
		CASE(directories_searched),
		CASE(ltdl_library_path_is_nothing_to_us),
	};

	(void) umask(022);
	return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
