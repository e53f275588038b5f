/* SPDX-License-Identifier: Apache-2.0 */
/* The manifest of a snapshot: what was captured, what was not and why, by which rules, and when.
 *
 * On disk a manifest is whole, or the difference from a whole one (the base): what a snapshot costs
 * is then the change, not the tree.  Both end in the SHA-256 of all before it; the format is
 * described at the top of manifest_write.c.  Reading takes bytes from anywhere: it checks
 * everything (lengths, order, paths without "..", types, leaders, the digest, that of the base)
 * before it returns anything.
 *
 * In memory a manifest may share entries with others, which it keeps: those of a tree of which
 * little has changed exist once.  A shared entry is never written to. */
#ifndef MOAT_COMMON_MANIFEST_H
#define MOAT_COMMON_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"

/* Something that exists in the workspace and was left out, although no rule says so. */
enum skip_reason {
	SKIP_SPECIAL = 1,    /* socket, FIFO, device */
	SKIP_MOUNT = 2,      /* another filesystem is mounted there */
	SKIP_UNREADABLE = 3, /* no permission to read */
	SKIP_VANISHED = 4,   /* gone between the walk and the reading */
	SKIP_TORN = 5, /* captured, but it kept changing while it was read: content may be mixed */
	SKIP_RESERVED =
		6 /* in an archive that was imported, under a name that moat does not touch */
};
const char *skip_text(int reason); /* "special file (socket, FIFO or device)", ... */

struct manifest_skip {
	const char *path;
	int reason;
	const char *detail; /* "socket", "Permission denied", ...; never NULL */
};

/* One rule file, or list of patterns, of the capture filter, as it was when the snapshot was taken.
 */
struct manifest_rule {
	const char *directory; /* relative to the workspace; "" the root; "../.." levels above: see
				  filter.c */
	int source;            /* enum filter_source of core/filter.h */
	const char *text;
	size_t size;
};

/* Something to know about the snapshot itself: "type" "manual".  Strings without NUL. */
struct manifest_note {
	const char *key, *value;
};

struct manifest {
	struct arena arena; /* owns all strings and entries that are not shared */
	const struct moat_entry *
		*entries; /* sorted by manifest_compare(); entries[0] is the root "" */
	size_t count, allocated;
	struct manifest_skip *skips; /* sorted by path */
	size_t skip_count, skip_allocated;
	struct manifest_rule *rules;
	size_t rule_count, rule_allocated;
	struct manifest_note *notes;
	size_t note_count, note_allocated;
	struct manifest *shared; /* owns entries that this one has, too; or NULL */
	unsigned references;     /* besides the first */
	/* Of the bytes that it was read from; differences name it. */
	bool has_digest;
	uint8_t digest[MOAT_HASH_SIZE];
	size_t encoded_size;
	int64_t started_ns;    /* when the walk began: the racy-clean limit */
	uint32_t filter_flags; /* FILTER_* of core/filter.h */
};

struct manifest *manifest_new(void); /* NULL: no memory */
/* Gives up one reference. */
void manifest_free(struct manifest *manifest);
struct manifest *manifest_reference(struct manifest *manifest);
void cleanup_manifest(struct manifest **manifest);
#define AUTO_MANIFEST CLEANUP(cleanup_manifest)

/* One that was read, kept for the next who needs it. */
struct manifest_cache {
	char id[32];
	struct manifest *manifest; /* or NULL */
};

/* Order of paths: by components, bytewise, so that a directory is followed by all that is below it.
 */
int manifest_compare(const char *a, const char *b);
/* Adds a copy (strings and xattrs, too) and returns it, to be changed until sealed; NULL: no
 * memory. */
struct moat_entry *manifest_add(struct manifest *manifest, const struct moat_entry *entry);
/* Adds an entry of `owner`, which lives as long as `manifest` from then on; one owner for each
 * manifest.  The entry has one name (or is a directory), and is MOAT_SAME. */
int manifest_add_shared(struct manifest *manifest, struct manifest *owner,
			const struct moat_entry *entry, struct moat_error *err);
/* The same with a copy of the entry, to be changed until sealed, whose strings stay `owner's; NULL:
 * no memory. */
struct moat_entry *manifest_add_copy(struct manifest *manifest, struct manifest *owner,
				     const struct moat_entry *entry);
/* An entry that may be written to: in place of a shared one its copy. */
struct moat_entry *manifest_own(struct manifest *manifest, size_t index); /* NULL: no memory */
int manifest_add_note(struct manifest *manifest, const char *key, const char *value,
		      struct moat_error *err);
const char *manifest_note(const struct manifest *manifest, const char *key); /* NULL: none */
int manifest_add_skip(struct manifest *manifest, const char *path, int reason, const char *detail,
		      struct moat_error *err);
int manifest_add_rule(struct manifest *manifest, const char *directory, int source,
		      const char *text, size_t size, struct moat_error *err);
/* Sorts; resolves leaders: files, and links, with the same dev and ino and nlink > 1 get the first
 * of them as leader.  Two entries of one path: MOAT_CORRUPT. */
int manifest_seal(struct manifest *manifest, struct moat_error *err);

/* After manifest_seal().  Index, or -1. */
int64_t manifest_find(const struct manifest *manifest, const char *path);
const struct manifest_skip *manifest_find_skip(const struct manifest *manifest, const char *path);
/* The entry that has the content: the leader of a hard link, else the entry itself. */
const struct moat_entry *
manifest_content(const struct manifest *manifest, const struct moat_entry *entry);
/* Sum of the sizes of all files, each hard-linked one once. */
uint64_t manifest_bytes(const struct manifest *manifest);
uint64_t manifest_files(const struct manifest *manifest); /* entries that are files or links */

/* True when both say the same of one object, in everything that is stored but its leader. */
bool manifest_same_entry(const struct moat_entry *a, const struct moat_entry *b);

int manifest_encode(const struct manifest *manifest, struct buf *out, struct moat_error *err);
/* base: has a digest, and is called base_id. */
int manifest_encode_difference(const struct manifest *manifest, const struct manifest *base,
			       const char *base_id, struct buf *out, struct moat_error *err);
#define MANIFEST_ID_MAX 32
/* Whether the bytes are a difference: 1, with the id of its base; 0: whole. Nothing else is looked
 * at. */
int
manifest_base(const void *data, size_t size, char ret_id[MANIFEST_ID_MAX], struct moat_error *err);
/* A whole one. */
int manifest_decode(const void *data, size_t size, struct manifest **ret, struct moat_error *err);
/* Either; base: borrowed, and shared by the result of a difference. */
int manifest_decode_with(const void *data, size_t size, struct manifest *base,
			 struct manifest **ret, struct moat_error *err);

#endif
