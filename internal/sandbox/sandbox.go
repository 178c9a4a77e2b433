// SPDX-License-Identifier: Apache-2.0

// Package sandbox tells which pod a network namespace belongs to, and which
// cgroups and namespaces are this node's, where several nodes share a kernel. It
// knows them by the processes in the pods' cgroups, from the machine alone:
// never by an address, and without asking Kubernetes or a container runtime. It
// enters no namespace, and keeps none alive. The agent asks it what to tap, and
// enrichment whose a connection is.
//
// A pod's sandbox is the namespace of its oldest process: the one that waits
// there for as long as the pod lives, or where there is none its first
// container. So a guest in a namespace, such as a pod that sets up the network
// of others, never gives it its name, and a pod in its node's namespace has
// none.
package sandbox

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/netns"
)

// Config of Sandboxes.
type Config struct {
	// nil: which pod is whose cannot be told.
	Groups *cgroup.Resolver
	// The agent's own network namespace, which is no pod's.
	Own  uint32
	Proc string // "" means /proc
	Dir  string // where namespaces are mounted that pods may have; "" means /run/netns
	// Between two looks at all pods; 0 means 10 s.
	Sweep time.Duration
	Log   *slog.Logger
}

// Bounds. What finds no room is found by a sweep, when there is some.
const (
	maxPods  = 4096
	maxRoots = 64
	maxAsked = 1024
)

// Sandboxes knows the pods of this node. Exec, Made and Run may take a while;
// the rest is for the busiest of goroutines. All are for any goroutine.
type Sandboxes struct {
	cfg  Config
	log  *slog.Logger
	node node
	// Where processes are.
	spaces netns.Processes

	// looking is held while processes are looked at: one decision at a time.
	looking sync.Mutex
	// Pods that turned out not to have a namespace, until the next sweep; guarded
	// by looking.
	refused   map[claim]bool
	freshened time.Time // the same

	generation atomic.Uint64
	wake       chan struct{}

	mu      sync.RWMutex // guards the rest, never across a system call
	roots   []string     // where pods are
	byNetns map[uint32]*sandbox
	byPod   map[string]*sandbox
	asked   map[claim]bool       // by Learn
	fresh   map[string]time.Time // groups of pods that were just made
	look    bool                 // soon
	first   map[uint32]time.Time // exec of somebody else in a namespace that is not bound
}

// sandbox is a pod with its namespace.
type sandbox struct {
	pod, group string
	netns      uint32
	since      int64 // when that was found out
}

// claim is a pod's process in a namespace.
type claim struct {
	netns uint32
	group string // the pod's
}

// Open finds this node's part of the machine and the pods that are there. What
// it cannot find out is told by Problems.
func Open(cfg Config) *Sandboxes {
	cfg.finish()
	return open(cfg, findNode(cfg.Groups, cfg.Proc))
}

func (c *Config) finish() {
	if c.Proc == "" {
		c.Proc = "/proc"
	}
	if c.Dir == "" {
		c.Dir = "/run/netns"
	}
	if c.Sweep <= 0 {
		c.Sweep = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func open(cfg Config, n node) *Sandboxes {
	cfg.finish()
	s := &Sandboxes{
		cfg:     cfg,
		node:    n,
		spaces:  netns.Processes{Proc: cfg.Proc, Dirs: []string{cfg.Dir}},
		log:     cfg.Log,
		refused: make(map[claim]bool),
		wake:    make(chan struct{}, 1),
		byNetns: make(map[uint32]*sandbox),
		byPod:   make(map[string]*sandbox),
		asked:   make(map[claim]bool),
		fresh:   make(map[string]time.Time),
		first:   make(map[uint32]time.Time),
	}
	if s.node.pods != "" {
		s.roots = []string{s.node.pods}
	}
	if cfg.Groups != nil {
		cfg.Groups.Within(s.node.root)
		s.sweep()
	}
	s.log.Info("This node", "cgroup", s.node.root, "pods", s.roots, "sandboxes", len(s.byNetns))
	for _, problem := range s.Problems() {
		s.log.Warn("Sandboxes", "problem", problem)
	}
	return s
}

// Pod tells which pod a network namespace is the sandbox of. It allocates
// nothing.
func (s *Sandboxes) Pod(inode uint32) (uid string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.byNetns[inode]
	if b == nil {
		return "", false
	}
	return b.pod, true
}

// Since is when it was found out whose a network namespace is, Unix nanoseconds;
// 0 where it is nobody's. Before that its number may have been another's.
func (s *Sandboxes) Since(inode uint32) int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if b := s.byNetns[inode]; b != nil {
		return b.since
	}
	return 0
}

// Netns tells a pod's network namespace; false for one that has its node's.
func (s *Sandboxes) Netns(uid string) (inode uint32, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.byPod[uid]
	if b == nil {
		return 0, false
	}
	return b.netns, true
}

// Generation changes with what Pod and Netns answer.
func (s *Sandboxes) Generation() uint64 { return s.generation.Load() }

// NodeRoot is the cgroup that all of this node is in: "/" where it has the
// machine to itself.
func (s *Sandboxes) NodeRoot() string { return s.node.root }

// NodeGroup is that group by its id, and how many groups are above it.
func (s *Sandboxes) NodeGroup() (id uint64, level uint32) {
	if s.node.root == "/" || s.cfg.Groups == nil {
		return 0, 0
	}
	return s.cfg.Groups.ID(s.node.root), uint32(strings.Count(s.node.root, "/"))
}

// AllProcesses tells whether /proc shows the processes of the whole node.
func (s *Sandboxes) AllProcesses() bool { return s.node.sight }

// Own tells whether a cgroup is in a pod of this node, by its path in the whole
// hierarchy.
func (s *Sandboxes) Own(path string) bool { return s.podGroup(path) != "" }

// Mine tells whether a network namespace is to be tapped: it is mounted where
// this node's are, or a process of one of its pods is in it. What is not yet may
// be later.
func (s *Sandboxes) Mine(ns netns.Namespace) bool {
	if ns.Inode == s.cfg.Own || ns.Dir == filepath.Clean(s.cfg.Dir) {
		return true
	}
	if _, ok := s.Pod(ns.Inode); ok {
		return true
	}
	if ns.PID == 0 || s.cfg.Groups == nil {
		return false
	}
	path, err := s.cfg.Groups.Of(s.cfg.Proc, ns.PID)
	return err == nil && s.Own(path)
}

// Learn tells that a socket of a cgroup is used in a network namespace. What
// follows from it is found out by Run, so it never blocks.
func (s *Sandboxes) Learn(inode uint32, path string) {
	if inode == s.cfg.Own {
		return
	}
	group := s.podGroup(path)
	if group == "" {
		return
	}
	s.mu.Lock()
	b := s.byNetns[inode]
	wanted := (b == nil || b.group != group) && len(s.asked) < maxAsked
	if wanted {
		s.asked[claim{inode, group}] = true
	}
	s.mu.Unlock()
	if wanted {
		s.rouse()
	}
}

// Forget tells that a network namespace is gone. Its number may be another's
// already, which a look at the pods will tell.
func (s *Sandboxes) Forget(inode uint32) {
	s.mu.Lock()
	delete(s.first, inode)
	b := s.byNetns[inode]
	if b != nil {
		s.unbind(b)
		s.look = true
		if len(s.fresh) < maxAsked {
			s.fresh[b.group] = time.Now()
		}
	}
	s.mu.Unlock()
	if b != nil {
		s.rouse()
	}
}

// unbind is for who holds mu.
func (s *Sandboxes) unbind(b *sandbox) {
	delete(s.byNetns, b.netns)
	delete(s.byPod, b.pod)
	s.generation.Add(1)
}

// Problems says what cannot be told, and what to try.
func (s *Sandboxes) Problems() []string {
	out := s.node.problems[:len(s.node.problems):len(s.node.problems)]
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.node.lost && len(s.roots) == 0 {
		out = append(out, "no pods' cgroups are found below "+s.node.root+" (is a kubelet running on this node? with cgroup v1 alone orb8 cannot tell pods apart)")
	}
	if len(s.byNetns) >= maxPods {
		out = append(out, "more pods than orb8 keeps: some have no name")
	}
	return out
}

func (s *Sandboxes) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run looks at what was learnt, at pods that have just been made, and now and
// then at all, until the context ends.
func (s *Sandboxes) Run(ctx context.Context) error {
	if s.cfg.Groups == nil {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var swept time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.wake:
		}
		s.settle()
		now := time.Now()
		next, due := s.due(swept)
		if !now.Before(due) {
			s.sweep()
			swept = time.Now()
			next = min(next, s.cfg.Sweep)
		}
		timer.Reset(next)
	}
}
