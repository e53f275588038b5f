/* SPDX-License-Identifier: Apache-2.0 */
/* Signals that end a process, held back. */
#include "core/interrupt.h"

#include <stddef.h>

#include "core/loader.h"

static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
#define COUNT (sizeof numbers / sizeof numbers[0])

void
interrupt_set(sigset_t *ret)
{
	sigemptyset(ret);
	for (size_t i = 0; i < COUNT; i++)
		sigaddset(ret, numbers[i]);
}

int
interrupt_pending(void)
{
	sigset_t pending;

	if (sigpending(&pending) < 0)
		return 0;
	for (size_t i = 0; i < COUNT; i++)
		if (sigismember(&pending, numbers[i]) == 1)
			return numbers[i];
	return 0;
}

void
interrupt_hold(sigset_t *saved)
{
	sigset_t set;

	interrupt_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, saved);
	host_set_cancelled(interrupt_pending);
}

void
interrupt_release(const sigset_t *saved)
{
	/* Held since before, by a caller: still to be asked for. */
	if (sigismember(saved, SIGINT) != 1)
		host_set_cancelled(NULL);
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}
