/* SPDX-License-Identifier: Apache-2.0 */
/* What the live filter asks a git repository: where its exclude files are, and what it tracks. No
 * program is run, and nothing is written; libgit2 is only asked when the configuration may say
 * something about it. */
#ifndef MOAT_CORE_FILTER_GIT_H
#define MOAT_CORE_FILTER_GIT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

struct filter_git;

/* What a message says that a repository cannot be read. */
#define FILTER_GIT_HINT                                                                            \
	"`git status' there may say more; snapshots.exclude.ignore_gitignore: true does without "  \
	"it"

/* The repository whose working tree has its root at `directory` (an absolute path): that is where
 * its .git is, a directory or a file that points to one.  *ret NULL: none is there. */
int filter_git_open(const char *directory, struct filter_git **ret, struct moat_error *err);
void filter_git_close(struct filter_git *git);

/* Files of patterns, which may be missing; "": none is configured. */
const char *filter_git_info_exclude(const struct filter_git *git);
const char *filter_git_global_exclude(const struct filter_git *git);

enum filter_tracked {
	TRACKED_NOT = 0,
	TRACKED_ITSELF = 1, /* it is in the index; a directory: as a submodule */
	TRACKED_BELOW = 2   /* a directory, and something in it is in the index */
};
/* path: relative to the root of the repository.  The index is read at the first call.  [any
 * thread] */
int filter_git_tracked(struct filter_git *git, const char *path, bool is_directory,
		       enum filter_tracked *ret, struct moat_error *err);
/* Whether the index holds anything below the directory for which wanted() says so: it gets the path
 * from there on.  [any thread] */
int filter_git_wants_below(struct filter_git *git, const char *path,
			   bool (*wanted)(const void *context, const char *below),
			   const void *context, bool *ret, struct moat_error *err);

/* Whether reading the index takes long enough to be worth a thread. */
bool filter_git_index_is_large(const struct filter_git *git);
/* Reads the index now; what fails will fail again when somebody asks.  [any thread] */
void filter_git_load(struct filter_git *git);

/* DIRECTORY/NAME, or NAME when that is absolute; the caller frees.  NULL: no memory. */
char *filter_join(const char *directory, const char *name);

/* Reads a file as git reads files of patterns: *ret is NULL when it is missing, unreadable, empty,
 * or no regular file (it is never waited for); a symbolic link counts as missing unless `follow`.
 * The caller frees. */
int filter_read(int dirfd, const char *name, bool follow, char **ret, size_t *ret_size,
		struct moat_error *err);

#endif
