/* SPDX-License-Identifier: Apache-2.0 */
/* YAML by libyaml's document interface: what is checked of any file, whatever its keys mean, and
 * the scalar types. */
#include "core/config_yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/cleanup.h"
#include "common/text.h"

#define DEPTH_MAX 100
#define ANCHORS_MAX 1000
#define DIRECTIVES_MAX 100

/* ----------------------------------------------------------------------------------- access */

const yaml_node_t *
conf_root(const struct conf_tree *tree)
{
	return tree->document.nodes.start != tree->document.nodes.top ? tree->document.nodes.start
								      : NULL;
}

/* libyaml counts nodes from 1. */
static const yaml_node_t *
node_at(const struct conf_tree *tree, int number)
{
	return &tree->document.nodes.start[number - 1];
}

size_t
conf_size(const yaml_node_t *node)
{
	switch (node->type) {
	case YAML_SEQUENCE_NODE:
		return (size_t) (node->data.sequence.items.top - node->data.sequence.items.start);
	case YAML_MAPPING_NODE:
		return (size_t) (node->data.mapping.pairs.top - node->data.mapping.pairs.start);
	default:
		return 0;
	}
}

const yaml_node_t *
conf_item(const struct conf_tree *tree, const yaml_node_t *node, size_t index)
{
	return node_at(tree, node->data.sequence.items.start[index]);
}

const yaml_node_t *
conf_key(const struct conf_tree *tree, const yaml_node_t *node, size_t index)
{
	return node_at(tree, node->data.mapping.pairs.start[index].key);
}

const yaml_node_t *
conf_value(const struct conf_tree *tree, const yaml_node_t *node, size_t index)
{
	return node_at(tree, node->data.mapping.pairs.start[index].value);
}

const char *
conf_text(const yaml_node_t *scalar)
{
	return (const char *) scalar->data.scalar.value;
}

const yaml_node_t *
conf_lookup(const struct conf_tree *tree, const yaml_node_t *mapping, const char *key)
{
	if (mapping->type != YAML_MAPPING_NODE)
		return NULL;
	for (size_t i = 0; i < conf_size(mapping); i++) {
		if (strcmp(conf_text(conf_key(tree, mapping, i)), key) == 0)
			return conf_value(tree, mapping, i);
	}
	return NULL;
}

bool
conf_is_null(const yaml_node_t *node)
{
	const char *text;

	if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return false;
	text = conf_text(node);
	return text[0] == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
}

/* ------------------------------------------------------------------------------- complaints */

static int fail_at(const char *name, size_t line, size_t column, struct moat_error *err,
		   const char *format, va_list args) MOAT_PRINTF(5, 0);

/* line, column: from 0, as libyaml has them. */
static int
fail_at(const char *name, size_t line, size_t column, struct moat_error *err, const char *format,
	va_list args)
{
	(void) moat_error_vset(err, MOAT_USAGE, 0, format, args);
	return moat_wrap(err, "%s:%zu:%zu", name, line + 1, column + 1);
}

int
conf_fail(const struct conf_tree *tree, const yaml_node_t *node, struct moat_error *err,
	  const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void) fail_at(tree->name, node->start_mark.line, node->start_mark.column, err, format,
		       args);
	va_end(args);
	return -1;
}

static int fail_mark(const char *name, const yaml_mark_t *mark, struct moat_error *err,
		     const char *format, ...) MOAT_PRINTF(4, 5);

static int
fail_mark(const char *name, const yaml_mark_t *mark, struct moat_error *err, const char *format,
	  ...)
{
	va_list args;

	va_start(args, format);
	(void) fail_at(name, mark->line, mark->column, err, format, args);
	va_end(args);
	return -1;
}

/* The place of a byte; a column is a character. */
static yaml_mark_t
mark_of_offset(const char *text, size_t offset)
{
	yaml_mark_t mark = {.index = offset};

	for (size_t i = 0; i < offset; i++) {
		if (text[i] == '\n') {
			mark.line++;
			mark.column = 0;
		} else if (((unsigned char) text[i] & 0xc0) != 0x80) {
			mark.column++;
		}
	}
	return mark;
}

/* ---------------------------------------------------------------------------------- parsing */

/* What libyaml has to say, in its words. */
static int
fail_parser(const yaml_parser_t *parser, const char *text, size_t size, const char *name,
	    struct moat_error *err)
{
	yaml_mark_t mark = parser->problem_mark, end = mark_of_offset(text, size);

	/* A last line without a newline is given one. */
	if (mark.line > end.line)
		mark = end;
	switch (parser->error) {
	case YAML_MEMORY_ERROR:
		return moat_fail_memory(err);
	case YAML_READER_ERROR:
		mark = mark_of_offset(text, parser->problem_offset);
		return fail_mark(name, &mark, err, "not UTF-8 text: %s", parser->problem);
	default:
		if (parser->context != NULL)
			return fail_mark(name, &mark, err, "not YAML: %s, %s", parser->context,
					 parser->problem);
		return fail_mark(name, &mark, err, "not YAML: %s",
				 parser->problem != NULL ? parser->problem : "no reason given");
	}
}

/* What libyaml would spend quadratic time on, and nobody writes. */
struct shape {
	int depth, documents, anchors;
};

static int
check_event(struct shape *shape, const yaml_event_t *event, const char *name,
	    struct moat_error *err)
{
	bool anchored = (event->type == YAML_SCALAR_EVENT && event->data.scalar.anchor != NULL) ||
			(event->type == YAML_SEQUENCE_START_EVENT &&
			 event->data.sequence_start.anchor != NULL) ||
			(event->type == YAML_MAPPING_START_EVENT &&
			 event->data.mapping_start.anchor != NULL);

	if (event->type == YAML_DOCUMENT_START_EVENT && ++shape->documents > 1)
		return fail_mark(name, &event->start_mark, err,
				 "a second document begins here; only one is allowed");
	if (anchored && ++shape->anchors > ANCHORS_MAX)
		return fail_mark(name, &event->start_mark, err, "more than %d anchors",
				 ANCHORS_MAX);
	if (event->type == YAML_SEQUENCE_END_EVENT || event->type == YAML_MAPPING_END_EVENT)
		shape->depth--;
	if ((event->type == YAML_SEQUENCE_START_EVENT || event->type == YAML_MAPPING_START_EVENT) &&
	    ++shape->depth > DEPTH_MAX)
		return fail_mark(name, &event->start_mark, err, "nested deeper than %d", DEPTH_MAX);
	return 0;
}

/* Goes over the whole text, event by event, so that it is known to be sane before it is loaded. */
static int
check_events(yaml_parser_t *parser, const char *text, size_t size, const char *name,
	     struct moat_error *err)
{
	struct shape shape = {0};
	bool ended = false;

	while (!ended) {
		yaml_event_t event;
		int result;

		if (!yaml_parser_parse(parser, &event))
			return fail_parser(parser, text, size, name, err);
		ended = event.type == YAML_STREAM_END_EVENT;
		result = check_event(&shape, &event, name, err);
		yaml_event_delete(&event);
		if (result < 0)
			return -1;
	}
	return 0;
}

/* Each directive is compared with all before it, within one event. */
static int
check_directives(const char *text, size_t size, const char *name, struct moat_error *err)
{
	size_t count = 0;

	for (size_t i = 0; i < size; i++) {
		if (text[i] == '%' && (i == 0 || text[i - 1] == '\n' || text[i - 1] == '\r') &&
		    ++count > DIRECTIVES_MAX)
			return moat_fail(err, MOAT_USAGE,
					 "%s:1:1: more than %d lines begin with %%", name,
					 DIRECTIVES_MAX);
	}
	return 0;
}

static int
start(yaml_parser_t *parser, const char *text, size_t size, struct moat_error *err)
{
	if (!yaml_parser_initialize(parser))
		return moat_fail_memory(err);
	yaml_parser_set_input_string(parser, (const unsigned char *) text, size);
	yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
	return 0;
}

static int
check_text(const char *text, size_t size, const char *name, struct moat_error *err)
{
	yaml_parser_t parser;
	int result;

	if (check_directives(text, size, name, err) < 0 || start(&parser, text, size, err) < 0)
		return -1;
	result = check_events(&parser, text, size, name, err);
	yaml_parser_delete(&parser);
	return result;
}

static int
load(struct conf_tree *tree, const char *text, size_t size, struct moat_error *err)
{
	yaml_parser_t parser;
	int result = 0;

	if (start(&parser, text, size, err) < 0)
		return -1;
	if (!yaml_parser_load(&parser, &tree->document))
		result = fail_parser(&parser, text, size, tree->name, err);
	yaml_parser_delete(&parser);
	return result;
}

/* By text, then by place. */
static int
compare_keys(const void *a, const void *b)
{
	const yaml_node_t *x = *(const yaml_node_t *const *) a;
	const yaml_node_t *y = *(const yaml_node_t *const *) b;
	int order = strcmp(conf_text(x), conf_text(y));

	if (order != 0)
		return order;
	return (x->start_mark.index > y->start_mark.index) -
	       (x->start_mark.index < y->start_mark.index);
}

static int
check_keys(const struct conf_tree *tree, const yaml_node_t *mapping, struct moat_error *err)
{
	size_t count = conf_size(mapping);
	AUTO_FREE const yaml_node_t **keys = calloc(count + 1, sizeof *keys);

	if (keys == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		keys[i] = conf_key(tree, mapping, i);
		if (keys[i]->type != YAML_SCALAR_NODE)
			return conf_fail(tree, keys[i], err, "a key must be a word");
		if (strlen(conf_text(keys[i])) != keys[i]->data.scalar.length)
			return conf_fail(tree, keys[i], err, "a key holds a NUL byte");
	}
	qsort(keys, count, sizeof *keys, compare_keys);
	for (size_t i = 1; i < count; i++) {
		if (strcmp(conf_text(keys[i - 1]), conf_text(keys[i])) == 0)
			return conf_fail(tree, keys[i], err,
					 "key \"%s\" is here again; it is already on line %zu",
					 conf_text(keys[i]), keys[i - 1]->start_mark.line + 1);
	}
	return 0;
}

/* Each node is looked at once, however often aliases repeat it. */
static int
check_nodes(const struct conf_tree *tree, struct moat_error *err)
{
	const yaml_node_t *node;

	for (node = tree->document.nodes.start; node != tree->document.nodes.top; node++) {
		if (node->type == YAML_MAPPING_NODE && check_keys(tree, node, err) < 0)
			return -1;
	}
	return 0;
}

int
conf_parse(const char *text, size_t size, const char *name, struct conf_tree **ret,
	   struct moat_error *err)
{
	AUTO_CONF_TREE struct conf_tree *tree = calloc(1, sizeof *tree);

	if (tree == NULL || (tree->name = strdup(name)) == NULL)
		return moat_fail_memory(err);
	if (size > CONFIG_FILE_MAX)
		return moat_fail(err, MOAT_USAGE, "%s: larger than 1 MiB", name);
	if (check_text(text, size, name, err) < 0 || load(tree, text, size, err) < 0 ||
	    check_nodes(tree, err) < 0)
		return -1;
	*ret = STEAL(tree);
	return 0;
}

void
conf_free(struct conf_tree *tree)
{
	if (tree == NULL)
		return;
	yaml_document_delete(&tree->document);
	free(tree->name);
	free(tree);
}

void
cleanup_conf_tree(struct conf_tree **tree)
{
	conf_free(*tree);
}

/* ------------------------------------------------------------------------------------ types */

/* "FILE:LINE:COLUMN: KEY: " before what a common parser complained of. */
static int
wrap_at(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
	struct moat_error *err)
{
	return moat_wrap(err, "%s:%zu:%zu: %s", tree->name, node->start_mark.line + 1,
			 node->start_mark.column + 1, key);
}

int
conf_get_string(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		const char **ret, struct moat_error *err)
{
	if (node->type != YAML_SCALAR_NODE)
		return conf_fail(tree, node, err, "%s: one value is expected, not a %s", key,
				 node->type == YAML_SEQUENCE_NODE ? "list" : "mapping");
	if (conf_is_null(node))
		return conf_fail(tree, node, err, "%s: a value is missing", key);
	if (strlen(conf_text(node)) != node->data.scalar.length)
		return conf_fail(tree, node, err, "%s: the value holds a NUL byte", key);
	*ret = conf_text(node);
	return 0;
}

int
conf_get_int(const struct conf_tree *tree, const yaml_node_t *node, const char *key, int64_t min,
	     int64_t max, int64_t *ret, struct moat_error *err)
{
	const char *text;

	if (conf_get_string(tree, node, key, &text, err) < 0)
		return -1;
	if (text_parse_int(text, min, max, ret, err) < 0)
		return wrap_at(tree, node, key, err);
	return 0;
}

int
conf_get_bool(const struct conf_tree *tree, const yaml_node_t *node, const char *key, bool *ret,
	      struct moat_error *err)
{
	static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
	const char *text;

	if (conf_get_string(tree, node, key, &text, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		if (strcasecmp(text, words[i]) == 0) {
			*ret = i % 2 == 1;
			return 0;
		}
	}
	return conf_fail(tree, node, err, "%s: `%s' is neither true nor false", key, text);
}

int
conf_get_size(const struct conf_tree *tree, const yaml_node_t *node, const char *key, uint64_t *ret,
	      struct moat_error *err)
{
	const char *text;

	if (conf_get_string(tree, node, key, &text, err) < 0)
		return -1;
	if (text_parse_size(text, ret, err) < 0)
		return wrap_at(tree, node, key, err);
	return 0;
}

int
conf_get_duration(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		  int64_t *ret_ms, struct moat_error *err)
{
	const char *text;

	if (conf_get_string(tree, node, key, &text, err) < 0)
		return -1;
	if (text_parse_duration(text, ret_ms, err) < 0)
		return wrap_at(tree, node, key, err);
	return 0;
}

int
conf_check_sequence(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		    struct moat_error *err)
{
	if (node->type == YAML_SEQUENCE_NODE || conf_is_null(node))
		return 0;
	return conf_fail(tree, node, err, "%s: a list is expected", key);
}

int
conf_check_mapping(const struct conf_tree *tree, const yaml_node_t *node, const char *key,
		   struct moat_error *err)
{
	if (node->type == YAML_MAPPING_NODE || conf_is_null(node))
		return 0;
	return conf_fail(tree, node, err, "%s: `key: value' lines are expected", key);
}
