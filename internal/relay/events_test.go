// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

func hello(node string) *pb.EventsResponse {
	return &pb.EventsResponse{Message: &pb.EventsResponse_Node{Node: &pb.NodeState{Node: node, Answered: true}}}
}

func happened(node string, at int64) *pb.EventsResponse {
	return &pb.EventsResponse{Message: &pb.EventsResponse_Event{Event: &pb.Event{TimeNs: at, Flow: &pb.FlowRecord{Node: node}}}}
}

// A node that is lost is told of once, and again when it is back, with what
// happened in between.
func TestEventsOutliveANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{events: [][]*pb.EventsResponse{
			{hello("n1"), happened("n1", 500)},
			{},
			{},
			{hello("n1"), happened("n1", 700)},
		}}
		r := relay(map[string]*fake{"n1": f, "n2": {events: [][]*pb.EventsResponse{{hello("n2")}}}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var told []string
		for m, err := range r.Events(ctx, &pb.EventsRequest{
			Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_OPENED}, IncludeDns: &pb.DnsFilter{Names: []string{"a"}}, ExcludeDns: &pb.DnsFilter{Names: []string{"b"}}, Gpus: []string{"0"},
		}) {
			if err != nil {
				t.Fatal(err)
			}
			switch n := m.GetNode(); {
			case n.GetNode() == "n2":
			case n != nil && n.GetAnswered():
				told = append(told, "there")
			case n != nil:
				told = append(told, n.GetError())
			default:
				told = append(told, "event")
			}
		}
		if got := strings.Join(told, ", "); got != "there, event, it ended the stream, there, event" {
			t.Errorf("told: %s", got)
		}
		if len(f.asked) != 4 || f.asked[0].GetSinceNs() != 0 || f.asked[3].GetSinceNs() != 501 || len(f.asked[3].GetKinds()) != 1 ||
			f.asked[3].GetIncludeDns().GetNames()[0] != "a" || f.asked[3].GetExcludeDns().GetNames()[0] != "b" || f.asked[3].GetGpus()[0] != "0" {
			t.Errorf("asked %v", f.asked)
		}
	})
}

func TestEventsNeedOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay(map[string]*fake{"n1": {err: errors.New("refused"), events: [][]*pb.EventsResponse{{}}}, "n2": {hangs: true, events: [][]*pb.EventsResponse{{}}}})
		_, err := collect(t, r.Events(t.Context(), &pb.EventsRequest{}))
		if !errors.Is(err, ErrNoneAnswered) || !strings.Contains(err.Error(), "node n2: it said nothing") {
			t.Errorf("error %v", err)
		}
		if _, err := collect(t, New(Config{}).Events(t.Context(), &pb.EventsRequest{})); !errors.Is(err, ErrNoneAnswered) {
			t.Errorf("without nodes: %v", err)
		}
	})
}
