// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A frame begins with its own length and that of the answer, 4 bytes each.
const headLen = 8

func putHead(frame []byte, back int) {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)))
	binary.BigEndian.PutUint32(frame[4:], uint32(back))
}

// serve answers frames over TCP and UDP until the context ends.
func serve(ctx context.Context, port int) error {
	address := fmt.Sprintf("0.0.0.0:%d", port)
	tcp, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	udp, err := listenDatagrams(port)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { tcp.Close(); udp.Close() })
	go answerDatagrams(udp)
	fmt.Println("serving", address)
	for {
		conn, err := tcp.Accept()
		if err != nil {
			return ignoreClosed(err)
		}
		go func() {
			defer conn.Close()
			if err := answerStream(conn); err != nil {
				fmt.Fprintln(os.Stderr, "traffic:", conn.RemoteAddr(), err)
			}
		}()
	}
}

func listenDatagrams(port int) (*net.UDPConn, error) {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return nil, err
	}
	raw, err := udp.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
	return udp, errors.Join(err, failed)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func answerStream(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 1<<16)
	for {
		var head [headLen]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			// Between two frames the client may leave.
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		size := int64(binary.BigEndian.Uint32(head[:]))
		if _, err := io.CopyN(io.Discard, in, size-headLen); err != nil {
			return err
		}
		if _, err := conn.Write(make([]byte, binary.BigEndian.Uint32(head[4:]))); err != nil {
			return err
		}
	}
}

// answerDatagrams answers from the address that was asked, which on a node is
// not always the one that the way back would choose.
func answerDatagrams(udp *net.UDPConn) {
	frame, about := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, aboutLen, _, from, err := udp.ReadMsgUDPAddrPort(frame, about)
		if err != nil {
			return
		}
		if n < headLen {
			continue
		}
		back := min(binary.BigEndian.Uint32(frame[4:]), 1<<16-64)
		if _, _, err := udp.WriteMsgUDPAddrPort(frame[:back], askedAddress(about[:aboutLen]), from); err != nil {
			fmt.Fprintln(os.Stderr, "traffic:", from, err)
		}
	}
}

// askedAddress turns what came with a datagram into what goes with its answer.
func askedAddress(about []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(about)
	if err != nil {
		return nil
	}
	for _, m := range messages {
		// in_pktinfo: interface, the address to answer from, the header's.
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12 {
			return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[8:12])})
		}
	}
	return nil
}
