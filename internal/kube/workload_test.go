// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// owned gives an object an owner that made it: "batch/v1 Job a".
func owned[T metav1.Object](obj T, by string) T {
	if by == "" {
		return obj
	}
	f, yes := strings.Fields(by), true
	uid := "owner-" + f[2]
	if f[1] == "Pod" {
		uid = "uid-" + f[2]
	}
	obj.SetOwnerReferences([]metav1.OwnerReference{{
		APIVersion: f[0], Kind: f[1], Name: f[2], UID: types.UID(uid), Controller: &yes,
	}})
	return obj
}

// owner is an object of which only metadata are asked for, by where it is kept:
// "batch/v1/jobs".
func owner(at, name, by string) *metav1.PartialObjectMetadata {
	return owned(&metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: name, UID: types.UID("owner-" + name), Annotations: map[string]string{"at": at},
	}}, by)
}

func TestWorkloads(t *testing.T) {
	s, wants := newAPIServer(t), map[string]string{}
	for _, c := range []struct{ name, by, want string }{
		{"bare", "", "Pod/bare"},
		{"static", "v1 Node n1", "Pod/static"},
		{"deployed", "apps/v1 ReplicaSet rs", "Deployment/dep"},
		{"rolled", "apps/v1 ReplicaSet ro", "Rollout/rollout"},
		{"lonely", "apps/v1 ReplicaSet lone", "ReplicaSet/lone"},
		{"daemon", "apps/v1 DaemonSet ds", "DaemonSet/ds"},
		{"stateful", "apps/v1 StatefulSet db", "StatefulSet/db"},
		{"leader", "apps/v1 StatefulSet lws-0", "LeaderWorkerSet/lws"},
		{"once", "batch/v1 Job once", "Job/once"},
		{"timed", "batch/v1 Job timed-1", "CronJob/timed"},
		{"trained", "batch/v1 Job set-0", "TrainJob/train"},
		{"torch", "kubeflow.org/v1 PyTorchJob torch", "PyTorchJob/torch"},
		{"ray", "ray.io/v1 RayCluster ray-x", "RayJob/ray"},
		{"wide", "example.com/v1 Fleet fleet", "Fleet/fleet"},
		{"odd", "example.com/v1 Mouse jerry", "Cat/tom"},
		{"unheard", "nobody.io/v1 Ghost casper", "Ghost/casper"},
		{"orphan", "kubeflow.org/v1 PyTorchJob past", "PyTorchJob/past"},
		{"renewed", "kubeflow.org/v1 PyTorchJob again", "PyTorchJob/again"},
		{"executor", "v1 Pod timed", "CronJob/timed"},
		{"circle", "example.com/v1 Mouse ring", "Mouse/ring"},
		{"itself", "v1 Pod itself", "Pod/itself"},
		{"hostile", "a/../../v1 x/y z", "Pod/hostile"},
	} {
		s.put(owned(pod(c.name, "n1", "10.0.1.1"), c.by))
		wants[c.name] = c.want
	}
	again := owner("kubeflow.org/v1/pytorchjobs", "again", "example.com/v1 Cat other")
	again.UID = "uid-of-another"
	s.put(
		owner("apps/v1/replicasets", "rs", "apps/v1 Deployment dep"), owner("apps/v1/replicasets", "lone", ""),
		owner("apps/v1/replicasets", "ro", "argoproj.io/v1alpha1 Rollout rollout"), owner("argoproj.io/v1alpha1/rollouts", "rollout", ""),
		owner("apps/v1/statefulsets", "db", ""), owner("apps/v1/statefulsets", "lws-0", "leaderworkerset.x-k8s.io/v1 LeaderWorkerSet lws"),
		owner("leaderworkerset.x-k8s.io/v1/leaderworkersets", "lws", ""),
		owner("batch/v1/jobs", "once", ""), owner("batch/v1/jobs", "timed-1", "batch/v1 CronJob timed"),
		owner("batch/v1/jobs", "set-0", "jobset.x-k8s.io/v1alpha2 JobSet set"),
		owner("jobset.x-k8s.io/v1alpha2/jobsets", "set", "trainer.kubeflow.org/v1alpha1 TrainJob train"),
		owner("trainer.kubeflow.org/v1alpha1/trainjobs", "train", ""),
		owner("kubeflow.org/v1/pytorchjobs", "torch", ""), again,
		owner("ray.io/v1/rayclusters", "ray-x", "ray.io/v1 RayJob ray"), owner("ray.io/v1/rayjobs", "ray", ""),
		owner("example.com/v1/mice", "jerry", "example.com/v1 Cat tom"), owner("example.com/v1/cats", "tom", ""),
		owner("example.com/v1/mice", "ring", "example.com/v1 Mouse ring"),
	)
	fleet := owner("example.com/v1/fleets", "fleet", "")
	fleet.Namespace = ""
	s.put(fleet, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "n"}})
	s.kinds["/apis/example.com/v1"] = `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"example.com/v1","resources":[
		{"name":"mice/status","kind":"Mouse","namespaced":true},{"name":"mice","kind":"Mouse","namespaced":true},{"name":"fleets","kind":"Fleet","namespaced":false}]}`
	d := open(t, s, Config{Cluster: true})
	d.watch.workloads.lookups.limit.SetLimit(1000)
	for name, want := range wants {
		d.waitWorkload(t, "uid-"+name, want)
	}
	// Nothing is asked twice, and nothing after the start.
	d.waitFor(t, "the last look-up", func() bool {
		l := d.watch.workloads.lookups
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.asked) == 0
	})
	before := s.asked("list ")
	s.put(owned(pod("torch", "n1", "10.0.1.9"), "kubeflow.org/v1 PyTorchJob torch"), owned(pod("torch2", "n1", "10.0.1.8"), "kubeflow.org/v1 PyTorchJob torch"))
	d.waitWorkload(t, "uid-torch2", "PyTorchJob/torch")
	if n := s.asked("list "); n != before {
		t.Errorf("%d look-ups, then %d", before, n)
	}
	if p := d.watch.Problems(); len(p) > 0 {
		t.Error(p)
	}
}

// The owner comes late, and goes early.
func TestOwnerLate(t *testing.T) {
	s := newAPIServer(t)
	s.put(owned(pod("a", "n1", "10.0.1.1"), "apps/v1 ReplicaSet rs"))
	d := open(t, s, Config{Cluster: true})
	d.waitWorkload(t, "uid-a", "ReplicaSet/rs")
	rs := owner("apps/v1/replicasets", "rs", "apps/v1 Deployment dep")
	s.put(rs)
	d.waitWorkload(t, "uid-a", "Deployment/dep")
	s.remove(rs)
	ended := owned(pod("a", "n1", "10.0.1.2"), "apps/v1 ReplicaSet rs")
	s.put(ended)
	d.waitFor(t, "the change", func() bool { return d.pod("uid-a").IPs[0].Addr().String() == "10.0.1.2" })
	if w := d.pod("uid-a").Workload; w.Kind != "Deployment" {
		t.Errorf("the workload went down to %v", w)
	}
	s.remove(ended)
	d.waitFor(t, "the end", func() bool { return d.gone["uid-a"] })
	s.put(rs) // tells nothing of a pod that is gone
	s.put(pod("b", "n1", "10.0.1.3"))
	d.waitFor(t, "another pod", func() bool { return d.pod("uid-b") != nil })
	if d.pod("uid-a") != nil {
		t.Error("a pod that is gone was told again")
	}
	w := d.watch.workloads
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting) > 0 || len(w.pods) != 1 {
		t.Errorf("kept %v, %d pods", w.waiting, len(w.pods))
	}
}

// Without the address map there are no watches of owners: all are looked up.
func TestOwnersByLookup(t *testing.T) {
	s := newAPIServer(t)
	s.put(owned(pod("a", "n1", "10.0.1.1"), "apps/v1 ReplicaSet rs"), owner("apps/v1/replicasets", "rs", "apps/v1 Deployment dep"))
	d := open(t, s, Config{})
	d.waitWorkload(t, "uid-a", "Deployment/dep")
}

func TestOwnerDenied(t *testing.T) {
	s := newAPIServer(t)
	s.denied["/apis/jobset.x-k8s.io/v1alpha2/namespaces/ns/jobsets/set"] = true
	for i := range 5 {
		s.put(owned(pod(fmt.Sprint("a", i), "n1", "10.0.1.1"), "jobset.x-k8s.io/v1alpha2 JobSet set"))
	}
	d := open(t, s, Config{Cluster: true})
	d.waitWorkload(t, "uid-a0", "JobSet/set")
	d.waitFor(t, "the problem", func() bool {
		return d.problem("cannot get jobsets.jobset.x-k8s.io: the ServiceAccount orb8-system/orb8-agent lacks get on jobsets.jobset.x-k8s.io")
	})
	if n := s.asked("jobsets"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A kind whose answers fail is asked again, and holds up no other.
func TestOwnerBroken(t *testing.T) {
	s := newAPIServer(t)
	const path = "/apis/kubeflow.org/v1/namespaces/ns/pytorchjobs/bad"
	s.broken[path] = http.StatusInternalServerError
	s.put(owned(pod("bad", "n1", "10.0.1.1"), "kubeflow.org/v1 PyTorchJob bad"), owner("kubeflow.org/v1/pytorchjobs", "bad", "batch/v1 CronJob top"))
	d := open(t, s, Config{Cluster: true})
	d.watch.workloads.lookups.limit.SetLimit(1000)
	d.waitFor(t, "the first look-up", func() bool { return s.asked(path) > 0 })
	s.put(owned(pod("good", "n1", "10.0.1.1"), "kubeflow.org/v1 PyTorchJob good"), owner("kubeflow.org/v1/pytorchjobs", "good", "batch/v1 CronJob top"))
	d.waitWorkload(t, "uid-good", "CronJob/top")
	d.waitWorkload(t, "uid-bad", "PyTorchJob/bad")
	s.do(func() { clear(s.broken) })
	d.waitWorkload(t, "uid-bad", "CronJob/top")
}

func TestLookupsAreBounded(t *testing.T) {
	p := newProblems("", slog.New(slog.DiscardHandler))
	l := newLookups(nil, p, func(string) {})
	for i := range mostQuestions + 5 {
		l.want(question{ref: ref{"v1", "X", "x", fmt.Sprint(i)}, namespace: "ns"})
		l.want(question{ref: ref{"v1", "X", "x", "0"}, namespace: "ns"})
	}
	if len(l.queue) != mostQuestions || p.missed != 5 {
		t.Errorf("%d questions, %d missed", len(l.queue), p.missed)
	}
	for i := range mostAnswers + 5 {
		l.answer(fmt.Sprint(i), ref{})
	}
	if len(l.answers) != mostAnswers {
		t.Errorf("%d answers", len(l.answers))
	}
	if now := time.Now(); l.limit.TokensAt(now) != lookupBurst {
		t.Error("the limit is not what it says")
	}
}
