/* SPDX-License-Identifier: Apache-2.0 */
/* tracer-netlink: what a run executes, from the Linux proc connector.  The plugin's table. */
#include <moat/plugin.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/error.h"
#include "reader.h"

#define DEFAULT_BUFFER (8u << 20)
#define PROBE_BUFFER (64u << 10)

struct tracer {
	const struct moat_host *host;
	uint64_t receive_buffer;
	struct reader *reader; /* NULL: not started */
	struct reader_stats stats;
};

static int
netlink_probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
	      struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	uint64_t buffer;
	int fd = connector_open(PROBE_BUFFER, &buffer, &why);

	if (fd < 0) {
		bid->score = 0;
		(void) snprintf(bid->reason, sizeof bid->reason, "%.500s", why.message);
		return 0;
	}
	connector_end(fd);
	close(fd);
	bid->score = 70;
	(void) snprintf(bid->reason, sizeof bid->reason,
			"the kernel's proc connector answers; short-lived processes may show "
			"without their arguments");
	return 0;
}

static int
netlink_open(const struct moat_host *host, const struct moat_config *config, void **ret_self,
	     struct moat_error *err)
{
	struct tracer *tracer = calloc(1, sizeof *tracer);

	if (tracer == NULL)
		return moat_fail_memory(err);
	tracer->host = host;
	tracer->receive_buffer = DEFAULT_BUFFER;
	if (host->config_size(config, "receive_buffer", &tracer->receive_buffer, err) < 0) {
		free(tracer);
		return -1;
	}
	*ret_self = tracer;
	return 0;
}

static int
netlink_stop(void *self, struct moat_error *err)
{
	struct tracer *tracer = self;
	struct reader *reader = tracer->reader;

	if (reader == NULL)
		return 0;
	tracer->reader = NULL;
	return reader_stop(reader, err);
}

static void
netlink_close(void *self)
{
	(void) netlink_stop(self, NULL); /* what was lost has been told to the sink */
	free(self);
}

static void
report_buffer(const struct tracer *tracer, uint64_t got)
{
	char message[160];

	/* The kernel doubles what it is asked for, for its own overhead. */
	(void) snprintf(message, sizeof message,
			"receive buffer: %llu bytes, asked for %llu; a larger one needs "
			"CAP_NET_ADMIN or net.core.rmem_max",
			(unsigned long long) got / 2, (unsigned long long) tracer->receive_buffer);
	tracer->host->log("tracer-netlink", MOAT_LOG_DEBUG, message);
}

static int
netlink_start(void *self, const struct moat_trace_target *target, const struct moat_sink *sink,
	      struct moat_error *err)
{
	struct tracer *tracer = self;
	uint64_t buffer = 0;

	if (tracer->reader != NULL)
		return moat_fail(err, MOAT_USAGE, "the tracer runs already");
	if (target->root_pid <= 0)
		return moat_fail(err, MOAT_UNSUPPORTED,
				 "the proc connector needs the first process of the run, and this "
				 "runtime does not name one");
	if (reader_start(target, sink, tracer->receive_buffer, &tracer->stats, &buffer,
			 &tracer->reader, err) < 0)
		return -1;
	if (buffer / 2 < tracer->receive_buffer)
		report_buffer(tracer, buffer);
	return 0;
}

static int
netlink_stats(void *self, struct moat_trace_stats *ret, struct moat_error *err)
{
	struct reader_stats *stats = &((struct tracer *) self)->stats;

	ret->execs = atomic_load(&stats->execs);
	ret->exits = atomic_load(&stats->exits);
	ret->forks = atomic_load(&stats->forks);
	ret->lost = atomic_load(&stats->lost);
	ret->incomplete_argv = atomic_load(&stats->incomplete_argv);
	return 0;
}

static const struct moat_tracer_ops netlink_ops = {
	MOAT_OPS(tracer),       .capabilities = MOAT_TRACER_MAY_LOSE,
	.probe = netlink_probe, .open = netlink_open,
	.close = netlink_close, .start = netlink_start,
	.stop = netlink_stop,   .stats = netlink_stats,
};

static const struct moat_plugin netlink_plugin = MOAT_PLUGIN_INIT(
	MOAT_KIND_TRACER, "netlink", "0.1.0", "Apache-2.0",
	"records what a run executes, by the Linux proc connector", &netlink_ops, NULL);

const struct moat_plugin *
moat_plugin_init(const struct moat_host *host)
{
	return &netlink_plugin;
}
