/* SPDX-License-Identifier: Apache-2.0 */
/* Text on stdout for people: tables, colours, escaping. */
#ifndef MOAT_CORE_TERMINAL_H
#define MOAT_CORE_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"

enum color {
	COLOR_NONE,
	COLOR_BOLD,
	COLOR_DIM,
	COLOR_RED,
	COLOR_GREEN,
	COLOR_YELLOW,
	COLOR_BLUE,
	COLOR_CYAN
};

/* Terminal columns that the text takes.  What the locale cannot decode counts one for each byte. */
size_t text_columns(const char *text);

/* Rows of cells, escaped when added, aligned by display width when printed. */
struct table;
struct table *table_new(const char *const *headers);                      /* NULL-terminated */
void table_add(struct table *table, const char *const *cells);            /* as many as headers */
int table_print(struct table *table, bool color, struct moat_error *err); /* and frees */

/* printf to stdout; the result is checked by stdout_check() at the end of a command. */
void out(const char *format, ...) MOAT_PRINTF(1, 2);
void out_escaped(const char *text); /* a name of a stranger's */
/* Bytes of a stranger's: as they are, and escaped. */
void out_bytes(const char *data, size_t size);
void out_escaped_bytes(const char *data, size_t size);
void out_color(bool use, enum color color, const char *text); /* escaped, too */
void table_free(struct table *table);                         /* one that is not printed */
/* Flushes; a failed write is MOAT_FAILED (EPIPE included). */
int stdout_check(struct moat_error *err);

#endif
