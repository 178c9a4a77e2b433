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

// goBench runs one benchmark and reads its "123 ns/op  0 B/op  0 allocs/op".
func goBench(pkg, name string) (ns, allocs float64, err error) {
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", "300ms", pkg).CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w: %s", name, err, out)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 8 && strings.HasPrefix(f[0], name) {
			ns, err1 := strconv.ParseFloat(f[2], 64)
			allocs, err2 := strconv.ParseFloat(f[6], 64)
			if err1 == nil && err2 == nil {
				return ns, allocs, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("%s: no result in: %s", name, out)
}
