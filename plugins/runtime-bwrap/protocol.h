/* SPDX-License-Identifier: Apache-2.0 */
/* What the plugin and runtime-bwrap-init, the first process of a sandbox, say to each other.
 *
 * Both are built together and never meet another version, so the structs are plain memory.  They
 * talk over one SOCK_SEQPACKET pair: a message is whole or absent, and the end of either side is
 * seen by the other at once. */
#ifndef MOAT_RUNTIME_BWRAP_PROTOCOL_H
#define MOAT_RUNTIME_BWRAP_PROTOCOL_H

#include <stdint.h>

/* Descriptors that the plugin leaves open for init, through bwrap. */
enum init_fd {
	INIT_CONTROL = 3, /* the socket */
	INIT_COMMAND = 4, /* a memfd: struct command_header and its strings */
	INIT_STDIN = 5,   /* the command's streams; /dev/null when it gets a terminal */
	INIT_STDOUT = 6,
	INIT_STDERR = 7,
	INIT_FDS = 8,
	BWRAP_FILTER = 8, /* not for init: bwrap reads the system call filter, and closes it */
	ALL_FDS = 9
};

/* The command.  After the header: workdir, then argc arguments, then envc variables, each ending in
 * a NUL. It travels in memory rather than as arguments and environment of bwrap, so that nothing of
 * it is in a process list, and so that a variable like LD_PRELOAD, which a project's configuration
 * may set, acts inside the sandbox only. */
struct command_header {
	uint32_t argc, envc;
	uint32_t terminal;
	uint32_t stdin_open; /* zero: standard input is at its end, on a terminal, too */
	uint16_t rows, columns;
	uint64_t text_size; /* of all that follows */
};

enum message_type {
	/* From init. */
	MESSAGE_READY = 1, /* the sandbox is complete; with the terminal's master, if it has one */
	MESSAGE_STARTED = 2, /* the command's exec succeeded */
	MESSAGE_FAILED = 3,  /* it did not: value is errno, stage says where.  init ends */
	MESSAGE_EXITED = 4,  /* the command ended: value is what waitpid(2) gave.  init ends */
	/* To init. */
	MESSAGE_START = 5,
	MESSAGE_SIGNAL = 6 /* value: the signal for the command's process group */
};

enum init_stage {
	STAGE_SETUP = 1, /* fork, session, descriptors */
	STAGE_WORKDIR = 2,
	STAGE_EXEC = 3,
	STAGE_INTERPRETER =
		4, /* the file is there, what its first line or ELF header names is not */
	STAGE_TERMINAL = 5
};

struct message {
	uint32_t type;
	int32_t value;
	uint32_t stage;
};

#endif
