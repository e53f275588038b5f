/* SPDX-License-Identifier: Apache-2.0 */
/* A git configuration, looked through for one key. */
#include "common/cleanup.h"
#include "core/gitconfig.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	AUTO_FREE char *text = malloc(size + 1);
	const char *path = NULL;
	enum gitconfig_saying saying;

	FUZZ_CHECK(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	saying = gitconfig_say(text, size, &path);
	FUZZ_CHECK(saying <= GITCONFIG_MORE);
	FUZZ_CHECK(saying != GITCONFIG_PATH ||
		   (path >= text && path < text + size && path[0] != '\0' &&
		    strpbrk(path, "\n\"\\#;") == NULL));
	return 0;
}
