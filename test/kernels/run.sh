#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tap's tests on another kernel: run.sh 6.1. The newest Debian cloud
# kernel of that series boots in QEMU (software emulation is enough) with a
# busybox initramfs and the static test binary. Kernels are kept in
# $ORB8_KERNELS, or ~/.cache/orb8/kernels.
set -euo pipefail
series=${1:?which series, as 6.1 or 6.12}
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${ORB8_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/orb8/kernels}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/test/smoke/apt.sh" qemu-system-x86 busybox-static cpio kmod xz-utils

# kernel: the newest package of the series, unpacked once.
kernel() {
	local pattern="^linux-image-${series//./\\.}\\.[0-9.]+(-[0-9]+|\\+deb[0-9]+)-cloud-amd64\$" package
	package=$(apt-cache search --names-only "$pattern" | awk '{print $1}' | sort -V | tail -1)
	if [ -z "$package" ]; then
		apt-get update -qq
		package=$(apt-cache search --names-only "$pattern" | awk '{print $1}' | sort -V | tail -1)
	fi
	[ -n "$package" ] || { echo "no Debian kernel of series $series" >&2; return 1; }
	if [ ! -e "$cache/$package/done" ]; then
		mkdir -p "$cache/$package"
		# apt's download user may not write here; that is only a warning.
		(cd "$work" && { apt-get download -qq "$package" 2>/dev/null || { apt-get update -qq && apt-get download -qq "$package"; }; } && dpkg-deb -x "$package"_*.deb "$cache/$package")
		touch "$cache/$package/done"
	fi
	echo "$cache/$package"
}

# initramfs FOLDER: the kernel's network modules, busybox, and the tests.
initramfs() {
	local modules version dir=$work/root
	modules=$(echo "$1"/lib/modules/* "$1"/usr/lib/modules/* | tr ' ' '\n' | grep -v '\*' | head -1)
	version=$(basename "$modules")
	mkdir -p "$dir"/{bin,sbin,proc,sys,dev,tmp,run} "$dir/lib/modules/$version/kernel/drivers"
	cp "$(command -v busybox)" "$dir/bin/busybox"
	for a in sh mount poweroff modprobe cat; do ln -s /bin/busybox "$dir/bin/$a"; done
	ln -s /bin/busybox "$dir/sbin/modprobe"
	cp -r "$modules"/kernel/{net,lib,crypto} "$dir/lib/modules/$version/kernel/" 2>/dev/null || true
	cp -r "$modules"/kernel/drivers/net "$dir/lib/modules/$version/kernel/drivers/"
	rm -rf "$dir/lib/modules/$version/kernel/drivers/net"/{ethernet,wireless,usb,phy}
	find "$dir/lib" -name '*.ko.xz' -exec xz -d {} +
	cp "$modules"/modules.{builtin,order} "$dir/lib/modules/$version/"
	depmod -b "$dir" "$version" 2>/dev/null
	cp "$work/flow.test" "$dir/flow.test"
	cat >"$dir/init" <<'INIT'
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup 2>/dev/null
export PATH=/bin:/sbin HOME=/tmp ORB8_REQUIRE_KERNEL=
cd /tmp
# Without nft and ip there is no provoked loss and no tunnel here.
/flow.test -test.v -test.timeout 20m -test.skip '^(TestHealth|TestTunnelledSegments)$'
echo "exit status $?"
poweroff -f
INIT
	chmod +x "$dir/init"
	(cd "$dir" && find . | cpio -o -H newc --quiet) | gzip -1 >"$work/initramfs"
}

(cd "$root" && CGO_ENABLED=0 go test -c -o "$work/flow.test" ./internal/probe/flow)
folder=$(kernel)
initramfs "$folder"
vmlinuz=$(echo "$folder"/boot/vmlinuz-*)
echo "== $(basename "$folder")"
# A machine that hangs is ended.
timeout 1500 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nographic -no-reboot \
	-kernel "$vmlinuz" -initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1" </dev/null | tr -d '\r' >"$work/log"
grep -E '^ *(--- (FAIL|SKIP)|panic:)' "$work/log" || true
echo "$(grep -cE '^--- PASS' "$work/log" || true) passed, $(grep -cE '^--- FAIL' "$work/log" || true) failed, $(grep -cE '^--- SKIP' "$work/log" || true) skipped"
grep -q '^exit status 0' "$work/log" || { echo "--- the whole log"; cat "$work/log"; exit 1; }
