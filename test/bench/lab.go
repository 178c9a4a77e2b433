// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name: it is gone when its handle
// is closed and nothing runs in it.
type namespace struct{ handle netns.NsHandle }

func newNamespace() (namespace, error) {
	var n namespace
	err := onThread(func() error {
		var err error
		n.handle, err = netns.New()
		return err
	})
	if err != nil {
		return n, fmt.Errorf("new network namespace: %w", err)
	}
	return n, n.do(func() error { return setUp("lo") })
}

func (n namespace) close() { _ = n.handle.Close() }

// do runs f on a thread inside the namespace. Sockets and attachments made by
// f stay there.
func (n namespace) do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it: what f changes about the
// thread, its namespace or its processors, is gone afterwards.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// pin keeps the calling thread on the i-th processor that this process may use.
func pin(i int) error {
	var allowed, one unix.CPUSet
	// The main thread is never pinned.
	if err := unix.SchedGetaffinity(unix.Getpid(), &allowed); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	i %= allowed.Count()
	for cpu := 0; ; cpu++ {
		if !allowed.IsSet(cpu) {
			continue
		}
		if i == 0 {
			one.Set(cpu)
			return unix.SchedSetaffinity(0, &one)
		}
		i--
	}
}

// lab is two namespaces with a veth between them: near is where the tap is and
// where most traffic starts, far is the other end.
type lab struct {
	near, far       namespace
	nearDev, farDev int // interface indices
}

var errLab = errors.New("the benchmark needs root and network namespaces")

// Addresses of the two ends, and a net behind far that has many. The last two
// bytes are not those of 127.0.0.1: by them the tap knows most packets of others.
func nearAddr() netip.Addr     { return netip.MustParseAddr("10.77.7.1") }
func farAddr() netip.Addr      { return netip.MustParseAddr("10.77.7.2") }
func behindFar() netip.Addr    { return netip.MustParseAddr("10.78.0.1") }
func farPrefix() string        { return "10.78.0.0/16" }
func cidr(a netip.Addr) string { return a.String() + "/24" }

func newLab() (*lab, error) {
	l := &lab{}
	var err error
	if l.near, err = newNamespace(); err != nil {
		return nil, errors.Join(errLab, err)
	}
	if l.far, err = newNamespace(); err != nil {
		l.near.close()
		return nil, errors.Join(errLab, err)
	}
	if err := l.wire(); err != nil {
		l.close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return l, nil
}

func (l *lab) wire() error {
	err := l.near.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: "near"},
			PeerName:      "far",
			PeerNamespace: netlink.NsFd(int(l.far.handle)),
		})
	})
	if err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	if l.farDev, err = l.far.address("far", farAddr()); err != nil {
		return err
	}
	if l.nearDev, err = l.near.address("near", nearAddr()); err != nil {
		return err
	}
	return l.near.do(func() error {
		dst, err := netlink.ParseIPNet(farPrefix())
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: farAddr().AsSlice()})
	})
}

// address gives a device its address and brings it up.
func (n namespace) address(dev string, a netip.Addr) (index int, err error) {
	err = n.do(func() error {
		link, err := netlink.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", dev, err)
		}
		index = link.Attrs().Index
		addr, err := netlink.ParseAddr(cidr(a))
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("address of %s: %w", dev, err)
		}
		return setUp(dev)
	})
	return index, err
}

func setUp(dev string) error {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("%s: %w", dev, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", dev, err)
	}
	return nil
}

func (l *lab) close() {
	// The device goes with its namespaces, but those only when the last socket
	// in them is gone.
	_ = l.near.do(func() error {
		link, err := netlink.LinkByName("near")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	l.near.close()
	l.far.close()
}
