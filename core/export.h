/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot as one full tar archive. */
#ifndef MOAT_CORE_EXPORT_H
#define MOAT_CORE_EXPORT_H

#include <sys/stat.h>

#include "core/compress.h"
#include "core/snap.h"

/* ----------------------------------------------------------------------------------- where it goes
 */

/* A new file, which gets its name when it is complete; or a pipe, a device, stdout, to which it is
 * written at once. */
struct export_file {
	const char *path; /* as given */
	int fd;
	bool owned;   /* not stdout */
	bool is_file; /* to be named */
	int dir_fd;   /* where its name will be */
	const char *name;
	char temporary[32]; /* "": it has no name yet */
	bool force;
	uint64_t size; /* written */
};
#define EXPORT_FILE_INIT                                                                           \
	{                                                                                          \
		.fd = -1, .dir_fd = -1                                                             \
	}

/* path "-": stdout.  A file that exists is refused unless force. */
int export_file_open(const char *path, bool force, struct export_file *ret, struct moat_error *err);
struct byte_sink export_file_sink(struct export_file *file);
/* Everything is on disk, under its name. */
int export_file_commit(struct export_file *file, struct moat_error *err);
/* What has no name yet vanishes. */
void export_file_close(struct export_file *file);

/* -------------------------------------------------------------------------------------- what goes
 */

struct export_options {
	const char *file;   /* "-": stdout */
	const char *format; /* NULL: by the file's name */
	bool force;
};

/* Everything that the snapshot holds, each content compared with its hash.  *ret_size: bytes
 * written. */
int export_snapshot(struct app *app, const struct snap *snap, const struct export_options *options,
		    uint64_t *ret_size, struct moat_error *err);

#endif
