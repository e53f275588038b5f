#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Taking a restore back: exactly what it changed, if that is still as it was left; and when it is killed meanwhile.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
export ASAN_OPTIONS

number=0
begin() {
	number=$((number + 1))
	mkdir "$scratch/ws$number" && cd "$scratch/ws$number" || exit 1
}
snap() {
	"$MOAT" -q snapshot create
}
nothing_left() {
	check "$1: no journal is left" test -z "$(ls "$MOAT_HOME/txn")"
	check "$1: no stage is left" test -z "$(find . -name '.moat*')"
}
records() {
	dirname "$(grep -l "\"$PWD\"" "$MOAT_HOME"/workspaces/*/workspace.json)"
}

# Everything that a restore can do: to files, directories, links, names, kinds, modes and times.
make_old() {
	mkdir -p keep dir/sub gone/deep && echo one >keep/a && echo two >dir/sub/b && echo three >gone/deep/c && ln -s a link
	echo four >same && echo linked >l1 && ln l1 l2 && chmod 600 same && mkdir locked && echo in >locked/x && chmod 555 locked
	echo '*.log' >.gitignore && echo noise >dir/noise.log && : >nothing
	find . -exec touch -h -d '2001-02-03 04:05:06.5' {} +
}
make_new() {
	chmod 755 locked && echo changed >keep/a && rm -r dir/sub && echo file >dir/sub && rm -r gone && rm link && mkdir link &&
		echo x >link/y && chmod 644 same && rm l2 && echo apart >l2 && rm locked/x && mkdir -p added/deep && echo z >added/deep/z
	echo more >added/file && echo something >nothing
	find . ! -name noise.log -exec touch -h -d '2011-12-13 14:15:16.25' {} +
}

begin
expect 1 "an undo without a restore" undo
check "says so" said 'nothing to undo'
make_old
s=$(snap)
make_new
picture . >"$scratch/new"
expect 0 "a restore" snapshot restore "$s"
check "its stdout is the safety snapshot's id" grep -qx 'snap_[0-9a-f]*' "$scratch/out"
check "and it says how to undo" said 'moat undo'
picture . >"$scratch/old"
expect 0 "a dry run of the undo" undo --dry-run
check "lists what would be done" printed '^modified *keep/a$'
picture . >"$scratch/now"
check "and does nothing" cmp -s "$scratch/now" "$scratch/old"
expect 0 "undo" undo
picture . >"$scratch/now"
check "all is what it was before the restore" cmp -s "$scratch/now" "$scratch/new"
check "an ignored file is as it was" test "$(cat dir/noise.log)" = noise
expect 0 "undo of the undo" undo --json
check "in JSON, with what it undid" jq -e '.undoes | startswith("txn_")' "$scratch/out" >/dev/null
picture . >"$scratch/now"
check "is the restore again" cmp -s "$scratch/now" "$scratch/old"
nothing_left "undo and redo"

# The rest of the workspace is nobody's business, wherever it lies.
begin
mkdir d made && echo 1 >d/a && echo 1 >d/b && s=$(snap) && echo 2 >d/a && rmdir made
expect 0 "a restore" snapshot restore "$s"
echo edited >d/b && echo new >d/new && echo mine >made/mine && touch -d 2011-11-11 d
expect 0 "undo beside edits" undo
check "what was restored is undone" test "$(cat d/a)" = 2
check "edits and new files stay" test "$(cat d/b d/new made/mine)" = "$(printf 'edited\nnew\nmine')"
check "so does the time of a directory that was worked in" test "$(stat -c %y d | cut -c 1-10)" = 2011-11-11

# Whatever was done to one of its paths since, it is seen.
seen() { # TEXT COMMAND
	begin
	mkdir d && echo 1 >d/a && echo 1 >gone && echo 1 >m && ln -s x l && chmod 600 m && touch -d 2001-01-01 d/a m
	s=$(snap) && echo 2 >d/a && rm gone && chmod 644 m && ln -sf y l && echo 2 >extra
	"$MOAT" -q snapshot restore "$s" >/dev/null
	sh -c "$2"
	picture . >"$scratch/before"
	expect 3 "$1: refused" undo
	check "$1: the path is named" said "$3"
	picture . >"$scratch/now"
	check "$1: nothing is changed" cmp -s "$scratch/before" "$scratch/now"
	nothing_left "$1"
}
seen "an edit" 'echo 3 >d/a' d/a
seen "an edit with the same size and time" 'echo 3 >d/a && touch -d 2001-01-01 d/a' d/a
seen "a removal" 'rm gone' gone
seen "a mode" 'chmod 640 m' '`m'
seen "a link's text" 'ln -sf z l' '`l'
seen "something new in its place" 'echo 3 >extra' extra
seen "another kind" 'rm gone && mkdir gone' gone

begin
echo 1 >a && s=$(snap) && echo 2 >a
expect 0 "a restore without a safety snapshot" snapshot restore --no-safety "$s"
expect 1 "cannot be undone" undo
check "and says why" said 'no safety snapshot'
echo 2 >a
expect 0 "another" snapshot restore "$s"
txn=$(find "$(records)/undo" -name undo.json -exec jq -r 'select(.safety != null).transaction' {} +)
cd "$scratch" || exit 1
expect 0 "undo by the id, from elsewhere" undo "$txn"
check "is done" test "$(cat "ws$number/a")" = 2
expect 1 "an id that there is not" undo txn_000000000000
cd "ws$number" || exit 1

# Kept: the newest sixteen whose safety snapshot is there.
begin
echo 0 >a && s=$(snap)
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18; do
	echo "$i" >a && "$MOAT" -q snapshot restore "$s" >/dev/null || fail "restore $i"
done
check "sixteen are on record" test "$(find "$(records)/undo" -name plan | wc -l)" -eq 16
for safety in $("$MOAT" snapshot list --json | jq -r '.[] | select(.type == "safety").id'); do
	"$MOAT" -q snapshot delete "$safety" || fail "delete $safety"
done
expect 1 "without their safety snapshots" undo
echo x >a && "$MOAT" -q snapshot restore "$s" >/dev/null
check "the others are dropped" test "$(find "$(records)/undo" -name plan | wc -l)" -eq 1
expect 0 "and the last can be undone" undo
check "really" test "$(cat a)" = x

# Killed at any of its system calls: wholly old or wholly new, and it can be undone or redone.
must_have strace -f -qq -o /dev/null true
begin
make_old
s=$(snap)
make_new
picture . >"$scratch/new"
expect 0 "a restore to be undone" snapshot restore "$s"
picture . >"$scratch/old"
cp -a "$MOAT_HOME" "$scratch/home.saved"
cp -a . "$scratch/ws.saved"
reset_all() {
	find . -type d -exec chmod u+rwx {} +
	find . -mindepth 1 -maxdepth 1 -exec rm -rf {} +
	cp -a "$scratch/ws.saved/." .
	rm -rf "$MOAT_HOME" && cp -a "$scratch/home.saved" "$MOAT_HOME"
}
strace -f -qq -o "$scratch/trace" "$MOAT" undo >/dev/null 2>&1
sed -n 's/^[0-9]* *\([a-z0-9_]*\)(.*/\1/p' "$scratch/trace" | sort | uniq -c | awk '
	$2 ~ /^(renameat2?|rename|unlinkat|fsync|syncfs|openat2?|mkdirat|fchmodat2?|fchmod|utimensat|linkat|symlinkat|write|close|newfstatat)$/ {
	for (k = 1; k <= $1; k++) print $2, k }' >"$scratch/all"
while read -r call k; do
	printf '%s %s %s\n' "$(printf '%s %s' "$call" "$k" | cksum | cut -d' ' -f1)" "$call" "$k"
done <"$scratch/all" | sort -n | head -n "${POINTS:-40}" >"$scratch/sample"
olds=0
news=0
while read -r _ call k; do
	reset_all
	strace -f -qq -o /dev/null -e trace="$call" -e inject="$call:signal=KILL:when=$k" "$MOAT" undo >/dev/null 2>&1
	moat recover
	picture . >"$scratch/now"
	if cmp -s "$scratch/now" "$scratch/old"; then
		olds=$((olds + 1))
	elif cmp -s "$scratch/now" "$scratch/new"; then
		news=$((news + 1))
		expect 0 "killed before $call $k, completed: it can be redone" undo
		picture . >"$scratch/now"
		check "killed before $call $k: wholly" cmp -s "$scratch/now" "$scratch/old"
	else
		fail "killed before $call $k: mixed"
	fi
	nothing_left "killed before $call $k"
	check "killed before $call $k: each record is whole" test \
		"$(find "$(records)/undo" -name plan | wc -l)" -eq "$(find "$(records)/undo" -name undo.json | wc -l)"
done <"$scratch/sample"
echo "undo: $(wc -l <"$scratch/sample") of $(wc -l <"$scratch/all") points: $olds not begun, $news completed"
check "control: some were not begun" test "$olds" -gt 0
check "control: some were completed" test "$news" -gt 0
finish
