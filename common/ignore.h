/* SPDX-License-Identifier: Apache-2.0 */
/* gitignore patterns: parsing and matching, as gitignore(5) says and as git 2.39 does it (dir.c,
 * wildmatch.c are the reference for behaviour).  Pure: no file is read here. */
#ifndef MOAT_COMMON_IGNORE_H
#define MOAT_COMMON_IGNORE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

/* The patterns of one file, or of one list, with the directory that they are relative to. Immutable
 * once made; may be used from several threads. */
struct ignore_list;

/* text: the contents of a .gitignore (an optional UTF-8 BOM, CR LF, trailing blanks, "\ ", "!" and
 * "\#" as git treats them).  NULL: no memory. */
struct ignore_list *ignore_parse(const char *text, size_t size);
void ignore_free(struct ignore_list *list);
bool ignore_is_empty(const struct ignore_list *list);

enum ignore_match { IGNORE_NONE = 0, IGNORE_IGNORED = 1, IGNORE_INCLUDED = 2 };

/* What the last pattern that matches says.  path: relative to the directory of the list, with no
 * slash at either end; name: its last component (points into path).  Only this object is looked at:
 * that a parent directory is ignored is the caller's business, as git's is. */
enum ignore_match
ignore_check(const struct ignore_list *list, const char *path, const char *name, bool is_directory);

/* git's wildmatch with WM_PATHNAME, exposed for tests and for path globs of the command line. */
bool ignore_wildmatch(const char *pattern, const char *text);

#endif
