/* SPDX-License-Identifier: Apache-2.0 */
/* runtime-bwrap and sandbox-none through their tables, against the real bubblewrap.
 *
 * Belongs to the system tests: without bubblewrap or namespaces it is skipped (77), or, with
 * MOAT_MUST_WORK=1, fails.  Run it as root and as an ordinary user: they get different sandboxes.
 */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/fs.h"

/* Both plugins export the same name. */
const struct moat_plugin *none_plugin_init(const struct moat_host *host);
#define moat_plugin_init none_plugin_init
#include "plugins/sandbox-none/none.c"
#undef moat_plugin_init

#define LIMIT_MS 20000

struct fixture {
	struct arena arena;
	void *self;
	char *root;      /* a directory that is visible in the sandbox, read-only */
	char *workspace; /* ROOT/ws */
	char *tmp;       /* a directory in /tmp */
	struct moat_run_spec spec;
	struct moat_mount workspace_mount;
	const struct moat_mount *mounts[8];
	const char *hide[8];
	const char *argv[8];
	const char *env[8];
	struct buf out, err;
	struct moat_error error;
};

static const char *configured_bwrap;
static const struct moat_runtime_ops *runtime;

static int
config_string(const struct moat_config *config, const char *key, const char **ret,
	      struct moat_error *err)
{
	if (configured_bwrap == NULL || strcmp(key, "bwrap") != 0)
		return 0;
	*ret = configured_bwrap;
	return 1;
}

static int
not_cancelled(void)
{
	return 0;
}

static void
no_log(const char *who, int level, const char *message)
{
}

static const struct moat_host host = {.struct_size = sizeof host,
				      .api_version = MOAT_API_VERSION,
				      .log = no_log,
				      .config_string = config_string,
				      .cancelled = not_cancelled};

/* A string that lives as long as the fixture. */
static char *text(struct fixture *f, const char *format, ...) MOAT_PRINTF(2, 3);
static char *
text(struct fixture *f, const char *format, ...)
{
	char buffer[8192], *result;
	va_list args;

	va_start(args, format);
	(void) vsnprintf(buffer, sizeof buffer, format, args);
	va_end(args);
	result = arena_string(&f->arena, buffer);
	assert_non_null(result);
	return result;
}

static void
write_file(const char *path, const char *content, mode_t mode)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, strlen(content)), (ssize_t) strlen(content));
	assert_int_equal(fchmod(fd, mode), 0);
}

static void
make_directory(const char *path)
{
	assert_int_equal(mkdir(path, 0755), 0);
}

/* The script as the command, with the streams of pipes, in the fixture's workspace. */
static void
use_script(struct fixture *f, const char *script)
{
	f->argv[0] = "/bin/sh";
	f->argv[1] = "-c";
	f->argv[2] = script;
	f->argv[3] = NULL;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	const char *home = getenv("HOME");
	char *base, *root;

	*state = f;
	assert_non_null(f);
	f->error = (struct moat_error) MOAT_ERROR_INIT;
	/* Not below /tmp: it is private, and what is to be hidden must be visible otherwise. */
	base = text(f, "%s/moat-bwrap-XXXXXX", home != NULL ? home : "/root");
	root = mkdtemp(base);
	if (root == NULL)
		fail_msg("%s: %s", base, strerror(errno));
	f->root = realpath(root, NULL);
	assert_non_null(f->root);
	f->workspace = text(f, "%s/ws", f->root);
	make_directory(f->workspace);
	f->tmp = mkdtemp(text(f, "/tmp/moat-bwrap-XXXXXX"));
	assert_non_null(f->tmp);
	f->workspace_mount = (struct moat_mount){.struct_size = sizeof f->workspace_mount,
						 .source = f->workspace,
						 .target = f->workspace};
	f->mounts[0] = &f->workspace_mount;
	f->env[0] = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
	f->spec = (struct moat_run_spec){.struct_size = sizeof f->spec,
					 .id = "run_0123456789ab",
					 .name = "moat-test",
					 .argv = f->argv,
					 .env = f->env,
					 .workdir = f->workspace,
					 .mounts = f->mounts,
					 .hide = f->hide,
					 .uid = getuid(),
					 .gid = getgid(),
					 .state_dirfd = -1};
	assert_ok(runtime->open(&host, NULL, &f->self, &f->error), &f->error);
	return 0;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	configured_bwrap = NULL;
	runtime->close(f->self);
	assert_int_equal(fs_remove_tree(AT_FDCWD, f->root, NULL), 0);
	assert_int_equal(fs_remove_tree(AT_FDCWD, f->tmp, NULL), 0);
	buf_free(&f->out);
	buf_free(&f->err);
	free(f->root);
	arena_free(&f->arena);
	free(f);
	return 0;
}

static void
create(struct fixture *f, struct moat_io *io)
{
	struct moat_handle handle = {.struct_size = sizeof handle};

	*io = (struct moat_io){.struct_size = sizeof *io, .in = -1, .out = -1, .err = -1};
	assert_ok(runtime->create(f->self, &f->spec, &handle, &f->error), &f->error);
	assert_string_equal(handle.text, f->spec.id);
	assert_ok(runtime->io(f->self, f->spec.id, io, &f->error), &f->error);
}

static struct moat_run_status
wait_end(struct fixture *f)
{
	struct moat_run_status status = {.struct_size = sizeof status};

	assert_ok(runtime->wait(f->self, f->spec.id, LIMIT_MS, &status, &f->error), &f->error);
	assert_int_equal(status.state, MOAT_RUN_EXITED);
	assert_int_equal(status.struct_size, sizeof status);
	return status;
}

static int64_t
root_pid(struct fixture *f)
{
	struct moat_processes processes = {.struct_size = sizeof processes};

	assert_ok(runtime->processes(f->self, f->spec.id, &processes, &f->error), &f->error);
	assert_true(processes.root_pid > 1);
	return processes.root_pid;
}

/* Reads what there is; false at the end (EIO: of a terminal). */
static bool
drain(int fd, struct buf *to)
{
	char bytes[4096];
	ssize_t n = read(fd, bytes, sizeof bytes);

	if (n > 0)
		buf_append(to, bytes, (size_t) n);
	return n > 0;
}

/* Reads both streams (err may be -1) to their end, or until `until` was seen. */
static void
collect(struct fixture *f, int out, int err, const char *until)
{
	struct pollfd fds[2] = {{.fd = out, .events = POLLIN}, {.fd = err, .events = POLLIN}};

	while (fds[0].fd >= 0 || fds[1].fd >= 0) {
		if (poll(fds, 2, LIMIT_MS) <= 0)
			fail_msg("no output within the limit; so far: %s", f->out.data);
		if (fds[0].revents != 0 && !drain(out, &f->out))
			fds[0].fd = -1;
		if (fds[1].revents != 0 && !drain(err, &f->err))
			fds[1].fd = -1;
		if (until != NULL && f->out.data != NULL && strstr(f->out.data, until) != NULL)
			return;
	}
	if (until != NULL)
		fail_msg("ended without `%s': %s", until, f->out.data);
	buf_append(&f->out, "", 1); /* so that data is never NULL */
	f->out.size--;
	buf_append(&f->err, "", 1);
	f->err.size--;
}

/* The whole life of a run. */
static struct moat_run_status
run(struct fixture *f)
{
	struct moat_run_status status;
	struct moat_io io;

	buf_free(&f->out);
	buf_free(&f->err);
	create(f, &io);
	assert_int_equal(io.in, -1);
	assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
	collect(f, io.out, io.err, NULL);
	close(io.out);
	close(io.err);
	status = wait_end(f);
	assert_ok(runtime->remove(f->self, f->spec.id, &f->error), &f->error);
	return status;
}

/* The script succeeds and says exactly that. */
static void
expect(struct fixture *f, const char *script, const char *output)
{
	struct moat_run_status status;

	use_script(f, script);
	status = run(f);
	if (status.exit_code != 0)
		fail_msg("%s: status %d: %s%s", script, status.exit_code, f->out.data, f->err.data);
	assert_string_equal(f->out.data, output);
}

static void
test_status(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *script;
		int exit_code, signal;
	} cases[] = {{"exit 0", 0, 0},           {"exit 7", 7, 0},
		     {"exit 255", 255, 0},       {"exit 143", 143, 0},
		     {"kill -TERM $$", 143, 15}, {"kill -KILL $$", 137, 9},
		     {"kill -SEGV $$", 139, 11}};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct moat_run_status status;

		use_script(f, cases[i].script);
		status = run(f);
		assert_int_equal(status.exit_code, cases[i].exit_code);
		assert_int_equal(status.signal, cases[i].signal);
		assert_true(status.started_ns > 0 && status.finished_ns >= status.started_ns);
	}
}

/* Creates and starts argv[0] = name; the start must fail so. */
static void
expect_no_start(struct fixture *f, const char *name, int code, const char *message)
{
	struct moat_io io;
	struct moat_run_status status;

	f->argv[0] = name;
	f->argv[1] = NULL;
	create(f, &io);
	close(io.out);
	close(io.err);
	assert_fails(runtime->start(f->self, f->spec.id, &f->error), &f->error, code, message);
	status = wait_end(f);
	assert_int_equal(status.exit_code, -1);
	assert_ok(runtime->remove(f->self, f->spec.id, &f->error), &f->error);
}

static void
test_cannot_start(void **state)
{
	struct fixture *f = *state;
	char *shared = text(f, "PATH=%s/bin:/usr/bin:/bin", f->workspace);

	make_directory(text(f, "%s/dir", f->workspace));
	make_directory(text(f, "%s/bin", f->workspace));
	write_file(text(f, "%s/plain", f->workspace), "#!/bin/sh\n", 0644);
	write_file(text(f, "%s/bare", f->workspace), "echo bare $1\n", 0755);
	write_file(text(f, "%s/bin/lost", f->workspace), "#!/nonexistent/interpreter\n", 0755);
	write_file(text(f, "%s/bin/closed", f->workspace), "#!/bin/sh\n", 0644);
	f->env[0] = shared;
	expect_no_start(f, "no-such-command", MOAT_NO_COMMAND, "not found");
	expect_no_start(f, "/no/such/command", MOAT_NO_COMMAND, "not found");
	expect_no_start(f, "./no-such-command", MOAT_NO_COMMAND, "not found");
	expect_no_start(f, "", MOAT_NO_COMMAND, "not found");
	expect_no_start(f, "/etc/passwd/x", MOAT_NO_COMMAND, "Not a directory");
	expect_no_start(f, "bin/lost", MOAT_NO_COMMAND, "interpreter");
	expect_no_start(f, "lost", MOAT_NO_COMMAND, "interpreter");
	expect_no_start(f, "./dir", MOAT_CANNOT_EXEC, "Permission denied");
	expect_no_start(f, "./plain", MOAT_CANNOT_EXEC, "Permission denied");
	expect_no_start(f, "closed", MOAT_CANNOT_EXEC, "Permission denied");
	f->spec.workdir = text(f, "%s/absent", f->workspace);
	expect_no_start(f, "/bin/true", MOAT_NOT_FOUND, "working directory");
	f->spec.workdir = f->workspace;
	f->argv[0] = "./bare";
	f->argv[1] = "foot";
	f->argv[2] = NULL;
	assert_int_equal(run(f).exit_code, 0);
	assert_string_equal(f->out.data, "bare foot\n");
}

static void
test_argv_and_environment(void **state)
{
	struct fixture *f = *state;
	static const char want[] = "4\0a b\nc\0\0\xff\xfe'\"$x\0--\0";

	use_script(f, "printf '%s\\0' $# \"$@\"");
	f->argv[3] = "sh";
	f->argv[4] = "a b\nc";
	f->argv[5] = "";
	f->argv[6] = "\xff\xfe'\"$x";
	f->spec.argv =
		(const char *const[]){f->argv[0], f->argv[1], f->argv[2], f->argv[3], f->argv[4],
				      f->argv[5], f->argv[6], "--",       NULL};
	assert_int_equal(run(f).exit_code, 0);
	assert_int_equal(f->out.size, sizeof want - 1);
	assert_memory_equal(f->out.data, want, sizeof want - 1);
	f->spec.argv = f->argv;

	/* Exactly that environment; nothing of bwrap's, of init's, or of this process's. */
	f->env[0] = "ODD=\x01\xff\n=";
	f->env[1] = "EMPTY=";
	f->env[2] = "LD_PRELOAD_NOT=x";
	f->argv[0] = "/usr/bin/env";
	f->argv[1] = "-0";
	f->argv[2] = NULL;
	assert_int_equal(run(f).exit_code, 0);
	assert_int_equal(f->out.size, 9 + 7 + 17);
	assert_memory_equal(f->out.data, "ODD=\x01\xff\n=\0EMPTY=\0LD_PRELOAD_NOT=x", 9 + 7 + 17);
	f->env[0] = NULL;
	assert_int_equal(run(f).exit_code, 0);
	assert_int_equal(f->out.size, 0);
}

/* A variable that a project sets must not act on bwrap, which runs outside the sandbox. */
static void
test_preload_stays_inside(void **state)
{
	struct fixture *f = *state;

	f->env[1] = text(f, "LD_PRELOAD=%s/no-such-library.so", f->workspace);
	use_script(f, "true");
	assert_int_equal(run(f).exit_code, 0);
	/* Only the command's own loader complains, on the command's own stderr. */
	assert_non_null(strstr(f->err.data, "no-such-library"));
}

static void
test_too_large(void **state)
{
	struct fixture *f = *state;
	size_t size = 1024 * 1024;
	char *large = arena_alloc(&f->arena, size + 1);

	assert_non_null(large);
	memset(large, 'x', size);
	memcpy(large, "BIG=", 4);
	f->env[1] = large;
	expect_no_start(f, "/bin/true", MOAT_CANNOT_EXEC, "too large");
}

static void
test_host_is_read_only(void **state)
{
	struct fixture *f = *state;
	struct moat_mount readable = {.struct_size = sizeof readable, .read_only = 1};

	readable.source = readable.target = text(f, "%s/readable", f->root);
	make_directory(readable.source);
	f->mounts[1] = &readable;
	expect(f, "echo in > file && cat file", "in\n");
	expect(f,
	       text(f,
		    "for d in '%s' '%s' /etc /usr /var /sys; do true 2>/dev/null > $d/moat-x && "
		    "echo "
		    "$d; "
		    "done; true",
		    f->root, readable.source),
	       "");
	assert_int_equal(access(text(f, "%s/file", f->workspace), F_OK), 0);
	assert_int_equal(access(text(f, "%s/moat-x", f->root), F_OK), -1);
	/* Opened for appending, and nothing written: a failure here must not hurt the host. */
	expect(f,
	       "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger "
	       "/proc/sys/vm/drop_caches "
	       "/sys/kernel/uevent_helper /sys/power/state /proc/fs/* /proc/irq/*/*; do "
	       "[ -f $f ] && true 2>/dev/null >> $f && echo $f; done; true",
	       "");
}

static void
test_private_directories(void **state)
{
	struct fixture *f = *state;

	write_file(text(f, "%s/canary", f->tmp), "x", 0644);
	expect(f,
	       text(f,
		    "ls -A /tmp /var/tmp; stat -c %%a /tmp /var/tmp /dev/shm; echo x > /tmp/x && "
		    "echo x > /dev/shm/moat-x && cat '%s/canary' 2>/dev/null; cat /tmp/x",
		    f->tmp),
	       "/tmp:\n\n/var/tmp:\n1777\n1777\n1777\nx\n");
	expect(f,
	       "ls -A /run | grep -v -e moat-init -e systemd -e resolvconf; ls -A /dev | tr '\\n' "
	       "' '",
	       "core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero ");
	assert_int_equal(access("/dev/shm/moat-x", F_OK), -1);
	/* A workspace below a private directory shows in it, and nothing else does. */
	make_directory(text(f, "%s/ws", f->tmp));
	f->workspace_mount.source = f->workspace_mount.target = f->spec.workdir =
		text(f, "%s/ws", f->tmp);
	expect(f, "echo x > made; ls -A ..", "ws\n");
	assert_int_equal(access(text(f, "%s/ws/made", f->tmp), F_OK), 0);
}

static void
test_hidden(void **state)
{
	struct fixture *f = *state;
	struct moat_mount alias = {.struct_size = sizeof alias};
	struct moat_mount shown = {.struct_size = sizeof shown};

	make_directory(text(f, "%s/keys", f->root));
	make_directory(text(f, "%s/keys/shown", f->root));
	make_directory(text(f, "%s/real", f->root));
	make_directory(text(f, "%s/ws/secrets", f->root));
	write_file(text(f, "%s/keys/id", f->root), "key", 0600);
	write_file(text(f, "%s/keys/shown/file", f->root), "shown", 0600);
	write_file(text(f, "%s/real/token", f->root), "token", 0600);
	write_file(text(f, "%s/ws/secrets/id", f->root), "key", 0600);
	write_file(text(f, "%s/ws/.env", f->root), "env", 0600);
	write_file(text(f, "%s/netrc", f->root), "password", 0600);
	assert_int_equal(symlink("real/token", text(f, "%s/link", f->root)), 0);
	f->hide[0] = text(f, "%s/keys", f->root);
	f->hide[1] = text(f, "%s/netrc", f->root);
	f->hide[2] = text(f, "%s/link", f->root);
	f->hide[3] = text(f, "%s/ws/secrets", f->root);
	f->hide[4] = text(f, "%s/ws/.env", f->root);
	f->hide[5] = text(f, "%s/absent", f->root);
	expect(f,
	       text(f, "cd '%s'; ls -A keys ws/secrets; cat netrc link real/token ws/.env",
		    f->root),
	       "keys:\n\nws/secrets:\n");
	/* A mount below what is hidden shows; what is hidden stays so at another place, too. */
	shown.source = shown.target = text(f, "%s/keys/shown", f->root);
	alias.source = f->root;
	alias.target = "/tmp/alias";
	alias.read_only = 1;
	f->mounts[1] = &alias;
	f->mounts[2] = &shown;
	expect(f, text(f, "cd '%s'; ls -A keys; cat keys/shown/file", f->root), "shown\nshown");
	expect(f, "cd /tmp/alias && ls -A keys ws/secrets; cat netrc link real/token ws/.env",
	       "keys:\n\nws/secrets:\n");
	/* On the very path of a mount, the mount wins. */
	shown.source = shown.target = f->hide[0];
	f->mounts[1] = &shown;
	f->mounts[2] = NULL;
	expect(f, text(f, "cat '%s/keys/id'", f->root), "key");
	/* The control: without hide all is there. */
	f->mounts[1] = NULL;
	f->spec.hide = NULL;
	expect(f, text(f, "cd '%s'; cat keys/id netrc link ws/.env", f->root),
	       "keypasswordtokenenv");
}

/* User namespaces inside are allowed, and take no layer away. */
static void
test_nested_namespace_uncovers_nothing(void **state)
{
	struct fixture *f = *state;

	make_directory(text(f, "%s/keys", f->root));
	write_file(text(f, "%s/keys/id", f->root), "key", 0600);
	f->hide[0] = text(f, "%s/keys", f->root);
	/* Root has no CAP_SETFCAP, without which nobody can map user 0. */
	expect(f,
	       text(f,
		    "unshare %s sh -c 'echo nested; umount \"%s/keys\"; umount -l \"%s/keys\"; "
		    "mount -o "
		    "remount,rw,bind /; cat \"%s/keys/id\"; echo x > \"%s/x\"' 2>/dev/null; true",
		    geteuid() == 0 ? "-Um --keep-caps" : "-Urm", f->root, f->root, f->root,
		    f->root),
	       "nested\n");
	assert_int_equal(access(text(f, "%s/x", f->root), F_OK), -1);
}

static const char *
name_of(int error)
{
	switch (error) {
	case 0:
		return "done";
	case EPERM:
		return "EPERM";
	case ENOSYS:
		return "ENOSYS";
	case EBADF:
		return "EBADF";
	default:
		return strerror(error);
	}
}

/* Makes the system call in a process of its own, which it may change, and says how it went. */
static void
say(const char *name, long (*call)(long first, long second), long first, long second)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		long result = call(first, second);

		_exit(result < 0 ? (int) -result : 0);
	}
	if (waitpid(pid, &status, 0) != pid)
		_exit(30);
	if (WIFSIGNALED(status))
		printf("%s: signal %d\n", name, WTERMSIG(status));
	else
		printf("%s: %s\n", name, name_of(WEXITSTATUS(status)));
	(void) fflush(stdout);
}

static long
call_unshare(long flags, long unused)
{
	return syscall(SYS_unshare, flags) < 0 ? -errno : 0;
}

static long
call_clone(long flags, long unused)
{
	long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	return pid < 0 ? -errno : 0;
}

static long
call_clone3(long unused, long size)
{
	return syscall(SYS_clone3, NULL, size) < 0 ? -errno : 0;
}

static long
call_setns(long fd, long type)
{
	return syscall(SYS_setns, fd, type) < 0 ? -errno : 0;
}

static long
call_spawn(long unused, long unused_too)
{
	char name[] = "true", *argv[] = {name, NULL};
	pid_t pid;
	int status;

	if (posix_spawnp(&pid, name, NULL, NULL, argv, argv + 1) != 0)
		return -1;
	return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -2;
}

#ifdef __x86_64__
/* The call as a 32-bit program makes it. */
static long
call_unshare_i386(long flags, long unused)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(310L), "b"(flags) : "memory");
	return (int) result;
}

static long
call_unshare_x32(long flags, long unused)
{
	return syscall(0x40000000 | SYS_unshare, flags) < 0 ? -errno : 0;
}
#endif

/* What this program does inside. */
static int
inside(void)
{
	/* Together with a user namespace, which gives the right to all others. */
	const long user = CLONE_NEWUSER, both = CLONE_NEWUSER | CLONE_NEWCGROUP;

	say("unshare cgroup", call_unshare, CLONE_NEWCGROUP, 0);
	say("unshare user cgroup", call_unshare, both, 0);
	say("unshare high bits", call_unshare, (long) (1ul << 40 | (unsigned long) both), 0);
	say("clone user cgroup", call_clone, both, 0);
	say("clone3", call_clone3, 0, 0);
	say("setns cgroup", call_setns, -1, CLONE_NEWCGROUP);
	say("setns net", call_setns, -1, CLONE_NEWNET);
	say("unshare others", call_unshare,
	    user | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS, 0);
	say("clone user", call_clone, user, 0);
	say("spawn", call_spawn, 0, 0);
	return 0;
}

/* The other ABIs of this machine.  The kernel may lack them; with the filter no answer but this. */
static int
inside_compat(void)
{
#ifdef __x86_64__
	say("x32", call_unshare_x32, CLONE_NEWUSER | CLONE_NEWCGROUP, 0);
	say("i386", call_unshare_i386, CLONE_NEWUSER | CLONE_NEWCGROUP, 0);
	say("i386 user", call_unshare_i386, CLONE_NEWUSER, 0);
#endif
	return 0;
}

/* Without it, a writable cgroup file system is two commands away, and with it cgroup.kill. */
static void
test_no_cgroup_namespace(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf copy = {0};
	AUTO_CLOSE int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	AUTO_CLOSE int to =
		open(text(f, "%s/self", f->workspace), O_WRONLY | O_CREAT | O_CLOEXEC, 0700);

	while (drain(fd, &copy))
		;
	assert_ok(fs_write_all(to, copy.data, copy.size, "copy", &f->error), &f->error);
	close(steal_fd(&to));
	expect(f, "./self --inside",
	       "unshare cgroup: EPERM\nunshare user cgroup: EPERM\nunshare high bits: EPERM\n"
	       "clone user cgroup: EPERM\nclone3: ENOSYS\nsetns cgroup: EPERM\n"
	       "setns net: EBADF\nunshare others: done\nclone user: done\nspawn: done\n");
#ifdef __x86_64__
	use_script(f, "./self --inside-compat");
	assert_int_equal(run(f).exit_code, 0);
	assert_int_equal(strncmp(f->out.data, "x32: EPERM\n", 11), 0);
	/* SIGSEGV: a kernel without 32-bit programs. */
	if (strcmp(f->out.data + 11, "i386: signal 11\ni386 user: signal 11\n") != 0)
		assert_string_equal(f->out.data + 11, "i386: EPERM\ni386 user: done\n");
#endif
	expect(f,
	       geteuid() == 0 ? "unshare -Um true && echo made"
			      : "unshare -Urm true && bwrap --ro-bind / / --unshare-user "
				"--unshare-pid --proc /proc true && echo made",
	       "made\n");
	expect(f, "head -c 3000000 /dev/zero | xz -0 -T2 --block-size=500000 | xz -dc | wc -c",
	       "3000000\n");
}

static void
namespace_of(struct fixture *f, const char *name, bool same)
{
	char link[64];
	ssize_t n = readlink(text(f, "/proc/self/ns/%s", name), link, sizeof link - 1);

	assert_true(n > 0);
	link[n] = '\0';
	use_script(f, text(f, "readlink /proc/self/ns/%s", name));
	assert_int_equal(run(f).exit_code, 0);
	assert_int_equal(strncmp(f->out.data, link, (size_t) n) == 0, same);
}

static void
test_namespaces(void **state)
{
	struct fixture *f = *state;

	namespace_of(f, "pid", false);
	namespace_of(f, "ipc", false);
	namespace_of(f, "uts", false);
	namespace_of(f, "mnt", false);
	namespace_of(f, "net", true);
	expect(f, "uname -n; cat /proc/1/comm; set -- /proc/[0-9]*; [ $# -lt 5 ] && echo few",
	       "moat-test\nmoat-init\nfew\n");
	f->spec.name = "a name of no host";
	f->spec.network = MOAT_NETWORK_NONE;
	expect(f, "uname -n; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '", "moat\nlo\n");
}

static void
test_privileges(void **state)
{
	struct fixture *f = *state;
	/* chown, dac_override, fowner, fsetid, kill, setgid, setuid */
	const char *capabilities = geteuid() == 0 ? "00000000000000fb" : "0000000000000000";

	expect(f, "grep -E 'CapPrm|CapEff|CapInh|NoNewPrivs' /proc/self/status | cut -f2; id -u",
	       text(f, "%s\n%s\n%s\n1\n%u\n", capabilities, capabilities, capabilities,
		    (unsigned) getuid()));
	/* init can be neither traced nor looked into. */
	expect(f,
	       "readlink /proc/1/fd/3 /proc/1/exe; cat /proc/1/environ 2>/dev/null; "
	       "true",
	       "");
	expect(f, "kill -KILL 1; kill -TERM 1; echo alive", "alive\n");
}

/* Nothing is inherited but the streams, neither descriptors nor ignored or blocked signals. */
static void
test_inherits_nothing(void **state)
{
	struct fixture *f = *state;
	int leaked =
		fcntl(1, F_DUPFD, 100); /* as a careless library leaves one, without O_CLOEXEC */
	sigset_t set, saved;

	sigfillset(&set);
	assert_int_equal(sigprocmask(SIG_BLOCK, &set, &saved), 0);
	(void) signal(SIGINT, SIG_IGN);
	(void) signal(SIGPIPE, SIG_IGN);
	/* 3 is the directory that ls reads. */
	expect(f,
	       "ls /proc/self/fd | tr '\\n' ' '; grep -E 'Sig(Blk|Ign)' /proc/self/status | cut "
	       "-f2",
	       "0 1 2 3 0000000000000000\n0000000000000000\n");
	(void) signal(SIGINT, SIG_DFL);
	(void) signal(SIGPIPE, SIG_DFL);
	assert_int_equal(sigprocmask(SIG_SETMASK, &saved, NULL), 0);
	close(leaked);
}

static void
test_stdin(void **state)
{
	struct fixture *f = *state;
	struct moat_io io;

	expect(f, "cat; echo end", "end\n");
	f->spec.stdin_open = 1;
	use_script(f, "cat; echo err >&2; echo end");
	create(f, &io);
	assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
	assert_int_equal(write(io.in, "hello\n", 6), 6);
	close(io.in);
	buf_free(&f->out);
	buf_free(&f->err);
	collect(f, io.out, io.err, NULL);
	close(io.out);
	close(io.err);
	assert_string_equal(f->out.data, "hello\nend\n");
	assert_string_equal(f->err.data, "err\n");
	assert_int_equal(wait_end(f).exit_code, 0);
}

static void
test_nothing_runs_before_start(void **state)
{
	struct fixture *f = *state;
	struct moat_run_status status = {.struct_size = sizeof status};
	struct moat_io io;

	use_script(f, "echo ran > ran");
	create(f, &io);
	assert_true(root_pid(f) > 1);
	assert_ok(runtime->wait(f->self, f->spec.id, 50, &status, &f->error), &f->error);
	assert_int_equal(status.state, MOAT_RUN_CREATED);
	assert_int_equal(access(text(f, "%s/ran", f->workspace), F_OK), -1);
	assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
	assert_int_equal(wait_end(f).exit_code, 0);
	assert_int_equal(access(text(f, "%s/ran", f->workspace), F_OK), 0);
	assert_fails(runtime->start(f->self, f->spec.id, &f->error), &f->error, MOAT_USAGE,
		     "already");
	close(io.out);
	close(io.err);
}

/* Starts with a terminal; returns its descriptor. */
static int
start_terminal(struct fixture *f, const char *script)
{
	struct moat_io io;

	f->spec.terminal = f->spec.stdin_open = 1;
	f->spec.rows = 33;
	f->spec.columns = 101;
	use_script(f, script);
	create(f, &io);
	assert_true(io.in >= 0 && io.in == io.out && io.err == -1 && io.shared);
	assert_int_equal(fcntl(io.in, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
	return io.in;
}

static void
test_terminal(void **state)
{
	struct fixture *f = *state;
	struct winsize size = {.ws_row = 50, .ws_col = 20};
	int fd = start_terminal(
		f, "tty; stty size; true > /dev/tty && echo mine; read x; stty size; exit 3");

	collect(f, fd, -1, "mine\r\n");
	assert_string_equal(f->out.data, "/dev/pts/0\r\n33 101\r\nmine\r\n");
	assert_int_equal(ioctl(fd, TIOCSWINSZ, &size), 0);
	assert_int_equal(write(fd, "go\n", 3), 3);
	collect(f, fd, -1, NULL);
	assert_non_null(strstr(f->out.data, "50 20\r\n"));
	assert_int_equal(wait_end(f).exit_code, 3);
	close(fd);
}

/* Ctrl-C is the command's to handle, and reaches nothing else of the sandbox. */
static void
test_interrupt(void **state)
{
	struct fixture *f = *state;
	int fd = start_terminal(
		f, "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 1; done");

	collect(f, fd, -1, "ready\r\n");
	assert_int_equal(write(fd, "\003", 1), 1);
	collect(f, fd, -1, "caught\r\n");
	assert_int_equal(wait_end(f).exit_code, 4);
	close(fd);
	assert_ok(runtime->remove(f->self, f->spec.id, &f->error), &f->error);
	buf_free(&f->out);
	fd = start_terminal(f, "echo ready; exec sleep 1000");
	collect(f, fd, -1, "ready\r\n");
	assert_int_equal(write(fd, "\003", 1), 1);
	assert_int_equal(wait_end(f).signal, SIGINT);
	close(fd);
}

/* The child of test_no_way_to_the_callers_terminal. */
static int
run_below_terminal(struct fixture *f, const char *name)
{
	int fd;

	if (setsid() < 0 || (fd = open(name, O_RDWR | O_CLOEXEC)) < 0 ||
	    ioctl(fd, TIOCSCTTY, 0) < 0)
		return 10;
	/* The control: this process itself does reach it. */
	if (ioctl(fd, TIOCSTI, "c") < 0 && errno != EIO)
		return 11;
	use_script(f, "if true 2>/dev/null > /dev/tty; then exit 1; else exit 0; fi");
	if (run(f).exit_code != 0)
		return 12;
	fd = start_terminal(f, "python3 -c 'import fcntl,termios; fcntl.ioctl(0, termios.TIOCSTI, "
			       "b\"q\")' 2>/dev/null; true");
	collect(f, fd, -1, NULL);
	close(fd);
	return wait_end(f).exit_code == 0 ? 0 : 13;
}

static void
test_no_way_to_the_callers_terminal(void **state)
{
	struct fixture *f = *state;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), status, typed = 0;
	char name[64];
	pid_t pid;

	assert_true(master >= 0);
	assert_int_equal(unlockpt(master), 0);
	assert_int_equal(ptsname_r(master, name, sizeof name), 0);
	pid = fork();
	if (pid == 0) {
		/* Its own handle: the parent's runs are not its children. */
		assert_ok(runtime->open(&host, NULL, &f->self, &f->error), &f->error);
		_exit(run_below_terminal(f, name));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	/* What was typed there is echoed on the master: the control's at most. */
	assert_int_equal(ioctl(master, FIONREAD, &typed), 0);
	assert_true(typed <= 1);
	close(master);
}

static void
test_kill(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *script;
		int signal, exit_code, ended_by;
	} cases[] = {
		{"echo ready; exec sleep 1000", SIGTERM, 143, SIGTERM},
		{"sleep 1000 & sleep 1000 & echo ready; wait", SIGTERM, 143, SIGTERM},
		{"trap 'exit 9' USR1; sh -c 'echo ready; exec sleep 1000'; exit 8", SIGUSR1, 9, 0},
		{"trap '' TERM; echo ready; sleep 1000; sleep 1000", SIGKILL, 137, SIGKILL},
		{"setsid sleep 1000 & echo ready; exec sleep 1000", SIGTERM, 143, SIGTERM},
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct moat_run_status status;
		struct moat_io io;

		use_script(f, cases[i].script);
		create(f, &io);
		assert_fails(runtime->kill(f->self, f->spec.id, SIGTERM, &f->error), &f->error,
			     MOAT_USAGE, "no command yet");
		assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
		buf_free(&f->out);
		collect(f, io.out, -1, "ready\n");
		if (cases[i].signal == SIGKILL) {
			status = (struct moat_run_status){.struct_size = sizeof status};
			assert_ok(runtime->kill(f->self, f->spec.id, SIGTERM, &f->error),
				  &f->error);
			assert_ok(runtime->wait(f->self, f->spec.id, 100, &status, &f->error),
				  &f->error);
			assert_int_equal(status.state, MOAT_RUN_RUNNING);
		}
		assert_ok(runtime->kill(f->self, f->spec.id, cases[i].signal, &f->error),
			  &f->error);
		/* Everything is gone, the background too: the pipe has no writer left. */
		collect(f, io.out, -1, NULL);
		close(io.out);
		close(io.err);
		status = wait_end(f);
		/* USR1: the shell runs its trap when the sleep, of the same group, has died of it.
		 */
		assert_int_equal(status.exit_code, cases[i].exit_code);
		assert_int_equal(status.signal, cases[i].ended_by);
		assert_fails(runtime->kill(f->self, f->spec.id, SIGTERM, &f->error), &f->error,
			     MOAT_GONE, "has ended");
		assert_ok(runtime->remove(f->self, f->spec.id, &f->error), &f->error);
	}
}

static void
await_death(pid_t pid)
{
	AUTO_CLOSE int fd = (int) syscall(SYS_pidfd_open, pid, 0);
	struct pollfd poller = {.fd = fd, .events = POLLIN};

	if (fd < 0)
		assert_int_equal(errno, ESRCH);
	else
		assert_int_equal(poll(&poller, 1, LIMIT_MS), 1);
}

/* kill -9 of the process that made it, and of bwrap itself: nothing is left. */
static void
test_dies_with_its_owner(void **state)
{
	struct fixture *f = *state;
	int ends[2];
	int64_t inside = 0;
	struct moat_io io;
	pid_t pid;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	use_script(f, "trap '' TERM HUP INT; sleep 1000 & sleep 1000");
	pid = fork();
	if (pid == 0) {
		assert_ok(runtime->open(&host, NULL, &f->self, &f->error), &f->error);
		create(f, &io);
		assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
		inside = root_pid(f);
		if (write(ends[1], &inside, sizeof inside) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ends[0], &inside, sizeof inside), (ssize_t) sizeof inside);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(kill((pid_t) inside, 0), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	await_death((pid_t) inside);
}

static pid_t
parent_of(struct fixture *f, pid_t pid)
{
	AUTO_FCLOSE FILE *stat = fopen(text(f, "/proc/%d/stat", (int) pid), "re");
	int parent = 0;

	assert_non_null(stat);
	assert_int_equal(fscanf(stat, "%*d (moat-init) %*c %d", &parent), 1);
	return parent;
}

static void
test_dies_with_bwrap(void **state)
{
	struct fixture *f = *state;
	struct moat_run_status status;
	struct moat_io io;
	pid_t inside;

	use_script(f, "sleep 1000 & sleep 1000");
	create(f, &io);
	close(io.out);
	close(io.err);
	assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
	inside = (pid_t) root_pid(f);
	assert_int_equal(kill(parent_of(f, inside), SIGKILL), 0);
	await_death(inside); /* without anybody's help */
	status = wait_end(f);
	assert_int_equal(status.signal, SIGKILL);
	assert_non_null(strstr(status.detail, "killed"));
}

static size_t
count_descriptors(void)
{
	AUTO_CLOSEDIR DIR *directory = opendir("/proc/self/fd");
	size_t count = 0;

	assert_non_null(directory);
	while (readdir(directory) != NULL)
		count++;
	return count;
}

static void
test_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	size_t before = count_descriptors();
	struct moat_io io;
	long runs = test_scaled(200);
	pid_t inside;

	for (long i = 0; i < runs; i++) {
		switch (i % 5) {
		case 0: /* ends by itself, with something left running */
			use_script(f, "sleep 1000 & exit 1");
			assert_int_equal(run(f).exit_code, 1);
			break;
		case 1: /* never started, streams never taken */
			use_script(f, "true");
			assert_ok(
				runtime->create(f->self, &f->spec,
						&(struct moat_handle){
							.struct_size = sizeof(struct moat_handle)},
						&f->error),
				&f->error);
			break;
		case 2: /* removed while it runs; nothing is left when that returns */
			use_script(f, "sleep 1000 & sleep 1000");
			create(f, &io);
			assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
			close(io.out);
			close(io.err);
			inside = (pid_t) root_pid(f);
			assert_ok(runtime->remove(f->self, f->spec.id, &f->error), &f->error);
			assert_int_equal(kill(inside, 0), -1);
			break;
		case 3: /* cannot be executed */
			expect_no_start(f, "/no/such/command", MOAT_NO_COMMAND, "not found");
			break;
		default: /* cannot be made */
			f->workspace_mount.target = "/nonexistent/moat/target";
			assert_fails(
				runtime->create(f->self, &f->spec,
						&(struct moat_handle){
							.struct_size = sizeof(struct moat_handle)},
						&f->error),
				&f->error, MOAT_UNSUPPORTED, "make the directory first");
			f->workspace_mount.target = f->workspace;
		}
		assert_ok(runtime->remove(f->self, f->spec.id, &f->error), &f->error);
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
		assert_int_equal(errno, ECHILD);
		assert_int_equal(count_descriptors(), before);
	}
}

/* The caller may have SIGCHLD as it likes. */
static void
test_ignored_sigchld(void **state)
{
	struct fixture *f = *state;
	struct moat_bid bid = {.struct_size = sizeof bid};
	struct moat_target target = {.struct_size = sizeof target, .workspace_fd = -1};
	struct moat_run_status status;

	(void) signal(SIGCHLD, SIG_IGN);
	use_script(f, "true; exit 6");
	status = run(f);
	assert_int_equal(status.exit_code, 6);
	use_script(f, "kill -9 $$");
	status = run(f);
	assert_int_equal(status.signal, 9);
	assert_ok(runtime->probe(&host, &target, &bid, &f->error), &f->error);
	(void) signal(SIGCHLD, SIG_DFL);
	assert_int_equal(bid.score, 70);
}

static void
test_two_at_once(void **state)
{
	struct fixture *f = *state;
	struct moat_io first, second;

	use_script(f, "exec sleep 1000");
	create(f, &first);
	assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
	assert_fails(
		runtime->create(f->self, &f->spec,
				&(struct moat_handle){.struct_size = sizeof(struct moat_handle)},
				&f->error),
		&f->error, MOAT_EXISTS, "exists already");
	f->spec.id = "run_second000000";
	use_script(f, "exit 5");
	create(f, &second);
	assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
	assert_int_equal(wait_end(f).exit_code, 5);
	close(second.out);
	close(second.err);
	f->spec.id = "run_0123456789ab";
	assert_ok(runtime->kill(f->self, f->spec.id, SIGTERM, &f->error), &f->error);
	assert_int_equal(wait_end(f).signal, SIGTERM);
	close(first.out);
	close(first.err);
}

static void
test_wait_fd(void **state)
{
	struct fixture *f = *state;
	struct pollfd poller = {.events = POLLIN};
	struct moat_run_status status = {.struct_size = sizeof status};
	struct moat_io io;

	f->spec.stdin_open = 1;
	use_script(f, "read x; exit 2");
	create(f, &io);
	assert_ok(runtime->start(f->self, f->spec.id, &f->error), &f->error);
	poller.fd = runtime->wait_fd(f->self, f->spec.id);
	assert_int_equal(poll(&poller, 1, 20), 0);
	assert_ok(runtime->state(f->self, f->spec.id, &status, &f->error), &f->error);
	assert_int_equal(status.state, MOAT_RUN_RUNNING);
	close(io.in);
	assert_int_equal(poll(&poller, 1, LIMIT_MS), 1);
	assert_ok(runtime->wait(f->self, f->spec.id, 0, &status, &f->error), &f->error);
	assert_int_equal(status.state, MOAT_RUN_EXITED);
	assert_int_equal(status.exit_code, 2);
	close(io.out);
	close(io.err);
	assert_ok(runtime->state(f->self, "run_of_another_", &status, &f->error), &f->error);
	assert_int_equal(status.state, MOAT_RUN_GONE);
	assert_int_equal(runtime->wait_fd(f->self, "run_of_another_"), -1);
}

static void
test_odd_workspaces(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"a b",        "a,b:c",  "new\nline", "\xff\xfe",
					    "'\"$(x)`\\", "--bind", "..data",    "*"};

	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		char *path = text(f, "%s/%s", f->root, names[i]);

		make_directory(path);
		f->workspace_mount.source = f->workspace_mount.target = f->spec.workdir = path;
		expect(f, "echo x > made; pwd", text(f, "%s\n", path));
		assert_int_equal(access(text(f, "%s/made", path), F_OK), 0);
	}
}

static void
test_mounts(void **state)
{
	struct fixture *f = *state;
	struct moat_mount extra = {.struct_size = sizeof extra, .source = f->root};
	struct moat_view overlay = {.struct_size = sizeof overlay, .kind = MOAT_VIEW_OVERLAY};
	struct moat_view view = {.struct_size = sizeof view, .kind = MOAT_VIEW_PATH};
	struct moat_handle handle = {.struct_size = sizeof handle};
	static const struct {
		const char *target;
		int code;
		const char *message;
	} refused[] = {{"/", MOAT_USAGE, "belongs to the sandbox"},
		       {"/proc", MOAT_USAGE, "belongs to the sandbox"},
		       {"/var/run", MOAT_USAGE, "belongs to the sandbox"},
		       {"relative", MOAT_USAGE, "absolute"},
		       {"/a/../b", MOAT_USAGE, "absolute"},
		       {"/nonexistent/x", MOAT_UNSUPPORTED, "make the directory first"}};

	use_script(f, "true");
	f->mounts[1] = &extra;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		extra.target = refused[i].target;
		assert_fails(runtime->create(f->self, &f->spec, &handle, &f->error), &f->error,
			     refused[i].code, refused[i].message);
	}
	extra.target = "/tmp/x";
	extra.source = text(f, "%s/absent", f->root);
	assert_fails(runtime->create(f->self, &f->spec, &handle, &f->error), &f->error,
		     MOAT_NOT_FOUND, "absent");
	/* Through a link: what is mounted shows by both names. */
	make_directory(text(f, "%s/place", f->root));
	assert_int_equal(symlink(text(f, "%s/place", f->root), text(f, "%s/way", f->root)), 0);
	write_file(text(f, "%s/file", f->workspace), "content", 0644);
	extra.source = f->workspace;
	extra.target = text(f, "%s/way", f->root);
	expect(f, text(f, "cat '%s/way/file' '%s/place/file'", f->root, f->root), "contentcontent");
	f->mounts[1] = NULL;
	/* A workspace through a view. */
	make_directory(text(f, "%s/copy", f->root));
	view.path = text(f, "%s/copy", f->root);
	f->workspace_mount.view = &view;
	expect(f, "echo x > made; ls -A", "made\n");
	assert_int_equal(access(text(f, "%s/copy/made", f->root), F_OK), 0);
	f->workspace_mount.view = &overlay;
	assert_fails(runtime->create(f->self, &f->spec, &handle, &f->error), &f->error,
		     MOAT_UNSUPPORTED, "overlay");
}

static void
test_refuses_what_it_cannot(void **state)
{
	struct fixture *f = *state;
	struct moat_handle handle = {.struct_size = sizeof handle};
	const struct moat_run_spec saved = f->spec;

	use_script(f, "true");
#define REFUSED(member, value, text_of_error)                                                      \
	do {                                                                                       \
		f->spec = saved;                                                                   \
		f->spec.member = (value);                                                          \
		assert_fails(runtime->create(f->self, &f->spec, &handle, &f->error), &f->error,    \
			     MOAT_UNSUPPORTED, text_of_error);                                     \
	} while (0)
	REFUSED(memory, 1 << 20, "cannot limit memory");
	REFUSED(cpus_milli, 500, "cannot limit cpus");
	REFUSED(pids, 10, "cannot limit processes");
	REFUSED(image, "debian:12", "no images");
	REFUSED(network, 7, "network policy");
#undef REFUSED
	f->spec = saved;
}

static void
expect_bid(struct fixture *f, int score, const char *reason)
{
	struct moat_bid bid = {.struct_size = sizeof bid};
	struct moat_target target = {.struct_size = sizeof target, .workspace_fd = -1};

	target.workspace = f->workspace;
	assert_ok(runtime->probe(&host, &target, &bid, &f->error), &f->error);
	if (bid.score != score || strstr(bid.reason, reason) == NULL)
		fail_msg("score %d, %s", bid.score, bid.reason);
}

static void
test_which_bwrap(void **state)
{
	struct fixture *f = *state;
	char *inside = text(f, "%s/bwrap", f->workspace),
	     *open_to_all = text(f, "%s/bwrap", f->root);
	struct moat_handle handle = {.struct_size = sizeof handle};
	struct moat_target target = {.struct_size = sizeof target, .workspace_fd = -1};
	struct moat_bid bid = {.struct_size = sizeof bid};

	expect_bid(f, 70, "/bwrap");
	write_file(inside, "#!/bin/sh\nexit 0\n", 0755);
	write_file(open_to_all, "#!/bin/sh\nexit 0\n", 0757);
	configured_bwrap = inside;
	expect_bid(f, 0, "inside the workspace");
	use_script(f, "true");
	assert_fails(runtime->create(f->self, &f->spec, &handle, &f->error), &f->error,
		     MOAT_PERMISSION, "inside the workspace");
	configured_bwrap = open_to_all;
	expect_bid(f, 0, "can be written by");
	configured_bwrap = "/nonexistent/bwrap";
	expect_bid(f, 0, "/nonexistent/bwrap");
	configured_bwrap = "bwrap";
	assert_fails(runtime->probe(&host, &target, &bid, &f->error), &f->error, MOAT_USAGE,
		     "absolute");
	/* One that fails in its own way is quoted. */
	write_file(open_to_all, "#!/bin/sh\necho 'odd trouble' >&2\nexit 3\n", 0755);
	configured_bwrap = open_to_all;
	expect_bid(f, 0, "odd trouble");
	write_file(open_to_all, "#!/bin/sh\necho 'bwrap: Unknown option --perms' >&2\nexit 1\n",
		   0755);
	expect_bid(f, 0, "too old");
	write_file(open_to_all,
		   "#!/bin/sh\necho \"bwrap: Can't mount proc on /newroot/proc: Operation "
		   "not permitted\" >&2\nexit 1\n",
		   0755);
	expect_bid(f, 0, "systempaths=unconfined");
	write_file(open_to_all, "#!/bin/sh\nexec sleep 1000\n", 0755);
	expect_bid(f, 0, "within 2 seconds");
}

static void
write_own(const char *path, const char *content)
{
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, content, strlen(content)) < 0)
		_exit(20);
}

/* A user namespace whose own limit forbids further ones: what user.max_user_namespaces=0 is to the
 * host, without touching the host. */
static void
probe_without_namespaces(struct fixture *f)
{
	struct moat_bid bid = {.struct_size = sizeof bid};
	struct moat_target target = {.struct_size = sizeof target, .workspace_fd = -1};
	uid_t uid = getuid() == 0 ? 65534 : getuid();
	char *map = text(f, "%u %u 1", (unsigned) uid, (unsigned) uid);

	if (getuid() == 0 && setresuid(uid, uid, uid) < 0)
		_exit(21);
	/* Changing ids makes a process undumpable, and /proc/self root's. */
	if (prctl(PR_SET_DUMPABLE, 1) < 0 || unshare(CLONE_NEWUSER) < 0)
		_exit(22);
	write_own("/proc/self/uid_map", map);
	write_own("/proc/sys/user/max_user_namespaces", "0");
	if (runtime->probe(&host, &target, &bid, &f->error) < 0)
		_exit(23);
	if (bid.score == 0 && strstr(bid.reason, "user.max_user_namespaces=") != NULL)
		_exit(0);
	fprintf(stderr, "score %d, %s\n", bid.score, bid.reason);
	_exit(24);
}

static void
test_namespaces_forbidden(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid = fork();

	if (pid == 0)
		probe_without_namespaces(f);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void
test_sandbox_none(void **state)
{
	struct fixture *f = *state;
	const struct moat_plugin *none = none_plugin_init(&host);
	const struct moat_sandbox_ops *sandbox = none->ops;
	AUTO_CLOSE int fd = open(f->workspace, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct moat_sandbox_spec spec = {.struct_size = sizeof spec,
					 .run = f->spec.id,
					 .workspace = f->workspace,
					 .workspace_fd = fd,
					 .state_dirfd = -1};
	struct moat_view created = {.struct_size = sizeof created};
	struct moat_view again = {.struct_size = sizeof again};
	struct moat_bid bid = {.struct_size = sizeof bid};
	struct moat_target target = {.struct_size = sizeof target, .workspace_fd = -1};
	void *self = NULL;

	assert_int_equal(none->kind, MOAT_KIND_SANDBOX);
	assert_int_equal(sandbox->capabilities, MOAT_SANDBOX_LIVE);
	assert_ok(sandbox->probe(&host, &target, &bid, &f->error), &f->error);
	assert_int_equal(bid.score, 50);
	assert_ok(sandbox->open(&host, NULL, &self, &f->error), &f->error);
	assert_ok(sandbox->create(self, &spec, &created, &f->error), &f->error);
	assert_int_equal(created.kind, MOAT_VIEW_PATH);
	assert_string_equal(created.path, f->workspace);
	assert_ok(sandbox->reopen(self, &spec, created.ref, &again, &f->error), &f->error);
	assert_string_equal(again.path, f->workspace);
	assert_ok(sandbox->destroy(self, created.ref, &f->error), &f->error);
	assert_fails(sandbox->reopen(self, &spec, "overlay", &again, &f->error), &f->error,
		     MOAT_NOT_FOUND, "no view");
	assert_int_equal(rename(f->workspace, text(f, "%s/old", f->root)), 0);
	assert_fails(sandbox->create(self, &spec, &created, &f->error), &f->error, MOAT_NOT_FOUND,
		     "workspace");
	make_directory(f->workspace);
	assert_fails(sandbox->create(self, &spec, &created, &f->error), &f->error, MOAT_CHANGED,
		     "replaced");
	assert_int_equal(rmdir(f->workspace), 0);
	write_file(f->workspace, "", 0644);
	assert_fails(sandbox->create(self, &spec, &created, &f->error), &f->error, MOAT_CHANGED,
		     "not a directory");
	sandbox->close(self);
}

int
main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(status),
		TEST(cannot_start),
		TEST(argv_and_environment),
		TEST(preload_stays_inside),
		TEST(too_large),
		TEST(host_is_read_only),
		TEST(private_directories),
		TEST(hidden),
		TEST(nested_namespace_uncovers_nothing),
		TEST(no_cgroup_namespace),
		TEST(namespaces),
		TEST(privileges),
		TEST(inherits_nothing),
		TEST(stdin),
		TEST(nothing_runs_before_start),
		TEST(terminal),
		TEST(interrupt),
		TEST(no_way_to_the_callers_terminal),
		TEST(kill),
		TEST(dies_with_its_owner),
		TEST(dies_with_bwrap),
		TEST(leaves_nothing),
		TEST(ignored_sigchld),
		TEST(two_at_once),
		TEST(wait_fd),
		TEST(odd_workspaces),
		TEST(mounts),
		TEST(refuses_what_it_cannot),
		TEST(which_bwrap),
		TEST(namespaces_forbidden),
		TEST(sandbox_none),
	};
	struct moat_bid bid = {.struct_size = sizeof bid};
	struct moat_target target = {.struct_size = sizeof target, .workspace_fd = -1};
	struct moat_error err = MOAT_ERROR_INIT;
	const char *must_work = getenv("MOAT_MUST_WORK");

	if (argc == 2 && strcmp(argv[1], "--inside") == 0)
		return inside();
	if (argc == 2 && strcmp(argv[1], "--inside-compat") == 0)
		return inside_compat();
	runtime = moat_plugin_init(&host)->ops;
	if (runtime->probe(&host, &target, &bid, &err) < 0 || bid.score == 0) {
		fprintf(stderr, "%s: %s%s\n", must_work != NULL ? "FAIL" : "SKIP", bid.reason,
			err.message);
		return must_work != NULL && strcmp(must_work, "1") == 0 ? 1 : 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
