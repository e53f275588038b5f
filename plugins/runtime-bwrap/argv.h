/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of bubblewrap: what a sandbox consists of. */
#ifndef MOAT_RUNTIME_BWRAP_ARGV_H
#define MOAT_RUNTIME_BWRAP_ARGV_H

#include "common/buf.h"

/* Zeroed: empty.  items is NULL-terminated; the arena owns the strings. */
struct argv {
	struct arena arena;
	const char **items;
	size_t count, allocated;
	int failed; /* an append found no memory */
};

void argv_free(struct argv *argv);
#define AUTO_ARGV CLEANUP(argv_free)

/* Fills argv, from bwrap to init.  bwrap, init: absolute host paths.  filter: the descriptor from
 * which bwrap reads its system call filter, or -1.  Reads the file system, and changes nothing. */
int argv_build(struct argv *argv, const char *bwrap, const char *init, int filter,
	       const struct moat_run_spec *spec, struct moat_error *err);

/* The same for a trial that mounts nothing of anybody's. */
int argv_build_probe(struct argv *argv, const char *bwrap, const char *init, int filter,
		     struct moat_error *err);

/* True when path is `directory` or lies below it.  Both absolute, without "." and "..". */
int path_is_within(const char *path, const char *directory);

#endif
