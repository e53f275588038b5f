#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The records of snapshots: what a snapshot costs, retention, deletion of what others are written against, a lost or damaged
# index, the same content under other times, the safety snapshot.  What dies in between: tests/fault.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
mkdir "$scratch/ws" && cd "$scratch/ws" || exit 1

for n in 1 2 3 4 5 6 7 8 9; do
	mkdir "d$n"
	for m in 1 2 3 4 5 6 7 8 9; do echo "file $n $m" >"d$n/f$m"; done
done
# What was written just now is read again by the next snapshot; this test wants to see what is not.
find . -exec touch -h -d '2020-02-02 02:02:02.5' {} +
records() { echo "$MOAT_HOME"/workspaces/*/snapshots; }
size_of() { # SNAP: bytes of its record and of its pack
	cat "$(records)/$1/manifest" "$MOAT_HOME"/workspaces/*/store/archive/"$1"*.tar.lz4 | wc -c
}
take() {
	expect 0 'a snapshot is taken' snapshot create "$@"
	cat "$scratch/out"
}
field() { # SNAP FIELD
	"$MOAT" snapshot list --json | jq -r --arg id "$1" ".[] | select(.id == \$id) | .$2"
}
for command in 'snapshot list' 'snapshot list --json' 'snapshot verify' 'snapshot prune --keep 1' 'snapshot prune --keep 1 --dry-run'; do
	# shellcheck disable=SC2086 # words
	expect 0 "$command where there is nothing" $command
done
expect 1 'undo where there is nothing' undo
check 'nothing is made for who only looks' test -z "$(ls -A "$MOAT_HOME/workspaces")"

settle
one=$(take --label first)
check 'the first is whole' test "$(field "$one" parent)" = null
two=$(take)
check 'an unchanged tree costs next to nothing' test "$(size_of "$two")" -lt 2500
echo edited >d5/f5
settle
three=$(take)
check 'an edit costs the edit' test "$(size_of "$three")" -lt 3500
expect 0 'all are whole' snapshot verify

# -- the safety snapshot
expect 0 'a restore with nothing to do' snapshot restore "$three"
check 'takes no snapshot' test "$("$MOAT" snapshot list --json | jq length)" = 3
expect 0 'back to the second' snapshot restore "$two"
check 'the newest serves as safety snapshot' printed "^$three\$"
expect 0 'and forth' snapshot restore "$three"
check 'what is there now is in no newest snapshot' test "$("$MOAT" snapshot list --json | jq length)" = 4
safety=$(cat "$scratch/out")
check 'a safety snapshot' test "$(field "$safety" type)" = safety
check 'it was restored' grep -q edited d5/f5
check 'its label tells why' test "$(field "$safety" label)" = "before restoring $three"

# -- deletion of what others are written against
expect 0 'the first is deleted' snapshot delete "$one"
check 'it is in no list' test "$("$MOAT" snapshot list --json | jq "map(select(.id == \"$one\")) | length")" = 0
check 'its manifest stays' test -f "$(records)/.base-$one/manifest"
expect 0 'the others are whole' snapshot verify
expect 0 'and can be restored' snapshot restore --to "$scratch/out-two" "$two"
check 'exactly' test "$(cat "$scratch/out-two/d5/f5")" = 'file 5 5'

ls -A "$(records)" >"$scratch/before.list"
expect 0 'nothing is interrupted' recover
check 'it says so' said 'nothing was interrupted'
ls -A "$(records)" >"$scratch/after.list"
check 'and makes no record of what is gone' cmp -s "$scratch/before.list" "$scratch/after.list"

# -- somebody died in the making of a workspace's state
mkdir "$MOAT_HOME/workspaces/0123456789abcdef" && touch "$MOAT_HOME/workspaces/0123456789abcdef/.moat-tmp_012345abcdef"
expect 0 'it is cleared away' recover
check 'wholly' test ! -e "$MOAT_HOME/workspaces/0123456789abcdef"

# -- a lost index
for lost in everything one record manifest; do
	case $lost in
	everything) rm -r "$(records)" ;;
	one) rm -r "$(records)/${two:?}" ;;
	record) printf x | dd of="$(records)/$two/snapshot.json" bs=1 seek=20 conv=notrunc 2>/dev/null ;;
	manifest) printf x | dd of="$(records)/$two/manifest" bs=1 seek=60 conv=notrunc 2>/dev/null ;;
	esac
	case $lost in
	everything) ;;
	one) check 'control: one is missing' test "$("$MOAT" snapshot list --json 2>/dev/null | jq length)" = 2 ;;
	*) expect 1 "$lost: verify finds it" snapshot verify ;;
	esac
	[ $lost = everything ] || expect 0 "$lost: recover" recover
	moat snapshot list
	check "$lost: all are there again" test "$(grep -c '^snap_' "$scratch/out")" = 3
	check "$lost: as they were" test "$(field "$safety" type) $(field "$three" parent)" = "safety $two"
	check "$lost: with the label" test "$(field "$safety" label)" = "before restoring $three"
	expect 0 "$lost: and whole" snapshot verify
	expect 0 "$lost: nothing more to do" recover
	check "$lost: it says so" said 'nothing was interrupted'
done

# -- retention
expect 2 'prune without limits is refused' snapshot prune
expect 2 'prune of nothing' snapshot prune --keep 0
for n in 1 2 3; do echo "$n" >d9/f9; take >/dev/null; done
moat snapshot prune --keep 2 --dry-run
check 'a dry run tells' test "$(grep -c '^snap_' "$scratch/out")" = 4
check 'and does nothing' test "$("$MOAT" snapshot list --json | jq length)" = 6
expect 0 'prune' snapshot prune --keep 2
check 'the newest stay' test "$("$MOAT" snapshot list --json | jq length)" = 2
expect 0 'and are whole' snapshot verify
newest=$("$MOAT" snapshot list --json | jq -r '.[0].id')
expect 0 'prune by size' snapshot prune --max-bytes 1
check 'the newest always stays' test "$("$MOAT" snapshot list --json | jq -r '.[].id')" = "$newest"
printf 'snapshots:\n  retention:\n    max_count: 3\n' >moat.yaml
for n in 1 2 3 4; do echo "$n" >d9/f9; take >/dev/null; done
check 'retention by moat.yaml' test "$("$MOAT" snapshot list --json | jq length)" = 3
check 'it is told' said 'snapshots.retention: deleted snap_'
"$MOAT" snapshot list --json | jq -r '.[].id' | xargs "$MOAT" -q snapshot delete || fail 'all deleted'
check 'nothing is left' test -z "$(find "$MOAT_HOME"/workspaces/*/store "$(records)" -type f)"

# -- other times, modes and inodes, and the same content
rm moat.yaml
for n in 1 2 3 4 5; do last=$(take); done
touch -d '2020-02-02 02:02:02' "$(records)"/snap_*
check 'directories of one time: the records tell which is the newest' test "$(field "$(take)" parent)" = "$last"
head -c 3000000 /dev/urandom >d9/large && ln d9/large d8/link && settle
large=$(take)
size=$(field "$large" stored_bytes)
for how in 'touch {}' 'chmod g+w {}' 'cp -p {} copy && mv copy {}' 'true {}'; do
	find d? -type f ! -name link >"$scratch/files"
	while read -r file; do eval "$(echo "$how" | sed "s,{},$file,g")"; done <"$scratch/files"
	settle
	same=$(take)
	check "the same content again ($how) is not stored again" test "$(field "$same" stored_bytes)" -lt $((size / 50))
	moat snapshot diff --json "$same"
	check "$how: modes and times are there" printed '^\[\]$'
done
expect 0 'they are whole' snapshot verify
# As long as before, and with the same time.
touch -r d9/large "$scratch/time"
printf X | dd of=d9/large conv=notrunc bs=1 seek=1000 2>/dev/null && touch -r "$scratch/time" d9/large
other=$(take)
check 'other content is stored' test "$(field "$other" stored_bytes)" -ge $((size * 9 / 10))
expect 0 'the first is deleted' snapshot delete "$large"
expect 0 'the others are whole' snapshot verify
finish
