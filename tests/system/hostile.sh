#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Archives that nobody honest makes, into a workspace that is empty and into one that is prepared for them: links where the
# archives have directories, files where they have directories.  What is refused creates nothing and says one line; what is
# accepted, and restored, touches nothing outside.  $HOSTILE_ARCHIVES: the program that makes them.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
: "${HOSTILE_ARCHIVES:?}"
must_have command -v lz4
must_have command -v gzip
mkdir "$scratch/tars" "$scratch/canary" "$scratch/empty" "$scratch/prepared"
"$HOSTILE_ARCHIVES" "$scratch/tars" >"$scratch/list" || exit 1

# What must stay as it is, and the ways to it.
for name in moat-escape passwd config b c x; do
	echo canary >"$scratch/canary/$name"
done
mkdir "$scratch/canary/d"
cd "$scratch/prepared" || exit 1
for name in a b d dir README .git ..foo x; do
	ln -s ../canary "$name"
done
echo file >c
mkdir real && ln -s ../../canary real/up && ln -s /etc etc
echo escape >"$scratch/moat-escape"
picture "$scratch/canary" >"$scratch/canary.before"
rm -f /tmp/moat-escape

# Something to be compared with: a home that knows both workspaces.
cd "$scratch/empty" && "$MOAT" -q snapshot create >/dev/null || exit 1
cd "$scratch/prepared" && "$MOAT" -q snapshot create >/dev/null || exit 1

# everything: names, kinds, sizes and contents of home, workspaces and what is outside, but for times of directories.
everything() {
	(cd "$scratch" && find moat empty prepared canary moat-escape ! -type d -printf '%p %y %m %n %s %T@ %i %l\n' \
		-o -printf '%p d %m\n' | sort)
	ls -d /tmp/moat-escape 2>/dev/null
}
everything >"$scratch/before"
cases=0
escapes=0

# shellcheck disable=SC2317 # called by check
untouched() {
	picture "$scratch/canary" | cmp -s - "$scratch/canary.before" && [ ! -e /tmp/moat-escape ] &&
		[ "$(cat "$scratch/moat-escape")" = escape ] && return
	escapes=$((escapes + 1))
	return 1
}

# refused NAME WORDS FILE: by both workspaces, each time with nothing changed.
refused() {
	for workspace in empty prepared; do
		cases=$((cases + 1))
		cd "$scratch/$workspace" || exit 1
		expect 1 "$1 into $workspace" snapshot import "$3"
		check "$1: nothing on stdout" test ! -s "$scratch/out"
		check "$1: one line" test "$(wc -l <"$scratch/err")" -eq 1
		check "$1: says \`$2'" grep -qE -e "$2" "$scratch/err"
		check "$1: no control byte" test -z "$(tr -d '\n -~' <"$scratch/err" | LC_ALL=C tr -d '\200-\377')"
		everything >"$scratch/after"
		check "$1: nothing is created" cmp -s "$scratch/before" "$scratch/after"
		check "$1: nothing escaped" untouched
	done
}

# harmless NAME: is taken, and restored beside and in place.
harmless() {
	for workspace in empty prepared; do
		cases=$((cases + 1))
		cp -a "$scratch/$workspace" "$scratch/ws"
		cd "$scratch/ws" || exit 1
		moat --home "$scratch/other" snapshot import "$scratch/tars/$1.tar"
		check "$1 is taken" test "$status" -eq 0
		snap=$(cat "$scratch/out")
		expect 0 "$1 restored beside" --home "$scratch/other" snapshot restore --to "$scratch/beside" "$snap"
		expect 0 "$1 restored in place" --home "$scratch/other" snapshot restore "$snap"
		check "$1: both are the same" diff -r --no-dereference --exclude=.git --exclude='.moat*' "$scratch/beside" .
		check "$1: no setuid" test -z "$(find "$scratch/beside" . -type f -perm /7000)"
		check "$1: nothing escaped" untouched
		cd "$scratch" && chmod -R u+rwX ws beside other 2>/dev/null
		rm -rf "$scratch/ws" "$scratch/beside" "$scratch/other"
	done
}

while read -r name words; do
	if [ -n "$words" ]; then
		refused "$name" "$(printf '%s' "$words" | sed 's/[].*[()+?{]/\\&/g')" "$scratch/tars/$name.tar"
	else
		harmless "$name"
	fi
done <"$scratch/list"

# --- compressed streams
good=$scratch/tars/ok-dots.tar
work=$scratch/tars/work
head_of() { # FILE BYTES
	dd if="$1" of="$work" bs=1 count="$2" 2>/dev/null
}
# flip FILE OFFSET: a copy with that byte changed.
flip() {
	cp "$1" "$work"
	byte=$(dd if="$1" bs=1 skip="$2" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
	# shellcheck disable=SC2059
	printf "\\$(printf %03o $((byte ^ 255)))" | dd of="$work" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
kinds="gz lz4"
gzip -c "$good" >"$scratch/tars/good.gz"
lz4 -qc "$good" >"$scratch/tars/good.lz4"
if command -v zstd >/dev/null && zstd -qc "$good" >"$scratch/tars/good.zst"; then
	kinds="$kinds zst"
fi
for kind in $kinds; do
	packed=$scratch/tars/good.$kind
	size=$(stat -c %s "$packed")
	for at in 6 $((size / 2)) $((size - 5)) $((size - 1)); do
		head_of "$packed" "$at"
		refused "$kind cut at $at" "cut off|tar archive|damaged|Error|ERROR" "$work"
	done
	flip "$packed" $((size - 3))
	refused "$kind with a wrong checksum" "at byte" "$work"
	flip "$packed" $((size / 2))
	refused "$kind damaged" "at byte" "$work"
	{ cat "$packed"; echo trailing; } >"$work"
	refused "$kind with something behind" "follows the end" "$work"
	{ cat "$packed"; printf '\0'; } >"$work"
	refused "$kind with a zero behind" "follows the end" "$work"
	{ cat "$packed" "$packed"; } >"$work"
	refused "$kind twice" "follows the end of the archive" "$work"
done
{ printf '\120\052\115\030\377\377\377\377'; cat "$scratch/tars/good.lz4"; } >"$work"
refused "a frame to skip that is cut off" "cut off" "$work"
{ printf '\120\052\115\030\004'; } >"$work"
refused "half a frame to skip" "cut off" "$work"
head -c 60000000 /dev/zero | lz4 -qc >"$work"
refused "zeros" "has no members" "$work"
printf '\004\042\115\030\140\100\202' >"$work"
refused "the head of an lz4 frame" "cut off" "$work"
printf '\375\067zXZ\0' >"$work"
refused "xz" "compressed by xz" "$work"
printf 'BZh91AY' >"$work"
refused "bzip2" "compressed by bzip2" "$work"
printf 'PK\003\004' >"$work"
refused "zip" "compressed by zip" "$work"

# --- limits, and bombs: none of them is unpacked
bomb=$scratch/bomb
head -c 30000000 /dev/zero >"$bomb" && tar -C "$scratch" -cf - bomb | gzip >"$work" && rm "$bomb"
limited() { # NAME WORDS OPTION...
	limit_name=$1
	limit_words=$2
	shift 2
	cases=$((cases + 1))
	cd "$scratch/empty" || exit 1
	expect 1 "$limit_name" snapshot import "$@" "$work"
	check "$limit_name: says \`$limit_words'" said "$limit_words"
	everything >"$scratch/after"
	check "$limit_name: nothing is created" cmp -s "$scratch/before" "$scratch/after"
}
limited "a bomb above the limit of a file" max_file_bytes --max-file-bytes 29999999
limited "a bomb above the limit of all" max_bytes --max-bytes 29999999
head -c 300000000 /dev/zero | gzip >"$work"
limited "zeros without an end" 'cut off\|longer than\|follows' --max-bytes 1 --max-entries 1
{ cat "$good"; head -c 300000000 /dev/zero; } | gzip >"$work"
limited "an end without an end" 'longer than' --max-bytes 100 --max-entries 10

echo "$cases cases, $escapes escapes"
check "at least a hundred cases" test "$cases" -ge 100
check "no escape" test "$escapes" -eq 0
finish
