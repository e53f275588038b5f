/* SPDX-License-Identifier: Apache-2.0 */
/* Ignore rules: the first line of the input is a path, the rest a .gitignore. */
#include "common/cleanup.h"
#include "common/ignore.h"
#include "tests/fuzz/fuzz.h"

/* git's matching is exponential in the number of stars, for git as for us: long inputs would only
 * be found slow. */
#define INPUT_MAX 400
#define STARS_MAX 12

static bool
is_slow(const uint8_t *data, size_t size)
{
	size_t stars = 0;

	for (size_t i = 0; i < size; i++)
		stars += data[i] == '*';
	return size > INPUT_MAX || stars > STARS_MAX;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *newline = memchr(data, '\n', size);
	size_t length = newline == NULL ? size : (size_t) (newline - data);
	AUTO_FREE char *path = NULL, *text = NULL;
	struct ignore_list *list;
	const char *name;

	if (size == 0 || is_slow(data, size))
		return 0;
	path = strndup((const char *) data, length);
	text = (char *) fuzz_copy(data + length, size - length);
	list = ignore_parse(text, size - length);
	FUZZ_CHECK(path != NULL && list != NULL);
	name = strrchr(path, '/');
	name = name == NULL ? path : name + 1;
	for (int directory = 0; directory < 2; directory++) {
		enum ignore_match match = ignore_check(list, path, name, directory != 0);

		FUZZ_CHECK(match <= IGNORE_INCLUDED);
		FUZZ_CHECK(match == IGNORE_NONE || !ignore_is_empty(list));
	}
	ignore_free(list);
	free(text);
	text = strndup((const char *) data + length, size - length);
	FUZZ_CHECK(text != NULL);
	(void) ignore_wildmatch(text, path);
	/* A text without special characters matches itself. */
	FUZZ_CHECK(path[strcspn(path, "*?[\\")] != '\0' || ignore_wildmatch(path, path));
	return 0;
}
