/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a snapshot: the core walks, filters and keeps the manifest; a backend stores the content.
 */
#include "core/snap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/snap_internal.h"
#include "core/tree.h"

/* How often a file that keeps changing is read again before it is taken as it comes. */
#define TORN_TRIES 3

/* -------------------------------------------------------------------------------------- the
 * capture */

/* One capture under way; the core's side of struct moat_capture. */
struct taking {
	const struct workspace *workspace;
	struct manifest *manifest;
	const struct snap_source *source; /* NULL: the workspace */
	struct moat_entry **entries;      /* of the manifest, writable */
	uint8_t *tries;                   /* per entry */
	bool *gone;                       /* per entry: not to be in the manifest */
	struct buf encoded;
	bool finished;
	pthread_mutex_t lock;
};

static void
taking_free(struct taking *taking)
{
	free(taking->entries);
	free(taking->tries);
	free(taking->gone);
	buf_free(&taking->encoded);
	pthread_mutex_destroy(&taking->lock);
}

static int
taking_init(struct taking *taking, const struct workspace *workspace, struct manifest *manifest,
	    struct moat_error *err)
{
	memset(taking, 0, sizeof *taking);
	pthread_mutex_init(&taking->lock, NULL);
	taking->workspace = workspace;
	taking->manifest = manifest;
	taking->entries = calloc(manifest->count + 1, sizeof(*taking->entries));
	taking->tries = calloc(manifest->count + 1, sizeof(*taking->tries));
	taking->gone = calloc(manifest->count + 1, sizeof(*taking->gone));
	if (taking->entries == NULL || taking->tries == NULL || taking->gone == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < manifest->count; i++)
		taking->entries[i] = (struct moat_entry *) manifest->entries[i];
	return 0;
}

/* Another name of the same file, when the first has vanished. */
static int
open_other_name(struct taking *taking, size_t leader, struct moat_error *err)
{
	for (size_t i = leader + 1; i < taking->manifest->count; i++) {
		int fd;

		if (taking->entries[i]->leader != leader)
			continue;
		fd = tree_open(taking->workspace->fd, taking->entries[i], err);
		if (fd >= 0 || (err->code != MOAT_GONE && err->code != MOAT_CHANGED))
			return fd;
		moat_error_clear(err);
	}
	return moat_fail(err, MOAT_GONE, "`%s' vanished", taking->entries[leader]->path);
}

/* A file that cannot be captured: noted with all its names. */
static int
leave_out(struct taking *taking, size_t index, const struct moat_error *why, struct moat_error *err)
{
	int reason = why->code == MOAT_PERMISSION ? SKIP_UNREADABLE : SKIP_VANISHED;
	const char *detail = why->sys_errno == 0
				     ? "removed or replaced while the snapshot was taken"
				     : strerror(why->sys_errno);

	uint64_t names = taking->entries[index]->nlink;

	for (size_t i = index; i < taking->manifest->count && names > 0; i++) {
		if (i != index && taking->entries[i]->leader != index)
			continue;
		names--;
		taking->gone[i] = true;
		if (manifest_add_skip(taking->manifest, taking->entries[i]->path, reason, detail,
				      err) < 0)
			return -1;
	}
	return 0;
}

static void
take_stat(struct moat_entry *entry, const struct stat *st)
{
	entry->size = (uint64_t) st->st_size;
	entry->mode = st->st_mode & 07777;
	entry->mtime_sec = st->st_mtim.tv_sec;
	entry->mtime_nsec = (uint32_t) st->st_mtim.tv_nsec;
	entry->ctime_sec = st->st_ctim.tv_sec;
	entry->ctime_nsec = (uint32_t) st->st_ctim.tv_nsec;
}

static bool
is_still(const struct moat_entry *entry, const struct stat *st)
{
	return entry->size == (uint64_t) st->st_size && entry->mtime_sec == st->st_mtim.tv_sec &&
	       entry->mtime_nsec == (uint32_t) st->st_mtim.tv_nsec &&
	       entry->ctime_sec == st->st_ctim.tv_sec &&
	       entry->ctime_nsec == (uint32_t) st->st_ctim.tv_nsec;
}

static int
check_index(const struct taking *taking, size_t index, struct moat_error *err)
{
	if (index < taking->manifest->count && !taking->finished &&
	    taking->entries[index]->type == MOAT_FILE &&
	    taking->entries[index]->leader == MOAT_NO_LEADER)
		return 0;
	return moat_fail(err, MOAT_FAILED,
			 "the backend asked for entry %zu, which is no file of its own", index);
}

/* Of the open file, for the entry; a backend may store them beside the content. */
static int
take_xattrs(struct taking *taking, size_t index, int fd, struct moat_error *err)
{
	struct moat_entry *entry = taking->entries[index];
	int result;

	pthread_mutex_lock(&taking->lock); /* the arena */
	result =
		tree_xattrs(fd, &taking->manifest->arena, &entry->xattrs, &entry->xattrs_size, err);
	pthread_mutex_unlock(&taking->lock);
	return result < 0 ? moat_wrap(err, "`%s'", entry->path) : 0;
}

static int
capture_open(const struct moat_capture *capture, size_t index, struct moat_error *err)
{
	struct taking *taking = capture->context;
	struct moat_error local = MOAT_ERROR_INIT;
	struct stat st;
	int fd;

	if (check_index(taking, index, err) < 0)
		return -1;
	if (taking->source != NULL)
		return taking->source->open(taking->source->context, taking->entries[index], err);
	fd = tree_open(taking->workspace->fd, taking->entries[index], &local);
	if (fd < 0 && (local.code == MOAT_GONE || local.code == MOAT_CHANGED)) {
		moat_error_clear(&local);
		fd = open_other_name(taking, index, &local);
	}
	if (fd >= 0 && fstat(fd, &st) == 0) {
		take_stat(taking->entries[index], &st);
		if (take_xattrs(taking, index, fd, err) == 0)
			return fd;
		cleanup_close(&fd);
		return -1;
	}
	cleanup_close(&fd);
	moat_fail_errno(&local, "look at `%s'", taking->entries[index]->path);
	if (local.code == MOAT_GONE || local.code == MOAT_CHANGED ||
	    local.code == MOAT_PERMISSION) {
		struct moat_error noting = MOAT_ERROR_INIT;
		int noted;

		pthread_mutex_lock(&taking->lock);
		noted = leave_out(taking, index, &local, &noting);
		pthread_mutex_unlock(&taking->lock);
		if (noted < 0)
			return moat_error_set(err, noting.code, 0, "%s", noting.message);
	}
	return moat_error_set(err, local.code, local.sys_errno, "%s", local.message);
}

/* The names of one inode are one file: what was learned by reading it holds for all. */
static void
share_with_names(struct taking *taking, size_t leader)
{
	const struct moat_entry *first = taking->entries[leader];
	uint64_t names = first->nlink - 1;

	for (size_t i = leader + 1; i < taking->manifest->count && names > 0; i++) {
		struct moat_entry *entry = taking->entries[i];

		if (entry->leader != leader)
			continue;
		names--;
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
take_content(struct taking *taking, size_t index, uint64_t size, const uint8_t *hash,
	     const uint64_t locator[3], bool torn, struct moat_error *err)
{
	struct moat_entry *entry = taking->entries[index];

	entry->size = size;
	memcpy(entry->locator, locator, sizeof entry->locator);
	entry->flags |= MOAT_HAS_LOCATOR;
	if (hash != NULL) {
		memcpy(entry->hash, hash, MOAT_HASH_SIZE);
		entry->flags |= MOAT_HAS_HASH;
	}
	share_with_names(taking, index);
	if (!torn)
		return 0;
	return manifest_add_skip(taking->manifest, entry->path, SKIP_TORN,
				 "it was being written while the snapshot was taken", err);
}

static int
capture_stored(const struct moat_capture *capture, size_t index, int fd, uint64_t size,
	       const uint8_t *hash, const uint64_t locator[3], struct moat_error *err)
{
	struct taking *taking = capture->context;
	struct moat_entry *entry;
	struct stat st;
	bool moved;
	int result;

	if (check_index(taking, index, err) < 0)
		return -1;
	entry = taking->entries[index];
	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "look at `%s'", entry->path);
	if (taking->source != NULL) {
		if (size != entry->size)
			return moat_fail(err, MOAT_CORRUPT, "`%s' is not as long as it should be",
					 entry->path);
		pthread_mutex_lock(&taking->lock);
		result = take_content(taking, index, size, hash, locator, false, err);
		pthread_mutex_unlock(&taking->lock);
		return result;
	}
	moved = !is_still(entry, &st) || size != (uint64_t) st.st_size;
	take_stat(entry, &st);
	if (moved && take_xattrs(taking, index, fd, err) < 0)
		return -1;
	if (moved && ++taking->tries[index] < TORN_TRIES)
		return 1;
	pthread_mutex_lock(&taking->lock);
	result = take_content(taking, index, size, hash, locator, moved, err);
	pthread_mutex_unlock(&taking->lock);
	return result;
}

/* Every file of the manifest must have come through; those that vanished leave it. */
static int
finish(struct taking *taking, struct moat_error *err)
{
	struct manifest *manifest = taking->manifest;
	size_t kept = 0;

	if (taking->finished)
		return 0;
	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = taking->entries[i];

		if (taking->gone[i])
			continue;
		if (entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER &&
		    (entry->flags & MOAT_HAS_LOCATOR) == 0)
			return moat_fail(err, MOAT_FAILED, "the backend did not store `%s'",
					 entry->path);
		manifest->entries[kept++] = entry;
	}
	manifest->count = kept;
	taking->finished = true;
	if (manifest_seal(manifest, err) < 0)
		return -1;
	return manifest_encode(manifest, &taking->encoded, err);
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

static int
call_backend(struct taking *taking, struct backend *backend, const char *id, const char *previous,
	     struct moat_ref *ret, struct moat_error *err)
{
	struct moat_entries entries = {
		.struct_size = sizeof entries,
		.entry_size = sizeof(struct moat_entry),
		.count = taking->manifest->count,
		.items = (const struct moat_entry *const *) taking->entries,
	};
	struct moat_capture capture = {
		.struct_size = sizeof capture,
		.snapshot = id,
		.previous = previous,
		.source_fd = taking->workspace->fd,
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

/* -------------------------------------------------------------------------------------------
 * taking it */

/* The newest snapshot of that backend whose manifest is sound; none is fine. */
static int
find_previous(struct app *app, const struct workspace *workspace, const char *backend,
	      struct snap **ret_snap, struct manifest **ret_manifest, struct moat_error *err)
{
	AUTO_SNAP_LIST struct snap_list list = {0};

	if (snap_list(workspace, &list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++) {
		struct moat_error local = MOAT_ERROR_INIT;

		if (strcmp(list.items[i]->backend, backend) != 0)
			continue;
		if (snap_manifest(app->home, list.items[i], ret_manifest, &local) < 0) {
			log_warning("%s; the new snapshot does not build on it", local.message);
			continue;
		}
		*ret_snap = STEAL(list.items[i]);
		return 0;
	}
	return 0;
}

static int
open_filter(const struct workspace *workspace, const struct snap_options *options,
	    struct filter **ret, struct moat_error *err)
{
	const struct config *config = options->config;
	struct filter_options wanted = {0};

	if (options->like != NULL)
		return filter_open_stored(options->like, ret, err);
	if (config != NULL) {
		wanted.additional = (const char *const *) config->snapshots.additional;
		if (config->snapshots.ignore_gitignore)
			wanted.flags |= FILTER_NO_GITIGNORE;
	}
	return filter_open(workspace->fd, workspace->path, &wanted, ret, err);
}

static void
tell_skipped(const struct manifest *manifest)
{
	size_t told = 0;

	for (size_t i = 0; i < manifest->skip_count && told < 5; i++, told++)
		log_warning("%s: %s: %s (%s)", manifest->skips[i].path,
			    manifest->skips[i].reason == SKIP_TORN ? "captured, but"
								   : "not captured",
			    skip_text(manifest->skips[i].reason), manifest->skips[i].detail);
	if (manifest->skip_count > told)
		log_warning("and %zu more; `moat snapshot show' lists them",
			    manifest->skip_count - told);
}

static struct snap *
describe(const struct workspace *workspace, const struct snap_options *options, const char *id,
	 const char *backend, const struct moat_ref *ref, const struct snap *previous,
	 const struct manifest *manifest)
{
	struct snap *snap = calloc(1, sizeof *snap);

	if (snap == NULL)
		return NULL;
	snprintf(snap->id, sizeof snap->id, "%s", id);
	snprintf(snap->workspace_hash, sizeof snap->workspace_hash, "%s", workspace->hash);
	snap->type = strdup(options->type);
	snap->label = options->label == NULL ? NULL : strdup(options->label);
	snap->run = options->run == NULL ? NULL : strdup(options->run);
	snap->parent = previous == NULL ? NULL : strdup(previous->id);
	snap->backend = strdup(backend);
	snap->ref = strdup(ref->text);
	snap->workspace = strdup(workspace->path);
	snap->created_ns = time_now_ns();
	snap->files = manifest_files(manifest);
	snap->bytes = manifest_bytes(manifest);
	snap->stored_bytes = ref->stored_bytes;
	snap->skipped = manifest->skip_count;
	if (snap->type == NULL || snap->backend == NULL || snap->ref == NULL ||
	    snap->workspace == NULL || (options->label != NULL && snap->label == NULL) ||
	    (options->run != NULL && snap->run == NULL) ||
	    (previous != NULL && snap->parent == NULL)) {
		snap_free(snap);
		return NULL;
	}
	return snap;
}

static int
take(struct app *app, const struct workspace *workspace, const struct snap_options *options,
     const struct plugin *plugin, struct snap **ret, struct moat_error *err)
{
	AUTO_BACKEND struct backend *backend = NULL;
	AUTO_CLOSE int store_fd = -1;
	AUTO_SNAP struct snap *previous = NULL, *snap = NULL;
	AUTO_MANIFEST struct manifest *before = NULL, *scanned = NULL;
	struct manifest *manifest = NULL;
	CLEANUP(cleanup_filter) struct filter *filter = NULL;
	CLEANUP(taking_free) struct taking taking = {0};
	struct moat_ref ref = {.struct_size = sizeof ref};
	char id[32];

	if (text_random_id(id, "snap", err) < 0 ||
	    snap_open_backend(app, workspace, plugin, options->config, &store_fd, &backend, err) <
		    0 ||
	    find_previous(app, workspace, plugin->name, &previous, &before, err) < 0 ||
	    (options->source == NULL &&
	     (open_filter(workspace, options, &filter, err) < 0 ||
	      tree_scan(workspace->fd, filter, before, &scanned, err) < 0)))
		return -1;
	manifest = options->source != NULL ? options->source->manifest : scanned;
	if (taking_init(&taking, workspace, manifest, err) < 0)
		return -1;
	taking.source = options->source;
	if (call_backend(&taking, backend, id, previous == NULL ? NULL : previous->ref, &ref, err) <
	    0)
		return -1;
	snap = describe(workspace, options, id, plugin->name, &ref, previous, manifest);
	if (snap == NULL)
		return moat_fail_memory(err);
	if (snap_record(workspace, snap, &taking.encoded, err) < 0) {
		/* Content without a record would only be litter; the first error is the one to
		 * tell. */
		(void) snap_remove_content(app, workspace, backend, ref.text, NULL);
		return -1;
	}
	tell_skipped(manifest);
	if (filter != NULL && filter_root_is_ignored(filter))
		log_warning(
			"the git repository around %s ignores it: only tracked files are in the "
			"snapshot; see snapshots.exclude.ignore_gitignore in moat.yaml(5)",
			workspace->path);
	*ret = STEAL(snap);
	return 0;
}

int
snap_create(struct app *app, const struct workspace *workspace, const struct snap_options *options,
	    struct snap **ret, struct moat_error *err)
{
	struct moat_target target = {.struct_size = sizeof target,
				     .workspace = workspace->path,
				     .workspace_fd = workspace->fd,
				     .home_fd = -1};
	struct backend_request request;
	const struct plugin *plugin;
	AUTO_CLOSE int lock = -1;
	sigset_t saved;
	int result = -1;

	if (app_home(app, err) < 0 || app_loader(app, err) < 0)
		return -1;
	target.home_fd = app->home->fd;
	if (loader_request(app->loader, app->backends, options->config, MOAT_KIND_SNAPSHOT,
			   &request, err) < 0 ||
	    loader_select(app->loader, options->config, MOAT_KIND_SNAPSHOT, &request, &target,
			  &plugin, NULL, err) < 0)
		return -1;
	if (!options->locked) {
		lock = workspace_lock(workspace, err);
		if (lock < 0)
			return -1;
	}
	/* Cancelled, it clears away what it made. */
	interrupt_hold(&saved);
	if (snap_clear_leftovers(app, workspace, err) == 0)
		result = take(app, workspace, options, plugin, ret, err);
	interrupt_release(&saved);
	return result < 0 ? moat_wrap(err, "snapshot of %s", workspace->path) : 0;
}

int
snap_safety(struct app *app, const struct workspace *workspace, const struct snap *snap,
	    const struct manifest *desired, const struct manifest *live, struct snap **ret,
	    struct moat_error *err)
{
	char label[64];
	struct snap_options options = {.type = "safety",
				       .label = label,
				       .run = snap->run,
				       .like = desired,
				       .locked = true};

	snprintf(label, sizeof label, "before restoring %s", snap->id);
	return snap_create(app, workspace, &options, ret, err);
}
