/* SPDX-License-Identifier: Apache-2.0 */
#include "core/libgit2.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __APPLE__
#define SONAME "libgit2." LIBGIT2_SOVERSION ".dylib"
#else
#define SONAME "libgit2.so." LIBGIT2_SOVERSION
#endif

#ifdef __ELF__
#define NOTE                                                                                       \
	"[{\"soname\":[\"" SONAME "\"],\"feature\":\"git\",\"priority\":\"recommended\","          \
	"\"description\":\"git configuration that names files of ignore rules\"}]"
static const struct {
	uint32_t name_size, size, type;
	char name[4];
	_Alignas(4) char text[sizeof NOTE];
} note __attribute__((used, aligned(4), section(".note.dlopen"))) = {4, sizeof NOTE, 0x407c0c0a,
								     "FDO", NOTE};
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct libgit2 library;
static char failure[512]; /* "": it is loaded */

/* False, and the reason, when it is not there. */
static bool
find(void *module, const char *name, void *ret)
{
	void *symbol = dlsym(module, name);

	if (symbol == NULL)
		(void) snprintf(failure, sizeof failure, "%s has no %s()", SONAME, name);
	memcpy(ret, &symbol, sizeof symbol);
	return symbol != NULL;
}

static void
load(void)
{
	/* What is read here means the same under these extensions. */
	static const char *extensions[] = {"partialclone", "preciousobjects", "relativeworktrees",
					   "worktreeconfig"};
	void *module = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL);
	const char *why = module == NULL ? dlerror() : NULL;

	if (module == NULL) {
		(void) snprintf(failure, sizeof failure, "%s", why == NULL ? SONAME : why);
		return;
	}
#define FIND(function)                                                                             \
	if (!find(module, #function, &library.function))                                           \
		return;
	LIBGIT2_FUNCTIONS(FIND)
#undef FIND
	if (library.git_libgit2_init() < 0) {
		(void) snprintf(failure, sizeof failure, "it cannot be initialised");
		return;
	}
	(void) library.git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0);
	(void) library.git_libgit2_opts(GIT_OPT_SET_EXTENSIONS, extensions,
					sizeof extensions / sizeof extensions[0]);
}

const struct libgit2 *
libgit2_load(struct moat_error *err)
{
	(void) pthread_once(&once, load);
	if (failure[0] == '\0')
		return &library;
	(void) moat_fail(err, MOAT_UNSUPPORTED,
			 "libgit2 is needed and cannot be loaded (%s): install the package libgit2 "
			 "%s",
			 failure, LIBGIT2_SOVERSION);
	return NULL;
}
