// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
	"github.com/orb8/orb8/internal/wire"
)

// Orbit is the original's service over one node.
type Orbit struct {
	pb.UnimplementedOrbitAgentServiceServer
	node     Node
	maxLimit int
}

// NewOrbit makes the service; maxLimit bounds the rows of one answer.
func NewOrbit(node Node, maxLimit int) *Orbit {
	return &Orbit{node: node, maxLimit: maxLimit}
}

// QueryFlows gives a row for each direction of a connection, by bytes.
func (o *Orbit) QueryFlows(ctx context.Context, req *pb.QueryFlowsRequest) (*pb.QueryFlowsResponse, error) {
	most := limit(req.GetLimit(), o.maxLimit)
	snap, err := o.node.Flows(ctx, store.Query{
		Where: func(f *event.Flow) bool {
			namespace, pod := wire.OrbitNames(f)
			return listed(req.GetNamespaces(), namespace) && listed(req.GetPodNames(), pod)
		},
		// The first rows belong to the connections with the busiest direction.
		Sort:  store.SortOneWay,
		Limit: most,
	})
	if err != nil {
		return nil, fault(err)
	}
	var rows []*pb.NetworkFlow
	for i := range snap.Flows {
		rows = append(rows, wire.OrbitFlows(&snap.Flows[i])...)
	}
	slices.SortStableFunc(rows, func(a, b *pb.NetworkFlow) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return &pb.QueryFlowsResponse{Flows: rows[:min(most, len(rows))]}, nil
}

// listed: an empty list means all.
func listed(list []string, name string) bool {
	return len(list) == 0 || slices.Contains(list, name)
}

// StreamEvents sends an event for each connection, direction and epoch that
// moved data. This wire has no place for losses; they are in GetStatus.
func (o *Orbit) StreamEvents(req *pb.StreamEventsRequest, out grpc.ServerStreamingServer[pb.NetworkEvent]) error {
	fo, err := o.node.Follow(out.Context(), store.Wish{Kinds: []event.Kind{event.KindTraffic}})
	if err != nil {
		return fault(err)
	}
	defer o.node.Leave(fo)
	return follow(out.Context(), fo, func(batch []event.Event, _ uint64) error {
		for i := range batch {
			if namespace, _ := wire.OrbitNames(&batch[i].Flow); !listed(req.GetNamespaces(), namespace) {
				continue
			}
			for _, e := range wire.OrbitEvents(&batch[i]) {
				if err := out.Send(e); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// GetStatus tells how the agent does.
func (o *Orbit) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.AgentStatus, error) {
	st, err := o.node.Status(ctx)
	if err != nil {
		return nil, fault(err)
	}
	return &pb.AgentStatus{
		NodeName:        wire.Text(o.node.Source().Node),
		Version:         wire.Text(st.Version),
		Healthy:         st.Healthy,
		HealthMessage:   wire.Text(st.HealthMessage),
		EventsProcessed: st.Table.Applied,
		EventsDropped:   st.Dropped(),
		PodsTracked:     uint32(st.Pods),
		ActiveFlows:     uint32(st.Table.Flows),
		UptimeSeconds:   int64(st.Uptime.Seconds()),
	}, nil
}
