// SPDX-License-Identifier: Apache-2.0

package cgroup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
)

// childEnv makes this binary the agent in a cgroup namespace; its value is
// the path of a group to find, and its id.
const childEnv = "ORB8_TEST_CGROUP_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

func open(t testing.TB, cfg Config) *Resolver {
	t.Helper()
	bpftest.RequireKernel(t)
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// group makes one of the test's own below the root, removed at its end.
func group(t testing.TB, r *Resolver, name string) (path string, id uint64) {
	t.Helper()
	path = fmt.Sprintf("/orb8-test-%d/%s", os.Getpid(), name)
	full := r.point + path
	if err := os.MkdirAll(full, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for dir := path; dir != "/"; dir = filepath.Dir(dir) {
			_ = unix.Rmdir(r.point + dir)
		}
	})
	return path, inodeOf(t, full)
}

func inodeOf(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestInfo(t *testing.T) {
	r := open(t, Config{})
	if i, ok := r.Info(rootID); !ok || i.Path != "/" {
		t.Errorf("the root is %+v", i)
	}
	for _, name := range []string{"web.service", "docker-" + id1 + ".scope", "odd (deleted)", "sp ace\\x"} {
		path, id := group(t, r, name)
		want := Parse(path)
		for range 2 { // asked, then remembered
			if i, ok := r.Info(id); !ok || *i != want {
				t.Errorf("%s is %+v", name, i)
			}
		}
	}
	for _, id := range []uint64{0, 1 << 40} {
		if i, ok := r.Info(id); ok {
			t.Errorf("group %d is %+v", id, i)
		}
	}
	if p := r.Problems(); p != nil {
		t.Error(p)
	}
}

// A group that is gone is still named, when it was asked for or told of before.
func TestGone(t *testing.T) {
	r := open(t, Config{})
	known, knownID := group(t, r, "known.service")
	told, toldID := group(t, r, "told.service")
	silent, silentID := group(t, r, "silent.service")
	r.Info(knownID)
	r.Remember(toldID, told)
	for _, p := range []string{known, told, silent} {
		if err := unix.Rmdir(r.point + p); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[uint64]string{knownID: "known.service", toldID: "told.service"} {
		if i, ok := r.Info(id); !ok || i.Unit != want {
			t.Errorf("%s is %+v", want, i)
		}
	}
	if i, ok := r.Info(silentID); ok {
		t.Errorf("found %+v", i)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if i, ok := r.Info(knownID); !ok || i.Path != known {
		t.Errorf("after the end %s is %+v", known, i)
	}
	if i, ok := r.Info(1 << 41); ok {
		t.Errorf("after the end found %+v", i)
	}
}

// That there is none is believed for a second.
func TestNegativeEntriesAge(t *testing.T) {
	bpftest.RequireKernel(t)
	synctest.Test(t, func(t *testing.T) {
		r := open(t, Config{})
		id := uint64(1 << 40)
		r.Info(id)
		e := r.cache.entries[id]
		if e == nil || e.info != nil {
			t.Fatalf("entry %+v", e)
		}
		first := e.expires
		time.Sleep(negative - time.Millisecond)
		if r.Info(id); e.expires != first {
			t.Error("asked again at once")
		}
		time.Sleep(time.Millisecond)
		if r.Info(id); e.expires == first {
			t.Error("never asked again")
		}
	})
}

// Where handles are refused, a walk finds groups, and is not made for each.
func TestWalk(t *testing.T) {
	r := open(t, Config{})
	r.refused = true
	_, id := group(t, r, "deep/er/web.service")
	if i, ok := r.Info(id); !ok || i.Unit != "web.service" {
		t.Errorf("found %+v", i)
	}
	_, late := group(t, r, "late.service")
	if i, ok := r.Info(late); ok {
		t.Errorf("a second walk at once found %+v", i)
	}
	r.walked = time.Time{}
	r.cache.entries[late].expires = time.Time{}
	if i, ok := r.Info(late); !ok || i.Unit != "late.service" {
		t.Errorf("found %+v", i)
	}
	if len(r.Problems()) != 1 {
		t.Errorf("problems %v", r.Problems())
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(3)
	ids := func() (out []uint64) {
		for e, n := c.newest, 0; n < len(c.entries); e, n = e.next, n+1 {
			out = append(out, e.id)
		}
		return out
	}
	for id := range uint64(5) {
		c.put(id, &Info{}, time.Time{})
	}
	c.get(2)
	c.put(9, &Info{}, time.Time{})
	c.get(2)
	if got := ids(); !slices.Equal(got, []uint64{2, 9, 4}) || len(c.entries) != 3 {
		t.Errorf("kept %v", got)
	}
}

func TestProcesses(t *testing.T) {
	r := open(t, Config{})
	path, _ := group(t, r, "sleep.service")
	cmd := sleeper(t, r, path)
	pids, err := r.Processes(path)
	if err != nil || !slices.Equal(pids, []uint32{uint32(cmd.Process.Pid)}) {
		t.Errorf("%v, %v", pids, err)
	}
	if _, err := r.Processes("/../../etc"); err == nil {
		t.Error("left the hierarchy")
	}
	many := strings.Repeat("7\n0\n", maxProcesses+1)
	if pids, err := readProcesses(strings.NewReader(many)); len(pids) != maxProcesses || err == nil {
		t.Errorf("%d, %v", len(pids), err)
	}
	if _, err := readProcesses(strings.NewReader("x\n")); err == nil {
		t.Error("x is no process")
	}
}

// sleeper starts a process in a group and ends it before the group goes.
func sleeper(t testing.TB, r *Resolver, path string) *exec.Cmd {
	t.Helper()
	dir, err := os.Open(r.point + path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func TestMounts(t *testing.T) {
	text := `23 1 0:5 / /proc rw - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw
42 31 0:38 /../.. /host/sys\040fs\134x rw,relatime - cgroup2 none rw
broken - cgroup2 x
`
	if got := mounts([]byte(text)); !slices.Equal(got, []string{`/host/sys fs\x`, "/sys/fs/cgroup/unified"}) {
		t.Errorf("%q", got)
	}
}

func FuzzMounts(f *testing.F) {
	f.Add([]byte("41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"))
	f.Add([]byte(`1 2 3 / /a\040b\999\04 x - cgroup2 `))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range mounts(b) {
			if p == "" {
				t.Errorf("a mount without a place in %q", b)
			}
		}
	})
}

func FuzzReadProcesses(f *testing.F) {
	f.Add("1\n2\n0\n")
	f.Add("-1\n")
	f.Fuzz(func(t *testing.T, s string) {
		pids, _ := readProcesses(strings.NewReader(s))
		if len(pids) > maxProcesses || slices.Contains(pids, 0) {
			t.Errorf("%d processes of %q", len(pids), s)
		}
	})
}

func TestNoHierarchy(t *testing.T) {
	if _, err := Open(Config{Mount: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("opened nothing")
	}
}

// An agent in a container sees its own group as the root, and still finds all.
func TestInsideNamespace(t *testing.T) {
	r := open(t, Config{})
	own, ownID := group(t, r, "agent.service/inner")
	other, otherID := group(t, r, "web.service")
	inNamespace(t, r.point+own, fmt.Sprintf("%d %s %d %s", ownID, own, otherID, other))
}

// inNamespace plays the child in a cgroup namespace whose root is a group.
func inNamespace(t *testing.T, group, told string) {
	t.Helper()
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(os.Args[0], t.TempDir())
	cmd.Env = append(os.Environ(), childEnv+"="+told)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL,
		Unshareflags: unix.CLONE_NEWCGROUP | unix.CLONE_NEWNS,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Without the capabilities to see the whole, it finds what is in its part.
func TestPart(t *testing.T) {
	r := open(t, Config{})
	node, nodeID := group(t, r, "node1")
	own, ownID := group(t, r, "node1/kubepods/agent.service")
	_, otherID := group(t, r, "node2/web.service")
	for _, capability := range []uint32{0, 1 << unix.CAP_DAC_READ_SEARCH} {
		inNamespace(t, r.point+node, fmt.Sprintf("part %d %d %s %d %s %d", capability, nodeID, node, ownID, own, otherID))
	}
}

// confined is the child that may do next to nothing.
func confined(told, point string) error {
	var nodeID, ownID, otherID uint64
	var node, own string
	var may uint32
	if _, err := fmt.Sscan(strings.TrimPrefix(told, "part "), &may, &nodeID, &node, &ownID, &own, &otherID); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Mount("none", point, "cgroup2", 0, ""); err != nil {
		return err
	}
	data := [2]unix.CapUserData{{Effective: may, Permitted: may}}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return err
	}
	r, err := Open(Config{Mount: point})
	if err != nil {
		return err
	}
	defer r.Close()
	inside := own[len(node):]
	if got, ok := r.Info(ownID); !ok || got.Path != inside || r.ID(inside) != ownID || r.Root() != point {
		return fmt.Errorf("own is %+v", got)
	}
	if self, err := r.Self("/proc"); err != nil || self != "/" {
		return fmt.Errorf("self %q, %w", self, err)
	}
	if got := r.Mounted(); !slices.Equal(got, []string{"/"}) {
		return fmt.Errorf("mounted %q", got)
	}
	if got, ok := r.Info(otherID); ok {
		return fmt.Errorf("outside is %+v", got)
	}
	if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0], "only the part") {
		return fmt.Errorf("problems %q", p)
	}
	// The kernel tells paths of the whole. Where the part is shows by one that is
	// in it.
	for i, told := range []struct {
		id         uint64
		path, want string
	}{
		{1 << 40, node + "/gone", ""},
		{ownID, own, inside},
		{1 << 40, node + "/gone", "/gone"},
		{otherID, strings.Replace(node, "node1", "node2", 1) + "/web.service", ""},
		{1 << 41, node + "0/gone", ""},
		{nodeID, node, ""},
	} {
		if got := r.Remember(told.id, told.path); got != told.want {
			return fmt.Errorf("%d: %s is remembered as %q, want %q", i, told.path, got, told.want)
		}
	}
	return nil
}

func child() int {
	if told := os.Getenv(childEnv); strings.HasPrefix(told, "part ") {
		if err := confined(told, os.Args[1]); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	}
	var ids [2]uint64
	var paths [2]string
	_, _ = fmt.Sscan(os.Getenv(childEnv), &ids[0], &paths[0], &ids[1], &paths[1])
	// A mount of its own, in a mount namespace of its own.
	point := os.Args[1]
	if err := unix.Mount("none", point, "cgroup2", 0, ""); err != nil {
		fmt.Println("mount:", err)
		return 1
	}
	r, err := Open(Config{Mount: point})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer r.Close()
	code := 0
	for i := range ids {
		for _, refused := range []bool{false, true} {
			r.cache, r.refused, r.walked = newCache(100), refused, time.Time{}
			if got, ok := r.Info(ids[i]); !ok || got.Path != paths[i] {
				fmt.Printf("%s is %+v\n", paths[i], got)
				code = 1
			}
		}
	}
	if pids, err := r.Processes(paths[0]); err != nil || len(pids) != 1 || pids[0] != uint32(os.Getpid()) {
		fmt.Println("processes:", pids, err)
		code = 1
	}
	if f, err := os.Open(r.Root()); err != nil {
		fmt.Println(err)
		code = 1
	} else {
		if id, _ := inode(int(f.Fd())); id != rootID {
			fmt.Println("the root has id", id)
			code = 1
		}
		_ = f.Close()
	}
	return code
}

func BenchmarkInfoKnown(b *testing.B) {
	r := open(b, Config{})
	r.Info(rootID)
	b.ReportAllocs()
	for b.Loop() {
		r.Info(rootID)
	}
}

func BenchmarkInfoMiss(b *testing.B) {
	r := open(b, Config{})
	_, id := group(b, r, "web.service")
	b.ReportAllocs()
	for b.Loop() {
		r.find(id)
	}
}

func BenchmarkParse(b *testing.B) {
	path := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidSys + ".slice/cri-containerd-" + id1 + ".scope"
	b.ReportAllocs()
	for b.Loop() {
		Parse(path)
	}
}

func TestKnownGroupsAllocateNothing(t *testing.T) {
	r := open(t, Config{})
	r.Info(rootID)
	if n := testing.AllocsPerRun(100, func() { r.Info(rootID) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
