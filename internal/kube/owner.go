// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/orb8/orb8/internal/event"
)

// ref names an owner; zero is none.
type ref struct{ api, kind, name, uid string }

func (r *ref) workload() event.Workload { return event.Workload{Kind: r.kind, Name: r.name} }

func (r *ref) group() string {
	group, _, ok := strings.Cut(r.api, "/")
	if !ok {
		return ""
	}
	return group
}

// is compares without the version.
func (r *ref) is(group, kind string) bool { return r.kind == kind && r.group() == group }

// top tells of what people make: its owner, if it has one, is not asked for, or
// each one in the cluster would cost every agent a request.
func (r *ref) top() bool {
	switch r.group() {
	case "apps":
		return r.kind == "Deployment" || r.kind == "DaemonSet"
	case "batch":
		return r.kind == "CronJob"
	case "":
		return r.kind == "ReplicationController"
	}
	return false
}

// watched tells that the watch of the cluster tells of it by itself.
func (r *ref) watched() bool {
	return r.is("apps", "ReplicaSet") || r.is("apps", "StatefulSet") || r.is("batch", "Job") || r.is("", "Pod")
}

// controller is the owner that made an object, or the only owner there is. A
// node that owns its static pods has not made them.
func (c *conversion) controller(m metav1.Object) ref {
	owners := m.GetOwnerReferences()
	var found *metav1.OwnerReference
	for i := range owners {
		if owners[i].Controller != nil && *owners[i].Controller {
			found = &owners[i]
			break
		}
	}
	if found == nil && len(owners) == 1 {
		found = &owners[0]
	}
	if found == nil || !sensible(found) {
		return ref{}
	}
	r := ref{api: c.words.one(found.APIVersion), kind: c.words.one(found.Kind), name: c.words.one(found.Name), uid: c.words.one(string(found.UID))}
	if r.is("", "Node") {
		return ref{}
	}
	return r
}

func sensible(o *metav1.OwnerReference) bool {
	for _, s := range []string{o.APIVersion, o.Kind, o.Name, string(o.UID)} {
		if s == "" || len(s) > longestName {
			return false
		}
	}
	// It becomes a part of a request's path.
	if _, err := schema.ParseGroupVersion(o.APIVersion); err != nil {
		return false
	}
	return !strings.ContainsAny(o.Kind+o.Name, "/?#%") && !strings.Contains(o.APIVersion, "..") && o.Name != "." && o.Name != ".."
}
