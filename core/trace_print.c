/* SPDX-License-Identifier: Apache-2.0 */
/* The record of what a run executed, for people and for scripts.
 *
 * Rows are execs, each joined with the exit of its process, or with the exec that replaced it. */
#include <inttypes.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/cleanup.h"
#include "common/text.h"
#include "core/json.h"
#include "core/jsonl.h"
#include "core/log.h"
#include "core/terminal.h"
#include "core/trace.h"

#define MAX_INDENT 30

enum row_state { ROW_RUNNING, ROW_REPLACED, ROW_EXITED, ROW_SIGNALLED, ROW_LOSS };

struct row {
	struct row *next;                  /* in the order of the record */
	struct row *next_of_node;          /* the next exec of the same process */
	int64_t time_ns, pid, duration_ns; /* duration -1: not known */
	enum row_state state;
	int code;      /* exit code or signal; -1: not known */
	char *command; /* escaped and quoted */
};

/* A process. One that only forked has no rows, and still ties its children to its parent. */
struct node {
	int64_t pid;
	struct node *parent, *first_child, *last_child, *next_sibling;
	struct row *first_row, *last_row;
	struct node *next; /* of all */
};

struct trace {
	struct row *first, **last;
	struct node *nodes; /* all; freed at the end */
	void *living;       /* tsearch(3) tree of the node that has a pid now */
	struct node top;    /* parent of all that have no known parent */
	uint64_t lost;
	bool lost_unknown, failed; /* failed: no memory */
};

/* --------------------------------------------------------------------------------- commands */

static bool
is_plain(const char *word)
{
	static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				   "0123456789_@%+=:,./-";

	return *word != '\0' && word[strspn(word, safe)] == '\0';
}

/* As a shell would read it, and harmless on a terminal: what needs escapes stands in $'...'. */
static void
append_word(struct buf *out, const char *word)
{
	AUTO_BUF struct buf escaped = {0};
	bool same;

	if (is_plain(word)) {
		buf_string(out, word);
		return;
	}
	text_escape(&escaped, word, strlen(word));
	out->failed |= escaped.failed;
	same = escaped.data == NULL || strcmp(escaped.data, word) == 0;
	buf_string(out, same ? "'" : "$'");
	for (const char *at = escaped.data == NULL ? "" : escaped.data; *at != '\0'; at++) {
		if (*at == '\'')
			buf_string(out, same ? "'\\''" : "\\'");
		else
			buf_append(out, at, 1);
	}
	buf_string(out, "'");
}

/* One string of an array, as bytes: those of the array KEY_base64 when there is one. */
static char *
word_at(const json_t *argv, const json_t *encoded, size_t index)
{
	AUTO_JSON json_t *pair = json_object();
	json_t *word = json_array_get(argv, index), *bytes = json_array_get(encoded, index);

	if (pair == NULL || !json_is_string(word) || json_object_set(pair, "word", word) < 0 ||
	    (bytes != NULL && json_object_set(pair, "word_base64", bytes) < 0))
		return NULL;
	return json_get_bytes(pair, "word", NULL);
}

static char *
command_text(const json_t *record)
{
	const json_t *argv = json_object_get(record, "argv");
	const json_t *encoded = json_object_get(record, "argv_base64");
	AUTO_FREE char *exe = json_get_bytes(record, "exe", NULL);
	AUTO_BUF struct buf text = {0};

	for (size_t i = 0; i < json_array_size(argv); i++) {
		AUTO_FREE char *word = word_at(argv, encoded, i);

		if (i > 0)
			buf_string(&text, " ");
		append_word(&text, word == NULL ? "" : word);
	}
	if (json_is_array(argv)) {
		if (!json_get_bool(record, "argv_complete", false))
			buf_string(&text, " ...");
		return buf_steal(&text);
	}
	if (exe != NULL) {
		append_word(&text, exe);
		buf_string(&text, " ");
	}
	buf_string(&text, "(arguments not known)");
	return buf_steal(&text);
}

/* ------------------------------------------------------------------------------------ model */

static int
compare_nodes(const void *a, const void *b)
{
	int64_t x = ((const struct node *) a)->pid, y = ((const struct node *) b)->pid;

	return (x > y) - (x < y);
}

static struct node *
find_node(struct trace *trace, int64_t pid)
{
	struct node key = {.pid = pid};
	struct node **found = tfind(&key, &trace->living, compare_nodes);

	return found == NULL ? NULL : *found;
}

static void
set_parent(struct node *node, struct node *parent)
{
	node->parent = parent;
	node->next_sibling = NULL;
	if (parent->last_child != NULL)
		parent->last_child->next_sibling = node;
	else
		parent->first_child = node;
	parent->last_child = node;
}

static void
unset_parent(struct node *node)
{
	struct node **link = &node->parent->first_child, *previous = NULL;

	while (*link != node) {
		previous = *link;
		link = &(*link)->next_sibling;
	}
	*link = node->next_sibling;
	if (node->parent->last_child == node)
		node->parent->last_child = previous;
}

/* NULL: no memory. */
static struct node *
add_node(struct trace *trace, int64_t pid, struct node *parent)
{
	struct node *node = calloc(1, sizeof *node);
	struct node **found;

	if (node == NULL)
		return NULL;
	node->pid = pid;
	node->next = trace->nodes;
	trace->nodes = node;
	set_parent(node, parent);
	found = tsearch(node, &trace->living, compare_nodes);
	if (found == NULL)
		return NULL;
	*found = node; /* a former process of this pid gives way */
	return node;
}

/* The process of a record, made when it is new.  Its parent may have shown nothing yet: it is made,
 * too, and finds its own place with its own record. */
static struct node *
node_of(struct trace *trace, const json_t *record)
{
	int64_t pid = json_get_int(record, "pid", 0), ppid = json_get_int(record, "ppid", 0);
	struct node *node = find_node(trace, pid), *parent = &trace->top;

	if (node != NULL && (node->parent == &trace->top || node->parent->pid == ppid))
		return node;
	if (ppid > 0 && ppid != pid) {
		parent = find_node(trace, ppid);
		if (parent == NULL)
			parent = add_node(trace, ppid, &trace->top);
		if (parent == NULL)
			return NULL;
	}
	return add_node(trace, pid, parent);
}

/* A process that was only known as a parent until its own record named its parent. */
static void
place_node(struct trace *trace, struct node *node, int64_t ppid)
{
	struct node *parent = find_node(trace, ppid);

	if (node->parent != &trace->top || parent == NULL)
		return;
	for (struct node *at = parent; at != NULL; at = at->parent)
		if (at == node)
			return; /* only in a damaged file: nothing descends from itself */
	unset_parent(node);
	set_parent(node, parent);
}

static struct row *
add_row(struct trace *trace, const json_t *record, char *command)
{
	struct row *row = calloc(1, sizeof *row);

	if (row == NULL || command == NULL) {
		free(row);
		free(command);
		trace->failed = true;
		return NULL;
	}
	row->time_ns = json_get_time(record, "ts");
	row->pid = json_get_int(record, "pid", 0);
	row->duration_ns = -1;
	row->command = command;
	*trace->last = row;
	trace->last = &row->next;
	return row;
}

static struct row *
add_exec(struct trace *trace, const json_t *record)
{
	struct node *node = node_of(trace, record);
	struct row *row = add_row(trace, record, command_text(record));

	if (node == NULL || row == NULL) {
		trace->failed = true;
		return NULL;
	}
	place_node(trace, node, json_get_int(record, "ppid", 0));
	if (node->last_row == NULL) {
		node->first_row = row;
	} else {
		node->last_row->state = ROW_REPLACED;
		node->last_row->duration_ns = row->time_ns - node->last_row->time_ns;
		node->last_row->next_of_node = row;
	}
	node->last_row = row;
	return row;
}

/* The row that ends here; NULL: the process executed nothing. */
static struct row *
add_exit(struct trace *trace, const json_t *record)
{
	struct node *node = node_of(trace, record);
	struct row *row;

	if (node == NULL) {
		trace->failed = true;
		return NULL;
	}
	place_node(trace, node, json_get_int(record, "ppid", 0));
	tdelete(node, &trace->living, compare_nodes);
	row = node->last_row;
	if (row == NULL)
		return NULL;
	row->duration_ns = json_get_int(record, "duration_ns", -1);
	row->code = (int) json_get_int(record, "exit_code", -1);
	row->state = ROW_EXITED;
	if (row->code < 0) {
		row->state = ROW_SIGNALLED;
		row->code = (int) json_get_int(record, "signal", -1);
	}
	return row;
}

static struct row *
add_loss(struct trace *trace, const json_t *record)
{
	int64_t lost = json_get_int(record, "lost", 0), since = json_get_time(record, "since");
	AUTO_BUF struct buf text = {0};
	struct row *row;

	if (lost > 0)
		buf_format(&text, "%" PRId64 " events lost", lost);
	else
		buf_string(&text, "an unknown number of events lost");
	trace->lost += lost > 0 ? (uint64_t) lost : 0;
	trace->lost_unknown |= lost <= 0;
	row = add_row(trace, record, buf_steal(&text));
	if (row == NULL)
		return NULL;
	row->state = ROW_LOSS;
	if (since != 0 && since <= row->time_ns)
		row->duration_ns = row->time_ns - since;
	return row;
}

/* The row that the record begins or ends, or NULL. */
static struct row *
add_record(struct trace *trace, const json_t *record)
{
	const char *kind = json_get_text(record, "kind", "");

	if (strcmp(kind, "exec") == 0)
		return add_exec(trace, record);
	if (strcmp(kind, "exit") == 0)
		return add_exit(trace, record);
	if (strcmp(kind, "loss") == 0)
		return add_loss(trace, record);
	return NULL; /* of a newer version */
}

static void
keep_node(void *node)
{
}

static void
trace_free(struct trace *trace)
{
	tdestroy(trace->living, keep_node);
	for (struct row *row = trace->first, *next; row != NULL; row = next) {
		next = row->next;
		free(row->command);
		free(row);
	}
	for (struct node *node = trace->nodes, *next; node != NULL; node = next) {
		next = node->next;
		free(node);
	}
}

/* --------------------------------------------------------------------------------- printing */

/* 0: not a terminal, nothing is cut. */
static size_t
terminal_columns(void)
{
	struct winsize size;

	if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
		return 0;
	return size.ws_col;
}

/* Cuts valid UTF-8 to a number of columns.  Characters from U+1100 on are taken for two wide: a row
 * is then too short rather than wrapped. */
static void
cut(char *text, size_t columns)
{
	size_t width = 0;

	for (char *at = text; *at != '\0'; at++) {
		unsigned char c = (unsigned char) *at;

		if ((c & 0xc0) == 0x80)
			continue;
		width += c >= 0xe1 ? 2 : 1;
		if (width > columns) {
			*at = '\0';
			return;
		}
	}
}

static const char *
status_text(char text[32], const struct row *row)
{
	switch (row->state) {
	case ROW_RUNNING:
		return "running";
	case ROW_REPLACED:
		return "exec";
	case ROW_EXITED:
		(void) snprintf(text, 32, "exit %d", row->code);
		return text;
	case ROW_SIGNALLED:
		(void) snprintf(text, 32, "signal %d", row->code);
		return row->code > 0 ? text : "ended";
	default:
		return "LOST";
	}
}

static enum color
row_color(const struct row *row)
{
	if (row->state == ROW_LOSS)
		return COLOR_YELLOW;
	if (row->state == ROW_SIGNALLED || (row->state == ROW_EXITED && row->code != 0))
		return COLOR_RED;
	return COLOR_NONE;
}

/* `time_ns`: that of the row, or, when an exit is followed, of the exit. */
static void
print_row(const struct row *row, int64_t time_ns, unsigned depth, const struct trace_view *view)
{
	static const char *const on[] = {[COLOR_RED] = "\033[31m", [COLOR_YELLOW] = "\033[33m"};
	AUTO_BUF struct buf line = {0};
	char time[40], pid[24] = "", duration[32] = "", status[32];
	enum color color = view->color ? row_color(row) : COLOR_NONE;
	size_t columns = terminal_columns();

	(void) text_time(time, time_ns);
	if (row->pid > 0)
		(void) snprintf(pid, sizeof pid, "%" PRId64, row->pid);
	if (row->duration_ns >= 0)
		(void) text_duration(duration, row->duration_ns);
	/* The time of day, to the millisecond: 10:11:12.123 */
	buf_format(&line, "%-12.12s  %8s  %8s  %-9s  %*s", strlen(time) > 11 ? time + 11 : time,
		   pid, duration, status_text(status, row),
		   (int) (2 * (depth < MAX_INDENT ? depth : MAX_INDENT)), "");
	buf_string(&line, row->command);
	if (buf_check(&line, NULL) < 0)
		return; /* shown as a failure by the caller, who will not get memory either */
	if (columns > 0)
		cut(line.data, columns);
	out("%s%s%s\n", color == COLOR_NONE ? "" : on[color], line.data,
	    color == COLOR_NONE ? "" : "\033[0m");
}

static void
print_header(void)
{
	out("%-12s  %8s  %8s  %-9s  %s\n", "TIME", "PID", "DURATION", "STATUS", "COMMAND");
}

/* The next in depth-first order, without recursion: a run can nest as deep as it likes. */
static const struct node *
next_node(const struct node *node, unsigned *depth)
{
	if (node->first_child != NULL) {
		*depth += node->first_row != NULL;
		return node->first_child;
	}
	while (node != NULL && node->next_sibling == NULL) {
		node = node->parent;
		*depth -= node != NULL && node->first_row != NULL;
	}
	return node == NULL ? NULL : node->next_sibling;
}

static void
print_tree(const struct trace *trace, const struct trace_view *view)
{
	unsigned depth = 0;

	for (const struct node *node = &trace->top; node != NULL; node = next_node(node, &depth))
		for (const struct row *row = node->first_row; row != NULL; row = row->next_of_node)
			print_row(row, row->time_ns, depth, view);
	for (const struct row *row = trace->first; row != NULL; row = row->next)
		if (row->state == ROW_LOSS)
			print_row(row, row->time_ns, 0, view);
}

static void
print_rows(const struct trace *trace, const struct trace_view *view)
{
	for (const struct row *row = trace->first; row != NULL; row = row->next)
		print_row(row, row->time_ns, 0, view);
}

/* What is missing is said where it cannot be overlooked. */
static void
warn(const struct trace *trace, const struct jsonl *lines)
{
	if (trace->lost > 0)
		log_warning("%" PRIu64 " events lost%s: the trace is not whole", trace->lost,
			    trace->lost_unknown ? ", and an unknown number more" : "");
	else if (trace->lost_unknown)
		log_warning("an unknown number of events lost: the trace is not whole");
	if (lines->damaged > 0)
		log_warning("%" PRIu64 " lines of the trace are damaged and were left out",
			    lines->damaged);
}

/* One record, as it comes. */
static void
follow_record(struct trace *trace, const json_t *record, const struct trace_view *view)
{
	const struct row *row = add_record(trace, record);

	if (row != NULL)
		print_row(row, json_get_time(record, "ts"), 0, view);
}

/* Lines as they were recorded: an array, or, followed, one after the other. */
static void
print_json_line(const char *line, bool first, const struct trace_view *view)
{
	if (!view->follow)
		out(first ? "[\n" : ",\n");
	out("%s", line);
	if (view->follow)
		out("\n");
}

static int
read_all(struct trace *trace, struct jsonl *lines, const struct trace_view *view,
	 struct moat_error *err)
{
	const char *line;
	bool first = true;
	int got;

	for (;;) {
		AUTO_JSON json_t *record = NULL;

		got = jsonl_next(lines, true, &record, &line, err);
		if (got <= 0)
			break;
		if (view->json)
			print_json_line(line, first, view);
		if (view->json && strcmp(json_get_text(record, "kind", ""), "loss") != 0) {
			first = false;
			continue; /* nothing to keep */
		}
		first = false;
		if (view->follow && !view->json)
			follow_record(trace, record, view);
		else
			(void) add_record(trace, record); /* failed: looked at by the caller */
		if (trace->failed)
			return moat_fail_memory(err);
	}
	if (view->json && !view->follow)
		out(first ? "[]\n" : "\n]\n");
	return got;
}

int
trace_print(int run_dirfd, const struct trace_view *view, struct moat_error *err)
{
	struct trace trace = {.last = &trace.first};
	const struct jsonl_options options = {
		.file = "exec.jsonl",
		.member = "kind",
		.missing = "nothing was recorded: the run was started without tracing",
		.follow = view->follow,
		.still_running = view->still_running,
		.context = view->context,
	};
	struct jsonl lines;
	int result;

	if (jsonl_open(&lines, run_dirfd, &options, err) < 0)
		return -1;
	if (view->follow && !view->json)
		print_header();
	result = read_all(&trace, &lines, view, err);
	if (result == 0 && !view->json && !view->follow) {
		print_header();
		if (view->tree)
			print_tree(&trace, view);
		else
			print_rows(&trace, view);
	}
	if (stdout_check(err) < 0)
		result = -1;
	if (result == 0)
		warn(&trace, &lines);
	jsonl_close(&lines);
	trace_free(&trace);
	return result;
}
