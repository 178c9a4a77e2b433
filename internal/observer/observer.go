// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
	"github.com/orb8/orb8/internal/wire"
)

// Observer is the Observer service over one node.
type Observer struct {
	pb.UnimplementedObserverServer
	node     Node
	maxLimit int
	labels   []string
}

// New makes the service; maxLimit bounds the flows of one answer, labels are
// the keys of those that the node keeps, "*" for all.
func New(node Node, maxLimit int, labels []string) *Observer {
	return &Observer{node: node, maxLimit: maxLimit, labels: labels}
}

// Flows answers with the flows, the node's state and the summary.
func (o *Observer) Flows(req *pb.FlowsRequest, out grpc.ServerStreamingServer[pb.FlowsResponse]) error {
	f, err := wire.Filter(req.GetInclude(), req.GetExclude())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := o.keptOf(&f); err != nil {
		return err
	}
	if _, ok := pb.Sort_name[int32(req.GetSort())]; !ok {
		return status.Errorf(codes.InvalidArgument, "sort: %d is not an order", req.GetSort())
	}
	snap, err := o.node.Flows(out.Context(), store.Query{
		Filter: f,
		Sort:   store.Sort(req.GetSort()),
		Limit:  limit(req.GetLimit(), o.maxLimit),
	})
	if err != nil {
		return fault(err)
	}
	src := o.node.Source()
	src.Now = snap.End.UnixNano()
	for i := range snap.Flows {
		if err := out.Send(&pb.FlowsResponse{Message: &pb.FlowsResponse_Flow{Flow: src.Flow(&snap.Flows[i])}}); err != nil {
			return err
		}
	}
	return out.Send(&pb.FlowsResponse{Message: &pb.FlowsResponse_Summary{Summary: summary(wire.Text(src.Node), &snap)}})
}

func summary(node string, snap *Snapshot) *pb.Summary {
	s := &pb.Summary{
		MatchedFlows: uint64(snap.Matched),
		Matched:      wire.Traffic(snap.MatchedTraffic),
		KnownFlows:   uint64(snap.Known),
		Nodes:        []*pb.NodeState{{Node: node, Answered: true}},
		StartNs:      snap.Start.UnixNano(),
		EndNs:        snap.End.UnixNano(),
		Losses:       wire.Losses(snap.Losses),
	}
	var remainder, overflow, unaccounted event.Traffic
	for _, i := range snap.Interfaces {
		in, out := &i.Ingress, &i.Egress
		remainder.Add(both(out.Remainder, in.Remainder))
		overflow.Add(both(out.Overflow, in.Overflow))
		unaccounted.Add(both(missed(out), missed(in)))
	}
	s.Remainder, s.Overflow, s.Unaccounted = wire.Traffic(remainder), wire.Traffic(overflow), wire.Traffic(unaccounted)
	return s
}

func both(tx, rx event.Counter) event.Traffic {
	return event.Traffic{TxBytes: tx.Bytes, TxPackets: tx.Packets, RxBytes: rx.Bytes, RxPackets: rx.Packets}
}

// missed is what the interface counted and the tap did not.
func missed(a *store.Audit) event.Counter {
	return event.Counter{Bytes: uint64(max(0, a.UnaccountedBytes)), Packets: uint64(max(0, a.UnaccountedPackets))}
}

// Events passes on what happens, until the client leaves or the agent stops.
func (o *Observer) Events(req *pb.EventsRequest, out grpc.ServerStreamingServer[pb.EventsResponse]) error {
	f, err := wire.Filter(req.GetInclude(), req.GetExclude())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := o.keptOf(&f); err != nil {
		return err
	}
	lookups, err := wire.Lookups(req.GetIncludeDns(), req.GetExcludeDns())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	gpus, err := wire.GPUs(req.GetGpus())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	wish := store.Wish{Filter: f, Lookups: lookups, GPUs: gpus, Since: req.GetSinceNs()}
	for _, k := range req.GetKinds() {
		if _, ok := pb.EventKind_name[int32(k)]; !ok || k == pb.EventKind_EVENT_KIND_UNSPECIFIED {
			return status.Errorf(codes.InvalidArgument, "kinds: %d is not a kind of event", k)
		}
		wish.Kinds = append(wish.Kinds, event.Kind(k))
	}
	if err := o.tells(out.Context(), wish.Kinds); err != nil {
		return err
	}
	fo, err := o.node.Follow(out.Context(), wish)
	if err != nil {
		return fault(err)
	}
	defer o.node.Leave(fo)
	src := o.node.Source()
	// The client knows by this that it is listening.
	err = out.Send(&pb.EventsResponse{Message: &pb.EventsResponse_Node{Node: &pb.NodeState{Node: wire.Text(src.Node), Answered: true}}})
	if err != nil {
		return err
	}
	return follow(out.Context(), fo, func(batch []event.Event, lost uint64) error {
		for i := range batch {
			if batch[i].GPU != nil {
				batch[i].GPU = gpus.OfEvent(batch[i].GPU)
			}
		}
		return o.send(out, batch, lost)
	})
}

// follow hands on each batch, and what was lost, also when nothing comes after.
func follow(ctx context.Context, fo *store.Follower, send func([]event.Event, uint64) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if lost := fo.Lost(); lost > 0 {
				if err := send(nil, lost); err != nil {
					return err
				}
			}
		case batch, open := <-fo.Events():
			if !open {
				return goingAway()
			}
			if err := send(batch, fo.Lost()); err != nil {
				return err
			}
		}
	}
}

func (o *Observer) send(out grpc.ServerStreamingServer[pb.EventsResponse], batch []event.Event, lost uint64) error {
	// Interfaces come and go while a stream lives.
	src := o.node.Source()
	for i := range batch {
		if err := out.Send(&pb.EventsResponse{Message: &pb.EventsResponse_Event{Event: src.Event(&batch[i])}}); err != nil {
			return err
		}
	}
	if lost == 0 {
		return nil
	}
	l := &pb.Loss{Stage: "follower", Count: lost, Hint: "the reader is slower than the events: narrow the filter, or follow less"}
	return out.Send(&pb.EventsResponse{Message: &pb.EventsResponse_Loss{Loss: l}})
}

// Status tells how the node does.
func (o *Observer) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	st, err := o.node.Status(ctx)
	if err != nil {
		return nil, fault(err)
	}
	src := o.node.Source()
	n := &pb.NodeStatus{
		Node:            wire.Text(src.Node),
		AgentInstance:   src.Instance,
		Version:         wire.Text(st.Version),
		Healthy:         st.Healthy,
		HealthMessage:   wire.Text(st.HealthMessage),
		UptimeNs:        st.Uptime.Round(time.Millisecond).Nanoseconds(),
		Epoch:           st.Table.Epoch,
		EventsProcessed: st.Table.Applied,
		EventsDropped:   st.Dropped(),
		PodsTracked:     uint32(st.Pods),
		ActiveFlows:     uint32(st.Table.Flows),
		MaxFlows:        uint32(st.Table.MaxFlows),
		Losses:          wire.Losses(st.Losses),
		Notes:           wire.Texts(st.Notes),
		Gpu:             wire.GPUStatus(st.GPUs),
		Cost:            &pb.Cost{CpuSeconds: st.CPUSeconds, ResidentBytes: st.ResidentBytes, KernelMapBytes: st.KernelBytes},
	}
	for i := range st.Interfaces {
		n.Interfaces = append(n.Interfaces, wire.Interface(&st.Interfaces[i]))
	}
	for i := range st.Namespaces {
		n.Namespaces = append(n.Namespaces, wire.Namespace(&st.Namespaces[i]))
	}
	return &pb.StatusResponse{Nodes: []*pb.NodeStatus{n}}, nil
}
