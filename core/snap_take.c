/* SPDX-License-Identifier: Apache-2.0 */
/* The core's side of a capture.  Backends call it from several threads, each for other entries: an
 * entry is written to by the thread that has it; what all share (the manifest's memory, its skips,
 * the names of one file) is written under the lock. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/snap_internal.h"
#include "core/tree.h"

/* How often a file that keeps changing is read again before it is taken as it comes. */
#define TORN_TRIES 3
/* A difference that is larger than this part of its base is written whole. */
#define DIFFERENCE_SHARE 4

void
taking_free(struct taking *taking)
{
	free(taking->tries);
	free(taking->gone);
	free(taking->given);
	free(taking->next_name);
	buf_free(&taking->encoded);
	pthread_mutex_destroy(&taking->lock);
}

/* Chains the names of each file, so that none is looked for among all that comes later: most files
 * with several names may have the others outside of the tree. */
static int
chain_names(struct taking *taking, struct moat_error *err)
{
	const struct manifest *manifest = taking->manifest;

	for (size_t i = manifest->count; i-- > 0;) {
		uint64_t leader = manifest->entries[i]->leader;

		if (leader >= i)
			continue;
		if (taking->next_name == NULL)
			taking->next_name = calloc(manifest->count, sizeof(*taking->next_name));
		if (taking->next_name == NULL)
			return moat_fail_memory(err);
		taking->next_name[i] = taking->next_name[leader];
		taking->next_name[leader] = i;
	}
	return 0;
}

int
taking_init(struct taking *taking, struct manifest *manifest, struct moat_error *err)
{
	pthread_mutex_init(&taking->lock, NULL);
	taking->manifest = manifest;
	taking->tries = calloc(manifest->count + 1, sizeof(*taking->tries));
	taking->gone = calloc(manifest->count + 1, sizeof(*taking->gone));
	if (taking->tries == NULL || taking->gone == NULL)
		return moat_fail_memory(err);
	return chain_names(taking, err);
}

/* The next name of the same file, by path; 0, which is the root: there is none. */
static size_t
next_name(const struct taking *taking, size_t index)
{
	return taking->next_name == NULL ? 0 : taking->next_name[index];
}

static const struct moat_entry *
entry_at(const struct taking *taking, size_t index)
{
	return taking->manifest->entries[index];
}

/* ---------------------------------------------------------------------------------------- opening
 */

static int
open_entry(struct taking *taking, const struct moat_entry *entry, struct stat *ret,
	   struct moat_error *err)
{
	AUTO_CLOSE int fd = -1;

	if (taking->source == NULL)
		return tree_open_status(taking->root_fd, entry, ret, err);
	fd = taking->source->open(taking->source->context, entry, err);
	if (fd < 0)
		return -1;
	if (fstat(fd, ret) < 0)
		return moat_fail_errno(err, "look at `%s'", entry->path);
	return steal_fd(&fd);
}

/* Another name of the same file, when the first has vanished. */
static int
open_other_name(struct taking *taking, size_t leader, struct stat *ret, struct moat_error *err)
{
	for (size_t i = next_name(taking, leader); i > 0; i = next_name(taking, i)) {
		int fd = open_entry(taking, entry_at(taking, i), ret, err);

		if (fd >= 0 || (err->code != MOAT_GONE && err->code != MOAT_CHANGED))
			return fd;
		moat_error_clear(err);
	}
	return moat_fail(err, MOAT_GONE, "`%s' vanished", entry_at(taking, leader)->path);
}

/* A file that cannot be captured: noted with all its names.  Under the lock. */
static int
leave_out(struct taking *taking, size_t index, const struct moat_error *why, struct moat_error *err)
{
	int reason = why->code == MOAT_PERMISSION ? SKIP_UNREADABLE : SKIP_VANISHED;
	char text[256];
	const char *detail = why->sys_errno == 0
				     ? "removed or replaced while the snapshot was taken"
				     : strerror_r(why->sys_errno, text, sizeof text);

	do {
		taking->gone[index] = true;
		if (manifest_add_skip(taking->manifest, entry_at(taking, index)->path, reason,
				      detail, err) < 0)
			return -1;
		index = next_name(taking, index);
	} while (index > 0);
	return 0;
}

static int
note_left_out(struct taking *taking, size_t index, const struct moat_error *why,
	      struct moat_error *err)
{
	struct moat_error noting = MOAT_ERROR_INIT;
	int noted;

	if (why->code != MOAT_GONE && why->code != MOAT_CHANGED && why->code != MOAT_PERMISSION)
		return moat_error_set(err, why->code, why->sys_errno, "%s", why->message);
	pthread_mutex_lock(&taking->lock);
	noted = leave_out(taking, index, why, &noting);
	pthread_mutex_unlock(&taking->lock);
	return noted < 0 ? moat_error_set(err, noting.code, 0, "%s", noting.message)
			 : moat_error_set(err, why->code, why->sys_errno, "%s", why->message);
}

static int
check_index(const struct taking *taking, size_t index, struct moat_error *err)
{
	if (index < taking->manifest->count && !taking->finished &&
	    entry_at(taking, index)->type == MOAT_FILE &&
	    entry_at(taking, index)->leader == MOAT_NO_LEADER)
		return 0;
	return moat_fail(err, MOAT_FAILED,
			 "the backend asked for entry %zu, which is no file of its own", index);
}

/* The entry, to be written to: one that is shared with the previous manifest stays as it is there.
 */
static struct moat_entry *
own_entry(struct taking *taking, size_t index, struct moat_error *err)
{
	struct moat_entry *entry;

	if (taking->manifest->shared == NULL)
		return (struct moat_entry *) entry_at(taking, index);
	pthread_mutex_lock(&taking->lock);
	entry = manifest_own(taking->manifest, index);
	pthread_mutex_unlock(&taking->lock);
	if (entry == NULL)
		(void) moat_fail_memory(err);
	return entry;
}

static void
take_stat(const struct taking *taking, struct moat_entry *entry, const struct stat *st)
{
	entry->size = (uint64_t) st->st_size;
	if ((uint64_t) st->st_blocks * 512 < entry->size)
		entry->flags |= MOAT_IS_SPARSE;
	if (taking->source != NULL)
		return;
	if (!taking->keep_modes)
		entry->mode = st->st_mode & 07777;
	entry->mtime_sec = st->st_mtim.tv_sec;
	entry->mtime_nsec = (uint32_t) st->st_mtim.tv_nsec;
	entry->ctime_sec = st->st_ctim.tv_sec;
	entry->ctime_nsec = (uint32_t) st->st_ctim.tv_nsec;
}

static bool
is_still(const struct taking *taking, const struct moat_entry *entry, const struct stat *st)
{
	if (taking->source != NULL)
		return entry->size == (uint64_t) st->st_size;
	return entry->size == (uint64_t) st->st_size && entry->mtime_sec == st->st_mtim.tv_sec &&
	       entry->mtime_nsec == (uint32_t) st->st_mtim.tv_nsec &&
	       entry->ctime_sec == st->st_ctim.tv_sec &&
	       entry->ctime_nsec == (uint32_t) st->st_ctim.tv_nsec;
}

/* Of the open file, for the entry; a backend may store them beside the content.  Most files have
 * none. */
static int
take_xattrs(struct taking *taking, struct moat_entry *entry, int fd, struct moat_error *err)
{
	struct arena arena = {0};
	const void *xattrs;
	uint32_t size;
	int result = 0;

	if (taking->source != NULL)
		return 0;
	if (tree_xattrs(fd, &arena, &xattrs, &size, err) < 0) {
		arena_free(&arena);
		return moat_wrap(err, "`%s'", entry->path);
	}
	entry->xattrs = NULL;
	entry->xattrs_size = size;
	if (size > 0) {
		pthread_mutex_lock(&taking->lock);
		entry->xattrs = arena_copy(&taking->manifest->arena, xattrs, size);
		pthread_mutex_unlock(&taking->lock);
		if (entry->xattrs == NULL)
			result = moat_fail_memory(err);
	}
	arena_free(&arena);
	return result;
}

static int
capture_open(const struct moat_capture *capture, size_t index, struct moat_error *err)
{
	struct taking *taking = capture->context;
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_CLOSE int fd = -1;
	struct moat_entry *entry;
	struct stat st;

	if (check_index(taking, index, err) < 0)
		return -1;
	entry = own_entry(taking, index, err);
	if (entry == NULL)
		return -1;
	fd = open_entry(taking, entry, &st, &why);
	if (fd < 0 && entry->nlink > 1 && taking->source == NULL &&
	    (why.code == MOAT_GONE || why.code == MOAT_CHANGED)) {
		moat_error_clear(&why);
		fd = open_other_name(taking, index, &st, &why);
	}
	if (fd < 0)
		return note_left_out(taking, index, &why, err);
	take_stat(taking, entry, &st);
	return take_xattrs(taking, entry, fd, err) < 0 ? -1 : steal_fd(&fd);
}

/* ----------------------------------------------------------------------------------------- stored
 */

/* The names of one inode are one file: what was learned by reading it holds for all. */
static void
share_with_names(struct taking *taking, size_t leader)
{
	const struct moat_entry *first = entry_at(taking, leader);

	for (size_t i = next_name(taking, leader); i > 0; i = next_name(taking, i)) {
		/* What has a leader is never shared. */
		struct moat_entry *entry = (struct moat_entry *) entry_at(taking, i);

		entry->size = first->size;
		entry->mode = first->mode;
		entry->mtime_sec = first->mtime_sec;
		entry->mtime_nsec = first->mtime_nsec;
		entry->ctime_sec = first->ctime_sec;
		entry->ctime_nsec = first->ctime_nsec;
		entry->xattrs = first->xattrs;
		entry->xattrs_size = first->xattrs_size;
	}
}

static int
take_content(struct taking *taking, struct moat_entry *entry, size_t index, uint64_t size,
	     const uint8_t *hash, const uint64_t locator[3], bool torn, struct moat_error *err)
{
	int result = 0;

	entry->size = size;
	memcpy(entry->locator, locator, sizeof entry->locator);
	entry->flags = (uint16_t) ((entry->flags & MOAT_IS_SPARSE) | MOAT_HAS_LOCATOR);
	if (hash != NULL) {
		memcpy(entry->hash, hash, MOAT_HASH_SIZE);
		entry->flags |= MOAT_HAS_HASH;
	}
	if (entry->nlink <= 1 && !torn)
		return 0;
	pthread_mutex_lock(&taking->lock);
	share_with_names(taking, index);
	if (torn)
		result =
			manifest_add_skip(taking->manifest, entry->path, SKIP_TORN,
					  "it was being written while the snapshot was taken", err);
	pthread_mutex_unlock(&taking->lock);
	return result;
}

static int
capture_stored(const struct moat_capture *capture, size_t index, int fd, uint64_t size,
	       const uint8_t *hash, const uint64_t locator[3], struct moat_error *err)
{
	struct taking *taking = capture->context;
	struct moat_entry *entry;
	struct stat st;
	bool moved;

	if (check_index(taking, index, err) < 0)
		return -1;
	entry = own_entry(taking, index, err);
	if (entry == NULL)
		return -1;
	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "look at `%s'", entry->path);
	moved = !is_still(taking, entry, &st) || size != (uint64_t) st.st_size;
	if (moved) {
		take_stat(taking, entry, &st);
		if (take_xattrs(taking, entry, fd, err) < 0)
			return -1;
		if (++taking->tries[index] < TORN_TRIES)
			return 1;
	}
	return take_content(taking, entry, index, size, hash, locator, moved, err);
}

/* ----------------------------------------------------------------------------------------- the end
 */

static int
encode(struct taking *taking, struct moat_error *err)
{
	if (taking->base != NULL) {
		if (manifest_encode_difference(taking->manifest, taking->base, taking->base_id,
					       &taking->encoded, err) < 0)
			return -1;
		if (taking->encoded.size <= taking->base->encoded_size / DIFFERENCE_SHARE) {
			taking->used_base = taking->base_id;
			return 0;
		}
		buf_free(&taking->encoded);
	}
	return manifest_encode(taking->manifest, &taking->encoded, err);
}

/* The backend goes on with the list that it was given, so the manifest gets another. */
static int
drop_gone(struct taking *taking, struct moat_error *err)
{
	struct manifest *manifest = taking->manifest;
	const struct moat_entry **kept = calloc(manifest->count + 1, sizeof(*kept));
	size_t count = 0;

	if (kept == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < manifest->count; i++)
		if (!taking->gone[i])
			kept[count++] = manifest->entries[i];
	taking->given = manifest->entries;
	manifest->entries = kept;
	manifest->allocated = manifest->count + 1;
	manifest->count = count;
	return manifest_seal(manifest, err);
}

/* Every file of the manifest must have come through; those that vanished leave it. */
static int
finish(struct taking *taking, struct moat_error *err)
{
	const struct manifest *manifest = taking->manifest;
	size_t gone = 0;

	if (taking->finished)
		return 0;
	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = entry_at(taking, i);

		gone += taking->gone[i];
		if (!taking->gone[i] && entry->type == MOAT_FILE &&
		    entry->leader == MOAT_NO_LEADER && (entry->flags & MOAT_HAS_LOCATOR) == 0)
			return moat_fail(err, MOAT_FAILED, "the backend did not store `%s'",
					 entry->path);
	}
	taking->finished = true;
	if (gone > 0 && drop_gone(taking, err) < 0)
		return -1;
	return encode(taking, err);
}

static int
capture_manifest(const struct moat_capture *capture, const void **ret, size_t *ret_size,
		 struct moat_error *err)
{
	struct taking *taking = capture->context;

	if (finish(taking, err) < 0)
		return -1;
	*ret = taking->encoded.data;
	*ret_size = taking->encoded.size;
	return 0;
}

int
taking_capture(struct taking *taking, struct backend *backend, const char *id, const char *previous,
	       struct moat_ref *ret, struct moat_error *err)
{
	struct moat_entries entries = {
		.struct_size = sizeof entries,
		.entry_size = sizeof(struct moat_entry),
		.count = taking->manifest->count,
		.items = taking->manifest->entries,
	};
	struct moat_capture capture = {
		.struct_size = sizeof capture,
		.snapshot = id,
		.previous = previous,
		.source_fd = taking->root_fd,
		.entries = &entries,
		.context = taking,
		.open = capture_open,
		.stored = capture_stored,
		.manifest = capture_manifest,
	};

	if (snapshot_capture(backend, &capture, ret, err) < 0)
		return -1;
	return finish(taking, err);
}
