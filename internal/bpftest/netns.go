// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Netns is a private network namespace. It has no name and no mount: it is
// gone when the test has ended and nothing is left in it.
type Netns struct {
	t      testing.TB
	handle netns.NsHandle
}

// NewNetns makes a namespace with nothing in it but a loopback that is down. It
// skips the test as RequireKernel does.
func NewNetns(t testing.TB) *Netns {
	t.Helper()
	RequireKernel(t)
	n := &Netns{t: t, handle: netns.None()}
	err := onThread(func() (err error) {
		n.handle, err = netns.New()
		return err
	})
	if err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() { _ = n.handle.Close() })
	return n
}

// OpenNetns opens one that is there, by its file.
func OpenNetns(t testing.TB, path string) *Netns {
	t.Helper()
	handle, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatalf("open network namespace: %v", err)
	}
	n := &Netns{t: t, handle: handle}
	t.Cleanup(func() { _ = n.handle.Close() })
	return n
}

// Do runs fn on a thread that is in the namespace: sockets that fn opens stay
// in it, goroutines that fn starts are not in it. fn may end the test.
func (n *Netns) Do(fn func()) {
	n.t.Helper()
	err := onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return err
		}
		fn()
		return nil
	})
	if err != nil {
		n.t.Fatalf("enter network namespace: %v", err)
	}
}

// onThread runs fn locked to a thread and puts the thread back into the
// namespace that it came from. A thread that cannot go back stays locked, so
// that the runtime ends it with its goroutine.
func onThread(fn func() error) error {
	runtime.LockOSThread()
	origin, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if netns.Set(origin) == nil {
			runtime.UnlockOSThread()
		}
		_ = origin.Close()
	}()
	return fn()
}

// Inode is the number that names the namespace in the kernel's records.
func (n *Netns) Inode() uint32 {
	n.t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(n.handle), &st); err != nil {
		n.t.Fatalf("inode of network namespace: %v", err)
	}
	return uint32(st.Ino)
}

// Sysctl sets net.… in the namespace; name has slashes: ipv6/conf/all/forwarding.
func (n *Netns) Sysctl(name, value string) {
	n.t.Helper()
	n.Do(func() {
		// The kernel shows each thread the settings of its own namespace.
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644); err != nil {
			n.t.Fatalf("sysctl: %v", err)
		}
	})
}

// Command runs a program in the namespace and returns what it printed.
func (n *Netns) Command(name string, args ...string) string {
	n.t.Helper()
	var out []byte
	var err error
	n.Do(func() { out, err = exec.Command(name, args...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// SNMP reads the namespace's protocol counters by their name in /proc/net/snmp
// and /proc/net/netstat: "Tcp: OutSegs", "TcpExt: ListenOverflows".
func (n *Netns) SNMP(names ...string) []uint64 {
	n.t.Helper()
	values := map[string]uint64{}
	for _, file := range []string{"snmp", "netstat"} {
		var text []byte
		var err error
		n.Do(func() { text, err = os.ReadFile("/proc/thread-self/net/" + file) })
		if err != nil {
			n.t.Fatalf("protocol counters: %v", err)
		}
		lines := strings.Split(string(text), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			keys, vals := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < len(keys) && j < len(vals); j++ {
				var v uint64
				_, _ = fmt.Sscan(vals[j], &v) // MaxConn is -1, which no test asks for
				values[keys[0]+" "+keys[j]] = v
			}
		}
	}
	out := make([]uint64, len(names))
	for i, name := range names {
		v, ok := values[name]
		if !ok {
			n.t.Fatalf("no protocol counter %q", name)
		}
		out[i] = v
	}
	return out
}
