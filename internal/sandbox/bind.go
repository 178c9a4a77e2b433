// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"maps"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/cgroup"
)

const (
	// Of a container its first processes are looked at: they are listed in the
	// order in which they came.
	maxProcesses = 32
	// A pod that was just made is looked at again and again: its processes come
	// after its group, and an exec may go untold.
	freshRetry, freshFor = 100 * time.Millisecond, 5 * time.Second
	// Others may work in a namespace before its pod's first process does.
	strangersFor = 30 * time.Second
	// Groups between the one of all pods and a pod: that of its quality of service.
	maxDepth = 3
)

// Exec tells that a process of a cgroup execs in a network namespace. True: it
// need not be told again of that namespace, until Forget.
func (s *Sandboxes) Exec(inode uint32, group uint64) (settled bool) {
	if inode == s.cfg.Own || s.cfg.Groups == nil {
		return true
	}
	info, ok := s.cfg.Groups.Info(group)
	if !ok {
		return false
	}
	pod := s.podGroup(info.Path)
	if pod == "" {
		return s.isSettled(inode)
	}
	s.looking.Lock()
	defer s.looking.Unlock()
	return s.decide(claim{inode, pod})
}

// isSettled tells whether a namespace where somebody else works is a pod's, or
// has had time enough to become one.
func (s *Sandboxes) isSettled(inode uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byNetns[inode] != nil {
		return true
	}
	now := time.Now()
	first, ok := s.first[inode]
	if !ok && len(s.first) < maxPods {
		s.first[inode] = now
		return false
	}
	return ok && now.Sub(first) > strangersFor
}

// Made tells that a cgroup was made. A pod's first process is soon in it.
func (s *Sandboxes) Made(path string) {
	group := s.podGroup(path)
	if group == "" {
		return
	}
	s.mu.Lock()
	s.addRoot(group)
	wanted := s.byPod[s.uid(group)] == nil && len(s.fresh) < maxAsked
	if wanted {
		s.fresh[group] = time.Now()
	}
	s.mu.Unlock()
	if wanted {
		s.rouse()
	}
}

// addRoot notes where this node's pods are, where that is not known from the
// agent's own place. It is for who holds mu.
func (s *Sandboxes) addRoot(group string) {
	if s.node.pods != "" || len(s.roots) >= maxRoots {
		return
	}
	if root, ok := cgroup.PodsRoot(group); ok && !slices.Contains(s.roots, root) {
		s.roots = append(s.roots, root)
	}
}

// decide finds out whether a namespace is the sandbox of a pod that has a
// process in it, and tells whether that is settled. Callers hold looking.
func (s *Sandboxes) decide(c claim) (settled bool) {
	uid := s.uid(c.group)
	s.mu.RLock()
	holder, other := s.byNetns[c.netns], s.byPod[uid]
	s.mu.RUnlock()
	if holder != nil && holder.pod == uid {
		return true
	}
	if s.refused[c] { // a guest, and its host's first process may be still to come
		return s.isSettled(c.netns)
	}
	if !s.node.sight {
		// Nobody can be asked: the first word counts, until the namespace is gone.
		if holder != nil || other != nil {
			return false
		}
		s.bind(&sandbox{pod: uid, group: c.group, netns: c.netns})
		return true
	}
	switch oldest := s.oldest(c.group); {
	case oldest == 0: // it is gone, or not there yet
		return false
	case oldest != c.netns, holder != nil && s.oldest(holder.group) == c.netns:
		if len(s.refused) < maxPods {
			s.refused[c] = true
		}
		return s.isSettled(c.netns)
	}
	s.bind(&sandbox{pod: uid, group: c.group, netns: c.netns})
	return true
}

func (s *Sandboxes) bind(b *sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, old := range []*sandbox{s.byNetns[b.netns], s.byPod[b.pod]} {
		if old != nil {
			s.unbind(old)
		}
	}
	if len(s.byNetns) >= maxPods {
		return
	}
	b.since = time.Now().UnixNano()
	s.byNetns[b.netns], s.byPod[b.pod] = b, b
	s.generation.Add(1)
}

// oldest is the network namespace of a pod's oldest process; 0 where none is
// seen. What the runtime runs beside the containers does not count.
func (s *Sandboxes) oldest(group string) (inode uint32) {
	first, lowest := uint64(math.MaxUint64), uint32(0)
	for _, g := range append(s.cfg.Groups.Children(group), group) {
		if cgroup.ParseBelow(s.base(), g).Container == "" {
			continue
		}
		for _, pid := range s.processes(g, 0) {
			in, start, err := s.spaces.Netns(pid)
			// Within one tick of the clock, numbers count up.
			if err == nil && (start < first || start == first && pid < lowest) {
				inode, first, lowest = in, start, pid
			}
		}
	}
	return inode
}

// processes are the first of a container. Where it has none itself they are
// below: crun puts them into a group "container", an init system into its own.
func (s *Sandboxes) processes(group string, depth int) []uint32 {
	pids, _ := s.cfg.Groups.Processes(group) // those that could be read
	if len(pids) > 0 || depth >= maxDepth {
		return pids[:min(len(pids), maxProcesses)]
	}
	for _, child := range s.cfg.Groups.Children(group) {
		pids = append(pids, s.processes(child, depth+1)...)
		if len(pids) >= maxProcesses {
			break
		}
	}
	return pids
}

// settle looks at what Learn and Made left.
func (s *Sandboxes) settle() {
	s.looking.Lock()
	defer s.looking.Unlock()
	s.mu.Lock()
	asked, fresh := s.asked, maps.Clone(s.fresh)
	if len(asked) > 0 {
		s.asked = make(map[claim]bool)
	}
	s.mu.Unlock()
	for c := range asked {
		s.decide(c)
	}
	now := time.Now()
	if now.Sub(s.freshened) < freshRetry { // woken for something else
		return
	}
	s.freshened = now
	for group, made := range fresh {
		if s.lookAt(group) || now.Sub(made) > freshFor {
			s.mu.Lock()
			delete(s.fresh, group)
			s.mu.Unlock()
		}
	}
}

// lookAt looks at a pod; true when its namespace is known.
func (s *Sandboxes) lookAt(group string) bool {
	s.mu.RLock()
	known := s.byPod[s.uid(group)] != nil
	s.mu.RUnlock()
	if known || !s.node.sight {
		return known
	}
	inode := s.oldest(group)
	if inode == 0 || inode == s.cfg.Own {
		return false
	}
	// While a container is made, its runtime is its oldest process for a moment.
	delete(s.refused, claim{inode, group})
	return s.decide(claim{inode, group})
}

// due tells when to look again, and when at all pods.
func (s *Sandboxes) due(swept time.Time) (next time.Duration, sweep time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sweep = swept.Add(s.cfg.Sweep)
	if s.look {
		sweep = swept.Add(freshRetry)
	}
	next = max(0, time.Until(sweep))
	if len(s.fresh) > 0 {
		next = min(next, freshRetry)
	}
	return next, sweep
}

// sweep looks at the pods that have no namespace yet, and forgets those that are
// long gone where there are too many.
func (s *Sandboxes) sweep() {
	s.looking.Lock()
	defer s.looking.Unlock()
	clear(s.refused)
	s.mu.Lock()
	s.look = false
	roots := slices.Clone(s.roots)
	s.mu.Unlock()
	if s.node.lost {
		return
	}
	if len(roots) == 0 {
		roots = s.findRoots(s.node.root, 0)
	}
	groups := make(map[string]bool)
	for _, root := range roots {
		s.list(root, 0, groups)
	}
	for group := range groups {
		s.lookAt(group)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for inode, first := range s.first {
		if time.Since(first) > 10*strangersFor {
			delete(s.first, inode)
		}
	}
	if len(s.byNetns) < maxPods {
		return
	}
	for _, b := range s.byNetns {
		if !groups[b.group] {
			s.unbind(b)
		}
	}
}

// list notes the groups of the pods below a group.
func (s *Sandboxes) list(dir string, depth int, groups map[string]bool) {
	for _, child := range s.cfg.Groups.Children(dir) {
		if group := s.podGroup(child); group != "" {
			groups[group] = true
		} else if depth < maxDepth {
			s.list(child, depth+1, groups)
		}
		if len(groups) >= maxPods {
			return
		}
	}
}

// findRoots looks where kubelets keep pods: on the machine itself, or in a
// container that is a node.
func (s *Sandboxes) findRoots(dir string, depth int) []string {
	const deepest = 6
	for _, child := range s.cfg.Groups.Children(dir) {
		if root, ok := cgroup.PodsRoot(filepath.Join(child, anyPod)); ok && root == child {
			s.mu.Lock()
			if len(s.roots) < maxRoots && !slices.Contains(s.roots, root) {
				s.roots = append(s.roots, root)
			}
			s.mu.Unlock()
		} else if depth < deepest {
			s.findRoots(child, depth+1)
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.roots)
}

// anyPod is how a pod may be named.
const anyPod = "pod00000000000000000000000000000000"
