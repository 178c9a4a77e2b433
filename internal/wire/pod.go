// SPDX-License-Identifier: Apache-2.0

package wire

import (
	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/cluster"
)

// Pod is a pod and what a node knows of it beside what the cluster told.
type Pod struct {
	*cluster.Pod
	// Of its node.
	Zone string
	// Inode number of its own network namespace; 0 where it has none, or it is
	// not known.
	Netns uint64
	// When it was gone, Unix nanoseconds; 0 while it is there.
	Deleted int64
	// Connections known with this pod at the local end.
	Flows int
}

// Pod gives the record of a pod.
func (s *Source) Pod(p *Pod) *pb.PodRecord {
	r := &pb.PodRecord{
		SeenBy:      Text(s.Node),
		Node:        Text(p.Node),
		Zone:        Text(p.Zone),
		Namespace:   Text(p.Namespace),
		Name:        Text(p.Name),
		Uid:         Text(p.UID),
		Workload:    workload(p.Workload),
		Labels:      labels(p.Labels),
		HostNetwork: p.HostNetwork,
		Phase:       Text(p.Phase),
		Netns:       p.Netns,
		CreatedNs:   p.Created,
		StartedNs:   p.Networked,
		EndedNs:     p.Ended,
		DeletingNs:  p.Deleting,
		DeletedNs:   p.Deleted,
		Flows:       uint64(p.Flows),
	}
	for _, ip := range p.IPs {
		r.Ips = append(r.Ips, ip.Addr().String())
	}
	for _, c := range p.Containers {
		r.Containers = append(r.Containers, &pb.PodContainer{Name: Text(c.Name), Id: Text(c.ID)})
	}
	return r
}
