/* SPDX-License-Identifier: Apache-2.0 */
/* Items of work, handed out to threads. */
#include "workers.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 8

static void
display(const struct work *work)
{
	work->reflink->host->progress(work->done_bytes, work->total_bytes, work->done_items,
				      work->count);
}

int
work_check(struct work *work, struct moat_error *err)
{
	bool stopped;

	if (work->reflink->host->cancelled() != 0)
		return moat_fail(err, MOAT_CANCELLED, "cancelled");
	(void) pthread_mutex_lock(&work->lock);
	stopped = work->stopped;
	(void) pthread_mutex_unlock(&work->lock);
	/* Nobody sees this text: the failure that stopped the work came first. */
	return stopped ? moat_fail(err, MOAT_CANCELLED, "stopped") : 0;
}

void
work_report(struct work *work, int64_t bytes)
{
	(void) pthread_mutex_lock(&work->lock);
	work->done_bytes += (uint64_t) bytes;
	display(work);
	(void) pthread_mutex_unlock(&work->lock);
}

/* The next item that nobody has; false: there is none, or the work was stopped. */
static bool
take_item(struct work *work, size_t *ret)
{
	bool found;

	(void) pthread_mutex_lock(&work->lock);
	found = !work->stopped && work->next < work->count;
	if (found)
		*ret = work->next++;
	(void) pthread_mutex_unlock(&work->lock);
	return found;
}

static void
end_item(struct work *work, int result, const struct moat_error *why)
{
	(void) pthread_mutex_lock(&work->lock);
	if (result == 0) {
		work->done_items++;
		display(work);
	} else if (!work->stopped) {
		work->stopped = true;
		work->failure = *why;
	}
	(void) pthread_mutex_unlock(&work->lock);
}

static void *
work_thread(void *argument)
{
	struct work *work = argument;
	size_t item;

	while (take_item(work, &item)) {
		struct moat_error why = MOAT_ERROR_INIT;
		int result = work_check(work, &why);

		if (result == 0)
			result = work->item(work, item, &why);
		end_item(work, result, &why);
	}
	return NULL;
}

/* How many threads besides the one that called are worth it. */
static size_t
helpers_for(size_t items)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	size_t threads = online < 1 ? 1 : online > THREADS_MAX ? THREADS_MAX : (size_t) online;

	if (threads > items)
		threads = items;
	return threads > 1 ? threads - 1 : 0;
}

int
work_run(struct work *work, struct moat_error *err)
{
	pthread_t threads[THREADS_MAX];
	size_t wanted = helpers_for(work->count), started = 0;
	sigset_t all, saved;

	if (pthread_mutex_init(&work->lock, NULL) != 0)
		return moat_fail_memory(err);
	moat_error_clear(&work->failure);
	(void) sigfillset(&all);
	(void) pthread_sigmask(SIG_SETMASK, &all, &saved);
	/* With fewer threads than wanted it takes longer, and that is all. */
	while (started < wanted && pthread_create(&threads[started], NULL, work_thread, work) == 0)
		started++;
	(void) pthread_sigmask(SIG_SETMASK, &saved, NULL);
	(void) work_thread(work);
	while (started > 0)
		(void) pthread_join(threads[--started], NULL);
	(void) pthread_mutex_destroy(&work->lock);
	if (!work->stopped)
		return 0;
	return moat_error_set(err, work->failure.code, work->failure.sys_errno, "%s",
			      work->failure.message);
}
