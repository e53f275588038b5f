/* SPDX-License-Identifier: Apache-2.0 */
/* The walk, what it recognises from the manifest before, reading files, extended attributes. */
#include "tests/unit/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/filter.h"
#include "core/interrupt.h"
#include "core/tree.h"

struct scratch {
	char path[64];
	int fd;   /* the workspace */
	int base; /* what it is in; "out" is beside it */
};

static int
setup(void **state)
{
	struct scratch *scratch = calloc(1, sizeof *scratch);

	if (scratch == NULL)
		return -1;
	(void) snprintf(scratch->path, sizeof scratch->path, "/tmp/moat-test-tree-XXXXXX");
	if (mkdtemp(scratch->path) == NULL)
		return -1;
	scratch->base = open(scratch->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (mkdirat(scratch->base, "ws", 0755) < 0 || mkdirat(scratch->base, "out", 0755) < 0)
		return -1;
	scratch->fd = openat(scratch->base, "ws", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = scratch;
	return scratch->fd < 0 ? -1 : 0;
}

static int
teardown(void **state)
{
	struct scratch *scratch = *state;
	int result;

	(void) close(scratch->fd);
	(void) close(scratch->base);
	result = fs_remove_tree(AT_FDCWD, scratch->path, NULL);
	free(scratch);
	return result;
}

static const char *
path_of(char out[128], const struct scratch *scratch, const char *name)
{
	(void) snprintf(out, 128, "%s/%s", scratch->path, name);
	return out;
}

/* NULL when it failed. */
static struct manifest *
try_scan(const struct scratch *scratch, const struct manifest *previous, struct moat_error *err)
{
	struct filter_options options = {0};
	struct filter *filter = NULL;
	struct manifest *manifest = NULL;
	char path[128];

	if (filter_open(scratch->fd, path_of(path, scratch, "ws"), &options, &filter, err) == 0)
		(void) tree_scan(scratch->fd, filter, previous, &manifest, err);
	filter_free(filter);
	return manifest;
}

static struct manifest *
scan(const struct scratch *scratch, const struct manifest *previous)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct manifest *manifest = try_scan(scratch, previous, &err);

	assert_ok(manifest == NULL ? -1 : 0, &err);
	return manifest;
}

static bool
has(const struct manifest *manifest, const char *path)
{
	return manifest_find(manifest, path) >= 0;
}

/* Never NULL: a path that is missing fails the test. */
static struct moat_entry *
entry_of(const struct manifest *manifest, const char *path)
{
	static struct moat_entry nothing;
	int64_t at = manifest_find(manifest, path);

	if (at >= 0)
		return (struct moat_entry *) manifest->entries[at];
	fail_msg("no entry of `%s'", path);
	return &nothing;
}

/* ---------------------------------------------------------------------------------- the walk */

static void
make_socket(const struct scratch *scratch, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void) snprintf(address.sun_path, sizeof address.sun_path, "%s/ws/%s", scratch->path, name);
	assert_int_equal(bind(fd, (struct sockaddr *) &address, sizeof address), 0);
	(void) close(fd);
}

static void
test_types(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *manifest = NULL;
	const struct moat_entry *entry;
	char target[4001];

	put(scratch->fd, "file", "text");
	assert_int_equal(fchmodat(scratch->fd, "file", 04751, 0), 0);
	assert_int_equal(mkdirat(scratch->fd, "dir", 0700), 0);
	assert_int_equal(fchmodat(scratch->fd, "dir", 01755, 0), 0);
	put(scratch->fd, "dir/\xff\n'", "");
	put(scratch->fd, "dir.c", "");
	put(scratch->fd, "..data", "");
	memset(target, 'x', 4000);
	target[4000] = '\0';
	assert_int_equal(symlinkat(target, scratch->fd, "long"), 0);
	assert_int_equal(symlinkat("/usr/bin/python3", scratch->fd, "absolute"), 0);
	assert_int_equal(symlinkat("../out", scratch->fd, "outside"), 0);
	put(scratch->base, "out/canary", "");
	manifest = scan(scratch, NULL);
	assert_int_equal(manifest->count, 9);
	for (size_t i = 1; i < manifest->count; i++)
		assert_true(manifest_compare(manifest->entries[i - 1]->path,
					     manifest->entries[i]->path) < 0);
	assert_string_equal(manifest->entries[0]->path, "");
	assert_int_equal(manifest->entries[0]->type, MOAT_DIRECTORY);
	assert_int_equal(manifest->entries[0]->mode, 0755);
	entry = entry_of(manifest, "file");
	assert_int_equal(entry->type, MOAT_FILE);
	assert_int_equal(entry->mode, 04751);
	assert_int_equal(entry->size, 4);
	assert_int_equal(entry->uid, geteuid());
	assert_int_equal(entry->status, MOAT_NEW);
	assert_int_equal(entry->flags, 0);
	assert_int_equal(entry->nlink, 1);
	entry = entry_of(manifest, "dir");
	assert_int_equal(entry->type, MOAT_DIRECTORY);
	assert_int_equal(entry->mode, 01755);
	assert_int_equal(entry->size, 0);
	assert_true(has(manifest, "dir/\xff\n'"));
	assert_true(has(manifest, "..data"));
	entry = entry_of(manifest, "long");
	assert_int_equal(entry->type, MOAT_SYMLINK);
	assert_string_equal(entry->link_target, target);
	assert_int_equal(entry->size, 4000);
	assert_string_equal(entry_of(manifest, "outside")->link_target, "../out");
	assert_false(has(manifest, "outside/canary"));
	assert_int_equal(manifest->skip_count, 0);
}

static void
test_left_out(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *manifest = NULL;
	const struct manifest_skip *skip;

	put(scratch->fd, ".gitignore", "ignored*\n");
	assert_int_equal(mkfifoat(scratch->fd, "fifo", 0600), 0);
	make_socket(scratch, "sock");
	assert_int_equal(mkfifoat(scratch->fd, "ignored-fifo", 0600), 0);
	assert_int_equal(mkdirat(scratch->fd, "ignored-dir", 0700), 0);
	put(scratch->fd, "ignored-dir/file", "");
	assert_int_equal(mkdirat(scratch->fd, "sub", 0755), 0);
	put(scratch->fd, "sub/.git", "gitdir: nowhere\n");
	/* The core's own directories: in the root only, and only of just that form. */
	assert_int_equal(mkdirat(scratch->fd, ".moat-txn_0123456789ab", 0700), 0);
	put(scratch->fd, ".moat-txn_0123456789ab/file", "");
	assert_int_equal(mkdirat(scratch->fd, "sub/.moat-txn_0123456789ab", 0700), 0);
	put(scratch->fd, ".moat-txn_0123456789abc", "");
	put(scratch->fd, ".moat-txn_0123456789a", "");
	put(scratch->fd, ".moat-txn_0123456789ax", "");
	manifest = scan(scratch, NULL);
	assert_int_equal(manifest->skip_count, 2);
	skip = manifest_find_skip(manifest, "fifo");
	assert_int_equal(skip->reason, SKIP_SPECIAL);
	assert_string_equal(skip->detail, "FIFO");
	assert_string_equal(manifest_find_skip(manifest, "sock")->detail, "socket");
	assert_false(has(manifest, "fifo"));
	assert_false(has(manifest, "ignored-dir"));
	assert_false(has(manifest, "sub/.git"));
	assert_true(has(manifest, ".gitignore"));
	assert_false(has(manifest, ".moat-txn_0123456789ab"));
	assert_true(has(manifest, "sub/.moat-txn_0123456789ab"));
	assert_true(has(manifest, ".moat-txn_0123456789abc"));
	assert_true(has(manifest, ".moat-txn_0123456789a"));
	assert_true(has(manifest, ".moat-txn_0123456789ax"));
	assert_true(manifest->rule_count > 0);
}

/* ---------------------------------------------------------------------- the previous manifest */

/* As if the files had been left alone for long before the walk, and their content stored. */
static void
age(struct manifest *manifest)
{
	manifest->started_ns += INT64_C(10000000000);
	for (size_t i = 0; i < manifest->count; i++) {
		struct moat_entry *entry = (struct moat_entry *) manifest->entries[i];

		if (entry->type != MOAT_FILE || entry->leader != MOAT_NO_LEADER)
			continue;
		entry->flags = MOAT_HAS_HASH | MOAT_HAS_LOCATOR;
		entry->locator[0] = 100 + i;
		memset(entry->hash, (int) i, sizeof entry->hash);
		entry->xattrs = "user.x\0\0\0\0\0";
		entry->xattrs_size = 11;
	}
}

static void
set_mtime(int dirfd, const char *name, time_t seconds)
{
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = seconds}};

	assert_int_equal(utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW), 0);
}

static void
test_previous(void **state)
{
	static const char *const files[] = {"chmod", "content", "gone", "mtime", "same",
					    "size",  "to-dir",  "torn", "unread"};
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *before = NULL;
	AUTO_MANIFEST struct manifest *after = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	const struct moat_entry *same;

	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		put(scratch->fd, files[i], "text");
		set_mtime(scratch->fd, files[i], 1000000000);
	}
	assert_int_equal(mkdirat(scratch->fd, "d", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "d-changed", 0755), 0);
	assert_int_equal(symlinkat("a", scratch->fd, "link"), 0);
	assert_int_equal(symlinkat("a", scratch->fd, "link-changed"), 0);
	before = scan(scratch, NULL);
	age(before);
	entry_of(before, "unread")->flags = 0;
	assert_ok(manifest_add_skip(before, "torn", SKIP_TORN, "", &err), &err);

	assert_int_equal(fchmodat(scratch->fd, "chmod", 0600, 0), 0);
	put(scratch->fd, "content", "TEXT");
	set_mtime(scratch->fd, "content", 1000000000); /* only ctime tells */
	set_mtime(scratch->fd, "mtime", 1000000001);
	put(scratch->fd, "size", "text!");
	set_mtime(scratch->fd, "size", 1000000000);
	assert_int_equal(unlinkat(scratch->fd, "gone", 0), 0);
	assert_int_equal(unlinkat(scratch->fd, "to-dir", 0), 0);
	assert_int_equal(mkdirat(scratch->fd, "to-dir", 0755), 0);
	assert_int_equal(fchmodat(scratch->fd, "d-changed", 0700, 0), 0);
	assert_int_equal(unlinkat(scratch->fd, "link-changed", 0), 0);
	assert_int_equal(symlinkat("b", scratch->fd, "link-changed"), 0);
	put(scratch->fd, "new", "");
	after = scan(scratch, before);

	same = entry_of(after, "same");
	assert_int_equal(same->status, MOAT_SAME);
	assert_int_equal(same->flags, MOAT_HAS_HASH | MOAT_HAS_LOCATOR);
	assert_memory_equal(same->hash, entry_of(before, "same")->hash, MOAT_HASH_SIZE);
	assert_int_equal(same->locator[0], entry_of(before, "same")->locator[0]);
	assert_int_equal(same->xattrs_size, 11);
	assert_int_equal(entry_of(after, "content")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "content")->flags, 0);
	assert_int_equal(entry_of(after, "chmod")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "mtime")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "size")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "torn")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "unread")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "new")->status, MOAT_NEW);
	assert_int_equal(entry_of(after, "to-dir")->status, MOAT_NEW);
	assert_int_equal(entry_of(after, "d")->status, MOAT_SAME);
	assert_int_equal(entry_of(after, "d-changed")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "link")->status, MOAT_SAME);
	assert_int_equal(entry_of(after, "link-changed")->status, MOAT_MODIFIED);
	assert_false(has(after, "gone"));
	/* What was taken over does not depend on the manifest that it came from. */
	manifest_free(before);
	before = NULL;
	assert_memory_equal(same->xattrs, "user.x\0", 7);
}

/* What changed when the previous walk began, or a clock tick before, may have changed again. */
static void
test_racy(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *before = NULL;
	int64_t ctime_ns, starts[] = {-1000000000, 0, 1000000, 19000000, 21000000, 1000000000};
	const struct moat_entry *entry;

	put(scratch->fd, "file", "text");
	set_mtime(scratch->fd, "file", 1000000000);
	before = scan(scratch, NULL);
	age(before);
	entry = entry_of(before, "file");
	ctime_ns = entry->ctime_sec * 1000000000 + entry->ctime_nsec;
	for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
		AUTO_MANIFEST struct manifest *after = NULL;

		before->started_ns = ctime_ns + starts[i];
		after = scan(scratch, before);
		assert_int_equal(entry_of(after, "file")->status,
				 starts[i] > 20000000 ? MOAT_SAME : MOAT_MODIFIED);
	}
	/* Never set: nothing can be trusted. */
	before->started_ns = 0;
	{
		AUTO_MANIFEST struct manifest *after = scan(scratch, before);

		assert_int_equal(entry_of(after, "file")->status, MOAT_MODIFIED);
	}
}

/* The first name of a file has its content, whichever name the previous manifest knew. */
static void
test_hard_links(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *before = NULL;
	AUTO_MANIFEST struct manifest *after = NULL;
	AUTO_MANIFEST struct manifest *third = NULL;
	const struct moat_entry *first;
	uint64_t locator;

	put(scratch->fd, "m", "text");
	assert_int_equal(linkat(scratch->fd, "m", scratch->fd, "z", 0), 0);
	assert_int_equal(linkat(scratch->fd, "m", scratch->fd, "a", 0), 0);
	before = scan(scratch, NULL);
	assert_true(entry_of(before, "a")->leader == MOAT_NO_LEADER);
	assert_int_equal(entry_of(before, "z")->leader, 1);
	age(before);
	locator = entry_of(before, "a")->locator[0];
	/* Two names as they were, but the previous manifest never saw the first. */
	before->entries[1] = before->entries[2];
	((struct moat_entry *) before->entries[1])->flags = MOAT_HAS_HASH | MOAT_HAS_LOCATOR;
	((struct moat_entry *) before->entries[1])->locator[0] = locator;
	((struct moat_entry *) before->entries[1])->leader = MOAT_NO_LEADER;
	((struct moat_entry *) before->entries[3])->leader = 1;
	before->entries[2] = before->entries[3];
	before->count = 3;
	after = scan(scratch, before);
	first = entry_of(after, "a");
	assert_int_equal(first->status, MOAT_SAME);
	assert_int_equal(first->flags, MOAT_HAS_HASH | MOAT_HAS_LOCATOR);
	assert_int_equal(first->locator[0], locator);
	assert_ptr_equal(manifest_content(after, entry_of(after, "z")), first);
	assert_int_equal(entry_of(after, "z")->flags, 0);
	/* The first name goes: the content is that of the next. */
	after->started_ns += INT64_C(10000000000);
	assert_int_equal(unlinkat(scratch->fd, "a", 0), 0);
	third = scan(scratch, after);
	assert_true(entry_of(third, "m")->leader == MOAT_NO_LEADER);
	/* Its ctime changed: read again. */
	assert_int_equal(entry_of(third, "m")->status, MOAT_MODIFIED);
}

/* ------------------------------------------------------------------------ what is in the way */

static int
scan_unreadable(const struct scratch *scratch)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct manifest *manifest;
	const struct manifest_skip *skip;
	int fd;

	if (fchmod(scratch->fd, 0777) < 0 || fchmod(scratch->base, 0755) < 0 ||
	    (geteuid() == 0 && setuid(65534) < 0))
		return 77;
	if (mkdirat(scratch->fd, "closed", 0755) < 0 || mkdirat(scratch->fd, "names", 0755) < 0)
		return 1;
	put(scratch->fd, "closed/file", "");
	put(scratch->fd, "names/file", "");
	put(scratch->fd, "secret", "");
	if (fchmodat(scratch->fd, "closed", 0, 0) < 0 ||
	    fchmodat(scratch->fd, "names", 0444, 0) < 0 ||
	    fchmodat(scratch->fd, "secret", 0, 0) < 0)
		return 2;
	manifest = try_scan(scratch, NULL, &err);
	if (manifest == NULL) {
		print_message("%s\n", err.message);
		return 3;
	}
	skip = manifest_find_skip(manifest, "closed");
	if (skip == NULL || skip->reason != SKIP_UNREADABLE ||
	    strcmp(skip->detail, "Permission denied") != 0)
		return 4;
	if (!has(manifest, "closed") || entry_of(manifest, "closed")->mode != 0)
		return 5;
	if (manifest_find_skip(manifest, "names/file") == NULL)
		return 6;
	/* That a file cannot be read is seen when it is. */
	if (!has(manifest, "secret") || manifest->skip_count != 2)
		return 7;
	fd = tree_open(scratch->fd, entry_of(manifest, "secret"), &err);
	if (fd >= 0 || err.code != MOAT_PERMISSION)
		return 8;
	manifest_free(manifest);
	return 0;
}

static void
test_unreadable(void **state)
{
	in_child(scan_unreadable, *state);
}

static int
scan_mounts(const struct scratch *scratch)
{
	static const char *const names[] = {"tmpfs", "same-device", "file"};
	struct moat_error err = MOAT_ERROR_INIT;
	struct scratch inside = *scratch;
	struct manifest *manifest;
	char source[128], path[128];

	if (own_mounts() < 0 ||
	    mount("none", path_of(path, scratch, "ws/tmpfs"), "tmpfs", 0, "") < 0 ||
	    mount(path_of(source, scratch, "out"), path_of(path, scratch, "ws/same-device"), "none",
		  MS_BIND, "") < 0 ||
	    mount(path_of(source, scratch, "out/canary"), path_of(path, scratch, "ws/file"), "none",
		  MS_BIND, "") < 0 ||
	    mount("none", path_of(path, scratch, "ws/ignored"), "tmpfs", 0, "") < 0)
		return 77;
	/* The descriptor from before leads to the mounts from before. */
	inside.fd = open(path_of(path, scratch, "ws"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	manifest = try_scan(&inside, NULL, &err);
	if (manifest == NULL)
		return 1;
	for (size_t i = 0; i < 3; i++) {
		const struct manifest_skip *skip = manifest_find_skip(manifest, names[i]);

		if (skip == NULL || skip->reason != SKIP_MOUNT || has(manifest, names[i]))
			return 2;
	}
	if (manifest->skip_count != 3 || has(manifest, "same-device/canary"))
		return 3;
	(void) close(inside.fd);
	manifest_free(manifest);
	return 0;
}

static void
test_mounts(void **state)
{
	const struct scratch *scratch = *state;

	put(scratch->base, "out/canary", "");
	put(scratch->fd, ".gitignore", "/ignored\n");
	put(scratch->fd, "file", "");
	assert_int_equal(mkdirat(scratch->fd, "tmpfs", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "same-device", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "ignored", 0755), 0);
	in_child(scan_mounts, scratch);
}

#define LEVELS 1200

static int
scan_deep(const struct scratch *scratch)
{
	struct rlimit limit = {160, 160};
	struct moat_error err = MOAT_ERROR_INIT;
	struct manifest *manifest;
	struct arena arena = {0};
	int fd = dup(scratch->fd), next;

	for (int i = 0; i < LEVELS; i++) {
		if (mkdirat(fd, "deep", 0700) < 0)
			return 1;
		put(fd, "a", "");
		put(fd, "z", "x");
		next = openat(fd, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void) close(fd);
		fd = next;
	}
	(void) close(fd);
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 77;
	manifest = try_scan(scratch, NULL, &err);
	if (manifest == NULL) {
		print_message("%s\n", err.message);
		return 2;
	}
	if (manifest->count != 1 + 3 * LEVELS)
		return 3;
	/* Files whose path is longer than a system call takes. */
	for (size_t i = 2 * LEVELS - 10; i < 2 * LEVELS; i++) {
		struct moat_entry *entry = (struct moat_entry *) manifest->entries[i];

		if (strlen(entry->path) < 4096)
			return 4;
		if (entry->type == MOAT_FILE && tree_read(scratch->fd, entry, &arena, &err) < 0) {
			print_message("%s\n", err.message);
			return 5;
		}
	}
	arena_free(&arena);
	manifest_free(manifest);
	return 0;
}

static void
test_deep(void **state)
{
	in_child(scan_deep, *state);
}

/* While a directory and a link to the outside change places, the walk ends well and what is outside
 * is neither seen nor read. */
static void
test_race(void **state)
{
	const struct scratch *scratch = *state;
	pid_t attacker;
	struct moat_entry canary = {.path = "x/canary", .leader = MOAT_NO_LEADER};
	struct stat status;
	char path[128];

	put(scratch->base, "out/canary", "");
	assert_int_equal(fstatat(scratch->base, "out/canary", &status, 0), 0);
	canary.dev = status.st_dev;
	canary.ino = status.st_ino;
	assert_int_equal(mkdirat(scratch->fd, "x", 0755), 0);
	put(scratch->fd, "x/inside", "");
	assert_int_equal(symlinkat(path_of(path, scratch, "out"), scratch->fd, "y"), 0);
	attacker = begin_attack(scratch->fd, "x", "y");
	for (long i = 0; i < test_scaled(1500); i++) {
		AUTO_MANIFEST struct manifest *manifest = scan(scratch, NULL);

		assert_false(has(manifest, "x/canary"));
		assert_false(has(manifest, "y/canary"));
		assert_int_equal(tree_open(scratch->fd, &canary, NULL), -1);
	}
	end_attack(attacker);
}

/* -------------------------------------------------------------------------------- reading files */

static void
test_open(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *manifest = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	int fd;

	assert_int_equal(mkdirat(scratch->fd, "d", 0755), 0);
	put(scratch->fd, "d/file", "text");
	put(scratch->fd, "to-fifo", "");
	put(scratch->fd, "to-link", "");
	put(scratch->fd, "to-other", "");
	put(scratch->fd, "to-socket", "");
	put(scratch->fd, "gone", "");
	manifest = scan(scratch, NULL);
	fd = tree_open(scratch->fd, entry_of(manifest, "d/file"), &err);
	assert_ok(fd, &err);
	(void) close(fd);

	for (size_t i = 0; i < 4; i++) {
		static const char *const names[] = {"to-fifo", "to-link", "to-socket", "gone"};

		assert_int_equal(unlinkat(scratch->fd, names[i], 0), 0);
	}
	put(scratch->fd, "other", "");
	assert_int_equal(renameat(scratch->fd, "other", scratch->fd, "to-other"), 0);
	assert_int_equal(mkfifoat(scratch->fd, "to-fifo", 0600), 0);
	assert_int_equal(symlinkat("d/file", scratch->fd, "to-link"), 0);
	make_socket(scratch, "to-socket");
	assert_fails(tree_open(scratch->fd, entry_of(manifest, "gone"), &err), &err, MOAT_GONE,
		     "gone");
	assert_fails(tree_open(scratch->fd, entry_of(manifest, "to-other"), &err), &err,
		     MOAT_CHANGED, "`to-other' was replaced");
	assert_fails(tree_open(scratch->fd, entry_of(manifest, "to-fifo"), &err), &err,
		     MOAT_CHANGED, "to-fifo");
	assert_fails(tree_open(scratch->fd, entry_of(manifest, "to-link"), &err), &err,
		     MOAT_CHANGED, "to-link");
	assert_fails(tree_open(scratch->fd, entry_of(manifest, "to-socket"), &err), &err,
		     MOAT_CHANGED, "to-socket");
	/* The same file, reached through a link. */
	assert_int_equal(renameat(scratch->fd, "d", scratch->fd, "e"), 0);
	assert_int_equal(symlinkat("e", scratch->fd, "d"), 0);
	assert_fails(tree_open(scratch->fd, entry_of(manifest, "d/file"), &err), &err, MOAT_CHANGED,
		     "d/file");
}

static void
test_read(void **state)
{
	/* SHA-256 of "abc" and of nothing: FIPS 180-2. */
	static const uint8_t abc[] =
		"\xba\x78\x16\xbf\x8f\x01\xcf\xea\x41\x41\x40\xde\x5d\xae\x22\x23"
		"\xb0\x03\x61\xa3\x96\x17\x7a\x9c\xb4\x10\xff\x61\xf2\x00\x15\xad";
	static const uint8_t none[] =
		"\xe3\xb0\xc4\x42\x98\xfc\x1c\x14\x9a\xfb\xf4\xc8\x99\x6f\xb9\x24"
		"\x27\xae\x41\xe4\x64\x9b\x93\x4c\xa4\x95\x99\x1b\x78\x52\xb8\x55";
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *manifest = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	struct moat_entry *entry;

	put(scratch->fd, "abc", "ab");
	put(scratch->fd, "empty", "");
	manifest = scan(scratch, NULL);
	put(scratch->fd, "abc", "abc"); /* the same file, with other content */
	set_mtime(scratch->fd, "abc", 1000000000);
	entry = entry_of(manifest, "abc");
	assert_ok(tree_read(scratch->fd, entry, &manifest->arena, &err), &err);
	assert_memory_equal(entry->hash, abc, 32);
	assert_int_equal(entry->flags, MOAT_HAS_HASH);
	assert_int_equal(entry->size, 3);
	assert_int_equal(entry->mtime_sec, 1000000000);
	entry = entry_of(manifest, "empty");
	assert_ok(tree_read(scratch->fd, entry, &manifest->arena, &err), &err);
	assert_memory_equal(entry->hash, none, 32);
	assert_int_equal(unlinkat(scratch->fd, "empty", 0), 0);
	assert_fails(tree_read(scratch->fd, entry, &manifest->arena, &err), &err, MOAT_GONE,
		     "empty");
}

/* Enough of it for several threads. */
static void
write_large(int dirfd, const char *name, char byte)
{
	const size_t size = (size_t) 1 << 20;
	char *text = malloc(size);
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0 && text != NULL);
	memset(text, byte, size);
	assert_int_equal(write(fd, text, size), (ssize_t) size);
	(void) close(fd);
	free(text);
}

static struct manifest *
scan_and_read(const struct scratch *scratch)
{
	struct manifest *manifest = scan(scratch, NULL);
	struct moat_error err = MOAT_ERROR_INIT;

	for (size_t i = 0; i < manifest->count; i++) {
		struct moat_entry *entry = (struct moat_entry *) manifest->entries[i];

		if (entry->type != MOAT_FILE || entry->leader != MOAT_NO_LEADER)
			continue;
		assert_ok(tree_read(scratch->fd, entry, &manifest->arena, &err), &err);
		entry->locator[0] = i + 1;
		entry->flags |= MOAT_HAS_LOCATOR;
	}
	return manifest;
}

static void
assert_found_same(const struct manifest *before, const struct manifest *after, const char *path,
		  bool same)
{
	const struct moat_entry *entry = entry_of(after, path);

	assert_int_equal(entry->status, same ? MOAT_SAME : MOAT_MODIFIED);
	assert_true((entry->flags & MOAT_HAS_HASH) != 0);
	assert_int_equal(memcmp(entry->hash, entry_of(before, path)->hash, MOAT_HASH_SIZE) == 0,
			 same);
	assert_int_equal((entry->flags & MOAT_HAS_LOCATOR) != 0, same);
	if (same)
		assert_int_equal(entry->locator[0], entry_of(before, path)->locator[0]);
}

/* The same content under other times, modes and inodes is the same; nothing else is. */
static void
test_compare(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *before = NULL;
	AUTO_MANIFEST struct manifest *after = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	char name[32];

	for (int i = 0; i < 12; i++) {
		(void) snprintf(name, sizeof name, "large%02d", i);
		write_large(scratch->fd, name, 'a');
	}
	put(scratch->fd, "small", "text");
	put(scratch->fd, "grown", "text");
	put(scratch->fd, "gone", "text");
	put(scratch->fd, "torn", "text");
	put(scratch->fd, "unhashed", "text");
	assert_int_equal(linkat(scratch->fd, "large00", scratch->fd, "link", 0), 0);
	before = scan_and_read(scratch);
	entry_of(before, "unhashed")->flags = 0;
	assert_ok(manifest_add_skip(before, "torn", SKIP_TORN, "", &err), &err);

	for (int i = 0; i < 12; i++) {
		(void) snprintf(name, sizeof name, "large%02d", i);
		if (i == 3) /* another inode */
			assert_int_equal(unlinkat(scratch->fd, name, 0), 0);
		write_large(scratch->fd, name, i == 7 ? 'b' : 'a');
		set_mtime(scratch->fd, name, 1000000000 + i);
	}
	assert_int_equal(fchmodat(scratch->fd, "small", 0600, 0), 0);
	put(scratch->fd, "grown", "text!");
	after = scan(scratch, before);
	assert_int_equal(unlinkat(scratch->fd, "gone", 0), 0);
	assert_ok(tree_compare(scratch->fd, before, after, &err), &err);

	for (int i = 0; i < 12; i++) {
		(void) snprintf(name, sizeof name, "large%02d", i);
		assert_found_same(before, after, name, i != 7);
		assert_int_equal(entry_of(after, name)->mtime_sec, 1000000000 + i);
	}
	assert_found_same(before, after, "small", true);
	assert_int_equal(entry_of(after, "small")->mode, 0600);
	assert_int_equal(entry_of(after, "grown")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "grown")->flags, 0);
	assert_int_equal(entry_of(after, "gone")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "torn")->status, MOAT_MODIFIED);
	assert_int_equal(entry_of(after, "unhashed")->status, MOAT_MODIFIED);
	assert_ok(tree_compare(scratch->fd, NULL, after, &err), &err);
}

/* One that cannot be read by other reasons than its own is a failure, whoever meets it. */
static void
test_compare_failing(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *before = NULL;
	AUTO_MANIFEST struct manifest *after = NULL;
	struct moat_error err = MOAT_ERROR_INIT;

	put(scratch->fd, "small", "text");
	before = scan_and_read(scratch);
	put(scratch->fd, "small", "TEXT");
	after = scan(scratch, before);
	assert_fails(tree_compare(-1, before, after, &err), &err, MOAT_FAILED, "small");
}

/* Somebody who waits for it to read very much can stop it. */
static void
test_compare_interrupted(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *before = NULL;
	AUTO_MANIFEST struct manifest *after = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	const struct timespec none = {0};
	sigset_t saved, term;

	put(scratch->fd, "small", "text");
	before = scan_and_read(scratch);
	put(scratch->fd, "small", "TEXT");
	after = scan(scratch, before);
	interrupt_hold(&saved);
	assert_int_equal(kill(getpid(), SIGTERM), 0);
	assert_fails(tree_compare(scratch->fd, before, after, &err), &err, MOAT_CANCELLED, "small");
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	assert_int_equal(sigtimedwait(&term, NULL, &none), SIGTERM);
	interrupt_release(&saved);
}

static int touched_fd = -1;

/* Gives the file another time.  As a signal it comes in the midst of reading, on any machine. */
static void
touch(int number)
{
	static time_t seconds;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = ++seconds}};
	int saved = errno;

	(void) futimens(touched_fd, times);
	errno = saved;
}

static void
test_read_torn(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *manifest = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	const struct sigaction action = {.sa_handler = touch, .sa_flags = SA_RESTART};
	const struct itimerval often = {{.tv_usec = 1000}, {.tv_usec = 1000}}, never = {{0}, {0}};
	struct moat_entry *entry;
	int result;

	put(scratch->fd, "file", "");
	touched_fd = openat(scratch->fd, "file", O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(touched_fd, 64 * 1024 * 1024), 0);
	manifest = scan(scratch, NULL);
	entry = entry_of(manifest, "file");
	assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	result = tree_read(scratch->fd, entry, &manifest->arena, &err);
	assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
	/* One may be on its way. */
	assert_true(signal(SIGALRM, SIG_IGN) != SIG_ERR);
	(void) close(touched_fd);
	assert_fails(result, &err, MOAT_CHANGED, "keeps changing");
	assert_int_equal(entry->flags, 0);
	assert_ok(tree_read(scratch->fd, entry, &manifest->arena, &err), &err);
	assert_int_equal(entry->flags, MOAT_HAS_HASH);
}

/* ------------------------------------------------------------------------ extended attributes */

static void
test_xattrs(void **state)
{
	static const char list[] = "user.a\0\2\0\0\0xy"
				   "user.b\0\0\0\0\0"
				   "user.c\0\1\0\0\0z";
	const struct scratch *scratch = *state;
	AUTO_MANIFEST struct manifest *manifest = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	struct arena arena = {0};
	struct moat_entry *entry;
	const void *xattrs;
	uint32_t size;
	int fd;

	put(scratch->fd, "file", "text");
	fd = openat(scratch->fd, "file", O_RDWR | O_CLOEXEC);
	if (fsetxattr(fd, "user.c", "z", 1, 0) < 0 && errno == EOPNOTSUPP) {
		assert_ok(tree_xattrs(fd, &arena, &xattrs, &size, &err), &err);
		assert_null(xattrs);
		assert_ok(tree_set_xattrs(fd, NULL, 0, &err), &err);
		assert_fails(tree_set_xattrs(fd, list, 13, &err), &err, MOAT_UNSUPPORTED, "user.a");
		(void) close(fd);
		skip();
	}
	assert_int_equal(fsetxattr(fd, "user.a", "xy", 2, 0), 0);
	assert_int_equal(fsetxattr(fd, "user.b", "", 0, 0), 0);
	assert_ok(tree_xattrs(fd, &arena, &xattrs, &size, &err), &err);
	assert_int_equal(size, sizeof list - 1);
	assert_memory_equal(xattrs, list, size);
	/* A file's are read with its content, a directory's by the walk. */
	assert_int_equal(setxattr(path_of((char[128]){0}, scratch, "ws"), "user.c", "z", 1, 0), 0);
	manifest = scan(scratch, NULL);
	assert_int_equal(manifest->entries[0]->xattrs_size, 12);
	entry = entry_of(manifest, "file");
	assert_null(entry->xattrs);
	assert_ok(tree_read(scratch->fd, entry, &manifest->arena, &err), &err);
	assert_int_equal(entry->xattrs_size, sizeof list - 1);
	assert_memory_equal(entry->xattrs, list, sizeof list - 1);
	/* Made so again: one is wrong, one is too many, one is missing. */
	assert_int_equal(fsetxattr(fd, "user.a", "other", 5, 0), 0);
	assert_int_equal(fsetxattr(fd, "user.d", "", 0, 0), 0);
	assert_int_equal(fremovexattr(fd, "user.c"), 0);
	assert_ok(tree_set_xattrs(fd, list, sizeof list - 1, &err), &err);
	assert_ok(tree_xattrs(fd, &arena, &xattrs, &size, &err), &err);
	assert_int_equal(size, sizeof list - 1);
	assert_memory_equal(xattrs, list, size);
	assert_ok(tree_set_xattrs(fd, NULL, 0, &err), &err);
	assert_ok(tree_xattrs(fd, &arena, &xattrs, &size, &err), &err);
	assert_null(xattrs);
	assert_int_equal(size, 0);
	arena_free(&arena);
	(void) close(fd);
}

/* Nothing is set of a list that is not wholly good. */
static void
test_xattrs_refused(void **state)
{
	static const char good[] = "user.a\0\2\0\0\0xy";
	static const char forbidden[] = "user.a\0\0\0\0\0security.capability\0\0\0\0\0";
	static const char overlay[] = "trusted.overlay.opaque\0\1\0\0\0y";
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	int fd;

	put(scratch->fd, "file", "text");
	fd = openat(scratch->fd, "file", O_RDWR | O_CLOEXEC);
	for (uint32_t size = 1; size < sizeof good - 1; size++)
		assert_fails(tree_set_xattrs(fd, good, size, &err), &err, MOAT_CORRUPT,
			     "malformed");
	assert_fails(tree_set_xattrs(fd, "\0\0\0\0\0", 5, &err), &err, MOAT_CORRUPT, "malformed");
	assert_fails(tree_set_xattrs(fd, forbidden, sizeof forbidden - 1, &err), &err,
		     MOAT_PERMISSION, "security.capability");
	assert_fails(tree_set_xattrs(fd, overlay, sizeof overlay - 1, &err), &err, MOAT_PERMISSION,
		     "trusted.overlay.opaque");
	assert_int_equal(fgetxattr(fd, "user.a", NULL, 0), -1);
	(void) close(fd);
}

#define TEST(test)                                                                                 \
	{                                                                                          \
#test, test, setup, teardown, NULL                                                 \
	}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_types),
		TEST(test_left_out),
		TEST(test_previous),
		TEST(test_racy),
		TEST(test_hard_links),
		TEST(test_unreadable),
		TEST(test_mounts),
		TEST(test_deep),
		TEST(test_race),
		TEST(test_open),
		TEST(test_read),
		TEST(test_read_torn),
		TEST(test_xattrs),
		TEST(test_xattrs_refused),
		TEST(test_compare),
		TEST(test_compare_failing),
		TEST(test_compare_interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
