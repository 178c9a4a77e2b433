// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"path/filepath"
	"strings"
	"testing"
)

// As runtimes and drivers lay a node out.
var layouts = []struct{ name, node, pods, pod, container string }{
	{"cgroupfs", "/", "/kubepods", "/burstable/pod" + uid, "/" + id1},
	{"cgroupfs, guaranteed", "/", "/kubepods", "/pod" + uid, "/" + id1},
	{"cgroupfs, CRI-O", "/", "/kubepods", "/besteffort/pod" + uid, "/crio-" + id1},
	{"static pod", "/", "/kubepods", "/burstable/pod" + static, "/" + id1},
	{"systemd, containerd", "/", "/kubepods.slice", "/kubepods-burstable.slice/kubepods-burstable-pod" + uidSys + ".slice", "/cri-containerd-" + id1 + ".scope"},
	{"systemd, CRI-O", "/", "/kubepods.slice", "/kubepods-pod" + uidSys + ".slice", "/crio-" + id1 + ".scope"},
	{"kind", "/docker/" + id2, "/docker/" + id2 + "/kubelet.slice/kubelet-kubepods.slice", "/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + uidSys + ".slice", "/cri-containerd-" + id1 + ".scope"},
	{"kind, cgroupfs", "/docker/" + id2, "/docker/" + id2 + "/kubelet/kubepods", "/burstable/pod" + uid, "/" + id1},
	{"kind, Docker by systemd", "/system.slice/docker-" + id2 + ".scope", "/system.slice/docker-" + id2 + ".scope/kubelet.slice/kubelet-kubepods.slice", "/kubelet-kubepods-pod" + uidSys + ".slice", "/cri-containerd-" + id1 + ".scope"},
	{"kind in a pod", "/kubepods/pod" + static + "/" + id2 + "/docker/" + id2, "/kubepods/pod" + static + "/" + id2 + "/docker/" + id2 + "/kubelet/kubepods", "/pod" + uid, "/" + id1},
	{"a group of its own for nodes", "/", "/kc/node1/kubepods", "/burstable/pod" + uid, "/" + id1},
	{"two languages", "/", "/system.slice/containerd.service", "/kubepods-burstable-pod" + uidSys + ".slice:cri-containerd:" + id1, ""},
}

func TestLayouts(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			// Whoever runs deeper in the container is in the pod all the same.
			for _, inner := range []string{"", "/init.scope", "/docker/" + id2, "/a/b"} {
				path := l.pods + l.pod + l.container + inner
				if root, ok := PodsRoot(path); !ok || root != l.pods {
					t.Errorf("%s: pods in %q, %v", path, root, ok)
				}
				for _, base := range []string{filepath.Dir(l.pods), l.node} {
					if base == "/" && strings.Count(path, "/pod") > 1 {
						continue
					}
					if got := PodGroup(base, path); got != l.pods+l.pod {
						t.Errorf("%s below %s: the pod is %q", path, base, got)
					}
					i := ParseBelow(base, path)
					want := uid
					if l.name == "static pod" {
						want = static
					}
					if i.PodUID != want || i.Container != id1 || i.Path != path {
						t.Errorf("%s below %s is %+v", path, base, i)
					}
				}
			}
			if got := ContainerRoot(filepath.Dir(l.pods)); got != l.node {
				t.Errorf("the node is %q, want %q", got, l.node)
			}
		})
	}
}

// What a container makes below its own group is the container, whatever it is
// called; and what only looks like a pod is none.
func TestImpostors(t *testing.T) {
	within := "/kubepods/burstable/pod" + uid + "/" + id1
	for _, below := range []string{
		"/kubepods/pod" + static + "/" + id2,
		"/kubepods.slice/kubepods-pod" + static + ".slice/cri-containerd-" + id2 + ".scope",
		"/docker/" + id2 + "/kubelet/kubepods/pod" + static,
		"/../kubepods/pod" + static,
	} {
		path := within + below
		if got := PodGroup("/", path); got != "/kubepods/burstable/pod"+uid {
			t.Errorf("%s is in %q", path, got)
		}
		if i := Parse(path); i.PodUID != uid || i.Container != id1 {
			t.Errorf("%s is %+v", path, i)
		}
	}
	for _, path := range []string{
		"/", "", "/kubepods", "/kubepods/burstable", "/system.slice/kubelet.service", "/docker/" + id1,
		"/docker/" + id1 + "/pod" + uid, "/machine.slice/pod" + static, "/kubepods/podx", "/kubepodsx",
	} {
		if got := PodGroup("/", path); got != "" {
			t.Errorf("%s is in the pod %q", path, got)
		}
		if root, ok := PodsRoot(path); ok {
			t.Errorf("%s is in pods of %q", path, root)
		}
	}
}

func TestBelow(t *testing.T) {
	for _, c := range []struct {
		group, path string
		want        bool
	}{
		{"/", "/a", true},
		{"/a", "/a", true},
		{"/a", "/a/b", true},
		{"/a", "/ab", false},
		{"/a/b", "/a", false},
		{"", "/", true},
	} {
		if got := Below(c.group, c.path); got != c.want {
			t.Errorf("%q below %q: %v", c.path, c.group, got)
		}
	}
}

func TestParseGroup(t *testing.T) {
	for text, want := range map[string]string{
		"9:name=systemd:/x\n0::/a/b\n":   "/a/b",
		"0::/\n":                         "/",
		"0::/../../kubepods/pod\n":       "/../../kubepods/pod",
		"0::/gone (deleted)\n1:cpu:/x\n": "/gone",
		"1:cpu:/x\n":                     "",
		"":                               "",
		"0::relative\n":                  "",
	} {
		if got, ok := parseGroup([]byte(text)); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", text, got, ok)
		}
	}
}

// Whatever the path, what is found is a part of it, and one pod says the same
// of all that is in it.
func FuzzPods(f *testing.F) {
	for _, l := range layouts {
		f.Add(l.node, l.pods+l.pod+l.container)
	}
	f.Add("/", "//kubepods//pod"+static+"//x")
	f.Fuzz(func(t *testing.T, base, path string) {
		group := PodGroup(base, path)
		if !strings.HasPrefix(path, group) {
			t.Errorf("%q is not of %q", group, path)
		}
		if uid := ParseBelow(base, path).PodUID; (group != "") != (uid != "") {
			t.Errorf("%q below %q: group %q, pod %q", path, base, group, uid)
		}
		if group != "" && (PodGroup(base, group) != group || PodGroup(base, group+"/x") != group) {
			t.Errorf("%q is in %q", group, PodGroup(base, group))
		}
		if root, ok := PodsRoot(path); ok && root != "/" && !strings.HasPrefix(path, root) {
			t.Errorf("pods of %q in %q", path, root)
		}
		if root := ContainerRoot(path); root != "/" && !strings.HasPrefix(path, root) {
			t.Errorf("container of %q in %q", path, root)
		}
	})
}

func FuzzParseGroup(f *testing.F) {
	f.Add([]byte("9:name=systemd:/x\n0::/a/b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if group, ok := parseGroup(b); ok != strings.HasPrefix(group, "/") {
			t.Errorf("%q of %q", group, b)
		}
	})
}

func BenchmarkPodGroup(b *testing.B) {
	l := layouts[4]
	path := l.pods + l.pod + l.container
	b.ReportAllocs()
	for b.Loop() {
		PodGroup(l.node, path)
	}
}
