// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// shown are the series of a metric, by the labels that are asked for.
func shown(t *testing.T, families []*dto.MetricFamily, metric string, by ...string) map[string]float64 {
	t.Helper()
	sums := map[string]float64{}
	for _, f := range families {
		seen := map[string]bool{}
		for _, m := range f.Metric {
			if l := fmt.Sprint(m.Label); seen[l] {
				t.Fatalf("%s: %s twice", f.GetName(), l)
			} else {
				seen[l] = true
			}
			if f.GetName() != metric {
				continue
			}
			values := make([]string, len(by))
			for i, name := range by {
				for _, l := range m.Label {
					if l.GetName() == name {
						values[i] = l.GetValue()
					}
				}
			}
			sums[strings.Join(values, " ")] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return sums
}

// scenes gathers one view after another.
type scenes struct {
	*Gatherer
	view *event.GPUView
	dcgm bool
}

func newScenes(v *event.GPUView, dcgm bool) *scenes {
	s := &scenes{view: v, dcgm: dcgm}
	s.Gatherer = NewGatherer(func() (*meter.Snapshot, error) {
		return &meter.Snapshot{GPU: s.view, DCGMNames: s.dcgm, Node: "n1"}, nil
	})
	return s
}

func (s *scenes) gather(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	families, err := s.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func expect(t *testing.T, what string, got, want map[string]float64) {
	t.Helper()
	same := func(a, b float64) bool { return math.Abs(a-b) < 1e-6*max(1, math.Abs(b)) }
	if !maps.EqualFunc(got, want, same) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// TestPartsAddUp to the device, whoever holds it.
func TestPartsAddUp(t *testing.T) {
	families := newScenes(viewOf(), true).gather(t)
	for metric, want := range map[string]map[string]float64{
		"orb8_gpu_utilization_ratio": {"GPU-a": 0.9, "GPU-b": 0.9},
		"orb8_gpu_sm_ratio":          {"GPU-a": 0.8, "GPU-b": 0.8, "MIG-c1": 0.8, "MIG-c2": 0.8},
		"orb8_gpu_memory_used_bytes": {"GPU-a": 40 * gib, "GPU-b": 40 * gib, "MIG-c1": 20 * gib, "MIG-c2": 20 * gib},
		"orb8_gpu_power_watts":       {"GPU-a": 600, "GPU-b": 600, "MIG-c1": 300, "MIG-c2": 300},
	} {
		expect(t, metric, shown(t, families, metric, "uuid"), want)
	}
	expect(t, "pods", shown(t, families, "orb8_gpu_utilization_ratio", "uuid", "namespace", "pod", "container", "mode"), map[string]float64{
		"GPU-a ml train-0 main exclusive": 0.9, "GPU-b ml serve-1 main time-sliced": 0.45, "GPU-b lab batch-2 main time-sliced": 0.225,
		"GPU-b    time-sliced": 0.225, // who is no pod, and nobody
	})
	expect(t, "under dcgm-exporter's name", shown(t, families, "DCGM_FI_DEV_GPU_UTIL", "UUID"), map[string]float64{"GPU-a": 90, "GPU-b": 90})
	expect(t, "power under dcgm-exporter's name", shown(t, families, "DCGM_FI_DEV_POWER_USAGE", "UUID", "GPU_I_ID"),
		map[string]float64{"GPU-a ": 600, "GPU-b ": 600, "GPU-c 1": 300, "GPU-c 2": 300})
}

// TestWhatIsTheDevicesOwn has a pod only where the pod has the device alone.
func TestWhatIsTheDevicesOwn(t *testing.T) {
	families := newScenes(viewOf(), true).gather(t)
	expect(t, "temperature", shown(t, families, "orb8_gpu_temperature_celsius", "gpu", "uuid", "pod"),
		map[string]float64{"0 GPU-a train-0": 60, "1 GPU-b ": 61, "2 GPU-c ": 62})
	expect(t, "memory", shown(t, families, "orb8_gpu_memory_total_bytes", "gpu", "uuid", "mig", "pod"), map[string]float64{
		"0 GPU-a  train-0": 80 * gib, "1 GPU-b  ": 80 * gib, "2 GPU-c  ": 80 * gib, "2 MIG-c1 3g.40gb serve-1": 40 * gib, "2 MIG-c2 3g.40gb ": 40 * gib,
	})
	expect(t, "state", shown(t, families, "orb8_gpu_state", "uuid", "state"), map[string]float64{
		"GPU-a ok": 1, "GPU-a lost": 0, "GPU-a hung": 0, "GPU-b ok": 1, "GPU-b lost": 0, "GPU-b hung": 0, "GPU-c ok": 1, "GPU-c lost": 0, "GPU-c hung": 0,
		"GPU-d ok": 0, "GPU-d lost": 1, "GPU-d hung": 0, "MIG-c1 ok": 1, "MIG-c1 lost": 0, "MIG-c1 hung": 0, "MIG-c2 ok": 1, "MIG-c2 lost": 0, "MIG-c2 hung": 0,
	})
	expect(t, "errors", shown(t, families, "orb8_gpu_ecc_errors_total", "uuid", "kind", "pod"), map[string]float64{
		"GPU-a corrected ": 1, "GPU-a uncorrected ": 2, "GPU-b corrected ": 1, "GPU-b uncorrected ": 2, "GPU-c corrected ": 1, "GPU-c uncorrected ": 2,
	})
	expect(t, "findings", shown(t, families, "orb8_gpu_finding", "uuid", "pod", "kind", "cause", "peer_workload"),
		map[string]float64{"GPU-a train-0 busy-waiting peer ps": 1, "GPU-b batch-2 idle nothing ": 1, "MIG-c1 serve-1 idle dns ": 1})
}

// TestCountersOfAccounts begin with 0, and do not go back when whoever was counted
// with others is gone.
func TestCountersOfAccounts(t *testing.T) {
	s := newScenes(viewOf(), true)
	const metric = "orb8_gpu_energy_joules_total"
	want := map[string]float64{"GPU-a train-0": 0, "GPU-b serve-1": 0, "GPU-b batch-2": 0, "GPU-b ": 0, "MIG-c1 serve-1": 0}
	expect(t, "first", shown(t, s.gather(t), metric, "uuid", "pod"), want)
	want = map[string]float64{"GPU-a train-0": 1000.5, "GPU-b serve-1": 1000.5, "GPU-b batch-2": 1000.5, "GPU-b ": 2001, "MIG-c1 serve-1": 50}
	families := s.gather(t)
	expect(t, "second", shown(t, families, metric, "uuid", "pod"), want)
	expect(t, "Xids", shown(t, families, "orb8_gpu_xid_total", "uuid", "pod", "xid"), map[string]float64{"GPU-a train-0 79": 1, "GPU-a train-0 31": 2, "MIG-c1 serve-1 94": 1})
	expect(t, "throttling", shown(t, families, "orb8_gpu_throttle_seconds_total", "pod", "reason"),
		map[string]float64{"train-0 thermal": 2.5, "serve-1 thermal": 2.5, "batch-2 thermal": 2.5, " thermal": 5})
	expect(t, "the last Xid", shown(t, families, "DCGM_FI_DEV_XID_ERRORS", "UUID"), map[string]float64{"GPU-a": 79, "GPU-b": 0, "GPU-c": 94, "GPU-d": 0})
	expect(t, "energy in mJ", shown(t, families, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "UUID"), map[string]float64{"GPU-a": 1000500, "GPU-b": 4002000, "GPU-c": 50000})

	// The daemon is gone, serve-1 has another container's life, there is one more Xid.
	next := viewOf()
	next.Accounts = append(next.Accounts[:3:3], next.Accounts[4:]...)
	next.Accounts[1].Energy, next.Accounts[1].Who = 10, podOf("ml", "serve", "serve-1")
	again := *next.Accounts[1].Who
	again.PodUID = "another"
	next.Accounts[1].Who = &again
	next.Accounts[3].Energy += 5
	next.Accounts[0].Xids[31]++
	next.Accounts[2].Mode, next.Accounts[2].Energy = event.GPUMPS, 1001
	s.view = next
	families = s.gather(t)
	want["GPU-b serve-1"], want["GPU-b "] = 1010.5, 2006
	want["GPU-b batch-2"] = 0 // of another mode: a new series
	expect(t, "third", shown(t, families, metric, "uuid", "pod"), want)
	want["GPU-b batch-2"] = 0.5
	families = s.gather(t)
	expect(t, "fourth", shown(t, families, metric, "uuid", "pod"), want)
	expect(t, "the last Xid", shown(t, families, "DCGM_FI_DEV_XID_ERRORS", "UUID"), map[string]float64{"GPU-a": 31, "GPU-b": 0, "GPU-c": 94, "GPU-d": 0})

	s.view = nil
	if n := len(s.gather(t)); n == 0 || len(s.shown) != 0 {
		t.Errorf("without GPUs %d metrics, and %d series are remembered", n, len(s.shown))
	}
}

// TestRDMA: what a port moves falls to whoever has it by then.
func TestRDMA(t *testing.T) {
	s := newScenes(viewOf(), false)
	s.gather(t)
	expect(t, "nothing yet", shown(t, s.gather(t), "orb8_rdma_bytes_total", "device", "pod", "direction"),
		map[string]float64{"mlx5_0 train-0 egress": 0, "mlx5_0 train-0 ingress": 0, "mlx5_1  egress": 0, "mlx5_1  ingress": 0})
	next := viewOf()
	next.RDMA[0].Ports[0].Total.TxBytes += 500
	next.RDMA[1].Ports[0].Total.RxBytes += 700
	next.RDMA[0].Ports[0].Counters = []event.RDMACounter{{Name: "np_cnp_sent", Kind: event.RDMACongestion, Seen: 15}}
	s.view = next
	families := s.gather(t)
	expect(t, "bytes", shown(t, families, "orb8_rdma_bytes_total", "device", "pod", "mode", "direction"),
		map[string]float64{"mlx5_0 train-0 exclusive egress": 500, "mlx5_0 train-0 exclusive ingress": 0, "mlx5_1  shared egress": 0, "mlx5_1  shared ingress": 700})
	expect(t, "congestion", shown(t, families, "orb8_rdma_congestion_total", "device", "pod", "port", "counter"),
		map[string]float64{"mlx5_0 train-0 1 np_cnp_sent": 15, "mlx5_1  1 np_cnp_sent": 10})
	expect(t, "links", shown(t, families, "orb8_rdma_link_up", "device"), map[string]float64{"mlx5_0": 1, "mlx5_1": 0})

	// The device is given to another, and its driver is loaded anew.
	last := viewOf()
	last.RDMA[0].Holders = []*event.Identity{batch}
	last.RDMA[0].Ports[0].Total = event.Traffic{TxBytes: 40}
	last.RDMA[1].Ports[0].Total = next.RDMA[1].Ports[0].Total
	s.view = last
	s.gather(t)
	last.RDMA[0].Ports[0].Total = event.Traffic{TxBytes: 50}
	expect(t, "another's", shown(t, s.gather(t), "orb8_rdma_bytes_total", "device", "pod", "direction"),
		map[string]float64{"mlx5_0 batch-2 egress": 50, "mlx5_0 batch-2 ingress": 0, "mlx5_1  egress": 0, "mlx5_1  ingress": 700})
}

// A device that does not answer for a while, or does not tell its bytes, has not
// suffered once more what it had before.
func TestRDMAThatIsAway(t *testing.T) {
	s := newScenes(viewOf(), false)
	s.gather(t)
	s.gather(t)
	whole, part := s.view, viewOf()
	part.RDMA = part.RDMA[:1]
	for _, away := range []*event.GPUView{part, whole} {
		s.view = away
		s.gather(t)
	}
	quiet := viewOf()
	quiet.RDMA[1].Ports[0].TotalKnown = false
	for _, now := range []*event.GPUView{quiet, whole} {
		s.view = now
		expect(t, "congestion", shown(t, s.gather(t), "orb8_rdma_congestion_total", "device"), map[string]float64{"mlx5_0": 10, "mlx5_1": 0})
	}
}

// Compute instances of one GPU instance are not one series.
func TestDCGMOfComputeInstances(t *testing.T) {
	v := &event.GPUView{Samples: make([]event.GPUSample, 2), Modes: make([]event.GPUMode, 2)}
	h := event.GPUHolder{Who: &event.Identity{Class: event.ClassUnknown}}
	for i, uuid := range []string{"MIG-a", "MIG-b"} {
		v.GPUs = append(v.GPUs, event.GPU{UUID: uuid, Parent: "GPU-a", Profile: "1c.2g.20gb", Instance: 3, ComputeInstance: uint32(i)})
	}
	for i := range v.GPUs {
		h.Shares = append(h.Shares, event.GPUShare{GPU: &v.GPUs[i], Memory: event.Reading{Value: 1 << 20, Known: true}})
	}
	v.Holders = []event.GPUHolder{h}
	expect(t, "memory", shown(t, newScenes(v, true).gather(t), "DCGM_FI_DEV_FB_USED", "UUID", "GPU_I_ID"),
		map[string]float64{"GPU-a 3/0": 1, "GPU-a 3/1": 1})
}

// TestDCGM is a golden one, of the second scrape a second later.
func TestDCGM(t *testing.T) {
	s := newScenes(viewOf(), true)
	s.gather(t)
	for i := range s.view.Samples {
		s.view.Samples[i].At += int64(time.Second)
	}
	s.view.Samples[0].Links[0].Sent.Value += 3e9
	var out bytes.Buffer
	for _, f := range s.gather(t) {
		if !strings.HasPrefix(f.GetName(), "DCGM_") {
			continue
		}
		sortMetrics(f)
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "testdata/dcgm.txt", out.Bytes())
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(want, got) {
		t.Errorf("%v; not as in %s (-update writes it):\n%s", err, path, got)
	}
}

// TestNoDriver: there is nothing to tell, unless it was closed.
func TestNoDriver(t *testing.T) {
	families := newScenes(&event.GPUView{}, true).gather(t)
	expect(t, "no driver", shown(t, families, "orb8_gpu_driver_open"), map[string]float64{})
	families = newScenes(&event.GPUView{Status: event.GPUStatus{Released: "orb8 gpu release", Asked: true, PodResources: "no answer"}}, true).gather(t)
	expect(t, "released", shown(t, families, "orb8_gpu_driver_released"), map[string]float64{"": 1})
	expect(t, "open", shown(t, families, "orb8_gpu_driver_open"), map[string]float64{"": 0})
	expect(t, "pod-resources", shown(t, families, "orb8_gpu_pod_resources_up"), map[string]float64{"": 0})
}
