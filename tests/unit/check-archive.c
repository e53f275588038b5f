/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-archive: what the tests do with a store, and how they look at it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "fake-archive.h"

/* Names, types, modes, times to the nanosecond, link counts and contents, by find and sha256sum. */
static const char compare_script[] =
	"list() { cd \"$1\" && find . ! -name '.moat-manifest-*' "
	"\\( -type d -printf '%P %y %m %U:%G %T@\\0' -o -printf '%P %y %m %U:%G %T@ %s %n %l\\0' "
	"\\) "
	"| sort -z; "
	"find . -type f ! -name '.moat-manifest-*' -exec sha256sum -z -- {} + | sort -z; }\n"
	"list \"$1\" >\"$3/a\" && list \"$2\" >\"$3/b\" && test -s \"$3/a\" && "
	"cmp -s \"$3/a\" \"$3/b\"";

void
assert_stock_tools_restore(struct world *world)
{
	AUTO_FREE char *tar = NULL;

	assert_true(asprintf(&tar, "%s/tar", world->path) > 0);
	assert_int_equal(
		run_shell("set -e; rm -rf \"$2\"; mkdir \"$2\"; cd \"$1\"\n"
			  "for f in *.tar.lz4; do lz4 -dcq \"$f\" | tar -x -p -C \"$2\" "
			  "2>\"$2.err\"; "
			  "if grep -v -e 'implausibly old' -e 'in the future' \"$2.err\" >&2; "
			  "then exit 1; fi; "
			  "done\n"
			  "touch -r \"$3\" \"$2\"",
			  world->store, tar, world->src, NULL),
		0);
	assert_int_equal(run_shell(compare_script, world->src, tar, world->path, NULL), 0);
	/* The control. */
	assert_int_equal(run_shell("touch -d @77 \"$1\"", tar, NULL), 0);
	assert_int_not_equal(run_shell(compare_script, world->src, tar, world->path, NULL), 0);
}

int
remove_but(struct world *world, const char *ref, struct tree *const *live,
	   const char *const *manifests, struct moat_error *err)
{
	struct moat_live wanted = {sizeof wanted, (void *) (uintptr_t) live, live_each, manifests};

	return world->ops->remove(world->self, ref, &wanted, err);
}

void
remove_ok(struct world *world, const char *ref, struct tree *live)
{
	static const char *const none[] = {NULL};
	struct tree *const trees[] = {live, NULL};
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(remove_but(world, ref, trees, none, &err), &err);
}

struct manifests {
	size_t live, removed;
};

static int
find_manifest(void *context, const struct moat_ref *ref, const void *manifest, size_t size,
	      struct moat_error *err)
{
	struct manifests *found = context;

	assert_int_equal(size, strlen("the manifest"));
	assert_memory_equal(manifest, "the manifest", size);
	assert_true(ref->stored_bytes > 0);
	assert_int_equal(strncmp(ref->text, "snap_", 5), 0);
	assert_int_equal(strlen(ref->text), 17);
	++*(ref->flags == MOAT_REF_REMOVED ? &found->removed : &found->live);
	return 0;
}

static struct manifests
find_manifests(struct world *world)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct manifests found = {0};

	assert_ok(world->ops->enumerate(world->self, find_manifest, &found, &err), &err);
	return found;
}

size_t
count_manifests(struct world *world)
{
	return find_manifests(world).live;
}

size_t
count_removed(struct world *world)
{
	return find_manifests(world).removed;
}

struct tree *
capture_ok(struct world *world, const struct tree *previous, struct moat_ref *ret)
{
	struct session session = {.world = world, .tree = tree_scan_source(world, previous)};

	assert_ok(capture(&session), &session.err);
	assert_true(session.ref.stored_bytes > 0);
	if (ret != NULL)
		*ret = session.ref;
	return session.tree;
}

static struct rlimit disk_before;

void
fill_disk(rlim_t size)
{
	struct rlimit limit;

	(void) signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &disk_before), 0);
	limit = disk_before;
	limit.rlim_cur = size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

void
empty_disk(void)
{
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &disk_before), 0);
}

long
sweep_full_disk(struct session *session, rlim_t step)
{
	for (long points = 0;; points++) {
		int r;

		fill_disk((rlim_t) points * step);
		r = capture(session);
		empty_disk();
		if (r == 0)
			return points;
		assert_int_equal(session->err.sys_errno, EFBIG);
		assert_int_equal(store_count(session->world), 0);
	}
}

static void
assert_same_content(int a, int b)
{
	static _Thread_local char x[65536], y[65536];
	ssize_t n;

	assert_true(a >= 0 && b >= 0);
	do {
		n = read(a, x, sizeof x);
		assert_true(n >= 0);
		assert_int_equal(read(b, y, sizeof y), n);
		assert_memory_equal(x, y, (size_t) n);
	} while (n > 0);
	(void) close(a);
	(void) close(b);
}

void
assert_restores(struct world *world, struct tree *tree)
{
	struct session session = {.world = world, .tree = tree, .place = true};
	size_t files = 0;

	assert_ok(extract(&session), &session.err);
	for (size_t i = 0; i < tree->count; i++) {
		char name[32];

		if (tree->entries[i].type != MOAT_FILE || tree->entries[i].leader != MOAT_NO_LEADER)
			continue;
		(void) snprintf(name, sizeof name, "%zu", files++);
		assert_same_content(open_deep(world->src_fd, tree->entries[i].path, O_RDONLY),
				    openat(world->out_fd, name, O_RDONLY | O_CLOEXEC));
	}
	assert_int_equal(session.done, files);
	assert_false(session.wrong);
	session.place = false;
	session.done = 0;
	assert_ok(extract(&session), &session.err);
	assert_int_equal(session.done, files);
	assert_int_equal(session.damaged, 0);
}
