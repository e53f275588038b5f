/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing a plugin, among plugins made by hand; reading descriptors of every size; the host table.
 * tests/sdk loads real modules, test-backend calls them. */
#include <fcntl.h>
#include <stdio.h>

#include "core/loader_checks.h"
#include "tests/unit/test.h"

/* --------------------------------------------------------------------- plugins made by hand */

/* What the next probe answers, by name. */
struct answer {
	int rc, score;
	const char *reason;
};
static struct answer answers[256];

static int
answer_probe(char letter, struct moat_bid *bid, struct moat_error *err)
{
	const struct answer *a = &answers[(unsigned char) letter];

	bid->score = a->score;
	if (a->reason != NULL)
		(void) snprintf(bid->reason, sizeof bid->reason, "%s", a->reason);
	return a->rc;
}

#define PROBE(letter)                                                                              \
	static int probe_##letter(const struct moat_host *host, const struct moat_target *target,  \
				  struct moat_bid *bid, struct moat_error *err)                    \
	{                                                                                          \
		return answer_probe(#letter[0], bid, err);                                         \
	}
PROBE(a)
PROBE(b)
PROBE(c)

static struct plugin
make_plugin(uint32_t kind, const char *name)
{
	struct plugin plugin = {
		.kind = kind,
		.api_version = 1,
		.name = (char *) (uintptr_t) name,
		.version = (char *) (uintptr_t) "1",
		.license = (char *) (uintptr_t) "x",
		.description = (char *) (uintptr_t) "x",
		.path = (char *) (uintptr_t) "/x",
	};

	return plugin;
}

struct choice {
	struct plugin a, b, c, snapshot, tracer;
	struct plugin_problem problem;
	struct loader loader;
	struct moat_error err;
};

/* Runtimes a, b, c; snapshots a and x; a tracer file that was refused. */
static int
setup_choice(void **state)
{
	struct choice *f = calloc(1, sizeof *f);

	*state = f;
	if (f == NULL)
		return -1;
	memset(answers, 0, sizeof answers);
	f->a = make_plugin(MOAT_KIND_RUNTIME, "alpha");
	f->b = make_plugin(MOAT_KIND_RUNTIME, "beta");
	f->c = make_plugin(MOAT_KIND_RUNTIME, "gamma");
	f->snapshot = make_plugin(MOAT_KIND_SNAPSHOT, "alpha");
	f->a.ops.runtime.probe = probe_a;
	f->b.ops.runtime.probe = probe_b;
	f->c.ops.runtime.probe = probe_c;
	f->snapshot.ops.snapshot.probe = probe_a;
	f->b.requires_package = (char *) (uintptr_t) "beta-engine";
	f->a.next = &f->b;
	f->b.next = &f->c;
	f->c.next = &f->snapshot;
	f->problem = (struct plugin_problem){
		(char *) (uintptr_t) "/p/tracer-bad.so", (char *) (uintptr_t) "tracer-bad",
		(char *) (uintptr_t) "member 'start' is missing", NULL};
	f->loader.plugins = &f->a;
	f->loader.problems = &f->problem;
	moat_error_clear(&f->err);
	f->err = (struct moat_error) MOAT_ERROR_INIT;
	return 0;
}

static int
teardown_free(void **state)
{
	free(*state);
	return 0;
}

static int
select_kind(struct choice *f, uint32_t kind, const char *name, const struct plugin **ret,
	    struct moat_bid *bid)
{
	struct backend_request request = {name, name != NULL ? "--backend" : NULL};

	return loader_select(&f->loader, NULL, kind, &request, NULL, ret, bid, &f->err);
}

/* ------------------------------------------------------------------------------------ bidding */

static void
bids_are_made_sound(void **state)
{
	struct choice *f = *state;
	struct moat_bid bid;

	answers['a'] = (struct answer){0, 9999, NULL};
	plugin_bid(&f->a, NULL, NULL, &bid);
	assert_int_equal(bid.score, 100);
	assert_string_equal(bid.reason, "it gives no reason");
	answers['a'] = (struct answer){0, -5, NULL};
	plugin_bid(&f->a, NULL, NULL, &bid);
	assert_int_equal(bid.score, 0);
	assert_string_equal(bid.reason, "it does not say why");
	answers['a'] = (struct answer){-1, 80, NULL};
	plugin_bid(&f->a, NULL, NULL, &bid);
	assert_int_equal(bid.score, 0);
	assert_string_equal(bid.reason, "probe failed without saying why");
	answers['a'] = (struct answer){0, 10, "a\033[2Jb\nc"};
	plugin_bid(&f->a, NULL, NULL, &bid);
	assert_string_equal(bid.reason, "a [2Jb c");
}

static int
probe_unterminated(const struct moat_host *host, const struct moat_target *target,
		   struct moat_bid *bid, struct moat_error *err)
{
	memset(bid, 'x', sizeof *bid);
	return 0;
}

static int
probe_failing(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
	      struct moat_error *err)
{
	memset(err, 'y', sizeof *err);
	return -1;
}

static void
bids_without_end(void **state)
{
	struct choice *f = *state;
	struct moat_bid bid;

	f->a.ops.runtime.probe = probe_unterminated;
	plugin_bid(&f->a, NULL, NULL, &bid);
	assert_int_equal(bid.score, 100);
	assert_int_equal(bid.struct_size, sizeof bid);
	assert_int_equal(strlen(bid.reason), sizeof bid.reason - 1);
	f->a.ops.runtime.probe = probe_failing;
	plugin_bid(&f->a, NULL, NULL, &bid);
	assert_int_equal(bid.score, 0);
	assert_memory_equal(bid.reason, "probe failed: yyy", 17);
}

static void
the_best_bid_wins(void **state)
{
	struct choice *f = *state;
	const struct plugin *plugin = NULL;
	struct moat_bid bid;

	answers['a'] = (struct answer){0, 50, "middling"};
	answers['b'] = (struct answer){0, 70, "good"};
	answers['c'] = (struct answer){0, 70, "as good, later by name"};
	assert_ok(select_kind(f, MOAT_KIND_RUNTIME, NULL, &plugin, &bid), &f->err);
	assert_ptr_equal(plugin, &f->b);
	assert_int_equal(bid.score, 70);
	assert_string_equal(bid.reason, "good");
	answers['c'].score = 71;
	assert_ok(select_kind(f, MOAT_KIND_RUNTIME, NULL, &plugin, NULL), &f->err);
	assert_ptr_equal(plugin, &f->c);
}

static void
nobody_bids(void **state)
{
	struct choice *f = *state;
	const struct plugin *plugin = NULL;

	answers['a'] = (struct answer){0, 0, "no reason at all"};
	answers['b'] = (struct answer){0, 0, "not running"};
	answers['c'] = (struct answer){-1, 0, NULL};
	assert_fails(select_kind(f, MOAT_KIND_RUNTIME, NULL, &plugin, NULL), &f->err,
		     MOAT_UNSUPPORTED,
		     "no runtime can work here: alpha: no reason at all; beta: not running (it "
		     "needs the package beta-engine); gamma: probe failed without saying why");
	assert_null(plugin);
}

static void
nothing_installed(void **state)
{
	struct choice *f = *state;
	const struct plugin *plugin = NULL;

	assert_fails(select_kind(f, MOAT_KIND_SANDBOX, NULL, &plugin, NULL), &f->err,
		     MOAT_NOT_FOUND, "install the package moat-plugin-sandbox-none");
	assert_fails(select_kind(f, MOAT_KIND_TRACER, NULL, &plugin, NULL), &f->err, MOAT_NOT_FOUND,
		     "install the package moat-plugin-tracer-netlink; `/p/tracer-bad.so' was "
		     "refused: member 'start' is missing");
	f->loader.plugins = NULL;
	assert_fails(select_kind(f, MOAT_KIND_RUNTIME, NULL, &plugin, NULL), &f->err,
		     MOAT_NOT_FOUND, "moat-plugin-runtime-bwrap");
	assert_fails(select_kind(f, MOAT_KIND_SNAPSHOT, NULL, &plugin, NULL), &f->err,
		     MOAT_NOT_FOUND, "moat-plugin-snapshot-archive");
	assert_fails(select_kind(f, 99, NULL, &plugin, NULL), &f->err, MOAT_FAILED, "no kind 99");
}

/* What was asked for is what is used, though a better one is there; or an error. */
static void
asked_for_by_name(void **state)
{
	struct choice *f = *state;
	const struct plugin *plugin = NULL;

	answers['a'] = (struct answer){0, 1, "hardly"};
	answers['b'] = (struct answer){0, 0, "not running"};
	answers['c'] = (struct answer){0, 100, "best"};
	assert_ok(select_kind(f, MOAT_KIND_RUNTIME, "alpha", &plugin, NULL), &f->err);
	assert_ptr_equal(plugin, &f->a);
	plugin = NULL;
	assert_fails(select_kind(f, MOAT_KIND_RUNTIME, "beta", &plugin, NULL), &f->err,
		     MOAT_UNSUPPORTED,
		     "plugin runtime-beta, asked for by --backend, cannot work here: not running "
		     "(it needs the package beta-engine)");
	assert_fails(select_kind(f, MOAT_KIND_RUNTIME, "delta", &plugin, NULL), &f->err,
		     MOAT_NOT_FOUND, "install the package moat-plugin-runtime-delta");
	assert_fails(select_kind(f, MOAT_KIND_TRACER, "bad", &plugin, NULL), &f->err, MOAT_FAILED,
		     "`/p/tracer-bad.so': member 'start' is missing; the package "
		     "moat-plugin-tracer-bad has it");
	assert_null(plugin);
}

/* A package is named once: a reason that names it already stays as it is. */
static void
package_is_named_once(void **state)
{
	struct choice *f = *state;
	const struct plugin *plugin = NULL;

	answers['b'] = (struct answer){0, 0, "install beta-engine"};
	assert_fails(select_kind(f, MOAT_KIND_RUNTIME, "beta", &plugin, NULL), &f->err,
		     MOAT_UNSUPPORTED, "cannot work here: install beta-engine");
	assert_int_equal(select_kind(f, MOAT_KIND_RUNTIME, "beta", &plugin, NULL), -1);
	assert_null(strstr(f->err.message, "it needs the package"));
}

/* -------------------------------------------------------------------------------------- requests
 */

static int
request(struct choice *f, const char *const *backends, const struct config *config, uint32_t kind,
	struct backend_request *ret)
{
	return loader_request(&f->loader, backends, config, kind, ret, &f->err);
}

static void
request_precedence(void **state)
{
	struct choice *f = *state;
	struct config config = {0};
	struct backend_request r;
	const char *const none[] = {NULL};
	const char *const given[] = {"runtime:x", "tracer:t", "runtime:gamma", NULL};

	assert_ok(request(f, none, NULL, MOAT_KIND_RUNTIME, &r), &f->err);
	assert_null(r.name);
	config.runtime = (char *) (uintptr_t) "beta";
	config.snapshots.backend = (char *) (uintptr_t) "s";
	config.tracing.backend = (char *) (uintptr_t) "tr";
	config.sandbox = (char *) (uintptr_t) "none";
	assert_ok(request(f, none, &config, MOAT_KIND_RUNTIME, &r), &f->err);
	assert_string_equal(r.name, "beta");
	assert_non_null(strstr(r.origin, "`runtime'"));
	assert_ok(request(f, NULL, &config, MOAT_KIND_SNAPSHOT, &r), &f->err);
	assert_string_equal(r.name, "s");
	assert_ok(request(f, given, &config, MOAT_KIND_TRACER, &r), &f->err);
	assert_string_equal(r.name, "t");
	assert_string_equal(r.origin, "--backend");
	assert_ok(request(f, given, &config, MOAT_KIND_SANDBOX, &r), &f->err);
	assert_string_equal(r.name, "none");
	/* The last of a kind wins, over the configuration too. */
	assert_ok(request(f, given, &config, MOAT_KIND_RUNTIME, &r), &f->err);
	assert_string_equal(r.name, "gamma");
}

static void
request_of_a_bare_name(void **state)
{
	struct choice *f = *state;
	struct backend_request r;
	const char *const beta[] = {"beta", NULL}, *const alpha[] = {"alpha", NULL};
	const char *const betta[] = {"betta", NULL}, *const bad[] = {"bad", NULL};
	const char *const nowhere[] = {"qqqqqqqqqq", NULL};

	assert_ok(request(f, beta, NULL, MOAT_KIND_RUNTIME, &r), &f->err);
	assert_string_equal(r.name, "beta");
	assert_ok(request(f, beta, NULL, MOAT_KIND_SNAPSHOT, &r), &f->err);
	assert_null(r.name);
	assert_fails(request(f, alpha, NULL, MOAT_KIND_RUNTIME, &r), &f->err, MOAT_USAGE,
		     "runtime:alpha, snapshot:alpha");
	assert_fails(request(f, betta, NULL, MOAT_KIND_SNAPSHOT, &r), &f->err, MOAT_USAGE,
		     "did you mean `beta'");
	assert_fails(request(f, bad, NULL, MOAT_KIND_RUNTIME, &r), &f->err, MOAT_USAGE,
		     "plugin `/p/tracer-bad.so' was refused: member 'start' is missing");
	assert_fails(request(f, nowhere, NULL, MOAT_KIND_RUNTIME, &r), &f->err, MOAT_USAGE,
		     "moat-plugin-KIND-qqqqqqqqqq");
}

static void
request_nonsense(void **state)
{
	static const char *const texts[] = {
		"",    ":",    "runtime:",   ":beta",       "runtim:beta",
		"a b", "../x", "runtime:/x", "runtime:a:b", "-x"};
	struct choice *f = *state;

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		const char *const given[] = {texts[i], NULL};
		struct backend_request r;

		/* Whichever kind is asked about. */
		assert_fails(request(f, given, NULL, MOAT_KIND_TRACER, &r), &f->err, MOAT_USAGE,
			     "--backend=");
	}
}

/* ------------------------------------------------------------------------------- the descriptor */

/* As the loader has it: kind and name are set, from the file's name. */
static struct plugin
empty_plugin(uint32_t kind)
{
	return (struct plugin){.kind = kind, .name = (char *) (uintptr_t) "evil"};
}

static void
free_texts(struct plugin *plugin)
{
	free(plugin->version);
	free(plugin->license);
	free(plugin->description);
	free(plugin->requires_package);
}

/* Whatever size a table gives, only members that lie wholly within it are taken. */
static void
every_size_of_a_table(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct moat_snapshot_ops ops;
	struct moat_plugin descriptor =
		MOAT_PLUGIN_INIT(MOAT_KIND_SNAPSHOT, "evil", "1", "x", "x", &ops, "package");
	const size_t needed = offsetof(struct moat_snapshot_ops, remove) + sizeof ops.remove;

	/* Every member is something; none is called. */
	memset(&ops, 0x11, sizeof ops);
	for (size_t size = 0; size <= sizeof ops + 16; size++) {
		struct plugin plugin = empty_plugin(MOAT_KIND_SNAPSHOT);
		int rc;

		ops.struct_size = size;
		rc = descriptor_read(&descriptor, &plugin, &err);
		assert_int_equal(rc, size < needed ? -1 : 0);
		if (rc < 0)
			assert_non_null(strstr(err.message, "ends before '"));
		else
			assert_true((plugin.ops.snapshot.verify != NULL) ==
				    (size >= offsetof(struct moat_snapshot_ops, verify) +
						     sizeof ops.verify));
		moat_error_clear(&err);
		free_texts(&plugin);
	}
}

static void
every_size_of_a_descriptor(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct moat_tracer_ops ops;
	struct moat_plugin descriptor =
		MOAT_PLUGIN_INIT(MOAT_KIND_TRACER, "evil", "1", "x", "x", &ops, "package");
	const size_t needed = offsetof(struct moat_plugin, ops) + sizeof descriptor.ops;

	memset(&ops, 0x11, sizeof ops);
	ops.struct_size = sizeof ops;
	for (size_t size = 0; size <= sizeof descriptor + 16; size++) {
		struct plugin plugin = empty_plugin(MOAT_KIND_TRACER);
		int rc;

		descriptor.struct_size = size;
		rc = descriptor_read(&descriptor, &plugin, &err);
		assert_int_equal(rc, size < needed ? -1 : 0);
		if (rc < 0)
			assert_non_null(strstr(err.message, "ends before '"));
		else
			assert_true((plugin.requires_package != NULL) ==
				    (size >= sizeof descriptor));
		moat_error_clear(&err);
		free_texts(&plugin);
	}
}

/* Each required member of each kind, taken away in turn. */
static void
every_missing_member(void **state)
{
	struct moat_error err = MOAT_ERROR_INIT;

	for (uint32_t kind = MOAT_KIND_RUNTIME; kind <= MOAT_KIND_SANDBOX; kind++) {
		for (const struct plugin_member *m = plugin_members(kind); m->name != NULL; m++) {
			struct plugin plugin = empty_plugin(kind);
			struct plugin whole = {0};
			struct moat_plugin descriptor =
				MOAT_PLUGIN_INIT(kind, "evil", "1", "x", "x", &whole.ops, NULL);
			void (*none)(void) = NULL;
			char words[128];
			int rc;

			memset(&whole.ops, 0x11, sizeof whole.ops);
			memcpy(&whole.ops, &(size_t){sizeof whole.ops}, sizeof(size_t));
			memcpy((char *) &whole.ops + m->offset, &none, sizeof none);
			/* Capabilities are all set or none. */
			if (!m->required && m->required_by == 0)
				memset((char *) &whole.ops +
					       offsetof(struct moat_tracer_ops, capabilities),
				       0, sizeof(uint64_t));
			else
				memset((char *) &whole.ops +
					       offsetof(struct moat_tracer_ops, capabilities),
				       0xff, sizeof(uint64_t));
			rc = descriptor_read(&descriptor, &plugin, &err);
			(void) snprintf(words, sizeof words, "member '%s' is missing", m->name);
			if (m->required || m->required_by != 0)
				assert_fails(rc, &err, MOAT_FAILED, words);
			else
				assert_ok(rc, &err);
			free_texts(&plugin);
		}
	}
}

/* ----------------------------------------------------------------------------------------- host */

static int progressed;

static void
count_progress(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	progressed += (int) (a + b + c + d);
}

static int
yes(void)
{
	return 5;
}

static void
the_host_table(void **state)
{
	static const uint8_t abc[MOAT_HASH_SIZE] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
						    0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
						    0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
						    0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
	const struct moat_host *host = host_table();
	struct moat_error err = MOAT_ERROR_INIT;
	uint8_t digest[MOAT_HASH_SIZE];
	struct moat_hash *hash;
	const char *text = "default";
	char *memory;

	/* No member is missing. */
	assert_int_equal(host->struct_size, sizeof *host);
	for (size_t at = offsetof(struct moat_host, version); at < sizeof *host;
	     at += sizeof(void *)) {
		void *member;

		memcpy(&member, (const char *) host + at, sizeof member);
		assert_non_null(member);
	}
	hash = host->hash_new();
	assert_non_null(hash);
	host->hash_update(hash, "ab", 2);
	host->hash_update(hash, NULL, 0);
	host->hash_update(hash, "c", 1);
	host->hash_end(hash, digest);
	assert_memory_equal(digest, abc, sizeof abc);
	host->hash_end(host->hash_new(), NULL);
	host->hash_end(NULL, digest);
	memory = host->alloc(100);
	assert_non_null(memory);
	for (int i = 0; i < 100; i++)
		assert_int_equal(memory[i], 0);
	host->dealloc(memory);
	host->dealloc(NULL);
	host->progress(1, 1, 1, 1);
	assert_int_equal(host->cancelled(), 0);
	host_set_progress(count_progress);
	host_set_cancelled(yes);
	host->progress(1, 2, 3, 4);
	assert_int_equal(progressed, 10);
	assert_int_equal(host->cancelled(), 1);
	host_set_progress(NULL);
	host_set_cancelled(NULL);
	assert_int_equal(host->config_string(NULL, "key", &text, &err), 0);
	assert_string_equal(text, "default");
	assert_fails(host->open_beneath(AT_FDCWD, NULL, O_RDONLY, 0, &err), &err, MOAT_FAILED,
		     "no path");
}

#define CHOICE(function) cmocka_unit_test_setup_teardown(function, setup_choice, teardown_free)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CHOICE(bids_are_made_sound),
		CHOICE(bids_without_end),
		CHOICE(the_best_bid_wins),
		CHOICE(nobody_bids),
		CHOICE(nothing_installed),
		CHOICE(asked_for_by_name),
		CHOICE(package_is_named_once),
		CHOICE(request_precedence),
		CHOICE(request_of_a_bare_name),
		CHOICE(request_nonsense),
		cmocka_unit_test(every_size_of_a_table),
		cmocka_unit_test(every_size_of_a_descriptor),
		cmocka_unit_test(every_missing_member),
		cmocka_unit_test(the_host_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL) == 0 ? 0 : 1;
}
