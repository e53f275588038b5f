/* SPDX-License-Identifier: Apache-2.0 */
/* What all tests of snapshot backends work in: a workspace, what the core would find in it, and a
 * store.  The handle is opened by conformance.c or by fake-archive.c. */
#ifndef MOAT_TESTS_UNIT_WORLD_H
#define MOAT_TESTS_UNIT_WORLD_H

#include <stdbool.h>
#include <stdio.h>

#include "test.h"

/* A directory with src/ (the workspace), store/ and out/ in it, and an opened handle. */
struct world {
	char *path, *src, *store, *out;
	int src_fd, store_fd, out_fd;
	unsigned next_id;
	/* The handle: through the core's wrappers (conformance.c), or the plugin's own
	 * (fake-archive.c). */
	struct backend *backend;
	const struct moat_snapshot_ops *ops;
	void *self;
};

/* A workspace as it was when scanned; what capture finds out is put into it. */
struct tree {
	struct moat_entry *entries;
	const struct moat_entry **items;
	uint8_t (*truth)[MOAT_HASH_SIZE]; /* per entry: hash of a file's content, by us; or NULL */
	size_t count;
	struct moat_entries list;
	struct moat_ref ref;
};

/* ---- conformance.c or fake-archive.c, whichever is linked ---- */

struct world *world_new(void);
void world_free(struct world *world);
int world_setup(void **state);
int world_teardown(void **state);
#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

/* ---- world.c ---- */

/* The directories alone, without a handle. */
struct world *world_make(const char *parent);
void world_remove(struct world *world);
void empty_out(struct world *world);

void make_file(struct world *world, const char *name, const void *data, size_t size);
void make_random_file(struct world *world, const char *name, size_t size);
/* A file of that size, or longer when need be, with "data" at some places and holes elsewhere. */
void
make_sparse(struct world *world, const char *name, off_t size, size_t count, const off_t *data);

/* Random numbers with a seed that is printed (xorshift64*). */
void random_start(void);
uint64_t random_below(uint64_t limit);

/* ---- world-tree.c ---- */

/* What is not changed since `previous` (or NULL) is MOAT_SAME.  Leaves out the truth. */
struct tree *tree_scan_source(struct world *world, const struct tree *previous);
void tree_free(struct tree *tree);
size_t tree_index(const struct tree *tree, const char *path); /* must be there */
/* Calls visit for each file without leader. */
int tree_each(const struct tree *tree,
	      int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
	      void *context, struct moat_error *err);
/* The same for trees: live->context is their NULL-terminated list, or NULL. */
int live_each(const struct moat_live *live,
	      int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
	      void *context, struct moat_error *err);

/* ---- world-store.c ---- */

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
size_t store_count(struct world *world);   /* files and directories */
uint64_t store_bytes(struct world *world); /* of all files */
/* Opens for writing, though the file may be read-only. */
int store_open_for_writing(struct world *world, const char *path);
void assert_store_is_empty(struct world *world);

#endif
