/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of core/snap share.
 *
 *   snap.c          taking a snapshot: which backend, what is the previous one, the order of it all
 *   snap_take.c     the core's side of a capture
 *   snap_record.c   one record: snapshot.json and manifest
 *   snap_list.c     all records: listing, finding
 *   snap_live.c     the live tree through a snapshot's eyes
 *   snap_remove.c   deleting, what is left of interrupted work
 *   snap_rebuild.c  a lost index, from what the backend has
 *   snap_retain.c   retention
 *   snap_verify.c   reading everything back
 *
 * Below workspaces/HASH/snapshots:
 *
 *     SNAP/{snapshot.json,manifest}   a snapshot
 *     .new-SNAP-BACKEND/              one that is being taken
 *     .gone-SNAP/                     one that is being deleted
 *     .base-SNAP/                     one that was deleted, whose manifest others are written
 * against .lost-SNAP/, .bad-SNAP/         one that is being rebuilt, and the damaged one in its
 * place
 *
 * Whoever changes anything there holds the workspace's lock; readers take none. */
#ifndef MOAT_CORE_SNAP_INTERNAL_H
#define MOAT_CORE_SNAP_INTERNAL_H

#include <pthread.h>
#include <time.h>

#include "core/locator_set.h"
#include "core/snap.h"

#define NEW_PREFIX ".new-"
#define GONE_PREFIX ".gone-"
#define BASE_PREFIX ".base-"
#define LOST_PREFIX ".lost-"
#define BAD_PREFIX ".bad-"
#define SNAP_ID_LENGTH 17 /* snap_ and 12 hex digits */

/* A prefix and an id. */
#define SNAP_NAME_MAX 32
const char *snap_name(char out[SNAP_NAME_MAX], const char *prefix, const char *id);

/* Opens a backend on its directory of the workspace's store; *ret_store_fd must outlive it. */
int snap_open_backend(struct app *app, const struct workspace *workspace,
		      const struct plugin *plugin, const struct config *config, int *ret_store_fd,
		      struct backend **ret, struct moat_error *err);
/* By name, whatever would be chosen today. */
int snap_open_backend_named(struct app *app, const struct workspace *workspace, const char *name,
			    const char *snap_id, int *ret_store_fd, struct backend **ret,
			    struct moat_error *err);

/* ------------------------------------------------------------------------------------- records */

int snap_directory(const struct workspace *workspace, struct moat_error *err);
bool snap_is_id(const char *text);
int snap_parse(const json_t *json, const char *id, const char *hash, struct snap **ret,
	       struct moat_error *err);
/* The record in the directory `name', of the snapshot `id'. */
int snap_read_record(int all_fd, const char *name, const char *id, const char *hash,
		     struct snap **ret, struct moat_error *err);
/* Of the bytes that were read, none is another than was written, as far as the record itself tells.
 */
int
snap_check_record(int all_fd, const char *name, const struct snap *snap, struct moat_error *err);
/* Fills the directory `name', which exists, and makes it the record of the snapshot. */
int snap_record(int all_fd, const char *name, const struct snap *snap, const void *manifest,
		size_t size, struct moat_error *err);
/* The bytes of a manifest, which the caller frees, wherever that snapshot is. */
int snap_read_manifest(int all_fd, const char *id, char **ret, size_t *ret_size,
		       struct moat_error *err);
/* What the record says stands in the manifest, too. */
int snap_add_notes(struct manifest *manifest, const struct snap *snap, struct moat_error *err);

/* All records, newest first.  strict: one that cannot be read is a failure, since what it needs
 * cannot be known; else it is a warning. */
int snap_list_strict(const struct workspace *workspace, bool strict, struct snap_list *ret,
		     struct moat_error *err);
int snap_list_append(struct snap_list *list, struct snap *snap, struct moat_error *err);
void snap_list_sort(struct snap_list *list);
/* Records one after the other, the newest first; those that nobody asks for are not read. */
struct snap_dated {
	char id[SNAP_NAME_MAX];
	struct timespec mtime;
};
struct snap_recent {
	int all_fd;
	const char *hash;
	struct snap_dated *items;
	size_t count, allocated, at;
	struct snap_list batch; /* read already */
	size_t given;           /* of those */
};
#define SNAP_RECENT_INIT                                                                           \
	{                                                                                          \
		.all_fd = -1                                                                       \
	}
int snap_recent_open(struct snap_recent *recent, const struct workspace *workspace,
		     struct moat_error *err);
void snap_recent_close(struct snap_recent *recent);
#define AUTO_SNAP_RECENT CLEANUP(snap_recent_close)
/* 1 with the next one, which is borrowed until the call after; 0: there are no more. */
int snap_recent_next(struct snap_recent *recent, const struct snap **ret, struct moat_error *err);
/* True when the manifest of one of them is written against that of `id'. */
bool snap_is_base(const struct snap_list *list, const char *id);

/* ------------------------------------------------------------------------------------- content */

/* What the snapshots on record need of a backend's store. */
struct needed {
	struct locator_set set;
	const char **manifests; /* refs, NULL-terminated; borrowed from `list' and `bases' */
	struct snap_list list, bases;
};
void needed_free(struct needed *needed);
#define AUTO_NEEDED CLEANUP(needed_free)
int needed_find(struct app *app, const struct workspace *workspace, const char *backend,
		struct needed *ret, struct moat_error *err);
/* Adds the contents of one manifest. */
int needed_add(struct locator_set *set, const struct manifest *manifest, struct moat_error *err);
int snap_remove_content(struct backend *backend, const char *ref, const struct needed *needed,
			struct moat_error *err);

/* ------------------------------------------------------------------------------------- taking */

/* One capture under way; the core's side of struct moat_capture. */
struct taking {
	int root_fd;                      /* of the workspace */
	const struct snap_source *source; /* NULL: the workspace */
	bool keep_modes;                  /* those of the manifest, not of the open files */
	struct manifest *manifest;
	uint8_t *tries;                  /* per entry */
	bool *gone;                      /* per entry: not to be in the manifest */
	const struct moat_entry **given; /* the manifest's former list; or NULL */
	size_t *next_name;               /* per entry; NULL: no file has two names here */
	/* What the manifest is written against, if that is worth it. */
	const struct manifest *base;
	const char *base_id;
	const char *used_base; /* base_id when it was */
	struct buf encoded;
	bool finished;
	pthread_mutex_t lock;
};
void taking_free(struct taking *taking);
int taking_init(struct taking *taking, struct manifest *manifest, struct moat_error *err);
int taking_capture(struct taking *taking, struct backend *backend, const char *id,
		   const char *previous, struct moat_ref *ret, struct moat_error *err);

#endif
