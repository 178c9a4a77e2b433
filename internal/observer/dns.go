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

// Lookups is what was asked of the DNS; the zero value where that is not known.
type Lookups struct {
	store.LookupAnswer
	Start, End time.Time
	Losses     []event.Loss
}

// Nothing asked, and nothing known, are two answers.
var errLookupsNotTold = status.Error(codes.FailedPrecondition, "look-ups in the DNS are not told here: the notes of its status say why")

// Dns answers with what was asked of the DNS, the most queries first, and the
// summary.
func (o *Observer) Dns(req *pb.DnsRequest, out grpc.ServerStreamingServer[pb.DnsResponse]) error {
	f, err := wire.Filter(req.GetInclude(), req.GetExclude())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	roles, err := wire.Roles(req.GetSides())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := o.keptOf(&f); err != nil {
		return err
	}
	got, err := o.node.Dns(out.Context(), f, roles, limit(req.GetLimit(), o.maxLimit))
	if err != nil {
		return fault(err)
	}
	src := o.node.Source()
	if got.Start.IsZero() {
		return errLookupsNotTold
	}
	for i := range got.Rows {
		if err := out.Send(&pb.DnsResponse{Message: &pb.DnsResponse_Dns{Dns: src.LookupRow(&got.Rows[i])}}); err != nil {
			return err
		}
	}
	return out.Send(&pb.DnsResponse{Message: &pb.DnsResponse_Summary{Summary: &pb.DnsSummary{
		Matched: uint64(got.Matched),
		Known:   uint64(got.Known),
		Nodes:   []*pb.NodeState{{Node: wire.Text(src.Node), Answered: true}},
		Losses:  wire.Losses(got.Losses),
		StartNs: got.Start.UnixNano(),
		EndNs:   got.End.UnixNano(),
	}}})
}
