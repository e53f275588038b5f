#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The command line of the real binary: help, usage errors, what goes to stdout and what to stderr,
# output that cannot be written, standard streams that are closed.  $MOAT is the moat to test.
set -u
: "${MOAT:?set MOAT to the moat to test}"
case $MOAT in
/*) ;;
*/*) MOAT=$PWD/$MOAT ;;
esac

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$scratch/home" "$scratch/ws" || exit 1
cd "$scratch/ws" || exit 1
HOME=$scratch/home MOAT_HOME=$scratch/moat
export HOME MOAT_HOME
unset XDG_CONFIG_HOME XDG_STATE_HOME NO_COLOR

passed=0 failed=0
out=$scratch/out err=$scratch/err
escape=$(printf '\033')

# result DESCRIPTION STATUS: counts, and shows what was seen when it is not 0.
result() {
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $1 (status $status)"
		sed 's/^/  stdout: /' "$out"
		sed 's/^/  stderr: /' "$err"
	fi
}

# moat ARGUMENT...: runs it, leaving $status, $out and $err.
moat() {
	"$MOAT" "$@" >"$out" 2>"$err" </dev/null
	status=$?
}

# data WHAT: it succeeded, with something on stdout and nothing on stderr.
data() {
	[ "$status" -eq 0 ] && [ -s "$out" ] && [ ! -s "$err" ]
	result "$1" $?
}

# complaint WHAT STATUS TEXT: nothing on stdout, and one line on stderr that has the text.
complaint() {
	[ "$status" -eq "$2" ] && [ ! -s "$out" ] && [ "$(wc -l <"$err")" -eq 1 ] &&
		grep -q '^moat: error: ' "$err" && grep -qF -e "$3" "$err"
	result "$1" $?
}

# ------------------------------------------------------------------------------------------ help
moat
[ "$status" -eq 2 ] && [ ! -s "$out" ] && grep -q '^Usage: moat ' "$err"
result "moat alone shows the help on stderr" $?
moat --help
data "moat --help"
cp "$out" "$scratch/main"
for form in -h help; do
	moat $form
	data "moat $form"
	cmp -s "$out" "$scratch/main"
	result "moat $form is moat --help" $?
done

# The commands as the main help lists them.
sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z ]*[a-z]\).*/\1/p' "$scratch/main" |
	sed 's/   .*//' >"$scratch/commands"
[ "$(wc -l <"$scratch/commands")" -ge 18 ]
result "the main help lists the commands" $?
while read -r command; do
	# shellcheck disable=SC2086 # two words when it is a subcommand
	set -- $command
	moat help "$@"
	data "moat help $command"
	cp "$out" "$scratch/help"
	grep -q "^Usage: moat $command" "$scratch/help"
	result "moat help $command names it" $?
	awk 'length > 80 { bad = 1 } END { exit bad }' "$scratch/help"
	result "moat help $command fits 80 columns" $?
	moat "$@" --help
	cmp -s "$out" "$scratch/help"
	result "moat $command --help is moat help $command" $?
	for option in --home --config --plugin-dir --backend --json --color --verbose --quiet --help; do
		grep -qe "$option" "$scratch/help"
		result "moat help $command has $option" $?
	done
done <"$scratch/commands"

# The options of the contract.
while read -r command options; do
	command=$(echo "$command" | tr _ ' ')
	# shellcheck disable=SC2086
	moat $command --help
	for option in $options; do
		grep -qE -e "(^| )$option([=, ]|\$)" "$out"
		result "moat $command --help has $option" $?
	done
done <<'OPTIONS'
run -i -t -e -m --interactive --tty --name --env --mount --workspace --sandbox --commit --image --network --memory --cpus --no-snapshot --no-trace --rm --dry-run
list -a --all
ps -a --all
logs -f -n --follow --lines --since --stream
snapshot --label --workspace
snapshot_create --label --workspace
snapshot_list --workspace
snapshots --workspace
snapshot_restore --to --dry-run --no-safety
rollback --to --dry-run
trace --tree --follow
plugin_list --explain
OPTIONS

# --------------------------------------------------------------------------------------- version
moat --version
data "moat --version"
grep -qE '^moat [0-9]+\.[0-9]+\.[0-9]+$' "$out"
result "moat --version has a version" $?
cp "$out" "$scratch/version"
moat version
cmp -s "$out" "$scratch/version"
result "moat version is moat --version" $?
moat version --json
data "moat version --json"
grep -q '"version": "[0-9]' "$out" && grep -q '"api_version": [0-9]' "$out"
result "moat version --json has both versions" $?

# ---------------------------------------------------------------------------------- usage errors
# The words, and a text of the complaint, separated by `|'.
while IFS='|' read -r words text; do
	# shellcheck disable=SC2086
	moat $words
	complaint "moat $words" 2 "$text"
done <<'WORDS'
frobnicate|unknown command `frobnicate'
lst|did you mean `list'?
list --al|did you mean `--all'?
list -x|unknown option `-x'; see `moat list --help'
list extra|unexpected argument `extra'
-a list|unknown option `-a'
run --sandbx none -- true|did you mean `--sandbox'?
run make test|stands after `--'
run make -j4|stand after `--'
run --|no command follows `--'
run --name|--name needs a value
run --name -- true|--name needs a value
run --network=maybe -- true|`maybe' is none of none, open
status|`status' needs an argument
status a b|unexpected argument `b'
logs --stream=both x|`both' is none of stdout, stderr
snapshot restore|`snapshot restore' needs an argument
snapshot create a b|unexpected argument `b'
rollback|`rollback' needs an argument
plugin|`plugin' needs a subcommand: list, info
plugin lst|did you mean `list'?
list --json=yes|--json takes no value
--color=blue list|`blue' is none of auto, always, never
--home|--home needs a value
-q -v version|exclude each other
help nothing|there is no command `nothing'
help snapshot nothing|there is no command `snapshot nothing'
WORDS
moat "$(printf 'a\033[31mb\nc\tx')"
complaint "control bytes of an argument are escaped" 2 'a\033[31mb\nc\tx'
moat ''
complaint "an empty command" 2 "unknown command"

# ----------------------------------------------------------------------------- an empty home, --json
moat list --json
data "moat list --json without runs"
[ "$(tr -d ' \n' <"$out")" = '[]' ]
result "moat list --json without runs is an empty array" $?
moat list
[ "$status" -eq 0 ] && ! grep -q "$escape" "$out"
result "moat list has no colours in a file" $?
moat status nothing
complaint "moat status of a run that is not there" 1 nothing

# --------------------------------------------------------------------- output that cannot be written
# (Without runs, the plain list has nothing for stdout.)
if [ -c /dev/full ]; then
	for words in 'list --json' version --help 'help run' 'version --json'; do
		: >"$out"
		# shellcheck disable=SC2086
		"$MOAT" $words >/dev/full 2>"$err" </dev/null
		status=$?
		complaint "moat $words >/dev/full" 1 'write to standard output: '
	done
fi
mkfifo "$scratch/fifo" || exit 1
: <"$scratch/fifo" &
reader=$!
exec 3>"$scratch/fifo"
wait "$reader"
: >"$out"
"$MOAT" --help >&3 2>"$err" </dev/null
status=$?
exec 3>&-
complaint "a reader that has gone" 1 'write to standard output: Broken pipe'

# ------------------------------------------------------------------------------- closed streams
: >"$out"
"$MOAT" version <&- >"$out" 2>"$err"
status=$?
data "closed stdin"
"$MOAT" list <&- >"$out" 2>"$err"
status=$?
[ "$status" -eq 0 ]
result "closed stdin, with files to open" $?
: >"$out"
"$MOAT" version >&- 2>"$err"
status=$?
complaint "closed stdout" 1 'write to standard output: '
"$MOAT" version >"$out" 2>&-
status=$?
: >"$err"
data "closed stderr"
: >"$out"
"$MOAT" frobnicate >"$out" 2>&-
status=$?
[ "$status" -eq 2 ] && [ ! -s "$out" ]
result "closed stderr and a complaint" $?
"$MOAT" list --json <&- >&- 2>&-
status=$?
[ "$status" -eq 1 ]
result "all closed" $?

echo "cli: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
