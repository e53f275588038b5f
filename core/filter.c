/* SPDX-License-Identifier: Apache-2.0 */
/* The capture filter: scopes, and where their rules come from.
 *
 * A scope is a chain of lists of patterns, the nearest first: .gitignore of the directory and of
 * those above it up to the root of the repository, then info/exclude, then the global file.  The
 * first list that has a match decides.  A directory without rules of its own shares its parent's
 * scope.
 *
 * The workspace may lie inside a repository: then `prefix` is the way from the repository's root to
 * it ("a/b/"), every path is looked at with the prefix before it, and a list knows where in such a
 * path its own directory ends.  In a manifest, rules from above are of the directories "..",
 * "../..", and so on; the FILTER_REPOSITORY rule of the outermost one has the prefix (without its
 * last slash) as its text, so that a stored filter judges as the live one did. */
#include "core/filter_internal.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"

/* ------------------------------------------------------------------------------------ scopes */

/* One list of a directory, live or stored.  dirfd, git: of that directory; live only. */
static int
get_list(struct filter *filter, const char *directory, int source, int dirfd,
	 const struct filter_git *git, struct ignore_list **ret, struct moat_error *err)
{
	AUTO_FREE char *text = NULL;
	const char *file = ".gitignore";
	size_t size;

	*ret = NULL;
	if (filter->manifest != NULL) {
		const struct rules *rules = filter_find_rules(filter, directory, source);

		*ret = rules != NULL ? rules->list : NULL;
		return 0;
	}
	if (source == FILTER_INFO_EXCLUDE)
		file = filter_git_info_exclude(git);
	else if (source == FILTER_GLOBAL)
		file = filter_git_global_exclude(git);
	if (filter_read(dirfd, file, source != FILTER_GITIGNORE, &text, &size, err) < 0)
		return moat_wrap(err, "ignore rules of `%s'", directory);
	return text == NULL ? 0
			    : filter_add_patterns(filter, directory, source, text, size, ret, err);
}

static struct filter_scope *
new_scope(struct filter *filter, const struct filter_scope *outer, struct moat_error *err)
{
	struct filter_scope *scope = arena_alloc(&filter->arena, sizeof *scope);

	if (scope == NULL) {
		(void) moat_fail_memory(err);
		return NULL;
	}
	scope->outer = outer;
	if (outer != NULL) {
		scope->repository = outer->repository;
		scope->tracked_only = outer->tracked_only;
	}
	return scope;
}

/* Puts a list of the directory before *scope, when it has one. */
static int
push_list(struct filter *filter, const char *directory, int source, int dirfd,
	  const struct filter_git *git, size_t start, const struct filter_scope **scope,
	  struct moat_error *err)
{
	struct ignore_list *list;
	struct filter_scope *inner;

	if (get_list(filter, directory, source, dirfd, git, &list, err) < 0)
		return -1;
	if (list == NULL)
		return 0;
	inner = new_scope(filter, *scope, err);
	if (inner == NULL)
		return -1;
	inner->list = list;
	inner->start = start;
	*scope = inner;
	return 0;
}

static int
push_tracked_only(struct filter *filter, const struct filter_scope **scope, struct moat_error *err)
{
	struct filter_scope *inner = new_scope(filter, *scope, err);

	if (inner == NULL)
		return -1;
	inner->tracked_only = true;
	*scope = inner;
	return 0;
}

/* The scope of a repository's root, without its .gitignore.  Takes over git, also when it fails. */
static int
start_repository(struct filter *filter, const char *directory, struct filter_git *git, size_t start,
		 const struct filter_scope **scope, struct moat_error *err)
{
	struct repository *repository = arena_alloc(&filter->arena, sizeof *repository);
	struct filter_scope *base = new_scope(filter, NULL, err);

	if (repository == NULL || base == NULL) {
		filter_git_close(git);
		return moat_fail_memory(err);
	}
	*repository = (struct repository){git, start, filter->repositories};
	filter->repositories = repository;
	base->repository = repository;
	*scope = base;
	if (filter->manifest == NULL) {
		/* The mark; that of the outermost has the way from there to here. */
		size_t size =
			start == 0 && filter->prefix_length > 0 ? filter->prefix_length - 1 : 0;

		if (filter_add_rules(filter, directory, FILTER_REPOSITORY, filter->prefix, size,
				     NULL, err) < 0)
			return -1;
	}
	if (push_list(filter, directory, FILTER_GLOBAL, AT_FDCWD, git, start, scope, err) < 0)
		return -1;
	return push_list(filter, directory, FILTER_INFO_EXCLUDE, AT_FDCWD, git, start, scope, err);
}

/* What the rules say of a path that has the prefix before it. */
static bool
is_ignored(const struct filter_scope *scope, const char *full, const char *name, bool is_directory)
{
	if (scope->tracked_only)
		return true;
	for (; scope != NULL; scope = scope->outer) {
		enum ignore_match match;

		if (scope->list == NULL)
			continue;
		match = ignore_check(scope->list, full + scope->start, name, is_directory);
		if (match != IGNORE_NONE)
			return match == IGNORE_IGNORED;
	}
	return false;
}

/* ------------------------------------------------------------------------------------- paths */

/* A path with the filter's prefix before it. */
struct full_path {
	char small[1024];
	char *large;      /* owned */
	const char *text; /* NULL: no memory */
};

static void
cleanup_full_path(struct full_path *full)
{
	free(full->large);
}
#define AUTO_FULL_PATH CLEANUP(cleanup_full_path)

static void
full_path_init(struct full_path *full, const struct filter *filter, const char *path)
{
	size_t length = strlen(path) + 1;
	char *out = full->small;

	full->large = NULL;
	full->text = path;
	if (filter->prefix_length == 0)
		return;
	if (filter->prefix_length + length > sizeof full->small)
		out = full->large = malloc(filter->prefix_length + length);
	if (out != NULL) {
		memcpy(out, filter->prefix, filter->prefix_length);
		memcpy(out + filter->prefix_length, path, length);
	}
	full->text = out;
}

/* "", "..", "../..": so many levels up, for the caller to free; NULL: no memory. */
static char *
format_up(size_t levels)
{
	AUTO_BUF struct buf up = {0};

	while (levels-- > 0)
		buf_string(&up, up.size > 0 ? "/.." : "..");
	return buf_steal(&up);
}

static size_t
count_components(const char *prefix)
{
	size_t n = 0;

	for (; *prefix != '\0'; prefix++)
		n += *prefix == '/';
	return n;
}

/* ---------------------------------------------------------------------------------- the root */

/* A directory above the workspace. */
static int
open_above(const struct filter *filter, const char *up, struct moat_error *err)
{
	AUTO_BUF struct buf path = {0};
	int fd;

	buf_format(&path, "%s/%s", filter->root_path, up);
	if (buf_check(&path, err) < 0)
		return -1;
	fd = open(path.data, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? moat_fail_errno(err, "open `%s'", path.data) : fd;
}

/* Rules of the directories from the repository's root down to the workspace's parent.  A directory
 * that they ignore has no say, nor has anything in it. */
static int
push_above(struct filter *filter, const struct filter_scope **scope, struct moat_error *err)
{
	AUTO_FREE char *prefix = strdup(filter->prefix);
	size_t levels = count_components(filter->prefix), start = 0;

	if (prefix == NULL)
		return moat_fail_memory(err);
	for (; levels > 0; levels--) {
		AUTO_FREE char *up = format_up(levels);
		AUTO_CLOSE int fd = -1;
		char *slash = strchr(prefix + start, '/');

		if (up == NULL)
			return moat_fail_memory(err);
		if (filter->manifest == NULL && (fd = open_above(filter, up, err)) < 0)
			return -1;
		if (push_list(filter, up, FILTER_GITIGNORE, fd, NULL, start, scope, err) < 0)
			return -1;
		*slash = '\0';
		if (is_ignored(*scope, prefix, prefix + start, true))
			return push_tracked_only(filter, scope, err);
		*slash = '/';
		start = (size_t) (slash - prefix) + 1;
	}
	return 0;
}

static int
make_root(struct filter *filter, struct moat_error *err)
{
	const struct filter_scope *scope = NULL;
	AUTO_FREE char *up = format_up(count_components(filter->prefix));
	bool in_repository = filter->git != NULL;

	if (up == NULL)
		return moat_fail_memory(err);
	if (filter->manifest != NULL)
		in_repository = filter_find_rules(filter, up, FILTER_REPOSITORY) != NULL;
	if (in_repository) {
		if (start_repository(filter, up, STEAL(filter->git), 0, &scope, err) < 0)
			return -1;
	} else {
		scope = new_scope(filter, NULL, err);
		if (scope == NULL)
			return -1;
	}
	if (push_above(filter, &scope, err) < 0)
		return -1;
	if (!scope->tracked_only && !(filter->flags & FILTER_NO_GITIGNORE) &&
	    push_list(filter, "", FILTER_GITIGNORE, filter->rootfd, NULL, filter->prefix_length,
		      &scope, err) < 0)
		return -1;
	filter->root = scope;
	return 0;
}

int
filter_root(struct filter *filter, const struct filter_scope **ret, struct moat_error *err)
{
	int status = 0;

	(void) pthread_mutex_lock(&filter->lock);
	if (filter->root == NULL)
		status = make_root(filter, err);
	*ret = filter->root;
	(void) pthread_mutex_unlock(&filter->lock);
	return status;
}

bool
filter_root_is_ignored(const struct filter *filter)
{
	return filter->root != NULL && filter->root->tracked_only;
}

/* ---------------------------------------------------------------------------------- entering */

/* *ret: the repository whose root the directory is, as git sees it from outside; NULL: none. */
static int
find_nested(struct filter *filter, const struct filter_scope *parent, const char *path, int dirfd,
	    struct filter_git **ret, struct moat_error *err)
{
	const struct repository *outer = parent->repository;
	enum filter_tracked tracked = TRACKED_NOT;
	AUTO_BUF struct buf directory = {0};
	AUTO_FULL_PATH struct full_path full;
	struct stat st;
	int status;

	full_path_init(&full, filter, path);
	*ret = NULL;
	if (fstatat(dirfd, ".git", &st, 0) < 0)
		return 0;
	buf_format(&directory, "%s/%s", filter->root_path, path);
	if (buf_check(&directory, err) < 0 || filter_git_open(directory.data, ret, err) < 0)
		return -1;
	if (*ret == NULL || outer == NULL)
		return 0;
	/* A repository that was made where the outer one tracks files is a mere directory to it. */
	if (full.text == NULL)
		status = moat_fail_memory(err);
	else
		status = filter_git_tracked(outer->git, full.text + outer->start, true, &tracked,
					    err);
	if (status < 0 || tracked == TRACKED_BELOW)
		filter_git_close(STEAL(*ret));
	return status;
}

static int
enter(struct filter *filter, const struct filter_scope *parent, const char *path, int dirfd,
      enum filter_verdict verdict, const struct filter_scope **scope, struct moat_error *err)
{
	size_t start = filter->prefix_length + strlen(path) + 1;
	struct filter_git *git = NULL;
	bool nested;

	if (filter->manifest != NULL) {
		nested = filter_find_rules(filter, path, FILTER_REPOSITORY) != NULL;
	} else {
		if (find_nested(filter, parent, path, dirfd, &git, err) < 0)
			return -1;
		nested = git != NULL;
	}
	if (nested) {
		if (start_repository(filter, path, git, start, scope, err) < 0)
			return -1;
	} else if (parent->tracked_only) {
		return 0;
	} else if (verdict == FILTER_TRACKED_ONLY) {
		return push_tracked_only(filter, scope, err);
	}
	return push_list(filter, path, FILTER_GITIGNORE, dirfd, NULL, start, scope, err);
}

int
filter_enter(struct filter *filter, const struct filter_scope *parent, const char *path, int dirfd,
	     enum filter_verdict verdict, bool has_rules, const struct filter_scope **ret,
	     struct moat_error *err)
{
	int status = 0;

	*ret = parent;
	/* Nothing of its own: its parent's rules. */
	if (filter->manifest == NULL && !has_rules &&
	    (verdict != FILTER_TRACKED_ONLY || parent->tracked_only))
		return 0;
	(void) pthread_mutex_lock(&filter->lock);
	if (filter->failure.code != MOAT_OK) {
		status = moat_fail(err, filter->failure.code, "%s", filter->failure.message);
	} else if (!(filter->flags & FILTER_NO_GITIGNORE)) {
		const struct filter_scope *scope = parent;

		status = enter(filter, parent, path, dirfd, verdict, &scope, err);
		*ret = scope;
	}
	(void) pthread_mutex_unlock(&filter->lock);
	return status;
}

/* ---------------------------------------------------------------------------------- verdicts */

/* The first entry that is not before `path`: itself, or else what is below it. */
static size_t
lower_bound(const struct manifest *manifest, const char *path)
{
	size_t low = 0, high = manifest->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (manifest_compare(manifest->entries[middle]->path, path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static enum filter_tracked
find_in_manifest(const struct manifest *manifest, const char *path, bool is_directory)
{
	size_t at = lower_bound(manifest, path), length = strlen(path);
	const struct moat_entry *entry = at < manifest->count ? manifest->entries[at] : NULL;

	if (entry == NULL || strncmp(entry->path, path, length) != 0)
		return TRACKED_NOT;
	if (entry->path[length] == '\0')
		return is_directory && entry->type != MOAT_DIRECTORY ? TRACKED_NOT : TRACKED_ITSELF;
	return is_directory && entry->path[length] == '/' ? TRACKED_BELOW : TRACKED_NOT;
}

/* A filter_check() cannot fail: what goes wrong is kept for the next function that can, and until
 * then everything is captured. */
static void
keep_failure(struct filter *filter, const struct moat_error *failure)
{
	(void) pthread_mutex_lock(&filter->lock);
	if (filter->failure.code == MOAT_OK)
		filter->failure = *failure;
	(void) pthread_mutex_unlock(&filter->lock);
}

/* One directory, and the patterns of the configuration. */
struct below {
	const struct ignore_list *list;
	const char *directory;
};

/* What they leave out, or a directory on the way that they do, is not wanted. */
static bool
is_wanted_below(const void *context, const char *path)
{
	const struct below *below = context;
	AUTO_BUF struct buf full = {0};
	size_t start = strlen(below->directory) + 1;

	buf_format(&full, "%s/%s", below->directory, path);
	if (full.failed)
		return true; /* rather too much */
	for (char *name = full.data + start, *slash; name != NULL;
	     name = slash == NULL ? NULL : slash + 1) {
		enum ignore_match match;

		slash = strchr(name, '/');
		if (slash != NULL)
			*slash = '\0';
		match = ignore_check(below->list, full.data, name, slash != NULL);
		if (slash != NULL)
			*slash = '/';
		if (match == IGNORE_IGNORED)
			return false;
	}
	return true;
}

/* An ignored directory is entered for what git tracks in it; for nothing, if the configuration
 * leaves all of that out. */
static int
find_tracked(const struct filter *filter, const struct repository *repository, const char *path,
	     const char *inside, bool is_directory, enum filter_tracked *ret,
	     struct moat_error *err)
{
	struct below below = {filter->additional, path};
	bool wanted;

	if (filter_git_tracked(repository->git, inside, is_directory, ret, err) < 0)
		return -1;
	if (*ret != TRACKED_BELOW || filter->additional == NULL)
		return 0;
	if (filter_git_wants_below(repository->git, inside, is_wanted_below, &below, &wanted, err) <
	    0)
		return -1;
	if (!wanted)
		*ret = TRACKED_NOT;
	return 0;
}

/* What becomes of an object that the rules ignore. */
static enum filter_verdict
judge_ignored(struct filter *filter, const struct filter_scope *scope, const char *path,
	      const char *full, bool is_directory)
{
	const struct repository *repository = scope->repository;
	enum filter_tracked tracked = TRACKED_NOT;
	struct moat_error err = MOAT_ERROR_INIT;

	if (filter->manifest != NULL)
		tracked = find_in_manifest(filter->manifest, path, is_directory);
	else if (repository != NULL &&
		 find_tracked(filter, repository, path, full + repository->start, is_directory,
			      &tracked, &err) < 0) {
		keep_failure(filter, &err);
		return FILTER_CAPTURE;
	}
	if (tracked == TRACKED_NOT)
		return FILTER_IGNORE;
	return is_directory ? FILTER_TRACKED_ONLY : FILTER_CAPTURE;
}

enum filter_verdict
filter_check(struct filter *filter, const struct filter_scope *scope, const char *path,
	     const char *name, bool is_directory)
{
	AUTO_FULL_PATH struct full_path full;
	enum ignore_match match = IGNORE_NONE;

	full.large = NULL;
	if (strcmp(name, ".git") == 0)
		return FILTER_IGNORE;
	if (filter->additional != NULL)
		match = ignore_check(filter->additional, path, path + strlen(path) - strlen(name),
				     is_directory);
	if (match == IGNORE_IGNORED)
		return FILTER_IGNORE;
	if ((match == IGNORE_INCLUDED && !scope->tracked_only) ||
	    (filter->flags & FILTER_NO_GITIGNORE))
		return FILTER_CAPTURE;
	full_path_init(&full, filter, path);
	if (full.text == NULL) {
		struct moat_error err = MOAT_ERROR_INIT;

		(void) moat_fail_memory(&err);
		keep_failure(filter, &err);
		return FILTER_CAPTURE;
	}
	if (!is_ignored(scope, full.text, full.text + strlen(full.text) - strlen(name),
			is_directory))
		return FILTER_CAPTURE;
	return judge_ignored(filter, scope, path, full.text, is_directory);
}

/* ----------------------------------------------------------------------------------- opening */

static struct filter *
new_filter(uint32_t flags, struct moat_error *err)
{
	struct filter *filter = calloc(1, sizeof *filter);

	if (filter == NULL) {
		(void) moat_fail_memory(err);
		return NULL;
	}
	filter->flags = flags;
	filter->rootfd = -1;
	filter->failure.struct_size = sizeof filter->failure;
	(void) pthread_mutex_init(&filter->lock, NULL);
	return filter;
}

static void *
read_index(void *git)
{
	filter_git_load(git);
	return NULL;
}

void
filter_prepare(struct filter *filter)
{
	sigset_t all, saved;

	if (filter->git == NULL || !filter_git_index_is_large(filter->git))
		return;
	/* Signals are the main thread's business. */
	sigfillset(&all);
	(void) pthread_sigmask(SIG_SETMASK, &all, &saved);
	filter->reading = pthread_create(&filter->reader, NULL, read_index, filter->git) == 0;
	(void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

void
filter_free(struct filter *filter)
{
	if (filter == NULL)
		return;
	if (filter->reading)
		(void) pthread_join(filter->reader, NULL);
	for (size_t i = 0; i < filter->rule_count; i++)
		ignore_free(filter->rules[i].list);
	for (struct repository *r = filter->repositories; r != NULL; r = r->next)
		filter_git_close(r->git);
	filter_git_close(filter->git);
	(void) pthread_mutex_destroy(&filter->lock);
	arena_free(&filter->arena);
	free(filter->rules);
	free(filter->root_path);
	free(filter->prefix);
	free(filter);
}

void
cleanup_filter(struct filter **filter)
{
	filter_free(*filter);
}

static int
add_additional(struct filter *filter, const char *const *patterns, struct moat_error *err)
{
	AUTO_BUF struct buf text = {0};

	for (; patterns != NULL && *patterns != NULL; patterns++)
		buf_format(&text, "%s\n", *patterns);
	if (buf_check(&text, err) < 0)
		return -1;
	if (text.size == 0)
		return 0;
	return filter_add_patterns(filter, "", FILTER_CONFIGURED, text.data, text.size,
				   &filter->additional, err);
}

/* The nearest repository that the workspace lies in, on its own filesystem, as git looks for it. */
static int
discover(struct filter *filter, struct moat_error *err)
{
	AUTO_FREE char *directory = strdup(filter->root_path);
	size_t length = strlen(filter->root_path);
	struct stat root, st;

	if (directory == NULL)
		return moat_fail_memory(err);
	if (stat(directory, &root) < 0)
		return moat_fail_errno(err, "stat `%s'", directory);
	for (;;) {
		char *slash;

		if (stat(*directory != '\0' ? directory : "/", &st) < 0 || st.st_dev != root.st_dev)
			return 0;
		if (filter_git_open(*directory != '\0' ? directory : "/", &filter->git, err) < 0)
			return -1;
		slash = strrchr(directory, '/');
		if (filter->git != NULL || slash == NULL)
			break;
		*slash = '\0';
	}
	if (filter->git != NULL && strlen(directory) < length) {
		AUTO_BUF struct buf prefix = {0};

		buf_format(&prefix, "%s/", filter->root_path + strlen(directory) + 1);
		free(filter->prefix);
		filter->prefix_length = prefix.size;
		filter->prefix = buf_steal(&prefix);
	}
	return filter->prefix != NULL ? 0 : moat_fail_memory(err);
}

int
filter_open(int rootfd, const char *root_path, const struct filter_options *options,
	    struct filter **ret, struct moat_error *err)
{
	CLEANUP(cleanup_filter) struct filter *filter = new_filter(options->flags, err);

	*ret = NULL;
	if (filter == NULL)
		return -1;
	filter->rootfd = rootfd;
	filter->prefix = strdup("");
	if (filter->prefix == NULL)
		return moat_fail_memory(err);
	filter->root_path = realpath(root_path, NULL);
	if (filter->root_path == NULL)
		return moat_fail_errno(err, "`%s'", root_path);
	if (add_additional(filter, options->additional, err) < 0)
		return -1;
	if (!(filter->flags & FILTER_NO_GITIGNORE) && discover(filter, err) < 0)
		return -1;
	*ret = STEAL(filter);
	return 0;
}

int
filter_open_stored(const struct manifest *manifest, struct filter **ret, struct moat_error *err)
{
	CLEANUP(cleanup_filter) struct filter *filter = new_filter(manifest->filter_flags, err);

	*ret = NULL;
	if (filter == NULL)
		return -1;
	filter->manifest = manifest;
	filter->prefix = strdup("");
	if (filter->prefix == NULL)
		return moat_fail_memory(err);
	if (filter_load_rules(filter, err) < 0)
		return -1;
	*ret = STEAL(filter);
	return 0;
}
