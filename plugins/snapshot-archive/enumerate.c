/* SPDX-License-Identifier: Apache-2.0 */
/* The copies of manifests in a store, from which a lost index is rebuilt. */
#include "common/buf.h"
#include "pack_read.h"
#include "store.h"

struct enumerating {
	const struct archive *archive;
	int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
		     size_t manifest_size, struct moat_error *err);
	void *context;
	struct pack_cursor cursor;
	uint32_t flags; /* of the refs */
};

static int
read_manifest(struct enumerating *e, uint64_t number, struct buf *out, struct moat_ref *ref,
	      struct moat_error *err)
{
	AUTO_PACK struct pack *pack = NULL;

	if (pack_open(e->archive, number, &pack, err) < 0)
		return -1;
	e->cursor.pack = NULL;
	/* A pack whose snapshot was removed need not have one. */
	if (e->flags == MOAT_REF_REMOVED && pack_manifest(pack) == NULL)
		return 1;
	ref->stored_bytes = pack->size;
	if (pack_read_manifest(&e->cursor, pack, out, err) == 0)
		return 0;
	return pack_blame(e->archive, number, err);
}

/* A pack that cannot be read is warned of: the others can still be listed. */
static int
visit_pack(void *context, uint64_t number, struct moat_error *err)
{
	struct enumerating *e = context;
	struct moat_ref ref = {.struct_size = sizeof ref, .flags = e->flags};
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_BUF struct buf manifest = {0};
	char name[PACK_NAME_MAX];
	int r = read_manifest(e, number, &manifest, &ref, &why);

	if (r > 0)
		return 0;
	if (r < 0 && why.code != MOAT_CORRUPT)
		return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
	if (r < 0) {
		archive_log(e->archive, MOAT_LOG_WARNING, "%s", why.message);
		return 0;
	}
	(void) snprintf(ref.text, sizeof ref.text, "%.17s", pack_name(name, number, PACK_LIVE));
	return e->found(e->context, &ref, manifest.data, manifest.size, err);
}

int
archive_enumerate(void *self,
		  int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
			       size_t manifest_size, struct moat_error *err),
		  void *context, struct moat_error *err)
{
	struct enumerating e = {.archive = self, .found = found, .context = context};
	int r = pack_cursor_init(&e.cursor, err);

	if (r == 0)
		r = store_each(self, PACK_LIVE, visit_pack, &e, err);
	e.flags = MOAT_REF_REMOVED;
	if (r == 0)
		r = store_each(self, PACK_ORPHAN, visit_pack, &e, err);
	pack_cursor_destroy(&e.cursor);
	return r;
}
