/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: which keys there are, and which files they come from. */
#include "core/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/text.h"
#include "core/config_values.h"

#define KEY_MAX 256
#define NAMES_MAX 64

/* The files in order of precedence. */
enum layer { LAYER_EXPLICIT, LAYER_WORKSPACE, LAYER_USER, LAYERS };

/* plugins.KIND-NAME in each of the files that have it. */
struct moat_config {
	struct moat_config *next;
	char *kind_name;
	const struct conf_tree *trees[LAYERS];
	const yaml_node_t *mappings[LAYERS]; /* NULL: not in that file */
};

/* The files are kept, because what is meant for plugins is read when they ask. */
struct config_tree {
	struct conf_tree *trees[LAYERS];
	struct moat_config *plugins;
};

/* ----------------------------------------------------------------------------------- schema */

static const char *const commit_choices[] = {"never", "success", NULL};
static const char *const network_choices[] = {"none", "open", NULL};

/* clang-format off */
#define AT(member) .offset = offsetof(struct config, member)
#define COUNT .min = 0, .max = 1000000000

static const struct conf_rule rules[] = {
	{"name", conf_read_name, AT(name), .workspace_only = true},
	{"command", conf_read_command, AT(command), .workspace_only = true},
	{"interactive", conf_read_bool, AT(interactive)},
	{"runtime", conf_read_name, AT(runtime)},
	{"image", conf_read_string, AT(image)},
	{"env", conf_read_env, AT(env)},
	{"mounts", conf_read_mounts, AT(mounts)},
	{"workspaces", conf_read_workspaces, AT(workspaces), .workspace_only = true},
	{"sandbox", conf_read_name, AT(sandbox)},
	{"commit", conf_read_choice, AT(commit), .choices = commit_choices},
	{"network.policy", conf_read_choice, AT(network_policy), .choices = network_choices},
	{"container.memory", conf_read_size, AT(memory)},
	{"container.cpus", conf_read_cpus, AT(cpus_milli)},
	{"snapshots.disabled", conf_read_bool, AT(snapshots.disabled)},
	{"snapshots.backend", conf_read_name, AT(snapshots.backend)},
	{"snapshots.triggers.disable_pre_run", conf_read_bool, AT(snapshots.disable_pre_run)},
	{"snapshots.triggers.disable_git_commits", conf_read_bool, AT(snapshots.disable_git_commits)},
	{"snapshots.triggers.disable_builds", conf_read_bool, AT(snapshots.disable_builds)},
	{"snapshots.triggers.disable_idle", conf_read_bool, AT(snapshots.disable_idle)},
	{"snapshots.triggers.idle_threshold_seconds", conf_read_int, AT(snapshots.idle_threshold_seconds), COUNT},
	{"snapshots.exclude.ignore_gitignore", conf_read_bool, AT(snapshots.ignore_gitignore)},
	{"snapshots.exclude.additional", conf_read_strings, AT(snapshots.additional)},
	{"snapshots.retention.max_count", conf_read_int, AT(snapshots.max_count), COUNT},
	{"snapshots.retention.max_bytes", conf_read_size, AT(snapshots.max_bytes)},
	{"snapshots.retention.delete_initial", conf_read_bool, AT(snapshots.delete_initial)},
	{"snapshots.import.max_entries", conf_read_int, AT(snapshots.import_max_entries), COUNT},
	{"snapshots.import.max_file_bytes", conf_read_size, AT(snapshots.import_max_file_bytes)},
	{"snapshots.import.max_bytes", conf_read_size, AT(snapshots.import_max_bytes)},
	{"tracing.disable_exec", conf_read_bool, AT(tracing.disable_exec)},
	{"tracing.backend", conf_read_name, AT(tracing.backend)},
	{"tracing.poll_interval_ms", conf_read_int, AT(tracing.poll_interval_ms), .min = 1, .max = 3600000},
	{"attach.escape", conf_read_escape, AT(attach.escape)},
	{"attach.double_press_ms", conf_read_int, AT(attach.double_press_ms), .min = 0, .max = 60000},
	{"plugins", NULL}, /* read_plugins() */
	{NULL}
};
/* clang-format on */

static int
set_defaults(struct config *config, struct moat_error *err)
{
	config->sandbox = strdup("none");
	config->commit = strdup("never");
	config->network_policy = strdup("open");
	config->attach.escape = strdup("ctrl-/");
	config->attach.double_press_ms = 500;
	config->snapshots.idle_threshold_seconds = 30;
	config->snapshots.max_count = 0;
	config->snapshots.import_max_entries = 2000000;
	config->snapshots.import_max_file_bytes = (uint64_t) 64 << 30;
	config->snapshots.import_max_bytes = (uint64_t) 256 << 30;
	config->tracing.poll_interval_ms = 100;
	config->plugins = calloc(1, sizeof *config->plugins);
	if (config->sandbox == NULL || config->commit == NULL || config->network_policy == NULL ||
	    config->attach.escape == NULL || config->plugins == NULL)
		return moat_fail_memory(err);
	return 0;
}

static void
free_tree(struct config_tree *tree)
{
	struct moat_config *plugin, *next;

	if (tree == NULL)
		return;
	for (plugin = tree->plugins; plugin != NULL; plugin = next) {
		next = plugin->next;
		free(plugin->kind_name);
		free(plugin);
	}
	for (size_t i = 0; i < LAYERS; i++)
		conf_free(tree->trees[i]);
	free(tree);
}

void
config_free(struct config *config)
{
	if (config == NULL)
		return;
	free(config->file);
	free(config->name);
	conf_free_strings(config->command);
	free(config->runtime);
	free(config->image);
	conf_free_strings(config->env);
	conf_free_mounts(config->mounts, config->mount_count);
	conf_free_workspaces(config->workspaces, config->workspace_count);
	free(config->sandbox);
	free(config->commit);
	free(config->network_policy);
	free(config->snapshots.backend);
	conf_free_strings(config->snapshots.additional);
	free(config->tracing.backend);
	free(config->attach.escape);
	free_tree(config->plugins);
	free(config);
}

void
cleanup_config(struct config **config)
{
	config_free(*config);
}

/* ---------------------------------------------------------------------------------- plugins */

static struct moat_config *
find_plugin(const struct config *config, const char *kind_name)
{
	struct moat_config *plugin = config->plugins->plugins;

	while (plugin != NULL && strcmp(plugin->kind_name, kind_name) != 0)
		plugin = plugin->next;
	return plugin;
}

static struct moat_config *
add_plugin(struct config *config, const char *kind_name, struct moat_error *err)
{
	struct moat_config *plugin = find_plugin(config, kind_name);

	if (plugin != NULL)
		return plugin;
	plugin = calloc(1, sizeof *plugin);
	if (plugin == NULL || (plugin->kind_name = strdup(kind_name)) == NULL) {
		free(plugin);
		(void) moat_fail_memory(err);
		return NULL;
	}
	plugin->next = config->plugins->plugins;
	config->plugins->plugins = plugin;
	return plugin;
}

static bool
is_kind_name(const char *text)
{
	static const char *const kinds[] = {"runtime-", "snapshot-", "tracer-", "sandbox-"};

	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		size_t length = strlen(kinds[i]);

		if (strncmp(text, kinds[i], length) == 0)
			return text_is_name(text + length);
	}
	return false;
}

static int
read_plugins(const struct conf_tree *tree, const yaml_node_t *node, enum layer layer,
	     struct config *config, struct moat_error *err)
{
	/* It can name programs that moat runs on the host, and the file is in the hands of those
	 * who are locked in. */
	if (layer == LAYER_WORKSPACE)
		return conf_fail(
			tree, node, err,
			"plugins: a workspace must not configure plugins; this belongs into "
			"your own ~/.config/moat/config.yaml");
	if (conf_check_mapping(tree, node, "plugins", err) < 0)
		return -1;
	for (size_t i = 0; i < conf_size(node); i++) {
		const yaml_node_t *key = conf_key(tree, node, i);
		const yaml_node_t *value = conf_value(tree, node, i);
		struct moat_config *plugin;

		if (!is_kind_name(conf_text(key)))
			return conf_fail(tree, key, err,
					 "plugins: \"%s\" is not runtime-, snapshot-, tracer- or "
					 "sandbox- and a plugin's name",
					 conf_text(key));
		if (conf_check_mapping(tree, value, conf_text(key), err) < 0)
			return -1;
		plugin = add_plugin(config, conf_text(key), err);
		if (plugin == NULL)
			return -1;
		plugin->trees[layer] = tree;
		plugin->mappings[layer] = value;
	}
	return 0;
}

const struct moat_config *
config_plugin(const struct config *config, const char *kind, const char *name)
{
	char kind_name[KEY_MAX];

	if (snprintf(kind_name, sizeof kind_name, "%s-%s", kind, name) >= (int) sizeof kind_name)
		return NULL;
	return find_plugin(config, kind_name);
}

/* What a plugin asks for: the value in the most specific file that has one, and how to call it. */
struct lookup {
	const struct conf_tree *tree;
	const yaml_node_t *node;
	char title[KEY_MAX];
};

static bool
look_up(const struct moat_config *config, const char *key, struct lookup *ret)
{
	for (size_t i = 0; config != NULL && i < LAYERS; i++) {
		if (config->mappings[i] == NULL)
			continue;
		ret->tree = config->trees[i];
		ret->node = conf_lookup(ret->tree, config->mappings[i], key);
		if (ret->node == NULL || conf_is_null(ret->node))
			continue;
		(void) snprintf(ret->title, sizeof ret->title, "plugins.%s.%s", config->kind_name,
				key);
		return true;
	}
	return false;
}

int
config_get_string(const struct moat_config *config, const char *key, const char **ret,
		  struct moat_error *err)
{
	struct lookup at;

	if (!look_up(config, key, &at))
		return 0;
	return conf_get_string(at.tree, at.node, at.title, ret, err) < 0 ? -1 : 1;
}

int
config_get_int(const struct moat_config *config, const char *key, int64_t *ret,
	       struct moat_error *err)
{
	struct lookup at;

	if (!look_up(config, key, &at))
		return 0;
	return conf_get_int(at.tree, at.node, at.title, INT64_MIN, INT64_MAX, ret, err) < 0 ? -1
											    : 1;
}

int
config_get_bool(const struct moat_config *config, const char *key, int *ret, struct moat_error *err)
{
	struct lookup at;
	bool value = false;

	if (!look_up(config, key, &at))
		return 0;
	if (conf_get_bool(at.tree, at.node, at.title, &value, err) < 0)
		return -1;
	*ret = value;
	return 1;
}

int
config_get_size(const struct moat_config *config, const char *key, uint64_t *ret,
		struct moat_error *err)
{
	struct lookup at;

	if (!look_up(config, key, &at))
		return 0;
	return conf_get_size(at.tree, at.node, at.title, ret, err) < 0 ? -1 : 1;
}

int
config_get_duration(const struct moat_config *config, const char *key, int64_t *ret_ms,
		    struct moat_error *err)
{
	struct lookup at;

	if (!look_up(config, key, &at))
		return 0;
	return conf_get_duration(at.tree, at.node, at.title, ret_ms, err) < 0 ? -1 : 1;
}

/* ------------------------------------------------------------------------------------- walk */

/* The rest of a rule's key below the section ("" or "snapshots."), or NULL. */
static const char *
below(const struct conf_rule *rule, const char *section)
{
	size_t length = strlen(section);

	return strncmp(rule->key, section, length) == 0 ? rule->key + length : NULL;
}

static int
complain_unknown(const struct conf_tree *tree, const yaml_node_t *key, const char *section,
		 struct moat_error *err)
{
	char texts[NAMES_MAX][KEY_MAX];
	const char *names[NAMES_MAX + 1], *nearest;
	size_t n = 0;

	for (const struct conf_rule *rule = rules; rule->key != NULL && n < NAMES_MAX; rule++) {
		const char *rest = below(rule, section);

		if (rest == NULL)
			continue;
		(void) snprintf(texts[n], KEY_MAX, "%.*s", (int) strcspn(rest, "."), rest);
		names[n] = texts[n];
		n++;
	}
	names[n] = NULL;
	nearest = text_nearest(conf_text(key), names);
	if (nearest != NULL)
		return conf_fail(tree, key, err, "unknown key \"%s\" (did you mean \"%s\"?)",
				 conf_text(key), nearest);
	return conf_fail(tree, key, err, "unknown key \"%s\"", conf_text(key));
}

/* The rule with that key; or, with *ret_section, whether rules begin with it. */
static const struct conf_rule *
find_rule(const char *path, bool *ret_section)
{
	size_t length = strlen(path);

	*ret_section = false;
	for (const struct conf_rule *rule = rules; rule->key != NULL; rule++) {
		if (strcmp(rule->key, path) == 0)
			return rule;
		if (strncmp(rule->key, path, length) == 0 && rule->key[length] == '.')
			*ret_section = true;
	}
	return NULL;
}

static int
apply_rule(const struct conf_place *place, enum layer layer, struct config *config,
	   struct moat_error *err)
{
	const struct conf_rule *rule = place->rule;

	if (rule->workspace_only && layer == LAYER_USER)
		return conf_fail(place->tree, place->node, err,
				 "%s: this belongs into a workspace's moat.yaml", rule->key);
	if (rule->read == NULL)
		return read_plugins(place->tree, place->node, layer, config, err);
	return rule->read(place, config, err);
}

/* section: "", or "snapshots.": a key of it follows.  As deep as the schema, no deeper. */
static int
apply_section(const struct conf_tree *tree, const yaml_node_t *mapping, const char *section,
	      enum layer layer, struct config *config, struct moat_error *err)
{
	for (size_t i = 0; i < conf_size(mapping); i++) {
		const yaml_node_t *key = conf_key(tree, mapping, i);
		struct conf_place place = {.tree = tree, .node = conf_value(tree, mapping, i)};
		bool is_section;
		char path[KEY_MAX];
		int length = snprintf(path, sizeof path, "%s%s", section, conf_text(key));

		/* A dot would be taken for one of the paths'. */
		if (length >= KEY_MAX - 1 || strchr(conf_text(key), '.') != NULL)
			return complain_unknown(tree, key, section, err);
		place.rule = find_rule(path, &is_section);
		if (place.rule != NULL) {
			if (apply_rule(&place, layer, config, err) < 0)
				return -1;
			continue;
		}
		if (!is_section)
			return complain_unknown(tree, key, section, err);
		if (conf_check_mapping(tree, place.node, path, err) < 0)
			return -1;
		memcpy(path + length, ".", 2);
		if (apply_section(tree, place.node, path, layer, config, err) < 0)
			return -1;
	}
	return 0;
}

static int
apply_text(const char *text, size_t size, const char *name, enum layer layer, struct config *config,
	   struct moat_error *err)
{
	AUTO_CONF_TREE struct conf_tree *tree = NULL;
	const yaml_node_t *root;

	if (conf_parse(text, size, name, &tree, err) < 0)
		return -1;
	root = conf_root(tree);
	if (root == NULL || conf_is_null(root))
		return 0;
	if (root->type != YAML_MAPPING_NODE)
		return conf_fail(tree, root, err, "`key: value' lines are expected");
	if (apply_section(tree, root, "", layer, config, err) < 0)
		return -1;
	config->plugins->trees[layer] = STEAL(tree);
	return 0;
}

/* ------------------------------------------------------------------------------------ files */

/* Opened without waiting: a FIFO must not hang. */
static int
read_file(int dirfd, const char *name, int flags, const char *path, struct buf *ret,
	  struct moat_error *err)
{
	AUTO_CLOSE int fd =
		openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags);
	struct stat st;
	char block[8192];
	ssize_t n;

	if (fd < 0 && errno == ELOOP)
		return moat_fail(
			err, MOAT_USAGE,
			"%s: is a symbolic link; make it a file, or name another with --config",
			path);
	if (fd < 0 && errno != ENXIO)
		return moat_fail_errno(err, "open `%s'", path);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return moat_fail(err, MOAT_USAGE, "%s: is not a regular file", path);
	do {
		n = read(fd, block, sizeof block);
		if (n > 0)
			buf_append(ret, block, (size_t) n);
	} while (n > 0 ? ret->size <= CONFIG_FILE_MAX : n < 0 && errno == EINTR);
	if (n < 0)
		return moat_fail_errno(err, "read `%s'", path);
	return buf_check(ret, err);
}

static int
pass_on(const struct moat_error *problem, struct moat_error *err)
{
	return moat_error_set(err, problem->code, problem->sys_errno, "%s", problem->message);
}

static bool
is_absent(const struct moat_error *err)
{
	return err->sys_errno == ENOENT || err->sys_errno == ENOTDIR;
}

static int
apply_file(int dirfd, const char *name, int flags, const char *path, enum layer layer,
	   struct config *config, struct moat_error *err)
{
	AUTO_BUF struct buf text = {0};

	if (read_file(dirfd, name, flags, path, &text, err) < 0)
		return -1;
	return apply_text(text.data != NULL ? text.data : "", text.size, path, layer, config, err);
}

/* $XDG_CONFIG_HOME/moat/config.yaml, else ~/.config/moat/config.yaml.  *ret stays NULL when there
 * is no home. */
static int
user_file(char **ret, struct moat_error *err)
{
	const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	AUTO_BUF struct buf path = {0};

	if (xdg != NULL && xdg[0] == '/')
		buf_format(&path, "%s/moat/config.yaml", xdg);
	else if (home != NULL && home[0] == '/')
		buf_format(&path, "%s/.config/moat/config.yaml", home);
	else
		return 0;
	if (buf_check(&path, err) < 0)
		return -1;
	*ret = buf_steal(&path);
	return 0;
}

static int
apply_user_file(struct config *config, struct moat_error *err)
{
	AUTO_FREE char *path = NULL;
	struct moat_error problem = MOAT_ERROR_INIT;

	if (user_file(&path, err) < 0)
		return -1;
	if (path == NULL ||
	    apply_file(AT_FDCWD, path, 0, path, LAYER_USER, config, &problem) == 0 ||
	    is_absent(&problem))
		return 0;
	return pass_on(&problem, err);
}

/* Returns 1 when it was there.  Links are not followed: a workspace must not make moat read what
 * lies elsewhere. */
static int
apply_workspace_file(int workspace_fd, const char *workspace, const char *name,
		     struct config *config, struct moat_error *err)
{
	AUTO_BUF struct buf path = {0};
	struct moat_error problem = MOAT_ERROR_INIT;

	buf_format(&path, "%s/%s", workspace, name);
	if (buf_check(&path, err) < 0)
		return -1;
	if (apply_file(workspace_fd, name, O_NOFOLLOW, path.data, LAYER_WORKSPACE, config,
		       &problem) == 0) {
		config->file = buf_steal(&path);
		return 1;
	}
	if (is_absent(&problem))
		return 0;
	return pass_on(&problem, err);
}

static int
apply_explicit_file(const char *path, struct config *config, struct moat_error *err)
{
	struct moat_error problem = MOAT_ERROR_INIT;

	if (apply_file(AT_FDCWD, path, 0, path, LAYER_EXPLICIT, config, &problem) < 0) {
		if (is_absent(&problem))
			return moat_fail(err, MOAT_USAGE, "--config: %s", problem.message);
		return pass_on(&problem, err);
	}
	config->file = strdup(path);
	return config->file != NULL ? 0 : moat_fail_memory(err);
}

int
config_load(int workspace_fd, const char *workspace, const char *explicit_file, struct config **ret,
	    struct moat_error *err)
{
	AUTO_CONFIG struct config *config = calloc(1, sizeof *config);
	int found = 0;

	if (config == NULL)
		return moat_fail_memory(err);
	if (set_defaults(config, err) < 0 || apply_user_file(config, err) < 0)
		return -1;
	if (explicit_file != NULL) {
		if (apply_explicit_file(explicit_file, config, err) < 0)
			return -1;
	} else if (workspace_fd >= 0) {
		found = apply_workspace_file(workspace_fd, workspace, "moat.yaml", config, err);
		if (found == 0)
			found = apply_workspace_file(workspace_fd, workspace, "agent.yaml", config,
						     err);
		if (found < 0)
			return -1;
	}
	*ret = STEAL(config);
	return 0;
}

int
config_parse(const char *text, size_t size, const char *name, struct config **ret,
	     struct moat_error *err)
{
	AUTO_CONFIG struct config *config = calloc(1, sizeof *config);

	if (config == NULL)
		return moat_fail_memory(err);
	if (set_defaults(config, err) < 0 ||
	    apply_text(text, size, name, LAYER_EXPLICIT, config, err) < 0)
		return -1;
	*ret = STEAL(config);
	return 0;
}
