/* SPDX-License-Identifier: Apache-2.0 */
/* The records of finished transactions. */
#include "core/undo.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/json.h"
#include "core/log.h"
#include "core/txn_internal.h"

#define PLAN_MAX ((size_t) 4 << 30)

void
undo_record_free(struct undo_record *record)
{
	free(STEAL(record->snapshot));
	free(STEAL(record->safety));
	free(STEAL(record->undoes));
}

/* ------------------------------------------------------------------------------------- reading */

static int
take_text(const json_t *json, const char *key, char **ret)
{
	const char *text = json_get_text(json, key, NULL);

	*ret = text == NULL ? NULL : strdup(text);
	return text != NULL && *ret == NULL ? -1 : 0;
}

/* Returns 1 with the record; 0: it has no plan (yet), or is no record. */
static int
read_record(int undo_fd, const char *id, struct undo_record *ret, struct moat_error *err)
{
	AUTO_CLOSE int dirfd = -1;
	AUTO_JSON json_t *json = NULL;
	AUTO_UNDO_RECORD struct undo_record record = {0};

	if (strncmp(id, "txn_", 4) != 0 || strlen(id) >= sizeof record.id)
		return 0;
	dirfd = fs_open_directory(undo_fd, id, false, err);
	if (dirfd < 0)
		return -1;
	if (faccessat(dirfd, "plan", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : moat_fail_errno(err, "the record of %s", id);
	if (json_read(dirfd, "undo.json", "record of a transaction", &json, err) < 0)
		return -1;
	memcpy(record.id, id, strlen(id) + 1);
	record.finished_ns = json_get_int(json, "finished_ns", 0);
	if (take_text(json, "snapshot", &record.snapshot) < 0 ||
	    take_text(json, "safety", &record.safety) < 0 ||
	    take_text(json, "undoes", &record.undoes) < 0)
		return moat_fail_memory(err);
	*ret = record;
	record = (struct undo_record){0};
	return 1;
}

/* Those of one workspace, newest first. */
struct records {
	struct undo_record *items;
	size_t count;
};

static void
records_free(struct records *records)
{
	for (size_t i = 0; i < records->count; i++)
		undo_record_free(&records->items[i]);
	free(records->items);
}
#define AUTO_RECORDS CLEANUP(records_free)

static int
newest_first(const void *a, const void *b)
{
	const struct undo_record *left = a, *right = b;

	if (left->finished_ns != right->finished_ns)
		return left->finished_ns > right->finished_ns ? -1 : 1;
	return strcmp(right->id, left->id);
}

static int
add_record(struct records *records, struct undo_record *record, const char *hash)
{
	struct undo_record *more = reallocarray(records->items, records->count + 1, sizeof *more);

	if (more == NULL)
		return -1;
	records->items = more;
	snprintf(record->hash, sizeof record->hash, "%.16s", hash);
	more[records->count++] = *record;
	*record = (struct undo_record){0};
	return 0;
}

/* incomplete: called with each that has no plan; or NULL. */
static int
list_records(int undo_fd, const char *hash, struct records *ret,
	     void (*incomplete)(int undo_fd, const char *id), struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(undo_fd, "", err);
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return -1;
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		AUTO_UNDO_RECORD struct undo_record record = {0};
		struct moat_error local = MOAT_ERROR_INIT;
		int found;

		if (entry->d_name[0] == '.')
			continue;
		found = read_record(undo_fd, entry->d_name, &record, &local);
		if (found < 0)
			log_warning("record of transaction %s: %s", entry->d_name, local.message);
		else if (found == 0 && incomplete != NULL)
			incomplete(undo_fd, entry->d_name);
		else if (found == 1 && add_record(ret, &record, hash) < 0)
			return moat_fail_memory(err);
	}
	if (next < 0)
		return -1;
	if (ret->count > 0)
		qsort(ret->items, ret->count, sizeof *ret->items, newest_first);
	return 0;
}

/* ------------------------------------------------------------------------------------- finding */

static int
none(const char *path, struct moat_error *err)
{
	return moat_fail(err, MOAT_NOT_FOUND,
			 "there is nothing to undo: no restore of `%s' is on record", path);
}

int
undo_last(const struct workspace *workspace, struct undo_record *ret, struct moat_error *err)
{
	AUTO_CLOSE int undo_fd = -1;
	AUTO_RECORDS struct records records = {0};
	struct moat_error local = MOAT_ERROR_INIT;

	if (workspace->state_fd < 0)
		return none(workspace->path, err);
	undo_fd = fs_open_directory(workspace->state_fd, "undo", false, &local);
	if (undo_fd < 0)
		return local.code == MOAT_NOT_FOUND
			       ? none(workspace->path, err)
			       : moat_error_set(err, local.code, local.sys_errno, "%s",
						local.message);
	if (list_records(undo_fd, workspace->hash, &records, NULL, err) < 0)
		return -1;
	if (records.count == 0)
		return none(workspace->path, err);
	*ret = records.items[0];
	records.items[0] = (struct undo_record){0};
	return 0;
}

/* An exact id wins; two that begin so are an error. */
static int
match(struct records *records, const char *text, struct undo_record *ret, struct moat_error *err)
{
	for (size_t i = 0; i < records->count; i++) {
		struct undo_record *record = &records->items[i];

		if (strncmp(record->id, text, strlen(text)) != 0)
			continue;
		if (ret->id[0] != '\0' && strcmp(record->id, text) != 0)
			return moat_fail(err, MOAT_USAGE, "`%s' is the beginning of %s and of %s",
					 text, ret->id, record->id);
		undo_record_free(ret);
		*ret = *record;
		*record = (struct undo_record){0};
	}
	return 0;
}

int
undo_find(const struct home *home, const char *text, struct undo_record *ret,
	  struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *stream = fs_open_stream(home->workspaces_fd, "", err);
	AUTO_UNDO_RECORD struct undo_record found = {0};
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return -1;
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		AUTO_BUF struct buf path = {0};
		AUTO_CLOSE int undo_fd = -1;
		AUTO_RECORDS struct records records = {0};

		if (entry->d_name[0] == '.')
			continue;
		buf_format(&path, "%s/undo", entry->d_name);
		if (buf_check(&path, err) < 0)
			return -1;
		/* A workspace without records has no such directory. */
		undo_fd = fs_open_beneath(home->workspaces_fd, path.data, O_RDONLY | O_DIRECTORY, 0,
					  NULL);
		if (undo_fd >= 0 &&
		    (list_records(undo_fd, entry->d_name, &records, NULL, err) < 0 ||
		     match(&records, text, &found, err) < 0))
			return -1;
	}
	if (next < 0)
		return -1;
	if (found.id[0] == '\0')
		return moat_fail(
			err, MOAT_NOT_FOUND,
			"no restore `%s' is on record; the newest %d of each workspace are "
			"kept, as long as their safety snapshots are",
			text, UNDO_KEEP);
	*ret = found;
	found = (struct undo_record){0};
	return 0;
}

/* ----------------------------------------------------------------------------------- publishing */

static void
drop_incomplete(int undo_fd, const char *id)
{
	/* Should its transaction still be to be finished, that makes it again. */
	(void) fs_remove_tree(undo_fd, id, NULL);
}

static bool
is_lost(int state_fd, const struct undo_record *record)
{
	AUTO_BUF struct buf path = {0};

	if (record->safety == NULL)
		return false;
	buf_format(&path, "snapshots/%s/snapshot.json", record->safety);
	return buf_check(&path, NULL) == 0 && faccessat(state_fd, path.data, F_OK, 0) < 0 &&
	       errno == ENOENT;
}

static void
prune(int state_fd, int undo_fd)
{
	AUTO_RECORDS struct records records = {0};
	struct moat_error local = MOAT_ERROR_INIT;

	/* A record too many does no harm, and the next restore tries again. */
	if (list_records(undo_fd, "", &records, drop_incomplete, &local) < 0)
		log_warning("%s", local.message);
	for (size_t i = 0; i < records.count; i++)
		if (i >= UNDO_KEEP || is_lost(state_fd, &records.items[i]))
			(void) fs_remove_tree(undo_fd, records.items[i].id, NULL);
}

static int
write_record(int dirfd, const struct journal *journal, const struct member *member,
	     struct moat_error *err)
{
	AUTO_JSON json_t *json = json_object();
	int64_t now = time_now_ns();

	if (json == NULL || json_put_text(json, "transaction", journal->id) < 0 ||
	    json_put_bytes(json, "workspace", member->path, strlen(member->path)) < 0 ||
	    json_put_time(json, "finished_at", now) < 0 ||
	    json_put_int(json, "finished_ns", now) < 0 ||
	    json_put_text(json, "snapshot", member->snapshot) < 0 ||
	    json_put_text(json, "safety", member->safety) < 0 ||
	    json_put_text(json, "undoes", member->undoes) < 0)
		return moat_fail_memory(err);
	return json_write(dirfd, "undo.json", json, err);
}

/* Where the two directories are on different filesystems, a copy does it, too. */
static int
move_plan(const struct journal *journal, int dirfd, struct moat_error *err)
{
	AUTO_FREE char *data = NULL;
	size_t size;

	if (renameat(journal->fd, "plan", dirfd, "plan") == 0)
		return fs_sync(dirfd, "a record", err);
	if (errno != EXDEV)
		return moat_fail_errno(err, "move the plan of %s", journal->id);
	if (fs_read(journal->fd, "plan", PLAN_MAX, &data, &size, err) < 0 ||
	    fs_write_atomic(dirfd, "plan", data, size, 0600, err) < 0)
		return -1;
	return unlinkat(journal->fd, "plan", 0) == 0
		       ? 0
		       : moat_fail_errno(err, "remove the plan of %s", journal->id);
}

int
undo_publish(const struct home *home, const struct journal *journal, const struct member *member,
	     struct moat_error *err)
{
	AUTO_CLOSE int state_fd = -1, undo_fd = -1, dirfd = -1;
	struct moat_error local = MOAT_ERROR_INIT;

	state_fd = fs_open_directory(home->workspaces_fd, member->hash, false, &local);
	if (state_fd < 0)
		return local.code == MOAT_NOT_FOUND /* forgotten: so is what was done */
			       ? 0
			       : moat_error_set(err, local.code, local.sys_errno, "%s",
						local.message);
	if (!journal_has(journal, "plan"))
		return 0;
	undo_fd = fs_open_directory(state_fd, "undo", true, err);
	/* Without a plan it is what an interrupted try left. */
	if (undo_fd < 0 || fs_remove_tree(undo_fd, journal->id, err) < 0)
		return -1;
	dirfd = fs_open_directory(undo_fd, journal->id, true, err);
	if (dirfd < 0 || write_record(dirfd, journal, member, err) < 0 ||
	    move_plan(journal, dirfd, err) < 0 || fs_sync(undo_fd, "the records", err) < 0)
		return moat_wrap(err, "note for `moat undo'");
	prune(state_fd, undo_fd);
	return 0;
}
