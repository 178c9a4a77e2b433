// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"math"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// On the original's wire, what belongs to no pod has these names.
const (
	noNamespace = "external"
	noPod       = "unknown"
)

// OrbitNames gives the local end's namespace and pod on the original's wire.
func OrbitNames(f *event.Flow) (namespace, pod string) {
	if f.Local == nil || f.Local.Pod == "" {
		return noNamespace, noPod
	}
	return Text(f.Local.Namespace), Text(f.Local.Pod)
}

// OrbitFlows gives the rows of a connection on the original's wire: one for
// each direction that moved data.
func OrbitFlows(f *event.Flow) []*pb.NetworkFlow {
	var rows []*pb.NetworkFlow
	if tx := f.Total.Tx(); tx.Packets > 0 {
		rows = append(rows, orbitFlow(f, tx, false))
	}
	if rx := f.Total.Rx(); rx.Packets > 0 {
		rows = append(rows, orbitFlow(f, rx, true))
	}
	return rows
}

func orbitFlow(f *event.Flow, c event.Counter, ingress bool) *pb.NetworkFlow {
	r := &pb.NetworkFlow{
		Protocol:    f.Conn.Protocol.String(),
		Bytes:       c.Bytes,
		Packets:     c.Packets,
		FirstSeenNs: f.First,
		LastSeenNs:  f.Last,
	}
	r.Namespace, r.PodName = OrbitNames(f)
	r.SrcIp, r.DstIp, r.SrcPort, r.DstPort, r.Direction = orbitEnds(&f.Conn, ingress)
	return r
}

// OrbitEvents gives the events of a connection on the original's wire: one for
// each direction that moved data in the epoch.
func OrbitEvents(e *event.Event) []*pb.NetworkEvent {
	var rows []*pb.NetworkEvent
	for _, d := range []struct {
		c       event.Counter
		ingress bool
	}{{e.Delta.Tx(), false}, {e.Delta.Rx(), true}} {
		if d.c.Packets == 0 {
			continue
		}
		r := &pb.NetworkEvent{
			Protocol:    e.Flow.Conn.Protocol.String(),
			Bytes:       uint32(min(d.c.Bytes, math.MaxUint32)),
			TimestampNs: e.Time,
		}
		r.Namespace, r.PodName = OrbitNames(&e.Flow)
		r.SrcIp, r.DstIp, r.SrcPort, r.DstPort, r.Direction = orbitEnds(&e.Flow.Conn, d.ingress)
		rows = append(rows, r)
	}
	return rows
}

func orbitEnds(c *event.Conn, ingress bool) (srcIP, dstIP string, srcPort, dstPort uint32, direction string) {
	local, remote := c.Ports()
	if ingress {
		return c.Remote.Addr().String(), c.Local.Addr().String(), uint32(remote), uint32(local), "ingress"
	}
	return c.Local.Addr().String(), c.Remote.Addr().String(), uint32(local), uint32(remote), "egress"
}
