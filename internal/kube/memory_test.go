// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/orb8/orb8/internal/cluster"
)

// The goal for what a big cluster costs, of the agent's 96 MiB resident.
const heapGoal = 30 << 20

// TestMemory runs the watch in a process of its own, beside a cluster of 100
// nodes with 10,000 pods, 110 of them its own, and reads what that one has.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("10,000 pods")
	}
	s := newAPIServer(t)
	bigCluster(s)
	access := s.access()
	cmd := exec.Command(os.Args[0], "-test.run=TestMemoryChild", "-test.v")
	cmd.Env = append(os.Environ(), "ORB8_TEST_API_SERVER="+access.Host, "ORB8_TEST_CA="+string(access.CAData))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "MiB") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

func bigCluster(s *apiServer) {
	const pods, perNode = 10_000, 110
	for i := range pods {
		p := pod(fmt.Sprintf("training-worker-%06d-abcde", i), fmt.Sprintf("node-%03d", i/perNode), fmt.Sprintf("10.%d.%d.%d", 1+i/62_500, i/250%250, 1+i%250))
		p.Namespace = fmt.Sprintf("team-%02d", i%50)
		p.UID = types.UID(fmt.Sprintf("%08x-1234-1234-1234-123456789abc", i))
		p.Labels = map[string]string{"app": fmt.Sprintf("app-%04d", i/10), "pod-template-hash": "5d4f8c7b9d"}
		p.Annotations = map[string]string{"big": strings.Repeat("x", 4000)} // what is stripped
		p.Status.ContainerStatuses[0].ContainerID = fmt.Sprintf("containerd://%064x", i)
		s.put(owned(p, fmt.Sprintf("apps/v1 ReplicaSet rs-%04d", i/10)))
		if i%10 == 0 {
			bigWorkload(s, i/10)
		}
	}
	for i := range pods / perNode {
		name := fmt.Sprintf("node-%03d", i)
		s.put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}})
	}
	s.do(func() { s.events = nil })
}

// bigWorkload is a Deployment with ten pods, the ReplicaSets of its past, and a
// Service.
func bigWorkload(s *apiServer, i int) {
	name, team := fmt.Sprintf("app-%04d", i), fmt.Sprintf("team-%02d", i%50)
	for past := range 5 {
		rs := owner("apps/v1/replicasets", fmt.Sprintf("rs-%04d", i), "apps/v1 Deployment "+name)
		if past > 0 {
			rs.Name += fmt.Sprint("-", past)
			rs.UID = types.UID(fmt.Sprintf("%08x-%04x-1234-1234-123456789abc", i, past))
		}
		s.put(rs)
	}
	e := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: team, Name: name, UID: types.UID(name), Labels: map[string]string{discoveryv1.LabelServiceName: name},
	}}
	for j := range 10 {
		e.Endpoints = append(e.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.1.%d.%d", i/25, 1+i%25*10+j)}})
	}
	s.put(e, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: team, Name: name, UID: types.UID(name)},
		Spec:       corev1.ServiceSpec{ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, 1+i%250), Ports: []corev1.ServicePort{{Port: 80}}},
	})
}

// TestMemoryChild is the process that TestMemory runs.
func TestMemoryChild(t *testing.T) {
	host := os.Getenv("ORB8_TEST_API_SERVER")
	if host == "" {
		t.Skip("part of TestMemory")
	}
	access := &rest.Config{Host: host, TLSClientConfig: rest.TLSClientConfig{CAData: []byte(os.Getenv("ORB8_TEST_CA"))}}
	before := heap()
	begin := time.Now()
	d := openAt(t, access, Config{Node: "node-000", Cluster: true, Labels: []string{"app"}})
	m := cluster.New(cluster.Config{Node: "node-000"})
	for !d.synced {
		time.Sleep(5 * time.Millisecond)
		changes, synced := d.inbox.Take()
		m.Apply(changes, synced)
		d.synced = synced
	}
	took := time.Since(begin)
	after := heap()
	t.Logf("%.1f MiB of heap for 10,000 pods, map included; all told in %v; resident %s MiB, at most %s MiB",
		float64(after-before)/(1<<20), took.Round(time.Millisecond), resident(t, "VmRSS"), resident(t, "VmHWM"))
	if after-before > heapGoal {
		t.Errorf("%d bytes are more than %d", after-before, heapGoal)
	}
	runtime.KeepAlive(m)
}

func heap() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func resident(t *testing.T, what string) string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), what+":")
	var kib float64
	_, _ = fmt.Sscan(rest, &kib)
	return fmt.Sprintf("%.1f", kib/1024)
}
