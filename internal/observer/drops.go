// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/store"
	"github.com/orb8/orb8/internal/wire"
)

// Drops is what a node's kernel dropped; the zero value where that is not known.
type Drops struct {
	store.DropAnswer
	Start, End time.Time
	Losses     []event.Loss
}

// Nothing dropped, and nothing known, are two answers.
var errDropsNotTold = status.Error(codes.FailedPrecondition, "dropped packets are not told here: the notes of its status say why")

// Drops answers with what was dropped, the most packets first, and the summary.
func (o *Observer) Drops(req *pb.DropsRequest, out grpc.ServerStreamingServer[pb.DropsResponse]) error {
	f, err := wire.Filter(req.GetInclude(), req.GetExclude())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := o.keptOf(&f); err != nil {
		return err
	}
	got, err := o.node.Drops(out.Context(), f, limit(req.GetLimit(), o.maxLimit))
	if err != nil {
		return fault(err)
	}
	src := o.node.Source()
	if got.Start.IsZero() {
		return errDropsNotTold
	}
	for i := range got.Rows {
		if err := out.Send(&pb.DropsResponse{Message: &pb.DropsResponse_Drop{Drop: src.DropRow(&got.Rows[i])}}); err != nil {
			return err
		}
	}
	return out.Send(&pb.DropsResponse{Message: &pb.DropsResponse_Summary{Summary: &pb.DropsSummary{
		MatchedPackets: got.Matched,
		KnownPackets:   got.Known,
		Nodes:          []*pb.NodeState{{Node: wire.Text(src.Node), Answered: true}},
		Losses:         wire.Losses(got.Losses),
		StartNs:        got.Start.UnixNano(),
		EndNs:          got.End.UnixNano(),
	}}})
}
