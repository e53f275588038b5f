/* SPDX-License-Identifier: Apache-2.0 */
/* libgit2, which is loaded when it is needed first.  Few commands need it, and with the libraries
 * that it brings along it takes longer to load than all else: the core is not linked with it, but
 * says so in its file, for who makes packages (https://systemd.io/ELF_DLOPEN_METADATA/). */
#ifndef MOAT_CORE_LIBGIT2_H
#define MOAT_CORE_LIBGIT2_H

#include <git2.h>

#include "common/error.h"

#define LIBGIT2_FUNCTIONS(X)                                                                       \
	X(git_buf_dispose)                                                                         \
	X(git_config_free)                                                                         \
	X(git_config_get_path)                                                                     \
	X(git_error_last)                                                                          \
	X(git_libgit2_init)                                                                        \
	X(git_libgit2_opts)                                                                        \
	X(git_repository_config_snapshot)                                                          \
	X(git_repository_free)                                                                     \
	X(git_repository_open_ext)

struct libgit2 {
#define LIBGIT2_MEMBER(function) __typeof__(function) *function;
	LIBGIT2_FUNCTIONS(LIBGIT2_MEMBER)
#undef LIBGIT2_MEMBER
};

/* Initialised, and set up so that whose a repository is does not matter: it is only read.  NULL
 * with MOAT_UNSUPPORTED when it is not installed.  [any thread] */
const struct libgit2 *libgit2_load(struct moat_error *err);

#endif
