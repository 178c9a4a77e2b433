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
	// The end of the answer, Unix nanoseconds: connections that are open have
	// lasted until then. 0 is not known.
	Now int64
}

// Place is how people know an interface.
type Place struct {
	Name string
	// The network namespace's; "" for the agent's own, and where nobody named it.
	Namespace string
}

// Flow gives the record of a connection.
func (s *Source) Flow(f *event.Flow) *pb.FlowRecord {
	socket, wire := tuples(f)
	r := &pb.FlowRecord{
		ConnectionId:  wire.ID(),
		Node:          Text(s.Node),
		AgentInstance: s.Instance,
		Epoch:         f.Epoch,
		Tap:           s.tap(f.Conn.Iface()),
		Protocol:      uint32(f.Conn.Protocol),
		OpenedBy:      pb.Opener(f.OpenedBy),
		Local:         end(socket.Local, f.Local),
		Remote:        end(socket.Remote, f.Remote),
		Total:         Traffic(f.Total),
		FirstSeenNs:   f.First,
		LastSeenNs:    f.Last,
		State:         f.State.String(),
		Health:        health(f),
		Fragments:     f.Conn.Kind == event.ConnFragment,
		DurationNs:    duration(f, s.Now),
		Tls:           hello(f.TLS),
	}
	r.Local.Port, r.Remote.Port = ports(socket)
	r.Local.CgroupId, r.Local.SocketCookie = f.Cgroup, f.Cookie
	if f.NAT != nil {
		r.TranslatedLocal = &pb.End{Ip: wire.Local.Addr().String()}
		r.TranslatedRemote = &pb.End{Ip: wire.Remote.Addr().String()}
		r.TranslatedLocal.Port, r.TranslatedRemote.Port = ports(wire)
	}
	return r
}

// tuples gives a connection as its socket has it, and as it is on the wire.
func tuples(f *event.Flow) (socket, wire *event.Conn) {
	t := f.NAT
	if t == nil {
		return &f.Conn, &f.Conn
	}
	other := f.Conn
	other.Local, other.LocalPort = t.Local, t.LocalPort
	other.Remote, other.RemotePort = t.Remote, t.RemotePort
	if t.OfSocket {
		return &other, &f.Conn
	}
	return &f.Conn, &other
}

func ports(c *event.Conn) (local, remote uint32) {
	l, r := c.Ports()
	return uint32(l), uint32(r)
}

// Event gives what happened to a connection.
func (s *Source) Event(e *event.Event) *pb.Event {
	switch {
	case e.Drop != nil:
		return s.dropped(e)
	case e.Lookup != nil:
		return s.looked(e)
	case e.GPU != nil:
		return s.gpu(e)
	}
	r := s.Flow(&e.Flow)
	r.Delta = Traffic(e.Delta)
	r.DeltaStartNs, r.DeltaEndNs = e.DeltaStart, e.DeltaEnd
	r.DurationNs = duration(&e.Flow, e.Time)
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

func end(ip event.IP, id *event.Identity) *pb.End {
	e := party(id)
	e.Ip = ip.Addr().String()
	return e
}

// party is an end without an address.
func party(id *event.Identity) *pb.End {
	e := &pb.End{}
	if id == nil {
		e.Class = string(event.ClassUnknown)
		return e
	}
	e.Namespace, e.Pod, e.PodUid = Text(id.Namespace), Text(id.Pod), Text(id.PodUID)
	e.Node, e.Zone, e.Labels = Text(id.Node), Text(id.Zone), labels(id.Labels)
	e.Container, e.Unit, e.Process, e.Pid = Text(id.Container), Text(id.Unit), Text(id.Process), id.PID
	e.Class, e.Service = Text(string(id.Class)), Text(id.Service)
	e.Fqdn, e.FqdnSource = Text(id.FQDN), Text(string(id.FQDNSource))
	e.Workload = workload(id.Workload)
	return e
}

// workload is absent when it is not known.
func workload(w event.Workload) *pb.Workload {
	if w.Name == "" {
		return nil
	}
	return &pb.Workload{Kind: Text(w.Kind), Name: Text(w.Name)}
}
