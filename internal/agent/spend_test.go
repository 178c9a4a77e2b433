// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// load sends on many connections until it is ended.
type load struct {
	sent atomic.Uint64
	stop atomic.Bool
	done chan struct{}
}

// startLoad sends a packet on each of up to n connections every second.
func startLoad(t *testing.T, p *bpftest.Pair, n int) *load {
	const ports = 50_000
	to := net.UDPAddrFromAddrPort(p.B.DrainUDP(false))
	sockets := make([]*net.UDPConn, n/ports)
	for i := range sockets {
		sockets[i] = p.A.UDP(false)
	}
	l := &load{done: make(chan struct{})}
	go func() {
		defer close(l.done)
		payload := make([]byte, 100)
		for !l.stop.Load() {
			second := time.Now()
			for i := 0; i < n && !l.stop.Load() && time.Since(second) < time.Second; i++ {
				to.Port = 10_000 + i%ports
				if _, err := sockets[i/ports].WriteTo(payload, to); err == nil {
					l.sent.Add(1)
				}
			}
			time.Sleep(time.Until(second.Add(time.Second)))
		}
	}()
	t.Cleanup(func() { l.end() })
	return l
}

// end returns how many packets were sent.
func (l *load) end() uint64 {
	l.stop.Store(true)
	<-l.done
	return l.sent.Load()
}

// cpu is what the agent's process has used, from /proc.
func (p *running) cpu() time.Duration {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// within polls, twice a second, until cond holds, and returns how long it took.
func within(t *testing.T, d time.Duration, what string, cond func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > d {
			t.Fatalf("waited %v in vain for %s", d, what)
		}
		time.Sleep(500 * time.Millisecond)
	}
	return time.Since(start)
}

func losses(st *pb.NodeStatus) map[string]uint64 {
	m := map[string]uint64{}
	for _, l := range st.Losses {
		m[l.Stage] = l.Count
	}
	return m
}

// TestBudgetOfCPU: with more connections than the budget has room for, epochs
// grow, then connections are not told apart; the totals stay exact, and detail
// comes back.
func TestBudgetOfCPU(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	t.Parallel() // with the other: half a minute is enough
	const connections = 300_000
	p := bpftest.NewPair(t)
	a := start(t, p.A.Netns, "ORB8_MAX_CPU=0.01", "ORB8_TABLE_ENTRIES=300000", "ORB8_MAX_FLOWS=300000")
	before := a.status().Interfaces[0].Egress
	began := a.cpu()
	l := startLoad(t, p, connections)
	said := func(what string) func() bool {
		return func() bool { return strings.Contains(a.output.String(), what) }
	}
	stretched := within(t, 8*time.Second, "longer epochs", said("connections=true"))
	unbound := (a.cpu() - began).Seconds() / stretched.Seconds()
	shed := stretched + within(t, 16*time.Second, "no detail", said("connections=false"))
	st := a.status()
	if !st.Healthy || !strings.Contains(strings.Join(st.Notes, "; "), "ORB8_MAX_CPU") {
		t.Errorf("status: healthy %v, %q", st.Healthy, st.Notes)
	}
	began = a.cpu()
	time.Sleep(4 * time.Second)
	bound := (a.cpu() - began).Seconds() / 4
	if unbound < 0.02 || bound > 0.015 {
		t.Errorf("%.1f %% of a core before, %.1f %% after; the budget is 1 %%", 100*unbound, 100*bound)
	}
	sent := l.end()
	restored := within(t, 25*time.Second, "detail to come back", said("epoch=1s connections=true"))
	t.Logf("%.1f %% of a core; longer epochs after %.1f s, no detail after %.1f s: %.2f %%; restored in %.1f s; lost %v",
		100*unbound, stretched.Seconds(), shed.Seconds(), 100*bound, restored.Seconds(), losses(a.status()))
	st = a.status()
	e := checkTotals(t, p, st, before.Counted.Packets+sent)
	// Answers to some packets are in the overflow of the other direction.
	if n := losses(st)["budget"]; n < sent/10 || n < e.Overflow.Packets*9/10 || n > 2*sent {
		t.Errorf("%d packets lost their connection by the budget, of %d sent and %d without one", n, sent, e.Overflow.Packets)
	}
	if n := losses(st); n["budget"]+n["table_full"] != e.Overflow.Packets+st.Interfaces[0].Ingress.Overflow.Packets {
		t.Errorf("lost %v, without a connection %d and %d", n, e.Overflow.Packets, st.Interfaces[0].Ingress.Overflow.Packets)
	}
	if strings.Contains(strings.Join(st.Notes, "; "), "ORB8_MAX_CPU") {
		t.Errorf("still says %q", st.Notes)
	}
	checkDetail(t, a, p)
}

// checkTotals: each packet that was sent is counted, and the interface counted
// the same, or dropped it behind the tap because the machine was too slow to
// receive it.
func checkTotals(t *testing.T, p *bpftest.Pair, st *pb.NodeStatus, want uint64) *pb.Audit {
	t.Helper()
	e := st.Interfaces[0].Egress
	dropped := p.A.Link(p.A.Name).Attrs().Statistics.TxDropped
	if e.Counted.Packets != want || e.UnaccountedPackets != 0 || e.DroppedPackets != dropped {
		t.Errorf("sent %d packets, counted %d, the driver dropped %d: %v", want, e.Counted.Packets, dropped, e)
	}
	return e
}

// checkDetail makes a connection and asks for it.
func checkDetail(t *testing.T, a *running, p *bpftest.Pair) {
	t.Helper()
	to := p.B.ListenTCP(false, bpftest.ServeDiscard)
	p.A.DialTCP(to)
	bpftest.Eventually(t, "a new connection to be told apart", func() bool {
		flows, _ := a.flows(&pb.FlowsRequest{Include: &pb.Filter{DstPorts: []uint32{uint32(to.Port())}, Protocols: []uint32{6}}})
		return len(flows) == 1
	})
}

// TestBudgetOfMemory: connections are forgotten until the agent fits, and what
// they took is given back.
func TestBudgetOfMemory(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	t.Parallel()
	p := bpftest.NewPair(t)
	const most = 120 << 20 // 107 of it when idle, of which a third is the program itself
	a := start(t, p.A.Netns, "ORB8_MAX_CPU=0", fmt.Sprint("ORB8_MAX_MEMORY=", most))
	before := a.status().Interfaces[0].Egress
	memory := func(st *pb.NodeStatus) uint64 { return st.Cost.ResidentBytes + st.Cost.KernelMapBytes }
	idle := memory(a.status())
	l := startLoad(t, p, 100_000)
	over := within(t, 8*time.Second, "the agent to say so", func() bool {
		return strings.Contains(a.output.String(), "budget of memory")
	})
	peak := memory(a.status())
	var st *pb.NodeStatus
	fits := within(t, 20*time.Second, "the agent to fit", func() bool {
		st = a.status()
		peak = max(peak, memory(st))
		return memory(st) <= most
	})
	sent := l.end()
	t.Logf("idle %d MiB, at most %d, after %.1f s over and %.1f s more %d: %d flows", idle>>20, peak>>20, over.Seconds(), fits.Seconds(), memory(st)>>20, st.ActiveFlows)
	if peak <= most || uint64(st.MaxFlows) > 50_000 || !st.Healthy || !strings.Contains(strings.Join(st.Notes, "; "), "ORB8_MAX_MEMORY") {
		t.Errorf("peak %d, %d of %d flows, %q", peak, st.ActiveFlows, st.MaxFlows, st.Notes)
	}
	time.Sleep(2 * minSwap)
	st = a.status()
	checkTotals(t, p, st, before.Counted.Packets+sent)
	if losses(st)["flows_evicted"] == 0 {
		t.Errorf("losses %v", st.Losses)
	}
}
