/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a transaction.  Bit 0 of the first byte makes its digests right. */
#include "tests/fuzz/fuzz-plan.h"
#include "core/txn_internal.h"

static void
use(const struct plan *plan)
{
	AUTO_BUF struct buf once = {0};
	struct moat_error err = MOAT_ERROR_INIT;
	struct plan again;

	for (size_t i = 0; i < plan->count; i++) {
		const struct op *op = &plan->ops[i];
		const char *path = plan_path(plan, op);

		/* Nothing that leads out of the workspace. */
		FUZZ_CHECK(path[0] != '/' && strcmp(path, "..") != 0 &&
			   strncmp(path, "../", 3) != 0 && strstr(path, "/../") == NULL);
		FUZZ_CHECK(plan_from(plan, op) != NULL || plan_to(plan, op) != NULL);
	}
	FUZZ_CHECK(plan_encode(plan, &once, &err) == 0);
	FUZZ_CHECK(plan_decode(once.data, once.size, &again, &err) == 0);
	FUZZ_CHECK(again.count == plan->count);
	plan_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct plan plan = {0};
	uint8_t *copy;
	int result;

	if (size == 0)
		return 0;
	copy = fuzz_copy(data + 1, size - 1);
	if ((data[0] & 1) != 0)
		fuzz_fix_plan(copy, size - 1);
	result = plan_decode(copy, size - 1, &plan, &err);
	fuzz_check_result(result, &err);
	if (result == 0)
		use(&plan);
	plan_free(&plan);
	free(copy);
	return 0;
}
