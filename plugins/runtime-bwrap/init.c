/* SPDX-License-Identifier: Apache-2.0 */
/* runtime-bwrap-init: process 1 of a sandbox that runtime-bwrap made.
 *
 * bubblewrap could start the command itself.  This program stands between them because only a
 * process inside can
 *   - say how the command ended (bwrap folds a signal into a status of 128+n) and why it could not
 *     be executed (bwrap only prints it among the command's own output);
 *   - make the command the leader of a session with a terminal of the sandbox's own: otherwise it
 *     shares a process group with bwrap, and Ctrl-C would kill bwrap and with it a command that
 *     wanted to handle it;
 *   - wait, already traceable, until it is told to go, and pass signals to the command alone.
 * It has the privileges of the command, no more.  It is not dumpable, so that the command cannot
 * trace it or reach its descriptors.
 *
 * Nothing outlives it: when it ends, the kernel kills all of its pid namespace.  It ends when the
 * command does, when the other end of the control socket is closed (moat died, in whatever way),
 * and with its parent, bwrap.  The control socket rather than bwrap's --die-with-parent watches
 * moat, because the kernel's parent-death signal fires when the *thread* that forked ends. */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "protocol.h"

/* Of init itself, when it could not even begin. */
#define STATUS_FAILED 125

struct command {
	struct command_header header;
	const char *workdir;
	char **argv, **env;
	int terminal; /* the slave; -1: none */
	pid_t pid;    /* 0: not started */
};

/* How the child reports that it did not become the command. */
struct failure {
	int32_t stage, error;
};

static int
send_message(uint32_t type, int32_t value, uint32_t stage, int fd)
{
	struct message message = {.type = type, .value = value, .stage = stage};
	struct iovec part = {.iov_base = &message, .iov_len = sizeof message};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};

	if (fd >= 0) {
		memset(&control, 0, sizeof control);
		header.msg_control = &control;
		header.msg_controllen = sizeof control;
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
	}
	for (;;) {
		if (sendmsg(INIT_CONTROL, &header, MSG_NOSIGNAL) >= 0)
			return 0;
		if (errno != EINTR)
			return -1;
	}
}

/* Splits *count strings off the text; false when it has fewer. */
static bool
take_strings(char **text, const char *end, uint32_t count, char **ret)
{
	for (uint32_t i = 0; i < count; i++) {
		char *nul = memchr(*text, '\0', (size_t) (end - *text));

		if (nul == NULL)
			return false;
		ret[i] = *text;
		*text = nul + 1;
	}
	ret[count] = NULL;
	return true;
}

static bool
load_command(struct command *command)
{
	struct command_header *header = &command->header;
	struct stat st;
	char *map, *text, *end, *workdir[2];

	if (fstat(INIT_COMMAND, &st) < 0 || st.st_size < (off_t) sizeof *header)
		return false;
	map = mmap(NULL, (size_t) st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, INIT_COMMAND, 0);
	if (map == MAP_FAILED)
		return false;
	close(INIT_COMMAND);
	memcpy(header, map, sizeof *header);
	if (header->text_size != (uint64_t) st.st_size - sizeof *header || header->argc == 0)
		return false;
	text = map + sizeof *header;
	end = map + st.st_size;
	command->argv = calloc((size_t) header->argc + 1, sizeof *command->argv);
	command->env = calloc((size_t) header->envc + 1, sizeof *command->env);
	if (command->argv == NULL || command->env == NULL)
		return false;
	if (!take_strings(&text, end, 1, workdir))
		return false;
	command->workdir = workdir[0];
	return take_strings(&text, end, header->argc, command->argv) &&
	       take_strings(&text, end, header->envc, command->env) && text == end;
}

/* Makes a terminal in the sandbox's own devpts, where ttyname(3) finds it.  Returns the master. */
static int
open_terminal(struct command *command)
{
	struct winsize size = {.ws_row = command->header.rows, .ws_col = command->header.columns};
	char name[64];
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (master < 0)
		return -1;
	if (grantpt(master) < 0 || unlockpt(master) < 0 ||
	    ptsname_r(master, name, sizeof name) != 0)
		return -1;
	command->terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (command->terminal < 0 || ioctl(command->terminal, TIOCSWINSZ, &size) < 0)
		return -1;
	return master;
}

/* Executes one file.  Like a shell, runs one that has no format of its own with /bin/sh.  Returns
 * only when it could not, with errno; *stage says whether the file or its interpreter is missing.
 */
static void
exec_file(const char *path, const struct command *command, int32_t *stage)
{
	size_t argc = command->header.argc;
	char shell[] = "/bin/sh";
	char **argv;
	int saved;

	execve(path, command->argv, command->env);
	saved = errno;
	if (saved == ENOEXEC) {
		argv = calloc(argc + 2, sizeof *argv);
		if (argv == NULL) {
			errno = ENOMEM;
			return;
		}
		argv[0] = shell;
		argv[1] = strdup(path);
		memcpy(argv + 2, command->argv + 1, argc * sizeof *argv);
		if (argv[1] != NULL)
			execve(shell, argv, command->env);
	} else if (saved == ENOENT && access(path, F_OK) == 0) {
		*stage = STAGE_INTERPRETER;
	}
	errno = saved;
}

/* DIRECTORY/NAME, or NAME for the empty entry of a PATH, which is the current directory. */
static bool
join(char *file, size_t size, const char *directory, size_t directory_size, const char *name)
{
	size_t name_size = strlen(name) + 1, used = directory_size;

	if (directory_size >= size || name_size > size || used + name_size + 1 > size)
		return false;
	memcpy(file, directory, directory_size);
	if (directory_size > 0)
		file[used++] = '/';
	memcpy(file + used, name, name_size);
	return true;
}

/* Searches PATH as a shell does, in the command's environment rather than in init's. */
static void
exec_command(const struct command *command, int32_t *stage)
{
	const char *name = command->argv[0], *path = "/usr/local/bin:/usr/bin:/bin";
	char file[4096];
	bool denied = false;

	*stage = STAGE_EXEC;
	errno = ENOENT;
	if (name[0] == '\0')
		return;
	if (strchr(name, '/') != NULL) {
		exec_file(name, command, stage);
		return;
	}
	for (char **env = command->env; *env != NULL; env++)
		if (strncmp(*env, "PATH=", 5) == 0)
			path = *env + 5;
	for (const char *end;; path = end + 1) {
		end = strchrnul(path, ':');
		if (join(file, sizeof file, path, (size_t) (end - path), name)) {
			exec_file(file, command, stage);
			/* A directory that must not be searched has nothing to offer. */
			if (errno == EACCES)
				denied = denied || access(file, F_OK) == 0;
			else if (*stage == STAGE_INTERPRETER ||
				 (errno != ENOENT && errno != ENOTDIR))
				return;
		}
		if (*end == '\0')
			break;
	}
	errno = denied ? EACCES : ENOENT;
}

/* Signals as a login finds them: the caller's ignored and blocked ones are its own affair. */
static void
default_signals(void)
{
	/* SIG_DFL, no flags, empty mask, as the kernel has it: the C library keeps signals 32 and
	 * 33 to itself, and a caller may have had them ignored. */
	static const unsigned char standard[64];
	sigset_t none;

	for (int number = 1; number <= 64; number++)
		(void) syscall(SYS_rt_sigaction, number, standard, NULL, (size_t) 8);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
}

/* The child's way to the command; returns on failure only. */
static void
become_command(const struct command *command, struct failure *failure)
{
	failure->stage = STAGE_SETUP;
	if (setsid() < 0)
		goto failed;
	if (command->terminal >= 0 && ioctl(command->terminal, TIOCSCTTY, 0) < 0) {
		failure->stage = STAGE_TERMINAL;
		goto failed;
	}
	for (int i = 0; i < 3; i++) {
		bool on_terminal =
			command->terminal >= 0 && (i > 0 || command->header.stdin_open != 0);

		if (dup2(on_terminal ? command->terminal : INIT_STDIN + i, i) < 0)
			goto failed;
	}
	if (chdir(command->workdir) < 0) {
		failure->stage = STAGE_WORKDIR;
		goto failed;
	}
	default_signals();
	exec_command(command, &failure->stage);
failed:
	failure->error = errno;
}

/* Starts the command.  Returns false when it could not be, and has been reported. */
static bool
start(struct command *command)
{
	struct failure failure = {.stage = STAGE_SETUP};
	int report[2];
	ssize_t n;

	if (pipe2(report, O_CLOEXEC) < 0 || (command->pid = fork()) < 0) {
		(void) send_message(MESSAGE_FAILED, errno, STAGE_SETUP, -1);
		return false;
	}
	if (command->pid == 0) {
		become_command(command, &failure);
		_exit(write(report[1], &failure, sizeof failure) < 0 ? STATUS_FAILED : 1);
	}
	close(report[1]);
	do
		n = read(report[0], &failure, sizeof failure);
	while (n < 0 && errno == EINTR);
	close(report[0]);
	/* Only the command has them now, so that their other ends see when it is done with them. */
	if (command->terminal >= 0)
		close(command->terminal);
	for (int fd = INIT_STDIN; fd <= INIT_STDERR; fd++)
		close(fd);
	if (n != 0) {
		(void) send_message(MESSAGE_FAILED, failure.error, (uint32_t) failure.stage, -1);
		return false;
	}
	return send_message(MESSAGE_STARTED, command->pid, 0, -1) == 0;
}

/* One message from the plugin.  Returns false when init is to end. */
static bool
obey(struct command *command)
{
	struct message message;
	ssize_t n = recv(INIT_CONTROL, &message, sizeof message, MSG_DONTWAIT);

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	if (n != (ssize_t) sizeof message)
		return false; /* 0: moat is gone */
	if (message.type == MESSAGE_START && command->pid == 0)
		return start(command);
	/* The command leads its group as long as it is not reaped, and init ends when it reaps it:
	 * the number cannot be another's.  It may have no process left that takes signals. */
	if (message.type == MESSAGE_SIGNAL && command->pid != 0)
		(void) kill(-command->pid, message.value);
	return true;
}

/* Reaps what has ended; true when the command is among it, and has been reported. */
static bool
reap(const struct command *command, int *ret_status)
{
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != command->pid)
			continue;
		(void) send_message(MESSAGE_EXITED, status, 0, -1);
		*ret_status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
		return true;
	}
	return false;
}

static int
serve(struct command *command, int children)
{
	struct pollfd fds[2] = {{.fd = INIT_CONTROL, .events = POLLIN},
				{.fd = children, .events = POLLIN}};
	struct signalfd_siginfo info;
	int status = STATUS_FAILED;

	for (;;) {
		if (poll(fds, 2, -1) < 0) {
			if (errno == EINTR)
				continue;
			return STATUS_FAILED;
		}
		if (fds[1].revents != 0) {
			/* One that is pending may stand for several children. */
			if (read(children, &info, sizeof info) < 0 && errno != EAGAIN)
				return STATUS_FAILED;
			if (reap(command, &status))
				return status;
		}
		if (fds[0].revents != 0 && !obey(command))
			return STATUS_FAILED;
	}
}

static int
run(void)
{
	struct command command = {.terminal = -1};
	struct sigaction standard = {.sa_handler = SIG_DFL};
	sigset_t child;
	int children, master = -1;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
		return STATUS_FAILED;
	(void) prctl(PR_SET_NAME, "moat-init");
	for (int fd = INIT_CONTROL; fd < INIT_FDS; fd++)
		if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
			return STATUS_FAILED;
	/* The caller's session keyring may hold tickets and keys.  Where the call is forbidden, the
	 * others that need it are, too. */
	(void) syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	children = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (children < 0 || sigprocmask(SIG_BLOCK, &child, NULL) < 0 ||
	    sigaction(SIGCHLD, &standard, NULL) < 0)
		return STATUS_FAILED;
	if (!load_command(&command)) {
		(void) send_message(MESSAGE_FAILED, errno, STAGE_SETUP, -1);
		return STATUS_FAILED;
	}
	if (command.header.terminal != 0 && (master = open_terminal(&command)) < 0) {
		(void) send_message(MESSAGE_FAILED, errno, STAGE_TERMINAL, -1);
		return STATUS_FAILED;
	}
	if (send_message(MESSAGE_READY, 0, 0, master) < 0)
		return STATUS_FAILED;
	if (master >= 0)
		close(master);
	return serve(&command, children);
}

int
main(int argc, char **argv)
{
	/* What the plugin's probe runs: that it got here is the answer. */
	if (argc == 2 && strcmp(argv[1], "--probe") == 0)
		_exit(0);
	_exit(run());
}
