/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-reflink: snapshots as clones, which share their blocks with the workspace.  The vtable.
 */
#include "reflink.h"

#include <stdlib.h>

void
reflink_log(const struct reflink *reflink, int level, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	(void) vsnprintf(line, sizeof line, format, args);
	va_end(args);
	reflink->host->log(REFLINK_NAME, level, line);
}

int
reflink_hash(const struct reflink *reflink, const void *data, size_t size,
	     uint8_t ret[MOAT_HASH_SIZE], struct moat_error *err)
{
	struct moat_hash *hash = reflink->host->hash_new();

	if (hash == NULL)
		return moat_fail_memory(err);
	if (size > 0)
		reflink->host->hash_update(hash, data, size);
	reflink->host->hash_end(hash, ret);
	return 0;
}

static int
reflink_open(const struct moat_host *host, const struct moat_store *store, void **ret_self,
	     struct moat_error *err)
{
	struct reflink *reflink = calloc(1, sizeof *reflink);

	if (reflink == NULL)
		return moat_fail_memory(err);
	reflink->host = host;
	reflink->dirfd = store->dirfd;
	reflink->path = store->path;
	*ret_self = reflink;
	return 0;
}

static void
reflink_close(void *self)
{
	free(self);
}

static const struct moat_snapshot_ops ops = {
	MOAT_OPS(snapshot),
	.capabilities = MOAT_SNAPSHOT_CLONES,
	.probe = reflink_probe,
	.open = reflink_open,
	.close = reflink_close,
	.capture = reflink_capture,
	.materialise = reflink_materialise,
	.remove = reflink_remove,
	.verify = reflink_verify,
	.enumerate = reflink_enumerate,
};

static const struct moat_plugin plugin = MOAT_PLUGIN_INIT(
	MOAT_KIND_SNAPSHOT, "reflink", "0.1.0", "Apache-2.0",
	"snapshots that share blocks with the workspace, on btrfs, XFS, bcachefs", &ops, NULL);

const struct moat_plugin *
moat_plugin_init(const struct moat_host *host)
{
	return &plugin;
}
