/* SPDX-License-Identifier: Apache-2.0 */
/* Opening below a directory (both ways, also under attack), whole files, removal, locks. */
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fs.h"

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* Every test has a scratch directory; what it tears down it opens to itself first. */
struct scratch {
	char path[64];
	int fd;
};

static int
setup(void **state)
{
	struct scratch *scratch = calloc(1, sizeof *scratch);

	if (scratch == NULL)
		return -1;
	(void) snprintf(scratch->path, sizeof scratch->path, "/tmp/moat-test-fs-XXXXXX");
	if (mkdtemp(scratch->path) == NULL)
		return -1;
	scratch->fd = open(scratch->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = scratch;
	return scratch->fd < 0 ? -1 : 0;
}

static int
setup_walk(void **state)
{
	fs_force_walk(true);
	return setup(state);
}

static int
teardown(void **state)
{
	struct scratch *scratch = *state;
	int result;

	fs_force_walk(false);
	(void) close(scratch->fd);
	result = fs_remove_tree(AT_FDCWD, scratch->path, NULL);
	free(scratch);
	return result;
}

static bool
exists(int dirfd, const char *name)
{
	struct stat status;

	return fstatat(dirfd, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static size_t
count_names(int dirfd)
{
	DIR *stream = fdopendir(openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	size_t count = 0;

	assert_non_null(stream);
	while (readdir(stream) != NULL)
		count++;
	(void) closedir(stream);
	return count - 2;
}

/* ------------------------------------------------------------------- opening below a directory */

static void
assert_opens(int rootfd, const char *path, int flags, const char *content)
{
	struct moat_error err = MOAT_ERROR_INIT;
	char data[64] = "";
	int fd = fs_open_beneath(rootfd, path, flags, 0, &err);

	assert_ok(fd, &err);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	if (content != NULL) {
		assert_true(read(fd, data, sizeof data - 1) >= 0);
		assert_string_equal(data, content);
	}
	(void) close(fd);
}

static void
test_open(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	struct stat status;
	int fd;

	assert_int_equal(mkdirat(scratch->fd, "a", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "a/b\n\xff", 0711), 0);
	put(scratch->fd, "a/b\n\xff/file", "text");
	put(scratch->fd, "..data", "dots");
	assert_opens(scratch->fd, "a/b\n\xff/file", O_RDONLY, "text");
	assert_opens(scratch->fd, "..data", O_RDONLY, "dots");
	assert_opens(scratch->fd, "a", O_RDONLY | O_DIRECTORY, NULL);
	assert_opens(scratch->fd, "", O_RDONLY | O_DIRECTORY, NULL);
	assert_fails(fs_open_beneath(scratch->fd, "a/none", O_RDONLY, 0, &err), &err,
		     MOAT_NOT_FOUND, "open `a/none'");
	assert_fails(fs_open_beneath(scratch->fd, "..data/x", O_RDONLY, 0, &err), &err, MOAT_FAILED,
		     "Not a directory");
	assert_fails(fs_open_beneath(scratch->fd, "a", O_WRONLY, 0, &err), &err, MOAT_FAILED,
		     "Is a directory");

	fd = fs_open_beneath(scratch->fd, "a/new", O_WRONLY | O_CREAT | O_EXCL, 0640, &err);
	assert_ok(fd, &err);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(status.st_mode & 07777 & ~0640, 0);
	(void) close(fd);
	assert_fails(fs_open_beneath(scratch->fd, "a/new", O_WRONLY | O_CREAT | O_EXCL, 0640, &err),
		     &err, MOAT_EXISTS, "File exists");
	assert_opens(scratch->fd, "..data", O_WRONLY | O_TRUNC, NULL);
	assert_opens(scratch->fd, "..data", O_RDONLY, "");
}

static void
test_open_refuses(void **state)
{
	static const char *const paths[] = {"/",    "/etc/passwd", "..",  "a/..", "a/../a",
					    "../x", ".",           "./a", "a/.",  "a//b",
					    "a/",   "/a",          "//"};
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;

	assert_int_equal(mkdirat(scratch->fd, "a", 0755), 0);
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		assert_fails(fs_open_beneath(scratch->fd, paths[i], O_RDONLY, 0, &err), &err,
			     MOAT_USAGE, "not a path inside a directory");
}

static void
test_open_links(void **state)
{
	static const char *const paths[] = {"a/in",       "a/out/passwd", "a/file-link",
					    "a/dangling", "a/self/in",    "a/dir-link/file",
					    "a/dir-link"};
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	struct stat status;
	int fd;

	assert_int_equal(mkdirat(scratch->fd, "a", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "a/dir", 0755), 0);
	put(scratch->fd, "a/dir/file", "text");
	assert_int_equal(symlinkat(".", scratch->fd, "a/in"), 0);
	assert_int_equal(symlinkat("/etc", scratch->fd, "a/out"), 0);
	assert_int_equal(symlinkat("dir/file", scratch->fd, "a/file-link"), 0);
	assert_int_equal(symlinkat("nowhere", scratch->fd, "a/dangling"), 0);
	assert_int_equal(symlinkat("self", scratch->fd, "a/self"), 0);
	assert_int_equal(symlinkat("dir", scratch->fd, "a/dir-link"), 0);
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		assert_fails(fs_open_beneath(scratch->fd, paths[i], O_RDONLY, 0, &err), &err,
			     MOAT_CONFLICT, "symbolic link");
		assert_fails(fs_open_beneath(scratch->fd, paths[i], O_PATH, 0, &err), &err,
			     MOAT_CONFLICT, "symbolic link");
	}
	assert_fails(fs_open_beneath(scratch->fd, "a/dangling", O_WRONLY | O_CREAT, 0600, &err),
		     &err, MOAT_CONFLICT, "symbolic link");
	assert_false(exists(scratch->fd, "a/nowhere"));
	/* The link itself, for those who ask for it. */
	fd = fs_open_beneath(scratch->fd, "a/out", O_PATH | O_NOFOLLOW, 0, &err);
	assert_ok(fd, &err);
	assert_int_equal(fstat(fd, &status), 0);
	assert_true(S_ISLNK(status.st_mode));
	(void) close(fd);
}

static void
test_open_other_mount(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool separate = fs_mount_id(root) != fs_mount_id(proc);

	assert_true(fs_mount_id(root) >= 0);
	(void) close(proc);
	if (separate) {
		assert_fails(fs_open_beneath(root, "proc/version", O_RDONLY, 0, &err), &err,
			     MOAT_CONFLICT, "another filesystem");
		assert_fails(fs_open_beneath(root, "proc", O_RDONLY, 0, &err), &err, MOAT_CONFLICT,
			     "another filesystem");
	}
	(void) close(root);
	if (!separate)
		skip();
}

/* Makes directories name/name/..., one descriptor at a time; returns the deepest. */
static int
make_deep(int dirfd, const char *name, int levels)
{
	int fd = dup(dirfd), next;

	for (int i = 0; i < levels && fd >= 0; i++) {
		next = mkdirat(fd, name, 0700) < 0
			       ? -1
			       : openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void) close(fd);
		fd = next;
	}
	return fd;
}

static void
test_open_long_path(void **state)
{
	const struct scratch *scratch = *state;
	AUTO_BUF struct buf path = {0};
	int fd = make_deep(scratch->fd, "a-directory", 600);

	assert_true(fd >= 0);
	put(fd, "file", "deep");
	(void) close(fd);
	for (int i = 0; i < 600; i++)
		buf_string(&path, "a-directory/");
	buf_string(&path, "file");
	assert_opens(scratch->fd, path.data, O_RDONLY, "deep");
}

static void
test_open_parent(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	const char *path = "a/file", *name = NULL;
	int fd;

	assert_int_equal(mkdirat(scratch->fd, "a", 0755), 0);
	put(scratch->fd, "a/file", "text");
	fd = fs_open_parent(scratch->fd, path, &name, &err);
	assert_ok(fd, &err);
	assert_ptr_equal(name, path + 2);
	assert_true(exists(fd, name));
	assert_ok(fs_sync(fd, "a", &err), &err);
	(void) close(fd);
	fd = fs_open_parent(scratch->fd, "top", &name, &err);
	assert_ok(fd, &err);
	assert_string_equal(name, "top");
	(void) close(fd);
	assert_fails(fs_open_parent(scratch->fd, "", &name, &err), &err, MOAT_USAGE, "parent");
	assert_fails(fs_open_parent(scratch->fd, "a/..", &name, &err), &err, MOAT_USAGE, "parent");
	assert_fails(fs_open_parent(scratch->fd, "/a", &name, &err), &err, MOAT_USAGE, "parent");
	assert_fails(fs_open_parent(scratch->fd, "b/c", &name, &err), &err, MOAT_NOT_FOUND, "b");
}

/* Makes system call `number` fail with `sys_errno` in this process. */
static int
forbid(long number, int sys_errno)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned) number, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned) sys_errno),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {sizeof code / sizeof code[0], code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* A file below is opened, a link is not, another mount is not. */
static int
check_fallback(const struct scratch *scratch)
{
	int good = fs_open_beneath(scratch->fd, "a/file", O_RDONLY, 0, NULL);
	int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (good < 0 || fs_open_beneath(scratch->fd, "a/link/file", O_RDONLY, 0, NULL) >= 0)
		return 1;
	if (fs_mount_id(good) < 0 || fs_mount_id(good) != fs_mount_id(scratch->fd))
		return 2;
	if (fs_mount_id(root) != fs_mount_id(proc) &&
	    fs_open_beneath(root, "proc/version", O_RDONLY, 0, NULL) >= 0)
		return 3;
	return 0;
}

static int
without_openat2(const struct scratch *scratch)
{
	return forbid(SYS_openat2, ENOSYS) < 0 ? 77 : check_fallback(scratch);
}

static int
with_forbidden_openat2(const struct scratch *scratch)
{
	return forbid(SYS_openat2, EPERM) < 0 ? 77 : check_fallback(scratch);
}

static int
on_old_kernel(const struct scratch *scratch)
{
	if (forbid(SYS_openat2, ENOSYS) < 0 || forbid(SYS_statx, ENOSYS) < 0)
		return 77;
	return check_fallback(scratch);
}

static void
test_fallback(void **state)
{
	const struct scratch *scratch = *state;

	assert_int_equal(mkdirat(scratch->fd, "a", 0755), 0);
	put(scratch->fd, "a/file", "text");
	assert_int_equal(symlinkat(".", scratch->fd, "a/link"), 0);
	in_child(without_openat2, scratch);
	in_child(with_forbidden_openat2, scratch);
	in_child(on_old_kernel, scratch);
}

/* -------------------------------------------------------------------------------- under attack */

/* "in/x" is a directory or a link to "out", by turns.  Nothing of "out" is ever opened, and nothing
 * is made in it. */
static void
test_open_race(void **state)
{
	const struct scratch *scratch = *state;
	int in;
	pid_t attacker;
	long opened = 0, refused = 0, count = test_scaled(20000);
	char out_path[128];

	assert_int_equal(mkdirat(scratch->fd, "out", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "in", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "in/x", 0755), 0);
	put(scratch->fd, "out/file", "canary");
	put(scratch->fd, "in/x/file", "inside");
	(void) snprintf(out_path, sizeof out_path, "%s/out", scratch->path);
	assert_int_equal(symlinkat(out_path, scratch->fd, "in/y"), 0);
	in = openat(scratch->fd, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	attacker = begin_attack(in, "x", "y");
	/* Both outcomes are wanted; on a busy machine there may be one. */
	for (long i = 0; i < count || ((opened == 0 || refused == 0) && i < 10 * count); i++) {
		char data[8] = "", name[32];
		int fd = fs_open_beneath(in, "x/file", O_RDONLY, 0, NULL);

		if (fd >= 0) {
			opened++;
			assert_int_equal(read(fd, data, 6), 6);
			assert_string_equal(data, "inside");
			(void) close(fd);
		} else {
			refused++;
		}
		(void) snprintf(name, sizeof name, "x/n%ld", i % 16);
		fd = fs_open_beneath(in, name, O_WRONLY | O_CREAT, 0600, NULL);
		if (fd >= 0)
			(void) close(fd);
	}
	end_attack(attacker);
	(void) close(in);
	in = openat(scratch->fd, "out", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(count_names(in), 1);
	(void) close(in);
}

/* What is outside of the tree that is removed stays, though directories in it become links. */
static void
test_remove_race(void **state)
{
	const struct scratch *scratch = *state;
	pid_t attacker;
	char out_path[128];

	assert_int_equal(mkdirat(scratch->fd, "out", 0755), 0);
	put(scratch->fd, "out/file", "canary");
	(void) snprintf(out_path, sizeof out_path, "%s/out", scratch->path);
	assert_int_equal(symlinkat(out_path, scratch->fd, "link"), 0);
	attacker = begin_attack(scratch->fd, "tree/x", "link");
	for (long i = 0; i < test_scaled(3000); i++) {
		if (mkdirat(scratch->fd, "tree", 0755) == 0 || errno == EEXIST) {
			(void) mkdirat(scratch->fd, "tree/x", 0755);
			(void) mkdirat(scratch->fd, "tree/x/y", 0755);
		}
		(void) fs_remove_tree(scratch->fd, "tree", NULL);
		/* The link may have gone as part of the tree. */
		assert_true(symlinkat(out_path, scratch->fd, "link") == 0 || errno == EEXIST);
	}
	end_attack(attacker);
	assert_true(exists(scratch->fd, "out/file"));
}

/* -------------------------------------------------------------------------------- whole files */

static void
test_read(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	char *data = NULL;
	size_t size = 0;
	int fd;

	put(scratch->fd, "file", "text");
	assert_ok(fs_read(scratch->fd, "file", 4, &data, &size, &err), &err);
	assert_int_equal(size, 4);
	assert_string_equal(data, "text");
	free(data);
	assert_fails(fs_read(scratch->fd, "file", 3, &data, &size, &err), &err, MOAT_CORRUPT,
		     "larger than 3 bytes");
	put(scratch->fd, "empty", "");
	assert_ok(fs_read(scratch->fd, "empty", 0, &data, NULL, &err), &err);
	assert_string_equal(data, "");
	free(data);
	assert_fails(fs_read(scratch->fd, "none", 9, &data, &size, &err), &err, MOAT_NOT_FOUND,
		     "open `none'");
	assert_fails(fs_read(scratch->fd, ".", 9, &data, &size, &err), &err, MOAT_FAILED,
		     "not a regular file");
	assert_int_equal(mkfifoat(scratch->fd, "fifo", 0600), 0);
	assert_fails(fs_read(scratch->fd, "fifo", 9, &data, &size, &err), &err, MOAT_FAILED,
		     "not a regular file");
	/* Larger than what is read at a time, and sparse. */
	fd = openat(scratch->fd, "large", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, 100001), 0);
	(void) close(fd);
	assert_ok(fs_read(scratch->fd, "large", 100001, &data, &size, &err), &err);
	assert_int_equal(size, 100001);
	assert_int_equal(data[size], '\0');
	free(data);
}

static void
assert_file(int dirfd, const char *name, const char *text, mode_t mode)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct stat status;
	char *data = NULL;

	assert_ok(fs_read(dirfd, name, 1000, &data, NULL, &err), &err);
	assert_string_equal(data, text);
	free(data);
	assert_int_equal(fstatat(dirfd, name, &status, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(status.st_mode, S_IFREG | mode);
}

static void
test_write_atomic(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	mode_t mask = umask(077);

	assert_ok(fs_write_atomic(scratch->fd, "file", "one", 3, 0666, &err), &err);
	assert_file(scratch->fd, "file", "one", 0666);
	(void) umask(mask);
	assert_ok(fs_write_atomic(scratch->fd, "file", "other", 5, 0600, &err), &err);
	assert_file(scratch->fd, "file", "other", 0600);
	assert_ok(fs_write_atomic(scratch->fd, "file", NULL, 0, 0640, &err), &err);
	assert_file(scratch->fd, "file", "", 0640);
	/* A link is replaced, not followed. */
	assert_int_equal(symlinkat("file", scratch->fd, "link"), 0);
	assert_ok(fs_write_atomic(scratch->fd, "link", "x", 1, 0600, &err), &err);
	assert_file(scratch->fd, "link", "x", 0600);
	assert_file(scratch->fd, "file", "", 0640);
	/* In another directory. */
	assert_int_equal(mkdirat(scratch->fd, "d", 0700), 0);
	assert_ok(fs_write_atomic(scratch->fd, "d/file", "y", 1, 0600, &err), &err);
	assert_file(scratch->fd, "d/file", "y", 0600);
	assert_int_equal(count_names(scratch->fd), 3);
}

/* When it fails nothing has changed, and nothing is left. */
static void
test_write_atomic_fails(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;

	assert_int_equal(mkdirat(scratch->fd, "d", 0700), 0);
	assert_fails(fs_write_atomic(scratch->fd, "d", "x", 1, 0600, &err), &err, MOAT_FAILED,
		     "write `d': rename");
	assert_fails(fs_write_atomic(scratch->fd, "no/file", "x", 1, 0600, &err), &err,
		     MOAT_NOT_FOUND, "write `no/file'");
	assert_int_equal(count_names(scratch->fd), 1);
}

static int
with_file_size_limit(const struct scratch *scratch)
{
	struct rlimit limit = {1000, 1000};
	struct moat_error err = MOAT_ERROR_INIT;
	char data[4000] = "";

	if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR || setrlimit(RLIMIT_FSIZE, &limit) < 0)
		return 77;
	if (fs_write_atomic(scratch->fd, "file", data, sizeof data, 0600, &err) == 0)
		return 1;
	return err.code == MOAT_NO_SPACE ? 0 : 2;
}

static void
test_write_atomic_full(void **state)
{
	const struct scratch *scratch = *state;

	put(scratch->fd, "file", "old");
	in_child(with_file_size_limit, scratch);
	assert_file(scratch->fd, "file", "old", 0644);
	assert_int_equal(count_names(scratch->fd), 1);
}

static void
test_sync(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;
	int pipes[2];

	assert_int_equal(pipe(pipes), 0);
	assert_ok(fs_sync(pipes[0], "a pipe", &err), &err); /* EINVAL */
	(void) close(pipes[0]);
	(void) close(pipes[1]);
	assert_fails(fs_sync(-1, "nothing", &err), &err, MOAT_FAILED, "sync `nothing'");
	assert_fails(fs_write_all(-1, "x", 1, "nothing", &err), &err, MOAT_FAILED,
		     "write `nothing'");
}

/* -------------------------------------------------------------------------------- directories */

static void
test_directories(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	char path[128];
	struct stat status;
	int fd;

	(void) snprintf(path, sizeof path, "%s/a//b/c/", scratch->path);
	for (int i = 0; i < 2; i++) {
		fd = fs_make_directories(path, &err);
		assert_ok(fd, &err);
		assert_int_equal(fstat(fd, &status), 0);
		assert_int_equal(status.st_mode, S_IFDIR | 0700);
		(void) close(fd);
	}
	put(scratch->fd, "file", "");
	(void) snprintf(path, sizeof path, "%s/file/b", scratch->path);
	assert_fails(fs_make_directories(path, &err), &err, MOAT_FAILED, "file");
	fd = fs_open_directory(scratch->fd, "new", true, &err);
	assert_ok(fd, &err);
	(void) close(fd);
	fd = fs_open_directory(scratch->fd, "new", false, &err);
	assert_ok(fd, &err);
	(void) close(fd);
	assert_fails(fs_open_directory(scratch->fd, "none", false, &err), &err, MOAT_NOT_FOUND,
		     "none");
	assert_int_equal(symlinkat("new", scratch->fd, "link"), 0);
	assert_fails(fs_open_directory(scratch->fd, "link", true, &err), &err, MOAT_FAILED, "link");
}

/* ------------------------------------------------------------------------------------ removal */

/* As an ordinary user, who is bound by the modes of directories. */
static int
remove_forbidden(const struct scratch *scratch)
{
	static const char *const names[] = {"t", "t/a", "t/a/b", "t/c", "t/c/d"};
	struct moat_error err = MOAT_ERROR_INIT;

	if (fchmod(scratch->fd, 0777) < 0 || (geteuid() == 0 && setuid(65534) < 0))
		return 77;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		if (mkdirat(scratch->fd, names[i], 0700) < 0)
			return 1;
	}
	put(scratch->fd, "t/a/b/file", "");
	put(scratch->fd, "t/c/d/file", "");
	if (fchmodat(scratch->fd, "t/a/b", 0555, 0) < 0 || fchmodat(scratch->fd, "t/a", 0, 0) < 0 ||
	    fchmodat(scratch->fd, "t/c/d", 0, 0) < 0 || fchmodat(scratch->fd, "t/c", 0111, 0) < 0 ||
	    fchmodat(scratch->fd, "t", 0555, 0) < 0)
		return 2;
	if (fs_remove_tree(scratch->fd, "t", &err) < 0) {
		print_message("%s\n", err.message);
		return 3;
	}
	return exists(scratch->fd, "t") ? 4 : 0;
}

static void
test_remove_forbidden(void **state)
{
	in_child(remove_forbidden, *state);
}

static void
test_remove(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	char name[256];

	assert_int_equal(mkdirat(scratch->fd, "out", 0700), 0);
	put(scratch->fd, "out/canary", "");
	assert_int_equal(mkdirat(scratch->fd, "t", 0700), 0);
	assert_int_equal(symlinkat("../out", scratch->fd, "t/link"), 0);
	assert_int_equal(symlinkat("nowhere", scratch->fd, "t/dangling"), 0);
	assert_int_equal(mkfifoat(scratch->fd, "t/fifo", 0600), 0);
	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		(void) snprintf(name, sizeof name, "t/%cx", c);
		assert_int_equal(mkdirat(scratch->fd, name, 0700), 0);
		(void) snprintf(name, sizeof name, "t/%cx/%cy", c, c);
		put(scratch->fd, name, "");
	}
	for (int i = 0; i < 3000; i++) {
		(void) snprintf(name, sizeof name, "t/%d", i);
		put(scratch->fd, name, "");
	}
	assert_ok(fs_remove_tree(scratch->fd, "t", &err), &err);
	assert_false(exists(scratch->fd, "t"));
	assert_true(exists(scratch->fd, "out/canary"));
	/* A link itself, a file, nothing. */
	assert_int_equal(symlinkat("out", scratch->fd, "link"), 0);
	assert_ok(fs_remove_tree(scratch->fd, "link", &err), &err);
	assert_ok(fs_remove_tree(scratch->fd, "out/canary", &err), &err);
	assert_ok(fs_remove_tree(scratch->fd, "t", &err), &err);
	assert_ok(fs_remove_tree(scratch->fd, "no/t", &err), &err);
	assert_int_equal(count_names(scratch->fd), 1);
	for (int i = 0; i < 5; i++) {
		static const char *const bad[] = {"", ".", "..", "out/..", "out/"};

		assert_fails(fs_remove_tree(scratch->fd, bad[i], &err), &err, MOAT_USAGE,
			     "not the name");
	}
	assert_true(exists(scratch->fd, "out"));
}

/* Deeper than a path can be long, wider than what is kept open, with few descriptors to spare. */
static int
remove_deep(const struct scratch *scratch)
{
	struct rlimit limit = {64, 64};
	struct moat_error err = MOAT_ERROR_INIT;
	int fd = make_deep(scratch->fd, "deep", 3000), next;

	if (fd < 0 || close(fd) < 0)
		return 1;
	/* Siblings at each of the first levels, so that reading goes on after coming back. */
	fd = dup(scratch->fd);
	for (int i = 0; i < 120; i++) {
		next = openat(fd, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void) close(fd);
		fd = next;
		if (mkdirat(fd, "a", 0700) < 0 || mkdirat(fd, "z", 0700) < 0)
			return 2;
		put(fd, "a/file", "");
		put(fd, "z/file", "");
	}
	(void) close(fd);
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 77;
	if (fs_remove_tree(scratch->fd, "deep", &err) < 0) {
		print_message("%s\n", err.message);
		return 3;
	}
	return exists(scratch->fd, "deep") ? 4 : 0;
}

static void
test_remove_deep(void **state)
{
	in_child(remove_deep, *state);
}

static const char *
path_of(char out[128], const struct scratch *scratch, const char *name)
{
	(void) snprintf(out, 128, "%s/%s", scratch->path, name);
	return out;
}

/* In a namespace of its own, with another filesystem mounted inside of the tree. */
static int
remove_with_mount(const struct scratch *scratch)
{
	struct moat_error err = MOAT_ERROR_INIT;
	char path[128], source[128];
	int top, inside;

	/* A tmpfs in one place; in another a second mount of the very same filesystem, whose
	 * st_dev is the same. */
	if (own_mounts() < 0 ||
	    mount("none", path_of(path, scratch, "t/mnt"), "tmpfs", 0, "") < 0 ||
	    mount(path_of(source, scratch, "out"), path_of(path, scratch, "u/bind"), "none",
		  MS_BIND, "") < 0)
		return 77;
	/* The descriptor from before leads to the mounts from before. */
	top = open(scratch->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	inside = openat(top, "t/mnt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0 || inside < 0 || mkdirat(inside, "canary", 0755) < 0)
		return 1;
	if (fs_remove_tree(top, "t", &err) == 0 || err.code != MOAT_BUSY)
		return 2;
	if (strstr(err.message, "remove `t/mnt': another filesystem") == NULL ||
	    !exists(inside, "canary"))
		return 3;
	moat_error_clear(&err);
	if (fs_remove_tree(top, "u", &err) == 0 || err.code != MOAT_BUSY)
		return 4;
	return exists(top, "out/canary") ? 0 : 5;
}

static void
test_remove_mount(void **state)
{
	const struct scratch *scratch = *state;

	assert_int_equal(mkdirat(scratch->fd, "out", 0755), 0);
	put(scratch->fd, "out/canary", "");
	assert_int_equal(mkdirat(scratch->fd, "t", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "t/mnt", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "u", 0755), 0);
	assert_int_equal(mkdirat(scratch->fd, "u/bind", 0755), 0);
	in_child(remove_with_mount, scratch);
}

/* -------------------------------------------------------------------------------------- locks */

static void
test_lock(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	int first, second;

	first = fs_lock(scratch->fd, "lock", true, false, &err);
	assert_ok(first, &err);
	assert_fails(fs_lock(scratch->fd, "lock", true, false, &err), &err, MOAT_BUSY,
		     "`lock' is locked");
	assert_fails(fs_lock(scratch->fd, "lock", false, false, &err), &err, MOAT_BUSY, "lock");
	(void) close(first);
	first = fs_lock(scratch->fd, "lock", false, false, &err);
	assert_ok(first, &err);
	second = fs_lock(scratch->fd, "lock", false, true, &err);
	assert_ok(second, &err);
	assert_fails(fs_lock(scratch->fd, "lock", true, false, &err), &err, MOAT_BUSY, "lock");
	(void) close(first);
	(void) close(second);
	assert_fails(fs_lock(scratch->fd, "no/lock", true, false, &err), &err, MOAT_NOT_FOUND,
		     "open lock");
}

/* Waits for the lock, and looks whether it is one that others meet. */
static int
wait_for_lock(const struct scratch *scratch, int ready)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct stat held, named;
	int fd;

	if (write(ready, "x", 1) != 1)
		return 1;
	fd = fs_lock(scratch->fd, "lock", true, true, &err);
	if (fd < 0)
		return 2;
	if (fstat(fd, &held) < 0 || fstatat(scratch->fd, "lock", &named, 0) < 0 ||
	    !fs_same_file(&held, &named))
		return 3;
	if (fs_lock(scratch->fd, "lock", true, false, &err) >= 0 || err.code != MOAT_BUSY)
		return 4;
	return 0;
}

/* Until the process sleeps, which this one does only in fcntl(2). */
static void
await_sleep(pid_t child)
{
	char path[64], *text = NULL;
	bool asleep = false;

	(void) snprintf(path, sizeof path, "/proc/%d/stat", child);
	while (!asleep && fs_read(AT_FDCWD, path, 4096, &text, NULL, NULL) == 0) {
		asleep = strstr(text, ") R ") == NULL;
		free(text);
	}
}

/* Who waits for a lock whose file is replaced meanwhile must not end with a lock on a file that
 * nobody else will ever open. */
static void
test_lock_replaced(void **state)
{
	const struct scratch *scratch = *state;
	struct moat_error err = MOAT_ERROR_INIT;
	int fd = fs_lock(scratch->fd, "lock", true, true, &err), pipes[2], status;
	pid_t child;
	char byte;

	assert_ok(fd, &err);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		(void) close(fd); /* a lock lives as long as any copy of its descriptor */
		_exit(wait_for_lock(scratch, pipes[1]));
	}
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	await_sleep(child);
	assert_int_equal(unlinkat(scratch->fd, "lock", 0), 0);
	put(scratch->fd, "lock", "");
	(void) close(fd);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	(void) close(pipes[0]);
	(void) close(pipes[1]);
}

#define BOTH_WAYS(test)                                                                            \
	{#test, test, setup, teardown, NULL},                                                      \
	{                                                                                          \
#test " (walk)", test, setup_walk, teardown, NULL                                  \
	}
#define ONCE(test)                                                                                 \
	{                                                                                          \
#test, test, setup, teardown, NULL                                                 \
	}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		BOTH_WAYS(test_open),
		BOTH_WAYS(test_open_refuses),
		BOTH_WAYS(test_open_links),
		BOTH_WAYS(test_open_other_mount),
		BOTH_WAYS(test_open_long_path),
		BOTH_WAYS(test_open_parent),
		BOTH_WAYS(test_open_race),
		ONCE(test_fallback),
		ONCE(test_read),
		ONCE(test_write_atomic),
		ONCE(test_write_atomic_fails),
		ONCE(test_write_atomic_full),
		ONCE(test_sync),
		ONCE(test_directories),
		ONCE(test_remove),
		ONCE(test_remove_forbidden),
		ONCE(test_remove_deep),
		ONCE(test_remove_mount),
		ONCE(test_remove_race),
		ONCE(test_lock),
		ONCE(test_lock_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
