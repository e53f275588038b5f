#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The library that makes allocations fail: that it counts them, fails the right one, and sees a leak.
set -u
: "${FAILMALLOC:?set FAILMALLOC to the library}" "${ALLOCATES:?set ALLOCATES to the program}"
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
failed=0
checks=0

# is WHAT EXPECTED FOUND
is() {
	checks=$((checks + 1))
	[ "$2" = "$3" ] && return
	echo "FAILED: $1: expected $2, found $3"
	failed=$((failed + 1))
}

preloaded() { # FAIL_AT MODE
	LD_PRELOAD=$FAILMALLOC MOAT_FAIL_ALLOC=$1 MOAT_COUNT_ALLOC=$scratch/count MOAT_LEAKS=$scratch/leaks "$ALLOCATES" "$2"
}

# It prints a letter for each of its allocations, in capitals when it got none.
is 'undisturbed' abcdefgh "$(preloaded 0 all)"
is 'all are counted' 8 "$(cat "$scratch/count")"
is 'nothing is left' 0 "$(wc -l <"$scratch/leaks")"
n=1
for wanted in Abcdefgh aBcdefgh abCdefgh abcDefgh abcdEfgh abcdeFgh abcdefGh abcdefgH; do
	is "allocation $n" $wanted "$(preloaded $n all)"
	is "is no leak, $n" 0 "$(wc -l <"$scratch/leaks")"
	n=$((n + 1))
done
is 'and all later' abcdEFGH "$(preloaded 5+ all)"
is 'a leak' a "$(preloaded 0 leak)"
is 'is seen' 1 "$(grep -c '^allocates+0x[0-9a-f]* 77$' "$scratch/leaks")"
echo "$checks checks"
[ $failed -eq 0 ]
