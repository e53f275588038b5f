/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of packs: names and opening. */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"

#define ID_DIGITS 12
#define ID_LENGTH (sizeof "snap_" - 1 + ID_DIGITS)

static const struct {
	const char *before, *after;
} forms[] = {
	[PACK_LIVE] = {"", ".tar.lz4"},
	[PACK_ORPHAN] = {"", ".orphan.tar.lz4"},
	[PACK_TEMPORARY] = {".", ".tmp"},
};

const char *
pack_name(char *out, uint64_t number, enum pack_kind kind)
{
	(void) snprintf(out, PACK_NAME_MAX, "%ssnap_%0*llx%s", forms[kind].before, ID_DIGITS,
			(unsigned long long) number, forms[kind].after);
	return out;
}

static int
parse_id(const char *text, uint64_t *ret)
{
	uint64_t value = 0;

	if (strncmp(text, "snap_", 5) != 0)
		return -1;
	for (size_t i = 5; i < ID_LENGTH; i++) {
		const char *digit = memchr("0123456789abcdef", text[i], 16);

		if (text[i] == '\0' || digit == NULL)
			return -1;
		value = value * 16 +
			(uint64_t) (text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
	}
	*ret = value;
	return 0;
}

int
pack_number(const char *id, uint64_t *ret)
{
	return parse_id(id, ret) == 0 && id[ID_LENGTH] == '\0' ? 0 : -1;
}

static bool
name_is_pack(const char *name, enum pack_kind kind, uint64_t *ret)
{
	size_t skip = strlen(forms[kind].before);

	return strncmp(name, forms[kind].before, skip) == 0 && parse_id(name + skip, ret) == 0 &&
	       strcmp(name + skip + ID_LENGTH, forms[kind].after) == 0;
}

static bool
exists(const struct archive *archive, uint64_t number, enum pack_kind kind, uint64_t *ret_size)
{
	char name[PACK_NAME_MAX];
	struct stat st;

	if (fstatat(archive->dirfd, pack_name(name, number, kind), &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	if (ret_size != NULL)
		*ret_size = (uint64_t) st.st_size;
	return true;
}

bool
store_has_pack(const struct archive *archive, uint64_t number, uint64_t *ret_size)
{
	return exists(archive, number, PACK_LIVE, ret_size) ||
	       exists(archive, number, PACK_ORPHAN, ret_size);
}

int
store_open_pack(const struct archive *archive, uint64_t number, struct moat_error *err)
{
	static const enum pack_kind kinds[] = {PACK_LIVE, PACK_ORPHAN, PACK_LIVE};
	char name[PACK_NAME_MAX];

	/* The third look is for one that was renamed between the first two. */
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		int fd = openat(archive->dirfd, pack_name(name, number, kinds[i]),
				O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

		if (fd >= 0)
			return fd;
		if (errno != ENOENT)
			return moat_fail_errno(err, "open `%s/%s'", archive->path, name);
	}
	return moat_fail(err, MOAT_CORRUPT,
			 "`%s/%s' is missing, and with it content that is needed", archive->path,
			 pack_name(name, number, PACK_LIVE));
}

int
store_each(const struct archive *archive, enum pack_kind kind,
	   int (*visit)(void *context, uint64_t number, struct moat_error *err), void *context,
	   struct moat_error *err)
{
	AUTO_CLOSEDIR DIR *dir = NULL;
	AUTO_CLOSE int fd = openat(archive->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *item;
	uint64_t number;

	if (fd < 0 || (dir = fdopendir(fd)) == NULL)
		return moat_fail_errno(err, "open `%s'", archive->path);
	fd = -1; /* dir has it */
	while (errno = 0, (item = readdir(dir)) != NULL) {
		if (name_is_pack(item->d_name, kind, &number) && visit(context, number, err) < 0)
			return -1;
	}
	return errno == 0 ? 0 : moat_fail_errno(err, "read `%s'", archive->path);
}

int
store_remove(const struct archive *archive, uint64_t number, enum pack_kind kind,
	     struct moat_error *err)
{
	char name[PACK_NAME_MAX];

	if (unlinkat(archive->dirfd, pack_name(name, number, kind), 0) == 0 || errno == ENOENT)
		return 0;
	return moat_fail_errno(err, "remove `%s/%s'", archive->path, name);
}

static int
remove_temporary(void *context, uint64_t number, struct moat_error *err)
{
	return store_remove(context, number, PACK_TEMPORARY, err);
}

int
store_sweep(const struct archive *archive, struct moat_error *err)
{
	return store_each(archive, PACK_TEMPORARY, remove_temporary, (void *) archive, err);
}
