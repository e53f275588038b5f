#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each system call of each command fails, with each of seven errors: wholly old or wholly new, and never `done' for what
# is not.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
SAMPLE=${SAMPLED:+300}
export SAMPLE
must_trace
exec "$SWEEP" error
