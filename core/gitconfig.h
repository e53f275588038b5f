/* SPDX-License-Identifier: Apache-2.0 */
/* git's configuration, for the one value that is asked of it here. */
#ifndef MOAT_CORE_GITCONFIG_H
#define MOAT_CORE_GITCONFIG_H

#include <stddef.h>

#include "common/error.h"

/* core.excludesFile of the repository whose working tree is `directory', as an absolute path that
 * the caller frees, or git's default for it; "": there is none.  1; 0: for libgit2 it is no
 * repository; -1.  common_directory: where its `config' is. */
int gitconfig_excludes(const char *directory, const char *common_directory, char **ret,
		       struct moat_error *err);

/* What a file of configuration says of it.  Few say anything, most of them plainly, and
 * initialising libgit2 takes longer than a small snapshot; so that is left for all else: included
 * files, extensions of the repository's format, values with quotes or backslashes.  *ret lies in
 * `text', which is NUL-terminated and is changed. */
enum gitconfig_saying {
	GITCONFIG_NOTHING = 0,
	GITCONFIG_PATH = 1,
	GITCONFIG_MORE = 2 /* takes libgit2 */
};
enum gitconfig_saying gitconfig_say(char *text, size_t size, const char **ret);

#endif
