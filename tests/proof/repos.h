/* SPDX-License-Identifier: Apache-2.0 */
/* Real git repositories with rules of every sort, and what git says of them. */
#ifndef MOAT_TESTS_PROOF_REPOS_H
#define MOAT_TESTS_PROOF_REPOS_H

#include "proof.h"

struct set {
	char **items; /* sorted by set_sort() */
	size_t count, allocated;
};

void set_add(struct set *set, const char *text);
void set_sort(struct set *set);
bool set_has(const struct set *set, const char *text);
/* Whether something at or below the path is in it. */
bool set_has_below(const struct set *set, const char *path);
void set_free(struct set *set);

/* A repository and its shadow: the shadow has the rules and the index of the capture, and all paths
 * that came later, so that git itself can say what those rules make of them. */
struct repos {
	struct proof *p;
	char *top, *shadow;
	const char *additional;        /* a pattern of moat.yaml, or NULL */
	bool no_gitignore;             /* likewise */
	struct set directories, files; /* of `top', as they were made */
};

/* Makes the directory `top' a random workspace. */
void repos_make(struct repos *r);
void repos_make_shadow(struct repos *r);
/* What an agent does to it: files made, edited, deleted, rules among them, other settings. */
void repos_change(struct repos *r);
void repos_free(struct repos *r);
/* What the rules in the tree below `path' capture: files and links, and directories that are
 * ignored, all relative to it. */
void
repos_ask(const struct repos *r, const char *path, struct set *ret_files, struct set *ret_ignored);

/* Whether a pattern of moat.yaml, as it was at the capture, leaves the path out. */
bool repos_excludes(const struct repos *r, const char *path);

#endif
