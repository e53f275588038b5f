/* SPDX-License-Identifier: Apache-2.0 */
/* The raw bytes of an archive, which are read twice and hashed each time. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/import_internal.h"
#include "core/progress.h"

/* A file in moat's home that vanishes with its descriptor. */
static int
open_nameless(const struct home *home, struct moat_error *err)
{
	char name[32];
	int fd = openat(home->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
		return fd >= 0 ? fd
			       : moat_fail_errno(err, "make a file in moat's home `%s'",
						 home->path);
	/* Filesystems without it: the name is gone before anything is written. */
	if (text_random_id(name, "tmp", err) < 0)
		return -1;
	fd = openat(home->fd, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || unlinkat(home->fd, name, 0) < 0) {
		moat_fail_errno(err, "make a file in moat's home `%s'", home->path);
		cleanup_close(&fd);
		return -1;
	}
	return fd;
}

static int
copy(int from, int to, uint64_t max_bytes, struct moat_error *err)
{
	AUTO_FREE char *piece = malloc(1 << 16);
	uint64_t size = 0;

	if (piece == NULL)
		return moat_fail_memory(err);
	for (;;) {
		ssize_t n = read(from, piece, 1 << 16);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail_errno(err, "read");
		if (n == 0)
			return 0;
		if ((uint64_t) n > max_bytes - size)
			return moat_fail(err, MOAT_UNSUPPORTED,
					 "it is longer than the %llu bytes that max_bytes and "
					 "max_entries allow",
					 (unsigned long long) max_bytes);
		size += (uint64_t) n;
		progress_report(size, 0, 0, 0);
		if (fs_write_all(to, piece, (size_t) n, "a copy in moat's home", err) < 0)
			return -1;
	}
}

int
import_input_open(const struct home *home, const char *file, uint64_t max_bytes,
		  struct import_input *ret, struct moat_error *err)
{
	bool is_stdin = strcmp(file, "-") == 0;
	AUTO_CLOSE int fd = is_stdin ? -1 : open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	int from = is_stdin ? STDIN_FILENO : fd;
	struct stat st;

	if (from < 0)
		return moat_fail_errno(err, "open");
	if (fstat(from, &st) < 0)
		return moat_fail_errno(err, "stat");
	if (S_ISDIR(st.st_mode))
		return moat_fail(err, MOAT_USAGE, "it is a directory; give an archive");
	if (isatty(from) == 1)
		return moat_fail(err, MOAT_USAGE,
				 "it is a terminal; pipe an archive into it, or give FILE");
	ret->start = 0;
	if (S_ISREG(st.st_mode)) {
		if (is_stdin && (ret->start = lseek(from, 0, SEEK_CUR)) < 0)
			return moat_fail_errno(err, "seek");
		ret->end = st.st_size;
		ret->owned = !is_stdin;
		ret->fd = is_stdin ? from : steal_fd(&fd);
		return 0;
	}
	ret->fd = open_nameless(home, err);
	if (ret->fd < 0)
		return -1;
	ret->owned = true;
	if (copy(from, ret->fd, max_bytes, err) < 0)
		return -1;
	if (fstat(ret->fd, &st) < 0)
		return moat_fail_errno(err, "stat the copy in moat's home");
	ret->end = st.st_size;
	return 0;
}

void
import_input_close(struct import_input *input)
{
	if (input->owned)
		cleanup_close(&input->fd);
	input->fd = -1;
}

static ssize_t
input_read(void *context, void *data, size_t size, struct moat_error *err)
{
	struct import_input *input = context;
	ssize_t n;

	do
		n = pread(input->fd, data, size, input->at);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return moat_fail_errno(err, "read");
	sha256_update(&input->sha, (size_t) n, data);
	input->at += n;
	progress_report((uint64_t) (input->at - input->start),
			input->end > input->start ? (uint64_t) (input->end - input->start) : 0, 0,
			0);
	return n;
}

struct byte_source
import_input_source(struct import_input *input)
{
	input->at = input->start;
	sha256_init(&input->sha);
	return (struct byte_source){input_read, input};
}

void
import_input_digest(struct import_input *input, uint8_t ret[SHA256_DIGEST_SIZE])
{
	sha256_digest(&input->sha, SHA256_DIGEST_SIZE, ret);
}
