// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"math"
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

// nvmlDevice is a GPU, or an instance of one, of which whole is the GPU.
type nvmlDevice struct {
	lib    *library
	handle handle
	whole  *nvmlDevice
	id     event.GPU

	// What it has said it does not give is not asked for again until renewed.
	not [functions]bool
	// Fields of the one question for many, as found; nil before.
	asked []askedField
	links []event.GPULink
	gpm   gpm
	// Of the last that was told of processes' utilisation, microseconds.
	utilized uint64
	// A call has said so, in this sample.
	failed result
}

func (d *nvmlDevice) gpu() *event.GPU { return &d.id }

func (d *nvmlDevice) renew() {
	d.not, d.asked = [functions]bool{}, nil
	d.gpm.refused = false
}

func (d *nvmlDevice) free() { d.gpm.free(d.lib) }

// ask tells whether the call has succeeded; args are what comes after the handle.
//
//go:uintptrescapes
func (d *nvmlDevice) ask(f function, args ...uintptr) bool {
	var all [4]uintptr
	all[0] = uintptr(d.handle)
	n := 1 + copy(all[1:], args)
	return d.answered(f, d.result(f, all[:n]))
}

func (d *nvmlDevice) result(f function, args []uintptr) result {
	if d.not[f] || d.failed != success {
		return notSupported
	}
	return d.lib.call(f, args...)
}

// answered keeps in mind what r says of the function, or of the device.
func (d *nvmlDevice) answered(f function, r result) bool {
	switch r {
	case notSupported, functionNotFound, noPermission, deprecated:
		d.not[f] = true
	case uninitialized, gpuLost, resetRequired:
		d.failed = r
	case invalidArgument:
		// The instance is gone, and its handle with it.
		if d.whole != nil {
			d.failed = r
		}
	}
	return r == success
}

// known: of a GPU that did nothing between two samples GPM may tell what is no
// number, and sums would be none from then on.
func known(v float64) event.Reading {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return event.Reading{}
	}
	return event.Reading{Value: v, Known: true}
}

func percent(v uint32) event.Reading { return known(float64(v) / 100) }

func (d *nvmlDevice) sample(s *event.GPUSample) error {
	c := d.lib.take()
	defer d.lib.put(c)
	d.failed = success
	d.memory(s, c)
	d.processes(s, c)
	d.activity(s, c)
	// Of an instance, the rest is its GPU's.
	if d.whole == nil {
		d.utilization(s, c)
		d.body(s, c)
		d.fields(s, c)
		d.traffic(s, c)
	}
	switch d.failed {
	case success:
		return nil
	case uninitialized:
		return errDriver
	case invalidArgument:
		return errGone
	}
	return d.failed
}

func (d *nvmlDevice) memory(s *event.GPUSample, c *scratch) {
	c.memory2 = memoryV2{version: versionMemory}
	if d.ask(fnMemory2, uintptr(unsafe.Pointer(&c.memory2))) {
		m := &c.memory2
		s.MemoryUsed, s.MemoryTotal, s.MemoryReserved = known(float64(m.used)), known(float64(m.total)), known(float64(m.reserved))
		return
	}
	if d.ask(fnMemory, uintptr(unsafe.Pointer(&c.memory))) {
		s.MemoryUsed, s.MemoryTotal = known(float64(c.memory.used)), known(float64(c.memory.total))
	}
}

func (d *nvmlDevice) utilization(s *event.GPUSample, c *scratch) {
	if d.ask(fnUtilization, uintptr(unsafe.Pointer(&c.utilization))) {
		s.Busy, s.MemoryBusy = percent(c.utilization.gpu), percent(c.utilization.memory)
	}
	if d.ask(fnEncoder, uintptr(unsafe.Pointer(&c.number)), uintptr(unsafe.Pointer(&c.number2))) {
		s.Encoder = percent(c.number)
	}
	if d.ask(fnDecoder, uintptr(unsafe.Pointer(&c.number)), uintptr(unsafe.Pointer(&c.number2))) {
		s.Decoder = percent(c.number)
	}
}

// body is what the board is like: power, heat, clocks, and how it may be used.
func (d *nvmlDevice) body(s *event.GPUSample, c *scratch) {
	number := uintptr(unsafe.Pointer(&c.number))
	if d.ask(fnPower, number) {
		s.Power = known(float64(c.number) / 1000)
	}
	if d.ask(fnPowerLimit, number) {
		s.PowerLimit = known(float64(c.number) / 1000)
	}
	if d.ask(fnTemperature, 0, number) {
		s.Temperature = known(float64(c.number))
	} else {
		c.temperature = temperatureV1{version: versionTemperature}
		if d.ask(fnTemperatureV, uintptr(unsafe.Pointer(&c.temperature))) {
			s.Temperature = known(float64(c.temperature.value))
		}
	}
	// In the order in which NVML numbers them.
	for i, to := range [...]*event.Reading{&s.ClockGraphics, &s.ClockSM, &s.ClockMemory, &s.ClockVideo} {
		if d.ask(fnClock, uintptr(i), number) {
			*to = known(float64(c.number))
		}
	}
	if d.ask(fnThrottle, uintptr(unsafe.Pointer(&c.long))) {
		s.Throttle, s.ThrottleKnown = event.GPUThrottle(c.long), true
	}
	if d.ask(fnComputeMode, number) {
		s.Compute = event.GPUComputeMode(c.number + 1)
	}
	c.fabric = fabricInfoV2{version: versionFabric}
	if d.ask(fnFabric, uintptr(unsafe.Pointer(&c.fabric))) {
		s.Fabric = event.GPUFabric(c.fabric.state + 1)
	}
}

// traffic asks for what goes over PCIe where GPM has not told of it: the driver
// measures for 20 ms each way, while it is waited for.
func (d *nvmlDevice) traffic(s *event.GPUSample, c *scratch) {
	if s.PCIeSent.Known && s.PCIeReceived.Known {
		return
	}
	for i, to := range [...]*event.Reading{&s.PCIeSent, &s.PCIeReceived} {
		if d.ask(fnPCIe, uintptr(i), uintptr(unsafe.Pointer(&c.number))) {
			*to = known(float64(c.number) * 1024)
		}
	}
}
