// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
)

// follow runs Follow in the namespace until the test ends.
func (l *live) follow() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.ns.Do(func() {
			if err := l.tap.Follow(ctx); err != nil {
				l.t.Errorf("follow: %v", err)
			}
		})
	}()
	l.t.Cleanup(func() { cancel(); <-done })
	// It is listening once it answers.
	probe := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "listening"}}
	bpftest.Eventually(l.t, "the follower to listen", func() bool {
		l.link(func() error { return netlink.LinkAdd(probe) })
		defer l.link(func() error { return netlink.LinkDel(byName("listening")) })
		time.Sleep(60 * time.Millisecond) // a TCX link takes two grace periods of RCU
		return l.tappedNames()["listening"] != ""
	})
	l.eventually("listening", "")
}

// eventually expects an interface to be tapped by a name, or under "" not to be.
func (l *live) eventually(name, how string) {
	l.t.Helper()
	bpftest.Eventually(l.t, name+" to be attached by "+how, func() bool { return l.tappedNames()[name] == how })
}

func TestFollow(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		ns, peer := bpftest.NewNetns(t), bpftest.NewNetns(t)
		l := tapOn(t, ns, Config{Attach: how})
		l.follow()
		ns.AddVeth(peer, "one", "far")
		l.eventually("one", string(how))

		l.link(func() error { return netlink.LinkSetName(byName("one"), "two") })
		l.eventually("two", string(how))
		l.eventually("one", "")

		// A member of a bridge is not where this namespace sends; the bridge is.
		l.link(func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}) })
		l.eventually("br", string(how))
		l.link(func() error { return netlink.LinkSetMaster(byName("two"), byName("br")) })
		l.eventually("two", "")
		if n := hooked(t, ns, "two"); n != 0 {
			t.Errorf("%d programs are left on a member of a bridge", n)
		}
		l.link(func() error { return netlink.LinkSetNoMaster(byName("two")) })
		l.eventually("two", string(how))

		l.link(func() error { return netlink.LinkDel(byName("two")) })
		l.eventually("two", "")
		if want := map[string]string{"br": string(how)}; !maps.Equal(l.tappedNames(), want) {
			t.Errorf("tapped %v, want %v", l.tappedNames(), want)
		}
	})
}

// An index may come back as another interface, faster than the tap can look.
func TestIndexUsedAgain(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		ns := bpftest.NewNetns(t)
		l := tapOn(t, ns, Config{Attach: how})
		bridge := func() *netlink.Bridge {
			return &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br", Index: 4711}}
		}
		l.link(func() error { return netlink.LinkAdd(bridge()) })
		l.sync()
		for range 3 {
			l.link(func() error {
				if err := netlink.LinkDel(byName("br")); err != nil {
					return err
				}
				return netlink.LinkAdd(bridge())
			})
			l.sync()
			if n := hooked(t, ns, "br"); n != 2 {
				t.Errorf("%d programs on the new interface", n)
			}
		}
	})
}

// What another process removed is put back.
func TestRemovedByAnother(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	p := bpftest.NewPair(t)
	l := tapOn(t, p.A.Netns, Config{Attach: AttachClsact})
	l.link(func() error { return netlink.QdiscDel(clsact(p.A.Index)) })
	l.sync()
	if n := hooked(t, p.A.Netns, p.A.Name); n != 2 {
		t.Errorf("%d programs", n)
	}
}

// An interface that is deleted takes its counters along; the kernel tells the
// last ones, and with them the account ends exact.
func TestAccountOfWhatIsGone(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := bpftest.NewPair(t)
		l := tapQuiet(t, &p.A, Config{Attach: how})
		l.follow()
		w := p.A.Frames()
		for range 5 {
			if _, err := w.Write(bpftest.Packet(bpftest.Ether{}, v4, udp)); err != nil {
				t.Fatal(err)
			}
		}
		l.link(func() error { return netlink.LinkDel(byName(p.A.Name)) })
		l.eventually(p.A.Name, "")
		l.settle()
		for _, i := range l.tap.Interfaces() {
			want := event.Counter{Bytes: 5 * 42, Packets: 5}
			if i.Name == p.A.Name && (i.Egress.DeviceLow != want || i.Egress.DeviceHigh != want) {
				t.Errorf("the device's last words: %+v, want %+v", i.Egress, want)
			}
		}
	})
}

// Interfaces that are gone when the tap reaches for them are no problem to
// anybody.
func TestGoneBeforeAttaching(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := bpftest.NewPair(t)
		l := tapOn(t, p.A.Netns, Config{Attach: how})
		l.link(func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}) })
		gone := l.ns.Link("br")
		l.link(func() error { return netlink.LinkDel(gone) })
		l.ns.Do(func() {
			l.tap.attaching.Lock()
			defer l.tap.attaching.Unlock()
			l.tap.attach(l.tap.spaces[l.tap.own.inode], gone)
		})
		places := l.tap.Interfaces()
		if len(places) != 1 || places[0].Name != p.A.Name || places[0].Problem != "" {
			t.Errorf("interfaces %+v", places)
		}
		l.settle()
	})
}

// Interfaces that come and go as fast as the kernel makes them leave the tap in
// order, and what it counts meanwhile elsewhere is whole.
func TestChurn(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := bpftest.NewPair(t)
		l := tapQuiet(t, &p.A, Config{Attach: how})
		l.follow()
		stop := l.every(50 * time.Millisecond)
		conn := p.A.DialTCP(p.B.ListenTCP(false, bpftest.ServeDiscard))
		done := make(chan struct{})
		go func() { defer close(done); bulk(t, conn, 64<<20) }()
		for range 50 {
			l.link(func() error {
				if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}); err != nil {
					return err
				}
				return netlink.LinkDel(byName("br"))
			})
		}
		<-done
		stop()
		bpftest.Eventually(t, "only the veth to be tapped", func() bool {
			return maps.Equal(l.tappedNames(), map[string]string{p.A.Name: string(how)})
		})
		l.settle()
		l.checkConserved(&p.A)
	})
}

// An interface that leaves for a bridge and comes back keeps its account, which
// stays exact, although it was tapped in parts.
func TestAccountGoesOn(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := bpftest.NewPair(t)
		l := tapQuiet(t, &p.A, fromOutside(p.A.Netns, Config{Attach: how}))
		w := p.A.Frames()
		send := func(n int) {
			for range n {
				if _, err := w.Write(bpftest.Packet(bpftest.Ether{}, v4, udp, bpftest.Zeros(50))); err != nil {
					t.Fatal(err)
				}
			}
		}
		l.link(func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}) })
		send(3)
		l.epoch()
		send(5) // in no epoch when the tap goes
		l.link(func() error { return netlink.LinkSetMaster(byName(p.A.Name), byName("br")) })
		l.sync()
		send(100)
		l.link(func() error { return netlink.LinkSetNoMaster(byName(p.A.Name)) })
		l.sync()
		send(7)
		l.settle()
		_, tx := l.checkConserved(&p.A)
		if want := (event.Counter{Bytes: 15 * 92, Packets: 15}); tx.flows != want {
			t.Errorf("sent %+v while tapped, counted %+v", want, tx.flows)
		}
	})
}

// One that left for a bridge and is deleted there has no last words about what
// was tapped, which may have been nothing.
func TestAccountOfWhatIsGoneWithABridge(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := bpftest.NewPair(t)
		l := tapOn(t, p.A.Netns, Config{Attach: how})
		l.follow()
		l.link(func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}) })
		young := bpftest.End{Netns: p.A.Netns, Name: "young", Index: p.A.Netns.AddVeth(p.B.Netns, "young", "far")}
		l.eventually("young", string(how))
		l.link(func() error { return netlink.LinkSetMaster(byName("young"), byName("br")) })
		l.eventually("young", "")
		l.epoch()
		l.link(func() error { return netlink.LinkSetUp(byName("young")) })
		p.B.Netns.Do(func() {
			if err := netlink.LinkSetUp(byName("far")); err != nil {
				t.Fatal(err)
			}
		})
		w := young.Frames()
		for range 100 {
			if _, err := w.Write(bpftest.Packet(bpftest.Ether{}, v4, udp)); err != nil {
				t.Fatal(err)
			}
		}
		l.link(func() error { return netlink.LinkDel(byName("young")) })
		account := func() (found event.Interface) {
			for _, i := range l.tap.Interfaces() {
				if i.Name == "young" {
					found = i
				}
			}
			return found
		}
		bpftest.Eventually(t, "it to be gone", func() bool { return account().Problem == gone })
		l.epoch()
		if i := account(); i.Egress.DeviceHigh.Packets != 0 {
			t.Errorf("%+v", i)
		}
	})
}

func TestCloseIsIdempotent(t *testing.T) {
	bothWays(t, func(t *testing.T, how Attach) {
		p := bpftest.NewPair(t)
		l := tapOn(t, p.A.Netns, Config{Attach: how})
		if n := hooked(t, p.A.Netns, p.A.Name); n != 2 {
			t.Fatalf("%d programs attached", n)
		}
		l.close()
		l.close()
		if n := hooked(t, p.A.Netns, p.A.Name); n != 0 {
			t.Errorf("%d programs left", n)
		}
		// With the interface gone first.
		l = tapOn(t, p.A.Netns, Config{Attach: how})
		l.link(func() error { return netlink.LinkDel(byName(p.A.Name)) })
		l.close()
		l.close()
	})
}

// A tap that is closed says so instead of ending the process.
func TestEpochAfterClose(t *testing.T) {
	p := bpftest.NewPair(t)
	bpftest.RequireKernel(t, bpftest.BPF)
	l := tapOn(t, p.A.Netns, Config{})
	l.close()
	l.ns.Do(func() {
		if err := l.tap.Epoch(true, func(*event.Delta) {}); err == nil {
			t.Error("an epoch of a closed tap")
		}
	})
}
