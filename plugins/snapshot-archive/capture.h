/* SPDX-License-Identifier: Apache-2.0 */
/* What capture.c and member.c share. */
#ifndef MOAT_SNAPSHOT_ARCHIVE_CAPTURE_H
#define MOAT_SNAPSHOT_ARCHIVE_CAPTURE_H

#include "common/buf.h"
#include "common/tar.h"
#include "press.h"

#define ENTRY_WANTED 1u  /* to be stored in this pack */
#define ENTRY_DONE 2u    /* a hard link that was stored beside its leader */
#define ENTRY_SKIPPED 4u /* its content could not be read */

/* A further name of a file. */
struct link {
	size_t leader, index;
};

struct capturing {
	const struct archive *archive;
	const struct moat_capture *capture;
	uint64_t number; /* of the pack */
	struct crew *crew;
	struct press press;
	uint8_t *flags;     /* per entry, ENTRY_*; written by the thread that has it in its hands */
	struct link *links; /* those wanted, by leader */
	size_t link_count;
	size_t next; /* entry that nobody has taken; from here on: under the crew's lock */
	uint64_t done_bytes, total_bytes, done_items, total_items;
};

/* What a thread needs for itself. */
struct worker {
	struct capturing *c;
	struct strand strand;
	struct buf header; /* these two are used again and again: their memory stays */
	struct sparse_map map;
	uint64_t early; /* bytes of the batch that were reported while they were read */
};

int worker_init(struct worker *worker, struct capturing *c, struct moat_error *err);
void worker_destroy(struct worker *worker);

/* Counts work as done, and tells the display. */
void capture_report(struct capturing *c, uint64_t bytes, uint64_t items);
/* The member of a directory or link. */
struct tar_member member_of(const struct capturing *c, const struct moat_entry *entry, char type);
/* A header without data into the thread's small segment. */
int member_write(struct worker *worker, uint32_t kind, const struct tar_member *member,
		 struct moat_error *err);
/* Data in memory, as a segment of its own. */
int member_write_data(struct worker *worker, uint32_t kind, struct tar_member *member,
		      const void *data, size_t size, struct moat_error *err);
/* The content of entry `index`, and the hard links to it. */
int member_store(struct worker *worker, size_t index, struct moat_error *err);

#endif
