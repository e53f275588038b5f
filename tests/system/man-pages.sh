#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The man pages tell of the commands, options and keys that the program has: all, and no others.
# $MOAT: the program; $srcdir: this directory.
set -eu

: "${MOAT:?}" "${srcdir:?}"
top=$(CDPATH='' cd -- "$srcdir/../.." && pwd)
docs=$top/docs
work=$(mktemp -d "${TMPDIR:-/tmp}/man-pages.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work"

# "COMMAND OPTION" lines, the command being empty for global options: what --help shows.
options_of() { # WORDS-OF-COMMAND HEADING-OF-ITS-OPTIONS
	# shellcheck disable=SC2086
	"$MOAT" help $1 | awk -v command="$1" -v heading="$2" '
		$0 == heading { inside = 1; next }
		/^$/ { inside = 0 }
		inside && /^ +-/ {
			for (i = 1; i <= NF && $i ~ /^-/; i++) {
				sub(/[[=,].*/, "", $i)
				print command " " $i
			}
		}'
}

# "  snapshot list (snapshots)   text"; what does not fit on the line has its text on the next.
"$MOAT" help | awk '
	/^Commands:/ { inside = 1; next }
	/^$/ { inside = 0 }
	inside && /^  [a-z]/ {
		sub(/^  /, "")
		sub(/( \(|  ).*$/, "")
		print
	}' >commands
[ -s commands ] || { echo "moat help lists no commands" >&2; exit 1; }
{
	options_of '' 'Options, before or after the command:'
	while IFS= read -r command; do
		options_of "$command" 'Options:'
	done <commands
} | sort >help.options
sort -o commands commands

# The same from moat.1: the subsections of COMMANDS, and their .It lines.
awk '/^\.Sh/ { inside = $2 == "COMMANDS" } inside && sub(/^\.Ss /, "")' "$docs/moat.1" |
	sort >man.commands
awk '
	/^\.Sh/ { inside = $2 == "COMMANDS" }
	/^\.Ss Global options/ { inside = 1; command = ""; next }
	/^\.Ss/ { command = substr($0, 5) }
	inside && /^\.It Fl/ {
		for (i = 2; i < NF; i++)
			if ($i == "Fl")
				print command " -" $(i + 1)
	}' "$docs/moat.1" | sort >man.options

# Keys: the table of the configuration, and the .It lines of moat.yaml.5.
sed -n '/conf_rule rules\[\]/,/^};/s/^	{"\([a-z_.]*\)".*/\1/p' "$top/core/config.c" | sort >keys
[ -s keys ] || { echo "core/config.c has no table of keys" >&2; exit 1; }
sed -n 's/^\.It Va //p' "$docs/moat.yaml.5" | sort >man.keys

status=0
same() { # WHAT PROGRAM'S MANUAL'S
	diff "$2" "$3" >difference || {
		echo "$1: the program (<) and the manual (>) differ:"
		cat difference
		status=1
	} >&2
}
same "commands of moat.1" commands man.commands
same "options of moat.1" help.options man.options
same "keys of moat.yaml.5" keys man.keys
echo "$(wc -l <commands) commands, $(wc -l <help.options) options, $(wc -l <keys) keys"
exit $status
