// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

// Bounds of what is kept of one object. A slice of endpoints has 1,000 of them
// at most, by its definition.
const (
	longestName  = 253
	longestUID   = 128
	longestValue = 256
	mostLabels   = 32
	mostIPs      = 1000
	mostPorts    = 1000
)

// conversion turns objects into facts.
type conversion struct {
	node      string
	keep      map[string]bool
	keepNode  map[string]bool
	words     words
	mu        sync.Mutex
	labelSets map[string]map[string]string
}

func newConversion(cfg *Config) *conversion {
	return &conversion{
		node: cfg.Node, keep: setOf(cfg.Labels), keepNode: setOf(cfg.NodeLabels),
		labelSets: map[string]map[string]string{},
	}
}

func setOf(keys []string) map[string]bool {
	set := make(map[string]bool, len(keys))
	for _, key := range keys {
		set[key] = true
	}
	return set
}

func change(kind cluster.Kind, key string) cluster.Change {
	return cluster.Change{Kind: kind, Key: key}
}

// proper tells whether an object has what every object has.
func proper(m metav1.Object) bool {
	uid, name := len(m.GetUID()), len(m.GetName())
	return uid > 0 && uid <= longestUID && name > 0 && name <= longestName && len(m.GetNamespace()) <= longestName
}

// labels keeps those that are asked for. The pods of a workload share theirs.
func (c *conversion) labels(all map[string]string, keep map[string]bool) map[string]string {
	if len(keep) == 0 || len(all) == 0 {
		return nil
	}
	var keys []string
	size := 0
	for key, value := range all {
		if (keep["*"] || keep[key]) && len(key) <= longestName+64 && len(value) <= longestValue {
			keys = append(keys, key)
			size += len(key) + len(value) + 2
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	keys = keys[:min(len(keys), mostLabels)]
	var b strings.Builder
	b.Grow(size)
	for _, key := range keys {
		b.WriteString(key)
		b.WriteByte(0)
		b.WriteString(all[key])
		b.WriteByte(0)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if set, is := c.labelSets[b.String()]; is {
		return set
	}
	set := make(map[string]string, len(keys))
	for _, key := range keys {
		set[c.words.one(key)] = c.words.one(all[key])
	}
	if len(c.labelSets) >= mostSets {
		clear(c.labelSets)
	}
	c.labelSets[b.String()] = set
	return set
}

func (c *conversion) readService(obj runtime.Object) *fact {
	o, ok := obj.(*corev1.Service)
	if !ok || !proper(&o.ObjectMeta) {
		return nil
	}
	s := &cluster.Service{
		Namespace: c.words.one(o.Namespace), Name: o.Name,
		Headless: o.Spec.ClusterIP == corev1.ClusterIPNone,
	}
	texts := slices.Concat([]string{o.Spec.ClusterIP}, o.Spec.ClusterIPs, o.Spec.ExternalIPs)
	for _, in := range o.Status.LoadBalancer.Ingress {
		texts = append(texts, in.IP)
	}
	s.IPs = addresses(texts, mostIPs)
	for i := range o.Spec.Ports {
		p := &o.Spec.Ports[i]
		if port, ok := portOf(string(p.Protocol), p.Port); ok && len(s.Ports) < mostPorts {
			if p.NodePort > 0 && p.NodePort < 1<<16 {
				port.NodePort = uint16(p.NodePort)
			}
			s.Ports = append(s.Ports, port)
		}
	}
	f := &fact{key: o.Namespace + "/" + o.Name}
	f.change = change(cluster.KindService, f.key)
	f.change.Service = s
	return f
}

// readEndpoints takes those too that are not ready: traffic may flow still.
func (c *conversion) readEndpoints(obj runtime.Object) *fact {
	o, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || !proper(&o.ObjectMeta) {
		return nil
	}
	e := &cluster.Endpoints{Namespace: c.words.one(o.Namespace)}
	if name := o.Labels[discoveryv1.LabelServiceName]; len(name) <= longestName {
		e.Service = c.words.one(name)
	}
	var texts []string
	for i := range o.Endpoints {
		texts = append(texts, o.Endpoints[i].Addresses...)
	}
	e.IPs = addresses(texts, mostIPs)
	for i := range o.Ports {
		p := &o.Ports[i]
		protocol, number := "", int32(0)
		if p.Protocol != nil {
			protocol = string(*p.Protocol)
		}
		if p.Port != nil {
			number = *p.Port
		}
		if port, ok := portOf(protocol, number); ok && len(e.Ports) < mostPorts {
			e.Ports = append(e.Ports, port)
		}
	}
	f := &fact{key: o.Namespace + "/" + o.Name}
	f.change = change(cluster.KindEndpoints, f.key)
	f.change.Endpoints = e
	return f
}

func (c *conversion) readNode(obj runtime.Object) *fact {
	o, ok := obj.(*corev1.Node)
	if !ok || !proper(&o.ObjectMeta) {
		return nil
	}
	n := &cluster.Node{Name: c.words.one(o.Name)}
	for _, key := range []string{corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaZone} {
		if zone := o.Labels[key]; zone != "" && len(zone) <= longestValue {
			n.Zone = c.words.one(zone)
			break
		}
	}
	var texts []string
	for _, a := range o.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			texts = append(texts, a.Address)
		}
	}
	n.IPs = addresses(texts, mostPodIPs)
	if n.Name == c.node {
		n.Labels = c.labels(o.Labels, c.keepNode)
	}
	f := &fact{key: n.Name, change: change(cluster.KindNode, n.Name)}
	f.change.Node = n
	return f
}

// readOwner takes what owns pods, of which there are only metadata.
func (c *conversion) readOwner(obj runtime.Object) *fact {
	m, err := meta.Accessor(obj)
	if err != nil || !proper(m) {
		return nil
	}
	return &fact{key: string(m.GetUID()), owner: c.controller(m)}
}

// addresses takes what is one, each once.
func addresses(texts []string, most int) []event.IP {
	all := make([]event.IP, 0, min(len(texts), most))
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err == nil && !a.IsUnspecified() && a.Zone() == "" && len(all) < most {
			all = append(all, event.IPFrom(a))
		}
	}
	slices.SortFunc(all, func(a, b event.IP) int { return bytes.Compare(a[:], b[:]) })
	return slices.Clip(slices.Compact(all))
}

// portOf is of TCP where no protocol is said.
func portOf(protocol string, number int32) (cluster.Port, bool) {
	if protocol == "" {
		protocol = "TCP"
	}
	p, ok := event.ParseProtocol(protocol)
	if !ok || number <= 0 || number >= 1<<16 {
		return cluster.Port{}, false
	}
	return cluster.Port{Protocol: p, Port: uint16(number)}, true
}
