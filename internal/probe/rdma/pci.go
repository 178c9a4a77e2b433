// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/orb8/orb8/internal/event"
)

// Nearest is which GPUs are the nearest to a device, in their order, and how
// near they are. Of those that are below one switch, it is those whose way to the
// device is the shortest. Nothing is known of a device that is neither on a PCI
// bus nor on a NUMA node. Instances are no GPUs of their own.
func Nearest(sysfs string, d *event.RDMADevice, gpus []event.GPU) (uuids []string, how event.PCIDistance) {
	own := bridges(sysfs, d.PCI)
	if own == nil && d.NUMA < 0 {
		return nil, 0
	}
	best := nearness{}
	for i := range gpus {
		g := &gpus[i]
		if g.Parent != "" {
			continue
		}
		n := near(own, bridges(sysfs, g.PCI))
		if n.how == event.PCIFar && d.NUMA >= 0 && d.NUMA == g.NUMA {
			n.how = event.PCINode
		}
		switch {
		case best.how == 0 || n.how < best.how || n.how == best.how && n.depth > best.depth:
			best, uuids = n, []string{g.UUID}
		case n == best:
			uuids = append(uuids, g.UUID)
		}
	}
	return uuids, best.how
}

type nearness struct {
	how event.PCIDistance
	// How many bridges of one tree of switches are above both.
	depth int
}

func near(a, b []string) nearness {
	same := 0
	for same < len(a) && same < len(b) && a[same] == b[same] {
		same++
	}
	// The first is the host bridge, the second the root port: what is above both
	// beyond them is a switch.
	switch {
	case same >= 3:
		return nearness{event.PCISwitch, same}
	case same >= 1:
		return nearness{event.PCIRoot, 0}
	}
	return nearness{event.PCIFar, 0}
}

// bridges are what is above a PCI device, from the host bridge down.
func bridges(sysfs, address string) []string {
	if !isPCI(address) {
		return nil
	}
	link, err := os.Readlink(filepath.Join(sysfs, "bus/pci/devices", address))
	if err != nil {
		return nil
	}
	_, way, ok := strings.Cut(link, "devices/")
	if !ok {
		return nil
	}
	list := strings.Split(way, "/")
	return list[:len(list)-1]
}

// isPCI tells whether a name is a PCI address as sysfs writes it: 0000:1b:00.0.
func isPCI(name string) bool {
	domain, rest, ok := strings.Cut(name, ":")
	if !ok || len(domain) < 4 || len(domain) > 8 || len(rest) != 7 || rest[2] != ':' || rest[5] != '.' {
		return false
	}
	for _, part := range []string{domain, rest[:2], rest[3:5], rest[6:]} {
		for _, c := range part {
			if !strings.ContainsRune("0123456789abcdefABCDEF", c) {
				return false
			}
		}
	}
	return true
}
