#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Fidelity with snapshot-reflink: in $MOAT_TEST_REFLINK_DIR, else, as root, on an XFS and a btrfs of its own.
set -u
: "${BUILT_PLUGINS:?set BUILT_PLUGINS to the directory of the plugins that were built}"
MOAT_TEST_BACKEND=reflink
export MOAT_TEST_BACKEND
skip() {
	echo "SKIP: $1"
	[ "${MOAT_MUST_WORK:-0}" != 1 ] || exit 1
	exit 77
}
[ -e "$BUILT_PLUGINS/snapshot-reflink/.libs/snapshot-reflink.so" ] || {
	echo "SKIP: snapshot-reflink is not built"
	exit 77
}
[ -z "${MOAT_TEST_REFLINK_DIR:-}" ] || exec ./test-fidelity
[ "$(id -u)" -eq 0 ] || {
	echo "SKIP: not root, and MOAT_TEST_REFLINK_DIR is not set"
	exit 77
}
scratch=$(mktemp -d) || exit 1
chmod 755 "$scratch"
mounted=
clean_up() {
	[ -z "$mounted" ] || umount "$mounted"
	rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
failed=0
for make in 'mkfs.xfs -q -m reflink=1' 'mkfs.btrfs -q'; do
	truncate -s 1G "$scratch/image"
	# shellcheck disable=SC2086
	$make "$scratch/image" || skip "$make does not work here"
	mkdir -p "$scratch/mnt"
	mount -o loop "$scratch/image" "$scratch/mnt" || skip "no loop device can be mounted here"
	mounted=$scratch/mnt
	chmod 1777 "$mounted"
	MOAT_TEST_REFLINK_DIR=$mounted ./test-fidelity || failed=1
	umount "$mounted" || exit 1
	mounted=
	rm "$scratch/image"
done
exit $failed
