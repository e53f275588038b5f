/* SPDX-License-Identifier: Apache-2.0 */
/* Which plugin is used: the one that was asked for, or else the best bid.  What was asked for is
 * what is used, or an error; there is no falling through. */
#include <string.h>

#include "common/buf.h"
#include "common/text.h"
#include "core/loader.h"

/* ----------------------------------------------------------------------------------- bidding */

/* A bid is for people: one terminated line without control bytes. */
static void
tidy_reason(struct moat_bid *bid)
{
	bid->reason[sizeof bid->reason - 1] = '\0';
	for (char *c = bid->reason; *c != '\0'; c++)
		if ((unsigned char) *c < 0x20 || *c == 0x7f)
			*c = ' ';
}

void
plugin_bid(const struct plugin *plugin, const struct config *config,
	   const struct moat_target *target, struct moat_bid *ret)
{
	const char *kind = plugin_kind_text(plugin->kind);
	struct moat_error why = MOAT_ERROR_INIT;
	struct moat_target own = {
		.struct_size = sizeof own, .workspace_fd = -1, .home_fd = -1};
	int rc = -1;

	if (target != NULL) {
		own.workspace = target->workspace;
		own.workspace_fd = target->workspace_fd;
		own.home_fd = target->home_fd;
	}
	own.config = config != NULL ? config_plugin(config, kind, plugin->name) : NULL;
	*ret = (struct moat_bid){.struct_size = sizeof *ret};
	switch (plugin->kind) {
	case MOAT_KIND_RUNTIME:
		rc = plugin->ops.runtime.probe(host_table(), &own, ret, &why);
		break;
	case MOAT_KIND_SNAPSHOT:
		rc = plugin->ops.snapshot.probe(host_table(), &own, ret, &why);
		break;
	case MOAT_KIND_TRACER:
		rc = plugin->ops.tracer.probe(host_table(), &own, ret, &why);
		break;
	case MOAT_KIND_SANDBOX:
		rc = plugin->ops.sandbox.probe(host_table(), &own, ret, &why);
		break;
	default:
		(void) moat_fail(&why, MOAT_FAILED, "it is of no kind that can be probed");
	}
	ret->struct_size = sizeof *ret;
	if (rc != 0) {
		why.message[sizeof why.message - 1] = '\0';
		ret->score = 0;
		(void) snprintf(ret->reason, sizeof ret->reason, "probe failed%s%.480s",
				why.message[0] != '\0' ? ": " : " without saying why", why.message);
	}
	ret->score = ret->score < 0 ? 0 : ret->score > 100 ? 100 : ret->score;
	if (ret->reason[0] == '\0')
		(void) snprintf(ret->reason, sizeof ret->reason, "%s",
				ret->score > 0 ? "it gives no reason" : "it does not say why");
	tidy_reason(ret);
}

/* "REASON; it needs the package P", unless the reason names it. */
static void
append_refusal(struct buf *out, const struct plugin *plugin, const struct moat_bid *bid)
{
	buf_string(out, bid->reason);
	if (plugin->requires_package != NULL &&
	    strstr(bid->reason, plugin->requires_package) == NULL)
		buf_format(out, " (it needs the package %s)", plugin->requires_package);
}

/* -------------------------------------------------------------------------- what is asked for */

/* "KIND-NAME, KIND-NAME" of the plugins called `name`, and how many kinds have one. */
static size_t
kinds_with(const struct loader *loader, const char *name, uint32_t *ret_kind, struct buf *list)
{
	size_t count = 0;

	for (const struct plugin *p = loader->plugins; p != NULL; p = p->next) {
		if (strcmp(p->name, name) != 0)
			continue;
		buf_format(list, "%s%s:%s", count > 0 ? ", " : "", plugin_kind_text(p->kind), name);
		*ret_kind = p->kind;
		count++;
	}
	return count;
}

/* A file of that name that was refused, of whatever kind. */
static const struct plugin_problem *
refused_file(const struct loader *loader, uint32_t kind, const char *name)
{
	for (const struct plugin_problem *p = loader->problems; p != NULL; p = p->next) {
		const char *dash = strchr(p->kind_name, '-');
		const char *text = kind != 0 ? plugin_kind_text(kind) : NULL;

		if (dash == NULL || strcmp(dash + 1, name) != 0)
			continue;
		if (text == NULL || ((size_t) (dash - p->kind_name) == strlen(text) &&
				     strncmp(p->kind_name, text, strlen(text)) == 0))
			return p;
	}
	return NULL;
}

/* A bare name that nothing has: what the user may have meant. */
static int
unknown_name(const struct loader *loader, const char *name, struct moat_error *err)
{
	const struct plugin_problem *problem = refused_file(loader, 0, name);
	const char *names[64] = {NULL}, *nearest;
	size_t count = 0;

	if (problem != NULL)
		return moat_fail(err, MOAT_USAGE, "--backend=%s: plugin `%s' was refused: %s", name,
				 problem->path, problem->message);
	for (const struct plugin *p = loader->plugins; p != NULL && count < 63; p = p->next)
		names[count++] = p->name;
	nearest = text_nearest(name, names);
	if (nearest != NULL)
		return moat_fail(
			err, MOAT_USAGE,
			"--backend=%s: there is no plugin of that name; did you mean `%s'?", name,
			nearest);
	return moat_fail(err, MOAT_USAGE,
			 "--backend=%s: there is no plugin of that name; `moat plugin list' shows "
			 "those that are here, and a package moat-plugin-KIND-%s may bring it",
			 name, name);
}

/* One --backend=[KIND:]NAME.  *ret_kind is the kind that it is for. */
static int
parse_backend(const struct loader *loader, const char *text, uint32_t *ret_kind,
	      const char **ret_name, struct moat_error *err)
{
	const char *colon = strchr(text, ':');
	const char *name = colon != NULL ? colon + 1 : text;
	AUTO_BUF struct buf list = {0};
	char kind[16] = "";
	size_t count;

	if (!text_is_name(name))
		return moat_fail(err, MOAT_USAGE,
				 "--backend=%s: `%s' is not the name of a plugin; it is "
				 "--backend=[KIND:]NAME",
				 text, name);
	*ret_name = name;
	if (colon != NULL) {
		(void) snprintf(kind, sizeof kind, "%.*s", (int) (colon - text), text);
		*ret_kind = plugin_kind_of(kind);
		return *ret_kind != 0
			       ? 0
			       : moat_fail(err, MOAT_USAGE,
					   "--backend=%s: unknown kind; the kinds are runtime, "
					   "snapshot, tracer, sandbox",
					   text);
	}
	count = kinds_with(loader, name, ret_kind, &list);
	if (buf_check(&list, err) < 0)
		return -1;
	if (count == 0)
		return unknown_name(loader, name, err);
	if (count > 1)
		return moat_fail(
			err, MOAT_USAGE,
			"--backend=%s: several kinds have a plugin of that name; say which: %s",
			text, list.data);
	return 0;
}

static void
request_of_config(const struct config *config, uint32_t kind, struct backend_request *ret)
{
	switch (kind) {
	case MOAT_KIND_RUNTIME:
		*ret = (struct backend_request){config->runtime, "`runtime' in the configuration"};
		break;
	case MOAT_KIND_SNAPSHOT:
		*ret = (struct backend_request){config->snapshots.backend,
						"`snapshots.backend' in the configuration"};
		break;
	case MOAT_KIND_TRACER:
		*ret = (struct backend_request){config->tracing.backend,
						"`tracing.backend' in the configuration"};
		break;
	case MOAT_KIND_SANDBOX:
		*ret = (struct backend_request){config->sandbox, "`sandbox' (none by default)"};
		break;
	}
}

int
loader_request(const struct loader *loader, const char *const *backends,
	       const struct config *config, uint32_t kind, struct backend_request *ret,
	       struct moat_error *err)
{
	*ret = (struct backend_request){NULL, NULL};
	if (config != NULL)
		request_of_config(config, kind, ret);
	/* All of them are looked at, so that a typo is found whatever the command needs. */
	for (; backends != NULL && *backends != NULL; backends++) {
		uint32_t backend_kind = 0;
		const char *name = NULL;

		if (parse_backend(loader, *backends, &backend_kind, &name, err) < 0)
			return -1;
		if (backend_kind == kind)
			*ret = (struct backend_request){name, "--backend"};
	}
	return 0;
}

/* ---------------------------------------------------------------------------------- choosing */

static const char *
origin_of(const struct backend_request *request)
{
	return request->origin != NULL ? request->origin : "the caller";
}

/* Asked for, and not loaded. */
static int
not_there(const struct loader *loader, uint32_t kind, const struct backend_request *request,
	  struct moat_error *err)
{
	const struct plugin_problem *problem = refused_file(loader, kind, request->name);
	const char *text = plugin_kind_text(kind);

	if (problem != NULL)
		return moat_fail(
			err, MOAT_FAILED,
			"plugin %s-%s, asked for by %s, was refused: `%s': %s; the package "
			"moat-plugin-%s-%s has it",
			text, request->name, origin_of(request), problem->path, problem->message,
			text, request->name);
	return moat_fail(err, MOAT_NOT_FOUND,
			 "plugin %s-%s, asked for by %s, is not installed: install the package "
			 "moat-plugin-%s-%s, or see `moat plugin list' for those that are",
			 text, request->name, origin_of(request), text, request->name);
}

static int
select_requested(const struct loader *loader, const struct config *config, uint32_t kind,
		 const struct backend_request *request, const struct moat_target *target,
		 const struct plugin **ret, struct moat_bid *bid, struct moat_error *err)
{
	const struct plugin *plugin = loader_find(loader, kind, request->name);
	AUTO_BUF struct buf why = {0};

	if (plugin == NULL)
		return not_there(loader, kind, request, err);
	plugin_bid(plugin, config, target, bid);
	if (bid->score > 0) {
		*ret = plugin;
		return 0;
	}
	append_refusal(&why, plugin, bid);
	if (buf_check(&why, err) < 0)
		return -1;
	return moat_fail(err, MOAT_UNSUPPORTED,
			 "plugin %s-%s, asked for by %s, cannot work here: %s",
			 plugin_kind_text(kind), plugin->name, origin_of(request), why.data);
}

/* The package that brings the plugin of a kind that works nearly everywhere. */
static const char *
usual_package(uint32_t kind)
{
	switch (kind) {
	case MOAT_KIND_RUNTIME:
		return "moat-plugin-runtime-bwrap";
	case MOAT_KIND_SNAPSHOT:
		return "moat-plugin-snapshot-archive";
	case MOAT_KIND_TRACER:
		return "moat-plugin-tracer-netlink";
	default:
		return "moat-plugin-sandbox-none";
	}
}

/* No plugin of the kind was loaded: say what was refused, if anything was, and what to install. */
static int
none_installed(const struct loader *loader, uint32_t kind, struct moat_error *err)
{
	const char *text = plugin_kind_text(kind);
	AUTO_BUF struct buf refused = {0};

	for (const struct plugin_problem *p = loader->problems; p != NULL; p = p->next)
		if (strncmp(p->kind_name, text, strlen(text)) == 0 &&
		    p->kind_name[strlen(text)] == '-')
			buf_format(&refused, "; `%s' was refused: %s", p->path, p->message);
	buf_append(&refused, "", 0);
	if (buf_check(&refused, err) < 0)
		return -1;
	return moat_fail(err, MOAT_NOT_FOUND, "no %s plugin is installed: install the package %s%s",
			 text, usual_package(kind), refused.data != NULL ? refused.data : "");
}

/* Nobody asked: the best bid; of equal ones the first by name, which is the order of the list. */
static int
detect(const struct loader *loader, const struct config *config, uint32_t kind,
       const struct moat_target *target, const struct plugin **ret, struct moat_bid *ret_bid,
       struct moat_error *err)
{
	AUTO_BUF struct buf refusals = {0};

	*ret = NULL;
	*ret_bid = (struct moat_bid){.struct_size = sizeof *ret_bid};
	for (const struct plugin *p = loader->plugins; p != NULL; p = p->next) {
		struct moat_bid bid;

		if (p->kind != kind)
			continue;
		plugin_bid(p, config, target, &bid);
		if (bid.score > ret_bid->score) {
			*ret = p;
			*ret_bid = bid;
		}
		buf_format(&refusals, "%s%s: ", refusals.size > 0 ? "; " : "", p->name);
		append_refusal(&refusals, p, &bid);
	}
	if (buf_check(&refusals, err) < 0)
		return -1;
	if (*ret != NULL)
		return 0;
	if (refusals.size == 0)
		return none_installed(loader, kind, err);
	return moat_fail(err, MOAT_UNSUPPORTED, "no %s can work here: %s", plugin_kind_text(kind),
			 refusals.data);
}

int
loader_select(const struct loader *loader, const struct config *config, uint32_t kind,
	      const struct backend_request *request, const struct moat_target *target,
	      const struct plugin **ret, struct moat_bid *ret_bid, struct moat_error *err)
{
	const struct plugin *plugin = NULL;
	struct moat_bid bid;
	int rc;

	if (plugin_kind_text(kind) == NULL)
		return moat_fail(err, MOAT_FAILED, "there is no kind %u of plugins",
				 (unsigned) kind);
	if (request != NULL && request->name != NULL)
		rc = select_requested(loader, config, kind, request, target, &plugin, &bid, err);
	else
		rc = detect(loader, config, kind, target, &plugin, &bid, err);
	if (rc < 0)
		return -1;
	*ret = plugin;
	if (ret_bid != NULL)
		*ret_bid = bid;
	return 0;
}
