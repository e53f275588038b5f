#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# SIGKILL before each system call of each command, then `moat recover`: wholly old or wholly new.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
SAMPLE=${SAMPLED:+300}
export SAMPLE
must_trace
"$SWEEP" kill || exit 1

# The control.  It imitates a moat that does not fsync its journal, and the power loss that takes the
# journal's files and leaves the renames that came after them.
SAMPLE=60
FAULT_ONLY='restore without safety'
export FAULT_ONLY
"$SWEEP" kill --broken-journal >control.log 2>&1
status=$?
tail -n 1 control.log
rm -f control.log
exit $status
