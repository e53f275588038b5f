/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of snapshot-archive: fake host, fake core. */
#include "fake-archive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/fs.h"

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

uint64_t random_state;

void
random_start(void)
{
	const char *seed = getenv("MOAT_TEST_SEED");
	struct timespec now;

	(void) clock_gettime(CLOCK_REALTIME, &now);
	random_state = seed != NULL ? strtoull(seed, NULL, 10)
				    : (uint64_t) now.tv_nsec * 1000003 + (uint64_t) now.tv_sec;
	random_state |= 1;
	printf("# MOAT_TEST_SEED=%llu\n", (unsigned long long) random_state);
}

uint64_t
random_below(uint64_t limit)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(2685821657736338717) % limit;
}

static char *
join(const char *a, const char *b)
{
	size_t size = strlen(a) + strlen(b) + 2;
	char *path = malloc(size);

	assert_non_null(path);
	(void) snprintf(path, size, "%s/%s", a, b);
	return path;
}

static char *
make_directory(const char *parent, const char *name, int *ret_fd)
{
	char *path = join(parent, name);

	assert_int_equal(mkdir(path, 0700), 0);
	*ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(*ret_fd >= 0);
	return path;
}

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

struct world *
world_new(void)
{
	struct world *world = calloc(1, sizeof *world);
	const char *tmp = getenv("TMPDIR");

	assert_non_null(world);
	world->path = join(tmp == NULL ? "/tmp" : tmp, "moat-archive-XXXXXX");
	assert_non_null(mkdtemp(world->path));
	world->src = make_directory(world->path, "src", &world->src_fd);
	world->store = make_directory(world->path, "store", &world->store_fd);
	world->out = make_directory(world->path, "out", &world->out_fd);
	world->ops = moat_plugin_init(&fake_host)->ops;
	world_reopen(world);
	return world;
}

void
world_free(struct world *world)
{
	struct moat_error err = MOAT_ERROR_INIT;

	world->ops->close(world->self);
	(void) close(world->src_fd);
	(void) close(world->store_fd);
	(void) close(world->out_fd);
	assert_ok(fs_remove_tree(AT_FDCWD, world->path, &err), &err);
	free(world->path);
	free(world->src);
	free(world->store);
	free(world->out);
	free(world);
}

void
make_file(struct world *world, const char *name, const void *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	int fd = openat(world->src_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_ok(fs_write_all(fd, data, size, name, &err), &err);
	assert_int_equal(close(fd), 0);
}

void
make_random_file(struct world *world, const char *name, size_t size)
{
	char *data = malloc(size + 8);

	assert_non_null(data);
	for (size_t i = 0; i < size; i += 8) {
		uint64_t word = random_below(UINT64_MAX);

		memcpy(data + i, &word, sizeof word);
	}
	make_file(world, name, data, size);
	free(data);
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

/* --------------------------------------------------------------------------------- the tree */

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

static struct moat_entry *
add_entry(struct tree *tree, const char *path, const struct stat *st)
{
	struct moat_entry *entry;

	tree->entries = realloc(tree->entries, (tree->count + 1) * sizeof *tree->entries);
	assert_non_null(tree->entries);
	entry = &tree->entries[tree->count++];
	memset(entry, 0, sizeof *entry);
	entry->path = strdup(path);
	entry->type = S_ISDIR(st->st_mode)   ? MOAT_DIRECTORY
		      : S_ISLNK(st->st_mode) ? MOAT_SYMLINK
					     : MOAT_FILE;
	entry->status = MOAT_NEW;
	entry->mode = st->st_mode & 07777;
	entry->uid = st->st_uid;
	entry->gid = st->st_gid;
	entry->size = S_ISREG(st->st_mode) ? (uint64_t) st->st_size : 0;
	entry->mtime_sec = st->st_mtim.tv_sec;
	entry->mtime_nsec = (uint32_t) st->st_mtim.tv_nsec;
	entry->ctime_sec = st->st_ctim.tv_sec;
	entry->ctime_nsec = (uint32_t) st->st_ctim.tv_nsec;
	entry->dev = st->st_dev;
	entry->ino = st->st_ino;
	entry->nlink = st->st_nlink;
	entry->leader = MOAT_NO_LEADER;
	return entry;
}

static void
scan_directory(struct tree *tree, int fd, const char *path)
{
	DIR *dir = fdopendir(fd);
	struct dirent *item;
	struct stat st;

	assert_non_null(dir);
	assert_int_equal(fstat(fd, &st), 0);
	(void) add_entry(tree, path, &st);
	while ((item = readdir(dir)) != NULL) {
		char *inner = *path == '\0' ? strdup(item->d_name) : join(path, item->d_name);

		assert_non_null(inner);
		if (strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0) {
			assert_int_equal(fstatat(fd, item->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
			if (S_ISDIR(st.st_mode)) {
				scan_directory(tree, openat(fd, item->d_name, O_RDONLY | O_CLOEXEC),
					       inner);
			} else {
				struct moat_entry *entry = add_entry(tree, inner, &st);
				char text[4096];
				ssize_t n = readlinkat(fd, item->d_name, text, sizeof text - 1);

				if (n >= 0) {
					text[n] = '\0';
					entry->link_target = strdup(text);
				}
			}
		}
		free(inner);
	}
	(void) closedir(dir);
}

static void
find_leaders(struct tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		struct moat_entry *entry = &tree->entries[i];

		for (size_t j = 0; entry->type == MOAT_FILE && entry->nlink > 1 && j < i; j++) {
			if (tree->entries[j].ino == entry->ino &&
			    tree->entries[j].leader == MOAT_NO_LEADER) {
				entry->leader = j;
				break;
			}
		}
	}
}

size_t
tree_index(const struct tree *tree, const char *path)
{
	for (size_t i = 0; i < tree->count; i++)
		if (strcmp(tree->entries[i].path, path) == 0)
			return i;
	return SIZE_MAX;
}

static void
compare_previous(struct tree *tree, const struct tree *previous)
{
	for (size_t i = 0; i < tree->count; i++) {
		struct moat_entry *now = &tree->entries[i];
		size_t at = tree_index(previous, now->path);
		const struct moat_entry *old = at == SIZE_MAX ? NULL : &previous->entries[at];

		if (old == NULL)
			continue;
		now->status = MOAT_MODIFIED;
		if (old->type != now->type || old->size != now->size || old->mode != now->mode ||
		    old->ino != now->ino || old->ctime_sec != now->ctime_sec ||
		    old->ctime_nsec != now->ctime_nsec)
			continue;
		now->status = MOAT_SAME;
		now->flags = old->flags;
		memcpy(now->locator, old->locator, sizeof now->locator);
		memcpy(now->hash, old->hash, sizeof now->hash);
	}
}

/* Waits for the next tick of the clock that file times come from: whatever is changed after a scan
 * has a later ctime than what was changed before. */
static void
next_tick(void)
{
	struct timespec first, now;

	assert_int_equal(clock_gettime(CLOCK_REALTIME_COARSE, &first), 0);
	do {
		assert_int_equal(clock_gettime(CLOCK_REALTIME_COARSE, &now), 0);
	} while (now.tv_sec == first.tv_sec && now.tv_nsec == first.tv_nsec);
}

struct tree *
tree_scan_source(struct world *world, const struct tree *previous)
{
	struct tree *tree = calloc(1, sizeof *tree);

	assert_non_null(tree);
	next_tick();
	scan_directory(tree, openat(world->src_fd, ".", O_RDONLY | O_CLOEXEC), "");
	find_leaders(tree);
	if (previous != NULL)
		compare_previous(tree, previous);
	tree->items = calloc(tree->count, sizeof *tree->items);
	assert_non_null(tree->items);
	for (size_t i = 0; i < tree->count; i++)
		tree->items[i] = &tree->entries[i];
	tree->list = (struct moat_entries){sizeof tree->list, sizeof(struct moat_entry),
					   tree->count, tree->items};
	return tree;
}

void
tree_free(struct tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		free((void *) tree->entries[i].path);
		free((void *) tree->entries[i].link_target);
	}
	free(tree->entries);
	free(tree->items);
	free(tree);
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
	if (session->place) {
		DIR *dir = fdopendir(openat(world->out_fd, ".", O_RDONLY | O_CLOEXEC));
		struct dirent *item;

		assert_non_null(dir);
		while ((item = readdir(dir)) != NULL)
			(void) unlinkat(world->out_fd, item->d_name, 0);
		(void) closedir(dir);
	}
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
