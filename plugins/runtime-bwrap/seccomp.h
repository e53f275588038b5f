/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls that a sandbox answers itself. */
#ifndef MOAT_RUNTIME_BWRAP_SECCOMP_H
#define MOAT_RUNTIME_BWRAP_SECCOMP_H

#include "common/error.h"

/* The program for bwrap's --seccomp, in memory that has no name, to be read from its beginning.
 * *ret_fd is -1 when there is none for this architecture; the log says so then. */
int seccomp_open(const struct moat_host *host, int *ret_fd, struct moat_error *err);

#endif
