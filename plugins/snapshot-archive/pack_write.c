/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a pack.  The file has a temporary name until everything is on the disk. */
#include "pack_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/fs.h"

/* Bytes after which the kernel is told to begin writing: so the disk works while the rest is still
 * being compressed, and the fsync at the end finds little to do. */
#define WRITE_BEHIND ((uint64_t) 8 << 20)

struct pack_writer {
	const struct archive *archive;
	uint64_t number;
	enum pack_kind kind;
	int fd;
	char name[PACK_NAME_MAX]; /* of the file as it stands; "": nothing to remove */
	struct frame *frames;
	size_t count, allocated;
	uint64_t written; /* bytes of the file that have an owner */
	uint64_t behind;  /* up to here the kernel was told to write */
};

static int
create_file(struct pack_writer *writer, struct moat_error *err)
{
	const struct archive *archive = writer->archive;
	char name[PACK_NAME_MAX];

	if (writer->kind == PACK_LIVE && store_has_pack(archive, writer->number, NULL))
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
pack_writer_open(const struct archive *archive, uint64_t number, enum pack_kind kind,
		 struct pack_writer **ret, struct moat_error *err)
{
	AUTO_PACK_WRITER struct pack_writer *writer = calloc(1, sizeof *writer);

	if (writer == NULL)
		return moat_fail_memory(err);
	writer->archive = archive;
	writer->number = number;
	writer->kind = kind;
	writer->fd = -1;
	if (create_file(writer, err) < 0)
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
	free(writer->frames);
	free(writer);
}

void
cleanup_pack_writer(struct pack_writer **writer)
{
	pack_writer_free(*writer);
}

int
pack_writer_reserve(struct pack_writer *writer, struct frame *frame, struct moat_error *err)
{
	if (writer->count == writer->allocated) {
		size_t allocated = writer->allocated == 0 ? 64 : 2 * writer->allocated;
		struct frame *frames = realloc(writer->frames, allocated * sizeof *frames);

		if (frames == NULL)
			return moat_fail_memory(err);
		writer->frames = frames;
		writer->allocated = allocated;
	}
	frame->offset = writer->written;
	writer->written += frame->packed;
	writer->frames[writer->count++] = *frame;
#ifdef SYNC_FILE_RANGE_WRITE
	/* The frames of other threads that are not there yet come with the next turn, or at the
	 * end.  It is only a hint, so whether it worked is nobody's business. */
	if (frame->offset - writer->behind >= WRITE_BEHIND) {
		(void) sync_file_range(writer->fd, (off_t) writer->behind,
				       (off_t) (frame->offset - writer->behind),
				       SYNC_FILE_RANGE_WRITE);
		writer->behind = frame->offset;
	}
#endif
	return 0;
}

static int
write_at(struct pack_writer *writer, uint64_t offset, const void *data, size_t size,
	 struct moat_error *err)
{
	if (fs_write_at(writer->fd, data, size, offset, err) == 0)
		return 0;
	moat_wrap(err, "`%s'", writer->name);
	return moat_wrap(err, "store the snapshot in `%s'", writer->archive->path);
}

int
pack_writer_put(struct pack_writer *writer, const struct frame *frame, const void *packed,
		struct moat_error *err)
{
	return write_at(writer, frame->offset, packed, frame->packed, err);
}

size_t
pack_writer_frames(const struct pack_writer *writer)
{
	return writer->count;
}

void
pack_writer_rewind(struct pack_writer *writer, size_t frames)
{
	if (frames == writer->count)
		return;
	writer->written = writer->frames[frames].offset;
	writer->count = frames;
	if (writer->behind > writer->written)
		writer->behind = writer->written;
}

static int
encode_index(const struct pack_writer *writer, struct buf *index, struct moat_error *err)
{
	AUTO_HASHER struct hasher hasher = {0};
	uint8_t hash[MOAT_HASH_SIZE];

	buf_u32(index, PACK_INDEX_MAGIC);
	buf_u32(index, (uint32_t) (PACK_ITEM_SIZE * writer->count + PACK_FOOTER_SIZE));
	for (size_t i = 0; i < writer->count; i++) {
		buf_u32(index, writer->frames[i].packed);
		buf_u32(index, writer->frames[i].content);
		buf_u32(index, writer->frames[i].segment);
		buf_u32(index, writer->frames[i].kind);
		buf_append(index, writer->frames[i].check, PACK_CHECK_SIZE);
	}
	buf_u64(index, writer->count);
	if (buf_check(index, err) < 0 || hasher_begin(&hasher, writer->archive->host, err) < 0)
		return -1;
	hasher_data(&hasher, index->data, index->size);
	hasher_end(&hasher, hash);
	buf_append(index, hash, sizeof hash);
	buf_append(index, PACK_MAGIC, 8);
	return buf_check(index, err);
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
	(void) pack_name(name, writer->number, writer->kind);
	if (renameat(archive->dirfd, writer->name, archive->dirfd, name) < 0)
		return moat_fail_errno(err, "rename `%s/%s' to `%s'", archive->path, writer->name,
				       name);
	/* A new pack without a durable name is taken back; what was compacted is right already. */
	memcpy(writer->name, writer->kind == PACK_LIVE ? name : "",
	       writer->kind == PACK_LIVE ? sizeof name : 1);
	if (fs_sync(archive->dirfd, archive->path, err) < 0)
		return -1;
	writer->name[0] = '\0';
	return 0;
}

int
pack_writer_finish(struct pack_writer *writer, uint64_t *ret_size, struct moat_error *err)
{
	AUTO_BUF struct buf index = {0};

	if (archive_check_cancelled(writer->archive, err) < 0 ||
	    encode_index(writer, &index, err) < 0 ||
	    write_at(writer, writer->written, index.data, index.size, err) < 0)
		return -1;
	*ret_size = writer->written + index.size;
	/* A rewind may have left something behind. */
	if (ftruncate(writer->fd, (off_t) *ret_size) < 0)
		return moat_fail_errno(err, "set the size of `%s/%s'", writer->archive->path,
				       writer->name);
	return publish(writer, err);
}
