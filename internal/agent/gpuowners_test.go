// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os/exec"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/kubelet"
	"github.com/orb8/orb8/internal/probe/gpu"
)

// The kubelet tells names; whose they are may change from one second to the next.
func TestWhoTheKubeletMeans(t *testing.T) {
	p := &pipeline{cfg: Config{Node: "n1"}, cluster: cluster.New(cluster.Config{Node: "n1"})}
	var o owners
	given := &kubelet.Snapshot{Holdings: []kubelet.Holding{
		{Namespace: "ml", Pod: "train-0", Container: "main", Resource: "nvidia.com/gpu", ID: "GPU-a"},
		{Namespace: "ml", Pod: "new", ID: "gpu-0", Claim: &kubelet.Claim{Driver: "gpu.nvidia.com", Device: "gpu-0"}},
	}}
	tell := func(uid, node string) {
		pod := podAt(node, "ml", "train-0", "10.1.0.5")
		pod.UID = uid
		p.cluster.Apply([]cluster.Change{{Kind: cluster.KindPod, Key: uid, Pod: pod, At: 1}}, true)
	}
	gone := func(uid string) {
		p.cluster.Apply([]cluster.Change{{Kind: cluster.KindPod, Key: uid, At: 2}}, true)
	}
	tell("old", "n1")
	tell("elsewhere", "n2")
	list := o.held(p, given)
	if len(list) != 2 || list[0].Who.PodUID != "old" || list[0].Container != "main" || list[0].ID != "GPU-a" {
		t.Fatalf("held: %+v", list)
	}
	if late := list[1]; late.Who.Pod != "new" || late.Who.PodUID != "" || late.DRADriver != "gpu.nvidia.com" || late.DRADevice != "gpu-0" {
		t.Errorf("a pod of which the cluster has not told: %+v", late)
	}
	if again := o.held(p, given); again[1].Who != list[1].Who {
		t.Error("a pod that is not known by the cluster is another one each second")
	}
	if o.held(p, &kubelet.Snapshot{Holdings: given.Holdings[:1]}); len(o.untold) != 0 {
		t.Errorf("names that are gone are kept: %v", o.untold)
	}
	gone("old")
	tell("next", "n1")
	if list = o.held(p, given); list[0].Who.PodUID != "next" {
		t.Errorf("its successor: %+v", list[0].Who)
	}
	if list = o.held(p, nil); list != nil {
		t.Errorf("nothing is known: %+v", list)
	}
}

// Labels of the node and who asks each have the driver let go; both must be done.
func TestLetGo(t *testing.T) {
	m := cluster.New(cluster.Config{Node: "n1"})
	label := func(value string) {
		m.Apply([]cluster.Change{{Kind: cluster.KindNode, Key: "n1", At: 1, Node: &cluster.Node{Name: "n1", Labels: map[string]string{labelGPU: value}}}}, true)
	}
	var l letGo
	l.wait()
	l.heed(m, "n1")
	if l.why() != unread {
		t.Error("the driver is opened before the labels are known")
	}
	l.patience = time.Now().Add(-time.Second)
	l.heed(m, "n1")
	if l.why() != "" {
		t.Error("the labels are waited for without end")
	}
	label("release")
	l.heed(m, "n1")
	byLabel := l.why()
	l.asked = true
	if byLabel == "" || l.why() != onDemand {
		t.Errorf("%q, %q", byLabel, l.why())
	}
	label("")
	l.heed(m, "n1")
	if l.why() != onDemand {
		t.Error("the labels took back what somebody asked")
	}
	l.asked = false
	if l.why() != "" {
		t.Error("nobody wants it")
	}
}

// Who ended since the driver was asked is who it was, for one second.
func TestProcessesThatEnd(t *testing.T) {
	g := &gpus{}
	sleep := exec.Command("sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }
	defer end()
	pid := uint32(sleep.Process.Pid)
	now := &gathered{gpus: &gpu.Snapshot{Samples: []event.GPUSample{{Processes: []event.GPUProcess{{PID: pid}, {PID: pid}}}}}}
	bpftest.Eventually(t, "the process to have its name", func() bool { return g.processes(now)[pid].name == "sleep" })
	end()
	if one := g.processes(now)[pid]; one.name != "sleep" || g.blind.Load() {
		t.Errorf("just ended: %+v", one)
	}
	if one, there := g.processes(now)[pid]; there || !g.blind.Load() {
		t.Errorf("long ended: %+v", one)
	}
}

// Who was on a device that does not answer is still known, until it ends.
func TestProcessesOfADeviceThatFails(t *testing.T) {
	g := &gpus{}
	sleep := exec.Command("sleep", "600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }
	defer end()
	pid := uint32(sleep.Process.Pid)
	now := &gathered{gpus: &gpu.Snapshot{Samples: []event.GPUSample{{UUID: "a", State: event.GPUOK, Processes: []event.GPUProcess{{PID: pid}}}}}}
	bpftest.Eventually(t, "the process to have its name", func() bool { return g.processes(now)[pid].name == "sleep" })
	g.view.Store(&event.GPUView{Holders: []event.GPUHolder{{Shares: []event.GPUShare{{GPU: &event.GPU{UUID: "a"}, PIDs: []uint32{pid}}}}}})
	now.gpus.Samples[0] = event.GPUSample{UUID: "a", State: event.GPUHung}
	for range 3 {
		if one := g.processes(now)[pid]; one.name != "sleep" || one.ended {
			t.Errorf("%+v", one)
		}
	}
	end()
	g.processes(now)
	if one, there := g.processes(now)[pid]; there || g.blind.Load() {
		t.Errorf("long ended: %+v", one)
	}
}
