/* SPDX-License-Identifier: Apache-2.0 */
/* A store of snapshot-archive that holds one pack, whose bytes are the input, read through the
 * plugin's table: what it lists, what it verifies, what it gives back.
 *
 * The first byte: bit 0 makes the digest of the pack's index right; bit 1 asks for what the next 40
 * bytes say (size and locator) besides what the pack's own manifest says; bit 2 makes every file of
 * that manifest a byte longer than what is stored, and unhashed. */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fs.h"
#include "common/manifest.h"
#include "core/loader.h"
#include "core/log.h"
#include "tests/fuzz/fuzz.h"

#define PACK_ID "snap_000000000001"
#define PACK_FILE PACK_ID ".tar.lz4"
#define FORGED_SIZE 40                /* bytes of a forged entry */
#define FILE_MAX ((uint64_t) 1 << 20) /* larger files would only be found slow */
#define ENTRIES_MAX 16

static struct {
	char path[64];
	int store_fd, out_fd;
	const struct moat_snapshot_ops *ops;
	bool lying; /* the entries are not what is stored */
} world;

/* --------------------------------------------------------------------------------- the world */

/* Linked in for a fuzzer, else as the module that was built. */
static const struct moat_plugin *
plugin(void)
{
#ifdef FUZZ_STATIC
	return moat_plugin_init(host_table());
#else
	void *module = dlopen(SNAPSHOT_ARCHIVE, RTLD_NOW | RTLD_LOCAL);
	moat_plugin_init_fn *init;

	if (module == NULL)
		fprintf(stderr, "%s\n", dlerror());
	FUZZ_CHECK(module != NULL);
	*(void **) &init = dlsym(module, MOAT_PLUGIN_INIT_SYMBOL);
	FUZZ_CHECK(init != NULL);
	return init(host_table());
#endif
}

static void
remove_world(void)
{
	(void) fs_remove_tree(AT_FDCWD, world.path, NULL);
}

static void
make_world(void)
{
	const char *tmp = getenv("TMPDIR");
	int fd;

	log_set_level(-2);
	(void) snprintf(world.path, sizeof world.path, "%s/moat-fuzz.XXXXXX",
			tmp == NULL || strlen(tmp) > 40 ? "/tmp" : tmp);
	FUZZ_CHECK(mkdtemp(world.path) != NULL);
	atexit(remove_world);
	fd = open(world.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	world.store_fd = fs_open_directory(fd, "store", true, NULL);
	world.out_fd = fs_open_directory(fd, "out", true, NULL);
	cleanup_close(&fd);
	FUZZ_CHECK(world.store_fd >= 0 && world.out_fd >= 0);
	world.ops = plugin()->ops;
}

static void
put_pack(const uint8_t *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	int fd = openat(world.store_fd, PACK_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	FUZZ_CHECK(fd >= 0 && fs_write_all(fd, data, size, PACK_FILE, &err) == 0);
	cleanup_close(&fd);
}

/* The index is the skippable frame that ends with the file; its digest stands before the last 8
 * bytes. */
static void
fix_index(uint8_t *data, size_t size)
{
	static const uint8_t magic[4] = {0x50, 0x2a, 0x4d, 0x18};

	for (size_t at = 0; size >= 56 && at <= size - 56; at++) {
		uint64_t rest;

		if (memcmp(data + at, magic, sizeof magic) != 0)
			continue;
		rest = (uint64_t) data[at + 4] | (uint64_t) data[at + 5] << 8 |
		       (uint64_t) data[at + 6] << 16 | (uint64_t) data[at + 7] << 24;
		if (rest == size - at - 8)
			fuzz_fix_digest(data + at, size - at - 8);
	}
}

/* ------------------------------------------------------------------------------ giving back */

struct extracting {
	struct moat_extract side;
	unsigned placed, finished;
	char name[32];
};

static int
place(const struct moat_extract *extract, size_t index, int *ret_dirfd, const char **ret_name,
      struct moat_error *err)
{
	struct extracting *x = extract->context;

	FUZZ_CHECK(index < extract->entries->count);
	(void) snprintf(x->name, sizeof x->name, "f%zu", index);
	*ret_dirfd = world.out_fd;
	*ret_name = x->name;
	return 0;
}

/* What is called done is what the entry says. */
static int
done(const struct moat_extract *extract, size_t index, int fd, uint64_t size, const uint8_t *hash,
     struct moat_error *err)
{
	const struct moat_entry *entry = extract->entries->items[index];
	struct stat st;

	FUZZ_CHECK(size == entry->size);
	FUZZ_CHECK(!world.lying);
	FUZZ_CHECK(hash == NULL || (entry->flags & MOAT_HAS_HASH) == 0 ||
		   memcmp(hash, entry->hash, MOAT_HASH_SIZE) == 0);
	FUZZ_CHECK(fd < 0 || (fstat(fd, &st) == 0 && (uint64_t) st.st_size == size));
	return 0;
}

static int
damaged(const struct moat_extract *extract, size_t index, const struct moat_error *why,
	struct moat_error *err)
{
	FUZZ_CHECK(index < extract->entries->count);
	FUZZ_CHECK(why->code != MOAT_OK && why->message[0] != '\0');
	return 0;
}

/* Nothing may be there but what was asked for; it goes again. */
static void
empty_out(size_t count)
{
	DIR *stream = fs_open_stream(world.out_fd, "", NULL);
	struct dirent *entry;

	FUZZ_CHECK(stream != NULL);
	while ((entry = readdir(stream)) != NULL) {
		char *end;

		if (entry->d_name[0] == '.')
			continue;
		FUZZ_CHECK(entry->d_name[0] == 'f' && strtoul(entry->d_name + 1, &end, 10) < count);
		(void) unlinkat(world.out_fd, entry->d_name, 0);
	}
	closedir(stream);
}

static void
extract(void *self, const struct moat_entry *const *items, size_t count)
{
	struct moat_entries entries = {sizeof entries, sizeof(struct moat_entry), count, items};
	struct extracting x = {0};

	x.side = (struct moat_extract){.struct_size = sizeof x.side,
				       .ref = PACK_ID,
				       .entries = &entries,
				       .context = &x,
				       .done = done,
				       .damaged = damaged};
	for (int placing = 0; placing < 2; placing++) {
		struct moat_error err = MOAT_ERROR_INIT;
		int result;

		x.side.place = placing != 0 ? place : NULL;
		result = placing != 0 ? world.ops->materialise(self, &x.side, &err)
				      : world.ops->verify(self, &x.side, &err);
		fuzz_check_result(result, &err);
		empty_out(count);
	}
}

/* ----------------------------------------------------------------------------------- listing */

static bool
is_wanted(const struct moat_entry *entry)
{
	return entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER && entry->size > 0 &&
	       entry->size <= FILE_MAX;
}

/* As a rebuilt index would: what the manifest of the pack says is believed only once it is decoded.
 */
static int
found(void *context, const struct moat_ref *ref, const void *data, size_t size,
      struct moat_error *err)
{
	const struct moat_entry *items[ENTRIES_MAX];
	struct moat_entry copies[ENTRIES_MAX];
	struct manifest *manifest = NULL;
	size_t count = 0;

	FUZZ_CHECK(strcmp(ref->text, PACK_ID) == 0);
	if (manifest_decode(data, size, &manifest, NULL) < 0)
		return 0;
	for (size_t i = 0; i < manifest->count && count < ENTRIES_MAX; i++)
		if (is_wanted(manifest->entries[i]))
			items[count++] = manifest->entries[i];
	for (size_t i = 0; i < count; i++) {
		copies[i] = *items[i];
		/* Where the pack was before it got this one's name. */
		copies[i].locator[0] = 1;
		if (world.lying) {
			copies[i].size++;
			copies[i].flags &= (uint16_t) ~MOAT_HAS_HASH;
		}
		items[i] = &copies[i];
	}
	extract(context, items, count);
	manifest_free(manifest);
	return 0;
}

static uint64_t
number(const uint8_t *data)
{
	uint64_t value = 0;

	for (size_t i = 0; i < 8; i++)
		value |= (uint64_t) data[i] << (8 * i);
	return value;
}

/* Locators and sizes that no manifest would have. */
static void
extract_forged(void *self, const uint8_t *data)
{
	struct moat_entry entry = {.path = "forged",
				   .type = MOAT_FILE,
				   .flags = MOAT_HAS_LOCATOR,
				   .size = number(data) % FILE_MAX + 1,
				   .leader = MOAT_NO_LEADER,
				   .nlink = 1,
				   .locator = {1, number(data + 8), number(data + 16)}};
	const struct moat_entry *items[] = {&entry};

	if ((data[24] & 1) != 0)
		entry.locator[0] = number(data + 32);
	extract(self, items, 1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moat_store store = {.struct_size = sizeof store, .path = "store"};
	struct moat_error err = MOAT_ERROR_INIT;
	uint8_t *pack;
	void *self = NULL;
	size_t pack_size;
	int result;

	if (world.ops == NULL)
		make_world();
	if (size < 1 + FORGED_SIZE)
		return 0;
	pack_size = size - 1 - FORGED_SIZE;
	pack = fuzz_copy(data + 1 + FORGED_SIZE, pack_size);
	if ((data[0] & 1) != 0)
		fix_index(pack, pack_size);
	put_pack(pack, pack_size);
	free(pack);
	store.dirfd = world.store_fd;
	FUZZ_CHECK(world.ops->open(host_table(), &store, &self, &err) == 0);
	/* A manifest that can be decoded is the one that was stored, and so is what it leads to:
	 * two digests that are not made right here see to that. */
	world.lying = (data[0] & 4) != 0;
	result = world.ops->enumerate(self, found, self, &err);
	world.lying = false;
	fuzz_check_result(result, &err);
	if ((data[0] & 2) != 0)
		extract_forged(self, data + 1);
	world.ops->close(self);
	return 0;
}
