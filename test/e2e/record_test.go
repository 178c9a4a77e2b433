// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// record is a connection as the command line writes it.
type record struct {
	ConnectionID string `json:"connection_id"`
	Node         string
	Protocol     string
	OpenedBy     string `json:"opened_by"`
	FirstSeenNS  int64  `json:"first_seen_ns"`
	LastSeenNS   int64  `json:"last_seen_ns"`
	Local        party
	Remote       party
	Translated   *struct{ Local, Remote address }
	TxBytes      uint64 `json:"tx_bytes"`
	TxPackets    uint64 `json:"tx_packets"`
	RxBytes      uint64 `json:"rx_bytes"`
	RxPackets    uint64 `json:"rx_packets"`
	Retransmits  uint64
	State        string
	Failure      string
	TLS          *hello
	// Of an event.
	TimeNS int64 `json:"time_ns"`

	text string
}

type address struct {
	IP   string
	Port uint16
}

func (a address) String() string {
	ip, err := netip.ParseAddr(a.IP)
	if err != nil {
		return fmt.Sprintf("%q:%d", a.IP, a.Port)
	}
	return netip.AddrPortFrom(ip, a.Port).String()
}

type party struct {
	address
	who
	Process    string
	FQDN       string
	FQDNSource string `json:"fqdn_source"`
}

// hello is what a client said as it began to speak TLS.
type hello struct {
	ServerName string `json:"server_name"`
	ALPN       []string
	Version    string
}

// who is all of an end's name that the matrix checks.
type who struct {
	Class, Namespace, Pod string
	UID                   string `json:"pod_uid"`
	Container             string
	Workload              workload
	Node, Zone, Service   string
}

type workload struct{ Kind, Name string }

// whatever stands for what is not laid down for this row.
const whatever = "*"

// differs compares field by field. A container is compared only where it is
// expected: the far end's is not known by its address.
func (w who) differs(end string, got who) (all []string) {
	for _, f := range []struct{ name, want, got string }{
		{"class", w.Class, got.Class},
		{"namespace", w.Namespace, got.Namespace},
		{"pod", w.Pod, got.Pod},
		{"pod_uid", w.UID, got.UID},
		{"workload", w.Workload.Kind + "/" + w.Workload.Name, got.Workload.Kind + "/" + got.Workload.Name},
		{"node", w.Node, got.Node},
		{"zone", w.Zone, got.Zone},
		{"service", w.Service, got.Service},
		{"container", w.Container, got.Container},
	} {
		if f.want == f.got || f.want == whatever || f.want == whatever+"/" || (f.name == "container" && f.want == "") {
			continue
		}
		all = append(all, fmt.Sprintf("%s.%s: got %q, want %q", end, f.name, f.got, f.want))
	}
	return all
}

// podAs is a pod in full, as its own node names it, or another.
func (c *cluster) podAs(p pod, container, service string) who {
	return who{
		Class: "pod", Namespace: p.ns, Pod: p.name, UID: p.uid, Container: container,
		Workload: p.workload, Node: p.node, Zone: c.zones[p.node], Service: service,
	}
}

func (c *cluster) nodeAs(name string) who {
	return who{Class: "node", Node: name, Zone: c.zones[name]}
}

// flows asks the agent of one node for all that it has, through the kubeconfig.
func (c *cluster) flows(node string) ([]record, error) {
	out, _, err := c.ask("flows", "-o", "json", "--limit", "10000", "--node", node)
	if err != nil {
		return nil, err
	}
	return parseRecords(out)
}

// ask runs the command line where a user of the cluster would: with a
// kubeconfig, and no way to the nodes but the API server's.
func (c *cluster) ask(args ...string) (out, errs string, err error) {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=/run/netns/" + c.settings["P"] + "-cp", c.orb8}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.run+"/pki/admin.conf")
	return outputs(cmd)
}

// askOnNode runs it on the node itself, where the agent listens; the API server
// has no part in it.
func (c *cluster) askOnNode(i int, args ...string) (out, errs string, err error) {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, c.scripts+"/node", append([]string{fmt.Sprint(i), c.orb8, "--agent", "127.0.0.1:9090"}, args...)...)
	cmd.Env = append(os.Environ(), "P="+c.settings["P"], "RUN="+c.run)
	return outputs(cmd)
}

func outputs(cmd *exec.Cmd) (out, errs string, err error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), stderr.String(), err
}

func parseRecords(text string) (all []record, err error) {
	for line := range strings.Lines(text) {
		r := record{text: strings.TrimSpace(line)}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// view is a record as it must be.
type view struct {
	node     string
	protocol string
	// As the socket has them; no port: any.
	local, remote address
	localAs       who
	remoteAs      who
	openedBy      string
	// The addresses on the wire, where they must differ from the socket's; nil:
	// they must not. An address without a port: any.
	translated *[2]address
	// Somebody on the way translates: the two ends do not share a tuple, and
	// with it no connection_id.
	apart bool
}

// find gives the one record of the view's connection; several would be traffic
// that is counted twice.
func (v *view) find(all []record) (*record, []string) {
	var found []*record
	for i := range all {
		r := &all[i]
		if r.Protocol == v.protocol && fits(v.local, r.Local.address) && fits(v.remote, r.Remote.address) && r.OpenedBy == v.openedBy {
			found = append(found, r)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	how := noRecord
	if len(found) > 1 {
		how = fmt.Sprintf("has %d records, and must have one", len(found))
	}
	complaints := []string{fmt.Sprintf("%s %s of %s %v, %v, opened by %s", v.node, how, v.protocol, v.local, v.remote, v.openedBy)}
	for i := range all {
		if r := &all[i]; slices.Contains(found, r) || near(v, r) {
			complaints = append(complaints, "  "+r.text)
		}
	}
	return nil, complaints
}

const noRecord = "has no record"

// near picks what is worth showing when the record is missing: the same two
// addresses.
func near(v *view, r *record) bool {
	return r.Protocol == v.protocol && v.local.IP == r.Local.IP && v.remote.IP == r.Remote.IP
}

func fits(want, got address) bool {
	return (want.IP == "" || want.IP == got.IP) && (want.Port == 0 || want.Port == got.Port)
}

// differs says what is wrong with the record.
func (v *view) differs(r *record) (all []string) {
	all = append(all, v.localAs.differs("local", r.Local.who)...)
	all = append(all, v.remoteAs.differs("remote", r.Remote.who)...)
	if r.Node != v.node {
		all = append(all, fmt.Sprintf("node: got %q, want %q", r.Node, v.node))
	}
	switch {
	case v.translated == nil && r.Translated != nil:
		all = append(all, fmt.Sprintf("translated: got %v, want none", *r.Translated))
	case v.translated != nil && r.Translated == nil:
		all = append(all, fmt.Sprintf("translated: got none, want %v", *v.translated))
	case v.translated != nil:
		if !fits(v.translated[0], r.Translated.Local) || !fits(v.translated[1], r.Translated.Remote) {
			all = append(all, fmt.Sprintf("translated: got %v, want %v", *r.Translated, *v.translated))
		}
	}
	if len(all) > 0 {
		all = append([]string{"asked of " + v.node + ": " + r.text}, all...)
	}
	return all
}

// amounts says what is wrong with a client's record, given what its program
// says. Headers are known: Ethernet 14, IP 20, UDP 8, TCP 32 with timestamps
// and 40 at the handshake, so bytes prove packets. A repeated segment would
// carry more, and its answer, too; then only the two ends are compared.
func (s *sent) amounts(r *record, repeated bool) (all []string) {
	check := func(what string, got, want uint64) {
		if got != want {
			all = append(all, fmt.Sprintf("%s: got %d, want %d: %s", what, got, want, r.text))
		}
	}
	switch {
	case s.Protocol == "UDP":
		check("tx_packets", r.TxPackets, s.Frames)
		check("rx_packets", r.RxPackets, s.Frames)
		check("tx_bytes", r.TxBytes, s.Sent+42*s.Frames)
		check("rx_bytes", r.RxBytes, s.Received+42*s.Frames)
	case s.Protocol == "TCP" && !repeated:
		check("tx_bytes", r.TxBytes, s.Sent+66*r.TxPackets+8)
		check("rx_bytes", r.RxBytes, s.Received+66*r.RxPackets+8)
	}
	return all
}

// mirrored says where two ends of a connection do not agree.
func mirrored(client, server *record) (all []string) {
	for _, f := range []struct {
		name         string
		here, theirs uint64
	}{
		{"client's tx_bytes, server's rx_bytes", client.TxBytes, server.RxBytes},
		{"client's tx_packets, server's rx_packets", client.TxPackets, server.RxPackets},
		{"client's rx_bytes, server's tx_bytes", client.RxBytes, server.TxBytes},
		{"client's rx_packets, server's tx_packets", client.RxPackets, server.TxPackets},
	} {
		if f.here != f.theirs {
			all = append(all, fmt.Sprintf("%s: %d, %d", f.name, f.here, f.theirs))
		}
	}
	if len(all) > 0 {
		all = append(all, "  "+client.text, "  "+server.text)
	}
	return all
}

// pair is a connection and what its two ends must tell.
type pair struct {
	made           sent
	client, server *view
}

// checkConnection asks both ends' agents until both tell what they must.
func (c *cluster) checkConnection(t testing.TB, made sent, client, server *view) {
	t.Helper()
	c.checkAll(t, []pair{{made, client, server}})
}

// checkAll does so for many connections with one question to each node. A flow
// is forgotten 30 s after its last packet: what was right once is not asked for
// again.
func (c *cluster) checkAll(t testing.TB, pairs []pair) {
	t.Helper()
	c.checkBut(t, pairs, 0)
}

// checkBut lets so many of them be wrong, and gives how many are.
func (c *cluster) checkBut(t testing.TB, pairs []pair, may int) (wrong int) {
	t.Helper()
	fewest := repeated(20*time.Second, func() (complaints []string) {
		told := map[string][]record{}
		for _, p := range pairs {
			for _, node := range []string{p.client.node, p.server.node} {
				if told[node] != nil {
					continue
				}
				var err error
				if told[node], err = c.flows(node); err != nil {
					return []string{err.Error()}
				}
			}
		}
		pairs = slices.DeleteFunc(slices.Clone(pairs), func(p pair) bool {
			more := p.differs(told)
			complaints = append(complaints, more...)
			return len(more) == 0
		})
		return complaints
	})
	switch text := strings.Join(fewest, "\n"); {
	case fewest == nil:
		return 0
	case len(pairs) > may:
		t.Fatalf("after 20 s:\n%s", text)
	default:
		t.Logf("let pass: %s", text)
	}
	return len(pairs)
}

// differs says what is wrong with what both ends' nodes have told.
func (p *pair) differs(told map[string][]record) []string {
	here, complaints := p.client.find(told[p.client.node])
	there, more := p.server.find(told[p.server.node])
	complaints = append(complaints, more...)
	if here == nil || there == nil {
		return complaints
	}
	complaints = append(complaints, p.client.differs(here)...)
	complaints = append(complaints, p.server.differs(there)...)
	complaints = append(complaints, p.made.amounts(here, here.Retransmits+there.Retransmits > 0)...)
	complaints = append(complaints, mirrored(here, there)...)
	if same := here.ConnectionID == there.ConnectionID && here.ConnectionID != ""; same == p.server.apart {
		complaints = append(complaints, fmt.Sprintf("connection_id: client's %q, server's %q", here.ConnectionID, there.ConnectionID))
	}
	if here.Translated != nil && here.Translated.Local != there.Remote.address {
		complaints = append(complaints, fmt.Sprintf("client's translated.local is %v, the server sees %v", here.Translated.Local, there.Remote.address))
	}
	return complaints
}

// look asks the view's node for its record; nil when it is not there.
func (c *cluster) look(v *view) (*record, []string) {
	all, err := c.flows(v.node)
	if err != nil {
		return nil, []string{err.Error()}
	}
	r, complaints := v.find(all)
	if r == nil {
		return nil, complaints
	}
	return r, v.differs(r)
}

func parseAddress(t testing.TB, text string) address {
	t.Helper()
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		t.Fatal(err)
	}
	return address{a.Addr().String(), a.Port()}
}
