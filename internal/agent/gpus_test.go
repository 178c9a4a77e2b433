// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// gpuPark is a machine with a fake driver, and processes that have contexts.
type gpuPark struct {
	t        *testing.T
	library  string
	sysfs    string
	a        *running
	sleepers []*exec.Cmd
}

// newGPUPark plays a scenario, in which %1 to %9 are the numbers of processes.
func newGPUPark(t *testing.T, processes int, scenario ...string) *gpuPark {
	t.Helper()
	bpftest.RequireKernel(t, bpftest.BPF)
	bpftest.RequireProgram(t, "gcc")
	dir := t.TempDir()
	k := &gpuPark{t: t, library: filepath.Join(dir, "libnvidia-ml.so.1"), sysfs: filepath.Join(dir, "sys")}
	if out, err := exec.Command("gcc", "-O1", "-shared", "-fPIC", "-o", k.library, "../probe/gpu/testdata/nvml.c", "-ldl", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(k.sysfs, "class"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range processes {
		s := exec.Command("sleep", "600")
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Process.Kill(); _ = s.Wait() })
		k.sleepers = append(k.sleepers, s)
	}
	k.play(scenario...)
	k.a = start(t, bpftest.NewNetns(t), "ORB8_NVML="+k.library, "ORB8_SYSFS="+k.sysfs, "ORB8_GPU_IDLE_SECS=3")
	return k
}

func (k *gpuPark) pid(i int) uint32 { return uint32(k.sleepers[i-1].Process.Pid) }

func (k *gpuPark) play(lines ...string) {
	k.t.Helper()
	text := strings.Join(lines, "\n") + "\n"
	for i := range k.sleepers {
		text = strings.ReplaceAll(text, fmt.Sprintf("%%%d", i+1), fmt.Sprint(k.pid(i+1)))
	}
	path := filepath.Join(filepath.Dir(k.library), "scenario")
	err := os.WriteFile(path+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		k.t.Fatal(err)
	}
}

// gpus is an answer by what it is about: holders by their first process, devices
// by UUID.
func (p *running) gpus(q *pb.GpusRequest) (holders map[uint32]*pb.GpuHolder, devices map[string]*pb.GpuDevice) {
	p.t.Helper()
	holders, devices = map[uint32]*pb.GpuHolder{}, map[string]*pb.GpuDevice{}
	stream, err := pb.NewObserverClient(p.dial()).Gpus(p.t.Context(), q)
	for err == nil {
		var m *pb.GpusResponse
		m, err = stream.Recv()
		if h := m.GetRecord().GetHolder(); h != nil {
			holders[h.GetHolder().GetPid()] = h
		}
		if d := m.GetRecord().GetDevice(); d != nil {
			devices[d.GetUuid()] = d
		}
	}
	if !errors.Is(err, io.EOF) {
		p.t.Fatal(err)
	}
	return holders, devices
}

// addUp compares the sum of all shares with each device.
func addUp(t *testing.T, holders map[uint32]*pb.GpuHolder, devices map[string]*pb.GpuDevice) {
	t.Helper()
	busy, memory := map[string]float64{}, map[string]uint64{}
	for _, h := range holders {
		for _, s := range h.GetShares() {
			busy[s.GetUuid()] += s.GetBusy()
			memory[s.GetUuid()] += s.GetMemoryBytes()
		}
	}
	for uuid, d := range devices {
		if d.GetDivided() {
			continue
		}
		if s := d.GetSample(); math.Abs(busy[uuid]-s.GetBusy()) > 1e-6 || memory[uuid] != s.GetMemoryUsedBytes() {
			t.Errorf("%s: shares are %v and %d bytes, the device %v and %d", uuid, busy[uuid], memory[uuid], s.GetBusy(), s.GetMemoryUsedBytes())
		}
	}
}

// Two processes take turns on one GPU, another has one to itself, and one idles.
func TestGPUs(t *testing.T) {
	k := newGPUPark(t, 3,
		"gpus 2", "busy 0 45", "busy 1 90", "memory 0 4600", "memory 1 2000",
		"process 0 c %1 1000 -1", "process 0 c %2 3000 -1", "process 1 c %3 2000 -1",
		"used 0 %1 10", "used 0 %2 20", "used 1 %3 90")
	var holders map[uint32]*pb.GpuHolder
	var devices map[string]*pb.GpuDevice
	bpftest.Eventually(t, "the devices to be split", func() bool {
		holders, devices = k.a.gpus(&pb.GpusRequest{})
		return len(devices) == 2 && holders[k.pid(3)] != nil && holders[k.pid(1)].GetShares()[0].Busy != nil
	})
	addUp(t, holders, devices)
	for pid, want := range map[uint32]struct {
		mode      string
		busy      float64
		mib       uint64
		estimated bool
	}{
		k.pid(1): {"time-sliced", 0.15, 1000, true},
		k.pid(2): {"time-sliced", 0.30, 3000, true},
		k.pid(3): {"exclusive", 0.90, 2000, false},
	} {
		h := holders[pid]
		if len(h.GetShares()) != 1 || h.GetHolder().GetProcess() != "sleep" || h.GetHolder().GetClass() != "host" {
			t.Errorf("holder %d: %v", pid, h)
			continue
		}
		s := h.GetShares()[0]
		if s.GetMode() != want.mode || math.Abs(s.GetBusy()-want.busy) > 1e-6 || s.GetMemoryBytes() != want.mib<<20 || s.GetEstimated() != want.estimated {
			t.Errorf("process %d: %v", pid, s)
		}
	}
	st := k.a.status().GetGpu()
	if !st.GetOpen() || st.GetGpus() != 2 || st.GetDriverVersion() == "" {
		t.Errorf("status: %v", st)
	}
	if holders, devices = k.a.gpus(&pb.GpusRequest{Gpus: []string{"1"}}); len(holders) > 2 || len(devices) != 1 || holders[k.pid(3)] == nil {
		t.Errorf("one device: %v, %v", holders, devices)
	}
}

// What happens to devices is told as it happens, and a GPU without work within its
// time.
func TestGPUEvents(t *testing.T) {
	k := newGPUPark(t, 1, "gpus 1", "busy 0 0", "gpm 0", "process 0 c %1 100 -1")
	stream, err := pb.NewObserverClient(k.a.dial()).Events(t.Context(), &pb.EventsRequest{Kinds: []pb.EventKind{
		pb.EventKind_EVENT_KIND_GPU_XID, pb.EventKind_EVENT_KIND_GPU_FINDING, pb.EventKind_EVENT_KIND_GPU_SAMPLE,
	}})
	if err != nil {
		t.Fatal(err)
	}
	var finding *pb.GpuFinding
	var xid *pb.GpuEvent
	sampled := false
	scenario := []string{"gpus 1", "busy 0 0", "gpm 0", "process 0 c %1 100 -1", "xid 1 0 79 -1"}
	for end := time.Now().Add(60 * time.Second); finding == nil || xid == nil || !sampled; {
		m, err := stream.Recv()
		if err != nil || time.Now().After(end) {
			t.Fatal("not all was told", err)
		}
		g := m.GetEvent().GetGpu()
		switch {
		case g.GetSample() != nil && g.GetSample().GetHolder().GetPid() == k.pid(1):
			sampled = true
			k.play(scenario...)
		case g.GetXid() != nil:
			xid = g
		case g.GetFinding() != nil:
			finding = g.GetFinding()
			if late := m.GetEvent().GetTimeNs() - finding.GetSinceNs(); late > (5 * time.Second).Nanoseconds() {
				t.Errorf("told %v after it began", time.Duration(late))
			}
		}
	}
	if xid.GetXid().GetCode() != 79 || xid.GetDevice().GetIndex() != 0 || xid.GetHolders()[0].GetPid() != k.pid(1) {
		t.Errorf("Xid: %v", xid)
	}
	if finding.GetKind() != "idle" || len(finding.GetUuids()) != 1 || finding.GetText() == "" {
		t.Errorf("finding: %v", finding)
	}
	holders, _ := k.a.gpus(&pb.GpusRequest{})
	if h := holders[k.pid(1)]; h.GetState() != "idle" || len(h.GetFindings()) != 1 {
		t.Errorf("holder: %v", h)
	}
}

// The driver is closed on demand, and stays so until it is asked for again.
func TestGPUDriver(t *testing.T) {
	k := newGPUPark(t, 1, "gpus 1", "process 0 c %1 100 -1")
	c := pb.NewObserverClient(k.a.dial())
	bpftest.Eventually(t, "a device", func() bool { return k.a.status().GetGpu().GetGpus() == 1 })
	got, err := c.GpuDriver(t.Context(), &pb.GpuDriverRequest{Release: true})
	if err != nil || got.GetNodes()[0].GetOpen() || got.GetNodes()[0].GetError() != "" {
		t.Fatal(got, err)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", k.a.cmd.Process.Pid))
	if err != nil || strings.Contains(string(maps), k.library) {
		t.Error("the library is still loaded", err)
	}
	bpftest.Eventually(t, "no device", func() bool {
		st := k.a.status().GetGpu()
		_, devices := k.a.gpus(&pb.GpusRequest{})
		return !st.GetOpen() && st.GetGpus() == 0 && st.GetReleased() != "" && len(devices) == 0
	})
	if got, err = c.GpuDriver(t.Context(), &pb.GpuDriverRequest{}); err != nil || !got.GetNodes()[0].GetOpen() {
		t.Fatal(got, err)
	}
	bpftest.Eventually(t, "the device again", func() bool {
		_, devices := k.a.gpus(&pb.GpusRequest{})
		return len(devices) == 1 && k.a.status().GetGpu().GetReleased() == ""
	})
}

// A driver that hangs is said, and holds nothing up.
func TestGPUHangs(t *testing.T) {
	k := newGPUPark(t, 1, "gpus 2", "process 0 c %1 100 -1")
	bpftest.Eventually(t, "devices", func() bool { return k.a.status().GetGpu().GetGpus() == 2 })
	k.play("gpus 2", "process 0 c %1 100 -1", "hang nvmlDeviceGetPowerUsage 0")
	bpftest.Eventually(t, "the hang to be said", func() bool {
		start := time.Now()
		st := k.a.status()
		if late := time.Since(start); late > 20*time.Second {
			t.Errorf("an answer took %v", late)
		}
		_, devices := k.a.gpus(&pb.GpusRequest{Kinds: []pb.GpuRecordKind{pb.GpuRecordKind_GPU_RECORD_KIND_DEVICE}})
		hung := 0
		for _, d := range devices {
			if d.GetSample().GetState() == "hung" {
				hung++
			}
		}
		return len(st.GetGpu().GetHung()) == 1 && hung == 1
	})
	k.play("gpus 2", "process 0 c %1 100 -1")
	bpftest.Eventually(t, "the driver to come back", func() bool { return len(k.a.status().GetGpu().GetHung()) == 0 })
}
