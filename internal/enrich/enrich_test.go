// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orb8/orb8/internal/cgroup"
	"github.com/orb8/orb8/internal/event"
	"github.com/orb8/orb8/internal/probe/socket"
)

// groups are cgroups by id.
type groups map[uint64]string

func (g groups) Info(id uint64) (*cgroup.Info, bool) {
	path, ok := g[id]
	info := cgroup.Parse(path)
	return &info, ok
}

// sockets know what a test tells them.
type sockets struct {
	owners     map[uint64]socket.Owner
	places     map[uint16]socket.Owner // by local port
	listening  map[uint16]bool
	wanted     []uint32
	generation uint64
}

func (s *sockets) Owner(cookie uint64) (socket.Owner, bool) {
	o, ok := s.owners[cookie]
	return o, ok
}

func (s *sockets) Find(c *event.Conn) (socket.Owner, bool) {
	o, ok := s.places[c.LocalPort]
	return o, ok
}

func (s *sockets) Listening(c *event.Conn) bool { return s.listening[c.LocalPort] }
func (s *sockets) Want(netns uint32)            { s.wanted = append(s.wanted, netns) }
func (s *sockets) Generation() uint64           { return s.generation }

func owner(pid uint32, name string, group uint64, final bool) socket.Owner {
	o := socket.Owner{Process: socket.Process{PID: pid, Cgroup: group}, Final: final}
	copy(o.Name[:], name)
	return o
}

const (
	hostNetns, otherNetns = 1, 2

	rootGroup, sshGroup, sessionGroup, dockerGroup, initGroup, goneGroup = 1, 10, 11, 12, 13, 14
)

var container = strings.Repeat("0123456789abcdef", 4)

func machine(s *sockets) *Enricher {
	cfg := Config{
		Node: "n1", Netns: hostNetns,
		Cgroups: groups{
			rootGroup:    "/",
			sshGroup:     "/system.slice/ssh.service",
			sessionGroup: "/user.slice/user-0.slice/session-3.scope",
			dockerGroup:  "/system.slice/docker-" + container + ".scope",
			initGroup:    "/init.scope",
		},
		Own: func(ip event.IP) bool { return ip == event.IPFrom(netip.MustParseAddr("10.0.0.1")) },
	}
	if s != nil {
		cfg.Sockets = s
	}
	return New(cfg)
}

func flow(netns uint32, protocol event.Protocol, local, remote uint16) event.Flow {
	return event.Flow{Conn: event.Conn{
		Local: event.IPFrom(netip.MustParseAddr("10.0.0.1")), Remote: event.IPFrom(netip.MustParseAddr("10.0.0.2")),
		LocalPort: local, RemotePort: remote, Netns: netns, Protocol: protocol,
	}}
}

func TestIdentify(t *testing.T) {
	host, unknown := event.Identity{Class: event.ClassHost, Node: "n1"}, event.Identity{Class: event.ClassUnknown, Node: "n1"}
	end := func(class event.Class, change func(*event.Identity)) event.Identity {
		id := event.Identity{Class: class, Node: "n1"}
		change(&id)
		return id
	}
	sshd := end(event.ClassHost, func(i *event.Identity) { i.Unit, i.Process, i.PID = "ssh.service", "sshd", 812 })
	sshService := end(event.ClassHost, func(i *event.Identity) { i.Unit = "ssh.service" })
	docker := end(event.ClassContainer, func(i *event.Identity) { i.Container, i.Process, i.PID = container, "nginx", 900 })
	nfs := event.Identity{Class: "kernel:nfs", Node: "n1"}
	s := &sockets{
		owners: map[uint64]socket.Owner{
			1: owner(812, "sshd", sshGroup, true),
			2: owner(900, "nginx", dockerGroup, true),
			3: owner(31, "curl", 0, true),    // noted: its group is the socket's
			4: owner(1, "systemd", 0, false), // made by systemd
			5: {Kernel: true, Final: true},
			6: owner(0, "many", sshGroup, true), // several share the port
			7: owner(77, "odd", goneGroup, true),
		},
		places: map[uint16]socket.Owner{
			53:  owner(812, "sshd", sshGroup, true),
			80:  owner(900, "nginx", dockerGroup, false), // listens
			81:  owner(1, "systemd", initGroup, false),   // listens
			700: {Kernel: true, Final: true},
		},
	}
	for name, c := range map[string]struct {
		netns         uint32
		protocol      event.Protocol
		kind          event.ConnKind
		local, remote uint16
		cookie, group uint64
		want          event.Identity
		final         bool
	}{
		"a service":                           {netns: hostNetns, cookie: 1, group: sshGroup, want: sshd, final: true},
		"a socket that systemd opened":        {netns: hostNetns, cookie: 1, group: initGroup, want: sshd, final: true},
		"a socket that systemd made, young":   {netns: hostNetns, cookie: 4, group: initGroup, want: unknown},
		"a container":                         {netns: otherNetns, cookie: 2, group: dockerGroup, want: docker, final: true},
		"a container with the host's network": {netns: hostNetns, cookie: 2, group: dockerGroup, want: docker, final: true},
		"a process that is gone": {netns: hostNetns, cookie: 3, group: sessionGroup, final: true, want: end(event.ClassHost, func(i *event.Identity) {
			i.Unit, i.Process, i.PID = "session-3.scope", "curl", 31
		})},
		"several processes": {netns: hostNetns, cookie: 6, group: sshGroup, final: true, want: end(event.ClassHost, func(i *event.Identity) {
			i.Unit, i.Process = "ssh.service", "many"
		})},
		"a group that is gone": {netns: otherNetns, cookie: 7, group: goneGroup, final: true, want: end(event.ClassHost, func(i *event.Identity) {
			i.Process, i.PID = "odd", 77
		})},
		"who only receives":                  {netns: hostNetns, protocol: event.UDP, local: 53, want: sshd, final: true},
		"a young socket at another's place":  {netns: hostNetns, protocol: event.UDP, local: 53, cookie: 99, group: sshGroup, want: sshd},
		"too young a connection of a server": {netns: otherNetns, local: 80, cookie: 99, group: dockerGroup, want: docker},
		"the same of systemd":                {netns: hostNetns, local: 81, want: unknown},
		"only a unit is known":               {netns: hostNetns, cookie: 99, group: sshGroup, want: sshService},
		"nothing is known":                   {netns: hostNetns, cookie: 99, group: rootGroup, want: host},
		"nothing is known elsewhere":         {netns: otherNetns, cookie: 99, group: rootGroup, want: unknown},
		"no group yet":                       {netns: otherNetns, want: unknown},
		"a group that cannot be named":       {netns: otherNetns, cookie: 99, group: 4711, want: unknown},
		"a client of NFS":                    {netns: hostNetns, remote: 2049, local: 988, cookie: 5, group: dockerGroup, want: nfs, final: true},
		"the same, not yet listed":           {netns: hostNetns, remote: 2049, local: 988, cookie: 99, group: dockerGroup, want: unknown},
		"the kernel's, by its place":         {netns: hostNetns, remote: 2049, local: 700, cookie: 99, group: sshGroup, want: nfs, final: true},
		"the kernel's, of no known port":     {netns: hostNetns, remote: 1234, local: 55, cookie: 5, want: event.Identity{Class: "kernel", Node: "n1"}, final: true},
		"a process that speaks NFS":          {netns: hostNetns, remote: 2049, cookie: 1, group: sshGroup, want: sshd, final: true},
		"an answer to ping":                  {netns: hostNetns, protocol: event.ICMP, kind: event.ConnEchoOpenedRemote, want: host, final: true},
		"a ping":                             {netns: hostNetns, protocol: event.ICMP, kind: event.ConnEchoOpenedLocal, cookie: 1, group: sshGroup, want: sshd, final: true},
		"later fragments":                    {netns: otherNetns, protocol: event.UDP, kind: event.ConnFragment, want: unknown, final: true},
	} {
		if c.protocol == 0 {
			c.protocol = event.TCP
		}
		f := flow(c.netns, c.protocol, c.local, c.remote)
		f.Conn.Kind, f.Cookie, f.Cgroup = c.kind, c.cookie, c.group
		e := machine(s)
		s.wanted = nil
		final := e.Identify(&f)
		if diff := cmp.Diff(c.want, *f.Local); diff != "" || final != c.final {
			t.Errorf("%s: final %v, want %v\n%s", name, final, c.final, diff)
		}
		if f.Remote.Class != event.ClassExternal || (len(s.wanted) > 0) == c.final {
			t.Errorf("%s: remote %+v, wanted %v", name, f.Remote, s.wanted)
		}
	}
}

// Without anybody to ask, all that is known is the machine.
// What the network stack sends by itself has no owner to look for: on a node
// with hundreds of namespaces somebody always talks to his neighbours.
func TestTheStackIsNotLookedUp(t *testing.T) {
	for _, c := range []struct {
		protocol event.Protocol
		kind     event.ConnKind
		wants    int
	}{
		{event.ICMPv6, event.ConnPlain, 0},
		{event.ICMPv6, event.ConnEchoOpenedRemote, 0},
		{2, event.ConnPlain, 0},
		{event.ICMP, event.ConnEchoOpenedLocal, 1},
		{event.UDP, event.ConnPlain, 1},
	} {
		s := &sockets{}
		f := flow(otherNetns, c.protocol, 0, 0)
		f.Conn.Kind, f.Cookie = c.kind, 77
		if final := machine(s).Identify(&f); final != (c.wants == 0) || len(s.wanted) != c.wants {
			t.Errorf("%v, kind %d: final %v, %d listings wanted, not %d", c.protocol, c.kind, final, len(s.wanted), c.wants)
		}
	}
}

func TestMachineOnly(t *testing.T) {
	f := flow(7, event.TCP, 1, 2)
	f.Cookie, f.Cgroup = 8, 9
	e := New(Config{Node: "n1"})
	if !e.Identify(&f) || f.Local.Class != event.ClassHost || f.Local.Node != "n1" || f.Remote.Class != event.ClassExternal {
		t.Errorf("local %+v, remote %+v", f.Local, f.Remote)
	}
	e.Again(func(event.Conn) *event.Flow { t.Error("asked again"); return nil })
}

func TestOwnAddressIsTheHost(t *testing.T) {
	f := flow(otherNetns, event.TCP, 1, 2)
	f.Conn.Remote = f.Conn.Local
	machine(nil).Identify(&f)
	if f.Remote.Class != event.ClassHost || f.Remote.Node != "n1" {
		t.Errorf("remote %+v", f.Remote)
	}
}

// Whoever says something to localhost, it stays with him: the stub resolver of a
// machine is not outside, nor is that of a container the host's.
func TestLoopbackIsNotOutside(t *testing.T) {
	for netns, want := range map[uint32]event.Class{hostNetns: event.ClassHost, otherNetns: event.ClassUnknown} {
		f := flow(netns, event.UDP, 40000, 53)
		f.Conn.Remote = event.IPFrom(netip.MustParseAddr("127.0.0.53"))
		machine(nil).Identify(&f)
		if f.Remote.Class != want || f.Remote.Node != "n1" {
			t.Errorf("in %d: %+v", netns, f.Remote)
		}
	}
}

func TestAgain(t *testing.T) {
	s := &sockets{owners: map[uint64]socket.Owner{}}
	e := machine(s)
	f := flow(hostNetns, event.TCP, 40000, 80)
	f.Cookie, f.Cgroup = 1, sessionGroup
	asked := 0
	find := func(c event.Conn) *event.Flow {
		asked++
		if c != f.Conn {
			t.Errorf("asked for %+v", c)
		}
		return &f
	}
	e.Identify(&f)
	e.Identify(&f) // its cgroup became known, say
	if e.Again(find); asked != 0 {
		t.Error("looked again without a new listing")
	}
	s.generation = 1
	if e.Again(find); asked != 1 || f.Local.Process != "" {
		t.Errorf("asked %d times, is %+v", asked, f.Local)
	}
	s.owners[1] = owner(9, "curl", 0, true)
	if e.Again(find); asked != 1 {
		t.Error("looked again without a new listing")
	}
	s.generation = 2
	if e.Again(find); asked != 2 || f.Local.Process != "curl" || f.OpenedBy != event.OpenerLocal {
		t.Errorf("asked %d times, is %+v", asked, f.Local)
	}
	s.generation = 3
	if e.Again(find); asked != 2 {
		t.Error("looked again although it is known")
	}
}

// A connection whose owner is nowhere is not looked for for ever, one that is
// over is looked for once, and one that is forgotten not at all.
func TestAgainEnds(t *testing.T) {
	for name, c := range map[string]struct {
		found bool
		state event.State
		want  int
	}{
		"open": {true, event.StateEstablished, maxTries}, "over": {true, event.StateClosed, 1}, "forgotten": {false, 0, 1},
	} {
		s := &sockets{}
		e := machine(s)
		f := flow(hostNetns, event.TCP, 1, 2)
		f.State = c.state
		e.Identify(&f)
		asked := 0
		for range 10 {
			s.generation++
			e.Again(func(event.Conn) *event.Flow {
				asked++
				if c.found {
					return &f
				}
				return nil
			})
		}
		if asked != c.want || len(e.pending) != 0 {
			t.Errorf("%s: looked for %d times, want %d", name, asked, c.want)
		}
	}
}

func TestPendingIsBoundedAndCounted(t *testing.T) {
	e := New(Config{Sockets: &sockets{}, Pending: 3})
	for port := range uint16(10) {
		f := flow(hostNetns, event.TCP, port+1, 2)
		e.Identify(&f)
	}
	if losses := e.Losses(); len(e.pending) != 3 || len(losses) != 1 || losses[0].Count != 7 {
		t.Errorf("%d pending, %+v", len(e.pending), losses)
	}
	if losses := machine(nil).Losses(); losses != nil {
		t.Errorf("lost %+v", losses)
	}
}

func TestIdentitiesAreSharedAndBounded(t *testing.T) {
	s := &sockets{owners: map[uint64]socket.Owner{}}
	for i := range uint64(100) {
		s.owners[i+1] = owner(uint32(i)+1000, "x", sshGroup, true)
	}
	e := New(Config{Sockets: s, Identities: 20})
	identify := func(cookie uint64) *event.Identity {
		f := flow(hostNetns, event.TCP, 1, 2)
		f.Cookie = cookie
		e.Identify(&f)
		return f.Local
	}
	first := identify(1)
	for i := range uint64(100) {
		identify(i + 1)
		if identify(1) != first {
			t.Fatal("one that is in use was forgotten")
		}
		if n := len(e.parties.young) + len(e.parties.old); n > 20 {
			t.Fatalf("%d identities", n)
		}
	}
}

func TestOpener(t *testing.T) {
	s := &sockets{generation: 1, listening: map[uint16]bool{22: true, 5000: true, 123: true, 53: true, 40001: true}}
	for _, c := range []struct {
		protocol      event.Protocol
		local, remote uint16
		want          event.Opener
	}{
		{event.TCP, 22, 40000, event.OpenerRemote},
		{event.TCP, 22, 22, event.OpenerRemote},
		{event.TCP, 40001, 22, event.OpenerRemote}, // listens on a port that clients have
		{event.TCP, 40000, 22, event.OpenerLocal},
		{event.TCP, 40000, 40002, event.OpenerUnknown},
		{event.TCP, 800, 2049, event.OpenerUnknown},
		{event.TCP, 23, 40000, event.OpenerUnknown}, // listened once, perhaps
		{event.UDP, 53, 40000, event.OpenerRemote},
		{event.UDP, 123, 123, event.OpenerUnknown},
		{event.UDP, 40001, 53, event.OpenerLocal}, // bound, as clients are
		{event.UDP, 40001, 40002, event.OpenerUnknown},
		{event.SCTP, 5000, 40000, event.OpenerRemote},
		{47, 40000, 1, event.OpenerUnknown},
		{event.TCP, 22, 0, event.OpenerUnknown},
	} {
		f := flow(hostNetns, c.protocol, c.local, c.remote)
		machine(s).Identify(&f)
		if f.OpenedBy != c.want {
			t.Errorf("%v %d–%d: opened by %v, want %v", c.protocol, c.local, c.remote, f.OpenedBy, c.want)
		}
		f.OpenedBy = event.OpenerLocal // seen
		if machine(s).Identify(&f); f.OpenedBy != event.OpenerLocal {
			t.Error("what was seen is overruled")
		}
	}
	f := flow(hostNetns, event.TCP, 22, 40000)
	if machine(&sockets{listening: s.listening}).Identify(&f); f.OpenedBy != event.OpenerUnknown {
		t.Error("nobody listens before the first listing")
	}
}

func TestKernelService(t *testing.T) {
	for _, c := range []struct {
		protocol      event.Protocol
		local, remote uint16
		opened        event.Opener
		want          string
	}{
		{event.TCP, 800, 2049, event.OpenerLocal, "nfs"},
		{event.TCP, 988, 2049, event.OpenerLocal, "nfs"},
		{event.TCP, 2049, 988, event.OpenerRemote, "nfs"},
		{event.TCP, 988, 2049, event.OpenerUnknown, "nfs"},
		{event.TCP, 2049, 800, event.OpenerUnknown, "nfs"},
		{event.TCP, 988, 40000, event.OpenerLocal, ""}, // a lock manager's client
		{event.TCP, 40000, 988, event.OpenerLocal, "lustre"},
		{event.TCP, 40000, 6800, event.OpenerLocal, "ceph"},
		{event.TCP, 40000, 7568, event.OpenerLocal, "ceph"},
		{event.TCP, 40000, 7569, event.OpenerLocal, ""},
		{event.TCP, 40000, 4420, event.OpenerLocal, "nvme"},
		{event.UDP, 51820, 33000, event.OpenerLocal, "wireguard"},
		{event.UDP, 33000, 4789, event.OpenerLocal, "vxlan"},
		{event.TCP, 33000, 4789, event.OpenerLocal, ""},
		{event.SCTP, 2049, 2049, event.OpenerLocal, ""},
	} {
		f := flow(hostNetns, c.protocol, c.local, c.remote)
		f.OpenedBy = c.opened
		if got := kernelService(&f); got != c.want {
			t.Errorf("%v %d–%d opened by %v: %q, want %q", c.protocol, c.local, c.remote, c.opened, got, c.want)
		}
	}
}

// steady is an enricher that has met all that it will, and its connections.
func steady() (*Enricher, []event.Flow) {
	s := &sockets{owners: map[uint64]socket.Owner{}, generation: 1}
	e := machine(s)
	flows := make([]event.Flow, 1000)
	for i := range flows {
		f := flow(hostNetns, event.TCP, uint16(i)+1000, 443)
		f.Cookie, f.Cgroup = uint64(i)+1, sshGroup
		s.owners[f.Cookie] = owner(uint32(i%50)+1, "sshd", sshGroup, true)
		e.Identify(&f)
		flows[i] = f
	}
	// The resolver's answers are made once.
	info := cgroup.Parse("/system.slice/ssh.service")
	e.cfg.Cgroups = one{&info}
	return e, flows
}

type one struct{ info *cgroup.Info }

func (o one) Info(uint64) (*cgroup.Info, bool) { return o.info, true }

func TestIdentifyAllocatesNothing(t *testing.T) {
	e, flows := steady()
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		e.Identify(&flows[i%len(flows)])
		i++
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkIdentify(b *testing.B) {
	e, flows := steady()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		e.Identify(&flows[i%len(flows)])
	}
}
