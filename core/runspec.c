/* SPDX-License-Identifier: Apache-2.0 */
/* What a run is to be. */
#include "core/runspec.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/text.h"
#include "core/log.h"
#include "core/session.h"

/* What the command may know of the caller's environment.  Everything else can hold a token. */
static const char *const env_kept[] = {"PATH",     "HOME",         "USER", "LOGNAME", "SHELL",
				       "LANG",     "LANGUAGE",     "TZ",   "TERM",    "COLORTERM",
				       "NO_COLOR", "TERM_PROGRAM", NULL};
static const char env_kept_prefix[] = "LC_";

/* Where people keep keys, tokens and passwords, below their home directory. */
static const char *const home_secrets[] = {
	".ssh",
	".gnupg",
	".aws",
	".azure",
	".config/gcloud",
	".config/gh",
	".config/hub",
	".config/glab-cli",
	".config/op",
	".config/sops",
	".config/rclone",
	".config/doctl",
	".config/containers/auth.json",
	".kube",
	".docker",
	".netrc",
	".git-credentials",
	".config/git/credentials",
	".npmrc",
	".yarnrc.yml",
	".pypirc",
	".cargo/credentials",
	".cargo/credentials.toml",
	".gem/credentials",
	".m2/settings.xml",
	".gradle/gradle.properties",
	".terraform.d/credentials.tfrc.json",
	".terraformrc",
	".vault-token",
	".pgpass",
	".my.cnf",
	".boto",
	".s3cfg",
	".password-store",
	".local/share/keyrings",
	".local/share/kwalletd",
	".mozilla",
	".thunderbird",
	".config/google-chrome",
	".config/chromium",
	".config/BraveSoftware",
	".bash_history",
	".zsh_history",
	".python_history",
	".psql_history",
	".mysql_history",
	".node_repl_history",
	NULL,
};

/* What only root could read anyway; as root the sandbox must not show it either. */
static const char *const root_secrets[] = {"/etc/shadow", "/etc/gshadow", "/etc/shadow-",
					   "/etc/gshadow-", NULL};

/* ---------------------------------------------------------------------------------------- strings
 */

static int
strings_take(struct strings *strings, char *text, struct moat_error *err)
{
	char **more = reallocarray(strings->items, strings->count + 2, sizeof(*more));

	if (more == NULL || text == NULL) {
		if (more != NULL) {
			strings->items = more;
			more[strings->count] = NULL;
		}
		free(text);
		return moat_fail_memory(err);
	}
	strings->items = more;
	more[strings->count++] = text;
	more[strings->count] = NULL;
	return 0;
}

static int
strings_add(struct strings *strings, const char *text, struct moat_error *err)
{
	return strings_take(strings, strdup(text), err);
}

static void
strings_free(struct strings *strings)
{
	for (size_t i = 0; i < strings->count; i++)
		free(strings->items[i]);
	free(strings->items);
}

void
runspec_free(struct runspec *spec)
{
	if (spec == NULL)
		return;
	for (size_t i = 0; spec->argv != NULL && spec->argv[i] != NULL; i++)
		free(spec->argv[i]);
	free(spec->argv);
	strings_free(&spec->env);
	strings_free(&spec->hide);
	strings_free(&spec->mount_paths);
	free(spec->mounts);
	free(spec->mount_list);
	free(spec);
}

/* ---------------------------------------------------------------------------------------- command
 */

static int
take_command(struct runspec *spec, const struct config *config, const struct args *args,
	     struct moat_error *err)
{
	const char *const *command = args_command(args);
	struct strings copy = {0};

	if (command == NULL || command[0] == NULL)
		command = (const char *const *) config->command;
	if (command == NULL || command[0] == NULL)
		return moat_fail(
			err, MOAT_USAGE,
			"no command: give one after `--', as in `moat run -- make', or set "
			"`command' in moat.yaml");
	if (command[0][0] == '\0')
		return moat_fail(err, MOAT_USAGE, "the command is an empty name");
	for (size_t i = 0; command[i] != NULL; i++)
		if (strings_add(&copy, command[i], err) < 0) {
			strings_free(&copy);
			return -1;
		}
	spec->argv = copy.items;
	return 0;
}

static int
take_name(struct runspec *spec, const struct config *config, const struct args *args,
	  struct moat_error *err)
{
	spec->name = args_value(args, "name");
	if (spec->name != NULL && !text_is_name(spec->name))
		return moat_fail(
			err, MOAT_USAGE,
			"--name: a name starts with a letter or digit and has only letters, "
			"digits, `.', `_' and `-'");
	/* That of moat.yaml is a wish: a second run of the project gets a number. */
	spec->wished_name = config->name;
	return 0;
}

/* ------------------------------------------------------------------------------------ environment
 */

static bool
is_variable(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		char c = text[i];
		bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';

		if (!letter && (i == 0 || c < '0' || c > '9'))
			return false;
	}
	return size > 0;
}

/* KEY=VALUE; takes the place of an earlier one. */
static int
env_set(struct strings *env, const char *pair, struct moat_error *err)
{
	size_t key = strcspn(pair, "=") + 1;

	for (size_t i = 0; i < env->count; i++)
		if (strncmp(env->items[i], pair, key) == 0) {
			char *copy = strdup(pair);

			if (copy == NULL)
				return moat_fail_memory(err);
			free(env->items[i]);
			env->items[i] = copy;
			return 0;
		}
	return strings_add(env, pair, err);
}

static int
env_put(struct strings *env, const char *key, const char *value, struct moat_error *err)
{
	AUTO_BUF struct buf pair = {0};

	buf_format(&pair, "%s=%s", key, value);
	return buf_check(&pair, err) < 0 ? -1 : env_set(env, pair.data, err);
}

static bool
is_kept(const char *pair)
{
	size_t key = strcspn(pair, "=");

	if (strncmp(pair, env_kept_prefix, sizeof env_kept_prefix - 1) == 0)
		return true;
	for (size_t i = 0; env_kept[i] != NULL; i++)
		if (strlen(env_kept[i]) == key && strncmp(env_kept[i], pair, key) == 0)
			return true;
	return false;
}

static int
env_option(struct strings *env, const char *option, struct moat_error *err)
{
	const char *equals = strchr(option, '='), *value;

	if (!is_variable(option, equals == NULL ? strlen(option) : (size_t) (equals - option)))
		return moat_fail(
			err, MOAT_USAGE,
			"--env `%s': give KEY=VALUE, or KEY to pass on the caller's; a key has "
			"letters, digits and `_'",
			option);
	if (equals != NULL)
		return env_set(env, option, err);
	value = getenv(option);
	return value == NULL ? 0 : env_put(env, option, value, err);
}

static int
take_environment(struct runspec *spec, const struct config *config, const struct args *args,
		 struct moat_error *err)
{
	const char *const *options = args_list(args, "env");

	for (char **pair = environ; *pair != NULL; pair++)
		if (is_kept(*pair) && env_set(&spec->env, *pair, err) < 0)
			return -1;
	for (size_t i = 0; config->env != NULL && config->env[i] != NULL; i++)
		if (env_set(&spec->env, config->env[i], err) < 0)
			return -1;
	for (size_t i = 0; options[i] != NULL; i++)
		if (env_option(&spec->env, options[i], err) < 0)
			return -1;
	return 0;
}

/* ----------------------------------------------------------------------------------------- mounts
 */

static int
add_mount(struct runspec *spec, const char *origin, const char *source, const char *target,
	  bool read_only, struct moat_error *err)
{
	AUTO_FREE char *resolved = realpath(source, NULL);
	struct moat_mount *mount = &spec->mounts[spec->mount_count];

	if (resolved == NULL)
		return moat_fail(err, MOAT_USAGE, "%s: `%s': %s", origin, source, strerror(errno));
	if (target[0] != '/' || strstr(target, "/../") != NULL || target[1] == '\0')
		return moat_fail(
			err, MOAT_USAGE,
			"%s: `%s' is to be an absolute path inside the sandbox, and not `/'",
			origin, target);
	if (strings_take(&spec->mount_paths, STEAL(resolved), err) < 0 ||
	    strings_add(&spec->mount_paths, target, err) < 0)
		return -1;
	*mount = (struct moat_mount){
		.struct_size = sizeof *mount,
		.source = spec->mount_paths.items[spec->mount_paths.count - 2],
		.target = spec->mount_paths.items[spec->mount_paths.count - 1],
		.read_only = read_only,
	};
	spec->mount_count++;
	return 0;
}

/* Of moat.yaml: relative to the workspace; "~/" is the home directory. */
static int
config_mount(struct runspec *spec, const struct workspace *workspace, const struct config *config,
	     const struct config_mount *mount, struct moat_error *err)
{
	AUTO_BUF struct buf source = {0};
	const char *home = getenv("HOME");

	if (strncmp(mount->source, "~/", 2) == 0 && home != NULL)
		buf_format(&source, "%s%s", home, mount->source + 1);
	else if (mount->source[0] == '/')
		buf_string(&source, mount->source);
	else
		buf_format(&source, "%s/%s", workspace->path, mount->source);
	if (buf_check(&source, err) < 0)
		return -1;
	return add_mount(spec, config->file == NULL ? "mounts" : config->file, source.data,
			 mount->target, mount->read_only, err);
}

static void
mount_free(struct config_mount *mount)
{
	free(mount->source);
	free(mount->target);
}

static int
take_mounts(struct runspec *spec, const struct workspace *workspace, const struct config *config,
	    const struct args *args, struct moat_error *err)
{
	const char *const *options = args_list(args, "mount");
	size_t count = 1 + config->mount_count;

	while (options[count - 1 - config->mount_count] != NULL)
		count++;
	spec->mounts = calloc(count, sizeof(*spec->mounts));
	spec->mount_list = calloc(count + 1, sizeof(*spec->mount_list));
	if (spec->mounts == NULL || spec->mount_list == NULL)
		return moat_fail_memory(err);
	if (add_mount(spec, "the workspace", workspace->path, workspace->path, false, err) < 0)
		return -1;
	for (size_t i = 0; i < config->mount_count; i++)
		if (config_mount(spec, workspace, config, &config->mounts[i], err) < 0)
			return -1;
	for (size_t i = 0; options[i] != NULL; i++) {
		CLEANUP(mount_free) struct config_mount mount = {0};

		if (config_parse_mount(options[i], &mount, err) < 0)
			return moat_wrap(err, "--mount");
		if (add_mount(spec, "--mount", mount.source, mount.target, mount.read_only, err) <
		    0)
			return -1;
	}
	for (size_t i = 0; i < spec->mount_count; i++)
		spec->mount_list[i] = &spec->mounts[i];
	return 0;
}

/* ---------------------------------------------------------------------------------------- secrets
 */

static int
hide_below(struct runspec *spec, const char *home, struct moat_error *err)
{
	for (size_t i = 0; home_secrets[i] != NULL; i++) {
		AUTO_BUF struct buf path = {0};

		buf_format(&path, "%s/%s", home, home_secrets[i]);
		if (buf_check(&path, err) < 0 || strings_add(&spec->hide, path.data, err) < 0)
			return -1;
	}
	return 0;
}

/* Both the home directory that the environment names and the one that the system knows. */
static int
take_hidden(struct runspec *spec, const struct app *app, struct moat_error *err)
{
	const char *home = getenv("HOME");
	const struct passwd *user = getpwuid(geteuid());

	if (home != NULL && (home[0] != '/' || strcmp(home, "/") == 0))
		home = NULL;
	if (home == NULL && user == NULL)
		return moat_fail(
			err, MOAT_USAGE,
			"HOME is not set, and the system knows no home directory of user %u: "
			"what is to be hidden there cannot be told; set HOME",
			(unsigned) geteuid());
	/* Snapshots of other workspaces, and the socket of every run. */
	if (strings_add(&spec->hide, app->home->path, err) < 0 ||
	    (home != NULL && hide_below(spec, home, err) < 0) ||
	    (user != NULL && (home == NULL || strcmp(home, user->pw_dir) != 0) &&
	     hide_below(spec, user->pw_dir, err) < 0))
		return -1;
	for (size_t i = 0; geteuid() == 0 && root_secrets[i] != NULL; i++)
		if (strings_add(&spec->hide, root_secrets[i], err) < 0)
			return -1;
	return 0;
}

/* ------------------------------------------------------------------------------ limits, terminal
 */

static int
take_limits(struct runspec *spec, const struct config *config, const struct args *args,
	    struct moat_error *err)
{
	const char *memory = args_value(args, "memory"), *cpus = args_value(args, "cpus");
	const char *network = args_value(args, "network");

	spec->run.memory = config->memory;
	spec->run.cpus_milli = config->cpus_milli;
	if (memory != NULL && text_parse_size(memory, &spec->run.memory, err) < 0)
		return moat_wrap(err, "--memory");
	if (cpus != NULL && config_parse_cpus(cpus, &spec->run.cpus_milli, err) < 0)
		return moat_wrap(err, "--cpus");
	if (network == NULL)
		network = config->network_policy;
	spec->run.network = strcmp(network, "none") == 0 ? MOAT_NETWORK_NONE : MOAT_NETWORK_OPEN;
	spec->run.image =
		args_value(args, "image") != NULL ? args_value(args, "image") : config->image;
	return 0;
}

static void
hint_at_shell(const struct runspec *spec)
{
	static const char *const shells[] = {"sh", "bash", "zsh", "fish", "dash", NULL};
	const char *base = strrchr(spec->argv[0], '/');

	base = base == NULL ? spec->argv[0] : base + 1;
	for (size_t i = 0; spec->argv[1] == NULL && shells[i] != NULL; i++)
		if (strcmp(base, shells[i]) == 0)
			log_notice("`%s' is interactive and gets no input; you may want: moat run "
				   "-it -- %s",
				   base, spec->argv[0]);
}

/* stdin is carried with -i, or when it is not a terminal.  The command gets a terminal when asked
 * for, or when moat is on one. */
static void
take_terminal(struct runspec *spec, const struct config *config, const struct args *args)
{
	bool in = isatty(STDIN_FILENO) == 1, out = isatty(STDOUT_FILENO) == 1;
	bool interactive = args_flag(args, "interactive") || config->interactive;

	spec->interactive = interactive;
	spec->run.terminal = args_flag(args, "tty") || (in && out);
	spec->run.stdin_open = interactive || !in;
	session_terminal_size(&spec->run.rows, &spec->run.columns);
	if (!spec->run.stdin_open)
		hint_at_shell(spec);
}

int
runspec_make(const struct app *app, const struct workspace *workspace, const struct config *config,
	     const struct args *args, struct runspec **ret, struct moat_error *err)
{
	struct runspec *spec = calloc(1, sizeof *spec);

	if (spec == NULL)
		return moat_fail_memory(err);
	spec->run.struct_size = sizeof spec->run;
	if (take_command(spec, config, args, err) < 0 || take_name(spec, config, args, err) < 0 ||
	    take_environment(spec, config, args, err) < 0 ||
	    take_mounts(spec, workspace, config, args, err) < 0 ||
	    take_hidden(spec, app, err) < 0 || take_limits(spec, config, args, err) < 0) {
		runspec_free(spec);
		return -1;
	}
	take_terminal(spec, config, args);
	*ret = spec;
	return 0;
}

int
runspec_finish(struct runspec *spec, const struct run *run, const struct moat_view *view,
	       int dir_fd, const struct moat_config *config, struct moat_error *err)
{
	if (env_put(&spec->env, "MOAT_RUN_ID", run->id, err) < 0 ||
	    env_put(&spec->env, "MOAT_RUN_NAME", run->name, err) < 0 ||
	    env_put(&spec->env, "MOAT_WORKSPACE", spec->mounts[0].target, err) < 0)
		return -1;
	spec->mounts[0].view = view;
	spec->labels[0] = (struct moat_label){"moat.run", run->id};
	spec->label_list[0] = &spec->labels[0];
	spec->run.id = run->id;
	spec->run.name = run->name;
	spec->run.argv = (const char *const *) spec->argv;
	spec->run.env = (const char *const *) spec->env.items;
	spec->run.workdir = spec->mounts[0].target;
	spec->run.mounts = spec->mount_list;
	spec->run.hide = (const char *const *) spec->hide.items;
	spec->run.labels = spec->label_list;
	spec->run.uid = geteuid();
	spec->run.gid = getegid();
	spec->run.config = config;
	spec->run.state_dirfd = dir_fd;
	return 0;
}
