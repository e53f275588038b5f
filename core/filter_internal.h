/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of core/filter share.
 *
 *   filter.c        scopes and verdicts
 *   filter_rules.c  the rules that were met, or that a manifest holds
 *   filter_git.c    what a repository says
 */
#ifndef MOAT_CORE_FILTER_INTERNAL_H
#define MOAT_CORE_FILTER_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/buf.h"
#include "common/ignore.h"
#include "core/filter.h"
#include "core/filter_git.h"

/* A file of patterns that was met, or the mark of a repository (which has no list). */
struct rules {
	const char *directory; /* as struct manifest_rule has it */
	int source;
	const char *text;
	size_t size;
	struct ignore_list *list; /* owned */
};

struct repository {
	struct filter_git *git; /* NULL in a stored filter */
	size_t start;           /* in a path with the prefix: where paths inside it begin */
	struct repository *next;
};

struct filter_scope {
	const struct filter_scope *outer;    /* asked next */
	const struct ignore_list *list;      /* NULL: none of its own */
	size_t start;                        /* in a path with the prefix: where it applies */
	const struct repository *repository; /* NULL: outside of any */
	bool tracked_only;                   /* inside an ignored directory */
};

struct filter {
	uint32_t flags;
	int rootfd;                      /* -1: a stored filter */
	const struct manifest *manifest; /* NULL: a live filter */
	char *root_path;                 /* absolute, without links; live only */
	char *prefix;                    /* "" or "a/b/" */
	size_t prefix_length;
	struct ignore_list *additional; /* points to a list of `rules`; NULL: none */
	struct filter_git *git;         /* that of the root, until filter_root() */

	pthread_t reader; /* filter_prepare() */
	bool reading;

	pthread_mutex_t lock; /* for all below */
	struct arena arena;   /* scopes, and the strings of rules */
	struct rules *rules;  /* stored: sorted */
	size_t rule_count, rule_allocated;
	struct repository *repositories;
	const struct filter_scope *root;
	struct moat_error failure; /* met where none could be returned */
};

/* Keeps a rule file, or the mark of a repository.  Takes over `list`, also when it fails. */
int filter_add_rules(struct filter *filter, const char *directory, int source, const char *text,
		     size_t size, struct ignore_list *list, struct moat_error *err);
/* Parses patterns and keeps them.  *ret: owned by the filter; NULL: no pattern is in the text. */
int filter_add_patterns(struct filter *filter, const char *directory, int source, const char *text,
			size_t size, struct ignore_list **ret, struct moat_error *err);
/* Loads the rules of filter->manifest, and the prefix. */
int filter_load_rules(struct filter *filter, struct moat_error *err);
/* Of a stored filter; NULL: the manifest has none. */
const struct rules *
filter_find_rules(const struct filter *filter, const char *directory, int source);

#endif
