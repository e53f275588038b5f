/* SPDX-License-Identifier: Apache-2.0 */
/* The capture filter: which objects of a workspace belong to a snapshot.
 *
 * With git: what `git ls-files -co --exclude-standard` lists, and the directories that no rule
 * ignores (or that hold something tracked).  A tracked file is captured though a rule matches it.
 * Rules come from .gitignore at every level (also above the workspace, when it is a subdirectory of
 * a repository), info/exclude, and core.excludesFile.  A nested repository (a directory that has a
 * .git) is like a workspace of its own: outer rules end there.  Without git: everything but what
 * .gitignore files ignore.  Patterns of the configuration (snapshots.exclude.additional) come first
 * and also leave out what is tracked.  ".git", at any level, a directory or a file, is never
 * captured.
 *
 * A filter is either live (reads the rules from the tree as the walk enters directories) or stored
 * (the rules that a manifest holds): a restore must see the workspace through the eyes of the
 * capture.
 *
 * Scopes are immutable and stay valid as long as the filter; filter_check() may be called from
 * several threads, filter_enter() takes a lock of its own. */
#ifndef MOAT_CORE_FILTER_H
#define MOAT_CORE_FILTER_H

#include <stdbool.h>

#include "common/error.h"
#include "common/manifest.h"

enum filter_source {
	FILTER_CONFIGURED = 1,   /* snapshots.exclude.additional; relative to the root */
	FILTER_GITIGNORE = 2,    /* DIR/.gitignore */
	FILTER_INFO_EXCLUDE = 3, /* of the repository whose root is `directory` */
	FILTER_GLOBAL = 4,       /* core.excludesFile, likewise */
	FILTER_REPOSITORY = 5    /* no patterns: `directory` is the root of a (nested) repository */
};

#define FILTER_NO_GITIGNORE                                                                        \
	(1u << 0) /* snapshots.exclude.ignore_gitignore: git's rules are not applied */

enum filter_verdict {
	FILTER_CAPTURE = 1,
	FILTER_IGNORE = 2,
	FILTER_TRACKED_ONLY =
		3 /* an ignored directory that holds tracked files: capture it and those only */
};

struct filter_options {
	uint32_t flags;                /* FILTER_NO_GITIGNORE */
	const char *const *additional; /* patterns, NULL-terminated; NULL: none */
};

struct filter;
struct filter_scope; /* the rules in force inside one directory */

/* rootfd is borrowed for as long as the filter; root_path is its absolute path. */
int filter_open(int rootfd, const char *root_path, const struct filter_options *options,
		struct filter **ret, struct moat_error *err);
/* By the rules in `manifest`, which must outlive the filter.  What the manifest holds counts as
 * tracked. */
int
filter_open_stored(const struct manifest *manifest, struct filter **ret, struct moat_error *err);
/* Begins, in a thread of its own, to read what the walk will ask for, if that is much. */
void filter_prepare(struct filter *filter);
void filter_free(struct filter *filter);
void cleanup_filter(struct filter **filter);

/* The scope of the workspace's root. */
int filter_root(struct filter *filter, const struct filter_scope **ret, struct moat_error *err);
/* After filter_root(): the repository that the workspace is a subdirectory of ignores it, so that,
 * as for git, nothing but its tracked files is captured.  Worth a warning. */
bool filter_root_is_ignored(const struct filter *filter);
/* The scope of a subdirectory for which filter_check() did not say FILTER_IGNORE.  path: relative
 * to the workspace; dirfd: that directory, open, and has_rules: whether it has a `.git' or a
 * `.gitignore' (a stored filter uses neither). */
int filter_enter(struct filter *filter, const struct filter_scope *parent, const char *path,
		 int dirfd, enum filter_verdict verdict, bool has_rules,
		 const struct filter_scope **ret, struct moat_error *err);
enum filter_verdict filter_check(struct filter *filter, const struct filter_scope *scope,
				 const char *path, const char *name, bool is_directory);

/* Writes all the rules that were met into the manifest (manifest_add_rule, filter_flags). */
int filter_store(const struct filter *filter, struct manifest *manifest, struct moat_error *err);

#endif
