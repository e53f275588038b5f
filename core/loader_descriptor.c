/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what a plugin says about itself: its descriptor, and the table of its kind.
 *
 * Both may be shorter or longer than the ones known here, and wrong in every way.  They are read
 * once, up to the size that they give, into copies of our own; nobody looks at the plugin's again.
 */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/text.h"
#include "core/loader_checks.h"

/* clang-format off */
#define OPTIONAL(kind, member) { #member, offsetof(struct moat_##kind##_ops, member), false, 0 }
#define REQUIRED(kind, member) { #member, offsetof(struct moat_##kind##_ops, member), true, 0 }
#define REQUIRED_BY(capability, kind, member) \
	{ #member, offsetof(struct moat_##kind##_ops, member), false, capability }

static const struct plugin_member runtime_members[] = {
	REQUIRED(runtime, probe),
	REQUIRED(runtime, open),
	REQUIRED(runtime, close),
	REQUIRED(runtime, create),
	REQUIRED(runtime, io),
	REQUIRED(runtime, start),
	REQUIRED(runtime, wait),
	OPTIONAL(runtime, wait_fd),
	REQUIRED(runtime, state),
	REQUIRED(runtime, kill),
	OPTIONAL(runtime, stop),
	REQUIRED(runtime, remove),
	OPTIONAL(runtime, adopt),
	OPTIONAL(runtime, resize),
	OPTIONAL(runtime, exec),
	REQUIRED(runtime, processes),
	OPTIONAL(runtime, list),
	OPTIONAL(runtime, image),
	OPTIONAL(runtime, logs),
	{ NULL, 0, false, 0 }
};

static const struct plugin_member snapshot_members[] = {
	REQUIRED(snapshot, probe),
	REQUIRED(snapshot, open),
	REQUIRED(snapshot, close),
	REQUIRED(snapshot, capture),
	REQUIRED(snapshot, materialise),
	REQUIRED(snapshot, remove),
	OPTIONAL(snapshot, verify),
	OPTIONAL(snapshot, enumerate),
	{ NULL, 0, false, 0 }
};

static const struct plugin_member tracer_members[] = {
	REQUIRED(tracer, probe),
	REQUIRED(tracer, open),
	REQUIRED(tracer, close),
	REQUIRED(tracer, start),
	REQUIRED(tracer, stop),
	REQUIRED(tracer, stats),
	{ NULL, 0, false, 0 }
};

static const struct plugin_member sandbox_members[] = {
	REQUIRED(sandbox, probe),
	REQUIRED(sandbox, open),
	REQUIRED(sandbox, close),
	REQUIRED(sandbox, create),
	OPTIONAL(sandbox, reopen),
	OPTIONAL(sandbox, changes),
	OPTIONAL(sandbox, reset),
	REQUIRED(sandbox, destroy),
	REQUIRED_BY(MOAT_SANDBOX_OWN_COMMIT, sandbox, prepare),
	REQUIRED_BY(MOAT_SANDBOX_OWN_COMMIT, sandbox, commit),
	REQUIRED_BY(MOAT_SANDBOX_OWN_COMMIT, sandbox, undo),
	{ NULL, 0, false, 0 }
};
/* clang-format on */

typedef void member_fn(void);

/* Every table begins with its size and the capabilities, and the rest are function pointers. */
struct ops_head {
	size_t struct_size;
	uint64_t capabilities;
};
#define SAME_HEAD(kind)                                                                            \
	_Static_assert(offsetof(struct moat_##kind##_ops, capabilities) ==                         \
			       offsetof(struct ops_head, capabilities),                            \
		       "the head of a table")
SAME_HEAD(runtime);
SAME_HEAD(snapshot);
SAME_HEAD(tracer);
SAME_HEAD(sandbox);

static const struct {
	const char *text;
	const struct plugin_member *members;
	size_t ops_size;
} kinds[] = {
	[MOAT_KIND_RUNTIME] = {"runtime", runtime_members, sizeof(struct moat_runtime_ops)},
	[MOAT_KIND_SNAPSHOT] = {"snapshot", snapshot_members, sizeof(struct moat_snapshot_ops)},
	[MOAT_KIND_TRACER] = {"tracer", tracer_members, sizeof(struct moat_tracer_ops)},
	[MOAT_KIND_SANDBOX] = {"sandbox", sandbox_members, sizeof(struct moat_sandbox_ops)},
};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])

const char *
plugin_kind_text(uint32_t kind)
{
	return kind < KIND_COUNT ? kinds[kind].text : NULL;
}

uint32_t
plugin_kind_of(const char *text)
{
	for (uint32_t kind = 1; kind < KIND_COUNT; kind++)
		if (strcmp(text, kinds[kind].text) == 0)
			return kind;
	return 0;
}

const struct plugin_member *
plugin_members(uint32_t kind)
{
	static const struct plugin_member none = {NULL, 0, false, 0};

	return kind < KIND_COUNT && kinds[kind].members != NULL ? kinds[kind].members : &none;
}

bool
plugin_has(const struct plugin *plugin, const struct plugin_member *member)
{
	member_fn *function;

	memcpy(&function, (const char *) &plugin->ops + member->offset, sizeof function);
	return function != NULL;
}

uint64_t
plugin_capabilities(const struct plugin *plugin)
{
	uint64_t capabilities;

	memcpy(&capabilities, (const char *) &plugin->ops + offsetof(struct ops_head, capabilities),
	       sizeof capabilities);
	return capabilities;
}

/* ------------------------------------------------------------------------------- the strings */

/* One printable line of at most `max` bytes. */
static int
copy_text(char **ret, const char *text, const char *what, size_t max, struct moat_error *err)
{
	size_t length;

	if (text == NULL)
		return moat_fail(err, MOAT_FAILED, "its descriptor has no %s", what);
	length = strnlen(text, max + 1);
	if (length > max)
		return moat_fail(err, MOAT_FAILED, "its %s is longer than %zu bytes", what, max);
	if (length == 0)
		return moat_fail(err, MOAT_FAILED, "its %s is empty", what);
	for (size_t i = 0; i < length; i++)
		if ((unsigned char) text[i] < 0x20 || text[i] == 0x7f)
			return moat_fail(err, MOAT_FAILED,
					 "its %s holds a control character (byte 0x%02x)", what,
					 (unsigned) (unsigned char) text[i]);
	if (!text_is_utf8(text, length))
		return moat_fail(err, MOAT_FAILED, "its %s is not UTF-8", what);
	*ret = strndup(text, length);
	return *ret == NULL ? moat_fail_memory(err) : 0;
}

static int
copy_texts(const struct moat_plugin *copy, struct plugin *plugin, struct moat_error *err)
{
	if (copy_text(&plugin->version, copy->version, "version", 64, err) < 0 ||
	    copy_text(&plugin->license, copy->license, "license", 128, err) < 0 ||
	    copy_text(&plugin->description, copy->description, "description", 256, err) < 0)
		return -1;
	if (copy->requires_package != NULL &&
	    copy_text(&plugin->requires_package, copy->requires_package, "requires_package", 128,
		      err) < 0)
		return -1;
	return 0;
}

/* ---------------------------------------------------------------------------- the descriptor */

#define DESCRIPTOR_MEMBER(member)                                                                  \
	{                                                                                          \
#member, offsetof(struct moat_plugin, member) +                                    \
				 sizeof(((struct moat_plugin *) 0)->member)                        \
	}

/* Copies what is there of it, once its size and version are found good. */
static int
read_descriptor(const struct moat_plugin *descriptor, struct moat_plugin *ret,
		struct moat_error *err)
{
	static const struct {
		const char *name;
		size_t end;
	} required[] = {
		DESCRIPTOR_MEMBER(api_version), DESCRIPTOR_MEMBER(kind),
		DESCRIPTOR_MEMBER(name),        DESCRIPTOR_MEMBER(version),
		DESCRIPTOR_MEMBER(license),     DESCRIPTOR_MEMBER(description),
		DESCRIPTOR_MEMBER(ops),
	};
	size_t size, known;

	memset(ret, 0, sizeof *ret);
	memcpy(&size, &descriptor->struct_size, sizeof size);
	/* The version first: one from the future may have another shape behind it. */
	if (size >= required[0].end) {
		uint32_t api = descriptor->api_version;

		if (api == 0)
			return moat_fail(err, MOAT_FAILED,
					 "it says API version 0, which there is not: build it "
					 "with MOAT_PLUGIN_INIT()");
		if (api > MOAT_API_VERSION)
			return moat_fail(err, MOAT_UNSUPPORTED,
					 "built for API version %u, this moat knows up to %u: "
					 "upgrade moat, or build the plugin for version %u",
					 (unsigned) api, (unsigned) MOAT_API_VERSION,
					 (unsigned) MOAT_API_VERSION);
	}
	for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
		if (size < required[i].end)
			return moat_fail(err, MOAT_FAILED,
					 "its descriptor (%zu bytes) ends before '%s'", size,
					 required[i].name);
	/* requires_package is a pointer: all of it or nothing. */
	known = size >= sizeof *ret ? sizeof *ret : offsetof(struct moat_plugin, requires_package);
	memcpy(ret, descriptor, known);
	ret->struct_size = size;
	return 0;
}

/* The file is named after what it holds, so that a reader, and an explicit choice, find it. */
static int
check_identity(const struct moat_plugin *copy, const struct plugin *plugin, struct moat_error *err)
{
	const char *kind = plugin_kind_text(copy->kind);
	AUTO_FREE char *name = NULL;

	if (kind == NULL)
		return moat_fail(err, MOAT_FAILED,
				 "its kind, %u, is unknown to this moat: upgrade moat",
				 (unsigned) copy->kind);
	if (copy_text(&name, copy->name, "name", 128, err) < 0)
		return -1;
	if (!text_is_name(name))
		return moat_fail(err, MOAT_FAILED,
				 "its name `%s' is not a name (letters, digits, '.', '_', '-')",
				 name);
	if (copy->kind != plugin->kind || strcmp(name, plugin->name) != 0)
		return moat_fail(err, MOAT_FAILED,
				 "it says that it is %s-%s, its file says %s-%s: rename the file",
				 kind, name, plugin_kind_text(plugin->kind), plugin->name);
	return 0;
}

/* --------------------------------------------------------------------------------- the table */

static int
check_member(const struct plugin *plugin, const struct plugin_member *member,
	     struct moat_error *err)
{
	const char *why = "";

	if (!member->required) {
		if ((plugin_capabilities(plugin) & member->required_by) == 0)
			return 0;
		why = ", which its capabilities require";
	}
	if (plugin->ops_size < member->offset + sizeof(member_fn *))
		return moat_fail(err, MOAT_FAILED, "its table (%zu bytes) ends before '%s'%s",
				 plugin->ops_size, member->name, why);
	if (!plugin_has(plugin, member))
		return moat_fail(err, MOAT_FAILED, "member '%s' is missing%s", member->name, why);
	return 0;
}

/* Copies the members that lie wholly within the plugin's table; the others stay zero. */
static int
read_ops(const void *ops, struct plugin *plugin, struct moat_error *err)
{
	const struct plugin_member *members = kinds[plugin->kind].members;
	char *own = (char *) &plugin->ops;
	size_t size;

	if (ops == NULL)
		return moat_fail(err, MOAT_FAILED, "its descriptor has no table (ops)");
	memcpy(&size, ops, sizeof size);
	if (size < sizeof(struct ops_head))
		return moat_fail(err, MOAT_FAILED,
				 "its table (%zu bytes) ends before 'capabilities'", size);
	plugin->ops_size = size;
	memset(&plugin->ops, 0, sizeof plugin->ops);
	memcpy(own, ops, sizeof(struct ops_head));
	memcpy(own, &kinds[plugin->kind].ops_size, sizeof size);
	for (const struct plugin_member *m = members; m->name != NULL; m++)
		if (size >= m->offset + sizeof(member_fn *))
			memcpy(own + m->offset, (const char *) ops + m->offset,
			       sizeof(member_fn *));
	for (const struct plugin_member *m = members; m->name != NULL; m++)
		if (check_member(plugin, m, err) < 0)
			return -1;
	return 0;
}

int
descriptor_read(const struct moat_plugin *descriptor, struct plugin *plugin, struct moat_error *err)
{
	struct moat_plugin copy;

	if (read_descriptor(descriptor, &copy, err) < 0 || check_identity(&copy, plugin, err) < 0)
		return -1;
	plugin->api_version = copy.api_version;
	plugin->descriptor_size = copy.struct_size;
	if (copy_texts(&copy, plugin, err) < 0)
		return -1;
	return read_ops(copy.ops, plugin, err);
}

void
plugin_free(struct plugin *plugin)
{
	if (plugin == NULL)
		return;
	free(plugin->name);
	free(plugin->version);
	free(plugin->license);
	free(plugin->description);
	free(plugin->path);
	free(plugin->requires_package);
	free(plugin);
}
