/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded number of open directories of a tree, shared by the threads that fill it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/fs.h"
#include "core/txn_internal.h"

/* So many stay open that nobody has just now. */
#define IDLE_MAX 96

struct slot {
	int64_t index;
	int fd;
	unsigned users;
	uint64_t used; /* when last: a count */
};

struct dirs {
	pthread_mutex_t lock;
	int top_fd;
	const struct dirs_node *nodes;
	int32_t *slot_of; /* per node; -1: not open */
	struct slot *slots;
	size_t count, allocated;
	uint64_t clock;
};

struct dirs *
dirs_new(int top_fd, const struct dirs_node *nodes, size_t count)
{
	struct dirs *dirs = calloc(1, sizeof *dirs);

	if (dirs == NULL)
		return NULL;
	pthread_mutex_init(&dirs->lock, NULL);
	dirs->top_fd = top_fd;
	dirs->nodes = nodes;
	dirs->slot_of = malloc((count + 1) * sizeof *dirs->slot_of);
	if (dirs->slot_of == NULL) {
		dirs_free(dirs);
		return NULL;
	}
	for (size_t i = 0; i < count; i++)
		dirs->slot_of[i] = -1;
	return dirs;
}

void
dirs_free(struct dirs *dirs)
{
	if (dirs == NULL)
		return;
	for (size_t i = 0; i < dirs->count; i++)
		cleanup_close(&dirs->slots[i].fd);
	pthread_mutex_destroy(&dirs->lock);
	free(dirs->slot_of);
	free(dirs->slots);
	free(dirs);
}

/* The idle directory that was used longest ago, or NULL. */
static struct slot *
oldest_idle(struct dirs *dirs, size_t *ret_idle)
{
	struct slot *oldest = NULL;

	*ret_idle = 0;
	for (size_t i = 0; i < dirs->count; i++) {
		struct slot *slot = &dirs->slots[i];

		if (slot->users > 0 || slot->fd < 0)
			continue;
		(*ret_idle)++;
		if (oldest == NULL || slot->used < oldest->used)
			oldest = slot;
	}
	return oldest;
}

static void
drop(struct dirs *dirs, struct slot *slot)
{
	cleanup_close(&slot->fd);
	slot->fd = -1;
	dirs->slot_of[slot->index] = -1;
}

/* A slot without a directory. */
static struct slot *
free_slot(struct dirs *dirs)
{
	struct slot *oldest, *more;
	size_t idle, n;

	oldest = oldest_idle(dirs, &idle);
	if (idle >= IDLE_MAX)
		drop(dirs, oldest);
	for (size_t i = 0; i < dirs->count; i++)
		if (dirs->slots[i].fd < 0)
			return &dirs->slots[i];
	if (dirs->count == dirs->allocated) {
		n = dirs->allocated == 0 ? IDLE_MAX : dirs->allocated * 2;
		more = reallocarray(dirs->slots, n, sizeof *more);
		if (more == NULL)
			return NULL;
		dirs->slots = more;
		dirs->allocated = n;
	}
	dirs->slots[dirs->count].fd = -1;
	return &dirs->slots[dirs->count++];
}

/* When the process has no descriptor left, those of idle directories are given up one by one. */
static int
open_in(struct dirs *dirs, int parent_fd, const char *name)
{
	for (;;) {
		int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		struct slot *oldest;
		size_t idle;

		if (fd >= 0 || errno != EMFILE)
			return fd;
		oldest = oldest_idle(dirs, &idle);
		if (oldest == NULL) {
			errno = EMFILE;
			return -1;
		}
		drop(dirs, oldest);
	}
}

/* Opens one whose parent is the top one, or open. */
static int
open_next(struct dirs *dirs, int64_t index, struct moat_error *err)
{
	int64_t parent = dirs->nodes[index].parent;
	struct slot *above = parent < 0 ? NULL : &dirs->slots[dirs->slot_of[parent]], *slot;
	int fd;

	if (above != NULL)
		above->users++;
	fd = open_in(dirs, above == NULL ? dirs->top_fd : above->fd, dirs->nodes[index].name);
	if (above != NULL)
		above->users--;
	if (fd < 0)
		return moat_fail_errno(err, "open the new directory `%s'", dirs->nodes[index].name);
	slot = free_slot(dirs);
	if (slot == NULL) {
		cleanup_close(&fd);
		return moat_fail_memory(err);
	}
	*slot = (struct slot){.index = index, .fd = fd, .used = ++dirs->clock};
	dirs->slot_of[index] = (int32_t) (slot - dirs->slots);
	return 0;
}

/* From the nearest one that is open down to the one that is wanted. */
static int
open_down(struct dirs *dirs, int64_t index, struct moat_error *err)
{
	AUTO_FREE int64_t *way = NULL;
	size_t depth = 0;

	for (int64_t i = index; i >= 0 && dirs->slot_of[i] < 0; i = dirs->nodes[i].parent)
		depth++;
	way = calloc(depth + 1, sizeof *way);
	if (way == NULL)
		return moat_fail_memory(err);
	for (size_t i = depth; i-- > 0; index = dirs->nodes[index].parent)
		way[i] = index;
	for (size_t i = 0; i < depth; i++)
		if (open_next(dirs, way[i], err) < 0)
			return -1;
	return 0;
}

int
dirs_get(struct dirs *dirs, int64_t index, struct moat_error *err)
{
	struct slot *slot;
	int fd = -1;

	if (index < 0)
		return dirs->top_fd;
	pthread_mutex_lock(&dirs->lock);
	if (open_down(dirs, index, err) == 0) {
		slot = &dirs->slots[dirs->slot_of[index]];
		slot->users++;
		slot->used = ++dirs->clock;
		fd = slot->fd;
	}
	pthread_mutex_unlock(&dirs->lock);
	return fd;
}

void
dirs_put(struct dirs *dirs, int64_t index)
{
	if (index < 0)
		return;
	pthread_mutex_lock(&dirs->lock);
	dirs->slots[dirs->slot_of[index]].users--;
	pthread_mutex_unlock(&dirs->lock);
}
