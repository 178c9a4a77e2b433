// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"strings"
	"testing"
)

var (
	id1 = strings.Repeat("0123456789abcdef", 4)
	id2 = strings.Repeat("fedcba9876543210", 4)
)

const (
	uid    = "5b5a2c0e-7d43-4c0e-9d5e-2f0b6a1d3c4e"
	uidSys = "5b5a2c0e_7d43_4c0e_9d5e_2f0b6a1d3c4e"
	static = "0123456789abcdef0123456789abcdef"
)

func paths() map[string]Info {
	return map[string]Info{
		"":  {},
		"/": {},
		// Kubernetes.
		"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidSys + ".slice/cri-containerd-" + id1 + ".scope": {Runtime: "containerd", Container: id1, PodUID: uid},
		"/kubepods.slice/kubepods-pod" + uidSys + ".slice/cri-containerd-" + id1 + ".scope/init.scope":                         {Runtime: "containerd", Container: id1, PodUID: uid},
		"/kubepods/besteffort/pod" + uid + "/" + id1:                                                                           {Container: id1, PodUID: uid},
		"/kubepods/pod" + static + "/" + id1:                                                                                   {Container: id1, PodUID: static},
		"/kubepods.slice/kubepods-pod" + static + ".slice/crio-" + id1 + ".scope":                                              {Runtime: "cri-o", Container: id1, PodUID: static},
		"/kubepods.slice/kubepods-pod" + uidSys + ".slice/crio-conmon-" + id1 + ".scope":                                       {PodUID: uid, Unit: "crio-conmon-" + id1 + ".scope"},
		"/kubepods/burstable/pod" + uid + "/crio-" + id1:                                                                       {Runtime: "cri-o", Container: id1, PodUID: uid},
		"/system.slice/containerd.service/kubepods-burstable-pod" + uidSys + ".slice:cri-containerd:" + id1:                    {Runtime: "containerd", Container: id1, PodUID: uid},
		"/system.slice/kubelet.service":                                                                                        {Unit: "kubelet.service"},
		"/kubepods.slice/kubepods-burstable.slice":                                                                             {},
		// Nested: kind, Docker in a pod, Docker in Docker.
		"/docker/" + id1 + "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod" + uidSys + ".slice/cri-containerd-" + id2 + ".scope": {Runtime: "containerd", Container: id2, PodUID: uid},
		"/kubepods/pod" + uid + "/" + id1 + "/docker/" + id2:                     {Container: id1, PodUID: uid},
		"/kubepods/pod" + uid + "/" + id1 + "/kubepods/pod" + static + "/" + id2: {Container: id1, PodUID: uid},
		"/docker/" + id1 + "/docker/" + id2:                                      {Runtime: "docker", Container: id2},
		"/docker/" + id1 + "/system.slice/nginx.service":                         {Runtime: "docker", Container: id1},
		"/system.slice/docker-" + id1 + ".scope/system.slice/nginx.service":      {Runtime: "docker", Container: id1},
		// The other runtimes.
		"/system.slice/docker-" + id1 + ".scope": {Runtime: "docker", Container: id1},
		"/docker/" + id1:                         {Runtime: "docker", Container: id1},
		"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + id1 + ".scope":           {Runtime: "docker", Container: id1},
		"/machine.slice/libpod-" + id1 + ".scope":                                                     {Runtime: "podman", Container: id1},
		"/machine.slice/libpod-" + id1 + ".scope/container":                                           {Runtime: "podman", Container: id1},
		"/machine.slice/libpod-conmon-" + id1 + ".scope":                                              {Unit: "libpod-conmon-" + id1 + ".scope"},
		"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope/container": {Runtime: "podman", Container: id1},
		"/system.slice/nerdctl-" + id1 + ".scope":                                                     {Runtime: "nerdctl", Container: id1},
		"/default/" + id1:           {Container: id1},
		"/ecs/0123abcd/" + id1:      {Container: id1},
		"/lxc.payload.web/init":     {Runtime: "lxc", Container: "web"},
		"/lxc.monitor.web":          {},
		"/lxc/web/system.slice/a.b": {Runtime: "lxc", Container: "web"},
		// systemd.
		"/system.slice/ssh.service":                                         {Unit: "ssh.service"},
		"/system.slice/system-getty.slice/getty@tty1.service":               {Unit: "getty@tty1.service"},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/x.service": {Unit: "x.service"},
		"/user.slice/user-1000.slice/user@1000.service/init.scope":          {Unit: "user@1000.service"},
		"/user.slice/user-1000.slice/session-3.scope":                       {Unit: "session-3.scope"},
		"/system.slice/slurmstepd.scope/job_7/step_0/user/task_0":           {Unit: "slurmstepd.scope"},
		"/init.scope":   {Unit: "init.scope"},
		"/system.slice": {},
		// What only looks like it.
		"/system.slice/docker-" + id1[1:] + ".scope": {Unit: "docker-" + id1[1:] + ".scope"},
		"/system.slice/podman.service":               {Unit: "podman.service"},
		"/docker/" + strings.ToUpper(id1):            {},
		"/a.slice/kubepods-podx.slice/.service":      {},
		"/my-pod" + uidSys + ".slice/ssh.service":    {Unit: "ssh.service"},
		"/docker-/.scope":                            {},
	}
}

func TestParse(t *testing.T) {
	for path, want := range paths() {
		want.Path = path
		if got := Parse(path); got != want {
			t.Errorf("%s\n got %+v\nwant %+v", path, got, want)
		}
	}
}

// Whatever a path is, what is told of it stands in it, and a container has no
// unit.
func FuzzParse(f *testing.F) {
	for path := range paths() {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		i := Parse(path)
		if i.Path != path || !strings.Contains(path, i.Container) || !strings.Contains(path, i.Unit) {
			t.Errorf("%+v of %q", i, path)
		}
		if i.Container != "" && i.Unit != "" || i.Container == "" && i.Runtime != "" {
			t.Errorf("%+v is two things", i)
		}
		if i.PodUID != "" && !isUID(i.PodUID, '-') {
			t.Errorf("pod %q", i.PodUID)
		}
		if strings.Contains(i.Container+i.Unit, "/") {
			t.Errorf("%+v holds a path", i)
		}
	})
}
