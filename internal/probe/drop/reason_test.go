// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"errors"
	"io/fs"
	"reflect"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/orb8/orb8/internal/bpftest"
)

// fakeTypes are those of a kernel.
type fakeTypes map[string]btf.Type

func (f fakeTypes) TypeByName(name string, to any) error {
	t, ok := f[name]
	if !ok {
		return btf.ErrNotFound
	}
	reflect.ValueOf(to).Elem().Set(reflect.ValueOf(t))
	return nil
}

func tracepoint(args int) *btf.Typedef {
	return &btf.Typedef{Name: "btf_trace_kfree_skb", Type: &btf.Pointer{Target: &btf.FuncProto{Params: make([]btf.FuncParam, 1+args)}}}
}

func enum(names ...string) *btf.Enum {
	e := &btf.Enum{}
	for i, name := range names {
		e.Values = append(e.Values, btf.EnumValue{Name: name, Value: uint64(i)})
	}
	return e
}

func TestOldKernels(t *testing.T) {
	for name, c := range map[string]struct {
		types fakeTypes
		want  error
	}{
		"no tracepoint":   {fakeTypes{}, errNoTracepoint},
		"no reasons":      {fakeTypes{"btf_trace_kfree_skb": tracepoint(2)}, errNoReasons},
		"no names":        {fakeTypes{"btf_trace_kfree_skb": tracepoint(3)}, errNoReasons},
		"another pointer": {fakeTypes{"btf_trace_kfree_skb": &btf.Typedef{Type: &btf.Int{}}}, errNoReasons},
	} {
		if _, err := readTypes(c.types); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReasons(t *testing.T) {
	reasons := enum("SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "SKB_DROP_REASON_NOT_SPECIFIED", "SKB_DROP_REASON_NO_SOCKET", "SKB_DROP_REASON_TCP_INVALID_SEQUENCE", "SKB_DROP_REASON_MAX")
	k, err := readTypes(fakeTypes{
		"btf_trace_kfree_skb": tracepoint(3), "skb_drop_reason": reasons,
		"skb_drop_reason_subsys": enum("SKB_DROP_REASON_SUBSYS_CORE", "SKB_DROP_REASON_SUBSYS_MAC80211_UNUSABLE"),
	})
	if err != nil || k.hasReceiver {
		t.Fatalf("%+v, %v", k, err)
	}
	for reason, want := range map[uint32]string{
		1: "CONSUMED", 3: "NO_SOCKET", 5: "5", 250: "250", 1<<16 + 7: "MAC80211_UNUSABLE:7", 9<<16 + 1: "9:1",
	} {
		for range 2 {
			if name, hint := k.names.of(reason); name != want || (reason == 3) != (hint != "") {
				t.Errorf("reason %d is %q (%s), want %q", reason, name, hint, want)
			}
		}
	}
	marks := k.harmless()
	// This kernel says of keepalive's probes what it says of segments out of place.
	if want := []uint8{always, always, whenGrouped | whenDelivered, whenGrouped | whenICMP, always, 0}; string(marks[:6]) != string(want) {
		t.Errorf("%v, want %v", marks[:6], want)
	}
	for i := range uint32(5000) {
		k.names.of(100<<16 + i)
	}
	if len(k.names.others) > 300 {
		t.Errorf("%d names of numbers are kept", len(k.names.others))
	}

	reasons.Values = append(reasons.Values, btf.EnumValue{Name: "SKB_DROP_REASON_TCP_OLD_SEQUENCE", Value: 6})
	k, err = readTypes(fakeTypes{"btf_trace_kfree_skb": tracepoint(4), "skb_drop_reason": reasons})
	if err != nil || !k.hasReceiver {
		t.Fatalf("%+v, %v", k, err)
	}
	if marks := k.harmless(); marks[4] != 0 || marks[6] != always {
		t.Errorf("%v", marks[:7])
	}
}

// What is written of reasons must be of reasons that a kernel has.
func TestWordsAreOfReasons(t *testing.T) {
	bpftest.RequireKernel(t, withReasons)
	k, err := readKernel()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, name := range k.names.core {
		known[name] = true
	}
	if !known["NO_SOCKET"] || !known["NETFILTER_DROP"] {
		t.Errorf("reasons of this kernel: %v", k.names.core)
	}
	newest := !bpftest.Older(t, 6, 18) // the others lack some
	for name := range hints {
		if newest && !known[name] {
			t.Errorf("no reason is called %s", name)
		}
	}
}

func TestExplain(t *testing.T) {
	if err := explain(fs.ErrPermission); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}
