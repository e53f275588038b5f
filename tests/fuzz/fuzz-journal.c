/* SPDX-License-Identifier: Apache-2.0 */
/* A directory txn/TXN as a crash, or somebody, may have left it, given to the recovery.  It must
 * not crash, and must not touch anything outside of the workspace.
 *
 * The input is a list of files: a byte that says which, two bytes of length, content.  JSON is read
 * here and written again with the workspace replaced by one that exists here, since its path and
 * inode could not be guessed; the digests of a plan are made right. */
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/fs.h"
#include "core/log.h"
#include "core/txn_internal.h"
#include "tests/fuzz/fuzz-plan.h"

#define TXN "txn_0123456789ab"
#define INSIDE ".moat-txn_0123456789ab"

static const char *const names[] = {"intent",   "plan", "commit",  "undo", "done-new",
				    "done-old", "kept", "prelude", "lock"};
#define NAMES (sizeof names / sizeof names[0])

static struct {
	char path[64];
	int fd; /* of it */
	struct home *home;
} world;

static void
remove_world(void)
{
	(void) fs_remove_tree(AT_FDCWD, world.path, NULL);
}

static void
make_world(void)
{
	const char *tmp = getenv("TMPDIR");
	struct moat_error err = MOAT_ERROR_INIT;
	char home[80];

	log_set_level(-2);
	(void) snprintf(world.path, sizeof world.path, "%s/moat-fuzz.XXXXXX",
			tmp == NULL || strlen(tmp) > 40 ? "/tmp" : tmp);
	FUZZ_CHECK(mkdtemp(world.path) != NULL);
	atexit(remove_world);
	world.fd = open(world.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void) snprintf(home, sizeof home, "%s/home", world.path);
	FUZZ_CHECK(world.fd >= 0 && home_open(home, &world.home, &err) == 0);
}

/* ------------------------------------------------------------------ the workspace, and around it
 */

static void
make_file(int dirfd, const char *path, const char *content)
{
	int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};

	FUZZ_CHECK(fd >= 0 && fs_write_all(fd, content, strlen(content), path, NULL) == 0);
	FUZZ_CHECK(futimens(fd, times) == 0);
	close(fd);
}

static void
make_directory(const char *path)
{
	FUZZ_CHECK(mkdirat(world.fd, path, 0750) == 0);
}

/* Links out of the workspace stand where a plan may lead through them. */
static void
make_trees(void)
{
	make_directory("outside");
	make_directory("outside/d");
	make_file(world.fd, "outside/a", "canary");
	make_file(world.fd, "outside/d/b", "canary");
	make_directory("ws");
	make_directory("ws/d");
	make_directory("ws/e");
	make_directory("ws/f");
	make_file(world.fd, "ws/a", "a");
	make_file(world.fd, "ws/d/b", "b");
	FUZZ_CHECK(symlinkat("../outside", world.fd, "ws/out") == 0);
	FUZZ_CHECK(symlinkat("../../outside", world.fd, "ws/e/out") == 0);
	FUZZ_CHECK(symlinkat("ws", world.fd, "link") == 0);
	make_directory("home/txn/" TXN);
}

#define STAGE_INSIDE "ws/" INSIDE
#define STAGE_OUTSIDE "home/txn/" TXN "/stage"

/* Both places where a stage can be hold the same objects. */
static void
make_stages(void)
{
	make_directory(STAGE_INSIDE);
	make_directory(STAGE_OUTSIDE);
	for (int i = 0; i < 8; i++) {
		char inside[64], outside[64];

		(void) snprintf(inside, sizeof inside, STAGE_INSIDE "/n%d", i);
		(void) snprintf(outside, sizeof outside, STAGE_OUTSIDE "/n%d", i);
		if (i % 2 == 0)
			make_file(world.fd, inside, "n");
		else
			FUZZ_CHECK(symlinkat("../../outside", world.fd, inside) == 0);
		FUZZ_CHECK(linkat(world.fd, inside, world.fd, outside, 0) == 0);
	}
}

static struct buf *seen;

static int
note(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	buf_format(seen, "%s %o %u:%u %lld %lld.%ld\n", path, (unsigned) st->st_mode,
		   (unsigned) st->st_uid, (unsigned) st->st_gid, (long long) st->st_size,
		   (long long) st->st_mtim.tv_sec, (long) st->st_mtim.tv_nsec);
	return 0;
}

/* Everything that nobody may touch: the directory beside the workspace, and the other parts of the
 * home.  A canary that was written to would have another time. */
static void
look(struct buf *ret)
{
	static const char *const parts[] = {"outside", "home/runs", "home/workspaces"};

	seen = ret;
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
		char path[96];

		(void) snprintf(path, sizeof path, "%s/%s", world.path, parts[i]);
		FUZZ_CHECK(nftw(path, note, 16, FTW_PHYS) == 0);
	}
	FUZZ_CHECK(buf_check(ret, NULL) == 0);
}

/* ------------------------------------------------------------------------------- the journal */

/* By the first byte of what it says. */
static void
replace_workspace(json_t *object, const char *key)
{
	static const char *const choices[] = {"ws", "ws",   "ws",   "ws",
					      "ws", "ws/d", "link", "missing"};
	const char *text = json_string_value(json_object_get(object, key));
	char path[96];

	if (text == NULL)
		return;
	(void) snprintf(path, sizeof path, "%s/%s", world.path,
			choices[(unsigned char) text[0] % 8]);
	json_object_set_new(object, key, json_string(path));
}

/* Base64 would lead past the replacement. */
static void
put_json(int dirfd, const char *name, const uint8_t *data, size_t size)
{
	json_t *object = json_loadb((const char *) data, size, 0, NULL);
	struct stat st;
	char *text;

	if (!json_is_object(object)) {
		json_decref(object);
		return;
	}
	replace_workspace(object, "workspace");
	replace_workspace(object, "path");
	json_object_del(object, "workspace_base64");
	json_object_del(object, "path_base64");
	/* 0: really another one. */
	if (json_integer_value(json_object_get(object, "ino")) != 0 &&
	    fstatat(world.fd, "ws", &st, 0) == 0) {
		json_object_set_new(object, "ino", json_integer((json_int_t) st.st_ino));
		json_object_set_new(object, "dev", json_integer((json_int_t) st.st_dev));
	}
	text = json_dumps(object, 0);
	FUZZ_CHECK(text != NULL);
	make_file(dirfd, name, text);
	free(text);
	json_decref(object);
}

/* Inodes that could not be guessed; one that is 0 stays wrong. */
static void
set_inodes(struct plan *plan)
{
	int ws = openat(world.fd, "ws", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	for (size_t i = 0; i < plan->from->count; i++) {
		struct moat_entry *entry = (struct moat_entry *) plan->from->entries[i];

		if (entry->ino != 0 && entry->path[0] != '\0' &&
		    fstatat(ws, entry->path, &st, AT_SYMLINK_NOFOLLOW) == 0)
			entry->ino = st.st_ino;
	}
	close(ws);
	for (size_t i = 0; i < plan->count; i++) {
		char name[64];

		(void) snprintf(name, sizeof name, STAGE_INSIDE "/n%llx",
				(unsigned long long) plan->ops[i].number);
		if (plan->ops[i].ino != 0 && fstatat(world.fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			plan->ops[i].ino = st.st_ino;
	}
}

static void
put_plan(int dirfd, const uint8_t *data, size_t size)
{
	AUTO_FREE uint8_t *copy = fuzz_copy(data, size);
	AUTO_BUF struct buf encoded = {0};
	struct plan plan = {0};
	int fd = openat(dirfd, "plan", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	fuzz_fix_plan(copy, size);
	if (plan_decode(copy, size, &plan, NULL) == 0) {
		set_inodes(&plan);
		FUZZ_CHECK(plan_encode(&plan, &encoded, NULL) == 0);
	} else {
		buf_append(&encoded, copy, size);
	}
	plan_free(&plan);
	FUZZ_CHECK(fd >= 0 && fs_write_all(fd, encoded.data, encoded.size, "plan", NULL) == 0);
	close(fd);
}

static void
put_journal(const uint8_t *data, size_t size)
{
	int dirfd = openat(world.home->txn_fd, TXN, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	FUZZ_CHECK(dirfd >= 0);
	while (size >= 3) {
		const char *name = names[data[0] % NAMES];
		size_t length = (size_t) data[1] | (size_t) data[2] << 8;

		data += 3;
		size -= 3;
		length = length < size ? length : size;
		if (strcmp(name, "plan") == 0)
			put_plan(dirfd, data, length);
		else if (strcmp(name, "intent") == 0 || strcmp(name, "prelude") == 0)
			put_json(dirfd, name, data, length);
		else
			make_file(dirfd, name, "");
		data += length;
		size -= length;
	}
	close(dirfd);
}

static void
clear_world(void)
{
	static const char *const parts[] = {"outside", "ws", "link", "missing"};
	struct moat_error err = MOAT_ERROR_INIT;

	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		FUZZ_CHECK(fs_remove_tree(world.fd, parts[i], &err) == 0);
	FUZZ_CHECK(fs_remove_tree(world.home->txn_fd, TXN, &err) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_BUF struct buf before = {0}, after = {0};
	struct txn_recovery counts;

	if (world.home == NULL)
		make_world();
	make_trees();
	make_stages();
	put_journal(data, size);
	look(&before);
	/* Twice, as the next command would. */
	for (int i = 0; i < 2; i++) {
		struct moat_error err = MOAT_ERROR_INIT;

		fuzz_check_result(txn_recover(world.home, &counts, &err), &err);
	}
	look(&after);
	FUZZ_CHECK(before.size == after.size && memcmp(before.data, after.data, before.size) == 0);
	clear_world();
	return 0;
}
