// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"time"
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

// gpmGap is what must lie between two samples, by NVML's documentation.
const gpmGap = 100 * time.Millisecond

// gpm is a device's two samples, in the library's memory. What was done between
// them is the metrics.
type gpm struct {
	sample [2]handle
	// When the last was taken, and which it is.
	at   time.Time
	last int
	// The device has none.
	refused bool
}

func (g *gpm) free(lib *library) {
	for i, h := range g.sample {
		if h != 0 {
			lib.call(fnGPMFree, uintptr(h))
			g.sample[i] = 0
		}
	}
	g.at = time.Time{}
}

const (
	gpmBusy         = 1
	gpmPCIeSent     = 20
	gpmPCIeReceived = 21
)

// activity fills in what GPM knows: Hopper and later.
func (d *nvmlDevice) activity(s *event.GPUSample, c *scratch) {
	g := &d.gpm
	if g.refused || d.failed != success || (!g.at.IsZero() && time.Since(g.at) < d.lib.gap) {
		return
	}
	if g.sample[0] == 0 && !d.startGPM(c) {
		g.refused = true
		g.free(d.lib)
		return
	}
	next := 1 - g.last
	if !d.sampleGPM(g.sample[next]) {
		g.at = time.Time{}
		return
	}
	first := g.at.IsZero()
	g.last, g.at = next, time.Now()
	if first {
		return
	}
	const ratio, bytes = 1.0 / 100, 1 << 20
	wanted := [...]struct {
		id    uint32
		to    *event.Reading
		scale float64
	}{
		{gpmBusy, &s.Busy, ratio},
		{2, &s.SM, ratio},
		{3, &s.Occupancy, ratio},
		{5, &s.Tensor, ratio},
		{10, &s.DRAM, ratio},
		{gpmPCIeSent, &s.PCIeSent, bytes},
		{gpmPCIeReceived, &s.PCIeReceived, bytes},
	}
	m := &c.metrics
	m.version, m.count, m.earlier, m.latest = versionGPM, uint32(len(wanted)), g.sample[1-next], g.sample[next]
	for i := range wanted {
		m.metrics[i] = gpmMetric{id: wanted[i].id, result: notSupported}
	}
	r := d.lib.call(fnGPMMetrics, uintptr(unsafe.Pointer(m)))
	if !d.answered(fnGPMMetrics, r) {
		g.refused = d.not[fnGPMMetrics]
		return
	}
	for i, w := range wanted {
		if d.whole != nil && w.id >= gpmPCIeSent {
			continue // an instance has no bus of its own
		}
		if d.whole == nil && w.id == gpmBusy {
			continue // the driver itself tells it of a GPU, as its users know it
		}
		if m.metrics[i].result == success {
			*w.to = known(m.metrics[i].value * w.scale)
		}
	}
}

// startGPM asks whether the device has GPM, and for the room of two samples.
func (d *nvmlDevice) startGPM(c *scratch) bool {
	gpu := d
	if d.whole != nil {
		if d.id.Instance == event.NoInstance {
			return false
		}
		gpu = d.whole
	}
	c.support = gpmSupport{version: versionGPM}
	if d.lib.call(fnGPMSupport, uintptr(gpu.handle), uintptr(unsafe.Pointer(&c.support))) != success || c.support.supported == 0 {
		return false
	}
	for i := range d.gpm.sample {
		if d.lib.call(fnGPMAlloc, uintptr(unsafe.Pointer(&c.handle))) != success {
			return false
		}
		d.gpm.sample[i] = c.handle
	}
	return true
}

func (d *nvmlDevice) sampleGPM(into handle) bool {
	if d.whole == nil {
		return d.ask(fnGPMSample, uintptr(into))
	}
	args := [...]uintptr{uintptr(d.whole.handle), uintptr(d.id.Instance), uintptr(into)}
	return d.answered(fnGPMSampleMIG, d.result(fnGPMSampleMIG, args[:]))
}
