// SPDX-License-Identifier: Apache-2.0

// Package cluster remembers what a Kubernetes cluster has told: pods, Services
// and nodes, and who had which address at what time. It is fed with changes by
// a Source, one of which watches the API server, and never asks anybody
// itself. The pipeline owns the Map; enrichment reads it.
package cluster

import (
	"context"

	"github.com/orb8/orb8/internal/event"
)

// Source tells of a cluster, as a watch of the API server does. What it tells
// twice, or late, does no harm.
type Source interface {
	// Run tells until the context ends. It outlives an API server that is away.
	Run(ctx context.Context, to *Inbox) error
	// Problems says what cannot be told, and what to try.
	Problems() []string
}

// Kind of an object.
type Kind uint8

// The kinds.
const (
	KindPod Kind = iota + 1
	KindService
	KindEndpoints
	KindNode
)

// Change is an object as it is now, or that it is gone. Objects are immutable
// once told of.
type Change struct {
	Kind Kind
	// Unique in its kind and never changing: a pod's UID, else namespace/name.
	Key string
	// One of the kind, the others nil; all nil: it is gone.
	Pod       *Pod
	Service   *Service
	Endpoints *Endpoints
	Node      *Node
	// It is gone, and Pod is what it was: it came and went before it was heard of.
	Gone bool
	// When it was told, Unix nanoseconds by this machine's clock.
	At int64
}

// Pod is a pod, stripped to what is used. Times are Unix nanoseconds by the
// cluster's clock, in whole seconds; 0 where they are not known.
type Pod struct {
	UID, Namespace, Name, Node string
	// Of a static pod: the UID that its node knows it by, and names its groups
	// after; UID is that of the API server's mirror of it.
	StaticUID string
	// It has its node's network namespace and addresses.
	HostNetwork bool
	IPs         []event.IP
	Workload    event.Workload
	// Those that the agent is told to keep.
	Labels map[string]string
	// As Kubernetes calls it: Pending, Running, Succeeded, Failed.
	Phase string
	// Init and ephemeral containers too, and those before a restart.
	Containers []Container
	// Its network was there; its containers have ended for good; it is to end.
	Created, Networked, Ended, Deleting int64
}

// Container of a pod, by the whole id that its runtime gave it.
type Container struct{ Name, ID string }

// Service is a Service with the addresses that lead to it.
type Service struct {
	Namespace, Name string
	// Cluster, external and load balancer addresses; none where it is headless.
	IPs      []event.IP
	Headless bool
	Ports    []Port
}

// Port of a Service; NodePort is 0 where there is none.
type Port struct {
	Protocol       event.Protocol
	Port, NodePort uint16
}

// Endpoints is one EndpointSlice: addresses that serve a Service, each at
// every port (none: at all ports).
type Endpoints struct {
	// Of the Service.
	Namespace, Service string
	IPs                []event.IP
	Ports              []Port
}

// Node of the cluster.
type Node struct {
	Name, Zone string
	IPs        []event.IP
	// Of the own node, those that the agent is told to keep.
	Labels map[string]string
}
