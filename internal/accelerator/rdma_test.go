// SPDX-License-Identifier: Apache-2.0

package accelerator

import (
	"testing"

	"github.com/orb8/orb8/internal/event"
)

// hca adds an RDMA device that moved some bytes in the second.
func (n *node) hca(name string, netns uint32, bytes uint64) *event.RDMADevice {
	n.RDMA = append(n.RDMA, event.RDMADevice{
		Name: name, Netns: netns, Shared: netns == 0, PCI: "0000:1b:00." + name[len(name)-1:],
		Ports: []event.RDMAPort{
			{Number: 1, Moved: event.Traffic{TxBytes: bytes, TxPackets: 1}, MovedKnown: true},
			{Number: 2},
		},
	})
	return &n.RDMA[len(n.RDMA)-1]
}

func TestWhoUsesRDMA(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     func(n *node)
		want    event.RDMAUse
		holders int
	}{
		{"none", func(*node) {}, event.RDMAUse{}, 0},
		{
			"in the pod's namespace", func(n *node) { n.hca("mlx5_1", 77, 10) },
			event.RDMAUse{Devices: []string{"mlx5_1"}, Moved: event.Traffic{TxBytes: 10, TxPackets: 1}, Known: true},
			1,
		},
		{"in another's", func(n *node) { n.hca("mlx5_1", 78, 10) }, event.RDMAUse{}, 0},
		{
			"by queue pairs", func(n *node) { n.hca("mlx5_1", 0, 10).PIDs = []uint32{100, 100} },
			event.RDMAUse{Devices: []string{"mlx5_1"}, Moved: event.Traffic{TxBytes: 10, TxPackets: 1}, Known: true, Shared: true},
			1,
		},
		{"given by its address", func(n *node) {
			n.hca("mlx5_1", 0, 10)
			n.Held = append(n.Held, Held{Who: pod("a"), Resource: "openshift.io/mlx", ID: "0000:1B:00.1"})
		}, event.RDMAUse{Devices: []string{"mlx5_1"}, Moved: event.Traffic{TxBytes: 10, TxPackets: 1}, Known: true, Shared: true}, 1},
		{
			"of several", func(n *node) { n.hca("mlx5_1", 0, 10).PIDs = []uint32{100, 101} },
			event.RDMAUse{Devices: []string{"mlx5_1"}, Shared: true},
			2,
		},
		{
			"and of somebody", func(n *node) { n.hca("mlx5_1", 0, 10).PIDs = []uint32{100, 999} },
			event.RDMAUse{Devices: []string{"mlx5_1"}, Shared: true},
			1,
		},
		{"one its own, one not", func(n *node) {
			n.hca("mlx5_1", 77, 10)
			n.hca("mlx5_2", 0, 10).PIDs = []uint32{100, 101}
		}, event.RDMAUse{Devices: []string{"mlx5_1", "mlx5_2"}, Moved: event.Traffic{TxBytes: 10, TxPackets: 1}, Shared: true}, 2},
		{
			"not counted yet", func(n *node) { n.hca("mlx5_1", 77, 10).Ports[0] = event.RDMAPort{Number: 1} },
			event.RDMAUse{Devices: []string{"mlx5_1"}},
			1,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode()
			s := n.gpu(0.5)
			n.process(s, pod("a"), 0.5, 1e9)
			n.process(s, pod("b"), 0.5, 1e9)
			n.Netns = func(inode uint32) *event.Identity {
				if inode == 77 {
					return pod("a")
				}
				return nil
			}
			c.set(n)
			tracker := New(Config{})
			for range 2 {
				view, _ := tracker.Round(&n.Round)
				h, _ := row(t, view, "a", 0)
				if got := h.RDMA; got.Moved != c.want.Moved || got.Known != c.want.Known || got.Shared != c.want.Shared || len(got.Devices) != len(c.want.Devices) {
					t.Errorf("%+v, not %+v", got, c.want)
				}
				holders := 0
				for i := range view.RDMA {
					holders = max(holders, len(view.RDMA[i].Holders))
					for _, who := range view.RDMA[i].Holders {
						if who.Pod == "a" && who != h.Who {
							t.Error("it is another identity than that of the row")
						}
					}
					if n.RDMA[i].Holders != nil {
						t.Error("the sampler's own was changed")
					}
				}
				if holders != c.holders {
					t.Errorf("%d holders", holders)
				}
				n.next()
			}
		})
	}
}
