// SPDX-License-Identifier: Apache-2.0

package prom

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/export/meter"
)

// server computes increases as Prometheus does: between two samples of a
// series, however far apart. One that is less than the one before has begun
// again with 0, and of the first one nothing is known.
type server struct {
	last     map[string]float64
	increase float64
}

func (x *server) scrape(t *testing.T, g *Gatherer, metric string) (series int) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.Metric {
			labels, v := fmt.Sprint(m.Label), m.GetCounter().GetValue()
			switch was, known := x.last[labels]; {
			case known && v >= was:
				x.increase += v - was
			case known:
				x.increase += v
			}
			x.last[labels] = v
		}
		series = len(f.Metric)
	}
	return series
}

// TestIncreaseIsExact: of 5,000 pods that come and go within a minute, more than
// there are series for, some of which come back, Prometheus sees all that they
// did.
func TestIncreaseIsExact(t *testing.T) {
	const most, names, lives = 1000, 5000, 250
	start := time.Unix(1000, 0)
	m := meter.New(meter.Config{Level: meter.Pod, MaxSeries: most, Grace: 10 * time.Second, Start: start})
	db := podOf("data", "db", "db-0")
	g := gatherer(m)
	random := rand.New(rand.NewPCG(3, 4))
	x := server{last: map[string]float64{}}
	put := 0.0
	now := start
	for minute := range 3 {
		for i := range names {
			// The third minute has the names of the first.
			first := minute % 2 * names
			if i%83 == 0 {
				now = now.Add(time.Second)
				m.Begin(now)
				living := m.Living()
				living.Add(db, false)
				for j := max(0, i-lives); j < i; j++ {
					living.Add(podOf("ml", "train", fmt.Sprint("train-", first+j)), true)
				}
				m.Sweep(now, living)
				if n := x.scrape(t, g, "orb8_network_bytes_total"); n > most+2 || len(g.shown) > 4*most {
					t.Fatalf("%d series, %d remembered", n, len(g.shown))
				}
			}
			for range 3 {
				id := podOf("ml", "train", fmt.Sprint("train-", first+max(0, i-random.IntN(lives))))
				n := random.Uint64N(1 << 20)
				m.Flow(flowOf(id, db), &event.Traffic{TxBytes: n, TxPackets: 1}, traffic)
				put += float64(n)
			}
		}
	}
	x.scrape(t, g, "orb8_network_bytes_total")
	x.scrape(t, g, "orb8_network_bytes_total")
	if x.increase != put {
		t.Errorf("the increase is %.0f of %.0f", x.increase, put)
	}
	if s := m.Snapshot(none); s.Beyond[meter.Network] == 0 || float64(s.Total.TxBytes) != put {
		t.Errorf("beyond %d, total %d", s.Beyond[meter.Network], s.Total.TxBytes)
	}
}
