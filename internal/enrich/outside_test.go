// SPDX-License-Identifier: Apache-2.0

package enrich

import (
	"testing"

	"github.com/orb8/orb8/internal/event"
)

// phonebook is what was asked by whom, and a list.
type phonebook struct {
	asked  map[event.IP]string
	alias  string // was asked for, too, whatever the address
	listed map[event.IP]string
}

func (p *phonebook) Asked(f *event.Flow) string {
	if f.TLS != nil && f.TLS.ServerName == p.alias {
		return p.alias
	}
	return p.asked[f.Conn.Remote]
}

func (p *phonebook) Listed(ip event.IP) string { return p.listed[ip] }

const outsider = "198.51.100.1"

func TestNamesOfTheOutside(t *testing.T) {
	hello := &event.Hello{ServerName: "said.example.com"}
	asked, listed := map[event.IP]string{addr(outsider): "asked.example.com"}, map[event.IP]string{addr(outsider): "storage"}
	for name, c := range map[string]struct {
		book   phonebook
		said   *event.Hello
		opened event.Opener
		want   string
		source event.NameSource
	}{
		"nothing is known":                 {phonebook{}, nil, event.OpenerLocal, "", ""},
		"it was asked for":                 {phonebook{asked: asked, listed: listed}, hello, event.OpenerLocal, "asked.example.com", event.NameDNS},
		"it was said":                      {phonebook{listed: listed}, hello, event.OpenerLocal, "said.example.com", event.NameSNI},
		"it was said without a name":       {phonebook{listed: listed}, &event.Hello{}, event.OpenerLocal, "storage", event.NameCIDR},
		"it is listed":                     {phonebook{listed: listed}, nil, event.OpenerLocal, "storage", event.NameCIDR},
		"it calls":                         {phonebook{asked: asked}, hello, event.OpenerRemote, "", ""},
		"it calls, and is listed":          {phonebook{asked: asked, listed: listed}, nil, event.OpenerRemote, "storage", event.NameCIDR},
		"it is not known who has called":   {phonebook{asked: asked}, nil, event.OpenerUnknown, "asked.example.com", event.NameDNS},
		"what was said names a connection": {phonebook{}, hello, event.OpenerUnknown, "said.example.com", event.NameSNI},
	} {
		n := town(t)
		n.cfg.Names = &c.book
		f := n.talk(netnsA, ipA, outsider, 443)
		f.OpenedBy, f.TLS = c.opened, c.said
		n.Identify(f)
		if f.Remote.Class != event.ClassExternal || f.Remote.FQDN != c.want || f.Remote.FQDNSource != c.source {
			t.Errorf("%s: %+v, want %q by %q", name, f.Remote, c.want, c.source)
		}
	}
}

// A name comes when it is known, a better one takes its place, and none is taken
// away. Who is in the cluster has the cluster's name.
func TestNamesOfTheOutsideLater(t *testing.T) {
	n := town(t)
	book := &phonebook{asked: map[event.IP]string{addr(ipC): "c.example.com"}, listed: map[event.IP]string{addr(outsider): "storage", addr(ipC): "c"}}
	n.cfg.Names = book
	f := n.talk(netnsA, ipA, outsider, 443)
	n.Identify(f)
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "storage"},
		{func() { n.Heard(f, &event.Hello{ServerName: "said.example.com"}) }, "said.example.com"},
		{func() { book.asked[addr(outsider)] = "asked.example.com"; n.Rename() }, "asked.example.com"},
		{func() { book.asked[addr(outsider)] = "another.example.com"; n.Rename() }, "asked.example.com"},
		{func() { clear(book.asked); clear(book.listed); n.Rename(); n.Identify(f) }, "asked.example.com"},
		{func() { book.alias = "said.example.com"; n.Heard(f, f.TLS) }, "said.example.com"},
		{func() { n.tell(podChange("x", "x", "10.9.0.9")) }, "said.example.com"},
	} {
		if step.do(); f.Remote.FQDN != step.want {
			t.Errorf("%q, want %q", f.Remote.FQDN, step.want)
		}
	}
	f = n.talk(netnsA, ipA, ipC, 443)
	if n.Identify(f); f.Remote.Pod != "c" || f.Remote.FQDN != "" {
		t.Errorf("a pod is called %+v", f.Remote)
	}
}

func TestIsOutside(t *testing.T) {
	n := town(t)
	for ip, want := range map[string]bool{
		outsider: true, "2001:db8::1": true, ipA: false, ipC: false, ipN2: false, clusterIP: false, ipAPI: false,
		"10.1.0.1": false, "127.0.0.1": false, "::1": false, "0.0.0.0": false, "224.0.0.251": false,
	} {
		if got := n.IsOutside(addr(ip)); got != want {
			t.Errorf("%s: %v", ip, got)
		}
	}
}

func TestEndsOfALookup(t *testing.T) {
	n := town(t)
	n.cfg.Names = &phonebook{}
	question := func(netns uint32, local, remote string, role event.Role) *event.Lookup {
		c := event.Conn{Netns: netns, Ifindex: 2, Protocol: event.UDP, Local: addr(local), Remote: addr(remote), LocalPort: 40000, RemotePort: 53}
		group := uint64(0)
		if netns == netnsA {
			group = groupA
		}
		return &event.Lookup{Conn: c, Role: role, Cgroup: group, Asked: at(n.now), Answered: at(n.now) + 5}
	}
	for name, c := range map[string]struct {
		l             *event.Lookup
		local, remote string
		opened        event.Opener
	}{
		"of a pod":             {question(netnsA, ipA, "198.51.100.53", event.RoleClient), "a", "external", event.OpenerLocal},
		"of a pod, at another": {question(netnsA, ipA, ipC, event.RoleClient), "a", "c", event.OpenerLocal},
		"at a pod":             {question(netnsB, ipB, ipC, event.RoleServer), "b", "c", event.OpenerRemote},
		"over loopback":        {question(netnsA, "127.0.0.1", "127.0.0.11", event.RoleClient), "a", "a", event.OpenerLocal},
		"of the host's":        {question(hostNetns, "127.0.0.1", "127.0.0.53", event.RoleClient), "host", "host", event.OpenerLocal},
	} {
		f, ok := n.Asked(c.l)
		if !ok || who(f.Local) != c.local || who(f.Remote) != c.remote || f.OpenedBy != c.opened {
			t.Errorf("%s: %s and %s, opened by the %v, %v", name, who(f.Local), who(f.Remote), f.OpenedBy, ok)
		}
	}
	f := n.talk(netnsA, ipA, outsider, 53)
	n.Identify(f)
	f.Carried = true
	if _, ok := n.Asked(&event.Lookup{Conn: f.Conn}); ok {
		t.Error("what is carried is told")
	}
}
