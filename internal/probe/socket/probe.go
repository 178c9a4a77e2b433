// SPDX-License-Identifier: Apache-2.0

package socket

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// Owner is who a socket belongs to.
type Owner struct {
	Process
	// It is the kernel's own: no process has it.
	Kernel bool
	// A listing has seen it so. Else it is who made the socket or listens for
	// it, and who uses it may turn out to be another: ask again later.
	Final bool
}

// Owner finds who a socket belongs to by its cookie: first in the last listing,
// then, by one look-up in a map of the kernel's, among those who made sockets.
// It allocates nothing and is for one goroutine.
func (p *Probe) Owner(cookie uint64) (Owner, bool) {
	if cookie == 0 {
		return Owner{}, false
	}
	d := p.now.Load()
	if i, ok := d.cookies[cookie]; ok {
		return d.sockets[i].owner(true), true
	}
	if p.created == nil {
		return Owner{}, false
	}
	p.cookie = cookie
	if err := p.notes.Lookup(&p.cookie, &p.note); err != nil {
		return Owner{}, false
	}
	o := Owner{Process: Process{PID: p.note.Tgid, Start: p.note.StartNs}}
	for i, c := range p.note.Comm {
		o.Name[i] = byte(c)
	}
	// What systemd opens is for others.
	o.Final = o.PID != 1
	return o, true
}

// Find finds who a connection belongs to by its addresses, for one that has
// sent nothing yet and whose cookie is not known. A connection that is too
// young for the last listing belongs, until the next, to who listens for it.
func (p *Probe) Find(c *event.Conn) (Owner, bool) {
	if c.Kind != event.ConnPlain || c.LocalPort == 0 {
		return Owner{}, false
	}
	d := p.now.Load()
	if s := d.conn(c); s != nil {
		return s.owner(true), true
	}
	if s := d.at(c); s != nil && (s.process != Process{} || s.kernel) {
		return s.owner(c.Protocol != event.TCP), true
	}
	return Owner{}, false
}

func (r *record) owner(final bool) Owner {
	return Owner{Process: r.process, Kernel: r.kernel, Final: final}
}

// Listening tells that a socket waits for others at the local end of c: of TCP
// one that listens, else one that is bound and not connected.
func (p *Probe) Listening(c *event.Conn) bool {
	return c.Kind == event.ConnPlain && c.LocalPort != 0 && p.now.Load().at(c) != nil
}

// Generation counts the listings that ended well; while it stays, the answers
// stay, but for sockets made since.
func (p *Probe) Generation() uint64 { return p.generation.Load() }

// Want asks for a listing, with the kernel's own sockets of a namespace. Many
// wants are one; it returns at once.
func (p *Probe) Want(netns uint32) {
	p.mu.Lock()
	if len(p.asked) < maxNamespaces {
		p.asked[netns] = true
	}
	p.mu.Unlock()
	select {
	case p.wanted <- struct{}{}:
	default:
	}
}

// Run lists sockets at once and then whenever somebody wants it, at most once a
// second and for at most a hundredth of a core. It ends with ctx.
func (p *Probe) Run(ctx context.Context) error {
	if p.held == nil {
		<-ctx.Done()
		return nil
	}
	p.Want(p.netns)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wanted:
		}
		start := time.Now()
		err := p.Refresh(ctx)
		if ctx.Err() != nil {
			return nil
		}
		p.settle(err)
		timer.Reset(time.Until(start.Add(interval(p.Cost()))))
	}
}

// interval keeps the cost of listings in its share.
func interval(cost time.Duration) time.Duration { return max(minInterval, share*cost) }

// settle notes whether listings work.
func (p *Probe) settle(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.mu.Lock()
	was := p.failing
	p.failing = text
	p.mu.Unlock()
	switch {
	case err != nil && was == "":
		p.log.Error("sockets not listed, will try again when wanted", "error", err)
	case err == nil && was != "":
		p.log.Info("sockets are listed again")
	}
}

// Refresh lists the sockets now: those of all processes, and the kernel's own
// in the namespaces that were asked for. It is not for two goroutines at once.
func (p *Probe) Refresh(ctx context.Context) error {
	if p.held == nil {
		return errors.New("list sockets: this kernel cannot (Problems tells why)")
	}
	// The time of a thread is counted, not that of the machine.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := threadTime()
	d := newDirectory(p.cfg.Sockets)
	if err := list(ctx, p.held, d.add); err != nil {
		return fmt.Errorf("list sockets: %w", err)
	}
	d.seal()
	unlisted, elsewhere := "", time.Duration(0)
	for netns := range p.takeAsked() {
		cost, err := p.listKernel(ctx, netns, d)
		elsewhere += cost
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// A namespace that is gone has no sockets.
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			unlisted = fmt.Sprintf("the kernel's own sockets in network namespace %d are not told apart: %v", netns, err)
		}
	}
	p.now.Store(d)
	p.generation.Add(1)
	p.mu.Lock()
	p.cost, p.cut, p.unlisted = threadTime()-start+elsewhere, d.cut, unlisted
	p.mu.Unlock()
	return nil
}

func (p *Probe) takeAsked() map[uint32]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	asked := p.asked
	p.asked = map[uint32]bool{}
	return asked
}

// listKernel adds the kernel's own sockets of a namespace. It returns what that
// cost on another thread than the caller's.
func (p *Probe) listKernel(ctx context.Context, netns uint32, d *directory) (cost time.Duration, err error) {
	if p.udp == nil || netns != p.netns && p.cfg.Enter == nil {
		return 0, nil // Problems tells already, or who gave no Enter
	}
	both := func() error {
		if err := list(ctx, p.tcp, d.addKernel); err != nil {
			return err
		}
		return list(ctx, p.udp, d.addKernel)
	}
	if netns == p.netns {
		return 0, both()
	}
	caller := unix.Gettid()
	err = p.cfg.Enter(netns, func() error {
		if unix.Gettid() != caller {
			start := threadTime()
			defer func() { cost = threadTime() - start }()
		}
		return both()
	})
	return cost, err
}

func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
