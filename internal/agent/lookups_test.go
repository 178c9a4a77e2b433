// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	pb "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/bpftest"
)

// town is a client and what it takes for the internet: a DNS server and some
// addresses that speak TLS.
type town struct {
	*world
	a                *running
	client, internet *bpftest.Netns
}

const zones = `
api.example.com.            30  IN CNAME edge.example.net.
edge.example.net.           5   IN A     203.0.113.10
web.example.org.            30  IN A     203.0.113.11
big.example.com.            30  IN A     203.0.113.12
here.corp.internal.         30  IN A     203.0.113.13
x0.shared.example.          30  IN A     203.0.113.14
x1.shared.example.          30  IN A     203.0.113.14
x2.shared.example.          30  IN A     203.0.113.14
x3.shared.example.          30  IN A     203.0.113.14
`

func newTown(t *testing.T, env ...string) *town {
	w := newWorld(t)
	w.run(`for i in client internet; do ip netns add $i; ip -n $i link set lo up; done
		ip link add eth0 netns client type veth peer name eth0 netns internet
		ip -n client addr add 10.7.1.2/24 dev eth0; ip -n client link set eth0 up
		ip -n internet addr add 10.7.1.1/24 dev eth0; ip -n internet link set eth0 up
		for i in 10 11 12 13 14; do ip -n internet addr add 203.0.113.$i/32 dev lo; done
		ip -n client route add default via 10.7.1.1`)
	c := &town{world: w}
	open := func(name string) *bpftest.Netns {
		return bpftest.OpenNetns(t, fmt.Sprintf("/proc/%d/root/run/netns/%s", w.pid, name))
	}
	c.client, c.internet = open("client"), open("internet")
	c.a = w.agent(t.TempDir(), env...)
	c.a.listens()
	bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(c.a.status()) == 3 })
	c.serveDNS(c.internet, "10.7.1.1:53")
	return c
}

// serveDNS answers in a namespace until the test ends: silent.… not at all,
// slow.… after a while, big.… not in one packet.
func (c *town) serveDNS(ns *bpftest.Netns, at string) {
	records := map[string]dns.RR{}
	for line := range strings.Lines(zones) {
		if rr, err := dns.NewRR(line); err == nil && rr != nil {
			records[rr.Header().Name] = rr
		}
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		name := strings.ToLower(q.Question[0].Name)
		r := new(dns.Msg).SetReply(q)
		switch {
		case strings.HasPrefix(name, "silent."):
			return
		case strings.HasPrefix(name, "slow."):
			time.Sleep(200 * time.Millisecond)
		}
		for rr := records[name]; rr != nil; {
			cname, alias := rr.(*dns.CNAME)
			if alias || q.Question[0].Qtype == rr.Header().Rrtype {
				r.Answer = append(r.Answer, rr)
			}
			if rr = nil; alias {
				rr = records[cname.Target]
			}
		}
		if records[name] == nil {
			r.Rcode = dns.RcodeNameError
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp && strings.HasPrefix(name, "big.") {
			r.Answer, r.Truncated = nil, true
		}
		_ = w.WriteMsg(r)
	})
	t := c.t
	ns.Do(func() {
		pc, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
			go func() { _ = s.ActivateAndServe() }()
			t.Cleanup(func() { _ = s.Shutdown() })
		}
	})
}

// resolve asks with glibc, as a program in the client's namespace does.
func (c *town) resolve(config string, names ...string) {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		c.t.Fatal(err)
	}
	for _, name := range names {
		cmd := c.command("ip", "netns", "exec", "client", "unshare", "--mount", "sh", "-ec",
			`mount --bind "$1" /etc/resolv.conf; exec getent ahosts "$2"`, "sh", file, name)
		_ = cmd.Run() // what it makes of the answer is not the question
	}
}

// rows are what `orb8 dns` would show of the client.
func (p *running) rows(req *pb.DnsRequest) []*pb.DnsRecord {
	p.t.Helper()
	stream, err := pb.NewObserverClient(p.dial()).Dns(p.t.Context(), req)
	if err != nil {
		p.t.Fatal(err)
	}
	var all []*pb.DnsRecord
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			p.t.Fatal(err)
		}
		if r := m.GetDns(); r != nil {
			all = append(all, r)
		}
	}
}

// lookups gives those that are told from now on.
func (p *running) lookups(f *pb.DnsFilter) (next func(name, kind string) *pb.DnsLookup) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	p.t.Cleanup(cancel)
	stream, err := pb.NewObserverClient(p.dial()).Events(ctx, &pb.EventsRequest{Kinds: []pb.EventKind{pb.EventKind_EVENT_KIND_DNS}, IncludeDns: f})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // it listens
		p.t.Fatal(err)
	}
	return func(name, kind string) *pb.DnsLookup {
		p.t.Helper()
		for {
			m, err := stream.Recv()
			if err != nil {
				p.t.Fatalf("waiting for %s %s: %v", name, kind, err)
			}
			l := m.GetEvent().GetDns()
			if l.GetName() == name && l.GetType() == kind {
				return l
			}
		}
	}
}

func TestLookups(t *testing.T) {
	c := newTown(t)
	next := c.a.lookups(nil)
	const config = "nameserver 10.7.1.1\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5 timeout:1 attempts:2\n"
	c.resolve(config, "api.example.com")
	l := next("api.example.com", "A")
	if l.GetRcode() != "NOERROR" || l.LatencyNs == nil || l.GetTries() != 1 || l.GetSearchMisses() != 3 || len(l.GetAnswers()) != 2 ||
		l.GetAnswers()[0].GetData() != "edge.example.net" || l.GetAnswers()[1].GetData() != "203.0.113.10" || l.GetAnswers()[1].GetTtl() != 5 {
		t.Errorf("through a search list: %v", l)
	}
	if want := "ns.svc.cluster.local svc.cluster.local cluster.local"; strings.Join(l.GetSearchDomains(), " ") != want {
		t.Errorf("search domains: %v", l.GetSearchDomains())
	}
	c.resolve(config, "silent.example.com.")
	if l := next("silent.example.com", "A"); l.GetRcode() != "TIMEOUT" || l.LatencyNs != nil || l.GetTries() < 1 {
		t.Errorf("nobody answers: %v", l)
	}
	var sum pb.DnsRecord // of a client whose process may have been too short to have a name
	name := ""
	for _, row := range c.a.rows(&pb.DnsRequest{}) {
		if row.GetServer().GetIp() != "10.7.1.1" || row.GetClient().GetIp() != "10.7.1.2" {
			t.Errorf("a row: %v", row)
		}
		sum.Queries += row.GetQueries()
		sum.Lookups += row.GetLookups()
		sum.Timeouts += row.GetTimeouts()
		sum.SearchMisses += row.GetSearchMisses()
		name += row.GetSearchName()
	}
	if sum.SearchMisses != 6 || sum.Lookups != 10 || sum.Timeouts != 2 || sum.Queries < 10 || name != "api.example.com" {
		t.Errorf("rows, added up: %v, %q", &sum, name)
	}
	if rows := c.a.rows(&pb.DnsRequest{Sides: []pb.DnsSide{pb.DnsSide_DNS_SIDE_SERVER}}); len(rows) != 1 || rows[0].GetClient().GetIp() != "10.7.1.2" {
		t.Errorf("at the server: %v", rows)
	}
}

// A resolver of Go's, over UDP and TCP, and one on loopback.
func TestLookupsOfGoAndOnLoopback(t *testing.T) {
	c := newTown(t)
	c.serveDNS(c.client, "127.0.0.53:53")
	next := c.a.lookups(&pb.DnsFilter{Names: []string{"*.example.org", "slow.*", "big.*"}, Types: []string{"a"}})
	slow := c.a.lookups(&pb.DnsFilter{SlowerThanNs: 150e6})
	for _, at := range []string{"10.7.1.1:53", "127.0.0.53:53"} {
		for _, network := range []string{"udp", "tcp"} {
			r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, by, _ string) (conn net.Conn, err error) {
				if network == "tcp" {
					by = network
				}
				c.client.Do(func() { conn, err = (&net.Dialer{}).DialContext(ctx, by, at) })
				return conn, err
			}}
			if _, err := r.LookupHost(t.Context(), "web.example.org."); err != nil {
				t.Error(err)
			}
			if l := next("web.example.org", "A"); l.GetRcode() != "NOERROR" || l.GetTcp() != (network == "tcp") || l.GetAnswers()[0].GetData() != "203.0.113.11" {
				t.Errorf("%s, %s: %v", at, network, l)
			}
			_, _ = r.LookupHost(t.Context(), "big.example.com.")
			l := next("big.example.com", "A")
			if network == "udp" {
				if !l.GetTruncated() || l.GetTcp() || l.GetTcpRetry() {
					t.Errorf("%s, too big for one packet: %v", at, l)
				}
				l = next("big.example.com", "A")
			}
			if l.GetTcpRetry() != (network == "udp") || l.GetTruncated() || len(l.GetAnswers()) != 1 {
				t.Errorf("%s, over TCP: %v", at, l)
			}
			_, _ = r.LookupHost(t.Context(), "slow.example.com.")
			if l := slow("slow.example.com", "A"); l.GetRcode() != "NXDOMAIN" || l.GetLatencyNs() < 200e6 {
				t.Errorf("%s, %s: %v", at, network, l)
			}
		}
	}
}

// serveTLS speaks it on an address of the internet's until the test ends.
func (c *town) serveTLS(at string) {
	t := c.t
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c.internet.Do(func() {
		ln, err := tls.Listen("tcp", at, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(io.Discard, conn); conn.Close() }()
			}
		}()
	})
}

// call opens a connection from the client and gives its port.
func (c *town) call(at string, config *tls.Config) (port uint32) {
	c.t.Helper()
	conn := c.dial(at, config)
	return uint32(conn.LocalAddr().(*net.TCPAddr).Port)
}

func (c *town) dial(at string, config *tls.Config) (conn net.Conn) {
	t := c.t
	t.Helper()
	c.client.Do(func() {
		var err error
		if conn, err = net.DialTimeout("tcp", at, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if config != nil {
			config.InsecureSkipVerify = true
			if err := tls.Client(conn, config).Handshake(); err != nil {
				t.Fatal(err)
			}
		}
	})
	return conn
}

// named gives what the agent calls the other end of the client's connections, by
// their ports.
func (c *town) named(ports ...uint32) map[uint32]string {
	all := map[uint32]string{}
	flows, _ := c.a.flows(&pb.FlowsRequest{Include: &pb.Filter{SrcPorts: ports}})
	for _, f := range flows {
		if f.GetTap().GetNamespace() != "client" {
			continue
		}
		text := fmt.Sprintf("%s by %s", f.GetRemote().GetFqdn(), f.GetRemote().GetFqdnSource())
		if h := f.GetTls(); h != nil {
			text += fmt.Sprintf(", %s to %s, %s", h.GetVersion(), h.GetServerName(), strings.Join(h.GetAlpn(), " "))
		}
		all[f.GetLocal().GetPort()] = text
	}
	return all
}

// Addresses of the outside are called what the client asked for, what it said in
// its ClientHello, or what the agent was told, and nothing else.
func TestNamesOfTheOutside(t *testing.T) {
	list := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(list, []byte("storage 203.0.113.0/24\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := newTown(t, "ORB8_CIDR_NAMES="+list)
	for _, at := range []string{"10", "11", "12", "14"} {
		c.serveTLS("203.0.113." + at + ":443")
	}
	before := c.call("203.0.113.11:443", nil) // and asks afterwards
	c.resolve("nameserver 10.7.1.1\n", "api.example.com", "web.example.org")
	want := map[uint32]string{
		before: "storage by cidr",
		c.call("203.0.113.10:443", &tls.Config{ServerName: "api.example.com", NextProtos: []string{"h2", "http/1.1"}}): "api.example.com by dns, TLS 1.3 to api.example.com, h2 http/1.1",
		c.call("203.0.113.12:443", &tls.Config{ServerName: "said.example.com", MaxVersion: tls.VersionTLS12}):          "said.example.com by sni, TLS 1.2 to said.example.com, ",
		c.call("203.0.113.14:443", &tls.Config{}): "storage by cidr, TLS 1.3 to , ",
	}
	// Several names of one address, one right after the other.
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, by, _ string) (conn net.Conn, err error) {
		c.client.Do(func() { conn, err = (&net.Dialer{}).DialContext(ctx, by, "10.7.1.1:53") })
		return conn, err
	}}
	for i := range 4 {
		name := fmt.Sprintf("x%d.shared.example", i)
		if _, err := r.LookupHost(t.Context(), name+"."); err != nil {
			t.Fatal(err)
		}
		want[c.call("203.0.113.14:443", nil)] = name + " by dns"
	}
	// The last but one of two that were asked for, as the connection itself says.
	want[c.call("203.0.113.14:443", &tls.Config{ServerName: "x2.shared.example"})] = "x2.shared.example by dns, TLS 1.3 to x2.shared.example, "
	var got map[uint32]string
	bpftest.Eventually(t, "names of the outside", func() bool {
		got = c.named(slices.Collect(maps.Keys(want))...)
		return maps.Equal(got, want)
	})
	flows, _ := c.a.flows(&pb.FlowsRequest{Include: &pb.Filter{To: &pb.EndFilter{Fqdns: []string{"*.EXAMPLE"}}}})
	if len(flows) != 5 {
		t.Errorf("%d connections to names with a given end, want 5", len(flows))
	}
	// Who is called has not asked who calls.
	flows, _ = c.a.flows(&pb.FlowsRequest{Include: &pb.Filter{SrcPorts: []uint32{before}}})
	for _, f := range flows {
		if f.GetOpenedBy() == pb.Opener_OPENER_REMOTE && f.GetRemote().GetFqdn() != "" {
			t.Errorf("the server calls its client %q", f.GetRemote().GetFqdn())
		}
	}
}

// A connection that is older than the agent gets its name from a later answer, if
// that is the only one.
func TestNamesOfOlderConnections(t *testing.T) {
	c := newTown(t)
	c.serveTLS("203.0.113.11:443")
	c.serveTLS("203.0.113.14:443")
	one, other := c.dial("203.0.113.11:443", nil), c.dial("203.0.113.14:443", nil)
	c.a.signal(syscall.SIGTERM)
	c.a.exits()
	c.a = c.agent(t.TempDir(), "ORB8_EXPIRATION_INTERVAL_SECS=1")
	c.a.listens()
	bpftest.Eventually(t, "all to be tapped", func() bool { return tapped(c.a.status()) == 3 })
	for _, conn := range []net.Conn{one, other} {
		if _, err := conn.Write([]byte("still there")); err != nil {
			t.Fatal(err)
		}
	}
	c.resolve("nameserver 10.7.1.1\n", "web.example.org", "x0.shared.example", "x1.shared.example")
	port := func(conn net.Conn) uint32 { return uint32(conn.LocalAddr().(*net.TCPAddr).Port) }
	bpftest.Eventually(t, "the only name to be given", func() bool {
		return c.named(port(one))[port(one)] == "web.example.org by dns"
	})
	if got := c.named(port(other))[port(other)]; got != " by " {
		t.Errorf("with two names it is called %q", got)
	}
}
