/* SPDX-License-Identifier: Apache-2.0 */
/* A plan in memory, and as bytes: "MOATTXN1", both manifests with their sizes, the operations, and
 * the SHA-256 of all before it. */
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>

#include "core/txn_internal.h"

#define PLAN_MAGIC "MOATTXN1"

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
	size_t at = out->size;

	buf_u64(out, 0);
	if (buf_check(out, err) < 0 || manifest_encode(manifest, out, err) < 0)
		return -1;
	for (unsigned i = 0; i < 8; i++)
		out->data[at + i] = (char) ((out->size - at - 8) >> (8 * i));
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
