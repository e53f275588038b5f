/* SPDX-License-Identifier: Apache-2.0 */
/* The journal of a transaction: what is to be done, how far it was decided, and how it ends.
 *
 *     txn/TXN/lock     held by the process that works on it
 *             intent   JSON: which workspace, where its stage is
 *             plan     the operations (plan_encode)
 *             commit   the decision: exists = new; becomes undo, done-new or done-old by rename
 *             stage/   unless the stage is in the workspace
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/json.h"
#include "core/txn_internal.h"

#define PLAN_MAGIC "MOATTXN1"
#define PLAN_MAX ((size_t) 4 << 30)

static const char *const state_names[] = {
	[JOURNAL_INTENT] = "intent",     [JOURNAL_COMMIT] = "commit",     [JOURNAL_UNDO] = "undo",
	[JOURNAL_DONE_NEW] = "done-new", [JOURNAL_DONE_OLD] = "done-old", [JOURNAL_KEPT] = "kept",
};

/* ------------------------------------------------------------------------------------- the plan */

void
plan_free(struct plan *plan)
{
	manifest_free(plan->from);
	manifest_free(plan->to);
	free(plan->ops);
	memset(plan, 0, sizeof *plan);
}

struct op *
plan_add(struct plan *plan, enum op_kind kind, int64_t from, int64_t to)
{
	struct op *op;

	if (plan->count == plan->allocated) {
		size_t n = plan->allocated == 0 ? 64 : plan->allocated * 2;
		struct op *more = reallocarray(plan->ops, n, sizeof *more);

		if (more == NULL)
			return NULL;
		plan->ops = more;
		plan->allocated = n;
	}
	op = &plan->ops[plan->count];
	*op = (struct op){.kind = kind, .from = from, .to = to, .number = plan->count};
	plan->count++;
	return op;
}

const struct moat_entry *
plan_from(const struct plan *plan, const struct op *op)
{
	return op->from < 0 ? NULL : plan->from->entries[op->from];
}

const struct moat_entry *
plan_to(const struct plan *plan, const struct op *op)
{
	return op->to < 0 ? NULL : plan->to->entries[op->to];
}

const char *
plan_path(const struct plan *plan, const struct op *op)
{
	return op->from >= 0 ? plan_from(plan, op)->path : plan_to(plan, op)->path;
}

size_t
plan_subtree_end(const struct manifest *manifest, size_t top)
{
	const char *path = manifest->entries[top]->path;
	size_t n = strlen(path), i = top + 1;

	while (i < manifest->count &&
	       (n == 0 || (strncmp(manifest->entries[i]->path, path, n) == 0 &&
			   manifest->entries[i]->path[n] == '/')))
		i++;
	return i;
}

static int
encode_manifest(const struct manifest *manifest, struct buf *out, struct moat_error *err)
{
	AUTO_BUF struct buf encoded = {0};

	if (manifest_encode(manifest, &encoded, err) < 0 || buf_check(&encoded, err) < 0)
		return -1;
	buf_u64(out, encoded.size);
	buf_append(out, encoded.data, encoded.size);
	return 0;
}

int
plan_encode(const struct plan *plan, struct buf *out, struct moat_error *err)
{
	struct sha256_ctx ctx;
	uint8_t digest[SHA256_DIGEST_SIZE];

	buf_append(out, PLAN_MAGIC, 8);
	if (encode_manifest(plan->from, out, err) < 0 || encode_manifest(plan->to, out, err) < 0)
		return -1;
	buf_u64(out, plan->count);
	for (size_t i = 0; i < plan->count; i++) {
		buf_u32(out, (uint32_t) plan->ops[i].kind);
		buf_u64(out, (uint64_t) plan->ops[i].from);
		buf_u64(out, (uint64_t) plan->ops[i].to);
		buf_u64(out, plan->ops[i].number);
		buf_u64(out, plan->ops[i].ino);
	}
	if (buf_check(out, err) < 0)
		return -1;
	sha256_init(&ctx);
	sha256_update(&ctx, out->size, (const uint8_t *) out->data);
	sha256_digest(&ctx, sizeof digest, digest);
	buf_append(out, digest, sizeof digest);
	return buf_check(out, err);
}

/* A place in encoded bytes.  Past the end it yields zeros and remembers. */
struct reader {
	const uint8_t *data;
	size_t size, at;
	bool failed;
};

static uint64_t
read_number(struct reader *reader, size_t bytes)
{
	uint64_t value = 0;

	if (reader->size - reader->at < bytes) {
		reader->failed = true;
		return 0;
	}
	for (size_t i = 0; i < bytes; i++)
		value |= (uint64_t) reader->data[reader->at + i] << (8 * i);
	reader->at += bytes;
	return value;
}

static int
decode_manifest(struct reader *reader, struct manifest **ret, struct moat_error *err)
{
	uint64_t size = read_number(reader, 8);

	if (reader->failed || size > reader->size - reader->at)
		return moat_fail(err, MOAT_CORRUPT, "the plan is truncated");
	if (manifest_decode(reader->data + reader->at, size, ret, err) < 0)
		return -1;
	reader->at += size;
	return 0;
}

/* What kind of operation needs which entries. */
static bool
op_is_sane(const struct op *op, const struct plan *plan)
{
	if (op->from < -1 || op->from >= (int64_t) plan->from->count || op->to < -1 ||
	    op->to >= (int64_t) plan->to->count)
		return false;
	switch (op->kind) {
	case OP_OPEN:
	case OP_DELETE:
	case OP_RMDIR:
		return op->from >= 0;
	case OP_CREATE:
		return op->to >= 0;
	case OP_REPLACE:
	case OP_META:
		return op->from >= 0 && op->to >= 0;
	case OP_DIRMETA:
		return op->from >= 0 || op->to >= 0;
	}
	return false;
}

static int
decode_ops(struct reader *reader, struct plan *plan, struct moat_error *err)
{
	uint64_t count = read_number(reader, 8);

	if (reader->failed || count > (reader->size - reader->at) / 36)
		return moat_fail(err, MOAT_CORRUPT, "the plan is truncated");
	for (uint64_t i = 0; i < count; i++) {
		enum op_kind kind = (enum op_kind) read_number(reader, 4);
		int64_t from = (int64_t) read_number(reader, 8);
		int64_t to = (int64_t) read_number(reader, 8);
		struct op *op = plan_add(plan, kind, from, to);

		if (op == NULL)
			return moat_fail_memory(err);
		op->number = read_number(reader, 8);
		op->ino = read_number(reader, 8);
		if (!op_is_sane(op, plan))
			return moat_fail(err, MOAT_CORRUPT,
					 "operation %llu of the plan makes no sense",
					 (unsigned long long) i);
	}
	return 0;
}

int
plan_decode(const void *data, size_t size, struct plan *ret, struct moat_error *err)
{
	struct reader reader = {data, size, 8, false};
	struct sha256_ctx ctx;
	uint8_t digest[SHA256_DIGEST_SIZE];

	memset(ret, 0, sizeof *ret);
	if (size < 8 + sizeof digest || memcmp(data, PLAN_MAGIC, 8) != 0)
		return moat_fail(err, MOAT_CORRUPT, "it is not a plan of this version of moat");
	reader.size -= sizeof digest;
	sha256_init(&ctx);
	sha256_update(&ctx, reader.size, data);
	sha256_digest(&ctx, sizeof digest, digest);
	if (memcmp(digest, reader.data + reader.size, sizeof digest) != 0)
		return moat_fail(err, MOAT_CORRUPT, "the plan is damaged (its checksum is wrong)");
	if (decode_manifest(&reader, &ret->from, err) < 0 ||
	    decode_manifest(&reader, &ret->to, err) < 0 || decode_ops(&reader, ret, err) < 0) {
		plan_free(ret);
		return -1;
	}
	return 0;
}

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
	for (int state = JOURNAL_KEPT; state >= JOURNAL_INTENT; state--) {
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
	    json_put_int(intent, "root_mtime_nsec", member->root_mtime_nsec) < 0)
		return moat_fail_memory(err);
	return json_write(journal->fd, "intent", intent, err);
}

int
journal_read_intent(const struct journal *journal, struct member *member, struct moat_error *err)
{
	AUTO_JSON json_t *intent = NULL;
	const char *hash;

	if (json_read(journal->fd, "intent", "intent of a transaction", &intent, err) < 0)
		return -1;
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
