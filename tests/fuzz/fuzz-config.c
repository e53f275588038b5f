/* SPDX-License-Identifier: Apache-2.0 */
/* moat.yaml. */
#include "core/config.h"
#include "tests/fuzz/fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct moat_error err = MOAT_ERROR_INIT;
	struct config *config = NULL;
	uint8_t *copy = fuzz_copy(data, size);
	int result = config_parse((const char *) copy, size, "moat.yaml", &config, &err);

	free(copy);
	fuzz_check_result(result, &err);
	/* Every complaint says where. */
	FUZZ_CHECK(result == 0 || strncmp(err.message, "moat.yaml", 9) == 0);
	if (result < 0)
		return 0;
	FUZZ_CHECK(config->snapshots.max_count >= 0 && config->tracing.poll_interval_ms >= 0 &&
		   config->attach.double_press_ms >= 0);
	(void) config_plugin(config, "snapshot", "archive");
	config_free(config);
	return 0;
}
