/* SPDX-License-Identifier: Apache-2.0 */
/* The types of configuration values. */
#include "core/config_values.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/text.h"

#define CPUS_MAX 1000000 /* thousandths */

/* ---------------------------------------------------------------------------------- scalars */

static void *
field_of(const struct conf_place *place, struct config *config)
{
	return (char *) config + place->rule->offset;
}

static int
text_of(const struct conf_place *place, const char **ret, struct moat_error *err)
{
	if (conf_get_string(place->tree, place->node, place->rule->key, ret, err) < 0)
		return -1;
	if ((*ret)[0] == '\0')
		return conf_fail(place->tree, place->node, err, "%s: the value is empty",
				 place->rule->key);
	return 0;
}

static int
replace_string(char **field, const char *text, struct moat_error *err)
{
	char *copy = strdup(text);

	if (copy == NULL)
		return moat_fail_memory(err);
	free(*field);
	*field = copy;
	return 0;
}

int
conf_read_string(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	const char *text;

	if (text_of(place, &text, err) < 0)
		return -1;
	return replace_string(field_of(place, config), text, err);
}

/* A plugin, a run: what becomes part of file names. */
static int
check_name(const struct conf_tree *tree, const yaml_node_t *node, const char *key, const char *text,
	   struct moat_error *err)
{
	if (text_is_name(text))
		return 0;
	return conf_fail(
		tree, node, err,
		"%s: `%s' is not a name (letters, digits, `.', `_', `-'; a letter or digit first)",
		key, text);
}

int
conf_read_name(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	const char *text;

	if (text_of(place, &text, err) < 0 ||
	    check_name(place->tree, place->node, place->rule->key, text, err) < 0)
		return -1;
	return replace_string(field_of(place, config), text, err);
}

int
conf_read_choice(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	const char *const *choice = place->rule->choices;
	AUTO_BUF struct buf known = {0};
	const char *text;

	if (text_of(place, &text, err) < 0)
		return -1;
	for (; *choice != NULL; choice++) {
		if (strcmp(*choice, text) == 0)
			return replace_string(field_of(place, config), text, err);
		buf_format(&known, "%s%s", known.size > 0 ? ", " : "", *choice);
	}
	if (buf_check(&known, err) < 0)
		return -1;
	return conf_fail(place->tree, place->node, err, "%s: `%s' is none of %s", place->rule->key,
			 text, known.data);
}

int
conf_read_escape(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	const char *text;

	if (text_of(place, &text, err) < 0)
		return -1;
	if (strncasecmp(text, "ctrl-", 5) != 0 || strlen(text) != 6 ||
	    (!isalpha((unsigned char) text[5]) && strchr("@[\\]^_/?", text[5]) == NULL))
		return conf_fail(place->tree, place->node, err,
				 "%s: `%s' is not a key like ctrl-/ or ctrl-a", place->rule->key,
				 text);
	return replace_string(field_of(place, config), text, err);
}

int
conf_read_bool(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	return conf_get_bool(place->tree, place->node, place->rule->key, field_of(place, config),
			     err);
}

int
conf_read_int(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	return conf_get_int(place->tree, place->node, place->rule->key, place->rule->min,
			    place->rule->max, field_of(place, config), err);
}

int
conf_read_size(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	return conf_get_size(place->tree, place->node, place->rule->key, field_of(place, config),
			     err);
}

int
config_parse_cpus(const char *text, uint32_t *ret, struct moat_error *err)
{
	uint32_t milli = 0, unit = 1000;
	const char *p = text;

	for (; isdigit((unsigned char) *p) && milli <= CPUS_MAX; p++)
		milli = milli * 10 + (uint32_t) (*p - '0') * 1000;
	if (p != text && *p == '.' && isdigit((unsigned char) p[1])) {
		for (p++; isdigit((unsigned char) *p) && unit > 1; p++)
			milli += (uint32_t) (*p - '0') * (unit /= 10);
	}
	if (p == text || *p != '\0' || milli > CPUS_MAX)
		return moat_fail(err, MOAT_USAGE,
				 "`%s' is not a number of cpus; write 2, 0.5, 1.25 (at most %d)",
				 text, CPUS_MAX / 1000);
	*ret = milli;
	return 0;
}

int
conf_read_cpus(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	struct moat_error problem = MOAT_ERROR_INIT;
	const char *text;

	if (text_of(place, &text, err) < 0)
		return -1;
	if (config_parse_cpus(text, field_of(place, config), &problem) < 0)
		return conf_fail(place->tree, place->node, err, "%s: %s", place->rule->key,
				 problem.message);
	return 0;
}

/* ------------------------------------------------------------------------------------ lists */

void
conf_free_strings(char **list)
{
	for (size_t i = 0; list != NULL && list[i] != NULL; i++)
		free(list[i]);
	free(list);
}

static void
cleanup_strings(char ***list)
{
	conf_free_strings(*list);
}

static void
replace_strings(char ***field, char ***list)
{
	conf_free_strings(*field);
	*field = STEAL(*list);
}

/* The items of a sequence. */
static int
read_items(const struct conf_place *place, char ***ret, struct moat_error *err)
{
	const char *key = place->rule->key;
	CLEANUP(cleanup_strings) char **list = NULL;
	size_t count = conf_size(place->node);

	if (conf_check_sequence(place->tree, place->node, key, err) < 0)
		return -1;
	list = calloc(count + 1, sizeof *list);
	if (list == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		const char *text;

		if (conf_get_string(place->tree, conf_item(place->tree, place->node, i), key, &text,
				    err) < 0)
			return -1;
		list[i] = strdup(text);
		if (list[i] == NULL)
			return moat_fail_memory(err);
	}
	*ret = STEAL(list);
	return 0;
}

int
conf_read_strings(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	CLEANUP(cleanup_strings) char **list = NULL;

	if (read_items(place, &list, err) < 0)
		return -1;
	for (size_t i = 0; list[i] != NULL; i++) {
		if (list[i][0] == '\0')
			return conf_fail(place->tree, conf_item(place->tree, place->node, i), err,
					 "%s: an item is empty", place->rule->key);
	}
	replace_strings(field_of(place, config), &list);
	return 0;
}

/* A string is a shell's business. */
static int
shell_command(const struct conf_place *place, char ***ret, struct moat_error *err)
{
	CLEANUP(cleanup_strings) char **list = calloc(4, sizeof *list);
	const char *words[] = {"sh", "-c", NULL};

	if (text_of(place, &words[2], err) < 0)
		return -1;
	for (size_t i = 0; list != NULL && i < 3; i++)
		list[i] = strdup(words[i]);
	if (list == NULL || list[0] == NULL || list[1] == NULL || list[2] == NULL)
		return moat_fail_memory(err);
	*ret = STEAL(list);
	return 0;
}

int
conf_read_command(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	CLEANUP(cleanup_strings) char **list = NULL;

	if (place->node->type == YAML_SEQUENCE_NODE) {
		if (read_items(place, &list, err) < 0)
			return -1;
		if (list[0] == NULL || list[0][0] == '\0')
			return conf_fail(place->tree, place->node, err,
					 "%s: the list names no program", place->rule->key);
	} else if (shell_command(place, &list, err) < 0) {
		return -1;
	}
	replace_strings(field_of(place, config), &list);
	return 0;
}

/* -------------------------------------------------------------------------------------- env */

/* KEY=VALUE; of two with the same key the one that came later counts. */
struct variable {
	char *text;
	size_t order;
};

static int
compare_variable_keys(const char *a, const char *b)
{
	size_t a_size = strcspn(a, "="), b_size = strcspn(b, "=");
	int order = memcmp(a, b, a_size < b_size ? a_size : b_size);

	return order != 0 ? order : (a_size > b_size) - (a_size < b_size);
}

static int
compare_variables(const void *a, const void *b)
{
	const struct variable *x = a, *y = b;
	int order = compare_variable_keys(x->text, y->text);

	return order != 0 ? order : (x->order > y->order) - (x->order < y->order);
}

static bool
is_variable_name(const char *text)
{
	if (!isalpha((unsigned char) text[0]) && text[0] != '_')
		return false;
	while (isalnum((unsigned char) *text) || *text == '_')
		text++;
	return *text == '\0';
}

/* Pair number `index` of the mapping, in memory that the caller frees; NULL: failed. */
static char *
read_variable(const struct conf_place *place, size_t index, struct moat_error *err)
{
	const yaml_node_t *key = conf_key(place->tree, place->node, index);
	const char *name = conf_text(key), *value;
	char *text = NULL;

	if (!is_variable_name(name)) {
		(void) conf_fail(place->tree, key, err, "%s: `%s' is not a variable's name",
				 place->rule->key, name);
		return NULL;
	}
	if (conf_get_string(place->tree, conf_value(place->tree, place->node, index), name, &value,
			    err) < 0)
		return NULL;
	if (asprintf(&text, "%s=%s", name, value) < 0) {
		(void) moat_fail_memory(err);
		return NULL;
	}
	return text;
}

/* Sorts, and leaves the last of each key; the list is NULL-terminated at *ret. */
static char **
settle(struct variable *variables, size_t count)
{
	char **list = calloc(count + 1, sizeof *list);
	size_t n = 0;

	if (list == NULL)
		return NULL;
	qsort(variables, count, sizeof *variables, compare_variables);
	for (size_t i = 0; i < count; i++) {
		if (n > 0 && compare_variable_keys(list[n - 1], variables[i].text) == 0)
			free(list[--n]);
		list[n++] = variables[i].text;
	}
	return list;
}

int
conf_read_env(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	char ***field = field_of(place, config);
	AUTO_FREE struct variable *variables = NULL;
	size_t old = 0, count;
	char **list;

	if (conf_check_mapping(place->tree, place->node, place->rule->key, err) < 0)
		return -1;
	while (*field != NULL && (*field)[old] != NULL)
		old++;
	count = old;
	variables = calloc(old + conf_size(place->node) + 1, sizeof *variables);
	if (variables == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < old; i++)
		variables[i] = (struct variable){(*field)[i], i};
	for (size_t i = 0; i < conf_size(place->node); i++) {
		char *text = read_variable(place, i, err);

		if (text == NULL)
			goto fail;
		variables[count] = (struct variable){text, count};
		count++;
	}
	if (count == 0)
		return 0;
	list = settle(variables, count);
	if (list == NULL) {
		(void) moat_fail_memory(err);
		goto fail;
	}
	free(*field); /* its strings are in the list now */
	*field = list;
	return 0;
fail:
	while (count > old)
		free(variables[--count].text);
	return -1;
}

/* --------------------------------------------------------------------- lists of mappings */

/* A key of such a mapping, and where its text goes. */
struct member {
	const char *key;
	const char **text;
};

static int
read_members(const struct conf_tree *tree, const yaml_node_t *mapping, const char *what,
	     const struct member *members, struct moat_error *err)
{
	for (size_t i = 0; i < conf_size(mapping); i++) {
		const yaml_node_t *key = conf_key(tree, mapping, i);
		const struct member *member = members;
		const char *names[8], *nearest;
		size_t n = 0;

		while (member->key != NULL && strcmp(member->key, conf_text(key)) != 0) {
			names[n++] = member->key;
			member++;
		}
		names[n] = NULL;
		if (member->key == NULL) {
			nearest = text_nearest(conf_text(key), names);
			return conf_fail(tree, key, err, "%s: unknown key \"%s\"%s%s%s", what,
					 conf_text(key), nearest != NULL ? " (did you mean \"" : "",
					 nearest != NULL ? nearest : "",
					 nearest != NULL ? "\"?)" : "");
		}
		if (conf_get_string(tree, conf_value(tree, mapping, i), member->key, member->text,
				    err) < 0)
			return -1;
	}
	return 0;
}

void
conf_free_mounts(struct config_mount *mounts, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(mounts[i].source);
		free(mounts[i].target);
	}
	free(mounts);
}

static int
make_mount(const char *source, const char *target, bool read_only, struct config_mount *ret,
	   struct moat_error *err)
{
	if (source == NULL || source[0] == '\0')
		return moat_fail(err, MOAT_USAGE, "the mount has no source");
	if (target == NULL || target[0] != '/')
		return moat_fail(err, MOAT_USAGE, "the mount's target must be an absolute path");
	ret->source = strdup(source);
	ret->target = strdup(target);
	ret->read_only = read_only;
	if (ret->source != NULL && ret->target != NULL)
		return 0;
	free(ret->source);
	free(ret->target);
	*ret = (struct config_mount){0};
	return moat_fail_memory(err);
}

static int
mount_mode(const char *mode, bool *ret, struct moat_error *err)
{
	*ret = strcmp(mode, "ro") == 0;
	if (*ret || strcmp(mode, "rw") == 0)
		return 0;
	return moat_fail(err, MOAT_USAGE, "the mode of a mount is ro or rw, not `%s'", mode);
}

int
config_parse_mount(const char *text, struct config_mount *ret, struct moat_error *err)
{
	AUTO_FREE char *source = strdup(text);
	char *target, *mode;
	bool read_only = false;

	if (source == NULL)
		return moat_fail_memory(err);
	target = strchr(source, ':');
	if (target == NULL)
		return moat_fail(err, MOAT_USAGE,
				 "`%s' is not a mount; write SRC:DST or SRC:DST:ro", text);
	*target++ = '\0';
	mode = strchr(target, ':');
	if (mode != NULL) {
		*mode++ = '\0';
		if (mount_mode(mode, &read_only, err) < 0)
			return moat_wrap(err, "`%s'", text);
	}
	if (make_mount(source, target, read_only, ret, err) < 0)
		return moat_wrap(err, "`%s'", text);
	return 0;
}

/* {source, target, mode | read_only} */
static int
read_mount_mapping(const struct conf_tree *tree, const yaml_node_t *node, struct config_mount *ret,
		   struct moat_error *err)
{
	const char *source = NULL, *target = NULL, *mode = NULL, *flag = NULL;
	const struct member members[] = {{"source", &source},
					 {"target", &target},
					 {"mode", &mode},
					 {"read_only", &flag},
					 {NULL, NULL}};
	struct moat_error problem = MOAT_ERROR_INIT;
	bool read_only = false;

	if (read_members(tree, node, "mounts", members, err) < 0)
		return -1;
	if (mode != NULL && flag != NULL)
		return conf_fail(tree, node, err, "mounts: mode and read_only say the same");
	if (flag != NULL && conf_get_bool(tree, conf_lookup(tree, node, "read_only"), "read_only",
					  &read_only, err) < 0)
		return -1;
	if ((mode != NULL && mount_mode(mode, &read_only, &problem) < 0) ||
	    make_mount(source, target, read_only, ret, &problem) < 0)
		return conf_fail(tree, node, err, "mounts: %s", problem.message);
	return 0;
}

static int
read_mount(const struct conf_tree *tree, const yaml_node_t *node, struct config_mount *ret,
	   struct moat_error *err)
{
	struct moat_error problem = MOAT_ERROR_INIT;
	const char *text;

	if (node->type == YAML_MAPPING_NODE)
		return read_mount_mapping(tree, node, ret, err);
	if (conf_get_string(tree, node, "mounts", &text, err) < 0)
		return -1;
	if (config_parse_mount(text, ret, &problem) < 0)
		return conf_fail(tree, node, err, "mounts: %s", problem.message);
	return 0;
}

int
conf_read_mounts(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	size_t count = conf_size(place->node);
	struct config_mount *mounts;

	if (conf_check_sequence(place->tree, place->node, place->rule->key, err) < 0)
		return -1;
	mounts = calloc(count + 1, sizeof *mounts);
	if (mounts == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		const yaml_node_t *item = conf_item(place->tree, place->node, i);

		if (read_mount(place->tree, item, &mounts[i], err) < 0) {
			conf_free_mounts(mounts, count);
			return -1;
		}
	}
	conf_free_mounts(config->mounts, config->mount_count);
	config->mounts = mounts;
	config->mount_count = count;
	return 0;
}

void
conf_free_workspaces(struct config_workspace *workspaces, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(workspaces[i].path);
		free(workspaces[i].sandbox);
		free(workspaces[i].target);
	}
	free(workspaces);
}

/* A path, or {path, sandbox, target}. */
static int
read_workspace(const struct conf_tree *tree, const yaml_node_t *node, struct config_workspace *ret,
	       struct moat_error *err)
{
	const char *path = NULL, *sandbox = NULL, *target = NULL;
	const struct member members[] = {
		{"path", &path}, {"sandbox", &sandbox}, {"target", &target}, {NULL, NULL}};

	if (node->type == YAML_MAPPING_NODE) {
		if (read_members(tree, node, "workspaces", members, err) < 0)
			return -1;
	} else if (conf_get_string(tree, node, "workspaces", &path, err) < 0) {
		return -1;
	}
	if (path == NULL || path[0] == '\0')
		return conf_fail(tree, node, err, "workspaces: the path is missing");
	if (target != NULL && target[0] != '/')
		return conf_fail(tree, node, err,
				 "workspaces: the target must be an absolute path");
	if (sandbox != NULL && check_name(tree, node, "workspaces: sandbox", sandbox, err) < 0)
		return -1;
	if (replace_string(&ret->path, path, err) < 0 ||
	    (sandbox != NULL && replace_string(&ret->sandbox, sandbox, err) < 0) ||
	    (target != NULL && replace_string(&ret->target, target, err) < 0))
		return -1;
	return 0;
}

int
conf_read_workspaces(const struct conf_place *place, struct config *config, struct moat_error *err)
{
	size_t count = conf_size(place->node);
	struct config_workspace *workspaces;

	if (conf_check_sequence(place->tree, place->node, place->rule->key, err) < 0)
		return -1;
	workspaces = calloc(count + 1, sizeof *workspaces);
	if (workspaces == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		const yaml_node_t *item = conf_item(place->tree, place->node, i);

		if (read_workspace(place->tree, item, &workspaces[i], err) < 0) {
			conf_free_workspaces(workspaces, count);
			return -1;
		}
	}
	conf_free_workspaces(config->workspaces, config->workspace_count);
	config->workspaces = workspaces;
	config->workspace_count = count;
	return 0;
}
