/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a snapshot: the core walks, filters and keeps the manifest; a backend stores the content.
 */
#include "core/snap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/snap_internal.h"
#include "core/tree.h"

/* The newest snapshot of that backend whose manifest is sound; none is fine. */
static int
find_previous(struct app *app, const struct workspace *workspace, const char *backend,
	      struct snap **ret_snap, struct manifest **ret_manifest, struct moat_error *err)
{
	AUTO_SNAP_RECENT struct snap_recent recent = SNAP_RECENT_INIT;
	const struct snap *snap;
	int next;

	if (snap_recent_open(&recent, workspace, err) < 0)
		return -1;
	while ((next = snap_recent_next(&recent, &snap, err)) > 0) {
		struct moat_error local = MOAT_ERROR_INIT;

		if (strcmp(snap->backend, backend) != 0)
			continue;
		if (snap_manifest(app->home, snap, ret_manifest, &local) < 0) {
			log_warning("%s; the new snapshot does not build on it", local.message);
			continue;
		}
		*ret_snap = snap_copy(snap);
		return *ret_snap == NULL ? moat_fail_memory(err) : 0;
	}
	return next;
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
	 const char *backend, const struct snap *previous)
{
	AUTO_SNAP struct snap *snap = calloc(1, sizeof *snap);

	if (snap == NULL)
		return NULL;
	snprintf(snap->id, sizeof snap->id, "%s", id);
	snprintf(snap->workspace_hash, sizeof snap->workspace_hash, "%s", workspace->hash);
	snap->type = strdup(options->type);
	snap->label = options->label == NULL ? NULL : strdup(options->label);
	snap->run = options->run == NULL ? NULL : strdup(options->run);
	snap->parent = previous == NULL ? NULL : strdup(previous->id);
	snap->backend = strdup(backend);
	snap->workspace = strdup(workspace->path);
	snap->created_ns = time_now_ns();
	if (snap->type == NULL || snap->backend == NULL || snap->workspace == NULL ||
	    (options->label != NULL && snap->label == NULL) ||
	    (options->run != NULL && snap->run == NULL) ||
	    (previous != NULL && snap->parent == NULL))
		return NULL;
	return STEAL(snap);
}

static int
complete(struct snap *snap, const struct taking *taking, const struct moat_ref *ref,
	 struct moat_error *err)
{
	snap->ref = strdup(ref->text);
	snap->base = taking->used_base == NULL ? NULL : strdup(taking->used_base);
	if (snap->ref == NULL || (taking->used_base != NULL && snap->base == NULL))
		return moat_fail_memory(err);
	snap->files = manifest_files(taking->manifest);
	snap->bytes = manifest_bytes(taking->manifest);
	snap->stored_bytes = ref->stored_bytes;
	snap->skipped = taking->manifest->skip_count;
	return 0;
}

/* A snapshot that is being taken. */
struct making {
	struct app *app;
	const struct workspace *workspace;
	const struct snap_options *options;
	const struct plugin *plugin;
	struct snap *previous;
	struct manifest *before; /* of previous */
	struct backend *backend;
	int store_fd;
};

static void
making_close(struct making *making)
{
	manifest_free(making->before);
	snap_free(making->previous);
	backend_close(making->backend);
	cleanup_close(&making->store_fd);
}
#define AUTO_MAKING CLEANUP(making_close)

static int
open_making(struct making *making, struct moat_error *err)
{
	if (snap_open_backend(making->app, making->workspace, making->plugin,
			      making->options->config, &making->store_fd, &making->backend,
			      err) < 0)
		return -1;
	return making->previous != NULL
		       ? 0
		       : find_previous(making->app, making->workspace, making->plugin->name,
				       &making->previous, &making->before, err);
}

/* The base of the previous manifest serves on; a previous one that is whole becomes the base. */
static void
choose_base(struct taking *taking, const struct making *making)
{
	if (making->previous == NULL)
		return;
	if (making->previous->base == NULL) {
		taking->base = making->before;
		taking->base_id = making->previous->id;
	} else {
		taking->base = making->before->shared;
		taking->base_id = making->previous->base;
	}
	if (taking->base != NULL && !taking->base->has_digest)
		taking->base = NULL;
}

/* The content goes into the store under the mark `name', and when all of it is there the mark
 * becomes the record: whenever we die, the next command knows what to do. */
static int
capture_and_record(struct making *making, struct taking *taking, struct snap *snap, int all_fd,
		   const char *name, struct moat_error *err)
{
	struct moat_ref ref = {.struct_size = sizeof ref};

	if (taking_capture(taking, making->backend, snap->id,
			   making->previous == NULL ? NULL : making->previous->ref, &ref, err) < 0)
		return -1;
	if (complete(snap, taking, &ref, err) == 0 &&
	    snap_record(all_fd, name, snap, taking->encoded.data, taking->encoded.size, err) == 0)
		return 0;
	return -1;
}

/* What a failed capture may have left.  The first error is the one to tell, and the mark stays for
 * the next command when this fails, too. */
static void
take_back(struct making *making, int all_fd, const char *name, const struct snap *snap)
{
	AUTO_NEEDED struct needed needed = {0};

	if (faccessat(all_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return; /* It is a record: only its fsync failed. */
	if (needed_find(making->app, making->workspace, making->plugin->name, &needed, NULL) == 0 &&
	    snap_remove_content(making->backend, snap->id, &needed, NULL) == 0)
		(void) fs_remove_tree(all_fd, name, NULL);
}

static int
store(struct making *making, struct manifest *manifest, struct snap **ret, struct moat_error *err)
{
	AUTO_CLOSE int all_fd = snap_directory(making->workspace, err);
	CLEANUP(taking_free)
	struct taking taking = {.root_fd = making->workspace->fd,
				.source = making->options->source,
				.keep_modes = making->options->keep_modes};
	AUTO_SNAP struct snap *snap = NULL;
	char id[32], name[64 + MOAT_REF_MAX];

	if (all_fd < 0 || text_random_id(id, "snap", err) < 0 ||
	    taking_init(&taking, manifest, err) < 0)
		return -1;
	snap = describe(making->workspace, making->options, id, making->plugin->name,
			making->previous);
	if (snap == NULL)
		return moat_fail_memory(err);
	if (snap_add_notes(manifest, snap, err) < 0)
		return -1;
	choose_base(&taking, making);
	snprintf(name, sizeof name, "%s%s-%s", NEW_PREFIX, id, making->plugin->name);
	if (mkdirat(all_fd, name, 0700) < 0)
		return moat_fail_errno(err, "begin the record of a snapshot");
	if (capture_and_record(making, &taking, snap, all_fd, name, err) < 0) {
		take_back(making, all_fd, name, snap);
		return -1;
	}
	tell_skipped(manifest);
	*ret = STEAL(snap);
	return 0;
}

static int
take(struct making *making, struct snap **ret, struct moat_error *err)
{
	const struct snap_options *options = making->options;
	CLEANUP(cleanup_filter) struct filter *filter = NULL;
	AUTO_MANIFEST struct manifest *manifest = NULL;

	if (options->source != NULL)
		return open_making(making, err) < 0
			       ? -1
			       : store(making, options->source->manifest, ret, err);
	if (open_filter(making->workspace, options, &filter, err) < 0)
		return -1;
	filter_prepare(filter);
	if (open_making(making, err) < 0 ||
	    tree_scan(making->workspace->fd, filter, making->before, &manifest, err) < 0 ||
	    tree_compare(making->workspace->fd, making->before, manifest, err) < 0 ||
	    store(making, manifest, ret, err) < 0)
		return -1;
	if (filter_root_is_ignored(filter))
		log_warning(
			"the git repository around %s ignores it: only tracked files are in the "
			"snapshot; see snapshots.exclude.ignore_gitignore in moat.yaml(5)",
			making->workspace->path);
	return 0;
}

static int
choose_plugin(struct app *app, const struct workspace *workspace, const struct config *config,
	      const struct plugin **ret, struct moat_error *err)
{
	struct moat_target target = {.struct_size = sizeof target,
				     .workspace = workspace->path,
				     .workspace_fd = workspace->fd,
				     .home_fd = -1};
	struct backend_request request;

	if (app_home(app, err) < 0 || app_loader(app, err) < 0)
		return -1;
	target.home_fd = app->home->fd;
	if (loader_request(app->loader, app->backends, config, MOAT_KIND_SNAPSHOT, &request, err) <
	    0)
		return -1;
	return loader_select(app->loader, config, MOAT_KIND_SNAPSHOT, &request, &target, ret, NULL,
			     err);
}

int
snap_create(struct app *app, const struct workspace *workspace, const struct snap_options *options,
	    struct snap **ret, struct moat_error *err)
{
	AUTO_MAKING struct making making = {
		.app = app, .workspace = workspace, .options = options, .store_fd = -1};
	AUTO_CLOSE int lock = -1;
	sigset_t saved;
	int result = -1;

	if (choose_plugin(app, workspace, options->config, &making.plugin, err) < 0)
		return -1;
	if (!options->locked) {
		lock = workspace_lock(workspace, err);
		if (lock < 0)
			return -1;
	}
	/* Cancelled, it clears away what it made. */
	interrupt_hold(&saved);
	progress_begin("snapshot of %s", workspace->path);
	if (snap_clear_leftovers(app, workspace, NULL, err) == 0)
		result = take(&making, ret, err);
	progress_end();
	interrupt_release(&saved);
	return result < 0 ? moat_wrap(err, "snapshot of %s", workspace->path) : 0;
}

/* ---------------------------------------------------------------------------------------- safety
 */

static bool
same_rules(const struct manifest *a, const struct manifest *b)
{
	if (a->filter_flags != b->filter_flags || a->rule_count != b->rule_count)
		return false;
	for (size_t i = 0; i < a->rule_count; i++) {
		const struct manifest_rule *x = &a->rules[i], *y = &b->rules[i];

		if (x->source != y->source || x->size != y->size ||
		    strcmp(x->directory, y->directory) != 0 ||
		    memcmp(x->text, y->text, x->size) != 0)
			return false;
	}
	return true;
}

static bool
same_skips(const struct manifest *a, const struct manifest *b)
{
	if (a->skip_count != b->skip_count)
		return false;
	for (size_t i = 0; i < a->skip_count; i++)
		if (a->skips[i].reason != b->skips[i].reason || a->skips[i].reason == SKIP_TORN ||
		    strcmp(a->skips[i].path, b->skips[i].path) != 0)
			return false;
	return true;
}

/* Restoring the one would bring what the other shows, to the last bit that is restored. */
static bool
same_state(const struct manifest *live, const struct moat_entry *now, const struct manifest *taken,
	   const struct moat_entry *then)
{
	return strcmp(now->path, then->path) == 0 &&
	       diff_entries(live, now, taken, then) == DIFF_SAME &&
	       now->mtime_sec == then->mtime_sec && now->mtime_nsec == then->mtime_nsec &&
	       (now->leader == MOAT_NO_LEADER) == (then->leader == MOAT_NO_LEADER) &&
	       (now->leader == MOAT_NO_LEADER ||
		strcmp(live->entries[now->leader]->path, taken->entries[then->leader]->path) == 0);
}

static bool
holds_now(const struct manifest *live, const struct manifest *taken)
{
	if (live->count != taken->count || !same_rules(live, taken) || !same_skips(live, taken))
		return false;
	for (size_t i = 0; i < live->count; i++)
		if (live->entries[i] != taken->entries[i] &&
		    !same_state(live, live->entries[i], taken, taken->entries[i]))
			return false;
	return true;
}

/* The newest snapshot, if it is of what is there now.  snap: one that is not, known already. */
static int
find_same(struct app *app, const struct workspace *workspace, const struct snap *snap,
	  const struct manifest *live, struct snap **ret, struct moat_error *err)
{
	AUTO_SNAP_RECENT struct snap_recent recent = SNAP_RECENT_INIT;
	AUTO_MANIFEST struct manifest *taken = NULL;
	const struct snap *newest;
	int next;

	if (snap_recent_open(&recent, workspace, err) < 0)
		return -1;
	next = snap_recent_next(&recent, &newest, err);
	/* One that cannot be read is none. */
	if (next <= 0 || strcmp(newest->id, snap->id) == 0 ||
	    snap_manifest(app->home, newest, &taken, NULL) < 0 || !holds_now(live, taken))
		return next < 0 ? -1 : 0;
	*ret = snap_copy(newest);
	return *ret == NULL ? moat_fail_memory(err) : 0;
}

/* What `desired' could not look into is not in the live tree as it is seen through its eyes, and
 * must be none of the copy's business, either: an object that was left out, or what is in a
 * directory that was captured itself, if there is still one. */
static bool
is_left_out_still(const struct manifest *desired, const struct manifest_skip *skip,
		  const struct manifest *copy)
{
	int64_t then = manifest_find(desired, skip->path), now = manifest_find(copy, skip->path);

	if (skip->reason == SKIP_TORN || manifest_find_skip(copy, skip->path) != NULL)
		return false;
	if (then < 0 || now < 0)
		return then < 0 && now < 0;
	return desired->entries[then]->type == copy->entries[now]->type;
}

/* What the capture may write to is copied. */
static int
copy_live(const struct manifest *live, const struct manifest *desired, struct manifest **ret,
	  struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *copy = manifest_new();
	struct manifest *owner = (struct manifest *) live;

	if (copy == NULL)
		return moat_fail_memory(err);
	copy->started_ns = live->started_ns;
	copy->filter_flags = live->filter_flags;
	for (size_t i = 0; i < live->count; i++) {
		const struct moat_entry *entry = live->entries[i];
		bool plain = entry->status == MOAT_SAME &&
			     (entry->nlink == 1 || entry->type == MOAT_DIRECTORY);

		if (plain ? manifest_add_shared(copy, owner, entry, err) < 0
			  : manifest_add(copy, entry) == NULL && moat_fail_memory(err) < 0)
			return -1;
	}
	for (size_t i = 0; i < live->skip_count; i++)
		if (manifest_add_skip(copy, live->skips[i].path, live->skips[i].reason,
				      live->skips[i].detail, err) < 0)
			return -1;
	for (size_t i = 0; i < desired->skip_count; i++)
		if (is_left_out_still(desired, &desired->skips[i], copy) &&
		    manifest_add_skip(copy, desired->skips[i].path, desired->skips[i].reason,
				      desired->skips[i].detail, err) < 0)
			return -1;
	for (size_t i = 0; i < live->rule_count; i++)
		if (manifest_add_rule(copy, live->rules[i].directory, live->rules[i].source,
				      live->rules[i].text, live->rules[i].size, err) < 0)
			return -1;
	if (manifest_seal(copy, err) < 0)
		return -1;
	*ret = STEAL(copy);
	return 0;
}

static int
take_safety(struct making *making, const struct snap *snap, const struct manifest *desired,
	    const struct manifest *live, struct snap **ret, struct moat_error *err)
{
	AUTO_MANIFEST struct manifest *manifest = NULL;

	/* What has not changed since `snap' is in its store: it can be referred to only there. */
	if (strcmp(making->plugin->name, snap->backend) != 0)
		return take(making, ret, err);
	making->previous = snap_copy(snap);
	making->before = manifest_reference((struct manifest *) desired);
	if (making->previous == NULL)
		return moat_fail_memory(err);
	if (open_making(making, err) < 0 || copy_live(live, desired, &manifest, err) < 0)
		return -1;
	return store(making, manifest, ret, err);
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
				       .keep_modes = true,
				       .locked = true};
	AUTO_MAKING struct making making = {
		.app = app, .workspace = workspace, .options = &options, .store_fd = -1};
	sigset_t saved;
	int result = -1;

	snprintf(label, sizeof label, "before restoring %s", snap->id);
	if (find_same(app, workspace, snap, live, ret, err) < 0)
		return -1;
	if (*ret != NULL)
		return 0;
	if (choose_plugin(app, workspace, NULL, &making.plugin, err) < 0)
		return -1;
	interrupt_hold(&saved);
	progress_begin("snapshot of %s", workspace->path);
	if (snap_clear_leftovers(app, workspace, NULL, err) == 0)
		result = take_safety(&making, snap, desired, live, ret, err);
	progress_end();
	interrupt_release(&saved);
	return result < 0 ? moat_wrap(err, "snapshot of %s", workspace->path) : 0;
}
