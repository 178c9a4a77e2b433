// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	orb8netns "github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/probe/flow"
	"github.com/orb8/orb8/internal/store"
)

// Pods end in the midst of bulk traffic, and their veths with them, before and
// after they are tapped. At no moment have the interfaces counted what the tap
// did not, neither each for itself nor added up once they are gone; and what a
// veth sent up to its end, which its last words tell, the tap has to the byte.
func TestPodsThatEndInTraffic(t *testing.T) {
	for _, how := range attachments() {
		t.Run(string(how), func(t *testing.T) {
			requireAttachment(t, how)
			y := newYard(t, how)
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					case <-time.After(50 * time.Millisecond):
						y.epoch()
					}
				}
			}()
			end := sync.OnceFunc(func() { close(stop); <-done })
			t.Cleanup(end)
			rounds := 6
			if bpftest.Emulated() {
				rounds = 2
			}
			for round := range rounds {
				y.round(round)
			}
			end()
			bpftest.Eventually(t, "all to be gone and added up", func() bool {
				y.epoch()
				all := y.tap.Interfaces()
				return len(all) == 1 && all[0].Name == flow.Gone
			})
			for _, a := range y.look() {
				t.Logf("sent %+v, of it by segmentation %+v, in %+v", a.Egress.Counted, a.Egress.Segmentation, a.Interface.Egress)
				if sent := a.Egress.Device; sent.Packets == 0 || a.Interface.Egress.Forwarded.Packets == 0 || a.Egress.Remainder.Packets == 0 {
					t.Errorf("a weak test: %+v", a)
				}
			}
		})
	}
}

// yard is a host whose pods come and go.
type yard struct {
	t     *testing.T
	host  *bpftest.Netns
	tap   *flow.Tap
	flows *store.Flows

	mu   sync.Mutex
	pods map[uint32]*brief
}

// brief is a pod that does not live long.
type brief struct {
	mu     sync.Mutex
	handle netns.NsHandle
	inode  uint32
	ip     netip.Addr
	server net.Listener
}

var gateway = net.IPv4(10, 98, 0, 1)

func newYard(t *testing.T, how flow.Attach) *yard {
	y := &yard{
		t: t, host: bpftest.NewNetns(t), pods: map[uint32]*brief{},
		// Forgotten at once, and folded.
		flows: store.NewFlows(store.Limits{Timeout: 20 * time.Millisecond}),
	}
	y.host.Sysctl("ipv4/ip_forward", "1")
	y.host.Do(func() {
		var err error
		if y.tap, err = flow.Open(flow.Config{Attach: how, StateDir: t.TempDir(), Enter: y.enter}); err != nil {
			t.Fatal(err)
		}
	})
	followed := make(chan error, 1)
	go func() { followed <- y.tap.Follow(t.Context()) }()
	t.Cleanup(func() {
		if err := errors.Join(<-followed, y.tap.Close()); err != nil {
			t.Error(err)
		}
	})
	return y
}

func (y *yard) enter(inode uint32, fn func() error) error {
	y.mu.Lock()
	p := y.pods[inode]
	y.mu.Unlock()
	if p == nil {
		return orb8netns.ErrGone
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.handle.IsOpen() {
		return orb8netns.ErrGone
	}
	return within(p.handle, fn)
}

// within runs fn on a thread in a namespace.
func within(h netns.NsHandle, fn func() error) error {
	runtime.LockOSThread()
	origin, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer origin.Close()
	defer func() {
		if netns.Set(origin) == nil {
			runtime.UnlockOSThread()
		}
	}()
	if err := netns.Set(h); err != nil {
		return err
	}
	return fn()
}

// epoch is one of an agent's, with all that comes after it.
func (y *yard) epoch() {
	y.flows.Begin()
	if err := y.tap.Epoch(true, func(d *event.Delta) { y.flows.Apply(d) }); err != nil {
		y.t.Error(err)
	}
	y.look()
	y.flows.Expire(time.Now())
	into := y.tap.Folded()
	if err := y.tap.Fold(0, func(i event.Iface) bool { return y.flows.Fold(i, into) }); err != nil {
		y.t.Error(err)
	}
	y.look()
}

// look audits. That the tap has more is no loss: a veth drops what it sends
// while its other end is down.
func (y *yard) look() (audits []store.InterfaceAudit) {
	for _, i := range y.tap.Interfaces() {
		a := y.flows.Audit(i)
		audits = append(audits, a)
		for _, d := range []store.Audit{a.Ingress, a.Egress} {
			if d.UnaccountedBytes > 0 || d.UnaccountedPackets > 0 {
				y.t.Errorf("%s %v (%s): unaccounted %d bytes, %d packets: %+v", i.Name, i.Iface, i.Problem, d.UnaccountedBytes, d.UnaccountedPackets, a)
			}
		}
		// A veth counts a super-packet once.
		tapped := a.Egress.Counted
		tapped.Bytes -= a.Egress.Segmentation.Bytes
		tapped.Packets -= a.Egress.Segmentation.Packets
		if low := i.Egress.DeviceLow; i.Left && (low.Bytes > tapped.Bytes || low.Packets > tapped.Packets) {
			y.t.Errorf("%s %v sent %+v, tapped %+v", i.Name, i.Iface, low, tapped)
		}
	}
	return audits
}

// round is a few pods that talk to each other and to the host until they end.
func (y *yard) round(number int) {
	var pods []*brief
	for i := range 6 {
		pods = append(pods, y.pod(number*6+i))
	}
	var talks []net.Conn
	for i, p := range pods {
		dial := func() error {
			c, err := (&net.Dialer{Timeout: time.Second}).Dial("tcp", p.server.Addr().String())
			if err == nil {
				talks = append(talks, c)
				go speak(c)
			}
			return nil // it may take longer until a pod is reached
		}
		y.host.Do(func() { _ = dial() })
		_ = within(pods[(i+1)%len(pods)].handle, dial)
	}
	time.Sleep(time.Duration(number%2) * 300 * time.Millisecond)
	for i, p := range pods {
		if i%2 == 0 { // as a plugin takes a pod off its network
			err := within(p.handle, func() error { return netlink.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}) })
			if err != nil {
				y.t.Error(err)
			}
		}
	}
	for _, c := range talks {
		_ = c.Close()
	}
	for _, p := range pods {
		_ = p.server.Close()
		y.mu.Lock()
		delete(y.pods, p.inode)
		y.mu.Unlock()
		p.mu.Lock()
		_ = p.handle.Close()
		p.mu.Unlock()
	}
}

// pod makes one as a network plugin does, with a server in it.
func (y *yard) pod(number int) *brief {
	p := &brief{ip: netip.AddrFrom4([4]byte{10, 99, 0, byte(number)})}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		var err error
		p.handle, err = netns.New()
		made <- err
	}()
	var st unix.Stat_t
	if err := errors.Join(<-made, unix.Fstat(int(p.handle), &st)); err != nil {
		y.t.Fatal(err)
	}
	p.inode = uint32(st.Ino)
	y.mu.Lock()
	y.pods[p.inode] = p
	y.mu.Unlock()
	end := fmt.Sprintf("pod%d", number)
	var err error
	y.host.Do(func() {
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: end}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(p.handle))})
		err = errors.Join(err, plug(end, gateway, p.ip.AsSlice()))
	})
	y.tap.Add(p.inode, "pod", time.Now())
	err = errors.Join(err, within(p.handle, func() error {
		err := plug("eth0", p.ip.AsSlice(), gateway)
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{Gw: gateway})
		}
		if err == nil {
			p.server, err = net.Listen("tcp", netip.AddrPortFrom(p.ip, 80).String())
		}
		return err
	}))
	if err != nil {
		y.t.Fatal(err)
	}
	go func() {
		for {
			c, err := p.server.Accept()
			if err != nil {
				return
			}
			go speak(c)
		}
	}()
	return p
}

// plug gives one end of a veth its address and the way to the other's.
func plug(name string, ip, other net.IP) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	err = netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(32, 32)}})
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err == nil {
		err = netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: netlink.NewIPNet(other)})
	}
	return err
}

// speak sends all it can for a second, and leaves nothing behind that would keep
// its namespace alive.
func speak(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_ = c.(*net.TCPConn).SetLinger(0)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	b := make([]byte, 60_000)
	for {
		if _, err := c.Write(b[:rand.IntN(len(b))]); err != nil {
			_ = c.Close()
			return
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	}
}
