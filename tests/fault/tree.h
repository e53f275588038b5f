/* SPDX-License-Identifier: Apache-2.0 */
/* Trees that are put back thousands of times: read once into memory, written as often as needed. */
#ifndef TESTS_FAULT_TREE_H
#define TESTS_FAULT_TREE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

struct tree_node {
	char *path; /* below the root; "" is the root itself */
	struct stat st;
	char *content; /* of a file; the text of a link */
	size_t length;
	const struct tree_node *same; /* another name of that inode */
	char *attribute;              /* the value of user.test, or NULL */
};

struct tree {
	struct tree_node *nodes; /* a directory before what is in it */
	size_t count, size;
};

/* All of these end the program, in words, when something does not work. */
void tree_load(const char *root, struct tree *ret);
void tree_free(struct tree *tree);
/* The directory `root`, which must be there, gets exactly this content.  It keeps its inode. */
void tree_write(const struct tree *tree, const char *root);
/* Removes what is below `root`, whatever its modes. */
void tree_empty(const char *root);
/* Changes when anything about the tree does, change times included. */
uint64_t tree_signature(const char *root);

/* The trees that the sweeps work on: every kind of thing that a restore has to do something about.
 * tree_edit() makes the new state from the old one. */
void tree_make_old(const char *root);
void tree_edit(const char *root);

void die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

#endif
