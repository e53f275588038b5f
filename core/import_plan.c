/* SPDX-License-Identifier: Apache-2.0 */
/* What the members of an archive make together: one tree, in which nothing changes its type, stands
 * below something that is no directory, comes twice, or is a link to what is not there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/text.h"
#include "core/import_internal.h"
#include "core/tree.h"

#define DIRECTORY_MODE 0755 /* of those that the archive does not tell of */
#define LEFT_OUT_MAX 10000  /* paths that are left out, one by one */

static int refuse(const struct tar_entry *member, struct moat_error *err, const char *format, ...)
	MOAT_PRINTF(3, 4);
static int
refuse(const struct tar_entry *member, struct moat_error *err, const char *format, ...)
{
	char what[768];
	va_list args;

	va_start(args, format);
	(void) vsnprintf(what, sizeof what, format, args);
	va_end(args);
	return moat_fail(err, MOAT_CORRUPT, "at byte %llu: member `%.200s': %s",
			 (unsigned long long) member->offset, member->path, what);
}

/* ------------------------------------------------------------------------------------- the table
 */

/* Seeded, so that nobody can choose names that collide. */
static uint64_t
hash_of(const struct import_plan *plan, const char *path, size_t size)
{
	struct sha256_ctx ctx;
	uint8_t digest[8];
	uint64_t hash;

	sha256_init(&ctx);
	sha256_update(&ctx, sizeof plan->seed, plan->seed);
	sha256_update(&ctx, size, (const uint8_t *) path);
	sha256_digest(&ctx, sizeof digest, digest);
	memcpy(&hash, digest, sizeof hash);
	return hash;
}

/* The node of that path, or the free one where it belongs. */
static struct import_node *
find_node(const struct import_plan *plan, const char *path, size_t size, uint64_t hash)
{
	for (size_t i = hash & (plan->node_room - 1);; i = (i + 1) & (plan->node_room - 1)) {
		struct import_node *node = &plan->nodes[i];

		if (node->entry == NULL ||
		    (node->hash == hash && strncmp(node->entry->path, path, size) == 0 &&
		     node->entry->path[size] == '\0'))
			return node;
	}
}

static struct moat_entry *
find_entry(const struct import_plan *plan, const char *path, size_t size)
{
	return find_node(plan, path, size, hash_of(plan, path, size))->entry;
}

static int
grow(struct import_plan *plan, struct moat_error *err)
{
	struct import_plan bigger = *plan;

	if (2 * (plan->node_count + 1) <= plan->node_room)
		return 0;
	bigger.node_room = plan->node_room == 0 ? 1024 : 2 * plan->node_room;
	bigger.nodes = calloc(bigger.node_room, sizeof *bigger.nodes);
	if (bigger.nodes == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < plan->node_room; i++) {
		const struct import_node *node = &plan->nodes[i];

		if (node->entry != NULL)
			*find_node(&bigger, node->entry->path, strlen(node->entry->path),
				   node->hash) = *node;
	}
	free(plan->nodes);
	*plan = bigger;
	return 0;
}

static struct moat_entry *
add_entry(struct import_plan *plan, const struct moat_entry *entry, struct moat_error *err)
{
	size_t size = strlen(entry->path);
	uint64_t hash = hash_of(plan, entry->path, size);
	struct import_node *node;

	if (grow(plan, err) < 0)
		return NULL;
	node = find_node(plan, entry->path, size, hash);
	node->entry = manifest_add(plan->manifest, entry);
	if (node->entry == NULL) {
		moat_fail_memory(err);
		return NULL;
	}
	node->hash = hash;
	plan->node_count++;
	return node->entry;
}

/* The number of a new content, which has one name. */
static int
new_number(struct import_plan *plan, uint64_t *ret, struct moat_error *err)
{
	if (plan->count + 1 >= plan->room) {
		size_t room = plan->room == 0 ? 1024 : 2 * plan->room;
		uint32_t *names = reallocarray(plan->names, room, sizeof *names);

		if (names == NULL)
			return moat_fail_memory(err);
		plan->names = names;
		plan->room = room;
	}
	*ret = ++plan->count;
	plan->names[*ret] = 1;
	return 0;
}

/* ----------------------------------------------------------------------------------- directories
 */

static struct moat_entry *
make_directory(struct import_plan *plan, const char *path, struct moat_error *err)
{
	const struct moat_entry entry = {
		.path = path,
		.type = MOAT_DIRECTORY,
		.status = MOAT_NEW,
		.mode = DIRECTORY_MODE,
		.uid = geteuid(),
		.gid = getegid(),
		.mtime_sec = plan->now_ns / 1000000000,
		.mtime_nsec = (uint32_t) (plan->now_ns % 1000000000),
		.nlink = 1,
		.leader = MOAT_NO_LEADER,
	};

	return add_entry(plan, &entry, err);
}

/* One that the archive does not tell of.  A path of many short components makes many of them, so
 * they are counted. */
static int
make_up(struct import_plan *plan, const struct tar_entry *member, const char *path,
	struct moat_error *err)
{
	size_t size = strlen(path) + 1;

	if (plan->entries >= plan->limits.max_entries)
		return refuse(member, err,
			      "with the directories above it the archive has more than %llu "
			      "entries (max_entries)",
			      (unsigned long long) plan->limits.max_entries);
	if (size > plan->limits.max_name_bytes - plan->name_bytes)
		return refuse(member, err,
			      "the paths of the directories above it are too long together");
	plan->entries++;
	plan->name_bytes += size;
	return make_directory(plan, path, err) == NULL ? -1 : 0;
}

/* Everything above `path' is a directory, or becomes one.  From the nearest that is known, above
 * which everything is. */
static int
need_parents(struct import_plan *plan, const struct tar_entry *member, const char *path,
	     struct moat_error *err)
{
	AUTO_FREE char *parent = strdup(path);
	size_t size = strlen(path), known = 0;

	if (parent == NULL)
		return moat_fail_memory(err);
	for (size_t i = size; i-- > 0;) {
		const struct moat_entry *entry;

		if (path[i] != '/')
			continue;
		entry = find_entry(plan, path, i);
		if (entry == NULL)
			continue;
		if (entry->type != MOAT_DIRECTORY)
			return refuse(member, err, "it is below `%.200s', which is no directory",
				      entry->path);
		known = i;
		break;
	}
	for (size_t i = known + 1; i < size; i++) {
		if (path[i] != '/')
			continue;
		parent[i] = '\0';
		if (make_up(plan, member, parent, err) < 0)
			return -1;
		parent[i] = '/';
	}
	return 0;
}

/* ---------------------------------------------------------------------------------- what is left
 * out
 */

/* The length of the path up to a component that moat does not touch; 0: there is none. */
static size_t
reserved_size(const char *path)
{
	for (const char *at = path; *at != '\0';) {
		size_t n = strcspn(at, "/");

		if ((n == 4 && memcmp(at, ".git", 4) == 0) ||
		    (at == path && n >= strlen(TREE_STAGE_PREFIX) &&
		     memcmp(at, TREE_STAGE_PREFIX, strlen(TREE_STAGE_PREFIX)) == 0))
			return (size_t) (at - path) + n;
		at += n + (at[n] == '/');
	}
	return 0;
}

static int
leave_out(struct import_plan *plan, const struct tar_entry *member, size_t size,
	  struct moat_error *err)
{
	AUTO_FREE char *path = strndup(member->path, size);

	if (path == NULL)
		return moat_fail_memory(err);
	plan->dropped.left_out++;
	if (manifest_find_skip(plan->manifest, path) != NULL)
		return 0;
	if (plan->manifest->skip_count >= LEFT_OUT_MAX)
		return refuse(member, err, "more than %d names that moat does not touch",
			      LEFT_OUT_MAX);
	if (need_parents(plan, member, path, err) < 0)
		return -1;
	return manifest_add_skip(plan->manifest, path, SKIP_RESERVED, "left out of the import",
				 err);
}

/* ---------------------------------------------------------------------------------------- members
 */

static void
take_metadata(struct moat_entry *entry, const struct tar_entry *member)
{
	bool root = geteuid() == 0;

	entry->mode = member->mode;
	entry->uid = root ? member->uid : geteuid();
	entry->gid = root ? member->gid : getegid();
	entry->mtime_sec = member->mtime_sec;
	entry->mtime_nsec = member->mtime_nsec;
}

static int
add_directory(struct import_plan *plan, const struct tar_entry *member, struct moat_entry *there,
	      struct moat_error *err)
{
	AUTO_BUF struct buf xattrs = {0};

	if (import_xattrs(member, &xattrs, &plan->dropped.xattrs, err) < 0)
		return -1;
	if (there == NULL)
		there = make_directory(plan, member->path, err);
	if (there == NULL)
		return -1;
	take_metadata(there, member);
	there->xattrs = NULL;
	there->xattrs_size = 0;
	if (xattrs.size == 0)
		return 0;
	there->xattrs = arena_copy(&plan->manifest->arena, xattrs.data, xattrs.size);
	there->xattrs_size = (uint32_t) xattrs.size;
	return there->xattrs == NULL ? moat_fail_memory(err) : 0;
}

static int
add_file(struct import_plan *plan, const struct tar_entry *member, uint64_t *ret_number,
	 struct moat_error *err)
{
	AUTO_BUF struct buf xattrs = {0};
	bool link = member->type == TAR_ENTRY_SYMLINK;
	struct moat_entry entry = {
		.path = member->path,
		.type = link ? MOAT_SYMLINK : MOAT_FILE,
		.status = MOAT_NEW,
		.link_target = link ? member->link : NULL,
		.size = link ? strlen(member->link) : member->size,
		.nlink = 1,
		.leader = MOAT_NO_LEADER,
	};

	if (import_xattrs(member, &xattrs, &plan->dropped.xattrs, err) < 0 ||
	    new_number(plan, &entry.ino, err) < 0)
		return -1;
	take_metadata(&entry, member);
	if (link) {
		entry.mode = 0777;
	} else if ((entry.mode & 07000) != 0) {
		entry.mode &= 0777;
		plan->dropped.modes++;
	}
	entry.xattrs = xattrs.size == 0 ? NULL : xattrs.data;
	entry.xattrs_size = (uint32_t) xattrs.size;
	if (!link) {
		*ret_number = entry.ino;
		plan->space += (member->data_size + 4095) / 4096 * 4096;
	}
	return add_entry(plan, &entry, err) == NULL ? -1 : 0;
}

static int
add_hard_link(struct import_plan *plan, const struct tar_entry *member, struct moat_error *err)
{
	struct moat_entry *target = find_entry(plan, member->link, strlen(member->link));
	struct moat_entry entry;

	if (reserved_size(member->link) > 0)
		return refuse(member, err, "it is a link to `%.200s', which is left out",
			      member->link);
	if (target == NULL)
		return refuse(member, err,
			      "it is a link to `%.200s', which did not come before in the archive",
			      member->link);
	if (target->type == MOAT_DIRECTORY)
		return refuse(member, err, "it is a link to `%.200s', which is a directory",
			      member->link);
	if (plan->names[target->ino] == UINT32_MAX)
		return refuse(member, err, "`%.200s' has too many names", member->link);
	plan->names[target->ino]++;
	entry = *target;
	entry.path = member->path;
	return add_entry(plan, &entry, err) == NULL ? -1 : 0;
}

static const char *
type_text(const struct moat_entry *entry)
{
	return entry->type == MOAT_DIRECTORY ? "a directory"
	       : entry->type == MOAT_SYMLINK ? "a symbolic link"
					     : "a file";
}

int
import_plan_add(struct import_plan *plan, const struct tar_entry *member, uint64_t *ret_number,
		struct moat_error *err)
{
	size_t reserved = reserved_size(member->path);
	struct moat_entry *there;

	*ret_number = 0;
	plan->entries++;
	if (reserved > 0)
		return leave_out(plan, member, reserved, err);
	there = find_entry(plan, member->path, strlen(member->path));
	if (there != NULL && (there->type != MOAT_DIRECTORY || member->type != TAR_ENTRY_DIRECTORY))
		return refuse(member, err, "the archive has that name before, as %s",
			      type_text(there));
	if (there == NULL && need_parents(plan, member, member->path, err) < 0)
		return -1;
	switch (member->type) {
	case TAR_ENTRY_DIRECTORY:
		return add_directory(plan, member, there, err);
	case TAR_ENTRY_HARD_LINK:
		return add_hard_link(plan, member, err);
	case TAR_ENTRY_FILE:
	case TAR_ENTRY_SYMLINK:
		break;
	}
	return add_file(plan, member, ret_number, err);
}

/* -------------------------------------------------------------------------------- beginning and
 * end
 */

int
import_plan_open(struct import_plan *plan, const struct tar_limits *limits, struct moat_error *err)
{
	*plan = (struct import_plan){.now_ns = time_now_ns(), .limits = *limits};
	if (getrandom(plan->seed, sizeof plan->seed, 0) != (ssize_t) sizeof plan->seed)
		return moat_fail_errno(err, "random numbers");
	plan->manifest = manifest_new();
	if (plan->manifest == NULL)
		return moat_fail_memory(err);
	plan->manifest->started_ns = plan->now_ns;
	if (grow(plan, err) < 0)
		return -1;
	return make_directory(plan, "", err) == NULL ? -1 : 0;
}

int
import_plan_finish(struct import_plan *plan, struct moat_error *err)
{
	/* A file of zeros looks like an archive of nothing, and restoring it would empty a
	 * workspace. */
	if (plan->entries == 0)
		return moat_fail(err, MOAT_CORRUPT, "at byte 0: the archive has no members");
	for (size_t i = 0; i < plan->manifest->count; i++) {
		/* The manifest made it, and is not sealed yet. */
		struct moat_entry *entry = (struct moat_entry *) plan->manifest->entries[i];

		if (entry->type != MOAT_DIRECTORY)
			entry->nlink = plan->names[entry->ino];
	}
	return manifest_seal(plan->manifest, err);
}

void
import_plan_close(struct import_plan *plan)
{
	manifest_free(plan->manifest);
	free(plan->nodes);
	free(plan->names);
	*plan = (struct import_plan){0};
}
