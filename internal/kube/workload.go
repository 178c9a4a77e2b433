// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"slices"
	"sync"
	"time"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

// An owner of an owner of … ends here, also where they own each other.
const mostOwners = 8

// workloads tells of pods with the top owner that is known, and again when a
// higher one becomes known. It keeps the pods as told, and who owns whom.
type workloads struct {
	inbox   *cluster.Inbox
	lookups *lookups
	// The watches of the whole cluster tell of ReplicaSets, StatefulSets, Jobs and
	// pods.
	all bool

	mu     sync.Mutex
	pods   map[string]podEntry
	owners map[string]ref // by the UID of what is owned; zero: it is the top
	// By the UID of an owner that is not known yet: the pods to tell again.
	waiting map[string][]string
}

type podEntry struct {
	pod   *cluster.Pod
	owner ref
	// UID of the owner that is not known yet; empty: the workload is the top.
	waits string
}

func newWorkloads(c *client, p *problems, all bool) *workloads {
	w := &workloads{all: all, pods: map[string]podEntry{}, owners: map[string]ref{}, waiting: map[string][]string{}}
	w.lookups = newLookups(c, p, w.learn)
	return w
}

// put tells of a pod. The lock is held, so that nothing is told of a pod after
// its end: no UID is used twice.
func (w *workloads) put(p *cluster.Pod) {
	c := change(cluster.KindPod, p.UID)
	c.Pod, c.At = p, time.Now().UnixNano()
	w.inbox.Put(c)
}

func (w *workloads) tellPod(f *fact) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e, before := podEntry{pod: f.change.Pod, owner: f.owner}, w.pods[f.key]
	w.settle(&e)
	if before.pod != nil {
		// At its end a pod's network counts as not there yet.
		e.pod.Networked = max(e.pod.Networked, before.pod.Networked)
		if e.waits != "" && before.waits == "" {
			// An owner that was known is gone before its pods.
			e.pod.Workload, e.waits = before.pod.Workload, ""
		}
	}
	w.keep(f.key, &e)
	w.put(e.pod)
	w.wake(f.key)
}

func (w *workloads) gonePod(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unwait(key, w.pods[key].waits)
	delete(w.pods, key)
	c := change(cluster.KindPod, key)
	c.At = time.Now().UnixNano()
	w.inbox.Put(c)
}

func (w *workloads) tellOwner(f *fact) {
	w.mu.Lock()
	defer w.mu.Unlock()
	parent := f.owner
	if parent.top() {
		parent.uid = "" // never asked for
	}
	w.owners[f.key] = parent
	w.wake(f.key)
}

// goneOwner keeps the pods as they were told.
func (w *workloads) goneOwner(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.owners, key)
}

// learn is told by a look-up that ended for good.
func (w *workloads) learn(uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wake(uid)
}

// settle finds the workload, and what to wait for.
func (w *workloads) settle(e *podEntry) {
	workload, missing := w.resolve(e.pod, e.owner)
	e.pod.Workload, e.waits = workload, missing.uid
	if missing.uid == "" {
		e.owner = ref{}
		return
	}
	if !w.all || !missing.watched() {
		w.lookups.want(question{ref: missing, namespace: e.pod.Namespace})
	}
}

// resolve goes up as far as owners are known; missing is the first one that is
// not.
func (w *workloads) resolve(p *cluster.Pod, owner ref) (workload event.Workload, missing ref) {
	workload = event.Workload{Kind: "Pod", Name: p.Name}
	for range mostOwners {
		if owner.kind == "" {
			return workload, ref{}
		}
		workload = owner.workload()
		if owner.top() {
			return workload, ref{}
		}
		parent, known := w.owners[owner.uid]
		if !known {
			parent, known = w.lookups.known(owner.uid)
		}
		if e, is := w.pods[owner.uid]; is && !known {
			if e.waits == "" {
				return e.pod.Workload, ref{}
			}
			parent, known = e.owner, true
		}
		if !known {
			return workload, owner
		}
		owner = parent
	}
	return workload, ref{}
}

func (w *workloads) keep(key string, e *podEntry) {
	before := w.pods[key].waits
	if before != e.waits {
		w.unwait(key, before)
		if e.waits != "" {
			w.waiting[e.waits] = append(w.waiting[e.waits], key)
		}
	}
	w.pods[key] = *e
}

func (w *workloads) unwait(key, owner string) {
	if owner == "" {
		return
	}
	left := slices.DeleteFunc(w.waiting[owner], func(k string) bool { return k == key })
	if len(left) == 0 {
		delete(w.waiting, owner)
		return
	}
	w.waiting[owner] = left
}

// wake settles the pods that waited for an owner, and tells of them again where
// they have a better workload now.
func (w *workloads) wake(owner string) {
	for again := []string{owner}; len(again) > 0; again = again[1:] {
		keys := w.waiting[again[0]]
		delete(w.waiting, again[0])
		for _, key := range keys {
			e := w.pods[key]
			before, p := e.pod.Workload, *e.pod
			e.pod = &p
			w.pods[key] = podEntry{pod: e.pod, owner: e.owner}
			w.settle(&e)
			w.keep(key, &e)
			if p.Workload != before {
				w.put(&p)
				again = append(again, key) // it may own pods itself
			}
		}
	}
}
