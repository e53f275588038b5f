/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a pack.  The file has a temporary name until everything is on the disk. */
#include "pack_write.h"

#include <errno.h>
#include <fcntl.h>
#include <lz4frame.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/fs.h"
#include "pack.h"
#include "store.h"

struct pack_writer {
	const struct archive *archive;
	uint64_t number;
	int fd;
	char name[PACK_NAME_MAX]; /* of the file as it stands; "": nothing to remove */
	LZ4F_preferences_t preferences;
	uint8_t *frame, *packed; /* the content of the frame in the making; room to compress it */
	size_t used, packed_size;
	uint64_t start;   /* position of the frame in the tar stream */
	uint64_t written; /* bytes of the file */
	uint64_t frames;
	struct buf index;
};

static int
create_file(struct pack_writer *writer, struct moat_error *err)
{
	const struct archive *archive = writer->archive;
	char name[PACK_NAME_MAX];

	if (store_has_pack(archive, writer->number))
		return moat_fail(err, MOAT_EXISTS, "`%s/%s' exists already", archive->path,
				 pack_name(name, writer->number, PACK_LIVE));
	(void) pack_name(name, writer->number, PACK_TEMPORARY);
	writer->fd = openat(archive->dirfd, name,
			    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (writer->fd < 0)
		return moat_fail_errno(err, "create `%s/%s'", archive->path, name);
	memcpy(writer->name, name, sizeof name);
	return 0;
}

int
pack_writer_open(const struct archive *archive, uint64_t number, struct pack_writer **ret,
		 struct moat_error *err)
{
	AUTO_PACK_WRITER struct pack_writer *writer = calloc(1, sizeof *writer);

	if (writer == NULL)
		return moat_fail_memory(err);
	writer->archive = archive;
	writer->number = number;
	writer->fd = -1;
	writer->preferences.compressionLevel = archive->level;
	writer->preferences.frameInfo.blockSizeID = LZ4F_max4MB;
	writer->preferences.frameInfo.blockMode = LZ4F_blockIndependent;
	writer->preferences.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
	writer->preferences.frameInfo.contentSize = 1; /* "yes"; the real size is filled in */
	writer->packed_size = LZ4F_compressFrameBound(FRAME_MAX, &writer->preferences);
	writer->frame = malloc(FRAME_MAX);
	writer->packed = malloc(writer->packed_size);
	if (writer->frame == NULL || writer->packed == NULL)
		return moat_fail_memory(err);
	if (store_sweep(archive, err) < 0 || create_file(writer, err) < 0)
		return -1;
	*ret = STEAL(writer);
	return 0;
}

void
pack_writer_free(struct pack_writer *writer)
{
	if (writer == NULL)
		return;
	if (writer->fd >= 0)
		(void) close(writer->fd);
	if (writer->name[0] != '\0')
		(void) unlinkat(writer->archive->dirfd, writer->name, 0);
	buf_free(&writer->index);
	free(writer->frame);
	free(writer->packed);
	free(writer);
}

void
cleanup_pack_writer(struct pack_writer **writer)
{
	pack_writer_free(*writer);
}

static int
write_file(struct pack_writer *writer, const void *data, size_t size, struct moat_error *err)
{
	if (fs_write_all(writer->fd, data, size, writer->name, err) < 0)
		return moat_wrap(err, "store the snapshot in `%s'", writer->archive->path);
	writer->written += size;
	return 0;
}

static int
flush(struct pack_writer *writer, struct moat_error *err)
{
	size_t n;

	if (writer->used == 0)
		return 0;
	if (archive_check_cancelled(writer->archive, err) < 0)
		return -1;
	n = LZ4F_compressFrame(writer->packed, writer->packed_size, writer->frame, writer->used,
			       &writer->preferences);
	if (LZ4F_isError(n)) /* the room is always enough, so it is memory */
		return moat_fail(err, MOAT_NO_MEMORY, "LZ4: %s", LZ4F_getErrorName(n));
	if (write_file(writer, writer->packed, n, err) < 0)
		return -1;
	buf_u32(&writer->index, (uint32_t) n);
	buf_u32(&writer->index, (uint32_t) writer->used);
	writer->frames++;
	writer->start += writer->used;
	writer->used = 0;
	return buf_check(&writer->index, err);
}

uint64_t
pack_position(const struct pack_writer *writer)
{
	return writer->start + writer->used;
}

int
pack_boundary(struct pack_writer *writer, bool now, struct moat_error *err)
{
	return now || writer->used >= FRAME_TARGET ? flush(writer, err) : 0;
}

int
pack_space(struct pack_writer *writer, uint8_t **ret, size_t *ret_size, struct moat_error *err)
{
	if (writer->used == FRAME_MAX && flush(writer, err) < 0)
		return -1;
	*ret = writer->frame + writer->used;
	*ret_size = FRAME_MAX - writer->used;
	return 0;
}

void
pack_fill(struct pack_writer *writer, size_t size)
{
	writer->used += size;
}

int
pack_write(struct pack_writer *writer, const void *data, size_t size, struct moat_error *err)
{
	const uint8_t *from = data;

	while (size > 0) {
		uint8_t *to;
		size_t n;

		if (pack_space(writer, &to, &n, err) < 0)
			return -1;
		n = n < size ? n : size;
		memcpy(to, from, n);
		pack_fill(writer, n);
		from += n;
		size -= n;
	}
	return 0;
}

int
pack_zeros(struct pack_writer *writer, uint64_t size, struct moat_error *err)
{
	while (size > 0) {
		uint8_t *to;
		size_t n;

		if (pack_space(writer, &to, &n, err) < 0)
			return -1;
		n = n < size ? n : (size_t) size;
		memset(to, 0, n);
		pack_fill(writer, n);
		size -= n;
	}
	return 0;
}

static int
write_index(struct pack_writer *writer, uint64_t manifest, struct moat_error *err)
{
	AUTO_HASHER struct hasher hasher = {0};
	uint8_t hash[MOAT_HASH_SIZE];
	AUTO_BUF struct buf head = {0};

	if (hasher_begin(&hasher, writer->archive->host, err) < 0)
		return -1;
	buf_u64(&writer->index, manifest);
	buf_u64(&writer->index, writer->frames);
	buf_u32(&head, PACK_INDEX_MAGIC);
	buf_u32(&head, (uint32_t) (writer->index.size + MOAT_HASH_SIZE + 8));
	if (buf_check(&writer->index, err) < 0 || buf_check(&head, err) < 0)
		return -1;
	hasher_data(&hasher, head.data, head.size);
	hasher_data(&hasher, writer->index.data, writer->index.size);
	hasher_end(&hasher, hash);
	if (write_file(writer, head.data, head.size, err) < 0 ||
	    write_file(writer, writer->index.data, writer->index.size, err) < 0 ||
	    write_file(writer, hash, sizeof hash, err) < 0)
		return -1;
	return write_file(writer, PACK_MAGIC, 8, err);
}

/* Under its final name once all of it is on the disk. */
static int
publish(struct pack_writer *writer, struct moat_error *err)
{
	const struct archive *archive = writer->archive;
	char name[PACK_NAME_MAX];

	if (fs_sync(writer->fd, writer->name, err) < 0)
		return -1;
	if (close(steal_fd(&writer->fd)) < 0 && errno != EINTR)
		return moat_fail_errno(err, "close `%s/%s'", archive->path, writer->name);
	(void) pack_name(name, writer->number, PACK_LIVE);
	if (renameat(archive->dirfd, writer->name, archive->dirfd, name) < 0)
		return moat_fail_errno(err, "rename `%s/%s' to `%s'", archive->path, writer->name,
				       name);
	memcpy(writer->name, name, sizeof name);
	if (fs_sync(archive->dirfd, archive->path, err) < 0)
		return -1;
	writer->name[0] = '\0';
	return 0;
}

int
pack_finish(struct pack_writer *writer, uint64_t manifest, uint64_t *ret_size,
	    struct moat_error *err)
{
	if (pack_zeros(writer, PACK_END_SIZE, err) < 0 || flush(writer, err) < 0 ||
	    write_index(writer, manifest, err) < 0 || publish(writer, err) < 0)
		return -1;
	*ret_size = writer->written;
	return 0;
}
