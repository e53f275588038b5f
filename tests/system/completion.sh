#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What shells offer: `moat complete', and the functions of bash, zsh and fish that ask it.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
must_have "$MOAT" plugin info snapshot-archive
must_have jq --version
mkdir "$scratch/ws" "$scratch/bin" && cd "$scratch/ws" || exit 1
printf '#!/bin/sh\nexec "%s" "$@"\n' "$MOAT" >"$scratch/bin/moat" && chmod 755 "$scratch/bin/moat" || exit 1
PATH=$scratch/bin:$PATH

# offers WORD... : the candidates for the last of the words, one line each.
offers() {
	"$MOAT" complete -- "$@" 2>"$scratch/err" | cut -f 1 >"$scratch/out"
}
offered() { # CANDIDATE: exactly that line
	grep -qxe "$1" "$scratch/out"
}

offers ''
check "nothing is made for it" test ! -e "$MOAT_HOME"
for word in run snapshot rollback undo ps snapshots completion; do
	check "commands: $word" offered "$word"
done
check "no hidden one" test -z "$(grep -x complete "$scratch/out")"
check "all that help lists" sh -c '"$1" help | awk "/^Commands:/ { on = 1; next } on && /^  [a-z]/ { print \$1 }" | sort -u |
	while read -r word; do grep -qxe "$word" "$2" || exit 1; done' - "$MOAT" "$scratch/out"
offers sna
check "by their beginning" test "$(sort "$scratch/out" | tr '\n' ' ')" = "snapshot snapshots "
offers snapshot ''
check "subcommands" offered restore
check "and what the command itself takes" test "$(grep -c '^create$' "$scratch/out")" -eq 1
offers snapshot restore --
for word in --to= --dry-run --no-safety --home= --json; do check "options: $word" offered "$word"; done
check "but those of others" test -z "$(grep -e --keep "$scratch/out")"
offers --color=a
check "values in the same word" test "$(tr '\n' ' ' <"$scratch/out")" = "--color=auto --color=always "
offers --color n
check "values in the next" test "$(cat "$scratch/out")" = never
offers logs --stream ''
check "of a command" offered stderr
offers snapshot restore --to ''
check "directories" offered :directories
offers snapshot import ''
check "files" offered :files
offers run -- ls ''
check "the command's own words are files" test "$(cat "$scratch/out")" = :files
offers --backend ''
for word in archive snapshot:archive; do check "plugins: $word" offered "$word"; done
offers plugin info sna
check "plugins by kind and name" offered snapshot-archive
offers completion ''
check "shells" test "$(tr '\n' ' ' <"$scratch/out")" = "bash zsh fish "
offers nonsense ''
check "nothing for what is unknown" test ! -s "$scratch/out"
offers snapshot restore ''
check "no snapshots, and none made" test ! -s "$scratch/out" -a ! -e "$MOAT_HOME"

esc=$(printf '\033')
one=$("$MOAT" -q snapshot create --label "two
lines ${esc}[31m")
two=$("$MOAT" -q snapshot create)
offers snapshot restore ''
check "snapshots" test "$(sort "$scratch/out" | tr '\n' ' ')" = "$(printf '%s\n' "$one" "$two" | sort | tr '\n' ' ')"
check "no control byte of a label's" test -z "$("$MOAT" complete -- snapshot restore '' | tr -d '\t\n' | grep "[[:cntrl:]]")"
offers snapshot restore "$one" ''
check "then paths" offered :files
offers snapshot diff "$one" snap_
check "a second snapshot" offered "$two"
offers snapshot diff "$one" "$two" ''
check "and no third" test ! -s "$scratch/out"
offers --home "$scratch/none" snapshot restore ''
check "of the home that is given" test ! -s "$scratch/out" -a ! -e "$scratch/none"

# -- bash
must_have bash --version
must_have shellcheck --version
in_bash() { # LINE: COMPREPLY for it, a candidate on each line
	bash --norc -c 'eval "$(moat completion bash)" || exit 1
		COMP_LINE=$1 COMP_POINT=${#1} && _moat && printf "%s\n" "${COMPREPLY[@]}"' - "$1" >"$scratch/out" 2>"$scratch/err"
}
# shellcheck disable=SC2016
check "bash: shellcheck has nothing to say" sh -c '"$1" completion bash | shellcheck -s bash -' - "$MOAT"
touch 'a file' && mkdir 'a directory'
in_bash 'moat snapshot resto'
check "bash: a command" offered restore
in_bash 'moat --color=al'
check "bash: what follows the =" test "$(cat "$scratch/out")" = always
in_bash 'moat snapshot restore --'
check "bash: options" offered --to=
in_bash 'moat --backend snapshot:ar'
check "bash: what follows the colon" test "$(cat "$scratch/out")" = archive
in_bash 'moat snapshot import a'
check "bash: files with spaces" test "$(sort "$scratch/out" | tr '\n' ',')" = "a directory,a file,"
in_bash 'moat snapshot restore --to=a'
check "bash: directories" test "$(cat "$scratch/out")" = "a directory"
in_bash 'moat snapshot show '
check "bash: snapshots" offered "$one"

# -- fish, by its own means
must_have fish --version
in_fish() {
	HOME=$scratch/home fish --no-config -c 'moat completion fish | source; complete -C $argv[1]' "$1" 2>"$scratch/err" |
		cut -f 1 >"$scratch/out"
}
in_fish 'moat snapshot resto'
check "fish: a command" offered restore
in_fish 'moat snapshot show snap_'
check "fish: snapshots" offered "$one"
in_fish 'moat --color=al'
check "fish: values" offered --color=always
in_fish 'moat snapshot import a\ '
check "fish: files" offered 'a file'

# -- zsh: the function, with its completion system's own functions replaced by such that print
must_have zsh --version
in_zsh() { # WORD...
	zsh -f -c 'compdef() { :; }; compset() { :; }; _files() { print -r -- ":files $*"; }
		_describe() { local list=$3; print -rl -- ${${(P)list}%%:*}; }
		eval "$(moat completion zsh)"
		words=("$@") CURRENT=$#; _moat' - "$@" >"$scratch/out" 2>"$scratch/err"
}
in_zsh moat snapshot resto
check "zsh: a command" offered restore
in_zsh moat snapshot restore --t
check "zsh: options" offered --to=
in_zsh moat snapshot import ''
check "zsh: files" grep -q '^:files' "$scratch/out"
in_zsh moat snapshot restore --to=
check "zsh: directories" grep -q '^:files -/' "$scratch/out"
in_zsh moat snapshot show ''
check "zsh: snapshots" offered "$one"
expect 2 "another shell" completion tcsh
check "which there are" said 'bash, zsh and fish'
finish
