// SPDX-License-Identifier: Apache-2.0

package store

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// base is the time of the first packet.
const base = int64(1_700_000_000_000_000_000)

func conn(n int) event.Conn {
	return event.Conn{
		Local:     event.IPFrom(netip.MustParseAddr("10.0.0.1")),
		Remote:    event.IPFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)})),
		LocalPort: 1000, RemotePort: uint16(n >> 16), Ifindex: 1 + uint32(n%3), Netns: 7, Protocol: event.UDP,
	}
}

func moved(c event.Conn, tx, rx uint64) *event.Delta {
	return &event.Delta{Conn: c, First: base, Last: base, FirstTx: true, Traffic: event.Traffic{TxBytes: tx * 100, TxPackets: tx, RxBytes: rx * 60, RxPackets: rx}}
}

// apply adds a delta and plays the enricher.
func apply(s *Flows, d *event.Delta) (*event.Flow, Happened) {
	f, h, identify := s.Apply(d)
	if identify {
		f.Local, f.Remote = &event.Identity{}, &event.Identity{}
	}
	return f, h
}

// TestNothingIsLost: whatever expires, is evicted or finds no room, live +
// remainder is what was applied, and live is what the flows say.
func TestNothingIsLost(t *testing.T) {
	s := NewFlows(Limits{Flows: 500, Timeout: 5 * time.Second})
	rng := rand.New(rand.NewPCG(1, 2))
	var want event.Traffic
	now := base
	for range 200 {
		s.Begin()
		now += int64(time.Second)
		for range rng.IntN(800) {
			d := moved(conn(rng.IntN(3000)), uint64(rng.IntN(9)), uint64(rng.IntN(9)))
			d.First, d.Last = now, now
			want.Add(d.Traffic)
			apply(s, d)
		}
		if rng.IntN(4) == 0 {
			s.Expire(time.Unix(0, now))
		}
		checkTotals(t, s, want)
	}
	if st := s.Stats(); st.Evicted == 0 || st.Flows > 500 {
		t.Errorf("the test should have evicted, within the limit: %+v", st)
	}
	s.Begin()
	s.Expire(time.Unix(0, now).Add(time.Hour))
	if n := s.Stats().Flows; n != 0 {
		t.Errorf("%d flows did not expire", n)
	}
	checkTotals(t, s, want)
}

func checkTotals(t *testing.T, s *Flows, want event.Traffic) {
	t.Helper()
	var live, all event.Traffic
	for i := uint32(1); i <= 3; i++ {
		sums := s.Sums(event.Iface{Netns: 7, Index: i})
		live.Add(sums.Live)
		all.Add(sums.Live)
		all.Add(sums.Remainder)
	}
	if all != want {
		t.Fatalf("live and remainder are %+v, applied was %+v", all, want)
	}
	a := s.Query(Query{Limit: 1})
	if a.MatchedTraffic != live || a.Matched != s.Stats().Flows {
		t.Fatalf("the flows hold %+v in %d, the sums say %+v in %d", a.MatchedTraffic, a.Matched, live, s.Stats().Flows)
	}
}

func TestQueryGivesTheFirstInOrder(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	for i := range 1000 {
		d := moved(conn(i), uint64(i*7919%1000), 1)
		d.Last = base + int64(i)
		d.HasSocket, d.Health.RTT, d.Health.Retransmits = true, uint32(1000-i), uint32(i%10)
		apply(s, d)
	}
	for _, c := range []struct {
		sort Sort
		key  func(*event.Flow) uint64
	}{
		{SortBytes, func(f *event.Flow) uint64 { return f.Total.Bytes() }},
		{SortPackets, func(f *event.Flow) uint64 { return f.Total.Packets() }},
		{SortRTT, func(f *event.Flow) uint64 { return uint64(f.Health.RTT) }},
		{SortRetransmits, func(f *event.Flow) uint64 { return uint64(f.Health.Retransmits) }},
		{SortLast, func(f *event.Flow) uint64 { return uint64(f.Last) }},
	} {
		all := s.Query(Query{Sort: c.sort, Limit: 2000}).Flows
		top := s.Query(Query{Sort: c.sort, Limit: 37}).Flows
		if len(all) != 1000 || len(top) != 37 {
			t.Fatalf("order %d: %d and %d flows", c.sort, len(all), len(top))
		}
		for i := range all {
			if i > 0 && c.key(&all[i-1]) < c.key(&all[i]) {
				t.Fatalf("order %d: %d is before %d", c.sort, c.key(&all[i-1]), c.key(&all[i]))
			}
			if i < 37 && top[i].Conn != all[i].Conn {
				t.Fatalf("order %d: the limit changes the answer at %d", c.sort, i)
			}
		}
	}
	f := filter.Filter{Include: filter.Fields{IPs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/25")}}}
	a := s.Query(Query{Filter: f, Limit: 5})
	if a.Matched != 128 || len(a.Flows) != 5 {
		t.Errorf("matched %d, gave %d", a.Matched, len(a.Flows))
	}
	if a := s.Query(Query{Limit: 0}); len(a.Flows) != 0 || a.Matched != 1000 {
		t.Errorf("limit 0 gave %d of %d", len(a.Flows), a.Matched)
	}
}

func TestApplyAllocatesNothing(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	d := moved(conn(1), 1, 1)
	apply(s, d)
	if n := testing.AllocsPerRun(100, func() { apply(s, d) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAudit(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	d := moved(event.Conn{Ifindex: 1, Protocol: event.TCP}, 10, 5) // 1000 and 300 bytes
	d.Segmentation = event.Traffic{TxBytes: 200, TxPackets: 4}
	apply(s, d)
	in := event.Interface{Iface: event.Iface{Index: 1}}
	in.Egress.NotIP = event.Counter{Bytes: 42, Packets: 1}
	in.Egress.DeviceLow = event.Counter{Bytes: 842, Packets: 7}
	in.Egress.DeviceHigh = in.Egress.DeviceLow
	in.Ingress.DeviceLow = event.Counter{Bytes: 300, Packets: 5}
	in.Ingress.DeviceHigh = event.Counter{Bytes: 360, Packets: 6}
	a := s.Audit(in)
	if want := (event.Counter{Bytes: 1042, Packets: 11}); a.Egress.Counted != want {
		t.Errorf("counted %+v, want %+v", a.Egress.Counted, want)
	}
	if a.Egress.UnaccountedBytes != 0 || a.Egress.UnaccountedPackets != 0 || a.Ingress.UnaccountedBytes != 0 {
		t.Errorf("adds up, but: %+v", a)
	}
	in.Egress.DeviceLow.Bytes += 1000
	in.Egress.DeviceHigh.Bytes += 1000
	in.Ingress.DeviceHigh = event.Counter{Bytes: 220, Packets: 5}
	in.Ingress.DeviceLow = in.Ingress.DeviceHigh
	a = s.Audit(in)
	if a.Egress.UnaccountedBytes != 800 || a.Ingress.UnaccountedBytes != -10 {
		t.Errorf("unaccounted %d and %d", a.Egress.UnaccountedBytes, a.Ingress.UnaccountedBytes)
	}
	// A device may count segments.
	in.Egress.DeviceLow, in.Egress.DeviceHigh = event.Counter{Bytes: 1042, Packets: 11}, event.Counter{Bytes: 1042, Packets: 11}
	if a = s.Audit(in); a.Egress.UnaccountedBytes != 0 || a.Egress.UnaccountedPackets != 0 {
		t.Errorf("segments counted by hardware do not add up: %+v", a.Egress)
	}
	// Of the seven that it counted whole, it says that it dropped two.
	in.Egress.DeviceLow, in.Egress.DeviceHigh = event.Counter{Bytes: 600, Packets: 5}, event.Counter{Bytes: 600, Packets: 5}
	in.Egress.Dropped = 2
	if a = s.Audit(in); a.Egress.UnaccountedBytes != 0 || a.Egress.UnaccountedPackets != 0 || a.Egress.Device != in.Egress.DeviceHigh {
		t.Errorf("what it dropped does not add up: %+v", a.Egress)
	}
	in.Egress.Dropped = 1
	if a = s.Audit(in); a.Egress.UnaccountedPackets != -1 {
		t.Errorf("a packet is missing: %+v", a.Egress)
	}
}
