#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The racing attacker, three times: as it is; where openat2(2) does not exist; and with the home on another filesystem, so
# that restores are staged where the attacker reaches the stage.
set -u
: "${NO_OPENAT2:?set NO_OPENAT2 to tests/tools/no-openat2}"
failed=0
./test-attacker || failed=1
"$NO_OPENAT2" ./test-attacker || failed=1
work=${TMPDIR:-/tmp}
if [ -w /dev/shm ] && [ "$(stat -c %d /dev/shm)" != "$(stat -c %d "$work")" ]; then
	./test-attacker /dev/shm "$work" || failed=1
else
	echo "only one filesystem here: no stage inside the workspace"
	[ "${MOAT_MUST_WORK:-0}" != 1 ] || failed=1
fi
exit $failed
