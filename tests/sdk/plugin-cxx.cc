/* SPDX-License-Identifier: Apache-2.0 */
/* A tracer in C++11, whose tables are filled in by a constructor, as that language has it. */
#include <moat/plugin.h>

namespace
{

int
probe(const moat_host *, const moat_target *, moat_bid *bid, moat_error *)
{
	bid->score = 10;
	return 0;
}

int
open_tracer(const moat_host *, const moat_config *, void **ret_self, moat_error *)
{
	*ret_self = new int(7);
	return 0;
}

void
close_tracer(void *self)
{
	delete static_cast<int *>(self);
}

int
start(void *, const moat_trace_target *, const moat_sink *, moat_error *err)
{
	return moat_error_set(err, MOAT_UNSUPPORTED, 0, "%s", "a fixture traces nothing");
}

int
stop(void *, moat_error *)
{
	return 0;
}

int
stats(void *, moat_trace_stats *, moat_error *)
{
	return 0;
}

struct tables {
	moat_tracer_ops ops;
	moat_plugin plugin;

	tables()
	    : ops(), plugin(MOAT_PLUGIN_INIT(MOAT_KIND_TRACER, "cxx", "1.0", "Apache-2.0",
					     "A plugin for the tests", &ops, nullptr))
	{
		ops.struct_size = sizeof ops;
		ops.probe = probe;
		ops.open = open_tracer;
		ops.close = close_tracer;
		ops.start = start;
		ops.stop = stop;
		ops.stats = stats;
	}
};

} // namespace

extern "C" const moat_plugin *
moat_plugin_init(const moat_host *)
{
	static const tables the_tables;

	return &the_tables.plugin;
}
