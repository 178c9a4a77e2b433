// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"strings"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// Process is who a process is by its cgroup: a pod with its container, else a
// container, a service, or the process itself. nil where its group is not known
// and might be a pod's, or is of another node.
func (e *Enricher) Process(group uint64, pid uint32, name string) *event.Identity {
	info := e.group(group)
	switch {
	case info == nil && e.cfg.Cluster != nil:
		return nil
	case info == nil:
		group, info = 0, nothing
	}
	if info.PodUID != "" && e.cfg.Cluster != nil && e.cfg.Sandboxes != nil {
		if !e.cfg.Sandboxes.Own(info.Path) {
			return nil
		}
		return e.inContainer(party{cgroup: group}, e.podBy(info.PodUID))
	}
	p := party{cgroup: group}
	class := event.ClassHost
	switch {
	case info.Container != "":
		p.contained, class = true, event.ClassContainer
	case !strings.HasSuffix(info.Unit, ".service"): // those of a session have little in common
		p.pid = pid
		copy(p.name[:len(socket.Name{})-1], name)
	}
	return e.intern(p, class, info)
}

// inContainer is podParty, but for a container whose name was told later.
func (e *Enricher) inContainer(p party, of pod) *event.Identity {
	info := e.group(p.cgroup)
	id := e.podParty(p, of, info)
	if id.Container != info.Container {
		return id
	}
	told := e.cfg.Cluster.Pod(of.uid)
	if told == nil || told.Container(info.Container) == "" {
		return id
	}
	made := *id
	made.Container = told.Container(info.Container)
	p.pod = of.base
	e.parties.put(p, &made)
	return &made
}
