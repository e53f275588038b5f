/* SPDX-License-Identifier: Apache-2.0 */
/* `snapshot export': the backend gives content back a batch at a time, the members follow each
 * other in the manifest's order. */
#include "core/export.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/sparse.h"
#include "common/tar.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/scratch.h"
#include "core/snap_internal.h"

#define BATCH_BYTES ((uint64_t) 64 << 20) /* on disk at once, or one file that is larger */
#define BATCH_FILES 4096
#define PIECE ((size_t) 64 * 1024)

/* A file of the batch. */
struct part {
	char name[24];
	bool done;
};

struct exporting {
	struct app *app;
	const struct snap *snap;
	struct workspace *workspace;
	struct manifest *manifest;
	struct backend *backend;
	struct scratch scratch;
	struct compressor *out;
	const struct moat_entry **items; /* of the batch */
	struct part *parts;
	size_t count;
	char *piece;
	uint64_t done_bytes, done_items;
};

static void
exporting_free(struct exporting *e)
{
	compress_free(e->out);
	backend_close(e->backend);
	manifest_free(e->manifest);
	workspace_close(e->workspace);
	scratch_close(&e->scratch);
	free(e->items);
	free(e->parts);
	free(e->piece);
}

/* ------------------------------------------------------------------------------------------ a
 * batch
 */

static int
place(const struct moat_extract *extract, size_t index, int *ret_dirfd, const char **ret_name,
      struct moat_error *err)
{
	struct exporting *e = extract->context;

	*ret_dirfd = e->scratch.fd;
	*ret_name = e->parts[index].name;
	return 0;
}

static int
hash_file(const struct exporting *e, const char *name, uint64_t *ret_size,
	  uint8_t ret[MOAT_HASH_SIZE], struct moat_error *err)
{
	AUTO_CLOSE int fd = openat(e->scratch.fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	AUTO_FREE uint8_t *piece = malloc(PIECE);
	struct sha256_ctx sha;
	ssize_t n;

	if (piece == NULL)
		return moat_fail_memory(err);
	if (fd < 0)
		return moat_fail_errno(err, "read back");
	sha256_init(&sha);
	*ret_size = 0;
	while ((n = read(fd, piece, PIECE)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail_errno(err, "read back");
		sha256_update(&sha, (size_t) n, piece);
		*ret_size += (uint64_t) n;
	}
	sha256_digest(&sha, MOAT_HASH_SIZE, ret);
	return 0;
}

/* [any thread] */
static int
done(const struct moat_extract *extract, size_t index, int fd, uint64_t size, const uint8_t *hash,
     struct moat_error *err)
{
	struct exporting *e = extract->context;
	const struct moat_entry *entry = e->items[index];
	uint8_t own[MOAT_HASH_SIZE];

	if (hash == NULL) {
		if (hash_file(e, e->parts[index].name, &size, own, err) < 0)
			return moat_wrap(err, "`%s'", entry->path);
		hash = own;
	}
	if (size != entry->size ||
	    ((entry->flags & MOAT_HAS_HASH) != 0 && memcmp(hash, entry->hash, MOAT_HASH_SIZE) != 0))
		return moat_fail(err, MOAT_CORRUPT,
				 "the stored content of `%s' is not what the snapshot took",
				 entry->path);
	e->parts[index].done = true;
	return 0;
}

static int
damaged(const struct moat_extract *extract, size_t index, const struct moat_error *why,
	struct moat_error *err)
{
	const struct exporting *e = extract->context;

	return moat_fail(err, MOAT_CORRUPT, "the stored content of `%s' is damaged: %s",
			 e->items[index]->path, why->message);
}

static bool
has_content(const struct moat_entry *entry)
{
	return entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER && entry->size > 0;
}

/* The files of the entries from `first' that make a batch.  Returns where the next one begins. */
static size_t
choose_batch(struct exporting *e, size_t first)
{
	uint64_t bytes = 0;
	size_t i;

	e->count = 0;
	for (i = first; i < e->manifest->count && e->count < BATCH_FILES; i++) {
		const struct moat_entry *entry = e->manifest->entries[i];

		if (!has_content(entry))
			continue;
		if (e->count > 0 &&
		    (entry->size > BATCH_BYTES || bytes > BATCH_BYTES - entry->size))
			break;
		snprintf(e->parts[e->count].name, sizeof e->parts->name, "%zu", i);
		e->parts[e->count].done = false;
		e->items[e->count++] = entry;
		bytes += entry->size;
		if (bytes >= BATCH_BYTES) {
			i++;
			break;
		}
	}
	return i;
}

static int
fetch_batch(struct exporting *e, struct moat_error *err)
{
	struct moat_entries entries = {.struct_size = sizeof entries,
				       .entry_size = sizeof(struct moat_entry),
				       .count = e->count,
				       .items = e->items};
	struct moat_extract extract = {.struct_size = sizeof extract,
				       .ref = e->snap->ref,
				       .entries = &entries,
				       .context = e,
				       .place = place,
				       .done = done,
				       .damaged = damaged};

	if (e->count == 0)
		return 0;
	if (snapshot_materialise(e->backend, &extract, err) < 0)
		return -1;
	for (size_t i = 0; i < e->count; i++)
		if (!e->parts[i].done)
			return moat_fail(err, MOAT_FAILED, "the backend did not give back `%s'",
					 e->items[i]->path);
	return 0;
}

/* -------------------------------------------------------------------------------------- the
 * members
 */

static int
put(struct exporting *e, const struct buf *data, struct moat_error *err)
{
	return compress_write(e->out, data->data, data->size, err);
}

/* Holes are passed over at once. */
static void
report(struct exporting *e, uint64_t bytes, uint64_t items)
{
	e->done_bytes += bytes;
	e->done_items += items;
	progress_report(e->done_bytes, e->snap->bytes, e->done_items, e->manifest->count);
}

static int
put_extent(struct exporting *e, int fd, const struct extent *extent, const char *path,
	   struct moat_error *err)
{
	uint64_t left = extent->size;
	off_t at = (off_t) extent->offset;

	while (left > 0) {
		ssize_t n = pread(fd, e->piece, left < PIECE ? (size_t) left : PIECE, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return moat_fail_errno(err, "read back `%s'", path);
		if (n == 0)
			return moat_fail(err, MOAT_FAILED, "`%s' became shorter", path);
		if (interrupt_pending() != 0)
			return moat_fail(err, MOAT_CANCELLED, "interrupted");
		if (compress_write(e->out, e->piece, (size_t) n, err) < 0)
			return -1;
		at += n;
		left -= (uint64_t) n;
		report(e, (uint64_t) n, 0);
	}
	return 0;
}

static int
put_padding(struct exporting *e, uint64_t size, struct moat_error *err)
{
	static const char zeros[TAR_BLOCK];

	return compress_write(e->out, zeros, (size_t) tar_padding(size), err);
}

static int
put_file(struct exporting *e, const struct moat_entry *entry, const char *name,
	 struct tar_member *member, struct moat_error *err)
{
	AUTO_CLOSE int fd = openat(e->scratch.fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	AUTO_SPARSE_MAP struct sparse_map map = {0};
	AUTO_BUF struct buf header = {0}, holes = {0};
	uint64_t data;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return moat_fail_errno(err, "read back `%s'", entry->path);
	if ((uint64_t) st.st_size != entry->size)
		return moat_fail(err, MOAT_FAILED, "`%s' has another size now", entry->path);
	if (sparse_map_scan(fd, &st, &map, &member->sparse, err) < 0 ||
	    (member->sparse && sparse_map_encode(&map, &holes, err) < 0))
		return -1;
	data = sparse_map_data(&map);
	member->real_size = entry->size;
	member->size = holes.size + data;
	if (tar_header(&header, member, err) < 0 || put(e, &header, err) < 0 ||
	    put(e, &holes, err) < 0)
		return -1;
	for (size_t i = 0; i < map.count; i++)
		if (put_extent(e, fd, &map.items[i], entry->path, err) < 0)
			return -1;
	if (unlinkat(e->scratch.fd, name, 0) < 0)
		return moat_fail_errno(err, "remove the copy of `%s'", entry->path);
	report(e, entry->size - data, 0);
	return put_padding(e, member->size, err);
}

static int
put_member(struct exporting *e, size_t index, size_t *part, struct moat_error *err)
{
	const struct moat_entry *entry = e->manifest->entries[index];
	AUTO_BUF struct buf header = {0};
	struct tar_member member = {
		.path = entry->path,
		.mode = entry->mode,
		.uid = entry->uid,
		.gid = entry->gid,
		.mtime_sec = entry->mtime_sec,
		.mtime_nsec = entry->mtime_nsec,
		.xattrs = entry->xattrs,
		.xattrs_size = entry->xattrs_size,
	};

	if (entry->leader != MOAT_NO_LEADER) {
		member.type = TAR_HARD_LINK;
		member.link = e->manifest->entries[entry->leader]->path;
		member.xattrs = NULL; /* they are the file's, not the name's */
	} else if (entry->type == MOAT_DIRECTORY) {
		member.type = TAR_DIRECTORY;
	} else if (entry->type == MOAT_SYMLINK) {
		member.type = TAR_SYMLINK;
		member.link = entry->link_target;
	} else {
		member.type = TAR_FILE;
		if (has_content(entry))
			return put_file(e, entry, e->parts[(*part)++].name, &member, err);
	}
	return tar_header(&header, &member, err) < 0 ? -1 : put(e, &header, err);
}

static int
put_all(struct exporting *e, struct moat_error *err)
{
	static const char end[2 * TAR_BLOCK];

	for (size_t first = 0; first < e->manifest->count;) {
		size_t next = choose_batch(e, first), part = 0;

		if (fetch_batch(e, err) < 0)
			return -1;
		for (; first < next; first++) {
			if (interrupt_pending() != 0)
				return moat_fail(err, MOAT_CANCELLED, "interrupted");
			if (put_member(e, first, &part, err) < 0)
				return -1;
			report(e, 0, 1);
		}
	}
	if (compress_write(e->out, end, sizeof end, err) < 0)
		return -1;
	return compress_finish(e->out, err);
}

/* ------------------------------------------------------------------------------------------- all
 */

static int
choose_format(const struct export_options *options, enum compress_format *ret,
	      struct moat_error *err)
{
	*ret = COMPRESS_NONE;
	if (options->format != NULL) {
		if (!compress_format_of_text(options->format, ret))
			return moat_fail(err, MOAT_USAGE, "--format=%s is not known",
					 options->format);
	} else if (strcmp(options->file, "-") != 0 &&
		   !compress_format_of_name(options->file, ret)) {
		return moat_fail(err, MOAT_USAGE,
				 "the name `%s' does not tell the format: it must end in .tar, "
				 ".tar.lz4, .tar.gz, .tgz, .tar.zst or .tzst; or give --format",
				 options->file);
	}
	return compress_check(*ret, err);
}

static int
prepare(struct exporting *e, struct moat_error *err)
{
	e->items = calloc(BATCH_FILES, sizeof(*e->items));
	e->parts = calloc(BATCH_FILES, sizeof *e->parts);
	e->piece = malloc(PIECE);
	if (e->items == NULL || e->parts == NULL || e->piece == NULL)
		return moat_fail_memory(err);
	return scratch_open(e->app->home, &e->scratch, err);
}

static int
write_archive(struct exporting *e, enum compress_format format, struct export_file *file,
	      struct moat_error *err)
{
	AUTO_CLOSE int lock = workspace_lock(e->workspace, err), store_fd = -1;
	struct byte_sink sink = export_file_sink(file);
	int result = -1;

	/* Nobody must delete meanwhile what is being read. */
	if (lock < 0 || snap_manifest(e->app->home, e->snap, &e->manifest, err) < 0 ||
	    snap_open_backend_named(e->app, e->workspace, e->snap->backend, e->snap->id, &store_fd,
				    &e->backend, err) < 0)
		return -1;
	progress_begin("exporting %s", e->snap->id);
	progress_mute_plugins();
	if (prepare(e, err) == 0 && compress_open(format, &sink, &e->out, err) == 0)
		result = put_all(e, err);
	progress_end();
	/* Before what it works on is closed. */
	backend_close(e->backend);
	e->backend = NULL;
	return result;
}

int
export_snapshot(struct app *app, const struct snap *snap, const struct export_options *options,
		uint64_t *ret_size, struct moat_error *err)
{
	CLEANUP(exporting_free)
	struct exporting e = {.app = app, .snap = snap, .scratch = SCRATCH_INIT};
	CLEANUP(export_file_close) struct export_file file = EXPORT_FILE_INIT;
	enum compress_format format;
	sigset_t saved;
	int result;

	if (choose_format(options, &format, err) < 0 ||
	    workspace_open_known(app->home, snap->workspace_hash, &e.workspace, err) < 0 ||
	    export_file_open(options->file, options->force, &file, err) < 0)
		return -1;
	/* A pipe may wait for ever, and then a signal must end it; what it leaves in moat's home is
	 * cleared by the next command. */
	if (file.is_file)
		interrupt_hold(&saved);
	result = write_archive(&e, format, &file, err);
	scratch_close(&e.scratch);
	if (result == 0)
		result = export_file_commit(&file, err);
	if (file.is_file)
		interrupt_release(&saved);
	*ret_size = file.size;
	return result < 0 ? moat_wrap(err, "export of %s", snap->id) : 0;
}
