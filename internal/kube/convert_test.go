// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

func read[T any](t testing.TB, text string) *T {
	t.Helper()
	obj := new(T)
	if err := json.Unmarshal([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

func at(text string) int64 {
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return when.UnixNano()
}

const noon, later, latest = "2026-01-01T12:00:00Z", "2026-01-01T12:00:30Z", "2026-01-01T12:01:00Z"

func TestReadPod(t *testing.T) {
	const text = `{"metadata":{"uid":"u","namespace":"ns","name":"p","creationTimestamp":"` + noon + `",
			"deletionTimestamp":"` + latest + `","deletionGracePeriodSeconds":30,
			"annotations":{"kubernetes.io/config.mirror":"static"},"labels":{"app":"a","team":"b","hash":"c"},
			"ownerReferences":[{"apiVersion":"v1","kind":"Other","name":"o","uid":"x"},{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"rs","uid":"r","controller":true}]},
		"spec":{"nodeName":"n1","hostNetwork":true},
		"status":{"phase":"Failed","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"},{"ip":"10.0.0.1"},{"ip":"garbage"},{"ip":"0.0.0.0"},{"ip":"fe80::1%eth0"}],
			"startTime":"` + noon + `","conditions":[{"type":"PodReadyToStartContainers","status":"True","lastTransitionTime":"` + later + `"}],
			"containerStatuses":[{"name":"main","containerID":"containerd://now","state":{"terminated":{"finishedAt":"` + later + `"}},"lastState":{"terminated":{"containerID":"containerd://before"}}}],
			"initContainerStatuses":[{"name":"init","containerID":"cri-o://init","state":{"terminated":{"finishedAt":"` + noon + `"}}}],
			"ephemeralContainerStatuses":[{"name":"debug","containerID":"docker://debug"},{"name":"waits","containerID":""}]}}`
	f := newConversion(&Config{Node: "n1", Labels: []string{"app", "team", "none"}}).readPod(read[corev1.Pod](t, text))
	want := &cluster.Pod{
		UID: "u", Namespace: "ns", Name: "p", Node: "n1", StaticUID: "static", HostNetwork: true,
		IPs:      addresses([]string{"10.0.0.1", "fd00::1"}, 9),
		Workload: event.Workload{Kind: "Pod", Name: "p"},
		Labels:   map[string]string{"app": "a", "team": "b"}, Phase: "Failed",
		Containers: []cluster.Container{{Name: "main", ID: "now"}, {Name: "init", ID: "init"}, {Name: "debug", ID: "debug"}, {Name: "main", ID: "before"}},
		Created:    at(noon), Networked: at(later), Ended: at(later), Deleting: at(later),
	}
	if d := cmp.Diff(want, f.change.Pod); d != "" {
		t.Error(d)
	}
	if f.key != "u" || f.change.Key != "u" || f.owner != (ref{"apps/v1", "ReplicaSet", "rs", "r"}) || len(want.IPs) != 2 {
		t.Errorf("%+v", f)
	}
}

func TestPodTimes(t *testing.T) {
	for name, c := range map[string]struct {
		text                       string
		networked, ended, deleting int64
	}{
		"nothing":        {`{}`, 0, 0, 0},
		"runs":           {`{"status":{"phase":"Running","startTime":"` + noon + `","containerStatuses":[{"state":{"terminated":{"finishedAt":"` + noon + `"}}}]}}`, at(noon), 0, 0},
		"not networked":  {`{"status":{"startTime":"` + noon + `","conditions":[{"type":"PodReadyToStartContainers","status":"False","lastTransitionTime":"` + later + `"}]}}`, at(noon), 0, 0},
		"evicted":        {`{"status":{"phase":"Failed","conditions":[{"type":"Ready","status":"False","lastTransitionTime":"` + later + `"}]}}`, 0, at(later), 0},
		"failed at once": {`{"metadata":{"creationTimestamp":"` + noon + `"},"status":{"phase":"Failed"}}`, 0, at(noon), 0},
		"no grace":       {`{"metadata":{"deletionTimestamp":"` + noon + `"}}`, 0, 0, at(noon)},
		"absurd grace":   {`{"metadata":{"deletionTimestamp":"` + noon + `","deletionGracePeriodSeconds":9223372036854775807}}`, 0, 0, at(noon)},
		"negative grace": {`{"metadata":{"deletionTimestamp":"` + noon + `","deletionGracePeriodSeconds":-5}}`, 0, 0, at(noon)},
		"before 1970":    {`{"metadata":{"deletionTimestamp":"1960-01-01T00:00:00Z"},"status":{"startTime":"0001-01-01T00:00:00Z"}}`, 0, 0, 0},
		"far away":       {`{"status":{"startTime":"9999-01-01T00:00:00Z"}}`, 0, 0, 0},
	} {
		p := read[corev1.Pod](t, c.text)
		p.UID, p.Name = "u", "p"
		f := newConversion(&Config{}).readPod(p)
		if p := f.change.Pod; p.Networked != c.networked || p.Ended != c.ended || p.Deleting != c.deleting {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestMalformedPods(t *testing.T) {
	c := newConversion(&Config{Labels: []string{"*"}})
	for name, p := range map[string]*corev1.Pod{
		"empty":       {},
		"no UID":      {ObjectMeta: metav1.ObjectMeta{Name: "p"}},
		"no name":     {ObjectMeta: metav1.ObjectMeta{UID: "u"}},
		"long name":   {ObjectMeta: metav1.ObjectMeta{UID: "u", Name: strings.Repeat("x", 5000)}},
		"long UID":    {ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p", Namespace: strings.Repeat("x", 5000)}},
		"no metadata": nil,
	} {
		if p != nil && c.readPod(p) != nil {
			t.Error(name, "was taken")
		}
	}
	if c.readPod(&corev1.Node{}) != nil || c.readNode(&corev1.Pod{}) != nil || c.readService(&corev1.Pod{}) != nil || c.readEndpoints(&corev1.Pod{}) != nil {
		t.Error("an object of another kind was taken")
	}
	big := pod("big", "", "10.0.0.1")
	big.Labels = map[string]string{"long": strings.Repeat("x", 100_000)}
	for i := range 10_000 {
		big.Labels[fmt.Sprintf("label-%05d", i)] = "v"
		big.Status.ContainerStatuses = append(big.Status.ContainerStatuses, corev1.ContainerStatus{Name: "c", ContainerID: fmt.Sprint("containerd://", i)})
		big.Status.PodIPs = append(big.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("10.1.%d.%d", i/250, i%250)})
		big.OwnerReferences = append(big.OwnerReferences, metav1.OwnerReference{})
	}
	big.Status.ContainerStatuses = append(big.Status.ContainerStatuses, corev1.ContainerStatus{ContainerID: strings.Repeat("x", 5000)})
	p := c.readPod(big).change.Pod
	if len(p.Labels) != mostLabels || len(p.Containers) != mostContainers || len(p.IPs) != mostPodIPs || p.Labels["long"] != "" {
		t.Errorf("%d labels, %d containers, %d addresses", len(p.Labels), len(p.Containers), len(p.IPs))
	}
}

// What a thousand pods have in common is kept once.
func TestLabelsAreShared(t *testing.T) {
	c := newConversion(&Config{Labels: []string{"*"}})
	a, b := c.labels(map[string]string{"a": "1", "b": "2"}, c.keep), c.labels(map[string]string{"b": "2", "a": "1"}, c.keep)
	if fmt.Sprintf("%p", a) != fmt.Sprintf("%p", b) || a["b"] != "2" {
		t.Error("not shared")
	}
	if c.labels(map[string]string{"a": "1\x00b"}, c.keep) == nil || c.labels(a, nil) != nil {
		t.Error("labels")
	}
}

func TestReadService(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want cluster.Service
	}{
		"dual stack": {
			`{"spec":{"clusterIP":"10.96.0.1","clusterIPs":["10.96.0.1","fd00::1"],"externalIPs":["192.0.2.1"],"ports":[{"port":53,"protocol":"UDP","nodePort":30053},{"port":0},{"port":70000},{"port":7,"protocol":"XYZ"}]},"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.1"},{"hostname":"lb.example"}]}}}`,
			cluster.Service{
				IPs:   addresses([]string{"10.96.0.1", "fd00::1", "192.0.2.1", "198.51.100.1"}, 9),
				Ports: []cluster.Port{{Protocol: event.UDP, Port: 53, NodePort: 30053}},
			},
		},
		"headless": {`{"spec":{"clusterIP":"None","clusterIPs":["None"],"ports":[{"port":80}]}}`, cluster.Service{Headless: true, IPs: []event.IP{}, Ports: []cluster.Port{{Protocol: event.TCP, Port: 80}}}},
		"external": {`{"spec":{"type":"ExternalName","externalName":"x.example"}}`, cluster.Service{IPs: []event.IP{}}},
	} {
		s := read[corev1.Service](t, c.text)
		s.UID, s.Name, s.Namespace = "u", "s", "ns"
		c.want.Name, c.want.Namespace = "s", "ns"
		f := newConversion(&Config{}).readService(s)
		if d := cmp.Diff(&c.want, f.change.Service); d != "" || f.key != "ns/s" {
			t.Error(name, f.key, d)
		}
	}
}

func TestReadEndpointsAndNode(t *testing.T) {
	c := newConversion(&Config{})
	e := c.readEndpoints(read[discoveryv1.EndpointSlice](t, `{"metadata":{"uid":"u","namespace":"default","name":"kubernetes","labels":{"kubernetes.io/service-name":"kubernetes"}},
		"addressType":"IPv4","endpoints":[{"addresses":["172.30.0.1"],"conditions":{"ready":false}},{"addresses":["not.an.address"]}],"ports":[{"port":6443,"protocol":"TCP"},{},{"port":53,"protocol":"UDP"}]}`))
	want := &cluster.Endpoints{
		Namespace: "default", Service: "kubernetes", IPs: addresses([]string{"172.30.0.1"}, 1),
		Ports: []cluster.Port{{Protocol: event.TCP, Port: 6443}, {Protocol: event.UDP, Port: 53}},
	}
	if d := cmp.Diff(want, e.change.Endpoints); d != "" || e.key != "default/kubernetes" {
		t.Error(e.key, d)
	}
	n := c.readNode(read[corev1.Node](t, `{"metadata":{"uid":"u","name":"n1","labels":{"failure-domain.beta.kubernetes.io/zone":"old"}},
		"status":{"addresses":[{"type":"InternalIP","address":"172.30.0.11"},{"type":"Hostname","address":"n1"},{"type":"ExternalIP","address":"192.0.2.7"},{"type":"ExternalDNS","address":"10.9.9.9"}]}}`))
	node := &cluster.Node{Name: "n1", Zone: "old", IPs: addresses([]string{"172.30.0.11", "192.0.2.7"}, 9)}
	if d := cmp.Diff(node, n.change.Node); d != "" {
		t.Error(d)
	}
	c = newConversion(&Config{Node: "n1", Labels: []string{"b"}, NodeLabels: []string{"a", "none"}})
	for name, want := range map[string]map[string]string{"n1": {"a": "1"}, "n2": nil} {
		n = c.readNode(read[corev1.Node](t, `{"metadata":{"uid":"u","name":"`+name+`","labels":{"a":"1","b":"2"}}}`))
		if !maps.Equal(n.change.Node.Labels, want) {
			t.Errorf("labels of %s are %v, want %v", name, n.change.Node.Labels, want)
		}
	}
}

func FuzzReadPod(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"metadata":{"uid":"u","name":"p"}}`,
		`{"metadata":{"uid":"u","name":"p","labels":{"a":"b"},"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"x"}]},"spec":{"nodeName":"n1"},"status":{"phase":"Failed","podIPs":[{"ip":"::1"}],"containerStatuses":[{"containerID":"://","lastState":{"terminated":{}}}]}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var p corev1.Pod
		if json.Unmarshal(text, &p) != nil {
			return
		}
		fact := newConversion(&Config{Node: "n1", Labels: []string{"*"}}).readPod(&p)
		if fact == nil {
			return
		}
		o := fact.change.Pod
		if o.UID == "" || o.Name == "" || len(o.Labels) > mostLabels || len(o.Containers) > mostContainers || len(o.IPs) > mostPodIPs {
			t.Errorf("%+v", o)
		}
		if o.Created < 0 || o.Networked < 0 || o.Ended < 0 || o.Deleting < 0 {
			t.Errorf("a negative time: %+v", o)
		}
		if r := fact.owner; r.kind != "" {
			q := question{ref: r, namespace: "ns"}
			if path := q.path(place{plural: "xs"}); strings.ContainsAny(path, "?#%") || strings.Contains(path, "..") && !strings.Contains(r.name, "..") {
				t.Errorf("an unsafe path: %s", path)
			}
		}
	})
}

func BenchmarkReadPod(b *testing.B) {
	c := newConversion(&Config{Node: "n1", Labels: []string{"app"}})
	p := pod("p", "n1", "10.0.0.1")
	p.Labels = map[string]string{"app": "a", "pod-template-hash": "x"}
	b.ReportAllocs()
	for b.Loop() {
		c.readPod(p)
	}
}
