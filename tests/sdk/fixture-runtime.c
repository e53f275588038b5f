/* SPDX-License-Identifier: Apache-2.0 */
/* A runtime plugin that says no. */
#include <moat/plugin.h>

static int
probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
      struct moat_error *err)
{
	(void) snprintf(bid->reason, sizeof bid->reason, "there is no engine in a fixture");
	return 0;
}

static int
open_engine(const struct moat_host *host, const struct moat_config *config, void **ret_self,
	    struct moat_error *err)
{
	return 0;
}

static void
close_engine(void *self)
{
}

static int
create(void *self, const struct moat_run_spec *spec, struct moat_handle *ret,
       struct moat_error *err)
{
	(void) snprintf(ret->text, sizeof ret->text, "%s", spec->id);
	return 0;
}

static int
io(void *self, const char *handle, struct moat_io *ret, struct moat_error *err)
{
	return 0;
}

static int
simple(void *self, const char *handle, struct moat_error *err)
{
	return 0;
}

static int
wait_run(void *self, const char *handle, int64_t timeout_ms, struct moat_run_status *ret,
	 struct moat_error *err)
{
	ret->state = MOAT_RUN_GONE;
	return 0;
}

static int
state(void *self, const char *handle, struct moat_run_status *ret, struct moat_error *err)
{
	ret->state = MOAT_RUN_GONE;
	return 0;
}

static int
kill_run(void *self, const char *handle, int signal, struct moat_error *err)
{
	return 0;
}

static int
processes(void *self, const char *handle, struct moat_processes *ret, struct moat_error *err)
{
	return 0;
}

static const struct moat_runtime_ops ops = {
	MOAT_OPS(runtime),
	.capabilities = MOAT_RUNTIME_LIMITS | (1u << 30),
	.probe = probe,
	.open = open_engine,
	.close = close_engine,
	.create = create,
	.io = io,
	.start = simple,
	.wait = wait_run,
	.state = state,
	.kill = kill_run,
	.remove = simple,
	.processes = processes,
};

static const struct moat_plugin descriptor =
	MOAT_PLUGIN_INIT(MOAT_KIND_RUNTIME, "good", "1.0", "Apache-2.0", "A plugin for the tests",
			 &ops, "fixture-engine");

const struct moat_plugin *
moat_plugin_init(const struct moat_host *host)
{
	return &descriptor;
}
