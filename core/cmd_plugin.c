/* SPDX-License-Identifier: Apache-2.0 */
/* moat plugin list, moat plugin info */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/text.h"
#include "core/cmd.h"
#include "core/json.h"
#include "core/terminal.h"

static const uint32_t all_kinds[] = {MOAT_KIND_RUNTIME, MOAT_KIND_SNAPSHOT, MOAT_KIND_TRACER,
				     MOAT_KIND_SANDBOX};
#define ALL_KINDS (sizeof all_kinds / sizeof all_kinds[0])

/* What is asked about: the plugins, in the current directory, with its configuration. */
struct survey {
	const struct loader *loader;
	char *directory;
	int fd;
	struct config *config;
	struct moat_target target;
};

static void
survey_close(struct survey *survey)
{
	free(survey->directory);
	cleanup_close(&survey->fd);
	if (survey->config != NULL)
		config_free(survey->config);
}

static int
survey_open(struct survey *survey, struct app *app, struct moat_error *err)
{
	if (app_loader(app, err) < 0)
		return -1;
	survey->loader = app->loader;
	survey->directory = getcwd(NULL, 0);
	if (survey->directory == NULL)
		return moat_fail_errno(err, "find the current directory");
	survey->fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (survey->fd < 0)
		return moat_fail_errno(err, "open `%s'", survey->directory);
	survey->target = (struct moat_target){.struct_size = sizeof survey->target,
					      .workspace = survey->directory,
					      .workspace_fd = survey->fd,
					      .home_fd = -1};
	/* Without a home the plugins that want one say so. */
	if (app_home(app, NULL) == 0)
		survey->target.home_fd = app->home->fd;
	return config_load(survey->fd, survey->directory, app->config_path, &survey->config, err);
}

/* "runtime" of "runtime-x", and what follows the dash; the name of a file may be anything. */
static void
split_kind_name(const char *kind_name, char kind[16], const char **ret_name)
{
	const char *dash = strchr(kind_name, '-');

	kind[0] = '\0';
	*ret_name = NULL;
	if (dash == NULL)
		return;
	(void) snprintf(kind, 16, "%.*s", (int) (dash - kind_name), kind_name);
	if (plugin_kind_of(kind) == 0)
		kind[0] = '\0';
	*ret_name = dash + 1;
}

/* ---------------------------------------------------------------------------------- list --json */

static json_t *
plugin_json(const struct survey *survey, const struct plugin *plugin)
{
	json_t *object = json_object();
	struct moat_bid bid;

	plugin_bid(plugin, survey->config, &survey->target, &bid);
	(void) json_put_text(object, "kind", plugin_kind_text(plugin->kind));
	(void) json_put_text(object, "name", plugin->name);
	(void) json_put_text(object, "version", plugin->version);
	(void) json_put_int(object, "api_version", plugin->api_version);
	(void) json_put_bytes(object, "path", plugin->path, strlen(plugin->path));
	(void) json_put_bool(object, "usable", bid.score > 0);
	(void) json_put_int(object, "score", bid.score);
	(void) json_put_bytes(object, "reason", bid.reason, strlen(bid.reason));
	return object;
}

static json_t *
problem_json(const struct plugin_problem *problem)
{
	json_t *object = json_object();
	const char *name;
	char kind[16];

	split_kind_name(problem->kind_name, kind, &name);
	(void) json_put_text(object, "kind", kind[0] != '\0' ? kind : NULL);
	if (name != NULL)
		(void) json_put_bytes(object, "name", name, strlen(name));
	else
		(void) json_put_null(object, "name");
	(void) json_put_null(object, "version");
	(void) json_put_null(object, "api_version");
	(void) json_put_bytes(object, "path", problem->path, strlen(problem->path));
	(void) json_put_bool(object, "usable", false);
	(void) json_put_null(object, "score");
	(void) json_put_bytes(object, "reason", problem->message, strlen(problem->message));
	return object;
}

static int
list_json(const struct survey *survey, struct moat_error *err)
{
	AUTO_JSON json_t *list = json_array();

	for (const struct plugin *p = survey->loader->plugins; p != NULL; p = p->next)
		if (json_array_append_new(list, plugin_json(survey, p)) < 0)
			return moat_fail_memory(err);
	for (const struct plugin_problem *p = survey->loader->problems; p != NULL; p = p->next)
		if (json_array_append_new(list, problem_json(p)) < 0)
			return moat_fail_memory(err);
	return json_print(list, false, err);
}

/* --------------------------------------------------------------------------------- list, people */

static int
list_table(const struct survey *survey, bool color, struct moat_error *err)
{
	static const char *const headers[] = {"NAME",  "KIND", "VERSION", "USABLE",
					      "SCORE", "PATH", NULL};
	struct table *table = table_new(headers);

	for (const struct plugin *p = survey->loader->plugins; p != NULL; p = p->next) {
		struct moat_bid bid;
		char score[16];

		plugin_bid(p, survey->config, &survey->target, &bid);
		(void) snprintf(score, sizeof score, "%d", bid.score);
		table_add(table,
			  (const char *[]){p->name, plugin_kind_text(p->kind), p->version,
					   bid.score > 0 ? "yes" : "no", score, p->path, NULL});
	}
	for (const struct plugin_problem *p = survey->loader->problems; p != NULL; p = p->next) {
		const char *name;
		char kind[16];

		split_kind_name(p->kind_name, kind, &name);
		table_add(table,
			  (const char *[]){name != NULL ? name : "-", kind[0] != '\0' ? kind : "-",
					   "-", "refused", "-", p->path, NULL});
	}
	return table_print(table, color, err);
}

static void
out_line(const char *before, const char *text)
{
	out("%s", before);
	out_escaped(text);
	out("\n");
}

/* How the choice for one kind falls, and by what. */
static int
explain_choice(const struct survey *survey, const char *const *backends, uint32_t kind,
	       struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	const struct plugin *plugin = NULL;
	struct backend_request request;
	struct moat_bid bid;

	if (loader_request(survey->loader, backends, survey->config, kind, &request, err) < 0)
		return -1;
	if (loader_select(survey->loader, survey->config, kind, &request, &survey->target, &plugin,
			  &bid, &why) < 0) {
		out_line("  => none: ", why.message);
		return 0;
	}
	out("  => ");
	out_escaped(plugin->name);
	if (request.name != NULL)
		out_line(", asked for by ", request.origin);
	else
		out(", the best bid (nobody asked for one by name)\n");
	return 0;
}

static int
list_explain(const struct survey *survey, const char *const *backends, struct moat_error *err)
{
	for (size_t i = 0; i < ALL_KINDS; i++) {
		out("%s%s\n", i > 0 ? "\n" : "", plugin_kind_text(all_kinds[i]));
		for (const struct plugin *p = survey->loader->plugins; p != NULL; p = p->next) {
			struct moat_bid bid;

			if (p->kind != all_kinds[i])
				continue;
			plugin_bid(p, survey->config, &survey->target, &bid);
			out("  ");
			out_escaped(p->name);
			if (bid.score > 0)
				out(" bids %d: ", bid.score);
			else
				out(" bids no: ");
			out_line("", bid.reason);
		}
		if (explain_choice(survey, backends, all_kinds[i], err) < 0)
			return -1;
	}
	if (survey->loader->problems != NULL)
		out("\nrefused\n");
	for (const struct plugin_problem *p = survey->loader->problems; p != NULL; p = p->next) {
		out("  ");
		out_escaped(p->path);
		out_line(": ", p->message);
	}
	out("\nsearched, in this order\n");
	for (char **d = survey->loader->directories; d != NULL && *d != NULL; d++)
		out_line("  ", *d);
	return 0;
}

int
cmd_plugin_list(struct app *app, const struct args *args, struct moat_error *err)
{
	CLEANUP(survey_close) struct survey survey = {.fd = -1};
	struct backend_request request;

	/* A typo in --backend is found before anything is printed. */
	if (survey_open(&survey, app, err) < 0 ||
	    loader_request(survey.loader, app->backends, survey.config, MOAT_KIND_RUNTIME, &request,
			   err) < 0)
		return -1;
	if (app->json)
		return list_json(&survey, err);
	if (args_flag(args, "explain"))
		return list_explain(&survey, app->backends, err);
	return list_table(&survey, app->color, err);
}

/* ------------------------------------------------------------------------------------------ info
 */

struct capability {
	uint32_t kind;
	uint64_t bit;
	const char *text;
};

static const struct capability capabilities[] = {
	{MOAT_KIND_RUNTIME, MOAT_RUNTIME_SURVIVES, "survives"},
	{MOAT_KIND_RUNTIME, MOAT_RUNTIME_IMAGES, "images"},
	{MOAT_KIND_RUNTIME, MOAT_RUNTIME_OWN_LOGS, "own-logs"},
	{MOAT_KIND_RUNTIME, MOAT_RUNTIME_OVERLAY, "overlay"},
	{MOAT_KIND_RUNTIME, MOAT_RUNTIME_LIMITS, "limits"},
	{MOAT_KIND_SNAPSHOT, MOAT_SNAPSHOT_CLONES, "clones"},
	{MOAT_KIND_TRACER, MOAT_TRACER_MAY_LOSE, "may-lose"},
	{MOAT_KIND_TRACER, MOAT_TRACER_POLLS, "polls"},
	{MOAT_KIND_SANDBOX, MOAT_SANDBOX_LIVE, "live"},
	{MOAT_KIND_SANDBOX, MOAT_SANDBOX_OWN_COMMIT, "own-commit"},
	{MOAT_KIND_SANDBOX, MOAT_SANDBOX_UNDOABLE, "undoable"},
	{MOAT_KIND_SANDBOX, MOAT_SANDBOX_CHANGES, "changes"},
};

/* "images,limits,0x100": names of those known, then the others as a number. */
static char *
capabilities_text(const struct plugin *plugin)
{
	uint64_t left = plugin_capabilities(plugin);
	AUTO_BUF struct buf text = {0};

	for (size_t i = 0; i < sizeof capabilities / sizeof capabilities[0]; i++) {
		const struct capability *c = &capabilities[i];

		if (c->kind != plugin->kind || (left & c->bit) == 0)
			continue;
		buf_format(&text, "%s%s", text.size > 0 ? "," : "", c->text);
		left &= ~c->bit;
	}
	if (left != 0)
		buf_format(&text, "%s0x%" PRIx64, text.size > 0 ? "," : "", left);
	return buf_steal(&text);
}

static void
out_field(const char *key, const char *value)
{
	out("%s=", key);
	out_line("", value != NULL ? value : "");
}

static int
info_text(const struct plugin *plugin, const char *capability_names)
{
	out_field("kind", plugin_kind_text(plugin->kind));
	out_field("name", plugin->name);
	out_field("version", plugin->version);
	out("api_version=%u\n", (unsigned) plugin->api_version);
	out_field("license", plugin->license);
	out_field("description", plugin->description);
	out_field("path", plugin->path);
	out_field("requires_package", plugin->requires_package);
	out("descriptor_size=%zu\nops_size=%zu\n", plugin->descriptor_size, plugin->ops_size);
	out_field("capabilities", capability_names);
	for (const struct plugin_member *m = plugin_members(plugin->kind); m->name != NULL; m++)
		out("member.%s=%s\n", m->name, plugin_has(plugin, m) ? "yes" : "no");
	return 0;
}

static int
info_json(const struct plugin *plugin, const char *capability_names, struct moat_error *err)
{
	AUTO_JSON json_t *object = json_object();
	json_t *members = json_object();

	(void) json_put_text(object, "kind", plugin_kind_text(plugin->kind));
	(void) json_put_text(object, "name", plugin->name);
	(void) json_put_text(object, "version", plugin->version);
	(void) json_put_int(object, "api_version", plugin->api_version);
	(void) json_put_text(object, "license", plugin->license);
	(void) json_put_text(object, "description", plugin->description);
	(void) json_put_bytes(object, "path", plugin->path, strlen(plugin->path));
	(void) json_put_text(object, "requires_package", plugin->requires_package);
	(void) json_put_int(object, "descriptor_size", (int64_t) plugin->descriptor_size);
	(void) json_put_int(object, "ops_size", (int64_t) plugin->ops_size);
	(void) json_put_text(object, "capabilities", capability_names);
	for (const struct plugin_member *m = plugin_members(plugin->kind); m->name != NULL; m++)
		(void) json_put_bool(members, m->name, plugin_has(plugin, m));
	(void) json_put_new(object, "members", members);
	return json_print(object, false, err);
}

/* Whether `text` (NAME, KIND-NAME or KIND:NAME) means that kind and name. */
static bool
is_meant(const char *text, const char *kind, const char *name)
{
	size_t length = strlen(kind);

	return strcmp(text, name) == 0 ||
	       (strncmp(text, kind, length) == 0 && (text[length] == '-' || text[length] == ':') &&
		strcmp(text + length + 1, name) == 0);
}

static int
not_found(const struct loader *loader, const char *text, struct moat_error *err)
{
	for (const struct plugin_problem *p = loader->problems; p != NULL; p = p->next) {
		const char *name;
		char kind[16];

		split_kind_name(p->kind_name, kind, &name);
		if (name != NULL && is_meant(text, kind, name))
			return moat_fail(err, MOAT_FAILED, "plugin `%s' was refused: %s", p->path,
					 p->message);
	}
	return moat_fail(err, MOAT_NOT_FOUND,
			 "there is no plugin `%s'; `moat plugin list' shows those that are here",
			 text);
}

static int
find_meant(const struct loader *loader, const char *text, const struct plugin **ret,
	   struct moat_error *err)
{
	const struct plugin *found = NULL;

	for (const struct plugin *p = loader->plugins; p != NULL; p = p->next) {
		if (!is_meant(text, plugin_kind_text(p->kind), p->name))
			continue;
		if (found != NULL)
			return moat_fail(err, MOAT_USAGE, "`%s' may be %s-%s or %s-%s: say which",
					 text, plugin_kind_text(found->kind), found->name,
					 plugin_kind_text(p->kind), p->name);
		found = p;
	}
	*ret = found;
	return found != NULL ? 0 : not_found(loader, text, err);
}

int
cmd_plugin_info(struct app *app, const struct args *args, struct moat_error *err)
{
	const struct plugin *plugin = NULL;
	AUTO_FREE char *names = NULL;

	if (app_loader(app, err) < 0 || find_meant(app->loader, args_at(args, 0), &plugin, err) < 0)
		return -1;
	names = capabilities_text(plugin);
	if (names == NULL)
		return moat_fail_memory(err);
	return app->json ? info_json(plugin, names, err) : info_text(plugin, names);
}
