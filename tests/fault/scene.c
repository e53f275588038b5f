/* SPDX-License-Identifier: Apache-2.0 */
/* Setting up and putting back. */
#include "scene.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT 60
#define OUTPUT 65536

static char *__attribute__((format(printf, 1, 2))) text(const char *format, ...)
{
	va_list arguments;
	char *line;

	va_start(arguments, format);
	if (vasprintf(&line, format, arguments) < 0)
		die("out of memory");
	va_end(arguments);
	return line;
}

/* ------------------------------------------------------------------------------- running moat */

struct inject
scene_inject(const struct scene *scene)
{
	static char out[4096], err[4096];

	(void) snprintf(out, sizeof(out), "%s/out", scene->base);
	(void) snprintf(err, sizeof(err), "%s/err", scene->base);
	return (struct inject){
		.out = out,
		.err = err,
		.directory = scene->workspace,
		.environment = scene->environment,
		.timeout = TIMEOUT,
		.after = scene->home,
	};
}

static void
redirect(const struct scene *scene, const char *name, int target)
{
	char path[4096];
	int fd;

	(void) snprintf(path, sizeof(path), "%s/%s", scene->base, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || dup2(fd, target) < 0)
		_exit(125);
}

int
scene_moat(struct scene *scene, const char *const *argv, char *const *environment)
{
	int status, null;
	pid_t pid;

	(void) fflush(stdout);
	pid = fork();
	if (pid == 0) {
		redirect(scene, "out", STDOUT_FILENO);
		redirect(scene, "err", STDERR_FILENO);
		null = open("/dev/null", O_RDONLY | O_CLOEXEC);
		/* The alarm stays over the exec: what hangs is ended by it. */
		(void) alarm(TIMEOUT);
		if (null >= 0 && dup2(null, STDIN_FILENO) == 0 && chdir(scene->workspace) == 0)
			(void) execve(argv[0], (char *const *) (uintptr_t) argv,
				      environment ? environment : scene->environment);
		_exit(125);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		die("cannot run %s: %s", argv[0], strerror(errno));
	return status;
}

void
scene_output(const struct scene *scene, const char *which, char *ret, size_t room)
{
	char path[4096];
	size_t n = 0;
	FILE *file;

	(void) snprintf(path, sizeof(path), "%s/%s", scene->base, which);
	file = fopen(path, "r");
	if (file) {
		n = fread(ret, 1, room - 1, file);
		(void) fclose(file);
	}
	ret[n] = '\0';
}

void
scene_must(struct scene *scene, ...)
{
	const char *argv[SCENE_ARGUMENTS + 2] = {scene->program};
	char said[OUTPUT];
	va_list arguments;
	size_t count = 1;
	int status;

	va_start(arguments, scene);
	while (count < SCENE_ARGUMENTS + 1 && (argv[count] = va_arg(arguments, const char *)))
		count++;
	va_end(arguments);
	status = scene_moat(scene, argv, NULL);
	if (status == 0)
		return;
	scene_output(scene, "err", said, sizeof(said));
	die("moat %s %s, undisturbed: status %#x: %s", argv[1], argv[2] ? argv[2] : "", status,
	    said);
}

/* --------------------------------------------------------------------------------- setting up */

static void
add_environment(struct scene *scene, char *entry)
{
	if (scene->environment_count + 1 >= sizeof(scene->environment) / sizeof(char *))
		die("too many variables");
	scene->environment[scene->environment_count++] = entry;
}

static void
make_environment(struct scene *scene)
{
	const char *build = getenv("MOAT_BUILD"), *path = getenv("PATH"),
		   *plugins = getenv("FAULT_PLUGINS");

	if (!build)
		die("set MOAT_BUILD to the directory that moat was built in");
	scene->program = text("%s/core/moat", build);
	scene->script = text("%s/moat", build);
	add_environment(
		scene, plugins ? text("MOAT_PLUGIN_PATH=%s", plugins)
			       : text("MOAT_PLUGIN_PATH=%s/plugins/snapshot-archive/.libs", build));
	add_environment(scene, text("MOAT_HOME=%s", scene->home));
	add_environment(scene, text("HOME=%s/user", scene->base));
	add_environment(scene, text("PATH=%s", path ? path : "/usr/bin:/bin"));
	add_environment(scene, text("LC_ALL=C"));
	/* A leak check cannot work under a tracer. */
	add_environment(scene, text("ASAN_OPTIONS=detect_leaks=0"));
}

static void
make_directory(const char *path)
{
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		die("%s: %s", path, strerror(errno));
}

/* git's racy-clean rule takes nothing for unchanged that was written in the tick of a snapshot. */
static void
next_tick(void)
{
	struct timespec start, now;

	(void) clock_gettime(CLOCK_REALTIME_COARSE, &start);
	do
		(void) clock_gettime(CLOCK_REALTIME_COARSE, &now);
	while ((now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec < 20000000);
}

/* The id that the last command printed. */
static void
note_snapshot(struct scene *scene)
{
	char said[OUTPUT], *id;

	scene_output(scene, "out", said, sizeof(said));
	id = strstr(said, "snap_");
	if (!id || scene->snapshot_count == SCENE_SNAPSHOTS)
		die("snapshot create printed no id: %s", said);
	(void) snprintf(scene->snapshots[scene->snapshot_count++], sizeof(*scene->snapshots),
			"%.*s", (int) strcspn(id, "\n"), id);
}

/* A run that does nothing; false when there is no sandbox here. */
static bool
run(struct scene *scene)
{
	const char *argv[] = {scene->script, "run", "--no-trace", "--name",
			      "fault",       "--",  "true",       NULL};
	char *environment[16] = {0};

	/* With all plugins: the script finds them. */
	for (size_t i = 1; i < scene->environment_count; i++)
		environment[i - 1] = scene->environment[i];
	return scene_moat(scene, argv, environment) == 0;
}

static bool
set_up(struct scene *scene)
{
	for (const char *step = scene->command->setup; *step; step++) {
		next_tick();
		if (*step == 'e') {
			tree_edit(scene->workspace);
		} else if (*step == 'c') {
			scene_must(scene, "snapshot", "create", NULL);
			note_snapshot(scene);
		} else if (*step == 'b') {
			scene_must(scene, "snapshot", "restore", scene->snapshots[0], NULL);
		} else if (*step == 'r' && !run(scene)) {
			return false;
		}
	}
	next_tick();
	return true;
}

static bool
is_there(struct scene *scene)
{
	const char *argv[4] = {scene->program};
	char *words, said[OUTPUT], *space;
	bool there;

	if (!scene->command->needs)
		return true;
	words = text("%s", scene->command->needs);
	space = strchr(words, ' ');
	if (space)
		*space = '\0';
	argv[1] = words;
	argv[2] = "--help";
	there = scene_moat(scene, argv, NULL) == 0;
	scene_output(scene, "out", said, sizeof(said));
	there = there && strstr(said, scene->command->needs);
	free(words);
	return there;
}

static void
make_argv(struct scene *scene)
{
	size_t count = 0;

	scene->argv[count++] = scene->program;
	for (size_t i = 0; scene->command->arguments[i]; i++) {
		const char *argument = scene->command->arguments[i];

		scene->argv[count++] =
			argument[0] == '%' ? scene->snapshots[argument[1] - '1'] : argument;
	}
}

static void
take_picture(struct scene *scene, struct picture *ret)
{
	static const char *const without[] = {".moat-*", NULL};
	struct picture_options options = {.without = without, .open = true};

	if (picture_take(scene->workspace, &options, ret) < 0)
		die("%s: %s", scene->workspace, strerror(errno));
}

/* What the workspace must be afterwards, by other means than moat's. */
static void
expect_after(struct scene *scene)
{
	struct tree now;

	if (!scene->command->changes)
		return;
	tree_load(scene->workspace, &now);
	tree_empty(scene->workspace);
	tree_make_old(scene->workspace);
	if (strchr(scene->command->setup, 'b'))
		tree_edit(scene->workspace);
	picture_free(&scene->after);
	take_picture(scene, &scene->after);
	tree_write(&now, scene->workspace);
	tree_free(&now);
}

static void
undisturbed(struct scene *scene)
{
	struct picture now;
	int status;
	char said[OUTPUT];

	scene->old_lists[0] = scene_names(scene);
	if (scene->command->safety) {
		scene_must(scene, "snapshot", "create", NULL);
		scene->old_lists[1] = scene_names(scene);
		scene_reset(scene);
	}
	status = scene_moat(scene, scene->argv, NULL);
	scene_output(scene, "err", said, sizeof(said));
	if (status != 0)
		die("%s, undisturbed: status %#x: %s", scene->command->title, status, said);
	scene->new_list = scene_names(scene);
	if (scene->command->first) {
		scene_output(scene, "out", said, sizeof(said));
		said[strcspn(said, "\n")] = '\0';
		scene_must(scene, "snapshot", "delete", said, NULL);
		free(scene->old_lists[0]);
		scene->old_lists[0] = scene_names(scene);
	}
	take_picture(scene, &now);
	if (strcmp(now.text, scene->after.text) != 0)
		die("%s, undisturbed, makes another tree:\n--- expected\n%s--- found\n%s",
		    scene->command->title, scene->after.text, now.text);
	picture_free(&now);
	scene_reset(scene);
}

bool
scene_open(struct scene *scene, const struct scene_command *command,
	   const struct scene_place *place)
{
	*scene = (struct scene){.command = command, .place = *place};
	make_directory(place->workspace);
	make_directory(place->home);
	make_directory(place->files);
	scene->workspace = text("%s/workspace", place->workspace);
	scene->base = text("%s/scene", place->files);
	scene->home = text("%s/moat", place->home);
	make_directory(scene->workspace);
	make_directory(scene->base);
	make_directory(scene->home);
	make_environment(scene);
	tree_make_old(scene->workspace);
	scene_must(scene, "recover", NULL);
	if (!is_there(scene) || !set_up(scene))
		return false;
	make_argv(scene);
	take_picture(scene, &scene->before);
	take_picture(scene, &scene->after);
	expect_after(scene);
	tree_load(scene->workspace, &scene->workspace_tree);
	tree_load(scene->home, &scene->home_tree);
	scene->workspace_signature = tree_signature(scene->workspace);
	scene->home_signature = tree_signature(scene->home);
	undisturbed(scene);
	return true;
}

void
scene_reset(struct scene *scene)
{
	if (tree_signature(scene->home) != scene->home_signature) {
		tree_write(&scene->home_tree, scene->home);
		scene->home_signature = tree_signature(scene->home);
	}
	if (tree_signature(scene->workspace) != scene->workspace_signature) {
		tree_write(&scene->workspace_tree, scene->workspace);
		scene->workspace_signature = tree_signature(scene->workspace);
	}
}

bool
scene_is_untouched(const struct scene *scene)
{
	return tree_signature(scene->workspace) == scene->workspace_signature &&
	       tree_signature(scene->home) == scene->home_signature;
}

static void
remove_directory(char *path)
{
	if (!path)
		return;
	tree_empty(path);
	(void) rmdir(path);
	free(path);
}

void
scene_close(struct scene *scene)
{
	remove_directory(scene->workspace);
	remove_directory(scene->home);
	remove_directory(scene->base);
	(void) rmdir(scene->place.home);
	(void) rmdir(scene->place.files);
	(void) rmdir(scene->place.workspace);
	tree_free(&scene->workspace_tree);
	tree_free(&scene->home_tree);
	picture_free(&scene->before);
	picture_free(&scene->after);
	for (size_t i = 0; i < SCENE_LISTS; i++)
		free(scene->old_lists[i]);
	free(scene->new_list);
	for (size_t i = 0; i < scene->environment_count; i++)
		free(scene->environment[i]);
	free(scene->program);
	free(scene->script);
}
