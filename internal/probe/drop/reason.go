// SPDX-License-Identifier: Apache-2.0

package drop

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// What the kernel's reasons are called there.
const (
	corePrefix      = "SKB_DROP_REASON_"
	subsystemPrefix = "SKB_DROP_REASON_SUBSYS_"
	// What a reason has in its upper half: who gave it.
	subsystemShift = 16
	// reasons is the kernel's REASONS.
	reasons = 256
)

var (
	errNoTracepoint = errors.New("this kernel has no tracepoint skb:kfree_skb: it does not tell what it drops")
	errNoReasons    = errors.New("this kernel does not tell why it drops packets: Linux 5.17 and newer do")
)

// kernel is what the running kernel says of its drops.
type kernel struct {
	names names
	// The tracepoint tells which socket was to receive (6.11).
	hasReceiver bool
}

// readKernel reads it from the kernel's own types, so that a new reason needs no
// new release.
func readKernel() (kernel, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return kernel{}, fmt.Errorf("types of the kernel: %w", err)
	}
	return readTypes(spec)
}

// types are the kernel's. btf.Spec has them.
type types interface {
	TypeByName(name string, to any) error
}

func readTypes(spec types) (k kernel, err error) {
	var trace *btf.Typedef
	if err := spec.TypeByName("btf_trace_kfree_skb", &trace); err != nil {
		return k, errNoTracepoint
	}
	args := parameters(trace)
	// The first is the tracer's own.
	const packet, place, reason, receiver = 1, 2, 3, 4
	if len(args) <= reason {
		return k, errNoReasons
	}
	k.hasReceiver = len(args) > receiver
	var core *btf.Enum
	if err := spec.TypeByName("skb_drop_reason", &core); err != nil {
		return k, errNoReasons
	}
	k.names = newNames(core)
	for _, name := range k.names.core {
		k.names.oldApart = k.names.oldApart || name == oldSequence
	}
	var subsystems *btf.Enum
	if spec.TypeByName("skb_drop_reason_subsys", &subsystems) == nil { // 6.4
		for _, v := range subsystems.Values {
			k.names.subsystems[uint32(v.Value)] = strings.TrimPrefix(v.Name, subsystemPrefix)
		}
	}
	return k, nil
}

func parameters(trace *btf.Typedef) []btf.FuncParam {
	p, ok := trace.Type.(*btf.Pointer)
	if !ok {
		return nil
	}
	f, ok := p.Target.(*btf.FuncProto)
	if !ok {
		return nil
	}
	return f.Params
}

// names are what the running kernel calls its reasons.
type names struct {
	core, subsystems map[uint32]string
	// Those that have no name, as they were met.
	others map[uint32]string
	// It tells segments that came already from those that nobody waits for.
	oldApart bool
}

func newNames(core *btf.Enum) names {
	n := names{core: map[uint32]string{}, subsystems: map[uint32]string{}, others: map[uint32]string{}}
	for _, v := range core.Values {
		name, ok := strings.CutPrefix(v.Name, corePrefix)
		if !ok {
			name = strings.TrimPrefix(v.Name, "SKB_")
		}
		if name != "MAX" && name != "SUBSYS_MASK" {
			n.core[uint32(v.Value)] = name
		}
	}
	return n
}

// of gives a reason's name, and what it means.
func (n *names) of(reason uint32) (name, hint string) {
	if name, ok := n.core[reason]; ok {
		return name, hints[name]
	}
	if name, ok := n.others[reason]; ok {
		return name, ""
	}
	if subsystem := reason >> subsystemShift; subsystem == 0 {
		name = strconv.FormatUint(uint64(reason), 10)
	} else {
		who, ok := n.subsystems[subsystem]
		if !ok {
			who = strconv.FormatUint(uint64(subsystem), 10)
		}
		name = who + ":" + strconv.FormatUint(uint64(reason&(1<<subsystemShift-1)), 10)
	}
	if len(n.others) < reasons {
		n.others[reason] = name
	}
	return name, ""
}

// harmless marks the reasons that are no loss, by number.
func (k *kernel) harmless() (marks [reasons]uint8) {
	for number, name := range k.names.core {
		if number < reasons {
			marks[number] = k.names.harmlessness(name)
		}
	}
	return marks
}
