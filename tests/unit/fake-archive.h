/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of snapshot-archive: a host and a core that are small enough to be seen through.
 * What imitates core/snap.c here is written to sdk/moat/plugin.h, not after its code. */
#ifndef MOAT_TESTS_UNIT_FAKE_ARCHIVE_H
#define MOAT_TESTS_UNIT_FAKE_ARCHIVE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "world.h"

/* What the callbacks of one call do and see.  The hooks are called by several threads at once. */
struct session {
	struct world *world;
	struct tree *tree;
	struct moat_ref ref;
	struct moat_error err;
	/* Called in stored(), with how often it was called for this file; returns what stored()
	 * does. */
	int (*on_stored)(struct session *session, size_t index, unsigned times);
	/* Code with which open() refuses, or 0. */
	int (*on_open)(struct session *session, size_t index);
	unsigned *times;      /* per entry, of stored() */
	pthread_t thread;     /* that made the call */
	atomic_bool stranger; /* a callback came from another thread than the test's */
	atomic_size_t opened, done, damaged, refused;
	bool place;           /* materialise into out/, by index; false: verify */
	atomic_bool wrong;    /* something was given back as done that is not the content */
	const char *manifest; /* NULL: "the manifest" */
	size_t manifest_size; /* 0: its length as a string */
};

/* What the fake host does, in all threads. */
extern atomic_long fake_cancel_after;        /* polls until cancelled(); -1: never */
extern void (*_Atomic fake_on_poll)(void);   /* called in cancelled(); or NULL */
extern atomic_int fake_warnings, fake_infos; /* lines of the log */
extern atomic_bool fake_position_hash;       /* a hash for which zeros cost nothing */
extern const struct moat_host fake_host;
/* Of the plugin, for the next handle; NULL: not configured. */
void fake_configure(const char *key, const char *text);
void fake_reset(void); /* all of the above */

void world_reopen(struct world *world);
/* Sets the key, or unsets it (NULL), and reopens. */
void world_configure(struct world *world, const char *key, const char *text);
/* With what is configured no handle can be had: bad usage, in those words. */
void assert_not_opened(struct world *world, const char *text);
/* Runs `sh -c script sh arguments...`; its exit status. */
int run_shell(const char *script, ...);

/* By components, so that paths above PATH_MAX can be had. */
int open_deep(int rootfd, const char *path, int flags);

/* Captures; 0 or -1 with session->err. */
int capture(struct session *session);
/* Materialises or verifies everything in the tree; out/ is emptied first. */
int extract(struct session *session);
void session_free(struct session *session);

/* ---- check-archive.c ---- */

/* Scans, captures, and asserts that it worked. */
struct tree *capture_ok(struct world *world, const struct tree *previous, struct moat_ref *ret);
/* Materialises and compares every file with the source, byte for byte; then verifies. */
void assert_restores(struct world *world, struct tree *tree);
/* Extracts all packs, oldest first, with stock tools, which must not complain (but of times that
 * GNU tar restores and finds implausible), and compares. */
void assert_stock_tools_restore(struct world *world);
/* live: what stays, or NULL. */
void remove_ok(struct world *world, const char *ref, struct tree *live);
/* The same with several trees that stay, and manifests; each NULL-terminated. */
int remove_but(struct world *world, const char *ref, struct tree *const *live,
	       const char *const *manifests, struct moat_error *err);
/* A file that may not grow beyond that size stands for a full disk; until empty_disk(). */
void fill_disk(rlim_t size);
void empty_disk(void);
/* Captures with a disk that is full at each multiple of step in turn, until one is large enough;
 * says how many were not.  They leave nothing in the store. */
long sweep_full_disk(struct session *session, rlim_t step);
size_t count_manifests(struct world *world);
size_t count_removed(struct world *world); /* those of removed snapshots */

#endif
