// SPDX-License-Identifier: Apache-2.0

package lab

import (
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
	"github.com/orb8/orb8/internal/probe/flow"
	orb8netns "github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/store"
)

type shortPod struct {
	handle netns.NsHandle
	inode  uint32
	ip     netip.Addr
}

func in(h netns.NsHandle, fn func() error) error {
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

type world struct {
	t    *testing.T
	host *bpftest.Netns
	tap  *flow.Tap
	mu   sync.Mutex
	open map[uint32]*shortPod
}

func (w *world) make(i int) *shortPod {
	p := &shortPod{ip: netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)})}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		h, err := netns.New()
		p.handle = h
		done <- err
		// thread ends
	}()
	if err := <-done; err != nil {
		w.t.Error(err)
	}
	var st unix.Stat_t
	_ = unix.Fstat(int(p.handle), &st)
	p.inode = uint32(st.Ino)
	w.mu.Lock()
	w.open[p.inode] = p
	w.mu.Unlock()
	host := ""
	w.host.Do(func() {
		host = fmt.Sprintf("v%d", i)
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: host}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(p.handle))})
		if err != nil {
			w.t.Error(err)
		}
		l, err := netlink.LinkByName(host)
		if err != nil {
			w.t.Error(err)
			return
		}
		_ = netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 98, 0, 1), Mask: net.CIDRMask(32, 32)}})
		_ = netlink.LinkSetUp(l)
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: netlink.NewIPNet(p.ip.AsSlice())}); err != nil {
			w.t.Error(err)
		}
	})
	w.tap.Add(p.inode, "pod", time.Now())
	if err := in(p.handle, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		_ = netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: p.ip.AsSlice(), Mask: net.CIDRMask(32, 32)}})
		_ = netlink.LinkSetUp(l)
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: netlink.NewIPNet(net.IPv4(10, 98, 0, 1))}); err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IPv4(10, 98, 0, 1)})
	}); err != nil {
		w.t.Error(err)
	}
	return p
}

func (p *shortPod) serve() (l net.Listener) {
	_ = in(p.handle, func() (err error) { l, err = net.Listen("tcp", p.ip.String()+":80"); return err })
	if l == nil {
		return nil
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go chat(c)
		}
	}()
	return l
}

func chat(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(1500 * time.Millisecond))
	_ = c.(*net.TCPConn).SetLinger(0)
	go io.Copy(io.Discard, c)
	b := make([]byte, 60000)
	for {
		if _, err := c.Write(b[:rand.IntN(len(b))]); err != nil {
			c.Close()
			return
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	}
}

func TestGone(t *testing.T) {
	for _, how := range []flow.Attach{flow.AttachAuto, flow.AttachTCX} {
		t.Run(string(how), func(t *testing.T) { testGone(t, how) })
	}
}

func testGone(t *testing.T, how flow.Attach) {
	w := &world{t: t, host: bpftest.NewNetns(t), open: map[uint32]*shortPod{}}
	w.host.Sysctl("ipv4/ip_forward", "1")
	w.host.Do(func() {
		var err error
		w.tap, err = flow.Open(flow.Config{Attach: how, StateDir: t.TempDir(), Enter: func(n uint32, fn func() error) error {
			w.mu.Lock()
			p := w.open[n]
			w.mu.Unlock()
			if p == nil {
				return orb8netns.ErrGone
			}
			return in(p.handle, fn)
		}})
		if err != nil {
			t.Fatal(err)
		}
	})
	defer w.tap.Close()
	go func() { _ = w.tap.Follow(t.Context()) }()
	flows := store.NewFlows(store.Limits{Timeout: 300 * time.Millisecond})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	seen := map[string]bool{}
	epoch := func() {
		flows.Begin()
		if err := w.tap.Epoch(true, func(d *event.Delta) { flows.Apply(d) }); err != nil {
			t.Error(err)
		}
		now := time.Now()
		flows.Expire(now)
		_ = now
		look := func(when string) {
			for _, i := range w.tap.Interfaces() {
				a := flows.Audit(i)
				for dir, x := range []store.Audit{a.Ingress, a.Egress} {
					if x.UnaccountedBytes != 0 || x.UnaccountedPackets != 0 {
						key := fmt.Sprint(a.Iface, dir, x.UnaccountedBytes, x.UnaccountedPackets)
						if !seen[key] {
							seen[key] = true
							acc := []event.Account{a.Interface.Ingress, a.Interface.Egress}[dir]
							t.Logf("%s %s %s %v %s dir %d unread %v: unaccounted %d B %d P; counted %+v seg %+v low %+v high %+v fl %v rem %v ov %v fw %v", when, a.Namespace, a.Name, a.Iface, a.Problem, dir, a.Unread,
								x.UnaccountedBytes, x.UnaccountedPackets, x.Counted, x.Segmentation, acc.DeviceLow, acc.DeviceHigh, x.Flows, x.Remainder, x.Overflow, x.Forwarded)
						}
					}
				}
			}
		}
		look("before")
		for _, i := range w.tap.Interfaces() {
			a := flows.Audit(i)
			if i.Problem == "gone" {
				least := int64(a.Egress.Counted.Bytes) - int64(a.Egress.Segmentation.Bytes)
				leastP := int64(a.Egress.Counted.Packets) - int64(a.Egress.Segmentation.Packets)
				d := int64(i.Egress.DeviceLow.Bytes) - least
				dp := int64(i.Egress.DeviceLow.Packets) - leastP
				if d > 0 || dp > 0 {
					key := fmt.Sprint(i.Iface, d, dp)
					if !seen[key] {
						seen[key] = true
						t.Logf("EXACT %s %v: %d B %d P; %+v", i.Name, i.Iface, d, dp, a)
					}
				}
			}
		}
		into := w.tap.Folded()
		if err := w.tap.Fold(0, func(i event.Iface) bool { return flows.Fold(i, into) }); err != nil {
			t.Error(err)
		}
		look("after")
	}
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				epoch()
			}
		}
	})
	n := 0
	for range 40 {
		var pods []*shortPod
		var listeners []net.Listener
		for range 6 {
			n++
			p := w.make(n)
			pods = append(pods, p)
			if l := p.serve(); l != nil {
				listeners = append(listeners, l)
			}
		}
		var conns []net.Conn
		for i, p := range pods {
			dial := func() error {
				c, err := (&net.Dialer{Timeout: time.Second}).Dial("tcp", p.ip.String()+":80")
				if err == nil {
					conns = append(conns, c)
					go chat(c)
				} else {
					t.Log(err)
				}
				return nil
			}
			w.host.Do(func() { _ = dial() })
			_ = in(pods[(i+1)%len(pods)].handle, dial)
		}
		time.Sleep(time.Duration(rand.IntN(600)) * time.Millisecond)
		for i, p := range pods {
			if rand.IntN(2) == 0 { // as CNI
				_ = in(p.handle, func() error {
					l, err := netlink.LinkByName("eth0")
					if err == nil {
						err = netlink.LinkDel(l)
					}
					return err
				})
			}
			w.mu.Lock()
			delete(w.open, p.inode)
			w.mu.Unlock()
			p.handle.Close()
			if i < len(listeners) {
				listeners[i].Close()
			}
		}
		for _, c := range conns {
			c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(3 * time.Second)
	close(stop)
	wg.Wait()
	for range 4 {
		epoch()
		time.Sleep(200 * time.Millisecond)
	}
	for _, i := range w.tap.Interfaces() {
		a := flows.Audit(i)
		if i.Name != flow.Gone && a.Ingress.UnaccountedBytes == 0 && a.Egress.UnaccountedBytes == 0 {
			continue
		}
		t.Logf("%s %v %s: in %d %d, out %d %d; %+v", a.Name, a.Iface, a.Problem, a.Ingress.UnaccountedBytes, a.Ingress.UnaccountedPackets, a.Egress.UnaccountedBytes, a.Egress.UnaccountedPackets, a)
	}
}
