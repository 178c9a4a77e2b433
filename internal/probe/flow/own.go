// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ownNetns is the namespace of the agent; it may be held.
type ownNetns struct {
	inode  uint32
	file   *os.File
	handle *netlink.Handle
}

func (o *ownNetns) open() (err error) {
	if o.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return fmt.Errorf("own network namespace: %w", err)
	}
	if o.inode, err = inode(o.file); err != nil {
		return fmt.Errorf("own network namespace: %w", err)
	}
	if o.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("own network namespace: %w", err)
	}
	return nil
}

func inode(f *os.File) (uint32, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return uint32(st.Ino), nil
}

// nsid of the namespace that fd is open on, as seen from the own one.
func (o *ownNetns) nsid(fd int) (int, error) {
	id, err := o.handle.GetNetNsIdByFd(fd)
	if err != nil || id >= 0 {
		return id, err
	}
	err = o.handle.SetNetNsIdByFd(fd, unknownNsid) // the kernel chooses
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return unknownNsid, err
	}
	return o.handle.GetNetNsIdByFd(fd)
}

// do runs fn on a thread in the own namespace: nearly always it is there
// already. A thread that cannot go back ends with its goroutine.
func (o *ownNetns) do(fn func() error) error {
	runtime.LockOSThread()
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("own network namespace: %w", err)
	}
	defer f.Close()
	if here, err := inode(f); err == nil && here == o.inode {
		defer runtime.UnlockOSThread()
		return fn()
	}
	if err := unix.Setns(int(o.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("own network namespace: %w", err)
	}
	defer func() {
		if unix.Setns(int(f.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}

// Close is idempotent.
func (o *ownNetns) Close() error {
	if o.handle != nil {
		o.handle.Close()
		o.handle = nil
	}
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	o.file = nil
	return err
}
