/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance of snapshot backends: making and scanning trees, looking at a store. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fs.h"
#include "conformance.h"

/* ----------------------------------------------------------------------------------- random */

static uint64_t random_state = 1;

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

/* ------------------------------------------------------------------------------ making trees */

static int
new_file(struct world *world, const char *name)
{
	int fd = openat(world->src_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
			0644);

	assert_true(fd >= 0);
	return fd;
}

void
make_file(struct world *world, const char *name, const void *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	int fd = new_file(world, name);

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

void
make_sparse(struct world *world, const char *name, off_t size, size_t count, const off_t *data)
{
	int fd = new_file(world, name);

	assert_int_equal(ftruncate(fd, size), 0);
	for (size_t i = 0; i < count; i++)
		if (data[i] + 4 <= size)
			assert_int_equal(pwrite(fd, "data", 4, data[i]), 4);
	assert_int_equal(close(fd), 0);
}

/* One of a few dozen paths, some of them below others; odd bytes in some. */
static void
random_path(char out[64])
{
	static const char *const odd[] = {"-rf", "new\nline", "\xff\xfe", "..x", " ", "%s"};
	uint64_t n = random_below(40);

	if (n < 6)
		(void) snprintf(out, 64, "%s", odd[n]);
	else if (n < 20)
		(void) snprintf(out, 64, "f%llu", (unsigned long long) n);
	else
		(void) snprintf(out, 64, "d%llu/e%llu/%s", (unsigned long long) (n % 3),
				(unsigned long long) (n % 2), odd[n % 6]);
}

static void
make_parents(struct world *world, const char *path)
{
	char directory[64];

	(void) snprintf(directory, sizeof directory, "%s", path);
	for (char *slash = directory; (slash = strchr(slash, '/')) != NULL; slash++) {
		*slash = '\0';
		if (mkdirat(world->src_fd, directory, 0755) < 0)
			assert_int_equal(errno, EEXIST);
		*slash = '/';
	}
}

static void
change_one(struct world *world)
{
	static const size_t scales[] = {1, 10, 600, 5000, 300000, 3 << 20};
	char path[64], other[64];
	off_t places[3];

	random_path(path);
	random_path(other);
	make_parents(world, path);
	(void) unlinkat(world->src_fd, path, 0);
	switch (random_below(8)) {
	case 0:
		break;
	case 1:
		for (size_t i = 0; i < 3; i++)
			places[i] = (off_t) random_below(1 << 20);
		make_sparse(world, path, 1 + (off_t) random_below(2 << 20), random_below(4),
			    places);
		break;
	case 2: /* a second name of another file, when there is one */
		if (linkat(world->src_fd, other, world->src_fd, path, 0) < 0)
			assert_true(errno == ENOENT);
		break;
	case 3:
		assert_int_equal(symlinkat(other, world->src_fd, path), 0);
		break;
	case 4:
		make_file(world, path, "", 0);
		break;
	default:
		make_random_file(world, path, random_below(1 + scales[random_below(6)]));
	}
}

void
change_at_random(struct world *world)
{
	for (uint64_t n = random_below(10); n > 0; n--)
		change_one(world);
}

/* ---------------------------------------------------------------------------------- scanning */

void
hash_file(int dirfd, const char *path, uint8_t ret[MOAT_HASH_SIZE])
{
	int fd = openat(dirfd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	static char buffer[1 << 16];
	struct sha256_ctx sha;
	ssize_t n;

	assert_true(fd >= 0);
	sha256_init(&sha);
	while ((n = read(fd, buffer, sizeof buffer)) > 0)
		sha256_update(&sha, (size_t) n, (const uint8_t *) buffer);
	assert_int_equal(n, 0);
	sha256_digest(&sha, MOAT_HASH_SIZE, ret);
	(void) close(fd);
}

static struct moat_entry *
add_entry(struct tree *tree, const char *path, const struct stat *st)
{
	struct moat_entry *entry;

	tree->entries = realloc(tree->entries, (tree->count + 1) * sizeof *tree->entries);
	assert_non_null(tree->entries);
	entry = &tree->entries[tree->count++];
	*entry = (struct moat_entry){
		.path = strdup(path),
		.type = S_ISDIR(st->st_mode)   ? MOAT_DIRECTORY
			: S_ISLNK(st->st_mode) ? MOAT_SYMLINK
					       : MOAT_FILE,
		.status = MOAT_NEW,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = S_ISDIR(st->st_mode) ? 0 : (uint64_t) st->st_size,
		.mtime_sec = st->st_mtim.tv_sec,
		.mtime_nsec = (uint32_t) st->st_mtim.tv_nsec,
		.ctime_sec = st->st_ctim.tv_sec,
		.ctime_nsec = (uint32_t) st->st_ctim.tv_nsec,
		.dev = st->st_dev,
		.ino = st->st_ino,
		.nlink = st->st_nlink,
		.leader = MOAT_NO_LEADER,
	};
	return entry;
}

static void
read_link(struct world *world, struct moat_entry *entry)
{
	char text[4096];
	ssize_t n = readlinkat(world->src_fd, entry->path, text, sizeof text - 1);

	assert_true(n >= 0);
	text[n] = '\0';
	entry->link_target = strdup(text);
}

static void
scan_directory(struct world *world, struct tree *tree, const char *path)
{
	struct moat_error err = MOAT_ERROR_INIT;
	DIR *dir = fs_open_stream(world->src_fd, path, &err);
	struct dirent *item;
	struct stat st;

	assert_non_null(dir);
	assert_int_equal(fstat(dirfd(dir), &st), 0);
	(void) add_entry(tree, path, &st);
	while ((item = readdir(dir)) != NULL) {
		AUTO_FREE char *inner = NULL;

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		assert_true(asprintf(&inner, "%s%s%s", path, *path == '\0' ? "" : "/",
				     item->d_name) >= 0);
		assert_int_equal(fstatat(world->src_fd, inner, &st, AT_SYMLINK_NOFOLLOW), 0);
		if (S_ISDIR(st.st_mode))
			scan_directory(world, tree, inner);
		else if (S_ISLNK(st.st_mode))
			read_link(world, add_entry(tree, inner, &st));
		else
			(void) add_entry(tree, inner, &st);
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

static size_t
find_path(const struct tree *tree, const char *path)
{
	for (size_t i = 0; i < tree->count; i++)
		if (strcmp(tree->entries[i].path, path) == 0)
			return i;
	return SIZE_MAX;
}

size_t
tree_index(const struct tree *tree, const char *path)
{
	size_t index = find_path(tree, path);

	assert_true(index != SIZE_MAX);
	return index;
}

static void
compare_previous(struct tree *tree, const struct tree *previous)
{
	for (size_t i = 0; i < tree->count; i++) {
		struct moat_entry *now = &tree->entries[i];
		size_t at = find_path(previous, now->path);
		const struct moat_entry *old = at == SIZE_MAX ? NULL : &previous->entries[at];

		if (old == NULL)
			continue;
		now->status = MOAT_MODIFIED;
		if (old->type != now->type || old->size != now->size || old->ino != now->ino ||
		    (old->leader == MOAT_NO_LEADER) != (now->leader == MOAT_NO_LEADER) ||
		    old->ctime_sec != now->ctime_sec || old->ctime_nsec != now->ctime_nsec)
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
tree_scan(struct world *world, const struct tree *previous)
{
	struct tree *tree = calloc(1, sizeof *tree);

	assert_non_null(tree);
	next_tick();
	scan_directory(world, tree, "");
	find_leaders(tree);
	if (previous != NULL)
		compare_previous(tree, previous);
	tree->items = calloc(tree->count, sizeof *tree->items);
	tree->truth = calloc(tree->count, sizeof *tree->truth);
	assert_non_null(tree->items);
	assert_non_null(tree->truth);
	for (size_t i = 0; i < tree->count; i++) {
		tree->items[i] = &tree->entries[i];
		if (tree->entries[i].type == MOAT_FILE)
			hash_file(world->src_fd, tree->entries[i].path, tree->truth[i]);
	}
	tree->list = (struct moat_entries){sizeof tree->list, sizeof(struct moat_entry),
					   tree->count, tree->items};
	return tree;
}

void
tree_free(struct tree *tree)
{
	if (tree == NULL)
		return;
	for (size_t i = 0; i < tree->count; i++) {
		free((void *) (uintptr_t) tree->entries[i].path);
		free((void *) (uintptr_t) tree->entries[i].link_target);
	}
	free(tree->entries);
	free(tree->items);
	free(tree->truth);
	free(tree);
}

int
tree_each(const struct tree *tree,
	  int (*visit)(void *context, const struct moat_entry *entry, struct moat_error *err),
	  void *context, struct moat_error *err)
{
	for (size_t i = 0; i < tree->count; i++)
		if (tree->entries[i].type == MOAT_FILE &&
		    tree->entries[i].leader == MOAT_NO_LEADER &&
		    visit(context, &tree->entries[i], err) < 0)
			return -1;
	return 0;
}

/* --------------------------------------------------------------------------------- the store */

static void
add_stored(struct world *world, const char *path, const struct stat *st, bool contents,
	   struct store_listing *listing)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct stored_file *file;

	listing->items = realloc(listing->items, (listing->count + 1) * sizeof *listing->items);
	assert_non_null(listing->items);
	file = &listing->items[listing->count++];
	*file = (struct stored_file){strdup(path), NULL, (size_t) st->st_size};
	listing->bytes += file->size;
	if (contents)
		assert_ok(fs_read(world->store_fd, path, SIZE_MAX / 2, &file->data, &file->size,
				  &err),
			  &err);
}

static void
list_directory(struct world *world, const char *path, bool contents, struct store_listing *listing)
{
	struct moat_error err = MOAT_ERROR_INIT;
	DIR *dir = fs_open_stream(world->store_fd, path, &err);
	struct dirent *item;
	struct stat st;

	assert_non_null(dir);
	while ((item = readdir(dir)) != NULL) {
		AUTO_FREE char *inner = NULL;

		if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
			continue;
		assert_true(asprintf(&inner, "%s%s%s", path, *path == '\0' ? "" : "/",
				     item->d_name) >= 0);
		assert_int_equal(fstatat(world->store_fd, inner, &st, AT_SYMLINK_NOFOLLOW), 0);
		if (S_ISDIR(st.st_mode)) {
			listing->directories++;
			list_directory(world, inner, contents, listing);
		} else {
			add_stored(world, inner, &st, contents, listing);
		}
	}
	(void) closedir(dir);
}

void
store_list(struct world *world, bool contents, struct store_listing *ret)
{
	*ret = (struct store_listing){0};
	list_directory(world, "", contents, ret);
}

void
store_listing_free(struct store_listing *listing)
{
	for (size_t i = 0; i < listing->count; i++) {
		free(listing->items[i].path);
		free(listing->items[i].data);
	}
	free(listing->items);
	*listing = (struct store_listing){0};
}

int
store_open_for_writing(struct world *world, const char *path)
{
	int fd;

	assert_int_equal(fchmodat(world->store_fd, path, 0600, 0), 0);
	fd = openat(world->store_fd, path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

void
assert_store_is_empty(struct world *world)
{
	struct store_listing listing;

	store_list(world, false, &listing);
	if (listing.count + listing.directories > 0)
		fail_msg("the store still has %zu files, `%s' for one, in %zu directories",
			 listing.count, listing.count > 0 ? listing.items[0].path : "none",
			 listing.directories);
	store_listing_free(&listing);
}
