#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# runtime-bwrap through its table, on the real bubblewrap.
exec ./test-bwrap
