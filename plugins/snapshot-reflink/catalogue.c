/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a set.  Nothing in it is believed before its hash is compared. */
#include "catalogue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "common/fs.h"

#define MAGIC "MOATSET1"
#define HEAD_SIZE ((size_t) 8 + 8 + 8 + 8 + MOAT_HASH_SIZE + 8)
#define INDEX_MAX (HEAD_SIZE + 8 * (size_t) SET_FILES_MAX + MOAT_HASH_SIZE)

void
catalogue_free(struct catalogue *catalogue)
{
	free(catalogue->sizes);
	*catalogue = (struct catalogue){0};
}

int
catalogue_encode(const struct reflink *reflink, const struct catalogue *catalogue, struct buf *out,
		 struct moat_error *err)
{
	uint8_t hash[MOAT_HASH_SIZE];

	buf_append(out, MAGIC, 8);
	buf_u64(out, catalogue->number);
	buf_u64(out, catalogue->copied_bytes);
	buf_u64(out, catalogue->manifest_size);
	buf_append(out, catalogue->manifest_hash, MOAT_HASH_SIZE);
	buf_u64(out, catalogue->count);
	for (uint64_t i = 0; i < catalogue->count; i++)
		buf_u64(out, catalogue->sizes[i]);
	if (buf_check(out, err) < 0 || reflink_hash(reflink, out->data, out->size, hash, err) < 0)
		return -1;
	buf_append(out, hash, sizeof hash);
	return buf_check(out, err);
}

static int
decode(const struct reflink *reflink, const uint8_t *data, size_t size, struct catalogue *ret,
       struct moat_error *err)
{
	uint8_t hash[MOAT_HASH_SIZE];
	const uint8_t *p = data + 8;

	if (size < HEAD_SIZE + MOAT_HASH_SIZE || memcmp(data, MAGIC, 8) != 0)
		return moat_fail(err, MOAT_CORRUPT, "it is truncated, or no index");
	if (reflink_hash(reflink, data, size - MOAT_HASH_SIZE, hash, err) < 0)
		return -1;
	if (memcmp(hash, data + size - MOAT_HASH_SIZE, sizeof hash) != 0)
		return moat_fail(err, MOAT_CORRUPT, "it is damaged");
	ret->number = get_u64(p);
	ret->copied_bytes = get_u64(p + 8);
	ret->manifest_size = get_u64(p + 16);
	memcpy(ret->manifest_hash, p + 24, MOAT_HASH_SIZE);
	ret->count = get_u64(p + 24 + MOAT_HASH_SIZE);
	ret->index_size = size;
	if (ret->count != (size - HEAD_SIZE - MOAT_HASH_SIZE) / 8 || size % 8 != 0)
		return moat_fail(err, MOAT_CORRUPT, "its size is not what it says");
	ret->sizes = malloc((size_t) ret->count * 8 + 1);
	if (ret->sizes == NULL)
		return moat_fail_memory(err);
	for (uint64_t i = 0; i < ret->count; i++)
		ret->sizes[i] = get_u64(data + HEAD_SIZE + 8 * i);
	return 0;
}

/* Reads a file of the set whose loss, or replacement by something else, is damage. */
static int
read_file(int set_fd, const char *name, size_t max, char **ret, size_t *ret_size,
	  struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;

	if (fs_read(set_fd, name, max, ret, ret_size, &why) == 0)
		return 0;
	/* MOAT_FAILED without an errno: it is no file. */
	if ((why.code == MOAT_FAILED && why.sys_errno == 0) || why.sys_errno == EIO ||
	    why.sys_errno == ELOOP || why.sys_errno == ENXIO)
		why.code = MOAT_CORRUPT;
	return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
}

int
catalogue_read(const struct reflink *reflink, uint64_t number, int set_fd, struct catalogue *ret,
	       struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_FREE char *data = NULL;
	char name[SET_NAME_MAX];
	size_t size = 0;

	if (read_file(set_fd, INDEX_NAME, INDEX_MAX, &data, &size, &why) == 0 &&
	    decode(reflink, (const uint8_t *) data, size, ret, &why) == 0 && ret->number != number)
		(void) moat_fail(&why, MOAT_CORRUPT, "it is that of another set");
	if (why.code == MOAT_OK)
		return 0;
	return moat_error_set(err, why.code == MOAT_NOT_FOUND ? MOAT_CORRUPT : why.code,
			      why.sys_errno, "`%s/%s/" INDEX_NAME "': %s", reflink->path,
			      set_name(name, number, SET_LIVE), why.message);
}

int
catalogue_manifest(const struct reflink *reflink, const struct catalogue *catalogue, int set_fd,
		   char **ret, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	uint8_t hash[MOAT_HASH_SIZE];
	AUTO_FREE char *data = NULL;
	char name[SET_NAME_MAX];
	size_t size = 0;

	if (read_file(set_fd, MANIFEST_NAME, (size_t) catalogue->manifest_size, &data, &size,
		      &why) == 0 &&
	    reflink_hash(reflink, data, size, hash, &why) == 0 &&
	    (size != catalogue->manifest_size ||
	     memcmp(hash, catalogue->manifest_hash, sizeof hash) != 0))
		(void) moat_fail(&why, MOAT_CORRUPT, "it is damaged");
	if (why.code == MOAT_OK) {
		*ret = STEAL(data);
		return 0;
	}
	return moat_error_set(err, why.code, why.sys_errno, "`%s/%s/" MANIFEST_NAME "': %s",
			      reflink->path, set_name(name, catalogue->number, SET_LIVE),
			      why.message);
}
