/* SPDX-License-Identifier: Apache-2.0 */
/* moat run: a command in a sandbox, with a snapshot before and a record of what it executed. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fs.h"
#include "common/text.h"
#include "core/backend.h"
#include "core/cmd.h"
#include "core/interrupt.h"
#include "core/log.h"
#include "core/run.h"
#include "core/runspec.h"
#include "core/session.h"
#include "core/snap.h"
#include "core/terminal.h"
#include "core/trace.h"

#define GRACE_MS 10000

/* What a workspace's configuration is when it is read, to see whether the command changed it. */
struct config_mark {
	bool present;
	struct stat st;
};
static const char *const config_names[] = {"moat.yaml", "agent.yaml"};

/* Everything about one run, from the command line to its end. */
struct running {
	struct app *app;
	struct workspace *workspace;
	struct config *config;
	struct runspec *spec;
	const struct plugin *runtime_plugin, *sandbox_plugin, *tracer_plugin;
	struct run *run;
	int lock_fd, dir_fd, view_fd;
	struct backend *runtime, *sandbox, *tracer;
	struct recorder *recorder;
	struct moat_view view;
	struct moat_handle handle;
	struct runlog log;
	struct snap *snap; /* taken before */
	struct config_mark marks[2];
	bool log_open, created, started;
	int output_error;
};

static void
running_close(struct running *r)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (r->tracer != NULL && tracer_stop(r->tracer, &local) < 0)
		log_warning("%s", local.message);
	moat_error_clear(&local);
	backend_close(r->tracer);
	if (r->recorder != NULL && recorder_close(r->recorder, NULL, &local) < 0)
		log_warning("%s", local.message);
	moat_error_clear(&local);
	if (r->created && runtime_remove(r->runtime, r->handle.text, &local) < 0)
		log_warning("%s", local.message);
	moat_error_clear(&local);
	backend_close(r->runtime);
	if (r->view.ref[0] != '\0' && sandbox_destroy(r->sandbox, r->view.ref, &local) < 0)
		log_warning("%s", local.message);
	moat_error_clear(&local);
	backend_close(r->sandbox);
	if (r->log_open && runlog_close(&r->log, &local) < 0)
		log_warning("%s", local.message);
	cleanup_close(&r->view_fd);
	cleanup_close(&r->dir_fd);
	cleanup_close(&r->lock_fd);
	snap_free(r->snap);
	run_free(r->run);
	runspec_free(r->spec);
	config_free(r->config);
	workspace_close(r->workspace);
}
#define AUTO_RUNNING CLEANUP(running_close)

/* --------------------------------------------------------------------------------- what is asked
 * for */

static int
open_workspace(struct running *r, const struct args *args, struct moat_error *err)
{
	const char *const *more = args_list(args, "workspace");
	const char *directory = args_at(args, 0);

	if (directory == NULL && more[0] != NULL)
		directory = *more++;
	if (more[0] != NULL)
		return moat_fail(
			err, MOAT_USAGE,
			"more than one workspace was given; this version of moat runs a command "
			"on one");
	return workspace_open(r->app->home, directory, &r->workspace, err);
}

static bool
is_this(const struct running *r, const char *path)
{
	struct stat st;

	return fstatat(r->workspace->fd, path, &st, 0) == 0 && st.st_dev == r->workspace->dev &&
	       st.st_ino == r->workspace->ino;
}

/* What this version has no means for is refused, never left out in silence. */
static int
check_supported(const struct running *r, const struct args *args, struct moat_error *err)
{
	const char *commit = args_value(args, "commit");

	if (commit == NULL)
		commit = r->config->commit;
	if (strcmp(commit, "never") != 0 &&
	    (r->sandbox_plugin->ops.sandbox.capabilities & MOAT_SANDBOX_LIVE) != 0)
		return moat_fail(
			err, MOAT_USAGE,
			"commit `%s': with sandbox `%s' the command works on the workspace "
			"itself, so there is nothing to commit",
			commit, r->sandbox_plugin->name);
	if (r->config->workspace_count > 1 ||
	    (r->config->workspace_count == 1 && (r->config->workspaces[0].target != NULL ||
						 !is_this(r, r->config->workspaces[0].path))))
		return moat_fail(
			err, MOAT_USAGE,
			"%s: `workspaces': this version of moat runs a command on one workspace, "
			"at its own path",
			r->config->file);
	return 0;
}

static int
choose(struct running *r, uint32_t kind, const char *option, const char *name,
       const struct plugin **ret, struct moat_error *err)
{
	struct moat_target target = {.struct_size = sizeof target,
				     .workspace = r->workspace->path,
				     .workspace_fd = r->workspace->fd};
	struct backend_request request = {name, option};
	struct moat_bid bid = {.struct_size = sizeof bid};

	if (name == NULL &&
	    loader_request(r->app->loader, r->app->backends, r->config, kind, &request, err) < 0)
		return -1;
	if (loader_select(r->app->loader, r->config, kind, &request, &target, ret, &bid, err) < 0)
		return -1;
	log_info("%s: %s (%s)", plugin_kind_text(kind), (*ret)->name, bid.reason);
	return 0;
}

/* Tracing is wanted, not required, unless somebody named a tracer. */
static int
choose_tracer(struct running *r, const struct args *args, struct moat_error *err)
{
	struct moat_error local = MOAT_ERROR_INIT;
	struct backend_request request = {NULL, NULL};

	if (args_flag(args, "no-trace") || r->config->tracing.disable_exec)
		return 0;
	if (loader_request(r->app->loader, r->app->backends, r->config, MOAT_KIND_TRACER, &request,
			   err) < 0)
		return -1;
	if (choose(r, MOAT_KIND_TRACER, NULL, NULL, &r->tracer_plugin, &local) == 0)
		return 0;
	if (request.name != NULL)
		return moat_error_set(err, local.code, local.sys_errno, "%s", local.message);
	log_warning("what the command executes is not recorded: %s", local.message);
	r->tracer_plugin = NULL;
	return 0;
}

static int
prepare(struct running *r, const struct args *args, struct moat_error *err)
{
	if (app_home(r->app, err) < 0 || open_workspace(r, args, err) < 0 ||
	    config_load(r->workspace->fd, r->workspace->path, r->app->config_path, &r->config,
			err) < 0 ||
	    runspec_make(r->app, r->workspace, r->config, args, &r->spec, err) < 0 ||
	    app_loader(r->app, err) < 0)
		return -1;
	if (choose(r, MOAT_KIND_SANDBOX, "--sandbox", args_value(args, "sandbox"),
		   &r->sandbox_plugin, err) < 0 ||
	    check_supported(r, args, err) < 0 ||
	    choose(r, MOAT_KIND_RUNTIME, NULL, NULL, &r->runtime_plugin, err) < 0)
		return -1;
	return choose_tracer(r, args, err);
}

/* The workspace is in the hands of those who are locked in: what a configuration opens is said. */
static void
tell_mounts(const struct running *r)
{
	for (size_t i = 0; i < r->config->mount_count; i++) {
		const struct config_mount *mount = &r->config->mounts[i];

		log_notice("the configuration shows %s as %s inside, %s", mount->source,
			   mount->target, mount->read_only ? "read-only" : "writable");
	}
}

static void
mark_config(const struct running *r, struct config_mark marks[2])
{
	for (size_t i = 0; i < 2; i++)
		marks[i].present = fstatat(r->workspace->fd, config_names[i], &marks[i].st,
					   AT_SYMLINK_NOFOLLOW) == 0;
}

static void
tell_config_changes(const struct running *r)
{
	struct config_mark now[2] = {{0}, {0}};

	mark_config(r, now);
	for (size_t i = 0; i < 2; i++) {
		const struct stat *a = &r->marks[i].st, *b = &now[i].st;

		if (!now[i].present ||
		    (r->marks[i].present && a->st_ino == b->st_ino && a->st_size == b->st_size &&
		     a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
		     a->st_ctim.tv_nsec == b->st_ctim.tv_nsec))
			continue;
		log_warning("%s/%s was %s while the command ran; look at it before the next `moat "
			    "run', "
			    "which obeys it",
			    r->workspace->path, config_names[i],
			    r->marks[i].present ? "changed" : "made");
	}
}

static bool
wants_snapshot(const struct running *r, const struct args *args)
{
	return !args_flag(args, "no-snapshot") && !r->config->snapshots.disabled &&
	       !r->config->snapshots.disable_pre_run;
}

/* ------------------------------------------------------------------------------------------
 * setting up */

static int
make_view(struct running *r, struct moat_error *err)
{
	struct moat_sandbox_spec spec = {.struct_size = sizeof spec,
					 .run = r->run->id,
					 .workspace = r->workspace->path,
					 .workspace_fd = r->workspace->fd};
	AUTO_BUF struct buf path = {0};

	r->view_fd = fs_open_directory(r->dir_fd, "sandbox", true, err);
	buf_format(&path, "%s/runs/%s/sandbox", r->app->home->path, r->run->id);
	if (r->view_fd < 0 || buf_check(&path, err) < 0)
		return -1;
	spec.state_dirfd = r->view_fd;
	spec.state_path = path.data;
	r->view.struct_size = sizeof r->view;
	if (sandbox_open(r->sandbox_plugin,
			 config_plugin(r->config, "sandbox", r->sandbox_plugin->name), &r->sandbox,
			 err) < 0)
		return -1;
	return sandbox_create(r->sandbox, &spec, &r->view, err);
}

/* The command's own umask, and no signal blocked or ignored by moat, is what it is to inherit. */
static int
make_sandbox(struct running *r, struct moat_error *err)
{
	const struct moat_config *config =
		config_plugin(r->config, "runtime", r->runtime_plugin->name);
	mode_t own;
	int result;

	if (runspec_finish(r->spec, r->run, &r->view, r->dir_fd, config, err) < 0 ||
	    runtime_open(r->runtime_plugin, config, &r->runtime, err) < 0)
		return -1;
	r->handle.struct_size = sizeof r->handle;
	own = umask(r->app->umask);
	result = runtime_create(r->runtime, &r->spec->run, &r->handle, err);
	umask(own);
	r->created = result == 0;
	return result;
}

static int
start_tracing(struct running *r, struct moat_error *err)
{
	struct moat_processes processes = {.struct_size = sizeof processes};
	struct moat_trace_target target = {.struct_size = sizeof target,
					   .poll_interval_ms = r->config->tracing.poll_interval_ms};
	struct moat_sink sink;

	if (r->tracer_plugin == NULL)
		return 0;
	if (runtime_processes(r->runtime, r->handle.text, &processes, err) < 0)
		return -1;
	if (processes.root_pid == 0 && processes.cgroup[0] == '\0') {
		log_warning("what the command executes is not recorded: %s",
			    processes.invisible[0] == '\0' ? "its processes are not on this kernel"
							   : processes.invisible);
		return 0;
	}
	target.root_pid = processes.root_pid;
	target.cgroup = processes.cgroup[0] == '\0' ? NULL : processes.cgroup;
	if (recorder_open(r->dir_fd, &r->recorder, err) < 0 ||
	    tracer_open(r->tracer_plugin,
			config_plugin(r->config, "tracer", r->tracer_plugin->name), &r->tracer,
			err) < 0)
		return -1;
	sink = recorder_sink(r->recorder);
	if (tracer_start(r->tracer, &target, &sink, err) < 0)
		return -1;
	r->run->traced = true;
	return 0;
}

static int
take_snapshot(struct running *r, struct moat_error *err)
{
	struct snap_options options = {.type = "pre-run", .run = r->run->id, .config = r->config};

	if (snap_create(r->app, r->workspace, &options, &r->snap, err) < 0)
		return moat_wrap(err, "nothing was started");
	log_info("snapshot: %s", r->snap->id);
	snap_retain(r->app, r->workspace, r->config);
	return run_note_snapshot(r->run, r->snap->id, err);
}

static int
save(struct running *r, const char *state, struct moat_error *err)
{
	r->run->state = state;
	return run_save(r->app->home, r->run, err);
}

static int
set_up(struct running *r, const struct args *args, struct moat_error *err)
{
	if (run_create(r->app->home, r->spec->name, r->spec->wished_name, r->workspace,
		       (const char *const *) r->spec->argv, &r->run, &r->lock_fd, err) < 0)
		return -1;
	r->dir_fd = run_directory(r->app->home, r->run->id, err);
	if (r->dir_fd < 0)
		return -1;
	r->run->runtime = strdup(r->runtime_plugin->name);
	r->run->sandbox = strdup(r->sandbox_plugin->name);
	r->run->interactive = r->spec->interactive;
	if (r->run->runtime == NULL || r->run->sandbox == NULL)
		return moat_fail_memory(err);
	if (make_view(r, err) < 0 || make_sandbox(r, err) < 0)
		return -1;
	r->run->handle = strdup(r->handle.text);
	if (r->run->handle == NULL)
		return moat_fail_memory(err);
	if (save(r, "starting", err) < 0 || (wants_snapshot(r, args) && take_snapshot(r, err) < 0))
		return -1;
	if (runlog_open(r->dir_fd, &r->log, err) < 0)
		return -1;
	r->log_open = true;
	return start_tracing(r, err);
}

/* -------------------------------------------------------------------------------------------
 * running */

static void
note_stopping(void *context)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (save(context, "stopping", &local) < 0)
		log_warning("%s", local.message);
}

static int
run_to_end(struct running *r, struct moat_run_status *status, struct moat_error *err)
{
	struct session session = {
		.runtime = r->runtime,
		.handle = r->handle.text,
		.log = &r->log,
		.terminal = r->spec->run.terminal != 0,
		.input = r->spec->run.stdin_open != 0,
		.grace_ms = GRACE_MS,
		.stopping = note_stopping,
		.context = r,
	};

	session.io.struct_size = sizeof session.io;
	if (runtime_io(r->runtime, r->handle.text, &session.io, err) < 0 ||
	    runtime_start(r->runtime, r->handle.text, err) < 0) {
		moat_io_close(&session.io);
		return moat_wrap(err, "cannot run `%s'", r->spec->argv[0]);
	}
	r->started = true;
	r->run->started_ns = time_now_ns();
	if (save(r, "running", err) < 0 || session_run(&session, status, err) < 0)
		return -1;
	r->output_error = session.output_error;
	return 0;
}

/* The trace is whole, or says what it lacks, before the run is called ended. */
static void
end_tracing(struct running *r)
{
	struct moat_error local = MOAT_ERROR_INIT;
	struct recorder_stats stats = {0};

	if (r->recorder == NULL)
		return;
	if (tracer_stop(r->tracer, &local) < 0) {
		log_warning("%s", local.message);
		recorder_loss(r->recorder, 0, r->run->started_ns, time_now_ns());
	}
	backend_close(STEAL(r->tracer));
	moat_error_clear(&local);
	if (recorder_close(STEAL(r->recorder), &stats, &local) < 0)
		log_warning("%s", local.message);
	if (stats.lost > 0)
		log_warning("the trace lacks %llu events; `moat trace %s' shows when",
			    (unsigned long long) stats.lost, r->run->id);
}

static int
note_end(struct running *r, const struct moat_run_status *status, struct moat_error *err)
{
	r->run->finished_ns = time_now_ns();
	r->run->exit_code = status->exit_code;
	r->run->signal = status->signal;
	if (status->state == MOAT_RUN_EXITED && (status->exit_code >= 0 || status->signal > 0))
		return save(r, "exited", err);
	r->run->error =
		strdup(status->detail[0] == '\0' ? "the runtime lost sight of it" : status->detail);
	(void) save(r, "lost", err);
	return moat_fail(err, MOAT_FAILED, "run %s is lost: %s", r->run->id,
			 r->run->error == NULL ? "" : r->run->error);
}

static int
exit_status(const struct moat_run_status *status)
{
	return status->signal > 0 ? 128 + status->signal : status->exit_code;
}

/* Nothing of a run that never started is kept: store and workspace are as they were. */
static void
forget(struct running *r)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (r->created && runtime_remove(r->runtime, r->handle.text, &local) < 0)
		log_warning("%s", local.message);
	r->created = false;
	moat_error_clear(&local);
	if (r->snap != NULL && snap_delete(r->app, r->snap, &local) < 0)
		log_warning("%s", local.message);
	moat_error_clear(&local);
	if (run_remove(r->app->home, r->run->id, &local) < 0)
		log_warning("%s", local.message);
}

static void
note_failure(struct running *r, const struct moat_error *err)
{
	struct moat_error local = MOAT_ERROR_INIT;

	if (r->run == NULL || r->run->finished_ns != 0)
		return;
	if (!r->started) {
		forget(r);
		return;
	}
	r->run->finished_ns = time_now_ns();
	r->run->error = strdup(err->message);
	if (save(r, "failed", &local) < 0)
		log_warning("%s", local.message);
}

static int
run_it(struct running *r, const struct args *args, int *ret_status, struct moat_error *err)
{
	struct moat_run_status status = {.struct_size = sizeof status};

	if (set_up(r, args, err) < 0 || run_to_end(r, &status, err) < 0)
		return -1;
	end_tracing(r);
	tell_config_changes(r);
	if (note_end(r, &status, err) < 0)
		return -1;
	*ret_status = exit_status(&status);
	if (r->output_error != 0) {
		errno = r->output_error;
		return moat_fail_errno(err,
				       "pass on what the command wrote (it ended with status %d)",
				       *ret_status);
	}
	if (args_flag(args, "rm"))
		return run_remove(r->app->home, r->run->id, err);
	return 0;
}

static int
print_dry_run(const struct running *r, const struct args *args)
{
	out("workspace  ");
	out_escaped(r->workspace->path);
	out("\nruntime    %s\nsandbox    %s\ntracer     %s\nsnapshot   %s\ncommand   ",
	    r->runtime_plugin->name, r->sandbox_plugin->name,
	    r->tracer_plugin == NULL ? "none" : r->tracer_plugin->name,
	    wants_snapshot(r, args) ? "before it starts" : "none");
	for (size_t i = 0; r->spec->argv[i] != NULL; i++) {
		out(" ");
		out_escaped(r->spec->argv[i]);
	}
	out("\n");
	return 0;
}

/* 2 for what was asked wrongly, 126 and 127 for the command, 125 for everything else that moat
 * could not do. */
static int
failure_status(const struct moat_error *err)
{
	switch (err->code) {
	case MOAT_USAGE:
		return 2;
	case MOAT_CANNOT_EXEC:
		return 126;
	case MOAT_NO_COMMAND:
		return 127;
	case MOAT_CANCELLED:
		return interrupt_pending() != 0 ? 128 + interrupt_pending() : 125;
	default:
		return 125;
	}
}

int
cmd_run(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_RUNNING struct running r = {.app = app, .lock_fd = -1, .dir_fd = -1, .view_fd = -1};
	int status = 0;

	if (prepare(&r, args, err) < 0)
		return failure_status(err);
	if (args_flag(args, "dry-run"))
		return print_dry_run(&r, args);
	tell_mounts(&r);
	mark_config(&r, r.marks);
	session_block_signals();
	if (run_it(&r, args, &status, err) < 0) {
		note_failure(&r, err);
		return failure_status(err);
	}
	return status;
}
