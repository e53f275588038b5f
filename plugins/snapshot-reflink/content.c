/* SPDX-License-Identifier: Apache-2.0 */
/* Cloning, copying, hashing. */
#include "content.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/sparse.h"

#define BUFFER_MAX ((uint64_t) 256 << 10)
#define COPY_MAX ((uint64_t) 16 << 20) /* between two looks at whether the user wants to stop */

/* What ioctl_ficlone(2) and copy_file_range(2) say when this file, or these two, cannot be done
 * that way, though reading and writing may. */
static bool
is_refusal(int sys_errno)
{
	return sys_errno == EOPNOTSUPP || sys_errno == EINVAL || sys_errno == EXDEV ||
	       sys_errno == ETXTBSY || sys_errno == ENOTTY || sys_errno == ENOSYS;
}

static size_t
buffer_size(uint64_t bytes)
{
	return (size_t) (bytes < 4096 ? 4096 : bytes < BUFFER_MAX ? bytes : BUFFER_MAX);
}

/* Up to size bytes; 0: the file ends there. */
static ssize_t
read_at(int fd, void *data, size_t size, uint64_t offset)
{
	ssize_t n;

	do {
		n = pread(fd, data, size, (off_t) offset);
	} while (n < 0 && errno == EINTR);
	return n;
}

/* By reading and writing; less than the extent when the file has shrunk. */
static int
copy_plainly(struct work *work, int from, int to, struct extent extent, struct moat_error *err)
{
	size_t room = buffer_size(extent.size);
	AUTO_FREE uint8_t *buffer = malloc(room);

	if (buffer == NULL)
		return moat_fail_memory(err);
	while (extent.size > 0) {
		ssize_t n;

		if (work_check(work, err) < 0)
			return -1;
		n = read_at(from, buffer, extent.size < room ? (size_t) extent.size : room,
			    extent.offset);
		if (n < 0)
			return moat_fail_errno(err, "read");
		if (n == 0)
			return 0;
		if (fs_write_at(to, buffer, (size_t) n, extent.offset, err) < 0)
			return -1;
		extent.offset += (uint64_t) n;
		extent.size -= (uint64_t) n;
	}
	return 0;
}

/* By the kernel, which may have a shorter way, for as long as it will. */
static int
copy_extent(struct work *work, int from, int to, struct extent extent, struct moat_error *err)
{
	while (extent.size > 0) {
		off_t in = (off_t) extent.offset, out = in;
		ssize_t n;

		if (work_check(work, err) < 0)
			return -1;
		n = copy_file_range(from, &in, to, &out,
				    (size_t) (extent.size < COPY_MAX ? extent.size : COPY_MAX), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && !is_refusal(errno))
			return moat_fail_errno(err, "copy");
		if (n <= 0)
			return copy_plainly(work, from, to, extent, err);
		extent.offset += (uint64_t) n;
		extent.size -= (uint64_t) n;
	}
	return 0;
}

static int
copy_all(struct work *work, int from, int to, struct moat_error *err)
{
	AUTO_SPARSE_MAP struct sparse_map map = {0};
	struct stat st;
	bool sparse;

	if (fstat(from, &st) < 0)
		return moat_fail_errno(err, "stat");
	if (sparse_map_scan(from, &st, &map, &sparse, err) < 0)
		return -1;
	if (ftruncate(to, st.st_size) < 0)
		return moat_fail_errno(err, "set the size");
	for (size_t i = 0; i < map.count; i++)
		if (copy_extent(work, from, to, map.items[i], err) < 0)
			return -1;
	return 0;
}

int
content_transfer(struct work *work, int from, int to, uint64_t size, bool *ret_copied,
		 struct moat_error *err)
{
	int r;

	*ret_copied = false;
	if (size == 0)
		return 0;
	do {
		r = ioctl(to, FICLONE, from);
	} while (r < 0 && errno == EINTR);
	if (r == 0)
		return 0;
	if (!is_refusal(errno))
		return moat_fail_errno(err, "clone");
	*ret_copied = true;
	return copy_all(work, from, to, err);
}

int
content_hash(struct work *work, int fd, uint64_t size, uint64_t *ret_size,
	     uint8_t ret[MOAT_HASH_SIZE], struct moat_error *err)
{
	const struct moat_host *host = work->reflink->host;
	size_t room = buffer_size(size);
	AUTO_FREE uint8_t *buffer = malloc(room);
	struct moat_hash *hash = buffer == NULL ? NULL : host->hash_new();
	int r = 0;

	if (hash == NULL)
		return moat_fail_memory(err);
	for (*ret_size = 0; *ret_size <= size;) {
		ssize_t n;

		r = work_check(work, err);
		if (r < 0)
			break;
		n = read_at(fd, buffer, room, *ret_size);
		if (n < 0)
			r = moat_fail(err, MOAT_CORRUPT, "it cannot be read: %s", strerror(errno));
		if (n <= 0)
			break;
		host->hash_update(hash, buffer, (size_t) n);
		*ret_size += (uint64_t) n;
		work_report(work, n);
	}
	host->hash_end(hash, ret);
	return r;
}
