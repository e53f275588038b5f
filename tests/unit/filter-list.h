/* SPDX-License-Identifier: Apache-2.0 */
/* What a filter lets through: a plain walk over a tree, for the tests of core/filter. */
#ifndef MOAT_TESTS_UNIT_FILTER_LIST_H
#define MOAT_TESTS_UNIT_FILTER_LIST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/manifest.h"
#include "core/filter.h"

struct list {
	char **items;
	size_t count, allocated;
};

static inline void
list_free(struct list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct list){NULL, 0, 0};
}

/* Adds a copy of directory, a slash unless directory is empty, name, and suffix. */
static inline int
list_add(struct list *list, const char *directory, const char *name, const char *suffix)
{
	char *item = NULL;

	if (list->count == list->allocated) {
		size_t n = 2 * list->allocated + 64;
		char **items = realloc(list->items, n * sizeof *items);

		if (items == NULL)
			return -1;
		list->items = items;
		list->allocated = n;
	}
	if (asprintf(&item, "%s%s%s%s", directory, *directory != '\0' ? "/" : "", name, suffix) < 0)
		return -1;
	list->items[list->count++] = item;
	return 0;
}

static inline int
list_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Sorts, and removes what is there twice. */
static inline void
list_sort(struct list *list)
{
	size_t kept = 0;

	if (list->count > 1)
		qsort(list->items, list->count, sizeof *list->items, list_compare);
	for (size_t i = 0; i < list->count; i++) {
		if (kept > 0 && strcmp(list->items[i], list->items[kept - 1]) == 0)
			free(list->items[i]);
		else
			list->items[kept++] = list->items[i];
	}
	list->count = kept;
}

static inline int
list_keep(struct list *list, struct manifest *manifest, const char *path, const struct stat *st,
	  struct moat_error *err)
{
	struct moat_entry entry = {.path = path, .mode = st->st_mode & 07777u, .nlink = 1};

	entry.type = S_ISDIR(st->st_mode)   ? MOAT_DIRECTORY
		     : S_ISLNK(st->st_mode) ? MOAT_SYMLINK
					    : MOAT_FILE;
	entry.link_target = S_ISLNK(st->st_mode) ? "x" : NULL;
	entry.leader = MOAT_NO_LEADER;
	if (*path != '\0' && list_add(list, "", path, S_ISDIR(st->st_mode) ? "/" : "") < 0)
		return -1;
	if (manifest != NULL && manifest_add(manifest, &entry) == NULL)
		return moat_fail_memory(err);
	return 0;
}

/* Files and links as they are called, directories with a slash at the end, in no order.  The same
 * goes into the manifest, when it is not NULL. */
static inline int
list_directory(int fd, const char *path, struct filter *filter, const struct filter_scope *scope,
	       struct list *list, struct manifest *manifest, struct moat_error *err)
{
	DIR *directory = fdopendir(fd);
	struct dirent *d;
	int status = directory == NULL ? -1 : 0;

	while (status == 0 && (d = readdir(directory)) != NULL) {
		enum filter_verdict verdict;
		const struct filter_scope *inner;
		char *sub = NULL;
		struct stat st;
		int subfd;

		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		if (fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !(S_ISDIR(st.st_mode) || S_ISREG(st.st_mode) || S_ISLNK(st.st_mode)))
			continue;
		if (asprintf(&sub, "%s%s%s", path, *path != '\0' ? "/" : "", d->d_name) < 0)
			return moat_fail_memory(err);
		verdict = filter_check(filter, scope, sub, d->d_name, S_ISDIR(st.st_mode));
		if (verdict != FILTER_IGNORE) {
			status = list_keep(list, manifest, sub, &st, err);
			if (status == 0 && S_ISDIR(st.st_mode)) {
				subfd = openat(fd, d->d_name,
					       O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
				status = filter_enter(filter, scope, sub, subfd, verdict, true, &inner,
						      err);
				if (status == 0)
					status = list_directory(subfd, sub, filter, inner, list,
								manifest, err);
				else
					close(subfd);
			}
		}
		free(sub);
	}
	if (directory != NULL)
		closedir(directory);
	return status;
}

/* rootfd stays open. */
static inline int
list_captured(int rootfd, struct filter *filter, struct list *list, struct manifest *manifest,
	      struct moat_error *err)
{
	const struct filter_scope *scope;
	struct stat st;
	int fd;

	if (filter_root(filter, &scope, err) < 0)
		return -1;
	fd = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return moat_fail_errno(err, "open the root");
	if (list_keep(list, manifest, "", &st, err) < 0 ||
	    list_directory(fd, "", filter, scope, list, manifest, err) < 0)
		return -1;
	return 0;
}

#endif
