// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
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
	// Addresses of big.example.com: more than fit into a packet of the DNS.
	bigAnswer = 150
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
	addr("replace") // what an interrupted run left
	t.Cleanup(func() { addr("del") })
	ns := bpftest.OpenNetns(t, "/run/netns/"+name)
	serveOutsideDNS(t, ns)
	serveOutsideTLS(t, ns)
}

func serveOutsideDNS(t *testing.T, ns *bpftest.Netns) {
	t.Helper()
	var pc net.PacketConn
	var ln net.Listener
	var err, tcpErr error
	ns.Do(func() {
		pc, err = net.ListenPacket("udp4", outsideDNS)
		ln, tcpErr = net.Listen("tcp4", outsideDNS)
	})
	if err := errors.Join(err, tcpErr); err != nil {
		t.Fatal(err)
	}
	records := outsideRecords()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		time.Sleep(outsideDelay)
		r := answerOutside(records, q)
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			size := dns.MinMsgSize
			if o := q.IsEdns0(); o != nil {
				size = int(o.UDPSize())
			}
			r.Truncate(size)
		}
		_ = w.WriteMsg(r)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		go func() { _ = s.ActivateAndServe() }()
		t.Cleanup(func() { _ = s.Shutdown() })
	}
}

func outsideRecords() map[string][]dns.RR {
	text := outsideZone
	for i := range bigAnswer {
		text += fmt.Sprintf("big.example.com. 30 IN A 203.0.113.%d\n", 100+i)
	}
	records := map[string][]dns.RR{}
	for line := range strings.Lines(text) {
		if rr, err := dns.NewRR(line); err == nil && rr != nil {
			records[rr.Header().Name] = append(records[rr.Header().Name], rr)
		}
	}
	return records
}

func answerOutside(records map[string][]dns.RR, q *dns.Msg) *dns.Msg {
	r := new(dns.Msg).SetReply(q)
	name := strings.ToLower(q.Question[0].Name)
	known := records[name]
	if strings.HasSuffix(name, ".cold.example.com.") {
		rr := dns.Copy(records["any.cold.example.com."][0])
		rr.Header().Name = q.Question[0].Name
		known = []dns.RR{rr}
	}
	if known == nil {
		r.Rcode = dns.RcodeNameError
	}
	for _, rr := range known {
		if cname, alias := rr.(*dns.CNAME); alias {
			r.Answer = append(r.Answer, rr)
			rr = records[cname.Target][0]
		}
		if q.Question[0].Qtype == rr.Header().Rrtype {
			r.Answer = append(r.Answer, rr)
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
