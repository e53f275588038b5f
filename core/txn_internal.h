/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of core/txn share: the plan, its journal, and the member that it is for.
 *
 *   txn_plan.c     what is to happen to each path (nothing is written); txn_plan_ops.c the
 *                  operations that do it
 *   txn_stage.c    the stage: a private directory where the new things wait
 *   txn_fill.c     new content in it, ready to be renamed into place
 *   txn_dirs.c     open directories of the stage, for many threads
 *   txn_meta.c     owner, mode, attributes and times
 *   txn_prelude.c  what is changed before there is a plan
 *   txn_journal.c  the files of txn/TXN: intent, plan, commit, undo, done
 *   txn_plan_file.c  the plan as bytes
 *   txn_apply.c    each operation, forward and back, from any point where it may have been left
 *   txn_subtree.c  a directory that comes back: is it still what was put there?
 *   txn.c          the order of it all, and recovery
 */
#ifndef MOAT_CORE_TXN_INTERNAL_H
#define MOAT_CORE_TXN_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/manifest.h"
#include "core/txn.h"

enum op_kind {
	OP_OPEN = 1,    /* a directory without write permission gets it for the time being */
	OP_DELETE = 2,  /* a file or link is moved to the stage */
	OP_RMDIR = 3,   /* an empty directory is removed */
	OP_CREATE = 4,  /* a staged object is moved to where nothing is; a directory with all that
			   is desired below it */
	OP_REPLACE = 5, /* a staged file or link and the live one change places */
	OP_META = 6,    /* mode, owner, times, attributes of a file or link */
	OP_DIRMETA = 7  /* the same of a directory; the last thing that happens to it */
};
#define OP_LAST OP_DIRMETA

struct op {
	enum op_kind kind;
	int64_t from, to; /* index in plan.from, plan.to; -1: none (OP_DIRMETA without to: stays as
			     `from`) */
	uint64_t number;  /* its name in the stage, in hexadecimal */
	uint64_t ino;     /* of what was staged: tells what has changed places from what has not */
};

/* In the order of doing: all OP_OPEN by path, then deletions from the deepest up, then creations
 * and replacements by path, then OP_META, then OP_DIRMETA from the deepest up. */
struct plan {
	/* The entries concerned and their parents; entry 0 is the root.  In `to` the number of the
	 * inode is that of what was staged. */
	struct manifest *from, *to;
	struct op *ops;
	size_t count, allocated;
};

void plan_free(struct plan *plan);
struct op *
plan_add(struct plan *plan, enum op_kind kind, int64_t from, int64_t to); /* NULL: no memory */
const struct moat_entry *plan_from(const struct plan *plan, const struct op *op); /* NULL: none */
const struct moat_entry *plan_to(const struct plan *plan, const struct op *op);
const char *plan_path(const struct plan *plan, const struct op *op);
/* The index after the last entry at or below `top'. */
size_t plan_subtree_end(const struct manifest *manifest, size_t top);
int plan_encode(const struct plan *plan, struct buf *out, struct moat_error *err);
int plan_decode(const void *data, size_t size, struct plan *ret, struct moat_error *err);

/* One workspace of a transaction. */
struct member {
	char *path;
	char hash[17]; /* of the workspace's state directory; "": it has none (a restore into a new
			  directory) */
	int root_fd;
	uint64_t dev, ino;      /* of the root */
	bool stage_inside;      /* the stage is in the workspace's root, else in txn/TXN: same mount
				   wanted */
	int stage_fd;           /* -1: not made yet, or gone */
	int64_t root_mtime_sec; /* before anything was done */
	uint32_t root_mtime_nsec;
	struct plan plan;
	/* For the record that `moat undo' reads. */
	bool recorded;
	char *snapshot, *safety, *undoes; /* ids, or NULL */
};

/* Above this many objects one syncfs(2) is cheaper than an fsync(2) for each. */
#define SYNC_EACH_MAX 64

#define STAGE_NAME_MAX 24
const char *stage_name(char out[STAGE_NAME_MAX], char prefix, uint64_t number);

/* The journal of one transaction: the directory txn/TXN. */
struct journal {
	char id[32];
	int fd;
	int lock_fd;
};

enum journal_state {
	JOURNAL_EMPTY,    /* nothing but the directory */
	JOURNAL_PRELUDE,  /* what came before a plan is to be changed back */
	JOURNAL_INTENT,   /* before the decision: old it is */
	JOURNAL_COMMIT,   /* decided: new it is */
	JOURNAL_UNDO,     /* could not be carried through: old it is again */
	JOURNAL_DONE_NEW, /* only to be cleared away */
	JOURNAL_DONE_OLD,
	JOURNAL_KEPT /* could not be undone wholly: the former files are kept for the user */
};

int journal_create(const struct home *home, struct journal *ret, struct moat_error *err);
/* MOAT_BUSY: a living process works on it. */
int
journal_open(const struct home *home, const char *id, struct journal *ret, struct moat_error *err);
void journal_close(struct journal *journal);
int journal_state(const struct journal *journal, enum journal_state *ret, struct moat_error *err);
int journal_write_intent(const struct journal *journal, const struct member *member,
			 struct moat_error *err);
int
journal_read_intent(const struct journal *journal, struct member *member, struct moat_error *err);
int
journal_write_plan(const struct journal *journal, const struct plan *plan, struct moat_error *err);
int journal_read_plan(const struct journal *journal, struct plan *plan, struct moat_error *err);
/* The decision, its reversal, the end: one rename each, and an fsync. */
int journal_decide(const struct journal *journal, struct moat_error *err);
int journal_move(const struct journal *journal, enum journal_state from, enum journal_state to,
		 struct moat_error *err);
bool journal_has(const struct journal *journal, const char *name);
int journal_remove(const struct home *home, struct journal *journal, struct moat_error *err);

/* txn_prelude.c.  Ends it, if there is one: objects that are still open get their mode of before,
 * or (new) of after; what was made for nothing goes. */
int prelude_settle(const struct journal *journal, int root_fd, bool new, struct moat_error *err);
int prelude_read(const struct journal *journal, struct member *member, bool *ret_made,
		 struct moat_error *err);
struct journal prelude_take_journal(struct txn_prelude *prelude);

/* core/undo.c: moves the plan of a finished transaction to the records of its workspace.  May be
 * repeated. */
int undo_publish(const struct home *home, const struct journal *journal,
		 const struct member *member, struct moat_error *err);

/* The stage: a private directory on the workspace's own mount. */
int stage_make(const struct home *home, const struct journal *journal, struct member *member,
	       struct moat_error *err);
int stage_open(const struct journal *journal, struct member *member, struct moat_error *err);
int stage_remove(const struct journal *journal, struct member *member,
		 const struct moat_entry *root, struct moat_error *err);

/* Gives `name` the owner (where permitted), extended attributes (if asked), mode and times of the
 * entry. */
int meta_set(int dirfd, const char *name, const struct moat_entry *entry, uint32_t mode,
	     bool xattrs, struct moat_error *err);
/* The same for an open file or directory of our own, with what fstat(2) says of it. */
int meta_set_open(int fd, const struct stat *st, const struct moat_entry *entry, uint32_t mode,
		  bool xattrs, struct moat_error *err);
/* The mode that an entry comes back with: a file loses setuid and setgid. */
uint32_t meta_mode(const struct moat_entry *entry);
bool meta_same_xattrs(const struct moat_entry *a, const struct moat_entry *b);
/* desired: as meta_mode() gives it back. */
bool meta_equal(const struct moat_entry *live, const struct moat_entry *desired);

/* Directories below a top one, by their index in a list, opened when they are needed and kept open
 * while somebody has them: a few more than that at most.  [any thread] */
struct dirs;
struct dirs_node {
	int64_t parent;   /* index; -1: name is in the top directory */
	const char *name; /* borrowed */
};
struct dirs *dirs_new(int top_fd, const struct dirs_node *nodes, size_t count); /* borrowed */
void dirs_free(struct dirs *dirs);
int dirs_get(struct dirs *dirs, int64_t index, struct moat_error *err); /* -1: the top one */
void dirs_put(struct dirs *dirs, int64_t index);

/* Whether the directory `name' in the stage still holds nothing but what was staged there as the
 * subtree of plan->to->entries[top], as it was then: else MOAT_CONFLICT. */
int subtree_check(int stage_fd, const char *name, const struct manifest *to, size_t top,
		  struct moat_error *err);

/* What the user sees of one path. */
struct change {
	const char *path;
	enum diff_change shown; /* DIFF_SAME: metadata that a diff does not show */
	int64_t live, desired;  /* index in the manifests; -1: absent */
};

struct txn {
	const struct home *home;
	const struct workspace *workspace;
	const struct manifest *live, *desired;
	struct txn_source source;
	struct change *changes;
	size_t change_count;
	struct txn_counts counts;
	const char *hidden; /* of `live', see txn_hidden() */
	struct member member;
	struct txn_prelude *prelude; /* or NULL; borrowed */
	bool recorded;
	const char *snapshot, *safety, *undoes;
	int64_t *desired_of; /* per entry of the plan's `to': its index in `desired' */
};

int stage_fill(struct txn *txn, struct moat_error *err);

/* exact: how many `paths' there are, when only these are meant; else 0. */
int plan_make(struct txn *txn, const char *const *paths, size_t exact, struct moat_error *err);

/* Carries the plan out (again), or takes it back (again).  Every operation looks at where things
 * are first, so that both can be repeated from any point.  apply: MOAT_CONFLICT when something is
 * not what was planned.  undo goes on past failures; *ret_left counts what could not be put back.
 */
int plan_apply(struct member *member, struct moat_error *err);
void plan_undo(struct member *member, uint64_t *ret_left);
int plan_sync(struct member *member, struct moat_error *err);

#endif
