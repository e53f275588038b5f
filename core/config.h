/* SPDX-License-Identifier: Apache-2.0 */
/* moat.yaml (else agent.yaml) of a workspace, and the user's config.yaml.
 *
 * One table in config.c describes every key: its place, type, limits and default.  Every complaint
 * carries FILE:LINE:COLUMN; an unknown or repeated key is refused, with the nearest name that
 * exists. */
#ifndef MOAT_CORE_CONFIG_H
#define MOAT_CORE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"

struct config_workspace {
	char *path;
	char *sandbox; /* NULL: the default */
	char *target;  /* where it appears inside; NULL: at its own path */
};

struct config_mount {
	char *source, *target;
	bool read_only;
};

/* What the files say, the more specific file first; everything else is at its default.  Strings are
 * owned. */
struct config {
	char *file; /* the moat.yaml that was read, or NULL */
	char *name;
	char **command; /* NULL-terminated; NULL: not given.  A string is run by `sh -c` */
	bool interactive;
	char *runtime; /* plugin name; NULL: detection */
	char *image;
	char **env; /* NULL-terminated KEY=VALUE, sorted by key; NULL: none */
	struct config_mount *mounts;
	size_t mount_count;
	struct config_workspace *workspaces;
	size_t workspace_count;
	char *sandbox;        /* "none" */
	char *commit;         /* "never" */
	char *network_policy; /* "open" */
	uint64_t memory;      /* bytes; 0: none */
	uint32_t cpus_milli;  /* 0: none */
	struct {
		bool disabled;
		char *backend; /* NULL: detection */
		bool disable_pre_run, disable_git_commits, disable_builds, disable_idle;
		int64_t idle_threshold_seconds; /* 30 */
		bool ignore_gitignore;
		char **additional;  /* NULL-terminated patterns; NULL: none */
		int64_t max_count;  /* 0: no limit */
		uint64_t max_bytes; /* 0: no limit */
		bool delete_initial;
		int64_t import_max_entries;     /* 2,000,000 */
		uint64_t import_max_file_bytes; /* 64 GiB */
		uint64_t import_max_bytes;      /* 256 GiB */
	} snapshots;
	struct {
		bool disable_exec;
		char *backend;
		int64_t poll_interval_ms; /* 100 */
	} tracing;
	struct {
		char *escape;            /* "ctrl-/" */
		int64_t double_press_ms; /* 500 */
	} attach;
	struct config_tree *plugins; /* plugins.KIND-NAME: opaque, for config_plugin() */
};

/* Reads moat.yaml or agent.yaml in workspace_fd (explicit_file, when not NULL, instead: then it
 * must exist) and the user's file ($XDG_CONFIG_HOME/moat/config.yaml).  No file at all is fine.
 * workspace_fd may be -1: there is no workspace. */
int config_load(int workspace_fd, const char *workspace, const char *explicit_file,
		struct config **ret, struct moat_error *err);
void config_free(struct config *config);
void cleanup_config(struct config **config);
#define AUTO_CONFIG CLEANUP(cleanup_config)

/* The mapping plugins.KIND-NAME for moat_host.config_*(), or NULL. */
const struct moat_config *
config_plugin(const struct config *config, const char *kind, const char *name);
/* The members of struct moat_host (core/host.c puts them in the table). */
int config_get_string(const struct moat_config *config, const char *key, const char **ret,
		      struct moat_error *err);
int config_get_int(const struct moat_config *config, const char *key, int64_t *ret,
		   struct moat_error *err);
int config_get_bool(const struct moat_config *config, const char *key, int *ret,
		    struct moat_error *err);
int config_get_size(const struct moat_config *config, const char *key, uint64_t *ret,
		    struct moat_error *err);
int config_get_duration(const struct moat_config *config, const char *key, int64_t *ret_ms,
			struct moat_error *err);

/* Values as they also stand on the command line: "SRC:DST[:ro|:rw]" (ret's strings are the
 * caller's to free), and a decimal number of cpus in thousandths. */
int config_parse_mount(const char *text, struct config_mount *ret, struct moat_error *err);
int config_parse_cpus(const char *text, uint32_t *ret, struct moat_error *err);

/* Parses text instead of files, for tests and fuzzing; `name` stands in messages. */
int config_parse(const char *text, size_t size, const char *name, struct config **ret,
		 struct moat_error *err);

#endif
