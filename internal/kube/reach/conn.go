// SPDX-License-Identifier: Apache-2.0

package reach

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
)

// faultWait is how long the reason of an end may come after the end itself.
const faultWait = 500 * time.Millisecond

// conn is one stream to a port of a pod. It owns its session with the API
// server.
type conn struct {
	session httpstream.Connection
	data    httpstream.Stream
	// What the kubelet says of the port; to be read when told is closed.
	fault string
	told  chan struct{}
	// The other side has ended it.
	ended atomic.Bool

	mu     sync.Mutex
	expiry *time.Timer
}

func newConn(session httpstream.Connection, port int) (*conn, error) {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	faults, err := session.CreateStream(headers)
	if err != nil {
		return nil, fmt.Errorf("open the error stream: %w", err)
	}
	// Nothing is written to it.
	if err := faults.Close(); err != nil {
		return nil, fmt.Errorf("close the error stream: %w", err)
	}
	c := &conn{session: session, told: make(chan struct{})}
	go func() {
		defer close(c.told)
		const longest = 4096
		text, _ := io.ReadAll(io.LimitReader(faults, longest))
		c.fault = string(text)
	}()
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	if c.data, err = session.CreateStream(headers); err != nil {
		if fault := c.Fault(); fault != nil { // the kubelet was faster
			return nil, fault
		}
		return nil, fmt.Errorf("open the data stream: %w", err)
	}
	return c, nil
}

// Read ends with what the kubelet said of the port, if it said something.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.data.Read(p)
	if n > 0 || err == nil {
		return n, nil
	}
	c.ended.Store(true)
	if fault := c.Fault(); fault != nil {
		return 0, fault
	}
	return 0, err
}

// Fault is why the pod's port cannot be used, once the connection has ended.
func (c *conn) Fault() error {
	select {
	case <-c.told:
	case <-time.After(faultWait):
		return nil
	}
	switch {
	case c.fault == "":
		return nil
	// The runtime's own words name its namespaces and containers.
	case strings.Contains(c.fault, "connection refused"):
		return errRefused
	}
	return errors.New(strings.Join(strings.Fields(c.fault), " "))
}

// errRefused says that the pod is there and its agent is not listening.
var errRefused = fmt.Errorf("connection refused, nothing listens at port %d of the pod", Port)

// Write fails as Read does.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.data.Write(p)
	if err == nil {
		return n, nil
	}
	c.ended.Store(true)
	if fault := c.Fault(); fault != nil {
		return n, fault
	}
	return n, err
}

// Close ends the session, too. With it ends what the kubelet has to say of a
// connection that is over, so that is waited for.
func (c *conn) Close() error {
	_ = c.SetDeadline(time.Time{})
	if c.ended.Load() {
		_ = c.Fault()
	}
	return errors.Join(c.data.Reset(), c.session.Close())
}

// SetDeadline makes the connection end at a time: its streams know of no
// deadlines, and gRPC sets one only as it hangs up.
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.expiry != nil {
		c.expiry.Stop()
		c.expiry = nil
	}
	if !t.IsZero() {
		c.expiry = time.AfterFunc(time.Until(t), func() { c.session.Close() })
	}
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.SetDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

func (c *conn) LocalAddr() net.Addr  { return place{} }
func (c *conn) RemoteAddr() net.Addr { return place{} }

// place stands for addresses that a stream does not have.
type place struct{}

func (place) Network() string { return "portforward" }
func (place) String() string  { return "pod" }
