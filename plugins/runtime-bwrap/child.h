/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes, held by pidfd. */
#ifndef MOAT_RUNTIME_BWRAP_CHILD_H
#define MOAT_RUNTIME_BWRAP_CHILD_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

struct child {
	pid_t pid; /* 0: none, or reaped */
	int pidfd; /* -1: none */
};
#define CHILD_INIT                                                                                 \
	{                                                                                          \
		0, -1                                                                              \
	}

/* Starts argv[0] (an absolute path) in a session of its own, with an empty environment, no signal
 * blocked or ignored, and exactly the descriptors fds[0..count-1], as 0..count-1; -1: that one is
 * closed. count <= CHILD_FDS. */
#define CHILD_FDS 16
int child_spawn(struct child *child, const char *const *argv, const int *fds, size_t count,
		struct moat_error *err);

/* Waits up to timeout_ms (-1: for ever) for its end.  1: ended, reaped, and *ret_status is what
 * waitpid(2) gives, or -1 when somebody else (or SIGCHLD ignored) took it; 0: it still runs. */
int child_wait(struct child *child, int64_t timeout_ms, int *ret_status, struct moat_error *err);

/* SIGKILL, and reaping.  Closes. */
void child_kill(struct child *child);

/* pidfd_open(2) and pidfd_send_signal(2). */
int child_pidfd(pid_t pid);
int child_signal(int pidfd, int number);

/* Reads what is in a non-blocking pipe as one line: bwrap's own words.  "" when there is none. */
void child_words(int fd, char *words, size_t size);

#endif
