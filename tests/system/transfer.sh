#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Snapshots that go out as archives and come in again: the same tree, through moat and through stock tools, in each format;
# limits, files in the way, a full disk, a kill.
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
mkdir "$scratch/ws" && cd "$scratch/ws" || exit 1
for tool in tar gzip lz4 zstd git jq setfattr; do
	must_have command -v "$tool"
done
# shellcheck disable=SC2016
must_have sh -c '"$0" snapshot create --workspace . | "$0" snapshot export "$(cat)" - --format tar.gz >/dev/null' "$MOAT"
must_have setfattr -n user.k -v v "$scratch/ws"
setfattr -x user.k "$scratch/ws"

# A tree with everything that a snapshot holds.
mkdir -p a/b/c empty 'na me' "$(printf 'con\033trol')"
printf 'one' >a/one && ln a/one a/b/two && ln a/one 'na me/three'
ln -s ../../.. a/out && ln -s nowhere dangling && ln dangling a/dangling && ln -s "$(printf '%0300d' 7)" long
: >a/b/c/nothing
printf 'x' >"$(printf 'con\033trol/\377\376')"
long=$(printf '%0200d' 1)
mkdir -p "$long/$long" && echo deep >"$long/$long/$long"
head -c 3000000 /dev/urandom >random
truncate -s 40000000 holes && printf data | dd of=holes bs=1 seek=20000000 conv=notrunc 2>/dev/null
setfattr -n user.k -v value random && setfattr -n user.k=% -v '' a
chmod 755 random && chmod 2770 empty && chmod 444 a/one && chmod 4711 "$long/$long/$long"
touch -d '1955-11-05 06:15:00.125' a/b/c/nothing && touch -d '2106-02-07 06:28:16.000000001' holes
touch -h -d '1999-12-31 23:59:59.5' dangling
seed=${MOAT_TEST_SEED:-$(date +%s)}
echo "seed $seed"
# Many small files, of sizes around those of blocks.
mkdir many && awk -v seed="$seed" 'BEGIN { srand(seed); for (i = 0; i < 300; i++)
	print i, int(rand() * 3) * 512 + int(rand() * 3) - (rand() < 0.3 ? 1 : 0) }' | while read -r i n; do
	head -c "$(( n < 0 ? 0 : n ))" /dev/urandom >"many/$i"
done
touch -d '2001-02-03 04:05:06.789' many a empty .
picture . >"$scratch/p0"
links . >"$scratch/l0"
# The setuid bit does not come back from a restore.
chmod 711 "$long/$long/$long"
picture . >"$scratch/p1"
chmod 4711 "$long/$long/$long"
snap=$("$MOAT" -q snapshot create)

# same_tree DIR TEXT [PICTURE]
same_tree() {
	picture "$1" >"$scratch/p2"
	check "$2: the same tree" cmp -s "${3:-$scratch/p1}" "$scratch/p2"
	links "$1" >"$scratch/l2"
	check "$2: the same links" cmp -s "$scratch/l0" "$scratch/l2"
	check "$2: holes" test "$(du -k "$1/holes" | cut -f 1)" -le 200
	check "$2: attributes" test "$(getfattr --only-values -n user.k "$1/random" 2>/dev/null)" = value
}

# --- out, and in again
mkdir "$scratch/there" "$scratch/unpacked"
for format in tar tar.gz tgz tar.zst tzst tar.lz4; do
	file=$scratch/x.$format
	expect 0 "export to $format" snapshot export "$snap" "$file"
	check "$format: private" test "$(stat -c %a "$file")" = 600
	expect 0 "import of $format" snapshot import --workspace "$scratch/there" --label "from $format" "$file"
	id=$(cat "$scratch/out")
	expect 0 "restore of $format" snapshot restore --to "$scratch/back" "$id"
	same_tree "$scratch/back" "$format"
	rm -rf "$scratch/back"
	expect 0 "verify of $format" snapshot verify "$id"
done
"$MOAT" snapshot list --workspace "$scratch/there" --json >"$scratch/out"
check "the labels are there" test "$(jq -r '.[].label' "$scratch/out" | sort | tr '\n' ,)" = \
	"from tar,from tar.gz,from tar.lz4,from tar.zst,from tgz,from tzst,"
gzip -t "$scratch/x.tgz" && zstd -qt "$scratch/x.tzst" && lz4 -qt "$scratch/x.tar.lz4"
check "stock tools find the streams whole" test $? -eq 0
check "they hold one archive" sh -c "gzip -dc '$scratch/x.tgz' | cmp - '$scratch/x.tar' && zstd -qdc '$scratch/x.tzst' | cmp - '$scratch/x.tar' &&
	lz4 -qdc '$scratch/x.tar.lz4' | cmp - '$scratch/x.tar'"
tar --xattrs --xattrs-include='*' -xpf "$scratch/x.tar" -C "$scratch/unpacked"
same_tree "$scratch/unpacked" "GNU tar" "$scratch/p0"
if command -v bsdtar >/dev/null; then
	mkdir "$scratch/unpacked2" && bsdtar -xpf "$scratch/x.tar.zst" -C "$scratch/unpacked2"
	# bsdtar takes hard links to links apart, and rounds times before 1970: contents and holes it is asked for.
	check "bsdtar: the same contents" diff -r --no-dereference . "$scratch/unpacked2"
fi

# --- pipes
"$MOAT" snapshot export "$snap" - >"$scratch/piped"
check "standard output gets a plain tar" cmp -s "$scratch/piped" "$scratch/x.tar"
# shellcheck disable=SC2002
id=$(cat "$scratch/x.tar.gz" | "$MOAT" snapshot import --workspace "$scratch/there" -)
expect 0 "from a pipe" snapshot restore --to "$scratch/back" "$id"
same_tree "$scratch/back" "from a pipe"
rm -rf "$scratch/back"
id=$("$MOAT" snapshot import --json --workspace "$scratch/there" - <"$scratch/x.tar" | jq -r '.id, .dropped.modes' | tr '\n' ' ')
check "from a file as standard input, as JSON" expr "$id" : 'snap_[0-9a-f]* 1 $' >/dev/null
mkfifo "$scratch/fifo" && cat "$scratch/fifo" >"$scratch/piped" &
reader=$!
until [ -p "$scratch/fifo" ]; do :; done
expect 0 "into a FIFO" snapshot export --format tar.lz4 "$snap" "$scratch/fifo"
wait "$reader"
check "a FIFO gets all" sh -c "lz4 -qdc '$scratch/piped' | cmp - '$scratch/x.tar'"
"$MOAT" snapshot export "$snap" - 2>"$scratch/err" | head -c 1000 >/dev/null
check "a reader that goes is one line" test "$(wc -l <"$scratch/err")" -le 1

# --- what stock tools make
check_stock() { # TEXT FILE PATHS-THAT-IT-HOLDS...
	stock=$1
	file=$2
	shift 2
	expect 0 "$stock is taken" snapshot import --workspace "$scratch/there" "$file"
	expect 0 "$stock is restored" snapshot restore --to "$scratch/back" "$(cat "$scratch/out")"
	for path; do
		check "$stock: $path" diff -r --no-dereference "$path" "$scratch/back/$path"
	done
	check "$stock: nothing else" test "$(find "$scratch/back" | wc -l)" -eq "$(find . "$@" -maxdepth 0 ! -path . -exec find {} + | sort -u | wc -l | awk '{ print $1 + 1 }')"
	rm -rf "$scratch/back"
}
touch -d '2000-01-01' a/b/c/nothing holes a/one dangling
for format in gnu posix; do
	tar --format=$format --sparse -cf "$scratch/s.tar" a empty 'na me' dangling long "$long" random holes many con*
	check_stock "tar --format=$format" "$scratch/s.tar" a empty 'na me' dangling long "$long" random holes many con*
done
for version in 0.0 0.1 1.0; do
	tar --format=posix --sparse --sparse-version=$version -cf "$scratch/s.tar" ./holes ./random
	check_stock "sparse $version" "$scratch/s.tar" holes random
done
for format in ustar v7; do
	tar --format=$format -cf "$scratch/s.tar" many random empty
	check_stock "tar --format=$format" "$scratch/s.tar" many random empty
done
if command -v bsdtar >/dev/null; then
	for format in pax ustar gnutar; do
		bsdtar --format=$format -cf "$scratch/s.tar" many random empty holes
		check_stock "bsdtar --format=$format" "$scratch/s.tar" many random empty holes
	done
fi
git init -q "$scratch/repo" && (cd "$scratch/repo" && cp -r "$scratch/ws/many" . && git add -A &&
	git -c user.name=n -c user.email=e commit -qm m)
git -C "$scratch/repo" archive HEAD >"$scratch/s.tar"
check_stock "git archive" "$scratch/s.tar" many
cat "$scratch/x.tar.gz" >"$scratch/two.tar.gz" && gzip -c /dev/null >>"$scratch/two.tar.gz"
expect 0 "several gzip members" snapshot import --workspace "$scratch/there" "$scratch/two.tar.gz"

# --- files in the way, names
echo keep >"$scratch/there.tar"
expect 1 "a file that exists" snapshot export "$snap" "$scratch/there.tar"
check "it is said how to replace it" said '--force'
check "it stays" test "$(cat "$scratch/there.tar")" = keep
expect 0 "with --force" snapshot export --force "$snap" "$scratch/there.tar"
check "it is replaced" cmp -s "$scratch/there.tar" "$scratch/x.tar"
expect 2 "a name without a format" snapshot export "$snap" "$scratch/x.zip"
check "the known ones are named" said 'tar.lz4'
expect 2 "a directory" snapshot export "$snap" "$scratch/there" --format tar
expect 1 "a directory that is not there" snapshot export "$snap" "$scratch/none/x.tar"
expect 1 "an archive that is not there" snapshot import "$scratch/none.tar"
expect 2 "a directory as archive" snapshot import "$scratch"
check "nothing is left beside" test -z "$(find "$scratch" -maxdepth 1 -name '.moat*')"

# --- limits, reached and exceeded by one; from the command line and from the configuration
entries=$(tar -tf "$scratch/x.tar" | wc -l)
mkdir "$scratch/new"
expect 0 "as many entries as allowed" snapshot import --workspace "$scratch/there" --max-entries "$entries" "$scratch/x.tar"
expect 1 "one more" snapshot import --workspace "$scratch/new" --max-entries $((entries - 1)) "$scratch/x.tar"
expect 0 "as large a file" snapshot import --workspace "$scratch/there" --max-file-bytes 40000000 "$scratch/x.tar"
expect 1 "one byte more" snapshot import --workspace "$scratch/new" --max-file-bytes 39999999 "$scratch/x.tar"
bytes=$("$MOAT" snapshot show --json "$snap" | jq .bytes)
expect 0 "as many bytes" snapshot import --workspace "$scratch/there" --max-bytes "$bytes" "$scratch/x.tar"
expect 1 "one byte less" snapshot import --workspace "$scratch/new" --max-bytes $((bytes - 1)) "$scratch/x.tar"
printf 'snapshots:\n  import:\n    max_entries: %d\n' $((entries - 1)) >"$scratch/limits.yaml"
expect 1 "a limit of the configuration" --config "$scratch/limits.yaml" snapshot import --workspace "$scratch/new" "$scratch/x.tar"
expect 0 "and one of the command line before it" --config "$scratch/limits.yaml" snapshot import --workspace "$scratch/there" \
	--max-entries "$entries" "$scratch/x.tar"
expect 2 "a limit that is none" snapshot import --max-entries lots "$scratch/x.tar"
check "what was refused is unknown" sh -c "! grep -l '$scratch/new\"' '$MOAT_HOME'/workspaces/*/workspace.json"

# --- rules: what the workspace ignores stays when the import is restored in place
mkdir "$scratch/rules" && cd "$scratch/rules" && echo '*.log' >.gitignore && echo mine >x.log && echo old >f || exit 1
tar -cf "$scratch/s.tar" -C "$scratch/ws" empty
expect 0 "import over rules" snapshot import "$scratch/s.tar"
expect 0 "restore in place" snapshot restore "$(cat "$scratch/out")"
check "what is captured goes, what is ignored stays" test "$(ls -A)" = "$(printf 'empty\nx.log')"
cd "$scratch/ws" || exit 1

# --- killed, in the middle of unpacking: the next command clears what it left
litter() {
	find "$MOAT_HOME" -maxdepth 1 -name 'tmp*'
}
if command -v strace >/dev/null && strace -qq -o /dev/null true 2>/dev/null; then
	for when in 1 50 200; do
		strace -f -qq -o /dev/null -e trace=pwrite64 -e inject=pwrite64:signal=KILL:when=$when \
			"$MOAT" snapshot import --workspace "$scratch/there" "$scratch/x.tar" >/dev/null 2>&1
		check "killed at write $when: something is left" test -n "$(litter)"
		expect 0 "the next command" snapshot list
		check "killed at write $when: nothing is left after it" test -z "$(litter)"
	done
	strace -f -qq -o /dev/null -e trace=write -e inject=write:signal=KILL:when=20 \
		"$MOAT" snapshot export "$snap" "$scratch/killed.tar" >/dev/null 2>&1
	check "a killed export has no file" test ! -e "$scratch/killed.tar"
	expect 0 "the next command" recover
	check "and leaves nothing" test -z "$(litter; find "$scratch" -maxdepth 1 -name '.moat*')"
fi

# --- a full disk
if [ "$(id -u)" -eq 0 ] && mkdir "$scratch/small" && mount -t tmpfs -o size=6m none "$scratch/small" 2>/dev/null; then
	mkdir "$scratch/small/home" && chmod 700 "$scratch/small/home"
	expect 0 "a snapshot on a small disk" --home "$scratch/small/home" snapshot create --workspace "$scratch/there"
	for left in 0 8 64 512 1024 2900 3100 4000; do
		find "$scratch/small/home" ! -type d | sort >"$scratch/before"
		rm -f "$scratch/small/fill"
		free=$(df -k --output=avail "$scratch/small" | tail -n 1)
		[ "$free" -le "$left" ] || head -c $(( (free - left) * 1024 )) /dev/zero >"$scratch/small/fill"
		moat --home "$scratch/small/home" snapshot import --workspace "$scratch/there" "$scratch/x.tar"
		check "$left KiB free: it fails" test "$status" -eq 1
		check "$left KiB free: one line" test "$(wc -l <"$scratch/err")" -eq 1
		find "$scratch/small/home" ! -type d | sort >"$scratch/after"
		check "$left KiB free: nothing is left" cmp -s "$scratch/before" "$scratch/after"
	done
	moat --home "$scratch/small/home" snapshot import --workspace "$scratch/new" "$scratch/x.tar"
	find "$scratch/small/home" ! -type d | sort >"$scratch/after"
	check "a workspace that was not known stays unknown" cmp -s "$scratch/before" "$scratch/after"
	rm "$scratch/small/fill" && head -c 4000000 /dev/zero >"$scratch/small/fill"
	moat snapshot export "$snap" "$scratch/small/x.tar"
	check "export onto a full disk fails" test "$status" -eq 1
	check "and leaves nothing" test "$(ls -A "$scratch/small")" = "$(printf 'fill\nhome')"
	umount "$scratch/small"
fi
finish
