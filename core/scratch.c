/* SPDX-License-Identifier: Apache-2.0 */
/* $MOAT_HOME/tmp_ID/, locked by its user for as long as it lives. */
#include "core/scratch.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "common/fs.h"
#include "common/text.h"
#include "core/log.h"

#define PREFIX "tmp"
#define LOCK "lock"
#define TRIES 16

/* Between its making and its locking a directory looks like one that was left behind, and may have
 * been removed. */
static bool
is_still_there(const struct scratch *scratch)
{
	struct stat named, held;

	return fstatat(scratch->home_fd, scratch->name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstat(scratch->fd, &held) == 0 && fs_same_file(&named, &held) &&
	       fstatat(scratch->fd, LOCK, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstat(scratch->lock, &held) == 0 && fs_same_file(&named, &held);
}

int
scratch_open(const struct home *home, struct scratch *ret, struct moat_error *err)
{
	for (int tries = 0; tries < TRIES; tries++) {
		struct scratch scratch = {home->fd, -1, -1, ""};
		struct moat_error lost = MOAT_ERROR_INIT;

		if (text_random_id(scratch.name, PREFIX, err) < 0)
			return -1;
		if (mkdirat(home->fd, scratch.name, 0700) < 0)
			return moat_fail_errno(err, "make a directory in moat's home `%s'",
					       home->path);
		scratch.fd = fs_open_directory(home->fd, scratch.name, false, &lost);
		if (scratch.fd >= 0)
			scratch.lock = fs_lock(scratch.fd, LOCK, true, false, &lost);
		if (scratch.lock >= 0 && is_still_there(&scratch)) {
			*ret = scratch;
			return 0;
		}
		scratch_close(&scratch);
		if (lost.code != MOAT_OK && lost.code != MOAT_NOT_FOUND && lost.code != MOAT_BUSY)
			return moat_error_set(err, lost.code, lost.sys_errno, "%s", lost.message);
	}
	return moat_fail(err, MOAT_FAILED, "moat's home `%s': new directories keep vanishing",
			 home->path);
}

void
scratch_close(struct scratch *scratch)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (scratch->home_fd >= 0 && scratch->name[0] != '\0' &&
	    fs_remove_tree(scratch->home_fd, scratch->name, &local) < 0)
		log_warning("what was temporary could not be removed: %s", local.message);
	cleanup_close(&scratch->lock);
	cleanup_close(&scratch->fd);
	scratch->name[0] = '\0';
}

static void
clear_one(const struct home *home, const char *name)
{
	struct moat_error local = MOAT_ERROR_INIT;
	AUTO_CLOSE int fd = fs_open_directory(home->fd, name, false, &local);
	AUTO_CLOSE int lock = fd < 0 ? -1 : fs_lock(fd, LOCK, true, false, &local);

	if (lock >= 0)
		(void) fs_remove_tree(home->fd, name, &local); /* told below */
	/* In use, or removed by another moat that came first. */
	if (local.code != MOAT_OK && local.code != MOAT_BUSY && local.code != MOAT_NOT_FOUND)
		log_warning("`%s/%s', left by a process that was killed, could not be removed: %s",
			    home->path, name, local.message);
}

void
scratch_clear(const struct home *home)
{
	struct moat_error local = MOAT_ERROR_INIT;
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(home->fd, "", &local);
	struct dirent *entry;

	if (stream == NULL) {
		log_warning("moat's home `%s' could not be looked through: %s", home->path,
			    local.message);
		return;
	}
	while (fs_read_name(stream, &entry, NULL) > 0) /* what is not seen now, the next time */
		if (strncmp(entry->d_name, PREFIX "_", sizeof PREFIX) == 0)
			clear_one(home, entry->d_name);
}
