/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of snapshot backends: directories, files in them, random numbers. */
#include "world.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fs.h"

/* ------------------------------------------------------------------------------- directories */

static char *
make_directory(const char *parent, const char *name, int *ret_fd)
{
	char *path = NULL;

	assert_true(asprintf(&path, "%s/%s", parent, name) > 0);
	assert_int_equal(mkdir(path, 0700), 0);
	*ret_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(*ret_fd >= 0);
	return path;
}

struct world *
world_make(const char *parent)
{
	struct world *world = calloc(1, sizeof *world);

	assert_non_null(world);
	assert_true(asprintf(&world->path, "%s/moat-world-XXXXXX", parent) > 0);
	assert_non_null(mkdtemp(world->path));
	world->src = make_directory(world->path, "src", &world->src_fd);
	world->store = make_directory(world->path, "store", &world->store_fd);
	world->out = make_directory(world->path, "out", &world->out_fd);
	return world;
}

void
world_remove(struct world *world)
{
	struct moat_error err = MOAT_ERROR_INIT;

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
empty_out(struct world *world)
{
	DIR *dir = fdopendir(openat(world->out_fd, ".", O_RDONLY | O_CLOEXEC));
	struct dirent *item;

	assert_non_null(dir);
	while ((item = readdir(dir)) != NULL)
		(void) unlinkat(world->out_fd, item->d_name, 0);
	(void) closedir(dir);
}

/* -------------------------------------------------------------------------------------- files */

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
		assert_int_equal(pwrite(fd, "data", 4, data[i]), 4);
	assert_int_equal(close(fd), 0);
}

/* ------------------------------------------------------------------------------------- random */

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
