// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"maps"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// Config of a map. The zero value works.
type Config struct {
	// This node. Its pods find room whatever the rest of the cluster takes.
	Node string
	// Pods remembered, deleted ones included; 0 means 10,000.
	MaxPods int
	// How long a pod is remembered after it was deleted; 0 means 5 minutes.
	Keep time.Duration
}

// placesPerPod bounds the addresses with ports that Services and their
// endpoints take, as a multiple of the pods.
const placesPerPod = 16

// Map is the cluster as it was told of. It is for one goroutine, and what it
// gives is immutable: when something changes there is a new one of it.
type Map struct {
	cfg Config
	// By UID, and static pods also by the one that their node gave them.
	pods, static map[string]*owner
	nodes        map[string]*owner
	addresses    map[event.IP]*Address
	// Those that have ended and those that are gone, in the order in which it was
	// told, and those whose end is too long ago to matter for their addresses.
	ended, gone, past queue
	services          map[string]*service
	slices            map[string]*Endpoints
	// Doors of all addresses.
	places  int
	touched Touched
	synced  bool
	now     int64 // of the last Sweep
	// A zone has changed: identities have to be made again.
	rezoned          bool
	refused, crowded uint64
}

// New makes an empty map.
func New(cfg Config) *Map {
	if cfg.MaxPods <= 0 {
		cfg.MaxPods = 10_000
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 5 * time.Minute
	}
	return &Map{
		cfg:       cfg,
		pods:      map[string]*owner{},
		static:    map[string]*owner{},
		nodes:     map[string]*owner{},
		addresses: map[event.IP]*Address{},
		services:  map[string]*service{},
		slices:    map[string]*Endpoints{},
	}
}

// Apply takes in what an Inbox gave. It tells what is to be looked at again,
// good until the next Apply.
func (m *Map) Apply(changes []Change, synced bool) *Touched {
	m.touched.reset()
	for i := range changes {
		c := &changes[i]
		switch c.Kind {
		case KindPod:
			m.applyPod(c)
		case KindService:
			m.setService(c.Key, c.Service)
		case KindEndpoints:
			m.setEndpoints(c.Key, c.Endpoints)
		case KindNode:
			m.setNode(c)
		}
	}
	if m.rezoned {
		m.rezoned = false
		m.touched.All = true
		for _, o := range m.pods {
			o.identity = nil
		}
		for _, a := range m.addresses {
			divide(a.spans)
		}
	}
	if synced && !m.synced {
		m.synced = true
		m.touched.All = true
	}
	return &m.touched
}

// Sweep forgets who has been gone for long enough, and gives back the addresses
// of who has ended.
func (m *Map) Sweep(now time.Time) {
	if now.UnixNano() < m.now {
		m.rewind(now.UnixNano())
	}
	m.now = now.UnixNano()
	before := now.Add(-m.cfg.Keep).UnixNano()
	for o := m.gone.first; o != nil && o.gone < before; o = m.gone.first {
		m.forget(o)
	}
	for o := m.ended.first; o != nil && o.ended < before; o = m.ended.first {
		m.index(o, nil)
		m.past.push(o)
		if o.lost {
			m.forget(o)
		}
	}
}

// Synced tells that the start is complete: an address that nobody has is
// outside of the cluster.
func (m *Map) Synced() bool { return m.synced }

// Len is how many pods are remembered.
func (m *Map) Len() int { return len(m.pods) }

// Pods calls yield for each pod that is remembered, with the time when it was
// told that it is gone, or 0.
func (m *Map) Pods(yield func(p *Pod, gone int64) bool) {
	for _, o := range m.pods {
		if !yield(o.pod, o.gone) {
			return
		}
	}
}

// Pod gives the pod of a UID, and of a static pod also by the UID that its node
// knows it by; nil where it has not been told of.
func (m *Map) Pod(uid string) *Pod {
	if o := m.pod(uid); o != nil {
		return o.pod
	}
	return nil
}

// Identity of a pod, nil where it has not been told of.
func (m *Map) Identity(uid string) *event.Identity {
	if o := m.pod(uid); o != nil {
		return m.identity(o)
	}
	return nil
}

// Node of a name, nil where it has not been told of.
func (m *Map) Node(name string) *Node {
	if o := m.nodes[name]; o != nil {
		return o.node
	}
	return nil
}

// NodeIdentity of a node by its name, nil where it has not been told of.
func (m *Map) NodeIdentity(name string) *event.Identity {
	if o := m.nodes[name]; o != nil {
		return m.identity(o)
	}
	return nil
}

func (m *Map) pod(uid string) *owner {
	if o := m.pods[uid]; o != nil {
		return o
	}
	return m.static[uid]
}

// Container gives the name of one by the id that its runtime gave it, "" where
// it has not been told of, also of nil.
func (p *Pod) Container(id string) string {
	if p == nil {
		return ""
	}
	for i := range p.Containers {
		if p.Containers[i].ID == id {
			return p.Containers[i].Name
		}
	}
	return ""
}

// Losses tells of what found no room.
func (m *Map) Losses() []event.Loss {
	var out []event.Loss
	if m.refused > 0 {
		out = append(out, event.Loss{
			Stage: "pods", Count: m.refused,
			Hint: "the cluster has more pods than are remembered, and traffic to the rest has no names: raise ORB8_MAX_POD_CACHE",
		})
	}
	if m.crowded > 0 {
		out = append(out, event.Loss{
			Stage: "services", Count: m.crowded,
			Hint: "the cluster has more Services and endpoints than are remembered, and some have no names: raise ORB8_MAX_POD_CACHE",
		})
	}
	return out
}

func (m *Map) applyPod(c *Change) {
	if c.Pod != nil && c.Pod.UID != "" && c.Pod.UID == c.Key {
		m.setPod(c)
	}
	if !c.gone() {
		return
	}
	if o := m.pods[c.Key]; o != nil && o.gone == 0 {
		m.leave(o, c.At)
		m.touchPod(o)
	}
}

func (m *Map) setPod(c *Change) {
	p := c.Pod
	o := m.pods[p.UID]
	switch {
	case o == nil:
		if !m.room(p) {
			m.refused++
			return
		}
		o = &owner{}
		m.pods[p.UID] = o
	case o.gone != 0 || behind(p, o.pod):
		// One of several watches is late.
		return
	case alike(p, o.pod):
		o.pod = p
		return
	}
	ips := p.IPs
	switch {
	case p.HostNetwork:
		ips = nil
	case len(ips) == 0 && p.over():
		ips = o.ips // those that it had
	}
	m.lose(o, ips, c.At)
	m.unname(o)
	o.pod, o.identity = p, nil
	if p.StaticUID != "" {
		m.static[p.StaticUID] = o
	}
	if o.told == 0 && len(ips) > 0 {
		o.told = max(c.At, 1)
	}
	if p.over() && o.ended == 0 {
		o.ended = max(c.At, 1)
		m.ended.push(o)
	}
	o.time()
	if o.in == &m.past || p.Ended > 0 && c.At-p.Ended > int64(m.cfg.Keep) {
		// At the start: a job that ended long ago.
		ips = nil
		m.past.push(o)
	}
	m.index(o, ips)
	m.touchPod(o)
}

// lose remembers who had the addresses that a pod has no more, as when its node
// has started again.
func (m *Map) lose(o *owner, now []event.IP, at int64) {
	lost := slices.DeleteFunc(slices.Clone(o.ips), func(ip event.IP) bool { return slices.Contains(now, ip) })
	if len(lost) == 0 || m.ended.len >= m.cfg.MaxPods {
		return
	}
	was := &owner{pod: o.pod, identity: m.identity(o), told: o.told, ended: max(at, 1), lost: true}
	was.time()
	m.ended.push(was)
	m.index(was, lost)
}

// behind: what was told is older than what is known. Nothing says so but what
// never goes back.
func behind(p, known *Pod) bool {
	return !p.over() && (known.over() || len(known.IPs) > 0 && len(p.IPs) == 0 || known.Networked > 0 && p.Networked <= 0)
}

// alike: nobody who talks to the pod, or is in it, would be told otherwise.
func alike(p, known *Pod) bool {
	return p.Node == known.Node && p.StaticUID == known.StaticUID && p.HostNetwork == known.HostNetwork && p.Workload == known.Workload &&
		p.Created == known.Created && p.Networked == known.Networked && p.Ended == known.Ended && p.over() == known.over() &&
		slices.Equal(p.IPs, known.IPs) && slices.Equal(p.Containers, known.Containers) && maps.Equal(p.Labels, known.Labels)
}

// over: its containers have ended for good.
func (p *Pod) over() bool { return p.Ended > 0 || p.Phase == "Succeeded" || p.Phase == "Failed" }

// room makes room for a pod: of those that are gone the first goes first, then
// of those that have ended.
func (m *Map) room(p *Pod) bool {
	for _, q := range [...]*queue{&m.gone, &m.past, &m.ended} {
		for len(m.pods) >= m.cfg.MaxPods && q.first != nil {
			m.forget(q.first)
		}
	}
	return len(m.pods) < m.cfg.MaxPods || p.Node == m.cfg.Node && p.Node != "" && len(m.pods) < 2*m.cfg.MaxPods
}

// leave notes that an owner is gone.
func (m *Map) leave(o *owner, at int64) {
	o.gone = max(at, 1)
	o.time()
	m.gone.push(o)
	m.index(o, o.ips)
}

func (m *Map) forget(o *owner) {
	o.in.drop(o)
	m.index(o, nil)
	if o.pod == nil || m.pods[o.pod.UID] != o {
		return
	}
	delete(m.pods, o.pod.UID)
	m.unname(o)
}

// unname takes from a static pod what its node calls it.
func (m *Map) unname(o *owner) {
	if o.pod != nil && m.static[o.pod.StaticUID] == o {
		delete(m.static, o.pod.StaticUID)
	}
}

func (m *Map) touchPod(o *owner) {
	if o.pod.Node == m.cfg.Node {
		m.touched.pod(o.pod.UID)
		if o.pod.StaticUID != "" {
			m.touched.pod(o.pod.StaticUID)
		}
	}
}

// setNode takes in a node. A node of the same name as one that is gone is
// another.
func (m *Map) setNode(c *Change) {
	o := m.nodes[c.Key]
	if c.Node == nil {
		if o != nil {
			delete(m.nodes, c.Key)
			m.leave(o, c.At)
		}
		return
	}
	zone := ""
	if o == nil {
		if len(m.nodes) >= m.cfg.MaxPods {
			m.crowded++
			return
		}
		o = &owner{told: max(c.At, 1)}
		m.nodes[c.Key] = o
	} else {
		if zone = o.node.Zone; zone == c.Node.Zone && slices.Equal(o.ips, c.Node.IPs) {
			o.node = c.Node // its labels are in no identity
			return
		}
	}
	m.rezoned = m.rezoned || zone != c.Node.Zone
	o.node, o.identity = c.Node, nil
	o.time()
	m.index(o, c.Node.IPs)
}
