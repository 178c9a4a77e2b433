// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// bpf is the system call, for questions that the library does not ask.
func bpf[T any](cmd int, attr *T) (uintptr, unix.Errno) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	return r, errno
}

// BenchmarkListing lists a machine with 10,000 sockets more than it has.
func BenchmarkListing(b *testing.B) {
	p := open(b, Config{})
	n := bpftest.NewNetns(b)
	n.Do(func() { sockets(b, 10_000) })
	for b.Loop() {
		refresh(b, p)
	}
	b.ReportMetric(float64(p.Cost().Microseconds())/1000, "cpu-ms")
	b.ReportMetric(float64(len(p.now.Load().sockets)), "sockets")
}

func sockets(b *testing.B, count int) {
	b.Helper()
	for range count {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOwnerListed(b *testing.B) {
	p := probeOf([]record{{conn: udp("", 9), cookie: 7, inode: 1}}, nil)
	b.ReportAllocs()
	for b.Loop() {
		p.Owner(7)
	}
}

func BenchmarkOwnerNoted(b *testing.B) {
	p := open(b, Config{Cgroup: ownGroup(b)})
	if err := p.notes.Put(uint64(7), kernelSocketNote{Tgid: 9}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Owner(7)
	}
}

func BenchmarkFind(b *testing.B) {
	c := tcp("10.0.0.1", 80, "10.0.0.2", 5000)
	p := probeOf([]record{{conn: tcp("", 80, "", 0), inode: 1, state: stateListen, process: process(1, "x", 1)}}, nil)
	b.ReportAllocs()
	for b.Loop() {
		p.Find(&c)
	}
}

// BenchmarkNote is what making a socket costs more, by the kernel's own count.
// Only processes in the test's group run the program: this one moves there.
func BenchmarkNote(b *testing.B) {
	p := open(b, Config{Cgroup: ownGroup(b)})
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Skip(err)
	}
	defer stats.Close()
	enterGroup(b, p.cfg.Cgroup)
	for b.Loop() {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		_ = unix.Close(fd)
	}
	prog := p.programs[kernelProgSocketCreated]
	if prog == nil {
		prog = p.programs[kernelProgSocketCreatedPlain]
	}
	s, err := prog.Stats()
	if err != nil || s.RunCount == 0 {
		b.Fatal(s, err)
	}
	b.ReportMetric(float64(s.Runtime)/float64(s.RunCount), "program-ns")
}

// enterGroup moves this process into the group and back at the end.
func enterGroup(b *testing.B, group string) {
	b.Helper()
	move := func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			b.Fatal(err)
		}
	}
	move(group)
	b.Cleanup(func() { move(filepath.Dir(group)) })
}
