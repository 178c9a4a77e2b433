// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// sending is what a client is to do.
type sending struct {
	to                      string
	udp                     bool
	bytes, back, times      int
	every, linger, patience time.Duration
}

// result is the line that is printed: addresses as the socket has them, bytes
// and messages as the application does.
type result struct {
	Protocol string `json:"protocol"`
	Local    string `json:"local"`
	Remote   string `json:"remote"`
	Sent     int    `json:"sent"`
	Received int    `json:"received"`
	// Frames, which for UDP are datagrams, each way.
	Frames int `json:"frames"`
	// Unix nanoseconds just before the first packet could have left.
	StartedNS int64 `json:"started_ns"`
}

func (r *result) print() error { return json.NewEncoder(os.Stdout).Encode(r) }

func send(ctx context.Context, s sending) error {
	if s.bytes < headLen {
		return fmt.Errorf("-bytes %d: a frame has a head of %d", s.bytes, headLen)
	}
	network := "tcp4"
	if s.udp {
		network = "udp4"
	}
	conn, started, err := dial(ctx, network, s)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := result{Protocol: strings.ToUpper(network[:3]), Local: conn.LocalAddr().String(), Remote: conn.RemoteAddr().String(), StartedNS: started}
	frame, answer := make([]byte, s.bytes), make([]byte, s.back)
	putHead(frame, s.back)
	in := bufio.NewReaderSize(conn, 1<<16)
	for r.Frames = 0; (s.times == 0 || r.Frames < s.times) && ctx.Err() == nil; r.Frames++ {
		if r.Frames > 0 && !pause(ctx, s.every) {
			break
		}
		// Nothing is lost where these tests run: what is late is an error.
		if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
			return err
		}
		if err := exchange(conn, in, frame, answer); err != nil {
			return fmt.Errorf("frame %d: %w", r.Frames, err)
		}
		r.Sent += s.bytes
		r.Received += s.back
	}
	if err := finish(conn, in); err != nil {
		return err
	}
	if err := r.print(); err != nil {
		return err
	}
	pause(ctx, s.linger)
	return nil
}

// dial repeats what was refused: a server, or the rules of its Service, may
// come a moment later. The time is that of the attempt that succeeded.
func dial(ctx context.Context, network string, s sending) (net.Conn, int64, error) {
	for until := time.Now().Add(s.patience); ; {
		started := time.Now().UnixNano()
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, s.to)
		if err == nil || time.Now().After(until) || ctx.Err() != nil {
			return conn, started, err
		}
		pause(ctx, 50*time.Millisecond)
	}
}

func exchange(conn net.Conn, in *bufio.Reader, frame, answer []byte) error {
	if _, err := conn.Write(frame); err != nil {
		return err
	}
	_, err := io.ReadFull(in, answer)
	return err
}

// finish closes a TCP connection by agreement, so that no reset is sent and
// all that was sent is on the wire when it returns.
func finish(conn net.Conn, in *bufio.Reader) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	if err := tcp.CloseWrite(); err != nil {
		return err
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the server sent more than was asked for, or broke off: %v", err)
	}
	return nil
}

// pause tells whether it lasted to its end.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// resolve asks for a name's address once, by a datagram of its own, so that its
// size is known.
func resolve(to, name string) error {
	conn, err := net.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	query := []byte{0x0b, 0x08, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		query = append(append(query, byte(len(label))), label...)
	}
	query = append(query, 0, 0, 1, 0, 1)
	r := result{Protocol: "UDP", Local: conn.LocalAddr().String(), Remote: conn.RemoteAddr().String(), Frames: 1, StartedNS: time.Now().UnixNano()}
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if r.Sent, err = conn.Write(query); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	if r.Received, err = conn.Read(answer); err != nil {
		return err
	}
	if r.Received < 12 || answer[3]&0xf != 0 {
		return fmt.Errorf("%s does not know %s: code %d", to, name, answer[3]&0xf)
	}
	return r.print()
}

// shake opens a TCP connection and closes it.
func shake(ctx context.Context, to string) error {
	conn, started, err := dial(ctx, "tcp4", sending{to: to, patience: 10 * time.Second})
	if err != nil {
		return err
	}
	r := result{Protocol: "TCP", Local: conn.LocalAddr().String(), Remote: conn.RemoteAddr().String(), StartedNS: started}
	return errors.Join(conn.Close(), r.print())
}
