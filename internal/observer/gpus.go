// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/wire"
)

// Gpus answers with who has which GPU, the unattributed last, then the devices,
// then the RDMA devices, and the summary.
func (o *Observer) Gpus(req *pb.GpusRequest, out grpc.ServerStreamingServer[pb.GpusResponse]) error {
	q, err := o.gpuQuestion(req)
	if err != nil {
		return err
	}
	view, err := o.node.GPUs(out.Context())
	if err != nil {
		return fault(err)
	}
	src := o.node.Source()
	q.ask(view)
	most := limit(req.GetLimit(), o.maxLimit)
	for i, record := range q.matched {
		if i == most {
			break
		}
		if err := out.Send(&pb.GpusResponse{Message: &pb.GpusResponse_Record{Record: record(&src)}}); err != nil {
			return err
		}
	}
	return out.Send(&pb.GpusResponse{Message: &pb.GpusResponse_Summary{Summary: &pb.GpusSummary{
		Matched: uint64(len(q.matched)),
		Known:   uint64(q.known),
		Nodes:   []*pb.NodeState{{Node: wire.Text(src.Node), Answered: true}},
		Losses:  wire.Losses(view.Losses),
	}}})
}

// gpuQuestion is what is wanted of a view, and what was found.
type gpuQuestion struct {
	kinds []pb.GpuRecordKind
	pods  filter.Pods
	// What nobody has is of this node, and is asked for by that.
	nobody *event.Identity
	// Nobody in particular of this node is asked for, and nobody is left out.
	anybody, everything bool
	gpus                filter.GPUs

	matched []func(*wire.Source) *pb.GpuRecord
	known   int
	// Devices with known holders, and whether one of them is meant.
	devices map[string]bool
}

func (o *Observer) gpuQuestion(req *pb.GpusRequest) (*gpuQuestion, error) {
	q := &gpuQuestion{kinds: req.GetKinds(), devices: map[string]bool{}}
	for _, k := range q.kinds {
		if _, ok := pb.GpuRecordKind_name[int32(k)]; !ok || k == pb.GpuRecordKind_GPU_RECORD_KIND_UNSPECIFIED {
			return nil, status.Errorf(codes.InvalidArgument, "kinds: %d is not a kind of record", k)
		}
	}
	var err error
	if q.pods, err = wire.Pods(req.GetInclude(), req.GetExclude()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if q.gpus, err = wire.GPUs(req.GetGpus()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	in, ex := &q.pods.Include, &q.pods.Exclude
	q.nobody = &event.Identity{Class: event.ClassUnknown, Node: o.node.Source().Node}
	q.anybody = q.pods.Match(q.nobody)
	q.everything = q.anybody && ex.Empty()
	return q, o.kept(in.Labels, ex.Labels)
}

func (q *gpuQuestion) wants(k pb.GpuRecordKind) bool {
	return len(q.kinds) == 0 || slices.Contains(q.kinds, k)
}

func (q *gpuQuestion) add(k pb.GpuRecordKind, holds bool, record func(*wire.Source) *pb.GpuRecord) {
	if !q.wants(k) {
		return
	}
	q.known++
	if holds {
		q.matched = append(q.matched, record)
	}
}

// ask finds what is meant, in the order of the answer.
func (q *gpuQuestion) ask(v *event.GPUView) {
	holders := make([]*event.GPUHolder, len(v.Holders))
	for i := range v.Holders {
		holders[i] = &v.Holders[i]
	}
	slices.SortStableFunc(holders, func(a, b *event.GPUHolder) int { return compareHolders(a.Who, b.Who) })
	for _, h := range holders {
		who := h.Who
		known := who.Class != event.ClassUnknown
		if !known {
			who = q.nobody
		}
		holds := q.pods.Match(who)
		for i := 0; known && i < len(h.Shares); i++ {
			uuid := h.Shares[i].GPU.UUID
			q.devices[uuid] = q.devices[uuid] || holds
		}
		q.add(pb.GpuRecordKind_GPU_RECORD_KIND_HOLDER, holds && q.gpus.MatchShares(h.Shares),
			func(s *wire.Source) *pb.GpuRecord { return s.Holder(q.gpus.Of(h)) })
	}
	for i := range v.GPUs {
		g := &v.GPUs[i]
		q.add(pb.GpuRecordKind_GPU_RECORD_KIND_DEVICE, q.device(v, g) && q.gpus.Match(g),
			func(s *wire.Source) *pb.GpuRecord { return s.Device(v, i) })
	}
	for i := range v.RDMA {
		d := &v.RDMA[i]
		holds := q.held(len(d.Holders) > 0, slices.ContainsFunc(d.Holders, q.pods.Match))
		if len(q.gpus) > 0 { // those beside the devices that are meant
			holds = holds && slices.ContainsFunc(v.GPUs, func(g event.GPU) bool { return q.gpus.Match(&g) && slices.Contains(d.Nearest, g.UUID) })
		}
		q.add(pb.GpuRecordKind_GPU_RECORD_KIND_RDMA, holds, func(s *wire.Source) *pb.GpuRecord { return s.RDMA(d) })
	}
}

// held tells whether a device is meant by who has it. One that nobody known has is
// left out where somebody is asked for, and where its node is excluded.
func (q *gpuQuestion) held(known, wanted bool) bool {
	return wanted || q.everything || q.anybody && !known
}

// device: a GPU that is divided is there where an instance of it is.
func (q *gpuQuestion) device(v *event.GPUView, g *event.GPU) bool {
	wanted, known := q.devices[g.UUID]
	for i := 0; q.anybody && i < len(v.GPUs); i++ {
		if v.GPUs[i].Parent == g.UUID {
			of, held := q.devices[v.GPUs[i].UUID]
			wanted, known = wanted || q.held(held, of), true
		}
	}
	return q.held(known, wanted)
}

func compareHolders(a, b *event.Identity) int {
	rest := func(id *event.Identity) int {
		switch id.Class {
		case event.ClassPod:
			return 0
		case event.ClassUnknown:
			return 2
		}
		return 1
	}
	return cmp.Or(cmp.Compare(rest(a), rest(b)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod),
		cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Container, b.Container), cmp.Compare(a.Process, b.Process), cmp.Compare(a.PID, b.PID))
}

// GpuDriver releases the driver of this node, or takes it up again.
func (o *Observer) GpuDriver(ctx context.Context, req *pb.GpuDriverRequest) (*pb.GpuDriverResponse, error) {
	name := wire.Text(o.node.Source().Node)
	if req.GetNode() != "" && req.GetNode() != name {
		return nil, status.Errorf(codes.NotFound, "node: this is %s", name)
	}
	open, err := o.node.GPUDriver(ctx, req.GetRelease())
	st := &pb.GpuDriverState{Node: name, Open: open}
	switch {
	case status.Code(err) == codes.PermissionDenied, ctx.Err() != nil:
		return nil, err
	case err != nil:
		st.Error = wire.Text(err.Error())
	}
	return &pb.GpuDriverResponse{Nodes: []*pb.GpuDriverState{st}}, nil
}
