// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"cmp"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// describeEvery is how often a device is asked for what seldom changes.
const describeEvery = 10 * time.Second

// found is a device as its directory lists it.
type found struct {
	name string
	// Of the device's own directory: another device of the same name has another.
	inode uint64
	// The directory as the kernel's devices lie, for its PCI address.
	link string
}

// device is one that is read. While it is busy it is its job's, and else the
// round's.
type device struct {
	found
	netns uint32
	tree  *tree
	kinds *kinds
	buf   []byte
	ports []*port
	// Of what seldom changes, and when it was asked for.
	described time.Time
	numa      int
	netdevs   []string
	lost      uint64
	sample    event.RDMADevice
	ok        bool

	// The round's: whether and since when it is being read, whether it is gone, and who
	// has queue pairs on it.
	busy, gone bool
	since      time.Time
	pairs      pairs
	last       reading
}

// reading is what came of reading a device; fresh until it has been told.
type reading struct {
	device    event.RDMADevice
	ok, fresh bool
	lost      uint64
}

// tell is the reading for a snapshot. What was moved is told once.
func (r *reading) tell() event.RDMADevice {
	told := r.device
	if !r.fresh {
		told.Ports = slices.Clone(told.Ports)
		for i := range told.Ports {
			told.Ports[i].Moved, told.Ports[i].MovedKnown = event.Traffic{}, false
		}
	}
	r.fresh = false
	return told
}

func (d *device) path(name string) string {
	return "class/infiniband/" + d.name + "/" + name
}

// read is one round's reading. A device whose files are gone is opened again in
// the next.
func (d *device) read(now time.Time) {
	d.ok = false
	if d.ports == nil && !d.open() {
		return
	}
	if now.Sub(d.described) >= describeEvery {
		d.described = now
		d.describe()
	}
	s := event.RDMADevice{
		Name:  strings.ToValidUTF8(d.name, "\uFFFD"),
		Netns: d.netns, PCI: pciOf(d.link), NUMA: d.numa, Netdevs: d.netdevs,
		Ports:  make([]event.RDMAPort, len(d.ports)),
		Shared: d.netns == 0,
	}
	for i, p := range d.ports {
		var ok bool
		if s.Ports[i], ok = p.sample(now, d.buf); !ok {
			d.closePorts()
			return
		}
	}
	d.sample, d.ok = s, true
}

func (d *device) open() bool {
	d.lost = 0
	list, err := d.tree.list(d.path("ports"), 4*mostPorts)
	if err != nil {
		return false
	}
	slices.SortFunc(list, byNumber)
	if len(list) > mostPorts {
		d.lost += uint64(len(list) - mostPorts)
		list = list[:mostPorts]
	}
	// Some drivers count by device, and have one port.
	shared, err := d.tree.open(d.path("hw_counters"))
	if err != nil {
		shared = nil
	}
	for _, number := range list {
		if p := d.openPort(number, shared); p != nil {
			d.ports = append(d.ports, p)
			shared = nil
		}
	}
	if shared != nil {
		shared.Close()
	}
	return len(d.ports) > 0
}

// byNumber has mlx5_2 before mlx5_10.
func byNumber(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// describe finds what seldom changes.
func (d *device) describe() {
	d.numa = -1
	if pci := pciOf(d.link); pci != "" {
		word, _ := d.tree.value("bus/pci/devices/"+pci, "numa_node", d.buf)
		if n, err := strconv.Atoi(word); err == nil && n >= 0 {
			d.numa = n
		}
	}
	list, _ := d.tree.list(d.path("device/net"), mostNetdevs)
	for _, p := range d.ports {
		list = append(list, d.gidNetdevs(p)...)
	}
	for i, name := range list {
		list[i] = strings.ToValidUTF8(name, "\uFFFD")
	}
	slices.Sort(list)
	list = slices.Compact(list)
	d.netdevs = list[:min(len(list), mostNetdevs)]
}

// gidNetdevs are those of a port's addresses: for RoCE, VLANs and bonds as well.
// InfiniBand's addresses are of none, as the first few say.
func (d *device) gidNetdevs(p *port) (list []string) {
	dir, err := d.tree.open(d.path("ports/" + strconv.FormatUint(uint64(p.number), 10) + "/gid_attrs/ndevs"))
	if err != nil {
		return nil
	}
	defer dir.Close()
	for i := range mostGIDs {
		name, err := readWord(int(dir.Fd()), strconv.Itoa(i), d.buf)
		if err == nil && name != "" && !slices.Contains(list, name) {
			list = append(list, name)
		}
		if err != nil && i >= 8 && len(list) == 0 {
			break
		}
	}
	return list
}

func (d *device) closePorts() {
	for _, p := range d.ports {
		p.close()
	}
	d.ports = nil
}

func (d *device) close() {
	d.closePorts()
	d.tree.close()
}

// pciOf is the PCI address that a link of a class leads by, the last one on its
// way; "" where there is none.
func pciOf(link string) string {
	for dir := path.Dir(link); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if base := path.Base(dir); isPCI(base) {
			return base
		}
	}
	return ""
}
