#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What is wrong gets one clear line that says what to do, a fitting status, and leaves workspace and store as they were.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
mkdir "$scratch/ws" && cd "$scratch/ws" || exit 1
must_have_backends
echo content >file
expect 0 "a run to begin with" run -- true
snap=$("$MOAT" snapshot list --json | jq -r '.[0].id')

# refuse STATUS WORDS ARGUMENT...: refused with that status and in those words, on one line, and nothing is changed.
refuse() {
	want=$1
	words=$2
	shift 2
	picture . >"$scratch/p1"
	picture "$MOAT_HOME" >"$scratch/h1"
	moat "$@"
	picture . >"$scratch/p2"
	picture "$MOAT_HOME" >"$scratch/h2"
	if [ "$status" -eq "$want" ]; then pass; else fail "$*: status $status, not $want"; fi
	check "$*: says \`$words'" said "$words"
	check "$*: one line" test "$(grep -c . "$scratch/err")" -eq 1
	check "$*: nothing on stdout" test ! -s "$scratch/out"
	check "$*: the workspace is as it was" cmp -s "$scratch/p1" "$scratch/p2"
	# Directory times of the store may move; what it holds may not.
	tr '\0' '\n' <"$scratch/h1" | grep -av '.d [0-7]* ' >"$scratch/h3"
	tr '\0' '\n' <"$scratch/h2" | grep -av '.d [0-7]* ' >"$scratch/h4"
	check "$*: the store is as it was" cmp -s "$scratch/h3" "$scratch/h4"
}

# --- workspaces
refuse 2 'there is no such directory' run ../nowhere -- true
refuse 2 'whole system' run / -- true
refuse 2 'your home directory' run "$HOME" -- true
refuse 2 'above your home directory' run "$scratch" -- true
refuse 2 "inside moat's own home" run "$MOAT_HOME/runs" -- true
refuse 2 'not a directory' run file -- true
refuse 2 'no such directory' snapshot create --workspace ../nowhere
ln -s "$HOME" "$scratch/link"
refuse 2 'your home directory' run "$scratch/link" -- true

# --- commands
refuse 127 'no-such-command' run -- no-such-command
refuse 127 'nowhere/x' run -- ./nowhere/x
refuse 126 './file' run -- ./file
refuse 126 '/usr' run -- /usr
refuse 2 'no command' run
printf '#!/no/such/interpreter\n' >"$scratch/other" && chmod 755 "$scratch/other" && mv "$scratch/other" script
moat run -- ./script
check "a missing interpreter: 126 or 127" test "$status" -eq 127 -o "$status" -eq 126
rm script

# --- options and configuration
refuse 2 'unknown option' run --no-such-option -- true
refuse 2 'KEY' run -e =x -- true
refuse 2 'memory' run --memory lots -- true
refuse 125 'memory' run --memory 1G -- true
refuse 125 'image' run --image x -- true
refuse 2 'nothing to commit' run --commit success -- true
refuse 2 'one' run --workspace "$scratch/ws" --workspace "$scratch/home" -- true
refuse 125 'sandbox-overlay' run --sandbox overlay -- true
refuse 2 'nobody' --backend=nobody run -- true
refuse 125 'moat-plugin-runtime-docker' --backend=runtime:docker run -- true
refuse 2 'name' run --name '../x' -- true
for yaml in 'a: [' 'comand: x' 'interactive: perhaps' "$(printf 'a\tb: \001')" '- list' 'snapshots: {retention: {max_count: -1}}'; do
	printf '%s\n' "$yaml" >moat.yaml
	refuse 2 'moat.yaml:[12]:[0-9]*: ' run -- true
done
echo 'comand: x' >moat.yaml
moat run -- true
check "the nearest name is offered" said 'command'
rm moat.yaml
refuse 2 'No such' --config "$scratch/none.yaml" run -- true

# --- names
refuse 1 'no run' status nobody
refuse 1 'no snapshot' snapshot show snap_ffffffffffff
refuse 1 'no run' rollback nobody
refuse 1 'neither' snapshot restore "$snap" no/such/file
refuse 2 'absolute' snapshot restore "$snap" /etc/passwd
refuse 2 'several commands\|unknown\|no command' nonsense

# --- a sandbox that cannot be had
nobwrap=$scratch/config && mkdir -p "$nobwrap/moat"
XDG_CONFIG_HOME=$nobwrap && export XDG_CONFIG_HOME
printf 'plugins: {runtime-bwrap: {bwrap: %s/none}}\n' "$scratch" >"$nobwrap/moat/config.yaml"
refuse 125 'bubblewrap\|bwrap' run -- true
unset XDG_CONFIG_HOME
# Where the caller is mapped alone, root's files are nobody's: the plugins must be the caller's own.
alone() {
	unshare -U --map-user="$(id -u)" --map-group="$(id -g)" --keep-caps sh -c 'echo 0 >/proc/sys/user/max_user_namespaces &&
		exec setpriv --inh-caps=-all --ambient-caps=-all "$@"' - "$@"
}
if [ "$(id -u)" -ne 0 ]; then
	must_have alone true
	mkdir "$scratch/plugins"
	"$MOAT" plugin list --json | jq -r '.[].path' | while read -r path; do
		cp "$path" "$scratch/plugins"
		for init in "${path%/*}/runtime-bwrap-init" "${path%/*}/../runtime-bwrap-init"; do
			[ ! -f "$init" ] || cp "$init" "$scratch/plugins"
		done
	done
	MOAT_PLUGIN_PATH=$scratch/plugins
	export MOAT_PLUGIN_PATH
	alone "$MOAT" run -- true >"$scratch/out" 2>"$scratch/err"
	status=$?
	check "user namespaces forbidden: 125" test "$status" -eq 125
	check "user namespaces forbidden: names the switch" said 'max_user_namespaces'
	check "user namespaces forbidden: one line" test "$(grep -c . "$scratch/err")" -eq 1
	unset MOAT_PLUGIN_PATH
fi
mkdir "$scratch/closed" && chmod 000 "$scratch/closed"
PATH="$scratch/closed:$PATH" "$MOAT" run -- no-such-command >"$scratch/out" 2>"$scratch/err" </dev/null
check "a PATH with a closed directory: 127 all the same" test $? -eq 127

# --- damaged snapshots
echo more >>file
expect 0 "another snapshot" snapshot create
last=$(cat "$scratch/out")
store=$(dirname "$(find "$MOAT_HOME" -name "$last.tar.lz4")")
echo again >>file
expect 0 "verify a sound store" snapshot verify
damaged() { # WHAT WORDS: the store as it is must make a restore fail with nothing changed
	picture . >"$scratch/p1"
	moat snapshot restore --no-safety "$last"
	picture . >"$scratch/p2"
	check "$1: status 1" test "$status" -eq 1
	check "$1: says so" said "$2"
	check "$1: one line" test "$(grep -c . "$scratch/err")" -eq 1
	check "$1: the workspace is as it was" cmp -s "$scratch/p1" "$scratch/p2"
	expect 1 "$1: verify finds it" snapshot verify --json "$last"
	check "$1: verify says so" jq -e '.[0].ok == false and (.[0].damaged | length > 0)' "$scratch/out" >/dev/null
}
cp "$store/$last.tar.lz4" "$scratch/saved"
size=$(stat -c %s "$scratch/saved")
rm "$store/$last.tar.lz4"
damaged "its file is gone" "$last"
head -c $((size / 2)) "$scratch/saved" >"$store/$last.tar.lz4"
damaged "truncated" "$last"
for at in 20 $((size / 3)) 60; do
	cp "$scratch/saved" "$store/$last.tar.lz4"
	byte=$(od -An -tu1 -j "$at" -N 1 "$scratch/saved" | tr -d ' ')
	# shellcheck disable=SC2059
	printf "\\$(printf %03o $((byte ^ 4)))" | dd of="$store/$last.tar.lz4" bs=1 seek="$at" conv=notrunc 2>/dev/null
	moat snapshot restore --no-safety "$last"
	cp file "$scratch/out"
	check "a flipped bit at $at: restored right or refused (status $status)" \
		sh -c 'if [ "$1" -eq 0 ]; then [ "$(cat file)" = "$2" ]; else [ "$1" -eq 1 ] && grep -q again file; fi' - \
		"$status" "$(printf 'content\nmore')"
	echo again >>file
done
cp "$scratch/saved" "$store/$last.tar.lz4"
record=$(find "$MOAT_HOME" -path "*/snapshots/$last/manifest")
cp "$record" "$scratch/manifest"
printf x | dd of="$record" bs=1 seek=40 conv=notrunc 2>/dev/null
damaged "a damaged manifest" "manifest"
cp "$scratch/manifest" "$record"
# The name that the backend gave is what one of its own could be, or cannot be one.
written=$(dirname "$record")/snapshot.json
cp "$written" "$scratch/written"
for ref in snap_000000000000 soap_000000000000; do
	sed 's/"ref": "[^"]*"/"ref": "'$ref'"/' "$scratch/written" >"$written"
	expect 1 "another reference: verify finds it" snapshot verify "$last"
	check "another reference: verify says where" printed 'snapshot.json'
done
cp "$scratch/written" "$written"
expect 0 "whole again, it restores" snapshot restore --no-safety "$last"
check "with its content" test "$(sed -n 2p file)" = more

# --- libgit2 is not there: no matter, until a configuration needs it
program=$(dirname "$MOAT")/core/moat
[ -e "$program" ] || program=$MOAT
library=$(grep -ao 'libgit2\.so\.[0-9.]*[0-9]' "$program" | head -n 1)
mkdir "$scratch/lib" "$scratch/git" && : >"$scratch/lib/$library" && cd "$scratch/git" && git init -q . || exit 1
check "the program names the library that it loads" test -n "$library"
LD_LIBRARY_PATH=$scratch/lib
export LD_LIBRARY_PATH
expect 0 "without libgit2" snapshot create
git config include.path ../included
expect 1 "with a configuration that needs it" snapshot create
check "it is named, and what to do" said "libgit2 is needed .*install the package"
unset LD_LIBRARY_PATH
expect 0 "and with it" snapshot create
cd "$scratch/ws" || exit 1

# --- a full disk, for real
if [ "$(id -u)" -eq 0 ]; then
	mkdir "$scratch/full"
	mount -t tmpfs -o size=2m tmpfs "$scratch/full"
	trap 'umount "$scratch/full"; clean_up' EXIT
	head -c 3000000 /dev/urandom >big
	picture . >"$scratch/p1"
	MOAT_HOME=$scratch/full/moat "$MOAT" run -- sh -c 'echo must not run >ran' >"$scratch/out" 2>"$scratch/err"
	status=$?
	picture . >"$scratch/p2"
	check "full disk while snapshotting: 125" test "$status" -eq 125
	check "full disk: says so" said 'No space left'
	check "full disk: nothing was started" test ! -e ran
	check "full disk: the workspace is as it was" cmp -s "$scratch/p1" "$scratch/p2"
	check "full disk: no half snapshot" test -z "$(find "$scratch/full" -name 'snap_*' -o -name '.new*')"
	check "full disk: no run" test -z "$(find "$scratch/full/moat/runs" -name 'run_*')"
fi
finish
