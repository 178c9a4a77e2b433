// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
)

// fake answers with what it has, one message after each pause.
type fake struct {
	flows   []*pb.FlowsResponse
	pods    []*pb.PodsResponse
	drops   []*pb.DropsResponse
	dns     []*pb.DnsResponse
	gpus    []*pb.GpusResponse
	sockets []*pb.SocketsResponse
	packets []*pb.CaptureResponse
	events  [][]*pb.EventsResponse
	status  *pb.StatusResponse
	// At the end of each answer.
	err   error
	pause time.Duration
	// Never answers.
	hangs bool

	asked  []*pb.EventsRequest
	driver []*pb.GpuDriverRequest
}

func play[M any](ctx context.Context, f *fake, list []M) iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		var none M
		if f.hangs {
			<-ctx.Done()
			yield(none, ctx.Err())
			return
		}
		for _, m := range list {
			if f.pause > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(f.pause):
				}
			}
			if ctx.Err() != nil {
				yield(none, ctx.Err())
				return
			}
			if !yield(m, nil) {
				return
			}
		}
		if f.err != nil {
			yield(none, f.err)
		}
	}
}

func (f *fake) Flows(ctx context.Context, _ *pb.FlowsRequest) iter.Seq2[*pb.FlowsResponse, error] {
	return play(ctx, f, f.flows)
}

func (f *fake) Pods(ctx context.Context, _ *pb.PodsRequest) iter.Seq2[*pb.PodsResponse, error] {
	return play(ctx, f, f.pods)
}

func (f *fake) Drops(ctx context.Context, _ *pb.DropsRequest) iter.Seq2[*pb.DropsResponse, error] {
	return play(ctx, f, f.drops)
}

func (f *fake) Dns(ctx context.Context, _ *pb.DnsRequest) iter.Seq2[*pb.DnsResponse, error] {
	return play(ctx, f, f.dns)
}

func (f *fake) Gpus(ctx context.Context, _ *pb.GpusRequest) iter.Seq2[*pb.GpusResponse, error] {
	return play(ctx, f, f.gpus)
}

func (f *fake) Sockets(ctx context.Context, _ *pb.SocketsRequest) iter.Seq2[*pb.SocketsResponse, error] {
	return play(ctx, f, f.sockets)
}

func (f *fake) Capture(ctx context.Context, _ *pb.CaptureRequest) iter.Seq2[*pb.CaptureResponse, error] {
	return play(ctx, f, f.packets)
}

// Events plays one list each time that it is asked; after the last it is quiet.
func (f *fake) Events(ctx context.Context, q *pb.EventsRequest) iter.Seq2[*pb.EventsResponse, error] {
	f.asked = append(f.asked, q)
	n := len(f.asked) - 1
	return func(yield func(*pb.EventsResponse, error) bool) {
		var list []*pb.EventsResponse
		if n < len(f.events) {
			list = f.events[n]
		}
		for m, err := range play(ctx, f, list) {
			if !yield(m, err) || err != nil {
				return
			}
		}
		if n < len(f.events)-1 {
			return
		}
		<-ctx.Done()
	}
}

func (f *fake) Status(ctx context.Context) (*pb.StatusResponse, error) {
	if f.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return f.status, f.err
}

func flow(node string, bytes uint64) *pb.FlowsResponse {
	return &pb.FlowsResponse{Message: &pb.FlowsResponse_Flow{Flow: &pb.FlowRecord{Node: node, Total: &pb.Traffic{TxBytes: bytes}}}}
}

func total(node string, flows, start, end int64) *pb.FlowsResponse {
	return &pb.FlowsResponse{Message: &pb.FlowsResponse_Summary{Summary: &pb.Summary{
		MatchedFlows: uint64(flows), KnownFlows: uint64(2 * flows), Matched: &pb.Traffic{TxBytes: uint64(10 * flows)},
		Nodes: []*pb.NodeState{{Node: node, Answered: true}}, StartNs: start, EndNs: end,
		Losses: []*pb.Loss{{Stage: "a", Count: 1, Hint: "h"}, {Stage: node, Count: 1}},
	}}}
}

// collect reads an answer to its end.
func collect[M any](t *testing.T, answer iter.Seq2[M, error]) (all []M, err error) {
	t.Helper()
	for m, err := range answer {
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

func relay(nodes map[string]*fake) *Relay {
	var cfg Config
	for name, f := range nodes {
		cfg.Nodes = append(cfg.Nodes, Node{name, f})
	}
	slices.SortFunc(cfg.Nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return New(cfg)
}

func TestFlowsAreOneAnswer(t *testing.T) {
	r := relay(map[string]*fake{
		"n1": {flows: []*pb.FlowsResponse{flow("n1", 90), flow("n1", 50), flow("n1", 5), total("n1", 3, 100, 900)}},
		"n2": {flows: []*pb.FlowsResponse{flow("n2", 70), flow("n2", 60), total("n2", 2, 300, 800)}},
		"n3": {flows: []*pb.FlowsResponse{total("n3", 0, 200, 950)}},
	})
	all, err := collect(t, r.Flows(t.Context(), &pb.FlowsRequest{Limit: 4}))
	if err != nil || len(all) != 5 {
		t.Fatalf("%d messages, %v", len(all), err)
	}
	var order []string
	for _, m := range all[:4] {
		order = append(order, fmt.Sprintf("%s:%d", m.GetFlow().GetNode(), m.GetFlow().GetTotal().GetTxBytes()))
	}
	if got := strings.Join(order, " "); got != "n1:90 n2:70 n2:60 n1:50" {
		t.Errorf("order is %s", got)
	}
	s := all[4].GetSummary()
	if s.GetMatchedFlows() != 5 || s.GetKnownFlows() != 10 || s.GetMatched().GetTxBytes() != 50 || len(s.GetNodes()) != 3 || s.GetStartNs() != 300 || s.GetEndNs() != 800 {
		t.Errorf("summary %v", s)
	}
	if l := s.GetLosses(); len(l) != 4 || l[0].GetStage() != "a" || l[0].GetCount() != 3 || l[0].GetHint() != "h" {
		t.Errorf("losses %v", l)
	}
}

// Nodes that fail at the start, in the middle, and by silence are words in the
// answer; a slow one is waited for, and the quick ones are not blamed for it.
func TestFailureIsPartOfTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := []*pb.FlowsResponse{}
		for i := range 3 * ahead {
			many = append(many, flow("quick", uint64(10000-i)))
		}
		r := relay(map[string]*fake{
			"dead":  {err: errors.New("refused")},
			"cut":   {},
			"half":  {flows: []*pb.FlowsResponse{flow("half", 20000)}, err: errors.New("went away")},
			"hang":  {hangs: true},
			"quick": {flows: append(many, total("quick", 500, 1, 2))},
			"slow":  {flows: []*pb.FlowsResponse{flow("slow", 1), flow("slow", 1), total("slow", 2, 1, 2)}, pause: 9 * time.Second},
		})
		began := time.Now()
		all, err := collect(t, r.Flows(t.Context(), &pb.FlowsRequest{Limit: 1000}))
		if err != nil || len(all) != 3*ahead+4 {
			t.Fatalf("%d messages, %v", len(all), err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("took %v", took)
		}
		states := map[string]string{}
		for _, n := range all[len(all)-1].GetSummary().GetNodes() {
			states[n.GetNode()] = fmt.Sprint(n.GetAnswered(), n.GetError())
		}
		for node, want := range map[string]string{
			"dead": "falserefused", "half": "falsewent away", "cut": "falseits answer has no end", "hang": "falseit said nothing for 10s", "quick": "true", "slow": "true",
		} {
			if states[node] != want {
				t.Errorf("%s: %q, want %q", node, states[node], want)
			}
		}
	})
}

func TestLeavingEndsEveryQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay(map[string]*fake{"n1": {flows: []*pb.FlowsResponse{flow("n1", 1), flow("n1", 1)}}, "n2": {flows: []*pb.FlowsResponse{flow("n2", 5)}, pause: time.Second}})
		for range r.Flows(t.Context(), &pb.FlowsRequest{}) {
			break
		}
		ctx, cancel := context.WithCancel(t.Context())
		r = relay(map[string]*fake{"n1": {hangs: true}})
		time.AfterFunc(time.Second, cancel)
		if _, err := collect(t, r.Flows(ctx, &pb.FlowsRequest{})); !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted: %v", err)
		}
		// synctest fails if a goroutine is left.
	})
}

func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relay(map[string]*fake{
			"n1": {status: &pb.StatusResponse{Nodes: []*pb.NodeStatus{{Node: "n1", Healthy: true}}}},
			"n2": {err: errors.New("refused")},
			"n3": {hangs: true},
		})
		st, err := r.Status(t.Context())
		if err != nil || len(st.GetNodes()) != 3 {
			t.Fatal(st, err)
		}
		if n := st.GetNodes(); !n[0].GetHealthy() || n[1].GetError() != "refused" || n[1].GetNode() != "n2" || n[2].GetError() != "it said nothing for 10s" {
			t.Errorf("nodes %v", n)
		}
	})
}

func TestPods(t *testing.T) {
	pod := func(namespace, name string) *pb.PodsResponse {
		return &pb.PodsResponse{Message: &pb.PodsResponse_Pod{Pod: &pb.PodRecord{Namespace: namespace, Name: name}}}
	}
	end := &pb.PodsResponse{Message: &pb.PodsResponse_Summary{Summary: &pb.PodsSummary{Matched: 2, Known: 5, Nodes: []*pb.NodeState{{Answered: true}}}}}
	r := relay(map[string]*fake{
		"n1": {pods: []*pb.PodsResponse{pod("a", "x"), pod("c", "x"), end}},
		"n2": {pods: []*pb.PodsResponse{pod("a", "w"), pod("b", "z"), end}},
		"n3": {err: errors.New("refused")},
	})
	all, err := collect(t, r.Pods(t.Context(), &pb.PodsRequest{Limit: 3}))
	if err != nil || len(all) != 4 || all[0].GetPod().GetName() != "w" || all[2].GetPod().GetName() != "z" {
		t.Fatal(all, err)
	}
	if s := all[3].GetSummary(); s.GetMatched() != 4 || s.GetKnown() != 10 || len(s.GetNodes()) != 3 || s.GetNodes()[2].GetError() != "refused" {
		t.Errorf("summary %v", s)
	}
}

func TestDrops(t *testing.T) {
	drop := func(reason string, packets uint64, last int64) *pb.DropsResponse {
		return &pb.DropsResponse{Message: &pb.DropsResponse_Drop{Drop: &pb.DropRecord{Reason: reason, Packets: packets, LastNs: last}}}
	}
	end := func(start, end int64) *pb.DropsResponse {
		return &pb.DropsResponse{Message: &pb.DropsResponse_Summary{Summary: &pb.DropsSummary{
			MatchedPackets: 7, KnownPackets: 9, StartNs: start, EndNs: end, Nodes: []*pb.NodeState{{Answered: true}}, Losses: []*pb.Loss{{Stage: "a", Count: 2}},
		}}}
	}
	r := relay(map[string]*fake{
		"n1": {drops: []*pb.DropsResponse{drop("A", 5, 1), drop("B", 2, 1), end(10, 90)}},
		"n2": {drops: []*pb.DropsResponse{drop("C", 5, 2), drop("D", 2, 0), end(20, 80)}},
	})
	all, err := collect(t, r.Drops(t.Context(), &pb.DropsRequest{Limit: 3}))
	if err != nil || len(all) != 4 || all[0].GetDrop().GetReason() != "C" || all[1].GetDrop().GetReason() != "A" || all[2].GetDrop().GetReason() != "B" {
		t.Fatal(all, err)
	}
	if s := all[3].GetSummary(); s.GetMatchedPackets() != 14 || s.GetKnownPackets() != 18 || s.GetStartNs() != 20 || s.GetEndNs() != 80 || len(s.GetNodes()) != 2 || s.GetLosses()[0].GetCount() != 4 {
		t.Errorf("summary %v", s)
	}
}

func TestDns(t *testing.T) {
	asked := func(pod string, queries uint64, last int64) *pb.DnsResponse {
		return &pb.DnsResponse{Message: &pb.DnsResponse_Dns{Dns: &pb.DnsRecord{Client: &pb.End{Pod: pod}, Queries: queries, LastNs: last}}}
	}
	end := func(start, end int64) *pb.DnsResponse {
		return &pb.DnsResponse{Message: &pb.DnsResponse_Summary{Summary: &pb.DnsSummary{
			Matched: 2, Known: 4, StartNs: start, EndNs: end, Nodes: []*pb.NodeState{{Answered: true}}, Losses: []*pb.Loss{{Stage: "a", Count: 2}},
		}}}
	}
	r := relay(map[string]*fake{
		"n1": {dns: []*pb.DnsResponse{asked("a", 5, 1), asked("b", 2, 1), end(10, 90)}},
		"n2": {dns: []*pb.DnsResponse{asked("c", 5, 2), asked("d", 2, 0), end(20, 80)}},
	})
	all, err := collect(t, r.Dns(t.Context(), &pb.DnsRequest{Limit: 3}))
	if err != nil || len(all) != 4 || all[0].GetDns().GetClient().GetPod() != "c" || all[1].GetDns().GetClient().GetPod() != "a" || all[2].GetDns().GetClient().GetPod() != "b" {
		t.Fatal(all, err)
	}
	if s := all[3].GetSummary(); s.GetMatched() != 4 || s.GetKnown() != 8 || s.GetStartNs() != 20 || s.GetEndNs() != 80 || len(s.GetNodes()) != 2 || s.GetLosses()[0].GetCount() != 4 {
		t.Errorf("summary %v", s)
	}
}

func TestSockets(t *testing.T) {
	sockets := func(pod string, findings ...bool) *pb.SocketsResponse {
		rec := &pb.SocketsRecord{Owner: &pb.End{Namespace: "x", Pod: pod}}
		for _, current := range findings {
			rec.Findings = append(rec.Findings, &pb.Finding{Current: current, SinceSeen: 1})
		}
		return &pb.SocketsResponse{Message: &pb.SocketsResponse_Sockets{Sockets: rec}}
	}
	end := &pb.SocketsResponse{Message: &pb.SocketsResponse_Summary{Summary: &pb.SocketsSummary{Matched: 3, Known: 5, Nodes: []*pb.NodeState{{Answered: true}}}}}
	r := relay(map[string]*fake{
		"n1": {sockets: []*pb.SocketsResponse{sockets("d", true), sockets("b", false), sockets("a"), end}},
		"n2": {sockets: []*pb.SocketsResponse{sockets("c", false, true), sockets("e"), end}},
		"n3": {hangs: true, err: errors.New("refused")},
	})
	r.cfg.Patience = 10 * time.Millisecond
	all, err := collect(t, r.Sockets(t.Context(), &pb.SocketsRequest{}))
	if err != nil || len(all) != 6 {
		t.Fatal(all, err)
	}
	var order string
	for _, m := range all {
		order += m.GetSockets().GetOwner().GetPod()
	}
	if order != "cdbae" {
		t.Errorf("order is %s", order)
	}
	if s := all[5].GetSummary(); s.GetMatched() != 6 || s.GetKnown() != 10 || len(s.GetNodes()) != 3 {
		t.Errorf("summary %v", s)
	}
}

// BenchmarkFlows merges the answers of a hundred nodes, a hundred rows each.
func BenchmarkFlows(b *testing.B) {
	var cfg Config
	for n := range 100 {
		name := fmt.Sprint("n", n)
		f := &fake{}
		for i := range 100 {
			f.flows = append(f.flows, flow(name, uint64(1000*(100-i)+n)))
		}
		f.flows = append(f.flows, total(name, 100, 1, 2))
		cfg.Nodes = append(cfg.Nodes, Node{name, f})
	}
	r := New(cfg)
	b.ReportAllocs()
	for b.Loop() {
		rows := 0
		for range r.Flows(b.Context(), &pb.FlowsRequest{Limit: 10_000}) {
			rows++
		}
		if rows != 10_001 {
			b.Fatal(rows)
		}
	}
}
