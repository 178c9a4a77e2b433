// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// party is what makes a local end one and not another.
type party struct {
	// The pod, if it is one.
	pod    *event.Identity
	cgroup uint64 // 0 where its path is not known
	pid    uint32
	// Of class container, if it is no pod; else host.
	contained bool
	name      socket.Name
}

// nothing is known of a group.
var nothing = &cgroup.Info{}

// local gives the identity of who is on this side: a pod by its namespace, in
// the machine's own by its cgroup; a process, or what its cgroup is for. nil: it
// is in another namespace.
func (e *Enricher) local(f *event.Flow, o socket.Owner, known bool) *event.Identity {
	if known && o.Kernel {
		return e.kernelParty(kernelService(f))
	}
	if !known && (o.PID == 1 || e.mayBeKernel(f)) {
		return e.somebody(f)
	}
	// The process's own group goes first: systemd opens sockets for services.
	p := party{cgroup: f.Cgroup, pid: o.PID, name: o.Name}
	if o.Cgroup != 0 {
		p.cgroup = o.Cgroup
	}
	info := e.group(p.cgroup)
	if info == nil {
		if was := f.Local; was != nil && was.Class == event.ClassPod && f.Conn.Netns == e.cfg.Netns {
			return was // its group is gone
		}
		p.cgroup = 0 // another time it may be found
		info = nothing
	}
	if e.cfg.Cluster != nil && e.cfg.Sandboxes != nil {
		pod, in := e.podOf(f, info)
		switch {
		case in == elsewhere:
			return nil
		case in == undecided:
			return e.unknown
		case pod.base != nil:
			if was := f.Local; was != nil && was.Class == event.ClassPod && e.is(was.PodUID, pod.uid) {
				if pod.base.Pod == "" && was.Pod != "" {
					return was // the cluster has forgotten it
				}
				if !known && info == nothing {
					return e.fitted(fit{was: was, base: pod.base}) // its process has ended
				}
			}
			return e.podParty(p, pod, info)
		case info.PodUID != "":
			// Of another node's pod, or of one that has entered this namespace.
			p.cgroup, info = 0, nothing
		}
	}
	class := e.class(f, info, known)
	p.contained = class == event.ClassContainer
	switch {
	case known, info.Container != "", info.Unit != "":
		return e.intern(p, class, info)
	case class == event.ClassHost:
		return e.host
	}
	return e.unknown
}

// somebody: a process or the kernel. In a pod's namespace either is the pod's
// until the sockets are listed.
func (e *Enricher) somebody(f *event.Flow) *event.Identity {
	if e.cfg.Cluster == nil || e.cfg.Sandboxes == nil || f.Conn.Netns == e.cfg.Netns {
		return e.unknown
	}
	pod, _ := e.podIn(f, nothing)
	switch was := f.Local; {
	case pod.base == nil:
		return e.unknown
	case was != nil && was.Class == event.ClassPod && e.is(was.PodUID, pod.uid):
		return e.fitted(fit{was: was, base: pod.base})
	}
	// Its group is not who happened to run when it is the pod's own.
	info := e.group(f.Cgroup)
	if info == nil {
		info = nothing
	}
	return e.podParty(party{cgroup: f.Cgroup}, pod, info)
}

func (e *Enricher) group(id uint64) *cgroup.Info {
	if e.cfg.Cgroups == nil || id == 0 {
		return nil
	}
	if info, ok := e.cfg.Cgroups.Info(id); ok {
		return info
	}
	return nil
}

// whereabouts of a connection's pod.
type whereabouts uint8

// here: it is this namespace's, or there is none. elsewhere: in the host's
// namespace, a pod that has its own. undecided: it will be known whose the
// namespace is.
const (
	here whereabouts = iota
	elsewhere
	undecided
)

// pod is one of this node, by the UID that the node knows it by.
type pod struct {
	uid  string
	base *event.Identity // nil: none
}

// podOf gives the pod that a connection is of.
func (e *Enricher) podOf(f *event.Flow, info *cgroup.Info) (pod, whereabouts) {
	boxes := e.cfg.Sandboxes
	netns := f.Conn.Netns
	if netns != e.cfg.Netns {
		return e.podIn(f, info)
	}
	if info.PodUID == "" || !boxes.Own(info.Path) {
		return pod{}, here
	}
	if told := e.cfg.Cluster.Pod(info.PodUID); told != nil {
		if !told.HostNetwork {
			return pod{}, elsewhere
		}
	} else if other, ok := boxes.Netns(info.PodUID); ok && other != netns {
		return pod{}, elsewhere
	}
	return e.podBy(info.PodUID), here
}

// podIn gives the pod whose namespace a connection is in. One that was told is
// kept when the namespace has gone, or has become another's.
func (e *Enricher) podIn(f *event.Flow, info *cgroup.Info) (pod, whereabouts) {
	boxes, netns := e.cfg.Sandboxes, f.Conn.Netns
	s := e.again.space(e, netns)
	if was := f.Local; was != nil && was.Class == event.ClassPod && (s.pod.base == nil || s.was != s.pod.uid) {
		if e.is(was.PodUID, info.PodUID) {
			return e.podBy(info.PodUID), here
		}
		return e.podBy(was.PodUID), here
	}
	own := info.PodUID != "" && boxes.Own(info.Path)
	if s.pod.base != nil && !(own && !e.is(info.PodUID, s.pod.uid) && f.First < boxes.Since(netns)) {
		return s.pod, here
	}
	// The namespace is nobody's, or its number was another's when this began.
	if !own {
		return pod{}, here
	}
	if s.pod.base != nil {
		return e.before(f, info)
	}
	boxes.Learn(netns, info.Path)
	if uid, ok := boxes.Pod(netns); ok {
		return e.podBy(uid), here
	}
	if _, elsewhere := boxes.Netns(info.PodUID); elsewhere {
		return pod{}, undecided
	}
	// A pod may end before it is known where it was. It was in some namespace of
	// its own, and this is one that nobody has.
	if told := e.cfg.Cluster.Pod(info.PodUID); told != nil && told.HostNetwork {
		return pod{}, undecided
	}
	return e.podBy(info.PodUID), here
}

// before gives the pod that a namespace's number belonged to.
func (e *Enricher) before(f *event.Flow, info *cgroup.Info) (pod, whereabouts) {
	_, elsewhere := e.cfg.Sandboxes.Netns(info.PodUID)
	if told := e.cfg.Cluster.Pod(info.PodUID); elsewhere || told != nil && told.HostNetwork {
		return e.again.space(e, f.Conn.Netns).pod, here
	}
	return e.podBy(info.PodUID), here
}

// podBy gives a pod of this node. Until the cluster has told of it, it has no
// name.
func (e *Enricher) podBy(uid string) pod {
	id := e.cfg.Cluster.Identity(uid)
	if id == nil {
		if id = e.untold.get(uid); id == nil {
			id = &event.Identity{Class: event.ClassPod, PodUID: uid, Node: e.cfg.Node, Zone: e.host.Zone}
			e.untold.put(uid, id)
		}
	}
	return pod{uid, id}
}

// podParty gives the identity of a process in a pod.
func (e *Enricher) podParty(p party, of pod, info *cgroup.Info) *event.Identity {
	if info.PodUID != of.uid {
		p.cgroup, info = 0, nothing // it came from outside into the pod's namespace
	}
	p.pod = of.base
	if p == (party{pod: of.base}) {
		return of.base
	}
	id := e.parties.get(p)
	if id != nil {
		return id
	}
	made := *of.base
	id = &made
	id.Container, id.Process, id.PID = info.Container, p.name.String(), p.pid
	if told := e.cfg.Cluster.Pod(of.uid); told != nil {
		if name := told.Container(info.Container); name != "" {
			id.Container = name
		}
	}
	e.parties.put(p, id)
	return id
}

func (e *Enricher) class(f *event.Flow, info *cgroup.Info, known bool) event.Class {
	switch {
	case info.Container != "":
		return event.ClassContainer
	case known, info.Unit != "", e.cfg.Netns == 0, e.cfg.Netns == f.Conn.Netns:
		return event.ClassHost
	}
	return event.ClassUnknown
}

func (e *Enricher) intern(p party, class event.Class, info *cgroup.Info) *event.Identity {
	id := e.parties.get(p)
	if id == nil {
		id = &event.Identity{
			Class: class, Node: e.cfg.Node, Zone: e.host.Zone,
			Container: info.Container, PodUID: info.PodUID, Unit: info.Unit,
			Process: p.name.String(), PID: p.pid,
		}
		e.parties.put(p, id)
	}
	return id
}
