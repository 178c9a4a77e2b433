// SPDX-License-Identifier: Apache-2.0

package pair

import (
	"fmt"
	"testing"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

const second = int64(1e9)

// record is one end: 1 is the client at port 40000, 2 the server at port 80.
func record(end int, tx, rx uint64, change ...func(*pb.FlowRecord)) *pb.FlowRecord {
	ends := []*pb.End{{Ip: "10.0.0.1", Port: 40000}, {Ip: "10.0.0.2", Port: 80}}
	f := &pb.FlowRecord{
		ConnectionId: 7, Protocol: 6, Node: fmt.Sprint("n", end), Tap: &pb.Tap{Netns: uint64(end), Ifindex: 2},
		OpenedBy: pb.Opener_OPENER_LOCAL, Local: ends[0], Remote: ends[1],
		Total: &pb.Traffic{TxPackets: tx, RxPackets: rx}, FirstSeenNs: 100 * second, LastSeenNs: 110 * second,
		Health: &pb.Health{TcpFlagsTx: 2, TcpFlagsRx: 18},
	}
	if end == 2 {
		f.OpenedBy, f.Local, f.Remote = pb.Opener_OPENER_REMOTE, ends[1], ends[0]
	}
	for _, c := range change {
		c(f)
	}
	return f
}

func pairs(before, after []*pb.FlowRecord) []Pair {
	e := New()
	for _, f := range before {
		e.Before(f)
	}
	for _, f := range after {
		e.Add(f)
	}
	return e.Pairs(50 * second)
}

func lost(p *Pair) string {
	if p.LostThere == nil {
		return "unknown"
	}
	return fmt.Sprint(*p.LostThere, " ", *p.LostBack)
}

func TestLoss(t *testing.T) {
	udp := func(f *pb.FlowRecord) { f.Protocol, f.Health = 17, nil }
	old := func(f *pb.FlowRecord) { f.Health.TcpFlagsTx, f.Health.TcpFlagsRx = 16, 16 }
	at := func(seconds int64) func(*pb.FlowRecord) {
		return func(f *pb.FlowRecord) { f.FirstSeenNs = seconds * second }
	}
	type records = []*pb.FlowRecord
	quiet := records{record(1, 100, 50), record(2, 57, 90)}
	for name, c := range map[string]struct {
		before, after records
		lost          string
		moving        bool
	}{
		"quiet":                 {quiet, quiet, "10 7", false},
		"the server first":      {quiet, records{quiet[1], quiet[0]}, "10 7", false},
		"moving, on its way":    {records{record(1, 100, 50), record(2, 50, 60)}, records{record(1, 200, 80), record(2, 90, 150)}, "0 0", true},
		"moving, lost for sure": {records{record(1, 100, 50), record(2, 50, 60)}, records{record(1, 120, 50), record(2, 50, 70)}, "30 0", true},
		"new since":             {nil, quiet, "0 0", true},
		"received more":         {records{record(1, 5, 5), record(2, 5, 9)}, records{record(1, 5, 5), record(2, 5, 9)}, "0 0", false},
		"older than an agent":   {records{quiet[0], record(2, 57, 90, old)}, records{quiet[0], record(2, 57, 90, old)}, "unknown", false},
		"UDP":                   {records{record(1, 100, 50, udp), record(2, 57, 90, udp)}, records{record(1, 100, 50, udp), record(2, 57, 90, udp)}, "10 7", false},
		"UDP from before":       {records{record(1, 100, 50, udp, at(51)), record(2, 57, 90, udp)}, records{record(1, 100, 50, udp, at(51)), record(2, 57, 90, udp)}, "unknown", false},
		"UDP that expired":      {records{record(1, 100, 50, udp, at(60)), record(2, 57, 90, udp)}, records{record(1, 100, 50, udp, at(60)), record(2, 57, 90, udp)}, "unknown", false},
	} {
		got := pairs(c.before, c.after)
		if len(got) != 1 || got[0].From == nil || got[0].To == nil || got[0].From.GetNode() != "n1" {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		if l := lost(&got[0]); l != c.lost || got[0].Moving != c.moving {
			t.Errorf("%s: lost %s, moving %v; want %s, %v", name, l, got[0].Moving, c.lost, c.moving)
		}
	}
}

func TestOneEnd(t *testing.T) {
	for end, f := range map[int]*pb.FlowRecord{1: record(1, 1, 1), 2: record(2, 1, 1)} {
		got := pairs(nil, []*pb.FlowRecord{f})
		if len(got) != 1 || (got[0].From != nil) != (end == 1) || (got[0].To != nil) != (end == 2) || lost(&got[0]) != "unknown" || got[0].Either().FlowRecord != f || got[0].Lost() != 0 {
			t.Errorf("end %d: %+v", end, got)
		}
	}
}

// A tuple that is used again is another connection.
func TestUsedAgain(t *testing.T) {
	later := func(f *pb.FlowRecord) { f.FirstSeenNs, f.LastSeenNs = 112*second, 120*second }
	all := []*pb.FlowRecord{record(1, 9, 5), record(2, 5, 8), record(1, 30, 20, later), record(2, 20, 27, later)}
	got := pairs(all, all)
	if len(got) != 2 || lost(&got[0]) != "1 0" || lost(&got[1]) != "3 0" {
		t.Errorf("%+v", got)
	}
	// Only one end remembers the first.
	all = []*pb.FlowRecord{record(1, 9, 5), record(1, 30, 20, later), record(2, 20, 27, later)}
	if got = pairs(all, all); len(got) != 2 || got[0].To != nil || lost(&got[1]) != "3 0" {
		t.Errorf("%+v", got)
	}
}

// A connection may move from one interface to another, and be translated on its
// way; what two namespaces claim to send is not compared.
func TestManyRecords(t *testing.T) {
	other := func(f *pb.FlowRecord) { f.Tap.Ifindex = 3 }
	translated := func(f *pb.FlowRecord) {
		f.TranslatedLocal, f.TranslatedRemote = f.Local, f.Remote
		f.Remote = &pb.End{Ip: "10.96.0.1", Port: 443}
	}
	all := []*pb.FlowRecord{record(1, 60, 40, translated), record(1, 70, 10, translated, other), record(2, 51, 128)}
	got := pairs(all, all)
	if len(got) != 1 || lost(&got[0]) != "2 1" || got[0].From.Total.TxPackets != 130 || got[0].From.FlowRecord != all[0] {
		t.Errorf("%+v", got)
	}
	stranger := record(1, 60, 40, func(f *pb.FlowRecord) { f.Tap.Netns = 9 })
	all = append(all, stranger)
	if got = pairs(all, all); len(got) != 1 || lost(&got[0]) != "unknown" {
		t.Errorf("%+v", got)
	}
}

func TestGroupsAreNoEnds(t *testing.T) {
	for _, ip := range []string{"ff02::16", "::", "224.0.0.251", "255.255.255.255", "0.0.0.0"} {
		f := record(1, 1, 1, func(f *pb.FlowRecord) { f.Remote = &pb.End{Ip: ip} })
		if got := pairs(nil, []*pb.FlowRecord{f}); len(got) != 0 {
			t.Errorf("%s: %+v", ip, got)
		}
	}
}

func TestWhoOpenedIsNotKnown(t *testing.T) {
	unknown := func(f *pb.FlowRecord) { f.OpenedBy = pb.Opener_OPENER_UNKNOWN }
	for _, order := range [][]int{{1, 2}, {2, 1}} {
		var all []*pb.FlowRecord
		for _, end := range order {
			all = append(all, record(end, 1, 1, unknown))
		}
		if got := pairs(all, all); len(got) != 1 || got[0].From.GetLocal().GetPort() != 40000 {
			t.Errorf("%+v", got)
		}
	}
}

func BenchmarkPairs(b *testing.B) {
	var all []*pb.FlowRecord
	for i := range uint64(10_000) {
		for end := range 2 {
			all = append(all, record(end+1, i, i, func(f *pb.FlowRecord) { f.ConnectionId = i }))
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if n := len(pairs(all, all)); n != 10_000 {
			b.Fatal(n)
		}
	}
}
