/* SPDX-License-Identifier: Apache-2.0 */
/* What the loader checks before and after it loads a file. */
#ifndef MOAT_CORE_LOADER_CHECKS_H
#define MOAT_CORE_LOADER_CHECKS_H

#include "core/loader.h"

/* A directory or file is only safe to load code from when nobody but root and the effective user
 * can change it: it belongs to one of them, others cannot write it, and a group only when it is the
 * effective group.  A sticky bit does not help: it does not stop others from adding a file. */
int loader_check_directory(const char *path, struct moat_error *err);

/* Follows links, and checks the file that they lead to, the directory it is in, and that it is a
 * whole one.  *ret_resolved is its path without links, freed by the caller. */
int loader_check_file(const char *path, char **ret_resolved, struct moat_error *err);

/* Checks a descriptor and its table, and copies what they hold into *plugin, whose kind and name
 * (from the file's name) are set.  On failure *plugin is half filled: plugin_free(). */
int descriptor_read(const struct moat_plugin *descriptor, struct plugin *plugin,
		    struct moat_error *err);

void plugin_free(struct plugin *plugin);

#endif
