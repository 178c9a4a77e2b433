// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"errors"
	"slices"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// round is what the sampler's goroutine knows from one round to the next.
type round struct {
	*Sampler
	line   line
	want   bool
	driver driver
	// Why there is none, or why it could not be closed.
	err     error
	version string
	missing []string
	// When it was tried to open the driver, and when devices were looked for.
	tried, found time.Time
	// A call to open, to find or for events hangs: none of these is made beside it.
	common bool
	places []*place
}

// place is a device, and what it last said. While a call of it hangs it is busy,
// and is not asked.
type place struct {
	device
	since  time.Time
	busy   bool
	renew  bool
	sample event.GPUSample
}

// sample is one round.
func (r *round) sample() {
	r.line.settle()
	r.want = !r.released.Load()
	switch {
	case r.want && r.driver == nil:
		r.openDriver()
	case !r.want && r.driver != nil:
		r.closeDriver()
	}
	if r.want && r.driver != nil {
		// While something hangs the driver's lists are not to be relied on.
		if len(r.line.hung) == 0 && time.Since(r.found) >= r.settings.Retry {
			r.find()
		}
		r.takeEvents()
		r.samplePlaces()
	}
	r.publish()
}

func (r *round) openDriver() {
	if r.common || time.Since(r.tried) < r.settings.Retry {
		return
	}
	r.tried, r.common = time.Now(), true
	var d driver
	var err error
	if !r.line.try("to open the driver", func() { d, err = r.open() }, func() {
		r.common = false
		r.driver, r.err, r.found = d, err, time.Time{}
		if d != nil {
			r.version, r.missing = d.about()
		}
	}) {
		r.err = errors.New("the driver does not come back")
	}
}

func (r *round) closeDriver() {
	if len(r.line.hung) > 0 {
		return
	}
	d, places := r.driver, r.places
	var err error
	r.common = true
	r.line.try("to close the driver", func() {
		for _, p := range places {
			p.free()
		}
		err = d.close()
	}, func() {
		r.common = false
		r.err = err
	})
	r.driver, r.places = nil, nil
}

func (r *round) find() {
	known := make([]device, len(r.places))
	for i, p := range r.places {
		known[i] = p.device
		p.renew = true
	}
	r.found, r.common = time.Now(), true
	var found []device
	var err error
	r.line.try("to list the GPUs", func() { found, err = r.driver.find(known) }, func() {
		r.common = false
		if err != nil {
			r.err = err
			r.reopen()
			return
		}
		r.err = nil
		r.replace(found)
	})
}

// replace has the devices that were found in the order in which they were. What
// is gone is freed; while one is in a call that hangs nothing is looked for.
func (r *round) replace(found []device) {
	old := map[device]*place{}
	for _, p := range r.places {
		old[p.device] = p
	}
	r.places = nil
	for _, d := range found {
		p := old[d]
		if p == nil {
			p = &place{device: d}
		}
		delete(old, d)
		r.places = append(r.places, p)
	}
	for _, p := range old {
		if !p.busy {
			p.free()
		}
	}
}

func (r *round) takeEvents() {
	if r.common {
		return
	}
	devices := make([]device, len(r.places))
	for i, p := range r.places {
		devices[i] = p.device
	}
	r.common = true
	var list []event.GPUXid
	var changed bool
	d := r.driver
	r.line.try("for the driver's events", func() { list, changed = d.events(nil, devices) }, func() {
		r.common = false
		r.keep(list)
		if changed {
			r.found = time.Time{}
		}
	})
}

// samplePlaces asks all devices beside each other: a driver that hangs mostly does
// so for all, and an older GPU takes a while.
func (r *round) samplePlaces() {
	if r.driver == nil || r.released.Load() {
		return
	}
	calls := make([]*call, 0, len(r.places))
	for _, p := range r.places {
		if !p.busy {
			calls = append(calls, r.samplePlace(p))
		}
	}
	r.line.wait(calls)
}

func (r *round) samplePlace(p *place) *call {
	p.busy, p.since = true, time.Now()
	s := event.GPUSample{UUID: p.gpu().UUID, At: p.since.UnixNano(), State: event.GPUOK}
	var err error
	renew := p.renew
	p.renew = false
	return begin(s.UUID, func() {
		if renew {
			p.device.renew()
		}
		err = p.device.sample(&s)
	}, func() {
		p.busy = false
		switch {
		case errors.Is(err, errDriver):
			r.err = err
			r.reopen()
		case errors.Is(err, errGone):
			r.found = time.Time{}
			s = event.GPUSample{UUID: s.UUID, At: s.At, State: event.GPULost}
		case err != nil:
			s = event.GPUSample{UUID: s.UUID, At: s.At, State: event.GPULost}
		}
		p.sample = s
	})
}

// reopen gives the driver up, and has it opened again when it is next tried.
func (r *round) reopen() {
	err := r.err
	r.closeDriver()
	r.err = err
	r.tried = time.Now()
}

func (r *round) publish() {
	s := &Snapshot{At: time.Now().UnixNano(), Status: r.status()}
	if s.Status.Open {
		s.GPUs = make([]event.GPU, len(r.places))
		s.Samples = make([]event.GPUSample, len(r.places))
		for i, p := range r.places {
			s.GPUs[i], s.Samples[i] = *p.gpu(), p.sample
			if p.busy {
				s.Samples[i] = event.GPUSample{UUID: p.gpu().UUID, At: p.since.UnixNano(), State: event.GPUHung}
			}
		}
		// What happened to a device is remembered, and with it those beside it.
		if last := r.latest.Load(); slices.Equal(s.GPUs, last.GPUs) {
			s.GPUs = last.GPUs
		}
	}
	r.latest.Store(s)
}
