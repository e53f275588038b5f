/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot-archive: snapshots as .tar.lz4 files that stock tools open.  The vtable. */
#include "archive.h"

#include <stdlib.h>
#include <string.h>

#include "crew.h"

int
archive_check_cancelled(const struct archive *archive, struct moat_error *err)
{
	if (archive->host->cancelled() == 0)
		return 0;
	return moat_fail(err, MOAT_CANCELLED, "cancelled");
}

void
archive_log(const struct archive *archive, int level, const char *format, ...)
{
	char line[1024];
	va_list args;

	va_start(args, format);
	(void) vsnprintf(line, sizeof line, format, args);
	va_end(args);
	archive->host->log(ARCHIVE_NAME, level, line);
}

int
archive_check(const struct archive *archive, const void *data, size_t size, uint8_t ret[16],
	      struct moat_error *err)
{
	AUTO_HASHER struct hasher hasher = {0};
	uint8_t hash[MOAT_HASH_SIZE];

	if (hasher_begin(&hasher, archive->host, err) < 0)
		return -1;
	hasher_data(&hasher, data, size);
	hasher_end(&hasher, hash);
	memcpy(ret, hash, 16);
	return 0;
}

int
hasher_begin(struct hasher *hasher, const struct moat_host *host, struct moat_error *err)
{
	hasher->host = host;
	hasher->hash = host->hash_new();
	return hasher->hash == NULL ? moat_fail_memory(err) : 0;
}

void
hasher_data(struct hasher *hasher, const void *data, size_t size)
{
	if (size > 0)
		hasher->host->hash_update(hasher->hash, data, size);
}

void
hasher_zeros(struct hasher *hasher, uint64_t size)
{
	static const uint8_t zeros[32768];

	for (; size > sizeof zeros; size -= sizeof zeros)
		hasher_data(hasher, zeros, sizeof zeros);
	hasher_data(hasher, zeros, (size_t) size);
}

void
hasher_end(struct hasher *hasher, uint8_t ret[MOAT_HASH_SIZE])
{
	hasher->host->hash_end(hasher->hash, ret);
	hasher->hash = NULL;
}

void
cleanup_hasher(struct hasher *hasher)
{
	if (hasher->hash != NULL)
		hasher_end(hasher, NULL);
}

static int
archive_probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
	      struct moat_error *err)
{
	bid->score = 50;
	(void) snprintf(bid->reason, sizeof bid->reason, "%s",
			"stores changed files as .tar.lz4, works everywhere");
	return 0;
}

static int
read_level(const struct moat_host *host, const struct moat_config *config, int *ret,
	   struct moat_error *err)
{
	int64_t level = 0;

	if (host->config_int(config, "level", &level, err) < 0)
		return -1;
	if (level < 0 || level > 12)
		return moat_fail(err, MOAT_USAGE,
				 "plugins." ARCHIVE_NAME ".level is %lld; LZ4 has the levels 0 "
				 "(fast) to 12 (small)",
				 (long long) level);
	*ret = (int) level;
	return 0;
}

static int
read_full_after(const struct moat_host *host, const struct moat_config *config, int64_t *ret,
		struct moat_error *err)
{
	*ret = 100;
	if (host->config_int(config, "full_after", ret, err) < 0)
		return -1;
	if (*ret < 0)
		return moat_fail(err, MOAT_USAGE,
				 "plugins." ARCHIVE_NAME ".full_after is %lld; it is a number of "
				 "packs, or 0 for never",
				 (long long) *ret);
	return 0;
}

static int
read_threads(const struct moat_host *host, const struct moat_config *config, size_t *ret,
	     struct moat_error *err)
{
	int64_t threads = 0;

	if (host->config_int(config, "threads", &threads, err) < 0)
		return -1;
	if (threads < 0 || threads > CREW_MAX)
		return moat_fail(err, MOAT_USAGE,
				 "plugins." ARCHIVE_NAME ".threads is %lld; it can be 1 to %d, or "
				 "0 for one for each cpu",
				 (long long) threads, CREW_MAX);
	*ret = threads == 0 ? crew_cpus() : (size_t) threads;
	return 0;
}

static int
archive_open(const struct moat_host *host, const struct moat_store *store, void **ret_self,
	     struct moat_error *err)
{
	AUTO_FREE struct archive *archive = calloc(1, sizeof *archive);

	if (archive == NULL)
		return moat_fail_memory(err);
	archive->host = host;
	archive->dirfd = store->dirfd;
	archive->path = store->path;
	if (read_level(host, store->config, &archive->level, err) < 0 ||
	    read_full_after(host, store->config, &archive->full_after, err) < 0 ||
	    read_threads(host, store->config, &archive->threads, err) < 0)
		return -1;
	*ret_self = STEAL(archive);
	return 0;
}

static void
archive_close(void *self)
{
	free(self);
}

static const struct moat_snapshot_ops ops = {
	MOAT_OPS(snapshot),       .probe = archive_probe,     .open = archive_open,
	.close = archive_close,   .capture = archive_capture, .materialise = archive_materialise,
	.remove = archive_remove, .verify = archive_verify,   .enumerate = archive_enumerate,
};

static const struct moat_plugin plugin = MOAT_PLUGIN_INIT(
	MOAT_KIND_SNAPSHOT, "archive", "0.1.0", "Apache-2.0",
	"incremental snapshots as .tar.lz4 files that stock tools open", &ops, NULL);

const struct moat_plugin *
moat_plugin_init(const struct moat_host *host)
{
	return &plugin;
}
