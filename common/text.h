/* SPDX-License-Identifier: Apache-2.0 */
/* Text that people and configuration files give, and text that goes to a terminal. */
#ifndef MOAT_COMMON_TEXT_H
#define MOAT_COMMON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/error.h"

/* Appends data so that a terminal shows it and does nothing else: control bytes (C0, DEL, and C1 as
 * UTF-8), bidirectional overrides and invalid UTF-8 as \n, \t, \033, \xHH; a backslash as \\. Valid
 * UTF-8 stays. */
void text_escape(struct buf *out, const void *data, size_t size);
/* The same, in memory that the caller frees; NULL: no memory. */
char *text_escaped(const char *text);
bool text_is_utf8(const void *data, size_t size);

/* "64k" "1.5GiB" "10MB" "4096": K M G T and KiB... are 1024-based, KB MB... 1000-based; case does
 * not matter. */
int text_parse_size(const char *text, uint64_t *ret, struct moat_error *err);
/* "500ms" "30s" "10m" "1h" "2d"; a bare number is seconds.  In milliseconds. */
int text_parse_duration(const char *text, int64_t *ret_ms, struct moat_error *err);
int
text_parse_int(const char *text, int64_t min, int64_t max, int64_t *ret, struct moat_error *err);

/* "1.2 GiB"; "340 B".  out holds at least 32 bytes. */
const char *text_size(char out[32], uint64_t bytes);
/* "2026-11-22T10:11:12.123456789Z".  out holds at least 40 bytes. */
const char *text_time(char out[40], int64_t time_ns);
/* "just now", "5m ago", "3h ago", "2d ago". */
const char *text_age(char out[32], int64_t time_ns, int64_t now_ns);
/* "12ms", "1.5s", "2m03s". */
const char *text_duration(char out[32], int64_t duration_ns);

/* The member of names (NULL-terminated) that is nearest to `name` by edit distance, or NULL when
 * none is near enough to be what was meant. */
const char *text_nearest(const char *name, const char *const *names);

/* [A-Za-z0-9][A-Za-z0-9._-]*, at most 128 bytes: names of runs, plugins. */
bool text_is_name(const char *text);

/* True when `path` is `top` or lies below it, by their text: both absolute, or both relative to the
 * same directory, which is "". */
bool text_path_within(const char *path, const char *top);

/* PREFIX_ and 12 random hex digits (getrandom(2)).  out holds at least 32 bytes. */
int text_random_id(char out[32], const char *prefix, struct moat_error *err);

/* CLOCK_REALTIME in nanoseconds. */
int64_t time_now_ns(void);

#endif
