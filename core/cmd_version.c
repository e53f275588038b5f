/* SPDX-License-Identifier: Apache-2.0 */
/* moat version, moat --version */
#include "core/cmd.h"
#include "core/json.h"
#include "core/terminal.h"

int
cmd_version(struct app *app, const struct args *args, struct moat_error *err)
{
	AUTO_JSON json_t *json = NULL;

	if (!app->json) {
		out("moat %s\n", MOAT_VERSION);
		return 0;
	}
	json = json_object();
	(void) json_put_text(json, "version", MOAT_VERSION);
	(void) json_put_int(json, "api_version", MOAT_API_VERSION);
	return json_print(json, false, err);
}
