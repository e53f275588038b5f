/* SPDX-License-Identifier: Apache-2.0 */
/* runtime-bwrap: runs commands in sandboxes of bubblewrap, as children of this process.
 *
 * argv.c says what a sandbox consists of, launch.c makes one, init.c is its first process, run.c
 * starts and ends the command, find.c and probe.c find out whether all that works here. */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "probe.h"
#include "run.h"

struct bwrap {
	const struct moat_host *host;
	const struct moat_config *config;
	struct run *runs;
};

static int
bwrap_open(const struct moat_host *host, const struct moat_config *config, void **ret_self,
	   struct moat_error *err)
{
	struct bwrap *self = calloc(1, sizeof *self);

	if (self == NULL)
		return moat_fail_memory(err);
	self->host = host;
	self->config = config;
	*ret_self = self;
	return 0;
}

static void
bwrap_close(void *pointer)
{
	struct bwrap *self = pointer;

	while (self->runs != NULL) {
		struct run *run = self->runs;

		self->runs = run->next;
		run_free(run);
	}
	free(self);
}

/* The place of a run in the list; of its end when there is none of that name. */
static struct run **
place_of(struct bwrap *self, const char *handle)
{
	struct run **place = &self->runs;

	while (*place != NULL && strcmp((*place)->id, handle) != 0)
		place = &(*place)->next;
	return place;
}

static struct run *
find_run(struct bwrap *self, const char *handle, struct moat_error *err)
{
	struct run *run = *place_of(self, handle);

	if (run == NULL)
		(void) moat_fail(err, MOAT_NOT_FOUND, "there is no run `%s' in this process",
				 handle);
	return run;
}

static int
bwrap_create(void *pointer, const struct moat_run_spec *spec, struct moat_handle *ret,
	     struct moat_error *err)
{
	struct bwrap *self = pointer;
	struct run *run = NULL;

	if (spec->id != NULL && *place_of(self, spec->id) != NULL)
		return moat_fail(err, MOAT_EXISTS, "run %s exists already", spec->id);
	if (run_create(self->host, spec->config != NULL ? spec->config : self->config, spec, &run,
		       err) < 0)
		return -1;
	memcpy(ret->text, run->id, strlen(run->id) + 1);
	run->next = self->runs;
	self->runs = run;
	return 0;
}

static int
bwrap_io(void *pointer, const char *handle, struct moat_io *ret, struct moat_error *err)
{
	struct run *run = find_run(pointer, handle, err);

	if (run == NULL)
		return -1;
	ret->in = steal_fd(&run->in);
	ret->out = run->terminal ? ret->in : steal_fd(&run->out);
	ret->err = steal_fd(&run->err);
	ret->shared = run->terminal;
	ret->half_close = 0;
	return 0;
}

static int
bwrap_start(void *pointer, const char *handle, struct moat_error *err)
{
	struct run *run = find_run(pointer, handle, err);

	return run == NULL ? -1 : run_start(run, err);
}

static void
fill_status(const struct run *run, struct moat_run_status *ret)
{
	if (run->ended) {
		size_t size = ret->struct_size;

		*ret = run->status;
		ret->struct_size = size;
		return;
	}
	ret->state = run->started ? MOAT_RUN_RUNNING : MOAT_RUN_CREATED;
	ret->oom = 0;
	ret->exit_code = -1;
	ret->signal = 0;
	ret->started_ns = run->started_ns;
	ret->finished_ns = 0;
	ret->detail[0] = '\0';
}

static int
bwrap_wait(void *pointer, const char *handle, int64_t timeout_ms, struct moat_run_status *ret,
	   struct moat_error *err)
{
	struct run *run = find_run(pointer, handle, err);

	if (run == NULL || run_wait(run, timeout_ms, err) < 0)
		return -1;
	fill_status(run, ret);
	return 0;
}

static int
bwrap_wait_fd(void *pointer, const char *handle)
{
	struct run *run = find_run(pointer, handle, NULL); /* none: -1 is the answer */

	return run == NULL ? -1 : run->child.pidfd;
}

static int
bwrap_state(void *pointer, const char *handle, struct moat_run_status *ret, struct moat_error *err)
{
	struct run *run = *place_of(pointer, handle);

	if (run == NULL) {
		/* It was in another process, whose end it did not survive. */
		ret->state = MOAT_RUN_GONE;
		ret->exit_code = -1;
		return 0;
	}
	return bwrap_wait(pointer, handle, 0, ret, err);
}

static int
bwrap_kill(void *pointer, const char *handle, int number, struct moat_error *err)
{
	struct run *run = find_run(pointer, handle, err);

	return run == NULL ? -1 : run_signal(run, number, err);
}

static int
bwrap_remove(void *pointer, const char *handle, struct moat_error *err)
{
	struct run **place = place_of(pointer, handle);
	struct run *run = *place;

	if (run == NULL)
		return 0;
	*place = run->next;
	run_free(run);
	return 0;
}

static int
bwrap_processes(void *pointer, const char *handle, struct moat_processes *ret,
		struct moat_error *err)
{
	struct run *run = find_run(pointer, handle, err);

	if (run == NULL)
		return -1;
	ret->root_pid = run->root_pid;
	ret->cgroup[0] = '\0';
	ret->invisible[0] = '\0';
	return 0;
}

static const struct moat_runtime_ops ops = {
	MOAT_OPS(runtime),
	.probe = probe,
	.open = bwrap_open,
	.close = bwrap_close,
	.create = bwrap_create,
	.io = bwrap_io,
	.start = bwrap_start,
	.wait = bwrap_wait,
	.wait_fd = bwrap_wait_fd,
	.state = bwrap_state,
	.kill = bwrap_kill,
	.remove = bwrap_remove,
	.processes = bwrap_processes,
};

static const struct moat_plugin plugin = MOAT_PLUGIN_INIT(
	MOAT_KIND_RUNTIME, "bwrap", "0.1.0", "Apache-2.0",
	"sandboxes by bubblewrap: no daemon, no image, no root", &ops, "bubblewrap");

const struct moat_plugin *
moat_plugin_init(const struct moat_host *host)
{
	return &plugin;
}
