/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of snapshot backends: looking at a store. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fs.h"
#include "world.h"

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

size_t
store_count(struct world *world)
{
	struct store_listing listing;
	size_t count;

	store_list(world, false, &listing);
	count = listing.count + listing.directories;
	store_listing_free(&listing);
	return count;
}

uint64_t
store_bytes(struct world *world)
{
	struct store_listing listing;
	uint64_t bytes;

	store_list(world, false, &listing);
	bytes = listing.bytes;
	store_listing_free(&listing);
	return bytes;
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
