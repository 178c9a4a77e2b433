// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// storm sends frames of which each is dropped, from every CPU, until it is told
// to stop. Frames are of two addresses or, with random, each of another.
type storm struct {
	pair *bpftest.Pair
	sent atomic.Uint64
}

const (
	stormBatch  = 64
	stormFrames = 1 << 14
)

func (s *storm) run(t testing.TB, random bool, stop *atomic.Bool) (wait func()) {
	t.Helper()
	var wg sync.WaitGroup
	for range runtime.NumCPU() {
		fd := packetSocket(t, &s.pair.A)
		frames := stormFramesOf(s.pair, random)
		wg.Go(func() {
			defer unix.Close(fd)
			for i := 0; !stop.Load(); i = (i + stormBatch) % len(frames) {
				n, err := sendFrames(fd, frames[i:i+stormBatch])
				if err != nil && err != unix.ENOBUFS {
					t.Error(err)
					return
				}
				s.sent.Add(uint64(n))
			}
		})
	}
	return wg.Wait
}

// stormFramesOf are of UDP to a port that nobody listens on, with a checksum in
// the IP header that is wrong: the shortest way to a drop.
func stormFramesOf(p *bpftest.Pair, random bool) [][]byte {
	frames := make([][]byte, stormFrames)
	for i := range frames {
		src, port := p.A.IP4, uint16(5000)
		if random {
			src = netip.AddrFrom4([4]byte{10, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())})
			port = uint16(rand.Uint32())
		}
		frames[i] = bpftest.Packet(bpftest.Ether{}, bpftest.IPv4{Src: src, Dst: p.B.IP4}, bpftest.UDP{Src: port, Dst: 4000}, bpftest.Zeros(18))
		frames[i][24] ^= 0xff
	}
	return frames
}

func packetSocket(t testing.TB, e *bpftest.End) int {
	fd := -1
	e.Do(func() {
		var err error
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: e.Index})
		}
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	return fd
}

func sendFrames(fd int, frames [][]byte) (int, error) {
	type message struct {
		header unix.Msghdr
		_      [8]byte // what was sent of it
	}
	var messages [stormBatch]message
	var vectors [stormBatch]unix.Iovec
	for i, f := range frames {
		vectors[i].Base = &f[0]
		vectors[i].SetLen(len(f))
		messages[i].header.Iov = &vectors[i]
		messages[i].header.Iovlen = 1
	}
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&messages)), uintptr(len(frames)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// TestStormIsExact: each packet that two CPUs have dropped is counted, with its
// connection or without.
func TestStormIsExact(t *testing.T) {
	for _, random := range []bool{false, true} {
		s := openFor(t, 0)
		st := &storm{pair: bpftest.NewPair(t)}
		var stop atomic.Bool
		wait := st.run(t, random, &stop)
		var counted uint64
		in := st.pair.B.Inode()
		read := func() {
			drops, err := s.Take()
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range drops {
				if d.Conn.Netns == in && (d.Reason == "IP_CSUM" || d.Reason == "CPU_BACKLOG") {
					counted += d.Amount.Packets
				}
			}
		}
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			read()
		}
		stop.Store(true)
		wait()
		// Those that are on their way are dropped by another CPU, later.
		sent := st.sent.Load()
		for end := time.Now().Add(30 * time.Second); counted < sent && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			read()
		}
		rest, unseen := s.Lost()
		t.Logf("random %v: sent %d, counted %d, without room %d, unseen %d", random, sent, counted, rest.Packets, unseen)
		if counted > sent || counted+rest.Packets+unseen < sent {
			t.Errorf("counted %d of %d", counted, sent)
		}
	}
}

// BenchmarkStorm tells what a drop costs over an empty program at the same
// tracepoint, in the same run, at the highest rate that all CPUs reach, and what
// reading once a second takes of a core.
func BenchmarkStorm(b *testing.B) {
	for _, c := range []struct {
		name   string
		random bool
	}{{"one connection", false}, {"random connections", true}} {
		b.Run(c.name, func(b *testing.B) {
			s := openFor(b, 0)
			empty := emptyProgram(b)
			stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
			if err != nil {
				b.Fatal(err)
			}
			defer stats.Close()
			st := &storm{pair: bpftest.NewPair(b)}
			mine, none := cost(b, s.programs.Packet), cost(b, empty)
			var stop atomic.Bool
			start := time.Now()
			wait := st.run(b, c.random, &stop)
			var cpu time.Duration
			for i := 0; i < 3 || st.sent.Load() < uint64(b.N); i++ {
				time.Sleep(time.Second)
				cpu += threadTime(func() {
					if _, err := s.Take(); err != nil {
						b.Fatal(err)
					}
				})
			}
			elapsed := time.Since(start)
			stop.Store(true)
			wait()
			a, e := cost(b, s.programs.Packet), cost(b, empty)
			per := func(before, after *ebpf.ProgramStats) float64 {
				return float64(after.Runtime-before.Runtime) / float64(after.RunCount-before.RunCount)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(per(mine, a)-per(none, e), "net-ns/drop")
			b.ReportMetric(per(none, e), "empty-ns/drop")
			b.ReportMetric(float64(st.sent.Load())/elapsed.Seconds(), "drops/s")
			b.ReportMetric(100*cpu.Seconds()/elapsed.Seconds(), "%core")
			b.ReportMetric(float64(a.RecursionMisses), "unseen")
		})
	}
}

func cost(b *testing.B, p *ebpf.Program) *ebpf.ProgramStats {
	st, err := p.Stats()
	if err != nil {
		b.Fatal(err)
	}
	return st
}

func threadTime(do func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &before)
	do()
	_ = unix.Getrusage(unix.RUSAGE_THREAD, &after)
	return time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
}

func emptyProgram(b *testing.B) *ebpf.Program {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "kfree_skb", License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: p, AttachType: ebpf.AttachTraceRawTp})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = l.Close()
		_ = p.Close()
	})
	return p
}
