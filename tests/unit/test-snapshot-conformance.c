/* SPDX-License-Identifier: Apache-2.0 */
/* The same tests over every snapshot backend that was built: what is asked of each is in
 * conformance-*.c, and knows a backend by its table only.
 *
 * A backend is tried below its directory of the table, and left out, which is said, when its own
 * probe refuses that; not when the directory was given to it. */
#include <fcntl.h>
#include <unistd.h>

#include "conformance.h"

static const struct {
	const char *name;
	const char *variable; /* of the environment: where it is to be tested; or NULL */
	bool lax;             /* see struct subject */
} backends[] = {
	{"archive", NULL, false},
	{"reflink", "MOAT_TEST_REFLINK_DIR", false},
};

static const char *
directory_for(size_t n, bool *ret_given)
{
	const char *given = backends[n].variable == NULL ? NULL : getenv(backends[n].variable);
	const char *tmp = getenv("TMPDIR");

	*ret_given = given != NULL && given[0] != '\0';
	return *ret_given ? given : tmp != NULL ? tmp : "/tmp";
}

/* Whether the backend itself says that it works there. */
static bool
works_in(const struct plugin *plugin, const char *directory, char reason[512])
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct moat_target target = {sizeof target, directory, fd, NULL, fd};
	struct moat_bid bid;

	plugin_bid(plugin, NULL, &target, &bid);
	(void) close(fd);
	(void) snprintf(reason, 512, "%s", bid.reason);
	return bid.score > 0;
}

/* Failed tests. */
static int
run_all(void)
{
	char content[64], store[64], failure[64];
	const char *name = subject.plugin->name;

	(void) snprintf(content, sizeof content, "%s: content", name);
	(void) snprintf(store, sizeof store, "%s: store", name);
	(void) snprintf(failure, sizeof failure, "%s: failures", name);
	return _cmocka_run_group_tests(content, content_tests, content_test_count, NULL, NULL) +
	       _cmocka_run_group_tests(store, store_tests, store_test_count, NULL, NULL) +
	       _cmocka_run_group_tests(failure, failure_tests, failure_test_count, NULL, NULL);
}

int
main(int argc, char **argv)
{
	static const char *const plugin_dirs[] = {PLUGINS_BUILT "/snapshot-archive/.libs",
						  PLUGINS_BUILT "/snapshot-reflink/.libs", NULL};
	struct moat_error err = MOAT_ERROR_INIT;
	struct loader *loader = NULL;
	int failed = 0, tested = 0;

	random_start();
	if (loader_open(plugin_dirs, &loader, &err) < 0) {
		printf("%s\n", err.message);
		return 1;
	}
	for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
		bool given;
		char reason[512];

		subject.plugin = loader_find(loader, MOAT_KIND_SNAPSHOT, backends[i].name);
		subject.directory = directory_for(i, &given);
		subject.lax = backends[i].lax;
		if (argc > 1 && strcmp(argv[1], backends[i].name) != 0)
			continue;
		if (subject.plugin == NULL) {
			printf("# snapshot-%s was not built\n", backends[i].name);
		} else if (!given && !works_in(subject.plugin, subject.directory, reason)) {
			printf("# snapshot-%s is not tested in %s: %s\n", backends[i].name,
			       subject.directory, reason);
		} else {
			failed += run_all();
			tested++;
		}
	}
	loader_close(loader);
	if (failed > 0)
		return 1;
	return tested > 0 ? 0 : 77;
}
