// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orb8/orb8/internal/cluster"
	"github.com/orb8/orb8/internal/event"
)

// letGo is whether the GPU driver is to be held: somebody asked, or the node's
// labels do.
type letGo struct {
	// Held while the driver is told, so that it does last what was asked last.
	telling sync.Mutex

	mu     sync.Mutex
	asked  bool
	labels string // why the labels want it
	// Until when the labels are waited for.
	patience time.Time
	settled  string // why it was released; "" where it was not
}

// unread is why the driver is not opened before the node's labels are known: they
// may be there to keep it closed. A cluster that does not tell is waited for so long.
const (
	unread   = "the node's labels are not known yet"
	readTime = 10 * time.Second
)

// wait for the labels.
func (l *letGo) wait() {
	l.labels, l.settled, l.patience = unread, unread, time.Now().Add(readTime)
}

const onDemand = "on demand: orb8 gpu open takes it up again"

// why it is to be released; "": it is not.
func (l *letGo) why() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reason()
}

func (l *letGo) reason() string {
	if l.asked {
		return onDemand
	}
	return l.labels
}

// heed reads the own node's labels.
func (l *letGo) heed(known *cluster.Map, name string) {
	if known == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch n := known.Node(name); {
	case n != nil:
		l.labels = releaseReason(n.Labels)
	case l.labels == unread && time.Now().After(l.patience):
		l.labels = ""
	}
}

// driverTime bounds how long the driver is waited for.
const driverTime = 5 * time.Second

// settle does what is wanted, if that is new.
func (l *letGo) settle(ctx context.Context, g *gpus) {
	if !l.telling.TryLock() {
		return // somebody does
	}
	defer l.telling.Unlock()
	l.mu.Lock()
	reason, was := l.reason(), l.settled
	l.settled = reason
	l.mu.Unlock()
	if (reason == "") == (was == "") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, driverTime)
	defer cancel()
	var err error
	if reason != "" {
		err = g.sampler.Release(ctx)
	} else {
		err = g.sampler.Open(ctx)
	}
	// It is done as soon as it can be, without being asked again.
	g.log.Info("GPU driver", "released", reason != "", "why", reason, "error", err)
}

// GPUs is what was made of the last second.
func (n *node) GPUs(ctx context.Context) (*event.GPUView, error) {
	view := n.gpus.last()
	// Right after the start the first is waited for.
	for end := time.Now().Add(firstView); view.At == 0 && n.gpus != nil && ctx.Err() == nil && time.Now().Before(end); view = n.gpus.last() {
		time.Sleep(20 * time.Millisecond)
	}
	return view, nil
}

// firstView bounds how long the first second is waited for.
const firstView = 3 * time.Second

// last is what was made of the last second.
func (g *gpus) last() *event.GPUView {
	if g == nil {
		return &event.GPUView{Status: event.GPUStatus{Problem: notLooked}}
	}
	return g.view.Load()
}

// notLooked is why there is nothing to tell.
const notLooked = "GPUs and RDMA devices are not looked at (ORB8_GPU)"

// GPUDriver releases the driver, or takes it up again, for who is on the node.
func (n *node) GPUDriver(ctx context.Context, release bool) (open bool, err error) {
	who, local := asker(ctx, n.cfg.Listen)
	switch {
	case n.gpus == nil:
		return false, errors.New(notLooked)
	case !local:
		n.log.Warn("Refused to release or open the GPU driver", "who", who)
		return false, status.Error(codes.PermissionDenied, "the GPU driver is released on the agent's unix socket, and on loopback where it listens there alone: "+
			"orb8 --agent "+n.cfg.Socket+" gpu release on the node, or leave out ORB8_LISTEN, which is "+n.cfg.Listen)
	}
	ctx, cancel := context.WithTimeout(ctx, driverTime)
	defer cancel()
	l := &n.gpus.letGo
	l.telling.Lock()
	defer l.telling.Unlock()
	l.mu.Lock()
	l.asked = release
	reason := l.reason()
	l.settled = reason
	l.mu.Unlock()
	n.log.Info("GPU driver", "released", reason != "", "why", reason, "who", who)
	if reason != "" {
		if err = n.gpus.sampler.Release(ctx); err == nil && !release {
			err = fmt.Errorf("it stays released: %s", reason)
		}
		return n.gpus.sampler.Latest().Status.Open, err
	}
	err = n.gpus.sampler.Open(ctx)
	return n.gpus.sampler.Latest().Status.Open, err
}
