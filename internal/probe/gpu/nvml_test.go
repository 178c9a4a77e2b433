// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/event"
)

// node is eight GPUs, of which the first and the sixth are divided, and on the
// second processes of each kind.
const node = `gpus 8
mig 0 3
mig 5 7
process 0 c 500 100 2
process 1 c 100 1000 -1
process 1 c 101 2000 -1
process 1 g 102 30 -1
process 1 m 103 0 -1
used 1 100 60
used 1 101 20`

func TestDevicesAreIdentified(t *testing.T) {
	n, devices := newFake(t, node).open()
	if version, missing := n.about(); version != "580.95.05" || missing != nil {
		t.Errorf("version %q, missing %v", version, missing)
	}
	if len(devices) != 8+3+7 {
		t.Fatalf("%d devices", len(devices))
	}
	want := event.GPU{
		UUID: "GPU-00000000-0000-0000-0000-000000000000", Model: "NVIDIA H100 80GB HBM3", Minor: 1, PCI: "0000:1b:00.0", Divided: true,
		Instance: event.NoInstance, ComputeInstance: event.NoInstance,
	}
	if diff := cmp.Diff(want, *devices[0].gpu()); diff != "" {
		t.Error("GPU 0: ", diff)
	}
	instance := want
	instance.UUID, instance.Parent, instance.Profile, instance.Divided = "MIG-00000000-0000-0000-0000-000000000001", want.UUID, "1g.10gb", false
	instance.Instance, instance.ComputeInstance = 2, 0
	if diff := cmp.Diff(instance, *devices[2].gpu()); diff != "" {
		t.Error("instance 1 of GPU 0: ", diff)
	}
	last := *devices[17].gpu()
	if last.Index != 7 || last.NUMA != 1 || last.PCI != "0000:22:00.0" {
		t.Errorf("the last: %+v", last)
	}
	again, err := n.find(devices)
	if err != nil || !slices.Equal(again, devices) {
		t.Errorf("found again: others, %v", err)
	}
}

func TestSampleSaysWhatTheDriverDoes(t *testing.T) {
	_, devices := newFake(t, node).open()
	s := sampled(t, devices[4]) // GPU 1
	const gib, mib = 1 << 30, 1 << 20
	link := func(i float64) event.GPULink {
		l := event.GPULink{Link: uint8(i), Up: i != 3}
		l.Sent, l.Received = known(202001+10*i), known(204001+10*i)
		l.Replays, l.Recoveries, l.Damaged = known(161001+10*i), known(215001+10*i), known(219001+10*i)
		return l
	}
	process := func(pid uint32, kind event.GPUProcessKind, memory float64) event.GPUProcess {
		p := event.GPUProcess{PID: pid, Kind: kind, Instance: event.NoInstance, ComputeInstance: event.NoInstance}
		p.Memory = event.Reading{Value: memory, Known: memory > 0}
		return p
	}
	idle := func(p event.GPUProcess) event.GPUProcess {
		p.Busy, p.MemoryBusy, p.Encoder, p.Decoder = known(0), known(0), known(0), known(0)
		return p
	}
	used := func(p event.GPUProcess, share float64) event.GPUProcess {
		p.Busy, p.MemoryBusy, p.Encoder, p.Decoder = known(share), known(0.01), known(0.02), known(0.03)
		return p
	}
	want := event.GPUSample{
		Busy: known(0.11), MemoryBusy: known(0.21), Encoder: known(0.31), Decoder: known(0.41),
		SM: known(0.03), Occupancy: known(0.04), Tensor: known(0.06), DRAM: known(0.11),
		MemoryUsed: known(2 * gib), MemoryTotal: known(80 * gib), MemoryReserved: known(gib / 2),
		Power: known(101), PowerLimit: known(700), Energy: known(83.001),
		Temperature: known(31), MemoryTemperature: known(51),
		ClockGraphics: known(1001), ClockSM: known(2001), ClockMemory: known(3001), ClockVideo: known(4001),
		PCIeSent: known(21 * mib), PCIeReceived: known(22 * mib), PCIeReplays: known(94001),
		ECCCorrected: known(3001), ECCUncorrected: known(4001), ECCCorrectedEver: known(5001), ECCUncorrectedEver: known(6001),
		RowsCorrected: known(142001), RowsUncorrected: known(143001), RowsPending: known(144001), RowsFailed: known(145001),
		Throttle: event.ThrottleApplicationClocks, ThrottleKnown: true,
		Compute: event.ComputeExclusiveProcess, Fabric: event.FabricJoined,
		Links: []event.GPULink{link(0), link(1), link(2), link(3)},
		Processes: []event.GPUProcess{
			used(process(100, event.GPUCompute, 1000*mib), 0.6), used(process(101, event.GPUCompute, 2000*mib), 0.2),
			idle(process(102, event.GPUGraphics, 30*mib)), idle(process(103, event.GPUShared, 0)),
		},
		ProcessesKnown: true,
	}
	approximately := cmp.Comparer(func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 })
	if diff := cmp.Diff(want, s, approximately); diff != "" {
		t.Error(diff)
	}
	in := sampled(t, devices[2]) // of GPU 0
	if in.Power.Known || in.PCIeSent.Known || len(in.Links) > 0 {
		t.Error("an instance has what is its GPU's")
	}
	if got := []event.Reading{in.Busy, in.SM, in.Tensor, in.MemoryTotal}; !cmp.Equal(got, []event.Reading{known(0.53), known(0.54), known(0.57), known(10 * gib)}, approximately) {
		t.Error("instance: ", got)
	}
	if len(in.Processes) != 1 || in.Processes[0].PID != 500 || in.Processes[0].Instance != 2 {
		t.Errorf("instance: %+v", in.Processes)
	}
}

// knowledge names what is known of the second GPU, and of an instance of the
// first.
func knowledge(t *testing.T, devices []device) []string {
	t.Helper()
	var all []string
	add := func(name string, known bool) {
		if known && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	readings := func(in string, v any) {
		for i, r := 0, reflect.ValueOf(v); i < r.NumField(); i++ {
			if reading, ok := r.Field(i).Interface().(event.Reading); ok {
				add(in+r.Type().Field(i).Name, reading.Known)
			}
		}
	}
	for _, d := range devices {
		id := d.gpu()
		switch {
		case id.Index == 1:
			add("Model", id.Model != "")
			add("PCI", id.PCI != "")
			add("Minor", id.Minor > 0)
			s := sampled(t, d)
			readings("", s)
			add("Throttle", s.ThrottleKnown)
			add("Compute", s.Compute != 0)
			add("Fabric", s.Fabric != 0)
			add("Processes", s.ProcessesKnown)
			for _, l := range s.Links {
				add("Links", true)
				readings("Link.", l)
			}
			for _, p := range s.Processes {
				add(fmt.Sprint("Kind", p.Kind), true)
				readings("Process.", p)
			}
		case id.Index == 0 && id.Parent != "":
			add("Divided", true)
			add("Instance", id.Instance != event.NoInstance)
			add("ComputeInstance", id.ComputeInstance != event.NoInstance)
			add("Profile", id.Profile != "")
			s := sampled(t, d)
			add("Instance.SM", s.SM.Known)
			add("Instance.Busy", s.Busy.Known)
		}
	}
	slices.Sort(all)
	return all
}

const (
	gpmGives   = "SM Occupancy Tensor DRAM Instance.SM Instance.Busy"
	migGives   = "Divided Instance ComputeInstance Profile Instance.SM Instance.Busy"
	fieldsGive = "ECCCorrected ECCUncorrected ECCCorrectedEver ECCUncorrectedEver MemoryTemperature Energy PCIeReplays " +
		"RowsCorrected RowsUncorrected RowsPending RowsFailed Link.Sent Link.Received Link.Replays Link.Recoveries Link.Damaged"
)

// gives is what is not known without a function.
var gives = map[function]string{
	fnName: "Model", fnPCI: "PCI", fnMinor: "Minor",
	fnMIGMode: migGives, fnMIGMost: migGives, fnMIGHandle: migGives, fnInstance: "Instance Instance.SM Instance.Busy", fnComputeInstance: "ComputeInstance",
	fnUtilization: "Busy MemoryBusy", fnEncoder: "Encoder", fnDecoder: "Decoder", fnMemory2: "MemoryReserved",
	fnPower: "Power", fnPowerLimit: "PowerLimit", fnClock: "ClockSM ClockMemory ClockGraphics ClockVideo", fnThrottle: "Throttle",
	fnFields: fieldsGive, fnLinkState: "Links Link.Sent Link.Received Link.Replays Link.Recoveries Link.Damaged",
	fnComputeMode: "Compute", fnFabric: "Fabric",
	fnCompute: "Kind1 Processes", fnGraphics: "Kind2", fnMPS: "Kind4",
	fnProcessUtilization: "Process.Busy Process.MemoryBusy Process.Encoder Process.Decoder",
	fnGPMSupport:         gpmGives, fnGPMAlloc: gpmGives, fnGPMMetrics: gpmGives,
	fnGPMSample: "SM Occupancy Tensor DRAM", fnGPMSampleMIG: "Instance.SM Instance.Busy",
}

// less fails where what is known is not all but the words of without.
func less(t *testing.T, all, have []string, without string) {
	t.Helper()
	want := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(strings.Fields(without), s) })
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
}

func TestWhatAFunctionGivesIsAbsentWithoutIt(t *testing.T) {
	_, devices := newFake(t, node).open()
	all := knowledge(t, devices)
	for f := fnDriverVersion; f < functions; f++ {
		names := strings.Fields(symbols[f])
		t.Run("missing/"+names[0], func(t *testing.T) {
			var struck []string
			lib, _ := fakeNVML()
			for _, name := range names {
				if strings.Contains(string(lib), "\x00"+name+"\x00") {
					struck = append(struck, name)
				}
			}
			n, devices := newFake(t, node, struck...).open()
			if !slices.Equal(n.lib.missing, names[:1]) {
				t.Errorf("missing: %v", n.lib.missing)
			}
			less(t, all, knowledge(t, devices), gives[f])
		})
		t.Run("not supported/"+names[0], func(t *testing.T) {
			_, devices := newFake(t, fmt.Sprintf("%s\nfail %s 3 -1", node, names[0])).open()
			less(t, all, knowledge(t, devices), gives[f])
		})
	}
}

func TestOlderNamesAreUsed(t *testing.T) {
	_, all := newFake(t, node).open()
	n, devices := newFake(t, node, "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetCurrentClocksEventReasons").open()
	if n.lib.missing != nil {
		t.Error("missing: ", n.lib.missing)
	}
	less(t, knowledge(t, all), knowledge(t, devices), "")
}

func TestFieldThatIsNotSupportedIsAbsent(t *testing.T) {
	_, devices := newFake(t, node).open()
	all := knowledge(t, devices)
	for _, w := range plainFields() {
		id := w.from[0].id
		_, devices := newFake(t, fmt.Sprintf("%s\nfield %d 3", node, id)).open()
		if have := knowledge(t, devices); len(have) != len(all)-1 {
			t.Errorf("without field %d: %d known of %d", id, len(have), len(all))
		}
	}
	var none strings.Builder
	for _, id := range []int{202, 204, 161, 215, 219, 162, 163, 138, 139} {
		fmt.Fprintf(&none, "\nfield %d 3", id)
	}
	_, devices = newFake(t, node+none.String()).open()
	s := sampled(t, devices[4])
	if l := s.Links[2]; l.Sent.Known || l.Received.Known || l.Replays != known(48001) || l.Recoveries != known(55001) || l.Damaged != known(34001) {
		t.Errorf("a link before Hopper: %+v", l)
	}
}

func TestRequiredFunction(t *testing.T) {
	f := newFake(t, node, "nvmlDeviceGetUUID")
	if _, err := openNVML([]string{f.path}, ""); err == nil || !strings.Contains(err.Error(), "nvmlDeviceGetUUID") {
		t.Error(err)
	}
	if _, err := openNVML([]string{"/nowhere/libnvidia-ml.so.1"}, ""); !errors.Is(err, ErrNoLibrary) {
		t.Error(err)
	}
	f = newFake(t, "fail nvmlInit_v2 9 -1")
	if _, err := openNVML([]string{f.path}, ""); !errors.Is(err, driverNotLoaded) {
		t.Error(err)
	}
}

// After the driver has been replaced the library that the container was made with
// is not the driver's any more, and another is.
func TestLibraryOfAnotherDriver(t *testing.T) {
	old, now := newFake(t, "fail nvmlInit_v2 18 -1"), newFake(t, node)
	n, err := openNVML([]string{"/nowhere/libnvidia-ml.so.1", old.path, now.path}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := n.close(); err != nil {
		t.Error(err)
	}
	now.play("fail nvmlInit_v2 9 -1")
	if _, err := openNVML([]string{old.path, now.path}, t.TempDir()); !errors.Is(err, versionMismatch) {
		t.Errorf("%v", err)
	}
}

func TestProcessesOfAnyNumberAndWidth(t *testing.T) {
	var many strings.Builder
	many.WriteString("gpus 1\n")
	for i := range 200 {
		fmt.Fprintf(&many, "process 0 c %d %d -1\nused 0 %d 1\n", 1000+i, 1+i, 1000+i)
	}
	for _, wide := range []bool{false, true} {
		f := newFake(t, many.String())
		if wide {
			f = newFake(t, many.String()+"wide", "nvmlDeviceGetRunningProcessDetailList")
		}
		_, devices := f.open()
		s := sampled(t, devices[0])
		if len(s.Processes) != 200 {
			t.Fatalf("wide %v: %d processes", wide, len(s.Processes))
		}
		for i, p := range s.Processes {
			if p.PID != uint32(1000+i) || p.Memory != known(float64(1+i)*(1<<20)) || p.Busy != known(0.01) {
				t.Fatalf("wide %v: %+v", wide, p)
			}
		}
	}
}

func TestProcessInTwoListsIsOne(t *testing.T) {
	_, devices := newFake(t, "gpus 1\nprocess 0 c 7 100 -1\nprocess 0 c 8 200 -1\nprocess 0 m 9 5 -1\nprocess 0 m 8 200 -1\nprocess 0 g 7 0 -1").open()
	s := sampled(t, devices[0])
	got := map[uint32]event.GPUProcessKind{}
	var memory float64
	for _, p := range s.Processes {
		got[p.PID] |= p.Kind
		memory += p.Memory.Value
	}
	want := map[uint32]event.GPUProcessKind{7: event.GPUCompute | event.GPUGraphics, 8: event.GPUCompute | event.GPUShared, 9: event.GPUShared}
	if len(s.Processes) != 3 || !cmp.Equal(want, got) || memory != 305<<20 {
		t.Errorf("%+v", s.Processes)
	}
}

func TestProfileOfAttributes(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		a     attributes
		total uint64
		want  string
	}{
		{attributes{slices: 1, computeSlices: 1, memoryMB: 9856}, 80 * gib, "1g.10gb"},
		{attributes{slices: 3, computeSlices: 1, memoryMB: 40192}, 80 * gib, "1c.3g.40gb"},
		{attributes{slices: 1, computeSlices: 1, memoryMB: 4864}, 40 * gib, "1g.5gb"},
		{attributes{slices: 7, computeSlices: 7}, 0, "7g"},
	} {
		if got := profile(c.a, c.total); got != c.want {
			t.Errorf("%+v: %s, want %s", c.a, got, c.want)
		}
	}
}
