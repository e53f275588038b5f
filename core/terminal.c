/* SPDX-License-Identifier: Apache-2.0 */
/* Text on stdout for people: tables that align whatever the alphabet, colours, escaping. */
#include "core/terminal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "common/buf.h"
#include "common/text.h"

#define COLUMN_GAP 2

struct row {
	struct row *next;
	char *cells[];
};

struct table {
	size_t columns;
	bool failed; /* an allocation did; table_print() says so */
	struct row *first, **end;
	size_t widths[];
};

/* errno of the first write to stdout that failed; stdio itself only remembers that one did. */
static int write_errno;

static void
note_failure(bool failed)
{
	if (failed && write_errno == 0)
		write_errno = errno;
}

void
out(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	note_failure(vprintf(format, args) < 0);
	va_end(args);
}

static void
out_text(const char *text)
{
	note_failure(fputs(text, stdout) == EOF);
}

void
out_escaped(const char *text)
{
	AUTO_FREE char *escaped = text_escaped(text);

	if (escaped != NULL) {
		out_text(escaped);
	} else {
		errno = ENOMEM;
		note_failure(true);
	}
}

void
out_bytes(const char *data, size_t size)
{
	note_failure(fwrite(data, 1, size, stdout) != size);
}

void
out_escaped_bytes(const char *data, size_t size)
{
	AUTO_BUF struct buf escaped = {0};

	text_escape(&escaped, data, size);
	if (buf_check(&escaped, NULL) == 0) {
		out_bytes(escaped.data == NULL ? "" : escaped.data, escaped.size);
	} else {
		errno = ENOMEM;
		note_failure(true);
	}
}

static const char *
color_code(enum color color)
{
	static const char *const codes[] = {
		[COLOR_NONE] = "",         [COLOR_BOLD] = "\033[1m",   [COLOR_DIM] = "\033[2m",
		[COLOR_RED] = "\033[31m",  [COLOR_GREEN] = "\033[32m", [COLOR_YELLOW] = "\033[33m",
		[COLOR_BLUE] = "\033[34m", [COLOR_CYAN] = "\033[36m",
	};

	return codes[color];
}

void
out_color(bool use, enum color color, const char *text)
{
	bool colored = use && color != COLOR_NONE;

	if (colored)
		out_text(color_code(color));
	out_escaped(text);
	if (colored)
		out_text("\033[0m");
}

int
stdout_check(struct moat_error *err)
{
	note_failure(fflush(stdout) == EOF);
	if (write_errno == 0 && !ferror(stdout))
		return 0;
	errno = write_errno != 0 ? write_errno : EIO;
	(void) moat_fail_errno(err, "write to standard output");
	if (err != NULL)
		err->code = MOAT_FAILED;
	return -1;
}

size_t
text_columns(const char *text)
{
	size_t width = 0, left = strlen(text);
	mbstate_t state = {0};

	while (left > 0) {
		wchar_t c;
		size_t n = mbrtowc(&c, text, left, &state);
		int w;

		if (n == (size_t) -1 || n == (size_t) -2 || n == 0) {
			memset(&state, 0, sizeof state);
			n = 1;
			w = 1;
		} else {
			w = wcwidth(c);
		}
		width += w >= 0 ? (size_t) w : 1;
		text += n;
		left -= n;
	}
	return width;
}

static void
row_free(struct row *row, size_t columns)
{
	if (row == NULL)
		return;
	for (size_t i = 0; i < columns; i++)
		free(row->cells[i]);
	free(row);
}

void
table_free(struct table *table)
{
	struct row *row, *next;

	for (row = table->first; row != NULL; row = next) {
		next = row->next;
		row_free(row, table->columns);
	}
	free(table);
}

struct table *
table_new(const char *const *headers)
{
	struct table *table;
	size_t columns = 0;

	while (headers[columns] != NULL)
		columns++;
	table = calloc(1, sizeof *table + columns * sizeof table->widths[0]);
	if (table == NULL)
		return NULL;
	table->columns = columns;
	table->end = &table->first;
	table_add(table, headers);
	return table;
}

void
table_add(struct table *table, const char *const *cells)
{
	struct row *row;

	if (table == NULL || table->failed)
		return;
	row = calloc(1, sizeof *row + table->columns * sizeof row->cells[0]);
	if (row == NULL) {
		table->failed = true;
		return;
	}
	*table->end = row;
	table->end = &row->next;
	for (size_t i = 0; i < table->columns; i++) {
		size_t width;

		row->cells[i] = text_escaped(cells[i] != NULL ? cells[i] : "");
		if (row->cells[i] == NULL) {
			table->failed = true;
			return;
		}
		width = text_columns(row->cells[i]);
		if (width > table->widths[i])
			table->widths[i] = width;
	}
}

/* A line has no blanks at its end: the last cell that is not empty is not padded. */
static void
print_row(const struct table *table, const struct row *row, bool bold)
{
	size_t last = table->columns, pending = 0;

	while (last > 0 && row->cells[last - 1][0] == '\0')
		last--;
	if (bold)
		out_text(color_code(COLOR_BOLD));
	for (size_t i = 0; i < last; i++) {
		out("%*s%s", (int) pending, "", row->cells[i]);
		pending = table->widths[i] - text_columns(row->cells[i]) + COLUMN_GAP;
	}
	out_text(bold ? "\033[0m\n" : "\n");
}

int
table_print(struct table *table, bool color, struct moat_error *err)
{
	int result = 0;

	if (table == NULL || table->failed) {
		result = moat_fail_memory(err);
	} else {
		for (const struct row *row = table->first; row != NULL; row = row->next)
			print_row(table, row, color && row == table->first);
	}
	if (table != NULL)
		table_free(table);
	return result;
}
