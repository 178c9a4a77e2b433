// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// asker is a pod whose container waits to be told what to ask.
func (s *scene) asker(name string, node int) object {
	return s.owned("Deployment", name, podSpec(place{node: node}, container("main", "sleep", "1000000")))
}

// exec runs something in a pod's container.
func (s *scene) exec(p pod, command ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 90*time.Second)
	defer stop()
	return s.script(ctx, "", append([]string{"kc", "-n", p.ns, "exec", p.name, "-c", "main", "--"}, command...)...)
}

// asked are the questions for a name, A and AAAA, and what must come of them.
type asked struct {
	name, code string
	// Answers to each, and the domains that were tried before.
	a, aaaa, missed []string
}

func (q asked) lines() (all []string) {
	for _, of := range []struct {
		kind    string
		answers []string
	}{{"A", q.a}, {"AAAA", q.aaaa}} {
		all = append(all, fmt.Sprintf("%s %s %s %v, %d missed %v", of.kind, q.name, q.code, of.answers, len(q.missed), q.missed))
	}
	return all
}

// missing are the questions that a search list makes of a name in vain.
func missing(name string, domains []string) (all []string) {
	for _, domain := range domains {
		all = append(all, asked{name: name + "." + domain, code: "NXDOMAIN"}.lines()...)
	}
	return all
}

// threeResolvers: Go's, glibc's and busybox's ask CoreDNS through its Service for
// a name of another namespace, one that is not there, and one of the outside; and
// a pod on the host's network asks for one name.
func threeResolvers(t *testing.T, s *scene) {
	other := s.ns + "-x"
	s.namespace(other)
	there := s.service("server", "server", 7000, nil)
	there["metadata"].(object)["namespace"] = other
	server := s.coreDNS()
	// Where CoreDNS is, a bridge has the answer translated before it is seen, and the
	// question is seen translated.
	host := place{host: true}
	if _, err := fmt.Sscanf(server.node, "node%d", &host.node); err != nil {
		t.Fatal(err)
	}
	s.apply(t, there, s.service("near", "server", 7000, nil), s.asker("gos", 1), s.asker("glibcs", 2), s.asker("busyboxs", 3),
		s.owned("Deployment", "hosts", podSpec(host, container("main", "sleep", "1000000"))))
	askers := map[string]pod{}
	for _, name := range []string{"gos", "glibcs", "busyboxs", "hosts"} {
		askers[name] = s.ready(s.ns, name, workload{"Deployment", name})
	}
	trace := s.traceLookups(askers["gos"])
	far := s.kubectl(t, "-n", other, "get", "service", "server", "-o", "jsonpath={.spec.clusterIP}")
	names := []string{"server." + other, "nobody." + other, "api.example.com"}
	domains := []string{s.ns + ".svc.cluster.local", "svc.cluster.local", "cluster.local"}
	outside, alias := []string{"edge.example.net", "203.0.113.10"}, []string{"edge.example.net"}

	config, err := s.exec(askers["glibcs"], "cat", "/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	s.getent(askers["glibcs"], config, names...)
	if out, err := s.exec(askers["gos"], "sh", "-ec", `for i; do traffic lookup -name "$i"; done`, "sh", names[0], names[1], names[2]); err != nil {
		t.Fatal(err, out)
	}
	// It fails where a name is not there.
	_, _ = s.exec(askers["busyboxs"], "sh", "-c", `for i; do nslookup "$i"; done`, "sh", names[0], names[1], names[2], "near")
	s.traffic(askers["hosts"], "main", "resolve", "-name", "near."+domains[0])
	near := asked{name: "near." + domains[0], code: "NOERROR", a: []string{s.serviceIP("near")}}.lines()

	// With ndots:5 a name of few dots is tried with each domain first.
	listed := slices.Concat(
		missing(names[0], domains[:1]), asked{name: names[0] + "." + domains[1], code: "NOERROR", a: []string{far}, missed: domains[:1]}.lines(),
		missing(names[1], domains), asked{name: names[1], code: "NXDOMAIN", missed: domains}.lines(),
		missing(names[2], domains), asked{names[2], "NOERROR", outside, alias, domains}.lines(),
	)
	for name, want := range map[string][]string{
		"gos":    listed,
		"glibcs": slices.Clone(listed),
		// It knows no ndots: a name with a dot is asked as it is; any other with all
		// domains at once, so that none is tried because another one missed.
		"busyboxs": slices.Concat(
			asked{name: names[0], code: "NXDOMAIN"}.lines(), asked{name: names[1], code: "NXDOMAIN"}.lines(),
			asked{names[2], "NOERROR", outside, alias, nil}.lines(),
			near, missing("near", domains[1:]),
		),
		"hosts": slices.Clone(near[:1]),
	} {
		p := askers[name]
		var complaints []string
		for _, l := range trace.told(t, p, "client", want) {
			complaints = append(complaints, s.answered(&l, s.throughService(&l, p, server))...)
		}
		if p.host { // which CoreDNS's node only knows as the other node
			want = nil
		}
		// A server does not know what its clients' search lists are.
		for i := range want {
			head, _, _ := strings.Cut(want[i], ", ")
			want[i] = head + ", 0 missed []"
		}
		for _, l := range trace.told(t, p, "server", want) {
			complaints = append(complaints, s.answered(&l, s.atServer(&l, p, server))...)
		}
		if len(complaints) > 0 {
			t.Errorf("%s:\n%s", name, strings.Join(complaints, "\n"))
		}
	}
	s.searchedInVain(map[string]uint64{askers["gos"].name: 14, askers["glibcs"].name: 14, askers["busyboxs"].name: 0, askers["hosts"].name: 0}, domains[0], names[2])
}

// searchedInVain: so many answers to each pod are due to its search list, whose
// first domain misses most.
func (s *scene) searchedInVain(want map[string]uint64, domain, last string) {
	t := s.t
	t.Helper()
	eventually(t, 20*time.Second, func() (complaints []string) {
		rows, err := s.dnsRows("-n", s.ns)
		if err != nil {
			return []string{err.Error()}
		}
		got := map[string]uint64{}
		for _, r := range rows {
			got[r.Client.Pod] += r.SearchMisses
			if r.Server.Service != "kube-system/kube-dns" || r.Timeouts != 0 || r.SearchMisses > 0 && (r.SearchDomain != domain || r.SearchName != last) {
				complaints = append(complaints, fmt.Sprintf("want domain %s, tried with %s, and no timeouts: %s", domain, last, r.text))
			}
		}
		if !maps.Equal(got, want) {
			complaints = append(complaints, fmt.Sprintf("answers due to search lists: got %v, want %v", got, want))
		}
		return complaints
	})
}

// answered adds what else is wrong with a look-up that was answered at once.
func (s *scene) answered(l *lookup, wrong []string) []string {
	if l.LatencyNS == nil || *l.LatencyNS <= 0 || l.Tries != 1 {
		wrong = append(wrong, "want an answer to the first try, and how long it took")
	}
	if len(wrong) > 0 {
		wrong = append(wrong, "  "+l.text)
	}
	return wrong
}

// upstreamAndCache: what CoreDNS asks another server for takes longer than what it
// knows, and is told apart.
func upstreamAndCache(t *testing.T, s *scene) {
	s.apply(t, s.asker("client", 1))
	server := s.coreDNS()
	client := s.ready(s.ns, "client", workload{"Deployment", "client"})
	trace := s.traceLookups(client)
	name := s.ns + ".cold.example.com"
	const times = 5
	if out, err := s.exec(client, "sh", "-ec", fmt.Sprintf("for i in $(seq %d); do traffic resolve -name %s; done", times, name)); err != nil {
		t.Fatal(err, out)
	}
	want := slices.Repeat([]string{"A " + name + " NOERROR [203.0.113.30], 0 missed []"}, times)
	for _, l := range trace.told(t, client, "client", want) {
		if l.Upstream != nil {
			t.Errorf("who asks does not know: %s", l.text)
		}
	}
	fastest, first := int64(0), int64(0)
	for i, l := range trace.told(t, client, "server", want) {
		if wrong := s.answered(&l, s.atServer(&l, client, server)); len(wrong) > 0 {
			t.Fatal(strings.Join(wrong, "\n"))
		}
		if l.Upstream == nil || *l.Upstream != (i == 0) {
			t.Errorf("question %d of CoreDNS: %s", i+1, l.text)
		}
		if i == 0 {
			first = *l.LatencyNS
		} else if fastest == 0 || *l.LatencyNS < fastest {
			fastest = *l.LatencyNS
		}
	}
	if first < int64(outsideDelay) || fastest >= first {
		t.Errorf("from upstream after %v, from the cache after %v; the upstream server takes %v", time.Duration(first), time.Duration(fastest), outsideDelay)
	}
	t.Logf("from upstream after %v, from the cache after %v", time.Duration(first), time.Duration(fastest))
	eventually(t, 20*time.Second, func() []string {
		rows, err := s.dnsRows("--side", "server", "-n", s.ns)
		if err != nil {
			return []string{err.Error()}
		}
		if len(rows) != 1 || rows[0].Client.Pod != client.name || rows[0].Server.Pod != server.name || rows[0].Node != server.node {
			return []string{fmt.Sprintf("want one row, of %s and %s: %+v", client.name, server.name, rows)}
		}
		r := rows[0]
		if r.Upstream == nil || r.Upstream.Count != 1 || r.Upstream.SumUS < uint64(outsideDelay.Microseconds()) || r.Latency == nil || r.Latency.Count != r.Lookups-1 || r.Latency.Count < times {
			return []string{"want one from upstream, the others from the cache: " + r.text}
		}
		return nil
	})
	cutAnswer(t, s, trace, client)
}

// cutAnswer: what does not fit into a packet is asked for again over TCP, by the
// client and by CoreDNS, and both sides say so.
func cutAnswer(t *testing.T, s *scene, trace *lookupTrace, client pod) {
	if out, err := s.exec(client, "traffic", "lookup", "-name", "big.example.com."); err != nil || strings.Count(out, "203.0.113.") != bigAnswer {
		t.Fatal(err, out)
	}
	for _, side := range []string{"client", "server"} {
		eventually(t, 20*time.Second, func() (complaints []string) {
			found := trace.of(func(l *lookup) bool { return l.Name == "big.example.com" && l.Type == "A" && l.Side == side })
			for _, l := range found {
				complaints = append(complaints, l.text)
			}
			if len(found) == 2 && found[0].cut() == "UDP, cut: true, again: false" && found[1].cut() == "TCP, cut: false, again: true" &&
				found[0].AnswerCount < bigAnswer && found[1].AnswerCount == bigAnswer && len(found[1].Answers) == 16 {
				return nil
			}
			return append(complaints, side+": want a look-up over UDP that is cut, and one over TCP with all answers")
		})
	}
}

func (l *lookup) cut() string {
	return fmt.Sprintf("%s, cut: %v, again: %v", l.Protocol, l.Truncated, l.TCPRetry)
}

// dnsRow is what `orb8 dns` says.
type dnsRow struct {
	Node, Side                 string
	Client, Server             party
	Queries, Lookups, Timeouts uint64
	RCodes                     map[string]uint64
	SearchMisses               uint64 `json:"search_misses"`
	SearchDomain               string `json:"search_domain"`
	SearchName                 string `json:"search_name"`
	Latency, Upstream          *struct {
		Count uint64
		SumUS uint64 `json:"sum_us"`
	}

	text string
}

func (c *cluster) dnsRows(args ...string) (all []dnsRow, err error) {
	out, _, err := c.ask(append([]string{"dns", "-o", "json"}, args...)...)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(out) {
		r := dnsRow{text: strings.TrimSpace(line)}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// outward is a connection to the outside as it must be called.
type outward struct {
	made sent
	from pod
	fqdn string // NAME by SOURCE
	tls  string
}

// calls are connections that the traffic program makes, and how they must be called.
type calls struct {
	command, fqdn, tls string
	times              int
}

// calls makes them from a pod, one after the other.
func (s *scene) calls(p pod, list []calls) (all []outward) {
	t := s.t
	t.Helper()
	script := ""
	for _, c := range list {
		script += "traffic " + c.command + "\n"
		for range c.times {
			all = append(all, outward{from: p, fqdn: c.fqdn, tls: c.tls})
		}
	}
	out, err := s.exec(p, "sh", "-ec", script)
	if err != nil {
		t.Fatal(err)
	}
	made := parseSent(t, out)
	if len(made) != len(all) {
		t.Fatalf("%d connections, want %d: %s", len(made), len(all), out)
	}
	for i := range made {
		all[i].made = made[i]
	}
	return all
}

func (s *scene) checkOutward(t *testing.T, all []outward) {
	t.Helper()
	eventually(t, 20*time.Second, func() (complaints []string) {
		told := map[string][]record{}
		for _, o := range all {
			if told[o.from.node] == nil {
				var err error
				if told[o.from.node], err = s.flows(o.from.node); err != nil {
					return []string{err.Error()}
				}
			}
			v := &view{
				node: o.from.node, protocol: "TCP", openedBy: "local",
				local: parseAddress(t, o.made.Local), remote: parseAddress(t, o.made.Remote),
				localAs: s.podAs(o.from, "main", ""), remoteAs: who{Class: "external"},
			}
			r, wrong := v.find(told[o.from.node])
			if r == nil {
				complaints = append(complaints, wrong...)
				continue
			}
			complaints = append(complaints, v.differs(r)...)
			if fqdn, said := r.fqdn(), r.TLS.String(); fqdn != o.fqdn || said != o.tls {
				complaints = append(complaints, fmt.Sprintf("got %q, %q, want %q, %q: %s", fqdn, said, o.fqdn, o.tls, r.text))
			}
		}
		return complaints
	})
}

func (r *record) fqdn() string {
	if r.Remote.FQDN == "" && r.Remote.FQDNSource == "" {
		return ""
	}
	return r.Remote.FQDN + " by " + r.Remote.FQDNSource
}

func (h *hello) String() string {
	if h == nil {
		return ""
	}
	return fmt.Sprintf("%s to %s, %s", h.Version, h.ServerName, strings.Join(h.ALPN, " "))
}

// namesOfTheOutside: an address is called what the pod asked for, or said as it
// called it, and nothing where it did neither, whatever its neighbours did.
func namesOfTheOutside(t *testing.T, s *scene) {
	s.apply(t, s.asker("asks", 1), s.asker("says", 1), s.asker("stranger", 1))
	asks := s.ready(s.ns, "asks", workload{"Deployment", "asks"})
	says := s.ready(s.ns, "says", workload{"Deployment", "says"})
	stranger := s.ready(s.ns, "stranger", workload{"Deployment", "stranger"})
	// The name comes behind protocols that fill more than a segment.
	offered := "h2"
	for i := range 12 {
		offered += fmt.Sprintf(",%02d-%s", i, strings.Repeat("x", 200))
	}
	const api, said, said12 = "api.example.com by dns", "said.example.com by sni", "TLS 1.2 to said.example.com, "
	all := slices.Concat(
		s.calls(asks, []calls{
			{"tls -to api.example.com:443 -server-name api.example.com -alpn h2,http/1.1", api, "TLS 1.3 to api.example.com, h2 http/1.1", 1},
			{"tls -to 203.0.113.10:443 -server-name other.example.net -times 2", api, "TLS 1.3 to other.example.net, ", 2},
			{"tls -to 203.0.113.10:443 -server-name api.example.com -max 1.2 -times 2", api, "TLS 1.2 to api.example.com, ", 2},
		}),
		s.calls(says, []calls{
			{"tls -to 203.0.113.11:443 -server-name said.example.com -parts 3 -alpn " + offered, said, "TLS 1.3 to said.example.com, " + strings.ReplaceAll(offered, ",", " "), 1},
			{"tls -to 203.0.113.11:443 -server-name said.example.com -max 1.2", said, said12, 1},
		}),
		s.calls(stranger, []calls{{"shake -to 203.0.113.10:443", "", "", 1}, {"tls -to 203.0.113.10:443", "", "TLS 1.3 to , ", 1}}),
	)
	s.checkOutward(t, all)

	var want []string
	for _, o := range all {
		if name, _, _ := strings.Cut(o.fqdn, " "); name != "" {
			if ok, _ := path.Match("*.example.com", name); ok {
				want = append(want, o.made.Local)
			}
		}
	}
	out, _, err := s.ask("flows", "-o", "json", "-n", s.ns, "--to-fqdn", "*.example.com", "--limit", "10000")
	if err != nil {
		t.Fatal(err)
	}
	found, err := parseRecords(out)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range found {
		got = append(got, r.Local.address.String())
	}
	slices.Sort(want)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("--to-fqdn '*.example.com': got %v, want %v", got, want)
	}
}

// twoNames: of an address that has two names each pod's connections carry the one
// that this pod asked for, at the same time and on the same node.
func twoNames(t *testing.T, s *scene) {
	names := []string{"one.example.com", "two.example.com"}
	var objects []object
	for i := range 6 {
		objects = append(objects, s.asker(fmt.Sprintf("asks%d", i), i%3+1))
	}
	s.apply(t, objects...)
	var mu sync.Mutex
	var all []outward
	var wg sync.WaitGroup
	for i := range objects {
		p := s.ready(s.ns, fmt.Sprintf("asks%d", i), workload{"Deployment", fmt.Sprintf("asks%d", i)})
		wg.Go(func() {
			// The first three ask for one name, their neighbours for the other.
			name := names[i/3]
			out, err := s.exec(p, "/bin/traffic", "tls", "-to", name+":443", "-times", "5")
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, made := range parseSent(t, out) {
				all = append(all, outward{made, p, name + " by dns", "TLS 1.3 to , "})
			}
		})
	}
	if wg.Wait(); len(all) != 5*len(objects) {
		t.Fatalf("%d connections were made, want %d", len(all), 5*len(objects))
	}
	s.checkOutward(t, all)
}

// silentDNS: while CoreDNS is stopped its clients' look-ups are told as timed out,
// with each try, by both ends; then they are answered again.
func silentDNS(t *testing.T, s *scene) {
	s.apply(t, s.asker("client", 1))
	server := s.coreDNS()
	client := s.ready(s.ns, "client", workload{"Deployment", "client"})
	trace := s.traceLookups(client)
	name := "nobody." + s.ns + ".svc.cluster.local"
	stopped := s.processOf(server, "coredns")
	if err := syscall.Kill(stopped, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	goOn := sync.OnceFunc(func() { _ = syscall.Kill(stopped, syscall.SIGCONT) })
	defer goOn()
	s.getent(client, "nameserver 10.96.0.10\noptions timeout:1 attempts:2\n", name+".")
	want := asked{name: name, code: "TIMEOUT"}.lines()
	for side, differs := range map[string]func(*lookup, pod, pod) []string{"client": s.throughService, "server": s.atServer} {
		for _, l := range trace.told(t, client, side, slices.Clone(want)) {
			wrong := differs(&l, client, server)
			if l.LatencyNS != nil || l.Tries != 2 {
				wrong = append(wrong, "want two tries, and no latency")
			}
			if len(wrong) > 0 {
				t.Errorf("%s\n  %s", strings.Join(wrong, "\n"), l.text)
			}
		}
	}
	goOn()
	eventually(t, 20*time.Second, func() []string {
		rows, err := s.dnsRows("--pod", client.ns+"/"+client.name)
		if err != nil {
			return []string{err.Error()}
		}
		sum := uint64(0)
		for _, r := range rows {
			sum += r.Timeouts
		}
		if sum != 2 {
			return []string{fmt.Sprintf("want 2 timeouts: %+v", rows)}
		}
		return nil
	})
	again := "back." + s.ns + ".svc.cluster.local"
	eventually(t, 20*time.Second, func() []string {
		s.getent(client, "nameserver 10.96.0.10\n", again+".")
		if len(trace.of(func(l *lookup) bool { return l.Name == again && l.RCode == "NXDOMAIN" && l.Side == "client" })) == 0 {
			return []string{"CoreDNS goes on, and no answer is told"}
		}
		return nil
	})
}
