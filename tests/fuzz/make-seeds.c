/* SPDX-License-Identifier: Apache-2.0 */
/* Inputs to begin with, written by the encoders themselves: make-seeds DIRECTORY makes
 * DIRECTORY/NAME/seed-* of the targets whose input is moat's own records.  tests/fuzz/seeds does
 * the rest. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/txn_internal.h"
#include "tests/fuzz/fuzz.h"

static int root_fd;

/* A byte of flags in front of it, unless that is negative. */
static void
put(const char *target, const char *name, int flags, const struct buf *content)
{
	uint8_t flag = (uint8_t) flags;
	char path[128];
	int fd;

	FUZZ_CHECK(mkdirat(root_fd, target, 0777) == 0 || errno == EEXIST);
	(void) snprintf(path, sizeof path, "%s/seed-%s", target, name);
	fd = openat(root_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	FUZZ_CHECK(fd >= 0);
	FUZZ_CHECK(flags < 0 || fs_write_all(fd, &flag, 1, path, NULL) == 0);
	FUZZ_CHECK(fs_write_all(fd, content->data, content->size, path, NULL) == 0);
	close(fd);
}

static void
add(struct manifest *manifest, const char *path, int type, const char *link, uint64_t ino)
{
	struct moat_entry entry = {.path = path,
				   .link_target = link,
				   .type = (uint8_t) type,
				   .mode = type == MOAT_DIRECTORY ? 0750 : 0640,
				   .size = type == MOAT_FILE ? 1
					   : link != NULL    ? strlen(link)
							     : 0,
				   .uid = (uint32_t) getuid(),
				   .gid = (uint32_t) getgid(),
				   .mtime_sec = 1000000000,
				   .nlink = ino == 7 ? 2 : 1,
				   .ino = ino,
				   .leader = MOAT_NO_LEADER};
	static const char xattr[] = "user.x\0\2\0\0\0yz";

	if (type == MOAT_FILE) {
		entry.flags = MOAT_HAS_HASH | MOAT_HAS_LOCATOR;
		memset(entry.hash, 'h', sizeof entry.hash);
		entry.locator[0] = 1;
		entry.locator[1] = 512;
		entry.xattrs = xattr;
		entry.xattrs_size = sizeof xattr - 1;
	}
	FUZZ_CHECK(manifest_add(manifest, &entry) != NULL);
}

/* The trees of fuzz-journal.c, as they are, and as a plan would have them. */
static struct manifest *
make_manifest(bool to)
{
	struct manifest *manifest = manifest_new();

	FUZZ_CHECK(manifest != NULL);
	add(manifest, "", MOAT_DIRECTORY, NULL, 1);
	add(manifest, "a", MOAT_FILE, NULL, to ? 20 : 2);
	add(manifest, "d", MOAT_DIRECTORY, NULL, 3);
	if (to)
		add(manifest, "d/c", MOAT_SYMLINK, "../a", 5);
	else
		add(manifest, "d/b", MOAT_FILE, NULL, 4);
	add(manifest, "e", MOAT_DIRECTORY, NULL, 6);
	add(manifest, to ? "g" : "f", MOAT_DIRECTORY, NULL, 8);
	FUZZ_CHECK(manifest_seal(manifest, NULL) == 0);
	return manifest;
}

static void
make_manifests(void)
{
	AUTO_MANIFEST struct manifest *plain = make_manifest(false), *rich = make_manifest(true);
	AUTO_BUF struct buf one = {0}, two = {0};
	struct moat_error err = MOAT_ERROR_INIT;

	FUZZ_CHECK(manifest_encode(plain, &one, &err) == 0);
	put("manifest", "plain", 1, &one);
	put("manifest", "digest", 0, &one);
	add(rich, "h1", MOAT_FILE, NULL, 7);
	add(rich, "h2", MOAT_FILE, NULL, 7);
	FUZZ_CHECK(manifest_add_skip(rich, "socket", SKIP_SPECIAL, "socket", NULL) == 0 &&
		   manifest_add_rule(rich, "d", 2, "*.o\n!x.o\n", 9, NULL) == 0 &&
		   manifest_seal(rich, NULL) == 0 && manifest_encode(rich, &two, &err) == 0);
	put("manifest", "rich", 1, &two);
#ifdef MANIFEST_ID_MAX
	{
		AUTO_MANIFEST struct manifest *base = NULL;
		AUTO_BUF struct buf difference = {0};

		FUZZ_CHECK(manifest_decode(one.data, one.size, &base, &err) == 0 &&
			   manifest_encode_difference(rich, base, "snap_000000000001", &difference,
						      &err) == 0);
		put("manifest", "difference", 3, &difference);
	}
#endif
}

/* What must be refused: nothing is sealed, so the encoder writes what it is given. */
static void
make_bad_manifest(const char *name, const char *first, const char *second)
{
	AUTO_MANIFEST struct manifest *manifest = manifest_new();
	AUTO_BUF struct buf encoded = {0};

	FUZZ_CHECK(manifest != NULL);
	add(manifest, "", MOAT_DIRECTORY, NULL, 1);
	add(manifest, first, MOAT_FILE, NULL, 2);
	add(manifest, second, MOAT_FILE, NULL, 3);
	FUZZ_CHECK(manifest_encode(manifest, &encoded, NULL) == 0);
	put("manifest", name, 1, &encoded);
}

static void
make_bad_plan(const char *name, const char *path, int64_t from, int64_t to)
{
	struct plan plan = {.from = manifest_new(), .to = make_manifest(true)};
	AUTO_BUF struct buf encoded = {0};

	FUZZ_CHECK(plan.from != NULL);
	add(plan.from, "", MOAT_DIRECTORY, NULL, 1);
	add(plan.from, path, MOAT_FILE, NULL, 2);
	FUZZ_CHECK(plan_add(&plan, OP_REPLACE, from, to) != NULL &&
		   plan_encode(&plan, &encoded, NULL) == 0);
	put("plan", name, 1, &encoded);
	plan_free(&plan);
}

static void
make_bad_ones(void)
{
	make_bad_manifest("bad-order", "b", "a");
	make_bad_manifest("bad-twice", "a", "a");
	make_bad_manifest("bad-parent", "..", "b");
	make_bad_manifest("bad-orphan", "a", "d/b");
	make_bad_plan("bad-none", "a", -1, -1);
	make_bad_plan("bad-index", "a", 99, 1);
	make_bad_plan("bad-path", "..", 1, 1);
}

static void
put_file(struct buf *out, int number, const void *data, size_t size)
{
	uint8_t head[3] = {(uint8_t) number, (uint8_t) (size & 255), (uint8_t) (size >> 8)};

	buf_append(out, head, sizeof head);
	buf_append(out, data, size);
}

/* One journal for each state: intent, plan, and the file that says how far it came. */
static void
make_journals(const struct buf *plan)
{
	static const char *const states[] = {"intent",   "",         "commit", "undo",
					     "done-new", "done-old", "kept"};

	for (int inside = 0; inside < 2; inside++) {
		for (int state = 0; state < 7; state++) {
			AUTO_BUF struct buf journal = {0}, intent = {0};
			char name[32];

			if (state == 1)
				continue;
			buf_format(&intent,
				   "{\"workspace\":\"0\",\"hash\":\"\",\"dev\":1,\"ino\":1,"
				   "\"stage_inside\":%s,\"root_mtime_sec\":1000000000,"
				   "\"root_mtime_nsec\":5}",
				   inside != 0 ? "true" : "false");
			put_file(&journal, 0, intent.data, intent.size);
			put_file(&journal, 1, plan->data, plan->size);
			if (state > 1)
				put_file(&journal, state, "", 0);
			(void) snprintf(name, sizeof name, "%s-%s", states[state],
					inside != 0 ? "inside" : "outside");
			put("journal", name, -1, &journal);
		}
	}
}

static void
make_plans(void)
{
	struct plan plan = {.from = make_manifest(false), .to = make_manifest(true)};
	AUTO_BUF struct buf encoded = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	static const struct {
		enum op_kind kind;
		const char *from, *to;
		uint64_t number; /* even ones are files in the stage, odd ones links */
	} ops[] = {
		{OP_OPEN, "d", NULL, 10},   {OP_DELETE, "d/b", NULL, 11}, {OP_RMDIR, "f", NULL, 12},
		{OP_CREATE, NULL, "g", 13}, {OP_CREATE, NULL, "d/c", 1},  {OP_REPLACE, "a", "a", 0},
		{OP_META, "a", "a", 14},    {OP_DIRMETA, "d", "d", 15},   {OP_DIRMETA, "", "", 16},
	};

	for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
		struct op *op =
			plan_add(&plan, ops[i].kind,
				 ops[i].from == NULL ? -1 : manifest_find(plan.from, ops[i].from),
				 ops[i].to == NULL ? -1 : manifest_find(plan.to, ops[i].to));

		FUZZ_CHECK(op != NULL);
		op->number = ops[i].number;
		op->ino = 1; /* the right one is put in its place */
	}
	FUZZ_CHECK(plan_encode(&plan, &encoded, &err) == 0);
	put("plan", "all", 1, &encoded);
	put("plan", "digest", 0, &encoded);
	make_journals(&encoded);
	plan_free(&plan);
}

int
main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "Usage: %s DIRECTORY\n", argv[0]);
		return 2;
	}
	root_fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0) {
		perror(argv[1]);
		return 1;
	}
	make_manifests();
	make_plans();
	make_bad_ones();
	close(root_fd);
	return 0;
}
