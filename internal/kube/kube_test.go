// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told is what a watch has told so far.
type told struct {
	watch *Watch
	inbox *cluster.Inbox

	mu     sync.Mutex
	now    map[string]cluster.Change
	gone   map[string]bool
	synced bool
}

// open runs a watch of the fake until the test ends.
func open(t testing.TB, s *apiServer, cfg Config) *told {
	t.Helper()
	return openAt(t, s.access(), cfg)
}

func openAt(t testing.TB, access *rest.Config, cfg Config) *told {
	t.Helper()
	if cfg.Node == "" {
		cfg.Node = "n1"
	}
	w, err := newWatch(cfg, access)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range w.feeds {
		f.pause = 20 * time.Millisecond
	}
	w.workloads.lookups.retry = 10 * time.Millisecond
	d := &told{watch: w, inbox: &cluster.Inbox{}, now: map[string]cluster.Change{}, gone: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = w.Run(ctx, d.inbox)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return d
}

func (d *told) take() {
	d.mu.Lock()
	defer d.mu.Unlock()
	changes, synced := d.inbox.Take()
	d.synced = synced
	for _, c := range changes {
		switch {
		case c.Gone || c.Pod == nil && c.Service == nil && c.Endpoints == nil && c.Node == nil:
			delete(d.now, c.Key)
			d.gone[c.Key] = true
		case c.At == 0:
			panic("a change without a time")
		default:
			d.now[c.Key] = c
		}
	}
}

func (d *told) pod(uid string) *cluster.Pod {
	d.take()
	return d.now[uid].Pod
}

func (d *told) waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	bpftest.Eventually(t, what, func() bool { d.take(); return cond() })
}

func (d *told) waitWorkload(t testing.TB, uid, workload string) {
	t.Helper()
	last := "nothing"
	defer func() {
		if t.Failed() {
			t.Logf("%s belongs to %s", uid, last)
		}
	}()
	d.waitFor(t, uid+" of "+workload, func() bool {
		if p := d.pod(uid); p != nil {
			last = p.Workload.Kind + "/" + p.Workload.Name
		}
		return last == workload
	})
}

func (d *told) problem(part string) bool {
	return strings.Contains(strings.Join(d.watch.Problems(), "\n"), part)
}

func pod(name, node, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://id-" + name}},
		},
	}
}

func fill(s *apiServer) {
	s.put(pod("own", "n1", "10.0.1.1"), pod("other", "n2", "10.0.2.1"), pod("nowhere", "", ""),
		&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "s"},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.7", Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}},
		},
		&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: "web-1", UID: "e", Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.2.1"}}}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "n", Labels: map[string]string{corev1.LabelTopologyZone: "z"}}},
	)
}

func TestWatchTells(t *testing.T) {
	for name, setting := range map[string]func(*apiServer){
		"streamed":  func(*apiServer) {},
		"listed":    func(s *apiServer) { s.noStream = true },
		"json":      func(s *apiServer) { s.plainJSON = true },
		"json list": func(s *apiServer) { s.plainJSON, s.noStream = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			s := newAPIServer(t)
			setting(s)
			fill(s)
			d := open(t, s, Config{Cluster: true})
			d.waitFor(t, "the start", func() bool { return d.synced })
			if p := d.pod("uid-own"); p == nil || p.Node != "n1" || len(p.Containers) != 1 || p.Containers[0].ID != "id-own" || p.IPs[0].Addr().String() != "10.0.1.1" {
				t.Errorf("own pod: %+v", p)
			}
			if p := d.pod("uid-other"); p == nil || len(p.Containers) != 0 {
				t.Errorf("pod of another node: %+v", p)
			}
			if d.pod("uid-nowhere") != nil {
				t.Error("a pod without a node was told")
			}
			if c := d.now["ns/web"]; c.Service == nil || c.Service.Ports[0] != (cluster.Port{Protocol: event.TCP, Port: 80, NodePort: 30080}) {
				t.Errorf("service: %+v", c.Service)
			}
			if c := d.now["ns/web-1"]; c.Endpoints == nil || c.Endpoints.Service != "web" || len(c.Endpoints.IPs) != 1 {
				t.Errorf("endpoints: %+v", c.Endpoints)
			}
			if c := d.now["n1"]; c.Node == nil || c.Node.Zone != "z" {
				t.Errorf("node: %+v", c.Node)
			}
			s.put(pod("nowhere", "n1", "10.0.1.2"))
			d.waitFor(t, "the pod that got a node", func() bool { return d.pod("uid-nowhere") != nil })
			s.remove(pod("own", "n1", ""), pod("other", "n2", ""))
			d.waitFor(t, "both deletions", func() bool { return d.gone["uid-own"] && d.gone["uid-other"] })
			if p := d.watch.Problems(); len(p) > 0 {
				t.Error(p)
			}
			if s.asked("orb8-agent/") != s.asked("") || s.asked("(n1)") != s.asked("") {
				t.Error("a request without the agent's name")
			}
		})
	}
}

func TestOwnNodeOnly(t *testing.T) {
	s := newAPIServer(t)
	fill(s)
	d := open(t, s, Config{})
	d.waitFor(t, "the start", func() bool { return d.synced })
	if len(d.now) != 1 || d.pod("uid-own") == nil || s.asked("") != 1 {
		t.Errorf("told %v with %d requests", d.now, s.asked(""))
	}
}

// The own node's labels are told as they change, also where nothing else of the
// cluster is, and the start waits for no right to them.
func TestOwnNodeLabels(t *testing.T) {
	const key = "orb8.io/gpu"
	label := func(d *told) string {
		if n := d.now["n1"].Node; n != nil {
			return n.Labels[key]
		}
		return ""
	}
	labelled := func(value string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "n", Labels: map[string]string{key: value, "other": "x"}}}
	}
	for _, whole := range []bool{false, true} {
		s := newAPIServer(t)
		fill(s)
		s.put(labelled("release"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2", UID: "n2", Labels: map[string]string{key: "x"}}})
		d := open(t, s, Config{Cluster: whole, NodeLabels: []string{key}})
		d.waitFor(t, "the start", func() bool { return d.synced && label(d) == "release" })
		if n := d.now["n2"].Node; whole != (n != nil) || n != nil && n.Labels != nil {
			t.Errorf("whole %v: the other node is %+v", whole, n)
		}
		s.put(labelled("open"))
		d.waitFor(t, "the change", func() bool { return label(d) == "open" })
		if p := d.watch.Problems(); len(p) > 0 {
			t.Error(p)
		}
	}
	s := newAPIServer(t)
	fill(s)
	s.denied["/api/v1/nodes"] = true
	d := open(t, s, Config{NodeLabels: []string{key}})
	d.waitFor(t, "the start without the node", func() bool { return d.synced && d.pod("uid-own") != nil })
	d.waitFor(t, "the problem", func() bool { return d.problem("cannot list this node: ") && d.problem("release no GPUs") })
	if p := d.watch.Problems(); len(p) != 1 {
		t.Error(p)
	}
}

// A watch that breaks is resumed; what happened meanwhile is told, and nothing
// is listed again.
func TestResume(t *testing.T) {
	s := newAPIServer(t)
	fill(s)
	d := open(t, s, Config{Cluster: true})
	d.waitFor(t, "the start", func() bool { return d.synced })
	s.do(func() { s.requests = nil })
	s.cutStreams()
	s.remove(pod("own", "n1", ""))
	s.put(pod("late", "n2", "10.0.2.9"))
	d.waitFor(t, "what happened meanwhile", func() bool { return d.gone["uid-own"] && d.pod("uid-late") != nil })
	if s.asked("list ") > 0 || s.asked("sendInitialEvents") > 0 {
		t.Error("listed again", s.requests)
	}
}

// 410 Gone: all is listed again, and what vanished meanwhile is told, also a
// pod that another of its name has followed.
func TestExpired(t *testing.T) {
	for _, noStream := range []bool{false, true} {
		s := newAPIServer(t)
		s.noStream = noStream
		fill(s)
		d := open(t, s, Config{Cluster: true})
		d.waitFor(t, "the start", func() bool { return d.synced })
		s.do(func() {
			for _, path := range []string{"/api/v1/pods", "/api/v1/services"} {
				s.hangs[path] = true
			}
		})
		s.cutStreams()
		next := pod("other", "n2", "10.0.2.1")
		next.UID = "uid-next"
		s.remove(pod("own", "n1", ""), pod("other", "n2", ""), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "s"}})
		s.put(next)
		s.forget()
		s.do(func() { clear(s.hangs) })
		s.cutStreams()
		d.waitFor(t, "what vanished", func() bool {
			return d.gone["uid-own"] && d.gone["uid-other"] && d.gone["ns/web"] && d.pod("uid-next") != nil
		})
	}
}

func TestDenied(t *testing.T) {
	s := newAPIServer(t)
	fill(s)
	s.denied["/api/v1/nodes"], s.denied["/apis/apps/v1/replicasets"] = true, true
	d := open(t, s, Config{Cluster: true})
	d.waitFor(t, "the pods", func() bool { return d.pod("uid-own") != nil && d.pod("uid-other") != nil })
	const nodesText = "cannot list nodes: the ServiceAccount orb8-system/orb8-agent lacks list and watch on nodes in the whole cluster (apply deploy/): traffic to nodes has no names"
	d.waitFor(t, "both problems", func() bool {
		return d.problem(nodesText) && d.problem("lacks list and watch on replicasets.apps")
	})
	if d.synced {
		t.Error("the start is complete without nodes")
	}
	s.do(func() { s.denied["/api/v1/nodes"] = false })
	d.waitFor(t, "the start without ReplicaSets", func() bool { return d.synced })
	d.waitFor(t, "the end of one problem", func() bool { return !d.problem("nodes") })
	if len(d.watch.Problems()) != 1 {
		t.Error(d.watch.Problems())
	}
}

// Who may list and not watch is told what there is, and asks again seldom; one
// word in the log is enough.
func TestListOnly(t *testing.T) {
	s := newAPIServer(t)
	fill(s)
	s.listOnly["/api/v1/nodes"] = true
	var log logged
	d := open(t, s, Config{Cluster: true, Log: slog.New(slog.NewTextHandler(&log, nil))})
	d.waitFor(t, "the start", func() bool { return d.synced && d.now["n1"].Node != nil })
	d.waitFor(t, "several lists", func() bool { return s.asked("list /api/v1/nodes") >= 3 })
	if p := d.watch.Problems(); len(p) != 1 || !strings.HasPrefix(p[0], "cannot watch nodes: the ServiceAccount orb8-system/orb8-agent lacks watch on nodes ") {
		t.Errorf("the problems are %q", p)
	}
	s.do(func() { s.listOnly["/api/v1/nodes"] = false })
	d.waitFor(t, "the end of the problem", func() bool { return len(d.watch.Problems()) == 0 })
	if text := log.String(); strings.Count(text, "refuses") != 1 || strings.Count(text, "answers again") != 1 {
		t.Error(text)
	}
}

// logged is for several goroutines.
type logged struct {
	mu sync.Mutex
	strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Builder.Write(b)
}

// The library would take a connection that does not come about in time for a
// stream without events.
func TestATimeoutIsAnError(t *testing.T) {
	dial := plainly(func(context.Context, string, string) (net.Conn, error) { return nil, os.ErrDeadlineExceeded })
	_, err := dial(t.Context(), "tcp", "192.0.2.1:443")
	if u := (&url.Error{Err: err}); u.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// The API server is away at the start, and again later: names stay.
func TestAway(t *testing.T) {
	s := newAPIServer(t)
	fill(s)
	away := func(code int) {
		s.do(func() {
			for path := range s.objects {
				s.broken[path] = code
			}
			for _, path := range []string{"/apis/apps/v1/replicasets", "/apis/apps/v1/statefulsets", "/apis/batch/v1/jobs"} {
				s.broken[path] = code
			}
		})
		s.cutStreams()
	}
	away(http.StatusServiceUnavailable)
	d := open(t, s, Config{Cluster: true})
	d.waitFor(t, "the problem", func() bool { return d.problem("cannot watch pods of this node, pods of other nodes") })
	away(0)
	d.waitFor(t, "the start", func() bool { return d.synced && len(d.watch.Problems()) == 0 })
	away(http.StatusServiceUnavailable)
	d.waitFor(t, "the problem", func() bool { return d.problem("what is known stays") })
	s.put(pod("meanwhile", "n1", "10.0.1.7"))
	away(0)
	d.waitFor(t, "the pod that came meanwhile", func() bool { return d.pod("uid-meanwhile") != nil && len(d.watch.Problems()) == 0 })
	if len(d.gone) > 0 || d.pod("uid-own") == nil {
		t.Error("a name was lost", d.gone)
	}
}

func TestUnreachable(t *testing.T) {
	s := newAPIServer(t)
	d := open(t, s, Config{})
	d.waitFor(t, "the start", func() bool { return d.synced })
	s.cutStreams()
	s.CloseClientConnections()
	s.Close()
	d.waitFor(t, "the problem", func() bool { return d.problem("connection refused") || d.problem("closed as soon") })
}

// An API server that takes the question and never answers.
func TestHangs(t *testing.T) {
	s := newAPIServer(t)
	fill(s)
	s.hangs["/api/v1/services"] = true
	d := open(t, s, Config{Cluster: true})
	d.waitFor(t, "the pods", func() bool { return d.pod("uid-own") != nil })
	d.watch.problems.mu.Lock()
	d.watch.problems.started = time.Now().Add(-startLimit)
	d.watch.problems.mu.Unlock()
	d.waitFor(t, "the problem", func() bool { return d.problem("cannot watch services at") })
	if d.synced {
		t.Error("the start is complete without Services")
	}
	s.do(func() { clear(s.hangs) })
	s.cutStreams()
	d.waitFor(t, "the start", func() bool { return d.synced && len(d.watch.Problems()) == 0 })
}

func TestWrongCertificate(t *testing.T) {
	s := newAPIServer(t)
	access := s.access()
	access.CAData = nil
	d := openAt(t, access, Config{Cluster: true})
	d.waitFor(t, "the problem", func() bool { return d.problem("check certificate-authority") })
}

func TestMalformedAreCounted(t *testing.T) {
	s := newAPIServer(t)
	p := pod("strange", "n1", "10.0.1.1")
	p.UID = ""
	s.put(p, pod("good", "n1", "10.0.1.2"))
	d := open(t, s, Config{})
	d.waitFor(t, "the good pod", func() bool { return d.pod("uid-good") != nil })
	d.waitFor(t, "the count", func() bool { return d.problem("no proper object 1 times among pods of this node") })
}

func TestUnknownNode(t *testing.T) {
	s := newAPIServer(t)
	fill(s)
	for _, cfg := range []Config{{Cluster: true}, {NodeLabels: []string{"a"}}} {
		cfg.Node = "typo"
		d := open(t, s, cfg)
		d.waitFor(t, "the problem", func() bool { return d.problem(`the cluster has no node "typo"`) })
	}
}

func TestOpenWithoutRights(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	bad := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(bad, []byte("clusters: 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ node, kubeconfig, want string }{
		{"", "", "the name of this node"},
		{"n1", "", "no service account here, and KUBECONFIG is not set"},
		{"n1", InCluster, "service account"},
		{"n1", "/nowhere", "read kubeconfig /nowhere"},
		{"n1", bad, "check it with `kubectl --kubeconfig " + bad},
	} {
		if _, err := Open(Config{Node: c.node, Kubeconfig: c.kubeconfig}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q: %v", c.node, c.kubeconfig, err)
		}
	}
}
