/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: every key, every complaint with its place, the files and their precedence, and
 * damaged or hostile text. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/fs.h"
#include "core/config.h"

struct fixture {
	char path[64];      /* the scratch directory */
	char workspace[80]; /* PATH/ws */
	int workspace_fd;
	char *saved_xdg, *saved_home;
	struct config *config;
	struct moat_error err;
};

static char *
saved_environment(const char *name)
{
	const char *value = getenv(name);

	return value != NULL ? strdup(value) : NULL;
}

static void
restore_environment(const char *name, char *value)
{
	if (value != NULL)
		(void) setenv(name, value, 1);
	else
		(void) unsetenv(name);
	free(value);
}

static int
setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	if (f == NULL)
		return -1;
	f->err = (struct moat_error) MOAT_ERROR_INIT;
	(void) snprintf(f->path, sizeof f->path, "/tmp/test-config.XXXXXX");
	if (mkdtemp(f->path) == NULL)
		return -1;
	(void) snprintf(f->workspace, sizeof f->workspace, "%s/ws", f->path);
	if (mkdir(f->workspace, 0700) < 0)
		return -1;
	f->workspace_fd = open(f->workspace, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f->saved_xdg = saved_environment("XDG_CONFIG_HOME");
	f->saved_home = saved_environment("HOME");
	(void) setenv("XDG_CONFIG_HOME", f->path, 1);
	*state = f;
	return f->workspace_fd >= 0 ? 0 : -1;
}

static int
teardown(void **state)
{
	struct fixture *f = *state;

	config_free(f->config);
	restore_environment("XDG_CONFIG_HOME", f->saved_xdg);
	restore_environment("HOME", f->saved_home);
	(void) close(f->workspace_fd);
	if (fs_remove_tree(AT_FDCWD, f->path, NULL) < 0)
		return -1;
	free(f);
	return 0;
}

static int
parse_sized(struct fixture *f, const char *text, size_t size)
{
	config_free(f->config);
	f->config = NULL;
	return config_parse(text, size, "moat.yaml", &f->config, &f->err);
}

static int
parse(struct fixture *f, const char *text)
{
	return parse_sized(f, text, strlen(text));
}

static int
load(struct fixture *f, const char *explicit_file)
{
	config_free(f->config);
	f->config = NULL;
	return config_load(f->workspace_fd, f->workspace, explicit_file, &f->config, &f->err);
}

/* Writes a file below the scratch directory. */
static void
write_file(struct fixture *f, const char *name, const char *text)
{
	char path[200];
	int fd;

	(void) snprintf(path, sizeof path, "%s/%s", f->path, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_ok(fs_write_all(fd, text, strlen(text), path, &f->err), &f->err);
	(void) close(fd);
}

static void
write_user_file(struct fixture *f, const char *text)
{
	char path[200];

	(void) snprintf(path, sizeof path, "%s/moat", f->path);
	assert_ok(fs_make_directories(path, &f->err), &f->err);
	write_file(f, "moat/config.yaml", text);
}

static void
assert_list(char **list, const char *joined)
{
	char text[256] = "";

	assert_non_null(list);
	for (size_t n = 0; *list != NULL; list++)
		n += (size_t) snprintf(text + n, sizeof text - n, "%s%s", n > 0 ? "|" : "", *list);
	assert_string_equal(text, joined);
}

/* Every key that there is. */
static const char whole[] = "# all of it\n"
			    "name: my-run.1\n"
			    "command: [make, -j2, \"\"]\n"
			    "interactive: yes\n"
			    "runtime: bwrap\n"
			    "image: debian:12\n"
			    "env:\n"
			    "  B: 2\n"
			    "  A_1: 'x y'\n"
			    "  _E: \"\"\n"
			    "mounts:\n"
			    "  - /a:/b\n"
			    "  - ./c:/d:ro\n"
			    "  - {source: /e, target: /f, read_only: true}\n"
			    "  - source: ~/g\n"
			    "    target: /h\n"
			    "    mode: rw\n"
			    "workspaces:\n"
			    "  - ../lib\n"
			    "  - path: /srv/x\n"
			    "    sandbox: overlay\n"
			    "    target: /x\n"
			    "sandbox: clone\n"
			    "commit: success\n"
			    "network: {policy: none}\n"
			    "container:\n"
			    "  memory: 1.5GiB\n"
			    "  cpus: 1.25\n"
			    "snapshots:\n"
			    "  disabled: on\n"
			    "  backend: archive\n"
			    "  triggers:\n"
			    "    disable_pre_run: true\n"
			    "    disable_git_commits: True\n"
			    "    disable_builds: TRUE\n"
			    "    disable_idle: 'true'\n"
			    "    idle_threshold_seconds: 60\n"
			    "  exclude:\n"
			    "    ignore_gitignore: true\n"
			    "    additional:\n"
			    "      - '*.iso'\n"
			    "      - build/\n"
			    "  retention:\n"
			    "    max_count: 0\n"
			    "    max_bytes: 10MB\n"
			    "    delete_initial: true\n"
			    "tracing:\n"
			    "  disable_exec: true\n"
			    "  backend: netlink\n"
			    "  poll_interval_ms: 250\n"
			    "attach:\n"
			    "  escape: ctrl-]\n"
			    "  double_press_ms: 300\n"
			    "plugins:\n"
			    "  snapshot-archive: {level: 3, deep: {er: [1, 2]}}\n";

static void
check_mounts(const struct config *config)
{
	static const struct config_mount expected[] = {
		{(char *) "/a", (char *) "/b", false},
		{(char *) "./c", (char *) "/d", true},
		{(char *) "/e", (char *) "/f", true},
		{(char *) "~/g", (char *) "/h", false},
	};

	assert_int_equal(config->mount_count, 4);
	for (size_t i = 0; i < 4; i++) {
		assert_string_equal(config->mounts[i].source, expected[i].source);
		assert_string_equal(config->mounts[i].target, expected[i].target);
		assert_int_equal(config->mounts[i].read_only, expected[i].read_only);
	}
}

static void
test_whole(void **state)
{
	struct fixture *f = *state;
	const struct config *c;

	assert_ok(parse(f, whole), &f->err);
	c = f->config;
	assert_string_equal(c->name, "my-run.1");
	assert_list(c->command, "make|-j2|");
	assert_true(c->interactive);
	assert_string_equal(c->runtime, "bwrap");
	assert_string_equal(c->image, "debian:12");
	assert_list(c->env, "A_1=x y|B=2|_E=");
	check_mounts(c);
	assert_int_equal(c->workspace_count, 2);
	assert_string_equal(c->workspaces[0].path, "../lib");
	assert_null(c->workspaces[0].sandbox);
	assert_null(c->workspaces[0].target);
	assert_string_equal(c->workspaces[1].path, "/srv/x");
	assert_string_equal(c->workspaces[1].sandbox, "overlay");
	assert_string_equal(c->workspaces[1].target, "/x");
	assert_string_equal(c->sandbox, "clone");
	assert_string_equal(c->commit, "success");
	assert_string_equal(c->network_policy, "none");
	assert_true(c->memory == UINT64_C(3) << 29);
	assert_int_equal(c->cpus_milli, 1250);
	assert_true(c->snapshots.disabled);
	assert_string_equal(c->snapshots.backend, "archive");
	assert_true(c->snapshots.disable_pre_run && c->snapshots.disable_git_commits);
	assert_true(c->snapshots.disable_builds && c->snapshots.disable_idle);
	assert_int_equal(c->snapshots.idle_threshold_seconds, 60);
	assert_true(c->snapshots.ignore_gitignore);
	assert_list(c->snapshots.additional, "*.iso|build/");
	assert_int_equal(c->snapshots.max_count, 0);
	assert_int_equal(c->snapshots.max_bytes, 10000000);
	assert_true(c->snapshots.delete_initial);
	assert_true(c->tracing.disable_exec);
	assert_string_equal(c->tracing.backend, "netlink");
	assert_int_equal(c->tracing.poll_interval_ms, 250);
	assert_string_equal(c->attach.escape, "ctrl-]");
	assert_int_equal(c->attach.double_press_ms, 300);
}

static void
test_defaults(void **state)
{
	static const char *const nothing[] = {
		"",
		"\n",
		"# a remark\n",
		"---\n",
		"~\n",
		"{}",
		"\xef\xbb\xbf",
		"snapshots:\nenv:\nmounts: []\nplugins:\nworkspaces: ~\n"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
		const struct config *c;

		assert_ok(parse(f, nothing[i]), &f->err);
		c = f->config;
		assert_null(c->file);
		assert_null(c->name);
		assert_null(c->command);
		assert_null(c->env);
		assert_null(c->runtime);
		assert_int_equal(c->mount_count + c->workspace_count, 0);
		assert_string_equal(c->sandbox, "none");
		assert_string_equal(c->commit, "never");
		assert_string_equal(c->network_policy, "open");
		assert_int_equal(c->snapshots.idle_threshold_seconds, 30);
		assert_int_equal(c->snapshots.max_count, 0);
		assert_int_equal(c->tracing.poll_interval_ms, 100);
		assert_string_equal(c->attach.escape, "ctrl-/");
		assert_int_equal(c->attach.double_press_ms, 500);
		assert_false(c->interactive || c->snapshots.disabled || c->tracing.disable_exec);
		assert_null(config_plugin(c, "snapshot", "archive"));
	}
}

static void
test_forms(void **state)
{
	static const struct {
		const char *text;
		bool value;
	} words[] = {{"true", true}, {"yes", true},    {"on", true},
		     {"Yes", true},  {"\"on\"", true}, {"false", false},
		     {"no", false},  {"off", false},   {"NO", false}};
	struct fixture *f = *state;
	char text[64];

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
		(void) snprintf(text, sizeof text, "interactive: %s\n", words[i].text);
		assert_ok(parse(f, text), &f->err);
		assert_int_equal(f->config->interactive, words[i].value);
	}
	assert_ok(parse(f, "command: make && echo done > out.txt\n"), &f->err);
	assert_list(f->config->command, "sh|-c|make && echo done > out.txt");
	assert_ok(parse(f, "command: |\n  a\n  b\n"), &f->err);
	assert_list(f->config->command, "sh|-c|a\nb\n");
	/* Aliases stand for what they name. */
	assert_ok(parse(f, "command: &c [a, b]\nsnapshots: {exclude: {additional: *c}}\n"),
		  &f->err);
	assert_list(f->config->snapshots.additional, "a|b");
	assert_ok(parse(f, "%YAML 1.1\n---\nname: x\n...\n"), &f->err);
	assert_string_equal(f->config->name, "x");
}

/* What is refused, and what the message must contain. */
struct refusal {
	const char *text, *message;
};

static void
assert_refused(struct fixture *f, const struct refusal *cases, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (parse(f, cases[i].text) == 0)
			fail_msg("`%s' was accepted", cases[i].text);
		if (f->err.code != MOAT_USAGE || strstr(f->err.message, cases[i].message) == NULL)
			fail_msg("`%s': %d `%s' lacks `%s'", cases[i].text, f->err.code,
				 f->err.message, cases[i].message);
		assert_ptr_equal(strstr(f->err.message, "moat.yaml:"), f->err.message);
		assert_null(f->config);
		moat_error_clear(&f->err);
	}
}

static void
test_bad_text(void **state)
{
	static const struct refusal cases[] = {
		{"- name", "moat.yaml:1:1: `key: value' lines are expected"},
		{"word", "moat.yaml:1:1: `key: value' lines are expected"},
		{"name: x\n---\nname: y\n", "moat.yaml:2:1: a second document begins here"},
		{"name: x\n---\n[", "moat.yaml:2:1: a second document begins here"},
		{"a:\n\tb: c\n", "moat.yaml:2:1: not YAML: "},
		{"name: [a", "moat.yaml:1:9: not YAML: "},
		{"name: *nowhere", "moat.yaml:1:7: not YAML: "},
		{"name: 'x", "not YAML: "},
		{"name: x\n image: y\n", "moat.yaml:2:7: not YAML"},
		{"name: a\xff"
		 "b\n",
		 "moat.yaml:1:8: not UTF-8 text: "},
		{"# \xc3\xa4\nname: \xc3\xa4\xc3", "moat.yaml:2:8: not UTF-8 text: "},
		{"name: a\x01\n", "moat.yaml:1:8: not UTF-8 text: control characters"},
		{"name: \"a\\0b\"", "moat.yaml:1:7: name: the value holds a NUL byte"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

static void
test_bad_keys(void **state)
{
	static const struct refusal cases[] = {
		{"comand: x", "moat.yaml:1:1: unknown key \"comand\" (did you mean \"command\"?)"},
		{"name: x\nsnapshots:\n  retention:\n    max_cuont: 1\n",
		 "moat.yaml:4:5: unknown key \"max_cuont\" (did you mean \"max_count\"?)"},
		{"snapshots:\n  triger: {}\n",
		 "moat.yaml:2:3: unknown key \"triger\" (did you mean \"triggers\"?)"},
		{"max_count: 1", "moat.yaml:1:1: unknown key \"max_count\""},
		{"quux: 1", "moat.yaml:1:1: unknown key \"quux\""},
		{"network.policy: none", "unknown key \"network.policy\""},
		{"? ''\n: 1", "unknown key \"\""},
		{"<<: {name: x}", "unknown key \"<<\""},
		{"name: a\nname: b",
		 "moat.yaml:2:1: key \"name\" is here again; it is already on line 1"},
		{"plugins:\n  runtime-x: {a: 1, b: 2, \"a\": 3}",
		 "moat.yaml:2:27: key \"a\" is here again"},
		{"? [a]\n: 1", "moat.yaml:1:3: a key must be a word"},
		{"\"na\\0me\": x", "moat.yaml:1:1: a key holds a NUL byte"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

static void
test_bad_words(void **state)
{
	static const struct refusal cases[] = {
		{"name: [x]", "moat.yaml:1:7: name: one value is expected, not a list"},
		{"name: {x: y}", "name: one value is expected, not a mapping"},
		{"name:\nimage: x", "moat.yaml:1:6: name: a value is missing"},
		{"name: null", "name: a value is missing"},
		{"image: ''", "moat.yaml:1:8: image: the value is empty"},
		{"name: a b", "name: `a b' is not a name"},
		{"name: ../x", "name: `../x' is not a name"},
		{"sandbox: -x", "sandbox: `-x' is not a name"},
		{"snapshots: {backend: a/b}",
		 "moat.yaml:1:22: snapshots.backend: `a/b' is not a name"},
		{"interactive: maybe",
		 "moat.yaml:1:14: interactive: `maybe' is neither true nor false"},
		{"commit: always", "commit: `always' is none of never, success"},
		{"network: {policy: closed}", "network.policy: `closed' is none of none, open"},
		{"network: none", "moat.yaml:1:10: network: `key: value' lines are expected"},
		{"attach: {escape: F1}", "attach.escape: `F1' is not a key"},
		{"attach: {escape: ctrl-}", "attach.escape: `ctrl-' is not a key"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

static void
test_bad_numbers(void **state)
{
	static const struct refusal cases[] = {
		{"container: {memory: lots}",
		 "moat.yaml:1:21: container.memory: `lots' is not a size"},
		{"container: {cpus: two}", "container.cpus: `two' is not a number of cpus"},
		{"container: {cpus: 1.2345}", "`1.2345' is not a number of cpus"},
		{"container: {cpus: -1}", "`-1' is not a number of cpus"},
		{"container: {cpus: .5}", "`.5' is not a number of cpus"},
		{"container: {cpus: 1.}", "`1.' is not a number of cpus"},
		{"container: {cpus: 99999999999}", "is not a number of cpus"},
		{"snapshots: {retention: {max_count: -1}}", "max_count: `-1' is not between 0 and"},
		{"snapshots: {retention: {max_count: 1.5}}",
		 "max_count: `1.5' is not a whole number"},
		{"snapshots: {retention: {max_bytes: -1}}", "max_bytes: `-1' is not a size"},
		{"snapshots: {triggers: {idle_threshold_seconds: -5}}",
		 "idle_threshold_seconds: `-5' is not between"},
		{"tracing: {poll_interval_ms: 0}", "poll_interval_ms: `0' is not between 1"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

static void
test_bad_lists(void **state)
{
	static const struct refusal cases[] = {
		{"snapshots: {exclude: {additional: x}}", "additional: a list is expected"},
		{"snapshots: {exclude: {additional: [a, '']}}",
		 "moat.yaml:1:39: snapshots.exclude.additional: an item is empty"},
		{"snapshots: {exclude: {additional: [[a]]}}",
		 "additional: one value is expected, not a list"},
		{"command: []", "moat.yaml:1:10: command: the list names no program"},
		{"command: ['']", "command: the list names no program"},
		{"command: ''", "command: the value is empty"},
		{"command: {a: b}", "command: one value is expected, not a mapping"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

static void
test_bad_variables(void **state)
{
	static const struct refusal cases[] = {
		{"env: [A=1]", "env: `key: value' lines are expected"},
		{"env:\n  A: 1\n  2B: x", "moat.yaml:3:3: env: `2B' is not a variable's name"},
		{"env: {A=B: x}", "env: `A=B' is not a variable's name"},
		{"env: {'': x}", "env: `' is not a variable's name"},
		{"env: {A: [1]}", "moat.yaml:1:10: A: one value is expected, not a list"},
		{"env: {A: }", "A: a value is missing"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

static void
test_bad_mounts(void **state)
{
	static const struct refusal cases[] = {
		{"mounts: /a:/b", "moat.yaml:1:9: mounts: a list is expected"},
		{"mounts: [/a]", "moat.yaml:1:10: mounts: `/a' is not a mount"},
		{"mounts: ['/a:b']", "mounts: `/a:b': the mount's target must be an absolute path"},
		{"mounts: [':/b']", "mounts: `:/b': the mount has no source"},
		{"mounts: ['/a:/b:rx']",
		 "mounts: `/a:/b:rx': the mode of a mount is ro or rw, not `rx'"},
		{"mounts: [{source: /a}]", "moat.yaml:1:10: mounts: the mount's target must be"},
		{"mounts: [{target: /a}]", "mounts: the mount has no source"},
		{"mounts: [{source: /a, target: /b, mod: ro}]",
		 "unknown key \"mod\" (did you mean \"mode\"?)"},
		{"mounts: [{source: /a, target: /b, mode: ro, read_only: no}]",
		 "mode and read_only say the same"},
		{"mounts: [{source: /a, target: /b, read_only: x}]", "read_only: `x' is neither"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

static void
test_bad_workspaces(void **state)
{
	static const struct refusal cases[] = {
		{"workspaces: [{sandbox: x}]", "moat.yaml:1:14: workspaces: the path is missing"},
		{"workspaces: ['']", "workspaces: the path is missing"},
		{"workspaces: [{path: a, target: b}]",
		 "workspaces: the target must be an absolute path"},
		{"workspaces: [{path: a, sandbox: /}]", "workspaces: sandbox: `/' is not a name"},
		{"workspaces: [{path: a, pth: b}]",
		 "workspaces: unknown key \"pth\" (did you mean \"path\"?)"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

static void
test_bad_plugins(void **state)
{
	static const struct refusal cases[] = {
		{"plugins: {archive: {}}", "moat.yaml:1:11: plugins: \"archive\" is not runtime-"},
		{"plugins: {store-x: {}}", "plugins: \"store-x\" is not runtime-"},
		{"plugins: {runtime-: {}}", "plugins: \"runtime-\" is not runtime-"},
		{"plugins: {runtime-x: 5}",
		 "moat.yaml:1:22: runtime-x: `key: value' lines are expected"},
		{"plugins: [a]", "plugins: `key: value' lines are expected"},
	};

	assert_refused(*state, cases, sizeof cases / sizeof cases[0]);
}

/* What moat.yaml and the command line share. */
static void
test_shared_values(void **state)
{
	struct fixture *f = *state;
	struct config_mount mount = {0};
	uint32_t milli = 7;

	assert_ok(config_parse_mount("a:/b:rw", &mount, &f->err), &f->err);
	assert_string_equal(mount.source, "a");
	assert_string_equal(mount.target, "/b");
	assert_false(mount.read_only);
	free(mount.source);
	free(mount.target);
	mount = (struct config_mount){0};
	assert_fails(config_parse_mount("a:/b:ro:x", &mount, &f->err), &f->err, MOAT_USAGE,
		     "`ro:x'");
	assert_fails(config_parse_mount("", &mount, &f->err), &f->err, MOAT_USAGE, "not a mount");
	assert_null(mount.source);
	assert_ok(config_parse_cpus("2", &milli, &f->err), &f->err);
	assert_int_equal(milli, 2000);
	assert_ok(config_parse_cpus("0.001", &milli, &f->err), &f->err);
	assert_int_equal(milli, 1);
	assert_ok(config_parse_cpus("1000", &milli, &f->err), &f->err);
	assert_int_equal(milli, 1000000);
	assert_fails(config_parse_cpus("1000.001", &milli, &f->err), &f->err, MOAT_USAGE, "1000");
	assert_int_equal(milli, 1000000);
}

/* ---------------------------------------------------------------------------------- plugins */

static void
test_plugin_values(void **state)
{
	struct fixture *f = *state;
	const struct moat_config *p;
	const char *text = "default";
	int64_t number = -7;
	uint64_t size = 1;
	int flag = 5;

	assert_ok(parse(f, "plugins:\n  snapshot-archive:\n    level: 3\n    name: x\n    big: 2k\n"
			   "    wait: 2s\n    on: yes\n    nothing: ~\n    list: [1]\n"),
		  &f->err);
	p = config_plugin(f->config, "snapshot", "archive");
	assert_non_null(p);
	assert_null(config_plugin(f->config, "snapshot", "arch"));
	assert_int_equal(config_get_string(p, "name", &text, &f->err), 1);
	assert_string_equal(text, "x");
	assert_int_equal(config_get_int(p, "level", &number, &f->err), 1);
	assert_int_equal(number, 3);
	assert_int_equal(config_get_size(p, "big", &size, &f->err), 1);
	assert_int_equal(size, 2048);
	assert_int_equal(config_get_duration(p, "wait", &number, &f->err), 1);
	assert_int_equal(number, 2000);
	assert_int_equal(config_get_bool(p, "on", &flag, &f->err), 1);
	assert_int_equal(flag, 1);
	/* Not set: what stood there stays. */
	assert_int_equal(config_get_bool(p, "absent", &flag, &f->err), 0);
	assert_int_equal(config_get_string(p, "nothing", &text, &f->err), 0);
	assert_int_equal(config_get_int(NULL, "level", &number, &f->err), 0);
	assert_int_equal(flag, 1);
	assert_string_equal(text, "x");
	assert_int_equal(number, 2000);
	/* Of another type: an error with its place. */
	assert_fails(config_get_int(p, "name", &number, &f->err), &f->err, MOAT_USAGE,
		     "moat.yaml:4:11: plugins.snapshot-archive.name: `x' is not a whole number");
	assert_fails(config_get_bool(p, "level", &flag, &f->err), &f->err, MOAT_USAGE,
		     "moat.yaml:3:12: ");
	assert_fails(config_get_size(p, "name", &size, &f->err), &f->err, MOAT_USAGE, "not a size");
	assert_fails(config_get_duration(p, "name", &number, &f->err), &f->err, MOAT_USAGE,
		     "not a duration");
	assert_fails(config_get_string(p, "list", &text, &f->err), &f->err, MOAT_USAGE,
		     "moat.yaml:9:11: ");
	assert_int_equal(number, 2000);
}

/* ------------------------------------------------------------------------------------ files */

static void
test_no_file(void **state)
{
	struct fixture *f = *state;

	assert_ok(load(f, NULL), &f->err);
	assert_null(f->config->file);
	(void) unsetenv("XDG_CONFIG_HOME");
	(void) unsetenv("HOME");
	assert_ok(load(f, NULL), &f->err);
	config_free(f->config);
	f->config = NULL;
	assert_ok(config_load(-1, NULL, NULL, &f->config, &f->err), &f->err);
}

static void
test_which_file(void **state)
{
	struct fixture *f = *state;
	char path[200];

	write_file(f, "ws/agent.yaml", "name: agent\n");
	assert_ok(load(f, NULL), &f->err);
	assert_string_equal(f->config->name, "agent");
	write_file(f, "ws/moat.yaml", "name: moat\n");
	assert_ok(load(f, NULL), &f->err);
	assert_string_equal(f->config->name, "moat");
	(void) snprintf(path, sizeof path, "%s/moat.yaml", f->workspace);
	assert_string_equal(f->config->file, path);
	write_file(f, "other.yaml", "image: x\n");
	(void) snprintf(path, sizeof path, "%s/other.yaml", f->path);
	assert_ok(load(f, path), &f->err);
	assert_null(f->config->name);
	assert_string_equal(f->config->image, "x");
	assert_string_equal(f->config->file, path);
	assert_fails(load(f, "/nonexistent/x"), &f->err, MOAT_USAGE,
		     "--config: open `/nonexistent/x': No such file");
	/* A bad moat.yaml is not passed over for agent.yaml, and is named in full. */
	write_file(f, "ws/moat.yaml", "nme: moat\n");
	(void) snprintf(path, sizeof path, "%s/moat.yaml:1:1: unknown key", f->workspace);
	assert_fails(load(f, NULL), &f->err, MOAT_USAGE, path);
}

static void
test_precedence(void **state)
{
	struct fixture *f = *state;
	const struct moat_config *p;
	int64_t number = 0;
	const char *text = NULL;
	char path[300];

	write_user_file(f, "runtime: docker\nimage: user\nenv: {A: user, B: user}\n"
			   "snapshots: {exclude: {additional: [a, b]}, retention: {max_count: 3}}\n"
			   "mounts: ['/u:/u']\n"
			   "plugins: {runtime-x: {level: 1, name: user}, runtime-u: {level: 9}}\n");
	assert_ok(load(f, NULL), &f->err);
	assert_string_equal(f->config->runtime, "docker");
	assert_null(f->config->file);
	write_file(f, "ws/moat.yaml",
		   "image: ws\nenv: {B: ws, C: ws}\n"
		   "snapshots: {exclude: {additional: [c]}}\nmounts: ['/w:/w', '/v:/v']\n");
	assert_ok(load(f, NULL), &f->err);
	assert_string_equal(f->config->runtime, "docker");
	assert_string_equal(f->config->image, "ws");
	assert_list(f->config->env, "A=user|B=ws|C=ws");
	assert_list(f->config->snapshots.additional, "c");
	assert_int_equal(f->config->snapshots.max_count, 3);
	assert_int_equal(f->config->mount_count, 2);
	assert_string_equal(f->config->mounts[0].source, "/w");
	/* What a workspace says must not decide which programs run on the host. */
	write_file(f, "ws/moat.yaml", "image: ws\nplugins: {runtime-x: {level: 2}}\n");
	assert_fails(load(f, NULL), &f->err, MOAT_USAGE,
		     "moat.yaml:2:10: plugins: a workspace must not configure plugins");
	write_file(f, "explicit.yaml", "plugins: {runtime-x: {level: 2}}\n");
	(void) snprintf(path, sizeof path, "%s/explicit.yaml", f->path);
	assert_ok(load(f, path), &f->err);
	p = config_plugin(f->config, "runtime", "x");
	assert_int_equal(config_get_int(p, "level", &number, &f->err), 1);
	assert_int_equal(number, 2);
	assert_int_equal(config_get_string(p, "name", &text, &f->err), 1);
	assert_string_equal(text, "user");
	p = config_plugin(f->config, "runtime", "u");
	assert_int_equal(config_get_int(p, "level", &number, &f->err), 1);
	assert_int_equal(number, 9);
}

static void
test_user_file(void **state)
{
	static const char *const bad[] = {"name: x", "command: x", "workspaces: [x]"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		write_user_file(f, bad[i]);
		assert_fails(load(f, NULL), &f->err, MOAT_USAGE, "/moat/config.yaml:1:");
	}
	write_user_file(f, "image: from-home\n");
	(void) setenv("XDG_CONFIG_HOME", "relative", 1);
	(void) setenv("HOME", f->workspace, 1);
	assert_ok(load(f, NULL), &f->err);
	assert_null(f->config->image);
}

static void
test_odd_files(void **state)
{
	struct fixture *f = *state;

	write_file(f, "secret", "name: secret\n");
	assert_int_equal(symlinkat("../secret", f->workspace_fd, "moat.yaml"), 0);
	assert_fails(load(f, NULL), &f->err, MOAT_USAGE, "moat.yaml: is a symbolic link");
	assert_int_equal(unlinkat(f->workspace_fd, "moat.yaml", 0), 0);
	assert_int_equal(symlinkat("nowhere", f->workspace_fd, "moat.yaml"), 0);
	assert_fails(load(f, NULL), &f->err, MOAT_USAGE, "moat.yaml: is a symbolic link");
	assert_int_equal(unlinkat(f->workspace_fd, "moat.yaml", 0), 0);
	(void) alarm(20); /* a FIFO that is waited for */
	assert_int_equal(mkfifoat(f->workspace_fd, "moat.yaml", 0600), 0);
	assert_fails(load(f, NULL), &f->err, MOAT_USAGE, "moat.yaml: is not a regular file");
	(void) alarm(0);
	assert_int_equal(unlinkat(f->workspace_fd, "moat.yaml", 0), 0);
	assert_int_equal(mkdirat(f->workspace_fd, "moat.yaml", 0700), 0);
	assert_fails(load(f, NULL), &f->err, MOAT_USAGE, "moat.yaml: is not a regular file");
	assert_int_equal(unlinkat(f->workspace_fd, "moat.yaml", AT_REMOVEDIR), 0);
	write_file(f, "ws/moat.yaml", "");
	assert_ok(load(f, NULL), &f->err);
	assert_non_null(f->config->file);
}

static void
test_file_size(void **state)
{
	struct fixture *f = *state;
	AUTO_BUF struct buf text = {0};

	buf_string(&text, "name: x\n#");
	while (text.size < (1 << 20))
		buf_string(&text, "x");
	assert_ok(buf_check(&text, &f->err), &f->err);
	write_file(f, "ws/moat.yaml", text.data);
	assert_ok(load(f, NULL), &f->err);
	assert_string_equal(f->config->name, "x");
	buf_string(&text, "x");
	write_file(f, "ws/moat.yaml", text.data);
	assert_fails(load(f, NULL), &f->err, MOAT_USAGE, "moat.yaml: larger than 1 MiB");
}

/* ------------------------------------------------------------------------------ hostile text */

static double
seconds_now(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

/* It is refused or read, in no more than a few seconds, sanitizers and valgrind included. */
static void
assert_quick(struct fixture *f, const char *what, struct buf *text)
{
	double start = seconds_now(), took;
	int result;

	assert_ok(buf_check(text, &f->err), &f->err);
	(void) alarm(120);
	result = parse_sized(f, text->data, text->size);
	(void) alarm(0);
	took = seconds_now() - start;
	print_message("%s: %zu bytes, %.80s, %.2f s\n", what, text->size,
		      result == 0 ? "read" : f->err.message, took);
	assert_true(took < 60);
	moat_error_clear(&f->err);
}

static void
repeat(struct buf *text, const char *unit, long count)
{
	while (count-- > 0)
		buf_string(text, unit);
}

static void
test_deep(void **state)
{
	static const struct {
		const char *what, *before, *unit;
	} cases[] = {
		{"open sequences", "plugins: {runtime-x: {a: ", "["},
		{"open mappings", "plugins: {runtime-x: ", "{a: "},
		{"block sequences", "plugins:\n  runtime-x:\n    a:\n     ", "- "},
		{"explicit keys", "", "? "},
		{"anchors", "name: ", "&a "},
		{"quotes", "name: ", "'"},
		{"comments", "", "#\n"},
		{"tags", "name: ", "!"},
		{"empty items", "plugins: {runtime-x: {a: [", "a,"},
		{"keys", "plugins: {runtime-x: {", "a: 1, "},
	};
	struct fixture *f = *state;
	long bytes = test_scaled(1000000);

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		AUTO_BUF struct buf text = {0};

		buf_string(&text, cases[i].before);
		repeat(&text, cases[i].unit, bytes / (long) strlen(cases[i].unit));
		assert_quick(f, cases[i].what, &text);
	}
}

/* Nested to the last bracket, and valid: at the limit, and one beyond it. */
static void
test_deep_and_closed(void **state)
{
	struct fixture *f = *state;

	for (long depth = 97; depth <= 98; depth++) {
		AUTO_BUF struct buf text = {0};

		buf_string(&text, "plugins: {runtime-x: {a: ");
		repeat(&text, "[", depth);
		repeat(&text, "]", depth);
		buf_string(&text, "}}");
		assert_ok(buf_check(&text, &f->err), &f->err);
		if (depth == 97)
			assert_ok(parse(f, text.data), &f->err);
		else
			assert_fails(parse(f, text.data), &f->err, MOAT_USAGE,
				     "moat.yaml:1:123: nested deeper than 100");
	}
}

/* Many different ones, which libyaml compares with each other. */
static void
test_many(void **state)
{
	/* The number stands between the two. */
	static const struct {
		const char *what, *before, *left, *right, *after, *refused;
	} cases[] = {
		{"anchors", "plugins: {runtime-x: {a: [", "&a", " x, ", "]}}",
		 "more than 1000 anchors"},
		{"directives", "", "%TAG !a", "! x\n", "---\n", "more than 100 lines"},
		{"pairs", "plugins: {runtime-x: {", "a", ": x, ", "}}", NULL},
		{"variables", "env: {", "a", ": x, ", "}", NULL},
	};
	struct fixture *f = *state;
	size_t size = (size_t) test_scaled(1000000);

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		AUTO_BUF struct buf text = {0};

		buf_string(&text, cases[i].before);
		for (long j = 0; text.size < size && !text.failed; j++)
			buf_format(&text, "%s%ld%s", cases[i].left, j, cases[i].right);
		buf_string(&text, cases[i].after);
		assert_quick(f, cases[i].what, &text);
		if (cases[i].refused == NULL)
			assert_ok(parse(f, text.data), &f->err);
		else
			assert_fails(parse(f, text.data), &f->err, MOAT_USAGE, cases[i].refused);
	}
}

static void
test_alias_bombs(void **state)
{
	static const char *const users[] = {"",       "command",    "env",
					    "mounts", "workspaces", "snapshots"};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof users / sizeof users[0]; i++) {
		AUTO_BUF struct buf text = {0};

		buf_string(&text,
			   "plugins:\n  runtime-y:\n    l0: &l0 [x, x, x, x, x, x, x, x, x]\n");
		for (int level = 1; level <= 40; level++) {
			buf_format(&text, "    l%d: &l%d [", level, level);
			for (int j = 0; j < 9; j++)
				buf_format(&text, "*l%d, ", level - 1);
			buf_string(&text, "]\n");
		}
		if (users[i][0] != '\0')
			buf_format(&text, "%s: *l40\n", users[i]);
		assert_quick(f, "alias bomb", &text);
	}
	/* It holds itself. */
	assert_fails(parse(f, "mounts: &m [*m]\n"), &f->err, MOAT_USAGE, "one value is expected");
	assert_fails(parse(f, "snapshots: &s {triggers: *s}\n"), &f->err, MOAT_USAGE,
		     "unknown key");
	assert_ok(parse(f, "plugins: {runtime-x: &p {a: *p}}\n"), &f->err);
}

static void
mutate(char *text, size_t *size, size_t capacity)
{
	static const char *const pieces[] = {
		":",  "- ", "\n",        "  ",    "&a ",
		"*a", "{",  "}",         "[",     "]",
		"\"", "'",  "|\n",       "? ",    "---\n",
		"\t", "~",  "\xff",      "\xc3",  "<<: ",
		"!!", "%",  "mounts:\n", "env: ", "plugins:\n  runtime-x: "};
	size_t at = (size_t) random() % (*size + 1), span = (size_t) random() % 20;

	if (span > *size - at)
		span = *size - at;
	switch (random() % 4) {
	case 0: /* a byte becomes another */
		if (at < *size)
			text[at] = (char) random();
		break;
	case 1: /* some are taken out */
		memmove(text + at, text + at + span, *size - at - span);
		*size -= span;
		break;
	case 2: { /* some of them come twice */
		char copy[20];

		if (*size + span > capacity)
			break;
		memcpy(copy, text + at, span);
		memmove(text + at + span, text + at, *size - at);
		memcpy(text + at, copy, span);
		*size += span;
		break;
	}
	default: { /* something of the language is put in */
		const char *piece = pieces[(size_t) random() % (sizeof pieces / sizeof pieces[0])];
		size_t length = strlen(piece);

		if (*size + length > capacity)
			break;
		memmove(text + at + length, text + at, *size - at);
		memcpy(text + at, piece, length);
		*size += length;
	}
	}
}

/* A damaged file is read or refused with its place, and nothing else happens. */
static void
test_mutations(void **state)
{
	struct fixture *f = *state;
	const char *given = getenv("MOAT_TEST_SEED");
	unsigned seed = given != NULL ? (unsigned) strtoul(given, NULL, 0) : (unsigned) time(NULL);
	long cases = test_scaled(10000), read = 0;

	srandom(seed);
	for (long i = 0; i < cases; i++) {
		char text[sizeof whole + 512];
		size_t size = sizeof whole - 1;

		memcpy(text, whole, size);
		for (long n = random() % 4; n >= 0; n--)
			mutate(text, &size, sizeof text);
		if (parse_sized(f, text, size) == 0)
			read++;
		else if (f->err.code != MOAT_USAGE ||
			 strncmp(f->err.message, "moat.yaml:", 10) != 0)
			fail_msg("seed %u, case %ld: %d `%s'", seed, i, f->err.code,
				 f->err.message);
		moat_error_clear(&f->err);
	}
	print_message("seed %u, %ld cases, %ld read\n", seed, cases, read);
	assert_true(read > 0 && read < cases);
}

/* The file cut at every byte. */
static void
test_truncation(void **state)
{
	struct fixture *f = *state;

	for (size_t size = 0; size < sizeof whole; size++) {
		if (parse_sized(f, whole, size) < 0)
			assert_int_equal(f->err.code, MOAT_USAGE);
		moat_error_clear(&f->err);
	}
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_whole),           TEST(test_defaults),       TEST(test_forms),
		TEST(test_bad_text),        TEST(test_bad_keys),       TEST(test_bad_words),
		TEST(test_bad_numbers),     TEST(test_bad_lists),      TEST(test_bad_variables),
		TEST(test_bad_mounts),      TEST(test_bad_workspaces), TEST(test_bad_plugins),
		TEST(test_shared_values),   TEST(test_plugin_values),  TEST(test_no_file),
		TEST(test_which_file),      TEST(test_precedence),     TEST(test_user_file),
		TEST(test_odd_files),       TEST(test_file_size),      TEST(test_deep),
		TEST(test_deep_and_closed), TEST(test_many),           TEST(test_alias_bombs),
		TEST(test_mutations),       TEST(test_truncation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
