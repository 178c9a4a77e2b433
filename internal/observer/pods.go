// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"cmp"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/wire"
)

// Pods answers with the pods, by namespace and name, and the summary.
func (o *Observer) Pods(req *pb.PodsRequest, out grpc.ServerStreamingServer[pb.PodsResponse]) error {
	f, err := wire.Pods(req.GetInclude(), req.GetExclude())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := o.kept(f.Include.Labels, f.Exclude.Labels); err != nil {
		return err
	}
	known, err := o.node.Pods(out.Context())
	if err != nil {
		return fault(err)
	}
	src := o.node.Source()
	matched := slices.Collect(func(yield func(*wire.Pod) bool) {
		for i := range known.Pods {
			if p := &known.Pods[i]; f.Match(podIdentity(p)) && !yield(p) {
				return
			}
		}
	})
	slices.SortFunc(matched, func(a, b *wire.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Created, b.Created), cmp.Compare(a.UID, b.UID))
	})
	for _, p := range matched[:min(len(matched), limit(req.GetLimit(), o.maxLimit))] {
		if err := out.Send(&pb.PodsResponse{Message: &pb.PodsResponse_Pod{Pod: src.Pod(p)}}); err != nil {
			return err
		}
	}
	return out.Send(&pb.PodsResponse{Message: &pb.PodsResponse_Summary{Summary: &pb.PodsSummary{
		Matched: uint64(len(matched)),
		Known:   uint64(len(known.Pods)),
		Nodes:   []*pb.NodeState{{Node: wire.Text(src.Node), Answered: true}},
		Losses:  wire.Losses(known.Losses),
	}}})
}

// podIdentity is a pod as filters see it.
func podIdentity(p *wire.Pod) *event.Identity {
	return &event.Identity{
		Class: event.ClassPod, Namespace: p.Namespace, Pod: p.Name, PodUID: p.UID,
		Workload: p.Workload, Node: p.Node, Labels: p.Labels,
	}
}
