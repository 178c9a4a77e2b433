// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// gpus: pods ask the real kubelet for devices, and each device is told with whom it
// was given to, whether somebody works on it or not; what a device does is split
// among them, and adds up. The driver and the devices are the test's own.
func gpus(t *testing.T, s *scene) {
	n := openGPUNode(t, s)
	n.offer()
	w := n.workers()
	n.play(w.processes()...)
	eventually(t, 40*time.Second, func() []string { return w.complaints(n) })
	eventually(t, 20*time.Second, func() []string { return n.sums() })
	eventually(t, 20*time.Second, func() []string { return w.hca(n) })
	w.xid(n)
	w.released(n)
	w.restarted(n)
	n.kubeletRestarted(func() []string { return w.complaints(n) })
	w.deleted(n)
}

// workers are the pods of the row, all on the node with the GPUs.
type workers struct {
	*scene
	// Has a GPU and an HCA to itself.
	train pod
	// Have a GPU in turns.
	often, seldom pod
	// Have an instance each, of which one does nothing.
	small, unused pod
	// Has claimed a GPU.
	claimer pod
	// Has a GPU, does nothing on it, and sends on.
	lazy pod
}

func (n *gpuNode) workers() *workers {
	s, t := n.scene, n.t
	t.Helper()
	s.apply(t, s.owned("StatefulSet", "server", podSpec(place{node: 2}, container("main", "/bin/traffic", "serve", "-port", "7000"))))
	server := s.ready(s.ns, "server", workload{"StatefulSet", "server"})
	n.claimable()
	serve := []string{"/bin/traffic", "serve", "-port", "7000"}
	w := &workers{scene: s}
	// The plugins give what is first of that which is free.
	for _, p := range []struct {
		to      *pod
		name    string
		asks    object
		gets    map[string]string
		command []string
	}{
		{&w.train, "train", object{gpuResource: 1, hcaResource: 1}, map[string]string{"NVIDIA_COM_GPU": gpuUUID(0), "RDMA_HCA": hcaPCI}, serve},
		{&w.lazy, "lazy", object{gpuResource: 1}, map[string]string{"NVIDIA_COM_GPU": gpuUUID(3)}, []string{"/bin/traffic", "send", "-to", server.ip + ":7000", "-times", "0", "-every", "100ms"}},
		{&w.claimer, "claimer", nil, map[string]string{"CLAIMED": claimDevice}, serve},
		{&w.often, "often", object{sharedResource: 1}, map[string]string{"NVIDIA_COM_GPU_SHARED": gpuUUID(1) + "::0"}, serve},
		{&w.seldom, "seldom", object{sharedResource: 1}, map[string]string{"NVIDIA_COM_GPU_SHARED": gpuUUID(1) + "::1"}, serve},
		{&w.small, "small", object{migResource: 1}, map[string]string{"NVIDIA_COM_MIG_1G_10GB": migUUID(2, 0)}, serve},
		{&w.unused, "unused", object{migResource: 1}, map[string]string{"NVIDIA_COM_MIG_1G_10GB": migUUID(2, 1)}, serve},
	} {
		c := container("main", p.command...)
		c["resources"] = object{"limits": p.asks}
		// Beside it, one that has nothing.
		spec := podSpec(place{node: gpuNodeNumber}, c, container("side", "sleep", "100000"))
		if p.asks == nil {
			n.claim(spec, c)
		}
		s.apply(t, s.owned("StatefulSet", p.name, spec))
		*p.to = s.ready(s.ns, p.name, workload{"StatefulSet", p.name})
		for variable, want := range p.gets {
			if got := strings.TrimSpace(s.kubectl(t, "-n", s.ns, "exec", p.to.name, "-c", "main", "--", "sh", "-c", "echo $"+variable)); got != want {
				t.Fatalf("the kubelet gave %s %q, want %q", p.name, got, want)
			}
		}
	}
	return w
}

const mib = 1 << 20

// processes is what the driver says of them.
func (w *workers) processes() []string {
	one := func(p pod) int { return w.process(p, "main") }
	return []string{
		fmt.Sprintf("process 0 c %d 500 -1", one(w.train)),
		fmt.Sprintf("used 0 %d 60", one(w.train)),
		fmt.Sprintf("process 1 c %d 300 -1", one(w.often)),
		fmt.Sprintf("process 1 c %d 200 -1", one(w.seldom)),
		fmt.Sprintf("used 1 %d 30", one(w.often)),
		fmt.Sprintf("used 1 %d 10", one(w.seldom)),
		fmt.Sprintf("process 4 c %d 700 -1", one(w.claimer)),
		fmt.Sprintf("process 2 c %d 100 1", one(w.small)),
	}
}

// given is what a pod of the row must be told to have.
type given struct {
	pod        pod
	state      string
	uuid, mode string
	estimated  bool
	busy       float64 // -1: whatever it is
	mib        uint64
}

func (w *workers) expected() []given {
	return []given{
		{w.train, "active", gpuUUID(0), "exclusive", false, 0.6, 500},
		{w.often, "active", gpuUUID(1), "time-sliced", true, 0.45, 300},
		{w.seldom, "active", gpuUUID(1), "time-sliced", true, 0.15, 200},
		// Of an instance, power is by what its SMs do, and the rest is its own.
		{w.small, "active", migUUID(2, 0), "mig", false, -1, 100},
		{w.unused, "allocated", migUUID(2, 1), "mig", false, -1, 0},
		{w.claimer, "active", gpuUUID(4), "exclusive", false, 0.4, 700},
		{w.lazy, "allocated", gpuUUID(3), "exclusive", false, 0, 0},
	}
}

// complaints: what each holder has is exactly that, and nobody else has anything.
func (w *workers) complaints(n *gpuNode) (all []string) {
	known, err := n.holders()
	if err != nil {
		return []string{err.Error()}
	}
	for _, want := range w.expected() {
		name := want.pod.ns + "/" + want.pod.name
		h := known[name]
		delete(known, name)
		if h == nil || len(h.Shares) != 1 {
			all = append(all, fmt.Sprintf("%s: want one device, got %+v", name, h))
			continue
		}
		for _, complaint := range append(w.podAs(want.pod, "", "").differs("holder", h.Holder.who), want.differs(w.scene, h)...) {
			all = append(all, name+": "+complaint)
		}
	}
	for name, h := range known {
		if h.Holder.Class == "pod" {
			all = append(all, fmt.Sprintf("%s holds devices that it was not given: %+v", name, h.Shares))
		}
	}
	return append(all, w.idles(n)...)
}

func (want given) differs(s *scene, h *gpuHolder) (all []string) {
	got := h.Shares[0]
	if h.State != want.state {
		all = append(all, fmt.Sprintf("state %q, want %q", h.State, want.state))
	}
	if got.UUID != want.uuid || got.Mode != want.mode || got.Container != "main" || !got.Allocated || got.Estimated != want.estimated ||
		got.PowerEstimated != (want.mode == "mig") {
		all = append(all, fmt.Sprintf("got %+v, want %+v", got, want))
	}
	var pids []int
	if want.mib > 0 {
		pids = []int{s.process(want.pod, "main")}
	}
	if !slices.Equal(got.PIDs, pids) {
		all = append(all, fmt.Sprintf("processes %v, want %v", got.PIDs, pids))
	}
	if want.busy >= 0 && !equals(got.Busy, want.busy) {
		all = append(all, fmt.Sprintf("busy %v, want %v", told(got.Busy), want.busy))
	}
	if !equals(got.Memory, float64(want.mib*mib)) {
		all = append(all, fmt.Sprintf("memory %v, want %d MiB", told(got.Memory), want.mib))
	}
	return all
}

// idles: the pod that sends on and leaves its GPU alone is told, with what it sends.
func (w *workers) idles(n *gpuNode) []string {
	known, err := n.holders()
	if err != nil {
		return []string{err.Error()}
	}
	h := known[w.lazy.ns+"/"+w.lazy.name]
	switch {
	case h == nil || len(h.Findings) != 1 || h.Findings[0].Kind != "idle" || !slices.Equal(h.Findings[0].UUIDs, []string{gpuUUID(3)}):
		return []string{fmt.Sprintf("lazy: want a finding, got %+v", h)}
	case h.Network == nil || h.Network.TxBytes == 0:
		return []string{fmt.Sprintf("lazy: sends, and is told to move %+v", h.Network)}
	}
	return nil
}

// hca: the HCA is the training's, and next to its GPU.
func (w *workers) hca(n *gpuNode) (all []string) {
	devices, err := n.rdma()
	if err != nil {
		return []string{err.Error()}
	}
	if len(devices) != 1 {
		return []string{fmt.Sprintf("%d RDMA devices", len(devices))}
	}
	d := devices[0]
	if d.Name != "mlx5_0" || d.PCI != hcaPCI || !slices.Equal(d.NearestGPUs, []string{gpuUUID(0)}) || d.Distance != "switch" {
		all = append(all, fmt.Sprintf("the HCA's place: %+v", d))
	}
	if len(d.Holders) != 1 || d.Holders[0].Pod != w.train.name || d.Holders[0].Namespace != w.train.ns {
		all = append(all, fmt.Sprintf("the HCA's holders: %+v", d.Holders))
	}
	known, err := n.holders()
	if err != nil {
		return append(all, err.Error())
	}
	if h := known[w.train.ns+"/"+w.train.name]; h == nil || h.RDMA == nil || !slices.Equal(h.RDMA.Devices, []string{"mlx5_0"}) {
		all = append(all, fmt.Sprintf("the training has no HCA: %+v", h))
	}
	return all
}

// xid: an error of a device is told with whom it concerns.
func (w *workers) xid(n *gpuNode) {
	n.play(append(w.processes(), "xid 1 0 31 -1")...)
	eventually(w.t, 20*time.Second, func() []string {
		out, _, err := n.question("trace", "gpu", "-o", "json", "--kind", "xid", "--since", "1m", "--duration", "1s")
		if err != nil {
			return []string{err.Error()}
		}
		for line := range strings.Lines(out) {
			var e struct {
				Device  gpuDevice
				Holders []party
				Xid     struct{ Code int }
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				return []string{fmt.Sprintf("%q: %v", line, err)}
			}
			if e.Xid.Code == 31 && e.Device.UUID == gpuUUID(0) && len(e.Holders) == 1 && e.Holders[0].Pod == w.train.name {
				return nil
			}
		}
		return []string{"no Xid 31 of the training: " + out}
	})
}

// released: until the driver is opened again, nothing is told of it.
func (w *workers) released(n *gpuNode) {
	t := w.t
	drive := func(what string) {
		if _, _, err := n.question("gpu", what); err != nil {
			t.Fatal(err)
		}
	}
	drive("release")
	eventually(t, 10*time.Second, func() []string {
		devices, err := n.devices()
		if err != nil || len(devices) > 0 {
			return []string{fmt.Sprintf("released, and told: %v, %v", slices.Sorted(maps.Keys(devices)), err)}
		}
		return nil
	})
	drive("open")
	eventually(t, 30*time.Second, func() []string { return w.complaints(n) })
}

// restarted: a container that starts again has its devices on, and until its new
// process works on them they are only allocated.
func (w *workers) restarted(n *gpuNode) {
	t := w.t
	before := w.process(w.train, "main")
	w.kubectl(t, "-n", w.ns, "exec", w.train.name, "-c", "main", "--", "kill", "1")
	eventually(t, 40*time.Second, func() []string {
		if now := w.pids(w.train, "main"); len(now) != 1 || now[0] == before {
			return []string{fmt.Sprintf("the container has not come back: %v", now)}
		}
		return nil
	})
	eventually(t, 20*time.Second, func() []string {
		known, err := n.holders()
		if err != nil {
			return []string{err.Error()}
		}
		h := known[w.train.ns+"/"+w.train.name]
		if h == nil || h.State != "allocated" || len(h.Shares) != 1 || !h.Shares[0].Allocated || len(h.Shares[0].PIDs) > 0 {
			return []string{fmt.Sprintf("between two lives: %+v", h)}
		}
		return nil
	})
	n.play(w.processes()...)
	eventually(t, 20*time.Second, func() []string { return w.complaints(n) })
}

// deleted: what a pod had is free once it is gone, and the next pod's when that has
// been given it.
func (w *workers) deleted(n *gpuNode) {
	t := w.t
	w.kubectl(t, "-n", w.ns, "delete", "statefulset", "lazy", "--wait=false")
	w.kubectl(t, "-n", w.ns, "wait", "pod/"+w.lazy.name, "--for=delete", "--timeout=60s")
	gone := time.Now()
	eventually(t, 20*time.Second, func() []string {
		devices, err := n.devices()
		if err != nil {
			return []string{err.Error()}
		}
		if d := devices[gpuUUID(3)]; d == nil || d.Mode != "" || len(d.Holders) > 0 {
			return []string{fmt.Sprintf("the GPU of a pod that is gone: %+v", d)}
		}
		return nil
	})
	t.Logf("a GPU was free %v after its pod was gone", time.Since(gone).Round(100*time.Millisecond))
	c := container("main", "sleep", "100000")
	c["resources"] = object{"limits": object{gpuResource: 1}}
	w.apply(t, w.owned("StatefulSet", "next", podSpec(place{node: gpuNodeNumber}, c)))
	next := w.ready(w.ns, "next", workload{"StatefulSet", "next"})
	given := time.Now()
	eventually(t, 20*time.Second, func() []string {
		known, err := n.holders()
		if err != nil {
			return []string{err.Error()}
		}
		if h := known[next.ns+"/"+next.name]; h == nil || len(h.Shares) != 1 || h.Shares[0].UUID != gpuUUID(3) {
			return []string{fmt.Sprintf("the next pod's: %+v", h)}
		}
		return nil
	})
	t.Logf("the next pod was told to have it %v after it was ready", time.Since(given).Round(100*time.Millisecond))
}
