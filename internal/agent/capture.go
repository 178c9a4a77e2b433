// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/orb8/orb8/internal/observer"
	"github.com/orb8/orb8/internal/probe/capture"
	"github.com/orb8/orb8/internal/probe/flow"
)

// Packets hold what people say to each other, so captures are off unless allowed,
// and then for who is on this machine only.

// maxCaptures is how many may run at once: each adds to the cost of each packet
// that it looks at, and holds a ring.
const maxCaptures = 4

// What a capture is bounded by where nobody said, and at the most.
var (
	captureDefaults = observer.CaptureBounds{Duration: time.Minute, Packets: 1_000_000, Bytes: 256 << 20, Snaplen: 256}
	captureMost     = observer.CaptureBounds{Duration: time.Hour, Packets: 100_000_000, Bytes: 64 << 30, Snaplen: capture.MaxSnaplen}
)

// How often a capture looks into its ring, and for interfaces that come and go.
const (
	captureRead = 5 * time.Millisecond
	captureLook = time.Second
)

// captures are those that run.
type captures struct {
	// Runs fn in a network namespace.
	enter func(netns uint32, fn func() error) error
	count atomic.Int32
}

// begin takes one of the places; end gives it back.
func (c *captures) begin() bool {
	if c.count.Add(1) <= maxCaptures {
		return true
	}
	c.count.Add(-1)
	return false
}

func (c *captures) end() { c.count.Add(-1) }

// enterer is how captures get into namespaces.
func (a *Agent) enterer() func(uint32, func() error) error {
	if a.spaces != nil && a.cfg.Netns == netnsAll {
		return a.spaces.watcher.Enter
	}
	own := a.tap.Own()
	return func(netns uint32, fn func() error) error {
		if netns != own {
			return errors.New("this agent enters no other network namespaces: start it with ORB8_NETNS=all")
		}
		return fn()
	}
}

// mayCapture says who asks, or why the answer is no.
func (n *node) mayCapture(ctx context.Context) (who string, err error) {
	who, local := asker(ctx, n.cfg.Listen)
	switch {
	case !n.cfg.AllowCapture:
		err = status.Error(codes.PermissionDenied, "captures are off on this node: start its agent with --allow-capture (ORB8_ALLOW_CAPTURE=true)")
	case !local:
		err = status.Error(codes.PermissionDenied, "packets are given on the agent's unix socket, and on loopback where it listens there alone: "+
			"orb8 --agent "+n.cfg.Socket+" capture on the node, or leave out ORB8_LISTEN, which is "+n.cfg.Listen)
	case !n.captures.begin():
		err = status.Errorf(codes.ResourceExhausted, "%d captures run on this node, and that is the most: wait for one to end", maxCaptures)
	}
	return who, err
}

// asker tells who asks, and whether that is on a local listener.
func asker(ctx context.Context, listen string) (who string, local bool) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return "nobody known", false
	}
	switch p.Addr.Network() {
	case "unix":
		return p.Addr.String(), true
	case "bufconn":
		return "this process", true
	}
	return p.Addr.String(), isLoopback(listen) && isLoopback(host(p.Addr)) && isLoopback(host(p.LocalAddr))
}

func host(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	return ""
}

// isLoopback: a name may lead anywhere tomorrow, but for this one.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Capture copies packets to a reader until a bound is reached, the reader leaves
// or does not read, or nothing is left to capture.
func (n *node) Capture(ctx context.Context, w observer.CaptureWish, to observer.CaptureReader) (observer.CaptureEnd, error) {
	who, err := n.mayCapture(ctx)
	if err != nil {
		n.log.Warn("Capture refused", "who", who, "question", w.Text, "why", status.Convert(err).Message())
		return observer.CaptureEnd{}, err
	}
	w.Bounds = bounded(w.Bounds)
	type outcome struct {
		observer.CaptureEnd
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer n.captures.end()
		end, err := n.captureFor(ctx, who, w, to)
		done <- outcome{end, err}
	}()
	late := time.NewTimer(w.Bounds.Duration + captureGrace)
	defer late.Stop()
	select {
	case o := <-done:
		return o.CaptureEnd, o.err
	case <-late.C:
		// What waits to tell it more fails with this.
		return observer.CaptureEnd{}, status.Error(codes.DeadlineExceeded, "the reader of the capture has stopped to read")
	}
}

// captureGrace is how long a reader may take for what is left at the end.
const captureGrace = 5 * time.Second

func (n *node) captureFor(ctx context.Context, who string, w observer.CaptureWish, to observer.CaptureReader) (end observer.CaptureEnd, err error) {
	start := time.Now()
	n.log.Info("Capture begins", "who", who, "question", w.Text, "duration", w.Bounds.Duration, "packets", w.Bounds.Packets,
		"bytes", w.Bounds.Bytes, "snaplen", w.Bounds.Snaplen)
	defer func() {
		var total observer.CaptureAmount
		for _, a := range end.Amounts {
			total.Matched, total.Sent, total.Dropped = total.Matched+a.Matched, total.Sent+a.Sent, total.Dropped+a.Dropped
		}
		by := end.By
		switch {
		case ctx.Err() != nil:
			by = "its reader, who left"
		case err != nil:
			by = status.Convert(err).Message()
		}
		n.log.Info("Capture ended", "who", who, "by", by, "took", time.Since(start).Round(time.Millisecond),
			"matched", total.Matched, "sent", total.Sent, "dropped", total.Dropped)
	}()
	t, err := n.newTargets(&w.Filter)
	if err != nil {
		return end, err
	}
	probe, err := capture.Open(capture.Config{
		Filter: w.Filter, Snaplen: w.Bounds.Snaplen, Enter: n.captures.enter, Log: n.log,
		Sockets: n.cfg.Attach == string(flow.AttachClsact), // TCX is not wanted, whyever
	})
	if err != nil {
		return end, captureFault(err)
	}
	r := &capturing{node: n, targets: t, probe: probe, to: to, bounds: w.Bounds}
	defer func() {
		end.Amounts = r.amounts()
		if closed := probe.Close(); err == nil {
			err = closed
		}
	}()
	if err := to.Begin(w.Bounds); err != nil {
		return end, err
	}
	end.By, err = r.run(ctx)
	return end, err
}

// bounded fills in what is not said, and cuts what is too much.
func bounded(b observer.CaptureBounds) observer.CaptureBounds {
	return observer.CaptureBounds{
		Duration: bounding(b.Duration, captureDefaults.Duration, captureMost.Duration),
		Packets:  bounding(b.Packets, captureDefaults.Packets, captureMost.Packets),
		Bytes:    bounding(b.Bytes, captureDefaults.Bytes, captureMost.Bytes),
		Snaplen:  bounding(b.Snaplen, captureDefaults.Snaplen, captureMost.Snaplen),
	}
}

func bounding[T ~int64 | ~uint64 | ~uint32](asked, otherwise, most T) T {
	if asked == 0 {
		asked = otherwise
	}
	return min(asked, most)
}

// captureFault is the status of an error of the probe: what it refuses is about
// the question, what the kernel refuses is not.
func captureFault(err error) error {
	var call interface{ Timeout() bool } // syscall.Errno has it
	if errors.As(err, &call) {
		return status.Error(codes.Unavailable, fmt.Sprintf("%v (capturing needs the rights of the tap: root, or BPF, NET_ADMIN, NET_RAW and SYS_ADMIN)", err))
	}
	return status.Error(codes.InvalidArgument, err.Error())
}
