// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// deviceCounters are an interface's own.
type deviceCounters struct {
	rx, tx event.Counter
	// Packets that it says it dropped on the way out, and did not count. At the
	// other end of a veth that is what its namespace did not receive.
	rxDropped, txDropped uint64
}

func (c *deviceCounters) add(o deviceCounters) {
	c.rx.Add(o.rx)
	c.tx.Add(o.tx)
	c.rxDropped += o.rxDropped
	c.txDropped += o.txDropped
}

const (
	sizeofIfStats  = 12 // struct if_stats_msg
	linkStats64    = 1  // IFLA_STATS_LINK_64
	minLinkStats64 = 64 // the counters that are read are of the first eight
)

// dumpStats asks for the counters of all interfaces of a namespace, and for
// nothing else: a full link dump costs ten times as much.
func dumpStats(execute func(*nl.NetlinkRequest) ([][]byte, error)) (map[uint32]deviceCounters, error) {
	var replies [][]byte
	var err error
	// A dump is interrupted when an interface comes or goes meanwhile: then one
	// may be missing, and what is there is right. The last try is good enough.
	for range 3 {
		req := nl.NewNetlinkRequest(unix.RTM_GETSTATS, unix.NLM_F_DUMP)
		req.AddRawData(statsRequest(0))
		if replies, err = execute(req); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("read interface counters: %w", err)
	}
	devices := make(map[uint32]deviceCounters, len(replies))
	for _, b := range replies {
		if index, c, ok := parseStats(b); ok {
			devices[index] = c
		}
	}
	return devices, nil
}

// readDevice asks one interface of the calling thread's namespace; without its
// counters there is nothing to audit against.
func readDevice(index uint32) (deviceCounters, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETSTATS, 0)
	req.AddRawData(statsRequest(index))
	replies, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWSTATS)
	if err != nil {
		return deviceCounters{}, fmt.Errorf("read interface counters: %w", err)
	}
	for _, b := range replies {
		if i, c, ok := parseStats(b); ok && i == index {
			return c, nil
		}
	}
	return deviceCounters{}, fmt.Errorf("read interface counters: %w", unix.ENODEV)
}

// statsRequest is a struct if_stats_msg; index 0 is for a dump.
func statsRequest(index uint32) []byte {
	msg := make([]byte, sizeofIfStats)
	binary.NativeEndian.PutUint32(msg[4:], index)
	binary.NativeEndian.PutUint32(msg[8:], 1<<(linkStats64-1))
	return msg
}

// parseStats reads one RTM_NEWSTATS body: struct if_stats_msg, then attributes.
func parseStats(b []byte) (index uint32, c deviceCounters, ok bool) {
	if len(b) < sizeofIfStats {
		return 0, c, false
	}
	index = binary.NativeEndian.Uint32(b[4:])
	value, found := attribute(b[sizeofIfStats:], linkStats64)
	if !found || len(value) < minLinkStats64 {
		return 0, c, false
	}
	return index, parseStats64(value), true
}

// parseStats64 reads struct rtnl_link_stats64, as far as it is used.
func parseStats64(b []byte) (c deviceCounters) {
	u := func(i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }
	c.rx = event.Counter{Packets: u(0), Bytes: u(2)}
	c.tx = event.Counter{Packets: u(1), Bytes: u(3)}
	c.txDropped = u(7)
	return c
}

// linkCounters reads the counters in an RTM_NEWLINK or RTM_DELLINK body.
func linkCounters(body []byte) *deviceCounters {
	if len(body) < unix.SizeofIfInfomsg {
		return nil
	}
	value, found := attribute(body[unix.SizeofIfInfomsg:], unix.IFLA_STATS64)
	if !found || len(value) < minLinkStats64 {
		return nil
	}
	c := parseStats64(value)
	return &c
}

// counterReader asks interfaces of any namespace, by one socket of the own.
type counterReader struct {
	fd  int
	own map[int]*nl.SocketHandle
	seq uint32
	buf []byte
}

// newCounterReader is for a thread in the own namespace.
func newCounterReader() (*counterReader, error) {
	s, err := nl.GetNetlinkSocketAt(-1, -1, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("read interface counters: %w", err)
	}
	r := &counterReader{own: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}, buf: make([]byte, 32<<10)}
	r.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("read interface counters: %w", err)
	}
	// An answer that does not come is not waited for.
	_ = unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	return r, nil
}

func (r *counterReader) Close() {
	_ = unix.Close(r.fd)
	for _, s := range r.own {
		s.Close()
	}
}

// askAtOnce is how many answers surely find room in the socket's buffer.
const askAtOnce = 24

// read returns the counters of ports, nil for one that is not to be had.
func (r *counterReader) read(ports []*port) []*deviceCounters {
	out := make([]*deviceCounters, len(ports))
	var others []int
	own := map[uint32][]int{} // an end of a veth may be two ports
	for i, p := range ports {
		switch {
		case p.space.own, p.outside:
			own[p.Iface.Index] = append(own[p.Iface.Index], i)
		case p.asked != unknownNsid:
			others = append(others, i)
		}
	}
	if len(own) > 0 {
		devices, _ := dumpStats(func(req *nl.NetlinkRequest) ([][]byte, error) {
			req.Sockets = r.own
			return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWSTATS)
		})
		for index, c := range devices {
			for _, i := range own[index] {
				out[i] = &c
			}
		}
	}
	for len(others) > 0 {
		n := min(len(others), askAtOnce)
		r.ask(ports, others[:n], out)
		others = others[n:]
	}
	return out
}

// skipStats leaves out what IPv6 counts (RTEXT_FILTER_SKIP_STATS).
const skipStats = 1 << 3

// ask puts several questions into one message.
func (r *counterReader) ask(ports []*port, which []int, out []*deviceCounters) {
	first := r.seq + 1
	var b []byte
	u32 := func(v uint32) { b = binary.NativeEndian.AppendUint32(b, v) }
	u16 := func(v uint16) { b = binary.NativeEndian.AppendUint16(b, v) }
	for _, i := range which {
		r.seq++
		const size = unix.SizeofNlMsghdr + unix.SizeofIfInfomsg + 16
		u32(size)
		u16(unix.RTM_GETLINK)
		u16(unix.NLM_F_REQUEST)
		u32(r.seq)
		u32(0)
		u32(unix.AF_UNSPEC)
		u32(ports[i].Iface.Index)
		u32(0)
		u32(0)
		u16(8)
		u16(unix.IFLA_TARGET_NETNSID)
		u32(uint32(ports[i].asked))
		u16(8)
		u16(unix.IFLA_EXT_MASK)
		u32(skipStats)
	}
	if err := unix.Sendto(r.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return
	}
	for answered := 0; answered < len(which); {
		n, _, err := unix.Recvfrom(r.fd, r.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		answered += r.answer(r.buf[:n], first, which, out)
	}
}

// answer takes in one datagram and tells how many questions it answers.
func (r *counterReader) answer(b []byte, first uint32, which []int, out []*deviceCounters) (answered int) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			break
		}
		kind, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		if nth := seq - first; nth < uint32(len(which)) { // not late answers to others
			answered++
			if kind == unix.RTM_NEWLINK {
				out[which[nth]] = linkCounters(b[unix.SizeofNlMsghdr:size])
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return answered
}
