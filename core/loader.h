/* SPDX-License-Identifier: Apache-2.0 */
/* Finding, loading and choosing plugins. */
#ifndef MOAT_CORE_LOADER_H
#define MOAT_CORE_LOADER_H

#include <stdbool.h>

#include "common/error.h"
#include "core/config.h"

/* One loaded plugin.  `ops` is the core's own copy of the table, zero where the plugin's was
 * shorter. */
struct plugin {
	uint32_t kind, api_version;
	char *name, *version, *license, *description, *path;
	char *requires_package; /* or NULL */
	union {
		struct moat_snapshot_ops snapshot;
		struct moat_sandbox_ops sandbox;
		struct moat_runtime_ops runtime;
		struct moat_tracer_ops tracer;
	} ops;
	void *module; /* lt_dlhandle */
	struct plugin *next;
	size_t descriptor_size, ops_size; /* struct_size of the two, as the plugin said */
};

/* A function of a kind's table, as plugin.h has it. */
struct plugin_member {
	const char *name;
	size_t offset;        /* in struct moat_KIND_ops */
	bool required;        /* of every plugin */
	uint64_t required_by; /* of one that has any of these capabilities */
};
const struct plugin_member *plugin_members(uint32_t kind); /* ended by name NULL */
bool plugin_has(const struct plugin *plugin, const struct plugin_member *member);
uint64_t plugin_capabilities(const struct plugin *plugin);

/* A file that was refused, and why; one line. */
struct plugin_problem {
	char *path;
	char *kind_name; /* "runtime-bwrap", from the file's name */
	char *message;
	struct plugin_problem *next;
};

struct loader {
	struct plugin *plugins; /* sorted by kind, then name */
	struct plugin_problem *problems;
	char **directories; /* NULL-terminated, in the order searched */
};

/* Loads every plugin of the directories (NULL-terminated `extra` first, then $MOAT_PLUGIN_PATH
 * unless privileges were gained, then the installed one).  The first of one KIND-NAME wins.  A bad
 * file is a problem in the list, never a failure.  One loader per process. */
int loader_open(const char *const *extra, struct loader **ret, struct moat_error *err);
void loader_close(struct loader *loader);
void cleanup_loader(struct loader **loader);
/* One warning line for each problem; what a command that chooses a backend does first. */
void loader_warn(const struct loader *loader);

const char *plugin_kind_text(uint32_t kind); /* "runtime"; NULL: no such kind */
uint32_t plugin_kind_of(const char *text);   /* 0: no such kind */
const struct plugin *loader_find(const struct loader *loader, uint32_t kind, const char *name);

/* Who asked for a backend, for messages. */
struct backend_request {
	const char *name;   /* NULL: nobody asked; detection */
	const char *origin; /* "--backend", "moat.yaml:3:1"... */
};

/* From --backend=[KIND:]NAME options (NULL-terminated; the last of a kind wins), then the
 * configuration's key for that kind.  An unknown kind, or a bare name that no kind or more than one
 * has, is MOAT_USAGE. A bare name must be known here: a typo is not silently nothing. */
int loader_request(const struct loader *loader, const char *const *backends,
		   const struct config *config, uint32_t kind, struct backend_request *ret,
		   struct moat_error *err);

/* The plugin to use: the one requested, or the best bid.  Asked for and not there, refused when
 * loaded, or bidding "no": an error that says why and names the package; never another one.
 * *ret_bid may be NULL. */
int loader_select(const struct loader *loader, const struct config *config, uint32_t kind,
		  const struct backend_request *request, const struct moat_target *target,
		  const struct plugin **ret, struct moat_bid *ret_bid, struct moat_error *err);

/* One plugin's bid, safely: score within 0..100, a reason always.  Never fails: an error becomes a
 * "no". */
void plugin_bid(const struct plugin *plugin, const struct config *config,
		const struct moat_target *target, struct moat_bid *ret);

/* The host table (core/host.c). */
const struct moat_host *host_table(void);
/* What host->progress and host->cancelled do; NULL: nothing, never. */
void host_set_progress(void (*progress)(uint64_t, uint64_t, uint64_t, uint64_t));
void host_set_cancelled(int (*cancelled)(void));

#endif
