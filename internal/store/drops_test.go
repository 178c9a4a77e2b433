// SPDX-License-Identifier: Apache-2.0

package store

import (
	"strconv"
	"testing"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

func dropped(reason string, packets uint64, at int64) *event.Drop {
	return &event.Drop{
		Conn: event.Conn{Netns: 7, Ifindex: 2}, Reason: reason, Location: "here+0x1",
		Amount: event.Counter{Packets: packets, Bytes: 100 * packets}, First: at, Last: at + 5,
	}
}

func web(name string) *event.Identity {
	return &event.Identity{Class: event.ClassPod, Namespace: "shop", Pod: name, PodUID: "u1", Node: "n1"}
}

func TestDropsAddUp(t *testing.T) {
	s := NewDrops(0)
	s.Add(web(""), dropped("NO_SOCKET", 3, 100))
	s.Add(web("web-0"), dropped("NO_SOCKET", 4, 50))
	s.Add(web(""), dropped("NO_SOCKET", 1, 60)) // the pod is gone
	s.Add(web("web-0"), dropped("NETFILTER_DROP", 2, 10))
	a := s.Query(&filter.Filter{}, 10)
	if a.Known != 10 || a.Matched != 10 || len(a.Rows) != 2 {
		t.Fatalf("%+v", a)
	}
	r := a.Rows[0]
	if r.Reason != "NO_SOCKET" || r.Amount != (event.Counter{Packets: 8, Bytes: 800}) || r.First != 50 || r.Last != 105 {
		t.Errorf("the most packets come first: %+v", r)
	}
	if r.At.Pod != "web-0" {
		t.Errorf("at %+v: a name that was told stays", r.At)
	}
}

func TestDropsOfProcesses(t *testing.T) {
	s := NewDrops(0)
	for pid, process := range []string{"sshd", "sshd", "ntpd"} {
		s.Add(&event.Identity{Class: event.ClassHost, Process: process, PID: uint32(pid)}, dropped("NO_SOCKET", 1, 1))
	}
	if a := s.Query(&filter.Filter{}, 10); len(a.Rows) != 2 {
		t.Errorf("%+v", a.Rows)
	}
}

func TestDropsFilter(t *testing.T) {
	s := NewDrops(0)
	s.Add(web("web-0"), dropped("NO_SOCKET", 3, 100))
	s.Add(&event.Identity{Class: event.ClassHost, Node: "n1"}, dropped("NO_SOCKET", 4, 100))
	for _, c := range []struct {
		include, exclude filter.Fields
		want             uint64
	}{
		{want: 7},
		{include: filter.Fields{Pods: []string{"shop/web-0"}}, want: 3},
		{exclude: filter.Fields{Pods: []string{"web-0"}}, want: 4},
		{include: filter.Fields{Nodes: []string{"n1"}}, want: 7},
		{include: filter.Fields{Ports: []uint16{80}}},
		{include: filter.Fields{Protocols: []event.Protocol{event.TCP}}},
	} {
		a := s.Query(&filter.Filter{Include: c.include, Exclude: c.exclude}, 1)
		if a.Matched != c.want || a.Known != 7 || len(a.Rows) > 1 {
			t.Errorf("%+v: %+v", c, a)
		}
	}
}

// What makes room is not forgotten.
func TestDropsBounded(t *testing.T) {
	s := NewDrops(10)
	for i := range 25 {
		d := dropped(strconv.Itoa(i), 2, int64(i+1))
		d.Folded = i == 0
		s.Add(web("web-0"), d)
	}
	a := s.Query(&filter.Filter{}, 100)
	folded, evicted := s.Stats()
	if len(a.Rows) != 10 || a.Known != 50 || a.Matched != 20 || folded != 2 || evicted != 15 {
		t.Errorf("%d rows, %+v, %d without connection, %d evicted", len(a.Rows), a, folded, evicted)
	}
	if a.Rows[0].Reason != "24" {
		t.Errorf("the last are kept: %+v", a.Rows[0])
	}
}

func TestFeedOfDrops(t *testing.T) {
	f := NewFeed(FeedConfig{})
	h := Happened(1 << event.KindDrop)
	if f.Wanted(h) {
		t.Error("wanted by nobody")
	}
	fo, err := f.Follow(Wish{Kinds: []event.Kind{event.KindDrop}})
	if err != nil {
		t.Fatal(err)
	}
	nobody := &event.Identity{}
	e := event.Event{Flow: event.Flow{Local: nobody, Remote: nobody, Last: 3}, Drop: dropped("NO_SOCKET", 1, 100)}
	f.Publish(h, &e)
	f.Flush()
	if got := (<-fo.Events())[0]; got.Kind != event.KindDrop || got.Time != 105 {
		t.Errorf("%+v", got)
	}
	// A storm would leave nothing of what is remembered for those who ask later.
	later, err := f.Follow(Wish{Since: 1})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case batch := <-later.Events():
		t.Errorf("remembered: %+v", batch)
	default:
	}
}

func BenchmarkDropsAdd(b *testing.B) {
	s, at, d := NewDrops(0), web("web-0"), dropped("NO_SOCKET", 1, 1)
	b.ReportAllocs()
	for b.Loop() {
		s.Add(at, d)
	}
}
