#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tests that need a kernel on older ones: run.sh [SERIES...], 6.1 and
# 6.12 unless told. The newest Debian cloud kernel of each series boots in QEMU
# (software emulation is enough) with its modules, busybox and static test
# binaries. Kernels are kept in $ORB8_KERNELS, or ~/.cache/orb8/kernels; with
# ORB8_TESTS=FLAGS the test binaries get these ("-test.run=Topologies/vlan
# -test.count=20"), and with ORB8_ROOMS="ROOM..." only those rooms run.
set -euo pipefail

# What runs there: every room with tests that need a kernel.
rooms=(
	internal/bpftest
	internal/cgroup
	internal/netns
	internal/probe/capture
	internal/probe/connect
	internal/probe/drop
	internal/probe/flow
	internal/probe/process
	internal/probe/socket
	internal/sandbox
	test/lab
)
[ -z "${ORB8_ROOMS:-}" ] || read -ra rooms <<<"$ORB8_ROOMS"

# The skips that are right, one a line: series, test, reason, each a regular
# expression that matches the whole but for the reason, which matches a part.
# Any other skip is a failure, so that none goes unseen.
# What is left out judges time, which an emulated machine has not: room, test.
left_out='
internal/netns  TestFoundByFile
internal/netns  TestFoundByHint
test/lab        TestPodsThatEndInTraffic
'
export allowed='
6\.1   Test[A-Za-z0-9]+/tcx(#[0-9]+)?  kernel 6\.1 is older than TCX \(6\.6\)
6\.1   TestEveryPacketHasItsPlace/.*/tcx|TestEveryPacketFromOutside/.*/tcx|TestOthersOnTheHook/.*|TestHiddenByAnother  kernel 6\.1 is older than TCX \(6\.6\)
6\.1   TestServiceBesideOnABridge/.*/tcx  kernel 6\.1 is older than TCX \(6\.6\)
6\.1   TestFirstInChain             kernel 6\.1 is older than TCX \(6\.6\)
6\.1   TestKilledTCXLeavesNothing   kernel 6\.1 is older than TCX \(6\.6\)
6\.1   TestOthersInTheChain/.*      kernel 6\.1 is older than TCX \(6\.6\)
6\.1   TestBridgeWithoutPorts/clsact  does not say what it drops without carrier
.*     TestServiceBesideOnABridge/.*  there is no br_netfilter
.*     TestFullAcceptQueue          this kernel has no reason TCP_LISTEN_OVERFLOW
.*     TestTunnelledSegments        older than lengths of tunnelled super-packets \(6\.17\)
'

[ $# -gt 0 ] || set -- 6.1 6.12
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${ORB8_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/orb8/kernels}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "   $*"; }

"$root/test/smoke/apt.sh" qemu-system-x86 busybox-static cpio kmod xz-utils iproute2 nftables

# newest SERIES: the name of its newest package.
newest() {
	apt-cache search --names-only "^linux-image-${1//./\\.}\\.[0-9.]+(-[0-9]+|\\+deb[0-9]+)-cloud-amd64\$" | awk '{print $1}' | sort -V | tail -1
}

# kernel SERIES: the folder of its newest package, which is unpacked once.
kernel() {
	local package folder
	package=$(newest "$1")
	[ -n "$package" ] || { apt-get update -qq >&2; package=$(newest "$1"); }
	[ -n "$package" ] || { echo "no Debian kernel of series $1" >&2; return 1; }
	folder=$cache/$package
	if [ ! -e "$folder/done" ]; then
		mkdir -p "$folder" "$work/$package"
		# apt's download user may not write here; that is only a warning.
		(cd "$work/$package" && { apt-get download -qq "$package" 2>/dev/null || { apt-get update -qq && apt-get download -qq "$package"; }; }) >&2
		dpkg-deb -x "$work/$package"/*.deb "$folder"
		touch "$folder/done"
	fi
	echo "$folder"
}

# tool FOLDER NAME: the program and the libraries it needs.
tool() {
	local path
	path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$2")
	cp -L "$path" "$1/bin/$2"
	ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "$1$(dirname "$library")"
		cp -nL "$library" "$1$library"
	done
}

# pack FOLDER: as an initramfs. It is not compressed: to unpack it would take
# an emulated machine longer than to load it.
pack() { (cd "$1" && find . -print0 | sort -z | cpio -o -0 -H newc --quiet --reproducible); }

# base FOLDER: all but the tests, packed once for each content.
base() {
	local modules version dir key out
	modules=$(compgen -G "$1/lib/modules/*" || compgen -G "$1/usr/lib/modules/*")
	version=$(basename "$modules")
	key=$(cat "$here/run.sh" "$here/init" <(dpkg-query -W busybox-static iproute2 nftables) | sha256sum | cut -c1-12)
	out=$1/initramfs-$key
	if [ ! -e "$out" ]; then
		rm -f "$1"/initramfs-*
		dir=$(mktemp -d "$work/base.XXXX")
		mkdir -p "$dir"/{bin,sbin,proc,sys,dev,tmp,run,etc,root} "$dir/lib/modules/$version/kernel/drivers"
		cp "$(command -v busybox)" "$dir/bin/busybox"
		for name in sh mount mkdir poweroff modprobe cat sleep; do ln -s /bin/busybox "$dir/bin/$name"; done
		ln -s /bin/busybox "$dir/sbin/modprobe"
		for name in ip nft setpriv; do tool "$dir" $name; done
		cp "$here/init" "$dir/init"
		cp -r "$modules"/kernel/{net,lib,crypto,arch} "$dir/lib/modules/$version/kernel/" 2>/dev/null || true
		cp -r "$modules"/kernel/drivers/{net,virtio} "$dir/lib/modules/$version/kernel/drivers/"
		rm -rf "$dir/lib/modules/$version/kernel/drivers/net"/{ethernet,wireless,usb,phy,hyperv,can,wwan} \
			"$dir/lib/modules/$version/kernel/net"/{bluetooth,wireless,mac80211,ceph,sunrpc,rds,tipc,can,9p,nfc} "$dir/lib/modules/$version/kernel/arch/x86/kvm"
		find "$dir/lib/modules" -name '*.ko.xz' -exec xz -d {} +
		cp "$modules"/modules.{builtin,order} "$dir/lib/modules/$version/"
		depmod -b "$dir" "$version" 2>/dev/null
		pack "$dir" >"$out.new"
		mv "$out.new" "$out"
		rm -rf "$dir"
	fi
	echo "$out"
}

# tests: the rooms' binaries, packed.
tests() {
	local dir=$work/tests room
	for room in "${rooms[@]}"; do
		mkdir -p "$dir/rooms/$room"
		(cd "$root" && CGO_ENABLED=0 go test -c -trimpath -ldflags=-s -o "$dir/rooms/$room/room.test" "./$room")
		[ -e "$dir/rooms/$room/room.test" ] || { echo "$room has no tests" >&2; return 1; }
		# Tests read what is beside them.
		[ ! -d "$root/$room/testdata" ] || cp -r "$root/$room/testdata" "$dir/rooms/$room/"
		echo "$room $(awk -v room="$room" '$1 == room { printf "%s%s", n++ ? "|" : "", $2 }' <<<"$left_out")" >>"$dir/rooms/list"
	done
	echo "${ORB8_TESTS:-}" >"$dir/rooms/flags"
	pack "$dir" >"$work/tests.cpio"
}

# boot SERIES FOLDER: run the tests there and judge them.
boot() {
	local series=$1 folder=$2 start=$SECONDS log=$work/$1.log
	cat "$folder"/initramfs-* "$work/tests.cpio" >"$work/$series.initramfs"
	# A machine that hangs is ended. Without cmpxchg16b, which older QEMUs get
	# wrong on one processor when an interrupt comes: the kernel double faults. A
	# loaded host is too slow for the kernel's check of its timer.
	timeout 2100 qemu-system-x86_64 -accel tcg,thread=multi -cpu max,-cx16 -smp "${ORB8_SMP:-1}" -m 1536 -nographic -no-reboot -nic user,model=virtio-net-pci,restrict=on \
		-kernel "$(echo "$folder"/boot/vmlinuz-*)" -initrd "$work/$series.initramfs" \
		-append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check" </dev/null 2>&1 | tr -d '\r' >"$log" || true
	[ -z "${ORB8_KEEP_LOG:-}" ] || cp "$log" "$ORB8_KEEP_LOG.$series"
	say "$(basename "$folder"), $((SECONDS - start)) s"
	awk -v series="$series" -v rooms="${rooms[*]}" -v left_out="$left_out" -f "$here/judge.awk" "$log" && return 0
	echo "--- what $series said, but for what passed"
	# ORB8_KEEP_LOG keeps the rest.
	grep -vE '^(=== (RUN|CONT|PAUSE|NAME) | *--- PASS: )' "$log"
	return 1
}

# In one piece, so that it may be edited while it runs.
{
	tests
	for series in "$@"; do
		folder=$(kernel "$series")
		base "$folder" >/dev/null
		echo "$series $folder" >>"$work/machines"
	done
	# Side by side, each with one processor: an emulated machine does not use two
	# well. One after the other where memory is short.
	together=yes
	[ "$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)" -gt $((2000 * $#)) ] || together=
	[ -z "${ORB8_ONE_BY_ONE:-}" ] || together=
	status=0
	while read -r series folder; do
		boot "$series" "$folder" >"$work/$series.said" 2>&1 &
		echo $! >"$work/$series.pid"
		[ -n "$together" ] || wait $! || true
	done <"$work/machines"
	for series in "$@"; do
		wait "$(cat "$work/$series.pid")" || status=1
		cat "$work/$series.said"
	done
	exit $status
}
