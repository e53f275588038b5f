/* SPDX-License-Identifier: Apache-2.0 */
#include "core/gitconfig.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "core/filter_git.h"
#include "core/libgit2.h"

static int
fail(const struct libgit2 *lib, int status, const char *what, const char *directory,
     struct moat_error *err)
{
	const git_error *last = lib->git_error_last();

	return moat_fail(err, status == GIT_ENOTFOUND ? MOAT_NOT_FOUND : MOAT_CORRUPT,
			 "the %s of the git repository `%s' cannot be read (%s); " FILTER_GIT_HINT,
			 what, directory,
			 last != NULL && last->message != NULL ? last->message : "no reason given");
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The value of `excludesFile = VALUE', when it has no need of rules about quotes and comments;
 * NULL: it does.  line: without the newline, trimmed; it is changed. */
static char *
plain_value(char *line)
{
	static const char key[] = "excludesfile";
	size_t size;

	if (strncasecmp(line, key, strlen(key)) != 0)
		return NULL;
	line += strlen(key);
	line += strspn(line, " \t");
	if (*line++ != '=')
		return NULL;
	line += strspn(line, " \t");
	size = strlen(line);
	while (size > 0 && is_blank(line[size - 1]))
		line[--size] = '\0';
	if (size == 0 || strpbrk(line, "\"\\#;%") != NULL || (line[0] == '~' && line[1] != '/'))
		return NULL;
	return line;
}

/* Looks for the last core.excludesFile; *ret is in `text', which is cut into lines. */
static enum gitconfig_saying
read_lines(char *text, const char **ret)
{
	enum gitconfig_saying saying = GITCONFIG_NOTHING;
	bool in_core = false;
	char *line;

	while ((line = strsep(&text, "\n")) != NULL) {
		line += strspn(line, " \t");
		if (line[0] == '[' && strcasestr(line, "excludesfile") == NULL) {
			in_core = strncasecmp(line, "[core]", 6) == 0 &&
				  line[6 + strspn(line + 6, " \t\r")] == '\0';
		} else if (line[0] != '#' && line[0] != ';' &&
			   strcasestr(line, "excludesfile") != NULL) {
			*ret = in_core ? plain_value(line) : NULL;
			if (*ret == NULL)
				return GITCONFIG_MORE;
			saying = GITCONFIG_PATH;
		}
	}
	return saying;
}

/* Of the version of the repository's format only this is sure to change nothing. */
static bool
is_version_plain(const char *text)
{
	static const char key[] = "repositoryformatversion";
	const char *found = strcasestr(text, key);

	return found == NULL || strncmp(found + strlen(key), " = 0\n", 5) == 0;
}

enum gitconfig_saying
gitconfig_say(char *text, size_t size, const char **ret)
{
	if (strlen(text) != size || strcasestr(text, "include") != NULL ||
	    strcasestr(text, "extensions") != NULL || !is_version_plain(text))
		return GITCONFIG_MORE;
	if (strcasestr(text, "excludesfile") == NULL)
		return GITCONFIG_NOTHING;
	return strstr(text, "\\\n") != NULL ? GITCONFIG_MORE : read_lines(text, ret);
}

/* *ret: taken from *text, which the caller frees. */
static enum gitconfig_saying
saying_of(const char *directory, const char *name, char **text, const char **ret)
{
	AUTO_FREE char *path = filter_join(directory, name);
	struct stat st;
	size_t size;

	*text = NULL;
	if (path == NULL || filter_read(AT_FDCWD, path, true, text, &size, NULL) < 0)
		return GITCONFIG_MORE;
	/* Not there, empty, or one that would be waited for; but not one that could not be read. */
	if (*text == NULL)
		return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0
			       ? GITCONFIG_MORE
			       : GITCONFIG_NOTHING;
	return gitconfig_say(*text, size, ret);
}

/* "~/" is the home directory, another relative path starts at the root of the working tree. */
static char *
expand(const char *directory, const char *path)
{
	return path[0] == '~' ? filter_join(getenv("HOME"), path + 2)
			      : filter_join(directory, path);
}

/* From those files that libgit2 would read, the weakest first; *ret NULL: none says anything.
 * False: it takes libgit2. */
static bool
read_plainly(const char *directory, const char *common_directory, char **ret)
{
	AUTO_FREE char *found = NULL;
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
	bool has_config = config != NULL && *config != '\0',
	     has_home = home != NULL && *home != '\0';
	const struct {
		const char *directory, *name;
	} files[] = {
		{"/etc", "gitconfig"},
		{has_config ? config
		 : has_home ? home
			    : NULL,
		 has_config ? "git/config" : ".config/git/config"},
		{has_home ? home : NULL, ".gitconfig"},
		{common_directory, "config"},
	};

	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		AUTO_FREE char *text = NULL;
		const char *path = NULL;
		enum gitconfig_saying saying =
			files[i].directory == NULL
				? GITCONFIG_NOTHING
				: saying_of(files[i].directory, files[i].name, &text, &path);

		if (saying == GITCONFIG_MORE ||
		    (saying == GITCONFIG_PATH && path[0] == '~' && !has_home))
			return false;
		if (saying == GITCONFIG_NOTHING)
			continue;
		free(found);
		found = expand(directory, path);
		if (found == NULL)
			return false;
	}
	*ret = STEAL(found);
	return true;
}

/* $XDG_CONFIG_HOME/git/ignore, ~/.config/git/ignore, or "". */
static char *
default_excludes(void)
{
	const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

	if (config != NULL && *config != '\0')
		return filter_join(config, "git/ignore");
	return home != NULL ? filter_join(home, ".config/git/ignore") : strdup("");
}

static int
read_by_libgit2(const struct libgit2 *lib, git_repository *repository, const char *directory,
		char **ret, struct moat_error *err)
{
	git_buf path = {0};
	git_config *config = NULL;
	int status = lib->git_repository_config_snapshot(&config, repository);

	if (status == 0) {
		status = lib->git_config_get_path(&path, config, "core.excludesfile");
		lib->git_config_free(config);
	}
	if (status != 0 && status != GIT_ENOTFOUND)
		return fail(lib, status, "configuration", directory, err);
	if (status == GIT_ENOTFOUND)
		*ret = default_excludes();
	else
		*ret = path.size == 0 ? strdup("") : filter_join(directory, path.ptr);
	lib->git_buf_dispose(&path);
	return *ret == NULL ? moat_fail_memory(err) : 1;
}

static int
ask_libgit2(const char *directory, char **ret, struct moat_error *err)
{
	const struct libgit2 *lib = libgit2_load(err);
	git_repository *repository = NULL;
	int status;

	if (lib == NULL)
		return moat_wrap(err, "the configuration of the git repository `%s'", directory);
	status = lib->git_repository_open_ext(&repository, directory, GIT_REPOSITORY_OPEN_NO_SEARCH,
					      NULL);
	if (status == GIT_ENOTFOUND)
		return 0;
	if (status != 0)
		return fail(lib, status, "metadata", directory, err);
	status = read_by_libgit2(lib, repository, directory, ret, err);
	lib->git_repository_free(repository);
	return status;
}

int
gitconfig_excludes(const char *directory, const char *common_directory, char **ret,
		   struct moat_error *err)
{
	*ret = NULL;
	if (!read_plainly(directory, common_directory, ret))
		return ask_libgit2(directory, ret, err);
	if (*ret == NULL)
		*ret = default_excludes();
	return *ret == NULL ? moat_fail_memory(err) : 1;
}
