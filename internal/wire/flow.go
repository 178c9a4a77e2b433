// SPDX-License-Identifier: Apache-2.0

// Package wire turns the words of orb8 into its public messages and back. It
// decides nothing and keeps nothing. The services use it.
package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// Source is where the flows of an answer were seen.
type Source struct {
	Node     string
	Instance uint64
	// What is known by name.
	Interfaces map[event.Iface]Place
}

// Place is how people know an interface.
type Place struct {
	Name string
	// The network namespace's; "" for the agent's own, and where nobody named it.
	Namespace string
}

// Flow gives the record of a connection.
func (s *Source) Flow(f *event.Flow) *pb.FlowRecord {
	local, remote := f.Conn.Ports()
	r := &pb.FlowRecord{
		ConnectionId:  f.Conn.ID(),
		Node:          Text(s.Node),
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
	p := s.Interfaces[i]
	return &pb.Tap{Netns: uint64(i.Netns), Ifindex: i.Index, Interface: Text(p.Name), Namespace: Text(p.Namespace)}
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
	e.Namespace, e.Pod, e.PodUid = Text(id.Namespace), Text(id.Pod), Text(id.PodUID)
	e.Node, e.Zone, e.Labels = Text(id.Node), Text(id.Zone), labels(id.Labels)
	e.Container, e.Unit, e.Process, e.Pid = Text(id.Container), Text(id.Unit), Text(id.Process), id.PID
	e.Class, e.Service, e.Fqdn = Text(string(id.Class)), Text(id.Service), Text(id.FQDN)
	if id.Workload.Name != "" {
		e.Workload = &pb.Workload{Kind: Text(id.Workload.Kind), Name: Text(id.Workload.Name)}
	}
	return e
}

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
