/* SPDX-License-Identifier: Apache-2.0 */
/* The file that an export makes: complete, or not there. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/export.h"

static int
open_stdout(struct export_file *file, struct moat_error *err)
{
	if (isatty(STDOUT_FILENO) == 1)
		return moat_fail(err, MOAT_USAGE,
				 "an archive is not written to a terminal; give a FILE, or a pipe");
	file->fd = STDOUT_FILENO;
	return 0;
}

/* A file without a name, so that nothing stays of it when moat is killed; with a temporary one
 * where the filesystem has none such. */
static int
open_new(struct export_file *file, struct moat_error *err)
{
	file->is_file = true;
	file->owned = true;
	if (access("/proc/self/fd", X_OK) == 0) {
		file->fd = openat(file->dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (file->fd >= 0)
			return 0;
	}
	if (text_random_id(file->temporary, ".moat-export", err) < 0)
		return -1;
	file->fd = openat(file->dir_fd, file->temporary,
			  O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
	if (file->fd >= 0)
		return 0;
	file->temporary[0] = '\0';
	return moat_fail_errno(err, "make `%s'", file->path);
}

static int
open_directory(struct export_file *file, struct moat_error *err)
{
	const char *slash = strrchr(file->path, '/');
	AUTO_FREE char *directory =
		slash == NULL ? strdup(".")
			      : strndup(file->path,
					slash == file->path ? 1 : (size_t) (slash - file->path));

	file->name = slash == NULL ? file->path : slash + 1;
	if (directory == NULL)
		return moat_fail_memory(err);
	if (file->name[0] == '\0')
		return moat_fail(err, MOAT_USAGE, "`%s' is the name of a directory; give a FILE",
				 file->path);
	file->dir_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return file->dir_fd >= 0 ? 0
				 : moat_fail_errno(err, "open the directory of `%s'", file->path);
}

int
export_file_open(const char *path, bool force, struct export_file *ret, struct moat_error *err)
{
	struct stat st;

	ret->path = path;
	ret->force = force;
	if (strcmp(path, "-") == 0)
		return open_stdout(ret, err);
	if (stat(path, &st) == 0) {
		if (S_ISDIR(st.st_mode))
			return moat_fail(err, MOAT_USAGE, "`%s' is a directory; give a FILE", path);
		if (!S_ISREG(st.st_mode)) {
			ret->owned = true;
			ret->fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
			return ret->fd >= 0 ? 0 : moat_fail_errno(err, "open `%s'", path);
		}
		if (!force)
			return moat_fail(err, MOAT_EXISTS,
					 "`%s' exists; --force replaces it, or give another FILE",
					 path);
	}
	if (open_directory(ret, err) < 0)
		return -1;
	return open_new(ret, err);
}

static int
file_write(void *context, const void *data, size_t size, struct moat_error *err)
{
	struct export_file *file = context;
	const char *what = strcmp(file->path, "-") == 0 ? "standard output" : file->path;

	if (fs_write_all(file->fd, data, size, what, err) < 0)
		return -1;
	file->size += size;
	return 0;
}

struct byte_sink
export_file_sink(struct export_file *file)
{
	return (struct byte_sink){file_write, file};
}

/* Gives the open file a name that nothing has. */
static int
link_fd(const struct export_file *file, const char *name)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", file->fd);
	return linkat(AT_FDCWD, path, file->dir_fd, name, AT_SYMLINK_FOLLOW);
}

/* Without force it must not take the place of what somebody made meanwhile. */
static int
give_name(struct export_file *file)
{
	if (!file->force)
		return file->temporary[0] == '\0'
			       ? link_fd(file, file->name)
			       : linkat(file->dir_fd, file->temporary, file->dir_fd, file->name, 0);
	if (file->temporary[0] == '\0') {
		struct moat_error local = MOAT_ERROR_INIT;

		if (text_random_id(file->temporary, ".moat-export", &local) < 0 ||
		    link_fd(file, file->temporary) < 0) {
			file->temporary[0] = '\0';
			return -1;
		}
	}
	if (renameat(file->dir_fd, file->temporary, file->dir_fd, file->name) < 0)
		return -1;
	file->temporary[0] = '\0';
	return 0;
}

int
export_file_commit(struct export_file *file, struct moat_error *err)
{
	if (!file->is_file)
		return 0;
	if (fs_sync(file->fd, file->path, err) < 0)
		return -1;
	if (give_name(file) < 0)
		return errno == EEXIST
			       ? moat_fail(err, MOAT_EXISTS,
					   "`%s' exists now; --force replaces it, or give another "
					   "FILE",
					   file->path)
			       : moat_fail_errno(err, "make `%s'", file->path);
	return fs_sync(file->dir_fd, file->path, err);
}

void
export_file_close(struct export_file *file)
{
	/* Linked under its own name, or incomplete: either way this one goes. */
	if (file->temporary[0] != '\0')
		(void) unlinkat(file->dir_fd, file->temporary, 0);
	if (file->owned)
		cleanup_close(&file->fd);
	cleanup_close(&file->dir_fd);
}
