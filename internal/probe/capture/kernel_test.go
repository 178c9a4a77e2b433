// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/orb8/orb8/internal/bpftest"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/filter"
)

// kept is a packet that outlives the next.
type kept struct {
	Packet
	data []byte
}

// running is a capture at the interfaces of a pair.
type running struct {
	t    testing.TB
	pair *bpftest.Pair
	*Capture
}

func open(t testing.TB, cfg Config, pods ...Target) *running {
	t.Helper()
	pair := bpftest.NewPair(t)
	r := &running{t: t, pair: pair}
	cfg.Enter = func(netns uint32, fn func() error) (err error) {
		for _, e := range []*bpftest.End{&pair.A, &pair.B} {
			if e.Inode() == netns {
				e.Do(func() { err = fn() })
				return err
			}
		}
		return fmt.Errorf("no namespace %d", netns)
	}
	if cfg.Snaplen == 0 {
		cfg.Snaplen = 256
	}
	var err error
	if r.Capture, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	target := Target{}
	if len(pods) > 0 {
		target = pods[0]
	}
	target.Iface = event.Iface{Netns: pair.A.Inode(), Index: uint32(pair.A.Index)}
	if _, err := r.Attach(&target); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *running) read() (all []kept) {
	r.t.Helper()
	err := r.Read(func(p *Packet) bool {
		// Not what the namespaces say to their neighbours by themselves.
		if !bytes.Equal(p.Data[min(12, len(p.Data)):min(14, len(p.Data))], []byte{0x86, 0xdd}) || r.filtered() {
			all = append(all, kept{*p, bytes.Clone(p.Data)})
		}
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *running) filtered() bool { return len(r.cfg.Filter.Include.Protocols) > 0 }

// both runs a test with either way to attach.
func both(t *testing.T, do func(t *testing.T, sockets bool)) {
	t.Helper()
	t.Run("tcx", func(t *testing.T) {
		bpftest.RequireKernel(t, bpftest.TCX)
		do(t, false)
	})
	t.Run("socket", func(t *testing.T) {
		bpftest.RequireKernel(t, bpftest.BPF)
		do(t, true)
	})
}

func TestEverythingIsCaptured(t *testing.T) {
	both(t, func(t *testing.T, sockets bool) {
		r := open(t, Config{Sockets: sockets})
		before := time.Now()
		server := r.pair.B.EchoUDP(false)
		client := r.pair.A.AskUDP(server.Addr, 3, 100)
		after := time.Now()
		got := r.read()
		if len(got) != 6 {
			t.Fatalf("%d packets of 6", len(got))
		}
		for n, p := range got {
			if p.Egress != (n%2 == 0) || p.Length != 14+20+8+100 || len(p.data) != int(p.Length) || p.Interface != 0 {
				t.Errorf("packet %d: %+v", n, p.Packet)
			}
			at := time.Unix(0, p.Time)
			if at.Before(before.Add(-10*time.Millisecond)) || at.After(after.Add(10*time.Millisecond)) {
				t.Errorf("packet %d at %v, not between %v and %v", n, at, before, after)
			}
			if !bytes.Equal(p.data[12:14], []byte{8, 0}) {
				t.Errorf("packet %d is not IPv4: % x", n, p.data[:14])
			}
		}
		port := client.Port()
		if got[0].data[34] != byte(port>>8) || got[0].data[35] != byte(port) {
			t.Errorf("not sent from port %d: % x", port, got[0].data)
		}
		counts, err := r.Counts()
		if err != nil || len(counts) != 1 || counts[0].Matched < 6 || counts[0].Dropped != 0 {
			t.Errorf("counts: %v, %v", counts, err)
		}
	})
}

func TestSnaplen(t *testing.T) {
	both(t, func(t *testing.T, sockets bool) {
		for _, snaplen := range []uint32{1, 60, 160, 161, 513, 1400, 65536} {
			r := open(t, Config{Sockets: sockets, Snaplen: snaplen, Filter: filter.Filter{Include: filter.Fields{Protocols: []event.Protocol{event.UDP}}}})
			r.pair.A.AskUDP(r.pair.B.EchoUDP(false).Addr, 1, 1200)
			for _, p := range r.read() {
				if p.Length != 14+20+8+1200 || len(p.data) != int(min(snaplen, p.Length)) {
					t.Errorf("snaplen %d: %d of %d bytes", snaplen, len(p.data), p.Length)
				}
			}
		}
	})
}

func port(n ...uint16) []uint16 { return n }

func prefixesOf(s ...string) (list []netip.Prefix) {
	for _, one := range s {
		list = append(list, netip.MustParsePrefix(one))
	}
	return list
}

// asked is what is captured of one datagram to 10.88.0.2 (or fd88::2) and its
// answer: the first, the second, both or none.
var asked = []struct {
	name   string
	fields filter.Fields
	ends   Ends
	holds  [2]bool
}{
	{"protocol", filter.Fields{Protocols: []event.Protocol{event.TCP, event.UDP}}, Ends{}, [2]bool{true, true}},
	{"other protocol", filter.Fields{Protocols: []event.Protocol{event.TCP}}, Ends{}, [2]bool{}},
	{"port", filter.Fields{Ports: port(1, serverPort)}, Ends{}, [2]bool{true, true}},
	{"other port", filter.Fields{Ports: port(1)}, Ends{}, [2]bool{}},
	{"sent from a port", filter.Fields{SrcPorts: port(serverPort)}, Ends{}, [2]bool{false, true}},
	{"sent to a port", filter.Fields{DstPorts: port(serverPort)}, Ends{}, [2]bool{true, false}},
	{"address", filter.Fields{IPs: prefixesOf("1.2.3.4/32", "10.88.0.2/32", "fd88::2/128")}, Ends{}, [2]bool{true, true}},
	{"network", filter.Fields{IPs: prefixesOf("10.80.0.0/12", "fd88::/15")}, Ends{}, [2]bool{true, true}},
	{"other network", filter.Fields{IPs: prefixesOf("10.80.0.0/13", "fd8a::/15")}, Ends{}, [2]bool{}},
	{"sent by", filter.Fields{SrcIPs: prefixesOf("10.88.0.2/32", "fd88::2/128")}, Ends{}, [2]bool{false, true}},
	{"sent to", filter.Fields{DstIPs: prefixesOf("10.88.0.2/31", "fd88::2/127")}, Ends{}, [2]bool{true, false}},
	{"all of IPv4 or IPv6", filter.Fields{IPs: prefixesOf("0.0.0.0/0", "::/0")}, Ends{}, [2]bool{true, true}},
	{"egress", filter.Fields{Directions: []event.Opener{event.OpenerLocal}}, Ends{}, [2]bool{true, false}},
	{"ingress", filter.Fields{Directions: []event.Opener{event.OpenerRemote}}, Ends{}, [2]bool{false, true}},
	{"from this pod", filter.Fields{}, Ends{From: Pods{Set: true, Local: true}}, [2]bool{true, false}},
	{"to this pod", filter.Fields{}, Ends{To: Pods{Set: true, Local: true}}, [2]bool{false, true}},
	{"from the other", filter.Fields{}, Ends{From: Pods{Set: true, Remote: remotes}}, [2]bool{false, true}},
	{"to the other", filter.Fields{}, Ends{To: Pods{Set: true, Remote: remotes}}, [2]bool{true, false}},
	{"from nobody", filter.Fields{}, Ends{From: Pods{Set: true}}, [2]bool{}},
}

const serverPort = 5353

var remotes = []event.IP{event.IPFrom(netip.MustParseAddr("10.88.0.2")), event.IPFrom(netip.MustParseAddr("fd88::2"))}

// TestFilter asks a datagram and its answer, plain and with headers that take
// the long way.
func TestFilter(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	for _, c := range asked {
		check := func(name string, f filter.Filter, target *Target, want [2]bool) {
			t.Helper()
			out, in := loaded(t, f, target)
			for frame, packets := range conversations() {
				if got := [2]bool{out(packets[0]), in(packets[1])}; got != want {
					t.Errorf("%s, %s: %v, not %v", name, frame, got, want)
				}
			}
		}
		check("include "+c.name, filter.Filter{Include: c.fields}, &Target{Include: c.ends}, c.holds)
		check("exclude "+c.name, filter.Filter{Exclude: c.fields}, &Target{Exclude: c.ends}, [2]bool{!c.holds[0], !c.holds[1]})
	}
}

// loaded is a filter as the kernel runs it, on what is sent and on what is
// received.
func loaded(t testing.TB, f filter.Filter, target *Target) (out, in func([]byte) bool) {
	t.Helper()
	c, err := Open(Config{Filter: f, Snaplen: 64})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := c.instance(target, Interface{})
	if err != nil {
		t.Fatal(err)
	}
	programs, err := ebpf.NewCollectionWithOptions(spec, *c.options())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		programs.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	c.next = 1
	matched := uint64(0)
	run := func(name string) func([]byte) bool {
		return func(frame []byte) bool {
			t.Helper()
			if verdict, _, err := programs.Programs[name].Test(frame); err != nil || int32(verdict) != bpftest.Next {
				t.Fatalf("run: %d, %v", verdict, err)
			}
			counts, err := c.Counts()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { matched = counts[0].Matched }()
			return counts[0].Matched > matched
		}
	}
	return run(kernelProgFlowCaptureOut), run(kernelProgFlowCaptureIn)
}

// conversations are a datagram that is sent and the answer to it.
func conversations() map[string][2][]byte {
	a4, b4 := netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("10.88.0.2")
	a6, b6 := netip.MustParseAddr("fd88::1"), netip.MustParseAddr("fd88::2")
	there, back := bpftest.UDP{Src: 40000, Dst: serverPort}, bpftest.UDP{Src: serverPort, Dst: 40000}
	of := func(a, b []bpftest.Layer) [2][]byte {
		return [2][]byte{
			bpftest.Packet(append(append([]bpftest.Layer{bpftest.Ether{}}, a...), there, bpftest.Zeros(40))...),
			bpftest.Packet(append(append([]bpftest.Layer{bpftest.Ether{}}, b...), back, bpftest.Zeros(40))...),
		}
	}
	type l = []bpftest.Layer
	return map[string][2][]byte{
		"IPv4":              of(l{bpftest.IPv4{Src: a4, Dst: b4}}, l{bpftest.IPv4{Src: b4, Dst: a4}}),
		"IPv6":              of(l{bpftest.IPv6{Src: a6, Dst: b6}}, l{bpftest.IPv6{Src: b6, Dst: a6}}),
		"IPv4, an option":   of(l{bpftest.IPv4{Src: a4, Dst: b4, Options: []byte{1}}}, l{bpftest.IPv4{Src: b4, Dst: a4, Options: []byte{1}}}),
		"IPv6, extended":    of(l{bpftest.IPv6{Src: a6, Dst: b6}, bpftest.Extension{Protocol: 60}}, l{bpftest.IPv6{Src: b6, Dst: a6}, bpftest.Extension{Protocol: 60}}),
		"IPv4 in two VLANs": of(l{bpftest.VLAN{ID: 5}, bpftest.VLAN{ID: 6}, bpftest.IPv4{Src: a4, Dst: b4}}, l{bpftest.VLAN{ID: 5}, bpftest.VLAN{ID: 6}, bpftest.IPv4{Src: b4, Dst: a4}}),
	}
}

// TestWhatHasNoPorts: a filter that asks for what a packet has not does not hold,
// and excludes nothing.
func TestWhatHasNoPorts(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	a, b := netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("10.88.0.2")
	ether := bpftest.Ether{Type: 0x806}
	frames := map[string][]byte{
		"ARP":            bpftest.Packet(ether, bpftest.Zeros(28)),
		"later fragment": bpftest.Packet(bpftest.Ether{}, bpftest.IPv4{Src: a, Dst: b, Fragment: 100}, bpftest.UDP{Src: 53, Dst: 53}),
		"echo":           bpftest.Packet(bpftest.Ether{}, bpftest.IPv4{Src: a, Dst: b}, bpftest.ICMP{Type: 8, ID: 53}),
		"cut":            bpftest.Packet(bpftest.Ether{}, bpftest.IPv4{Src: a, Dst: b}, bpftest.UDP{Src: 53, Dst: 53})[:38],
	}
	for name, f := range map[string]filter.Fields{"port": {Ports: port(53, 0)}, "sender's port": {SrcPorts: port(53, 0)}} {
		includes, _ := loaded(t, filter.Filter{Include: f}, &Target{})
		excludes, _ := loaded(t, filter.Filter{Exclude: f}, &Target{})
		for what, frame := range frames {
			if includes(frame) {
				t.Errorf("%s of %s is included", name, what)
			}
			if !excludes(frame) {
				t.Errorf("%s of %s is excluded", name, what)
			}
		}
	}
	none, _ := loaded(t, filter.Filter{Include: filter.Fields{IPs: prefixesOf("0.0.0.0/0", "::/0")}}, &Target{})
	if none(frames["ARP"]) || none(frames["cut"]) {
		t.Error("what is not IP has an address")
	}
}

// TestFullestFilter: the longest lists that are allowed load, and the next one is
// refused in words.
func TestFullestFilter(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	var full filter.Fields
	var pods Pods
	for i := range 64 {
		full.Ports = append(full.Ports, uint16(i+1))
		ip := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		full.IPs = append(full.IPs, netip.PrefixFrom(ip, 32))
		pods.Remote = append(pods.Remote, event.IPFrom(ip))
	}
	for i := range 16 {
		full.Protocols = append(full.Protocols, event.Protocol(i+17))
	}
	full.SrcPorts, full.DstPorts, full.SrcIPs, full.DstIPs = full.Ports, full.Ports, full.IPs, full.IPs
	full.Directions = []event.Opener{event.OpenerLocal, event.OpenerRemote}
	pods.Set = true
	ends := Ends{From: pods, To: pods}
	a, b := netip.MustParseAddr("10.1.0.63"), netip.MustParseAddr("10.1.0.62")
	frame := bpftest.Packet(bpftest.Ether{}, bpftest.IPv4{Src: a, Dst: b}, bpftest.UDP{Src: 64, Dst: 63}, bpftest.Zeros(8))
	out, _ := loaded(t, filter.Filter{Include: full}, &Target{Include: Ends{From: Pods{Set: true, Local: true}, To: pods}})
	if !out(frame) {
		t.Error("the last of each list is not found")
	}
	out, _ = loaded(t, filter.Filter{Include: full, Exclude: full}, &Target{Include: ends, Exclude: ends})
	if out(frame) {
		t.Error("excluded, and captured")
	}
	for what, f := range map[string]filter.Filter{
		"at most 64 ports":         {Include: filter.Fields{SrcPorts: append(full.Ports, 65)}},
		"at most 64 addresses":     {Exclude: filter.Fields{IPs: append(full.IPs, full.IPs[0])}},
		"at most 16 CIDR prefixes": {Exclude: filter.Fields{IPs: slices.Repeat(prefixesOf("10.0.0.0/8"), 17)}},
		"at most 16 protocols":     {Include: filter.Fields{Protocols: append(full.Protocols, 1)}},
		"which Service":            {Include: filter.Fields{To: filter.End{Services: []string{"x"}}}},
	} {
		if _, err := Open(Config{Filter: f, Snaplen: 1}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := newFields(&filter.Fields{}, &Ends{To: Pods{Set: true, Remote: append(pods.Remote, remotes...)}}); err == nil {
		t.Error("too many addresses are accepted")
	}
}

// TestTagBesideThePacket: the kernel takes a VLAN tag out of what comes in, and
// the capture puts it back.
func TestTagBesideThePacket(t *testing.T) {
	both(t, func(t *testing.T, sockets bool) {
		r := open(t, Config{Sockets: sockets, Snaplen: 60, Filter: filter.Filter{Include: filter.Fields{Ports: port(serverPort)}}})
		frame := bpftest.Packet(bpftest.Ether{}, bpftest.VLAN{ID: 7}, bpftest.IPv4{Src: r.pair.B.IP4, Dst: r.pair.A.IP4},
			bpftest.UDP{Src: serverPort, Dst: 1}, bpftest.Zeros(100))
		if _, err := r.pair.B.Frames().Write(frame); err != nil {
			t.Fatal(err)
		}
		var got []kept
		bpftest.Eventually(t, "the frame", func() bool {
			got = append(got, r.read()...)
			return len(got) > 0
		})
		if p := got[0]; p.Length != uint32(len(frame)) || !bytes.Equal(p.data, frame[:60]) {
			t.Errorf("%d bytes:\n% x, not %d:\n% x", p.Length, p.data, len(frame), frame)
		}
	})
}

// TestFullRing: what finds no room is counted, and what was there is read.
func TestFullRing(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	r := open(t, Config{Ring: 4096, Sockets: true, Filter: filter.Filter{Include: filter.Fields{Ports: port(serverPort)}}})
	frame := bpftest.Packet(bpftest.Ether{}, bpftest.IPv4{Src: r.pair.A.IP4, Dst: r.pair.B.IP4}, bpftest.UDP{Src: serverPort, Dst: 1}, bpftest.Zeros(100))
	send := r.pair.A.Frames()
	for range 100 {
		if _, err := send.Write(frame); err != nil {
			t.Fatal(err)
		}
	}
	var counts []Count
	bpftest.Eventually(t, "100 packets to match", func() bool {
		var err error
		counts, err = r.Counts()
		return err == nil && counts[0].Matched == 100
	})
	got := uint64(len(r.read()))
	if got == 0 || got+counts[0].Dropped != 100 {
		t.Errorf("%d packets read, %d dropped, of 100", got, counts[0].Dropped)
	}
	if _, err := send.Write(frame); err != nil {
		t.Fatal(err)
	}
	bpftest.Eventually(t, "room again", func() bool { return len(r.read()) == 1 })
}

// TestNothingStays: a capture that ends leaves no program, and a namespace whose
// capture has ended is free to go.
func TestNothingStays(t *testing.T) {
	both(t, func(t *testing.T, sockets bool) {
		r := open(t, Config{Sockets: sockets})
		if err := r.Stop(); err != nil {
			t.Fatal(err)
		}
		r.pair.A.AskUDP(r.pair.B.EchoUDP(false).Addr, 1, 10)
		if got := r.read(); len(got) > 0 {
			t.Errorf("%d packets after the end", len(got))
		}
		r.pair.A.Do(func() {
			l, err := netlink.LinkByIndex(r.pair.A.Index)
			if err != nil {
				t.Fatal(err)
			}
			disciplines, err := netlink.QdiscList(l)
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range disciplines {
				if q.Type() == "clsact" {
					t.Errorf("left behind: %v", q)
				}
			}
		})
		if err := r.Close(); err != nil || r.Close() != nil {
			t.Error(err)
		}
	})
}

func TestWhatCannotBe(t *testing.T) {
	bpftest.RequireKernel(t, bpftest.BPF)
	for _, snaplen := range []uint32{0, MaxSnaplen + 1} {
		if _, err := Open(Config{Snaplen: snaplen}); err == nil {
			t.Errorf("%d bytes of a packet are accepted", snaplen)
		}
	}
	r := open(t, Config{Sockets: true})
	if _, err := r.Attach(&Target{Iface: event.Iface{Netns: r.pair.A.Inode(), Index: 4000}}); !errors.Is(err, ErrGone) {
		t.Errorf("an interface that is not there: %v", err)
	}
	r.next = MaxInterfaces
	if _, err := r.Attach(&Target{}); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	r.next = 1
}
