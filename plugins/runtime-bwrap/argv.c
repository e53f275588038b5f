/* SPDX-License-Identifier: Apache-2.0 */
/* What a sandbox consists of, as arguments of bubblewrap (0.5 or newer).
 *
 * From the bottom up; later layers cover earlier ones:
 *
 *   what                  how                  why
 *   --------------------  -------------------  --------------------------------------------------
 *   /                     read-only            tools, libraries, the user's own set-up: an agent
 *                                              finds what its user has, and can change none of it
 *   /dev                  new, minimal         no disks, no input devices, its own pts and shm
 *   /proc                 of the pid namespace other processes of the host are not even named
 *                         root: read-only      /proc/sys, sysrq-trigger and others are the host's,
 *                                              and user 0 may write there without any capability
 *   /tmp /var/tmp         empty, 1777          private; sockets of X11, tmux, ssh-agent live there
 *   /dev/shm
 *   /run (/var/run)       empty                sockets of docker, dbus, systemd, and of the user's
 *                                              session ($XDG_RUNTIME_DIR), would be ways out
 *   a few paths of /run   read-only            see run_paths[] and add_resolver()
 *   engine_sockets[]      /dev/null over it    who may talk to such an engine is root on the host
 *   hidden paths          empty directory, or  secrets.  A hidden file reads as empty: programs
 *                         /dev/null over it    take that for "nothing configured", while an error
 *                                              would stop many of them
 *   workspaces, mounts    as asked for         what the command is for
 *
 * The last two are applied by depth, so that of two nested ones the inner decides: a mount below
 * a hidden directory shows, a hidden file within a mount stays hidden, also when the mount puts it
 * at another place.  On the very same path the mount wins: somebody asked for it by name.
 *
 * Namespaces: pid (what is started ends with the run, and nothing else can be signalled), ipc (no
 * shared memory or queues of the host), uts, net when asked for, and the
 * user namespace that bwrap needs when it is not root.  bwrap sets no_new_privs itself, always.
 * User namespaces inside stay allowed: browsers and nested sandboxes build theirs of them.  Cgroup
 * namespaces are not made, neither here nor inside: seccomp.c says why. */
#include "argv.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/text.h"

#define INIT_PATH "/run/moat-init"

static const char *const namespaces[] = {
	"--unshare-pid",
	"--unshare-ipc",
	"--unshare-uts",
	"--as-pid-1", /* init is process 1; bwrap adds none of its own */
	"--chdir",
	"/",
	NULL};

/* What root keeps, where bwrap makes no user namespace.  Everything else would reach the host:
 * SYS_ADMIN could remount what is read-only, MKNOD make a disk, SYS_PTRACE and NET_ADMIN touch what
 * is not the run's, SETPCAP and SETFCAP give away the rest. */
static const char *const root_capabilities[] = {
	"CAP_CHOWN",        /* make install, tar: owners of files */
	"CAP_DAC_OVERRIDE", /* root works in directories of others; what is read-only stays so */
	"CAP_FOWNER",       /* chmod and utimes of files of others */
	"CAP_FSETID",       /* keep setuid and setgid bits, as install -m 2755 expects */
	"CAP_SETUID",       /* su, apt and test suites that become an ordinary user */
	"CAP_SETGID",
	"CAP_KILL", /* then signal such a process; the pid namespace bounds it */
	NULL};

/* Directories that are the sandbox's own. */
static const struct private_directory {
	const char *path, *mode;
} private_directories[] = {{"/tmp", "1777"},
			   {"/var/tmp", "1777"},
			   {"/dev/shm", "1777"},
			   {"/run", "0755"},
			   {"/var/run", "0755"}};

/* Software, not sockets: without them there are no commands on NixOS and no GPU libraries. */
static const char *const run_paths[] = {"/run/current-system", "/run/booted-system",
					"/run/opengl-driver", NULL};

/* Those that are not in /run: of LXD and Incus. */
static const char *const engine_sockets[] = {"/var/snap/lxd/common/lxd/unix.socket",
					     "/var/lib/lxd/unix.socket",
					     "/var/lib/incus/unix.socket", NULL};

/* A mount here would replace the sandbox itself. */
static const char *const reserved_targets[] = {"/", "/dev", "/proc", "/run", NULL};

enum layer_kind { LAYER_HIDE_FILE = 0, LAYER_HIDE_DIRECTORY = 1, LAYER_MOUNT = 2 };

struct layer {
	enum layer_kind kind;
	int read_only;
	size_t depth, index;
	const char *source, *target;
};

struct layers {
	struct layer *items;
	size_t count, allocated;
};

static void
layers_free(struct layers *layers)
{
	free(layers->items);
}

void
argv_free(struct argv *argv)
{
	arena_free(&argv->arena);
	free(argv->items);
	memset(argv, 0, sizeof *argv);
}

static void
add(struct argv *argv, const char *item)
{
	const char **items;
	size_t allocated;

	if (argv->failed)
		return;
	if (argv->count + 2 > argv->allocated) {
		allocated = argv->allocated == 0 ? 64 : argv->allocated * 2;
		items = realloc(argv->items, allocated * sizeof *items);
		if (items == NULL) {
			argv->failed = 1;
			return;
		}
		argv->items = items;
		argv->allocated = allocated;
	}
	item = arena_string(&argv->arena, item);
	if (item == NULL) {
		argv->failed = 1;
		return;
	}
	argv->items[argv->count++] = item;
	argv->items[argv->count] = NULL;
}

static void
add_two(struct argv *argv, const char *option, const char *value)
{
	add(argv, option);
	add(argv, value);
}

static void
add_three(struct argv *argv, const char *option, const char *source, const char *target)
{
	add_two(argv, option, source);
	add(argv, target);
}

static void
add_all(struct argv *argv, const char *const *items)
{
	for (; *items != NULL; items++)
		add(argv, *items);
}

int
path_is_within(const char *path, const char *directory)
{
	size_t size = strlen(directory);

	if (size == 1)
		return 1;
	return strncmp(path, directory, size) == 0 && (path[size] == '\0' || path[size] == '/');
}

/* The real path, in the arena; NULL with errno. */
static const char *
real(struct argv *argv, const char *path)
{
	AUTO_FREE char *resolved = realpath(path, NULL);
	const char *copy;

	if (resolved == NULL)
		return NULL;
	copy = arena_string(&argv->arena, resolved);
	if (copy == NULL)
		errno = ENOMEM;
	return copy;
}

/* The real path of a directory, and one more component; NULL with errno. */
static const char *
real_parent(struct argv *argv, const char *path)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *parent = strndup(path, slash == path ? 1 : (size_t) (slash - path));
	AUTO_BUF struct buf joined = {0};
	const char *resolved, *copy;

	resolved = parent == NULL ? NULL : real(argv, parent);
	if (resolved == NULL)
		return NULL;
	buf_format(&joined, "%s%s", strcmp(resolved, "/") == 0 ? "" : resolved, slash);
	copy = joined.failed ? NULL : arena_string(&argv->arena, joined.data);
	if (copy == NULL)
		errno = ENOMEM;
	return copy;
}

/* Name resolution: when /etc/resolv.conf leads into /run, that one file is shown where the link
 * points, whatever further links stand between. */
static void
add_resolver(struct argv *argv)
{
	char link[PATH_MAX], path[PATH_MAX + 8];
	ssize_t size = readlink("/etc/resolv.conf", link, sizeof link - 1);
	const char *file, *target;

	if (size <= 0)
		return; /* a file: visible as it is */
	link[size] = '\0';
	(void) snprintf(path, sizeof path, "%s%s", link[0] == '/' ? "" : "/etc/", link);
	file = real(argv, path);
	target = real_parent(argv, path);
	if (file != NULL && target != NULL && path_is_within(target, "/run"))
		add_three(argv, "--ro-bind-try", file, target);
}

static void
add_base(struct argv *argv, const char *init)
{
	struct stat st;

	add_three(argv, "--ro-bind", "/", "/");
	add_two(argv, "--dev", "/dev");
	add_two(argv, "--proc", "/proc");
	/* For others it stays writable: a nested sandbox must write /proc/self/uid_map. */
	if (geteuid() == 0)
		add_two(argv, "--remount-ro", "/proc");
	for (size_t i = 0; i < sizeof private_directories / sizeof private_directories[0]; i++) {
		const struct private_directory *private = &private_directories[i];

		/* /var/run and /var/tmp are often links to one of the others; /dev/shm is in the
		 * new /dev whatever the host has. */
		if (!path_is_within(private->path, "/dev") &&
		    (lstat(private->path, &st) < 0 || !S_ISDIR(st.st_mode)))
			continue;
		add_two(argv, "--perms", private->mode);
		add_two(argv, "--tmpfs", private->path);
	}
	for (const char *const *path = run_paths; *path != NULL; path++)
		if (stat(*path, &st) == 0)
			add_three(argv, "--ro-bind-try", *path, *path);
	for (const char *const *path = engine_sockets; *path != NULL; path++)
		if (stat(*path, &st) == 0)
			add_three(argv, "--ro-bind", "/dev/null", *path);
	add_resolver(argv);
	add_three(argv, "--ro-bind", init, INIT_PATH);
}

static int
layers_add(struct layers *layers, enum layer_kind kind, const char *source, const char *target,
	   int read_only, struct moat_error *err)
{
	struct layer *items, *layer;
	size_t allocated;

	if (layers->count == layers->allocated) {
		allocated = layers->allocated == 0 ? 32 : layers->allocated * 2;
		items = realloc(layers->items, allocated * sizeof *items);
		if (items == NULL)
			return moat_fail_memory(err);
		layers->items = items;
		layers->allocated = allocated;
	}
	layer = &layers->items[layers->count];
	*layer = (struct layer){.kind = kind,
				.read_only = read_only,
				.index = layers->count,
				.source = source,
				.target = target};
	for (const char *p = target; *p != '\0'; p++)
		layer->depth += *p == '/';
	layers->count++;
	return 0;
}

/* Outer before inner, hidden before mounted, then in the order given. */
static int
compare_layers(const void *left, const void *right)
{
	const struct layer *a = left, *b = right;
	bool a_mount = a->kind == LAYER_MOUNT, b_mount = b->kind == LAYER_MOUNT;
	int order;

	if (a->depth != b->depth)
		return a->depth < b->depth ? -1 : 1;
	order = strcmp(a->target, b->target);
	if (order != 0)
		return order;
	if (a_mount != b_mount)
		return a_mount ? 1 : -1;
	return a->index < b->index ? -1 : a->index > b->index;
}

/* Where a target really lies: a mount cannot be made through a link.  What is below a private
 * directory is not the host's, so the host's links there do not count. */
static int
resolve_target(struct argv *argv, const char *target, const char **ret, struct moat_error *err)
{
	AUTO_FREE char *head = strdup(target);
	AUTO_BUF struct buf joined = {0};
	const char *resolved;
	char *slash;

	if (head == NULL)
		return moat_fail_memory(err);
	for (size_t i = 0; i < sizeof private_directories / sizeof private_directories[0]; i++)
		if (path_is_within(target, private_directories[i].path) &&
		    real(argv, private_directories[i].path) != NULL &&
		    strcmp(real(argv, private_directories[i].path), private_directories[i].path) ==
			    0) {
			*ret = arena_string(&argv->arena, target);
			return *ret == NULL ? moat_fail_memory(err) : 0;
		}
	while ((resolved = real(argv, head)) == NULL) {
		if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
			return moat_fail_errno(err, "mount target `%s'", target);
		slash = strrchr(head, '/');
		if (slash == head) {
			resolved = "";
			*slash = '\0';
			break;
		}
		*slash = '\0';
	}
	buf_format(&joined, "%s%s", strcmp(resolved, "/") == 0 ? "" : resolved,
		   target + strlen(head));
	if (buf_check(&joined, err) < 0)
		return -1;
	*ret = arena_string(&argv->arena, joined.size == 0 ? "/" : joined.data);
	return *ret == NULL ? moat_fail_memory(err) : 0;
}

/* An absolute path without empty, "." and ".." components. */
static bool
is_plain_path(const char *path)
{
	size_t size;

	if (path == NULL || path[0] != '/')
		return false;
	if (path[1] == '\0')
		return true;
	while (*path == '/') {
		path++;
		size = strcspn(path, "/");
		if (size == 0 || (size == 1 && path[0] == '.') ||
		    (size == 2 && path[0] == '.' && path[1] == '.'))
			return false;
		path += size;
	}
	return true;
}

static int
add_mount(struct argv *argv, struct layers *layers, const struct moat_mount *mount,
	  struct moat_error *err)
{
	const char *given = mount->view != NULL ? mount->view->path : mount->source;
	const char *source, *target = NULL;

	if (mount->view != NULL && mount->view->kind != MOAT_VIEW_PATH)
		return moat_fail(
			err, MOAT_UNSUPPORTED,
			"runtime bwrap cannot mount an overlay for `%s' yet: choose another "
			"--sandbox strategy",
			mount->target);
	if (given == NULL || given[0] != '/' || !is_plain_path(mount->target))
		return moat_fail(
			err, MOAT_USAGE,
			"mount `%s' on `%s': both must be absolute paths, the second without "
			"`.', `..' or double slashes",
			given == NULL ? "" : given, mount->target == NULL ? "" : mount->target);
	source = real(argv, given);
	if (source == NULL)
		return moat_fail_errno(err, "mount source `%s'", given);
	if (resolve_target(argv, mount->target, &target, err) < 0)
		return -1;
	for (const char *const *reserved = reserved_targets; *reserved != NULL; reserved++)
		if (strcmp(target, *reserved) == 0)
			return moat_fail(
				err, MOAT_USAGE,
				"mount `%s' on `%s': that directory belongs to the sandbox itself; "
				"choose another target",
				given, target);
	return layers_add(layers, LAYER_MOUNT, source, target, mount->read_only != 0, err);
}

/* Hides one real path, and every place at which a mount would show it. */
static int
add_hidden(struct argv *argv, struct layers *layers, size_t mounts, const char *path,
	   struct moat_error *err)
{
	enum layer_kind kind;
	const char *hidden = real(argv, path);
	struct stat st;

	/* What is not there, or not to be reached from here, cannot be read inside either. */
	if (hidden == NULL || stat(hidden, &st) < 0) {
		if (errno == ENOENT || errno == ENOTDIR || errno == EACCES)
			return 0;
		return moat_fail_errno(err, "hide `%s'", path);
	}
	if (strcmp(hidden, "/") == 0)
		return moat_fail(err, MOAT_USAGE, "hide `%s': the root directory cannot be hidden",
				 path);
	kind = S_ISDIR(st.st_mode) ? LAYER_HIDE_DIRECTORY : LAYER_HIDE_FILE;
	if (layers_add(layers, kind, NULL, hidden, 0, err) < 0)
		return -1;
	for (size_t i = 0; i < mounts; i++) {
		const char *source = layers->items[i].source, *target = layers->items[i].target;
		AUTO_BUF struct buf moved = {0};
		const char *copy;

		if (strcmp(source, target) == 0 || strcmp(source, hidden) == 0 ||
		    !path_is_within(hidden, source))
			continue;
		buf_format(&moved, "%s%s", target,
			   hidden + (strcmp(source, "/") == 0 ? 0 : strlen(source)));
		if (buf_check(&moved, err) < 0)
			return -1;
		copy = arena_string(&argv->arena, moved.data);
		if (copy == NULL)
			return moat_fail_memory(err);
		if (layers_add(layers, kind, NULL, copy, 0, err) < 0)
			return -1;
	}
	return 0;
}

static int
add_layers(struct argv *argv, const struct moat_run_spec *spec, struct moat_error *err)
{
	CLEANUP(layers_free) struct layers layers = {0};
	size_t mounts;

	for (size_t i = 0; spec->mounts != NULL && spec->mounts[i] != NULL; i++)
		if (add_mount(argv, &layers, spec->mounts[i], err) < 0)
			return -1;
	mounts = layers.count;
	for (size_t i = 0; spec->hide != NULL && spec->hide[i] != NULL; i++)
		if (add_hidden(argv, &layers, mounts, spec->hide[i], err) < 0)
			return -1;
	if (layers.count > 0)
		qsort(layers.items, layers.count, sizeof *layers.items, compare_layers);
	for (size_t i = 0; i < layers.count; i++) {
		const struct layer *layer = &layers.items[i];

		if (layer->kind == LAYER_MOUNT) {
			add_three(argv, layer->read_only ? "--ro-bind" : "--bind", layer->source,
				  layer->target);
		} else if (layer->kind == LAYER_HIDE_DIRECTORY) {
			add_two(argv, "--perms", "0700");
			add_two(argv, "--tmpfs", layer->target);
		} else {
			add_three(argv, "--dev-bind", "/dev/null", layer->target);
		}
	}
	return 0;
}

static void
add_capabilities(struct argv *argv)
{
	if (geteuid() != 0)
		return; /* of its own user namespace bwrap leaves none */
	add_two(argv, "--cap-drop", "ALL");
	for (const char *const *name = root_capabilities; *name != NULL; name++)
		add_two(argv, "--cap-add", *name);
}

static void
add_filter(struct argv *argv, int fd)
{
	char number[16];

	if (fd < 0)
		return;
	(void) snprintf(number, sizeof number, "%d", fd);
	add_two(argv, "--seccomp", number);
}

/* The run's name when it can be one of a host. */
static const char *
hostname(const char *name)
{
	static const char allowed[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

	if (name == NULL || name[0] == '\0' || name[0] == '-' || strlen(name) > 63 ||
	    name[strspn(name, allowed)] != '\0')
		return "moat";
	return name;
}

int
argv_build(struct argv *argv, const char *bwrap, const char *init, int filter,
	   const struct moat_run_spec *spec, struct moat_error *err)
{
	add(argv, bwrap);
	add_all(argv, namespaces);
	if (spec->network == MOAT_NETWORK_NONE)
		add(argv, "--unshare-net");
	add_two(argv, "--hostname", hostname(spec->name));
	add_capabilities(argv);
	add_filter(argv, filter);
	add_base(argv, init);
	if (add_layers(argv, spec, err) < 0)
		return -1;
	add_two(argv, "--", INIT_PATH);
	return argv->failed ? moat_fail_memory(err) : 0;
}

int
argv_build_probe(struct argv *argv, const char *bwrap, const char *init, int filter,
		 struct moat_error *err)
{
	add(argv, bwrap);
	add_all(argv, namespaces);
	add_capabilities(argv);
	add_filter(argv, filter);
	add_base(argv, init);
	add_two(argv, "--", INIT_PATH);
	add(argv, "--probe");
	return argv->failed ? moat_fail_memory(err) : 0;
}
