/* SPDX-License-Identifier: Apache-2.0 */
/* A stranger's tar archive, as `moat snapshot import' reads it.  The first byte: bit 0 gives it out
 * in pieces of one byte, bit 1 makes the headers' checksums right. */
#include "tests/fuzz/fuzz.h"

#if __has_include("common/tar_stream.h")
#include "common/tar.h"
#include "common/tar_stream.h"

#define MIB ((uint64_t) 1 << 20)

static void
fix_checksums(uint8_t *data, size_t size)
{
	for (size_t at = 0; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
		struct tar_block block;

		memcpy(&block, data + at, sizeof block);
		if (memcmp(block.magic, "ustar", 5) != 0)
			continue;
		(void) snprintf(block.chksum, sizeof block.chksum, "%06o",
				tar_checksum(&block) & 0777777u);
		block.chksum[7] = ' ';
		memcpy(data + at, &block, sizeof block);
	}
}

/* A name that leads nowhere else. */
static void
check_path(const char *path)
{
	size_t length;

	FUZZ_CHECK(path[0] != '/' && strlen(path) <= TAR_STREAM_PATH_MAX);
	for (; *path != '\0'; path += length + (path[length] == '/')) {
		length = strcspn(path, "/");
		FUZZ_CHECK(length > 0 && length <= TAR_STREAM_COMPONENT_MAX);
		FUZZ_CHECK(!(length <= 2 && strncmp(path, "..", length) == 0));
		FUZZ_CHECK(path[length] == '\0' || path[length + 1] != '\0');
	}
}

/* Data comes forward, within the file, and as much as was said. */
static int
read_data(struct tar_stream *stream, const struct tar_entry *entry, struct moat_error *err)
{
	uint64_t size = entry->size, expected = entry->data_size, at = 0, all = 0, offset = 0;
	uint8_t block[4096];

	for (;;) {
		ssize_t n = tar_stream_read(stream, block, sizeof block, &offset, err);

		if (n < 0)
			return -1;
		if (n == 0)
			break;
		FUZZ_CHECK((size_t) n <= sizeof block && offset >= at && offset <= size &&
			   (uint64_t) n <= size - offset);
		at = offset + (uint64_t) n;
		all += (uint64_t) n;
	}
	FUZZ_CHECK(all == expected);
	return 0;
}

static int
read_all(struct tar_stream *stream, const struct tar_limits *limits, struct moat_error *err)
{
	uint64_t entries = 0, bytes = 0;
	const struct tar_entry *entry;
	int result;

	while ((result = tar_stream_next(stream, &entry, err)) > 0) {
		check_path(entry->path);
		FUZZ_CHECK(++entries <= limits->max_entries);
		FUZZ_CHECK(entry->mode <= 07777 && entry->mtime_nsec < 1000000000);
		FUZZ_CHECK((entry->link != NULL) == (entry->type == TAR_ENTRY_SYMLINK ||
						     entry->type == TAR_ENTRY_HARD_LINK));
		if (entry->type == TAR_ENTRY_HARD_LINK)
			check_path(entry->link);
		FUZZ_CHECK(entry->data_size <= entry->size &&
			   entry->size <= limits->max_file_bytes);
		bytes += entry->size;
		FUZZ_CHECK(bytes <= limits->max_bytes);
		/* Every other file is read over. */
		if (entry->type == TAR_ENTRY_FILE && entries % 2 != 0 &&
		    read_data(stream, entry, err) < 0)
			return -1;
	}
	return result;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tar_limits limits = {100, 16 * MIB, 64 * MIB, MIB};
	struct moat_error err = MOAT_ERROR_INIT;
	struct memory_bytes memory = {0};
	struct byte_source source;
	struct tar_stream *stream = NULL;
	uint8_t *copy;
	int result;

	if (size == 0)
		return 0;
	copy = fuzz_copy(data + 1, size - 1);
	if ((data[0] & 2) != 0)
		fix_checksums(copy, size - 1);
	memory = (struct memory_bytes){
		.data = copy, .size = size - 1, .piece = (data[0] & 1) != 0 ? 1 : 0};
	source = memory_source(&memory);
	FUZZ_CHECK(tar_stream_open(&source, &limits, &stream, &err) == 0);
	result = read_all(stream, &limits, &err);
	fuzz_check_result(result, &err);
	/* Only what was read to its end ends well. */
	FUZZ_CHECK(result < 0 ||
		   (memory.at == memory.size && tar_stream_offset(stream) == memory.size));
	tar_stream_free(stream);
	free(copy);
	return 0;
}
#else
int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return 0;
}
#endif
