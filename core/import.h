/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot from an archive that a stranger made. */
#ifndef MOAT_CORE_IMPORT_H
#define MOAT_CORE_IMPORT_H

#include "core/snap.h"

struct import_options {
	const char *file;      /* "-": stdin */
	const char *label;     /* or NULL */
	const char *workspace; /* or NULL: the current directory */
	/* Of the command line, or NULL: those of the configuration. */
	const char *max_entries, *max_file_bytes, *max_bytes;
};

/* What was in the archive and is not in the snapshot. */
struct import_dropped {
	uint64_t xattrs;   /* attributes of a class that is not taken */
	uint64_t modes;    /* files that had setuid, setgid or sticky bits */
	uint64_t left_out; /* members under names that moat does not touch */
};

/* Validates the whole archive before anything is written but a private copy of what cannot be read
 * twice; then stores it as a snapshot of the workspace, of type "manual".  No path of the archive
 * becomes a path on disk.  When it fails, nothing is left. */
int import_archive(struct app *app, const struct import_options *options, struct snap **ret,
		   struct import_dropped *dropped, struct moat_error *err);

#endif
