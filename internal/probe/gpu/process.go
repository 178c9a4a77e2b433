// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

// mostProcesses bounds what one device is asked for.
const mostProcesses = 4096

// notAvailable is how NVML says that it does not know an amount of memory.
const notAvailable = 1<<64 - 1

// processes lists who has a context on the device. The driver has a list of each
// kind; who is in two of them, with the same memory in both, is one process.
func (d *nvmlDevice) processes(s *event.GPUSample, c *scratch) {
	for _, list := range [...]struct {
		f    function
		kind event.GPUProcessKind
	}{{fnCompute, event.GPUCompute}, {fnGraphics, event.GPUGraphics}, {fnMPS, event.GPUShared}} {
		n, ok := d.list(list.f, c)
		s.ProcessesKnown = s.ProcessesKnown || ok && list.f == fnCompute
		earlier := len(s.Processes)
		for i := range n {
			p := (*processInfo)(unsafe.Pointer(&c.processes[i*d.lib.processStride]))
			e := event.GPUProcess{PID: p.pid, Kind: list.kind, Instance: p.instance, ComputeInstance: p.computeInstance}
			if p.memory != notAvailable {
				e.Memory = known(float64(p.memory))
			}
			join(s, earlier, e)
		}
	}
	if len(s.Processes) > 0 && d.whole == nil {
		d.processUtilization(s, c)
	}
}

// join adds a process, or what is new of it to the one that an earlier list had.
func join(s *event.GPUSample, earlier int, e event.GPUProcess) {
	for i := range s.Processes[:earlier] {
		if p := &s.Processes[i]; p.PID == e.PID && p.Instance == e.Instance {
			p.Kind |= e.Kind
			if !p.Memory.Known || e.Memory.Value > p.Memory.Value {
				p.Memory = e.Memory
			}
			return
		}
	}
	s.Processes = append(s.Processes, e)
}

// list asks for one kind of processes; they are in c, so many. Processes come and
// go between the question how many there are and the next, so the room is asked
// for generously, and twice.
func (d *nvmlDevice) list(f function, c *scratch) (int, bool) {
	if d.not[f] {
		return 0, false
	}
	for range 3 {
		room := uint32(len(c.processes) / wideProcessInfo)
		c.number = room
		// The bytes are aligned as any allocation of that size is.
		r := d.result(f, []uintptr{uintptr(d.handle), uintptr(unsafe.Pointer(&c.number)), uintptr(unsafe.Pointer(&c.processes[0]))})
		if r == success {
			return int(min(c.number, room)), true
		}
		if r != sizeTooSmall || c.number > mostProcesses {
			d.answered(f, r)
			return 0, false
		}
		c.processes = make([]byte, int(max(c.number, room)*2)*wideProcessInfo)
	}
	return 0, false
}

// processUtilization fills in what each process did. The driver tells of those
// that did something; where it has measured, the others did nothing.
func (d *nvmlDevice) processUtilization(s *event.GPUSample, c *scratch) {
	for range 3 {
		c.number = uint32(len(c.used))
		args := [...]uintptr{uintptr(d.handle), uintptr(unsafe.Pointer(&c.used[0])), uintptr(unsafe.Pointer(&c.number)), uintptr(d.utilized)}
		r := d.result(fnProcessUtilization, args[:])
		if r == sizeTooSmall && c.number > uint32(len(c.used)) && c.number <= mostProcesses {
			c.used = make([]processUtilization, c.number*2)
			continue
		}
		if !d.answered(fnProcessUtilization, r) || c.number == 0 {
			return
		}
		break
	}
	for i := range s.Processes {
		p := &s.Processes[i]
		p.Busy, p.MemoryBusy, p.Encoder, p.Decoder = known(0), known(0), known(0), known(0)
	}
	for _, u := range c.used[:min(c.number, uint32(len(c.used)))] {
		d.utilized = max(d.utilized, u.stamp)
		for i := range s.Processes {
			if p := &s.Processes[i]; p.PID == u.pid {
				p.Busy, p.MemoryBusy, p.Encoder, p.Decoder = percent(u.sm), percent(u.memory), percent(u.enc), percent(u.dec)
			}
		}
	}
}
