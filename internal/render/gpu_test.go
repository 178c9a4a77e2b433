// SPDX-License-Identifier: Apache-2.0

package render

import (
	"strings"
	"testing"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
)

func whole(indexes ...uint32) (shares []*orb8v1.GpuShare) {
	for _, i := range indexes {
		shares = append(shares, &orb8v1.GpuShare{Uuid: "GPU-" + string(rune('a'+i)), Index: i})
	}
	return shares
}

func TestGPUList(t *testing.T) {
	mig := func(uuid, profile string, index uint32) *orb8v1.GpuShare {
		return &orb8v1.GpuShare{Uuid: uuid, Index: index, Profile: profile}
	}
	for want, shares := range map[string][]*orb8v1.GpuShare{
		"":                     nil,
		"0":                    whole(0),
		"0-7":                  whole(7, 6, 5, 4, 3, 2, 1, 0),
		"0-1,3,5-6":            whole(0, 1, 3, 5, 6),
		"2":                    append(whole(2), whole(2)...), // of two containers
		"1/1g.10gb":            {mig("a", "1g.10gb", 1)},
		"0,1/1g.10gb×2,2/3g.4": {mig("z", "3g.4", 2), mig("a", "1g.10gb", 1), mig("b", "1g.10gb", 1), mig("b", "1g.10gb", 1), whole(0)[0]},
	} {
		if got := gpuList(shares); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestGPUThatIsNotCounted(t *testing.T) {
	if got := gpuLabel(&orb8v1.GpuDevice{Uuid: "GPU-a", Index: 1<<32 - 1}); got != "GPU-a" {
		t.Error(got)
	}
}

// What is not known is no number, and what is known in part says so.
func TestReadings(t *testing.T) {
	busy := func(s *orb8v1.GpuShare) *float64 { return s.Busy }
	share := func(uuid string, v *float64, estimated bool) *orb8v1.GpuShare {
		return &orb8v1.GpuShare{Uuid: uuid, Busy: v, Estimated: estimated, PowerWatts: v}
	}
	for _, c := range []struct {
		name      string
		shares    []*orb8v1.GpuShare
		mean, sum string
	}{
		{"nothing", nil, "", ""},
		{"not known", []*orb8v1.GpuShare{share("a", nil, true)}, "", ""},
		{"zero", []*orb8v1.GpuShare{share("a", new(0.0), false)}, "0%", "0W"},
		{"two GPUs", []*orb8v1.GpuShare{share("a", new(0.5), false), share("b", new(1.0), false)}, "75%", "2W"},
		{"two containers of one GPU", []*orb8v1.GpuShare{share("a", new(0.25), true), share("a", new(0.5), true)}, "~75%", "~1W"},
		{"an instance", []*orb8v1.GpuShare{{Uuid: "a", Busy: new(0.5), PowerWatts: new(30.0), PowerEstimated: true}}, "50%", "~30W"},
		{"one of two", []*orb8v1.GpuShare{share("a", new(0.5), true), share("b", nil, false)}, "~50%", "≥0W"},
	} {
		s := Style{Human: true}
		if got := s.ratio(meanOf(c.shares, busy)).text; got != c.mean {
			t.Errorf("%s: mean %q, want %q", c.name, got, c.mean)
		}
		row := gpuRow{style: s, holder: &orb8v1.GpuHolder{Shares: c.shares}}
		if got := row.power().text; got != c.sum {
			t.Errorf("%s: sum %q, want %q", c.name, got, c.sum)
		}
	}
}

func TestRdmaUse(t *testing.T) {
	for want, u := range map[string]*orb8v1.RdmaTraffic{
		"":       nil,
		"500":    {Moved: &orb8v1.Traffic{TxBytes: 500}},
		"0":      {Moved: &orb8v1.Traffic{}},
		"~500":   {Moved: &orb8v1.Traffic{TxBytes: 500}, Shared: true},
		"shared": {Shared: true},
	} {
		if got := (gpuRow{holder: &orb8v1.GpuHolder{Rdma: u, StartNs: 1, EndNs: 1e9 + 1}}).rdmaUse((*orb8v1.Traffic).GetTxBytes).text; got != want {
			t.Errorf("%v: %q, want %q", u, got, want)
		}
	}
}

// A name that anybody can give is not taken for what nobody has.
func TestGPUHolder(t *testing.T) {
	for want, e := range map[string]*orb8v1.End{
		"(unattributed)":   {Class: "unknown", Node: "n1"},
		"-/(unattributed)": {Class: "host", Process: "(unattributed)"},
		"a/b":              {Class: "pod", Namespace: "a", Pod: "b", Process: "x"},
		"pod/u":            {Class: "pod", PodUid: "u"},
		"-/0123":           {Class: "container", Container: "0123"},
		"-/kubelet":        {Class: "host", Process: "kubelet"},
		"host":             {Class: "host"},
	} {
		if got := GPUHolder(e); got != want {
			t.Errorf("%v: %s, want %s", e, got, want)
		}
	}
}

// Processes that are called the same are not one, and a pod is not two.
func TestHolderNames(t *testing.T) {
	sleep := func(pid uint32) *orb8v1.End { return &orb8v1.End{Class: "host", Process: "sleep", Pid: pid} }
	pod := &orb8v1.End{Class: "pod", Namespace: "a", Pod: "b", PodUid: "u", Process: "x", Pid: 5}
	again := &orb8v1.End{Class: "pod", Namespace: "a", Pod: "b", PodUid: "u", Process: "x", Pid: 6}
	list := []*orb8v1.End{sleep(1), pod, again, sleep(2), sleep(1), {Class: "host", Unit: "s.service", Process: "sleep", Pid: 7}}
	for wide, want := range map[bool]string{false: "-/sleep×2,a/b,-/s.service", true: "-/sleep(1),a/b,-/sleep(2),-/s.service"} {
		if got := (Style{Wide: wide}).holderNames(list); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A line below the table tells which GPUs, and which process.
func TestGPUFindings(t *testing.T) {
	two := []*orb8v1.GpuDevice{{Uuid: "a", Index: 2}, {Uuid: "b", Index: 3}}
	got := GPUFindings(&orb8v1.GpuRecord{Of: &orb8v1.GpuRecord_Holder{Holder: &orb8v1.GpuHolder{
		Holder: &orb8v1.End{Class: "host", Process: "sleep", Pid: 4711},
		Findings: []*orb8v1.GpuFinding{
			{Text: "1 GPU idle for 42s", Devices: two[:1]},
			{Text: "2 GPUs idle for 42s", Devices: two},
			{Text: "1 GPU idle for 42s"},
			{Text: "2 GPUs idle for 42s", Devices: two[:1]},
			{Kind: "idle"},
		},
	}}})
	for i, want := range []string{"GPU 2 idle for 42s", "GPUs 2-3 idle for 42s", "1 GPU idle for 42s", "2 GPUs idle for 42s", "idle"} {
		if got[i] != "-/sleep (4711): "+want {
			t.Errorf("%s, want %s", got[i], want)
		}
	}
}

// TestGPUStatus: one line in which state the driver is.
func TestGPUStatus(t *testing.T) {
	for _, c := range []struct {
		status        *orb8v1.GpuStatus
		line, absence string
	}{
		{nil, "", "no NVIDIA driver"},
		{&orb8v1.GpuStatus{RdmaDevices: 1}, "no driver; 1 RDMA device", "no NVIDIA driver"},
		{&orb8v1.GpuStatus{Open: true, Gpus: 8, DriverVersion: "550"}, "8 GPUs, driver 550", ""},
		{&orb8v1.GpuStatus{Open: true, Gpus: 1, Instances: 7, Problem: "two GPUs are lost"}, "1 GPU, 7 MIG instances: two GPUs are lost", ""},
		{&orb8v1.GpuStatus{Open: true}, "0 GPUs", "the driver knows of no GPU"},
		{&orb8v1.GpuStatus{Problem: "a mismatch"}, "not seen: a mismatch", "a mismatch"},
		{&orb8v1.GpuStatus{Released: "on demand"}, "driver released: on demand", "driver released: on demand"},
	} {
		b := &block{}
		b.gpu(c.status)
		want := ""
		if c.line != "" {
			want = "GPUs:              " + c.line
		}
		if got := strings.Join(b.lines, "\n"); got != want {
			t.Errorf("%v: %q, want %q", c.status, got, want)
		}
		if got := GPUAbsence(&orb8v1.NodeStatus{Gpu: c.status}); got != c.absence {
			t.Errorf("%v: %q, want %q", c.status, got, c.absence)
		}
	}
	if got := GPUAbsence(&orb8v1.NodeStatus{Error: "refused"}); got != "it did not answer: refused" {
		t.Error(got)
	}
}
