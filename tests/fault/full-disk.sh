#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A real filesystem that is full, at each step of 4 KiB and at each file, while a command runs.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
SAMPLE=${SAMPLED:+100}
export SAMPLE
exec "$SWEEP" disk
