// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/wire"
)

// CaptureWish is which packets are wanted, and how many at the most; 0 is the
// default of the node.
type CaptureWish struct {
	Filter filter.Filter
	Bounds CaptureBounds
	// The question as it was put, for the log.
	Text string
}

// CaptureBounds end a capture.
type CaptureBounds struct {
	Duration       time.Duration
	Packets, Bytes uint64
	// Bytes kept of a packet.
	Snaplen uint32
}

// CaptureReader is told of a capture. The bytes of packets that it is given are
// its own from then on.
type CaptureReader interface {
	// Begin comes first: what is in force.
	Begin(CaptureBounds) error
	// Interface comes before the first packet of its number.
	Interface(*wire.CaptureInterface) error
	Packets([]CapturedPacket) error
	// Dropped tells how many more found no room.
	Dropped(uint64) error
	Note(text string) error
}

// CapturedPacket is one packet.
type CapturedPacket struct {
	Interface uint32
	Time      int64
	Egress    bool
	Length    uint32
	Data      []byte
}

// CaptureEnd is how a capture ended.
type CaptureEnd struct {
	By      string
	Amounts []CaptureAmount // by interface
}

// CaptureAmount is what was done at one interface.
type CaptureAmount struct{ Matched, Sent, Dropped uint64 }

// Capture streams packets until a bound is reached or the client leaves. Errors
// of the node have their status.
func (o *Observer) Capture(req *pb.CaptureRequest, out grpc.ServerStreamingServer[pb.CaptureResponse]) error {
	f, err := wire.Filter(req.GetInclude(), req.GetExclude())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if err := o.keptOf(&f); err != nil {
		return err
	}
	if req.GetDurationNs() < 0 {
		return status.Error(codes.InvalidArgument, "duration_ns: less than nothing")
	}
	wish := CaptureWish{Filter: f, Bounds: CaptureBounds{
		Duration: time.Duration(req.GetDurationNs()), Packets: req.GetPackets(), Bytes: req.GetBytes(), Snaplen: req.GetSnaplen(),
	}}
	text, err := protojson.Marshal(req)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	wish.Text = string(text[:min(len(text), maxText)])
	to := &captureStream{src: o.node.Source(), out: out}
	end, err := o.node.Capture(out.Context(), wish, to)
	if err != nil {
		return err
	}
	node := wire.Text(to.src.Node)
	s := &pb.CaptureSummary{EndedBy: end.By, Nodes: []*pb.NodeState{{Node: node, Answered: true}}}
	for i, a := range end.Amounts {
		s.Amounts = append(s.Amounts, &pb.CaptureAmount{Node: node, Matched: a.Matched, Sent: a.Sent, Dropped: a.Dropped, Interface: uint32(i)})
	}
	if to.dropped > 0 {
		s.Losses = []*pb.Loss{captureLoss(to.dropped)}
	}
	return out.Send(&pb.CaptureResponse{Message: &pb.CaptureResponse_Summary{Summary: s}})
}

// maxText bounds what a question may add to the log.
const maxText = 1000

func captureLoss(n uint64) *pb.Loss {
	return &pb.Loss{Stage: "capture", Count: n, Hint: "packets came faster than they were taken: narrow the filter, or keep less of each with --snaplen"}
}

// captureStream puts what a node tells into messages.
type captureStream struct {
	src     wire.Source
	out     grpc.ServerStreamingServer[pb.CaptureResponse]
	dropped uint64
}

func (s *captureStream) Begin(b CaptureBounds) error {
	return s.out.Send(&pb.CaptureResponse{Message: &pb.CaptureResponse_Bounds{Bounds: &pb.CaptureBounds{
		Node: wire.Text(s.src.Node), DurationNs: int64(b.Duration), Packets: b.Packets, Bytes: b.Bytes, Snaplen: b.Snaplen,
	}}})
}

func (s *captureStream) Interface(i *wire.CaptureInterface) error {
	return s.out.Send(&pb.CaptureResponse{Message: &pb.CaptureResponse_Interface{Interface: s.src.CaptureInterface(i)}})
}

func (s *captureStream) Packets(list []CapturedPacket) error {
	packets := make([]pb.CapturedPacket, len(list))
	pointers := make([]*pb.CapturedPacket, len(list))
	for i := range list {
		p, m := &list[i], &packets[i]
		m.Interface, m.TimeNs, m.Egress, m.Length, m.Data = p.Interface, p.Time, p.Egress, p.Length, p.Data
		pointers[i] = m
	}
	return s.out.Send(&pb.CaptureResponse{Message: &pb.CaptureResponse_Packets{Packets: &pb.CapturePackets{
		Node: wire.Text(s.src.Node), Packets: pointers,
	}}})
}

func (s *captureStream) Dropped(n uint64) error {
	s.dropped += n
	return s.out.Send(&pb.CaptureResponse{Message: &pb.CaptureResponse_Loss{Loss: captureLoss(n)}})
}

func (s *captureStream) Note(text string) error {
	return s.out.Send(&pb.CaptureResponse{Message: &pb.CaptureResponse_Note{Note: &pb.CaptureNote{Node: wire.Text(s.src.Node), Text: wire.Text(text)}}})
}
