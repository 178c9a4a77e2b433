// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

// Bounds of what is kept of one pod.
const (
	mostContainers = 256
	mostPodIPs     = 16
	longestID      = 256
)

// readPod leaves out the containers of other nodes' pods: nobody meets them.
func (c *conversion) readPod(obj runtime.Object) *fact {
	o, ok := obj.(*corev1.Pod)
	if !ok || !proper(&o.ObjectMeta) {
		return nil
	}
	p := &cluster.Pod{
		UID:         string(o.UID),
		Namespace:   c.words.one(o.Namespace),
		Name:        o.Name,
		Node:        c.words.one(o.Spec.NodeName),
		HostNetwork: o.Spec.HostNetwork,
		IPs:         podIPs(&o.Status),
		Labels:      c.labels(o.Labels, c.keep),
		Phase:       c.words.one(string(o.Status.Phase)),
		Created:     nanos(&o.CreationTimestamp),
		Networked:   networked(&o.Status),
		Ended:       ended(o),
		Deleting:    deleting(&o.ObjectMeta),
	}
	if p.Node == c.node {
		p.Containers = c.containers(&o.Status)
	}
	if uid := o.Annotations[corev1.MirrorPodAnnotationKey]; len(uid) <= longestUID {
		p.StaticUID = uid
	}
	f := &fact{key: p.UID, owner: c.controller(&o.ObjectMeta), change: change(cluster.KindPod, p.UID)}
	f.change.Pod = p
	p.Workload = event.Workload{Kind: "Pod", Name: p.Name}
	return f
}

func podIPs(s *corev1.PodStatus) []event.IP {
	texts := make([]string, 0, len(s.PodIPs)+1)
	for _, ip := range s.PodIPs {
		texts = append(texts, ip.IP)
	}
	if len(texts) == 0 {
		texts = append(texts, s.PodIP)
	}
	return addresses(texts, mostPodIPs)
}

// containers are all that have had an id, each id once.
func (c *conversion) containers(s *corev1.PodStatus) []cluster.Container {
	var all []cluster.Container
	seen := map[string]bool{}
	add := func(name, id string) {
		if _, bare, ok := strings.Cut(id, "://"); ok {
			id = bare
		}
		if id == "" || len(id) > longestID || len(name) > longestName || seen[id] || len(all) == mostContainers {
			return
		}
		seen[id] = true
		all = append(all, cluster.Container{Name: c.words.one(name), ID: strings.Clone(id)})
	}
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			add(list[i].Name, list[i].ContainerID)
		}
	}
	// Those before a restart only where there is room.
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if t := list[i].LastTerminationState.Terminated; t != nil {
				add(list[i].Name, t.ContainerID)
			}
		}
	}
	return all
}

func networked(s *corev1.PodStatus) int64 {
	for i := range s.Conditions {
		if c := &s.Conditions[i]; c.Type == corev1.PodReadyToStartContainers && c.Status == corev1.ConditionTrue {
			return nanos(&c.LastTransitionTime)
		}
	}
	return nanos(s.StartTime)
}

// ended is when the last container of a pod that is over has ended; an evicted
// pod may have none, but has been told so.
func ended(o *corev1.Pod) (at int64) {
	s := &o.Status
	if s.Phase != corev1.PodSucceeded && s.Phase != corev1.PodFailed {
		return 0
	}
	for _, list := range [][]corev1.ContainerStatus{s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			if t := list[i].State.Terminated; t != nil {
				at = max(at, nanos(&t.FinishedAt))
			}
		}
	}
	if at != 0 {
		return at
	}
	for i := range s.Conditions {
		at = max(at, nanos(&s.Conditions[i].LastTransitionTime))
	}
	return max(at, nanos(&o.CreationTimestamp))
}

// deleting is when the deletion was asked for: Kubernetes tells when the time
// of grace is over.
func deleting(m *metav1.ObjectMeta) int64 {
	at := nanos(m.DeletionTimestamp)
	if g := m.DeletionGracePeriodSeconds; at != 0 && g != nil && *g > 0 && *g < at/int64(time.Second) {
		at -= *g * int64(time.Second)
	}
	return at
}

// nanos is 0 for what is no time that a clock shows in our days.
func nanos(t *metav1.Time) int64 {
	if t == nil || t.Unix() <= 0 || t.Unix() > 1<<33 {
		return 0
	}
	return t.UnixNano()
}
