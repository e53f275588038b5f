#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# moat/plugin.h compiles alone, as pedantic C99 and as C++, without a warning, by every compiler
# that is here; and a plugin in each language, built from nothing but that header, is loaded by
# moat.
#
# Needs CC, CXX, MOAT, top_srcdir.  A compiler that is missing is a skip, and with MOAT_MUST_WORK=1
# a failure; the others are tried all the same.
set -u
missing=
failed=0
passed=0
scratch=$(mktemp -d) || exit 99
trap 'rm -rf "$scratch"' EXIT
trap 'exit 99' HUP INT TERM
: "${top_srcdir:?}"
sdk=$top_srcdir/sdk
here=$top_srcdir/tests/sdk
strict='-pedantic-errors -Wall -Wextra -Werror'

# try WHAT COMMAND...
try() {
	what=$1
	shift
	if "$@" >"$scratch/out" 2>&1; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "FAILED: $what: $*"
		cat "$scratch/out"
	fi
}

# have COMMAND: whether the first word of it can be run
have() {
	command -v "$1" >/dev/null 2>&1 && return 0
	missing="$missing $1"
	return 1
}

# load KIND-NAME FILE: moat takes it, and knows it by name
load() {
	mkdir -m 0755 "$scratch/plugins" && cp "$2" "$scratch/plugins/$1.so" &&
		chmod 0755 "$scratch/plugins/$1.so" &&
		"$MOAT" --plugin-dir "$scratch/plugins" plugin info "$1" >"$scratch/info"
	rc=$?
	rm -rf "$scratch/plugins"
	[ $rc -eq 0 ] || return 1
	for line in "name=${1#*-}" "kind=${1%%-*}" api_version=1 member.start=yes; do
		grep -qx "$line" "$scratch/info" || return 1
	done
}

printf '#include <moat/plugin.h>\n' >"$scratch/alone.c"
cp "$scratch/alone.c" "$scratch/alone.cc"
# Twice, and from two units of one program: nothing in it is defined, or defined more than once.
cat "$scratch/alone.c" "$scratch/alone.c" - >"$scratch/main.c" <<-END
	int main(void) { return 0; }
END
umask 022
unset MOAT_PLUGIN_PATH

# $CC may hold flags ("gcc -m32"), so it is split; the usual two are tried besides.
for cc in "$CC" gcc clang; do
	have $cc || continue
	for std in c99 c11 gnu17; do
		try "alone, $std" $cc -std=$std $strict -I"$sdk" -c "$scratch/alone.c" \
			-o "$scratch/alone.o"
	done
	try "two units" $cc -std=c99 $strict -I"$sdk" "$scratch/main.c" \
		"$scratch/alone.c" -o "$scratch/two"
	try "a plugin in C99" $cc -std=c99 $strict -fPIC -shared -Wl,-z,defs -I"$sdk" \
		"$here/plugin-c99.c" -o "$scratch/c99.so"
	try "moat loads it" load tracer-good "$scratch/c99.so"
done

for cxx in "$CXX" g++ clang++; do
	have $cxx || continue
	for std in c++11 c++17; do
		try "alone, $std" $cxx -std=$std $strict -I"$sdk" -c "$scratch/alone.cc" \
			-o "$scratch/alone.o"
		try "a plugin in $std" $cxx -std=$std $strict -fPIC -shared -I"$sdk" \
			"$here/plugin-cxx.cc" -o "$scratch/cxx.so"
		try "moat loads it" load tracer-cxx "$scratch/cxx.so"
	done
done

echo "$passed passed, $failed failed; compilers missing:${missing:- none}"
[ $failed -eq 0 ] || exit 1
[ -z "$missing" ] && exit 0
[ "${MOAT_MUST_WORK:-0}" = 1 ] && exit 1
exit 77
