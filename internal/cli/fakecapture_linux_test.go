// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

// frame is a datagram from 10.0.0.1 port 40000 to 10.0.0.2 port 53.
var frame = []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00" +
	"\x45\x00\x00\x20\x00\x00\x40\x00\x40\x11\x26\xcb\x0a\x00\x00\x01\x0a\x00\x00\x02" +
	"\x9c\x40\x00\x35\x00\x0c\x00\x00abcd")

// Capture sends what the question's pods name: "many" packets, "none", and a
// question without pods gives three.
func (f *fake) Capture(q *orb8v1.CaptureRequest, stream grpc.ServerStreamingServer[orb8v1.CaptureResponse]) error {
	asked := func(pod string) bool { return slices.Contains(q.GetInclude().GetPods(), pod) }
	node := f.status.GetNodes()[0].GetNode()
	if asked("forbidden") {
		return status.Error(codes.PermissionDenied, "captures are off on this node: start its agent with --allow-capture (ORB8_ALLOW_CAPTURE=true)")
	}
	summary := &orb8v1.CaptureSummary{EndedBy: "packets", Nodes: []*orb8v1.NodeState{{Node: node, Answered: true}}}
	send := func(m *orb8v1.CaptureResponse) { _ = stream.Send(m) }
	send(&orb8v1.CaptureResponse{Message: &orb8v1.CaptureResponse_Bounds{Bounds: &orb8v1.CaptureBounds{
		Node: node, DurationNs: int64(time.Minute), Packets: 1000, Bytes: 1e6, Snaplen: 256,
	}}})
	if asked("none") {
		summary.EndedBy = "no match"
		return stream.Send(&orb8v1.CaptureResponse{Message: &orb8v1.CaptureResponse_Summary{Summary: summary}})
	}
	for i, pod := range []string{"web-0", ""} {
		in := &orb8v1.CaptureInterface{
			Number: uint32(i), Node: node, Tap: &orb8v1.Tap{Netns: 4026532000, Ifindex: 2, Interface: "eth0"},
			Owner: &orb8v1.End{Class: "host"}, LinkType: 1, Snaplen: 256,
		}
		if pod != "" {
			in.Owner = &orb8v1.End{Class: "pod", Namespace: "shop", Pod: pod}
		}
		send(&orb8v1.CaptureResponse{Message: &orb8v1.CaptureResponse_Interface{Interface: in}})
	}
	send(&orb8v1.CaptureResponse{Message: &orb8v1.CaptureResponse_Note{Note: &orb8v1.CaptureNote{Node: node, Text: "left out: shop/\x1b[31mred"}}})
	rounds := 1
	if asked("many") {
		rounds = 1000
	}
	for range rounds {
		packets := &orb8v1.CapturePackets{Node: node}
		for i := range 3 {
			packets.Packets = append(packets.Packets, &orb8v1.CapturedPacket{
				Interface: uint32(i % 2), TimeNs: 1_790_000_000_000_000_001 + int64(i)*1e9, Egress: i == 0, Length: 1000, Data: frame,
			})
		}
		if err := stream.Send(&orb8v1.CaptureResponse{Message: &orb8v1.CaptureResponse_Packets{Packets: packets}}); err != nil {
			return err
		}
	}
	if asked("quiet") {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	if f.die != nil {
		time.Sleep(200 * time.Millisecond)
		f.die()
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	send(&orb8v1.CaptureResponse{Message: &orb8v1.CaptureResponse_Loss{Loss: &orb8v1.Loss{Stage: "capture", Count: 5}}})
	for i, sent := range []uint64{2, 1} {
		summary.Amounts = append(summary.Amounts, &orb8v1.CaptureAmount{Node: node, Interface: uint32(i), Matched: sent + 5, Sent: sent, Dropped: 5})
	}
	return stream.Send(&orb8v1.CaptureResponse{Message: &orb8v1.CaptureResponse_Summary{Summary: summary}})
}
