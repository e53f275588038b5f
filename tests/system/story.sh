#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The main job from end to end: run, trace, diff, rollback; as whoever runs it, on the real parts.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
mkdir "$scratch/ws" && cd "$scratch/ws" || exit 1
must_have_backends

git init -q . && printf 'all:\n\tcp in out\n' >Makefile && echo hello >in && echo '*.o' >.gitignore
git -c user.name=t -c user.email=t@example.org add . && git -c user.name=t -c user.email=t@example.org commit -qm one
mkdir lib && echo code >lib/a.c && echo object >lib/a.o
echo secret >"$HOME/.netrc" && mkdir "$HOME/.ssh" && echo key >"$HOME/.ssh/id" && echo open >"$HOME/notes"
touch -d '2001-02-03 04:05:06.789' in lib/a.c lib
picture . >"$scratch/before"

# --- the run
expect 7 "the command's own status" run --name first -- \
	sh -c 'make && echo done > out.txt && rm lib/a.c && echo more >> in && mkdir new && date > new/file; exit 7'
check "its output comes through" printed '^cp in out$'
check "it worked on the workspace" [ -f out.txt ]
check "a file was added" [ -f out ]
moat list -a --json
check "list: name, state, status" test "$(jq -r '.[0] | "\(.name) \(.state) \(.exit_code) \(.signal)"' "$scratch/out")" = 'first exited 7 null'
check "list: runtime, sandbox, workspace" test "$(jq -r '.[0] | "\(.runtime) \(.sandbox) \(.workspaces[0])"' "$scratch/out")" = "bwrap none $PWD"
check "list: every field of the contract" jq -e '.[0] | has("id") and has("command") and has("created_at") and
	has("started_at") and has("finished_at") and has("interactive") and has("snapshots") and
	has("pending_changes") and (.snapshots | length == 1)' "$scratch/out" >/dev/null
run=$(jq -r '.[0].id' "$scratch/out")
expect 0 "status by name" status first
check "status shows the id" printed "$run"
expect 0 "a living list is empty" list --json
check "no run goes on" test "$(cat "$scratch/out")" = '[]'

# --- what it did
expect 0 "trace" trace --json "$run"
check "the first exec: argv, cwd, complete" jq -e --arg cwd "$PWD" '[.[] | select(.kind == "exec")][0] |
	.argv[0] == "sh" and .cwd == $cwd and .argv_complete and (.exe | test("sh$"))' "$scratch/out" >/dev/null
check "an exit for each exec" jq -e '([.[] | select(.kind == "exec")] | map(.pid) | unique) as $started |
	([.[] | select(.kind == "exit")] | map(.pid)) as $ended | ($started - $ended) == []' "$scratch/out" >/dev/null
check "sh, make, cp, rm, mkdir, date ran" jq -e '[.[] | select(.kind == "exec")] | length >= 6' "$scratch/out" >/dev/null
check "the status and a duration of sh" jq -e '([.[] | select(.kind == "exec")][0].pid) as $pid |
	.[] | select(.kind == "exit" and .pid == $pid) | .exit_code == 7 and .duration_ns > 0' "$scratch/out" >/dev/null
check "nothing was lost" jq -e '[.[] | select(.kind == "loss")] == []' "$scratch/out" >/dev/null
expect 0 "trace for people" trace first
expect 0 "trace as a tree" trace --tree first
expect 0 "logs" logs --json "$run"
check "logs: fields and text" jq -e '.[0] | .line == "cp in out" and .stream == "stdout" and (.ts | test("Z$"))' "$scratch/out" >/dev/null

expect 0 "snapshot list" snapshot list --json
check "one snapshot, taken before" jq -e --arg run "$run" 'length == 1 and (.[0] | .type == "pre-run" and .run == $run and
	.backend == "archive" and .files == 4 and .skipped == 0 and .parent == null and .label == null)' "$scratch/out" >/dev/null
snap=$(jq -r '.[0].id' "$scratch/out")
expect 0 "snapshot diff" snapshot diff --json "$snap"
check "the diff tells each change" test "$(jq -r '.[] | "\(.change) \(.path) \(.type)"' "$scratch/out" | sort | tr '\n' ';')" = \
	'added new directory;added new/file file;added out file;added out.txt file;deleted lib/a.c file;modified in file;'
expect 0 "snapshot show" snapshot show "$snap"

# --- and back
cp -a . "$scratch/changed"
expect 0 "dry run" rollback --dry-run "$run"
check "a dry run says what would be done" printed 'new/file'
picture . >"$scratch/now" && picture "$scratch/changed" >"$scratch/want"
check "a dry run changes nothing" cmp -s "$scratch/now" "$scratch/want"
expect 0 "rollback" rollback "$run"
safety=$(cat "$scratch/out")
check "it prints the safety snapshot" expr "$safety" : 'snap_[0-9a-f]\{12\}$' >/dev/null
check "and how to undo" said "moat snapshot restore $safety"
picture . >"$scratch/now"
check "every byte, mode and time is back" cmp -s "$scratch/before" "$scratch/now"
check "git agrees" test -z "$(GIT_OPTIONAL_LOCKS=0 git status --porcelain | grep -v '^?? lib/')"
expect 0 "undo the rollback" snapshot restore "$safety"
picture . >"$scratch/now"
check "the changes are there again" cmp -s "$scratch/want" "$scratch/now"
expect 0 "and back again, to a named snapshot" rollback "$run" "$snap"
picture . >"$scratch/now"
check "again as before" cmp -s "$scratch/before" "$scratch/now"
expect 0 "nothing more to do" rollback "$run" "$snap"
check "and it takes no safety snapshot for it" test ! -s "$scratch/out"
expect 0 "restore beside" snapshot restore --to "$scratch/copy" "$safety"
check "the copy has the run's work" test "$(cat "$scratch/copy/out.txt")" = 'done'
check "and nothing that was ignored" test ! -e "$scratch/copy/lib/a.o"
expect 2 "not into a full directory" snapshot restore --to "$scratch/copy" "$safety"
expect 0 "one file only" snapshot restore "$safety" out.txt
check "that file is back" test -f out.txt
check "no other" test ! -e new

# --- the sandbox
expect 0 "what the sandbox is" run --no-snapshot -- sh -c '
	cat ~/.netrc ~/.ssh/id >&2
	cat ~/notes
	echo x > ~/notes2
	touch /usr/moat-was-here
	ls -A /tmp
	ls /proc | grep -c "^[0-9]"
	env | sort
	sed -n "s/^NoNewPrivs:[[:space:]]*/nnp /p" /proc/self/status
	ls -A "'"$MOAT_HOME"'"
	hostname
	exit 0'
check "secrets of the home are hidden" sh -c "! grep -qe '^secret\$' -e '^key\$' '$scratch/out' '$scratch/err'"
check "the rest of the home can be read" printed '^open$'
check "and not written" test ! -e "$HOME/notes2"
check "the host cannot be written" test ! -e /usr/moat-was-here
check "no new privileges" printed '^nnp 1$'
check "a pid namespace" sh -c "grep -qE '^[1-9]\$' '$scratch/out'"
check "moat's variables" printed "^MOAT_WORKSPACE=$PWD\$"
check "moat's run id" printed '^MOAT_RUN_ID=run_[0-9a-f]*$'
check "moat's own home is hidden" sh -c "! grep -q workspaces '$scratch/out'"
API_TOKEN=hush moat run --no-snapshot -e GIVEN=yes -- env
check "the environment is scrubbed" sh -c "! grep -q hush '$scratch/out'"
check "what was given is there" printed '^GIVEN=yes$'
moat run --no-snapshot --network none -- sed -n 's/^ *\([^ :]*\):.*/\1/p' /proc/net/dev
check "no network, none" test "$(cat "$scratch/out")" = lo
echo input | "$MOAT" run --no-snapshot -- cat >"$scratch/out" 2>"$scratch/err"
check "input that is not a terminal is carried" test "$(cat "$scratch/out")" = input
moat run --no-snapshot -- sh -c 'echo to-out; echo to-err >&2'
check "stdout and stderr stay apart" sh -c "grep -qx to-out '$scratch/out' && grep -qx to-err '$scratch/err' && ! grep -q to-err '$scratch/out'"
expect 143 "killed by a signal" run --no-snapshot -- sh -c 'kill -TERM $$'
mkdir "$scratch/other" && echo mine >"$scratch/other/file"
moat run --no-snapshot -m "$scratch/other:/mnt:ro" -- sh -c 'cat /mnt/file; echo x > /mnt/file'
check "a mount" printed '^mine$'
check "read-only is read-only" test "$(cat "$scratch/other/file")" = mine
umask 027
moat run --no-snapshot -- sh -c 'umask; : > made'
check "the command has the caller's umask" printed '^0027$'
check "and so have its files" test "$(stat -c %a made)" = 640
umask 022
rm made

mkdir "$scratch/shown"
printf 'mounts: ["%s:/mnt:ro"]\n' "$scratch/shown" >moat.yaml
moat run --no-snapshot -- true
check "what moat.yaml opens is said" said "shows $scratch/shown as /mnt inside, read-only"
moat run --no-snapshot -- sh -c 'echo "name: x" >moat.yaml'
check "a change of moat.yaml is told" said 'moat.yaml was changed'
rm moat.yaml
moat run --no-snapshot -- sh -c 'echo "name: x" >agent.yaml; rm -f moat.yaml'
check "a new one, too" said 'agent.yaml was made'
rm agent.yaml
moat run --no-snapshot -- true
check "and otherwise nothing is said" test ! -s "$scratch/err"

expect 0 "delete snapshots" snapshot delete "$snap" "$safety"
expect 0 "nothing was interrupted" recover
check "no litter in the workspace" test -z "$(find . -name '.moat*')"
check "no litter of transactions" test -z "$(ls "$MOAT_HOME/txn")"
finish
