/* SPDX-License-Identifier: Apache-2.0 */
/* Capturing: what changed becomes members of a new pack, with a copy of the manifest at its end. */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

/* What a thread takes at a time: entries whose expected content is about this, or so many. */
#define BATCH_BYTES ((uint64_t) 256 << 10)
#define BATCH_ENTRIES 128

/* A pack this small is never worth a full one. */
#define FULL_MIN ((uint64_t) 4 << 20)

/* ------------------------------------------------------------------------- what is to be stored */

/* A pack that holds content that did not change. */
struct needed {
	uint64_t number, size; /* of the file */
	bool present;
};

struct planning {
	const struct archive *archive;
	struct needed *packs; /* by number */
	size_t count, allocated;
	size_t last; /* the one that was asked for last */
};

static bool
has_content(const struct moat_entry *entry)
{
	return entry->type == MOAT_FILE && entry->leader == MOAT_NO_LEADER;
}

static size_t
place_of(const struct planning *planning, uint64_t number)
{
	size_t from = 0, to = planning->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (planning->packs[middle].number < number)
			from = middle + 1;
		else
			to = middle;
	}
	return from;
}

static int
add_pack(struct planning *planning, size_t at, uint64_t number, struct moat_error *err)
{
	struct needed pack = {.number = number};

	if (planning->count == planning->allocated) {
		size_t allocated = planning->allocated == 0 ? 16 : 2 * planning->allocated;
		struct needed *packs = realloc(planning->packs, allocated * sizeof *packs);

		if (packs == NULL)
			return moat_fail_memory(err);
		planning->packs = packs;
		planning->allocated = allocated;
	}
	pack.present = store_has_pack(planning->archive, number, &pack.size);
	memmove(planning->packs + at + 1, planning->packs + at,
		(planning->count - at) * sizeof *planning->packs);
	planning->packs[at] = pack;
	planning->count++;
	return 0;
}

/* Whether the content of a file that did not change is still there. If its pack is lost, the
 * content is stored again: a new snapshot must not begin its life damaged. */
static int
is_present(struct planning *planning, const struct moat_entry *entry, bool *ret,
	   struct moat_error *err)
{
	size_t at = planning->last;

	*ret = entry->size == 0;
	if (*ret || (entry->flags & MOAT_HAS_LOCATOR) == 0)
		return 0;
	if (at >= planning->count || planning->packs[at].number != entry->locator[0]) {
		at = place_of(planning, entry->locator[0]);
		if ((at == planning->count || planning->packs[at].number != entry->locator[0]) &&
		    add_pack(planning, at, entry->locator[0], err) < 0)
			return -1;
		planning->last = at;
	}
	*ret = planning->packs[at].present;
	return 0;
}

static int
find_wanted(struct capturing *c, struct planning *planning, bool *ret_content,
	    struct moat_error *err)
{
	const struct moat_entries *entries = c->capture->entries;

	for (size_t i = 0; i < entries->count; i++) {
		const struct moat_entry *entry = entries->items[i];
		bool wanted = entry->status != MOAT_SAME, present;

		if (!wanted && has_content(entry)) {
			if (is_present(planning, entry, &present, err) < 0)
				return -1;
			wanted = !present;
		}
		if (!wanted)
			continue;
		c->flags[i] |= ENTRY_WANTED;
		*ret_content = *ret_content || (has_content(entry) && entry->size > 0);
	}
	return 0;
}

/* Whether what is the same lies in so many packs, or in so much besides the largest, that it had
 * better be stored once more: a chain without end costs ever more to restore, and to keep.  Asked
 * only when there is something to be stored anyway. */
static bool
is_full_due(const struct planning *planning)
{
	int64_t after = planning->archive->full_after;
	uint64_t sum = 0, largest = 0, limit;

	for (size_t i = 0; i < planning->count; i++) {
		sum += planning->packs[i].size;
		if (planning->packs[i].size > largest)
			largest = planning->packs[i].size;
	}
	limit = largest > FULL_MIN ? largest : FULL_MIN;
	return after > 0 && (planning->count > (uint64_t) after || sum - largest > limit);
}

static int
compare_links(const void *a, const void *b)
{
	const struct link *x = a, *y = b;

	if (x->leader != y->leader)
		return x->leader < y->leader ? -1 : 1;
	return (x->index > y->index) - (x->index < y->index);
}

static bool
is_link_of_stored(const struct capturing *c, size_t index)
{
	const struct moat_entry *entry = c->capture->entries->items[index];

	return entry->type == MOAT_FILE && entry->leader != MOAT_NO_LEADER &&
	       (c->flags[index] & c->flags[entry->leader] & ENTRY_WANTED) != 0;
}

static int
find_links(struct capturing *c, struct moat_error *err)
{
	const struct moat_entries *entries = c->capture->entries;
	size_t count = 0;

	for (size_t i = 0; i < entries->count; i++)
		count += is_link_of_stored(c, i);
	if (count == 0)
		return 0;
	c->links = malloc(count * sizeof *c->links);
	if (c->links == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < entries->count; i++)
		if (is_link_of_stored(c, i))
			c->links[c->link_count++] =
				(struct link){(size_t) entries->items[i]->leader, i};
	qsort(c->links, c->link_count, sizeof *c->links, compare_links);
	return 0;
}

static int
plan(struct capturing *c, struct moat_error *err)
{
	const struct moat_entries *entries = c->capture->entries;
	struct planning planning = {.archive = c->archive};
	bool content = false;
	int r = find_wanted(c, &planning, &content, err);

	if (r == 0 && content && is_full_due(&planning)) {
		memset(c->flags, ENTRY_WANTED, entries->count);
		archive_log(c->archive, MOAT_LOG_INFO,
			    "%s holds everything again, as it would have needed %zu older packs",
			    c->capture->snapshot, planning.count);
	}
	free(planning.packs);
	if (r < 0)
		return -1;
	for (size_t i = 0; i < entries->count; i++) {
		if ((c->flags[i] & ENTRY_WANTED) == 0)
			continue;
		c->total_items++;
		if (has_content(entries->items[i]))
			c->total_bytes += entries->items[i]->size;
	}
	return find_links(c, err);
}

/* ---------------------------------------------------------------------------------- the content */

void
capture_report(struct capturing *c, uint64_t bytes, uint64_t items)
{
	pthread_mutex_lock(&c->crew->lock);
	c->done_bytes += bytes;
	c->done_items += items;
	c->archive->host->progress(c->done_bytes, c->total_bytes, c->done_items, c->total_items);
	pthread_mutex_unlock(&c->crew->lock);
}

struct batch {
	size_t from, to;
	uint64_t bytes, items; /* of the files wanted */
};

/* The next files that nobody has taken; false: there are no more. */
static bool
take_batch(struct capturing *c, struct batch *batch)
{
	const struct moat_entries *entries = c->capture->entries;

	*batch = (struct batch){0};
	pthread_mutex_lock(&c->crew->lock);
	batch->from = c->next;
	while (!c->crew->stopped && c->next < entries->count && batch->items < BATCH_ENTRIES &&
	       batch->bytes < BATCH_BYTES) {
		const struct moat_entry *entry = entries->items[c->next];

		size_t index = c->next++;

		/* The flags of links are their leaders' to change, meanwhile. */
		if (!has_content(entry) || (c->flags[index] & ENTRY_WANTED) == 0)
			continue;
		batch->items++;
		batch->bytes += entry->size;
	}
	batch->to = c->next;
	pthread_mutex_unlock(&c->crew->lock);
	return batch->items > 0;
}

static int
store_batch(struct worker *worker, const struct batch *batch, struct moat_error *err)
{
	struct capturing *c = worker->c;
	const struct moat_entries *entries = c->capture->entries;

	if (archive_check_cancelled(c->archive, err) < 0)
		return -1;
	for (size_t i = batch->from; i < batch->to; i++) {
		if (!has_content(entries->items[i]) || (c->flags[i] & ENTRY_WANTED) == 0)
			continue;
		if (member_store(worker, i, err) < 0)
			return -1;
	}
	capture_report(c, batch->bytes > worker->early ? batch->bytes - worker->early : 0,
		       batch->items);
	worker->early = 0;
	return 0;
}

static int
store_files(void *context, size_t member, struct moat_error *err)
{
	CLEANUP(worker_destroy) struct worker worker = {0};
	struct capturing *c = context;
	struct batch batch;

	if (worker_init(&worker, c, err) < 0)
		return -1;
	while (take_batch(c, &batch))
		if (store_batch(&worker, &batch, err) < 0)
			return -1;
	if (strand_flush(&worker.strand, err) < 0)
		return -1;
	return press_finish(&c->press, err);
}

/* ---------------------------------------------------------------------------- all the rest of it
 */

/* Directories come before what is in them, writable: so stock tools put away what stands in the
 * place of one, whatever the order of the files. */
static int
store_directories_first(struct worker *worker, struct moat_error *err)
{
	const struct capturing *c = worker->c;
	const struct moat_entries *entries = c->capture->entries;

	for (size_t i = 0; i < entries->count; i++) {
		const struct moat_entry *entry = entries->items[i];
		struct tar_member member = {.type = TAR_DIRECTORY,
					    .path = entry->path,
					    .mode = entry->mode | 0700,
					    .uid = entry->uid,
					    .gid = entry->gid,
					    .mtime_sec = entry->mtime_sec};

		if (entry->type != MOAT_DIRECTORY || (c->flags[i] & ENTRY_WANTED) == 0)
			continue;
		if (member_write(worker, SEGMENT_STRUCTURE, &member, err) < 0)
			return -1;
	}
	return strand_flush(&worker->strand, err);
}

/* A directory or link; type 0: there is nothing to store. */
static struct tar_member
structure_of(const struct capturing *c, size_t index)
{
	const struct moat_entry *entry = c->capture->entries->items[index];
	struct tar_member member = {0};

	if (entry->type == MOAT_DIRECTORY)
		return member_of(c, entry, TAR_DIRECTORY);
	if (entry->type == MOAT_SYMLINK) {
		member = member_of(c, entry, TAR_SYMLINK);
		member.link = entry->link_target;
	} else if ((c->flags[index] & ENTRY_DONE) == 0 &&
		   (c->flags[entry->leader] & ENTRY_SKIPPED) == 0) {
		member = member_of(c, entry, TAR_HARD_LINK);
		member.link = c->capture->entries->items[entry->leader]->path;
	}
	return member;
}

/* Links, and directories once more, with their own modes and times, as no file is made in them any
 * more.  Each directory stands before the links in it: GNU tar makes some links only at its end,
 * and sets the time of a directory after that if it has met them in this order. */
static int
store_structure(struct worker *worker, struct moat_error *err)
{
	struct capturing *c = worker->c;
	const struct moat_entries *entries = c->capture->entries;
	uint64_t items = 0;

	for (size_t i = 0; i < entries->count; i++) {
		struct tar_member member;

		if ((c->flags[i] & ENTRY_WANTED) == 0 || has_content(entries->items[i]))
			continue;
		items++;
		member = structure_of(c, i);
		if (member.type != 0 && member_write(worker, SEGMENT_STRUCTURE, &member, err) < 0)
			return -1;
	}
	capture_report(c, 0, items);
	return strand_flush(&worker->strand, err);
}

static bool
name_is_taken(const struct moat_entries *entries, const char *name)
{
	for (size_t i = 0; i < entries->count; i++)
		if (strcmp(entries->items[i]->path, name) == 0)
			return true;
	return false;
}

/* The manifest's copy, under a name that nothing in the workspace has, and the end of the stream.
 */
static int
store_manifest(struct worker *worker, struct moat_error *err)
{
	const struct moat_capture *capture = worker->c->capture;
	char name[128];
	struct tar_member member = {.type = TAR_FILE, .path = name, .mode = 0600};
	const void *data;
	size_t size;

	(void) snprintf(name, sizeof name, ".moat-manifest-%s", capture->snapshot);
	for (unsigned n = 1; name_is_taken(capture->entries, name); n++)
		(void) snprintf(name, sizeof name, ".moat-manifest-%s-%u", capture->snapshot, n);
	if (capture->manifest(capture, &data, &size, err) < 0 ||
	    member_write_data(worker, SEGMENT_MANIFEST, &member, data, size, err) < 0 ||
	    strand_reserve(&worker->strand, SEGMENT_END, PACK_END_SIZE, err) < 0 ||
	    strand_zeros(&worker->strand, PACK_END_SIZE, err) < 0)
		return -1;
	return strand_flush(&worker->strand, err);
}

/* Threads cost more than they bring when there is little to do. */
static size_t
crew_size(const struct capturing *c)
{
	uint64_t batches = 1 + c->total_bytes / BATCH_BYTES + c->total_items / BATCH_ENTRIES;

	return batches < c->archive->threads ? (size_t) batches : c->archive->threads;
}

static int
store_directories(struct capturing *c, struct moat_error *err)
{
	CLEANUP(worker_destroy) struct worker worker = {0};

	return worker_init(&worker, c, err) < 0 ? -1 : store_directories_first(&worker, err);
}

static int
store_rest(struct capturing *c, struct moat_error *err)
{
	CLEANUP(worker_destroy) struct worker worker = {0};

	if (worker_init(&worker, c, err) < 0 || store_structure(&worker, err) < 0)
		return -1;
	return store_manifest(&worker, err);
}

static int
store_all(struct capturing *c, struct pack_writer *pack, struct moat_ref *ret,
	  struct moat_error *err)
{
	AUTO_CREW struct crew crew = {0};
	int r;

	if (crew_init(&crew, err) < 0)
		return -1;
	c->crew = &crew;
	press_init(&c->press, c->archive, &crew, pack);
	r = plan(c, err);
	if (r == 0)
		r = store_directories(c, err);
	if (r == 0)
		r = crew_run(&crew, crew_size(c), store_files, c, err);
	if (r == 0)
		r = store_rest(c, err);
	press_destroy(&c->press);
	if (r < 0 || pack_writer_finish(pack, &ret->stored_bytes, err) < 0)
		return -1;
	(void) snprintf(ret->text, sizeof ret->text, "%s", c->capture->snapshot);
	return 0;
}

int
archive_capture(void *self, const struct moat_capture *capture, struct moat_ref *ret,
		struct moat_error *err)
{
	AUTO_PACK_WRITER struct pack_writer *pack = NULL;
	AUTO_FREE uint8_t *flags = NULL;
	struct capturing c = {.archive = self, .capture = capture};
	int r;

	if (pack_number(capture->snapshot, &c.number) < 0)
		return moat_fail(err, MOAT_USAGE, "`%s' is not the id of a snapshot",
				 capture->snapshot);
	flags = calloc(capture->entries->count + 1, 1);
	if (flags == NULL)
		return moat_fail_memory(err);
	if (store_sweep(c.archive, err) < 0 ||
	    pack_writer_open(c.archive, c.number, PACK_LIVE, &pack, err) < 0)
		return -1;
	c.flags = flags;
	r = store_all(&c, pack, ret, err);
	free(c.links);
	return r;
}
