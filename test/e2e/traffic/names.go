// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// lookup asks for a name's addresses as a program of Go's does, with what the
// container's resolv.conf says. That a name is not there is an answer, too.
func lookup(ctx context.Context, name string) error {
	said := struct {
		Name      string   `json:"name"`
		Addresses []string `json:"addresses"`
	}{Name: name, Addresses: []string{}}
	addresses, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, name)
	var failed *net.DNSError
	if err != nil && !(errors.As(err, &failed) && failed.IsNotFound) {
		return err
	}
	said.Addresses = append(said.Addresses, addresses...)
	return json.NewEncoder(os.Stdout).Encode(said)
}

// calling is what a client is to say over TLS, and how.
type calling struct {
	to, serverName, most string
	alpn                 []string
	// Connections, one after the other: all but the first go on with its session.
	times int
	// Segments that the ClientHello is sent in.
	parts int
}

// call speaks TLS. Who answers has no certificate that anybody knows: what is said
// is the matter here, and not to whom.
func call(ctx context.Context, c calling) error {
	config := &tls.Config{
		ServerName: c.serverName, NextProtos: c.alpn, InsecureSkipVerify: true,
		ClientSessionCache: tls.NewLRUClientSessionCache(1), SessionTicketsDisabled: c.times == 1,
	}
	switch c.most {
	case "1.2":
		config.MaxVersion = tls.VersionTLS12
	case "1.3":
	default:
		return fmt.Errorf("-max %s: allowed are 1.2 and 1.3", c.most)
	}
	for i := range c.times {
		if err := c.once(ctx, config, i > 0); err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	return nil
}

func (c *calling) once(ctx context.Context, config *tls.Config, again bool) error {
	conn, started, err := dial(ctx, "tcp4", sending{to: c.to, patience: 10 * time.Second})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return err
	}
	spoken := tls.Client(&inParts{conn, c.parts}, config)
	if err := spoken.HandshakeContext(ctx); err != nil {
		return err
	}
	if again != spoken.ConnectionState().DidResume {
		return fmt.Errorf("session resumed: %v, want %v", !again, again)
	}
	// With its first byte the server has sent the ticket of the session, too.
	if _, err := io.ReadFull(spoken, make([]byte, 1)); err != nil {
		return err
	}
	r := result{Protocol: "TCP", Local: conn.LocalAddr().String(), Remote: conn.RemoteAddr().String(), Received: 1, StartedNS: started}
	return errors.Join(end(spoken, conn), r.print())
}

// end closes by agreement, as finish does: the server has its say, and no reset is
// sent.
func end(spoken *tls.Conn, conn net.Conn) error {
	if err := spoken.CloseWrite(); err != nil {
		return err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.CloseWrite(); err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, conn)
	return err
}

// inParts sends what is written first in so many segments.
type inParts struct {
	net.Conn
	parts int
}

func (c *inParts) Write(b []byte) (n int, err error) {
	for ; c.parts > 1 && err == nil; c.parts-- {
		var part int
		part, err = c.Conn.Write(b[:len(b)/c.parts])
		n, b = n+part, b[part:]
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return n, err
	}
	rest, err := c.Conn.Write(b)
	return n + rest, err
}
