// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	gpuNodeNumber = 1

	gpuResource    = "nvidia.com/gpu"
	sharedResource = "nvidia.com/gpu.shared"
	migResource    = "nvidia.com/mig-1g.10gb"
	hcaResource    = "rdma/hca"
	gpuDriver      = "gpu.nvidia.com"
	claimDevice    = "gpu-4"
	hcaPCI         = "0000:2a:00.0"

	// Where the agent looks for the driver container's library, and a sysfs beside it.
	driverRoot = "/run/nvidia/driver"
	driverLib  = driverRoot + "/usr/lib64"
	driverSys  = driverRoot + "/sys"
)

// As the library that is not NVIDIA's names them.
func gpuUUID(i int) string     { return fmt.Sprintf("GPU-%08d-0000-0000-0000-000000000000", i) }
func migUUID(i, at int) string { return fmt.Sprintf("MIG-%08d-0000-0000-0000-%012d", i, at) }
func gpuPCI(i int) string      { return fmt.Sprintf("0000:%02x:00.0", 0x1b+i) }
func equals(v *float64, want float64) bool {
	return v != nil && math.Abs(*v-want) <= 1e-6*max(1, math.Abs(want))
}

func told(v *float64) string {
	if v == nil {
		return "unknown"
	}
	return fmt.Sprint(*v)
}

// gpuNode is the node that has five GPUs, of which the third is divided into two,
// and an HCA next to the first. There is a library that says so, driven by a
// scenario beside it, and a tree of files instead of sysfs.
type gpuNode struct {
	*scene
	// It is asked on itself: through the API server, the kubelet has a part in it.
	direct bool
}

// openGPUNode has the agents look there, until the row ends.
func openGPUNode(t *testing.T, s *scene) *gpuNode {
	t.Helper()
	n := &gpuNode{scene: s}
	library := filepath.Join(s.run, "libnvidia-ml.so.1")
	source := filepath.Join(s.scripts, "../../../internal/probe/gpu/testdata/nvml.c")
	if out, err := exec.Command("gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	n.play()
	n.inNode("sh", "-c", "cp "+library+" "+driverLib+"/new && mv "+driverLib+"/new "+driverLib+"/libnvidia-ml.so.1")
	n.shell(sysfs())
	// As deploy/overlays/gpu mounts it.
	s.kubectl(t, "-n", "orb8-system", "patch", "daemonset", "orb8-agent", "-p", patch(object{
		"updateStrategy": object{"rollingUpdate": object{"maxUnavailable": "100%"}},
		"template": object{"spec": object{
			"containers": []object{{
				"name":         "agent",
				"env":          []object{{"name": "ORB8_SYSFS", "value": driverSys}, {"name": "ORB8_GPU_IDLE_SECS", "value": "5"}},
				"volumeMounts": []object{{"name": "nvidia", "mountPath": "/run/nvidia", "readOnly": true, "mountPropagation": "HostToContainer"}},
			}},
			"volumes": []object{{"name": "nvidia", "hostPath": object{"path": "/run/nvidia", "type": "DirectoryOrCreate"}}},
		}},
	}))
	t.Cleanup(func() {
		s.kubectl(t, "-n", "orb8-system", "rollout", "undo", "daemonset/orb8-agent")
		n.rollout()
	})
	n.rollout()
	return n
}

func patch(spec object) string {
	text, err := json.Marshal(object{"spec": spec})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (n *gpuNode) rollout() {
	n.t.Helper()
	n.kubectl(n.t, "-n", "orb8-system", "rollout", "status", "daemonset/orb8-agent", "--timeout=100s")
	n.waitForAgents(n.t)
}

func (n *gpuNode) inNode(args ...string) string {
	n.t.Helper()
	return n.do(n.t, append([]string{"node", fmt.Sprint(gpuNodeNumber)}, args...)...)
}

// shell runs a script in the node.
func (n *gpuNode) shell(text string) {
	n.t.Helper()
	ctx, stop := short()
	defer stop()
	if _, err := n.script(ctx, text, "node", fmt.Sprint(gpuNodeNumber), "sh", "-e"); err != nil {
		n.t.Fatal(err)
	}
}

// play has the library say what there is, and of processes what is told.
func (n *gpuNode) play(processes ...string) {
	n.t.Helper()
	lines := append([]string{
		"gpus 5", "mig 2 2", "busy 0 60", "busy 1 60", "busy 3 0", "busy 4 40",
		// Only the divided one tells what its SMs do.
		"fail nvmlGpmQueryDeviceSupport 3 0", "fail nvmlGpmQueryDeviceSupport 3 1", "fail nvmlGpmQueryDeviceSupport 3 3", "fail nvmlGpmQueryDeviceSupport 3 4",
	}, processes...)
	n.shell(fmt.Sprintf("mkdir -p %[1]s\ncat >%[1]s/new <<'X'\n%[2]s\nX\nmv %[1]s/new %[1]s/scenario\n", driverLib, strings.Join(lines, "\n")))
}

// sysfs makes the tree: the first GPU and the HCA are below one switch, the others
// at the machine's other end.
func sysfs() string {
	const here, there = "devices/pci0000:17/0000:17:01.0/0000:18:00.0/", "devices/pci0000:3a/0000:3a:01.0/"
	var b strings.Builder
	fmt.Fprintf(&b, "rm -rf %[1]s\nmkdir -p %[1]s/bus/pci/devices %[1]s/class/infiniband\ncd %[1]s\n", driverSys)
	at := map[string]string{gpuPCI(0): here + "0000:19:00.0/" + gpuPCI(0), hcaPCI: here + "0000:19:01.0/" + hcaPCI}
	for i := 1; i < 5; i++ {
		at[gpuPCI(i)] = there + gpuPCI(i)
	}
	for address, path := range at {
		numa := 0
		if strings.HasPrefix(path, there) {
			numa = 1
		}
		fmt.Fprintf(&b, "mkdir -p %s\necho %d >%[1]s/numa_node\nln -s ../../../%[1]s bus/pci/devices/%[3]s\n", path, numa, address)
	}
	hca := at[hcaPCI] + "/infiniband/mlx5_0"
	fmt.Fprintf(&b, "mkdir -p %s/ports/1/counters\nln -s ../.. %[1]s/device\nln -s ../../%[1]s class/infiniband/mlx5_0\ncd %[1]s/ports/1\n", hca)
	for name, text := range map[string]string{
		"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "400 Gb/sec (4X NDR)", "link_layer": "InfiniBand",
		"counters/port_xmit_data": "1000", "counters/port_xmit_packets": "10", "counters/port_rcv_data": "2000", "counters/port_rcv_packets": "20",
	} {
		fmt.Fprintf(&b, "echo '%s' >%s\n", text, name)
	}
	return b.String()
}

// offer has the kubelet know the devices.
func (n *gpuNode) offer() {
	t := n.t
	t.Helper()
	c := container("main", "/bin/plugin", "-claim", gpuDriver+"="+nodeName(gpuNodeNumber)+"/"+claimDevice,
		gpuResource+"="+gpuUUID(0)+"@0,"+gpuUUID(3)+"@1",
		sharedResource+"="+gpuUUID(1)+"::0@1,"+gpuUUID(1)+"::1@1",
		migResource+"="+migUUID(2, 0)+","+migUUID(2, 1),
		hcaResource+"="+hcaPCI+"@0")
	var mounts, volumes []object
	for _, dir := range []string{"device-plugins", "plugins", "plugins_registry"} {
		path := "/var/lib/kubelet/" + dir
		name := strings.ReplaceAll(dir, "_", "-")
		mounts = append(mounts, object{"name": name, "mountPath": path})
		volumes = append(volumes, object{"name": name, "hostPath": object{"path": path}})
	}
	c["volumeMounts"] = mounts
	spec := podSpec(place{node: gpuNodeNumber}, c)
	spec["volumes"] = volumes
	n.apply(t, n.owned("StatefulSet", "plugin", spec))
	n.ready(n.ns, "plugin", workload{"StatefulSet", "plugin"})
	eventually(t, time.Minute, func() (missing []string) {
		var node struct {
			Status struct{ Allocatable map[string]string }
		}
		n.get(t, &node, "node", nodeName(gpuNodeNumber))
		for resource, want := range map[string]string{gpuResource: "2", sharedResource: "2", migResource: "2", hcaResource: "1"} {
			if got := node.Status.Allocatable[resource]; got != want {
				missing = append(missing, fmt.Sprintf("the kubelet has %q of %s, want %s", got, resource, want))
			}
		}
		return missing
	})
}

// claimable has the scheduler know the device that is claimed, and the container
// runtime what it is to a container: a variable.
func (n *gpuNode) claimable() {
	t := n.t
	t.Helper()
	n.shell(fmt.Sprintf("mkdir -p /run/cdi\ncat >/run/cdi/e2e.json <<'X'\n"+
		`{"cdiVersion":"0.6.0","kind":"k8s.%s/device","devices":[{"name":"%s","containerEdits":{"env":["CLAIMED=%[2]s"]}}]}`+"\nX\n", gpuDriver, claimDevice))
	node := nodeName(gpuNodeNumber)
	n.apply(t,
		object{"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": object{"name": gpuDriver}, "spec": object{
			"selectors": []object{{"cel": object{"expression": "device.driver == '" + gpuDriver + "'"}}},
		}},
		object{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": object{"name": node + "-gpus"}, "spec": object{
			"driver": gpuDriver, "nodeName": node, "pool": object{"name": node, "generation": 1, "resourceSliceCount": 1},
			"devices": []object{{"name": claimDevice, "attributes": object{"uuid": object{"string": gpuUUID(4)}}}},
		}},
		object{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": object{"name": "gpu", "namespace": n.ns}, "spec": object{
			"spec": object{"devices": object{"requests": []object{{"name": "gpu", "exactly": object{"deviceClassName": gpuDriver}}}}},
		}})
	t.Cleanup(func() {
		n.kubectl(t, "delete", "deviceclass/"+gpuDriver, "resourceslice/"+node+"-gpus", "--wait=false", "--ignore-not-found")
	})
}

// claim has a pod's container claim one: such a pod must be scheduled.
func (n *gpuNode) claim(spec, c object) {
	delete(spec, "nodeName")
	spec["resourceClaims"] = []object{{"name": "gpu", "resourceClaimTemplateName": "gpu"}}
	c["resources"] = object{"claims": []object{{"name": "gpu"}}}
}

// pids are the processes of a container, by their numbers in the node.
func (s *scene) pids(p pod, container string) (list []int) {
	t := s.t
	t.Helper()
	var o object
	s.get(t, &o, "-n", p.ns, "pod", p.name)
	for _, c := range o.list("status", "containerStatuses") {
		_, id, ok := strings.Cut(c.text("containerID"), "://")
		if c.text("name") != container || !ok {
			continue
		}
		for _, path := range strings.Fields(s.do(t, "node", strings.TrimPrefix(p.node, "node"), "sh", "-c", "grep -ls "+id+" /proc/[0-9]*/cgroup || true")) {
			if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
				list = append(list, pid)
			}
		}
	}
	slices.Sort(list)
	return list
}

// process is the only one of a container.
func (s *scene) process(p pod, container string) int {
	s.t.Helper()
	list := s.pids(p, container)
	if len(list) != 1 {
		s.t.Fatalf("%s has processes %v, want one", p.name, list)
	}
	return list[0]
}

// kubeletRestarted: a kubelet that starts again knows what it has given, and so does
// the agent meanwhile.
func (n *gpuNode) kubeletRestarted(complaints func() []string) {
	t := n.t
	t.Helper()
	if n.settings["CGMODE"] == "v2" {
		return // without controllers a kubelet does not start beside groups that are there
	}
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	killed := 0
	for _, path := range comms {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != "kubelet" {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err == nil && sameFile(fmt.Sprintf("/proc/%d/ns/net", pid), fmt.Sprintf("/run/netns/%s-n%d", n.settings["P"], gpuNodeNumber)) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed++
		}
	}
	if killed != 1 {
		t.Fatalf("%d kubelets were ended", killed)
	}
	n.direct = true
	eventually(t, 20*time.Second, func() []string {
		if out, _, err := n.question("status", "-o", "json"); err != nil || !strings.Contains(out, "kubelet.sock") {
			return []string{fmt.Sprintf("the kubelet is away, and that is not said: %v: %s", err, out)}
		}
		return nil
	})
	if list := complaints(); len(list) > 0 {
		t.Errorf("while the kubelet is away:\n%s", strings.Join(list, "\n"))
	}
	n.direct = false
	n.inNode("sh", "-c", "setsid /run/start-kubelet </dev/null >/dev/null 2>&1 &")
	eventually(t, 40*time.Second, func() (missing []string) {
		out, _, err := n.question("status", "-o", "json")
		if err != nil || strings.Contains(out, "kubelet.sock") {
			return []string{fmt.Sprintf("%v: %s", err, out)}
		}
		return complaints()
	})
}

// gpuHolder is who has devices, as the command line writes it.
type gpuHolder struct {
	Holder  party
	State   string
	Shares  []gpuShare
	Network *struct {
		TxBytes uint64 `json:"tx_bytes"`
	}
	RDMA     *struct{ Devices []string }
	Findings []struct {
		Kind, Text string
		UUIDs      []string
	}
}

type gpuShare struct {
	UUID, Mode, Container string
	Allocated, Estimated  bool
	PIDs                  []int
	Busy, SM              *float64
	Memory                *float64 `json:"memory_bytes"`
	Power                 *float64 `json:"power_watts"`
	PowerEstimated        bool     `json:"power_estimated"`
}

// gpuDevice is a GPU or an instance.
type gpuDevice struct {
	UUID, Parent, Mode string
	Divided            bool
	Holders            []party
	Sample             struct {
		Busy, SM *float64
		Memory   *float64 `json:"memory_used_bytes"`
		Power    *float64 `json:"power_watts"`
	}
}

// rdmaDevice is an HCA.
type rdmaDevice struct {
	Name, PCI, Distance string
	NearestGPUs         []string `json:"nearest_gpus"`
	Holders             []party
}

// question asks the node's agent.
func (n *gpuNode) question(args ...string) (out, errs string, err error) {
	if n.direct {
		return n.askOnNode(gpuNodeNumber, args...)
	}
	return n.ask(append(args, "--node", nodeName(gpuNodeNumber))...)
}

// records are what it says of devices and of who has them.
func records[T any](n *gpuNode, more ...string) (list []*T, err error) {
	out, _, err := n.question(append([]string{"gpu", "-o", "json"}, more...)...)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		one := new(T)
		if err := json.Unmarshal([]byte(line), one); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		list = append(list, one)
	}
	return list, nil
}

// holders are those by namespace and pod; of what is no pod, "/".
func (n *gpuNode) holders() (map[string]*gpuHolder, error) {
	list, err := records[gpuHolder](n)
	all := map[string]*gpuHolder{}
	for _, h := range list {
		all[h.Holder.Namespace+"/"+h.Holder.Pod] = h
	}
	return all, err
}

func (n *gpuNode) devices() (map[string]*gpuDevice, error) {
	list, err := records[gpuDevice](n, "--by", "device")
	all := map[string]*gpuDevice{}
	for _, d := range list {
		all[d.UUID] = d
	}
	return all, err
}

func (n *gpuNode) rdma() ([]*rdmaDevice, error) { return records[rdmaDevice](n, "--by", "rdma") }

// sums: what holders have, and what nobody has, is what the device has.
func (n *gpuNode) sums() (all []string) {
	holders, err := records[gpuHolder](n)
	if err != nil {
		return []string{err.Error()}
	}
	devices, err := n.devices()
	if err != nil {
		return []string{err.Error()}
	}
	if len(devices) != 7 {
		return []string{fmt.Sprintf("want 5 GPUs and 2 instances, got %v", slices.Sorted(maps.Keys(devices)))}
	}
	type sum struct{ busy, sm, memory, power float64 }
	sums := map[string]sum{}
	value := func(v *float64) float64 {
		if v == nil {
			return 0
		}
		return *v
	}
	for _, h := range holders {
		for _, s := range h.Shares {
			to := sums[s.UUID]
			to.busy, to.sm, to.memory = to.busy+value(s.Busy), to.sm+value(s.SM), to.memory+value(s.Memory)
			sums[s.UUID] = to
			// Power is the whole GPU's.
			if d := devices[s.UUID]; d != nil {
				whole := s.UUID
				if d.Parent != "" {
					whole = d.Parent
				}
				to = sums[whole]
				to.power += value(s.Power)
				sums[whole] = to
			}
		}
	}
	for uuid, d := range devices {
		got := sums[uuid]
		for _, f := range []struct {
			what string
			of   *float64
			got  float64
			on   bool
		}{
			{"busy", d.Sample.Busy, got.busy, !d.Divided},
			{"SM", d.Sample.SM, got.sm, !d.Divided},
			{"memory", d.Sample.Memory, got.memory, !d.Divided},
			{"power", d.Sample.Power, got.power, d.Parent == ""},
		} {
			if f.on && f.of != nil && !equals(&f.got, *f.of) {
				all = append(all, fmt.Sprintf("%s: %s of its holders is %v, and its own %v", uuid, f.what, f.got, *f.of))
			}
		}
	}
	return all
}
