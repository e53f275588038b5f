/* SPDX-License-Identifier: Apache-2.0 */
/* The records of runs.  Whoever looks after a run holds the lock runs/RUN/lock; a record of a
 * living run whose lock is free is that of a lost one. */
#include "core/run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/log.h"

static const char *const states[] = {"created", "starting", "running", "stopping",
				     "exited",  "failed",   "lost",    NULL};

static void
free_list(char **list)
{
	for (size_t i = 0; list != NULL && list[i] != NULL; i++)
		free(list[i]);
	free(list);
}

void
run_free(struct run *run)
{
	if (run == NULL)
		return;
	free(run->name);
	free(run->runtime);
	free(run->sandbox);
	free_list(run->workspaces);
	free_list(run->command);
	free_list(run->snapshots);
	free(run->handle);
	free(run->error);
	free(run);
}

void
cleanup_run(struct run **run)
{
	run_free(*run);
	*run = NULL;
}

void
run_list_free(struct run_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		run_free(list->items[i]);
	free(list->items);
	*list = (struct run_list){0};
}

static char **
copy_list(const char *const *list)
{
	size_t n = 0;
	char **copy;

	while (list[n] != NULL)
		n++;
	copy = calloc(n + 1, sizeof(*copy));
	for (size_t i = 0; copy != NULL && i < n; i++) {
		copy[i] = strdup(list[i]);
		if (copy[i] == NULL) {
			free_list(copy);
			return NULL;
		}
	}
	return copy;
}

bool
run_is_living(const struct run *run)
{
	return strcmp(run->state, "created") == 0 || strcmp(run->state, "starting") == 0 ||
	       strcmp(run->state, "running") == 0 || strcmp(run->state, "stopping") == 0;
}

/* ---------------------------------------------------------------------------------------- record
 */

json_t *
run_json(const struct run *run)
{
	AUTO_JSON json_t *json = json_object();

	if (json == NULL || json_put_text(json, "id", run->id) < 0 ||
	    json_put_text(json, "name", run->name) < 0 ||
	    json_put_text(json, "state", run->state) < 0 ||
	    json_put_text(json, "runtime", run->runtime) < 0 ||
	    json_put_text(json, "sandbox", run->sandbox) < 0 ||
	    json_put_list(json, "workspaces", (const char *const *) run->workspaces) < 0 ||
	    json_put_list(json, "command", (const char *const *) run->command) < 0 ||
	    json_put_time(json, "created_at", run->created_ns) < 0 ||
	    json_put_time(json, "started_at", run->started_ns) < 0 ||
	    json_put_time(json, "finished_at", run->finished_ns) < 0 ||
	    (run->exit_code < 0 ? json_put_null(json, "exit_code")
				: json_put_int(json, "exit_code", run->exit_code)) < 0 ||
	    (run->signal == 0 ? json_put_null(json, "signal")
			      : json_put_int(json, "signal", run->signal)) < 0 ||
	    json_put_bool(json, "interactive", run->interactive) < 0 ||
	    json_put_bool(json, "traced", run->traced) < 0 ||
	    json_put_list(json, "snapshots", (const char *const *) run->snapshots) < 0 ||
	    json_put_null(json, "pending_changes") < 0 ||
	    json_put_text(json, "error", run->error) < 0)
		return NULL;
	return STEAL(json);
}

static char *
get_copy(const json_t *json, const char *key)
{
	const char *text = json_get_text(json, key, NULL);

	return text == NULL ? NULL : strdup(text);
}

static const char *
known_state(const char *text)
{
	for (size_t i = 0; states[i] != NULL; i++)
		if (strcmp(states[i], text) == 0)
			return states[i];
	return "lost";
}

static int
run_parse(const json_t *json, const char *id, struct run **ret, struct moat_error *err)
{
	AUTO_RUN struct run *run = calloc(1, sizeof *run);

	if (run == NULL)
		return moat_fail_memory(err);
	snprintf(run->id, sizeof run->id, "%s", id);
	run->name = get_copy(json, "name");
	run->state = known_state(json_get_text(json, "state", ""));
	run->runtime = get_copy(json, "runtime");
	run->sandbox = get_copy(json, "sandbox");
	run->workspaces = json_get_list(json, "workspaces");
	run->command = json_get_list(json, "command");
	run->created_ns = json_get_time(json, "created_at");
	run->started_ns = json_get_time(json, "started_at");
	run->finished_ns = json_get_time(json, "finished_at");
	run->exit_code = (int) json_get_int(json, "exit_code", -1);
	run->signal = (int) json_get_int(json, "signal", 0);
	run->interactive = json_get_bool(json, "interactive", false);
	run->traced = json_get_bool(json, "traced", false);
	run->handle = get_copy(json, "handle");
	run->error = json_get_bytes(json, "error", NULL);
	if (run->name == NULL || run->workspaces == NULL || run->workspaces[0] == NULL ||
	    run->command == NULL)
		return moat_fail(err, MOAT_CORRUPT, "the record of run %s is incomplete", id);
	*ret = STEAL(run);
	return 0;
}

int
run_directory(const struct home *home, const char *id, struct moat_error *err)
{
	int fd = fs_open_directory(home->runs_fd, id, false, err);

	return fd < 0 ? moat_wrap(err, "run %s", id) : fd;
}

int
run_save(const struct home *home, const struct run *run, struct moat_error *err)
{
	AUTO_CLOSE int fd = run_directory(home, run->id, err);
	AUTO_JSON json_t *json = run_json(run);

	if (fd < 0)
		return -1;
	if (json == NULL || json_put_text(json, "handle", run->handle) < 0)
		return moat_fail_memory(err);
	return json_write(fd, "run.json", json, err);
}

/* True when no process holds the run's lock. */
static bool
is_unattended(int run_fd)
{
	AUTO_CLOSE int fd = openat(run_fd, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (fd < 0)
		return errno == ENOENT;
	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

int
run_load(const struct home *home, const char *id, struct run **ret, struct moat_error *err)
{
	AUTO_CLOSE int fd = run_directory(home, id, err);
	AUTO_JSON json_t *json = NULL;
	bool unattended;

	if (fd < 0)
		return -1;
	/* The lock first: whoever lets go of it has written the end of the run before. */
	unattended = is_unattended(fd);
	if (json_read(fd, "run.json", "record of a run", &json, err) < 0 ||
	    run_parse(json, id, ret, err) < 0)
		return moat_wrap(err, "run %s", id);
	if (unattended && run_is_living(*ret)) {
		(*ret)->orphaned = true;
		(*ret)->state = "lost";
	}
	return 0;
}

/* ------------------------------------------------------------------------------------------ lists
 */

static int
newest_first(const void *a, const void *b)
{
	const struct run *left = *(struct run *const *) a, *right = *(struct run *const *) b;

	if (left->created_ns != right->created_ns)
		return left->created_ns < right->created_ns ? 1 : -1;
	return strcmp(left->id, right->id);
}

int
run_list(const struct home *home, struct run_list *ret, struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(home->runs_fd, "", err);
	AUTO_RUN_LIST struct run_list list = {0};
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return moat_wrap(err, "the runs in `%s'", home->path);
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		struct moat_error local = MOAT_ERROR_INIT;
		struct run *run = NULL, **more;

		if (strncmp(entry->d_name, "run_", 4) != 0 || strlen(entry->d_name) > 30)
			continue;
		if (run_load(home, entry->d_name, &run, &local) < 0) {
			if (local.code != MOAT_NOT_FOUND)
				log_warning("%s", local.message);
			continue;
		}
		more = reallocarray(list.items, list.count + 1, sizeof(*more));
		if (more == NULL) {
			run_free(run);
			return moat_fail_memory(err);
		}
		list.items = more;
		list.items[list.count++] = run;
	}
	if (next < 0)
		return moat_wrap(err, "the runs in `%s'", home->path);
	if (list.count > 0)
		qsort(list.items, list.count, sizeof(*list.items), newest_first);
	*ret = list;
	list = (struct run_list){0};
	return 0;
}

static int
ambiguous(const char *text, const struct run *a, const struct run *b, struct moat_error *err)
{
	return moat_fail(err, MOAT_USAGE,
			 "`%s' means several runs, %s and %s among them; give an id", text, a->id,
			 b->id);
}

/* The unique one that matches: by name among the living, then by name, then by the beginning of the
 * id. */
static int
match(const struct run_list *list, const char *text, struct run ***ret, struct moat_error *err)
{
	for (int round = 0; round < 3; round++) {
		struct run **found = NULL;

		for (size_t i = 0; i < list->count; i++) {
			struct run *run = list->items[i];

			if (round < 2 ? strcmp(run->name, text) != 0 ||
						(round == 0 && !run_is_living(run))
				      : strncmp(run->id, text, strlen(text)) != 0)
				continue;
			if (found != NULL)
				return ambiguous(text, *found, run, err);
			found = &list->items[i];
		}
		if (found != NULL) {
			*ret = found;
			return 0;
		}
	}
	return moat_fail(err, MOAT_NOT_FOUND, "there is no run `%s'; `moat list -a' shows all runs",
			 text);
}

int
run_find(const struct home *home, const char *text, struct run **ret, struct moat_error *err)
{
	AUTO_RUN_LIST struct run_list list = {0};
	struct run **found = NULL;

	if (text[0] == '\0')
		return moat_fail(err, MOAT_USAGE, "the name of a run is empty");
	if (run_list(home, &list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++)
		if (strcmp(list.items[i]->id, text) == 0) {
			*ret = STEAL(list.items[i]);
			return 0;
		}
	if (match(&list, text, &found, err) < 0)
		return -1;
	*ret = STEAL(*found);
	return 0;
}

/* ----------------------------------------------------------------------------------------- making
 */

static const struct run *
living_with_name(const struct run_list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (run_is_living(list->items[i]) && strcmp(list->items[i]->name, name) == 0)
			return list->items[i];
	return NULL;
}

/* The workspace's last component, as a name; with a number when a living run has it. */
static char *
make_name(const struct run_list *list, const char *path)
{
	const char *base = strrchr(path, '/');
	char name[160];
	size_t n = 0;

	for (base = base == NULL ? path : base + 1; *base != '\0' && n < 100; base++) {
		bool alnum = (*base >= 'a' && *base <= 'z') || (*base >= 'A' && *base <= 'Z') ||
			     (*base >= '0' && *base <= '9');

		if (alnum || (n > 0 && strchr("._-", *base) != NULL))
			name[n++] = *base;
	}
	name[n] = '\0';
	if (n == 0)
		n = (size_t) snprintf(name, sizeof name, "run");
	for (unsigned number = 2; living_with_name(list, name) != NULL; number++)
		snprintf(name + n, sizeof name - n, "-%u", number);
	return strdup(name);
}

static int
choose_name(const struct run_list *list, const char *name, const char *path, char **ret,
	    struct moat_error *err)
{
	const struct run *other;

	if (name == NULL) {
		*ret = make_name(list, path);
	} else {
		other = living_with_name(list, name);
		if (other != NULL)
			return moat_fail(
				err, MOAT_EXISTS,
				"run %s, which still runs, is called `%s'; give another name",
				other->id, name);
		*ret = strdup(name);
	}
	return *ret == NULL ? moat_fail_memory(err) : 0;
}

static void
warn_of_others(const struct run_list *list, const char *path)
{
	for (size_t i = 0; i < list->count; i++)
		if (run_is_living(list->items[i]) &&
		    strcmp(list->items[i]->workspaces[0], path) == 0)
			log_warning("%s (%s) runs in the same workspace; what the two change is "
				    "not told "
				    "apart",
				    list->items[i]->name, list->items[i]->id);
}

int
run_create(const struct home *home, const char *name, const char *wish,
	   const struct workspace *workspace, const char *const *command, struct run **ret,
	   int *ret_lock_fd, struct moat_error *err)
{
	/* The gate makes looking for a free name and taking it one step. */
	AUTO_CLOSE int gate = fs_lock(home->runs_fd, ".lock", true, true, err);
	AUTO_CLOSE int fd = -1, lock_fd = -1;
	AUTO_RUN_LIST struct run_list list = {0};
	AUTO_RUN struct run *run = calloc(1, sizeof *run);
	const char *const paths[] = {workspace->path, NULL};

	if (gate < 0 || run_list(home, &list, err) < 0)
		return -1;
	if (run == NULL)
		return moat_fail_memory(err);
	if (choose_name(&list, name, wish == NULL ? workspace->path : wish, &run->name, err) < 0 ||
	    text_random_id(run->id, "run", err) < 0)
		return -1;
	run->state = "created";
	run->exit_code = -1;
	run->created_ns = time_now_ns();
	run->workspaces = copy_list(paths);
	run->command = copy_list(command);
	if (run->workspaces == NULL || run->command == NULL)
		return moat_fail_memory(err);
	fd = fs_open_directory(home->runs_fd, run->id, true, err);
	lock_fd = fd < 0 ? -1 : fs_lock(fd, "lock", true, false, err);
	if (lock_fd < 0 || run_save(home, run, err) < 0) {
		(void) fs_remove_tree(home->runs_fd, run->id,
				      NULL); /* the first error is the one to tell */
		return -1;
	}
	warn_of_others(&list, workspace->path);
	*ret_lock_fd = steal_fd(&lock_fd);
	*ret = STEAL(run);
	return 0;
}

int
run_remove(const struct home *home, const char *id, struct moat_error *err)
{
	return fs_remove_tree(home->runs_fd, id, err);
}

int
run_note_snapshot(struct run *run, const char *snap, struct moat_error *err)
{
	size_t n = 0;
	char **more;

	while (run->snapshots != NULL && run->snapshots[n] != NULL)
		n++;
	more = reallocarray(run->snapshots, n + 2, sizeof(*more));
	if (more == NULL)
		return moat_fail_memory(err);
	run->snapshots = more;
	more[n] = strdup(snap);
	more[n + 1] = NULL;
	return more[n] == NULL ? moat_fail_memory(err) : 0;
}
