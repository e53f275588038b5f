/* SPDX-License-Identifier: Apache-2.0 */
/* One member of a stranger's archive: which of the names, sizes and owners that its headers tell
 * counts, and whether they go together. */
#include <string.h>

#include "common/tar_stream_internal.h"

static int
count_size(struct tar_stream *stream, uint64_t size, struct moat_error *err)
{
	if (size > stream->limits.max_file_bytes)
		return tar_beyond(stream, err,
				  "it has %llu bytes, more than the %llu that a file may have "
				  "(max_file_bytes)",
				  (unsigned long long) size,
				  (unsigned long long) stream->limits.max_file_bytes);
	if (size > stream->limits.max_bytes - stream->bytes)
		return tar_beyond(stream, err,
				  "the files of the archive have more than %llu bytes together "
				  "(max_bytes)",
				  (unsigned long long) stream->limits.max_bytes);
	stream->bytes += size;
	return 0;
}

/* ------------------------------------------------------------------------------------------ names
 */

/* The name that counts: pax, GNU, plain. */
static int
raw_path(struct tar_stream *stream, const struct tar_block *block, enum tar_flavour flavour,
	 struct buf *ret, struct moat_error *err)
{
	struct buf *pax = stream->local.sparse_name.size > 0 ? &stream->local.sparse_name
							     : &stream->local.path;
	const char *wrong = NULL;

	/* For the messages: the name in the header will do until the right one is known. */
	buf_append(&stream->path, block->name, strnlen(block->name, sizeof block->name));
	if (stream->has_long_name && pax->size > 0)
		return tar_bad(stream, err, "it has two long names");
	if (pax->size > 0) {
		buf_append(ret, pax->data, pax->size);
	} else if (stream->has_long_name) {
		buf_append(ret, stream->long_name.data, stream->long_name.size);
	} else {
		if (flavour == TAR_USTAR && block->prefix[0] != '\0') {
			wrong = tar_fixed_name(block->prefix, sizeof block->prefix, ret);
			buf_append(ret, "/", 1);
		}
		if (wrong == NULL)
			wrong = tar_fixed_name(block->name, sizeof block->name, ret);
	}
	return wrong == NULL ? buf_check(ret, err) : tar_bad(stream, err, "it %s", wrong);
}

static int
take_path(struct tar_stream *stream, const struct tar_block *block, enum tar_flavour flavour,
	  bool *ret_slash, struct moat_error *err)
{
	AUTO_BUF struct buf raw = {0};
	struct buf clean = {0};
	const char *wrong;

	stream->path.size = 0;
	if (raw_path(stream, block, flavour, &raw, err) < 0)
		return -1;
	/* What a message shows. */
	stream->path.size = 0;
	buf_append(&stream->path, raw.data, raw.size);
	wrong = tar_clean_path(raw.data, raw.size, &clean, ret_slash);
	if (wrong != NULL) {
		buf_free(&clean);
		return tar_bad(stream, err, "it %s", wrong);
	}
	/* The root's name is empty, not absent. */
	buf_append(&clean, "", 1);
	if (!clean.failed)
		clean.size--;
	buf_free(&stream->path);
	stream->path = clean;
	if (buf_check(&stream->path, err) < 0)
		return -1;
	return tar_count_names(stream, stream->path.size + 1, err);
}

static int
take_link(struct tar_stream *stream, const struct tar_block *block, struct moat_error *err)
{
	AUTO_BUF struct buf raw = {0};
	bool pax = stream->local.link.size > 0, slash;
	const char *wrong = NULL;

	stream->link.size = 0;
	if (pax && stream->has_long_link)
		return tar_bad(stream, err, "it has two long links");
	if (pax)
		buf_append(&raw, stream->local.link.data, stream->local.link.size);
	else if (stream->has_long_link)
		buf_append(&raw, stream->long_link.data, stream->long_link.size);
	else
		wrong = tar_fixed_name(block->linkname, sizeof block->linkname, &raw);
	if (wrong != NULL)
		return tar_bad(stream, err, "it %s", wrong);
	if (buf_check(&raw, err) < 0)
		return -1;
	if (raw.size == 0)
		return tar_bad(stream, err, "it is a link to nothing");
	if (stream->entry.type == TAR_ENTRY_HARD_LINK) {
		wrong = tar_clean_path(raw.data, raw.size, &stream->link, &slash);
		if (wrong == NULL && (slash || stream->link.size == 0))
			wrong = "is to a directory";
		if (wrong != NULL)
			return tar_bad(stream, err, "its link %s", wrong);
	} else if (raw.size > TAR_STREAM_LINK_MAX) {
		return tar_beyond(stream, err, "it is a link with a text of more than %d bytes",
				  TAR_STREAM_LINK_MAX);
	} else {
		buf_append(&stream->link, raw.data, raw.size);
	}
	if (buf_check(&stream->link, err) < 0)
		return -1;
	stream->entry.link = stream->link.data;
	return tar_count_names(stream, stream->link.size + 1, err);
}

static int
refuse_link(struct tar_stream *stream, const struct tar_block *block, struct moat_error *err)
{
	if (stream->local.link.size > 0 || stream->has_long_link ||
	    !tar_is_zero(block->linkname, sizeof block->linkname))
		return tar_bad(stream, err, "it is no link, and has the target of one");
	return 0;
}

/* ---------------------------------------------------------------------------------------- members
 */

static int
take_type(struct tar_stream *stream, char flag, bool slash, struct moat_error *err)
{
	switch (flag) {
	case '\0':
	case '0':
	case '7': /* "contiguous": a file, says POSIX */
		/* How the oldest archives write a directory. */
		stream->entry.type = slash ? TAR_ENTRY_DIRECTORY : TAR_ENTRY_FILE;
		return 0;
	case 'S':
		stream->entry.type = TAR_ENTRY_FILE;
		break;
	case '1':
		stream->entry.type = TAR_ENTRY_HARD_LINK;
		break;
	case '2':
		stream->entry.type = TAR_ENTRY_SYMLINK;
		break;
	case '5':
		stream->entry.type = TAR_ENTRY_DIRECTORY;
		return 0;
	case '3':
		return tar_beyond(stream, err, "it is a character device, which is not taken");
	case '4':
		return tar_beyond(stream, err, "it is a block device, which is not taken");
	case '6':
		return tar_beyond(stream, err, "it is a FIFO, which is not taken");
	default:
		return tar_beyond(stream, err, "its type (byte 0x%02x) is not known",
				  (unsigned char) flag);
	}
	if (slash)
		return tar_bad(stream, err, "it has the name of a directory and is none");
	return 0;
}

static int
take_owner(struct tar_stream *stream, const char *field, const char *what, bool local,
	   uint32_t local_id, bool global, uint32_t global_id, uint32_t *ret,
	   struct moat_error *err)
{
	uint64_t id = 0;
	const char *wrong = NULL;

	if (!tar_field_is_blank(field, 8))
		wrong = tar_field(field, 8, &id);
	if (wrong == NULL && id >= UINT32_MAX)
		wrong = "is a number that is too large";
	if (wrong != NULL)
		return tar_bad(stream, err, "its %s %s", what, wrong);
	*ret = local ? local_id : global ? global_id : (uint32_t) id;
	return 0;
}

static int
take_numbers(struct tar_stream *stream, const struct tar_block *block, struct moat_error *err)
{
	const struct tar_pax *local = &stream->local, *global = &stream->global;
	struct tar_entry *entry = &stream->entry;
	uint64_t mode = 0;
	int64_t mtime = 0;
	const char *wrong;

	wrong = tar_field(block->mode, sizeof block->mode, &mode);
	if (wrong == NULL && mode > 0177777) /* some write the type beside the mode */
		wrong = "is a number that is too large";
	if (wrong != NULL)
		return tar_bad(stream, err, "its mode %s", wrong);
	entry->mode = mode & 07777;
	if (take_owner(stream, block->uid, "owner", local->has_uid, local->uid, global->has_uid,
		       global->uid, &entry->uid, err) < 0 ||
	    take_owner(stream, block->gid, "group", local->has_gid, local->gid, global->has_gid,
		       global->gid, &entry->gid, err) < 0)
		return -1;
	wrong = tar_field_is_blank(block->mtime, sizeof block->mtime)
			? NULL
			: tar_field_signed(block->mtime, sizeof block->mtime, &mtime);
	if (wrong != NULL)
		return tar_bad(stream, err, "its time %s", wrong);
	entry->mtime_sec = local->has_mtime    ? local->mtime_sec
			   : global->has_mtime ? global->mtime_sec
					       : mtime;
	entry->mtime_nsec = local->has_mtime    ? local->mtime_nsec
			    : global->has_mtime ? global->mtime_nsec
						: 0;
	return 0;
}

/* Two sizes that differ are two archives in one, for two readers: only where the plain header
 * cannot hold the size may the extended one say another. */
static int
take_size(struct tar_stream *stream, const struct tar_block *block, struct moat_error *err)
{
	const struct tar_pax *pax = &stream->local;
	uint64_t size = 0;
	const char *wrong = tar_field(block->size, sizeof block->size, &size);

	if (wrong != NULL)
		return tar_bad(stream, err, "its size %s", wrong);
	if (pax->has_size && pax->size != size && (size != 0 || pax->size <= 077777777777u))
		return tar_bad(stream, err, "its two headers tell different sizes (%llu, %llu)",
			       (unsigned long long) size, (unsigned long long) pax->size);
	if (pax->has_size)
		size = pax->size;
	if (size > 0 && stream->entry.type != TAR_ENTRY_FILE)
		return tar_bad(stream, err, "it has a size, and nothing to be stored");
	stream->left = size;
	stream->padding = tar_padding(size);
	return 0;
}

static bool
is_pax_sparse(const struct tar_pax *pax)
{
	return pax->has_major || pax->has_minor || pax->has_real_size || pax->has_blocks ||
	       pax->has_map || pax->has_offset || pax->map.count > 0 || pax->sparse_name.size > 0;
}

static int
take_content(struct tar_stream *stream, const struct tar_block *block, enum tar_flavour flavour,
	     struct moat_error *err)
{
	bool pax = is_pax_sparse(&stream->local), old = block->typeflag == 'S';

	if ((pax && stream->entry.type != TAR_ENTRY_FILE) || (pax && old) ||
	    (old && flavour != TAR_GNU))
		return tar_bad(stream, err, "it is said to be sparse, and cannot be");
	if (stream->entry.type != TAR_ENTRY_FILE)
		return 0;
	if (old   ? tar_holes_old(stream, block, err) < 0
	    : pax ? tar_holes_pax(stream, err) < 0
		  : sparse_map_add(&stream->map, 0, stream->left, err) < 0)
		return -1;
	if (!old && !pax)
		stream->entry.size = stream->left;
	stream->entry.data_size = stream->left;
	return count_size(stream, stream->entry.size, err);
}

int
tar_member_take(struct tar_stream *stream, const struct tar_block *block, enum tar_flavour flavour,
		struct moat_error *err)
{
	struct tar_entry *entry = &stream->entry;
	bool slash = false;

	if (tar_count_entry(stream, err) < 0 ||
	    take_path(stream, block, flavour, &slash, err) < 0 ||
	    take_type(stream, block->typeflag, slash, err) < 0)
		return -1;
	if (stream->path.size == 0 && entry->type != TAR_ENTRY_DIRECTORY)
		return tar_bad(stream, err, "it has no name");
	if (entry->type == TAR_ENTRY_SYMLINK || entry->type == TAR_ENTRY_HARD_LINK
		    ? take_link(stream, block, err) < 0
		    : refuse_link(stream, block, err) < 0)
		return -1;
	if (take_numbers(stream, block, err) < 0 || take_size(stream, block, err) < 0 ||
	    take_content(stream, block, flavour, err) < 0 ||
	    tar_count_names(stream, stream->local.xattrs.size, err) < 0)
		return -1;
	entry->path = stream->path.data;
	entry->xattrs = stream->local.xattrs.size == 0 ? NULL : stream->local.xattrs.data;
	entry->xattrs_size = (uint32_t) stream->local.xattrs.size;
	entry->xattrs_foreign = stream->local.foreign;
	return 1;
}
