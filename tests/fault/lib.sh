# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the tests of this directory share.  Sourced; needs $SWEEP, $INJECT, $MOAT_BUILD.

: "${SWEEP:?set SWEEP to the program}" "${INJECT:?set INJECT to the program}" "${MOAT_BUILD:?}"
unset MOAT_RUN_ID MOAT_RUN_NAME MOAT_WORKSPACE MOAT_HOME MOAT_PLUGIN_PATH XDG_CONFIG_HOME XDG_STATE_HOME

# Skips where nothing can be traced; where CI must run it that is a failure.
must_trace() {
	"$INJECT" /bin/true && return
	echo "this process may not trace another (ptrace, seccomp)"
	[ "${MOAT_MUST_WORK:-0}" != 1 ] || exit 1
	exit 77
}
