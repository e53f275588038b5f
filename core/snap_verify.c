/* SPDX-License-Identifier: Apache-2.0 */
/* Is everything that a snapshot promises still there?  The backend reads, the core compares. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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

int
snap_verify(struct app *app, const struct snap *snap,
	    void (*damaged)(void *context, const char *path, const char *why), void *context,
	    struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_MANIFEST struct manifest *manifest = NULL;
	AUTO_CLOSE int store_fd = -1, lock = -1;
	AUTO_BACKEND struct backend *backend = NULL;
	AUTO_FREE const struct moat_entry **items = NULL;
	AUTO_FREE bool *seen = NULL;
	struct verifying verifying = {damaged, context, NULL, PTHREAD_MUTEX_INITIALIZER};
	struct moat_entries entries = {.struct_size = sizeof entries,
				       .entry_size = sizeof(struct moat_entry)};

	if (workspace_open_known(app->home, snap->workspace_hash, &workspace, err) < 0)
		return -1;
	/* Nobody must delete meanwhile what is being read. */
	lock = workspace_lock(workspace, err);
	if (lock < 0 || snap_manifest(app->home, snap, &manifest, err) < 0 ||
	    snap_open_own_backend(app, workspace, snap, &store_fd, &backend, err) < 0)
		return -1;
	if (!snapshot_can_verify(backend))
		return moat_fail(err, MOAT_UNSUPPORTED, "plugin snapshot-%s cannot verify",
				 snap->backend);
	items = calloc(manifest->count + 1, sizeof(*items));
	seen = calloc(manifest->count + 1, sizeof(*seen));
	if (items == NULL || seen == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < manifest->count; i++) {
		const struct moat_entry *entry = manifest->entries[i];

		if (entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER && entry->size > 0)
			items[entries.count++] = entry;
	}
	entries.items = items;
	verifying.seen = seen;
	return read_back(backend, snap->ref, &entries, &verifying, err);
}
