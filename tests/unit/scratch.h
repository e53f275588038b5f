/* SPDX-License-Identifier: Apache-2.0 */
/* What tests do in a scratch directory of their own. */
#ifndef MOAT_TESTS_UNIT_SCRATCH_H
#define MOAT_TESTS_UNIT_SCRATCH_H

#include <sys/types.h>

#include "tests/unit/test.h"

/* Each test has its own idea of it. */
struct scratch;

/* Writes a file, over what it held. */
void put(int dirfd, const char *name, const char *text);

/* Runs what needs a process of its own; it exits with 0, or with 77 when this machine cannot. */
void in_child(int (*body)(const struct scratch *scratch), const struct scratch *scratch);

/* A mount namespace of this process's own; an ordinary user needs a user namespace for it. */
int own_mounts(void);

/* Exchanges two names without pause, in a process of its own that ends with this one; returns when
 * it has begun. */
pid_t begin_attack(int dirfd, const char *a, const char *b);
void end_attack(pid_t child);

#endif
