// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/event"
)

func TestNearest(t *testing.T) {
	s := newSysfs(t)
	const (
		root  = "pci0000:00/0000:00:01.0/"
		up    = root + "0000:01:00.0/"
		hca   = "0000:03:00.0"
		other = "pci0000:80/0000:80:01.0/"
	)
	for _, way := range []string{
		up + "0000:02:00.0/" + hca,
		up + "0000:02:01.0/0000:04:00.0",
		up + "0000:02:02.0/0000:05:00.0",
		// A second switch below the first, beside the HCA's twin.
		up + "0000:02:03.0/0000:06:00.0/0000:07:00.0/0000:08:00.0",
		up + "0000:02:03.0/0000:06:00.0/0000:07:01.0/0000:09:00.0",
		"pci0000:00/0000:00:02.0/0000:0a:00.0",
		other + "0000:81:00.0",
		other + "0000:82:00.0",
	} {
		s.pci(way, 0)
	}
	gpu := func(uuid, pci string, numa int) event.GPU { return event.GPU{UUID: uuid, PCI: pci, NUMA: numa} }
	mig := gpu("MIG", "0000:04:00.0", 0)
	mig.Parent = "A"
	a, b2, leaf := gpu("A", "0000:04:00.0", 0), gpu("B", "0000:05:00.0", 0), gpu("L", "0000:09:00.0", 0)
	bridge, far := gpu("R", "0000:0a:00.0", 0), gpu("F", "0000:81:00.0", 1)
	for name, c := range map[string]struct {
		pci  string
		numa int
		gpus []event.GPU
		want []string
		how  event.PCIDistance
	}{
		"below its switch":          {hca, 0, []event.GPU{far, b2, bridge, mig, a, leaf}, []string{"B", "A", "L"}, event.PCISwitch},
		"below its nearer switch":   {"0000:08:00.0", 0, []event.GPU{a, leaf, b2}, []string{"L"}, event.PCISwitch},
		"at its host bridge":        {hca, 0, []event.GPU{far, bridge}, []string{"R"}, event.PCIRoot},
		"on its node":               {hca, 1, []event.GPU{far, gpu("X", "", 0)}, []string{"F"}, event.PCINode},
		"elsewhere":                 {hca, 0, []event.GPU{far, gpu("G", "0000:82:00.0", 1)}, []string{"F", "G"}, event.PCIFar},
		"no bus but a node":         {"", 0, []event.GPU{far, a}, []string{"A"}, event.PCINode},
		"nothing is known":          {"", -1, []event.GPU{a}, nil, 0},
		"an address that is a path": {"../../devices/x", -1, []event.GPU{a}, nil, 0},
		"no GPUs":                   {hca, 0, nil, nil, 0},
	} {
		got, how := Nearest(s.dir, &event.RDMADevice{PCI: c.pci, NUMA: c.numa}, c.gpus)
		if diff := cmp.Diff(c.want, got); diff != "" || how != c.how {
			t.Errorf("%s: %v, want %v; %s", name, how, c.how, diff)
		}
	}
}

func TestPCIAddresses(t *testing.T) {
	for link, want := range map[string]string{
		"../../devices/pci0000:00/0000:00:01.0/0000:1b:00.0/infiniband/mlx5_0":   "0000:1b:00.0",
		"../../devices/pci0000:00/0000:1b:00.0/mlx5_core.sf.4/infiniband/mlx5_0": "0000:1b:00.0",
		"../../devices/pci10000:00/10000:1b:1f.7/infiniband/0000:00:00.0":        "10000:1b:1f.7",
		"../../devices/virtual/infiniband/rxe0":                                  "",
		"/":                                                                      "", "": "", "a": "", "0000:1b:00.0": "",
		"../0000:1b:00.00/x": "", "../0000:1b:00,0/x": "", "../000g:1b:00.0/x": "",
	} {
		if got := pciOf(link); got != want {
			t.Errorf("%q: %q, want %q", link, got, want)
		}
	}
}

func TestRates(t *testing.T) {
	for s, want := range map[string]uint64{
		"400 Gb/sec (4X NDR)": 400e9, "2.5 Gb/sec (1X SDR)": 25e8, "0 Gb/sec": 0,
		"": 0, "NaN Gb/sec": 0, "Inf Gb/sec": 0, "-1 Gb/sec": 0, "1e300 Gb/sec": 0, "400": 0, "400 Mb/sec": 0,
	} {
		if got := bitRate(s); got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}
