/* SPDX-License-Identifier: Apache-2.0 */
/* What any snapshot backend must do, whatever it stores and how: the core's side of
 * sdk/moat/plugin.h, small enough to be seen through.  A backend is a loaded plugin, called through
 * the core's own wrappers; nothing here knows more of it than its table.
 *
 * The callbacks may come from threads of the backend, where a failed assertion could not be
 * reported: they note what is wrong, and assertions follow when the call has returned. */
#ifndef MOAT_TESTS_UNIT_CONFORMANCE_H
#define MOAT_TESTS_UNIT_CONFORMANCE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/backend.h"
#include "test.h"

/* The backend under test, and where its stores may lie. */
struct subject {
	const struct plugin *plugin;
	const char *directory;
	/* Its verify does not read what no entry is about, and a removed snapshot's manifest is not
	 * enumerated: what hangs on that is left out. */
	bool lax;
};
extern struct subject subject;

/* A directory with src/ (the workspace), store/ and out/ in it, and an opened handle. */
struct world {
	char *path, *src, *store, *out;
	int src_fd, store_fd, out_fd;
	struct backend *backend;
	unsigned next_id;
};

/* A workspace as it was when scanned; what capture finds out is put into it. */
struct tree {
	struct moat_entry *entries;
	const struct moat_entry **items;
	uint8_t (*truth)[MOAT_HASH_SIZE]; /* per entry: hash of a file's content, by us */
	size_t count;
	struct moat_entries list;
	struct moat_ref ref;
};

/* What the callbacks of one call do and see. */
struct session {
	struct world *world;
	struct tree *tree;
	struct moat_ref ref;
	struct moat_error err;
	char id[32]; /* "": the next one */
	/* All may be NULL, and are called with the lock held. on_open: a code with which open()
	 * refuses, or 0.  on_stored: what stored() returns, `times` being how often it was called
	 * for that file.  on_place, on_done, on_damaged, on_manifest: nonzero makes it fail. */
	int (*on_open)(struct session *session, size_t index);
	int (*on_stored)(struct session *session, size_t index, unsigned times);
	int (*on_manifest)(struct session *session);
	int (*on_place)(struct session *session, size_t index);
	int (*on_done)(struct session *session, size_t index);
	int (*on_damaged)(struct session *session, size_t index);
	unsigned *times;                 /* per entry, of stored() */
	const struct moat_entry **files; /* materialise: the entries that were asked for */
	size_t file_count;
	bool *is_done; /* per file */
	size_t opened, stored, done, damaged;
	bool place;            /* materialise into out/, by index; false: verify */
	const char *violation; /* of the contract, by the backend; the first one */
	pthread_mutex_t lock;
};

/* ---- conformance.c: worlds and calls ---- */

int world_setup(void **state);
int world_teardown(void **state);
struct world *world_new(void);
void world_free(struct world *world);
struct backend *world_open(const struct world *world); /* another handle on its store */

/* 0 or -1 with session->err; a violation fails the test. */
int capture(struct session *session);
int capture_raw(struct session *session); /* asserts nothing: for other threads and processes */
/* Materialises or verifies everything in the tree; out/ is emptied first. */
int extract(struct session *session);
int extract_with(struct session *session, struct backend *backend); /* asserts nothing */
void extract_end(struct session *session); /* frees what the session learned by extract_with() */

/* Polls of host->cancelled() until it says yes; -1: never. */
void cancel_after(long polls);

/* Scans and captures; the tree has the ref. */
struct tree *capture_ok(struct world *world, const struct tree *previous);
/* Materialises and compares every file with the truth; then verifies. */
void assert_restores(struct world *world, struct tree *tree);
/* Verifies: whether damage was told of, in whichever way.  Content that is wrong and called right
 * fails the test. */
bool finds_damage(struct world *world, struct tree *tree);
/* Removes ref; the trees (NULL-terminated, or NULL: none) stay, with their manifests. */
void remove_ok(struct world *world, const char *ref, struct tree *const *live);
int remove_with(struct world *world, const char *ref, const struct moat_live *live,
		struct moat_error *err);

/* ---- conformance-tree.c: trees ---- */

void make_file(struct world *world, const char *name, const void *data, size_t size);
void make_random_file(struct world *world, const char *name, size_t size);
/* A file of that size with "data" at some places and holes elsewhere. */
void
make_sparse(struct world *world, const char *name, off_t size, size_t count, const off_t *data);
/* Adds, changes, removes, links some random objects, with names of any bytes, at any depth. */
void change_at_random(struct world *world);

/* What is not changed since `previous` (or NULL) is MOAT_SAME. */
struct tree *tree_scan(struct world *world, const struct tree *previous);
void tree_free(struct tree *tree);
size_t tree_index(const struct tree *tree, const char *path); /* must be there */
/* Calls visit for each file without leader. */
int tree_each(const struct tree *tree,
	      int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
	      void *context, struct moat_error *err);
void hash_file(int dirfd, const char *path, uint8_t ret[MOAT_HASH_SIZE]);

/* A file of the store, by its path there. */
struct stored_file {
	char *path;
	char *data;
	size_t size;
};
struct store_listing {
	struct stored_file *items;
	size_t count;       /* files */
	size_t directories; /* below the store */
	uint64_t bytes;     /* of all files */
};
/* contents: also reads the files. */
void store_list(struct world *world, bool contents, struct store_listing *ret);
void store_listing_free(struct store_listing *listing);
/* Opens for writing, though the file may be read-only. */
int store_open_for_writing(struct world *world, const char *path);
void assert_store_is_empty(struct world *world);

/* Random numbers with a seed that is printed (xorshift64*). */
void random_start(void);
uint64_t random_below(uint64_t limit);

/* ---- the tests, by file ---- */

extern const struct CMUnitTest content_tests[], store_tests[], failure_tests[];
extern const size_t content_test_count, store_test_count, failure_test_count;
#define CONFORMANCE_TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

#endif
