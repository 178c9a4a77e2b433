// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/orb8/orb8/internal/bpftest"
)

// Each branch may have the verifier look once more at all that follows: a start
// takes as long as that, and older kernels see less that is the same.
func TestVerifierHasLittleToDo(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	spec, err := loadKernel()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	for name, most := range map[string]uint32{"flow_ingress": 1000, "flow_egress": 1000, "flow_rare_ingress": 50_000, "flow_rare_egress": 100_000} {
		if bpftest.Older(t, 6, 12) {
			most *= 8
		}
		info, err := loaded.Programs[name].Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		if t.Logf("%s: %d instructions", name, n); ok && n > most {
			t.Errorf("%s: the verifier looked at %d instructions, want at most %d", name, n, most)
		}
	}
}
