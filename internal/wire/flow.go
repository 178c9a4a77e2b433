// SPDX-License-Identifier: Apache-2.0

// Package wire turns the words of orb8 into its public messages and back. It
// decides nothing and keeps nothing. The services use it.
package wire

import (
	"strings"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// Source is where the flows of an answer were seen.
type Source struct {
	Node     string
	Instance uint64
	// Interfaces by name, as far as known.
	Interfaces map[event.Iface]string
}

// Flow gives the record of a connection.
func (s *Source) Flow(f *event.Flow) *pb.FlowRecord {
	local, remote := f.Conn.Ports()
	r := &pb.FlowRecord{
		ConnectionId:  f.Conn.ID(),
		Node:          s.Node,
		AgentInstance: s.Instance,
		Epoch:         f.Epoch,
		Tap:           s.tap(f.Conn.Iface()),
		Protocol:      uint32(f.Conn.Protocol),
		OpenedBy:      pb.Opener(f.OpenedBy),
		Local:         end(f.Conn.Local, local, f.Local),
		Remote:        end(f.Conn.Remote, remote, f.Remote),
		Total:         Traffic(f.Total),
		FirstSeenNs:   f.First,
		LastSeenNs:    f.Last,
		State:         f.State.String(),
		Health:        health(f),
		Fragments:     f.Conn.Kind == event.ConnFragment,
	}
	r.Local.CgroupId, r.Local.SocketCookie = f.Cgroup, f.Cookie
	return r
}

// Event gives what happened to a connection.
func (s *Source) Event(e *event.Event) *pb.Event {
	r := s.Flow(&e.Flow)
	r.Delta = Traffic(e.Delta)
	r.DeltaStartNs, r.DeltaEndNs = e.DeltaStart, e.DeltaEnd
	if e.Overflow > 0 {
		r.Loss = &pb.Loss{Stage: "table_full", Count: e.Overflow, Hint: "packets of this epoch that were counted without their connection, perhaps this one"}
	}
	return &pb.Event{Kind: pb.EventKind(e.Kind), TimeNs: e.Time, Flow: r}
}

func (s *Source) tap(i event.Iface) *pb.Tap {
	return &pb.Tap{Netns: uint64(i.Netns), Ifindex: i.Index, Interface: s.Interfaces[i]}
}

// Traffic gives the message of t.
func Traffic(t event.Traffic) *pb.Traffic {
	return &pb.Traffic{TxBytes: t.TxBytes, TxPackets: t.TxPackets, RxBytes: t.RxBytes, RxPackets: t.RxPackets}
}

func end(ip event.IP, port uint16, id *event.Identity) *pb.End {
	e := &pb.End{Ip: ip.Addr().String(), Port: uint32(port)}
	if id == nil {
		e.Class = string(event.ClassUnknown)
		return e
	}
	e.Namespace, e.Pod, e.PodUid = id.Namespace, id.Pod, id.PodUID
	e.Node, e.Zone, e.Labels = id.Node, id.Zone, id.Labels
	// A process chooses its own name, who makes a cgroup that one's, and protobuf
	// refuses what is not UTF-8.
	e.Container, e.Unit, e.Process, e.Pid = text(id.Container), text(id.Unit), text(id.Process), id.PID
	e.Class, e.Service, e.Fqdn = string(id.Class), id.Service, text(id.FQDN)
	if id.Workload.Name != "" {
		e.Workload = &pb.Workload{Kind: id.Workload.Kind, Name: id.Workload.Name}
	}
	return e
}

// text marks what is not UTF-8.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// health is absent when nothing is known.
func health(f *event.Flow) *pb.Health {
	h := &f.Health
	if !f.HasSocket && h.FlagsTx|h.FlagsRx == 0 && h.ICMPErrors == 0 {
		return nil
	}
	return &pb.Health{
		RttUs:       h.RTT,
		MinRttUs:    h.MinRTT,
		Retransmits: uint64(h.Retransmits),
		BytesAcked:  h.BytesAcked,
		TcpFlagsTx:  uint32(h.FlagsTx),
		TcpFlagsRx:  uint32(h.FlagsRx),
		IcmpErrors:  h.ICMPErrors,
		IcmpType:    uint32(h.ICMPType),
		IcmpCode:    uint32(h.ICMPCode),
	}
}
