// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/orb8/orb8/internal/bpftest"
)

// The cluster's internet is a network of addresses in the control plane's
// namespace, where the nodes' default route leads. CoreDNS asks its DNS server for
// what is in example.com, and the others speak TLS.
const (
	outsideNet = "203.0.113.53/24"
	outsideDNS = "203.0.113.53:53"
	// How long its DNS server takes for each answer.
	outsideDelay = 60 * time.Millisecond
)

var outsideTLS = []string{"203.0.113.10:443", "203.0.113.11:443", "203.0.113.20:443"}

// What is below cold.example.com is there, whatever its name.
const outsideZone = `
api.example.com.       30 IN CNAME edge.example.net.
edge.example.net.      30 IN A     203.0.113.10
one.example.com.       30 IN A     203.0.113.20
two.example.com.       30 IN A     203.0.113.20
any.cold.example.com.  30 IN A     203.0.113.30
`

// openOutside serves it until the test ends.
func openOutside(t *testing.T, c *cluster) {
	t.Helper()
	name := c.settings["P"] + "-cp"
	addr := func(what string) {
		if out, err := exec.Command("ip", "-n", name, "addr", what, outsideNet, "dev", "lo").CombinedOutput(); err != nil {
			t.Errorf("ip addr %s: %v: %s", what, err, out)
		}
	}
	addr("replace")
	t.Cleanup(func() { addr("del") })
	ns := bpftest.OpenNetns(t, "/run/netns/"+name)
	serveOutsideDNS(t, ns)
	serveOutsideTLS(t, ns)
}

func serveOutsideDNS(t *testing.T, ns *bpftest.Netns) {
	t.Helper()
	var pc net.PacketConn
	var err error
	if ns.Do(func() { pc, err = net.ListenPacket("udp4", outsideDNS) }); err != nil {
		t.Fatal(err)
	}
	records := map[string]dns.RR{}
	for line := range strings.Lines(outsideZone) {
		if rr, err := dns.NewRR(line); err == nil && rr != nil {
			records[rr.Header().Name] = rr
		}
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		time.Sleep(outsideDelay)
		_ = w.WriteMsg(answerOutside(records, q))
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
}

func answerOutside(records map[string]dns.RR, q *dns.Msg) *dns.Msg {
	r := new(dns.Msg).SetReply(q)
	name := strings.ToLower(q.Question[0].Name)
	known := records[name]
	if known == nil && strings.HasSuffix(name, ".cold.example.com.") {
		known = dns.Copy(records["any.cold.example.com."])
		known.Header().Name = q.Question[0].Name
	}
	if known == nil {
		r.Rcode = dns.RcodeNameError
	}
	for rr := known; rr != nil; {
		cname, alias := rr.(*dns.CNAME)
		if alias || q.Question[0].Qtype == rr.Header().Rrtype {
			r.Answer = append(r.Answer, rr)
		}
		if rr = nil; alias {
			rr = records[cname.Target]
		}
	}
	if len(r.Answer) == 0 {
		// Without it nobody remembers that there is nothing.
		r.Ns = []dns.RR{&dns.SOA{
			Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 30},
			Ns:  "ns.example.com.", Mbox: "root.example.com.", Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: 30,
		}}
	}
	return r
}

// serveOutsideTLS sends one byte, and ends when the client does.
func serveOutsideTLS(t *testing.T, ns *bpftest.Netns) {
	t.Helper()
	borrowed := httptest.NewTLSServer(nil)
	config := &tls.Config{Certificates: borrowed.TLS.Certificates, NextProtos: []string{"h2"}}
	borrowed.Close()
	for _, at := range outsideTLS {
		var ln net.Listener
		var err error
		if ns.Do(func() { ln, err = tls.Listen("tcp4", at, config) }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					if _, err := conn.Write([]byte{1}); err == nil {
						_, _ = io.Copy(io.Discard, conn)
					}
				}()
			}
		}()
	}
}
