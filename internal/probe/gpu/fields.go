// SPDX-License-Identifier: Apache-2.0

package gpu

import (
	"slices"
	"unsafe"

	"github.com/orb8/orb8/internal/event"
)

const (
	// fieldChunk is how many fields one question is for.
	fieldChunk = 64
	mostLinks  = 36
)

// askedField is a field that the device has.
type askedField struct {
	id, scope uint32
	scale     float64
	to        func(*event.GPUSample) *event.Reading
}

// wantedField is a value, and the fields that may give it, the best first.
type wantedField struct {
	to   func(*event.GPUSample) *event.Reading
	from []askedField
}

// plainFields are the values of a GPU that are fields.
func plainFields() []wantedField {
	one := func(id uint32, scale float64, to func(*event.GPUSample) *event.Reading) wantedField {
		return wantedField{to, []askedField{{id: id, scale: scale}}}
	}
	type sample = event.GPUSample
	return []wantedField{
		one(3, 1, func(s *sample) *event.Reading { return &s.ECCCorrected }),
		one(4, 1, func(s *sample) *event.Reading { return &s.ECCUncorrected }),
		one(5, 1, func(s *sample) *event.Reading { return &s.ECCCorrectedEver }),
		one(6, 1, func(s *sample) *event.Reading { return &s.ECCUncorrectedEver }),
		one(82, 1, func(s *sample) *event.Reading { return &s.MemoryTemperature }),
		one(83, 1.0/1000, func(s *sample) *event.Reading { return &s.Energy }),
		one(94, 1, func(s *sample) *event.Reading { return &s.PCIeReplays }),
		one(142, 1, func(s *sample) *event.Reading { return &s.RowsCorrected }),
		one(143, 1, func(s *sample) *event.Reading { return &s.RowsUncorrected }),
		one(144, 1, func(s *sample) *event.Reading { return &s.RowsPending }),
		one(145, 1, func(s *sample) *event.Reading { return &s.RowsFailed }),
	}
}

// linkFields are those of one NVLink, which stands at place i of the sample's.
func linkFields(link uint8, i int) []wantedField {
	scope := uint32(link)
	// Before Hopper each of the first twelve links has fields of its own.
	own := func(low, high uint32) askedField {
		switch {
		case link < 6:
			return askedField{id: low + scope, scale: 1}
		case link < 12:
			return askedField{id: high + scope - 6, scale: 1}
		}
		return askedField{}
	}
	const kib = 1024
	return []wantedField{
		// Bytes since NVLink 5, KiB before.
		{
			func(s *event.GPUSample) *event.Reading { return &s.Links[i].Sent },
			[]askedField{{id: 202, scope: scope, scale: 1}, {id: 138, scope: scope, scale: kib}},
		},
		{
			func(s *event.GPUSample) *event.Reading { return &s.Links[i].Received },
			[]askedField{{id: 204, scope: scope, scale: 1}, {id: 139, scope: scope, scale: kib}},
		},
		{
			func(s *event.GPUSample) *event.Reading { return &s.Links[i].Replays },
			[]askedField{{id: 161, scope: scope, scale: 1}, own(46, 108)},
		},
		{
			func(s *event.GPUSample) *event.Reading { return &s.Links[i].Recoveries },
			[]askedField{{id: 215, scope: scope, scale: 1}, {id: 162, scope: scope, scale: 1}, own(53, 114)},
		},
		{
			func(s *event.GPUSample) *event.Reading { return &s.Links[i].Damaged },
			[]askedField{{id: 219, scope: scope, scale: 1}, {id: 163, scope: scope, scale: 1}, own(32, 96)},
		},
	}
}

// fields asks for what the device was found to have, many at once.
func (d *nvmlDevice) fields(s *event.GPUSample, c *scratch) {
	if d.asked == nil {
		d.findFields(c)
	}
	s.Links = append(s.Links, d.links...)
	for chunk := range slices.Chunk(d.asked, fieldChunk) {
		d.question(chunk, c, func(a *askedField, v float64) { *a.to(s) = known(v) })
	}
}

// question asks for at most fieldChunk fields, and calls yield for those that
// the device gives.
func (d *nvmlDevice) question(fields []askedField, c *scratch, yield func(*askedField, float64)) {
	for i, a := range fields {
		c.fields[i] = fieldValue{id: a.id, scope: a.scope, result: notSupported}
	}
	if !d.ask(fnFields, uintptr(len(fields)), uintptr(unsafe.Pointer(&c.fields))) {
		return
	}
	for i := range fields {
		if v, ok := c.fields[i].number(); ok && c.fields[i].result == success {
			yield(&fields[i], v*fields[i].scale)
		}
	}
}

// findFields asks for all that a device may have, and keeps what it has.
func (d *nvmlDevice) findFields(c *scratch) {
	d.findLinks(c)
	wanted := plainFields()
	for i, l := range d.links {
		wanted = append(wanted, linkFields(l.Link, i)...)
	}
	var all []askedField
	for _, w := range wanted {
		for _, a := range w.from {
			if a.id != 0 {
				a.to = w.to
				all = append(all, a)
			}
		}
	}
	has := map[[2]uint32]bool{}
	for chunk := range slices.Chunk(all, fieldChunk) {
		d.question(chunk, c, func(a *askedField, _ float64) { has[[2]uint32{a.id, a.scope}] = true })
	}
	d.asked = []askedField{}
	for _, w := range wanted {
		for _, a := range w.from {
			if has[[2]uint32{a.id, a.scope}] {
				a.to = w.to
				d.asked = append(d.asked, a)
				break
			}
		}
	}
}

// findLinks finds the NVLinks that the device has. Beyond the last the library
// answers that the argument is wrong.
func (d *nvmlDevice) findLinks(c *scratch) {
	d.links = nil
	for link := range uint8(mostLinks) {
		r := d.result(fnLinkState, []uintptr{uintptr(d.handle), uintptr(link), uintptr(unsafe.Pointer(&c.number))})
		switch r {
		case success:
			d.links = append(d.links, event.GPULink{Link: link, Up: c.number == 1})
		case invalidArgument:
			return
		default:
			if !d.answered(fnLinkState, r) && d.not[fnLinkState] {
				return
			}
		}
	}
}
