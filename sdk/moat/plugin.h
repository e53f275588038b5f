/* SPDX-License-Identifier: Apache-2.0 */
/* moat/plugin.h - the interface between moat and its plugins.
 *
 * This header is all that a plugin needs.  It compiles alone, as C99 (pedantic) and as C++11.
 *
 * THE SHAPE
 *   A plugin is one shared object KIND-NAME.so that exports one symbol, moat_plugin_init().  It
 * returns a descriptor, struct moat_plugin, which names one table of functions (a vtable, "ops") of
 * one kind. The idea behind all four kinds: a backend captures and materialises, the core decides
 * and swaps. No backend writes into a workspace; what can lose somebody's work is done by the core
 * alone.
 *
 * GROWTH
 *   Every struct that crosses begins with its size.  Structs grow at their end only; a member that
 * was added is optional, and zero or NULL in it means what its comment says.  The core zeroes its
 * own copy, copies the smaller of the two sizes, checks the members marked [required], and never
 * looks at the plugin's table again.  A plugin that reads a struct of the core's must look at
 * struct_size before it touches a member that is newer than API version 1 (MOAT_HAS() does).
 * MOAT_API_VERSION moves only when a meaning changes; the core refuses a plugin whose api_version
 * is above its own, in words, and keeps accepting the lower ones.
 *
 * OWNERSHIP
 *   Whatever is passed to a function, either way, is borrowed until that function returns, unless
 * its comment says otherwise.  Results are written into structs that the caller provides.  Strings
 * are NUL-terminated bytes, not necessarily UTF-8; paths inside a workspace are relative, use '/',
 * and never contain an empty, "." or ".." component ("" is the workspace itself).
 *
 * ERRORS
 *   A function that returns int returns 0 for success and -1 for failure, and then, only then, has
 * set *err (moat_error_set()).  A failure without a message is reported as such and blamed on the
 * plugin. A plugin never exits, aborts, changes signal dispositions, the umask, the working
 * directory or the environment, and leaves no file descriptor without O_CLOEXEC.
 *
 * THREADS
 *   The core calls one handle from one thread at a time, though not always from the same thread;
 * different handles may be used at the same time.  A plugin keeps no mutable globals.  Functions of
 * the core that a plugin may call from threads of its own are marked [any thread].
 *
 * TIME
 *   Nanoseconds since the epoch, CLOCK_REALTIME, as int64_t, unless a comment says monotonic.
 */
#ifndef MOAT_PLUGIN_H
#define MOAT_PLUGIN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOAT_API_VERSION 1

#if defined(__GNUC__)
#define MOAT_EXPORT __attribute__((visibility("default")))
#define MOAT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define MOAT_UNUSED __attribute__((unused))
#else
#define MOAT_EXPORT
#define MOAT_PRINTF(fmt, args)
#define MOAT_UNUSED
#endif

/* True when the struct that p points to, as its maker knew it, holds the member. */
#define MOAT_HAS(type, p, member)                                                                  \
	((p)->struct_size >= offsetof(type, member) + sizeof(((type *) 0)->member))

/* ------------------------------------------------------------------------------------ errors */

enum moat_code {
	MOAT_OK = 0,
	MOAT_FAILED = 1,      /* anything that has no code of its own */
	MOAT_USAGE = 2,       /* the caller's arguments or configuration are wrong */
	MOAT_CONFLICT = 3,    /* refused, because something would be lost */
	MOAT_NOT_FOUND = 4,   /* the object named does not exist */
	MOAT_EXISTS = 5,      /* the object named exists already */
	MOAT_PERMISSION = 6,  /* EACCES, EPERM */
	MOAT_NO_SPACE = 7,    /* ENOSPC, EDQUOT */
	MOAT_UNSUPPORTED = 8, /* this backend, kernel or filesystem cannot do it */
	MOAT_CORRUPT = 9,     /* stored data is damaged: wrong hash, truncated, not of its format */
	MOAT_BUSY = 10,       /* in use by someone else */
	MOAT_CANCELLED = 11,  /* the user asked to stop */
	MOAT_TIMEOUT = 12,    /* no answer in time; what happened is unknown */
	MOAT_GONE = 13, /* it existed and vanished meanwhile (a container, a file during capture) */
	MOAT_CHANGED = 14,     /* it changed while it was being read */
	MOAT_NO_MEMORY = 15,   /* ENOMEM */
	MOAT_CANNOT_EXEC = 16, /* the command exists and cannot be executed (status 126) */
	MOAT_NO_COMMAND = 17   /* the command was not found (status 127) */
};

/* One error: a code to act on and a line to read.  No memory is allocated for it, so that it can be
 * reported when there is none.  The message is one line without a final period or newline, and says
 * what was wrong, with what, and what to do about it when that is known: "open `/x/y': Permission
 * denied". */
struct moat_error {
	size_t struct_size;
	int code;      /* enum moat_code; MOAT_OK: no error */
	int sys_errno; /* errno that caused it, or 0 */
	char message[2048];
};

#define MOAT_ERROR_INIT                                                                            \
	{                                                                                          \
		sizeof(struct moat_error), MOAT_OK, 0, ""                                          \
	}

/* Sets *err and returns -1.  An error that is set already is kept: the first one is the cause. err
 * may be NULL.  A message that is too long ends in "..." */
MOAT_UNUSED static inline int moat_error_vset(struct moat_error *err, int code, int sys_errno,
					      const char *format, va_list args) MOAT_PRINTF(4, 0);
MOAT_UNUSED static inline int
moat_error_vset(struct moat_error *err, int code, int sys_errno, const char *format, va_list args)
{
	int n;

	if (err == NULL || err->code != MOAT_OK)
		return -1;
	err->code = code == MOAT_OK ? MOAT_FAILED : code;
	err->sys_errno = sys_errno;
	n = vsnprintf(err->message, sizeof err->message, format, args);
	if (n >= (int) sizeof err->message)
		memcpy(err->message + sizeof err->message - 4, "...", 4);
	return -1;
}

MOAT_UNUSED static inline int moat_error_set(struct moat_error *err, int code, int sys_errno,
					     const char *format, ...) MOAT_PRINTF(4, 5);
MOAT_UNUSED static inline int
moat_error_set(struct moat_error *err, int code, int sys_errno, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void) moat_error_vset(err, code, sys_errno, format, args);
	va_end(args);
	return -1;
}

/* ---------------------------------------------------------------------- what the core offers */

enum moat_log_level {
	MOAT_LOG_ERROR = 0,
	MOAT_LOG_WARNING = 1,
	MOAT_LOG_INFO = 2,
	MOAT_LOG_DEBUG = 3
};

/* Configuration of this plugin: the mapping plugins.KIND-NAME of the user's configuration and of
 * moat.yaml.  Opaque; read through the host's config_* functions. */
struct moat_config;

/* A running content hash (SHA-256).  Opaque; from hash_new(), ended by hash_end(). */
struct moat_hash;
#define MOAT_HASH_SIZE 32

/* The services of the core.  One static table that lives as long as the process.  [any thread] all.
 */
struct moat_host {
	size_t struct_size;
	uint32_t api_version; /* the core's MOAT_API_VERSION */
	uint32_t reserved;
	const char *version; /* the core's version, "1.2.3" */

	/* Writes one line to moat's log, which goes to stderr at the level that the user asked for.
	 * A control byte in it is escaped. who: the plugin's KIND-NAME. */
	void (*log)(const char *who, int level, const char *message);

	/* Memory.  Only needed where a comment says that what is handed over is freed by the other
	 * side. */
	void *(*alloc)(size_t size); /* zeroed; NULL when there is none */
	void (*dealloc)(void *p);    /* NULL is allowed */

	/* Progress of the current operation, for a display.  total 0: not known.  Cheap; call it
	 * freely. */
	void (*progress)(uint64_t done_bytes, uint64_t total_bytes, uint64_t done_items,
			 uint64_t total_items);
	/* Nonzero when the user wants to stop: clean up, and fail with MOAT_CANCELLED. */
	int (*cancelled)(void);

	/* Typed access to the configuration.  Each returns 1 when the key is set, 0 when it is not
	 * (*ret is then left as it was: put the default there first), -1 with *err, which names
	 * file, line and column, when its value is not of the type.  config may be NULL: nothing is
	 * set.  size: bytes, "64k", "2GiB"; duration: milliseconds, "500ms", "2s", "1h".  A string
	 * lives as long as the handle it was given to. */
	int (*config_string)(const struct moat_config *config, const char *key, const char **ret,
			     struct moat_error *err);
	int (*config_int)(const struct moat_config *config, const char *key, int64_t *ret,
			  struct moat_error *err);
	int (*config_bool)(const struct moat_config *config, const char *key, int *ret,
			   struct moat_error *err);
	int (*config_size)(const struct moat_config *config, const char *key, uint64_t *ret,
			   struct moat_error *err);
	int (*config_duration)(const struct moat_config *config, const char *key, int64_t *ret_ms,
			       struct moat_error *err);

	/* Opens path below dirfd, never following a symbolic link, never leaving dirfd (openat2(2)
	 * with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS, or a walk that is as safe).  O_CLOEXEC is
	 * added.  Returns the descriptor, which the caller closes, or -1. */
	int (*open_beneath)(int dirfd, const char *path, int flags, unsigned mode,
			    struct moat_error *err);

	/* The content hash that manifests hold.  hash_new() may return NULL (no memory); hash_end()
	 * writes the digest, unless ret is NULL, and frees. */
	struct moat_hash *(*hash_new)(void);
	void (*hash_update)(struct moat_hash *hash, const void *data, size_t size);
	void (*hash_end)(struct moat_hash *hash, uint8_t ret[MOAT_HASH_SIZE]);
};

/* -------------------------------------------------------------------------------- descriptor */

enum moat_kind {
	MOAT_KIND_RUNTIME = 1,
	MOAT_KIND_SNAPSHOT = 2,
	MOAT_KIND_TRACER = 3,
	MOAT_KIND_SANDBOX = 4
};

/* Static data of the plugin; lives as long as the plugin is loaded. */
struct moat_plugin {
	size_t struct_size;
	uint32_t api_version;    /* MOAT_API_VERSION that it was built with */
	uint32_t kind;           /* enum moat_kind */
	const char *name;        /* [required] "bwrap"; the file is then runtime-bwrap.so */
	const char *version;     /* [required] */
	const char *license;     /* [required] SPDX expression */
	const char *description; /* [required] one line */
	const void *ops;         /* [required] struct moat_KIND_ops */
	/* What a user installs to make the plugin work when its probe says no, for messages:
	 * "bubblewrap". NULL: nothing to name. */
	const char *requires_package;
};

#define MOAT_PLUGIN_INIT(kind, name, version, license, description, ops, package)                  \
	{                                                                                          \
		sizeof(struct moat_plugin), MOAT_API_VERSION, kind, name, version, license,        \
			description, ops, package                                                  \
	}

/* The one exported symbol.  Called once, after loading.  Returns NULL when the plugin cannot work
 * with this host at all, having logged why.  No side effects. */
#define MOAT_PLUGIN_INIT_SYMBOL "moat_plugin_init"
MOAT_EXPORT const struct moat_plugin *moat_plugin_init(const struct moat_host *host);
typedef const struct moat_plugin *moat_plugin_init_fn(const struct moat_host *host);

/* -------------------------------------------------------------------------- bids and probing */

/* What a backend is asked to work on. */
struct moat_target {
	size_t struct_size;
	const char *workspace; /* absolute path of the first workspace; NULL when there is none */
	int workspace_fd;      /* open directory, or -1 */
	const struct moat_config *config; /* of this plugin; may be NULL */
	/* moat's home: stores of snapshots lie below it, on its filesystem.  Open directory, or -1.
	 */
	int home_fd;
};

/* A bid.  score 0: "no, because `reason`", where the reason says what is missing and what would
 * give it; 1-100: can do it, the higher the better, with the reason.  What each kind means by a
 * score: 90 made for exactly this, 70 works well, 50 works everywhere, 10 only when nothing else
 * does. */
struct moat_bid {
	size_t struct_size;
	int score;
	char reason[512];
};

/* ----------------------------------------------------------------------------------- entries */

enum moat_type { MOAT_FILE = 1, MOAT_DIRECTORY = 2, MOAT_SYMLINK = 3 };

enum moat_status {
	MOAT_SAME = 0, /* content is that of the previous snapshot; locator is the previous one's */
	MOAT_NEW = 1,  /* was not in the previous snapshot */
	MOAT_MODIFIED = 2 /* was in it, with other content, or that could not be ruled out */
};

#define MOAT_HAS_HASH 1u    /* hash[] is known */
#define MOAT_HAS_LOCATOR 2u /* locator[] is known */
#define MOAT_IS_SPARSE 4u   /* the file took less room than its size says when it was captured */

#define MOAT_NO_LEADER ((uint64_t) -1)

/* One captured object of a workspace.  Made by the core only; a plugin reads it, up to
 * moat_entries.entry_size. */
struct moat_entry {
	const char *path;        /* relative; "" is the root; parents come before their children */
	const char *link_target; /* symbolic links: the text, byte for byte; else NULL */
	/* Extended attributes: { name NUL, u32 size (host order), bytes }*; NULL: none. */
	const void *xattrs;
	uint32_t xattrs_size;
	uint8_t type;   /* enum moat_type */
	uint8_t status; /* enum moat_status; for capture */
	uint16_t flags; /* MOAT_HAS_*, MOAT_IS_* */
	uint32_t mode;  /* permission bits, 07777 */
	uint32_t uid, gid;
	uint64_t size; /* bytes of a file, length of a link's text, else 0 */
	int64_t mtime_sec, ctime_sec;
	uint32_t mtime_nsec, ctime_nsec;
	uint64_t dev, ino, nlink;
	/* Files and symbolic links with several names: the index, in the same list, of the first of
	 * them, which alone has content; MOAT_NO_LEADER for files with one name and for the first
	 * itself. */
	uint64_t leader;
	/* Where the backend put the content: three numbers of its own.  The core stores them in the
	 * manifest and gives them back.  locator[0] is the number of the backend's unit of storage
	 * (a pack, an archive). */
	uint64_t locator[3];
	uint8_t hash[MOAT_HASH_SIZE]; /* of a file's content */
};

struct moat_entries {
	size_t struct_size;
	size_t entry_size; /* sizeof(struct moat_entry) as the core knows it */
	size_t count;
	const struct moat_entry *const *items;
};

/* --------------------------------------------------------------------------------- snapshots */

#define MOAT_REF_MAX 256

#define MOAT_REF_REMOVED 1u /* for enumerate: remove() was called, only the manifest is kept */

/* How a backend calls a snapshot that it holds: one line of printable ASCII, stored by the core. */
struct moat_ref {
	size_t struct_size;
	char text[MOAT_REF_MAX];
	uint64_t stored_bytes; /* what it added to the store; 0 when not known */
	uint32_t flags;        /* MOAT_REF_* */
	uint32_t reserved;
};

/* The backend's own directory of the store: one per workspace and backend, mode 0700, empty at
 * first, locked against other processes while a call that changes it is under way. */
struct moat_store {
	size_t struct_size;
	int dirfd; /* open for as long as the handle */
	const char *path;
	const struct moat_config *config;
};

/* capture: the core's side of the call.  [any thread] all functions. */
struct moat_capture {
	size_t struct_size;
	/* Id of the snapshot in the making: snap_ and 12 hex digits; unique in the store. */
	const char *snapshot;
	/* Ref of the snapshot that MOAT_SAME refers to; NULL: there is none. */
	const char *previous;
	int source_fd; /* the workspace's root directory */
	const struct moat_entries *entries;
	void *context;

	/* Opens the content of entries->items[index], a file without leader, for reading.  The
	 * caller closes it. Fails with MOAT_GONE, MOAT_CHANGED (no longer that file) or
	 * MOAT_PERMISSION for a file that cannot be captured: the core has noted it, and the
	 * backend goes on with the next. */
	int (*open)(const struct moat_capture *capture, size_t index, struct moat_error *err);
	/* The content of a file is stored: `size` bytes whose hash is `hash` (NULL: not computed),
	 * to be found again at `locator`.  fd: what open() gave, still open; the core looks whether
	 * the file changed while it was read.  Returns 1: it did, store it again from offset 0 (the
	 * core returns this a limited number of times); 0: taken; -1: stop, with *err. */
	int (*stored)(const struct moat_capture *capture, size_t index, int fd, uint64_t size,
		      const uint8_t *hash, const uint64_t locator[3], struct moat_error *err);
	/* Once all content is stored: the manifest, for a backend that keeps a copy beside the
	 * content, so that a lost index can be rebuilt.  It may be written as the difference from
	 * the manifest of an earlier snapshot; see moat_live.manifests.  Borrowed until capture
	 * returns. */
	int (*manifest)(const struct moat_capture *capture, const void **ret, size_t *ret_size,
			struct moat_error *err);
};

/* extract: content to be given back, for materialise and verify.  [any thread] all functions. */
struct moat_extract {
	size_t struct_size;
	const char *ref;
	/* Files without leader, each MOAT_HAS_LOCATOR unless empty. */
	const struct moat_entries *entries;
	void *context;

	/* Where entries->items[index] is to be made: a new file `*ret_name` in the directory
	 * `*ret_dirfd`, made with O_CREAT | O_EXCL | O_NOFOLLOW and mode 0600 (or cloned).  Both
	 * are borrowed until done(). NULL in verify: read and hash the content only. */
	int (*place)(const struct moat_extract *extract, size_t index, int *ret_dirfd,
		     const char **ret_name, struct moat_error *err);
	/* The content of that entry is complete: size and hash of what was written (hash NULL: not
	 * computed; the core will read it back).  fd: the new file, which the core does not keep,
	 * or -1 when there is none; the core gives it owner, attributes, mode and times, so nothing
	 * may be written to it afterwards. Returns -1 when it is not what the manifest says. */
	int (*done)(const struct moat_extract *extract, size_t index, int fd, uint64_t size,
		    const uint8_t *hash, struct moat_error *err);
	/* The content of that entry is lost or damaged, as `why` says.  In verify: go on with the
	 * next. Returns -1 when the call is to end. */
	int (*damaged)(const struct moat_extract *extract, size_t index,
		       const struct moat_error *why, struct moat_error *err);
};

/* remove: what must stay. */
struct moat_live {
	size_t struct_size;
	void *context;
	/* Calls visit for every file without leader that a snapshot which stays needs; for some of
	 * them more than once.  visit returns -1 to end the call. */
	int (*each)(const struct moat_live *live,
		    int (*visit)(void *context, const struct moat_entry *entry,
				 struct moat_error *err),
		    void *context, struct moat_error *err);
	/* NULL-terminated refs, of snapshots that stay or were removed: the copies of their
	 * manifests are needed to read those of others. */
	const char *const *manifests;
};

/* Capabilities of a snapshot backend. */
#define MOAT_SNAPSHOT_CLONES                                                                       \
	(1u << 0) /* shares blocks with the workspace; costs no space until changed */

struct moat_snapshot_ops {
	size_t struct_size;
	uint64_t capabilities;

	/* [required] No side effects, quick. */
	int (*probe)(const struct moat_host *host, const struct moat_target *target,
		     struct moat_bid *bid, struct moat_error *err);
	/* [required] host and the strings of store live as long as the handle. */
	int (*open)(const struct moat_host *host, const struct moat_store *store, void **ret_self,
		    struct moat_error *err);
	/* [required] */
	void (*close)(void *self);
	/* [required] Stores the content of every file without leader that is not MOAT_SAME (it may
	 * store those again, too), durably (fsync) before it returns.  On failure it leaves nothing
	 * behind.  A process that dies within the call does: the next one calls remove() with the
	 * id of that snapshot in place of a ref. */
	int (*capture)(void *self, const struct moat_capture *capture, struct moat_ref *ret,
		       struct moat_error *err);
	/* [required] Gives back the content of the entries listed, in any order. Never writes
	 * elsewhere. */
	int (*materialise)(void *self, const struct moat_extract *extract, struct moat_error *err);
	/* [required] The snapshot is no longer wanted: what no live one needs goes, also of those
	 * that were removed before.  A ref (or id, see capture) that is gone already, or was never
	 * there, is success. */
	int (*remove)(void *self, const char *ref, const struct moat_live *live,
		      struct moat_error *err);
	/* Reads back the content of the entries listed, and whatever else the store holds for that
	 * ref: damage to any of it is told.  NULL: cannot. */
	int (*verify)(void *self, const struct moat_extract *extract, struct moat_error *err);
	/* Calls found() for each snapshot that the store holds a manifest of, those with
	 * MOAT_REF_REMOVED, too; used to rebuild a lost index.  NULL: the store cannot be rebuilt.
	 */
	int (*enumerate)(void *self,
			 int (*found)(void *context, const struct moat_ref *ref,
				      const void *manifest, size_t manifest_size,
				      struct moat_error *err),
			 void *context, struct moat_error *err);
};

/* --------------------------------------------------------------------------------- sandboxes */

enum moat_view_kind {
	MOAT_VIEW_PATH = 1,   /* a directory that the runtime mounts in place of the workspace */
	MOAT_VIEW_OVERLAY = 2 /* overlayfs parts that the runtime mounts itself */
};

/* How a run sees a workspace.  Strings belong to the plugin's handle and live until destroy() or
 * close(). */
struct moat_view {
	size_t struct_size;
	uint32_t kind; /* enum moat_view_kind */
	uint32_t reserved;
	/* What the core stores, to name the view in another process: one line of printable ASCII.
	 */
	char ref[MOAT_REF_MAX];
	const char *path;                 /* MOAT_VIEW_PATH */
	const char *lower, *upper, *work; /* MOAT_VIEW_OVERLAY: absolute directories */
};

struct moat_sandbox_spec {
	size_t struct_size;
	const char *run;       /* id of the run */
	const char *workspace; /* absolute path */
	int workspace_fd;
	int state_dirfd; /* private directory of this view, for the backend's use; empty at first */
	const char *state_path;
};

enum moat_change_kind {
	MOAT_CHANGE_PRESENT = 1, /* the path exists in the view and may differ from the base */
	MOAT_CHANGE_ABSENT = 2,  /* the path is gone in the view */
	MOAT_CHANGE_OPAQUE = 3   /* a directory: nothing of the base shows below it */
};

struct moat_change {
	size_t struct_size;
	uint32_t kind;
	uint32_t reserved;
	const char *path; /* relative to the workspace */
};

#define MOAT_SANDBOX_LIVE (1u << 0)       /* the view is the workspace itself: nothing to commit */
#define MOAT_SANDBOX_OWN_COMMIT (1u << 1) /* commits by its own means: prepare, commit, undo */
#define MOAT_SANDBOX_UNDOABLE (1u << 2)   /* ... and such a commit can be undone */
#define MOAT_SANDBOX_CHANGES (1u << 3)    /* changes() costs the change, not the tree */

struct moat_sandbox_ops {
	size_t struct_size;
	uint64_t capabilities; /* MOAT_SANDBOX_* */

	/* [required] */
	int (*probe)(const struct moat_host *host, const struct moat_target *target,
		     struct moat_bid *bid, struct moat_error *err);
	/* [required] */
	int (*open)(const struct moat_host *host, const struct moat_config *config, void **ret_self,
		    struct moat_error *err);
	/* [required] Views stay as they are. */
	void (*close)(void *self);
	/* [required] */
	int (*create)(void *self, const struct moat_sandbox_spec *spec, struct moat_view *ret,
		      struct moat_error *err);
	/* Finds a view that another process created.  NULL: views end with the process. */
	int (*reopen)(void *self, const struct moat_sandbox_spec *spec, const char *ref,
		      struct moat_view *ret, struct moat_error *err);
	/* What the view changes, in any order; emit returns -1 to end the call.  A path may be
	 * reported though it is equal.  NULL: the core compares the trees (or there is nothing,
	 * MOAT_SANDBOX_LIVE). */
	int (*changes)(void *self, const char *ref,
		       int (*emit)(void *context, const struct moat_change *change,
				   struct moat_error *err),
		       void *context, struct moat_error *err);
	/* The view shows the workspace again as it is now.  NULL with MOAT_SANDBOX_LIVE. */
	int (*reset)(void *self, const char *ref, struct moat_error *err);
	/* [required] The view and its storage are removed; one that is gone already is success. */
	int (*destroy)(void *self, const char *ref, struct moat_error *err);
	/* [required with MOAT_SANDBOX_OWN_COMMIT] prepare: everything that can fail, with nothing
	 * visible changed; commit: make it visible; undo: after commit, or after prepare, back to
	 * before. */
	int (*prepare)(void *self, const char *ref, struct moat_error *err);
	int (*commit)(void *self, const char *ref, struct moat_error *err);
	int (*undo)(void *self, const char *ref, struct moat_error *err);
};

/* ---------------------------------------------------------------------------------- runtimes */

#define MOAT_NETWORK_OPEN 0u /* the host's network */
#define MOAT_NETWORK_NONE 1u /* an empty one */

struct moat_mount {
	size_t struct_size;
	const char *source; /* absolute host path */
	const char *target; /* absolute path inside */
	uint32_t read_only;
	uint32_t reserved;
	/* A workspace through a sandbox, in place of source.  NULL: source itself. */
	const struct moat_view *view;
};

struct moat_label {
	const char *name, *value;
};

struct moat_run_spec {
	size_t struct_size;
	const char *id;   /* run_ and 12 hex digits: also the container's name */
	const char *name; /* for people */
	const char *const *argv; /* NULL-terminated, at least one */
	const char *const *env;  /* NULL-terminated KEY=VALUE: the whole environment */
	const char *workdir;     /* absolute, inside */
	/* NULL-terminated; workspaces first, then the user's, in order. */
	const struct moat_mount *const *mounts;
	/* NULL-terminated absolute host paths that must not be readable inside, whatever lies above
	 * them; a mount of `mounts` shows through. */
	const char *const *hide;
	/* NULL-terminated; list() finds runs by them.  NULL: none. */
	const struct moat_label *const *labels;
	const char *image; /* NULL: the runtime's default; one without images refuses any other */
	uint32_t uid, gid; /* that the command runs as, and that its files belong to */
	uint32_t terminal; /* nonzero: the command gets a terminal of `rows` x `columns` */
	uint32_t stdin_open; /* zero: its standard input is at its end, on a terminal, too */
	uint16_t rows, columns;
	uint32_t network;    /* MOAT_NETWORK_* */
	uint64_t memory;     /* bytes; 0: no limit.  A limit that cannot be enforced is refused */
	uint32_t cpus_milli; /* thousandths of a cpu; 0: no limit */
	uint32_t pids;       /* 0: no limit */
	const struct moat_config *config;
	int state_dirfd; /* the run's own directory, for what the backend must keep */
};

/* The engine's name for a run: one line of printable ASCII, stored by the core. */
struct moat_handle {
	size_t struct_size;
	char text[MOAT_REF_MAX];
};

/* Standard streams as descriptors, owned by the caller from then on; -1: none.  With a terminal
 * `in` and `out` are the same pty or stream (possibly one descriptor twice: see `shared`), and
 * `err` is -1. */
struct moat_io {
	size_t struct_size;
	int in, out, err;
	uint32_t shared;     /* nonzero: in and out are one descriptor; close it once */
	uint32_t half_close; /* nonzero: shutdown(2) on `in` ends the command's input; else close
			      * `in` does, or, on a terminal, its end-of-file character */
};

enum moat_run_state {
	MOAT_RUN_UNKNOWN = 0, /* could not ask; not the same as gone */
	MOAT_RUN_CREATED = 1,
	MOAT_RUN_RUNNING = 2,
	MOAT_RUN_PAUSED = 3,
	MOAT_RUN_EXITED = 4,
	MOAT_RUN_GONE = 5 /* the engine answers that there is no such run */
};

struct moat_run_status {
	size_t struct_size;
	uint32_t state;     /* enum moat_run_state */
	uint32_t oom;       /* nonzero: ended for lack of memory */
	int32_t exit_code;  /* MOAT_RUN_EXITED: 0-255, or -1: not known */
	int32_t signal;     /* MOAT_RUN_EXITED: number of the signal that ended it, or 0 */
	int64_t started_ns; /* 0: not known */
	int64_t finished_ns;
	char detail[512]; /* the engine's own words, one line */
};

/* Where a tracer finds the processes of a run. */
struct moat_processes {
	size_t struct_size;
	int64_t root_pid;  /* host pid of the first process inside; 0: not on this kernel (a virtual
			      machine) */
	char cgroup[1024]; /* path below the cgroup mount; "": none of its own */
	char invisible[256]; /* why the host cannot see them; "": it can */
};

struct moat_exec_spec {
	size_t struct_size;
	const char *const *argv;
	const char *const *env; /* added to that of the run; NULL: nothing */
	const char *workdir;    /* NULL: that of the run */
	uint32_t terminal, stdin_open;
	uint16_t rows, columns;
};

#define MOAT_RUNTIME_SURVIVES (1u << 0) /* a run goes on when the process that started it dies */
#define MOAT_RUNTIME_IMAGES (1u << 1)
#define MOAT_RUNTIME_OWN_LOGS (1u << 2)
#define MOAT_RUNTIME_OVERLAY (1u << 3) /* can mount MOAT_VIEW_OVERLAY */
#define MOAT_RUNTIME_LIMITS (1u << 4)  /* memory, cpus, pids */

struct moat_runtime_ops {
	size_t struct_size;
	uint64_t capabilities; /* MOAT_RUNTIME_* */

	/* [required] Tries rather than guesses; a few milliseconds, or one short question to an
	 * engine. */
	int (*probe)(const struct moat_host *host, const struct moat_target *target,
		     struct moat_bid *bid, struct moat_error *err);
	/* [required] */
	int (*open)(const struct moat_host *host, const struct moat_config *config, void **ret_self,
		    struct moat_error *err);
	/* [required] Runs of a runtime that is not MOAT_RUNTIME_SURVIVES end. */
	void (*close)(void *self);
	/* [required] Everything up to, and without, the command's first instruction: its processes
	 * can be traced before it runs.  On failure nothing is left behind. A command that is not
	 * found or cannot be executed may be reported here (MOAT_NO_COMMAND, MOAT_CANNOT_EXEC), by
	 * start, or as status 127/126. */
	int (*create)(void *self, const struct moat_run_spec *spec, struct moat_handle *ret,
		      struct moat_error *err);
	/* [required] Before start; once. */
	int (*io)(void *self, const char *handle, struct moat_io *ret, struct moat_error *err);
	/* [required] */
	int (*start)(void *self, const char *handle, struct moat_error *err);
	/* [required] Waits up to timeout_ms (-1: for ever, 0: not at all) for the end. Returns 0
	 * with *ret filled, whether or not it ended: look at ret->state. */
	int (*wait)(void *self, const char *handle, int64_t timeout_ms, struct moat_run_status *ret,
		    struct moat_error *err);
	/* A descriptor that polls readable once wait() has something new; the backend keeps it.
	 * NULL or -1: none, the core waits in a thread. */
	int (*wait_fd)(void *self, const char *handle);
	/* [required] Never blocks for more than a few seconds. "Gone" is a state, not a failure. */
	int (*state)(void *self, const char *handle, struct moat_run_status *ret,
		     struct moat_error *err);
	/* [required] Sends a signal to the command (not only to a helper process around it). */
	int (*kill)(void *self, const char *handle, int signal, struct moat_error *err);
	/* The engine's own graceful stop, which returns when the run has ended.  NULL: the core
	 * sends SIGTERM, then SIGKILL after grace_ms. */
	int (*stop)(void *self, const char *handle, int64_t grace_ms, struct moat_error *err);
	/* [required] Ended or never started; gone already is success. */
	int (*remove)(void *self, const char *handle, struct moat_error *err);
	/* Adopts a run that another process created.  NULL: cannot. */
	int (*adopt)(void *self, const struct moat_run_spec *spec, const char *handle,
		     struct moat_error *err);
	/* New size of the terminal.  NULL: set by TIOCSWINSZ on the descriptor of io(). */
	int (*resize)(void *self, const char *handle, unsigned rows, unsigned columns,
		      struct moat_error *err);
	/* Another command inside; its handle works with io, start, wait, kill, resize, remove.
	 * NULL: cannot. */
	int (*exec)(void *self, const char *handle, const struct moat_exec_spec *spec,
		    struct moat_handle *ret, struct moat_error *err);
	/* [required] Between create and start, and while it runs. */
	int (*processes)(void *self, const char *handle, struct moat_processes *ret,
			 struct moat_error *err);
	/* Runs that carry the label, of any process.  NULL: none survive. */
	int (*list)(void *self, const struct moat_label *label,
		    int (*found)(void *context, const char *handle,
				 const struct moat_run_status *status, struct moat_error *err),
		    void *context, struct moat_error *err);
	/* Makes sure that an image is here, with progress.  NULL without MOAT_RUNTIME_IMAGES. */
	int (*image)(void *self, const char *image, struct moat_error *err);
	/* What the engine kept of the output since `since_ns`; stream 1 or 2.  NULL without
	 * MOAT_RUNTIME_OWN_LOGS. */
	int (*logs)(void *self, const char *handle, int64_t since_ns,
		    int (*chunk)(void *context, int stream, int64_t time_ns, const void *data,
				 size_t size, struct moat_error *err),
		    void *context, struct moat_error *err);
};

/* ----------------------------------------------------------------------------------- tracers */

enum moat_event_kind {
	MOAT_EVENT_EXEC = 1,
	MOAT_EVENT_EXIT = 2,
	/* `lost` events, or an unknown number, were not delivered in the time span given. */
	MOAT_EVENT_LOSS = 3,
	/* A process (not a thread) was made; optional, and not recorded. */
	MOAT_EVENT_FORK = 4
};

struct moat_event {
	size_t struct_size;
	uint32_t kind;
	/* EXEC: nonzero when argv is all there was; zero: truncated or not readable. */
	uint32_t argv_complete;
	int64_t time_ns;   /* by the kernel's clock, not when it was read; LOSS: end of the span */
	int64_t pid, ppid; /* host numbers, of the process (not the thread) */
	int64_t inner_pid; /* in the run's pid namespace; 0: not known */
	const char *exe;   /* EXEC: path of the executable; NULL: not readable */
	const char *argv; /* EXEC: NUL-terminated strings one after the other; NULL: not readable */
	size_t argv_size; /* bytes, final NUL included */
	const char *cwd;  /* EXEC; NULL: not readable */
	int32_t exit_code;     /* EXIT: 0-255, or -1 when ended by a signal */
	int32_t signal;        /* EXIT: 0 or the signal's number */
	int64_t duration_ns;   /* EXIT: since its last exec, or since its fork; -1: not known */
	uint64_t lost;         /* LOSS: how many; 0: not known */
	int64_t span_start_ns; /* LOSS: start of the span */
};

/* Where events go.  event() never blocks, copies what it needs, and returns nothing: what the core
 * cannot keep it counts and records as a loss itself.  [any thread], one at a time per tracer. */
struct moat_sink {
	size_t struct_size;
	void *context;
	void (*event)(void *context, const struct moat_event *event);
};

struct moat_trace_target {
	size_t struct_size;
	int64_t root_pid;         /* trace this process and its descendants; 0: use cgroup */
	const char *cgroup;       /* NULL: use root_pid */
	int64_t poll_interval_ms; /* for backends that poll; 0: their default */
};

struct moat_trace_stats {
	size_t struct_size;
	uint64_t execs, exits, forks; /* delivered */
	uint64_t lost;                /* known to be lost */
	uint64_t incomplete_argv;
};

#define MOAT_TRACER_MAY_LOSE (1u << 0) /* can lose events under load, and then says so */
#define MOAT_TRACER_POLLS (1u << 1)    /* can miss short processes without knowing */

struct moat_tracer_ops {
	size_t struct_size;
	uint64_t capabilities; /* MOAT_TRACER_* */

	/* [required] Tries it: a bid above 0 means that events arrive, with these privileges. */
	int (*probe)(const struct moat_host *host, const struct moat_target *target,
		     struct moat_bid *bid, struct moat_error *err);
	/* [required] */
	int (*open)(const struct moat_host *host, const struct moat_config *config, void **ret_self,
		    struct moat_error *err);
	/* [required] Stops first, when it runs. */
	void (*close)(void *self);
	/* [required] Returns when every later exec of the target will be seen.  Processes that
	 * exist already are followed, too.  sink: copied; its context lives until stop() returned.
	 * May be called again after stop(). */
	int (*start)(void *self, const struct moat_trace_target *target,
		     const struct moat_sink *sink, struct moat_error *err);
	/* [required] Delivers what the kernel has queued up to now, and returns; no event comes
	 * after. Not started: does nothing. */
	int (*stop)(void *self, struct moat_error *err);
	/* [required] [any thread] */
	int (*stats)(void *self, struct moat_trace_stats *ret, struct moat_error *err);
};

/* Begins a table in C: static const struct moat_tracer_ops ops = {MOAT_OPS(tracer), ...}; */
#define MOAT_OPS(kind) .struct_size = sizeof(struct moat_##kind##_ops)

#ifdef __cplusplus
}
#endif
#endif
