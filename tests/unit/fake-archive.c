/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of snapshot-archive: fake host, fake core. */
#include "fake-archive.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* --------------------------------------------------------------------------------- the host */

atomic_long fake_cancel_after = -1;
void (*_Atomic fake_on_poll)(void);
atomic_int fake_warnings, fake_infos;
atomic_bool fake_position_hash;

static struct {
	const char *key, *text;
} configured[] = {{"level", NULL}, {"threads", NULL}, {"full_after", NULL}};
#define CONFIGURED (sizeof configured / sizeof *configured)

struct moat_hash {
	struct sha256_ctx sha;
	bool by_position;
	uint64_t position, sum;
};

static void
fake_log(const char *who, int level, const char *message)
{
	if (level <= MOAT_LOG_WARNING)
		fake_warnings++;
	else
		fake_infos++;
}

static void
fake_progress(uint64_t done_bytes, uint64_t total_bytes, uint64_t done_items, uint64_t total_items)
{
	assert_true(done_items <= total_items);
}

static int
fake_cancelled(void)
{
	void (*on_poll)(void) = fake_on_poll;

	if (on_poll != NULL)
		on_poll();
	return fake_cancel_after >= 0 && fake_cancel_after-- <= 0;
}

static int
fake_config_int(const struct moat_config *config, const char *key, int64_t *ret,
		struct moat_error *err)
{
	for (size_t i = 0; i < CONFIGURED; i++) {
		if (strcmp(key, configured[i].key) != 0 || configured[i].text == NULL)
			continue;
		*ret = strtol(configured[i].text, NULL, 10);
		return 1;
	}
	return 0;
}

static struct moat_hash *
fake_hash_new(void)
{
	struct moat_hash *hash = calloc(1, sizeof *hash);

	if (hash != NULL) {
		sha256_init(&hash->sha);
		hash->by_position = fake_position_hash;
	}
	return hash;
}

static void
fake_hash_update(struct moat_hash *hash, const void *data, size_t size)
{
	const uint8_t *p = data;

	if (!hash->by_position) {
		sha256_update(&hash->sha, size, data);
		return;
	}
	if (size > 0 && (p[0] != 0 || memcmp(p, p + 1, size - 1) != 0))
		for (size_t i = 0; i < size; i++)
			hash->sum += p[i] * (hash->position + i + 1) * UINT64_C(0x9e3779b97f4a7c15);
	hash->position += size;
}

static void
fake_hash_end(struct moat_hash *hash, uint8_t ret[MOAT_HASH_SIZE])
{
	if (hash->by_position) {
		sha256_update(&hash->sha, sizeof hash->sum, (const uint8_t *) &hash->sum);
		sha256_update(&hash->sha, sizeof hash->position, (const uint8_t *) &hash->position);
	}
	if (ret != NULL)
		sha256_digest(&hash->sha, MOAT_HASH_SIZE, ret);
	free(hash);
}

const struct moat_host fake_host = {
	.struct_size = sizeof fake_host,
	.api_version = MOAT_API_VERSION,
	.version = "0",
	.log = fake_log,
	.progress = fake_progress,
	.cancelled = fake_cancelled,
	.config_int = fake_config_int,
	.hash_new = fake_hash_new,
	.hash_update = fake_hash_update,
	.hash_end = fake_hash_end,
};

void
fake_configure(const char *key, const char *text)
{
	for (size_t i = 0; i < CONFIGURED; i++)
		if (strcmp(key, configured[i].key) == 0)
			configured[i].text = text;
}

void
fake_reset(void)
{
	fake_cancel_after = -1;
	fake_on_poll = NULL;
	fake_warnings = fake_infos = 0;
	fake_position_hash = false;
	for (size_t i = 0; i < CONFIGURED; i++)
		configured[i].text = NULL;
}

/* -------------------------------------------------------------------------------- the world */

void
world_reopen(struct world *world)
{
	struct moat_store store = {sizeof store, world->store_fd, world->store, NULL};
	struct moat_error err = MOAT_ERROR_INIT;

	if (world->self != NULL)
		world->ops->close(world->self);
	world->self = NULL;
	assert_ok(world->ops->open(&fake_host, &store, &world->self, &err), &err);
}

void
world_configure(struct world *world, const char *key, const char *text)
{
	fake_configure(key, text);
	world_reopen(world);
}

void
assert_not_opened(struct world *world, const char *text)
{
	struct moat_store store = {sizeof store, world->store_fd, world->store, NULL};
	struct moat_error err = MOAT_ERROR_INIT;
	void *self = NULL;

	assert_fails(world->ops->open(&fake_host, &store, &self, &err), &err, MOAT_USAGE, text);
	assert_null(self);
}

struct world *
world_new(void)
{
	const char *tmp = getenv("TMPDIR");
	struct world *world = world_make(tmp == NULL ? "/tmp" : tmp);

	world->ops = moat_plugin_init(&fake_host)->ops;
	world_reopen(world);
	return world;
}

void
world_free(struct world *world)
{
	world->ops->close(world->self);
	world_remove(world);
}

int
world_setup(void **state)
{
	fake_reset();
	*state = world_new();
	return 0;
}

int
world_teardown(void **state)
{
	fake_reset();
	world_free(*state);
	return 0;
}

int
run_shell(const char *script, ...)
{
	const char *argv[16] = {"sh", "-c", script, "sh"};
	size_t n = 4;
	va_list args;
	int status;
	pid_t pid;

	va_start(args, script);
	while (n < 15 && (argv[n] = va_arg(args, const char *)) != NULL)
		n++;
	va_end(args);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void) execvp("sh", (char **) argv);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		assert_int_equal(errno, EINTR);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* By components, so that paths above PATH_MAX can be had. */
int
open_deep(int rootfd, const char *path, int flags)
{
	int dirfd = dup(rootfd), fd;
	const char *slash;

	while ((slash = strchr(path, '/')) != NULL) {
		char name[256];

		(void) snprintf(name, sizeof name, "%.*s", (int) (slash - path), path);
		fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void) close(dirfd);
		if (fd < 0)
			return -1;
		dirfd = fd;
		path = slash + 1;
	}
	fd = openat(dirfd, *path == '\0' ? "." : path, flags | O_CLOEXEC);
	(void) close(dirfd);
	return fd;
}

/* ------------------------------------------------------------------------------- the calls */

static int
on_open(const struct moat_capture *capture_call, size_t index, struct moat_error *err)
{
	struct session *session = capture_call->context;
	const struct moat_entry *entry = &session->tree->entries[index];
	int code = session->on_open == NULL ? 0 : session->on_open(session, index), fd;

	assert_int_equal(entry->type, MOAT_FILE);
	assert_true(entry->leader == MOAT_NO_LEADER);
	session->opened++;
	if (!pthread_equal(pthread_self(), session->thread))
		session->stranger = true;
	if (code != 0)
		return moat_fail(err, code, "refused by the test");
	fd = open_deep(session->world->src_fd, entry->path, O_RDONLY | O_NOFOLLOW);
	return fd >= 0 ? fd : moat_fail(err, MOAT_GONE, "gone");
}

static int
on_stored(const struct moat_capture *capture_call, size_t index, int fd, uint64_t size,
	  const uint8_t *hash, const uint64_t locator[3], struct moat_error *err)
{
	struct session *session = capture_call->context;
	struct moat_entry *entry = &session->tree->entries[index];
	int r = session->on_stored == NULL
			? 0
			: session->on_stored(session, index, ++session->times[index]);

	assert_true(fd >= 0);
	assert_non_null(hash);
	if (r < 0)
		return moat_fail(err, MOAT_FAILED, "stopped by the test");
	entry->size = size;
	entry->flags = MOAT_HAS_HASH | MOAT_HAS_LOCATOR;
	memcpy(entry->hash, hash, sizeof entry->hash);
	memcpy(entry->locator, locator, sizeof entry->locator);
	return r;
}

static int
on_manifest(const struct moat_capture *capture_call, const void **ret, size_t *ret_size,
	    struct moat_error *err)
{
	struct session *session = capture_call->context;

	*ret = session->manifest == NULL ? "the manifest" : session->manifest;
	*ret_size = session->manifest_size == 0 ? strlen(*ret) : session->manifest_size;
	return 0;
}

int
capture(struct session *session)
{
	struct world *world = session->world;
	char id[32];
	struct moat_capture call = {sizeof call,          id,      NULL,    world->src_fd,
				    &session->tree->list, session, on_open, on_stored,
				    on_manifest};
	int r;

	(void) snprintf(id, sizeof id, "snap_%012x", ++world->next_id);
	session->ref = (struct moat_ref){.struct_size = sizeof session->ref};
	session->err = (struct moat_error) MOAT_ERROR_INIT;
	session->thread = pthread_self();
	session->times = calloc(session->tree->count, sizeof *session->times);
	assert_non_null(session->times);
	r = world->ops->capture(world->self, &call, &session->ref, &session->err);
	assert_true((r < 0) == (session->err.code != MOAT_OK));
	session_free(session);
	return r;
}

void
session_free(struct session *session)
{
	free(session->times);
	session->times = NULL;
}

static _Thread_local char place_name[32];

static int
on_place(const struct moat_extract *call, size_t index, int *ret_dirfd, const char **ret_name,
	 struct moat_error *err)
{
	struct session *session = call->context;

	(void) snprintf(place_name, sizeof place_name, "%zu", index);
	*ret_dirfd = session->world->out_fd;
	*ret_name = place_name;
	return 0;
}

static int
on_done(const struct moat_extract *call, size_t index, int fd, uint64_t size, const uint8_t *hash,
	struct moat_error *err)
{
	struct session *session = call->context;
	const struct moat_entry *entry = call->entries->items[index];
	struct stat st;

	session->done++;
	if (!pthread_equal(pthread_self(), session->thread))
		session->stranger = true;
	if (session->place && (fstat(fd, &st) < 0 || (uint64_t) st.st_size != entry->size))
		session->wrong = true;
	if (size != entry->size || memcmp(hash, entry->hash, sizeof entry->hash) != 0) {
		session->wrong = true;
		session->refused++;
		return moat_fail(err, MOAT_CORRUPT, "not the content of the manifest");
	}
	return 0;
}

static int
on_damaged(const struct moat_extract *call, size_t index, const struct moat_error *why,
	   struct moat_error *err)
{
	struct session *session = call->context;

	session->damaged++;
	assert_int_equal(why->code, MOAT_CORRUPT);
	assert_true(why->message[0] != '\0');
	if (session->place)
		return moat_fail(err, why->code, "%s", why->message);
	return 0;
}

int
extract(struct session *session)
{
	struct world *world = session->world;
	const struct moat_entry **files = calloc(session->tree->count, sizeof *files);
	struct moat_entries list = {sizeof list, sizeof(struct moat_entry), 0, files};
	struct moat_extract call = {
		sizeof call, session->ref.text, &list, session, session->place ? on_place : NULL,
		on_done,     on_damaged};
	int r;

	assert_non_null(files);
	for (size_t i = 0; i < session->tree->count; i++)
		if (session->tree->entries[i].type == MOAT_FILE &&
		    session->tree->entries[i].leader == MOAT_NO_LEADER)
			files[list.count++] = session->tree->items[i];
	if (session->place)
		empty_out(world);
	session->err = (struct moat_error) MOAT_ERROR_INIT;
	session->thread = pthread_self();
	if (session->ref.text[0] == '\0') /* the newest */
		(void) snprintf(session->ref.text, sizeof session->ref.text, "snap_%012x",
				world->next_id);
	r = session->place ? world->ops->materialise(world->self, &call, &session->err)
			   : world->ops->verify(world->self, &call, &session->err);
	free(files);
	return r;
}
