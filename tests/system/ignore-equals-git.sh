#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the capture filter lets through is what `git ls-files -co --exclude-standard` lists: on a tree
# made of this project's own sources with the things in it that go wrong, as the workspace and from
# a subdirectory, before and after a commit.  With MOAT_TEST_SPEED set, also how long both take.
#
# LIST_CAPTURED: the helper of tests/unit (found in the build tree when this is not set).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
list=${LIST_CAPTURED:-}
for candidate in "$PWD/../unit/list-captured" "$PWD/tests/unit/list-captured" \
	"$source/tests/unit/list-captured"; do
	[ -n "$list" ] || [ ! -x "$candidate" ] || list=$candidate
done
command -v git >/dev/null || {
	echo "SKIP: git is not installed"
	exit 77
}
[ -n "$list" ] || {
	echo "FAIL: list-captured is not built (make -C tests/unit list-captured)"
	exit 1
}

scratch=$(mktemp -d)
trap 'chmod -R u+rwX "$scratch"; rm -rf "$scratch"' EXIT
HOME=$scratch/home
GIT_CONFIG_NOSYSTEM=1
LC_ALL=C
export HOME GIT_CONFIG_NOSYSTEM LC_ALL
unset XDG_CONFIG_HOME GIT_CONFIG_GLOBAL GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE || :
mkdir -p "$HOME/.config/git"
printf '[user]\n\tname = a\n\temail = a@example.org\n' >"$HOME/.gitconfig"
printf '*.swp\n*~\n' >"$HOME/.config/git/ignore"
failed=0

# same DIRECTORY WHAT: what git lists and exists there, line for line
same() {
	git -C "$1" ls-files -co --exclude-standard -z | tr '\n\0' '\001\n' | sort -u |
		while IFS= read -r name; do
			file=$(printf '%s.' "$name" | tr '\001' '\n')
			file=$1/${file%.}
			if [ -L "$file" ] || [ -f "$file" ]; then printf '%s\n' "$name"; fi
		done >"$scratch/git"
	"$list" "$1" | tr '\n\0' '\001\n' | sort >"$scratch/moat"
	if cmp -s "$scratch/git" "$scratch/moat"; then
		echo "ok: $2 ($(wc -l <"$scratch/git") files)"
	else
		echo "FAIL: $2"
		diff "$scratch/git" "$scratch/moat" | head -n 20
		failed=1
	fi
}

work=$scratch/work
mkdir "$work"
for part in common core sdk tests plugins; do
	[ ! -d "$source/$part" ] || cp -R "$source/$part" "$work/"
done
cp "$source/.gitignore" "$work/" 2>/dev/null || printf '*.o\n*.log\n' >"$work/.gitignore"
git init -q "$work"
mkdir -p "$work/node_modules/x" "$work/build/sub" "$work/.venv/bin" "$work/odd names"
printf 'node_modules/\n/build/*\n!/build/sub/\n.env\n*.tmp\n!important.tmp\n' >>"$work/.gitignore"
printf 'secret\n' >"$work/.env"
: >"$work/node_modules/x/index.js"
: >"$work/build/out"
: >"$work/build/sub/kept"
: >"$work/a.tmp"
: >"$work/important.tmp"
: >"$work/notes.swp"
: >"$work/core/left-over.o"
: >"$work/odd names/ leading"
: >"$work/odd names/trailing "
: >"$work/odd names/back\\slash"
: >"$work/odd names/[bracket]"
: >"$work/odd names/$(printf 'new\nline')"
: >"$work/odd names/$(printf '\377\376')"
: >"$work/..data"
: >"$work/-"
ln -s /usr/bin/env "$work/.venv/bin/python"
ln -s nowhere "$work/dangling"
printf '[bracket]\n\\[bracket]\nback\\\\*\ntrailing\\ \n' >"$work/odd names/.gitignore"
printf '.venv/\n' >"$work/.git/info/exclude"

same "$work" "an untracked tree"
same "$work/core" "a subdirectory of it"
git -C "$work" add -A
git -C "$work" add -f .env node_modules/x/index.js core/left-over.o
git -C "$work" commit -qm all
same "$work" "the same, committed, with tracked files that rules match"
same "$work/node_modules" "an ignored directory with a tracked file"
rm -r "$work/sdk"
: >"$work/core/new.c"
: >"$work/node_modules/x/new.js"
same "$work" "after changes"
git -C "$work" worktree add -q "$scratch/linked"
: >"$scratch/linked/x.tmp"
mkdir -p "$scratch/linked/.venv"
: >"$scratch/linked/.venv/x"
same "$scratch/linked" "a linked worktree"

# Speed, printed for comparison, not judged: 300 directories with rules of their own, 30,000 files,
# all warm.
if [ -n "${MOAT_TEST_SPEED:-}" ]; then
	git init -q "$scratch/big"
	cd "$scratch/big"
	i=0
	while [ $i -lt 120 ]; do
		printf '*.x%s\n/gen%s/\nname%s\n' $i $i $i
		i=$((i + 1))
	done >.gitignore
	i=0
	while [ $i -lt 300 ]; do
		mkdir -p "d$i/e"
		printf '*.y%s\n/z%s\n!keep%s\n' $i $i $i >"d$i/.gitignore"
		(cd "d$i/e" && seq -f 'file-number-%g.c' 100 | xargs touch)
		i=$((i + 1))
	done
	cd "$scratch"
	git -C big ls-files -co --exclude-standard >/dev/null
	start=$(date +%s%N)
	git -C big ls-files -co --exclude-standard >/dev/null
	middle=$(date +%s%N)
	"$list" big >/dev/null
	end=$(date +%s%N)
	echo "speed: git $(((middle - start) / 1000)) us, moat $(((end - middle) / 1000)) us"
fi
exit $failed
