/* SPDX-License-Identifier: Apache-2.0 */
/* The time between a run's start and its end: bytes go from the caller's streams to the command's
 * and back, into the log, signals are passed on, the terminal is kept in order. */
#ifndef MOAT_CORE_SESSION_H
#define MOAT_CORE_SESSION_H

#include "core/backend.h"
#include "core/runlog.h"

struct session {
	struct backend *runtime;
	const char *handle;
	struct moat_io io; /* taken over: closed by session_run() */
	struct runlog *log;
	bool terminal;                   /* the command has one */
	bool input;                      /* stdin is carried */
	int64_t grace_ms;                /* between SIGTERM and SIGKILL */
	void (*stopping)(void *context); /* told once, when a signal ends the run */
	void *context;
	int output_error; /* result: errno of the caller's stdout or stderr, or 0 */
};

/* Blocks the signals that a session handles, in this thread and all that it starts later.  Before
 * the first thread. */
void session_block_signals(void);
/* Size of the caller's terminal; 24 x 80 when there is none. */
void session_terminal_size(uint16_t *ret_rows, uint16_t *ret_columns);
/* Closes each descriptor once. */
void moat_io_close(struct moat_io *io);
/* Until the command has ended and all that it wrote has been passed on. */
int session_run(struct session *session, struct moat_run_status *ret, struct moat_error *err);

#endif
