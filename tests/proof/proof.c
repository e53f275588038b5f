/* SPDX-License-Identifier: Apache-2.0 */
#include "proof.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"

/* More would only bury the first. */
#define TOLD_MAX 12

void
proof_die(const char *what, const char *file, int line)
{
	dprintf(3, "%s:%d: %s: %s\n", file, line, what, strerror(errno));
	dprintf(2, "%s:%d: %s: %s\n", file, line, what, strerror(errno));
	_exit(99);
}

/* ------------------------------------------------------------------------------ random numbers */

uint64_t
proof_random(struct proof *p)
{
	uint64_t z = (p->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

unsigned
proof_below(struct proof *p, unsigned n)
{
	return (unsigned) (proof_random(p) % n);
}

bool
proof_chance(struct proof *p, unsigned percent)
{
	return proof_below(p, 100) < percent;
}

void
proof_case(struct proof *p, unsigned long number)
{
	p->case_number = number;
	p->state = p->seed * 0x2545f4914f6cdd1du + number;
	(void) proof_random(p);
}

long
proof_scaled(long cases, long percent)
{
	const char *scale = getenv("MOAT_TEST_SCALE");
	long n = cases * (scale == NULL ? percent : atol(scale)) / 100;

	return n > 0 ? n : 1;
}

/* ------------------------------------------------------------------------- opening and closing */

static const char *
default_directory(void)
{
	const char *named = getenv("MOAT_TEST_DIRECTORY"), *tmp = getenv("TMPDIR");

	if (named != NULL)
		return named;
	if (access("/dev/shm", W_OK | X_OK) == 0)
		return "/dev/shm";
	return tmp != NULL ? tmp : "/tmp";
}

/* Of the sanitizers, when there are any. */
__attribute__((weak)) void __sanitizer_set_report_fd(void *fd);

/* The standard streams of the core become files; the report keeps the real output, as descriptor 3
 * for proof_die(). */
static void
redirect(struct proof *p)
{
	AUTO_FREE char *said = proof_path(p, "said"), *printed = proof_path(p, "printed");
	int fd = dup2(STDOUT_FILENO, 3);

	MUST(fd);
	p->report = fdopen(fd, "w");
	if (p->report == NULL)
		proof_die("fdopen", __FILE__, __LINE__);
	setvbuf(p->report, NULL, _IOLBF, 0);
	if (__sanitizer_set_report_fd != NULL)
		__sanitizer_set_report_fd((void *) (intptr_t) fd);
	p->said_fd = open(said, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	p->printed_fd = open(printed, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	MUST(p->said_fd);
	MUST(p->printed_fd);
	MUST(dup2(p->said_fd, STDERR_FILENO));
	MUST(dup2(p->printed_fd, STDOUT_FILENO));
}

static void
prepare_app(struct proof *p)
{
	struct moat_error err = MOAT_ERROR_INIT;
	AUTO_FREE char *home = proof_path(p, "moat");

	snprintf(p->backend_option, sizeof p->backend_option, "snapshot:%s", p->backend);
	p->backends[0] = p->backend_option;
	if (asprintf(&p->plugin_dirs[0], "%s/snapshot-%s/.libs", MOAT_BUILT_PLUGINS, p->backend) <
	    0)
		proof_die("asprintf", __FILE__, __LINE__);
	if (access(p->plugin_dirs[0], R_OK | X_OK) < 0) {
		const char *must = getenv("MOAT_MUST_WORK");

		fprintf(p->report, "SKIP: %s: %s\n", p->plugin_dirs[0], strerror(errno));
		proof_remove(AT_FDCWD, p->top);
		exit(must != NULL && strcmp(must, "1") == 0 ? 99 : 77);
	}
	p->app.home_path = home;
	p->app.plugin_dirs = (const char *const *) p->plugin_dirs;
	p->app.backends = p->backends;
	p->app.umask = 022;
	if (app_home(&p->app, &err) < 0 || app_loader(&p->app, &err) < 0) {
		fprintf(p->report, "%s: %s\n", p->name, err.message);
		exit(99);
	}
	p->app.home_path = NULL;
}

void
proof_open(struct proof *p, const char *name, const char *directory, const char *backend)
{
	const char *seed = getenv("MOAT_TEST_SEED");
	struct timespec now;

	*p = (struct proof){.name = name, .backend = backend};
	unsetenv("MOAT_HOME");
	unsetenv("MOAT_PLUGIN_PATH");
	umask(022);
	clock_gettime(CLOCK_REALTIME, &now);
	p->seed = seed != NULL
			  ? strtoull(seed, NULL, 10)
			  : (uint64_t) (now.tv_sec * 1000 + now.tv_nsec / 1000000) % 1000000007u;
	proof_case(p, 0);
	if (asprintf(&p->top, "%s/moat-proof.XXXXXX",
		     directory == NULL ? default_directory() : directory) < 0 ||
	    mkdtemp(p->top) == NULL)
		proof_die("mkdtemp", __FILE__, __LINE__);
	setenv("HOME", p->top, 1);
	redirect(p);
	fprintf(p->report, "%s: seed %llu, backend %s, uid %u, in %s\n", name,
		(unsigned long long) p->seed, backend, (unsigned) geteuid(), p->top);
	umask(077);
	prepare_app(p);
	umask(022);
}

int
proof_close(struct proof *p)
{
	bool failed = p->failures > 0 || p->cases == 0;

	if (p->app.loader != NULL)
		loader_close(p->app.loader);
	home_close(p->app.home);
	proof_remove(AT_FDCWD, p->top);
	fprintf(p->report, "%s: %lu cases, %lu controls, %lu failures%s\n", p->name, p->cases,
		p->controls, p->failures, p->cases == 0 ? ": nothing was tried" : "");
	free(p->top);
	free(p->plugin_dirs[0]);
	fflush(stdout);
	MUST(dup2(3, STDOUT_FILENO));
	MUST(dup2(3, STDERR_FILENO));
	fclose(p->report);
	close(p->said_fd);
	close(p->printed_fd);
	return failed ? 1 : 0;
}

void
proof_fail(struct proof *p, const char *format, ...)
{
	va_list args;

	if (++p->failures > TOLD_MAX)
		return;
	fprintf(p->report, "FAILED: case %lu: ", p->case_number);
	va_start(args, format);
	vfprintf(p->report, format, args);
	va_end(args);
	fprintf(p->report, "\n");
}

char *
proof_path(const struct proof *p, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", p->top, name) < 0)
		proof_die("asprintf", __FILE__, __LINE__);
	return path;
}

/* ------------------------------------------------------------------------------ what was said */

void
proof_hush(struct proof *p)
{
	fflush(stdout);
	MUST(ftruncate(p->said_fd, 0));
	MUST(ftruncate(p->printed_fd, 0));
}

static char *
whole(int fd)
{
	struct stat st;
	char *text;
	ssize_t n;

	fflush(stdout);
	MUST(fstat(fd, &st));
	text = calloc(1, (size_t) st.st_size + 1);
	if (text == NULL)
		proof_die("calloc", __FILE__, __LINE__);
	n = pread(fd, text, (size_t) st.st_size, 0);
	MUST(n);
	return text;
}

char *
proof_said(struct proof *p)
{
	return whole(p->said_fd);
}

char *
proof_printed(struct proof *p)
{
	return whole(p->printed_fd);
}

/* ------------------------------------------------------------------------------------ the core */

bool
proof_snapshot(struct proof *p, const struct workspace *workspace, const struct config *config,
	       struct snap **ret, struct moat_error *err)
{
	struct snap_options options = {.type = "manual", .config = config};
	mode_t before = umask(077);
	int result;

	moat_error_clear(err);
	result = snap_create(&p->app, workspace, &options, ret, err);
	umask(before);
	return result == 0;
}

bool
proof_restore(struct proof *p, const struct snap *snap, const char *to, bool safety,
	      char ret_safety[32], struct moat_error *err)
{
	struct restore_options options = {.to = to, .no_safety = !safety};
	mode_t before = umask(077);
	int result;

	moat_error_clear(err);
	proof_hush(p);
	result = restore_snapshot(&p->app, snap, &options, err);
	umask(before);
	if (ret_safety != NULL) {
		AUTO_FREE char *printed = proof_printed(p);

		snprintf(ret_safety, 32, "%.*s", (int) strcspn(printed, "\n"), printed);
	}
	return result == 0;
}

struct workspace *
proof_workspace(struct proof *p, const char *name)
{
	AUTO_FREE char *path = proof_path(p, name);
	struct moat_error err = MOAT_ERROR_INIT;
	struct workspace *workspace = NULL;

	if (workspace_open(p->app.home, path, &workspace, &err) < 0) {
		fprintf(p->report, "%s: %s\n", p->name, err.message);
		exit(99);
	}
	return workspace;
}

void
proof_forget(struct proof *p)
{
	AUTO_FREE char *path = proof_path(p, "moat/workspaces");
	DIR *stream = opendir(path);
	const struct dirent *entry;

	if (stream == NULL)
		proof_die("opendir", __FILE__, __LINE__);
	while ((entry = readdir(stream)) != NULL)
		if (entry->d_name[0] != '.')
			proof_remove(dirfd(stream), entry->d_name);
	closedir(stream);
}

/* What main() does, with the home and the plugins of the parent. */
static int
run_command(struct proof *p, const char *const *argv)
{
	const char *whole[32] = {"moat"};
	const struct command *command = NULL;
	struct args *args = NULL;
	struct moat_error err = MOAT_ERROR_INIT;
	int count = 1, status = -1;

	for (; argv[count - 1] != NULL; count++)
		whole[count] = argv[count - 1];
	umask(077);
	if (args_parse(count, (char **) whole, &command, &args, &err) == 0)
		status = command->run(&p->app, args, &err);
	if (err.code != MOAT_OK) {
		log_failure(&err);
		if (status <= 0)
			status = status_of(&err);
	}
	fflush(stdout);
	return status < 0 ? 1 : status;
}

int
proof_moat(struct proof *p, const char *directory, const char *const *argv)
{
	int status;
	pid_t child;

	proof_hush(p);
	child = fork();
	MUST(child);
	if (child == 0) {
		alarm(120);
		MUST(chdir(directory));
		_exit(run_command(p, argv));
	}
	MUST(waitpid(child, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ------------------------------------------------------------------------------------ removing */

static void
remove_children(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	DIR *stream = fdopendir(copy);
	const struct dirent *entry;

	if (stream == NULL)
		proof_die("fdopendir", __FILE__, __LINE__);
	while ((entry = readdir(stream)) != NULL)
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			proof_remove(fd, entry->d_name);
	closedir(stream);
}

void
proof_remove(int dirfd, const char *name)
{
	struct stat st;
	int fd;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	if (!S_ISDIR(st.st_mode)) {
		MUST(unlinkat(dirfd, name, 0));
		return;
	}
	if ((st.st_mode & 0700) != 0700)
		MUST(fchmodat(dirfd, name, 0700, 0));
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	MUST(fd);
	remove_children(fd);
	close(fd);
	MUST(unlinkat(dirfd, name, AT_REMOVEDIR));
}
