#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# moat plugin list and moat plugin info, with real modules: what they print, where, and the status.
#
# Needs MOAT and MODULES, the directory of the built fixtures.
set -u
failed=0
passed=0
scratch=$(mktemp -d) || exit 99
trap 'rm -rf "$scratch"' EXIT
trap 'exit 99' HUP INT TERM
umask 022
unset MOAT_PLUGIN_PATH
HOME=$scratch XDG_CONFIG_HOME=$scratch/config
export HOME XDG_CONFIG_HOME

mkdir "$scratch/plugins" "$scratch/work" && cd "$scratch/work" || exit 99
for m in runtime-good snapshot-good snapshot-larger tracer-good sandbox-good snapshot-future; do
	cp "$MODULES/$m.so" "$scratch/plugins/$m.so" || exit 99
	chmod 0644 "$scratch/plugins/$m.so" || exit 99
done

# moat STATUS ARGUMENT...: runs it, and checks the status
moat() {
	expected=$1
	shift
	what="moat $*"
	"$MOAT" --plugin-dir "$scratch/plugins" "$@" >"$scratch/out" 2>"$scratch/err"
	rc=$?
	[ $rc -eq "$expected" ] && return
	failed=$((failed + 1))
	echo "FAILED: $what: status $rc, not $expected"
	cat "$scratch/err"
}

# says out|err PATTERN: a line of it matches
says() {
	if grep -q -- "$2" "$scratch/$1"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $what: std$1 lacks: $2"
		cat "$scratch/$1"
	fi
}

moat 0 plugin list
says out '^NAME  *KIND  *VERSION  *USABLE  *SCORE  *PATH'
says out '^good  *runtime  *1\.0  *no  *0  */.*/runtime-good\.so$'
says out '^good  *snapshot  *1\.0  *yes  *50  */'
says out '^future  *snapshot  *-  *refused  *-  */'
says err "warning: .*snapshot-future.so' is not used: built for API version 9"

moat 0 plugin list --explain
says out '^  good bids no: there is no engine in a fixture$'
says out '^  larger bids 50: a fixture$'
says out '^  => good, the best bid'
says out '^  => none: no runtime can work here: good: .*it needs the package fixture-engine'
says out '^  => none: plugin sandbox-none, .* moat-plugin-sandbox-none'
says out 'snapshot-future.so: built for API version 9'

# Each level of precedence: the option over moat.yaml over detection.
printf 'snapshots:\n  backend: larger\n' >moat.yaml
moat 0 plugin list --explain
says out '^  => larger, asked for by .*snapshots.backend'
moat 0 --backend=snapshot:good plugin list --explain
says out '^  => good, asked for by --backend$'
rm moat.yaml
mkdir -p "$XDG_CONFIG_HOME/moat"
printf 'snapshots:\n  backend: larger\n' >"$XDG_CONFIG_HOME/moat/config.yaml"
moat 0 plugin list --explain
says out '^  => larger, asked for by .*snapshots.backend'
printf 'snapshots:\n  backend: future\n' >moat.yaml
moat 0 plugin list --explain
says out '^  => none: plugin snapshot-future, asked for by .* was refused: .*API version 9'
rm -r moat.yaml "$XDG_CONFIG_HOME"

moat 0 --backend=snapshot:absent plugin list --explain
says out '^  => none: plugin snapshot-absent, .* install the package moat-plugin-snapshot-absent'
moat 2 --backend=good plugin list
says err 'runtime:good, snapshot:good, tracer:good, sandbox:good'
moat 2 --backend=largr plugin list
says err "did you mean \`larger'"
moat 2 --backend=engine:good plugin list
says err 'unknown kind'

moat 0 --json plugin list
for field in kind name version api_version path usable score reason; do
	says out "\"$field\": "
	[ "$(grep -c "\"$field\": " "$scratch/out")" -eq 6 ] || {
		failed=$((failed + 1))
		echo "FAILED: $what: $field is not in each of 6 objects"
	}
done
says out '"score": null'
says out '"usable": true'
says out '"reason": "built for API version 9'

moat 0 plugin info runtime-good
for line in kind=runtime name=good version=1.0 api_version=1 license=Apache-2.0 \
	'description=A plugin for the tests' requires_package=fixture-engine \
	capabilities=limits,0x40000000 member.start=yes member.resize=no; do
	says out "^$line\$"
done
moat 0 plugin info larger
says out '^kind=snapshot$'
moat 0 plugin info sandbox:good
says out '^kind=sandbox$'
moat 0 --json plugin info tracer-good
says out '"capabilities": "may-lose"'
says out '"stats": true'
moat 2 plugin info good
says err 'say which'
moat 1 plugin info snapshot-future
says err 'error: .* was refused: built for API version 9'
moat 1 plugin info nothing
says err "there is no plugin \`nothing'"

# No plugin at all: the list works, and says what is missing.
rm "$scratch"/plugins/*
moat 0 plugin list --explain
says out '=> none: no runtime plugin is installed: install the package moat-plugin-runtime-bwrap'
says out 'moat-plugin-snapshot-archive'
says out 'moat-plugin-tracer-netlink'
moat 0 --json plugin list
says out '^\[\]$'

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
