// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/cgroup"
)

// TestPlace: the agent's own path and what is mounted for it tell the node.
func TestPlace(t *testing.T) {
	const (
		agent    = "/besteffort/pod" + podA + "/"
		kindPods = "/kubelet.slice/kubelet-kubepods.slice"
		kindPod  = kindPods + "/kubelet-kubepods-pod" + "aaaaaaaa_7d43_4c0e_9d5e_2f0b6a1d3c4e.slice/cri-containerd-"
	)
	id, kind := container(1), "/docker/"+container(9)
	outer := "/kubepods/pod" + podB + "/" + container(8)
	for name, c := range map[string]struct {
		self       string
		mounted    []string
		root, pods string
		own, other string
	}{
		"a machine": {
			"/kubepods" + agent + id,
			[]string{"/"},
			"/", "/kubepods",
			"/kubepods/pod" + podB + "/" + id, "/docker/" + id,
		},
		"a machine with systemd": {
			"/kubepods.slice/kubepods-podaaaaaaaa_7d43_4c0e_9d5e_2f0b6a1d3c4e.slice/crio-" + id + ".scope",
			[]string{"/"},
			"/", "/kubepods.slice",
			"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podbbbbbbbb_7d43_4c0e_9d5e_2f0b6a1d3c4e.slice/crio-" + id + ".scope", "/system.slice/crio.service",
		},
		"a container's own mount": {
			"/kubepods" + agent + id,
			[]string{"/kubepods" + agent + id},
			"/", "/kubepods",
			"/kubepods/pod" + podB + "/" + id, "/kubepods",
		},
		"kind": {
			kind + kindPod + id + ".scope",
			[]string{kind},
			kind, kind + kindPods,
			kind + kindPods + "/kubelet-kubepods-podbbbbbbbb_7d43_4c0e_9d5e_2f0b6a1d3c4e.slice/cri-containerd-" + id + ".scope",
			"/docker/" + container(7) + kindPod + id + ".scope",
		},
		"kind, whole mount": {
			kind + kindPod + id + ".scope",
			[]string{"/"},
			kind, kind + kindPods,
			kind + kindPod + id + ".scope", kind + "/system.slice/kubelet.service",
		},
		"nodes in groups": {
			"/kc/node1/kubepods" + agent + id,
			[]string{"/kc/node1"},
			"/kc/node1", "/kc/node1/kubepods",
			"/kc/node1/kubepods/pod" + podB + "/" + id, "/kc/node2/kubepods/pod" + podB + "/" + id,
		},
		"nodes in groups, own mount": {
			"/kc/node1/kubepods" + agent + id,
			[]string{"/kc/node1/kubepods" + agent + id},
			"/", "/kc/node1/kubepods",
			"/kc/node1/kubepods/pod" + podB + "/" + id, "/kc/node10/kubepods/pod" + podB + "/" + id,
		},
		"kind in a pod": {
			outer + kind + kindPod + id + ".scope",
			[]string{outer + kind},
			outer + kind, outer + kind + kindPods,
			outer + kind + kindPod + id + ".scope", outer + "/x",
		},
		"a kubelet in a pod": {
			outer + "/kubepods" + agent + id,
			[]string{"/"},
			outer, outer + "/kubepods",
			outer + "/kubepods/pod" + podC + "/" + id, outer,
		},
		"by hand": {
			"/user.slice/session-1.scope",
			[]string{"/"},
			"/", "",
			"/kubepods/pod" + podB + "/" + id, "/kubepods/besteffort",
		},
		"by hand in a node": {
			"/kc/node1",
			[]string{"/kc/node1"},
			"/kc/node1", "",
			"/kc/node1/kubepods/pod" + podB + "/" + id, "/kc/node2/kubepods/pod" + podB + "/" + id,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := node{root: "/"}
			n.place(c.self, c.mounted)
			if n.root != c.root || n.pods != c.pods {
				t.Errorf("node %q, pods %q", n.root, n.pods)
			}
			s := open(Config{}, n)
			if !s.Own(c.own) || s.Own(c.other) {
				t.Errorf("own %v, other %v", s.Own(c.own), s.Own(c.other))
			}
			if c.pods == "" {
				return
			}
			if !s.Own(c.self) || s.uid(s.podGroup(c.self)) != podA {
				t.Errorf("the agent's own pod is %q", s.podGroup(c.self))
			}
			// What a container makes stays its own.
			below := c.self + "/kubepods/pod" + podC + "/" + id
			if s.podGroup(below) != s.podGroup(c.self) {
				t.Errorf("%s is in %q", below, s.podGroup(below))
			}
		})
	}
}

// insideEnv makes this binary the agent in a pod: which node's, and what it is
// to find.
const insideEnv = "ORB8_TEST_SANDBOX_INSIDE"

func TestMain(m *testing.M) {
	if want := os.Getenv(insideEnv); want != "" {
		if err := inside(strings.Fields(want)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// An agent in a pod, with cgroup and mount namespaces of its own, and as on a
// real node or in kind with or without the node's processes, knows its place.
func TestInside(t *testing.T) {
	m := newMachine(t)
	agent := m.group(m.pod(1, podA) + "/" + container(1))
	m.group(m.pod(2, podA) + "/" + container(1))
	for name, c := range map[string]struct {
		mount string // of which group the agent sees the root
		clone uintptr
		first string // in which group the first process of a pid namespace is
		want  string
	}{
		"a node's cgroups":      {"node", 0, "", "node sight"},
		"its own cgroups":       {"own", 0, "", "root sight"},
		"no processes":          {"node", unix.CLONE_NEWPID, agent, "node blind"},
		"no processes, own too": {"own", unix.CLONE_NEWPID, agent, "root blind"},
		"its pod's processes":   {"node", unix.CLONE_NEWPID, m.group(m.pod(1, podA) + "/" + container(2)), "node blind"},
		"a node's processes":    {"node", unix.CLONE_NEWPID, m.top + "/node1", "node sight"},
	} {
		t.Run(name, func(t *testing.T) {
			bpftest.RequireKernel(t)
			point := t.TempDir()
			// A process in the node's group makes the mount, as the node's system does;
			// then its container's group is the root of the agent's namespace.
			enter := "echo 0 >" + m.groups.Path(agent) + "/cgroup.procs; "
			script := enter + `exec "$0"`
			if c.mount == "node" {
				script = "mount -t cgroup2 none " + point + "; " + script
			}
			if c.first != "" {
				script = "mount -t proc proc /proc; echo 0 >" + m.groups.Path(c.first) + "/cgroup.procs; " + script
				if c.first != agent {
					script = strings.Replace(script, enter, "("+enter, 1) + "); true"
				}
			}
			dir, err := os.Open(m.groups.Path(filepath.Dir(m.pods(1))))
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			cmd := exec.Command("sh", "-ec", script, os.Args[0])
			cmd.Env = append(os.Environ(), insideEnv+"="+strings.Join([]string{c.want, point, m.top, agent, c.mount}, " "))
			cmd.SysProcAttr = &syscall.SysProcAttr{
				UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL,
				Cloneflags: c.clone, Unshareflags: unix.CLONE_NEWCGROUP | unix.CLONE_NEWNS,
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func inside(want []string) error {
	root, sight, point, top, agent := want[0], want[1], want[2], want[3], want[4]
	if len(want) > 5 { // in its own cgroup namespace only after the next exec
		return confine(want[:5], want[5], point)
	}
	groups, err := cgroup.Open(cgroup.Config{Mount: point})
	if err != nil {
		return err
	}
	defer groups.Close()
	s := Open(Config{Groups: groups, Own: 1})
	if root = map[string]string{"node": top + "/node1", "root": "/"}[root]; s.NodeRoot() != root {
		return fmt.Errorf("the node is %q, not %q", s.NodeRoot(), root)
	}
	if !s.Own(agent) || s.Own(strings.Replace(agent, "node1", "node2", 1)) {
		return fmt.Errorf("own pods are in %q", s.node.pods)
	}
	if s.AllProcesses() != (sight == "sight") || mentions(s.Problems(), "hostPID") == s.AllProcesses() {
		return fmt.Errorf("sight %v, problems %q", s.AllProcesses(), s.Problems())
	}
	if path, err := groups.Of("/proc", uint32(os.Getpid())); err != nil || path != agent {
		return fmt.Errorf("own path %q, %w; not %q", path, err, agent)
	}
	return nil
}

// confine begins anew in a cgroup namespace whose root is the present group.
func confine(want []string, mount, point string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return err
	}
	if mount == "own" {
		if err := unix.Mount("none", point, "cgroup2", 0, ""); err != nil {
			return err
		}
	}
	if err := os.Setenv(insideEnv, strings.Join(want, " ")); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}
