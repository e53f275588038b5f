/* SPDX-License-Identifier: Apache-2.0 */
/* One record of a snapshot: snapshot.json, which is what lists show, and the manifest. */
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/snap_internal.h"

#define MANIFEST_MAX ((size_t) 8 << 30)

void
snap_free(struct snap *snap)
{
	if (snap == NULL)
		return;
	free(snap->type);
	free(snap->label);
	free(snap->backend);
	free(snap->ref);
	free(snap->run);
	free(snap->workspace);
	free(snap->parent);
	free(snap->base);
	free(snap);
}

void
cleanup_snap(struct snap **snap)
{
	snap_free(*snap);
	*snap = NULL;
}

static char *
copy_string(const char *text, bool *failed)
{
	char *copy = text == NULL ? NULL : strdup(text);

	*failed = *failed || (text != NULL && copy == NULL);
	return copy;
}

struct snap *
snap_copy(const struct snap *snap)
{
	AUTO_SNAP struct snap *copy = calloc(1, sizeof *copy);
	bool failed = false;

	if (copy == NULL)
		return NULL;
	*copy = *snap;
	copy->type = copy_string(snap->type, &failed);
	copy->label = copy_string(snap->label, &failed);
	copy->backend = copy_string(snap->backend, &failed);
	copy->ref = copy_string(snap->ref, &failed);
	copy->run = copy_string(snap->run, &failed);
	copy->workspace = copy_string(snap->workspace, &failed);
	copy->parent = copy_string(snap->parent, &failed);
	copy->base = copy_string(snap->base, &failed);
	return failed ? NULL : STEAL(copy);
}

bool
snap_is_id(const char *text)
{
	return strncmp(text, "snap_", 5) == 0 && strspn(text + 5, "0123456789abcdef") == 12 &&
	       text[SNAP_ID_LENGTH] == '\0';
}

const char *
snap_name(char out[SNAP_NAME_MAX], const char *prefix, const char *id)
{
	snprintf(out, SNAP_NAME_MAX, "%s%.*s", prefix, SNAP_ID_LENGTH, id);
	return out;
}

int
snap_directory(const struct workspace *workspace, struct moat_error *err)
{
	return fs_open_directory(workspace->state_fd, "snapshots", true, err);
}

/* ------------------------------------------------------------------------------------------- JSON
 */

json_t *
snap_json(const struct snap *snap)
{
	AUTO_JSON json_t *json = json_object();

	if (json == NULL || json_put_text(json, "id", snap->id) < 0 ||
	    json_put_text(json, "type", snap->type) < 0 ||
	    json_put_text(json, "label", snap->label) < 0 ||
	    json_put_text(json, "backend", snap->backend) < 0 ||
	    json_put_text(json, "run", snap->run) < 0 ||
	    json_put_text(json, "workspace", snap->workspace) < 0 ||
	    json_put_time(json, "created_at", snap->created_ns) < 0 ||
	    json_put_int(json, "files", (int64_t) snap->files) < 0 ||
	    json_put_int(json, "bytes", (int64_t) snap->bytes) < 0 ||
	    json_put_int(json, "stored_bytes", (int64_t) snap->stored_bytes) < 0 ||
	    json_put_text(json, "parent", snap->parent) < 0 ||
	    json_put_int(json, "skipped", (int64_t) snap->skipped) < 0)
		return NULL;
	return STEAL(json);
}

/* The SHA-256 of a text, in hexadecimal. */
static void
text_check(const char *text, char ret[2 * SHA256_DIGEST_SIZE + 1])
{
	struct sha256_ctx sha;
	uint8_t digest[SHA256_DIGEST_SIZE];

	sha256_init(&sha);
	sha256_update(&sha, strlen(text), (const uint8_t *) text);
	sha256_digest(&sha, sizeof digest, digest);
	for (size_t i = 0; i < sizeof digest; i++)
		snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

/* What only moat itself wants to know comes after what is shown, and a check of all that at the
 * end.
 */
static json_t *
record_json(const struct snap *snap)
{
	AUTO_JSON json_t *json = snap_json(snap);
	AUTO_FREE char *text = NULL;
	char check[2 * SHA256_DIGEST_SIZE + 1];

	if (json == NULL || json_put_text(json, "ref", snap->ref) < 0 ||
	    json_put_text(json, "base", snap->base) < 0)
		return NULL;
	text = json_text(json, true, NULL);
	if (text == NULL)
		return NULL;
	text_check(text, check);
	return json_put_text(json, "check", check) < 0 ? NULL : STEAL(json);
}

static char *
copy_text(const json_t *json, const char *key)
{
	const char *text = json_get_text(json, key, NULL);

	return text == NULL ? NULL : strdup(text);
}

int
snap_parse(const json_t *json, const char *id, const char *hash, struct snap **ret,
	   struct moat_error *err)
{
	AUTO_SNAP struct snap *snap = calloc(1, sizeof *snap);

	if (snap == NULL)
		return moat_fail_memory(err);
	snprintf(snap->id, sizeof snap->id, "%s", id);
	snprintf(snap->workspace_hash, sizeof snap->workspace_hash, "%s", hash);
	snap->type = copy_text(json, "type");
	snap->label = json_get_bytes(json, "label", NULL);
	snap->backend = copy_text(json, "backend");
	snap->ref = copy_text(json, "ref");
	snap->run = copy_text(json, "run");
	snap->workspace = json_get_bytes(json, "workspace", NULL);
	snap->parent = copy_text(json, "parent");
	snap->base = copy_text(json, "base");
	snap->created_ns = json_get_time(json, "created_at");
	snap->files = (uint64_t) json_get_int(json, "files", 0);
	snap->bytes = (uint64_t) json_get_int(json, "bytes", 0);
	snap->stored_bytes = (uint64_t) json_get_int(json, "stored_bytes", 0);
	snap->skipped = (uint64_t) json_get_int(json, "skipped", 0);
	if (snap->type == NULL || snap->backend == NULL || snap->ref == NULL ||
	    snap->workspace == NULL || !text_is_name(snap->backend))
		return moat_fail(err, MOAT_CORRUPT, "the record of snapshot %s is incomplete", id);
	*ret = STEAL(snap);
	return 0;
}

int
snap_read_record(int all_fd, const char *name, const char *id, const char *hash, struct snap **ret,
		 struct moat_error *err)
{
	AUTO_CLOSE int fd = fs_open_directory(all_fd, name, false, err);
	AUTO_JSON json_t *json = NULL;

	if (fd < 0 || json_read(fd, "snapshot.json", "record of a snapshot", &json, err) < 0 ||
	    snap_parse(json, id, hash, ret, err) < 0)
		return moat_wrap(err, "snapshot %s", id);
	return 0;
}

int
snap_check_record(int all_fd, const char *name, const struct snap *snap, struct moat_error *err)
{
	AUTO_CLOSE int fd = fs_open_directory(all_fd, name, false, err);
	AUTO_JSON json_t *json = record_json(snap);
	AUTO_FREE char *stored = NULL, *wanted = NULL;
	size_t size;

	if (json == NULL)
		return moat_fail_memory(err);
	if (fd < 0 || fs_read(fd, "snapshot.json", (size_t) 1 << 24, &stored, &size, err) < 0)
		return -1;
	wanted = json_text(json, false, err);
	if (wanted == NULL)
		return -1;
	if (size == strlen(wanted) && memcmp(stored, wanted, size) == 0)
		return 0;
	return moat_fail(err, MOAT_CORRUPT, "the record of %s (snapshot.json) was changed",
			 snap->id);
}

/* ---------------------------------------------------------------------------------------- writing
 */

static int
write_new(int fd, const char *name, const void *data, size_t size, struct moat_error *err)
{
	AUTO_CLOSE int file =
		openat(fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (file < 0)
		return moat_fail_errno(err, "create `%s'", name);
	return fs_write_all(file, data, size, name, err) < 0 ? -1 : fs_sync(file, name, err);
}

/* Nobody looks into the directory before it gets its final name, so the files need no care of their
 * own. */
int
snap_record(int all_fd, const char *name, const struct snap *snap, const void *manifest,
	    size_t size, struct moat_error *err)
{
	AUTO_CLOSE int fd = fs_open_directory(all_fd, name, false, err);
	AUTO_JSON json_t *json = record_json(snap);
	AUTO_FREE char *text = NULL;

	if (fd < 0)
		return -1;
	if (json == NULL)
		return moat_fail_memory(err);
	text = json_text(json, false, err);
	if (text == NULL || write_new(fd, "manifest", manifest, size, err) < 0 ||
	    write_new(fd, "snapshot.json", text, strlen(text), err) < 0 ||
	    fs_sync(fd, name, err) < 0)
		return moat_wrap(err, "record snapshot %s", snap->id);
	if (renameat(all_fd, name, all_fd, snap->id) < 0)
		return moat_fail_errno(err, "record snapshot %s", snap->id);
	return fs_sync(all_fd, "snapshots", err);
}

/* --------------------------------------------------------------------------------------- manifest
 */

/* A snapshot on its way out has another name; the second round is for one that was renamed while we
 * looked. */
int
snap_read_manifest(int all_fd, const char *id, char **ret, size_t *ret_size, struct moat_error *err)
{
	static const char *const prefixes[] = {"", BASE_PREFIX, GONE_PREFIX,
					       "", BASE_PREFIX, LOST_PREFIX};

	for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
		char name[SNAP_NAME_MAX];
		AUTO_CLOSE int fd = -1;

		snap_name(name, prefixes[i], id);
		fd = openat(all_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			return fs_read(fd, "manifest", MANIFEST_MAX, ret, ret_size, err);
		if (errno != ENOENT)
			return moat_fail_errno(err, "open `%s'", name);
	}
	return moat_fail(err, MOAT_NOT_FOUND, "there is no snapshot %s any more", id);
}

/* The manifest that others are written against, kept for the next of them. */
static int
load_base(const struct home *home, int all_fd, const char *id, struct manifest **ret,
	  struct moat_error *err)
{
	struct manifest_cache *cache = home->bases;
	AUTO_FREE char *data = NULL;
	size_t size;

	if (cache->manifest != NULL && strcmp(cache->id, id) == 0) {
		*ret = cache->manifest;
		return 0;
	}
	if (snap_read_manifest(all_fd, id, &data, &size, err) < 0)
		return -1;
	manifest_free(STEAL(cache->manifest));
	if (manifest_decode(data, size, &cache->manifest, err) < 0)
		return -1;
	snprintf(cache->id, sizeof cache->id, "%s", id);
	*ret = cache->manifest;
	return 0;
}

static int
decode(const struct home *home, int all_fd, const void *data, size_t size, struct manifest **ret,
       struct moat_error *err)
{
	struct manifest *base = NULL;
	char id[MANIFEST_ID_MAX];
	int difference = manifest_base(data, size, id, err);

	if (difference < 0)
		return -1;
	if (difference > 0 && !snap_is_id(id))
		return moat_fail(err, MOAT_CORRUPT, "manifest: malformed: its base has no name");
	if (difference > 0 && load_base(home, all_fd, id, &base, err) < 0) {
		/* That this one is there is known: what is missing is a part of it. */
		if (err != NULL && err->code == MOAT_NOT_FOUND)
			err->code = MOAT_CORRUPT;
		return moat_wrap(err, "the manifest that it is written against");
	}
	return manifest_decode_with(data, size, base, ret, err);
}

int
snap_manifest(const struct home *home, const struct snap *snap, struct manifest **ret,
	      struct moat_error *err)
{
	AUTO_CLOSE int state_fd = -1, all_fd = -1;
	AUTO_FREE char *data = NULL;
	size_t size;

	state_fd = fs_open_directory(home->workspaces_fd, snap->workspace_hash, false, err);
	all_fd = state_fd < 0 ? -1 : fs_open_directory(state_fd, "snapshots", false, err);
	if (all_fd < 0 || snap_read_manifest(all_fd, snap->id, &data, &size, err) < 0 ||
	    decode(home, all_fd, data, size, ret, err) < 0)
		return moat_wrap(err, "snapshot %s cannot be used: its manifest", snap->id);
	return 0;
}

int
snap_add_notes(struct manifest *manifest, const struct snap *snap, struct moat_error *err)
{
	char created[32];
	const struct {
		const char *key, *value;
	} notes[] = {
		{"id", snap->id},     {"type", snap->type},           {"label", snap->label},
		{"run", snap->run},   {"workspace", snap->workspace}, {"parent", snap->parent},
		{"created", created}, {"backend", snap->backend},
	};

	snprintf(created, sizeof created, "%lld", (long long) snap->created_ns);
	for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++)
		if (notes[i].value != NULL &&
		    manifest_add_note(manifest, notes[i].key, notes[i].value, err) < 0)
			return -1;
	return 0;
}
