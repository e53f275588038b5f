/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of a filter: those that a live one met, to be stored, and those that were stored. */
#include "core/filter_internal.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

/* ------------------------------------------------------------------------------------- rules */

static int
compare_rules(const struct rules *a, const struct rules *b)
{
	int order = strcmp(a->directory, b->directory);

	return order != 0 ? order : (a->source > b->source) - (a->source < b->source);
}

static int
compare_rules_qsort(const void *a, const void *b)
{
	return compare_rules(a, b);
}

int
filter_add_rules(struct filter *filter, const char *directory, int source, const char *text,
		 size_t size, struct ignore_list *list, struct moat_error *err)
{
	struct rules *rules = NULL;

	if (filter->rule_count == filter->rule_allocated) {
		size_t n = filter->rule_allocated == 0 ? 64 : 2 * filter->rule_allocated;

		rules = reallocarray(filter->rules, n, sizeof *rules);
		if (rules != NULL) {
			filter->rules = rules;
			filter->rule_allocated = n;
		}
	}
	if (filter->rule_count < filter->rule_allocated) {
		rules = &filter->rules[filter->rule_count];
		*rules = (struct rules){arena_string(&filter->arena, directory), source,
					arena_copy(&filter->arena, text, size), size, list};
		if (rules->directory != NULL && rules->text != NULL) {
			filter->rule_count++;
			return 0;
		}
	}
	ignore_free(list);
	return moat_fail_memory(err);
}

int
filter_add_patterns(struct filter *filter, const char *directory, int source, const char *text,
		    size_t size, struct ignore_list **ret, struct moat_error *err)
{
	struct ignore_list *list = ignore_parse(text, size);

	*ret = NULL;
	if (list == NULL)
		return moat_fail_memory(err);
	if (ignore_is_empty(list)) {
		ignore_free(list);
		return 0;
	}
	if (filter_add_rules(filter, directory, source, text, size, list, err) < 0)
		return -1;
	*ret = list;
	return 0;
}

const struct rules *
filter_find_rules(const struct filter *filter, const char *directory, int source)
{
	struct rules key = {.directory = directory, .source = source};

	if (filter->rule_count == 0)
		return NULL;
	return bsearch(&key, filter->rules, filter->rule_count, sizeof key, compare_rules_qsort);
}

/* ----------------------------------------------------------------------------------- storing */

static int
store_rules(const struct rules *const *sorted, size_t count, struct manifest *manifest,
	    struct moat_error *err)
{
	for (size_t i = 0; i < count; i++) {
		/* A directory that was entered twice: what was seen last. */
		if (i + 1 < count && compare_rules(sorted[i], sorted[i + 1]) == 0)
			continue;
		if (manifest_add_rule(manifest, sorted[i]->directory, sorted[i]->source,
				      sorted[i]->text, sorted[i]->size, err) < 0)
			return -1;
	}
	return 0;
}

/* By directory and source, then in the order in which they were met. */
static int
compare_stored(const void *a, const void *b)
{
	const struct rules *x = *(const struct rules *const *) a;
	const struct rules *y = *(const struct rules *const *) b;
	int order = compare_rules(x, y);

	return order != 0 ? order : (x > y) - (x < y);
}

int
filter_store(const struct filter *filter, struct manifest *manifest, struct moat_error *err)
{
	AUTO_FREE const struct rules **sorted = NULL;

	if (filter->failure.code != MOAT_OK)
		return moat_fail(err, filter->failure.code, "%s", filter->failure.message);
	manifest->filter_flags = filter->flags;
	if (filter->rule_count == 0)
		return 0;
	sorted = calloc(filter->rule_count, sizeof *sorted);
	if (sorted == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < filter->rule_count; i++)
		sorted[i] = &filter->rules[i];
	qsort(sorted, filter->rule_count, sizeof *sorted, compare_stored);
	return store_rules(sorted, filter->rule_count, manifest, err);
}

/* ----------------------------------------------------------------------------------- loading */

/* Names without "." and "..", one for each "..". */
static bool
fits(const char *prefix, size_t size, const char *up)
{
	size_t levels = (strlen(up) + 1) / 3, names = 1;
	const char *name = prefix;

	if (size == 0 || memchr(prefix, '\0', size) != NULL)
		return false;
	for (;; name = strchr(name, '/') + 1, names++) {
		size_t length = strcspn(name, "/");

		if (length == 0 || (length == 1 && *name == '.') ||
		    (length == 2 && name[0] == '.' && name[1] == '.'))
			return false;
		if (name[length] == '\0')
			return names == levels;
	}
}

/* The workspace lies below the repository whose mark this is. */
static int
load_prefix(struct filter *filter, const struct manifest_rule *rule, struct moat_error *err)
{
	if (!fits(rule->text, rule->size, rule->directory))
		return moat_fail(err, MOAT_CORRUPT,
				 "the manifest has a repository at `%s' without a proper way to it",
				 rule->directory);
	free(filter->prefix);
	filter->prefix_length = rule->size + 1;
	filter->prefix = malloc(filter->prefix_length + 1);
	if (filter->prefix == NULL)
		return moat_fail_memory(err);
	memcpy(filter->prefix, rule->text, rule->size);
	memcpy(filter->prefix + rule->size, "/", 2);
	return 0;
}

static int
load_rule(struct filter *filter, const struct manifest_rule *rule, struct moat_error *err)
{
	struct ignore_list *list = NULL;

	if (rule->source < FILTER_CONFIGURED || rule->source > FILTER_REPOSITORY)
		return moat_fail(err, MOAT_CORRUPT, "the manifest has rules of the unknown kind %d",
				 rule->source);
	if (rule->source != FILTER_REPOSITORY)
		return filter_add_patterns(filter, rule->directory, rule->source, rule->text,
					   rule->size, &list, err);
	if (filter_add_rules(filter, rule->directory, rule->source, rule->text, rule->size, NULL,
			     err) < 0)
		return -1;
	if (strcmp(rule->directory, "..") == 0 || strncmp(rule->directory, "../", 3) == 0)
		return load_prefix(filter, rule, err);
	return 0;
}

int
filter_load_rules(struct filter *filter, struct moat_error *err)
{
	const struct manifest *manifest = filter->manifest;
	const struct rules *additional;

	for (size_t i = 0; i < manifest->rule_count; i++)
		if (load_rule(filter, &manifest->rules[i], err) < 0)
			return -1;
	if (filter->rule_count > 0)
		qsort(filter->rules, filter->rule_count, sizeof *filter->rules,
		      compare_rules_qsort);
	additional = filter_find_rules(filter, "", FILTER_CONFIGURED);
	filter->additional = additional != NULL ? additional->list : NULL;
	return 0;
}
