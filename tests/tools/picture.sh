#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The walker that other tests trust: each thing that it claims to see is changed, and it must see it.
set -u
: "${PICTURE:?set PICTURE to the program}"
LC_ALL=C
export LC_ALL
scratch=$(mktemp -d) || exit 1
trap 'chmod -R u+rwx "$scratch"; rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
failed=0
checks=0

fail() {
	echo "FAILED: $1"
	failed=$((failed + 1))
}

# seen WHAT COMMAND...: the picture of t must change with the command.
seen() {
	what=$1
	shift
	before=$("$PICTURE" --sparse --digest t)
	"$@" || { fail "$what: cannot be done"; return; }
	checks=$((checks + 1))
	[ "$("$PICTURE" --sparse --digest t)" != "$before" ] || fail "$what is not seen"
}

# same WHAT COMMAND...: it must not.
same() {
	what=$1
	shift
	before=$("$PICTURE" --digest t)
	"$@" || { fail "$what: cannot be done"; return; }
	checks=$((checks + 1))
	[ "$("$PICTURE" --digest t)" = "$before" ] || fail "$what changes the picture"
}

keep_time() { # FILE COMMAND...
	file=$1
	shift
	touch -r "$file" stamp && "$@" && touch -r stamp "$file"
}

deep() {
	(
		cd t || exit 1
		name=$(printf '%0200d' 0)
		for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
			mkdir "$name" && cd -P "./$name" 2>/dev/null || exit 1
		done
		echo x >bottom
	)
}

mkdir -p t/d && printf 'one' >t/a && printf 'two' >t/b && ln t/a t/a2 && ln -s target t/l && mkfifo t/p
newline=$(printf 'odd\nname \\\377')
touch "t/$newline"
same 'nothing' true
same 'an access' grep -q one t/a
same 'a copy' cp -a t copy
checks=$((checks + 1))
[ "$("$PICTURE" --digest t)" = "$("$PICTURE" --digest copy)" ] || fail 'a copy differs'
seen 'content of the same size and time' keep_time t/b sh -c 'printf owt >t/b'
seen 'a mode' chmod 640 t/b
seen 'the mode of a directory' chmod 750 t/d
seen 'a time' touch -d '2001-02-03 04:05:06.000000007' t/b
seen 'a nanosecond' touch -d '2001-02-03 04:05:06.000000008' t/b
seen 'the time of a link' touch -h -d '2001-02-03 04:05:06.5' t/l
seen 'the time of a directory' touch -d '1969-02-03 04:05:06.5' t/d
seen 'the text of a link' sh -c 'ln -sfn targeu t/l && touch -h -d "2001-02-03 04:05:06.5" t/l'
# The same number of links, other partners.
ln t/b t/b2
seen 'who is linked with whom' sh -c 'touch -r t t.time
	mv t/a2 x && mv t/b2 t/a2 && mv x t/b2 && touch -r t.time t'
seen 'a type' sh -c 'rm t/p && touch t/p'
seen 'a name' sh -c 'touch -r t t.time; mv t/p t/q; touch -r t.time t'
seen 'a hole' keep_time t/q truncate -s 1M t/q
if setfattr -n user.test -v one t/b 2>/dev/null; then
	seen 'an attribute' setfattr -n user.test -v two t/b
	seen 'an attribute that goes' setfattr -x user.test t/b
	[ -z "$(getfattr t/b)" ] || fail 'the attribute has not gone'
fi
if setfacl -m u:12345:r t/b 2>/dev/null; then
	seen 'an access control list' setfacl -m u:12346:r t/b
	seen 'a default access control list' setfacl -d -m u:12345:r t/d
fi
[ "$(id -u)" -ne 0 ] || seen 'an owner' chown 12345 t/b
seen 'the bottom of a path that is longer than PATH_MAX' deep
checks=$((checks + 1))
[ "$("$PICTURE" t | awk 'length($1) > 5000 && / f 0/' | wc -l)" -eq 1 ] || fail 'the deep file is not shown'
checks=$((checks + 1))
[ "$("$PICTURE" t | wc -l)" -eq "$("$PICTURE" --without='none*' t | grep -c '^\.')" ] || fail 'a name breaks lines'
mkdir t/.moat-txn_1 && touch t/.moat-txn_1/x
checks=$((checks + 1))
case $("$PICTURE" --without='.moat-txn_*' t) in
*moat*) fail 'what is to be left out is shown' ;;
esac
mkdir t/closed && echo secret >t/closed/in && chmod 0 t/closed/in t/closed
seen 'a closed directory with --open' sh -c '"$0" --open t >shown && mkdir t/other' "$PICTURE"
checks=$((checks + 1))
grep -q '^./closed/in f 0000 .* [0-9a-f]\{64\}$' shown || fail '--open does not open'
checks=$((checks + 1))
[ "$(stat -c %a t/closed)" = 0 ] || fail '--open leaves open'
checks=$((checks + 1))
! "$PICTURE" absent | grep -qv '!2$' || fail 'what is absent is not told'
echo "$checks checks"
[ $failed -eq 0 ]
