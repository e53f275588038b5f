#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A restore that is killed at any of its system calls: after the next command the workspace is wholly old or wholly new, and
# nothing is left behind.  A sample of the points; $POINTS of them for each place of the stage (default 60).
set -u
. "${srcdir:-$(dirname "$0")}/lib.sh"
# A leak check of a sanitizer cannot work under a tracer.
ASAN_OPTIONS=${ASAN_OPTIONS:+$ASAN_OPTIONS:}detect_leaks=0
export ASAN_OPTIONS
must_have strace -f -qq -o /dev/null true
mkdir "$scratch/ws" && cd "$scratch/ws" || exit 1
points=${POINTS:-60}

make_old() {
	mkdir -p keep dir/sub gone && echo one >keep/a && echo two >dir/sub/b && echo three >gone/c && ln -s a link
	echo four >same && echo linked >l1 && ln l1 l2 && chmod 600 same && mkdir locked && echo in >locked/x && chmod 555 locked
	echo '*.log' >.gitignore && echo noise >dir/noise.log
	find . -exec touch -h -d '2001-02-03 04:05:06.5' {} +
}
make_new() {
	chmod 755 locked && echo changed >keep/a && rm -r dir/sub && echo file >dir/sub && rm gone/c && rmdir gone && rm link && mkdir link &&
		echo x >link/y && chmod 644 same && rm l2 && echo apart >l2 && rm locked/x && mkdir -p added/deep && echo z >added/deep/z
	echo more >added/file
	find . ! -name noise.log -exec touch -h -d '2011-12-13 14:15:16.25' {} +
}
fill() { # FROM: the workspace becomes a copy of that directory, the root stays what it is
	find . -type d -exec chmod u+rwx {} +
	find . -mindepth 1 -maxdepth 1 -exec rm -rf {} +
	cp -a "$1/." .
}

make_old
cp -a . "$scratch/old"
picture . >"$scratch/old.picture"
make_new
cp -a . "$scratch/new"
picture . >"$scratch/new.picture"

# Which state is it?  Prints old, new or mixed.
state() {
	picture . >"$scratch/now.picture"
	if cmp -s "$scratch/now.picture" "$scratch/old.picture"; then
		echo old
	elif cmp -s "$scratch/now.picture" "$scratch/new.picture"; then
		echo new
	else
		echo mixed
	fi
}

sweep() { # TITLE
	fill "$scratch/old"
	snap=$("$MOAT" snapshot create 2>/dev/null) || { fail "$1: no snapshot"; return; }
	# The calls that a restore makes, counted.
	fill "$scratch/new"
	strace -f -qq -o "$scratch/trace" "$MOAT" snapshot restore --no-safety "$snap" >/dev/null 2>&1
	check "$1: it works undisturbed" test "$(state)" = old
	sed -n 's/^[0-9]* *\([a-z0-9_]*\)(.*/\1/p' "$scratch/trace" | sort | uniq -c | awk '
		$2 ~ /^(renameat2?|rename|unlinkat|fsync|syncfs|openat2?|mkdirat|fchmodat2?|chmod|utimensat|linkat|symlinkat|write|close|newfstatat|fcntl)$/ {
		for (k = 1; k <= $1; k++) print $2, k }' >"$scratch/all"
	total=$(wc -l <"$scratch/all")
	# The order of a hash: the same in each run, and spread over all calls.
	while read -r call k; do
		printf '%s %s %s\n' "$(printf '%s %s' "$call" "$k" | cksum | cut -d' ' -f1)" "$call" "$k"
	done <"$scratch/all" | sort -n | head -n "$points" >"$scratch/sample"
	# The last one puts the time of the root back.
	grep '^utimensat ' "$scratch/all" | tail -n 1 | sed 's/^/0 /' >>"$scratch/sample"
	mixed=0
	olds=0
	news=0
	while read -r _ call k; do
		fill "$scratch/new"
		strace -f -qq -o /dev/null -e trace="$call" -e inject="$call:signal=KILL:when=$k" \
			"$MOAT" snapshot restore --no-safety "$snap" >/dev/null 2>&1
		[ "$(state)" != mixed ] || mixed=$((mixed + 1))
		moat recover
		found=$(state)
		case $found in
		old) olds=$((olds + 1)) ;;
		new) news=$((news + 1)) ;;
		esac
		if [ "$found" != mixed ] && [ "$status" -eq 0 ]; then pass; else
			fail "$1: killed before $call $k: $found, status $status"
		fi
		[ -z "$(ls "$MOAT_HOME/txn")" ] && [ -z "$(find . -name '.moat*')" ] || fail "$1: litter after $call $k"
		[ -e dir/noise.log ] || fail "$1: an ignored file is gone after $call $k"
	done <"$scratch/sample"
	echo "$1: $(wc -l <"$scratch/sample") of $total points: $mixed were mixed before the recovery; then $news not begun, $olds completed"
	# Without these the sweep would prove nothing.
	check "$1: control: some were left in the middle" test "$mixed" -gt 0
	check "$1: control: some were before the decision" test "$news" -gt 0
}

# Objects of one's own that are closed, which a restore opens to look into them: they are closed again, whenever it is
# killed, or the restore is complete.
closed_again() {
	mkdir "$scratch/closed" && cd "$scratch/closed" || exit 1
	echo a >a && snap=$("$MOAT" snapshot create 2>/dev/null) || { fail "closed: no snapshot"; return; }
	close_all() {
		[ ! -d c ] || chmod -R u+rwX c
		rm -rf c n a && mkdir -p c/d && echo edited >a && echo work >n && echo x >c/d/x && chmod 000 a n c/d c
	}
	close_all
	strace -f -qq -o "$scratch/trace" "$MOAT" snapshot restore --no-safety "$snap" >/dev/null 2>&1
	check "closed: it works undisturbed" test "$(cat a)$(ls)" = aa
	sed -n 's/^[0-9]* *\([a-z0-9_]*\)(.*/\1/p' "$scratch/trace" | sort | uniq -c | awk '
		$2 ~ /^(renameat2?|unlinkat|fsync|mkdirat|fchmodat2?|chmod|utimensat)$/ {
		for (k = 1; k <= $1; k++) print $2, k }' >"$scratch/all"
	opened=0
	while read -r call k; do
		close_all
		strace -f -qq -o /dev/null -e trace="$call" -e inject="$call:signal=KILL:when=$k" \
			"$MOAT" snapshot restore --no-safety "$snap" >/dev/null 2>&1
		[ "$(stat -c %a a n c 2>/dev/null | tr '\n' ' ')" = '0 0 0 ' ] || opened=$((opened + 1))
		moat recover
		if [ "$(stat -c %a a n c 2>/dev/null | tr '\n' ' ')" = '0 0 0 ' ]; then
			chmod 700 c
			check "closed: an inner one, killed before $call $k" test "$(stat -c %a c/d)" = 0
			chmod 700 a n c/d
			check "closed: content, killed before $call $k" test "$(cat a n c/d/x)" = "$(printf 'edited\nwork\nx')"
		else
			check "closed: complete, killed before $call $k" test "$(cat a)$(ls)$(stat -c %a a)" = aa644
		fi
		[ -z "$(ls "$MOAT_HOME/txn")" ] || fail "closed: litter after $call $k"
	done <"$scratch/all"
	check "closed: control: some were left open" test "$opened" -gt 0
	echo "closed: $(wc -l <"$scratch/all") points, $opened were left open before the recovery"
	cd "$scratch/ws" || exit 1
}

# Into a new directory: it is complete, or not there.
beside() {
	fill "$scratch/old"
	snap=$("$MOAT" snapshot create 2>/dev/null) || { fail "beside: no snapshot"; return; }
	strace -f -qq -o "$scratch/trace" "$MOAT" snapshot restore --to "$scratch/beside" "$snap" >/dev/null 2>&1
	rm "$scratch/beside/.gitignore" && (cd "$scratch/beside" && find . | sort) >"$scratch/list"
	chmod -R u+rwX "$scratch/beside" && rm -rf "$scratch/beside"
	sed -n 's/^[0-9]* *\([a-z0-9_]*\)(.*/\1/p' "$scratch/trace" | sort | uniq -c | awk '
		$2 ~ /^(renameat2?|unlinkat|fsync|syncfs|mkdir|mkdirat|fchmod|fchmodat2?|utimensat|rmdir)$/ {
		for (k = 1; k <= $1; k++) print $2, k }' >"$scratch/all"
	while read -r call k; do
		printf '%s %s %s\n' "$(printf '%s %s' "$call" "$k" | cksum | cut -d' ' -f1)" "$call" "$k"
	done <"$scratch/all" | sort -n | head -n "$points" >"$scratch/sample"
	absent=0
	complete=0
	while read -r _ call k; do
		strace -f -qq -o /dev/null -e trace="$call" -e inject="$call:signal=KILL:when=$k" \
			"$MOAT" snapshot restore --to "$scratch/beside" "$snap" >/dev/null 2>&1
		moat recover
		if [ ! -e "$scratch/beside" ]; then
			absent=$((absent + 1))
		else
			complete=$((complete + 1))
			rm -f "$scratch/beside/.gitignore" && (cd "$scratch/beside" && find . | sort) >"$scratch/list-now"
			check "beside: complete, killed before $call $k" cmp -s "$scratch/list" "$scratch/list-now"
			chmod -R u+rwX "$scratch/beside" && rm -rf "$scratch/beside"
		fi
		[ -z "$(ls "$MOAT_HOME/txn")" ] || fail "beside: litter after $call $k"
	done <"$scratch/sample"
	echo "beside: $(wc -l <"$scratch/sample") of $(wc -l <"$scratch/all") points: $absent not begun, $complete completed"
	check "beside: control: some were not begun" test "$absent" -gt 0
	check "beside: control: some were completed" test "$complete" -gt 0
}

sweep 'stage in the home'
beside
[ "$(id -u)" -eq 0 ] || closed_again
if [ -w /dev/shm ] && [ "$(stat -c %d /dev/shm)" != "$(stat -c %d .)" ]; then
	shm=$(mktemp -d /dev/shm/moat-system.XXXXXX)
	trap 'rm -rf "$shm"; clean_up' EXIT
	MOAT_HOME=$shm/moat
	sweep 'stage in the workspace'
fi
finish
