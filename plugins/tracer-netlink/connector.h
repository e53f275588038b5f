/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's proc connector (drivers/connector/cn_proc.c, linux/cn_proc.h): its socket, its
 * messages, and its sequence numbers, which tell what was lost. */
#ifndef MOAT_TRACER_NETLINK_CONNECTOR_H
#define MOAT_TRACER_NETLINK_CONNECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

enum connector_kind {
	CONNECTOR_OTHER =
		0, /* ids, sessions, ptrace, core dumps: only the sequence number counts */
	CONNECTOR_FORK = 1,
	CONNECTOR_EXEC = 2,
	CONNECTOR_EXIT = 3,
	CONNECTOR_COMM = 4, /* a thread renamed itself */
	CONNECTOR_ACK = 5,  /* answer to a request */
	/* Not messages of the kernel, but conclusions, which take their place in the queue: */
	CONNECTOR_LOSS = 6,    /* `lost` messages are missing between since_ns and time_ns */
	CONNECTOR_OVERFLOW = 7 /* some are missing; how many shows later */
};

struct connector_event {
	uint8_t kind;
	uint32_t cpu, seq;
	uint64_t time_ns;                /* monotonic */
	int32_t pid, tgid;               /* FORK: the child */
	int32_t parent_pid, parent_tgid; /* FORK, EXIT */
	uint32_t status;                 /* EXIT: as wait(2) gives it; ACK: an errno, or 0 */
	uint32_t token;                  /* ACK: that of the request */
	uint64_t lost, since_ns;         /* LOSS */
};

/* Reads the message at *offset of a datagram and moves *offset behind it.  1: *ret is set; 0: there
 * is none left; -1: not a message of the proc connector, or cut short.  Looks at nothing but the
 * bytes. */
int connector_parse(const void *data, size_t size, size_t *offset, struct connector_event *ret);

/* Opens the socket, joins the group and asks the kernel to send; returns the descriptor when the
 * kernel has agreed.  What stands in the way is said in words, with what would help.
 * receive_buffer: bytes; *ret_buffer: what the kernel gave (it counts its own overhead, about 1 KiB
 * for each message). */
int connector_open(uint64_t receive_buffer, uint64_t *ret_buffer, struct moat_error *err);

/* Tells the kernel that nobody listens any more.  Closing alone does not, before Linux 6.6. */
void connector_end(int fd);

#define CONNECTOR_BATCH 64
#define CONNECTOR_MESSAGE 256 /* bytes; a message has 92 */

/* Datagrams of one recvmmsg(2). */
struct connector_batch {
	unsigned count;
	size_t sizes[CONNECTOR_BATCH];
	_Alignas(8) unsigned char data[CONNECTOR_BATCH][CONNECTOR_MESSAGE];
};

/* Receives without waiting.  1: got some; 0: nothing is there; -1: *ret_errno is ENOBUFS (the
 * kernel's queue overflowed) or worse.  Datagrams that are not from the kernel have size 0. */
int connector_receive(int fd, struct connector_batch *batch, int *ret_errno);

/* What is known of each cpu's counter.  Zeroed: nothing.
 *
 * The kernel counts its messages by cpu, whatever their kind and whoever listens, and puts them
 * into the socket's queue in that order.  So for a listener that takes all kinds a step of more
 * than one is exactly what was lost on that cpu.  (With the filter of Linux 6.6 the counter goes on
 * for what is filtered, too: a gap would mean nothing.  That is why no filter is set.) */
struct sequence {
	struct sequence_cpu {
		uint32_t next;
		bool known, unsettled;
		uint64_t time_ns;
	} * cpus;
	size_t count;
};

void sequence_free(struct sequence *sequence);
/* Notes a message.  Returns how many before it are missing, and since when; -1: no memory. */
int64_t sequence_note(struct sequence *sequence, const struct connector_event *event,
		      uint64_t *ret_since_ns);
/* The queue overflowed: until a cpu's next message nobody knows whether some of its are missing. */
void sequence_overflow(struct sequence *sequence);
bool sequence_is_settled(const struct sequence *sequence);
bool sequence_is_unsettled_at(const struct sequence *sequence, size_t cpu);

#endif
