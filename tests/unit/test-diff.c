/* SPDX-License-Identifier: Apache-2.0 */
/* What counts as a difference, and that each is visited once, in order. */
#include "tests/unit/test.h"

#include "common/diff.h"

static struct moat_entry *
add(struct manifest *manifest, const char *path, int type)
{
	struct moat_entry entry = {.path = path,
				   .type = (uint8_t) type,
				   .mode = 0644,
				   .nlink = 1,
				   .ino = 1,
				   .leader = MOAT_NO_LEADER,
				   .link_target = type == MOAT_SYMLINK ? "target" : NULL};
	struct moat_entry *added = manifest_add(manifest, &entry);

	assert_non_null(added);
	return added;
}

/* How two files of the same path differ, each changed by one statement. */
#define CHANGE(type, change_a, change_b)                                                           \
	({                                                                                         \
		AUTO_MANIFEST struct manifest *m_ = manifest_new();                                \
		AUTO_MANIFEST struct manifest *n_ = manifest_new();                                \
		struct moat_entry *a = add(m_, "x", type), *b = add(n_, "x", type);                \
		a->size = b->size = type == MOAT_FILE ? 4 : 0;                                     \
		change_a;                                                                          \
		change_b;                                                                          \
		diff_entries(m_, a, n_, b);                                                        \
	})

static void
set_hash(struct moat_entry *entry, int value)
{
	memset(entry->hash, value, sizeof entry->hash);
	entry->flags |= MOAT_HAS_HASH;
}

static void
test_files(void **state)
{
	assert_int_equal(CHANGE(MOAT_FILE, , ), DIFF_SAME);
	assert_int_equal(CHANGE(MOAT_FILE, a->size = 5, ), DIFF_MODIFIED);
	/* Without both hashes, times and inode decide. */
	assert_int_equal(CHANGE(MOAT_FILE, a->mtime_sec = 5, ), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_FILE, a->mtime_nsec = 5, ), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_FILE, a->ctime_sec = 5, ), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_FILE, a->ctime_nsec = 5, ), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_FILE, a->ino = 5, ), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_FILE, a->dev = 5, ), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_FILE, set_hash(a, 1), b->ino = 5), DIFF_MODIFIED);
	/* With both, they do. */
	assert_int_equal(CHANGE(MOAT_FILE, (set_hash(a, 1), a->mtime_sec = 5), set_hash(b, 1)),
			 DIFF_SAME);
	assert_int_equal(CHANGE(MOAT_FILE, set_hash(a, 1), set_hash(b, 2)), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_FILE, (a->size = 0, a->ino = 5), b->size = 0), DIFF_SAME);
}

static void
test_metadata(void **state)
{
	assert_int_equal(CHANGE(MOAT_FILE, a->mode = 0755, ), DIFF_MODE);
	assert_int_equal(CHANGE(MOAT_FILE, a->uid = 5, ), DIFF_MODE);
	assert_int_equal(CHANGE(MOAT_FILE, a->gid = 5, ), DIFF_MODE);
	assert_int_equal(CHANGE(MOAT_FILE, (a->xattrs = "a\0\1\0\0\0x", a->xattrs_size = 7), ),
			 DIFF_MODE);
	assert_int_equal(CHANGE(MOAT_FILE, (a->xattrs = "a\0\1\0\0\0x", a->xattrs_size = 7),
				(b->xattrs = "a\0\1\0\0\0y", b->xattrs_size = 7)),
			 DIFF_MODE);
	assert_int_equal(CHANGE(MOAT_FILE, (a->xattrs = "a\0\1\0\0\0x", a->xattrs_size = 7),
				(b->xattrs = "a\0\1\0\0\0x", b->xattrs_size = 7)),
			 DIFF_SAME);
	assert_int_equal(CHANGE(MOAT_FILE, (a->mode = 0, a->size = 9), ), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_FILE, a->nlink = 5, ), DIFF_SAME);
}

static void
test_links_and_directories(void **state)
{
	assert_int_equal(CHANGE(MOAT_SYMLINK, , ), DIFF_SAME);
	assert_int_equal(CHANGE(MOAT_SYMLINK, a->link_target = "other", ), DIFF_MODIFIED);
	assert_int_equal(CHANGE(MOAT_SYMLINK, a->mtime_sec = a->mode = 5, ), DIFF_SAME);
	assert_int_equal(CHANGE(MOAT_SYMLINK, a->uid = 5, ), DIFF_MODE);
	assert_int_equal(CHANGE(MOAT_DIRECTORY, a->mtime_sec = a->ino = a->size = 5, ), DIFF_SAME);
	assert_int_equal(CHANGE(MOAT_DIRECTORY, a->mode = 0700, ), DIFF_MODE);
	assert_int_equal(CHANGE(MOAT_DIRECTORY, a->type = MOAT_FILE, ), DIFF_TYPE);
}

static void
test_absent(void **state)
{
	struct moat_entry entry = {.path = "x", .type = MOAT_FILE};

	assert_int_equal(diff_entries(NULL, NULL, NULL, &entry), DIFF_ADDED);
	assert_int_equal(diff_entries(NULL, &entry, NULL, NULL), DIFF_DELETED);
	assert_int_equal(diff_entries(NULL, NULL, NULL, NULL), DIFF_SAME);
}

/* The content of a hard link is its leader's, and which name leads does not matter. */
static void
test_hard_links(void **state)
{
	AUTO_MANIFEST struct manifest *from = manifest_new();
	AUTO_MANIFEST struct manifest *to = manifest_new();
	struct moat_error err = MOAT_ERROR_INIT;
	struct moat_entry *entry;

	for (int i = 0; i < 2; i++) {
		entry = add(from, i == 0 ? "a" : "b", MOAT_FILE);
		entry->nlink = 2;
		entry->size = 4;
		entry = add(to, i == 0 ? "0" : "b", MOAT_FILE);
		entry->nlink = 2;
		entry->size = 4;
	}
	assert_ok(manifest_seal(from, &err), &err);
	assert_ok(manifest_seal(to, &err), &err);
	set_hash((struct moat_entry *) from->entries[0], 1);
	set_hash((struct moat_entry *) to->entries[0], 1);
	((struct moat_entry *) to->entries[0])->ino = 9;
	assert_int_equal(to->entries[1]->leader, 0);
	assert_int_equal(diff_entries(from, from->entries[1], to, to->entries[1]), DIFF_SAME);
	set_hash((struct moat_entry *) to->entries[0], 2);
	assert_int_equal(diff_entries(from, from->entries[1], to, to->entries[1]), DIFF_MODIFIED);
}

struct visits {
	char text[256];
	int stop_after;
};

static int
visit(void *context, const struct diff_item *item, struct moat_error *err)
{
	struct visits *visits = context;
	size_t used = strlen(visits->text);

	if (visits->stop_after-- == 0)
		return moat_fail(err, MOAT_CANCELLED, "enough");
	assert_true(item->from == NULL || strcmp(item->from->path, item->path) == 0);
	assert_true(item->to == NULL || strcmp(item->to->path, item->path) == 0);
	assert_true((item->from == NULL) == (item->change == DIFF_ADDED));
	assert_true((item->to == NULL) == (item->change == DIFF_DELETED));
	(void) snprintf(visits->text + used, sizeof visits->text - used, "%s %s\n",
			diff_text(item->change), item->path);
	return 0;
}

static void
test_manifests(void **state)
{
	AUTO_MANIFEST struct manifest *from = manifest_new();
	AUTO_MANIFEST struct manifest *to = manifest_new();
	struct moat_error err = MOAT_ERROR_INIT;
	struct visits visits = {.stop_after = -1}, again = {.stop_after = 2};

	(void) add(from, "", MOAT_DIRECTORY);
	(void) add(from, "d", MOAT_DIRECTORY);
	(void) add(from, "d/gone", MOAT_FILE);
	(void) add(from, "d/kept", MOAT_FILE);
	(void) add(from, "d.c", MOAT_FILE);
	(void) add(from, "mode", MOAT_FILE);
	(void) add(from, "type", MOAT_FILE);
	(void) add(from, "z", MOAT_FILE);
	(void) add(to, "", MOAT_DIRECTORY);
	(void) add(to, "a", MOAT_SYMLINK);
	(void) add(to, "d", MOAT_DIRECTORY);
	(void) add(to, "d/kept", MOAT_FILE);
	(void) add(to, "d/new", MOAT_FILE);
	add(to, "d.c", MOAT_FILE)->size = 7;
	add(to, "mode", MOAT_FILE)->mode = 0600;
	(void) add(to, "type", MOAT_DIRECTORY);
	(void) add(to, "type/x", MOAT_FILE);
	assert_ok(manifest_seal(from, &err), &err);
	assert_ok(manifest_seal(to, &err), &err);
	assert_ok(diff_manifests(from, to, visit, &visits, &err), &err);
	assert_string_equal(visits.text, "added a\ndeleted d/gone\nadded d/new\nmodified d.c\n"
					 "mode mode\ntype type\nadded type/x\ndeleted z\n");
	assert_fails(diff_manifests(from, to, visit, &again, &err), &err, MOAT_CANCELLED, "enough");
	assert_string_equal(again.text, "added a\ndeleted d/gone\n");
	visits.text[0] = '\0';
	assert_ok(diff_manifests(from, from, visit, &visits, &err), &err);
	assert_string_equal(visits.text, "");
	assert_string_equal(diff_text(DIFF_SAME), "same");
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_metadata),
		cmocka_unit_test(test_links_and_directories),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_hard_links),
		cmocka_unit_test(test_manifests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
