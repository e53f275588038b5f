/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the two programs that runtime-bwrap executes outside of any sandbox.  What a workspace
 * controls must never be one of them. */
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "argv.h"
#include "probe.h"

/* True when only the system and the caller can have made and can change it.  The system is whoever
 * owns the root directory: that is root, or, in a user namespace that does not map it, nobody. */
static bool
is_trusted(const char *path, mode_t type)
{
	struct stat st, root;

	return stat(path, &st) == 0 && stat("/", &root) == 0 && (st.st_mode & S_IFMT) == type &&
	       (st.st_uid == 0 || st.st_uid == root.st_uid || st.st_uid == geteuid()) &&
	       (st.st_mode & S_IWOTH) == 0;
}

/* Looks whether `path` may be executed.  *ret is its real path; on failure err says why not, with
 * MOAT_NOT_FOUND when there is no such file. */
static int
check_program(const char *path, const char *const *workspaces, char **ret, struct moat_error *err)
{
	AUTO_FREE char *resolved = realpath(path, NULL);
	AUTO_FREE char *directory = NULL;

	if (resolved == NULL)
		return moat_fail_errno(err, "`%s'", path);
	for (; workspaces != NULL && *workspaces != NULL; workspaces++)
		if (path_is_within(resolved, *workspaces))
			return moat_fail(
				err, MOAT_PERMISSION,
				"`%s' lies inside the workspace `%s', which must not choose what "
				"runs outside the sandbox",
				path, *workspaces);
	directory = strndup(resolved, (size_t) (strrchr(resolved, '/') - resolved) + 1);
	if (directory == NULL)
		return moat_fail_memory(err);
	if (!is_trusted(resolved, S_IFREG) || !is_trusted(directory, S_IFDIR))
		return moat_fail(
			err, MOAT_PERMISSION,
			"`%s' is not used: it, or its directory, belongs to or can be written by "
			"someone other than root and you",
			path);
	if (access(resolved, X_OK) < 0)
		return moat_fail_errno(err, "`%s'", path);
	*ret = STEAL(resolved);
	return 0;
}

/* Tries DIRECTORY/bwrap.  1: found; 0: not there; a refusal is kept in `refused`. */
static int
try_directory(const char *directory, size_t size, const char *const *workspaces, char **ret,
	      struct moat_error *refused)
{
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_BUF struct buf path = {0};

	if (size == 0 || directory[0] != '/')
		return 0; /* the current directory, or relative to it */
	buf_append(&path, directory, size);
	buf_string(&path, "/bwrap");
	if (buf_check(&path, &err) == 0 && check_program(path.data, workspaces, ret, &err) == 0)
		return 1;
	if (err.code != MOAT_NOT_FOUND)
		(void) moat_fail(refused, err.code, "%s", err.message);
	return 0;
}

int
find_bwrap(const struct moat_host *host, const struct moat_config *config,
	   const char *const *workspaces, char **ret, struct moat_error *err)
{
	struct moat_error refused = MOAT_ERROR_INIT;
	const char *configured = NULL, *list, *end;
	const char *const lists[] = {"/usr/local/bin:/usr/bin:/bin", getenv("PATH")};

	if (host->config_string != NULL &&
	    host->config_string(config, "bwrap", &configured, err) < 0)
		return -1;
	if (configured != NULL) {
		if (configured[0] != '/')
			return moat_fail(err, MOAT_USAGE, "bwrap: `%s' must be an absolute path",
					 configured);
		if (check_program(configured, workspaces, ret, err) < 0)
			return moat_wrap(err, "bwrap of the configuration");
		return 0;
	}
	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
		for (list = lists[i]; list != NULL; list = *end == '\0' ? NULL : end + 1) {
			end = strchrnul(list, ':');
			if (try_directory(list, (size_t) (end - list), workspaces, ret, &refused))
				return 0;
		}
	if (refused.code != MOAT_OK)
		return moat_fail(err, refused.code, "%s", refused.message);
	return moat_fail(err, MOAT_NOT_FOUND,
			 "bubblewrap is not installed: apt install bubblewrap (dnf, pacman, apk, "
			 "zypper: the same name)");
}

#ifndef RUNTIME_BWRAP_INIT
/* The directory of the file that this code was loaded from, with the slash. */
static int
own_directory(char **ret, struct moat_error *err)
{
	/* An object of the plugin's own; its address is all that matters. */
	static const char here = 0;
	AUTO_FREE char *resolved = NULL;
	Dl_info info;

	if (dladdr(&here, &info) == 0 || info.dli_fname == NULL)
		return moat_fail(err, MOAT_FAILED, "cannot find out where the plugin lies");
	resolved = realpath(info.dli_fname, NULL);
	if (resolved == NULL)
		return moat_fail_errno(err, "`%s'", info.dli_fname);
	strrchr(resolved, '/')[1] = '\0';
	*ret = STEAL(resolved);
	return 0;
}

int
find_init(char **ret, struct moat_error *err)
{
	/* The second is where a build tree has it, of which libtool puts the plugin into .libs. */
	static const char *const places[] = {"runtime-bwrap-init", "../runtime-bwrap-init"};
	struct moat_error first = MOAT_ERROR_INIT, second = MOAT_ERROR_INIT;
	AUTO_FREE char *directory = NULL;

	if (own_directory(&directory, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
		AUTO_BUF struct buf path = {0};

		if (i == 1 && strstr(directory, "/.libs/") == NULL)
			break;
		buf_format(&path, "%s%s", directory, places[i]);
		if (buf_check(&path, err) < 0)
			return -1;
		if (check_program(path.data, NULL, ret, i == 0 ? &first : &second) == 0)
			return 0;
	}
	return moat_fail(err, first.code, "%s: reinstall moat's runtime-bwrap", first.message);
}
#else
int
find_init(char **ret, struct moat_error *err)
{
	return check_program(RUNTIME_BWRAP_INIT, NULL, ret, err);
}
#endif
