/* SPDX-License-Identifier: Apache-2.0 */
/* Which stored contents are needed: a set of locators.  Snapshots of a tree share nearly all of
 * theirs, so that the set is as large as one of them, however many there are. */
#ifndef MOAT_CORE_LOCATOR_SET_H
#define MOAT_CORE_LOCATOR_SET_H

#include <stdbool.h>

#include "common/error.h"

struct located {
	uint64_t locator[3];
	uint64_t size; /* of the content */
};

/* Zeroed: empty. */
struct locator_set {
	struct located *slots; /* size UINT64_MAX: free */
	size_t count, allocated;
	uint64_t bytes; /* of all contents in it, each once */
};

void locator_set_free(struct locator_set *set);
#define AUTO_LOCATOR_SET CLEANUP(locator_set_free)
int locator_set_add(struct locator_set *set, const uint64_t locator[3], uint64_t size,
		    struct moat_error *err);

#endif
