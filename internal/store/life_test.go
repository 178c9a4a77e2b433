// SPDX-License-Identifier: Apache-2.0

package store

import (
	"slices"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

const (
	syn    = event.FlagSYN
	ack    = event.FlagACK
	synAck = event.FlagSYN | event.FlagACK
	fin    = event.FlagFIN | event.FlagACK
	rst    = event.FlagRST
)

// step is one epoch of a connection: the flags that went each way.
type step struct {
	tx, rx  uint8
	firstTx bool
}

func TestLifeOfATCPConnection(t *testing.T) {
	opened, closed, refused, reset := event.KindOpened, event.KindClosed, event.KindRefused, event.KindReset
	for _, c := range []struct {
		name   string
		steps  []step
		opener event.Opener
		state  event.State
		kinds  []event.Kind
	}{
		{"whole life in one epoch", []step{{syn | fin, synAck | fin, true}}, event.OpenerLocal, event.StateClosed, []event.Kind{opened, closed}},
		{"accepted", []step{{synAck, syn | ack, false}}, event.OpenerRemote, event.StateEstablished, []event.Kind{opened}},
		{"step by step", []step{{syn, 0, true}, {ack, synAck, true}, {fin, 0, true}, {0, fin, false}}, event.OpenerLocal, event.StateClosed, []event.Kind{opened, closed}},
		{"handshake cut by the epoch", []step{{syn, synAck, true}, {ack, 0, true}}, event.OpenerLocal, event.StateEstablished, []event.Kind{opened}},
		{"only asked", []step{{syn, 0, true}, {syn, 0, true}}, event.OpenerLocal, event.StateSynSent, nil},
		{"asked by the remote end", []step{{0, syn, false}}, event.OpenerRemote, event.StateSynRecv, nil},
		{"refused", []step{{syn, rst | ack, true}}, event.OpenerLocal, event.StateRefused, []event.Kind{refused}},
		{"refuses", []step{{rst | ack, syn, false}}, event.OpenerRemote, event.StateRefused, []event.Kind{refused}},
		{"reset", []step{{syn | ack, synAck, true}, {0, rst, false}}, event.OpenerLocal, event.StateReset, []event.Kind{opened, reset}},
		{"older than the agent", []step{{ack, ack, true}}, event.OpenerUnknown, event.StateEstablished, nil},
		{"older, then closed", []step{{ack, ack, true}, {fin, fin, true}}, event.OpenerUnknown, event.StateClosed, []event.Kind{closed}},
		{"half closed here", []step{{syn | fin, synAck, true}}, event.OpenerLocal, event.StateFinWait, []event.Kind{opened}},
		{"half closed there", []step{{syn | ack, synAck | fin, true}}, event.OpenerLocal, event.StateCloseWait, []event.Kind{opened}},
		{"reset after the answer", []step{{syn, synAck, true}, {rst, 0, true}}, event.OpenerLocal, event.StateReset, []event.Kind{reset}},
		{"reset before it was accepted", []step{{synAck, syn | rst, false}}, event.OpenerRemote, event.StateReset, []event.Kind{reset}},
		{"reset after the end is still closed", []step{{syn | fin, synAck | fin, true}, {rst, 0, true}}, event.OpenerLocal, event.StateClosed, []event.Kind{opened, closed}},
	} {
		s := NewFlows(Limits{})
		var kinds []event.Kind
		var f *event.Flow
		for _, st := range c.steps {
			s.Begin()
			d := &event.Delta{Conn: event.Conn{Protocol: event.TCP, LocalPort: 1}, FirstTx: st.firstTx, Traffic: event.Traffic{TxPackets: 1}}
			d.Health.FlagsTx, d.Health.FlagsRx = st.tx, st.rx
			var h Happened
			f, h = apply(s, d)
			for _, k := range order {
				if k != event.KindTraffic && h.Has(k) {
					kinds = append(kinds, k)
				}
			}
		}
		if f.OpenedBy != c.opener || f.State != c.state || !slices.Equal(kinds, c.kinds) {
			t.Errorf("%s: opened by %v, %v, %v; want %v, %v, %v", c.name, f.OpenedBy, f.State, kinds, c.opener, c.state, c.kinds)
		}
	}
}

func TestTupleUsedAgainIsANewConnection(t *testing.T) {
	s := NewFlows(Limits{})
	c := event.Conn{Protocol: event.TCP, LocalPort: 1, Ifindex: 1}
	s.Begin()
	d := &event.Delta{Conn: c, FirstTx: true, Traffic: event.Traffic{TxPackets: 5, TxBytes: 500}}
	d.Health.FlagsTx, d.Health.FlagsRx = syn|fin, synAck|fin
	apply(s, d)
	s.Begin()
	d.Traffic = event.Traffic{TxPackets: 1, TxBytes: 60}
	d.Health.FlagsTx, d.Health.FlagsRx, d.Health.SYN = syn, 0, 1
	f, _ := apply(s, d)
	if f.Total.TxBytes != 60 || f.State != event.StateSynSent {
		t.Errorf("the new connection has %+v, %v", f.Total, f.State)
	}
	if r := s.Sums(c.Iface()).Remainder; r.TxBytes != 500 {
		t.Errorf("the old one's traffic is not in the remainder: %+v", r)
	}
}

func TestUDPOpensAtTheFirstPacketAndICMPRefuses(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	older, h := apply(s, moved(conn(1), 1, 0))
	if older.OpenedBy != event.OpenerUnknown || h.Has(event.KindOpened) {
		t.Errorf("what moves in the first epoch may be older than the agent: %v", older.OpenedBy)
	}
	s.Begin()
	f, h := apply(s, moved(conn(2), 1, 0))
	if f.OpenedBy != event.OpenerLocal || !h.Has(event.KindOpened) {
		t.Errorf("opened by %v, %b", f.OpenedBy, h)
	}
	s.Begin()
	d := moved(conn(2), 1, 0)
	d.Health = event.Health{ICMPErrors: 1, ICMPType: 3, ICMPCode: 3}
	if f, h = apply(s, d); f.State != event.StateRefused || !h.Has(event.KindRefused) || h.Has(event.KindOpened) {
		t.Errorf("port unreachable: %v, %b", f.State, h)
	}
	s.Begin()
	if f, _ = apply(s, moved(conn(2), 1, 1)); f.State != event.StateNone {
		t.Errorf("answered after all, but %v", f.State)
	}
}

func TestIdentifyAgainWhenTheOwnerIsKnown(t *testing.T) {
	s := NewFlows(Limits{})
	s.Begin()
	d := moved(conn(1), 0, 1)
	if _, _, identify := s.Apply(d); !identify {
		t.Error("a new flow has no names")
	}
	if _, _, identify := s.Apply(d); identify {
		t.Error("nothing new is known")
	}
	d.Cookie, d.Cgroup = 5, 6
	if f, _, identify := s.Apply(d); !identify || f.Cookie != 5 || f.Cgroup != 6 {
		t.Error("the socket is known now")
	}
}

func TestFeedDropsAndCounts(t *testing.T) {
	f := NewFeed(FeedConfig{Queue: 2, Followers: 1, Recent: 3})
	slow, err := f.Follow(Wish{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Follow(Wish{}); err == nil {
		t.Error("a second follower is one too many")
	}
	var h Happened
	h.add(event.KindTraffic)
	for i := range 5 * feedBatch {
		f.Publish(h, &event.Event{Flow: event.Flow{Last: int64(i)}})
	}
	f.Flush()
	if n := slow.Lost(); n != 3*feedBatch {
		t.Errorf("lost %d, want %d", n, 3*feedBatch)
	}
	if got := (<-slow.Events())[0].Time; got != 0 {
		t.Errorf("the oldest must be kept, got %d", got)
	}
	f.Leave(slow)
	f.Leave(slow)
	if n, lost := f.Stats(); n != 0 || lost != 3*feedBatch {
		t.Errorf("%d followers, %d lost", n, lost)
	}
}

func TestFeedReplaysRecentEvents(t *testing.T) {
	f := NewFeed(FeedConfig{Recent: 3})
	var h Happened
	h.add(event.KindOpened)
	h.add(event.KindTraffic)
	for i := range 5 {
		f.Publish(h, &event.Event{Flow: event.Flow{First: int64(i + 1), Last: int64(i + 1)}})
	}
	fo, err := f.Follow(Wish{Since: 4})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case batch := <-fo.Events():
		if len(batch) != 2 || batch[0].Time != 4 || batch[1].Time != 5 || batch[0].Kind != event.KindOpened {
			t.Errorf("replayed %+v", batch)
		}
	case <-time.After(time.Second):
		t.Fatal("nothing was replayed")
	}
	f.Close()
	if _, open := <-fo.Events(); open {
		t.Error("the queue must end with the feed")
	}
}

func BenchmarkApply(b *testing.B) {
	s := NewFlows(Limits{})
	s.Begin()
	deltas := make([]*event.Delta, 100_000)
	for i := range deltas {
		deltas[i] = moved(conn(i), 1, 1)
		apply(s, deltas[i])
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		apply(s, deltas[i])
		if i++; i == len(deltas) {
			i = 0
		}
	}
}

// On loopback the answer may be read before the question.
func TestOpenerByTheAnswer(t *testing.T) {
	for _, c := range []struct {
		protocol          event.Protocol
		sent, answers, lo bool
		want              event.Opener
	}{
		{event.TCP, true, false, true, event.OpenerLocal},
		{event.TCP, false, false, true, event.OpenerRemote},
		{event.TCP, true, true, true, event.OpenerRemote},
		{event.TCP, false, true, true, event.OpenerLocal},
		{event.UDP, true, false, true, event.OpenerUnknown},
		{event.UDP, true, false, false, event.OpenerLocal},
	} {
		d := event.Delta{FirstTx: c.sent, FirstAnswers: c.answers, Loopback: c.lo, Conn: event.Conn{Protocol: c.protocol}}
		d.Health.FlagsTx, d.Health.FlagsRx = event.FlagSYN, event.FlagSYN
		if got := opener(&d, false); got != c.want {
			t.Errorf("%+v: opened by %v, want %v", c, got, c.want)
		}
	}
}
