/* SPDX-License-Identifier: Apache-2.0 */
/* One pass over an archive: unpack, read the members, check what they make together. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/compress.h"
#include "core/import_internal.h"
#include "core/interrupt.h"

#define PIECE ((size_t) 64 * 1024)

const char *
import_name(char out[IMPORT_NAME_MAX], uint64_t number)
{
	snprintf(out, IMPORT_NAME_MAX, "%" PRIu64, number);
	return out;
}

static uint64_t
add(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* The files, a few headers for each member, and the names. */
uint64_t
import_stream_max(const struct tar_limits *limits)
{
	uint64_t headers =
		limits->max_entries > UINT64_MAX / 8192 ? UINT64_MAX : limits->max_entries * 8192;

	return add(add(limits->max_bytes, headers), add(limits->max_name_bytes, 1 << 20));
}

/* fd -1: the data is only read. */
static int
take_data(struct tar_stream *stream, int fd, char *piece, struct moat_error *err)
{
	for (;;) {
		uint64_t offset = 0;
		ssize_t n = tar_stream_read(stream, piece, PIECE, &offset, err);

		if (n <= 0)
			return (int) n;
		if (interrupt_pending() != 0)
			return moat_fail(err, MOAT_CANCELLED, "interrupted");
		if (fd >= 0 && fs_write_at(fd, piece, (size_t) n, offset, err) < 0)
			return moat_wrap(err, "unpack into moat's home");
	}
}

static int
take_content(struct tar_stream *stream, const struct tar_entry *member, int scratch_fd,
	     uint64_t number, char *piece, struct moat_error *err)
{
	AUTO_CLOSE int fd = -1;
	char name[IMPORT_NAME_MAX];

	if (scratch_fd >= 0 && number != 0) {
		fd = openat(scratch_fd, import_name(name, number),
			    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return moat_fail_errno(err, "unpack into moat's home");
		/* Its length first: holes at its end have no data. */
		if (ftruncate(fd, (off_t) member->size) < 0)
			return moat_fail_errno(err, "unpack `%s' into moat's home", member->path);
	}
	return take_data(stream, fd, piece, err);
}

static int
take_members(struct tar_stream *stream, int scratch_fd, struct import_plan *plan,
	     struct moat_error *err)
{
	AUTO_FREE char *piece = malloc(PIECE);
	const struct tar_entry *member = NULL;
	int more;

	if (piece == NULL)
		return moat_fail_memory(err);
	while ((more = tar_stream_next(stream, &member, err)) > 0) {
		uint64_t number = 0;

		if (interrupt_pending() != 0)
			return moat_fail(err, MOAT_CANCELLED, "interrupted");
		if (import_plan_add(plan, member, &number, err) < 0)
			return -1;
		if (member->type == TAR_ENTRY_FILE &&
		    take_content(stream, member, scratch_fd, number, piece, err) < 0)
			return -1;
	}
	return more;
}

int
import_pass(struct import_input *input, const struct tar_limits *limits, int scratch_fd,
	    struct import_plan *plan, uint8_t digest[SHA256_DIGEST_SIZE], struct moat_error *err)
{
	AUTO_DECOMPRESSOR struct decompressor *decompressor = NULL;
	AUTO_TAR_STREAM struct tar_stream *stream = NULL;
	struct byte_source raw = import_input_source(input), source;

	if (import_plan_open(plan, limits, err) < 0 ||
	    decompress_open(&raw, import_stream_max(limits), &decompressor, err) < 0)
		return -1;
	source = decompress_source(decompressor);
	if (tar_stream_open(&source, limits, &stream, err) < 0 ||
	    take_members(stream, scratch_fd, plan, err) < 0)
		return -1;
	import_input_digest(input, digest);
	return import_plan_finish(plan, err);
}
