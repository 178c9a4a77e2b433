// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// submit sends requests to rtnetlink in one message, in the thread's namespace,
// and gives the answer to each: nil where it was done. Each needs the lock of all
// network configuration. Sent one by one, each waits behind all others that want
// it; sent together, the kernel goes on to the next at once.
func submit(requests ...*nl.NetlinkRequest) ([]error, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	// An answer that does not come is not waited for.
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})
	var all []byte
	for i, r := range requests {
		r.Seq = uint32(i + 1)
		all = append(all, r.Serialize()...)
	}
	if err := unix.Sendto(fd, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	answers := make([]error, len(requests))
	buf := make([]byte, 16<<10)
	for open := len(requests); open > 0; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		default:
			open -= parseAnswers(buf[:n], answers)
		}
	}
	return answers, nil
}

// parseAnswers reads a datagram of acknowledgements into answers, which are by
// sequence number from 1 on, and gives how many there were.
func parseAnswers(b []byte, answers []error) (n int) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return n
		}
		seq := int(binary.NativeEndian.Uint32(b[8:]))
		if binary.NativeEndian.Uint16(b[4:]) == unix.NLMSG_ERROR && size >= unix.SizeofNlMsghdr+4 && seq >= 1 && seq <= len(answers) {
			if code := int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); code != 0 {
				answers[seq-1] = unix.Errno(-code)
			}
			n++
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return n
}

const addFlags = unix.NLM_F_CREATE | unix.NLM_F_EXCL | unix.NLM_F_ACK

// addRequest asks for a qdisc or a filter.
func addRequest(kind int, at nl.TcMsg, name string) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(kind, addFlags)
	at.Family = unix.AF_UNSPEC
	r.AddData(&at)
	r.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(name)))
	return r
}

func qdiscRequest(q *netlink.GenericQdisc) *nl.NetlinkRequest {
	return addRequest(unix.RTM_NEWQDISC, nl.TcMsg{Ifindex: int32(q.LinkIndex), Handle: q.Handle, Parent: q.Parent}, q.QdiscType)
}

func filterRequest(f *netlink.BpfFilter) *nl.NetlinkRequest {
	r := addRequest(unix.RTM_NEWTFILTER, nl.TcMsg{
		Ifindex: int32(f.LinkIndex), Handle: f.Handle, Parent: f.Parent,
		Info: netlink.MakeHandle(f.Priority, nl.Swap16(f.Protocol)),
	}, "bpf")
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_BPF_FD, nl.Uint32Attr(uint32(f.Fd)))
	options.AddRtAttr(nl.TCA_BPF_NAME, nl.ZeroTerminated(f.Name))
	options.AddRtAttr(nl.TCA_BPF_FLAGS, nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
	r.AddData(options)
	return r
}

// submitClsact asks for the qdisc and the filters of an interface.
func submitClsact(index int, filters []*netlink.BpfFilter) (qdisc error, added []error, err error) {
	requests := []*nl.NetlinkRequest{qdiscRequest(clsact(index))}
	for _, f := range filters {
		requests = append(requests, filterRequest(f))
	}
	answers, err := submit(requests...)
	if err != nil {
		return nil, nil, fmt.Errorf("attach by clsact: %w", err)
	}
	return answers[0], answers[1:], nil
}
