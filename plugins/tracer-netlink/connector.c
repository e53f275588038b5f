/* SPDX-License-Identifier: Apache-2.0 */
/* The socket and the messages of the proc connector. */
#include "connector.h"

#include <errno.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <time.h>

#include "common/cleanup.h"

/* cn_msg ends in a flexible array; its fixed part has 20 bytes, on every architecture. */
#define CN_SIZE sizeof(struct cn_msg)
#define EVENT_FIXED offsetof(struct proc_event, event_data)
#define ANSWER_MS 2000
#define MAX_CPUS 65536

/* --------------------------------------------------------------------------------- messages */

/* The smallest size of an event of each kind: older kernels send shorter ones. */
static bool
has_data(size_t event_size, size_t data_size)
{
	return event_size >= EVENT_FIXED + data_size;
}

static bool
parse_event(const struct proc_event *event, size_t size, struct connector_event *ret)
{
	switch ((uint32_t) event->what) {
	case PROC_EVENT_NONE:
		ret->kind = CONNECTOR_ACK;
		ret->status = event->event_data.ack.err;
		return has_data(size, sizeof event->event_data.ack);
	case PROC_EVENT_FORK:
		ret->kind = CONNECTOR_FORK;
		ret->pid = event->event_data.fork.child_pid;
		ret->tgid = event->event_data.fork.child_tgid;
		ret->parent_pid = event->event_data.fork.parent_pid;
		ret->parent_tgid = event->event_data.fork.parent_tgid;
		return has_data(size, sizeof event->event_data.fork);
	case PROC_EVENT_EXEC:
		ret->kind = CONNECTOR_EXEC;
		ret->pid = event->event_data.exec.process_pid;
		ret->tgid = event->event_data.exec.process_tgid;
		return has_data(size, sizeof event->event_data.exec);
	case PROC_EVENT_COMM:
		ret->kind = CONNECTOR_COMM;
		ret->pid = event->event_data.comm.process_pid;
		ret->tgid = event->event_data.comm.process_tgid;
		return has_data(size, 2 * sizeof(__kernel_pid_t));
	case PROC_EVENT_EXIT:
		ret->kind = CONNECTOR_EXIT;
		ret->pid = event->event_data.exit.process_pid;
		ret->tgid = event->event_data.exit.process_tgid;
		ret->status = event->event_data.exit.exit_code;
		ret->parent_pid = event->event_data.exit.parent_pid; /* 0 before Linux 4.18 */
		ret->parent_tgid = event->event_data.exit.parent_tgid;
		return has_data(size, offsetof(struct exit_proc_event, parent_pid));
	default:
		ret->kind = CONNECTOR_OTHER;
		return true;
	}
}

/* One netlink message of exactly `size` bytes. */
static bool
parse_message(const unsigned char *data, size_t size, struct connector_event *ret)
{
	struct cn_msg message;
	struct proc_event event = {0};
	size_t event_size;

	if (size < CN_SIZE)
		return false;
	memcpy(&message, data, CN_SIZE);
	event_size = message.len;
	if (message.id.idx != CN_IDX_PROC || message.id.val != CN_VAL_PROC ||
	    event_size > size - CN_SIZE || event_size < EVENT_FIXED)
		return false;
	memcpy(&event, data + CN_SIZE, event_size < sizeof event ? event_size : sizeof event);
	ret->seq = message.seq;
	ret->token = message.ack - 1;
	ret->cpu = event.cpu;
	ret->time_ns = event.timestamp_ns;
	return parse_event(&event, event_size, ret);
}

int
connector_parse(const void *data, size_t size, size_t *offset, struct connector_event *ret)
{
	const unsigned char *bytes = data;
	struct nlmsghdr header;
	size_t left;

	memset(ret, 0, sizeof *ret);
	if (*offset >= size)
		return 0;
	left = size - *offset;
	bytes += *offset;
	*offset = size; /* nothing behind a damaged message is trusted */
	if (left < sizeof header)
		return -1;
	memcpy(&header, bytes, sizeof header);
	if (header.nlmsg_len < sizeof header || header.nlmsg_len > left)
		return -1;
	if (header.nlmsg_type != NLMSG_DONE ||
	    !parse_message(bytes + sizeof header, header.nlmsg_len - sizeof header, ret))
		return -1;
	if (left - header.nlmsg_len > NLMSG_ALIGN(header.nlmsg_len) - header.nlmsg_len)
		*offset = size - left + NLMSG_ALIGN(header.nlmsg_len);
	return 1;
}

/* ----------------------------------------------------------------------------------- socket */

static int
send_op(int fd, enum proc_cn_mcast_op op, uint32_t token)
{
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
	_Alignas(NLMSG_ALIGNTO) unsigned char data[NLMSG_LENGTH(CN_SIZE + sizeof op)] = {0};
	struct nlmsghdr header = {.nlmsg_len = sizeof data, .nlmsg_type = NLMSG_DONE};
	struct cn_msg message = {
		.id = {.idx = CN_IDX_PROC, .val = CN_VAL_PROC},
		.ack = token, /* the answer's is one more */
		.len = sizeof op,
	};

	memcpy(data, &header, sizeof header);
	memcpy(data + NLMSG_HDRLEN, &message, CN_SIZE);
	memcpy(data + NLMSG_HDRLEN + CN_SIZE, &op, sizeof op);
	if (sendto(fd, data, sizeof data, 0, (struct sockaddr *) &kernel, sizeof kernel) < 0)
		return -1;
	return 0;
}

void
connector_end(int fd)
{
	/* A kernel that does not take it goes on sending to a socket that is being closed. */
	(void) send_op(fd, PROC_CN_MCAST_IGNORE, 0);
}

int
connector_receive(int fd, struct connector_batch *batch, int *ret_errno)
{
	struct mmsghdr messages[CONNECTOR_BATCH];
	struct iovec vectors[CONNECTOR_BATCH];
	struct sockaddr_nl senders[CONNECTOR_BATCH];
	int n;

	memset(messages, 0, sizeof messages);
	memset(senders, 0, sizeof senders);
	for (unsigned i = 0; i < CONNECTOR_BATCH; i++) {
		vectors[i] = (struct iovec){batch->data[i], CONNECTOR_MESSAGE};
		messages[i].msg_hdr.msg_iov = &vectors[i];
		messages[i].msg_hdr.msg_iovlen = 1;
		messages[i].msg_hdr.msg_name = &senders[i];
		messages[i].msg_hdr.msg_namelen = sizeof senders[i];
	}
	batch->count = 0;
	do {
		n = recvmmsg(fd, messages, CONNECTOR_BATCH, MSG_DONTWAIT, NULL);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n < 0) {
		*ret_errno = errno;
		return -1;
	}
	batch->count = (unsigned) n;
	for (int i = 0; i < n; i++) {
		/* Only the kernel has port 0; a process could send us anything. */
		bool genuine = messages[i].msg_hdr.msg_namelen == sizeof senders[i] &&
			       senders[i].nl_pid == 0 &&
			       (messages[i].msg_hdr.msg_flags & MSG_TRUNC) == 0;

		batch->sizes[i] = genuine ? messages[i].msg_len : 0;
	}
	return n > 0;
}

/* Why the kernel refuses or does not answer, and what would help. */
static int
fail_refused(int sys_errno, const char *doing, struct moat_error *err)
{
	struct utsname name;
	const char *release = uname(&name) == 0 ? name.release : "unknown";
	int code = moat_code_of_errno(sys_errno);

	switch (sys_errno) {
	case EPERM:
	case EACCES:
		return moat_error_set(
			err, MOAT_PERMISSION, sys_errno,
			"the kernel refuses process events to this user: Linux older than "
			"6.6 (this is %s) gives them only with CAP_NET_ADMIN, as root",
			release);
	case ECONNREFUSED:
		return moat_error_set(
			err, MOAT_UNSUPPORTED, sys_errno,
			"no proc connector answers here: process events come only in the "
			"host's own network namespace");
	case EPROTONOSUPPORT:
	case EAFNOSUPPORT:
		return moat_error_set(err, MOAT_UNSUPPORTED, sys_errno,
				      "this kernel (%s) has no netlink connector: it needs "
				      "CONFIG_CONNECTOR and CONFIG_PROC_EVENTS",
				      release);
	case ETIMEDOUT:
		return moat_error_set(
			err, MOAT_UNSUPPORTED, sys_errno,
			"the kernel (%s) does not answer a request for process events: it "
			"lacks CONFIG_PROC_EVENTS, or this is not the host's own pid and "
			"user namespace",
			release);
	default:
		return moat_error_set(err, code, sys_errno, "%s: %s", doing, strerror(sys_errno));
	}
}

/* 1: the answer is in the batch, *ret_error says what it is. */
static int
find_ack(const struct connector_batch *batch, uint32_t token, int *ret_error)
{
	struct connector_event event;

	for (unsigned i = 0; i < batch->count; i++) {
		size_t offset = 0;

		while (connector_parse(batch->data[i], batch->sizes[i], &offset, &event) > 0) {
			if (event.kind != CONNECTOR_ACK || event.token != token)
				continue;
			*ret_error = (int) event.status;
			return 1;
		}
	}
	return 0;
}

/* Events that come before the answer are dropped: the caller looks at /proc after this. */
static int
wait_ack(int fd, uint32_t token, struct connector_batch *batch, struct moat_error *err)
{
	struct timespec now, start;
	int error = 0, n;

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		struct pollfd ready = {.fd = fd, .events = POLLIN};
		int64_t waited;

		n = connector_receive(fd, batch, &error);
		if (n < 0 && error != ENOBUFS)
			return fail_refused(error, "waiting for the proc connector", err);
		if (n > 0 && find_ack(batch, token, &error))
			return error == 0 ? 0
					  : fail_refused(error, "asking for process events", err);
		clock_gettime(CLOCK_MONOTONIC, &now);
		waited = (now.tv_sec - start.tv_sec) * 1000 +
			 (now.tv_nsec - start.tv_nsec) / 1000000;
		if (waited >= ANSWER_MS)
			return fail_refused(ETIMEDOUT, "", err);
		if (n == 0 && poll(&ready, 1, (int) (ANSWER_MS - waited)) < 0 && errno != EINTR)
			return moat_fail_errno(err, "waiting for the proc connector");
	}
}

static uint64_t
set_buffer(int fd, uint64_t wanted)
{
	int size = wanted > INT32_MAX / 2 ? INT32_MAX / 2 : (int) wanted;
	socklen_t length = sizeof size;

	/* The first needs CAP_NET_ADMIN; the second is cut to net.core.rmem_max. */
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0)
		size = 0;
	if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &length) < 0)
		return 0;
	return (uint64_t) size;
}

int
connector_open(uint64_t receive_buffer, uint64_t *ret_buffer, struct moat_error *err)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
	AUTO_FREE struct connector_batch *batch = malloc(sizeof *batch);
	AUTO_CLOSE int fd = -1;
	struct timespec now;
	uint32_t token;

	if (batch == NULL)
		return moat_fail_memory(err);
	fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
	if (fd < 0)
		return fail_refused(errno, "opening a netlink socket", err);
	*ret_buffer = set_buffer(fd, receive_buffer);
	if (bind(fd, (struct sockaddr *) &address, sizeof address) < 0)
		return fail_refused(errno, "joining the group of process events", err);
	/* The answer goes to all listeners: ours is known by a number that others do not use. */
	clock_gettime(CLOCK_MONOTONIC, &now);
	token = (uint32_t) now.tv_nsec ^ (uint32_t) (uintptr_t) batch;
	if (send_op(fd, PROC_CN_MCAST_LISTEN, token) < 0)
		return fail_refused(errno, "asking for process events", err);
	if (wait_ack(fd, token, batch, err) < 0)
		return -1;
	return steal_fd(&fd);
}

/* ------------------------------------------------------------------------- sequence numbers */

void
sequence_free(struct sequence *sequence)
{
	free(sequence->cpus);
	*sequence = (struct sequence){0};
}

static int
make_room(struct sequence *sequence, size_t cpu)
{
	struct sequence_cpu *bigger;
	size_t count = cpu + 16;

	if (cpu < sequence->count)
		return 0;
	bigger = reallocarray(sequence->cpus, count, sizeof *bigger);
	if (bigger == NULL)
		return -1;
	memset(bigger + sequence->count, 0, (count - sequence->count) * sizeof *bigger);
	sequence->cpus = bigger;
	sequence->count = count;
	return 0;
}

int64_t
sequence_note(struct sequence *sequence, const struct connector_event *event,
	      uint64_t *ret_since_ns)
{
	struct sequence_cpu *cpu;
	uint32_t missing = 0;

	/* In older kernels answers are counted by no cpu. */
	if (event->cpu >= MAX_CPUS)
		return 0;
	if (make_room(sequence, event->cpu) < 0)
		return -1;
	cpu = &sequence->cpus[event->cpu];
	*ret_since_ns = cpu->known ? cpu->time_ns : event->time_ns;
	if (cpu->known)
		missing = event->seq - cpu->next;
	if (missing >
	    INT32_MAX) /* a counter that went back started anew: a cpu that was unplugged */
		missing = 0;
	*cpu = (struct sequence_cpu){
		.next = event->seq + 1, .known = true, .time_ns = event->time_ns};
	return missing;
}

void
sequence_overflow(struct sequence *sequence)
{
	for (size_t i = 0; i < sequence->count; i++)
		sequence->cpus[i].unsettled = sequence->cpus[i].known;
}

bool
sequence_is_unsettled_at(const struct sequence *sequence, size_t cpu)
{
	return cpu < sequence->count && sequence->cpus[cpu].unsettled;
}

bool
sequence_is_settled(const struct sequence *sequence)
{
	for (size_t i = 0; i < sequence->count; i++)
		if (sequence->cpus[i].unsettled)
			return false;
	return true;
}
