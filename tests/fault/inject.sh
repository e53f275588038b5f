#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The driver itself: that it counts every call of every process and thread, and does what it says.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
must_trace
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
failed=0
checks=0

# is WHAT EXPECTED FOUND
is() {
	checks=$((checks + 1))
	[ "$2" = "$3" ] && return
	echo "FAILED: $1: expected $2, found $3"
	failed=$((failed + 1))
}

inject() {
	"$INJECT" "$@" >out 2>err
	echo $?
}

is 'the status is passed on' 3 "$(inject /bin/sh -c 'exit 3')"
is 'so is a signal' 143 "$(inject /bin/sh -c 'kill -TERM $$')"
is 'what is not there' 127 "$(inject /nowhere/nothing)"
is 'a wrong option' 2 "$(inject --nothing /bin/true)"
is 'what hangs' 124 "$(inject --timeout=1 /bin/sleep 60)"
is 'nothing is printed' '0 0' "$(inject /bin/true >/dev/null; echo "$(wc -c <out) $(wc -c <err)")"

# Two writes of two processes, in one count.
is 'it counts' 0 "$(inject --only=write --count=count /bin/sh -c 'echo one; /bin/echo two')"
is 'all processes' '1 write 2 write' "$(tr '\n' ' ' <count | sed 's/ $//')"
is 'what came before the kill' 137 "$(inject --only=write --kill=2 /bin/sh -c 'echo one; /bin/echo two')"
is 'was done, what came after was not' one "$(cat out)"
is 'an error' 1 "$(inject --only=write --error=ENOSPC --at=1 /bin/echo text)"
is 'is not carried out' 0 "$(wc -c <out)"
is 'and told' 1 "$(grep -c 'No space left' err)"
is 'only once' two "$(inject --only=write --error=EIO --at=1 /bin/sh -c 'echo one; echo two' >/dev/null; cat out)"
is 'a call that does not come' 0 "$(inject --only=write --error=EIO --at=9 /bin/echo text)"
is 'after a path' 0 "$(inject --after=/nowhere/else --only=write,access,newfstatat,faccessat2,stat --count=count /bin/sh -c \
	'echo one; test -e /nowhere/else; echo two')"
is 'what came before it does not count' 1 "$(grep -c write count)"

# Everything that the command has started ends with it.
mkfifo fifo
is 'a kill' 137 "$(inject --only=write --kill=1 /bin/sh -c '/bin/sleep 321 >fifo & exec 3<fifo; echo one; wait')"
is 'leaves no process' '' "$(find /proc -maxdepth 2 -name cwd -lname "$scratch" 2>/dev/null |
	while read -r cwd; do tr '\0' ' ' <"${cwd%cwd}cmdline" 2>/dev/null; done | grep '/bin/[s]leep 321')"

# Threads: the one that writes is not the first.
is 'threads are traced' 7 "$(inject --only=write --error=EIO --at=1 "$ALLOCATES" threads)"
is 'and told apart by nothing' 137 "$(inject --only=write --kill=2 "$ALLOCATES" threads)"
is 'what they did before' 1 "$(wc -l <out)"
echo "$checks checks"
[ $failed -eq 0 ]
