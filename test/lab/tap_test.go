// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/flow"
	"github.com/orb8/orb8/internal/store"
)

func attachments() []flow.Attach { return []flow.Attach{flow.AttachTCX, flow.AttachClsact} }

func requireAttachment(t *testing.T, how flow.Attach) {
	t.Helper()
	bpftest.RequireKernel(t, bpftest.BPF)
	if how == flow.AttachTCX {
		bpftest.RequireKernel(t, bpftest.TCX)
	}
}

// nodes are the taps of all hosts, each with its pods, as agents have them.
type nodes struct {
	t   *testing.T
	all []*node
	// They enter no namespace.
	outside bool
}

type node struct {
	host  *bpftest.Netns
	pods  []*bpftest.Pod
	tap   *flow.Tap
	flows *store.Flows
}

// tap taps a topology.
func tap(t *testing.T, topo *bpftest.Topology, how flow.Attach) tapped {
	t.Helper()
	return (&nodes{t: t}).tap(topo, how)
}

// tapOutside taps it by agents that may not enter the pods.
func tapOutside(t *testing.T, topo *bpftest.Topology, how flow.Attach) tapped {
	t.Helper()
	return (&nodes{t: t, outside: true}).tap(topo, how)
}

func (n *nodes) tap(topo *bpftest.Topology, how flow.Attach) tapped {
	t := n.t
	t.Helper()
	bpftest.Settle(t, topo.Places)
	for _, h := range topo.Hosts {
		inside := map[uint32]*bpftest.Netns{h.Inode(): h.Netns}
		for _, p := range h.Pods {
			inside[p.Inode()] = p.Netns
		}
		one := &node{host: h.Netns, pods: h.Pods, flows: store.NewFlows(store.Limits{Timeout: time.Hour})}
		cfg := flow.Config{Attach: how, StateDir: t.TempDir(), Enter: func(netns uint32, fn func() error) (err error) {
			in := inside[netns]
			if in == nil {
				return errors.New("no such namespace")
			}
			in.Do(func() { err = fn() })
			return err
		}}
		if n.outside {
			cfg.Enter, cfg.FromOutside = nil, func(netns uint32) (f *os.File, err error) {
				inside[netns].Do(func() { f, err = os.Open("/proc/thread-self/ns/net") })
				return f, err
			}
		}
		h.Do(func() {
			var err error
			if one.tap, err = flow.Open(cfg); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := one.tap.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			for inode := range inside {
				if inode != h.Inode() {
					one.tap.Add(inode, "pod", time.Now())
				}
			}
		})
		n.all = append(n.all, one)
	}
	n.Sync()
	return n
}

// Sync has the taps look at what there is.
func (n *nodes) Sync() {
	n.t.Helper()
	for _, one := range n.all {
		one.host.Do(func() {
			if err := one.tap.Sync(); err != nil {
				n.t.Fatal(err)
			}
			for _, ns := range one.tap.Namespaces() {
				if ns.Problem != "" {
					n.t.Errorf("namespace %d: %s", ns.Netns, ns.Problem)
				}
			}
		})
	}
}

// settle ends epochs until nothing moves any more.
func (n *nodes) settle() {
	n.t.Helper()
	bpftest.Eventually(n.t, "the traffic to end", func() bool {
		moved := false
		for _, one := range n.all {
			one.host.Do(func() {
				one.flows.Begin()
				err := one.tap.Epoch(true, func(d *event.Delta) {
					moved = true
					one.flows.Apply(d)
				})
				if err != nil {
					n.t.Errorf("epoch: %v", err)
				}
			})
		}
		return !moved
	})
}

func (n *nodes) Flows() (out []event.Flow) {
	n.t.Helper()
	for _, one := range n.all {
		out = append(out, one.flows.Query(store.Query{Limit: 1000}).Flows...)
	}
	return out
}

func (n *nodes) Audit() (out []store.InterfaceAudit) {
	n.t.Helper()
	n.settle()
	for _, one := range n.all {
		for _, i := range one.tap.Interfaces() {
			out = append(out, one.flows.Audit(i))
		}
	}
	return out
}

// Iface is the place's own interface, or the host's end of a pod's.
func (n *nodes) Iface(p bpftest.Place) event.Iface {
	n.t.Helper()
	i := ifaceOf(p)
	for _, one := range n.all {
		for _, pod := range one.pods {
			if n.outside && pod.Netns == p.Netns {
				i.Index = uint32(pod.Host.Link(pod.HostEnd).Attrs().Index)
			}
		}
	}
	return i
}
