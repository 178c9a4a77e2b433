// SPDX-License-Identifier: Apache-2.0

package bpftest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offload is a setting of an interface, as linux/ethtool.h numbers the command
// that sets it.
type Offload uint32

// The offloads that change what a packet is where the tap sees it.
const (
	RxChecksum Offload = 0x15
	TxChecksum Offload = 0x17
	Scatter    Offload = 0x19
	TSO        Offload = 0x1f
	GSO        Offload = 0x24
	GRO        Offload = 0x2c
)

// Offload switches offloads of the end's interface on or off.
func (e *End) Offload(on bool, which ...Offload) {
	e.t.Helper()
	e.Do(func() {
		for _, o := range which {
			if err := setOffload(e.Name, o, on); err != nil {
				e.t.Fatalf("offload %#x of %s: %v", uint32(o), e.Name, err)
			}
		}
	})
}

func setOffload(name string, o Offload, on bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := struct{ cmd, data uint32 }{cmd: uint32(o)} // struct ethtool_value
	if on {
		value.data = 1
	}
	req := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return fmt.Errorf("ethtool: %w", errno)
	}
	return nil
}
