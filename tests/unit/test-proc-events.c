/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of tracer-netlink that need no kernel: messages, sequence numbers, the process table,
 * the texts of /proc. */
#include "test.h"

#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <time.h>

#include "plugins/tracer-netlink/connector.h"
#include "plugins/tracer-netlink/proc.h"
#include "plugins/tracer-netlink/table.h"

/* ------------------------------------------------------------------ bytes of the connector */

struct frame {
	struct nlmsghdr header;
	unsigned char body[20 + sizeof(struct proc_event)];
};
#define FRAME_SIZE (sizeof(struct nlmsghdr) + 20 + sizeof(struct proc_event))

static void
make_frame(struct frame *frame, uint32_t what, uint32_t seq)
{
	struct cn_msg message = {
		.id = {CN_IDX_PROC, CN_VAL_PROC}, .seq = seq, .len = sizeof(struct proc_event)};
	struct proc_event event;

	memset(frame, 0, sizeof *frame);
	memset(&event, 0, sizeof event);
	event.what = what;
	event.cpu = 3;
	event.timestamp_ns = 123456789;
	event.event_data.exit.process_pid = 10;
	event.event_data.exit.process_tgid = 11;
	event.event_data.exit.exit_code = 0x700;
	event.event_data.exit.exit_signal = 17;
	event.event_data.exit.parent_pid = 12;
	event.event_data.exit.parent_tgid = 13;
	frame->header.nlmsg_len = FRAME_SIZE;
	frame->header.nlmsg_type = NLMSG_DONE;
	memcpy(frame->body, &message, 20);
	memcpy(frame->body + 20, &event, sizeof event);
}

static void
test_parse(void **state)
{
	struct connector_event event;
	struct frame frame;
	size_t offset = 0;

	make_frame(&frame, PROC_EVENT_EXIT, 77);
	assert_int_equal(connector_parse(&frame, FRAME_SIZE, &offset, &event), 1);
	assert_int_equal(event.kind, CONNECTOR_EXIT);
	assert_int_equal(event.seq, 77);
	assert_int_equal(event.cpu, 3);
	assert_int_equal(event.time_ns, 123456789);
	assert_int_equal(event.pid, 10);
	assert_int_equal(event.tgid, 11);
	assert_int_equal(event.status, 0x700);
	assert_int_equal(event.parent_tgid, 13);
	assert_int_equal(connector_parse(&frame, FRAME_SIZE, &offset, &event), 0);
}

/* A copy of exactly that size on the heap, so that the sanitizers see one byte too far. */
static int
parse_exactly(const void *data, size_t size, struct connector_event *event)
{
	void *copy = malloc(size == 0 ? 1 : size);
	size_t offset = 0;
	int result;

	assert_non_null(copy);
	memcpy(copy, data, size);
	result = connector_parse(copy, size, &offset, event);
	assert_true(offset <= size || result == 1);
	free(copy);
	return result;
}

static void
test_parse_truncated(void **state)
{
	static const uint32_t kinds[] = {PROC_EVENT_NONE, PROC_EVENT_FORK, PROC_EVENT_EXEC,
					 PROC_EVENT_COMM, PROC_EVENT_EXIT, PROC_EVENT_UID};
	struct connector_event event;
	struct frame frame;

	for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
		make_frame(&frame, kinds[k], 1);
		for (size_t size = 1; size < FRAME_SIZE; size++) {
			/* the datagram is shorter than its header says */
			frame.header.nlmsg_len = FRAME_SIZE;
			assert_int_equal(parse_exactly(&frame, size, &event), -1);
			/* the header is right, the connector's length is not */
			frame.header.nlmsg_len = (uint32_t) size;
			if (size >= sizeof frame.header)
				assert_int_equal(parse_exactly(&frame, size, &event), -1);
		}
		frame.header.nlmsg_len = FRAME_SIZE;
		assert_int_equal(parse_exactly(&frame, FRAME_SIZE, &event), 1);
	}
}

static void
test_parse_lies(void **state)
{
	struct connector_event event;
	struct frame frame;
	uint16_t length;

	make_frame(&frame, PROC_EVENT_EXEC, 1);
	for (unsigned n = 0; n < 65536; n += n < 200 ? 1 : 97) {
		length = (uint16_t) n;
		memcpy(frame.body + 16, &length, sizeof length);
		assert_int_equal(parse_exactly(&frame, FRAME_SIZE, &event),
				 n >= 24 && n <= sizeof(struct proc_event) ? 1 : -1);
	}
	for (uint32_t n = 0; n < 16; n++) {
		make_frame(&frame, PROC_EVENT_EXEC, 1);
		frame.header.nlmsg_len = n;
		assert_int_equal(parse_exactly(&frame, FRAME_SIZE, &event), -1);
	}
	make_frame(&frame, PROC_EVENT_EXEC, 1);
	frame.header.nlmsg_len = UINT32_MAX;
	assert_int_equal(parse_exactly(&frame, FRAME_SIZE, &event), -1);
	make_frame(&frame, PROC_EVENT_EXEC, 1);
	frame.header.nlmsg_type = NLMSG_ERROR;
	assert_int_equal(parse_exactly(&frame, FRAME_SIZE, &event), -1);
	make_frame(&frame, PROC_EVENT_EXEC, 1);
	frame.body[0] = 9; /* another connector */
	assert_int_equal(parse_exactly(&frame, FRAME_SIZE, &event), -1);
}

static void
test_parse_garbage(void **state)
{
	const char *given = getenv("MOAT_TEST_SEED");
	unsigned seed = given != NULL ? (unsigned) strtoul(given, NULL, 0) : (unsigned) time(NULL);
	struct connector_event event;
	struct frame frame;

	print_message("seed %u\n", seed);
	for (long i = 0; i < test_scaled(200000); i++) {
		unsigned char *bytes = (unsigned char *) &frame;

		make_frame(&frame, PROC_EVENT_EXIT, 1);
		for (int flips = (int) ((seed = seed * 1103515245 + 12345) >> 16) % 8; flips >= 0;
		     flips--) {
			seed = seed * 1103515245 + 12345;
			bytes[(seed >> 16) % FRAME_SIZE] ^= (unsigned char) (1u << (seed >> 8) % 8);
		}
		(void) parse_exactly(&frame, (seed >> 4) % (FRAME_SIZE + 1), &event);
	}
}

static void
test_sequence(void **state)
{
	struct sequence sequence = {0};
	struct connector_event event = {.kind = CONNECTOR_FORK, .cpu = 5, .seq = UINT32_MAX - 1};
	uint64_t since = 0;

	event.time_ns = 100;
	assert_int_equal(sequence_note(&sequence, &event, &since), 0);
	sequence_overflow(&sequence);
	assert_false(sequence_is_settled(&sequence));
	assert_true(sequence_is_unsettled_at(&sequence, 5));
	assert_false(sequence_is_unsettled_at(&sequence, 4));
	event.seq = 2; /* UINT32_MAX, 0 and 1 are missing */
	event.time_ns = 200;
	assert_int_equal(sequence_note(&sequence, &event, &since), 3);
	assert_int_equal(since, 100);
	assert_true(sequence_is_settled(&sequence));
	event.cpu = 900; /* another counter */
	event.seq = 44;
	assert_int_equal(sequence_note(&sequence, &event, &since), 0);
	event.cpu = 5;
	event.seq = 0; /* started anew */
	assert_int_equal(sequence_note(&sequence, &event, &since), 0);
	event.kind = CONNECTOR_ACK;
	event.cpu = UINT32_MAX;
	assert_int_equal(sequence_note(&sequence, &event, &since), 0);
	sequence_free(&sequence);
}

/* ------------------------------------------------------------------------------------ table */

/* What the fake system says: parents of the pids below 100; 0: gone. */
static int64_t parents[100];
static uint64_t starts[100];

static int
fake_identify(void *context, int64_t pid, struct identity *ret)
{
	*ret = (struct identity){0};
	if (pid >= 100 || parents[pid] == 0)
		return -1;
	ret->ppid = parents[pid];
	ret->start_ns = starts[pid];
	return 0;
}

static int
setup_table(void **state)
{
	struct table *table = calloc(1, sizeof *table);
	struct process *root;

	memset(parents, 0, sizeof parents);
	memset(starts, 0, sizeof starts);
	table->identify = fake_identify;
	table->root = 10;
	if (table_init(table) < 0 || table_add(table, 10, 2, 1, &root) < 0)
		return -1;
	*state = table;
	return 0;
}

static int
teardown_table(void **state)
{
	table_free(*state);
	free(*state);
	return 0;
}

static uint64_t table_clock = 1000;

static bool
do_fork(struct table *table, int parent, int child)
{
	struct connector_event event = {.kind = CONNECTOR_FORK,
					.time_ns = table_clock++,
					.parent_tgid = parent,
					.parent_pid = parent,
					.pid = child,
					.tgid = child};
	struct process *process;

	assert_int_equal(table_fork(table, &event, &process), 0);
	return process != NULL;
}

static void
do_thread(struct table *table, int pid, int tid)
{
	/* The kernel names the parent of the whole process. */
	struct connector_event event = {.kind = CONNECTOR_FORK,
					.time_ns = table_clock++,
					.parent_tgid = 2,
					.pid = tid,
					.tgid = pid};
	struct process *process;

	assert_int_equal(table_fork(table, &event, &process), 0);
	assert_null(process);
}

static enum member
do_exec(struct table *table, int pid)
{
	struct connector_event event = {
		.kind = CONNECTOR_EXEC, .time_ns = table_clock++, .pid = pid, .tgid = pid};
	struct process *process;

	return table_exec(table, &event, &process);
}

static enum member
do_exit(struct table *table, int pid, int tid, int parent, uint32_t status, struct ending *ending)
{
	struct connector_event event = {.kind = CONNECTOR_EXIT,
					.time_ns = table_clock++,
					.pid = tid,
					.tgid = pid,
					.parent_tgid = parent,
					.status = status};

	memset(ending, 0, sizeof *ending);
	return table_exit(table, &event, ending);
}

static void
test_table_descendants(void **state)
{
	struct table *table = *state;
	struct ending ending;

	assert_true(do_fork(table, 10, 11));
	assert_true(do_fork(table, 11, 12));
	assert_false(do_fork(table, 2, 13));
	assert_int_equal(do_exec(table, 13), MEMBER_NO);
	assert_int_equal(do_exit(table, 11, 11, 10, 0x300, &ending), MEMBER_YES);
	assert_int_equal(ending.status, 0x300);
	assert_int_equal(ending.ppid, 10);
	/* the orphan stays, and so do its children */
	assert_int_equal(do_exec(table, 12), MEMBER_YES);
	assert_true(do_fork(table, 12, 14));
	assert_int_equal(do_exit(table, 13, 13, 2, 0, &ending), MEMBER_NO);
	/* the number of one that ended goes to a stranger */
	assert_false(do_fork(table, 2, 11));
	assert_int_equal(do_exec(table, 11), MEMBER_NO);
}

static void
test_table_reuse_before_exit(void **state)
{
	struct table *table = *state;
	struct ending ending;

	assert_true(do_fork(table, 10, 11));
	assert_true(do_fork(table, 10, 12));
	assert_true(do_fork(table, 12, 11)); /* the exit of the first 11 is still to come */
	assert_int_equal(do_exit(table, 11, 11, 10, 0x100, &ending), MEMBER_YES);
	assert_int_equal(ending.ppid, 10);
	assert_int_equal(do_exec(table, 11), MEMBER_YES);
	assert_int_equal(do_exit(table, 11, 11, 12, 0x200, &ending), MEMBER_YES);
	assert_int_equal(ending.ppid, 12);
	assert_int_equal(do_exec(table, 11), MEMBER_NO);
}

static void
test_table_threads(void **state)
{
	struct table *table = *state;
	struct ending ending;

	assert_true(do_fork(table, 10, 11));
	do_thread(table, 11, 21);
	do_thread(table, 11, 22);
	assert_int_equal(do_exit(table, 11, 21, 10, 0, &ending), MEMBER_NO);
	assert_int_equal(do_exit(table, 11, 11, 10, 0, &ending), MEMBER_NO); /* the first thread */
	assert_int_equal(do_exit(table, 11, 22, 10, 0x300, &ending), MEMBER_YES);
	assert_int_equal(ending.status, 0x300);
	/* exec from a thread: it becomes the first, the others go, some of them later */
	assert_true(do_fork(table, 10, 12));
	do_thread(table, 12, 31);
	do_thread(table, 12, 32);
	assert_int_equal(do_exit(table, 12, 12, 10, 9, &ending), MEMBER_NO);
	assert_int_equal(do_exec(table, 12), MEMBER_YES);
	assert_int_equal(do_exit(table, 12, 32, 10, 9, &ending), MEMBER_NO);
	assert_int_equal(do_exit(table, 12, 12, 10, 0x500, &ending), MEMBER_YES);
	assert_int_equal(ending.status, 0x500);
}

static void
test_table_after_loss(void **state)
{
	struct table *table = *state;
	struct ending ending;

	table_loss(table);
	starts[10] = 1;
	parents[10] = 2;
	parents[2] = 1;
	/* a fork was lost: /proc still knows */
	parents[20] = 10;
	parents[21] = 20;
	assert_int_equal(do_exec(table, 21), MEMBER_YES);
	parents[30] = 2;
	assert_int_equal(do_exec(table, 30), MEMBER_NO);
	/* /proc does not know any more */
	assert_int_equal(do_exec(table, 40), MEMBER_UNKNOWN);
	assert_int_equal(do_exit(table, 40, 40, 10, 0x100, &ending), MEMBER_YES);
	assert_int_equal(ending.since_ns, 0);
	assert_int_equal(do_exit(table, 41, 41, 30, 0, &ending), MEMBER_NO);
	assert_int_equal(do_exit(table, 42, 42, 41, 0, &ending), MEMBER_UNKNOWN);
}

static void
test_table_stale_number(void **state)
{
	struct table *table = *state;

	parents[10] = 2;
	parents[2] = 1;
	assert_true(do_fork(table, 10, 11));
	table_loss(table);
	/* 11 ended and its number went to a stranger, and both events were lost */
	parents[11] = 2;
	starts[11] = table_clock + 10 * (uint64_t) IDENTITY_GRAIN_NS;
	assert_int_equal(do_exec(table, 11), MEMBER_NO);
	/* whereas one that is as old as its entry is still the same */
	assert_int_equal(do_exec(table, 10), MEMBER_YES);
}

static void
test_table_many(void **state)
{
	struct table *table = *state;
	struct ending ending;

	for (int pid = 100; pid < 5100; pid++)
		assert_true(do_fork(table, pid == 100 ? 10 : pid - 1, pid));
	assert_int_equal(table->count, 5001);
	for (int pid = 100; pid < 5100; pid++)
		assert_int_equal(do_exit(table, pid, pid, 10, 0, &ending), MEMBER_YES);
	assert_int_equal(table->count, 1);
}

static void
test_parse_proc(void **state)
{
	struct identity identity;
	unsigned levels;

	assert_int_equal(
		proc_parse_stat("7 (a) b) R (c) S 42 1 1 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 "
				"0 555 1 2",
				10, &identity),
		0);
	assert_int_equal(identity.ppid, 42);
	assert_int_equal(identity.threads, 2);
	assert_int_equal(identity.start_ns, 5550);
	assert_false(identity.zombie);
	assert_int_equal(proc_parse_stat("7 (a) Z 42 1", 10, &identity), -1);
	assert_int_equal(proc_parse_stat("7 (a", 10, &identity), -1);
	assert_int_equal(proc_parse_stat("", 10, &identity), -1);
	assert_int_equal(proc_parse_inner("Name:\tx\nNSpid:\t501\t17\t3\nNSpgid:\t1\n", 1, &levels),
			 17);
	assert_int_equal(levels, 3);
	assert_int_equal(proc_parse_inner("Name:\tx\nNSpid:\t501\n", 1, &levels), 0);
	assert_int_equal(proc_parse_inner("", 0, &levels), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_truncated),
		cmocka_unit_test(test_parse_lies),
		cmocka_unit_test(test_parse_garbage),
		cmocka_unit_test(test_parse_proc),
		cmocka_unit_test(test_sequence),
		cmocka_unit_test_setup_teardown(test_table_descendants, setup_table,
						teardown_table),
		cmocka_unit_test_setup_teardown(test_table_reuse_before_exit, setup_table,
						teardown_table),
		cmocka_unit_test_setup_teardown(test_table_threads, setup_table, teardown_table),
		cmocka_unit_test_setup_teardown(test_table_after_loss, setup_table, teardown_table),
		cmocka_unit_test_setup_teardown(test_table_stale_number, setup_table,
						teardown_table),
		cmocka_unit_test_setup_teardown(test_table_many, setup_table, teardown_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
