// SPDX-License-Identifier: Apache-2.0

package rdma

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

const (
	// longestGap is how long a round may be behind the one before for what was moved
	// between them to be told: else it would stand in a second in which it was not.
	longestGap = 10 * time.Second
	// mostGIDs of a port are asked for their netdevs: the first are those in use.
	mostGIDs = 64
)

// port is a port of a device, with its directories open.
type port struct {
	number   uint32
	dirs     []*os.File
	counters []counter
	// How counters move bytes: places in counters, by family; of those of a family
	// that are nothing there is none.
	families []portFamily
	// The family that told the last totals, or -1.
	told     int
	read     time.Time
	slotFrom time.Time
	slot     int
}

type portFamily struct {
	unit uint64
	of   [4][]int
}

// openPort opens a port by its number in a device; shared is the directory of
// the device's own hw_counters, or nil.
func (d *device) openPort(number string, shared *os.File) *port {
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return nil
	}
	path := d.path("ports/" + number)
	dir, err := d.tree.open(path)
	if err != nil {
		return nil
	}
	p := &port{number: uint32(n), dirs: []*os.File{dir}, told: -1}
	for _, name := range []string{"counters", "hw_counters"} {
		if sub, err := d.tree.open(path + "/" + name); err == nil {
			p.dirs = append(p.dirs, sub)
			d.lost += p.add(sub, d.kinds)
		}
	}
	if shared != nil {
		p.dirs = append(p.dirs, shared)
		d.lost += p.add(shared, d.kinds)
	}
	p.findFamilies()
	return p
}

// add has the counters of a directory read from now on, but those that are there
// by name: what a port tells is more than what its device does.
func (p *port) add(dir *os.File, k *kinds) (lost uint64) {
	list, _ := names(dir, 4*mostCounters)
	slices.Sort(list)
	for _, name := range list {
		switch {
		case name == "lifespan": // of the driver's cache, in milliseconds
		case slices.ContainsFunc(p.counters, func(c counter) bool { return c.name == name }):
		case len(p.counters) == mostCounters || len(name) > longestName || !utf8.ValidString(name):
			lost++
		default:
			p.counters = append(p.counters, counter{
				name: name, dir: int(dir.Fd()), gauge: k.gauges[name], kind: k.kind(name),
			})
		}
	}
	return lost
}

func (p *port) findFamilies() {
	for _, f := range families() {
		pf := portFamily{unit: f.unit}
		for i, list := range f.of {
			for _, name := range list {
				if at := slices.IndexFunc(p.counters, func(c counter) bool { return c.name == name }); at >= 0 {
					pf.of[i] = append(pf.of[i], at)
				}
			}
		}
		if len(pf.of[0]) > 0 && len(pf.of[2]) > 0 {
			p.families = append(p.families, pf)
		}
	}
}

func (p *port) close() {
	for _, dir := range p.dirs {
		dir.Close()
	}
}

// sample reads the port. It tells whether it is still there.
func (p *port) sample(now time.Time, buf []byte) (event.RDMAPort, bool) {
	to := event.RDMAPort{Number: p.number}
	dir := int(p.dirs[0].Fd())
	// A device in trouble answers with an error; one that is gone has no file.
	state, err := readWord(dir, "state", buf)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return to, false
	}
	to.State = afterColon(state)
	physical, _ := readWord(dir, "phys_state", buf)
	to.Physical = afterColon(physical)
	to.LinkLayer, _ = readWord(dir, "link_layer", buf)
	rate, _ := readWord(dir, "rate", buf)
	to.Rate = bitRate(rate)

	p.turnSlots(now)
	moved := make([]move, len(p.counters))
	for i := range p.counters {
		moved[i].delta, moved[i].ok = p.counters[i].read(buf)
	}
	used := p.traffic(&to, moved, now.Sub(p.read))
	p.read = now
	to.Counters = make([]event.RDMACounter, 0, len(p.counters))
	oldest := p.slot % minuteSlots
	for i := range p.counters {
		c := &p.counters[i]
		if c.known && !slices.Contains(used, i) {
			to.Counters = append(to.Counters, event.RDMACounter{
				Name: c.name, Kind: c.kind, Count: c.count, Seen: c.seen, Minute: c.seen - c.slots[oldest],
			})
		}
	}
	return to, true
}

// move is by how much a counter has moved, where that is known.
type move struct {
	delta uint64
	ok    bool
}

// turnSlots begins the slots that have come since the last round.
func (p *port) turnSlots(now time.Time) {
	if p.slotFrom.IsZero() {
		p.slotFrom = now
	}
	turns := int(min(now.Sub(p.slotFrom)/minuteSlot, minuteSlots))
	if turns < minuteSlots {
		p.slotFrom = p.slotFrom.Add(time.Duration(turns) * minuteSlot)
	} else {
		p.slotFrom = now
	}
	for range turns {
		for i := range p.counters {
			p.counters[i].slot(p.slot % minuteSlots)
		}
		p.slot++
	}
}

// traffic fills in the totals, and what was moved since the round before, from
// the first family that can be read. It returns which counters that took.
func (p *port) traffic(to *event.RDMAPort, moved []move, gap time.Duration) (used []int) {
	for i := range p.families {
		f := &p.families[i]
		var total, delta [4]uint64
		known, steady := true, p.told == i && gap > 0 && gap <= longestGap
		for j, list := range f.of {
			for _, at := range list {
				c := &p.counters[at]
				// Packets are told where they can be; without bytes it is not this family.
				if !c.known {
					known = known && j%2 == 1
					continue
				}
				total[j] += c.count
				delta[j] += moved[at].delta
				steady = steady && moved[at].ok && (!c.stuck() || moved[at].delta > 0)
				used = append(used, at)
			}
		}
		if !known {
			used = used[:0]
			continue
		}
		p.told = i
		to.Total, to.TotalKnown = traffic(f.unit, total), true
		m := traffic(f.unit, delta)
		if steady && plausible(m, to.Rate, gap) {
			to.Moved, to.MovedKnown = m, true
		}
		return used
	}
	p.told = -1
	return nil
}

func traffic(unit uint64, n [4]uint64) event.Traffic {
	return event.Traffic{TxBytes: unit * n[0], TxPackets: n[1], RxBytes: unit * n[2], RxPackets: n[3]}
}

// plausible tells whether a port of that rate can have moved so much: a driver
// that was loaded anew may as well begin above where it was.
func plausible(m event.Traffic, rate uint64, gap time.Duration) bool {
	if rate == 0 {
		return true
	}
	// Rounds are not on time to the microsecond, and drivers cache.
	most := float64(rate) / 8 * (gap + time.Second).Seconds() * 2
	return float64(m.TxBytes) <= most && float64(m.RxBytes) <= most
}

// afterColon is ACTIVE of "4: ACTIVE".
func afterColon(s string) string {
	if _, word, ok := strings.Cut(s, ":"); ok {
		return strings.TrimSpace(word)
	}
	return s
}

// bitRate is bits a second of "400 Gb/sec (4X NDR)"; 0 where it says otherwise.
func bitRate(s string) uint64 {
	number, rest, _ := strings.Cut(s, " ")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !strings.HasPrefix(rest, "Gb/sec") || !(v >= 0 && v < 1e6) {
		return 0
	}
	return uint64(v * 1e9)
}
