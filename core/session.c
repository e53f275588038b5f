/* SPDX-License-Identifier: Apache-2.0 */
/* An attached run: one poll loop. */
#include "core/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "core/interrupt.h"
#include "core/log.h"

/* Written in pieces that a pipe takes whole once it polls writable, so that the loop never blocks
 * in a write. */
#define PIECE 4096
#define PUMP_SIZE 65536
/* A runtime without a descriptor to wait on is asked this often. */
#define ASK_MS 200
/* After the command's end, what it has left in its pipes is read until they are at their end, or
 * silent for so long (a process that outlived it may hold them open). */
#define DRAIN_MS 2000

/* Bytes on their way from one descriptor to another. */
struct pump {
	int from, to; /* -1: that side has ended */
	int error;    /* why it could not be written on, or 0 */
	size_t start, end;
	char data[PUMP_SIZE];
};

struct loop {
	struct session *session;
	struct pump in, out, err;
	int signal_fd, wait_fd;
	int own[2]; /* the caller's terminal, opened again; -1: none */
	bool ended; /* the command has */
	bool raw;
	int terminal_fd;      /* the caller's */
	struct termios saved; /* of the caller's terminal */
	int interrupts;       /* how many times the user asked to stop */
	int64_t kill_at_ms;   /* monotonic; 0: not set */
	struct moat_run_status status;
};

static void
handled_set(sigset_t *set)
{
	interrupt_set(set);
	sigaddset(set, SIGWINCH);
}

void
session_block_signals(void)
{
	sigset_t set, before;

	/* What is pending until the command runs cancels the preparations. */
	interrupt_hold(&before);
	handled_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

void
session_terminal_size(uint16_t *ret_rows, uint16_t *ret_columns)
{
	struct winsize size;

	*ret_rows = 24;
	*ret_columns = 80;
	if ((ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 &&
	     ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0) ||
	    size.ws_row == 0 || size.ws_col == 0)
		return;
	*ret_rows = size.ws_row;
	*ret_columns = size.ws_col;
}

static int64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---------------------------------------------------------------------------------- the terminal
 */

/* The command's terminal edits lines and turns newlines round; the caller's must not do so again.
 */
static void
make_raw(struct loop *loop)
{
	struct termios raw;

	if (!loop->session->terminal)
		return;
	loop->terminal_fd = loop->session->input ? STDIN_FILENO : STDOUT_FILENO;
	if (tcgetattr(loop->terminal_fd, &loop->saved) < 0)
		return;
	raw = loop->saved;
	if (loop->session->input)
		cfmakeraw(&raw);
	else
		raw.c_oflag &= ~(tcflag_t) OPOST;
	if (tcsetattr(loop->terminal_fd, TCSANOW, &raw) < 0)
		return;
	loop->raw = true;
	log_set_raw(true);
}

static void
make_sane(struct loop *loop)
{
	if (!loop->raw)
		return;
	(void) tcsetattr(loop->terminal_fd, TCSANOW, &loop->saved); /* it may be gone */
	loop->raw = false;
	log_set_raw(false);
}

/* ------------------------------------------------------------------------------------- the bytes
 */

static void
pump_init(struct pump *pump, int from, int to)
{
	pump->from = from;
	pump->to = to;
	pump->start = pump->end = 0;
}

static bool
pump_is_empty(const struct pump *pump)
{
	return pump->start == pump->end;
}

/* Reads once.  Returns the number of new bytes, at pump->data + old end; 0 at the end. */
static ssize_t
pump_read(struct pump *pump)
{
	ssize_t n;

	do
		n = read(pump->from, pump->data, sizeof pump->data);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return -1;
	if (n <= 0) { /* A pty whose last user is gone gives EIO. */
		pump->from = -1;
		return 0;
	}
	pump->start = 0;
	pump->end = (size_t) n;
	return n;
}

/* Writes once.  Why it failed stays in pump->error. */
static void
pump_write(struct pump *pump)
{
	size_t size = pump->end - pump->start;
	ssize_t n = write(pump->to, pump->data + pump->start, size > PIECE ? PIECE : size);

	if (n >= 0) {
		pump->start += (size_t) n;
	} else if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK) {
		pump->error = errno;
		pump->to = -1;
		pump->start = pump->end = 0;
	}
}

/* There is no more input for the command. */
static void
end_input(struct loop *loop)
{
	struct moat_io *io = &loop->session->io;
	struct termios tio;
	char eof = 4;

	loop->in.from = -1;
	if (loop->in.to < 0 || !pump_is_empty(&loop->in))
		return;
	loop->in.to = -1;
	if (loop->session->terminal) {
		/* What a user would type; the descriptor is also the one to read from. */
		if (tcgetattr(io->in, &tio) == 0 && tio.c_cc[VEOF] != _POSIX_VDISABLE)
			eof = (char) tio.c_cc[VEOF];
		(void) !write(io->in, &eof, 1); /* the command may have ended */
	} else if (io->half_close) {
		(void) shutdown(io->in, SHUT_WR); /* likewise */
	} else if (!io->shared) {
		cleanup_close(&io->in);
	}
}

static void
read_output(struct loop *loop, struct pump *pump, enum runlog_stream stream)
{
	ssize_t n = pump_read(pump);

	if (n <= 0)
		return;
	runlog_add(loop->session->log, stream, pump->data, (size_t) n);
	if (pump->to < 0)
		pump->start = pump->end = 0;
}

/* ----------------------------------------------------------------------------------- the signals
 */

static void
send_signal(struct loop *loop, int number)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (!loop->ended &&
	    runtime_kill(loop->session->runtime, loop->session->handle, number, &local) < 0 &&
	    local.code != MOAT_GONE)
		log_warning("%s", local.message);
}

/* The first time as asked; again, or when the command has not ended in time: for good. */
static void
stop(struct loop *loop, int number)
{
	if (loop->ended) { /* All that is left is a reader that does not read. */
		loop->out.to = loop->err.to = -1;
		loop->out.start = loop->out.end = loop->err.start = loop->err.end = 0;
		return;
	}
	if (loop->interrupts++ == 0 && loop->session->stopping != NULL)
		loop->session->stopping(loop->session->context);
	if (loop->interrupts > 1) {
		send_signal(loop, SIGKILL);
		return;
	}
	send_signal(loop, number);
	loop->kill_at_ms =
		number == SIGINT || number == SIGQUIT ? 0 : now_ms() + loop->session->grace_ms;
	if (number == SIGINT)
		log_notice("press Ctrl-C again to kill the command");
}

static void
resize(struct loop *loop)
{
	struct moat_error local = MOAT_ERROR_INIT;
	uint16_t rows, columns;

	if (!loop->session->terminal)
		return;
	session_terminal_size(&rows, &columns);
	if (runtime_resize(loop->session->runtime, loop->session->handle, loop->session->io.out,
			   rows, columns, &local) < 0)
		log_debug("%s", local.message);
}

static void
take_signals(struct loop *loop)
{
	struct signalfd_siginfo info;

	while (read(loop->signal_fd, &info, sizeof info) == (ssize_t) sizeof info) {
		if (info.ssi_signo == SIGWINCH)
			resize(loop);
		else
			stop(loop, (int) info.ssi_signo);
	}
}

/* -------------------------------------------------------------------------------------- the loop
 */

static int
look_for_end(struct loop *loop, struct moat_error *err)
{
	struct moat_run_status status = {.struct_size = sizeof status};

	if (runtime_wait(loop->session->runtime, loop->session->handle, 0, &status, err) < 0)
		return -1;
	if (status.state == MOAT_RUN_EXITED || status.state == MOAT_RUN_GONE) {
		loop->status = status;
		loop->ended = true;
	}
	return 0;
}

static int
timeout(const struct loop *loop)
{
	int64_t left;

	/* A reader may take its time. */
	if (loop->ended)
		return pump_is_empty(&loop->out) && pump_is_empty(&loop->err) ? DRAIN_MS : -1;
	if (loop->kill_at_ms != 0) {
		left = loop->kill_at_ms - now_ms();
		return left < 0 ? 0 : (int) left;
	}
	return loop->wait_fd < 0 ? ASK_MS : -1;
}

static void
want(struct pollfd *slot, int fd, short events)
{
	*slot = (struct pollfd){.fd = fd, .events = events};
}

/* Each pump waits for one thing: bytes to read when it is empty, room when it is not. */
static void
want_pump(struct pollfd *slot, const struct pump *pump)
{
	if (pump_is_empty(pump))
		want(slot, pump->from, POLLIN);
	else
		want(slot, pump->to, POLLOUT);
}

static void
run_output(struct loop *loop, struct pump *pump, enum runlog_stream stream, short revents)
{
	if (revents == 0)
		return;
	if (pump_is_empty(pump)) {
		read_output(loop, pump, stream);
		return;
	}
	pump_write(pump);
	if (pump->error != EPIPE)
		return;
	/* Nobody reads any more: the command is to be told, as in any pipeline. */
	pump->error = 0;
	if (!loop->session->terminal && !loop->session->io.shared) {
		cleanup_close(pump == &loop->out ? &loop->session->io.out : &loop->session->io.err);
		pump->from = -1;
	}
}

static void
run_input(struct loop *loop, short revents)
{
	struct pump *pump = &loop->in;

	if (revents != 0 && pump_is_empty(pump))
		(void) pump_read(pump);
	else if (revents != 0)
		pump_write(pump);
	if (pump->from < 0 || pump->to < 0)
		end_input(loop);
}

static int
turn(struct loop *loop, struct moat_error *err)
{
	enum { IN, OUT, ERR, SIGNALS, WAIT, COUNT };
	struct pollfd fds[COUNT];
	int n;

	want_pump(&fds[IN], &loop->in);
	want_pump(&fds[OUT], &loop->out);
	want_pump(&fds[ERR], &loop->err);
	want(&fds[SIGNALS], loop->signal_fd, POLLIN);
	want(&fds[WAIT], loop->ended ? -1 : loop->wait_fd, POLLIN);
	n = poll(fds, COUNT, timeout(loop));
	if (n < 0 && errno != EINTR)
		return moat_fail_errno(err, "wait for the command");
	if (n == 0 &&
	    loop->ended) { /* Silent: whoever holds the pipes does not belong to the run. */
		loop->out.from = loop->err.from = -1;
		return 0;
	}
	if (loop->kill_at_ms != 0 && now_ms() >= loop->kill_at_ms) {
		loop->kill_at_ms = 0;
		send_signal(loop, SIGKILL);
	}
	if (n > 0) {
		run_input(loop, fds[IN].revents);
		run_output(loop, &loop->out, RUNLOG_STDOUT, fds[OUT].revents);
		run_output(loop, &loop->err, RUNLOG_STDERR, fds[ERR].revents);
		if (fds[SIGNALS].revents != 0)
			take_signals(loop);
	}
	if (!loop->ended && (loop->wait_fd < 0 || (n > 0 && fds[WAIT].revents != 0)))
		return look_for_end(loop, err);
	return 0;
}

static bool
is_over(const struct loop *loop)
{
	return loop->ended && loop->out.from < 0 && loop->err.from < 0 &&
	       pump_is_empty(&loop->out) && pump_is_empty(&loop->err);
}

void
moat_io_close(struct moat_io *io)
{
	if (io->shared || io->in == io->out)
		io->in = -1;
	cleanup_close(&io->in);
	cleanup_close(&io->out);
	cleanup_close(&io->err);
}

/* Descriptors of moat's own: room for a byte does not mean room for a piece. */
static void
never_block(int fd)
{
	int flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);

	if (flags >= 0)
		(void) fcntl(fd, F_SETFL, flags | O_NONBLOCK); /* only less responsive without */
}

/* A terminal that nobody reads blocks a write although it polls writable.  The caller's description
 * of it is shared with others, so it is opened again. */
static int
own_output(int fd, int *ret_own)
{
	char path[32];

	if (isatty(fd) != 1)
		return fd;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	*ret_own = open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	return *ret_own < 0 ? fd : *ret_own;
}

static int
loop_open(struct loop *loop, struct session *session, struct moat_error *err)
{
	sigset_t set;

	loop->session = session;
	loop->own[0] = loop->own[1] = -1;
	handled_set(&set);
	loop->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (loop->signal_fd < 0)
		return moat_fail_errno(err, "watch for signals");
	loop->wait_fd = runtime_wait_fd(session->runtime, session->handle);
	pump_init(&loop->in, session->input ? STDIN_FILENO : -1,
		  session->input ? session->io.in : -1);
	never_block(session->io.in);
	never_block(session->io.out);
	pump_init(&loop->out, session->io.out, own_output(STDOUT_FILENO, &loop->own[0]));
	pump_init(&loop->err, session->io.err, own_output(STDERR_FILENO, &loop->own[1]));
	if (!session->input && !session->terminal && !session->io.shared)
		cleanup_close(&session->io.in);
	return 0;
}

int
session_run(struct session *session, struct moat_run_status *ret, struct moat_error *err)
{
	AUTO_FREE struct loop *loop = calloc(1, sizeof *loop);
	int result = -1;

	if (loop == NULL) {
		moat_fail_memory(err);
	} else if (loop_open(loop, session, err) == 0) {
		make_raw(loop);
		do
			result = turn(loop, err);
		while (result == 0 && !is_over(loop));
		make_sane(loop);
		session->output_error = loop->out.error != 0 ? loop->out.error : loop->err.error;
		cleanup_close(&loop->own[0]);
		cleanup_close(&loop->own[1]);
		cleanup_close(&loop->signal_fd);
		*ret = loop->status;
	}
	moat_io_close(&session->io);
	return result;
}
