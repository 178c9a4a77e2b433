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
		Tap:      &pb.Tap{Netns: uint64(a.Iface.Netns), Ifindex: a.Iface.Index, Interface: a.Name},
		Attached: a.How,
		State:    state,
		Ingress:  audit(&a.Ingress),
		Egress:   audit(&a.Egress),
	}
}

func audit(a *store.Audit) *pb.Audit {
	return &pb.Audit{
		Flows:              counter(a.Flows),
		Remainder:          counter(a.Remainder),
		Overflow:           counter(a.Overflow),
		NotIp:              counter(a.NotIP),
		Malformed:          counter(a.Malformed),
		Counted:            counter(a.Counted),
		Segmentation:       counter(a.Segmentation),
		Interface:          counter(a.Device),
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
		out[i] = &pb.Loss{Stage: l.Stage, Count: l.Count, Hint: l.Hint}
	}
	return out
}
