#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A rollback over everything that is awkward, checked by other means than moat's own: identical afterwards, and nothing
# that the snapshot did not hold is touched.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
mkdir "$scratch/ws" && cd "$scratch/ws" || exit 1
must_have_backends

git init -q .
printf '.env\nnode_modules/\n*.log\n!keep.log\n/tracked-though-ignored\n' >.gitignore
echo SECRET=1 >.env
mkdir -p node_modules/pkg sub/deep/er .venv/bin empty 'name with spaces' && echo x >node_modules/pkg/index.js
echo forced >tracked-though-ignored && git add -f tracked-though-ignored && git add .gitignore
echo dirty >>.git/description
echo a >sub/deep/er/file && echo kept >keep.log && echo noise >noise.log
ln -s /usr/bin/python3 .venv/bin/python
ln -s nowhere/at/all dangling
ln -s loop loop
ln -s sub/deep link-to-dir
mkdir ..data ...dots && echo k8s >..data/value && ln -s ..data/value value
echo one >hard1 && ln hard1 hard2 && ln hard1 sub/hard3
truncate -s 3000000 sparse && printf x | dd of=sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null
odd=$(printf 'odd\001\033[31m\377\nname')
echo odd >"$odd"
echo nl >"$(printf 'new\nline')" && echo dash >-rf && echo star >'*' && echo back >'a\b'
long=$(printf '%0255d' 7)
echo long >"$long"
printf '#!/bin/sh\n' >script && chmod 755 script
echo ro >read-only && chmod 444 read-only
mkdir shut && echo in >shut/file && mkdir locked && echo in >locked/file && mkdir locked/inner && echo deep >locked/inner/file
mkfifo fifo
perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => "sock", Listen => 1) or die' 2>/dev/null || echo "no socket made"
: >nothing
touch -d '1999-12-31 23:59:59.123456789' hard1 sub/deep/er/file empty
touch -h -d '1985-10-26 01:21:00.5' dangling .venv/bin/python
touch -d '1970-01-01 00:00:00 UTC' nothing
mkdir unread && echo private >unread/private && mkdir unread/sub && echo more >unread/sub/more && chmod 000 unread
chmod 0700 empty
chmod 0555 locked/inner locked
touch -d '2003-03-03' sub unread .
picture . >"$scratch/before"
links . >"$scratch/links"
find sparse -printf '%b\n' >"$scratch/blocks"

moat run -- sh -c '
	set -e
	chmod 755 locked locked/inner; echo changed > locked/file; rm -r locked/inner; chmod 700 locked
	rm hard2; echo other > hard2; echo more >> hard1
	rm -r sub; echo "now a file" > sub
	rm dangling; mkdir dangling; echo x > dangling/file
	rm link-to-dir; ln -s elsewhere link-to-dir
	rm .venv/bin/python; cp /bin/true .venv/bin/python
	rm -rf ..data value; echo v > value
	truncate -s 10 sparse
	rm -- -rf "*" "a\\b"
	rm odd*; rm 0000*; rm new*
	chmod 600 script; chmod 644 read-only; echo rw > read-only; chmod 000 nothing
	chmod 000 shut
	chmod 755 unread; echo by-the-run >unread/new; chmod 700 unread
	rmdir empty; echo "not a directory" > empty
	rm keep.log tracked-though-ignored
	mkdir -p added/deep; echo added > added/deep/file; ln -s added added-link
	echo "*.txt" >> .gitignore; echo a > ignored-now.txt
	mkdir -p built/out; echo log > built/out/x.log; echo src > built/src
	touch name\ with\ spaces/inside
'
check "the run" test "$status" -eq 0
# What the snapshot does not hold, changed since: this must stay as it is now.
echo CHANGED=2 >>.env && echo y >node_modules/new.js && rm -f node_modules/pkg/index.js && echo later >>noise.log
echo more >>.git/description && echo hook >.git/hooks/x
uncaptured() {
	find .env node_modules noise.log .git fifo sock built/out/x.log -printf '%p %y %m %s %T@ %C@ %i\n' 2>/dev/null | sort
	cat .env noise.log .git/description
}
uncaptured >"$scratch/uncaptured"

run=$("$MOAT" list -a --json | jq -r '.[0].id')
expect 0 "rollback" rollback "$run"
uncaptured >"$scratch/uncaptured-now"
if [ "$(id -u)" -ne 0 ]; then # Root could read it, and so it was captured.
	check "a directory that could not be read is 000 again" test "$(stat -c %a unread)" = 0
	chmod 700 unread
	check "and what was in it is there" test "$(cat unread/private unread/sub/more unread/new)" = "$(printf 'private\nmore\nby-the-run')"
	rm unread/new && touch -d '2003-03-03' unread && chmod 000 unread
fi
check "nothing uncaptured was touched" cmp -s "$scratch/uncaptured" "$scratch/uncaptured-now"
check "a directory with ignored files stays, they with it" test -f built/out/x.log
check "what was captured of it is gone" test ! -e built/src
# What only the run left behind that is ignored goes, to compare the rest.
rm -r built
touch -d '2003-03-03' .
echo 'SECRET=1' >.env && rm node_modules/new.js && echo x >node_modules/pkg/index.js
picture . >"$scratch/after"
# Without what was changed on purpose.
rest() {
	grep -zavP '^(\./|[0-9a-f]{64} \*\./)(\.env|node_modules|noise\.log|\.git)(/|\x01|$)' "$1" | tr '\0\n' '\n\1'
}
difference() {
	rest "$scratch/before" >"$scratch/b"
	rest "$scratch/after" >"$scratch/a"
	diff -a "$scratch/b" "$scratch/a" >"$scratch/out"
}
check "everything else is identical" difference
links . >"$scratch/links-now"
check "hard links are hard links again" cmp -s "$scratch/links" "$scratch/links-now"
find sparse -printf '%b\n' >"$scratch/blocks-now"
check "a sparse file is sparse" test "$(cat "$scratch/blocks-now")" -le $(($(cat "$scratch/blocks") + 8))
check "the FIFO and the socket are there" test -p fifo
moat snapshot list --json
check "what was skipped is listed" jq -e '[.[] | select(.type == "pre-run")][0].skipped >= 1' "$scratch/out" >/dev/null
moat snapshot show "$(jq -r '[.[] | select(.type == "pre-run")][0].id' "$scratch/out")"
check "by name" printed 'fifo: special file'

# The control: the comparison sees a single changed time.
touch -d '2001-01-01' script
picture . >"$scratch/after"
check "control: a changed time would be seen" sh -c '! cmp -s "$1" "$2"' - "$scratch/before" "$scratch/after"
finish
