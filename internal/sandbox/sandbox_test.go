// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/netns"
)

// What is there when the agent starts: a pod of two containers, one on the
// node's network, one of another node, and a monitor that came before its pod.
func TestOpen(t *testing.T) {
	m := newMachine(t)
	pause := m.start(m.pod(1, podA) + "/" + container(1))
	m.start(m.pod(1, podA) + "/" + container(2)) // a guest somewhere else
	m.enter(m.pod(1, podB)+"/"+container(3), nil)
	m.enter(m.pod(1, podC)+"/crio-conmon-"+container(4), nil)
	infra := m.start(m.pod(1, podC) + "/crio-" + container(4) + "/container")
	foreign := m.start(m.pod(2, podB) + "/" + container(5))

	s := m.open(Config{})
	is(t, s, pause.netns, podA)
	is(t, s, infra.netns, podC)
	is(t, s, foreign.netns, "")
	is(t, s, m.own, "")
	if inode, ok := s.Netns(podB); ok {
		t.Errorf("a pod on its node's network has %d", inode)
	}
	if got, want := s.NodeRoot(), m.top+"/node1"; got != want {
		t.Errorf("the node is %s, want %s", got, want)
	}
	if !s.Own(m.pod(1, podB)+"/"+container(3)+"/deeper") || s.Own(m.pod(2, podB)+"/"+container(5)) || s.Own("/system.slice") {
		t.Error("what is this node's is not told")
	}
	_, ok := m.groups.Info(pause.group)
	if info, _ := m.groups.Info(pause.group); !ok || info.PodUID != podA {
		t.Errorf("the group is %+v", info)
	}
}

// Only the first process of a pod tells its namespace, whoever execs there.
func TestExec(t *testing.T) {
	m := newMachine(t)
	host := m.enter(m.pod(1, podB)+"/"+container(1), nil)
	s := m.open(Config{})
	if !s.Exec(m.own, host.group) {
		t.Error("the agent's own namespace is not settled")
	}
	ns := bpftest.NewNetns(t)
	before := s.Generation()
	// Before the pod's own process, one of a pod that sets up networks, and one of
	// no pod: neither is the pod.
	guest := m.enter(m.pod(1, podB)+"/"+container(1), ns)
	for range 2 {
		if s.Exec(guest.netns, guest.group) {
			t.Error("a guest settles whose a namespace is")
		}
	}
	if s.Exec(guest.netns, m.groups.ID("/")) || s.Exec(guest.netns, 1<<40) {
		t.Error("a stranger settles whose a namespace is")
	}
	is(t, s, guest.netns, "")
	if s.Generation() != before {
		t.Error("a change where nothing has changed")
	}
	pause := m.enter(m.pod(1, podA)+"/"+container(2), ns)
	if !s.Exec(pause.netns, pause.group) {
		t.Error("the pod does not settle it")
	}
	is(t, s, pause.netns, podA)
	if s.Generation() == before {
		t.Error("no change")
	}
	// After it, nobody changes it.
	for _, group := range []uint64{guest.group, m.groups.ID("/"), pause.group} {
		s.Exec(guest.netns, group)
		is(t, s, pause.netns, podA)
	}
	foreign := m.start(m.pod(2, podC) + "/" + container(3))
	s.Exec(foreign.netns, foreign.group)
	is(t, s, foreign.netns, "")
}

// A namespace goes, and its number is another pod's: with or without a word of
// it, and also when that comes late.
func TestNumberUsedAgain(t *testing.T) {
	m := newMachine(t)
	s := m.open(Config{Sweep: time.Hour})
	run(t, s)
	ns := bpftest.NewNetns(t)
	first := m.enter(m.pod(1, podA)+"/"+container(1), ns)
	s.Exec(first.netns, first.group)
	is(t, s, first.netns, podA)
	first.end()
	s.Forget(first.netns)
	is(t, s, first.netns, "")
	second := m.enter(m.pod(1, podB)+"/"+container(2), ns)
	s.Exec(second.netns, second.group)
	is(t, s, second.netns, podB)
	second.end()
	third := m.enter(m.pod(1, podC)+"/"+container(3), ns)
	if !s.Exec(third.netns, third.group) {
		t.Error("not settled")
	}
	is(t, s, third.netns, podC)
	s.Forget(third.netns)
	bpftest.Eventually(t, "a look at the pods", func() bool { uid, _ := s.Pod(third.netns); return uid == podC })
	// A pod gets another sandbox.
	third.end()
	fourth := m.start(m.pod(1, podC) + "/" + container(4))
	s.Exec(fourth.netns, fourth.group)
	is(t, s, fourth.netns, podC)
	is(t, s, third.netns, "")
}

// Where no exec is told, a new group is, or a packet of its socket, or nothing.
func TestWithoutExec(t *testing.T) {
	m := newMachine(t)
	s := m.open(Config{Sweep: 200 * time.Millisecond})
	run(t, s)
	bpftest.Eventually(t, "the sweep", func() bool {
		p := m.start(m.pod(1, podA) + "/" + container(1))
		defer p.end()
		bpftest.Eventually(t, "the pod", func() bool { uid, _ := s.Pod(p.netns); return uid == podA })
		return true
	})
	s = m.open(Config{Sweep: time.Hour})
	run(t, s)
	time.Sleep(2 * freshRetry) // the first sweep is over
	group := m.group(m.pod(1, podB) + "/" + container(2))
	s.Made(group)
	s.Made("/system.slice/x.service")
	time.Sleep(3 * freshRetry) // runtimes take their time
	p := m.start(group)
	bpftest.Eventually(t, "the new pod", func() bool { uid, _ := s.Pod(p.netns); return uid == podB })
	q := m.start(m.pod(1, podC) + "/" + container(3))
	s.Learn(p.netns, m.pod(1, podC)+"/"+container(3)) // it may send from there
	s.Learn(q.netns, m.pod(1, podC)+"/"+container(3))
	bpftest.Eventually(t, "the pod that sends", func() bool { uid, _ := s.Pod(q.netns); return uid == podC })
	is(t, s, p.netns, podB)
}

// Without the host's process table the first word counts.
func TestWithoutSight(t *testing.T) {
	m := newMachine(t)
	m.group(m.pods(1))
	s := open(Config{Groups: m.groups, Own: m.own, Proc: t.TempDir()}, node{root: "/", pods: m.pods(1)})
	run(t, s)
	a, b := m.start(m.pod(1, podA)+"/"+container(1)), m.start(m.pod(1, podB)+"/"+container(2))
	if !s.Exec(a.netns, a.group) {
		t.Error("not settled")
	}
	is(t, s, a.netns, podA)
	if s.Exec(a.netns, b.group) {
		t.Error("a second word settles it")
	}
	is(t, s, a.netns, podA)
	s.Learn(b.netns, m.pod(1, podB)+"/"+container(2))
	bpftest.Eventually(t, "the pod that sends", func() bool { uid, _ := s.Pod(b.netns); return uid == podB })
	s.Forget(a.netns)
	s.Exec(a.netns, a.group)
	is(t, s, a.netns, podA)
}

func TestMine(t *testing.T) {
	m := newMachine(t)
	if _, err := m.groups.Self("/proc"); err != nil {
		t.Fatal(err)
	}
	bound := m.start(m.pod(1, podA) + "/" + container(1))
	nested := m.start(m.pod(1, podA) + "/" + container(1) + "/docker/" + container(2))
	foreign := m.start(m.pod(2, podB) + "/" + container(3))
	s := m.open(Config{})
	pid := func(p *process) uint32 { return uint32(p.Process.Pid) }
	for what, c := range map[string]struct {
		ns   netns.Namespace
		want bool
	}{
		"the own":        {netns.Namespace{Inode: m.own}, true},
		"by its name":    {netns.Namespace{Inode: 7, Name: "cni-1", Dir: "/run/netns"}, true},
		"Docker's":       {netns.Namespace{Inode: 7, Name: "1", Dir: "/run/docker/netns"}, false},
		"a pod's":        {netns.Namespace{Inode: bound.netns}, true},
		"Docker's, pod":  {netns.Namespace{Inode: bound.netns, Name: "1", Dir: "/run/docker/netns"}, true},
		"in a pod":       {netns.Namespace{Inode: nested.netns, PID: pid(nested)}, true},
		"another node's": {netns.Namespace{Inode: foreign.netns, PID: pid(foreign)}, false},
		"nobody's":       {netns.Namespace{Inode: 7, PID: 1 << 30}, false},
		"not seen":       {netns.Namespace{Inode: 7}, false},
	} {
		if got := s.Mine(c.ns); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// By hand on a machine, all the pods that it has are this node's, those that
// come later too.
func TestByHand(t *testing.T) {
	m := newMachine(t)
	first := m.start(m.pod(1, podA) + "/" + container(1))
	m.group(m.top + "/system.slice/x.service/deep/er")
	s := open(Config{Groups: m.groups, Own: m.own, Sweep: time.Hour}, node{root: m.top, sight: true})
	is(t, s, first.netns, podA)
	run(t, s)
	second := m.group(m.pod(2, podB) + "/" + container(2))
	s.Made(second)
	p := m.start(second)
	bpftest.Eventually(t, "the second kubelet's pod", func() bool { uid, _ := s.Pod(p.netns); return uid == podB })
	if id, level := s.NodeGroup(); id != m.groups.ID(m.top) || level != 1 {
		t.Errorf("group %d, level %d", id, level)
	}
	m.group(m.top + "/empty")
	s = open(Config{Groups: m.groups, Own: m.own}, node{root: m.top + "/empty", sight: true})
	if !mentions(s.Problems(), "is a kubelet running") {
		t.Errorf("problems %q", s.Problems())
	}
}

// Without cgroups there are names of files, and nothing else.
func TestWithoutGroups(t *testing.T) {
	s := Open(Config{Own: 7})
	if !mentions(s.Problems(), "mount the host's /sys/fs/cgroup") {
		t.Errorf("problems %q", s.Problems())
	}
	s.Made("/kubepods/pod" + podA)
	s.Learn(8, "/kubepods/pod"+podA)
	s.Forget(8)
	if s.Own("/kubepods/pod"+podA) || s.Mine(netns.Namespace{Inode: 8, PID: 1}) || !s.Exec(8, 1) {
		t.Error("something is known")
	}
	if !s.Mine(netns.Namespace{Inode: 7}) || !s.Mine(netns.Namespace{Inode: 8, Dir: "/run/netns"}) || s.NodeRoot() != "/" {
		t.Error("what needs no cgroup is not known")
	}
	run(t, s)
}
