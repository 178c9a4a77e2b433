// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orb8/orb8/internal/event"
)

// scene is what stands in a namespace that makes one packet pass by two
// interfaces: it is a flow on the uppermost, and carried on those below. A scene
// is immutable.
type scene struct {
	forwards bool
	tunnels  bool
	// UDP ports that tunnels of this namespace listen on, and the protocols of
	// tunnels without ports.
	ports     map[uint16]bool
	protocols map[event.Protocol]bool
	// By lower device: it has VLANs above; whose addresses are above it, by
	// devices that share its link (macvlan, ipvlan).
	vlans map[uint32]bool
	above map[uint32]map[event.IP]bool
}

// survey notes the scene of the namespace that the thread is in, and the
// addresses of the own one.
func (t *Tap) survey(s *space, links []netlink.Link) error {
	if !s.own && !stacked(links) {
		t.setScene(s.Netns, nil)
		return nil
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list addresses: %w", err)
	}
	if s.own {
		if err := t.setAddresses(addrs); err != nil {
			return err
		}
	}
	t.setScene(s.Netns, newScene(s.own, links, addrs))
	return nil
}

// kinds of devices that stand on others.
var (
	sharing = map[string]bool{"macvlan": true, "macvtap": true, "ipvlan": true, "ipvtap": true}
	tunnels = map[string]event.Protocol{
		"vxlan": event.UDP, "geneve": event.UDP, "wireguard": event.UDP, "fou": event.UDP, "bareudp": event.UDP, "gtp": event.UDP,
		"ipip": 4, "sit": 41, "ip6tnl": 41, "gre": 47, "gretap": 47, "ip6gre": 47, "ip6gretap": 47, "erspan": 47, "ip6erspan": 47,
		"xfrm": 50, "vti": 50, "vti6": 50,
	}
)

// stacks tells that devices of a kind stand on others.
func stacks(kind string) bool {
	_, tunnel := tunnels[kind]
	return tunnel || sharing[kind] || kind == "vlan"
}

func stacked(links []netlink.Link) bool {
	return slices.ContainsFunc(links, func(l netlink.Link) bool { return stacks(l.Type()) })
}

func newScene(forwards bool, links []netlink.Link, addrs []netlink.Addr) *scene {
	sc := &scene{
		forwards: forwards, ports: map[uint16]bool{}, protocols: map[event.Protocol]bool{},
		vlans: map[uint32]bool{}, above: map[uint32]map[event.IP]bool{},
	}
	byIndex := make(map[int]netlink.Link, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
	}
	addresses := map[int][]event.IP{}
	for _, a := range addrs {
		if ip, ok := address(a); ok {
			addresses[a.LinkIndex] = append(addresses[a.LinkIndex], ip)
		}
	}
	for _, l := range links {
		sc.addTunnel(l)
		a := l.Attrs()
		if a.ParentIndex == 0 || a.NetNsID >= 0 || byIndex[a.ParentIndex] == nil {
			continue // nothing below, or in another namespace
		}
		switch {
		case l.Type() == "vlan":
			sc.vlans[uint32(a.ParentIndex)] = true
		case sharing[l.Type()]:
			sc.stand(uint32(a.ParentIndex), addresses[a.Index], addresses[a.ParentIndex])
		}
	}
	return sc
}

// addTunnel notes how the outer packets of a tunnel look.
func (sc *scene) addTunnel(l netlink.Link) {
	proto, ok := tunnels[l.Type()]
	if !ok || isFallback(l) {
		return
	}
	sc.tunnels = true
	switch d := l.(type) {
	case *netlink.Vxlan:
		sc.ports[uint16(d.Port)] = true
	case *netlink.Geneve:
		sc.ports[d.Dport] = true
	case *netlink.BareUDP:
		sc.ports[d.Port] = true
	}
	if proto != event.UDP {
		sc.protocols[proto] = true
	}
	if l.Type() == "ip6tnl" {
		sc.protocols[4] = true // carries either
	}
}

// isFallback tells the devices that the kernel puts into each namespace with a
// tunnel's module; they carry nothing until they are set up.
func isFallback(l netlink.Link) bool {
	switch l.Attrs().Name {
	case "tunl0", "gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0":
		return l.Attrs().RawFlags&unix.IFF_UP == 0
	}
	return false
}

// stand puts the addresses of a device above the one that it shares the link
// of; what both have stays with the lower.
func (sc *scene) stand(lower uint32, upper, own []event.IP) {
	if sc.above[lower] == nil {
		sc.above[lower] = map[event.IP]bool{}
	}
	for _, ip := range upper {
		sc.above[lower][ip] = true
	}
	for _, ip := range own {
		delete(sc.above[lower], ip)
	}
}

func address(a netlink.Addr) (event.IP, bool) {
	if a.IPNet == nil {
		return event.IP{}, false
	}
	ip := a.IP.To16()
	if ip == nil {
		return event.IP{}, false
	}
	return event.IP(ip), true
}

// The kernel's enum sender.
const (
	senderUnknown    = 0
	senderOwn        = 1
	senderTranslated = 3
)

const igmp event.Protocol = 2

// place tells whether a connection is one of this namespace, on this interface.
func (sc *scene) place(c *event.Conn, sender uint8, tagged bool) event.Place {
	if sc == nil {
		return event.PlaceOwn
	}
	switch {
	case tagged && sc.vlans[c.Ifindex],
		sc.above[c.Ifindex][c.Local],
		c.Protocol == event.UDP && (sc.ports[c.LocalPort] || sc.ports[c.RemotePort]),
		sc.protocols[c.Protocol]:
		return event.PlaceCarried
	case sender == senderOwn, c.Protocol == igmp: // reports go without a socket, and no further
		return event.PlaceOwn
	case sender == senderUnknown:
		return event.PlaceUndecided
	case sender == senderTranslated && !(sc.tunnels && c.Protocol == event.UDP):
		return event.PlaceOwn
	case sc.forwards, sc.tunnels && c.Protocol == event.UDP:
		return event.PlaceCarried
	}
	return event.PlaceOwn
}

func (t *Tap) setScene(netns uint32, sc *scene) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.layout.Load()
	if old[netns] == sc {
		return
	}
	layout := maps.Clone(old)
	if sc == nil {
		delete(layout, netns)
	} else {
		layout[netns] = sc
	}
	t.layout.Store(&layout)
}

// sceneCache is the epoch's view: most deltas in a row are of one namespace.
type sceneCache struct {
	layout map[uint32]*scene
	netns  uint32
	last   *scene
}

func (c *sceneCache) load(layout *map[uint32]*scene) {
	c.layout, c.netns, c.last = *layout, 0, nil
}

func (c *sceneCache) of(netns uint32) *scene {
	if c.netns != netns {
		c.netns, c.last = netns, c.layout[netns]
	}
	return c.last
}
