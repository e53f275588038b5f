/* SPDX-License-Identifier: Apache-2.0 */
/* The probe: makes a sandbox with everything that a run needs, and looks whether it comes up.
 * Guessing from versions and switches would be wrong in every second container. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "argv.h"
#include "child.h"
#include "seccomp.h"

#define PROBE_LIMIT_MS 2000
#define SCORE 70
#define PROBE_FILTER 3 /* as a descriptor of bwrap */

/* The number in a file of /proc/sys, or -1. */
static long
switch_value(const char *path)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (n <= 0)
		return -1;
	text[n] = '\0';
	return strtol(text, NULL, 10);
}

/* True when a seccomp filter holds this process, as it does in most containers. */
static bool
is_filtered(void)
{
	AUTO_FCLOSE FILE *status = fopen("/proc/self/status", "re");
	char line[256];

	while (status != NULL && fgets(line, sizeof line, status) != NULL)
		if (strncmp(line, "Seccomp:", 8) == 0)
			return strtol(line + 8, NULL, 10) == 2;
	return false;
}

/* Switches that forbid an ordinary user its namespaces.  Root needs none of them. */
static const struct namespace_switch {
	const char *path;
	long forbids;
	const char *why;
} switches[] = {
	{"/proc/sys/user/max_user_namespaces", 0,
	 "user namespaces are switched off: sysctl -w user.max_user_namespaces=15000 (as root)"},
	{"/proc/sys/kernel/unprivileged_userns_clone", 0,
	 "user namespaces are for root only: sysctl -w kernel.unprivileged_userns_clone=1 (as "
	 "root)"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 1,
	 "AppArmor forbids user namespaces to bwrap: install a profile that allows them (Ubuntu: "
	 "apt install apparmor-profiles, then load bwrap-userns-restrict), or sysctl -w "
	 "kernel.apparmor_restrict_unprivileged_userns=0 (as root)"},
};

static const char *
reason_of(const char *words)
{
	bool forbidden = strstr(words, "namespace") != NULL || strstr(words, "uid map") != NULL ||
			 strstr(words, "not permitted") != NULL ||
			 strstr(words, "Permission denied") != NULL ||
			 strstr(words, "No space left") != NULL;

	if (strstr(words, "Unknown option") != NULL)
		return "this bubblewrap is too old: version 0.5 or newer is needed";
	if (strstr(words, "mount proc") != NULL)
		return "/proc is masked, as in a container: docker run --security-opt "
		       "systempaths=unconfined (podman: --security-opt unmask=ALL)";
	if (!forbidden)
		return NULL;
	for (size_t i = 0; geteuid() != 0 && i < sizeof switches / sizeof switches[0]; i++)
		if (switch_value(switches[i].path) == switches[i].forbids)
			return switches[i].why;
	if (is_filtered())
		return "a seccomp filter forbids new namespaces, as in a container: docker run "
		       "--security-opt seccomp=unconfined";
	if (geteuid() == 0)
		return "this root may not make namespaces (no CAP_SYS_ADMIN), as in a container: "
		       "docker "
		       "run --privileged, or run moat as an ordinary user";
	return "the system forbids new namespaces";
}

int
explain_failure(const char *bwrap, const char *words, struct moat_error *err)
{
	const char *reason = reason_of(words);

	if (words[0] == '\0')
		words = "it said nothing";
	if (reason == NULL)
		return moat_fail(err, MOAT_FAILED, "bubblewrap (%s) could not make a sandbox: %s",
				 bwrap, words);
	return moat_fail(err, MOAT_UNSUPPORTED, "%s (%s: %s)", reason, bwrap, words);
}

/* Runs the trial.  0: it came up. */
static int
try_sandbox(const struct moat_host *host, const char *bwrap, const char *init,
	    struct moat_error *err)
{
	struct child child = CHILD_INIT;
	AUTO_ARGV struct argv argv = {0};
	AUTO_CLOSE int null = -1, reader = -1, writer = -1, filter = -1;
	char words[300];
	int ends[2], status, ended;

	if (seccomp_open(host, &filter, err) < 0 ||
	    argv_build_probe(&argv, bwrap, init, filter < 0 ? -1 : PROBE_FILTER, err) < 0)
		return -1;
	if ((null = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0)
		return moat_fail_errno(err, "`/dev/null'");
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return moat_fail_errno(err, "pipe");
	reader = ends[0];
	writer = ends[1];
	if (child_spawn(&child, argv.items, (const int[]){null, null, writer, filter}, 4, err) < 0)
		return -1;
	ended = child_wait(&child, PROBE_LIMIT_MS, &status, err);
	child_kill(&child);
	if (ended < 0)
		return -1;
	child_words(reader, words, sizeof words);
	if (ended == 0)
		return moat_fail(err, MOAT_TIMEOUT,
				 "bubblewrap (%s) made no sandbox within %d seconds", bwrap,
				 PROBE_LIMIT_MS / 1000);
	/* -1: somebody else reaped it, so its silence has to do. */
	if (status == 0 || (status == -1 && words[0] == '\0'))
		return 0;
	return explain_failure(bwrap, words, err);
}

int
probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
      struct moat_error *err)
{
	struct moat_error why = MOAT_ERROR_INIT;
	const char *workspaces[] = {target->workspace, NULL};
	AUTO_FREE char *bwrap = NULL;
	AUTO_FREE char *init = NULL;

	if (find_bwrap(host, target->config, workspaces, &bwrap, &why) < 0 ||
	    find_init(&init, &why) < 0 || try_sandbox(host, bwrap, init, &why) < 0) {
		if (why.code == MOAT_NO_MEMORY || why.code == MOAT_USAGE)
			return moat_fail(err, why.code, "%s", why.message);
		bid->score = 0;
		(void) snprintf(bid->reason, sizeof bid->reason, "%.*s",
				(int) sizeof bid->reason - 1, why.message);
		return 0;
	}
	bid->score = SCORE;
	(void) snprintf(bid->reason, sizeof bid->reason,
			"bubblewrap makes sandboxes here, without a daemon or an image (%s)",
			bwrap);
	return 0;
}
