// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	execs "github.com/orb8/orb8/internal/probe/process"
)

// TestFromExecToPod: pods come and go, and each has its name as soon as its
// first process runs. What happens on the other node is not told at all.
func TestFromExecToPod(t *testing.T) {
	m := newMachine(t)
	s := m.open(Config{Sweep: time.Hour})
	run(t, s)
	pods := map[bool]map[uint32]bool{true: {}, false: {}} // netns told, by whose
	id, level := s.NodeGroup()
	p, err := execs.Open(execs.Config{
		Node: execs.Group{ID: id, Level: level},
		NewNetns: func(e execs.Exec) {
			info, ok := m.groups.Info(e.Cgroup)
			pods[ok && s.Own(info.Path)][e.Netns] = true
			s.Exec(e.Netns, e.Cgroup)
		},
		// As if the group was made long before: only execs tell.
		NewCgroup: func(id uint64, path string) { m.groups.Remember(id, path) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	var took []time.Duration
	for i := range 100 {
		uid := fmt.Sprintf("%08x-7d43-4c0e-9d5e-2f0b6a1d3c4e", i)
		m.start(m.pod(2, uid) + "/" + container(i)).end()
		pause := m.start(m.pod(1, uid) + "/" + container(i))
		execed := time.Now() // it returns when the child has
		for got := ""; got != uid && time.Since(execed) < 30*time.Second; time.Sleep(50 * time.Microsecond) {
			got, _ = s.Pod(pause.netns)
		}
		is(t, s, pause.netns, uid)
		took = append(took, time.Since(execed))
		pause.end()
		if i%2 == 0 { // a word of it may come, or not
			s.Forget(pause.netns)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = p.Close()
	slices.Sort(took)
	t.Logf("exec to pod: p50 %v, p99 %v", took[50], took[98])
	if len(pods[false]) > 0 {
		t.Errorf("%d namespaces of others were told of", len(pods[false]))
	}
}

// filled is a node of 110 pods.
func filled(t testing.TB) *Sandboxes {
	s := open(Config{}, node{root: "/", pods: "/kubepods"})
	for i := range uint32(110) {
		uid := fmt.Sprintf("%08x-7d43-4c0e-9d5e-2f0b6a1d3c4e", i)
		s.bind(&sandbox{pod: uid, group: "/kubepods/pod" + uid, netns: 4026532000 + i})
	}
	return s
}

func TestAnswersAllocateNothing(t *testing.T) {
	s := filled(t)
	path := "/kubepods/pod" + fmt.Sprintf("%08x-7d43-4c0e-9d5e-2f0b6a1d3c4e", 7) + "/" + container(1)
	if n := testing.AllocsPerRun(100, func() {
		s.Pod(4026532007)
		s.Pod(1)
		s.Netns("nobody's")
		s.Own(path)
		s.Learn(4026532007, path)
		s.Generation()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPod(b *testing.B) {
	s := filled(b)
	b.ReportAllocs()
	for b.Loop() {
		s.Pod(4026532007)
	}
}

// BenchmarkExec is an exec of a guest in a namespace.
func BenchmarkExec(b *testing.B) {
	m := newMachine(b)
	first := m.start(m.pod(1, podA) + "/" + container(1))
	guest := m.start(m.pod(1, podA) + "/" + container(2))
	s := open(Config{Groups: m.groups, Own: m.own}, node{root: "/", pods: m.pods(1), sight: true})
	b.ReportAllocs()
	for b.Loop() {
		s.Exec(guest.netns, guest.group)
	}
	is(b, s, first.netns, podA)
}

// BenchmarkBind is a new pod: its processes are looked at.
func BenchmarkBind(b *testing.B) {
	m := newMachine(b)
	p := m.start(m.pod(1, podA) + "/" + container(1))
	s := open(Config{Groups: m.groups, Own: m.own}, node{root: "/", pods: m.pods(1), sight: true})
	for b.Loop() {
		s.Exec(p.netns, p.group)
		s.Forget(p.netns)
	}
}

// BenchmarkSweep is a look at 110 pods, of which 10 are on their node's network.
func BenchmarkSweep(b *testing.B) {
	m := newMachine(b)
	for i := range 110 {
		path := m.pod(1, fmt.Sprintf("%08x-7d43-4c0e-9d5e-2f0b6a1d3c4e", i)) + "/" + container(i)
		if i < 10 {
			m.enter(path, nil)
		} else {
			m.start(path)
		}
	}
	s := m.open(Config{})
	if len(s.byNetns) != 100 {
		b.Fatalf("%d pods", len(s.byNetns))
	}
	for b.Loop() {
		s.sweep()
	}
}
