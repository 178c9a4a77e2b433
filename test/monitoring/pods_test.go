// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Where the two pods are, and what the server has beside, outside of the cluster.
const (
	clientIP  = "10.77.1.2"
	serverIP  = "10.77.1.3"
	outsideIP = "203.0.113.10"
)

// serve is the server: it discards by TCP, echoes by UDP and answers the DNS. In
// the end it says how many questions it was asked.
func serve() {
	ln, err := net.Listen("tcp", ":9000")
	check(err)
	go func() {
		for {
			c, err := ln.Accept()
			check(err)
			go func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() }()
		}
	}()
	echo, err := net.ListenPacket("udp", ":9001")
	check(err)
	go func() {
		for buf := make([]byte, 2000); ; {
			n, from, err := echo.ReadFrom(buf)
			check(err)
			_, _ = echo.WriteTo(buf[:n], from)
		}
	}()
	var asked atomic.Int64
	pc, err := net.ListenPacket("udp", serverIP+":53")
	check(err)
	go func() {
		check((&dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			asked.Add(1)
			answer(w, q)
		})}).ActivateAndServe())
	}()
	untilToldToEnd()
	fmt.Println(asked.Load())
	os.Exit(0)
}

func answer(w dns.ResponseWriter, q *dns.Msg) {
	r := new(dns.Msg).SetReply(q)
	switch name := q.Question[0].Name; {
	case strings.HasPrefix(name, "silent."):
		return
	case strings.HasPrefix(name, "fails."):
		r.Rcode = dns.RcodeServerFailure
	case name != "api.example.com.":
		r.Rcode = dns.RcodeNameError
	default:
		rr, err := dns.NewRR("api.example.com. 30 IN A " + outsideIP)
		check(err)
		r.Answer = append(r.Answer, rr)
	}
	_ = w.WriteMsg(r)
}

// ask is the client, until it is told to end.
func ask() {
	for _, work := range []struct {
		every time.Duration
		do    func()
	}{
		{50 * time.Millisecond, func() { send(serverIP + ":9000") }},
		{100 * time.Millisecond, func() { send(outsideIP + ":9000") }},
		{100 * time.Millisecond, func() { send(serverIP + ":9") }}, // refused
		{50 * time.Millisecond, exchange},
		{100 * time.Millisecond, resolve},
		{2 * time.Second, burst},
	} {
		go func() {
			for range time.Tick(work.every) {
				work.do()
			}
		}()
	}
	untilToldToEnd()
	os.Exit(0)
}

// send opens a connection and sends something; some of it is lost on the way.
func send(to string) {
	c, err := net.DialTimeout("tcp", to, 3*time.Second)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	for range 8 {
		if _, err := c.Write(make([]byte, 8000)); err != nil {
			return
		}
	}
}

func exchange() {
	c, err := net.Dial("udp", serverIP+":9001")
	check(err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	_, _ = c.Write(make([]byte, 500))
	_, _ = c.Read(make([]byte, 500))
	if closed, err := net.Dial("udp", serverIP+":9009"); err == nil { // dropped: nobody listens
		_, _ = closed.Write(make([]byte, 100))
		_ = closed.Close()
	}
}

// resolve asks as a resolver with a search list does, and what cannot be answered.
func resolve() {
	c := dns.Client{Timeout: 200 * time.Millisecond}
	for _, name := range []string{
		"api.example.com.shop.svc.cluster.local.", "api.example.com.svc.cluster.local.", "api.example.com.cluster.local.", "api.example.com.",
		"fails.example.com.", "silent.example.com.",
	} {
		_, _, _ = c.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), serverIP+":53")
	}
}

// burst is more connections in a second than the kernel's table is given room for.
func burst() {
	c, err := net.ListenUDP("udp", nil)
	check(err)
	defer c.Close()
	for port := 20000; port < 20400; port++ {
		_, _ = c.WriteTo(make([]byte, 50), &net.UDPAddr{IP: net.ParseIP(serverIP), Port: port})
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
