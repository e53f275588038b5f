/* SPDX-License-Identifier: Apache-2.0 */
/* What a snapshot did not capture, a restore does not touch: random git repositories, nested ones
 * in them, rules at every level that are edited or deleted after the snapshot, settings that
 * change. git itself says what was captured, by the rules of that moment.  Each uncaptured object
 * must be the same to the inode and the change time; everything captured must be as it was. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "picture.h"
#include "proof.h"
#include "repos.h"

struct story {
	struct proof *p;
	struct repos repos;
	struct workspace *workspace;
	struct snap *snap;
	struct picture captured;   /* at the capture */
	struct picture before;     /* just before the restore */
	struct set files, ignored; /* what the capture's rules make of all that was ever there */
};

static unsigned long conflicts, other_filter_loses, untouched;

static bool
has_git_component(const char *path)
{
	size_t n = strlen(path);

	return strcmp(path, ".git") == 0 || strncmp(path, ".git/", 5) == 0 ||
	       strstr(path, "/.git/") != NULL || (n > 5 && strcmp(path + n - 5, "/.git") == 0);
}

/* In, or below, an ignored directory. */
static bool
is_ignored(const struct story *s, const char *path)
{
	AUTO_FREE char *prefix = strdup(path);

	for (;;) {
		char *slash = strrchr(prefix, '/');

		if (set_has(&s->ignored, prefix))
			return true;
		if (slash == NULL)
			return false;
		*slash = '\0';
	}
}

static bool
is_uncaptured(const struct story *s, const struct sight *sight)
{
	if (sight->path[0] == '\0')
		return false;
	if (has_git_component(sight->path))
		return true;
	if (!S_ISDIR(sight->mode))
		return !set_has(&s->files, sight->path);
	if (set_has_below(&s->files, sight->path))
		return false;
	return is_ignored(s, sight->path) || repos_excludes(&s->repos, sight->path);
}

/* Whether it holds something that must stay. */
static bool
is_kept(const struct story *s, const struct sight *directory)
{
	size_t n = strlen(directory->path);

	for (size_t i = 0; i < s->before.count; i++)
		if (strncmp(s->before.items[i].path, directory->path, n) == 0 &&
		    s->before.items[i].path[n] == '/' && is_uncaptured(s, &s->before.items[i]))
			return true;
	return false;
}

/* ------------------------------------------------------------------------------------- checking */

static unsigned long
check_untouched(const struct story *s, const char *what, const struct picture *after)
{
	struct picture expected = {0}, found = {0};
	unsigned long differences;

	for (size_t i = 0; i < s->before.count; i++) {
		const struct sight *sight = &s->before.items[i], *now;

		if (!is_uncaptured(s, sight))
			continue;
		picture_add(&expected, sight);
		now = picture_find(after, sight->path);
		if (now != NULL)
			picture_add(&found, now);
	}
	differences = picture_compare(s->p, what, &expected, &found, NULL);
	untouched += expected.count;
	picture_free(&expected);
	picture_free(&found);
	return differences;
}

/* Everything captured is back, and nothing else is there but the uncaptured. */
static void
check_captured(const struct story *s, const struct picture *after)
{
	struct picture expected = {0}, found = {0};

	for (size_t i = 0; i < s->captured.count; i++)
		if (!is_uncaptured(s, &s->captured.items[i]))
			picture_add(&expected, &s->captured.items[i]);
	for (size_t i = 0; i < after->count; i++) {
		const struct sight *sight = &after->items[i];

		if (is_uncaptured(s, sight))
			continue;
		/* A directory of the agent's that holds ignored files stays with them. */
		if (S_ISDIR(sight->mode) && picture_find(&s->captured, sight->path) == NULL &&
		    is_kept(s, sight))
			continue;
		picture_add(&found, sight);
	}
	picture_compare(s->p, "captured", &expected, &found, NULL);
	picture_free(&expected);
	picture_free(&found);
}

/* The control: the rules as they are now, in place of those that the snapshot stores, would delete
 * something uncaptured. */
static void
try_other_filter(struct story *s, const struct config *config)
{
	AUTO_SNAP struct snap *other = NULL;
	AUTO_MANIFEST struct manifest *now = NULL, *desired = NULL;
	struct moat_error err = MOAT_ERROR_INIT;

	if (!proof_snapshot(s->p, s->workspace, config, &other, &err) ||
	    snap_manifest(s->p->app.home, other, &now, &err) < 0 ||
	    snap_manifest(s->p->app.home, s->snap, &desired, &err) < 0) {
		proof_fail(s->p, "control: %s", err.message);
		return;
	}
	s->p->controls++;
	for (size_t i = 0; i < now->count; i++) {
		const char *path = now->entries[i]->path;
		const struct sight *sight = picture_find(&s->before, path);

		if (sight != NULL && manifest_find(desired, path) < 0 && is_uncaptured(s, sight)) {
			other_filter_loses++;
			return;
		}
	}
}

/* The other control: one uncaptured file is touched. */
static void
touch_one(struct story *s)
{
	struct picture after;

	for (size_t i = 0; i < s->before.count; i++) {
		AUTO_FREE char *path = NULL;

		if (!S_ISREG(s->before.items[i].mode) || !is_uncaptured(s, &s->before.items[i]))
			continue;
		if (asprintf(&path, "%s/%s", s->repos.top, s->before.items[i].path) < 0)
			proof_die("asprintf", __FILE__, __LINE__);
		MUST(chmod(path, s->before.items[i].mode & 07777));
		picture_take(s->repos.top, PICTURE_IDENTITY, &after);
		s->p->controls++;
		if (check_untouched(s, NULL, &after) == 0)
			proof_fail(s->p, "control: a touched file was not seen");
		picture_free(&after);
		return;
	}
}

/* ------------------------------------------------------------------------------------ the story */

static struct config *
load_config(struct story *s)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct config *config = NULL;

	if (config_load(s->workspace->fd, s->workspace->path, NULL, &config, &err) < 0)
		proof_fail(s->p, "moat.yaml: %s", err.message);
	return config;
}

static bool
capture(struct story *s)
{
	AUTO_CONFIG struct config *config = load_config(s);
	struct moat_error err = MOAT_ERROR_INIT;

	picture_take(s->repos.top, 0, &s->captured);
	repos_make_shadow(&s->repos);
	if (proof_snapshot(s->p, s->workspace, config, &s->snap, &err))
		return true;
	proof_fail(s->p, "snapshot: %s", err.message);
	return false;
}

static void
restore(struct story *s)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct picture after, plain;
	bool done = proof_restore(s->p, s->snap, NULL, true, NULL, &err);

	picture_take(s->repos.top, PICTURE_IDENTITY, &after);
	if (!done && err.code == MOAT_CONFLICT) {
		conflicts++;
		picture_compare(s->p, "refused, and yet", &s->before, &after, NULL);
	} else if (!done) {
		proof_fail(s->p, "restore: %s", err.message);
	} else {
		check_untouched(s, "uncaptured", &after);
		picture_take(s->repos.top, 0, &plain);
		check_captured(s, &plain);
		picture_free(&plain);
	}
	picture_free(&after);
	if (done && s->p->case_number % 10 == 0)
		touch_one(s);
}

static void
tell_story(struct proof *p, unsigned long number)
{
	struct story s = {.p = p};

	proof_case(p, number);
	s.repos = (struct repos){
		.p = p, .top = proof_path(p, "ws"), .shadow = proof_path(p, "shadow")};
	MUST(mkdir(s.repos.top, 0755));
	repos_make(&s.repos);
	s.workspace = proof_workspace(p, "ws");
	if (capture(&s)) {
		AUTO_CONFIG struct config *config = NULL;

		repos_change(&s.repos);
		repos_ask(&s.repos, s.repos.shadow, &s.files, &s.ignored);
		picture_take(s.repos.top, PICTURE_IDENTITY, &s.before);
		config = load_config(&s);
		if (number % 4 == 0 && config != NULL)
			try_other_filter(&s, config);
		restore(&s);
	}
	p->cases++;
	picture_free(&s.captured);
	picture_free(&s.before);
	set_free(&s.files);
	set_free(&s.ignored);
	snap_free(s.snap);
	workspace_close(s.workspace);
	proof_remove(AT_FDCWD, s.repos.top);
	proof_remove(AT_FDCWD, s.repos.shadow);
	repos_free(&s.repos);
	proof_forget(p);
}

int
main(void)
{
	const char *backend = getenv("MOAT_TEST_BACKEND"), *only = getenv("MOAT_TEST_CASE");
	long cases = proof_scaled(1000, 10);
	struct proof p;

	if (system("git --version >/dev/null 2>&1") != 0) {
		printf("SKIP: git is not installed\n");
		return getenv("MOAT_MUST_WORK") != NULL ? 99 : 77;
	}
	proof_open(&p, "uncaptured", NULL, backend == NULL ? "archive" : backend);
	setenv("GIT_CONFIG_NOSYSTEM", "1", 1);
	unsetenv("GIT_DIR");
	unsetenv("XDG_CONFIG_HOME");
	unsetenv("GIT_CONFIG_GLOBAL");
	if (only != NULL)
		tell_story(&p, strtoul(only, NULL, 10));
	for (long i = 0; i < cases && only == NULL; i++)
		tell_story(&p, (unsigned long) i);
	fprintf(p.report,
		"uncaptured: %lu objects untouched, %lu conflicts, "
		"another filter would have deleted some in %lu of its cases\n",
		untouched, conflicts, other_filter_loses);
	if (only == NULL && other_filter_loses == 0)
		proof_fail(&p, "control: the rules of now lose nothing either");
	if (only == NULL && conflicts * 3 > p.cases)
		proof_fail(&p, "too many conflicts to prove anything");
	return proof_close(&p);
}
