#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Says what this machine has of what orb8 needs. Exits 1 if it cannot run here.
bad=0
row() { printf '  %-34s %s\n' "$1" "$2"; }
need() { row "$1" "missing: $2"; bad=1; }

echo "To run the agent:"
release=$(uname -r)
major=${release%%.*}; rest=${release#*.}; minor=${rest%%[!0-9]*}
if [ "$major" -gt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -ge 10 ]; }; then
	row "kernel 5.10 or newer" "$release"
else
	need "kernel 5.10 or newer" "this is $release"
fi
if [ "$major" -gt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -ge 6 ]; }; then
	row "TCX (6.6)" "yes"
else
	row "TCX (6.6)" "no: clsact is used"
fi
if [ -e /sys/kernel/btf/vmlinux ]; then row "kernel BTF" "yes"; else row "kernel BTF" "no: the tap works without it, later probes will not"; fi
if [ "$(id -u)" = 0 ]; then row "root" "yes"; else row "root" "no: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"; fi

echo "To build:"
if go=$(go version 2>/dev/null); then row "Go 1.26 or newer" "$go"; else need "Go 1.26 or newer" "see go.dev/doc/install"; fi

echo "To run the tests, regenerate and lint (make installs these by apt):"
for c in ip iperf3 nft ethtool clang-19 llvm-strip-19 protoc; do
	if command -v "$c" >/dev/null; then row "$c" "yes"; else row "$c" "not yet"; fi
done
exit $bad
