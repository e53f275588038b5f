/* SPDX-License-Identifier: Apache-2.0 */
/* One sandbox: its processes, its control socket, its streams. */
#ifndef MOAT_RUNTIME_BWRAP_RUN_H
#define MOAT_RUNTIME_BWRAP_RUN_H

#include <stdbool.h>

#include "child.h"
#include "protocol.h"

struct run {
	char *id;
	char *bwrap;        /* path of the program, for messages */
	struct child child; /* bwrap, outside; ends when everything inside has */
	int64_t root_pid;   /* init, the first process inside, by its number on the host */
	int root_pidfd;
	int control;      /* to init */
	int words;        /* bwrap's stderr, non-blocking */
	int in, out, err; /* the command's streams, until io() hands them over; -1: none */
	bool terminal;    /* in is the master, out and err are -1 */
	bool started, ended;
	bool reported; /* init said how the command ended: wait_status */
	int wait_status;
	int64_t started_ns, finished_ns;
	struct moat_run_status status; /* valid once ended */
	struct run *next;
};

/* Makes a sandbox whose init waits for run_start().  On failure nothing is left. */
int run_create(const struct moat_host *host, const struct moat_config *config,
	       const struct moat_run_spec *spec, struct run **ret, struct moat_error *err);
/* Kills what is left of it, reaps, closes, frees. */
void run_free(struct run *run);

/* Lets the command go, and returns when its exec succeeded or failed. */
int run_start(struct run *run, struct moat_error *err);
/* Waits for the end; fills run->status when it came. */
int run_wait(struct run *run, int64_t timeout_ms, struct moat_error *err);
/* Sends a signal to the command's process group; SIGKILL to all that is inside. */
int run_signal(struct run *run, int number, struct moat_error *err);

#endif
