# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the system tests share.  Sourced; needs $MOAT.  Each test counts its checks and ends with finish.

: "${MOAT:?set MOAT to the moat to test}"
case $MOAT in
/*) ;;
*) MOAT=$PWD/$MOAT ;;
esac
umask 022
LC_ALL=C.UTF-8
export LC_ALL
unset MOAT_RUN_ID MOAT_RUN_NAME MOAT_WORKSPACE XDG_CONFIG_HOME XDG_STATE_HOME NO_COLOR

# Everything lies in one directory, which also has HOME.  Not in /tmp: a sandbox has a /tmp of its own.
scratch=$(mktemp -d "${MOAT_TEST_DIRECTORY:-$HOME}/moat-system.XXXXXX") || exit 1
HOME=$scratch/home
MOAT_HOME=$scratch/moat
export HOME MOAT_HOME
mkdir "$HOME"
passed=0
failed=0

clean_up() {
	cd /
	chmod -R u+rwX "$scratch" 2>/dev/null
	rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

pass() {
	passed=$((passed + 1))
}

# fail TEXT: counts and shows what the last command said.  On stderr: a check's own output may be thrown away.
fail() {
	failed=$((failed + 1))
	{
		echo "FAILED: $1"
		[ ! -s "$scratch/out" ] || sed 's/^/  stdout: /' "$scratch/out" | head -n 20
		[ ! -s "$scratch/err" ] || sed 's/^/  stderr: /' "$scratch/err" | head -n 20
	} >&2
}

# check TEXT COMMAND...: passes when the command succeeds.
check() {
	what=$1
	shift
	if "$@"; then pass; else fail "$what"; fi
}

# moat ARGUMENT...: runs it; $status, $scratch/out, $scratch/err.
moat() {
	"$MOAT" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
	status=$?
}

# expect STATUS TEXT ARGUMENT...: runs moat, which must exit so.
expect() {
	expected=$1
	what=$2
	shift 2
	moat "$@"
	if [ "$status" -eq "$expected" ]; then pass; else fail "$what: status $status, not $expected"; fi
}

said() {
	grep -qe "$1" "$scratch/err"
}

printed() {
	grep -qe "$1" "$scratch/out"
}

# The tree below $1 by other means than moat's: everything that find can tell of each object, and a checksum of each file, in
# NUL-terminated records.  Change times cannot come back, nor the numbers of inodes; the size of a directory is the
# filesystem's own business.
picture() (
	cd "$1" && {
		find . ! -type d -printf '%p\001%y %m %U:%G %n %s %T@ %l\0'
		find . -type d -printf '%p\001d %m %U:%G %T@\0'
		find . -type f -printf '%p\0' | xargs -0 sha256sum -bz --
	} | sort -z
)

# The names that share an inode, by their first: who is linked with whom.
links() (
	cd "$1" && find . -type f -links +1 -printf '%i %P\n' | sort -k1,1 -k2 |
		awk '$1 != last { printf "\n"; last = $1 } { $1 = ""; printf "%s", $0 }' | sort
)

# The clock of the filesystem must have moved on, so that what is there now counts as old.
settle() {
	touch "$scratch/before"
	limit=$(($(date +%s%N) + 50000000))
	while [ "$(date +%s%N)" -lt $limit ]; do touch "$scratch/after"; done
}

# must_have COMMAND...: skips the test when the command fails; where CI must run it that is a failure.
must_have() {
	"$@" >/dev/null 2>&1 && return
	if [ "${MOAT_MUST_WORK:-0}" = 1 ]; then
		echo "FAILED: this must work here: $*"
		exit 1
	fi
	echo "SKIP: this does not work here: $*"
	exit 77
}

# The real parts: a bubblewrap that may make namespaces, a proc connector that answers.
must_have_backends() {
	must_have "$MOAT" --backend=bwrap --backend=netlink run --dry-run -- true
}

finish() {
	echo "$passed checks passed, $failed failed"
	[ "$failed" -eq 0 ] || exit 1
	exit 0
}
