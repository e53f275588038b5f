/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot plugin that does nothing, and, by macros, everything that can be wrong with one. */
#include <moat/plugin.h>

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

#ifndef FIXTURE_KIND
#define FIXTURE_KIND MOAT_KIND_SNAPSHOT
#endif
#ifndef FIXTURE_API
#define FIXTURE_API MOAT_API_VERSION
#endif
#ifndef FIXTURE_DESCRIPTOR_SIZE
#define FIXTURE_DESCRIPTOR_SIZE sizeof(struct moat_plugin)
#endif
#ifndef FIXTURE_OPS_SIZE
#define FIXTURE_OPS_SIZE sizeof(struct moat_snapshot_ops)
#endif
#ifndef FIXTURE_CAPTURE
#define FIXTURE_CAPTURE capture
#endif
#ifndef FIXTURE_OPS
#define FIXTURE_OPS &ops
#endif
#ifndef FIXTURE_VERSION
#define FIXTURE_VERSION "1.0"
#endif
#ifndef FIXTURE_LICENSE
#define FIXTURE_LICENSE "Apache-2.0"
#endif
#ifndef FIXTURE_RETURN
#define FIXTURE_RETURN &descriptor.known
#endif
#ifndef FIXTURE_INIT
#define FIXTURE_INIT moat_plugin_init
#endif

static int
probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
      struct moat_error *err)
{
	bid->score = 50;
	(void) snprintf(bid->reason, sizeof bid->reason, "a fixture");
	return 0;
}

static int
open_store(const struct moat_host *host, const struct moat_store *store, void **ret_self,
	   struct moat_error *err)
{
	return 0;
}

static void
close_store(void *self)
{
}

#ifdef FIXTURE_UNDEFINED
void moat_fixture_nowhere(void);
#endif

MOAT_UNUSED static int
capture(void *self, const struct moat_capture *request, struct moat_ref *ret,
	struct moat_error *err)
{
#ifdef FIXTURE_UNDEFINED
	moat_fixture_nowhere();
#endif
	(void) snprintf(ret->text, sizeof ret->text, "%s", request->snapshot);
	return 0;
}

static int
materialise(void *self, const struct moat_extract *extract, struct moat_error *err)
{
	return moat_error_set(err, MOAT_UNSUPPORTED, 0, "a fixture holds nothing");
}

static int
remove_snapshot(void *self, const char *ref, const struct moat_live *live,
		struct moat_error *err)
{
	return 0;
}

/* The tables of a later version: what we know, and what we do not. */
static const struct {
	struct moat_snapshot_ops known;
	void (*later)(void);
	uint64_t much_later[64];
} ops = {
	.known =
		{
			.struct_size = FIXTURE_OPS_SIZE,
			.probe = probe,
			.open = open_store,
			.close = close_store,
			.capture = FIXTURE_CAPTURE,
			.materialise = materialise,
			.remove = remove_snapshot,
		},
	.later = NULL,
	.much_later = {0xffffffffffffffffu},
};

MOAT_UNUSED static const struct {
	struct moat_plugin known;
	uint64_t later[64];
} descriptor = {
	.known = {FIXTURE_DESCRIPTOR_SIZE, FIXTURE_API, FIXTURE_KIND, TEXT(FIXTURE_NAME),
		  FIXTURE_VERSION, FIXTURE_LICENSE, "A plugin for the tests", FIXTURE_OPS, NULL},
	.later = {0xffffffffffffffffu},
};

MOAT_EXPORT const struct moat_plugin *FIXTURE_INIT(const struct moat_host *host);
MOAT_EXPORT const struct moat_plugin *
FIXTURE_INIT(const struct moat_host *host)
{
	(void) &ops;
	return FIXTURE_RETURN;
}
