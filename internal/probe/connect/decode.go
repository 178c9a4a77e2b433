// SPDX-License-Identifier: Apache-2.0

package connect

import (
	"math/bits"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// decode reads one record; ago is what makes Unix nanoseconds of its time. false:
// it is no record of the kernel's program.
func decode(raw []byte, ago int64) (f event.FailedConnect, ok bool) {
	var k kernelConnectEvent
	const size = int(unsafe.Sizeof(k))
	if len(raw) < size {
		return f, false
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&k)), size), raw)
	return event.FailedConnect{
		Conn: event.Conn{
			Local:      *(*event.IP)(unsafe.Pointer(&k.Local)),
			Remote:     *(*event.IP)(unsafe.Pointer(&k.Remote)),
			LocalPort:  bits.ReverseBytes16(k.LocalPortBe),
			RemotePort: bits.ReverseBytes16(k.RemotePortBe),
			Ifindex:    k.Ifindex,
			Netns:      k.Netns,
			Protocol:   event.TCP,
		},
		Time:        int64(k.TimeNs) + ago,
		Cookie:      k.Cookie,
		Cgroup:      k.Cgroup,
		Retransmits: k.Retransmits,
		Failure:     failure(unix.Errno(k.Error)),
	}, true
}

// failure is what the error of a socket means that was connecting. Whatever it
// is that keeps packets from arriving, there is no way.
func failure(e unix.Errno) event.Failure {
	switch e {
	case 0, unix.ECONNABORTED, unix.EPIPE: // closed by its process, or by an administrator
		return event.FailureGivenUp
	case unix.ECONNREFUSED:
		return event.FailureRefused
	case unix.ECONNRESET:
		return event.FailureReset
	case unix.ETIMEDOUT:
		return event.FailureTimedOut
	}
	return event.FailureUnreachable
}
