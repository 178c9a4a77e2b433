// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// steps of an update after the kernel, and the benchmark that times each.
var steps = []struct{ pkg, benchmark string }{
	{"./internal/probe/flow", "BenchmarkDecode"},
	{"./internal/agent", "BenchmarkUpdate"},
}

// update is what one flow update costs after the kernel has handed it out:
// decode, then enrich and store over 100,000 flows.
func (b *bench) update() error {
	var total series
	var allocs float64
	for range min(b.rounds, 5) {
		var sum float64
		for _, s := range steps {
			ns, a, err := goBench(s.pkg, s.benchmark)
			if err != nil {
				return err
			}
			sum += ns
			allocs += a
		}
		total = append(total, sum)
	}
	b.add(result{Measure: "decode + enrich + store of one update", Unit: "ns", Bar: atMost(400)}.of(total))
	b.add(result{Measure: "  its allocations", Unit: "", Value: allocs, Bar: atMost(0)})
	return nil
}

// goBench runs one benchmark.
func goBench(pkg, name string) (ns, allocs float64, err error) {
	all, err := goMeasures(pkg, name)
	return all["ns/op"], all["allocs/op"], err
}

// goMeasures runs one benchmark and reads its "123 ns/op  0 B/op  0 allocs/op",
// and what else it reports, by unit.
func goMeasures(pkg, name string) (map[string]float64, error) {
	pattern := "^" + strings.ReplaceAll(name, "/", "$/^") + "$"
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", pattern, "-benchtime", "300ms", "-benchmem", pkg).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, out)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 8 || !strings.HasPrefix(f[0], name) {
			continue
		}
		all := map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 {
			if all[f[i+1]], err = strconv.ParseFloat(f[i], 64); err != nil {
				return nil, fmt.Errorf("%s: %w in: %s", name, err, line)
			}
		}
		return all, nil
	}
	return nil, fmt.Errorf("%s: no result in: %s", name, out)
}

// metrics is what counting one flow update costs, and telling all of it.
func (b *bench) metrics() error {
	var count, scrape, snapshot, size series
	var allocs float64
	for range min(b.rounds, 5) {
		ns, a, err := goBench("./internal/export/meter", "BenchmarkFlow")
		if err != nil {
			return err
		}
		held, _, err := goBench("./internal/export/meter", "BenchmarkSnapshot")
		if err != nil {
			return err
		}
		text, err := goMeasures("./internal/export/prom", "BenchmarkScrape/text")
		if err != nil {
			return err
		}
		allocs += a
		count, snapshot = append(count, ns), append(snapshot, held/1e6)
		scrape, size = append(scrape, text["ns/op"]/1e6), append(size, text["bytes"]/1e6)
	}
	b.add(result{Measure: "count one update for metrics", Unit: "ns", Bar: atMost(150)}.of(count))
	b.add(result{Measure: "  its allocations", Unit: "", Value: allocs, Bar: atMost(0)})
	b.add(result{Measure: "scrape, 100,000 connections of 500 pods", Unit: "ms", Bar: atMost(50)}.of(scrape))
	b.add(result{Measure: "  of it in the way of the line", Unit: "ms"}.of(snapshot))
	b.add(result{Measure: "  its size", Unit: "MB", Bar: atMost(3)}.of(size))
	return nil
}
