/* SPDX-License-Identifier: Apache-2.0 */
/* moat's own directory, and the workspaces that it knows. */
#include "core/home.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/fs.h"
#include "common/text.h"
#include "core/json.h"
#include "core/log.h"

/* The path that was asked for: --home, $MOAT_HOME, $XDG_STATE_HOME/moat, ~/.local/state/moat. */
static char *
home_wanted(const char *explicit_path, struct moat_error *err)
{
	AUTO_BUF struct buf path = {0};
	const char *base = explicit_path;

	if (base == NULL)
		base = getenv("MOAT_HOME");
	if (base != NULL && base[0] != '\0') {
		buf_string(&path, base);
	} else if ((base = getenv("XDG_STATE_HOME")) != NULL && base[0] == '/') {
		buf_string(&path, base);
		buf_string(&path, "/moat");
	} else {
		base = getenv("HOME");
		if (base == NULL || base[0] != '/') {
			moat_fail(err, MOAT_USAGE,
				  "neither MOAT_HOME nor HOME is set; set MOAT_HOME to the "
				  "directory where moat is to keep its data");
			return NULL;
		}
		buf_string(&path, base);
		buf_string(&path, "/.local/state/moat");
	}
	if (buf_check(&path, err) < 0)
		return NULL;
	return buf_steal(&path);
}

/* Others must be able neither to read the snapshots nor to plant a transaction. */
static int
check_private(int fd, const char *path, struct moat_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "look at moat's home `%s'", path);
	if (st.st_uid != geteuid())
		return moat_fail(
			err, MOAT_USAGE,
			"moat's home `%s' belongs to user %u, not to you (%u); set MOAT_HOME "
			"to a directory of your own",
			path, (unsigned) st.st_uid, (unsigned) geteuid());
	if ((st.st_mode & 022) != 0)
		return moat_fail(err, MOAT_USAGE,
				 "moat's home `%s' can be written by others; chmod 700 it", path);
	return 0;
}

bool
home_exists(const char *explicit_path)
{
	AUTO_FREE char *wanted = home_wanted(explicit_path, NULL);
	AUTO_BUF struct buf path = {0};

	if (wanted == NULL)
		return false;
	buf_format(&path, "%s/workspaces", wanted);
	return !path.failed && access(path.data, F_OK) == 0;
}

int
home_open(const char *explicit_path, struct home **ret, struct moat_error *err)
{
	AUTO_FREE char *wanted = home_wanted(explicit_path, err);
	struct home *home;

	if (wanted == NULL)
		return moat_wrap(err, "moat's home");
	if (fs_make_directories(wanted, err) < 0)
		return moat_wrap(err, "moat's home");
	home = calloc(1, sizeof *home);
	if (home == NULL)
		return moat_fail_memory(err);
	home->fd = home->runs_fd = home->workspaces_fd = home->txn_fd = -1;
	home->bases = calloc(1, sizeof *home->bases);
	if (home->bases == NULL) {
		moat_fail_memory(err);
		goto fail;
	}
	home->path = realpath(wanted, NULL);
	if (home->path == NULL) {
		moat_fail_errno(err, "moat's home `%s'", wanted);
		goto fail;
	}
	home->fd = open(home->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (home->fd < 0) {
		moat_fail_errno(err, "open moat's home `%s'", home->path);
		goto fail;
	}
	if (check_private(home->fd, home->path, err) < 0)
		goto fail;
	if ((home->runs_fd = fs_open_directory(home->fd, "runs", true, err)) < 0 ||
	    (home->workspaces_fd = fs_open_directory(home->fd, "workspaces", true, err)) < 0 ||
	    (home->txn_fd = fs_open_directory(home->fd, "txn", true, err)) < 0) {
		moat_wrap(err, "moat's home `%s'", home->path);
		goto fail;
	}
	*ret = home;
	return 0;
fail:
	home_close(home);
	return -1;
}

void
home_close(struct home *home)
{
	if (home == NULL)
		return;
	if (home->bases != NULL)
		manifest_free(home->bases->manifest);
	free(home->bases);
	cleanup_close(&home->txn_fd);
	cleanup_close(&home->workspaces_fd);
	cleanup_close(&home->runs_fd);
	cleanup_close(&home->fd);
	free(home->path);
	free(home);
}

/* The home directory of the user, resolved; NULL when there is none. */
static char *
user_home(void)
{
	const char *home = getenv("HOME");
	struct passwd *pw;

	if (home == NULL || home[0] != '/') {
		pw = getpwuid(geteuid());
		home = pw == NULL ? NULL : pw->pw_dir;
	}
	return home == NULL ? NULL : realpath(home, NULL);
}

int
workspace_check_place(const struct home *home, const char *path, struct moat_error *err)
{
	AUTO_FREE char *user = user_home();

	if (strcmp(path, "/") == 0)
		return moat_fail(err, MOAT_USAGE,
				 "the workspace is `/', the whole system; give the directory of a "
				 "project");
	if (user != NULL && strcmp(user, "/") != 0 && text_path_within(user, path))
		return moat_fail(
			err, MOAT_USAGE,
			"the workspace `%s' is %s your home directory; give the directory of "
			"a project inside it",
			path, strcmp(user, path) == 0 ? "" : "above");
	if (text_path_within(path, home->path))
		return moat_fail(
			err, MOAT_USAGE,
			"the workspace `%s' lies inside moat's own home `%s'; choose another "
			"directory, or another MOAT_HOME",
			path, home->path);
	if (text_path_within(home->path, path))
		return moat_fail(
			err, MOAT_USAGE,
			"the workspace `%s' contains moat's own home `%s'; set MOAT_HOME to a "
			"directory outside it",
			path, home->path);
	return 0;
}

static void
hash_path(const char *path, char ret[17])
{
	struct sha256_ctx ctx;
	uint8_t digest[8];

	sha256_init(&ctx);
	sha256_update(&ctx, strlen(path), (const uint8_t *) path);
	sha256_digest(&ctx, sizeof digest, digest);
	for (size_t i = 0; i < sizeof digest; i++)
		snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

static struct workspace *
workspace_new(const char *path)
{
	struct workspace *workspace = calloc(1, sizeof *workspace);

	if (workspace == NULL)
		return NULL;
	workspace->fd = workspace->state_fd = -1;
	workspace->path = strdup(path);
	if (workspace->path == NULL) {
		workspace_close(workspace);
		return NULL;
	}
	hash_path(path, workspace->hash);
	return workspace;
}

static int
open_root(struct workspace *workspace, struct moat_error *err)
{
	struct stat st;

	workspace->fd = open(workspace->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (workspace->fd < 0)
		return moat_fail_errno(err, "open the workspace `%s'", workspace->path);
	if (fstat(workspace->fd, &st) < 0)
		return moat_fail_errno(err, "look at the workspace `%s'", workspace->path);
	workspace->dev = st.st_dev;
	workspace->ino = st.st_ino;
	return 0;
}

/* The first time, notes which path the directory is for. */
static int
open_state(const struct home *home, struct workspace *workspace, struct moat_error *err)
{
	AUTO_JSON json_t *record = NULL;
	AUTO_CLOSE int gate = -1;
	struct stat st;

	workspace->state_fd = fs_open_directory(home->workspaces_fd, workspace->hash, false, NULL);
	if (workspace->state_fd >= 0 &&
	    fstatat(workspace->state_fd, "workspace.json", &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	/* Recovery removes those that were not finished: the gate keeps it out until this one is.
	 */
	cleanup_close(&workspace->state_fd);
	workspace->state_fd = -1;
	gate = fs_lock(home->txn_fd, ".lock", true, true, err);
	if (gate < 0)
		return -1;
	workspace->state_fd = fs_open_directory(home->workspaces_fd, workspace->hash, true, err);
	if (workspace->state_fd < 0)
		return -1;
	if (fstatat(workspace->state_fd, "workspace.json", &st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	record = json_object();
	if (record == NULL ||
	    json_put_bytes(record, "path", workspace->path, strlen(workspace->path)) < 0)
		return moat_fail_memory(err);
	return json_write(workspace->state_fd, "workspace.json", record, err);
}

int
workspace_open_at(const char *path, struct workspace **ret, struct moat_error *err)
{
	AUTO_FREE char *resolved = realpath(path, NULL);
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	struct stat st;

	if (resolved == NULL)
		return moat_fail(err, errno == ENOENT ? MOAT_USAGE : moat_code_of_errno(errno),
				 "workspace `%s': %s", path,
				 errno == ENOENT ? "there is no such directory" : strerror(errno));
	if (stat(resolved, &st) == 0 && !S_ISDIR(st.st_mode))
		return moat_fail(err, MOAT_USAGE, "workspace `%s' is not a directory", path);
	workspace = workspace_new(resolved);
	if (workspace == NULL)
		return moat_fail_memory(err);
	if (open_root(workspace, err) < 0)
		return -1;
	*ret = STEAL(workspace);
	return 0;
}

int
workspace_open(const struct home *home, const char *path, struct workspace **ret,
	       struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;

	if (workspace_open_at(path == NULL ? "." : path, &workspace, err) < 0 ||
	    workspace_check_place(home, workspace->path, err) < 0 ||
	    open_state(home, workspace, err) < 0)
		return -1;
	*ret = STEAL(workspace);
	return 0;
}

int
workspace_look(const struct home *home, const char *path, struct workspace **ret,
	       struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;

	if (workspace_open_at(path == NULL ? "." : path, &workspace, err) < 0 ||
	    workspace_check_place(home, workspace->path, err) < 0)
		return -1;
	/* One that has lost its record gets it again. */
	if ((faccessat(home->workspaces_fd, workspace->hash, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
	     errno != ENOENT) &&
	    open_state(home, workspace, err) < 0)
		return -1;
	*ret = STEAL(workspace);
	return 0;
}

int
workspace_open_known(const struct home *home, const char *hash, struct workspace **ret,
		     struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_JSON json_t *record = NULL;
	AUTO_FREE char *path = NULL;
	AUTO_CLOSE int state_fd = -1;
	struct moat_error ignored = MOAT_ERROR_INIT;

	state_fd = fs_open_directory(home->workspaces_fd, hash, false, err);
	if (state_fd < 0)
		return -1;
	if (json_read(state_fd, "workspace.json", "record of a workspace", &record, err) < 0)
		return -1;
	path = json_get_bytes(record, "path", NULL);
	if (path == NULL || path[0] != '/')
		return moat_fail(err, MOAT_CORRUPT,
				 "`%s/workspaces/%s/workspace.json' names no path", home->path,
				 hash);
	workspace = workspace_new(path);
	if (workspace == NULL)
		return moat_fail_memory(err);
	/* A record that was tampered with must not send a restore to another directory. */
	if (strcmp(workspace->hash, hash) != 0)
		return moat_fail(
			err, MOAT_CORRUPT,
			"`%s/workspaces/%s/workspace.json' is damaged: it is not the record of "
			"`%s'",
			home->path, hash, path);
	if (workspace_check_place(home, path, err) < 0)
		return -1;
	workspace->state_fd = steal_fd(&state_fd);
	/* A workspace that is gone still has snapshots to list. */
	if (open_root(workspace, &ignored) < 0)
		cleanup_close(&workspace->fd);
	*ret = STEAL(workspace);
	return 0;
}

static bool
is_empty_directory(int dirfd, const char *name)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(dirfd, name, NULL);
	struct dirent *entry;

	return stream != NULL && fs_read_name(stream, &entry, NULL) == 0;
}

/* True when the state has nothing but what the making of it, and the first look into it, begin
 * with; *ret_record: the word for whom it is, too. */
static bool
is_bare(const struct home *home, const char *hash, bool *ret_record)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(home->workspaces_fd, hash, NULL);
	struct dirent *entry;
	int next;

	*ret_record = false;
	if (stream == NULL)
		return false;
	while ((next = fs_read_name(stream, &entry, NULL)) > 0) {
		const char *name = entry->d_name;

		if (strcmp(name, "workspace.json") == 0)
			*ret_record = true;
		else if (strcmp(name, "lock") != 0 &&
			 strncmp(name, FS_TEMPORARY_PREFIX, strlen(FS_TEMPORARY_PREFIX)) != 0 &&
			 (strcmp(name, "snapshots") != 0 ||
			  !is_empty_directory(dirfd(stream), name)))
			return false;
	}
	return next == 0;
}

int
workspace_clear_unfinished(const struct home *home, const char *hash, bool *ret_empty,
			   struct moat_error *err)
{
	AUTO_CLOSE int gate = -1;
	bool record;

	*ret_empty = is_bare(home, hash, &record);
	if (!*ret_empty || record)
		return 0;
	gate = fs_lock(home->txn_fd, ".lock", true, true, err);
	if (gate < 0)
		return -1;
	/* Somebody may just have made it. */
	return is_bare(home, hash, &record) && !record
		       ? fs_remove_tree(home->workspaces_fd, hash, err)
		       : 0;
}

int
workspace_check_record(const struct workspace *workspace, struct moat_error *err)
{
	AUTO_JSON json_t *record = json_object();
	AUTO_FREE char *stored = NULL, *wanted = NULL;
	size_t size;

	if (record == NULL ||
	    json_put_bytes(record, "path", workspace->path, strlen(workspace->path)) < 0)
		return moat_fail_memory(err);
	wanted = json_text(record, false, err);
	if (wanted == NULL || fs_read(workspace->state_fd, "workspace.json", (size_t) 1 << 20,
				      &stored, &size, err) < 0)
		return -1;
	if (size == strlen(wanted) && memcmp(stored, wanted, size) == 0)
		return 0;
	return moat_fail(err, MOAT_CORRUPT,
			 "the record of `%s' (workspace.json) was changed; remove it, the next "
			 "snapshot writes it again",
			 workspace->path);
}

void
workspace_close(struct workspace *workspace)
{
	if (workspace == NULL)
		return;
	cleanup_close(&workspace->fd);
	cleanup_close(&workspace->state_fd);
	free(workspace->path);
	free(workspace);
}

void
cleanup_workspace(struct workspace **workspace)
{
	workspace_close(*workspace);
	*workspace = NULL;
}

int
workspace_lock(const struct workspace *workspace, struct moat_error *err)
{
	struct moat_error busy = MOAT_ERROR_INIT;
	int fd = fs_lock(workspace->state_fd, "lock", true, false, &busy);

	if (fd >= 0)
		return fd;
	if (busy.code == MOAT_BUSY) {
		log_notice("waiting for another moat that works on `%s'", workspace->path);
		fd = fs_lock(workspace->state_fd, "lock", true, true, err);
		if (fd >= 0)
			return fd;
	} else {
		moat_fail(err, busy.code, "%s", busy.message);
	}
	return moat_wrap(err, "lock the workspace `%s'", workspace->path);
}
