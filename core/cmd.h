/* SPDX-License-Identifier: Apache-2.0 */
/* The functions behind the commands; core/commands.c names them in its table. */
#ifndef MOAT_CORE_CMD_H
#define MOAT_CORE_CMD_H

#include "core/command.h"

typedef int command_fn(struct app *app, const struct args *args, struct moat_error *err);

command_fn cmd_complete;
command_fn cmd_completion;
command_fn cmd_help;
command_fn cmd_list;
command_fn cmd_logs;
command_fn cmd_plugin_info;
command_fn cmd_plugin_list;
command_fn cmd_recover;
command_fn cmd_rollback;
command_fn cmd_run;
command_fn cmd_snapshot_create;
command_fn cmd_snapshot_delete;
command_fn cmd_snapshot_prune;
command_fn cmd_snapshot_diff;
command_fn cmd_snapshot_export;
command_fn cmd_snapshot_import;
command_fn cmd_snapshot_list;
command_fn cmd_snapshot_restore;
command_fn cmd_snapshot_show;
command_fn cmd_snapshot_verify;
command_fn cmd_status;
command_fn cmd_trace;
command_fn cmd_undo;
command_fn cmd_version;

struct snap_list;

extern const char *const completion_shells[]; /* NULL-terminated */

/* What several of them do. */
int cmd_print_snaps(const struct snap_list *list, struct moat_error *err); /* --json: an array */

#endif
