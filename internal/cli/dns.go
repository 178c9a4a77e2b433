// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	orb8v1 "github.com/orb8/orb8/api/orb8/v1"
	"github.com/orb8/orb8/internal/client"
	"github.com/orb8/orb8/internal/render"
)

// dnsRows bounds what is summed up: all rows must be in one answer.
const dnsRows = 100_000

// dnsFlags are the question of orb8 dns.
type dnsFlags struct {
	listFlags
	again againFlags
	by    choice
	side  sideFlag
}

// sideFlag is --side.
type sideFlag struct{ choice }

func (s *sideFlag) add(cmd *cobra.Command) {
	s.allowed = []string{"client", "server"}
	s.choice.add(cmd, "side", "", "what clients on the nodes asked, or what servers on the nodes answered")
}

func (s *sideFlag) server() bool { return s.value == "server" }

func (s *sideFlag) sides() []orb8v1.DnsSide {
	if s.server() {
		return []orb8v1.DnsSide{orb8v1.DnsSide_DNS_SIDE_SERVER}
	}
	return []orb8v1.DnsSide{orb8v1.DnsSide_DNS_SIDE_CLIENT}
}

func (a *app) dns() *cobra.Command {
	var f dnsFlags
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "What pods ask the DNS, how fast it answers, and what is in vain",
		Long: `dns shows a row for each client and the server that it asks, since the agent
started: how many queries, how many a second in the last minutes, how long answers
take (P50: half of them at most that long), and which. TIMEOUTS nobody answered.
SEARCH are answers NXDOMAIN to names that only the client's search list made up:
one look-up that cost several queries.

With --side server it shows what servers on the nodes answered, their latencies
apart: CACHED they knew themselves, for UPSTREAM they asked somebody else. With
--by server a row is a server, with all of its clients. Filters are about either
end. Each look-up as it ends is shown by: orb8 trace dns`,
		Example: `  orb8 dns -n shop
  orb8 dns --by server --watch
  orb8 dns --side server --pod kube-system/coredns-7db6d8ff4d-2xq8r
  orb8 dns -o json | jq -c 'select(.timeouts > 0) | [.client.pod, .server.ip]'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.again.check(); err != nil {
				return err
			}
			return a.ask(cmd.Context(), &f.listFlags, func(c client.Observer) error {
				return a.showPages(cmd.Context(), &f.again, &f.output, func(ctx context.Context) (*page, error) { return a.askDNS(ctx, c, &f) })
			})
		},
	}
	f.by.allowed = []string{"client", "server"}
	f.by.add(cmd, "by", "", "a row for each client and its server, or for each server")
	f.side.add(cmd)
	f.again.add(cmd)
	f.add(cmd, 100, "")
	return cmd
}

func (f *dnsFlags) byServer() bool { return f.by.value == "server" }

func (f *dnsFlags) request() *orb8v1.DnsRequest {
	q := &orb8v1.DnsRequest{Include: podsFilter(&f.include), Exclude: podsFilter(&f.exclude), Sides: f.side.sides(), Limit: f.limit}
	if f.byServer() {
		q.Limit = dnsRows
	}
	return q
}

// dnsAnswer is the rows of an answer, and what it says of them.
type dnsAnswer struct {
	rows    []render.DNSRow
	summary *orb8v1.DnsSummary
}

func (a *app) askDNS(ctx context.Context, c client.Observer, f *dnsFlags) (*page, error) {
	p, got := &page{answer: &answer{from: c}}, dnsAnswer{}
	for m, err := range c.Dns(ctx, f.request()) {
		switch {
		case err != nil:
			return nil, err
		case m.GetDns() != nil:
			got.rows = append(got.rows, render.DNSRow{DnsRecord: m.GetDns(), Clients: 1})
		case m.GetNode() != nil:
			p.hear(m.GetNode())
		case m.GetLoss().GetCount() > 0:
			p.warnings = append(p.warnings, render.Loss(m.GetLoss()))
		case m.GetSummary() != nil:
			got.summary = m.GetSummary()
			p.hearAll(got.summary.GetNodes(), got.summary.GetLosses())
		}
	}
	if err := p.check(got.summary != nil); err != nil {
		return nil, err
	}
	p.shown = len(got.rows)
	p.first = f.about(&got)
	p.hints = dnsHints(got.rows, f.side.server())
	return p, a.drawDNS(p, f, &got)
}

// about says in one line what the answer is.
func (f *dnsFlags) about(got *dnsAnswer) string {
	rows := uint64(len(got.rows))
	switch matched := got.summary.GetMatched(); {
	case rows == 0 && given(podFilters(&f.include), podFilters(&f.exclude)):
		return fmt.Sprintf("no look-ups match (of %d pairs of client and server)", got.summary.GetKnown())
	case rows == 0:
		return "nothing was asked of the DNS"
	case f.byServer() && rows < matched:
		return fmt.Sprintf("the %d of %d pairs of client and server with the most queries are summed up: narrow the filter, or raise the agents' ORB8_MAX_QUERY_LIMIT", rows, matched)
	}
	return render.DNSSummary(got.summary, rows)
}

func (a *app) drawDNS(p *page, f *dnsFlags, got *dnsAnswer) error {
	rows := got.rows
	if f.byServer() {
		rows = byServer(rows)
		rows = rows[:min(len(rows), int(f.limit))]
	}
	table := render.NewDNSTable(a.style(&f.output, a.screen()), render.DNSView{ByServer: f.byServer(), OfServers: f.side.server()})
	for _, r := range rows {
		if !f.output.json() {
			table.Add(r)
		} else if err := render.DNSJSON(&p.body, r); err != nil {
			return err
		}
	}
	if len(rows) > 0 && !f.output.json() {
		return table.Flush(&p.body)
	}
	return nil
}
