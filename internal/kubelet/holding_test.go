// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

func numa(nodes ...int64) *podresources.TopologyInfo {
	t := &podresources.TopologyInfo{}
	for _, n := range nodes {
		t.Nodes = append(t.Nodes, &podresources.NUMANode{ID: n})
	}
	return t
}

// everything is an answer with each thing that there can be.
func everything() *podresources.ListPodResourcesResponse {
	return &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{
		{Namespace: "ml", Name: "nothing", Containers: []*podresources.ContainerResources{{Name: "main", CpuIds: []int64{1}}}},
		{Namespace: "ml", Name: "train-0", Containers: []*podresources.ContainerResources{
			{Name: "side", Devices: []*podresources.ContainerDevices{{ResourceName: "rdma/hca", DeviceIds: []string{"0000:1c:00.0"}}}},
			{
				Name: "main",
				Devices: []*podresources.ContainerDevices{
					{ResourceName: gpus, DeviceIds: []string{"GPU-1"}, Topology: numa(1)},
					{ResourceName: gpus, DeviceIds: []string{"GPU-0::1"}, Topology: numa(0)},
					{ResourceName: "nvidia.com/mig-1g.10gb", DeviceIds: []string{"MIG-0"}, Topology: numa(0, 1)},
				},
				DynamicResources: []*podresources.DynamicResource{{
					ClaimNamespace: "ml", ClaimName: "train-0-gpu", ClaimResources: []*podresources.ClaimResource{{
						DriverName: "gpu.nvidia.com", PoolName: "node1", DeviceName: "gpu-0",
						CdiDevices: []*podresources.CDIDevice{{Name: "k8s.gpu.nvidia.com/device=gpu-0"}},
					}},
				}},
			},
		}},
	}}
}

func TestHoldings(t *testing.T) {
	main := Holding{Namespace: "ml", Pod: "train-0", Container: "main"}
	is := func(h Holding, resource, id string, numa int) Holding {
		h.Resource, h.ID, h.NUMA = resource, id, numa
		return h
	}
	claimed := is(main, "", "gpu-0", -1)
	claimed.Claim = &Claim{
		Namespace: "ml", Name: "train-0-gpu", Driver: "gpu.nvidia.com", Pool: "node1", Device: "gpu-0",
		CDI: []string{"k8s.gpu.nvidia.com/device=gpu-0"},
	}
	side := Holding{Namespace: "ml", Pod: "train-0", Container: "side"}
	want := []Holding{
		claimed,
		is(main, gpus, "GPU-0::1", 0),
		is(main, gpus, "GPU-1", 1),
		is(main, "nvidia.com/mig-1g.10gb", "MIG-0", -1),
		is(side, "rdma/hca", "0000:1c:00.0", -1),
	}
	got, lost := holdings(everything())
	if diff := cmp.Diff(want, got); diff != "" || lost != 0 {
		t.Errorf("lost %d, and\n%s", lost, diff)
	}
}

func TestEqual(t *testing.T) {
	is := func(change func(*Holding)) Holding {
		h := Holding{Namespace: "n", Pod: "p", Container: "c", ID: "d", NUMA: 1, Claim: &Claim{Driver: "v", CDI: []string{"x"}}}
		change(&h)
		return h
	}
	same := is(func(*Holding) {})
	if !same.equal(is(func(*Holding) {})) {
		t.Error("the same is not the same")
	}
	for name, other := range map[string]Holding{
		"namespace": is(func(h *Holding) { h.Namespace = "" }),
		"pod":       is(func(h *Holding) { h.Pod = "" }),
		"container": is(func(h *Holding) { h.Container = "" }),
		"resource":  is(func(h *Holding) { h.Resource = "r" }),
		"id":        is(func(h *Holding) { h.ID = "" }),
		"numa":      is(func(h *Holding) { h.NUMA = 0 }),
		"no claim":  is(func(h *Holding) { h.Claim = nil }),
		"driver":    is(func(h *Holding) { h.Claim.Driver = "" }),
		"CDI":       is(func(h *Holding) { h.Claim.CDI = append(h.Claim.CDI, "y") }),
	} {
		if same.equal(other) || other.equal(same) {
			t.Errorf("%s makes no difference", name)
		}
	}
}

func FuzzHoldings(f *testing.F) {
	seed, err := proto.Marshal(everything())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		answer := &podresources.ListPodResourcesResponse{}
		if proto.Unmarshal(data, answer) != nil {
			return
		}
		list, lost := holdings(answer)
		if lost > 0 && len(list) != maxHoldings || !slices.IsSortedFunc(list, Holding.compare) {
			t.Errorf("%d holdings, %d lost", len(list), lost)
		}
		again, _ := holdings(answer)
		if !slices.EqualFunc(list, again, Holding.equal) {
			t.Error("an answer is told in two ways")
		}
	})
}

// BenchmarkHoldings: 110 pods, which is all that a node may have, with 8 devices
// each.
func BenchmarkHoldings(b *testing.B) {
	answer := &podresources.ListPodResourcesResponse{}
	for i := range 110 {
		p := pod(fmt.Sprintf("train-%d", i), gpus)
		for j := range 8 {
			p.Containers[0].Devices[0].DeviceIds = append(p.Containers[0].Devices[0].DeviceIds, fmt.Sprintf("GPU-%d-%d", i, j))
		}
		answer.PodResources = append(answer.PodResources, p)
	}
	b.ReportAllocs()
	for b.Loop() {
		holdings(answer)
	}
}
