/* SPDX-License-Identifier: Apache-2.0 */
#include "picture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "proof.h"

struct taking {
	struct picture *picture;
	unsigned flags;
};

/* Two different contents have the same one by accident only; nobody here does it on purpose. */
static uint64_t
mix(uint64_t hash, const void *data, size_t size)
{
	const unsigned char *bytes = data;
	uint64_t word;

	for (; size >= 8; size -= 8, bytes += 8) {
		memcpy(&word, bytes, 8);
		hash = (hash ^ word) * 0x9fb21c651e98df25u;
		hash ^= hash >> 32;
	}
	for (; size > 0; size--, bytes++)
		hash = (hash ^ *bytes) * 0x100000001b3u;
	return hash;
}

static void
say(struct buf *text, const void *data, size_t size)
{
	const unsigned char *bytes = data;

	for (size_t i = 0; i < size; i++) {
		if (bytes[i] > ' ' && bytes[i] < 0x7f && bytes[i] != '\\')
			buf_append(text, &bytes[i], 1);
		else
			buf_format(text, "\\%02x", bytes[i]);
	}
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static void
say_xattr(int fd, const char *name, struct buf *text)
{
	static char value[1 << 16];
	ssize_t size = fgetxattr(fd, name, value, sizeof value);

	buf_format(text, " ");
	say(text, name, strlen(name));
	if (size < 0)
		buf_format(text, "=?%s", strerror(errno));
	else
		buf_format(text, "=%zd:%016llx", size,
			   (unsigned long long) mix(1, value, (size_t) size));
}

/* All of them: what moat does not capture is the same on both sides as well. */
static void
say_xattrs(int fd, struct buf *text)
{
	static char names[1 << 16];
	const char *sorted[512];
	ssize_t size = flistxattr(fd, names, sizeof names);
	size_t count = 0;

	for (ssize_t at = 0; at < size && count < 512; at += (ssize_t) strlen(names + at) + 1)
		sorted[count++] = names + at;
	qsort(sorted, count, sizeof *sorted, compare_names);
	for (size_t i = 0; i < count; i++)
		say_xattr(fd, sorted[i], text);
}

static void
say_content(int fd, struct buf *text)
{
	static char block[1 << 16];
	uint64_t hash = 7, total = 0;
	ssize_t n;

	while ((n = read(fd, block, sizeof block)) > 0) {
		hash = mix(hash, block, (size_t) n);
		total += (uint64_t) n;
	}
	MUST(n);
	buf_format(text, " #%llu:%016llx", (unsigned long long) total, (unsigned long long) hash);
}

/* Opened, if need be by giving oneself permission for a moment; *ret_closed tells. */
static int
open_anyhow(int dirfd, const char *name, const struct stat *st, bool *ret_closed)
{
	mode_t needed = S_ISDIR(st->st_mode) ? 0500 : 0400;
	int fd;

	*ret_closed = geteuid() != 0 && (st->st_mode & needed) != needed;
	if (*ret_closed)
		MUST(fchmodat(dirfd, name, (st->st_mode & 07777) | needed, 0));
	fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	MUST(fd);
	return fd;
}

static void take_children(struct taking *taking, int fd, const char *path, bool uncaptured);

static void
take_opened(struct taking *taking, int dirfd, const char *name, const char *path,
	    const struct stat *st, struct sight *sight, struct buf *text)
{
	bool closed, is_directory = S_ISDIR(st->st_mode);
	int fd = open_anyhow(dirfd, name, st, &closed);

	sight->closed = closed && is_directory;
	if (!sight->closed)
		say_xattrs(fd, text);
	if (!is_directory)
		say_content(fd, text);
	if (closed && !is_directory)
		sight->uncaptured = true;
	sight->text = buf_steal(text);
	picture_add(taking->picture, sight);
	free(sight->text);
	if (is_directory)
		take_children(taking, fd, path, closed || sight->uncaptured);
	close(fd);
	if (closed)
		MUST(fchmodat(dirfd, name, st->st_mode & 07777, 0));
}

static void
take_one(struct taking *taking, int dirfd, const char *name, char *path, bool uncaptured)
{
	static char target[1 << 14];
	struct buf text = {0};
	struct sight sight = {.path = path, .uncaptured = uncaptured};
	struct stat st;
	ssize_t n;

	MUST(fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW));
	sight.mode = st.st_mode;
	sight.dev = st.st_dev;
	sight.ino = st.st_ino;
	sight.links = st.st_nlink;
	sight.size = S_ISDIR(st.st_mode) ? 0 : (uint64_t) st.st_size;
	sight.blocks = (uint64_t) st.st_blocks;
	buf_format(&text, "%u:%u %lld.%09ld %llu", st.st_uid, st.st_gid,
		   (long long) st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		   (unsigned long long) sight.size);
	if (taking->flags & PICTURE_IDENTITY)
		buf_format(&text, " inode %llu links %lu changed %lld.%09ld",
			   (unsigned long long) st.st_ino, (unsigned long) st.st_nlink,
			   (long long) st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
	if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) {
		take_opened(taking, dirfd, name, path, &st, &sight, &text);
		return;
	}
	if (S_ISLNK(st.st_mode)) {
		n = readlinkat(dirfd, name, target, sizeof target);
		MUST(n);
		buf_format(&text, " -> ");
		say(&text, target, (size_t) n);
	} else {
		sight.uncaptured = true;
	}
	sight.text = buf_steal(&text);
	picture_add(taking->picture, &sight);
	free(sight.text);
}

static void
take_children(struct taking *taking, int fd, const char *path, bool uncaptured)
{
	DIR *stream = fdopendir(fcntl(fd, F_DUPFD_CLOEXEC, 0));
	const struct dirent *entry;

	if (stream == NULL)
		proof_die("fdopendir", __FILE__, __LINE__);
	while ((entry = readdir(stream)) != NULL) {
		char *child;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (asprintf(&child, "%s%s%s", path, path[0] == '\0' ? "" : "/", entry->d_name) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		take_one(taking, fd, entry->d_name, child, uncaptured);
		free(child);
	}
	closedir(stream);
}

void
picture_take(const char *path, unsigned flags, struct picture *ret)
{
	struct taking taking = {ret, flags};
	char root[] = "";

	*ret = (struct picture){0};
	take_one(&taking, AT_FDCWD, path, root, false);
	picture_sort(ret);
	if ((flags & PICTURE_IDENTITY) == 0)
		picture_link(ret);
}

void
picture_add(struct picture *picture, const struct sight *sight)
{
	struct sight *item;

	if (picture->count == picture->allocated) {
		picture->allocated = picture->allocated * 2 + 64;
		picture->items = reallocarray(picture->items, picture->allocated, sizeof *item);
		if (picture->items == NULL)
			proof_die("reallocarray", __FILE__, __LINE__);
	}
	item = &picture->items[picture->count++];
	*item = *sight;
	item->path = strdup(sight->path);
	item->text = strdup(sight->text);
	if (item->path == NULL || item->text == NULL)
		proof_die("strdup", __FILE__, __LINE__);
}

static int
compare_sights(const void *a, const void *b)
{
	return strcmp(((const struct sight *) a)->path, ((const struct sight *) b)->path);
}

void
picture_sort(struct picture *picture)
{
	if (picture->count > 0)
		qsort(picture->items, picture->count, sizeof *picture->items, compare_sights);
}

static void
link_to(struct sight *sight, const char *path)
{
	struct buf text = {0};
	const char *end = strstr(sight->text, " same as ");
	size_t n = end == NULL ? strlen(sight->text) : (size_t) (end - sight->text);

	buf_append(&text, sight->text, n);
	if (path != NULL) {
		buf_format(&text, " same as ");
		say(&text, path, strlen(path));
	}
	free(sight->text);
	sight->text = buf_steal(&text);
}

void
picture_link(struct picture *picture)
{
	for (size_t i = 0; i < picture->count; i++) {
		struct sight *sight = &picture->items[i];
		size_t j = 0;

		if (S_ISDIR(sight->mode) || sight->links < 2 || sight->uncaptured)
			continue;
		while (picture->items[j].ino != sight->ino || picture->items[j].dev != sight->dev ||
		       picture->items[j].uncaptured)
			j++;
		link_to(sight, j == i ? NULL : picture->items[j].path);
	}
}

void
picture_see(const struct picture *captured, const struct picture *now, struct picture *ret)
{
	*ret = (struct picture){0};
	for (size_t i = 0; i < now->count; i++) {
		picture_add(ret, &now->items[i]);
		if (picture_left_out(captured, now->items[i].path))
			ret->items[i].uncaptured = true;
	}
	picture_link(ret);
}

void
picture_free(struct picture *picture)
{
	for (size_t i = 0; i < picture->count; i++) {
		free(picture->items[i].path);
		free(picture->items[i].text);
	}
	free(picture->items);
	*picture = (struct picture){0};
}

const struct sight *
picture_find(const struct picture *picture, const char *path)
{
	struct sight key = {.path = (char *) path};

	if (picture->count == 0)
		return NULL;
	return bsearch(&key, picture->items, picture->count, sizeof key, compare_sights);
}

bool
picture_left_out(const struct picture *picture, const char *path)
{
	char *prefix = strdup(path);
	bool found = false, below = false;

	while (prefix != NULL && !found) {
		const struct sight *sight = picture_find(picture, prefix);
		char *slash = strrchr(prefix, '/');

		/* Of a directory that could not be listed nobody knows what it held. */
		found = sight != NULL && (sight->uncaptured ||
					  (below && sight->closed && (sight->mode & 0400) == 0));
		below = true;
		if (slash == NULL)
			break;
		*slash = '\0';
	}
	free(prefix);
	return found;
}

/* Of a long text the beginning and the end, where the other names are. */
static const char *
shorten(const char *text, struct buf *ret)
{
	size_t size = strlen(text);

	buf_append(ret, text, size < 400 ? size : 200);
	if (size >= 400)
		buf_format(ret, " ... %s", text + size - 195);
	return ret->data;
}

static void
tell(struct proof *p, const char *what, const char *path, const char *expected, unsigned mode,
     const char *actual, unsigned actual_mode)
{
	AUTO_BUF struct buf name = {0}, wanted = {0}, found = {0};

	if (what == NULL)
		return;
	say(&name, path, strlen(path) > 300 ? 300 : strlen(path));
	proof_fail(p, "%s: `%s'\n  expected %06o %s\n  found    %06o %s", what,
		   name.size == 0 ? "." : name.data, mode, shorten(expected, &wanted), actual_mode,
		   shorten(actual, &found));
}

/* Both are there. */
static bool
is_same(const struct sight *expected, const struct sight *actual, unsigned long *ret_stripped)
{
	unsigned mode = expected->mode;

	/* Another name of a file that was captured by a name elsewhere: it shares that one's fate.
	 */
	if (expected->uncaptured && !S_ISDIR(mode) && expected->links > 1)
		return (actual->mode & S_IFMT) == (mode & S_IFMT);
	if (strcmp(expected->text, actual->text) != 0)
		return false;
	if (actual->mode == mode)
		return true;
	if (ret_stripped == NULL || !S_ISREG(mode) || actual->mode != (mode & ~06000u))
		return false;
	++*ret_stripped;
	return true;
}

unsigned long
picture_compare(struct proof *p, const char *what, const struct picture *expected,
		const struct picture *actual, unsigned long *ret_stripped)
{
	unsigned long differences = 0;
	size_t i = 0, j = 0;

	while (i < expected->count || j < actual->count) {
		const struct sight *e = &expected->items[i], *a = &actual->items[j];
		int order = i == expected->count ? 1
			    : j == actual->count ? -1
						 : strcmp(e->path, a->path);

		i += order <= 0;
		j += order >= 0;
		if (order == 0 && is_same(e, a, ret_stripped))
			continue;
		differences++;
		tell(p, what, order <= 0 ? e->path : a->path, order <= 0 ? e->text : "nothing",
		     order <= 0 ? e->mode : 0, order >= 0 ? a->text : "nothing",
		     order >= 0 ? a->mode : 0);
	}
	return differences;
}
