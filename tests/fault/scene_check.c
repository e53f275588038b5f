/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold after a command was disturbed and `moat recover` has run. */
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "scene.h"

#define OUTPUT 65536

/* --------------------------------------------------------------------------- names, made equal */

struct names {
	const struct scene *scene;
	char *lines[512];
	size_t count;
};

/* Ids and hashes are longer runs of hex digits: the known snapshots get a number each, all others
 * become equal. */
static void
add_name(struct names *names, const char *path)
{
	char line[4096];
	size_t at = 0;

	if (names->count == sizeof(names->lines) / sizeof(*names->lines))
		die("too many files in the home");
	while (*path && at < sizeof(line) - 8) {
		size_t length = strspn(path, "0123456789abcdef"), i = 0;

		if (length < 8) {
			line[at++] = *path++;
			continue;
		}
		while (i < names->scene->snapshot_count &&
		       strncmp(names->scene->snapshots[i] + 5, path, length) != 0)
			i++;
		at += (size_t) snprintf(line + at, 8,
					i < names->scene->snapshot_count ? "<%zu>" : "*", i + 1);
		path += length;
	}
	line[at] = '\0';
	names->lines[names->count++] = strdup(line);
}

static void
list(struct names *names, const char *path, size_t root_length)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	char child[8192];

	while (directory && (entry = readdir(directory))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void) snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		add_name(names, child + root_length + 1);
		if (entry->d_type == DT_DIR)
			list(names, child, root_length);
	}
	if (directory)
		(void) closedir(directory);
}

/* What moat may have left in the workspace, at any level. */
static void
list_workspace(struct names *names, const char *path, size_t root_length)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	char child[8192];

	while (directory && (entry = readdir(directory))) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void) snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		if (strncmp(entry->d_name, ".moat", 5) == 0)
			add_name(names, child + root_length);
		else if (entry->d_type == DT_DIR)
			list_workspace(names, child, root_length);
	}
	if (directory)
		(void) closedir(directory);
}

static int
by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

char *
scene_names(const struct scene *scene)
{
	struct names names = {.scene = scene};
	char *all;
	size_t size = 1, at = 0;

	list(&names, scene->home, strlen(scene->home));
	list_workspace(&names, scene->workspace, strlen(scene->workspace));
	qsort(names.lines, names.count, sizeof(char *), by_text);
	for (size_t i = 0; i < names.count; i++)
		size += strlen(names.lines[i]) + 1;
	all = malloc(size);
	if (!all)
		die("out of memory");
	for (size_t i = 0; i < names.count; i++) {
		at += (size_t) snprintf(all + at, size - at, "%s\n", names.lines[i]);
		free(names.lines[i]);
	}
	all[at] = '\0';
	return all;
}

/* ------------------------------------------------------------------------------------- checks */

static char *__attribute__((format(printf, 1, 2))) wrong(const char *format, ...)
{
	va_list arguments;
	char *line;

	va_start(arguments, format);
	if (vasprintf(&line, format, arguments) < 0)
		die("out of memory");
	va_end(arguments);
	return line;
}

/* The first lines in which two texts of sorted lines differ. */
static char *
difference(const char *what, const char *expected, const char *found)
{
	const char *end;

	while (*expected && *found) {
		size_t a = strcspn(expected, "\n"), b = strcspn(found, "\n");

		if (a != b || strncmp(expected, found, a) != 0)
			break;
		expected += a + (expected[a] == '\n');
		found += b + (found[b] == '\n');
	}
	end = *expected ? "" : " (end)";
	return wrong("%s: expected `%.*s'%s, found `%.*s'%s", what, (int) strcspn(expected, "\n"),
		     expected, end, (int) strcspn(found, "\n"), found, *found ? "" : " (end)");
}

/* Both are sorted lines. */
static bool
is_part_of(const char *names, const char *all)
{
	while (*names && *all) {
		size_t a = strcspn(names, "\n"), b = strcspn(all, "\n");

		if (a == b && strncmp(names, all, a) == 0)
			names += a + 1;
		all += b + 1;
	}
	return *names == '\0';
}

static bool
is_old_list(const struct scene *scene, const char *names)
{
	if (scene->command->first)
		return is_part_of(names, scene->old_lists[0]);
	for (size_t i = 0; i < SCENE_LISTS && scene->old_lists[i]; i++)
		if (strcmp(names, scene->old_lists[i]) == 0)
			return true;
	return false;
}

static enum scene_state
state_of(const struct scene *scene, const char *picture, const char *names)
{
	if (scene->command->changes) {
		if (strcmp(picture, scene->before.text) == 0)
			return SCENE_OLD;
		return strcmp(picture, scene->after.text) == 0 ? SCENE_NEW : SCENE_MIXED;
	}
	if (strcmp(picture, scene->before.text) != 0)
		return SCENE_MIXED;
	if (strcmp(names, scene->new_list) == 0)
		return SCENE_NEW;
	return is_old_list(scene, names) ? SCENE_OLD : SCENE_MIXED;
}

static void
look(struct scene *scene, struct picture *ret_picture, char **ret_names)
{
	static const char *const without[] = {".moat-*", NULL};
	struct picture_options options = {.without = without, .open = true};

	*ret_names = scene_names(scene);
	if (picture_take(scene->workspace, &options, ret_picture) < 0)
		die("no picture of %s", scene->workspace);
}

enum scene_state
scene_state(struct scene *scene)
{
	struct picture picture;
	enum scene_state state;
	char *names;

	if (scene_is_untouched(scene))
		return SCENE_OLD;
	look(scene, &picture, &names);
	state = state_of(scene, picture.text, names);
	picture_free(&picture);
	free(names);
	return state;
}

static char *
check_state(struct scene *scene, enum scene_state *ret_state)
{
	const struct scene_command *command = scene->command;
	struct picture picture;
	char *names, *problem = NULL;

	look(scene, &picture, &names);
	*ret_state = state_of(scene, picture.text, names);
	if (command->changes && *ret_state == SCENE_MIXED)
		problem = difference("the workspace is neither old nor new, as old",
				     scene->before.text, picture.text);
	else if (!command->changes && strcmp(picture.text, scene->before.text) != 0)
		problem = difference("the workspace has changed", scene->before.text, picture.text);
	else if (*ret_state == SCENE_NEW && strcmp(names, scene->new_list) != 0)
		problem = difference("litter, as new", scene->new_list, names);
	else if (*ret_state != SCENE_NEW && !is_old_list(scene, names))
		problem = difference("litter, as old", scene->old_lists[0], names);
	picture_free(&picture);
	free(names);
	return problem;
}

/* Runs one of moat's commands, which must succeed. */
static char *
run(struct scene *scene, const char *first, const char *second)
{
	const char *argv[] = {scene->program, first, second, NULL};
	char said[OUTPUT];
	int status = scene_moat(scene, argv, NULL);

	if (status == 0)
		return NULL;
	scene_output(scene, "err", said, sizeof(said));
	return wrong("moat %s %s: %s %d: %s", first, second ? second : "",
		     WIFSIGNALED(status) ? "signal" : "status",
		     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), said);
}

static char *
recover_again(struct scene *scene)
{
	uint64_t home = tree_signature(scene->home);
	char said[OUTPUT], *problem = run(scene, "recover", NULL);

	if (problem)
		return problem;
	scene_output(scene, "err", said, sizeof(said));
	if (!strstr(said, "nothing was interrupted"))
		return wrong("a second recover finds work: %s", said);
	if (tree_signature(scene->home) != home)
		return wrong("a second recover changes the home");
	return NULL;
}

char *
scene_check(struct scene *scene, enum scene_state *ret_state)
{
	char *problem;

	/* Nothing was even begun: it is the very state that was checked at the start. */
	*ret_state = SCENE_OLD;
	if (scene_is_untouched(scene))
		return NULL;
	*ret_state = SCENE_MIXED;
	problem = run(scene, "recover", NULL);
	if (problem)
		return problem;
	problem = check_state(scene, ret_state);
	if (!problem)
		problem = run(scene, "snapshot", "verify");
	if (!problem)
		problem = recover_again(scene);
	return problem;
}
