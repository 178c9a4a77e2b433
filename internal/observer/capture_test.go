// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/wire"
)

// tells is a capture of one packet, told with all that there is to tell.
func tells(_ context.Context, to CaptureReader) (CaptureEnd, error) {
	err := errors.Join(
		to.Begin(CaptureBounds{Duration: time.Second, Packets: 10, Bytes: 20, Snaplen: 256}),
		to.Interface(&wire.CaptureInterface{
			Iface: event.Iface{Netns: 7, Index: 3}, Place: wire.Place{Name: "eth1", Namespace: "cni-1"},
			Owner: &event.Identity{Class: event.ClassPod, Namespace: "shop", Pod: "web-0"}, LinkType: 1, Snaplen: 256,
		}),
		to.Packets([]CapturedPacket{{Time: 5, Egress: true, Length: 100, Data: []byte("ab")}, {Time: 6, Data: []byte("c")}}),
		to.Dropped(3),
		to.Note("one is gone\xff"),
		to.Dropped(4),
	)
	return CaptureEnd{By: "packets", Amounts: []CaptureAmount{{Matched: 9, Sent: 2, Dropped: 7}}}, err
}

func TestCapture(t *testing.T) {
	n := newFakeNode()
	n.capture = tells
	stream, err := pb.NewObserverClient(dial(t, n)).Capture(t.Context(), &pb.CaptureRequest{
		Include: &pb.Filter{Pods: []string{"web-0"}}, DurationNs: 5, Packets: 6, Bytes: 7, Snaplen: 8,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Join(strings.Fields(m.String()), " "))
	}
	want := []string{
		`bounds:{node:"n1" duration_ns:1000000000 packets:10 bytes:20 snaplen:256}`,
		`interface:{node:"n1" tap:{netns:7 ifindex:3 interface:"eth1" namespace:"cni-1"} owner:{namespace:"shop" pod:"web-0" class:"pod"} link_type:1 snaplen:256}`,
		`packets:{node:"n1" packets:{time_ns:5 egress:true length:100 data:"ab"} packets:{time_ns:6 data:"c"}}`,
		`loss:{stage:"capture" count:3`, `note:{node:"n1" text:"one is gone` + "\uFFFD" + `"}`, `loss:{stage:"capture" count:4`,
		`summary:{ended_by:"packets" amounts:{node:"n1" matched:9 sent:2 dropped:7} nodes:{node:"n1" answered:true} losses:{stage:"capture" count:7`,
	}
	if len(got) != len(want) {
		t.Fatalf("%d messages:\n%s", len(got), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("%s\nnot\n%s", got[i], want[i])
		}
	}
	if b := n.captured.Bounds; b != (CaptureBounds{5, 6, 7, 8}) || n.captured.Filter.Include.Pods[0] != "web-0" || !strings.Contains(n.captured.Text, "web-0") {
		t.Errorf("asked %+v", n.captured)
	}
}

func TestCaptureRefused(t *testing.T) {
	n := newFakeNode()
	n.capture = func(context.Context, CaptureReader) (CaptureEnd, error) {
		return CaptureEnd{}, status.Error(codes.PermissionDenied, "captures are off")
	}
	c := pb.NewObserverClient(dial(t, n))
	for name, q := range map[string]struct {
		*pb.CaptureRequest
		code codes.Code
	}{
		"not allowed":   {&pb.CaptureRequest{}, codes.PermissionDenied},
		"no port":       {&pb.CaptureRequest{Include: &pb.Filter{Ports: []uint32{70000}}}, codes.InvalidArgument},
		"no label":      {&pb.CaptureRequest{Exclude: &pb.Filter{Labels: []string{"unknown"}}}, codes.InvalidArgument},
		"negative time": {&pb.CaptureRequest{DurationNs: -1}, codes.InvalidArgument},
	} {
		stream, err := c.Capture(t.Context(), q.CaptureRequest)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != q.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}
