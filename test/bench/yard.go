// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// yard is a machine with namespaces that have names, as far as those who are in
// it can tell: a thread with mounts of its own, whose /run/netns nobody else
// sees. All of it, its namespaces included, is gone with the thread and the
// processes that were started there, however they end.
type yard struct {
	host  namespace
	links *netlink.Handle // of host
	calls chan func()
}

const yardNames = "/run/netns"

func newYard() (*yard, error) {
	y := &yard{calls: make(chan func())}
	var err error
	if y.host, err = newNamespace(); err != nil {
		return nil, errors.Join(errLab, err)
	}
	if y.links, err = netlink.NewHandleAt(y.host.handle, unix.NETLINK_ROUTE); err != nil {
		y.host.close()
		return nil, fmt.Errorf("yard: %w", err)
	}
	go func() {
		runtime.LockOSThread() // and it ends with this goroutine
		for call := range y.calls {
			call()
		}
	}()
	if err := y.do(y.settle); err != nil {
		y.close()
		return nil, fmt.Errorf("yard: %w", err)
	}
	return y, nil
}

// settle gives the thread its own mounts.
func (y *yard) settle() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", filepath.Dir(yardNames), "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("private %s: %w", filepath.Dir(yardNames), err)
	}
	if err := os.Mkdir(yardNames, 0o755); err != nil {
		return err
	}
	if err := netns.Set(y.host.handle); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return noIPv6()
}

// noIPv6 keeps a namespace's devices from talking by themselves.
func noIPv6() (err error) {
	for _, name := range []string{"all", "default"} {
		file := "/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6"
		if e := os.WriteFile(file, []byte("1"), 0o644); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// do runs f on the yard's thread, in its host's namespace.
func (y *yard) do(f func() error) error {
	done := make(chan error)
	y.calls <- func() { done <- f() }
	return <-done
}

func (y *yard) close() {
	close(y.calls)
	y.links.Close()
	y.host.close()
}

// room is a namespace of the yard with a veth to its host.
type room struct {
	name  string
	inode uint64
	// When it was there, and when its veth was up.
	created, up time.Time
	gate        netip.Addr // an address across the veth, where nobody answers
}

// add makes a room as `ip netns add` does, then its veth as a CNI plug-in does,
// and runs inside in it. n gives it its name and addresses.
func (y *yard) add(n int, inside func(*room) error) (*room, error) {
	r := &room{name: "room" + strconv.Itoa(n)}
	err := y.do(func() error {
		err := r.make(y, n)
		if err == nil {
			err = inside(r)
		}
		return errors.Join(err, netns.Set(y.host.handle))
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", r.name, err)
	}
	return r, nil
}

// make leaves the thread in the room.
func (r *room) make(y *yard, n int) error {
	const own = "/proc/thread-self/ns/net"
	path := filepath.Join(yardNames, r.name)
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	r.created = time.Now()
	if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(own, &st); err != nil {
		return err
	}
	r.inode = st.Ino
	if err := errors.Join(noIPv6(), setUp("lo")); err != nil {
		return err
	}
	return r.wire(y, n)
}

func (r *room) wire(y *yard, n int) error {
	peer := "veth" + strconv.Itoa(n)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: peer, PeerNamespace: netlink.NsFd(int(y.host.handle))}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	other, err := y.links.LinkByName(peer)
	if err != nil {
		return fmt.Errorf("%s: %w", peer, err)
	}
	if err := y.links.LinkSetUp(other); err != nil {
		return fmt.Errorf("set %s up: %w", peer, err)
	}
	net4 := [4]byte{10, 128 + byte(n>>14), byte(n >> 6), byte(n << 2)}
	r.gate = netip.AddrFrom4(net4).Next()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: r.gate.Next().AsSlice(), Mask: net.CIDRMask(30, 32)}}
	if err := netlink.AddrAdd(veth, addr); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if err := setUp("eth0"); err != nil {
		return err
	}
	err = netlink.NeighAdd(&netlink.Neigh{
		LinkIndex: veth.Index, State: netlink.NUD_PERMANENT, IP: r.gate.AsSlice(),
		HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1},
	})
	if err != nil {
		return fmt.Errorf("neighbour: %w", err)
	}
	r.up = time.Now()
	return nil
}

// remove ends a room: nothing but its name keeps it.
func (y *yard) remove(r *room) error {
	path := filepath.Join(yardNames, r.name)
	return y.do(func() error {
		return errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path))
	})
}
