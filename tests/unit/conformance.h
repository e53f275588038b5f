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

#include "core/backend.h"
#include "world.h"

/* The backend under test, and where its stores may lie. */
struct subject {
	const struct plugin *plugin;
	const char *directory;
	/* Its verify does not read what no entry is about, and a removed snapshot's manifest is not
	 * enumerated: what hangs on that is left out. */
	bool lax;
};
extern struct subject subject;

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

/* ---- conformance.c: calls ---- */

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

/* ---- conformance-tree.c ---- */

/* Adds, changes, removes, links some random objects, with names of any bytes, at any depth. */
void change_at_random(struct world *world);
/* As tree_scan_source(), with the truth. */
struct tree *tree_scan(struct world *world, const struct tree *previous);
void hash_file(int dirfd, const char *path, uint8_t ret[MOAT_HASH_SIZE]);

/* ---- the tests, by file ---- */

extern const struct CMUnitTest content_tests[], store_tests[], failure_tests[];
extern const size_t content_test_count, store_test_count, failure_test_count;

#endif
