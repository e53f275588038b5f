/* SPDX-License-Identifier: Apache-2.0 */
/* What the keys of a configuration file hold: one function for each type of value. */
#ifndef MOAT_CORE_CONFIG_VALUES_H
#define MOAT_CORE_CONFIG_VALUES_H

#include "core/config.h"
#include "core/config_yaml.h"

struct conf_place;

/* Reads the value at the place into the configuration, replacing what a less specific file said. */
typedef int
conf_reader(const struct conf_place *place, struct config *config, struct moat_error *err);

/* A key of the schema. */
struct conf_rule {
	const char *key; /* "snapshots.retention.max_count" */
	conf_reader *read;
	size_t offset;              /* of its first field in struct config */
	int64_t min, max;           /* integers */
	const char *const *choices; /* conf_read_choice */
	bool workspace_only;        /* not in the user's file */
};

/* A value in a file. */
struct conf_place {
	const struct conf_rule *rule;
	const struct conf_tree *tree;
	const yaml_node_t *node;
};

conf_reader conf_read_string;  /* char *, not empty */
conf_reader conf_read_name;    /* char *, text_is_name() */
conf_reader conf_read_choice;  /* char * */
conf_reader conf_read_escape;  /* char *, "ctrl-X" */
conf_reader conf_read_bool;    /* bool */
conf_reader conf_read_int;     /* int64_t */
conf_reader conf_read_size;    /* uint64_t */
conf_reader conf_read_cpus;    /* uint32_t, thousandths */
conf_reader conf_read_strings; /* char **, none empty */
conf_reader conf_read_command; /* char ** */
conf_reader conf_read_env;     /* char **; merges */
conf_reader conf_read_mounts;
conf_reader conf_read_workspaces;

void conf_free_strings(char **list);
void conf_free_mounts(struct config_mount *mounts, size_t count);
void conf_free_workspaces(struct config_workspace *workspaces, size_t count);

#endif
