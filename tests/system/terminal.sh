#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# On a terminal the command has a terminal: its size, raw input, signals by keys; and the caller's is in order afterwards.
# script(1) gives the terminal.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
mkdir "$scratch/ws" && cd "$scratch/ws" || exit 1
must_have_backends
must_have script --version

# wait_for TEXT FILE: until the file has it; for 20 seconds at most.
wait_for() {
	timeout 20 sh -c 'tail -n +1 -F "$2" 2>/dev/null | grep -q -m 1 -e "$1"' - "$1" "$2"
}

# on_terminal INPUT ARGUMENT...: runs moat on a new terminal, on which INPUT is typed once `ready' is to be read.
on_terminal() {
	input=$1
	shift
	quoted=
	for word; do
		quoted="$quoted '$(printf %s "$word" | sed "s/'/'\\\\''/g")'"
	done
	: >"$scratch/out"
	{
		[ -z "$input" ] || { wait_for ready "$scratch/out" && printf "$input"; }
		wait_for moat-has-ended "$scratch/out"
	} | timeout 30 script -qefc "stty rows 33 cols 77; stty -a >'$scratch/before'; '$MOAT' $quoted; status=\$?
		stty -a >'$scratch/after'; echo moat-has-ended; exit \$status" /dev/null >"$scratch/out" 2>"$scratch/err"
	status=$?
}

on_terminal '' run --no-snapshot -- sh -c 'test -t 1 && test -t 2 && echo is-a-terminal; stty size <&1; read -r x || echo no-input; exit 5'
cp "$scratch/out" "$scratch/tty"
check "stdout and stderr are a terminal" printed 'is-a-terminal'
check "of the caller's size" printed '^33 77'
check "input is not carried without -i" printed 'no-input'
check "the command's status" test "$status" -eq 5
check "the caller's terminal is as it was" cmp -s "$scratch/before" "$scratch/after"

on_terminal 'hello\nexit 6\n' run --no-snapshot -it -- sh -c 'test -t 0 && echo input-is-a-terminal; echo ready; read -r line; echo "got <$line>"; read -r line; $line'
check "with -i input is a terminal" printed 'input-is-a-terminal'
check "and what is typed arrives" printed 'got <hello>'
check "status again" test "$status" -eq 6
check "the caller's terminal is in order again" cmp -s "$scratch/before" "$scratch/after"

on_terminal '\003' run --no-snapshot -it -- sh -c 'trap "echo interrupted; exit 9" INT; echo ready; read -r line'
check "Ctrl-C is the command's" printed 'interrupted'
check "and it decides" test "$status" -eq 9

# A job of the caller's is stopped by a signal, not by a key.
"$MOAT" run --no-snapshot -- sh -c 'trap "echo term; exit 3" TERM; echo ready; while :; do sleep 0.1; done' >"$scratch/out" 2>"$scratch/err" </dev/null &
pid=$!
wait_for ready "$scratch/out"
kill -TERM "$pid"
wait "$pid"
status=$?
check "SIGTERM is passed on" test "$status" -eq 3
check "the command sees it" printed '^term$'
moat list -a --json
check "and the run has ended" jq -e '.[0].state == "exited" and .[0].exit_code == 3' "$scratch/out" >/dev/null

# A signal while the snapshot is taken: nothing is started, nothing is left.
head -c 400000000 /dev/zero | tr '\0' 'x' >large
for i in 1 2 3 4 5 6 7; do cp large "large$i"; done
"$MOAT" run -- touch started >"$scratch/out" 2>"$scratch/err" </dev/null &
pid=$!
timeout 20 sh -c 'until find "$0"/workspaces/*/store/archive -type f 2>/dev/null | grep -q .; do :; done' "$MOAT_HOME"
kill -TERM "$pid"
wait "$pid"
status=$?
check "a signal while the snapshot is taken: 143" test "$status" -eq 143
check "nothing was started" test ! -e started
check "no snapshot is left" test -z "$(find "$MOAT_HOME" -name '*.tar.lz4*' -o -name '.new-*' -o -name 'snap_*')"
moat list -a --json
check "no run is left but those that ran" jq -e '[.[] | select(.state != "exited")] == []' "$scratch/out" >/dev/null
rm large*

# Killed for good: the sandbox ends with moat, and the run is lost, not successful.
"$MOAT" run --no-snapshot -- sh -c 'echo ready; exec sleep 1000' >"$scratch/out2" 2>/dev/null </dev/null &
pid=$!
wait_for ready "$scratch/out2"
kill -KILL "$pid"
wait "$pid" 2>/dev/null
moat list -a --json
check "a run whose moat was killed is lost" jq -e '.[0].state == "lost" and .[0].exit_code == null' "$scratch/out" >/dev/null
check "its processes are gone" sh -c 'for i in 1 2 3 4 5 6 7 8 9 10; do
	found=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" " " | grep -c "sleep 100[0]"); [ "$found" -eq 0 ] && exit 0; sleep 0.2; done; exit 1'

# A pipe that is closed does not hurt the command.
"$MOAT" run --no-snapshot -- sh -c 'yes | head -n 100000; echo finished >done-file; exit 0' | head -n 1 >"$scratch/out"
check "output into a closed pipe" test "$(cat "$scratch/out")" = y
check "the command has run to its end" test -f done-file

timeout 60 "$MOAT" run --no-snapshot -- yes </dev/null | head -n 1 >"$scratch/out"
check "a writer without end is told that nobody reads" test "$(cat "$scratch/out")" = y
moat list --json
check "and its run ends" test "$(cat "$scratch/out")" = '[]'
# The reader starts long after the command has ended: what it wrote just fits into the pipes on the way.
size=$("$MOAT" run --no-snapshot -- seq 1 30000 </dev/null | { sleep 6; wc -c; })
check "a slow reader gets everything" test "$size" -eq "$(seq 1 30000 | wc -c)"
"$MOAT" run --no-snapshot -- seq 1 100000 </dev/null >/dev/full 2>"$scratch/err"
check "output that cannot be written: 125" test $? -eq 125
check "and it is said" said 'No space left'
timeout 60 "$MOAT" run --no-snapshot -- sh -c 'trap "" TERM; echo ready; yes' </dev/null >"$scratch/out3" 2>/dev/null &
pid=$!
wait_for ready "$scratch/out3"
kill -TERM "$pid"
wait "$pid"
check "a command that ignores SIGTERM and writes on is killed" test $? -eq 137
rm -f "$scratch/out3"
moat run --no-snapshot --name long -- sh -c 'head -c 9000000 /dev/zero | tr "\0" x; echo; echo end'
"$MOAT" logs long >"$scratch/log"
check "a long line is whole in the log" cmp -s "$scratch/out" "$scratch/log"
env -u HOME "$MOAT" --home "$MOAT_HOME" run --no-snapshot -- true 2>"$scratch/err"
check "without HOME the system's is used" test $? -eq 0
check "newlines on a terminal are not doubled" sh -c '! grep -q "$(printf "\r\r")" "$1"' - "$scratch/tty"

# Names and output with control bytes.
bad=$(printf 'a\033[2Jb')
mkdir "$bad" && echo x >"$bad/f"
expect 0 "a snapshot" snapshot create
snap=$(cat "$scratch/out")
rm -r "$bad"
on_terminal '' snapshot diff "$snap"
check "a name is escaped on a terminal" printed 'a\\033\[2Jb'
check "no escape sequence of a stranger's" sh -c '! grep -q "$(printf "\033\[2J")" "$1"' - "$scratch/out"
finish
