/* SPDX-License-Identifier: Apache-2.0 */
/* The commands that carry snapshots out of moat and into it. */
#include <inttypes.h>
#include <string.h>

#include "common/text.h"
#include "core/cmd.h"
#include "core/export.h"
#include "core/import.h"
#include "core/log.h"
#include "core/terminal.h"

int
cmd_snapshot_export(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_SNAP struct snap *snap = NULL;
	AUTO_JSON json_t *json = NULL;
	struct export_options options = {.file = args_at(args, 1),
					 .format = args_value(args, "format"),
					 .force = args_flag(args, "force")};
	bool to_stdout = strcmp(options.file, "-") == 0;
	uint64_t size = 0;
	char text[32];

	if (app->json && to_stdout)
		return moat_fail(err, MOAT_USAGE,
				 "--json and the archive cannot both go to standard output");
	if (app_home(app, err) < 0 || snap_find(app->home, args_at(args, 0), &snap, err) < 0 ||
	    export_snapshot(app, snap, &options, &size, err) < 0)
		return -1;
	if (!app->json) {
		log_notice("exported %s, %s", snap->id, text_size(text, size));
		return 0;
	}
	json = json_object();
	if (json == NULL || json_put_text(json, "id", snap->id) < 0 ||
	    json_put_bytes(json, "file", options.file, strlen(options.file)) < 0 ||
	    json_put_int(json, "bytes", (int64_t) size) < 0)
		return moat_fail_memory(err);
	return json_print(json, false, err);
}

static void
tell_dropped(const struct import_dropped *dropped)
{
	if (dropped->xattrs > 0)
		log_warning("left out %" PRIu64
			    " extended attributes of classes that are not taken",
			    dropped->xattrs);
	if (dropped->modes > 0)
		log_warning("left out the setuid, setgid and sticky bits of %" PRIu64 " files",
			    dropped->modes);
	if (dropped->left_out > 0)
		log_warning("left out %" PRIu64 " members under names that moat does not touch",
			    dropped->left_out);
}

static int
print_imported(struct app *app, const struct snap *snap, const struct import_dropped *dropped,
	       struct moat_error *err)
{
	AUTO_JSON json_t *json = NULL;
	AUTO_JSON json_t *counts = NULL;

	if (!app->json) {
		out("%s\n", snap->id);
		return 0;
	}
	json = snap_json(snap);
	counts = json_object();
	if (json == NULL || counts == NULL ||
	    json_put_int(counts, "xattrs", (int64_t) dropped->xattrs) < 0 ||
	    json_put_int(counts, "modes", (int64_t) dropped->modes) < 0 ||
	    json_put_int(counts, "left_out", (int64_t) dropped->left_out) < 0 ||
	    json_put_new(json, "dropped", json_incref(counts)) < 0)
		return moat_fail_memory(err);
	return json_print(json, false, err);
}

int
cmd_snapshot_import(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_SNAP struct snap *snap = NULL;
	struct import_dropped dropped = {0};
	struct import_options options = {
		.file = args_at(args, 0),
		.label = args_value(args, "label"),
		.workspace = args_value(args, "workspace"),
		.max_entries = args_value(args, "max-entries"),
		.max_file_bytes = args_value(args, "max-file-bytes"),
		.max_bytes = args_value(args, "max-bytes"),
	};

	if (import_archive(app, &options, &snap, &dropped, err) < 0)
		return -1;
	tell_dropped(&dropped);
	return print_imported(app, snap, &dropped, err);
}
