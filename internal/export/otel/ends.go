// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/orb8/orb8/internal/event"
)

// ends writes who a record is of. What has no prefix is of the local end, so that
// it meets what else is told of that pod; what begins with orb8.peer is of the
// other. Source is who opened the connection, or the local end where that is not
// known.
func (s *scribe) ends(r *record) {
	f := &r.flow
	s.text(semconv.NetworkTransportKey, protocolName(f.Conn.Protocol))
	if f.Conn.Local != (event.IP{}) || f.Conn.Remote != (event.IP{}) { // a dropped packet may not tell
		s.tuple(f)
	}
	s.local(f.Local)
	s.peer(f.Remote)
}

// tuple writes a connection as its socket has it.
func (s *scribe) tuple(f *event.Flow) {
	socket, wire := tuples(f)
	source, destination := socket.Local.Addr(), socket.Remote.Addr()
	from, to := socket.Ports()
	if f.OpenedBy == event.OpenerRemote {
		source, destination, from, to = destination, source, to, from
	}
	kind := "ipv6"
	if source.Is4() {
		kind = "ipv4"
	}
	s.text(semconv.NetworkTypeKey, kind)
	s.address(semconv.SourceAddressKey, source)
	s.some(semconv.SourcePortKey, uint64(from))
	s.address(semconv.DestinationAddressKey, destination)
	s.some(semconv.DestinationPortKey, uint64(to))
	s.connection(&wire)
}

// tuples gives a connection as its socket has it, and as it is on the wire.
func tuples(f *event.Flow) (socket, wire event.Conn) {
	socket, wire = f.Conn, f.Conn
	t, other := f.NAT, &wire
	if t == nil {
		return socket, wire
	}
	if t.OfSocket {
		other = &socket
	}
	other.Local, other.LocalPort = t.Local, t.LocalPort
	other.Remote, other.RemotePort = t.Remote, t.RemotePort
	return socket, wire
}

// connection writes the ID of the API's records, in sixteen digits.
func (s *scribe) connection(c *event.Conn) {
	s.scratch = binary.BigEndian.AppendUint64(s.scratch[:0], c.ID())
	s.scratch = hex.AppendEncode(s.scratch, s.scratch)[8:]
	s.plain("orb8.connection.id", s.scratch)
}

func protocolName(p event.Protocol) string {
	switch p {
	case event.TCP:
		return "tcp"
	case event.UDP:
		return "udp"
	}
	return strings.ToLower(p.String())
}

func (s *scribe) local(id *event.Identity) {
	if id == nil {
		return
	}
	s.text("orb8.class", string(id.Class))
	s.text(semconv.K8SNamespaceNameKey, id.Namespace)
	s.text(semconv.K8SPodNameKey, id.Pod)
	s.text(semconv.K8SPodUIDKey, id.PodUID)
	if id.Pod != "" {
		s.text(semconv.K8SContainerNameKey, id.Container)
	} else {
		s.text(semconv.ContainerIDKey, id.Container)
	}
	if key := workloadKey(id.Workload.Kind); key != "" {
		s.text(key, id.Workload.Name)
	}
	s.text("orb8.workload.kind", id.Workload.Kind)
	s.text("orb8.workload.name", id.Workload.Name)
	s.text("orb8.unit", id.Unit)
	s.text("orb8.process.name", id.Process)
	s.some(semconv.ProcessPIDKey, uint64(id.PID))
}

func (s *scribe) peer(id *event.Identity) {
	if id == nil {
		return
	}
	s.text("orb8.peer.class", string(id.Class))
	s.text("orb8.peer.namespace", id.Namespace)
	s.text("orb8.peer.pod", id.Pod)
	s.text("orb8.peer.workload.kind", id.Workload.Kind)
	s.text("orb8.peer.workload.name", id.Workload.Name)
	s.text("orb8.peer.node", id.Node)
	s.text("orb8.peer.service", id.Service)
	s.text("orb8.peer.fqdn", id.FQDN)
}

// workloadKey is the convention's for a kind; of the others orb8.workload tells.
func workloadKey(kind string) attribute.Key {
	switch kind {
	case "Deployment":
		return semconv.K8SDeploymentNameKey
	case "StatefulSet":
		return semconv.K8SStatefulSetNameKey
	case "DaemonSet":
		return semconv.K8SDaemonSetNameKey
	case "ReplicaSet":
		return semconv.K8SReplicaSetNameKey
	case "Job":
		return semconv.K8SJobNameKey
	case "CronJob":
		return semconv.K8SCronJobNameKey
	}
	return ""
}
