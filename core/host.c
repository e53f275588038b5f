/* SPDX-License-Identifier: Apache-2.0 */
/* The host table: the services of the core that plugins call.  Arguments come from plugins, so NULL
 * is survived where it could be passed by mistake. */
#include <nettle/sha2.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/fs.h"
#include "core/loader.h"
#include "core/log.h"

_Static_assert(SHA256_DIGEST_SIZE == MOAT_HASH_SIZE, "the content hash is SHA-256");

typedef void progress_fn(uint64_t, uint64_t, uint64_t, uint64_t);
typedef int cancelled_fn(void);

/* Atomic, because plugins call from threads of their own. */
static _Atomic(progress_fn *) progress_hook;
static _Atomic(cancelled_fn *) cancelled_hook;

void
host_set_progress(progress_fn *progress)
{
	atomic_store(&progress_hook, progress);
}

void
host_set_cancelled(cancelled_fn *cancelled)
{
	atomic_store(&cancelled_hook, cancelled);
}

static void
host_progress(uint64_t done_bytes, uint64_t total_bytes, uint64_t done_items, uint64_t total_items)
{
	progress_fn *progress = atomic_load(&progress_hook);

	if (progress != NULL)
		progress(done_bytes, total_bytes, done_items, total_items);
}

static int
host_cancelled(void)
{
	cancelled_fn *cancelled = atomic_load(&cancelled_hook);

	return cancelled != NULL && cancelled();
}

static void
host_log(const char *who, int level, const char *message)
{
	if (level < MOAT_LOG_ERROR || level > MOAT_LOG_DEBUG)
		level = MOAT_LOG_WARNING;
	log_plugin(who != NULL ? who : "a plugin", level, message != NULL ? message : "");
}

static void *
host_alloc(size_t size)
{
	return calloc(1, size > 0 ? size : 1);
}

static int
host_open_beneath(int dirfd, const char *path, int flags, unsigned mode, struct moat_error *err)
{
	if (path == NULL)
		return moat_fail(err, MOAT_FAILED, "open_beneath: no path was given");
	return fs_open_beneath(dirfd, path, flags, (mode_t) mode, err);
}

struct moat_hash {
	struct sha256_ctx context;
};

static struct moat_hash *
host_hash_new(void)
{
	struct moat_hash *hash = malloc(sizeof *hash);

	if (hash != NULL)
		sha256_init(&hash->context);
	return hash;
}

static void
host_hash_update(struct moat_hash *hash, const void *data, size_t size)
{
	if (hash != NULL && size > 0)
		sha256_update(&hash->context, size, data);
}

static void
host_hash_end(struct moat_hash *hash, uint8_t ret[MOAT_HASH_SIZE])
{
	if (hash != NULL && ret != NULL)
		sha256_digest(&hash->context, MOAT_HASH_SIZE, ret);
	free(hash);
}

const struct moat_host *
host_table(void)
{
	static const struct moat_host host = {
		.struct_size = sizeof host,
		.api_version = MOAT_API_VERSION,
		.version = MOAT_VERSION,
		.log = host_log,
		.alloc = host_alloc,
		.dealloc = free,
		.progress = host_progress,
		.cancelled = host_cancelled,
		.config_string = config_get_string,
		.config_int = config_get_int,
		.config_bool = config_get_bool,
		.config_size = config_get_size,
		.config_duration = config_get_duration,
		.open_beneath = host_open_beneath,
		.hash_new = host_hash_new,
		.hash_update = host_hash_update,
		.hash_end = host_hash_end,
	};

	return &host;
}
