// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"testing"

	"github.com/orb8/orb8/internal/event"
)

func TestGPUs(t *testing.T) {
	whole := event.GPU{UUID: "GPU-a", Index: 1, PCI: "0000:1b:00.0"}
	part := event.GPU{UUID: "MIG-b", Parent: "GPU-a", Index: 1, PCI: "0000:1b:00.0"}
	other := event.GPU{UUID: "GPU-c", Index: 11}
	for _, c := range []struct {
		f                  GPUs
		whole, part, other bool
	}{
		{nil, true, true, true},
		{GPUs{"GPU-A"}, true, true, false},
		{GPUs{"MIG-b"}, false, true, false},
		{GPUs{"1"}, true, true, false},
		{GPUs{"0000:1B:00.0", "11"}, true, true, true},
		{GPUs{"00000000:1B:00.0"}, true, true, false},
		{GPUs{"1b:00.0"}, true, true, false},
		{GPUs{"00000001:1B:00.0", "2:1b:00.0", "b:00.0", "0000:"}, false, false, false},
		{GPUs{""}, false, false, false},
	} {
		for g, want := range map[*event.GPU]bool{&whole: c.whole, &part: c.part, &other: c.other, nil: len(c.f) == 0} {
			if got := c.f.Match(g); got != want {
				t.Errorf("%q lets %v through: %v", c.f, g, got)
			}
		}
	}
	h := &event.GPUHolder{Shares: []event.GPUShare{{GPU: &other}, {GPU: &part}}, Findings: []*event.GPUFinding{{}}}
	if of := (GPUs{"GPU-a"}).Of(h); len(of.Shares) != 1 || of.Shares[0].GPU != &part || len(of.Findings) != 1 || len(h.Shares) != 2 || h.Shares[0].GPU != &other {
		t.Errorf("of one of the devices: %v", of)
	}
	if (GPUs{}).Of(h) != h {
		t.Error("a holder that is meant as a whole is copied")
	}
	shares := []event.GPUShare{{GPU: &other}, {GPU: &part}}
	for name, e := range map[string]*event.GPUEvent{
		"sample":  {Sample: &event.GPUHolder{Shares: shares}},
		"finding": {Finding: &event.GPUFinding{GPUs: []*event.GPU{&other, &part}}},
		"xid":     {GPU: &part},
	} {
		if f := (GPUs{"GPU-a"}); !f.MatchEvent(e) {
			t.Errorf("%s of one of the devices is not let through", name)
		}
		if f := (GPUs{"GPU-z"}); f.MatchEvent(e) {
			t.Errorf("%s of another device is let through", name)
		}
	}
}
