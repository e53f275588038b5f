/* SPDX-License-Identifier: Apache-2.0 */
/* Giving content back, and proving that it could be. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalogue.h"
#include "content.h"

struct extracting {
	const struct reflink *reflink;
	const struct moat_extract *extract;
};

/* -------------------------------------------------------------------------------- one file */

static int
check_size(int fd, uint64_t size, struct moat_error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return moat_fail_errno(err, "stat");
	if ((uint64_t) st.st_size != size)
		return moat_fail(err, MOAT_CORRUPT, "what is stored has another size");
	return 0;
}

/* Content into `to`, new and empty (-1: nowhere), and the hash of what it then holds, read back
 * from there.  The size is compared before anything is written, so that a store cannot make more of
 * it. */
static int
give_content(struct work *work, const struct moat_entry *entry, int to,
	     uint8_t hash[MOAT_HASH_SIZE], struct moat_error *err)
{
	const struct extracting *x = work->context;
	AUTO_CLOSE int from = -1;
	uint64_t size = 0;
	bool copied;

	if (entry->size == 0)
		return reflink_hash(x->reflink, NULL, 0, hash, err);
	if ((entry->flags & MOAT_HAS_LOCATOR) == 0)
		return moat_fail(err, MOAT_CORRUPT, "nothing tells where the content is stored");
	from = store_open_file(x->reflink, entry->locator[0], entry->locator[1], err);
	if (from < 0 || check_size(from, entry->size, err) < 0)
		return -1;
	if (to >= 0 && content_transfer(work, from, to, entry->size, &copied, err) < 0)
		return -1;
	if (content_hash(work, to >= 0 ? to : from, entry->size, &size, hash, err) < 0)
		return -1;
	if (size != entry->size)
		return moat_fail(err, MOAT_CORRUPT, "what is stored has another size");
	if ((entry->flags & MOAT_HAS_HASH) != 0 && memcmp(hash, entry->hash, MOAT_HASH_SIZE) != 0)
		return moat_fail(err, MOAT_CORRUPT,
				 "the content stored is not that of the manifest");
	return 0;
}

/* The error of giving content: where, for what is stored in a file. */
static int
give_checked(struct work *work, const struct moat_entry *entry, int to,
	     uint8_t hash[MOAT_HASH_SIZE], struct moat_error *err)
{
	const struct extracting *x = work->context;
	char set[SET_NAME_MAX], name[FILE_NAME_MAX];

	if (give_content(work, entry, to, hash, err) == 0)
		return 0;
	if (err->sys_errno == EIO)
		err->code = MOAT_CORRUPT; /* blocks that cannot be read are lost */
	if (err->code != MOAT_CORRUPT || (entry->flags & MOAT_HAS_LOCATOR) == 0 ||
	    strncmp(err->message, "`", 1) == 0)
		return -1;
	return moat_wrap(err, "`%s/%s/%s'", x->reflink->path,
			 set_name(set, entry->locator[0], SET_LIVE),
			 set_file_name(name, entry->locator[1]));
}

static int
open_place(const struct moat_extract *extract, size_t index, int *ret_dirfd, const char **ret_name,
	   struct moat_error *err)
{
	int fd;

	if (extract->place(extract, index, ret_dirfd, ret_name, err) < 0)
		return -1;
	fd = openat(*ret_dirfd, *ret_name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC,
		    0600);
	if (fd >= 0)
		return fd;
	return moat_fail_errno(err, "create `%s' for `%s'", *ret_name,
			       extract->entries->items[index]->path);
}

/* Makes the file and hands it over; what is not complete is removed. */
static int
extract_one(struct work *work, size_t index, struct moat_error *err)
{
	const struct extracting *x = work->context;
	const struct moat_extract *extract = x->extract;
	const struct moat_entry *entry = extract->entries->items[index];
	struct moat_error why = MOAT_ERROR_INIT;
	uint8_t hash[MOAT_HASH_SIZE];
	const char *name = NULL;
	AUTO_CLOSE int fd = -1;
	int dirfd = -1, r;

	if (extract->place != NULL) {
		fd = open_place(extract, index, &dirfd, &name, err);
		if (fd < 0)
			return -1;
	}
	if (give_checked(work, entry, fd, hash, &why) == 0)
		r = extract->done(extract, index, fd, entry->size, hash, err);
	else if (why.code == MOAT_CORRUPT)
		r = extract->damaged(extract, index, &why, err);
	else
		r = moat_error_set(err, why.code, why.sys_errno, "`%s': %s", entry->path,
				   why.message);
	if (fd >= 0 && (r < 0 || why.code != MOAT_OK))
		(void) unlinkat(dirfd, name, 0);
	return r;
}

int
reflink_materialise(void *self, const struct moat_extract *extract, struct moat_error *err)
{
	struct extracting x = {self, extract};
	struct work work = {.reflink = self,
			    .item = extract_one,
			    .context = &x,
			    .count = extract->entries->count};

	for (size_t i = 0; i < extract->entries->count; i++)
		work.total_bytes += extract->entries->items[i]->size;
	return work_run(&work, err);
}

/* ----------------------------------------------------------------------------------- verifying */

/* Of a snapshot that stays all files must be there; of one that was removed those that are needed,
 * which are among the entries. */
static int
check_files(const struct reflink *reflink, const struct catalogue *catalogue, int set_fd,
	    struct moat_error *err)
{
	char set[SET_NAME_MAX], name[FILE_NAME_MAX];

	for (uint64_t i = 0; i < catalogue->count; i++) {
		struct stat st;

		if (catalogue->sizes[i] == NO_FILE)
			continue;
		if (fstatat(set_fd, set_file_name(name, i), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode) && (uint64_t) st.st_size == catalogue->sizes[i])
			continue;
		return moat_fail(err, MOAT_CORRUPT,
				 "`%s/%s/%s' is missing, or not of the size that it should have",
				 reflink->path, set_name(set, catalogue->number, SET_LIVE), name);
	}
	return 0;
}

static int
check_set(const struct reflink *reflink, uint64_t number, bool own, struct moat_error *err)
{
	AUTO_CATALOGUE struct catalogue catalogue = {0};
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_FREE char *manifest = NULL;
	enum set_kind kind = SET_LIVE;
	AUTO_CLOSE int fd = store_open_set(reflink, number, &kind, err);

	if (fd < 0 || catalogue_read(reflink, number, fd, &catalogue, err) < 0)
		return -1;
	if (catalogue_manifest(reflink, &catalogue, fd, &manifest, &why) < 0) {
		if (why.code == MOAT_NOT_FOUND && kind == SET_ORPHAN && !own)
			return 0; /* nobody needs it */
		return moat_error_set(err, why.code == MOAT_NOT_FOUND ? MOAT_CORRUPT : why.code,
				      why.sys_errno, "%s", why.message);
	}
	return own && kind == SET_LIVE ? check_files(reflink, &catalogue, fd, err) : 0;
}

static int
compare_numbers(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Indexes and manifests of the snapshot's own set and of those that it has content in.  Each entry
 * that is lost was told already, so the first damage found here ends the call. */
static int
check_sets(const struct reflink *reflink, uint64_t own, const struct moat_entries *entries,
	   struct moat_error *err)
{
	AUTO_FREE uint64_t *numbers = calloc(entries->count + 1, sizeof *numbers);
	struct moat_error why = MOAT_ERROR_INIT;
	size_t count = 0;

	if (numbers == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < entries->count; i++)
		if (entries->items[i]->size > 0 &&
		    (entries->items[i]->flags & MOAT_HAS_LOCATOR) != 0)
			numbers[count++] = entries->items[i]->locator[0];
	qsort(numbers, count, sizeof *numbers, compare_numbers);
	if (check_set(reflink, own, true, &why) < 0)
		return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
	for (size_t i = 0; i < count; i++) {
		if (numbers[i] == own || (i > 0 && numbers[i] == numbers[i - 1]))
			continue;
		if (check_set(reflink, numbers[i], false, err) < 0)
			return -1;
	}
	return 0;
}

/* Reading without a place to write to is what verifying is, and then what no entry is about. */
int
reflink_verify(void *self, const struct moat_extract *extract, struct moat_error *err)
{
	uint64_t own;

	if (set_number(extract->ref, &own) < 0)
		return moat_fail(err, MOAT_USAGE, "`%s' is not the name of a snapshot here",
				 extract->ref);
	if (reflink_materialise(self, extract, err) < 0)
		return -1;
	return check_sets(self, own, extract->entries, err);
}

/* ----------------------------------------------------------------------------------- manifests */

struct enumerating {
	const struct reflink *reflink;
	enum set_kind kind;
	int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
		     size_t manifest_size, struct moat_error *err);
	void *context;
};

/* 0: read; 1: there is none, which is right. */
static int
read_manifest(const struct enumerating *e, uint64_t number, struct catalogue *catalogue, char **ret,
	      struct moat_error *err)
{
	AUTO_CLOSE int fd = store_open_set(e->reflink, number, NULL, err);
	struct stat st;

	if (fd < 0)
		return -1;
	if (e->kind == SET_ORPHAN && fstatat(fd, MANIFEST_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0 &&
	    errno == ENOENT)
		return 1;
	if (catalogue_read(e->reflink, number, fd, catalogue, err) < 0 ||
	    catalogue_manifest(e->reflink, catalogue, fd, ret, err) < 0)
		return -1;
	return 0;
}

/* A set that cannot be read is warned of: the others can still be listed. */
static int
visit_set(void *context, uint64_t number, struct moat_error *err)
{
	const struct enumerating *e = context;
	AUTO_CATALOGUE struct catalogue catalogue = {0};
	struct moat_ref ref = {.struct_size = sizeof ref};
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_FREE char *manifest = NULL;
	int r = read_manifest(e, number, &catalogue, &manifest, &why);

	if (r < 0 && why.code != MOAT_CORRUPT && why.code != MOAT_NOT_FOUND)
		return moat_error_set(err, why.code, why.sys_errno, "%s", why.message);
	if (r < 0)
		reflink_log(e->reflink, MOAT_LOG_WARNING, "a snapshot is damaged: %s", why.message);
	if (r != 0)
		return 0;
	(void) set_name(ref.text, number, SET_LIVE);
	ref.stored_bytes = catalogue.copied_bytes + catalogue.manifest_size + catalogue.index_size;
	ref.flags = e->kind == SET_ORPHAN ? MOAT_REF_REMOVED : 0;
	return e->found(e->context, &ref, manifest, (size_t) catalogue.manifest_size, err);
}

int
reflink_enumerate(void *self,
		  int (*found)(void *context, const struct moat_ref *ref, const void *manifest,
			       size_t manifest_size, struct moat_error *err),
		  void *context, struct moat_error *err)
{
	struct enumerating e = {self, SET_LIVE, found, context};

	if (store_each(self, SET_LIVE, visit_set, &e, err) < 0)
		return -1;
	e.kind = SET_ORPHAN;
	return store_each(self, SET_ORPHAN, visit_set, &e, err);
}
