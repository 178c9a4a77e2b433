// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// change is what the kernel tells about an interface or a namespace.
type change struct {
	// A name of the kernel for the namespace, unknownNsid for the own one.
	nsid  int
	kind  uint16 // RTM_…
	index uint32
	// Of RTM_NEWLINK: the message.
	body []byte
	// Of RTM_DELLINK: the counters that the interface leaves with.
	last *deviceCounters
	// Of RTM_NEWADDR.
	address *event.IP
	// Of RTM_NEWTFILTER: the name that its program was given.
	filter string
}

// watch is one socket of the own namespace that hears of all namespaces, or of
// the own one only: one inside of another would keep it alive.
type watch struct{ file *os.File }

const watchBuffer = 4 << 20

// openWatch is for a thread in the own namespace. To hear of all takes the
// capability NET_BROADCAST; deaf is who is refused that.
func openWatch(all bool) (w *watch, deaf bool, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, false, fmt.Errorf("follow interfaces: %w", err)
	}
	w = &watch{os.NewFile(uintptr(fd), "rtnetlink")}
	// Without the right to it the buffer is what it is; an overflow is noticed.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer)
	if all {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
		if deaf = errors.Is(err, unix.EPERM); deaf {
			err = nil
		}
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	for _, group := range []int{unix.RTNLGRP_LINK, unix.RTNLGRP_TC, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_NSID} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		}
	}
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("follow interfaces: %w", err), w.file.Close())
	}
	return w, deaf, nil
}

// run hands over what it hears until the socket is closed. nil stands for what
// was lost because the socket's buffer was full.
func (w *watch) run(hear func(*change)) error {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("follow interfaces: %w", err)
	}
	buf, oob := make([]byte, 64<<10), make([]byte, 128)
	for {
		var n, oobn int
		var got error
		err := raw.Read(func(fd uintptr) bool {
			n, oobn, _, _, got = unix.Recvmsg(int(fd), buf, oob, 0)
			return !errors.Is(got, unix.EAGAIN)
		})
		switch {
		case err != nil:
			return nil // closed
		case errors.Is(got, unix.ENOBUFS):
			hear(nil)
		case errors.Is(got, unix.EINTR):
		case got != nil:
			return fmt.Errorf("follow interfaces: %w", got)
		default:
			parseChanges(buf[:n], parseNsid(oob[:oobn]), hear)
		}
	}
}

// parseNsid reads where a message comes from: nothing is said of the own one.
func parseNsid(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return unknownNsid
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_NETLINK && m.Header.Type == unix.NETLINK_LISTEN_ALL_NSID && len(m.Data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(m.Data)))
		}
	}
	return unknownNsid
}

const (
	sizeofRtGenMsg = 4 // struct rtgenmsg, padded
	netnsaNsid     = 1 // NETNSA_NSID
	maxAttributes  = 256
	sizeofTcMsg    = 20 // struct tcmsg
	tcaOptions     = 2  // TCA_OPTIONS
	tcaBpfName     = 7  // TCA_BPF_NAME
)

// parseChanges reads a datagram of rtnetlink messages.
func parseChanges(b []byte, nsid int, hear func(*change)) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return
		}
		if c, ok := parseChange(binary.NativeEndian.Uint16(b[4:]), b[unix.SizeofNlMsghdr:size], nsid); ok {
			hear(&c)
		}
		b = b[min(len(b), (size+3)&^3):]
	}
}

func parseChange(kind uint16, body []byte, nsid int) (c change, ok bool) {
	c = change{nsid: nsid, kind: kind}
	switch kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) < unix.SizeofIfInfomsg || body[0] != unix.AF_UNSPEC { // bridges tell of their ports as well
			return c, false
		}
		c.index = binary.NativeEndian.Uint32(body[4:])
		if kind == unix.RTM_DELLINK {
			c.last = linkCounters(body)
		} else {
			c.body = body
		}
		return c, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(body) < unix.SizeofIfAddrmsg {
			return c, false
		}
		c.index = binary.NativeEndian.Uint32(body[4:])
		if kind == unix.RTM_NEWADDR {
			c.address = localAddress(body[unix.SizeofIfAddrmsg:])
		}
		return c, true
	case unix.RTM_DELQDISC, unix.RTM_DELTFILTER, unix.RTM_NEWTFILTER:
		if len(body) < 8 { // struct tcmsg begins with family and interface
			return c, false
		}
		c.index = binary.NativeEndian.Uint32(body[4:])
		if kind == unix.RTM_NEWTFILTER {
			c.filter = filterName(body)
		}
		return c, true
	case unix.RTM_NEWNSID, unix.RTM_DELNSID:
		if len(body) < sizeofRtGenMsg {
			return c, false
		}
		id, found := attribute(body[sizeofRtGenMsg:], netnsaNsid)
		if !found || len(id) < 4 {
			return c, false
		}
		// Told of another namespace's names, they mean nothing here.
		c.nsid = int(int32(binary.NativeEndian.Uint32(id)))
		return c, nsid == unknownNsid
	}
	return c, false
}

// link is the interface that an RTM_NEWLINK tells of, or nil.
func (c *change) link() netlink.Link {
	l, err := netlink.LinkDeserialize(nil, c.body)
	if err != nil {
		return nil
	}
	return l
}

// filterName reads the name of a filter's program out of the body of an
// RTM_NEWTFILTER; "" where it has none.
func filterName(body []byte) string {
	if len(body) < sizeofTcMsg {
		return ""
	}
	options, found := attribute(body[sizeofTcMsg:], tcaOptions)
	if !found {
		return ""
	}
	name, _ := attribute(options, tcaBpfName)
	return unix.ByteSliceToString(name)
}

// localAddress reads the address out of the attributes of an RTM_NEWADDR body:
// IFA_LOCAL where there is a peer, else IFA_ADDRESS.
func localAddress(attributes []byte) *event.IP {
	b, found := attribute(attributes, unix.IFA_LOCAL)
	if !found {
		b, _ = attribute(attributes, unix.IFA_ADDRESS)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return nil
	}
	ip := event.IPFrom(a)
	return &ip
}

// attribute returns the value of the first attribute of a type.
func attribute(b []byte, kind uint16) ([]byte, bool) {
	for range maxAttributes {
		if len(b) < unix.SizeofRtAttr {
			break
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			return b[unix.SizeofRtAttr:size], true
		}
		b = b[min(len(b), (size+3)&^3):] // attributes are aligned to four bytes
	}
	return nil, false
}
