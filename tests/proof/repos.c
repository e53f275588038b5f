/* SPDX-License-Identifier: Apache-2.0 */
#include "repos.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---------------------------------------------------------------------------------------- sets */

void
set_add(struct set *set, const char *text)
{
	if (set->count == set->allocated) {
		set->allocated = set->allocated * 2 + 32;
		set->items = reallocarray(set->items, set->allocated, sizeof *set->items);
		if (set->items == NULL)
			proof_die("reallocarray", __FILE__, __LINE__);
	}
	set->items[set->count] = strdup(text);
	if (set->items[set->count++] == NULL)
		proof_die("strdup", __FILE__, __LINE__);
}

static int
compare(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

void
set_sort(struct set *set)
{
	if (set->count > 1)
		qsort(set->items, set->count, sizeof *set->items, compare);
}

bool
set_has(const struct set *set, const char *text)
{
	return set->count > 0 &&
	       bsearch(&text, set->items, set->count, sizeof *set->items, compare) != NULL;
}

bool
set_has_below(const struct set *set, const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < set->count; i++)
		if (n == 0 || (strncmp(set->items[i], path, n) == 0 &&
			       (set->items[i][n] == '/' || set->items[i][n] == '\0')))
			return true;
	return false;
}

void
set_free(struct set *set)
{
	for (size_t i = 0; i < set->count; i++)
		free(set->items[i]);
	free(set->items);
	*set = (struct set){0};
}

/* ----------------------------------------------------------------------------------------- git */

static void
in_child(const char *directory, const char *const *argv, int in, int out)
{
	MUST(chdir(directory));
	MUST(dup2(in, STDIN_FILENO));
	MUST(dup2(out, STDOUT_FILENO));
	execvp(argv[0], (char *const *) argv);
	proof_die(argv[0], __FILE__, __LINE__);
}

/* Runs it there; `input' is its input.  Returns its output, each NUL-terminated item in the set. */
static void
run(const char *directory, const char *const *argv, const char *input, size_t input_size,
    struct set *ret)
{
	FILE *in = tmpfile(), *out = tmpfile();
	char *item = NULL;
	size_t allocated = 0;
	int status;
	pid_t child;

	if (in == NULL || out == NULL || fwrite(input, 1, input_size, in) != input_size)
		proof_die("tmpfile", __FILE__, __LINE__);
	rewind(in);
	child = fork();
	MUST(child);
	if (child == 0)
		in_child(directory, argv, fileno(in), fileno(out));
	MUST(waitpid(child, &status, 0));
	/* `git check-ignore' says 1 for "none". */
	if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
		proof_die(argv[1], __FILE__, __LINE__);
	rewind(out);
	while (ret != NULL && getdelim(&item, &allocated, '\0', out) > 0)
		set_add(ret, item);
	free(item);
	fclose(in);
	fclose(out);
}

static char *
join(const char *a, const char *b)
{
	char *path;

	if (asprintf(&path, "%s%s%s", a, a[0] == '\0' || b[0] == '\0' ? "" : "/", b) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	return path;
}

/* Patterns of moat.yaml are names here: they leave out every object of that name, and all below. */
bool
repos_excludes(const struct repos *r, const char *path)
{
	AUTO_FREE char *copy = strdup(path);

	if (r->additional == NULL || copy == NULL)
		return false;
	for (char *save = NULL, *name = strtok_r(copy, "/", &save); name != NULL;
	     name = strtok_r(NULL, "/", &save))
		if (fnmatch(r->additional, name, 0) == 0)
			return true;
	return false;
}

/* All directories below that git may be asked about, ".git" and nested repositories aside. */
static void
list_tree(const char *top, const char *path, bool into_repositories, struct set *directories,
	  struct set *files)
{
	AUTO_FREE char *full = join(top, path);
	DIR *stream = opendir(full);
	const struct dirent *entry;

	if (stream == NULL)
		proof_die("opendir", __FILE__, __LINE__);
	while ((entry = readdir(stream)) != NULL) {
		AUTO_FREE char *child = join(path, entry->d_name);
		AUTO_FREE char *git = NULL, *child_full = join(top, child);
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    strcmp(entry->d_name, ".git") == 0)
			continue;
		if (entry->d_type != DT_DIR) {
			if (files != NULL)
				set_add(files, child);
			continue;
		}
		set_add(directories, child);
		git = join(child_full, ".git");
		if (into_repositories || lstat(git, &st) < 0)
			list_tree(top, child, into_repositories, directories, files);
	}
	closedir(stream);
}

/* The directories of one repository that its rules ignore. */
static void
ask_ignored(const struct repos *r, const char *top, const char *path, struct set *ret)
{
	static const char *const argv[] = {"git",     "check-ignore", "-z",
					   "--stdin", "--no-index",   NULL};
	AUTO_FREE char *full = join(top, path);
	struct set directories = {0}, said = {0};
	AUTO_BUF struct buf input = {0};

	(void) r;
	list_tree(full, "", false, &directories, NULL);
	for (size_t i = 0; i < directories.count; i++)
		buf_append(&input, directories.items[i], strlen(directories.items[i]) + 1);
	if (directories.count > 0)
		run(full, argv, input.data, input.size, &said);
	for (size_t i = 0; i < said.count; i++) {
		AUTO_FREE char *child = join(path, said.items[i]);

		set_add(ret, child);
	}
	set_free(&directories);
	set_free(&said);
}

static void
ask_repository(const struct repos *r, const char *top, const char *path, struct set *files,
	       struct set *ignored)
{
	static const char *const argv[] = {"git", "ls-files",           "-z", "-c",
					   "-o",  "--exclude-standard", NULL};
	AUTO_FREE char *full = join(top, path);
	struct set said = {0};

	run(full, argv, "", 0, &said);
	ask_ignored(r, top, path, ignored);
	for (size_t i = 0; i < said.count; i++) {
		size_t n = strlen(said.items[i]);
		AUTO_FREE char *child = NULL;

		if (said.items[i][n - 1] == '/')
			said.items[i][n - 1] = '\0';
		child = join(path, said.items[i]);
		if (repos_excludes(r, child))
			continue;
		if (strlen(said.items[i]) < n) /* a nested repository */
			ask_repository(r, top, child, files, ignored);
		else
			set_add(files, child);
	}
	set_free(&said);
}

void
repos_ask(const struct repos *r, const char *path, struct set *ret_files, struct set *ret_ignored)
{
	*ret_files = *ret_ignored = (struct set){0};
	if (!r->no_gitignore) {
		ask_repository(r, path, "", ret_files, ret_ignored);
	} else {
		struct set directories = {0}, files = {0};

		list_tree(path, "", true, &directories, &files);
		for (size_t i = 0; i < files.count; i++)
			if (!repos_excludes(r, files.items[i]))
				set_add(ret_files, files.items[i]);
		set_free(&files);
		set_free(&directories);
	}
	set_sort(ret_files);
	set_sort(ret_ignored);
}

/* -------------------------------------------------------------------------------------- making */

static const char *const directory_names[] = {"a", "b", "build", "lib", "node_modules", "x.d"};
static const char *const file_names[] = {"f1",  "a.o",  "keep.o", "b.log", "keep.log", ".env",
					 "c.c", "tmp~", "x.bin",  "build", "README",   "x"};
static const char *const patterns[] = {
	"*.o",       "!keep.o",       "/build",  "build/",   "!build/", "*.log",
	"!keep.log", "node_modules/", "**/x",    "a/**/b",   "/a/*",    "!/a/b",
	"*",         "!*/",           "!*.c",    "[ab].o",   "?.d/",    "# note",
	"\\!x",      ".env",          "lib/*.c", "!lib/c.c", "tmp*  ",  "/b/",
	"!/b/f1",    "x.d/**",        "!*.o",    "/lib/a/",  "!f1",     "README"};

#define PICK(p, list) ((list)[proof_below((p), sizeof(list) / sizeof *(list))])

static void
write_file(const char *top, const char *path, const char *text)
{
	AUTO_FREE char *full = join(top, path);
	int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);

	MUST(fd);
	MUST(write(fd, text, strlen(text)));
	close(fd);
}

static void
make_directories(const char *top, const char *path)
{
	AUTO_FREE char *full = join(top, path);

	if (path[0] == '\0')
		return;
	for (char *slash = full + strlen(top) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		(void) mkdir(full, 0755);
		*slash = '/';
	}
	(void) mkdir(full, 0755); /* or it is there */
}

static void
random_rules(struct proof *p, struct buf *text)
{
	buf_string(text, "");
	for (unsigned n = 1 + proof_below(p, 4); n > 0; n--)
		buf_format(text, "%s\n", PICK(p, patterns));
}

static void
write_rules(struct repos *r, const char *top, const char *directory, const char *name)
{
	AUTO_FREE char *path = join(directory, name);
	AUTO_BUF struct buf text = {0};

	random_rules(r->p, &text);
	write_file(top, path, text.data);
}

static void
make_repository(struct repos *r, const char *path)
{
	static const char *const init[] = {"git", "init", "-q", "--template=", ".", NULL};
	AUTO_FREE char *full = join(r->top, path), *info = join(full, ".git/info");

	run(full, init, "", 0, NULL);
	if (proof_chance(r->p, 50)) {
		MUST(mkdir(info, 0755));
		write_rules(r, full, ".git/info", "exclude");
	}
	if (proof_chance(r->p, 60))
		write_rules(r, r->top, path, ".gitignore");
}

/* Some of what is there becomes tracked, though a rule may ignore it. */
static void
track_some(struct repos *r, const char *repository)
{
	AUTO_FREE char *full = join(r->top, repository);
	const char *argv[32] = {"git", "add", "-f", "--"};
	struct set directories = {0}, files = {0};
	int count = 4;

	list_tree(full, "", false, &directories, &files);
	for (size_t i = 0; i < files.count && count < 30; i++)
		if (proof_chance(r->p, 25))
			argv[count++] = files.items[i];
	argv[count] = NULL;
	if (count > 4)
		run(full, argv, "", 0, NULL);
	set_free(&directories);
	set_free(&files);
}

static void
write_settings(struct repos *r, const char *pattern, bool no_gitignore)
{
	AUTO_BUF struct buf text = {0};

	buf_format(&text, "snapshots:\n  exclude:\n    ignore_gitignore: %s\n",
		   no_gitignore ? "true" : "false");
	if (pattern != NULL)
		buf_format(&text, "    additional: [\"%s\"]\n", pattern);
	write_file(r->top, "moat.yaml", text.data);
}

static void
make_file(struct repos *r, const char *directory)
{
	AUTO_FREE char *path = join(directory, PICK(r->p, file_names));
	AUTO_FREE char *full = join(r->top, path);
	char text[64];
	struct stat st;

	if (lstat(full, &st) == 0)
		return;
	snprintf(text, sizeof text, "%llx", (unsigned long long) proof_random(r->p));
	if (proof_chance(r->p, 10))
		MUST(symlink(text, full));
	else
		write_file(r->top, path, text);
	set_add(&r->files, path);
}

static void
make_subdirectory(struct repos *r, const char *parent)
{
	AUTO_FREE char *path = join(parent, PICK(r->p, directory_names));
	AUTO_FREE char *full = join(r->top, path);

	if (mkdir(full, 0755) < 0)
		return; /* there already, as a file even */
	set_add(&r->directories, path);
	if (proof_chance(r->p, 12))
		make_repository(r, path);
	else if (proof_chance(r->p, 20))
		write_rules(r, r->top, path, ".gitignore");
}

void
repos_make(struct repos *r)
{
	struct proof *p = r->p;

	make_repository(r, "");
	set_add(&r->directories, "");
	for (unsigned n = 5 + proof_below(p, 12); n > 0; n--)
		make_subdirectory(
			r, r->directories.items[proof_below(p, (unsigned) r->directories.count)]);
	for (unsigned n = 10 + proof_below(p, 30); n > 0; n--)
		make_file(r, r->directories.items[proof_below(p, (unsigned) r->directories.count)]);
	for (size_t i = 0; i < r->directories.count; i++) {
		AUTO_FREE char *full = join(r->top, r->directories.items[i]);
		AUTO_FREE char *git = join(full, ".git");

		if (access(git, F_OK) == 0 && proof_chance(p, 70))
			track_some(r, r->directories.items[i]);
	}
	r->no_gitignore = proof_chance(p, 8);
	r->additional = proof_chance(p, 30) ? PICK(p, file_names) : NULL;
	if (r->additional != NULL || r->no_gitignore || proof_chance(p, 20))
		write_settings(r, r->additional, r->no_gitignore);
}

void
repos_make_shadow(struct repos *r)
{
	const char *const argv[] = {"cp", "-a", "--", r->top, r->shadow, NULL};

	run("/", argv, "", 0, NULL);
}

/* ------------------------------------------------------------------------------------ changing */

/* The shadow learns of every path that is new; of a new rule file only the name. */
static bool
is_directory(const char *top, const char *path)
{
	AUTO_FREE char *full = join(top, path);
	struct stat st;

	return lstat(full, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool
is_there(const char *top, const char *path)
{
	AUTO_FREE char *full = join(top, path);
	struct stat st;

	return lstat(full, &st) == 0;
}

/* The shadow learns of every path that is new; of a new rule file only the name.  Where a file, or
 * a link, of the capture is in the way, nothing is made. */
static void
change_make(struct repos *r)
{
	const char *directory =
		r->directories.items[proof_below(r->p, (unsigned) r->directories.count)];
	bool rules = proof_chance(r->p, 20), deeper = proof_chance(r->p, 30);
	AUTO_FREE char *inner = join(directory, deeper ? PICK(r->p, directory_names) : "");
	AUTO_FREE char *path = join(inner, rules ? ".gitignore" : PICK(r->p, file_names));

	make_directories(r->shadow, inner);
	if (!is_directory(r->shadow, inner) || is_directory(r->shadow, path))
		return;
	make_directories(r->top, inner);
	if (!is_directory(r->top, inner) || is_there(r->top, path))
		return;
	if (!is_there(r->shadow, path))
		write_file(r->shadow, path, "");
	if (rules)
		write_rules(r, r->top, inner, ".gitignore");
	else
		write_file(r->top, path, "made later");
}

static void
change_file(struct repos *r)
{
	const char *path = r->files.items[proof_below(r->p, (unsigned) r->files.count)];
	AUTO_FREE char *full = join(r->top, path);
	struct stat st;

	if (lstat(full, &st) < 0)
		return;
	if (proof_chance(r->p, 40))
		MUST(unlink(full));
	else if (S_ISREG(st.st_mode))
		write_file(r->top, path, "edited later");
}

static void
change_rules(struct repos *r)
{
	const char *directory =
		r->directories.items[proof_below(r->p, (unsigned) r->directories.count)];
	AUTO_FREE char *path = join(directory, ".gitignore");
	AUTO_FREE char *full = join(r->top, path), *info = join(directory, ".git/info/exclude");
	AUTO_FREE char *info_full = join(r->top, info);

	if (access(full, F_OK) == 0) {
		if (proof_chance(r->p, 50))
			MUST(unlink(full));
		else
			write_rules(r, r->top, directory, ".gitignore");
	}
	if (access(info_full, F_OK) == 0)
		write_file(r->top, info, proof_chance(r->p, 50) ? "" : "*.c\nf1\n/a\n");
}

static void
change_delete(struct repos *r)
{
	const char *directory =
		r->directories.items[proof_below(r->p, (unsigned) r->directories.count)];
	AUTO_FREE char *full = join(r->top, directory);

	if (directory[0] != '\0')
		proof_remove(AT_FDCWD, full);
}

void
repos_change(struct repos *r)
{
	struct proof *p = r->p;

	for (unsigned n = 3 + proof_below(p, 15); n > 0; n--) {
		unsigned kind = proof_below(p, 100);

		if (kind < 40)
			change_make(r);
		else if (kind < 75 && r->files.count > 0)
			change_file(r);
		else if (kind < 94)
			change_rules(r);
		else
			change_delete(r);
	}
	if (proof_chance(p, 40)) {
		AUTO_FREE char *shadow = join(r->shadow, "moat.yaml");

		if (access(shadow, F_OK) < 0)
			write_file(r->shadow, "moat.yaml", "");
		write_settings(r, proof_chance(p, 60) ? PICK(p, file_names) : NULL,
			       proof_chance(p, 30));
	}
}

void
repos_free(struct repos *r)
{
	set_free(&r->directories);
	set_free(&r->files);
	free(r->top);
	free(r->shadow);
}
