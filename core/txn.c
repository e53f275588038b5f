/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which a transaction happens, and what is done about one that did not come to its
 * end.
 *
 * Before the record `commit` exists, a crash means old; from then on it means new, unless the
 * record was turned into `undo`.  Recovery does exactly what the interrupted process would have
 * done next. */
#include "core/txn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/tree.h"
#include "core/txn_internal.h"

static void
member_clear(struct member *member)
{
	plan_free(&member->plan);
	cleanup_close(&member->stage_fd);
	cleanup_close(&member->root_fd);
	free(STEAL(member->path));
	free(STEAL(member->snapshot));
	free(STEAL(member->safety));
	free(STEAL(member->undoes));
}
#define AUTO_MEMBER CLEANUP(member_clear)

/* ---------------------------------------------------------------------------------------- planning
 */

static int
member_init(struct member *member, const struct workspace *workspace, struct moat_error *err)
{
	member->stage_fd = -1;
	member->dev = workspace->dev;
	member->ino = workspace->ino;
	if (workspace->state_fd >= 0)
		memcpy(member->hash, workspace->hash, sizeof member->hash);
	member->root_fd = fcntl(workspace->fd, F_DUPFD_CLOEXEC, 3);
	if (member->root_fd < 0)
		return moat_fail_errno(err, "open `%s' again", workspace->path);
	member->path = strdup(workspace->path);
	return member->path == NULL ? moat_fail_memory(err) : 0;
}

static int
plan_some(const struct home *home, const struct workspace *workspace, const struct manifest *live,
	  const struct manifest *desired, const char *const *paths, size_t exact,
	  const struct txn_source *source, struct txn **ret, struct moat_error *err)
{
	struct txn *txn = calloc(1, sizeof *txn);

	if (txn == NULL)
		return moat_fail_memory(err);
	txn->home = home;
	txn->workspace = workspace;
	txn->live = live;
	txn->desired = desired;
	txn->source = *source;
	txn->member.root_fd = -1;
	if (member_init(&txn->member, workspace, err) < 0 ||
	    plan_make(txn, paths, exact, err) < 0) {
		txn_free(txn);
		return -1;
	}
	*ret = txn;
	return 0;
}

int
txn_plan(const struct home *home, const struct workspace *workspace, const struct manifest *live,
	 const struct manifest *desired, const char *const *paths, const struct txn_source *source,
	 struct txn **ret, struct moat_error *err)
{
	return plan_some(home, workspace, live, desired, paths, 0, source, ret, err);
}

int
txn_plan_exactly(const struct home *home, const struct workspace *workspace,
		 const struct manifest *live, const struct manifest *desired,
		 const char *const *paths, size_t path_count, const struct txn_source *source,
		 struct txn **ret, struct moat_error *err)
{
	if (path_count == 0)
		return moat_fail(err, MOAT_FAILED, "a plan for no paths at all");
	return plan_some(home, workspace, live, desired, paths, path_count, source, ret, err);
}

void
txn_free(struct txn *txn)
{
	if (txn == NULL)
		return;
	member_clear(&txn->member);
	free(txn->changes);
	free(txn->desired_of);
	free(txn);
}

void
cleanup_txn(struct txn **txn)
{
	txn_free(*txn);
	*txn = NULL;
}

const struct txn_counts *
txn_counts(const struct txn *txn)
{
	return &txn->counts;
}

bool
txn_is_empty(const struct txn *txn)
{
	return txn->member.plan.count == 0;
}

const char *
txn_hidden(const struct txn *txn)
{
	return txn->hidden;
}

int
txn_visit(const struct txn *txn,
	  int (*visit)(void *context, const struct diff_item *item, struct moat_error *err),
	  void *context, struct moat_error *err)
{
	for (size_t i = 0; i < txn->change_count; i++) {
		const struct change *change = &txn->changes[i];
		struct diff_item item = {
			.change = change->shown,
			.path = change->path,
			.from = change->live < 0 ? NULL : txn->live->entries[change->live],
			.to = change->desired < 0 ? NULL : txn->desired->entries[change->desired],
		};

		if (visit(context, &item, err) < 0)
			return -1;
	}
	return 0;
}

/* ---------------------------------------------------------------------------------------- carrying
 * out */

static const struct moat_entry *
root_entry(const struct manifest *manifest)
{
	return manifest == NULL || manifest->count == 0 ? NULL : manifest->entries[0];
}

/* The root of the workspace as the plan leaves it: only when the plan changes the root's own
 * metadata. */
static const struct moat_entry *
final_root(const struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++)
		if (plan->ops[i].kind == OP_DIRMETA && plan_path(plan, &plan->ops[i])[0] == '\0')
			return plan->ops[i].to >= 0 ? plan_to(plan, &plan->ops[i])
						    : plan_from(plan, &plan->ops[i]);
	return root_entry(plan->from);
}

/* What is left once the outcome is settled.  That this fails does not change the outcome.  The
 * stage goes first, and the plan last to its record: without the plan there is no stage. */
static int
clear_away(const struct home *home, struct journal *journal, struct member *member, bool new,
	   struct moat_error *err)
{
	const struct moat_entry *root = new ? final_root(&member->plan) : NULL;

	if ((!new || journal_has(journal, "plan")) && stage_remove(journal, member, root, err) < 0)
		return moat_wrap(err, "clear away what transaction %s left", journal->id);
	if (prelude_settle(journal, member->root_fd, new, err) < 0 ||
	    (new && member->recorded &&undo_publish(home, journal, member, err) < 0) ||
	    journal_remove(home, journal, err) < 0)
		return moat_wrap(err, "clear away what transaction %s left", journal->id);
	return 0;
}

static void
clear_away_or_tell(const struct home *home, struct journal *journal, struct member *member,
		   bool new)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (clear_away(home, journal, member, new, &local) < 0)
		log_warning("%s; `moat recover' will try again", local.message);
}

/* Back to old, for good. */
static int
roll_back(const struct home *home, struct journal *journal, struct member *member,
	  struct moat_error *err)
{
	struct moat_error local = MOAT_ERROR_INIT;
	uint64_t left = 0;

	plan_undo(member, &left);
	if (left > 0) {
		if (prelude_settle(journal, member->root_fd, false, &local) < 0)
			log_warning("%s", local.message);
		/* Never thrown away: the former content stays in the stage, and the user is told
		 * where. */
		(void) journal_move(journal, JOURNAL_UNDO, JOURNAL_KEPT, &local);
		return moat_fail(
			err, MOAT_FAILED,
			"%llu changes of %s could not be taken back; what belongs there, or was "
			"put there meanwhile, is kept in %s/%s%s%s",
			(unsigned long long) left, member->path,
			member->stage_inside ? member->path : home->path,
			member->stage_inside ? TREE_STAGE_PREFIX : "txn/",
			member->stage_inside ? journal->id + 4 : journal->id,
			member->stage_inside ? "" : "/stage");
	}
	if (plan_sync(member, err) < 0 ||
	    journal_move(journal, JOURNAL_UNDO, JOURNAL_DONE_OLD, err) < 0)
		return -1;
	clear_away_or_tell(home, journal, member, false);
	return 0;
}

/* The word is there, though it may not be on disk yet: should it get lost, the decision is still
 * there, and is carried out again. */
static bool
is_done(const struct journal *journal)
{
	struct moat_error local = MOAT_ERROR_INIT;
	enum journal_state state;

	return journal_state(journal, &state, &local) == 0 && state == JOURNAL_DONE_NEW;
}

/* From the decision on. */
static int
roll_forward(const struct home *home, struct journal *journal, struct member *member,
	     struct moat_error *err)
{
	struct moat_error back = MOAT_ERROR_INIT;

	if (plan_apply(member, err) == 0 && plan_sync(member, err) == 0) {
		if (journal_move(journal, JOURNAL_COMMIT, JOURNAL_DONE_NEW, err) < 0 &&
		    !is_done(journal))
			return moat_wrap(err,
					 "everything of %s is in place, and the journal could not "
					 "be closed, which `moat recover' will do",
					 member->path);
		clear_away_or_tell(home, journal, member, true);
		return 0;
	}
	if (journal_move(journal, JOURNAL_COMMIT, JOURNAL_UNDO, &back) < 0 ||
	    roll_back(home, journal, member, &back) < 0)
		return moat_wrap(err, "%s; this was to be taken back because of", back.message);
	return -1;
}

/* Before the decision: nothing of the workspace has been touched.  A decision that was written but
 * could not be made durable is taken back first: with the stage gone it must not be found. */
static void
give_up(const struct home *home, struct journal *journal, struct member *member)
{
	struct moat_error local = MOAT_ERROR_INIT;
	enum journal_state state;

	if (journal_state(journal, &state, &local) < 0 ||
	    (state == JOURNAL_COMMIT &&
	     journal_move(journal, JOURNAL_COMMIT, JOURNAL_DONE_OLD, &local) < 0)) {
		log_warning("%s; `moat recover' will complete transaction %s", local.message,
			    journal->id);
		return;
	}
	clear_away_or_tell(home, journal, member, false);
}

void
txn_record(struct txn *txn, const char *snapshot, const char *safety, const char *undoes)
{
	txn->recorded = true;
	txn->snapshot = snapshot;
	txn->safety = safety;
	txn->undoes = undoes;
}

void
txn_use_prelude(struct txn *txn, struct txn_prelude *prelude)
{
	txn->prelude = prelude;
}

static int
copy_text(char **ret, const char *text)
{
	*ret = text == NULL ? NULL : strdup(text);
	return text != NULL && *ret == NULL ? -1 : 0;
}

static int
begin(struct txn *txn, struct journal *journal, struct moat_error *err)
{
	struct member *member = &txn->member;

	member->recorded = txn->recorded;
	if (copy_text(&member->snapshot, txn->snapshot) < 0 ||
	    copy_text(&member->safety, txn->safety) < 0 ||
	    copy_text(&member->undoes, txn->undoes) < 0)
		return moat_fail_memory(err);
	if (txn->prelude != NULL) {
		*journal = prelude_take_journal(txn->prelude);
		if (journal->fd >= 0)
			return 0;
	}
	return journal_create(txn->home, journal, err);
}

int
txn_commit(struct txn *txn, struct moat_error *err)
{
	struct member *member = &txn->member;
	struct journal journal;
	sigset_t saved;
	int result = -1;

	if (txn_is_empty(txn))
		return 0;
	if (begin(txn, &journal, err) < 0)
		return -1;
	interrupt_hold(&saved);
	if (stage_make(txn->home, &journal, member, err) < 0 || stage_fill(txn, err) < 0 ||
	    journal_write_plan(&journal, &member->plan, err) < 0 ||
	    journal_decide(&journal, err) < 0)
		give_up(txn->home, &journal, member);
	else
		result = roll_forward(txn->home, &journal, member, err);
	journal_close(&journal);
	interrupt_release(&saved);
	return result;
}

/* ---------------------------------------------------------------------------------------- recovery
 */

static int
open_member(struct member *member, struct moat_error *err)
{
	struct stat st;

	member->root_fd = open(member->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (member->root_fd < 0)
		return moat_fail_errno(err, "open the workspace `%s'", member->path);
	if (fstat(member->root_fd, &st) < 0)
		return moat_fail_errno(err, "look at the workspace `%s'", member->path);
	if (st.st_ino != member->ino)
		return moat_fail(err, MOAT_CONFLICT,
				 "`%s' is another directory than the one that a transaction was "
				 "interrupted in; put that one back (is it mounted?) and run `moat "
				 "recover'",
				 member->path);
	return 0;
}

static int
lock_member(const struct home *home, const struct member *member, int *ret, struct moat_error *err)
{
	AUTO_CLOSE int state = -1;

	if (member->hash[0] == '\0')
		return 0;
	state = fs_open_directory(home->workspaces_fd, member->hash, false, err);
	if (state < 0)
		return -1;
	*ret = fs_lock(state, "lock", true, false, err);
	return *ret < 0 ? -1 : 0;
}

static int
complete(const struct home *home, struct journal *journal, enum journal_state state,
	 struct member *member, struct txn_recovery *counts, struct moat_error *err)
{
	struct moat_error apply = MOAT_ERROR_INIT;

	/* A finished one may have given its plan to its record already. */
	if (state != JOURNAL_INTENT &&
	    !(state == JOURNAL_DONE_NEW && !journal_has(journal, "plan")) &&
	    journal_read_plan(journal, &member->plan, err) < 0)
		return -1;
	if (stage_open(journal, member, err) < 0)
		return -1;
	switch (state) {
	case JOURNAL_COMMIT:
		if (roll_forward(home, journal, member, &apply) == 0) {
			log_notice("completed an interrupted change of %s", member->path);
			counts->completed++;
			return 0;
		}
		if (journal_state(journal, &state, err) == 0 && state == JOURNAL_EMPTY) {
			log_warning("an interrupted change of %s was taken back: %s", member->path,
				    apply.message);
			counts->undone++;
			return 0;
		}
		return moat_error_set(err, apply.code, apply.sys_errno, "%s", apply.message);
	case JOURNAL_UNDO:
		if (roll_back(home, journal, member, err) < 0)
			return -1;
		log_notice("took back an interrupted change of %s", member->path);
		counts->undone++;
		return 0;
	case JOURNAL_DONE_NEW:
		counts->completed++;
		return clear_away(home, journal, member, true, err);
	case JOURNAL_INTENT:
	case JOURNAL_DONE_OLD:
		counts->undone++;
		return clear_away(home, journal, member, false, err);
	case JOURNAL_EMPTY:
	case JOURNAL_PRELUDE:
	case JOURNAL_KEPT:
		break;
	}
	return 0;
}

/* Opens and locks the workspace.  Returns 0 when somebody works there just now: the next command
 * will see to it. */
static int
take_member(const struct home *home, struct member *member, int *ret_lock, struct moat_error *err)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (open_member(member, err) < 0)
		return -1;
	/* Whose state was removed is known to nobody who could work on it. */
	if (lock_member(home, member, ret_lock, &local) == 0 || local.code == MOAT_NOT_FOUND)
		return 1;
	return local.code == MOAT_BUSY
		       ? 0
		       : moat_error_set(err, local.code, local.sys_errno, "%s", local.message);
}

/* Before there was a plan. */
static int
recover_prelude(const struct home *home, struct journal *journal, struct txn_recovery *counts,
		struct moat_error *err)
{
	AUTO_MEMBER struct member member = {.root_fd = -1, .stage_fd = -1};
	AUTO_CLOSE int lock = -1;
	bool made = false;
	int taken;

	if (prelude_read(journal, &member, &made, err) < 0)
		return -1;
	taken = made ? 1 : take_member(home, &member, &lock, err);
	if (taken <= 0)
		return taken;
	if (prelude_settle(journal, member.root_fd, false, err) < 0 ||
	    journal_remove(home, journal, err) < 0)
		return -1;
	counts->undone++;
	return 0;
}

static int
recover_one(const struct home *home, struct journal *journal, struct txn_recovery *counts,
	    struct moat_error *err)
{
	AUTO_MEMBER struct member member = {.root_fd = -1, .stage_fd = -1};
	AUTO_CLOSE int lock = -1;
	enum journal_state state;
	int taken;

	if (journal_state(journal, &state, err) < 0)
		return -1;
	if (state == JOURNAL_KEPT)
		return 0;
	if (state == JOURNAL_PRELUDE)
		return recover_prelude(home, journal, counts, err);
	if (state == JOURNAL_EMPTY || !journal_has(journal, "intent"))
		return journal_remove(home, journal, err);
	if (journal_read_intent(journal, &member, err) < 0)
		return -1;
	taken = take_member(home, &member, &lock, err);
	return taken <= 0 ? taken : complete(home, journal, state, &member, counts, err);
}

/* Journals whose owner is gone, locked. */
struct orphans {
	struct journal *items;
	size_t count;
};

static void
orphans_close(struct orphans *orphans)
{
	for (size_t i = 0; i < orphans->count; i++)
		journal_close(&orphans->items[i]);
	free(orphans->items);
}

static int
find_orphans(const struct home *home, struct orphans *orphans, struct moat_error *err)
{
	AUTO_CLOSE int gate = fs_lock(home->txn_fd, ".lock", true, true, err);
	AUTO_CLOSEDIR DIR *stream = gate < 0 ? NULL : fs_open_stream(home->txn_fd, "", err);
	struct dirent *entry;
	int next;

	if (stream == NULL)
		return -1;
	while ((next = fs_read_name(stream, &entry, err)) > 0) {
		struct moat_error local = MOAT_ERROR_INIT;
		struct journal journal, *more;

		if (strncmp(entry->d_name, "txn_", 4) != 0 ||
		    strlen(entry->d_name) >= sizeof journal.id)
			continue;
		if (journal_open(home, entry->d_name, &journal, &local) < 0) {
			if (local.code != MOAT_BUSY && local.code != MOAT_NOT_FOUND)
				log_warning("transaction %s: %s", entry->d_name, local.message);
			continue;
		}
		more = reallocarray(orphans->items, orphans->count + 1, sizeof *more);
		if (more == NULL) {
			journal_close(&journal);
			return moat_fail_memory(err);
		}
		orphans->items = more;
		orphans->items[orphans->count++] = journal;
	}
	return next < 0 ? -1 : 0;
}

int
txn_recover(const struct home *home, struct txn_recovery *ret, struct moat_error *err)
{
	CLEANUP(orphans_close) struct orphans orphans = {NULL, 0};
	sigset_t saved;

	*ret = (struct txn_recovery){0};
	if (find_orphans(home, &orphans, err) < 0)
		return moat_wrap(err, "look for interrupted transactions");
	if (orphans.count == 0)
		return 0;
	interrupt_hold(&saved);
	for (size_t i = 0; i < orphans.count; i++) {
		struct moat_error local = MOAT_ERROR_INIT;

		if (recover_one(home, &orphans.items[i], ret, &local) == 0)
			continue;
		log_warning("interrupted transaction %s: %s", orphans.items[i].id, local.message);
		ret->failed++;
	}
	interrupt_release(&saved);
	return 0;
}
