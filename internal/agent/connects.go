// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"log/slog"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/connect"
	"github.com/orb8/orb8/internal/store"
)

// connects are those that failed since the last epoch. A nil one knows of none.
type connects struct {
	log   *slog.Logger
	probe *connect.Probe
	taken []event.FailedConnect
	deaf  bool // they could not be read the last time
}

// openConnects gives nil and a note where the kernel does not tell.
func openConnects(log *slog.Logger) (*connects, string) {
	probe, err := connect.Open()
	if err != nil {
		log.Warn("Not attached: connect probe", "error", err)
		return nil, fmt.Sprintf("connects that time out, find no way or are given up are not told: %v", err)
	}
	return &connects{log: log, probe: probe}, ""
}

func (c *connects) pending() bool { return c != nil && c.probe.Pending() }

// take reads those of namespaces that are tapped. Where what was taken before has
// not been told, the rest waits in the kernel.
func (c *connects) take(tapped func(netns uint32) bool) {
	if c == nil || len(c.taken) > 0 {
		return
	}
	all, err := c.probe.Take(c.taken)
	if (err != nil) != c.deaf {
		if c.deaf = err != nil; c.deaf {
			c.log.Error("failed connects not read, will try again", "error", err)
		} else {
			c.log.Info("failed connects are read again")
		}
	}
	c.taken = all[:0]
	for i := range all {
		if tapped(all[i].Conn.Netns) {
			c.taken = append(c.taken, all[i])
		}
	}
}

// tell ends the connections whose connects have failed.
func (c *connects) tell(flows *store.Flows, tell func(*event.Flow, store.Happened, bool)) {
	if c == nil || len(c.taken) == 0 {
		return
	}
	flows.Fail(c.taken, tell)
	c.taken = c.taken[:0]
}

func (c *connects) losses() []event.Loss {
	if c == nil || c.probe.Lost() == 0 {
		return nil
	}
	return []event.Loss{{Stage: "connects", Count: c.probe.Lost(), Hint: "connects failed faster than they were read: some connections do not say why they were never open"}}
}

func (c *connects) memory() uint64 {
	if c == nil {
		return 0
	}
	return c.probe.KernelMemory()
}

func (c *connects) Close() error {
	if c == nil {
		return nil
	}
	return c.probe.Close()
}
