/* SPDX-License-Identifier: Apache-2.0 */
/* Which extended attributes of a stranger's archive are taken: those that moat captures, and only
 * with values that the kernel would accept, so that what is imported can be restored. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/import_internal.h"

struct attribute {
	const char *name, *value;
	uint32_t size;
};

static bool
begins_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool
is_acl(const char *name)
{
	return strcmp(name, "system.posix_acl_access") == 0 ||
	       strcmp(name, "system.posix_acl_default") == 0;
}

static bool
is_taken(const struct tar_entry *member, const char *name)
{
	if (member->type != TAR_ENTRY_FILE && member->type != TAR_ENTRY_DIRECTORY)
		return false;
	if (strcmp(name, "system.posix_acl_default") == 0)
		return member->type == TAR_ENTRY_DIRECTORY;
	if (begins_with(name, "trusted."))
		return geteuid() == 0 && !begins_with(name, "trusted.overlay.") &&
		       name[strlen("trusted.")] != '\0';
	return (begins_with(name, "user.") && name[strlen("user.")] != '\0') || is_acl(name);
}

static uint16_t
u16(const uint8_t *bytes)
{
	return (uint16_t) (bytes[0] | bytes[1] << 8);
}

/* As posix_acl_valid() of the kernel has it: version 2, then {u16 tag, u16 permissions, u32 id}:
 * the owner, users, the group, groups, the mask (due when there are users or groups), the others.
 */
static bool
is_valid_acl(const char *value, uint32_t size)
{
	enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };
	const uint8_t *at = (const uint8_t *) value, *end = at + size;
	unsigned last = 0;
	bool named = false, mask = false;

	if (size < 4 || (size - 4) % 8 != 0 || u16(at) != 2 || u16(at + 2) != 0)
		return false;
	for (at += 4; at < end; at += 8) {
		unsigned tag = u16(at);
		bool again = tag == USER || tag == GROUP;

		if (u16(at + 2) > 7 || (tag & (tag - 1)) != 0 || tag == 0 || tag > OTHER)
			return false;
		if (again ? tag < last : tag <= last)
			return false;
		/* Neither the owner nor the group may be left out. */
		if ((last == 0 && tag != USER_OBJ) || (last < GROUP_OBJ && tag > GROUP_OBJ))
			return false;
		named |= again;
		mask |= tag == MASK;
		last = tag;
	}
	return last == OTHER && (mask || !named);
}

static int
by_name(const void *a, const void *b)
{
	const struct attribute *left = a, *right = b;

	return strcmp(left->name, right->name);
}

/* The list is the reader's, and well-formed. */
static size_t
split(const struct tar_entry *member, struct attribute *ret)
{
	const char *at = member->xattrs, *end = at + member->xattrs_size;
	size_t count = 0;

	while (at < end) {
		struct attribute attribute = {.name = at};

		at += strlen(at) + 1;
		memcpy(&attribute.size, at, sizeof attribute.size);
		at += sizeof attribute.size;
		attribute.value = at;
		at += attribute.size;
		if (ret != NULL)
			ret[count] = attribute;
		count++;
	}
	return count;
}

static int
take_one(const struct tar_entry *member, const struct attribute *attribute, struct buf *out,
	 uint64_t *dropped, struct moat_error *err)
{
	if (!is_taken(member, attribute->name)) {
		++*dropped;
		return 0;
	}
	if (is_acl(attribute->name) && !is_valid_acl(attribute->value, attribute->size))
		return moat_fail(err, MOAT_CORRUPT,
				 "at byte %llu: member `%.200s': its access control list is "
				 "malformed",
				 (unsigned long long) member->offset, member->path);
	buf_append(out, attribute->name, strlen(attribute->name) + 1);
	buf_append(out, &attribute->size, sizeof attribute->size);
	buf_append(out, attribute->value, attribute->size);
	return 0;
}

int
import_xattrs(const struct tar_entry *member, struct buf *out, uint64_t *dropped,
	      struct moat_error *err)
{
	AUTO_FREE struct attribute *list = NULL;
	size_t count;

	*dropped += member->xattrs_foreign;
	if (member->xattrs_size == 0)
		return 0;
	count = split(member, NULL);
	list = calloc(count, sizeof *list);
	if (list == NULL)
		return moat_fail_memory(err);
	split(member, list);
	qsort(list, count, sizeof *list, by_name);
	for (size_t i = 0; i < count; i++) {
		if (i > 0 && strcmp(list[i - 1].name, list[i].name) == 0)
			return moat_fail(err, MOAT_CORRUPT,
					 "at byte %llu: member `%.200s': it has the attribute "
					 "`%.255s' twice",
					 (unsigned long long) member->offset, member->path,
					 list[i].name);
		if (take_one(member, &list[i], out, dropped, err) < 0)
			return -1;
	}
	return buf_check(out, err);
}
