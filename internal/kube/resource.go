// SPDX-License-Identifier: Apache-2.0

package kube

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/orb8/orb8/internal/cluster"
)

// resource is a part of what the API server has.
type resource struct {
	// In the words of a problem: what is asked for, the right that it takes, and
	// what is missing without it.
	name, plural, missing string
	path, selector        string
	// Zero: only the metadata are asked for.
	kind cluster.Kind
	// Who may not ask for it does without: the start does not wait for it.
	optional bool
	// Objects a page where the server cannot stream them; 0 is all at once, out
	// of the server's memory.
	page int64
	// read gives nil for an object that makes no sense.
	read func(runtime.Object) *fact
}

// owners tells that it holds owners of pods: addresses are known without it.
func (r *resource) owners() bool { return r.kind == 0 }

// fact is what is kept of an object.
type fact struct {
	// Name and version, as the library asks for them.
	metav1.ObjectMeta
	key string
	// Who owns it, of a pod and of the owner of pods.
	owner ref
	// Of one that has an address; the time is not set yet.
	change cluster.Change
}

// GetObjectKind is of no use here.
func (f *fact) GetObjectKind() schema.ObjectKind { return schema.EmptyObjectKind }

// DeepCopyObject gives the fact itself: it does not change.
func (f *fact) DeepCopyObject() runtime.Object { return f }

// The resources.
const (
	ownPods        = "pods of this node"
	otherPods      = "pods of other nodes"
	services       = "services"
	endpointSlices = "endpointslices"
	nodes          = "nodes"
	ownNode        = "this node"
	replicaSets    = "replicasets"
	statefulSets   = "statefulsets"
	jobs           = "jobs"
)

// resources are what is watched. The two watches of pods have none in common: a
// pod gets its node once and keeps it, so that it leaves a watch only when it
// is gone.
func resources(cfg *Config) []*resource {
	c := newConversion(cfg)
	const node = "spec.nodeName"
	all := []*resource{{
		name: ownPods, plural: "pods", missing: "this node's pods have no names",
		kind: cluster.KindPod, read: c.readPod,
		path: "/api/v1/pods", selector: fields.OneTermEqualSelector(node, cfg.Node).String(),
	}}
	if !cfg.Cluster {
		if len(cfg.NodeLabels) > 0 {
			all = append(all, &resource{
				name: ownNode, plural: "nodes", missing: "its labels are not known, and release no GPUs", optional: true,
				kind: cluster.KindNode, read: c.readNode,
				path: "/api/v1/nodes", selector: fields.OneTermEqualSelector("metadata.name", cfg.Node).String(),
			})
		}
		return all
	}
	others := fields.AndSelectors(fields.OneTermNotEqualSelector(node, ""), fields.OneTermNotEqualSelector(node, cfg.Node))
	return append(all, &resource{
		name: otherPods, plural: "pods", missing: "traffic to other nodes' pods has no names",
		kind: cluster.KindPod, read: c.readPod, page: pageSize,
		path: "/api/v1/pods", selector: others.String(),
	}, &resource{
		name: services, plural: "services", missing: "traffic to Services has no names",
		kind: cluster.KindService, read: c.readService, page: pageSize, path: "/api/v1/services",
	}, &resource{
		name: endpointSlices, plural: "endpointslices.discovery.k8s.io", missing: "what serves a Service is not known, nor is the API server",
		kind: cluster.KindEndpoints, read: c.readEndpoints, page: pageSize, path: "/apis/discovery.k8s.io/v1/endpointslices",
	}, &resource{
		name: nodes, plural: "nodes", missing: "traffic to nodes has no names, and nothing has a zone",
		kind: cluster.KindNode, read: c.readNode, page: pageSize, path: "/api/v1/nodes",
	}, &resource{
		name: replicaSets, plural: "replicasets.apps", missing: "a Deployment's pods are told as their ReplicaSet's",
		read: c.readOwner, page: pageSize, path: "/apis/apps/v1/replicasets",
	}, &resource{
		name: statefulSets, plural: "statefulsets.apps", missing: "a LeaderWorkerSet's pods are told as their StatefulSet's",
		read: c.readOwner, page: pageSize, path: "/apis/apps/v1/statefulsets",
	}, &resource{
		name: jobs, plural: "jobs.batch", missing: "a CronJob's pods are told as their Job's",
		read: c.readOwner, page: pageSize, path: "/apis/batch/v1/jobs",
	})
}
