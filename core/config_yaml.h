/* SPDX-License-Identifier: Apache-2.0 */
/* A YAML file as a tree whose every complaint carries FILE:LINE:COLUMN. */
#ifndef MOAT_CORE_CONFIG_YAML_H
#define MOAT_CORE_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yaml.h>

#include "common/error.h"

#define CONFIG_FILE_MAX ((size_t) 1 << 20)

/* One parsed file.  Every key of every mapping in it is a scalar without NUL and occurs once in it.
 * An alias is the node that it stands for, so that a tree may be shared, or hold itself: a walk
 * that follows its own schema ends nevertheless. */
struct conf_tree {
	yaml_document_t document;
	char *name; /* for messages */
};

int conf_parse(const char *text, size_t size, const char *name, struct conf_tree **ret,
	       struct moat_error *err);
void conf_free(struct conf_tree *tree);
void cleanup_conf_tree(struct conf_tree **tree);
#define AUTO_CONF_TREE CLEANUP(cleanup_conf_tree)

const yaml_node_t *conf_root(const struct conf_tree *tree); /* NULL: nothing in the file */
const yaml_node_t *conf_item(const struct conf_tree *tree, const yaml_node_t *node, size_t index);
size_t conf_size(const yaml_node_t *node); /* items, or pairs */
const yaml_node_t *conf_key(const struct conf_tree *tree, const yaml_node_t *node, size_t index);
const yaml_node_t *conf_value(const struct conf_tree *tree, const yaml_node_t *node, size_t index);
const yaml_node_t *
conf_lookup(const struct conf_tree *tree, const yaml_node_t *mapping, const char *key);
const char *conf_text(const yaml_node_t *scalar);
/* Nothing, ~ or null, without quotes. */
bool conf_is_null(const yaml_node_t *node);

/* "FILE:LINE:COLUMN: MESSAGE", MOAT_USAGE.  Returns -1. */
int conf_fail(const struct conf_tree *tree, const yaml_node_t *node, struct moat_error *err,
	      const char *format, ...) MOAT_PRINTF(4, 5);

/* The node as a value of its type, or a complaint that names `key`. */
int conf_get_string(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		    const char **ret, struct moat_error *err);
int conf_get_int(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		 int64_t min, int64_t max, int64_t *ret, struct moat_error *err);
int conf_get_bool(const struct conf_tree *tree, const yaml_node_t *node, const char *key, bool *ret,
		  struct moat_error *err);
int conf_get_size(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		  uint64_t *ret, struct moat_error *err);
int conf_get_duration(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		      int64_t *ret_ms, struct moat_error *err);
/* The node must be a sequence (mapping); null is an empty one. */
int conf_check_sequence(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
			struct moat_error *err);
int conf_check_mapping(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		       struct moat_error *err);

#endif
