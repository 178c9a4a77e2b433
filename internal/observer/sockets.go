// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/wire"
)

// Sockets answers with the namespaces, those that are ill first, and the
// summary.
func (o *Observer) Sockets(req *pb.SocketsRequest, out grpc.ServerStreamingServer[pb.SocketsResponse]) error {
	f, err := wire.Pods(req.GetInclude(), req.GetExclude())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := o.kept(f.Include.Labels, f.Exclude.Labels); err != nil {
		return err
	}
	got, err := o.node.Sockets(out.Context(), SocketsQuery{Filter: f, Limit: limit(req.GetLimit(), o.maxLimit)})
	if err != nil {
		return fault(err)
	}
	src := o.node.Source()
	for i := range got.Sockets {
		if err := out.Send(&pb.SocketsResponse{Message: &pb.SocketsResponse_Sockets{Sockets: src.Sockets(&got.Sockets[i])}}); err != nil {
			return err
		}
	}
	return out.Send(&pb.SocketsResponse{Message: &pb.SocketsResponse_Summary{Summary: &pb.SocketsSummary{
		Matched: uint64(got.Matched),
		Known:   uint64(got.Known),
		Nodes:   []*pb.NodeState{{Node: wire.Text(src.Node), Answered: true}},
		Losses:  wire.Losses(got.Losses),
	}}})
}
