/* SPDX-License-Identifier: Apache-2.0 */
/* tracer-netlink against the real proc connector, with real processes.  Where there is none: status
 * 77, or, with MOAT_MUST_WORK=1, a failure.
 *
 * The program is also its own child: see the functions act_*(). */
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "plugins/tracer-netlink/connector.h"

static char self_path[4096];

/* --------------------------------------------------------------------------------- the host */

static uint64_t receive_buffer; /* 0: not configured */

static void
host_log(const char *who, int level, const char *message)
{
}

static int
host_config_size(const struct moat_config *config, const char *key, uint64_t *ret,
		 struct moat_error *err)
{
	if (receive_buffer == 0 || strcmp(key, "receive_buffer") != 0)
		return 0;
	*ret = receive_buffer;
	return 1;
}

static const struct moat_host host = {
	.struct_size = sizeof host,
	.api_version = MOAT_API_VERSION,
	.log = host_log,
	.config_size = host_config_size,
};

struct seen {
	struct moat_event event;
	char *exe, *argv, *cwd;
};

/* One tracer, and all that it told. */
struct fixture {
	const struct moat_tracer_ops *ops;
	void *self;
	pthread_mutex_t lock;
	struct seen *seen;
	size_t count, allocated;
	uint64_t lost, unknown_losses;
	size_t execs, exits;
	char directory[64];
	bool slow; /* takes its time over events, so that the kernel's queue overflows */
};

static void
collect(void *context, const struct moat_event *event)
{
	struct fixture *f = context;
	struct seen *seen;

	pthread_mutex_lock(&f->lock);
	if (f->count == f->allocated) {
		f->allocated = f->allocated * 2 + 1024;
		f->seen = reallocarray(f->seen, f->allocated, sizeof *f->seen);
		if (f->seen == NULL)
			abort();
	}
	seen = &f->seen[f->count++];
	*seen = (struct seen){.event = *event};
	seen->exe = event->exe == NULL ? NULL : strdup(event->exe);
	seen->cwd = event->cwd == NULL ? NULL : strdup(event->cwd);
	if (event->argv != NULL) {
		seen->argv = malloc(event->argv_size);
		memcpy(seen->argv, event->argv, event->argv_size);
	}
	f->execs += event->kind == MOAT_EVENT_EXEC;
	f->exits += event->kind == MOAT_EVENT_EXIT;
	if (event->kind == MOAT_EVENT_LOSS) {
		f->lost += event->lost;
		f->unknown_losses += event->lost == 0;
	}
	pthread_mutex_unlock(&f->lock);
	if (f->slow && f->count % 50 == 0)
		(void) poll(NULL, 0, 20);
}

static void
forget(struct fixture *f)
{
	for (size_t i = 0; i < f->count; i++) {
		free(f->seen[i].exe);
		free(f->seen[i].argv);
		free(f->seen[i].cwd);
	}
	f->count = f->execs = f->exits = 0;
	f->lost = f->unknown_losses = 0;
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct moat_error err = MOAT_ERROR_INIT;

	f->ops = moat_plugin_init(&host)->ops;
	pthread_mutex_init(&f->lock, NULL);
	strcpy(f->directory, "/tmp/moat-test-XXXXXX");
	if (mkdtemp(f->directory) == NULL || f->ops->open(&host, NULL, &f->self, &err) < 0)
		return -1;
	*state = f;
	return 0;
}

static int
setup_small(void **state)
{
	int result;

	receive_buffer = 4096;
	result = setup(state);
	if (result == 0)
		((struct fixture *) *state)->slow = true;
	receive_buffer = 0;
	return result;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;
	char path[128];

	f->ops->close(f->self);
	forget(f);
	free(f->seen);
	(void) snprintf(path, sizeof path, "%s/truth", f->directory);
	(void) unlink(path);
	(void) snprintf(path, sizeof path, "%s/script", f->directory);
	(void) unlink(path);
	(void) rmdir(f->directory);
	pthread_mutex_destroy(&f->lock);
	free(f);
	return 0;
}

static void
start(struct fixture *f, pid_t root)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct moat_trace_target target = {.struct_size = sizeof target, .root_pid = root};
	struct moat_sink sink = {sizeof sink, f, collect};

	assert_ok(f->ops->start(f->self, &target, &sink, &err), &err);
}

static void
stop(struct fixture *f)
{
	struct moat_error err = MOAT_ERROR_INIT;

	assert_ok(f->ops->stop(f->self, &err), &err);
}

/* Starts this program, which waits for a byte before it does `action`. */
struct root {
	pid_t pid;
	int go;
};

static struct root
start_root(const char *action, const char *argument)
{
	int go[2], executed[2];
	struct root root;
	char number[16], c;

	assert_int_equal(pipe2(executed, O_CLOEXEC), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	(void) snprintf(number, sizeof number, "%d", go[0]);
	root.pid = fork();
	if (root.pid == 0) {
		(void) prctl(PR_SET_PDEATHSIG, SIGKILL); /* should a test die half-way */
		fcntl(go[0], F_SETFD, 0);
		execl(self_path, self_path, action, argument, number, (char *) NULL);
		_exit(127);
	}
	close(go[0]);
	close(executed[1]);
	assert_int_equal(read(executed[0], &c, 1), 0); /* its own exec is past */
	close(executed[0]);
	root.go = go[1];
	return root;
}

static void
let_go(struct root *root)
{
	assert_int_equal(write(root->go, "x", 1), 1);
	close(root->go);
}

static int
wait_root(struct root *root)
{
	int status;

	assert_int_equal(waitpid(root->pid, &status, 0), root->pid);
	return status;
}

static void
trace(struct fixture *f, const char *action, const char *argument)
{
	struct root root = start_root(action, argument);

	start(f, root.pid);
	let_go(&root);
	(void) wait_root(&root);
	while (wait(NULL) > 0) /* orphans come to this process, the subreaper */
		continue;
	stop(f);
}

static bool
has_words(const struct seen *seen, const char *first, const char *second)
{
	const char *at = seen->argv;

	if (seen->event.kind != MOAT_EVENT_EXEC || at == NULL)
		return false;
	at += strlen(at) + 1;
	if (at >= seen->argv + seen->event.argv_size || strcmp(at, first) != 0)
		return false;
	at += strlen(at) + 1;
	return at < seen->argv + seen->event.argv_size && strcmp(at, second) == 0;
}

static const struct seen none;

/* The exec whose argv[1] and argv[2] are these. */
static const struct seen *
find_exec(const struct fixture *f, const char *first, const char *second)
{
	for (size_t i = 0; i < f->count; i++)
		if (has_words(&f->seen[i], first, second))
			return &f->seen[i];
	fail_msg("no exec of ... %s %s", first, second);
	return &none;
}

static const struct seen *
find_exit(const struct fixture *f, int64_t pid)
{
	for (size_t i = 0; i < f->count; i++)
		if (f->seen[i].event.kind == MOAT_EVENT_EXIT && f->seen[i].event.pid == pid)
			return &f->seen[i];
	fail_msg("no exit of %lld", (long long) pid);
	return &none;
}

/* -------------------------------------------------------------------------- what children do */

static void
spawn_and_wait(const char *first, const char *second)
{
	char *const argv[] = {self_path, (char *) first, (char *) second, NULL};
	pid_t pid;
	int status;

	if (posix_spawn(&pid, self_path, NULL, NULL, argv, environ) == 0)
		(void) waitpid(pid, &status, 0);
}

/* Sleeps, so that it is certainly seen alive, then exits with a status. */
static int
act_linger(const char *argument)
{
	(void) poll(NULL, 0, 50);
	return atoi(argument);
}

static int
act_chain(const char *argument)
{
	spawn_and_wait("linger", "7");
	/* replaces itself */
	execl(self_path, self_path, "linger", "9", (char *) NULL);
	return 127;
}

static int
act_vfork(const char *argument)
{
	int status;
	pid_t pid = vfork();

	if (pid == 0) {
		execl(self_path, self_path, "linger", "21", (char *) NULL);
		_exit(127);
	}
	(void) waitpid(pid, &status, 0);
	return 0;
}

static int
act_daemon(const char *argument)
{
	if (fork() == 0) {
		setsid();
		if (fork() == 0) {
			(void) poll(NULL, 0, 100); /* its parent is gone by then */
			execl(self_path, self_path, "linger", "22", (char *) NULL);
		}
		_exit(0);
	}
	(void) wait(NULL);
	return 0;
}

static void *
idle(void *argument)
{
	(void) pause();
	return NULL;
}

static void *
exec_in_thread(void *argument)
{
	execl(self_path, self_path, "linger", "23", (char *) NULL);
	return NULL;
}

static int
act_thread(const char *argument)
{
	pthread_t thread, other;

	if (pthread_create(&other, NULL, idle, NULL) != 0 ||
	    pthread_create(&thread, NULL, exec_in_thread, NULL) != 0)
		return 1;
	for (;;)
		pause();
}

static void *
exit_in_thread(void *argument)
{
	(void) poll(NULL, 0, 50);
	_exit(24);
}

/* The first thread leaves, another ends the process later. */
static int
act_leader(const char *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, exit_in_thread, NULL) != 0)
		return 1;
	pthread_exit(NULL);
}

static int
act_memfd(const char *argument)
{
	char name[] = "from-memory", first[] = "linger", second[] = "25";
	char *const argv[] = {name, first, second, NULL};
	int in = open(self_path, O_RDONLY | O_CLOEXEC), fd = memfd_create("program", MFD_CLOEXEC);
	char data[65536];
	ssize_t n;

	while ((n = read(in, data, sizeof data)) > 0)
		if (write(fd, data, (size_t) n) != n)
			return 1;
	fexecve(fd, argv, environ);
	return 127;
}

static int
act_script(const char *argument)
{
	execl(argument, argument, "26", (char *) NULL);
	return 127;
}

static int
act_kill(const char *argument)
{
	pid_t pid = fork();

	if (pid == 0) {
		for (;;)
			pause();
	}
	kill(pid, SIGTERM);
	(void) waitpid(pid, NULL, 0);
	spawn_and_wait("linger", "27");
	return 0;
}

/* argv of 120 KiB in one word with every byte but NUL. */
static int
act_large(const char *argument)
{
	static char word[120 * 1024];

	for (size_t i = 0; i < sizeof word - 1; i++)
		word[i] = (char) (i % 255 + 1);
	execl(self_path, self_path, "linger", "28", word, (char *) NULL);
	return 127;
}

/* Executes itself as often as the number says, as fast as it can. */
static int
act_hops(const char *argument)
{
	char next[16];

	(void) snprintf(next, sizeof next, "%d", atoi(argument) - 1);
	if (atoi(argument) > 1)
		execl(self_path, self_path, "hops", next, (char *) NULL);
	return 0;
}

static int
act_append(const char *path, const char *token)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	char line[64];
	int n = snprintf(line, sizeof line, "%s\n", token);

	return fd >= 0 && write(fd, line, (size_t) n) == n ? 0 : 1;
}

/* COUNT short children, WIDTH at a time, each of which leaves its number in the file. */
static int
act_storm(const char *argument)
{
	int count = 0, width = 1, running = 0, used = 0;
	const char *path;

	if (sscanf(argument, "%d:%d:%n", &count, &width, &used) != 2)
		return 1;
	path = argument + used;
	for (int i = 0; i < count; i++) {
		char token[32], name[] = "append";
		char *const argv[] = {self_path, name, (char *) path, token, NULL};
		pid_t pid;

		(void) snprintf(token, sizeof token, "%d", i);
		if (running == width && wait(NULL) > 0)
			running--;
		if (posix_spawn(&pid, self_path, NULL, NULL, argv, environ) == 0)
			running++;
	}
	while (wait(NULL) > 0)
		continue;
	return 0;
}

static int
act(char **argv)
{
	static const struct {
		const char *name;
		int (*act)(const char *argument);
	} acts[] = {
		{"linger", act_linger}, {"chain", act_chain},   {"vfork", act_vfork},
		{"daemon", act_daemon}, {"thread", act_thread}, {"leader", act_leader},
		{"memfd", act_memfd},   {"script", act_script}, {"kill", act_kill},
		{"large", act_large},   {"storm", act_storm},   {"hops", act_hops},
	};

	if (strcmp(argv[1], "append") == 0)
		return act_append(argv[2], argv[3]);
	for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
		char c;

		if (strcmp(argv[1], acts[i].name) != 0)
			continue;
		/* A root waits until it is traced. */
		if (argv[3] != NULL && strcmp(argv[1], "linger") != 0 &&
		    read(atoi(argv[3]), &c, 1) != 1)
			return 1;
		return acts[i].act(argv[2]);
	}
	return 127;
}

/* -------------------------------------------------------------------------------- system tests */

static void
assert_lingered(struct fixture *f, const char *code)
{
	const struct seen *exec = find_exec(f, "linger", code), *end;

	assert_true(exec->event.argv_complete);
	assert_non_null(exec->exe);
	assert_non_null(exec->cwd);
	end = find_exit(f, exec->event.pid);
	assert_int_equal(end->event.exit_code, atoi(code));
	assert_int_equal(end->event.signal, 0);
	assert_in_range(end->event.duration_ns, 40000000, INT64_C(20000000000));
	assert_true(end->event.time_ns >= exec->event.time_ns);
	assert_int_equal(f->lost, 0);
	assert_int_equal(f->unknown_losses, 0);
}

static void
test_chain(void **state)
{
	struct fixture *f = *state;
	struct timespec now;
	char cwd[4096];

	trace(f, "chain", "");
	clock_gettime(CLOCK_REALTIME, &now);
	assert_lingered(f, "7");
	assert_lingered(f, "9");
	assert_int_equal(find_exec(f, "linger", "7")->event.ppid,
			 find_exec(f, "linger", "9")->event.pid);
	assert_string_equal(find_exec(f, "linger", "7")->exe, self_path);
	assert_string_equal(find_exec(f, "linger", "7")->cwd, getcwd(cwd, sizeof cwd));
	/* kernel time as wall clock */
	assert_in_range(find_exec(f, "linger", "7")->event.time_ns,
			(now.tv_sec - 60) * INT64_C(1000000000),
			(now.tv_sec + 1) * INT64_C(1000000000));
	assert_int_equal(find_exec(f, "linger", "7")->event.inner_pid,
			 find_exec(f, "linger", "7")->event.pid);
}

static void
test_ways_to_start(void **state)
{
	struct fixture *f = *state;
	char script[128];
	FILE *file;

	trace(f, "vfork", "");
	assert_lingered(f, "21");
	trace(f, "daemon", "");
	assert_lingered(f, "22");
	trace(f, "thread", "");
	assert_lingered(f, "23");
	trace(f, "memfd", "");
	assert_lingered(f, "25");
	assert_non_null(strstr(find_exec(f, "linger", "25")->exe, "memfd:program"));
	(void) snprintf(script, sizeof script, "%s/script", f->directory);
	file = fopen(script, "we");
	assert_non_null(file);
	fprintf(file, "#!/bin/sh\nsleep 0.1\nexit $1\n");
	fclose(file);
	assert_int_equal(chmod(script, 0700), 0);
	trace(f, "script", script);
	assert_int_equal(find_exit(f, find_exec(f, script, "26")->event.pid)->event.exit_code, 26);
}

static void
test_first_thread_leaves(void **state)
{
	struct fixture *f = *state;
	struct root root = start_root("leader", "");
	size_t ends = 0;

	start(f, root.pid);
	let_go(&root);
	assert_int_equal(WEXITSTATUS(wait_root(&root)), 24);
	stop(f);
	for (size_t i = 0; i < f->count; i++)
		ends += f->seen[i].event.kind == MOAT_EVENT_EXIT;
	assert_int_equal(ends, 1);
	assert_int_equal(find_exit(f, root.pid)->event.exit_code, 24);
}

static void
test_signal(void **state)
{
	struct fixture *f = *state;
	size_t killed = 0;

	trace(f, "kill", "");
	assert_lingered(f, "27");
	for (size_t i = 0; i < f->count; i++) {
		const struct moat_event *event = &f->seen[i].event;

		if (event->kind == MOAT_EVENT_EXIT && event->signal == SIGTERM) {
			assert_int_equal(event->exit_code, -1);
			killed++;
		}
	}
	assert_int_equal(killed, 1);
}

static void
test_large_argv(void **state)
{
	struct fixture *f = *state;
	const struct seen *seen;
	const char *word;

	trace(f, "large", "");
	assert_lingered(f, "28");
	seen = find_exec(f, "linger", "28");
	assert_int_equal(seen->event.argv_size,
			 strlen(self_path) + 1 + sizeof "linger" + sizeof "28" + 120 * 1024);
	word = seen->argv + seen->event.argv_size - 120 * 1024;
	for (size_t i = 0; i < 120 * 1024 - 1; i++)
		assert_int_equal((unsigned char) word[i], i % 255 + 1);
}

/* What is recorded for an exec is that exec's, not the next one's. */
static void
test_hops(void **state)
{
	struct fixture *f = *state;
	int left = (int) test_scaled(2000) + 1;
	size_t known = 0;
	char argument[16];

	(void) snprintf(argument, sizeof argument, "%d", left);
	trace(f, "hops", argument);
	for (size_t i = 0; i < f->count; i++) {
		const struct seen *seen = &f->seen[i];
		const char *word = seen->argv;

		if (seen->event.kind != MOAT_EVENT_EXEC)
			continue;
		left--;
		assert_int_equal(seen->event.argv_complete, word != NULL);
		if (word == NULL)
			continue;
		word += strlen(word) + 1;
		assert_string_equal(word, "hops");
		assert_int_equal(atoi(word + strlen(word) + 1), left);
		known++;
	}
	assert_int_equal(f->lost, 0);
	assert_int_equal(left, 1);
	print_message("%zu of %zu with argv\n", known, f->execs);
}

/* Numbers in the file of a storm. */
static size_t
read_truth(const char *path, bool *there, size_t size)
{
	FILE *file = fopen(path, "re");
	unsigned n;
	size_t count = 0;

	assert_non_null(file);
	while (fscanf(file, "%u", &n) == 1) {
		assert_true(n < size);
		there[n] = true;
		count++;
	}
	fclose(file);
	return count;
}

/* Recorded and declared lost must be the truth, and nothing else may have been recorded. */
static void
check_storm(struct fixture *f, const char *path, size_t count)
{
	AUTO_FREE bool *there = calloc(count, 1);
	AUTO_FREE bool *recorded = calloc(count, 1);
	size_t with_argv = 0;

	assert_int_equal(read_truth(path, there, count), count);
	for (size_t i = 0; i < f->count; i++) {
		const struct seen *seen = &f->seen[i];
		const char *word = seen->argv;

		if (seen->event.kind != MOAT_EVENT_EXEC || word == NULL)
			continue;
		word += strlen(word) + 1;
		assert_string_equal(word, "append");
		word += strlen(word) + 1;
		assert_string_equal(word, path); /* not the other storm's */
		word += strlen(word) + 1;
		assert_false(recorded[atoi(word)]);
		recorded[atoi(word)] = true;
		with_argv++;
	}
	print_message("%zu execs, %zu exits, %zu with argv, lost %llu, %llu times unknown\n",
		      f->execs, f->exits, with_argv, (unsigned long long) f->lost,
		      (unsigned long long) f->unknown_losses);
	assert_true(f->execs <= count);
	assert_true(f->exits <= count + 1);
	assert_true(f->unknown_losses > 0 || f->execs + f->lost >= count);
	assert_true(f->unknown_losses > 0 || f->exits + f->lost >= count + 1);
}

static void
storm(struct fixture *f, size_t count, int width)
{
	struct moat_trace_stats stats = {.struct_size = sizeof stats};
	struct moat_error err = MOAT_ERROR_INIT;
	char argument[256], path[128], other[256];
	struct root root, stranger;

	(void) snprintf(path, sizeof path, "%s/truth", f->directory);
	(void) snprintf(argument, sizeof argument, "%zu:%d:%s", count, width, path);
	(void) snprintf(other, sizeof other, "%zu:2:%s", count / 4, "/dev/null");
	root = start_root("storm", argument);
	stranger = start_root("storm", other);
	start(f, root.pid);
	let_go(&stranger);
	let_go(&root);
	(void) wait_root(&root);
	stop(f);
	(void) wait_root(&stranger);
	check_storm(f, path, count);
	assert_ok(f->ops->stats(f->self, &stats, &err), &err);
	assert_int_equal(stats.execs, f->execs);
	assert_int_equal(stats.exits, f->exits);
	assert_int_equal(stats.lost, f->lost);
}

static void
test_storm(void **state)
{
	storm(*state, (size_t) test_scaled(5000), 4);
}

/* With room for a few events only, some are lost: that must show. */
static void
test_declared_loss(void **state)
{
	struct fixture *f = *state;

	storm(f, (size_t) test_scaled(5000), 8);
	assert_true(f->lost > 0 || f->unknown_losses > 0);
}

static void
test_start_stop(void **state)
{
	struct fixture *f = *state;

	for (long i = 0; i < test_scaled(100); i++) {
		start(f, getpid());
		if (i % 3 == 0)
			stop(f);
		stop(f);
		stop(f);
	}
}

static void
test_start_stop_in_storm(void **state)
{
	struct fixture *f = *state;
	struct timespec begin, end;
	struct root root;

	root = start_root("storm", "1000000:4:/dev/null");
	let_go(&root);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long i = 0; i < test_scaled(100); i++) {
		start(f, root.pid);
		(void) poll(NULL, 0, (int) (i % 5));
		stop(f);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - begin.tv_sec < 60);
	assert_int_equal(kill(root.pid, SIGKILL), 0);
	(void) wait_root(&root);
}

static void
test_refusals(void **state)
{
	struct fixture *f = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	struct moat_trace_target target = {.struct_size = sizeof target};
	struct moat_sink sink = {sizeof sink, f, collect};
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	(void) waitpid(pid, NULL, 0);
	assert_fails(f->ops->start(f->self, &target, &sink, &err), &err, MOAT_UNSUPPORTED,
		     "first process");
	target.root_pid = pid;
	assert_fails(f->ops->start(f->self, &target, &sink, &err), &err, MOAT_GONE, "no process");
	start(f, getpid());
	assert_fails(f->ops->start(f->self, &target, &sink, &err), &err, MOAT_USAGE,
		     "runs already");
	stop(f);
	stop(f);
}

/* In a network namespace of its own nobody answers, and in a pid namespace the kernel is silent. */
static int
probe_elsewhere(int flags, char *reason, size_t size)
{
	struct moat_bid bid = {.struct_size = sizeof bid};
	const struct moat_tracer_ops *ops = moat_plugin_init(&host)->ops;
	struct moat_target target = {.struct_size = sizeof target};
	int in_out[2], status;
	pid_t pid;
	ssize_t n;

	assert_int_equal(pipe2(in_out, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWUSER | flags) < 0)
			_exit(77);
		if (flags == CLONE_NEWPID && (pid = fork()) > 0) {
			(void) waitpid(pid, &status, 0);
			_exit(WEXITSTATUS(status));
		}
		if (ops->probe(&host, &target, &bid, NULL) < 0 || bid.score != 0)
			_exit(1);
		_exit(write(in_out[1], bid.reason, strlen(bid.reason)) > 0 ? 0 : 1);
	}
	close(in_out[1]);
	n = read(in_out[0], reason, size - 1);
	close(in_out[0]);
	reason[n > 0 ? n : 0] = '\0';
	(void) waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void
test_namespaces(void **state)
{
	char reason[512];
	int status = probe_elsewhere(CLONE_NEWNET, reason, sizeof reason);

	/* A process of ThreadSanitizer's has a second thread, and unshare refuses those. */
#ifndef __SANITIZE_THREAD__
	if (status == 77 && getenv("MOAT_MUST_WORK") != NULL)
		fail_msg("namespaces cannot be made here");
#endif
	if (status == 77)
		skip();
	assert_int_equal(status, 0);
	assert_non_null(strstr(reason, "network namespace"));
	assert_int_equal(probe_elsewhere(CLONE_NEWPID, reason, sizeof reason), 0);
	assert_non_null(strstr(reason, "pid and user namespace"));
}

static int
is_available(void)
{
	struct moat_error err = MOAT_ERROR_INIT;
	uint64_t buffer;
	int fd = connector_open(65536, &buffer, &err);

	if (fd < 0) {
		print_message("no proc connector: %s\n", err.message);
		return 0;
	}
	close(fd);
	return 1;
}

int
main(int argc, char **argv)
{
	const struct CMUnitTest real[] = {
		cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ways_to_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_first_thread_leaves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_signal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_argv, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hops, setup, teardown),
		cmocka_unit_test_setup_teardown(test_storm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_declared_loss, setup_small, teardown),
		cmocka_unit_test_setup_teardown(test_start_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(test_start_stop_in_storm, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
		cmocka_unit_test(test_namespaces),
	};
	ssize_t n = readlink("/proc/self/exe", self_path, sizeof self_path - 1);

	if (n < 0)
		return 1;
	if (argc > 1)
		_exit(act(argv)); /* without what a sanitizer does at exit, which may make processes
				   */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return 1;
	if (!is_available())
		return getenv("MOAT_MUST_WORK") != NULL ? 1 : 77;
	return cmocka_run_group_tests(real, NULL, NULL);
}
