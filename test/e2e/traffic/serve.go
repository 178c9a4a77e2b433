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
	udp, err := net.ListenPacket("udp4", address)
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

func answerDatagrams(udp net.PacketConn) {
	frame := make([]byte, 1<<16)
	for {
		n, from, err := udp.ReadFrom(frame)
		if err != nil {
			return
		}
		if n < headLen {
			continue
		}
		back := min(binary.BigEndian.Uint32(frame[4:]), 1<<16-64)
		if _, err := udp.WriteTo(frame[:back], from); err != nil {
			fmt.Fprintln(os.Stderr, "traffic:", from, err)
		}
	}
}
