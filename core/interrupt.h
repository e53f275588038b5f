/* SPDX-License-Identifier: Apache-2.0 */
/* Signals that end a process, held back while something is done that must not be left in the
 * middle.  What is pending meanwhile cancels what can be cancelled (moat_host.cancelled), and takes
 * effect when it is let through again. */
#ifndef MOAT_CORE_INTERRUPT_H
#define MOAT_CORE_INTERRUPT_H

#include <signal.h>

/* SIGINT, SIGTERM, SIGHUP, SIGQUIT. */
void interrupt_set(sigset_t *ret);
/* Holds them back in this thread and those that it starts. May be nested: each its own `saved'. */
void interrupt_hold(sigset_t *saved);
void interrupt_release(const sigset_t *saved);
/* The number of one that is pending, or 0. */
int interrupt_pending(void);

#endif
