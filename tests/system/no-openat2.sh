#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The main stories once more where openat2(2) does not exist: old kernels, and seccomp filters that do not know it.
set -u
: "${NO_OPENAT2:?set NO_OPENAT2 to tests/tools/no-openat2}"
here=${srcdir:-$(dirname "$0")}
failed=0
skipped=0
for story in rollback.sh story.sh; do
	echo "== $story"
	"$NO_OPENAT2" sh "$here/$story"
	case $? in
	0) ;;
	77) skipped=77 ;;
	*) failed=1 ;;
	esac
done
[ $failed -eq 0 ] || exit 1
exit $skipped
