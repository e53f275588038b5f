/* SPDX-License-Identifier: Apache-2.0 */
/* From a specification to a sandbox that is complete and waits. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "argv.h"
#include "common/fs.h"
#include "probe.h"
#include "run.h"
#include "seccomp.h"

/* A sandbox comes up in milliseconds.  Longer means that something it mounts does not answer. */
#define READY_LIMIT_MS 30000
#define CANCEL_POLL_MS 200

/* What only the child keeps. */
struct child_ends {
	int null, control, command, filter, in, out, err, words;
};

static void
child_ends_close(struct child_ends *ends)
{
	int *const fds[] = {&ends->null, &ends->control, &ends->command, &ends->filter,
			    &ends->in,   &ends->out,     &ends->err,     &ends->words};

	for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
		cleanup_close(fds[i]);
}

static int
check_spec(const struct moat_run_spec *spec, struct moat_error *err)
{
	static const char hint[] = "choose a runtime with limits (docker), or leave it out";

	if (spec->image != NULL)
		return moat_fail(
			err, MOAT_UNSUPPORTED,
			"runtime bwrap has no images, it shows the host's own system: image `%s' "
			"needs another runtime (docker)",
			spec->image);
	if (spec->memory != 0)
		return moat_fail(err, MOAT_UNSUPPORTED, "runtime bwrap cannot limit memory yet: %s",
				 hint);
	if (spec->cpus_milli != 0)
		return moat_fail(err, MOAT_UNSUPPORTED, "runtime bwrap cannot limit cpus yet: %s",
				 hint);
	if (spec->pids != 0)
		return moat_fail(err, MOAT_UNSUPPORTED,
				 "runtime bwrap cannot limit processes yet: %s", hint);
	if (spec->network != MOAT_NETWORK_OPEN && spec->network != MOAT_NETWORK_NONE)
		return moat_fail(err, MOAT_UNSUPPORTED,
				 "runtime bwrap does not know network policy %u",
				 (unsigned) spec->network);
	if (spec->argv == NULL || spec->argv[0] == NULL)
		return moat_fail(err, MOAT_USAGE, "no command");
	if (spec->workdir == NULL || spec->workdir[0] != '/')
		return moat_fail(err, MOAT_USAGE, "the working directory must be an absolute path");
	if (spec->id == NULL || spec->id[0] == '\0' || strlen(spec->id) >= MOAT_REF_MAX)
		return moat_fail(err, MOAT_USAGE, "the run has no usable id");
	return 0;
}

static uint32_t
append_strings(struct buf *text, const char *const *strings)
{
	uint32_t count = 0;

	for (; strings != NULL && strings[count] != NULL; count++)
		buf_append(text, strings[count], strlen(strings[count]) + 1);
	return count;
}

/* The command as init reads it, in memory that has no name. */
static int
write_command(const struct moat_run_spec *spec, int *ret_fd, struct moat_error *err)
{
	struct command_header header = {.terminal = spec->terminal != 0,
					.stdin_open = spec->stdin_open != 0,
					.rows = spec->rows,
					.columns = spec->columns};
	AUTO_BUF struct buf text = {0};
	AUTO_CLOSE int fd = memfd_create("moat-command", MFD_CLOEXEC);

	if (fd < 0)
		return moat_fail_errno(err, "memfd_create");
	buf_append(&text, spec->workdir, strlen(spec->workdir) + 1);
	header.argc = append_strings(&text, spec->argv);
	header.envc = append_strings(&text, spec->env);
	if (buf_check(&text, err) < 0)
		return -1;
	header.text_size = text.size;
	if (fs_write_all(fd, &header, sizeof header, "the command", err) < 0 ||
	    fs_write_all(fd, text.data, text.size, "the command", err) < 0)
		return -1;
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int
make_pipe(int *ret_reader, int *ret_writer, struct moat_error *err)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return moat_fail_errno(err, "pipe");
	*ret_reader = ends[0];
	*ret_writer = ends[1];
	return 0;
}

/* The control socket.  Its messages carry the sender's pid, translated by the kernel into the
 * receiver's pid namespace: so the host learns what init is called there. */
static int
make_control(int *ret_ours, int *ret_childs, struct moat_error *err)
{
	int ends[2], on = 1;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return moat_fail_errno(err, "socketpair");
	*ret_ours = ends[0];
	*ret_childs = ends[1];
	if (setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0)
		return moat_fail_errno(err, "setsockopt SO_PASSCRED");
	return 0;
}

static int
make_channels(struct run *run, const struct moat_run_spec *spec, struct child_ends *ends,
	      struct moat_error *err)
{
	ends->null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (ends->null < 0)
		return moat_fail_errno(err, "`/dev/null'");
	if (make_control(&run->control, &ends->control, err) < 0 ||
	    make_pipe(&run->words, &ends->words, err) < 0)
		return -1;
	if (fcntl(run->words, F_SETFL, O_NONBLOCK) < 0)
		return moat_fail_errno(err, "fcntl");
	if (run->terminal)
		return 0; /* init makes it, inside */
	if (spec->stdin_open && make_pipe(&ends->in, &run->in, err) < 0)
		return -1;
	if (make_pipe(&run->out, &ends->out, err) < 0 || make_pipe(&run->err, &ends->err, err) < 0)
		return -1;
	return 0;
}

static int
spawn(struct run *run, const struct argv *argv, const struct child_ends *ends,
      struct moat_error *err)
{
	const int fds[ALL_FDS] = {
		[0] = ends->null,
		[1] = ends->null,
		[2] = ends->words,
		[INIT_CONTROL] = ends->control,
		[INIT_COMMAND] = ends->command,
		[INIT_STDIN] = ends->in >= 0 ? ends->in : ends->null,
		[INIT_STDOUT] = ends->out >= 0 ? ends->out : ends->null,
		[INIT_STDERR] = ends->err >= 0 ? ends->err : ends->null,
		[BWRAP_FILTER] = ends->filter,
	};

	return child_spawn(&run->child, argv->items, fds, ALL_FDS, err);
}

static int64_t
now_ms(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits until init or the end of bwrap can be heard.  The slices are for the user's Ctrl-C only. */
static int
await_control(const struct run *run, const struct moat_host *host, struct moat_error *err)
{
	struct pollfd fd = {.fd = run->control, .events = POLLIN};
	int64_t deadline = now_ms() + READY_LIMIT_MS;

	for (;;) {
		int n = poll(&fd, 1, CANCEL_POLL_MS);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return moat_fail_errno(err, "poll");
		if (host->cancelled != NULL && host->cancelled())
			return moat_fail(err, MOAT_CANCELLED,
					 "stopped while the sandbox was being made");
		if (now_ms() >= deadline)
			return moat_fail(
				err, MOAT_TIMEOUT,
				"bubblewrap made no sandbox within %d seconds: does a mounted "
				"filesystem not answer?",
				READY_LIMIT_MS / 1000);
	}
}

/* Takes what came with a message: the sender's pid, and perhaps a descriptor. */
static void
take_ancillary(struct run *run, struct msghdr *header)
{
	struct ucred sender;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c != NULL; c = CMSG_NXTHDR(header, c)) {
		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&sender, CMSG_DATA(c), sizeof sender);
			run->root_pid = sender.pid;
		} else if (c->cmsg_type == SCM_RIGHTS && run->in < 0) {
			memcpy(&run->in, CMSG_DATA(c), sizeof run->in);
		}
	}
}

static int
fail_setup(struct run *run, struct moat_error *err)
{
	char words[600];
	int status;

	/* It closed the socket, so it is ending; its words are complete when it has. */
	if (child_wait(&run->child, READY_LIMIT_MS, &status, err) < 0)
		return -1;
	child_words(run->words, words, sizeof words);
	if (strstr(words, "Read-only file system") != NULL)
		return moat_fail(
			err, MOAT_UNSUPPORTED,
			"a mount target does not exist, and runtime bwrap cannot make one in the "
			"read-only system: make the directory first, or choose a target below "
			"/tmp (%s: %s)",
			run->bwrap, words);
	return explain_failure(run->bwrap, words, err);
}

static int
await_ready(struct run *run, const struct moat_host *host, struct moat_error *err)
{
	struct message message;
	struct iovec part = {.iov_base = &message, .iov_len = sizeof message};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr header = {.msg_iov = &part,
				.msg_iovlen = 1,
				.msg_control = &control,
				.msg_controllen = sizeof control};
	ssize_t n;

	if (await_control(run, host, err) < 0)
		return -1;
	n = recvmsg(run->control, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		return fail_setup(run, err);
	if (n < 0)
		return moat_fail_errno(err, "the sandbox's control socket");
	take_ancillary(run, &header);
	if (n == (ssize_t) sizeof message && message.type == MESSAGE_FAILED)
		return moat_error_set(err, MOAT_FAILED, message.value, "the sandbox's init: %s%s",
				      message.stage == STAGE_TERMINAL ? "making a terminal: " : "",
				      strerror(message.value));
	if (n != (ssize_t) sizeof message || message.type != MESSAGE_READY || run->root_pid <= 0 ||
	    run->terminal != (run->in >= 0 && run->out < 0))
		return moat_fail(err, MOAT_FAILED,
				 "the sandbox's init sent something else than ready");
	run->root_pidfd = child_pidfd((pid_t) run->root_pid);
	if (run->root_pidfd < 0 || fcntl(run->root_pidfd, F_SETFD, FD_CLOEXEC) < 0)
		return moat_fail_errno(err, "pidfd_open of the sandbox's init");
	return 0;
}

/* The real paths of what the command may write to, NULL-terminated. */
static int
writable_paths(const struct moat_run_spec *spec, struct argv *list, struct moat_error *err)
{
	size_t count = 0;

	while (spec->mounts != NULL && spec->mounts[count] != NULL)
		count++;
	list->items = calloc(count + 1, sizeof *list->items);
	if (list->items == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < count; i++) {
		const struct moat_mount *mount = spec->mounts[i];
		const char *given = mount->view != NULL ? mount->view->path : mount->source;
		AUTO_FREE char *path = given == NULL ? NULL : realpath(given, NULL);

		if (mount->read_only || path == NULL)
			continue; /* argv_build() complains of one that is not there */
		list->items[list->count] = arena_string(&list->arena, path);
		if (list->items[list->count++] == NULL)
			return moat_fail_memory(err);
	}
	return 0;
}

static int
build(struct run *run, const struct moat_host *host, const struct moat_config *config,
      const struct moat_run_spec *spec, struct child_ends *ends, struct argv *argv,
      struct moat_error *err)
{
	AUTO_ARGV struct argv writable = {0};
	AUTO_FREE char *init = NULL;

	if (writable_paths(spec, &writable, err) < 0 ||
	    find_bwrap(host, config, writable.items, &run->bwrap, err) < 0 ||
	    find_init(&init, err) < 0 || seccomp_open(host, &ends->filter, err) < 0)
		return -1;
	return argv_build(argv, run->bwrap, init, ends->filter < 0 ? -1 : BWRAP_FILTER, spec, err);
}

static void
cleanup_run(struct run **run)
{
	run_free(*run);
}

int
run_create(const struct moat_host *host, const struct moat_config *config,
	   const struct moat_run_spec *spec, struct run **ret, struct moat_error *err)
{
	CLEANUP(cleanup_run) struct run *run = calloc(1, sizeof *run);
	CLEANUP(child_ends_close) struct child_ends ends = {-1, -1, -1, -1, -1, -1, -1, -1};
	AUTO_ARGV struct argv argv = {0};

	if (run == NULL)
		return moat_fail_memory(err);
	run->child.pidfd = run->root_pidfd = run->control = run->words = -1;
	run->in = run->out = run->err = -1;
	run->terminal = spec->terminal != 0;
	if (check_spec(spec, err) < 0)
		return -1;
	run->id = strdup(spec->id);
	if (run->id == NULL)
		return moat_fail_memory(err);
	if (build(run, host, config, spec, &ends, &argv, err) < 0 ||
	    write_command(spec, &ends.command, err) < 0 ||
	    make_channels(run, spec, &ends, err) < 0 || spawn(run, &argv, &ends, err) < 0)
		return -1;
	/* From here on the child has the only copies: when it ends, the socket says so. */
	child_ends_close(&ends);
	ends = (struct child_ends){-1, -1, -1, -1, -1, -1, -1, -1};
	if (await_ready(run, host, err) < 0)
		return -1;
	*ret = STEAL(run);
	return 0;
}
