/* SPDX-License-Identifier: Apache-2.0 */
/* sandbox-none: the run works on the workspace itself.  Nothing to create, nothing to commit; what
 * protects the workspace is the snapshot that the core takes before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/error.h"
#include "common/fs.h"

#define REF "live"

/* Strings of a view live until destroy() or close(). */
struct path {
	struct path *next;
	char text[];
};

struct none {
	struct path *paths;
};

static int
none_probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
	   struct moat_error *err)
{
	bid->score = 50;
	(void) snprintf(bid->reason, sizeof bid->reason,
			"works everywhere: the command changes the workspace itself");
	return 0;
}

static int
none_open(const struct moat_host *host, const struct moat_config *config, void **ret_self,
	  struct moat_error *err)
{
	struct none *self = calloc(1, sizeof *self);

	if (self == NULL)
		return moat_fail_memory(err);
	*ret_self = self;
	return 0;
}

static void
none_close(void *pointer)
{
	struct none *self = pointer;

	while (self->paths != NULL) {
		struct path *path = self->paths;

		self->paths = path->next;
		free(path);
	}
	free(self);
}

/* The runtime mounts by path: it must still lead to the directory that was snapshotted. */
static int
check_workspace(const struct moat_sandbox_spec *spec, struct moat_error *err)
{
	struct stat opened, named;

	if (fstat(spec->workspace_fd, &opened) < 0 || stat(spec->workspace, &named) < 0)
		return moat_fail_errno(err, "workspace `%s'", spec->workspace);
	if (!S_ISDIR(named.st_mode))
		return moat_fail(err, MOAT_CHANGED, "workspace `%s' is not a directory any more",
				 spec->workspace);
	if (!fs_same_file(&opened, &named))
		return moat_fail(err, MOAT_CHANGED,
				 "workspace `%s' was replaced by another directory meanwhile",
				 spec->workspace);
	return 0;
}

static int
none_create(void *pointer, const struct moat_sandbox_spec *spec, struct moat_view *ret,
	    struct moat_error *err)
{
	struct none *self = pointer;
	size_t size = strlen(spec->workspace) + 1;
	struct path *path;

	if (check_workspace(spec, err) < 0)
		return -1;
	path = malloc(sizeof *path + size);
	if (path == NULL)
		return moat_fail_memory(err);
	memcpy(path->text, spec->workspace, size);
	path->next = self->paths;
	self->paths = path;
	ret->kind = MOAT_VIEW_PATH;
	ret->path = path->text;
	memcpy(ret->ref, REF, sizeof REF);
	return 0;
}

static int
none_reopen(void *pointer, const struct moat_sandbox_spec *spec, const char *ref,
	    struct moat_view *ret, struct moat_error *err)
{
	if (strcmp(ref, REF) != 0)
		return moat_fail(err, MOAT_NOT_FOUND, "`%s' is no view of sandbox none", ref);
	return none_create(pointer, spec, ret, err);
}

/* There is nothing of the view's own; its path goes with the handle. */
static int
none_destroy(void *pointer, const char *ref, struct moat_error *err)
{
	return 0;
}

static const struct moat_sandbox_ops ops = {
	MOAT_OPS(sandbox),     .capabilities = MOAT_SANDBOX_LIVE,
	.probe = none_probe,   .open = none_open,
	.close = none_close,   .create = none_create,
	.reopen = none_reopen, .destroy = none_destroy,
};

static const struct moat_plugin plugin = MOAT_PLUGIN_INIT(
	MOAT_KIND_SANDBOX, "none", "0.1.0", "Apache-2.0",
	"the workspace itself, protected by the snapshot before the run", &ops, NULL);

const struct moat_plugin *
moat_plugin_init(const struct moat_host *host)
{
	return &plugin;
}
