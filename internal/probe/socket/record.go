// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"unsafe"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// Name is what a process calls itself: at most 15 bytes, then zeros. It is a
// value, so that looking at a name allocates nothing.
type Name [16]byte

func (n Name) String() string {
	text, _, _ := bytes.Cut(n[:], []byte{0})
	return string(text)
}

// Process is one that holds, or made, a socket.
type Process struct {
	// 0 where several processes of one name share the place of a socket.
	PID  uint32
	Name Name
	// Of the process, not of the socket; 0 is not known.
	Cgroup uint64
	// When it started, nanoseconds since boot; 0 is not known.
	Start uint64
}

// States of a socket, as the kernel numbers them.
const (
	stateListen = 10
)

const protocolMPTCP = 262

// record is one socket in one process's hands, or the kernel's.
type record struct {
	// Only what names it: no interface and no kind.
	conn          event.Conn
	process       Process
	cookie, inode uint64
	state         uint8
	v6only        bool
	kernel        bool
}

const recordSize = int(unsafe.Sizeof(kernelSocketRecord{}))

// decode reads what the kernel program wrote.
func decode(b *[recordSize]byte) record {
	k := (*kernelSocketRecord)(unsafe.Pointer(b))
	r := record{
		cookie: k.Cookie, inode: k.Inode, state: k.State, v6only: k.V6only != 0, kernel: k.Kernel != 0,
		process: Process{PID: k.Tgid, Name: *(*Name)(unsafe.Pointer(&k.Comm)), Cgroup: k.Cgroup, Start: k.StartNs},
		conn: event.Conn{
			Local:      *(*event.IP)(unsafe.Pointer(&k.Local)),
			Remote:     *(*event.IP)(unsafe.Pointer(&k.Remote)),
			LocalPort:  k.LocalPort,
			RemotePort: bits.ReverseBytes16(k.RemotePortBe),
			Netns:      k.Netns,
			Protocol:   event.Protocol(k.Protocol),
		},
	}
	if k.Protocol == protocolMPTCP {
		// Its first part has the same addresses, and is what the tap sees.
		r.conn.Protocol = event.TCP
	} else if k.Protocol > 255 {
		r.conn.Protocol = 0
	}
	return r
}

// list runs an iterator to its end.
func list(ctx context.Context, it *link.Iter, visit func(*record)) error {
	from, err := it.Open()
	if err != nil {
		return fmt.Errorf("open iterator: %w", err)
	}
	defer from.Close()
	return readRecords(bufio.NewReaderSize(&patient{ctx, from}, 64<<10), visit)
}

// readRecords visits each record; it is valid during the call only.
func readRecords(from io.Reader, visit func(*record)) error {
	var b [recordSize]byte
	buf := b[:]
	var r record
	for {
		_, err := io.ReadFull(from, buf)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read iterator: %w", err)
		}
		r = decode((*[recordSize]byte)(buf))
		visit(&r)
	}
}

// patient goes on where the kernel stops to let others run: it does so after a
// million files without a socket.
type patient struct {
	ctx  context.Context
	from io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	for {
		if err := p.ctx.Err(); err != nil {
			return 0, err
		}
		n, err := p.from.Read(b)
		if !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
	}
}
