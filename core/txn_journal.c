/* SPDX-License-Identifier: Apache-2.0 */
/* The journal of a transaction: what is to be done, how far it was decided, and how it ends.
 *
 *     txn/TXN/lock     held by the process that works on it
 *             prelude  JSON: see txn_prelude.c
 *             intent   JSON: which workspace, where its stage is
 *             plan     the operations (plan_encode)
 *             commit   the decision: exists = new; becomes undo, done-new or done-old by rename
 *             stage/   unless the stage is in the workspace
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/json.h"
#include "core/txn_internal.h"

#define PLAN_MAX ((size_t) 4 << 30)

static const char *const state_names[] = {
	[JOURNAL_PRELUDE] = "prelude",   [JOURNAL_INTENT] = "intent",
	[JOURNAL_COMMIT] = "commit",     [JOURNAL_UNDO] = "undo",
	[JOURNAL_DONE_NEW] = "done-new", [JOURNAL_DONE_OLD] = "done-old",
	[JOURNAL_KEPT] = "kept",
};

/* ------------------------------------------------------------------------------------ the files */

int
journal_create(const struct home *home, struct journal *ret, struct moat_error *err)
{
	AUTO_CLOSE int gate = -1;

	*ret = (struct journal){.fd = -1, .lock_fd = -1};
	/* Recovery looks for journals without an owner: the gate keeps it out until this one is
	 * locked. */
	gate = fs_lock(home->txn_fd, ".lock", true, true, err);
	if (gate < 0 || text_random_id(ret->id, "txn", err) < 0)
		return -1;
	ret->fd = fs_open_directory(home->txn_fd, ret->id, true, err);
	if (ret->fd < 0)
		return -1;
	ret->lock_fd = fs_lock(ret->fd, "lock", true, false, err);
	if (ret->lock_fd < 0 || fs_sync(home->txn_fd, "txn", err) < 0) {
		/* Nothing in it yet; a leftover is removed by the next recovery. */
		(void) fs_remove_tree(home->txn_fd, ret->id, NULL);
		journal_close(ret);
		return -1;
	}
	return 0;
}

int
journal_open(const struct home *home, const char *id, struct journal *ret, struct moat_error *err)
{
	*ret = (struct journal){.fd = -1, .lock_fd = -1};
	snprintf(ret->id, sizeof ret->id, "%s", id);
	ret->fd = fs_open_directory(home->txn_fd, id, false, err);
	if (ret->fd < 0)
		return -1;
	ret->lock_fd = fs_lock(ret->fd, "lock", true, false, err);
	if (ret->lock_fd < 0) {
		journal_close(ret);
		return -1;
	}
	return 0;
}

void
journal_close(struct journal *journal)
{
	cleanup_close(&journal->lock_fd);
	cleanup_close(&journal->fd);
	journal->lock_fd = journal->fd = -1;
}

int
journal_state(const struct journal *journal, enum journal_state *ret, struct moat_error *err)
{
	/* The later word counts. */
	for (int state = JOURNAL_KEPT; state > JOURNAL_EMPTY; state--) {
		if (faccessat(journal->fd, state_names[state], F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
			*ret = (enum journal_state) state;
			return 0;
		}
		if (errno != ENOENT)
			return moat_fail_errno(err, "look for `%s' of transaction %s",
					       state_names[state], journal->id);
	}
	*ret = JOURNAL_EMPTY;
	return 0;
}

int
journal_write_intent(const struct journal *journal, const struct member *member,
		     struct moat_error *err)
{
	AUTO_JSON json_t *intent = json_object();

	if (intent == NULL ||
	    json_put_bytes(intent, "workspace", member->path, strlen(member->path)) < 0 ||
	    json_put_text(intent, "hash", member->hash) < 0 ||
	    json_put_int(intent, "dev", (int64_t) member->dev) < 0 ||
	    json_put_int(intent, "ino", (int64_t) member->ino) < 0 ||
	    json_put_bool(intent, "stage_inside", member->stage_inside) < 0 ||
	    json_put_int(intent, "root_mtime_sec", member->root_mtime_sec) < 0 ||
	    json_put_int(intent, "root_mtime_nsec", member->root_mtime_nsec) < 0 ||
	    json_put_bool(intent, "recorded", member->recorded) < 0 ||
	    json_put_text(intent, "snapshot", member->snapshot) < 0 ||
	    json_put_text(intent, "safety", member->safety) < 0 ||
	    json_put_text(intent, "undoes", member->undoes) < 0)
		return moat_fail_memory(err);
	return json_write(journal->fd, "intent", intent, err);
}

static int
take_text(const json_t *object, const char *key, char **ret)
{
	const char *text = json_get_text(object, key, NULL);

	free(*ret);
	*ret = text == NULL ? NULL : strdup(text);
	return text != NULL && *ret == NULL ? -1 : 0;
}

int
journal_read_intent(const struct journal *journal, struct member *member, struct moat_error *err)
{
	AUTO_JSON json_t *intent = NULL;
	const char *hash;

	if (json_read(journal->fd, "intent", "intent of a transaction", &intent, err) < 0)
		return -1;
	free(member->path);
	member->path = json_get_bytes(intent, "workspace", NULL);
	hash = json_get_text(intent, "hash", "");
	if (member->path == NULL || member->path[0] != '/' || strlen(hash) >= sizeof member->hash)
		return moat_fail(err, MOAT_CORRUPT,
				 "the intent of transaction %s names no workspace", journal->id);
	snprintf(member->hash, sizeof member->hash, "%s", hash);
	member->dev = (uint64_t) json_get_int(intent, "dev", 0);
	member->ino = (uint64_t) json_get_int(intent, "ino", 0);
	member->stage_inside = json_get_bool(intent, "stage_inside", false);
	member->root_mtime_sec = json_get_int(intent, "root_mtime_sec", 0);
	member->root_mtime_nsec = (uint32_t) json_get_int(intent, "root_mtime_nsec", 0);
	member->recorded = json_get_bool(intent, "recorded", false);
	if (take_text(intent, "snapshot", &member->snapshot) < 0 ||
	    take_text(intent, "safety", &member->safety) < 0 ||
	    take_text(intent, "undoes", &member->undoes) < 0)
		return moat_fail_memory(err);
	return 0;
}

int
journal_write_plan(const struct journal *journal, const struct plan *plan, struct moat_error *err)
{
	AUTO_BUF struct buf encoded = {0};

	if (plan_encode(plan, &encoded, err) < 0)
		return -1;
	return fs_write_atomic(journal->fd, "plan", encoded.data, encoded.size, 0600, err);
}

int
journal_read_plan(const struct journal *journal, struct plan *plan, struct moat_error *err)
{
	AUTO_FREE char *data = NULL;
	size_t size;

	if (fs_read(journal->fd, "plan", PLAN_MAX, &data, &size, err) < 0 ||
	    plan_decode(data, size, plan, err) < 0)
		return moat_wrap(err, "the plan of transaction %s", journal->id);
	return 0;
}

int
journal_decide(const struct journal *journal, struct moat_error *err)
{
	return fs_write_atomic(journal->fd, state_names[JOURNAL_COMMIT], journal->id,
			       strlen(journal->id), 0600, err);
}

int
journal_move(const struct journal *journal, enum journal_state from, enum journal_state to,
	     struct moat_error *err)
{
	if (renameat(journal->fd, state_names[from], journal->fd, state_names[to]) < 0)
		return moat_fail_errno(err, "transaction %s: make `%s' `%s'", journal->id,
				       state_names[from], state_names[to]);
	return fs_sync(journal->fd, journal->id, err);
}

bool
journal_has(const struct journal *journal, const char *name)
{
	/* Rather there than not: what cannot be looked at is not thrown away. */
	return faccessat(journal->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

int
journal_remove(const struct home *home, struct journal *journal, struct moat_error *err)
{
	static const char *const order[] = {"intent", "plan",     "commit",
					    "undo",   "done-new", "done-old"};

	/* The intent first: without it there is nothing that a recovery could still want to do. */
	for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
		if (unlinkat(journal->fd, order[i], 0) < 0 && errno != ENOENT)
			return moat_fail_errno(err, "remove `%s' of transaction %s", order[i],
					       journal->id);
	return fs_remove_tree(home->txn_fd, journal->id, err);
}
