// SPDX-License-Identifier: Apache-2.0

package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
)

// Interface gives the status of one interface.
func Interface(a *store.InterfaceAudit) *pb.InterfaceStatus {
	state := "attached"
	if a.How == "" {
		state = a.Problem
	}
	return &pb.InterfaceStatus{
		Tap:       &pb.Tap{Netns: uint64(a.Iface.Netns), Ifindex: a.Iface.Index, Interface: Text(a.Name), Namespace: Text(a.Namespace)},
		Attached:  Text(a.How),
		State:     Text(state),
		Ingress:   audit(&a.Ingress),
		Egress:    audit(&a.Egress),
		Namespace: Text(a.Namespace),
		Note:      Text(a.Note),
	}
}

// Namespace gives the status of one network namespace.
func Namespace(n *event.Namespace) *pb.NamespaceStatus {
	s := &pb.NamespaceStatus{
		Netns:      uint64(n.Netns),
		Name:       Text(n.Name),
		Own:        n.Own,
		UntappedNs: n.Untapped.Nanoseconds(),
		Problem:    Text(n.Problem),
	}
	if !n.Tapped.IsZero() {
		s.TappedSinceNs = n.Tapped.UnixNano()
	}
	return s
}

func audit(a *store.Audit) *pb.Audit {
	return &pb.Audit{
		Flows:              counter(a.Flows),
		Remainder:          counter(a.Remainder),
		Overflow:           counter(a.Overflow),
		Forwarded:          counter(a.Forwarded),
		Carried:            counter(a.Carried),
		NotIp:              counter(a.NotIP),
		Malformed:          counter(a.Malformed),
		Counted:            counter(a.Counted),
		Segmentation:       counter(a.Segmentation),
		Interface:          counter(a.Device),
		DroppedPackets:     a.Dropped,
		UnaccountedBytes:   a.UnaccountedBytes,
		UnaccountedPackets: a.UnaccountedPackets,
	}
}

func counter(c event.Counter) *pb.Counter {
	return &pb.Counter{Bytes: c.Bytes, Packets: c.Packets}
}

// Losses gives the messages of what was lost.
func Losses(losses []event.Loss) []*pb.Loss {
	out := make([]*pb.Loss, len(losses))
	for i, l := range losses {
		out[i] = &pb.Loss{Stage: Text(l.Stage), Count: l.Count, Hint: Text(l.Hint)}
	}
	return out
}
