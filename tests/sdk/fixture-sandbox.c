/* SPDX-License-Identifier: Apache-2.0 */
/* A sandbox plugin; with FIXTURE_COMMIT one that promises commits of its own, and cannot undo. */
#include <moat/plugin.h>

static int
probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
      struct moat_error *err)
{
	bid->score = 50;
	return 0;
}

static int
open_strategy(const struct moat_host *host, const struct moat_config *config, void **ret_self,
	      struct moat_error *err)
{
	return 0;
}

static void
close_strategy(void *self)
{
}

static int
create(void *self, const struct moat_sandbox_spec *spec, struct moat_view *ret,
       struct moat_error *err)
{
	ret->kind = MOAT_VIEW_PATH;
	ret->path = spec->workspace;
	(void) snprintf(ret->ref, sizeof ret->ref, "view");
	return 0;
}

static int
simple(void *self, const char *ref, struct moat_error *err)
{
	return 0;
}

static const struct moat_sandbox_ops ops = {
	MOAT_OPS(sandbox),
	.probe = probe,
	.open = open_strategy,
	.close = close_strategy,
	.create = create,
	.destroy = simple,
#ifdef FIXTURE_COMMIT
	.capabilities = MOAT_SANDBOX_OWN_COMMIT,
	.prepare = simple,
	.commit = simple,
#endif
};

#ifdef FIXTURE_COMMIT
#define NAME "commit"
#else
#define NAME "good"
#endif

static const struct moat_plugin descriptor = MOAT_PLUGIN_INIT(
	MOAT_KIND_SANDBOX, NAME, "1.0", "Apache-2.0", "A plugin for the tests", &ops, NULL);

const struct moat_plugin *
moat_plugin_init(const struct moat_host *host)
{
	return &descriptor;
}
