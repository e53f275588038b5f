#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# snapshot-reflink on real filesystems that can clone: XFS and btrfs on loop devices, which root makes here.  An ordinary
# user gives a directory on one that is mounted, MOAT_TEST_REFLINK_DIR.
#
# The unit tests of the backend run there, too; UNIT_TESTS is the directory where they were built.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
mounts=
loops=

# Takes down what it has set up, by name, then what lib.sh does.
take_down() {
	cd /
	for m in $mounts; do umount "$m" || umount -l "$m"; done
	for l in $loops; do losetup -d "$l"; done
	mounts=
	loops=
	clean_up
}
trap take_down EXIT

# mount_new KIND SIZE MKFS...: makes a filesystem in a sparse file and mounts it at $scratch/KIND.
mount_new() {
	kind=$1
	mkdir "$scratch/$kind" && truncate -s "$2" "$scratch/$kind.img" || return 1
	shift 2
	"$@" "$scratch/$kind.img" >"$scratch/out" 2>"$scratch/err" || return 1
	loop=$(losetup -f --show "$scratch/$kind.img") || return 1
	loops="$loop $loops"
	mount "$loop" "$scratch/$kind" || return 1
	mounts="$scratch/$kind $mounts"
	chmod 0755 "$scratch/$kind"
}

used() {
	sync -f "$1"
	df --output=used -B1 "$1" | tail -n 1 | tr -d ' '
}

# The blocks that are freed are given back by a thread of the filesystem's: looks for as long as ten seconds.
# uses_at_most BYTES DIRECTORY
uses_at_most() {
	tries=0
	until [ "$(used "$2")" -le "$1" ]; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || return 1
		sleep 0.1
	done
}

backend_of() {
	"$MOAT" snapshot list --json | jq -r ".[] | select(.id == \"$1\") | .backend"
}

create() {
	expect 0 "$1: snapshot create" snapshot create
	snap=$(cat "$scratch/out")
}

# The bytes of the store that are files of snapshots, however they are called.
store_files() {
	find "$MOAT_HOME" -path '*/store/reflink/*' -type f | wc -l
}

small_files() {
	cd ../small || exit 1
	for i in 1 2 3 4 5 6 7 8 9; do echo $i >f$i; done
	create "small files"
	check "archive for small files" test "$(backend_of "$snap")" = archive
	expect 0 "reflink all the same" --backend=reflink snapshot create
	snap=$(cat "$scratch/out")
	check "what was asked for" test "$(backend_of "$snap")" = reflink
	expect 0 "verify" snapshot verify
	expect 0 "delete" snapshot delete "$snap"
	cd ../large || exit 1
}

# story DIRECTORY: on a filesystem that can clone.
story() {
	MOAT_HOME=$1/home
	export MOAT_HOME
	mkdir -p "$1/large/sub" "$1/small" && cd "$1/large" || exit 1

	# Which one is chosen, by what is in the tree.
	head -c 30000000 /dev/urandom >big
	echo one >one && echo two >sub/two && ln one sub/three && : >empty
	truncate -s 40M sparse && printf x | dd of=sparse bs=1 seek=20000000 conv=notrunc 2>/dev/null
	before=$(used "$1")
	create "large files"
	first=$snap
	check "reflink for large files" test "$(backend_of "$first")" = reflink
	check "no space for the clone" uses_at_most $((before + 4000000)) "$1"
	expect 0 "verify" snapshot verify "$first"
	small_files
	expect 0 "why" plugin list --explain
	check "why" printed 'reflink bids 70: clones blocks instead of copying them; the tree has large files'

	# Changed, restored, the restore undone.
	picture . >"$scratch/before"
	links . >"$scratch/links"
	rm sparse sub/two && echo changed >one && printf y | dd of=big bs=1 seek=5000000 conv=notrunc 2>/dev/null
	mkdir added && echo new >added/file
	picture . >"$scratch/changed"
	expect 0 "restore" snapshot restore "$first"
	safety=$(cat "$scratch/out")
	picture . >"$scratch/after"
	links . >"$scratch/links-after"
	check "as it was" cmp -s "$scratch/before" "$scratch/after"
	check "linked as it was" cmp -s "$scratch/links" "$scratch/links-after"
	check "holes are holes" test "$(stat -c %b sparse)" -lt 2000
	check "blocks are shared again" uses_at_most $((before + 8000000)) "$1"
	expect 0 "into a directory of another filesystem" snapshot restore --to "$scratch/to" "$first"
	check "the same there" cmp -s big "$scratch/to/big"
	check "holes there, too" test "$(stat -c %b "$scratch/to/sparse")" -lt 2000
	rm -rf "$scratch/to"
	expect 0 "undone" snapshot restore "$safety"
	picture . >"$scratch/after"
	check "as it was changed" cmp -s "$scratch/changed" "$scratch/after"
	expect 0 "restore again" snapshot restore "$first"
	expect 0 "verify all" snapshot verify

	# With less room than the files are long.
	expect 0 "the same, packed" --backend=archive snapshot create
	packed=$(cat "$scratch/out")
	free=$(df --output=avail -B1 "$1" | tail -n 1 | tr -d ' ')
	head -c $((free - 20000000)) /dev/zero >"$1/filler"
	rm big && : >sparse
	expect 1 "a restore from a pack needs room" snapshot restore --no-safety "$packed"
	check "it says so" said 'free and the restored files need\|No space left'
	expect 0 "a restore by clones needs none" snapshot restore --no-safety "$first"
	picture . >"$scratch/after"
	check "all is there" cmp -s "$scratch/before" "$scratch/after"
	rm "$1/filler"

	# A run, rolled back.
	if "$MOAT" --backend=bwrap --backend=netlink run --dry-run -- true >/dev/null 2>&1; then
		picture . >"$scratch/before"
		expect 0 "a run" run --name "try" -- sh -c 'rm -r sub; echo x >>big; : >sparse; echo new >new'
		expect 0 "rollback" rollback "try"
		picture . >"$scratch/after"
		check "rolled back" cmp -s "$scratch/before" "$scratch/after"
	else
		check "a sandbox" test "${MOAT_MUST_WORK:-0}" != 1
	fi

	# Deleting gives back what nobody needs, at once.
	"$MOAT" snapshot list --json | jq -r '.[].id' | grep -v "$first" | xargs "$MOAT" snapshot delete 2>/dev/null
	head -c 30000000 /dev/urandom >big
	create "another state"
	second=$snap
	with_both=$(used "$1")
	expect 0 "delete the first" snapshot delete "$first"
	check "its space is free" uses_at_most $((with_both - 25000000)) "$1"
	expect 0 "the second is whole" snapshot verify "$second"
	check "and needs little of the first" sh -c "! find '$MOAT_HOME' -path '*$first.orphan/manifest' | grep -q ."
	expect 0 "delete the second" snapshot delete "$second"
	check "nothing is left of the store" test "$(store_files)" -eq 0

	full_disk "$1"
	damage
	elsewhere "$1"
	cd / && rm -rf "${1:?}/large" "${1:?}/small" "${1:?}/home"
}

# Files without copy-on-write have to be copied (btrfs); when there is no room for that, nothing happens.  Elsewhere the
# manifest of very many files does it.
full_disk() {
	rm -f big sparse
	free=$(df --output=avail -B1 "$1" | tail -n 1 | tr -d ' ')
	if touch nocow && chattr +C nocow 2>/dev/null; then
		head -c $((free * 6 / 10)) /dev/zero | tr '\0' n >nocow
		create_fails "no room for a copy"
		rm nocow
		head -c 3000000 /dev/urandom >nocow.new && touch nocow && chattr +C nocow && cat nocow.new >nocow && rm nocow.new
		expect 0 "a copy" -v --backend=reflink snapshot create
		check "that it was copied is told" said '1 file could not be cloned and was copied'
		expect 0 "the copy" snapshot verify
		rm nocow
	else
		rm -f nocow
		head -c $((free - 3000000)) /dev/zero >filler
		for ten in 0 1 2 3 4 5 6 7 8 9; do
			mkdir -p many/$ten && (cd many/$ten && seq 300 | while read -r n; do : >"$(printf '%0240d' "$n")" || break; done) 2>/dev/null
			echo content >many/$ten/file 2>/dev/null
		done
		head -c 100000000 /dev/zero >filler2 2>/dev/null
		create_fails "no room for the set"
		rm -rf filler filler2 many
	fi
}

create_fails() {
	picture . >"$scratch/before"
	files=$(store_files)
	expect 1 "$1" --backend=reflink snapshot create
	check "$1: says so" said 'No space left on device'
	picture . >"$scratch/after"
	check "$1: the workspace stays" cmp -s "$scratch/before" "$scratch/after"
	check "$1: nothing is left" test "$(store_files)" -eq "$files"
}

# A clone that was changed is not restored from.
damage() {
	head -c 9000000 /dev/urandom >big
	create "to be damaged"
	file=$(find "$MOAT_HOME" -path "*/$snap/0/*" -type f -size +8000k)
	chmod u+w "$file" && printf X | dd of="$file" bs=1 seek=4000000 conv=notrunc 2>/dev/null
	expect 1 "damage is found" snapshot verify "$snap"
	check "and named" grep -q 'big' "$scratch/out" "$scratch/err"
	cp --reflink=never big "$scratch/big" && echo other >big && picture . >"$scratch/before"
	expect 1 "damage is not restored" snapshot restore --no-safety "$snap"
	picture . >"$scratch/after"
	check "nothing was touched" cmp -s "$scratch/before" "$scratch/after"
	dd if="$scratch/big" of="$file" bs=1 skip=4000000 seek=4000000 count=1 conv=notrunc 2>/dev/null
	expect 0 "mended" snapshot verify "$snap"
	expect 0 "and restored" snapshot restore "$snap"
	check "as it was" cmp -s big "$scratch/big"
	rm "$scratch/big"
}

# The workspace on one filesystem, the home on another: said, with what would help, and never something else instead.
elsewhere() {
	home=$MOAT_HOME
	MOAT_HOME=$scratch/other-home
	rm -rf "$MOAT_HOME"
	expect 1 "home elsewhere, reflink asked for" --backend=reflink snapshot create
	check "why" said "moat's home is on another filesystem than the workspace; set MOAT_HOME"
	check "no snapshot" test -z "$("$MOAT" snapshot list --json | jq -r '.[].id')"
	create "home elsewhere"
	check "archive it is" test "$(backend_of "$snap")" = archive
	MOAT_HOME=$home
}

# Where nothing can be cloned it is refused with its reason.
# cannot_clone DIRECTORY
cannot_clone() {
	mkdir "$1/plain" && cd "$1/plain" || exit 1
	MOAT_HOME=$1/plain-home
	head -c 9000000 /dev/urandom >big
	expect 1 "reflink asked for" --backend=reflink snapshot create
	check "why" said 'reflink, asked for by --backend, cannot work here: .*cannot clone files; btrfs, XFS and bcachefs can'
	check "no snapshot" test -z "$("$MOAT" snapshot list --json | jq -r '.[].id')"
	create "nothing asked for"
	check "archive it is" test "$(backend_of "$snap")" = archive
}

# The built tests, where they are.
built_tests() {
	must_have test -x "${UNIT_TESTS:-}/test-reflink"
	MOAT_TEST_REFLINK_DIR=$1 "$UNIT_TESTS/test-reflink" >"$scratch/out" 2>"$scratch/err"
	check "test-reflink in $1" test $? -eq 0
	MOAT_TEST_REFLINK_DIR=$1 "$UNIT_TESTS/test-snapshot-conformance" reflink >"$scratch/out" 2>"$scratch/err"
	check "test-snapshot-conformance in $1" test $? -eq 0
}

cd "$HOME" || exit 1
if [ "$(id -u)" -eq 0 ]; then
	must_have mount_new xfs 400M mkfs.xfs -q -m reflink=1
	must_have mount_new btrfs 400M mkfs.btrfs -q
	must_have mount_new ext4 100M mkfs.ext4 -q
	for filesystem in "$scratch/xfs" "$scratch/btrfs"; do
		story "$filesystem"
		built_tests "$filesystem"
	done
	cannot_clone "$scratch/ext4"
else
	must_have test -n "${MOAT_TEST_REFLINK_DIR:-}"
	own=$(mktemp -d "$MOAT_TEST_REFLINK_DIR/moat-reflink.XXXXXX") || exit 1
	story "$own"
	built_tests "$own"
	rm -rf "$own"
fi
finish
