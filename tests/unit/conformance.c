/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance of snapshot backends: worlds, and the core's side of each call. */
#include "conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

struct subject subject;

/* -------------------------------------------------------------------------------- the world */

struct backend *
world_open(const struct world *world)
{
	struct moat_store store = {sizeof store, world->store_fd, world->store, NULL};
	struct moat_error err = MOAT_ERROR_INIT;
	struct backend *backend = NULL;

	assert_ok(snapshot_open(subject.plugin, &store, &backend, &err), &err);
	return backend;
}

struct world *
world_new(void)
{
	struct world *world = world_make(subject.directory);

	world->backend = world_open(world);
	return world;
}

void
world_free(struct world *world)
{
	backend_close(world->backend);
	world_remove(world);
}

int
world_setup(void **state)
{
	*state = world_new();
	return 0;
}

int
world_teardown(void **state)
{
	cancel_after(-1);
	world_free(*state);
	return 0;
}

/* ------------------------------------------------------------------------------ cancellation */

static atomic_long polls_left;

static int
poll_cancelled(void)
{
	return atomic_load(&polls_left) <= 0 || atomic_fetch_sub(&polls_left, 1) <= 1;
}

void
cancel_after(long polls)
{
	atomic_store(&polls_left, polls);
	host_set_cancelled(polls < 0 ? NULL : poll_cancelled);
}

/* --------------------------------------------------------------------------------- capturing */

static void
violate(struct session *session, const char *what)
{
	if (session->violation == NULL)
		session->violation = what;
}

static int
on_open(const struct moat_capture *call, size_t index, struct moat_error *err)
{
	struct session *session = call->context;
	int code = 0, fd;

	(void) pthread_mutex_lock(&session->lock);
	session->opened++;
	if (session->on_open != NULL)
		code = session->on_open(session, index);
	(void) pthread_mutex_unlock(&session->lock);
	if (code != 0)
		return moat_fail(err, code, "refused by the test");
	fd = openat(session->world->src_fd, session->tree->entries[index].path,
		    O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return moat_fail(err, MOAT_GONE, "gone");
	return fd >= 0 ? fd : moat_fail_errno(err, "open");
}

/* With the lock held. */
static int
take_stored(struct session *session, size_t index, uint64_t size, const uint8_t *hash,
	    const uint64_t locator[3])
{
	struct moat_entry *entry = &session->tree->entries[index];
	int r = 0;

	session->stored++;
	session->times[index]++;
	if (session->on_stored != NULL)
		r = session->on_stored(session, index, session->times[index]);
	if (r < 0)
		return r;
	entry->size = size;
	entry->flags = MOAT_HAS_LOCATOR;
	if (hash != NULL) {
		entry->flags |= MOAT_HAS_HASH;
		memcpy(entry->hash, hash, sizeof entry->hash);
	}
	memcpy(entry->locator, locator, sizeof entry->locator);
	return r;
}

static int
on_stored(const struct moat_capture *call, size_t index, int fd, uint64_t size, const uint8_t *hash,
	  const uint64_t locator[3], struct moat_error *err)
{
	struct session *session = call->context;
	struct stat st;
	int r;

	(void) pthread_mutex_lock(&session->lock);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		violate(session, "stored() was not given the open file");
	r = take_stored(session, index, size, hash, locator);
	(void) pthread_mutex_unlock(&session->lock);
	return r < 0 ? moat_fail(err, MOAT_FAILED, "stopped by the test") : r;
}

/* A manifest that tells of its snapshot, so that two cannot be mixed up. */
static int
on_manifest(const struct moat_capture *call, const void **ret, size_t *ret_size,
	    struct moat_error *err)
{
	struct session *session = call->context;

	if (session->on_manifest != NULL && session->on_manifest(session) != 0)
		return moat_fail(err, MOAT_FAILED, "stopped by the test");
	*ret = call->snapshot;
	*ret_size = strlen(call->snapshot);
	return 0;
}

int
capture_raw(struct session *session)
{
	struct world *world = session->world;
	struct moat_capture call = {
		.struct_size = sizeof call,
		.snapshot = session->id,
		.source_fd = world->src_fd,
		.entries = &session->tree->list,
		.context = session,
		.open = on_open,
		.stored = on_stored,
		.manifest = on_manifest,
	};
	int r;

	if (session->id[0] == '\0')
		(void) snprintf(session->id, sizeof session->id, "snap_%012x", ++world->next_id);
	session->ref = (struct moat_ref){.struct_size = sizeof session->ref};
	session->err = (struct moat_error) MOAT_ERROR_INIT;
	session->violation = NULL;
	session->times = calloc(session->tree->count, sizeof *session->times);
	if (session->times == NULL)
		return moat_fail_memory(&session->err);
	(void) pthread_mutex_init(&session->lock, NULL);
	r = snapshot_capture(world->backend, &call, &session->ref, &session->err);
	(void) pthread_mutex_destroy(&session->lock);
	free(session->times);
	session->times = NULL;
	session->id[0] = '\0';
	session->tree->ref = session->ref;
	return r;
}

int
capture(struct session *session)
{
	int r = capture_raw(session);

	if (session->violation != NULL)
		fail_msg("%s", session->violation);
	return r;
}

struct tree *
capture_ok(struct world *world, const struct tree *previous)
{
	struct session session = {.world = world, .tree = tree_scan(world, previous)};

	assert_ok(capture(&session), &session.err);
	return session.tree;
}

/* ------------------------------------------------------------------------------- giving back */

static _Thread_local char place_name[32];

static int
on_place(const struct moat_extract *call, size_t index, int *ret_dirfd, const char **ret_name,
	 struct moat_error *err)
{
	struct session *session = call->context;
	int r = 0;

	(void) pthread_mutex_lock(&session->lock);
	if (session->on_place != NULL)
		r = session->on_place(session, index);
	(void) pthread_mutex_unlock(&session->lock);
	if (r != 0)
		return moat_fail(err, MOAT_FAILED, "stopped by the test");
	(void) snprintf(place_name, sizeof place_name, "%zu", index);
	*ret_dirfd = session->world->out_fd;
	*ret_name = place_name;
	return 0;
}

/* With the lock held. */
static int
take_done(struct session *session, size_t index, int fd, uint64_t size, const uint8_t *hash)
{
	const struct moat_entry *entry = session->files[index];
	struct stat st;

	if (session->is_done[index])
		violate(session, "an entry was given back twice");
	if (session->place && (fstat(fd, &st) < 0 || (uint64_t) st.st_size != entry->size))
		violate(session, "a file that is done has not the size of its entry");
	if (!session->place && hash == NULL)
		violate(session, "verify gave no hash");
	if (size != entry->size || (hash != NULL && (entry->flags & MOAT_HAS_HASH) != 0 &&
				    memcmp(hash, entry->hash, sizeof entry->hash) != 0))
		return -1;
	session->is_done[index] = true;
	session->done++;
	return session->on_done == NULL ? 0 : session->on_done(session, index);
}

static int
on_done(const struct moat_extract *call, size_t index, int fd, uint64_t size, const uint8_t *hash,
	struct moat_error *err)
{
	struct session *session = call->context;
	int r;

	(void) pthread_mutex_lock(&session->lock);
	r = take_done(session, index, fd, size, hash);
	(void) pthread_mutex_unlock(&session->lock);
	if (r > 0)
		return moat_fail(err, MOAT_FAILED, "stopped by the test");
	return r < 0 ? moat_fail(err, MOAT_CORRUPT, "not the content of the manifest") : 0;
}

static int
on_damaged(const struct moat_extract *call, size_t index, const struct moat_error *why,
	   struct moat_error *err)
{
	struct session *session = call->context;
	int r = 0;

	(void) pthread_mutex_lock(&session->lock);
	session->damaged++;
	if (why->code != MOAT_CORRUPT || why->message[0] == '\0')
		violate(session, "damage without a word, or with another code than MOAT_CORRUPT");
	if (session->on_damaged != NULL)
		r = session->on_damaged(session, index);
	(void) pthread_mutex_unlock(&session->lock);
	if (r != 0)
		return moat_fail(err, MOAT_FAILED, "stopped by the test");
	return session->place ? moat_fail(err, why->code, "%s", why->message) : 0;
}

static int
note_file(void *context, const struct moat_entry *entry, struct moat_error *err)
{
	struct session *session = context;

	if ((entry->flags & MOAT_HAS_LOCATOR) != 0 || entry->size == 0)
		session->files[session->file_count++] = entry;
	return 0;
}

int
extract_with(struct session *session, struct backend *backend)
{
	struct moat_entries list = {sizeof list, sizeof(struct moat_entry), 0, NULL};
	struct moat_extract call = {
		.struct_size = sizeof call,
		.ref = session->tree->ref.text,
		.entries = &list,
		.context = session,
		.place = session->place ? on_place : NULL,
		.done = on_done,
		.damaged = on_damaged,
	};

	session->file_count = session->done = session->damaged = 0;
	session->violation = NULL;
	session->err = (struct moat_error) MOAT_ERROR_INIT;
	session->files = calloc(session->tree->count, sizeof(*session->files));
	session->is_done = calloc(session->tree->count, sizeof *session->is_done);
	if (session->files == NULL || session->is_done == NULL)
		return moat_fail_memory(&session->err);
	(void) tree_each(session->tree, note_file, session, NULL);
	list.count = session->file_count;
	list.items = session->files;
	(void) pthread_mutex_init(&session->lock, NULL);
	return session->place ? snapshot_materialise(backend, &call, &session->err)
			      : snapshot_verify(backend, &call, &session->err);
}

void
extract_end(struct session *session)
{
	(void) pthread_mutex_destroy(&session->lock);
	free(session->files);
	free(session->is_done);
	session->files = NULL;
	session->is_done = NULL;
}

/* Whatever happened: what is there is what is done, and what is done is right. */
static void
check_out(struct session *session)
{
	for (size_t i = 0; i < session->file_count; i++) {
		size_t entry = (size_t) (session->files[i] - session->tree->entries);
		uint8_t hash[MOAT_HASH_SIZE];
		struct stat st;
		char name[32];

		(void) snprintf(name, sizeof name, "%zu", i);
		if (!session->is_done[i]) {
			assert_int_not_equal(fstatat(session->world->out_fd, name, &st, 0), 0);
			continue;
		}
		if (session->on_done != NULL) /* one of them was refused after it was made */
			continue;
		hash_file(session->world->out_fd, name, hash);
		if (memcmp(hash, session->tree->truth[entry], sizeof hash) != 0)
			fail_msg("`%s' was given back with other content", session->files[i]->path);
	}
}

int
extract(struct session *session)
{
	int r;

	if (session->place)
		empty_out(session->world);
	r = extract_with(session, session->world->backend);
	if (session->violation != NULL)
		fail_msg("%s", session->violation);
	if (session->place)
		check_out(session);
	extract_end(session);
	return r;
}

void
assert_restores(struct world *world, struct tree *tree)
{
	struct session session = {.world = world, .tree = tree, .place = true};

	assert_ok(extract(&session), &session.err);
	assert_int_equal(session.done, session.file_count);
	session.place = false;
	assert_ok(extract(&session), &session.err);
	assert_int_equal(session.done, session.file_count);
	assert_int_equal(session.damaged, 0);
}

bool
finds_damage(struct world *world, struct tree *tree)
{
	struct session session = {.world = world, .tree = tree};
	int r = extract(&session);

	if (r < 0)
		assert_int_equal(session.err.code, MOAT_CORRUPT);
	else
		assert_int_equal(session.done + session.damaged, session.file_count);
	return r < 0 || session.damaged > 0;
}

/* -------------------------------------------------------------------------------- removing */

int
remove_with(struct world *world, const char *ref, const struct moat_live *live,
	    struct moat_error *err)
{
	*err = (struct moat_error) MOAT_ERROR_INIT;
	return snapshot_remove(world->backend, ref, live, err);
}

void
remove_ok(struct world *world, const char *ref, struct tree *const *live)
{
	const char *refs[64] = {NULL};
	struct moat_live wanted = {sizeof wanted, (void *) (uintptr_t) live, live_each, refs};
	struct moat_error err;

	for (size_t i = 0; live != NULL && live[i] != NULL && i < 63; i++)
		refs[i] = live[i]->ref.text;
	assert_ok(remove_with(world, ref, &wanted, &err), &err);
}
