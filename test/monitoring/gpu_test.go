// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/orb8/orb8/internal/bpftest"
)

// rack is what the node has of GPUs and RDMA devices: a driver that plays a
// scenario, a kubelet that tells whom it has given what, and a tree as sysfs.
type rack struct {
	t       *testing.T
	dir     string
	socket  string
	library string
	stop    func()
	mu      sync.Mutex
	sent    uint64 // by RDMA, in words of four bytes
}

const (
	rdmaPort = "class/infiniband/mlx5_0/ports/1/"
	// What the port had moved before the agent came.
	rdmaBefore = 1_000_000
)

// newRack has four GPUs, one of them divided.
func newRack(t *testing.T) *rack {
	t.Helper()
	bpftest.RequireProgram(t, "gcc")
	r := &rack{t: t, dir: t.TempDir(), sent: rdmaBefore}
	r.library, r.socket = filepath.Join(r.dir, "libnvidia-ml.so.1"), filepath.Join(r.dir, "kubelet.sock")
	if out, err := exec.Command("gcc", "-O1", "-shared", "-fPIC", "-o", r.library, "../../internal/probe/gpu/testdata/nvml.c", "-ldl", "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	r.play()
	for name, value := range map[string]any{
		"state": "4: ACTIVE", "phys_state": "5: LinkUp", "rate": "400 Gb/sec (4X NDR)", "link_layer": "Ethernet",
		"counters/port_xmit_data": r.words(), "counters/port_rcv_data": r.words(), "counters/port_xmit_packets": 10, "counters/port_rcv_packets": 20,
		"counters/symbol_error": 0, "hw_counters/np_cnp_sent": 0, "hw_counters/out_of_sequence": 0,
	} {
		r.write(rdmaPort+name, value)
	}
	return r
}

// settings are the agent's.
func (r *rack) settings() []string {
	return []string{
		"ORB8_NVML=" + r.library, "ORB8_SYSFS=" + r.dir, "ORB8_POD_RESOURCES=" + r.socket, "ORB8_GPU_IDLE_SECS=2", "ORB8_DCGM_NAMES=true",
	}
}

func (r *rack) write(name string, value any) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, fmt.Appendln(nil, value), 0o600)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rack) play(lines ...string) {
	r.t.Helper()
	lines = append([]string{"gpus 4", "mig 3 2", "memory 0 3000", "memory 1 4000"}, lines...)
	r.write("scenario.new", strings.Join(lines, "\n"))
	if err := os.Rename(filepath.Join(r.dir, "scenario.new"), filepath.Join(r.dir, "scenario")); err != nil {
		r.t.Fatal(err)
	}
}

func uuid(gpu int) string { return fmt.Sprintf("GPU-%08d-0000-0000-0000-000000000000", gpu) }

// give has a kubelet tell that the client has a GPU and a part of another, which
// the server has, too, and the server an instance.
func (r *rack) give(client, server *pod) {
	r.t.Helper()
	ln, err := net.Listen("unix", r.socket)
	if err != nil {
		r.t.Fatal(err)
	}
	has := func(p *pod, resource string, ids ...string) *podresources.PodResources {
		var devices []*podresources.ContainerDevices
		for _, id := range ids {
			devices = append(devices, &podresources.ContainerDevices{ResourceName: resource, DeviceIds: []string{id}})
		}
		return &podresources.PodResources{Name: p.name, Namespace: p.namespace, Containers: []*podresources.ContainerResources{{Name: "c", Devices: devices}}}
	}
	s := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(s, &kubelet{pods: []*podresources.PodResources{
		has(client, "nvidia.com/gpu", uuid(0), uuid(1)+"::0"),
		has(server, "nvidia.com/gpu", uuid(1)+"::1", "MIG-00000003-0000-0000-0000-000000000000"),
	}})
	go func() { _ = s.Serve(ln) }()
	r.t.Cleanup(s.Stop)
}

type kubelet struct {
	podresources.UnimplementedPodResourcesListerServer
	pods []*podresources.PodResources
}

func (k *kubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	return &podresources.ListPodResourcesResponse{PodResources: k.pods}, nil
}

// work has processes of both pods compute, and the port move.
func (r *rack) work(s *stage, client, server *pod) {
	r.t.Helper()
	a, b := s.within(client), s.within(server)
	lines := []string{
		fmt.Sprintf("process 0 c %d 2000 -1", a), fmt.Sprintf("process 1 c %d 1000 -1", a), fmt.Sprintf("process 1 c %d 2000 -1", b), fmt.Sprintf("process 3 c %d 500 1", b),
		fmt.Sprintf("used 1 %d 20", a), fmt.Sprintf("used 1 %d 60", b),
	}
	r.play(lines...)
	done, ended := make(chan struct{}), make(chan struct{})
	r.stop = sync.OnceFunc(func() { close(done); <-ended })
	r.t.Cleanup(r.stop)
	go func() {
		defer close(ended)
		for i := 1; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
			r.move(100_000)
			if i == 4 { // what has begun is known by now
				r.play(append(lines, "xid 1 0 79 -1")...)
			}
		}
	}()
}

// words are as long as they may become: they are written in place.
func (r *rack) words() string { return fmt.Sprintf("%020d", r.sent) }

func (r *rack) move(words uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent += words
	f, err := os.OpenFile(filepath.Join(r.dir, rdmaPort+"counters/port_xmit_data"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(r.words())
		_ = f.Close()
	}
	if err != nil {
		r.t.Error(err)
	}
}

// within is the number of a pod's process, as the node knows it.
func (s *stage) within(p *pod) (pid int) {
	s.t.Helper()
	bpftest.Eventually(s.t, "the process of "+p.name, func() bool {
		text, err := os.ReadFile(s.groups.Path(s.group(p)) + "/cgroup.procs")
		if err != nil {
			s.t.Fatal(err)
		}
		for outer := range strings.FieldsSeq(string(text)) {
			status, _ := os.ReadFile("/proc/" + outer + "/status")
			_, rest, _ := strings.Cut(string(status), "NSpid:")
			line, _, _ := strings.Cut(rest, "\n")
			if n, _ := fmt.Sscanf(line, "%d %d", new(int), &pid); n == 2 {
				return true
			}
		}
		return false
	})
	return pid
}

// accelerated: parts of GPUs add up to them, and what moved by RDMA is known to
// the byte.
func (n *node) accelerated(p *prometheus) {
	n.t.Helper()
	n.rack.stop()
	want := (n.rack.sent - rdmaBefore) * 4
	bpftest.Eventually(n.t, "what moved by RDMA", func() bool {
		p.another(2)
		return p.grown(`orb8_rdma_bytes_total{direction="egress"}`) == want
	})
	for expr, want := range map[string]float64{
		"sum(orb8_gpu_power_watts)":                                                            100 + 101 + 102 + 103,
		fmt.Sprintf(`sum(orb8_gpu_utilization_ratio{uuid=%q})`, uuid(1)):                       0.11,
		fmt.Sprintf(`sum(orb8_gpu_utilization_ratio{uuid=%q,pod="web-1"})`, uuid(1)):           0.11 / 4,
		fmt.Sprintf(`sum(orb8_gpu_memory_used_bytes{uuid=%q,pod="db-1"})`, uuid(1)):            2000 << 20,
		fmt.Sprintf(`sum(orb8_gpu_memory_used_bytes{uuid=%q,pod=""})`, uuid(1)):                1000 << 20,
		fmt.Sprintf(`sum(orb8_gpu_xid_total{uuid=%q,pod="web-1",xid="79"})`, uuid(0)):          1,
		`count(orb8_gpu_allocated{namespace="data",pod="db-1",container="c",mig!=""})`:         1,
		fmt.Sprintf(`sum(DCGM_FI_DEV_GPU_UTIL{UUID=%q,Hostname=%q})`, uuid(1), nodeName):       11,
		fmt.Sprintf(`sum(orb8_gpu_finding{uuid=%q,namespace="shop",kind="idle"})`, uuid(0)):    1,
		fmt.Sprintf(`sum(orb8_gpu_temperature_celsius{uuid=%q,pod="web-1",gpu="0"})`, uuid(0)): 30,
	} {
		got := p.query(expr)
		if len(got) != 1 || math.Abs(got[0].Value.float()-want) > 1e-6*want {
			n.t.Errorf("%s is %v, not %v", expr, got, want)
		}
	}
}

// dcgmQueries are what NVIDIA's dashboard asks for.
func dcgmQueries(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../../tools/monitoring/testdata/dcgm-queries.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		expr := strings.TrimSpace(line)
		if inner, ok := strings.CutPrefix(expr, "label_values("); ok {
			at := strings.LastIndex(inner, ", ")
			expr = fmt.Sprintf("count by (%s) (%s)", strings.TrimSuffix(inner[at+2:], ")"), inner[:at])
		}
		if !strings.HasPrefix(expr, "#") {
			all = append(all, strings.NewReplacer("$instance", ".*", "$gpu", ".*", "$Hostname", nodeName).Replace(expr))
		}
	}
	return all
}
