/* SPDX-License-Identifier: Apache-2.0 */
/* Finding plugins and loading them.
 *
 * One bad file is an entry in the list of problems, and no more: nothing here fails but for lack of
 * memory, or when libltdl itself does not start. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <ltdl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/auxv.h>
#endif

#include "common/buf.h"
#include "common/text.h"
#include "core/loader_checks.h"
#include "core/log.h"

/* ----------------------------------------------------------------------------------- libltdl */

/* libltdl's own loader binds lazily, so that a module with an undefined function loads and dies at
 * its first call; and the reason of a failure is lost, because every loader is tried in turn and
 * the last one overwrites it.  So ours binds now and keeps dlerror()'s text, and the stock one
 * goes: it would be tried next, and succeed. */
static char open_failure[1024];

static lt_module
module_open(lt_user_data data, const char *filename, lt_dladvise advise)
{
	void *module = dlopen(filename, RTLD_NOW | RTLD_LOCAL);
	const char *why = module == NULL ? dlerror() : NULL;

	if (module == NULL)
		(void) snprintf(open_failure, sizeof open_failure, "%s",
				why != NULL ? why : "dlopen failed without saying why");
	return module;
}

static int
module_close(lt_user_data data, lt_module module)
{
	return dlclose(module) == 0 ? 0 : 1;
}

static void *
module_symbol(lt_user_data data, lt_module module, const char *name)
{
	return dlsym(module, name);
}

static int
start_libltdl(struct moat_error *err)
{
	static const lt_dlvtable loader = {
		.name = "moat",
		.sym_prefix = "",
		.module_open = module_open,
		.module_close = module_close,
		.find_sym = module_symbol,
		.priority = LT_DLLOADER_PREPEND,
	};
	static bool started;

	if (started)
		return 0;
	if (lt_dlinit() != 0 || lt_dlloader_add(&loader) != 0) {
		const char *why = lt_dlerror();

		return moat_fail(err, MOAT_FAILED, "start libltdl: %s", why != NULL ? why : "?");
	}
	/* What is given back is memory of libltdl's that nobody else frees.  NULL: there was none.
	 */
	free(lt_dlloader_remove("lt_dlopen"));
	started = true;
	return 0;
}

/* Modules are never unloaded, not even refused ones: code of theirs may be running in threads of
 * theirs or registered with atexit(3), and the stacks that sanitizers and valgrind print at the end
 * would point into nothing.  The process is about to end anyway. */
static int
load_module(const char *resolved, struct plugin *plugin, const struct moat_plugin **ret,
	    struct moat_error *err)
{
	moat_plugin_init_fn *init;
	void *symbol;

	(void) snprintf(open_failure, sizeof open_failure, "libltdl refused it");
	plugin->module = lt_dlopen(resolved);
	if (plugin->module == NULL)
		return moat_fail(err, MOAT_FAILED, "it cannot be loaded: %s", open_failure);
	symbol = lt_dlsym(plugin->module, MOAT_PLUGIN_INIT_SYMBOL);
	if (symbol == NULL)
		return moat_fail(err, MOAT_FAILED,
				 "it exports no " MOAT_PLUGIN_INIT_SYMBOL "(): it is no plugin, or "
				 "its symbols are hidden");
	memcpy(&init, &symbol, sizeof init);
	*ret = init(host_table());
	if (*ret == NULL)
		return moat_fail(err, MOAT_FAILED,
				 MOAT_PLUGIN_INIT_SYMBOL "() returned NULL: it cannot work with "
							 "this moat");
	return 0;
}

/* ------------------------------------------------------------------------------------ a file */

static void
cleanup_plugin(struct plugin **plugin)
{
	plugin_free(*plugin);
}

static int
load_plugin(const char *path, uint32_t kind, const char *name, struct plugin **ret,
	    struct moat_error *err)
{
	CLEANUP(cleanup_plugin) struct plugin *plugin = calloc(1, sizeof *plugin);
	const struct moat_plugin *descriptor = NULL;
	AUTO_FREE char *resolved = NULL;

	if (plugin == NULL)
		return moat_fail_memory(err);
	plugin->kind = kind;
	plugin->name = strdup(name);
	plugin->path = strdup(path);
	if (plugin->name == NULL || plugin->path == NULL)
		return moat_fail_memory(err);
	if (loader_check_file(path, &resolved, err) < 0 ||
	    load_module(resolved, plugin, &descriptor, err) < 0 ||
	    descriptor_read(descriptor, plugin, err) < 0)
		return -1;
	*ret = STEAL(plugin);
	return 0;
}

static int
add_problem(struct loader *loader, const char *path, const char *kind_name, const char *message,
	    struct moat_error *err)
{
	struct plugin_problem *problem = calloc(1, sizeof *problem), **end = &loader->problems;

	if (problem == NULL)
		return moat_fail_memory(err);
	while (*end != NULL)
		end = &(*end)->next;
	*end = problem;
	problem->path = strdup(path);
	problem->kind_name = strdup(kind_name);
	problem->message = strdup(message);
	if (problem->path == NULL || problem->kind_name == NULL || problem->message == NULL)
		return moat_fail_memory(err);
	return 0;
}

static void
add_plugin(struct loader *loader, struct plugin *plugin)
{
	struct plugin **at = &loader->plugins;

	while (*at != NULL &&
	       ((*at)->kind < plugin->kind ||
		((*at)->kind == plugin->kind && strcmp((*at)->name, plugin->name) < 0)))
		at = &(*at)->next;
	plugin->next = *at;
	*at = plugin;
}

/* Whether a file's name is WORD-REST.so, as plugins are called.  stem is "WORD-REST".  Other
 * libraries that lie in a directory ("libx.so", "libx-1.2.so") are none of our business. */
static bool
looks_like_plugin(const char *stem)
{
	size_t word = strspn(stem, "abcdefghijklmnopqrstuvwxyz");

	return word > 0 && stem[word] == '-' && strncmp(stem, "lib", 3) != 0;
}

/* Loads DIRECTORY/FILE, or notes why not. */
static int
load_file(struct loader *loader, const char *directory, const char *file, struct moat_error *err)
{
	AUTO_FREE char *stem = strndup(file, strlen(file) - strlen(".so"));
	struct moat_error why = MOAT_ERROR_INIT;
	struct plugin *plugin = NULL;
	AUTO_BUF struct buf path = {0};
	uint32_t kind;
	char *dash;

	if (stem == NULL)
		return moat_fail_memory(err);
	if (!looks_like_plugin(stem))
		return 0;
	buf_format(&path, "%s/%s", directory, file);
	if (buf_check(&path, err) < 0)
		return -1;
	dash = strchr(stem, '-');
	*dash = '\0';
	kind = plugin_kind_of(stem);
	if (kind != 0 && loader_find(loader, kind, dash + 1) != NULL) {
		log_debug("`%s': one of that name was found before", path.data);
		return 0;
	}
	if (kind == 0)
		(void) moat_fail(
			&why, MOAT_FAILED,
			"`%s' is no kind of plugin: a plugin's file is called KIND-NAME.so, "
			"and the kinds are runtime, snapshot, tracer, sandbox",
			stem);
	else if (!text_is_name(dash + 1))
		(void) moat_fail(
			&why, MOAT_FAILED,
			"`%s' is not a name (letters, digits, '.', '_', '-'): rename the file",
			dash + 1);
	else
		(void) load_plugin(path.data, kind, dash + 1, &plugin, &why);
	*dash = '-';
	if (plugin == NULL)
		return add_problem(loader, path.data, stem, why.message, err);
	add_plugin(loader, plugin);
	log_debug("loaded `%s'", path.data);
	return 0;
}

/* ------------------------------------------------------------------------------- directories */

/* A name that a plugin may have; anything else in the directory is left alone. */
static int
is_shared_object(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);

	return length > 3 && entry->d_name[0] != '.' &&
	       strcmp(entry->d_name + length - 3, ".so") == 0;
}

/* By bytes, whatever the locale. */
static int
by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int
load_directory(struct loader *loader, const char *directory, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	struct dirent **entries = NULL;
	int count, rc = 0;

	if (loader_check_directory(directory, &why) < 0)
		return why.code == MOAT_NOT_FOUND
			       ? 0
			       : add_problem(loader, directory, "", why.message, err);
	count = scandir(directory, &entries, is_shared_object, by_name);
	if (count < 0) {
		(void) moat_fail_errno(&why, "read directory `%s'", directory);
		return add_problem(loader, directory, "", why.message, err);
	}
	for (int i = 0; i < count; i++) {
		if (rc == 0)
			rc = load_file(loader, directory, entries[i]->d_name, err);
		free(entries[i]);
	}
	free(entries);
	return rc;
}

/* Notes a directory as searched.  *ret is false when it was searched before. */
static int
add_directory(struct loader *loader, const char *directory, bool *ret, struct moat_error *err)
{
	size_t count = 0;
	char **grown;

	*ret = false;
	for (; loader->directories != NULL && loader->directories[count] != NULL; count++)
		if (strcmp(loader->directories[count], directory) == 0)
			return 0;
	grown = realloc(loader->directories, (count + 2) * sizeof *grown);
	if (grown == NULL)
		return moat_fail_memory(err);
	loader->directories = grown;
	grown[count + 1] = NULL;
	grown[count] = strdup(directory);
	if (grown[count] == NULL)
		return moat_fail_memory(err);
	*ret = true;
	return 0;
}

static int
search(struct loader *loader, const char *directory, struct moat_error *err)
{
	bool added;

	if (add_directory(loader, directory, &added, err) < 0)
		return -1;
	return added ? load_directory(loader, directory, err) : 0;
}

/* --plugin-dir: what the user typed just now, so it may be relative, and must be there. */
static int
search_extra(struct loader *loader, const char *directory, struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	AUTO_FREE char *absolute = realpath(directory, NULL);

	if (absolute != NULL)
		return search(loader, absolute, err);
	(void) moat_fail_errno(&why, "open directory `%s'", directory);
	return add_problem(loader, directory, "", why.message, err);
}

/* True when this process has more rights than who started it, whose environment must then not
 * choose the code that runs. */
static bool
privileges_were_gained(void)
{
#ifdef __linux__
	return getauxval(AT_SECURE) != 0;
#else
	return issetugid() != 0;
#endif
}

static int
search_environment(struct loader *loader, struct moat_error *err)
{
	const char *value = getenv("MOAT_PLUGIN_PATH");
	AUTO_FREE char *copy = NULL;
	char *rest, *directory;

	if (value == NULL || value[0] == '\0')
		return 0;
	if (privileges_were_gained()) {
		log_warning("$MOAT_PLUGIN_PATH is ignored, because this program runs with more "
			    "privileges than its caller: use --plugin-dir");
		return 0;
	}
	copy = rest = strdup(value);
	if (copy == NULL)
		return moat_fail_memory(err);
	while ((directory = strsep(&rest, ":")) != NULL) {
		int rc = 0;

		if (directory[0] == '/')
			rc = search(loader, directory, err);
		else if (directory[0] != '\0')
			rc = add_problem(loader, directory, "",
					 "a relative directory in $MOAT_PLUGIN_PATH is not "
					 "searched: give its absolute path",
					 err);
		if (rc < 0)
			return -1;
	}
	return 0;
}

int
loader_open(const char *const *extra, struct loader **ret, struct moat_error *err)
{
	CLEANUP(cleanup_loader) struct loader *loader = calloc(1, sizeof *loader);

	if (loader == NULL)
		return moat_fail_memory(err);
	if (start_libltdl(err) < 0)
		return -1;
	for (; extra != NULL && *extra != NULL; extra++)
		if (search_extra(loader, *extra, err) < 0)
			return -1;
	if (search_environment(loader, err) < 0 || search(loader, MOAT_PLUGINDIR, err) < 0)
		return -1;
	*ret = STEAL(loader);
	return 0;
}

void
loader_close(struct loader *loader)
{
	if (loader == NULL)
		return;
	while (loader->plugins != NULL) {
		struct plugin *plugin = loader->plugins;

		loader->plugins = plugin->next;
		plugin_free(plugin);
	}
	while (loader->problems != NULL) {
		struct plugin_problem *problem = loader->problems;

		loader->problems = problem->next;
		free(problem->path);
		free(problem->kind_name);
		free(problem->message);
		free(problem);
	}
	for (size_t i = 0; loader->directories != NULL && loader->directories[i] != NULL; i++)
		free(loader->directories[i]);
	free(loader->directories);
	free(loader);
}

void
cleanup_loader(struct loader **loader)
{
	loader_close(*loader);
	*loader = NULL;
}

void
loader_warn(const struct loader *loader)
{
	for (const struct plugin_problem *p = loader->problems; p != NULL; p = p->next)
		log_warning("plugin %s`%s' is not used: %s",
			    p->kind_name[0] == '\0' ? "directory " : "", p->path, p->message);
}

const struct plugin *
loader_find(const struct loader *loader, uint32_t kind, const char *name)
{
	for (const struct plugin *p = loader->plugins; p != NULL; p = p->next)
		if (p->kind == kind && strcmp(p->name, name) == 0)
			return p;
	return NULL;
}
