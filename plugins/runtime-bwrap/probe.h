/* SPDX-License-Identifier: Apache-2.0 */
/* Whether sandboxes can be made here, with which programs, and if not, why. */
#ifndef MOAT_RUNTIME_BWRAP_PROBE_H
#define MOAT_RUNTIME_BWRAP_PROBE_H

#include "common/error.h"

/* Finds bubblewrap: the configuration's `bwrap`, else /usr/local/bin, /usr/bin, /bin and the
 * absolute entries of PATH.  One that lies inside one of the workspaces (NULL-terminated real
 * paths), or that anyone but root and the caller could have put there or written to, is not taken.
 * *ret is freed by the caller. */
int find_bwrap(const struct moat_host *host, const struct moat_config *config,
	       const char *const *workspaces, char **ret, struct moat_error *err);

/* Finds runtime-bwrap-init, which is installed beside the plugin. */
int find_init(char **ret, struct moat_error *err);

/* Says why a sandbox could not be made: the switch of this system that is off, else bwrap's own
 * words.  Returns -1 with *err. */
int explain_failure(const char *bwrap, const char *words, struct moat_error *err);

/* moat_runtime_ops.probe */
int probe(const struct moat_host *host, const struct moat_target *target, struct moat_bid *bid,
	  struct moat_error *err);

#endif
