// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
	"github.com/orb8/orb8/internal/probe/capture"
	"github.com/orb8/orb8/internal/wire"
)

// targets finds the interfaces that a filter of packets means: those of the pods
// that it names, or all that are tapped.
type targets struct {
	node *node
	// Whose interfaces.
	pods filter.Pods
	// Senders and receivers, of include and of exclude.
	from, to, notFrom, notTo podSet
	told                     map[string]bool
	begun                    bool // something was found, or nothing is there
	// Whose a namespace is; nobody's where it is the node's own, or unknown.
	owner func(netns uint32) *event.Identity
}

// place is an interface to capture at.
type place struct {
	target capture.Target
	at     wire.Place
	owner  *event.Identity
}

// name is how people call it.
func (p *place) name() string {
	switch {
	case p.owner.Pod != "":
		return p.owner.Namespace + "/" + p.owner.Pod + " " + p.at.Name
	case p.at.Namespace != "":
		return p.at.Namespace + " " + p.at.Name
	}
	return p.at.Name
}

// podSet is a wish about the pods at one end.
type podSet struct {
	set bool
	// One field is enough.
	any  bool
	pods filter.Pods
}

func newPodSet(e filter.End, exclude bool) podSet {
	s := podSet{set: len(e.Namespaces)+len(e.Pods)+len(e.Workloads)+len(e.Labels)+len(e.Nodes) > 0, any: exclude}
	if exclude {
		s.pods.Exclude = e
	} else {
		s.pods.Include = e
	}
	return s
}

func (s *podSet) has(id *event.Identity) bool { return s.pods.Match(id) != s.any }

// remote are the addresses of those that are meant. A node's is not a pod's.
func (s *podSet) remote(known []*cluster.Pod) (ips []event.IP) {
	if !s.set {
		return nil
	}
	for _, pod := range known {
		if !pod.HostNetwork && s.has(identityOf(pod)) {
			ips = append(ips, pod.IPs...)
		}
	}
	return ips
}

// at an interface of id: whether that is one of them, and where the others are.
func (s *podSet) at(id *event.Identity, remote []event.IP) capture.Pods {
	return capture.Pods{Set: s.set, Local: s.set && s.has(id), Remote: remote}
}

func identityOf(p *cluster.Pod) *event.Identity {
	return &event.Identity{
		Class: event.ClassPod, Namespace: p.Namespace, Pod: p.Name, PodUID: p.UID,
		Workload: p.Workload, Labels: p.Labels, Node: p.Node,
	}
}

// newTargets refuses what cannot be told of packets.
func (n *node) newTargets(f *filter.Filter) (*targets, error) {
	in, ex := &f.Include, &f.Exclude
	t := &targets{
		node: n,
		pods: filter.Pods{
			Include: filter.End{Namespaces: in.Namespaces, Pods: in.Pods, Workloads: in.Workloads, Labels: in.Labels, Nodes: in.Nodes},
			Exclude: filter.End{Namespaces: ex.Namespaces, Pods: ex.Pods, Workloads: ex.Workloads, Labels: ex.Labels, Nodes: ex.Nodes},
		},
		from: newPodSet(in.From, false), to: newPodSet(in.To, false),
		notFrom: newPodSet(ex.From, true), notTo: newPodSet(ex.To, true),
		told: map[string]bool{}, owner: n.owner,
	}
	if n.kube == nil && t.named() {
		return nil, status.Error(codes.InvalidArgument, "this agent knows no pods, being told of none by Kubernetes: capture by --ip and --port")
	}
	return t, nil
}

// named: the filter is about pods, and not only about addresses and ports.
func (t *targets) named() bool {
	return t.chosen() || ofPods(&t.pods.Exclude) || t.notFrom.set || t.notTo.set
}

// chosen: certain pods are asked for.
func (t *targets) chosen() bool { return ofPods(&t.pods.Include) || t.from.set || t.to.set }

func ofPods(e *filter.End) bool {
	return len(e.Namespaces)+len(e.Pods)+len(e.Workloads)+len(e.Labels) > 0
}

// find gives the interfaces, and what is to be known for the first time.
func (t *targets) find(ctx context.Context) (found map[event.Iface]place, notes []string, err error) {
	visited := t.node.visit(ctx, false, func() { found, notes, err = t.look() })
	if visited != nil {
		return nil, nil, status.Error(codes.Unavailable, visited.Error())
	}
	return found, notes, err
}

// look is find for the owner of what is known.
func (t *targets) look() (map[event.Iface]place, []string, error) {
	var pods []*cluster.Pod
	if t.named() {
		t.node.kube.names.Pods(func(p *cluster.Pod, gone int64) bool {
			if gone == 0 {
				pods = append(pods, p)
			}
			return true
		})
	}
	return t.choose(t.node.tap.Interfaces(), pods)
}

// choose gives those of the interfaces that are wanted. A filter that means only
// pods without interfaces of their own is refused.
func (t *targets) choose(interfaces []event.Interface, pods []*cluster.Pod) (found map[event.Iface]place, notes []string, err error) {
	found = map[event.Iface]place{}
	from, to, notFrom, notTo := t.from.remote(pods), t.to.remote(pods), t.notFrom.remote(pods), t.notTo.remote(pods)
	for _, i := range interfaces {
		id := t.owner(i.Iface.Netns)
		if i.How == "" || i.Left || !t.wants(id) {
			continue
		}
		found[i.Iface] = place{
			at:    wire.Place{Name: i.Name, Namespace: i.Namespace},
			owner: id,
			target: capture.Target{
				Iface:   i.Iface,
				Include: capture.Ends{From: t.from.at(id, from), To: t.to.at(id, to)},
				Exclude: capture.Ends{From: t.notFrom.at(id, notFrom), To: t.notTo.at(id, notTo)},
			},
		}
	}
	if t.chosen() {
		shared := sharing(pods, func(id *event.Identity) bool { return id.Node == t.node.cfg.Node && t.wants(id) })
		if shared != "" && len(found) == 0 && !t.begun {
			return nil, nil, status.Error(codes.InvalidArgument, shared+": capture by --port and --ip, without the pod")
		}
		notes = t.note(notes, "left out", shared)
	}
	kept := sharing(pods, func(id *event.Identity) bool { return id.Node == t.node.cfg.Node && t.unwanted(id) })
	t.begun = true
	return found, t.note(notes, "not left out", kept), nil
}

// note is told once.
func (t *targets) note(notes []string, what, names string) []string {
	if names == "" || t.told[what+names] {
		return notes
	}
	t.told[what+names] = true
	return append(notes, what+": "+names)
}

// owner is whose a namespace is, for captures.
func (n *node) owner(netns uint32) *event.Identity {
	id := &event.Identity{Class: event.ClassHost, Node: n.cfg.Node}
	if n.kube == nil || netns == n.tap.Own() {
		return id
	}
	uid, ok := n.kube.boxes.Pod(netns)
	if !ok {
		return id
	}
	if pod := n.kube.names.Identity(uid); pod != nil {
		return pod
	}
	return &event.Identity{Class: event.ClassPod, PodUID: uid, Node: n.cfg.Node}
}

// wants tells whether to capture at the interfaces of id. What a pod sends, or
// receives, is captured at that pod.
func (t *targets) wants(id *event.Identity) bool {
	if !t.pods.Match(id) {
		return false
	}
	if !t.from.set && !t.to.set {
		return true
	}
	return t.from.set && t.from.has(id) || t.to.set && t.to.has(id)
}

// unwanted tells whether what is left out by name is this pod's.
func (t *targets) unwanted(id *event.Identity) bool {
	return !(&filter.Pods{Exclude: t.pods.Exclude}).Match(id) && (&filter.Pods{Include: t.pods.Include}).Match(id)
}

// sharing names the pods that have no interface of their own.
func sharing(pods []*cluster.Pod, asked func(*event.Identity) bool) string {
	var names []string
	for _, p := range pods {
		if p.HostNetwork && asked(identityOf(p)) {
			names = append(names, p.Namespace+"/"+p.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	const most = 3
	slices.Sort(names)
	list := strings.Join(names[:min(most, len(names))], ", ")
	if more := len(names) - most; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list + ": on the node's network, where the packets of one pod cannot be told from those of others"
}
