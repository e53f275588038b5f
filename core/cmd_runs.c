/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that look at runs: list, status, logs. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "core/cmd.h"
#include "core/jsonl.h"
#include "core/log.h"
#include "core/run.h"
#include "core/snap.h"
#include "core/terminal.h"

/* Snapshots name their run; the other way round is found here. */
static int
attach_snapshots(const struct home *home, struct run **runs, size_t count, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list snaps = {0};

	if (count == 0)
		return 0;
	if (snap_list_all(home, &snaps, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		for (size_t j = snaps.count; j-- > 0;) /* oldest first */
			if (snaps.items[j]->run != NULL &&
			    strcmp(snaps.items[j]->run, runs[i]->id) == 0 &&
			    run_note_snapshot(runs[i], snaps.items[j]->id, err) < 0)
				return -1;
	return 0;
}

/* ------------------------------------------------------------------------------------------- list
 */

/* "exited 2", "killed by signal 9", "running". */
static const char *
state_text(char out[64], const struct run *run)
{
	if (run->signal > 0)
		snprintf(out, 64, "%s (signal %d)", run->state, run->signal);
	else if (run->exit_code >= 0)
		snprintf(out, 64, "%s (%d)", run->state, run->exit_code);
	else
		snprintf(out, 64, "%s", run->state);
	return out;
}

/* The words with blanks between them; long ones are cut. */
static int
command_text(const struct run *run, struct buf *text, struct moat_error *err)
{
	for (size_t i = 0; run->command[i] != NULL && text->size < 60; i++) {
		if (i > 0)
			buf_append(text, " ", 1);
		buf_string(text, run->command[i]);
	}
	if (buf_check(text, err) < 0)
		return -1;
	if (text->size > 60) {
		text->size = 57;
		text->data[57] = '\0';
		buf_string(text, "...");
	}
	return buf_check(text, err);
}

static int
list_table(struct app *app, struct run **runs, size_t count, struct moat_error *err)
{
	static const char *const headers[] = {"NAME",    "ID",        "STATE",   "AGE",
					      "RUNTIME", "WORKSPACE", "COMMAND", NULL};
	struct table *table = table_new(headers);
	int64_t now = time_now_ns();

	if (table == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		AUTO_BUF struct buf command = {0};
		char state[64], age[32];
		const char *cells[] = {
			runs[i]->name,
			runs[i]->id,
			state_text(state, runs[i]),
			text_age(age, runs[i]->created_ns, now),
			runs[i]->runtime == NULL ? "" : runs[i]->runtime,
			runs[i]->workspaces[0],
			NULL,
			NULL,
		};

		if (command_text(runs[i], &command, err) < 0) {
			table_free(table);
			return -1;
		}
		cells[6] = command.data == NULL ? "" : command.data;
		table_add(table, cells);
	}
	return table_print(table, app->color, err);
}

static int
list_json(struct run **runs, size_t count, struct moat_error *err)
{
	AUTO_JSON json_t *array = json_array();

	if (array == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		json_t *json = run_json(runs[i]);

		if (json == NULL || json_array_append_new(array, json) < 0)
			return moat_fail_memory(err);
	}
	return json_print(array, false, err);
}

int
cmd_list(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_RUN_LIST struct run_list list = {0};
	size_t count = 0;

	if (app_home(app, err) < 0 || run_list(app->home, &list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++) {
		struct run *run = list.items[i];

		if (!args_flag(args, "all") && !run_is_living(run))
			continue;
		list.items[i] = list.items[count];
		list.items[count++] = run;
	}
	if (attach_snapshots(app->home, list.items, count, err) < 0)
		return -1;
	if (app->json)
		return list_json(list.items, count, err);
	if (count > 0)
		return list_table(app, list.items, count, err);
	log_notice(list.count == 0 ? "no runs"
				   : "no run is going on; `moat list -a' shows those that ended");
	return 0;
}

/* ----------------------------------------------------------------------------------------- status
 */

static void
field(const char *name, const char *value)
{
	if (value == NULL || value[0] == '\0')
		return;
	out("%-11s ", name);
	out_escaped(value);
	out("\n");
}

static void
field_time(const char *name, int64_t time_ns)
{
	char text[40];

	if (time_ns != 0)
		field(name, text_time(text, time_ns));
}

static void
field_list(const char *name, char *const *list)
{
	if (list == NULL || list[0] == NULL)
		return;
	out("%-11s", name);
	for (; *list != NULL; list++) {
		out(" ");
		out_escaped(*list);
	}
	out("\n");
}

int
cmd_status(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_RUN struct run *run = NULL;
	AUTO_JSON json_t *json = NULL;
	char state[64];

	if (app_home(app, err) < 0 || run_find(app->home, args_at(args, 0), &run, err) < 0 ||
	    attach_snapshots(app->home, &run, 1, err) < 0)
		return -1;
	if (app->json) {
		json = run_json(run);
		return json == NULL ? moat_fail_memory(err) : json_print(json, false, err);
	}
	field("id", run->id);
	field("name", run->name);
	field("state", state_text(state, run));
	field("error", run->error);
	field("runtime", run->runtime);
	field("sandbox", run->sandbox);
	field_list("workspaces", run->workspaces);
	field_list("command", run->command);
	field_time("created", run->created_ns);
	field_time("started", run->started_ns);
	field_time("finished", run->finished_ns);
	field("traced", run->traced ? "yes" : "no");
	field_list("snapshots", run->snapshots);
	return 0;
}

/* ------------------------------------------------------------------------------------------- logs
 */

struct log_view {
	struct app *app;
	const char *run;
	const char *stream; /* only this one; NULL: both */
	int64_t since_ns;
	int64_t lines; /* the last so many; -1: all */
	bool follow, terminal;
	json_t **kept; /* the last `lines` records, as a ring */
	size_t kept_count, kept_at;
	json_t *array; /* --json without --follow */
};

static bool
still_running(void *context)
{
	const struct log_view *view = context;
	AUTO_RUN struct run *run = NULL;

	return run_load(view->app->home, view->run, &run, NULL) == 0 && run_is_living(run);
}

static int
parse_since(const char *text, int64_t *ret, struct moat_error *err)
{
	AUTO_JSON json_t *json = json_object();
	int64_t ms;

	if (text == NULL)
		return 0;
	if (text_parse_duration(text, &ms, NULL) == 0) {
		*ret = time_now_ns() - ms * 1000000;
		return 0;
	}
	if (json == NULL || json_put_text(json, "time", text) < 0)
		return moat_fail_memory(err);
	*ret = json_get_time(json, "time");
	if (*ret != 0)
		return 0;
	return moat_fail(err, MOAT_USAGE,
			 "--since `%s': give a duration such as 10m, or a time such as "
			 "2026-01-31T12:00:00Z",
			 text);
}

/* To a terminal a stranger's bytes go escaped, but for tabs; elsewhere as they are. */
static void
print_line(const struct log_view *view, const char *line, size_t size, const char *end)
{
	if (!view->terminal) {
		out_bytes(line, size);
		out("%s", end);
		return;
	}
	for (size_t i = 0; i < size;) {
		const char *tab = memchr(line + i, '\t', size - i);
		size_t n = tab == NULL ? size - i : (size_t) (tab - (line + i));

		out_escaped_bytes(line + i, n);
		if (tab != NULL)
			out("\t");
		i += n + (tab != NULL);
	}
	out("%s", end);
}

static int
show_record(struct log_view *view, const json_t *record, struct moat_error *err)
{
	AUTO_FREE char *line = NULL;
	size_t size = 0;

	if (view->array != NULL)
		return json_array_append(view->array, (json_t *) record) < 0 ? moat_fail_memory(err)
									     : 0;
	if (view->app->json) {
		if (json_print(record, true, err) < 0)
			return -1;
	} else {
		line = json_get_bytes(record, "line", &size);
		print_line(view, line == NULL ? "" : line, size,
			   json_get_bool(record, "continued", false) ? "" : "\n");
	}
	return view->follow ? stdout_check(err) : 0;
}

static bool
is_wanted(const struct log_view *view, const json_t *record)
{
	return (view->stream == NULL ||
		strcmp(json_get_text(record, "stream", ""), view->stream) == 0) &&
	       (view->since_ns == 0 || json_get_time(record, "ts") >= view->since_ns);
}

/* Into the ring; what falls out of it is not shown. */
static void
keep(struct log_view *view, json_t *record)
{
	size_t slot = (view->kept_at + view->kept_count) % (size_t) view->lines;

	if (view->kept_count == (size_t) view->lines) {
		json_decref(view->kept[view->kept_at]);
		view->kept_at = (view->kept_at + 1) % (size_t) view->lines;
		view->kept_count--;
	}
	view->kept[slot] = json_incref(record);
	view->kept_count++;
}

static int
show_kept(struct log_view *view, struct moat_error *err)
{
	int result = 0;

	for (size_t i = 0; i < view->kept_count; i++) {
		json_t *record = view->kept[(view->kept_at + i) % (size_t) view->lines];

		if (result == 0)
			result = show_record(view, record, err);
		json_decref(record);
	}
	view->kept_count = 0;
	view->lines = -1;
	return result;
}

static int
read_log(struct log_view *view, struct jsonl *lines, struct moat_error *err)
{
	for (;;) {
		AUTO_JSON json_t *record = NULL;
		int result = jsonl_next(lines, view->lines < 0, &record, NULL, err);

		if (result < 0)
			return -1;
		if (result == 0 && view->lines >= 0) { /* All that there was so far. */
			if (show_kept(view, err) < 0)
				return -1;
			if (view->follow)
				continue;
		}
		if (result == 0)
			return 0;
		if (!is_wanted(view, record))
			continue;
		if (view->lines > 0)
			keep(view, record);
		else if (view->lines < 0 && show_record(view, record, err) < 0)
			return -1;
	}
}

static int
show_log(struct log_view *view, int dir_fd, struct moat_error *err)
{
	struct jsonl_options options = {
		.file = "log.jsonl",
		.member = "stream",
		.missing = "the run has no log",
		.follow = view->follow,
		.still_running = still_running,
		.context = view,
	};
	CLEANUP(jsonl_close) struct jsonl lines = JSONL_CLOSED;
	int result;

	if (view->lines > 0) {
		view->kept = calloc((size_t) view->lines, sizeof(*view->kept));
		if (view->kept == NULL)
			return moat_fail_memory(err);
	}
	result = jsonl_open(&lines, dir_fd, &options, err);
	if (result == 0)
		result = read_log(view, &lines, err);
	free(view->kept);
	if (result == 0 && lines.damaged > 0)
		log_warning("%llu lines of the log are damaged and were left out",
			    (unsigned long long) lines.damaged);
	return result;
}

int
cmd_logs(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_RUN struct run *run = NULL;
	AUTO_CLOSE int dir_fd = -1;
	AUTO_JSON json_t *array = NULL;
	struct log_view view = {
		.app = app,
		.stream = args_value(args, "stream"),
		.lines = -1,
		.follow = args_flag(args, "follow"),
		.terminal = isatty(STDOUT_FILENO) == 1,
	};

	if (args_value(args, "lines") != NULL &&
	    text_parse_int(args_value(args, "lines"), 0, 100000000, &view.lines, err) < 0)
		return moat_wrap(err, "--lines");
	if (parse_since(args_value(args, "since"), &view.since_ns, err) < 0 ||
	    app_home(app, err) < 0 || run_find(app->home, args_at(args, 0), &run, err) < 0)
		return -1;
	view.run = run->id;
	dir_fd = run_directory(app->home, run->id, err);
	if (dir_fd < 0)
		return -1;
	if (app->json && !view.follow) {
		array = json_array();
		if (array == NULL)
			return moat_fail_memory(err);
		view.array = array;
	}
	if (show_log(&view, dir_fd, err) < 0)
		return moat_wrap(err, "log of %s", run->id);
	return array == NULL ? 0 : json_print(array, false, err);
}
