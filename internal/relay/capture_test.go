// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

func begins(node string) *pb.CaptureResponse {
	return &pb.CaptureResponse{Message: &pb.CaptureResponse_Bounds{Bounds: &pb.CaptureBounds{Node: node}}}
}

func packets(node string, times ...int64) *pb.CaptureResponse {
	list := &pb.CapturePackets{Node: node}
	for _, t := range times {
		list.Packets = append(list.Packets, &pb.CapturedPacket{TimeNs: t})
	}
	return &pb.CaptureResponse{Message: &pb.CaptureResponse_Packets{Packets: list}}
}

func ends(node, by string, sent uint64) *pb.CaptureResponse {
	return &pb.CaptureResponse{Message: &pb.CaptureResponse_Summary{Summary: &pb.CaptureSummary{
		EndedBy: by, Nodes: []*pb.NodeState{{Node: node, Answered: true}},
		Amounts: []*pb.CaptureAmount{{Node: node, Sent: sent}}, Losses: []*pb.Loss{{Stage: "capture", Count: 1}},
	}}}
}

// captured writes down an answer, a word a message.
func captured(ctx context.Context, r *Relay) (words []string, err error) {
	for m, failure := range r.Capture(ctx, &pb.CaptureRequest{}) {
		switch {
		case failure != nil:
			return words, failure
		case m.GetBounds() != nil:
			words = append(words, m.GetBounds().GetNode()+" begins")
		case m.GetNode() != nil:
			words = append(words, m.GetNode().GetNode()+" failed: "+m.GetNode().GetError())
		case m.GetPackets() != nil:
			word := m.GetPackets().GetNode()
			for _, p := range m.GetPackets().GetPackets() {
				word += fmt.Sprint(" ", p.GetTimeNs())
			}
			words = append(words, word)
		case m.GetSummary() != nil:
			s, lost := m.GetSummary(), uint64(0)
			for _, l := range s.GetLosses() {
				lost += l.GetCount()
			}
			words = append(words, fmt.Sprintf("ended by %s, %d amounts, %d nodes, lost %d", s.GetEndedBy(), len(s.GetAmounts()), len(s.GetNodes()), lost))
		}
	}
	return words, nil
}

func capturing(nodes ...*fake) *Relay {
	cfg := Config{Patience: time.Second}
	for i, n := range nodes {
		cfg.Nodes = append(cfg.Nodes, Node{Name: fmt.Sprintf("n%d", i+1), Observer: n})
	}
	return New(cfg)
}

func TestCaptureIsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := capturing(
			&fake{packets: []*pb.CaptureResponse{begins("n1"), packets("n1", 1, 4), packets("n1", 5), ends("n1", "packets", 3)}},
			&fake{pause: time.Millisecond, packets: []*pb.CaptureResponse{begins("n2"), packets("n2", 2, 3, 6), ends("n2", "no match", 3)}},
			&fake{err: errors.New("captures are off")},
		)
		words, err := captured(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(words[len(words)-5:], "; ")
		if want := "n1 1; n2 2 3; n1 4 5; n2 6; ended by packets, 2 amounts, 3 nodes, lost 2"; got != want {
			t.Errorf("%s, not %s", got, want)
		}
		if first := strings.Join(words[:len(words)-5], "; "); !strings.Contains(first, "n3 failed: captures are off") || !strings.Contains(first, "n2 begins") {
			t.Error(first)
		}
	})
}

func TestCaptureIsNotHeldBackForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		start := time.Now()
		quiet := &fake{pause: time.Hour, packets: []*pb.CaptureResponse{begins("n2")}}
		r := capturing(&fake{packets: []*pb.CaptureResponse{begins("n1"), packets("n1", 7), packets("n1", 8), ends("n1", "duration", 2)}}, quiet)
		r.cfg.Patience = 2 * time.Hour
		for m, err := range r.Capture(ctx, &pb.CaptureRequest{}) {
			if err != nil {
				t.Fatal(err)
			}
			if m.GetPackets() != nil {
				if late := time.Since(start); late > 2*settling {
					t.Errorf("a packet after %v", late)
				}
				cancel() // its normal end: no error
			}
		}
	})
}

func TestNobodyCaptures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := captured(t.Context(), capturing(&fake{err: errors.New("captures are off")}, &fake{hangs: true}))
		if !errors.Is(err, ErrNoneAnswered) || !strings.Contains(err.Error(), "node n") {
			t.Error(err)
		}
		words, err := captured(t.Context(), capturing(&fake{packets: []*pb.CaptureResponse{begins("n1"), packets("n1", 1)}}))
		if err != nil || !strings.Contains(strings.Join(words, "; "), "n1 failed: its answer has no end") {
			t.Error(words, err)
		}
	})
}

// TestReaderOfACaptureLeaves: nothing goes on behind its back.
func TestReaderOfACaptureLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := capturing(&fake{packets: []*pb.CaptureResponse{begins("n1"), packets("n1", 1), packets("n1", 2), ends("n1", "bytes", 2)}})
		for range r.Capture(t.Context(), &pb.CaptureRequest{}) {
			break
		}
	})
}
