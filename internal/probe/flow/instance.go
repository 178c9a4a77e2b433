// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

const (
	// etherHeader is the length of an Ethernet header.
	etherHeader = 14
	// unknownHeader makes an instance read from the network header on (LINK_UNKNOWN).
	unknownHeader = 0xff
)

// kernelSide is what all instances share: the maps, and the programs for what few
// packets need.
type kernelSide struct {
	spec       *ebpf.CollectionSpec // of an instance
	outOfOrder uint32               // the kernel's out_of_order_at
	loaded     func(name string, p *ebpf.Program)

	active    *ebpf.Map
	moved     *ebpf.Map
	rest      *ebpf.Map
	lost      *ebpf.Map
	slots     *ebpf.Map
	bits      *ebpf.Map
	addresses *ebpf.Map
	bridged   *ebpf.Map
	rare      *ebpf.Map
	copies    *ebpf.Map
	uncopied  *ebpf.Map
	copyRoom  *ebpf.Map

	programs struct {
		RareIngress *ebpf.Program `ebpf:"flow_rare_ingress"`
		RareEgress  *ebpf.Program `ebpf:"flow_rare_egress"`
		CopyIngress *ebpf.Program `ebpf:"flow_copy_ingress"`
		CopyEgress  *ebpf.Program `ebpf:"flow_copy_egress"`
		Clock       *ebpf.Program `ebpf:"flow_clock"`
	}
}

// constants of an instance. They cost nothing per packet.
type constants struct {
	netns, linkHeader uint32
	// Packets of others pass through the namespace.
	forwards bool
	// The interface is a bridge there.
	bridge bool
}

// instance is the tap's two programs with one set of constants.
type instance struct {
	Ingress *ebpf.Program `ebpf:"flow_ingress"`
	Egress  *ebpf.Program `ebpf:"flow_egress"`
}

func (i *instance) Close() error { return errors.Join(i.Ingress.Close(), i.Egress.Close()) }

func (k *kernelSide) maps() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		"flow_active": &k.active, "flow_moved": &k.moved, "flow_rest": &k.rest, "flow_rest_lost": &k.lost,
		"flow_slots": &k.slots, "flow_address_bits": &k.bits, "flow_addresses": &k.addresses, "flow_bridged": &k.bridged, "flow_rare": &k.rare,
		"flow_copies": &k.copies, "flow_copies_lost": &k.uncopied, "flow_copy_room": &k.copyRoom,
	}
}

// load makes the maps and the shared programs.
func (k *kernelSide) load(cfg *Config) error {
	spec, err := loadKernel()
	if err != nil {
		return err
	}
	spec.Maps["flow_active"].InnerMap.MaxEntries = uint32(cfg.TableEntries)
	spec.Maps["flow_copies"].MaxEntries = copyBytes
	if err := spec.Variables[kernelVarDnsPortsBe].Set(portsBE(cfg.DNSPorts)); err != nil {
		return fmt.Errorf("set %s: %w", kernelVarDnsPortsBe, err)
	}
	for name, dst := range k.maps() {
		if *dst, err = ebpf.NewMap(spec.Maps[name]); err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
	}
	k.loaded = cfg.Loaded
	shared := spec.Copy()
	k.outOfOrder = outOfOrderAt()
	if err := shared.Variables[kernelVarOutOfOrderAt].Set(k.outOfOrder); err != nil {
		return fmt.Errorf("set %s: %w", kernelVarOutOfOrderAt, err)
	}
	if err := shared.LoadAndAssign(&k.programs, k.options()); err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	for i, p := range []*ebpf.Program{k.programs.RareIngress, k.programs.RareEgress, k.programs.CopyIngress, k.programs.CopyEgress} {
		if err := k.rare.Put(uint32(i), p); err != nil {
			return fmt.Errorf("join programs: %w", err)
		}
	}
	for _, name := range []string{"flow_rare_ingress", "flow_rare_egress", "flow_copy_ingress", "flow_copy_egress", "flow_clock"} {
		delete(spec.Programs, name)
	}
	// Names of types and lines are worth 20 KB of kernel memory an instance.
	for _, p := range spec.Programs {
		for i, ins := range p.Instructions {
			symbol, reference := ins.Symbol(), ins.Reference()
			ins.Metadata = asm.Metadata{}
			p.Instructions[i] = ins.WithSymbol(symbol).WithReference(reference)
		}
	}
	k.spec = spec
	return nil
}

// outOfOrderAt is where this kernel's sockets count segments that came out of
// order: the one word of a socket's health that no call gives. 0 where the kernel
// does not describe its types; then it is not known.
func outOfOrderAt() uint32 {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return 0
	}
	var sock *btf.Struct
	if spec.TypeByName("tcp_sock", &sock) != nil {
		return 0
	}
	for _, m := range sock.Members {
		if size, _ := btf.Sizeof(m.Type); m.Name == "rcv_ooopack" && size == 4 && m.BitfieldSize == 0 {
			return m.Offset.Bytes()
		}
	}
	return 0
}

func (k *kernelSide) options() *ebpf.CollectionOptions {
	o := &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{}}
	for name, m := range k.maps() {
		o.MapReplacements[name] = *m
	}
	return o
}

// listener loads the program for a loopback that is not tapped.
func (k *kernelSide) listener(netns uint32) (*instance, error) {
	spec := k.spec.Copy()
	if err := spec.Variables[kernelVarNetns].Set(netns); err != nil {
		return nil, fmt.Errorf("set %s: %w", kernelVarNetns, err)
	}
	var only struct {
		Loopback *ebpf.Program `ebpf:"flow_loopback"`
	}
	if err := spec.LoadAndAssign(&only, k.options()); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	k.loaded("flow_loopback", only.Loopback)
	return &instance{Egress: only.Loopback}, nil
}

// instance loads the programs with their constants; about a millisecond.
func (k *kernelSide) instance(c constants) (*instance, error) {
	spec := k.spec.Copy()
	for name, value := range map[string]uint32{
		kernelVarNetns: c.netns, kernelVarLinkHeader: c.linkHeader, kernelVarOutOfOrderAt: k.outOfOrder,
		kernelVarForwards: one(c.forwards), kernelVarBridge: one(c.bridge),
	} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s: %w", name, err)
		}
	}
	i := &instance{}
	if err := spec.LoadAndAssign(i, k.options()); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	k.loaded("flow_ingress", i.Ingress)
	k.loaded("flow_egress", i.Egress)
	return i, nil
}

// one is what C takes for true.
func one(is bool) uint32 {
	if is {
		return 1
	}
	return 0
}

// memory is what the kernel charges for the shared maps, in bytes.
func (k *kernelSide) memory() (sum uint64) {
	for _, m := range k.maps() {
		sum += memlock(*m)
	}
	return sum
}

func memlock(m *ebpf.Map) uint64 {
	if m == nil {
		return 0
	}
	info, err := m.Info()
	if err != nil {
		return 0
	}
	n, _ := info.Memlock()
	return n
}

func (k *kernelSide) Close() error {
	p := &k.programs
	err := errors.Join(p.RareIngress.Close(), p.RareEgress.Close(), p.CopyIngress.Close(), p.CopyEgress.Close(), p.Clock.Close())
	for _, m := range k.maps() {
		if *m != nil {
			err = errors.Join(err, (*m).Close())
		}
		*m = nil
	}
	return err
}

// linkHeader is the length of what stands before the IP header, by device type.
// Where it varies, or is not known, packets are read from the network header on.
func linkHeader(encap string) uint32 {
	switch encap {
	case "ether", "loopback":
		return etherHeader
	case "none", "rawip", "ppp": // tun, WireGuard
		return 0
	case "infiniband": // IPoIB: the kernel puts 20 bytes before the header of four
		return 24
	}
	return unknownHeader
}
