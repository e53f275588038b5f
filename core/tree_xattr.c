/* SPDX-License-Identifier: Apache-2.0 */
/* Extended attributes of files and directories: reading them into a list, making them so. */
#include "core/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

/* How often what changes between two system calls is asked for again. */
#define TRIES 16

static bool
begins_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* security.* belongs to the system's policy, trusted.overlay.* to a mounted overlay. */
static bool
is_captured(const char *name)
{
	if (begins_with(name, "trusted."))
		return geteuid() == 0 && !begins_with(name, "trusted.overlay.");
	return begins_with(name, "user.") || begins_with(name, "system.posix_acl_");
}

/* Whether the filesystem has no extended attributes at all. */
static bool
has_none(int sys_errno)
{
	return sys_errno == EOPNOTSUPP || sys_errno == ENOSYS;
}

/* The names, each with its NUL; none where the filesystem has none. */
static int
list_names(int fd, struct buf *ret, struct moat_error *err)
{
	AUTO_FREE char *names = NULL;
	ssize_t size = 0;

	for (int tries = 0; tries < TRIES; tries++) {
		size = flistxattr(fd, NULL, 0);
		if (size == 0 || (size < 0 && has_none(errno)))
			return 0;
		if (size < 0)
			break;
		cleanup_free(&names);
		names = malloc((size_t) size);
		if (names == NULL)
			return moat_fail_memory(err);
		size = flistxattr(fd, names, (size_t) size);
		if (size >= 0 || errno != ERANGE)
			break;
	}
	if (size < 0)
		return moat_fail_errno(err, "list the extended attributes");
	buf_append(ret, names, (size_t) size);
	return buf_check(ret, err);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Those of the captured classes, sorted; the strings lie in `names`, the array is the caller's. */
static int
captured_names(int fd, struct buf *names, const char ***ret, size_t *ret_count,
	       struct moat_error *err)
{
	const char **list;
	size_t count = 0, at;

	*ret = NULL;
	*ret_count = 0;
	if (list_names(fd, names, err) < 0)
		return -1;
	if (names->size == 0)
		return 0;
	list = calloc(names->size, sizeof *list); /* a name is at least a byte */
	if (list == NULL)
		return moat_fail_memory(err);
	for (at = 0; at < names->size; at += strlen(names->data + at) + 1) {
		if (is_captured(names->data + at))
			list[count++] = names->data + at;
	}
	qsort(list, count, sizeof *list, compare_names);
	*ret = list;
	*ret_count = count;
	return 0;
}

/* Returns 1 with the value, 0 when there is no such attribute (any more). */
static int
get_value(int fd, const char *name, struct buf *ret, struct moat_error *err)
{
	AUTO_FREE char *value = NULL;
	ssize_t size = 0;

	for (int tries = 0; tries < TRIES; tries++) {
		size = fgetxattr(fd, name, NULL, 0);
		if (size < 0)
			break;
		cleanup_free(&value);
		value = malloc((size_t) size + 1);
		if (value == NULL)
			return moat_fail_memory(err);
		size = fgetxattr(fd, name, value, (size_t) size);
		if (size >= 0 || errno != ERANGE)
			break;
	}
	if (size < 0 && (errno == ENODATA || has_none(errno)))
		return 0;
	if (size < 0)
		return moat_fail_errno(err, "read the extended attribute `%s'", name);
	buf_append(ret, value, (size_t) size);
	return buf_check(ret, err) < 0 ? -1 : 1;
}

int
tree_xattrs(int fd, struct arena *arena, const void **ret, uint32_t *ret_size,
	    struct moat_error *err)
{
	AUTO_BUF struct buf names = {0};
	AUTO_BUF struct buf list = {0};
	AUTO_FREE const char **name = NULL;
	size_t count;

	*ret = NULL;
	*ret_size = 0;
	if (captured_names(fd, &names, &name, &count, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		AUTO_BUF struct buf value = {0};
		int found = get_value(fd, name[i], &value, err);
		uint32_t size = (uint32_t) value.size;

		if (found < 0)
			return -1;
		if (found == 0)
			continue;
		buf_append(&list, name[i], strlen(name[i]) + 1);
		buf_append(&list, &size, sizeof size);
		buf_append(&list, value.data, value.size);
	}
	if (buf_check(&list, err) < 0)
		return -1;
	if (list.size == 0)
		return 0;
	if (list.size > UINT32_MAX)
		return moat_fail(err, MOAT_UNSUPPORTED, "the extended attributes are too large");
	*ret = arena_copy(arena, list.data, list.size);
	if (*ret == NULL)
		return moat_fail_memory(err);
	*ret_size = (uint32_t) list.size;
	return 0;
}

/* One attribute of a list. */
struct attribute {
	const char *name, *value;
	uint32_t size;
};

/* Returns 1 with the next attribute, 0 at the end. */
static int
next_attribute(const char **position, const char *end, struct attribute *ret,
	       struct moat_error *err)
{
	size_t left = (size_t) (end - *position), length;

	if (left == 0)
		return 0;
	ret->name = *position;
	length = strnlen(ret->name, left);
	if (length > 0 && left - length >= 1 + sizeof ret->size) {
		ret->value = ret->name + length + 1 + sizeof ret->size;
		memcpy(&ret->size, ret->name + length + 1, sizeof ret->size);
		*position = ret->value + ret->size;
		if (left - length - 1 - sizeof ret->size >= ret->size)
			return 1;
	}
	return moat_fail(err, MOAT_CORRUPT, "a list of extended attributes is malformed");
}

/* Whether the list, which is well-formed, has that name. */
static bool
is_wanted(const char *xattrs, uint32_t size, const char *name)
{
	const char *position = xattrs;
	struct attribute attribute;

	while (next_attribute(&position, xattrs + size, &attribute, NULL) > 0) {
		if (strcmp(attribute.name, name) == 0)
			return true;
	}
	return false;
}

/* Nothing is changed before the whole list is known to be good: a name of another class, such as
 * security.capability, would be a privilege that nobody captured. */
static int
check_list(const char *xattrs, uint32_t size, struct moat_error *err)
{
	const char *position = xattrs;
	struct attribute attribute;
	int more;

	while ((more = next_attribute(&position, xattrs + size, &attribute, err)) > 0) {
		if (!is_captured(attribute.name))
			return moat_fail(err, MOAT_PERMISSION,
					 "the extended attribute `%s' is not one that may be set",
					 attribute.name);
	}
	return more;
}

static int
set_attribute(int fd, const struct attribute *attribute, struct moat_error *err)
{
	AUTO_BUF struct buf present = {0};
	int found = get_value(fd, attribute->name, &present, err);

	if (found < 0)
		return -1;
	if (found == 1 && present.size == attribute->size &&
	    (present.size == 0 || memcmp(present.data, attribute->value, present.size) == 0))
		return 0;
	if (fsetxattr(fd, attribute->name, attribute->value, attribute->size, 0) < 0)
		return moat_fail_errno(err, "set the extended attribute `%s'", attribute->name);
	return 0;
}

int
tree_set_xattrs(int fd, const void *xattrs, uint32_t size, struct moat_error *err)
{
	AUTO_BUF struct buf names = {0};
	AUTO_FREE const char **name = NULL;
	const char *position = xattrs;
	struct attribute attribute;
	size_t count;

	if (size > 0 && check_list(xattrs, size, err) < 0)
		return -1;
	if (captured_names(fd, &names, &name, &count, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		if (size > 0 && is_wanted(xattrs, size, name[i]))
			continue;
		if (fremovexattr(fd, name[i]) < 0 && errno != ENODATA)
			return moat_fail_errno(err, "remove the extended attribute `%s'", name[i]);
	}
	/* An access control list may forbid to write the others, so those of the system come last.
	 */
	for (int round = 0; size > 0 && round < 2; round++) {
		position = xattrs;
		while (next_attribute(&position, (const char *) xattrs + size, &attribute, NULL) >
		       0)
			if (begins_with(attribute.name, "system.") == (round == 1) &&
			    set_attribute(fd, &attribute, err) < 0)
				return -1;
	}
	return 0;
}
