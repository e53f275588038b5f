/* SPDX-License-Identifier: Apache-2.0 */
/* `snapshot import': twice over the archive, the first time to believe it. */
#include "core/import.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/filter.h"
#include "core/import_internal.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/scratch.h"
#include "core/tree.h"

/* Of all names, link texts and attributes together: they are held in memory, and a manifest holds
 * no more. */
#define NAME_BYTES_MAX ((uint64_t) 256 << 20)

struct importing {
	struct app *app;
	const struct import_options *options;
	const char *name; /* of the archive, for messages */
	struct config *config;
	struct workspace *workspace; /* without state at first */
	struct tar_limits limits;
	struct import_input input;
	uint8_t digest[SHA256_DIGEST_SIZE]; /* of the first pass */
	uint64_t space, files;              /* that the second one will need */
};

static void
importing_free(struct importing *importing)
{
	import_input_close(&importing->input);
	workspace_close(importing->workspace);
	config_free(importing->config);
}

/* ---------------------------------------------------------------------------------------- settings
 */

static int
parse_limit(const char *option, const char *text, bool size, uint64_t *ret, struct moat_error *err)
{
	int64_t number = 0;
	int result;

	if (text == NULL)
		return 0;
	result = size ? text_parse_size(text, ret, err)
		      : text_parse_int(text, 0, INT64_MAX, &number, err);
	if (result < 0)
		return moat_wrap(err, "--%s", option);
	if (!size)
		*ret = (uint64_t) number;
	return 0;
}

static int
find_limits(struct importing *importing, struct moat_error *err)
{
	const struct import_options *options = importing->options;
	struct tar_limits *limits = &importing->limits;

	limits->max_entries = (uint64_t) importing->config->snapshots.import_max_entries;
	limits->max_file_bytes = importing->config->snapshots.import_max_file_bytes;
	limits->max_bytes = importing->config->snapshots.import_max_bytes;
	limits->max_name_bytes = NAME_BYTES_MAX;
	if (parse_limit("max-entries", options->max_entries, false, &limits->max_entries, err) <
		    0 ||
	    parse_limit("max-file-bytes", options->max_file_bytes, true, &limits->max_file_bytes,
			err) < 0 ||
	    parse_limit("max-bytes", options->max_bytes, true, &limits->max_bytes, err) < 0)
		return -1;
	return 0;
}

static int
open_all(struct importing *importing, struct moat_error *err)
{
	const struct import_options *options = importing->options;
	const char *directory = options->workspace == NULL ? "." : options->workspace;

	if (app_home(importing->app, err) < 0 ||
	    workspace_open_at(directory, &importing->workspace, err) < 0 ||
	    workspace_check_place(importing->app->home, importing->workspace->path, err) < 0)
		return -1;
	return config_load(importing->workspace->fd, importing->workspace->path,
			   importing->app->config_path, &importing->config, err);
}

/* -------------------------------------------------------------------------------------- first pass
 */

static int
open_input(struct importing *importing, struct moat_error *err)
{
	int result;

	progress_begin("reading %s", importing->name);
	result = import_input_open(importing->app->home, importing->options->file,
				   import_stream_max(&importing->limits), &importing->input, err);
	progress_end();
	return result;
}

static int
validate(struct importing *importing, struct moat_error *err)
{
	CLEANUP(import_plan_close) struct import_plan plan = {0};
	int result;

	progress_begin("checking %s", importing->name);
	result = import_pass(&importing->input, &importing->limits, -1, &plan, importing->digest,
			     err);
	progress_end();
	if (result < 0)
		return -1;
	importing->space = plan.space;
	importing->files = plan.count;
	return 0;
}

/* ------------------------------------------------------------------------------------- second pass
 */

static int
check_space(const struct importing *importing, const struct scratch *scratch,
	    struct moat_error *err)
{
	struct statvfs fs;
	uint64_t free_bytes;
	char need[32], have[32];

	if (fstatvfs(scratch->fd, &fs) < 0)
		return moat_fail_errno(err, "look at moat's home");
	free_bytes = (uint64_t) fs.f_bavail * fs.f_frsize;
	if (importing->space > free_bytes)
		return moat_fail(err, MOAT_NO_SPACE,
				 "it needs %s in moat's home `%s', where %s are free",
				 text_size(need, importing->space), importing->app->home->path,
				 text_size(have, free_bytes));
	/* Some filesystems do not count inodes. */
	if (fs.f_files > 0 && importing->files > fs.f_favail)
		return moat_fail(err, MOAT_NO_SPACE,
				 "it needs %" PRIu64 " files in moat's home `%s', where there is "
				 "room for %" PRIu64,
				 importing->files, importing->app->home->path,
				 (uint64_t) fs.f_favail);
	return 0;
}

static int
unpack(struct importing *importing, const struct scratch *scratch, struct import_plan *plan,
       struct moat_error *err)
{
	uint8_t digest[SHA256_DIGEST_SIZE];
	int result;

	progress_begin("unpacking %s", importing->name);
	result = import_pass(&importing->input, &importing->limits, scratch->fd, plan, digest, err);
	progress_end();
	if (result < 0)
		return -1;
	if (memcmp(digest, importing->digest, sizeof digest) != 0)
		return moat_fail(err, MOAT_CHANGED, "it changed while it was read; try again");
	return 0;
}

/* The snapshot sees the workspace as one that is taken now, so that restoring it leaves alone what
 * is ignored. */
static int
copy_rules(const struct importing *importing, struct manifest *manifest, struct moat_error *err)
{
	CLEANUP(cleanup_filter) struct filter *filter = NULL;
	AUTO_MANIFEST struct manifest *live = NULL;
	const struct workspace *workspace = importing->workspace;
	struct filter_options options = {
		.additional = (const char *const *) importing->config->snapshots.additional};

	if (importing->config->snapshots.ignore_gitignore)
		options.flags |= FILTER_NO_GITIGNORE;
	if (filter_open(workspace->fd, workspace->path, &options, &filter, err) < 0 ||
	    tree_scan(workspace->fd, filter, NULL, &live, err) < 0)
		return moat_wrap(err, "the rules of %s", workspace->path);
	for (size_t i = 0; i < live->rule_count; i++)
		if (manifest_add_rule(manifest, live->rules[i].directory, live->rules[i].source,
				      live->rules[i].text, live->rules[i].size, err) < 0)
			return -1;
	manifest->filter_flags = live->filter_flags;
	return 0;
}

/* Of struct snap_source. */
static int
open_content(void *context, const struct moat_entry *entry, struct moat_error *err)
{
	const struct scratch *scratch = context;
	char name[IMPORT_NAME_MAX];
	int fd = openat(scratch->fd, import_name(name, entry->ino),
			O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	return fd >= 0 ? fd : moat_fail_errno(err, "read back `%s'", entry->path);
}

/* The workspace was not known before: nothing is to stay of it, unless somebody else took a
 * snapshot meanwhile. */
static void
forget_workspace(const struct home *home, const struct workspace *workspace)
{
	AUTO_CLOSE int fd = fs_open_directory(workspace->state_fd, "snapshots", false, NULL);
	AUTO_CLOSEDIR DIR *stream = fd < 0 ? NULL : fs_open_stream(fd, "", NULL);
	struct dirent *entry;

	/* In doubt it stays. */
	if (stream != NULL && fs_read_name(stream, &entry, NULL) != 0)
		return;
	/* What stays is empty, and of no harm. */
	(void) fs_remove_tree(home->workspaces_fd, workspace->hash, NULL);
}

static int
store(struct importing *importing, struct scratch *scratch, struct import_plan *plan,
      struct snap **ret, struct moat_error *err)
{
	AUTO_WORKSPACE struct workspace *workspace = NULL;
	AUTO_CLOSE int lock = -1;
	const struct home *home = importing->app->home;
	bool known = faccessat(home->workspaces_fd, importing->workspace->hash, F_OK,
			       AT_SYMLINK_NOFOLLOW) == 0;
	struct snap_source source = {plan->manifest, open_content, scratch};
	struct snap_options options = {.type = "manual",
				       .label = importing->options->label,
				       .config = importing->config,
				       .source = &source,
				       .locked = true};
	int result;

	if (workspace_open(home, importing->workspace->path, &workspace, err) < 0)
		return -1;
	lock = workspace_lock(workspace, err);
	if (lock < 0)
		return -1;
	result = copy_rules(importing, plan->manifest, err);
	if (result == 0)
		result = snap_create(importing->app, workspace, &options, ret, err);
	if (result < 0 && !known)
		forget_workspace(home, workspace);
	return result;
}

/* Signals are held back: cancelled, it clears away what it made. */
static int
take(struct importing *importing, struct snap **ret, struct import_dropped *dropped,
     struct moat_error *err)
{
	AUTO_SCRATCH struct scratch scratch = SCRATCH_INIT;
	CLEANUP(import_plan_close) struct import_plan plan = {0};

	if (scratch_open(importing->app->home, &scratch, err) < 0 ||
	    check_space(importing, &scratch, err) < 0 ||
	    unpack(importing, &scratch, &plan, err) < 0)
		return -1;
	*dropped = plan.dropped;
	return store(importing, &scratch, &plan, ret, err);
}

int
import_archive(struct app *app, const struct import_options *options, struct snap **ret,
	       struct import_dropped *dropped, struct moat_error *err)
{
	CLEANUP(importing_free)
	struct importing importing = {.app = app,
				      .options = options,
				      .name = strcmp(options->file, "-") == 0 ? "standard input"
									      : options->file,
				      .input = IMPORT_INPUT_INIT};
	sigset_t saved;
	int result;

	if (open_all(&importing, err) < 0 || find_limits(&importing, err) < 0)
		return -1;
	if (open_input(&importing, err) < 0 || validate(&importing, err) < 0)
		return moat_wrap(err, "import of `%.300s'", importing.name);
	interrupt_hold(&saved);
	result = take(&importing, ret, dropped, err);
	interrupt_release(&saved);
	return result < 0 ? moat_wrap(err, "import of `%.300s'", importing.name) : 0;
}
