// SPDX-License-Identifier: Apache-2.0

package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/netstat"
)

// Sockets is what is known of the sockets of a network namespace.
type Sockets struct {
	// Inode number.
	Netns uint32
	// As people know it; "" for the agent's own, and where nobody named it.
	Name string
	// Whose it is, never nil.
	Owner *event.Identity
	netstat.Report
	netstat.Buffers
	// Why this is not whole.
	Problem string
}

// Sockets gives the record of a namespace's sockets.
func (s *Source) Sockets(k *Sockets) *pb.SocketsRecord {
	r := &pb.SocketsRecord{
		Node:        Text(s.Node),
		Netns:       uint64(k.Netns),
		Name:        Text(k.Name),
		Owner:       party(k.Owner),
		TcpInUse:    k.TCP,
		TcpTimeWait: k.TimeWait,
		TcpOrphans:  k.Orphans,
		UdpInUse:    k.UDP,
		MemoryBytes: k.Bytes,
		Problem:     Text(k.Problem),
	}
	for _, c := range k.Counters {
		r.Counters = append(r.Counters, &pb.SocketsCounter{Name: c.Name, Count: c.Total, SinceSeen: c.Seen, LastMinute: c.Minute})
	}
	for _, f := range k.Findings {
		r.Findings = append(r.Findings, &pb.Finding{
			Current: f.Minute > 0, Counter: f.Counter, Count: f.Total, Meaning: f.Meaning, SinceSeen: f.Seen, LastMinute: f.Minute,
		})
	}
	return r
}
