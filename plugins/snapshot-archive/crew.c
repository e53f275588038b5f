/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that work on one call together. */
#include "crew.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

size_t
crew_cpus(void)
{
	long count = 1;

#ifdef __linux__
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof set, &set) == 0)
		count = CPU_COUNT(&set);
#else
	count = sysconf(_SC_NPROCESSORS_ONLN);
#endif
	return count < 1 ? 1 : count > CREW_MAX ? CREW_MAX : (size_t) count;
}

int
crew_init(struct crew *crew, struct moat_error *err)
{
	*crew = (struct crew){.error = MOAT_ERROR_INIT};
	if (pthread_mutex_init(&crew->lock, NULL) != 0)
		return moat_fail_memory(err);
	if (pthread_cond_init(&crew->changed, NULL) != 0) {
		pthread_mutex_destroy(&crew->lock);
		return moat_fail_memory(err);
	}
	crew->count = 1;
	return 0;
}

void
crew_destroy(struct crew *crew)
{
	if (crew->count == 0)
		return;
	pthread_cond_destroy(&crew->changed);
	pthread_mutex_destroy(&crew->lock);
}

int
crew_check(const struct crew *crew, struct moat_error *err)
{
	return crew->stopped ? moat_fail(err, MOAT_CANCELLED, "another thread has failed") : 0;
}

struct member {
	struct crew *crew;
	size_t number;
	pthread_t thread;
};

static void *
member_run(void *context)
{
	const struct member *member = context;
	struct crew *crew = member->crew;
	struct moat_error err = MOAT_ERROR_INIT;

	/* Held until all are there: nobody works with a wrong idea of how many they are. */
	pthread_mutex_lock(&crew->lock);
	pthread_mutex_unlock(&crew->lock);
	if (crew->work(crew->context, member->number, &err) == 0)
		return NULL;
	pthread_mutex_lock(&crew->lock);
	if (!crew->stopped)
		crew->error = err;
	crew->stopped = true;
	pthread_cond_broadcast(&crew->changed);
	pthread_mutex_unlock(&crew->lock);
	return NULL;
}

/* Signals stay the business of the core's own threads. */
static void
start_members(struct crew *crew, struct member *members, size_t count)
{
	sigset_t all, saved;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	pthread_mutex_lock(&crew->lock);
	for (crew->count = 1; crew->count < count; crew->count++) {
		members[crew->count] = (struct member){.crew = crew, .number = crew->count};
		if (pthread_create(&members[crew->count].thread, NULL, member_run,
				   &members[crew->count]) != 0)
			break;
	}
	pthread_mutex_unlock(&crew->lock);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
}

int
crew_run(struct crew *crew, size_t count,
	 int (*work)(void *context, size_t member, struct moat_error *err), void *context,
	 struct moat_error *err)
{
	struct member members[CREW_MAX] = {{.crew = crew}};

	crew->work = work;
	crew->context = context;
	start_members(crew, members, count > CREW_MAX ? CREW_MAX : count);
	(void) member_run(&members[0]);
	for (size_t i = 1; i < crew->count; i++)
		(void) pthread_join(members[i].thread, NULL);
	if (!crew->stopped)
		return 0;
	return moat_error_set(err, crew->error.code, crew->error.sys_errno, "%s",
			      crew->error.message);
}
