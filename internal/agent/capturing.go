// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/netns"
	"github.com/orb8/orb8/internal/observer"
	"github.com/orb8/orb8/internal/probe/capture"
	"github.com/orb8/orb8/internal/wire"
)

// capturing is one capture as it runs, for one goroutine.
type capturing struct {
	node    *node
	targets *targets
	probe   *capture.Capture
	to      observer.CaptureReader
	bounds  observer.CaptureBounds

	on      map[event.Iface]*captured
	by      []*captured // by number
	refused map[event.Iface]bool
	// Packets that are not told yet, and where their bytes are.
	batch []observer.CapturedPacket
	data  []byte
	// Told so far.
	packets, bytes, dropped uint64
}

// captured is an interface that is captured at, or was.
type captured struct {
	place
	capture.Interface
	sent uint64
}

// batchBytes is how much one message holds, about.
const batchBytes = 64 << 10

// Why captures end.
const (
	endDuration = "duration"
	endPackets  = "packets"
	endBytes    = "bytes"
	endNoMatch  = "no match"
	endGone     = "gone"
)

func (r *capturing) run(ctx context.Context) (by string, err error) {
	r.on, r.refused = map[event.Iface]*captured{}, map[event.Iface]bool{}
	if err := r.look(ctx); err != nil {
		return "", err
	}
	if len(r.on) == 0 {
		return endNoMatch, nil
	}
	end := time.NewTimer(r.bounds.Duration)
	read, look := time.NewTicker(captureRead), time.NewTicker(captureLook)
	defer func() { end.Stop(); read.Stop(); look.Stop() }()
	for by == "" && err == nil {
		select {
		case <-ctx.Done():
			return "", status.FromContextError(ctx.Err()).Err()
		case <-r.node.done:
			return "", status.Error(codes.Unavailable, errStopped.Error())
		case <-end.C:
			if err = r.probe.Stop(); err == nil {
				if by, err = r.read(); by == "" {
					by = endDuration
				}
			}
		case <-read.C:
			by, err = r.read()
		case <-look.C:
			if err = r.look(ctx); err == nil && len(r.on) == 0 {
				if by, err = r.read(); by == "" {
					by = endGone
				}
			}
		}
	}
	return by, errors.Join(err, r.drops())
}

// look makes what is captured at match what is there.
func (r *capturing) look(ctx context.Context) error {
	wanted, notes, err := r.targets.find(ctx)
	if err != nil {
		return err
	}
	for _, note := range notes {
		if err := r.to.Note(note); err != nil {
			return err
		}
	}
	for iface, c := range r.on {
		if _, ok := wanted[iface]; ok && !r.lost(iface) {
			continue
		}
		delete(r.on, iface)
		if err := errors.Join(r.probe.Detach(c.Number), r.to.Note(c.name()+" is gone")); err != nil {
			return err
		}
	}
	for iface, p := range wanted {
		if r.on[iface] == nil && !r.refused[iface] {
			if err := r.attach(iface, p); err != nil {
				return err
			}
		}
	}
	return r.drops()
}

// lost: a packet socket keeps the namespace of a pod that has ended alive, so it
// is asked whether anybody else does.
func (r *capturing) lost(iface event.Iface) bool {
	return r.probe.Pins() && errors.Is(r.node.captures.enter(iface.Netns, func() error { return nil }), netns.ErrGone)
}

func (r *capturing) attach(iface event.Iface, p place) error {
	i, err := r.probe.Attach(&p.target)
	if errors.Is(err, netns.ErrGone) || errors.Is(err, capture.ErrGone) {
		return nil // gone since it was found; the next look says so
	}
	if err != nil {
		if len(r.by) == 0 {
			return captureFault(err)
		}
		r.refused[iface] = true
		return r.to.Note(fmt.Sprintf("%s is not captured: %v", p.name(), err))
	}
	c := &captured{place: p, Interface: i}
	r.on[iface] = c
	r.by = append(r.by, c)
	return r.to.Interface(&wire.CaptureInterface{
		Number: i.Number, Iface: iface, Place: p.at, Owner: p.owner, LinkType: i.LinkType, Snaplen: r.bounds.Snaplen,
	})
}

// read tells what has been captured, and whether that is enough.
func (r *capturing) read() (by string, err error) {
	var failed error
	err = r.probe.Read(func(p *capture.Packet) bool {
		r.add(p)
		switch {
		case r.packets >= r.bounds.Packets:
			by = endPackets
		case r.bytes >= r.bounds.Bytes:
			by = endBytes
		}
		if by == "" && len(r.data) >= batchBytes {
			failed = r.flush()
		}
		return by == "" && failed == nil
	})
	return by, errors.Join(err, failed, r.flush())
}

// add puts a packet into the batch, whose bytes are in few large pieces: what is
// told of belongs to the reader.
func (r *capturing) add(p *capture.Packet) {
	if cap(r.data)-len(r.data) < len(p.Data) {
		r.data = make([]byte, 0, batchBytes+len(p.Data))
	}
	at := len(r.data)
	r.data = append(r.data, p.Data...)
	r.batch = append(r.batch, observer.CapturedPacket{
		Interface: p.Interface, Time: p.Time, Egress: p.Egress, Length: p.Length, Data: r.data[at:],
	})
	r.packets++
	r.bytes += uint64(len(p.Data))
	r.by[p.Interface].sent++
}

func (r *capturing) flush() error {
	if len(r.batch) == 0 {
		return nil
	}
	err := r.to.Packets(r.batch)
	r.batch, r.data = r.batch[:0], nil
	return err
}

// drops tells how many more packets found no room.
func (r *capturing) drops() error {
	counts, err := r.probe.Counts()
	if err != nil {
		return err
	}
	var dropped uint64
	for _, c := range counts {
		dropped += c.Dropped
	}
	more := dropped - r.dropped
	if r.dropped = dropped; more == 0 {
		return nil
	}
	return r.to.Dropped(more)
}

// amounts are what was done at each interface.
func (r *capturing) amounts() []observer.CaptureAmount {
	counts, err := r.probe.Counts()
	if err != nil {
		return nil
	}
	amounts := make([]observer.CaptureAmount, len(counts))
	for i, c := range counts {
		amounts[i] = observer.CaptureAmount{Matched: c.Matched, Sent: r.by[i].sent, Dropped: c.Dropped}
	}
	return amounts
}
