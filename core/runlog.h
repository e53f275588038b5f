/* SPDX-License-Identifier: Apache-2.0 */
/* What a run wrote: runs/RUN/log.jsonl, one JSON object for each line of output, with the fields of
 * CLI.md (ts, stream, line; line_base64 where it is not UTF-8; continued: true
 * where the next record of the stream goes on with the line).  A line's time is that of its first
 * byte. */
#ifndef MOAT_CORE_RUNLOG_H
#define MOAT_CORE_RUNLOG_H

#include "common/buf.h"

enum runlog_stream { RUNLOG_STDOUT = 0, RUNLOG_STDERR = 1 };

struct runlog {
	int fd;
	struct {
		struct buf line; /* not ended yet */
		int64_t since_ns;
	} streams[2];
	struct moat_error failure; /* the first write that failed; what came after is lost */
};

int runlog_open(int run_dirfd, struct runlog *ret, struct moat_error *err);
/* Never fails: a full disk must not stop the run.  See `failure'. */
void runlog_add(struct runlog *log, enum runlog_stream stream, const void *data, size_t size);
/* Writes what is left without a newline.  The failure, if any, is returned here. */
int runlog_close(struct runlog *log, struct moat_error *err);

#endif
