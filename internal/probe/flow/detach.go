// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"time"

	"github.com/orb8/orb8/internal/netns"
)

// lose ends the tap on an interface that is not there any more.
func (t *Tap) lose(p *port) {
	t.mu.Lock()
	attached := p.How != ""
	p.gone, p.Unread = time.Now(), p.Unread || attached
	links := p.drop()
	t.mu.Unlock()
	links.abandon()
	if attached {
		t.log.Info("Detached flow probe", "interface", p.Name, "netns", p.Iface.Netns)
	}
}

// detach ends the tap on one interface and keeps its account, which is read up
// to this moment.
func (t *Tap) detach(p *port) {
	attached := p.How != ""
	before, err1 := p.read()
	t.release(p)
	after, err2 := p.read()
	t.mu.Lock()
	defer t.mu.Unlock()
	p.gone = time.Now()
	if !attached {
		return
	}
	if err1 == nil {
		t.keepLast(p, before)
	}
	if err2 == nil {
		p.high.read(after)
	}
	p.Unread = err1 != nil || err2 != nil
	t.log.Info("Detached flow probe", "interface", p.Name, "netns", p.Iface.Netns)
}

// keepLast keeps the last reading of a port, which was made after the last swap:
// what the tap counted up to that may be less. Callers hold mu.
func (t *Tap) keepLast(p *port, last deviceCounters) {
	if p.last == nil {
		t.ended = append(t.ended, p)
	}
	p.last = &last
}

// takeLast has the last readings of ports count, before a swap.
func (t *Tap) takeLast() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.ended {
		before := p.low.now
		if !p.low.end(*p.last) {
			p.Unread = true
		}
		for h := p.heir; h != nil; h = h.heir {
			h.low.gain(since(p.low.now, before))
		}
		p.last = nil
	}
	t.ended = nil
}

// release takes the tap off; what is counted meanwhile is not read yet.
func (t *Tap) release(p *port) {
	var links attachments
	t.locked(func() { links, p.links = p.links, nil })
	links.close()
	t.locked(func() { p.drop() })
}

// attachments are those of a port, in the order in which they end.
type attachments []attachment

// drop is release without its end. Callers hold mu, if the port is known.
func (p *port) drop() (links attachments) {
	p.Unread = p.Unread || p.How != ""
	links, p.links, p.How = p.links, nil, ""
	return links
}

// close waits for the lock of all network configuration.
func (a attachments) close() {
	for _, c := range a {
		// The interface has usually taken the attachment along already.
		_ = c.Close()
	}
}

// abandon is close where the interface cannot be reached any more.
func (a attachments) abandon() {
	for _, c := range a {
		switch l := c.(type) {
		case tcxLink:
			_ = l.Close()
		case clsactQdisc:
			l.owner.dropQdisc(l.iface)
		}
	}
}

func (t *Tap) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

func (t *Tap) detachAll() error {
	t.attaching.Lock()
	defer t.attaching.Unlock()
	t.mu.Lock()
	t.closed = true
	spaces := t.spaces
	t.spaces, t.left, t.queue = map[uint32]*space{}, nil, nil
	t.mu.Unlock()
	var err error
	for _, s := range spaces {
		err = errors.Join(err, t.detachSpace(s))
	}
	return errors.Join(err, t.owner.Close())
}

// detachSpace leaves one namespace. TCX links end from anywhere; a clsact filter
// is removed where it is.
func (t *Tap) detachSpace(s *space) (err error) {
	outside := func() error {
		var err error
		for _, p := range s.ports {
			for _, c := range p.links {
				err = errors.Join(err, c.Close())
			}
			p.links = nil
		}
		if s.ear != nil {
			for _, c := range s.ear.links {
				err = errors.Join(err, c.Close())
			}
			s.ear = nil
		}
		return err
	}
	if !t.owner.has() {
		err = outside()
	} else if err = t.enter(s, outside); errors.Is(err, netns.ErrGone) {
		err = nil // and its filters with it
	}
	for c, p := range s.programs {
		err = errors.Join(err, p.Close())
		delete(s.programs, c)
	}
	return err
}
