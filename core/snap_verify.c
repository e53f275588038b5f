/* SPDX-License-Identifier: Apache-2.0 */
/* Is everything that a snapshot promises still there?  The backend reads, the core compares: the
 * content with the manifest, the manifest with the backend's copy of it, the record with both. */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fs.h"
#include "core/progress.h"
#include "core/snap_internal.h"

struct verifying {
	void (*damaged)(void *context, const char *path, const char *why);
	void *context;
	bool *seen; /* per entry of the list: done or damaged */
	pthread_mutex_t lock;
};

static void
tell(struct verifying *verifying, const struct moat_entry *entry, const char *why)
{
	bool paused = progress_pause();

	verifying->damaged(verifying->context, entry->path, why);
	progress_resume(paused);
}

static int
verify_done(const struct moat_extract *extract, size_t index, int fd, uint64_t size,
	    const uint8_t *hash, struct moat_error *err)
{
	struct verifying *verifying = extract->context;
	const struct moat_entry *entry = extract->entries->items[index];

	if (hash == NULL)
		return moat_fail(err, MOAT_FAILED, "the backend verifies without a hash");
	pthread_mutex_lock(&verifying->lock);
	verifying->seen[index] = true;
	if (size != entry->size ||
	    ((entry->flags & MOAT_HAS_HASH) != 0 && memcmp(hash, entry->hash, MOAT_HASH_SIZE) != 0))
		tell(verifying, entry, "its content is not what the snapshot took");
	pthread_mutex_unlock(&verifying->lock);
	return 0;
}

static int
verify_damaged(const struct moat_extract *extract, size_t index, const struct moat_error *why,
	       struct moat_error *err)
{
	struct verifying *verifying = extract->context;

	pthread_mutex_lock(&verifying->lock);
	verifying->seen[index] = true;
	tell(verifying, extract->entries->items[index], why->message);
	pthread_mutex_unlock(&verifying->lock);
	return 0;
}

static int
read_back(struct backend *backend, const char *ref, const struct moat_entries *entries,
	  struct verifying *verifying, struct moat_error *err)
{
	struct moat_extract extract = {
		.struct_size = sizeof extract,
		.ref = ref,
		.entries = entries,
		.context = verifying,
		.done = verify_done,
		.damaged = verify_damaged,
	};
	int result;

	progress_begin("verifying %s", ref);
	result = snapshot_verify(backend, &extract, err);
	progress_end();
	if (result < 0)
		return -1;
	for (size_t i = 0; i < entries->count; i++)
		if (!verifying->seen[i])
			tell(verifying, entries->items[i],
			     "the backend has nothing to say about it");
	return 0;
}

static int
read_contents(struct backend *backend, const char *ref, const struct manifest *manifest,
	      struct verifying *verifying, struct moat_error *err)
{
	AUTO_FREE const struct moat_entry **items = calloc(manifest->count + 1, sizeof(*items));
	AUTO_FREE bool *seen = calloc(manifest->count + 1, sizeof(*seen));
	struct moat_entries entries = {.struct_size = sizeof entries,
				       .entry_size = sizeof(struct moat_entry)};

	if (items == NULL || seen == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = manifest->entries[i];

		if (entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER && entry->size > 0)
			items[entries.count++] = entry;
	}
	entries.items = items;
	verifying->seen = seen;
	return read_back(backend, ref, &entries, verifying, err);
}

/* --------------------------------------------------------------------------- records and copies */

/* The manifests that one store keeps, by what they are called there. */
struct copy {
	char ref[MOAT_REF_MAX];
	size_t size;
	uint8_t check[MOAT_HASH_SIZE]; /* of all bytes */
};

struct snap_verifier {
	struct app *app;
	struct workspace *workspace;
	int lock, store_fd;
	char backend_name[MOAT_REF_MAX];
	struct backend *backend;
	struct copy *copies;
	size_t count, allocated;
	bool listed;
};

static void
hash(const void *data, size_t size, uint8_t ret[MOAT_HASH_SIZE])
{
	const struct moat_host *host = host_table();
	struct moat_hash *state = host->hash_new();

	memset(ret, 0, MOAT_HASH_SIZE);
	if (state == NULL)
		return;
	host->hash_update(state, data, size);
	host->hash_end(state, ret);
}

static int
found(void *context, const struct moat_ref *ref, const void *manifest, size_t size,
      struct moat_error *err)
{
	struct snap_verifier *verifier = context;
	struct copy *copy;

	if (verifier->count == verifier->allocated) {
		size_t n = verifier->allocated == 0 ? 16 : verifier->allocated * 2;
		struct copy *more = reallocarray(verifier->copies, n, sizeof *more);

		if (more == NULL)
			return moat_fail_memory(err);
		verifier->copies = more;
		verifier->allocated = n;
	}
	copy = &verifier->copies[verifier->count++];
	memcpy(copy->ref, ref->text, sizeof copy->ref);
	copy->size = size;
	hash(manifest, size, copy->check);
	return 0;
}

static int
check_copy(struct snap_verifier *verifier, const struct snap *snap, int all_fd,
	   struct moat_error *err)
{
	AUTO_FREE char *data = NULL;
	uint8_t check[MOAT_HASH_SIZE];
	size_t size;

	if (!snapshot_can_enumerate(verifier->backend))
		return 0;
	if (!verifier->listed && snapshot_enumerate(verifier->backend, found, verifier, err) < 0)
		return -1;
	verifier->listed = true;
	if (snap_read_manifest(all_fd, snap->id, &data, &size, err) < 0)
		return -1;
	hash(data, size, check);
	for (size_t i = 0; i < verifier->count; i++)
		if (strcmp(verifier->copies[i].ref, snap->ref) == 0)
			return verifier->copies[i].size == size && memcmp(verifier->copies[i].check,
									  check, sizeof check) == 0
				       ? 0
				       : moat_fail(err, MOAT_CORRUPT,
						   "the copy of its manifest in the store differs");
	return moat_fail(err, MOAT_CORRUPT, "the copy of its manifest in the store is gone");
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* Before anything that it says is believed, such as the name that the backend gave. */
static int
check_written(const struct snap_verifier *verifier, const struct snap *snap, struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snap_directory(verifier->workspace, err);

	return all_fd < 0 ? -1 : snap_check_record(all_fd, snap->id, snap, err);
}

/* The record, as the manifest knows it. */
static int
check_notes(const struct snap *snap, const struct manifest *manifest, struct moat_error *err)
{
	const char *created = manifest_note(manifest, "created");

	if (same_text(manifest_note(manifest, "id"), snap->id) &&
	    same_text(manifest_note(manifest, "type"), snap->type) &&
	    same_text(manifest_note(manifest, "label"), snap->label) &&
	    same_text(manifest_note(manifest, "run"), snap->run) &&
	    same_text(manifest_note(manifest, "parent"), snap->parent) &&
	    same_text(manifest_note(manifest, "backend"), snap->backend) &&
	    same_text(manifest_note(manifest, "workspace"), snap->workspace) && created != NULL &&
	    strtoll(created, NULL, 10) == snap->created_ns &&
	    manifest_files(manifest) == snap->files && manifest_bytes(manifest) == snap->bytes &&
	    manifest->skip_count == snap->skipped)
		return 0;
	return moat_fail(err, MOAT_CORRUPT,
			 "the record of %s (snapshot.json) is not what its manifest says",
			 snap->id);
}

static int
check_record(struct snap_verifier *verifier, const struct snap *snap,
	     const struct manifest *manifest, struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snap_directory(verifier->workspace, err);
	AUTO_SNAP struct snap *base = NULL;
	char name[SNAP_NAME_MAX];

	if (all_fd < 0 || check_notes(snap, manifest, err) < 0 ||
	    check_copy(verifier, snap, all_fd, err) < 0)
		return -1;
	snap_name(name, BASE_PREFIX, snap->base == NULL ? "" : snap->base);
	if (snap->base == NULL || faccessat(all_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return snap_read_record(all_fd, name, snap->base, snap->workspace_hash, &base, err) < 0
		       ? -1
		       : snap_check_record(all_fd, name, base, err);
}

/* --------------------------------------------------------------------------------------- verifying
 */

struct snap_verifier *
snap_verifier_new(struct app *app)
{
	struct snap_verifier *verifier = calloc(1, sizeof *verifier);

	if (verifier == NULL)
		return NULL;
	verifier->app = app;
	verifier->lock = verifier->store_fd = -1;
	return verifier;
}

static void
leave_backend(struct snap_verifier *verifier)
{
	backend_close(STEAL(verifier->backend));
	cleanup_close(&verifier->store_fd);
	verifier->store_fd = -1;
	verifier->count = 0;
	verifier->listed = false;
	verifier->backend_name[0] = '\0';
}

static void
leave_workspace(struct snap_verifier *verifier)
{
	leave_backend(verifier);
	cleanup_close(&verifier->lock);
	verifier->lock = -1;
	workspace_close(STEAL(verifier->workspace));
}

void
cleanup_snap_verifier(struct snap_verifier **verifier)
{
	if (*verifier == NULL)
		return;
	leave_workspace(*verifier);
	free((*verifier)->copies);
	free(*verifier);
}

/* Nobody must delete meanwhile what is being read. */
static int
use_store(struct snap_verifier *verifier, const struct snap *snap, struct moat_error *err)
{
	if (verifier->workspace == NULL ||
	    strcmp(verifier->workspace->hash, snap->workspace_hash) != 0) {
		leave_workspace(verifier);
		if (workspace_open_known(verifier->app->home, snap->workspace_hash,
					 &verifier->workspace, err) < 0)
			return -1;
		verifier->lock = workspace_lock(verifier->workspace, err);
		if (verifier->lock < 0 || workspace_check_record(verifier->workspace, err) < 0)
			return -1;
	}
	if (strcmp(verifier->backend_name, snap->backend) == 0)
		return 0;
	leave_backend(verifier);
	if (snap_open_backend_named(verifier->app, verifier->workspace, snap->backend, snap->id,
				    &verifier->store_fd, &verifier->backend, err) < 0)
		return -1;
	snprintf(verifier->backend_name, sizeof verifier->backend_name, "%s", snap->backend);
	return 0;
}

int
snap_verify(struct snap_verifier *verifier, const struct snap *snap,
	    void (*damaged)(void *context, const char *path, const char *why), void *context,
	    struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *manifest = NULL;
	struct verifying verifying = {damaged, context, NULL, PTHREAD_MUTEX_INITIALIZER};

	if (use_store(verifier, snap, err) < 0 || check_written(verifier, snap, err) < 0 ||
	    snap_manifest(verifier->app->home, snap, &manifest, err) < 0)
		return -1;
	if (!snapshot_can_verify(verifier->backend))
		return moat_fail(err, MOAT_UNSUPPORTED, "plugin snapshot-%s cannot verify",
				 snap->backend);
	if (read_contents(verifier->backend, snap->ref, manifest, &verifying, err) < 0)
		return -1;
	return check_record(verifier, snap, manifest, err);
}
