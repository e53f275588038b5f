/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox that has been made: starting the command in it, signalling it, its end. */
#include "run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/text.h"

/* A process that was killed ends at once, but for one that waits in the kernel. */
#define INIT_END_LIMIT_MS 5000

/* bwrap ends after init, unless it was killed; then init follows at its own pace.  Nothing inside
 * outlives init, so this is the end of all. */
static void
end_init(const struct run *run)
{
	struct pollfd fd = {.fd = run->root_pidfd, .events = POLLIN};

	if (run->root_pidfd < 0)
		return;
	(void) child_signal(run->root_pidfd, SIGKILL);
	while (poll(&fd, 1, INIT_END_LIMIT_MS) < 0 && errno == EINTR)
		;
}

void
run_free(struct run *run)
{
	int status;

	if (run == NULL)
		return;
	/* Where there is no init yet, it will find the socket closed when it comes. */
	cleanup_close(&run->control);
	end_init(run);
	/* bwrap reaps init and ends; killed before, it would leave that to the host's process 1,
	 * which in a container may not do it. */
	if (run->root_pidfd >= 0)
		(void) child_wait(&run->child, INIT_END_LIMIT_MS, &status, NULL);
	child_kill(&run->child);
	cleanup_close(&run->root_pidfd);
	cleanup_close(&run->words);
	cleanup_close(&run->in);
	cleanup_close(&run->out);
	cleanup_close(&run->err);
	free(run->id);
	free(run->bwrap);
	free(run);
}

static int
send_message(struct run *run, uint32_t type, int32_t value, struct moat_error *err)
{
	struct message message = {.type = type, .value = value};
	ssize_t n;

	do
		n = send(run->control, &message, sizeof message, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	if (errno == EPIPE || errno == ECONNRESET)
		return moat_fail(err, MOAT_GONE, "the sandbox of run %s has ended", run->id);
	return moat_fail_errno(err, "the sandbox's control socket");
}

/* Takes one message.  1: *ret; 0: none is there, or none will come. */
static int
receive(struct run *run, struct message *ret, int flags)
{
	ssize_t n;

	do
		n = recv(run->control, ret, sizeof *ret, flags);
	while (n < 0 && errno == EINTR);
	return n == (ssize_t) sizeof *ret;
}

/* Why the command did not come to be, as an error that the core turns into status 126 or 127. */
static int
fail_start(const struct message *message, struct moat_error *err)
{
	int number = message->value;
	int code = number == ENOENT || number == ENOTDIR ? MOAT_NO_COMMAND : MOAT_CANNOT_EXEC;

	switch (message->stage) {
	case STAGE_EXEC:
		if (number == ENOENT)
			return moat_error_set(err, code, number,
					      "command not found in the sandbox");
		if (number == E2BIG)
			return moat_error_set(
				err, code, number,
				"the arguments and the environment are too large for this "
				"system: %s",
				strerror(number));
		return moat_error_set(err, code, number, "the command cannot be executed: %s",
				      strerror(number));
	case STAGE_INTERPRETER:
		return moat_error_set(
			err, code, number,
			"the command is there, but the interpreter that its first line (or "
			"ELF header) names is not in the sandbox");
	case STAGE_WORKDIR:
		return moat_error_set(err, moat_code_of_errno(number), number,
				      "the working directory cannot be entered in the sandbox: %s",
				      strerror(number));
	case STAGE_TERMINAL:
		return moat_error_set(err, MOAT_FAILED, number, "the sandbox's terminal: %s",
				      strerror(number));
	default:
		return moat_error_set(err, moat_code_of_errno(number), number,
				      "starting the command in the sandbox: %s", strerror(number));
	}
}

int
run_start(struct run *run, struct moat_error *err)
{
	struct message message;

	if (run->started)
		return moat_fail(err, MOAT_USAGE, "run %s has been started already", run->id);
	if (send_message(run, MESSAGE_START, 0, err) < 0)
		return -1;
	if (!receive(run, &message, 0))
		return moat_fail(err, MOAT_GONE,
				 "the sandbox ended before its command was started");
	if (message.type == MESSAGE_FAILED)
		return fail_start(&message, err);
	if (message.type != MESSAGE_STARTED)
		return moat_fail(err, MOAT_FAILED,
				 "the sandbox's init sent message %u, not `started'",
				 (unsigned) message.type);
	run->started = true;
	run->started_ns = time_now_ns();
	return 0;
}

/* How it ended.  init knows; when it was killed it could not say, but then so was the command. */
static void
conclude(struct run *run, int bwrap_status)
{
	struct moat_run_status *status = &run->status;
	struct message message;

	while (receive(run, &message, MSG_DONTWAIT))
		if (message.type == MESSAGE_EXITED) {
			run->reported = true;
			run->wait_status = message.value;
		}
	status->struct_size = sizeof *status;
	status->state = MOAT_RUN_EXITED;
	status->started_ns = run->started_ns;
	status->finished_ns = time_now_ns();
	status->exit_code = -1;
	if (run->reported && WIFEXITED(run->wait_status)) {
		status->exit_code = WEXITSTATUS(run->wait_status);
	} else if (run->reported && WIFSIGNALED(run->wait_status)) {
		status->signal = WTERMSIG(run->wait_status);
		status->exit_code = 128 + status->signal;
	} else if (run->started) {
		/* That init is gone without a word means SIGKILL, from moat, from the kernel when
		 * memory ran out, or with bwrap: nothing else reaches a process 1. */
		status->signal = SIGKILL;
		status->exit_code = 128 + SIGKILL;
		(void) snprintf(status->detail, sizeof status->detail, "the sandbox was killed");
		if (bwrap_status != -1 && WIFSIGNALED(bwrap_status))
			(void) snprintf(
				status->detail, sizeof status->detail,
				"bubblewrap was killed by signal %d, and the sandbox with it",
				WTERMSIG(bwrap_status));
	} else {
		(void) snprintf(status->detail, sizeof status->detail,
				"the command was not started");
	}
	run->ended = true;
}

int
run_wait(struct run *run, int64_t timeout_ms, struct moat_error *err)
{
	int status, ended;

	if (run->ended)
		return 0;
	ended = child_wait(&run->child, timeout_ms, &status, err);
	if (ended < 0)
		return -1;
	if (ended == 1) {
		end_init(run);
		conclude(run, status);
	}
	return 0;
}

int
run_signal(struct run *run, int number, struct moat_error *err)
{
	if (number < 1 || number >= NSIG)
		return moat_fail(err, MOAT_USAGE, "there is no signal %d", number);
	if (run_wait(run, 0, err) < 0)
		return -1;
	if (run->ended)
		return moat_fail(err, MOAT_GONE, "run %s has ended", run->id);
	if (number == SIGKILL) {
		if (child_signal(run->root_pidfd, SIGKILL) < 0 && errno != ESRCH)
			return moat_fail_errno(err, "kill the sandbox of run %s", run->id);
		return 0;
	}
	if (!run->started)
		return moat_fail(err, MOAT_USAGE, "run %s has no command yet to send signal %d to",
				 run->id, number);
	return send_message(run, MESSAGE_SIGNAL, number, err);
}
