/* SPDX-License-Identifier: Apache-2.0 */
/* The names in a git index, and no more: what a repository tracks.  See gitformat-index(5). */
#ifndef MOAT_CORE_GITINDEX_H
#define MOAT_CORE_GITINDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/error.h"

struct gitindex_entry {
	const char *path; /* relative to the root of the working tree */
	uint32_t mode;    /* as git has it; see below */
};
#define GITINDEX_SUBMODULE 0160000u
#define GITINDEX_DIRECTORY 0040000u /* of a sparse index: the path ends with '/' */

struct gitindex {
	struct gitindex_entry *entries; /* sorted by the bytes of the paths */
	size_t count;
	bool sparse; /* some are GITINDEX_DIRECTORY */
	/* What the paths lie in. */
	char *data;
	struct arena names;
};

/* Versions 2, 3 and 4, with hashes of 20 bytes.  `data' is freed by gitindex_free(), or here when
 * it fails.  Something else, or damage: MOAT_CORRUPT; the checksum at the end is not looked at, nor
 * does git.  A split index: MOAT_UNSUPPORTED. */
int gitindex_parse(char *data, size_t size, struct gitindex **ret, struct moat_error *err);
void gitindex_free(struct gitindex *index);
void cleanup_gitindex(struct gitindex **index);
#define AUTO_GITINDEX CLEANUP(cleanup_gitindex)
/* The first entry that does not come before `path'; count: there is none. */
size_t gitindex_position(const struct gitindex *index, const char *path);

#endif
