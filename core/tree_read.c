/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the files that the walk found. */
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/interrupt.h"
#include "core/tree.h"

/* What it means for a file that was there during the walk. */
static int
code_of_open(const struct moat_error *why)
{
	switch (why->sys_errno) {
	case ENOENT:
		return MOAT_GONE;
	case ENOTDIR:
	case ELOOP:
	case EXDEV:
	case ENXIO: /* a socket, a device without driver */
		return MOAT_CHANGED;
	default:
		return why->code;
	}
}

int
tree_open_status(int rootfd, const struct moat_entry *entry, struct stat *ret,
		 struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_CLOSE int fd = fs_open_beneath(rootfd, entry->path,
					    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0, &why);

	if (fd < 0)
		return moat_error_set(err, code_of_open(&why), why.sys_errno, "%s", why.message);
	if (fstat(fd, ret) < 0)
		return moat_fail_errno(err, "stat `%s'", entry->path);
	if (!S_ISREG(ret->st_mode) || ret->st_dev != entry->dev || ret->st_ino != entry->ino)
		return moat_fail(err, MOAT_CHANGED, "`%s' was replaced by another object",
				 entry->path);
	return steal_fd(&fd);
}

int
tree_open(int rootfd, const struct moat_entry *entry, struct moat_error *err)
{
	struct stat status;

	return tree_open_status(rootfd, entry, &status, err);
}

/* Reads the file once, from its start.  *ret_size: how much there was. */
static int
hash_file(int fd, char *chunk, size_t chunk_size, uint8_t hash[MOAT_HASH_SIZE], uint64_t *ret_size)
{
	struct sha256_ctx sha;
	uint64_t size = 0;
	ssize_t got;

	sha256_init(&sha);
	for (;;) {
		/* Large files take long. */
		if (interrupt_pending() != 0) {
			errno = ECANCELED;
			return -1;
		}
		got = pread(fd, chunk, chunk_size, (off_t) size);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		sha256_update(&sha, (size_t) got, (const uint8_t *) chunk);
		size += (uint64_t) got;
	}
	sha256_digest(&sha, MOAT_HASH_SIZE, hash);
	*ret_size = size;
	return 0;
}

static bool
same_times(const struct stat *a, const struct stat *b)
{
	return a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static void
take_status(struct moat_entry *entry, const struct stat *status)
{
	entry->mode = status->st_mode & 07777;
	entry->uid = status->st_uid;
	entry->gid = status->st_gid;
	entry->size = (uint64_t) status->st_size;
	entry->mtime_sec = status->st_mtim.tv_sec;
	entry->mtime_nsec = (uint32_t) status->st_mtim.tv_nsec;
	entry->ctime_sec = status->st_ctim.tv_sec;
	entry->ctime_nsec = (uint32_t) status->st_ctim.tv_nsec;
}

int
tree_read(int rootfd, struct moat_entry *entry, struct arena *arena, struct moat_error *err)
{
	const size_t chunk_size = (size_t) 256 * 1024;
	AUTO_CLOSE int fd = tree_open(rootfd, entry, err);
	AUTO_FREE char *chunk = NULL;
	uint8_t hash[MOAT_HASH_SIZE];
	struct stat before, after;
	const void *xattrs;
	uint32_t xattrs_size;
	uint64_t size;

	if (fd < 0)
		return -1;
	chunk = malloc(chunk_size);
	if (chunk == NULL)
		return moat_fail_memory(err);
	if (fstat(fd, &after) < 0)
		return moat_fail_errno(err, "stat `%s'", entry->path);
	/* Once, and three times more when it changed meanwhile. */
	for (int tries = 0; tries < 4; tries++) {
		before = after;
		if (hash_file(fd, chunk, chunk_size, hash, &size) < 0)
			return moat_fail_errno(err, "read `%s'", entry->path);
		if (tree_xattrs(fd, arena, &xattrs, &xattrs_size, err) < 0)
			return moat_wrap(err, "`%s'", entry->path);
		if (fstat(fd, &after) < 0)
			return moat_fail_errno(err, "stat `%s'", entry->path);
		if (size != (uint64_t) after.st_size || !same_times(&before, &after))
			continue;
		memcpy(entry->hash, hash, sizeof hash);
		entry->flags |= MOAT_HAS_HASH;
		entry->xattrs = xattrs;
		entry->xattrs_size = xattrs_size;
		take_status(entry, &after);
		return 0;
	}
	return moat_fail(err, MOAT_CHANGED, "`%s' keeps changing while it is read", entry->path);
}
