/* SPDX-License-Identifier: Apache-2.0 */
/* What has to be changed before there is a plan, and what becomes of it in the end.
 *
 *     txn/TXN/prelude  JSON: the workspace, whether it was made for this, and the objects that were
 *                      opened: their modes before, while, and after
 *
 * It is written before the change that it tells of.  Whoever comes to the end of the transaction,
 * the process or a recovery, gives each object that still has the mode it was opened with the one
 * that it is to have: that from before, or, when the outcome is new, that of the snapshot. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/json.h"
#include "core/log.h"
#include "core/txn_internal.h"

struct txn_prelude {
	const struct home *home;
	char *path;
	char hash[17];
	uint64_t ino;
	int root_fd;
	bool made;
	struct journal journal;
	json_t *opened;
	size_t count;
};

int
txn_prelude_new(const struct home *home, const char *path, const struct workspace *workspace,
		struct txn_prelude **ret, struct moat_error *err)
{
	struct txn_prelude *prelude = calloc(1, sizeof *prelude);

	if (prelude == NULL)
		return moat_fail_memory(err);
	prelude->home = home;
	prelude->journal = (struct journal){.fd = -1, .lock_fd = -1};
	prelude->root_fd = -1;
	prelude->path = strdup(path);
	prelude->opened = json_array();
	if (workspace != NULL) {
		memcpy(prelude->hash, workspace->hash, sizeof prelude->hash);
		prelude->ino = workspace->ino;
		prelude->root_fd = workspace->fd;
	}
	if (prelude->path == NULL || prelude->opened == NULL) {
		moat_fail_memory(err);
		txn_prelude_end(prelude);
		return -1;
	}
	*ret = prelude;
	return 0;
}

static int
write_down(struct txn_prelude *prelude, struct moat_error *err)
{
	AUTO_JSON json_t *json = json_object();

	if (json == NULL ||
	    json_put_bytes(json, "workspace", prelude->path, strlen(prelude->path)) < 0 ||
	    json_put_text(json, "hash", prelude->hash) < 0 ||
	    json_put_int(json, "ino", (int64_t) prelude->ino) < 0 ||
	    json_put_bool(json, "made", prelude->made) < 0 ||
	    json_put_new(json, "opened", json_incref(prelude->opened)) < 0)
		return moat_fail_memory(err);
	if (prelude->journal.fd < 0 && journal_create(prelude->home, &prelude->journal, err) < 0)
		return -1;
	return json_write(prelude->journal.fd, "prelude", json, err);
}

static int
note_opening(struct txn_prelude *prelude, const struct txn_opening *opening)
{
	AUTO_JSON json_t *item = json_object();

	if (item == NULL ||
	    json_put_bytes(item, "path", opening->path, strlen(opening->path)) < 0 ||
	    json_put_int(item, "before", opening->before) < 0 ||
	    json_put_int(item, "opened", opening->opened) < 0 ||
	    json_put_int(item, "after", opening->after) < 0)
		return -1;
	return json_array_append(prelude->opened, item);
}

int
txn_prelude_open(struct txn_prelude *prelude, const struct txn_opening *openings, size_t count,
		 struct moat_error *err)
{
	for (size_t i = 0; i < count; i++)
		if (note_opening(prelude, &openings[i]) < 0)
			return moat_fail_memory(err);
	if (write_down(prelude, err) < 0)
		return moat_wrap(err, "note what is opened");
	for (size_t i = 0; i < count; i++) {
		const char *name;
		AUTO_CLOSE int dirfd =
			fs_open_parent(prelude->root_fd, openings[i].path, &name, err);

		if (dirfd < 0)
			return -1;
		if (fchmodat(dirfd, name, openings[i].opened, AT_SYMLINK_NOFOLLOW) < 0)
			return moat_fail_errno(err, "make `%s' readable", openings[i].path);
	}
	return 0;
}

int
txn_prelude_make(struct txn_prelude *prelude, struct moat_error *err)
{
	prelude->made = true;
	if (write_down(prelude, err) < 0)
		return -1;
	return mkdir(prelude->path, 0700) == 0
		       ? 0
		       : moat_fail_errno(err, "make the directory `%s'", prelude->path);
}

struct journal
prelude_take_journal(struct txn_prelude *prelude)
{
	struct journal taken = prelude->journal;

	prelude->journal = (struct journal){.fd = -1, .lock_fd = -1};
	return taken;
}

void
txn_prelude_end(struct txn_prelude *prelude)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (prelude == NULL)
		return;
	if (prelude->journal.fd >= 0 &&
	    (prelude_settle(&prelude->journal, prelude->root_fd, false, &local) < 0 ||
	     journal_remove(prelude->home, &prelude->journal, &local) < 0))
		log_warning("%s; `moat recover' will try again", local.message);
	journal_close(&prelude->journal);
	json_decref(prelude->opened);
	free(prelude->path);
	free(prelude);
}

void
cleanup_txn_prelude(struct txn_prelude **prelude)
{
	txn_prelude_end(*prelude);
	*prelude = NULL;
}

/* ------------------------------------------------------------------------------------ the end */

static int
close_one(int root_fd, const json_t *item, bool new, struct moat_error *err)
{
	AUTO_FREE char *path = json_get_bytes(item, "path", NULL);
	mode_t opened = (mode_t) json_get_int(item, "opened", 0);
	mode_t mode = (mode_t) json_get_int(item, new ? "after" : "before", 0) & 07777;
	struct moat_error local = MOAT_ERROR_INIT;
	AUTO_CLOSE int dirfd = -1;
	const char *name;
	struct stat st;

	if (path == NULL)
		return moat_fail(err, MOAT_CORRUPT, "an opening without a path");
	dirfd = fs_open_parent(root_fd, path, &name, &local);
	if (dirfd < 0) /* What is not there needs no mode. */
		return local.code == MOAT_NOT_FOUND || local.code == MOAT_CONFLICT ||
				       local.sys_errno == ENOTDIR
			       ? 0
			       : moat_error_set(err, local.code, local.sys_errno, "%s",
						local.message);
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : moat_fail_errno(err, "look at `%s'", path);
	/* It has got its mode already, or somebody has chosen another. */
	if (S_ISLNK(st.st_mode) || (st.st_mode & 07777) != opened || mode == opened)
		return 0;
	if (fchmodat(dirfd, name, mode, AT_SYMLINK_NOFOLLOW) < 0)
		return moat_fail_errno(err, "give `%s' its mode %o again", path, (unsigned) mode);
	return 0;
}

/* The last opened first: it may lie in another. */
static int
close_all(const json_t *prelude, int root_fd, bool new, struct moat_error *err)
{
	const json_t *opened = json_object_get(prelude, "opened");

	for (size_t i = json_array_size(opened); i-- > 0;)
		if (close_one(root_fd, json_array_get(opened, i), new, err) < 0)
			return -1;
	return 0;
}

/* The directory that was made for a restore which did not come to be. */
static int
remove_made(const json_t *prelude, struct moat_error *err)
{
	AUTO_FREE char *path = json_get_bytes(prelude, "workspace", NULL);
	struct stat st;

	if (path == NULL || lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) ||
	    st.st_uid != geteuid() || (st.st_mode & 07777) != 0700)
		return 0;
	if (rmdir(path) < 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST)
		return moat_fail_errno(err, "remove `%s' again", path);
	return 0;
}

int
prelude_settle(const struct journal *journal, int root_fd, bool new, struct moat_error *err)
{
	AUTO_JSON json_t *prelude = NULL;
	struct moat_error local = MOAT_ERROR_INIT;

	if (json_read(journal->fd, "prelude", "prelude of a transaction", &prelude, &local) < 0)
		return local.code == MOAT_NOT_FOUND
			       ? 0
			       : moat_error_set(err, local.code, local.sys_errno, "%s",
						local.message);
	if ((root_fd >= 0 && close_all(prelude, root_fd, new, err) < 0) ||
	    (!new &&json_get_bool(prelude, "made", false) && remove_made(prelude, err) < 0))
		return -1;
	if (unlinkat(journal->fd, "prelude", 0) < 0 && errno != ENOENT)
		return moat_fail_errno(err, "remove `prelude' of transaction %s", journal->id);
	return 0;
}

int
prelude_read(const struct journal *journal, struct member *member, bool *ret_made,
	     struct moat_error *err)
{
	AUTO_JSON json_t *prelude = NULL;

	if (json_read(journal->fd, "prelude", "prelude of a transaction", &prelude, err) < 0)
		return -1;
	member->path = json_get_bytes(prelude, "workspace", NULL);
	if (member->path == NULL || member->path[0] != '/')
		return moat_fail(err, MOAT_CORRUPT,
				 "the prelude of transaction %s names no workspace", journal->id);
	snprintf(member->hash, sizeof member->hash, "%.16s", json_get_text(prelude, "hash", ""));
	member->ino = (uint64_t) json_get_int(prelude, "ino", 0);
	*ret_made = json_get_bool(prelude, "made", false);
	return 0;
}
