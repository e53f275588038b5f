/* SPDX-License-Identifier: Apache-2.0 */
/* The table of commands.  An alias is a word of the top level, also for a subcommand ("snapshots").
 * A parent with a function of its own is what its bare name does. */
#include "core/cmd.h"

static const char *const color_choices[] = {"auto", "always", "never", NULL};
static const char *const commit_choices[] = {"never", "success", NULL};
static const char *const format_choices[] = {"tar", "tar.lz4", "tar.gz", "tar.zst", NULL};
static const char *const network_choices[] = {"none", "open", NULL};
static const char *const stream_choices[] = {"stdout", "stderr", NULL};

/* clang-format off */
#define END {0}

const struct option_spec global_options[] = {
	{"home", 0, OPTION_VALUE, "DIR", NULL, "keep runs and snapshots there instead of ~/.local/state/moat"},
	{"config", 0, OPTION_VALUE, "FILE", NULL, "read that file instead of the workspace's moat.yaml"},
	{"plugin-dir", 0, OPTION_LIST, "DIR", NULL, "look for plugins there first; repeatable"},
	{"backend", 0, OPTION_LIST, "[KIND:]NAME", NULL, "use that plugin, or fail; repeatable, one for each kind"},
	{"json", 0, OPTION_FLAG, NULL, NULL, "print JSON"},
	{"color", 0, OPTION_VALUE, "WHEN", color_choices, "colours: auto (on a terminal), always, never"},
	{"verbose", 'v', OPTION_COUNT, NULL, NULL, "say more; twice: debug messages, too"},
	{"quiet", 'q', OPTION_FLAG, NULL, NULL, "only say what failed"},
	{"help", 'h', OPTION_FLAG, NULL, NULL, "show this help"},
	{"version", 0, OPTION_FLAG, NULL, NULL, "show the version"},
	END
};

static const struct option_spec run_options[] = {
	{"workspace", 0, OPTION_LIST, "DIR", NULL, "a further workspace; repeatable"},
	{"name", 0, OPTION_VALUE, "NAME", NULL, "call the run NAME"},
	{"interactive", 'i', OPTION_FLAG, NULL, NULL, "carry stdin to the command, even from a terminal"},
	{"tty", 't', OPTION_FLAG, NULL, NULL, "give the command a terminal"},
	{"env", 'e', OPTION_LIST, "K=V", NULL, "set an environment variable; repeatable"},
	{"mount", 'm', OPTION_LIST, "SRC:DST[:ro]", NULL, "show the host's SRC as DST inside; repeatable"},
	{"sandbox", 0, OPTION_VALUE, "STRATEGY", NULL, "how the run sees its workspaces (default: none, directly)"},
	{"commit", 0, OPTION_VALUE, "WHEN", commit_choices, "commit the sandbox's changes at the end: never, success"},
	{"image", 0, OPTION_VALUE, "IMAGE", NULL, "the image to run in, where the runtime has images"},
	{"network", 0, OPTION_VALUE, "POLICY", network_choices, "the network inside: none, open"},
	{"memory", 0, OPTION_VALUE, "SIZE", NULL, "limit memory: 512M, 2GiB"},
	{"cpus", 0, OPTION_VALUE, "N", NULL, "limit processor time: 2, 0.5"},
	{"no-snapshot", 0, OPTION_FLAG, NULL, NULL, "take no snapshot before"},
	{"no-trace", 0, OPTION_FLAG, NULL, NULL, "do not record what is executed"},
	{"rm", 0, OPTION_FLAG, NULL, NULL, "forget the run when it ends"},
	{"dry-run", 0, OPTION_FLAG, NULL, NULL, "only say what would be done"},
	END
};

static const struct option_spec list_options[] = {
	{"all", 'a', OPTION_FLAG, NULL, NULL, "also runs that have ended"},
	END
};

static const struct option_spec logs_options[] = {
	{"follow", 'f', OPTION_FLAG, NULL, NULL, "go on as the run writes, until it ends"},
	{"lines", 'n', OPTION_VALUE, "N", NULL, "only the last N lines"},
	{"since", 0, OPTION_VALUE, "TIME", NULL, "only what is newer: 10m, or 2026-01-31T12:00:00Z"},
	{"stream", 0, OPTION_VALUE, "STREAM", stream_choices, "only one stream: stdout, stderr"},
	END
};

static const struct option_spec snapshot_create_options[] = {
	{"label", 0, OPTION_VALUE, "TEXT", NULL, "a remark to find it by"},
	{"workspace", 0, OPTION_VALUE, "DIR", NULL, "of that workspace (default: the current directory)"},
	END
};

static const struct option_spec snapshot_list_options[] = {
	{"workspace", 0, OPTION_VALUE, "DIR", NULL, "of that workspace (default: the current directory)"},
	END
};

static const struct option_spec snapshot_restore_options[] = {
	{"to", 0, OPTION_VALUE, "DIR", NULL, "into DIR, which must be absent or empty, instead of in place"},
	{"dry-run", 0, OPTION_FLAG, NULL, NULL, "only say what would be done"},
	{"no-safety", 0, OPTION_FLAG, NULL, NULL, "take no safety snapshot before"},
	END
};

static const struct option_spec snapshot_prune_options[] = {
	{"keep", 0, OPTION_VALUE, "N", NULL, "keep the newest N"},
	{"max-bytes", 0, OPTION_VALUE, "SIZE", NULL, "keep what fits into SIZE: 500M, 2GiB"},
	{"workspace", 0, OPTION_VALUE, "DIR", NULL, "of that workspace (default: the current directory)"},
	{"dry-run", 0, OPTION_FLAG, NULL, NULL, "only say what would be done"},
	END
};

static const struct option_spec snapshot_export_options[] = {
	{"format", 0, OPTION_VALUE, "FORMAT", format_choices, "instead of by the name: tar, tar.lz4, tar.gz, tar.zst"},
	{"force", 'f', OPTION_FLAG, NULL, NULL, "replace FILE when it exists"},
	END
};

static const struct option_spec snapshot_import_options[] = {
	{"label", 0, OPTION_VALUE, "TEXT", NULL, "a remark to find it by"},
	{"workspace", 0, OPTION_VALUE, "DIR", NULL, "for that workspace (default: the current directory)"},
	{"max-entries", 0, OPTION_VALUE, "N", NULL, "refuse an archive with more entries (default: 2000000)"},
	{"max-file-bytes", 0, OPTION_VALUE, "SIZE", NULL, "refuse one with a larger file (default: 64GiB)"},
	{"max-bytes", 0, OPTION_VALUE, "SIZE", NULL, "refuse one whose files are larger together (default: 256GiB)"},
	END
};

static const struct option_spec rollback_options[] = {
	{"to", 0, OPTION_VALUE, "DIR", NULL, "into DIR, which must be absent or empty, instead of in place"},
	{"dry-run", 0, OPTION_FLAG, NULL, NULL, "only say what would be done"},
	END
};

static const struct option_spec undo_options[] = {
	{"dry-run", 0, OPTION_FLAG, NULL, NULL, "only say what would be done"},
	END
};

static const struct option_spec trace_options[] = {
	{"tree", 0, OPTION_FLAG, NULL, NULL, "show what started what"},
	{"follow", 0, OPTION_FLAG, NULL, NULL, "go on until the run ends"},
	END
};

static const struct option_spec plugin_list_options[] = {
	{"explain", 0, OPTION_FLAG, NULL, NULL, "also tell each plugin's bid and its reason"},
	END
};

const struct command commands[] = {
	{
		.name = "run", .synopsis = "[OPTION]... [DIR] [-- CMD...]",
		.summary = "run a command isolated, against a workspace",
		.description =
			"Takes a snapshot of the workspace DIR (default: the current directory), runs CMD in a "
			"sandbox where the workspace is all that it can write to, and records every program that "
			"is executed. `moat rollback' puts the workspace back. Without CMD, `command' of "
			"moat.yaml is run.\n"
			"The exit status is that of CMD; 125 when moat failed, 126 when CMD could not be "
			"executed, 127 when it was not found, 128+N when signal N ended it.",
		.options = run_options, .max_arguments = 1, .takes_command = true, .run = cmd_run,
	}, {
		.name = "list", .alias = "ps", .synopsis = "[OPTION]...",
		.summary = "list runs",
		.description = "Living runs, newest first.",
		.options = list_options, .run = cmd_list,
	}, {
		.name = "status", .synopsis = "[OPTION]... RUN",
		.summary = "tell all about a run",
		.description = "RUN, here and elsewhere, is an id, the beginning of one, or a name.",
		.min_arguments = 1, .max_arguments = 1, .run = cmd_status,
	}, {
		.name = "logs", .synopsis = "[OPTION]... RUN",
		.summary = "show what a run wrote",
		.options = logs_options, .min_arguments = 1, .max_arguments = 1, .run = cmd_logs,
	}, {
		.name = "snapshot", .synopsis = "[create] [OPTION]... [RUN]",
		.summary = "take, show and restore snapshots of a workspace",
		.description = "Without a subcommand: `moat snapshot create'.",
		.options = snapshot_create_options, .max_arguments = 1, .run = cmd_snapshot_create,
	}, {
		.name = "create", .parent = "snapshot", .synopsis = "[OPTION]... [RUN]",
		.summary = "take a snapshot",
		.description =
			"Of the workspace of RUN, of that of --workspace, or of the current directory. Prints "
			"the snapshot's id.",
		.options = snapshot_create_options, .max_arguments = 1, .run = cmd_snapshot_create,
	}, {
		.name = "list", .parent = "snapshot", .alias = "snapshots", .synopsis = "[OPTION]... [RUN]",
		.summary = "list the snapshots of a workspace",
		.options = snapshot_list_options, .max_arguments = 1, .run = cmd_snapshot_list,
	}, {
		.name = "show", .parent = "snapshot", .synopsis = "[OPTION]... SNAP",
		.summary = "tell all about a snapshot",
		.description = "SNAP, here and elsewhere, is an id or the beginning of one.",
		.min_arguments = 1, .max_arguments = 1, .run = cmd_snapshot_show,
	}, {
		.name = "diff", .parent = "snapshot", .synopsis = "[OPTION]... SNAP [SNAP]",
		.summary = "list what changed since a snapshot",
		.description = "Compares with the second snapshot, or with the workspace as it is now.",
		.min_arguments = 1, .max_arguments = 2, .run = cmd_snapshot_diff,
	}, {
		.name = "restore", .parent = "snapshot", .synopsis = "[OPTION]... SNAP [PATH...]",
		.summary = "put a workspace back to a snapshot",
		.description =
			"Wholly or not at all; what the snapshot did not capture is not touched. With PATH, only "
			"those files and directories. A safety snapshot is taken first, and the command that "
			"undoes the restore is printed.",
		.options = snapshot_restore_options, .min_arguments = 1, .max_arguments = -1,
		.run = cmd_snapshot_restore,
	}, {
		.name = "delete", .parent = "snapshot", .synopsis = "[OPTION]... SNAP...",
		.summary = "delete snapshots",
		.description = "What other snapshots need is kept.",
		.min_arguments = 1, .max_arguments = -1, .run = cmd_snapshot_delete,
	}, {
		.name = "prune", .parent = "snapshot", .synopsis = "[OPTION]...",
		.summary = "delete the oldest snapshots of a workspace",
		.description =
			"Keeps the newest, as many as --keep says, or as fit into --max-bytes; without either, what "
			"snapshots.retention of moat.yaml says. The newest, and those taken before runs, always "
			"stay (the latter unless snapshots.retention.delete_initial). Prints the ids of those that went.",
		.options = snapshot_prune_options, .run = cmd_snapshot_prune,
	}, {
		.name = "verify", .parent = "snapshot", .synopsis = "[OPTION]... [SNAP...]",
		.summary = "read snapshots back and compare them with what was taken",
		.description =
			"Those given, or all of the workspace in the current directory. Lists the files that are "
			"lost or damaged; the status is then 1.",
		.max_arguments = -1, .run = cmd_snapshot_verify,
	}, {
		.name = "export", .parent = "snapshot", .synopsis = "[OPTION]... SNAP FILE",
		.summary = "write a snapshot as a tar archive",
		.description =
			"FILE tells the format by its end: .tar, .tar.lz4, .tar.gz or .tar.zst. `-' is standard "
			"output, a plain tar unless --format says otherwise. Stock tar reads it.",
		.options = snapshot_export_options, .min_arguments = 2, .max_arguments = 2,
		.run = cmd_snapshot_export,
	}, {
		.name = "import", .parent = "snapshot", .synopsis = "[OPTION]... FILE",
		.summary = "take a tar archive as a snapshot of a workspace",
		.description =
			"Nothing is written before the whole archive was read and found to be harmless, and the "
			"workspace is not touched. `-' is standard input. Prints the snapshot's id.",
		.options = snapshot_import_options, .min_arguments = 1, .max_arguments = 1,
		.run = cmd_snapshot_import,
	}, {
		.name = "rollback", .synopsis = "[OPTION]... RUN [SNAP]",
		.summary = "put a run's workspace back to what it was before",
		.description =
			"SNAP defaults to the newest snapshot of the run's workspace that is not a safety "
			"snapshot. A safety snapshot is taken first, and the command that undoes the rollback is "
			"printed.",
		.options = rollback_options, .min_arguments = 1, .max_arguments = 2, .run = cmd_rollback,
	}, {
		.name = "undo", .synopsis = "[OPTION]... [TXN]",
		.summary = "take back the last restore of a workspace",
		.description =
			"Of the workspace in the current directory, or the restore TXN. Exactly what it changed "
			"becomes what it was before; everything else stays as it is now. Refused with status 3 "
			"when any of it has been changed since. An undo is a restore, too: undone once more, it "
			"is done again.",
		.options = undo_options, .max_arguments = 1, .run = cmd_undo,
	}, {
		.name = "trace", .synopsis = "[OPTION]... RUN",
		.summary = "show every program that a run executed",
		.options = trace_options, .min_arguments = 1, .max_arguments = 1, .run = cmd_trace,
	}, {
		.name = "plugin", .synopsis = "SUBCOMMAND",
		.summary = "list and describe plugins",
	}, {
		.name = "list", .parent = "plugin", .synopsis = "[OPTION]...",
		.summary = "list the plugins found, and the files refused",
		.options = plugin_list_options, .run = cmd_plugin_list,
	}, {
		.name = "info", .parent = "plugin", .synopsis = "[OPTION]... NAME",
		.summary = "describe one plugin, as key=value lines",
		.description = "NAME is that of a plugin, or KIND-NAME.",
		.min_arguments = 1, .max_arguments = 1, .run = cmd_plugin_info,
	}, {
		.name = "recover", .synopsis = "[OPTION]...",
		.summary = "put in order what was interrupted or lost",
		.description = "Completes or undoes restores that were interrupted, clears away what interrupted "
			       "snapshots, deletions and imports left, and makes missing or damaged records of "
			       "snapshots again from the store.",
		.run = cmd_recover,
	}, {
		.name = "completion", .synopsis = "[OPTION]... SHELL",
		.summary = "print a shell's completion of moat's commands: bash, zsh, fish",
		.description =
			"For bash: eval \"$(moat completion bash)\". What it prints tells where such a file is "
			"looked for.",
		.min_arguments = 1, .max_arguments = 1, .run = cmd_completion,
	}, {
		.name = "complete", .synopsis = "-- WORD...",
		.summary = "what can stand in place of the last WORD, for shells",
		.takes_command = true, .hidden = true, .run = cmd_complete,
	}, {
		.name = "version", .synopsis = "[OPTION]...",
		.summary = "show the version",
		.run = cmd_version,
	}, {
		.name = "help", .synopsis = "[COMMAND [SUBCOMMAND]]",
		.summary = "show the help of moat or of a command",
		.max_arguments = 2, .run = cmd_help,
	},
	END
};
