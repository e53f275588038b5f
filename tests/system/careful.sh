#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a restore must not throw away, and where it must stop before its first write.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
mkdir "$scratch/probe" && cd "$scratch/probe" && : >file || exit 1
must_have_backends
must_have setfattr -n user.k -v v file

# begin: a new workspace, in which the test then works.
number=0
begin() {
	number=$((number + 1))
	mkdir "$scratch/ws$number" && cd "$scratch/ws$number" || exit 1
}
snap() {
	"$MOAT" -q snapshot create
}
# nothing_kept TEXT: no transaction is left over.
nothing_kept() {
	check "$1: no journal is left" test -z "$(ls "$MOAT_HOME/txn")"
	check "$1: no stage is left" test -z "$(find . -name '.moat*')"
}

if [ "$(id -u)" -ne 0 ]; then
	begin
	echo a >a
	s=$(snap)
	echo work >n && chmod 000 n && echo edited >a && chmod 000 a
	expect 0 "files of one's own that were closed" snapshot restore "$s"
	check "the old content is back" test "$(cat a)" = a
	expect 0 "and undone again" snapshot restore "$(cat "$scratch/out")"
	chmod 600 a n
	check "nothing was lost" test "$(cat a n)" = "$(printf 'edited\nwork')"

	begin
	mkdir e && echo z >e/z && s=$(snap) && chmod 644 e
	expect 0 "a directory that cannot be entered" snapshot restore "$s"
	check "is as it was" test "$(cat e/z)" = z

	begin
	mkdir c && chmod 000 c && s=$(snap) && rmdir c && echo file >c
	expect 0 "a closed directory where a file stands now" snapshot restore "$s"
	check "is there, and closed" test "$(stat -c %F%a c)" = directory0
	expect 0 "and the file again" snapshot restore "$(cat "$scratch/out")"
	check "is as it was" test "$(cat c)" = file

	begin
	mkdir d && echo x >d/x && s=$(snap) && chmod 000 d
	expect 0 "a dry run over a closed directory" snapshot restore --dry-run "$s"
	check "says what it cannot know" said 'cannot be read'
	check "and leaves it closed" test "$(stat -c %a d)" = 0

	begin
	mkdir c && echo 1 >c/x && s=$(snap) && echo 2 >c/x && echo new >c/new && chmod 000 c
	expect 0 "a path in a directory that was closed" snapshot restore "$s" c/x
	safety=$(cat "$scratch/out")
	check "which stays closed" test "$(stat -c %a c)" = 0
	chmod 700 c
	check "only the path is back" test "$(cat c/x c/new)" = "$(printf '1\nnew')"
	expect 0 "and undone again" snapshot restore "$safety" c/x
	check "is as it was" test "$(cat c/x)" = 2
fi

begin
echo keep >k && a=$(snap) && echo l >l && b=$(snap)
record=$(echo "$MOAT_HOME"/workspaces/*/snapshots/"$b"/snapshot.json)
cp "$record" "$scratch/saved" && echo '{' >"$record"
expect 1 "nothing is deleted while another record cannot be read" snapshot delete "$a"
cp "$scratch/saved" "$record"
expect 0 "and what needs it can be restored" snapshot restore --to "$scratch/copy" "$b"
check "wholly" test "$(cat "$scratch/copy/k" "$scratch/copy/l")" = "$(printf 'keep\nl')"

begin
echo x >a && s=$(snap)
known=$(dirname "$(grep -l "$PWD" "$MOAT_HOME"/workspaces/*/workspace.json)")
cp "$known/workspace.json" "$scratch/saved" && printf '{"path":"%s"}' "$scratch/copy" >"$known/workspace.json"
expect 1 "a record that names another directory" snapshot restore --no-safety "$s"
check "is called damaged" said damaged
cp "$scratch/saved" "$known/workspace.json"

# The second snapshot builds on the first.
begin
echo x >a && ln a b && setfattr -n user.k -v v a && settle && snap >/dev/null && settle && s=$(snap)
touch -d 2001-01-01 a
expect 0 "restore of linked files" snapshot restore --no-safety "$s"
check "keeps their attributes" test "$(getfattr --only-values -n user.k a)" = v
rm a b
expect 0 "restore of one name" snapshot restore --no-safety "$s" b
check "with the attributes" test "$(getfattr --only-values -n user.k b)" = v

begin
echo x >f
expect 0 "a run" run --name gone -- true
mv "$PWD" "$PWD.moved" && cd "$scratch" || exit 1
expect 1 "a rollback of a workspace that is gone" rollback gone
check "says what can be done" said 'restore --to'
expect 0 "beside, it can be had" rollback --to "$scratch/beside" gone
check "with its files" test "$(cat "$scratch/beside/f")" = x

for way in 'echo file >a' 'ln -s ../other a'; do
	begin
	mkdir a && echo 1 >a/b && s=$(snap) && rm -r a && eval "$way"
	expect 3 "a path below what is no directory now ($way)" snapshot restore "$s" a/b
	nothing_kept "$way"
done

begin
echo 'build/' >.gitignore && echo x >build && s=$(snap) && rm build && mkdir build && echo o >build/o
expect 3 "an ignored directory in the way: the dry run says so" snapshot restore --dry-run "$s"
expect 3 "and so does the real one" snapshot restore "$s"
check "it is left alone" test "$(cat build/o)" = o
nothing_kept "ignored in the way"

begin
echo m >m && chmod 4755 m && s=$(snap) && chmod 755 m
expect 0 "a setuid bit does not come back" snapshot restore "$s"
check "and that is said" said 'setuid'
check "and not tried for ever" test ! -s "$scratch/out"

# Whichever time the file that is to be replaced cannot be opened: it is not replaced, or it can be had again.
must_have strace -qq -o /dev/null true
begin
ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0 # A leak check cannot work under a tracer.
export ASAN_OPTIONS
echo before >x && settle && s=$(snap) && refused=0 by_safety=no
for nth in 1 2 3 4 5; do
	echo edited >x
	strace -f -qq -o /dev/null -P "$PWD/x" -P x -e trace=openat,openat2 \
		-e inject=openat,openat2:error=EACCES:when=$nth "$MOAT" snapshot restore "$s" >"$scratch/out" 2>"$scratch/err"
	status=$?
	if [ $status -eq 0 ]; then
		"$MOAT" -q undo >/dev/null 2>&1
	else
		refused=$((refused + 1))
		said 'the safety snapshot could not read it' && by_safety=yes
	fi
	check "opening $nth fails, status $status: nothing is lost" test "$(cat x)" = edited
done
check "some of that was refused" test $refused -gt 1
check "and what the safety snapshot could not read" test $by_safety = yes

if [ "$(id -u)" -eq 0 ]; then
	begin
	mkdir d && must_have chattr +i d
	chattr -i d && echo 1 >d/x && s=$(snap) && rm d/x && echo n >d/n && chattr +i d
	moat snapshot restore "$s"
	chattr -i d
	check "an immutable directory: refused" test "$status" -eq 1
	check "nothing was changed" test -e d/n -a ! -e d/x
	nothing_kept "immutable"

	# Of root without the right to read everything, as in a container: like somebody else's directory.
	begin
	echo 1 >x && s=$(snap) && echo 2 >x && mkdir -m 000 hidden && echo new >hidden/new
	cat >"$scratch/confined" <<-TXT
		#!/bin/sh
		exec setpriv --bounding-set -dac_override,-dac_read_search "$MOAT" "\$@"
	TXT
	chmod 755 "$scratch/confined"
	full=$MOAT MOAT=$scratch/confined
	for how in "" --no-safety; do
		expect 3 "what nobody can look into: refused ($how)" snapshot restore $how "$s"
		check "and named ($how)" said "\`hidden' cannot be read"
		check "nothing was changed ($how)" test "$(cat x hidden/new)" = "$(printf '2\nnew')"
		nothing_kept "hidden ($how)"
	done
	expect 0 "but for a dry run, which tells" snapshot restore --dry-run "$s"
	check "what it does not know" said 'hidden cannot be read'
	expect 0 "a path beside it" snapshot restore "$s" x
	check "is back" test "$(cat x hidden/new)" = "$(printf '1\nnew')"
	expect 0 "and its undo, beside it, too" undo
	check "is done" test "$(cat x hidden/new)" = "$(printf '2\nnew')"
	MOAT=$full
	# A filesystem with whole seconds.
	cd "$scratch" && truncate -s 20M image && mkdir mnt || exit 1
	must_have mkfs.ext4 -q -I 128 image
	must_have mount -o loop image mnt
	trap 'cd /; umount "$scratch/mnt"; clean_up' EXIT
	mkdir mnt/w && cd mnt/w || exit 1
	echo AAAA >f && s=$(snap) && echo BBBB >f && t=$(snap)
	expect 0 "whole seconds: back" snapshot restore --no-safety "$s"
	check "whole seconds: the first content" test "$(cat f)" = AAAA
	expect 0 "whole seconds: forth" snapshot restore --no-safety "$t"
	check "whole seconds: the second content" test "$(cat f)" = BBBB
	nothing_kept "whole seconds"
fi
finish
