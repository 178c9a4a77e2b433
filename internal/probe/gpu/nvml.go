// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

// driver is what the sampler asks: NVML, or what stands for it in a test. A call
// may hang.
type driver interface {
	// find returns the devices that there are, those of known that still are among
	// them. It changes nothing in these.
	find(known []device) ([]device, error)
	// events adds what the driver has told of since it was last asked; changed: GPUs
	// have been divided otherwise.
	events(list []event.GPUXid, devices []device) (all []event.GPUXid, changed bool)
	about() (version string, missing []string)
	// close must not be called while another call is under way.
	close() error
}

// device is one of a driver's. Its calls are made one at a time.
type device interface {
	gpu() *event.GPU
	// sample fills in what the device gives. errGone: the device is no more;
	// errDriver: none is, the driver must be opened again; else the device is lost.
	sample(s *event.GPUSample) error
	// renew asks again for what the device did not give before.
	renew()
	// free is for a device that is no longer known.
	free()
}

var (
	errGone   = errors.New("the instance is gone")
	errDriver = errors.New("the driver has been shut down")
)

const (
	eventXid       = 0x8
	eventMIGChange = 0x100
	eventsAtOnce   = 64
)

// nvml is the driver behind the library.
type nvml struct {
	lib   *library
	sysfs string
	// Of events; 0 where there are none.
	set handle
	// Whose events are heard.
	registered map[handle]bool
	version    string
}

func openNVML(paths []string, sysfs string) (driver, error) {
	lib, err := load(paths)
	if err != nil {
		return nil, err
	}
	n := &nvml{lib: lib, sysfs: sysfs, registered: map[handle]bool{}}
	s := lib.take()
	defer lib.put(s)
	if lib.call(fnDriverVersion, uintptr(unsafe.Pointer(&s.text)), uintptr(len(s.text))) == success {
		n.version = s.string()
	}
	if lib.fn[fnEventsRegister] != 0 && lib.fn[fnEventsWait] != 0 && lib.call(fnEventsCreate, uintptr(unsafe.Pointer(&s.handle))) == success {
		n.set = s.handle
	}
	return n, nil
}

func (n *nvml) about() (version string, missing []string) { return n.version, n.lib.missing }

func (n *nvml) close() error {
	if n.set != 0 {
		n.lib.call(fnEventsFree, uintptr(n.set))
	}
	return n.lib.close()
}

func (n *nvml) find(known []device) ([]device, error) {
	s := n.lib.take()
	defer n.lib.put(s)
	if r := n.lib.call(fnCount, uintptr(unsafe.Pointer(&s.number))); r != success {
		return nil, fmt.Errorf("count GPUs: %w", r)
	}
	var found []device
	for i, count := uint32(0), s.number; i < count; i++ {
		var d *nvmlDevice
		switch n.lib.call(fnHandle, uintptr(i), uintptr(unsafe.Pointer(&s.handle))) {
		case success:
			d = n.identify(known, s, origin{index: int(i)})
		case gpuLost, resetRequired:
			d = lost(known, int(i))
		}
		// One that is not for this process is not in the way of others.
		if d == nil {
			continue
		}
		found = append(found, d)
		if d.id.Divided {
			found = n.findInstances(found, known, s)
		}
	}
	return found, nil
}

// lost is the GPU that was known under an index, and says so itself when it is
// sampled.
func lost(known []device, index int) *nvmlDevice {
	for _, d := range known {
		if k := d.(*nvmlDevice); k.whole == nil && k.id.Index == index {
			return k
		}
	}
	return nil
}

// findInstances adds the MIG instances of the device that is last in found.
func (n *nvml) findInstances(found, known []device, s *scratch) []device {
	whole := found[len(found)-1].(*nvmlDevice)
	if n.lib.call(fnMIGMost, uintptr(whole.handle), uintptr(unsafe.Pointer(&s.number))) != success {
		return found
	}
	for i, most := uint32(0), s.number; i < most; i++ {
		// Places that are empty are not found.
		if n.lib.call(fnMIGHandle, uintptr(whole.handle), uintptr(i), uintptr(unsafe.Pointer(&s.handle))) != success {
			continue
		}
		if d := n.identify(known, s, origin{whole: whole, index: whole.id.Index}); d != nil {
			found = append(found, d)
		}
	}
	return found
}

// origin is where a device was found: under an index, or in a GPU.
type origin struct {
	index int
	whole *nvmlDevice
}

// identify is the device of s.handle: the one that is known, or a new one; nil
// for one without a UUID.
func (n *nvml) identify(known []device, s *scratch, from origin) *nvmlDevice {
	h, of := s.handle, from.whole
	switch n.lib.call(fnUUID, uintptr(h), uintptr(unsafe.Pointer(&s.text)), uintptr(len(s.text))) {
	case success:
	case gpuLost, resetRequired:
		if of == nil {
			return lost(known, from.index)
		}
		return nil
	default:
		return nil
	}
	id := event.GPU{UUID: s.string(), Index: from.index, NUMA: -1, Instance: event.NoInstance, ComputeInstance: event.NoInstance}
	if of != nil {
		id.Parent, id.PCI, id.Minor, id.NUMA, id.Model = of.id.UUID, of.id.PCI, of.id.Minor, of.id.NUMA, of.id.Model
		n.describeInstance(&id, s, of)
	} else {
		n.describe(&id, s)
	}
	for _, d := range known {
		// A handle may be used again for another instance, and a place in a GPU, too.
		if k := d.(*nvmlDevice); k.handle == h && k.whole == of && k.id == id {
			return k
		}
	}
	d := &nvmlDevice{lib: n.lib, handle: h, whole: of, id: id}
	if of == nil && n.set != 0 && !n.registered[h] {
		n.register(s)
	}
	return d
}

func (n *nvml) describe(id *event.GPU, s *scratch) {
	h := uintptr(s.handle)
	if n.lib.call(fnName, h, uintptr(unsafe.Pointer(&s.text)), uintptr(len(s.text))) == success {
		id.Model = s.string()
	}
	if n.lib.call(fnMinor, h, uintptr(unsafe.Pointer(&s.number))) == success {
		id.Minor = int(s.number) + 1
	}
	if n.lib.call(fnPCI, h, uintptr(unsafe.Pointer(&s.pci))) == success {
		id.PCI = fmt.Sprintf("%04x:%02x:%02x.0", s.pci.domain, s.pci.bus, s.pci.device)
		// NVML's own question for it is for GPUs that are NUMA nodes.
		if text, err := os.ReadFile(filepath.Join(n.sysfs, "bus/pci/devices", id.PCI, "numa_node")); err == nil {
			if node, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && node >= 0 {
				id.NUMA = node
			}
		}
	}
	if n.lib.call(fnMIGMode, h, uintptr(unsafe.Pointer(&s.number)), uintptr(unsafe.Pointer(&s.number2))) == success {
		id.Divided = s.number == 1
	}
}

func (n *nvml) describeInstance(id *event.GPU, s *scratch, of *nvmlDevice) {
	h := uintptr(s.handle)
	if n.lib.call(fnInstance, h, uintptr(unsafe.Pointer(&s.number))) == success {
		id.Instance = s.number
	}
	if n.lib.call(fnComputeInstance, h, uintptr(unsafe.Pointer(&s.number))) == success {
		id.ComputeInstance = s.number
	}
	// The name ends with the profile: NVIDIA H100 80GB HBM3 MIG 1g.10gb.
	if n.lib.call(fnName, h, uintptr(unsafe.Pointer(&s.text)), uintptr(len(s.text))) == success {
		if _, profile, ok := strings.Cut(s.string(), " MIG "); ok {
			id.Profile = profile
			return
		}
	}
	if n.lib.call(fnAttributes, h, uintptr(unsafe.Pointer(&s.attributes))) != success {
		return
	}
	a := s.attributes
	var total uint64
	if n.lib.call(fnMemory, uintptr(of.handle), uintptr(unsafe.Pointer(&s.memory))) == success {
		total = s.memory.total
	}
	id.Profile = profile(a, total)
}

// profile names an instance as NVIDIA's tools do: by its slices, and by the
// eighths of the GPU's memory that it has.
func profile(a attributes, total uint64) string {
	name := fmt.Sprintf("%dg", a.slices)
	if a.computeSlices != a.slices {
		name = fmt.Sprintf("%dc.%s", a.computeSlices, name)
	}
	if total == 0 {
		return name
	}
	const mib, gib = 1 << 20, 1 << 30
	eighths := (a.memoryMB*mib*8 + total - 1) / total
	return fmt.Sprintf("%s.%dgb", name, (eighths*((total+gib-1)/gib)+4)/8)
}

// register has the events of the GPU of s.handle come to the set.
func (n *nvml) register(s *scratch) {
	h := s.handle
	n.registered[h] = true
	wanted := uint64(eventXid | eventMIGChange)
	if n.lib.call(fnEventsSupported, uintptr(h), uintptr(unsafe.Pointer(&s.long))) == success {
		wanted &= s.long
	} else {
		wanted = eventXid
	}
	if wanted != 0 {
		n.lib.call(fnEventsRegister, uintptr(h), uintptr(wanted), uintptr(n.set))
	}
}

func (n *nvml) events(list []event.GPUXid, devices []device) (all []event.GPUXid, changed bool) {
	if n.set == 0 {
		return list, false
	}
	s := n.lib.take()
	defer n.lib.put(s)
	for range eventsAtOnce {
		// What is there is taken; a millisecond is waited for the end of it.
		if n.lib.call(fnEventsWait, uintptr(n.set), uintptr(unsafe.Pointer(&s.event)), 1) != success {
			return list, changed
		}
		switch e := s.event; e.kind {
		case eventMIGChange:
			changed = true
		case eventXid:
			x := event.GPUXid{At: time.Now().UnixNano(), Code: uint32(e.data), Instance: e.instance, ComputeInstance: e.computeInstance}
			for _, d := range devices {
				if d.(*nvmlDevice).handle == e.device {
					x.UUID = d.gpu().UUID
				}
			}
			list = append(list, x)
		}
	}
	return list, changed
}
