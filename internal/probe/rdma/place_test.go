// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

func TestDevicesOfPods(t *testing.T) {
	host := newSysfs(t)
	host.hca("mlx5_0", slot(0))
	b := newBench(t, host)
	pod := b.pod(t, Root{Netns: 50, PID: 1234})
	port := pod.hca("mlx5_7", slot(7))
	pod.hca("mlx5_0", slot(0)) // the kernel shares the host's with everyone
	b.pod(t, Root{Netns: 50, PID: 1235}).hca("mlx5_8", slot(8))
	b.pod(t, Root{Netns: 40, PID: 1300})
	b.roots = append(b.roots, Root{Netns: 41, PID: 1301}, Root{PID: 1}) // has ended; the host's
	s := b.next(time.Second)
	if diff := cmp.Diff([]string{"0/mlx5_0", "50/mlx5_7"}, listed(s)); diff != "" || len(s.Problems) > 0 {
		t.Errorf("%s %q", diff, s.Problems)
	}
	pod.write(port+"/counters/port_rcv_data", 2002)
	d := b.next(time.Second).Devices[1]
	if d.Shared || d.QueuePairsKnown || d.PCI != "0000:22:00.0" || d.NUMA != 1 || d.Ports[0].Moved.RxBytes != 8 {
		t.Errorf("%+v", d)
	}
	// Its process ends, and another is told of; it is not opened again for that.
	b.roots[0].PID = 1236
	if diff := cmp.Diff([]string{"0/mlx5_0", "50/mlx5_7"}, listed(b.next(time.Second))); diff != "" {
		t.Error(diff)
	}
	b.roots = nil
	if diff := cmp.Diff([]string{"0/mlx5_0"}, listed(b.next(time.Second))); diff != "" || len(b.places) > 0 {
		t.Error(diff)
	}
}

func TestADeviceMoves(t *testing.T) {
	host := newSysfs(t)
	host.hca("mlx5_0", slot(0))
	b := newBench(t, host)
	pod := b.pod(t, Root{Netns: 50, PID: 1234})
	b.next(time.Second)
	port := pod.hca("mlx5_0", slot(0))
	pod.write(port+"/counters/port_rcv_data", 3000)
	if diff := cmp.Diff([]string{"0/mlx5_0"}, listed(b.next(time.Second))); diff != "" {
		t.Errorf("while both have it: %s", diff)
	}
	host.unplug("mlx5_0")
	s := b.next(2 * time.Second) // the pod's is looked at again by now
	if diff := cmp.Diff([]string{"50/mlx5_0"}, listed(s)); diff != "" {
		t.Fatal(diff)
	}
	if p := s.Devices[0].Ports[0]; p.MovedKnown || p.Total.RxBytes != 12000 {
		t.Errorf("%+v", p)
	}
	pod.unplug("mlx5_0")
	host.hca("mlx5_0", slot(0))
	if diff := cmp.Diff([]string{"0/mlx5_0"}, listed(b.next(time.Second))); diff != "" {
		t.Error(diff)
	}
}

func TestPodsWithoutDevicesAreLookedAtSeldom(t *testing.T) {
	host := newSysfs(t)
	b := newBench(t, host)
	pod := b.pod(t, Root{Netns: 50, PID: 1234})
	var looked []int
	for second := range 120 {
		p := b.places[50]
		before := time.Time{}
		if p != nil {
			before = p.due
		}
		b.next(time.Second)
		if b.places[50].due != before {
			looked = append(looked, second)
		}
	}
	if diff := cmp.Diff([]int{0, 1, 3, 7, 15, 31, 61, 91}, looked); diff != "" {
		t.Error(diff)
	}
	pod.hca("mlx5_1", slot(1))
	if diff := cmp.Diff([]string{"50/mlx5_1"}, listed(b.next(30*time.Second))); diff != "" {
		t.Error(diff)
	}
	// Without RDMA in the kernel they are not looked at at all.
	host.ok(os.RemoveAll(filepath.Join(host.dir, "class/infiniband")))
	b.roots = append(b.roots, Root{Netns: 51, PID: 1235})
	b.next(time.Second)
	if b.places[51] != nil {
		t.Error("a namespace is looked at")
	}
}

func TestNothingOutsideOfAPodIsRead(t *testing.T) {
	host := newSysfs(t)
	b := newBench(t, host)
	secret := newSysfs(t)
	secret.hca("mlx5_9", slot(9))
	out := b.pod(t, Root{Netns: 50, PID: 50})
	out.link(filepath.Join(secret.dir, "class/infiniband/mlx5_9"), "class/infiniband/mlx5_9")
	class := b.pod(t, Root{Netns: 51, PID: 51})
	class.ok(os.RemoveAll(filepath.Join(class.dir, "class")))
	class.link(filepath.Join(secret.dir, "class"), "class")
	root := b.pod(t, Root{Netns: 52, PID: 52})
	root.ok(os.RemoveAll(root.dir))
	root.ok(os.Symlink(secret.dir, root.dir))
	file := b.pod(t, Root{Netns: 53, PID: 53})
	port := file.hca("mlx5_3", slot(3))
	path := filepath.Join(file.dir, port, "counters/link_downed")
	file.ok(os.Remove(path))
	file.ok(os.Symlink(filepath.Join(secret.dir, "devices", slot(9), "numa_node"), path))
	dots := b.pod(t, Root{Netns: 54, PID: 54})
	dots.link(strings.Repeat("../", 40)+"etc", "class/infiniband/dots")

	s := b.next(time.Second)
	if diff := cmp.Diff([]string{"53/mlx5_3"}, listed(s)); diff != "" || len(s.Problems) > 0 {
		t.Fatalf("%s %q", diff, s.Problems)
	}
	for _, c := range s.Devices[0].Ports[0].Counters {
		if c.Name == "link_downed" {
			t.Errorf("%+v is read", c)
		}
	}
	// Without the setting none of these trees is sysfs.
	b.Plain = false
	s = newRoundOf(t, b).sample()
	if len(s.Devices) > 0 || len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "is not sysfs") {
		t.Errorf("%+v", s)
	}
}

// newRoundOf is another round with the settings of b.
func newRoundOf(t *testing.T, b *bench) *round {
	r := newRound(b.Settings)
	t.Cleanup(r.close)
	return r
}

func TestThisMachine(t *testing.T) {
	// The test's own process stands in for a pod's: its root has the host's sysfs, and
	// whatever is there is told once.
	r := newRound(Settings{Roots: func() []Root { return []Root{{Netns: 1, PID: uint32(os.Getpid())}} }}.filled())
	defer r.close()
	for range 2 {
		s := r.sample()
		for _, d := range s.Devices {
			if d.Netns != 0 {
				t.Errorf("%+v", d)
			}
		}
		if len(s.Devices) == 0 && len(s.Problems) > 0 {
			t.Errorf("without devices: %q", s.Problems)
		}
	}
}

func TestAPodThatHangs(t *testing.T) {
	host := newSysfs(t)
	host.hca("mlx5_0", slot(0))
	b := newBench(t, host)
	stuck := make(chan struct{})
	b.next(time.Second)
	p := &place{root: Root{Netns: 50, PID: 1}, busy: true, since: b.clock.at}
	b.places[50] = p
	b.crew.begin(true, func() { <-stuck }, func() { p.busy = false; p.close() })
	b.roots = []Root{p.root}
	b.Deadline = 20 * time.Millisecond
	s := b.next(time.Second)
	if len(s.Problems) == 0 || !strings.Contains(fmt.Sprint(s.Problems), "namespace 50") {
		t.Errorf("%q", s.Problems)
	}
	close(stuck)
	b.Deadline = 20 * time.Second
	bpftest.Eventually(t, "it is back", func() bool { return len(b.next(time.Second).Problems) == 0 })
}

func TestSampler(t *testing.T) {
	host := newSysfs(t)
	host.hca("mlx5_0", slot(0))
	s := Start(Settings{Sysfs: host.dir, Plain: true, Every: 10 * time.Millisecond, Deadline: 5 * time.Second})
	bpftest.Eventually(t, "two rounds", func() bool {
		l := s.Latest()
		return len(l.Devices) == 1 && l.Devices[0].Ports[0].MovedKnown
	})
	s.Close()
	s.Close()
	if s.Latest().At == 0 {
		t.Error("no time")
	}
}

// cpu is the time that the process has had.
func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// 8 HCAs of mlx5, and of 500 pods' namespaces none with devices: a second.
func BenchmarkRound(b *testing.B) {
	for _, pods := range []int{0, 500} {
		b.Run(fmt.Sprintf("8HCAs/%dpods", pods), func(b *testing.B) {
			host := newSysfs(b)
			for i := range 8 {
				host.hca(fmt.Sprintf("mlx5_%d", i), slot(i))
			}
			r := newBench(b, host)
			for i := range pods {
				r.pod(b, Root{Netns: uint32(100 + i), PID: uint32(100 + i)})
			}
			for range 120 {
				r.next(time.Second)
			}
			b.ReportAllocs()
			before := cpu()
			for b.Loop() {
				r.next(time.Second)
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}
