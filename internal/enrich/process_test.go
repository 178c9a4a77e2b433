// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"testing"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

func TestProcess(t *testing.T) {
	e := machine(nil)
	service, other := e.Process(sshGroup, 10, "sshd"), e.Process(sshGroup, 11, "sshd-session")
	if service.Unit != "ssh.service" || service.Class != event.ClassHost || service.PID != 0 || service != other {
		t.Errorf("a service is one party: %+v, %+v", service, other)
	}
	if c := e.Process(dockerGroup, 12, "train"); c.Class != event.ClassContainer || c.Container != container || c.PID != 0 {
		t.Errorf("a container: %+v", c)
	}
	a, b := e.Process(sessionGroup, 13, "python3"), e.Process(sessionGroup, 14, "python3")
	if a == b || a.PID != 13 || a.Process != "python3" || a.Class != event.ClassHost || a != e.Process(sessionGroup, 13, "python3") {
		t.Errorf("processes of a session: %+v, %+v", a, b)
	}
	if long := e.Process(rootGroup, 15, "a name that is longer than the kernel allows"); len(long.Process) != 15 {
		t.Errorf("a long name: %+v", long)
	}
	if gone := e.Process(goneGroup, 16, "x"); gone.Process != "x" || gone.PID != 16 || gone.Class != event.ClassHost {
		t.Errorf("a group that is gone, where there are no pods: %+v", gone)
	}
}

func TestProcessOfAPod(t *testing.T) {
	n := newNode(t)
	early := n.Process(groupA, 1, "python3")
	if early.PodUID != uidA || early.Container != hex64("a") || early.Pod != "" {
		t.Errorf("before the cluster tells: %+v", early)
	}
	told := podChange(uidA, "a", "10.1.0.5")
	n.tell(told)
	unnamed := n.Process(groupA, 1, "python3")
	if unnamed.Pod != "a" || unnamed.Container != hex64("a") {
		t.Errorf("before the container has a name: %+v", unnamed)
	}
	withName := *told.Pod
	withName.Containers = []cluster.Container{{Name: "main", ID: hex64("a")}}
	n.tell(cluster.Change{Kind: cluster.KindPod, Key: uidA, Pod: &withName})
	named := n.Process(groupA, 2, "python3")
	if named.Container != "main" || named.PID != 0 || named != n.Process(groupA, 3, "other") {
		t.Errorf("a container is one party: %+v", named)
	}
	if n.Party(named) != n.m.Identity(uidA) {
		t.Error("its pod is another party")
	}
	if gone := n.Process(goneGroup, 4, "x"); gone != nil {
		t.Errorf("a group that is gone: %+v", gone)
	}
	if foreign := n.Process(groupForeign, 4, "x"); foreign != nil {
		t.Errorf("of another node on this kernel: %+v", foreign)
	}
}
