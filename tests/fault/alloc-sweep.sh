#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Each allocation of moat's own code fails: no crash, no leak, wholly old or wholly new.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
SAMPLE=${SAMPLED:+200}
export SAMPLE
exec "$SWEEP" alloc
