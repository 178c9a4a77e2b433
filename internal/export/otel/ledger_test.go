// SPDX-License-Identifier: Apache-2.0

package otel

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
)

// book is a ledger with all that it told.
type book struct {
	*ledger
	told []record
	// What connections are at, and what time it is.
	flows map[uint16]*event.Flow
	now   time.Time
}

func newBook(flows Flows, most int) *book {
	b := &book{ledger: newLedger(flows, 30*time.Second, most), flows: map[uint16]*event.Flow{}, now: time.Unix(1_700_000_000, 0)}
	b.tell = func(r *record) { b.told = append(b.told, *r) }
	return b
}

// move is one epoch of a connection, told as the feed does it.
func (b *book) move(port uint16, bytes uint64, kinds ...event.Kind) {
	start := b.now
	b.now = b.now.Add(time.Second)
	f := b.flows[port]
	if f == nil {
		f = &event.Flow{Conn: event.Conn{LocalPort: port, Protocol: event.TCP}, First: start.UnixNano() + 5}
		b.flows[port] = f
	}
	f.Last = b.now.UnixNano() - 5
	moved := event.Traffic{TxBytes: bytes, TxPackets: 1}
	f.Total.Add(moved)
	for _, k := range kinds {
		if k == event.KindClosed {
			f.State = event.StateClosed
		}
		b.add(&event.Event{Kind: k, Time: f.Last, Flow: *f, Delta: moved, DeltaStart: start.UnixNano(), DeltaEnd: b.now.UnixNano()})
	}
}

func (b *book) whys() (all []why) {
	for _, r := range b.told {
		all = append(all, r.why)
	}
	return all
}

func TestAShortConnectionIsOneRecord(t *testing.T) {
	for flows, want := range map[Flows][]why{
		FlowsClosed: {"closed"}, FlowsInterval: {"closed"}, FlowsAll: {"opened", "closed"},
	} {
		b := newBook(flows, 10)
		b.move(1, 100, event.KindOpened, event.KindTraffic, event.KindClosed)
		b.sweep(b.now.Add(time.Hour))
		if !slices.Equal(b.whys(), want) {
			t.Errorf("%s: %v, want %v", flows, b.whys(), want)
		}
		var sum uint64
		for _, r := range b.told {
			sum += r.moved.TxBytes
		}
		if sum != 100 || len(b.accounts) != 0 {
			t.Errorf("%s: %d bytes told, %d accounts left", flows, sum, len(b.accounts))
		}
	}
}

func TestALongConnectionIsToldEachMinute(t *testing.T) {
	b := newBook(FlowsInterval, 10)
	b.move(1, 10, event.KindOpened, event.KindTraffic)
	for range 150 {
		b.move(1, 10, event.KindTraffic)
	}
	b.move(1, 10, event.KindTraffic, event.KindClosed)
	if want := []why{whyInterval, whyInterval, "closed"}; !slices.Equal(b.whys(), want) {
		t.Fatalf("%v, want %v", b.whys(), want)
	}
	for i, r := range b.told {
		if i > 0 && r.since != b.told[i-1].at {
			t.Errorf("record %d begins at %d, the one before ends at %d", i, r.since, b.told[i-1].at)
		}
		if d := time.Duration(r.at - r.since); i < 2 && (d < flowInterval || d > flowInterval+time.Second) {
			t.Errorf("record %d is of %v", i, d)
		}
	}
}

func TestWhatGoesQuietIsTold(t *testing.T) {
	b := newBook(FlowsClosed, 10)
	b.move(1, 10, event.KindOpened, event.KindTraffic)
	b.sweep(b.now.Add(29 * time.Second))
	if len(b.told) != 0 {
		t.Fatal("it has not been quiet for long")
	}
	b.sweep(b.now.Add(31 * time.Second))
	b.sweep(b.now.Add(62 * time.Second))
	if !slices.Equal(b.whys(), []why{whyQuiet}) {
		t.Fatalf("%v", b.whys())
	}
	b.move(1, 7, event.KindTraffic, event.KindClosed)
	if last := b.told[len(b.told)-1]; last.moved.TxBytes != 7 || len(b.told) != 2 {
		t.Errorf("it is told twice: %+v", last.moved)
	}
}

func TestATupleThatIsUsedAgain(t *testing.T) {
	b := newBook(FlowsInterval, 10)
	b.move(1, 10, event.KindTraffic)
	delete(b.flows, 1)
	b.move(1, 5, event.KindOpened, event.KindTraffic, event.KindClosed)
	if !slices.Equal(b.whys(), []why{whyQuiet, "closed"}) || b.told[0].moved.TxBytes != 10 || b.told[1].moved.TxBytes != 5 {
		t.Errorf("%+v", b.told)
	}
}

// All that moves is in the records, once, whatever happens in whatever order, and
// the ledger holds no more than it may.
func TestNothingIsToldTwiceOrNever(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		b := newBook([]Flows{FlowsClosed, FlowsInterval, FlowsAll}[seed%3], 8)
		moved := map[uint16]uint64{}
		for range 3000 {
			port, n := uint16(rnd.IntN(12)), uint64(rnd.IntN(1000))
			moved[port] += n
			switch rnd.IntN(20) {
			case 0:
				b.move(port, n, event.KindTraffic, event.KindClosed)
				if rnd.IntN(2) == 0 { // and it may go on
					delete(b.flows, port)
				}
			case 1:
				delete(b.flows, port)
				b.move(port, n, event.KindOpened, event.KindTraffic)
			default:
				b.move(port, n, event.KindTraffic)
			}
			if rnd.IntN(50) == 0 {
				b.now = b.now.Add(time.Duration(rnd.IntN(40)) * time.Second)
			}
			b.sweep(b.now)
			if len(b.accounts) > 8 {
				t.Fatalf("%d accounts", len(b.accounts))
			}
		}
		b.end()
		told := map[uint16]uint64{}
		for _, r := range b.told {
			told[r.flow.Conn.LocalPort] += r.moved.TxBytes
		}
		for port, want := range moved {
			if told[port] != want {
				t.Errorf("seed %d: of connection %d %d bytes are told, %d moved", seed, port, told[port], want)
			}
		}
	}
}
