// SPDX-License-Identifier: Apache-2.0

package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

// DropRow gives the record of what was dropped of one party.
func (s *Source) DropRow(row *store.DropRow) *pb.DropRecord {
	r := s.drop(&row.Drop, row.At)
	// Of a namespace, not of one interface: that is only how people know it.
	r.Tap = &pb.Tap{Netns: r.GetTap().GetNetns(), Namespace: r.GetTap().GetNamespace()}
	return r
}

func (s *Source) drop(d *event.Drop, at *event.Identity) *pb.DropRecord {
	return &pb.DropRecord{
		Node:     Text(s.Node),
		Tap:      s.tap(d.Conn.Iface()),
		At:       party(at),
		Reason:   Text(d.Reason),
		Hint:     Text(d.Hint),
		Location: Text(d.Location),
		Packets:  d.Amount.Packets,
		Bytes:    d.Amount.Bytes,
		FirstNs:  d.First,
		LastNs:   d.Last,
	}
}

// dropped gives a connection's record as far as a dropped packet tells it.
func (s *Source) dropped(e *event.Event) *pb.Event {
	r := s.Flow(&e.Flow)
	if e.Flow.Conn.Local == (event.IP{}) && e.Flow.Conn.Remote == (event.IP{}) {
		r.ConnectionId, r.Local.Ip, r.Remote.Ip = 0, "", ""
	}
	if e.Flow.Epoch == 0 { // the tap has not seen it
		r.Total, r.Health, r.FirstSeenNs, r.LastSeenNs = nil, nil, 0, 0
	}
	return &pb.Event{Kind: pb.EventKind_EVENT_KIND_DROP, TimeNs: e.Time, Flow: r, Drop: s.drop(e.Drop, e.Flow.Local)}
}
