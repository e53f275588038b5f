/* SPDX-License-Identifier: Apache-2.0 */
/* A tracer in C99 with nothing but the header, as a third party would write it. */
#include <moat/plugin.h>

static int
probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
      struct moat_error *err)
{
	(void) host;
	(void) target;
	(void) err;
	bid->score = 10;
	(void) snprintf(bid->reason, sizeof bid->reason, "it sees nothing, anywhere");
	return 0;
}

static int
open_tracer(const struct moat_host *host, const struct moat_config *config, void **ret_self,
	    struct moat_error *err)
{
	int64_t limit = 0;

	if (MOAT_HAS(struct moat_host, host, config_int) &&
	    host->config_int(config, "limit", &limit, err) < 0)
		return -1;
	*ret_self = host->alloc(1);
	if (*ret_self == NULL)
		return moat_error_set(err, MOAT_NO_MEMORY, 0, "out of memory");
	host->dealloc(*ret_self);
	*ret_self = NULL;
	return 0;
}

static void
close_tracer(void *self)
{
	(void) self;
}

static int
start(void *self, const struct moat_trace_target *target, const struct moat_sink *sink,
      struct moat_error *err)
{
	(void) self;
	(void) target;
	(void) sink;
	(void) err;
	return 0;
}

static int
stop(void *self, struct moat_error *err)
{
	(void) self;
	(void) err;
	return 0;
}

static int
stats(void *self, struct moat_trace_stats *ret, struct moat_error *err)
{
	(void) self;
	(void) ret;
	(void) err;
	return 0;
}

static const struct moat_tracer_ops ops = {
	MOAT_OPS(tracer),      .capabilities = MOAT_TRACER_MAY_LOSE,
	.probe = probe,        .open = open_tracer,
	.close = close_tracer, .start = start,
	.stop = stop,          .stats = stats,
};

static const struct moat_plugin descriptor = MOAT_PLUGIN_INIT(
	MOAT_KIND_TRACER, "good", "1.0", "Apache-2.0", "A plugin for the tests", &ops, NULL);

const struct moat_plugin *
moat_plugin_init(const struct moat_host *host)
{
	(void) host;
	return &descriptor;
}
