// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// tryTCP connects within a time, and says how that ended.
func tryTCP(e *bpftest.End, to netip.AddrPort, within time.Duration) (err error) {
	e.Do(func() {
		d := net.Dialer{Timeout: within}
		d.SetMultipathTCP(false)
		// A context would have another thread dial.
		c, e := d.Dial("tcp", to.String())
		if err = e; e == nil {
			err = c.Close()
		}
	})
	return err
}

// TestWhyConnectionsWereNeverOpen: each way provoked, as an event and as a flow.
func TestWhyConnectionsWereNeverOpen(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	p.A.Sysctl("ipv4/tcp_syn_retries", "1")                  // after 3 s
	p.A.Sysctl("ipv4/neigh/"+p.A.Name+"/mcast_solicit", "1") // after 1 s
	listens := p.B.ListenTCP(false, bpftest.ServeDiscard).Port()
	for ns, rules := range map[*bpftest.End][]string{
		&p.B: {"tcp dport 7 drop", "tcp dport 8 meta length < 2000 reject with icmpx host-unreachable"},
		&p.A: {fmt.Sprintf("tcp sport %d drop", listens)},
	} {
		ns.Command("nft", "add", "table", "inet", "f")
		ns.Command("nft", "add", "chain", "inet", "f", "in", "{ type filter hook input priority 0; }")
		for _, r := range rules {
			ns.Command("nft", "add", "rule", "inet", "f", "in", r)
		}
	}
	a := start(t, p.A.Netns, "ORB8_EPOCH=100ms")
	far := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(p.B.IP4, port) }
	const enough = 30 * time.Second
	for _, c := range []struct {
		to      netip.AddrPort
		within  time.Duration
		err     error
		kind    pb.EventKind
		state   string
		failure string
		least   time.Duration // it lasted
		packets bool          // without any its beginning is not known
	}{
		{far(9), enough, unix.ECONNREFUSED, pb.EventKind_EVENT_KIND_REFUSED, "refused", "refused", 0, true},
		{far(7), enough, unix.ETIMEDOUT, pb.EventKind_EVENT_KIND_FAILED, "failed", "timed_out", 2500 * time.Millisecond, true},
		{far(8), enough, unix.EHOSTUNREACH, pb.EventKind_EVENT_KIND_FAILED, "failed", "unreachable", 0, true},
		{netip.MustParseAddrPort("10.88.0.99:9"), enough, unix.EHOSTUNREACH, pb.EventKind_EVENT_KIND_FAILED, "failed", "unreachable", 0, false},
		{far(7), 500 * time.Millisecond, context.DeadlineExceeded, pb.EventKind_EVENT_KIND_FAILED, "failed", "given_up", 400 * time.Millisecond, true},
	} {
		follow := a.follow(c.to.Port(), c.kind)
		err := tryTCP(&p.A, c.to, c.within)
		var late net.Error
		if !errors.Is(err, c.err) && !(c.err == context.DeadlineExceeded && errors.As(err, &late) && late.Timeout()) {
			t.Errorf("%v: the process got %v, not %v", c.to, err, c.err)
		}
		e := follow()
		f := e.GetFlow()
		h := f.GetHealth()
		if f.GetRemote().GetIp() != c.to.Addr().String() || f.GetState() != c.state || h.GetFailure() != c.failure || f.GetOpenedBy() != pb.Opener_OPENER_LOCAL ||
			h.GetRetransmits() == 0 && c.err == unix.ETIMEDOUT || c.packets != (f.GetTotal().GetTxPackets() > 0) || c.packets && f.GetLocal().GetSocketCookie() == 0 {
			t.Errorf("%v: %v", c.to, e)
		}
		if d := time.Duration(f.GetDurationNs()); c.packets != (f.DurationNs != nil) || d < c.least || d > enough {
			t.Errorf("%v: it lasted %v", c.to, d)
		}
		t.Logf("%v: %v, %v, %v after %v", c.to, e.GetKind(), f.GetState(), h.GetFailure(), time.Duration(f.GetDurationNs()))
	}
	// An answer that comes when the process has given up is late, and is reset.
	if err := tryTCP(&p.A, far(listens), 300*time.Millisecond); err == nil {
		t.Error("the answer was to be lost")
	}
	p.A.Command("nft", "delete", "table", "inet", "f")
	bpftest.Eventually(t, "the late answer", func() bool {
		known, sum := a.flows(&pb.FlowsRequest{})
		late := ""
		for _, f := range known {
			if h := f.GetHealth(); f.GetRemote().GetPort() == uint32(listens) {
				late = f.GetState() + " " + h.GetFailure() + " " + h.GetResetBy()
			}
		}
		if len(sum.GetLosses()) != 0 {
			t.Errorf("losses %v", sum.GetLosses())
		}
		return late == "failed given_up local"
	})
	st := a.status()
	if i := st.GetInterfaces(); len(i) != 1 || i[0].GetEgress().GetUnaccountedPackets() != 0 || i[0].GetIngress().GetUnaccountedPackets() != 0 {
		t.Errorf("the account of the interface: %v", i)
	}
}

// follow listens for one event of a connection to a port.
func (p *running) follow(port uint16, kind pb.EventKind) (next func() *pb.Event) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	stream, err := pb.NewObserverClient(p.dial()).Events(ctx, &pb.EventsRequest{
		Include: &pb.Filter{Ports: []uint32{uint32(port)}}, Kinds: []pb.EventKind{kind},
	})
	if err == nil {
		_, err = stream.Recv() // following has begun
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return func() *pb.Event {
		p.t.Helper()
		defer cancel()
		for {
			m, err := stream.Recv()
			if err != nil {
				p.t.Fatalf("no %v of port %d: %v", kind, port, err)
			}
			if e := m.GetEvent(); e != nil {
				return e
			}
		}
	}
}
