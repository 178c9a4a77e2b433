// SPDX-License-Identifier: Apache-2.0

package observer

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/event"
)

// theGPUs: a pod has half of a GPU, another a MIG instance and an RDMA device,
// nobody that is known the rest.
func theGPUs() event.GPUView {
	pod := func(ns, name string) *event.Identity {
		return &event.Identity{Class: event.ClassPod, Namespace: ns, Pod: name, Node: "n1"}
	}
	gpus := []event.GPU{
		{UUID: "GPU-a", Model: "H100\xff", Index: 0, PCI: "0000:1b:00.0", NUMA: -1, Instance: event.NoInstance},
		{UUID: "GPU-b", Index: 1, Divided: true},
		{UUID: "MIG-c", Index: 1, Parent: "GPU-b", Profile: "1g.10gb", Instance: 3, NUMA: 1},
	}
	known := func(v float64) event.Reading { return event.Reading{Value: v, Known: true} }
	a, b := pod("ml", "train"), pod("dev", "notebook")
	return event.GPUView{
		GPUs:    gpus,
		Modes:   []event.GPUMode{event.GPUTimeSliced, event.GPUNone, event.GPUMIG},
		Samples: []event.GPUSample{{State: event.GPUOK, Busy: known(0), MemoryUsed: known(1 << 30), Throttle: event.ThrottlePowerCap, ThrottleKnown: true}, {}, {State: event.GPULost}},
		Holders: []event.GPUHolder{
			{Who: &event.Identity{Class: event.ClassUnknown}, Shares: []event.GPUShare{{GPU: &gpus[0]}}},
			{
				Who: a, State: event.HolderIdle, NetworkKnown: true, Network: event.Traffic{TxBytes: 5},
				Shares:   []event.GPUShare{{GPU: &gpus[0], Mode: event.GPUTimeSliced, Container: "main", PIDs: []uint32{7}, Memory: known(3)}},
				Findings: []*event.GPUFinding{{Kind: event.GPUIdle, Since: 9, GPUs: []*event.GPU{&gpus[0]}, Cause: event.CausePeer, Peer: b, Text: "waits"}},
			},
			{Who: b, State: event.HolderLost, Shares: []event.GPUShare{{GPU: &gpus[2], Mode: event.GPUMIG}}, RDMA: event.RDMAUse{Devices: []string{"mlx5_0"}, Shared: true}},
		},
		RDMA: []event.RDMADevice{{Name: "mlx5_0", Holders: []*event.Identity{b}, Nearest: []string{"MIG-c"}, Distance: event.PCISwitch, Ports: []event.RDMAPort{{
			Number: 1, State: "ACTIVE", MovedKnown: true, Counters: []event.RDMACounter{{Name: "np_cnp_sent", Kind: event.RDMACongestion, Count: 4}},
		}}}},
		Losses: []event.Loss{{Stage: "gpu_devices", Count: 2}},
	}
}

// told is what an answer holds, a word each, and its summary.
func told(t *testing.T, n *fakeNode, q *pb.GpusRequest) (words []string, sum *pb.GpusSummary) {
	t.Helper()
	stream, err := pb.NewObserverClient(dial(t, n)).Gpus(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return words, sum
		case err != nil:
			t.Fatal(err)
		case m.GetSummary() != nil:
			sum = m.GetSummary()
			continue
		}
		r := m.GetRecord()
		switch {
		case r.GetNode() != "n1":
			t.Errorf("of node %q", r.GetNode())
		case r.GetHolder() != nil:
			words = append(words, "holder:"+r.GetHolder().GetHolder().GetPod())
		case r.GetDevice() != nil:
			words = append(words, r.GetDevice().GetUuid())
		default:
			words = append(words, r.GetRdma().GetName())
		}
	}
}

func TestGpus(t *testing.T) {
	n := newFakeNode()
	n.gpus = theGPUs()
	holders := []pb.GpuRecordKind{pb.GpuRecordKind_GPU_RECORD_KIND_HOLDER}
	for _, c := range []struct {
		q    *pb.GpusRequest
		want string
		of   [2]uint64
	}{
		{&pb.GpusRequest{}, "holder:notebook holder:train holder: GPU-a GPU-b MIG-c mlx5_0", [2]uint64{7, 7}},
		{&pb.GpusRequest{Kinds: holders}, "holder:notebook holder:train holder:", [2]uint64{3, 3}},
		{&pb.GpusRequest{Include: &pb.EndFilter{Namespaces: []string{"dev"}}}, "holder:notebook MIG-c mlx5_0", [2]uint64{3, 7}},
		{&pb.GpusRequest{Exclude: &pb.EndFilter{Namespaces: []string{"dev"}}}, "holder:train holder: GPU-a", [2]uint64{3, 7}},
		{&pb.GpusRequest{Exclude: &pb.EndFilter{Namespaces: []string{"ml"}}}, "holder:notebook holder: GPU-b MIG-c mlx5_0", [2]uint64{5, 7}},
		{&pb.GpusRequest{Exclude: &pb.EndFilter{Namespaces: []string{"none"}}}, "holder:notebook holder:train holder: GPU-a GPU-b MIG-c mlx5_0", [2]uint64{7, 7}},
		{&pb.GpusRequest{Exclude: &pb.EndFilter{Nodes: []string{"n1"}}}, "", [2]uint64{0, 7}},
		{&pb.GpusRequest{Include: &pb.EndFilter{Nodes: []string{"n1"}}, Exclude: &pb.EndFilter{Namespaces: []string{"ml"}}}, "holder:notebook holder: GPU-b MIG-c mlx5_0", [2]uint64{5, 7}},
		{&pb.GpusRequest{Gpus: []string{"1B:00.0"}}, "holder:train holder: GPU-a", [2]uint64{3, 7}},
		{&pb.GpusRequest{Include: &pb.EndFilter{Nodes: []string{"n1"}}}, "holder:notebook holder:train holder: GPU-a GPU-b MIG-c mlx5_0", [2]uint64{7, 7}},
		{&pb.GpusRequest{Include: &pb.EndFilter{Nodes: []string{"n2"}}}, "", [2]uint64{0, 7}},
		{&pb.GpusRequest{Gpus: []string{"1"}}, "holder:notebook GPU-b MIG-c mlx5_0", [2]uint64{4, 7}},
		{&pb.GpusRequest{Gpus: []string{"GPU-A"}}, "holder:train holder: GPU-a", [2]uint64{3, 7}},
		{&pb.GpusRequest{Limit: 2}, "holder:notebook holder:train", [2]uint64{7, 7}},
		{&pb.GpusRequest{Gpus: []string{"GPU-z"}}, "", [2]uint64{0, 7}},
	} {
		words, sum := told(t, n, c.q)
		if got := strings.Join(words, " "); got != c.want || sum.GetMatched() != c.of[0] || sum.GetKnown() != c.of[1] || len(sum.GetLosses()) != 1 {
			t.Errorf("%v: %q of %v", c.q, got, sum)
		}
	}
	for _, bad := range []*pb.GpusRequest{
		{Kinds: []pb.GpuRecordKind{9}},
		{Kinds: []pb.GpuRecordKind{0}},
		{Include: &pb.EndFilter{Labels: []string{"="}}},
		{Gpus: make([]string, 1001)},
	} {
		stream, err := pb.NewObserverClient(dial(t, n)).Gpus(t.Context(), bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// What nobody that is known has is there where nobody in particular is asked for.
func TestGpusThatNobodyHolds(t *testing.T) {
	n := newFakeNode()
	n.gpus = theGPUs()
	n.gpus.Holders = n.gpus.Holders[:2] // not of the instance
	n.gpus.RDMA[0].Holders = nil
	for want, q := range map[string]*pb.GpusRequest{
		"holder: GPU-b MIG-c mlx5_0": {Exclude: &pb.EndFilter{Namespaces: []string{"ml"}}},
		"holder:train GPU-a":         {Include: &pb.EndFilter{Namespaces: []string{"ml"}}},
		"":                           {Exclude: &pb.EndFilter{Nodes: []string{"n1"}}},
	} {
		if words, _ := told(t, n, q); strings.Join(words, " ") != want {
			t.Errorf("%v: %q, want %q", q, words, want)
		}
	}
}

// Of a holder of several devices those that are meant are told, here and in events.
func TestGpusOfAHolder(t *testing.T) {
	n := newFakeNode()
	n.gpus = theGPUs()
	a, g := &n.gpus.Holders[1], n.gpus.GPUs
	a.Shares = append(a.Shares, event.GPUShare{GPU: &g[2], Mode: event.GPUMIG})
	c := pb.NewObserverClient(dial(t, n))
	ask := &pb.GpusRequest{Kinds: []pb.GpuRecordKind{pb.GpuRecordKind_GPU_RECORD_KIND_HOLDER}, Include: &pb.EndFilter{Namespaces: []string{"ml"}}, Gpus: []string{"1"}}
	answer, err := c.Gpus(t.Context(), ask)
	if err != nil {
		t.Fatal(err)
	}
	m, err := answer.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if h := m.GetRecord().GetHolder(); len(h.GetShares()) != 1 || h.GetShares()[0].GetUuid() != "MIG-c" || len(h.GetFindings()) != 1 || len(a.Shares) != 2 {
		t.Errorf("%v", h)
	}
	stream, err := c.Events(t.Context(), &pb.EventsRequest{Gpus: []string{"0"}})
	if err != nil {
		t.Fatal(err)
	}
	<-n.followed
	n.mu.Lock()
	n.feed.PublishGPU(event.KindGPUSample, 4, &event.GPUEvent{Holders: []*event.Identity{a.Who}, Sample: a})
	n.feed.Flush()
	n.mu.Unlock()
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetEvent() == nil {
			continue
		}
		if s := m.GetEvent().GetGpu().GetSample().GetShares(); len(s) != 1 || s[0].GetUuid() != "GPU-a" || len(a.Shares) != 2 {
			t.Errorf("%v", s)
		}
		return
	}
}

// What is not known is absent; what is 0 is not.
func TestGpuRecords(t *testing.T) {
	n := newFakeNode()
	n.gpus = theGPUs()
	src := n.Source()
	h := src.Holder(&n.gpus.Holders[1]).GetHolder()
	s := h.GetShares()[0]
	if s.Busy != nil || s.GetMemoryBytes() != 3 || s.GetMode() != "time-sliced" || s.GetModel() != "H100�" || !cmp.Equal(s.GetPids(), []uint32{7}) {
		t.Errorf("share: %v", s)
	}
	if f := h.GetFindings()[0]; f.GetKind() != "idle" || f.GetCause() != "peer" || f.GetPeer().GetPod() != "notebook" || f.GetUuids()[0] != "GPU-a" {
		t.Errorf("finding: %v", f)
	}
	if h.GetNetwork().GetTxBytes() != 5 || h.GetRdma() != nil || h.GetState() != "idle" {
		t.Errorf("holder: %v", h)
	}
	d := src.Device(&n.gpus, 0).GetDevice()
	if sm := d.GetSample(); sm.Busy == nil || sm.GetMemoryUsedBytes() != 1<<30 || sm.Tensor != nil || sm.GetState() != "ok" || !cmp.Equal(sm.GetThrottle(), []string{"power_cap"}) {
		t.Errorf("sample: %v", sm)
	}
	if d.NumaNode != nil || d.GetMode() != "time-sliced" || len(d.GetHolders()) != 1 || d.GetInstance() != 0 {
		t.Errorf("device: %v", d)
	}
	n.gpus.Modes[2] = event.GPUNone // nobody has it
	if i := src.Device(&n.gpus, 2).GetDevice(); i.GetNumaNode() != 1 || i.GetInstance() != 3 || i.GetParent() != "GPU-b" || i.GetMode() != "mig" || i.GetSample().GetState() != "lost" {
		t.Errorf("instance: %v", i)
	}
	r := src.RDMA(&n.gpus.RDMA[0]).GetRdma()
	if p := r.GetPorts()[0]; p.GetMoved() == nil || p.GetTotal() != nil || p.GetCounters()[0].GetKind() != "congestion" || r.GetDistance() != "switch" {
		t.Errorf("RDMA: %v", r)
	}
	if use := src.Holder(&n.gpus.Holders[2]).GetHolder().GetRdma(); use.GetMoved() != nil || !use.GetShared() {
		t.Errorf("RDMA of a holder: %v", use)
	}
}

func TestGpuDriver(t *testing.T) {
	n := newFakeNode()
	c := pb.NewObserverClient(dial(t, n))
	open := true
	n.driver = func(release bool) (bool, error) {
		open = !release
		return open, nil
	}
	got, err := c.GpuDriver(t.Context(), &pb.GpuDriverRequest{Release: true, Node: "n1"})
	if err != nil || len(got.GetNodes()) != 1 || got.GetNodes()[0].GetOpen() || got.GetNodes()[0].GetNode() != "n1" || open {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.GpuDriver(t.Context(), &pb.GpuDriverRequest{Node: "n2"}); status.Code(err) != codes.NotFound {
		t.Errorf("another node: %v", err)
	}
	n.driver = func(bool) (bool, error) { return true, errors.New("a call has not come back") }
	got, err = c.GpuDriver(t.Context(), &pb.GpuDriverRequest{Release: true})
	if err != nil || got.GetNodes()[0].GetError() == "" || !got.GetNodes()[0].GetOpen() {
		t.Errorf("%v, %v", got, err)
	}
	n.driver = func(bool) (bool, error) { return true, status.Error(codes.PermissionDenied, "on the socket only") }
	if _, err := c.GpuDriver(t.Context(), &pb.GpuDriverRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("refused: %v", err)
	}
}

// Events of GPUs go to who follows a holder, as what they are.
func TestGpuEvents(t *testing.T) {
	n := newFakeNode()
	v := theGPUs()
	stream, err := pb.NewObserverClient(dial(t, n)).Events(t.Context(), &pb.EventsRequest{
		Include: &pb.Filter{Namespaces: []string{"ml"}}, Gpus: []string{"0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-n.followed
	a, b := v.Holders[1].Who, v.Holders[2].Who
	n.mu.Lock()
	n.feed.PublishGPU(event.KindGPUXid, 1, &event.GPUEvent{GPU: &v.GPUs[2], Holders: []*event.Identity{b}, Xid: &event.GPUXid{Code: 31}})
	n.feed.PublishGPU(event.KindGPUXid, 2, &event.GPUEvent{GPU: &v.GPUs[0], Holders: []*event.Identity{b, a}, Xid: &event.GPUXid{Code: 79}})
	n.feed.PublishGPU(event.KindGPUThrottle, 3, &event.GPUEvent{GPU: &v.GPUs[0], Holders: []*event.Identity{a}, Throttle: event.ThrottleThermal | event.ThrottleIdle, Ended: true, Lasted: 4})
	n.feed.PublishGPU(event.KindGPUSample, 4, &event.GPUEvent{Holders: []*event.Identity{a}, Sample: &v.Holders[1]})
	n.feed.PublishGPU(event.KindGPUFinding, 5, &event.GPUEvent{Holders: []*event.Identity{a}, Finding: v.Holders[1].Findings[0]})
	n.feed.Flush()
	n.mu.Unlock()
	var got []*pb.Event
	for len(got) < 4 {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if e := m.GetEvent(); e != nil {
			got = append(got, e)
		}
	}
	if e := got[0]; e.GetKind() != pb.EventKind_EVENT_KIND_GPU_XID || e.GetFlow() != nil || e.GetTimeNs() != 2 ||
		e.GetGpu().GetXid().GetCode() != 79 || e.GetGpu().GetXid().GetMeaning() == "" || len(e.GetGpu().GetHolders()) != 2 || e.GetGpu().GetNode() != "n1" {
		t.Errorf("Xid: %v", e)
	}
	if th := got[1].GetGpu().GetThrottle(); !cmp.Equal(th.GetReasons(), []string{"thermal"}) || !th.GetEnded() || th.GetLastedNs() != 4 {
		t.Errorf("throttle: %v", got[1])
	}
	if s := got[2].GetGpu(); s.GetSample().GetHolder().GetPod() != "train" || s.GetHolders() != nil || s.GetDevice() != nil {
		t.Errorf("sample: %v", s)
	}
	if f := got[3].GetGpu().GetFinding(); f.GetText() != "waits" {
		t.Errorf("finding: %v", f)
	}
}
