/* SPDX-License-Identifier: Apache-2.0 */
/* Conformance of snapshot backends: trees that change at random, and the truth about them. */
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conformance.h"

/* --------------------------------------------------------------------------- random changes */

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

/* --------------------------------------------------------------------------------- the truth */

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

struct tree *
tree_scan(struct world *world, const struct tree *previous)
{
	struct tree *tree = tree_scan_source(world, previous);

	tree->truth = calloc(tree->count, sizeof *tree->truth);
	assert_non_null(tree->truth);
	for (size_t i = 0; i < tree->count; i++)
		if (tree->entries[i].type == MOAT_FILE)
			hash_file(world->src_fd, tree->entries[i].path, tree->truth[i]);
	return tree;
}
