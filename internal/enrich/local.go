// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// party is what makes a local end one and not another.
type party struct {
	// The pod, and its UID where the cluster has not told of it.
	pod    *event.Identity
	uid    string
	class  event.Class
	cgroup uint64 // 0 where its path is not known
	pid    uint32
	name   socket.Name
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
		return e.unknown
	}
	// The process's own group goes first: systemd opens sockets for services.
	p := party{cgroup: f.Cgroup, pid: o.PID, name: o.Name}
	if o.Cgroup != 0 {
		p.cgroup = o.Cgroup
	}
	info := e.group(p.cgroup)
	if info == nil {
		p.cgroup = 0 // another time it may be found
		info = nothing
	}
	if e.cfg.Cluster != nil && e.cfg.Sandboxes != nil {
		if uid, in := e.podOf(f, info); in == elsewhere {
			return nil
		} else if uid != "" {
			return e.podParty(p, uid, info)
		} else if in == undecided {
			return e.unknown
		}
		if info.PodUID != "" {
			// Of another node's pod, or of one that has entered this namespace.
			p.cgroup, info = 0, nothing
		}
	}
	p.class = e.class(f, info, known)
	if known || info.Container != "" || info.Unit != "" {
		return e.intern(p, info)
	}
	if p.class == event.ClassHost {
		return e.host
	}
	return e.unknown
}

func (e *Enricher) group(id uint64) *cgroup.Info {
	if e.cfg.Cgroups == nil || id == 0 {
		return nil
	}
	info, _ := e.cfg.Cgroups.Info(id)
	return info
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

// podOf gives the UID of the pod that a connection is of, "" where it is none's.
func (e *Enricher) podOf(f *event.Flow, info *cgroup.Info) (uid string, in whereabouts) {
	boxes := e.cfg.Sandboxes
	netns := f.Conn.Netns
	own := info.PodUID != "" && boxes.Own(info.Path)
	if netns != e.cfg.Netns {
		uid, ok := boxes.Pod(netns)
		if !ok && own {
			boxes.Learn(netns, info.PodUID)
			uid, ok = boxes.Pod(netns)
		}
		e.again.met(netns, uid)
		if !ok && own {
			return "", undecided
		}
		return uid, here
	}
	if !own {
		return "", here
	}
	if pod := e.cfg.Cluster.Pod(info.PodUID); pod != nil {
		if !pod.HostNetwork {
			in = elsewhere
		}
	} else if other, ok := boxes.Netns(info.PodUID); ok && other != netns {
		in = elsewhere
	}
	return info.PodUID, in
}

// podParty gives the identity of a process in a pod. Until the cluster has told
// of the pod it has no name.
func (e *Enricher) podParty(p party, uid string, info *cgroup.Info) *event.Identity {
	if info.PodUID != uid {
		p.cgroup, info = 0, nothing // it came from outside into the pod's namespace
	}
	p.class = event.ClassPod
	if p.pod = e.cfg.Cluster.Identity(uid); p.pod == nil {
		p.uid = uid
	}
	if p.pod != nil && p.cgroup == 0 && p.pid == 0 && p.name == (socket.Name{}) {
		return p.pod
	}
	id := e.parties.get(p)
	if id != nil {
		return id
	}
	if p.pod != nil {
		made := *p.pod
		id = &made
	} else {
		id = &event.Identity{Class: event.ClassPod, PodUID: uid, Node: e.cfg.Node, Zone: e.host.Zone}
	}
	id.Container, id.Process, id.PID = info.Container, p.name.String(), p.pid
	if pod := e.cfg.Cluster.Pod(uid); pod != nil {
		if name := pod.Container(info.Container); name != "" {
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

func (e *Enricher) intern(p party, info *cgroup.Info) *event.Identity {
	id := e.parties.get(p)
	if id == nil {
		id = &event.Identity{
			Class: p.class, Node: e.cfg.Node, Zone: e.host.Zone,
			Container: info.Container, PodUID: info.PodUID, Unit: info.Unit,
			Process: p.name.String(), PID: p.pid,
		}
		e.parties.put(p, id)
	}
	return id
}
