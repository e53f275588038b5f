/* SPDX-License-Identifier: Apache-2.0 */
/* JSON by jansson, with moat's rule for bytes that are not UTF-8: the field holds the text with
 * U+FFFD in place of what is invalid, and FIELD_base64 beside it holds the bytes. */
#ifndef MOAT_CORE_JSON_H
#define MOAT_CORE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/cleanup.h"
#include "common/error.h"

void cleanup_json(json_t **json);
#define AUTO_JSON CLEANUP(cleanup_json)

/* object[key] = text; NULL is null.  A failed put is remembered, so that its result need not be
 * looked at: the thread's next json_text(), and with it json_print() and json_write(), fails with
 * MOAT_NO_MEMORY. */
int json_put_bytes(json_t *object, const char *key, const void *data, size_t size);
int json_put_text(json_t *object, const char *key, const char *text);
int json_put_int(json_t *object, const char *key, int64_t value);
int json_put_bool(json_t *object, const char *key, bool value);
int json_put_null(json_t *object, const char *key);
int json_put_time(json_t *object, const char *key, int64_t time_ns); /* 0 is null; RFC 3339 UTC */
int json_put_new(json_t *object, const char *key, json_t *value);    /* takes value */
/* A NULL-terminated list of strings as an array, KEY_base64 (an array) beside it when one is not
 * UTF-8. */
int json_put_list(json_t *object, const char *key, const char *const *list);

/* Readers for what moat wrote itself; a missing or wrong member: the default.  Strings are borrowed
 * from object, but json_get_bytes() (which honours KEY_base64) gives memory that the caller frees.
 */
const char *json_get_text(const json_t *object, const char *key, const char *def);
int64_t json_get_int(const json_t *object, const char *key, int64_t def);
bool json_get_bool(const json_t *object, const char *key, bool def);
int64_t json_get_time(const json_t *object, const char *key); /* ns, 0: null or absent */
/* What json_put_list() put: NULL-terminated, the list and its strings freed by the caller. NULL:
 * not there. */
char **json_get_list(const json_t *object, const char *key);
char *json_get_bytes(const json_t *object, const char *key, size_t *ret_size);

/* The document on one line with a newline at the end (compact), or indented; the caller frees. */
char *json_text(const json_t *json, bool compact, struct moat_error *err);
/* To stdout; a failed write (EPIPE, ENOSPC) is an error. */
int json_print(const json_t *json, bool compact, struct moat_error *err);
/* Reads a JSON object from a file; what: for messages.  Damaged: MOAT_CORRUPT; absent:
 * MOAT_NOT_FOUND. */
int json_read(int dirfd, const char *name, const char *what, json_t **ret, struct moat_error *err);
/* Atomically replaces a file, mode 0600. */
int json_write(int dirfd, const char *name, const json_t *json, struct moat_error *err);

#endif
