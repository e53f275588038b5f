#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The progress line: there on a terminal while something takes long, gone at the end; nothing anywhere else.
# script(1) gives the terminal.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
must_have script --version
must_have "$MOAT" plugin info snapshot-archive
esc=$(printf '\033')
TERM=xterm
export TERM
mkdir "$scratch/ws" && cd "$scratch/ws" || exit 1

# on_terminal WIDTH COMMAND: what a terminal of that many columns gets to see, in $scratch/tty; every drawing on a line of
# its own in $scratch/drawn, a clearing as <clear>.
on_terminal() {
	timeout 300 script -qefc "stty cols $1; $2" "$scratch/tty" </dev/null >/dev/null
	status=$?
	sed -e '1{/^Script started/d;}' -e '/^Script done/d' "$scratch/tty" | tr '\r' '\n' |
		sed -e "s/^$esc\[K/<clear>/" -e "s/$esc\[K\$//" >"$scratch/drawn"
}

drawn() {
	grep -qe "$1" "$scratch/drawn"
}

# The last drawing is followed by a clearing.
cleared() {
	awk -v title="$1" 'index($0, title) == 1 { shown = NR } /^<clear>/ { cleared = NR }
		END { exit !(shown > 0 && cleared > shown) }' "$scratch/drawn"
}

narrower_than() { # COLUMNS TITLE
	awk -v columns="$1" -v title="$2" 'index($0, title) == 1 { n++; if (length($0) >= columns) bad = 1 }
		END { exit !(n > 0 && !bad) }' "$scratch/drawn"
}

# Content that does not compress, as much as takes long: the machine says how much that is.
size=256
while :; do
	head -c "${size}M" /dev/urandom >large
	on_terminal 150 "'$MOAT' snapshot create && '$MOAT' snapshot verify &&
		'$MOAT' snapshot restore --to '$scratch/try' \$('$MOAT' snapshot list --json | jq -r '.[0].id')"
	{ drawn '^snapshot of' && drawn '^verifying' && drawn '^restoring'; } || [ "$status" -ne 0 ] || [ "$size" -ge 4096 ] || {
		size=$((size * 2))
		rm -rf "$MOAT_HOME" "$scratch/try"
		continue
	}
	break
done
rm -rf "$scratch/try"
# Each of them may be a little faster the next time.
head -c "$((size / 2))M" /dev/urandom >>large
check "a verification has a line" drawn '^verifying .*  [0-9]*%'
check "it is cleared at the end" cleared verifying
rm -rf "$MOAT_HOME"
on_terminal 150 "'$MOAT' snapshot create"
check "it succeeds" test "$status" -eq 0
check "the line shows what is done" drawn '^snapshot of .*ws  [0-9]*%  .* of .*[MG]iB  .*/s'
check "it is cleared at the end" cleared 'snapshot of'
snap=$(sed -n 's/^<clear>\(snap_[0-9a-f]\{12\}\)$/\1/p' "$scratch/drawn")
check "where it was, the id stands alone" test -n "$snap"

on_terminal 40 "'$MOAT' snapshot restore --to '$scratch/narrow' $snap"
check "a narrow terminal gets a narrow line" narrower_than 40 '...'
on_terminal 150 "'$MOAT' snapshot restore --to '$scratch/restored' $snap"
check "a restore has one" drawn '^restoring .*restored  [0-9]*%'
check "it is cleared before its last words" cleared restoring
check "which are whole" drawn '^<clear>restored .* put back'

rm -rf "$scratch/narrow" "$scratch/restored"
on_terminal 150 "'$MOAT' snapshot export $snap '$scratch/all.tar.gz'"
check "an export has one" drawn "^exporting $snap  [0-9]*%  .* of .*[MG]iB  .*/s"
check "it is cleared at the end" cleared exporting
rm "$scratch/all.tar.gz"

# An archive that takes long to unpack, and little room.
size=512
while :; do
	truncate -s "${size}M" "$scratch/zeros" && tar -C "$scratch" -czf "$scratch/zeros.tar.gz" zeros && rm "$scratch/zeros"
	on_terminal 150 "'$MOAT' snapshot import '$scratch/zeros.tar.gz'"
	[ "$status" -eq 0 ] && ! drawn '^checking' && [ "$size" -lt 8192 ] || break
	size=$((size * 2))
done
check "an import has one for each part: checking" drawn '^checking .*zeros.tar.gz  [0-9]*%'
check "and unpacking" drawn '^unpacking .*zeros.tar.gz  [0-9]*%'
check "it is cleared at the end" cleared unpacking
on_terminal 150 "gzip -dc '$scratch/zeros.tar.gz' | '$MOAT' snapshot import -"
check "and for what comes through a pipe, of which nobody knows the length" drawn '^reading standard input  [0-9.]* [MG]iB  .*/s'
rm "$scratch/zeros.tar.gz"

# Quiet: asked for, a terminal that cannot, a pipe, something short.
rm -rf "$MOAT_HOME"
on_terminal 90 "'$MOAT' -q snapshot create"
check "-q: nothing" test -z "$(grep 'snapshot of' "$scratch/drawn")"
rm -rf "$MOAT_HOME"
on_terminal 90 "TERM=dumb '$MOAT' snapshot create"
check "a dumb terminal: nothing" test -z "$(grep 'snapshot of' "$scratch/drawn")"
rm -rf "$MOAT_HOME"
expect 0 "piped" snapshot create
check "piped: nothing" test ! -s "$scratch/err"
check "piped: the id alone" test "$(wc -l <"$scratch/out")" -eq 1
rm -rf large "$MOAT_HOME"
echo small >small
on_terminal 90 "'$MOAT' snapshot create"
check "something short: the id and no more" sh -c '[ "$(grep -c . "$1")" -eq 1 ] && grep -q "^snap_" "$1"' - "$scratch/drawn"
finish
