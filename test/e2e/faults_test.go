// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// rules puts a table of nftables into a node's own namespace, where network
// policies are, until the row ends.
func (s *scene) rules(node int, table, text string) {
	t := s.t
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	if _, err := s.script(ctx, "table ip "+table+" {\n"+text+"\n}\n", "node", fmt.Sprint(node), "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.do(t, "node", fmt.Sprint(node), "nft", "delete", "table", "ip", table) })
}

// counted reads a counter of such a table.
func (s *scene) counted(node int, table, counter string) uint64 {
	t := s.t
	t.Helper()
	var list struct {
		Nftables []struct{ Counter struct{ Packets uint64 } }
	}
	text := s.do(t, "node", fmt.Sprint(node), "nft", "-j", "list", "counter", "ip", table, counter)
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	sum := uint64(0)
	for _, o := range list.Nftables {
		sum += o.Counter.Packets
	}
	return sum
}

// dropped is what `orb8 drops` says.
type dropped struct {
	Node    string
	At      party
	Reason  string
	Packets uint64
}

// drops are those that a pod has met, by reason.
func (s *scene) drops(p pod) (map[string]dropped, error) {
	out, _, err := s.ask("drops", "-o", "json", "--pod", p.ns+"/"+p.name)
	if err != nil {
		return nil, err
	}
	all := map[string]dropped{}
	for line := range strings.Lines(out) {
		var d dropped
		if err := json.Unmarshal([]byte(line), &d); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		d.Packets += all[d.Reason].Packets
		all[d.Reason] = d
	}
	return all, nil
}

// met says what is wrong with the drops of a pod on its node.
func (s *scene) met(p pod, reason string, packets uint64) []string {
	all, err := s.drops(p)
	if err != nil {
		return []string{err.Error()}
	}
	d := all[reason]
	if d.Packets != packets || d.Node != p.node || d.At.Pod != p.name {
		return []string{fmt.Sprintf("%s dropped: want %d for %s on %s; drops are %+v", reason, packets, p.name, p.node, all)}
	}
	return nil
}

// policyDrops: a rule such as a network policy makes drops all that a client
// sends. The drop has the server's name, and the client's record says that the
// connection was never open.
func policyDrops(t *testing.T, s *scene) {
	client, server := s.pair(place{node: 1}, place{node: 2}, 7300)
	s.rules(2, "orb8_policy", fmt.Sprintf(`counter no {}
chain forward { type filter hook forward priority 10; ip saddr %s ip daddr %s counter name no drop; }`, client.ip, server.ip))
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	to := address{server.ip, 7300}
	out, err := s.script(ctx, "", "kc", "-n", client.ns, "exec", client.name, "--", "/bin/traffic", "send", "-to", to.String(), "-patience", "3s")
	if err == nil {
		t.Fatalf("the rule did not hold: %s", out)
	}
	eventually(t, 20*time.Second, func() []string {
		return s.met(server, "NETFILTER_DROP", s.counted(2, "orb8_policy", "no"))
	})
	eventually(t, 20*time.Second, func() (complaints []string) {
		all, err := s.flows(client.node)
		if err != nil {
			return []string{err.Error()}
		}
		for _, r := range all {
			if r.Local.IP != client.ip || r.Remote.address != to {
				continue
			}
			if (r.Failure == "timed_out" || r.Failure == "given_up") && r.State == "failed" && r.RxPackets == 0 && r.Local.Pod == client.name && r.Remote.Pod == server.name {
				return nil
			}
			complaints = append(complaints, "  "+r.text)
		}
		return append([]string{"no connection of the client has failed"}, complaints...)
	})
}

// both is what `orb8 flows --pair` says.
type both struct {
	ConnectionID string `json:"connection_id"`
	Moving       bool
	Lost         *uint64
	LostBack     *uint64 `json:"lost_back"`
	From, To     *record
	text         string
}

// lossBetweenNodes: rules on the way drop every so many segments each way. Both
// ends' records together say how many.
func lossBetweenNodes(t *testing.T, s *scene) {
	client, server := s.pair(place{node: 1}, place{node: 2}, 7400)
	// Behind the tap of whoever sends, before that of whoever receives. Small
	// frames, one after the other: no segment travels in a larger packet.
	lose := func(node int, table, match string, every int) {
		s.rules(node, table, fmt.Sprintf(`counter lost {}
chain forward { type filter hook forward priority 10; %s tcp flags & (syn | fin | rst) == 0 numgen inc mod %d == %d counter name lost drop; }`, match, every, every-1))
	}
	lose(2, "orb8_there", fmt.Sprintf("ip saddr %s ip daddr %s tcp dport 7400", client.ip, server.ip), 9)
	lose(1, "orb8_back", fmt.Sprintf("ip saddr %s ip daddr %s tcp sport 7400", server.ip, client.ip), 13)
	s.traffic(client, "main", "send", "-to", server.ip+":7400", "-bytes", "400", "-back", "300", "-times", "60")
	there, back := s.counted(2, "orb8_there", "lost"), s.counted(1, "orb8_back", "lost")
	if there == 0 || back == 0 {
		t.Fatalf("nothing was lost: %d there, %d back", there, back)
	}
	eventually(t, 20*time.Second, func() []string {
		found, complaint := s.pairOf(client, 7400)
		if found == nil {
			return []string{complaint}
		}
		switch {
		case found.Moving:
			return []string{"still moving: " + found.text}
		case found.Lost == nil || found.LostBack == nil || *found.Lost != there || *found.LostBack != back:
			return []string{fmt.Sprintf("the rules dropped %d and %d: %s", there, back, found.text)}
		case found.From.TxPackets-found.To.RxPackets != there || found.To.TxPackets-found.From.RxPackets != back:
			return []string{"the records do not say so: " + found.text}
		case found.From.ConnectionID != found.To.ConnectionID, found.From.Retransmits == 0, found.To.Retransmits == 0:
			return []string{"not one connection, or nothing sent again: " + found.text}
		}
		return s.met(server, "NETFILTER_DROP", there)
	})
}

// pairOf is the connection of a client to a port, as both agents together tell.
func (s *scene) pairOf(client pod, port int) (*both, string) {
	out, _, err := s.ask("flows", "--pair", "-o", "json", "--port", fmt.Sprint(port), "--ip", client.ip)
	if err != nil {
		return nil, err.Error()
	}
	for line := range strings.Lines(out) {
		b := both{text: strings.TrimSpace(line)}
		if err := json.Unmarshal([]byte(line), &b); err != nil {
			return nil, fmt.Sprintf("%q: %v", line, err)
		}
		if b.From != nil && b.To != nil {
			return &b, ""
		}
	}
	return nil, "no connection with both ends: " + out
}
