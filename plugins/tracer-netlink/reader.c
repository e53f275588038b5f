/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that reads the kernel's events.
 *
 * The kernel's queue is short for an ordinary user (about 500 events), and a process may live for
 * less than a millisecond.  So the socket is emptied into a queue of our own before and after each
 * look at /proc, and events are handled in the kernel's order.
 *
 * What was read from /proc belongs to the exec that it is recorded for: if, once it was read, a
 * later exec of the same process, or a new process with the same number, is found in the queue, it
 * is dropped and the argv is said to be unknown.  What remains is the time between the kernel's
 * making a new argv readable, at the end of an exec, and its announcing it: a few microseconds. */
#include "reader.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"

#define THREAD_NAME "moat-trace"
#define SETTLE_MS 100 /* quiet time after an overflow, before what is missing is counted */
#define STOP_NS 5000000000u
#define SETTLE_TRIES 4
#define READER_NICE (-15)
#define SLICE_NS 100000u
#define EXITS_NS 500000000u

static uint64_t
monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

static int64_t
offset_to_realtime(void)
{
	struct timespec real;
	uint64_t before = monotonic_ns(), after;

	clock_gettime(CLOCK_REALTIME, &real);
	after = monotonic_ns();
	return (int64_t) real.tv_sec * 1000000000 + real.tv_nsec -
	       (int64_t) (before + (after - before) / 2);
}

/* ---------------------------------------------------------------------------------- telling */

static void
tell(struct reader *reader, const struct moat_event *event)
{
	reader->sink.event(reader->sink.context, event);
}

static void
tell_loss(struct reader *reader, uint64_t lost, uint64_t since_ns, uint64_t until_ns)
{
	struct moat_event event = {
		.struct_size = sizeof event,
		.kind = MOAT_EVENT_LOSS,
		.time_ns = (int64_t) until_ns + reader->to_realtime_ns,
		.span_start_ns = (int64_t) since_ns + reader->to_realtime_ns,
		.lost = lost,
		.duration_ns = -1,
	};

	atomic_fetch_add(&reader->stats->lost, lost);
	tell(reader, &event);
}

/* Events of processes of which, after a loss, nobody can say whose they were: they may have been
 * the run's. */
static void
note_unplaced(struct reader *reader, const struct connector_event *event)
{
	if (reader->unplaced++ == 0)
		reader->unplaced_since_ns = event->time_ns;
	reader->unplaced_until_ns = event->time_ns;
}

static void
tell_unplaced(struct reader *reader)
{
	if (reader->unplaced == 0)
		return;
	tell_loss(reader, reader->unplaced, reader->unplaced_since_ns, reader->unplaced_until_ns);
	reader->unplaced = 0;
}

/* ---------------------------------------------------------------------------------- reading */

static void
push(struct reader *reader, const struct connector_event *event)
{
	reader->queue[(reader->first + reader->queued++) % READER_QUEUE] = *event;
}

static void
push_loss(struct reader *reader, enum connector_kind kind, uint64_t lost, uint64_t since_ns,
	  uint64_t until_ns)
{
	struct connector_event event = {
		.kind = (uint8_t) kind, .lost = lost, .since_ns = since_ns, .time_ns = until_ns};

	push(reader, &event);
}

static void
take(struct reader *reader, const struct connector_event *event)
{
	uint64_t since_ns = 0;
	int64_t missing = sequence_note(&reader->sequence, event, &since_ns);

	if (missing != 0) /* -1: no memory to count with */
		push_loss(reader, CONNECTOR_LOSS, missing < 0 ? 0 : (uint64_t) missing, since_ns,
			  event->time_ns);
	if (event->kind != CONNECTOR_ACK)
		reader->last_ns = event->time_ns;
	if (event->kind == CONNECTOR_COMM)
		reader->mark_seen |= event->pid == reader->tid && event->time_ns >= reader->mark_ns;
	else if (event->kind != CONNECTOR_OTHER && event->kind != CONNECTOR_ACK)
		push(reader, event);
}

static void
note_overflow(struct reader *reader)
{
	sequence_overflow(&reader->sequence);
	push_loss(reader, CONNECTOR_OVERFLOW, 0, reader->last_ns, monotonic_ns());
}

/* Nothing behind the last mark is wanted. */
static bool
is_at_end(const struct reader *reader)
{
	return reader->stopping && reader->mark_seen;
}

/* Empties the socket, as far as the queue has room (each message can bring a loss with it). */
static void
drain(struct reader *reader)
{
	int error;

	while (!is_at_end(reader) && reader->queued + 2 * CONNECTOR_BATCH + 1 < READER_QUEUE) {
		int got = connector_receive(reader->socket, &reader->batch, &error);

		if (got == 0)
			return;
		if (got < 0 && error == ENOBUFS) {
			note_overflow(reader);
			continue;
		}
		if (got < 0) {
			reader->broken = true;
			return;
		}
		for (unsigned i = 0; i < reader->batch.count; i++) {
			struct connector_event event;
			size_t offset = 0;

			while (connector_parse(reader->batch.data[i], reader->batch.sizes[i],
					       &offset, &event) > 0)
				take(reader, &event);
		}
	}
}

/* --------------------------------------------------------------------------------- handling */

static struct moat_event
event_of(const struct reader *reader, const struct connector_event *event, uint32_t kind)
{
	return (struct moat_event){
		.struct_size = sizeof(struct moat_event),
		.kind = kind,
		.time_ns = (int64_t) event->time_ns + reader->to_realtime_ns,
		.pid = event->tgid,
		.duration_ns = -1,
	};
}

static void
handle_fork(struct reader *reader, const struct connector_event *event)
{
	struct moat_event told = event_of(reader, event, MOAT_EVENT_FORK);
	struct process *process;

	if (table_fork(&reader->table, event, &process) < 0) {
		table_loss(&reader->table); /* no memory */
		tell_loss(reader, 1, event->time_ns, event->time_ns);
		return;
	}
	if (process == NULL)
		return;
	told.ppid = process->ppid;
	process->inner_pid = told.inner_pid = reader->proc.level == 0 ? process->pid : 0;
	atomic_fetch_add(&reader->stats->forks, 1);
	tell(reader, &told);
}

/* Has the process executed again, or its number been given away, since the event?  Where something
 * is missing that could have said so: yes. */
static bool
is_superseded(const struct reader *reader, const struct connector_event *event)
{
	if (!sequence_is_settled(&reader->sequence))
		return true;
	for (size_t i = 0; i < reader->queued; i++) {
		const struct connector_event *later =
			&reader->queue[(reader->first + i) % READER_QUEUE];

		if (later->tgid == event->tgid &&
		    (later->kind == CONNECTOR_EXEC ||
		     (later->kind == CONNECTOR_FORK && later->pid == later->tgid)))
			return true;
		if (later->kind == CONNECTOR_LOSS)
			return true;
	}
	return false;
}

static void
handle_exec(struct reader *reader, const struct connector_event *event)
{
	struct moat_event told = event_of(reader, event, MOAT_EVENT_EXEC);
	struct details details = {.inner_pid = 0};
	struct process *process;
	enum member member = table_exec(&reader->table, event, &process);

	if (member == MEMBER_UNKNOWN)
		note_unplaced(reader, event);
	if (member != MEMBER_YES)
		return;
	if (!is_superseded(reader, event)) {
		proc_read(&reader->proc, event->tgid, process->inner_pid == 0, &details);
		drain(reader);
		if (is_superseded(reader, event))
			details = (struct details){.inner_pid = 0};
	}
	if (details.inner_pid != 0)
		process->inner_pid = details.inner_pid;
	told.ppid = process->ppid;
	told.inner_pid = process->inner_pid;
	told.exe = details.exe;
	told.cwd = details.cwd;
	told.argv = details.argv;
	told.argv_size = details.argv_size;
	told.argv_complete = details.argv_complete;
	atomic_fetch_add(&reader->stats->execs, 1);
	if (!details.argv_complete)
		atomic_fetch_add(&reader->stats->incomplete_argv, 1);
	tell(reader, &told);
}

static void
handle_exit(struct reader *reader, const struct connector_event *event)
{
	struct moat_event told = event_of(reader, event, MOAT_EVENT_EXIT);
	struct ending ending;
	enum member member = table_exit(&reader->table, event, &ending);

	if (member == MEMBER_UNKNOWN)
		note_unplaced(reader, event);
	if (member != MEMBER_YES)
		return;
	told.ppid = ending.ppid;
	told.inner_pid = ending.inner_pid;
	told.signal = (int32_t) (ending.status & 0x7f);
	told.exit_code = told.signal != 0 ? -1 : (int32_t) ((ending.status >> 8) & 0xff);
	if (ending.since_ns != 0 && event->time_ns >= ending.since_ns)
		told.duration_ns = (int64_t) (event->time_ns - ending.since_ns);
	atomic_fetch_add(&reader->stats->exits, 1);
	tell(reader, &told);
}

static void
handle(struct reader *reader, const struct connector_event *event)
{
	switch (event->kind) {
	case CONNECTOR_FORK:
		handle_fork(reader, event);
		break;
	case CONNECTOR_EXEC:
		handle_exec(reader, event);
		break;
	case CONNECTOR_EXIT:
		handle_exit(reader, event);
		break;
	case CONNECTOR_OVERFLOW:
		table_loss(&reader->table);
		break;
	case CONNECTOR_LOSS:
		table_loss(&reader->table);
		tell_loss(reader, event->lost, event->since_ns, event->time_ns);
		break;
	default:
		break;
	}
}

static void
handle_next(struct reader *reader)
{
	struct connector_event event = reader->queue[reader->first];

	reader->first = (reader->first + 1) % READER_QUEUE;
	reader->queued--;
	handle(reader, &event);
}

static bool
stop_is_wanted(const struct reader *reader)
{
	struct pollfd stop = {.fd = reader->stop_fd, .events = POLLIN};

	return poll(&stop, 1, 0) > 0;
}

/* Handles what is there, until nothing is or, since a storm may never pause, a stop is wanted. */
static void
handle_available(struct reader *reader)
{
	drain(reader);
	for (unsigned n = 1; reader->queued > 0; n++) {
		handle_next(reader);
		if (n % CONNECTOR_BATCH == 0 && stop_is_wanted(reader))
			break;
		if (reader->queued == 0)
			drain(reader);
	}
	tell_unplaced(reader);
}

/* Handles what is there, up to the mark, which a storm cannot push away: it stands in the kernel's
 * queue.  Should that have been full, the time ends it. */
static void
handle_rest(struct reader *reader, uint64_t deadline_ns)
{
	drain(reader);
	for (unsigned n = 1; reader->queued > 0; n++) {
		handle_next(reader);
		if (n % CONNECTOR_BATCH == 0 && monotonic_ns() > deadline_ns)
			break;
		if (reader->queued == 0)
			drain(reader);
	}
	tell_unplaced(reader);
}

/* Handles what is there now, and not what comes meanwhile. */
static void
handle_present(struct reader *reader)
{
	drain(reader);
	for (size_t n = reader->queued; n > 0; n--)
		handle_next(reader);
}

/* ----------------------------------------------------------------------------- exact counts */

/* Makes the kernel send one message from this cpu: that a thread set its name. */
static void
probe(void)
{
	(void) prctl(PR_SET_NAME, THREAD_NAME); /* cannot fail */
}

/* Makes every cpu (after an overflow: every cpu that may miss something) send a message, so that
 * its counter is known.  A cpu on which this process may not run stays as it is. */
static void
probe_cpus(const struct sequence *unsettled)
{
	cpu_set_t allowed, one;

	if (sched_getaffinity(0, sizeof allowed, &allowed) < 0) {
		probe(); /* more cpus than cpu_set_t holds */
		return;
	}
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &allowed) ||
		    (unsettled != NULL && !sequence_is_unsettled_at(unsettled, cpu)))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof one, &one) == 0)
			probe();
	}
	/* Fails only if the set was narrowed meanwhile: then the kernel chose another. */
	(void) sched_setaffinity(0, sizeof allowed, &allowed);
}

static void
settle(struct reader *reader)
{
	probe_cpus(&reader->sequence);
	handle_available(reader);
	if (sequence_is_settled(&reader->sequence))
		return;
	tell_loss(reader, 0, reader->last_ns, monotonic_ns());
	for (size_t i = 0; i < reader->sequence.count; i++)
		reader->sequence.cpus[i].unsettled = false;
}

/* --------------------------------------------------------------------------------- the thread */

/* The exits of processes that have ended come now, or a moment later. */
static void
await_exits(struct reader *reader)
{
	uint64_t deadline_ns = monotonic_ns() + EXITS_NS;
	struct pollfd ready = {.fd = reader->socket, .events = POLLIN};

	while (!reader->broken && monotonic_ns() < deadline_ns && table_is_behind(&reader->table)) {
		(void) poll(&ready, 1, 10);
		handle_present(reader);
	}
}

/* Everything that the kernel queued before a message which this thread caused itself was there
 * before it.  One that the full queue could not take is sent again. */
static void
finish(struct reader *reader)
{
	uint64_t since_ns = reader->last_ns, deadline_ns = monotonic_ns() + STOP_NS;
	struct pollfd ready = {.fd = reader->socket, .events = POLLIN};
	unsigned tries = 0;
	bool settled;

	handle_present(reader);
	await_exits(reader);
	do {
		drain(reader);
		if (!sequence_is_settled(&reader->sequence))
			probe_cpus(&reader->sequence);
		reader->stopping = true;
		reader->mark_seen = false;
		reader->mark_ns = monotonic_ns();
		probe();
		handle_rest(reader, deadline_ns);
		if (!reader->mark_seen)
			(void) poll(&ready, 1, 10); /* nothing came: look again */
		settled = sequence_is_settled(&reader->sequence);
	} while ((!reader->mark_seen || (!settled && ++tries < SETTLE_TRIES)) && !reader->broken &&
		 monotonic_ns() < deadline_ns);
	if (!reader->mark_seen || !settled)
		tell_loss(reader, 0, since_ns, monotonic_ns());
	connector_end(reader->socket);
}

/* A process may be gone a millisecond after its event: a short time slice lets this thread, which
 * works for microseconds at a time, run as soon as it wakes (Linux 6.12 and later), and a
 * privileged one gets a higher priority.  Where neither is to be had, more arguments are missing,
 * and said to be. */
static void
run_promptly(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} wish = {.size = sizeof wish,
		  .policy = SCHED_OTHER,
		  .nice = READER_NICE,
		  .runtime = SLICE_NS};

	if (syscall(SYS_sched_setattr, 0, &wish, 0) < 0) {
		wish.nice = getpriority(PRIO_PROCESS, 0);
		(void) syscall(SYS_sched_setattr, 0, &wish, 0);
	}
}

static void *
reader_main(void *argument)
{
	struct reader *reader = argument;
	struct pollfd ready[2] = {{.fd = reader->socket, .events = POLLIN},
				  {.fd = reader->stop_fd, .events = POLLIN}};

	reader->tid = gettid();
	run_promptly();
	probe_cpus(NULL);
	while ((ready[1].revents & POLLIN) == 0 && !reader->broken) {
		bool settled = sequence_is_settled(&reader->sequence);
		int n = poll(ready, 2, settled ? -1 : SETTLE_MS);

		if (n == 0)
			settle(reader);
		else if (n > 0 && ready[0].revents != 0)
			handle_available(reader);
	}
	finish(reader);
	return NULL;
}

/* The host's signals are not this thread's business. */
static int
start_thread(struct reader *reader, struct moat_error *err)
{
	sigset_t all, old;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&reader->thread, NULL, reader_main, reader);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error != 0)
		return moat_error_set(err, moat_code_of_errno(error), error,
				      "starting the tracer's thread: %s", strerror(error));
	return 0;
}

static void
reader_free(struct reader *reader)
{
	if (reader->socket >= 0)
		close(reader->socket);
	if (reader->stop_fd >= 0)
		close(reader->stop_fd);
	table_free(&reader->table);
	proc_close(&reader->proc);
	sequence_free(&reader->sequence);
	free(reader);
}

static int
prepare(struct reader *reader, const struct moat_trace_target *target, uint64_t receive_buffer,
	uint64_t *ret_buffer, struct moat_error *err)
{
	if (table_init(&reader->table) < 0)
		return moat_fail_memory(err);
	reader->table.root = target->root_pid;
	reader->table.identify = proc_identify;
	reader->table.context = &reader->proc;
	reader->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (reader->stop_fd < 0)
		return moat_fail_errno(err, "making an event descriptor");
	if (proc_open(&reader->proc, err) < 0 ||
	    proc_set_root(&reader->proc, target->root_pid, err) < 0)
		return -1;
	reader->to_realtime_ns = offset_to_realtime();
	reader->socket = connector_open(receive_buffer, ret_buffer, err);
	if (reader->socket < 0)
		return -1;
	reader->last_ns = monotonic_ns();
	/* Subscribed first, looked second: a process made meanwhile is in the queue. */
	return proc_scan(&reader->proc, target->root_pid, &reader->table, err);
}

int
reader_start(const struct moat_trace_target *target, const struct moat_sink *sink,
	     uint64_t receive_buffer, struct reader_stats *stats, uint64_t *ret_buffer,
	     struct reader **ret, struct moat_error *err)
{
	struct reader *reader = calloc(1, sizeof *reader);

	if (reader == NULL)
		return moat_fail_memory(err);
	reader->socket = reader->stop_fd = reader->proc.fd = -1;
	reader->sink = *sink;
	reader->stats = stats;
	if (prepare(reader, target, receive_buffer, ret_buffer, err) < 0 ||
	    start_thread(reader, err) < 0) {
		reader_free(reader);
		return -1;
	}
	*ret = reader;
	return 0;
}

int
reader_stop(struct reader *reader, struct moat_error *err)
{
	int broken;

	(void) eventfd_write(reader->stop_fd, 1); /* fails only when it is set already */
	pthread_join(reader->thread, NULL);
	broken = reader->broken;
	reader_free(reader);
	if (broken)
		return moat_fail(err, MOAT_FAILED,
				 "the kernel ended the stream of process events early; the trace "
				 "records the loss");
	return 0;
}
